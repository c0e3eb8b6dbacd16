"""What a run was computed with: machine, Python, packages, the project's own version.

Written to ``environment.json`` of the run's folder at every start that finds another environment than the last one, so
that a run that was continued elsewhere tells both.
"""

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from codes.trainer.checkpoint import write_atomically

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "torchaudio", "numpy", "scipy", "soundfile", "av", "transformers", "safetensors", "constriction")
FILE = "environment.json"


def environment() -> dict[str, str]:
    """What is known of this machine and its packages, by name; what cannot be found out is left out."""
    found = {"python": platform.python_version(), "system": platform.platform(), "processor": _processor()}
    found["cores"] = str(usable_cores())
    memory = memory_gib()
    if memory is not None:
        found["memory"] = f"{memory:.1f} GiB"
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        found[f"gpu {number}"] = f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB"
    if torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    found |= {f"package {name}": version for name in PACKAGES if (version := package_version(name)) is not None}
    commit = _commit(ROOT / ".git")
    if commit is not None:
        found["commit"] = commit
    return found


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float | None:
    """The machine's memory, where the system tells it."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def package_version(name: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name: Linux keeps it in a file, other systems tell it themselves."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit(git: Path) -> str | None:
    """The commit that is checked out, read from git's own files; None where this is no checkout."""
    try:
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head[:12]
        name = head.removeprefix("ref: ")
        if (git / name).is_file():
            return (git / name).read_text(encoding="utf-8").strip()[:12]
        packed = (git / "packed-refs").read_text(encoding="utf-8").splitlines()
        return next((line.split()[0][:12] for line in packed if line.endswith(f" {name}")), None)
    except OSError:
        return None


def record_environment(folder: Path, step: int) -> None:
    """Add this environment to a run's, from this step on, unless it is the last one already."""
    known, now = recorded_environments(folder), environment()
    if known and {key: value for key, value in known[-1].items() if key != "from_step"} == now:
        return
    write_atomically(folder / FILE, json.dumps([*known, {"from_step": step, **now}], indent=1))


def recorded_environments(folder: Path) -> list[dict[str, Any]]:
    """What `record_environment` wrote; nothing where the file is missing or broken."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


if __name__ == "__main__":
    print(json.dumps(environment(), indent=1), file=sys.stdout)
