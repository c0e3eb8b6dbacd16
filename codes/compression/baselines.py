"""What a model's bits per sample are compared with: FLAC at its best setting, and order-0 entropy.

`reference_codecs` has the other coders of the bench. Both figures are computed on the same integers that the model is
scored on. A sample is one value of one channel.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

_SAMPLES_PER_PACKET = 65_536  # frames given to FFmpeg at a time


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Figures over one set of files. ``flac_label`` names the encoders that the FLAC figure is the best of."""

    flac_bits_per_sample: float
    order0_bits_per_sample: float
    num_samples: int
    flac_label: str


def compare(files: Iterable[tuple[str, np.ndarray, int, int]], bits: int) -> Baselines:
    """Both baselines over files of (path, PCM (C, T), bits, sample rate in Hz), as a dataset's `scored_audio` gives.

    Raises:
        ValueError: there is no sample, or a file has another bit depth than ``bits``.
    """
    flac_total_bits, num_samples = 0, 0
    counts = _SampleCounts(bits)
    for path, pcm, file_bits, sample_rate_hz in files:
        if file_bits != bits:
            raise ValueError(f"{path}: is given with {file_bits} bits, the comparison is at {bits}")
        flac_total_bits += flac_bits(pcm, bits, sample_rate_hz)
        counts.add(pcm)
        num_samples += pcm.size
    if num_samples == 0:
        raise ValueError("no audio to compare with: the iterator gave no sample")
    return Baselines(
        flac_bits_per_sample=flac_total_bits / num_samples,
        order0_bits_per_sample=counts.entropy_bits(),
        num_samples=num_samples,
        flac_label=flac_label(bits),
    )


def order0_bits_per_sample(pcm: Iterable[np.ndarray], bits: int) -> float:
    """Entropy of the distribution of sample values over all channels of all arrays (C, T), in bits per sample.

    What an ideal code would need that knows how often each value occurs, and nothing of the order they come in.

    Raises:
        ValueError: there is no sample, a sample exceeds the bit depth, or the depth exceeds 24.
    """
    counts = _SampleCounts(bits)
    for array in pcm:
        counts.add(array)
    return counts.entropy_bits()


class _SampleCounts:
    """How often each value of a bit depth occurs."""

    def __init__(self, bits: int) -> None:
        _check_bits(bits)
        self.bits = bits
        self.counts = np.zeros(1 << bits, np.int64)

    def add(self, pcm: np.ndarray) -> None:
        _check_range(pcm, self.bits)
        codes, counts = np.unique(pcm, return_counts=True)
        self.counts[codes.astype(np.int64) + (1 << (self.bits - 1))] += counts

    def entropy_bits(self) -> float:
        total = self.counts.sum()
        if total == 0:
            raise ValueError("no sample: the entropy of nothing is undefined")
        shares = self.counts[self.counts > 0] / total
        return float(-(shares * np.log2(shares)).sum()) + 0.0  # + 0.0: no negative zero


def flac_bits(pcm: np.ndarray, bits: int, sample_rate_hz: int) -> int:
    """Size in bits of PCM as FLAC at the best setting here: the smaller of libFLAC's and FFmpeg's.

    libFLAC at level 8; FFmpeg's encoder, where PyAV is installed, at level 12 with linear prediction by Cholesky's
    method in eight passes (more make it larger again) and exact Rice parameters, once choosing between left, right,
    middle and side block by block and once with independent channels. FLAC's frames are counted with their headers
    and checksums; the metadata blocks before them are not.

    Args:
        pcm: (C, T) integers of ``bits`` bits, C from 1 to 8.
        bits: 1 to 24; depths between 8, 16 and 24 are coded as the next of these, whose empty low bits cost nothing.
        sample_rate_hz: frames per second.

    Raises:
        ValueError: the shape, the depth or a sample's value is out of range.
    """
    return min(len(audio_frames(stream)) * 8 for stream in flac_streams(pcm, bits, sample_rate_hz))


def flac_streams(pcm: np.ndarray, bits: int, sample_rate_hz: int, *, only_libflac: bool = False) -> list[bytes]:
    """The FLAC streams that `flac_bits` chooses from, each a whole file; arguments and errors as there.

    Args:
        only_libflac: leave FFmpeg's encoder out.
    """
    _check_bits(bits)
    if pcm.ndim != 2 or not 1 <= pcm.shape[0] <= 8 or pcm.shape[1] == 0:
        raise ValueError(f"FLAC codes samples of shape (1 to 8 channels, time), got {pcm.shape}")
    _check_range(pcm, bits)
    container_bits = -(-bits // 8) * 8
    frames = np.ascontiguousarray(pcm.T.astype(np.int32)) << (container_bits - bits)  # (T, C)
    streams = [_libflac(frames, container_bits, sample_rate_hz)]
    if not only_libflac and has_av() and container_bits > 8:  # FFmpeg's encoder knows 16 and 24 bits
        modes = ("auto", "indep") if pcm.shape[0] == 2 else ("indep",)
        streams += [_ffmpeg(frames, container_bits, sample_rate_hz, mode) for mode in modes]
    return streams


def flac_label(bits: int) -> str:
    """Which encoders `flac_bits` takes the best of at that depth, for people."""
    if bits <= 8:
        return "FLAC (libFLAC level 8)"
    if has_av():
        return "FLAC (best of libFLAC level 8 and FFmpeg level 12)"
    return "FLAC (libFLAC level 8; FFmpeg's encoder was not tried: av is not installed)"


def audio_frames(stream: bytes) -> bytes:
    """What follows the metadata blocks of a FLAC file (RFC 9639, section 8: 1 bit last, 7 bits type, 24 bits size)."""
    assert stream[:4] == b"fLaC", "an encoder gave something else than FLAC"
    at, is_last = 4, False
    while not is_last:
        is_last = bool(stream[at] & 0x80)
        at += 4 + int.from_bytes(stream[at + 1 : at + 4], "big")
    return stream[at:]


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 24:
        raise ValueError(f"baselines know bit depths from 1 to 24, got {bits}")


def _check_range(pcm: np.ndarray, bits: int) -> None:
    if not np.issubdtype(pcm.dtype, np.integer):
        raise ValueError(f"PCM must be integers, got {pcm.dtype}")
    limit = 1 << (bits - 1)
    if pcm.size and (pcm.min() < -limit or pcm.max() >= limit):
        raise ValueError(f"samples from {pcm.min()} to {pcm.max()} are not of {bits} bits ({-limit} to {limit - 1})")


def has_av() -> bool:
    """Whether FFmpeg is there, through PyAV."""
    try:
        import av  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        return False
    return True


def _libflac(frames: np.ndarray, bits: int, sample_rate_hz: int) -> bytes:
    """(T, C) integers of 8, 16 or 24 bits through libFLAC at its highest level."""
    import soundfile

    subtype = {8: "PCM_S8", 16: "PCM_16", 24: "PCM_24"}[bits]
    left_justified = frames << (32 - bits)
    stream = io.BytesIO()
    soundfile.write(stream, left_justified, sample_rate_hz, subtype=subtype, format="FLAC", compression_level=1.0)
    return stream.getvalue()


def _ffmpeg(frames: np.ndarray, bits: int, sample_rate_hz: int, channel_mode: str) -> bytes:
    """(T, C) integers of 16 or 24 bits through FFmpeg's encoder at its highest level."""
    import av

    options = {"compression_level": "12", "lpc_type": "cholesky", "lpc_passes": "8", "exact_rice_parameters": "1"}
    num_channels = frames.shape[1]
    sample_format = "s16" if bits == 16 else "s32"
    layout = {1: "mono", 2: "stereo", 4: "quad", 6: "5.1", 8: "7.1"}.get(num_channels, f"{num_channels}c")
    container = io.BytesIO()
    with av.open(container, "w", format="flac") as output:
        stream = output.add_stream("flac", rate=sample_rate_hz, options={**options, "ch_mode": channel_mode})
        stream.codec_context.format = sample_format
        stream.codec_context.layout = layout
        # 24 bits travel in the high bits of 32; the encoder takes 24 from there.
        packed = frames.astype(np.int16) if bits == 16 else frames << (32 - bits)
        for first in range(0, len(packed), _SAMPLES_PER_PACKET):
            block = np.ascontiguousarray(packed[first : first + _SAMPLES_PER_PACKET]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(block, format=sample_format, layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = sample_rate_hz, first, Fraction(1, sample_rate_hz)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return container.getvalue()
