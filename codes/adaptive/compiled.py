"""Functions over numbers and arrays, compiled by numba when they are first needed.

A module of kernels is plain Python that imports nothing heavy; `compile_module` puts the compiled functions in the
place of the plain ones. Kernels call those of other modules by the module's name (``least_squares.dot``).

The kernels of adaptive prediction and of the codecs must give the same bits on every machine, for a decoder has to
repeat what an encoder did. They use IEEE operations that are rounded the same way everywhere (+ - * / sqrt,
comparisons, frexp and ldexp) in an order that the source fixes: no library exp or log, and no ``fastmath``, without
which LLVM neither reorders sums nor contracts a product and a sum into one rounding. Sums are written so that they can
be vectorised as they stand.

Compiled code is kept in numba's cache where there is a folder to write to. Numba takes a cached function for current
when its own file is unchanged, whatever it calls; so a stamp beside the cache says which sources it was made from, all
of them, and a cache of other sources is emptied.
"""

import functools
import hashlib
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

KERNEL_FOLDERS = ("adaptive", "compression")


_compiled: set[tuple[str, ...]] = set()
_lock = threading.Lock()


def compile_module(name: str, functions: Sequence[str] | Mapping[str, str], *, reorder_sums: bool = False) -> None:
    """Replace functions of a module by compiled ones, callees before their callers; once for each process.

    Args:
        name: full name of the module, already imported.
        functions: those that are compiled, each for the types of its first call; or function -> its types as numba
            writes them, for functions that take constants, where numba would compile one anew for every constant.
        reorder_sums: let the compiler reorder sums of floats. Never for what a decoder needs.

    Raises:
        ImportError: numba is not installed.
    """
    try:
        import numba
    except ImportError as error:
        raise ImportError(f"coding and predicting audio needs numba (pip install numba): {error}") from error
    with _lock:
        if (name, *functions) in _compiled:
            return
        compile_one = functools.partial(numba.njit, nogil=True, fastmath=reorder_sums)
        _compile(compile_one, sys.modules[name], functions)
        _compiled.add((name, *functions))


def _compile(njit: Callable[..., Any], module: ModuleType, functions: Sequence[str] | Mapping[str, str]) -> None:
    made = {}
    for function in functions:
        plain = getattr(module, function)
        try:
            made[function] = njit(cache=True)(plain)
        except RuntimeError:  # there is no folder to keep it in
            made[function] = njit()(plain)
        setattr(module, function, made[function])
    _empty_stale(f"{module.__name__}.{next(iter(functions))}", list(made.values()))
    if isinstance(functions, Mapping):
        for function, signature in functions.items():
            made[function].compile(signature)
            made[function].disable_compile()


@functools.cache
def sources_digest() -> str:
    """SHA-256 of all sources that kernels may be in."""
    digest = hashlib.sha256()
    for folder in KERNEL_FOLDERS:
        for path in sorted((Path(__file__).parents[1] / folder).glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _empty_stale(name: str, functions: list[Any]) -> None:
    """Empty the cache of functions that were compiled from other sources."""
    caches = [function._cache for function in functions if getattr(function._cache, "cache_path", None)]
    for folder in {Path(cache.cache_path) for cache in caches}:
        stamp = folder / f"{name}.kernels"
        try:
            if stamp.is_file() and stamp.read_text() == sources_digest():
                continue
            for cache in caches:
                cache.flush()
            stamp.write_text(sources_digest())
        except OSError:  # a cache that can be read but not written
            continue
