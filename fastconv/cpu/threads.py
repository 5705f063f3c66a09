"""threads: one band kernel, run serially or by the pool; what is computed does not depend on the way."""

from __future__ import annotations

import functools
import itertools
from collections import deque, namedtuple
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numba import types

from ..planning import cost as costs
from ..planning.plans import Launch, Quick, QuickLaunch
from ..planning.thread_count import available
from ..planning.workspaces import Workspaces
from . import pool as pools
from .compile import Kernel, compiled, helper, kernel
from .memory import address, integers, peek, poke, put_integers
from .pool import TURNS_AT, run_alone, run_job
from .simd import KINDS

# Chunks of work for each thread: a helper that comes late, or is descheduled, leaves the rest to the others.
_CHUNKS = 8

# An idle workspace that one launch keeps for itself: found in 0.06 us instead of 0.22.
_MOST_OWN = 128 << 10

_FIRST = (0, 0, 0, slice(0, 1))


workspaces = Workspaces()


# The job that a kernel receives: addresses, and the bytes of workspace of one thread, whose first word is 0 before its first unit.
Job = namedtuple("Job", "src wei bias values dst workspace extents scratch")
JOB_WORDS = len(Job._fields)


@helper
def _begin(workspace: Any, scratch: Any, slots: Any) -> None:
    """Put 0 into the first word of each slot's workspace."""
    for slot in range(slots if scratch > 0 else 0):
        poke("i64", workspace + slot * scratch, 0)


def _launch_factory() -> Any:
    """The one function between Python and every kernel: puts the job into the workspace's head and calls."""

    def launch(
        function: Any, state: Any, src: Any, wei: Any, bias: Any, values: Any, dst: Any, workspace: Any, e: Any, u0: Any, u1: Any,
        slots: Any, scratch: Any, chunks: Any, turns: Any,
    ) -> None:  # fmt: skip
        job = (address(workspace) + 63) // 64 * 64
        arrays = address(src), address(wei), address(bias), address(values), address(dst)
        put_integers(job, Job(*arrays, job + 8 * JOB_WORDS, address(e), scratch))
        _begin(job + 8 * JOB_WORDS, scratch, slots)
        if slots == 1:
            run_alone(function, job, chunks, turns, u0, u1)
        else:
            run_job(state, function, job, chunks, slots, turns, u0, u1)

    return launch


_HEAD_BYTES = 8 * JOB_WORDS + 64  # of a workspace, before its slots


@functools.cache
def _launcher(kind: str) -> Any:
    """The compiled launch function for arrays of one kind: its entry point, without the dispatcher's look at every argument (0.2 us)."""
    number = KINDS[kind][1]
    given = types.Array(number, 1, "C", readonly=True)
    integer = types.int64
    arrays = given, given, given, given, types.Array(number, 1, "C"), types.Array(types.uint8, 1, "C"), types.Array(integer, 1, "C")
    signature = types.void(integer, integer, *arrays, integer, integer, integer, integer, integer, integer)
    (result,) = compiled(f"launch_{kind}", _launch_factory, (), signature).overloads.values()
    return result.entry_point


# What a quick call reads behind its job: the kernel, its units, the threads that share them and in how many chunks, in how many one
# thread alone does them, and the bytes from the first element to both ends of each array.
Bounds = namedtuple("Bounds", "function units slots chunks alone turns src_low src_high wei_low wei_high dst_high")


# What `launcher` was given of a launch's kernel, and the kernel's address.
Part = namedtuple("Part", "function extents values scratch units seconds")


def _quick_factory() -> Any:
    """One call by a job that is ready but for its arrays: shared with the pool whose state it is given, or on this thread alone."""

    def quick(job: Any, bias: Any, src: Any, wei: Any, dst: Any, workspace: Any, state: Any) -> Any:
        bounds = integers(job + 8 * JOB_WORDS, Bounds)
        pixels, taps, result = address(src), address(wei), address(dst)
        end = result + bounds.dst_high
        if pixels + bounds.src_low < end and result < pixels + bounds.src_high:
            return 0
        if taps + bounds.wei_low < end and result < taps + bounds.wei_high:
            return 0
        poke("i64", job, pixels)
        poke("i64", job + 8, taps)
        poke("i64", job + 16, bias)
        poke("i64", job + 32, result)
        workspace_at = (workspace + 63) // 64 * 64
        poke("i64", job + 40, workspace_at)
        _begin(workspace_at, peek("i64", job + 56), bounds.slots)
        if state == 0:
            run_alone(bounds.function, job, bounds.alone, bounds.turns, 0, bounds.units)
        else:
            run_job(state, bounds.function, job, bounds.chunks, bounds.slots, bounds.turns, 0, bounds.units)
        return 1

    return quick


@functools.cache
def _quick(kinds: tuple[str, str, str], image_ndim: int, weight_ndim: int) -> Any:
    """The entry point of the compiled quick call for arrays of these kinds (or others as large), these dimensions and any strides."""
    source, taps, result = (KINDS[kind][1] for kind in kinds)
    integer = types.int64
    image, weight = types.Array(source, image_ndim, "A", readonly=True), types.Array(taps, weight_ndim, "A", readonly=True)
    signature = integer(integer, integer, image, weight, types.Array(result, image_ndim, "A"), integer, integer)
    name = f"quick_{'_'.join(kinds)}_{image_ndim}{weight_ndim}"
    (made,) = compiled(name, _quick_factory, (), signature).overloads.values()
    return made.entry_point


def _reach(array: np.ndarray) -> tuple[int, int]:
    """Bytes from the first element to the lowest one, and to the end of the highest."""
    steps = [(extent - 1) * stride for extent, stride in zip(array.shape, array.strides, strict=True)]
    return sum(min(step, 0) for step in steps), sum(max(step, 0) for step in steps) + array.itemsize


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
        self, extents: np.ndarray, values: np.ndarray, scratch: int, units: int, threads: int, seconds: float,
        src: np.ndarray, wei: np.ndarray, dst: np.ndarray, turns: bool = False,
    ) -> Launch:  # fmt: skip
        """A launch for arrays of fixed shapes and strides.

        Parameters
        ----------
        extents, values : ndarray
            The kernel's integers and scalars.
        scratch : int
            Bytes of workspace of one thread.
        units : int
            Of work; they are spread over ``threads`` threads.
        seconds : float
            Predicted, on one thread.
        src, wei, dst : ndarray
            Arrays of those shapes and strides, the weights packed; those with an axis of groups begin where the first group does.
        turns : bool
            Whether units that follow each other lie beside each other in the image and in the result, and need nothing of each other:
            every other job of large arrays then goes through them backwards.
        """
        if wei.ndim > 4:
            return _of_groups(self.launcher(extents, values, scratch, units, threads, seconds, src, wei[0], dst, turns))
        function, call = self.kernel().address, _launcher(self._kind)
        if not units:  # an empty batch
            return lambda src, packed, bias, dst: None
        threads = 1 if seconds < costs.PARALLEL_SECONDS else min(threads, units, available())
        pieces = min(max(int(seconds / threads / costs.MOST_SECONDS) + 1, 1), -(-units // threads))
        bounds = [units * piece // pieces for piece in range(pieces + 1)]
        large = turns and src.nbytes + dst.nbytes > threads * costs.SWEPT_BYTES
        alone, turns_at = (min(units, _CHUNKS), TURNS_AT) if large else (1, 0)
        one, many = scratch + _HEAD_BYTES, scratch * threads + _HEAD_BYTES
        take, give, first = workspaces.take, workspaces.give, _FIRST

        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            if bias is None:
                bias = values
            workspace = take(one)
            call(
                function, 0, src[first], packed[first], bias, values, dst[first], workspace, extents, 0, units, 1, scratch, alone, turns_at
            )
            give(workspace)

        def launch_pieces(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            arrays = src[first], packed[first], values if bias is None else bias, values, dst[first]
            pool = pools.pool
            if threads == 1 or pool.lock.locked():
                run_pieces(pool, arrays, 1)
            else:
                # `with`, since a signal's exception may arrive after any call; another caller that came first is waited for
                with pool.lock:
                    pool.ready(threads)
                    run_pieces(pool, arrays, threads)

        def run_pieces(pool: pools.Pool, arrays: tuple[Any, ...], slots: int) -> None:
            workspace = take(one if slots == 1 else many)
            for u0, u1 in itertools.pairwise(bounds):
                if slots > 1:
                    pool.wake(slots)
                call(function, pool.state, *arrays, workspace, extents, u0, u1, slots, scratch,
                     min(u1 - u0, _CHUNKS * slots) if slots > 1 else min(u1 - u0, alone), turns_at)  # fmt: skip
            give(workspace)

        several, seen = threads > 1 or pieces > 1, values.dtype
        chosen: Launch = launch_pieces if several else launch
        if seen.itemsize == 1:
            chosen = _bytes(chosen)
        elif seen.kind != "f":
            return _signed(chosen, seen)
        if pieces > 1:
            return chosen
        limits = Bounds(function, units, threads, min(units, _CHUNKS * threads), alone, turns_at,
                        *_reach(src), *_reach(wei), _reach(dst)[1])  # fmt: skip
        source, taps, result = (f"i{8 * array.itemsize}" if seen.itemsize == 1 else self._kind for array in (src, wei, dst))
        quick = functools.partial(self._quick_for, (source, taps, result), extents, values, scratch, limits)
        return QuickLaunch(chosen, quick, Part(function, extents, values, scratch, units, seconds))

    def _quick_for(
        self, kinds: tuple[str, str, str], extents: np.ndarray, values: np.ndarray, scratch: int, bounds: Bounds,
        image_ndim: int, weight_ndim: int,
    ) -> Quick:  # fmt: skip
        call = _quick(kinds, image_ndim, weight_ndim)
        # as large as `launcher` takes it, which a first call may have left
        head, size = 8 * (JOB_WORDS + len(Bounds._fields)) + 64, scratch * bounds.slots + _HEAD_BYTES
        take, give = workspaces.take, workspaces.give
        # a job, a workspace's address, or 0 where that is one of all launches', and the memory that they lie in
        slots: deque[tuple[int, int, tuple[np.ndarray, ...]]] = deque(maxlen=1)

        def slot() -> tuple[int, int, tuple[np.ndarray, ...]]:
            memory = np.empty(head, np.uint8)
            job = -(-memory.ctypes.data // 64) * 64
            first = job - memory.ctypes.data
            words = memory[first : first + 8 * (JOB_WORDS + len(bounds))].view(np.int64)
            words[:] = (0, 0, 0, values.ctypes.data, 0, 0, extents.ctypes.data, scratch, *bounds)
            if size > _MOST_OWN:
                return job, 0, (memory,)
            own = np.empty(size, np.uint8)
            return job, own.ctypes.data, (memory, own)

        def quick(src: np.ndarray, packed: np.ndarray, bias: int, dst: np.ndarray) -> int:
            try:
                held = slots.pop()
            except IndexError:  # the first call, or another thread has it
                held = slot()
            job, place, _ = held
            workspace = None if place else take(size)
            if workspace is not None:
                place = workspace.ctypes.data
            done: int = call(job, bias, src, packed, dst, place, 0)
            if workspace is not None:
                give(workspace)
            slots.append(held)
            return done

        def shared(src: np.ndarray, packed: np.ndarray, bias: int, dst: np.ndarray) -> int:
            pool = pools.pool
            if pool.lock.locked():
                return quick(src, packed, bias, dst)
            try:
                held = slots.pop()
            except IndexError:
                held = slot()
            job, place, _ = held
            workspace = None if place else take(size)
            if workspace is not None:
                place = workspace.ctypes.data
            with pool.lock:  # as `launch_pieces` takes it
                pool.ready(bounds.slots)
                pool.wake(bounds.slots)
                done: int = call(job, bias, src, packed, dst, place, pool.state)
            if workspace is not None:
                give(workspace)
            slots.append(held)
            return done

        return quick if bounds.slots == 1 else shared


def _of_groups(launch: Launch) -> Launch:
    """A launch for weights with an axis of groups."""

    def run(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
        launch(src, packed[0], bias, dst)

    return replace(launch, run=run) if isinstance(launch, QuickLaunch) else run


_ONE = (slice(0, 1),) * 4


def _bytes(launch: Launch) -> Launch:
    """Arrays of any types, whose first elements are seen as bytes: a kernel reads no more of them than where they lie."""

    def seen(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
        byte = np.int8
        launch(src[_ONE].view(byte), packed[_ONE].view(byte), None if bias is None else bias.view(byte), dst[_ONE].view(byte))

    return seen


def _signed(launch: Launch, dtype: np.dtype[Any]) -> Launch:
    """Arrays of integers seen with the sign that the kernel is compiled for; the arithmetic wraps alike."""

    def signed(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
        launch(src.view(dtype), packed.view(dtype), None if bias is None else bias.view(dtype), dst.view(dtype))

    return signed
