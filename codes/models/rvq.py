"""Residual vector quantisation: each codebook codes what the codebooks before it left over.

The codebooks are moving averages of what they were given (van den Oord et al., 2017, appendix A.1), begun by k-means on
the first batch; a code that falls out of use starts again at a vector of the batch; items drop their last codebooks at
random (Zeghidour et al., "SoundStream", 2021), so that one network serves every bitrate. No step waits for the device:
the random numbers are drawn on it whether a code is dead or not, and whether the codebooks have begun is remembered
here and saved as a buffer. Several processes keep the same codebooks: they add up what each was given, and begin and
restart at vectors of the first.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from codes import kmeans

LEAST_COUNT = 1e-5  # so that no mean is divided by zero


class Quantised(NamedTuple):
    """What a quantiser makes of vectors (B, D, F).

    Args:
        vectors: (B, D, F), the sum over all codebooks; gradients pass as if nothing had been quantised.
        codes: (B, K, F) int64.
        commitment: (B,), squared distance of the vectors from their codes, mean over codebooks in use.
        first: (B, D, F), the first codebook's part, gradients likewise.
    """

    vectors: Tensor
    codes: Tensor
    commitment: Tensor
    first: Tensor


class ResidualQuantizer(nn.Module):
    """Vectors to K codes and back.

    Args:
        num_codebooks: K.
        codebook_size: codes in each.
        dim: numbers in a vector, D.
        decay: of the moving averages, per step.
        restart_share: a code that is used less than this share of an even use starts again; 0: never.
        dropout: share of the items of a training batch that use only the first 1 .. K codebooks, drawn evenly.
        kmeans_iterations: of the first batch.
    """

    codebooks: Tensor  # (K, V, D)
    counts: Tensor  # (K, V), moving averages
    sums: Tensor  # (K, V, D)
    begun: Tensor  # (), bool

    def __init__(
        self, num_codebooks: int, codebook_size: int, dim: int, decay: float = 0.99, restart_share: float = 0.1,
        dropout: float = 0.5, kmeans_iterations: int = 10,
    ) -> None:  # fmt: skip
        super().__init__()
        shape = (num_codebooks, codebook_size, dim)
        self.decay, self.restart_share, self.dropout = decay, restart_share, dropout
        self.kmeans_iterations = kmeans_iterations
        self.register_buffer("codebooks", torch.randn(shape) * dim**-0.5)
        self.register_buffer("counts", torch.ones(shape[:2]))
        self.register_buffer("sums", self.codebooks.clone())
        self.register_buffer("begun", torch.tensor(False))
        self._has_begun = False  # the same, known without asking the device

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *others)
        if f"{prefix}begun" in state_dict:
            self._has_begun = bool(state_dict[f"{prefix}begun"])

    def forward(self, vectors: Tensor) -> Quantised:
        """vectors: (B, D, F) float -> what is made of them; in training the codebooks follow them."""
        with torch.autocast(vectors.device.type, enabled=False):
            rows = vectors.transpose(1, 2).float()  # (B, F, D)
            if self.training and not self._has_begun:
                self._begin(rows.detach())
            return self._quantise(rows, self._kept(rows))

    def _quantise(self, rows: Tensor, kept: Tensor | None) -> Quantised:
        """rows: (B, F, D), kept: (B, K) of 0 and 1, or None for all -> what is made of them."""
        residual, total, first = rows, torch.zeros_like(rows), rows
        codes, distances = [], []
        for number in range(len(self.codebooks)):
            used = rows.new_ones(len(rows)) if kept is None else kept[:, number]
            flat = residual.detach().reshape(-1, rows.shape[2])
            places = kmeans.nearest(flat, self.codebooks[number])
            chosen = self.codebooks[number][places].view_as(rows)
            if self.training:
                self._follow(number, flat, places, used[:, None].expand(rows.shape[:2]).reshape(-1))
            distances.append((residual - chosen).square().mean((1, 2)) * used)
            codes.append(places.view(rows.shape[:2]))
            first = rows + (chosen - rows).detach() if number == 0 else first
            total = total + chosen * used[:, None, None]
            residual = residual - chosen
        commitment = torch.stack(distances).sum(0) / (len(codes) if kept is None else kept.sum(1))
        whole = rows + (total - rows).detach()
        return Quantised(whole.transpose(1, 2), torch.stack(codes, 1), commitment, first.transpose(1, 2))

    def encode(self, vectors: Tensor, num_codebooks: int) -> Tensor:
        """vectors: (B, D, F) -> codes (B, num_codebooks, F) int64."""
        residual, codes = vectors.transpose(1, 2).float(), []
        for codebook in self.codebooks[:num_codebooks]:
            places = kmeans.nearest(residual.reshape(-1, residual.shape[2]), codebook)
            residual = residual - codebook[places].view_as(residual)
            codes.append(places.view(residual.shape[:2]))
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes: (B, K', F) integers, K' of the codebooks -> vectors (B, D, F)."""
        parts = [self.codebooks[number][codes[:, number].long()] for number in range(codes.shape[1])]
        return torch.stack(parts).sum(0).transpose(1, 2)

    def _kept(self, rows: Tensor) -> Tensor | None:
        """Which codebooks each item uses: (B, K) of 0 and 1; None for all of them."""
        if not (self.training and self.dropout):
            return None
        num, device = len(self.codebooks), rows.device
        fewer = torch.randint(1, num + 1, (len(rows),), device=device)
        drops = torch.rand(len(rows), device=device) < self.dropout
        used = torch.where(drops, fewer, num)
        return (torch.arange(num, device=device) < used[:, None]).to(rows.dtype)

    @torch.no_grad()
    def _begin(self, rows: Tensor) -> None:
        """k-means of the first batch, codebook by codebook on what is left over."""
        residual = rows.reshape(-1, rows.shape[2]).nan_to_num(0.0, 0.0, 0.0)  # a bad first batch spoils no later one
        for number in range(len(self.codebooks)):
            centres, counts = kmeans.fit(residual, self.codebooks.shape[1], self.kmeans_iterations)
            self.codebooks[number] = centres
            self.counts[number] = counts.clamp(min=1)
            self.sums[number] = centres * self.counts[number][:, None]
            residual = residual - centres[kmeans.nearest(residual, centres)]
        if _several_processes():
            for buffer in (self.codebooks, self.counts, self.sums):
                torch.distributed.broadcast(buffer, 0)
        self.begun.fill_(True)
        self._has_begun = True

    @torch.no_grad()
    def _follow(self, number: int, vectors: Tensor, places: Tensor, weights: Tensor) -> None:
        """Move a codebook towards what it was given; nothing changes where that is not finite.

        vectors: (N, D), places: (N,), weights: (N,) of 0 and 1.
        """
        members = kmeans.memberships(places, self.counts.shape[1]) * weights[:, None]
        given = torch.cat([members.sum(0)[:, None], members.T @ vectors], 1)  # (V, 1 + D)
        if _several_processes():
            torch.distributed.all_reduce(given)
        counts = self.counts[number].lerp(given[:, 0], 1 - self.decay)
        sums = self.sums[number].lerp(given[:, 1:], 1 - self.decay)
        if self.restart_share:
            in_use = 1 - self.dropout * number / len(self.codebooks)  # share of the items, on average
            even = len(vectors) * in_use / len(counts)
            drawn = vectors[torch.randint(len(vectors), (len(counts),), device=vectors.device)]
            if _several_processes():
                even = even * torch.distributed.get_world_size()
                torch.distributed.broadcast(drawn, 0)
            dead = counts < self.restart_share * even
            counts = torch.where(dead, even, counts)
            sums = torch.where(dead[:, None], drawn * even, sums)
        finite = torch.isfinite(sums).all()
        self.counts[number] = torch.where(finite, counts, self.counts[number])
        self.sums[number] = torch.where(finite, sums, self.sums[number])
        self.codebooks[number] = self.sums[number] / self.counts[number].clamp(min=LEAST_COUNT)[:, None]


def _several_processes() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
