"""correlation: scipy.ndimage's `correlate`, `convolve`, `correlate1d` and `convolve1d`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .calls import filtered, taps_of


def correlate(
    input: Any, weights: Any, output: Any = None, mode: str = "reflect", cval: float = 0.0, origin: Any = 0, *, axes: Any = None,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Correlate an array with a kernel: `scipy.ndimage.correlate`.

    ``result[y, x] = sum_{i, j} input[y + i - kh//2 - oy, x + j - kw//2 - ox] * weights[i, j]``, zero weights left out.

    Parameters
    ----------
    input : array_like
        Integers, bools, float32 or float64 of any number of dimensions.
    weights : array_like
        As many dimensions as axes are filtered; more than two of them longer than 1 are left to SciPy.
    output : array or dtype, optional
        Receives and is the result, or its type; input's type by default.  It may share memory with ``input``.
    mode : {"reflect", "mirror", "nearest", "wrap", "constant"}
        Also ``"grid-mirror"`` (reflect), ``"grid-wrap"`` and ``"grid-constant"``.
    cval : scalar
        Outside the image under ``"constant"``; not cast to the image's type.
    origin : int or sequence of int
        Moves the kernel to later pixels, and the result to earlier ones.
    axes : int or tuple of int, optional
        The axes that are filtered; all by default.
    precision : {"default", "strict", "fast"}
        ``"strict"`` sums floats as SciPy does: in float64, in its order.
    threads : int, optional
        At least 1; see `fastconv.threads`.
    device : {None, "cpu", "cuda"}
        Where it is computed: None is where ``input`` is. On ``"cuda"`` an array of the host is copied there and the result back.
    algorithm : str, optional
        The name of the one that runs.

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
    >>> x = np.arange(12).reshape(3, 4)
    >>> correlate(x, [[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    array([[ 5,  9, 14, 18],
           [21, 25, 30, 34],
           [37, 41, 46, 50]])
    >>> correlate(x, [[0.5, 0.5]], output=float, mode="nearest")
    array([[ 0. ,  0.5,  1.5,  2.5],
           [ 4. ,  4.5,  5.5,  6.5],
           [ 8. ,  8.5,  9.5, 10.5]])
    """
    return filtered("correlate", input, taps_of(weights), output, (mode, cval, origin, axes), precision, threads, device, algorithm)


def convolve(
    input: Any, weights: Any, output: Any = None, mode: str = "reflect", cval: float = 0.0, origin: Any = 0, *, axes: Any = None,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Convolve an array with a kernel: `scipy.ndimage.convolve`.

    Correlation with the weights turned round, and the origin with them; all arguments are those of `correlate`.

    Parameters
    ----------
    input, weights, output, mode, cval, origin, axes, precision, threads, device, algorithm
        See `correlate`.

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
    >>> convolve([[0, 0, 0], [0, 1, 0], [0, 0, 0]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    array([[1, 2, 3],
           [4, 5, 6],
           [7, 8, 9]])
    """
    return filtered("convolve", input, taps_of(weights), output, (mode, cval, origin, axes), precision, threads, device, algorithm)


def correlate1d(
    input: Any, weights: Any, axis: int = -1, output: Any = None, mode: str = "reflect", cval: float = 0.0, origin: int = 0, *,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Correlate along one axis: `scipy.ndimage.correlate1d`.

    ``result[x] = sum_j input[x + j - k//2 - origin] * weights[j]``; zero weights are multiplied.

    Parameters
    ----------
    input, output, mode, cval, precision, threads, device, algorithm
        See `correlate`.
    weights : array_like, 1-D
        At least one.
    axis : int
        The axis that is filtered.
    origin : int
        As of `correlate`.

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
    >>> correlate1d([2, 8, 0, 4, 1, 9, 9, 0], [1, 3])
    array([ 8, 26,  8, 12,  7, 28, 36,  9])
    """
    return filtered("correlate1d", input, taps_of(weights), output, (axis, mode, cval, origin), precision, threads, device, algorithm)


def convolve1d(
    input: Any, weights: Any, axis: int = -1, output: Any = None, mode: str = "reflect", cval: float = 0.0, origin: int = 0, *,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Convolve along one axis: `scipy.ndimage.convolve1d`.

    Correlation with the weights turned round, and the origin with them; all arguments are those of `correlate1d`.

    Parameters
    ----------
    input, weights, axis, output, mode, cval, origin, precision, threads, device, algorithm
        See `correlate1d`.

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
    >>> convolve1d([2, 8, 0, 4, 1, 9, 9, 0], [1, 3])
    array([14, 24,  4, 13, 12, 36, 27,  0])
    """
    return filtered("convolve1d", input, taps_of(weights), output, (axis, mode, cval, origin), precision, threads, device, algorithm)
