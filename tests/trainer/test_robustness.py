"""What a review found: bit depths, changed data, broken files in workers, late errors of sampling, in-place changes."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from codes.experiment import load_experiment
from codes.trainer import precision
from codes.trainer.check import check
from codes.trainer.checkpoint import CheckpointError, list_checkpoints
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.optim import Updater
from codes.yaml_source import OptionError

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "experiments" / "tiny_cpu.yml"


@pytest.fixture
def tiny(tmp_path: Path, make_stereo_folder: Callable[..., Path]) -> Callable[..., list[str]]:
    """Overrides that point the smallest experiment at a small folder."""

    def overrides(*more: str, folder: Path | None = None) -> list[str]:
        path = folder or make_stereo_folder(num_files=4, num_samples=4096)
        common = [
            "train.niter=2",
            "train.val_freq=2",
            "logger.print_freq=1",
            "samples.new_frames=4",
            "eval.max_batches=1",
        ]
        return [f"datasets.train.path={path}", f"path.root={tmp_path / 'runs'}", *common, *more]

    return overrides


def run(overrides: list[str]) -> ExtensibleTrainer:
    trainer = ExtensibleTrainer(load_experiment(TINY, overrides))
    trainer.train()
    return trainer


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("bits", [8, 24])
def test_depths_narrower_than_their_dtype_keep_every_bit(
    bits: int, between: bool, tiny: Any, make_stereo_folder: Callable[..., Path], tmp_path: Path
) -> None:
    text = TINY.read_text()
    if between:  # an injector between the dataset and the quantiser keeps the depth
        text = text.replace("      quantise: {", "      same: {type: direct, in: wav, out: again}\n      quantise: {")
        text = text.replace("bits: 16, in: wav", "bits: 16, in: again")
    changed = tmp_path / "changed.yml"
    changed.write_text(text)
    folder = make_stereo_folder(num_files=4, num_samples=4096, bits=bits)
    keys = ("datasets.train.bits", "steps.lm.injectors.quantise.bits", "networks.lm.kwargs.bits")
    depth = [f"{key}={bits}" for key in keys]
    trainer = ExtensibleTrainer(load_experiment(changed, tiny(*depth, folder=folder)))
    batch = trainer.parts.train_loader.batch(0)
    quantise = next(bound for bound in trainer.parts.steps[0].injectors if bound.name == "quantise")
    codes = quantise.injector.forward(batch["wav"])
    assert torch.equal(codes - 2 ** (bits - 1), batch["wav"].long())
    assert len(codes.unique()) > 10


def test_the_depth_reaches_the_injector_inside_for_each(tiny: Any) -> None:
    each = "steps.lm.injectors.each={type: for_each, subtype: pcm_quantize, bits: 24, in: wav, out: deep}"
    trainer = ExtensibleTrainer(load_experiment(TINY, tiny("datasets.train.bits=24", each)))
    each_of = next(bound.injector for bound in trainer.parts.steps[0].injectors if bound.name == "each")
    wav = trainer.parts.train_loader.batch(0)["wav"]
    assert torch.equal(each_of.forward(wav) - 2**23, wav.long())


def test_a_depth_that_is_not_the_datasets_is_refused(tiny: Any) -> None:
    with pytest.raises(OptionError, match=r"quantise: input_bits is 24, the integers of datasets\.train have 16 bits"):
        ExtensibleTrainer(load_experiment(TINY, tiny("steps.lm.injectors.quantise.input_bits=24")))


def test_changed_data_is_not_continued(tiny: Any, tmp_path: Path, make_stereo_folder: Callable[..., Path]) -> None:
    folder = make_stereo_folder(num_files=5, num_samples=4096)
    run(tiny(folder=folder))
    next(folder.glob("**/*.wav")).unlink()
    with pytest.raises(CheckpointError, match=r"(?s)the data of .* has changed:.* files: was \d+, is \d+.*--fresh"):
        ExtensibleTrainer(load_experiment(TINY, tiny("train.niter=4", folder=folder)))


def test_samples_come_after_the_save_and_are_made_up_for(tiny: Any, tmp_path: Path) -> None:
    trainer = run(overrides := tiny())
    samples = trainer.folder.samples / "step_00000002"
    assert (samples / "0_model.wav").exists()
    shutil.rmtree(samples)  # as if it had been killed after the last checkpoint
    run(overrides)
    assert (samples / "0_model.wav").exists()


def test_what_cannot_be_sampled_is_known_before_training(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"samples: top_k is 5: a logistics head has no list of codes"):
        ExtensibleTrainer(load_experiment(TINY, tiny("samples.top_k=5")))
    with pytest.raises(OptionError, match=r"samples\.given_channel is 5: the audio has 2 channels"):
        check(load_experiment(TINY, tiny("samples.given_channel=5")))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_breaks_while_training_is_one_line_and_nothing_is_lost(
    workers: int, tiny: Any, tmp_path: Path, make_stereo_folder: Callable[..., Path]
) -> None:
    folder = make_stereo_folder(num_files=4, num_samples=4096)
    overrides = tiny(f"datasets.train.n_workers={workers}", "train.niter=10000", "samples=", folder=folder)
    (tmp_path / "breaks.py").write_text(BREAKS)
    overrides += [
        f"plugins=[{tmp_path / 'breaks.py'}]",
        "steps.lm.injectors.break={type: break_files, in: path, out: ok}",
    ]
    command = [sys.executable, str(ROOT / "train.py"), "-opt", str(TINY), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert ".wav" in done.stderr
    assert "StereoChunkDataset, item" in done.stderr
    assert list_checkpoints(tmp_path / "runs" / "tiny_cpu" / "checkpoints")


BREAKS = '''
from codes.trainer.injector import Injector


class BreakFilesInjector(Injector):
    """Cuts the files of the batch short, as a disk might."""

    def forward(self, path):
        for name in path:
            with open(name, "r+b") as file:
                file.truncate(100)
        return path
'''


def test_a_long_streak_between_two_log_lines_is_seen() -> None:
    network = torch.nn.Linear(1, 1)
    updater = Updater(network, torch.optim.AdamW(network.parameters(), fused=True))
    updater._norms = [torch.tensor(x) for x in (1.0, float("nan"), float("inf"), float("nan"), 2.0)]
    assert updater.read_norms() == 2.0
    assert (updater.skipped, updater.streak, updater.longest_streak) == (3, 0, 3)
    updater._norms = [torch.tensor(1.0)]
    updater.read_norms()
    assert updater.longest_streak == 0


PLUGIN = '''
from codes.trainer.injector import Injector


class NothingInjector(Injector):
    """Forgets to return."""

    def forward(self, wav):
        wav + 1


class TwiceInjector(Injector):
    """Returns too much."""

    def forward(self, wav):
        return wav, wav


class InPlaceInjector(Injector):
    """Changes what it was given."""

    def forward(self, wav):
        wav.mul_(2)
        return wav + 0
'''


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "parts.py"
    path.write_text(PLUGIN)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nothing", r"\d+:\d+: extra: ValueError: extra returned nothing for x: is a `return` missing\?"),
        ("twice", r"\d+:\d+: extra: ValueError: extra returned 2 values for 1 keys? under out \(x\)"),
        ("in_place", r"\d+:\d+: extra: ValueError: it changes 'wav' in place"),
    ],
)
def test_check_says_in_a_line_what_an_injector_does_wrong(kind: str, message: str, tiny: Any, faulty: Path) -> None:
    extra = f"steps.lm.injectors.extra={{type: {kind}, in: wav, out: x}}"
    with pytest.raises(OptionError, match=message):
        check(load_experiment(TINY, tiny(f"plugins=[{faulty}]", extra)))


def test_bfloat16_needs_a_cpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: False)
    for flags in ({"fp16": False, "bf16": True}, {"fp16": True, "bf16": False}):
        chosen = precision.Precision(torch.device("cpu"), **flags)
        assert chosen.dtype == torch.float32
        assert "this CPU has no bfloat16 arithmetic" in chosen.note
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)
    assert precision.Precision(torch.device("cpu"), fp16=True, bf16=False).dtype == torch.bfloat16


CONDITIONS = [
    ("{type: direct, in: codes, out: z, every: 2}", "every"),
    ("{type: direct, in: codes, out: z, before: 9}", "before"),
    ("{type: direct, in: codes, out: z, no_accum: true}", "no_accum"),
]


@pytest.mark.parametrize(("entry", "why"), CONDITIONS)
def test_a_conditional_writer_needs_conditional_readers(entry: str, why: str, tiny: Any) -> None:
    file = TINY.read_text()
    file = file.replace("      interleave: {", f"      some: {entry}\n      interleave: {{").replace(
        "in: codes, out: seq", "in: z, out: seq"
    )
    path = Path(tiny()[1].partition("=")[2]).parent / "x.yml"
    path.write_text(file)
    with pytest.raises(OptionError, match=rf"interleave reads 'z', which some does not always write \({why}\)"):
        load_experiment(path)


def test_the_comparison_says_which_data_it_is_of(tiny: Any) -> None:
    trainer = run(tiny())
    known = json.loads((trainer.folder.path / "baselines.json").read_text())
    assert known["data"] == trainer.parts.datasets["val"].fingerprint()


def test_what_is_best_by_a_loss_is_not_compared_with_flac(tiny: Any) -> None:
    lines = (run(tiny("eval.best_by=code_length")).folder.path / "log.txt").read_text().splitlines()
    assert any("best validation of code_length: " in line for line in lines)
    assert not any("% of FLAC" in line for line in lines)


def test_datasets_of_different_depths_are_refused(tiny: Any) -> None:
    with pytest.raises(OptionError, match=r"integers differ in depth \(train 16, val 24\)"):
        ExtensibleTrainer(load_experiment(TINY, tiny("datasets.val.bits=24")))


def test_the_first_step_is_said_where_figures_come_later(tiny: Any) -> None:
    """Until then there is nothing to see of a run that works."""
    said = "the first step is made; figures follow every 2 steps"
    log = run(tiny("logger.print_freq=2", "train.val_freq=null", "samples=null")).folder.path / "log.txt"
    assert log.read_text().count(said) == 1
