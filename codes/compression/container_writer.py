"""Write a coded file: block by block the smallest of what the codecs make of it that decodes to the same samples."""

import copy
import dataclasses
import hashlib
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from codes.compression.codec import BlockCodec
from codes.compression.container import (
    ENTRY_BYTES,
    FINGERPRINT_BYTES,
    MODEL_HASH_BYTES,
    MOST_BLOCK_SAMPLES,
    CodecEntry,
    Header,
    with_crc,
)
from codes.compression.container_packet import FIRST_MODEL, LINEAR, RAW, Packet
from codes.compression.linear_codec import LinearCodec
from codes.compression.ordered_work import in_order
from codes.compression.pcm_bytes import md5_bytes
from codes.compression.raw_codec import RawCodec, raw_bytes

_SPOOL_BYTES = 1 << 26  # of packets, kept in memory before they go to a file of their own


@dataclass(frozen=True, kw_only=True)
class PcmForm:
    """What kind of samples are to be coded; see `container.Header`."""

    sample_rate_hz: int
    num_channels: int
    bits: int
    layout: str = "none"


@dataclass(kw_only=True)
class Report:
    """What became of a file.

    Attributes:
        num_bytes: size of the coded file.
        packet_bytes: of each packet, with its head.
        packets_by_codec: how many packets each codec has coded.
        channel_bits: (C,) bits that each channel took; where a codec does not tell, half of its pair's.
        codecs: the codecs with models that a decoder needs.
        refused: places at which a codec did not give back the same samples, so that another one was taken.
        unsuited: why codecs with models could not code a block, each reason once.
    """

    num_frames: int = 0
    num_bytes: int = 0
    packet_bytes: list[int] = field(default_factory=list)
    packets_by_codec: dict[str, int] = field(default_factory=dict)
    channel_bits: np.ndarray
    codecs: tuple[CodecEntry, ...] = ()
    refused: list[str] = field(default_factory=list)
    unsuited: list[str] = field(default_factory=list)


def block_frames_for(seconds: float, form: PcmForm) -> int:
    """Frames of a block of so many seconds, or fewer where a decoder could not hold as many."""
    return max(1, min(round(seconds * form.sample_rate_hz), MOST_BLOCK_SAMPLES // form.num_channels))


def write_coded_file(
    file: BinaryIO,
    blocks: Iterable[np.ndarray],
    form: PcmForm,
    *,
    block_frames: int,
    codecs: Sequence[BlockCodec] = (),
    metadata: bytes = b"",
    model: bytes = b"",
    verify: bool = True,
    workers: int = 1,
    on_block: Callable[[int], None] = lambda num_frames: None,
) -> Report:
    """Code PCM.

    Args:
        file: where the coded file goes, from its current position on.
        blocks: (C, T) integers, T ``block_frames`` for all but the last.
        codecs: what is tried besides linear prediction and raw samples, which always are.
        metadata: the original header, as `wav_header.WavHeader.pack` gives it.
        model: bytes of the model to embed.
        verify: decode every block and take another codec where that does not give the same samples.
        workers: how many blocks are coded at a time, where all codecs are of profile exact. The file is the same.
        on_block: called with the number of frames of each block that is done.

    Raises:
        ValueError: a block has another shape than it must have.
    """
    header = _empty_header(form, block_frames)
    md5 = hashlib.md5(usedforsecurity=False)
    report = Report(channel_bits=np.zeros(form.num_channels))
    chooser = _Chooser(header, codecs, verify)
    workers = workers if all(codec.profile == "exact" for codec in codecs) else 1
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
        for coded in in_order(chooser.block, enumerate(_checked(blocks, header)), workers):
            md5.update(coded.md5_bytes)
            for choice in coded.choices:
                report.packet_bytes.append(spool.write(choice.packet.pack()))
            _count(report, coded, chooser)
            on_block(coded.num_frames)
        report.codecs = tuple(chooser.entries())
        table = with_crc(struct.pack(f"<{len(report.packet_bytes)}I", *report.packet_bytes))
        kept = with_crc(metadata) if metadata else b""
        model = model if report.codecs else b""
        header = dataclasses.replace(
            header,
            num_frames=report.num_frames,
            md5=md5.digest(),
            codecs=report.codecs,
            metadata_bytes=len(kept),
            model_bytes=len(model),
        )
        report.num_bytes = sum(map(file.write, (header.pack(), table, kept, model))) + spool.tell()
        spool.seek(0)
        shutil.copyfileobj(spool, file)
    return report


def _empty_header(form: PcmForm, block_frames: int) -> Header:
    return Header(
        sample_rate_hz=form.sample_rate_hz,
        num_channels=form.num_channels,
        bits=form.bits,
        num_frames=0,
        block_frames=block_frames,
        md5=bytes(16),
        layout=form.layout,
    )


def _checked(blocks: Iterable[np.ndarray], header: Header) -> Iterator[np.ndarray]:
    last_frames = header.block_frames
    for number, block in enumerate(blocks):
        if block.shape[0] != header.num_channels or not 1 <= block.shape[1] <= header.block_frames:
            raise ValueError(
                f"block {number} has shape {block.shape}, not ({header.num_channels}, {header.block_frames})"
            )
        if last_frames != header.block_frames:
            raise ValueError(f"block {number - 1} is not the last, and shorter than {header.block_frames} frames")
        last_frames = block.shape[1]
        yield block


@dataclass(frozen=True)
class _Choice:
    """A packet and the bits that each of its channels took; codecs that did not give it back, or could not code it."""

    packet: Packet
    channel_bits: np.ndarray
    refused: tuple[str, ...] = ()
    unsuited: tuple[str, ...] = ()


@dataclass(frozen=True)
class _CodedBlock:
    num_frames: int
    md5_bytes: bytes
    choices: tuple[_Choice, ...]


def _count(report: Report, coded: _CodedBlock, chooser: "_Chooser") -> None:
    report.num_frames += coded.num_frames
    report.channel_bits += np.concatenate([choice.channel_bits for choice in coded.choices])
    for choice in coded.choices:
        chooser.use(choice.packet.codec)
        name = chooser.name(choice.packet.codec)
        report.packets_by_codec[name] = report.packets_by_codec.get(name, 0) + 1
        report.refused += [f"packet {choice.packet.number}: {name}" for name in choice.refused]
        report.unsuited += [reason for reason in choice.unsuited if reason not in report.unsuited]


class _Chooser:
    """Makes packets of blocks, each by the codec that makes it smallest."""

    def __init__(self, header: Header, codecs: Sequence[BlockCodec], verify: bool) -> None:
        self._header, self._verify = header, verify
        self._codecs: list[BlockCodec] = [RawCodec(), LinearCodec(), *codecs]
        self._last_used = FIRST_MODEL - 1

    def name(self, codec: int) -> str:
        """The name of the codec that packets call so."""
        return self._codecs[codec].name

    def use(self, codec: int) -> None:
        """Note that a packet refers to a codec."""
        self._last_used = max(self._last_used, codec)

    def entries(self) -> Iterator[CodecEntry]:
        """What the header must list, as packets refer to it."""
        return map(entry_of, self._codecs[FIRST_MODEL : self._last_used + 1])

    def block(self, numbered: tuple[int, np.ndarray]) -> _CodedBlock:
        """The packets of a block."""
        number, pcm = numbered
        groups = self._header.groups
        choices = [
            self._choice(number * len(groups) + place, pcm[group.start : group.stop])
            for place, group in enumerate(groups)
        ]
        return _CodedBlock(pcm.shape[1], md5_bytes(pcm, self._header.bits), tuple(choices))

    def _choice(self, number: int, pcm: np.ndarray) -> _Choice:
        """The packet of (C, T) samples, C 1 or 2."""
        pcm = np.ascontiguousarray(pcm, np.int32)
        candidates, unsuited = self._candidates(number, pcm)
        refused = []
        for candidate in candidates:
            if not self._verify or self._gives_back(candidate.packet, pcm):
                return dataclasses.replace(candidate, refused=tuple(refused), unsuited=unsuited)
            refused.append(self.name(candidate.packet.codec))
        raw = self._made(RAW, number, pcm, _num_zero_bits(pcm))
        return dataclasses.replace(raw, refused=tuple(refused), unsuited=unsuited)

    def _candidates(self, number: int, pcm: np.ndarray) -> tuple[list[_Choice], tuple[str, ...]]:
        """What the codecs make of a block, the smallest first, all smaller than raw; and why models made nothing of it.

        Low bits that are all zero are left out, but where a model only codes samples of its own depth. A codec with a
        model must save what it takes in the header, or a short file would grow by it.
        """

        def cost(made: _Choice) -> int:
            return len(made.packet.payload) + (ENTRY_BYTES if made.packet.codec >= FIRST_MODEL else 0)

        found, unsuited = [], []
        num_zero_bits = _num_zero_bits(pcm)
        most_bytes = raw_bytes(pcm.size, self._header.bits - num_zero_bits)
        for codec in range(LINEAR, len(self._codecs)):
            reason = ""
            for left_out in {num_zero_bits: None, 0: None}:
                try:
                    made = self._made(codec, number, pcm, left_out)
                except ValueError as error:  # it does not code such blocks
                    reason = str(error)
                    continue
                found += [made] if len(made.packet.payload) < most_bytes else []
                break
            else:
                unsuited += [reason] if codec >= FIRST_MODEL else []
        return sorted(found, key=cost), tuple(unsuited)

    def _made(self, number: int, packet: int, pcm: np.ndarray, num_zero_bits: int) -> _Choice:
        """What one codec makes of a block."""
        codec = copy.copy(self._codecs[number])  # whose channel_bits no other thread writes
        payload = codec.encode(pcm >> num_zero_bits, self._header.bits - num_zero_bits, self._header.sample_rate_hz)
        return _Choice(Packet(packet, number, num_zero_bits, payload), _channel_bits(codec, payload, len(pcm)))

    def _gives_back(self, packet: Packet, pcm: np.ndarray) -> bool:
        (channels, frames), zeros = pcm.shape, packet.num_zero_bits
        bits, rate = self._header.bits - zeros, self._header.sample_rate_hz
        try:
            back = self._codecs[packet.codec].decode(packet.payload, channels, frames, bits, rate)
        except ValueError:
            return False
        return np.array_equal(back << zeros, pcm)


def entry_of(codec: BlockCodec) -> CodecEntry:
    """What a header says of a codec."""
    return CodecEntry(
        name=codec.name,
        profile=codec.profile,
        model_hash=codec.model_hash()[:MODEL_HASH_BYTES],
        fingerprint=codec.fingerprint()[:FINGERPRINT_BYTES],
    )


def _num_zero_bits(pcm: np.ndarray) -> int:
    """How many low bits are zero in every sample; 0 where all samples are."""
    combined = int(np.bitwise_or.reduce(pcm, axis=None))
    return (combined & -combined).bit_length() - 1 if combined else 0


def _channel_bits(codec: BlockCodec, payload: bytes, num_channels: int) -> np.ndarray:
    total = 8 * len(payload)
    told = np.asarray(getattr(codec, "channel_bits", ()), np.float64)
    if len(told) != num_channels or told.sum() <= 0:
        told = np.ones(num_channels)
    return told * (total / told.sum())
