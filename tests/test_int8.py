"""Layers of 8 bits: exact in every way that products are added, zero points, requantised as ONNX does, borders that no byte holds."""

import pickle

import numpy as np
import pytest

import fastconv
from fastconv.cpu import int8
from fastconv.cpu.convert import dot_way
from fastconv.cpu.target import detect
from fastconv.nn import Epilogue
from fastconv.planning.problem import Problem
from tests.problems import operands, run

# the same tile in both layouts, with tails of channels and of elements
LAYERS = ("n2_ic37ih9_oc40k3_s2_p1", "g2_ic70ih7_oc66k2_p1_nhwc_hwio")
# each way to add products, layer and types: a few, and all of them with --slow
SOME = (("bytes", 0, "u8:i8"), ("bytes", 1, "i8:i8"), ("words", 1, "u8:u8"), ("pairs", 0, "u8:i8"), ("halves", 1, "i8:u8"))
EVERY = [(way, layer, types) for way in ("bytes", "words", "pairs", "halves") for layer in (0, 1)
         for types in ("u8:i8", "i8:i8", "u8:u8", "i8:u8") if way != "bytes" or types.endswith("i8")]  # fmt: skip
CHOICES = [*SOME, *(pytest.param(*each, marks=pytest.mark.slow) for each in EVERY if each not in SOME)]


def able(way):
    """Whether this processor adds products so."""
    known = dot_way(detect().bits, True), dot_way(detect().bits, False), *(() if dot_way(128, False) == "halves" else ("pairs",)), "halves"
    return way in known


@pytest.mark.parametrize(("way", "layer", "types"), CHOICES)
def test_sums_are_exact_at_the_extremes(way, layer, types, monkeypatch, exercised):
    """Two products of 255 * -128 do not fit into 16 bits: what saturates is wrong here."""
    if not able(way):
        pytest.skip(f"this processor does not add {way}")
    monkeypatch.setattr(int8, "dot_way", lambda bits, signed: way)
    p = Problem.parse(f"{LAYERS[layer]}_{types}:i32:i32_bias")
    x, w, bias = operands(p)
    w[::2] = np.iinfo(w.dtype).min
    for pixel in (np.iinfo(x.dtype).max, np.iinfo(x.dtype).min):
        x[:, ::3] = pixel
        expected = run(p, x, w, bias, "reference", fill=7)
        for threads in (1, 2):
            np.testing.assert_array_equal(run(p, x, w, bias, "int8", threads, fill=7), expected)
    exercised("int8", f"{way} {p}")


@pytest.mark.parametrize("fill", [300, -1, 2.5])
def test_a_border_that_no_byte_holds(fill):
    p = Problem.parse("ic37ih9_oc40k3_s2_p1_u8:i8:i32:i32")
    x, w, _ = operands(p)
    np.testing.assert_array_equal(run(p, x, w, None, "int8", fill=fill), run(p, x, w, None, "reference", fill=fill))


def test_zero_points():
    """ONNX's ConvInteger: the image's zero point is the border's pixel and a bias."""
    p = Problem.parse("ic37ih9_oc40k3_s2_p1_u8:i8:i32:i32_bias")
    x, w, _ = operands(p)
    zero = 113
    bias = (-zero * w.astype(np.int64).sum((1, 2, 3))).astype(np.int32)
    wide = p.replace(src="i64", wei="i64", dst="i64", acc="i64", epilogue="")
    expected = run(wide, x.astype(np.int64) - zero, w.astype(np.int64), None, "reference")
    np.testing.assert_array_equal(run(p, x, w, bias, "int8", fill=zero), expected)


def test_reads_and_writes_arrays_of_any_strides():
    p = Problem.parse("g2_ic70ih7_oc66k2_p1_nhwc_hwio_u8:i8:i32:i32")
    x, w, _ = operands(p)
    expected = run(p, x, w, None, "int8")
    swapped = np.zeros((*expected.shape[:3], 2 * expected.shape[3]), ">i4")[..., ::2]
    for strided in (np.repeat(x, 2, axis=1)[:, ::2], np.ascontiguousarray(x), x[..., ::-1].copy()[..., ::-1]):
        np.testing.assert_array_equal(run(p, strided, w, None, "int8"), expected)
        np.testing.assert_array_equal(run(p, strided, w, None, "int8", dst=swapped), expected)


def quantised(sums, scale, zero, dtype):
    """ONNX's QLinearConv from exact sums, in float32."""
    with np.errstate(all="ignore"):
        scaled = sums.astype(np.float32) * scale[:, None, None]
        whole = np.where(np.isnan(scaled), 0, np.rint(scaled)) + zero
    return np.clip(whole, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "zero", "layout"),
    [("u1", 128, "NCHW"), ("i1", -5, "NHWC"), pytest.param("u1", 0, "NCHW", marks=pytest.mark.slow),
     pytest.param("i1", 7, "NCHW", marks=pytest.mark.slow),
     pytest.param("u1", 1, "NHWC", marks=pytest.mark.slow)],
)  # fmt: skip
def test_requantised(dtype, zero, layout):
    """Halves to even, saturated, NaN as 0, infinities at the ends; the plan and the call alike."""
    rng = np.random.default_rng(3)
    x, w = rng.integers(0, 256, (2, 37, 9, 14)).astype("u1"), rng.integers(-128, 128, (40, 37, 1, 1)).astype("i1")
    scale = rng.choice([0.5, 0.25, 1e-3, -2e-3, 0.01], 40).astype("f4")
    scale[:3] = np.nan, np.inf, -np.inf
    w[4:30:3, 3:] = 0  # small sums, whose halves are ties
    sums = np.einsum("oc,nchw->nohw", w[..., 0, 0].astype("i8"), x.astype("i8"))
    expected = quantised(sums, scale, zero, np.dtype(dtype))
    assert len(np.unique(expected)) > 100
    if layout == "NHWC":
        x, w, expected = (np.ascontiguousarray(a.transpose(order)) for a, order in
                          ((x, (0, 2, 3, 1)), (w, (2, 3, 1, 0)), (expected, (0, 2, 3, 1))))  # fmt: skip
    epilogue = Epilogue(scale=scale, dtype=dtype, zero_point=zero)
    plan = fastconv.plan(x, w, data_format=layout, epilogue=epilogue, algorithm="int8")
    for result in (plan(x), plan(x), pickle.loads(pickle.dumps(plan))(x),
                   fastconv.conv2d(x, w, data_format=layout, epilogue=epilogue, algorithm="int8")):  # fmt: skip
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, expected)


def test_int8_is_chosen_for_layers_of_8_bits():
    x, w = np.ones((1, 64, 14, 14), "u1"), np.ones((64, 64, 3, 3), "i1")
    for more in ({"dtype": "int32"}, {"epilogue": Epilogue(scale=0.5, dtype="u1")}):
        assert "(int8 " in fastconv.explain(x, w, padding=1, **more)
    with pytest.raises(ValueError, match="8 bits"):
        fastconv.conv2d(x, w, algorithm="int8")  # its result is int16, which wraps
