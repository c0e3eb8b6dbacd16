"""Whether a file of MP4, Matroska, Ogg or MPEG audio was cut short: FFmpeg gives what is left of it without a word.

Each of these is a row of parts that start with their own length, and the last part of a cut file ends beyond the file.
"""

import struct

from codes.data.audio.formats.info import AudioReadError, RawFile

_MOST_BOXES = 100_000
_SEGMENT = b"\x18\x53\x80\x67"
# kbit/s of MPEG audio by (version 1 or not, layer) and the code in the header; 0: not told there ("free format").
_KBPS = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KBPS[False, 3] = _KBPS[False, 2]
_RATES_HZ = (44_100, 48_000, 32_000)
_RATE_DIVISORS = {3: 1, 2: 2, 0: 4}  # of MPEG 1, 2 and 2.5, by their code


def check_whole(raw: RawFile) -> None:
    """Refuse a file whose last box, segment or page ends beyond the file's end, and Ogg with pages lost or joined.

    Raises:
        AudioReadError: so it is.
    """
    missing = 0
    if raw.head[4:8] == b"ftyp":
        missing = _missing_of_boxes(raw)
    elif raw.head.startswith(b"\x1aE\xdf\xa3"):
        missing = _missing_of_segment(raw)
    elif raw.head.startswith(b"OggS"):
        _check_pages(raw)
    if missing > 0:
        raise AudioReadError(f"{raw.path}: truncated: at least {missing} bytes are missing at its end")


def _missing_of_boxes(raw: RawFile) -> int:
    """MP4 and MOV (ISO 14496-12): boxes of a size of 4 bytes, a name of 4, and 8 bytes for a size above 4 GB."""
    start = 0
    for _ in range(_MOST_BOXES):
        header = raw.peek(start, 16)
        if len(header) < 8 or not header[4:8].isalnum():
            break
        (size,) = struct.unpack(">I", header[:4])
        if size == 1 and len(header) == 16:
            (size,) = struct.unpack(">Q", header[8:])
        if size < 8:  # 0: until the end
            break
        start += size
        if start >= raw.size_bytes:
            return start - raw.size_bytes
    return 0


def _missing_of_segment(raw: RawFile) -> int:
    """Matroska (RFC 8794): an EBML header and one segment; the size is all ones where it was unknown."""
    size, place = _ebml_size(raw.head, 4)
    if size is None or raw.head[place + size : place + size + 4] != _SEGMENT:
        return 0
    size, place = _ebml_size(raw.head, place + size + 4)
    return 0 if size is None else place + size - raw.size_bytes


def _ebml_size(head: bytes, place: int) -> tuple[int | None, int]:
    """A number whose leading zero bits tell how many bytes it has, and where it ends."""
    if place >= len(head) or head[place] == 0:
        return None, place
    num_bytes = 9 - head[place].bit_length()
    number = int.from_bytes(head[place : place + num_bytes], "big") & (1 << 7 * num_bytes) - 1
    return (None if number == (1 << 7 * num_bytes) - 1 else number), place + num_bytes


def _check_pages(raw: RawFile) -> None:
    """Ogg (RFC 3533): pages of a header of 27 bytes, a table of lengths, and so many bytes; they are numbered.

    FFmpeg goes on behind missing pages, and drops a part of the second of two streams in a row.
    """
    numbers: dict[bytes, int] = {}
    start, has_sound, has_ended = 0, False, False
    while start < raw.size_bytes:
        page = raw.peek(start, 27 + 255)
        if has_ended and not page.startswith(b"OggS"):
            return  # a tag
        num_lengths = page[26] if len(page) > 26 else 0
        lengths = page[27 : 27 + num_lengths]
        missing = start + 27 + num_lengths + sum(lengths) - raw.size_bytes
        if missing > 0:
            raise AudioReadError(f"{raw.path}: truncated: at least {missing} bytes are missing at its end")
        if not page.startswith(b"OggS"):
            raise AudioReadError(f"{raw.path}: broken: no Ogg page starts at byte {start}, where one should")
        is_first, serial, number = page[5] & 2, page[14:18], int.from_bytes(page[18:22], "little")
        if is_first and has_sound:
            raise AudioReadError(f"{raw.path}: a second Ogg stream starts at byte {start}: split the file there")
        if not is_first and numbers.get(serial, number) != number:
            raise AudioReadError(f"{raw.path}: broken: Ogg pages are missing before byte {start}")
        numbers[serial] = number + 1
        has_sound, has_ended = not is_first, bool(page[5] & 4)
        start += 27 + num_lengths + sum(lengths)


def mpeg_frame_bytes(header: bytes) -> int | None:
    """The length that an MPEG audio frame (layer 1 to 3) gives itself; None: it is no such frame or does not tell."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    rate_code, bitrate_code, padding = header[2] >> 2 & 3, header[2] >> 4, header[2] >> 1 & 1
    if version == 1 or layer == 4 or rate_code == 3 or bitrate_code in (0, 15):
        return None
    rate_hz = _RATES_HZ[rate_code] // _RATE_DIVISORS[version]
    bits_per_second = 1000 * _KBPS[version == 3, layer][bitrate_code]
    if layer == 1:
        return (12 * bits_per_second // rate_hz + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits_per_second // rate_hz + padding
