"""Checks that several dialects need: each raises one exception naming the argument, its value and what is allowed."""

from __future__ import annotations

from typing import Any

import numpy as np

from .problem import PRECISIONS


def pair(name: str, value: Any, least: int) -> tuple[int, int]:
    """An int, or two of them (rows, columns), as two ints of at least ``least``.

    Examples
    --------
    >>> pair("stride", (2, 1), 1)
    (2, 1)
    """
    both = (value, value) if hasattr(value, "__index__") and not isinstance(value, bool) else value
    try:
        first, second = both
        result = first.__index__(), second.__index__()
    except (TypeError, ValueError, AttributeError):
        raise TypeError(f"{name} must be an int or a pair of ints, got {value!r}") from None
    if isinstance(first, bool) or isinstance(second, bool):
        raise TypeError(f"{name} must be an int or a pair of ints, got {value!r}")
    if min(result) < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    return result


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """``out`` is a writeable array of exactly this shape and type with positive strides."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy.ndarray, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, got {out.shape}")
    if out.dtype != dtype:
        raise ValueError(f"out must have dtype {dtype}, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    if out.size and any(stride <= 0 for stride, extent in zip(out.strides, out.shape, strict=True) if extent > 1):
        raise ValueError(f"out must have positive strides, got {out.strides}")


def check_choices(precision: str, device: str | None) -> None:
    """The tail's two closed choices."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(map(repr, PRECISIONS))}, got {precision!r}")
    if device not in (None, "cpu"):
        raise ValueError(f"device must be None or 'cpu' (this version has no other backend), got {device!r}")


def as_array(name: str, value: Any) -> np.ndarray:
    """The argument as an array, without copy where NumPy can; complex, integer, float or bool."""
    try:
        array = np.asarray(value)
    except Exception as error:  # np.asarray runs the object's own code, which may raise anything
        raise TypeError(f"{name} must be an array, got {type(value).__name__} ({error})") from error
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{name} must be an array of bools, integers, floats or complex numbers, got dtype {array.dtype}")
    return array


def aside(out: np.ndarray, *inputs: np.ndarray | None) -> bool:
    """Whether the result must be computed aside: ``out`` may share memory with an input."""
    return any(array is not None and np.may_share_memory(out, array) for array in inputs)
