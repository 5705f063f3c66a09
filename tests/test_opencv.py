"""fastconv.opencv against cv2: function x type x ksize x border x ddepth x channels; integers are equal."""

import itertools
import random

import cv2
import numpy as np
import pytest

from fastconv import opencv
from fastconv.opencv.taps import derivative, scharr
from tests.oracles import assert_close
from tests.oracles import opencv as peer
from tests.problems import random_array

TYPES = ("u1", "u2", "i2", "f4", "f8")
BORDERS = (0, 1, 2, 4, 4 | cv2.BORDER_ISOLATED)
SHAPES = ((17, 35), (12, 13, 3), (1, 21, 1), (8, 1), (2, 3, 5))  # with channels; one row, one column; smaller than kernels
KERNELS = ((3, 3), (5, 4), (1, 7), (6, 1), (2, 2), (9, 9))
DIRECT = {"u1": (-1, 0, 2, 3, 5, 6), "u2": (-1, 2, 5, 6), "i2": (-1, 3, 5, 6), "f4": (-1, 5), "f8": (-1, 6)}
SEPARABLE = {**dict.fromkeys(("u1", "u2", "i2", "f4"), (-1, 0, 2, 3, 5, 6)), "f8": (-1, 0, 2, 3, 6)}
BOX = {**dict.fromkeys(("u1", "u2", "i2"), (-1, 0, 2, 3, 4, 5, 6)), **dict.fromkeys(("f4", "f8"), (-1, 0, 2, 3, 5, 6))}
# (image, result) whose kernels the fast tests compile; the others' problems run on the reference, and as planned with --slow
COMPILED = (("uint8", "uint8"), ("uint8", "int16"), ("float32", "float32"))
LAPLACIAN = dict.fromkeys(TYPES, (-1, 0, 2, 3, 4, 5, 6))


def image(shape, dtype, seed=0):
    return random_array(np.random.default_rng([seed, *shape]), shape, dtype)


def kernel(shape, whole, seed=0):
    rng = np.random.default_rng([seed, *np.atleast_1d(shape)])
    if whole:
        return rng.integers(-5, 6, shape).astype(np.float32)
    w = rng.standard_normal(shape).astype(np.float32)
    return w / np.abs(w).sum()


def summed(src, ddepth, taps):
    """Taps in the type of OpenCV's sums, in float64."""
    return np.asarray(taps, np.float64 if src.dtype == np.float64 or ddepth == cv2.CV_64F else np.float32).astype(np.float64)


def check(name, src, *arguments, weights, planned=False, **keywords):
    expected, allowed = peer(name, src, *arguments, weights=weights, **keywords)
    algorithm = None if planned or (src.dtype.name, expected.dtype.name) in COMPILED else "reference"
    result = getattr(opencv, name)(src, *arguments, algorithm=algorithm, **keywords)
    assert result.dtype == expected.dtype
    assert result.flags.c_contiguous
    what = f"{name} {src.dtype} {src.shape} {[a for a in arguments if np.ndim(a) < 1]} {keywords}"
    assert_close(result.astype(np.float64), expected.astype(np.float64), allowed, what)


slow_as_planned = pytest.mark.parametrize("planned", [False, pytest.param(True, marks=pytest.mark.slow)])


def cases(planned, *lists):
    """A border and one of each list, all combinations; of the fast run a third, drawn once."""
    combinations = list(itertools.product(*lists))
    if not planned:
        combinations = random.Random(0).sample(combinations, -(-len(combinations) // 3))
    return zip(itertools.cycle(BORDERS), combinations, strict=False)


@slow_as_planned
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("dtype", TYPES)
def test_filter2d(dtype, whole, planned):
    for border, (shape, k, ddepth) in cases(planned, SHAPES, KERNELS, DIRECT[dtype]):
        src, w = image(shape, dtype), kernel(k, whole)
        check("filter2D", src, ddepth, w, weights=summed(src, ddepth, w), borderType=border, planned=planned)


@slow_as_planned
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("dtype", TYPES)
def test_sepfilter2d(dtype, whole, planned):
    for border, (shape, k, ddepth) in cases(planned, SHAPES, KERNELS, SEPARABLE[dtype]):
        src, y, x = image(shape, dtype), kernel(k[0], whole), kernel(k[1], whole, 1)
        weights = np.outer(summed(src, ddepth, y), summed(src, ddepth, x))
        check("sepFilter2D", src, ddepth, x, y, weights=weights, borderType=border, planned=planned)


@slow_as_planned
@pytest.mark.parametrize("dtype", TYPES)
def test_every_border_and_delta(dtype, planned):
    for border, shape, delta in itertools.product(BORDERS, SHAPES, (0, 7, -2.5)):
        src, w = image(shape, dtype), summed(image(shape, dtype), -1, kernel((4, 5), False))
        check("filter2D", src, -1, w, weights=w, borderType=border, delta=delta, planned=planned)
        check("sepFilter2D", src, -1, w[0], w[1], weights=np.outer(w[1], w[0]), borderType=border, delta=delta, planned=planned)


@slow_as_planned
@pytest.mark.parametrize("dtype", TYPES)
def test_every_anchor(dtype, planned):
    src, w = image((7, 9, 3), dtype), kernel((3, 4), True).astype(np.float64)
    for anchor in itertools.product((-1, 0, 1, 2, 3), (-1, 0, 1, 2)):
        check("filter2D", src, -1, w, weights=w, anchor=anchor, borderType=1, planned=planned)
        check("sepFilter2D", src, -1, w[0], w[:, 0], weights=np.outer(w[:, 0], w[0]), anchor=anchor, planned=planned)
        check("boxFilter", src, -1, (4, 3), weights=np.ones((3, 4)), anchor=anchor, normalize=False, planned=planned)


def test_zeros_at_the_edges_of_a_kernel_beside_any_anchor():
    w = np.zeros((5, 5), np.float32)
    src = image((8, 9), "u1")
    for taps in ([(2, 2)], [(0, 0)], [(4, 4), (3, 1)], [(1, 2), (2, 2)], []):
        w[:] = 0
        w[tuple(np.transpose(taps)) if taps else ([], [])] = 3
        for anchor in ((-1, -1), (0, 0), (4, 4), (1, 3)):
            check("filter2D", src, 3, w, weights=w.astype(np.float64), anchor=anchor, borderType=0)


@slow_as_planned
@pytest.mark.parametrize("dtype", TYPES)
def test_sobel_and_scharr(dtype, planned):
    orders = ((1, 0), (0, 1), (1, 1), (2, 0), (2, 1))
    scalings = itertools.cycle(((1, 0), (0.5, 0), (-2, 3.5), (1 / 3, 1)))
    for border, (shape, k, (dx, dy), ddepth) in cases(planned, SHAPES[:3], (1, 3, 5, 7, -1), orders, SEPARABLE[dtype]):
        if k == -1 and dx + dy != 1:
            continue
        src, (scale, delta) = image(shape, dtype), next(scalings)
        x, y = (scharr(o) if k == -1 else derivative(o, k) for o in (dx, dy))
        x, y = (x * scale, y) if dx == 0 else (x, y * scale)
        weights = np.outer(summed(src, ddepth, y), summed(src, ddepth, x))
        keywords = {"scale": scale, "delta": delta, "borderType": border}
        check("Sobel", src, ddepth, dx, dy, weights=weights, ksize=k, **keywords, planned=planned)
        if k == -1:
            check("Scharr", src, ddepth, dx, dy, weights=weights, **keywords, planned=planned)


@slow_as_planned
@pytest.mark.parametrize("dtype", TYPES)
def test_laplacian(dtype, planned):
    small = {1: [[0, 1, 0], [1, -4, 1], [0, 1, 0]], 3: [[2, 0, 2], [0, -8, 0], [2, 0, 2]]}
    for k in (1, 3, 5, 7):
        depths = DIRECT[dtype] if k < 5 else LAPLACIAN[dtype]
        for border, (shape, ddepth, (scale, delta)) in cases(planned, SHAPES, depths, ((1, 0), (0.5, 3))):
            weights = np.array(small[k], float) if k < 5 else np.outer(derivative(0, k), derivative(2, k))
            weights = weights if k < 5 else weights + weights.T
            src, keywords = image(shape, dtype), {"ksize": k, "scale": scale, "delta": delta, "borderType": border}
            check("Laplacian", src, ddepth, weights=weights * scale, planned=planned, **keywords)


def negative(src, ddepth):
    """OpenCV's sums of int16 that are negative become the largest CV_8U and CV_16U, not 0."""
    return src.dtype == np.int16 and ddepth in (cv2.CV_8U, cv2.CV_16U)


@slow_as_planned
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", TYPES)
def test_boxfilter(dtype, normalize, planned):
    for border, (shape, k, ddepth) in cases(planned, SHAPES, KERNELS, BOX[dtype]):
        src = image(shape, dtype)
        src = np.abs(src) if negative(src, ddepth) else src
        weights = np.full(k, 1 / (k[0] * k[1]) if normalize else 1.0)
        check("boxFilter", src, ddepth, k[::-1], weights=weights, normalize=normalize, borderType=border, planned=planned)


def levels(count, size):
    """An image whose windows have sums spread over all that ``count`` pixels of uint8 can have."""
    rng = np.random.default_rng([count, size])
    ramp = np.arange(size * size).reshape(size, size) * 256 // (size * size)
    return np.clip(ramp + rng.integers(-9, 10, ramp.shape), 0, 255).astype(np.uint8)


def test_uint8_means_are_opencvs_for_every_window():
    """floor((sum + whole) / count) up to 256 pixels, where a half is one more for powers of two; half to even above."""
    sizes = [
        *((k, k) for k in (*range(1, 18), 23, 31)),
        (5, 4),
        (6, 3),
        (1, 2),
        (2, 1),
        (1, 8),
        (15, 17),
        (16, 17),
        (31, 2),
        (3, 30),
        (64, 4),
    ]
    for width, height in sizes:
        src = levels(width * height, 64)
        expected = cv2.blur(src, (width, height))
        result = opencv.blur(src, (width, height))
        if width * height <= 256:
            assert np.array_equal(result, expected), (width, height)
        else:
            check("blur", src, (width, height), weights=np.full((height, width), 1 / (width * height)))


def test_the_sum_of_two_white_pixels_is_white():
    """OpenCV's last columns wrap to black: (510 + 2) // 2 is not saturated there."""
    src = np.full((4, 37), 255, np.uint8)
    assert (opencv.blur(src, (2, 1)) == 255).all()
    assert np.isin(cv2.blur(src, (2, 1)), (0, 255)).all()


def test_negative_means_of_int16_are_no_large_unsigned_ones():
    src = np.full((5, 40), -7, np.int16)
    for ddepth, normalize in itertools.product((cv2.CV_8U, cv2.CV_16U), (True, False)):
        assert not opencv.boxFilter(src, ddepth, (3, 3), normalize=normalize, algorithm="reference").any()


def equal(src, planned, *arguments, **keywords):
    algorithm = None if planned or src.dtype == np.uint8 else "reference"
    result, expected = opencv.GaussianBlur(src, *arguments, algorithm=algorithm, **keywords), cv2.GaussianBlur(src, *arguments, **keywords)
    assert result.shape == expected.shape
    assert np.array_equal(result, expected), (src.dtype, src.shape, arguments, keywords)


@slow_as_planned
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_gaussian_blur_of_integers_is_equal(dtype, planned):
    sigmas = (0, 0.3, 0.8, 1, 1.5, 2, 3, 5, 10, 50) if planned or dtype == "u1" else (0, 2)
    for border, (k, sigma) in zip(itertools.cycle((0, 1, 2, 3, 4, 18)), itertools.product(range(1, 32, 2), sigmas), strict=False):
        equal(image((21, 34), dtype, k), planned, (k, k), sigma, borderType=border)


@slow_as_planned
@pytest.mark.parametrize("dtype", TYPES)
def test_gaussian_blur_of_rectangles_channels_and_sigmas(dtype, planned):
    calls = (
        ((3, 5), 0, 0),
        ((9, 1), 1.2, 0),
        ((1, 7), 1, 2),
        ((0, 0), 1.5, 0),
        ((0, 5), 0.7, 2.2),
        ((7, 7), 0, 3),
        ((1, 1), 3, 3),
        ((31, 3), 0, 0),
    )
    for shape, border, (k, sx, sy) in itertools.product(SHAPES, BORDERS, calls):
        src = image(shape, dtype)
        if dtype in ("u1", "u2"):
            equal(src, planned, k, sx, sigmaY=sy, borderType=border)
            continue
        reach, sigmas = 4, (sx, sy if sy > 0 else sx)
        kw, kh = (n if n else round(s * reach * 2 + 1) | 1 for n, s in zip(k, sigmas, strict=True))
        if border & 15:
            kw, kh = 1 if src.shape[1] == 1 else kw, 1 if src.shape[0] == 1 else kh
        x, y = (
            cv2.getGaussianKernel(n, s, cv2.CV_64F if dtype == "f8" else cv2.CV_32F).ravel().astype(float)
            for n, s in ((kw, sigmas[0]), (kh, sigmas[1]))
        )
        check("GaussianBlur", src, k, sx, weights=np.outer(y, x), sigmaY=sy, borderType=border, planned=planned)


def test_taps_beyond_float32_keep_their_sums():
    """Factors that underflow or overflow are no rank that could be proven; what is not finite is where the sums put it."""
    src = image((9, 35), "f4")
    for x, y in (([1e-30, 1, 2e-30], [3e-30, 1, 1]), ([1e30, 1, 2], [1e-30, 3, 1]), ([1e-44, 1, 0], [1, 1e-40, 2])):
        x, y = np.array(x, np.float32), np.array(y, np.float32)
        check("sepFilter2D", src, -1, x, y, weights=np.outer(summed(src, -1, y), summed(src, -1, x)))
    for taps in ([np.inf, 1, 1], [np.nan, 1, 1]):
        taps = np.array(taps, np.float32)
        with np.errstate(invalid="ignore"):
            result, expected = (m.sepFilter2D(np.abs(src) + 1, -1, taps, np.ones(3, np.float32)) for m in (opencv, cv2))
        assert np.array_equal(result, expected, equal_nan=True)
    narrow = cv2.getGaussianKernel(31, 0.3, cv2.CV_32F).ravel()
    check("GaussianBlur", src, (31, 31), 0.3, weights=np.outer(summed(src, -1, narrow), summed(src, -1, narrow)))
