"""normalize, denormalize and add_noise."""

import re
from typing import Any

import pytest
import torch

from codes.trainer.injectors.signal import AddNoiseInjector, DenormalizeInjector, NormalizeInjector


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 2, 5)])
def test_normalize_and_denormalize_undo_each_other(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    normalize, denormalize = NormalizeInjector(shift=2.0, scale=4.0), DenormalizeInjector(shift=2.0, scale=4.0)
    torch.testing.assert_close(normalize(x), (x - 2) / 4)
    for undo in (denormalize, normalize.inverse):
        torch.testing.assert_close(undo(normalize(x)), x)
    for undo in (normalize, denormalize.inverse):
        torch.testing.assert_close(undo(denormalize(x)), x)


@pytest.mark.parametrize(("dtype", "bits"), [(torch.int16, 16), (torch.int32, 24)])
def test_integer_audio_becomes_float_exactly(dtype: torch.dtype, bits: int) -> None:
    wav = torch.tensor([-(2 ** (bits - 1)), -1, 0, 1, 2 ** (bits - 1) - 1], dtype=dtype)
    normalize = NormalizeInjector(scale=2.0 ** (bits - 1))
    x = normalize(wav)
    assert x.dtype == torch.float32
    assert x[0] == -1
    assert torch.equal(normalize.inverse(x), wav.float())


def test_noise_has_the_amplitude_asked_for() -> None:
    x = torch.randn(2, 2, 20000)
    noise = AddNoiseInjector(scale=0.1)(x) - x
    torch.testing.assert_close(noise.std(), torch.tensor(0.1), rtol=0.02, atol=0)
    assert noise.mean().abs() < 0.002


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 20.0])
def test_noise_has_the_ratio_asked_for_in_every_item(snr_db: float) -> None:
    x = torch.randn(3, 2, 20000) * torch.tensor([0.01, 0.3, 2.0])[:, None, None]
    noise = AddNoiseInjector(snr_db=snr_db)(x) - x
    measured = 10 * torch.log10(x.square().mean((1, 2)) / noise.square().mean((1, 2)))
    torch.testing.assert_close(measured, torch.full((3,), snr_db), rtol=0, atol=0.01)


def test_noise_keeps_dtype_and_silence() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert AddNoiseInjector(snr_db=20.0)(torch.ones(2, 8, dtype=dtype)).dtype == dtype
    silence = torch.zeros(2, 8)
    assert torch.equal(AddNoiseInjector(snr_db=20.0)(silence), silence)
    assert torch.equal(AddNoiseInjector(scale=0.0)(silence), silence)


def test_noise_follows_from_the_seed() -> None:
    add_noise = AddNoiseInjector(scale=1.0)
    x = torch.zeros(2, 8)
    add_noise.reseed(5)
    first, second = add_noise(x), add_noise(x)
    add_noise.reseed(5)
    torch.manual_seed(99)  # the global generator has no say
    assert torch.equal(add_noise(x), first)
    assert not torch.equal(first, second)
    add_noise.reseed(6)
    assert not torch.equal(add_noise(x), first)


@pytest.mark.parametrize("colour", ["white", "pink", "brown"])
@pytest.mark.parametrize(("dtype", "bits"), [(torch.int16, 16), (torch.int32, 24), (torch.float32, None)])
def test_a_range_of_ratios_is_drawn_from(colour: Any, dtype: torch.dtype, bits: int | None) -> None:
    """Every item has a ratio of its own within the range, integers too."""
    x = torch.randn(40, 2, 2000) * 0.05
    full = 2 ** ((bits or 1) - 1)
    wav = (x * full).round().to(dtype) if bits else x
    found = AddNoiseInjector(snr_db=(10.0, 30.0), colour=colour, input_bits=bits)(wav)
    assert found.dtype == dtype
    noise = found.double() - wav.double()
    measured = 10 * torch.log10(wav.double().square().mean((1, 2)) / noise.square().mean((1, 2)))
    assert 9.95 < measured.min() < 12
    assert 28 < measured.max() < 30.05
    assert measured.unique().numel() == 40


@pytest.mark.parametrize(("colour", "slope_db"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02)])
def test_colours(colour: Any, slope_db: float) -> None:
    """Power falls by so much an octave; in all it is that of white noise."""
    noise = AddNoiseInjector(scale=0.5, colour=colour)(torch.zeros(1000, 1, 4096))
    torch.testing.assert_close(noise.square().mean().sqrt(), torch.tensor(0.5), rtol=0.03, atol=0)
    power = torch.fft.rfft(noise[:, 0].double()).abs().square().mean(0)
    octaves = torch.stack([power[2**n : 2 ** (n + 1)].mean() for n in range(3, 11)]).log10() * 10
    assert abs((octaves[-1] - octaves[0]) / 7 - slope_db) < 0.15
    assert colour == "white" or power[0] < 1e-6


def test_noise_of_a_single_frame() -> None:
    for colour in ("white", "pink", "brown"):
        assert AddNoiseInjector(snr_db=10.0, colour=colour)(torch.ones(3, 1, 1)).isfinite().all()
    assert AddNoiseInjector(snr_db=10.0)(torch.ones(3)).shape == (3,)


def test_noise_needs_items() -> None:
    with pytest.raises(ValueError, match=re.escape("expected audio (B, ...), got a single number")):
        AddNoiseInjector(scale=1.0)(torch.tensor(1.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "add_noise takes either scale or snr_db, got scale None and snr_db None"),
        ({"scale": 1.0, "snr_db": 3.0}, "add_noise takes either scale or snr_db, got scale 1.0 and snr_db 3.0"),
        ({"scale": -1.0}, "scale must be a finite number, 0 or more, got -1.0"),
        ({"snr_db": float("nan")}, "snr_db must be a finite number or [low, high], got nan"),
        ({"snr_db": (3.0, 2.0)}, "snr_db must be a finite number or [low, high], got (3.0, 2.0)"),
    ],
)
def test_noise_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        AddNoiseInjector(**options)


@pytest.mark.parametrize("cls", [NormalizeInjector, DenormalizeInjector])
def test_a_scale_of_zero_is_refused(cls: type[NormalizeInjector]) -> None:
    with pytest.raises(ValueError, match=re.escape("scale must be a finite number other than 0, got 0.0")):
        cls(scale=0.0)
    with pytest.raises(ValueError, match="shift must be a finite number, got inf"):
        cls(shift=float("inf"))
