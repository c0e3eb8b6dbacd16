"""`gpt`: a decoder-only transformer over interleaved audio codes, with what a lossless coder knows in front of it.

A plain GPT over codes must learn to be a linear predictor before it can learn anything else, and never becomes a good
one in minutes. So the network may be given adaptive linear predictions of the next sample (`linear_prediction`) and a
head that places its probability around them. All of it is causal and exact: token i depends on tokens < i alone.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from codes.models import generation
from codes.models.forecast import Forecast, Forecaster, plain_forecast
from codes.models.front_end import FrontEnd, HierarchicalTransformer
from codes.models.heads import BytesHead, Choice, LogisticsHead, SoftmaxHead, check_codes
from codes.models.inputs import ConvolutionInput, TokenInput, ValueInput
from codes.models.linear_prediction import LinearPrediction
from codes.models.network import Network
from codes.models.transformer import Activation, Norm, Transformer

Head = SoftmaxHead | BytesHead | LogisticsHead


class Gpt(Network):
    """Language model of interleaved codes: ids (B, T) integer -> nats (B, T - context) float32.

    Token i belongs to channel i % num_channels and has the rotary position i // num_channels. The code length of
    token i is given tokens < i; the input is shifted inside.

    Args:
        bits: bit depth of the codes, V = 2^bits. Give this or ``vocabulary``.
        vocabulary: number of codes V where they are no sample values (bytes with positions, tokens of a codec).
        num_channels: tokens in a frame: channels, or channels times bytes.
        layers: transformer blocks.
        model_dim: width of the transformer.
        heads: attention heads.
        norm: normalisation before each branch.
        activation: of the feed-forward branch.
        dropout: probability of dropping, in training.
        tied: the softmax head uses the embedding table as its weights.
        input: what is seen of the previous token: its id (a table, or byte tables above 8 bits), features of its
            sample value, or both.
        convolution: past samples seen by a causal convolution in front of the transformer; 0 is off.
        linear_prediction: adaptive linear predictions as features and as means of the logistics head; null is off.
        head: softmax over all codes, bytes p(high) p(low | high) for 9 to 16 bits, or mixture of logistics.
        mixtures: components of the logistics head.
        context: leading tokens that only linear prediction and convolution see; they are not scored.
        max_length: tokens that the key-value cache holds when generating.
        front_end: strided causal convolutions before the transformer and an upsampler after it, for long contexts;
            null is off.
    """

    def __init__(
        self,
        *,
        bits: int | None = None,
        vocabulary: int | None = None,
        num_channels: int = 2,
        layers: int = 3,
        model_dim: int = 128,
        heads: int = 4,
        norm: Norm = "rmsnorm",
        activation: Activation = "swiglu",
        dropout: float = 0.0,
        tied: bool = False,
        input: Literal["ids", "values", "both"] = "ids",
        convolution: int = 0,
        linear_prediction: LinearPrediction | None = None,
        head: Literal["softmax", "bytes", "logistics"] = "softmax",
        mixtures: int = 6,
        context: int = 0,
        max_length: int = 2048,
        front_end: FrontEnd | None = None,
    ) -> None:
        super().__init__()
        of_samples = {"convolution": convolution > 0, "linear_prediction": linear_prediction is not None}
        self.vocabulary = check_codes("gpt", bits, vocabulary, head, input, of_samples)
        if linear_prediction and head != "logistics":
            raise ValueError(f"linear_prediction needs head: logistics, whose means it gives: got head: {head}")
        if convolution < 0:
            raise ValueError(f"convolution is {convolution}: it must be 0 (off) or the number of past samples it sees")
        _check_sizes(num_channels, layers, model_dim, heads, dropout, mixtures, context, max_length)
        if tied and (head != "softmax" or input == "values"):
            raise ValueError(
                "tied: true shares the embedding table with the softmax head: use head: softmax, input: ids"
            )
        if front_end and front_end.factor % num_channels:
            product = f"front_end.strides multiply to {front_end.factor}"
            raise ValueError(f"{product}: it must be a multiple of num_channels, {num_channels}")
        self.bits, self.num_channels = bits, num_channels
        self.context, self.max_length = context, max_length
        width = front_end.dims[0] if front_end else model_dim  # of what is fed in and comes out
        self.channel_embedding = nn.Parameter(torch.randn(num_channels, width) * 0.02)
        # with a context the first token has codes before it like any other
        self.start = None if context else nn.Parameter(torch.randn(width) * 0.02)
        split = head != "softmax" and self.vocabulary > 256
        self.inputs = nn.ModuleList()
        if input in ("ids", "both"):
            self.inputs.append(TokenInput(width, self.vocabulary, split))
        if input in ("values", "both"):
            self.inputs.append(ValueInput(width, bits or 0))
        if convolution:
            self.inputs.append(ConvolutionInput(width, bits or 0, convolution, num_channels))
        self.forecaster = Forecaster(linear_prediction, num_channels, bits or 0) if linear_prediction else None
        if self.forecaster:
            self.feature_input = nn.Linear(self.forecaster.num_features, width, bias=False)
        if front_end:
            self.transformer = HierarchicalTransformer(front_end, layers, model_dim, heads, norm, activation, dropout)
        else:
            self.transformer = Transformer(layers, model_dim, heads, num_channels, norm, activation, dropout)
        self.head = self._make_head(head, width, mixtures, tied, lean=front_end is not None)

    def _make_head(self, head: str, dim: int, mixtures: int, tied: bool, lean: bool) -> Head:
        if head == "bytes":
            return BytesHead(dim, self.bits or 0)
        if head == "logistics":
            forecaster = self.forecaster
            sizes = (forecaster.num_offsets, forecaster.num_features) if forecaster else (0, 0)
            return LogisticsHead(dim, self.bits or 0, mixtures, *sizes)
        table: nn.Parameter | None = self.inputs[0].tables[0].weight if tied else None  # type: ignore
        return SoftmaxHead(dim, self.vocabulary, table, lean)

    def forward(self, ids: Tensor) -> Tensor:
        """Code lengths of all tokens after the context.

        Args:
            ids: (B, T) integer codes, 0 .. V - 1, channels interleaved, T > context.

        Returns:
            nats: (B, T - context) float32.
        """
        ids = ids.long()
        if ids.dim() != 2 or ids.shape[1] <= self.context:
            raise ValueError(
                f"gpt got ids of shape {tuple(ids.shape)}: it needs (B, T) with T > context = {self.context}"
            )
        forecast = self.forecast(ids)
        x = self.embed(ids, self.context, forecast)
        hidden = self.transformer(x, recompute=self.gradient_checkpointing and self.training)
        with torch.autocast(ids.device.type, enabled=False):
            return self.head.nats(hidden, ids[:, self.context :], forecast)

    def forecast(self, ids: Tensor) -> Forecast | None:
        """What is known of each token after the context before it is seen; None where the head needs nothing."""
        if self.forecaster is not None:
            with torch.autocast(ids.device.type, enabled=False):
                return self.forecaster(ids, self.context)
        if not isinstance(self.head, LogisticsHead):
            return None
        silence = ids.new_full((len(ids), self.num_channels), self.silence)
        return plain_forecast(torch.cat([silence, ids], 1)[:, self.context : -self.num_channels])

    @property
    def silence(self) -> int:
        """The code of silence: the middle of the sample values."""
        return 2 ** (self.bits - 1) if self.bits else 0

    @property
    def reach(self) -> int:
        """How many codes before a token its inputs need."""
        return max([input.reach for input in self.inputs], default=1)  # type: ignore[type-var]

    def embed(self, ids: Tensor, first: int, forecast: Forecast | None) -> Tensor:
        """Inputs of the transformer for the tokens from number ``first`` on, codes before the sequence being silence.

        Args:
            ids: (B, T) codes; the last of them is not used.
            first: number of the first token to embed.
            forecast: of the same N = T - first tokens, where there is linear prediction.

        Returns:
            (B, T - first, model_dim).
        """
        missing = max(self.reach - first, 0)
        ids = nn.functional.pad(ids, (missing, 0), value=self.silence)
        return self.embed_window(ids[:, first + missing - self.reach :], first, forecast)

    def embed_window(self, ids: Tensor, first: int, forecast: Forecast | None) -> Tensor:
        """As `embed`, for ids (B, reach + N) that begin ``reach`` codes before token ``first``."""
        length = ids.shape[1] - self.reach
        if length == 1:
            channels = self.channel_embedding.narrow(0, first % self.num_channels, 1)
        else:
            repeats = 1 + -(-length // self.num_channels)
            channels = self.channel_embedding.roll(-first, 0).repeat(repeats, 1)[:length]
        x = channels.expand(len(ids), -1, -1)
        for input in self.inputs:
            x = x + input(ids[:, self.reach - input.reach :], first)  # type: ignore[operator]
        if self.forecaster is not None and forecast is not None:
            x = x + self.feature_input(forecast.features)
        if first == 0 and self.start is not None:
            x = torch.cat([x[:, :1] + self.start, x[:, 1:]], 1)
        return x

    @torch.inference_mode()
    def generate(
        self,
        ids: Tensor,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
        emit: Callable[[Tensor, int], None] | None = None,
        static_cache: bool | None = None,
        first_code: int = 0,
    ) -> Tensor:
        """Fill in the free positions of a sequence, one token after the other.

        Args:
            ids: (B, T) codes, -1 where free; others are kept (a prompt, or every other token of a given channel).
            temperature: 0 takes the likeliest code, 1 samples as learned.
            top_k: keep only so many of the likeliest codes (of each byte for the bytes head); 0 keeps all.
            top_p: keep the likeliest codes with this probability; of logistics, the centre of the component.
            generator: random numbers; None is torch's own.
            progress: called now and then with the tokens done and their number.
            emit: called as often with the codes (B, T) and how many of each are done.
            static_cache: fixed shapes, which a GPU replays as a CUDA graph; None: on a GPU.
            first_code: codes below it are not chosen: those of another kind (`join_tokens`).

        Returns:
            (B, T) int64, complete.
        """
        choice = Choice(temperature, top_k, top_p, generator, first_code).meant_for(self.head)
        with self.evaluating():
            return generation.complete(self, ids.long(), choice, progress, emit, static_cache)


def _check_sizes(
    num_channels: int,
    layers: int,
    model_dim: int,
    heads: int,
    dropout: float,
    mixtures: int,
    context: int,
    max_length: int,
) -> None:
    sizes = {"num_channels": num_channels, "layers": layers, "model_dim": model_dim, "heads": heads}
    for name, size in {**sizes, "mixtures": mixtures}.items():
        if size < 1:
            raise ValueError(f"{name} is {size}: it must be 1 or more")
    if model_dim % (2 * heads):
        raise ValueError(f"model_dim is {model_dim}: it must be a multiple of 2 * heads = {2 * heads}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}: it must be 0 or more and below 1")
    if context < 0 or context % num_channels:
        raise ValueError(f"context is {context} tokens: it must be a multiple of num_channels = {num_channels}")
    if max_length < 2 * num_channels or max_length % (2 * num_channels):
        raise ValueError(f"max_length is {max_length}: it must be a multiple of 2 * num_channels = {2 * num_channels}")
