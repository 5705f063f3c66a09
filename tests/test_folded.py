"""Gradients under borders that repeat pixels, and of weights of any type: adjoint, equal to the formula, by kernels."""

import numpy as np
import pytest

import fastconv
from fastconv.gradients import image_gradient, weight_gradient
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import DTYPES, Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import operands, run

MODES = ("reflect", "symmetric", "replicate", "circular")
SHAPES = (
    # image, kernel, stride, padding, dilation, groups
    ((2, 4, 7, 8), (6, 2, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 2),
    ((1, 2, 5, 6), (3, 2, 2, 3), (2, 1), ((4, 0), (9, 7)), (1, 2), 1),
    ((2, 3, 4, 9), (2, 3, 3, 2), (3, 2), ((2, 5), (0, 3)), (2, 1), 1),
    ((1, 1, 1, 3), (2, 1, 2, 2), (1, 1), ((1, 2), (2, 2)), (1, 1), 1),
)


def whole(rng, *shape, dtype="f8"):
    return rng.integers(-9, 10, shape).astype(dtype)


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", SHAPES, ids=str)
def test_adjoints_exactly(row, mode, data_format):
    """<conv(x, w), y> = <x, input(w, y)> = <w, weight(x, y)>: sums of whole numbers, so equal."""
    image, kernel, stride, padding, dilation, groups = row
    rng = np.random.default_rng(0)
    x, w = whole(rng, *image), whole(rng, *kernel)
    if data_format == "NHWC":
        x, w = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), np.ascontiguousarray(w.transpose(2, 3, 1, 0))
    result = fastconv.conv2d(x, w, None, stride, padding, dilation, groups, padding_mode=mode, data_format=data_format)
    y = whole(rng, *result.shape)
    rest = (stride, padding, dilation, groups, mode, data_format)
    assert (x * image_gradient(x.shape, w, y, *rest)).sum() == (result * y).sum()
    assert (w * weight_gradient(x, w.shape, y, *rest)).sum() == (result * y).sum()


@pytest.mark.parametrize("border", ["reflect", "symmetric", "edge", "wrap"])
@pytest.mark.parametrize("text", ["n2_g2_ic4ih9iw13_oc6k3_s2_p1", "ih5iw6_oc3k3_p7", "ic2ih8_oc3kh3kw5_d2_pt1pb4pl3pr2_nhwc_hwio"])
def test_every_border_is_folded_by_kernels(text, border, exercised):
    for dtype in ("f32", "i32"):
        p = Problem.parse(f"{text}_{border}_bwd-data_{dtype}")
        src, wei, _ = operands(p)
        plan = plan_problem(p)
        assert (plan.algorithm, plan.children[0].algorithm) == ("folded", "transposed")
        results = [run(p, src, wei, algorithm="folded", threads=threads) for threads in (1, 2)]
        assert_within(results[0], p, truth(p, src, wei))
        assert_same_bits(*results)
    exercised("folded", str(p))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_where_the_formula_puts_it(value):
    p = Problem.parse("ic2ih9iw7_oc3k3_p2_reflect_bwd-data")
    src, wei, _ = operands(p)
    for array, at in ((src, (0, 1, 0, 0)), (src, (0, 2, 5, 3)), (wei, (1, 0, 0, 2))):
        changed = array.copy()
        changed[at] = value
        arrays = (src, changed) if array is wei else (changed, wei)
        assert_within(run(p, *arrays), p, truth(p, *arrays))


@pytest.mark.parametrize("dtype", ["i8", "u16", "i32", "u64", "f16", "c64"])
@pytest.mark.parametrize("text", ["n2_g2_ic4ih9iw13_oc6k3_s2_p1", "ic3ih7iw8_oc2kh2kw3_d2_pt1pb2pl3pr0_wrap_nhwc_hwio", "n3_ih9_k4_s3"])
def test_weights_of_every_type_by_kernels(text, dtype, exercised):
    """Integers wrap as the formula's."""
    p = Problem.parse(f"{text}_{'f16:f16:f16:f32' if dtype == 'f16' else dtype}").replace(op="bwd_weight")
    src, wei, _ = operands(p)
    if dtype != "u64":  # of 10 runs, which are worth it for many channels
        assert plan_problem(p.replace(n=8, ih=40, iw=40)).algorithm == "weights_parts"
    results = [run(p, src, wei, algorithm="weights_parts", threads=threads) for threads in (1, 2)]
    assert_same_bits(*results)
    if DTYPES[p.dst].kind in "iu":
        assert_same_bits(results[0], run(p, src, wei, algorithm="reference"))
    else:
        assert_within(results[0], p, truth(p, src, wei))
    exercised("weights_parts", str(p))
