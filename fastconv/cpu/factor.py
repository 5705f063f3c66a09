"""factor: what is proven about a kernel's weights, and the two vectors of a rank-1 kernel; compiled, since every call may ask."""

from __future__ import annotations

import functools
from math import frexp, ldexp
from typing import Any

import numpy as np
from numba import types

from .compile import compiled
from .simd import KINDS

FOUND = ("full", "rank1", "box")  # what `factor` returns, as a place in this list
_EXACT = 1 << 24  # ratios of a row's weights up to this are exact in float32


def _factory(eps: int, kind: str) -> Any:
    """The test for an accumulator whose epsilon is ``2**-eps``."""
    tolerance = 4 / (1 << eps)

    def factor(wei: Any, packed: Any) -> Any:
        filters, _, kh, kw = wei.shape
        boxes = True
        for o in range(filters):
            peak, py, px = 0.0, 0, 0
            for y in range(kh):
                for x in range(kw):
                    size = abs(float(wei[o, 0, y, x]))
                    if not size < np.inf:
                        return 0
                    if size > peak:
                        peak, py, px = size, y, x
                    boxes = boxes and wei[o, 0, y, x] == wei[o, 0, 0, 0]
            row, column = packed[o, 0, 0, kh:], packed[o, 0, 0, :kh]
            if peak == 0:
                packed[o] = 0
                continue
            pivot = float(wei[o, 0, py, px])
            # the row's common divisor makes both vectors whole where the weights are, up to a power of two
            divisor = 0.0
            for x in range(kw):
                rest = abs(float(wei[o, 0, py, x]))
                while rest > peak / _EXACT:
                    divisor, rest = rest, divisor % rest
                if rest != 0:
                    divisor = 0.0
                    break
            scale = divisor if divisor > 0 else abs(pivot)
            # the largest of the row in [1, 2): sums of a column are no larger than those of the direct formula's largest column
            shift = frexp(peak / scale)[1] - 1
            ratio = ldexp(pivot / scale, -shift)
            for x in range(kw):
                row[x] = ldexp(float(wei[o, 0, py, x]) / scale, -shift)
            for y in range(kh):
                column[y] = float(wei[o, 0, y, px]) / ratio
            for y in range(kh):
                for x in range(kw):
                    w = float(wei[o, 0, y, x])
                    if not abs(w - float(column[y]) * float(row[x])) <= tolerance * abs(w):
                        return 0
        return 2 if boxes else 1

    return factor


@functools.cache
def _compiled(wei: str, acc: str) -> Any:
    number = KINDS[acc][1]
    given = types.Array(KINDS[wei][1], 4, "A", readonly=True)
    signature = types.int64(given, types.Array(number, 4, "C"))
    name = f"factor_{wei}_{acc}"
    (result,) = compiled(name, _factory, (23 if acc == "f32" else 52, wei), signature).overloads.values()
    return result.entry_point


def factor(wei: np.ndarray, packed: np.ndarray) -> int:
    """Write the vectors of rank-1 filters, and tell what the filters are: a place in :data:`FOUND`.

    ``packed[o, 0, 0]`` becomes ``kh`` factors of the rows, then ``kw`` of the columns, with
    ``|wei[o, 0, y, x] - packed[y] * packed[kh + x]| <= 4 eps |wei[o, 0, y, x]|`` in the epsilon of ``packed``'s type: for every tap
    of every filter, or the answer is ``full`` and what was written is of no use.  Zero weights have products that are exactly zero;
    weights that are whole numbers times a power of two, and exact in float32, have exact ones.  ``rank1`` and ``box`` (all weights of all
    filters are equal) are finite.

    Parameters
    ----------
    wei : ndarray (oc, 1, kh, kw)
        float32 or float64, native, of any strides.
    packed : ndarray (oc, 1, 1, kh + kw)
        float32 or float64, C-contiguous.

    Examples
    --------
    >>> wei, packed = np.outer([1, 2, 1], [1.0, 0, -1])[None, None], np.empty((1, 1, 1, 6), "f4")
    >>> FOUND[factor(wei, packed)], packed.ravel().tolist()
    ('rank1', [1.0, 2.0, 1.0, 1.0, 0.0, -1.0])
    """
    return _compiled(f"f{8 * wei.itemsize}", f"f{8 * packed.itemsize}")(wei, packed)
