"""Adaptive prediction: causal, exact in pieces and in pairs, better than a fixed predictor; its cache; its options."""

from pathlib import Path

import numpy as np
import pytest

from codes.adaptive import cascade, features
from codes.adaptive.cascade_options import AdaptiveOptions, CascadeOptions
from codes.adaptive.feature_cache import FeatureCache
from codes.adaptive.features import describe_pcm

SMALL = AdaptiveOptions(
    cascades=[
        CascadeOptions(own_taps=16, other_taps=8, forgetting=0.99, interval=4, filter_taps=[], filter_rates=[]),
        CascadeOptions(own_taps=12, other_taps=6, filter_taps=[32, 16], filter_rates=[0.01, 0.02]),
    ],
    own_history=4,
    other_history=2,
)


def sound(channels: int, frames: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(frames)
    tone = 6000 * np.sin(0.05 * t) + 2000 * np.sin(0.31 * t + 1)
    return np.rint(tone + rng.normal(scale=20, size=(channels, frames))).astype(np.int32)


def test_what_is_told_of_a_sample_depends_on_earlier_ones_alone() -> None:
    pcm = sound(2, 400)
    before = describe_pcm(pcm, SMALL)
    pcm[0, 300] += 5000  # of frame 300 only channel 1 is told after channel 0 is known
    after = describe_pcm(pcm, SMALL)
    for one, other in zip(before, after, strict=True):
        assert (one[:, :300] == other[:, :300]).all()
    assert (before.features[0, 300] == after.features[0, 300]).all()
    assert (before.offsets[0, 300] == after.offsets[0, 300]).all()
    assert after.residuals[0, 300] - before.residuals[0, 300] == pytest.approx(5000, abs=0.01)
    assert (before.features[1, 300] != after.features[1, 300]).any()
    assert (before.features[0, 301] != after.features[0, 301]).any()


def test_predicts_tones_down_to_their_noise() -> None:
    described = describe_pcm(sound(2, 4000), SMALL)
    assert described.features.shape == (2, 4000, SMALL.num_features)
    assert described.offsets.shape == (2, 4000, 2)
    size = np.sqrt(np.square(described.residuals[:, 1000:]).mean())
    assert 20 < size < 26  # the noise has 20
    assert np.abs(described.units[:, 1000:].mean() - np.abs(described.residuals[:, 1000:]).mean()) < 2
    assert np.isfinite(described.features).all()


def test_a_copy_in_the_other_channel_is_predicted_exactly() -> None:
    noise = np.random.default_rng(3).integers(-3000, 3000, 3000)
    described = describe_pcm(np.stack([noise, noise]), SMALL)
    assert np.abs(described.residuals[0, 2000:]).mean() > 1000
    assert np.abs(described.residuals[1, 2000:]).mean() < 1


def test_channels_go_in_pairs_and_singles() -> None:
    pcm = sound(5, 200)
    whole = describe_pcm(pcm, SMALL)
    for first in (0, 2, 4):
        part = describe_pcm(pcm[first : first + 2], SMALL)
        for one, other in zip(whole, part, strict=True):
            assert (one[first : first + 2] == other).all()
    with pytest.raises(ValueError, match="takes 1 or 2 channels at a time, got 3"):
        cascade.new_state(SMALL, 3)


def test_rings_and_pieces_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    pcm = sound(2, 2 * cascade.RING_FRAMES + 500)
    whole = describe_pcm(pcm, SMALL)
    monkeypatch.setattr(features, "PIECE_FRAMES", 1000)
    pieces = describe_pcm(pcm, SMALL)
    for one, other in zip(whole, pieces, strict=True):
        assert (one == other).all()
    around = np.abs(whole.residuals[:, cascade.RING_FRAMES - 20 : cascade.RING_FRAMES + 20])
    assert around.max() < 120


def test_silence_and_extremes_stay_finite() -> None:
    loud = np.where(np.arange(600) % 7 < 3, 2**31 - 1, -(2**31))
    for pcm in (np.zeros((2, 600), np.int32), np.stack([loud, -loud - 1]), sound(2, 600) * 0 + 1):
        described = describe_pcm(pcm, SMALL)
        assert all(np.isfinite(array.astype(np.float64)).all() for array in described)
    assert (describe_pcm(np.zeros((1, 600), np.int32), SMALL).residuals == 0).all()


def test_the_cache_is_named_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, pcm = FeatureCache(tmp_path / "made"), sound(2, 300)
    first = cache.describe(pcm, SMALL)
    made = describe_pcm(pcm, SMALL)
    assert all((one == other).all() for one, other in zip(first, made, strict=True))
    with monkeypatch.context() as patch:
        patch.setattr("codes.adaptive.feature_cache.describe_pcm", None)  # calling it would fail
        again = cache.describe(pcm.copy(), SMALL)
    assert (again.features == first.features).all()
    cache.describe(pcm[:, 1:], SMALL)
    cache.describe(pcm, AdaptiveOptions(cascades=SMALL.all_cascades, own_history=4, other_history=3))
    assert len(list((tmp_path / "made").iterdir())) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"own_taps": 0}, "own_taps is 0: it must be 1 to 256"),
        ({"other_taps": -1}, "other_taps is -1: it must be 0 to 256"),
        ({"forgetting": 1.0}, "forgetting is 1.0: it must be 0.5 or more and below 1"),
        ({"interval": 6}, "interval is 6: it must be 4, 8, 12 .. 64"),
        ({"ridge": 0.0}, "ridge is 0.0: it must be above 0"),
        ({"filter_taps": [0], "filter_rates": [0.1]}, "filter_taps is"),
        ({"filter_taps": [16]}, "filter_rates is .* one number above 0 and below 1 for each"),
    ],
)
def test_options_of_a_cascade_are_checked(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CascadeOptions(**options)


def test_options_come_back_from_plain_values() -> None:
    assert AdaptiveOptions.from_dict(SMALL.as_dict()) == SMALL
    assert AdaptiveOptions().num_features == 52
    for options, message in (
        ({"cascades": []}, "cascades is 0: it must be 1 to 16"),
        ({"stack_forgetting": 0.2}, "stack_forgetting is 0.2"),
        ({"stack_ridge": 0.0}, "stack_ridge is 0.0: it must be above 0"),
        ({"own_history": 65}, "own_history is 65: it must be 0 to 64"),
    ):
        with pytest.raises(ValueError, match=message):
            AdaptiveOptions(**options)  # type: ignore[arg-type]
