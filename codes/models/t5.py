"""`t5`: transformers' T5 for conditional generation, over audio tokens: one sequence given, another predicted.

The encoder reads the source, with context on both sides; the decoder says how likely each token of the target is,
given those before it and all of the source. T5's cross-attention has no positions, so that which sample of the source
belongs to which of the target would have to be learned from their content; `alignment` hands it over instead.

Token i is scored given tokens < i of the target; the decoder begins with a start token of its own, which is no code.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from codes.models import t5_generation
from codes.models.forecast import Forecast
from codes.models.front_end import FrontEnd, Hierarchy
from codes.models.heads import BytesHead, Choice, LogisticsHead, SoftmaxHead, check_codes
from codes.models.network import Network
from codes.models.t5_inputs import Guess, SourceInput, TargetInput, TokenEmbedding
from codes.models.transformers_weights import load_pretrained, require_transformers

SIZES = {"model_dim": 512, "feed_forward_dim": 2048, "layers": 6, "decoder_layers": 6, "heads": 8}  # t5-small


class T5(Network):
    """Sequence to sequence: source (B, S), target (B, N) integer codes -> nats (B, N) float32.

    With a context the source has so many tokens more on either side than the target: S = N + 2 context. A target of
    S tokens is cut to those in the middle, so that both may be cut from the same chunk.

    Args:
        bits: bit depth of the codes, V = 2^bits. Give this or ``vocabulary``.
        vocabulary: number of codes V where they are no sample values (bytes with positions, tokens of a codec).
        context: tokens of the source before and behind the target's.
        pretrained: folder or hub name of a T5 with its weights; its vocabulary is resized to V codes and the start
            token. null: random weights.
        model_dim: width (default: the pretrained model's, or 512). So with the four below.
        feed_forward_dim: width of the feed-forward branch (2048).
        layers: blocks of the encoder (6).
        decoder_layers: blocks of the decoder (as many as of the encoder).
        heads: attention heads (8).
        dropout: probability of dropping, in training.
        tied: the softmax head uses the embedding table; with ``pretrained`` as there.
        input: what is seen of a token: its id (a table), features of its sample value, or both.
        convolution: samples of the target's past, and as many around the aligned one of the source, that a convolution
            in front of the decoder sees; 0 is off.
        head: softmax over all codes, bytes p(high) p(low | high) for 9 to 16 bits, or mixture of logistics.
        mixtures: components of the logistics head.
        alignment: what the decoder is given of the source's token at the place of the one it predicts: nothing, its
            embedding, or what the encoder made of it.
        max_length: tokens of the target in a window when generating.
        front_end: strided causal convolutions before encoder and decoder and an upsampler behind, for long contexts;
            null is off.
    """

    def __init__(
        self,
        *,
        bits: int | None = None,
        vocabulary: int | None = None,
        context: int = 0,
        pretrained: Path | None = None,
        model_dim: int | None = None,
        feed_forward_dim: int | None = None,
        layers: int | None = None,
        decoder_layers: int | None = None,
        heads: int | None = None,
        dropout: float = 0.0,
        tied: bool = False,
        input: Literal["ids", "values", "both"] = "ids",
        convolution: int = 0,
        head: Literal["softmax", "bytes", "logistics"] = "softmax",
        mixtures: int = 6,
        alignment: Literal["none", "embedding", "encoder"] = "embedding",
        max_length: int = 1024,
        front_end: FrontEnd | None = None,
    ) -> None:
        super().__init__()
        self.vocabulary = check_codes("t5", bits, vocabulary, head, input, {"convolution": convolution > 0})
        if bits is not None and bits > 16 and input != "values":
            raise ValueError(f"input is {input}: a table of 2^{bits} codes is too large; use input: values")
        _check_sizes(context, convolution, dropout, mixtures, max_length)
        sizes = {"model_dim": model_dim, "feed_forward_dim": feed_forward_dim, "layers": layers,
                 "decoder_layers": decoder_layers, "heads": heads}  # fmt: skip
        if pretrained is not None:
            model = _pretrained(pretrained.as_posix(), self.vocabulary, sizes, tied, dropout)
        else:
            model = _random(self.vocabulary, sizes, tied, dropout)
        self.bits, self.context, self.max_length = bits, context, max_length
        self.alignment, self.factor = alignment, front_end.factor if front_end else 1
        dim = model.config.d_model
        width = front_end.dims[0] if front_end else dim
        kept = model if pretrained is not None and front_end is None else None  # whose tables are used
        tied = bool(kept.config.tie_word_embeddings) if kept is not None else tied
        if tied and (head != "softmax" or input == "values"):
            raise ValueError("tied: true shares the embedding table with the softmax head: it needs both of them")
        self.embedding = TokenEmbedding(width, self.vocabulary, bits, input, kept and kept.shared)
        taken = width if alignment == "embedding" else dim if alignment == "encoder" else 0
        self.source_input = SourceInput(width, taken, bits, convolution)
        self.guess = Guess(bits or 0, alignment != "none") if head == "logistics" else None
        self.target_input = TargetInput(width, bits, convolution, Guess.reach if self.guess else 1)
        self.encoder, self.decoder = _stacks(model)
        self.encoder_front = Hierarchy(front_end, dim, up=False) if front_end else None
        self.decoder_front = Hierarchy(front_end, dim) if front_end else None
        self.head = self._make_head(head, width, mixtures, tied, kept)
        self.out_norm: nn.Module = nn.RMSNorm(width, eps=1e-6) if front_end else nn.Identity()
        self._config = model.config

    def _make_head(
        self, head: str, width: int, mixtures: int, tied: bool, kept: Any
    ) -> SoftmaxHead | BytesHead | LogisticsHead:
        if head == "bytes":
            return BytesHead(width, self.bits or 0)
        if head == "logistics":
            assert self.guess is not None
            return LogisticsHead(width, self.bits or 0, mixtures, self.guess.num_offsets, self.guess.num_features)
        table: Any = self.embedding.table.weight if tied else kept.lm_head.weight if kept is not None else None
        made = SoftmaxHead(width, self.vocabulary, table, lean=self.factor > 1)
        made.gain = width**-0.5 if (kept.config.scale_decoder_outputs if kept is not None else tied) else 1.0
        return made

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Code lengths of the target.

        Args:
            source: (B, S) integer codes, 0 .. V - 1.
            target: (B, N) integer codes, N = S - 2 context; or (B, S), of which the middle N count; any N where there
                is no alignment.

        Returns:
            nats: (B, N) float32.
        """
        source, target = self._cut(source.long(), target.long())
        self._set_checkpointing()
        encoded = self.encode(source)
        hidden = self.decode(self.source_part(source, encoded, target.shape[1]) + self.target_part(target), encoded)
        with torch.autocast(source.device.type, enabled=False):
            return self.head.nats(hidden, target, self.forecast(source, self._shifted(target), 0))

    def _cut(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        given, wanted = tuple(source.shape), tuple(target.shape)
        if source.dim() == target.dim() == 2 and given == wanted and self.context:
            target = target[:, self.context : target.shape[1] - self.context]
        fits = self.alignment == "none" or source.shape[-1] == target.shape[-1] + 2 * self.context
        if source.dim() != 2 or target.dim() != 2 or len(source) != len(target) or not fits or not target.numel():
            rule = "" if self.alignment == "none" else f" with S = N + 2 x context ({self.context})"
            raise ValueError(f"t5 got source {given} and target {wanted}: it needs (B, S) and (B, N){rule}, N above 0")
        return source, target

    def _set_checkpointing(self) -> None:
        stacks: tuple[Any, Any] = (self.encoder, self.decoder)
        for stack in stacks:
            if self.gradient_checkpointing and not stack.gradient_checkpointing:
                stack.activation_checkpointing_enable({"use_reentrant": False})

    def encode(self, source: Tensor) -> Tensor:
        """source (B, S) -> (B, S, dim), or (B, N', dim) behind a front end, N' being S / factor and one more."""
        x = self.embedding(source)
        if self.encoder_front is not None:
            # a coarse position sees no further than its first token: one more for what is behind the last
            x = self.encoder_front.down(nn.functional.pad(x, (0, 0, 0, self.factor - 1)))
        return self.encoder(inputs_embeds=x).last_hidden_state

    def source_part(self, source: Tensor, encoded: Tensor, length: int) -> Tensor:
        """What the decoder is given of the source for each of ``length`` tokens: (B, length or 1, width)."""
        places = slice(self.context, self.context + length)
        aligned = None
        if self.alignment == "embedding":
            aligned = self.embedding(source)[:, places]
        elif self.alignment == "encoder":
            aligned = encoded.repeat_interleave(self.factor, 1)[:, places]
        around = None if self.alignment == "none" else source
        return self.source_input(around, aligned, self.context, length)

    def target_part(self, target: Tensor) -> Tensor:
        """The decoder's input of the target, shifted by a token: (B, N) -> (B, N, width)."""
        return self.target_window(self._shifted(target))

    def _shifted(self, target: Tensor) -> Tensor:
        return nn.functional.pad(target, (self.target_input.reach, 0), value=-1)

    def target_window(self, target: Tensor) -> Tensor:
        """The same for a target (B, reach + N) that begins ``reach`` tokens earlier, -1 before its start."""
        return self.embedding(target[:, self.target_input.reach - 1 : -1]) + self.target_input(target)

    def decode(self, x: Tensor, encoded: Tensor) -> Tensor:
        """The decoder's input (B, N, width) -> hidden vectors (B, N, width)."""

        def inner(z: Tensor) -> Tensor:
            return self.decoder(inputs_embeds=z, encoder_hidden_states=encoded, use_cache=False).last_hidden_state

        if self.decoder_front is None:
            return inner(x)
        recompute = self.gradient_checkpointing and self.training
        return self.out_norm(self.decoder_front(x, inner, recompute))

    def forecast(self, source: Tensor, target: Tensor, first: int) -> Forecast | None:
        """What the logistics head is told of the tokens from number ``first`` on; None for other heads.

        Args:
            source: (B, S) codes, with the context.
            target: (B, reach + N) codes that begin ``reach`` tokens earlier, -1 before its start.
        """
        if self.guess is None:
            return None
        return self.guess(target[:, self.target_input.reach - self.guess.reach :], source, self.context + first)

    @property
    def silence(self) -> int:
        """The code of silence: the middle of the sample values."""
        return 2 ** (self.bits - 1) if self.bits else 0

    @torch.inference_mode()
    def generate(
        self,
        source: Tensor,
        target: Tensor,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Fill in the free positions of the target, one token after the other.

        Args:
            source: (B, S) codes.
            target: (B, N) codes, -1 where free; others are kept. With an alignment S is N, or N + 2 context; where it
                is N, silence is put around the source.
            temperature: 0 takes the likeliest code, 1 samples as learned.
            top_k: keep only so many of the likeliest codes (of each byte for the bytes head); 0 keeps all.
            top_p: keep the likeliest codes with this probability; of logistics, the centre of the component.
            generator: random numbers; None is torch's own.
            progress: called now and then with the tokens done and their number.

        Returns:
            (B, N) int64, complete.
        """
        choice = Choice(temperature, top_k, top_p, generator).meant_for(self.head)
        with self.evaluating():
            return t5_generation.complete(self, source.long(), target.long(), choice, progress)

    def save_pretrained(self, folder: Path) -> None:
        """Write the model as transformers saves a T5ForConditionalGeneration.

        Raises:
            ValueError: it has parts that transformers' T5 has not.
        """
        if (
            self.decoder_front is not None
            or not isinstance(self.head, SoftmaxHead)
            or self.embedding.values is not None
        ):
            raise ValueError(
                "a t5 with a front end, another head than softmax or value inputs is none of transformers'"
            )
        t5_save(self, folder)


def t5_save(network: T5, folder: Path) -> None:
    """Put the parts together again and save them; the source's part of the decoder input stays behind."""
    transformers = require_transformers("t5")
    head: Any = network.head
    table, output = network.embedding.table.weight, head.output.weight
    config = network._config
    config.tie_word_embeddings, config.scale_decoder_outputs = output is table, head.gain != 1.0
    model = transformers.T5ForConditionalGeneration(config)
    model.encoder.load_state_dict(network.encoder.state_dict(), strict=False)
    model.decoder.load_state_dict(network.decoder.state_dict(), strict=False)
    with torch.no_grad():
        for place in (model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens):
            place.weight.copy_(table)
        if output is not table:
            model.lm_head.weight.zero_()[: len(output)].copy_(output)
    model.save_pretrained(folder)


def _check_sizes(context: int, convolution: int, dropout: float, mixtures: int, max_length: int) -> None:
    for name, size, least in (("context", context, 0), ("convolution", convolution, 0), ("mixtures", mixtures, 1),
                              ("max_length", max_length, 2)):  # fmt: skip
        if size < least:
            raise ValueError(f"{name} is {size}: it must be {least} or more")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}: it must be 0 or more and below 1")


def _pretrained(source: str, vocabulary: int, sizes: dict[str, int | None], tied: bool, dropout: float) -> Any:
    given = [name for name, size in sizes.items() if size is not None] + (["tied"] if tied else [])
    if given:
        raise ValueError(f"{', '.join(given)}: a pretrained model brings its own; take this away, or `pretrained`")
    model = load_pretrained(source, "t5", "T5ForConditionalGeneration", dropout_rate=dropout)
    model.config.tie_word_embeddings = model.lm_head.weight is model.shared.weight  # whatever the configuration says
    if model.config.vocab_size != vocabulary + 1:
        model.resize_token_embeddings(vocabulary + 1, mean_resizing=False)
    return model


def _random(vocabulary: int, sizes: dict[str, int | None], tied: bool, dropout: float) -> Any:
    transformers = require_transformers("t5")
    found: dict[str, int] = {**SIZES, **{name: size for name, size in sizes.items() if size is not None}}
    if sizes["decoder_layers"] is None:
        found["decoder_layers"] = found["layers"]
    for name, size in found.items():
        if size < 1:
            raise ValueError(f"{name} is {size}: it must be 1 or more")
    dim, heads = found["model_dim"], found["heads"]
    if dim % heads:
        raise ValueError(f"model_dim is {dim}: it must be a multiple of heads = {heads}")
    config = transformers.T5Config(
        vocab_size=vocabulary + 1, d_model=dim, d_kv=dim // heads, d_ff=found["feed_forward_dim"],
        num_layers=found["layers"], num_decoder_layers=found["decoder_layers"], num_heads=heads, dropout_rate=dropout,
        tie_word_embeddings=tied, pad_token_id=vocabulary, decoder_start_token_id=vocabulary, eos_token_id=None,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


def _stacks(model: Any) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder without their embedding tables: they are fed vectors."""
    for stack in (model.encoder, model.decoder):
        stack.embed_tokens = None
    return model.encoder, model.decoder
