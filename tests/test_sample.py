"""scripts/sample.py on small runs of each kind of network: lengths, repeatability, styles, prompts and errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from codes.experiment import load_experiment
from codes.trainer.continuation import Continuation
from codes.trainer.extensible_trainer import ExtensibleTrainer
from scripts import sample as command
from tests.conftest import SAMPLE_RATE_HZ, stereo_music, write_wav

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
KINDS = ("lofi_lstm", "lofi_variational", "lofi_gan", "lofi_conv_lstm", "tiny_cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each kind, trained for a step."""
    root = tmp_path_factory.mktemp("runs")
    for number in range(4):
        write_wav(root / "music" / f"{number}.wav", stereo_music(60_000, seed=number))
    for name in KINDS:
        overrides = [
            f"datasets.train.path={root / 'music'}", f"path.root={root}", "train.niter=1",
            "datasets.train.batch_size=2",
            "datasets.train.n_workers=0", "use_tb_logger=false", "samples=null", "eval.baselines=false",
            "eval.max_batches=1",
        ]  # fmt: skip
        ExtensibleTrainer(load_experiment(EXPERIMENTS / f"{name}.yml", overrides)).train()
    return root


@pytest.fixture
def sample(runs: Path, tmp_path: Path) -> Callable[..., list[np.ndarray]]:
    """`sample(kind, *arguments)`: the continuations (C, T) that the command wrote."""

    def make(kind: str, *arguments: str, out: str = "out") -> list[np.ndarray]:
        folder = tmp_path / out
        assert command.main(["--run", str(runs / kind), "--out", str(folder), *arguments]) == 0
        files = sorted(path for path in folder.glob("*.wav") if path.stem != "prompt")
        assert all(path.with_suffix(".png").is_file() for path in files)
        return [soundfile.read(path, dtype="int16", always_2d=True)[0].T for path in files]

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_goes_on_for_as_long_as_asked(
    kind: str, sample: Callable[..., list[np.ndarray]], tmp_path: Path
) -> None:
    rate = {"lofi_conv_lstm": 22050, "tiny_cpu": 22050}.get(kind, 4410)
    seconds = "0.02" if kind == "tiny_cpu" else "0.3"
    options = ("--seconds", seconds, "--num", "3", "--prompt-seconds", "0.1", "--seed", "5")
    made = sample(kind, *options)
    prompt = soundfile.read(tmp_path / "out" / "prompt.wav", dtype="int16", always_2d=True)[0].T
    stride = 441 if kind == "lofi_conv_lstm" else 1
    assert prompt.shape[1] == round(0.1 * rate) // stride * stride
    assert len(made) == 3
    for audio in made:
        assert audio.shape == (len(prompt), prompt.shape[1] + round(float(seconds) * rate))
        assert np.array_equal(audio[:, : prompt.shape[1]], prompt)
    assert not np.array_equal(made[0], made[1])
    again = sample(kind, *options, out="again")
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    other = sample(kind, *options[:-1], "6", out="other")
    assert not np.array_equal(made[0], other[0])


def test_another_style_begins_where_it_is_asked_to(sample: Callable[..., list[np.ndarray]]) -> None:
    options = ("--seconds", "0.5", "--num", "2", "--prompt-seconds", "0.1")
    plain = sample("lofi_variational", *options)
    changed = sample("lofi_variational", *options, "--style-at", "0.25", out="changed")
    border = 441 + round(0.25 * 4410)
    for before, after in zip(plain, changed, strict=True):
        assert np.array_equal(before[:, :border], after[:, :border])
        assert not np.array_equal(before[:, border:], after[:, border:])


def test_a_prompt_of_another_rate_depth_and_number_of_channels(
    sample: Callable[..., list[np.ndarray]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wav(tmp_path / "prompt.wav", stereo_music(30_000, bits=24), 44100, 24)
    made = sample("lofi_lstm", "--prompt", str(tmp_path / "prompt.wav"), "--seconds", "0.1", "--num", "1")
    assert made[0].shape == (1, 3000 + 441)
    out = capsys.readouterr().out
    assert "the prompt's channels were mixed to one" in out
    assert "shifted from 24 to 16 bits" in out
    assert "resampled from 44100 to 4410 Hz" in out


def test_the_best_checkpoint_is_taken(runs: Path) -> None:
    run = Continuation(runs / "lofi_lstm")
    assert run.checkpoint.name == "step_00000001"
    assert run.name == "lstm"
    assert Continuation(runs / "lofi_gan").name == "generator"
    assert Continuation(runs / "lofi_conv_lstm").frames_per_value == 441


def test_a_run_with_lora_can_be_heard(runs: Path, sample: Callable[..., list[np.ndarray]]) -> None:
    overrides = [
        f"datasets.train.path={runs / 'music'}", f"path.root={runs}", "train.niter=1", "datasets.train.batch_size=2",
        "use_tb_logger=false", "samples=null", "eval.baselines=false", "eval.max_batches=1", "name=with_lora",
        "networks.lm.lora={r: 2, targets: [qkv]}",
    ]  # fmt: skip
    ExtensibleTrainer(load_experiment(EXPERIMENTS / "tiny_cpu.yml", overrides)).train()
    assert len(sample("with_lora", "--seconds", "0.01", "--num", "2", "--prompt-seconds", "0.05")) == 2


def test_a_t5_predicts_items_of_the_validation_set(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"layers": 1, "decoder_layers": 1, "model_dim": 16, "heads": 2, "feed_forward_dim": 16}
    overrides = [
        f"datasets.train.path={runs / 'music'}", f"path.root={runs}", "train.niter=1", "datasets.train.batch_size=2",
        "use_tb_logger=false", "eval.baselines=false", "eval.max_batches=1", "samples.new_frames=2",
        "samples.prompt_frames=64", "bf16=false",
        *(f"networks.t5.kwargs.{key}={value}" for key, value in small.items()),
    ]  # fmt: skip
    ExtensibleTrainer(load_experiment(EXPERIMENTS / "t5_denoising.yml", overrides)).train()
    made = []
    for out in ("first", "second"):
        arguments = ["--run", str(runs / "t5_denoising"), "--out", str(tmp_path / out), "--seconds", "0.001"]
        assert command.main([*arguments, "--num", "2"]) == 0
        names = sorted(path.name for path in (tmp_path / out).glob("*.wav"))
        assert names == [f"{number}_{name}.wav" for number in (0, 1) for name in ("given", "model", "real")]
        made.append([soundfile.read(tmp_path / out / name, dtype="int16", always_2d=True)[0] for name in names])
    given, model, real = made[0][:3]
    assert given.shape == model.shape == real.shape == (64 + 22, 1)
    assert np.array_equal(model[:64], real[:64])
    assert not np.array_equal(model, real)
    assert all(np.array_equal(one, other) for one, other in zip(*made, strict=True))
    assert command.main([*arguments, "--prompt", "any.wav"]) == 2
    assert "--prompt and --style-at: network t5 predicts one piece of audio from another" in capsys.readouterr().err
    options = runs / "t5_denoising" / "options.yml"
    options.write_text(yaml.safe_dump({**yaml.safe_load(options.read_text()), "samples": None}, sort_keys=False))
    assert command.main(arguments) == 2
    assert "its options.yml must say under `samples` how" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("nowhere", (), "is no run: it has no options.yml"),
        ("lofi_lstm", ("--network", "other"), "--network must name a network that can go on (lstm): other cannot"),
        ("lofi_gan", ("--network", "discriminator"), "(generator): discriminator cannot"),
        ("lofi_lstm", ("--style-at", "1"), "this network has no style to change"),
        ("tiny_cpu", ("--style-at", "1"), "network lm (Gpt) has no style"),
        ("lofi_lstm", ("--style-at", "7"), "--style-at must be 0 to --seconds (5.0)"),
        ("lofi_gan", ("--top-k", "5"), "--top-k and --top-p: network generator has no list of codes"),
        ("lofi_gan", ("--top-k", "-1"), "--top-k is -1"),
        ("lofi_lstm", ("--seconds", "0"), "--seconds is 0.0: it must be above 0"),
        ("lofi_lstm", ("--num", "0"), "--num is 0: it must be above 0"),
        ("lofi_lstm", ("--prompt", "missing.wav"), "missing.wav"),
        ("lofi_lstm", ("--checkpoint", "missing"), "missing is not a checkpoint"),
    ],
)
def test_errors(
    kind: str, arguments: Any, message: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--run", str(runs / kind), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_prompt_with_too_few_channels_or_frames(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wav(tmp_path / "mono.wav", stereo_music(300)[:, :1], SAMPLE_RATE_HZ)
    for kind, message in (("tiny_cpu", "the prompt has 1 channel(s)"), ("lofi_conv_lstm", "441 or more are needed")):
        arguments = ["--run", str(runs / kind), "--out", str(tmp_path / "out"), "--prompt", str(tmp_path / "mono.wav")]
        assert command.main(arguments) == 2
        assert message in capsys.readouterr().err
