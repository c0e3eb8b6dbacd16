"""Numbers as they are read aloud in English: cardinals, ordinals, years, decimals, amounts of money.

    >>> spell_numbers("in 1905 it cost $3.50")
    'in nineteen oh five it cost three dollars, fifty cents'

Whole numbers above 1000 and below 3000 are read as years are (except 2000 to 2009); digits behind a point one by one,
as are numbers with a zero in front and those beyond any name.
"""

import re

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = (
    *("", "thousand", "million", "billion", "trillion", "quadrillion", "quintillion", "sextillion", "septillion"),
    "octillion",
)
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
_MONEY = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
_PLURALS = {"penny": "pence"}

_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)")
_AMOUNT = re.compile(r"([$£€])\s?(\d+)(?:\.(\d{1,2})(?!\d))?")
_DECIMAL = re.compile(r"(\d+)\.(\d+)")
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)\b", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")


def spell_numbers(text: str) -> str:
    """The text with its numbers in words; what stands around them stays as it is."""
    text = _GROUPED.sub(lambda match: match[0].replace(",", ""), text)
    text = _AMOUNT.sub(_spell_amount, text)
    text = _DECIMAL.sub(lambda match: f"{_spell_figures(match[1])} point {_digits(match[2])}", text)
    text = _ORDINAL.sub(lambda match: ordinal(int(match[1])), text)
    return _NUMBER.sub(lambda match: _spell_figures(match[0]), text)


def cardinal(number: int) -> str:
    """A whole number in words: 21 is "twenty-one", 1234 "one thousand, two hundred thirty-four".

    Raises:
        ValueError: below 0, or 10^30 and more, which have no name here.
    """
    if not 0 <= number < 1000 ** len(_SCALES):
        raise ValueError(f"no words for {number}, allowed are 0 to 10^{3 * len(_SCALES)} - 1")
    if number == 0:
        return _SMALL[0]
    comma = "," if number % 1000 >= 100 else ""  # none before a last part below one hundred
    last = _below_thousand(number % 1000)
    groups = []
    for scale in _SCALES[1:]:
        number //= 1000
        if number % 1000:
            groups.append(f"{_below_thousand(number % 1000)} {scale}")
    higher = ", ".join(reversed(groups))
    return f"{higher}{comma} {last}" if higher and last else higher or last


def ordinal(number: int) -> str:
    """21 is "twenty-first"."""
    words = cardinal(number)
    head, last = re.fullmatch(r"(.*?)([a-z]+)", words).groups()  # type: ignore[union-attr]
    if last in _ORDINALS:
        return head + _ORDINALS[last]
    return head + (f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th")


def _spell_figures(figures: str) -> str:
    """A number as it is written, without commas, in words."""
    if (len(figures) > 1 and figures[0] == "0") or len(figures) > 3 * len(_SCALES):
        return _digits(figures)
    number = int(figures)
    if not 1000 < number < 3000:
        return cardinal(number)
    if 2000 <= number < 2010:
        return "two thousand" + (f" {_SMALL[number - 2000]}" if number > 2000 else "")
    century, rest = divmod(number, 100)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def _spell_amount(match: re.Match[str]) -> str:
    """$3.50 is "3 dollars, 50 cents"; the figures are spelled afterwards."""
    whole_name, part_name = _MONEY[match[1]]
    whole, part = int(match[2]), int((match[3] or "0").ljust(2, "0"))
    parts = [_counted(whole, whole_name)] if whole or not part else []
    parts += [_counted(part, part_name)] if part else []
    return ", ".join(parts)


def _counted(number: int, name: str) -> str:
    words = cardinal(number) if number < 1000 ** len(_SCALES) else _digits(str(number))
    return f"{words} {name if number == 1 else _PLURALS.get(name, f'{name}s')}"


def _digits(figures: str) -> str:
    return " ".join(_SMALL[int(figure)] for figure in figures)


def _below_thousand(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    words = [f"{_SMALL[hundreds]} hundred"] if hundreds else []
    if rest:
        tens, ones = divmod(rest, 10)
        words.append(_SMALL[rest] if rest < 20 else _TENS[tens - 2] + (f"-{_SMALL[ones]}" if ones else ""))
    return " ".join(words)
