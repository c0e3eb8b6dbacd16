"""Weights & Biases: a run's figures, sounds and pictures there as well, where the YAML says ``wandb: true``.

Without a key (``wandb login``, WANDB_API_KEY) everything is kept in runs/NAME/wandb, and ``wandb sync`` sends it later;
WANDB_MODE decides otherwise. The service never decides a run: what goes wrong with it is said once, and training goes
on with ``metrics.jsonl``, which is the truth. A run that continues goes on under its id.
"""

import importlib.util
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from codes.entries import Experiment
from codes.trainer.checkpoint import write_atomically
from codes.yaml_source import Mark, OptionError

VERSION = "0.31.0"
ID_FILE = "wandb_id.txt"
MOST_SECONDS = 60  # for the service to take what is left at the end of a run


class WandbLog:
    """One run's entry there.

    Args:
        folder: the run's folder; its id and what is not sent are kept in it.
        experiment: names project and run, and is shown as the configuration.
        tell: takes a line for people.
    """

    def __init__(self, folder: Path, experiment: Experiment, tell: Callable[[str], None]) -> None:
        self.folder, self.experiment, self.tell = folder, experiment, tell
        self._run: Any = None
        self._guard(self._start)

    def figures(self, step: int, split: str, figures: Mapping[str, float | int | None]) -> None:
        """A line of figures, each as SPLIT/NAME; what is null is left out."""
        values = {f"{split}/{name}": value for name, value in figures.items() if value is not None}
        self._guard(lambda: self._run.log({"step": step, **values}))

    def sound(self, name: str, path: Path, sample_rate_hz: int, step: int) -> None:
        """A WAV file, and its picture beside it."""
        import wandb

        def send() -> None:
            shown = {name: wandb.Audio(str(path), sample_rate=sample_rate_hz), f"{name}_picture": _image(path)}
            self._run.log({"step": step, **shown})

        self._guard(send)

    def picture(self, name: str, path: Path, step: int) -> None:
        """A PNG file."""
        self._guard(lambda: self._run.log({"step": step, name: _image(path)}))

    def close(self) -> None:
        """Let the service take what is left, for a minute at most; the rest stays in the folder."""
        run, self._run = self._run, None
        if run is None:
            return
        ending = threading.Thread(target=self._end, args=(run,), daemon=True)
        ending.start()
        ending.join(MOST_SECONDS)
        if ending.is_alive():
            self.tell(
                f"wandb has not taken everything after {MOST_SECONDS} seconds: wandb sync {self.folder / 'wandb'}"
            )

    def _end(self, run: Any) -> None:
        try:
            run.finish()
        except Exception as error:  # whatever the service's client raises: the run itself is over and well
            self.tell(f"wandb: not finished there: {_first_line(error)}")

    def _start(self) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
        try:
            self._run = self._begun(mode)
        except Exception as error:  # no network, a wrong key, a service that is down: whatever its client raises
            if mode == "offline":
                raise
            self.tell(f"wandb: {_first_line(error)}; kept in {self.folder / 'wandb'} instead")
            self._run = self._begun(mode := "offline")
        where = self._run.url if mode == "online" else f"{self.folder / 'wandb'}, to send it: wandb sync"
        self.tell(f"wandb: run {self._run.id}, {where}")
        self._run.define_metric("*", step_metric="step")  # what a continued run logs again comes again

    def _begun(self, mode: Any) -> Any:
        import wandb

        options = self.experiment.options
        settings = wandb.Settings(silent=True, console="off", disable_git=True, init_timeout=30)
        return wandb.init(
            project=options.wandb_project_name or options.name, name=options.wandb_run_name or options.name,
            id=self._id(), resume="allow", dir=str(self.folder), config=self.experiment.values,
            mode=mode, settings=settings,
        )  # fmt: skip

    def _id(self) -> str:
        """The run's id, made once and kept."""
        path = self.folder / ID_FILE
        if not path.is_file():
            write_atomically(path, secrets.token_hex(4))
        return path.read_text(encoding="utf-8").strip()

    def _guard(self, action: Callable[[], object]) -> None:
        """Do something with the service; the first time that it fails is the last."""
        if self._run is None and action != self._start:
            return
        try:
            action()
        except Exception as error:  # whatever the service's client raises must not end a training
            self._run = None
            self.tell(f"wandb: given up for this start: {_first_line(error)}; metrics.jsonl goes on")


def start(folder: Path, experiment: Experiment, tell: Callable[[str], None]) -> WandbLog | None:
    """The run's entry there, or None where the YAML does not ask for one."""
    return WandbLog(folder, experiment, tell) if experiment.options.wandb else None


def require_package(experiment: Experiment) -> None:
    """Refuse ``wandb: true`` where the package is not installed, before anything is trained.

    Raises:
        OptionError: says how to install it.
    """
    if experiment.options.wandb and importlib.util.find_spec("wandb") is None:
        how = f"pip install wandb=={VERSION}, or set wandb: false (metrics.jsonl and TensorBoard need it not)"
        raise OptionError(
            [(Mark(str(experiment.file), 1, 1), f"wandb: true needs a package that is not installed: {how}")]
        )


def _image(path: Path) -> Any:
    import wandb

    return wandb.Image(str(path.with_suffix(".png")))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
