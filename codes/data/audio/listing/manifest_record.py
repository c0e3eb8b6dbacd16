"""One object of a list of audio files, read with messages that say where it stands and what is wrong with it."""

import math
from dataclasses import dataclass
from typing import Any


class ManifestError(ValueError):
    """A list of audio files that cannot be read; the message names the file and the line or key."""


@dataclass(frozen=True)
class Record:
    """A JSON object of a manifest.

    Args:
        values: the object.
        where: the manifest and the line or key, for messages.
        key: the file's name where the manifest is one object of files, whose values stand under "".
    """

    values: dict[str, Any]
    where: str
    key: str | None = None

    @classmethod
    def of(cls, value: Any, where: str, what: str = "") -> "Record":
        """The record of a value that must be an object; ``what`` it is, for the message.

        Raises:
            ManifestError: it is something else.
        """
        if not isinstance(value, dict):
            label = f"{what} is" if what else "is"
            raise ManifestError(f"{where}: {label} {_short(value)}; an object {{...}} is wanted")
        return cls(value, where)

    def inner(self, key: str) -> "Record":
        """The record of an object inside this one."""
        return Record.of(self.values.get(key), self.where, key)

    def file_name(self, key: str | None = None) -> str:
        """The path of a file: the value of a key, or the record's own key."""
        if key is None:
            return Record({"the name of the file": self.key}, self.where).file_name("the name of the file")
        wanted = "a text without NUL"
        return self._get(key, wanted, lambda value: isinstance(value, str) and value != "" and "\0" not in value)

    def count(self, key: str) -> int:
        """A whole number from 1 on."""
        return self._get(key, "a whole number from 1 on", lambda value: isinstance(value, int) and value > 0)

    def seconds(self, key: str) -> float:
        """A number from 0 on."""
        return self._get(key, "a number from 0 on", lambda value: math.isfinite(value) and value >= 0)

    def listed(self, key: str) -> list[Any]:
        """A list that is not empty."""
        return self._get(key, "a list", lambda value: isinstance(value, list) and bool(value))

    def named(self) -> str:
        """Its keys, for messages."""
        return f"the keys {', '.join(sorted(map(str, self.values)))}" if self.values else "no keys"

    def _get(self, key: str, wanted: str, is_good: Any) -> Any:
        if key not in self.values:
            raise ManifestError(f"{self.where}: lacks {key!r}; it has {self.named()}")
        value = self.values[key]
        try:
            good = not isinstance(value, bool) and is_good(value)
        except (TypeError, OverflowError):
            good = False
        if not good:
            label = f"{key} is " if key else "is "
            raise ManifestError(f"{self.where}: {label}{_short(value)}; {wanted} is wanted")
        return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
