"""What follows the sums: scales, shifts, residuals, activations, rounding: each step rounded, on every algorithm that takes them."""

import itertools

import numpy as np
import pytest

import fastconv
from fastconv.cpu.target import detect
from fastconv.nn import Epilogue
from fastconv.planning.addends import Addends, finish_type
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import Problem, Scaling, parse_epilogue, parse_scaling
from tests.oracles import assert_same_bits
from tests.problems import ALGORITHMS, addends_of, operands, result_array

# channels beyond a tile's, whole tiles and overlapping ones, all three ways to store
LAYERS = ("n2_ic5ih9_oc40k3_p1", "n2_ic5ih9_oc40k3_p1_nhwc_hwio")
FLOATS = ("bias+scale+shift+relu", "residual+relu6", "bias+scale+residual+leaky_relu:0.25", "shift+tanh", "scale+saturate:3")


@pytest.mark.parametrize(
    ("layer", "epilogue"),
    [pytest.param(layer, epilogue, marks=[pytest.mark.slow] * (n % 2 != m)) for n, epilogue in enumerate(FLOATS) for m, layer in
     enumerate(LAYERS)],
)  # fmt: skip
def test_every_algorithm_that_takes_an_epilogue_computes_it(layer, epilogue, exercised):
    dst = "u8" if "saturate" in epilogue else "f32"
    p = Problem.parse(f"{layer}_f32:f32:{dst}:f32").replace(epilogue=epilogue)
    src, wei, bias = operands(p, integers=True)
    addends = addends_of(p, bias)
    results = {}
    for name, algorithm in ALGORITHMS.items():
        if algorithm.reject(p, detect()) is None:
            plan = plan_problem(p, algorithm=name, threads=2)
            results[name] = result_array(p)
            plan.run(src, plan.pack(wei), addends, results[name])
            exercised(name, str(p))
    fusing = () if "tanh" in epilogue else ("blocked",) if "saturate" in epilogue else ("blocked", "direct")
    assert set(results) - {"panel"} == {"reference", "activated", *fusing}
    assert ("panel" in results) == (not {"tanh", "saturate:3", "residual"} & set(epilogue.split("+")))
    x = run_sums(p, src, wei, bias)
    with np.errstate(all="ignore"):
        for value, add in ((addends.scale, np.multiply), (addends.shift, np.add)):
            x = x if value is None else add(x, value[:, None, None])
        x = x if addends.residual is None else x + addends.residual
        for name, result in results.items():
            np.testing.assert_allclose(result, finished(epilogue, x, result.dtype), rtol=1e-6 if "tanh" in epilogue else 0, err_msg=name)


def run_sums(p, src, wei, bias):
    """Exact sums of whole numbers."""
    plain = p.replace(epilogue="bias" if bias is not None else "", dst=p.acc)
    dst = result_array(plain)
    plan = plan_problem(plain, algorithm="reference")
    plan.run(src, plan.pack(wei), bias, dst)
    return dst


def finished(epilogue, x, dtype):
    """Activated and rounded, written differently from fastconv's."""
    name = parse_epilogue(epilogue).activation
    with np.errstate(all="ignore"):
        x = {None: lambda: x, "relu": lambda: np.maximum(x, 0), "relu6": lambda: np.clip(x, 0, 6), "tanh": lambda: np.tanh(x),
             "leaky_relu": lambda: np.maximum(x, 0) + np.minimum(x, 0) / 4}[name]()  # fmt: skip
    if dtype.kind == "f":
        return x
    zero = parse_scaling(epilogue).zero
    return np.clip(np.where(np.isnan(x), 0, np.rint(x)) + zero, 0, 255).astype(dtype)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_residual_may_be_the_result_and_lie_anywhere(layout):
    rng = np.random.default_rng(0)
    order, back = ((0, 2, 3, 1), (2, 3, 1, 0)) if layout == "NHWC" else ((0, 1, 2, 3), (0, 1, 2, 3))
    x, w = (rng.integers(-3, 4, shape).astype("f4") for shape in ((2, 5, 9, 9), (40, 5, 3, 3)))
    residual = rng.integers(-9, 9, (2, 40, 9, 9)).astype("f4")
    sums = fastconv.conv2d(x, w, padding=1, algorithm="reference")
    expected = np.maximum(sums + residual, 0).transpose(order)
    x, w, residual = np.ascontiguousarray(x.transpose(order)), np.ascontiguousarray(w.transpose(back)), residual.transpose(order)
    given = {"padding": 1, "data_format": layout, "algorithm": "blocked"}
    for strided in (residual, np.ascontiguousarray(residual), residual[:, ::-1].copy()[:, ::-1], residual.astype(">f4")):
        result = fastconv.conv2d(x, w, epilogue=Epilogue(residual=strided, activation="relu"), **given)
        np.testing.assert_array_equal(result, expected)
    out = np.ascontiguousarray(residual)
    assert fastconv.conv2d(x, w, epilogue=Epilogue(residual=out, activation="relu"), out=out, **given) is out
    np.testing.assert_array_equal(out, expected)


FEW = (
    "ih40iw52_k3_p1", "ih23iw17_k3", "n2_ic3ih21iw50_oc4k3_p1", "ih34_k3_s2_f64", "g4_ic4ih33iw70_oc4k5_p2_reflect", "ih40_k3_s3",
    "ih20iw100_k3_d2_p2_f64", "ih50iw100_k11_p5", "n2_ic2ih5iw5_oc3k3_p1_nhwc_hwio",
)  # fmt: skip


@pytest.mark.parametrize("text", [FEW[0], FEW[2], *(pytest.param(text, marks=pytest.mark.slow) for text in FEW[1:2] + FEW[3:])])
@pytest.mark.parametrize("epilogue", ["bias+scale+shift+relu", "residual", "bias+scale+residual+leaky_relu:0.25", "shift+saturate"])
def test_few_channels_are_finished_where_they_are_summed(text, epilogue, exercised):
    """Whole tiles, tiles aside, carried rows; results that are views, and bands of images that are converted."""
    p = Problem.parse(text)
    p = p.replace(epilogue=epilogue, dst="u8" if "saturate" in epilogue else p.dst)
    if p.dst == "u8" and (p.sh > 2 or p.dh > 1):
        assert ALGORITHMS["panel"].reject(p, detect())
        return
    src, wei, bias = operands(p, integers=True)
    words, rng = parse_scaling(epilogue), np.random.default_rng(7)
    scale, shift = (rng.integers(-4, 5, p.oc).astype(finish_type(p)) for _ in range(2))
    residual = np.empty_like(result_array(p), dtype=finish_type(p))
    residual[...] = rng.integers(-9, 9, residual.shape)
    addends = Addends(bias, scale if words.scale else None, shift if words.shift else None, residual if words.residual else None)
    expected, name = result_array(p), "panel" if p.dst == "u8" else "direct"
    plan_problem(p, algorithm="reference").run(src, wei.astype(p.acc.replace("f", "float")), addends, expected)
    plan = plan_problem(p, algorithm=name, threads=2)
    for image, to in ((src, result_array(p)), (src.astype(src.dtype.newbyteorder()), result_array(p)),
                      (src, np.zeros((*expected.shape[:3], 2 * p.ow), expected.dtype)[..., ::2]),
                      (src, np.zeros((*expected.shape[:2], p.oh + 1, p.ow + 3), expected.dtype)[:, :, 1:, 2:-1])):  # fmt: skip
        plan.run(image, plan.pack(wei), addends, to)
        assert_same_bits(to.copy(), expected)
    exercised(name, str(p))


@pytest.mark.parametrize("words", ["halves+scale+shift+residual+leaky_relu:0.3", "half+scale+residual+relu", "halves+scale+saturate:100"])
def test_steps_in_float16(words):
    """The problem's words for what a card does where it stores; on the CPU the reference alone takes them."""
    p = Problem.parse("n2_ic2ih5iw7_oc9k3_p1_f16:f16:f16:f32").replace(epilogue=words, dst="u8" if "saturate" in words else "f16")
    assert [name for name, algorithm in ALGORITHMS.items() if algorithm.reject(p, detect()) is None] == ["reference"]
    src, wei, _ = operands(p, integers=True)
    addends, scaling, finish = addends_of(p, None), parse_scaling(words), parse_epilogue(words)
    addends = addends._replace(scale=addends.scale / addends.scale.dtype.type(7))
    dst = result_array(p)
    with np.errstate(all="ignore"):
        plan_problem(p).run(src, wei, addends, dst)
        activation = ("leaky_relu", finish.slope) if finish.slope else finish.activation
        epilogue = Epilogue(addends.scale, addends.shift, addends.residual, activation, p.dst.replace("u8", "u1").replace("f16", "f2"),
                            scaling.zero)  # fmt: skip
        assert_same_bits(dst, fastconv.conv2d(src, wei, padding=1, epilogue=epilogue))


def test_texts():
    assert parse_scaling("bias+scale+shift+residual+relu+saturate:-5") == Scaling(True, True, True, -5)
    for words in itertools.product(("", "bias"), ("", "scale"), ("", "residual"), ("", "relu", "leaky_relu:0.5")):
        p = Problem(ih=3, epilogue="+".join(filter(None, words)))
        assert Problem.parse(str(p)) == p
    for bad in ("shift+scale", "residual+bias", "half_up:3", "saturate:", "saturate:1.5", "scale+scale"):
        with pytest.raises(ValueError, match="epilogue must"):
            parse_scaling(bad)
    with pytest.raises(ValueError, match="float sums"):
        Problem(dst="u8", acc="i32", epilogue="saturate")


def test_an_algorithm_that_was_not_told_of_scalings_refuses_them():
    p = Problem.parse("ih20_k3_bias+scale")
    reasons = {name: algorithm.reject(p, detect()) for name, algorithm in ALGORITHMS.items()}
    taking = {name for name, reason in reasons.items() if reason is None}
    assert taking == {"reference", "activated", "blocked", "direct", "panel"}
    assert all("scale" in reason for name, reason in reasons.items() if name in ("fft", "separable", "winograd", "shallow"))


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [({"residual": np.zeros((1, 40, 9, 9), "f4")}, ValueError, "residual"), ({"scale": np.ones(40)}, ValueError, "float type"),
     ({"scale": 2.0, "zero_point": 3}, ValueError, "zero_point"),
     ({"scale": 2.0, "dtype": "u1", "zero_point": 256}, ValueError, "zero_point"),
     ({"scale": 2.0, "dtype": "u1", "zero_point": 1.5}, TypeError, "zero_point")],
)  # fmt: skip
def test_a_plan_takes_what_its_problem_says(given, error, match):
    with pytest.raises(error, match=match):
        fastconv.plan((1, 5, 9, 9), (40, 5, 1, 1), epilogue=Epilogue(**given))


def test_integers_are_scaled_in_float32_unless_an_operand_is_wider():
    x, w = np.full((1, 1, 1), 3, "i4"), np.full((1, 1, 1, 1), 1 << 22, "i4")
    third = np.array([1 / 3])
    single = fastconv.conv2d(x, w, epilogue=Epilogue(scale=third.astype("f4"), dtype="f8"))
    double = fastconv.conv2d(x, w, epilogue=Epilogue(scale=third, dtype="f8"))
    assert single[0, 0, 0] == np.float32(3 << 22) * np.float32(1 / 3)
    assert double[0, 0, 0] == (3 << 22) * (1 / 3)
    eight = fastconv.conv2d(np.full((1, 1, 1), 200, "u1"), np.full((1, 1, 1, 1), 200, "u1"), epilogue=Epilogue(scale=0.01, dtype="u2"))
    assert eight[0, 0, 0] == 400  # not what 40000 wraps to in 8 bits
