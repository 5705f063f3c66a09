"""Epilogue: what `conv2d` applies to its sums besides bias: scale, shift, residual, activation, type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .planning.arguments import as_array, aside, check_out
from .planning.problem import dtype_name
from .planning.reference import activate


@dataclass(frozen=True, eq=False)
class Epilogue:
    """``activation(sums * scale + shift + residual)``, rounded half to even and saturated where ``dtype`` is an integer type.

    Parameters
    ----------
    scale, shift : array_like of shape (oc,) or scalar, optional
    residual : array_like of the result's shape, optional
    activation : str or ("leaky_relu", slope), optional
    dtype : dtype, optional
        Of the result; that of the sums by default.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.conv2d(np.ones((3, 3)), np.ones((3, 3)), epilogue=Epilogue(scale=100.0, dtype="u1"))
    array([[255]], dtype=uint8)
    """

    scale: Any = None
    shift: Any = None
    residual: Any = None
    activation: Any = None
    dtype: Any = None


def apply_epilogue(epilogue: Epilogue, sums: np.ndarray, layout: str, out: np.ndarray | None, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
    """The epilogue of sums in ``layout`` (``nchw`` or ``nhwc``; a plane has one channel)."""
    y = sums
    channels = -3 if layout == "nchw" else -1
    for name in ("scale", "shift", "residual"):
        value = getattr(epilogue, name)
        if value is None:
            continue
        value = as_array(name, value)
        if name == "residual":
            if value.shape != sums.shape:
                raise ValueError(f"residual must have the result's shape {sums.shape}, got {value.shape}")
        elif value.ndim:
            oc = 1 if sums.ndim == 2 else sums.shape[channels]
            if value.shape != (oc,):
                raise ValueError(f"{name} must be a scalar or of shape {(oc,)}, got {value.shape}")
            value = value.reshape(-1, 1, 1) if layout == "nchw" and sums.ndim > 2 else value
        y = y * value if name == "scale" else y + value
    if epilogue.activation is not None:
        name, slope = epilogue.activation if isinstance(epilogue.activation, tuple) else (epilogue.activation, None)
        y = activate(name if slope is None else f"{name}:{slope}", y)
    dtype = np.dtype(epilogue.dtype if epilogue.dtype is not None else sums.dtype)
    dtype_name(dtype)
    if out is not None:
        check_out(out, sums.shape, dtype)
    if dtype.kind in "iu" and y.dtype.kind == "f":
        limits = np.iinfo(dtype)
        y = np.clip(np.rint(y), limits.min, limits.max)
    if out is None:
        return np.ascontiguousarray(y.astype(dtype, copy=False))
    np.copyto(out, y.copy() if aside(out, *inputs) else y, casting="unsafe")
    return out
