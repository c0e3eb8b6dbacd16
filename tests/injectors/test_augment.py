"""Augmentations: what they share (items, integers, probability), gain, polarity, channel swap, mu-law roughening."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from codes.experiment import load_experiment
from codes.randomness import item_seed
from codes.trainer.injector import Injector
from codes.trainer.injectors import augment, augment_filter, augment_time
from codes.trainer.injectors.control import ForEachInjector
from codes.trainer.injectors.pcm import MuLawInjector
from codes.trainer.injectors.signal import AddNoiseInjector
from codes.yaml_source import OptionError

RATE_HZ = 16000
FILTER = {"response": "low_pass", "cutoff_hz": (200.0, 4000.0), "sample_rate_hz": RATE_HZ}
ROOM = {"sample_rate_hz": RATE_HZ, "rt60_seconds": (0.02, 0.1)}
MAKERS: dict[str, tuple[Callable[..., Injector], dict[str, Any]]] = {
    "gain": (augment.RandomGainInjector, {"gain_db": (-6.0, 0.0)}),
    "polarity": (augment.RandomPolarityInjector, {"probability": 1.0}),
    "swap": (augment.RandomChannelSwapInjector, {"probability": 1.0}),
    "roughen": (augment.MuLawRoughenInjector, {"bits": 6}),
    "noise": (AddNoiseInjector, {"snr_db": (0.0, 20.0)}),
    "pink": (AddNoiseInjector, {"scale": 0.01, "colour": "pink"}),
    "pitch": (augment_time.PitchShiftInjector, {"window_frames": 256}),
    "stretch": (augment_time.TimeStretchInjector, {"window_frames": 256}),
    "filter": (augment_filter.RandomFilterInjector, FILTER),
    "reverb": (augment_filter.ReverbInjector, ROOM),
}
FIXED = {"polarity", "swap", "roughen"}  # nothing is drawn but which items
APPROXIMATE = {"pink", "pitch", "stretch", "filter", "reverb"}  # Fourier transforms: floats agree to 1e-6


def make(name: str, **options: Any) -> Injector:
    cls, defaults = MAKERS[name]
    return cls(**defaults | options)


def audio(dtype: torch.dtype = torch.float32, items: int = 8, frames: int = 1500) -> Tensor:
    x = torch.randn(items, 2, frames, generator=torch.Generator().manual_seed(1)) * 0.2
    if dtype.is_floating_point:
        return x.to(dtype)
    bits = {torch.uint8: 8, torch.int16: 16, torch.int32: 24}[dtype]
    return ((x * 2 ** (bits - 1)).round() + (128 if bits == 8 else 0)).to(dtype)


def apply(injector: Injector, wav: Tensor, seeds: Tensor) -> Tensor:
    """As a step does it."""
    injector.reseed(3)
    injector.salt, injector.item_seeds = 77, seeds
    return injector(wav)


def seeds(epoch: int = 0, items: int = 8) -> Tensor:
    return torch.tensor([item_seed(0, epoch, index) for index in range(items)])


# --- what they share


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16, torch.int32], ids=str)
@pytest.mark.parametrize("name", MAKERS)
def test_an_item_gets_the_same_in_every_batch(name: str, dtype: torch.dtype) -> None:
    injector = make(name, **({} if name == "swap" else {"input_bits": 24 if dtype == torch.int32 else None}))
    wav, all_seeds = audio(dtype), seeds()
    whole = apply(injector, wav, all_seeds)
    tolerance = 1e-6 if name in APPROXIMATE and dtype == torch.float32 else 0
    for chosen in ([[0], [5], [7]], [[0, 1], [6, 7]], [[3, 1, 2, 0]], [[7, 6, 5, 4, 3, 2, 1, 0]]):
        for part in chosen:
            found = apply(injector, wav[part], all_seeds[part])
            assert (found.double() - whole[part].double()).abs().max() <= tolerance


@pytest.mark.parametrize("name", MAKERS)
def test_another_epoch_another_item_and_another_injector_differ(name: str) -> None:
    options = {"probability": 0.5} if name in FIXED else {}
    injector = make(name, **options)
    wav = audio(items=1).expand(40, -1, -1)
    first = apply(injector, wav, seeds(0, 40))
    assert not torch.equal(first, apply(injector, wav, seeds(1, 40)))
    assert first.unique(dim=0).shape[0] == (2 if name in FIXED else 40)
    injector.reseed(3)
    injector.salt, injector.item_seeds = 78, seeds(0, 40)
    assert not torch.equal(first, injector(wav))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8, torch.int16, torch.int32], ids=str)
@pytest.mark.parametrize("name", MAKERS)
def test_dtype_depth_and_probability(name: str, dtype: torch.dtype) -> None:
    """Probability 0 leaves every bit; 0.5 leaves those of half the items; nothing leaves its depth."""
    wav = audio(dtype, items=100, frames=300)
    options = {} if name == "swap" else {"input_bits": 24 if dtype == torch.int32 else None}
    assert torch.equal(make(name, probability=0.0, **options)(wav), wav)
    found = apply(make(name, probability=0.5, **options), wav, seeds(0, 100))
    assert found.dtype == dtype
    assert found.shape == wav.shape
    left = (found == wav).flatten(1).all(1).sum()
    assert 30 <= left <= 70
    if dtype == torch.int32:
        assert found.abs().max() <= 2**23


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "swap"])
def test_integers_are_changed_as_floats_are(name: str) -> None:
    """Up to rounding, at 8, 16 and 24 bits: none is taken for another depth."""
    for dtype, bits in ((torch.uint8, 8), (torch.int16, 16), (torch.int32, 24)):
        wav = audio(dtype)
        x = (wav.double() - (128 if bits == 8 else 0)) / 2 ** (bits - 1)
        injector = make(name, input_bits=bits)
        found = (apply(injector, wav, seeds()).double() - (128 if bits == 8 else 0)) / 2 ** (bits - 1)
        expected = apply(injector, x, seeds()).clamp(-1, 1 - 2 ** (1 - bits))
        assert (found - expected).abs().max() < 0.51 * 2 ** (1 - bits) + 2e-7


@pytest.mark.parametrize("name", MAKERS)
def test_options_that_all_have(name: str) -> None:
    for probability in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"probability must be 0 to 1, got {probability}"):
            make(name, probability=probability)
    if name != "swap":
        with pytest.raises(ValueError, match="input_bits must be 1 to 32, got 33"):
            make(name, input_bits=33)
    if name not in ("noise", "pink"):
        with pytest.raises(ValueError, match=re.escape("expected audio (B, C, T), got (2, 100)")):
            make(name)(torch.zeros(2, 100))


def test_integers_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="input_bits 24 do not fit the audio, int16 of shape"):
        make("gain", input_bits=24)(audio(torch.int16))


@pytest.mark.parametrize("value", [(3.0, 2.0), (-130.0, 0.0), 121.0, float("nan"), (0.0, float("inf")), (1.0,)])
def test_spans_are_checked(value: Any) -> None:
    message = f"gain_db must be a finite number or [low, high], at least -120 and at most 120, got {value}"
    with pytest.raises(ValueError, match=re.escape(message)):
        augment.RandomGainInjector(gain_db=value)


# --- item seeds and the injector


def test_without_a_step_draws_follow_from_the_generator() -> None:
    injector, wav = make("gain"), audio()
    injector.reseed(5)
    first, second = injector(wav), injector(wav)
    injector.reseed(5)
    torch.manual_seed(99)
    assert torch.equal(injector(wav), first)
    assert not torch.equal(first, second)


def test_draws_of_one_forward_differ_and_ranges_hold() -> None:
    injector = Injector()
    injector.reseed(0)
    injector.item_seeds = seeds()
    wav = audio()
    first, second = injector.draw_uniform(wav, -2, 3, 4, 500), injector.draw_uniform(wav, -2, 3, 4, 500)
    assert first.shape == (8, 4, 500)
    assert -2 <= first.min() < -1.98
    assert 2.98 < first.max() < 3
    assert not torch.equal(first, second)
    assert set(injector.draw_integers(wav, 2, 5, 50).flatten().tolist()) == {2, 3, 4}
    assert injector.draw_normal(wav).shape == (8,)
    injector.reseed(0)
    injector.item_seeds = seeds()
    assert torch.equal(injector.draw_uniform(wav, -2, 3, 4, 500), first)


def test_values_that_are_not_the_batch_are_refused() -> None:
    message = "expected a value of 8 items, as the batch has, got shape (16, 2, 1500)"
    with pytest.raises(ValueError, match=re.escape(message)):
        apply(make("gain"), audio(items=16), seeds())


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_for_each_slice_draws_its_own_whatever_the_batch(dim: int) -> None:
    each = ForEachInjector(subtype=AddNoiseInjector(scale=1.0), dim=dim)
    nothing = torch.zeros(8, 3, 4, 5)
    whole = apply(each, nothing, seeds())
    assert whole.unique().numel() == whole.numel()
    for chosen in ([4], [3, 0, 1]):
        assert torch.equal(apply(each, nothing[chosen], seeds()[chosen]), whole[chosen])


def test_for_each_within_for_each() -> None:
    each = ForEachInjector(subtype=ForEachInjector(subtype=AddNoiseInjector(scale=1.0)))
    whole = apply(each, torch.zeros(8, 3, 4, 5), seeds())
    assert whole.unique().numel() == whole.numel()
    assert torch.equal(apply(each, torch.zeros(2, 3, 4, 5), seeds()[[6, 2]]), whole[[6, 2]])


def test_reseeding_forgets_the_items() -> None:
    """Samples are made from another batch than the last one of training."""
    each = ForEachInjector(subtype=AddNoiseInjector(scale=1.0))
    apply(each, torch.zeros(8, 3, 4), seeds())
    each.reseed(0)
    assert each(torch.zeros(5, 3, 4)).shape == (5, 3, 4)


# --- gain, polarity, swap, roughen


@pytest.mark.parametrize("gain_db", [-20.0, 0.0, 6.0])
def test_gain_in_decibels(gain_db: float) -> None:
    wav = audio(torch.float64)
    found = augment.RandomGainInjector(gain_db=gain_db)(wav)
    torch.testing.assert_close(found, wav * 10 ** (gain_db / 20), rtol=1e-12, atol=0)
    assert gain_db != 0 or torch.equal(found, wav)


def test_gains_are_spread_over_the_range() -> None:
    wav = torch.ones(2000, 1, 1)
    gains_db = 20 * torch.log10(augment.RandomGainInjector(gain_db=(-12.0, 6.0))(wav)).flatten()
    assert -12 <= gains_db.min() < -11.9
    assert 5.9 < gains_db.max() <= 6.0001
    assert abs(gains_db.mean() + 3) < 0.5


def test_integers_saturate() -> None:
    wav = torch.tensor([[[-32768, -20000, 0, 20000, 32767]]], dtype=torch.int16)
    assert augment.RandomGainInjector(gain_db=20.0)(wav).tolist() == [[[-32768, -32768, 0, 32767, 32767]]]
    assert augment.RandomPolarityInjector(probability=1.0)(wav).tolist() == [[[32767, 20000, 0, -20000, -32767]]]
    low = torch.tensor([[[0, 1, 128, 255]]], dtype=torch.uint8)
    assert augment.RandomPolarityInjector(probability=1.0)(low).tolist() == [[[255, 255, 128, 1]]]


@pytest.mark.parametrize("bits", [24, 32])
def test_wide_integers_are_exact(bits: int) -> None:
    wav = torch.randint(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1), (4, 2, 500), dtype=torch.int32)
    assert torch.equal(augment.RandomGainInjector(gain_db=0.0, input_bits=bits)(wav), wav)
    assert torch.equal(augment.RandomPolarityInjector(probability=1.0, input_bits=bits)(wav), -wav)


def test_swap() -> None:
    wav = torch.arange(24, dtype=torch.int32).view(2, 4, 3)
    found = augment.RandomChannelSwapInjector(channels=(1, 3), probability=1.0)(wav)
    assert torch.equal(found, wav[:, [0, 3, 2, 1]])
    with pytest.raises(ValueError, match=re.escape("expected audio with channels [0, 1], got (B, C, T) (2, 1, 3)")):
        augment.RandomChannelSwapInjector()(wav[:, :1])
    for channels in ((1, 1), (-1, 0)):
        message = f"channels must be two different channels, counted from 0, got {list(channels)}"
        with pytest.raises(ValueError, match=re.escape(message)):
            augment.RandomChannelSwapInjector(channels=channels)


@pytest.mark.parametrize(("bits", "mu"), [(2, None), (8, None), (16, 255.0)])
def test_roughening_is_mu_law_and_back(bits: int, mu: float | None) -> None:
    mu_law = MuLawInjector(bits=bits, mu=mu)
    wav = audio()
    assert torch.equal(augment.MuLawRoughenInjector(bits=bits, mu=mu)(wav), mu_law.inverse(mu_law(wav)))
    pcm = audio(torch.int16)
    expected = (mu_law.inverse(mu_law(pcm)) * 32768).round().clamp(-32768, 32767).short()
    assert torch.equal(augment.MuLawRoughenInjector(bits=bits, mu=mu)(pcm), expected)


def test_roughening_checks_its_bits() -> None:
    with pytest.raises(ValueError, match="bits must be 2 to 16, got 1"):
        augment.MuLawRoughenInjector(bits=1)


# --- in the YAML

YAML = """
name: augmented
datasets:
  train: {mode: stereo_chunk, path: demo_corpus, batch_size: 2}
networks:
  a: {which_model: gpt, kwargs: {bits: 8}}
train: {niter: 1}
steps:
  one:
    training: a
    injectors:
      gain: {type: random_gain, gain_db: GAIN, in: wav, out: x}
    losses:
      loss: {type: direct, key: x}
"""


@pytest.mark.parametrize(("text", "value"), [("3", 3.0), ("[-3, 3.5]", (-3.0, 3.5)), ("-1.5", -1.5)])
def test_spans_in_the_yaml(tmp_path: Path, text: str, value: Any) -> None:
    (tmp_path / "x.yml").write_text(YAML.replace("GAIN", text), encoding="utf-8")
    experiment = load_experiment(tmp_path / "x.yml")
    assert experiment.steps[0].injectors[0].built_from.options == {"gain_db": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1, 2, 3]", "gain_db must have 2 items, got 3"), ("loud", "gain_db must be a number or a list")],
)
def test_wrong_spans_in_the_yaml(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yml").write_text(YAML.replace("GAIN", text), encoding="utf-8")
    with pytest.raises(OptionError) as caught:
        load_experiment(tmp_path / "x.yml")
    ((mark, found),) = caught.value.problems
    assert found.startswith(message)
    assert mark.line == 12
