"""From linear predictions to what a network is told about the next sample.

A `Forecast` is the anchor of the head (an integer near the expected sample, so that all later arithmetic happens on
small numbers in float32), the predictions as offsets from it, the running size of the prediction error, and a vector
of features that does not depend on loudness: residuals of the past over that size, the disagreement of the
predictors, and the running mean errors of each.

Running mean errors over n past frames with decay a: sum_i a^i |r_(t-1-i)| / sum_i a^i. In parallel the sums are
products with triangular matrices of powers.
"""

import dataclasses
import math

import torch
from torch import Tensor, nn

from codes.models.linear_prediction import LinearPrediction, LinearPredictor, PredictorState

SHARPNESS = 4.0  # predictors are blended by (running mean error) ** -SHARPNESS
SEGMENT = 64  # frames in a segment of the running sums
FLOOR = 0.02  # in steps of a sample: the running mean error of digital silence


@dataclasses.dataclass
class Forecast:
    """What is known about N tokens before each is seen."""

    anchor: Tensor  # (B, N) int64, a code near the expected one
    offsets: Tensor  # (B, N, K) float32, predictions minus anchor; the blend comes first
    log_unit: Tensor  # (B, N) float32, log of the running mean error in steps
    features: Tensor  # (B, N, F) float32, about -4 .. 4


def plain_forecast(previous: Tensor) -> Forecast:
    """The forecast without linear prediction: the channel's previous code (B, N)."""
    nothing = torch.zeros(*previous.shape, 0, device=previous.device)
    return Forecast(previous, nothing, nothing.sum(-1), nothing)


@dataclasses.dataclass
class ForecastState:
    """What a forecaster carries from token to token. Sequences start at ``origin`` frames."""

    predictors: list[PredictorState]
    errors: Tensor  # (B, C, K, E) float64, weighted sums of past absolute residuals
    weights: Tensor  # (E,) float64, of those sums: 1 in each frame instead of a residual
    residuals: Tensor  # (B, history * C + N) float32, of the blend, after history * C zeros
    log_units: Tensor  # (B, C - 1 + N) float32, after C - 1 zeros
    predictions: Tensor | None = None  # (B, K) of the token that is waited for
    blend: Tensor | None = None  # (B,)


class Forecaster(nn.Module):
    """Turns interleaved codes into forecasts of each code from those before it; has no parameters.

    Args:
        options: the linear prediction.
        num_channels: channels of the interleaved sequence.
        bits: bit depth of the codes.
    """

    decays: Tensor  # (E,) float64, of the running errors

    def __init__(self, options: LinearPrediction, num_channels: int, bits: int) -> None:
        super().__init__()
        self.options = options
        self.num_channels = num_channels
        self.bits = bits
        predictors = [LinearPredictor(options, num_channels)]
        if options.long_taps:
            predictors.append(LinearPredictor(options, num_channels, long=True))
        decays = 1 - 1 / torch.tensor(options.scale_frames, dtype=torch.float64)
        self.register_buffer("decays", decays, persistent=False)
        self.predictors = nn.ModuleList(predictors)
        self.block = predictors[-1].block  # frames; every predictor may start at its edges
        memories, scales = sum(len(predictor.memories) for predictor in predictors), len(options.scale_frames)
        self.history = options.history * num_channels
        self.num_memories = memories
        self.num_offsets = memories + 1
        self.num_features = memories * scales + 1 + (num_channels - 1) + memories + self.history + 1

    def origin(self, context: int) -> int:
        """The frame from which running errors are kept, for sequences whose first ``context`` tokens are not scored."""
        frames = max(context // self.num_channels - self.options.warm_up_frames, 0)
        return frames // self.block * self.block

    @torch.no_grad()
    def forward(self, ids: Tensor, context: int) -> Forecast:
        """ids (B, T) int64 -> the forecast of the N = T - context last tokens."""
        values = self._frames(ids)
        origin = self.origin(context)
        forecast, *_ = self._forecast(values, origin)
        kept = slice(context - origin * self.num_channels, ids.shape[1] - origin * self.num_channels)
        return Forecast(
            forecast.anchor[:, kept], forecast.offsets[:, kept], forecast.log_unit[:, kept], forecast.features[:, kept]
        )

    def _predictors(self) -> list[LinearPredictor]:
        return list(self.predictors)  # type: ignore[arg-type]

    def _values(self, ids: Tensor) -> Tensor:
        return ids.double() - 2 ** (self.bits - 1)

    def _frames(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> centred samples (B, F, C) float64; a frame that is not complete is filled with zeros."""
        values = nn.functional.pad(self._values(ids), (0, -ids.shape[1] % self.num_channels))
        return values.unflatten(1, (-1, self.num_channels))

    def _forecast(self, values: Tensor, origin: int) -> tuple[Forecast, Tensor, Tensor]:
        """values (B, F, C) -> the forecast from frame origin on, final error sums, residuals of the blend."""
        predictions = torch.cat([predictor(values, origin) for predictor in self.predictors], -1)  # (B, F, C, K)
        previous = self._lags(values.flatten(1), self.num_channels)[:, origin * self.num_channels :, 0]
        values = values[:, origin:]
        sums = self._running_sums((values[..., None] - predictions).abs())  # (B, F + 1, C, K, E)
        weights = self._weights(torch.arange(values.shape[1], device=values.device)[:, None])
        logs = self._log_errors(sums[:, :-1], weights[:, None, None]).flatten(1, 2)  # (B, N, K, E)
        predictions = predictions.flatten(1, 2)
        blend, log_unit = self._blend(predictions, logs)
        residuals = (values.flatten(1) - blend).float()
        past = self._lags(residuals, self.history)
        units = self._lags(log_unit, self.num_channels - 1)
        return self._assemble(predictions, logs, blend, log_unit, past, units, previous), sums[:, -1], residuals

    def _running_sums(self, errors: Tensor) -> Tensor:
        """errors (B, F, C, K) -> (B, F + 1, C, K, E): at frame t the sum over i >= 0 of decay^i errors_(t-1-i).

        In two levels, so that the cost stays linear: within segments of frames, and of whole segments before.
        float32, because the result is only ever used as a logarithm.
        """
        frames = errors.shape[1]
        segments = nn.functional.pad(errors.float().flatten(2), (0, 0, 0, SEGMENT - frames % SEGMENT))
        segments = segments.unflatten(1, (-1, SEGMENT))[:, :, None]  # (B, n, 1, Q, C K)
        num = segments.shape[1]
        decays = self.decays[:, None, None]
        within = _powers(decays, SEGMENT + 1).float() @ nn.functional.pad(
            segments, (0, 0, 0, 1)
        )  # (B, n, E, Q + 1, C K)
        totals = within[:, :, :, SEGMENT].transpose(1, 2)  # (B, E, n, C K)
        before = (_powers(decays**SEGMENT, num).float() @ totals).transpose(1, 2)[:, :, :, None]
        fading = decays ** torch.arange(SEGMENT, device=errors.device)[:, None]  # (E, Q, 1)
        sums = within[:, :, :, :SEGMENT] + fading.float() * before
        sums = sums.permute(0, 1, 3, 4, 2).flatten(1, 2)[:, : frames + 1]
        return sums.unflatten(2, errors.shape[2:]).double()

    def _weights(self, frames: Tensor) -> Tensor:
        """What `_running_sums` of ones gives after so many frames: (..., 1) -> (..., E) float64."""
        return (1 - self.decays**frames) / (1 - self.decays)

    @staticmethod
    def _log_errors(sums: Tensor, weights: Tensor) -> Tensor:
        """Sums (..., E) and their weights -> log of the mean error, float32."""
        return (sums / weights.clamp(min=1) + FLOOR).log().float()

    def _blend(self, predictions: Tensor, logs: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions (B, N, K) and log errors (B, N, K, E) -> their blend (B, N) and its log error (B, N)."""
        middle = logs[..., logs.shape[-1] // 2]
        weights = torch.softmax(-SHARPNESS * middle, -1)
        limit = 2.0 ** (self.bits - 1)
        blend = (predictions * weights).sum(-1).clamp(-limit, limit - 1)
        return blend, (middle * weights).sum(-1)

    @staticmethod
    def _lags(sequence: Tensor, lags: int) -> Tensor:
        """(B, N) -> (B, N, lags): the values at N - lags .. N - 1, zero before the start."""
        if lags == 0:
            return sequence.new_zeros(*sequence.shape, 0)
        return nn.functional.pad(sequence, (lags, -1)).unfold(1, lags, 1)

    def _assemble(
        self,
        predictions: Tensor,
        logs: Tensor,
        blend: Tensor,
        log_unit: Tensor,
        past: Tensor,
        units: Tensor,
        previous: Tensor,
    ) -> Forecast:
        """Predictions (B, N, K), log errors (B, N, K, E) ... -> the forecast."""
        anchor = blend.round()
        unit = log_unit.exp()[..., None]
        candidates = torch.cat([blend[..., None], predictions], -1)
        relative = torch.cat([predictions, previous[..., None]], -1) - blend[..., None]
        level = log_unit[..., None]
        features = torch.cat(
            [
                logs.flatten(-2) - level,
                level / (self.bits * math.log(2) / 4) - 1,
                units - level,
                torch.cat([relative.float(), past], -1).div_(unit).asinh_(),
            ],
            -1,
        )
        code = anchor.long() + 2 ** (self.bits - 1)
        return Forecast(code, (candidates - anchor[..., None]).float(), log_unit, features)

    @torch.no_grad()
    def start(self, ids: Tensor, origin: int, tokens: int) -> tuple[ForecastState, Forecast | None]:
        """State after ids (B, T) of whole blocks, with room for ``tokens`` tokens; their forecast from origin on."""
        values = self._frames(ids)
        batch, channels = len(ids), self.num_channels
        residuals = torch.zeros(batch, self.history + tokens, device=ids.device)
        log_units = torch.zeros(batch, channels - 1 + tokens, device=ids.device)
        shape = (batch, channels, self.num_memories, len(self.options.scale_frames))
        state = ForecastState(
            [predictor.start(values, -(-tokens // channels)) for predictor in self._predictors()],
            torch.zeros(shape, dtype=torch.float64, device=ids.device),
            self._weights(torch.tensor([max(values.shape[1] - origin, 0)], device=ids.device)),
            residuals,
            log_units,
        )
        if values.shape[1] <= origin:
            return state, None
        forecast, state.errors, known = self._forecast(values, origin)
        residuals[:, self.history + origin * channels : self.history + ids.shape[1]] = known
        log_units[:, channels - 1 + origin * channels : channels - 1 + ids.shape[1]] = forecast.log_unit
        return state, forecast

    def step(self, state: ForecastState, token: int) -> Forecast:
        """The forecast (N = 1) of a token, all tokens before it being known to the state."""
        channels = self.num_channels
        channel = token % channels
        pairs = zip(self._predictors(), state.predictors, strict=True)
        predictions = torch.cat([predictor.predict(own, token) for predictor, own in pairs], -1)[:, None]
        logs = self._log_errors(state.errors[:, None, channel], state.weights)
        blend, log_unit = self._blend(predictions, logs)
        state.predictions, state.blend = predictions[:, 0], blend[:, 0]
        state.log_units[:, token + channels - 1] = log_unit[:, 0]
        past = state.residuals[:, None, token : token + self.history]
        units = state.log_units[:, None, token : token + channels - 1]
        place = self._predictors()[0].taps * channels + token - channels
        previous = state.predictors[0].values[:, place : place + 1]
        return self._assemble(predictions, logs, blend, log_unit, past, units, previous)

    def update(self, state: ForecastState, token: int, ids: Tensor) -> None:
        """Tell the state the code (B,) of the token that `step` forecast."""
        assert state.predictions is not None, "step comes before update"
        assert state.blend is not None, "step comes before update"
        values = self._values(ids)
        channel = token % self.num_channels
        errors = (values[:, None] - state.predictions).abs()[..., None]
        state.errors[:, channel].mul_(self.decays).add_(errors)
        state.residuals[:, token + self.history] = (values - state.blend).float()
        for predictor, own in zip(self._predictors(), state.predictors, strict=True):
            predictor.update(own, token, values)
        if channel == self.num_channels - 1:
            state.weights = state.weights * self.decays + 1


def _powers(decays: Tensor, size: int) -> Tensor:
    """decays (E, 1, 1) -> (E, size, size): decay ** (t - 1 - s) at row t and column s < t, else 0."""
    index = torch.arange(size, device=decays.device)
    age = index[:, None] - 1 - index
    return torch.where(age >= 0, decays ** age.clamp(min=0), 0.0)
