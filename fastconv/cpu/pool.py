"""pool: threads that help a kernel's caller, and never make it wait for one that has not come.

Why not Numba's layers: an OpenMP region ends when every thread has arrived, so on a machine with one busy core a call of 60 us takes a
scheduler's time slice (8 ms, measured on 2 cores, 2026-11); workqueue aborts the process on concurrent use; libgomp kills a forked
child.  Here the caller works through the chunks itself, each idle thread that sees the job takes chunks too, and the caller waits
only for chunks that were begun.  A helper spins for a while after a job, then sleeps in Python.

Chunks of a large image are taken in one direction, and those of the next one in the other: an image filtered again, or the one just made,
is in the caches where the last job ended.  In loops on two threads 1024x1024 f32 k3 takes 7 of 100 less, k5 and 1920x1080 GaussianBlur 1.5
to 2.5, 1448x1448 k3 3 (Emerald Rapids, 2026-11); layers of one
tap gain where pixels and results outweigh weights, others, whose blocks share weights or pixels, nothing.

One job at a time; a caller that finds the pool taken (another thread, a nested call) runs its job alone.  Only one that comes in the
instant between the look and the taking waits for the other's job.
"""

from __future__ import annotations

import _thread
import ctypes
import functools
import os
import queue
import threading
import time
from typing import Any

import numba
import numpy as np

from ..planning import cost as costs
from ..planning.thread_count import available
from .compile import compiled, helper
from .memory import atomic_add, atomic_get, atomic_set, call_kernel, call_reader, peek, poke, relax

# Byte offsets into the pool's state; each has a cache line of its own.  The last is the first slot's next chunk; the others follow.
_LINE = 64
_TURN, _JOINED, _ACTIVE, _SLEEPERS, _READER, _JOB, _NEXT = (_LINE * n for n in range(7))
_FUNCTION, _ARGUMENT, _CHUNKS, _SLOTS, _U0, _U1, _BACK, _CALLER = (_JOB + 8 * n for n in range(8))

_TRIED_TURNS, _TRIES = 1000, 3


# Whether the next job that may turn back does, and the address of that for compiled code.
_turns = np.zeros(1, np.int64)
TURNS_AT: int = _turns.ctypes.data


@helper
def turned(turns: Any) -> Any:
    """Whether this job is done backwards, by the word at an address; the next one is not. Where there is no word, none is."""
    if turns == 0:
        return 0
    back = peek("i64", turns)  # two threads may read and change it at once
    poke("i64", turns, 1 - back)
    return back


@helper
def _processor(state: Any) -> Any:
    """The number of the processor that this thread runs on; -1 where that is not known."""
    reader = peek("i64", state + _READER)
    return call_reader(reader) if reader != 0 else -1


@helper
def run_job(state: Any, function: Any, job: Any, chunks: Any, slots: Any, turns: Any, u0: Any, u1: Any) -> None:
    """Publish a job, take part in it, and return when all its chunks are done."""
    back = turned(turns)
    poke("i64", state + _BACK, back)
    poke("i64", state + _CALLER, _processor(state))
    poke("i64", state + _FUNCTION, function)
    poke("i64", state + _ARGUMENT, job)
    poke("i64", state + _CHUNKS, chunks)
    poke("i64", state + _SLOTS, slots)
    poke("i64", state + _U0, u0)
    poke("i64", state + _U1, u1)
    for slot in range(slots):
        atomic_set(state + _NEXT + slot * _LINE, chunks * slot // slots)
    atomic_set(state + _JOINED, 1)
    atomic_add(state + _TURN, 1)  # odd: open
    _take_chunks(state, function, job, chunks, slots, 0, u0, u1, back)
    atomic_add(state + _TURN, 1)  # even: closed
    while atomic_get(state + _ACTIVE) != 0:
        relax()


@helper
def run_alone(function: Any, job: Any, chunks: Any, turns: Any, u0: Any, u1: Any) -> None:
    """A job's chunks on this thread."""
    back = turned(turns)
    for chunk in range(chunks):
        place = chunks - 1 - chunk if back else chunk
        call_kernel(function, (job, 0, u0 + (u1 - u0) * place // chunks, u0 + (u1 - u0) * (place + 1) // chunks))


@helper
def _take_chunks(state: Any, function: Any, job: Any, chunks: Any, slots: Any, slot: Any, u0: Any, u1: Any, back: Any) -> None:
    """The chunks of one's own slot, then what is left of the others': a caller that comes again finds its part in its own cache."""
    for n in range(slots):
        owner = (slot + n) % slots
        begin, end = chunks * owner // slots, chunks * (owner + 1) // slots
        chunk = atomic_add(state + _NEXT + owner * _LINE, 1)
        while chunk < end:
            place = begin + end - 1 - chunk if back else chunk
            call_kernel(function, (job, slot, u0 + (u1 - u0) * place // chunks, u0 + (u1 - u0) * (place + 1) // chunks))
            chunk = atomic_add(state + _NEXT + owner * _LINE, 1)


@helper
def _beside(state: Any) -> Any:
    """Whether this thread runs on the processor of the latest job's caller."""
    own = _processor(state)
    return own >= 0 and own == peek("i64", state + _CALLER)


def _helper_factory() -> Any:
    def help_callers(state: Any, woken: Any, spins: Any, stays: Any) -> Any:
        """Take part in jobs until none has come for a while; the thread is then counted among the sleepers.

        Or, unless it ``stays``, until it runs on its caller's processor: 1.
        """
        waited, seen = 0, 0
        if woken:
            atomic_add(state + _SLEEPERS, -1)
        if not stays and _beside(state):
            return 1
        while True:
            turn = atomic_get(state + _TURN)
            if turn & 1 and turn != seen:
                seen = turn
                atomic_add(state + _ACTIVE, 1)
                # a caller closes its job before it looks at _ACTIVE, so a job that is still open now waits for us
                if atomic_get(state + _TURN) == turn:
                    if not stays and _beside(state):
                        atomic_add(state + _ACTIVE, -1)
                        return 1
                    slot, slots = atomic_add(state + _JOINED, 1), peek("i64", state + _SLOTS)
                    if slot < slots:
                        bounds = peek("i64", state + _U0), peek("i64", state + _U1)
                        _take_chunks(state, peek("i64", state + _FUNCTION), peek("i64", state + _ARGUMENT), peek("i64", state + _CHUNKS),
                                     slots, slot, bounds[0], bounds[1], peek("i64", state + _BACK))  # fmt: skip
                atomic_add(state + _ACTIVE, -1)
                waited = 0
            elif waited < spins:
                waited += 1
                relax()
            else:
                # a caller that opens a job at this moment runs it without this helper; no one waits for anyone
                atomic_add(state + _SLEEPERS, 1)
                return 0

    return help_callers


@functools.cache
def _help() -> Any:
    return compiled("help_callers", _helper_factory, (), numba.int64(numba.int64, numba.int64, numba.int64, numba.int64))


def _waiting_turns(work: Any) -> int:
    """Turns of the waiting loop that take as long as a helper waits: of 16 ns on one processor, of 40 on another.

    By this thread's own time, since it waits for the interpreter's lock after each trial.
    """
    memory = np.zeros(_NEXT + 2 * _LINE, np.uint8)
    taken = []
    for _ in range(_TRIES):
        begin = time.thread_time()
        work(-(-memory.ctypes.data // _LINE) * _LINE, 0, _TRIED_TURNS, 1)
        taken.append(time.thread_time() - begin)
    least, most = costs.HELPER_TURN_SECONDS
    return int(costs.HELPER_SECONDS / max(least, min(most, min(taken) / _TRIED_TURNS)))


def _reader() -> int:
    """The address of the C library's function that tells a thread's processor; 0 where it has none, or threads cannot be moved."""
    if not hasattr(os, "sched_setaffinity"):
        return 0
    try:
        return ctypes.cast(ctypes.CDLL(None).sched_getcpu, ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return 0


_reads = _reader()  # before any fork: a child that begins in the midst of a call makes a pool of its own


def _leave(taken: int) -> bool:
    """Move this thread away from the processor ``taken``; where it may run is as before.  Whether there is another one for it.

    While none is idle, a system wakes a thread where it last ran: beside other processes, even of the lowest priority, a helper that was
    once put on its caller's processor took turns with its caller for seconds (1024 to 512 channels at 14x14: 2.2 ms instead of 1.1; two
    cores, Linux 6.18, 2026-11).
    """
    allowed = os.sched_getaffinity(0)
    others = allowed - {taken}
    if not others:
        return False
    try:
        os.sched_setaffinity(0, others)
        os.sched_setaffinity(0, allowed)
    except OSError:  # none of them is this process's any more
        return False
    return True


class Pool:
    """The helpers of a process; started when first needed."""

    def __init__(self) -> None:
        size = _NEXT + _LINE * available()
        self._memory = np.zeros(size + _LINE, np.uint8)
        self.state: int = -(-self._memory.ctypes.data // _LINE) * _LINE
        offset = self.state - self._memory.ctypes.data
        self._words = self._memory[offset : offset + size].view(np.int64)
        self._words[_READER // 8] = _reads
        # in C, so that a signal's exception cannot leave it half changed, as it can a threading.Semaphore
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._started = 0
        self.lock = threading.Lock()

    def ready(self, threads: int) -> None:
        """Have at least ``threads - 1`` helpers; called with the lock held, before the job.

        A helper's own code is compiled (or loaded) in its thread, so no caller waits for it.
        """
        while self._started < threads - 1:
            try:
                # threading.Thread waits for the thread to begin: a child forked meanwhile by a signal's handler would wait for ever
                _thread.start_new_thread(self._serve, ())
            except RuntimeError:  # the machine or a finalizing interpreter gives no more threads: the caller does the work alone
                return
            self._started += 1

    def wake(self, threads: int) -> None:
        """Wake sleeping helpers, as many as could help; they find the job that is published next."""
        asleep = int(self._words[_SLEEPERS // 8])
        for _ in range(min(asleep, threads - 1)):
            self._wake.put(None)

    def _serve(self) -> None:
        work, woken, stays = _help(), 0, 0
        turns = _waiting_turns(work)
        while True:
            if work(self.state, woken, turns, stays):
                woken, stays = 0, int(not _leave(int(self._words[_CALLER // 8])))
            else:
                self._wake.get()
                woken, stays = 1, 0


pool = Pool()


def _after_fork() -> None:
    """A child has none of its parent's threads: it starts with a pool of its own.

    A signal's handler may fork in the midst of a call, but only between compiled calls: that call ends in the child on the parent's
    pool with no job open, no helper left, and so nothing to count; a helper that came late at the fork may have been counted.
    """
    global pool
    pool._words[:] = 0
    pool = Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
