"""fastconv.nn's results against torch, where it is installed, and against `oracles.truth`."""

import itertools

import numpy as np
import pytest

import fastconv
from fastconv.nn import Epilogue
from fastconv.planning.problem import Problem, accumulator, dtype_name
from tests.oracles import assert_close, assert_same_bits, assert_within, bound, peer_bound, truth
from tests.problems import random_array

BORDERS = {"zeros": "constant", "reflect": "reflect", "symmetric": "symmetric", "replicate": "edge", "circular": "wrap"}


@pytest.fixture(scope="module")
def functional():
    return pytest.importorskip("torch.nn.functional", reason="torch is not installed: its results are not compared")


def operands(dtype="f4", n=2, c=6, size=(9, 14), oc=8, kernel=(3, 3), groups=1, seed=0):
    rng = np.random.default_rng(seed)
    x = random_array(rng, (n, c, *size), dtype)
    w = random_array(rng, (oc, c // groups, *kernel), dtype)
    return x, w, random_array(rng, (oc,), dtype)


def check(x, w, bias=None, *, paddings=((0, 0), (0, 0)), border="constant", stride=(1, 1), dilation=(1, 1), groups=1,
          result=None, dtype=None, epilogue="", what=""):  # fmt: skip
    """A result of 4-D NCHW arrays against the exact one."""
    name = dtype_name(dtype or np.result_type(x.dtype, w.dtype))
    (pt, pb), (pl, pr) = paddings
    parts = (["bias"] if bias is not None else []) + ([epilogue] if epilogue else [])
    p = Problem(n=x.shape[0], g=groups, ic=x.shape[1], ih=x.shape[2], iw=x.shape[3], oc=w.shape[0], kh=w.shape[2], kw=w.shape[3],
                sh=stride[0], sw=stride[1], dh=dilation[0], dw=dilation[1], pt=pt, pb=pb, pl=pl, pr=pr, border=border,
                src=dtype_name(x.dtype), wei=dtype_name(w.dtype), dst=name, acc=accumulator(name),
                epilogue="+".join(parts))  # fmt: skip
    assert dtype_name(result.dtype) == name
    assert result.flags.c_contiguous
    assert_within(result, p, truth(p, x, w, bias), what=what)
    return p


GRID = [
    {},
    {"stride": 2},
    {"stride": (2, 1), "padding": 1},
    {"stride": (1, 3), "padding": (2, 0)},
    {"dilation": 2},
    {"dilation": (1, 3), "padding": 3, "stride": 2},
    {"groups": 2, "padding": 1},
    {"padding": "valid"},
    {"padding": "same"},
    {"padding": "same", "dilation": 2},
]


@pytest.mark.parametrize(
    ("arguments", "dtype"),
    [(row, dtype) for row in GRID for dtype in ("f4", "f8", "i8") if dtype == "f4" or not {"stride", "dilation"} & {*row}],
    ids=str,
)
def test_torchs_conv2d(functional, arguments, dtype):
    torch = functional.torch
    for kernel, biased in itertools.product(((3, 3), (1, 1), (5, 2)), (False, True)):
        if arguments.get("padding") == "same" and kernel == (5, 2):
            continue  # torch warns about a copy and pads as SAME_UPPER too; the rule has a test of its own
        groups = arguments.get("groups", 1)
        x, w, b = operands(dtype, kernel=kernel, groups=groups)
        bias = b if biased else None
        tensors = [None if a is None else torch.from_numpy(a) for a in (x, w, bias)]
        expected = functional.conv2d(*tensors, **arguments).numpy()
        result = fastconv.conv2d(x, w, bias, **arguments)
        positional = ("stride", "padding", "dilation", "groups")
        defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | arguments
        assert_same_bits(fastconv.conv2d(x, w, bias, *(defaults[name] for name in positional)), result)
        allowed = 0
        if dtype[0] == "f":
            magnitude = functional.conv2d(*(None if t is None else t.abs().double() for t in tensors), **arguments).numpy()
            allowed = peer_bound(dtype, w[0].size, magnitude)
        assert result.dtype == expected.dtype
        assert_close(result, expected, allowed, f"{arguments} {kernel}")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "F", "D", "i1", "u1", "i2", "u4", "i8", "g"])
def test_every_type(dtype):
    x, w, b = operands(dtype)
    check(x, w, b, paddings=((1, 1), (1, 1)), result=fastconv.conv2d(x, w, b, padding=1))
    assert fastconv.conv2d(x, w).dtype == np.dtype(dtype)


@pytest.mark.parametrize("pair", [("u1", "f4"), ("f4", "f8"), ("?", "f4"), ("?", "i4"), ("u1", "i1"), ("f2", "f4"), ("i8", "f4"),
                                  ("f8", "F"), ("u8", "i8"), ("f2", "u1"), ("f4", "u1")])  # fmt: skip
def test_mixed_types_promote_as_arrays(pair):
    rng = np.random.default_rng(2)
    x, w = random_array(rng, (1, 2, 7, 19), pair[0]), random_array(rng, (3, 2, 3, 3), pair[1])
    result = fastconv.conv2d(x, w)
    assert result.dtype == np.result_type(*pair)
    if max(abs(float(np.abs(a).max())) for a in (x, w)) < 1e15:
        check(x, w, result=result)


def test_dtype_is_that_of_the_result():
    x, w, _ = operands("u1")
    for dtype in ("u1", "i2", "i4", "i8", "f4", "f8"):
        check(x, w, result=fastconv.conv2d(x, w, dtype=dtype), dtype=np.dtype(dtype))
    with pytest.raises(TypeError, match="complex"):
        fastconv.conv2d(x.astype("F"), w.astype("F"), dtype="f4")


def test_bool_needs_a_type():
    x = np.ones((3, 3), bool)
    with pytest.raises(TypeError, match="bool"):
        fastconv.conv2d(x, x)
    assert fastconv.conv2d(x, x, dtype="i4").tolist() == [[9]]


def test_integers_wrap():
    assert fastconv.conv2d(np.full((3, 3), 200, "u1"), np.ones((3, 3), "u1")).tolist() == [[1800 % 256]]


def test_float16_sums_in_float32():
    x = np.full((1, 4096), 1.0, "f2")
    assert fastconv.conv2d(x, x).tolist() == [[4096.0]]  # in float16 it would stop at 2048
    x, w = np.full((1, 2), 300.0, "f2"), np.array([[300.0, -300.0]], "f2")
    assert fastconv.conv2d(x, w).tolist() == [[0.0]]  # both products overflow float16
    assert fastconv.conv2d(x, np.abs(w)).tolist() == [[np.inf]]


def test_complex_weights_are_not_conjugated():
    assert fastconv.conv2d(np.array([[1j]]), np.array([[1j]])).tolist() == [[-1 + 0j]]


@pytest.mark.parametrize("padding_mode", BORDERS)
def test_borders_are_numpys(padding_mode):
    mode = BORDERS[padding_mode]
    for shape, kernel, paddings in (
        ((9, 37), (3, 3), ((1, 1), (1, 1))),
        ((9, 37), (4, 5), ((0, 3), (2, 1))),
        ((3, 4), (8, 9), ((7, 6), (8, 5))),
        ((1, 1), (3, 3), ((2, 2), (5, 3))),
        ((1, 6), (1, 4), ((0, 0), (13, 17))),
        ((2, 5), (2, 2), ((11, 0), (0, 12))),
    ):
        for dtype in ("f4", "i4"):
            rng = np.random.default_rng(3)
            x, w = random_array(rng, shape, dtype), random_array(rng, kernel, dtype)
            padded = np.pad(x, paddings, mode=mode)
            result = fastconv.conv2d(x, w, padding=paddings, padding_mode=padding_mode)
            check(padded[None, None], w[None, None], result=result[None, None], what=f"{shape} {kernel} {paddings}")
            channels = fastconv.conv2d(np.stack([x, x[::-1]]), np.stack([w, w])[:, None], padding=paddings, groups=2,
                                       padding_mode=padding_mode)  # fmt: skip
            assert channels.shape == (2, *result.shape)
            check(np.pad(x[::-1], paddings, mode=mode)[None, None], w[None, None], result=channels[None, 1:])


@pytest.mark.parametrize("stride", [1, 2, 3, (2, 5)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_has_a_pixel_for_each_stride(stride, dilation):
    sh, sw = stride if isinstance(stride, tuple) else (stride, stride)
    for size, kernel in itertools.product(((9, 14), (8, 11), (1, 20)), ((3, 3), (2, 4), (1, 5), (4, 3))):
        x, w, _ = operands("f4", size=size, kernel=kernel)
        for padding in ("same", "same_lower"):
            result = fastconv.conv2d(x, w, padding=padding, stride=stride, dilation=dilation)
            sides = []
            for extent, k, s in zip(size, kernel, (sh, sw), strict=True):
                total = max((-(-extent // s) - 1) * s + (k - 1) * dilation + 1 - extent, 0)
                few, many = total // 2, (total + 1) // 2
                sides.append((few, many) if padding == "same" else (many, few))
            assert result.shape[2:] == (-(-size[0] // sh), -(-size[1] // sw))
            check(x, w, paddings=sides, stride=(sh, sw), dilation=(dilation, dilation), result=result)


def test_strided_same_is_not_a_slice():
    x, w = np.arange(6.0)[None], np.ones((1, 3))
    assert fastconv.conv2d(x, w, padding="same", stride=(1, 2)).tolist() == [[3, 9, 9]]
    assert fastconv.conv2d(x, w, padding="same_lower", stride=(1, 2)).tolist() == [[1, 6, 12]]
    assert fastconv.correlate2d(x, w, "same", stride=(1, 2)).tolist() == [[1, 6, 12]]


def test_full_padding():
    x, w, _ = operands("f4", kernel=(3, 4))
    check(x, w, paddings=((4, 4), (6, 6)), dilation=(2, 2), result=fastconv.conv2d(x, w, padding="full", dilation=2))


def test_spellings_of_padding():
    x, w, _ = operands("f4")
    expected = fastconv.conv2d(x, w, padding=((2, 2), (1, 1)))
    for padding in ((2, 1), [2, 1], [(2, 2), (1, 1)], ((np.int64(2), 2), [1, 1])):
        assert_same_bits(fastconv.conv2d(x, w, padding=padding), expected)


def test_dimensions_and_layouts():
    for dtype, arguments in itertools.product(
        ("f4", "f8", "u1"), ({}, {"stride": 2, "padding": 1}, {"padding_mode": "reflect", "padding": 2})
    ):
        x, w, b = operands(dtype, c=4, oc=6)
        four = fastconv.conv2d(x, w, b, **arguments)
        assert_same_bits(fastconv.conv2d(x[1], w, b, **arguments), four[1])
        nhwc, hwio = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), np.ascontiguousarray(w.transpose(2, 3, 1, 0))
        last = fastconv.conv2d(nhwc, hwio, b, data_format="NHWC", **arguments)
        assert last.flags.c_contiguous
        if dtype == "u1":
            assert_same_bits(np.ascontiguousarray(last.transpose(0, 3, 1, 2)), four)
        else:
            magnitude = fastconv.conv2d(np.abs(x), np.abs(w), np.abs(b), **arguments)
            assert_close(last.transpose(0, 3, 1, 2), four, peer_bound(dtype, w[0].size, magnitude))
        assert_same_bits(fastconv.conv2d(nhwc[0], hwio, b, data_format="channels_last", **arguments), last[0])
        assert_same_bits(fastconv.conv2d(x, w, b, data_format="channels_first", **arguments), four)
        plane = fastconv.conv2d(x[0, 0], w[0, 0], b[0], **arguments)
        check(x[:1, :1], w[:1, :1], b[:1], result=plane[None, None], stride=(arguments.get("stride", 1),) * 2,
              border=BORDERS[arguments.get("padding_mode", "zeros")],
              paddings=((arguments.get("padding", 0),) * 2,) * 2)  # fmt: skip
        assert_same_bits(fastconv.conv2d(x[0, 0], w[0, 0], b[:1], data_format="NHWC", **arguments), plane)


@pytest.mark.parametrize("activation", ["relu", "relu6", "sigmoid", "tanh", "silu", "gelu", ("leaky_relu", 0.2),
                                        ("leaky_relu", np.float32(0.25)), ("leaky_relu", np.int64(0))])  # fmt: skip
def test_activations(activation):
    text = activation if isinstance(activation, str) else f"leaky_relu:{float(activation[1])}"
    for dtype, biased in itertools.product(("f4", "f8", "f2"), (True, False)):
        x, w, b = operands(dtype, c=3, kernel=(2, 2))
        w /= np.asarray(4, dtype)
        bias = b if biased else None
        check(x, w, bias, epilogue=text, result=fastconv.conv2d(x, w, bias, activation=activation))


def test_activations_far_from_zero():
    x = np.array([[-1e30, -800.0, -90.0, -20.0, -0.0, 0.0, 20.0, 90.0, 800.0, 1e30]], "f4")
    one = np.ones((1, 1), "f4")
    for activation in ("relu", "relu6", "sigmoid", "tanh", "silu", "gelu"):
        result = fastconv.conv2d(x, one, activation=activation)
        check(x[None, None], one[None, None], epilogue=activation, result=result[None, None])
        assert np.isfinite(result).all()


@pytest.mark.parametrize("dtype", ["i4", "u1", "i8"])
def test_activations_of_integers(dtype):
    x, w, _ = operands(dtype)
    sums = fastconv.conv2d(x, w)
    assert np.array_equal(fastconv.conv2d(x, w, activation="relu"), np.maximum(sums, 0))
    assert np.array_equal(fastconv.conv2d(x, w, activation="relu6"), np.clip(sums, 0, 6))
    for activation in ("tanh", "sigmoid", "gelu", "silu", ("leaky_relu", 0.1)):
        with pytest.raises(TypeError, match="activation"):
            fastconv.conv2d(x, w, activation=activation)


def test_bias_has_the_results_type():
    x, w, _ = operands("f4")
    b = np.linspace(-1, 1, 8)
    assert_same_bits(fastconv.conv2d(x, w, b), fastconv.conv2d(x, w, b.astype("f4")))
    assert_same_bits(fastconv.conv2d(x, w, list(b)), fastconv.conv2d(x, w, b))
    assert_same_bits(fastconv.conv2d(x, w, np.repeat(b, 2)[::2].astype("f4")), fastconv.conv2d(x, w, b))


class TestEpilogue:
    def test_scale_shift_residual_activation(self):
        x, w, b = operands("f8")
        rng = np.random.default_rng(7)
        sums = fastconv.conv2d(x, w, b)
        scale, shift, residual = rng.standard_normal(8), rng.standard_normal(8), rng.standard_normal(sums.shape)
        epilogue = Epilogue(scale=scale, shift=shift, residual=residual, activation="relu")
        expected = np.maximum(sums * scale[:, None, None] + shift[:, None, None] + residual, 0)
        assert_close(fastconv.conv2d(x, w, b, epilogue=epilogue), expected, peer_bound("f8", 3, np.abs(expected) + 10))
        last = fastconv.conv2d(x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), b, data_format="NHWC",
                               epilogue=Epilogue(scale, shift, residual.transpose(0, 2, 3, 1), "relu"))  # fmt: skip
        assert_close(last.transpose(0, 3, 1, 2), expected, peer_bound("f8", 60, np.abs(expected) + 50))

    def test_integers_are_rounded_half_to_even_and_saturated(self):
        x = np.array([[-3.0, 0.5, 1.5, 2.5, 254.5, 255.5, 1e9]])
        result = fastconv.conv2d(x, np.ones((1, 1)), epilogue=Epilogue(dtype="u1"))
        assert_same_bits(result, np.array([[0, 0, 2, 2, 254, 255, 255]], "u1"))

    def test_out(self):
        x, w, _ = operands("f4")
        expected = fastconv.conv2d(x, w, epilogue=Epilogue(scale=2.0))
        out = np.empty_like(expected)
        assert fastconv.conv2d(x, w, epilogue=Epilogue(scale=2.0), out=out) is out
        assert_same_bits(out, expected)

    @pytest.mark.parametrize(("name", "value"), [("scale", np.ones(3)), ("shift", np.ones((8, 1))), ("residual", np.ones(8))])
    def test_wrong_shapes_are_named(self, name, value):
        x, w, _ = operands()
        with pytest.raises(ValueError, match=name):
            fastconv.conv2d(x, w, epilogue=Epilogue(**{name: value}))

    def test_excludes_activation(self):
        x, w, _ = operands()
        with pytest.raises(ValueError, match="activation"):
            fastconv.conv2d(x, w, activation="relu", epilogue=Epilogue())
        with pytest.raises(TypeError, match="epilogue"):
            fastconv.conv2d(x, w, epilogue="relu")


def test_the_lesson():
    result = fastconv.conv2d(np.ones((1, 512, 512, 1), "f4"), np.ones((3, 3, 1, 1), "f4"), stride=(2, 1), data_format="NHWC")
    assert result.shape == (1, 255, 510, 1)
    assert np.all(result == 9)


def test_many_channels_stay_within_the_bound():
    x, w, b = operands("f4", n=1, c=300, size=(6, 20), oc=33)
    p = check(x, w, b, result=fastconv.conv2d(x, w, b))
    exact = truth(p, x, w, b)
    assert np.all(bound(p, exact) < 1e-3 * exact.magnitude)  # the bound itself says something
