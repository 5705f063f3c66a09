"""The pool: each unit of a job is done once, in one direction and then in the other."""

import numpy as np
import pytest

from fastconv.cpu.memory import integers, peek, poke
from fastconv.cpu.threads import Job, Region
from fastconv.planning import cost

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
