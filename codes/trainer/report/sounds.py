"""The sounds of runs, embedded: each a small audio file and its spectrogram, as data addresses.

Short ones are FLAC: the very samples. Those that would be too large so are MP3, which is said beside them. An excerpt's
real audio, and what else a model was given, stands once, beside what the runs made of it at several steps.
"""

import base64
import hashlib
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from codes.trainer.report.record import Record

MOST_FLAC_BYTES = 400_000
MOST_BYTES = 1_500_000  # of one sound
MOST_PAGE_BYTES = 24_000_000  # of all of them
_WIDTH, _HEIGHT = 420, 64  # pixels of a channel's spectrogram
_NAME = re.compile(r"(\d+)_(.+)\.wav")


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A sound on the page.

    Args:
        title: what it is.
        run: number of the run that made it; None: real audio.
        audio, picture: data addresses; audio is empty where the page has no room for it.
        seconds: its length.
        prompt_share: the part at its beginning that the model was given.
        note: what one should know of it.
    """

    title: str
    run: int | None
    audio: str
    picture: str
    seconds: float
    prompt_share: float = 0.0
    note: str = ""


@dataclass(kw_only=True)
class Excerpt:
    """What was real, and what the runs made of it."""

    real: list[Sound] = field(default_factory=list)
    made: list[Sound] = field(default_factory=list)


def sample_steps(run: Record) -> dict[int, Path]:
    """The folders of a run's samples by step."""
    folders = sorted((run.folder / "samples").glob("step_*"))
    return {int(path.name.removeprefix("step_")): path for path in folders if path.name.removeprefix("step_").isdigit()}


def chosen_steps(steps: list[int], most: int) -> list[int]:
    """The last and the first ones and some evenly between them, in order."""
    if len(steps) <= most:
        return steps
    if most == 1:
        return steps[-1:]
    return [steps[round(number * (len(steps) - 1) / (most - 1))] for number in range(most)]


class Embedder:
    """Reads sounds and keeps account of what the page holds.

    Args:
        most_bytes: of all audio together; what comes after that is shown without its sound.
    """

    def __init__(self, most_bytes: int = MOST_PAGE_BYTES) -> None:
        self.left = most_bytes
        self.problems: list[str] = []

    def sound(self, path: Path, title: str, run: int | None, prompt_frames: int = 0) -> Sound | None:
        """One file; None, and a problem, where it cannot be read."""
        import soundfile

        try:
            pcm, rate = soundfile.read(path, dtype="int32", always_2d=True)
            if len(pcm) == 0:
                raise ValueError("it has no samples")
            audio, note = self._audio(pcm, rate, soundfile.info(path).subtype, path)
            picture = _picture(pcm, rate)
        except (OSError, ValueError, RuntimeError) as error:  # soundfile raises RuntimeError
            self.problems.append(f"{path}: {' '.join(str(error).split())}")
            return None
        share = prompt_frames / len(pcm) if 0 < prompt_frames < len(pcm) else 0.0
        return Sound(title=title, run=run, audio=audio, picture=picture, seconds=len(pcm) / rate, prompt_share=share,
                     note=note)  # fmt: skip

    def _audio(self, pcm: np.ndarray, rate: int, subtype: str, path: Path) -> tuple[str, str]:
        """The data address of the audio, and a note."""
        data, kind, note = (
            _encoded(pcm, rate, "FLAC", subtype if subtype in ("PCM_16", "PCM_24") else "PCM_24"),
            "flac",
            "",
        )
        if len(data) > MOST_FLAC_BYTES:
            data, kind, note = _encoded(pcm[:, :2], rate, "MP3", None), "mpeg", "MP3 here; exact in the run's folder"
        if len(data) > min(MOST_BYTES, self.left):
            return "", f"too long for this page: {path}"
        self.left -= len(data)
        return _address(f"audio/{kind}", data), note


def _encoded(pcm: np.ndarray, rate: int, kind: str, subtype: str | None) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _picture(pcm: np.ndarray, rate: int) -> str:
    from PIL import Image

    from codes.data.audio.picture import spectrogram_image

    image = spectrogram_image(pcm.T / 2.0**31, rate, width=_WIDTH, height=_HEIGHT, ticks=False)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="WEBP", quality=70)
    return _address("image/webp", buffer.getvalue())


def excerpts(runs: list[Record], embedder: Embedder, *, most_steps: int, most_excerpts: int) -> list[Excerpt]:
    """The sounds of all runs, those of the same real audio together.

    Args:
        runs: the runs.
        embedder: reads the files.
        most_steps: of a run.
        most_excerpts: of a run.
    """
    found: dict[str, Excerpt] = {}
    for number, run in enumerate(runs):
        folders = sample_steps(run)
        for step in chosen_steps(list(folders), most_steps):
            for files in list(_by_excerpt(folders[step]).values())[:most_excerpts]:
                _add(found, files, step, run, number, embedder, len(runs) > 1)
    return list(found.values())


def _by_excerpt(folder: Path) -> dict[int, dict[str, Path]]:
    """The files of a folder by the number of their excerpt and their name."""
    found: dict[int, dict[str, Path]] = {}
    for path in sorted(folder.glob("*.wav")):
        match = _NAME.fullmatch(path.name)
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = path
    return dict(sorted(found.items()))


def _add(
    found: dict[str, Excerpt], files: dict[str, Path], step: int, run: Record, number: int, embedder: Embedder,
    named: bool,
) -> None:  # fmt: skip
    """Put the sounds of one excerpt at one step to those that are there."""
    real = {name: path for name, path in files.items() if not name.startswith("model")}
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in real.values())).hexdigest()
    prompt = _prompt_frames(run, files)
    if digest not in found:
        sounds = [embedder.sound(path, name.replace("_", " "), None, prompt) for name, path in real.items()]
        found[digest] = Excerpt(real=[sound for sound in sounds if sound is not None])
    for name, path in files.items():
        if name in real:
            continue
        best = run.best is not None and int(run.best["step"]) == step
        parts = (run.name if named else "", f"step {step}", name.removeprefix("model").replace("_", " ").strip())
        title = " ".join(part for part in parts if part) + (", best" if best else "")
        sound = embedder.sound(path, title, number, prompt)
        if sound is not None:
            found[digest].made.append(sound)


def _prompt_frames(run: Record, files: dict[str, Any]) -> int:
    """Frames that the model was given before it went on; 0 where it made all of it, or that is not known."""
    options = run.option("samples")
    if not isinstance(options, dict) or set(files) != {"model", "real"} or options.get("given_channel") is not None:
        return 0
    prompt = options.get("prompt_frames")
    return prompt if isinstance(prompt, int) else 0
