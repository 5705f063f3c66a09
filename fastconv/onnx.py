"""ONNX's quantised convolutions of images, ConvInteger and QLinearConv: zero points of image, weights and result.

A zero point of the weights is taken from them before they are packed, so it costs nothing at run time; what lies beyond the image is the
image's zero point, which is a 0 to the sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .planning.addends import Addends
from .planning.arguments import as_array, check_choices, check_out, group_count, pair, spans
from .planning.calls import delivered, destination
from .planning.layout import check_channels, paddings
from .planning.planner import plan_problem
from .planning.problem import DTYPES, Problem, dtype_name
from .planning.thread_count import thread_count

__all__ = ["conv_integer", "qlinear_conv"]

_AUTO_PADS = {"VALID": "valid", "SAME_UPPER": "same", "SAME_LOWER": "same_lower"}


def conv_integer(
    x: Any, w: Any, x_zero_point: Any = None, w_zero_point: Any = None, *, auto_pad: str = "NOTSET", dilations: Any = 1, group: int = 1,
    pads: Any = (0, 0, 0, 0), strides: Any = 1, out: np.ndarray | None = None, threads: int | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """``sum (x - x_zero_point) * (w - w_zero_point)`` in int32, as ONNX's ConvInteger of images.

    Parameters
    ----------
    x : array_like of uint8 or int8
        ``(n, c, h, w)``.
    w : array_like of uint8 or int8
        ``(oc, c/group, kh, kw)``.
    x_zero_point : int, optional
        Of x's type; also the value of the padding.
    w_zero_point : int or array_like of shape (oc,), optional
        Of w's type, of the tensor or of each output channel.
    auto_pad : {"NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"}
    dilations, strides : int or (int, int)
    group : int
    pads : (top, left, bottom, right)
        With ``auto_pad="NOTSET"``.
    out : ndarray, optional
    threads, algorithm
        See `fastconv.conv2d`.

    Returns
    -------
    ndarray of int32

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and what is allowed.

    Examples
    --------
    >>> x, w = np.full((1, 1, 2, 2), 130, np.uint8), np.full((1, 1, 3, 3), 127, np.uint8)
    >>> conv_integer(x, w, 128, 128, pads=(1, 1, 1, 1))[0, 0]
    array([[-8, -8],
           [-8, -8]], dtype=int32)
    """
    called = _Call(x, w, x_zero_point, w_zero_point, auto_pad, dilations, group, pads, strides)
    return called.run(called.problem, called.addend(None), out, threads, algorithm)


def qlinear_conv(
    x: Any, x_scale: Any, x_zero_point: Any, w: Any, w_scale: Any, w_zero_point: Any, y_scale: Any, y_zero_point: Any, B: Any = None, *,
    auto_pad: str = "NOTSET", dilations: Any = 1, group: int = 1, pads: Any = (0, 0, 0, 0), strides: Any = 1,
    out: np.ndarray | None = None, threads: int | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """A convolution of quantised images with a quantised result, as ONNX's QLinearConv.

    ``saturate(round((sums + B) * (x_scale * w_scale / y_scale)) + y_zero_point)``, in float32, rounded half to even, with `conv_integer`'s
    sums.

    Parameters
    ----------
    x, w, x_zero_point, w_zero_point
        See `conv_integer`.
    x_scale, y_scale : float
    w_scale : float or array_like of shape (oc,)
    y_zero_point : numpy.uint8 or numpy.int8
        Its type is the result's; a Python int is of x's type.
    B : array_like of int32 and shape (oc,), optional
    auto_pad, dilations, group, pads, strides, out, threads, algorithm
        See `conv_integer`.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and what is allowed.

    Examples
    --------
    >>> x, w = np.full((1, 1, 2, 2), 130, np.uint8), np.full((1, 1, 1, 1), 3, np.int8)
    >>> qlinear_conv(x, 0.5, 128, w, 0.5, 0, 0.25, 100)[0, 0]
    array([[106, 106],
           [106, 106]], dtype=uint8)
    """
    called = _Call(x, w, x_zero_point, w_zero_point, auto_pad, dilations, group, pads, strides)
    oc = called.problem.oc
    kind = getattr(y_zero_point, "dtype", called.x.dtype)
    if kind not in (np.uint8, np.int8):
        raise TypeError(f"y_zero_point must be of uint8 or int8, got {kind}")
    zero = _zero_point("y_zero_point", y_zero_point, kind, 1)[0]
    of_x, of_w, of_y = _scale("x_scale", x_scale, 1), _scale("w_scale", w_scale, oc), _scale("y_scale", y_scale, 1)
    with np.errstate(all="ignore"):
        scale = np.ascontiguousarray(np.broadcast_to(of_x * of_w / of_y, oc))
    bias = None
    if B is not None:
        bias = as_array("B", B)
        if bias.shape != (oc,) or bias.dtype.kind not in "iu":
            raise ValueError(f"B must be integers of shape {(oc,)}, got {bias.dtype} of {bias.shape}")
    words = f"bias+scale+saturate:{zero}" if zero else "bias+scale+saturate"
    p = called.problem.replace(dst=dtype_name(kind), epilogue=words)
    return called.run(p, Addends(called.addend(bias), scale), out, threads, algorithm)


class _Call:
    """A call's arrays and problem, of sums in int32; weights less their zero point."""

    def __init__(
        self, x: Any, w: Any, x_zero_point: Any, w_zero_point: Any, auto_pad: Any, dilations: Any, group: Any, pads: Any, strides: Any
    ) -> None:
        self.x, w = as_array("x", x), as_array("w", w)
        for name, array in (("x", self.x), ("w", w)):
            if array.dtype not in (np.uint8, np.int8):
                raise TypeError(f"{name} must be of uint8 or int8, got {array.dtype}")
            if array.ndim != 4 or 0 in array.shape[1 if name == "x" else 0 :]:
                raise ValueError(f"{name} must have 4 dimensions, none of them empty but the batch, got shape {array.shape}")
        (n, ic, ih, iw), (oc, icg, kh, kw), g = self.x.shape, w.shape, group_count(group)
        check_channels(ic, g, oc, icg, w.shape)
        (sh, sw), (dh, dw) = pair("strides", strides, 1), pair("dilations", dilations, 1)
        (pt, pb), (pl, pr) = _pads(auto_pad, pads, (ih, iw), spans((kh, kw), (dh, dw)), (sh, sw))
        self.zero = int(_zero_point("x_zero_point", x_zero_point, self.x.dtype, 1)[0])
        wide = w.astype(np.int16) - _zero_point("w_zero_point", w_zero_point, w.dtype, oc)[:, None, None, None]
        # those of a zero point near the middle fit into 8 bits again
        self.weights = w if np.array_equal(wide, w) else wide.astype(np.int8)
        if not np.array_equal(self.weights, wide):
            self.weights = wide
        self.problem = Problem(
            n=n, g=g, ic=ic, ih=ih, iw=iw, oc=oc, kh=kh, kw=kw, sh=sh, sw=sw, dh=dh, dw=dw, pt=pt, pb=pb, pl=pl, pr=pr,
            src=dtype_name(self.x.dtype), wei=dtype_name(self.weights.dtype), dst="i32", acc="i32", epilogue="bias",
        )  # fmt: skip

    def addend(self, bias: np.ndarray | None) -> np.ndarray:
        """What the image's zero point takes from the sums, and the bias; it wraps, as they do."""
        taken = -self.zero * self.weights.sum((1, 2, 3), dtype=np.int64)
        return (taken if bias is None else taken + bias.astype(np.int64)).astype(np.int32)

    def run(self, p: Problem, addends: Any, out: Any, threads: Any, algorithm: Any) -> np.ndarray:
        """The result of a problem of these arrays."""
        check_choices("default")
        shape, dtype = (p.n, p.oc, p.oh, p.ow), DTYPES[p.dst]
        if out is not None:
            check_out(out, shape, dtype)
        dst = destination(out, shape, dtype, self.x, self.weights)
        if dst.size:
            plan = plan_problem(p, threads=thread_count(threads), algorithm=algorithm)
            plan.run(self.x, plan.pack(self.weights), addends, dst, self.zero)
        return delivered(dst, out)


def _zero_point(name: str, value: Any, dtype: Any, channels: int) -> np.ndarray:
    """Of a type's values, as int16: one, or one for each channel."""
    array = as_array(name, 0 if value is None else value)
    limits = np.iinfo(dtype)
    if array.dtype.kind not in "iu" or not ((limits.min <= array) & (array <= limits.max)).all():
        raise ValueError(f"{name} must be an integer of {dtype}, or of its tensor's type, got {value!r}")
    if array.shape not in ((), (1,), (channels,)):
        raise ValueError(f"{name} must be a scalar{f' or of shape {(channels,)}' * (channels > 1)}, got shape {array.shape}")
    return array.astype(np.int16).reshape(-1)


def _scale(name: str, value: Any, channels: int) -> np.ndarray:
    array = as_array(name, value)
    if array.dtype.kind not in "iuf" or array.shape not in ((), (1,), (channels,)):
        raise ValueError(
            f"{name} must be a real scalar{f' or of shape {(channels,)}' * (channels > 1)}, got {array.dtype} of {array.shape}"
        )
    return array.astype(np.float32).reshape(-1)


def _pads(auto_pad: Any, pads: Any, image: tuple[int, int], span: tuple[int, int], stride: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """``((top, bottom), (left, right))``."""
    if not isinstance(auto_pad, str) or auto_pad not in ("NOTSET", *_AUTO_PADS):
        raise ValueError(f"auto_pad must be one of 'NOTSET', {', '.join(map(repr, _AUTO_PADS))}, got {auto_pad!r}")
    if auto_pad != "NOTSET":
        return paddings(_AUTO_PADS[auto_pad], image, span, stride)
    try:
        top, left, bottom, right = pads
    except (TypeError, ValueError):
        raise TypeError(f"pads must be four ints (top, left, bottom, right), got {pads!r}") from None
    return pair("pads", (top, bottom), 0), pair("pads", (left, right), 0)
