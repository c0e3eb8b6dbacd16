"""`codes_gpt`: a transformer that reads K codes at a step and predicts the K of the next one.

It is for grids of codes (`arrange_codes` with pattern parallel or delay): a step is a column, its K embeddings are
summed, and K heads say each code by itself given all columns before it. `gpt` reads the same codes one by one, which is
K times as many steps.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from codes.models.heads import Choice
from codes.models.network import Network
from codes.models.transformer import Activation, Norm, Transformer

PROGRESS_STEPS = 64


class CodesGpt(Network):
    """Language model of grids of codes: grid (B, K, S) integer -> nats (B, K, S) float32.

    A code that is `codebook_size` is a blank: it is seen, and costs nothing where it stands.

    Args:
        num_codebooks: rows K of the grid.
        codebook_size: codes of a codebook V.
        layers: transformer blocks.
        model_dim: width of the transformer.
        heads: attention heads.
        norm: normalisation before each branch.
        activation: of the feed-forward branch.
        dropout: probability of dropping, in training.
        tied: the heads use the embedding tables as their weights.
        max_length: steps that the key-value cache holds when generating.
    """

    def __init__(
        self,
        *,
        num_codebooks: int = 4,
        codebook_size: int = 1024,
        layers: int = 6,
        model_dim: int = 384,
        heads: int = 6,
        norm: Norm = "rmsnorm",
        activation: Activation = "swiglu",
        dropout: float = 0.0,
        tied: bool = False,
        max_length: int = 1024,
    ) -> None:
        super().__init__()
        sizes = {"num_codebooks": num_codebooks, "codebook_size": codebook_size, "layers": layers, "heads": heads}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}: it must be 1 or more")
        if model_dim % (2 * heads):
            raise ValueError(f"model_dim is {model_dim}: it must be a multiple of 2 * heads = {2 * heads}")
        if max_length < 2 or max_length % 2:
            raise ValueError(f"max_length is {max_length}: it must be even")
        self.num_codebooks, self.codebook_size, self.max_length = num_codebooks, codebook_size, max_length
        self.tables = nn.Parameter(torch.randn(num_codebooks, codebook_size + 1, model_dim) * 0.02)
        self.start = nn.Parameter(torch.randn(model_dim) * 0.02)
        self.transformer = Transformer(layers, model_dim, heads, 1, norm, activation, dropout)
        self.outputs = None if tied else nn.Parameter(torch.zeros(num_codebooks, codebook_size, model_dim))
        self.gain = min(1.0, 8 / model_dim**0.5) if tied else 1.0  # holds the first loss near ln V, as in SoftmaxHead

    def forward(self, grid: Tensor) -> Tensor:
        """grid (B, K, S) integer, 0 .. V (V: blank) -> nats (B, K, S) float32, 0 where blank."""
        if grid.dim() != 3 or grid.shape[1] != self.num_codebooks:
            raise ValueError(f"codes_gpt got a grid {tuple(grid.shape)}: it needs (B, {self.num_codebooks}, S)")
        grid = grid.long()
        hidden = self.transformer(self.embed(grid), recompute=self.gradient_checkpointing and self.training)
        with torch.autocast(grid.device.type, enabled=False):
            logits = self.logits(hidden)  # (B, K, S, V)
            blank = grid == self.codebook_size
            nats = functional.cross_entropy(
                logits.flatten(0, 2), grid.masked_fill(blank, 0).flatten(), reduction="none"
            )
        return nats.view_as(grid).masked_fill(blank, 0.0)

    def embed(self, grid: Tensor) -> Tensor:
        """grid (B, K, S) -> inputs (B, S, D): at each step the codes of the one before it."""
        rows = torch.arange(self.num_codebooks, device=grid.device)[:, None]
        x = self.tables[rows, grid[:, :, :-1]].sum(1)
        return torch.cat([self.start.expand(len(grid), 1, -1), x], 1)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (B, S, D) -> (B, K, S, V) float32."""
        weights = self.tables[:, : self.codebook_size] if self.outputs is None else self.outputs
        return torch.einsum("bsd,kvd->bksv", hidden.float() * self.gain, weights.float())

    @torch.inference_mode()
    def generate(
        self,
        grid: Tensor,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
        emit: Callable[[Tensor, int], None] | None = None,
    ) -> Tensor:
        """Fill in the free places of a grid, one column after the other.

        Args:
            grid: (B, K, S) codes, -1 where free.
            temperature: 0 takes the likeliest code, 1 samples as learned.
            top_k: keep only so many of the likeliest codes; 0 keeps all.
            top_p: keep the likeliest codes that have this probability together.
            generator: random numbers; None is torch's own.
            progress: called now and then with the steps done and their number.
            emit: called as often with the grid and the columns of it that are done.

        Returns:
            (B, K, S) int64, complete.
        """
        if grid.dim() != 3 or grid.shape[1] != self.num_codebooks or grid.shape[2] == 0:
            raise ValueError(f"generate got a grid {tuple(grid.shape)}: it needs (B, {self.num_codebooks}, S)")
        low, high = int(grid.min()), int(grid.max())
        if low < -1 or high > self.codebook_size:
            raise ValueError(f"generate got codes from {low} to {high}: they must be -1 (free) to {self.codebook_size}")
        choice = Choice(temperature, top_k, top_p, generator)
        with self.evaluating():
            return self._complete(grid.long().to(self.start.device).clone(), choice, progress, emit)

    def _complete(
        self, grid: Tensor, choice: Choice, progress: Callable[[int, int], None] | None,
        emit: Callable[[Tensor, int], None] | None,
    ) -> Tensor:  # fmt: skip
        free = (grid < 0).flatten(0, 1).any(0).tolist()
        known, total = (free.index(True) if any(free) else len(free)), len(free)
        caches = self.transformer.caches(len(grid), self.max_length, grid.device)
        used = 0  # columns in the cache
        for step in range(known, total):
            if used == 0 or used == self.max_length:  # read again what still fits
                first = step + 1 - (self.max_length // 2 if step + 1 > self.max_length or used else step + 1)
                inputs = self.embed(grid[:, :, : step + 1].clamp(min=0))[:, first:]
                used = 0
            else:
                inputs = self.embed(grid[:, :, step - 1 : step + 1].clamp(min=0))[:, 1:]
            rotary = self.transformer.rotary_at(used, inputs.shape[1], grid.device)
            hidden = self.transformer.extend(inputs, caches, used, rotary)[:, -1:]
            used += inputs.shape[1]
            if free[step]:
                drawn = choice.draw(self.logits(hidden)[:, :, 0].flatten(0, 1)).view(len(grid), -1)
                grid[:, :, step] = torch.where(grid[:, :, step] < 0, drawn, grid[:, :, step])
            if (step + 1) % PROGRESS_STEPS == 0 or step + 1 == total:
                if progress is not None:
                    progress(step + 1, total)
                if emit is not None:
                    emit(grid, step + 1)
        return grid
