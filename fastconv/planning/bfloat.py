"""bfloat: arrays of bfloat16, the upper half of a float32, of which NumPy has no type: ml_dtypes' by name, or two bytes of no type.

Seen as ``BITS``, of which NumPy converts nothing to numbers: what does not know them raises.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BITS = np.dtype("V2")
_NAN = 0x7FC0


def is_bfloat(dtype: np.dtype[Any]) -> bool:
    """Whether its elements are bfloat16.

    Examples
    --------
    >>> is_bfloat(BITS), is_bfloat(np.dtype("f2"))
    (True, False)
    """
    return dtype.kind == "V" and (dtype.name == "bfloat16" or dtype == BITS)


def bits(array: np.ndarray) -> np.ndarray:
    """The same memory as ``BITS`` where it is of bfloat16; any other array itself."""
    return array.view(BITS) if array.dtype.kind == "V" else array


def widened(array: np.ndarray) -> np.ndarray:
    """As float32, which holds every bfloat16; an array of any other type itself.

    Examples
    --------
    >>> widened(np.array([0x3F80, 0xC000], "u2").view(BITS))
    array([ 1., -2.], dtype=float32)
    """
    if array.dtype.kind != "V":
        return array
    wide = array.view(np.uint16).astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def narrowed(values: Any, dtype: Any = BITS) -> np.ndarray:
    """Numbers as an array of any type, as `store` converts, laid out in memory as they are.

    Examples
    --------
    >>> narrowed([1.0, -2.0]).view("u2")
    array([16256, 49152], dtype=uint16)
    """
    given = np.asarray(values)
    result = np.empty_like(given, dtype)
    store(result, given)
    return result


def store(dst: np.ndarray, values: np.ndarray) -> None:
    """Write numbers into an array of any type: into bfloat16 rounded to nearest even, NaN as NaN, into uint32 as C on x86-64 converts.

    Examples
    --------
    >>> dst = np.zeros(3, BITS)
    >>> store(dst, np.array([1 + 2**-8, 1 + 3 * 2**-8, np.nan], "f4"))
    >>> widened(dst)
    array([1.      , 1.015625,      nan], dtype=float32)
    """
    if dst.dtype.kind != "V":
        if dst.dtype == np.uint32 and values.dtype.kind == "f":
            values = values.astype(np.int64)  # modulo; NumPy's own vectors do otherwise below -2**31
        np.copyto(dst, values, casting="unsafe")
        return
    wide = np.asarray(values, np.float32)
    words = wide.view(np.uint32)
    rounded = (words + (((words >> 16) & 1) + 0x7FFF)) >> 16
    dst.view(np.uint16)[...] = np.where(np.isnan(wide), (words >> 16 & 0x8000) | _NAN, rounded)
