"""passes: a filter of scipy.ndimage as one or more convolutions of planes, each stored in the result's type, and how to run them.

Where SciPy's result is an integer, or made of integers, the sums are SciPy's own, bit for bit (:mod:`.taps`); floats are summed in
any order, and two passes become one with the outer product of their taps where that is predicted to be faster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..planning.calls import Call, Inputs, View
from ..planning.passes import Pass, ZeroTaps, bound
from ..planning.planes import Planes, planes
from ..planning.planner import cheapest, plan_problem
from ..planning.plans import Plan
from ..planning.problem import DTYPES, Problem, dtype_name
from .taps import as_scipy, exact_bits, largest, mean_tap, scipy_sum

_SMALLEST, _LARGEST = 2.0**-100, 2.0**100  # taps that float32 sums take: products of pixels stay clear of its limits
_LEAST = 2.0**-1000  # likewise float64's
_MOST_TAPS = 1 << 20  # of an outer product
_BYTE, _LONG, _DOUBLE = np.dtype(np.uint8), np.dtype(np.int64), np.dtype(np.float64)


class LeftToSciPy(Exception):
    """What these passes do not compute, or what is no valid call."""


class Stencil(NamedTuple):
    """Taps along one or two axes.

    ``before`` are the pixels before the output's own under the first tap, ``rule`` is that of the C function: ``line``
    (correlate1d), ``grid`` (correlate: zero taps are not multiplied) or ``mean`` (uniform_filter1d: the sum of ones, divided).
    """

    axes: tuple[int, ...]
    taps: Any  # an array of the host, or of a card, which nobody looks at
    before: tuple[int, ...]
    border: str
    fill: float
    rule: str = "line"

    @property
    def keeps_constants(self) -> bool:
        """Whether a constant border stays that constant under it, to rounding."""
        return self.border != "constant" or self.fill == 0 or abs(float(self.taps.sum()) - 1) < 1e-12


class Settings(NamedTuple):
    """The tail of a call, and where it runs."""

    precision: str
    threads: int
    algorithm: str | None
    place: Any  # a `Host`, or what stands for a card


@dataclass(slots=True)
class Converted(Call):
    """A pass into an array of another type, and what turns that into the result."""

    inner: Pass
    finish: Callable[[np.ndarray, np.ndarray], None]
    guard: Callable[[np.ndarray], None] | None = None  # raises LeftToSciPy where the pixels are too large

    @property
    def held(self) -> int:
        """Bytes of weights that it holds."""
        return self.inner.held

    def run(self, inputs: Inputs, dst: np.ndarray) -> None:
        """As `Call.run`."""
        if self.guard is not None:
            self.guard(*inputs)
        between = self.inner.result(inputs)
        with np.errstate(invalid="ignore"):
            self.finish(between, dst)


class Host:
    """What passes are made of on the CPU: arrays, plans for this machine, launches that are bound to arrays."""

    target = None
    orders = ("any", "raster", "symmetric", "antisymmetric")  # that compiled kernels have; SciPy's own loop is faster than others

    @staticmethod
    def empty(shape: tuple[int, ...], dtype: Any) -> Any:
        """An array like those that passes write."""
        return np.empty(shape, dtype)

    @staticmethod
    def launched(plan: Plan, weights: np.ndarray, src: Any, dst: Any, view: View, fill: float, zero_taps: ZeroTaps | None) -> Any:
        """A step that convolves."""
        return bound(plan, plan.pack(weights), src, dst, view, view, fill, zero_taps=zero_taps)

    @staticmethod
    def converted(dst: Any, inner: Any, finish: str, size: int, limit: float | None) -> Any:
        """A step, and what becomes of its result: ``convert`` and ``halves`` it, or ``divide`` it by a size; of integers up to a limit."""
        function: Any = {"convert": _cut, "halves": _cut_long, "divide": partial(_divide, inner.dtype.type(size))}[finish]
        return Converted(dst.shape, dst.dtype, inner, function, None if limit is None else partial(_check_range, limit))

    @staticmethod
    def copied(src: Any, dst: Any) -> Any:
        """A step without taps."""
        raise LeftToSciPy

    @staticmethod
    def weighed(p: Problem, src: Any, dst: Any, f: Stencil) -> Any:
        """A step with weights that lie on a card."""
        raise LeftToSciPy

    @staticmethod
    def running(src: Any, dst: Any, f: Stencil) -> Any:
        """A step that computes SciPy's running sums."""
        raise LeftToSciPy

    @staticmethod
    def combined(
        shape: tuple[int, ...], dtype: np.dtype[Any], src: np.dtype[Any], branches: Any, combine: str, copied: bool, aside: bool
    ) -> Call:  # fmt: skip
        """The call of all branches."""
        if len(branches) == len(branches[0]) == 1 and combine == "sum" and "b" not in src.kind + dtype.kind and not (copied or aside):
            only: Call = branches[0][0]
            return only
        return Branches(shape, dtype, branches, combine, copied, aside)


Step = Any  # of a place: on the CPU `Pass` or `Converted`


@dataclass(slots=True)
class Branches(Call):
    """Branches of passes, the first of which has the result to itself."""

    branches: tuple[tuple[Pass | Converted, ...], ...]
    combine: str  # sum | norm, of the branches
    copied: bool  # whether the input must be made contiguous: its axes do not lie as planes
    aside: bool  # likewise the result

    @property
    def held(self) -> int:
        """Bytes of weights that it holds."""
        return sum(step.held for branch in self.branches for step in branch)

    def run(self, inputs: Inputs, dst: np.ndarray) -> None:
        """As `Call.run`."""
        (src,) = inputs
        if self.copied:
            src = np.ascontiguousarray(src)
        to = np.empty(dst.shape, dst.dtype) if self.aside else dst
        for i, branch in enumerate(self.branches):
            result = np.empty(dst.shape, dst.dtype) if i else to
            _chained(branch, src, result)
            if self.combine == "norm":
                np.multiply(result, result, result)
            if i:
                to += result
        if self.combine == "norm":
            np.sqrt(to, to, casting="unsafe")
        if self.aside:
            np.copyto(dst, to)


def _chained(passes: tuple[Pass | Converted, ...], src: np.ndarray, dst: np.ndarray) -> None:
    src, dst = as_bytes(src), as_bytes(dst)
    for step in passes[:-1]:
        src = step.result((src,))
    if not passes[-1].quick((src,), dst):
        passes[-1].run((src,), dst)


def as_bytes(array: Any) -> Any:
    """Bools as what they are in memory."""
    return array.view(_BYTE) if array.dtype.kind == "b" else array


def planned(
    src: Any, dst: Any, branches: tuple[tuple[Stencil, ...], ...], combine: str, settings: Settings
) -> Any:  # fmt: skip
    """The call of the passes from ``src``, of a type that SciPy's filters read, into ``dst``, for these and arrays like them.

    Raises
    ------
    LeftToSciPy
        No compiled algorithm has the order of SciPy's sums.
    ValueError
        The algorithm named cannot run one of the passes.
    """
    exact = any(x.dtype.kind != "f" for x in (src, dst)) or settings.precision == "strict"
    if exact:
        settings = settings._replace(precision="strict")  # no algorithm but of plain sums
    if combine == "sum" and not exact:
        branches = _crossed(branches)
    seen = [planes(src.shape, f.axes) for branch in branches for f in branch]
    copied, aside = (not all(p.fits(x.strides) for p in seen) for x in (src, dst))
    place = settings.place
    if copied:
        src = place.empty(src.shape, src.dtype)
    if aside:
        dst = place.empty(dst.shape, dst.dtype)
    if not all(p.fits(x.strides) for p in seen for x in (src, dst)):
        raise LeftToSciPy
    shape, dtype, src_type = dst.shape, dst.dtype, src.dtype
    src, dst = as_bytes(src), as_bytes(dst)
    results = [dst, *(place.empty(dst.shape, dst.dtype) for _ in branches[1:])]
    passes = tuple(_branch(src, to, branch, exact, settings) for to, branch in zip(results, branches, strict=True))
    return place.combined(shape, dtype, src_type, passes, combine, copied, aside)


def _branch(src: Any, dst: Any, stencils: tuple[Stencil, ...], exact: bool, settings: Settings) -> tuple[Step, ...]:
    if len(stencils) == 2 and not exact:
        once = _swept_once(src, dst, stencils, settings)
        if once is not None:
            return (once,)
    passes = []
    for i, f in enumerate(stencils):
        last = i == len(stencils) - 1
        result = dst if last else settings.place.empty(dst.shape, dst.dtype)
        passes.append(_pass(src, result, f, exact, settings))
        src = result
    return tuple(passes) or (settings.place.copied(src, dst),)


def _pass(src: Any, dst: Any, f: Stencil, exact: bool, settings: Settings) -> Step:
    if not isinstance(f.taps, np.ndarray):
        through = dst.dtype == np.uint64 and f.rule == "grid"
        to = settings.place.empty(dst.shape, _DOUBLE) if through else dst
        step = settings.place.weighed(_problem(src, to, f, "f64", "raster", settings), src, to, f)
        return settings.place.converted(dst, step, "halves", 0, None) if through else step
    if f.rule == "mean" and dst.dtype.kind != "f":
        return _mean_of_integers(src, dst, f, settings)
    if f.rule == "mean" or not exact:
        taps = f.taps / f.taps.size if f.rule == "mean" else f.taps
        return _prepared(src, dst, f._replace(taps=taps), _accumulator(src, dst, _span(taps), f.fill, settings), "any", settings)
    sums = scipy_sum(f.taps, f.rule == "line", src.dtype, f.fill)
    if sums.order not in settings.place.orders:
        raise LeftToSciPy
    return _prepared(src, dst, f._replace(taps=sums.taps), sums.acc, sums.order, settings, as_scipy(f.taps, f.rule == "line"))


def _mean_of_integers(src: Any, dst: Any, f: Stencil, settings: Settings) -> Step:
    """What SciPy's division of an exact sum, rounded once and cut off, gives."""
    if src.dtype.kind == "f":
        return settings.place.running(src, dst, f)
    for acc in ("f32", "f64"):
        tap = mean_tap(f.taps.size, src.dtype, f.fill, DTYPES[acc])
        if tap is not None:
            return _prepared(src, dst, f._replace(taps=tap * f.taps), acc, "any", settings)
    bits, limit = exact_bits(f.taps, largest(src.dtype), f.fill), None
    if src.dtype.itemsize == 8 and settings.place.target is None:  # whose pixels can be looked at
        limit = 2.0**51 // f.taps.size
        bits = exact_bits(f.taps, limit, f.fill)
    if bits == 64:
        return settings.place.running(src, dst, f)
    acc_type = np.dtype(f"f{4 if bits == 24 else 8}")
    sums = settings.place.empty(dst.shape, acc_type)
    step = _launched(src, sums, f, _problem(src, sums, f, dtype_name(acc_type), "any", settings), settings)
    return settings.place.converted(dst, step, "divide", f.taps.size, limit)


def _divide(size: Any, sums: np.ndarray, dst: np.ndarray) -> None:
    np.divide(sums, size, sums)
    _cut(sums, dst)


def _check_range(limit: float, src: np.ndarray) -> None:
    if src.max() > limit or src.min() < -limit:
        raise LeftToSciPy


def _span(taps: np.ndarray) -> np.ndarray:
    """The smallest and the largest magnitude of taps that are not zero, around 1."""
    magnitudes = np.abs(taps[taps != 0])
    return np.array([magnitudes.min(initial=1.0), magnitudes.max(initial=1.0)])


def _accumulator(src: Any, dst: Any, span: np.ndarray, fill: float, settings: Settings) -> str:
    """float32 for images of float32, unless taps or the border's pixels are beyond what it multiplies without loss."""
    narrow = dtype_name(src.dtype) == dtype_name(dst.dtype) == "f32" and settings.precision != "strict"
    within = span[0] >= _SMALLEST and span[1] <= _LARGEST and (not np.isfinite(fill) or abs(fill) <= _LARGEST)
    return "f32" if narrow and within else "f64"


def _swept_once(src: Any, dst: Any, stencils: tuple[Stencil, ...], settings: Settings) -> Step | None:
    """Both passes as one of the outer product, where it is the same filter and predicted to be faster."""
    one, two = sorted(stencils, key=lambda f: f.axes)
    span = _span(one.taps) * _span(two.taps)
    # products too small to be kept: inf times zero would be NaN
    if one.border != two.border or not stencils[0].keeps_constants or span[0] < _LEAST or one.taps.size * two.taps.size > _MOST_TAPS:
        return None
    mean = one.rule == "mean"
    acc = _accumulator(src, dst, span, one.fill, settings)
    taps = np.broadcast_to(0.0, (one.taps.size, two.taps.size))
    both = Stencil((*one.axes, *two.axes), taps, (*one.before, *two.before), one.border, one.fill)
    p = _problem(src, dst, both, acc, "any", settings, "box" if mean else "rank1")
    target = settings.place.target
    passes = (_problem(src, dst, f, acc, "any", settings) for f in stencils)
    if settings.algorithm is None and _cost(p, target) > sum(_cost(one, target) for one in passes):
        return None
    taps = np.outer(one.taps, two.taps) / (taps.size if mean else 1)
    try:
        return _launched(src, dst, both._replace(taps=taps), p, settings)
    except ValueError:  # an algorithm looked, and saw no such structure; or the one named may run the passes
        return None


def _crossed(branches: tuple[tuple[Stencil, ...], ...]) -> tuple[tuple[Stencil, ...], ...]:
    """The sum of two lines of floats as one pass of a cross, where their borders agree."""
    if [len(branch) for branch in branches] != [1, 1]:
        return branches
    one, two = sorted((branch[0] for branch in branches), key=lambda f: f.axes)
    if one.rule != "line" or two.rule != "line" or one[3:] != two[3:] or not (one.taps.all() and two.taps.all()):
        return branches
    taps = np.zeros((one.taps.size, two.taps.size))
    taps[:, two.before[0]] = one.taps
    taps[one.before[0], :] += two.taps
    return ((Stencil((*one.axes, *two.axes), taps, (*one.before, *two.before), one.border, one.fill, "grid"),),)


def _cost(p: Problem, target: Any) -> float:
    """Predicted for one plane: the choice must not depend on the batch."""
    return cheapest(p.replace(g=1, ic=1, oc=1, shared=False, src_layout="nchw"), target)[0]


def _problem(
    src: Any, dst: Any, f: Stencil, acc: str, order: str, settings: Settings, structure: str = "full"
) -> Problem:  # fmt: skip
    seen = planes(src.shape, f.axes)
    n, h, w, c = seen.extents
    (kh, kw), (pt, pl) = _kernel(seen, f)
    shared: dict[str, Any] = {"g": c, "ic": c, "oc": c, "src_layout": seen.layout, "shared": True} if c > 1 else {}
    return Problem(
        n=n, ih=h, iw=w, kh=kh, kw=kw, pt=pt, pb=kh - 1 - pt, pl=pl, pr=kw - 1 - pl, border=f.border,
        src=dtype_name(src.dtype), wei="f64", dst=dtype_name(dst.dtype), acc=acc, order=order, structure=structure,
        precision=settings.precision, **shared,
    )  # fmt: skip


def _kernel(seen: Planes, f: Stencil) -> tuple[tuple[int, int], tuple[int, int]]:
    """``(kh, kw)`` and ``(pt, pl)`` of a filter."""
    if len(f.axes) == 2:
        kh, kw = f.taps.shape
        return (kh, kw), (f.before[0], f.before[1])
    upright = f.axes[0] in seen.axes[1]
    return ((f.taps.size, 1), (f.before[0], 0)) if upright else ((1, f.taps.size), (0, f.before[0]))


def _prepared(
    src: Any, dst: Any, f: Stencil, acc: str, order: str, settings: Settings, agrees: bool = False
) -> Step:  # fmt: skip
    through, long = None, False
    if dst.dtype.kind != "f":
        # what a zero tap makes of NaN must be seen before it is an integer; what these cannot hold, NumPy does not convert as C does
        long = f.rule == "grid" and dst.dtype == np.uint64
        through = _DOUBLE if long or _is_repaired(src, f) else _LONG if dst.dtype == np.uint32 else None
    to = dst if through is None else settings.place.empty(dst.shape, through)
    step = _launched(src, to, f, _problem(src, to, f, acc, order, settings), settings, agrees)
    return step if through is None else settings.place.converted(dst, step, "halves" if long else "convert", 0, None)


def _cut(between: np.ndarray, dst: np.ndarray) -> None:
    """To an integer type as C on x86-64 does it: of 32 bits and less, modulo."""
    np.copyto(dst, between.astype(_LONG, copy=False) if dst.dtype == np.uint32 else between, casting="unsafe")


def _cut_long(between: np.ndarray, dst: np.ndarray) -> None:
    """To uint64, in two halves as SciPy's `correlate` does it: the opposite of the negative ones' magnitude."""
    whole = np.abs(between).astype(np.uint64)
    np.copyto(dst, np.where(between > -1, whole, np.negative(whole)))


def _is_repaired(src: Any, f: Stencil) -> bool:
    """Whether a zero tap may meet a pixel that is not finite, which SciPy does not multiply."""
    return f.rule == "grid" and not f.taps.all() and (src.dtype.kind == "f" or not np.isfinite(f.fill))


def _launched(src: Any, dst: Any, f: Stencil, p: Problem, settings: Settings, agrees: bool = False) -> Step:
    """The plan of a problem, for these arrays; left to SciPy where that ``agrees`` and only the slower reference could run."""
    plan = plan_problem(p, settings.place.target, threads=settings.threads, algorithm=settings.algorithm)
    if agrees and settings.algorithm is None and plan.algorithm == "reference":
        raise LeftToSciPy
    seen = planes(src.shape, f.axes)
    view = seen.view()
    weights = np.ascontiguousarray(np.broadcast_to(f.taps.reshape(1, 1, p.kh, p.kw), (p.oc, 1, p.kh, p.kw)))
    zero_taps = ZeroTaps(p, f.taps.reshape(p.kh, p.kw), f.fill) if _is_repaired(src, f) else None
    return settings.place.launched(plan, weights, src, dst, view, f.fill, zero_taps)
