"""Checks that several dialects need: each raises one exception naming the argument, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .bfloat import is_bfloat
from .problem import LIMIT, PRECISIONS


def pair(name: str, value: Any, least: int) -> tuple[int, int]:
    """An int, or two of them (rows, columns), as two ints of at least ``least`` and below ``LIMIT``.

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
    if min(result) < least or max(result) >= LIMIT:
        raise ValueError(f"{name} must be at least {least} and below 2**62, got {value!r}")
    return result


def spans(kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns between a kernel's first and last tap, both included; 0 of an empty kernel.

    Examples
    --------
    >>> spans((3, 1), (2, 9))
    (5, 1)
    """
    rows, columns = ((k - 1) * d + 1 if k else 0 for k, d in zip(kernel, dilation, strict=True))
    if max(rows, columns) >= LIMIT:
        raise ValueError(f"dilation must keep the kernel's span below 2**62, got {dilation} for a kernel of {kernel}")
    return rows, columns


def group_count(groups: Any) -> int:
    """``groups`` as an int of at least 1."""
    if isinstance(groups, bool) or not hasattr(groups, "__index__") or not 1 <= groups.__index__() < LIMIT:
        raise ValueError(f"groups must be an integer of at least 1 and below 2**62, got {groups!r}")
    count: int = groups.__index__()
    return count


def result_type(input: np.dtype[Any], weight: np.dtype[Any], dtype: Any) -> np.dtype[Any]:
    """The result's type: ``dtype``, or what NumPy promotes the two to; not bool, and complex where one of them is."""
    if is_bfloat(input) or is_bfloat(weight):
        if not all(is_bfloat(kind) or kind == np.float32 for kind in (input, weight)):
            raise TypeError(f"input and weight must both be bfloat16 or float32 where one is bfloat16, got {input} and {weight}")
        result = np.dtype(dtype) if dtype is not None else input if is_bfloat(input) and is_bfloat(weight) else np.dtype(np.float32)
        if not (is_bfloat(result) or result == np.float32):
            raise TypeError(f"dtype must be bfloat16 or float32 for input or weight of bfloat16, got {result}")
        return result
    result = np.dtype(dtype) if dtype is not None else np.result_type(input, weight)
    if is_bfloat(result):
        raise TypeError(f"dtype must not be bfloat16 for input and weight of other types, got {input} and {weight}")
    if result.kind == "b":
        raise TypeError("input and weight must not both be bool: no library defines that convolution; give dtype=")
    if result.kind != "c" and "c" in (input.kind, weight.kind):
        raise TypeError(f"dtype must be complex for complex input or weight, got {result}")
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


def exact(*values: Any) -> tuple[Any, ...]:
    """What a call's cache key needs beside the values to be equal only for the same arguments: 1, 1.0 and True are equal.

    Examples
    --------
    >>> exact(1, 2) == exact(True, 2), exact((1, 2)) == exact((1.0, 2)), exact((1, 2)) == exact((1, 2))
    (False, False, True)
    """
    return tuple([repr(value) if value.__class__ is tuple else value.__class__ for value in values])


def choice(name: str, value: Any, allowed: Iterable[str]) -> None:
    """``value`` is one of the strings ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_choices(precision: str, device: Any = None) -> None:
    """The tail's two closed choices, of a function that runs on the CPU alone, or whose device is looked at elsewhere."""
    choice("precision", precision, PRECISIONS)
    if device not in (None, "cpu"):
        raise ValueError(f"device must be None or 'cpu' (this function has no other backend), got {device!r}")


def check_device(device: Any) -> None:
    """Where a call may be asked to run; None is where its input is."""
    if device is not None and (not isinstance(device, str) or device not in ("cpu", "cuda")):
        raise ValueError(f"device must be None, 'cpu' or 'cuda', got {device!r}")


def as_array(name: str, value: Any, bfloat: bool = False) -> np.ndarray:
    """The argument as an array, without copy where NumPy can; complex, integer, float or bool, or ``bfloat`` if that is allowed."""
    try:
        array = np.asarray(value)
    except Exception as error:  # np.asarray runs the object's own code, which may raise anything
        raise TypeError(f"{name} must be an array, got {type(value).__name__} ({error})") from error
    if array.dtype.kind not in "biufc" and not (bfloat and is_bfloat(array.dtype)):
        raise TypeError(f"{name} must be an array of bools, integers, floats or complex numbers, got dtype {array.dtype}")
    return array
