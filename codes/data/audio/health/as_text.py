"""A diagnosis as text for a terminal: what there is, what is wrong with the worst first, and the verdict.

In colours and aligned columns where the output is a terminal, plain lines elsewhere.
"""

import sys
from collections.abc import Callable
from typing import Any, TextIO

from codes.data.audio.health.diagnosis import TITLES, Diagnosis, FileReport, Finding, verdict

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_MOST_NAMES = 3
_KINDS_OF_COUNTS: dict[str, Callable[[FileReport], str]] = {
    "rate": lambda file: f"{file.info.sample_rate_hz} Hz" if file.info else "",
    "depth": lambda file: f"{file.info.bits} bits" if file.info else "",
    "channels": lambda file: str(file.info.num_channels) if file.info else "",
    "format": lambda file: file.info.format if file.info else "",
    "split": lambda file: {"train": "to train", "val": "to validate", "both": "on both sides"}.get(file.side, ""),
}


def print_diagnosis(
    diagnosis: Diagnosis, *, strict: bool = False, most: int = 10, stream: TextIO | None = None
) -> None:
    """Print it.

    Args:
        diagnosis: what was found.
        strict: warnings count as errors in the verdict.
        most: how many findings of one kind are listed; the rest is counted.
        stream: where to (default: standard output).
    """
    out: TextIO = stream or sys.stdout
    if out.isatty():
        _print_rich(diagnosis, strict, most, out)
        return
    for line in _plain(diagnosis, strict, most):
        print(printable(line), file=out)


def printable(text: str) -> str:
    """Names that are no valid UTF-8 would stop print, and line breaks in them would tear the table."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\r", "\\r").replace("\n", "\\n")


def _plain(diagnosis: Diagnosis, strict: bool, most: int) -> list[str]:
    lines = [f"{name:<9} {text}" for name, text in counts(diagnosis)]
    for group in diagnosis.groups():
        lines += ["", f"{group[0].severity}: {_title(group)}", f"  {group[0].advice}"]
        rows = _rows(diagnosis, group, most)
        width = min(48, max(len(name) for name, _ in rows))
        lines += [f"    {name:<{width}}  {what}".rstrip() for name, what in rows]
    return [*lines, "", verdict(diagnosis, strict=strict)]


def _print_rich(diagnosis: Diagnosis, strict: bool, most: int, stream: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, highlight=False)
    table = Table.grid(padding=(0, 2))
    for name, text in counts(diagnosis):
        table.add_row(Text(name, "dim"), printable(text))
    console.print(table)
    for group in diagnosis.groups():
        heading = Text.assemble(
            ("\n" + group[0].severity, _STYLES[group[0].severity]), "  ", (_title(group), "bold"),
            "\n  ", (printable(group[0].advice), "italic"),
        )  # fmt: skip
        console.print(heading)
        console.print(_rich_rows(_rows(diagnosis, group, most)))
    style = "bold green" if diagnosis.is_safe(strict=strict) else "bold red"
    console.print(Text("\n" + printable(verdict(diagnosis, strict=strict)), style))


def _rich_rows(rows: list[tuple[str, str]]) -> Any:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, what in rows:
        table.add_row(Text(printable(name), "blue"), Text(printable(what)))
    return Padding(table, (0, 0, 0, 4))


def _title(group: list[Finding]) -> str:
    count = len(group)
    return TITLES[group[0].kind] + (f" ({count})" if count > 1 else "")


def _rows(diagnosis: Diagnosis, group: list[Finding], most: int) -> list[tuple[str, str]]:
    """(files, what is wrong) of each finding, and how many more there are."""
    rows = []
    for finding in group[:most]:
        names = [diagnosis.name(path) for path in finding.files[:_MOST_NAMES]]
        if len(finding.files) > _MOST_NAMES:
            names.append(f"and {len(finding.files) - _MOST_NAMES} more")
        rows.append((", ".join(names), finding.what) if names else (finding.what, ""))
    if len(group) > most:
        rows.append((f"and {len(group) - most} more", "(all of them with --json FILE or --most N)"))
    return rows


def counts(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    """What there is, in lines of a name and a text."""
    files = diagnosis.files
    seconds = sum(file.seconds for file in files)
    num_bad = len(files) - len(diagnosis.readable)
    bad = f", {num_bad} of them cannot be read to their end" if num_bad else ""
    lines = [("found", f"{len(files)} file{'' if len(files) == 1 else 's'}, {duration(seconds)}{bad}")]
    known = [file for file in files if file.info is not None]
    if known:
        lengths = sorted(file.seconds for file in known)
        middle = lengths[len(lengths) // 2]
        lines.append(("length", f"{lengths[0]:.2f} s to {lengths[-1]:.2f} s, {middle:.2f} s in the middle"))
    for name, key in _KINDS_OF_COUNTS.items():
        text = _counted(known, key)
        if text:
            lines.append((name, f"{diagnosis.plan.split.describe()}: {text}" if name == "split" else text))
    speed = seconds / max(1e-9, diagnosis.wall_seconds)
    lines.append(("examined", f"in {diagnosis.wall_seconds:.1f} s, {speed:,.0f} times real time"))
    return lines


def _counted(files: list[FileReport], key: Callable[[FileReport], str]) -> str:
    """Files and duration by some property, the commonest first."""
    groups: dict[str, list[float]] = {}
    for file in files:
        if key(file):
            groups.setdefault(key(file), []).append(file.seconds)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return "; ".join(f"{value}: {len(each)} ({duration(sum(each))})" for value, each in ordered)


def duration(seconds: float) -> str:
    """A duration in words, in the unit that fits."""
    if seconds >= 3600:
        return f"{seconds / 3600:.2f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"
