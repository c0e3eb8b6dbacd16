"""Code audio files losslessly, and decode them again to the very same files.

    python scripts/compress.py encode IN OUT.wsl [--run runs/NAME | --model FILE | --no-model] [--embed]
    python scripts/compress.py decode IN.wsl OUT.wav [--keep-going] [--start S] [--seconds S]
    python scripts/compress.py info FILE.wsl
    python scripts/compress.py verify FILE.wsl [FILE.wsl ...]
    python scripts/compress.py bench DIR --csv FILE

What is coded is decoded and compared before the coded file is put in its place. A WAV comes back byte for byte, with
its header and tags; other formats come back as a WAV of the same samples. docs/wsl-format.md describes the file.
Exit status: 0; 1 where a file is damaged or cannot be coded or decoded, which is said on stderr; 2 for wrong use; 128
and the signal's number (130 for Ctrl-C) where it was stopped, which leaves no file behind (141: nobody reads what it
says any more; what it was writing is whole).
"""

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from compress_files import BLOCK_SECONDS, Encoded, check_paths, decode_file, encode_file
from compress_info import counts, info_lines
from compress_models import SHIPPED, ModelSearch, keep_model, model_codec, run_model, shipped_models

from codes.compression.codec import BlockCodec, ModelError
from codes.compression.container import Header
from codes.compression.container_writer import PcmForm, Report

_MOST_SECONDS = 1e9  # of an option: more than any file has


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    try:
        with _stopped_by_signals():
            status = _run(list(sys.argv[1:] if arguments is None else arguments))
            sys.stdout.flush()
            return status
    except BrokenPipeError:  # `info FILE | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (what is left to print goes nowhere, until the end)
        return 128 + signal.SIGPIPE
    except (ValueError, OSError, ImportError) as error:
        _say(f"compress.py: error: {error}", sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        _say("compress.py: stopped", sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM and a terminal that is closed stop the program as Ctrl-C does, so that nothing half written stays."""

    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    numbers = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}  # the latter not on every system
    former = {n: signal.signal(n, stop) for n in numbers if signal.getsignal(n) == signal.SIG_DFL}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["bench"]:
        from compress_bench import main as bench

        return bench(arguments[1:])
    options = _parser().parse_args(arguments)
    return options.command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="compress.py", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="encode|decode|info|verify|bench")
    encode = commands.add_parser("encode", help="code an audio file")
    encode.add_argument("source", type=Path, metavar="IN", help="any audio file of integer samples")
    encode.add_argument("target", type=Path, metavar="OUT.wsl")
    which = encode.add_mutually_exclusive_group()
    which.add_argument("--run", type=Path, metavar="DIR", help="code with the best checkpoint of this run")
    which.add_argument("--model", type=Path, metavar="FILE", help="code with this model file")
    which.add_argument("--no-model", action="store_true", help="linear prediction only: fast, and needs no model")
    encode.add_argument("--embed", action="store_true", help="put the model into the file, so that it is all one needs")
    encode.add_argument("--no-verify", action="store_true", help="do not decode what is coded to compare it")
    encode.add_argument("--bytes", action="store_true", help="keep the file's bytes as they are, whatever it is")
    default = f"default: {BLOCK_SECONDS:g}, longer at rates below 3.3 kHz"
    encode.add_argument("--block-seconds", type=_positive, metavar="S", help=f"length of a block ({default})")
    encode.add_argument("--force", action="store_true", help="write over OUT.wsl where it exists")
    _add_threads(encode)
    encode.set_defaults(command=_encode)
    decode = commands.add_parser("decode", help="give back the WAV")
    decode.add_argument("source", type=Path, metavar="IN.wsl")
    decode.add_argument("target", type=Path, metavar="OUT.wav")
    _add_search(decode)
    decode.add_argument("--keep-going", action="store_true", help="silence in place of damaged blocks, status 1")
    decode.add_argument("--start", type=_not_negative, default=0.0, metavar="S", help="second to begin at")
    decode.add_argument("--seconds", type=_positive, metavar="S", help="how much to decode")
    decode.add_argument("--force", action="store_true", help="write over OUT.wav where it exists")
    decode.set_defaults(command=_decode)
    info = commands.add_parser("info", help="say what is in a coded file")
    info.add_argument("source", type=Path, metavar="FILE.wsl")
    info.set_defaults(command=_info)
    verify = commands.add_parser("verify", help="decode and check everything, write nothing")
    verify.add_argument("sources", type=Path, nargs="+", metavar="FILE.wsl")
    _add_search(verify)
    verify.set_defaults(command=_verify)
    commands.add_parser("bench", help="compare with other codecs on a folder (bench --help)", add_help=False)
    return parser


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, action="append", default=[], metavar="DIR", help="a run that has the model")
    parser.add_argument("--model", type=Path, action="append", default=[], metavar="PATH", help="its file or folder")
    _add_threads(parser)


def _add_threads(parser: argparse.ArgumentParser) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument(
        "--threads", type=_count_of, default=cores, metavar="N", help="blocks at a time (default: %(default)s)"
    )


def _count_of(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"must be 1 to 1024, got {text}")
    return int(text)


def _positive(text: str) -> float:
    return _number(text, lambda number: number > 0, "above 0")


def _not_negative(text: str) -> float:
    return _number(text, lambda number: number >= 0, "0 or more")


def _number(text: str, is_allowed: Callable[[float], bool], allowed: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not is_allowed(number) or number > _MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"must be {allowed} and no more than {_MOST_SECONDS:.0e}, got {text}")
    return number


def _encode(options: argparse.Namespace) -> int:
    check_paths(options.source, options.target, force=options.force)
    model, codecs, origin = _codecs(options)
    started = time.perf_counter()
    with _progress("encode") as (on_start, on_block):
        encoded = encode_file(
            options.source,
            options.target,
            codecs=codecs,
            model=model if options.embed else b"",
            block_seconds=options.block_seconds,
            verify=not options.no_verify,
            as_bytes=options.bytes,
            workers=options.threads,
            on_start=on_start,
            on_block=on_block,
        )
    seconds, kept, unkept = time.perf_counter() - started, [], ""
    if encoded.report.codecs and not options.embed:  # before anything is printed, as nobody may read it
        try:
            kept = keep_model(model, options.run)
        except OSError as error:
            unkept = f"note: the model cannot be kept ({error}): keep {origin}, for decoding needs it"
    for line in _encoded_lines(encoded, seconds, not options.no_verify):
        _say(line)
    if codecs and not encoded.report.codecs:
        origin = _why_no_model(encoded.report, origin)
    _say(f"model: {origin}")
    if any(entry.profile == "fast" for entry in encoded.report.codecs):
        from codes.compression.token_codec import software

        _say(f"note: decoding needs software and a processor as here ({software()}): keep the original")
    for path in kept:
        _say(f"model: kept as {path}; decoding needs it")
    if unkept:
        _say(unkept, sys.stderr)
    return 0


def _codecs(options: argparse.Namespace) -> tuple[bytes, list[BlockCodec], str]:
    """The model's bytes, the codecs to try, and where the model is from or why there is none."""
    named = options.run or options.model
    if options.bytes and (named or options.embed):
        raise ModelError("--bytes keeps a file's bytes, which no model codes: leave out --run, --model and --embed")
    if options.no_model and options.embed:
        raise ModelError("--embed puts a model into the file, --no-model codes without one: leave one of them out")
    if options.no_model or options.bytes:
        return b"", [], "none, as --no-model says" if options.no_model else "none, as --bytes says"
    if named is not None:
        model = options.model.read_bytes() if options.run is None else run_model(options.run)
        return model, [model_codec(model, str(named))], str(named)
    models = shipped_models()
    if not models:
        return b"", [], f"none, for none is in {SHIPPED}: choose one with --model FILE or --run DIR"
    if len(models) != 1:
        raise ModelError(f"there are {len(models)} models in {SHIPPED}: choose one with --model FILE")
    return models[0], [model_codec(models[0])], "the one that ships"


def _why_no_model(report: Report, origin: str) -> str:
    """Why a file was coded without the model from ``origin``."""
    if report.unsuited:
        return f"{origin} was not used: {'; '.join(report.unsuited)}"
    if report.num_frames == 0:
        return f"not needed: there are no samples for {origin}"
    return f"not needed: no block of this file is smaller with {origin}"


def _encoded_lines(encoded: Encoded, seconds: float, verified: bool) -> Iterator[str]:
    report, form = encoded.report, encoded.form
    yield from (f"note: {note}" for note in encoded.notes)
    for place in report.refused:
        yield f"note: {place} did not give back the same samples; another codec was taken"
    ratio = 100 * report.num_bytes / max(1, encoded.source_bytes)
    yield f"size: {encoded.source_bytes:,} -> {report.num_bytes:,} bytes, {ratio:.2f} %"
    if report.num_bytes >= encoded.source_bytes:
        yield "note: that is no smaller than the file itself: keep the file"
    if report.num_frames and form.layout != "bytes":
        by_channel = ", ".join(f"{bits / report.num_frames:.3f}" for bits in report.channel_bits)
        total = 8 * report.num_bytes / (report.num_frames * form.num_channels)
        yield f"bits per sample: {total:.3f} of {form.bits}; by channel {by_channel}"
    yield "blocks: " + (counts(report.packets_by_codec) or "none")
    checked = "decoded and found equal" if verified else "not verified"
    yield f"time: {seconds:.2f} s{_real_time(report.num_frames, form, seconds)}, {checked}"


def _decode(options: argparse.Namespace) -> int:
    check_paths(options.source, options.target, force=options.force)
    started, search = time.perf_counter(), ModelSearch(options.model, options.run)
    with _progress("decode") as (on_start, on_block):
        decoded = decode_file(
            options.source,
            options.target,
            search,
            keep_going=options.keep_going,
            start_seconds=options.start,
            seconds=options.seconds,
            workers=options.threads,
            on_start=on_start,
            on_block=on_block,
        )
    seconds = time.perf_counter() - started
    for line in decoded.damages:
        _say(line, sys.stderr)
    _say(f"size: {options.source.stat().st_size:,} -> {options.target.stat().st_size:,} bytes")
    for name in search.used:
        _say(f"model: {name}")
    _say(f"time: {seconds:.2f} s{_real_time(decoded.num_frames, decoded.header, seconds)}")
    return 1 if decoded.damages else 0


def _verify(options: argparse.Namespace) -> int:
    status = 0
    for source in options.sources:
        decoded, started = None, time.perf_counter()
        try:
            with _progress("verify") as (on_start, on_block):
                decoded = decode_file(
                    source,
                    None,
                    ModelSearch(options.model, options.run),
                    keep_going=True,
                    workers=options.threads,
                    on_start=on_start,
                    on_block=on_block,
                )
            problems = decoded.damages
        except (ValueError, OSError) as error:
            problems = (str(error),)
        for problem in problems:
            _say(problem, sys.stderr)
        if decoded is None or problems:
            status = 1
        else:
            seconds = time.perf_counter() - started
            speed = _real_time(decoded.num_frames, decoded.header, seconds)
            _say(f"{source}: sound: every block decodes, and to the MD5 of its PCM{speed}")
    return status


def _info(options: argparse.Namespace) -> int:
    for line in info_lines(options.source):
        _say(line)
    return 0


def _real_time(num_frames: int, form: PcmForm | Header, seconds: float) -> str:
    if form.layout == "bytes" or seconds <= 0:
        return ""
    return f", {num_frames / form.sample_rate_hz / seconds:.2f} times real time"


@contextlib.contextmanager
def _progress(title: str) -> Iterator[tuple[Callable[[PcmForm, int], None], Callable[[int], None]]]:
    """A bar with the speed, on a terminal; what `encode_file` and `decode_file` call to move it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns: tuple[Any, ...] = (
        TextColumn(title),
        BarColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    started, frames, rate = time.perf_counter(), 0, 1
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(title, total=None, speed="")

        def on_start(form: PcmForm, num_frames: int) -> None:
            nonlocal rate
            rate = form.sample_rate_hz
            bar.update(task, total=max(1, num_frames))

        def on_block(num_frames: int) -> None:
            nonlocal frames
            frames += num_frames
            speed = frames / rate / max(1e-9, time.perf_counter() - started)
            bar.update(task, advance=num_frames, speed=f"{speed:.2f} x real time")

        yield on_start, on_block


def _say(text: str, file: Any = None) -> None:
    """Print, also names that are no valid UTF-8."""
    print(text.encode("utf-8", "backslashreplace").decode(), file=file or sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
