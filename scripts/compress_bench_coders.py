"""What `compress.py bench` compares: the coders of others and ours, behind one interface, and excerpts of audio."""

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from compress_models import model_codec, run_model, shipped_models

from codes.compression import reference_codecs
from codes.compression.codec import BlockCodec
from codes.compression.container import CodecEntry, Header
from codes.compression.container_packet import HEAD_BYTES
from codes.compression.container_writer import PcmForm, block_frames_for, entry_of, write_coded_file
from codes.compression.reference_codecs import CodedSize, NotCodedError, container_bits
from codes.compression.token_codec import TokenCodec
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.reader import AudioFile
from codes.trainer.injectors.pcm import MuLawInjector
from codes.trainer.token_model import read_spec, token_codec


class LossError(Exception):
    """A codec of ours did not give back the samples that it coded: a fault, not something that it does not take."""


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """Audio to be coded: pcm (C, T) integers of ``bits`` bits."""

    name: str
    pcm: np.ndarray
    bits: int
    sample_rate_hz: int

    @property
    def raw_bytes(self) -> int:
        """Its size in a WAV file without the header."""
        return self.pcm.size * container_bits(self.bits) // 8


class Coder:
    """Something that codes excerpts.

    Args:
        name: for people.
        code: the function; raises `NotCodedError` or ValueError for what it does not take.
        model_bytes: size of the model that a decoder must have.
    """

    def __init__(self, name: str, code: Callable[[Excerpt], CodedSize], model_bytes: int = 0) -> None:
        self.name, self.code, self.model_bytes = name, code, model_bytes

    def code_each(self, excerpts: Sequence[Excerpt]) -> Iterator[CodedSize]:
        """Sizes of excerpts that are coded one by one."""
        return map(self.code, excerpts)


def reference_coders(names: list[str] | None) -> list[Coder]:
    """The coders of others; see `reference_codecs.coders`."""
    found = reference_codecs.coders(names).items()
    return [Coder(name, lambda e, f=function: f(e.pcm, e.bits, e.sample_rate_hz)) for name, function in found]


def _form(excerpt: Excerpt) -> PcmForm:
    return PcmForm(
        sample_rate_hz=excerpt.sample_rate_hz, num_channels=excerpt.pcm.shape[0], bits=excerpt.bits, layout="usual"
    )


class WslCoder(Coder):
    """Our file format with one codec, besides linear prediction and raw samples, which it always has.

    The header is what does not grow with the audio's length: everything but the packets.
    """

    def __init__(
        self, name: str, codecs: Sequence[BlockCodec], block_seconds: float, model_bytes: int = 0, verify: bool = False
    ) -> None:
        super().__init__(name, self._code, model_bytes)
        self.codecs, self.block_seconds, self.verify = codecs, block_seconds, verify

    def _code(self, excerpt: Excerpt) -> CodedSize:
        form = _form(excerpt)
        block_frames = block_frames_for(self.block_seconds, form)
        blocks = (
            excerpt.pcm[:, first : first + block_frames] for first in range(0, excerpt.pcm.shape[1], block_frames)
        )
        report = write_coded_file(
            io.BytesIO(), blocks, form, block_frames=block_frames, codecs=self.codecs, verify=self.verify
        )
        if report.refused:
            raise LossError(f"{excerpt.name}: not the samples that were coded: {', '.join(report.refused)}")
        return CodedSize(report.num_bytes, report.num_bytes - sum(report.packet_bytes))


class TokenCoder(Coder):
    """A token language model by itself, in our file format: without the linear prediction that a file takes for blocks
    where it is smaller, which would hide what the model does. Short excerpts go through the network side by side.
    """

    BATCH = 64
    SHORT_FRAMES = 8192  # TokenCodec cuts longer ones into lanes by itself

    def __init__(self, name: str, codec: TokenCodec, block_seconds: float, model_bytes: int, verify: bool) -> None:
        super().__init__(f"{name} alone", self._code, model_bytes)
        self.codec, self.block_seconds, self.verify = codec, block_seconds, verify

    def _code(self, excerpt: Excerpt, stream: bytes | None = None) -> CodedSize:
        """The size of a file of blocks that the codec makes; of the one block that a stream is, where it is given."""
        self._require_depth(excerpt)
        header = _header(excerpt, self.block_seconds, (entry_of(self.codec),))
        around = len(header.pack()) + 4 * header.num_packets + 4  # the seek table and its CRC
        streams = [stream] if stream is not None else [self._stream(part, excerpt) for part in _parts(excerpt, header)]
        return CodedSize(around + sum(HEAD_BYTES + len(coded) for coded in streams), around)

    def _stream(self, pcm: np.ndarray, excerpt: Excerpt) -> bytes:
        bits, rate = excerpt.bits, excerpt.sample_rate_hz
        stream = self.codec.encode(pcm, bits, rate)
        if self.verify and not np.array_equal(self.codec.decode(stream, len(pcm), pcm.shape[1], bits, rate), pcm):
            raise LossError(f"{excerpt.name}: {self.name} does not give back the samples that it coded")
        return stream

    def _require_depth(self, excerpt: Excerpt) -> None:
        if excerpt.bits != self.codec.layout.bits:
            raise NotCodedError(f"the model codes {self.codec.layout.bits} bits, not {excerpt.bits}")

    def code_each(self, excerpts: Sequence[Excerpt]) -> Iterator[CodedSize]:
        """Sizes of excerpts; short ones of one shape are computed side by side."""
        sizes: dict[int, CodedSize] = {}
        alike: dict[tuple[int, ...], list[int]] = {}
        for number, excerpt in enumerate(excerpts):
            self._require_depth(excerpt)
            if self.verify or excerpt.pcm.shape[1] > self.SHORT_FRAMES or excerpt.pcm.shape[0] > 2:
                sizes[number] = self._code(excerpt)
            else:
                alike.setdefault(excerpt.pcm.shape, []).append(number)
        for numbers in alike.values():
            for first in range(0, len(numbers), self.BATCH):
                batch = numbers[first : first + self.BATCH]
                streams = self.codec.encode_each([excerpts[number].pcm for number in batch], self.codec.layout.bits)
                sizes |= {n: self._code(excerpts[n], stream) for n, stream in zip(batch, streams, strict=True)}
        return (sizes[number] for number in range(len(excerpts)))


def _header(excerpt: Excerpt, block_seconds: float, codecs: tuple[CodecEntry, ...]) -> Header:
    """The header of a file of an excerpt; its MD5 is left out."""
    form = _form(excerpt)
    return Header(
        sample_rate_hz=form.sample_rate_hz, num_channels=form.num_channels, bits=form.bits, layout=form.layout,
        num_frames=excerpt.pcm.shape[1], block_frames=block_frames_for(block_seconds, form), md5=bytes(16),
        codecs=codecs,
    )  # fmt: skip


def _parts(excerpt: Excerpt, header: Header) -> Iterator[np.ndarray]:
    """The samples of each packet, in the order of the file."""
    for first in range(0, header.num_frames, header.block_frames):
        for group in header.groups:
            yield excerpt.pcm[group.start : group.stop, first : first + header.block_frames]


class MuLawCoder(Coder):
    """The rate of the codes of a mu-law model. Lossy: the audio does not come back, so this is no lossless size."""

    def __init__(self, name: str, codec: TokenCodec, options: dict[str, Any], model_bytes: int) -> None:
        super().__init__(f"{name} (mu-law codes: lossy)", self._code, model_bytes)
        self.codec, self.options = codec, options

    def _code(self, excerpt: Excerpt) -> CodedSize:
        bits = self.codec.layout.bits
        injector = MuLawInjector(bits=bits, mu=self.options.get("mu"), input_bits=excerpt.bits)
        codes = injector.forward(torch.from_numpy(excerpt.pcm.astype(np.int32))).numpy()
        return CodedSize(len(self.codec.encode(codes - (1 << (bits - 1)), bits, excerpt.sample_rate_hz)), 0)


def run_coder(run: Path, block_seconds: float, verify: bool = False) -> Coder:
    """The coder of a run's folder, or of a model file.

    Raises:
        ValueError: it is neither.
    """
    data = run.read_bytes() if run.is_file() else run_model(run)
    name = run.stem if run.is_file() else run.name
    mu_law = _mu_law(data)
    if mu_law is not None:
        return MuLawCoder(name, token_codec(data, lossy=True), mu_law, len(data))
    codec = model_codec(data, str(run))
    if isinstance(codec, TokenCodec):
        return TokenCoder(name, codec, block_seconds, len(data), verify)
    return WslCoder(f"wsl {name}", [codec], block_seconds, len(data), verify)


def _mu_law(data: bytes) -> dict[str, Any] | None:
    """Options of the companding, of a model of mu-law codes."""
    try:
        return read_spec(data).mu_law
    except ValueError:  # a model of another kind
        return None


def shipped_coders(block_seconds: float, verify: bool = False) -> list[Coder]:
    """Our format with each of the models that come with the project."""
    return [WslCoder("wsl", [model_codec(data)], block_seconds, len(data), verify) for data in shipped_models()]


def whole_files(files: Sequence[IndexEntry], bits: int | None, seconds: float | None) -> Iterator[Excerpt | str]:
    """Every file at its own depth or another one, or its middle; a sentence instead where it cannot serve."""
    for found in files:
        info = found.info
        length = info.num_frames if seconds is None else min(info.num_frames, round(seconds * info.sample_rate_hz))
        if bits is not None and info.bits < bits:
            yield f"{found.relative}: has {info.bits} bits, fewer than {bits}"
        elif length == 0:
            yield f"{found.relative}: has no frames"
        else:
            yield _excerpt(found, (info.num_frames - length) // 2, length, bits or info.bits, found.relative)


def _excerpt(found: IndexEntry, start: int, num_frames: int, bits: int, name: str) -> Excerpt:
    """Frames of a file at its own depth or a lower one: low bits are dropped by an arithmetic shift.

    Never at a higher one: every coder would find the empty bits at once.
    """
    with AudioFile(found.path, stream=found.stream) as file:
        pcm = file.read(start, num_frames) >> (found.info.bits - bits)
    return Excerpt(name=name, pcm=pcm, bits=bits, sample_rate_hz=found.info.sample_rate_hz)


def chunks(files: Sequence[IndexEntry], num: int, chunk_bytes: int, bits: int, seed: int) -> Iterator[Excerpt | str]:
    """Chunks of so many bytes of PCM (or the whole frames that fit), from random places, every place as likely.

    Raises:
        ValueError: a frame does not fit into a chunk.
    """
    usable, places = [], []
    for found in files:
        info = found.info
        frames = chunk_bytes // (info.num_channels * container_bits(bits) // 8)
        if frames < 1:
            raise ValueError(f"{found.path}: {chunk_bytes} bytes do not hold a frame of {info.num_channels} channels")
        if info.bits < bits or info.num_frames < frames:
            why = f"has {info.bits} bits, fewer than {bits}" if info.bits < bits else "is shorter than a chunk"
            yield f"{found.relative}: {why}"
        else:
            usable.append((found, frames))
            places.append(info.num_frames - frames + 1)
    if not usable:
        return
    chosen = np.sort(np.random.default_rng(seed).integers(0, sum(places), num))
    starts = np.cumsum([0, *places])
    for place, number in zip(chosen.tolist(), np.searchsorted(starts, chosen, "right") - 1, strict=True):
        found, frames = usable[number]
        start = place - int(starts[number])
        yield _excerpt(found, start, frames, bits, f"{found.relative}@{start}")
