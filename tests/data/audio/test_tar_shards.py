"""Audio inside tar files: exact, numbered, resumable, and refused where it is not what it must be."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codes.data.audio.reader import AudioReadError
from codes.data.audio.tar_shards import TarShardsDataset
from codes.data.loader import Loader


def pcm(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(-9000, 9000, (300 + number, 2)).astype(np.int16)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of ten files each, WAV and FLAC, with texts between them as WebDataset has them."""
    for shard in range(2):
        with tarfile.open(tmp_path / f"shard-{shard:06d}.tar", "w") as tar:
            for number in range(10 * shard, 10 * shard + 10):
                ending = "flac" if number % 2 else "wav"
                buffer = io.BytesIO()
                soundfile.write(buffer, pcm(number), 8000, format=ending.upper(), subtype="PCM_16")
                for name, data in ((f"{number:04d}.{ending}", buffer.getvalue()), (f"{number:04d}.txt", b"words")):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return tmp_path


def test_chunks_are_the_files_samples(shards: Path) -> None:
    train = TarShardsDataset(path=shards, chunk_frames=100, val_fraction=0.3)
    val = TarShardsDataset(path=shards, chunk_frames=100, val_fraction=0.3, phase="val")
    assert len(train) + len(val) == 20
    assert 1 <= len(val) <= 12
    names = {member.name for member in train.members} | {member.name for member in val.members}
    assert len(names) == 20
    for dataset in (train, val):
        for index in range(len(dataset)):
            item = dataset.item(index, np.random.default_rng(index))
            real, start = pcm(int(Path(item["path"]).stem)).T, item["start_frame"]
            np.testing.assert_array_equal(item["wav"], real[:, start : start + 100])
            assert item["wav"].dtype == np.int16
            assert (item["sample_rate"], item["bit_depth"]) == (8000, 16)
            assert dataset is train or start == (real.shape[1] - 100) // 2


def test_deeper_integers_and_a_single_shard(shards: Path) -> None:
    dataset = TarShardsDataset(path=shards / "shard-000001.tar", chunk_frames=310, bits=24, val_fraction=0)
    item = dataset.item(0, np.random.default_rng(0))
    assert item["wav"].dtype == np.int32
    np.testing.assert_array_equal(item["wav"], pcm(10).T[:, :310].astype(np.int32) << 8)
    assert dataset.report() == ["10 files in 1 shards, 0.00 GiB"]


def test_a_position_is_resumed(shards: Path) -> None:
    def loader() -> Loader:
        return Loader(TarShardsDataset(path=shards, chunk_frames=64, val_fraction=0), 3, seed=1, endless=True)

    one, other = loader(), loader()
    batches = [one.next() for _ in range(9)]  # into the second epoch
    other.seek(6)
    for batch in batches[6:]:
        again = other.next()
        assert again["path"] == batch["path"]
        assert again["wav"].equal(batch["wav"])


def test_worker_processes_read_the_same(shards: Path) -> None:
    """Forked ones would share the position of every file that this process has left open; others get a copy."""
    dataset = TarShardsDataset(path=shards, chunk_frames=64, val_fraction=0)
    one, several = (Loader(dataset, 10, seed=1, endless=True, num_workers=workers) for workers in (0, 2))
    first = one.next()["wav"]
    if Path("/proc/self/fd").is_dir():
        assert not [link for link in Path("/proc/self/fd").iterdir() if link.resolve().suffix == ".tar"]
    assert several.next()["wav"].equal(first)
    several.close()
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.fingerprint() == dataset.fingerprint()
    assert np.array_equal(*(some.item(3, np.random.default_rng(0))["wav"] for some in (copy, dataset)))


def test_what_is_wrong_is_named(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioReadError, match=r"0000.wav has 2 channels and 300 frames: wanted are 2, and 400 or more"):
        TarShardsDataset(path=shards, chunk_frames=400, val_fraction=0).item(0, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"is no \.tar file and holds none"):
        TarShardsDataset(path=tmp_path / "nothing")
    dataset, whole = TarShardsDataset(path=shards, chunk_frames=64), (shards / "shard-000000.tar").read_bytes()
    (shards / "shard-000000.tar").unlink()
    with pytest.raises(AudioReadError, match=r"shard-000000.tar cannot be read: .*No such file"):
        dataset.item(0, np.random.default_rng(0))
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "a.tar").write_bytes(whole[:700])
    with pytest.raises(AudioReadError, match=r"cut off|cannot be read as a tar"):
        TarShardsDataset(path=cut)
    (cut / "a.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(AudioReadError, match="cannot be read as a tar without compression"):
        TarShardsDataset(path=cut)
