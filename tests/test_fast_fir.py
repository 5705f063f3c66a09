"""Two neighbours of results from three sums: pairs at the ends of bands and planes, who computes what is not finite, who is chosen."""

import numpy as np
import pytest

import fastconv
from fastconv.cpu.target import TARGETS, detect
from fastconv.planning import cost
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import BORDERS, Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import ALGORITHMS, operands, result_array, run

FINITE = ("n2_g2_ic2ih49iw70_oc4k7_p9_wrap_f32_bias", "n2_g2_ic2ih49iw150_oc4k7_s2_p9_wrap_f32_bias")


@pytest.mark.parametrize("kh", range(2, 19))
def test_every_height(kh, exercised):
    """Of taps, so of groups of them, and odd and even heights of results."""
    for ih in (16 + kh, 47 + kh):
        p = Problem.parse(f"ih{ih}iw75_kh{kh}kw3_f32")
        src, wei, _ = operands(p)
        assert_within(run(p, src, wei, algorithm="fast_fir"), p, truth(p, src, wei), "fast_fir")
        exercised("fast_fir", str(p))


@pytest.mark.parametrize("kw", range(3, 23))
def test_every_width_at_stride_2(kw, exercised):
    """Of taps, so of pairs of columns of both phases, and odd and even widths of results."""
    for iw in (128 + kw, 191 + kw, 258 + kw):
        p = Problem.parse(f"ih47iw{iw}_kh{1 + kw % 7}kw{kw}_s2_p2_f32") if kw % 7 else Problem.parse(f"ih47iw{iw}_kh9kw{kw}_s2_f32")
        src, wei, _ = operands(p)
        assert_within(run(p, src, wei, algorithm="fast_fir", threads=2), p, truth(p, src, wei), "fast_fir")
        exercised("fast_fir", str(p))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_stride_2_for_every_target(target, dtype):
    """Vectors of any target's width compile on any processor; chunks of pixels are as wide as they."""
    for text in ("n2_g2_ic2ih37iw200_oc4k9_s2_p9_reflect", "ih30iw161_kh7kw6_s2_pl40pr3"):
        p = Problem.parse(f"{text}_{dtype}")
        src, wei, bias = operands(p)
        plan = ALGORITHMS["fast_fir"].build(p, target, plan_problem, 2)
        dst = result_array(p)
        plan.run(src, plan.pack(wei), bias, dst)
        assert_within(dst, p, truth(p, src, wei, bias), "fast_fir")


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("border", BORDERS)
def test_every_border(border, stride):
    p = Problem.parse(f"ih40iw{61 * stride}_k7_s{stride}_pt5pb2pl9pr4_{border}_f32")
    src, wei, _ = operands(p)
    for fill in (0, -3.5) if border == "constant" else (0,):
        assert_within(run(p, src, wei, algorithm="fast_fir", threads=2, fill=fill), p, truth(p, src, wei, fill=fill), "fast_fir")


@pytest.mark.parametrize("text", ["ih150iw2100_kh9kw2_p1_f32", "ih150iw2100_kh9kw3_s2_pt1pb1pl90pr91_f32"])
def test_blocks_of_columns_and_bands_of_rows(text, monkeypatch):
    """Wider than a block, of more rows than a band, images and results with gaps between their rows."""
    monkeypatch.setattr(cost, "FAST_FIR_RING_BYTES", {1: 128 << 10, 2: 64 << 10})
    p = Problem.parse(text)
    src, wei, _ = operands(p)
    wide = np.zeros((*src.shape[:3], 2111), "f4")
    wide[..., 7:2107] = src
    result = np.full((1, 1, p.oh, p.ow + 13), 7, "f4")
    plan = ALGORITHMS["fast_fir"].build(p, detect(), plan_problem, 2)
    plan.run(wide[..., 7:2107], plan.pack(wei), None, result[..., 5 : 5 + p.ow])
    assert_within(result[..., 5 : 5 + p.ow], p, truth(p, src, wei), "fast_fir")
    assert (result[..., :5] == 7).all()
    assert (result[..., 5 + p.ow :] == 7).all()


@pytest.mark.parametrize("text", FINITE)
def test_what_is_not_finite_is_summed_directly(text):
    """NaN, inf and what overflows, alone and at every edge, in pixels, weights, border and sums: the bits of the plan of direct sums."""
    p = Problem.parse(text)
    src, wei, bias = operands(p)
    plan = plan_problem(p, algorithm="fast_fir")
    strict = p.replace(precision="strict")
    for value in (np.nan, np.inf, -np.inf):
        for at in ((0, 0, 0, 0), (1, 1, -1, -1), (0, 1, 20, 35)):
            image = src.copy()
            image[at] = value
            dst = np.empty((p.n, p.oc, p.oh, p.ow), "f4")
            plan.run(image, plan.pack(wei), bias, dst)
            assert_within(dst, p, truth(p, image, wei, bias), "direct")
            assert_same_bits(dst, run(strict, image, wei, bias), f"{value} at {at}")
    with np.errstate(over="ignore", invalid="ignore"):
        for value in (np.nan, np.inf, np.finfo("f4").max / 2):
            weights = wei.copy()
            weights[3, 0, 6, 0] = value
            assert_same_bits(run(p, src, weights, bias, "fast_fir"), run(strict, src, weights, bias))
        # differences of neighbours overflow, sums of products do not
        y, x = np.indices(src.shape[2:]) // p.sw % 2
        image = np.where(x ^ y, np.float32(3e38), np.float32(-3e38)) * np.ones_like(src)
        assert_same_bits(run(p, image, wei * 1e-3, bias, "fast_fir"), run(strict, image, wei * 1e-3, bias))
        p = p.replace(border="constant")
        for fill in (np.nan, -np.inf):
            exact = run(p.replace(precision="strict"), src, wei, bias, fill=fill)
            assert_same_bits(run(p, src, wei, bias, "fast_fir", fill=fill), exact)


@pytest.mark.parametrize("text", FINITE)
def test_large_pixels_are_within_the_bound(text):
    """Or take direct sums: which they are is not promised."""
    p = Problem.parse(text)
    src, wei, bias = operands(p)
    for value in np.finfo("f4").max / np.abs(wei).sum((1, 2, 3)).max() / np.array([1.01, 4, 100], "f4"):
        image = src.copy()
        image[1, 1, 17, 30] = value
        assert_within(run(p, image, wei, bias, algorithm="fast_fir"), p, truth(p, image, wei, bias), "fast_fir")


@pytest.mark.parametrize("text", FINITE)
def test_finite_pixels_are_not_summed_directly(text):
    """Or the tests of those that are would prove nothing."""
    p = Problem.parse(text)
    src, wei, bias = operands(p)
    assert not np.array_equal(run(p, src, wei, bias, "fast_fir"), run(p.replace(precision="strict"), src, wei, bias))


def test_nothing_beyond_the_image_decides_about_bits():
    """At stride 2 what lies beyond the padded image is read and cancels: pixels that a thread had copied before must not be there."""
    p = Problem.parse("n3_ih40iw133_k5_s2_p2_f32")
    src, wei, _ = operands(p)
    src[1] *= 1e6
    alone = np.concatenate([run(p.replace(n=1), src[n : n + 1], wei, algorithm="fast_fir") for n in range(3)])
    for threads in (1, 2):
        assert_same_bits(run(p, src, wei, algorithm="fast_fir", threads=threads), alone)


def test_zeros_stay_zeros():
    for text in ("ih64_k9_p4_f32", "ih128_k9_s2_p4_f32"):
        p = Problem.parse(text)
        src, wei, _ = operands(p)
        assert_same_bits(run(p, np.zeros_like(src), wei, algorithm="fast_fir"), np.zeros((1, 1, p.oh, p.ow), "f4"))


def test_who_is_chosen():
    """Tall kernels of large planes, unless direct sums are asked for; the child of a forced plan is direct."""
    rng = np.random.default_rng(2)
    image, wei = rng.standard_normal((512, 512), dtype="f4"), rng.standard_normal((13, 13), dtype="f4")
    assert fastconv.plan(image, wei, padding=6).algorithm == "fast_fir"
    assert fastconv.plan(image, wei, padding=6, precision="strict").algorithm == "direct"
    assert fastconv.plan(image, wei[:7, :7], padding=3).algorithm == "direct"
    assert "fast_fir" in fastconv.explain(image, wei, padding=6)
    large = np.resize(wei, (21, 21))
    assert fastconv.plan(image, large, padding=10, stride=2).algorithm == "fast_fir"
    assert fastconv.plan(image, large, padding=10, stride=2, precision="strict").algorithm == "direct"
    assert fastconv.plan(image, wei[:9, :9], padding=4, stride=2).algorithm == "direct"
    plan = plan_problem(Problem.parse("ih40_k3_f32"), algorithm="fast_fir")
    assert [child.algorithm for child in plan.children] == ["direct"]


@pytest.mark.parametrize(("text", "reason"), [
    ("ih64_k9_s3_f32", "stride 1 or 2"), ("ih64_k9_sh2sw1_f32", "stride 1 or 2"), ("ih64_k9_d2_f32", "dense"),
    ("ih64_k9_i32", "f32 and f64"), ("ih64_kh1kw9_f32", "one"), ("ih40iw64_k9_s2_f32", "at least"),
    ("ih40iw264_kh9kw2_s2_f32", "every other"),
    ("ic2ih64_oc2k9_f32", "planes"), ("ih64_k9_f32_strict", "strict"), ("ih64_k9_f32_bias+relu", "fuse"), ("ih20iw64_k9_f32", "at least"),
])  # fmt: skip
def test_refusals(text, reason):
    assert reason in ALGORITHMS["fast_fir"].reject(Problem.parse(text), detect())
