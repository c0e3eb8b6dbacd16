"""A diagnosis as JSON, with everything in it.

Keys of the whole:

- ``version``: 1
- ``roots``: the folders examined
- ``safe``, ``strict``, ``verdict``: whether training can begin, whether warnings count, and that in words
- ``counts``: findings by severity, {"error": n, "warning": n, "note": n}
- ``seconds``, ``wall_seconds``: duration of all files, and what the examination took
- ``durations``: seconds by ``sample_rate_hz``, ``bits``, ``num_channels``, ``format``, {"44100": seconds, ...} each
- ``plan``: ``split``, ``sample_rate_hz``, ``on_error``, ``max_errors``, ``other_channels``, ``channels``,
  ``float_bits``
- ``findings``: the worst first, each with ``kind``, ``severity``, ``what``, ``advice``, ``option`` (the YAML's, or ""),
  ``files`` (paths) and ``values`` (the figures behind it)
- ``left_out``: reason -> paths
- ``files``: each with ``path``, ``relative``, ``size_bytes``, ``content_hash`` (SHA-256 of its bytes), ``side`` (train,
  val, both, none), ``error`` (null, or why it cannot be read), ``info`` and ``measures`` (null where they are unknown)

``info`` has the fields of `codes.data.audio.formats.info.AudioInfo`, ``measures`` those of
`codes.data.audio.health.measure.Measures`; ``rms_db`` is null for silence.
"""

import json
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codes.data.audio.health.diagnosis import SEVERITIES, Diagnosis, FileReport, Finding, Plan, verdict
from codes.data.audio.reader import AudioInfo

VERSION = 1


def as_record(diagnosis: Diagnosis, *, strict: bool = False) -> dict[str, Any]:
    """Plain dictionaries, lists, texts and numbers; the keys stand above."""
    return {
        "version": VERSION,
        "roots": [str(root) for root in diagnosis.roots],
        "safe": diagnosis.is_safe(strict=strict),
        "strict": strict,
        "verdict": verdict(diagnosis, strict=strict),
        "counts": {severity: diagnosis.count(severity) for severity in SEVERITIES},
        "seconds": sum(file.seconds for file in diagnosis.files),
        "wall_seconds": diagnosis.wall_seconds,
        "durations": {
            "sample_rate_hz": _durations(diagnosis, lambda info: info.sample_rate_hz),
            "bits": _durations(diagnosis, lambda info: info.bits),
            "num_channels": _durations(diagnosis, lambda info: info.num_channels),
            "format": _durations(diagnosis, lambda info: info.format),
        },
        "plan": _plan(diagnosis.plan),
        "findings": [_finding(finding) for finding in diagnosis.findings],
        "left_out": {reason: [str(path) for path in paths] for reason, paths in diagnosis.left_out.items()},
        "files": [_file(file) for file in diagnosis.files],
    }


def write_json(path: Path, diagnosis: Diagnosis, *, strict: bool = False) -> None:
    """Write it, whole or not at all; in ASCII, so that names of any bytes fit.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(as_record(diagnosis, strict=strict), indent=1, allow_nan=False) + "\n"
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _durations(diagnosis: Diagnosis, key: Callable[[AudioInfo], object]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for file in diagnosis.files:
        if file.info is not None:
            name = str(key(file.info))
            seconds[name] = seconds.get(name, 0.0) + file.seconds
    return dict(sorted(seconds.items()))


def _plan(plan: Plan) -> dict[str, Any]:
    record = asdict(plan)
    record["split"]["val_list"] = str(plan.split.val_list) if plan.split.val_list else None
    return record


def _finding(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "files": [str(path) for path in finding.files]}


def _file(file: FileReport) -> dict[str, Any]:
    record = {**asdict(file), "path": str(file.path)}
    if file.measures is not None and not math.isfinite(file.measures.rms_db):
        record["measures"]["rms_db"] = None
    return record
