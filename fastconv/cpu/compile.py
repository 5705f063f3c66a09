"""The one place that compiles: all of Numba's options, and the disk cache of what was compiled.

A kernel is compiled once per machine.  Its cache entry is named by a digest of everything that it depends on: the source of its own
module and of the modules of this package that it imports, the kernel's name and specialisation, the versions of fastconv, Numba,
llvmlite and Python, the processor and its features.  So an edited source finds no stale entry, and unlike Numba's own cache the key
does not depend on closures.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.metadata
import logging
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numba

from .. import __version__
from ..planning import disk_cache
from ..planning.disk_cache import KernelFile, Sources

_log = logging.getLogger("fastconv")
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}
_BARE = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # for functions that compiled ones call alone
_MAGIC = b"fastconv kernel 1\n"
_SOURCES = Sources(Path(__file__).parent)

# how many kernels this process compiled, and how many it loaded
counts = {"compiled": 0, "loaded": 0}


@functools.cache
def magic() -> tuple[str, str, str]:
    """(triple, cpu name, feature string) that Numba compiles for."""
    from numba.core.registry import cpu_target

    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    return triple, cpu, features


def helper(function: Callable[..., Any]) -> Any:
    """A function that kernels call; it is inlined into each."""
    return numba.njit(**_BARE, forceinline=True)(function)


# Held while compiling or loading, and by a fork: a child made while another thread compiles would find Numba's locks taken for ever.
_compiling = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_compiling.acquire, after_in_parent=_compiling.release, after_in_child=_compiling.release)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage is collected meanwhile: the compiler's many small objects start collections that find little, a seventh of its time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def compiled(name: str, factory: Callable[..., Any], spec: tuple[Any, ...], signature: Any, options: dict[str, Any] = _OPTIONS) -> Any:
    """The compiled ``factory(*spec)``, from the disk cache or the compiler.

    Parameters
    ----------
    name : str
        Of the kernel; with ``spec`` it identifies the code.
    factory : callable
        Returns the Python function to compile.
    spec : tuple of int, str
    signature : Numba signature
    options : dict
        Of `numba.njit`.

    Returns
    -------
    Numba dispatcher
    """
    with _compiling, _uncollected():
        start = time.perf_counter()
        function = factory(*spec)
        function.__name__ = function.__qualname__ = name
        dispatcher = numba.njit(**options)(function)
        cache = _KernelCache(sources_id(factory.__module__.rpartition(".")[2]), (name, spec, str(signature)))
        dispatcher._cache = cache
        dispatcher.compile(signature)
        dispatcher._can_compile = False
        counts["loaded" if cache.hit else "compiled"] += 1
        if os.environ.get("FASTCONV_VERBOSE"):
            _log.warning("%s %s in %.3f s", "loaded" if cache.hit else "compiled", name, time.perf_counter() - start)
        return dispatcher


class Kernel:
    """A kernel ``void (job, index, u0, u1)``: the job's address, the thread's slot of workspace, units ``u0 .. u1 - 1`` of work.

    Or one that such a kernel calls by its address, with another count of 64-bit integers.
    """

    def __init__(self, name: str, factory: Callable[..., Any], spec: tuple[Any, ...], integers: int = 4) -> None:
        with _compiling:
            self.dispatcher = compiled(name, factory, spec, numba.void(*[numba.int64] * integers), _BARE)
            (result,) = self.dispatcher.overloads.values()
            code, names = attrgetter("library", "fndesc")(result)
            self.address: int = code.get_pointer_to_function(names.llvm_func_name)

    def assembly(self) -> str:
        """The machine code's text; only where it was compiled in this process."""
        (text,) = self.dispatcher.inspect_asm().values()
        return str(text)


@functools.cache
def kernel(name: str, factory: Callable[..., Any], spec: tuple[Any, ...], integers: int = 4) -> Kernel:
    """The kernel of this name and specialisation; made once in a process."""
    return Kernel(name, factory, spec, integers)


class TileKernel(NamedTuple):
    """A kernel of ``integers`` 64-bit integers that band kernels call by its address; compiled when that is first asked for.

    So a band kernel is compiled once for all tiles, which takes longer than to compile one of them.
    """

    name: str
    factory: Callable[..., Any]
    spec: tuple[Any, ...]
    integers: int

    @property
    def address(self) -> int:
        """Of its code, for `fastconv.cpu.memory.call_kernel`."""
        return kernel(*self).address


@functools.cache
def sources_id(module: str) -> str:
    """Digest of what the kernels of a module depend on: its source and those that it imports, versions, processor."""
    versions = (
        *magic(),
        __version__,
        numba.__version__,
        importlib.metadata.version("llvmlite"),
        sys.version,
        str(os.environ.get("NUMBA_OPT")),
    )
    return _SOURCES.digest(module, versions)


@functools.cache
def cache_directory() -> Path | None:
    """Where kernels are kept, None if nowhere: see `fastconv.planning.disk_cache`; and if no sources tell one build's from another's."""
    return disk_cache.cache_directory() if _SOURCES else None


def cache_contents() -> tuple[str | None, int, int]:
    """(directory or None, number of kernels, bytes)."""
    return disk_cache.cache_contents(cache_directory())


class _KernelCache:
    """What Numba's dispatcher asks of its cache, for one kernel in one file: Numba's own pickle of a compile result."""

    cache_path = None

    def __init__(self, sources: str, identity: tuple[Any, ...]) -> None:
        self.hit = False
        self._file = KernelFile(cache_directory(), _MAGIC, identity[0], sources, identity)

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        payload = self._file.read()
        if payload is None:
            return None
        from numba.core import compiler

        target_context.refresh()
        rebuild: Any = compiler.CompileResult._rebuild
        try:
            result = rebuild(target_context, *pickle.loads(payload))
        except (pickle.UnpicklingError, TypeError, ValueError, LookupError, AttributeError, ImportError, EOFError) as error:
            _log.warning("fastconv: compiling again, since %s cannot be read (%s)", self._file.path, error)
            return None
        self.hit = True
        return result

    def save_overload(self, signature: Any, result: Any) -> None:
        if self._file.path is None:
            return
        from numba.core import serialize

        dumps: Any = serialize.dumps
        self._file.write(dumps(result._reduce()))

    def enable(self) -> None:
        """Part of Numba's interface."""

    def disable(self) -> None:
        """Part of Numba's interface."""

    def flush(self) -> None:
        """Part of Numba's interface."""
