"""requirements.lock: it agrees with requirements.txt, every package has a hash, and pip's report becomes it."""

import re
from pathlib import Path

import pytest

from scripts.lock import lock

ROOT = Path(__file__).resolve().parents[1]
PINNED = re.compile(r"([A-Za-z0-9._-]+)==([^ ;#]+)")


def pins(text: str) -> dict[str, str]:
    """Versions by normalised name, of lines that pin one."""
    found = [PINNED.match(line) for line in text.splitlines()]
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def test_the_lock_agrees_with_the_requirements() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked, wanted = pins(text), pins((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    differ = {name: (version, locked.get(name)) for name, version in wanted.items() if locked.get(name) != version}
    assert not differ, f"{differ}: run python scripts/lock.py"
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == len(locked) > len(wanted)
    assert all(re.fullmatch(r"[a-z0-9.-]+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)


def test_pips_report_becomes_a_lock() -> None:
    found = {
        "environment": {
            "sys_platform": "linux", "platform_machine": "x86_64", "implementation_name": "cpython",
            "python_version": "3.11",
        },
        "install": [
            {"metadata": {"name": name, "version": "1.0"},
             "download_info": {"url": "x", "archive_info": {"hashes": {"sha256": "ab" * 32}}}}
            for name in ("Zeta_two", "alpha")
        ],
    }  # fmt: skip
    text = lock(found, "requirements.txt")
    assert text.splitlines()[0] == (
        "# requirements.txt and all below it, for linux x86_64, cpython 3.11: python scripts/lock.py"
    )
    assert text.splitlines()[2:] == [f"{name}==1.0 --hash=sha256:{'ab' * 32}" for name in ("alpha", "zeta-two")]
    del found["install"][0]["download_info"]["archive_info"]
    with pytest.raises(ValueError, match="Zeta_two comes without a SHA-256, from x"):
        lock(found, "requirements.txt")
