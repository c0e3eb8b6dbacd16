"""k-means: the nearest centre, a fit of vectors in memory, and one that goes through a stream of batches.

Sums over clusters are products with one-hot rows, not scattered additions: they give the same bits on every run, on a
GPU as well. Nothing here waits for the device. Used by the codebooks of `rvq_codec` and by semantic tokens.
"""

import torch
from torch import Tensor

ROWS = 16_384  # vectors that are compared at once: bounds the memory of `nearest`


def nearest(vectors: Tensor, centres: Tensor) -> Tensor:
    """The centre nearest to each vector. vectors: (N, D), centres: (V, D) -> (N,) int64; the first of equal ones."""
    with torch.autocast(vectors.device.type, enabled=False):  # half of the digits would take others for the nearest
        lengths = centres.square().sum(1)
        parts = [torch.addmm(lengths, rows, centres.T, alpha=-2).argmin(1) for rows in vectors.split(ROWS)]
        return torch.cat(parts)


def memberships(places: Tensor, num: int) -> Tensor:
    """places: (N,) int64 in 0 .. num - 1 -> (N, num) float32, 1 where a vector belongs."""
    return torch.zeros(len(places), num, device=places.device).scatter_(1, places[:, None], 1.0)


def spread_centres(vectors: Tensor, num: int, generator: torch.Generator | None = None) -> Tensor:
    """Vectors that lie far apart, to begin with: k-means++ (Arthur and Vassilvitskii, 2007).

    Args:
        vectors: (N, D), N of 1 or more.
        num: how many.
        generator: of the random numbers; None: torch's global one.

    Returns:
        (num, D); a vector comes twice where there are fewer different ones than that.
    """
    draws = torch.rand(num, generator=generator, device=vectors.device)
    chosen = vectors[(draws[:1] * len(vectors)).long()]
    distances = (vectors - chosen).square().sum(1)
    centres = [chosen]
    for draw in draws[1:]:
        reached = distances.double().cumsum(0)
        place = torch.searchsorted(reached, (draw.double() * reached[-1]).reshape(1), right=True)
        chosen = vectors[place.clamp(max=len(vectors) - 1)]
        distances = torch.minimum(distances, (vectors - chosen).square().sum(1))
        centres.append(chosen)
    return torch.cat(centres)


def fit(
    vectors: Tensor, num: int, iterations: int = 10, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """k-means of vectors in memory (Lloyd), from k-means++; a centre that none is nearest to stays where it is.

    Args:
        vectors: (N, D) float.
        num: centres.
        iterations: how often all vectors are assigned anew.
        generator: of the random numbers; None: torch's global one.

    Returns:
        centres (num, D) and how many vectors belong to each (num,), float32.
    """
    centres = spread_centres(vectors, num, generator)
    counts = torch.zeros(num, device=vectors.device)
    for _ in range(iterations):
        members = memberships(nearest(vectors, centres), num)
        counts = members.sum(0)
        means = members.T @ vectors / counts.clamp(min=1)[:, None]
        centres = torch.where(counts[:, None] > 0, means, centres)
    return centres, counts


class StreamingKMeans:
    """k-means over batches that are seen once each: every centre is the mean of all vectors that it was ever given.

    (Sculley, "Web-scale k-means clustering", 2010: a learning rate of 1 / count for each centre.) The first vectors, as
    many as `warm_up`, are kept and fitted together.

    Args:
        num: centres.
        warm_up: vectors of the first fit, at least num.
        seed: of the random numbers.
    """

    def __init__(self, num: int, warm_up: int, seed: int) -> None:
        if num < 1 or warm_up < num:
            raise ValueError(f"num must be 1 or more and warm_up at least num, got {num} and {warm_up}")
        self.num, self.warm_up = num, warm_up
        self.centres: Tensor | None = None
        self.counts = torch.zeros(num)
        self.num_vectors = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._held: list[Tensor] = []

    def add(self, vectors: Tensor) -> None:
        """Take in a batch (N, D) float on the CPU."""
        self.num_vectors += len(vectors)
        if self.centres is not None:
            self._move(vectors)
            return
        self._held.append(vectors)
        if self.num_vectors >= self.warm_up:
            self._begin()

    def finish(self) -> Tensor:
        """The centres (num, D) float32 after the last batch.

        Raises:
            ValueError: fewer vectors came than there are centres.
        """
        if self.num_vectors < self.num:
            raise ValueError(
                f"{self.num_vectors} vectors are too few for {self.num} clusters: give more audio, or fewer clusters"
            )
        if self.centres is None:
            self._begin()
        assert self.centres is not None
        return self.centres

    def _begin(self) -> None:
        self.centres, self.counts = fit(torch.cat(self._held), self.num, 20, self._generator)
        self._held.clear()

    def _move(self, vectors: Tensor) -> None:
        assert self.centres is not None
        members = memberships(nearest(vectors, self.centres), self.num)
        given = members.sum(0)
        self.counts += given
        means = members.T @ vectors / given.clamp(min=1)[:, None]
        share = torch.where(given > 0, given / self.counts.clamp(min=1), 0.0)
        self.centres = self.centres + share[:, None] * (means - self.centres)
