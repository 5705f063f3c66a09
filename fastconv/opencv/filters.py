"""filter2D, sepFilter2D, boxFilter, blur and GaussianBlur."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arguments import (
    BOX,
    DIRECT,
    F64,
    SEPARABLE,
    U8,
    U16,
    Image,
    anchored,
    border,
    depth,
    extents,
    kernel,
    real,
    row_or_column,
    two,
    whole,
)
from .calls import Filter, filtered
from .constants import BORDER_CONSTANT, BORDER_DEFAULT, BORDER_ISOLATED
from .taps import fixed_point, gaussian

MIDDLE = (-1, -1)  # the anchor, where none is given


def filter2D(
    src: Any, ddepth: int, kernel: Any, dst: np.ndarray | None = None, anchor: Any = MIDDLE, delta: float = 0.0,
    borderType: int = BORDER_DEFAULT, *, precision: str = "default", threads: int | None = None, device: str | None = None,
    algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Correlate an image with a kernel, as `cv2.filter2D`.

    ``dst[y, x] = delta + sum_{i, j} src[y + i - anchor_y, x + j - anchor_x] * kernel[i, j]``, in each channel.

    Parameters
    ----------
    src : array_like
        ``(h, w)`` or ``(h, w, channels)``, any number of channels; uint8, uint16, int16, float32 or float64.
    ddepth : int
        The result's type, or -1 for the image's; None is CV_8U: uint8 may become CV_8U, CV_16U, CV_16S, CV_32F, CV_64F; uint16
        and int16 their own, CV_32F, CV_64F; float32 and float64 only their own.
    kernel : array_like
        ``(kh, kw)``, the same for all channels; one dimension is one row, but a tuple of numbers one column.  Its values are used in
        float32, in float64 where image or result is float64.
    dst : ndarray, optional
        Receives and is the result where shape and type are the result's; otherwise it is left alone and a new array returned, as
        OpenCV does.  May be ``src``, or share memory with it.
    anchor : (int, int)
        ``(x, y)`` of the pixel in the kernel; a negative coordinate is the middle, ``size // 2``.
    delta : float
        Added to the sums.
    borderType : int
        BORDER_CONSTANT (zeros), BORDER_REPLICATE, BORDER_REFLECT, BORDER_REFLECT_101 (the default), BORDER_WRAP, which OpenCV
        refuses; BORDER_ISOLATED may be added.
    precision, threads, device, algorithm
        See `fastconv.conv2d`.

    Returns
    -------
    ndarray
        ``(h, w)``, or ``(h, w, channels)`` for more than one channel.  Integers are rounded half to even and saturated.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and what is allowed, where OpenCV raises `cv2.error`.

    Notes
    -----
    Integer results equal OpenCV's wherever the sums are exact in float32 (whole weights), and differ by 1 at most where a sum
    falls within its rounding error of a half.  Zero taps are no taps: NaN under them is not seen.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(12, dtype=np.uint8).reshape(3, 4)
    >>> filter2D(x, -1, np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]), borderType=1)
    array([[5, 4, 4, 3],
           [1, 0, 0, 0],
           [0, 0, 0, 0]], dtype=uint8)
    >>> filter2D(x, 5, np.ones((1, 3)) / 3).dtype
    dtype('float32')
    """
    return filtered(_filter2d, src, dst, (kernel,), (ddepth, None if anchor is MIDDLE else anchor, delta, borderType),
                    precision, threads, device, algorithm)  # fmt: skip


def _filter2d(src: Image, kernel2d: Any, ddepth: Any, anchor: Any, delta: Any, border_type: Any) -> Filter:
    weights = kernel("kernel", kernel2d, on_device=True)
    kh, kw = weights.shape
    return Filter(weights, depth(ddepth, src, DIRECT), border(border_type), anchored(anchor, kw, kh), real("delta", delta), drops=True)


def sepFilter2D(
    src: Any, ddepth: int, kernelX: Any, kernelY: Any, dst: np.ndarray | None = None, anchor: Any = MIDDLE, delta: float = 0.0,
    borderType: int = BORDER_DEFAULT, *, precision: str = "default", threads: int | None = None, device: str | None = None,
    algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Correlate the rows of an image with one kernel and the columns with another, as `cv2.sepFilter2D`.

    Parameters
    ----------
    src : array_like
        As `filter2D`'s.
    ddepth : int
        -1, CV_8U, CV_16U, CV_16S, CV_32F or CV_64F, also a narrower type than the image's; not CV_32F for float64.
    kernelX, kernelY : array_like
        One row or one column each.
    dst, anchor, delta, borderType, precision, threads, device, algorithm
        As `filter2D`'s.

    Returns
    -------
    ndarray
        Rounded as `filter2D` rounds.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and what is allowed.

    Notes
    -----
    OpenCV rounds half up in the last columns of uint8 results of symmetric kernels of whole parts of 256, where its
    vectors do not reach;
    here every pixel is rounded half to even, as OpenCV rounds the others.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(12, dtype=np.uint8).reshape(3, 4)
    >>> sepFilter2D(x, -1, np.array([-1, 0, 1]), np.ones(3))
    array([[0, 6, 6, 0],
           [0, 6, 6, 0],
           [0, 6, 6, 0]], dtype=uint8)
    """
    return filtered(_separable, src, dst, (kernelX, kernelY), (ddepth, None if anchor is MIDDLE else anchor, delta, borderType),
                    precision, threads, device, algorithm)  # fmt: skip


def _separable(src: Image, kernel_x: Any, kernel_y: Any, ddepth: Any, anchor: Any, delta: Any, border_type: Any) -> Filter:
    x, y = row_or_column("kernelX", kernel_x), row_or_column("kernelY", kernel_y)
    dtype = depth(ddepth, src, SEPARABLE)
    return Filter(outer(y, x, src, dtype), dtype, border(border_type), anchored(anchor, x.size, y.size), real("delta", delta), "rank1")


def outer(y: np.ndarray, x: np.ndarray, src: Image, dtype: np.dtype[Any]) -> np.ndarray:
    """The kernel that is a column times a row, each in the type of OpenCV's sums."""
    extents("kernelX and kernelY", x.size, y.size)
    if F64 not in (src.dtype, dtype):
        with np.errstate(over="ignore", under="ignore"):
            y, x = y.astype(np.float32).astype(np.float64), x.astype(np.float32).astype(np.float64)
    return np.outer(y, x)


def boxFilter(
    src: Any, ddepth: int, ksize: Any, dst: np.ndarray | None = None, anchor: Any = MIDDLE, normalize: bool = True,
    borderType: int = BORDER_DEFAULT, *, precision: str = "default", threads: int | None = None, device: str | None = None,
    algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """The mean, or the sum, of the pixels in a window, as `cv2.boxFilter`.

    Parameters
    ----------
    src : array_like
        As `filter2D`'s.
    ddepth : int
        -1, CV_8U, CV_16U, CV_16S, CV_32F, CV_64F, also a narrower type than the image's; CV_32S for integers.
    ksize : (int, int)
        ``(width, height)`` of the window.
    dst, anchor, borderType, precision, threads, device, algorithm
        As `filter2D`'s.
    normalize : bool
        Whether the sum is divided by the number of pixels.

    Returns
    -------
    ndarray
        Integers saturate.  uint8 means of uint8 over at most 256 pixels are rounded half up, over 2, 4, 8 ... 256 pixels a half
        and one part more up, exactly as OpenCV's; other integers half to even.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and what is allowed.

    Notes
    -----
    OpenCV's running sums carry a NaN along the rest of its row and column; here it is in the windows that hold it.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(12, dtype=np.uint8).reshape(3, 4)
    >>> boxFilter(x, -1, (3, 3), borderType=0)
    array([[1, 2, 3, 2],
           [3, 5, 6, 4],
           [3, 5, 5, 4]], dtype=uint8)
    >>> boxFilter(x, 4, (3, 1), normalize=False)[0]
    array([2, 3, 6, 7], dtype=int32)
    """
    return filtered(_box, src, dst, (), (ksize, ddepth, None if anchor is MIDDLE else anchor, normalize, borderType), precision,
                    threads, device, algorithm)  # fmt: skip


def blur(
    src: Any, ksize: Any, dst: np.ndarray | None = None, anchor: Any = MIDDLE, borderType: int = BORDER_DEFAULT, *,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """The mean of the pixels in a window, as `cv2.blur`: `boxFilter` in the image's own type.

    Parameters
    ----------
    src, ksize, dst, anchor, borderType, precision, threads, device, algorithm
        As `boxFilter`'s.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and what is allowed.

    Examples
    --------
    >>> import numpy as np
    >>> blur(np.arange(12, dtype=np.float32).reshape(3, 4), (2, 2), anchor=(0, 0))[1]
    array([6.5, 7.5, 8.5, 8.5], dtype=float32)
    """
    return filtered(_box, src, dst, (), (ksize, -1, None if anchor is MIDDLE else anchor, True, borderType), precision, threads,
                    device, algorithm)  # fmt: skip


def _box(src: Image, ksize: Any, ddepth: Any, anchor: Any, normalize: Any, border_type: Any) -> Filter:
    dtype, word = depth(ddepth, src, BOX), border(border_type)
    kw, kh = two("ksize", ksize, "(width, height)")
    if min(kw, kh) < 1:
        raise ValueError(f"ksize (width, height) must be at least 1, got {ksize!r}")
    if not (normalize is None or isinstance(normalize, (bool, np.bool_)) or hasattr(normalize, "__index__")):
        raise TypeError(f"normalize must be a bool, got {normalize!r}")
    normalize = normalize is None or bool(normalize)
    if normalize and whole("borderType", border_type, BORDER_DEFAULT) & BORDER_ISOLATED:
        # only then, and unlike GaussianBlur with zeros beyond the border too
        kh, kw = 1 if src.h == 1 else kh, 1 if src.w == 1 else kw
    extents("ksize (width, height)", kw, kh)
    middle, count = anchored(anchor, kw, kh), kw * kh
    scale, delta, rounding = 1 / count if normalize else 1.0, 0.0, "saturate"
    if normalize and src.dtype == dtype == U8 and 1 < count <= 256:
        # floor((sum + whole) / count); the addend lies between two sums, so that no rounding of theirs is seen
        half = count // 2 + (count & (count - 1) == 0)
        delta, rounding = (half + 0.5) / count - 0.5, "half_up"
    return Filter(np.full((kh, kw), scale), dtype, word, middle, delta, "box", rounding)


def GaussianBlur(
    src: Any, ksize: Any, sigmaX: float, dst: np.ndarray | None = None, sigmaY: float = 0.0, borderType: int = BORDER_DEFAULT,
    hint: int = 0, *, precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Smooth an image with a Gaussian, as `cv2.GaussianBlur`.

    Parameters
    ----------
    src : array_like
        As `filter2D`'s.
    ksize : (int, int)
        ``(width, height)``, odd; 0 takes ``6 sigma + 1`` (``8 sigma + 1`` of other types than uint8), rounded to an odd number.
    sigmaX : float
        0 takes ``0.15 width + 0.35``, and up to width 9 OpenCV's table.
    dst, borderType, precision, threads, device, algorithm
        As `filter2D`'s.
    sigmaY : float
        0 takes ``sigmaX``.
    hint : int
        Makes no difference.

    Returns
    -------
    ndarray
        Of the image's type.  uint8 and uint16 equal OpenCV's: taps are whole parts of 256 and 65536, sums are exact and
        rounded half up.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and what is allowed.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.zeros((3, 5), np.uint8)
    >>> x[1, 2] = 160
    >>> GaussianBlur(x, (3, 3), 0)
    array([[ 0, 20, 40, 20,  0],
           [ 0, 20, 40, 20,  0],
           [ 0, 20, 40, 20,  0]], dtype=uint8)
    """
    return filtered(_gaussian, src, dst, (), (ksize, sigmaX, sigmaY, borderType, hint), precision, threads, device, algorithm)


def _gaussian(src: Image, ksize: Any, sigma_x: Any, sigma_y: Any, border_type: Any, hint: Any) -> Filter:
    kw, kh = two("ksize", ksize, "(width, height)")
    sx, sy, word = real("sigmaX", sigma_x), real("sigmaY", sigma_y), border(border_type)
    whole("hint", hint)
    if whole("borderType", border_type, BORDER_DEFAULT) & ~BORDER_ISOLATED != BORDER_CONSTANT:
        kh, kw = 1 if src.h == 1 else kh, 1 if src.w == 1 else kw
    if sy <= 0:
        sy = sx
    reach = 3 if src.dtype == U8 else 4
    kw, kh = (round(s * reach * 2 + 1) | 1 if k <= 0 and s > 0 else k for k, s in ((kw, sx), (kh, sy)))
    if kw < 1 or kh < 1 or kw % 2 == 0 or kh % 2 == 0:
        raise ValueError(f"ksize (width, height) must be odd and positive, or 0 with a sigma above 0, got {ksize!r} "
                         f"with sigmaX={sigma_x!r}, sigmaY={sigma_y!r}")  # fmt: skip
    extents("ksize (width, height)", kw, kh)
    if kw == kh == 1:
        return Filter(np.ones((1, 1)), src.dtype, word, (0, 0), structure="identity")
    x, y = gaussian(kw, sx), gaussian(kh, sy)
    if src.dtype in (U8, U16):
        bits = 8 * src.dtype.itemsize
        weights = np.outer(fixed_point(y, bits), fixed_point(x, bits))
        return Filter(weights, src.dtype, word, (kw // 2, kh // 2), 0.0, "rank1", "half_up", wide=src.dtype == U16)
    return Filter(outer(y, x, src, src.dtype), src.dtype, word, (kw // 2, kh // 2), 0.0, "rank1")
