"""Called by mkdocs: puts what the registry knows in the place of lines such as ``<!-- listing: train -->``."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).resolve().parents[1])
_MARKER = re.compile(r"<!-- listing: (\w+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace every marker by the text of `train.py --list NAME`, and of each entry of a kind."""
    if ROOT not in sys.path:  # mkdocs restores the path once it has read this file
        sys.path.insert(0, ROOT)
    return _MARKER.sub(lambda match: _listed(match[1]), markdown)


def _listed(name: str) -> str:
    from codes import registry
    from codes.convert import KINDS
    from codes.describe import listing

    kind = next((kind for kind, plural in KINDS.items() if plural == name), None)
    if kind is None:
        return f"```text\n{listing(name)}\n```"
    entries = [f"### {title}\n\n```text\n{_own(listing(title), kind)}\n```" for title in registry.classes(kind)]
    return "\n\n".join(entries)


def _own(text: str, kind: str) -> str:
    """Of a name that several kinds have, the part of this kind."""
    parts = [part for part in re.split(r"\n\n(?=\w+ \w+\n)", text) if part.startswith(f"{kind} ")]
    return parts[0] if parts else text
