"""Several processes as one run: who this process is, what they tell each other, and how they stop together.

    torchrun --nproc_per_node=8 train.py -opt experiments/stereo_lm.yml datasets.train.batch_size=16

torchrun starts the processes and names them in the environment. Each takes its share of every batch (the loader), so a
run's batches do not depend on how many there are; `distributed_step.py` brings the gradients together. A run of one
process makes a `Ranks()`, whose methods do nothing.
"""

import atexit
import contextlib
import datetime
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from codes.options import ExperimentOptions
from codes.trainer.checkpoint import CheckpointError

T = TypeVar("T")
RANK_SEEDS = 1 << 40  # between the seeds of two processes: their items differ, so must what they draw


class RankError(RuntimeError):
    """Another process of the run has failed, or does not answer; the message says what to look at."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, seen from one of them.

    Args:
        rank: its number; 0 writes everything that is written once.
        size: how many there are.
        local_rank: its number on this machine, that of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes logs, metrics, samples and checkpoints."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of every process's values, on their device; nothing waits for it."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Everybody's value, by rank; small plain objects, in rare moments: it waits for all."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            distributed.barrier()

    def do_once(self, action: Callable[[], T]) -> T | None:
        """Let the first process do something; nobody goes on before it is done, and all fail where it does.

        Returns:
            what the action returned, on the first process; None on the others.

        Raises:
            CheckpointError: the action did.
        """
        result, problem = None, None
        if self.first:
            try:
                result = action()
            except CheckpointError as error:
                if self.size == 1:
                    raise
                problem = str(error)
        if self.size > 1:
            told = [problem]
            distributed.broadcast_object_list(told, src=0)
            problem = told[0]
        if problem is not None:
            raise CheckpointError(problem)
        return result

    @contextlib.contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Inside, the first process works alone, then all others: what it puts into a cache they find there."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


class Agreement:
    """Something that all processes do as soon as one wants to, at the same step.

    Each step sends its own wish and reads the answer to the former one, which has come in the meantime. The numbers
    stay on the CPU (gloo), so no GPU is waited for.

    Args:
        ranks: the processes.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._sent: tuple[Any, Tensor] | None = None

    def reached(self, wish: bool) -> bool:
        """Whether any process wished it, as of the last call; of this call where there is one process."""
        if self._ranks.size == 1:
            return wish
        answer = self.finish()
        flag = torch.tensor([int(wish)])
        self._sent = distributed.all_reduce(flag, distributed.ReduceOp.MAX, async_op=True), flag
        return answer

    def finish(self) -> bool:
        """Wait for what is under way; whether any process had wished it."""
        if self._sent is None:
            return False
        (work, flag), self._sent = self._sent, None
        work.wait()
        return bool(flag)


def from_environment() -> Ranks:
    """Who this process is, as torchrun (or srun with scripts/slurm.sh) says; one process where nothing does."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks()
    return Ranks(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", os.environ["RANK"])))


@contextlib.contextmanager
def joined(options: ExperimentOptions) -> Iterator[Ranks]:
    """Join the run's other processes for the time of the context.

    Raises:
        RankError: another process failed, or did not answer for dist_timeout_minutes.
    """
    ranks = from_environment()
    if ranks.size == 1:
        yield ranks
        return
    timeout = datetime.timedelta(minutes=options.dist_timeout_minutes)
    backend = choose_backend(options)
    if "cuda" in backend and device_number(options, ranks) < torch.cuda.device_count():  # else build() says so
        torch.cuda.set_device(device_number(options, ranks))
    try:
        store = _fresh_store(ranks, timeout)
        distributed.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=timeout)
        yield ranks
    except (RuntimeError, distributed.DistError) as error:
        raise _translated(error, ranks) from error
    distributed.destroy_process_group()


def leave(status: int) -> int:
    """Let a process of several end, after its exit handlers, without Python's teardown; alone, do nothing.

    Threads of gloo may let go of their last tensor while Python is taken down, which aborts one process in ten and
    makes torchrun call a finished run failed (https://github.com/pytorch/pytorch/pull/179291).

    Args:
        status: the exit status.

    Returns:
        the status, where this process is the only one.
    """
    if from_environment().size > 1:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def choose_backend(options: ExperimentOptions) -> str:
    """How the processes talk, in torch's words: numbers on the CPU always by gloo, a wish to stop among them.

    Raises:
        RankError: nccl is wanted where no GPU is used.
    """
    if torch.cuda.is_available() and options.gpu_ids:
        wanted = options.dist_backend or "nccl"
        return wanted if ":" in wanted else f"cpu:gloo,cuda:{wanted}"
    if options.dist_backend == "nccl":
        raise RankError("dist_backend is nccl, which needs a GPU for each process: here it must be gloo, or left out")
    return options.dist_backend or "gloo"


def _fresh_store(ranks: Ranks, timeout: datetime.timedelta) -> Any:
    """Where the processes find each other, without what an earlier attempt left there.

    torchrun keeps its store when it starts failed processes again, with the addresses of the dead in it. So the first
    process names the attempt, and tells the others that it is theirs by the tokens that they answered with.
    """
    store, _, _ = next(distributed.rendezvous("env://", ranks.rank, ranks.size, timeout=timeout))
    token = uuid.uuid4().hex
    if ranks.first:
        store.set("attempt", token)
        tokens = [store.get(f"{token}/{rank}").decode() for rank in range(1, ranks.size)]
        store.set(f"{token}/all", ",".join(tokens))
        return distributed.PrefixStore(token, store)
    deadline = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < deadline:
        attempt = store.get("attempt").decode()
        store.set(f"{attempt}/{ranks.rank}", token)
        with contextlib.suppress(distributed.DistStoreError):
            store.wait([f"{attempt}/all"], datetime.timedelta(seconds=1))
            if token in store.get(f"{attempt}/all").decode():
                return distributed.PrefixStore(attempt, store)
        time.sleep(0.05)
    raise RankError(f"process {ranks.rank} of {ranks.size}: process 0 did not answer within {timeout}")


def device_number(options: ExperimentOptions, ranks: Ranks) -> int:
    """The GPU of this process: its own of gpu_ids, where that names several, else that of its local rank."""
    if ranks.size == 1:
        return options.gpu_ids[0]
    return options.gpu_ids[ranks.local_rank % len(options.gpu_ids)] if len(options.gpu_ids) > 1 else ranks.local_rank


_LOST = ("Connection closed by peer", "Connection reset", "Timed out", "timed out", "timeout", "Socket", "NCCL", "gloo")


def _translated(error: BaseException, ranks: Ranks) -> BaseException:
    """A lost connection in words of the run; every other error as it is, with the rank as a note."""
    lost = type(error) in (RuntimeError, distributed.DistBackendError) or isinstance(error, distributed.DistError)
    if not lost or not any(word in str(error) for word in _LOST):
        error.add_note(f"in process {ranks.rank} of {ranks.size}")
        return error
    return RankError(
        f"process {ranks.rank} of {ranks.size} has lost the others: one of them has failed (its own message says why) "
        f"or did not answer in time (dist_timeout_minutes). The newest checkpoint is whole: the same command continues "
        f"from it.\n  {' '.join(str(error).split())[:300]}"
    )
