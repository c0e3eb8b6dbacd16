"""Compare coders on real audio: FLAC and others, our file format, and models, in bits that were written.

    python scripts/compress.py bench DIR [DIR ...] [--csv FILE] [--run RUN ...] [--coders NAME ...] [--bits 8|16|24]
    python scripts/compress.py bench DIR --chunks 1000 --chunk-size 2048 --bits 8 [--whole]

Without --chunks every file is coded whole, at its own depth. With it, chunks of so many bytes from random places are
coded each by itself, as in "Language Modeling Is Compression" (ICLR 2024). Every size is of bytes that a coder wrote.

    bits/sample    of one channel, headers included
    bits/byte      of the samples as a WAV file holds them: 16-bit audio has two bytes a sample
    rate           coded size over raw size in percent: with headers, without them, and with the model counted once
    of REFERENCE   size in percent of that coder's: of all files together, and the mean over files

Coders of others: "flac" is libFLAC at level 8, "flac-best" the smallest of that and FFmpeg's encoder at level 12,
"wavpack" FFmpeg's, "wavpack-slow" the same at its slowest (where --coders asks for it); and programs where they are on
PATH: "flac-program" is `flac -8 -e -p`, "wavpack-program" `wavpack -hh -x4`.

"wsl" is our file format: each block by linear prediction or by the model that ships, whichever is smaller; "wsl linear"
is without the model. A run of residuals is measured likewise, a language model of tokens by itself: "NAME alone".
--names takes only files that a list names: a model's figures are worth something on what it was not trained on.

--bits drops low bits by a shift; files of fewer bits are left out and named. --mask-bits K codes the K highest bits of
every sample and counts the others as they are, uncoded (a rate that scales the coded part up instead, as the paper's
does, takes the lost bits to be as predictable as the others).
"""

import argparse
import csv
import dataclasses
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from compress_bench_coders import (
    Coder,
    Excerpt,
    LossError,
    WslCoder,
    chunks,
    reference_coders,
    run_coder,
    shipped_coders,
    whole_files,
)
from compress_files import BLOCK_SECONDS

from codes.compression.reference_codecs import CodedSize, coders
from codes.data.audio.listing.folder import IndexEntry, scan


@dataclass(frozen=True, kw_only=True)
class Row:
    """One excerpt by one coder. ``model_bytes`` are of the coder, not of the row; ``coded_bytes`` include headers."""

    part: str
    name: str
    coder: str
    bits: int
    num_channels: int
    sample_rate_hz: int
    num_samples: int
    raw_bytes: int
    coded_bytes: float
    header_bytes: int
    model_bytes: int
    seconds: float

    @property
    def bits_per_sample(self) -> float:
        return self.coded_bytes * 8 / self.num_samples


class CsvFile:
    """One line for each row, with the figures that follow from it; written as they come, so that a stop loses none.

    Args:
        path: where; None: nowhere.
    """

    DERIVED = ("bits_per_sample", "bits_per_byte", "rate", "rate_without_header")

    def __init__(self, path: Path | None) -> None:
        self._file = None if path is None else open(path, "w", newline="", encoding="utf-8")  # noqa: SIM115
        if self._file is not None:
            names = [field.name for field in dataclasses.fields(Row)]
            csv.writer(self._file).writerow([*names, *self.DERIVED])

    def add(self, rows: Sequence[Row]) -> None:
        """Write rows."""
        if self._file is None:
            return
        for row in rows:
            values = dataclasses.asdict(row)
            values["coded_bytes"] = f"{row.coded_bytes:.3f}".rstrip("0").rstrip(".")
            values["seconds"] = f"{row.seconds:.4f}"
            shares = [row.coded_bytes / row.raw_bytes, (row.coded_bytes - row.header_bytes) / row.raw_bytes]
            figures = [row.bits_per_sample, 8 * shares[0], *shares]
            csv.writer(self._file).writerow([*values.values(), *(f"{figure:.5f}" for figure in figures)])
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0; 1 where a codec loses samples (--verify); 2 for wrong use."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        _check(options)
        found = scan(options.paths, on_error="collect", progress=sys.stderr.isatty())
        for reason in found.errors.values():
            print(f"left out: {reason}", file=sys.stderr)
        files = _named(found.files, options.names)
        compared = _coders(options)
        out = CsvFile(options.csv)
        for part in (
            ("chunks", "whole") if options.chunks and options.whole else ("chunks" if options.chunks else "whole",)
        ):
            _print_table(part, _bench(part, files, compared, options, out), compared, options)
        out.close()
    except (ValueError, OSError, ImportError, LossError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1 if isinstance(error, LossError) else 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="compress.py bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="DIR", help="folders, audio files, lists of audio files")
    add("--csv", type=Path, metavar="FILE", help="one line for each file or chunk and coder")
    add("--coders", nargs="+", metavar="NAME", help=f"coders of others (default all here: {', '.join(coders())})")
    add(
        "--run", type=Path, action="append", default=[], metavar="RUN", help="a run's folder, or a model file of tokens"
    )
    add("--names", type=Path, metavar="FILE", help="take only files whose names stand in FILE, one a line")
    add("--reference", metavar="CODER", help="what sizes are compared with (default: flac-program, or flac)")
    add("--bits", type=int, metavar="BITS", help="depth of the samples (default: each file's own; with --chunks: 8)")
    add("--mask-bits", type=int, metavar="K", help="code only the K highest bits, count the others as they are")
    add("--seconds", type=float, metavar="S", help="of every file only so much from its middle")
    add("--block-seconds", type=float, default=BLOCK_SECONDS, metavar="S", help="blocks of ours (default: %(default)s)")
    add("--chunks", type=int, metavar="N", help="code so many chunks from random places")
    add("--chunk-size", type=int, default=2048, metavar="BYTES", help="size of a chunk (default: %(default)s)")
    add("--whole", action="store_true", help="with --chunks: whole files as well")
    add("--seed", type=int, default=0, metavar="N", help="which chunks (default: %(default)s)")
    add("--verify", action="store_true", help="decode what ours have coded, and compare")
    return parser


def _check(options: argparse.Namespace) -> None:
    for name in ("chunks", "chunk_size", "seconds", "block_seconds"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise ValueError(f"--{name.replace('_', '-')} is {value}: it must be above 0")
    if options.chunks and options.bits is None:
        options.bits = 8
    if options.bits is not None and not 1 <= options.bits <= 32:
        raise ValueError(f"--bits is {options.bits}: it must be 1 to 32")
    if options.mask_bits is not None and not (options.bits and 1 <= options.mask_bits < options.bits):
        raise ValueError(f"--mask-bits is {options.mask_bits}: it must be 1 to --bits - 1, and --bits be given")


def _named(files: Sequence[IndexEntry], names: Path | None) -> list[IndexEntry]:
    """The files whose names a list has; lines that begin with # are no names."""
    if names is None:
        return list(files)
    lines = [line.strip() for line in names.read_text(encoding="utf-8").splitlines()]
    wanted = {line for line in lines if line and not line.startswith("#")}
    found = [file for file in files if file.path.name in wanted]
    missing = sorted(wanted - {file.path.name for file in found})
    if missing:
        print(f"not there: {', '.join(missing)}", file=sys.stderr)
    if not found:
        raise ValueError(f"none of {len(files)} files is named in {names}")
    return found


def _coders(options: argparse.Namespace) -> list[Coder]:
    """The coders of others, our format by itself, and the models that were named."""
    found = reference_coders(options.coders)
    found.append(WslCoder("wsl linear", [], options.block_seconds, verify=options.verify))
    found += shipped_coders(options.block_seconds, options.verify)
    found += [run_coder(run, options.block_seconds, options.verify) for run in options.run]
    names = [coder.name for coder in found]
    if options.reference is None:
        options.reference = "flac-program" if "flac-program" in names else "flac" if "flac" in names else names[0]
    if options.reference not in names:
        raise ValueError(f"--reference is {options.reference}: there are {', '.join(names)}")
    return found


def _bench(
    part: str, files: Sequence[IndexEntry], compared: Sequence[Coder], options: argparse.Namespace, out: CsvFile
) -> list[Row]:
    """Code everything; rows go to the CSV as they come, what is left out is said at the end."""
    if part == "chunks":
        found = chunks(files, options.chunks, options.chunk_size, options.bits, options.seed)
    else:
        found = whole_files(files, options.bits, options.seconds)
    left_out: list[str] = []
    excerpts = _only_audio(found, left_out)
    rows: list[Row] = []
    refused: dict[str, list[str]] = {}
    for together in [list(excerpts)] if part == "chunks" else ([excerpt] for excerpt in excerpts):  # a file at a time
        for coder in compared if together else ():
            new = _code(part, coder, together, options.mask_bits, refused.setdefault(coder.name, []))
            rows += new
            out.add(new)
            _progress(f"{len(rows)} rows, the last by {coder.name}")
    for name, reasons in refused.items():
        left_out += [f"{len(reasons)} of {name}, the first because: {reasons[0]}"] if reasons else []
    for sentence in left_out:
        print(f"left out: {sentence}", file=sys.stderr)
    if not rows:
        raise ValueError(f"nothing to compare: {len(left_out)} files left out")
    return rows


def _only_audio(found: Iterable[Excerpt | str], left_out: list[str]) -> Iterable[Excerpt]:
    for item in found:
        if isinstance(item, str):
            left_out.append(item)
        else:
            yield item


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _code(part: str, coder: Coder, excerpts: Sequence[Excerpt], mask_bits: int | None, refused: list[str]) -> list[Row]:
    """Rows of one coder; none where it does not take such audio, which is noted."""
    started = time.perf_counter()
    try:
        sizes = list(coder.code_each([_masked(excerpt, mask_bits) for excerpt in excerpts]))
    except (ValueError, OSError) as error:
        refused.append(f"{excerpts[0].name}: {error}")
        return []
    seconds = (time.perf_counter() - started) / len(excerpts)
    return [_row(part, coder, *pair, mask_bits, seconds) for pair in zip(excerpts, sizes, strict=True)]


def _masked(excerpt: Excerpt, mask_bits: int | None) -> Excerpt:
    if mask_bits is None:
        return excerpt
    return dataclasses.replace(excerpt, pcm=excerpt.pcm >> (excerpt.bits - mask_bits), bits=mask_bits)


def _row(part: str, coder: Coder, excerpt: Excerpt, size: CodedSize, mask_bits: int | None, seconds: float) -> Row:
    uncoded_bits = excerpt.pcm.size * (excerpt.bits - (mask_bits or excerpt.bits))
    return Row(
        part=part, name=excerpt.name, coder=coder.name, bits=excerpt.bits, num_channels=excerpt.pcm.shape[0],
        sample_rate_hz=excerpt.sample_rate_hz, num_samples=excerpt.pcm.size, raw_bytes=excerpt.raw_bytes,
        coded_bytes=size.total_bytes + uncoded_bits / 8, header_bytes=size.header_bytes,
        model_bytes=coder.model_bytes, seconds=seconds,
    )  # fmt: skip


def summary(rows: Sequence[Row], coder: str, reference: str) -> dict[str, float]:
    """Figures of a coder over all rows that it has; those against the reference over what both have coded."""
    own = [row for row in rows if row.coder == coder]
    raw, coded = sum(row.raw_bytes for row in own), sum(row.coded_bytes for row in own)
    samples, headers = sum(row.num_samples for row in own), sum(row.header_bytes for row in own)
    other = {(row.name, row.part): row.coded_bytes for row in rows if row.coder == reference}
    pairs = [(row.coded_bytes, other[row.name, row.part]) for row in own if (row.name, row.part) in other]
    audio_seconds = sum(row.num_samples / row.num_channels / row.sample_rate_hz for row in own)
    nothing = float("nan")
    return {
        "num": len(own),
        "bits_per_sample": coded * 8 / samples,
        "bits_per_byte": coded * 8 / raw,
        "rate": 100 * coded / raw,
        "rate_without_header": 100 * (coded - headers) / raw,
        "rate_with_model": 100 * (coded + own[0].model_bytes) / raw,
        "of_reference": 100 * sum(a for a, _ in pairs) / sum(b for _, b in pairs) if pairs else nothing,
        "mean_of_reference": 100 * sum(a / b for a, b in pairs) / len(pairs) if pairs else nothing,
        "times_real_time": audio_seconds / max(sum(row.seconds for row in own), 1e-9),
    }


def _print_table(part: str, rows: Sequence[Row], compared: Sequence[Coder], options: argparse.Namespace) -> None:
    what = "chunks" if part == "chunks" else "files"
    names = {row.name for row in rows}
    depth = "at their own depth" if options.bits is None else f"at {options.bits} bits"
    size = f" of {options.chunk_size} bytes" if part == "chunks" else ""
    mask = f", the {options.mask_bits} highest bits coded" if options.mask_bits else ""
    print(f"{len(names)} {what}{size} {depth}{mask}; {options.reference} is the reference")
    width = max(len(coder.name) for coder in compared)
    print(
        f"{'coder':<{width}} {what:>6} bits/sample bits/byte  rate %  no header  with model  "
        "of reference  mean of it  x real time"
    )
    for coder in compared:
        if not any(row.coder == coder.name for row in rows):
            print(f"{coder.name:<{width}} {0:>6}")
            continue
        s = summary(rows, coder.name, options.reference)
        print(
            f"{coder.name:<{width}} {s['num']:>6} {s['bits_per_sample']:>11.3f} {s['bits_per_byte']:>9.3f} "
            f"{s['rate']:>7.2f} {s['rate_without_header']:>10.2f} {s['rate_with_model']:>11.2f}  "
            f"{s['of_reference']:>12.2f} {s['mean_of_reference']:>11.2f} {s['times_real_time']:>12.2f}"
        )
    for coder in compared:
        if coder.model_bytes:
            print(f'the model of {coder.name} has {coder.model_bytes:,} bytes, in "with model" counted once')


if __name__ == "__main__":
    sys.exit(main())
