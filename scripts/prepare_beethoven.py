"""Say how to get the Beethoven benchmark, and make WAV files of SampleRNN's arrays.

    python scripts/prepare_beethoven.py
    python scripts/prepare_beethoven.py DIR --arrays FOLDER

FOLDER holds music_train.npy, music_valid.npy and music_test.npy: floats (clips, samples) within -1 .. 1, at 16,000 Hz.
They become DIR/train, DIR/valid and DIR/test with WAV files of 16 bits: round(x * 32768), held at full scale. The
arrays are of 16-bit floats: loud samples have lost their lowest bits in them.
"""

import argparse
import sys
import wave
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from codes.data.audio.demo_corpus import made_once

PARTS = ("train", "valid", "test")
SAMPLE_RATE_HZ = 16_000
STEPS = """The recordings come from archive.org (Beethoven's piano sonatas), where they are said to be in the public
domain.

1. Read the page of those who offer them as clips: https://huggingface.co/datasets/krandiash/beethoven.
2. Download the zip from there and unpack it into a folder: numbered clips of eight seconds, 16,000 Hz, mono.
   Or, if you have SampleRNN's arrays music_train.npy, music_valid.npy and music_test.npy:
       python scripts/prepare_beethoven.py DIR --arrays FOLDER
3. python -m codes.data.audio.beethoven --path FOLDER"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="prepare_beethoven.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="the folder that the WAV files go into")
    parser.add_argument("--arrays", type=Path, metavar="FOLDER", help="SampleRNN's arrays")
    options = parser.parse_args(arguments)
    if options.arrays is None:
        print(STEPS)
        return 0
    if options.folder is None:
        parser.error("name the folder that the WAV files go into")
    try:
        for part in PARTS:
            clips = _read_array(options.arrays / f"music_{part}.npy")
            made_once(options.folder, part, lambda folder, clips=clips: _write_clips(folder, clips))
            print(f"{options.folder / part}: {len(clips)} clips")
    except (OSError, ValueError) as error:
        print(f"prepare_beethoven.py: error: {error}", file=sys.stderr)
        return 1
    print(f"look at it with: python -m codes.data.audio.beethoven --path {options.folder}")
    return 0


def _read_array(path: Path) -> np.ndarray:
    try:
        clips = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if clips.ndim != 2 or clips.dtype.kind != "f":
        raise ValueError(f"{path} holds {clips.dtype} {clips.shape}, it should hold floats (clips, samples)")
    return clips


def _write_clips(folder: Path, clips: np.ndarray) -> None:
    for number, clip in enumerate(clips):
        samples = np.rint(np.asarray(clip, np.float64) * 32768.0)
        if not np.isfinite(samples).all():
            raise ValueError(f"clip {number} has samples that are not finite")
        with wave.open(str(folder / f"{number:05}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE_HZ)
            file.writeframes(np.clip(samples, -32768, 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    sys.exit(main())
