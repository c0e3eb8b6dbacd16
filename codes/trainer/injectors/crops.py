"""Parts of sound and of what goes with it: crops at random, clips with their text, two items joined to one."""

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from codes.registry import StateKey
from codes.trainer.injector import Injector

KeyRead = Annotated[str | None, StateKey()]
KeyWritten = Annotated[str | None, StateKey(written=True)]


def stretch(wav: Tensor, start: Tensor, length: int) -> Tensor:
    """wav: (B, C, T), start: (B,) -> (B, C, length): of each item that many samples from its own place."""
    at = start[:, None] + torch.arange(length, device=wav.device)
    return wav.gather(2, at[:, None].expand(-1, wav.shape[1], -1))


class RandomAudioCropInjector(Injector):
    """A stretch of each item, from a place of its own. wav: (B, C, T) -> (B, C, crop_size).

    With lengths (B,), under lengths_key or as a second input, the stretch lies within the item's own samples where they
    suffice. With a second key under `out`, or crop_start_key, the places (B,) int64 are written as well.

    Args:
        crop_size: its samples.
        min_crop_size: in place of crop_size: the size is drawn for each batch, from this ..
        max_crop_size: .. to this.
        min_buffer: samples at both ends that are left out.
        lengths_key: key of the items' samples.
        crop_start_key: key under which the stretches' first samples are written.
    """

    def __init__(
        self, *, crop_size: int | None = None, min_crop_size: int | None = None, max_crop_size: int | None = None,
        min_buffer: int = 0, lengths_key: KeyRead = None, crop_start_key: KeyWritten = None,
    ) -> None:  # fmt: skip
        low, high = (min_crop_size, max_crop_size) if crop_size is None else (crop_size, crop_size)
        if low is None or high is None:
            raise ValueError("crop_size is missing: give it, or min_crop_size and max_crop_size")
        if crop_size is not None and (min_crop_size is not None or max_crop_size is not None):
            raise ValueError("crop_size excludes min_crop_size and max_crop_size")
        if not 1 <= low <= high or min_buffer < 0:
            raise ValueError(
                f"crop_size must be 1 or more, its least not above its most, and min_buffer 0 or more, "
                f"got {low} to {high} and {min_buffer}"
            )
        self.sizes, self.min_buffer = (low, high), min_buffer
        self.with_start = crop_start_key is not None

    def forward(self, wav: Tensor, lengths: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """wav: (B, C, T); lengths: (B,) -> (B, C, crop_size); with crop_start_key also the places (B,).

        Raises:
            ValueError: the items are shorter than the stretch.
        """
        size = self.sizes[0] if self.sizes[0] == self.sizes[1] else self.draw_number(*self.sizes)
        if wav.dim() != 3 or wav.shape[-1] < size:
            raise ValueError(f"expected sound (B, C, T) of {size} samples or more, got {tuple(wav.shape)}")
        whole = torch.full((len(wav),), wav.shape[-1], device=wav.device)
        room = (whole if lengths is None else lengths.clamp(max=wav.shape[-1])) - size - 2 * self.min_buffer
        start = (self.draw_uniform(wav, 0, 1) * (room.clamp(min=0) + 1)).long() + self.min_buffer
        start = start.clamp(max=wav.shape[-1] - size)
        cropped = stretch(wav, start, size)
        return (cropped, start) if self.with_start else cropped


class RandomScaleInjector(Injector):
    """A stretch of random size, one size for the batch, from a place of each item's own. wav: (B, C, T) -> (B, C, N).

    Args:
        min_samples: the least N; items that are no longer than this stay whole.
    """

    def __init__(self, *, min_samples: int) -> None:
        if min_samples < 1:
            raise ValueError(f"min_samples must be 1 or more, got {min_samples}")
        self.min_samples = min_samples

    def forward(self, wav: Tensor) -> Tensor:
        """wav: (B, C, T) -> (B, C, N), N from min_samples to T."""
        if wav.dim() != 3:
            raise ValueError(f"expected sound (B, C, T), got {tuple(wav.shape)}")
        if wav.shape[-1] <= self.min_samples:
            return wav
        size = self.draw_number(self.min_samples, wav.shape[-1])
        return stretch(wav, self.draw_integers(wav, 0, wav.shape[-1] - size + 1), size)


class AudioClipInjector(Injector):
    """The beginning of sound, and the same share of the codes that go with it. wav: (B, C, T), codes: (B, N).

    Sound of up to clip_size samples, and its codes, stay as they are.

    Args:
        clip_size: most samples.
        ctc_codes_key: key of the codes, a second input.
        ctc_out_key: key of the codes that are kept, a second output.
    """

    def __init__(self, *, clip_size: int, ctc_codes_key: KeyRead = None, ctc_out_key: KeyWritten = None) -> None:
        if clip_size < 1:
            raise ValueError(f"clip_size must be 1 or more, got {clip_size}")
        if (ctc_codes_key is None) != (ctc_out_key is None):
            raise ValueError("ctc_codes_key and ctc_out_key belong together: give both or none")
        self.clip_size = clip_size

    def forward(self, wav: Tensor, codes: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """wav: (B, C, T); codes: (B, N) -> (B, C, at most clip_size), and (B, N clip_size / T rounded down)."""
        if wav.dim() != 3:
            raise ValueError(f"expected sound (B, C, T), got {tuple(wav.shape)}")
        kept = wav[..., : self.clip_size]
        if codes is None:
            return kept
        return kept, codes[:, : codes.shape[1] * kept.shape[-1] // wav.shape[-1]]


class CombineMelInjector(Injector):
    """Items joined by twos, for long sequences: mels end to end, texts with a separator between.

    mel (B, bands, F), text (B, L), mel lengths (B,), text lengths (B,) -> mel (B/2, bands, 2 F), text (B/2, 2 L + 1);
    the rest of each is 0. A batch of one item stays one, and so does the last item of an odd batch.

    Args:
        audio_key: key of the mels.
        text_key: key of the texts' tokens.
        audio_lengths_key: key of the mels' frames.
        text_lengths_key: key of the texts' numbers of tokens.
        output_audio_key: key of the joined mels.
        output_text_key: key of the joined texts.
        output_audio_lengths_key: key of their frames (B/2,), where wanted; it needs the next one as well.
        output_text_lengths_key: key of their numbers of tokens (B/2,).
        separator: the token between two texts.
    """

    def __init__(
        self, *, audio_key: KeyRead = None, text_key: KeyRead = None, audio_lengths_key: KeyRead = None,
        text_lengths_key: KeyRead = None, output_audio_key: KeyWritten = None, output_text_key: KeyWritten = None,
        output_audio_lengths_key: KeyWritten = None, output_text_lengths_key: KeyWritten = None, separator: int = 149,
    ) -> None:  # fmt: skip
        if (output_audio_lengths_key is None) != (output_text_lengths_key is None):
            raise ValueError("output_audio_lengths_key and output_text_lengths_key belong together: give both or none")
        if separator < 0:
            raise ValueError(f"separator must be 0 or more, got {separator}")
        self.separator, self.with_lengths = separator, output_audio_lengths_key is not None

    def forward(self, mel: Tensor, text: Tensor, mel_lengths: Tensor, text_lengths: Tensor) -> tuple[Tensor, ...]:
        """The joined mels and texts, and with output_..._lengths_key their lengths.

        Raises:
            ValueError: the shapes are not those of mels and texts.
        """
        if mel.dim() != 3 or text.dim() != 2 or len(text) != len(mel):
            raise ValueError(f"expected mels (B, bands, F) and texts (B, L), got {_shapes(mel, text)}")
        joined, frames = _joined(mel, mel_lengths, None)
        texts, tokens = _joined(text[:, None], text_lengths, self.separator)
        return (joined, texts[:, 0], frames, tokens) if self.with_lengths else (joined, texts[:, 0])


def _joined(values: Tensor, lengths: Tensor, separator: int | None) -> tuple[Tensor, Tensor]:
    """values: (B, C, T), lengths: (B,) -> ((B + 1) // 2, C, 2 T [+ 1]) and their lengths.

    Place p is of the first item before its length, then the separator, then of the second; nothing looks at a length.
    """
    num_items, size = len(values), values.shape[-1]
    extra = 0 if separator is None else 1
    if num_items % 2:  # the last one alone: its partner is of length 0
        values = functional.pad(values, (0, 0, 0, 0, 0, 1))
        lengths = functional.pad(lengths, (0, 1))
    first, second = values[::2], values[1::2]
    first_length, second_length = (part.clamp(max=size)[:, None, None] for part in (lengths[::2], lengths[1::2]))
    alone = torch.zeros_like(first_length, dtype=torch.bool)
    if num_items % 2:
        alone[-1] = True
    between = torch.where(alone, 0, extra)
    place = torch.arange(2 * size + extra, device=values.device)
    behind = place - first_length - between
    of_first = _at(first, place.expand(len(first), 1, -1))
    found = torch.where(place < first_length, of_first, _at(second, behind))
    found = found.masked_fill((place >= first_length) & ((behind < 0) | (behind >= second_length)), 0)
    if separator is not None:
        found = found.masked_fill((place == first_length) & ~alone, separator)
    return found, (first_length + between + second_length)[:, 0, 0]


def _at(values: Tensor, places: Tensor) -> Tensor:
    """values: (B, C, T), places: (B, 1, N), those outside meaning nothing -> (B, C, N)."""
    inside = places.clamp(0, values.shape[-1] - 1)
    return values.gather(2, inside.expand(-1, values.shape[1], -1))


def _shapes(*values: Tensor) -> str:
    return " and ".join(str(tuple(value.shape)) for value in values)
