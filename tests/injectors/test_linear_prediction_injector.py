"""The injector `linear_prediction`, and `residual_lm` and the dataset `residual_chunk` that go with it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from codes.adaptive.cascade_options import AdaptiveOptions, CascadeOptions
from codes.adaptive.features import describe_pcm
from codes.data.audio.residual_chunk import ResidualChunkDataset
from codes.models.residual_lm import ResidualLm
from codes.trainer.injectors import linear_prediction
from codes.trainer.injectors.linear_prediction import LinearPredictionInjector

SMALL = AdaptiveOptions(
    cascades=[CascadeOptions(own_taps=8, other_taps=4, interval=4, filter_taps=[16], filter_rates=[0.01])],
    own_history=4,
    other_history=2,
)


def test_gives_what_is_known_of_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    wav = torch.randint(-3000, 3000, (3, 2, 200), dtype=torch.int16)
    injector = LinearPredictionInjector(adaptive=SMALL, context=50, flatten=True)
    features, offsets, residual, unit = injector(wav)
    assert features.shape == (6, 150, SMALL.num_features)
    assert offsets.shape == (6, 150, 1)
    assert residual.shape == unit.shape == (6, 150)
    assert {value.dtype for value in (features, offsets, residual, unit)} == {torch.float32}
    expected = describe_pcm(wav[1].numpy(), SMALL)
    assert (features[3].numpy() == expected.features[1, 50:].astype(np.float32)).all()
    monkeypatch.setattr(linear_prediction, "describe_pcm", None)  # what was seen is not computed again
    again = injector(wav.clone())
    assert all((one == other).all() for one, other in zip(again, (features, offsets, residual, unit), strict=True))
    assert LinearPredictionInjector(adaptive=SMALL).adaptive.num_offsets == 1


def test_forgets_what_is_too_much() -> None:
    injector = LinearPredictionInjector(adaptive=SMALL, cache_items=2)
    shape = injector(torch.randint(-99, 99, (5, 1, 60)))[0].shape
    assert shape == (5, 1, 60, SMALL.num_features)
    assert len(injector._kept) == 2


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        (torch.zeros(2, 60), r"expected integer audio \(B, C, T\), got torch.float32 of shape \(2, 60\)"),
        (torch.zeros(1, 2, 60), "expected integer audio"),
        (torch.zeros(1, 2, 50, dtype=torch.int16), "context is 50: audio of 50 frames has nothing after it"),
    ],
)
def test_refuses_what_it_cannot_predict(wav: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearPredictionInjector(adaptive=SMALL, context=50)(wav)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="context is -1: it must be 0 or more"):
        LinearPredictionInjector(context=-1)
    with pytest.raises(ValueError, match="cache_items is -2"):
        LinearPredictionInjector(cache_items=-2)


def test_a_network_learns_from_what_the_dataset_gives(tmp_path: Path, make_stereo_folder: Callable[..., Path]) -> None:
    options = {"path": make_stereo_folder(3, 6000), "chunk_frames": 200, "context_frames": 20, "adaptive": SMALL}
    options |= {"piece_frames": 2500, "val_fraction": 0.34, "feature_folder": tmp_path / "kept"}
    train, val = (ResidualChunkDataset(phase=phase, **options) for phase in ("train", "val"))
    assert len(val) == 2 * (2 * (2480 // 200) + 980 // 200)
    items = [train.item(0, np.random.default_rng(seed)) for seed in range(16)]
    batch = [torch.stack([torch.from_numpy(item[key]) for item in items]) for key in
             ("features", "offsets", "residual", "unit")]  # fmt: skip
    network = ResidualLm(features=SMALL.num_features, offsets=1, hidden=8, mixtures=3, context=20)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    losses = []
    for _ in range(30):
        nats = network(*batch)
        assert nats.shape == (16, 200)
        optimizer.zero_grad()
        nats.mean().backward()
        optimizer.step()
        losses.append(nats.mean().item())
    assert losses[-1] < losses[0] - 0.02
    with pytest.raises(ValueError, match="residual_lm got 20 samples: it needs more than context = 20"):
        network(*(value[:, :20] for value in batch))


def test_items_of_the_dataset_are_stretches_of_one_channel(
    tmp_path: Path, make_stereo_folder: Callable[..., Path]
) -> None:
    options = {"path": make_stereo_folder(3, 3000), "chunk_frames": 100, "context_frames": 20, "adaptive": SMALL}
    options |= {"val_fraction": 0.34, "feature_folder": tmp_path / "kept"}
    val = ResidualChunkDataset(phase="val", **options)
    segment, start, length, _ = val._pieces[0]
    whole, described = val._describe(segment, start, length)
    for index in range(len(val)):
        place, channel = divmod(index, 2)
        item = val.item(index, np.random.default_rng(0))
        assert set(item) == set(val.provides)
        assert item["start_frame"] == 100 * place
        assert (item["wav"][0] == whole[channel, 100 * place : 100 * place + 120]).all()
        assert (item["residual"] == described.residuals[channel, 100 * place : 100 * place + 120]).all()
    with pytest.raises(IndexError, match=f"item {len(val)} of a dataset of {len(val)}"):
        val.item(len(val), np.random.default_rng(0))
    with pytest.raises(ValueError, match="piece_frames is 256: it must be at least an item's 320 frames"):
        ResidualChunkDataset(path=tmp_path / "music", chunk_frames=300, context_frames=20, piece_frames=256)
