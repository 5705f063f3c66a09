"""The pool: each unit of a job is done once, in one direction and then in the other."""

import ctypes
import os
import threading
import time

import numpy as np
import pytest

from fastconv.cpu import pool as pools
from fastconv.cpu.memory import integers, peek, poke
from fastconv.cpu.threads import Job, Region
from fastconv.planning import cost
from fastconv.planning.thread_count import available

UNITS = 40


def _factory():
    def recording(job, index, u0, u1):
        """Units in the order in which they are done: their count, then themselves."""
        at = integers(job, Job)
        for u in range(u0, u1):
            done = peek("i64", at.dst)
            poke("i64", at.dst + 8 * (1 + done), u)
            poke("i64", at.dst, done + 1)

    return recording


@pytest.mark.parametrize("large", [True, False])
def test_a_thread_alone_turns_back_where_caches_hold_the_end_of_the_last_job(large):
    region, none = Region("recording", _factory, (), "i64"), np.zeros((1, 1, 1, 1), np.int64)
    src = np.zeros((1, 1, 1, cost.SWEPT_BYTES // 8 if large else 1), np.int64)
    dst = np.zeros((1, 1, 1, 1 + UNITS), np.int64)
    launch = region.launcher(none.ravel(), none.ravel(), 64, UNITS, 1, 1e-3, src, none, dst, turns=True)
    orders = []
    for _ in range(4):
        dst[:] = 0
        launch(src, none, None, dst)
        done, *order = dst.ravel().tolist()
        assert done == UNITS
        orders.append(order)
    forth = list(range(UNITS))
    assert all(sorted(order) == forth for order in orders)
    assert orders[0] == orders[2]
    assert orders[1] == orders[3]
    if not large:
        assert orders[0] == orders[1] == forth
        return
    back = orders[orders[0] == forth]
    assert forth in orders
    assert back[-1] < UNITS // 4, "the job that turns back ends where the other began"


def _counting():
    def counting(job, index, u0, u1):
        """How often each unit is done."""
        at = integers(job, Job)
        for u in range(u0, u1):
            poke("i64", at.dst + 8 * u, peek("i64", at.dst + 8 * u) + 1)

    return counting


@pytest.mark.skipif(available() < 2 or not pools._reads, reason="no helpers, or no processor's number")
def test_a_helper_leaves_its_callers_processor(monkeypatch):
    # a function that tells every thread the same number takes the place of that which tells a processor's
    number, left = os.getpid(), []
    monkeypatch.setattr(pools, "_reads", ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value)
    monkeypatch.setattr(pools, "pool", pools.Pool())
    monkeypatch.setattr(pools, "_leave", left.append)  # it has no other: it stays, and helps from there
    none, dst = np.zeros((1, 1, 1, 1), np.int64), np.zeros((1, 1, 1, UNITS), np.int64)
    launch = Region("counting", _counting, (), "i64").launcher(none.ravel(), none.ravel(), 64, UNITS, 2, 1e-3, none, none, dst)
    jobs, end = 0, time.monotonic() + 30
    while not left and time.monotonic() < end:
        launch(none, none, None, dst)
        jobs += 1
    assert set(left) == {number}
    assert (dst == jobs).all()


@pytest.mark.skipif(not pools._reads, reason="threads cannot be moved")
def test_a_thread_that_leaves_a_processor_may_return(monkeypatch):
    move, masks, found, own = os.sched_setaffinity, [], [], []

    def moved(number, mask):
        if threading.get_ident() in own:  # helpers may move, too
            masks.append(set(mask))
        move(number, mask)

    monkeypatch.setattr(os, "sched_setaffinity", moved)

    def leaving():
        own.append(threading.get_ident())
        allowed = os.sched_getaffinity(0)
        found.append((allowed, pools._leave(min(allowed)), os.sched_getaffinity(0)))

    thread = threading.Thread(target=leaving)
    thread.start()
    thread.join()
    ((allowed, left, after),) = found
    assert after == allowed
    assert left == (len(allowed) > 1)
    assert masks == [allowed - {min(allowed)}, allowed] * left


def test_a_helper_waits_as_long_on_any_processor(monkeypatch):
    """So many turns as take as long as that, whatever one takes; what interrupts one trial does not count."""
    seconds, clock = iter([4e-5, 2e-3, 5e-5]), [0.0]

    def work(state, woken, turns, stays):
        assert (woken, turns, stays) == (0, 1000, 1)
        clock[0] += next(seconds)

    monkeypatch.setattr(pools.time, "thread_time", lambda: clock[0])
    assert pools._waiting_turns(work) == pytest.approx(1000 * cost.HELPER_SECONDS / 4e-5, abs=1)
    for taken, turn in ((0.0, 4e-9), (0.016, 1e-7)):  # clocks that stand still, or jump
        seconds = iter([taken] * 3)
        assert pools._waiting_turns(work) == pytest.approx(cost.HELPER_SECONDS / turn, abs=1)
