"""fastconv.ndimage with its typed problems on the reference: each pair of types and order would be a kernel to compile."""

import contextlib

import pytest

from fastconv.ndimage import calls, passes
from fastconv.planning.planner import plan_problem


def planned(p, threads=1, algorithm=None):
    """In place of `plan_problem`: only images of floats summed in their own type, in any order, run on a kernel."""
    plain = p.order == "any" and p.src == p.dst == p.acc and p.src[0] == "f"
    return plan_problem(p, threads=threads, algorithm=algorithm or (None if plain else "reference"))


@contextlib.contextmanager
def by_reference():
    """Nothing that the reference computes is left to SciPy meanwhile."""
    calls._calls.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "plan_problem", planned)
        patch.setattr(passes, "as_scipy", lambda *_: False)
        yield patch
    calls._calls.clear()
