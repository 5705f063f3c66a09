"""derivatives: scipy.ndimage's `sobel`, `prewitt`, `laplace`, `gaussian_laplace` and `gaussian_gradient_magnitude`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .calls import filtered


def sobel(
    input: Any, axis: int = -1, output: Any = None, mode: Any = "reflect", cval: float = 0.0, *,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Sobel's derivative: `scipy.ndimage.sobel`.

    ``[-1, 0, 1]`` along ``axis``, then ``[1, 2, 1]`` along each other axis.

    Parameters
    ----------
    input, output, cval, precision, threads, device, algorithm
        See `correlate`.
    axis : int
        Of the derivative.
    mode : str or sequence of str
        One for each axis.

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
    >>> sobel(np.tile([0.0, 1.0, 3.0, 3.0], (3, 1)))
    array([[ 4., 12.,  8.,  0.],
           [ 4., 12.,  8.,  0.],
           [ 4., 12.,  8.,  0.]])
    """
    return filtered("sobel", input, None, output, (axis, mode, cval), precision, threads, device, algorithm)


def prewitt(
    input: Any, axis: int = -1, output: Any = None, mode: Any = "reflect", cval: float = 0.0, *,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Prewitt's derivative: `scipy.ndimage.prewitt`.

    ``[-1, 0, 1]`` along ``axis``, then ``[1, 1, 1]`` along each other axis.

    Parameters
    ----------
    input, axis, output, mode, cval, precision, threads, device, algorithm
        See `sobel`.

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
    >>> prewitt(np.tile([0.0, 1.0, 3.0, 3.0], (3, 1)))
    array([[3., 9., 6., 0.],
           [3., 9., 6., 0.],
           [3., 9., 6., 0.]])
    """
    return filtered("prewitt", input, None, output, (axis, mode, cval), precision, threads, device, algorithm)


def laplace(
    input: Any, output: Any = None, mode: Any = "reflect", cval: float = 0.0, *, axes: Any = None,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Second differences, added up: `scipy.ndimage.laplace`.

    ``[1, -2, 1]`` along each axis; each is stored in the result's type before they are added.

    Parameters
    ----------
    input, output, cval, precision, threads, device, algorithm
        See `correlate`.
    mode : str or sequence of str
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
    >>> laplace([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    array([[ 0,  1,  0],
           [ 1, -4,  1],
           [ 0,  1,  0]])
    """
    return filtered("laplace", input, None, output, (mode, cval, axes), precision, threads, device, algorithm)


def gaussian_laplace(
    input: Any, sigma: Any, output: Any = None, mode: Any = "reflect", cval: float = 0.0, *, axes: Any = None,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None, **kwargs: Any,
) -> np.ndarray:  # fmt: skip
    """Second derivatives of Gaussians, added up: `scipy.ndimage.gaussian_laplace`.

    Parameters
    ----------
    input, output, cval, precision, threads, device, algorithm
        See `correlate`.
    sigma : scalar or sequence
        One for each axis in ``axes``.
    mode : str or sequence of str
        One for each axis in ``axes``.
    axes : int or tuple of int, optional
        The axes that are filtered; all by default.
    **kwargs
        ``truncate`` and ``radius`` of `gaussian_filter`.

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
    >>> gaussian_laplace(np.arange(5.0) ** 2, sigma=1, mode="nearest").round(2)
    array([ 1.  ,  1.66,  1.6 , -0.24, -2.51])
    """
    values = sigma, mode, cval, axes, tuple(kwargs.items())
    return filtered("gaussian_laplace", input, None, output, values, precision, threads, device, algorithm)


def gaussian_gradient_magnitude(
    input: Any, sigma: Any, output: Any = None, mode: Any = "reflect", cval: float = 0.0, *, axes: Any = None,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None, **kwargs: Any,
) -> np.ndarray:  # fmt: skip
    """The length of a Gaussian gradient: `scipy.ndimage.gaussian_gradient_magnitude`.

    Parameters
    ----------
    input, output, cval, precision, threads, device, algorithm
        See `correlate`.
    sigma : scalar or sequence
        One for each axis of ``input``, all of which are smoothed.
    mode : str or sequence of str
        One for each axis in ``axes``.
    axes : int or tuple of int, optional
        The axes of the derivatives; all by default.
    **kwargs
        ``truncate`` and ``radius`` of `gaussian_filter`.

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
    >>> gaussian_gradient_magnitude(np.arange(5.0) ** 2, sigma=1, mode="nearest").round(2)
    array([0.8 , 2.16, 3.88, 4.74, 3.2 ])
    """
    values = sigma, mode, cval, axes, tuple(kwargs.items())
    return filtered("gaussian_gradient_magnitude", input, None, output, values, precision, threads, device, algorithm)
