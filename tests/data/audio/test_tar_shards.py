"""Audio inside tar files: exact, numbered, resumable, and refused where it is not what it must be."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codes.data.audio import tar_shards
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


def test_an_epoch_goes_shard_by_shard(tmp_path: Path) -> None:
    """The order that is read: each file once, shards in another order each epoch, files near their places."""
    for shard in range(6):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for number in range(50):
                tar.addfile(tarfile.TarInfo(f"{shard}_{number:03d}.wav"))
    dataset = TarShardsDataset(path=tmp_path, val_fraction=0.1, shuffle_files=8)
    orders = [dataset.order(np.random.default_rng((0, epoch))) for epoch in (0, 0, 1)]
    assert sorted(orders[0]) == list(range(len(dataset)))
    assert np.array_equal(orders[0], orders[1])
    shards = [[dataset.members[index].shard for index in order] for order in orders]
    turns = [list(dict.fromkeys(order)) for order in shards]
    assert turns[0] != turns[2]
    in_turn = [index for shard in turns[0] for index, member in enumerate(dataset.members) if member.shard == shard]
    moved = np.abs(np.argsort(orders[0]) - np.argsort(in_turn))
    assert 0 < moved.max() < 8
    loaders = [Loader(dataset, 10, seed=0, endless=True, rank=rank, ranks=2) for rank in range(2)]
    parts = [index for number in range(7) for loader in loaders for _, index in loader._stream.batch(number)]
    assert len(set(parts)) == len(parts) == 70  # no overlap of processes
    assert set(parts) == set(orders[0][:70])


def test_an_index_is_kept_until_a_shard_changes(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = shards / "index.jsonl"
    made = TarShardsDataset(path=shards, chunk_frames=64, val_fraction=0, index=index)
    walked: list[Path] = []
    walk = tar_shards.audio_members
    monkeypatch.setattr(tar_shards, "audio_members", lambda path, shard: walked.append(path) or walk(path, shard))
    assert TarShardsDataset(path=shards, chunk_frames=64, val_fraction=0, index=index).members == made.members
    assert not walked
    with tarfile.open(shards / "shard-000001.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("more.wav"))
    assert len(TarShardsDataset(path=shards, chunk_frames=64, val_fraction=0, index=index)) == 21
    assert len(walked) == 2
    for text in ("", "[]\n{", f"{index.read_text().splitlines()[0]}\n[1, 2]\n"):
        index.write_text(text)
        if text.startswith("[]"):
            assert len(TarShardsDataset(path=shards, val_fraction=0, index=index)) == 21  # of other shards
            continue
        with pytest.raises(AudioReadError, match=r"index\.jsonl cannot be used .*: delete it"):
            TarShardsDataset(path=shards, val_fraction=0, index=index)
    assert sorted(path.name for path in shards.iterdir()) == ["index.jsonl", "shard-000000.tar", "shard-000001.tar"]


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


def test_a_damaged_shard_is_not_the_indexs_fault(shards: Path) -> None:
    (shards / "shard-000002.tar").write_bytes(b"no tar")
    with pytest.raises(AudioReadError) as refused:
        TarShardsDataset(path=shards, val_fraction=0, index=shards / "index.jsonl")
    assert "shard-000002.tar" in str(refused.value)
    assert "the index" not in str(refused.value)
