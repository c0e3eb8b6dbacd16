"""Audio in tar files, as WebDataset writes them: corpora of more files than a disk likes, read where they lie.

    python -m codes.data.audio.tar_shards --path DIR [--chunk-frames 16384 ...]

The headers of each tar are walked once, by seeking from one to the next (``index`` keeps what was found); an item is
then one read at a known place, and nothing is unpacked. An epoch reads shard after shard, in another order each time,
so that what is read together lies together. Which file comes when follows from (seed, epoch) alone: items are numbered
like any dataset's, several processes and workers share them without overlap, and a run resumes at its position.
``tar cf shard-000000.tar FILES`` makes a shard.
"""

import io
import json
import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from codes.data.audio.reader import AudioReadError
from codes.data.dataset import Dataset

ENDINGS = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".w64", ".caf")
MOST_BYTES = 1 << 31  # of a member, which is read as a whole


@dataclass(frozen=True)
class Member:
    """One audio file inside a shard."""

    shard: int
    name: str
    offset: int
    size: int


def audio_members(path: Path, shard: int) -> list[Member]:
    """The audio files of a tar, by its headers.

    Raises:
        AudioReadError: it is no plain tar, is cut off, or a member is too large.
    """
    found, size = [], path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                if not info.isreg() or not info.name.lower().endswith(ENDINGS):
                    continue
                if info.offset_data + info.size > size or info.size > MOST_BYTES:
                    raise AudioReadError(f"{path}: member {info.name} of {info.size} bytes is cut off or too large")
                found.append(Member(shard, info.name, info.offset_data, info.size))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise AudioReadError(f"{path} cannot be read as a tar without compression: {error}") from error
    return found


def listed(shards: list[Path], index: Path | None) -> list[Member]:
    """The audio files of all shards, from the index where it is of these shards; else it is written.

    Raises:
        AudioReadError: a shard is not what it must be, or the index cannot be read or written.
    """
    stamps = [[str(shard), (stat := shard.stat()).st_size, stat.st_mtime_ns] for shard in shards]
    if index is None:
        return [member for number, shard in enumerate(shards) for member in audio_members(shard, number)]
    try:
        if index.is_file():
            head, *rows = index.read_text(encoding="utf-8").splitlines()
            if json.loads(head) == stamps:
                return [Member(*json.loads(row)) for row in rows]
        members = listed(shards, None)
        rows = [json.dumps(row) for row in (stamps, *([m.shard, m.name, m.offset, m.size] for m in members))]
        aside = index.with_name(f"{index.name}.{os.getpid()}.tmp")  # several processes may write it
        aside.write_text("\n".join(rows) + "\n", encoding="utf-8")
        os.replace(aside, index)
    except AudioReadError:  # of a shard, which says it itself
        raise
    except (OSError, ValueError, TypeError) as error:
        raise AudioReadError(f"the index {index} cannot be used ({error}): delete it, or name another file") from error
    return members


class TarShardsDataset(Dataset):
    """Chunks of the audio files in tar shards; each file gives one chunk an epoch, from a random place.

    In validation the chunk is the middle of the file. Files must have the same number of channels and be at least
    chunk_frames long.

    Args:
        path: a folder of .tar files, or one of them.
        chunk_frames: length of a chunk.
        channels: that every file has.
        bits: depth of the integers, 16 or 24; deeper files lose their lowest bits, shallower ones are shifted up.
        val_fraction: share of the files that is kept for validation, chosen by a hash of their names.
        shuffle_files: in training a file may come up to so many places earlier or later than in its shard.
        index: a file that keeps where the audio files lie, for corpora whose headers take long to walk; it is made
            where it is missing or the shards have changed.
        phase: train or val.
    """

    provides = {
        "wav": "(B, channels, chunk_frames) int16, or int32 above 16 bits",
        "path": "shard/name of the file, str",
        "start_frame": "where the chunk begins, int",
        "sample_rate": "of the file, int",
        "bit_depth": "bits, int",
    }

    def __init__(
        self, *, path: Path, chunk_frames: int = 16_384, channels: int = 2, bits: Literal[16, 24] = 16,
        val_fraction: float = 0.02, shuffle_files: int = 1000, index: Path | None = None,
        phase: Literal["train", "val"] = "train",
    ) -> None:  # fmt: skip
        if chunk_frames < 1 or channels < 1 or shuffle_files < 1 or not 0 <= val_fraction < 1:
            raise ValueError("chunk_frames, channels and shuffle_files must be 1 or more, val_fraction 0 to below 1")
        self.shuffle_files = shuffle_files
        self.chunk_frames, self.channels, self.bits, self.phase = chunk_frames, channels, bits, phase
        self.shards = sorted(path.glob("**/*.tar")) if path.is_dir() else [path]
        if not self.shards or not self.shards[0].is_file():
            raise ValueError(f"{path} is no .tar file and holds none")
        members = listed(self.shards, index)
        held_out = [zlib.crc32(member.name.encode()) / 2**32 < val_fraction for member in members]
        self.members = [member for member, out in zip(members, held_out, strict=True) if out == (phase == "val")]
        if not self.members:
            raise ValueError(f"{path} holds no audio for {phase} ({len(members)} files in all; {', '.join(ENDINGS)})")

    def __len__(self) -> int:
        return len(self.members)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Shard after shard, the shards in random order; within `shuffle_files` files change places."""
        counts = np.bincount([member.shard for member in self.members], minlength=len(self.shards))
        ends = np.cumsum(counts).tolist()
        ranges = [np.arange(ends[shard] - counts[shard], ends[shard]) for shard in rng.permutation(len(self.shards))]
        in_turn = np.concatenate(ranges)
        return in_turn[np.argsort(np.arange(len(self)) + rng.uniform(0, self.shuffle_files, len(self)))]

    def fingerprint(self) -> dict[str, Any]:
        """The number of files, and a checksum of their names and sizes."""
        listed = "\n".join(f"{member.name} {member.size}" for member in self.members)
        return {"items": len(self), "listed": zlib.crc32(listed.encode())}

    def report(self) -> list[str]:
        """What there is, for people."""
        size = sum(member.size for member in self.members)
        return [f"{len(self.members):,} files in {len(self.shards)} shards, {size / 2**30:.2f} GiB"]

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        import soundfile

        member = self.members[index]
        name = f"{self.shards[member.shard]}/{member.name}"
        try:
            with soundfile.SoundFile(io.BytesIO(self._read(member))) as file:
                last = file.frames - self.chunk_frames
                if last < 0 or file.channels != self.channels:
                    raise AudioReadError(
                        f"{name} has {file.channels} channels and {file.frames} frames: wanted are {self.channels}, "
                        f"and {self.chunk_frames} or more"
                    )
                start = last // 2 if self.phase == "val" else int(rng.integers(0, last + 1))
                file.seek(start)
                pcm = np.asarray(file.read(self.chunk_frames, dtype="int32", always_2d=True)).T
                rate = file.samplerate
        except soundfile.LibsndfileError as error:
            raise AudioReadError(f"{name} cannot be read: {error}") from error
        if pcm.shape[1] < self.chunk_frames:
            raise AudioReadError(f"{name} ends before frame {start + self.chunk_frames}")
        wav = np.right_shift(pcm, 32 - self.bits).astype(np.int16 if self.bits == 16 else np.int32)
        return {"wav": wav, "path": name, "start_frame": start, "sample_rate": rate, "bit_depth": self.bits}

    def _read(self, member: Member) -> bytes:
        """The file's bytes. Nothing stays open: forked workers would share an open file's position."""
        shard = self.shards[member.shard]
        try:
            with shard.open("rb") as file:
                file.seek(member.offset)
                return file.read(member.size)
        except OSError as error:
            raise AudioReadError(f"{shard} cannot be read: {error}") from error


if __name__ == "__main__":
    from codes.data.audio import preview

    preview.main("tar_shards")
