"""Turn a folder of audio into codes, once, for training without audio; or codes back into audio.

    python scripts/encode_audio.py ~/speech --codec runs/codec --out coded/speech
    python scripts/encode_audio.py ~/speech --codec facebook/encodec_24khz --bandwidth 3 --out coded/speech
    python scripts/encode_audio.py --decode coded/speech --codec runs/codec --out heard

Long files are coded in blocks, several blocks at a time. What is there already, of the same audio, codec and settings,
is not coded again. `mode: codes` of a dataset reads the folder. Exit status: 0; 2 where something is wrong.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from codes.data.audio.codes_cache import CodecDescription, CodedRecording, CodesCache
from codes.data.audio.listing.file_progress import FileProgress
from codes.data.audio.listing.folder import scan
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.reader import read
from codes.data.audio.resample import num_resampled, resample
from codes.devices import usable_device
from codes.models.codec_blocks import blocks_of, decode_in_blocks
from codes.models.pretrained_codec import PretrainedCodec
from codes.yaml_source import OptionError

FLOAT_BITS = 24  # depth that floating point files are read at
BEFORE_SECONDS, AFTER_SECONDS = 1.0, 0.5  # of a block, coded with it and dropped


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if (options.folder is None) == (options.decode is None):
            raise ValueError("give a folder of audio, or --decode and a folder of codes")
        codec = PretrainedCodec(
            path=options.codec, num_codebooks=options.codebooks, bandwidth_kbps=options.bandwidth
        ).to(options.device)
        for line in Decoding(codec, options).run() if options.decode else Encoding(codec, options).run():
            print(line)
    except (OptionError, ValueError, OSError, ImportError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="encode_audio.py", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("folder", type=Path, nargs="?", metavar="DIR", help="a folder of audio, or a file")
    add("--decode", type=Path, metavar="CODES", help="turn this folder of codes back into audio")
    add(
        "--codec",
        type=Path,
        required=True,
        metavar="PATH",
        help="a run, an exported codec, a folder or hub name, a .th",
    )
    add("--codebooks", type=int, metavar="K", help="codebooks, the first ones (default: all)")
    add("--bandwidth", type=float, metavar="KBPS", help="the same in kbit/s")
    add("--resample", action="store_true", help="resample audio of another rate than the codec's")
    add("--each-channel", action="store_true", help="code each channel by itself, with a codec of one channel")
    add("--block-seconds", type=float, default=10.0, help="coded at a time (default: %(default)s)")
    add("--batch", type=int, default=8, help="blocks at a time (default: %(default)s)")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", type=usable_device, default=device, help="(default: %(default)s)")
    add("--out", type=Path, required=True, metavar="DIR", help="where the codes, or the audio, go")
    return parser


class Encoding:
    """Codes of a folder of audio.

    Args:
        codec: the codec, on its device.
        options: of the command.
    """

    def __init__(self, codec: PretrainedCodec, options: argparse.Namespace) -> None:
        if options.batch < 1 or not options.block_seconds > 0:
            raise ValueError(
                f"--batch is {options.batch}, --block-seconds {options.block_seconds}: both must be above 0"
            )
        if options.each_channel and codec.num_channels != 1:
            raise ValueError(f"--each-channel is for codecs of one channel, this one has {codec.num_channels}")
        self.codec, self.options = codec, options
        seconds = (BEFORE_SECONDS, options.block_seconds, AFTER_SECONDS)
        self.before, self.block, self.after = (max(1, round(s * codec.frame_rate_hz)) for s in seconds)
        self.files = scan([options.folder], hashes=True, progress=True, float_bits=FLOAT_BITS).files
        channels = self.files[0].info.num_channels if options.each_channel else 1
        for file in self.files:
            self._check(file, channels)
        described = CodecDescription(
            codec=str(options.codec), weights_hash=codec.weights_hash, sample_rate_hz=codec.sample_rate_hz,
            num_channels=codec.num_channels, num_codebooks=codec.num_codebooks, codebook_size=codec.codebook_size,
            hop_samples=codec.hop_samples, coded_channels=channels, blocks=(self.before, self.block, self.after),
        )  # fmt: skip
        self.cache = CodesCache(options.out, described)

    def _check(self, file: IndexEntry, coded_channels: int) -> None:
        """Refuse what the codec does not take, or has other channels than the first file where each is coded."""
        info, codec = file.info, self.codec
        if info.sample_rate_hz != codec.sample_rate_hz and not self.options.resample:
            raise ValueError(
                f"{file.path} has {info.sample_rate_hz} Hz, the codec takes {codec.sample_rate_hz} Hz: --resample "
                "resamples it"
            )
        if not self.options.each_channel and info.num_channels != codec.num_channels:
            hint = " (--each-channel codes each by itself)" if codec.num_channels == 1 else ""
            raise ValueError(
                f"{file.path} has {info.num_channels} channel(s), the codec takes {codec.num_channels}{hint}"
            )
        if self.options.each_channel and info.num_channels != coded_channels:
            raise ValueError(
                f"{file.path} has {info.num_channels} channel(s), {self.files[0].path} has {coded_channels}: a folder "
                "of codes has as many for each recording"
            )

    def run(self) -> list[str]:
        """Code what is not there yet; returns what is to be said."""
        started, done, coded_seconds = time.perf_counter(), [], 0.0
        with FileProgress("encoding", len(self.files), shown=True) as bar:
            for file in self.files:
                key = self.cache.description.key(file.hashed())
                if not self.cache.has(key):
                    self.cache.write(key, self.encode(self.audio(file)))
                    coded_seconds += file.seconds
                done.append(self._record(file, key))
                bar.advance(1)
        self.cache.finish(done)
        took = time.perf_counter() - started
        frames = sum(recording.num_frames for recording in done)
        codec, made = self.codec, self.cache.description
        codes = frames * made.num_codebooks * made.coded_channels
        speed = f", {coded_seconds / took:.1f} times real time" if coded_seconds else ", nothing new"
        minutes = sum(recording.seconds for recording in done) / 60
        return [
            f"{len(done)} recordings, {minutes:.2f} min: {frames:,} frames, {codes:,} codes of "
            f"{codec.num_codebooks} codebooks of {codec.codebook_size} ({codec.bits_per_second() / 1000:g} kbit/s a "
            f"channel coded){speed}: {self.options.out}"
        ]

    def _record(self, file: IndexEntry, key: str) -> CodedRecording:
        samples = num_resampled(file.info.num_frames, file.info.sample_rate_hz, self.codec.sample_rate_hz)
        return CodedRecording(
            relative=file.relative, path=str(file.path.absolute()), content_hash=file.hashed(),
            size_bytes=file.size_bytes, mtime_ns=file.mtime_ns, num_samples=samples,
            num_frames=-(-samples // self.codec.hop_samples), key=key, sample_rate_hz=self.codec.sample_rate_hz,
        )  # fmt: skip

    def audio(self, file: IndexEntry) -> torch.Tensor:
        """A file as (C, T) float32 at the codec's rate."""
        info, wanted_hz = file.info, self.codec.sample_rate_hz
        pcm = read(file.path, float_bits=FLOAT_BITS)
        if info.sample_rate_hz != wanted_hz:
            pcm = resample(pcm, info.sample_rate_hz, wanted_hz, info.bits)
        return torch.from_numpy((pcm / 2.0 ** (info.bits - 1)).astype(np.float32))

    @torch.no_grad()
    def encode(self, wav: torch.Tensor) -> np.ndarray:
        """wav (C, T) float -> codes (F, K), block by block, as many frames as in one piece."""
        hop = self.codec.hop_samples
        frames = -(-wav.shape[1] // hop)
        wav = torch.nn.functional.pad(wav, (0, frames * hop - wav.shape[1]))
        rows = wav[:, None] if self.options.each_channel else wav[None]  # (B, C, T)
        size = max(1, self.options.batch // len(rows))
        blocks = list(blocks_of(frames, self.block, self.before, self.after))  # all of one length
        parts: list[torch.Tensor] = []
        for group in (blocks[first : first + size] for first in range(0, len(blocks), size)):
            audio = torch.cat([rows[:, :, block.start * hop : block.end * hop] for block in group])
            codes = self.codec.encode(audio.to(self.options.device)).unflatten(0, (len(group), len(rows)))
            parts += [one[:, :, block.kept] for one, block in zip(codes, group, strict=True)]
        return torch.cat(parts, 2).flatten(0, 1).T.cpu().numpy()


class Decoding:
    """Audio of a folder of codes.

    Args:
        codec: the codec that made them, on its device.
        options: of the command.
    """

    def __init__(self, codec: PretrainedCodec, options: argparse.Namespace) -> None:
        self.codec, self.options, self.cache = codec, options, CodesCache(options.decode)
        made = self.cache.description
        if made.weights_hash != codec.weights_hash:
            raise ValueError(
                f"{options.decode} holds codes of other weights ({made.codec}, {made.weights_hash[:12]}...) than "
                f"{options.codec} has ({codec.weights_hash[:12]}...)"
            )

    def run(self) -> list[str]:
        """Write a WAV file for each recording, a.wav and a.wav.wav of a.flac and a.wav; returns what is to be said."""
        recordings, made = self.cache.recordings(), self.cache.description
        taken: set[Path] = set()
        with FileProgress("decoding", len(recordings), shown=True) as bar:
            for recording in recordings:
                stored = np.asarray(self.cache.open(recording)).T.astype(np.int64)
                codes = torch.from_numpy(stored).to(self.options.device).unflatten(0, (made.coded_channels, -1))
                place = (self.options.out / recording.relative).with_suffix(".wav")
                if place in taken:
                    place = self.options.out / f"{recording.relative}.wav"
                taken.add(place)
                place.parent.mkdir(parents=True, exist_ok=True)
                self._write(place, codes, recording.num_samples)
                bar.advance(1)
        return [f"{len(recordings)} recordings: {self.options.out}"]

    def _write(self, place: Path, codes: torch.Tensor, num_samples: int) -> None:
        """codes (C, K, F) of a recording, as they are decoded."""
        import soundfile

        made = self.cache.description
        rate, channels = made.sample_rate_hz, made.num_channels * made.coded_channels
        left = num_samples
        with soundfile.SoundFile(place, "w", samplerate=rate, channels=channels, subtype="PCM_16") as file:
            parts: Any = decode_in_blocks(self.codec, codes)
            for part in parts:
                audio = part.flatten(0, 1)[:, :left].clamp(-1, 1 - 2.0**-15).cpu().numpy()
                file.write(audio.T)
                left -= audio.shape[1]


if __name__ == "__main__":
    sys.exit(main())
