"""taps: the weights of scipy.ndimage's filters, and in which order and type their sums are SciPy's own.

SciPy 1.17's C code sums in float64, each product rounded before it is added (`scipy/ndimage/src/ni_filters.c`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

EPSILON = 2.0**-52  # SciPy's absolute threshold: taps below it are left out, halves that differ by less are equal


class Sum(NamedTuple):
    """Taps, the order of their products and the accumulator that give SciPy's very result."""

    taps: np.ndarray
    order: str
    acc: str


def negligible(taps: np.ndarray) -> float:
    """What is as nothing beside the largest tap: SciPy's threshold, unless all taps are so small that it would be wrong."""
    return min(EPSILON, 4 * EPSILON * float(np.abs(taps).max(initial=0.0)))


def symmetry(taps: np.ndarray, threshold: float) -> str | None:
    """``symmetric`` or ``antisymmetric`` within a threshold, of an odd number of taps.

    Examples
    --------
    >>> symmetry(np.array([1.0, 2.0, 1.0]), 0.0), symmetry(np.array([-1.0, 0.0, 1.0]), 0.0), symmetry(np.array([1.0, 1.0]), 0.0)
    ('symmetric', 'antisymmetric', None)
    """
    if taps.size % 2 == 0:
        return None
    half = taps.size // 2
    left, right = taps[:half][::-1], taps[half + 1 :]
    if (np.abs(right - left) <= threshold).all():
        return "symmetric"
    return "antisymmetric" if (np.abs(right + left) <= threshold).all() else None


def exact_bits(taps: np.ndarray, largest: float, fill: float) -> int:
    """Bits of a significand that holds every partial sum exactly: 24, 53, or 64 where none does.

    ``largest`` bounds the pixels, whole numbers; ``fill`` is one more.

    Examples
    --------
    >>> exact_bits(np.array([0.25, 0.5, 0.25]), 255, 0.0), exact_bits(np.array([0.1]), 255, 0.0)
    (24, 64)
    """
    if fill != np.rint(fill):
        return 64
    with np.errstate(over="ignore"):
        for shift in (0, 8, 16):
            scaled = np.ldexp(taps, shift)
            if (scaled == np.rint(scaled)).all():
                total = float(np.abs(scaled).sum()) * max(largest, abs(fill))
                return 24 if total < 2**23 else 53 if total < 2**52 else 64
    return 64


def largest(dtype: np.dtype[Any]) -> float:
    """The largest magnitude of an integer type."""
    limits = np.iinfo(dtype)
    return float(max(-int(limits.min), int(limits.max)))


def mean_tap(size: int, src: np.dtype[Any], fill: float, acc: np.dtype[Any]) -> float | None:
    """A tap a little above ``1 / size``: sums of so many products, cut off, are the quotient of the exact sum, cut off.

    Of pixels that are not negative a sum in ``acc`` is off by at most ``e = 2 (size + 4) u`` of itself.  The tap, larger by e, keeps
    it from falling below the quotient; and it stays below the next ``1 / size`` as long as no sum is more than ``1 / (5 (size + 4) u)``.

    Examples
    --------
    >>> mean_tap(4, np.dtype("u1"), 0.0, np.dtype("f4"))
    0.2500002682209015
    >>> mean_tap(4, np.dtype("i1"), 0.0, np.dtype("f4")) is None
    True
    """
    unit = float(np.finfo(acc).eps) / 2
    most = size * max(largest(src), fill)
    if src.kind != "u" or fill < 0 or fill != np.rint(fill) or most * 5 * (size + 4) * unit >= 1:
        return None
    error = 2 * (size + 4) * unit
    tap = acc.type((1 + error * (1 + 2 * error)) / size)
    return float(np.nextafter(tap, acc.type(1)))


def scipy_sum(taps: np.ndarray, line: bool, src: np.dtype[Any], fill: float) -> Sum:
    """How `scipy.ndimage.correlate` (or ``correlate1d``, for a ``line``) sums.

    Where every order gives the same bits it is ``any``.
    """
    small = negligible(taps)
    if not line:
        taps = np.where(np.abs(taps) <= small, 0.0, taps)
    if src.kind != "f":
        bits = exact_bits(taps, largest(src), fill)
        if bits < 64:
            return Sum(taps, "any", "f32" if bits == 24 else "f64")
    order = symmetry(taps, small) if line and taps.size > 1 else "raster"
    if order is not None:
        return Sum(taps, order, "f64")
    # SciPy adds the last product first: of two products no matter; nor where it takes the halves for equal, and is wrong
    return Sum(taps, "raster" if np.count_nonzero(taps) <= 2 or symmetry(taps, EPSILON) else "last", "f64")


def as_scipy(taps: np.ndarray, line: bool) -> bool:
    """Whether SciPy's absolute threshold and `negligible` tell the same of these taps."""
    small = negligible(taps)
    if line:
        return symmetry(taps, EPSILON) == symmetry(taps, small)
    return bool((np.abs(taps[np.abs(taps) <= EPSILON]) <= small).all())


def gaussian(sigma: float, order: int, radius: int) -> np.ndarray:
    """A Gaussian of ``2 * radius + 1`` taps that add up to 1, or its derivative; for correlation.  Bit for bit SciPy's.

    The derivative of order d is q(x) times the Gaussian; q is found by d times ``q' - q x / sigma**2``.
    """
    variance = sigma * sigma
    x = np.arange(-radius, radius + 1)
    bell = np.exp(-0.5 / variance * x**2)
    bell = bell / bell.sum()
    if order == 0:
        return bell[::-1]
    powers = np.arange(order + 1)
    step = np.diag(powers[1:], 1) + np.diag(np.ones(order) / -variance, -1)
    polynomial = np.zeros(order + 1)
    polynomial[0] = 1
    for _ in range(order):
        polynomial = step.dot(polynomial)
    derivative: np.ndarray = (x[:, None] ** powers).dot(polynomial) * bell
    return derivative[::-1]
