"""What `compress.py info` says of a coded file, line by line; and sizes and counts as people read them."""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.compression.codec import BlockCodec
from codes.compression.container import Header
from codes.compression.container_reader import CodedFile

_LAYOUTS = {
    "none": "not a WAV; comes back as one",
    "usual": "a WAV with the usual header",
    "stored": "a WAV whose header, tags and trailing bytes are kept",
    "bytes": "a file that is kept as its bytes",
}


def info_lines(source: Path) -> Iterator[str]:
    """What is in a coded file.

    Raises:
        CodedFileError: it is damaged, or none.
        OSError: it cannot be read.
    """

    def resolve(*_: object) -> BlockCodec:
        raise AssertionError("packets are not decoded here")

    with CodedFile(source, resolve) as coded:
        header = coded.header
        if header.layout == "bytes":
            yield f"content: {header.num_frames:,} bytes"
        else:
            seconds = header.num_frames / header.sample_rate_hz
            yield (
                f"samples: {header.num_frames} frames ({seconds:.2f} s) of {header.num_channels} channels, "
                f"{header.bits} bits, {header.sample_rate_hz} Hz"
            )
        yield f"md5 of the PCM: {header.md5.hex()}"
        yield f"original: {_LAYOUTS[header.layout]}"
        for entry in header.codecs:
            model = f", model {entry.model_hash.hex()}" if any(entry.model_hash) else ""
            mark = f", fingerprint {entry.fingerprint.hex()}" if any(entry.fingerprint) else ""
            yield f"codec: {entry.name}, profile {entry.profile}{model}{mark}"
        if header.model_bytes:
            digest = hashlib.sha256(coded.embedded_model()).hexdigest()
            yield f"embedded model: {header.model_bytes:,} bytes, {digest}"
        yield from _packet_lines(coded)


def _packet_lines(coded: CodedFile) -> Iterator[str]:
    """Sizes by channel, and how many blocks each codec has."""
    header = coded.header
    sizes, codecs = [0] * len(header.groups), {}
    for number in range(header.num_packets):
        packet = coded.packet(number)
        if packet is None:
            coded.note_damage(f"damaged in {header.place(number)}")
            continue
        sizes[number % len(sizes)] += len(packet.payload)
        name = coded.codec_name(packet)
        codecs[name] = codecs.get(name, 0) + 1
    size = coded.path.stat().st_size
    if header.num_frames:
        rate = 8 * size / (header.num_frames * header.num_channels)
        yield f"size: {size:,} bytes, {rate:.3f} bits per sample"
        for group, bits in zip(header.groups, (8 * total for total in sizes), strict=True):
            names = " and ".join(str(channel) for channel in group)
            plural = "s" if len(group) > 1 else ""
            yield f"channel{plural} {names}: {bits / (header.num_frames * len(group)):.3f} bits per sample"
    yield f"blocks: {header.num_blocks} of {_length(header)}; by codec: {counts(codecs) or 'none'}"


def _length(header: Header) -> str:
    """Of a block."""
    if header.layout == "bytes":
        return f"{header.block_frames:,} bytes"
    return f"{header.block_frames / header.sample_rate_hz:.2f} s"


def counts(by_codec: Mapping[str, int]) -> str:
    """How many blocks each codec has."""
    return ", ".join(f"{name} {count}" for name, count in sorted(by_codec.items()))
