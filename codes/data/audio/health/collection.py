"""Findings about files together: rates, channels and depths that differ, duplicates, leaks, what was left out."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from codes.data.audio.health.diagnosis import FileReport, Finding, Plan, Side
from codes.data.audio.listing.index_entry import IndexEntry

_MOST_NAMES = 4  # of one side of a leak


def with_sides(files: list[FileReport], plan: Plan) -> tuple[list[FileReport], list[Finding]]:
    """The files, each with the side of the split that the datasets would put it on.

    Files whose header can be read are divided, as the datasets do: they only find out later which do not decode.
    """
    found = [
        IndexEntry(path=file.path, relative=file.relative, info=file.info) for file in files if file.info is not None
    ]
    if not found:
        return files, []
    try:
        train, val = plan.split.files(found)
    except ValueError as error:
        advice = "split: interval holds out a stretch of each file; val_fraction: 0 takes no validation"
        option = "split: interval"
        if plan.split.by == "list":
            advice, option = "name files that are there, relative to the folder", f"val_list: {plan.split.val_list}"
        return files, [Finding(kind="no_split", severity="error", what=str(error), advice=advice, option=option)]
    in_train, in_val = {file.path for file in train}, {file.path for file in val}

    def side(path: Path) -> Side:
        if path in in_train:
            return "both" if path in in_val else "train"
        return "val" if path in in_val else "none"

    return [replace(file, side=side(file.path)) for file in files], []


def collection_findings(
    files: Sequence[FileReport], left_out: dict[str, list[Path]], remarks: Sequence[str], plan: Plan
) -> list[Finding]:
    """All that is found by looking at the files together."""
    found = [*_skipped(files, plan), *_rates(files, plan), *_channels(files, plan)]
    found += [*_depths(files), *_lossy(files), *_duplicates(files)]
    for reason, paths in sorted(left_out.items()):
        what = f"{len(paths)} {reason}"
        found.append(
            Finding(kind="left_out", severity="note", what=what, advice="nothing, if so meant", files=(*paths,))
        )
    found += [Finding(kind="remark", severity="note", what=text, advice="nothing, if so meant") for text in remarks]
    return found


def _skipped(files: Sequence[FileReport], plan: Plan) -> list[Finding]:
    """Where files are skipped, they are counted, and too many stop training.

    A dataset of either side counts all files whose header cannot be read, and those of its side that do not decode.
    """
    if plan.on_error != "skip":
        return []
    bad = [file for file in files if file.error is not None]
    if len(bad) == len(files):
        what = f"none of {len(files)} files can be read, so that skipping them leaves nothing"
        advice = "get files that can be read"
        return [Finding(kind="none_readable", severity="error", what=what, advice=advice)]
    sides = [[file for file in bad if file.info is None or file.side in (side, "both")] for side in ("train", "val")]
    worst = max(sides, key=len)
    if len(worst) <= plan.max_errors:
        return []
    option = f"max_errors: {len(worst)}"
    return [
        Finding(
            kind="too_many_errors",
            severity="error",
            what=f"{len(worst)} files cannot be read; max_errors is {plan.max_errors}",
            advice=f"mend or delete them, or {option} lets so many be left out",
            option=option,
            files=tuple(file.path for file in worst),
            values={"num_errors": len(worst), "max_errors": plan.max_errors},
        )
    ]


def _counts(files: Sequence[FileReport], key: Callable[[FileReport], int | None]) -> Counter[int]:
    return Counter(value for file in files if (value := key(file)) is not None)


def _rates(files: Sequence[FileReport], plan: Plan) -> list[Finding]:
    counts = _counts(files, lambda file: file.info.sample_rate_hz if file.info else None)
    odd = {rate for rate in counts if rate != (plan.sample_rate_hz or counts.most_common(1)[0][0])}
    if not odd:
        return []
    what = ", ".join(f"{count} of {rate} Hz" for rate, count in sorted(counts.items()))
    paths = tuple(file.path for file in files if file.info and file.info.sample_rate_hz in odd)
    values = {"counts": {str(rate): count for rate, count in sorted(counts.items())}}
    option = f"sample_rate: {plan.sample_rate_hz or counts.most_common(1)[0][0]}"
    advice = f"{option} resamples the others; with other_rates: skip they are left out"
    severity = "error" if plan.sample_rate_hz is None else "note"
    kind = "mixed_rates"
    return [Finding(kind=kind, severity=severity, what=what, advice=advice, option=option, files=paths, values=values)]


def _channels(files: Sequence[FileReport], plan: Plan) -> list[Finding]:
    counts = _counts(files, lambda file: file.info.num_channels if file.info else None)
    if len(counts) < 2:
        return []
    common = counts.most_common(1)[0][0]
    what = ", ".join(
        f"{count} of {channels} channel{'' if channels == 1 else 's'}" for channels, count in sorted(counts.items())
    )
    return [
        Finding(
            kind="mixed_channels",
            severity="note" if plan.other_channels == "skip" or plan.channels == "any" else "error",
            what=what,
            advice="channels: mono, each or duplicate takes them all, or other_channels: skip leaves some out",
            option="other_channels: skip",
            files=tuple(file.path for file in files if file.info and file.info.num_channels != common),
            values={"counts": {str(channels): count for channels, count in sorted(counts.items())}},
        )
    ]


def _depths(files: Sequence[FileReport]) -> list[Finding]:
    counts = _counts(files, lambda file: file.info.bits if file.info else None)
    if len(counts) < 2:
        return []
    what = ", ".join(f"{count} of {bits} bits" for bits, count in sorted(counts.items()))
    advice = f"bits: {max(counts)} keeps every bit; a smaller one drops the lowest"
    values = {"counts": {str(bits): count for bits, count in sorted(counts.items())}}
    return [Finding(kind="mixed_depths", severity="note", what=what, advice=advice, values=values)]


def _lossy(files: Sequence[FileReport]) -> list[Finding]:
    formats = Counter(file.info.format for file in files if file.info and file.info.lossy)
    if not formats:
        return []
    what = ", ".join(f"{count} {name}" for name, count in sorted(formats.items()))
    advice = "they are decoded to 16 bits, and hold what the coder left of the sound"
    paths = tuple(file.path for file in files if file.info and file.info.lossy)
    return [Finding(kind="lossy", severity="note", what=what, advice=advice, files=paths)]


def _duplicates(files: Sequence[FileReport]) -> list[Finding]:
    """Files of equal sound; silent ones are found already. Where they are on both sides of the split, it is a leak."""
    groups: dict[str, list[FileReport]] = {}
    for file in files:
        if file.measures is not None and file.measures.peak > 0.0:
            groups.setdefault(file.measures.pcm_hash, []).append(file)
    found = []
    for group in groups.values():
        if len(group) < 2:
            continue
        paths, sides = tuple(file.path for file in group), {file.side for file in group}
        is_same = len({file.content_hash for file in group}) == 1
        kind = "duplicate_files" if is_same else "duplicate_sound"
        what = "equal byte for byte" if is_same else "the same samples in other containers or with other tags"
        advice = "delete all but one, or they count so many times in training"
        found.append(Finding(kind=kind, severity="warning", what=what, advice=advice, files=paths))
        if {"train", "val"} <= sides:
            found.append(_leak(group))
    return found


def _some(names: list[str]) -> str:
    """The first names and how many more; all of them stand in the JSON."""
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _leak(group: list[FileReport]) -> Finding:
    train = [file.relative for file in group if file.side == "train"]
    val = [file.relative for file in group if file.side == "val"]
    return Finding(
        kind="leak",
        severity="error",
        what=f"to train: {_some(train)}; to validate: {_some(val)}",
        advice="delete all but one, or split: folder or list so that they are on one side",
        files=tuple(file.path for file in group),
        values={"train": train, "val": val},
    )
