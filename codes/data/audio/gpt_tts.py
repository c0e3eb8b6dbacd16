"""Text and codes of speech that were made beforehand: training without reading or coding any audio.

    python -m codes.data.audio.gpt_tts --path codes/ --fetcher-mode jsonl --mel-vocab-size 8192

The codes stand in the metadata (``codes`` of JSON lines, the third column of a tsv), or in files as DL-Art-School
writes them: for ``wavs/a.wav`` in ``quantized_mels/a.wav.pth``, a tensor of whole numbers.
"""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from codes.data.audio.clip_dataset import padded
from codes.data.audio.transcripts.fetchers import FetcherMode, read_all
from codes.data.audio.transcripts.left_out import LeftOut
from codes.data.audio.transcripts.rows import Row, TranscriptError, refuse
from codes.data.audio.transcripts.screening import TextScreen
from codes.data.dataset import Dataset
from codes.data.text.cleaners import Cleaner
from codes.registry import Range


class GptTtsDataset(Dataset):
    """Text and codes, each filled up to one length.

    With DL-Art-School's special tokens, text is ``start, tokens, stop`` and its filling is a token for each place,
    behind those of the tokenizer; codes are ``mel_vocab_size, codes, mel_vocab_size + 1``, filled up with
    mel_vocab_size + 2. Without them both are filled up with 0, as `unified_voice2` wants them, which adds its own.

    Args:
        path: metadata with codes, or beside quantized_mels/; a file, a folder as fetcher_mode says, or a list.
        fetcher_mode: how it is written: lj, libritts, tsv, mozilla_cv, voxpopuli or jsonl (a folder's train.jsonl and
            val.jsonl); or a list with one for each path.
        phase: "train" or "val", which of a folder's lists is read; all that a file lists is taken.
        mel_vocab_size: how many different codes there are.
        max_text_length: most tokens of a text.
        max_mel_length: most codes of a recording; longer ones are left out and counted.
        special_tokens: add start and stop tokens, and fill up as DL-Art-School does.
        codes_ratio: samples of audio for each code, for wav_lengths.
        use_bpe_tokenizer: byte pair encoding; false: one token a character, Tacotron's symbols.
        tokenizer_vocab: a JSON file of the tokenizers library; null: the project's own for English.
        text_cleaners: what is done to text first: english, or basic for other languages.
        on_error: "fail" at the first row that cannot be understood or has no codes; "skip": leave it out and count it.
    """

    provides = {
        "real_text": "the text as it was written, str",
        "padded_text": "its tokens, (max_text_length,) int64, and 2 more with special_tokens",
        "text_lengths": "number of tokens without special ones, int",
        "input_lengths": "number of tokens with special ones, int",
        "padded_qmel": "codes, (max_mel_length,) int64, and 2 more with special_tokens",
        "output_lengths": "number of codes with special ones, int",
        "wav_lengths": "samples of the longest sound that has so many codes: the next one begins another, int",
        "filenames": "the recording, str",
    }

    def __init__(
        self,
        *,
        path: Path | list[Path],
        fetcher_mode: FetcherMode | list[FetcherMode] = "lj",
        phase: Literal["train", "val"] = "train",
        mel_vocab_size: Annotated[int, Range(least=1)] = 8192,
        max_text_length: Annotated[int, Range(least=1)] = 200,
        max_mel_length: Annotated[int, Range(least=1)] = 250,
        special_tokens: bool = True,
        codes_ratio: Annotated[int, Range(least=1)] = 1024,
        use_bpe_tokenizer: bool = False,
        tokenizer_vocab: Path | None = None,
        text_cleaners: Cleaner = "english",
        on_error: Literal["fail", "skip"] = "fail",
    ) -> None:
        self.screen = TextScreen(max_text_length, use_bpe_tokenizer, tokenizer_vocab, text_cleaners)
        self.left_out = LeftOut()
        self._vocab, self._most_codes = mel_vocab_size, max_mel_length
        self._special, self._ratio = special_tokens, codes_ratio
        modes: list[FetcherMode] = fetcher_mode if isinstance(fetcher_mode, list) else [fetcher_mode]
        found = read_all(path if isinstance(path, list) else [path], modes, phase)
        coded, problems = self._coded(found.rows)
        problems = [*found.problems, *problems]
        if on_error == "fail":
            refuse(problems, len(found.rows))
        for problem in problems:
            self.left_out.add("that cannot be understood or have no codes", problem)
        self._items = self._short_enough(coded)
        if not self._items:
            lines = "; ".join(self.left_out.lines())
            raise ValueError(f"path: none of the {len(found.rows)} recordings can be taken; {lines}")
        self._notes = [*found.notes, *self.screen.notes(), self.screen.describe()]
        self.left_out.report(self._notes)

    def __len__(self) -> int:
        """As many items as recordings."""
        return len(self._items)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Recording ``index``; nothing is drawn."""
        row, codes = self._items[index]
        tokens, num_tokens = self.screen.tokens(row.text)
        text = self._framed_text(tokens, num_tokens) if self._special else tokens
        filled = self._framed_codes(codes) if self._special else padded(codes, self._most_codes)
        added = 2 if self._special else 0
        return {
            "real_text": row.text,
            "padded_text": text,
            "text_lengths": num_tokens,
            "input_lengths": num_tokens + added,
            "padded_qmel": filled,
            "output_lengths": len(codes) + added,
            "wav_lengths": len(codes) * self._ratio - 1,
            "filenames": str(row.audio),
        }

    def fingerprint(self) -> dict[str, Any]:
        """Number of items, and a hash of texts, codes and tokenizer."""
        digest = hashlib.sha256(self.screen.identity())
        for row, codes in self._items:
            digest.update(row.text.encode("utf-8", "surrogateescape") + codes.tobytes())
        return {"items": len(self), "digest": digest.hexdigest()[:16]}

    def report(self) -> list[str]:
        """What was found and left out, in lines for people."""
        used = Counter(int(code) for _, codes in self._items for code in codes)
        lengths = [len(codes) for _, codes in self._items]
        return [
            *self._notes,
            f"taken: {len(self)} recordings of {min(lengths)} to {max(lengths)} codes; "
            f"{len(used)} of {self._vocab} codes are used",
        ]

    def _coded(self, rows: list[Row]) -> tuple[list[tuple[Row, np.ndarray]], list[str]]:
        """Rows with their codes, and what is wrong with the others."""
        coded, problems = [], []
        for row in rows:
            try:
                codes = np.array(row.codes, np.int64) if row.codes is not None else _read_codes(row.audio)
            except TranscriptError as error:
                problems.append(f"{row.where}: {error}")
                continue
            if codes.size and not 0 <= codes.min() <= codes.max() < self._vocab:
                problems.append(
                    f"{row.where}: codes are {codes.min()} to {codes.max()}, allowed are 0 to {self._vocab - 1} "
                    "(mel_vocab_size)"
                )
            else:
                coded.append((row, codes))
        return coded, problems

    def _short_enough(self, coded: list[tuple[Row, np.ndarray]]) -> list[tuple[Row, np.ndarray]]:
        fitting = []
        for row, codes in coded:
            reason = self.screen.reason_against(row.text)
            if reason is None and not 0 < len(codes) <= self._most_codes:
                reason = f"without codes, or with more than {self._most_codes}"
            if reason is None:
                fitting.append((row, codes))
            else:
                self.left_out.add(reason, row.where)
        return fitting

    def _framed_text(self, tokens: np.ndarray, num_tokens: int) -> np.ndarray:
        """start, tokens, stop, then a token for each place: (max_text_length + 2,)."""
        symbols, places = self.screen.tokenizer.num_tokens, len(tokens) + 2
        framed = symbols + np.arange(places)
        framed[: num_tokens + 2] = [symbols + places - 1, *tokens[:num_tokens], symbols + places - 2]
        return framed

    def _framed_codes(self, codes: np.ndarray) -> np.ndarray:
        """start, codes, stop, then filling: (max_mel_length + 2,)."""
        framed = np.full(self._most_codes + 2, self._vocab + 2, np.int64)
        framed[: len(codes) + 2] = [self._vocab, *codes, self._vocab + 1]
        return framed


def _read_codes(audio: Path) -> np.ndarray:
    """The codes that lie in a file of their own, (n,) int64.

    Raises:
        TranscriptError: there is none, or it holds something else.
    """
    import torch

    file = audio.parent.parent / "quantized_mels" / f"{audio.name}.pth"
    if not file.is_file():
        raise TranscriptError(f"has no codes, and {file} does not exist")
    try:
        codes = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler meets
        raise TranscriptError(f"{file} cannot be read: {error}") from error
    one_row = isinstance(codes, torch.Tensor) and codes.numel() == max(codes.shape, default=0)
    if not one_row or codes.is_floating_point():
        raise TranscriptError(f"{file} must hold one row of whole numbers")
    return codes.flatten().long().numpy()


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("gpt_tts")
