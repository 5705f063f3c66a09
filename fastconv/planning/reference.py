"""reference: the formula of :class:`Problem` in NumPy alone, a loop over taps that adds shifted slices.

Any dtype, layout, border, op and order; the last candidate on every list, and slow.  Order of accumulation per output where the
problem leaves it open: ``ky``, then ``kx``, then NumPy's order over the channels of a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import cost as costs
from .addends import bias_of, scaled
from .bfloat import store, widened
from .plans import Plan
from .problem import DTYPES, OPS, ORDERS, ROUNDINGS, Problem, border_indices, not_computed, parse_epilogue, parse_scaling

CASES = "every problem"


def reject(p: Problem, t: Any) -> str | None:
    """None: nothing is refused except what no algorithm knows."""
    return not_computed(p, *OPS, orders=ORDERS, roundings=(None, *ROUNDINGS), scalings=p.op == "fwd", halves=True, bfloat=True)


def cost(p: Problem, t: Any) -> float:
    """Passes over all results, one for each tap, and their arithmetic."""
    return costs.reference_seconds(p)


def most_kernels(t: Any) -> int:
    """None: it compiles nothing."""
    return 0


def build(p: Problem, t: Any, plan: Any, threads: int = 1) -> Plan:
    """A plan that keeps no workspace; weights are kept as they are."""
    return Plan(problem=p, algorithm="reference", kernel="numpy", cost=cost(p, t), pack_weights=_pack, run_arrays=_RUNS[p.op])


def _pack(p: Problem, wei: np.ndarray) -> np.ndarray:
    return wei.astype(DTYPES[p.acc], copy=True)


def _slices(p: Problem, src: np.ndarray, fill: Any, ky: int, kx: int) -> np.ndarray:
    """``[n, g, ic/g, oh, ow]``: the pixel under tap (ky, kx) of every output, in the accumulator's type."""
    rows = border_indices(ky * p.dh - p.pt, p.oh, p.sh, p.ih, p.border)
    cols = border_indices(kx * p.dw - p.pl, p.ow, p.sw, p.iw, p.border)
    pixels = widened(src[:, :, rows[:, None], cols]).astype(DTYPES[p.acc], copy=False)
    if p.border == "constant":
        pixels[:, :, rows < 0, :] = fill
        pixels[:, :, :, cols < 0] = fill
    return pixels.reshape(p.n, p.g, p.ic // p.g, p.oh, p.ow)


def _sum_channels(wei: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """``[n, g, o, oh, ow] = sum_c wei[g, o, c] * pixels[n, g, c, oh, ow]``; no BLAS, so integers wrap and NaN stays local."""
    if wei.shape[2] == 1:
        return wei[None, :, :, 0, None, None] * pixels
    return np.einsum("goc,ngchw->ngohw", wei, pixels)


def _forward(p: Problem, src: np.ndarray, wei: np.ndarray, bias: np.ndarray | None, dst: np.ndarray, fill: Any) -> None:
    acc_type = DTYPES[p.acc]
    wei = wei.astype(acc_type, copy=False).reshape(p.g, p.oc // p.g, p.ic // p.g, p.kh, p.kw)
    acc = np.zeros((p.n, p.g, p.oc // p.g, p.oh, p.ow), acc_type)
    with np.errstate(all="ignore"):
        for ky, kx, pixels in _terms(p, src, fill):
            acc += _sum_channels(wei[..., ky, kx], pixels)
        result = acc.reshape(p.n, p.oc, p.oh, p.ow)
        addend = bias_of(bias)
        if addend is not None:
            result += addend.astype(acc_type, copy=False)[:, None, None]
        finish(p, result, bias, dst)


def finish(p: Problem, sums: np.ndarray, addends: Any, dst: np.ndarray) -> None:
    """Write what the epilogue makes of sums with their bias."""
    result = activate(p.epilogue, scaled(p, sums, addends))
    rounding = parse_epilogue(p.epilogue).rounding
    if rounding:
        result = rounded(rounding, result, dst.dtype, parse_scaling(p.epilogue).zero)
    store(dst, result)


def _terms(p: Problem, src: np.ndarray, fill: Any) -> Iterator[tuple[int, int, np.ndarray]]:
    """(ky, kx, what the tap is multiplied with) in the problem's order."""
    if not p.order.endswith("symmetric"):
        places = list(np.ndindex(p.kh, p.kw))
        for ky, kx in places[-1:] + places[:-1] if p.order == "last" else places:
            yield ky, kx, _slices(p, src, fill, ky, kx)
        return
    last = p.kh - 1, p.kw - 1
    middle = last[0] // 2, last[1] // 2
    yield *middle, _slices(p, src, fill, *middle)
    for ky, kx in np.ndindex(p.kh, p.kw):
        if (ky, kx) < middle:
            before, after = _slices(p, src, fill, ky, kx), _slices(p, src, fill, last[0] - ky, last[1] - kx)
            yield ky, kx, before + after if p.order == "symmetric" else before - after


def activate(epilogue: str, x: np.ndarray) -> np.ndarray:
    """The activation of ``epilogue`` applied to ``x``; the input itself where there is none.

    gelu is the exact form x Phi(x), as torch's default.
    """
    _, name, slope, _ = parse_epilogue(epilogue)
    one = x.dtype.type(1)
    if name is None:
        return x
    if name == "relu":
        return np.where(x < 0, 0 * one, x)
    if name == "relu6":
        return np.where(x < 0, 0 * one, np.where(x > 6, 6 * one, x))
    if name == "leaky_relu":
        return np.where(x < 0, x.dtype.type(slope) * x, x)
    if name == "tanh":
        return np.tanh(x)
    from scipy import special  # 30 ms that only its callers pay

    if name == "gelu":
        wide = np.result_type(x.dtype, np.float32)  # special.ndtr has no longdouble; its error is float64's there
        return x * special.ndtr(x.astype(np.float64) if wide.itemsize > 8 else x)
    return special.expit(x) * (x if name == "silu" else one)


def rounded(rounding: str, values: np.ndarray, dtype: np.dtype[Any], zero: int = 0) -> np.ndarray:
    """Floats in an integer type: rounded half to even (``saturate``) or half up (``half_up``), then clipped; NaN becomes 0.

    ``zero`` is added before it is clipped.

    Examples
    --------
    >>> x = np.array([-3.0, 0.5, 1.5, 254.5, 999.0])
    >>> rounded("saturate", x, np.dtype("u1")), rounded("half_up", x, np.dtype("u1"))
    (array([  0,   0,   2, 254, 255], dtype=uint8), array([  0,   1,   2, 255, 255], dtype=uint8))
    """
    limits = np.iinfo(dtype)
    whole = np.rint(values) if rounding == "saturate" else np.floor(values + values.dtype.type(1 / 2))
    if zero:
        whole = np.where(np.isnan(whole), 0, whole) + values.dtype.type(zero)
    above = whole >= float(limits.max)  # as a float, the largest of 64 bits is one too large to convert
    inside = np.where(above | np.isnan(whole), 0, np.maximum(whole, float(limits.min)))
    result: np.ndarray = inside.astype(dtype)
    result[above] = limits.max
    return result


def _backward_data(p: Problem, src: np.ndarray, wei: np.ndarray, bias: Any, dst: np.ndarray, fill: Any) -> None:
    """``dst[n, ic, ih, iw]`` = the gradient of the image, where ``src[n, oc, oh, ow]`` is that of the result."""
    acc_type = DTYPES[p.acc]
    grad = src.astype(acc_type, copy=False).reshape(p.n, p.g, p.oc // p.g, p.oh, p.ow)
    wei = wei.astype(acc_type, copy=False).reshape(p.g, p.oc // p.g, p.ic // p.g, p.kh, p.kw).swapaxes(1, 2)
    acc = np.zeros((p.n, p.ic, p.ih, p.iw), acc_type)
    with np.errstate(all="ignore"):
        for ky in range(p.kh):
            rows = border_indices(ky * p.dh - p.pt, p.oh, p.sh, p.ih, p.border)
            for kx in range(p.kw):
                cols = border_indices(kx * p.dw - p.pl, p.ow, p.sw, p.iw, p.border)
                part = _sum_channels(wei[..., ky, kx], grad).reshape(p.n, p.ic, p.oh, p.ow)
                part = part[:, :, rows >= 0][..., cols >= 0]
                where: Any = slice(None), slice(None), rows[rows >= 0][:, None], cols[cols >= 0]
                np.add.at(acc, where, part)
        if bias is not None:
            acc += bias.astype(acc_type, copy=False)[:, None, None]
        np.copyto(dst, activate(p.epilogue, acc), casting="unsafe")


def _backward_weight(p: Problem, src: np.ndarray, wei: np.ndarray, bias: Any, dst: np.ndarray, fill: Any) -> None:
    """``dst[oc, ic/g, kh, kw]`` = the gradient of the weights, from the image ``src`` and the result's gradient ``wei``."""
    acc_type = DTYPES[p.acc]
    grad = wei.astype(acc_type, copy=False).reshape(p.n, p.g, p.oc // p.g, p.oh, p.ow)
    with np.errstate(all="ignore"):
        for ky in range(p.kh):
            for kx in range(p.kw):
                part = np.einsum("ngohw,ngchw->goc", grad, _slices(p, src, fill, ky, kx))
                dst[:, :, ky, kx] = part.reshape(p.oc, p.ic // p.g)


_RUNS = {"fwd": _forward, "bwd_data": _backward_data, "bwd_weight": _backward_weight}
