"""Find packets by their marker, where the seek table is damaged or bytes were lost or inserted."""

import mmap
from typing import BinaryIO

from codes.compression.container_packet import HEAD_BYTES, MARKER, packet_bytes, read_packet

_MOST_READ = 16  # times the file's size: what false markers may cost


def find_packets(file: BinaryIO, start: int, num_packets: int) -> dict[int, tuple[int, int]]:
    """The undamaged packets from a place of a file on: number -> (start, size in bytes)."""
    found: dict[int, tuple[int, int]] = {}
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        left_bytes = _MOST_READ * len(data)
        place = data.find(MARKER, start)
        while place >= 0 and left_bytes > 0:
            size = packet_bytes(data[place : place + HEAD_BYTES])
            after = place + 1
            if size is not None and place + size <= len(data):
                left_bytes -= size
                packet = read_packet(data[place : place + size])
                if packet is not None and packet.number < num_packets:
                    found.setdefault(packet.number, (place, size))
                    after = place + size
            place = data.find(MARKER, after)
    return found
