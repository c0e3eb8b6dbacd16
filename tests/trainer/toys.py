"""A plug-in with the small datasets, networks, injectors and losses of the trainer's tests, registered as a user's are.

`sys.audit` marks the moments at which test_kill.py may kill a run; without a listener it costs nothing.
"""

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codes.data.dataset import Dataset
from codes.models.network import Network
from codes.trainer.injector import Injector
from codes.trainer.losses import Loss, LossValue

SEEN: dict[str, list[Any]] = {}  # what the spies below saw; tests clear it


class ToyNumbersDataset(Dataset):
    """Regression with masks that count very unequally.

    Args:
        num_items: items of an epoch
        size: values of an item
        nan_items: these items hold a NaN
        faulty: "raise", "shape", "missing" or "extra": what is wrong with the last item
        phase: train or val
    """

    provides = {"x": "(B, size)", "y": "(B, size)", "mask": "(B, size) 0 or 1", "other": "(B, size)", "path": "names"}

    def __init__(
        self, *, num_items: int = 24, size: int = 6, nan_items: list[int] | None = None, faulty: str = "",
        phase: str = "train",
    ) -> None:  # fmt: skip
        self.num_items, self.size, self.nan_items, self.faulty = num_items, size, nan_items or [], faulty
        self.offset = 0 if phase == "train" else 1000

    def __len__(self) -> int:
        return self.num_items

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        sys.audit("toy.item", index)
        fixed = np.random.default_rng(index + self.offset)
        x = fixed.normal(size=self.size).astype(np.float32)
        y = (np.roll(x, 1) * 0.5 + rng.normal(0, 0.1, self.size)).astype(np.float32)
        mask = (np.arange(self.size) < index % (self.size + 1)).astype(np.float32)
        other = (np.arange(self.size) >= index * 5 % (self.size + 1)).astype(np.float32)
        if index in self.nan_items:
            x[0] = np.nan
        item = {"x": x, "y": y, "mask": mask, "other": other, "path": f"item_{index}.wav"}
        return self._spoil(item) if self.faulty and index == self.num_items - 1 else item

    def _spoil(self, item: dict[str, Any]) -> dict[str, Any]:
        if self.faulty == "raise":
            raise ValueError("this item is broken")
        if self.faulty == "shape":
            return item | {"x": item["x"][:-1]}
        if self.faulty == "missing":
            return {key: value for key, value in item.items() if key != "y"}
        return item | {"surprise": 1.0}


class ToyTokensDataset(Dataset):
    """Random tokens. ids: (B, length) in [0, vocabulary).

    Args:
        vocabulary: number of different tokens
        length: tokens of an item
        num_items: items of an epoch
    """

    provides = {"ids": "(B, length) int64"}

    def __init__(self, *, vocabulary: int = 11, length: int = 5, num_items: int = 16) -> None:
        self.vocabulary, self.length, self.num_items = vocabulary, length, num_items

    def __len__(self) -> int:
        return self.num_items

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        return {"ids": rng.integers(0, self.vocabulary, self.length)}


class ToyMlpNetwork(Network):
    """Two layers. x: (B, size) -> (B, size).

    Args:
        size: values in and out
        hidden: width
        dropout: probability
        seed: of the initial weights, besides the run's own
    """

    def __init__(self, *, size: int = 6, hidden: int = 8, dropout: float = 0.0, seed: int | None = None) -> None:
        super().__init__()
        self.first = nn.Linear(size, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(hidden, size)
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            for p in self.parameters():
                p.data.copy_(torch.randn(p.shape, generator=generator) * 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.dropout(self.norm(self.first(x)))))


class ToyScaleNetwork(Network):
    """One factor and one offset, for arithmetic by hand. x: (B, size) -> (B, size).

    Args:
        start: the factor at first
    """

    def __init__(self, *, start: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([[start]]))
        self.offset = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.offset


class ToyVerdictNetwork(Network):
    """A discriminator. x: (B, size) -> (B, 1).

    Args:
        size: values of an item
    """

    def __init__(self, *, size: int = 6) -> None:
        super().__init__()
        self.first = nn.Linear(size, 8)
        self.last = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


class ToyBuffersNetwork(Network):
    """A factor with buffers of every kind: float, float that is bound anew, integer, batch norm's. x: (B, size)."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1, 6))
        self.norm = nn.BatchNorm1d(6)
        self.codebook: Tensor
        self.level: Tensor
        self.seen: Tensor
        self.register_buffer("codebook", torch.zeros(3))
        self.register_buffer("level", torch.zeros(2))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.codebook += 1.0
            self.level = self.level + 2.0
            self.seen += len(x)
        return self.norm(x) * self.factor


class ToyTiedNetwork(Network):
    """Logits from an embedding that is also the output layer. ids: (B, T) -> (B, T, vocabulary).

    Args:
        vocabulary: number of different tokens
    """

    def __init__(self, *, vocabulary: int = 11) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 4)
        self.head = nn.Linear(4, vocabulary, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids))


class ToyUniformNetwork(Network):
    """Every token as likely as any other. ids: (B, T) -> logits (B, T, vocabulary), all equal.

    Args:
        vocabulary: number of different tokens
    """

    def __init__(self, *, vocabulary: int = 65_536) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.level = nn.Parameter(torch.zeros(1))

    def forward(self, ids: Tensor) -> Tensor:
        return self.level.expand(*ids.shape, self.vocabulary)


class ToyPartlyFrozenNetwork(Network):
    """A base that its constructor froze, and a part that is trained (as LoRA is). x: (B, size) -> (B, size)."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 6)
        self.base.requires_grad_(False)
        self.part = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.part(x)


class ToyBareNetwork(Network):
    """No parameters at all. x: (B, size) -> (B, size)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class ToySpyInjector(Injector):
    """Notes what passes and whether gradients are on. x -> x.

    Args:
        title: where the notes go
    """

    def __init__(self, *, title: str = "spy") -> None:
        self.title = title

    def forward(self, *values: Tensor) -> Any:
        note = [(tuple(v.shape), v.dtype, v.requires_grad, torch.is_grad_enabled()) for v in values]
        SEEN.setdefault(self.title, []).append(note)
        return values[0] if len(values) == 1 else values


class ToyPairInjector(Injector):
    """Returns as many values as it is told. x -> x, x, ...

    Args:
        num: how many
        alone: return one value outside a tuple
    """

    def __init__(self, *, num: int = 2, alone: bool = False) -> None:
        self.num, self.alone = num, alone

    def forward(self, x: Tensor) -> Any:
        return x if self.alone else (x,) * self.num


class ToyFailInjector(Injector):
    """Raises ValueError. x -> nothing."""

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no good")


class ToyDoublesInjector(Injector):
    """Twice the values, through a plain function. x -> 2 x."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class ToyPoisonInjector(Injector):
    """Puts an infinity where a value is not a number. x -> x."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(torch.isnan(x), torch.inf, x)


class ToyMeanLoss(Loss):
    """A scalar: the mean square. real, fake: (B, size)."""

    def forward(self, real: Tensor, fake: Tensor) -> LossValue:
        return F.mse_loss(fake, real)


class ToyVectorLoss(Loss):
    """No scalar at all, which is a mistake. real: (B, size)."""

    def forward(self, real: Tensor) -> LossValue:
        return real


class ToyNanLoss(Loss):
    """Not a number. fake: (B, size)."""

    def forward(self, fake: Tensor) -> LossValue:
        return fake.sum() * float("nan"), fake.numel()


class ToyPlainLoss(Loss):
    """Mean absolute error as the manual shows it, without a cast; notes the dtypes. real, fake: (B, size)."""

    def forward(self, real: Tensor, fake: Tensor) -> LossValue:
        SEEN.setdefault("plain_loss", []).append((real.dtype, fake.dtype))
        return (real - fake).abs().sum(), real.numel()


class ToyIgnoreHalfInjector(Injector):
    """Every other label becomes 7. ids: (B, T) -> (B, T)."""

    def forward(self, ids: Tensor) -> Tensor:
        return torch.where(torch.arange(ids.shape[1]) % 2 == 0, 7, ids)
