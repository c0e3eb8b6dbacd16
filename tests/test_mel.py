"""Mel spectrograms and cepstra beside torchaudio's."""

import pytest
import torch

from codes import mel


@pytest.mark.parametrize(("rate", "window", "bands"), [(16_000, 400, 40), (22_050, 1024, 80)])
def test_filters_and_spectrogram_are_torchaudios(rate: int, window: int, bands: int) -> None:
    from torchaudio.functional import melscale_fbanks
    from torchaudio.transforms import MelSpectrogram

    expected = melscale_fbanks(window // 2 + 1, 0.0, rate / 2, bands, rate)
    torch.testing.assert_close(mel.mel_filters(rate, window, bands), expected, atol=2e-5, rtol=1e-4)
    wav = torch.randn(2, 4 * window + 3)
    theirs = MelSpectrogram(rate, window, hop_length=100, n_mels=bands, pad_mode="constant")(wav)
    ours = mel.log_mel(wav, rate, window=window, hop=100, bands=bands)
    assert ours.shape == (2, bands, -(-wav.shape[1] // 100))
    frames = ours.shape[2]
    expected = (theirs[..., :frames] / (0.375 * window) + mel.LEAST_POWER).log10()
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_noise_has_one_level_whatever_the_window() -> None:
    noise = torch.randn(1, 60_000)
    for window in (64, 512):
        power = mel.spectrum(noise, window, window // 2).abs().square().mean()
        assert abs(float(power) - 1) < 0.05


def test_cepstra_are_torchaudios() -> None:
    from torchaudio.functional import compute_deltas, create_dct

    wav = torch.randn(2, 4000)
    found = mel.mfcc(wav, 16_000)
    assert found.shape == (2, 25, 39)
    levels = mel.log_mel(wav, 16_000, window=400, hop=160, bands=40)
    cepstra = (levels.transpose(1, 2) @ create_dct(13, 40, None) / 2 * (2 / 40) ** 0.5).transpose(1, 2)
    torch.testing.assert_close(found[..., :13].transpose(1, 2), cepstra, atol=1e-4, rtol=1e-4)
    slopes = compute_deltas(cepstra, 5)
    torch.testing.assert_close(found[..., 13:26].transpose(1, 2), slopes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[..., 26:].transpose(1, 2), compute_deltas(slopes, 5), atol=1e-4, rtol=1e-4)
