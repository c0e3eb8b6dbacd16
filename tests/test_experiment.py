"""Loading whole experiments: everything wrong is said at once, with its place, and nothing else can happen."""

import copy
import os
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import train
from codes import registry
from codes.entries import Experiment, WeightSchedule
from codes.experiment import load_experiment, load_plugins
from codes.yaml_source import OptionError

ROOT = Path(__file__).resolve().parents[1]
TINY = (ROOT / "experiments" / "tiny_cpu.yml").read_text(encoding="utf-8")
MID_SIDE = """
from codes.trainer.injector import Injector

class MidSideTestInjector(Injector):
    def forward(self, wav):
        return wav
"""


def load(tmp_path: Path, text: str = TINY, *overrides: str) -> Experiment:
    (tmp_path / "x.yml").write_text(text, encoding="utf-8")
    return load_experiment(tmp_path / "x.yml", list(overrides))


def errors(tmp_path: Path, text: str = TINY, *overrides: str) -> list[str]:
    with pytest.raises(OptionError, match=r"^\S+") as caught:
        load(tmp_path, text, *overrides)
    return str(caught.value).replace(str(tmp_path / "x.yml"), "x.yml").splitlines()


def swap(old: str, new: str) -> str:
    assert TINY.count(old) == 1
    return TINY.replace(old, new)


@pytest.fixture
def _leave_no_plugins() -> Iterator[None]:
    registry.discover()
    before = {kind: dict(classes) for kind, classes in registry._CLASSES.items()}
    yield
    registry._CLASSES.clear()
    registry._CLASSES.update(before)
    for name in [name for name in sys.modules if name.startswith(registry._PLUGIN)]:
        del sys.modules[name]


def test_all_mistakes_are_reported_at_once_with_their_places(tmp_path: Path) -> None:
    text = TINY.replace("bits: 16, in: wav", "bit: 16, in: vaw").replace("nats: nats", "nats: nat")
    text = text.replace("val_freq: 10", "val_freq: ten\n  val_frq: 5").replace("mode: stereo_chunk", "mode: stereo")
    text = text.replace("name: tiny_cpu", "name: CHANGEME").replace("which_model: gpt", "which_model: gtp")
    found = errors(tmp_path, text, "logger.print_freq=often")
    assert found == [
        "x.yml:3:7: CHANGEME is left in 'CHANGEME': put your own value here",
        "x.yml:7:11: there is no dataset 'stereo'; did you mean 'stereo_chunk'?",
        "x.yml:17:18: there is no network 'gtp'; did you mean 'gpt'?",
        "x.yml:31:38: unknown key 'bit' in injector pcm_quantize; did you mean 'bits'?",
        "x.yml:38:13: train.val_freq must be a whole number at least 1 or null, got 'ten'",
        "x.yml:39:3: unknown key 'val_frq' in train; did you mean 'val_freq'?",
        "<logger.print_freq=often>:1:19: logger.print_freq must be a whole number, got 'often'",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("training: lm", "training: lmm", "there is no network 'lmm'; did you mean 'lm'?"),
        ("training: lm", "training: []", "steps.lm: training must name one network or several different ones"),
        ("training: lm", "training: [lm, lm]", "steps.lm: training must name one network or several different ones"),
        ("generator: lm", "generator: gpt", "there is no network 'gpt' (allowed: lm)"),
        ("generator: lm", "generator: [1]", "generator must be the name of a network, got a list"),
        ("samples: {network: lm", "samples: {network: lmm", "there is no network 'lmm'; did you mean 'lm'?"),
        ("samples: {network: lm", "samples: {network: [lm]", "samples.network must be text, got a list"),
        ("eval:\n", "path: {pretrain_model_lmm: x}\neval:\n", "there is no network 'lmm'; did you mean 'lm'?"),
        ("steps:\n", "  unused: {which_model: gpt}\nsteps:\n", "network 'unused' is used nowhere"),
        ("type: interleave_channels, in: codes", "type: interleave_channels, in: [codes, wav]",
         "injector interleave: `in` needs wav, got 2 key(s)"),
        ("type: interleave_channels, in: codes", "type: interleave_channels, in: []", "`in` needs wav, got 0 key(s)"),
        ("type: interleave_channels", "type: for_each, subtype: mu_low", "there is no injector 'mu_low'; did you"),
        ("type: interleave_channels", "type: for_each, subtype: [mu_law]", "must be text, got a list"),
        ("type: interleave_channels", "type: for_each, subtype: mu_law, bit: 8",
         "unknown key 'bit' in injector mu_law; did you mean 'bits'?"),
        ("type: interleave_channels", "type: for_each", "injector for_each: subtype is missing: the name of one of"),
        ("type: interleave_channels", "type: interleave_channels, evry: 2", "; did you mean 'every'?"),
        ("generator: lm, in: sequence", "generator: lm, in: []", "injector predict: `in` needs more keys than 0"),
        ("niter: 20", "niter: 20\n  manual_seed: -1", "train.manual_seed must be a whole number at least 0, got -1"),
        ("nats: nats", "in: [nats, nats, nats, nats, nats]",
         "loss code_length: `in` needs nats, [mask], [direction], [target], got 5 key(s)"),
        ("nats: nats", "in: nats, nats: nats", "loss code_length: give either `in` or nats, not both"),
        ("nats: nats", "mask: nats", "loss code_length: nats is missing: the state key that it reads"),
        ("nats: nats", "nats: nats, weight: {from: 0, to: 1, start_step: 5, end_step: 5}", "must be above start_step"),
        ("nats: nats", "nats: nats, weight: {form: 0, to: 1, start_step: 5, end_step: 6}", "did you mean 'from'?"),
        ("nats: nats", "nats: nats, weight: heavy", "weight must be a number or a mapping, got 'heavy'"),
        ("code_length: {type", "code_length: {weight: true, type", "weight must be a number or a mapping, got True"),
        ("batch_size: 4", "batch_size: -4", "datasets.train.batch_size must be a whole number at least 1, got -4"),
        ("{lr: 1e-2}", "{lr: .nan}", "lr must be a number, got nan (numbers must be finite)"),
        ("{lr: 1e-2}", "{lr: 0}", "steps.lm.optimizer_params.lr must be a number above 0, got 0"),
        ("niter: 20", "niter: true", "train.niter must be a whole number, got True"),
        ("name: tiny_cpu", "name: a/b", "name must be usable as a folder's name, got 'a/b'"),
        ("name: tiny_cpu", "name: 2024", "name must be text, got 2024"),
        ("gpu_ids: []", "fp16: true\nbf16: true", "fp16 and bf16 cannot both be true"),
        ("  train:\n    mode", "  trian:\n    mode", "unknown key 'trian' in datasets"),
        ("    losses:\n      code_length: {type: code_length, nats: nats}\n", "", "steps.lm has no losses"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert any(message in line for line in errors(tmp_path, swap(old, new)))


def test_one_mistake_is_one_line(tmp_path: Path) -> None:
    one_line = [
        ("mode: stereo_chunk", "mode: [3]"), ("which_model: gpt", "which_model: 3"), ("training: lm", "training: 3"),
        ("type: pcm_quantize", "type: {a: 1}"), ("    chunk_frames: 256", "    chunk_frames: x"),
        ("  lm:\n    which_model: gpt\n    kwargs:", "  lm:\n    which_model: gtp\n    kwargs:"),
    ]  # fmt: skip
    assert [len(errors(tmp_path, swap(old, new))) for old, new in one_line] == [1] * len(one_line)
    two_lines = [("path: demo_corpus", "paht: demo_corpus"), ("niter: 20", "nitre: 20")]  # unknown, and missing
    assert [len(errors(tmp_path, swap(old, new))) for old, new in two_lines] == [2, 2]


def test_a_wrong_option_hides_no_wrong_key(tmp_path: Path) -> None:
    found = errors(tmp_path, swap("type: pcm_quantize, bits: 16, in: wav", "type: pcm_quantize, bit: 16, in: vaw"))
    assert "quantise reads 'vaw', which nothing wrote before it" in found[0]
    assert "unknown key 'bit' in injector pcm_quantize" in found[1]


def test_several_mistakes_inside_one_entry_are_all_reported(tmp_path: Path) -> None:
    kwargs = "      layers: x\n      heads: 2.5\n      hed: softmax\n"
    found = errors(tmp_path, swap("      layers: 1\n", kwargs).replace("      heads: 2\n", "", 1))
    assert len(found) == 3
    assert "layers must be a whole number, got 'x'" in found[0]
    assert "heads must be a whole number, got 2.5" in found[1]
    assert "unknown key 'hed' in network gpt; did you mean 'head'?" in found[2]


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("trian.niter=5", "<trian.niter=5>:1:1: unknown key 'trian' in the experiment; did you mean 'train'?"),
        ("train.niter=", "<train.niter=>:1:13: train.niter must be a whole number, got nothing"),
        ("train.niter.x=1", "<train.niter.x=1>:1:1: cannot set 'x' in 20 at x.yml:"),
        ("steps.lm.injectors.predict.in=seq", "predict reads 'seq', which nothing wrote before it"),
        ("networks.lm.kwargs={bits: 16, hed: 3}", ":1:31: unknown key 'hed' in network gpt; did you mean 'head'?"),
    ],
)
def test_overrides_are_checked_like_the_file(tmp_path: Path, override: str, place: str) -> None:
    assert any(place in line for line in errors(tmp_path, TINY, override))


def test_overrides_change_what_they_name(tmp_path: Path) -> None:
    experiment = load(
        tmp_path, TINY, "train.niter=7", "train.niter=9", "samples=", "gpu_ids=[0]", "logger={print_freq: 3}",
        "steps.lm.losses.code_length.weight={from: 0, to: 2, start_step: 0, end_step: 10}",
    )  # fmt: skip
    assert experiment.options.train.niter == 9  # the last one wins
    assert experiment.options.samples is None
    assert experiment.options.gpu_ids == [0]
    assert experiment.options.logger.print_freq == 3
    assert experiment.options.logger.save_checkpoint_freq is None  # the whole section was replaced
    assert experiment.steps[0].losses[0].flags.weight == WeightSchedule(from_=0, to=2, start_step=0, end_step=10)
    assert experiment.steps[0].losses[0].flags.weight_at(5) == 1


def test_val_takes_from_train_what_it_does_not_set(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    experiment = load(tmp_path, TINY, f"datasets.train.path={tmp_path / 'music'}", "datasets.val.context_frames=8")
    train_options = experiment.datasets["train"].built_from.options
    val_options = experiment.datasets["val"].built_from.options
    assert train_options["path"] == val_options["path"] == tmp_path / "music"
    assert (train_options["phase"], val_options["phase"]) == ("train", "val")
    assert (train_options["context_frames"], val_options["context_frames"]) == (256, 8)
    assert (experiment.datasets["train"].flags.batch_size, experiment.datasets["val"].flags.batch_size) == (4, 16)


def test_what_is_wrong_in_train_is_not_said_again_of_val(tmp_path: Path) -> None:
    assert len(errors(tmp_path, swap("context_frames: 256", "context_frames: x"))) == 1
    found = errors(tmp_path, swap("context_frames: 256", "contxt: 1").replace("batch_size: 16", "batch_size: x"))
    assert [re.sub(r"^x.yml:\d+:\d+: ", "", line) for line in found] == [
        "unknown key 'contxt' in dataset stereo_chunk; did you mean 'context_frames'?",
        "datasets.val.batch_size must be a whole number, got 'x'",
    ]


def test_empty_sections_mean_their_defaults(tmp_path: Path) -> None:
    text = swap("eval:\n  max_batches: 2", "eval:").replace("optimizer_params: {lr: 1e-2}", "optimizer_params:")
    text = text.replace("logger:\n  print_freq: 5\n  save_checkpoint_freq: 10", "logger:\npath:")
    text = text.replace("  val:\n    batch_size: 16", "  val:")
    text = re.sub("samples: .*", "samples:", text)
    experiment = load(tmp_path, text)
    assert experiment.options.samples is None
    assert experiment.options.logger.print_freq == 100
    assert experiment.datasets["val"].flags.batch_size == 4


def test_legacy_names_and_pretrained_weights(tmp_path: Path) -> None:
    text = swap("which_model: gpt", "which_model_G: gpt") + "path: {pretrain_model_lm: weights.safetensors}\n"
    experiment = load(tmp_path, text, "path.strict_load=false")
    assert experiment.options.path.pretrain_model == {"lm": Path("weights.safetensors")}
    assert experiment.networks["lm"].built_from.type == "gpt"


def test_empty_files_and_folders_are_lines_too(tmp_path: Path) -> None:
    found = errors(tmp_path, "")
    assert [re.sub(" is missing: .*", "", line) for line in found] == [
        f"x.yml:1:1: {name}" for name in ("name", "datasets", "networks", "steps", "train")
    ]
    with pytest.raises(OptionError, match="the experiment file cannot be read: "):
        load_experiment(tmp_path)


@pytest.mark.usefixtures("_leave_no_plugins")
def test_plugins_are_found_beside_the_yaml_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "mine.py").write_text(MID_SIDE)
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = "plugins: mine.py\n" + swap("type: interleave_channels", "type: mid_side_test")
    experiment = load(tmp_path, text)
    assert experiment.plugins == [tmp_path / "mine.py"]
    assert experiment.steps[0].injectors[1].built_from.build().forward(3) == 3
    del sys.modules[registry._CLASSES["injector"].pop("mid_side_test").__module__]
    load_plugins(tmp_path / "x.yml", ["train.niter=wrong"])  # nothing but the plug-ins counts
    assert registry.find("injector", "mid_side_test")


@pytest.mark.usefixtures("_leave_no_plugins")
def test_a_broken_plugin_is_named_and_everything_else_is_checked(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MID_SIDE)
    (tmp_path / "broken.py").write_text("import no_such_module")
    text = swap("type: interleave_channels", "type: mid_side_tset").replace("niter: 20", "nitre: 20")
    found = errors(tmp_path, "plugins: [broken.py, missing.py, mine.py, 3]\n" + text)
    assert f"x.yml:1:11: plug-in {tmp_path / 'broken.py'} cannot be loaded: ModuleNotFoundError" in found[0]
    assert f"x.yml:1:22: plug-in missing.py does not exist (looked in {tmp_path}, {tmp_path.parent}, " in found[1]
    assert "x.yml:1:43: plugins[3] must be text, got 3" in found[2]
    assert "there is no injector 'mid_side_tset'; did you mean 'mid_side_test'?" in found[3]
    assert any("unknown key 'nitre' in train; did you mean 'niter'?" in line for line in found)


@pytest.mark.usefixtures("_leave_no_plugins")
def test_plugin_classes_that_misbehave_are_problems_of_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "from codes.data.dataset import Dataset\nfrom codes.trainer.injector import Injector\n"
        "class OddDataset(Dataset):\n    @classmethod\n    def provided_keys(cls, options): raise KeyError('no')\n"
        "class OddInjector(Injector):\n    def __init__(self, *, every: int = 1): pass\n"
        "    def forward(self, wav): return wav\n"
    )
    text = "plugins: odd.py\n" + swap("type: interleave_channels", "type: odd")
    found = "\n".join(errors(tmp_path, text, "datasets={train: {mode: odd, batch_size: 1}}"))
    assert "dataset odd: provided_keys() failed: KeyError: 'no' (" in found
    assert "the option 'every' of injector odd is another key's name: rename it" in found


def test_a_constructor_that_refuses_points_at_the_option(tmp_path: Path) -> None:
    experiment = load(tmp_path, TINY, "datasets.train.chunk_frames=0")
    with pytest.raises(OptionError, match=r"^<datasets.train.chunk_frames=0>:1:29: dataset stereo_chunk: chunk_frames"):
        experiment.datasets["train"].built_from.build()


def paths(tree: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield (*above, key)
        yield from paths(tree[key], (*above, key))


VALUES = [
    3, -1, 0, 2.5, True, None, "", "text", [], [1, 2], [None], [[1]], {}, {"a": 1}, {"x": {"y": [1]}}, 10**30,
    float("nan"), float("inf"), "CHANGEME",
]  # fmt: skip


def mutated(tree: Any, rng: random.Random) -> Any:
    """A copy in which one key is dropped, misspelt, given another value, or swapped with another's value."""
    tree = copy.deepcopy(tree)
    every = list(paths(tree))
    *above, last = rng.choice(every)
    node = tree
    for key in above:
        node = node[key]
    kind = rng.randrange(6)
    if kind == 0:
        del node[last]
    elif kind == 1 and isinstance(node, dict):
        renamed = {(f"{key[:-1]}q" if key == last else key): value for key, value in node.items()}
        node.clear()
        node.update(renamed)
    elif kind == 2:
        other: Any = tree
        for key in rng.choice(every):
            other = other[key] if not isinstance(other, (str, int, float)) and other is not None else other
        node[last] = copy.deepcopy(other)
    else:
        node[last] = rng.choice(VALUES)
    return tree


@pytest.mark.parametrize("file", sorted((ROOT / "experiments").glob("*.yml")), ids=lambda file: file.stem)
def test_whatever_is_changed_gives_an_experiment_or_located_errors(tmp_path: Path, file: Path) -> None:
    rng = random.Random(0)
    text = file.read_text(encoding="utf-8")
    tree = yaml.safe_load(text)
    for _ in range(200):
        changed = mutated(tree, rng)
        for _ in range(rng.randrange(3)):
            changed = mutated(changed, rng) if changed else changed
        refused = _refused(tmp_path, yaml.safe_dump(changed, sort_keys=False))
        assert all(re.match(r"x\.yml:\d+:\d+: \S", line) and "Node(" not in line for line in refused), refused
    for _ in range(60):  # the text itself: a line doubled, dropped or torn
        lines = text.splitlines()
        at = rng.randrange(len(lines))
        lines[at : at + 1] = rng.choice([[lines[at]] * 2, [], [lines[at][: rng.randrange(1 + len(lines[at]))]]])
        assert all(re.match(r"x\.yml:\d+:\d+: \S", line) for line in _refused(tmp_path, "\n".join(lines)))


def _refused(folder: Path, text: str) -> list[str]:
    try:
        load(folder, text)
    except OptionError as error:
        return str(error).replace(str(folder / "x.yml"), "x.yml").splitlines()
    return []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-opt", "none.yml"], 2, "none.yml:1:1: the experiment file does not exist\n"),
        (["-opt", ".", "--check"], 2, ".:1:1: the experiment file cannot be read: Is a directory\n"),
        (["--list", "pcm_quantise"], 2, "did you mean 'pcm_quantize'?\n"),
    ],
)
def test_the_command_line_says_it_and_ends_with_2(
    arguments: list[str], status: int, message: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    assert train.main() == status
    captured = capsys.readouterr()
    assert captured.err.endswith(message)
    assert "Traceback" not in captured.err
    assert os.listdir(tmp_path) == []


def test_dlas_keys_without_effect_are_named_in_one_line() -> None:
    overrides = ["keep_optimizer_states_on_cpu=true", "eval.pure=true", "ddp_static_graph=false"]
    (line,) = [
        w for w in load_experiment(ROOT / "experiments" / "tiny_cpu.yml", overrides).warnings if "no effect" in w
    ]
    assert line == "no effect yet: keep_optimizer_states_on_cpu (line 1), eval.pure (line 1)"
