"""A codebook learned by moving averages (van den Oord et al. 2017, appendix A.1) that cannot collapse.

A code that no vector is near gets no update and stays dead; a network whose vectors drift away from the initial codes
ends with a handful in use. So a code that is used less than a share of the mean begins anew at a vector of the batch
(Dhariwal et al. 2020, section 3.1); before the first batch all of them are unused, and so all begin at the data.
Everything happens on the device: no step waits for it. A batch that is not finite, whose update the trainer skips,
changes nothing here either: one NaN would stay in the moving averages for ever.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-5  # Laplace smoothing of the codes' counts


class EmaCodebook(nn.Module):
    """Nearest codes of vectors: (..., dim) -> their vectors, their numbers, the commitment loss.

    Buffers: embed (dim, K), the codes; cluster_size (K) and embed_avg (dim, K), the moving averages that they follow
    from; usage (K), the moving average of counts that restarts do not touch.

    Args:
        dim: width of a vector.
        num_codes: K.
        decay: of the moving averages.
        restart_below: share of the mean use below which a code begins anew; 0: never.
    """

    def __init__(self, dim: int, num_codes: int, decay: float = 0.99, restart_below: float = 0.1) -> None:
        super().__init__()
        if not 0 < decay < 1:
            raise ValueError(f"decay must lie between 0 and 1, got {decay}")
        if not 0 <= restart_below < 1:
            raise ValueError(f"restart_below must be at least 0 and below 1, got {restart_below}")
        self.decay, self.restart_below = decay, restart_below
        self.embed: Tensor
        self.cluster_size: Tensor
        self.embed_avg: Tensor
        self.usage: Tensor
        embed = torch.randn(dim, num_codes)
        self.register_buffer("embed", embed)
        self.register_buffer("cluster_size", torch.zeros(num_codes))
        self.register_buffer("embed_avg", embed.clone())
        self.register_buffer("usage", torch.zeros(num_codes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise; in training, learn.

        Args:
            x: (..., dim) float.

        Returns:
            the codes' vectors (..., dim), through which gradients pass straight to x; the codes (...) int64; the
            commitment loss, a number.
        """
        if self.training:
            self._restart(x.detach())
        codes = self.nearest(x)
        vectors = self.vectors(codes)
        if self.training:
            self._learn(x.detach(), codes)
        commitment = (vectors - x.float()).square().mean()
        return x + (vectors.to(x.dtype) - x).detach(), codes, commitment

    @torch.no_grad()
    def nearest(self, x: Tensor) -> Tensor:
        """The numbers of the nearest codes: (..., dim) -> (...) int64."""
        with torch.autocast(x.device.type, enabled=False):
            flat = x.reshape(-1, x.shape[-1]).float()
            # |x - e|^2 without |x|^2, which is the same for every code
            distance = self.embed.square().sum(0) - 2 * flat @ self.embed
        return distance.argmin(1).view(x.shape[:-1])

    def vectors(self, codes: Tensor) -> Tensor:
        """Codes (...) -> (..., dim)."""
        return functional.embedding(codes, self.embed.t())

    @torch.no_grad()
    def _restart(self, x: Tensor) -> None:
        """Let codes that are hardly used begin anew at vectors of this batch, a little apart from each other."""
        flat = x.reshape(-1, x.shape[-1]).float()
        total = self.cluster_size.sum()
        unused = self.cluster_size <= self.restart_below * total / len(self.cluster_size)
        if self.restart_below == 0:
            unused = unused & (total == 0)
        spread = flat.std(0, unbiased=False)
        picked = flat[torch.randint(len(flat), self.cluster_size.shape, device=flat.device)]
        fresh = (picked + 0.01 * spread * torch.randn_like(picked)).t().contiguous()
        if _several_processes():
            torch.distributed.broadcast(fresh, 0)
        unused = unused & torch.isfinite(fresh).all(0)
        size = torch.where(total > 0, total, len(flat)) / len(self.cluster_size)
        self.embed.copy_(torch.where(unused, fresh, self.embed))
        self.embed_avg.copy_(torch.where(unused, fresh * size, self.embed_avg))
        self.cluster_size.copy_(torch.where(unused, size, self.cluster_size))

    @torch.no_grad()
    def _learn(self, x: Tensor, codes: Tensor) -> None:
        """Move each code to the mean of the vectors that chose it."""
        flat, chosen = x.reshape(-1, x.shape[-1]).float(), codes.reshape(-1)
        counts = torch.zeros_like(self.cluster_size).index_add_(0, chosen, torch.ones_like(flat[:, 0]))
        sums = torch.zeros_like(self.embed_avg.t()).index_add_(0, chosen, flat).t().contiguous()
        if _several_processes():
            torch.distributed.all_reduce(counts)
            torch.distributed.all_reduce(sums)
        finite = torch.isfinite(sums).all()
        for mean, given in ((self.cluster_size, counts), (self.embed_avg, sums), (self.usage, counts)):
            mean.copy_(torch.where(finite, mean.lerp(given, 1 - self.decay), mean))
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + EPSILON) / (total + len(counts) * EPSILON) * total
        self.embed.copy_(torch.where(finite, self.embed_avg / smoothed, self.embed))

    def figures(self) -> dict[str, Tensor]:
        """Over about the last 1 / (1 - decay) batches: perplexity, also as a share of all codes, and share in use."""
        share = self.usage / self.usage.sum().clamp(min=1e-20)
        perplexity = torch.special.entr(share).sum().exp()
        used = (share > self.restart_below / len(share)).float().mean()
        return {"perplexity": perplexity, "perplexity_share": perplexity / len(share), "codes_in_use": used}


def _several_processes() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
