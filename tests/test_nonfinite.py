"""NaN and infinity exactly where the direct formula puts them, whatever the algorithm."""

import numpy as np
import pytest
import scipy.signal

import fastconv
from fastconv.cpu.target import detect
from fastconv.planning.problem import Problem
from tests.oracles import assert_close, assert_within, scipy_signal, truth
from tests.problems import ALGORITHMS, CASES, dense, operands, run, typed

NAMES = ("image.plain", "image.width", "image.reflect", "image.strided", "image.striped", "image.dilated", "square.15x15",
         "tall.17x2", "larger.wrap", "3x3.channels", "3x3.padded", "1x1.channels", "1x1.strided", "first.strided",
         "grouped.channels",         "depthwise.padded",
         "strided.padded", "dilated.padded", "rect.padded", "image.activated", "channels.wide")  # fmt: skip
VALUES = (np.nan, np.inf, -np.inf)


def cases(dtypes=("f32", "f64")):
    for algorithm in ALGORITHMS:
        for name in NAMES:
            for dtype in dtypes:
                p = typed(CASES[name], dtype)
                if ALGORITHMS[algorithm].reject(p, detect()) is None and (dtype == "f32" or dense(p)):
                    yield pytest.param(algorithm, p, id=f"{algorithm}-{name}-{dtype}")


@pytest.mark.parametrize(("algorithm", "p"), list(cases()))
def test_in_the_image(algorithm, p):
    """Alone at each corner, edge and inside, and together."""
    src, wei, bias = operands(p)
    rng = np.random.default_rng(0)
    corners = [(0, 0), (p.ih - 1, p.iw - 1), (0, p.iw // 2), (p.ih // 2, 0), (p.ih // 2, p.iw // 2)]
    for number, (y, x) in enumerate(corners):
        image = src.copy()
        image[rng.integers(p.n), rng.integers(p.ic), y, x] = VALUES[number % 3]
        exact = truth(p, image, wei, bias)
        assert_within(run(p, image, wei, bias, algorithm), p, exact, algorithm, f"{VALUES[number % 3]} at {y, x}")
    image = src.copy()
    for value in VALUES:
        image[tuple(rng.integers(0, extent, 2) for extent in image.shape)] = value
    assert_within(run(p, image, wei, bias, algorithm, 2), p, truth(p, image, wei, bias), algorithm, "together")


@pytest.mark.parametrize(("algorithm", "p"), list(cases(("f32",))))
def test_under_zero_weights(algorithm, p):
    """0 * NaN and 0 * inf are NaN: a zero tap is multiplied like any other."""
    src, wei, bias = operands(p)
    image, weights = src.copy(), wei.copy()
    image[0, 0, p.ih // 2, p.iw // 2] = np.inf
    image[-1, -1, 0, -1] = np.nan
    weights[..., 0, 0] = 0
    weights[::2] = 0
    exact = truth(p, image, weights, bias)
    assert np.isnan(exact.value).any() or p.sh * p.sw > 1
    assert_within(run(p, image, weights, bias, algorithm), p, exact, algorithm)


@pytest.mark.parametrize(("algorithm", "p"), list(cases(("f32",))))
def test_in_weights_bias_and_fill(algorithm, p):
    src, wei, bias = operands(p)
    for value in VALUES:
        weights = wei.copy()
        weights[-1, 0, -1, 0] = value
        assert_within(run(p, src, weights, bias, algorithm), p, truth(p, src, weights, bias), algorithm, f"weight {value}")
        if p.border == "constant" and p.pt:
            result = run(p, src, wei, bias, algorithm, fill=value)
            assert_within(result, p, truth(p, src, wei, bias, value), algorithm, f"fill {value}")
    if bias is not None:
        bias = bias.copy()
        bias[0] = np.nan
        assert_within(run(p, src, wei, bias, algorithm), p, truth(p, src, wei, bias), algorithm, "bias")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_of_great_magnitude_but_finite(algorithm):
    """No intermediate value overflows where the sums of the formula do not."""
    for text in ("ih20iw40_k3_p1", "ic16ih12iw20_oc32k3_p1", "ih40iw70_k15"):
        p = Problem.parse(text)
        if ALGORITHMS[algorithm].reject(p, detect()) is None:
            src, wei, _ = operands(p)
            image = np.sign(src) * np.float32(2e38)
            weights = (np.sign(wei) / np.float32(4 * p.taps)).astype("f4")
            exact = truth(p, image, weights)
            assert np.isfinite(exact.value.astype("f4")).all()
            assert_within(run(p, image, weights, algorithm=algorithm), p, exact, algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_subnormal_numbers_are_kept(algorithm):
    p = Problem.parse("ih9iw40_k3")
    if ALGORITHMS[algorithm].reject(p, detect()) is None:
        image, weights = np.full((1, 1, 9, 40), 1e-40, "f4"), np.ones((1, 1, 3, 3), "f4")
        assert_within(run(p, image, weights, algorithm=algorithm), p, truth(p, image, weights), algorithm)


@pytest.mark.parametrize("activation", ["relu", "relu6", "sigmoid", "tanh", "silu", "gelu", ("leaky_relu", 0.1)])
def test_activations_keep_nan(activation):
    for dtype in ("f2", "f4", "f8"):
        x = np.array([[1, np.nan, -np.inf, np.inf]], dtype)
        result = fastconv.conv2d(x, np.ones((1, 1), dtype), activation=activation)
        assert np.isnan(result[0, 1])
        assert result[0, 3] == {"relu6": 6, "sigmoid": 1, "tanh": 1}.get(activation, np.inf)
        channels = np.repeat(x[None, None], 8, axis=1)
        many = fastconv.conv2d(channels, np.eye(8, dtype=dtype)[:, :, None, None], activation=activation)
        assert np.isnan(many[0, :, 0, 1]).all()


@pytest.mark.parametrize("boundary", ["fill", "wrap", "symm"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "F", "D"])
def test_as_scipy(boundary, dtype):
    rng = np.random.default_rng(1)
    for kernel in ((3, 3), (5, 2), (13, 13)):
        image, weights = rng.standard_normal((20, 41)).astype(dtype), rng.standard_normal(kernel).astype(dtype)
        weights[0, 0] = 0
        for value in VALUES:
            image[tuple(rng.integers(0, extent) for extent in image.shape)] = value
        for name in ("correlate2d", "convolve2d"):
            result = getattr(fastconv, name)(image, weights, "same", boundary)
            expected, allowed = scipy_signal(name, image, weights, "same", boundary)
            assert np.array_equal(np.isnan(result), np.isnan(expected))
            finite = np.isfinite(expected)
            assert finite.any() or kernel == (13, 13)
            assert np.array_equal(finite, np.isfinite(result))
            assert_close(result[finite], expected[finite], allowed[finite], f"{name} {kernel}")


def test_one_nan_reaches_its_window_only():
    image = np.zeros((64, 64), "f4")
    image[30, 30] = np.nan
    for k in (1, 3, 7, 15, 31):
        result = fastconv.correlate2d(image, np.ones((k, k), "f4"), "same")
        assert np.isnan(result).sum() == k * k
        assert np.array_equal(np.isnan(result), np.isnan(scipy.signal.correlate2d(image, np.ones((k, k), "f4"), "same")))
