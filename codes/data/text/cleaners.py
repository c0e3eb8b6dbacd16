"""Text as it stands in a transcript -> text as it is spoken, in the few characters that a tokenizer knows.

``english``: plain ASCII in lower case; numbers, money, signs and abbreviations in words; without quotation marks.
``basic``: for any language: one form of each character (Unicode NFKC), lower case, plain quotes, dashes and blanks.
``none``: the text as it is, without blanks around it.

    >>> clean("Dr. Gray paid £3 in “1905”…", "english")
    'doctor gray paid three pounds in nineteen oh five...'

DL-Art-School's names (english_cleaners, basic_cleaners) mean the same. What a cleaner cannot put into ASCII it leaves
as it is: the tokenizer then reports it as an unknown character, and nothing is lost in silence.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

from codes.data.text.english_numbers import spell_numbers

Cleaner = Literal["english", "basic", "none", "english_cleaners", "basic_cleaners"]

_PUNCTUATION = {
    **dict.fromkeys("‘’‚‛ʼ′`´", "'"),
    **dict.fromkeys("“”„‟«»″", '"'),
    **dict.fromkeys("‐‑‒–—―−", "-"),
    "…": "...", "⁄": "/",
}  # fmt: skip
_LETTERS = {
    "ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L",
    "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i",
}  # fmt: skip
_PLAIN = str.maketrans(_PUNCTUATION)
_LATIN = str.maketrans(_LETTERS)
_BRACKETS = str.maketrans("[]{}", "()()")
_SIGNS = {
    "&": "and",
    "%": "percent",
    "+": "plus",
    "=": "equals",
    "@": "at",
    "#": "number",
    "°": "degrees",
}
_ABBREVIATIONS = {
    "mrs": "missus",
    "mr": "mister",
    "dr": "doctor",
    "st": "saint",
    "co": "company",
    "jr": "junior",
    "maj": "major",
    "gen": "general",
    "drs": "doctors",
    "rev": "reverend",
    "lt": "lieutenant",
    "hon": "honorable",
    "sgt": "sergeant",
    "capt": "captain",
    "esq": "esquire",
    "ltd": "limited",
    "col": "colonel",
    "ft": "fort",
}
_ABBREVIATION = re.compile(rf"\b({'|'.join(_ABBREVIATIONS)})\.")
_BLANKS = re.compile(r"\s+")
_FOREIGN = re.compile(r"[^\x00-\x7f]")


def clean(text: str, cleaner: Cleaner = "english") -> str:
    """The text as the cleaner of that name makes it."""
    return _CLEANERS[cleaner](text)


def english(text: str) -> str:
    """Lower-case ASCII without quotation marks; numbers, money, signs and abbreviations in words."""
    text = spell_numbers(to_ascii(text).lower().translate(_BRACKETS))
    for sign, word in _SIGNS.items():
        text = text.replace(sign, f" {word} ")
    text = _ABBREVIATION.sub(lambda match: _ABBREVIATIONS[match[1]], text)
    return _single_blanks(text.replace('"', ""))


def basic(text: str) -> str:
    """Lower case, one form of each character (NFKC), plain quotes, dashes and blanks; for any language."""
    return _single_blanks(unicodedata.normalize("NFKC", text).translate(_PLAIN).lower())


def to_ascii(text: str) -> str:
    """Letters without their marks, plain quotes and dashes; what has no ASCII form stays as it is."""
    if text.isascii():
        return text.translate(_PLAIN)
    text = unicodedata.normalize("NFC", text).translate(_PLAIN).translate(_LATIN)
    return _FOREIGN.sub(_ascii_form, text)


def _ascii_form(match: re.Match[str]) -> str:
    """A letter without its marks; itself, where that is not ASCII."""
    parts = unicodedata.normalize("NFKD", match[0])
    bare = "".join(part for part in parts if not unicodedata.combining(part)).translate(_PLAIN)
    return bare if bare.isascii() else match[0]


def _single_blanks(text: str) -> str:
    return _BLANKS.sub(" ", text).strip()


_CLEANERS: dict[str, Callable[[str], str]] = {
    "english": english,
    "english_cleaners": english,
    "basic": basic,
    "basic_cleaners": basic,
    "none": str.strip,
}
