"""transposed: the gradient of the image, and transposed convolution, as forward problems of a subset of the taps.

Every ``sh``-th row and ``sw``-th column of the result, a *phase*, is a forward problem of stride 1 on the result's gradient: of the taps
that reach it, flipped, with channels of input and output swapped.  With ``g = gcd(s, d)`` these are every ``s/g``-th tap, ``d/g``
pixels apart.  So no zero is multiplied that a forward pass would not multiply, and what serves the forward pass serves here.
Few channels of planes are exempt: where that is predicted to be faster, all phases are channels of one forward problem, whose taps are
those of any phase and 0 where a phase has none, so that the gradient is read once and lanes are full (3 channels at 224x224, 7x7 at
stride 2, from 64: 2.6 ms instead of 5.9; two cores, Emerald Rapids, 2026-11).  Where a result is not finite, phases are computed apart.
Rows and columns that no tap reaches are the bias alone.  Order of accumulation, and class of
the error: those of the child plans.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning import reference
from ..planning.phases import Phase, phase_problem, placed
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, not_computed, parse_epilogue
from .joined import JOB_BYTES, Member, filled, joined
from .placing import placing
from .stage import is_native
from .target import Target
from .threads import workspaces

CASES = ("ic32ih14_oc24k3_p1_bwd-data_f32", "n3_g2_ic16ih15iw17_oc12k3_s2_p1_bwd-data_f32_bias+relu",
         "ic16ih20_oc24k4_s2_p1_bwd-data_f64_nhwc_hwio", "ic4ih21_oc6k3_s3_d2_p2_bwd-data_f32", "ic5ih9_oc7k1_s2_bwd-data_f32_bias",
         "n2_ic3ih16_oc8k5_s4_bwd-data_f16:f16:f16:f32", "ic2ih12_oc3k3_s2_p1_bwd-data_i32", "ih9_k5_p2_bwd-data_c64",
         "n2_g6_ic6ih13_oc6k3_s2_p1_bwd-data_f32_nhwc_bias+tanh", "n2_ic2ih1iw2_oc3kh2kw3_s4_p5_bwd-data_f32_bias",
         "n2_ic3ih20iw23_oc9k3_s2_p1_bwd-data_f32_bias")  # fmt: skip
_MOST_PHASES = 1 << 10
# Of all phases of a result, that are computed as channels of one problem; and of the gradient that is then read once instead of by each
_MOST_CHANNELS, _LEAST_READ = 16, 8


def reject(p: Problem, t: Target) -> str | None:
    """The gradient of the image under the constant border, of at most `_MOST_PHASES` phases."""
    reason = not_computed(p, "bwd_data")
    if reason is not None:
        return reason
    if p.border != "constant":
        return f"folds no border {p.border} back into the image"
    if min(p.sh, p.ih) * min(p.sw, p.iw) > _MOST_PHASES:
        return f"plans at most {_MOST_PHASES} phases, not {p.sh} x {p.sw}"
    if _buffered(p) and _buffer_bytes(p, 1) > costs.MOST_WORKSPACE:
        return f"needs a buffer of {_buffer_bytes(p, 1) >> 20} MiB for one phase"
    return None


def cost(p: Problem, t: Target) -> float:
    return costs.transposed_seconds(p)


def most_kernels(t: Target) -> int:
    """None of its own, but for the two of `joined` and that of `placing`: its children's are counted with their algorithms."""
    return 0


def _buffered(p: Problem) -> bool:
    """Whether phases are computed aside: the pixels of a row of one channel would not be neighbours in the result."""
    return p.sw > 1 and p.iw > 1 and p.src_layout == "nchw"


def _buffer_bytes(p: Problem, images: int) -> int:
    return images * p.ic * -(-p.ih // p.sh) * -(-p.iw // p.sw) * DTYPES[p.dst].itemsize


def _telling(p: Problem) -> tuple[slice, slice] | None:
    """Of an image's result a pixel of each phase, all of whose taps meet pixels: not finite where a weight of its channel is not.

    None where there are none, where a result does not tell, and where there are hardly fewer of them than weights.
    """
    if parse_epilogue(p.epilogue).activation is not None or DTYPES[p.dst].kind not in "fc" or 4 * p.ic * p.sh * p.sw > p.oc * p.taps:
        return None
    first = max(p.kh_span - 1 - p.pt, 0), max(p.kw_span - 1 - p.pl, 0)
    end = min((p.oh - 1) * p.sh - p.pt + 1, p.ih), min((p.ow - 1) * p.sw - p.pl + 1, p.iw)
    if first[0] + p.sh > end[0] or first[1] + p.sw > end[1]:
        return None
    return slice(first[0], first[0] + p.sh), slice(first[1], first[1] + p.sw)


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1, given: bool = False, apart: bool = False) -> Plan:
    """A plan whose packed weights are an array of the children's packed weights.

    Weights that are not finite are left to the reference: a forward problem multiplies its padding by them.  Those that are ``given``
    with every image are only looked for where a few results are not finite: 0.6 ms of 512 channels to 512.  Phases ``apart`` are no
    channels of one problem.
    """
    places = placed(p)
    reached = [place for place in places if all(axis.taps for axis in place)]
    alone = [place for place in places if not all(axis.taps for axis in place)]
    buffered = _buffered(p)
    most = max(min(costs.MOST_BUFFER // _buffer_bytes(p, 1), p.n) if buffered else p.n, 1)

    found = {
        images: [plan(phase_problem(p, *place, images), t, threads) for place in reached] for images in {min(most, p.n), p.n % most} - {0}
    }
    # by all of a phase's children or by none, since they share its weights: of few images they may be packed where they are used alone
    as_given = [given and all(child.given is not None for child in own) for own in zip(*found.values(), strict=True)]
    children = {
        images: [child.given() if whether and child.given is not None else child for child, whether in zip(own, as_given, strict=True)]
        for images, own in found.items()
    }
    some = next(iter(children.values()), [])
    flipped_once = len(places) == len(reached) == 1 and not buffered and p.n > 0
    if flipped_once and all((axis.low, axis.before, axis.end, axis.after) == (0, 0, pixels, 0)
                            for axis, pixels in zip(places[0], (p.oh, p.ow), strict=True)):  # fmt: skip
        return _of_child(p, t, plan, threads, some[0], given)
    if not apart and buffered and _as_channels(p, reached) and p.n:
        one = [plan(phase_problem(p, *place, 1), t, threads).cost for place in reached]
        if plan(_channels_problem(p, reached, 1), t, threads).cost < sum(one):
            return _of_channels(p, t, plan, threads, reached)
    exact = reference.build(p, t, plan, threads)
    telling = _telling(p) if given else None
    plain = p.src == p.wei == p.dst == p.acc and p.acc in ("f32", "f64")
    as_they_lie = all(as_given) and (p.g == 1 or all(child.grouped for child in some))
    if some and plain and not buffered and not flipped_once and len(children) == 1 and as_they_lie:
        return _of_phases(p, t, threads, some, reached, alone, exact, telling)

    def pack(p: Problem, wei: np.ndarray) -> np.ndarray:
        if telling is None and DTYPES[p.wei].kind in "fc" and not _finite(p, wei):
            return exact.pack(wei)
        merged = None if all(child.grouped for child in some) else _merged(p, wei)
        packed = np.empty(len(reached) + 1, object)
        packed[-1] = wei if telling is not None else None
        for number, (child, (y, x)) in enumerate(zip(some, reached, strict=bool(some))):
            own = _swapped(p, wei) if child.grouped or merged is None else merged
            packed[number] = child.pack(own[..., y.k0 :: y.step, x.k0 :: x.step][..., ::-1, ::-1])
        return packed

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        launches: dict[int, list[Launch]] = {}

        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            if packed.dtype != object:
                exact.run(src, packed, bias, dst, fill)
                return
            run_phases(src, packed, bias, dst)
            if telling is not None and len(dst) and not np.isfinite(dst[0][:, *telling]).all():
                wei = packed[-1]
                if not _finite(p, wei):
                    exact.run(src, exact.pack(wei), bias, dst, fill)

        def run_phases(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            if flipped_once:
                under = _under(src, *places[0])
                if not launches:
                    launches[p.n] = [some[0].prepare(under, packed[0], dst)]
                launches[p.n][0](under, packed[0], bias, dst)
                return
            buffer = workspaces.take(_buffer_bytes(p, most)) if buffered else None
            for first in range(0, p.n, most):
                images, results = src[first : first + most], dst[first : first + most]
                for y, x in alone:
                    _of(p, results, y, x)[...] = _addend(p, bias)
                inside = [_of(p, results, y, x) for y, x in reached]
                arrays = [
                    (_under(images, y, x), to if buffer is None else _aside(p, buffer, len(images), y, x))
                    for to, (y, x) in zip(inside, reached, strict=True)
                ]
                if len(images) not in launches:
                    launches[len(images)] = [
                        child.prepare(under, weights, to)
                        for child, weights, (under, to) in zip(children[len(images)], packed[:-1], arrays, strict=True)
                    ]
                for run, weights, (under, to), place in zip(launches[len(images)], packed[:-1], arrays, inside, strict=True):
                    run(under, weights, bias, to)
                    if buffer is not None:
                        place[...] = to
            if buffer is not None:
                workspaces.give(buffer)

        return launch

    return Plan(problem=p, algorithm="transposed", kernel="phases" if len(places) > 1 else "flipped", cost=cost(p, t), pack_weights=pack,
                prepare_launch=prepare, workspace=_buffer_bytes(p, most) if buffered else 0, threads=threads,
                children=tuple({child.problem: child for child in some}.values()),
                given=None if given else partial(build, p, t, plan, threads, True, apart))  # fmt: skip


def _as_channels(p: Problem, reached: list[tuple[Phase, Phase]]) -> bool:
    """Whether all phases may be channels of one problem: few of them, each reached, of dense taps, floats of one type."""
    plain = p.src == p.wei == p.dst == p.acc and p.acc in ("f32", "f64") and p.epilogue in ("", "bias")
    dense = p.g == 1 and (p.dh, p.dw) == (1, 1) and p.sh * p.sw == len(reached)
    few = p.ic * len(reached) <= _MOST_CHANNELS and p.oc >= _LEAST_READ
    return plain and dense and few and len(reached) * _buffer_bytes(p, 1) <= costs.MOST_WORKSPACE


def _window(axis: list[Phase], pixels: int) -> Phase:
    """The phases of an axis as one: whatever pixels and taps any of them has.

    Examples
    --------
    >>> from fastconv.planning.phases import phases
    >>> _window(phases(6, 3, 3, 2, 1, 1), 3)[1:]
    (3, 0, 1, 2, 1, 0, 3, 0, 1)
    """
    first, many = min(phase.low - phase.before for phase in axis), max(phase.many for phase in axis)
    taps = max(phase.low - phase.before + phase.taps for phase in axis) - first
    high = first + many + taps - 1
    return Phase(0, many, 0, 1, taps, 1, max(first, 0), min(high, pixels), max(-first, 0), max(high - pixels, 0))


def _windows(p: Problem, reached: list[tuple[Phase, Phase]]) -> tuple[Phase, Phase]:
    """Of rows and of columns."""
    rows, columns = zip(*reached, strict=True)
    return _window(list(rows), p.oh), _window(list(columns), p.ow)


def _channels_problem(p: Problem, reached: list[tuple[Phase, Phase]], images: int) -> Problem:
    """The forward problem whose channels are ``[phase][channel]``."""
    return phase_problem(p, *_windows(p, reached), images).replace(oc=p.ic * len(reached))


def _of_channels(p: Problem, t: Target, plan: PlanFn, threads: int, reached: list[tuple[Phase, Phase]]) -> Plan:
    """A plan of one forward problem, for some images at a time.

    A 0 where a phase has no tap makes a NaN of a pixel that is not finite: then, and where weights are not, phases are computed apart.
    """
    y, x = _windows(p, reached)
    most = max(min(costs.MOST_BUFFER // (len(reached) * _buffer_bytes(p, 1)), p.n), 1)
    children = {images: plan(_channels_problem(p, reached, images), t, threads) for images in {most, p.n % most} - {0}}
    child, phases = children[most], build(p, t, plan, threads, apart=True)
    dtype = DTYPES[p.dst]

    def pack(p: Problem, wei: np.ndarray) -> np.ndarray:
        packed = np.empty(2, object)
        packed[0], packed[1] = wei.copy(), None
        if _finite(p, wei):
            flipped = _swapped(p, wei)[0]
            taps = np.zeros((len(reached), p.ic, p.oc, y.taps, x.taps), DTYPES[p.acc])
            for to, (row, column) in zip(taps, reached, strict=True):
                top, left = row.low - row.before - (y.low - y.before), column.low - column.before - (x.low - x.before)
                own = flipped[..., row.k0 :: row.step, column.k0 :: column.step][..., ::-1, ::-1]
                to[..., top : top + row.taps, left : left + column.taps] = own
            packed[1] = child.pack(taps.reshape(-1, *taps.shape[2:]))
        return packed

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        launches: dict[int, tuple[Launch, Launch | None]] = {}

        def placed_finite(sums: np.ndarray, results: np.ndarray, place: Launch | None) -> bool:
            if place is not None:
                fits = np.empty(len(results) * p.ic * y.many, dtype)
                flat = sums.reshape(len(results), -1, y.many, x.many)
                place(flat, flat, fits, results)
                return bool(fits.all())
            for number, (row, column) in enumerate(reached):
                _of(p, results, row, column)[...] = sums[:, number, :, : row.many, : column.many]
            return bool(np.isfinite(sums).all())

        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            whole = packed[1] is not None
            addends = None if bias is None else np.tile(bias, len(reached))
            buffer = workspaces.take(workspace)
            for first in range(0, p.n if whole else 0, most):
                images, results = src[first : first + most], dst[first : first + most]
                shape = len(images), len(reached) * p.ic, y.many, x.many
                sums = buffer[: prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
                under = _under(images, y, x)
                if len(images) not in launches:
                    place = placing(p, t.lanes(dtype.itemsize), threads, y.many, x.many, sums, results) if is_native(dst, p.acc) else None
                    launches[len(images)] = children[len(images)].prepare(under, packed[1], sums), place
                run, place = launches[len(images)]
                run(under, packed[1], addends, sums)
                whole = whole and placed_finite(sums.reshape(len(images), len(reached), p.ic, y.many, x.many), results, place)
            workspaces.give(buffer)
            if not whole:
                phases.run(src, phases.pack(packed[0]), bias, dst, fill)

        return launch

    workspace = most * p.ic * len(reached) * y.many * x.many * dtype.itemsize
    return Plan(problem=p, algorithm="transposed", kernel="channels", cost=cost(p, t), pack_weights=pack, prepare_launch=prepare,
                workspace=max(workspace, phases.workspace), threads=threads, children=(*children.values(), *phases.children))  # fmt: skip


def _of_phases(
    p: Problem, t: Target, threads: int, children: list[Plan], reached: list[tuple[Phase, Phase]], alone: list[tuple[Phase, Phase]],
    exact: Plan, telling: tuple[slice, slice] | None,
) -> Plan:  # fmt: skip
    """A plan whose phases are one launch: all read the caller's weights where they lie, and no phase is computed aside."""
    has_activation = parse_epilogue(p.epilogue).activation is not None

    def pack(p: Problem, wei: np.ndarray) -> np.ndarray:
        if telling is not None or DTYPES[p.wei].kind not in "fc" or _finite(p, wei):
            return wei.astype(DTYPES[p.acc], copy=False)
        packed = np.empty(1, object)
        packed[0] = exact.pack(wei)
        return packed

    def arrays(src: np.ndarray, wei: np.ndarray, dst: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of each child."""
        flipped, found = _swapped(p, wei), []
        for child, (y, x) in zip(children, reached, strict=True):
            taps = flipped[..., y.k0 :: y.step, x.k0 :: x.step][..., ::-1, ::-1]
            found.append((_under(src, y, x), child.pack(taps if p.g > 1 else taps[0]), _of(p, dst, y, x)))
        return found

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        known: list[Launch] = []

        def phases_of(src: np.ndarray, wei: np.ndarray, dst: np.ndarray) -> Launch:
            each = arrays(src, wei, dst)
            launches = [child.prepare(*of_child) for child, of_child in zip(children, each, strict=True)]
            away = [[a.ctypes.data - whole.ctypes.data for a, whole in zip(own, (src, wei, dst), strict=True)] for own in each]
            members = [Member(launch, *bytes_away) for launch, bytes_away in zip(launches, away, strict=True)]
            beside = dst.dtype == DTYPES[p.acc] and dst.strides[1] == dst.itemsize and not has_activation
            for y, x in alone if beside else []:
                to = _of(p, dst, y, x)
                blank = filled(p.acc, t.lanes(dst.itemsize), parse_epilogue(p.epilogue).bias, threads, src, wei, to)
                members.append(Member(blank, 0, 0, to.ctypes.data - dst.ctypes.data))
            together = joined(members, p.acc, threads, src, wei, dst)
            if together is not None and (beside or not alone):
                return together

            def one_by_one(src: np.ndarray, wei: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
                for y, x in alone:
                    _of(p, dst, y, x)[...] = _addend(p, bias)
                for run, (under, taps, to) in zip(launches, arrays(src, wei, dst), strict=True):
                    run(under, taps, bias, to)

            return one_by_one

        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            finite = packed.dtype != object
            if finite:
                if not known:
                    known.append(phases_of(src, packed, dst))
                known[0](src, packed, bias, dst)
                finite = telling is None or not len(dst) or np.isfinite(dst[0][:, *telling]).all() or _finite(p, packed)
            if not finite:
                exact.run(src, packed[0] if packed.dtype == object else exact.pack(packed), bias, dst, fill)

        return launch

    return Plan(problem=p, algorithm="transposed", kernel="phases", cost=cost(p, t), pack_weights=pack, prepare_launch=prepare,
                workspace=JOB_BYTES * threads, threads=threads,
                children=tuple({child.problem: child for child in children}.values()))  # fmt: skip


def _of_child(p: Problem, t: Target, plan: PlanFn, threads: int, child: Plan, given: bool) -> Plan:
    """A plan whose one phase multiplies no padding, as kernels of one tap do: weights that are not finite need no look, and its launch is
    the child's: 16 to 16 channels at 4x4 take 9 us a call instead of 18.
    """

    def pack(p: Problem, wei: np.ndarray) -> np.ndarray:
        return child.pack((_swapped(p, wei) if child.grouped and p.g > 1 else _merged(p, wei))[..., ::-1, ::-1])

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        return child.prepare(src, packed, dst)

    return Plan(problem=p, algorithm="transposed", kernel="flipped", cost=cost(p, t), pack_weights=pack, prepare_launch=prepare,
                threads=threads, children=(child,), given=None if given else partial(build, p, t, plan, threads, True))  # fmt: skip


def _swapped(p: Problem, wei: np.ndarray) -> np.ndarray:
    """Weights with the channels of input and output swapped, ``(g, ic/g, oc/g, kh, kw)``."""
    return wei.reshape(p.g, p.oc // p.g, p.ic // p.g, p.kh, p.kw).swapaxes(1, 2)


def _merged(p: Problem, wei: np.ndarray) -> np.ndarray:
    """The same without the groups' axis, ``(ic, oc/g, kh, kw)``: of several groups a copy, of all taps of a filter together.

    NumPy copies taps that are turned one by one: 32 groups of 16 channels take 28 us so, 7 together.
    """
    if p.g == 1:
        return wei.swapaxes(0, 1)
    filters = wei.reshape(p.g, p.oc // p.g, p.ic // p.g, p.kh, p.kw).swapaxes(0, 1)
    return np.ascontiguousarray(filters).reshape(p.oc // p.g, p.ic, p.kh, p.kw).swapaxes(0, 1)


def _finite(p: Problem, wei: np.ndarray) -> bool:
    """Whether all weights are finite, in the type of floating sums, too."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(wei.astype(DTYPES[p.acc], copy=False) if wei.dtype.kind == DTYPES[p.acc].kind else wei).all())


def _of(p: Problem, results: np.ndarray, y: Phase, x: Phase) -> np.ndarray:
    """The results of a phase."""
    return results[:, :, y.first :: p.sh, x.first :: p.sw]


def _under(images: np.ndarray, y: Phase, x: Phase) -> np.ndarray:
    """The pixels that a phase reads."""
    return images[:, :, y.low : y.end, x.low : x.end]


def _aside(p: Problem, buffer: np.ndarray, images: int, y: Phase, x: Phase) -> np.ndarray:
    """The results of a phase in the buffer."""
    dtype, shape = DTYPES[p.dst], (images, p.ic, y.many, x.many)
    return buffer[: prod(shape) * dtype.itemsize].view(dtype).reshape(shape)


def _addend(p: Problem, bias: np.ndarray | None) -> np.ndarray:
    """What a result that no tap reaches is."""
    start = np.zeros((1, p.ic, 1, 1), DTYPES[p.acc]) if bias is None else bias.astype(DTYPES[p.acc]).reshape(1, -1, 1, 1)
    with np.errstate(all="ignore"):
        return reference.activate(p.epilogue, start).astype(DTYPES[p.dst])
