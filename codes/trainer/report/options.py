"""The experiments of a report: what differs between them, and each as it ran."""

from collections.abc import Sequence
from html import escape
from typing import Any

from codes.trainer.report.record import Record
from codes.trainer.run_folder import flatten

_ABSENT = object()
_OWN = ("name", "path.root")  # of every run, and no difference


def differing(runs: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """(dotted key, each run's value as text) of every key whose values are not all the same."""
    flat = [flatten(run.options) for run in runs]
    rows = []
    for key in dict.fromkeys(key for options in flat for key in options):
        values = [options.get(key, _ABSENT) for options in flat]
        if key not in _OWN and any(value != values[0] or type(value) is not type(values[0]) for value in values):
            rows.append((key, [_text(value) for value in values]))
    return rows


def _text(value: Any) -> str:
    if value is _ABSENT:
        return "not set"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def differences_table(runs: Sequence[Record]) -> str:
    """The differing keys as a table; a sentence where there are none."""
    rows = differing(runs)
    if not rows:
        return "<p>The experiments have the same options.</p>"
    head = "".join(f'<th class="run-{n}">{escape(run.name)}</th>' for n, run in enumerate(runs))
    body = "".join(
        f'<tr><td class="key-name">{escape(key)}</td>'
        + "".join(f'<td class="key-name">{escape(value)}</td>' for value in values)
        + "</tr>"
        for key, values in rows
    )
    return f'<div class="scroll"><table><tr><th>key</th>{head}</tr>{body}</table></div>'


def whole_text(run: Record, others: Sequence[Record]) -> str:
    """A run's options.yml to unfold; lines that no other run has in the same words are marked."""
    known = [set(other.text.splitlines()) for other in others]
    lines = [
        f"<mark>{escape(line)}</mark>" if any(line not in lines for lines in known) else escape(line)
        for line in run.text.splitlines()
    ]
    return f"<details><summary>{escape(run.name)}: options.yml</summary><pre>{chr(10).join(lines)}</pre></details>"
