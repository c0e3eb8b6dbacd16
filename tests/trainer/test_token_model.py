"""From a run to a model file and back to a codec: what the tokens are is read from the run's injectors."""

import dataclasses
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import yaml

from codes.compression.pcm_tokens import PcmTokens
from codes.experiment import load_experiment
from codes.trainer.extensible_trainer import ExtensibleTrainer
from codes.trainer.token_model import KEY, read_spec, token_codec, token_model_file

ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    "train.niter=2", "train.val_freq=1", "eval.max_batches=1", "datasets.train.batch_size=2",
    "datasets.val.batch_size=2",
    "datasets.train.n_workers=0", "datasets.train.chunk_frames=32", "eval.baselines=false", "samples.new_frames=2",
    "samples.prompt_frames=2",
]  # fmt: skip


def train(root: Path, name: str, *overrides: str, experiment: str = "byte_lm") -> Path:
    """A run of two steps."""
    options = [*SHORT, f"path.root={root}", f"name={name}", *overrides]
    ExtensibleTrainer(load_experiment(ROOT / "experiments" / f"{experiment}.yml", options)).train()
    return root / name


@pytest.fixture(scope="module")
def bytes_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs"), "bytes", "networks.lm.kwargs.layers=1")


def tone(bits: int, num_channels: int) -> np.ndarray:
    wave = np.sin(0.1 * np.arange(40)) * 0.4 * 2 ** (bits - 1)
    return np.stack([np.rint(wave * (1 - 0.3 * c)).astype(np.int32) for c in range(num_channels)])


def test_a_run_becomes_a_file_that_codes(bytes_run: Path):
    data = token_model_file(bytes_run)
    assert token_model_file(bytes_run) == data
    spec = read_spec(data)
    assert spec.which_model == "gpt"
    assert spec.kwargs["layers"] == 1
    assert spec.tokens == PcmTokens(bits=16, num_channels=1, num_bytes=2, distinct=True)
    codec, again = token_codec(data), token_codec(data)
    assert codec.model_hash() == again.model_hash() != bytes(32)
    assert codec.fingerprint() == again.fingerprint() != bytes(16)
    pcm = tone(16, 2)
    block = codec.encode(pcm, 16, 44_100)
    np.testing.assert_array_equal(again.decode(block, 2, 40, 16, 44_100), pcm)


def test_the_best_checkpoint_is_taken(bytes_run: Path):
    from safetensors.torch import load

    marks = bytes_run / "checkpoints" / "marks.json"
    before = marks.read_text()
    try:
        marks.write_text(json.dumps({"best": {"step": 1, "value": 1.0}}))
        steps = sorted(path.name for path in (bytes_run / "checkpoints").glob("step_*"))
        assert steps == ["step_00000001", "step_00000002"]
        weights = load(token_model_file(bytes_run))
        saved = load((bytes_run / "checkpoints" / "step_00000001" / "lm.safetensors").read_bytes())
        assert all((weights[name] == saved[name]).all() for name in saved)
        marks.unlink()
        newest = load((bytes_run / "checkpoints" / "step_00000002" / "lm.safetensors").read_bytes())
        assert (load(token_model_file(bytes_run))["start"] == newest["start"]).all()
        assert not (newest["start"] == saved["start"]).all()
    finally:
        marks.write_text(before)


def test_llama_and_averages(tmp_path: Path):
    from safetensors.torch import load

    run = train(tmp_path, "llama", "networks.lm.kwargs.layers=1", "train.ema_enabled=true", experiment="llama_bytes")
    data = token_model_file(run, lanes=2, lane_frames=10)
    spec = read_spec(data)
    assert (spec.which_model, spec.lanes, spec.lane_frames) == ("llama", 2, 10)
    assert spec.tokens == PcmTokens(bits=8, num_channels=2)
    best = json.loads((run / "checkpoints" / "marks.json").read_text())["best"]["step"]
    averaged = load((run / "checkpoints" / f"step_{best:08d}" / "lm_ema.safetensors").read_bytes())
    assert all((load(data)[name] == value).all() for name, value in averaged.items())
    codec, pcm = token_codec(data), tone(8, 2)
    block = codec.encode(pcm, 8, 44_100)
    assert block[0] == 2
    np.testing.assert_array_equal(codec.decode(block, 2, 40, 8, 44_100), pcm)


def test_mu_law_is_a_rate_and_no_lossless_code(tmp_path: Path):
    text = yaml.safe_load((ROOT / "experiments" / "llama_bytes.yml").read_text())
    text["steps"]["lm"]["injectors"]["quantise"] = {"type": "mu_law", "bits": 8, "in": "wav", "out": "codes"}
    text["networks"]["lm"] = {
        "which_model": "gpt", "kwargs": {"bits": 8, "layers": 1, "model_dim": 32, "heads": 2, "max_length": 64}
    }  # fmt: skip
    (tmp_path / "mu.yml").write_text(yaml.safe_dump(text, sort_keys=False))
    options = [*SHORT, f"path.root={tmp_path}", "name=mu"]
    ExtensibleTrainer(load_experiment(tmp_path / "mu.yml", options)).train()
    data = token_model_file(tmp_path / "mu")
    assert read_spec(data).mu_law is not None
    with pytest.raises(ValueError, match="mu-law samples, which do not give back the audio"):
        token_codec(data)
    codec, codes = token_codec(data, lossy=True), tone(8, 2)
    np.testing.assert_array_equal(codec.decode(codec.encode(codes, 8, 1), 2, 40, 8, 1), codes)


def test_what_cannot_be_coded_is_said(bytes_run: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"is no folder of a run: it has no options\.yml"):
        token_model_file(tmp_path)
    with pytest.raises(ValueError, match=r"expected network 'other' \(gpt or llama\), found: lm"):
        token_model_file(bytes_run, network="other")
    (tmp_path / "options.yml").write_text((bytes_run / "options.yml").read_text())
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        token_model_file(tmp_path)
    text = (bytes_run / "options.yml").read_text()
    options = yaml.safe_load(text)
    injectors = options["steps"]["lm"]["injectors"]
    injectors["split"]["bits"] = 24
    (tmp_path / "options.yml").write_text(yaml.safe_dump(options, sort_keys=False))
    with pytest.raises(ValueError, match="its injectors do not give the tokens of PcmTokens"):
        token_model_file(tmp_path)
    injectors["sequence"] = {"type": "select_channels", "channels": [0], "in": "codes", "out": "sequence"}
    (tmp_path / "options.yml").write_text(yaml.safe_dump(options, sort_keys=False))
    with pytest.raises(ValueError, match="pcm_quantize, select_channels, byte_split cannot be coded: it must be"):
        token_model_file(tmp_path)


def test_a_model_file_that_is_none_is_refused(bytes_run: Path):
    from safetensors.torch import load, save

    data = token_model_file(bytes_run)
    spec, weights = read_spec(data), load(data)
    for broken in (b"", b"\xff" * 40, save(weights), data[:100]):
        with pytest.raises(ValueError, match="no model file of tokens"):
            token_codec(broken)
    with pytest.raises(ValueError, match="the model file is damaged"):
        token_codec(data[:-10])

    def changed(**values: object) -> bytes:
        plain = dataclasses.asdict(dataclasses.replace(spec, **values))  # type: ignore[arg-type]
        return save(weights, {KEY: yaml.safe_dump(plain)})

    with pytest.raises(ValueError, match="describes 1000000000 layers and holds"):
        token_codec(changed(kwargs={**spec.kwargs, "layers": 10**9}))
    with pytest.raises(ValueError, match="names pretrained weights: it must hold its own"):
        token_codec(changed(which_model="llama", kwargs={"pretrained": "somebody/something"}))
    with pytest.raises(ValueError, match="describes 999999 layers and holds"):
        token_codec(changed(which_model="llama", kwargs={"config": {"num_hidden_layers": 999999}}))
    with pytest.raises(ValueError, match="weights are not those of its network"):
        token_codec(changed(kwargs={**spec.kwargs, "model_dim": 2**20}))
    with pytest.raises(ValueError, match="network 'identity' is none of gpt, llama"):
        token_codec(changed(which_model="identity"))
    with pytest.raises(ValueError, match=r"unknown|allowed"):
        token_codec(changed(kwargs={"colour": 3}))
    (size,) = struct.unpack_from("<Q", data)
    assert size < 10_000, "the head stays small"
