"""Audio through PyAV (FFmpeg): what libsndfile cannot read, or cannot read exactly at an offset.

Lossless formats (FLAC of 4 to 32 bits, ALAC, WavPack, TTA, ...) come out as integers left-justified in FFmpeg's sample
format; the true depth stands in the format's own header. They are sought by time stamp, and where the stamp does not
name a frame exactly they are decoded from the start.

Lossy formats (MP3, AAC, Opus, Vorbis, WMA, ...) come out at 16 bits: round(x * 2^15), saturated, which is FFmpeg's own
conversion without dither. A decoder's state (overlap, bit reservoir, noise seeds) reaches far back, so they are decoded
from the start always; the decoder stays open, and reading on forwards costs nothing extra.

How many frames a lossy file has is known by decoding it. A walk over the packets (their durations, less encoder delay
and padding) equals the decoder's count for MP3 and ADTS, but not for MP4 with edit lists, Opus, Vorbis or Matroska, and
is only two to three times as fast.
"""

from collections.abc import Generator
from typing import Any

import numpy as np

from codes.data.audio.formats.cut_end import check_whole, mpeg_frame_bytes
from codes.data.audio.formats.info import (
    AudioInfo,
    AudioReadError,
    RawFile,
    SilentVideoError,
    check_frames,
    check_stream,
    drop_padding,
    float_to_bits,
    refuse_floating,
)
from codes.data.audio.formats.pyav_depth import Promise, promise, true_bits

# Only containers of audio: no playlists and scripts, which would open other files. FFmpeg's names of its demuxers.
_DEMUXERS = (
    "aac,ac3,aiff,ape,asf,au,avi,caf,dts,eac3,flac,flv,loas,matroska,mlp,mov,mp3,mpeg,mpegts,ogg,tak,truehd,tta,voc,"
    "w64,wav,wv,xwma"
)
_FLOATING = ("flt", "fltp", "dbl", "dblp")
_SEEKABLE = ("flac", "mov", "tta", "wv")  # after a seek, time stamps are right
_GAPLESS = ("flac", "tta", "wv")  # whose frames say which samples they hold
_BUFFER_BYTES = 1 << 16
_SEEK_WORTH_SECONDS = 5.0  # a shorter way forwards is decoded instead of sought


class PyAvDecoder:
    """A file open in FFmpeg; see `info.Decoder`.

    Args:
        raw: the open file.
        stream: number of the audio stream, from 0.
        float_bits: the depth for floating point samples of lossless formats; None refuses them.
        reason: why libsndfile does not read it, for the message; "" where it was not asked.
        known_frames: its length, where an earlier probe has told; then nothing is decoded to count.

    Raises:
        AudioReadError: not audio that FFmpeg reads, no such stream, floating point, broken or truncated.
    """

    def __init__(
        self, raw: RawFile, stream: int, float_bits: int | None, reason: str = "", known_frames: int | None = None
    ) -> None:
        self._raw = raw
        self._number = stream
        self._reason = reason
        self._known_frames = known_frames
        self._kind: tuple[int, int, str] | None = None  # of all FFmpeg frames
        check_whole(raw)
        self._open()
        try:
            self.info = self._find_info(float_bits)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close FFmpeg's side; the file itself is its opener's."""
        self._frames.close()
        self._container.close()

    def fill(self, start_frame: int, pcm: np.ndarray) -> None:
        """Write the frames from ``start_frame`` on into ``pcm``, (channels, frames) at the file's own depth.

        Raises:
            AudioReadError: the file is broken there, or has fewer or more frames than it says, or its rate or channels
                change.
        """
        self._go_to(start_frame)
        filled, wanted = 0, pcm.shape[1]
        while filled < wanted:
            at = start_frame + filled - self._first
            if at >= self._num_current:
                self._advance()
                continue
            piece = self._current_pcm()[:, at : at + wanted - filled]
            pcm[:, filled : filled + piece.shape[1]] = piece
            filled += piece.shape[1]
        if start_frame + wanted == self.info.num_frames:
            self._check_nothing_follows()

    # -- opening

    def _open(self) -> None:
        """Open the container at its start, and the stream's decoder in it."""
        self._container = _open_container(self._raw, self._reason)
        self._demuxer = self._container.format.name.split(",")[0]
        try:
            streams = self._container.streams.audio
            check_stream(self._raw.path, self._number, len(streams))
            self._stream = streams[self._number]
            self._start_decoder()
        except BaseException:
            self._container.close()
            raise

    def _start_decoder(self) -> None:
        context = self._stream.codec_context
        if context is None:
            raise AudioReadError(f"{self._raw.path}: holds audio of a kind that FFmpeg has no decoder for")
        context.thread_count = 1  # loaders run one process a core, and frames come in one order
        self._lossy = not context.codec.lossless
        if not self._lossy:
            context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
        self._frames = self._decoded()
        self._current: Any = None
        self._converted: np.ndarray | None = None
        self._first = self._num_current = 0  # of the current FFmpeg frame
        self._is_placed = True  # False while a seek has not told where it led

    def _find_info(self, float_bits: int | None) -> AudioInfo:
        path, context = self._raw.path, self._stream.codec_context
        name = f"{self._demuxer.upper()} {context.codec.canonical_name.upper()}"
        self._first_step()
        frame = self._current
        unit = self._stream.time_base * frame.sample_rate  # frames a tick
        seeks = not self._lossy and self._demuxer in _SEEKABLE and 1 in (unit.numerator, unit.denominator)
        if self._lossy:
            self._bits = 16
        elif frame.format.name in _FLOATING:
            self._bits = refuse_floating(path, context.name, float_bits)
        else:
            self._bits = true_bits(self._raw, context, frame.format.bits)
        return AudioInfo(
            num_frames=self._find_length(frame.sample_rate),
            sample_rate_hz=frame.sample_rate,
            bits=self._bits,
            num_channels=frame.layout.nb_channels,
            format=name,
            lossy=self._lossy,
            seeks=seeks,
        )

    def _first_step(self) -> None:
        try:
            self._step()
        except AudioReadError as error:
            if self._reason:  # FFmpeg took it for a format by its name alone
                raise _not_audio(self._raw, self._reason, error.__cause__ or error) from error
            raise
        if self._current is None and self._reason:
            raise _not_audio(self._raw, self._reason, ValueError("no samples in it"))
        if self._current is None:
            raise AudioReadError(f"{self._raw.path}: has no samples in it (0 frames)")

    def _find_length(self, sample_rate_hz: int) -> int:
        """From the header where that is exact (and held to it by `fill`), else by decoding everything."""
        self._sample_rate_hz = sample_rate_hz
        if self._known_frames is not None:
            return self._known_frames
        promised = promise(self._raw, self._container, self._stream, sample_rate_hz)
        if promised.num_frames and promised.is_exact and promised.is_likely and not self._lossy:
            check_frames(self._raw.path, promised.num_frames, self._raw.size_bytes)
            return promised.num_frames
        longest = 0
        while self._current is not None:
            longest = max(longest, self._num_current)
            check_frames(self._raw.path, self._first + self._num_current, self._raw.size_bytes)
            self._step()
        self._check_promise(promised, tolerance=2 * longest if self._lossy or not promised.is_exact else 0)
        return self._first

    def _check_promise(self, promised: Promise, tolerance: int) -> None:
        """``_first`` frames were decoded: are they those promised? A rounded duration is good to a packet or two."""
        if promised.num_frames is None:
            return
        if self._first < promised.num_frames - tolerance:
            raise AudioReadError(
                f"{self._raw.path}: truncated or broken: it promises {promised.num_frames} frames and ends after "
                f"{self._first}"
            )
        if self._first > promised.num_frames and not tolerance:
            raise self._goes_on(promised.num_frames)

    # -- decoding

    def _decoded(self) -> Generator[Any]:
        """FFmpeg's frames that hold samples, from where the container stands to the end."""
        import av

        try:
            for packet in self._container.demux(self._stream):
                self._check_packet(packet)
                yield from (frame for frame in packet.decode() if frame.samples)
        except AudioReadError:
            raise
        except (av.FFmpegError, OSError, ValueError, RuntimeError, MemoryError) as error:
            place = f"truncated or broken at or after frame {self._end}"
            raise AudioReadError(f"{self._raw.path}: {place}: {_words(error)}") from error

    def _check_packet(self, packet: Any) -> None:
        """Refuse a packet that is cut, which FFmpeg would fill up."""
        is_cut = packet.is_corrupt
        if self._demuxer == "mp3" and packet.size:
            is_cut |= packet.size < (mpeg_frame_bytes(bytes(packet)[:4]) or 0)
        if is_cut:
            raise AudioReadError(f"{self._raw.path}: truncated or broken at or after frame {self._end}")

    @property
    def _end(self) -> int:
        return self._first + self._num_current

    def _step(self) -> None:
        """Take the next FFmpeg frame; at the end ``_current`` is None and ``_first`` the number of frames."""
        self._first, self._num_current = self._end, 0
        self._converted = None
        self._current = next(self._frames, None)
        if self._current is None:
            return
        kind = _kind(self._current)
        if self._kind is None:
            self._kind = kind
        if kind != self._kind:
            raise AudioReadError(
                f"{self._raw.path}: changes at frame {self._first} from {_in_words(self._kind)} to {_in_words(kind)}"
            )
        self._num_current = self._current.samples
        self._check_gap()

    def _check_gap(self) -> None:
        """A broken frame of FLAC, WavPack or TTA is skipped by FFmpeg: the next one's time stamp tells."""
        pts, unit = self._current.pts, self._stream.time_base * self._current.sample_rate
        if self._demuxer not in _GAPLESS or pts is None or unit != 1:
            return
        if self._is_placed and pts != self._first:
            raise AudioReadError(
                f"{self._raw.path}: broken: after frame {self._first} comes frame {pts}, what is between is missing"
            )

    def _advance(self) -> None:
        self._step()
        if self._current is None:
            raise AudioReadError(
                f"{self._raw.path}: truncated or broken: it promises {self.info.num_frames} frames and ends after "
                f"{self._first}"
            )

    def _check_nothing_follows(self) -> None:
        if self._end == self.info.num_frames and self._current is not None:
            self._step()
        if self._end != self.info.num_frames:
            raise self._goes_on(self.info.num_frames)

    def _goes_on(self, num_frames: int) -> AudioReadError:
        return AudioReadError(f"{self._raw.path}: goes on after the {num_frames} frames that its header promises")

    def _current_pcm(self) -> np.ndarray:
        """The current FFmpeg frame, (channels, frames) integers at the file's own depth."""
        if self._converted is None:
            samples = self._current.to_ndarray()
            if not self._current.format.is_planar:
                samples = samples.reshape(-1, self.info.num_channels).T
            self._converted = self._integers(samples)
        return self._converted

    def _integers(self, samples: np.ndarray) -> np.ndarray:
        if samples.dtype.kind == "f":
            return float_to_bits(self._raw.path, samples, self._bits)
        if samples.dtype == np.uint8:
            samples = (samples.astype(np.int16) - 128) << 8
        if self._lossy and samples.dtype == np.int32:
            return float_to_bits(self._raw.path, samples / 2.0**31, 16)
        return drop_padding(self._raw.path, samples, self._bits, check=True)

    # -- moving

    def _go_to(self, start_frame: int) -> None:
        is_near = 0 <= start_frame - self._first < _SEEK_WORTH_SECONDS * self.info.sample_rate_hz
        if is_near and (self._current is not None or start_frame == self._first):
            return
        if self.info.seeks:
            self._seek(start_frame)
        elif start_frame < self._first or self._current is None:
            self._rewind()

    def _seek(self, start_frame: int) -> None:
        """Go to an FFmpeg frame at or before ``start_frame``; to the start where the time stamp names no frame."""
        import av

        unit = self._stream.time_base * self._sample_rate_hz  # frames a tick
        origin = self._stream.start_time or 0
        try:
            self._container.seek(origin + int(start_frame / unit), stream=self._stream, backward=True)
        except (av.FFmpegError, OSError):
            self._rewind()
            return
        self._frames = self._decoded()
        self._first = self._num_current = 0
        self._is_placed = False
        try:
            self._step()
        except AudioReadError:
            self._current = None
        self._is_placed = True
        place = None if self._current is None or self._current.pts is None else (self._current.pts - origin) * unit
        if place is None or place.denominator != 1 or not 0 <= place <= start_frame:
            self._rewind()
            return
        self._first = int(place)

    def _rewind(self) -> None:
        """Start anew: opened again, as no seek resets every decoder and demuxer to what it was."""
        self.close()
        self._open()
        self._step()


def num_audio_streams(raw: RawFile, reason: str = "") -> int:
    """Audio streams of a file, by FFmpeg.

    Raises:
        AudioReadError: it is not audio that FFmpeg reads, or it has none.
    """
    container = _open_container(raw, reason)
    count = len(container.streams.audio)
    container.close()
    return count


def _open_container(raw: RawFile, reason: str) -> Any:
    import av

    raw.file.seek(0)
    try:
        container = av.open(
            _Unclosed(raw),
            metadata_errors="replace",
            buffer_size=_BUFFER_BYTES,
            container_options={"format_whitelist": _DEMUXERS},
        )
    except (av.FFmpegError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise _not_audio(raw, reason, error) from error
    if not container.streams.audio:
        kind = SilentVideoError if container.streams.video else AudioReadError
        container.close()
        raise kind(f"{raw.path}: has no audio stream in it")
    return container


def _not_audio(raw: RawFile, reason: str, error: BaseException) -> AudioReadError:
    asked = f"libsndfile reads: {reason.rstrip('.')}; nor FFmpeg" if reason else "FFmpeg reads"
    return AudioReadError(f"{raw.path}: is not audio that {asked}: {_words(error)}")


class _Unclosed:
    """The open file for FFmpeg, which may not close it. Its name ends as the file's: that helps to guess the format."""

    def __init__(self, raw: RawFile) -> None:
        self.name = "audio" + raw.path.suffix.encode("ascii", "replace").decode()
        self.read = raw.file.read
        self.tell = raw.file.tell
        self._seek = raw.file.seek

    def seek(self, offset: int, whence: int = 0) -> int:
        """-1 for a place that cannot be, as broken files name: of an error PyAV would print the trace."""
        try:
            return self._seek(offset, whence)
        except (OSError, OverflowError):
            return -1


def _kind(frame: Any) -> tuple[int, int, str]:
    return frame.sample_rate, frame.layout.nb_channels, frame.format.name


def _in_words(kind: tuple[int, int, str]) -> str:
    return f"{kind[1]} channels at {kind[0]} Hz ({kind[2]})"


def _words(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
