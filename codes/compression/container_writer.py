"""Write a coded file: block by block the smallest of what the codecs make of it that decodes to the same samples."""

import hashlib
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from codes.compression.codec import BlockCodec
from codes.compression.container import (
    FINGERPRINT_BYTES,
    MODEL_HASH_BYTES,
    MOST_BLOCK_SAMPLES,
    CodecEntry,
    Header,
    with_crc,
)
from codes.compression.container_packet import FIRST_MODEL, LINEAR, RAW, Packet
from codes.compression.linear_codec import LinearCodec
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
        refused: places at which a codec did not give back the same samples, so that another one was taken.
    """

    num_frames: int = 0
    num_bytes: int = 0
    packet_bytes: list[int] = field(default_factory=list)
    packets_by_codec: dict[str, int] = field(default_factory=dict)
    channel_bits: np.ndarray
    refused: list[str] = field(default_factory=list)


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
        on_block: called with the number of frames of each block that is done.

    Raises:
        ValueError: a block has another shape than it must have.
    """
    md5 = hashlib.md5(usedforsecurity=False)
    report = Report(channel_bits=np.zeros(form.num_channels))
    header = Header(
        sample_rate_hz=form.sample_rate_hz,
        num_channels=form.num_channels,
        bits=form.bits,
        num_frames=0,
        block_frames=block_frames,
        md5=bytes(16),
        layout=form.layout,
    )
    chooser = _Chooser(form, codecs, verify, report)
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
        for number, block in enumerate(blocks):
            if block.shape[0] != form.num_channels or not 1 <= block.shape[1] <= block_frames:
                raise ValueError(f"block {number} has shape {block.shape}, not ({form.num_channels}, {block_frames})")
            if report.num_frames != number * block_frames:
                raise ValueError(f"block {number - 1} is not the last, and shorter than {block_frames} frames")
            md5.update(md5_bytes(block, form.bits))
            report.num_frames += block.shape[1]
            for group in header.groups:
                packet = chooser.packet(len(report.packet_bytes), block[group.start : group.stop], group)
                report.packet_bytes.append(spool.write(packet.pack()))
            on_block(block.shape[1])
        sections = [with_crc(struct.pack(f"<{len(report.packet_bytes)}I", *report.packet_bytes))]
        sections += [with_crc(metadata)] if metadata else []
        sections += [model] if chooser.entries and model else []
        header = Header(
            sample_rate_hz=form.sample_rate_hz,
            num_channels=form.num_channels,
            bits=form.bits,
            num_frames=report.num_frames,
            block_frames=block_frames,
            md5=md5.digest(),
            layout=form.layout,
            codecs=tuple(chooser.entries),
            metadata_bytes=len(metadata) + 4 if metadata else 0,
            model_bytes=len(model) if chooser.entries else 0,
        )
        report.num_bytes = sum(file.write(section) for section in (header.pack(), *sections)) + spool.tell()
        spool.seek(0)
        shutil.copyfileobj(spool, file)
    return report


class _Chooser:
    """Makes a packet of samples by the codec that makes it smallest."""

    def __init__(self, form: PcmForm, codecs: Sequence[BlockCodec], verify: bool, report: Report) -> None:
        self._form, self._verify, self._report = form, verify, report
        self._codecs: list[BlockCodec] = [RawCodec(), LinearCodec(), *codecs]
        self.entries: list[CodecEntry] = []  # as many as packets refer to

    def packet(self, number: int, pcm: np.ndarray, group: range) -> Packet:
        """The packet of (C, T) samples, C 1 or 2."""
        pcm = np.ascontiguousarray(pcm, np.int32)
        num_zero_bits = _num_zero_bits(pcm)
        pcm = pcm >> num_zero_bits
        bits = self._form.bits - num_zero_bits
        for codec, payload, channel_bits in self._candidates(pcm, bits):
            if self._verify and not self._gives_back(codec, payload, pcm, bits):
                self._report.refused.append(f"packet {number}: {self._codecs[codec].name}")
                continue
            self._count(codec, channel_bits, group)
            return Packet(number, codec, num_zero_bits, payload)
        payload = self._codecs[RAW].encode(pcm, bits, self._form.sample_rate_hz)
        self._count(RAW, _channel_bits(self._codecs[RAW], payload, len(pcm)), group)
        return Packet(number, RAW, num_zero_bits, payload)

    def _candidates(self, pcm: np.ndarray, bits: int) -> list[tuple[int, bytes, np.ndarray]]:
        """Codec, its bytes and its bits by channel, the smallest first; all smaller than the raw samples."""
        found = []
        for number, codec in list(enumerate(self._codecs))[LINEAR:]:
            try:
                payload = codec.encode(pcm, bits, self._form.sample_rate_hz)
            except ValueError:
                continue  # it does not code such blocks
            if len(payload) < raw_bytes(pcm.size, bits):
                found.append((number, payload, _channel_bits(codec, payload, len(pcm))))
        return sorted(found, key=lambda candidate: len(candidate[1]))

    def _gives_back(self, codec: int, payload: bytes, pcm: np.ndarray, bits: int) -> bool:
        try:
            back = self._codecs[codec].decode(payload, len(pcm), pcm.shape[1], bits, self._form.sample_rate_hz)
        except ValueError:
            return False
        return np.array_equal(back, pcm)

    def _count(self, codec: int, channel_bits: np.ndarray, group: range) -> None:
        name = self._codecs[codec].name
        self._report.packets_by_codec[name] = self._report.packets_by_codec.get(name, 0) + 1
        self._report.channel_bits[group.start : group.stop] += channel_bits
        while len(self.entries) <= codec - FIRST_MODEL:
            listed = self._codecs[FIRST_MODEL + len(self.entries)]
            self.entries.append(entry_of(listed))


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
