"""Runs over codes: every pattern trains and is heard; scripts/sample.py streams; live and cached codes; bad input."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from codes.experiment import load_experiment
from codes.models.pretrained_codec import PretrainedCodec
from codes.trainer.checkpoint import CheckpointError
from codes.trainer.code_sampling import CodesWay, Stream
from codes.trainer.continuation import Continuation, Prompt
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.injectors.codes import CachedCodesInjector
from codes.trainer.metrics import read_metrics
from codes.yaml_source import OptionError
from scripts import sample as command
from tests.codecs import coded_audio, own_codec

FILE = Path(__file__).parents[2] / "experiments" / "codes_gpt.yml"
GRID = "{num_codebooks: 4, codebook_size: 256, layers: 1, model_dim: 32, heads: 2, max_length: 64}"
SEQUENCE = "{vocabulary: 1024, num_channels: 1, layers: 1, model_dim: 32, heads: 2, max_length: 64}"
FRAMED = "{vocabulary: 256, num_channels: 4, layers: 1, model_dim: 32, heads: 2, max_length: 64, tied: true}"
PATTERNS = {
    "flatten": ("gpt", FRAMED, ""), "stereo": ("gpt", FRAMED, ""),
    "coarse_first": ("gpt", SEQUENCE, ", distinct: true"),
    "parallel": ("codes_gpt", GRID, ""), "delay": ("codes_gpt", GRID, ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("coded")


def overrides(root: Path, name: str, *more: str) -> list[str]:
    return [
        *coded_audio("codes_gpt", root), f"path.root={root}", f"name={name}", "train.niter=2", "train.val_freq=2",
        "datasets.train.batch_size=2", "datasets.val.batch_size=2", "eval.max_batches=1", "use_tb_logger=false", *more,
    ]  # fmt: skip


def arranged(pattern: str) -> list[str]:
    network, kwargs, extra = PATTERNS[pattern]
    size = f"pattern: {pattern}, num_codebooks: 4"
    return [
        f"networks.lm={{which_model: {network}, kwargs: {kwargs}}}",
        "steps.lm.injectors.flatten="
        f"{{type: arrange_codes, {size}, codebook_size: 256{extra}, in: frames, out: tokens}}",
        f"steps.lm.injectors.by_codebook={{type: restore_codes, {size}, in: token_nats, out: nats}}",
    ]


def trained(root: Path, name: str, *more: str) -> Path:
    ExtensibleTrainer(load_experiment(FILE, overrides(root, name, *more))).train()
    return root / name


@pytest.fixture(scope="module")
def run(root: Path) -> Path:
    return trained(root, "flatten", *arranged("flatten"))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_trains_and_is_heard(pattern: str, root: Path) -> None:
    folder = trained(root, f"of_{pattern}", *arranged(pattern))
    lines = read_metrics(folder / "metrics.jsonl")
    vocabulary = 1024 if pattern == "coarse_first" else 256
    assert [line["split"] for line in lines] == ["train", "val", "train_eval"]
    assert abs(lines[0]["code_length"] - math.log(vocabulary)) < 0.2
    assert {f"code_length.bits_codebook_{k}" for k in range(4)} | {"code_length.bits_per_second"} <= lines[1].keys()
    assert "to beat on the validation codes" in (folder / "log.txt").read_text()
    made, rate = soundfile.read(folder / "samples" / "step_00000002" / "0_model.wav")
    real, _ = soundfile.read(folder / "samples" / "step_00000002" / "0_real.wav")
    assert (len(made), len(real), rate) == (6 * 320, 6 * 320, 16000)
    assert np.array_equal(made[: 4 * 320], real[: 4 * 320])  # this codec is causal
    assert not np.array_equal(made, real)


def test_sampling_goes_on_after_a_prompt_and_repeats(run: Path, tmp_path: Path, capsys: Any) -> None:
    prompt = next((run.parent / "audio").glob("*.wav"))
    options = ["--run", str(run), "--prompt", str(prompt), "--seconds", "0.5", "--num", "2", "--top-k", "50"]
    options += ["--temperature", ".9", "--top-p", ".95", "--prompt-seconds", "0.1"]
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert command.main([*options, "--seed", seed, "--out", str(tmp_path / name)]) == 0
    assert "times real time" in capsys.readouterr().out
    sounds = {
        (name, k): soundfile.read(tmp_path / name / f"{k}.wav", dtype="int16")[0] for name in "abc" for k in (0, 1)
    }
    assert {len(sound) for sound in sounds.values()} == {1600 + 8000}
    assert np.array_equal(sounds["a", 0], sounds["b", 0])
    assert np.array_equal(sounds["a", 1], sounds["b", 1])
    assert not np.array_equal(sounds["a", 0], sounds["a", 1])
    assert not np.array_equal(sounds["a", 0], sounds["c", 0])
    assert (tmp_path / "a" / "0.png").is_file()
    assert command.main(["--run", str(run), "--seconds", "0.1", "--num", "1", "--out", str(tmp_path / "val")]) == 0


@pytest.mark.parametrize("causal", [True, False])
def test_a_stream_gives_what_decoding_at_once_gives(causal: bool, tmp_path: Path) -> None:
    codec = PretrainedCodec(path=own_codec(tmp_path, causal=causal))
    way = CodesWay([CachedCodesInjector(codec=codec)], torch.nn.Identity())
    codes = torch.randint(16, (2, 4, 130))
    parts: list[torch.Tensor] = []
    stream = Stream(way, 0, parts.append)
    for frames in (1, 3, 64, 64, 129, 130):
        stream(codes[:, :, :frames])
    stream(codes, last=True)
    assert len(parts) == 4
    assert torch.allclose(torch.cat(parts, 2), way.sound(codes), atol=1e-4)


def test_live_codes_are_those_of_the_cache(root: Path) -> None:
    """The same windows of audio through encodec_codes: a run trains and is heard without a cache."""
    coded_audio("codes_gpt", root)
    live = [
        f"datasets.train={{mode: mono_chunk, path: {root / 'audio'}, chunk_frames: 2560, batch_size: 2}}",
        "steps.lm.injectors.cached={type: encodec_codes, codec: codec, in: wav, out: frames}",
    ]
    kept = [text for text in overrides(root, "live", *arranged("delay")) if not text.startswith("datasets.train.")]
    ExtensibleTrainer(load_experiment(FILE, [*kept, *live])).train()
    assert (root / "live" / "samples" / "step_00000002" / "0_model.wav").is_file()
    assert Continuation(root / "live").sample_rate_hz == 16000


def test_what_is_refused(run: Path, root: Path, tmp_path: Path, capsys: Any) -> None:
    short = tmp_path / "short.wav"
    soundfile.write(short, np.zeros(300, np.int16), 16000)
    arguments = ["--run", str(run), "--out", str(tmp_path / "out")]
    assert command.main([*arguments, "--prompt", str(short)]) == 2
    assert "the prompt has 300 frames: 320 or more are needed" in capsys.readouterr().err
    soundfile.write(short, np.zeros(6400, np.int16), 16000)  # silence is a prompt like any other
    assert command.main([*arguments, "--prompt", str(short), "--seconds", "0.1", "--num", "1"]) == 0
    assert command.main([*arguments, "--prompt", str(short), "--top-p", "0"]) == 2
    assert "--top-p 0.0: 0 or more, and above 0 up to 1" in capsys.readouterr().err
    with pytest.raises(OptionError, match="prompt_frames is 319, shorter than a frame of the codec, 320 samples"):
        ExtensibleTrainer(load_experiment(FILE, overrides(root, "x", "samples.prompt_frames=319")))
    other = own_codec(tmp_path / "other", seed=3, sample_rate_hz=16000, ratios=[8, 5, 4, 2], codebook_size=256)
    with pytest.raises(OptionError, match="the codes were made by other weights"):
        ExtensibleTrainer(load_experiment(FILE, overrides(root, "x", f"networks.codec.kwargs.path={other}")))
    with pytest.raises(OptionError, match="it makes 2 codebooks, the dataset gives 4: set num_codebooks in both"):
        ExtensibleTrainer(load_experiment(FILE, overrides(root, "x", "networks.codec.kwargs.num_codebooks=2")))


def test_a_run_does_not_go_on_with_another_codec(root: Path, tmp_path: Path) -> None:
    run = trained(root, "moved", *arranged("flatten"), "samples=null")
    text = (run / "options.yml").read_text()
    other = own_codec(tmp_path / "other", seed=3, sample_rate_hz=16000, ratios=[8, 5, 4, 2], codebook_size=256)
    (run / "options.yml").write_text(text.replace(str(root / "small_codec"), str(other)))
    with pytest.raises((CheckpointError, ValueError), match="the codec's weights are not those"):
        Continuation(run)
    (run / "options.yml").write_text(text.replace("model_dim: 32", "model_dim: 64"))
    with pytest.raises(CheckpointError, match="does not fit network lm"):
        Continuation(run)
    (run / "options.yml").write_text(text)
    way = Continuation(run)
    prompt, _ = way.fit(Prompt(pcm=np.zeros((1, 640), np.int16), bits=16, sample_rate_hz=16000))
    parts: list[np.ndarray] = []
    way.stream(prompt, 700, 3, temperature=1.0, seed=0, top_k=0, top_p=1.0, write=parts.append)
    assert np.concatenate(parts, 2).shape == (3, 1, 1340)
