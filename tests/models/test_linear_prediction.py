"""Linear prediction: against a slow reference in numpy, causality, and the walk token by token."""

import numpy as np
import pytest
import torch

from codes.models.forecast import Forecaster
from codes.models.linear_prediction import LinearPrediction, LinearPredictor

OPTIONS = LinearPrediction(
    own_taps=4,
    other_taps=3,
    block_frames=8,
    long_taps=12,
    long_other_taps=2,
    long_block_frames=16,
    long_memory_frames=[300.0],
    memory_frames=[30.0, 200.0],
    scale_frames=[4.0, 20.0],
    warm_up_frames=16,
)


def stereo(frames: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    """Correlated stereo, (B, F, 2) float64 of integers: a decaying chord in both channels over noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames)
    chord = sum(np.sin(rate * time[None] + rng.uniform(0, 6, (batch, 1))) for rate in (0.05, 0.13, 0.31))
    left = 2000 * chord + rng.normal(0, 20, (batch, frames))
    right = 0.7 * left + 500 * np.sin(0.02 * time) + rng.normal(0, 20, (batch, frames))
    return torch.from_numpy(np.stack([left, right], -1).round())


LONG = LinearPrediction(own_taps=12, other_taps=2, block_frames=16)  # as the second set of OPTIONS


def reference(values: np.ndarray, options: LinearPrediction, memory: float) -> np.ndarray:
    """Predictions (F, C) of one piece (F, C) by weighted least squares, one sample at a time."""
    frames, channels = values.shape
    decay = (1 - 1 / memory) ** options.block_frames

    def regressors(frame: int, channel: int) -> np.ndarray:
        def at(f: int, c: int) -> float:
            return values[f, c] if f >= 0 else 0.0

        own = [at(frame - lag, channel) for lag in range(1, options.own_taps + 1)]
        others = [
            at(frame - lag - (other > channel), other)
            for other in range(channels)
            if other != channel
            for lag in range(options.other_taps)
        ]
        return np.array(own + others)

    differences = np.diff(np.pad(values, ((2, 0), (0, 0))), 2, axis=0)
    blocks = np.arange(frames) // options.block_frames
    sizes = np.array([(differences[blocks == block] ** 2).mean() + 1 for block in blocks])
    predictions = np.zeros_like(values)
    for frame in range(frames):
        block = frame // options.block_frames
        for channel in range(channels):
            past = np.arange(block * options.block_frames)
            newest = regressors(frame, channel)
            x = np.array([regressors(f, channel) for f in range(len(past))]).reshape(len(past), len(newest))
            weights = decay ** (block - 1 - blocks[past]) / sizes[past] ** options.weighting
            covariance = (x * weights[:, None]).T @ x
            ridge = options.ridge + 1e-11 * np.trace(covariance)
            correlation = (x * weights[:, None]).T @ values[: len(past), channel]
            coefficients = np.linalg.solve(covariance + ridge * np.eye(len(newest)), correlation)
            predictions[frame, channel] = newest @ coefficients
    return predictions


def test_equals_a_slow_reference():
    values = stereo(60)
    predictions = LinearPredictor(OPTIONS, 2)(values)
    assert predictions.shape == (1, 60, 2, 2)
    for index, memory in enumerate(OPTIONS.memory_frames):
        expected = reference(values[0].numpy(), OPTIONS, memory)
        np.testing.assert_allclose(predictions[0, ..., index], expected, rtol=1e-6, atol=1e-3)
    predictions = LinearPredictor(OPTIONS, 2, long=True)(values)
    np.testing.assert_allclose(predictions[0, ..., 0], reference(values[0].numpy(), LONG, 300.0), rtol=1e-6, atol=1e-3)


def test_first_frame_only_cuts():
    values = stereo(100, batch=2)
    predictor = LinearPredictor(OPTIONS, 2)
    torch.testing.assert_close(predictor(values, first=40), predictor(values)[:, 40:])


def test_predicts_a_chord_far_below_its_level():
    values = stereo(2000)
    residual = (values[..., None] - LinearPredictor(LinearPrediction(), 2)(values))[:, 1000:]
    assert residual[:, :, 1].std() < 0.05 * values.std()


def test_right_uses_the_left_of_its_own_frame_and_not_the_reverse():
    values = stereo(64)
    changed = values.clone()
    changed[0, 60, 0] += 100
    predictor = LinearPredictor(OPTIONS, 2)
    before, after = predictor(values), predictor(changed)
    assert torch.equal(before[:, :60], after[:, :60])
    assert torch.equal(before[:, 60, 0], after[:, 60, 0])
    assert not torch.equal(before[:, 60, 1], after[:, 60, 1])


@pytest.mark.parametrize("known", [0, 48])
def test_steps_equal_the_parallel_predictions(known: int):
    values = stereo(90, batch=2)
    predictor = LinearPredictor(OPTIONS, 2)
    expected = predictor(values).flatten(1, 2)
    state = predictor.start(values[:, :known], 90)
    for token in range(known * 2, 180):
        torch.testing.assert_close(predictor.predict(state, token), expected[:, token], rtol=1e-7, atol=1e-5)
        predictor.update(state, token, values.flatten(1)[:, token])


@pytest.mark.parametrize("context", [0, 64])
def test_forecast_by_steps_equals_the_parallel_one(context: int):
    ids = stereo(80, batch=2).flatten(1).long() + 32768
    forecaster = Forecaster(OPTIONS, 2, 16)
    expected = forecaster(ids, context)
    state, _ = forecaster.start(ids[:, :context], forecaster.origin(context), 160)
    for token in range(context, 160):
        forecast = forecaster.step(state, token)
        place = token - context
        means = forecast.anchor[..., None] + forecast.offsets
        expected_means = expected.anchor[:, place, None] + expected.offsets[:, place]
        torch.testing.assert_close(means[:, 0], expected_means, rtol=0, atol=2e-2)
        torch.testing.assert_close(forecast.features[:, 0], expected.features[:, place], rtol=0, atol=1e-3)
        forecaster.update(state, token, ids[:, token])


def test_silence_and_full_scale_are_harmless():
    silence = torch.full((1, 400), 2**23)
    loud = (torch.arange(400)[None] // 50 % 2) * (2**24 - 1)
    for ids in (silence, loud):
        forecast = Forecaster(LinearPrediction(), 2, 24)(ids, 0)
        assert forecast.features.isfinite().all()
        assert forecast.offsets.isfinite().all()
        assert 0 <= forecast.anchor.min() <= forecast.anchor.max() < 2**24


def test_running_errors_are_weighted_means_of_the_past():
    ids = stereo(50).flatten(1).long() + 32768
    forecaster = Forecaster(OPTIONS, 2, 16)
    errors = torch.rand(1, 150, 2, 2, dtype=torch.float64)
    weights = forecaster._weights(torch.arange(150)[:, None])
    logs = forecaster._log_errors(forecaster._running_sums(errors)[:, :-1], weights[:, None, None])
    weights = 0.75 ** torch.arange(130)
    expected = (errors[0, :130, 1, 0].flip(0) * weights).sum() / weights.sum()
    assert logs[0, 130, 1, 0, 0].exp().item() == pytest.approx(expected.item() + 0.02, rel=1e-4)
    assert forecaster(ids, 0).features.shape == (1, 100, forecaster.num_features)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("own_taps", 1, "at least 2"),
        ("block_frames", 0, "at least 1"),
        ("history", -1, "0 or more"),
        ("memory_frames", [], "one or more numbers above 1"),
        ("scale_frames", [1.0], "one or more numbers above 1"),
        ("weighting", 1.5, "0 to 1"),
        ("long_block_frames", 40, "a multiple of 32"),
        ("long_taps", 1, "0 .off. or at least 2"),
        ("ridge", 0.0, "above 0"),
    ],
)
def test_bad_options_are_named(option: str, value: object, allowed: str):
    with pytest.raises(ValueError, match=rf"linear_prediction\.{option} is .*it must be {allowed}"):
        LinearPrediction(**{option: value})  # type: ignore[arg-type]
