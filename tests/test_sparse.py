"""Weights that are mostly zeros: how they are found, who computes them, and what their zeros make of pixels that are not finite."""

import itertools

import numpy as np
import pytest

import fastconv
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import BORDERS, Problem
from fastconv.planning.structure import most_taps, structure_of
from tests.oracles import assert_close, assert_same_bits, assert_within, bound, truth
from tests.problems import operands, run, shapes

BLUR = np.eye(15, dtype="f4") / 15  # along a diagonal: of full rank, 15 of 225 taps


def ring(k):
    y, x = np.mgrid[:k, :k] - k // 2
    return (np.rint(np.hypot(y, x)) == k // 2).astype("f4")


def test_zeros_are_counted():
    assert structure_of("f32", BLUR[None, None], most_taps=15) == "sparse(15)"
    assert structure_of("f32", BLUR[None, None], most_taps=14) == "full"
    assert structure_of("f32", BLUR[None, None]) == "full"  # nobody asked
    two = np.stack([np.fliplr(BLUR), ring(15)])[:, None]
    taps = np.count_nonzero(two[1])
    assert structure_of("f64", two, most_taps=taps) == f"sparse({taps})"
    assert structure_of("f64", two, most_taps=taps - 1) == "full"
    for wrong in (np.nan, np.inf):
        wei = BLUR.copy()
        wei[3, 3] = wrong
        assert structure_of("f32", wei[None, None], most_taps=15) == "full"
    assert structure_of("f32", np.outer(BLUR[3], BLUR[4])[None, None] + 0, most_taps=15) != "full"


def test_a_call_finds_it_and_says_so():
    rng = np.random.default_rng(2)
    image = rng.standard_normal((512, 512), dtype="f4")
    p = Problem.parse("ih512_k15_p7_f32_structure=sparse(15)")
    plan = fastconv.plan(image, BLUR, padding=7)
    assert (plan.algorithm, plan.problem.structure) == ("sparse", "sparse(15)")
    assert "sparse_f32" in fastconv.explain(image, BLUR, padding=7)
    assert fastconv.plan(image, BLUR, padding=7, precision="strict").algorithm == "direct"
    expected = truth(p, image[None, None], BLUR[None, None])
    for algorithm in (None, "sparse"):
        result = fastconv.conv2d(image, BLUR, padding=7, algorithm=algorithm)
        assert_within(result[None, None], p, expected, "sparse")
    with pytest.raises(ValueError, match="not full"):
        fastconv.conv2d(image, np.ones((15, 15), "f4") + BLUR, algorithm="sparse", precision="default")
    with pytest.raises(ValueError, match=r"of structure sparse\(3\) as planned"):
        plan_problem(p.replace(structure="sparse(3)"), algorithm="sparse").pack(BLUR[None, None])


def test_only_counts_that_pay_are_looked_for():
    assert 15 <= most_taps(Problem.parse("ih512_k15_p7_f32")) < 225
    assert most_taps(Problem.parse("ih512_k3_p1_f32")) < 5
    assert most_taps(Problem.parse("ih512_k15_p7_f32_masked")) == 0
    assert most_taps(Problem.parse("ih512_k15_s2_p7_f32")) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "text", ["ih40iw150_k9_p4_reflect_f32_bias_structure=sparse(9)", "n2_g2_ic2ih30iw90_oc2k5_p2_f64_structure=sparse(4)"]
)
def test_a_zero_tap_times_infinity_is_nan(text, value):
    p = Problem.parse(text)
    src, wei, bias = operands(p)
    src[..., 11, 17] = value
    plan, dst = plan_problem(p, algorithm="sparse"), np.empty(shapes(p)[3], src.dtype)
    plan.run(src, plan.pack(wei), bias, dst)
    assert_within(dst, p, truth(p, src, wei, bias), "sparse")
    assert np.isnan(dst).sum() > np.isinf(dst).sum()
    # as the plan that knows nothing
    plain, other = plan_problem(p.replace(structure="full"), algorithm="direct"), np.empty_like(dst)
    plain.run(src, plain.pack(wei), bias, other)
    assert_same_bits(dst, other)


def test_a_fill_value_that_is_not_finite():
    p = Problem.parse("ih40iw150_k9_p4_f32_structure=sparse(9)")
    src, wei, bias = operands(p)
    plan, dst = plan_problem(p, algorithm="sparse"), np.empty(shapes(p)[3], src.dtype)
    plan.run(src, plan.pack(wei), bias, dst, np.inf)
    assert_within(dst, p, truth(p, src, wei, bias, np.inf), "sparse")


def test_dialects_that_multiply_no_zero_taps():
    rng = np.random.default_rng(4)
    image = rng.standard_normal((300, 300), dtype="f4")
    image[100, 100] = np.nan
    result = fastconv.ndimage.correlate(image, BLUR, mode="nearest")
    assert np.isnan(result).sum() == 15
    clean = np.where(np.isnan(image), 0, image)
    p = Problem.parse("ih300_k15_p7_edge_f32")
    exact = truth(p, clean[None, None], BLUR[None, None])
    keep = ~np.isnan(result)
    assert_close(result[keep], exact.value[0, 0][keep], bound(p, exact)[0, 0][keep])


@pytest.mark.parametrize("border", BORDERS)
def test_every_border_and_size(border, exercised):
    """Rows of one tile and of several, images lower than a tile and higher than a band, kernels larger than the image, dilations."""
    sizes = ((1, 64), (3, 65), (40, 100), (70, 300))
    kernels = ((1, 1), (3, 3), (2, 5), (9, 1), (17, 18), (31, 4))
    for number, ((ih, iw), (kh, kw)) in enumerate(itertools.product(sizes, kernels)):
        dh, dw = 1 + number % 3 // 2, 1 + number % 2
        pads = {"pt": kh * dh // 2, "pb": kh * dh, "pl": kw * dw - 1 - kw // 3, "pr": kw * dw // 2}
        p = Problem(ih=ih, iw=iw, kh=kh, kw=kw, dh=dh, dw=dw, sh=1 + number % 3, border=border, structure=f"sparse({number % 9})",
                    epilogue=("", "bias")[number % 2], **pads)  # fmt: skip
        src, wei, bias = operands(p)
        result = run(p, src, wei, bias, "sparse", 1 + number % 2, 2.5)
        assert_within(result, p, truth(p, src, wei, bias, 2.5), "sparse")
        exercised("sparse", str(p))
