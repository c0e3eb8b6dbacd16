"""Channels: one given and one to predict, all interleaved into one sequence and apart again, or some of them."""

from typing import Literal

import torch
from torch import Tensor

from codes.trainer.injector import Injector


class ChannelSplitInjector(Injector):
    """Stereo to a given and a predicted channel. wav or codes: (B, 2, T) -> source: (B, T), target: (B, T).

    The inverse puts (source, target[, direction]) back in place: (B, 2, T).

    Args:
        direction: which channel predicts which; `random` draws it for each item from the injector's seeded generator.
        with_direction: return a third value, direction: (B,) int64, 0 left to right, 1 right to left.
    """

    def __init__(
        self,
        *,
        direction: Literal["left_to_right", "right_to_left", "random"] = "left_to_right",
        with_direction: bool = False,
    ) -> None:
        self.direction = direction
        self.with_direction = with_direction

    def forward(self, wav: Tensor) -> tuple[Tensor | None, ...]:
        """wav: (B, 2, T) of any dtype -> source: (B, T), target: (B, T)[, direction: (B,) int64].

        Raises:
            ValueError: the shape is not (B, 2, T).
        """
        if wav.ndim != 3 or wav.shape[1] != 2:
            raise ValueError(f"expected (B, 2, T), got {tuple(wav.shape)}")
        left, right = wav.unbind(1)
        needs_direction = self.with_direction or self.direction == "random"
        direction = self._directions(wav) if needs_direction else None
        pair = self._swap(left, right, direction)
        return pair if not self.with_direction else (*pair, direction)

    def inverse(self, source: Tensor, target: Tensor, direction: Tensor | None = None) -> Tensor:
        """source: (B, T), target: (B, T), direction: (B,), needed where it is random -> wav: (B, 2, T).

        Raises:
            ValueError: the shapes differ, or a random direction is not given.
        """
        if source.ndim != 2 or source.shape != target.shape:
            raise ValueError(f"expected source and target (B, T), got {tuple(source.shape)} and {tuple(target.shape)}")
        if direction is None and self.direction == "random":
            raise ValueError("a random direction is undone only with its third value, direction: (B,)")
        return torch.stack(self._swap(source, target, direction), 1)

    def _directions(self, wav: Tensor) -> Tensor:
        """(B,) int64: 0 left to right, 1 right to left."""
        if self.direction == "random":
            return torch.randint(2, wav.shape[:1], device=wav.device, generator=self.generator(wav.device))
        return torch.full(wav.shape[:1], int(self.direction == "right_to_left"), device=wav.device)

    def _swap(self, first: Tensor, second: Tensor, direction: Tensor | None) -> tuple[Tensor, Tensor]:
        """Two (B, T), exchanged where the direction is 1: its own inverse."""
        if self.direction == "random" and direction is not None:
            swapped = direction.bool()[:, None]
            return torch.where(swapped, second, first), torch.where(swapped, first, second)
        return (second, first) if self.direction == "right_to_left" else (first, second)


class InterleaveChannelsInjector(Injector):
    """Channels to one sequence, frame by frame: L0 R0 L1 R1 ... wav or codes: (B, C, T) -> (B, C * T).

    Args:
        num_channels: number of channels C.
    """

    def __init__(self, *, num_channels: int = 2) -> None:
        if num_channels < 1:
            raise ValueError(f"num_channels must be 1 or more, got {num_channels}")
        self.num_channels = num_channels

    def forward(self, wav: Tensor) -> Tensor:
        """wav: (B, C, T) -> (B, C * T).

        Raises:
            ValueError: the shape is not (B, num_channels, T).
        """
        if wav.ndim != 3 or wav.shape[1] != self.num_channels:
            raise ValueError(f"expected (B, {self.num_channels}, T), got {tuple(wav.shape)}")
        return wav.transpose(1, 2).flatten(1)

    def inverse(self, sequence: Tensor) -> Tensor:
        """sequence: (B, C * T) -> (B, C, T).

        Raises:
            ValueError: the sequence does not end with a whole frame.
        """
        if sequence.ndim != 2 or sequence.shape[1] % self.num_channels:
            raise ValueError(f"expected (B, {self.num_channels} * T), got {tuple(sequence.shape)}")
        num_frames = sequence.shape[1] // self.num_channels
        return sequence.unflatten(1, (num_frames, self.num_channels)).transpose(1, 2)


class DeinterleaveChannelsInjector(Injector):
    """One sequence to channels: the way back of `interleave_channels`. sequence: (B, C * T) -> (B, C, T).

    What a network returns for each token of an interleaved sequence (its code length, say) comes apart by channel.

    Args:
        num_channels: number of channels C.
    """

    def __init__(self, *, num_channels: int = 2) -> None:
        self.interleaved = InterleaveChannelsInjector(num_channels=num_channels)

    def forward(self, sequence: Tensor) -> Tensor:
        """sequence: (B, C * T) -> (B, C, T).

        Raises:
            ValueError: the sequence does not end with a whole frame.
        """
        return self.interleaved.inverse(sequence)

    def inverse(self, wav: Tensor) -> Tensor:
        """wav: (B, C, T) -> (B, C * T)."""
        return self.interleaved.forward(wav)


class SelectChannelsInjector(Injector):
    """Some channels, by number. value: (B, C, ...) -> (B, K, ...).

    Args:
        channels: their numbers, counted from 0, in the order wanted; negative ones count from the last.
    """

    def __init__(self, *, channels: list[int]) -> None:
        if not channels:
            raise ValueError("channels must name one channel or more")
        self.channels = channels

    def forward(self, value: Tensor) -> Tensor:
        """value: (B, C, ...) -> (B, K, ...).

        Raises:
            ValueError: the value has no such channel.
        """
        least = max(max(self.channels) + 1, -min(self.channels))
        if value.ndim < 2 or value.shape[1] < least:
            raise ValueError(f"expected (B, C, ...) with {least} or more channels, got {tuple(value.shape)}")
        return torch.stack([value.select(1, channel) for channel in self.channels], 1)
