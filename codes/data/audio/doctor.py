"""The data doctor: everything about folders of audio that should be known before training with them.

    python -m codes.data.audio.doctor DIR [DIR ...] [--json FILE] [--picture FILE] [--split KIND --val-fraction F]
        [--sample-rate HZ] [--on-error skip] [--max-errors N] [--channels any] [--strict] [--workers N]

Every file is decoded from end to end, in bounded memory. What is wrong is listed with the worst first, each with the
option of the YAML that helps. The options that have a name of the YAML say what training will be told.

Exit status: 0: training is safe; 1: there are errors (with --strict: or warnings); 2: wrong use.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

from codes.data.audio.health.as_json import write_json
from codes.data.audio.health.as_picture import picture
from codes.data.audio.health.as_text import print_diagnosis, printable
from codes.data.audio.health.collection import collection_findings, with_sides
from codes.data.audio.health.diagnosis import Diagnosis, FileReport, Plan, in_order, name_below
from codes.data.audio.health.findings import error_finding, file_findings
from codes.data.audio.health.measure import Measures, measure
from codes.data.audio.listing.file_progress import FileProgress
from codes.data.audio.listing.index import build_index
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.listing.walk import no_audio_message
from codes.data.audio.picture import save_png
from codes.data.audio.reader import AudioReadError
from codes.data.audio.splits import Split, SplitKind


def diagnose(
    paths: Sequence[str | os.PathLike[str]],
    *,
    plan: Plan | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> Diagnosis:
    """Examine all audio files in these folders and below, those of these paths that are files, and those in lists.

    Args:
        paths: folders, audio files, lists of audio files (see `codes.data.audio.listing.manifests`).
        plan: what training will be told.
        workers: how many files are examined at a time (default: one a core).
        progress: show how far it has come, on stderr.

    Raises:
        FileNotFoundError: one of ``paths`` does not exist.
        ValueError: there is no audio file, readable or not; a list cannot be read as one; ``workers`` is below 1.
    """
    started = time.monotonic()
    plan = plan or Plan()
    index = build_index(paths, workers=workers, progress=progress, float_bits=plan.float_bits)
    if not index.entries and not index.errors:
        raise ValueError(no_audio_message(paths, index.left_out))
    roots = [Path(path).expanduser().absolute() for path in paths]
    bad = [
        FileReport(path=path, relative=name_below(roots, path), error=message) for path, message in index.errors.items()
    ]
    examined = _examine(index.entries, plan, workers or os.cpu_count() or 1, progress)
    files, findings = with_sides([*bad, *examined], plan)
    for file in files:
        findings += [error_finding(file.path, file.error, plan)] if file.error is not None else file_findings(file)
    findings += collection_findings(files, index.left_out, index.notes, plan)
    return Diagnosis(
        roots=roots,
        plan=plan,
        files=files,
        findings=in_order(findings),
        left_out=index.left_out,
        wall_seconds=time.monotonic() - started,
    )


def _examine(entries: list[IndexEntry], plan: Plan, workers: int, progress: bool) -> list[FileReport]:
    """Decode what has a header that can be read; threads do, as decoders and numpy let each other work."""

    def examine(entry: IndexEntry) -> Measures | AudioReadError:
        try:
            return measure(entry.path, float_bits=plan.float_bits, known=entry.info)
        except AudioReadError as error:
            return error
        finally:
            bar.advance()

    with FileProgress("examining", len(entries), shown=progress) as bar, ThreadPoolExecutor(workers) as pool:
        try:
            return [_report(entry, result) for entry, result in zip(entries, pool.map(examine, entries), strict=True)]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _report(entry: IndexEntry, result: Measures | AudioReadError) -> FileReport:
    is_broken = isinstance(result, AudioReadError)
    return FileReport(
        path=entry.path,
        relative=entry.relative,
        size_bytes=entry.size_bytes,
        content_hash=entry.content_hash,
        info=entry.info,
        measures=None if is_broken else result,
        error=str(result) if is_broken else None,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        _check_outputs(options)
        diagnosis = diagnose(options.paths, plan=_plan(options), workers=options.workers, progress=True)
        print_diagnosis(diagnosis, strict=options.strict, most=options.most)
        if options.json is not None:
            write_json(options.json, diagnosis, strict=options.strict)
        if options.picture is not None:
            save_png(options.picture, picture(diagnosis))
    except (ValueError, OSError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 2
    return 0 if diagnosis.is_safe(strict=options.strict) else 1


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        split=Split(
            by=options.split,
            val_fraction=options.val_fraction,
            seed=options.split_seed,
            val_list=options.val_list,
            val_position=options.val_position,
        ),
        sample_rate_hz=options.sample_rate,
        on_error=options.on_error,
        max_errors=options.max_errors,
        other_channels=options.other_channels,
        channels=options.channels,
        float_bits=options.float_bits,
    )


def _check_outputs(options: argparse.Namespace) -> None:
    """Complain about what cannot be written before the long work, not after it."""
    for path in (options.json, options.picture):
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"{path} cannot be written: {path.parent} is not a folder")
    if options.most < 1:
        raise ValueError(f"--most is {options.most}, it must be at least 1")
    if options.max_errors < 0:
        raise ValueError(f"--max-errors is {options.max_errors}, it must be at least 0")
    if options.float_bits is not None and not 8 <= options.float_bits <= 32:
        raise ValueError(f"--float-bits is {options.float_bits}, it must be 8 to 32")
    if options.sample_rate is not None and options.sample_rate < 1:
        raise ValueError(f"--sample-rate is {options.sample_rate}, it must be at least 1")


def _parser() -> argparse.ArgumentParser:
    name, lines = "python -m codes.data.audio.doctor", (__doc__ or "").split("\n")
    parser = argparse.ArgumentParser(prog=name, description=lines[0], epilog=lines[-2], allow_abbrev=False)
    add = parser.add_argument
    add("paths", nargs="+", metavar="DIR", help="folders, audio files, lists of audio files")
    add("--json", type=Path, metavar="FILE", help="write everything as JSON (keys: codes/data/audio/health/as_json.py)")
    add("--picture", type=Path, metavar="FILE", help="draw an overview as PNG")
    add("--strict", action="store_true", help="warnings count as errors")
    add("--workers", type=int, metavar="N", help="how many files are examined at a time (default: one a core)")
    add("--most", type=int, default=10, metavar="N", help="how many findings of a kind are printed (%(default)s)")
    told = parser.add_argument_group("what training will be told (the dataset's options of these names)")
    add = told.add_argument
    add("--split", choices=get_args(SplitKind), default="file", help="how files are divided (%(default)s)")
    add("--val-fraction", type=float, default=0.1, metavar="F", help="share that validates (%(default)s)")
    add("--split-seed", type=int, default=0, metavar="N", help="which files those are (%(default)s)")
    add("--val-list", type=Path, metavar="FILE", help="for --split list: names the files that validate")
    add("--val-position", type=float, default=0.5, metavar="P", help="for --split interval (%(default)s)")
    add("--sample-rate", type=int, metavar="HZ", help="the rate that all are brought to")
    add("--on-error", choices=("fail", "skip"), default="fail", help="what files that cannot be read do (%(default)s)")
    add("--max-errors", type=int, default=100, metavar="N", help="how many --on-error skip takes (%(default)s)")
    add("--other-channels", choices=("refuse", "skip"), default="refuse", help="files of unlike channels (%(default)s)")
    add("--channels", choices=("exact", "any"), default="exact", help="any: all numbers of channels fit (%(default)s)")
    add("--float-bits", type=int, metavar="BITS", help="the depth to read floating point samples at")
    return parser


if __name__ == "__main__":
    sys.exit(main())
