"""What must be beaten over codes: unigrams and two kinds of bigrams, counted on training and scored on validation.

A bigram says a code given one before it: the same codebook's in the frame before, or the code before it in the order
of `flatten` (the next coarser codebook's). Each is mixed with the unigram, p(a | b) = (c(b, a) + m p(a)) / (c(b) + m),
with the m that suits the validation set best, so that nothing better can be said of a bigram.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from codes.entries import Experiment
from codes.trainer.build import Parts
from codes.trainer.item_sampling import needed_injectors
from codes.trainer.losses_codes import CodebookCodeLengthLoss
from codes.trainer.state import State, move
from codes.trainer.step import Step

MOST_BATCHES = {False: 20, True: 400}  # of training, where codes are made live, and where they come from a dataset
MIXED = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)


@dataclass(frozen=True)
class CodeBaselines:
    """Mean nats a code of the validation set: of unigrams and of the two kinds of bigrams."""

    unigram: float
    bigram_in_time: float
    bigram_in_order: float

    def lines(self) -> list[str]:
        """For people."""
        named = {"unigrams": self.unigram, "bigrams in time": self.bigram_in_time, "in order": self.bigram_in_order}
        shown = ", ".join(f"{name} {value:.3f}" for name, value in named.items())
        return [f"to beat on the validation codes, in nats a code: {shown}"]


def measure(experiment: Experiment, parts: Parts, numbers: list[int]) -> CodeBaselines | None:
    """The baselines of an experiment over codes; None for others.

    Args:
        experiment, parts: the experiment.
        numbers: the batches of the validation set that are scored.
    """
    for step in parts.steps:
        for loss in step.losses:
            if isinstance(loss.loss, CodebookCodeLengthLoss) and parts.val_loader is not None:
                key = loss.reads["codes"]
                live = any(hasattr(bound.injector, "resample") for bound in step.injectors)
                train = parts.train_loader
                most = min(MOST_BATCHES[not live], 4 * max(1, len(parts.datasets["train"])))
                counted = list(_codes(step, key, (train.share(number)[0] for number in range(most)), parts.device))
                val = list(_codes(step, key, (parts.val_loader.share(n)[0] for n in numbers), parts.device))
                return of_codes(counted, val)
    return None


def _codes(step: Step, key: str, batches: Iterator[dict], device: torch.device) -> Iterator[Tensor]:
    """The codes (B, K, F) of each batch, on the CPU, made as in validation."""
    chain, sources = needed_injectors(step.injectors, {key})
    for batch in batches:
        state = State({name: value for name, value in move(batch, device).items() if name in sources or name == key})
        for bound in chain:
            bound.run(state, 0)
        yield state[key].cpu()


def of_codes(counted: list[Tensor], scored: list[Tensor]) -> CodeBaselines:
    """The baselines of codes (B, K, F), counted on some and scored on others."""
    size = 1 + max(int(codes.max()) for codes in [*counted, *scored])
    rows = counted[0].shape[1]
    unigrams = torch.stack(
        [_counts(torch.cat([codes[:, k].flatten() for codes in counted]), size) for k in range(rows)]
    )
    shares = (unigrams + 1) / (unigrams + 1).sum(1, keepdim=True)  # one more of each, so that none is impossible
    alone = [-shares[k][torch.cat([codes[:, k].flatten() for codes in scored])].log() for k in range(rows)]
    in_time = [_bigram(counted, scored, k, shares[k], size, in_time=True) for k in range(rows)]
    in_order = [_bigram(counted, scored, k, shares[k], size, in_time=False) for k in range(rows)]
    return CodeBaselines(float(torch.cat(alone).mean()), sum(in_time) / rows, sum(in_order) / rows)


def _counts(codes: Tensor, size: int) -> Tensor:
    return torch.bincount(codes, minlength=size).double()


def _pairs(codes: Tensor, row: int, in_time: bool) -> tuple[Tensor, Tensor]:
    """The code before each and the code itself, (N,) each, of one codebook."""
    if in_time or (row == 0 and codes.shape[1] == 1):
        return codes[:, row, :-1].flatten(), codes[:, row, 1:].flatten()
    if row == 0:
        return codes[:, -1, :-1].flatten(), codes[:, 0, 1:].flatten()
    return codes[:, row - 1].flatten(), codes[:, row].flatten()


def _bigram(counted: list[Tensor], scored: list[Tensor], row: int, share: Tensor, size: int, in_time: bool) -> float:
    """Mean nats of one codebook's codes given the code before, with the best mixture."""
    before, code = (torch.cat(part) for part in zip(*(_pairs(codes, row, in_time) for codes in counted), strict=True))
    joint = _counts(before * size + code, size * size).view(size, size)
    known = joint.sum(1)
    before, code = (torch.cat(part) for part in zip(*(_pairs(codes, row, in_time) for codes in scored), strict=True))
    if not len(code):
        return math.nan
    pairs, seen, alone = joint[before, code], known[before], share[code]
    return min(float(-((pairs + m * alone) / (seen + m)).log().mean()) for m in MIXED)
