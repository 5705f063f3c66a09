"""factor: what is proven about a kernel's weights, and the vectors of kernels of low rank; compiled, since every call may ask."""

from __future__ import annotations

import functools
from math import frexp, ldexp
from typing import Any

import numpy as np
from numba import types

from .compile import compiled, helper
from .simd import KINDS

FOUND = ("full", "rank1", "box")  # what `factor` returns, as a place in this list
MOST_GROWTH = 4  # of sum|w|: the products of vectors that a filter is the sum of
MOST_UNSIGNED, MOST_SIGNED = 256, 128  # of the sum of whole weights, so that sums of bytes, and half of it, stay within 16 bits
_NAMES = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64"}
_EXACT = 1 << 24  # ratios of a row's weights up to this are exact in float32


def _factory(eps: int, kind: str) -> Any:
    """The test for an accumulator whose epsilon is ``2**-eps``."""
    tolerance = 4 / (1 << eps)

    def factor(wei: Any, packed: Any) -> Any:
        filters, _, kh, kw = wei.shape
        boxes: Any = True
        whole: Any = True
        for o in range(filters):
            peak, py, px = 0.0, 0, 0
            for y in range(kh):
                for x in range(kw):
                    size = abs(np.float64(wei[o, 0, y, x]))
                    if not size < np.inf:
                        return 0
                    if size > peak:
                        peak, py, px = size, y, x
                    boxes = boxes and wei[o, 0, y, x] == wei[o, 0, 0, 0]
            vectors = packed[o, 0, 0]
            column, row, whole_column, whole_row = vectors[:kh], vectors[kh:], vectors[kh + kw :], vectors[2 * kh + kw :]
            if peak == 0:
                packed[o] = 0
                continue
            pivot = np.float64(wei[o, 0, py, px])
            # the row's common divisor makes both vectors whole where the weights are, up to a power of two
            divisor = common_divisor(wei[o, 0, py, :], peak / _EXACT)
            scale = divisor if divisor > 0 else peak
            if kh == 1 and divisor == 0:
                scale = ldexp(1.0, frexp(peak)[1] - 1)  # the weights themselves, but for a power of two
            # the largest of the row in [1, 2): sums of a column are no larger than those of the direct formula's largest column
            shift = frexp(peak / scale)[1] - 1
            ratio = ldexp(pivot / scale, -shift)
            for x in range(kw):
                row[x] = ldexp(np.float64(wei[o, 0, py, x]) / scale, -shift)
            for y in range(kh):
                column[y] = np.float64(wei[o, 0, y, px]) / ratio
            for y in range(kh):
                for x in range(kw):
                    w = np.float64(wei[o, 0, y, x])
                    if not abs(w - np.float64(column[y]) * np.float64(row[x])) <= tolerance * abs(w):
                        return 0
            # once more as whole numbers without a common divisor, times one scale
            down = common_divisor(wei[o, 0, :, px], peak / _EXACT) if divisor > 0 else 0.0
            total = [0.0, 0.0]
            for x in range(kw):
                whole_row[x] = np.rint(np.float64(wei[o, 0, py, x]) / divisor) if down > 0 else 0.0
                total[0] += abs(whole_row[x])
            negative = False
            for y in range(kh):
                whole_column[y] = np.rint(np.float64(wei[o, 0, y, px]) / down) if down > 0 else 0.0
                total[1] += abs(whole_column[y])
                for x in range(kw):
                    negative = negative or whole_column[y] * whole_row[x] * pivot < 0
            unit = pivot / (np.float64(whole_column[py]) * np.float64(whole_row[px])) if down > 0 else 0.0
            if unit < 0:
                for x in range(kw):
                    whole_row[x] = -whole_row[x]
            vectors[2 * (kh + kw)] = abs(unit)
            sums = total[0] * total[1]
            vectors[2 * (kh + kw) + 1] = 0 if down == 0 or sums > MOST_UNSIGNED else 1
            if negative or unit < 0:
                vectors[2 * (kh + kw) + 1] = 0 if down == 0 or sums > MOST_SIGNED else 2
            whole = whole and vectors[2 * (kh + kw) + 1] > 0
            for y in range(kh):
                for x in range(kw):
                    w = np.float64(wei[o, 0, y, x])
                    near = np.float64(whole_column[y]) * np.float64(whole_row[x]) * np.float64(vectors[2 * (kh + kw)])
                    whole = whole and abs(w - near) <= tolerance * abs(w)
        if not whole:
            packed[:, 0, 0, 2 * (kh + kw) + 1] = 0
        return 2 if boxes else 1

    return factor


def _sum_factory(eps: int, kind: str) -> Any:
    """The elimination for an accumulator whose epsilon is ``2**-eps``."""
    tolerance = 4 / (1 << eps)

    def factor_sum(wei: Any, packed: Any, rest: Any) -> Any:
        filters, _, kh, kw = wei.shape
        most, rank = packed.shape[1], 1
        for o in range(filters):
            packed[o] = 0
            total = 0.0
            for y in range(kh):
                for x in range(kw):
                    rest[y, x] = np.float64(wei[o, 0, y, x])
                    total += abs(rest[y, x])
            if not total < np.inf:
                return 0
            left, grown, found = total, 0.0, 0
            while left > tolerance * total:
                if found == most:
                    return 0
                peak, py, px = 0.0, 0, 0
                for y in range(kh):
                    for x in range(kw):
                        if abs(rest[y, x]) > peak:
                            peak, py, px = abs(rest[y, x]), y, x
                column, row = packed[o, found, :kh], packed[o, found, kh:]
                pivot = rest[py, px]
                for y in range(kh):
                    column[y] = rest[y, px]
                for x in range(kw):
                    row[x] = rest[py, x] / pivot
                down, across = 0.0, 0.0
                for y in range(kh):
                    down += abs(np.float64(column[y]))
                for x in range(kw):
                    across += abs(np.float64(row[x]))
                grown += down * across
                left = 0.0
                for y in range(kh):
                    for x in range(kw):
                        rest[y, x] -= np.float64(column[y]) * np.float64(row[x])
                        left += abs(rest[y, x])
                found += 1
            if grown > MOST_GROWTH * total:
                return 0
            rank = max(rank, found)
        return rank

    return factor_sum


@helper
def common_divisor(weights: Any, least: Any) -> Any:
    """The greatest common divisor of numbers, or 0 where it is below ``least``."""
    divisor = 0.0
    for x in range(len(weights)):
        rest = abs(np.float64(weights[x]))
        while rest > least:
            divisor, rest = rest, divisor % rest
        if rest != 0:
            return 0.0
    return divisor


def words(kh: int, kw: int) -> int:
    """How many numbers `factor` writes for a filter."""
    return 2 * (kh + kw) + 2


@functools.cache
def _compiled(wei: str, acc: str) -> Any:
    number = KINDS[acc][1]
    given = types.Array(KINDS[wei][1], 4, "A", readonly=True)
    signature = types.int64(given, types.Array(number, 4, "C"))
    name = f"factor_{wei}_{acc}"
    (result,) = compiled(name, _factory, (23 if acc == "f32" else 52, wei), signature).overloads.values()
    return result.entry_point


@functools.cache
def _compiled_sum(wei: str, acc: str) -> Any:
    number = KINDS[acc][1]
    given = types.Array(KINDS[wei][1], 4, "A", readonly=True)
    signature = types.int64(given, types.Array(number, 3, "C"), types.Array(types.float64, 2, "C"))
    (result,) = compiled(f"factor_sum_{wei}_{acc}", _sum_factory, (23 if acc == "f32" else 52, wei), signature).overloads.values()
    return result.entry_point


def factor_sum(wei: np.ndarray, packed: np.ndarray) -> int:
    """Write filters as sums of products of two vectors; how many products the filter with the most needs, or 0 for more than fit.

    Elimination with the largest weight that is left as the pivot, of what the products of the rounded vectors leave.
    ``packed[o, i]`` becomes ``kh`` factors of the rows and ``kw`` of the columns, of at most 1, such that
    ``sum |wei[o, 0] - sum_i packed[o, i, :kh, None] packed[o, i, kh:]| <= 4 eps sum |wei[o, 0]|`` in the epsilon of ``packed``'s type,
    and ``sum_i sum |products| <= MOST_GROWTH sum |wei[o, 0]|``.  Unused products are zero.  Weights that are not finite: 0.

    Parameters
    ----------
    wei : ndarray (oc, 1, kh, kw)
        float32 or float64, native, of any strides.
    packed : ndarray (oc, most, kh + kw)
        float32 or float64, C-contiguous.

    Examples
    --------
    >>> wei, packed = np.eye(3)[None, None] + 1, np.empty((1, 2, 6), "f4")
    >>> factor_sum(wei, packed), factor_sum(np.ones((1, 1, 3, 3)) + np.diag([1.0, -1, 0]), np.empty((1, 3, 6)))
    (0, 3)
    """
    oc, _, kh, kw = wei.shape
    assert packed.shape == (oc, packed.shape[1], kh + kw), packed.shape
    return int(_compiled_sum(_NAMES[wei.dtype], _NAMES[packed.dtype])(wei, packed, np.empty((kh, kw))))


def factor(wei: np.ndarray, packed: np.ndarray) -> int:
    """Write the vectors of rank-1 filters, and tell what the filters are: a place in :data:`FOUND`.

    ``packed[o, 0, 0]`` becomes ``kh`` factors of the rows and ``kw`` of the columns; the same as whole numbers that want to be multiplied
    by the scale that follows; then 1 if all filters can be written so, with no weight below zero and a sum of at most ``MOST_UNSIGNED``
    whole units, 2 if some are below zero and it is at most ``MOST_SIGNED``, or 0.  The former are such that
    ``|wei[o, 0, y, x] - packed[y] * packed[kh + x]| <= 4 eps |wei[o, 0, y, x]|`` in the epsilon of ``packed``'s type: for every tap
    of every filter, or the answer is ``full`` and what was written is of no use.  Zero weights have products that are exactly zero;
    weights that are whole numbers times a power of two, and exact in float32, have exact ones.  ``rank1`` and ``box`` (all weights of a
    filter are equal) are finite.

    Parameters
    ----------
    wei : ndarray (oc, 1, kh, kw)
        float32 or float64, native, of any strides.
    packed : ndarray (oc, 1, 1, words(kh, kw))
        float32 or float64, C-contiguous.

    Examples
    --------
    >>> wei, packed = np.outer([1, 2, 1], [1.0, 0, -1])[None, None], np.empty((1, 1, 1, 14), "f4")
    >>> FOUND[factor(wei, packed)], packed.ravel().tolist()
    ('rank1', [1.0, 2.0, 1.0, 1.0, 0.0, -1.0, 1.0, 2.0, 1.0, 1.0, 0.0, -1.0, 1.0, 2.0])
    """
    assert packed.shape == (wei.shape[0], 1, 1, words(*wei.shape[2:])), packed.shape
    return _compiled(_NAMES[wei.dtype], _NAMES[packed.dtype])(wei, packed)
