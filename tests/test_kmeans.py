"""k-means: the nearest centre, a fit, and a fit of a stream."""

import pytest
import torch
from torch import Tensor

from codes import kmeans


def clouds(num: int, centres: Tensor, spread: float = 0.05) -> Tensor:
    return centres[torch.randint(len(centres), (num,))] + spread * torch.randn(num, centres.shape[1])


def furthest(centres: Tensor, found: Tensor) -> float:
    return float(torch.cdist(centres, found).min(1).values.max())


def test_nearest_is_the_one_of_all_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "ROWS", 7)
    vectors, centres = torch.randn(50, 3), torch.randn(9, 3)
    assert kmeans.nearest(vectors, centres).equal(torch.cdist(vectors, centres).argmin(1))


def test_fit_finds_the_clouds() -> None:
    true = torch.randn(6, 4) * 3
    centres, counts = kmeans.fit(clouds(600, true), 6, 10)
    assert furthest(true, centres) < 0.1
    assert int(counts.sum()) == 600


def test_fewer_vectors_than_centres() -> None:
    vectors = torch.randn(3, 2)
    centres, counts = kmeans.fit(vectors, 8, 3)
    assert furthest(vectors, centres) < 1e-6
    assert torch.isfinite(centres).all()
    assert int(counts.sum()) == 3


def test_a_stream_gives_the_same_twice_and_finds_the_clouds() -> None:
    true = torch.randn(5, 4) * 3
    batches = clouds(2000, true).split(130)
    streams = [kmeans.StreamingKMeans(5, 300, seed=3) for _ in range(2)]
    for stream in streams:
        for batch in batches:
            stream.add(batch)
    first, second = (stream.finish() for stream in streams)
    assert first.equal(second)
    assert furthest(true, first) < 0.1
    assert int(streams[0].counts.sum()) == streams[0].num_vectors == 2000


def test_a_stream_that_ends_early_and_one_that_is_too_short() -> None:
    stream = kmeans.StreamingKMeans(4, 100, seed=0)
    stream.add(torch.randn(3, 2))
    with pytest.raises(ValueError, match=r"^3 vectors are too few for 4 clusters"):
        stream.finish()
    stream.add(torch.randn(9, 2))
    assert stream.finish().shape == (4, 2)
    with pytest.raises(ValueError, match="warm_up at least num, got 4 and 3"):
        kmeans.StreamingKMeans(4, 3, seed=0)
