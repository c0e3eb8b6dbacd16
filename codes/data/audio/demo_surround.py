"""A demo corpus in 5.1: some pieces of the stereo demo corpus, put into a room with six loudspeakers.

So that what is written for more than two channels can be tried without files of one's own.

    python -m codes.data.audio.demo_surround [--out DIR]
"""

import argparse
import wave
from pathlib import Path

import numpy as np

from codes.data.audio import demo_instruments as play
from codes.data.audio.demo_corpus import compose, made_once, write_wav
from codes.data.audio.demo_instruments import SAMPLE_RATE_HZ, num_samples

NUM_FILES = 4
VERSION = 1  # part of the folder's name: raise it when the mix changes


def demo_surround(root: Path | None = None, seed: int = 0) -> Path:
    """The folder of the corpus: `NUM_FILES` files of 16 bits, channels L R C LFE Ls Rs; made where it is not there.

    Args:
        root: the folder to keep it in; default the user's cache, or what WAVESCHOOL_CACHE says.
        seed: as for the stereo corpus, of whose pieces these are.

    Raises:
        OSError: the folder cannot be written; the message says which and how to choose another.
    """
    return made_once(root, f"demo_surround_v{VERSION}_seed{seed}", lambda aside: _fill(aside, seed))


def _fill(folder: Path, seed: int) -> None:
    for index in range(NUM_FILES):
        name, stereo = compose(seed, index)
        write_wav(folder / name.replace(".wav", "_5.1.wav"), surround(stereo, seed * NUM_FILES + index))


def surround(stereo: np.ndarray, seed: int) -> np.ndarray:
    """int16 (2, T) to int16 (6, T): the middle goes to the centre, the bass below 120 Hz to the LFE, the room behind.

    Args:
        stereo: left and right.
        seed: of the room and of each loudspeaker's noise.
    """
    rng = np.random.default_rng([seed, 51])
    left, right = stereo / 32768.0
    centre, length = (left + right) / 2.0, stereo.shape[1]
    room = play.room_response(rng, 0.9, 0.9)
    behind = 0.5 * play.convolve(np.stack([left - 0.3 * centre, right - 0.3 * centre]), room)[:, :length]
    late = num_samples(0.015)
    behind = np.pad(behind, ((0, 0), (late, 0)))[:, :length]
    channels = np.stack([left - 0.5 * centre, right - 0.5 * centre, 0.7 * centre, _bass(left + right), *behind])
    channels *= 0.8 / max(0.8, float(np.abs(channels).max()))
    dither = rng.random(channels.shape) - rng.random(channels.shape)
    return np.clip(np.rint(channels * 32767.0 + dither), -32768, 32767).astype(np.int16)


def _bass(mono: np.ndarray) -> np.ndarray:
    """(T,) without what lies above 120 Hz (a cosine slope down to 240 Hz)."""
    spectrum, hz = np.fft.rfft(mono), np.fft.rfftfreq(len(mono), 1 / SAMPLE_RATE_HZ)
    slope = np.clip((hz - 120.0) / 120.0, 0.0, 1.0)
    return np.fft.irfft(spectrum * np.cos(slope * np.pi / 2.0), len(mono))


def main() -> None:
    """Make the corpus and print what was made."""
    parser = argparse.ArgumentParser(description="Synthesise the 5.1 demo corpus, or find it in the cache.")
    parser.add_argument("--out", type=Path, help="the folder to keep it in (default: the user's cache)")
    folder = demo_surround(parser.parse_args().out)
    for path in sorted(folder.glob("*.wav")):
        with wave.open(str(path)) as file:
            seconds = file.getnframes() / file.getframerate()
            print(f"{seconds:6.2f} s  {file.getnchannels()} channels  {path.name}")
    print(f"16 bits at {SAMPLE_RATE_HZ} Hz, in {folder}")


if __name__ == "__main__":
    main()
