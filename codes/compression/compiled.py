"""Functions over integers and arrays, compiled by numba when they are first needed.

A module of such functions is plain Python that imports nothing heavy, and can be run as it stands; `compile_functions`
puts the compiled ones in their place. What is compiled is kept in numba's cache where there is a folder to write to.
"""

from collections.abc import Mapping
from types import ModuleType


def compile_functions(module: ModuleType, signatures: Mapping[str, str], *, fast: bool = False) -> None:
    """Replace functions of a module by compiled ones, callees before their callers.

    Args:
        signatures: function -> its types as numba writes them. One each: numba would compile a function anew for every
            constant that it is called with.
        fast: let the compiler reorder sums of floats. Never for what a decoder needs.

    Raises:
        ImportError: numba is not installed.
    """
    try:
        import numba
    except ImportError as error:
        raise ImportError(f"coding audio needs numba (pip install numba): {error}") from error
    for name, signature in signatures.items():
        function = getattr(module, name)
        try:
            compiled = numba.njit(signature, cache=True, fastmath=fast, nogil=True)(function)
        except RuntimeError:  # there is no folder to keep it in
            compiled = numba.njit(signature, fastmath=fast, nogil=True)(function)
        setattr(module, name, compiled)
