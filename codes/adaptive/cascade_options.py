"""What adaptive prediction is made of: several cascades of different memory, and a stack that weighs them.

A cascade predicts a sample by exponentially weighted least squares from the recent samples of its own channel and of
the channel beside it, and what is left by normalised LMS filters, one after the other, each over the residuals of the
stage before. The stack is least squares again, over what all cascades predict. Observations are weighted by the inverse
of the running error, so that a loud attack does not rule the fit (as Sac does).
"""

import dataclasses
from typing import Any

MAX_LEAST_SQUARES_TAPS = 256
MAX_FILTER_TAPS = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class CascadeOptions:
    """One cascade.

    Args:
        own_taps: past samples of the channel itself that least squares sees.
        other_taps: recent samples of the channel beside it.
        forgetting: weight of an observation relative to that of the next, below 1.
        interval: frames between two solutions, a multiple of 4.
        ridge: regularisation, in units of a weighted squared sample.
        filter_taps: lengths of the LMS stages.
        filter_rates: step size of each stage, relative to the power of what it sees.
    """

    own_taps: int = 32
    other_taps: int = 16
    forgetting: float = 0.998
    interval: int = 8
    ridge: float = 0.5
    filter_taps: list[int] = dataclasses.field(default_factory=lambda: [256, 32, 16])
    filter_rates: list[float] = dataclasses.field(default_factory=lambda: [0.016, 0.024, 0.04])

    def __post_init__(self) -> None:
        most = MAX_LEAST_SQUARES_TAPS
        _require(1 <= self.own_taps <= most, "own_taps", self.own_taps, f"1 to {most}")
        _require(0 <= self.other_taps <= most, "other_taps", self.other_taps, f"0 to {most}")
        _require(0.5 <= self.forgetting < 1, "forgetting", self.forgetting, "0.5 or more and below 1")
        _require(4 <= self.interval <= 64 and self.interval % 4 == 0, "interval", self.interval, "4, 8, 12 .. 64")
        _require(self.ridge > 0, "ridge", self.ridge, "above 0")
        sane = all(1 <= taps <= MAX_FILTER_TAPS for taps in self.filter_taps)
        _require(sane, "filter_taps", self.filter_taps, f"lengths of 1 to {MAX_FILTER_TAPS}")
        same = len(self.filter_rates) == len(self.filter_taps) and all(0 < rate < 1 for rate in self.filter_rates)
        _require(same, "filter_rates", self.filter_rates, "one number above 0 and below 1 for each of filter_taps")


def default_cascades() -> list[CascadeOptions]:
    """Five memories, from 100 frames to 5000."""
    return [
        CascadeOptions(
            own_taps=16, other_taps=8, forgetting=0.99, interval=4, ridge=0.1, filter_rates=[0.04, 0.06, 0.1],
        ),
        CascadeOptions(own_taps=32, other_taps=16, forgetting=0.996, ridge=0.1, filter_rates=[0.08, 0.12, 0.2]),
        CascadeOptions(own_taps=32, other_taps=16, forgetting=0.998, filter_rates=[0.04, 0.06, 0.1]),
        CascadeOptions(
            own_taps=24, other_taps=8, forgetting=0.9995, ridge=1.0,
            filter_taps=[512, 128, 16], filter_rates=[0.02, 0.04, 0.06],
        ),
        CascadeOptions(
            own_taps=64, other_taps=32, forgetting=0.9998, interval=32, ridge=1.0,
            filter_taps=[1024, 256, 16], filter_rates=[0.08, 0.08, 0.1],
        ),
    ]  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptiveOptions:
    """Adaptive prediction of one or two channels, and what a network is told of it.

    Args:
        cascades: at least one; null: five memories, from 100 frames to 5000.
        stack_forgetting: forgetting of the stack.
        stack_ridge: its regularisation.
        own_history: past residuals of the channel itself among the features.
        other_history: recent residuals of the channel beside it.
    """

    cascades: list[CascadeOptions] | None = None
    stack_forgetting: float = 0.998
    stack_ridge: float = 1.0
    own_history: int = 16
    other_history: int = 8

    def __post_init__(self) -> None:
        count = len(self.all_cascades)
        _require(1 <= count <= 16, "cascades", count, "1 to 16 of them")
        _require(0.5 <= self.stack_forgetting < 1, "stack_forgetting", self.stack_forgetting, "0.5 or more, below 1")
        _require(self.stack_ridge > 0, "stack_ridge", self.stack_ridge, "above 0")
        for name in ("own_history", "other_history"):
            _require(0 <= getattr(self, name) <= 64, name, getattr(self, name), "0 to 64")

    @property
    def all_cascades(self) -> list[CascadeOptions]:
        """The cascades, those of the default where none are given."""
        return default_cascades() if self.cascades is None else self.cascades

    @property
    def num_offsets(self) -> int:
        """Predictions of the cascades, given as offsets from the stack's."""
        return len(self.all_cascades)

    @property
    def num_features(self) -> int:
        """Features of a sample; `codes.adaptive.features` says which."""
        return 4 * len(self.all_cascades) + 8 + self.own_history + self.other_history

    def as_dict(self) -> dict[str, object]:
        """Plain values, from which `from_dict` makes the same options; for JSON."""
        return dataclasses.asdict(dataclasses.replace(self, cascades=self.all_cascades))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "AdaptiveOptions":
        """The options of `as_dict`."""
        cascades = [CascadeOptions(**cascade) for cascade in values["cascades"]]
        return cls(**{**values, "cascades": cascades})


def _require(holds: bool, name: str, got: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"adaptive prediction: {name} is {got}: it must be {allowed}")
