"""Typed problems on the reference: each pair of types and order would be a kernel to compile."""

import contextlib

import pytest

from fastconv import nn
from fastconv.ndimage import calls, passes
from fastconv.planning.planner import plan_problem


def planned(p, target=None, threads=1, algorithm=None):
    """In place of `plan_problem`: only images of floats summed in their own type, in any order, run on a kernel."""
    plain = p.order == "any" and p.src == p.dst == p.acc and p.src[0] == "f"
    return plan_problem(p, threads=threads, algorithm=algorithm or (None if plain else "reference"))


@contextlib.contextmanager
def by_reference():
    """fastconv.ndimage so; nothing that the reference computes is left to SciPy meanwhile."""
    calls._calls.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "plan_problem", planned)
        patch.setattr(passes, "as_scipy", lambda *_: False)
        yield patch
    calls._calls.clear()


@pytest.fixture(autouse=True, scope="module")
def rare_types_by_reference():
    """`conv2d` of other images than uint8 and float32, in modules that import this fixture."""

    def planned(p, algorithm=None, **settings):
        return plan_problem(p, algorithm=algorithm or (None if p.src in ("u8", "f32") else "reference"), **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn, "plan_problem", planned)
        yield
    nn._calls.clear()
