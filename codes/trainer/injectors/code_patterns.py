"""The order in which a language model sees the codes of K codebooks: five patterns, each with an exact inverse.

Codes (B, K, F) become a sequence that `gpt` reads token by token, or a grid whose columns `codes_gpt` reads step by
step, all codebooks at once. The patterns are those of AudioGen and MusicGen (Kreuk et al., 2022; Copet et al., 2023)
and AudioLM's (Borsos et al., 2022):

    flatten       sequence   q0 q1 q2 q3 of frame 0, then of frame 1 ...
    stereo        sequence   the rows are two channels of K/2 codebooks: L0 R0 L1 R1 of frame 0, then of frame 1 ...
    coarse_first  sequence   the first `coarse` codebooks of all frames, frame by frame, then the others
    parallel      grid       column f holds all codes of frame f
    delay         grid       row k is k columns late, so that a finer code follows the coarser ones of its frame
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from codes.trainer.injector import Injector

Pattern = Literal["flatten", "stereo", "coarse_first", "parallel", "delay"]


class _Arrangement:
    """A pattern over K codebooks: `arrange` (B, K, F) to tokens and `restore` back, for values of any dtype."""

    def __init__(self, pattern: Pattern, num_codebooks: int, coarse: int) -> None:
        if num_codebooks < 1:
            raise ValueError(f"num_codebooks is {num_codebooks}: it must be 1 or more")
        if pattern == "coarse_first" and not 0 < coarse < num_codebooks:
            raise ValueError(f"coarse is {coarse}: of {num_codebooks} codebooks it must be 1 to {num_codebooks - 1}")
        if pattern == "stereo" and num_codebooks % 2:
            raise ValueError(f"num_codebooks is {num_codebooks}: pattern: stereo needs both channels, an even number")
        self.pattern, self.num_codebooks, self.coarse = pattern, num_codebooks, coarse
        self.grid = pattern in ("parallel", "delay")

    def arrange(self, codes: Tensor, blank: int = 0) -> Tensor:
        """(B, K, F) -> (B, N), or (B, K, S) of a grid, with `blank` where nothing stands."""
        if codes.dim() != 3 or codes.shape[1] != self.num_codebooks:
            raise ValueError(f"expected codes (B, {self.num_codebooks}, F), got {tuple(codes.shape)}")
        if self.pattern == "parallel":
            return codes
        if self.pattern == "delay":
            last = self.num_codebooks - 1
            rows = [functional.pad(row, (k, last - k), value=blank) for k, row in enumerate(codes.unbind(1))]
            return torch.stack(rows, 1)
        if self.pattern == "coarse_first":
            return torch.cat([part.transpose(1, 2).flatten(1) for part in self._parts(codes)], 1)
        if self.pattern == "stereo":
            codes = codes.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        return codes.transpose(1, 2).flatten(1)

    def restore(self, tokens: Tensor) -> Tensor:
        """The way back: (B, N) or (B, K, S) -> (B, K, F)."""
        frames = self.frames(tokens)
        if self.pattern == "parallel":
            return tokens
        if self.pattern == "delay":
            return torch.stack([row[:, k : k + frames] for k, row in enumerate(tokens.unbind(1))], 1)
        if self.pattern == "coarse_first":
            sizes = [self.coarse, self.num_codebooks - self.coarse]
            parts = tokens.split([size * frames for size in sizes], 1)
            return torch.cat(
                [p.unflatten(1, (frames, size)).transpose(1, 2) for p, size in zip(parts, sizes, strict=True)], 1
            )
        codes = tokens.unflatten(1, (frames, self.num_codebooks)).transpose(1, 2)
        return codes if self.pattern == "flatten" else codes.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)

    def _parts(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        return codes[:, : self.coarse], codes[:, self.coarse :]

    def frames(self, tokens: Tensor) -> int:
        """The frames that tokens stand for.

        Raises:
            ValueError: they are no whole frames of this pattern.
        """
        num_codebooks, length = self.num_codebooks, tokens.shape[-1]
        shape = f"(B, {num_codebooks}, S)" if self.grid else f"(B, {num_codebooks} * F)"
        fits = tokens.dim() == 3 and tokens.shape[1] == num_codebooks if self.grid else tokens.dim() == 2
        frames = (
            length - num_codebooks + 1 if self.pattern == "delay" else length if self.grid else length // num_codebooks
        )
        if not fits or frames < 1 or (not self.grid and length % num_codebooks):
            raise ValueError(f"expected tokens {shape} of pattern {self.pattern}, got {tuple(tokens.shape)}")
        return frames


class ArrangeCodesInjector(Injector):
    """Codes in the order of a pattern. codes: (B, K, F) -> tokens: (B, K F), or (B, K, S) of parallel and delay.

    Args:
        pattern: flatten, stereo, coarse_first (sequences, for `gpt`), parallel or delay (grids, for `codes_gpt`).
        num_codebooks: rows K of the codes, those of both channels for stereo.
        codebook_size: codes of a codebook V; V itself is the blank of delay.
        coarse: of coarse_first: how many codebooks come first.
        distinct: add V k to the codes of codebook k, so that codebooks have ids of their own (0 .. K V - 1); only for
            sequences. coarse_first needs it, as a code's place does not tell its codebook.
    """

    def __init__(
        self,
        *,
        pattern: Pattern = "flatten",
        num_codebooks: int,
        codebook_size: int = 1024,
        coarse: int = 1,
        distinct: bool = False,
    ) -> None:
        self.arrangement = _Arrangement(pattern, num_codebooks, coarse)
        if distinct and self.arrangement.grid:
            raise ValueError(f"distinct is for sequences: pattern: {pattern} keeps each codebook in a row of its own")
        if pattern == "coarse_first" and not distinct:
            raise ValueError("distinct must be true for pattern: coarse_first, and vocabulary codebooks times codes")
        self.codebook_size, self.distinct = codebook_size, distinct

    def forward(self, codes: Tensor) -> Tensor:
        """codes: (B, K, F) integer -> tokens: (B, N) or (B, K, S) int64.

        Raises:
            ValueError: the codes are no integers, or have another number of codebooks.
        """
        if codes.is_floating_point():
            raise ValueError(f"expected integer codes, got {codes.dtype} {tuple(codes.shape)}")
        codes = codes.long()
        if self.distinct:
            codes = codes + self.codebook_size * torch.arange(codes.shape[1], device=codes.device)[:, None]
        return self.arrangement.arrange(codes, self.codebook_size)

    def inverse(self, tokens: Tensor) -> Tensor:
        """tokens: (B, N) or (B, K, S) integer -> codes: (B, K, F) int64."""
        codes = self.arrangement.restore(tokens.long())
        return codes % self.codebook_size if self.distinct else codes

    def complete_frames(self, done: int, total: int) -> int:
        """Frames all of whose codes are among the first `done` of `total` tokens (columns of a grid)."""
        arrangement, num_codebooks = self.arrangement, self.arrangement.num_codebooks
        if arrangement.pattern == "coarse_first":
            frames, coarse = total // num_codebooks, arrangement.coarse
            return max(0, done - coarse * frames) // (num_codebooks - coarse)
        if arrangement.pattern == "delay":
            return max(0, done - num_codebooks + 1)
        return done if arrangement.grid else done // num_codebooks


class RestoreCodesInjector(Injector):
    """What a network returns for each token, by codebook and frame. nats: (B, N) or (B, K, S) -> (B, K, F).

    Args:
        pattern: as in `arrange_codes`.
        num_codebooks: as there.
        coarse: as there.
    """

    def __init__(self, *, pattern: Pattern = "flatten", num_codebooks: int, coarse: int = 1) -> None:
        self.arrangement = _Arrangement(pattern, num_codebooks, coarse)

    def forward(self, nats: Tensor) -> Tensor:
        """nats: (B, N) or (B, K, S) of any dtype -> (B, K, F)."""
        return self.arrangement.restore(nats)

    def inverse(self, nats: Tensor) -> Tensor:
        """(B, K, F) -> (B, N) or (B, K, S)."""
        return self.arrangement.arrange(nats)
