"""operands: arrays for a problem that has none: described ones to prepare a plan with, random ones to measure it on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .addends import Addends, finish_type, residual_type
from .bfloat import narrowed
from .problem import DTYPES, Problem, Scaling, parse_scaling

MOST_BYTES = 1 << 31  # of all arrays that are made for one problem


class Operands(NamedTuple):
    """``src``, ``wei`` and ``dst`` as `Plan` takes them, and the bias in the accumulator's type or what else the epilogue reads."""

    src: np.ndarray
    wei: np.ndarray
    dst: np.ndarray
    bias: Any


def _shapes(p: Problem) -> tuple[tuple[int, int, int, int], ...]:
    """Of src, wei and dst."""
    image, kernel, result = (p.n, p.ic, p.ih, p.iw), (p.oc, p.ic // p.g, p.kh, p.kw), (p.n, p.oc, p.oh, p.ow)
    return {"fwd": (image, kernel, result), "bwd_data": (result, kernel, image), "bwd_weight": (image, result, kernel)}[p.op]


def _bias(p: Problem) -> Any:
    bias = np.zeros(p.ic if p.op == "bwd_data" else p.oc, DTYPES[p.acc]) if p.epilogue.startswith("bias") else None
    scaling = parse_scaling(p.epilogue)
    if scaling == Scaling():
        return bias
    ones = np.ones(p.oc, finish_type(p))
    return Addends(bias, ones, ones, np.zeros(_shapes(p)[2], residual_type(p)) if scaling.residual else None)


def described(p: Problem) -> Operands:
    """Operands that have shape, strides and type, but no memory: preparing a plan reads nothing else of ``src`` and ``dst``.

    They must not be read or written, but for the weights, which are all zero and may be packed.

    Raises
    ------
    ValueError
        The packed weights would take more than ``MOST_BYTES``.
    """
    src, wei, dst = _shapes(p)
    size = int(np.prod(wei, dtype=object)) * DTYPES[p.acc].itemsize
    if size > MOST_BYTES:
        raise ValueError(f"the weights of {p} take {size} bytes; at most {MOST_BYTES} are packed without need")
    weights = np.broadcast_to(np.zeros((), DTYPES[p.wei]), wei)
    return Operands(_described(src, p.src, p.src_layout), weights, _described(dst, p.dst, p.src_layout), _bias(p))


def _described(shape: tuple[int, int, int, int], name: str, layout: str) -> np.ndarray:
    order = (0, 2, 3, 1) if layout == "nhwc" else (0, 1, 2, 3)
    strides, step = [0] * 4, DTYPES[name].itemsize
    for axis in reversed(order):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return as_strided(np.zeros(1, DTYPES[name]), shape, strides)


def like(array: np.ndarray) -> np.ndarray:
    """What has an array's shape, strides and type, but no memory; it must not be read or written."""
    return as_strided(np.zeros(1, array.dtype), array.shape, array.strides)


def random(p: Problem) -> Operands:
    """Operands of small whole numbers, made in the problem's types and layout.

    Raises
    ------
    ValueError
        They would take more than ``MOST_BYTES``.
    """
    src, wei, dst = _shapes(p)
    size = sum(int(np.prod(shape, dtype=object)) * DTYPES[name].itemsize for shape, name in ((src, p.src), (wei, p.wei), (dst, p.dst)))
    if size > MOST_BYTES:
        raise ValueError(f"effort must be 'estimate' for arrays of {size} bytes: at most {MOST_BYTES} are measured, of {p}")
    rng = np.random.default_rng(0)

    def array(shape: tuple[int, int, int, int], name: str, layout: str) -> np.ndarray:
        # a pattern repeated, since random numbers of the whole size would be drawn in another type
        pattern = narrowed(rng.integers(0, 9, 8191), DTYPES[name])
        n, c, h, w = shape
        return np.resize(pattern, shape) if layout == "nchw" else np.resize(pattern, (n, h, w, c)).transpose(0, 3, 1, 2)

    weights = array(wei, p.wei, "nchw")
    if p.op == "fwd" and p.structure != "full":
        weights[...] = 1  # of every structure that is worth a measurement
    return Operands(array(src, p.src, p.src_layout), weights, array(dst, p.dst, p.src_layout), _bias(p))
