"""disk_cache: compiled kernels that are kept for other processes: in which directory, in what files, and what of it is trusted.

The directory is ``FASTCONV_CACHE_DIR`` or the user's cache directory, used only if it belongs to this user and no one else can write to
it.  A file is a first line that tells its kind, the SHA-256 of the rest, the rest; it is written aside and renamed into place.  One that
cannot be read, belongs to another user or has another digest is a miss; one that cannot be written is done without.

A file's name holds a digest of everything that its content depends on, so an edited source finds no stale one.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MOST_BYTES = 256 << 20
_DIGEST_BYTES = 32
# What is imported from where, of this package; more may match, in a text, which is another file to depend on.  Parsers take 0.3 s of a
# process's first call, this 1.5 ms.
_IMPORT = re.compile(r"^\s*from \.{1,2}([\w.]*) import (\([^)]*\)|.*)", re.MULTILINE)
# Beside a backend's own files, what its kernels are made of.
_SHARED = ("winograd_points",)


class Sources:
    """A backend's files: compiled ones where it is installed so, none where it is imported from an archive.

    They are read when this is made, as the backend is imported, since an upgrade may replace them before the first kernel is compiled.

    Parameters
    ----------
    folder : Path
        Of the backend's modules.
    """

    def __init__(self, folder: Path) -> None:
        shared = folder.parent / "planning"
        places = [(path.name, path) for path in folder.glob("*.py*")]
        places += [(f"planning/{path.name}", path) for name in _SHARED for path in shared.glob(f"{name}.py*")]
        self._files = {name: path.read_bytes() for name, path in sorted(places) if path.suffix in (".py", ".pyc")}

    def __bool__(self) -> bool:
        return bool(self._files)

    def digest(self, module: str, versions: Iterable[str]) -> str:
        """Of what the kernels of a module depend on: its source, those that it imports, ``compile.py``'s, and versions."""
        digest = hashlib.sha256()
        for name in sorted(self._imported(module)):
            digest.update(name.encode() + b"\0" + self._files[name] + b"\0")
        for part in versions:
            digest.update(part.encode() + b"\0")
        return digest.hexdigest()

    def _imported(self, module: str) -> set[str]:
        """The files of a module and of all that it imports from these; every file where sources were not installed."""
        if f"{module}.py" not in self._files:
            return set(self._files)
        found, left = {"compile.py"}, [f"{module}.py"]
        while left:
            name = left.pop()
            found.add(name)
            for place, listed in _IMPORT.findall(self._files[name].decode()):
                names = [place.replace(".", "/")] if place else re.findall(r"\w+", listed)
                left += [f"{other}.py" for other in names if f"{other}.py" in self._files and f"{other}.py" not in found]
        return found


def _private(path: Path) -> bool:
    """Whether a directory belongs to this user and no one else can write to it."""
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and _own(status)


def _own(status: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)


@functools.cache
def cache_directory() -> Path | None:
    """Where kernels are kept; made where it is missing, None if that place cannot be trusted."""
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


def cache_contents(directory: Path | None) -> tuple[str | None, int, int]:
    """(directory or None, number of kernels, bytes)."""
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
    """Keep the newest files within ``MOST_BYTES``: kernels of former versions are never asked for again."""
    files = sorted(((path.stat().st_mtime, path.stat().st_size, path) for path in directory.glob("*.kernel")), reverse=True)
    total = 0
    for _, size, path in files:
        total += size
        if total > MOST_BYTES:
            path.unlink(missing_ok=True)


class KernelFile:
    """One kernel's file.

    Parameters
    ----------
    directory : Path, optional
        None: nothing is read or written.
    magic : bytes
        The first line, which tells what follows.
    name : str
        Of the kernel.
    *identity : object
        What its content depends on, as `repr` shows it.
    """

    def __init__(self, directory: Path | None, magic: bytes, name: str, *identity: Any) -> None:
        digest = hashlib.sha256(repr((magic, name, identity)).encode()).hexdigest()
        self.path = None if directory is None else directory / f"{name}-{digest[:40]}.kernel"
        self._magic = magic

    def read(self) -> bytes | None:
        """What was written, or None."""
        # checked at every load: the directory may have been replaced since
        if self.path is None or not _private(self.path.parent):
            return None
        try:
            with self.path.open("rb") as file:
                if not _own(os.fstat(file.fileno())):
                    return None
                data = file.read()
        except OSError:
            return None
        head = len(self._magic) + _DIGEST_BYTES
        payload = data[head:]
        if data[: len(self._magic)] != self._magic or data[len(self._magic) : head] != hashlib.sha256(payload).digest():
            return None
        return payload

    def write(self, payload: bytes) -> None:
        """Put it into place, or do without."""
        if self.path is None or not _private(self.path.parent):
            return
        try:
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".new-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(self._magic + hashlib.sha256(payload).digest() + payload)
                os.replace(temporary, self.path)
            except OSError:
                os.unlink(temporary)
                raise
            _prune(self.path.parent)
        except OSError:
            return
