"""Read a coded file: check every byte of it, name what is damaged by block and time, and decode the rest if asked to.

with CodedFile(path, resolve) as coded:
    for pcm in coded.blocks():
        ...
"""

import hashlib
import os
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from codes.compression.codec import BlockCodec, CodedFileError, ModelError
from codes.compression.container import (
    MODEL_HASH_BYTES,
    MOST_HEADER_BYTES,
    CodecEntry,
    Header,
    has_good_crc,
    mended,
    read_header,
)
from codes.compression.container_packet import FIRST_MODEL, HEAD_BYTES, LINEAR, RAW, Packet, read_packet
from codes.compression.container_scan import find_packets
from codes.compression.container_writer import entry_of
from codes.compression.linear_codec import LinearCodec
from codes.compression.ordered_work import in_order
from codes.compression.pcm_bytes import md5_bytes
from codes.compression.raw_codec import RawCodec, raw_bytes

_PIECE_BYTES = 1 << 20

Resolve = Callable[[CodecEntry, bytes], BlockCodec]  # what a header asks for, the embedded model or nothing -> a codec


@dataclass(frozen=True, kw_only=True)
class PacketPlace:
    """Where a packet begins in the file, and its size in bytes."""

    start: int
    num_bytes: int


@dataclass
class _Part:
    """A packet of a block on its way: as read, then its samples or what is wrong with it."""

    number: int
    packet: Packet | None
    pcm: np.ndarray | None = None
    problem: str = ""


class CodedFile:
    """An open coded file. A context manager.

    Attributes:
        header: what its header says.
        metadata: the original header as `wav_header.WavHeader.pack` gave it; None where it is damaged.
        damages: what was found wrong so far, a sentence each; only with ``keep_going``, else the first is raised.
        packets_by_codec: how many packets of each codec were decoded so far.

    Args:
        path: the file.
        resolve: gives the codec that a header's entry stands for; not called before a packet needs it.
        keep_going: go around what is damaged, and note it in ``damages``.

    Raises:
        CodedFileError: not a coded file; or damaged, truncated, or with something behind its end (with ``keep_going``:
            only where its header is beyond mending).
        OSError: it cannot be opened or read.
    """

    def __init__(self, path: str | os.PathLike[str], resolve: Resolve, *, keep_going: bool = False) -> None:
        self.path = Path(path)
        self.keep_going = keep_going
        self.damages: list[str] = []
        self.packets_by_codec: dict[str, int] = {}
        self._has_lost_blocks = False
        self._resolving, self._reading = threading.Lock(), threading.Lock()  # a thread may need the embedded model
        self._resolve = resolve
        self._codecs: dict[int, BlockCodec] = {RAW: RawCodec(), LINEAR: LinearCodec()}
        self._found: dict[int, PacketPlace] | None = None
        self._file = open(self.path, "rb")  # noqa: SIM115
        try:
            self._size = self._file.seek(0, os.SEEK_END)
            self.header, start = self._read_header()
            self._read_sections(start)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "CodedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def blocks(self, start_block: int = 0, workers: int = 1) -> Iterator[np.ndarray]:
        """The samples, (C, T) int32 a block; silence for what is damaged. From the first block on, the MD5 is checked.

        Args:
            start_block: the first block.
            workers: how many blocks are decoded at a time, where all codecs are of profile exact.

        Raises:
            CodedFileError: a packet is damaged, or the MD5 is another one; not with ``keep_going``.
            ModelError: the codec that a packet needs is not to be had.
        """
        md5 = hashlib.md5(usedforsecurity=False)
        numbers = range(start_block, self.header.num_blocks)
        workers = workers if all(entry.profile == "exact" for entry in self.header.codecs) else 1
        for parts in in_order(self._decoded_block, map(self._read_block, numbers), workers):
            block = np.concatenate([self._sound(part) for part in parts])
            md5.update(md5_bytes(block, self.header.bits))
            yield block
        if start_block == 0 and not self._has_lost_blocks and md5.digest() != self.header.md5:
            self.note_damage("what it decodes to has not the MD5 that its header gives")

    def block(self, number: int) -> np.ndarray:
        """One block; see `blocks`."""
        return np.concatenate([self._sound(part) for part in self._decoded_block(self._read_block(number))])

    def _read_block(self, block: int) -> list[_Part]:
        """The packets of a block, read and not yet decoded."""
        num_groups = len(self.header.groups)
        numbers = range(block * num_groups, (block + 1) * num_groups)
        return [_Part(number, self.packet(number)) for number in numbers]

    def _decoded_block(self, parts: list[_Part]) -> list[_Part]:
        for part in parts:
            if part.packet is None:
                part.problem = self._packet_damage(part.number)
                continue
            try:
                part.pcm = self._decoded(part.packet)
            except ModelError:
                raise
            except (ValueError, ArithmeticError) as error:  # the latter where hostile data lead a model astray
                part.problem = f"damaged in {self.header.place(part.number)}: {error}"
        return parts

    def _sound(self, part: _Part) -> np.ndarray:
        """The samples of a packet; silence where it is damaged, if that is to be gone around."""
        if part.problem:
            self._has_lost_blocks = True
            self.note_damage(part.problem)
        if part.packet is None or part.pcm is None:
            return np.zeros(self._shape(part.number), np.int32)
        name = self.codec_name(part.packet)
        self.packets_by_codec[name] = self.packets_by_codec.get(name, 0) + 1
        return part.pcm

    def packet(self, number: int) -> Packet | None:
        """A packet as it stands in the file; None where it is damaged or missing."""
        packet = self._packet_at(self._places.get(number), number)
        if packet is None and self.keep_going:
            packet = self._packet_at(self._scanned().get(number), number)
        return packet

    def codec_name(self, packet: Packet) -> str:
        """Which codec a packet was coded by."""
        if packet.codec < FIRST_MODEL:
            return self._codecs[packet.codec].name
        listed = self.header.codecs
        return listed[packet.codec - FIRST_MODEL].name if packet.codec - FIRST_MODEL < len(listed) else "unknown"

    def _read_header(self) -> tuple[Header, int]:
        self._file.seek(0)
        head = self._file.read(MOST_HEADER_BYTES)
        try:
            return read_header(head)
        except CodedFileError as error:
            if not self.keep_going or not head:
                raise CodedFileError(f"{self.path}: {error}") from error
            reason = str(error)
        try:
            header = read_header(head, mend=True)
        except CodedFileError:
            raise CodedFileError(f"{self.path}: {reason}, beyond mending") from None
        self.damages.append(f"{self.path}: {reason}; one wrong bit was mended")
        return header

    def _read_sections(self, start: int) -> None:
        """Read what stands between the header and the packets, and find the packets."""
        header = self.header
        table_bytes = 4 * header.num_packets + 4
        if table_bytes + header.metadata_bytes + header.model_bytes > self._size - start:
            # Before anything of that size is allocated.
            raise CodedFileError(
                f"{self.path}: truncated before its first block, or its header is wrong: {header.num_frames} frames in "
                f"{header.num_packets} packets need {table_bytes} bytes of seek table, the original header "
                f"{header.metadata_bytes}, the model {header.model_bytes}; {self._size - start} follow"
            )
        table = self._section(start, table_bytes, "seek table")
        start += table_bytes
        self.metadata: bytes | None = b""
        if header.metadata_bytes:
            self.metadata = self._section(start, header.metadata_bytes, "part that keeps the original header")
        start += header.metadata_bytes
        self._model_start = start
        self._has_good_model = self._check_model()
        self._first_packet = start + header.model_bytes
        self._places = dict(self._placed(table))
        self._check_end()

    def _section(self, start: int, num_bytes: int, name: str) -> bytes | None:
        """The content of a section that ends in its CRC; None where it is damaged."""
        data = self._bytes(start, num_bytes)
        if has_good_crc(data):
            return data[:-4]
        better = mended(data) if self.keep_going else None
        self.note_damage(f"damaged in its {name}" + ("; one wrong bit was mended" if better else ""))
        return better[:-4] if better else None

    def _placed(self, table: bytes | None) -> Iterator[tuple[int, PacketPlace]]:
        if table is None:
            return
        start = self._first_packet
        for number, num_bytes in enumerate(struct.unpack(f"<{len(table) // 4}I", table)):
            yield number, PacketPlace(start=start, num_bytes=num_bytes)
            start += num_bytes

    def _check_end(self) -> None:
        """Notice a file that is shorter or longer than it should be, without reading it."""
        if not self._places and self.header.num_packets:
            return
        end = self._first_packet + sum(place.num_bytes for place in self._places.values())
        if end < self._size:
            self.note_damage(f"{self._size - end} bytes follow behind its last block")
        if end > self._size:
            cut = next(n for n, place in self._places.items() if place.start + place.num_bytes > self._size)
            self.note_damage(f"truncated in {self.header.place(cut)}: {end - self._size} of {end} bytes are missing")

    def _bytes(self, start: int, num_bytes: int) -> bytes:
        with self._reading:
            self._file.seek(start)
            return self._file.read(max(0, min(num_bytes, self._size - start)))

    def _packet_at(self, place: PacketPlace | None, number: int) -> Packet | None:
        if place is None or place.num_bytes > self._most_packet_bytes(number):
            return None
        data = self._bytes(place.start, place.num_bytes)
        packet = read_packet(data) if len(data) == place.num_bytes else None
        return packet if packet is not None and packet.number == number else None

    def _most_packet_bytes(self, number: int) -> int:
        channels, frames = self._shape(number)
        return HEAD_BYTES + raw_bytes(channels * frames, self.header.bits)

    def _scanned(self) -> dict[int, PacketPlace]:
        """Where packets stand wherever they are: looked for once, when one is not where the seek table says."""
        if self._found is None:
            found = find_packets(self._file, self._first_packet, self.header.num_packets)
            self._found = {number: PacketPlace(start=start, num_bytes=size) for number, (start, size) in found.items()}
        return self._found

    def _packet_damage(self, number: int) -> str:
        place = self._places.get(number)
        kind = "truncated" if place is not None and place.start + place.num_bytes > self._size else "damaged"
        return f"{kind} in {self.header.place(number)}"

    def _shape(self, number: int) -> tuple[int, int]:
        """Channels and frames of a packet."""
        block, group = divmod(number, len(self.header.groups))
        return len(self.header.groups[group]), self.header.frames_of(block)

    def _decoded(self, packet: Packet) -> np.ndarray:
        bits = self.header.bits - packet.num_zero_bits
        if bits < 1:
            raise ValueError(f"{packet.num_zero_bits} low bits are zero of {self.header.bits}")
        shape = self._shape(packet.number)
        pcm = self._codec(packet.codec).decode(packet.payload, *shape, bits, self.header.sample_rate_hz)
        half = 1 << (bits - 1)
        if pcm.shape != shape or pcm.min() < -half or pcm.max() >= half:
            raise ValueError(f"its samples are not {shape[0]} times {shape[1]} of {bits} bits")
        return pcm << packet.num_zero_bits

    def _codec(self, number: int) -> BlockCodec:
        with self._resolving:
            return self._resolved(number)

    def _resolved(self, number: int) -> BlockCodec:
        if number not in self._codecs:
            if number - FIRST_MODEL >= len(self.header.codecs):
                raise ValueError(f"its codec {number} is not in the header's list")
            entry = self.header.codecs[number - FIRST_MODEL]
            try:
                codec = self._resolve(entry, self.embedded_model())
                check_codec(entry, codec)
            except ModelError as error:
                raise ModelError(f"{self.path}: {error}") from error
            self._codecs[number] = codec
        return self._codecs[number]

    def embedded_model(self) -> bytes:
        """The model's file, where the coded file holds it undamaged; else nothing."""
        return self._bytes(self._model_start, self.header.model_bytes) if self._has_good_model else b""

    def _check_model(self) -> bool:
        """Whether there is an embedded model, and it is one that the header names."""
        if self.header.model_bytes == 0:
            return False
        found = hashlib.sha256()
        end = self._model_start + self.header.model_bytes
        for start in range(self._model_start, end, _PIECE_BYTES):
            found.update(self._bytes(start, min(_PIECE_BYTES, end - start)))
        is_good = found.digest()[:MODEL_HASH_BYTES] in {entry.model_hash for entry in self.header.codecs}
        if not is_good:
            self.note_damage("damaged in its embedded model")
        return is_good

    def note_damage(self, sentence: str) -> None:
        """Raise what is wrong with the file, or add it to ``damages`` where it is to keep going.

        Raises:
            CodedFileError: without ``keep_going``.
        """
        message = f"{self.path}: {sentence}"
        if not self.keep_going:
            raise CodedFileError(message)
        self.damages.append(message)


def check_codec(entry: CodecEntry, codec: BlockCodec) -> None:
    """Make sure that a codec is the one that a header asks for.

    Raises:
        ModelError: it is of another name, model, profile or arithmetic.
    """
    here = entry_of(codec)
    if here.name != entry.name:
        raise ModelError(f"was coded by the codec {entry.name!r}, not {here.name!r}")
    if here.model_hash != entry.model_hash:
        raise ModelError(f"was coded with the model {entry.model_hash.hex()}, not {here.model_hash.hex()}")
    if here.profile != entry.profile:
        raise ModelError(f"was coded in the numerics profile {entry.profile!r}, not {here.profile!r}")
    if here.fingerprint != entry.fingerprint:
        raise ModelError(
            "was coded with other arithmetic: the fingerprint of this machine's software is "
            f"{here.fingerprint.hex()}, the file's {entry.fingerprint.hex()}. Decode it on the kind of processor and "
            "with the version of torch that it was coded with: in profile fast these make a difference"
        )
