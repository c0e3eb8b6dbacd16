"""The README's plug-ins work as they are printed, from another working directory; its file map is true."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_printed_plugins_train_from_elsewhere(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(code) == 5
    (tmp_path / "my_parts.py").write_text("\n\n".join(code))
    experiment = yaml.safe_load((ROOT / "experiments" / "tiny_cpu.yml").read_text())
    experiment["plugins"] = ["my_parts.py"]
    experiment["train"] |= {"niter": 2, "val_freq": 2}
    augmentation = yaml.safe_load(re.findall(r"```yaml\n(augment:.*?)```", README, re.S)[0])
    injectors = experiment["steps"]["lm"]["injectors"]
    swap = {"type": "swap_channels", "in": "augmented", "out": "swapped"}
    injectors["quantise"]["in"] = "swapped"
    experiment["steps"]["lm"]["injectors"] = augmentation | {"swap": swap} | injectors
    experiment["networks"]["smooth"] = {"which_model": "small", "kwargs": {"kernel": 3}}
    experiment["steps"]["smooth"] = {
        "training": "smooth",
        "injectors": {
            "scale": {"type": "normalize", "scale": 32768.0, "in": "wav", "out": "float_wav"},
            "run": {"type": "generator", "generator": "smooth", "in": "float_wav", "out": "smoothed"},
        },
        "losses": {"error": {"type": "absolute_error", "real": "float_wav", "fake": "smoothed"}},
    }
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(experiment, sort_keys=False))
    command = [sys.executable, str(ROOT / "train.py"), "-opt", "mine.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished: runs/tiny_cpu" in done.stdout.replace("\\", "/")
    assert (tmp_path / "runs" / "tiny_cpu" / "samples" / "step_00000002" / "0_model.wav").exists()


def test_the_printed_dataset_is_listed(tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text("\n\n".join(re.findall(r"```python\n(.*?)```", README, re.S)))
    (tmp_path / "mine.yml").write_text("plugins: [my_parts.py]\n")
    command = [sys.executable, str(ROOT / "train.py"), "-opt", str(tmp_path / "mine.yml"), "--list", "tones"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "num_frames" in done.stdout
    assert "length of an item" in done.stdout


def test_the_file_map_is_true() -> None:
    block = re.search(r"## File map\n\n```\n(.*?)```", README, re.S)
    assert block is not None
    named: set[str] = set()
    for line in block.group(1).splitlines():
        first, *others = re.split(r", ", re.split(r" {2,}", line)[0])
        folder = first.rsplit("/", 1)[0] + "/" if "/" in first else ""
        named |= {name for name in [first, *[folder + other for other in others]] if name}
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing
    folders = tuple(name for name in named if name.endswith("/"))
    files = {str(path.relative_to(ROOT)).replace("\\", "/") for path in ROOT.glob("codes/**/*.py")}
    unnamed = {name for name in files - named if not name.endswith("__init__.py") and not name.startswith(folders)}
    assert not unnamed
