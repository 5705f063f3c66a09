"""Two rows of results from three sums: the pairs at the ends of bands and planes, who computes what could overflow, who is chosen."""

import numpy as np
import pytest

import fastconv
from fastconv.cpu.target import detect
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import BORDERS, Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import ALGORITHMS, operands, run

FINITE = "n2_g2_ic2ih49iw70_oc4k7_p9_wrap_f32_bias"


@pytest.mark.parametrize("kh", range(2, 19))
def test_every_height(kh, exercised):
    """Of taps, so of groups of them, and odd and even heights of results."""
    for ih in (16 + kh, 47 + kh):
        p = Problem.parse(f"ih{ih}iw75_kh{kh}kw3_f32")
        src, wei, _ = operands(p)
        assert_within(run(p, src, wei, algorithm="fast_fir"), p, truth(p, src, wei), "fast_fir")
        exercised("fast_fir", str(p))


@pytest.mark.parametrize("border", BORDERS)
def test_every_border(border):
    p = Problem.parse(f"ih40iw61_k7_pt5pb2pl9pr4_{border}_f32")
    src, wei, _ = operands(p)
    for fill in (0, -3.5) if border == "constant" else (0,):
        assert_within(run(p, src, wei, algorithm="fast_fir", threads=2, fill=fill), p, truth(p, src, wei, fill=fill), "fast_fir")


def test_blocks_of_columns_and_bands_of_rows():
    """Wider than a block, of more rows than a band, images and results with gaps between their rows."""
    p = Problem.parse("ih150iw2100_kh9kw2_p1_f32")
    src, wei, _ = operands(p)
    wide = np.zeros((*src.shape[:3], 2111), "f4")
    wide[..., 7:2107] = src
    result = np.full((1, 1, p.oh, p.ow + 13), 7, "f4")
    plan = plan_problem(p, algorithm="fast_fir", threads=2)
    plan.run(wide[..., 7:2107], plan.pack(wei), None, result[..., 5 : 5 + p.ow])
    assert_within(result[..., 5 : 5 + p.ow], p, truth(p, src, wei), "fast_fir")
    assert (result[..., :5] == 7).all()
    assert (result[..., 5 + p.ow :] == 7).all()


def test_what_could_overflow_is_summed_directly():
    """NaN, inf and pixels and weights near the end of the range, alone and at every edge: the bits of the plan of direct sums."""
    p = Problem.parse(FINITE)
    src, wei, bias = operands(p)
    plan = plan_problem(p, algorithm="fast_fir")
    strict = p.replace(precision="strict")
    largest = np.finfo("f4").max / (1.01 * np.abs(wei).sum((1, 2, 3)).max())
    for value in (np.nan, np.inf, -np.inf, largest, -largest):
        for at in ((0, 0, 0, 0), (1, 1, -1, -1), (0, 1, 20, 35)):
            image = src.copy()
            image[at] = value
            dst = np.empty((p.n, p.oc, p.oh, p.ow), "f4")
            plan.run(image, plan.pack(wei), bias, dst)
            assert_within(dst, p, truth(p, image, wei, bias), "direct")
            assert_same_bits(dst, run(strict, image, wei, bias), f"{value} at {at}")
    for value in (np.nan, np.inf, np.finfo("f4").max / 2):
        weights = wei.copy()
        weights[3, 0, 6, 0] = value
        with np.errstate(over="ignore", invalid="ignore"):
            assert_same_bits(run(p, src, weights, bias, "fast_fir"), run(strict, src, weights, bias))
    p = p.replace(border="constant")
    for fill in (np.nan, -np.inf, 2 * largest):
        with np.errstate(over="ignore", invalid="ignore"):
            assert_same_bits(run(p, src, wei, bias, "fast_fir", fill=fill), run(p.replace(precision="strict"), src, wei, bias, fill=fill))


def test_each_plane_is_judged_by_its_own_weights():
    """Or what other planes a thread has seen would decide about bits."""
    p = Problem.parse("g2_ic2ih40iw64_oc2k5_f32")
    src, wei, _ = operands(p)
    src[:, 0] *= 1e30
    wei[0] *= 1e-30
    wei[1] *= 1e9
    alone = [run(p.replace(g=1, ic=1, oc=1), src[:, c : c + 1], wei[c : c + 1], algorithm="fast_fir") for c in range(2)]
    for threads in (1, 2):
        assert_same_bits(run(p, src, wei, algorithm="fast_fir", threads=threads), np.concatenate(alone, 1))


def test_ordinary_pixels_are_not_summed_directly():
    """Or the last test would prove nothing."""
    p = Problem.parse(FINITE)
    src, wei, bias = operands(p)
    assert not np.array_equal(run(p, src, wei, bias, "fast_fir"), run(p.replace(precision="strict"), src, wei, bias))


def test_zeros_stay_zeros():
    p = Problem.parse("ih64_k9_p4_f32")
    _, wei, _ = operands(p)
    assert_same_bits(run(p, np.zeros((1, 1, 64, 64), "f4"), wei, algorithm="fast_fir"), np.zeros((1, 1, 64, 64), "f4"))


def test_who_is_chosen():
    """Tall kernels of large planes, unless direct sums are asked for; the child of a forced plan is direct."""
    rng = np.random.default_rng(2)
    image, wei = rng.standard_normal((512, 512), dtype="f4"), rng.standard_normal((13, 13), dtype="f4")
    assert fastconv.plan(image, wei, padding=6).algorithm == "fast_fir"
    assert fastconv.plan(image, wei, padding=6, precision="strict").algorithm == "direct"
    assert fastconv.plan(image, wei[:7, :7], padding=3).algorithm == "direct"
    assert "fast_fir" in fastconv.explain(image, wei, padding=6)
    plan = plan_problem(Problem.parse("ih40_k3_f32"), algorithm="fast_fir")
    assert [child.algorithm for child in plan.children] == ["direct"]


@pytest.mark.parametrize(("text", "reason"), [
    ("ih64_k9_s2_f32", "stride 1"), ("ih64_k9_d2_f32", "dense"), ("ih64_k9_i32", "f32 and f64"), ("ih64_kh1kw9_f32", "one"),
    ("ic2ih64_oc2k9_f32", "planes"), ("ih64_k9_f32_strict", "strict"), ("ih64_k9_f32_bias+relu", "fuse"), ("ih20iw64_k9_f32", "at least"),
])  # fmt: skip
def test_refusals(text, reason):
    assert reason in ALGORITHMS["fast_fir"].reject(Problem.parse(text), detect())
