"""A demo corpus: about two minutes of stereo music, synthesised on first use and cached as 16-bit WAV files.

So that a fresh clone trains on files on disk, by the same path as a user's own folder, without downloading anything.
Each file is a small band in a room: a chord progression in its own key and tempo, played by plucked strings, bowed
strings or electric piano, with bass, drums and a melody, panned by level and by time of arrival, over the noise floor
of a recording. All of it follows from the seed.

    python -m codes.data.audio.demo_corpus [--out DIR] [--seed N]
"""

import argparse
import os
import shutil
import sys
import tempfile
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from codes.data.audio import demo_instruments as play
from codes.data.audio.demo_instruments import SAMPLE_RATE_HZ, midi_to_hz, num_samples

NUM_FILES = 12
VERSION = 1  # part of the folder's name: raise it when the synthesis changes
PEAK = 10.0 ** (-3.0 / 20.0)  # -3 dBFS
NOISE_FLOOR = 10.0 ** (-78.0 / 20.0)  # rms of the recording's noise, of full scale
STYLES = ("plucked_trio", "bowed_strings", "electric_piano", "full_band")
# Chords by the degree of the scale that they stand on.
PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (1, 4, 0, 0), (0, 3, 0, 4), (5, 3, 0, 4), (0, 2, 3, 4))
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
KEYS = ("c", "c_sharp", "d", "e_flat", "e", "f", "f_sharp", "g", "a_flat", "a", "b_flat", "b")


def demo_corpus(root: Path | None = None, seed: int = 0) -> Path:
    """The folder of the demo corpus; it is synthesised first (a few seconds) where it does not exist yet.

    It is written aside and renamed as a whole: an interrupted synthesis leaves no half corpus, and two processes that
    start at once end with the same folder.

    Args:
        root: the folder to keep it in; default the user's cache, or what WAVESCHOOL_CACHE says.
        seed: other seeds give other music, each in a folder of its own.

    Raises:
        OSError: the folder cannot be written; the message says which and how to choose another.
    """
    return made_once(root, f"demo_corpus_v{VERSION}_seed{seed}", lambda aside: _compose_all(aside, seed))


def _compose_all(folder: Path, seed: int) -> None:
    for index in range(NUM_FILES):
        name, music = compose(seed, index)
        write_wav(folder / name, music)


def made_once(root: Path | None, name: str, fill: Callable[[Path], None]) -> Path:
    """The folder root/name; where it is not there yet it is filled aside and renamed as a whole.

    Args:
        root: default the user's cache.
        name: of the folder.
        fill: writes into the folder that it is given.

    Raises:
        OSError: the folder cannot be written; the message says which and how to choose another.
    """
    root = cache_root() if root is None else Path(root)
    folder = root / name
    if folder.is_dir():
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=root))
    except OSError as error:
        raise OSError(
            f"cannot make the demo corpus in {root}: {error.strerror}; "
            "set the environment variable WAVESCHOOL_CACHE to a folder that can be written"
        ) from error
    try:
        fill(aside)
        aside.chmod(0o755)
        _move_into_place(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _move_into_place(aside: Path, folder: Path) -> None:
    try:
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process was not first: a real error
            raise


def cache_root() -> Path:
    """WAVESCHOOL_CACHE, or the platform's folder for caches of this user."""
    chosen = os.environ.get("WAVESCHOOL_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "waveschool" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "waveschool"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "waveschool"


def write_wav(path: Path, pcm: np.ndarray) -> None:
    """Write int16 (C, T) as a WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(pcm.shape[0])
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(np.ascontiguousarray(pcm.T, dtype="<i2").tobytes())


@dataclass(kw_only=True)
class Piece:
    """What one file plays, and the stereo mix (2, T) that its instruments are added to."""

    rng: np.random.Generator
    style: str
    key: int  # pitch class of the tonic, 0 is C
    scale: str
    beat_s: float
    progression: tuple[int, ...]
    seconds: float
    mix: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.mix = np.zeros((2, num_samples(self.seconds)))

    @property
    def num_bars(self) -> int:
        """Bars of four beats that begin before the last two seconds, in which the room rings out."""
        return max(1, int((self.seconds - 2.0) / (4 * self.beat_s)) + 1)

    def pitch(self, degree: int, octave: int) -> int:
        """MIDI pitch of a degree of the scale (0 is the tonic; 7 is the tonic an octave above)."""
        return 12 * (octave + 1 + degree // 7) + self.key + SCALES[self.scale][degree % 7]

    def chord(self, bar: int) -> tuple[int, int, int]:
        """The three degrees of that bar's chord."""
        root = self.progression[bar % len(self.progression)]
        return root, root + 2, root + 4

    def add(self, at_s: float, sound: np.ndarray, level: float, pan: float) -> None:
        """Add a sound (T,), panned from -1 (left) to 1 (right) as two microphones hear it: by level and by delay."""
        start = num_samples(at_s + 0.12 + abs(self.rng.normal(0.0, 0.004)))  # a player's timing
        late = round(abs(pan) * 0.0004 * SAMPLE_RATE_HZ)
        angle = (pan + 1.0) * np.pi / 4.0
        for channel, gain in enumerate((np.cos(angle), np.sin(angle))):
            first = start + (late if (pan > 0) == (channel == 0) else 0)
            count = min(len(sound), self.mix.shape[1] - first)
            if count > 0:
                self.mix[channel, first : first + count] += level * gain * sound[:count]


def compose(seed: int, index: int) -> tuple[str, np.ndarray]:
    """File ``index`` of the corpus: its name and int16 samples (2, T)."""
    rng = np.random.default_rng([seed, index])
    bpm = int(rng.integers(72, 132))
    piece = Piece(
        rng=rng,
        style=STYLES[index % len(STYLES)],
        key=int(rng.integers(12)),
        scale=("major", "minor")[int(rng.integers(2))],
        beat_s=60.0 / bpm,
        progression=PROGRESSIONS[int(rng.integers(len(PROGRESSIONS)))],
        seconds=float(rng.uniform(8.5, 11.5)),
    )
    for part in PARTS[piece.style]:
        part(piece)
    name = f"{index:02d}_{piece.style}_{KEYS[piece.key]}_{piece.scale}_{bpm}_bpm.wav"
    return name, _record(piece)


def _record(piece: Piece) -> np.ndarray:
    """The mix in its room with a microphone's noise, as dithered int16 (2, T) that peaks at -3 dBFS."""
    rng = piece.rng
    length = piece.mix.shape[1]
    room = play.room_response(rng, rng.uniform(0.5, 1.3), rng.uniform(0.25, 0.5))
    music = play.convolve(piece.mix, room)[:, :length]
    fade = num_samples(0.8)
    music[:, -fade:] *= np.cos(np.linspace(0.0, np.pi / 2, fade)) ** 2
    music *= PEAK / np.abs(music).max()
    for channel in range(2):
        music[channel] += NOISE_FLOOR * play.shaped_noise(rng, length, 0.0, 7000.0)
    dither = rng.random(music.shape) - rng.random(music.shape)  # triangular, two steps wide
    return np.clip(np.rint(music * 32767.0 + dither), -32768, 32767).astype(np.int16)


def arpeggio(piece: Piece) -> None:
    """Broken chords on a plucked string, in eighths, left of the middle."""
    pattern = piece.rng.permutation([0, 1, 2, 3, 2, 1, 3, 2])
    for bar in range(piece.num_bars):
        degrees = (*piece.chord(bar), piece.chord(bar)[0] + 7)
        for eighth, voice in enumerate(pattern):
            hz = midi_to_hz(piece.pitch(degrees[voice], 3))
            sound = play.plucked_string(piece.rng, hz, 1.6)
            accent = 0.5 if eighth % 4 == 0 else 0.36
            piece.add((4 * bar + eighth / 2) * piece.beat_s, sound, accent * piece.rng.uniform(0.85, 1.1), -0.5)


def strummed_chords(piece: Piece) -> None:
    """Chords strummed on a plucked string twice a bar, right of the middle."""
    for bar in range(piece.num_bars):
        for beat in (0.0, 2.0):
            for string, degree in enumerate(piece.chord(bar)):
                hz = midi_to_hz(piece.pitch(degree, 3))
                sound = play.plucked_string(piece.rng, hz, 2.0, decay_s=1.8, brightness_hz=3000.0)
                piece.add((4 * bar + beat) * piece.beat_s + 0.014 * string, sound, 0.3, 0.45)


def string_section(piece: Piece) -> None:
    """Sustained chords: two desks a voice, spread from left (high) to right (low) as an orchestra sits."""
    for bar in range(piece.num_bars):
        root, third, fifth = piece.chord(bar)
        for degree, octave, pan in ((root, 3, 0.6), (fifth, 3, 0.2), (root + 7, 3, -0.2), (third + 7, 3, -0.6)):
            for desk in (-0.12, 0.12):
                sound = play.bowed_string(piece.rng, midi_to_hz(piece.pitch(degree, octave)), 4.2 * piece.beat_s)
                piece.add(4 * bar * piece.beat_s, sound, 0.2, pan + desk)


def piano_chords(piece: Piece) -> None:
    """Electric piano chords on the first beat and between the third and the fourth, in the middle."""
    for bar in range(piece.num_bars):
        for beat, length in ((0.0, 2.5), (2.5, 1.5)):
            for voice, degree in enumerate(piece.chord(bar)):
                sound = play.electric_piano(piece.rng, midi_to_hz(piece.pitch(degree, 4)), length * piece.beat_s)
                piece.add((4 * bar + beat) * piece.beat_s, sound, 0.22, -0.2 + 0.2 * voice)


def bass_line(piece: Piece) -> None:
    """Root, root, fifth, root in quarters, a little right of the middle."""
    for bar in range(piece.num_bars):
        root, _, fifth = piece.chord(bar)
        for beat, degree in enumerate((root, root, fifth - 7, root)):
            sound = play.electric_bass(piece.rng, midi_to_hz(piece.pitch(degree, 2)), 0.92 * piece.beat_s)
            piece.add((4 * bar + beat) * piece.beat_s, sound, 0.34, 0.1)


def drum_kit(piece: Piece) -> None:
    """Bass drum, snare drum and hi-hat as the player sits."""
    rng = piece.rng
    for bar in range(piece.num_bars):
        start = 4 * bar
        for beat in (0.0, 2.0, 2.5)[: 2 + int(rng.integers(2))]:
            piece.add((start + beat) * piece.beat_s, play.kick(rng), 0.55, 0.0)
        for beat in (1.0, 3.0):
            piece.add((start + beat) * piece.beat_s, play.snare(rng), 0.36 * rng.uniform(0.8, 1.1), -0.1)
        for eighth in range(8):
            piece.add((start + eighth / 2) * piece.beat_s, play.hi_hat(rng), 0.16 * rng.uniform(0.6, 1.1), 0.4)


def melody(piece: Piece, voice: Callable[[np.random.Generator, float, float], np.ndarray], pan: float) -> None:
    """A tune over the chords: chord tones on the beats that count, steps between them, now and then a rest."""
    rng = piece.rng
    degree, at = 7, 0.0
    while at < 4 * piece.num_bars - 0.5:
        length = float(rng.choice([0.5, 1.0, 1.0, 1.5, 2.0]))
        if at % 2 == 0:
            tones = [tone + octave for tone in piece.chord(int(at // 4)) for octave in (0, 7)]
            degree = min(tones, key=lambda tone: abs(tone - degree - rng.integers(-1, 2)))
        else:
            degree = int(np.clip(degree + rng.integers(-2, 3), 2, 12))
        if rng.random() > 0.12:
            sound = voice(rng, midi_to_hz(piece.pitch(degree, 4)), 1.1 * length * piece.beat_s)
            piece.add(at * piece.beat_s, sound, 0.3 * rng.uniform(0.8, 1.1), pan)
        at += length


def plucked_melody(piece: Piece) -> None:
    """The tune on a bright plucked string."""
    melody(piece, lambda rng, hz, _: play.plucked_string(rng, hz, 1.4, decay_s=1.2, brightness_hz=6000.0), 0.3)


def bowed_melody(piece: Piece) -> None:
    """The tune on a solo violin."""
    melody(piece, play.bowed_string, -0.35)


def piano_melody(piece: Piece) -> None:
    """The tune on the electric piano."""
    melody(piece, play.electric_piano, 0.25)


PARTS: dict[str, tuple[Callable[[Piece], None], ...]] = {
    "plucked_trio": (arpeggio, strummed_chords, bass_line, plucked_melody),
    "bowed_strings": (string_section, bowed_melody),
    "electric_piano": (piano_chords, piano_melody, bass_line, drum_kit),
    "full_band": (arpeggio, string_section, bass_line, drum_kit, bowed_melody),
}


def main() -> None:
    """Make the corpus and print what was made."""
    parser = argparse.ArgumentParser(description="Synthesise the demo corpus, or find it in the cache.")
    parser.add_argument("--out", type=Path, help="the folder to keep it in (default: the user's cache)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = demo_corpus(arguments.out, arguments.seed)
    total_s = 0.0
    for path in sorted(folder.glob("*.wav")):
        with wave.open(str(path)) as file:
            seconds = file.getnframes() / file.getframerate()
        total_s += seconds
        print(f"{seconds:6.2f} s  {path.name}")
    print(f"{total_s:6.2f} s of stereo, 16 bits at {SAMPLE_RATE_HZ} Hz, in {folder}")


if __name__ == "__main__":
    main()
