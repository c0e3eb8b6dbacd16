"""What a dataset of speech does not take, counted by reason, with file and row of the first few."""

import logging
from collections.abc import Iterator

logger = logging.getLogger(__name__)

_MOST_NAMED = 4


class LeftOut:
    """Recordings that are not taken; never in silence.

    Attributes:
        counts: reason -> how many.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._named: dict[str, list[str]] = {}

    def add(self, reason: str, where: str) -> None:
        """One more for that reason; ``where`` is its file and row."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        named = self._named.setdefault(reason, [])
        if len(named) < _MOST_NAMED:
            named.append(where)

    def lines(self) -> Iterator[str]:
        """``left out: 3 longer than 255995 samples (metadata.csv:7, ...)``, one line a reason."""
        for reason, count in self.counts.items():
            more = f" and {count - _MOST_NAMED} more" if count > _MOST_NAMED else ""
            yield f"left out: {count} {reason} ({', '.join(self._named[reason])}{more})"

    def report(self, notes: list[str]) -> None:
        """Write the lines to a dataset's notes and to the log, once."""
        for line in self.lines():
            if line not in notes:
                notes.append(line)
                logger.warning(line)
