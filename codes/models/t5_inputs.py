"""What a `t5` is fed: embeddings of codes, and convolutions over the samples around."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from codes.models.forecast import FLOOR, Forecast
from codes.models.inputs import ConvolutionInput, ValueInput

STEPS = 32  # over which the size of steps is measured


class TokenEmbedding(nn.Module):
    """Codes to vectors; -1 stands for the start token, which has a row of its own behind the codes'.

    Args:
        dim: width of the vectors.
        vocabulary: number of codes V.
        bits: bit depth of the codes, or None.
        input: ids (a table of V + 1 rows), values (features of the sample value), or both.
        table: of a pretrained model, V + 1 rows; None makes one.
    """

    def __init__(self, dim: int, vocabulary: int, bits: int | None, input: str, table: nn.Embedding | None) -> None:
        super().__init__()
        self.start = vocabulary if input != "values" else 0  # the row of the start token
        self.table = table if table is not None else nn.Embedding(self.start + 1, dim)
        self.by_id = input != "values"
        self.values = ValueInput(dim, bits or 0) if input != "ids" else None

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, N), -1 for the start token -> (B, N, dim)."""
        starts = ids < 0
        x = self.table(torch.where(starts, self.start, ids) if self.by_id else torch.zeros_like(ids))
        if self.values is None:
            return x
        of_values = self.values(functional.pad(ids.clamp(min=0), (0, 1)), 0) * ~starts[..., None]
        return x + of_values if self.by_id else torch.where(starts[..., None], x, of_values)


class TargetInput(nn.Module):
    """A convolution over the target's past. target (B, reach + N), -1 before its start -> (B, N, dim), or 0.

    Args:
        dim: width of the vectors.
        bits: bit depth of the codes, or None.
        kernel: samples of the past that the convolution sees; 0 is off.
        reach: samples of the past that are handed in, at least.
    """

    def __init__(self, dim: int, bits: int | None, kernel: int, reach: int) -> None:
        super().__init__()
        self.kernel, self.reach = kernel, max(kernel, reach)
        self.silence = 2 ** (bits - 1) if bits else 0
        self.convolution = ConvolutionInput(dim, bits or 0, kernel, 1) if kernel else None

    def forward(self, target: Tensor) -> Tensor | float:
        """target (B, reach + N), -1 before its start -> (B, N, dim), or 0 where there is no convolution."""
        if self.convolution is None:
            return 0.0
        target = target[:, self.reach - self.kernel :]
        return self.convolution(torch.where(target < 0, self.silence, target), 0)


class Guess(nn.Module):
    """What may be said of a sample at a glance, for the logistics head; no parameters.

    Predictions are the sample before, that and the last step again, and, where the source is aligned, that and the
    source's step, and the source's own value. Their error is judged by the size of steps: of the target over the last
    samples, of the source around the aligned one.

    Args:
        bits: bit depth of the codes.
        aligned: whether there is a source.
    """

    reach = STEPS + 2

    def __init__(self, bits: int, aligned: bool) -> None:
        super().__init__()
        self.bits, self.aligned = bits, aligned
        self.num_offsets = 4 if aligned else 2
        self.num_features = self.num_offsets + 2 + aligned

    @torch.no_grad()
    def forward(self, target: Tensor, source: Tensor, first: int) -> Forecast:
        """The forecast of N tokens.

        Args:
            target: (B, reach + N) codes that begin ``reach`` tokens earlier, -1 before the start.
            source: (B, S) codes; what belongs to the first token is at place ``first``.

        Returns:
            for N tokens.
        """
        num = target.shape[1] - self.reach
        before = source[:, first : first + 1] if self.aligned else torch.full_like(target[:, :1], 2 ** (self.bits - 1))
        past = torch.where(target < 0, before, target)[:, :-1]
        steps = past.diff()
        previous, last = past[:, self.reach - 1 :], steps[:, self.reach - 2 :]
        sizes = [steps[:, -(num + STEPS - 1) :].abs().float().unfold(1, STEPS, 1).mean(-1)]
        offsets = [torch.zeros_like(previous), last]
        if self.aligned:
            around = functional.pad(source.float(), (STEPS // 2 + 1, STEPS // 2), mode="replicate").long().diff()
            own = around[:, first + STEPS // 2 :][:, :num]  # the source's step to the aligned sample
            sizes.append(around[:, first:].abs().float().unfold(1, STEPS, 1).mean(-1)[:, :num])
            offsets += [own, source[:, first : first + num] - previous]
        logs = [(size + FLOOR).log() for size in sizes]
        unit = torch.stack(logs).logsumexp(0) - math.log(len(logs))
        all_offsets = torch.stack(offsets, -1).float()
        features = torch.cat(
            [
                torch.stack([*(log - unit for log in logs), unit / (self.bits * math.log(2) / 4) - 1], -1),
                (all_offsets / unit.exp()[..., None]).asinh(),
            ],
            -1,
        )
        return Forecast(previous, all_offsets, unit, features)


class SourceInput(nn.Module):
    """What the decoder is given of the source at the place of each token that it predicts.

    Args:
        dim: width of the decoder's input.
        aligned_dim: width of the aligned vectors; 0: there are none.
        bits: bit depth of the codes, or None.
        kernel: samples of the source around the aligned one that a convolution sees; 0 is off.
    """

    def __init__(self, dim: int, aligned_dim: int, bits: int | None, kernel: int) -> None:
        super().__init__()
        self.silence = 2 ** (bits - 1) if bits else 0
        self.aligned = nn.Linear(aligned_dim, dim, bias=False) if aligned_dim else None
        wanted = kernel and aligned_dim
        self.convolution = ConvolutionInput(dim, bits or 0, kernel, 1) if wanted else None
        self.none = nn.Parameter(torch.zeros(dim)) if self.aligned is None else None

    def forward(self, source: Tensor | None, aligned: Tensor | None, first: int, length: int) -> Tensor:
        """source (B, S), aligned (B, length, aligned_dim), the first token's place in it -> (B, length, dim)."""
        if self.aligned is None or aligned is None or source is None:
            assert self.none is not None
            return self.none[None, None]
        x = self.aligned(aligned)
        if self.convolution is None:
            return x
        kernel = self.convolution.reach
        before = kernel // 2  # the window of a token at place p: p - before .. p - before + kernel - 1
        padded = functional.pad(source, (kernel, kernel), value=self.silence)
        start = first + kernel - before
        return x + self.convolution(padded[:, start : start + length + kernel], 0)
