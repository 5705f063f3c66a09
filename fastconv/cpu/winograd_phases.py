"""winograd_phases: what the algorithms of F(4, r) down the rows share: phases of the stride, packed weights, who computes the rest.

An image with a group of rows whose transformed pixels are not finite, so large that a sum could overflow, or so tiny that it could
underflow, is computed by the plan made under ``precision="strict"``, and so are all where weights are not finite or out of range.
"""

from __future__ import annotations

import functools
import itertools
from math import ceil
from typing import Any

import numpy as np

from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem
from ..planning.winograd_points import ROW_TAPS, ROWS, row_amplification, row_matrices
from .planes import steps

HEAD = 16  # elements before the packed weights: whether they may be transformed
MOST_EXPONENT = 30  # of sum|w| of a filter, and of its inverse
_SPARE_EXPONENT = 40  # of the largest transformed pixel: what sums and transforms add to it, or take from the smallest


def phase_taps(p: Problem) -> list[int]:
    """Rows of taps of each phase, the most first."""
    sh = steps(p)[0]
    return [len(range(py, p.kh, sh)) for py in range(sh)]


def too_few_or_many_taps(p: Problem) -> str | None:
    """Why no transform takes the rows of taps, or None."""
    taps, (_, _, dh, _) = phase_taps(p), steps(p)
    if not 2 <= taps[0] <= ROW_TAPS or dh > 1:
        return f"for 2 to {ROW_TAPS} dense rows of taps of each phase of the stride, not {p.kh} of stride {p.sh} and dilation {p.dh}"
    return None


def counts(p: Problem) -> tuple[int, int]:
    """Terms of the sums of all points, and transformed rows of a channel and phase of columns."""
    made = sum(ROWS + taps - 1 for taps in phase_taps(p))
    return p.ic // p.g * p.kw * made, made


def most_terms(p: Problem) -> int:
    """K: of the sum of one point, to which all phases come."""
    return p.ic // p.g * p.kw * len(phase_taps(p))


def most_error(p: Problem) -> int:
    """C of the error bound."""
    return ceil(row_amplification(phase_taps(p)[0]) * (most_terms(p) + 20))


def places(p: Problem) -> tuple[list[int], list[list[tuple[int, int]]]]:
    """The place of each phase's first transformed row; for each point the phases that it has a sum of, and which of their rows that is.

    Infinity is the last of each phase, and of all.
    """
    taps = phase_taps(p)
    made = [ROWS + r - 1 for r in taps]
    firsts = [sum(made[:py]) for py in range(len(made))]
    last = made[0] - 1
    return firsts, [[(py, a if a < last else count - 1) for py, count in enumerate(made) if a < count - 1 or a == last]
                    for a in range(made[0])]  # fmt: skip


@functools.cache
def transformed_taps(kh: int, sh: int) -> np.ndarray:
    """What each transformed row of taps, ``[point, phase]``, is of the rows of taps."""
    p = Problem(kh=kh, sh=sh, ih=kh + sh, oc=1)
    points = places(p)[1]
    made = np.zeros((sum(map(len, points)), kh))
    for to, (py, row) in zip(made, itertools.chain(*points), strict=True):
        to[py::sh] = row_matrices(phase_taps(p)[py]).weights[row]
    return made


def packed_weights(p: Problem, wei: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """``(1, 1, 1, n)``: a head, place for ``count`` elements, and the weights as they are, which come second, too."""
    dtype = DTYPES[p.acc]
    packed = np.empty(HEAD + count + wei.size, dtype)
    with np.errstate(all="ignore"):
        given = packed[HEAD + count :].reshape(wei.shape)
        given[...] = wei
        totals = np.abs(given).reshape(p.oc, -1).sum(1, dtype=np.float64)
    fits = ((totals >= np.ldexp(1, -MOST_EXPONENT)) & (totals <= np.ldexp(1, MOST_EXPONENT))) | (totals == 0)
    packed[:HEAD] = fits.all()
    return packed.reshape(1, 1, 1, -1), given


def put_limits(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """The scalars of a run with the largest and the least magnitude of transformed pixels behind the first six."""
    limits = np.finfo(dtype)
    values[6:] = np.ldexp(limits.max, -_SPARE_EXPONENT), np.ldexp(limits.tiny, _SPARE_EXPONENT + MOST_EXPONENT)
    return values


def repaired(p: Problem, transformed: Launch, child: Plan, fill: Any, given: bool = False) -> Launch:
    """A launch that leaves to the child what the transform cannot compute.

    Behind the addends of all output channels ``transformed`` finds a number for each image, to be set where none of it can be computed.
    Weights are packed as `packed_weights` says, or as they are, ``given``: whether they may be transformed is then for it to find.
    """
    dtype = DTYPES[p.acc]

    def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
        addends = np.zeros(p.oc + p.n, dtype)
        if bias is not None:
            addends[: p.oc] = bias
        failed = addends[p.oc :]
        if given or packed[0, 0, 0, 0]:
            transformed(src, packed, addends, dst)
        else:
            failed[:] = 1
        if failed.any():
            own = packed if given else packed.reshape(-1)[-p.oc * p.taps :].reshape(p.oc, p.ic // p.g, p.kh, p.kw)
            weights = child.pack(own)
            for n in np.flatnonzero(failed):
                child.run(src[n : n + 1], weights, bias, dst[n : n + 1], fill)

    return launch
