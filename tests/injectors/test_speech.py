"""Mel spectrograms, masks, crops and codes of speech."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from codes.other_config import network_of
from codes.speech_mel import MelSettings, griffin_lim, mel_spectrogram
from codes.trainer.injectors import crops, speech, speech_codes
from codes.weights import CheckpointError
from codes.yaml_source import OptionError
from tests.speech_networks import DVAE, write_networks

TONE = torch.sin(torch.arange(6000) * 0.2)[None, None] * 0.3


@pytest.mark.parametrize("normalize", [False, True])
def test_the_mel_is_that_of_dlas(normalize: bool, tmp_path: Path) -> None:
    """1024/256/1024, 80 bands to 8 kHz at 22,050 Hz, powers, slaney's norm, logged, divided by the norms."""
    from torchaudio.transforms import MelSpectrogram

    norms = torch.linspace(-9, -2, 80)
    torch.save(norms, tmp_path / "norms.pth")
    reference = MelSpectrogram(
        n_fft=1024, hop_length=256, win_length=1024, power=2, normalized=normalize, sample_rate=22050, f_min=0,
        f_max=8000, n_mels=80, norm="slaney",
    )  # fmt: skip
    wav = torch.cat([TONE, torch.randn_like(TONE) * 0.01])
    expected = reference(wav[:, 0]).clamp(min=1e-5).log() / norms[:, None]
    injector = speech.TorchMelSpectrogramInjector(mel_norm_file=tmp_path / "norms.pth", normalize=normalize)
    torch.testing.assert_close(injector(wav), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(injector(wav[:, 0]), expected, rtol=1e-4, atol=1e-4)
    pcm = (wav * 32768).round().to(torch.int16)
    torch.testing.assert_close(injector(pcm), injector(pcm.float() / 32768))


def test_the_logarithms_come_back(tmp_path: Path) -> None:
    torch.save(torch.linspace(-9, -2, 80), tmp_path / "norms.pth")
    wav = torch.randn(2, 1, 6000)
    plain = speech.TorchMelSpectrogramInjector()
    assert torch.equal(plain.logarithms(plain(wav)), plain(wav))
    changed = speech.TorchMelSpectrogramInjector(
        mel_norm_file=tmp_path / "norms.pth", normalize=True, true_normalization=True
    )
    assert not torch.allclose(changed(wav), plain(wav), atol=0.1)
    torch.testing.assert_close(changed.logarithms(changed(wav)), plain(wav), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(100), "holds (100,) numbers, the spectrogram has 80 bands"),
        (torch.zeros(80), "holds a zero or what is not finite"),
        ({"norms": torch.ones(80)}, "must hold one tensor of floats, got dict"),
        (torch.ones(80, dtype=torch.int64), "must hold one tensor of floats, got Tensor"),
        (None, "does not exist: python scripts/mel_norms.py AUDIO --out norms.pth makes one"),
        (b"nonsense", "cannot be read: "),
    ],
)
def test_mel_norms_are_checked(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "norms.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=re.escape(f"mel_norm_file {path} {message}")):
        speech.TorchMelSpectrogramInjector(mel_norm_file=path)


def test_bad_sound_for_a_mel() -> None:
    injector = speech.TorchMelSpectrogramInjector()
    with pytest.raises(ValueError, match=re.escape("expected sound of one channel (B, 1, T) or (B, T), got (2, 2, 9)")):
        injector(torch.zeros(2, 2, 9))
    with pytest.raises(ValueError, match=re.escape("needs float sound of more than 512 samples, got torch.float32")):
        injector(torch.zeros(2, 512))
    with pytest.raises(ValueError, match="win_length must be filter_length, 1024, got 512"):
        speech.TorchMelSpectrogramInjector(win_length=512)
    with pytest.raises(ValueError, match="mel bands from 0 to 9000 Hz do not lie within 0 to 8000 Hz"):
        speech.TorchMelSpectrogramInjector(sampling_rate=16000, mel_fmax=9000.0)


def test_griffin_lim_gives_the_mel_back() -> None:
    settings = MelSettings()
    mel = mel_spectrogram(TONE[0, 0] + torch.randn(6000) * 0.03, settings)
    wav = griffin_lim(mel, settings, iterations=30)
    assert wav.shape == (256 * (mel.shape[1] - 1),)
    assert torch.equal(wav, griffin_lim(mel, settings, iterations=30))
    loud = mel > mel.max() - 6
    assert (mel_spectrogram(wav, settings) - mel)[loud].abs().median() < 0.15


def test_masks_follow_from_the_items() -> None:
    injector = speech.MelMaskInjector(frequency_mask_size_high=10, time_mask_size_high=4, time_mask_count=1)
    mel = torch.ones(200, 80, 30)
    injector.seed_items(torch.arange(200), 3)
    made = injector(mel)
    bands, frames = (made == 0).all(2).sum(1), (made == 0).all(1).sum(1)
    assert int(bands.max()) == 10
    assert int(frames.max()) == 4
    assert int(bands.min()) == int(frames.min()) == 0
    injector.seed_items(torch.arange(100, 200), 3)
    assert torch.equal(injector(mel[:100]), made[100:])


def test_crops_lie_within_the_items() -> None:
    wav = torch.arange(50.0).expand(300, 1, 50)
    lengths = torch.full((300,), 30)
    made = crops.RandomAudioCropInjector(crop_size=10, min_buffer=2)(wav, lengths)
    assert torch.equal(made[:, 0], made[:, 0, :1] + torch.arange(10))
    assert made.min() == 2
    assert made.max() == 27
    short = crops.RandomAudioCropInjector(crop_size=40)(wav, lengths)
    assert torch.equal(short, wav[..., :40])
    with pytest.raises(ValueError, match=re.escape("of 60 samples or more, got (300, 1, 50)")):
        crops.RandomAudioCropInjector(crop_size=60)(wav)


def test_scaling_clipping_resampling(tmp_path: Path) -> None:
    normalize = speech.NormalizeMelInjector()
    mel = torch.tensor([-11.512925148010254, 2.3143386840820312])
    torch.testing.assert_close(normalize(mel), torch.tensor([-1.0, 1.0]))
    torch.testing.assert_close(normalize.inverse(normalize(mel)), mel)
    x = torch.randn(2, 5, 3)
    assert torch.equal(speech.ChannelClipInjector(channel_low=1, channel_high=3)(x), x[:, 1:3])
    with pytest.raises(ValueError, match=re.escape("expected 6 channels or more in dimension 1, got (2, 5, 3)")):
        speech.ChannelClipInjector(channel_low=1, channel_high=6)(x)
    resampled = speech.AudioResampleInjector(input_sample_rate=22050, output_sample_rate=11025)
    torch.testing.assert_close(
        resampled.inverse(resampled(TONE))[..., 200:-200], TONE[..., 200:-200], rtol=0, atol=2e-3
    )
    with torch.autocast("cpu", torch.bfloat16):
        half = resampled(TONE)
    assert torch.equal(half, resampled(TONE))
    torch.save((torch.ones(5), torch.full((5,), 2.0)), tmp_path / "stats.pth")
    bands = speech.FrequencyBinNormalizeInjector(stats_file=tmp_path / "stats.pth")
    torch.testing.assert_close(bands(x), (x - 1) / 2)
    torch.testing.assert_close(bands.inverse(bands(x)), x)


def test_codes_by_the_dvae_of_another_yaml(tmp_path: Path) -> None:
    config = write_networks(tmp_path)
    injector = speech_codes.DiscreteTokenInjector(dvae_config=config)
    mel = torch.randn(2, 80, 22)
    codes = injector(mel)
    assert codes.shape == (2, 6)
    assert injector.inverse(codes).shape == (2, 80, 24)
    assert not any(p.requires_grad for p in injector.dvae.parameters())
    with pytest.raises(ValueError, match="dvae_config must name the YAML of a trained DVAE"):
        speech_codes.DiscreteTokenInjector()
    with pytest.raises(ValueError, match="dvae must be a lucidrains_dvae, UnifiedVoice2 makes no codes of mels"):
        speech_codes.DiscreteTokenInjector(dvae_config=config, dvae_name="gpt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": {"other": {}}}, "there is no network 'dvae' here (networks: other)"),
        ({"networks": {"dvae": {"kwargs": {}}}}, "networks.dvae: which_model is missing"),
        ({"networks": {"dvae": {"which_model": "lucidrains_dva"}}}, "did you mean 'lucidrains_dvae'?"),
        ({"path": {}, "name": "dvae"}, "the weights of network 'dvae' are not known: give path.pretrain_model_dvae"),
        (
            {"networks": {"dvae": {"which_model_G": "lucidrains_dvae", "kwargs": {**DVAE, "num_tokens": 9}}}},
            "does not fit network dvae: of another shape codebook.cluster_size (48,) for (9,)",
        ),
    ],
)
def test_what_is_wrong_in_that_yaml_is_said(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = write_networks(tmp_path)
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | changes))
    with pytest.raises((OptionError, CheckpointError), match=re.escape(message)):
        network_of(config, "dvae")
