"""The gate before every timing: a wrong answer is never timed.

Each case gets random operands and their exact result, summed in float64 (longdouble for float64 results, 64-bit
integers for integers) by a loop over taps, or for one large kernel by overlap-add FFTs whose own error is part of
the bound.
"""

from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

import numpy as np
from scipy.signal import oaconvolve

from fastconv.planning.problem import DTYPES

LARGE_TAPS = 49  # from here on one channel of float32 is summed by float64 FFTs: 24 times the digits, a fraction of the time
DFT_CONSTANT = 64  # peers that may use a DFT or Winograd: |error| <= DFT_CONSTANT u max|x| sum|w|


class WrongAnswer(Exception):
    """A callable's result lies outside its bound; it is not timed."""


@dataclass(frozen=True)
class Operands:
    """``src (n, ic, ih, iw)``, ``wei (oc, ic/g, kh, kw)``, and the exact result with its two error scales."""

    src: np.ndarray
    wei: np.ndarray
    exact: np.ndarray
    magnitude: np.ndarray | None  # sum|w x| per output; None where equality is demanded
    scale: float  # max|x| max over oc of sum|w|


def random_operands(problem):
    """Operands of a case, the same in every run."""
    rng = np.random.default_rng(crc32(str(problem).encode()))
    shapes = (problem.n, problem.ic, problem.ih, problem.iw), (problem.oc, problem.ic // problem.g, problem.kh, problem.kw)
    arrays = []
    for shape, name in zip(shapes, (problem.src, problem.wei), strict=True):
        dtype = DTYPES[name]
        if dtype.kind in "iu":
            high = min(np.iinfo(dtype).max, 255)
            arrays.append(rng.integers(0, high, shape, dtype, endpoint=True))
        else:
            arrays.append(rng.standard_normal(shape, np.float32 if dtype.itemsize < 8 else np.float64).astype(dtype))
    return arrays


def pad(src, problem):
    """``src`` with its border written out, as numpy.pad writes it."""
    widths = ((0, 0), (0, 0), (problem.pt, problem.pb), (problem.pl, problem.pr))
    return np.pad(src, widths, mode=problem.border) if any(map(any, widths)) else src


def tap_sums(padded, wei, problem):
    """Sum over taps of shifted slices, channels by matrix products; ``padded`` and ``wei`` in the type of the sums."""
    n, g, oh, ow = problem.n, problem.g, problem.oh, problem.ow
    weights = wei.reshape(g, problem.oc // g, problem.ic // g, problem.kh, problem.kw)
    total = np.zeros((n, g, problem.oc // g, oh * ow), padded.dtype)
    for ky in range(problem.kh):
        for kx in range(problem.kw):
            y, x = ky * problem.dh, kx * problem.dw
            pixels = padded[
                :, :, y : y + (oh - 1) * problem.sh + 1 : problem.sh, x : x + (ow - 1) * problem.sw + 1 : problem.sw
            ]
            total += np.matmul(weights[..., ky, kx], pixels.reshape(n, g, problem.ic // g, oh * ow))
    return total.reshape(n, problem.oc, oh, ow)


def _fft_sums(padded, wei, problem):
    full = oaconvolve(padded[0, 0], wei[0, 0, ::-1, ::-1], mode="valid")
    return np.ascontiguousarray(full[:: problem.sh, :: problem.sw])[None, None]


@lru_cache(maxsize=2)
def operands(problem):
    """Operands and exact result of a case; the last ones are kept, so go through cases in the outer loop."""
    src, wei = random_operands(problem)
    dst = DTYPES[problem.dst]
    if dst.kind in "iu":
        padded = pad(src.astype(np.int64), problem)
        exact = tap_sums(padded, wei.astype(np.int64), problem).astype(dst)
        return Operands(src, wei, exact, None, 0.0)
    one_image = problem.n == problem.ic == problem.oc == 1 and problem.dh == problem.dw == 1
    wide = np.longdouble if dst.itemsize >= 8 else np.float64
    sums = _fft_sums if wide is np.float64 and one_image and problem.taps >= LARGE_TAPS else tap_sums
    padded, weights = pad(src.astype(wide), problem), wei.astype(wide)
    exact = sums(padded, weights, problem)
    magnitude = np.maximum(sums(np.abs(padded), np.abs(weights), problem), 0)
    scale = float(np.abs(src).max()) * float(np.abs(weights).sum((1, 2, 3)).max())
    return Operands(src, wei, exact, magnitude, scale)


def worst_error(result, problem, transform=False):
    """Largest |error| over its bound (at most 1 is right); for integers 0 where equal, inf where not.

    ``result`` is (n, oc, oh, ow). The bound of sums is each output's own; ``transform`` is for peers free to use a DFT.
    """
    ops = operands(problem)
    result = np.asarray(result)
    if result.shape != ops.exact.shape:
        raise WrongAnswer(f"shape {result.shape}, expected {ops.exact.shape}")
    if result.dtype != DTYPES[problem.dst]:
        raise WrongAnswer(f"dtype {result.dtype}, expected {DTYPES[problem.dst]}")
    if ops.magnitude is None:
        return 0.0 if np.array_equal(result, ops.exact) else float("inf")
    unit = np.finfo(result.dtype).eps / 2
    bound = 2 * (problem.taps + 4) * unit * ops.magnitude
    if transform:
        bound = bound + DFT_CONSTANT * unit * ops.scale
    error = np.abs(result - ops.exact)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0, 0, error / bound)
    worst = float(ratio.max())
    return worst if worst == worst else float("inf")


def check(result, problem, transform=False):
    """Raise `WrongAnswer` unless ``result`` lies within its bound; the worst ratio otherwise."""
    worst = worst_error(result, problem, transform)
    if worst > 1:
        raise WrongAnswer(f"largest error is {worst:.3g} times its bound")
    return worst
