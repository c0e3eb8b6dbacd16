"""Code a file of audio and decode it again: what `compress.py` does, without its printing.

`encode_file` and `decode_file` write beside their target and rename, so that there is a whole file or none.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.compression.codec import BlockCodec, CodedFileError
from codes.compression.container import Header
from codes.compression.container_reader import CodedFile, Resolve
from codes.compression.container_writer import PcmForm, Report, block_frames_for, write_coded_file
from codes.compression.pcm_bytes import SampleBytes
from codes.compression.wav_header import FullPaddingError, NotPcmWavError, WavFile, WavHeader, read_wav, usual_header
from codes.data.audio.reader import AudioFile

BLOCK_SECONDS = 20.0
_LEAST_BLOCK_FRAMES = 1 << 16  # of a block of default length: what adapts needs so many, also at 10 frames a second
_BYTES_RATE_HZ = 48_000  # of files that are kept as bytes: their "seconds" mean nothing
_BYTES = WavHeader(head=b"", tail=b"", samples=SampleBytes(num_bytes=1, is_unsigned=True))

OnStart = Callable[[PcmForm, int], None]
OnBlock = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What `encode_file` made: the form of the samples, the report, and notes for people."""

    form: PcmForm
    report: Report
    source_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What `decode_file` wrote; ``damages`` is empty unless it was told to keep going."""

    header: Header
    num_frames: int
    damages: tuple[str, ...]
    packets_by_codec: dict[str, int]


@dataclass(kw_only=True)
class _Source:
    """Samples to be coded."""

    form: PcmForm
    num_frames: int
    num_bytes: int
    blocks: Callable[[int], Iterator[np.ndarray]]
    metadata: bytes = b""
    notes: tuple[str, ...] = ()


def check_paths(source: Path, target: Path, *, force: bool) -> None:
    """Refuse what cannot be read from or must not be written to, before anything is computed.

    Args:
        force: a file that the target names may be replaced.

    Raises:
        OSError: the source is a folder, a pipe or a device; the target is one, is the source itself, exists, or is to
            be in a folder that does not.
    """
    if source.exists() and not source.is_file():
        raise OSError(f"{source} is no regular file: audio is read from files, not from folders, pipes or devices")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target} cannot be written: {target.parent} is no folder")
    if not target.exists():
        return
    if not target.is_file():
        raise OSError(f"{target} is no regular file: give the name of a file to write")
    if source.exists() and target.samefile(source):
        raise OSError(f"{target} is the file that is read: give another name to write to")
    if not force:
        raise FileExistsError(f"{target} exists already: --force writes over it")


def encode_file(
    source: Path,
    target: Path,
    *,
    codecs: Sequence[BlockCodec] = (),
    model: bytes = b"",
    block_seconds: float | None = None,
    verify: bool = True,
    as_bytes: bool = False,
    workers: int = 1,
    on_start: OnStart = lambda form, num_frames: None,
    on_block: OnBlock = lambda num_frames: None,
) -> Encoded:
    """Code an audio file.

    Args:
        source: any file that `codes.data.audio.reader` reads. A WAV is kept with all that is in it.
        target: the coded file.
        codecs: tried for each block, besides linear prediction and raw samples.
        model: the model to embed.
        block_seconds: length of a block; None: `BLOCK_SECONDS`, or longer at rates below 3.3 kHz.
        verify: decode every block, and read back what was written.
        as_bytes: keep the file's bytes, whatever they are.
        workers: how many blocks are coded at a time.
        on_start: told the form of the samples and the number of frames.
        on_block: told the number of frames of each block that is done.

    Raises:
        NotPcmWavError: a WAV of floating point samples or other things that are no integers.
        AudioReadError: another file that cannot be read.
        OSError: the file cannot be opened, or the target not written.
    """
    with open(source, "rb") as file:
        try:
            wav = None if as_bytes else read_wav(file)
            try:
                samples = _bytes_source(file) if as_bytes else _source(source, wav)
                return _encode(samples, target, codecs, model, block_seconds, verify, workers, on_start, on_block)
            except FullPaddingError:
                samples = _source(source, read_wav(file, whole_container=True))
                return _encode(samples, target, codecs, model, block_seconds, verify, workers, on_start, on_block)
        except NotPcmWavError as error:
            raise NotPcmWavError(f"{source}: {error}; --bytes keeps any file as it is") from error


def decode_file(
    source: Path,
    target: Path | None,
    resolve: Resolve,
    *,
    keep_going: bool = False,
    start_seconds: float = 0.0,
    seconds: float | None = None,
    workers: int = 1,
    on_start: OnStart = lambda form, num_frames: None,
    on_block: OnBlock = lambda num_frames: None,
) -> Decoded:
    """Decode a coded file to the WAV that it was, or to a WAV of the PCM that it was.

    Args:
        source: the coded file.
        target: where the WAV goes; None: nowhere, everything is checked only.
        resolve: see `CodedFile`.
        keep_going: put silence in place of damaged blocks.
        start_seconds: where to begin; only blocks from there on are decoded.
        seconds: how much to decode; None: to the end.
        workers: how many blocks are decoded at a time.

    Raises:
        CodedFileError: the file is damaged, see `CodedFile`.
        ModelError: its model is not to be had, or is not the one.
        ValueError: it is shorter than ``start_seconds``.
        OSError: a file cannot be read or written.
    """
    with CodedFile(source, resolve, keep_going=keep_going) as coded:
        header = coded.header
        first, end = _wanted(coded, start_seconds, seconds)
        is_whole = first == 0 and end == header.num_frames
        around = _original_header(coded, end - first if not is_whole else None)
        form = PcmForm(
            sample_rate_hz=header.sample_rate_hz,
            num_channels=header.num_channels,
            bits=header.bits,
            layout=header.layout,
        )
        on_start(form, end - first)
        with contextlib.nullcontext() if target is None else _written(target) as file:
            if file is not None:
                file.write(around.head)
            for pcm in _part(coded, first, end, workers):
                if file is not None:
                    file.write(around.samples.pack(pcm, header.bits))
                on_block(pcm.shape[1])
            if file is not None:
                file.write(around.tail)
        return Decoded(
            header=header,
            num_frames=end - first,
            damages=tuple(coded.damages),
            packets_by_codec=coded.packets_by_codec,
        )


def _wanted(coded: CodedFile, start_seconds: float, seconds: float | None) -> tuple[int, int]:
    """The first frame that is wanted and the one behind the last."""
    rate, num_frames = coded.header.sample_rate_hz, coded.header.num_frames
    first = min(round(start_seconds * rate), num_frames)
    if start_seconds > 0 and first == num_frames:
        raise ValueError(f"{coded.path} lasts {num_frames / rate:.2f} s: nothing begins at second {start_seconds:g}")
    return first, num_frames if seconds is None else min(first + round(seconds * rate), num_frames)


def _encode(
    samples: _Source,
    target: Path,
    codecs: Sequence[BlockCodec],
    model: bytes,
    block_seconds: float | None,
    verify: bool,
    workers: int,
    on_start: OnStart,
    on_block: OnBlock,
) -> Encoded:
    on_start(samples.form, samples.num_frames)
    if block_seconds is None:
        block_seconds = max(BLOCK_SECONDS, _LEAST_BLOCK_FRAMES / samples.form.sample_rate_hz)
    block_frames = block_frames_for(block_seconds, samples.form)
    with _written(target) as written:
        report = write_coded_file(
            written,
            samples.blocks(block_frames),
            samples.form,
            block_frames=block_frames,
            codecs=codecs,
            metadata=samples.metadata,
            model=model,
            verify=verify,
            workers=workers,
            on_block=on_block,
        )
        written.flush()
        if verify:
            _check_written(Path(written.name), samples.metadata)
    return Encoded(form=samples.form, report=report, source_bytes=samples.num_bytes, notes=samples.notes)


def _source(source: Path, wav: WavFile | None) -> _Source:
    if wav is not None:
        return _wav_source(wav)
    with AudioFile(source) as audio:
        info = audio.info

    def blocks(block_frames: int) -> Iterator[np.ndarray]:
        with AudioFile(source) as audio:
            yield from audio.blocks(block_frames)

    form = PcmForm(sample_rate_hz=info.sample_rate_hz, num_channels=info.num_channels, bits=info.bits)
    name = info.format.partition(" ")[0]  # "MP3" of "MP3 MPEG_LAYER_III"
    notes = [f"{name} comes back as WAV, with the same samples and without its tags"]
    if info.lossy:
        notes.append(f"{name} is lossy: what is coded is its decoded samples, rounded to 16 bits")
    return _Source(
        form=form, num_frames=info.num_frames, num_bytes=source.stat().st_size, blocks=blocks, notes=tuple(notes)
    )


def _wav_source(wav: WavFile) -> _Source:
    layout = "usual" if wav.is_usual else "stored"
    form = PcmForm(sample_rate_hz=wav.sample_rate_hz, num_channels=wav.num_channels, bits=wav.bits, layout=layout)
    metadata = b"" if wav.is_usual else wav.header.pack()
    size = wav.file.seek(0, os.SEEK_END)
    return _Source(form=form, num_frames=wav.num_frames, num_bytes=size, blocks=wav.blocks, metadata=metadata)


def _bytes_source(file: BinaryIO) -> _Source:
    size = file.seek(0, os.SEEK_END)
    form = PcmForm(sample_rate_hz=_BYTES_RATE_HZ, num_channels=1, bits=8, layout="bytes")
    whole = WavFile(file=file, header=_BYTES, sample_rate_hz=_BYTES_RATE_HZ, num_channels=1, bits=8, num_frames=size)
    return _Source(form=form, num_frames=size, num_bytes=size, blocks=whole.blocks)


def _check_written(path: Path, metadata: bytes) -> None:
    """Read a coded file's every byte back from where it was written; what it decodes to was checked before."""

    def resolve(*_: object) -> BlockCodec:
        raise AssertionError("packets are not decoded here")

    with CodedFile(path, resolve) as coded:
        for number in range(coded.header.num_packets):
            if coded.packet(number) is None:
                raise CodedFileError(f"what was written is not what is read back, in {coded.header.place(number)}")
        if coded.metadata != metadata:
            raise CodedFileError("what was written is not what is read back, in the original header")


def _original_header(coded: CodedFile, num_frames: int | None) -> WavHeader:
    """What goes around the samples: the original where it is kept and all of the file is wanted."""
    header = coded.header
    if header.layout == "bytes":
        return _BYTES
    if header.layout == "stored" and num_frames is None and coded.metadata is not None:
        try:
            kept = WavHeader.unpack(coded.metadata)
            if 8 * kept.samples.num_bytes < header.bits:
                raise CodedFileError(f"keeps samples of {header.bits} bits in {kept.samples.num_bytes} bytes")
            return kept
        except CodedFileError as error:
            coded.note_damage(str(error))
    frames = header.num_frames if num_frames is None else num_frames
    return usual_header(header.sample_rate_hz, header.num_channels, header.bits, frames)


def _part(coded: CodedFile, first: int, end: int, workers: int) -> Iterator[np.ndarray]:
    """The samples from frame ``first`` to ``end``, from the block on that has the first of them."""
    block_frames = coded.header.block_frames
    start_block = first // block_frames
    place = start_block * block_frames
    for pcm in coded.blocks(start_block, workers):
        yield pcm[:, max(0, first - place) : end - place]
        place += pcm.shape[1]
        if place >= end and end < coded.header.num_frames:
            return


@contextlib.contextmanager
def _written(target: Path) -> Iterator[BinaryIO]:
    """A file beside the target that takes its place when all is written, and is removed when it is not."""
    target = target.resolve()  # a link stays a link
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        try:
            yield file  # pyright: ignore[reportReturnType]
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            file.close()
            os.unlink(file.name)
            raise
    _open_to_others(file.name)
    os.replace(file.name, target)


def _open_to_others(name: str) -> None:
    """Give a temporary file the permissions that a new file would have."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(name, 0o666 & ~mask)
