"""`llama`: transformers' LlamaForCausalLM over bytes or other codes, with random or pretrained weights.

The original experiments predicted audio bytes with Llama-2. Two things went wrong there and are right here: token i is
scored given the tokens before it alone (the sequence is shifted inside, behind a beginning-of-sequence token, so the
first token counts as well), and code lengths are of the codes of the audio, not of the word pieces of a text tokenizer,
so the trainer's bits per sample are bits per sample.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from codes.models.generation import check_codes, known_tokens
from codes.models.heads import Choice
from codes.models.key_value_cache import FixedStep
from codes.models.network import Network
from codes.models.transformers_weights import load_pretrained, one_line, require_transformers

PROGRESS_TOKENS = 256
SIZES = {"layers": 4, "model_dim": 256, "heads": 4, "max_length": 2048}  # of a model that is not pretrained


class Llama(Network):
    """Llama over codes: ids (B, T) integer -> nats (B, T) float32, the code length of token i given tokens < i.

    Args:
        pretrained: folder or hub name of a Llama with its weights; null: random weights of the sizes below.
        vocabulary: number of codes V; 256 for bytes.
        tables: with ``pretrained``, what becomes of its vocabulary. "new": embedding and output tables of V codes,
            random, for training; "mapped": its own tables, each byte standing for the token that its tokenizer has for
            that byte, all others left out (V = 256), which can predict untrained.
        output: "nats" for the loss `code_length`; "logits" (B, T, V) for the loss `cross_entropy` with the ids as
            labels, aligned: no shift is left to do.
        layers: transformer blocks (default 4).
        model_dim: width (default 256).
        heads: attention heads (default 4).
        key_value_heads: heads of keys and values, a divisor of ``heads`` (default: as many).
        feed_forward_dim: width of the gated feed-forward branch (default: 8/3 of model_dim, rounded up to 16).
        max_length: longest sequence, and positions that the key-value cache holds (default 2048, or the pretrained
            model's own).
        tied: the output uses the embedding table.
        dropout: of attention weights, in training.
        config: further options of transformers' LlamaConfig, by their names there (rope_parameters, rms_norm_eps ...).
    """

    def __init__(
        self,
        *,
        pretrained: Path | None = None,
        vocabulary: int = 256,
        tables: Literal["new", "mapped"] = "new",
        output: Literal["nats", "logits"] = "nats",
        layers: int | None = None,
        model_dim: int | None = None,
        heads: int | None = None,
        key_value_heads: int | None = None,
        feed_forward_dim: int | None = None,
        max_length: int | None = None,
        tied: bool = False,
        dropout: float = 0.0,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        require_transformers("llama")
        if not 2 <= vocabulary <= 65536:
            raise ValueError(f"vocabulary is {vocabulary}: llama takes 2 to 65536 codes")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}: it must be 0 or more and below 1")
        sizes = {"layers": layers, "model_dim": model_dim, "heads": heads, "key_value_heads": key_value_heads,
                 "feed_forward_dim": feed_forward_dim}  # fmt: skip
        self.vocabulary, self.output = vocabulary, output
        if pretrained is None:
            if tables != "new":
                raise ValueError("tables: mapped keeps the tables of a pretrained model: name it under `pretrained`")
            self.llama = _random_llama(vocabulary, {**sizes, "max_length": max_length}, tied, dropout, config or {})
            token_ids, first = torch.arange(vocabulary), vocabulary
        else:
            given = [name for name, size in sizes.items() if size is not None]
            given += [name for name, value in (("tied", tied), ("config", config)) if value]
            if given:
                names = ", ".join(given)
                raise ValueError(f"{names}: a pretrained model brings its own; take this away, or `pretrained`")
            source = pretrained.as_posix()
            self.llama = load_pretrained(source, "llama", "LlamaForCausalLM", attention_dropout=dropout)
            token_ids, first = self._fit_tables(source, tables)
        positions = int(self.llama.config.max_position_embeddings)
        self.max_length = positions if max_length is None else max_length
        if not 2 <= self.max_length <= positions:
            raise ValueError(f"max_length is {max_length}: the model has {positions} positions; it must be 2 to that")
        self.identity = tables == "new"
        self.first_token = first
        self._checkpointing = False
        self.register_buffer("token_ids", token_ids, persistent=False)

    token_ids: Tensor  # (V,) the model's token for each code

    def _fit_tables(self, source: str, tables: str) -> tuple[Tensor, int]:
        """Tokens that stand for the codes, and the one before the first."""
        if tables == "new":
            config, std = self.llama.config, self.llama.config.initializer_range
            embedding = nn.Embedding(self.vocabulary + 1, config.hidden_size)
            output = nn.Linear(config.hidden_size, self.vocabulary + 1, bias=False)
            nn.init.normal_(embedding.weight, std=std)
            nn.init.normal_(output.weight, std=std)
            self.llama.set_input_embeddings(embedding)
            self.llama.set_output_embeddings(output)
            config.vocab_size, config.tie_word_embeddings = self.vocabulary + 1, False
            return torch.arange(self.vocabulary), self.vocabulary
        if self.vocabulary != 256:
            raise ValueError(f"vocabulary is {self.vocabulary}: tables: mapped knows the tokens of 256 bytes")
        tokens, first = _byte_tokens(source)
        rows = self.llama.get_input_embeddings().num_embeddings
        if max(*tokens, first) >= rows:
            raise ValueError(f"{source}: its tokenizer has token {max(*tokens, first)}, its model only {rows}")
        return torch.tensor(tokens), first

    def portable(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Options and weights of the same network without `pretrained`, its tables cut to the rows of the codes."""
        config = self.llama.config
        rows = torch.cat([self.token_ids.cpu(), torch.tensor([self.first_token])])
        weights = {name: tensor.detach().cpu() for name, tensor in self.state_dict().items()}
        for table in ("llama.model.embed_tokens.weight", "llama.lm_head.weight"):
            weights[table] = weights[table][rows].clone()
        kept = {name: value for name in _KEPT if (value := getattr(config, name, None)) is not None}
        options = {"vocabulary": self.vocabulary, "max_length": self.max_length, "config": kept}
        return {**options, "tied": bool(config.tie_word_embeddings)}, weights

    def forward(self, ids: Tensor) -> Tensor:
        """Code lengths of all tokens, or their logits.

        Args:
            ids: (B, T) integer codes, 0 .. V - 1, T up to max_length.

        Returns:
            nats (B, T) float32, or logits (B, T, V) float32: those at i predict ids[:, i].
        """
        ids = ids.long()
        if ids.dim() != 2 or not 1 <= ids.shape[1] <= self.max_length:
            limit = f"(B, T) with T from 1 to max_length = {self.max_length}"
            raise ValueError(f"llama got ids of shape {tuple(ids.shape)}: it needs {limit}")
        if self.gradient_checkpointing != self._checkpointing:
            self._checkpoint(self.gradient_checkpointing)
        inputs = self.tokens(torch.cat([ids.new_full((len(ids), 1), -1), ids[:, :-1]], 1))
        logits = self.code_logits(self.llama(input_ids=inputs, use_cache=False).logits)
        if self.output == "logits":
            return logits
        nats = functional.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none")
        return nats.view_as(ids)

    def _checkpoint(self, wanted: bool) -> None:
        self._checkpointing = wanted
        if wanted:
            self.llama.activation_checkpointing_enable({"use_reentrant": False})
        else:
            self.llama.activation_checkpointing_disable()

    def tokens(self, ids: Tensor) -> Tensor:
        """The model's tokens of codes (...); -1 stands for the one before the first."""
        known = ids.clamp(min=0)
        return torch.where(ids < 0, self.first_token, known if self.identity else self.token_ids[known])

    def code_logits(self, logits: Tensor) -> Tensor:
        """Logits (..., tokens of the model) -> (..., V) float32 of the codes."""
        return (logits[..., : self.vocabulary] if self.identity else logits[..., self.token_ids]).float()

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
    ) -> Tensor:
        """Fill in the free positions of a sequence, one token after the other.

        Args:
            ids: (B, T) codes, -1 where free; others are kept. T may exceed max_length.
            temperature: 0 takes the likeliest code, 1 samples as learned.
            top_k: keep only so many of the likeliest codes; 0 keeps all.
            top_p: keep the likeliest codes with this probability.
            generator: random numbers; None is torch's own.
            progress: called now and then with the tokens done and their number.

        Returns:
            (B, T) int64, complete.
        """
        choice = Choice(temperature, top_k, top_p, generator)
        check_codes(ids, self.vocabulary)
        with self.evaluating():
            return self._complete(ids.long(), choice, progress)

    def _complete(self, ids: Tensor, choice: Choice, progress: Callable[[int, int], None] | None) -> Tensor:
        known, free = known_tokens(ids), (ids < 0).any(0)
        stepper = LlamaStepper(self, ids, known)
        for token in range(known, ids.shape[1]):
            logits, codes = stepper.step(), stepper.ids[:, token]
            if free[token]:
                codes = torch.where(codes < 0, choice.draw(logits), codes)
            stepper.update(codes)
            if progress is not None and (token + 1) % PROGRESS_TOKENS == 0:
                progress(token + 1, ids.shape[1])
        if progress is not None:
            progress(ids.shape[1], ids.shape[1])
        return stepper.ids.clone()


class LlamaStepper:
    """Walks a `llama` along a sequence with its key-value cache: `step` gives logits, `update` takes the code.

    When the cache is full it is filled again from the last half of its tokens.

    Args:
        network: the network, in eval mode.
        ids: (B, T) codes; the first ``known`` of them are read now, the others are taken as they come.
        known: tokens known from the start.
        static: a key-value cache of fixed shapes; None: on a GPU.
    """

    def __init__(self, network: Llama, ids: Tensor, known: int, static: bool | None = None) -> None:
        self.network = network
        device = next(network.parameters()).device
        self.ids = ids.to(device).clone()
        self.token = known
        self.static = device.type == "cuda" if static is None else static
        self.cache: Any = None
        self.fixed: FixedStep | None = None
        self.used = 0  # positions in the cache

    def _empty_cache(self) -> None:
        from transformers import DynamicCache, StaticCache

        config: Any = self.network.llama.config
        if not self.static:
            self.cache = DynamicCache(config=config)
        elif self.cache is None:
            self.cache = StaticCache(config=config, max_cache_len=self.network.max_length)
            self.fixed = FixedStep(functools.partial(_next_logits, self.network, self.cache))
        else:
            self.cache.reset()
        self.used = 0

    def step(self) -> Tensor:
        """Logits (B, V) of the next token."""
        network = self.network
        first = self.token  # the first input that is not in the cache; input n is the code before token n
        if self.cache is None or self.used == network.max_length:
            self._empty_cache()
            fits = self.token + 1 <= network.max_length
            first = 0 if fits else self.token + 1 - network.max_length // 2
        before = self.ids[:, max(first - 1, 0) : self.token]
        inputs = torch.cat([before.new_full((len(before), 1), -1), before], 1) if first == 0 else before
        fixed = self.fixed if self.used and inputs.shape[1] == 1 else None
        self.used += inputs.shape[1]
        return fixed(inputs) if fixed is not None else _next_logits(network, self.cache, inputs)

    def update(self, codes: Tensor) -> None:
        """Tell the code (B,) of the token that `step` was about."""
        self.ids[:, self.token] = codes
        self.token += 1


def _next_logits(network: Llama, cache: Any, inputs: Tensor) -> Tensor:
    """Logits (B, V) behind inputs (B, N), -1 for the token before the first, given what is in the cache."""
    output = network.llama(input_ids=network.tokens(inputs), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return network.code_logits(output.logits[:, -1])


# What makes a Llama this one, besides its weights and its vocabulary.
_KEPT = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act",
         "intermediate_size", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "attention_bias",
         "mlp_bias")  # fmt: skip


def _random_llama(
    vocabulary: int, given: dict[str, int | None], tied: bool, dropout: float, more: dict[str, Any]
) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, int] = {**SIZES, **{name: size for name, size in given.items() if size is not None}}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}: it must be 1 or more")
    dim, heads = sizes["model_dim"], sizes["heads"]
    if dim % (2 * heads):
        raise ValueError(f"model_dim is {dim}: it must be a multiple of 2 * heads = {2 * heads}")
    key_value_heads = sizes.get("key_value_heads", heads)
    if heads % key_value_heads:
        raise ValueError(f"key_value_heads is {key_value_heads}: it must divide heads = {heads}")
    make: Any = LlamaConfig
    unknown = sorted(more.keys() - set(dir(make())))
    if unknown:
        raise ValueError(f"config: LlamaConfig has no {', '.join(unknown)}")
    values: dict[str, Any] = {
        "vocab_size": vocabulary + 1,
        "hidden_size": dim,
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "intermediate_size": sizes.get("feed_forward_dim", -(-8 * dim // 48) * 16),
        "max_position_embeddings": sizes["max_length"],
        "attention_dropout": dropout,
        "tie_word_embeddings": tied,
        "bos_token_id": vocabulary,
        "eos_token_id": vocabulary,
        "pad_token_id": None,
    }
    config = make(**(values | more))
    return LlamaForCausalLM(config)


def _byte_tokens(source: str) -> tuple[list[int], int]:
    """Tokens of the 256 bytes in a tokenizer, and its beginning-of-sequence token.

    Raises:
        ValueError: there is no tokenizer, or it has no tokens of single bytes.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(f"tables: mapped needs the tokenizer of {source}: {one_line(error)}") from error
    known = tokenizer.get_vocab()
    for names in ([f"<0x{byte:02X}>" for byte in range(256)], _byte_characters()):
        if all(name in known for name in names):
            first = tokenizer.bos_token_id
            if first is None:
                raise ValueError(f"tables: mapped needs a beginning-of-sequence token; {source}'s tokenizer has none")
            return [known[name] for name in names], int(first)
    raise ValueError(f"tables: mapped needs a token for each of 256 bytes; {source}'s tokenizer has not all of them")


def _byte_characters() -> list[str]:
    """The characters that stand for bytes in byte-level BPE (GPT-2, Llama 3): printable ones for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 256 + others.index(byte)) for byte in range(256)]
