"""`unified_voice2`: Tortoise's autoregressive model, one GPT over a voice, a text and the codes of its sound.

The sequence is [voice | text | codes of the mel spectrogram], each part with learned positions of its own; two heads
predict the next text token and the next code. Weights as released for Tortoise load as they are, and give its figures.
Unlike DL-Art-School's network the text's loss is taken at the text's own places for any number of reference clips, and
padding is neither looked at nor scored: what an item gives does not depend on what it shares a batch with.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from codes.models.gpt2_trunk import Gpt2Trunk
from codes.models.heads import Choice
from codes.models.mel_encoders import ConditioningEncoder, MelFrames
from codes.models.network import Network
from codes.models.voice_sampling import sample_codes

MEL_BANDS = 80


class LossSum(NamedTuple):
    """A loss as its sum over all tokens that count, and how many they are: the loss `direct` takes it as it is."""

    total: Tensor
    count: Tensor


class Part(NamedTuple):
    """One part of the sequence: what goes in, what is to come out, and which places are real."""

    inputs: Tensor  # (B, N + 2) int64: start, tokens, stop
    targets: Tensor  # (B, N + 2) int64: tokens, stop, stop
    attended: Tensor  # (B, N + 2) bool: start, the item's own tokens, and the first stop
    scored: Tensor  # (B, N + 2) bool: where its own tokens and the first stop are predicted


class UnifiedVoice2(Network):
    """Text and a voice to codes of speech: voice, text, lengths, codes, lengths -> both losses and the codes' logits.

    Args:
        layers: transformer blocks
        model_dim: width, a multiple of heads
        heads: attention heads, of the voice's encoder too
        max_text_tokens: longest text
        max_mel_tokens: longest sound, in codes
        max_conditioning_inputs: reference clips that positions are kept for, as in released weights
        mel_length_compression: samples of audio that a code stands for
        number_text_tokens: text tokens
        start_text_token: put before a text; null: number_text_tokens x types
        stop_text_token: put after a text, and what texts are padded with
        number_mel_codes: codes, start and stop among them
        start_mel_token: put before the codes
        stop_mel_token: put after the codes
        train_solo_embeddings: embeddings that mark text without sound and sound without text
        use_mel_codes_as_input: false: frames of the mel spectrogram are put in, and codes only predicted
        checkpointing: false: never recompute blocks in the backward pass, whatever checkpointing_enabled says
        average_conditioning_embeddings: one place for the mean of all reference clips; false: a place for each
        freeze_everything_but_position_embeddings: train the positions alone
        types: kinds of text that have tokens of their own
        dropout: probability of dropping, in training
    """

    def __init__(
        self, *, layers: int = 8, model_dim: int = 512, heads: int = 8, max_text_tokens: int = 120,
        max_mel_tokens: int = 250, max_conditioning_inputs: int = 1, mel_length_compression: int = 1024,
        number_text_tokens: int = 256, start_text_token: int | None = 255, stop_text_token: int = 0,
        number_mel_codes: int = 8194, start_mel_token: int = 8192, stop_mel_token: int = 8193,
        train_solo_embeddings: bool = False, use_mel_codes_as_input: bool = True, checkpointing: bool = True,
        average_conditioning_embeddings: bool = False, freeze_everything_but_position_embeddings: bool = False,
        types: int = 1, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        _check_sizes(layers=layers, model_dim=model_dim, heads=heads, types=types, max_text_tokens=max_text_tokens,
                     max_mel_tokens=max_mel_tokens, mel_length_compression=mel_length_compression)  # fmt: skip
        if max(start_mel_token, stop_mel_token) >= number_mel_codes:
            raise ValueError(
                f"number_mel_codes is {number_mel_codes}: start_mel_token {start_mel_token} and stop_mel_token "
                f"{stop_mel_token} must be below it"
            )
        self.max_text_tokens, self.max_mel_tokens = max_text_tokens, max_mel_tokens
        self.mel_length_compression, self.model_dim, self.types = mel_length_compression, model_dim, types
        self.start_text_token = number_text_tokens * types if start_text_token is None else start_text_token
        self.stop_text_token = stop_text_token
        self.start_mel_token, self.stop_mel_token = start_mel_token, stop_mel_token
        self.number_mel_codes = number_mel_codes
        self.number_text_tokens = max(number_text_tokens * types, self.start_text_token + 1)
        self.checkpointing, self.average_conditioning_embeddings = checkpointing, average_conditioning_embeddings
        self.use_mel_codes_as_input = use_mel_codes_as_input
        self.conditioning_encoder = ConditioningEncoder(MEL_BANDS, model_dim, heads)
        self.text_embedding = _embedding(self.number_text_tokens, model_dim)
        self.mel_embedding = _embedding(number_mel_codes, model_dim) if use_mel_codes_as_input else MelFrames(model_dim)
        self.gpt = Gpt2Trunk(layers, model_dim, heads, dropout)
        self.mel_pos_embedding = LearnedPositions(max_mel_tokens + 2 + max_conditioning_inputs, model_dim)
        self.text_pos_embedding = LearnedPositions(max_text_tokens + 2, model_dim)
        solo = [nn.Parameter(torch.randn(1, 1, model_dim) * 0.02) for _ in range(2 if train_solo_embeddings else 0)]
        self.mel_solo_embedding, self.text_solo_embedding = solo or (None, None)
        self.final_norm = nn.LayerNorm(model_dim)
        self.text_head = nn.Linear(model_dim, self.number_text_tokens)
        self.mel_head = nn.Linear(model_dim, number_mel_codes)
        if freeze_everything_but_position_embeddings:
            self.requires_grad_(False)
            self.mel_pos_embedding.requires_grad_(True)
            self.text_pos_embedding.requires_grad_(True)

    def forward(
        self, conditioning: Tensor, text: Tensor, text_lengths: Tensor, mel_codes: Tensor, wav_lengths: Tensor,
        raw_mels: Tensor | None = None, *, text_first: bool = True,
    ) -> tuple[LossSum, LossSum, Tensor]:  # fmt: skip
        """Both losses of a batch.

        Args:
            conditioning: (B, [n,] 80, S) mel spectrograms of reference clips.
            text: (B, T) integers, padded; (B,) tokens that count.
            mel_codes: (B, M) integers; what lies beyond wav_lengths // mel_length_compression is taken for padding.
            wav_lengths: (B,) samples of audio.
            raw_mels: (B, 80, 4 M), where frames go in instead of codes.
            text_first: false: the codes come before the text.

        Returns:
            the losses of text and codes in nats, each with its tokens; logits (B, number_mel_codes, N + 2), N being M,
            or on a CPU the codes of the longest item.

        Raises:
            ValueError: a shape is wrong, or a text or a sound too long for the positions.
        """
        words, codes = self._text(text, text_lengths), self._codes(mel_codes, wav_lengths)
        hidden_words, hidden_codes = self._hidden(conditioning, words, codes, raw_mels, text_first)
        logits = self.mel_head(hidden_codes)
        losses = cross_entropy(self.text_head(hidden_words), words), cross_entropy(logits, codes)
        return *losses, logits.transpose(1, 2)

    def latents(
        self, conditioning: Tensor, text: Tensor, text_lengths: Tensor, mel_codes: Tensor, wav_lengths: Tensor
    ) -> Tensor:
        """What the network holds of each code, as a decoder of Tortoise's takes it: (B, M, model_dim)."""
        words, codes = self._text(text, text_lengths, crop=False), self._codes(mel_codes, wav_lengths, crop=False)
        return self._hidden(conditioning, words, codes, None, True)[1][:, :-2]

    def text_forward(self, conditioning: Tensor, text: Tensor, text_lengths: Tensor) -> LossSum:
        """The loss of text without sound; arguments as in forward()."""
        words = self._text(text, text_lengths)
        embedded = self._embed_text(words) + _or_zero(self.text_solo_embedding)
        return cross_entropy(self.text_head(self._solo(conditioning, embedded, words)), words)

    def speech_forward(
        self, conditioning: Tensor, mel_codes: Tensor, wav_lengths: Tensor, raw_mels: Tensor | None = None
    ) -> LossSum:
        """The loss of sound without text; arguments as in forward()."""
        codes = self._codes(mel_codes, wav_lengths)
        embedded = self._embed_codes(codes, raw_mels) + _or_zero(self.mel_solo_embedding)
        return cross_entropy(self.mel_head(self._solo(conditioning, embedded, codes)), codes)

    def voice(self, conditioning: Tensor) -> Tensor:
        """Reference clips (B, [n,] 80, S) as vectors (B, n, model_dim); (B, 1, model_dim) where they are averaged.

        Raises:
            ValueError: the shape is another.
        """
        clips = conditioning[:, None] if conditioning.dim() == 3 else conditioning
        if clips.dim() != 4 or clips.shape[2] != MEL_BANDS or not clips.shape[1]:
            raise ValueError(
                f"unified_voice2 expected reference clips as mel spectrograms (B, n, {MEL_BANDS}, S), "
                f"got {tuple(conditioning.shape)}"
            )
        vectors = self.conditioning_encoder(clips.flatten(0, 1)).view(*clips.shape[:2], self.model_dim)
        return vectors.mean(1, keepdim=True) if self.average_conditioning_embeddings else vectors

    def released_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Released files also hold masks that follow from the shapes, and copies of what only sampling uses."""
        unused = ("inference_model.", "gpt.wte.", "gpt.wpe.")
        masks = (".attn.bias", ".attn.masked_bias")
        return {k: v for k, v in weights.items() if not (k.startswith(unused) or k.endswith(masks))}

    @torch.inference_mode()
    def generate(
        self, conditioning: Tensor, text: Tensor, *, num: int = 1, max_codes: int | None = None,
        temperature: float = 0.8, top_k: int = 50, top_p: float = 0.8, repetition_penalty: float = 2.0,
        generator: torch.Generator | None = None, progress: Callable[[int, int], None] | None = None,
    ) -> list[Tensor]:  # fmt: skip
        """Read a text in a voice.

        Args:
            conditioning: (1, [n,] 80, S) mel spectrograms of reference clips.
            text: (T,) integers, without padding.
            num: readings that are drawn at once.
            max_codes: longest reading (default: max_mel_tokens).
            temperature, top_k, top_p: how to draw; temperature 0 takes the likeliest.
            repetition_penalty: a code that was said already gets so many times less likely; 1: no.
            generator: random numbers; None is torch's own.
            progress: called with the codes done and the most there can be.

        Returns:
            the codes of each reading, (N,) int64; one that found no end has max_codes.

        Raises:
            ValueError: a shape or a length is wrong, or the network takes frames instead of codes.
        """
        most = self.max_mel_tokens if max_codes is None else max_codes
        if not 1 <= most <= self.max_mel_tokens:
            raise ValueError(f"max_codes is {most}: this network has positions for 1 to {self.max_mel_tokens}")
        if num < 1 or repetition_penalty <= 0:
            raise ValueError(f"num must be 1 or more and repetition_penalty above 0, got {num}, {repetition_penalty}")
        if not self.use_mel_codes_as_input:
            raise ValueError("use_mel_codes_as_input is false: such a network reads sound, it cannot make it")
        check_positions("text", text[None], self.max_text_tokens)
        choice = Choice(temperature, top_k, top_p, generator)
        with self.evaluating():
            voice = self.voice(conditioning)
            return sample_codes(self, voice, text, num, most, choice, repetition_penalty, progress)

    def _text(self, text: Tensor, lengths: Tensor, crop: bool = True) -> Part:
        check_positions("text", text, self.max_text_tokens)
        return arrange(text, lengths, self.start_text_token, self.stop_text_token, crop)

    def _codes(self, codes: Tensor, wav_lengths: Tensor, crop: bool = True) -> Part:
        """The code that the end of a sound falls into counts as well: convolutions spread the end over it."""
        check_positions("mel_codes", codes, self.max_mel_tokens)
        lengths = (wav_lengths // self.mel_length_compression + 1).clamp(max=codes.shape[1])
        return arrange(codes, lengths, self.start_mel_token, self.stop_mel_token, crop)

    def _embed_text(self, part: Part) -> Tensor:
        return self.text_embedding(part.inputs) + self.text_pos_embedding(part.inputs.shape[1])

    def _embed_codes(self, part: Part, raw_mels: Tensor | None) -> Tensor:
        length = part.inputs.shape[1]
        if self.use_mel_codes_as_input:
            return self.mel_embedding(part.inputs) + self.mel_pos_embedding(length)
        if raw_mels is None:
            raise ValueError("unified_voice2 with use_mel_codes_as_input: false needs raw_mels as its sixth input")
        frames = functional.pad(raw_mels, (0, 4 * length - raw_mels.shape[-1]))  # cut, or filled up with zeros
        return self.mel_embedding(frames) + self.mel_pos_embedding(length)

    def _hidden(
        self, conditioning: Tensor, words: Part, codes: Part, raw_mels: Tensor | None, text_first: bool
    ) -> tuple[Tensor, Tensor]:
        """What the network makes of the text's places and of the codes'."""
        voice = self.voice(conditioning)
        parts, embedded = (words, codes), (self._embed_text(words), self._embed_codes(codes, raw_mels))
        order = (0, 1) if text_first else (1, 0)
        first, second = (embedded[number] for number in order)
        attended = torch.cat([torch.ones_like(voice[..., 0]).bool(), *(parts[number].attended for number in order)], 1)
        hidden = self._run(torch.cat([voice, first, second], 1), attended)
        made = hidden.split([voice.shape[1], first.shape[1], second.shape[1]], 1)[1:]
        return made[order[0]], made[order[1]]

    def _solo(self, conditioning: Tensor, embedded: Tensor, part: Part) -> Tensor:
        voice = self.voice(conditioning)
        attended = torch.cat([torch.ones_like(voice[..., 0]).bool(), part.attended], 1)
        return self._run(torch.cat([voice, embedded], 1), attended)[:, voice.shape[1] :]

    def _run(self, x: Tensor, attended: Tensor) -> Tensor:
        recompute = self.gradient_checkpointing and self.checkpointing and self.training
        return self.final_norm(self.gpt(x, attended, recompute))


class LearnedPositions(nn.Module):
    """A vector for each place, from 0: a length -> (length, dim)."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.emb = _embedding(length, dim)

    def forward(self, length: int, start: int = 0) -> Tensor:
        """Vectors of the places start .. start + length - 1: (length, dim)."""
        return self.emb.weight[start : start + length]


def check_positions(name: str, tokens: Tensor, most: int) -> None:
    """Refuse tokens that are none, or more than there are positions for.

    Raises:
        ValueError: says so.
    """
    if tokens.dim() != 2 or tokens.is_floating_point():
        raise ValueError(f"unified_voice2 expected {name} (B, N) as integers, got {tokens.dtype} {tuple(tokens.shape)}")
    if tokens.shape[1] > most:
        option = "max_text_tokens" if name == "text" else "max_mel_tokens"
        raise ValueError(f"{name} has {tokens.shape[1]} places, the network {most}: raise {option}, or cut the items")


def arrange(tokens: Tensor, lengths: Tensor, start: int, stop: int, crop: bool = True) -> Part:
    """Tokens (B, N) of these lengths (B,) with start and stop, and which places count.

    On a CPU, where nobody waits for a number, what lies beyond the longest item is cut off.
    """
    if crop and lengths.device.type == "cpu":
        tokens = tokens[:, : int(lengths.max())]
    place = torch.arange(tokens.shape[1] + 2, device=tokens.device)
    lengths = lengths.to(tokens.device)[:, None]
    real = torch.where(place[: tokens.shape[1]] < lengths, tokens.long(), stop)
    inputs = functional.pad(functional.pad(real, (1, 0), value=start), (0, 1), value=stop)
    return Part(inputs, functional.pad(real, (0, 2), value=stop), place <= lengths + 1, place <= lengths)


def cross_entropy(logits: Tensor, part: Part) -> LossSum:
    """Nats of the targets under logits (B, N, V), over the places that are scored."""
    with torch.autocast(logits.device.type, enabled=False):
        nats = functional.cross_entropy(logits.float().transpose(1, 2), part.targets, reduction="none")
    return LossSum((nats * part.scored).sum(), part.scored.sum())


def _embedding(number: int, dim: int) -> nn.Embedding:
    """A table whose vectors begin as GPT-2's do."""
    table = nn.Embedding(number, dim)
    nn.init.normal_(table.weight, std=0.02)
    return table


def _or_zero(value: nn.Parameter | None) -> Tensor | float:
    return 0.0 if value is None else value


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}: it must be 1 or more")
    if sizes["model_dim"] % sizes["heads"]:
        raise ValueError(f"model_dim is {sizes['model_dim']}: it must be a multiple of heads, {sizes['heads']}")
