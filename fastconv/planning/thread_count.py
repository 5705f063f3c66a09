"""How many threads a call may use: the argument, the innermost ``with threads(n)``, the process-wide setting, the machine."""

from __future__ import annotations

import contextvars
import functools
import os
import threading
import weakref
from pathlib import Path
from types import TracebackType

_scoped: contextvars.ContextVar[int | None] = contextvars.ContextVar("fastconv_threads", default=None)
# Settings of the process, the last one in force; one that is entered as a block is taken out again, whichever thread made it.
# Only those whose object still lives can be entered: of the others, the last is all that matters.
_process_wide: list[tuple[int, weakref.ref[Setting]]] = []
_lock = threading.Lock()


@functools.cache
def available() -> int:
    """min(NUMBA_NUM_THREADS, affinity, container quota): what may run at once in this process."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("NUMBA_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        count = min(count, int(asked))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        return count
    return max(1, min(count, -(-int(quota) // int(period)))) if quota.isdigit() else count


def thread_count(argument: int | None = None) -> int:
    """The count for one call, clamped to what is available.

    Raises
    ------
    TypeError, ValueError
        ``threads`` is not an integer of at least 1.
    """
    most = available()
    if argument is None:
        asked = _scoped.get() or (_process_wide[-1][0] if _process_wide else most)
    else:
        asked = _checked(argument)
    return asked if asked < most else most


def _checked(count: int) -> int:
    if isinstance(count, bool) or not hasattr(count, "__index__"):
        raise TypeError(f"threads must be an integer of at least 1, got {count!r}")
    count = count.__index__()
    if count < 1:
        raise ValueError(f"threads must be at least 1, got {count}")
    return count


class Setting:
    """What ``threads(n)`` returns: already in force for the process, or for a ``with`` block if entered."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._tokens: list[contextvars.Token[int | None]] = []
        with _lock:
            dead = [setting for setting in _process_wide if setting[1]() is None]
            for setting in dead[:-1]:
                _process_wide.remove(setting)
            _process_wide.append((count, weakref.ref(self)))

    def __enter__(self) -> int:
        with _lock:
            _process_wide[:] = [setting for setting in _process_wide if setting[1]() is not self]
        self._tokens.append(_scoped.set(self._count))
        return min(self._count, available())

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        _scoped.reset(self._tokens.pop())


def threads(n: int | None = None) -> int | Setting:
    """Read or set how many threads fastconv's calls use.

    Parameters
    ----------
    n : int, optional
        At least 1; more than the machine offers is clamped.  ``threads(n)`` sets it for the process,
        ``with threads(n):`` for the block, in this thread or task only.  Without it: read.

    Returns
    -------
    int or context manager

    Raises
    ------
    TypeError, ValueError
        ``n`` is not an integer of at least 1.

    Examples
    --------
    >>> import fastconv
    >>> with fastconv.threads(1):
    ...     fastconv.threads()
    1
    """
    return thread_count() if n is None else Setting(_checked(n))
