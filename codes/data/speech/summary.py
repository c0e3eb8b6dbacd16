"""What came of a preparation: counted from the lines of clips.jsonl, in lines for people."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Summary:
    """What came of it.

    Args:
        num_recordings: how many were read.
        seconds: their duration.
        num_clips: how many were kept.
        clip_seconds: their duration.
        num_texts: clips with text.
        speakers: their clips.
        left_out: reason -> pieces.
        left_out_seconds: reason -> their duration.
        errors: recordings that cannot be read, and why.
    """

    num_recordings: int = 0
    seconds: float = 0.0
    num_clips: int = 0
    clip_seconds: float = 0.0
    num_texts: int = 0
    speakers: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    left_out_seconds: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def add(self, record: dict[str, Any]) -> None:
        """Count a line of clips.jsonl."""
        if "finished" in record:
            self.num_recordings += bool(record["finished"])
            self.seconds += record["seconds"]
            if not record["finished"]:
                self.errors.append(record["error"])
        elif "left_out" in record:
            self.left_out[record["left_out"]] += 1
            self.left_out_seconds[record["left_out"]] += record["seconds"]
        else:
            self.num_clips += 1
            self.clip_seconds += record["seconds"]
            self.num_texts += bool(record.get("text"))
            self.speakers[record["speaker"]] += 1

    def lines(self) -> list[str]:
        """For people."""
        lines = [
            f"recordings: {self.num_recordings}, {self.seconds / 60:.2f} min",
            f"clips: {self.num_clips}, {self.clip_seconds / 60:.2f} min, of {len(self.speakers)} speaker"
            f"{'' if len(self.speakers) == 1 else 's'}; {self.num_texts} with text",
        ]
        for reason, count in self.left_out.most_common():
            lines.append(f"left out: {count} {reason}, {self.left_out_seconds[reason] / 60:.2f} min")
        return [*lines, *(f"cannot be read: {error}" for error in self.errors)]
