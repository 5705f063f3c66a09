"""The planner: asks each algorithm of a backend's ordered list, keeps the cheapest, remembers, explains.

It knows no algorithm by name.  A backend is a subpackage of fastconv with a list ``ALGORITHMS`` and a module ``target`` whose
``detect()`` returns this machine; it is imported when the first plan is made.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from .calls import Bounded
from .operands import described, random
from .plans import Algorithm, Plan, QuickLaunch
from .problem import Problem

MOST_PLANS = 256  # of the functional calls' cache; a plan holds no weights

_plans: Bounded[Plan] = Bounded(MOST_PLANS)


def _backend(name: str) -> Any:
    return importlib.import_module(f"fastconv.{name}")


def algorithms(backend: str = "cpu") -> tuple[Algorithm, ...]:
    """The backend's ordered candidate list; ties go to the earlier."""
    listed: tuple[Algorithm, ...] = _backend(backend).ALGORITHMS
    return listed


def _of(target: Any) -> tuple[Algorithm, ...]:
    """The candidates for a target: a backend's own, the CPU's unless it says otherwise."""
    return algorithms(getattr(target, "backend", "cpu"))


def detect(backend: str = "cpu") -> Any:
    """The machine that the backend found itself on, its ``Target``."""
    return _backend(backend).target.detect()


def short_name(algorithm: Algorithm) -> str:
    """An algorithm is called as its file is."""
    return algorithm.__name__.rpartition(".")[2]


def plan_problem(p: Problem, target: Any = None, threads: int = 1, algorithm: str | None = None, effort: str = "estimate") -> Plan:
    """The plan for a problem: the named algorithm's, or that of the least predicted cost.

    Parameters
    ----------
    p : Problem
    target : Target, optional
        The machine to plan for; the one detected by default.
    threads : int
        Never influences which algorithm is chosen.
    algorithm : str, optional
    effort : {"estimate", "measure"}
        ``"measure"`` times every algorithm that can run on random data and keeps the fastest; the choice then depends
        on the moment's timing, so the promise of the same bits from run to run is waived.

    Raises
    ------
    ValueError
        A named algorithm does not exist, or cannot run (with its reason).
    """
    for name, value in (("algorithm", algorithm or ""), ("effort", effort)):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a string, got {value!r}")
    key = (p, target, threads, algorithm, effort)
    plan = _plans.get(key)
    return plan if plan is not None else _plans.keep(key, _build(p, target, threads, algorithm, effort))


def refused(p: Problem, algorithm: str) -> bool:
    """Whether the algorithm of this name cannot run the problem on the detected machine; not where there is none of it."""
    return any(short_name(a) == algorithm and a.reject(p, detect()) is not None for a in algorithms())


def accepted(p: Problem, target: Any, algorithm: str | None = None) -> bool:
    """Whether the algorithm of this name, or any, can run the problem on a target."""
    return any(algorithm in (None, short_name(a)) and a.reject(p, target) is None for a in _of(target))


def _build(p: Problem, target: Any, threads: int, algorithm: str | None, effort: str) -> Plan:
    if effort not in ("estimate", "measure"):
        raise ValueError(f"effort must be 'estimate' or 'measure', got {effort!r}")
    target = target or detect()
    names = [short_name(a) for a in _of(target)]
    if algorithm is not None and algorithm not in names:
        raise ValueError(f"algorithm must be None or one of {', '.join(names)}, got {algorithm!r}")
    if effort == "estimate" and algorithm is None:
        return cheapest(p, target)[1].build(p, target, plan_problem, threads)
    best: tuple[float, Algorithm] | None = None
    for candidate in _of(target):
        if algorithm is not None and short_name(candidate) != algorithm:
            continue
        reason = candidate.reject(p, target)
        if reason is not None:
            if algorithm is not None:
                raise ValueError(f"algorithm {algorithm!r} cannot run {p}: {reason}")
            continue
        cost = 0.0 if algorithm is not None else _seconds(candidate.build(p, target, plan_problem, threads))
        if best is None or cost < best[0]:
            best = cost, candidate
    return (best or _no_algorithm(p, target))[1].build(p, target, plan_problem, threads)


def cheapest(p: Problem, target: Any = None) -> tuple[float, Algorithm]:
    """The least predicted seconds of one image, and whose they are; no plan is built."""
    target = target or detect()
    image = p.replace(n=1)  # the choice, and so the bits of an image, must not depend on the batch it is in
    best: tuple[float, Algorithm] | None = None
    for candidate in _of(target):
        if candidate.reject(p, target) is None:
            cost = candidate.cost(image, target)
            if best is None or cost < best[0]:
                best = cost, candidate
    return best or _no_algorithm(p, target)


def _no_algorithm(p: Problem, target: Any) -> NoReturn:
    reasons = "; ".join(f"{short_name(a)}: {a.reject(p, target)}" for a in _of(target))
    raise ValueError(f"no algorithm can run {p}: {reasons}")


def compile_kernels(plan: Plan) -> None:
    """Compile, or load from the cache, the kernels of a plan for the detected target; no image is made and none is convolved.

    Raises
    ------
    ValueError
        The weights are too many to pack.
    """
    p = plan.problem
    src, wei, dst, _ = described(p)
    launch = plan.prepare(src, plan.pack(wei), dst)
    if isinstance(launch, QuickLaunch):
        for image_ndim, weight_ndim in ((2, 2), (2, 4)) if p.n == p.ic == p.oc == 1 else ((4, 4),):
            launch.quick(image_ndim, weight_ndim)
    if plan.compile_all is not None:
        plan.compile_all()
    for child in plan.children:
        compile_kernels(child)


def _launched(plan: Plan) -> Callable[[], None]:
    """Run a plan on random data, which compiles its kernels; what runs it again is returned."""
    src, wei, dst, bias = random(plan.problem)
    packed = plan.pack(wei)
    launch = partial(plan.prepare(src, packed, dst), src, packed, bias, dst)
    launch()
    return launch


def _seconds(plan: Plan) -> float:
    """Least time of three runs on random data, after one that compiles."""
    launch = _launched(plan)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        launch()
        best = min(best, time.perf_counter() - start)
    return best


def explain_problem(p: Problem, target: Any = None, threads: int = 1, algorithm: str | None = None) -> str:
    """One line per candidate, in the list's order: its predicted cost or why not; then the plan that was chosen.

    Examples
    --------
    >>> print(explain_problem(Problem.parse("ih9_k3_fld")))  # doctest: +ELLIPSIS
    n1_ic1ih9iw9_oc1kh3kw3_fld
    ...
      direct     no: ...
    ...
    plan: (reference numpy n1_ic1ih9iw9_oc1kh3kw3_fld threads=1)
    """
    target = target or detect()
    chosen = plan_problem(p, target, threads, algorithm)
    image = p.replace(n=1)
    lines = [str(p), f"target: {target}"]
    for candidate in _of(target):
        reason = candidate.reject(p, target)
        verdict = f"{candidate.cost(image, target) * 1e3:.4g} ms an image predicted" if reason is None else f"no: {reason}"
        lines.append(f"  {short_name(candidate):<10} {verdict}")
    return "\n".join([*lines, f"plan: {chosen}"])


def forget() -> None:
    """Empty the plan cache."""
    _plans.clear()
