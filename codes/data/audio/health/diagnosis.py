"""What the data doctor (`codes.data.audio.doctor`) knows: every file with its measures, every finding, the verdict."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from codes.data.audio.health.measure import Measures
from codes.data.audio.reader import AudioInfo
from codes.data.audio.splits import Split

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
Side = Literal["train", "val", "both", "none"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What training will be told; each is the dataset's option of that name.

    Args:
        split: how the dataset will divide the files.
        sample_rate_hz: the option ``sample_rate``; None: the files must have one rate.
        on_error: "fail": a file that cannot be read stops training; "skip": it is left out.
        max_errors: with on_error "skip": more files than this that cannot be read stop training.
        other_channels: "refuse": files of unlike channels stop training; "skip": some are left out.
        channels: "exact": files must have the channels that the dataset needs; "any": it takes what there is (its
            option ``channels`` is mono, each, duplicate, or select).
        float_bits: the depth for files of floating point samples; None: they cannot be read.
    """

    split: Split = field(default_factory=Split)
    sample_rate_hz: int | None = None
    on_error: Literal["fail", "skip"] = "fail"
    max_errors: int = 100
    other_channels: Literal["refuse", "skip"] = "refuse"
    channels: Literal["exact", "any"] = "exact"
    float_bits: int | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, or worth to know.

    Args:
        kind: a short name, such as "clipping"; `TITLES` has them all.
        severity: "error": training would stop or be wrong; "warning": the quality suffers; "note": good to know.
        what: what is wrong.
        advice: what to do, with the option of the YAML that does it.
        option: that option alone, as in "on_error: skip"; "" where none helps.
        files: the files that it is about; none where it is about all.
        values: the figures behind it.
    """

    kind: str
    severity: Severity
    what: str
    advice: str
    option: str = ""
    files: tuple[Path, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)


TITLES = {
    "unreadable": "cannot be opened",
    "empty": "empty",
    "not_audio": "not audio, or of a kind that is not read",
    "floating_point": "floating point samples",
    "truncated": "truncated",
    "broken": "broken",
    "too_many_errors": "too many files that cannot be read",
    "none_readable": "no file can be read",
    "mixed_rates": "several sample rates",
    "mixed_channels": "several numbers of channels",
    "no_split": "cannot be split",
    "leak": "the same sound in train and val",
    "silent": "silent from end to end",
    "quiet": "very quiet",
    "silence": "much digital silence",
    "dead_channel": "a channel without sound",
    "fake_stereo": "channels that are one signal",
    "clipping": "clipping",
    "offset": "DC offset",
    "band_limited": "empty upper band",
    "padded_bits": "fewer real bits than the format says",
    "few_values": "few different values",
    "duplicate_files": "the same file twice",
    "duplicate_sound": "the same sound in different files",
    "mixed_depths": "several bit depths",
    "lossy": "lossy formats",
    "left_out": "left out",
    "remark": "remarks",
}


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """A file: ``info`` is None where its header cannot be read, ``measures`` where it cannot be decoded to its end.

    ``side`` is where the split puts it.
    """

    path: Path
    relative: str
    size_bytes: int = 0
    content_hash: str | None = None
    info: AudioInfo | None = None
    measures: Measures | None = None
    error: str | None = None
    side: Side = "none"

    @property
    def seconds(self) -> float:
        """Its duration; 0 where that is unknown."""
        return self.info.num_frames / self.info.sample_rate_hz if self.info else 0.0


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All that was found out about some folders; ``findings`` with the worst first."""

    roots: list[Path]
    plan: Plan
    files: list[FileReport]
    findings: list[Finding]
    left_out: dict[str, list[Path]]
    wall_seconds: float

    @property
    def readable(self) -> list[FileReport]:
        """The files that decode to their end."""
        return [file for file in self.files if file.measures is not None]

    def count(self, severity: Severity) -> int:
        """How many findings there are of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def is_safe(self, *, strict: bool = False) -> bool:
        """Whether training can begin: no errors, and with ``strict`` no warnings either."""
        return self.count("error") == 0 and not (strict and self.count("warning"))

    def groups(self) -> list[list[Finding]]:
        """The findings of one severity, kind and advice together, in order."""
        grouped: dict[tuple[str, str, str], list[Finding]] = {}
        for finding in self.findings:
            grouped.setdefault((finding.severity, finding.kind, finding.advice), []).append(finding)
        return list(grouped.values())

    def name(self, path: Path) -> str:
        """A file as people should see it: its path below the folder that was examined."""
        return name_below(self.roots, path)


def name_below(roots: list[Path], path: Path) -> str:
    """A path below the first of these folders that it lies in, "/" between parts; as it is where it lies in none."""
    for root in roots:
        if path.is_relative_to(root) and path != root:
            return path.relative_to(root).as_posix()
    return str(path)


def in_order(findings: list[Finding]) -> list[Finding]:
    """The worst first, then by kind as in `TITLES`, then as they came."""
    kinds = list(TITLES)
    return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), kinds.index(finding.kind)))


def verdict(diagnosis: Diagnosis, *, strict: bool = False) -> str:
    """In words: whether it is safe to train, and what to change."""
    errors, warnings = diagnosis.count("error"), diagnosis.count("warning")
    if errors:
        return f"Not safe to train: {_counted(errors, 'error')}. Change: {_changes(diagnosis)}."
    sound = f"all {len(diagnosis.readable)} readable files decode to their end"
    if not warnings:
        return f"Safe to train: {sound}, and no problem was found."
    what = f"{_counted(warnings, 'warning')} about quality: {_kinds(diagnosis, 'warning')}"
    if strict:
        return f"Not safe to train, as --strict counts warnings: {what}."
    return f"Safe to train: {sound}. But look at {what}."


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _changes(diagnosis: Diagnosis) -> str:
    """The options that undo the errors, and how many errors each; the advice where no option does."""
    changes: dict[str, int] = {}
    for finding in diagnosis.findings:
        if finding.severity == "error":
            change = finding.option or finding.advice
            changes[change] = changes.get(change, 0) + 1
    return "; ".join(f"{change} ({_counted(count, 'error')})" for change, count in changes.items())


def _kinds(diagnosis: Diagnosis, severity: Severity) -> str:
    counts: dict[str, int] = {}
    for finding in diagnosis.findings:
        if finding.severity == severity:
            counts[finding.kind] = counts.get(finding.kind, 0) + 1
    return ", ".join(f"{TITLES[kind]} ({count})" for kind, count in counts.items())
