"""fft_repair: results of a transform where the direct formula says something else: windows that hold NaN or inf, magnitudes out of range.

A transform counts pixels that are not finite as 0.  Adding ``x w`` for each of them to the results whose windows hold it gives NaN and inf
where the sums of the formula have them: what is finite in such a sum does not matter.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Plan
from ..planning.problem import Problem, border_indices, parse_epilogue
from .fft_frame import Frame

MOST_ERROR = 32  # C of the bound; 11 is the largest seen, of constant images and kernels, and 1.5 of random ones


def rounds_exactly(most: Any, total: Any) -> bool:
    """Whether sums of products in float64, of pixels of at most ``most`` and weights of absolute sum ``total``, err by less than 1/2.

    Examples
    --------
    >>> rounds_exactly(255, 127 * 127 * 255), rounds_exactly(2**31, 9 * 2**31)
    (True, False)
    """
    return bool(float(most) * float(total) * MOST_ERROR < 2 ** (np.finfo(np.float64).nmant - 1))


def repair(
    p: Problem, frame: Frame, child: Plan, seen: np.ndarray, src: np.ndarray, weights: tuple[np.ndarray, np.ndarray],
    bias: np.ndarray | None, dst: np.ndarray, fill: Any,
) -> None:  # fmt: skip
    """Correct the planes of ``dst`` that need it, and repeat what a wrapped image repeats.

    Parameters
    ----------
    child : Plan
        Of one plane, by direct sums.
    seen : ndarray
        The largest bits of an absolute value in each plane ``(n, oc)``.
    weights : tuple of ndarray
        ``sum|w|`` of each filter, NaN where one is not finite, and the filters.
    """
    totals, filters = weights
    dtype = totals.dtype
    largest = seen.astype(f"i{dtype.itemsize}").view(dtype).reshape(p.n, p.oc)
    padded = p.border == "constant" and max(p.pt, p.pb, p.pl, p.pr) > 0
    constant = abs(dtype.type(fill)) if padded else dtype.type(0)
    simple = p.acc[0] == "f" and dst.shape[2:] == (frame.y.out, frame.x.out)
    if simple and _in_range(np.maximum(largest, constant), totals).all():
        return
    for n, o in np.ndindex(p.n, p.oc):
        c = o // (p.oc // p.g)
        plane, to = src[n, c], dst[n, o]
        found, most = np.isfinite(largest[n, o]), largest[n, o]
        wrong = None
        if not found:
            finite = np.isfinite(plane)
            most = np.abs(plane[finite]).max(initial=0)
            wrong = np.argwhere(~finite)
        most = np.maximum(most, constant)
        fits = _in_range(most, totals[o]) and (p.acc[0] == "f" or rounds_exactly(most, totals[o]))
        if fits and (wrong is None or _add(p, frame, child, wrong, plane, filters[o, 0], to)):
            _repeat(frame, to)
        else:
            one = None if bias is None else bias[o : o + 1]
            child.run(src[n : n + 1, c : c + 1], child.pack(filters[o : o + 1]), one, dst[n : n + 1, o : o + 1], fill)


def _in_range(most: Any, total: Any) -> Any:
    """Whether no intermediate value of a transform of pixels of at most this magnitude overflows, or loses bits by being too small."""
    small, large, product = _limits(total.dtype)
    # NaN and inf are not within
    fits = [(value == 0) | (small <= value) & (value <= large) for value in (most, total)]
    return fits[0] & fits[1] & (most * total <= product)


@functools.cache
def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any, Any]:
    limits, one = np.finfo(dtype), dtype.type(1)
    return np.ldexp(one, limits.minexp + costs.FFT_SPARE_BITS), np.ldexp(one, limits.maxexp - costs.FFT_SPARE_BITS), limits.max / 4


def _add(p: Problem, frame: Frame, child: Plan, wrong: np.ndarray, plane: np.ndarray, wei: np.ndarray, to: np.ndarray) -> bool:
    """Add the products of the pixels at ``wrong``; False where direct sums are simpler, or quicker."""
    if parse_epilogue(p.epilogue).activation is not None or to.dtype.kind != "f":
        return False
    rows, columns = (
        border_indices(-before, axis.out + taps - 1, 1, extent, p.border)
        for before, axis, taps, extent in ((p.pt, frame.y, p.kh, p.ih), (p.pl, frame.x, p.kw, p.iw))
    )
    down, across = (np.bincount(places[places >= 0], minlength=extent) for places, extent in ((rows, p.ih), (columns, p.iw)))
    counted = np.isnan(plane[wrong[:, 0], wrong[:, 1]])
    windows = down[wrong[:, 0]] * across[wrong[:, 1]]
    one, all_ = costs.REPAIR_SECONDS + costs.REPAIR_TAP_SECONDS * p.taps, costs.REPAIR_PIXEL_SECONDS * len(rows) * len(columns)
    if one * windows[counted].sum() <= all_:
        counted[:] = False
    if one * windows[~counted].sum() + all_ * counted.any() > child.cost:
        return False
    for y, x in wrong[~counted]:
        products = (wei * plane[y, x].astype(wei.dtype))[::-1, ::-1]
        for row in map(int, np.flatnonzero(rows == y)):
            y0, y1 = max(row - p.kh + 1, 0), min(row + 1, frame.y.out)
            for column in map(int, np.flatnonzero(columns == x)):
                x0, x1 = max(column - p.kw + 1, 0), min(column + 1, frame.x.out)
                part = products[y0 - row + p.kh - 1 : y1 - row + p.kh - 1, x0 - column + p.kw - 1 : x1 - column + p.kw - 1]
                to[y0:y1, x0:x1] += part
    if counted.any():
        to[: frame.y.out, : frame.x.out][_holds(np.isnan(plane), rows, columns, p.kh, p.kw)] = np.nan
    return True


def _holds(marks: np.ndarray, rows: np.ndarray, columns: np.ndarray, kh: int, kw: int) -> np.ndarray:
    """Which windows of ``kh x kw`` hold a mark, in the plane whose rows and columns are these of ``marks``, or outside where -1."""

    def any_of(found: np.ndarray, places: np.ndarray, taps: int) -> np.ndarray:
        sums = np.zeros((len(found), len(places) + 1), np.int32)
        np.cumsum(found[:, places] & (places >= 0), axis=1, out=sums[:, 1:])
        return sums[:, taps:] > sums[:, :-taps]

    return any_of(any_of(marks, columns, kw).T, rows, kh).T


def _repeat(frame: Frame, to: np.ndarray) -> None:
    """The results of a wrapped image repeat with its period."""
    for first in range(frame.x.out, to.shape[1], frame.x.out):
        part = to[: frame.y.out, first : first + frame.x.out]
        part[...] = to[: frame.y.out, : part.shape[1]]
    for first in range(frame.y.out, to.shape[0], frame.y.out):
        part = to[first : first + frame.y.out]
        part[...] = to[: part.shape[0]]
