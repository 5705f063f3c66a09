"""Filters, masks, epilogues and complex numbers on arrays of a card against the host's answers: alike in the simulator and on a real card.

``checks(slow)`` names functions of ``card``, which makes an array of a card of one of the host.
"""

import itertools
from functools import partial

import cv2
import numpy as np

import fastconv
from fastconv import ndimage, nn, opencv
from fastconv.nn import Epilogue
from fastconv.opencv.taps import derivative, scharr
from tests.oracles import assert_close, scipy_ndimage
from tests.oracles import opencv as peer
from tests.problems import random_array
from tests.test_ndimage import CALLS, MODES, bits, named
from tests.test_opencv import BORDERS, DIRECT, SEPARABLE, kernel, negative, summed

INTEGERS, FLOATS = ("u1", "i2", "?", "u4", "i8", "i1", "u8", "u2", "i4"), ("f4", "f8")
SHAPES = ((7, 9), (5, 6, 3), (8, 1), (1, 9, 1))


def back(result):
    """A result of whatever library as an array of the host."""
    return result.copy_to_host() if hasattr(result, "copy_to_host") else np.asarray(result)


def image(dtype, shape=(7, 9)):
    return random_array(np.random.default_rng(5), shape, dtype)


def check_ndimage(card, call, dtype, mode, output=None, precision="default"):
    name, args, kw = call
    x, kw = image(dtype) * (9 if output and dtype in FLOATS else 1), {**kw, "mode": mode, "cval": 3}
    x = x.astype(dtype)
    if output is not None:
        kw["output"] = output
    expected, allowed = scipy_ndimage(name, x, *args, **kw)
    got = back(getattr(ndimage, name)(card(x), *args, **kw, precision=precision))
    assert got.dtype == expected.dtype
    strict = precision == "strict" and name != "uniform_filter"
    assert_close(bits(got), bits(expected), 0 if strict else allowed, f"{name} {dtype} {kw}")


def check_weights_of_the_card(card, call, dtype, mode):
    """With the host's weights an order of sums is chosen; here each thread finds it."""
    name, args, kw = call
    x, weights = image(dtype), np.asarray(args[0], "f8")
    for output in (None, "u8", "f8"):
        expected = scipy_ndimage(name, x, weights, **kw, mode=mode, cval=3, output=output)[0]
        got = back(getattr(ndimage, name)(card(x), card(weights), **kw, mode=mode, cval=3, output=output))
        np.testing.assert_array_equal(bits(got), bits(expected), f"{name} {dtype} {kw} {output}")


def spoiled(dtype):
    x = image(dtype, (9, 12))
    x[3, 4], x[6, 10], x[-1, 0] = np.nan, np.inf, -np.inf
    return x


def check_not_finite(card, call, dtype):
    name, args, kw = call
    x = spoiled(dtype)
    expected, allowed = scipy_ndimage(name, x, *args, **kw, mode="nearest")
    assert_close(back(getattr(ndimage, name)(card(x), *args, **kw, mode="nearest")), expected, allowed, name)


def check_further_ndimage(card):
    x = image("i2", (3, 4, 6, 5))
    for name, args, kw in (("gaussian_filter", (0.8,), {"axes": (1, 2)}), ("correlate", (np.ones((2, 3)),), {"axes": (0, 3)}),
                           ("uniform_filter", (2,), {}), ("gaussian_gradient_magnitude", (0.7,), {}), ("sobel", (1,), {}),
                           ("gaussian_filter", (0,), {"output": "u1"})):  # fmt: skip
        np.testing.assert_array_equal(back(getattr(ndimage, name)(card(x), *args, **kw)), scipy_ndimage(name, x, *args, **kw)[0], name)
    turned = image("f8", (9, 7)).T
    weights = np.arange(6.0).reshape(2, 3)
    expected, allowed = scipy_ndimage("correlate", turned, weights)
    assert_close(back(ndimage.correlate(card(turned), weights)), expected, allowed)
    large = np.array([[2**60, -(2**61), 5, 2**62 - 1, 7, 9]])  # beyond float64's whole numbers: SciPy's running sums round
    np.testing.assert_array_equal(back(ndimage.uniform_filter(card(large), (1, 3))), scipy_ndimage("uniform_filter", large, (1, 3))[0])
    pixels = image("f4") * 9
    got = back(ndimage.uniform_filter(card(pixels), 3, output="i4"))
    np.testing.assert_array_equal(got, scipy_ndimage("uniform_filter", pixels, 3, output="i4")[0])


def opencv_calls(src, ddepth, separable, n):
    """Function, arguments, the filter's weights in float64, keywords."""
    whole, column, row = kernel((3, 4), True), kernel(3, True), kernel((5,), True, 1)
    yield "filter2D", (ddepth, whole), summed(src, ddepth, whole), {"delta": 3 * (n % 2), "anchor": ((-1, -1), (0, 2))[n % 2]}
    yield "sepFilter2D", (separable, row, column), np.outer(summed(src, separable, column), summed(src, separable, row)), {}
    if not negative(src, separable):
        count = 1 if n % 2 else 6
        yield "boxFilter", (separable, (3, 2)), np.full((2, 3), 1 / count), {"normalize": n % 2 == 0}
    yield "Sobel", (separable, 1, 1), np.outer(derivative(1, 3), derivative(1, 3)), {"ksize": 3}
    yield "Scharr", (separable, 1, 0), np.outer(scharr(0), scharr(1)), {}
    yield "Laplacian", (ddepth,), np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], float), {"ksize": 1}


def check_opencv(card, dtype, n):
    border, shape = BORDERS[n % len(BORDERS)], SHAPES[n % len(SHAPES)]
    src = image(dtype, shape)
    ddepth, separable = DIRECT[dtype][n % len(DIRECT[dtype])], SEPARABLE[dtype][n % len(SEPARABLE[dtype])]
    calls = list(opencv_calls(src, ddepth, separable, n))
    for name, arguments, weights, keywords in calls:
        expected, allowed = peer(name, src, *arguments, weights=weights, borderType=border, **keywords)
        got = back(getattr(opencv, name)(card(src), *arguments, borderType=border, **keywords))
        assert got.dtype == expected.dtype
        assert_close(got.astype(np.float64), expected.astype(np.float64), allowed, f"{name} {dtype} {shape} {arguments} {keywords}")
    if dtype in ("u1", "u2"):  # whose rules are exact; of others the sums are the separable filter's
        np.testing.assert_array_equal(back(opencv.GaussianBlur(card(src), (5, 3), 0.8)), opencv.GaussianBlur(src, (5, 3), 0.8))
    else:
        weights = np.outer(cv2.getGaussianKernel(3, 0.8), cv2.getGaussianKernel(5, 0.8))
        expected, allowed = peer("sepFilter2D", src, -1, cv2.getGaussianKernel(5, 0.8), cv2.getGaussianKernel(3, 0.8), weights=weights)
        assert_close(back(opencv.GaussianBlur(card(src), (5, 3), 0.8)).astype(float), expected.astype(float), allowed)
    if dtype == "u1":
        np.testing.assert_array_equal(back(opencv.blur(card(src), (3, 3))), opencv.blur(src, (3, 3)))


def check_opencv_not_finite(card, dtype):
    src, taps = spoiled(dtype), np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], float)
    got, wanted = back(opencv.filter2D(card(src), -1, taps, delta=2)), opencv.filter2D(src, -1, taps, delta=2)
    assert (np.isnan(got) == np.isnan(wanted)).all()
    assert (np.isinf(got) == np.isinf(wanted)).all()


def check_kernels_of_the_card(card, dtype):
    src, taps = image(dtype, (5, 6, 3)), np.array([[0, 1, 0], [2, -4, 1]], "i2")
    for where in ({}, {"anchor": (0, 1), "delta": 3}):
        np.testing.assert_array_equal(back(opencv.filter2D(card(src), -1, card(taps), **where)), opencv.filter2D(src, -1, taps, **where))
    src = spoiled("f4")
    got, wanted = back(opencv.filter2D(card(src), -1, card(taps))), opencv.filter2D(src, -1, taps)
    assert (np.isnan(got) == np.isnan(wanted)).all()
    assert (np.isinf(got) == np.isinf(wanted)).all()
    row = whole("f4", (3, 9))
    np.testing.assert_array_equal(back(opencv.filter2D(card(row), -1, card(np.ones(3)))), opencv.filter2D(row, -1, np.ones(3)))


def whole(dtype, shape, low=-8):
    """Numbers of which all sums are exact."""
    return np.random.default_rng([3, *shape]).integers(max(low, 0) if dtype[0] == "u" else low, 9, shape).astype(dtype)


def check_masks(card, boundary):
    valid = np.random.default_rng(0).random((7, 11)) < 0.6
    for dtype, mode in (("f4", "same"), ("f8", "full"), ("i2", "valid")):
        x, w = whole(dtype, (7, 11)), whole("u1", (3, 3), 1).astype(dtype)
        wanted = fastconv.correlate2d(x, w, mode, boundary, mask=valid)
        for mask in (card(valid), valid):
            np.testing.assert_array_equal(back(fastconv.correlate2d(card(x), w, mode, boundary, mask=mask)), wanted)
        if dtype != "i2":
            holes = np.where(valid, x, np.nan).astype(dtype)
            got = fastconv.convolve2d(card(holes), card(w), mode, boundary, mask="nan", stride=2)
            np.testing.assert_array_equal(back(got), fastconv.convolve2d(holes, w, mode, boundary, mask="nan", stride=2))


def of_card(card, fields):
    return Epilogue(**{name: card(value) if isinstance(value, np.ndarray) else value for name, value in fields.items()})


EPILOGUES = (
    {"scale": whole("f4", (3,)), "shift": 2.5, "activation": "relu"},
    {"scale": 0.25, "shift": whole("f4", (3,)), "residual": whole("f4", (2, 3, 5, 9)), "activation": "relu6", "dtype": "u1"},
    {"residual": whole("i4", (2, 3, 5, 9)), "activation": "relu"},
    {"scale": 0.25, "dtype": "i1", "zero_point": -5},
    {"residual": whole("f4", (2, 3, 5, 9)), "activation": ("leaky_relu", 0.25), "dtype": "f8"},
    {"dtype": "i2"},
)  # fmt: skip


def check_epilogue(card, types, fields):
    x, w, b = whole(types[0], (2, 2, 5, 9)), whole(types[1], (3, 2, 3, 3), -3), np.arange(3, dtype="i1")
    wanted = nn.conv2d(x, w, b, padding=1, epilogue=Epilogue(**fields))
    got = back(nn.conv2d(card(x), w, b, padding=1, epilogue=of_card(card, fields)))
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)


def check_complex(card, flip):
    function = (fastconv.correlate2d, fastconv.convolve2d)[flip]
    x, w = whole("f4", (7, 11)), whole("f4", (3, 2))
    z, v = (x + 1j * x[::-1]).astype("c8"), (w - 2j * w[::-1]).astype("c8")
    for image, taps, boundary, fill in ((z, v, "symm", 0), (z, w, "fill", 2 - 1j), (x, v, "fill", 3)):
        for mode, stride in (("full", 1), ("same", (2, 1))):
            wanted = function(image, taps, mode, boundary, fill, stride=stride)
            np.testing.assert_array_equal(back(function(card(image), card(taps), mode, boundary, fill, stride=stride)), wanted)
    for small, large in ((w, x), (v, z)):  # SciPy exchanges the inputs
        np.testing.assert_array_equal(back(function(card(small), card(large), "valid")), function(small, large, "valid"))


def check_complex_ndimage(card):
    x = whole("f8", (7, 11)) + 1j * whole("f8", (8, 11))[1:]
    for name, args, kw in (("correlate", (np.arange(6.0).reshape(2, 3),), {"mode": "constant", "cval": 2 - 3j}), ("laplace", (), {}),
                           ("correlate1d", ([1, 2, 4],), {"axis": 0, "mode": "constant", "cval": 5})):  # fmt: skip
        np.testing.assert_array_equal(back(getattr(ndimage, name)(card(x), *args, **kw)), scipy_ndimage(name, x, *args, **kw)[0], name)


def check_unreached(card, activation, dtype):
    """Rows and columns of a transposed convolution that no tap reaches, and that are no part of a smaller stride's grid."""
    x, w, b = whole(dtype, (1, 2, 3, 2)), whole("u1", (2, 3, 1, 2)).astype(dtype), np.arange(-1, 2).astype(dtype)
    how = {"stride": 2, "output_padding": 2, "dilation": 3, "bias": b, "activation": activation}
    np.testing.assert_array_equal(back(nn.conv_transpose2d(card(x), card(w), **how)), nn.conv_transpose2d(x, w, **how))


def check_complex_layers(card):
    x, w = (whole("f8", shape) for shape in ((1, 4, 3, 5), (4, 2, 2, 2)))
    x, w, b = x + 1j * x[:, ::-1], 1j * w + w[::-1], np.arange(4) * (1 - 1j)
    how = {"padding": 1, "groups": 2}
    sums = nn.conv2d(x, w, b, **how)
    np.testing.assert_array_equal(back(nn.conv2d(card(x), card(w), card(b), **how)), sums)
    np.testing.assert_array_equal(back(fastconv.plan(card(x), card(w), card(b), **how)(card(x))), sums)
    last = x.transpose(0, 2, 3, 1).copy(), w.transpose(2, 3, 1, 0).copy()
    how["data_format"] = "NHWC"
    np.testing.assert_array_equal(back(nn.conv2d(card(last[0]), last[1], **how)), nn.conv2d(*last, **how))
    grad, filters, stride = sums[:, :, :2], w[:, :1].copy(), (1, 2)
    got = back(nn.conv_transpose2d(card(grad), filters, stride=stride))
    np.testing.assert_array_equal(got, nn.conv_transpose2d(grad, filters, stride=stride))


def checks(slow=False):
    """Name -> function of ``card``."""
    found = {}

    def add(name, function, *arguments):
        found[name] = partial(_checked, function, arguments)

    for n, call in enumerate(CALLS):
        if n % 8 and not slow:  # a check takes a second
            continue
        types = (*INTEGERS, *FLOATS) if slow else (INTEGERS[n % len(INTEGERS)], FLOATS[n % 2])
        for m, dtype in enumerate(types):
            for mode in MODES[:5] if slow else (MODES[(n + m) % 5],):
                add(f"ndimage-{n}-{named(call)}-{dtype}-{mode}", check_ndimage, call, dtype, mode)
        if call[0] != "uniform_filter":
            further = itertools.product(("i4", "u1", "u4", "u8", "f4"), ("f4", "u2")) if slow else ((("u1", "u4", "u8")[n % 3], "f4"),)
            for output, dtype in further:
                add(f"ndimage-{n}-{named(call)}-{dtype}-{output}", check_ndimage, call, dtype, "wrap", output)
            for dtype in FLOATS if slow else FLOATS[n % 2 : n % 2 + 1]:
                add(f"ndimage-{n}-{named(call)}-{dtype}-strict", check_ndimage, call, dtype, "reflect", None, "strict")
                if slow or n % 4 == 0:
                    add(f"ndimage-{n}-{named(call)}-{dtype}-spoiled", check_not_finite, call, dtype)
        if call[0] in ("correlate", "convolve", "correlate1d", "convolve1d"):
            for m, dtype in enumerate((*INTEGERS, *FLOATS) if slow else (("u1", "i2", "f4")[n % 3],)):
                add(f"ndimage-{n}-{named(call)}-{dtype}-weighed", check_weights_of_the_card, call, dtype, MODES[(n + m) % 5])
    add("ndimage-further", check_further_ndimage)
    for m, dtype in enumerate(DIRECT):
        for n in range(30) if slow else (m,):
            add(f"opencv-{dtype}-{n}", check_opencv, dtype, n)
    for dtype in FLOATS:
        add(f"opencv-{dtype}-spoiled", check_opencv_not_finite, dtype)
    for dtype in ("u1", "i2"):
        add(f"opencv-{dtype}-weighed", check_kernels_of_the_card, dtype)
    for boundary in ("fill", "symm", "wrap") if slow else ("fill", "symm"):
        add(f"mask-{boundary}", check_masks, boundary)
    pairs = (("f4", "f4"), ("f8", "f8"), ("u1", "i1"), ("i4", "i4"), ("f2", "f2"), ("u4", "u4"))
    for m, fields in enumerate(EPILOGUES):
        for n, types in enumerate(pairs):
            if slow or (m + n) % 3 == 0:
                add(f"epilogue-{m}-{types[0]}", check_epilogue, types, fields)
    for flip in (False, True) if slow else (False,):
        add(f"complex-{flip}", check_complex, flip)
    add("complex-layers", check_complex_layers)
    add("complex-ndimage", check_complex_ndimage)
    for activation, dtype in (("relu", "i2"), (None, "c16"), (("leaky_relu", 0.5), "f4")):
        add(f"unreached-{dtype}", check_unreached, activation, dtype)
    return found if slow else dict(itertools.islice(found.items(), 0, None, 4))


def _checked(function, arguments, card):
    with np.errstate(all="ignore"):
        function(card, *arguments)
