"""What train.py can be asked to do; a user's errors become lines and an exit status, never a traceback."""

import argparse
import contextlib
import sys
import threading
from collections.abc import Iterator

from codes.entries import Experiment
from codes.experiment import load_experiment, load_plugins
from codes.yaml_source import OptionError

OK, FAILED, WRONG = 0, 1, 2


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line asks.

    Args:
        arguments: opt, overrides, check, doctor, fresh, replay, schema, list.

    Returns:
        the exit status: 0, 1 (the run failed) or 2 (the experiment or the command is wrong).
    """
    from codes.data.audio.reader import AudioReadError
    from codes.trainer.checkpoint import CheckpointError
    from codes.trainer.distributed import RankError
    from codes.trainer.nonfinite import NonFiniteError

    try:
        with _silent_writers():
            return _dispatch(arguments)
    except OptionError as error:
        return _fail(str(error), WRONG)
    except CheckpointError as error:
        return _fail(str(error), WRONG if "belongs to another experiment" in str(error) else FAILED)
    except (NonFiniteError, AudioReadError, RankError) as error:
        return _fail("\n".join([str(error), *getattr(error, "__notes__", [])]), FAILED)
    except RuntimeError as error:  # torch raises it wherever the run happens to be
        if "DataLoader worker" not in str(error):
            raise
        died = f"a process that prepares batches has died, for lack of memory perhaps (n_workers): {error}"
        return _fail(f"{died}\nThe newest checkpoint is whole: the same command continues from it.", FAILED)
    except KeyboardInterrupt:
        return _fail("stopped at once; the newest checkpoint is whole", 130)


@contextlib.contextmanager
def _silent_writers() -> Iterator[None]:
    """What a disk refuses TensorBoard's thread is said where the run asks for it, not by the thread."""
    usual = threading.excepthook

    def hook(given: threading.ExceptHookArgs) -> None:
        if not (isinstance(given.exc_value, OSError) and type(given.thread).__module__.startswith("tensorboard")):
            usual(given)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = usual


def _fail(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status


def _dispatch(arguments: argparse.Namespace) -> int:
    if arguments.doctor:
        from codes.trainer.run_doctor import examine

        return OK if examine(arguments.opt, arguments.overrides) else FAILED
    if arguments.list is None and arguments.schema is None:
        return _with_experiment(arguments, load_experiment(arguments.opt, arguments.overrides))
    if arguments.opt is not None:
        load_plugins(arguments.opt, arguments.overrides)
    if arguments.list is not None:
        from codes.console import write_out
        from codes.describe import listing

        write_out(listing(arguments.list))
        return OK
    from codes.schema import write_schema

    write_schema(arguments.schema)
    print(f"wrote {arguments.schema}")
    return OK


def _with_experiment(arguments: argparse.Namespace, experiment: Experiment) -> int:
    if arguments.check:
        from codes.trainer.check import check

        print(check(experiment, arguments.devices, arguments.gpu))
        return OK
    if arguments.replay is not None:
        from codes.trainer.check import replay

        print(replay(experiment, arguments.replay))
        return OK
    from codes.trainer.check import located
    from codes.trainer.distributed import joined
    from codes.trainer.extensible_trainer import ExtensibleTrainer

    try:
        with joined(experiment.options) as ranks:
            ExtensibleTrainer(experiment, arguments.fresh, ranks).train()
    except ValueError as error:  # an injector or a loss got what it does not take
        problem = located(experiment, error)
        if problem is None:
            raise
        raise OptionError([problem]) from error
    return OK
