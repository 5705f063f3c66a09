"""taps: the one-dimensional kernels that OpenCV's smoothing and derivative filters are made of."""

from __future__ import annotations

import math

import numpy as np

# ksize -> taps times 256 where no sigma is given
_BINOMIAL = {
    1: (256,),
    3: (64, 128, 64),
    5: (16, 64, 96, 64, 16),
    7: (8, 28, 56, 72, 56, 28, 8),
    9: (4, 13, 30, 51, 60, 51, 30, 13, 4),
}


def gaussian(ksize: int, sigma: float) -> np.ndarray:
    """The taps of `cv2.getGaussianKernel` for an odd ksize; sigma <= 0 is 0.15 ksize + 0.35, or a table up to ksize 9.

    Equal to OpenCV's up to the last bits of `exp`, which it computes in software.

    Examples
    --------
    >>> gaussian(5, 0).tolist()
    [0.0625, 0.25, 0.375, 0.25, 0.0625]
    """
    if sigma <= 0 and ksize in _BINOMIAL:  # NaN is neither
        return np.array(_BINOMIAL[ksize]) / 256
    scale = -0.125 / (sigma if sigma > 0 else ksize * 0.15 + 0.35) ** 2
    left = [math.exp(x * x * scale) for x in range(1 - ksize, 0, 2)]
    return np.array([*left, 1.0, *left[::-1]]) / (2 * sum(left) + 1)


def fixed_point(taps: np.ndarray, bits: int) -> np.ndarray:
    """Odd symmetric taps of sum 1 as multiples of ``2**-bits`` of sum 1.

    From the ends inward each tap is rounded with the error of those before it; the middle one is what is left.

    Examples
    --------
    >>> (fixed_point(gaussian(5, 1.0), 8) * 256).tolist()
    [14.0, 62.0, 104.0, 62.0, 14.0]
    """
    one, error, left = 1 << bits, 0.0, []
    for tap in taps[: len(taps) // 2].tolist():
        exact = tap * one + error
        left.append(round(exact))
        error = exact - left[-1]
    return np.array([*left, one - 2 * sum(left), *left[::-1]]) / one


def derivative(order: int, ksize: int) -> np.ndarray:
    """The taps of `cv2.getDerivKernels` along one axis: binomial smoothing and ``order`` differences; ksize 1 with an order is 3.

    Examples
    --------
    >>> derivative(1, 3).tolist(), derivative(2, 5).tolist()
    ([-1.0, 0.0, 1.0], [1.0, 0.0, -2.0, 0.0, 1.0])
    """
    taps = np.ones(1)
    for step in range((3 if ksize == 1 and order else ksize) - 1):
        taps = np.convolve(taps, (-1, 1) if step < order else (1, 1))
    return taps


def scharr(order: int) -> np.ndarray:
    """The three taps of Scharr's operator across (0) and along (1) its derivative.

    Examples
    --------
    >>> scharr(0).tolist(), scharr(1).tolist()
    ([3.0, 10.0, 3.0], [-1.0, 0.0, 1.0])
    """
    return np.array([-1.0, 0.0, 1.0] if order else [3.0, 10.0, 3.0])
