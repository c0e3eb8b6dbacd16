"""What training does about a file that cannot be read, where that is asked for: count it, and draw another item."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from codes.data.audio.reader import AudioReadError
from codes.data.dataset import SKIPPED

_MOST_REDRAWS = 20


def first_readable(attempts: Iterator[tuple[Path, Callable[[], dict[str, Any]]]]) -> dict[str, Any]:
    """The first item that can be made, with the errors of those before it under `SKIPPED`.

    Args:
        attempts: endless: a file, and what makes an item of it; drawn one after the other as they are needed.

    Raises:
        AudioReadError: too many in a row cannot be read.
    """
    errors: list[tuple[str, str]] = []
    for path, make in islice(attempts, _MOST_REDRAWS + 1):
        try:
            item = make()
        except AudioReadError as error:
            errors.append((str(path), str(error)))
        else:
            return {**item, SKIPPED: [*errors, *item.get(SKIPPED, [])]}
    raise AudioReadError(f"{len(errors)} items in a row could not be read; the last: {errors[-1][1]}")
