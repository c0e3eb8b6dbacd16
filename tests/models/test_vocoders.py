"""Vocoders by path: names, shapes and figures of the public implementations, mels converted, errors."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from codes.models.hifi_gan import HifiGan
from codes.models.univnet import Univnet, univnet_options
from codes.models.vocoders import open_vocoder
from codes.models.vocos import Vocos
from codes.speech_mel import MelSettings, convert_mel, mel_spectrogram
from codes.weights import CheckpointError, fit_weights
from tests.known_weights import Shapes, drawn, seeded

HIFI_GAN: dict[str, Any] = {
    "upsample_rates": [4, 2], "upsample_kernel_sizes": [8, 4], "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3, 5],
}  # fmt: skip
VOCOS: dict[str, Any] = {
    "feature_extractor": {"class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
                          "init_args": {"sample_rate": 24000, "n_fft": 1024, "hop_length": 256, "n_mels": 100}},
    "backbone": {"class_path": "vocos.models.VocosBackbone",
                 "init_args": {"input_channels": 100, "dim": 16, "intermediate_dim": 24, "num_layers": 2}},
    "head": {"class_path": "vocos.heads.ISTFTHead",
             "init_args": {"dim": 16, "n_fft": 1024, "hop_length": 256, "padding": "center"}},
}  # fmt: skip

# The public implementations (jik876/hifi-gan, tortoise-tts, vocos) with weights of `seeded`, float32 on a CPU.
HIFI_GAN_FIGURES = {
    1: [[0.2265991, 0.5322894, 0.3379728, 0.3582170], [0.0958374, 0.6619297, 0.7920625, 0.1175003]],
    2: [[-0.0415542, 0.1613458, 0.4945861, 0.2407568], [-0.1960052, 0.5439792, 0.4074198, 0.4814337]],
}
UNIVNET_FIGURES = [
    [0.0456697, 0.2936339, -0.5750838, 0.8223403, 0.3142687], [-0.1844736, -0.4957555, -0.6357097, 0.7605160, 0.3442347]
]  # fmt: skip
VOCOS_FIGURES = {
    "center": [[0.0034336, -0.0140931, -0.0116390, -0.0147589, -0.0200126, 0.0266292],
               [0.0003919, 0.0064854, -0.0185085, -0.0184777, 0.0048326, 0.0051468]],
    "same": [[0.0023837, -0.0249220, -0.0066085, 0.0211074, -0.0304160, -0.0030770, -0.0336782],
             [-0.0234806, -0.0037520, -0.0035518, -0.0247669, -0.0048746, -0.0047055, -0.0320290]],
}  # fmt: skip


def normed(name: str, *shape: int, bias: int | None = None) -> Shapes:
    """A convolution under weight norm, as it is published."""
    first = (shape[0], 1, 1)
    return {f"{name}.bias": (bias or shape[0],), f"{name}.weight_g": first, f"{name}.weight_v": shape}


def hifi_gan_shapes(resblock: int) -> Shapes:
    """As `generator` in a published g_..., for the sizes above."""
    shapes = normed("conv_pre", 16, 80, 7) | normed("conv_post", 1, 4, 7)
    layers = [("convs1", 3), ("convs2", 3)] if resblock == 1 else [("convs", 2)]
    for stage, (width, kernel) in enumerate(((8, 8), (4, 4))):
        shapes |= normed(f"ups.{stage}", 2 * width, width, kernel, bias=width)
        for scale, size in enumerate((3, 5)):
            for layer, number in ((layer, number) for layer, count in layers for number in range(count)):
                shapes |= normed(f"resblocks.{2 * stage + scale}.{layer}.{number}", width, width, size)
    return shapes


def univnet_shapes(channels: int) -> Shapes:
    """As `model_g` in Tortoise's vocoder.pth, whose channels are 32."""
    shapes = normed("conv_pre", channels, 64, 7) | normed("conv_post.1", 1, channels, 7)
    for stage, stride in enumerate((8, 8, 4)):
        predictor = f"res_stack.{stage}.kernel_predictor"
        shapes |= normed(f"{predictor}.input_conv.0", 64, 100, 5)
        for block in range(3):
            shapes |= normed(f"{predictor}.residual_convs.{block}.1", 64, 64, 3)
            shapes |= normed(f"{predictor}.residual_convs.{block}.3", 64, 64, 3)
        shapes |= normed(f"{predictor}.kernel_conv", channels * 2 * channels * 3 * 4, 64, 3)
        shapes |= normed(f"{predictor}.bias_conv", 2 * channels * 4, 64, 3)
        shapes |= normed(f"res_stack.{stage}.convt_pre.1", channels, channels, 2 * stride)
        for block in range(4):
            shapes |= normed(f"res_stack.{stage}.conv_blocks.{block}.1", channels, channels, 3)
    return shapes


def vocos_shapes() -> Shapes:
    """As pytorch_model.bin of vocos-mel-24khz, but narrower."""
    shapes: Shapes = {"backbone.embed.weight": (16, 100, 7), "backbone.embed.bias": (16,)}
    for block in (f"backbone.convnext.{number}" for number in range(2)):
        shapes |= {f"{block}.gamma": (16,), f"{block}.dwconv.weight": (16, 1, 7), f"{block}.dwconv.bias": (16,)}
        shapes |= {f"{block}.pwconv1.weight": (24, 16), f"{block}.pwconv1.bias": (24,)}
        shapes |= {f"{block}.pwconv2.weight": (16, 24), f"{block}.pwconv2.bias": (16,)}
        shapes |= {f"{block}.norm.{part}": (16,) for part in ("weight", "bias")}
    for norm in ("norm", "final_layer_norm"):
        shapes |= {f"backbone.{norm}.{part}": (16,) for part in ("weight", "bias")}
    mel = {"feature_extractor.mel_spec.spectrogram.window": (1024,)}
    mel |= {"feature_extractor.mel_spec.mel_scale.fb": (513, 100), "head.istft.window": (1024,)}
    return shapes | {"head.out.weight": (1026, 16), "head.out.bias": (1026,)} | mel


@torch.no_grad()
@pytest.mark.parametrize("resblock", [1, 2])
def test_hifi_gan_gives_the_public_figures(resblock: int) -> None:
    network = HifiGan(**HIFI_GAN, resblock=resblock, resblock_dilation_sizes=[[1, 3, 5][: 4 - resblock]] * 2)
    wrapped = {f"module.{name}": value for name, value in seeded(hifi_gan_shapes(resblock)).items()}
    fit_weights(network, "hifi_gan", wrapped, Path("g_1"), strict=True)
    made = network(drawn(2, 80, 9))
    assert made.shape == (2, 1, 72)
    torch.testing.assert_close(made[:, 0, ::18], torch.tensor(HIFI_GAN_FIGURES[resblock]), rtol=0, atol=1e-5)


@torch.no_grad()
def test_univnet_gives_tortoises_figures() -> None:
    weights = seeded(univnet_shapes(4))
    assert univnet_options(weights) == {
        "bands": 100, "channels": 4, "strides": [8, 8, 4], "dilations": [1, 3, 9, 27]
    }  # fmt: skip
    network = Univnet(channels=4)
    line = fit_weights(network, "univnet", weights, Path("vocoder.pth"), strict=True)
    assert line == "network univnet: 88 of 88 tensors from vocoder.pth"
    mel = drawn(2, 100, 5)
    made = network(mel, drawn(2, 64, 5))
    assert made.shape == (2, 1, 1280)
    torch.testing.assert_close(made[:, 0, ::256], torch.tensor(UNIVNET_FIGURES), rtol=0, atol=1e-5)
    assert not torch.equal(network(mel), network(mel))  # noise of its own where none is given
    own = Univnet(channels=4)
    fit_weights(own, "univnet", network.state_dict(), Path("ours"), strict=True)
    transformers = {name.removeprefix("model."): value for name, value in network.state_dict().items()}
    fit_weights(own, "univnet", transformers, Path("model.safetensors"), strict=True)
    torch.testing.assert_close(own(mel, drawn(2, 64, 5)), made)


@torch.no_grad()
@pytest.mark.parametrize("padding", ["center", "same"])
def test_vocos_gives_the_public_figures(padding: Any) -> None:
    network = Vocos(dim=16, intermediate_dim=24, num_layers=2, padding=padding)
    wrapped = {f"_orig_mod.{name}": value for name, value in seeded(vocos_shapes()).items()}
    fit_weights(network, "vocos", wrapped, Path("pytorch_model.bin"), strict=True)
    made = network(drawn(2, 100, 7))
    assert made.shape == (2, 1, 1792 if padding == "same" else 1536)
    torch.testing.assert_close(made[:, 0, 100::256], torch.tensor(VOCOS_FIGURES[padding]), rtol=0, atol=1e-5)


def written(folder: Path, kind: str) -> Path:
    """A vocoder's files as they are published."""
    folder.mkdir()
    if kind == "univnet":
        torch.save({"model_g": seeded(univnet_shapes(4))}, folder / "vocoder.pth")
    elif kind == "vocos":
        torch.save(seeded(vocos_shapes()), folder / "pytorch_model.bin")
        (folder / "config.yaml").write_text(yaml.safe_dump(VOCOS))
    else:
        mel = {"num_mels": 80, "n_fft": 32, "hop_size": 8, "win_size": 32, "sampling_rate": 22050, "fmin": 0}
        config = HIFI_GAN | mel | {"fmax": 8000, "resblock": "2", "resblock_dilation_sizes": [[1, 3], [1, 3]]}
        (folder / "config.json").write_text(json.dumps(config))
        torch.save({"generator": seeded(hifi_gan_shapes(2))}, folder / "generator_v1")
    return folder


@pytest.mark.parametrize("kind", ["univnet", "vocos"])
def test_a_folder_makes_sound_of_another_mel(tmp_path: Path, kind: str) -> None:
    vocoder = open_vocoder(written(tmp_path / kind, kind))
    assert (vocoder.name, vocoder.settings.sample_rate_hz, vocoder.settings.bands) == (kind, 24000, 100)
    before = torch.random.get_rng_state()
    wav = vocoder.sound(drawn(80, 44), MelSettings())
    assert wav.shape == (256 * (47 if kind == "univnet" else 46),)  # 43 hops at 22,050 Hz are 46.8 at 24,000
    assert wav.abs().max() <= 1
    assert torch.equal(wav, vocoder.sound(drawn(80, 44), MelSettings()))
    assert torch.equal(torch.random.get_rng_state(), before)
    with pytest.raises(ValueError, match=re.escape(f"{kind} expected a mel spectrogram (80, F), got (100, 3)")):
        vocoder.sound(drawn(100, 3), MelSettings())


@torch.no_grad()
def test_univnet_hears_ten_silent_frames_after_the_end(tmp_path: Path) -> None:
    vocoder = open_vocoder(written(tmp_path / "it", "univnet") / "vocoder.pth")
    mel = drawn(100, 3)
    torch.manual_seed(3)
    whole = vocoder.network(torch.cat([mel, torch.full((100, 10), math.log(1e-5))], 1)[None])[0, 0]
    assert torch.equal(vocoder.sound(mel, vocoder.settings, seed=3), whole[:768])


def test_a_mel_is_converted() -> None:
    """Noise with an edge at 3 kHz and a tone: what each other program would measure."""
    rate = 22050
    noise = torch.fft.rfft(drawn(2 * rate))
    noise[6000:] = 0
    wav = torch.fft.irfft(noise) * 0.3 + 0.1 * torch.sin(torch.arange(2 * rate) * (2 * math.pi * 5000 / rate))
    source, mel = MelSettings(), mel_spectrogram(wav, MelSettings())
    assert convert_mel(mel, source, source) is mel
    hifi_gan = MelSettings(magnitude=True, slaney_scale=True)
    for target in (hifi_gan, MelSettings(hop=300, bands=40), MelSettings(bands=100, equal_area=False)):
        there = convert_mel(mel, source, target)
        wanted = mel_spectrogram(wav, target)
        assert abs(there.shape[1] - wanted.shape[1]) <= 1
        made, real = (x[:, 4:140].exp().mean(1).log() for x in (there, wanted))
        heard = real > real.max() - 5
        assert heard.sum() > 10
        assert (made - real)[heard].abs().mean() < 0.15
        assert (made - real)[heard].mean().abs() < 0.1
    back = convert_mel(convert_mel(mel, source, hifi_gan), hifi_gan, source)
    assert (back - mel)[mel > mel.max() - 6].abs().mean() < 0.25
    wide = MelSettings(sample_rate_hz=48000, window=2048, hop=512, highest_hz=20000)
    assert (convert_mel(mel, source, wide)[-10:] == math.log(1e-5)).all()  # above 8 kHz nothing is known


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match=re.escape("must be 1 or more, got 100, 32, [8, 0], [1, 3, 9, 27]")):
        Univnet(strides=[8, 0])
    with pytest.raises(ValueError, match="hop 1 to window, got 100, 512, 1536, 8, 256, 128"):
        Vocos(window=128)
    with pytest.raises(ValueError, match="and the resblock lists, must go in pairs"):
        HifiGan(resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1], [3]])


def test_what_is_no_vocoder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"vocoder .*none does not exist \(HiFi-GAN: config\.json and g_"):
        open_vocoder(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"must hold one file of weights .* it holds none: name the file"):
        open_vocoder(tmp_path)
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth holds no vocoder that is known here"):
        open_vocoder(tmp_path)
    torch.save({}, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"it holds a\.pth, b\.pth: name the file"):
        open_vocoder(tmp_path)
    with pytest.raises(CheckpointError, match=r"b\.pth holds no vocoder that is known here"):
        open_vocoder(tmp_path / "b.pth")


def edited(file: Path, **changes: Any) -> None:
    values = yaml.safe_load(file.read_text())
    file.write_text(json.dumps({k: v for k, v in {**values, **changes}.items() if v is not None}))


def test_configs_are_checked(tmp_path: Path) -> None:
    hifi_gan, vocos = written(tmp_path / "h", "hifi_gan"), written(tmp_path / "v", "vocos")
    edited(hifi_gan / "config.json", fmax=20000)
    with pytest.raises(ValueError, match=r"config\.json is no config\.json of HiFi-GAN: ValueError: mel bands from"):
        open_vocoder(hifi_gan)
    edited(hifi_gan / "config.json", hop_size=256)
    with pytest.raises(ValueError, match="the product of upsample_rates hop_size"):
        open_vocoder(hifi_gan)
    edited(hifi_gan / "config.json", num_mels=None)
    with pytest.raises(ValueError, match="KeyError: 'num_mels'"):
        open_vocoder(hifi_gan)
    edited(vocos / "config.yaml", feature_extractor={"class_path": "vocos.feature_extractors.EncodecFeatures"})
    with pytest.raises(ValueError, match=r"a Vocos of mel spectrograms has .* this one .*'EncodecFeatures'"):
        open_vocoder(vocos)
    (vocos / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"config\.yaml is no config\.yaml of Vocos: FileNotFoundError"):
        open_vocoder(vocos)


def test_weights_must_fit_the_config(tmp_path: Path) -> None:
    vocos = written(tmp_path / "v", "vocos")
    edited(vocos / "config.yaml", backbone={**VOCOS["backbone"], "init_args": {
        "input_channels": 100, "dim": 16, "intermediate_dim": 24, "num_layers": 3}})  # fmt: skip
    with pytest.raises(CheckpointError, match=r"does not fit network vocos: missing backbone\.convnext\.2\.dwconv"):
        open_vocoder(vocos)
    shapes = univnet_shapes(4)
    other = {name.replace("res_stack.2", "res_stack.3"): shape for name, shape in shapes.items()}
    torch.save({"model_g": seeded(other)}, tmp_path / "u.pth")
    with pytest.raises(ValueError, match=r"these are no weights of a UnivNet: KeyError: 'resblocks\.2\.convt_pre"):
        open_vocoder(tmp_path / "u.pth")
    short = {name: shape for name, shape in shapes.items() if "res_stack.2" not in name}
    torch.save({"model_g": seeded(short)}, tmp_path / "u.pth")
    with pytest.raises(CheckpointError, match="is a UnivNet of 100 bands and 64 samples a frame: what mel"):
        open_vocoder(tmp_path / "u.pth")
