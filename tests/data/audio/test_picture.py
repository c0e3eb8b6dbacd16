"""Spectrograms and waveforms: the tone is where it belongs, the sizes are as asked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from codes.data.audio import picture

TIME = np.arange(16_000) / 16_000


def test_a_tone_is_a_bright_row_at_its_frequency():
    tone = np.stack([np.sin(2 * np.pi * 1000 * TIME), np.sin(2 * np.pi * 4000 * TIME)])
    image = picture.spectrogram_image(tone, 16_000, width=60, height=100, ticks=False)
    assert image.shape == (204, 60, 3)
    assert image.dtype == np.uint8
    brightness = image.astype(int).sum(2).mean(1)
    mel = [2595 * np.log10(1 + hz / 700) for hz in (1000, 4000, 8000)]
    assert abs(brightness[:100].argmax() - 99 * (1 - mel[0] / mel[2])) <= 1
    assert abs(brightness[104:].argmax() - 99 * (1 - mel[1] / mel[2])) <= 1
    assert brightness[:100].max() > 600, "full scale is near the lightest colour"


def test_tensors_arrays_and_mono_are_alike():
    tone = (0.5 * np.sin(2 * np.pi * 440 * TIME)).astype(np.float32)
    images = [picture.spectrogram_image(wav, 16_000) for wav in (tone, tone[None], torch.from_numpy(tone)[None])]
    assert images[0].shape == (216, 844, 3)
    assert all((image == images[0]).all() for image in images)


def test_waveform_reaches_as_far_as_the_samples():
    image = picture.waveform_image(np.array([[0.5, -0.5] * 4000]), 8000, width=100, height=101)
    inked = np.flatnonzero(image[:101, 60].sum(1) > 30)
    assert (inked.min(), inked.max()) == (25, 75)


@pytest.mark.parametrize("num_samples", [1, 10, 1500])
def test_short_signals_and_silence(num_samples: int):
    silence = np.zeros((2, num_samples))
    assert picture.spectrogram_image(silence, 8000, ticks=False).max() <= 4, "black"
    assert picture.waveform_image(silence, 8000).shape == (2 * 80 + 4 + 16, 844, 3)
    assert picture.spectrogram_image(silence, 8000).shape == (2 * 200 + 4 + 16, 844, 3)


def test_png_round_trip(tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    picture.save_png(tmp_path / "a.png", image)
    with Image.open(tmp_path / "a.png") as saved:
        assert (np.asarray(saved) == image).all()


@pytest.mark.parametrize("shape", [(0,), (2, 0), (1, 2, 3)])
def test_bad_shapes(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="a picture needs samples of shape"):
        picture.spectrogram_image(np.zeros(shape), 8000)


def test_a_title_stands_above_the_image():
    image = np.full((20, 300, 3), 7, np.uint8)
    titled = picture.titled_image(image, "noisy")
    assert titled.shape == (36, 300, 3)
    np.testing.assert_array_equal(titled[16:], image)
    assert titled[:16].max() > 200


def test_a_click_in_a_short_chunk_stays_where_it_is():
    click = np.zeros(2000)
    click[1000] = 1.0
    brightness = picture.spectrogram_image(click, 16_000, width=100, height=50, ticks=False).astype(int).sum((0, 2))
    lit = np.flatnonzero(brightness > brightness.max() / 4)
    assert 44 <= lit.min() < 50 <= lit.max() <= 55, "a window of 128 of 2000 samples is 6 columns of 100"


@pytest.mark.parametrize(
    ("num_frames", "window"), [(16_000, 2048), (15_999, 512), (4096, 256), (2000, 128), (1, 128), (160_000, 2048)]
)
def test_the_window_suits_the_length(num_frames: int, window: int):
    assert picture._window(num_frames, 16_000) == window
