"""Make a tokenizer from lines of text: byte pair encoding in DL-Art-School's form (see `codes.data.text.tokenizer`)."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from codes.data.text.cleaners import Cleaner, clean
from codes.data.text.tokenizer import SPACE, SPECIAL_TOKENS, STOP, UNKNOWN, TokenizerError

ENGLISH_CHARACTERS = "abcdefghijklmnopqrstuvwxyz!'(),-./:;?"  # tokens whether or not the text has them


def train_tokenizer(
    texts: Iterable[str], *, num_tokens: int = 255, cleaner: Cleaner = "english", characters: str | None = None
) -> Any:
    """A ``tokenizers.Tokenizer`` that cuts text like these.

    Args:
        texts: lines of text, as in transcripts.
        num_tokens: with [STOP], [UNK] and [SPACE]; fewer where the text has no more pairs.
        cleaner: what is done to the lines first; datasets must be told the same.
        characters: those that become tokens; all others are unknown. None: for English its letters and punctuation,
            else every letter, mark, digit and punctuation sign of the texts.

    Raises:
        TokenizerError: there is no text, or too few tokens for the characters.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.trainers import BpeTrainer

    lines = [line for line in (clean(text, cleaner) for text in texts) if line]
    if not lines:
        raise TokenizerError("no text to make a tokenizer of: all lines are empty")
    if characters is None:
        characters = ENGLISH_CHARACTERS if cleaner.startswith("english") else _characters(lines)
    alphabet = sorted(set(characters) - {" "})
    if len(alphabet) + len(SPECIAL_TOKENS) > num_tokens:
        raise TokenizerError(
            f"num_tokens is {num_tokens}, but {len(alphabet)} characters and {len(SPECIAL_TOKENS)} special tokens need "
            f"{len(alphabet) + len(SPECIAL_TOKENS)}: allow more tokens, or name the characters"
        )
    tokenizer: Any = Tokenizer(BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = Whitespace()
    trainer: Any = BpeTrainer(
        vocab_size=num_tokens, special_tokens=[STOP, UNKNOWN, SPACE], initial_alphabet=alphabet,
        limit_alphabet=len(alphabet), show_progress=False,
    )  # fmt: skip
    foreign = re.compile(f"[^{re.escape(''.join(alphabet))} ]+")
    tokenizer.train_from_iterator([foreign.sub(" ", line) for line in lines], trainer)
    return tokenizer


def _characters(lines: list[str]) -> str:
    """Every character of the lines that can be read aloud or guides reading."""
    kept = (character for character in set("".join(lines)) if unicodedata.category(character)[0] in "LMNP")
    return "".join(sorted(kept))
