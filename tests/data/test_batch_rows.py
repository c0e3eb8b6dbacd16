"""The memory of a batch that is lent to whoever reads its items: what comes back is stacked as it stands."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from codes.data.audio.mono_chunk import MonoChunkDataset
from codes.data.batch_rows import BatchRows, new_tensor
from codes.data.loader import Loader, collate
from codes.randomness import item_generator, item_seed

INT16, INT32 = np.dtype(np.int16), np.dtype(np.int32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "wav").mkdir()
    for number in range(3):
        pcm = np.random.default_rng(number).integers(-9000, 9000, 5000).astype(np.int16)
        soundfile.write(tmp_path / "wav" / f"{number}.wav", pcm, 8000)
    return tmp_path / "wav"


def dataset(kind: type, folder: Path, **options: Any) -> Any:
    index, cache = folder.with_name("index.jsonl"), folder.with_name("cache")
    return kind(path=folder, index=index, cache_folder=cache, **{"val_fraction": 0.0, "chunk_frames": 700, **options})


def test_rows_in_their_order_are_the_batch() -> None:
    rows = BatchRows(3)
    taken = [rows.take((2, 4), INT16) for _ in range(3)]
    for number, row in enumerate(taken):
        row[...] = number
    stacked = rows.stacked(taken)
    assert stacked is not None
    assert stacked[:, 1, 3].tolist() == [0, 1, 2]
    taken[1][1, 3] = 7
    assert stacked[1, 1, 3] == 7, "the same memory"
    assert rows.stacked(taken[:2]).shape == (2, 2, 4), "the last items of a pass were left out"
    assert collate([{"wav": row} for row in taken], rows)["wav"].data_ptr() == stacked.data_ptr()


def test_what_is_no_row_is_stacked_as_ever() -> None:
    rows = BatchRows(2)
    first, other_shape, other_dtype, second, third = (
        rows.take((4,), INT16), rows.take((5,), INT16), rows.take((4,), INT32), rows.take((4,), INT16),
        rows.take((4,), INT16),
    )  # fmt: skip
    assert (other_shape.shape, other_dtype.dtype, third.shape) == ((5,), INT32, (4,))
    assert rows.stacked([second, first]) is None
    assert rows.stacked([first, third]) is None
    assert rows.stacked([first, second + 0]) is None
    assert rows.stacked([first, second, third]) is None
    assert BatchRows(2).stacked([first]) is None, "nothing was lent"
    first[...], second[...] = 1, 2
    assert collate([{"x": second}, {"x": first}], rows)["x"][:, 0].tolist() == [2, 1]


def test_only_large_batches_of_workers_are_shared() -> None:
    assert not new_tensor((4, 4), torch.int16, None).is_shared()
    assert not new_tensor((4, 4), torch.int16, 32).is_shared()
    shared = new_tensor((4, 4), torch.int16, 31)
    assert shared.is_shared()
    assert (shared.shape, shared.is_contiguous(), shared.dtype) == ((4, 4), True, torch.int16)


@pytest.mark.parametrize("cache", ["needed", "all"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_gives_what_the_dataset_reads(folder: Path, cache: str, num_workers: int) -> None:
    """Straight from the file and from the cache of PCM, here and in a worker, a batch that does not fit a pipe too."""
    data = dataset(MonoChunkDataset, folder, cache=cache, chunk_frames=4500)
    loader = Loader(data, 16, seed=3, endless=True, num_workers=num_workers)
    batches = [loader.next() for _ in range(2)]
    loader.close()
    assert batches[0]["wav"].nbytes > 1 << 16
    for number, batch in enumerate(batches):
        for row, (epoch, index) in enumerate(loader._stream.whole(number)):
            alone = data.item(index, item_generator(item_seed(3, epoch, index)))
            assert batch["path"][row] == alone["path"]
            assert np.array_equal(batch["wav"][row].numpy(), alone["wav"])


def test_a_batch_is_read_where_it_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No array of the items is copied into the batch; what the loader has given stays as it is afterwards."""
    monkeypatch.setattr(torch, "stack", lambda *_, **__: pytest.fail("stacked"))
    loader = Loader(dataset(MonoChunkDataset, folder, cache="all"), 4, seed=0, endless=True)
    first = loader.next()["wav"]
    kept = first.clone()
    assert loader.next()["wav"].data_ptr() != first.data_ptr()
    assert torch.equal(first, kept)


def test_datasets_that_make_other_arrays_are_lent_nothing_more(folder: Path) -> None:
    for bits, lends in ((16, True), (24, False)):  # of files of 16 bits: shifted up, they are other arrays
        data = dataset(MonoChunkDataset, folder, bits=bits)
        loader = Loader(data, 4, seed=0, endless=True)
        loader.next()
        assert loader._batches._lends is lends
        assert loader.next()["wav"].dtype == (torch.int16 if bits == 16 else torch.int32)
        assert data._reader.rows is None, "outside a batch memory is one's own"


def test_item_generators_draw_evenly_and_apart() -> None:
    """The first numbers of neighbouring items: uniform, and without correlation to the next item's."""
    first = np.array([item_generator(item_seed(0, 0, index)).random(2) for index in range(4000)])
    counts = np.histogram(first[:, 0], 16, (0, 1))[0]
    assert ((counts - 250) ** 2 / 250).sum() < 37.7, "chi squared of 15 degrees of freedom, p = 0.001"
    bound = 3.3 / np.sqrt(4000)
    assert abs(np.corrcoef(first[:-1, 0], first[1:, 0])[0, 1]) < bound
    assert abs(np.corrcoef(first[:, 0], first[:, 1])[0, 1]) < bound
    again = item_generator(item_seed(0, 0, 5))
    assert again.random(2).tolist() == first[5].tolist()
