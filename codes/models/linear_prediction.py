"""Adaptive least-squares linear prediction of interleaved channels, in parallel and token by token.

The classical lossless coders live from this: predict a sample from the recent samples of its own channel, the recent
samples of the other channels and the samples of the same frame that come before it, with coefficients fitted to the
past alone. Here the fit is exponentially weighted least squares, solved anew every ``block_frames`` frames from the
covariance of all frames before the block, so a whole batch of chunks is predicted with a few batched operations, and
a decoder that knows the past repeats it. Several memories (forgetting factors) run side by side, and next to them a
predictor of many taps, renewed less often, that resolves low and close tones; the network weighs them.

With z_t the last taps + 1 frames as one vector, S_j the sum of z z' over block j, e_j the mean square of what a fixed
predictor (the second difference) leaves of it, and d = (1 - 1/memory) ** block:

    past_(j+1) = d past_j + S_j / e_j ** weighting          A = past[x, x] + ridge,  b = past[x, y],  A c = b

where x are the places in z of a channel's regressors and y its own newest sample. The weights are those of least
squares with errors of uneven size (1 would be Gaussian): without them a loud attack rules the fit for as long as the
memory lasts, and only short memories are of use. All of this runs in float64 on
integer sample values, outside autocast and without gradients.
"""

import dataclasses

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearPrediction:
    """Options of the linear prediction in front of a network.

    Args:
        own_taps: past samples of the same channel that a prediction uses.
        other_taps: recent samples of every other channel that a prediction uses.
        memory_frames: one predictor each; its fit forgets with this time constant, in frames.
        block_frames: frames for which the coefficients stay as they are.
        long_taps: as own_taps, for a second set of predictors with long windows; 0 is off.
        long_other_taps: as other_taps, for the second set.
        long_memory_frames: as memory_frames, for the second set.
        long_block_frames: as block_frames, for the second set; a multiple of block_frames.
        scale_frames: time constants, in frames, of the running mean errors that the network is told.
        history: past residuals of every channel that the network is told.
        warm_up_frames: frames of the context over which running mean errors warm up before the first scored token.
        weighting: loud blocks weigh less in the fit, by this power of their mean squared second difference; 0 is off.
        ridge: regularisation, in units of a weighted squared sample; keeps silence and pure tones solvable.
    """

    own_taps: int = 32
    other_taps: int = 16
    memory_frames: list[float] = dataclasses.field(default_factory=lambda: [60.0, 120.0, 250.0, 600.0, 2000.0])
    block_frames: int = 32
    long_taps: int = 128
    long_other_taps: int = 16
    long_memory_frames: list[float] = dataclasses.field(default_factory=lambda: [5000.0])
    long_block_frames: int = 128
    scale_frames: list[float] = dataclasses.field(default_factory=lambda: [8.0, 32.0, 256.0])
    history: int = 8
    warm_up_frames: int = 256
    weighting: float = 0.75
    ridge: float = 0.01

    def __post_init__(self) -> None:
        _require(self.own_taps >= 2, "own_taps", self.own_taps, "at least 2")
        _require(self.block_frames >= 1, "block_frames", self.block_frames, "at least 1")
        for name in ("other_taps", "long_other_taps", "history", "warm_up_frames"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("memory_frames", "long_memory_frames", "scale_frames"):
            values = getattr(self, name)
            _require(len(values) > 0 and min(values) > 1, name, values, "one or more numbers above 1")
        multiple = self.long_block_frames > 0 and self.long_block_frames % self.block_frames == 0
        _require(multiple, "long_block_frames", self.long_block_frames, f"a multiple of {self.block_frames}")
        _require(self.long_taps == 0 or self.long_taps >= 2, "long_taps", self.long_taps, "0 (off) or at least 2")
        _require(0 <= self.weighting <= 1, "weighting", self.weighting, "0 to 1")
        _require(self.ridge > 0, "ridge", self.ridge, "above 0")


def _require(holds: bool, name: str, got: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"linear_prediction.{name} is {got}: it must be {allowed}")


@dataclasses.dataclass
class PredictorState:
    """What a predictor carries from token to token."""

    values: Tensor  # (B, (taps + F) * C) float64, interleaved samples after taps * C zeros
    past: Tensor  # (B, K, W, W) float64, weighted covariance of all frames of complete blocks
    coefficients: Tensor  # (B, K, C, P) float64, for the current block


class LinearPredictor(nn.Module):
    """Predicts every sample of interleaved channels from the samples before it; has no parameters.

    K memories, C channels, P = own_taps + (C - 1) * other_taps regressors, W = (taps + 1) * C window places. ``long``
    chooses the second set of options.
    """

    places: Tensor  # (C, P) int64, the regressors of each channel in the window
    decays: Tensor  # (K, 1, 1) float64, of a block

    def __init__(self, options: LinearPrediction, num_channels: int, long: bool = False) -> None:
        super().__init__()
        self.options = options
        self.num_channels = num_channels
        self.block = options.long_block_frames if long else options.block_frames
        self.own_taps = options.long_taps if long else options.own_taps
        self.other_taps = options.long_other_taps if long else options.other_taps
        self.memories = options.long_memory_frames if long else options.memory_frames
        self.taps = max(self.own_taps, self.other_taps)
        self.window = (self.taps + 1) * num_channels
        places = torch.tensor([self._regressors(channel) for channel in range(num_channels)])
        self.register_buffer("places", places, persistent=False)
        decays = (1 - 1 / torch.tensor(self.memories, dtype=torch.float64)) ** self.block
        self.register_buffer("decays", decays[:, None, None], persistent=False)

    def _regressors(self, channel: int) -> list[int]:
        """Places of a channel's regressors in the window, which holds frames t - taps .. t, channels interleaved."""
        lags = [(lag, channel) for lag in range(1, self.own_taps + 1)]
        for other in range(self.num_channels):
            if other != channel:  # channels before this one are known at the same frame: lag 0
                first = 0 if other < channel else 1
                lags += [(lag, other) for lag in range(first, first + self.other_taps)]
        return [(self.taps - lag) * self.num_channels + other for lag, other in lags]

    @torch.no_grad()
    def forward(self, values: Tensor, first: int = 0) -> Tensor:
        """Predict frames ``first`` and later; the ones before only train the fit.

        Args:
            values: (B, F, C) float64, samples as centred integers.
            first: a multiple of the block.

        Returns:
            (B, F - first, C, K) float64 predictions, one for each memory.
        """
        frames = values.shape[1]
        padding = -frames % self.block
        windows = self._windows(nn.functional.pad(values, (0, 0, self.taps, padding)).flatten(1))
        windows = windows.unflatten(1, (-1, self.block))  # (B, n, Q, W)
        coefficients = self._solve(self._pasts(windows, first // self.block))  # (B, n - first, K, C, P)
        regressors = windows[:, first // self.block :][..., self.places]  # (B, n - first, Q, C, P)
        predictions = torch.einsum("bnqcp,bnkcp->bnqck", regressors, coefficients)
        return predictions.flatten(1, 2)[:, : frames - first]

    def _windows(self, interleaved: Tensor) -> Tensor:
        return interleaved.unfold(1, self.window, self.num_channels)  # (B, F, W), a view

    def _pasts(self, windows: Tensor, first: int) -> Tensor:
        """Covariances before each block from ``first`` on: (B, n, Q, W) -> (B, n - first, K, W, W)."""
        past = windows.new_zeros(len(windows), len(self.memories), self.window, self.window)
        pasts = []
        for block in range(windows.shape[1]):
            if block >= first:
                pasts.append(past)
            past = self._absorb(past, windows[:, block])
        return torch.stack(pasts, 1)

    def _absorb(self, past: Tensor, block: Tensor) -> Tensor:
        """past (B, K, W, W) and the windows of a block (B, Q, W) -> past of the next block."""
        newest, last, before = (block[..., self.window - i * self.num_channels :] for i in (1, 2, 3))
        channels = slice(0, self.num_channels)
        difference = newest - 2 * last[..., channels] + before[..., channels]
        size = difference.square().mean((1, 2), keepdim=True) + 1
        return past * self.decays + (block.mT @ (block / size**self.options.weighting))[:, None]

    def _solve(self, past: Tensor) -> Tensor:
        """Least-squares coefficients (..., C, P) from covariances (..., W, W)."""
        places = self.places
        newest = torch.arange(self.window - self.num_channels, self.window, device=places.device)
        covariance = past[..., places[:, :, None], places[:, None, :]]  # (..., C, P, P)
        correlation = past[..., places, newest[:, None]]  # (..., C, P)
        # Relative part: rounding errors of float64 on long pure tones stay below it.
        diagonal = covariance.diagonal(dim1=-2, dim2=-1)
        ridge = self.options.ridge + 1e-11 * diagonal.sum(-1, keepdim=True)
        covariance.diagonal(dim1=-2, dim2=-1).add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        solution = torch.cholesky_solve(correlation[..., None], factor)[..., 0]
        return torch.where((failed == 0)[..., None], solution, 0.0)

    @torch.no_grad()
    def start(self, values: Tensor, frames: int) -> PredictorState:
        """State after whole blocks of known samples.

        Args:
            values: (B, F, C) float64 with F a multiple of the block; may be empty.
            frames: how many frames the state must be able to reach.
        """
        batch, known, channels = values.shape
        assert known % self.block == 0, "a predictor starts at the edge of a block"
        buffer = values.new_zeros(batch, (self.taps + max(frames, known)) * channels)
        buffer[:, self.taps * channels : (self.taps + known) * channels] = values.flatten(1)
        past = values.new_zeros(batch, len(self.memories), self.window, self.window)
        windows = self._windows(buffer)
        for block in range(0, known, self.block):
            past = self._absorb(past, windows[:, block : block + self.block])
        return PredictorState(buffer, past, self._solve(past))

    def predict(self, state: PredictorState, token: int) -> Tensor:
        """Predictions (B, K) of one token, all tokens before it being known to the state."""
        frame, channel = divmod(token, self.num_channels)
        regressors = state.values[:, self.places[channel] + frame * self.num_channels]  # (B, P)
        return (state.coefficients[:, :, channel] @ regressors[..., None])[..., 0]

    def update(self, state: PredictorState, token: int, values: Tensor) -> None:
        """Tell the state the sample (B,) float64 of a token; at the end of a block the coefficients are renewed."""
        state.values[:, self.taps * self.num_channels + token] = values
        frame, channel = divmod(token + 1, self.num_channels)
        if channel == 0 and frame % self.block == 0:
            windows = self._windows(state.values)[:, frame - self.block : frame]
            state.past = self._absorb(state.past, windows)
            state.coefficients = self._solve(state.past)
