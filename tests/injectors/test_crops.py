"""Crops, clips with their codes, items joined by twos, centroids, Tacotron's mel."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from codes.trainer.injectors import crops, semantic, speech


def test_places_of_crops_and_sizes_that_are_drawn() -> None:
    wav = torch.arange(50.0).expand(300, 1, 50)
    injector = crops.RandomAudioCropInjector(crop_size=10, crop_start_key="start")
    injector.seed_items(torch.arange(300), 3)
    cropped, start = injector(wav, torch.full((300,), 30))
    assert torch.equal(cropped[:, 0, 0].long(), start)
    assert int(start.max()) == 20
    sizes = set()
    varied = crops.RandomAudioCropInjector(min_crop_size=3, max_crop_size=6)
    for seed in range(40):
        varied.reseed(seed)
        made = varied(wav)
        varied.reseed(seed)
        assert torch.equal(varied(wav), made)
        sizes.add(made.shape[-1])
    assert sizes == {3, 4, 5, 6}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "crop_size is missing: give it, or min_crop_size and max_crop_size"),
        ({"min_crop_size": 3}, "crop_size is missing"),
        ({"crop_size": 4, "max_crop_size": 5}, "crop_size excludes min_crop_size"),
        (
            {"min_crop_size": 4, "max_crop_size": 3},
            "its least not above its most, and min_buffer 0 or more, got 4 to 3",
        ),
    ],
)
def test_sizes_of_crops_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crops.RandomAudioCropInjector(**options)


def test_random_scale() -> None:
    wav = torch.arange(30.0).expand(200, 1, 30)
    injector = crops.RandomScaleInjector(min_samples=20)
    sizes = set()
    for seed in range(60):
        injector.reseed(seed)
        made = injector(wav)
        assert torch.equal(made[:, 0], made[:, 0, :1] + torch.arange(made.shape[-1]))
        assert made[:, 0, 0].min() == 0  # of 200 items some begin at each end
        assert made[:, 0, -1].max() == 29
        sizes.add(made.shape[-1])
    assert min(sizes) == 20
    assert max(sizes) == 30
    assert injector(wav[..., :20]) is not None
    assert torch.equal(injector(wav[..., :20]), wav[..., :20])


def test_clips_keep_their_share_of_the_codes() -> None:
    wav, codes = torch.randn(2, 1, 1000), torch.arange(50).expand(2, 50)
    clip = crops.AudioClipInjector(clip_size=610, ctc_codes_key="codes", ctc_out_key="out")
    sound, kept = clip(wav, codes)
    assert torch.equal(sound, wav[..., :610])
    assert torch.equal(kept, codes[:, :30])
    for short, all_codes in (clip(wav[..., :610], codes), clip(wav[..., :5], codes)):
        assert short.shape[-1] <= 610
        assert torch.equal(all_codes, codes)
    assert torch.equal(crops.AudioClipInjector(clip_size=4)(wav), wav[..., :4])
    with pytest.raises(ValueError, match="ctc_codes_key and ctc_out_key belong together"):
        crops.AudioClipInjector(clip_size=4, ctc_out_key="out")


@pytest.mark.parametrize("num_items", [1, 4, 5])
def test_items_are_joined_by_twos(num_items: int) -> None:
    mel, text = torch.rand(num_items, 3, 9) + 1, torch.randint(1, 100, (num_items, 6))
    frames, tokens = torch.randint(0, 10, (num_items,)), torch.randint(0, 7, (num_items,))
    injector = crops.CombineMelInjector(output_audio_lengths_key="f", output_text_lengths_key="t", separator=100)
    joined, texts, num_frames, num_tokens = injector(mel, text, frames, tokens)
    assert joined.shape == ((num_items + 1) // 2, 3, 18)
    assert texts.shape == ((num_items + 1) // 2, 13)
    for number in range(len(joined)):
        pair = range(2 * number, min(2 * number + 2, num_items))
        expected = torch.cat([mel[item, :, : frames[item]] for item in pair], 1)
        assert torch.equal(joined[number, :, : num_frames[number]], expected)
        assert not joined[number, :, num_frames[number] :].any()
        parts = [text[item, : tokens[item]] for item in pair]
        words = torch.cat([parts[0], torch.tensor([100]), parts[1]]) if len(parts) == 2 else parts[0]
        assert torch.equal(texts[number, : num_tokens[number]], words)
        assert not texts[number, num_tokens[number] :].any()
    plain = crops.CombineMelInjector(separator=100)(mel, text, frames, tokens)
    assert torch.equal(plain[0], joined)
    assert len(plain) == 2


def test_frames_become_the_nearest_centroid(tmp_path: Path) -> None:
    centroids = torch.randn(7, 5)
    torch.save((torch.zeros(3), centroids), tmp_path / "dlas.pth")
    torch.save(centroids, tmp_path / "plain.pth")
    semantic.write_clusters(tmp_path / "own.safetensors", centroids, {"features": "mfcc"})
    codes = torch.randint(7, (3, 11))
    for name in ("dlas.pth", "plain.pth", "own.safetensors"):
        injector = semantic.KmeansQuantizerInjector(centroids=tmp_path / name)
        assert torch.equal(injector(injector.inverse(codes) + 0.01), codes)
    with pytest.raises(ValueError, match=re.escape("expected (B, 5, F), as centroids has it, got (2, 4, 9)")):
        injector(torch.zeros(2, 4, 9))
    for content, message in ((torch.zeros(3), "must hold one tensor (K, C) of floats"),
                             (torch.full((2, 2), torch.nan), "holds what is not finite")):  # fmt: skip
        torch.save(content, tmp_path / "bad.pth")
        with pytest.raises(ValueError, match=re.escape(message)):
            semantic.KmeansQuantizerInjector(centroids=tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"centroids .*missing\.pth cannot be read"):
        semantic.KmeansQuantizerInjector(centroids=tmp_path / "missing.pth")


def test_tacotrons_mel() -> None:
    """Magnitudes, slaney's scale and norm, as librosa has them; checked against torchaudio's."""
    from torchaudio.transforms import MelSpectrogram

    wav = torch.randn(2, 1, 4000) * 0.1
    reference = MelSpectrogram(
        n_fft=1024, hop_length=256, power=1, sample_rate=22050, f_max=8000, n_mels=80, norm="slaney", mel_scale="slaney"
    )
    expected = reference(wav[:, 0]).clamp(min=1e-5).log()
    found = speech.MelSpectrogramInjector()(wav)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    scaled = speech.MelSpectrogramInjector(do_normalization=True)(wav)
    torch.testing.assert_close(scaled, speech.NormalizeMelInjector()(found))
    with pytest.raises(ValueError, match="win_length must be filter_length, 1024, got 512"):
        speech.MelSpectrogramInjector(win_length=512)
