"""Which texts a dataset takes, and their tokens: what is too long, empty, or has unknown characters is counted."""

import copy
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np

from codes.data.audio.transcripts.left_out import LeftOut
from codes.data.audio.transcripts.rows import Row
from codes.data.text.cleaners import Cleaner
from codes.data.text.tokenizer import BpeTokenizer, CharacterTokenizer, TextTokenizer

_MOST_CHARACTERS = 12


class TextScreen:
    """A tokenizer and what it lets pass.

    Args:
        max_tokens: most tokens of a text.
        use_bpe: byte pair encoding, else single characters.
        vocab: the tokenizer's file; None: the project's own.
        cleaner: what is done to text first.

    Raises:
        TokenizerError: the file is no tokenizer.
        ValueError: a file for a tokenizer of characters, which has none.
    """

    def __init__(self, max_tokens: int, use_bpe: bool, vocab: Path | None, cleaner: Cleaner) -> None:
        if vocab is not None and not use_bpe:
            raise ValueError("tokenizer_vocab: use_bpe_tokenizer is false: its characters have no file")
        self.max_tokens = max_tokens
        self.tokenizer: TextTokenizer = BpeTokenizer(vocab, cleaner) if use_bpe else CharacterTokenizer(cleaner)
        self._own = use_bpe and vocab is None
        self._unknown: Counter[str] = Counter()

    def longer(self, max_tokens: int) -> "TextScreen":
        """The same tokenizer for texts of another length; `tokens` cuts what is longer."""
        other = copy.copy(self)
        other.max_tokens = max_tokens
        return other

    def keep(self, rows: list[Row], left_out: LeftOut) -> list[Row]:
        """The rows whose text can be taken; the others are counted."""
        kept = []
        for row in rows:
            reason = self.reason_against(row.text)
            if reason is None:
                kept.append(row)
            else:
                left_out.add(reason, row.where)
        return kept

    def reason_against(self, text: str) -> str | None:
        """Why a text is not taken, or None."""
        ids, unknown = self.tokenizer.examine(text)
        if unknown:
            self._unknown.update(unknown)
            return "with characters that the tokenizer does not know"
        if not ids:
            return "with an empty text"
        return f"with a text of more than {self.max_tokens} tokens" if len(ids) > self.max_tokens else None

    def tokens(self, text: str) -> tuple[np.ndarray, int]:
        """The first tokens of a text, filled up with 0: (max_tokens,) int64; and how many there are."""
        ids = self.tokenizer.encode(text)[: self.max_tokens]
        filled = np.zeros(self.max_tokens, np.int64)
        filled[: len(ids)] = ids
        return filled, len(ids)

    def notes(self) -> list[str]:
        """The characters that are unknown, for people."""
        if not self._unknown:
            return []
        common = [f"{character!r} {count}" for character, count in self._unknown.most_common(_MOST_CHARACTERS)]
        more = f" and {len(self._unknown) - _MOST_CHARACTERS} more" if len(self._unknown) > _MOST_CHARACTERS else ""
        return [f"characters that the tokenizer does not know, with their number: {', '.join(common)}{more}"]

    def describe(self) -> str:
        """Which tokenizer it is, for people."""
        if not isinstance(self.tokenizer, BpeTokenizer):
            return f"tokenizer: {self.tokenizer.num_tokens} characters"
        which = (
            "the project's own for English; released weights need theirs, tokenizer_vocab: FILE" if self._own else ""
        )
        return f"tokenizer: {self.tokenizer.num_tokens} tokens, {which or self.tokenizer.file}"

    def identity(self) -> bytes:
        """What decides the tokens of a text, as bytes."""
        characters = CharacterTokenizer.symbols.encode()
        made_of = self.tokenizer.file.read_bytes() if isinstance(self.tokenizer, BpeTokenizer) else characters
        return hashlib.sha256(made_of).digest() + self.tokenizer.cleaner.encode()
