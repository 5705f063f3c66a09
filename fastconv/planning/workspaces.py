"""workspaces: memory that is used again: scratch arrays of kernels, and large results that their callers no longer hold."""

from __future__ import annotations

import contextlib
import math
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import cost as costs

MOST_KEPT = 64 << 20  # bytes of idle workspace
LEAST_RESULTS = 80 << 20  # of idle results, on any machine: 4096x4096 of float32 and a page
# Making a new array's pages takes longer than a 3x3 filter of it: 8192x8192 39 ms instead of 16 (two cores, Emerald Rapids, 2026-11).
RESULTS_SHARE = 64  # of the memory that this process may have, one part of so many
_LIMITS = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
MOST_SIZES = 256

# Stores to addresses that equal those of the image modulo a page hold up the loads behind them (1024x1024 k3: 337 us, half a page apart
# 203; one core, Zen 4, 2026-11), and large arrays all begin at one place of a page.
_PAGE = 4096
_LINE = 64


class Workspaces:
    """Idle scratch arrays by size: at most ``most`` bytes in at most ``MOST_SIZES`` sizes, the oldest of which make room.

    Any number of threads may use it, with or without an interpreter's lock: each step is one atomic operation of a dict or a deque.
    A lock could stay taken by a fork or a signal, and a running total drift; so the bytes are counted where a size is admitted, and
    what several threads admit in the same instant may exceed the limit until the next one is.
    """

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._idle: dict[int, deque[np.ndarray]] = {}  # each counts as full

    def take(self, size: int) -> np.ndarray:
        """An array of so many bytes, whatever they hold."""
        idle = self._idle.get(size)
        if idle:
            try:
                return idle.pop()
            except IndexError:  # another thread took it
                pass
        return np.empty(size, np.uint8)

    def give(self, array: np.ndarray) -> None:
        """Keep an array that is no longer used."""
        idle = self._idle.get(array.size)
        if idle is None or len(idle) == idle.maxlen:
            self._admit(array)
        else:
            idle.append(array)

    def _admit(self, array: np.ndarray) -> None:
        """Keep one more array of this size than before, as far as the limit goes."""
        size = array.size
        if size > self._most:
            return
        arrays = [array]
        former = self._idle.pop(size, None)  # so that this size becomes the newest
        while former:
            try:
                arrays.append(former.pop())  # one by one: what another thread takes meanwhile is its alone
            except IndexError:
                break
        idle = deque(arrays, min(len(arrays), self._most // size))
        others = {other: other * (held.maxlen or 0) for other, held in self._idle.copy().items()}
        total = size * len(idle) + sum(others.values())
        for left, (other, held) in zip(range(len(others), 0, -1), others.items(), strict=True):
            if total <= self._most and left < MOST_SIZES:
                break
            self._idle.pop(other, None)
            total -= held
        self._idle[size] = idle


def most_results() -> int:
    """Bytes of idle results that are kept."""
    if not hasattr(os, "sysconf"):
        return LEAST_RESULTS
    memory = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # there is none of this kind, or it says "max"
            memory.append(int(limit.read_text()))
    return max(min(memory) // RESULTS_SHARE, LEAST_RESULTS)


results = Workspaces(most_results())


class _Memory(np.ndarray):
    """Bytes that know their address ``at``, which takes a microsecond to ask for, and to whom to ``give`` them back."""

    at: int
    give: Callable[[np.ndarray], None]


class _Lent(np.ndarray):
    """What a result has for a base, gone when nobody holds the result or a view of it; its own base, a `_Memory`, is then given back.

    NumPy sets a view's base to the last array of another class, so each of the three is of its own.
    """

    lent = False  # of views and copies that somebody makes of it

    def __del__(self) -> None:
        memory = self.base
        if self.lent and isinstance(memory, _Memory):
            memory.give(memory)


def new_result(shape: tuple[int, ...], dtype: np.dtype[Any], near: np.ndarray | None = None) -> np.ndarray:
    """A C-contiguous array that holds anything, half a page from ``near`` where it is large.

    Examples
    --------
    >>> new_result((2, 3), np.dtype("f4")).shape
    (2, 3)
    """
    size = math.prod(shape) * dtype.itemsize
    if size < costs.LEAST_RESULT:
        return np.empty(shape, dtype)
    idle = results.take(size + _PAGE)
    if isinstance(idle, _Memory):
        memory = idle
    else:
        memory = idle.view(_Memory)
        memory.at, memory.give = idle.ctypes.data, results.give
    place = 0 if near is None else near.ctypes.data + _PAGE // 2
    first = -memory.at % _LINE
    base = memory.view(_Lent)
    base.lent = True
    return np.ndarray(shape, dtype, base, first + (place - memory.at - first) % _PAGE // _LINE * _LINE)
