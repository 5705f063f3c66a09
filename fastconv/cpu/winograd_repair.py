"""winograd_repair: blocks of results that no transform can compute, marked by a kernel, are done again by direct sums."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem
from ..planning.winograd_points import pixels_of
from .winograd_frame import BEYOND, OUTSIDE, sources, stride_of
from .winograd_pack import weights_of

_PATCHES = 16  # blocks of one call of direct sums


def patch_of(p: Problem, m: int) -> Problem:
    """What direct sums compute at once: the pixels of some blocks."""
    stride, reads = stride_of(p), pixels_of(m, stride_of(p))
    return p.replace(n=_PATCHES, ih=reads, iw=reads, sh=stride, sw=stride, pt=0, pb=0, pl=0, pr=0, border="constant", precision="strict",
                     src_layout="nchw")  # fmt: skip


def repaired_blocks(p: Problem, m: int, child: Plan, fill: Any, bind: Callable[[np.ndarray], Launch], given: bool) -> Launch:
    """A launch of ``bind(flags)``, which marks blocks in ``flags``, and of `patch_of`'s plan for them.

    ``flags`` are a number that is not 0 if some block is marked, then ``[n][block row][block column]``.  Launches get weights as they are,
    ``given``, by groups or not, or packed with these behind.
    """
    rows, columns = -(-p.oh // m), -(-p.ow // m)

    def state() -> tuple[np.ndarray, Launch]:
        flags = np.zeros(1 + p.n * rows * columns, np.int64)
        return flags, bind(flags)

    # one for each of the threads that run this launch at once
    idle = deque([state()], maxlen=4)

    def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
        try:
            found = idle.pop()
        except IndexError:
            found = state()
        flags, run = found
        run(src, packed, bias, dst)
        if flags[0]:
            wei = packed.reshape(p.oc, p.ic // p.g, p.kh, p.kw) if given else weights_of(p, packed)
            wrong = np.argwhere(flags[1:].reshape(p.n, rows, columns))
            _repair(p, m, child, wrong, src, wei, bias, dst, fill)
            flags[:] = 0
        idle.append(found)

    return launch


def _repair(
    p: Problem, m: int, child: Plan, wrong: np.ndarray, src: np.ndarray, wei: np.ndarray, bias: np.ndarray | None, dst: np.ndarray,
    fill: Any,
) -> None:  # fmt: skip
    """Direct sums for the blocks at ``wrong``, rows of (image, block row, block column)."""
    dtype = DTYPES[p.acc]
    own, step, reads = child.pack(wei), m * stride_of(p), pixels_of(m, stride_of(p))
    rows, columns = sources(p, m)
    patches = np.zeros((_PATCHES, p.ic, reads, reads), dtype)
    results = np.empty((_PATCHES, p.oc, m, m), dtype)
    run = child.prepare(patches, own, results)
    for first in range(0, len(wrong), _PATCHES):
        chunk = wrong[first : first + _PATCHES]
        for patch, (n, ty, tx) in zip(patches, chunk, strict=False):
            down, across = rows[ty * step : ty * step + reads], columns[tx * step : tx * step + reads]
            patch[...] = src[n][:, np.maximum(down, 0)[:, None], np.maximum(across, 0)]
            for places, axis in ((down, 1), (across, 2)):
                outside = np.moveaxis(patch, axis, 0)
                outside[places == OUTSIDE] = fill
            for places, axis in ((down, 1), (across, 2)):
                np.moveaxis(patch, axis, 0)[places == BEYOND] = 0
        run(patches, own, bias, results)
        for result, (n, ty, tx) in zip(results, chunk, strict=False):
            to = dst[n, :, ty * m : ty * m + m, tx * m : tx * m + m]
            to[...] = result[:, : to.shape[1], : to.shape[2]]
