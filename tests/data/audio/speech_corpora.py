"""Small corpora of speech in the forms that `paired_voice_audio` reads: noise in place of voices."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE_HZ = 8000
TEXTS = ("in being comparatively modern.", "The art of printing, in 1905.", "Dr. Gray said so.", "And so on; and on.")


def write(path: Path, num_frames: int = RATE_HZ, *, seed: int = 0, rate: int = RATE_HZ) -> np.ndarray:
    """Noise of 16 bits (1, T), also written to the path."""
    pcm = np.random.default_rng([seed, num_frames]).integers(-9000, 9000, (1, num_frames)).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp3":
        soundfile.write(path, pcm.T, rate, format="MP3")
    else:
        form = {".ogg": "OGG", ".flac": "FLAC"}.get(path.suffix, "WAV")
        soundfile.write(path, pcm.T, rate, format=form, subtype=None if form == "OGG" else "PCM_16")
    return pcm


def lj(root: Path, texts: tuple[str, ...] = TEXTS, frames: tuple[int, ...] | None = None) -> dict[str, np.ndarray]:
    """LJ Speech as it is downloaded, one recording for each text; file name -> PCM."""
    pcm, lines = {}, []
    for number, text in enumerate(texts):
        name = f"LJ001-{number:04}"
        length = frames[number] if frames else RATE_HZ + 10 * number
        pcm[f"{name}.wav"] = write(root / "wavs" / f"{name}.wav", length, seed=number)
        lines.append(f"{name}|raw {text}|{text}\n")
    (root / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    return pcm


def listed(root: Path, lines: list[str], name: str = "train.txt") -> Path:
    """A list of these lines."""
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return root / name


def json_lines(root: Path, records: list[Any], name: str = "train.jsonl") -> Path:
    """JSON lines of these records."""
    return listed(root, [json.dumps(record) for record in records], name)
