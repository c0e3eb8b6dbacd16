"""Links of the README and of docs/ lead somewhere, commands name files that exist, listings name what there is."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from codes import registry
from codes.convert import KINDS
from codes.describe import SECTIONS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED = re.compile(r"\b((?:scripts|experiments|codes|docs|benchmarks|tests)/[\w/.-]+\.(?:py|sh|yml|md))\b")


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", text, flags=re.S))


def anchors(text: str) -> set[str]:
    """What a heading is called in an address."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


def broken(page: Path, text: str) -> list[str]:
    found = []
    for address in LINK.findall(without_code(text)):
        if re.match(r"[a-z]+:", address):
            continue
        name, _, anchor = address.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            found.append(address)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", ["recipes.md", "troubleshooting.md", "plugins.md", "index.md"])
def test_commands_name_files_that_exist(page: str) -> None:
    named = NAMED.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_experiment_is_a_recipe() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    shipped = {f"experiments/{path.name}" for path in (ROOT / "experiments").glob("*.yml")}
    assert shipped <= set(NAMED.findall(text))
    made = re.search(r"encode_audio\.py DIR .*--out (\S+)\n", text)
    read = yaml.safe_load((ROOT / "experiments" / "codes_gpt.yml").read_text(encoding="utf-8"))
    assert made is not None
    assert made[1] == read["datasets"]["train"]["path"]


def test_troubleshooting_quotes_messages_that_exist() -> None:
    sources = "\n".join(
        path.read_text(encoding="utf-8") for top in ("codes", "scripts") for path in (ROOT / top).rglob("*.py")
    )
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [phrase for line in re.findall(r"^(`.*)\n:   ", text, re.M) for phrase in re.findall(r"`([^`]+)`", line)]
    pieces = [piece.strip(" ,") for phrase in quoted if "CUDA" not in phrase for piece in phrase.split("...")]
    assert len(pieces) > 20
    assert [piece for piece in pieces if piece not in sources] == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# Some title, here\n[a](#some-title-here) [b](#other) [c](b.md) [d](https://x.org) `[e](f)`\n")
    assert broken(page, page.read_text()) == ["#other", "b.md"]


def test_the_listings_of_the_options_page_exist() -> None:
    text = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    named = re.findall(r"<!-- listing: (\w+) -->", text)
    assert set(named) <= SECTIONS.keys() | set(KINDS.values())
    assert set(named) >= set(KINDS) | set(KINDS.values())
    assert all(registry.classes(kind) for kind in KINDS)


def test_the_printed_plugins_are_python_and_complete() -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8"), re.S)
    names = [node.name for text in code for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert names == ["ScaleInjector", "SquaredErrorLoss", "SineDataset", "TinyNetwork"]


def test_the_api_page_names_what_exists() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in re.findall(r"^::: ([\w.]+)$", text, re.M):
        module = name.rpartition(".")[0] if name.rpartition(".")[2][0].isupper() else name
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), name
