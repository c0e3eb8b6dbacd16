"""Text to token numbers and back: byte pair encoding of the tokenizers library, or single characters.

A tokenizer file is the library's JSON, as DL-Art-School and Tortoise have it: [STOP] is 0, [UNK] is 1, [SPACE] is 2,
and blanks are written as [SPACE] before the text is cut. The project's own, ``codes/data/text/english_255.json``, was
made by

    python scripts/train_tokenizer.py codes/data/text/english_public_domain.txt --out codes/data/text/english_255.json

Token 0 is what padded text is filled with and where a model stops: no text may hold it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from codes.data.text.cleaners import Cleaner, clean

STOP, UNKNOWN, SPACE = "[STOP]", "[UNK]", "[SPACE]"
SPECIAL_TOKENS = (STOP, UNKNOWN, SPACE)
OWN_TOKENIZER = Path(__file__).with_name("english_255.json")


class TokenizerError(ValueError):
    """A file that is no tokenizer, or one without the tokens that speech needs."""


class TextTokenizer(Protocol):
    """What datasets and inference ask of a tokenizer."""

    num_tokens: int
    cleaner: Cleaner

    def examine(self, text: str) -> tuple[list[int], Counter[str]]:
        """Cleaned text as token numbers, and the characters that no token stands for, with their number."""
        ...

    def encode(self, text: str) -> list[int]:
        """Cleaned text as token numbers."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Token numbers as text, without stop and unknown tokens."""
        ...

    def unknown(self, text: str) -> Counter[str]:
        """The characters of the cleaned text that no token stands for, with their number."""
        ...


class BpeTokenizer:
    """Byte pair encoding from a JSON file of the tokenizers library.

    Args:
        file: the JSON; None: the project's own English one.
        cleaner: what is done to text first.

    Raises:
        TokenizerError: the file is missing, is no tokenizer, or lacks [STOP] = 0, [UNK] or [SPACE].
    """

    def __init__(self, file: Path | None = None, cleaner: Cleaner = "english") -> None:
        self.file = Path(file or OWN_TOKENIZER)
        self.cleaner: Cleaner = cleaner
        self._tokenizer = _read(self.file)
        numbers = {token: self._tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
        if numbers[STOP] != 0 or None in numbers.values():
            told = ", ".join(f"{token} is {number}" for token, number in numbers.items())
            raise TokenizerError(
                f"tokenizer_vocab: {self.file}: {STOP} must be token 0, {UNKNOWN} and {SPACE} must exist; here {told}"
            )
        self._unknown: int = numbers[UNKNOWN]
        self.num_tokens: int = self._tokenizer.get_vocab_size()

    def examine(self, text: str) -> tuple[list[int], Counter[str]]:
        """Cleaned text as token numbers, and the characters that no token stands for, with their number.

        A special token that is spelled out in the text counts as such: it would stop the model.
        """
        cleaned = clean(text, self.cleaner)
        encoded = self._tokenizer.encode(cleaned.replace(" ", SPACE))
        found = Counter(token for token in SPECIAL_TOKENS if token in cleaned)
        if self._unknown in encoded.ids:
            spaced = cleaned.replace(" ", SPACE)
            for number, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
                found.update(spaced[start:end] if number == self._unknown else "")
        return encoded.ids, found

    def encode(self, text: str) -> list[int]:
        """Cleaned text as token numbers."""
        return self.examine(text)[0]

    def unknown(self, text: str) -> Counter[str]:
        """The characters of the cleaned text that no token stands for, with their number."""
        return self.examine(text)[1]

    def decode(self, ids: Sequence[int]) -> str:
        """Token numbers as text, without stop and unknown tokens."""
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False).replace(" ", "")
        for token, shown in ((SPACE, " "), (STOP, ""), (UNKNOWN, "")):
            text = text.replace(token, shown)
        return text


class CharacterTokenizer:
    """One token a character, in the order of Tacotron's symbols: DL-Art-School's use_bpe_tokenizer: false.

    Token 0 is the padding; then ``-``, punctuation, capital and small letters.
    """

    symbols = "_-!'(),.:;? ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

    def __init__(self, cleaner: Cleaner = "english") -> None:
        self.cleaner: Cleaner = cleaner
        self.num_tokens = len(self.symbols)
        self._numbers = {symbol: number for number, symbol in enumerate(self.symbols) if number}

    def examine(self, text: str) -> tuple[list[int], Counter[str]]:
        """Cleaned text as token numbers, and the characters that no token stands for, with their number."""
        cleaned = clean(text, self.cleaner)
        ids = [self._numbers[character] for character in cleaned if character in self._numbers]
        return ids, Counter(character for character in cleaned if character not in self._numbers)

    def encode(self, text: str) -> list[int]:
        """Cleaned text as token numbers; characters that have none are left out (see `unknown`)."""
        return self.examine(text)[0]

    def decode(self, ids: Sequence[int]) -> str:
        """Token numbers as text, without padding."""
        return "".join(self.symbols[number] for number in ids if number)

    def unknown(self, text: str) -> Counter[str]:
        """The characters of the cleaned text that no token stands for, with their number."""
        return self.examine(text)[1]


def unknown_report(tokenizer: TextTokenizer, texts: Iterable[str]) -> list[str]:
    """Which characters of these texts no token stands for, in lines for people: the most frequent first.

    Returns:
        ``'é' U+00E9: 12 times in 9 of 300 texts``; nothing where all are known.
    """
    times: Counter[str] = Counter()
    num_texts: Counter[str] = Counter()
    total = 0
    for text in texts:
        total += 1
        found = tokenizer.unknown(text)
        times.update(found)
        num_texts.update(found.keys())
    return [
        f"{character!r}{f' U+{ord(character):04X}' if len(character) == 1 else ''}: {count} times in "
        f"{num_texts[character]} of {total} texts"
        for character, count in times.most_common()
    ]


def _read(file: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TokenizerError(f"tokenizer_vocab: {file} cannot be read: {reason}") from error
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception for whatever is wrong with a file
        raise TokenizerError(
            f"tokenizer_vocab: {file} is not a tokenizer of the tokenizers library ({error}); "
            "scripts/train_tokenizer.py makes one"
        ) from error
