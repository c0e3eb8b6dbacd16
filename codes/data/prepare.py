"""What ``python scripts/prepare_NAME.py`` does: download a corpus, check it, unpack it, say how to go on.

A corpus whose licence allows that is described by its files (`Download`); one that a person must ask for, by the steps
to take.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from codes.data.archives import ArchiveError, extract
from codes.data.download import DownloadError, Remote, download


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file of a corpus.

    Args:
        part: what it is called on the command line; files of one name belong together.
        remote: where it is.
        into: the folder below DIR that it goes to; "" for DIR itself.
        gives: a path below DIR that is there once it is done.
        most_bytes: it does not unpack to more than this; None: it is no archive, and is kept as it is.
    """

    part: str
    remote: Remote
    gives: str
    into: str = ""
    most_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How a corpus is prepared.

    Args:
        name: what it is called.
        script: the NAME of prepare_NAME.py.
        licence: under which it is published.
        downloads: its files.
        default: the parts that are downloaded unless others are named; None: all.
        terms: steps and terms that a person must have read; where they are given, nothing is downloaded without
            --accept-terms.
        dataset: the module of its dataset; default that of the same name.
    """

    name: str
    script: str
    licence: str
    downloads: tuple[Download, ...]
    default: tuple[str, ...] | None = None
    terms: str | None = None
    dataset: str | None = None


def main(preparation: Preparation, arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0; 1 where it failed; 2 for wrong use."""
    options = _parser(preparation).parse_args(arguments)
    if preparation.terms and not options.accept_terms:
        print(preparation.terms)
        return 0
    if options.folder is None:
        print(f"prepare_{preparation.script}.py: error: name the folder to download into", file=sys.stderr)
        return 2
    wanted = options.parts or preparation.default or _parts(preparation)
    print(f"{preparation.name}: {preparation.licence}")
    try:
        for item in preparation.downloads:
            if item.part in wanted:
                _prepare(item, options)
    except (DownloadError, ArchiveError) as error:
        print(f"prepare_{preparation.script}.py: error: {error}", file=sys.stderr)
        return 1
    dataset = preparation.dataset or preparation.script
    print(f"look at it with: python -m codes.data.audio.{dataset} --path {options.folder}")
    return 0


def _parser(preparation: Preparation) -> argparse.ArgumentParser:
    parts = _parts(preparation)
    default = ", ".join(preparation.default or parts)
    parser = argparse.ArgumentParser(
        prog=f"prepare_{preparation.script}.py",
        description=f"Download {preparation.name} ({preparation.licence}), check it and unpack it. A download that was "
        "cut goes on where it stopped.",
    )
    needed = "?" if preparation.terms else None
    parser.add_argument("folder", nargs=needed, type=Path, metavar="DIR", help="the folder that it goes into")
    parser.add_argument(
        "--parts", nargs="+", choices=parts, metavar="PART", help=f"of {', '.join(parts)} (default: {default})"
    )
    parser.add_argument("--url", metavar="BASE", help="take the files from BASE/NAME instead of the published address")
    parser.add_argument("--no-checksum", action="store_true", help="take files whose checksum is another one")
    parser.add_argument("--keep-archives", action="store_true", help="do not delete what was unpacked")
    parser.add_argument("--attempts", type=int, default=5, help="in a row, before giving up (default: %(default)s)")
    if preparation.terms:
        parser.add_argument("--accept-terms", action="store_true", help="I have read the terms: download")
    return parser


def _parts(preparation: Preparation) -> list[str]:
    return list(dict.fromkeys(item.part for item in preparation.downloads))


def _prepare(item: Download, options: argparse.Namespace) -> None:
    """Download and unpack one file, unless that is done already."""
    folder: Path = options.folder
    target = folder / item.into
    if (folder / item.gives).exists():
        print(f"{folder / item.gives}: is there already")
        return
    remote = item.remote
    if options.url:
        remote = replace(remote, url=f"{options.url.rstrip('/')}/{remote.file_name}")
    if options.no_checksum:
        remote = replace(remote, sha256=None, md5=None, num_bytes=None)
    attempts = max(1, options.attempts)
    if item.most_bytes is None:
        download(remote, target, attempts=attempts, progress=True)
    else:
        archive = download(remote, folder, attempts=attempts, progress=True)
        extract(archive, target, most_bytes=item.most_bytes, progress=True)
        if not options.keep_archives:
            archive.unlink()
    if not (folder / item.gives).exists():
        raise ArchiveError(f"{remote.url} is not what it was: {item.gives} is not in {folder} after unpacking it")
    print(folder / item.gives)
