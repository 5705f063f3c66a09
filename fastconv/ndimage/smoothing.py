"""smoothing: scipy.ndimage's `gaussian_filter` and `uniform_filter`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .calls import filtered


def gaussian_filter(
    input: Any, sigma: Any, order: Any = 0, output: Any = None, mode: Any = "reflect", cval: float = 0.0, truncate: float = 4.0, *,
    radius: Any = None, axes: Any = None,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Smooth with a Gaussian, or with its derivatives: `scipy.ndimage.gaussian_filter`.

    A pass of `correlate1d` along each axis, ``2 * radius + 1`` taps, ``radius = int(truncate * sigma + 0.5)``; results of integer
    type are stored in it between the passes, as SciPy stores them.

    Parameters
    ----------
    input, output, cval, precision, threads, device, algorithm
        See `correlate`.
    sigma : scalar or sequence
        Standard deviation, one for each axis; an axis of 0 is not filtered.
    order : int or sequence of int
        Of the derivative.
    mode : str or sequence of str
        One for each axis.
    truncate : float
        The radius in standard deviations.
    radius : int or sequence of int, optional
        Instead of ``truncate``.
    axes : int or tuple of int, optional
        The axes that are filtered; all by default.

    Returns
    -------
    ndarray
        Of input's shape.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        SciPy's own; and a ValueError where ``algorithm`` cannot run.

    Examples
    --------
    >>> x = np.arange(50, step=2).reshape(5, 5)
    >>> gaussian_filter(x, sigma=1)
    array([[ 4,  6,  8,  9, 11],
           [10, 12, 14, 15, 17],
           [20, 22, 24, 25, 27],
           [29, 31, 33, 34, 36],
           [35, 37, 39, 40, 42]])
    """
    return filtered("gaussian_filter", input, None, output, (sigma, order, mode, cval, truncate, radius, axes),
                    precision, threads, device, algorithm)  # fmt: skip


def uniform_filter(
    input: Any, size: Any = 3, output: Any = None, mode: Any = "reflect", cval: float = 0.0, origin: Any = 0, *, axes: Any = None,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """The mean of a window: `scipy.ndimage.uniform_filter`.

    ``result[y, x] = sum of size * size pixels / size**2``, by window and not by a running sum: no pixel outside it matters.
    Integer results are stored between the axes, as SciPy stores them; float images with an integer result are left to SciPy.

    Parameters
    ----------
    input, output, cval, precision, threads, device, algorithm
        See `correlate`.
    size : int or sequence of int
        Of the window, one for each axis; an axis of 1 is not filtered.
    mode : str or sequence of str
        One for each axis.
    origin : int or sequence of int
        One for each axis.
    axes : int or tuple of int, optional
        The axes that are filtered; all by default.

    Returns
    -------
    ndarray
        Of input's shape.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        SciPy's own; and a ValueError where ``algorithm`` cannot run.

    Examples
    --------
    >>> uniform_filter(np.array([1.0, 2.0, 6.0, 1.0]), 3)
    array([1.33333333, 3.        , 3.        , 2.66666667])
    """
    return filtered("uniform_filter", input, None, output, (size, mode, cval, origin, axes), precision, threads, device, algorithm)
