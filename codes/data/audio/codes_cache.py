"""Codes of audio, kept on disk: uint16, mapped into memory, named by what decides them.

A folder holds `codes.json` (what made the codes), `index.jsonl` (a line a recording) and the codes themselves, one
NumPy file (F, K) a recording. A file's name is a hash of the audio's bytes, the codec's weights and the settings, so
that nothing stale can be taken for fresh: what does not fit its name is refused.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from codes.data.audio.listing.index_entry import hash_file

VERSION = 1  # part of every name: raise it when the same audio and codec give other codes
DESCRIPTION, INDEX = "codes.json", "index.jsonl"
MOST_CODES = 1 << 16  # what uint16 holds


class CodesCacheError(ValueError):
    """A folder of codes that cannot be used: stale, damaged, or of another codec."""


@dataclass(frozen=True, kw_only=True)
class CodecDescription:
    """What made the codes of a folder.

    Args:
        codec: where its weights came from, for people.
        weights_hash: SHA-256 of them.
        sample_rate_hz, num_channels, num_codebooks, codebook_size, hop_samples: of the codec, as it was used.
        coded_channels: channels of the audio, each coded by itself; 1 where they were coded together.
        blocks: frames that were coded at a time, before, kept and after.
    """

    codec: str
    weights_hash: str
    sample_rate_hz: int
    num_channels: int
    num_codebooks: int
    codebook_size: int
    hop_samples: int
    coded_channels: int = 1
    blocks: tuple[int, int, int] = (0, 0, 0)

    def key(self, content_hash: str) -> str:
        """64 hexadecimal digits that are equal for equal codes."""
        settings = {name: value for name, value in asdict(self).items() if name != "codec"}
        return hashlib.sha256(json.dumps([content_hash, settings, VERSION], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class CodedRecording:
    """A recording and its codes.

    Args:
        relative: its path below the folder that was coded.
        path: where its audio is, or was.
        content_hash, size_bytes, mtime_ns: of the audio file.
        num_samples: of the audio at the codec's rate.
        num_frames: of the codes.
        key: the name of the file of codes.
        sample_rate_hz: of the codec.
    """

    relative: str
    path: str
    content_hash: str
    size_bytes: int
    mtime_ns: int
    num_samples: int
    num_frames: int
    key: str
    sample_rate_hz: int

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.num_samples / self.sample_rate_hz


class CodesCache:
    """A folder of codes of one codec.

    Args:
        root: the folder.
        description: of the codec, to write; None reads what is there.

    Raises:
        CodesCacheError: the folder holds none, or those of another codec.
    """

    def __init__(self, root: Path, description: CodecDescription | None = None) -> None:
        self.root, place = root, root / DESCRIPTION
        if description is None or place.is_file():
            found = _read_description(place)
            if description is not None and found.key("") != description.key(""):
                raise CodesCacheError(
                    f"{root} holds codes of another codec or other settings ({found.codec}, weights "
                    f"{found.weights_hash[:12]}...; now {description.codec}, {description.weights_hash[:12]}...): give "
                    "another folder, or delete this one"
                )
            description = description or found
        self.description = description

    def recordings(self) -> list[CodedRecording]:
        """What the index lists, sorted as it was written.

        Raises:
            CodesCacheError: it cannot be read, or a line is not of this codec.
        """
        try:
            lines = (self.root / INDEX).read_text(encoding="utf-8").splitlines()
            found = [CodedRecording(**json.loads(line)) for line in lines]
        except (OSError, ValueError, TypeError) as error:
            raise CodesCacheError(f"{self.root / INDEX} cannot be read: {error}") from error
        for recording in found:
            if self.description.key(recording.content_hash) != recording.key:
                raise CodesCacheError(f"{self.root}: the codes of {recording.relative} are stale: {_AGAIN}")
        return found

    def place(self, key: str) -> Path:
        """Where the codes of that name are."""
        return self.root / key[:2] / f"{key}.npy"

    def has(self, key: str) -> bool:
        """Whether the codes of that name are there."""
        return self.place(key).is_file()

    def write(self, key: str, codes: np.ndarray) -> None:
        """Keep codes (F, K), written aside and renamed.

        Raises:
            CodesCacheError: a code lies outside of the codebook.
        """
        size = self.description.codebook_size
        if codes.size and (codes.min() < 0 or codes.max() >= size):
            raise CodesCacheError(f"codes must lie in 0 .. {size - 1}, got {codes.min()} .. {codes.max()}")
        place = self.place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = place.with_name(f".{place.name}.{os.getpid()}")
        with aside.open("wb") as file:
            np.save(file, codes.astype(np.uint16))
        os.replace(aside, place)

    def finish(self, recordings: Sequence[CodedRecording]) -> None:
        """Write the description and the index."""
        self.root.mkdir(parents=True, exist_ok=True)
        texts = {
            DESCRIPTION: json.dumps(asdict(self.description), indent=1) + "\n",
            INDEX: "".join(json.dumps(asdict(recording)) + "\n" for recording in recordings),
        }
        for name, text in texts.items():
            aside = self.root / f"{name}.tmp"
            aside.write_text(text, encoding="utf-8")
            os.replace(aside, self.root / name)

    def open(self, recording: CodedRecording) -> np.ndarray:
        """The codes (F, K) uint16 of a recording, mapped into memory.

        Raises:
            CodesCacheError: they are missing or damaged, or the audio has changed since.
        """
        self._check_audio(recording)
        place = self.place(recording.key)
        try:
            codes = np.load(place, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise CodesCacheError(f"{place}, the codes of {recording.relative}, cannot be read: {error}") from error
        description = self.description
        shape = (recording.num_frames, description.num_codebooks * description.coded_channels)
        if codes.shape != shape or codes.dtype != np.uint16:
            raise CodesCacheError(f"{place} holds {codes.dtype} {codes.shape}, expected uint16 {shape}: {_AGAIN}")
        return codes

    def _check_audio(self, recording: CodedRecording) -> None:
        """Refuse codes of audio that is another now; audio that is gone is not missed."""
        path = Path(recording.path)
        try:
            status = path.stat()
        except OSError:
            return
        if (status.st_size, status.st_mtime_ns) == (recording.size_bytes, recording.mtime_ns):
            return
        if hash_file(path) != recording.content_hash:
            raise CodesCacheError(f"{path} has changed since it was coded into {self.root}: {_AGAIN}")


_AGAIN = "run scripts/encode_audio.py again"


def _read_description(place: Path) -> CodecDescription:
    try:
        values = json.loads(place.read_text(encoding="utf-8"))
        return CodecDescription(**{**values, "blocks": tuple(values["blocks"])})
    except OSError as error:
        raise CodesCacheError(
            f"{place.parent} holds no codes ({place.name} cannot be read: {error.strerror}): make them with "
            "python scripts/encode_audio.py DIR --codec PATH --out FOLDER"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CodesCacheError(f"{place} describes no codes: {error}") from error
