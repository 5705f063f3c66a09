"""conv_transpose2d and the gradients as calls: those that come again, and results that no tap reaches."""

import numpy as np
import pytest

import fastconv
from fastconv import gradients
from fastconv.nn import conv2d_input, conv2d_weight
from fastconv.planning.calls import Calls
from tests.oracles import activation, assert_same_bits


def whole(rng, *shape):
    return rng.integers(-9, 10, shape).astype("f4")


def made(rng, arguments):
    """Each function's call of small whole numbers, with fresh values."""
    x, w, b = whole(rng, 2, 4, 5, 6), whole(rng, 4, 3, 3, 3), whole(rng, 3)
    y = whole(rng, *fastconv.conv2d(np.zeros((2, 3, 9, 9), "f4"), np.zeros((4, 3, 3, 3), "f4"), None, **arguments).shape)
    image = whole(rng, 2, 3, 9, 9)
    return {
        "transposed": lambda **tail: fastconv.conv_transpose2d(x, w, b, **arguments, **tail),
        "input": lambda: conv2d_input(image.shape, w, y, **arguments),
        "weight": lambda: conv2d_weight(image, w.shape, y, **arguments),
    }


@pytest.mark.parametrize("arguments", [{}, {"stride": (2, 1), "padding": [1, 1]}, {"dilation": 2}], ids=str)
@pytest.mark.parametrize("name", ["transposed", "input", "weight"])
def test_calls_that_come_again_plan_nothing_and_see_new_values(name, arguments, monkeypatch):
    rng, wanted = np.random.default_rng(0), np.random.default_rng(0)
    expected = []
    for _ in range(3):
        gradients._calls.clear()
        expected.append(made(wanted, arguments)[name]())
    gradients._calls.clear()
    for number in range(3):
        result = made(rng, arguments)[name]()
        assert_same_bits(result, expected[number])
        monkeypatch.setattr(gradients, "plan_problem", None)
    assert isinstance(gradients._calls, Calls)
    assert len(gradients._calls) == 1


def test_remembered_calls_see_other_outs_and_weights_that_are_not_finite():
    rng = np.random.default_rng(1)
    x, w = whole(rng, 1, 4, 5, 6), whole(rng, 4, 4, 1, 1)
    expected = fastconv.conv_transpose2d(x, w)
    wide = np.zeros((1, 4, 5, 12), "f4")
    for _ in range(3):
        out = np.empty_like(expected)
        assert fastconv.conv_transpose2d(x, w, out=out) is out
        assert_same_bits(out, expected)
        fastconv.conv_transpose2d(x, w, out=wide[..., ::2])
        assert_same_bits(wide[..., ::2].copy(), expected)
        same = x.copy()
        assert fastconv.conv_transpose2d(same, w, out=same) is same
        assert_same_bits(same, expected)
        fixed = np.zeros_like(expected)
        fixed.flags.writeable = False
        with pytest.raises(ValueError, match="out must be writeable"):
            fastconv.conv_transpose2d(x, w, out=fixed)
        with pytest.raises(ValueError, match="out must have"):
            fastconv.conv_transpose2d(x, w, out=out[:, 1:])
        infinite = w.copy()
        infinite[0, 0] = np.inf
        with np.errstate(invalid="ignore"):
            assert_same_bits(fastconv.conv_transpose2d(x, infinite)[:, 0], infinite[0, 0, 0, 0] * x[:, 0] + (w[1:, 0] * x[0, 1:]).sum(0))


def test_a_result_that_no_tap_reaches_is_the_bias():
    """Padding takes away all that taps reach, and output_padding puts pixels behind it."""
    torch = pytest.importorskip("torch", reason="torch is not installed: its results are not compared")
    rng = np.random.default_rng(2)
    for kernel, stride, padding, extra, dilation in (((1, 1), 5, 2, 4, 1), ((1, 2), (5, 4), (2, 2), (4, 3), 1), ((2, 1), 3, (2, 1), 2, 3),
                                                     ((1, 1), (1, 6), (0, 2), (0, 5), 1), ((1, 1), 1, 1, 3, 4)):  # fmt: skip
        x, w, b = (rng.standard_normal(shape).astype("f4") for shape in ((2, 2, 1, 1), (2, 3, *kernel), (3,)))
        for bias, name in ((None, None), (b, None), (b, "relu")):
            arguments = (stride, padding, extra, 1, dilation)
            given = [None if a is None else torch.from_numpy(a).double() for a in (x, w, bias)]  # its float32 fails on some
            expected = activation(name or "", torch.nn.functional.conv_transpose2d(*given, *arguments).numpy().astype("f4"))
            for _ in range(2):
                out = np.full(expected.shape, np.nan, "f4")
                assert fastconv.conv_transpose2d(x, w, bias, *arguments, activation=name, out=out) is out
                np.testing.assert_array_equal(out, expected)
                np.testing.assert_array_equal(fastconv.conv_transpose2d(x, w, bias, *arguments, activation=name), expected)
