"""Pictures of sound: a spectrogram and a waveform as RGB images, in numpy.

Channels stand one above the other, time runs to the right.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# Perceptually even, dark to light: eleven points of the colour map "magma" (van der Walt and Smith, CC0).
_COLOURS = np.array(
    [
        *((0, 0, 4), (20, 14, 54), (59, 15, 112), (100, 26, 128), (140, 41, 129), (183, 55, 121)),
        *((222, 73, 104), (247, 112, 92), (254, 159, 109), (254, 207, 146), (252, 253, 191)),
    ],
    dtype=np.float64,
)
_LONGEST_WINDOW, _SHORTEST_WINDOW = 2048, 128  # samples, powers of two
_WINDOWS = 16  # that a picture of less than a second holds beside each other, at least
_GAP = 4  # pixels between channels
_MARGIN = 44  # pixels on the left for the names of ticks
_FOOT = 16  # pixels below for them
_INK = (230, 230, 230)


def spectrogram_image(
    wav: Any,
    sample_rate_hz: int,
    *,
    width: int = 800,
    height: int = 200,
    floor_db: float = -100.0,
    ticks: bool = True,
) -> np.ndarray:
    """A log-magnitude spectrogram on a mel scale.

    Args:
        wav: (C, T) or (T,) samples in [-1, 1], a numpy array or a tensor on any device.
        sample_rate_hz: frames per second.
        width: pixels of time, without the margin of the ticks.
        height: pixels of frequency, per channel.
        floor_db: what is drawn darkest, against the full-scale sine that is drawn lightest (0 dB).
        ticks: write frequencies and seconds at the sides.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: the shape is another, or there is no sample.
    """
    samples = _as_channels(wav)
    panels = [_spectrogram(channel, sample_rate_hz, width, height, floor_db) for channel in samples]
    seconds = samples.shape[1] / sample_rate_hz
    if not ticks:
        return _stack(panels)
    marks = [(_row_of_hz(hz, sample_rate_hz, height), _hz_name(hz)) for hz in _tick_frequencies(sample_rate_hz)]
    return _with_ticks(panels, marks, seconds)


def waveform_image(wav: Any, sample_rate_hz: int, *, width: int = 800, height: int = 80) -> np.ndarray:
    """The least and greatest sample in each column of pixels, uint8 (H, W, 3); arguments as in `spectrogram_image`."""
    samples = _as_channels(wav)
    panels = [_waveform(channel, width, height) for channel in samples]
    marks = [(height // 2, "0"), (0, "1"), (height - 1, "-1")]
    return _with_ticks(panels, marks, samples.shape[1] / sample_rate_hz)


def bands_image(values: np.ndarray, *, width: int = 800, height: int = 200) -> np.ndarray:
    """Values (bands, frames), the lowest band at the foot, the greatest value lightest: uint8 (H, W, 3)."""
    rows = (len(values) - 1) - np.arange(height) * len(values) // height
    columns = np.arange(width) * values.shape[1] // width
    least, span = values.min(), max(float(np.ptp(values)), 1e-9)
    image = colours((values[rows][:, columns] - least) / span)
    return np.pad(image, ((0, _FOOT), (_MARGIN, 0), (0, 0)))


def save_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write uint8 (H, W, 3) as a PNG file."""
    from PIL import Image

    Image.fromarray(image).save(Path(path), format="PNG")


def colours(values: np.ndarray) -> np.ndarray:
    """Values from 0 (dark) to 1 (light), (...), as uint8 RGB (..., 3)."""
    at = np.clip(values, 0.0, 1.0) * (len(_COLOURS) - 1)
    low = np.minimum(at.astype(np.int64), len(_COLOURS) - 2)
    mixed = _COLOURS[low] + (at - low)[..., None] * (_COLOURS[low + 1] - _COLOURS[low])
    return np.rint(mixed).astype(np.uint8)


def _as_channels(wav: Any) -> np.ndarray:
    """float64 (C, T) of an array or tensor."""
    if hasattr(wav, "detach"):
        wav = wav.detach().float().cpu().numpy()
    samples = np.atleast_2d(np.asarray(wav, dtype=np.float64))
    if samples.ndim != 2 or samples.size == 0:
        raise ValueError(f"a picture needs samples of shape (channels, time), got {np.shape(wav)}")
    return samples


def _mel(hz: Any) -> Any:
    return 2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0)


def _row_of_hz(hz: float, sample_rate_hz: int, height: int) -> int:
    return round((height - 1) * (1.0 - float(_mel(hz) / _mel(sample_rate_hz / 2))))


def _spectrogram(channel: np.ndarray, sample_rate_hz: int, width: int, height: int, floor_db: float) -> np.ndarray:
    """(T,) to uint8 (height, width, 3): one Hann window around the middle of each column of pixels."""
    centres = (np.arange(width) + 0.5) * len(channel) / width
    window = _window(len(channel), sample_rate_hz)
    half = window // 2
    padded = np.pad(channel, half, mode="reflect" if len(channel) > half else "constant")  # no click at the ends
    frames = padded[centres.astype(np.int64)[:, None] + np.arange(window)]  # (width, window)
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(window) / window)
    magnitude = np.abs(np.fft.rfft(frames * hann)) / (hann.sum() / 2.0)  # a full-scale sine is 1
    decibels = 20.0 * np.log10(magnitude + 1e-12)
    mels = np.linspace(float(_mel(sample_rate_hz / 2)), 0.0, height)
    bins = (700.0 * (10.0 ** (mels / 2595.0) - 1.0)) * window / sample_rate_hz
    low = np.minimum(bins.astype(np.int64), half - 1)
    rows = decibels[:, low] + (bins - low) * (decibels[:, low + 1] - decibels[:, low])
    return colours(1.0 - rows.T / floor_db)


def _window(num_frames: int, sample_rate_hz: int) -> int:
    """Samples a window: shorter for less than a second, which long ones would smear."""
    if num_frames >= sample_rate_hz:
        return _LONGEST_WINDOW
    fitting = 1 << (max(1, num_frames // _WINDOWS).bit_length() - 1)
    return min(max(fitting, _SHORTEST_WINDOW), _LONGEST_WINDOW)


def _waveform(channel: np.ndarray, width: int, height: int) -> np.ndarray:
    """(T,) to uint8 (height, width, 3)."""
    edges = np.linspace(0, len(channel), width + 1).astype(np.int64)
    first, last = edges[:-1], np.maximum(edges[1:], edges[:-1] + 1)
    first, last = np.minimum(first, len(channel) - 1), np.minimum(last, len(channel))
    highest = np.array([channel[a:b].max() for a, b in zip(first, last, strict=True)])
    lowest = np.array([channel[a:b].min() for a, b in zip(first, last, strict=True)])
    top, bottom = (np.rint((height - 1) * (1.0 - np.clip(v, -1, 1)) / 2.0) for v in (highest, lowest))
    rows = np.arange(height)[:, None]
    return colours(np.where((rows >= top) & (rows <= bottom), 0.75, 0.0))


def _stack(panels: list[np.ndarray]) -> np.ndarray:
    gap = np.zeros((_GAP, panels[0].shape[1], 3), np.uint8)
    parts = [part for panel in panels for part in (panel, gap)]
    return np.concatenate(parts[:-1])


def stack_images(images: list[np.ndarray]) -> np.ndarray:
    """Images of one width, one above the other."""
    return _stack(images)


def titled_image(image: np.ndarray, title: str) -> np.ndarray:
    """An image with a line of text above it."""
    from PIL import Image, ImageDraw

    canvas = np.zeros((image.shape[0] + _FOOT, image.shape[1], 3), np.uint8)
    canvas[_FOOT:] = image
    picture = Image.fromarray(canvas)
    ImageDraw.Draw(picture).text((_MARGIN, 2), title, fill=_INK)
    return np.asarray(picture)


def _tick_frequencies(sample_rate_hz: int) -> list[int]:
    return [hz for hz in (0, 500, 1000, 2000, 4000, 8000, 16000) if hz <= 0.9 * sample_rate_hz / 2]


def _hz_name(hz: int) -> str:
    return f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz"


def _with_ticks(panels: list[np.ndarray], marks: list[tuple[int, str]], seconds: float) -> np.ndarray:
    """The stacked panels with ticks (row, name) at the left of each, and seconds below."""
    from PIL import Image, ImageDraw

    body = _stack(panels)
    canvas = np.zeros((body.shape[0] + _FOOT, body.shape[1] + _MARGIN, 3), np.uint8)
    canvas[: body.shape[0], _MARGIN:] = body
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for number in range(len(panels)):
        top = number * (panels[0].shape[0] + _GAP)
        for row, name in marks:
            draw.line(((_MARGIN - 4, top + row), (_MARGIN - 1, top + row)), fill=_INK)
            draw.text((2, min(max(top + row - 6, top), top + panels[0].shape[0] - 12)), name, fill=_INK)
    _draw_seconds(draw.line, draw.text, body.shape, seconds)
    return np.asarray(picture)


def _draw_seconds(line: Callable[..., Any], text: Callable[..., Any], shape: tuple[int, ...], seconds: float) -> None:
    """About six ticks at round times (1, 2 or 5 times a power of ten) along the foot."""
    height, width = shape[:2]
    step = 10.0 ** np.floor(np.log10(seconds / 6.0))
    step *= next(factor for factor in (1, 2, 5, 10) if seconds / (step * factor) <= 6.5)
    for at in np.arange(0.0, seconds, step):
        column = _MARGIN + round(at / seconds * width)
        line(((column, height), (column, height + 3)), fill=_INK)
        text((column + 2, height + 3), f"{at:.3g} s", fill=_INK)
