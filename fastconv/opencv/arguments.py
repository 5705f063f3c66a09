"""Checks of OpenCV's arguments: each raises one exception naming the argument, its value and what is allowed.

None stands for an argument's default, or for zero where it has none: OpenCV leaves a number as it was.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np

from ..planning.arguments import as_array
from ..planning.devices import on_card, received
from . import constants as cv

BORDERS = {
    cv.BORDER_CONSTANT: "constant",
    cv.BORDER_REPLICATE: "edge",
    cv.BORDER_REFLECT: "symmetric",
    cv.BORDER_WRAP: "wrap",
    cv.BORDER_REFLECT_101: "reflect",
}
_BORDER_NAMES = "BORDER_CONSTANT, BORDER_REPLICATE, BORDER_REFLECT, BORDER_WRAP, BORDER_REFLECT_101, with or without BORDER_ISOLATED"

MOST_MADE = 1 << 24  # taps of a kernel made here
U8, U16, I16, I32, F32, F64 = (np.dtype(name) for name in ("u1", "u2", "i2", "i4", "f4", "f8"))
DEPTHS = {cv.CV_8U: U8, cv.CV_16U: U16, cv.CV_16S: I16, cv.CV_32S: I32, cv.CV_32F: F32, cv.CV_64F: F64}
_DEPTH_NAMES = {cv.CV_8U: "CV_8U", cv.CV_16U: "CV_16U", cv.CV_16S: "CV_16S", cv.CV_32S: "CV_32S",
                cv.CV_32F: "CV_32F", cv.CV_64F: "CV_64F"}  # fmt: skip
_NARROW = (cv.CV_8U, cv.CV_16U, cv.CV_16S)

# type of the image -> depths of the result, as OpenCV has them: of filter2D, the separable filters, the box, Laplacians from ksize 5
DIRECT = {
    U8: (*_NARROW, cv.CV_32F, cv.CV_64F),
    U16: (cv.CV_16U, cv.CV_32F, cv.CV_64F),
    I16: (cv.CV_16S, cv.CV_32F, cv.CV_64F),
    F32: (cv.CV_32F,),
    F64: (cv.CV_64F,),
}
SEPARABLE = {
    **dict.fromkeys((U8, U16, I16, F32), (*_NARROW, cv.CV_32F, cv.CV_64F)),
    F64: (*_NARROW, cv.CV_64F),
}
BOX = {
    **dict.fromkeys((U8, U16, I16), (*_NARROW, cv.CV_32S, cv.CV_32F, cv.CV_64F)),
    **dict.fromkeys((F32, F64), (*_NARROW, cv.CV_32F, cv.CV_64F)),
}
LAPLACIAN: dict[np.dtype[Any], tuple[int, ...]] = dict.fromkeys(DIRECT, (*_NARROW, cv.CV_32S, cv.CV_32F, cv.CV_64F))


class Image(NamedTuple):
    """What a filter needs to know of an image: extents, channels, type."""

    h: int
    w: int
    c: int
    dtype: np.dtype[Any]


def image(src: Any) -> tuple[np.ndarray, Image]:
    """``src`` as an array, and what it is: (h, w), (h, w, c), or as OpenCV reads them (n,) as one row and a scalar as one pixel."""
    array = _matrix("src", src)
    return array, described(array)


def described(array: Any) -> Image:
    """What an array, of the host or of a card, is as an image."""
    dtype = array.dtype.newbyteorder("=")
    if dtype not in DIRECT:
        raise TypeError(f"src must have dtype uint8, uint16, int16, float32 or float64, got {array.dtype}")
    if array.ndim > 3:
        raise ValueError(f"src must have shape (h, w) or (h, w, channels), got {array.shape}")
    if 0 in array.shape:
        raise ValueError(f"src must not be empty, got shape {array.shape}")
    h, w, c = array.shape + (1,) * (3 - array.ndim) if array.ndim > 1 else (1, array.size, 1)
    return Image(h, w, c, dtype)


def _matrix(name: str, value: Any) -> np.ndarray:
    """An argument of the host as an array; a number is a `cv2.Scalar` of it, a column of four, and a tuple of numbers a column."""
    if isinstance(value, (int, float)):
        value = (value, 0, 0, 0)
    if on_card(value):
        raise TypeError(f"{name} must be an array of the host, where it is looked at, got {type(value).__name__} of a CUDA device")
    array = as_array(name, value)
    return array.astype(np.float64)[:, None] if isinstance(value, tuple) and array.ndim == 1 else array


def whole(name: str, value: Any, default: int = 0) -> int:
    """An int."""
    if value is None:
        return default
    try:
        if not isinstance(value, (bool, np.bool_)):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"{name} must be an int, got {value!r}")


def real(name: str, value: Any, default: float = 0.0) -> float:
    """A float."""
    try:
        if value is None:
            return default
        if not isinstance(value, (str, bytes, bool, np.bool_)):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{name} must be a real number, got {value!r}")


def two(name: str, value: Any, words: str, default: int = 0) -> tuple[int, int]:
    """A sequence of two ints, in OpenCV's order: x or width first."""
    if value is None:
        value = default, default
    try:
        first, second = value[0], value[1]
        count = len(value)
    except (LookupError, TypeError):
        count = 0
    if count != 2:
        raise TypeError(f"{name} must be two ints {words}, got {value!r}")
    return whole(name, first, default), whole(name, second, default)


def depth(ddepth: Any, src: Image, allowed: dict[np.dtype[Any], tuple[int, ...]]) -> np.dtype[Any]:
    """The result's type; a negative ``ddepth`` is the image's own, and None is CV_8U."""
    number = whole("ddepth", ddepth)
    if number < 0:
        return src.dtype
    if number not in allowed[src.dtype]:
        names = ", ".join(f"{_DEPTH_NAMES[d]} ({d})" for d in allowed[src.dtype])
        raise ValueError(f"ddepth must be -1 or one of {names} for an image of {src.dtype}, got {ddepth!r}")
    return DEPTHS[number]


def border(border_type: Any) -> str:
    """`Problem`'s word for a border."""
    number = whole("borderType", border_type, cv.BORDER_DEFAULT)
    word = BORDERS.get(number & ~cv.BORDER_ISOLATED)
    if word is None:
        raise ValueError(f"borderType must be one of {_BORDER_NAMES}, got {border_type!r}")
    return word


def anchored(anchor: Any, width: int, height: int) -> tuple[int, int]:
    """The anchor (x, y) inside a kernel of this size; a negative coordinate is the middle, ``size // 2``."""
    x, y = two("anchor", anchor, "(x, y)", -1)
    x, y = width // 2 if x < 0 else x, height // 2 if y < 0 else y
    if x >= width or y >= height:
        raise ValueError(f"anchor (x, y) must lie in the kernel of width {width} and height {height}, got {anchor!r}")
    return x, y


def extents(name: str, kw: int, kh: int) -> None:
    """A kernel that is made of two vectors, or of a size, is of at most ``MOST_MADE`` taps, all of which take memory."""
    if kw * kh > MOST_MADE:
        raise ValueError(f"{name} must make a kernel of at most {MOST_MADE} taps, got width {kw} and height {kh}")


def kernel(name: str, value: Any, on_device: bool = False) -> Any:
    """A kernel of two dimensions in float64; as OpenCV reads them, one dimension is a row.

    ``on_device``: whether it may be an array of a card, which is left as it is.
    """
    array = received(name, value) if on_device and on_card(value) else _matrix(name, value)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array.reshape(array.shape[:2])
    if array.ndim < 2:
        array = array.reshape((1, array.size))
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name} must be an array of shape (height, width) and not empty, got shape {array.shape}")
    if array.dtype.kind == "c":
        raise TypeError(f"{name} must be real, got dtype {array.dtype}")
    return array.astype(np.float64) if isinstance(array, np.ndarray) else array


def row_or_column(name: str, value: Any) -> np.ndarray:
    """A kernel that is one row or one column, as one dimension."""
    array = kernel(name, value)
    if 1 not in array.shape:
        raise ValueError(f"{name} must be one row or one column, got shape {array.shape}")
    return array.reshape(-1)
