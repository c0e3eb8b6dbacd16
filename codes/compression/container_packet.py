"""Packets, one for each block and pair of channels: a marker, which one it is, whose bytes follow, how many, their CRC.

The seek table in the file's header says where each begins. A packet says it too, so that a damaged table, or bytes that
were lost or inserted, cost no more than the packets that they are in.
"""

import struct
import zlib
from dataclasses import dataclass

MARKER = b"\xb5W"
RAW, LINEAR, FIRST_MODEL = 0, 1, 2
_HEAD = struct.Struct("<2sIBBII")
HEAD_BYTES = _HEAD.size


@dataclass(frozen=True)
class Packet:
    """One packet.

    Attributes:
        number: block * pairs of channels in a block + which pair.
        codec: who coded it: `RAW`, `LINEAR`, or `FIRST_MODEL` + place in the header's list of codecs.
        num_zero_bits: how many low bits of every sample are zero and left out.
        payload: the codec's bytes.
    """

    number: int
    codec: int
    num_zero_bits: int
    payload: bytes

    def pack(self) -> bytes:
        unsealed = _HEAD.pack(MARKER, self.number, self.codec, self.num_zero_bits, len(self.payload), 0)
        return _sealed(unsealed, self.payload) + self.payload


def read_packet(data: bytes) -> Packet | None:
    """The packet that data is, from its marker to its last byte; None where it is damaged."""
    if len(data) < HEAD_BYTES:
        return None
    marker, number, codec, num_zero_bits, num_bytes, _ = _HEAD.unpack_from(data)
    payload = data[HEAD_BYTES:]
    if marker != MARKER or num_bytes != len(payload) or _sealed(data[:HEAD_BYTES], payload) != data[:HEAD_BYTES]:
        return None
    return Packet(number, codec, num_zero_bits, payload)


def packet_bytes(head: bytes) -> int | None:
    """How long the packet is that begins with these `HEAD_BYTES` bytes, as it says itself; None if it is none."""
    if len(head) < HEAD_BYTES or not head.startswith(MARKER):
        return None
    return HEAD_BYTES + _HEAD.unpack(head)[4]


def _sealed(head: bytes, payload: bytes) -> bytes:
    """A packet's head with the CRC-32 of the rest of the head and of the payload."""
    return head[:-4] + struct.pack("<I", zlib.crc32(payload, zlib.crc32(head[:-4])))
