"""The gate before every timing: a wrong answer is never timed.

Each case gets random operands, their exact result and its two scales of error from the tests' oracle, which also
says how far off a result may be. Only one thing is done otherwise here: one large kernel on one large image is
summed by float64 FFTs, because a loop over 961 taps of an 8192 x 8192 image takes minutes; their error is smaller
than that of the judged float32 sums by the ratio of the types.
"""

from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

import numpy as np
from scipy.signal import oaconvolve

from fastconv.planning.problem import DTYPES
from tests.oracles import Truth, bound, pad, stored, truth, unit, wide

LARGE_TAPS = 49  # from here on by FFT
# Peers may use a DFT (OpenCV above 11 x 11) or Winograd (torch): PEERS_CONSTANT u max|x| sum|w| is added to their bound
PEERS_CONSTANT = 64


class WrongAnswer(Exception):
    """A callable's result lies outside its bound; it is not timed."""


class Operands(NamedTuple):
    """``src (n, ic, ih, iw)``, ``wei (oc, ic/g, kh, kw)``, and the oracle's exact result."""

    src: np.ndarray
    wei: np.ndarray
    exact: Truth


def random_operands(problem):
    """Operands of a case, the same in every run: standard normal, or integers of 8 bits."""
    p, rng = problem, np.random.default_rng(crc32(str(problem).encode()))
    arrays = []
    for shape, name in (((p.n, p.ic, p.ih, p.iw), p.src), ((p.oc, p.ic // p.g, p.kh, p.kw), p.wei)):
        dtype = DTYPES[name]
        if dtype.kind in "iu":
            arrays.append(rng.integers(0, min(np.iinfo(dtype).max, 255), shape, dtype, endpoint=True))
        else:
            arrays.append(rng.standard_normal(shape, np.float32 if dtype.itemsize < 8 else np.float64).astype(dtype))
    return arrays


def fft_truth(problem, src, wei):
    """`tests.oracles.truth` of one image and one kernel, by overlap-add."""

    def sums(image, kernel):
        dense = oaconvolve(pad(image, problem)[0, 0], kernel[0, 0, ::-1, ::-1], mode="valid")
        return np.ascontiguousarray(dense[:: problem.sh, :: problem.sw])[None, None]

    src, wei = src.astype(np.float64), wei.astype(np.float64)
    magnitude = np.maximum(sums(np.abs(src), np.abs(wei)), 0)
    return Truth(sums(src, wei), magnitude, np.abs(src).max() * np.abs(wei).sum((1, 2, 3))[:, None, None])


@lru_cache(maxsize=2)
def operands(problem):
    """Operands and exact result of a case; the last ones are kept, so go through cases in the outer loop."""
    p = problem
    src, wei = random_operands(p)
    one_image = p.n == p.ic == p.oc == p.dh == p.dw == 1
    by_fft = one_image and p.taps >= LARGE_TAPS and wide(DTYPES[p.acc]) == np.float64
    return Operands(src, wei, fft_truth(p, src, wei) if by_fft else truth(p, src, wei))


def check(result, problem, algorithm=None, peer=False):
    """Judge a result by the promise of the algorithm's class; a peer's by the looser bound.

    Parameters
    ----------
    result : array_like
        As (n, oc, oh, ow).
    problem : Problem
    algorithm : str, optional
        Ours that computed it.
    peer : bool
        Whether a transform of unknown make may have computed it.

    Returns
    -------
    float
        The largest error over its bound.

    Raises
    ------
    WrongAnswer
        It is above 1, or shape or type are not the problem's.
    """
    exact, result = operands(problem).exact, np.asarray(result)
    for name, found, wanted in (("shape", result.shape, exact.value.shape), ("dtype", result.dtype, DTYPES[problem.dst])):
        if found != wanted:
            raise WrongAnswer(f"{name} {found}, expected {wanted}")
    expected, allowed = stored(problem, exact), bound(problem, exact, algorithm)
    if peer:
        allowed = allowed + PEERS_CONSTANT * unit(result.dtype) * exact.scale
    with np.errstate(divide="ignore", invalid="ignore"):
        worst = float(np.where(result == expected, 0, np.abs(result - expected) / allowed).max())
    if not worst <= 1:
        raise WrongAnswer(f"largest error is {worst:.3g} times its bound")
    return worst
