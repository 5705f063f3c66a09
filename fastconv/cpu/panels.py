"""panels: what the kernels of the weights' gradient have in common: their types, which pixels panels hold, images in turn."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Any, NamedTuple

import numpy as np

from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, not_computed


def not_summed(p: Problem, transforms: bool = False) -> str | None:
    """Why none of them computes a problem, or None: they sum products of float32 or of float64 in that type, and finish nothing."""
    reason = not_computed(p, "bwd_weight", transforms=transforms)
    if reason is not None:
        return reason
    if p.acc not in ("f32", "f64") or not p.src == p.wei == p.dst == p.acc:
        return f"sums products of f32 or f64 in the same type, not {p.src} and {p.wei} in {p.acc} for {p.dst}"
    return f"does not fuse {p.epilogue}" if p.epilogue else None


class Steps(NamedTuple):
    """What a panel holds: of the padded image every g-th row and, unless expanded, gx-th column; results q rows and qx columns apart."""

    g: int
    gx: int
    q: int
    qx: int
    down: int  # rows between two taps
    across: int  # columns
    kh_rows: int  # rows that one output row reads
    positions: int  # of a row


def steps_between(p: Problem, expanded: bool = False) -> Steps:
    """The steps of a problem; ``expanded``: a row is packed anew for each column of the kernel."""
    # between the taps of one row or column of results, and the results of one tap, nothing is read
    sh, sw = (p.sh if p.oh > 1 else p.dh), (p.sw if p.ow > 1 else p.dw)
    dh, dw = (p.dh if p.kh > 1 else sh), (p.dw if p.kw > 1 else sw)
    g, gx = gcd(sh, dh), gcd(sw, dw)
    kh_rows = (p.kh - 1) * (dh // g) + 1
    if expanded:
        return Steps(g, sw, sh // g, 1, dh // g, 0, kh_rows, p.ow)
    return Steps(g, gx, sh // g, sw // gx, dh // g, dw // gx, kh_rows, (p.ow - 1) * (sw // gx) + (p.kw - 1) * (dw // gx) + 1)


def in_turn(p: Problem, most: int, launch_of: Callable[[int, int, np.ndarray, np.ndarray, np.ndarray, Any], Launch]) -> Any:
    """A plan's ``prepare_launch`` that runs ``most`` images at a time, the sums going on in the result.

    ``launch_of(images, resume, src, grad, dst, fill)`` prepares a launch for arrays of the sums' type.
    """
    dtype = DTYPES[p.acc]

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        foreign = [array.dtype != dtype for array in (src, packed, dst)]
        if 0 < p.n <= most and not any(foreign):
            return launch_of(p.n, 0, src, packed, dst, fill)
        launches: dict[tuple[int, bool], Launch] = {}

        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            if not p.n:
                dst[...] = 0
                return
            result = np.empty(dst.shape, dtype) if foreign[2] else dst
            for first in range(0, p.n, most):
                arrays = src[first : first + most], packed[first : first + most]
                # byte-swapped arrays, a launch's images at a time
                image, grad = (array.astype(dtype) if odd else array for array, odd in zip(arrays, foreign, strict=False))
                key = len(image), first > 0
                if key not in launches:
                    launches[key] = launch_of(*key, image, grad, result, fill)
                launches[key](image, grad, None, result)
            if foreign[2]:
                dst[...] = result

        return launch

    return prepare


def beside_in_turn(p: Problem, most: int, launch_of: Callable[[int, int, np.ndarray, np.ndarray, np.ndarray, Any], Launch]) -> Any:
    """As `in_turn`, for kernels that read channels side by side: arrays in which they are not are copied."""
    turns = in_turn(p, most, launch_of)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if src.strides[1] == src.itemsize and packed.strides[1] == packed.itemsize:
            launch: Launch = turns(own, src, packed, dst, fill)
            return launch
        copied: Launch = turns(own, _beside(src), _beside(packed), dst, fill)
        return lambda src, packed, bias, dst: copied(_beside(src), _beside(packed), None, dst)

    return prepare


def _beside(images: np.ndarray) -> np.ndarray:
    """A copy whose channels lie side by side."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
