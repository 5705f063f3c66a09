"""The one place that compiles: all of Numba's options, and the disk cache of what was compiled.

A kernel is compiled once per machine.  Its cache entry is named by a digest of everything that it depends on: the source of its own
module and of the modules of this package that it imports, the kernel's name and specialisation, the versions of fastconv, Numba,
llvmlite and Python, the processor and its features.  So an edited source finds no stale entry, and unlike Numba's own cache the key
does not depend on closures.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import logging
import os
import pickle
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import numba

from .. import __version__

_log = logging.getLogger("fastconv")
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}
_MAGIC = b"fastconv kernel 1\n"
_DIGEST_BYTES = 32
MOST_CACHE_BYTES = 256 << 20
# This package's files: compiled ones where it is installed so, none where it is imported from an archive.  They are read as the
# modules are imported, since an upgrade may replace them before the first kernel is compiled.
_SOURCES = {path.name: path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py*")) if path.suffix in (".py", ".pyc")}

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
    options = {**_OPTIONS, "forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(**options)(function)


# Held while compiling or loading, and by a fork: a child made while another thread compiles would find Numba's locks taken for ever.
_compiling = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_compiling.acquire, after_in_parent=_compiling.release, after_in_child=_compiling.release)


def compiled(name: str, factory: Callable[..., Any], spec: tuple[Any, ...], signature: Any) -> Any:
    """The compiled ``factory(*spec)``, from the disk cache or the compiler.

    Parameters
    ----------
    name : str
        Of the kernel; with ``spec`` it identifies the code.
    factory : callable
        Returns the Python function to compile.
    spec : tuple of int, str
    signature : Numba signature

    Returns
    -------
    Numba dispatcher
    """
    with _compiling:
        start = time.perf_counter()
        function = factory(*spec)
        function.__name__ = function.__qualname__ = name
        dispatcher = numba.njit(**_OPTIONS)(function)
        cache = _KernelCache(sources_id(factory.__module__.rpartition(".")[2]), (name, spec, str(signature)))
        dispatcher._cache = cache
        dispatcher.compile(signature)
        dispatcher._can_compile = False
        counts["loaded" if cache.hit else "compiled"] += 1
        if os.environ.get("FASTCONV_VERBOSE"):
            _log.warning("%s %s in %.3f s", "loaded" if cache.hit else "compiled", name, time.perf_counter() - start)
        return dispatcher


class Kernel:
    """A kernel ``void (job, index, u0, u1)``: the job's address, the thread's slot of workspace, units ``u0 .. u1 - 1`` of work."""

    def __init__(self, name: str, factory: Callable[..., Any], spec: tuple[Any, ...]) -> None:
        integer = numba.int64
        with _compiling:
            self.dispatcher = compiled(name, factory, spec, numba.void(integer, integer, integer, integer))
            (result,) = self.dispatcher.overloads.values()
            code, names = attrgetter("library", "fndesc")(result)
            self.address: int = code.get_pointer_to_function(names.llvm_cfunc_wrapper_name)

    def assembly(self) -> str:
        """The machine code's text; only where it was compiled in this process."""
        (text,) = self.dispatcher.inspect_asm().values()
        return str(text)


@functools.cache
def kernel(name: str, factory: Callable[..., Any], spec: tuple[Any, ...]) -> Kernel:
    """The kernel of this name and specialisation; made once in a process."""
    return Kernel(name, factory, spec)


@functools.cache
def sources_id(module: str) -> str:
    """Digest of what the kernels of a module depend on: its source and those that it imports, versions, processor."""
    digest = hashlib.sha256()
    for name in sorted(_imported(module)):
        digest.update(name.encode() + b"\0" + _SOURCES[name] + b"\0")
    for part in (
        *magic(),
        __version__,
        numba.__version__,
        importlib.metadata.version("llvmlite"),
        sys.version,
        str(os.environ.get("NUMBA_OPT")),
    ):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _imported(module: str) -> set[str]:
    """The files of a module and of all that it imports from this package; every file where sources were not installed."""
    if f"{module}.py" not in _SOURCES:
        return set(_SOURCES)
    found, left = {"compile.py"}, [f"{module}.py"]
    while left:
        name = left.pop()
        found.add(name)
        for node in ast.walk(ast.parse(_SOURCES[name])):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                left += [f"{name}.py" for name in names if f"{name}.py" in _SOURCES and f"{name}.py" not in found]
    return found


def _private(path: Path) -> bool:
    """Whether a directory belongs to this user and no one else can write to it."""
    try:
        status = path.stat()
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        return False
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)


@functools.cache
def cache_directory() -> Path | None:
    """Where kernels are kept: ``FASTCONV_CACHE_DIR`` or the user's cache directory.

    None if that place cannot be trusted, or if no sources are found that tell one build's kernels from another's.
    """
    if not _SOURCES:
        return None
    named = os.environ.get("FASTCONV_CACHE_DIR")
    try:
        path = (Path(named) if named else _user_cache() / "fastconv").absolute()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return path if _private(path) else None


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def cache_contents() -> tuple[str | None, int, int]:
    """(directory or None, number of kernels, bytes)."""
    directory = cache_directory()
    if directory is None:
        return None, 0, 0
    sizes = []
    for path in directory.glob("*.kernel"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:
            continue
    return str(directory), len(sizes), sum(sizes)


def _prune(directory: Path) -> None:
    """Keep the newest files within ``MOST_CACHE_BYTES``: kernels of former versions are never asked for again."""
    files = sorted(((path.stat().st_mtime, path.stat().st_size, path) for path in directory.glob("*.kernel")), reverse=True)
    total = 0
    for _, size, path in files:
        total += size
        if total > MOST_CACHE_BYTES:
            path.unlink(missing_ok=True)


class _KernelCache:
    """What Numba's dispatcher asks of its cache, for one kernel in one file.

    The file is ``_MAGIC``, the SHA-256 of the rest, the rest: Numba's own pickle of a compile result.
    A file that cannot be read, or whose digest differs, is a miss; one that cannot be written is done without.
    """

    cache_path = None

    def __init__(self, sources: str, identity: tuple[Any, ...]) -> None:
        self.hit = False
        directory = cache_directory()
        digest = hashlib.sha256(repr((sources, identity)).encode()).hexdigest()
        self._path = None if directory is None else directory / f"{identity[0]}-{digest[:40]}.kernel"

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        payload = self._read()
        if payload is None:
            return None
        from numba.core import compiler

        target_context.refresh()
        rebuild: Any = compiler.CompileResult._rebuild
        try:
            result = rebuild(target_context, *pickle.loads(payload))
        except (pickle.UnpicklingError, TypeError, ValueError, LookupError, AttributeError, ImportError, EOFError) as error:
            _log.warning("fastconv: compiling again, since %s cannot be read (%s)", self._path, error)
            return None
        self.hit = True
        return result

    def save_overload(self, signature: Any, result: Any) -> None:
        if self._path is None:
            return
        from numba.core import serialize

        dumps: Any = serialize.dumps
        payload = dumps(result._reduce())
        try:
            handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".new-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_MAGIC + hashlib.sha256(payload).digest() + payload)
                os.replace(temporary, self._path)
            except OSError:
                os.unlink(temporary)
                raise
            _prune(self._path.parent)
        except OSError:
            return

    def _read(self) -> bytes | None:
        if self._path is None:
            return None
        # checked at every load: the directory may have been replaced since
        if not _private(self._path.parent):
            return None
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
                    return None
                data = file.read()
        except OSError:
            return None
        head = len(_MAGIC) + _DIGEST_BYTES
        payload = data[head:]
        if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : head] != hashlib.sha256(payload).digest():
            return None
        return payload

    def enable(self) -> None:
        """Part of Numba's interface."""

    def disable(self) -> None:
        """Part of Numba's interface."""

    def flush(self) -> None:
        """Part of Numba's interface."""
