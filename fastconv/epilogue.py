"""Epilogue: what `conv2d` applies to its sums besides bias: scale, shift, residual, activation, type."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .planning.arguments import as_array, check_out
from .planning.calls import delivered
from .planning.problem import ACTIVATIONS, dtype_name
from .planning.reference import activate, rounded


@dataclass(frozen=True, eq=False)
class Epilogue:
    """``activation(sums * scale + shift + residual)``, rounded half to even and saturated where ``dtype`` is an integer type.

    Parameters
    ----------
    scale, shift : array_like of shape (oc,) or scalar, optional
    residual : array_like of the result's shape, optional
    activation : str or ("leaky_relu", slope), optional
    dtype : dtype, optional
        Of the result; that of the sums by default.  NaN becomes 0 in an integer type.

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


def activation_text(activation: Any, dtype: np.dtype[Any]) -> str:
    """The problem's text of an ``activation`` argument, ``""`` for None.

    Raises
    ------
    ValueError, TypeError
        An unknown one, or one that is not defined for sums of ``dtype``.
    """
    if activation is None:
        return ""
    name, slope = activation if isinstance(activation, tuple) and len(activation) == 2 else (activation, None)
    if not isinstance(name, str) or name not in ACTIVATIONS or (name == "leaky_relu") != isinstance(slope, numbers.Real):
        names = ", ".join(repr(a) for a in ACTIVATIONS if a != "leaky_relu")
        raise ValueError(f"activation must be None, {names} or ('leaky_relu', slope), got {activation!r}")
    if dtype.kind == "c" or (dtype.kind in "iu" and name not in ("relu", "relu6")):
        raise TypeError(f"activation {name!r} is not defined for a result of dtype {dtype}")
    return name if slope is None else f"{name}:{float(slope)!r}".replace("e+", "e")


def epilogue_text(bias: bool, activation: Any, dtype: np.dtype[Any]) -> str:
    """The problem's ``epilogue`` of a call with or without bias, and with this ``activation`` argument.

    Raises
    ------
    ValueError, TypeError
        As `activation_text`.
    """
    return "+".join(filter(None, ("bias" if bias else "", activation_text(activation, dtype))))


def saturate(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Integers or floats in an integer type: rounded half to even, then clipped; NaN becomes 0.

    Examples
    --------
    >>> saturate(np.array([-3.0, 0.5, 1.5, 254.5, 999.0]), np.dtype("u1"))
    array([  0,   0,   2, 254, 255], dtype=uint8)
    """
    if values.dtype.kind not in "iub":
        return rounded("saturate", values, dtype)
    if values.dtype.kind == "b" or np.can_cast(values.dtype, dtype):
        return values.astype(dtype)
    limits, own = np.iinfo(dtype), np.iinfo(values.dtype)
    return np.clip(values, max(limits.min, own.min), min(limits.max, own.max)).astype(dtype)


def finisher(
    epilogue: Any, shape: tuple[int, ...], sums: np.dtype[Any], layout: str, out: np.ndarray | None
) -> Callable[[np.ndarray], np.ndarray]:
    """What applies an epilogue to sums of this shape, type and layout (``nchw | nhwc``); everything is checked here.

    Raises
    ------
    TypeError, ValueError
        Naming the field of the epilogue, its value and what is allowed.
    """
    if not isinstance(epilogue, Epilogue):
        raise TypeError(f"epilogue must be an Epilogue or None, got {type(epilogue).__name__}")
    values: dict[str, np.ndarray] = {}
    kind = sums
    for name in ("scale", "shift", "residual"):
        if getattr(epilogue, name) is None:
            continue
        value = as_array(name, getattr(epilogue, name))
        if name == "residual":
            if value.shape != shape:
                raise ValueError(f"residual must have the result's shape {shape}, got {value.shape}")
        elif value.ndim:
            oc = 1 if len(shape) == 2 else shape[-3 if layout == "nchw" else -1]
            if value.shape != (oc,):
                raise ValueError(f"{name} must be a scalar or of shape {(oc,)}, got {value.shape}")
            value = value.reshape(-1, 1, 1) if layout == "nchw" and len(shape) > 2 else value
        values[name] = value
        kind = np.result_type(kind, value.dtype)
    text = activation_text(epilogue.activation, kind)
    dtype = np.dtype(epilogue.dtype if epilogue.dtype is not None else sums)
    dtype_name(dtype)
    if kind.kind == "c" and dtype.kind != "c":
        raise TypeError(f"dtype of the epilogue must be complex for complex sums, got {dtype}")
    if out is not None:
        check_out(out, shape, dtype)

    def finish(y: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            for name, value in values.items():
                y = y * value if name == "scale" else y + value
            y = activate(text, y)
            y = saturate(y, dtype) if dtype.kind in "iu" else y.astype(dtype, copy=False)
        return delivered(np.ascontiguousarray(y) if out is None else y, out)

    return finish
