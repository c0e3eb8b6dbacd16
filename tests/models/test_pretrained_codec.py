"""pretrained_codec: every kind of source behind one interface, bandwidths, hashes, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from codes.experiment import load_experiment
from codes.models.audio_codec import AudioCodec
from codes.models.codec_files import export_codec
from codes.models.encodec_checkpoint import load_encodec_checkpoint
from codes.models.pretrained_codec import PretrainedCodec, codebooks_at, load_codec
from codes.models.rvq_codec import RvqCodec
from codes.models.transformers_codecs import EncodecModelCodec
from tests.codecs import DAC, ENCODEC, MIMI, OWN, STEREO, library_codec, own_codec

SOURCES: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {  # options, and rate, channels, hop
    "encodec": (ENCODEC, (24000, 1, 320)),
    "stereo": (STEREO, (48000, 2, 320)),
    "dac": (DAC, (16000, 1, 10)),
    "mimi": (MIMI, (16000, 1, 16)),
    "own": ({}, (8000, 1, 16)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved codec of each kind."""
    root = tmp_path_factory.mktemp("codecs")
    kinds = {name: "encodec" if name == "stereo" else name for name in SOURCES}
    made = {n: library_codec(root / n, kinds[n], **options) for n, (options, _) in SOURCES.items() if n != "own"}
    return {**made, "own": own_codec(root / "own")}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_codes_a_frame_a_hop(name: str, folders: dict[str, Path]) -> None:
    codec = PretrainedCodec(path=folders[name])
    rate, channels, hop = SOURCES[name][1]
    assert (codec.sample_rate_hz, codec.num_channels, codec.hop_samples) == (rate, channels, hop)
    for frames, samples in ((1, 1), (5, 4 * hop + 1), (8, 8 * hop)):
        codes = codec.encode(torch.randn(2, channels, samples) * 0.1)
        assert codes.shape == (2, codec.num_codebooks, frames)
        assert codes.dtype is torch.int64
        assert codec.decode(codes).shape == (2, channels, frames * hop)
    wav = torch.randn(1, channels, 20 * hop) * 0.1
    whole = codec.encode(wav)
    assert torch.equal(codec.encode(wav, num_codebooks=2), whole[:, :2])
    assert len(whole.unique()) > 2
    assert torch.equal(whole, PretrainedCodec(path=folders[name]).encode(wav))


def test_encodec_is_what_transformers_makes_of_the_same_audio(folders: dict[str, Path]) -> None:
    import transformers

    model: Any = transformers.EncodecModel.from_pretrained(folders["encodec"])
    codec = PretrainedCodec(path=folders["encodec"], num_codebooks=6)
    wav = torch.randn(1, 1, 3200) * 0.1
    with torch.no_grad():
        model.config.target_bandwidths = [2.7]  # 6 codebooks of 0.45
        theirs = model.encode(wav, bandwidth=2.7).audio_codes[0]
        assert torch.equal(codec.encode(wav), theirs)
        assert torch.equal(codec.decode(theirs), model.decode(theirs[None], [None]).audio_values)


def original(name: str) -> str:
    """A tensor's name in encodec's own checkpoint files, from that in transformers."""
    name = name.replace("quantizer.layers.", "quantizer.vq.layers.").replace(".codebook.", "._codebook.")
    name = re.sub(r"^((?:en|de)coder)\.layers", r"\1.model", name)
    name = name.replace(".parametrizations.weight.original0", ".weight_g")
    name = name.replace(".parametrizations.weight.original1", ".weight_v")
    if "lstm" in name or "quantizer" in name:
        return name
    number = int(name.split(".")[2])
    transposed = name.startswith("decoder") and number >= 3 and "block" not in name and "shortcut" not in name
    kind = "convtr" if transposed and (number - 3) % 3 == 0 and number < 15 else "conv"
    return re.sub(r"\.conv\.(weight|bias)", rf".{kind}.{kind}.\1", name).replace(".norm.", f".{kind}.norm.")


@pytest.mark.parametrize("name", ["encodec", "stereo"])
def test_checkpoint_files_of_encodec_itself(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    saved: Any = load_codec(folders[name])
    derived = (".stride", ".kernel_size", ".padding_total")
    weights = {original(key): value for key, value in saved.model.state_dict().items() if not key.endswith(derived)}
    assert "encoder.model.0.conv.conv.bias" in weights
    assert "decoder.model.3.convtr.convtr.bias" in weights
    torch.save(weights, tmp_path / "encodec.th")
    codec = load_encodec_checkpoint(tmp_path / "encodec.th")
    assert isinstance(codec, EncodecModelCodec)
    wav = torch.randn(1, codec.num_channels, 6400) * 0.1
    with torch.no_grad():
        assert torch.equal(codec.encode(wav), saved.encode(wav))
        assert torch.equal(codec.decode(codec.encode(wav)), saved.decode(saved.encode(wav)))
    del weights["encoder.model.0.conv.conv.bias"]
    torch.save(weights, tmp_path / "less.th")
    with pytest.raises(ValueError, match=r"less\.th: 1 tensors do not fit EnCodec"):
        load_codec(tmp_path / "less.th")


def test_loudness_of_the_stereo_model_is_a_fixed_one(folders: dict[str, Path]) -> None:
    codec = PretrainedCodec(path=folders["stereo"])
    silence = codec.decode(codec.encode(torch.zeros(1, 2, 960)))
    assert torch.isfinite(silence).all()
    inner: Any = codec.codec
    wav = torch.randn(1, 2, 960) * 0.1
    with torch.no_grad():
        vectors = inner.model.encoder(wav / 0.1)
        codes = inner.model.quantizer.encode(vectors).transpose(0, 1)
        plain = inner.model.decoder(inner.model.quantizer.decode(codes.transpose(0, 1)))
    assert torch.equal(codec.encode(wav), codes)
    assert torch.allclose(codec.decode(codes), plain * 0.1, atol=1e-5)


class PublishedRates(AudioCodec, abstract=True):
    """What decides the bandwidths of a codec, and nothing else."""

    def __init__(self, sample_rate_hz: int, num_codebooks: int) -> None:
        super().__init__()
        self.sample_rate_hz, self.num_codebooks = sample_rate_hz, num_codebooks
        self.codebook_size, self.hop_samples, self.num_channels = 1024, 320, 1


@pytest.mark.parametrize(
    ("rate", "table"),
    [(24000, {1.5: 2, 3: 4, 6: 8, 12: 16, 24: 32}), (48000, {3: 2, 6: 4, 12: 8, 24: 16})],
)
def test_published_bandwidths(rate: int, table: dict[float, int]) -> None:
    codec = PublishedRates(rate, max(table.values()))
    assert {kbps: codebooks_at(codec, kbps) for kbps in table} == table
    for wrong in (1.6, 48.0, 0.0):
        with pytest.raises(ValueError, match="bandwidth_kbps is"):
            codebooks_at(codec, wrong)


def test_a_bandwidth_chooses_codebooks(folders: dict[str, Path]) -> None:
    assert PretrainedCodec(path=folders["own"], bandwidth_kbps=4.0).num_codebooks == 2  # 500 Hz of 4 bits each
    assert PretrainedCodec(path=folders["own"], num_codebooks=3).encode(torch.zeros(1, 1, 160)).shape == (1, 3, 10)
    with pytest.raises(ValueError, match="give one of them"):
        PretrainedCodec(path=folders["own"], num_codebooks=3, bandwidth_kbps=4.0)
    with pytest.raises(ValueError, match="num_codebooks is 5: this codec has 1 to 4"):
        PretrainedCodec(path=folders["own"], num_codebooks=5)


def test_it_is_never_trained_and_remembers_its_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    codec = PretrainedCodec(path=folders["own"])
    codec.train()
    assert not any(module.training for module in codec.modules())
    assert not any(parameter.requires_grad for parameter in codec.parameters())
    state = codec.state_dict()
    assert sum(value.numel() for value in state.values()) == 32
    PretrainedCodec(path=folders["own"]).load_state_dict(state)
    other = PretrainedCodec(path=own_codec(tmp_path / "other", seed=1))
    assert other.weights_hash != codec.weights_hash
    with pytest.raises(ValueError, match="the codec's weights are not those"):
        other.load_state_dict(state)


def test_a_run_that_trained_a_codec(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    run, folder = tmp_path / "run", tmp_path / "run" / "checkpoints" / "step_00000007"
    folder.mkdir(parents=True)
    text = f"""
name: codec
datasets: {{train: {{mode: mono_chunk, path: demo_corpus, batch_size: 1}}}}
networks: {{codec: {{which_model: rvq_codec, kwargs: {OWN}}}}}
steps:
  codec:
    training: codec
    injectors:
      float: {{type: normalize, scale: 32768, in: wav, out: real}}
      make: {{type: generator, generator: codec, in: real, out: [made, codes, commitment]}}
    losses: {{pix: {{type: pix, real: real, fake: made}}}}
train: {{niter: 1}}
"""
    (run / "options.yml").write_text(text)
    with pytest.raises(ValueError, match="run has no checkpoint yet"):
        PretrainedCodec(path=run)
    codec: Any = load_experiment(run / "options.yml").networks["codec"].built_from.build().eval()
    assert isinstance(codec, RvqCodec)
    save_file(codec.state_dict(), folder / "codec.safetensors")
    (folder / "manifest.json").write_text("{}")
    wav = torch.randn(1, 1, 160)
    assert torch.equal(PretrainedCodec(path=run).encode(wav), codec.encode(wav))
    export_codec(codec, OWN, tmp_path / "exported")
    assert PretrainedCodec(path=tmp_path / "exported").weights_hash == PretrainedCodec(path=run).weights_hash
    (run / "options.yml").write_text(text.replace("'dim': 8", "'dim': 4"))
    with pytest.raises(ValueError, match="is of another architecture"):
        PretrainedCodec(path=run)


def test_without_weights_there_is_no_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"path is runs/codec: there is nothing; get weights .*experiments/codec.yml"):
        PretrainedCodec(path=Path("runs/codec"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no codec that is known here .*hf download facebook/encodec_24khz"):
        PretrainedCodec(path=tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="a model of type 'llama', wanted is one of encodec, dac, mimi"):
        PretrainedCodec(path=tmp_path / "empty")
    (tmp_path / "noise.th").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"noise\.th: it cannot be read as a checkpoint of encodec"):
        PretrainedCodec(path=tmp_path / "noise.th")
    torch.save({"a": torch.ones(1)}, tmp_path / "other.th")
    with pytest.raises(ValueError, match=r"it is no checkpoint of encodec: it lacks encoder\.layers"):
        PretrainedCodec(path=tmp_path / "other.th")
    (tmp_path / "codec.json").write_text('{"which_model": "nothing"}')
    with pytest.raises(ValueError, match=r"codec\.json describes no codec of ours"):
        PretrainedCodec(path=tmp_path)


def test_codes_that_are_none(folders: dict[str, Path]) -> None:
    codec = PretrainedCodec(path=folders["encodec"])
    with pytest.raises(ValueError, match=r"codes must lie in 0 \.\. 63, got 0 \.\. 64"):
        codec.decode(torch.tensor([[[0, 64]]]))
    with pytest.raises(ValueError, match="expected integer codes"):
        codec.decode(torch.full((1, 2, 3), float("nan")))
    with pytest.raises(ValueError, match="expected float audio"):
        codec.encode(torch.zeros(1, 2, 320))
