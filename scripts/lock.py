"""Write requirements.lock: every package of an installation with the hash of its file, those below the named ones too.

    python scripts/lock.py [--requirements requirements.txt] [--out requirements.lock]

pip resolves the requirements for this system and this Python, downloads what it would install, installs nothing, and
reports what it found. With the lock, pip refuses any file that is not that one, byte for byte:

    pip install --require-hashes -r requirements.lock

torch has other files for other systems, so a lock belongs to one; the kept one says which in its first lines.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def report(requirements: Path) -> dict[str, Any]:
    """What pip would install: its report, as JSON.

    Raises:
        SystemExit: pip cannot resolve or download it; it has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        done = subprocess.run([*command, "--report", str(out), "-r", str(requirements)], check=False)
        if done.returncode:
            raise SystemExit(f"pip could not say what {requirements} needs (exit status {done.returncode})")
        return json.loads(out.read_text(encoding="utf-8"))


def lock(found: dict[str, Any], name: str) -> str:
    """The lock's text.

    Args:
        found: pip's report.
        name: of the requirements.

    Raises:
        ValueError: a package has no SHA-256 (one that is built from a folder, say).
    """
    system, packages = found["environment"], []
    for entry in found["install"]:
        package, archive = entry["metadata"], entry["download_info"].get("archive_info", {})
        digest = archive.get("hashes", {}).get("sha256")
        if digest is None:
            raise ValueError(f"{package['name']} comes without a SHA-256, from {entry['download_info']['url']}")
        packages.append(f"{package['name'].lower().replace('_', '-')}=={package['version']} --hash=sha256:{digest}")
    where = f"{system['sys_platform']} {system['platform_machine']}, {system['implementation_name']}"
    head = [
        f"# {name} and all below it, for {where} {system['python_version']}: python scripts/lock.py",
        "# pip install --require-hashes -r requirements.lock",
    ]
    return "\n".join([*head, *sorted(packages)]) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requirements", type=Path, default=ROOT / "requirements.txt")
    parser.add_argument("--out", type=Path, default=ROOT / "requirements.lock")
    arguments = parser.parse_args()
    arguments.out.write_text(lock(report(arguments.requirements), arguments.requirements.name), encoding="utf-8")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
