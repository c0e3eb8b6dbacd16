"""FLAC files of any depth for the tests: verbatim frames, after RFC 9639, written without looking at any library."""

import hashlib

import numpy as np

_RATE_CODES = {44_100: 9, 48_000: 10, 8_000: 4, 16_000: 5}


def crc(content: bytes, bits: int, polynomial: int) -> int:
    """The remainder of FLAC's two checks: 8 bits with 0x07, 16 bits with 0x8005."""
    value = 0
    for byte in content:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 ^ polynomial if value >> (bits - 1) else value << 1) & ((1 << bits) - 1)
    return value


def flac_bytes(
    pcm: np.ndarray, bits: int, sample_rate_hz: int = 44_100, block_frames: int = 256, promised: int | None = None
) -> bytes:
    """``pcm`` (C, T) as a FLAC file of 4 to 32 bits; ``promised`` overrides the length in its header (0: unknown)."""
    num_channels, num_frames = pcm.shape
    wide = (bits + 7) // 8
    raw = np.ascontiguousarray(pcm.T, "<i8").view(np.uint8).reshape(num_frames, num_channels, 8)[..., :wide]
    packed = sample_rate_hz << 44 | (num_channels - 1) << 41 | (bits - 1) << 36
    packed |= num_frames if promised is None else promised
    info = block_frames.to_bytes(2, "big") * 2 + bytes(6) + packed.to_bytes(8, "big")
    info += hashlib.md5(raw.tobytes(), usedforsecurity=False).digest()
    frames = [
        _frame(pcm[:, first : first + block_frames], bits, sample_rate_hz, first // block_frames)
        for first in range(0, num_frames, block_frames)
    ]
    return b"fLaC" + b"\x80\x00\x00\x22" + info + b"".join(frames)


def _frame(pcm: np.ndarray, bits: int, sample_rate_hz: int, number: int) -> bytes:
    assert number < 0x80
    num_channels, num_frames = pcm.shape
    depth_code = {8: 1, 12: 2, 16: 4, 20: 5, 24: 6, 32: 7}.get(bits, 0)  # 0: see STREAMINFO
    header = bytes([0xFF, 0xF8, 0x70 | _RATE_CODES[sample_rate_hz], (num_channels - 1) << 4 | depth_code << 1, number])
    header += (num_frames - 1).to_bytes(2, "big")
    header += bytes([crc(header, 8, 0x07)])
    subframes = "".join(
        "00000010" + "".join(format(int(sample) & ((1 << bits) - 1), f"0{bits}b") for sample in channel)
        for channel in pcm
    )
    subframes += "0" * (-len(subframes) % 8)
    frame = header + int(subframes, 2).to_bytes(len(subframes) // 8, "big")
    return frame + crc(frame, 16, 0x8005).to_bytes(2, "big")
