"""The base class of all injectors.

An injector is a function with options. The step fetches the values under ``in``, calls ``forward(*values)`` and binds
what it returns to the keys under ``out``; the injector never sees the state. The constructor's arguments are the
YAML's options. A whole injector::

    class MidSideInjector(Injector):
        '''Left/right to mid/side. wav: (B, 2, T) -> (B, 2, T).'''

        def forward(self, wav):
            left, right = wav.unbind(1)
            return torch.stack([left + right, left - right], 1)

``type: mid_side`` now works in any YAML that names the file under ``plugins``.
"""

import random
from typing import Any, ClassVar

import torch
from torch import Tensor

from codes import randomness
from codes.registry import Registered


class Injector(Registered):
    """Transforms some values of the state into others.

    An injector draws random numbers in one of two ways and in no other, so that runs repeat and resume exactly. What an
    item gets (an augmentation) comes from ``self.draw_uniform(wav, low, high)`` and its sisters: it follows from the
    run's seed, the epoch, the item and the injector's name, whatever the batch it is in. All else comes from
    ``self.generator(device)``, which the trainer reseeds from (seed, injector, step, micro-batch).
    """

    kind: ClassVar[str] = "injector"
    item_seeds: Tensor | None = None  # (B,) int64, of the batch at hand; the step sets them before it calls forward()
    salt: int = 0  # tells the draws of two injectors apart; the step makes it from the injector's name
    step: int = 0  # the training step at hand, from 1; 0 in validation
    trained_steps: int = 0  # the newest training step, in validation as well
    num_outputs: int | None = None  # keys under `out`; None outside of a step
    _generator: torch.Generator | None = None
    _seed: int = 0
    _draws: int = 0

    def forward(self, *values: Any) -> Any:
        """Map the values under ``in`` to the values under ``out`` (a tuple where there are several)."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(self, ...)")

    def inverse(self, *values: Any) -> Any:
        """Map the values under ``out`` back to those under ``in``; sampling uses it to turn codes into sound."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse")

    def undo(self, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> Any:
        """The inputs that would have given these outputs; what outputs do not hold is taken from the real inputs.

        The inverse, unless a subclass knows more, as one does that cuts a stretch out of its input.
        """
        return self.inverse(*outputs)

    def __call__(self, *values: Any) -> Any:
        return self.forward(*values)

    def reseed(self, seed: int) -> None:
        """Start the injector's random numbers anew from a seed; items have no seeds until they are set."""
        self._seed = seed
        self._generator = None
        self.item_seeds = None
        self._draws = 0

    def seed_items(self, item_seeds: Tensor, salt: int) -> None:
        """Start the items' random numbers anew, as an injector does for one that it calls."""
        self.item_seeds, self.salt, self._draws = item_seeds, salt, 0

    def generator(self, device: torch.device | str) -> torch.Generator:
        """The injector's own random number generator on that device."""
        device = torch.empty(0, device=device).device  # "cuda" becomes the current "cuda:0"
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device).manual_seed(self._seed)
        return self._generator

    def draw_uniform(self, batch: Tensor, low: float, high: float, *shape: int) -> Tensor:
        """Numbers for each item, evenly from [low, high).

        Without item seeds (no step called forward(), as in a script of your own) they follow from the injector's
        generator instead; so do those of the sisters below.

        Args:
            batch: a value (B, ...) of the batch; its items and device are those of the numbers.
            shape: of the numbers of an item.

        Returns:
            (B, *shape) float32.

        Raises:
            ValueError: the first dimension of `batch` is not that of the items.
        """
        return randomness.uniform(*self._next(batch), shape).mul_(high - low).add_(low)

    def draw_normal(self, batch: Tensor, *shape: int) -> Tensor:
        """(B, *shape) float32 for each item, normal with mean 0 and standard deviation 1; see `draw_uniform`."""
        return randomness.normal(*self._next(batch), shape)

    def draw_integers(self, batch: Tensor, low: int, high: int, *shape: int) -> Tensor:
        """(B, *shape) int64 for each item, evenly from low .. high - 1; see `draw_uniform`."""
        return randomness.integers(*self._next(batch), low, high, shape)

    def draw_number(self, low: int, high: int) -> int:
        """One whole number for all items, evenly from low .. high, made on the host: a size, which nothing waits for.

        It follows from the injector's generator; micro-batches of one batch have numbers of their own.
        """
        self._draws += 1
        return random.Random(f"{self._seed} {self._draws}").randint(low, high)

    def _next(self, batch: Tensor) -> tuple[Tensor, int]:
        """The items' seeds, and a salt that no other draw of this forward() has."""
        draw = self._draws
        self._draws += 1
        if self.item_seeds is None:
            generator = self.generator(batch.device)
            return torch.randint(2**63 - 1, batch.shape[:1], device=batch.device, generator=generator), 0
        if len(self.item_seeds) != batch.shape[0]:
            raise ValueError(
                f"expected a value of {len(self.item_seeds)} items, as the batch has, got shape {tuple(batch.shape)}"
            )
        return self.item_seeds, randomness.mix_number(self.salt) + draw
