"""placing: the phases of an image's gradient, computed as channels of one problem, put into place."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch
from ..planning.problem import DTYPES, Problem
from .depthwise_image_tile import finite
from .memory import alternate, integers, peek, poke, unrolled_by_hand
from .simd import KINDS
from .threads import Job, Region

# Rows and columns of a phase, and of the result; bytes between the result's images, channels and rows.
Placed = namedtuple("Placed", "ic sh sw many_y many_x ih iw dn dc dy")


def _placing_factory(kind: str, lanes: int) -> Any:
    """Images ``[n][phase of rows][phase of columns][c][y][x]`` put into place; units of work are (image, channel, row of a phase).

    Columns of the result are side by side.  The addend of each unit becomes whether all that it read is finite.
    """
    size = KINDS[kind][2]

    def place(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Placed)
        for u in range(u0, u1):
            rest, y = u // e.many_y, u % e.many_y
            n, c = rest // e.ic, rest % e.ic
            fits = 1
            for a in range(min(e.sh, e.ih - y * e.sh)):
                to = at.dst + n * e.dn + c * e.dc + (y * e.sh + a) * e.dy
                line = at.src + ((((n * e.sh + a) * e.sw * e.ic + c) * e.many_y + y) * e.many_x) * size
                apart = e.ic * e.many_y * e.many_x * size
                for b in range(e.sw):
                    fits &= finite(kind, lanes, line + b * apart, e.many_x // lanes)
                    for x in range(e.many_x // lanes * lanes, e.many_x):
                        fits &= finite(kind, 1, line + b * apart + x * size, 1)
                first = 0
                if e.sw == 2:
                    first = e.iw // 2
                    alternate(kind, lanes, to, line, line + apart, first)
                for x in range(first * e.sw, e.iw):
                    poke(kind, to + x * size, peek(kind, line + x % e.sw * apart + x // e.sw * size))
            poke(kind, at.bias + u * size, fits)

    return place


def placing(p: Problem, lanes: int, threads: int, many_y: int, many_x: int, sums: np.ndarray, results: np.ndarray) -> Launch:
    """Launch that puts the phases of an image's gradient, of so many rows and columns each, into place.

    Its addends, ``n * ic * many_y``, become whether all that a unit of work read is finite.
    """
    extents = np.array(Placed(p.ic, p.sh, p.sw, many_y, many_x, p.ih, p.iw, *results.strides[:3]), np.int64)
    region, values = Region(f"place_phases_{p.acc}_{lanes}", _placing_factory, (p.acc, lanes), p.acc), np.zeros(8, DTYPES[p.acc])
    seconds, units = 2 * sums.nbytes / costs.BYTES_PER_SECOND, len(results) * p.ic * many_y
    return region.launcher(extents, values, 0, units, threads, seconds, sums, sums, results)
