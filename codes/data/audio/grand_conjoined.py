"""Three sources in one item: speech with text, speech alone, and text alone.

    python -m codes.data.audio.grand_conjoined --only-paired \\
        --paired-dataset-args '{path: LJSpeech-1.1, fetcher_mode: lj}'

Its options and keys are those of DL-Art-School's dataset, whose YAML calls it grand_conjoined_voice. Each source may
have its own size: an epoch is as long as the longest, the others begin again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from codes.data.audio.paired_voice_audio import PairedVoiceAudioDataset
from codes.data.audio.transcripts.left_out import LeftOut
from codes.data.audio.transcripts.rows import TranscriptError, numbered_lines
from codes.data.audio.unsupervised_audio import UnsupervisedAudioDataset
from codes.data.dataset import SKIPPED, Dataset
from codes.registry import OptionsOf, Range

_OURS = {  # what the options of a source may not hold, because the dataset's own say it
    "paired_dataset_args": (
        *("max_wav_length", "max_text_length"),
        *("load_conditioning", "num_conditioning_candidates", "conditioning_length"),
    ),
    "unsupervised_audio_args": ("pad_to_samples", "pad_to_seconds", "extra_samples", "extra_sample_length"),
}


@dataclass(frozen=True, kw_only=True)
class TextCorpus:
    """Text without speech.

    Args:
        path: text files, each line a text, or JSON lines with ``text``.
        corpi: data sets of the Hugging Face hub by name; not read here: save them as text.
        cache_path: no effect.
    """

    path: list[Path] = field(default_factory=list)
    corpi: Any = None
    cache_path: str | None = None

    def __post_init__(self) -> None:
        if not self.path:
            hub = f"; data sets of the hub ({self.corpi}) are not read here, save them as text" if self.corpi else ""
            raise ValueError(f"path is missing: text files, each line a text{hub}")


class GrandConjoinedDataset(Dataset):
    """Speech with text (``paired_...``), speech alone (``speech_...``) and text alone (``text_...``).

    Text alone is cut where it is too long; with unknown characters, or with ``*``, it is left out and counted.

    Args:
        paired_dataset_args: the options of `paired_voice_audio`, without lengths and conditioning.
        unsupervised_audio_args: the options of `unsupervised_audio`, without lengths and extra samples.
        text_corpus_args: where the text is.
        only_paired: give the paired speech and text in the place of the other two.
        max_paired_audio_length: longest paired recording, in samples.
        max_paired_text_length: most tokens of a paired text.
        max_solo_audio_length: length of speech alone, in samples.
        max_solo_text_length: most tokens of text alone.
        num_conditioning_candidates: how many conditioning clips; 0 for none.
        conditioning_length: their length in samples.
        sample_rate: frames per second of all audio, in Hz.
        phase: "train" or "val".
        needs_collate: no effect: items always have one length.
    """

    provides = {
        "paired_audio": "(1, max_paired_audio_length) float32 in -1 .. 1, filled up with silence",
        "paired_audio_lengths": "its samples, int",
        "paired_text": "its text, str",
        "paired_text_tokens": "(max_paired_text_length,) int64, filled up with 0",
        "paired_text_lengths": "number of tokens, int",
        "paired_file": "the file, str",
        "speech_audio": "(1, max_solo_audio_length) float32; with only_paired that of paired_audio",
        "speech_audio_lengths": "its samples, int",
        "speech_file": "the file, str",
        "text_text": "text alone, str",
        "text_tokens": "(max_solo_text_length,) int64; with only_paired that of paired_text_tokens",
        "text_lengths": "number of tokens, int",
        "sample_rate": "samples per second, int",
        "paired_audio_conditioning": "of the paired speaker, (candidates, 1, conditioning_length) float32, if any",
        "speech_audio_conditioning": "from the folder of the speech alone, of that shape, if any",
    }

    def __init__(
        self,
        *,
        paired_dataset_args: Annotated[dict[str, Any], OptionsOf(PairedVoiceAudioDataset)],
        unsupervised_audio_args: Annotated[dict[str, Any], OptionsOf(UnsupervisedAudioDataset)] | None = None,
        text_corpus_args: TextCorpus | None = None,
        only_paired: bool = False,
        max_paired_audio_length: Annotated[int, Range(least=1)] = 255_995,
        max_paired_text_length: Annotated[int, Range(least=1)] = 200,
        max_solo_audio_length: Annotated[int, Range(least=1)] = 300_000,
        max_solo_text_length: Annotated[int, Range(least=1)] = 330,
        num_conditioning_candidates: Annotated[int, Range(least=0)] = 0,
        conditioning_length: Annotated[int, Range(least=1)] = 44_000,
        sample_rate: Annotated[int, Range(least=1)] = 22_050,
        phase: Literal["train", "val"] = "train",
        needs_collate: bool = False,
    ) -> None:
        if not only_paired and (unsupervised_audio_args is None or text_corpus_args is None):
            raise ValueError("only_paired is false: unsupervised_audio_args and text_corpus_args are needed")
        _check("paired_dataset_args", paired_dataset_args, sample_rate)
        _check("unsupervised_audio_args", unsupervised_audio_args or {}, sample_rate)
        self.sample_rate_hz, self._num_conditioning = sample_rate, num_conditioning_candidates
        conditioning = {
            "load_conditioning": True,
            "num_conditioning_candidates": num_conditioning_candidates,
            "conditioning_length": conditioning_length,
        }
        self.paired = PairedVoiceAudioDataset(
            **{"phase": phase, **paired_dataset_args, "sample_rate": sample_rate},
            max_wav_length=max_paired_audio_length,
            max_text_length=max_paired_text_length,
            **(conditioning if num_conditioning_candidates else {}),
        )
        self.speech: UnsupervisedAudioDataset | None = None
        self.texts: list[str] = []
        self.left_out = LeftOut()
        self._screen = self.paired.screen.longer(max_solo_text_length)
        if not only_paired:
            assert unsupervised_audio_args is not None
            assert text_corpus_args is not None
            self.speech = UnsupervisedAudioDataset(
                **{"phase": phase, **unsupervised_audio_args, "sample_rate": sample_rate},
                pad_to_samples=max_solo_audio_length,
                extra_samples=num_conditioning_candidates,
                extra_sample_length=conditioning_length,
            )
            self.texts = self._read_texts(text_corpus_args.path)

    @classmethod
    def provided_keys(cls, options: Mapping[str, Any]) -> dict[str, str]:
        """The keys of an item; those of conditioning only where there are candidates."""
        asked = options.get("num_conditioning_candidates")
        return {key: text for key, text in cls.provides.items() if asked or "conditioning" not in key}

    def __len__(self) -> int:
        """As many items as the largest source has."""
        return max(len(self.paired), len(self.speech or ()), len(self.texts))

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Item ``index`` of each source, counted around."""
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a dataset of {len(self)}")
        paired = self.paired.item(index % len(self.paired), rng)
        speech = paired if self.speech is None else self.speech.item(index % len(self.speech), rng)
        item = {
            "paired_audio": paired["wav"],
            "paired_audio_lengths": paired["wav_lengths"],
            "paired_text": paired["real_text"],
            "paired_text_tokens": paired["padded_text"],
            "paired_text_lengths": paired["text_lengths"],
            "paired_file": paired["filenames"],
            "speech_audio": speech["wav" if self.speech is None else "clip"],
            "speech_audio_lengths": speech["wav_lengths" if self.speech is None else "clip_lengths"],
            "speech_file": speech["filenames" if self.speech is None else "path"],
            "sample_rate": self.sample_rate_hz,
            **self._text(index, paired),
        }
        if self._num_conditioning:
            item["paired_audio_conditioning"] = paired["conditioning"]
            item["speech_audio_conditioning"] = speech["conditioning" if self.speech is None else "alt_clips"]
        parts = [paired] if self.speech is None else [paired, speech]
        if any(SKIPPED in part for part in parts):
            item[SKIPPED] = [error for part in parts for error in part.get(SKIPPED, [])]
        return item

    def fingerprint(self) -> dict[str, Any]:
        """That of each source."""
        text = hashlib.sha256("\n".join(self.texts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        speech = {} if self.speech is None else {"speech": self.speech.fingerprint(), "text": text}
        return {"items": len(self), "paired": self.paired.fingerprint(), **speech}

    def report(self) -> list[str]:
        """What each source found, in lines for people."""
        lines = [f"paired: {line}" for line in self.paired.report()]
        if self.speech is not None:
            lines += [f"speech alone: {line}" for line in self.speech.report()]
            lines += [f"text alone: {line}" for line in (*self.left_out.lines(), f"taken: {len(self.texts)} texts")]
        return [*lines, f"{len(self)} items an epoch"]

    def _text(self, index: int, paired: Mapping[str, Any]) -> dict[str, Any]:
        if self.speech is None:
            text, tokens, length = paired["real_text"], paired["padded_text"], paired["text_lengths"]
        else:
            text = self.texts[index % len(self.texts)]
            tokens, length = self._screen.tokens(text)
        return {"text_text": text, "text_tokens": tokens, "text_lengths": length}

    def _read_texts(self, paths: list[Path]) -> list[str]:
        """The texts that can be taken; the others are counted."""
        kept = []
        for path in paths:
            for number, line in numbered_lines(path):
                text = _text_of(line, f"{path}:{number}") if path.suffix == ".jsonl" else line.strip()
                if "*" in text or self._screen.tokenizer.unknown(text):
                    self.left_out.add("with * or characters that the tokenizer does not know", f"{path}:{number}")
                elif self._screen.tokenizer.encode(text):
                    kept.append(text)
        if not kept:
            raise ValueError(f"text_corpus_args: no text can be taken; {'; '.join(self.left_out.lines())}")
        return kept


class GrandConjoinedVoiceDataset(GrandConjoinedDataset):
    """DL-Art-School's name of grand_conjoined."""


def _check(name: str, options: Mapping[str, Any], sample_rate: int) -> None:
    """Refuse options of a source that the dataset itself decides."""
    ours = [key for key in _OURS[name] if key in options]
    ours += [key for key in ("sample_rate", "sampling_rate") if options.get(key, sample_rate) != sample_rate]
    if ours:
        raise ValueError(f"{name}: {', '.join(ours)} must stand outside, as grand_conjoined's own")


def _text_of(line: str, where: str) -> str:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise TranscriptError(f"{where}: is not JSON: {error.msg}") from error
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise TranscriptError(f"{where}: has no text: needs an object with text")
    return record["text"]


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("grand_conjoined")
