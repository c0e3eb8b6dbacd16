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

from typing import Any, ClassVar

import torch

from codes.registry import Registered


class Injector(Registered):
    """Transforms some values of the state into others.

    An injector that draws random numbers draws them from ``self.generator(device)`` and nowhere else: the trainer
    reseeds it from (seed, injector, step, micro-batch), so runs repeat and resume exactly.
    """

    kind: ClassVar[str] = "injector"
    _generator: torch.Generator | None = None
    _seed: int = 0

    def forward(self, *values: Any) -> Any:
        """Map the values under ``in`` to the values under ``out`` (a tuple where there are several)."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(self, ...)")

    def inverse(self, *values: Any) -> Any:
        """Map the values under ``out`` back to those under ``in``; sampling uses it to turn codes into sound."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse")

    def __call__(self, *values: Any) -> Any:
        return self.forward(*values)

    def reseed(self, seed: int) -> None:
        """Start the injector's random numbers anew from a seed."""
        self._seed = seed
        self._generator = None

    def generator(self, device: torch.device | str) -> torch.Generator:
        """The injector's own random number generator on that device."""
        device = torch.empty(0, device=device).device  # "cuda" becomes the current "cuda:0"
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device).manual_seed(self._seed)
        return self._generator
