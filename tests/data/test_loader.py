"""The order of items, worker processes, positions, ranks, and what is said of items that do not fit together."""

import itertools
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codes import registry
from codes.data.audio.reader import AudioReadError
from codes.data.loader import Loader, _sendable, collate
from codes.randomness import item_seed

ROOT = Path(__file__).resolve().parents[2]
TOYS = ROOT / "tests/trainer/toys.py"


@pytest.fixture
def numbers() -> Any:
    """The class of a small random dataset, registered from a plug-in file."""
    registry.load_plugin(TOYS)
    return registry.find("dataset", "toy_numbers")


def make(dataset: Any, batch_size: int = 4, **options: Any) -> Loader:
    return Loader(dataset, batch_size, **{"seed": 7, "endless": True, "plugins": [TOYS], **options})


def take(loader: Loader, count: int) -> list[dict[str, Any]]:
    batches = [loader.next() for _ in range(count)]
    loader.close()
    return batches


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        for key, value in one.items()
    )


def names(batches: list[dict[str, Any]]) -> list[str]:
    return [name for batch in batches for name in batch["path"]]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize("num_workers", [1, 4])
def test_workers_change_nothing(numbers: Any, num_workers: int) -> None:
    alone = take(make(numbers(num_items=10)), 8)
    helped = take(make(numbers(num_items=10), num_workers=num_workers), 8)
    assert all(equal(one, other) for one, other in zip(alone, helped, strict=True))


def test_global_random_numbers_are_left_alone(numbers: Any) -> None:
    """Neither making batches nor starting workers draws from torch's, numpy's or Python's generators."""
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    take(make(numbers(), num_workers=1), 2)
    take(make(numbers()), 2)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("num_workers", [0, 2])
def test_seek(numbers: Any, num_workers: int) -> None:
    """From any position, across an epoch's end, forwards and backwards."""
    whole = take(make(numbers(num_items=10)), 9)
    loader = make(numbers(num_items=10), num_workers=num_workers)
    for position in (3, 7, 0):
        loader.seek(position)
        assert equal(loader.next(), whole[position])
        assert equal(loader.next(), whole[position + 1])
        assert loader.position == position + 2
    loader.close()


def test_batch_by_number_does_not_move_the_position(numbers: Any) -> None:
    whole = take(make(numbers()), 5)
    loader = make(numbers())
    loader.next()
    assert equal(loader.batch(4), whole[4])
    assert equal(loader.batch(0), whole[0])
    assert equal(loader.next(), whole[1])


def test_every_epoch_has_all_items_in_a_new_order_with_new_draws(numbers: Any) -> None:
    batches = take(make(numbers(num_items=8)), 6)
    epochs = [names(batches[at : at + 2]) for at in (0, 2, 4)]
    assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == 8 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    drawn = {name: y for batch in batches[:2] for name, y in zip(batch["path"], batch["y"], strict=True)}
    again = {name: y for batch in batches[2:4] for name, y in zip(batch["path"], batch["y"], strict=True)}
    assert all(not torch.equal(drawn[name], again[name]) for name in drawn)


def test_seed_decides(numbers: Any) -> None:
    one, same, other = (take(make(numbers(), seed=seed), 3) for seed in (1, 1, 2))
    assert names(one) == names(same) != names(other)


def test_items_of_one_seed_do_not_repeat_each_other(numbers: Any) -> None:
    """Each item of each epoch draws numbers of its own."""

    class Draws(numbers, abstract=True):
        def item(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
            return {"drawn": rng.integers(1 << 60)}

    drawn = torch.cat([batch["drawn"] for batch in take(make(Draws(num_items=16), seed=0), 12)])
    assert len(set(drawn.tolist())) == 48


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_each_batch(numbers: Any, ranks: int) -> None:
    """Disjoint, and together exactly the batch of a single process."""
    alone = take(make(numbers(num_items=11), batch_size=5), 6)
    shared = [take(make(numbers(num_items=11), batch_size=5, rank=rank, ranks=ranks), 6) for rank in range(ranks)]
    for number, whole in enumerate(alone):
        parts = [batches[number] for batches in shared]
        assert sorted(names(parts)) == sorted(whole["path"])
        assert sorted(row for part in parts for row in part["y"].tolist()) == sorted(whole["y"].tolist())


def test_a_rank_without_items_is_refused(numbers: Any) -> None:
    with pytest.raises(ValueError, match="batch_size 2 gives nothing to some of 3 processes"):
        make(numbers(), batch_size=2, ranks=3)


def test_one_pass_in_order(numbers: Any) -> None:
    loader = make(numbers(num_items=10), endless=False)
    assert len(loader) == 3
    batches = take(loader, 3)
    assert names(batches) == [f"item_{n}.wav" for n in range(10)]
    assert [len(batch["x"]) for batch in batches] == [4, 4, 2]
    assert names([loader.batch(n) for n in range(3)]) == names(batches)
    loader.seek(2)
    assert len(loader.next()["x"]) == 2
    with pytest.raises(StopIteration):
        loader.next()


@pytest.mark.parametrize(("num_items", "batch_size"), [(1, 1), (1, 4), (3, 8)])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_dataset_smaller_than_a_batch(numbers: Any, num_items: int, batch_size: int, num_workers: int) -> None:
    """Batches are full: the next epochs' items follow, with draws of their own."""
    batches = take(make(numbers(num_items=num_items), batch_size, num_workers=num_workers), 3)
    assert [len(batch["x"]) for batch in batches] == [batch_size] * 3
    counts = [names(batches).count(f"item_{n}.wav") for n in range(num_items)]
    assert max(counts) - min(counts) <= 1
    rows = [tuple(row.tolist()) for batch in batches for row in batch["y"]]
    assert len(set(rows)) == len(rows)
    (val,) = take(make(numbers(num_items=num_items), batch_size, endless=False), 1)
    assert len(val["x"]) == min(num_items, batch_size)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_items_bring_their_seeds(numbers: Any, num_workers: int) -> None:
    """Hashes of (seed, epoch, index): in any batch, of any size, the same."""
    seeds = {}
    for batch_size in (3, 8):
        batches = take(make(numbers(num_items=8), batch_size, num_workers=num_workers), 48 // batch_size)
        assert all(batch["item_seed"].dtype == torch.int64 for batch in batches)
        flat = torch.cat([batch["item_seed"] for batch in batches]).tolist()
        indices = [int(name.removesuffix(".wav").removeprefix("item_")) for name in names(batches)]
        assert flat == [item_seed(7, n // 8, index) for n, index in enumerate(indices)]
        seeds[batch_size] = flat
    assert seeds[3] == seeds[8]
    assert len(set(seeds[8])) == 48


def test_validation_is_epoch_0(numbers: Any) -> None:
    loader = make(numbers(num_items=5), endless=False)
    found = [batch["item_seed"].tolist() for batch in take(loader, 2)]
    assert [*found[0], *found[1]] == [item_seed(7, 0, index) for index in range(5)]
    assert loader.batch(1)["item_seed"].tolist() == found[1]


def test_items_must_not_have_seeds_already(numbers: Any) -> None:
    class Claims(numbers, abstract=True):
        def item(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
            return {"item_seed": 3}

    message = "Claims gives 'item_seed', which the loader adds to every batch: choose another name"
    with pytest.raises(ValueError, match=message):
        make(Claims()).next()


def test_empty_dataset(numbers: Any) -> None:
    with pytest.raises(ValueError, match="ToyNumbersDataset has no items"):
        make(numbers(num_items=0))


def test_waiting_is_counted(numbers: Any) -> None:
    loader = make(numbers())
    loader.next()
    first = loader.waited_seconds
    loader.next()
    assert loader.waited_seconds > first > 0


SPAWN = """
import multiprocessing, sys
from pathlib import Path
from codes import registry
from codes.data.loader import Loader

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    registry.load_plugin(Path(sys.argv[1]))
    dataset = registry.find("dataset", "toy_numbers")(num_items=10)
    loader = Loader(dataset, 4, seed=7, endless=True, num_workers=1, plugins=registry.plugin_files())
    print(*[name for _ in range(4) for name in loader.next()["path"]])
    loader.close()
"""


def test_spawned_workers_load_the_plug_in(numbers: Any, tmp_path: Path) -> None:
    """As on macOS and Windows, and from another working directory."""
    script = tmp_path / "spawn.py"
    script.write_text(SPAWN, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script), str(TOYS)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == names(take(make(numbers(num_items=10)), 4))


# --- items that do not fit


def notes(error: BaseException) -> str:
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_item_that_raises_is_named(numbers: Any, num_workers: int) -> None:
    loader = make(numbers(num_items=4, faulty="raise"), batch_size=2, num_workers=num_workers)
    loader.seek(2)  # epoch 1
    with pytest.raises(ValueError, match="this item is broken") as caught:
        take(loader, 2)
    assert "in ToyNumbersDataset, item 3 of epoch 1" in notes(caught.value)
    loader.close()


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    ("faulty", "message"),
    [("shape", "items of one batch differ in the shape of 'x': "),
     ("missing", "not every item of the batch has the key 'y'"),
     ("extra", "not every item of the batch has the key 'surprise'")],
)  # fmt: skip
def test_items_that_differ_are_named(numbers: Any, num_workers: int, faulty: str, message: str) -> None:
    loader = make(numbers(num_items=4, faulty=faulty), batch_size=4, num_workers=num_workers)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        loader.next()
    found = notes(caught.value)
    assert "in ToyNumbersDataset" in found
    loader.close()


def test_shapes_are_listed() -> None:
    items = [{"x": torch.zeros(2, size)} for size in (3, 4, 3)]
    with pytest.raises(ValueError, match="differ in the shape of 'x'") as caught:
        collate(items)
    assert "(2, 3)" in str(caught.value)
    assert "(2, 4)" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 2], torch.tensor([1, 2])),
     ([1.5, 2.0], torch.tensor([1.5, 2.0])),
     ([True, False], torch.tensor([True, False])),
     ([np.int16(1), np.int16(2)], torch.tensor([1, 2], dtype=torch.int16)),
     ([np.float64(1), np.float64(2)], torch.tensor([1, 2], dtype=torch.float64)),
     ([np.bool_(True), np.bool_(False)], torch.tensor([True, False])),
     ([np.zeros(2, np.int16), np.ones(2, np.int16)], torch.tensor([[0, 0], [1, 1]], dtype=torch.int16)),
     ([np.arange(3)[::-1], np.arange(3)], torch.tensor([[2, 1, 0], [0, 1, 2]])),
     ([torch.zeros(()), torch.ones(())], torch.tensor([0.0, 1.0])),
     (["a", "b"], ["a", "b"]), ([None, "b"], [None, "b"]), ([[1], [2, 3]], [[1], [2, 3]])],
)  # fmt: skip
def test_collate(values: list[Any], expected: Any) -> None:
    found = collate([{"key": value} for value in values])["key"]
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
        assert found.dtype == expected.dtype
    else:
        assert found == expected


def test_collate_takes_arrays_that_cannot_be_written() -> None:
    """Such as those of numpy.frombuffer and of memory maps."""
    array = np.frombuffer(b"\x01\x00\x02\x00", np.int16)
    assert torch.equal(collate([{"wav": array}] * 2)["wav"], torch.tensor([[1, 2]] * 2, dtype=torch.int16))


def test_collate_copies() -> None:
    """A dataset may reuse its buffers."""
    array = np.zeros(2)
    batch = collate([{"x": array}])
    array[:] = 1
    assert batch["x"].tolist() == [[0, 0]]


def test_every_worker_has_one_thread(numbers: Any) -> None:
    class Threads(numbers, abstract=True):
        def item(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
            return {"threads": torch.get_num_threads()}

    batches = take(make(Threads(), num_workers=2), 2)
    assert {number for batch in batches for number in batch["threads"].tolist()} == {1}


def test_close_ends_the_workers(numbers: Any) -> None:
    import multiprocessing

    loader = make(numbers(), num_workers=2)
    loader.next()
    assert len(multiprocessing.active_children()) >= 2
    loader.close()
    assert list(itertools.filterfalse(lambda child: not child.is_alive(), multiprocessing.active_children())) == []


class UnpackableError(Exception):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


class LockedError(Exception):
    """Cannot be packed at all."""

    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


@pytest.mark.parametrize(("error", "text"), [(UnpackableError("a", "b"), "UnpackableError: a and b"),
                                             (LockedError(), "LockedError: locked")])  # fmt: skip
def test_errors_that_cannot_be_sent_are_told(error: Exception, text: str) -> None:
    error.add_note("in item 3")
    told = _sendable(error)
    assert str(told) == text
    assert told.__notes__ == ["in item 3"]
    pickle.loads(pickle.dumps(told))


def test_errors_that_can_be_sent_stay_what_they_are() -> None:
    error = AudioReadError("a.wav: is empty")
    assert _sendable(error) is error
