"""Measure what each band of a mel spectrogram is divided by: its mean over a corpus (mel_norm_file).

    python scripts/mel_norms.py LJSpeech-1.1/wavs --out mel_norms.pth [--sample-rate 22050]

The settings are those of the injector torch_mel_spectrogram. Recordings of another rate are resampled.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codes.data.audio.listing.folder import scan
from codes.data.audio.listing.index_entry import IndexEntry
from codes.data.audio.reader import AudioReadError
from codes.data.audio.resample import read_sound
from codes.speech_mel import MelSettings, mel_spectrogram


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, nargs="+", help="folders (searched through and through) or files")
    parser.add_argument("--out", type=Path, default=Path("mel_norms.pth"), help="file (default: mel_norms.pth)")
    parser.add_argument("--sample-rate", type=int, default=22050, help="in Hz (default: 22050)")
    parser.add_argument("--bands", type=int, default=80, help="of the spectrogram (default: 80)")
    parser.add_argument("--highest-hz", type=float, default=8000.0, help="where the bands end (default: 8000)")
    return parser.parse_args(arguments)


def measure(files: list[IndexEntry], settings: MelSettings) -> tuple[torch.Tensor, int]:
    """The mean of each band over all frames of all channels (bands,), and the number of frames.

    Raises:
        ValueError: there is no recording that is long enough.
    """
    total, frames = torch.zeros(settings.bands, dtype=torch.float64), 0
    for file in files:
        wav = torch.from_numpy(read_sound(file.path, settings.sample_rate_hz, stream=file.stream))
        if wav.shape[1] <= settings.window // 2:
            continue
        mel = mel_spectrogram(wav, settings).double()
        total += mel.sum((0, 2))
        frames += mel.shape[0] * mel.shape[2]
    if not frames:
        raise ValueError(f"none of {len(files)} recordings has more than {settings.window // 2} samples")
    return (total / frames).float(), frames


def main(arguments: list[str] | None = None) -> int:
    """0 when the file is written, 2 when something that was given is wrong."""
    given = parse_arguments(arguments)
    try:
        settings = MelSettings(sample_rate_hz=given.sample_rate, bands=given.bands, highest_hz=given.highest_hz)
        files = scan(given.audio, float_bits=16, progress=True).files
        norms, frames = measure(files, settings)
        with given.out.open("wb") as file:
            torch.save(norms, file)
    except (ValueError, AudioReadError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{given.out}: {given.bands} bands over {frames} frames of {len(files)} files, "
          f"from {float(norms.min()):.2f} to {float(norms.max()):.2f}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
