"""Plan: a built algorithm, and the protocol that every algorithm file follows (the module is the object).

``reject(p, t)`` says in words why it cannot run, or None; ``cost(p, t)`` predicts the seconds on one thread;
``build(p, t, plan, threads)`` returns a :class:`Plan`, with ``plan`` the planner's function for child problems;
``most_kernels(t)`` bounds how many kernels of one type it compiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from .problem import Problem

Launch = Callable[[np.ndarray, np.ndarray, "np.ndarray | None", np.ndarray], None]
PlanFn = Callable[..., "Plan"]
# (src, packed, address of the bias or 0, dst) -> 1, or 0 where dst overlaps one of them and nothing was done
Quick = Callable[[np.ndarray, np.ndarray, int, np.ndarray], int]


@dataclass(slots=True, frozen=True)
class QuickLaunch:
    """A launch of one compiled call, which arrays of fewer dimensions can take too.

    Attributes
    ----------
    run : Launch
    quick : callable
        ``quick(image_ndim, weight_ndim)`` gives the `Quick` for images and results, and packed weights, of so many dimensions, with
        the first pixels, and the strides between pixels, of the views that the launch was prepared for.
    part : optional
        What a launch of several kernels needs to know of it.
    """

    run: Launch
    quick: Callable[[int, int], Quick]
    part: Any = None

    def __call__(self, src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
        """Run it."""
        self.run(src, packed, bias, dst)


@dataclass(slots=True, frozen=True)
class GatheringLaunch:
    """A launch that gathers an epilogue's arrays for a kernel; ``plain`` takes them gathered, where there is no residual."""

    run: Launch
    plain: Launch

    def __call__(self, src: np.ndarray, packed: np.ndarray, addends: Any, dst: np.ndarray) -> None:
        """Run it."""
        self.run(src, packed, addends, dst)


class Algorithm(Protocol):
    """What a backend's ``ALGORITHMS`` lists."""

    __name__: str
    CASES: str

    def reject(self, p: Problem, t: Any) -> str | None:
        """None, or one reason in words why it cannot run; begins with `not_computed`."""

    def cost(self, p: Problem, t: Any) -> float:
        """Predicted seconds on one thread."""

    def most_kernels(self, t: Any) -> int:
        """How many kernels of one type it can ever compile for a target, whatever the problems."""

    def build(self, p: Problem, t: Any, plan: PlanFn, threads: int = 1) -> Plan:
        """The plan; ``plan`` is the planner's function for child problems."""


def _run_unprepared(plan: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
    run, p = plan.run_arrays, plan.problem
    assert run is not None

    def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
        run(p, src, packed, bias, dst, fill)

    return launch


@dataclass(slots=True)
class Plan:
    """An algorithm bound to a problem: pack the weights once, run many times, print to see the decisions.

    Arrays are NCHW-shaped views ``src (n, ic, ih, iw)``, ``wei (oc, ic/g, kh, kw)``, ``dst (n, oc, oh, ow)`` over
    memory of any strides, and ``bias (oc,)`` or None.

    Attributes
    ----------
    problem : Problem
    algorithm, kernel : str
        Name of the algorithm's file and of its compiled loop; behind a colon, how the loop is used.
    cost : float
        Predicted seconds on one thread.
    workspace : int
        Bytes of scratch memory of one run.
    threads : int
    children : tuple of Plan
    given : callable, optional
        Makes the plan of the same bits for weights that come with every image: it packs them block by block where they are used, or not
        at all, instead of all beforehand.
    compile_all : callable, optional
        Compiles what launches may need later, where that depends on the weights.
    grouped : bool
        Whether weights may come as ``(g, oc/g, ic/g, kh, kw)``, too: those of a gradient have one stride for all filters of a group only.
    """

    problem: Problem
    algorithm: str
    kernel: str
    cost: float
    pack_weights: Callable[[Problem, np.ndarray], np.ndarray] = field(repr=False)
    run_arrays: Callable[..., None] | None = field(default=None, repr=False)
    prepare_launch: Callable[[Plan, np.ndarray, np.ndarray, np.ndarray, Any], Launch] = field(default=_run_unprepared, repr=False)
    workspace: int = 0
    threads: int = 1
    children: tuple[Plan, ...] = ()
    given: Callable[[], Plan] | None = field(default=None, repr=False)
    compile_all: Callable[[], object] | None = field(default=None, repr=False)
    grouped: bool = False

    def pack(self, wei: np.ndarray) -> np.ndarray:
        """Weights in the kernel's layout and type: a new array, or a view where that layout is the caller's own."""
        return self.pack_weights(self.problem, wei)

    def prepare(self, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any = 0) -> Launch:
        """A function ``(src, packed, bias, dst)`` for arrays of these very shapes, strides and types; it checks nothing."""
        return self.prepare_launch(self, src, packed, dst, fill)

    def run(self, src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray, fill: Any = 0) -> None:
        """Write the convolution of ``src`` into ``dst``."""
        self.prepare(src, packed, dst, fill)(src, packed, bias, dst)

    def __str__(self) -> str:
        parts = [self.algorithm, self.kernel, str(self.problem), f"threads={self.threads}"]
        if self.workspace:
            parts.append(f"workspace={self.workspace}")
        return "(" + " ".join([*parts, *map(str, self.children)]) + ")"
