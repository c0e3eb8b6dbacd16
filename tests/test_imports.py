"""Who may import whom, what a module may load when it is imported, and no loader that runs what it reads.

commands (train.py, scripts/) -> trainer core -> leaves (injectors, losses, models, data, compression) -> base (the
files directly in codes/). Leaves never import the core nor another family of leaves; injectors import their base class.
"""

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [*ROOT.glob("codes/**/*.py"), *ROOT.glob("scripts/**/*.py"), *ROOT.glob("train.py")]
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in MODULES.items()}
FAMILIES = {
    "codes.trainer.injectors": "injectors",
    "codes.trainer.losses": "losses",
    "codes.models": "models",
    "codes.data": "data",
    "codes.compression": "compression",
    "codes.trainer": "core",
}
LEAVES = ("injectors", "losses", "models", "data", "compression")
MAY_IMPORT = {
    "command": {"command", "core", *LEAVES, "base"},
    "core": {"core", *LEAVES, "base"},
    **{leaf: {leaf, "base"} for leaf in LEAVES},
    "base": {"base"},
}
LIGHT = {"torch", "numpy", "yaml", "codes", *sys.stdlib_module_names}


def family(module: str) -> str:
    if not module.startswith("codes"):
        return "command"
    if module == "codes.trainer.injector":
        return "injectors"
    return next((name for prefix, name in FAMILIES.items() if f"{module}.".startswith(f"{prefix}.")), "base")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of every imported module (or of the name imported from it)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name if name in MODULES else str(node.module)) for name in names)


def own_imports(module: str) -> Iterator[tuple[int, str]]:
    for line, name in imported(TREES[module]):
        if name.split(".")[0] in ("codes", "scripts", "train"):
            yield line, name


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_downwards(module: str) -> None:
    for line, name in own_imports(module):
        assert family(name) in MAY_IMPORT[family(module)], f"{MODULES[module]}:{line}: must not import {name}"
    if MODULES[module].name == "__init__.py":
        assert not list(imported(TREES[module])), f"{MODULES[module]}: a package file imports nothing"


def test_no_circular_imports() -> None:
    graph = {module: {name for _, name in own_imports(module)} for module in MODULES}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("codes")))
def test_heavy_packages_are_imported_where_they_are_used(module: str) -> None:
    deferred = [
        node
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"))
    ]
    allowed = {entry for node in deferred for entry in imported(node)}
    for line, name in set(imported(TREES[module])) - allowed:
        assert name.split(".")[0] in LIGHT, f"{MODULES[module]}:{line}: import {name} inside the function that needs it"


def is_unsafe(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name == "torch.load":
        return options.get("weights_only") != "True"
    if name in ("yaml.load", "yaml.load_all"):
        return "Safe" not in options.get("Loader", "")
    return name == "pickle.load" or name.startswith(("yaml.unsafe_", "yaml.full_"))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_read_from_a_file_is_run(module: str) -> None:
    for node in ast.walk(TREES[module]):
        assert not (isinstance(node, ast.Call) and is_unsafe(node)), (
            f"{MODULES[module]}:{node.lineno}: torch.load needs weights_only=True, YAML a safe loader, pickle is out"
        )


@pytest.mark.parametrize(
    ("source", "unsafe"),
    [
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=False)", True),
        ("torch.load(path, weights_only=True)", False),
        ("yaml.load(text)", True),
        ("yaml.load(text, Loader=yaml.SafeLoader)", False),
        ("yaml.unsafe_load(text)", True),
        ("yaml.safe_load(text)", False),
        ("pickle.load(file)", True),
    ],
)
def test_unsafe_loading_is_recognised(source: str, unsafe: bool) -> None:
    call = ast.parse(source, mode="eval").body
    assert isinstance(call, ast.Call)
    assert is_unsafe(call) is unsafe
