"""Small corpora in the published layouts, for the tests: noise in files of the kind that the corpus has."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

STEMS = ("mixture", "drums", "bass", "other", "vocals")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write(path: Path, num_frames: int, *, channels: int = 1, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    """Noise of 16 bits, (C, T), which is also written to the path as its name says."""
    pcm = np.random.default_rng([seed, num_frames]).integers(-(2**15), 2**15, (channels, num_frames)).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, pcm.T, rate, subtype="PCM_16")
    return pcm


def write_stem_mp4(path: Path, num_frames: int, *, num_streams: int = 5, rate: int = 44_100) -> None:
    """An MP4 of several streams of stereo AAC: a tone of 200 Hz in the first, 400 Hz in the second and so on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(num_frames) / rate
    with av.open(str(path), "w", format="mp4") as out:
        streams: list[Any] = [out.add_stream("aac", rate=rate) for _ in range(num_streams)]
        for stream in streams:
            stream.codec_context.layout = "stereo"
        for number, stream in enumerate(streams):
            tone = (0.3 * np.sin(2 * np.pi * 200 * (number + 1) * time_s)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(np.stack([tone, 0.5 * tone]), format="fltp", layout="stereo")
            frame.sample_rate = rate
            frame.pts = 0
            for piece in [*av.AudioResampler(format="fltp", layout="stereo", rate=rate).resample(frame)]:
                out.mux(stream.encode(piece))
            out.mux(stream.encode(None))


def musdb18_hq(root: Path, tracks: dict[str, list[str]], num_frames: int = 400) -> dict[tuple[str, str], np.ndarray]:
    """MUSDB18-HQ with these tracks in train and test; (track, stem) -> PCM."""
    pcm = {}
    for subset, names in tracks.items():
        for track in names:
            for number, stem in enumerate(STEMS):
                path = root / subset / track / f"{stem}.wav"
                seed = number + 10 * len(pcm)
                pcm[track, stem] = write(path, num_frames, channels=2, rate=44_100, seed=seed)
    return pcm


def librispeech(root: Path) -> dict[str, np.ndarray]:
    """Two training speakers, one of dev and one of test; name of each recording -> PCM."""
    pcm = {}
    for subset, speaker in (("train-clean-100", 19), ("train-clean-100", 26), ("dev-clean", 84), ("test-clean", 61)):
        folder = root / "LibriSpeech" / subset / str(speaker) / "198"
        for number in range(2):
            name = f"{speaker}-198-{number:04}"
            pcm[name] = write(folder / f"{name}.flac", 300 + 10 * number, seed=speaker)
        lines = [f"{speaker}-198-{number:04} WORDS OF {speaker} {number}\n" for number in range(2)]
        (folder / f"{speaker}-198.trans.txt").write_text("".join(lines), encoding="utf-8")
    (root / "LibriSpeech" / "SPEAKERS.TXT").write_text("; readers\n", encoding="utf-8")
    return pcm


def ljspeech(root: Path, num_files: int = 10) -> dict[str, np.ndarray]:
    """LJ Speech of so many recordings; name of each -> PCM."""
    folder = root / "LJSpeech-1.1"
    names = [f"LJ001-{number:04}" for number in range(1, num_files + 1)]
    pcm = {name: write(folder / "wavs" / f"{name}.wav", 200, rate=22_050, seed=n) for n, name in enumerate(names)}
    lines = "".join(f"{name}|Dr. {name} said “hm”|Doctor {name} said “hm”\n" for name in names)
    (folder / "metadata.csv").write_text(lines, encoding="utf-8")
    return pcm


def vctk(root: Path, *, trimmed: bool = True) -> dict[str, np.ndarray]:
    """Three speakers of two sentences, one of them without text; name of each recording -> PCM."""
    root = root / ("VCTK-Corpus-0.92" if trimmed else "VCTK-Corpus")
    pcm = {}
    for speaker in ("p225", "p226", "p315"):
        for number in (1, 2):
            name = f"{speaker}_{number:03}"
            for suffix in ("_mic1.flac", "_mic2.flac") if trimmed else (".wav",):
                path = root / ("wav48_silence_trimmed" if trimmed else "wav48") / speaker / f"{name}{suffix}"
                pcm[path.name] = write(path, 200, rate=48_000, seed=len(pcm))
            if speaker != "p315":
                text = root / "txt" / speaker / f"{name}.txt"
                text.parent.mkdir(parents=True, exist_ok=True)
                text.write_text(f"Sentence {number} of {speaker}.\n", encoding="utf-8")
    return pcm


def sc09(root: Path) -> dict[str, np.ndarray]:
    """Four recordings of each digit, one to validate and one to test, and another word; name as in lists -> PCM."""
    pcm = {}
    lists = {"validation_list.txt": 2, "testing_list.txt": 3}
    for number, digit in enumerate((*DIGITS, "bed")):
        for take in range(4):
            name = f"{digit}/{take}a1b_nohash_0.wav"
            pcm[name] = write(root / name, 160, seed=10 * number + take)
    for name, take in lists.items():
        lines = [f"{digit}/{take}a1b_nohash_0.wav\n" for digit in (*DIGITS, "bed")]
        (root / name).write_text("".join(lines), encoding="utf-8")
    return pcm


def clips(folder: Path, num_clips: int, name: str = "out{}.wav") -> dict[str, np.ndarray]:
    """Numbered clips without leading zeros; name -> PCM."""
    names = [name.format(number) for number in range(num_clips)]
    return {name: write(folder / name, 120, seed=number) for number, name in enumerate(names)}


def birdvox_full_night(root: Path) -> dict[int, np.ndarray]:
    """Three units of one second at 24 kHz, with a call at half a second in unit 1 and none in unit 2; unit -> PCM."""
    pcm = {}
    for unit in (1, 2, 10):
        path = root / f"BirdVox-full-night_flac-audio_unit{unit:02}.flac"
        pcm[unit] = write(path, 24_000, rate=24_000, seed=unit)
    for unit, rows in ((1, "0.5,5000\n"), (2, "")):
        table = root / f"BirdVox-full-night_csv-annotations_unit{unit:02}.csv"
        table.write_text("Time (s),Freq (Hz)\n" + rows, encoding="utf-8")
    return pcm


def birdvox_20k(root: Path) -> dict[str, np.ndarray]:
    """Four clips, three of them labelled; name -> PCM."""
    names = ("aa-1", "bb-2", "cc-3", "dd-4")
    pcm = {name: write(root / "wav" / f"{name}.wav", 441, rate=44_100, seed=n) for n, name in enumerate(names)}
    rows = "".join(f"{name},BirdVox-DCASE-20k,{label}\n" for name, label in zip(names, (1, 0, 1), strict=False))
    (root / "BirdVox-DCASE-20k_csv-public.csv").write_text("itemid,datasetid,hasbird\n" + rows, encoding="utf-8")
    return pcm
