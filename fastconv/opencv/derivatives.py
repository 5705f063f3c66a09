"""Sobel, Scharr and Laplacian."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arguments import DIRECT, LAPLACIAN, SEPARABLE, Image, border, depth, real, whole
from .calls import Filter, filtered
from .constants import BORDER_DEFAULT
from .filters import outer
from .taps import derivative, scharr

_LARGEST = 31  # ksize
_LAPLACIANS = {
    1: ((0, 1, 0), (1, -4, 1), (0, 1, 0)),
    3: ((2, 0, 2), (0, -8, 0), (2, 0, 2)),
}


def Sobel(
    src: Any, ddepth: int, dx: int, dy: int, dst: np.ndarray | None = None, ksize: int = 3, scale: float = 1.0, delta: float = 0.0,
    borderType: int = BORDER_DEFAULT, *, precision: str = "default", threads: int | None = None, device: str | None = None,
    algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """A derivative of an image, smoothed across it, as `cv2.Sobel`.

    Parameters
    ----------
    src : array_like
        As `fastconv.opencv.filter2D`'s.
    ddepth : int
        -1, CV_8U, CV_16U, CV_16S, CV_32F or CV_64F, also a narrower type than the image's; not CV_32F for float64.
    dx, dy : int
        Orders of the derivative; below ``ksize`` (below 3 for ksize 1) and not both 0.
    dst, borderType, precision, threads, device, algorithm
        As `fastconv.opencv.filter2D`'s.
    ksize : int
        1 (no smoothing), 3, 5 ... 31; 0 or below is Scharr's kernel.
    scale, delta : float
        The derivative is multiplied by ``scale``, then ``delta`` is added.

    Returns
    -------
    ndarray
        Integers are rounded half to even and saturated.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and what is allowed.

    Examples
    --------
    >>> import numpy as np
    >>> Sobel(np.arange(12, dtype=np.uint8).reshape(3, 4) ** 2, 3, 1, 0)[1]
    array([ 0, 80, 96,  0], dtype=int16)
    """
    return filtered(_sobel, src, dst, (), (ddepth, dx, dy, ksize, scale, delta, borderType), precision, threads, device, algorithm)


def Scharr(
    src: Any, ddepth: int, dx: int, dy: int, dst: np.ndarray | None = None, scale: float = 1.0, delta: float = 0.0,
    borderType: int = BORDER_DEFAULT, *, precision: str = "default", threads: int | None = None, device: str | None = None,
    algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """The first derivative of an image along x or y with Scharr's 3x3 kernel, as `cv2.Scharr`.

    Parameters
    ----------
    src, ddepth, dst, scale, delta, borderType, precision, threads, device, algorithm
        As `Sobel`'s.
    dx, dy : int
        1 and 0, or 0 and 1.

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
    >>> Scharr(np.arange(12, dtype=np.float32).reshape(3, 4), -1, 0, 1)[1]
    array([128., 128., 128., 128.], dtype=float32)
    """
    return filtered(_sobel, src, dst, (), (ddepth, dx, dy, -1, scale, delta, borderType), precision, threads, device, algorithm)


def _sobel(src: Image, ddepth: Any, dx: Any, dy: Any, ksize: Any, scale: Any, delta: Any, border_type: Any) -> Filter:
    dtype, x_order, y_order, k = depth(ddepth, src, SEPARABLE), whole("dx", dx), whole("dy", dy), whole("ksize", ksize, 3)
    if min(x_order, y_order) < 0 or x_order + y_order < 1:
        raise ValueError(f"dx and dy must not be negative and not both 0, got {dx!r} and {dy!r}")
    if k <= 0:
        if x_order + y_order != 1:
            raise ValueError(f"dx and dy must be 1 and 0, or 0 and 1, for Scharr's kernel, got {dx!r} and {dy!r}")
        x, y = scharr(x_order), scharr(y_order)
    else:
        _check_ksize(k, ksize)
        for name, order in (("dx", x_order), ("dy", y_order)):
            if order >= max(k, 3):
                raise ValueError(f"{name} must be below {max(k, 3)} for ksize {k}, got {order}")
        x, y = derivative(x_order, k), derivative(y_order, k)
    factor = real("scale", scale, 1.0)
    if x_order == 0:
        x = x * factor
    else:
        y = y * factor
    middle = x.size // 2, y.size // 2
    return Filter(outer(y, x, src, dtype), dtype, border(border_type), middle, real("delta", delta), "rank1")


def _check_ksize(k: int, ksize: Any) -> None:
    if not 1 <= k <= _LARGEST or k % 2 == 0:
        raise ValueError(f"ksize must be odd and from 1 to {_LARGEST}, got {ksize!r}")


def Laplacian(
    src: Any, ddepth: int, dst: np.ndarray | None = None, ksize: int = 1, scale: float = 1.0, delta: float = 0.0,
    borderType: int = BORDER_DEFAULT, *, precision: str = "default", threads: int | None = None, device: str | None = None,
    algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """The sum of the second derivatives of an image along x and y, as `cv2.Laplacian`.

    Parameters
    ----------
    src, dst, borderType, precision, threads, device, algorithm
        As `fastconv.opencv.filter2D`'s.
    ddepth : int
        For ksize 1 and 3 as `fastconv.opencv.filter2D`'s; for larger ones -1, CV_8U, CV_16U, CV_16S, CV_32S, CV_32F or
        CV_64F.
    ksize : int
        1: the cross ``[[0, 1, 0], [1, -4, 1], [0, 1, 0]]``; 3: the diagonals ``[[2, 0, 2], [0, -8, 0], [2, 0, 2]]``; 5 ... 31: the
        sum of `Sobel`'s second derivatives.
    scale, delta : float
        The sum is multiplied by ``scale``, then ``delta`` is added.

    Returns
    -------
    ndarray
        Integers are rounded half to even and saturated.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and what is allowed.

    Examples
    --------
    >>> import numpy as np
    >>> Laplacian(np.arange(9, dtype=np.float32).reshape(3, 3) ** 2, -1)
    array([[  20.,   32.,   36.],
           [  32.,   20.,    0.],
           [ -28.,  -64., -108.]], dtype=float32)
    """
    return filtered(_laplacian, src, dst, (), (ddepth, ksize, scale, delta, borderType), precision, threads, device, algorithm)


def _laplacian(src: Image, ddepth: Any, ksize: Any, scale: Any, delta: Any, border_type: Any) -> Filter:
    k = whole("ksize", ksize, 1)
    _check_ksize(k, ksize)
    small = k in _LAPLACIANS
    dtype, factor, addend = depth(ddepth, src, DIRECT if small else LAPLACIAN), real("scale", scale, 1.0), real("delta", delta)
    if small:
        weights = np.array(_LAPLACIANS[k], np.float64)
    else:
        along, across = derivative(2, k), derivative(0, k)
        weights = np.outer(along, across) + np.outer(across, along)
    return Filter(weights * factor, dtype, border(border_type), (max(k, 3) // 2,) * 2, addend, drops=small)
