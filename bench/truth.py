"""The gate before every timing: a wrong answer is never timed.

Each case gets random operands, their exact result and its two scales of error from the tests' oracle, which also
says how far off a result may be. Only one thing is done otherwise here: a large kernel or a large image, one kernel
for each channel, is summed by float64 FFTs, because a loop over 961 taps of an 8192 x 8192 image takes minutes. Their
error is smaller than that of judged float32 sums by the ratio of the types; where float64 sums are judged, operands are
integers of 16 bits, so that the nearest integers are the exact sums.
"""

from functools import cached_property, lru_cache
from zlib import crc32

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import irfft2, next_fast_len, rfft2

from bench.ceilings import at_line
from fastconv.planning.problem import DTYPES, parse_epilogue
from tests.oracles import Truth, bound, pad, stored, truth, unit
from tests.problems import shapes

LARGE_TAPS, LARGE_PRODUCTS = 49, 10**8  # from either on by FFT
BLOCK, BAND = 128, 2**17  # extent of what is transformed, and outputs that are judged, at once: in the cache
# Peers may use a DFT (OpenCV above 11 x 11) or Winograd (torch): PEERS_CONSTANT u max|x| sum|w| is added to their bound
PEERS_CONSTANT = 64


class WrongAnswer(Exception):
    """A callable's result lies outside its bound; it is not timed."""


class Operands:
    """``src`` and ``wei`` in the shapes of the problem's ``op``, and the oracle's exact result, which is computed when it is asked for."""

    def __init__(self, problem):
        self.problem = problem
        # all borders of a case filter one image, in one place: where arrays lie makes some per cent of their time
        self.src, self.wei = random_operands(problem.replace(border="constant"))

    @cached_property
    def exact(self):
        p = self.problem
        if fits_float64(p):
            found = truth(p.replace(src="f64", wei="f64", dst="f64", acc="f64"), self.src.astype(np.float64), self.wei.astype(np.float64))
            return found._replace(value=found.value.astype(np.int64))
        return (fft_truth if by_fft(p) else truth)(p, self.src, self.wei)


def fits_float64(p):
    """Whether sums of bytes in 32 bits are exact in float64, which NumPy multiplies tens of times faster than integers."""
    return (p.src, p.wei, p.dst, p.acc) == ("u8", "i8", "i32", "i32") and not p.epilogue


def by_fft(p):
    """Whether a case's exact result is `fft_truth`'s."""
    depthwise = p.op == "fwd" and p.n == p.dh == p.dw == 1 and p.g == p.ic == p.oc
    large = p.taps >= LARGE_TAPS or p.taps * p.oh * p.ow >= LARGE_PRODUCTS
    return depthwise and large and p.acc in ("f32", "f64")


@lru_cache(maxsize=2)
def random_operands(problem):
    """Operands of a case, the same in every run: standard normal, or integers of 8 bits.

    Weights that are as large as the image are the image: an autocorrelation. Those of 8-bit images are scaled so that
    results fill the range, and beyond.  They begin at cache lines.
    """
    p, rng = problem, np.random.default_rng(crc32(str(problem).encode()))
    arrays = []
    for shape, name in zip(shapes(p)[:2], (p.src, p.wei), strict=True):
        dtype = DTYPES[name]
        if dtype.kind in "iu":
            arrays.append(rng.integers(-128 if name == "i8" else 0, min(np.iinfo(dtype).max, 255), shape, dtype, endpoint=True))
        elif p.acc == "f64" and by_fft(p):
            arrays.append(rng.integers(-(2**15), 2**15, shape, np.int32).astype(dtype))
        else:
            arrays.append(rng.standard_normal(shape, np.float32 if dtype.itemsize < 8 else np.float64).astype(dtype))
    src, wei = (at_line(array) for array in arrays)
    if p.op == "fwd" and wei.shape == src.shape and p.taps > 1:
        wei = src
    if p.src == "u8" and DTYPES[p.wei].kind == "f":
        wei /= np.sqrt(p.taps)
    if p.shared:
        wei[:] = wei[:1]
    return src, wei


def fft_truth(problem, src, wei):
    """`tests.oracles.truth` of one image and a kernel for each of its channels, by overlap-save in blocks that stay in the cache."""
    p, padded = problem, pad(src, problem)
    size = next_fast_len(max(BLOCK, 4 * p.kh, 4 * p.kw), real=True)
    rows, columns, high, broad = size - p.kh + 1, size - p.kw + 1, p.ih_padded - p.kh + 1, p.iw_padded - p.kw + 1
    across = -(-broad // columns)
    value, magnitude = (np.empty((1, p.oc, high, broad)) for _ in range(2))
    for channel, kernel in enumerate(wei[:, 0].astype(np.float64)):
        spectra = [np.conj(rfft2(w, (size, size))) for w in (kernel, np.abs(kernel))]
        for top in range(0, high, rows):
            strip = np.zeros((size, across * columns + p.kw - 1))
            pixels = padded[0, channel, top : top + size]
            strip[: pixels.shape[0], : pixels.shape[1]] = pixels
            for sums, x, spectrum in zip((value, magnitude), (strip, np.abs(strip)), spectra, strict=True):
                blocks = sliding_window_view(x, (size, size))[0, ::columns]
                found = irfft2(rfft2(blocks) * spectrum, (size, size))[:, :rows, :columns]
                sums[0, channel, top : top + rows] = found.swapaxes(0, 1).reshape(rows, -1)[: high - top, :broad]
    largest = float(np.abs(src).max())
    scale = largest * np.abs(wei).sum((1, 2, 3), np.float64)[:, None, None]
    np.maximum(magnitude, 0, out=magnitude)
    if p.acc == "f64":
        np.rint(value, out=value)
    return Truth(value[:, :, :: p.sh, :: p.sw], magnitude[:, :, :: p.sh, :: p.sw], scale)


@lru_cache(maxsize=2)
def operands(problem):
    """`Operands` of a case; the last ones are kept, so go through cases in the outer loop."""
    return Operands(problem)


def _peers_bound(problem, exact):
    """What is added for a transform of unknown make; where sums are rounded to integers, they are near more halves."""
    if not parse_epilogue(problem.epilogue).rounding:
        return PEERS_CONSTANT * unit(DTYPES[problem.dst]) * exact.scale
    allowed = PEERS_CONSTANT * unit(DTYPES[problem.acc]) * exact.scale + bound(problem.replace(epilogue="", dst=problem.acc), exact)
    return np.floor(allowed) + (np.abs(exact.value + 0.5 - np.rint(exact.value + 0.5)) <= allowed)


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
    images, channels, height, width = exact.value.shape
    rows = max(1, BAND // (images * channels * width))
    bands = [slice(top, top + rows) for top in range(0, height, rows)]
    worst = float(np.max([_worst(result[:, :, band], _cut(exact, band), problem, algorithm, peer) for band in bands]))
    if not worst <= 1:
        raise WrongAnswer(f"largest error is {worst:.3g} times its bound")
    return worst


def _cut(exact, band):
    return exact._replace(value=exact.value[:, :, band], magnitude=exact.magnitude[:, :, band])


def _worst(result, exact, problem, algorithm, peer):
    """The largest error over its bound, NaN where one is: of a band of rows, since all of `bound` is element by element."""
    expected, allowed = stored(problem, exact), bound(problem, exact, algorithm)
    if peer:
        allowed = allowed + _peers_bound(problem, exact)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(result == expected, 0, np.abs(result - expected) / allowed).max()
