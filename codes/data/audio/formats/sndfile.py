"""Audio through libsndfile: WAV, RF64, W64, AIFF, CAF, AU and FLAC of 8, 16 and 24 bits, with exact seeking.

libsndfile gives integers left-justified in int16 or int32, so nothing passes through floating point. Two of its habits
need care. It reads a file that is shorter than its header says without a word: its log tells. And it takes the
container for the depth: a WAV of 20 valid bits in 24 (WAVE_FORMAT_EXTENSIBLE, or plain PCM whose bits are no multiple
of 8) and an AIFF of 12 or 20 bits are left-justified in whole bytes by the definition of these formats, the rest being
zeros; the log tells the true depth, and `drop_padding` checks the zeros of what is read.
"""

import errno
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from codes.data.audio.formats.flac_end import ends_as_promised, stream_info
from codes.data.audio.formats.info import (
    AudioInfo,
    AudioReadError,
    RawFile,
    check_frames,
    check_stream,
    drop_padding,
    float_to_bits,
    refuse_floating,
)
from codes.data.audio.formats.wav_chunks import check_chunks, in_usual_order, with_length

# libsndfile's name of a sample type -> bits.
_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_BITS |= {"ALAC_16": 16, "ALAC_20": 20, "ALAC_24": 24, "ALAC_32": 32}
_FLOATING = ("FLOAT", "DOUBLE")
_LOSSY = {"ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"}  # those whose blocks stand alone, so that seeking is exact
_UNKNOWN_FRAMES = 2**63 - 1
_UNKNOWN_LENGTHS = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # what programs that stream write for "until the end"
# How libsndfile's log says that a file is shorter than its header: WAV, CAF, AIFF and AU; then W64.
_LENGTH_NOTES = (
    (r"^\s*(?:data|SSND|Data Size)\s*: (?P<promised>\d+) \(should be (?P<present>\d+)\)", "bytes of samples"),
    (r"^riff : (?P<promised>\d+) \(should be (?P<present>\d+)\)", "bytes"),
)
_TWO_LENGTHS = r"from 'COMM' chunk \((\d+)\) not equal to frame count\s*\*\*\* calculated from .*? chunk \((\d+)\)"
_FRAMES_OF_RF64 = r"^ds64 .*?^  Frames\s*: (-?\d+)"
# And how it says that samples have fewer bits than their container: WAVE_FORMAT_EXTENSIBLE; then plain WAV and AIFF.
_VALID_BITS_NOTE = r"^\s*Valid Bits\s*: (\d+)"
_DEPTH_NOTE = r"^\s*(?:Bit Width|Sample Size)\s*: (\d+)"
_W64_HEADER_BYTES = 24  # of a chunk; its size counts them
_MOST_CHUNKS = 10_000
_BLOCK_FRAMES = 1 << 18


class NotForSndfileError(Exception):
    """libsndfile does not read this file, or not exactly; the message is its reason."""


class SndfileDecoder:
    """A file open in libsndfile; see `info.Decoder`.

    Raises:
        NotForSndfileError: another library must try.
        AudioReadError: it is broken, or floating point and ``float_bits`` is None.
    """

    def __init__(self, raw: RawFile, stream: int, float_bits: int | None) -> None:
        self._path = raw.path
        check_chunks(raw)
        self._file = _open(raw)
        try:
            self.info = _info(raw, self._file, float_bits)
            check_stream(raw.path, stream, 1)
        except (AudioReadError, NotForSndfileError):
            self._file.close()
            raise
        self._is_floating = self._file.subtype in _FLOATING
        self._is_padded = self.info.bits < _BITS.get(self._file.subtype, 0)

    def close(self) -> None:
        """Close libsndfile's side; the file itself is its opener's."""
        self._file.close()

    def fill(self, start_frame: int, pcm: np.ndarray) -> None:
        """Write the frames from ``start_frame`` on into ``pcm``, (channels, frames) at the file's own depth.

        Raises:
            AudioReadError: the file is broken there, or ends before it says it does.
        """
        import soundfile

        dtype = "float64" if self._is_floating else str(pcm.dtype)
        try:
            self._file.seek(start_frame)
            for first in range(0, pcm.shape[1], _BLOCK_FRAMES):
                wanted = pcm[:, first : first + _BLOCK_FRAMES]
                block = self._file.read(wanted.shape[1], dtype=dtype, always_2d=True)
                self._check_count(start_frame + first, len(block), wanted.shape[1])
                wanted[:] = self._integers(block).T
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise AudioReadError(f"{self._path}: broken at or after frame {start_frame}: {error}") from error

    def _check_count(self, start_frame: int, got_frames: int, wanted_frames: int) -> None:
        if got_frames != wanted_frames:
            raise AudioReadError(
                f"{self._path}: truncated or broken: it promises {self.info.num_frames} frames and ends after "
                f"{start_frame + got_frames}"
            )

    def _integers(self, block: np.ndarray) -> np.ndarray:
        if self._is_floating:
            return float_to_bits(self._path, block, self.info.bits)
        return drop_padding(self._path, block, self.info.bits, check=self._is_padded)


def _open(raw: RawFile) -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        raise ImportError(f"reading audio needs soundfile (pip install soundfile): {error}") from error

    class ReadFile(soundfile.SoundFile):
        """soundfile seeks to where it is after every read, for writers; in FLAC that decodes a frame in vain."""

        def seekable(self) -> bool:
            return False

    troubles = (soundfile.SoundFileError, RuntimeError, TypeError, ValueError)
    # The descriptor works for any name. On Windows soundfile's C library would not know it.
    try:
        return ReadFile(raw.path if os.name == "nt" else raw.file.fileno(), closefd=False)
    except troubles as error:
        mended: Any = in_usual_order(raw) or with_length(raw)
        if mended is None:
            raise NotForSndfileError(getattr(error, "error_string", str(error))) from error
    try:
        return ReadFile(mended)
    except troubles as error:
        raise NotForSndfileError(getattr(error, "error_string", str(error))) from error


def _info(raw: RawFile, file: Any, float_bits: int | None) -> AudioInfo:
    subtype = file.subtype
    if subtype not in _BITS and subtype not in _LOSSY and subtype not in _FLOATING:
        raise NotForSndfileError(f"{file.format} {subtype} is not read exactly")
    if file.frames == _UNKNOWN_FRAMES:
        raise NotForSndfileError("the length is unknown")
    bits = refuse_floating(raw.path, subtype, float_bits) if subtype in _FLOATING else _BITS.get(subtype, 16)
    check_frames(raw.path, file.frames, raw.size_bytes)
    log = file.extra_info
    _check_length(raw.path, log, file.frames)
    _check_end(raw, log)
    if raw.head.startswith(b"fLaC") and not ends_as_promised(raw, stream_info(raw.head[8:42])):
        raise NotForSndfileError("the last frame is not where the header says")
    num_frames = _w64_frames(raw, file) if file.format == "W64" else file.frames
    if num_frames == 0:
        raise AudioReadError(f"{raw.path}: has no samples in it (0 frames)")
    return AudioInfo(
        num_frames=num_frames,
        sample_rate_hz=file.samplerate,
        bits=_valid_bits(log, bits) if subtype.startswith("PCM") else bits,
        num_channels=file.channels,
        format=f"{file.format} {subtype}",
        lossy=subtype in _LOSSY,
    )


def _valid_bits(log: str, container_bits: int) -> int:
    """The depth that the header gives, where it is less than its container of whole bytes."""
    for pattern, least_bits in ((_VALID_BITS_NOTE, 1), (_DEPTH_NOTE, container_bits - 7)):
        note = re.search(pattern, log, re.M)
        if note is not None and least_bits <= int(note[1]) < container_bits:
            return int(note[1])
    return container_bits


def _check_length(path: Path, log: str, num_frames: int) -> None:
    """Refuse a file whose header promises more samples than follow: libsndfile only notes it in its log.

    And an AIFF or RF64 whose two lengths differ, of which libsndfile takes that of the samples.
    """
    for pattern, unit in _LENGTH_NOTES:
        note = re.search(pattern, log, re.M)
        if note is None:
            continue
        promised, present = int(note["promised"]), int(note["present"])
        if promised > present and promised not in _UNKNOWN_LENGTHS:
            raise AudioReadError(f"{path}: truncated: promises {promised} {unit} and has {present}")
    note = re.search(_TWO_LENGTHS, log)
    if note is not None and int(note[1]) not in _UNKNOWN_LENGTHS:
        raise AudioReadError(f"{path}: its header promises {note[1]} frames, and its samples are {note[2]} frames")
    note = re.search(_FRAMES_OF_RF64, log, re.M | re.S)
    if note is not None and int(note[1]) not in (0, -1, num_frames):
        raise AudioReadError(
            f"{path}: its header promises {int(note[1]) % 2**64} frames, and its samples are {num_frames} frames"
        )


def _check_end(raw: RawFile, log: str) -> None:
    """Refuse an RF64 or AU that goes on after the length in its header."""
    end = re.search(r"Riff size : (\d+) \(should be \d+\)", log)
    promised = int(end[1]) + 8 if end is not None else None
    if raw.head.startswith(b".snd"):
        offset, size = (int.from_bytes(raw.head[at : at + 4], "big") for at in (4, 8))
        promised = offset + size if size not in _UNKNOWN_LENGTHS else None
    if promised is not None and 8 < promised < raw.size_bytes:
        raise AudioReadError(
            f"{raw.path}: its header promises {promised} bytes, and it has {raw.size_bytes}: the length is wrong"
        )


def _w64_frames(raw: RawFile, file: Any) -> int:
    """The frames in a W64's data chunk. libsndfile counts to the end of the file, whatever chunks follow.

    A chunk is a name of 16 bytes, a size of 8 that counts both, and zeros up to a multiple of 8.
    """
    frame_bytes = file.channels * {"FLOAT": 4, "DOUBLE": 8}.get(file.subtype, _BITS.get(file.subtype, 0) // 8)
    start = 40
    for _ in range(_MOST_CHUNKS if frame_bytes else 0):
        header = raw.peek(start, _W64_HEADER_BYTES)
        size = int.from_bytes(header[16:], "little")
        if len(header) < _W64_HEADER_BYTES or size < _W64_HEADER_BYTES:
            break
        if header.startswith(b"data"):
            return min(file.frames, (size - _W64_HEADER_BYTES) // frame_bytes)
        start += -(-size // 8) * 8
    return file.frames
