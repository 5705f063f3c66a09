"""threads: one band kernel, run serially, through Numba's threading layer, or on a pool of our own.

Numba's layer is used only if it is omp or tbb (workqueue aborts the process on concurrent use), only in the process that started it
(libgomp kills a forked child), and only if no other fastconv region runs: a lock taken without waiting.  Otherwise the same nogil
kernel runs on a pool of Python threads.  What is computed does not depend on the way.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numba import types

from ..planning.plans import Launch
from .compile import Kernel, compiled, kernel
from .simd import KINDS, address, call_kernel, call_parallel_for, poke

# A region of Numba's omp layer costs 1-2 us over the serial call (Zen 5, 2026-11); below this much work it is not worth it.
PARALLEL_SECONDS = 8e-6
# No compiled call runs much longer than this without returning to Python (signals, other threads).
MOST_SECONDS = 0.3
_MOST_KEPT = 64 << 20  # bytes of idle workspace

_FIRST = (0, 0, 0, slice(0, 1))


class _Workspaces:
    """Idle scratch arrays by size; at most ``_MOST_KEPT`` bytes are kept."""

    def __init__(self) -> None:
        self._idle: dict[int, list[np.ndarray]] = {}
        self._kept = 0

    def take(self, size: int) -> np.ndarray:
        idle = self._idle.get(size)
        if idle:
            try:
                array = idle.pop()
            except IndexError:  # another thread took it
                return np.empty(size, np.uint8)
            self._kept -= size
            return array
        return np.empty(size, np.uint8)

    def give(self, array: np.ndarray) -> None:
        size = array.size
        if self._kept + size <= _MOST_KEPT:
            self._kept += size
            self._idle.setdefault(size, []).append(array)


workspaces = _Workspaces()
_region = threading.Lock()
_pool_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_forked = False  # from a process in which Numba's layer had started


def _numba_started() -> bool:
    module = sys.modules.get("numba.np.ufunc.parallel")
    return bool(getattr(module, "_is_initialized", False))


def _after_fork() -> None:
    global _forked, _pool, _region, _pool_lock
    _forked = _forked or _numba_started()
    _pool, _region, _pool_lock = None, threading.Lock(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _multiprocessing_child() -> bool:
    """A child that multiprocessing forked before fastconv was imported may have inherited a started layer."""
    module = sys.modules.get("multiprocessing.process")
    return module is not None and module.parent_process() is not None and _numba_started()


_inherited = _multiprocessing_child()


def layer() -> str:
    """What runs parallel regions in this process: Numba's layer, or our pool."""
    if _forked or _inherited:
        return "pool (this process was forked)"
    name = _numba_layer()
    return name if name in ("omp", "tbb") else f"pool (Numba's layer is {name})"


def _numba_layer() -> str:
    from numba.np.ufunc.parallel import _launch_threads

    _launch_threads()
    return str(numba.threading_layer())


@functools.cache
def _parallel_for() -> int:
    """The address of Numba's parallel loop, or 0 where our pool is used."""
    if _forked or _inherited or _numba_layer() not in ("omp", "tbb"):
        return 0
    from llvmlite.binding import address_of_symbol

    return address_of_symbol("numba_parallel_for") or 0


def _get_pool() -> ThreadPoolExecutor:
    global _pool
    with _pool_lock:
        if _pool is None:
            from ..planning.thread_count import available

            _pool = ThreadPoolExecutor(max(available() - 1, 1), thread_name_prefix="fastconv")
        return _pool


# The job that a kernel receives, as integers: src, wei, bias, values, dst, workspace, extents, u0, u1, slots, slot.
_JOB = 12


def _launch_factory() -> Any:
    """The one function between Python and every kernel: puts the job into the workspace's head and calls."""

    def launch(
        function: Any, parallel_for: Any, src: Any, wei: Any, bias: Any, values: Any, dst: Any, workspace: Any, e: Any, u0: Any, u1: Any,
        slots: Any, slot: Any,
    ) -> None:  # fmt: skip
        job = (address(workspace) + 63) // 64 * 64
        args, indices = job + 8 * _JOB, job + 8 * (_JOB + 3)
        poke("i64", job, address(src))
        poke("i64", job + 8, address(wei))
        poke("i64", job + 16, address(bias))
        poke("i64", job + 24, address(values))
        poke("i64", job + 32, address(dst))
        poke("i64", job + 40, (indices + 8 * slots + 63) // 64 * 64)
        poke("i64", job + 48, address(e))
        poke("i64", job + 56, u0)
        poke("i64", job + 64, u1)
        poke("i64", job + 72, slots)
        poke("i64", job + 80, slot)
        poke("i64", args, indices)
        poke("i64", args + 8, slots)  # dims
        poke("i64", args + 16, 8)  # steps
        for index in range(slots):
            poke("i64", indices + 8 * index, index)
        if slots == 1:
            call_kernel(function, args, args + 8, args + 16, job)
        else:
            call_parallel_for(parallel_for, function, args, args + 8, args + 16, job, slots)

    return launch


def _head(slots: int) -> int:
    """Bytes of a workspace before its slots."""
    return 8 * (_JOB + 3 + slots) + 128


@functools.cache
def _launcher(kind: str) -> Any:
    """The compiled launch function for arrays of one kind."""
    number = KINDS[kind][1]
    given = types.Array(number, 1, "C", readonly=True)
    integer = types.int64
    signature = types.void(integer, integer, given, given, given, given, types.Array(number, 1, "C"),
                           types.Array(types.uint8, 1, "C"), types.Array(integer, 1, "C"), integer, integer, integer, integer)  # fmt: skip
    return compiled(f"launch_{kind}", _launch_factory, (), signature)


class Region:
    """A band kernel and the ways to run it; compiled when first needed.

    Parameters
    ----------
    name, factory, spec
        As of `fastconv.cpu.compile.kernel`.
    kind : str
        Of the arrays' elements.
    """

    def __init__(self, name: str, factory: Callable[..., Any], spec: tuple[Any, ...], kind: str) -> None:
        self._name, self._factory, self._spec, self._kind = name, factory, spec, kind

    def kernel(self) -> Kernel:
        """The compiled kernel."""
        return kernel(self._name, self._factory, self._spec)

    def launcher(
        self, extents: np.ndarray, values: np.ndarray, slot: int, units: int, threads: int, seconds: float
    ) -> Launch:  # fmt: skip
        """A launch for arrays of fixed shapes and strides.

        Parameters
        ----------
        extents, values : ndarray
            The kernel's integers and scalars.
        slot : int
            Bytes of workspace of one thread.
        units : int
            Of work; they are spread over ``threads`` threads.
        seconds : float
            Predicted, on one thread.
        """
        function, call = self.kernel().address, _launcher(self._kind)
        threads = 1 if seconds < PARALLEL_SECONDS else min(threads, units)
        pieces = min(max(int(seconds / threads / MOST_SECONDS) + 1, 1), -(-units // threads))
        bounds = [units * piece // pieces for piece in range(pieces + 1)]
        one, many = slot + _head(1), slot * threads + _head(threads)
        parallel_for = _parallel_for() if threads > 1 else 0
        take, give, first = workspaces.take, workspaces.give, _FIRST

        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            if bias is None:
                bias = values
            workspace = take(one)
            call(function, 0, src[first], packed[first], bias, values, dst[first], workspace, extents, 0, units, 1, slot)
            give(workspace)

        def launch_pieces(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            arrays = src[first], packed[first], values if bias is None else bias, values, dst[first]
            for u0, u1 in itertools.pairwise(bounds):
                if threads == 1:
                    workspace = take(one)
                    call(function, 0, *arrays, workspace, extents, u0, u1, 1, slot)
                    give(workspace)
                elif parallel_for and not _forked and _region.acquire(blocking=False):
                    workspace = take(many)
                    try:
                        call(function, parallel_for, *arrays, workspace, extents, u0, u1, threads, slot)
                    finally:
                        _region.release()
                    give(workspace)
                else:
                    on_pool(arrays, u0, u1)

        def on_pool(arrays: tuple[Any, ...], u0: int, u1: int) -> None:
            def run(index: int) -> None:
                workspace = take(one)
                first, end = u0 + (u1 - u0) * index // threads, u0 + (u1 - u0) * (index + 1) // threads
                call(function, 0, *arrays, workspace, extents, first, end, 1, slot)
                give(workspace)

            pool = _get_pool()
            futures = [pool.submit(run, index) for index in range(1, threads)]
            run(0)
            for index, future in enumerate(futures, 1):
                # a share that no worker has begun is done here: the pool may be full of callers that wait for theirs
                if future.cancel():
                    run(index)
                else:
                    future.result()

        chosen = launch if threads == 1 and pieces == 1 else launch_pieces
        return chosen if values.dtype.kind == "f" else _signed(chosen, values.dtype)


def _signed(launch: Launch, dtype: np.dtype[Any]) -> Launch:
    """Arrays of integers seen with the sign that the kernel is compiled for; the arithmetic wraps alike."""

    def signed(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
        launch(src.view(dtype), packed.view(dtype), None if bias is None else bias.view(dtype), dst.view(dtype))

    return signed
