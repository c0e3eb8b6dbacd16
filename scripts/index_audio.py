"""List the audio in folders: frames, rate, depth, channels, format and hash of every file.

    python scripts/index_audio.py DIR [DIR ...] [--out FILE] [--format KIND] [--known FILE] [--no-hashes]

The list goes to stdout or to --out, a summary to stderr. Where --out is an index already, only files that changed are
read again. A list of files (.json, .jsonl, either with .gz) may stand for a folder: an index, lengths or Trilobyte
JSON, audiocraft, NeMo or lhotse. Exit status: 0; 1 where files could not be read, which are named on stderr; 2 for
wrong use.
"""

import argparse
import collections
import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.console import write_out
from codes.data.audio.listing.index import Index, build_index
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.listing.manifest_writer import WRITERS, manifest_text, write_manifest
from codes.data.audio.listing.walk import no_audio_message

_STATUS = "exit status: 0; 1 where files could not be read (the list of the others is written); 2 for wrong use"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    known = options.known or (options.out if options.format == "jsonl" else None)
    try:
        _check_places(options)
        index = build_index(
            options.paths,
            known=known,
            hashes=options.hashes,
            workers=options.workers,
            progress=True,
            float_bits=options.float_bits,
            manifest_root=options.root,
        )
        if not index.entries and not index.errors:
            raise ValueError(no_audio_message(options.paths, index.left_out))
        if options.out is None:
            write_out(manifest_text(options.format, _named(index.entries, options)))
        elif options.out != known:
            write_manifest(options.out, options.format, _named(index.entries, options))
    except (ValueError, OSError) as error:
        print(_printable(f"{parser.prog}: error: {error}"), file=sys.stderr)
        return 2
    for line in _summary(index):
        print(_printable(line), file=sys.stderr)
    return 1 if index.errors else 0


def _check_places(options: argparse.Namespace) -> None:
    """Refuse places that cannot be meant before anything is read."""
    out, root = options.out, options.root
    if out is not None and not out.absolute().parent.is_dir():
        raise ValueError(f"--out: the folder {out.absolute().parent} does not exist")
    if out is not None and out.is_dir():
        raise ValueError(f"--out: {out} is a folder, give the name of a file in it")
    if out is not None and not out.name.lower().endswith((".json", ".jsonl", ".json.gz", ".jsonl.gz")):
        print(f"note: {out.name} is taken for a list, as a dataset's path, only with .json or .jsonl", file=sys.stderr)
    if root is not None and not root.is_dir():
        raise ValueError(f"--root: {root} is not a folder")


def _named(entries: list[IndexEntry], options: argparse.Namespace) -> list[IndexEntry]:
    """The entries, by their whole paths where names relative to several folders would fit no place."""
    if len(options.paths) == 1 or options.format not in ("lengths", "trilobyte"):
        return entries
    return [dataclasses.replace(entry, relative=str(entry.path.absolute())) for entry in entries]


def _parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="index_audio.py", description=about, epilog=_STATUS)
    parser.add_argument("paths", nargs="+", metavar="DIR", help="folders, audio files, lists of audio files")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the list goes (default: stdout)")
    parser.add_argument("--format", choices=sorted(WRITERS), default="jsonl", help="its form (default: %(default)s)")
    parser.add_argument("--no-hashes", dest="hashes", action="store_false", help="do not read the files through")
    parser.add_argument("--workers", type=int, metavar="N", help="how many files are read at a time")
    parser.add_argument("--known", type=Path, metavar="FILE", help="an index to take from, and to keep up to date")
    parser.add_argument("--float-bits", type=int, metavar="BITS", help="depth to read floating point samples at")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where relative paths in lists begin")
    return parser


def _summary(index: Index) -> Iterator[str]:
    for message in index.errors.values():
        yield f"cannot be read: {message}"
    yield from index.notes
    for reason, paths in sorted(index.left_out.items()):
        yield f"left out: {_files(len(paths))} {reason}"
    infos = [entry.info for entry in index.entries]
    hours = sum(entry.seconds for entry in index.entries) / 3600
    known = f", {index.num_known} of them unchanged since the earlier index" if index.num_known else ""
    yield f"found: {_files(len(infos))}, {hours:.2f} hours{known}"
    yield from _counted("rate", [f"{info.sample_rate_hz} Hz" for info in infos])
    yield from _counted("depth", [f"{info.bits} bits" for info in infos])
    yield from _counted("channels", [str(info.num_channels) for info in infos])
    yield from _counted("format", [info.format for info in infos])
    yield from _counted("errors", [_reason(path, message) for path, message in index.errors.items()])


def _counted(name: str, values: list[str]) -> Iterator[str]:
    counts = collections.Counter(values).most_common()
    if counts:
        yield f"{name}: " + ", ".join(f"{value} ({count})" for value, count in counts)


def _reason(path: Path, message: str) -> str:
    """What is wrong, without the figures and names that differ from file to file."""
    if not message.startswith(f"{path}: "):
        return "not as the list says"
    return re.sub(r"\d+", "N", re.split(r"[:;,(]", message[len(f"{path}: ") :])[0].strip())


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"


def _printable(text: str) -> str:
    """Names that are no valid UTF-8 would stop print."""
    return text.encode("utf-8", "backslashreplace").decode()


if __name__ == "__main__":
    sys.exit(main())
