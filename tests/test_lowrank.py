"""Weights that are sums of a few products: how they are found, who computes them, and what is not finite."""

import itertools

import numpy as np
import pytest

import fastconv
from fastconv.cpu.factor import MOST_GROWTH, factor_sum
from fastconv.cpu.lowrank import rank_of
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import BORDERS, Problem
from fastconv.planning.structure import most_rank, structure_of
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import operands, run, shapes


def laplacian_of_gaussian(k, dtype="f4"):
    """Of rank 2: a Gaussian's second derivative down the columns times a Gaussian along the rows, and the other way round."""
    x = np.arange(k) - k // 2
    gauss = np.exp(-(x**2) / (2 * (k / 6) ** 2))
    second = gauss * (x**2 / (k / 6) ** 2 - 1)
    return (np.outer(second, gauss) + np.outer(gauss, second)).astype(dtype)


def test_ranks_are_found():
    rng = np.random.default_rng(0)
    for acc in ("f32", "f64"):
        for k in (7, 15, 31):
            assert structure_of(acc, laplacian_of_gaussian(k, acc.replace("32", "4").replace("64", "8"))[None, None], 4) == "lowrank(2)"
        full = rng.standard_normal((2, 1, 9, 9))
        assert structure_of(acc, full, 4) == "full"
        full[:, 0] = np.outer(full[0, 0, 0], full[0, 0, 1])
        full[1, 0] += np.outer(full[0, 0, 2], full[0, 0, 3]) + np.eye(9)[0]
        full[1, 0, 4, 4] += 1
        full[1, 0, 5] *= 2
        rank = np.linalg.matrix_rank(full[1, 0])
        assert structure_of(acc, full, 4) == f"lowrank({rank})"
        assert structure_of(acc, full, rank - 1) == "full"
    assert structure_of("f32", laplacian_of_gaussian(9)[None, None]) == "full"  # nobody asked
    for wrong in (np.nan, np.inf):
        wei = laplacian_of_gaussian(9)
        wei[2, 3] = wrong
        assert structure_of("f32", wei[None, None], 4) == "full"


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_products_are_what_is_promised(dtype):
    rng = np.random.default_rng(1)
    for _ in range(50):
        kh, kw = rng.integers(2, 20, 2)
        rank = int(rng.integers(1, 5))
        scale = 10.0 ** rng.integers(-20, 20)
        wei = (scale * sum(np.outer(rng.standard_normal(kh), rng.standard_normal(kw)) for _ in range(rank))).astype(dtype)
        packed = np.empty((1, 4, kh + kw), dtype)
        found = factor_sum(wei[None, None], packed)
        assert 0 < found <= rank
        column, row = packed[0, :, :kh, None].astype(np.float64), packed[0, :, None, kh:].astype(np.float64)
        total = np.abs(wei.astype(np.float64)).sum()
        assert np.abs(wei - (column * row).sum(0)).sum() <= 4 * np.finfo(dtype).eps * total
        assert np.abs(column * row).sum() <= MOST_GROWTH * total
        assert np.abs(row).max() <= 1
        assert not packed[0, found:].any()


def test_products_that_cancel_are_refused():
    """A weight far larger than the others, which the sum of products of float32 would blur."""
    wei = np.full((1, 1, 5, 5), 1e-9)
    wei[0, 0, 2, 2] = 1
    wei[0, 0, 3, 1] = -1e-9
    vectors = np.empty((1, 4, 10), "f4")
    rank = factor_sum(wei, vectors)
    error = np.abs(wei[0, 0] - (vectors[0, :, :5, None].astype("f8") * vectors[0, :, None, 5:]).sum(0)).sum()
    assert rank == 0 or error <= 4 * np.finfo("f4").eps * np.abs(wei).sum()


@pytest.mark.parametrize("text", [
    "ih64iw83_k9_p4_reflect_f32_structure=lowrank(2)", "n2_g2_ic2ih21iw50_oc2kh5kw8_sh1sw2_p3_f32_bias_structure=lowrank(3)",
    "ih40_k7_p3_wrap_f64_structure=lowrank(2)",
])  # fmt: skip
def test_nan_and_inf_where_the_formula_puts_them(text):
    p = Problem.parse(text)
    src, wei, bias = operands(p)
    plan = plan_problem(p, algorithm="lowrank")
    rng = np.random.default_rng(3)
    largest = np.finfo(src.dtype).max / (1.01 * np.abs(wei).sum((1, 2, 3)).max())  # direct sums of it are finite
    for values in ((np.nan,), (np.inf,), (np.inf, -np.inf, np.nan), (largest, -largest)):
        image = src.copy()
        for value in values:
            image[rng.random(image.shape) < 0.002] = value
        dst = np.empty(shapes(p)[3], src.dtype)
        plan.run(image, plan.pack(wei), bias, dst)
        assert_within(dst, p, truth(p, image, wei, bias), "lowrank")
        # what holds nothing of the kind has the bits that it has without
        alone = np.empty_like(dst)
        plan.run(src, plan.pack(wei), bias, alone)
        marks = np.zeros_like(src)
        marks[~np.isfinite(image) | (np.abs(image) > 1e30)] = 1
        far = truth(p, marks, np.ones_like(wei)).value == 0  # windows of ordinary pixels
        assert far.any()
        assert_same_bits(dst[far], alone[far])


def test_a_call_finds_it_and_says_so():
    rng = np.random.default_rng(2)
    image, wei = rng.standard_normal((512, 512), dtype="f4"), laplacian_of_gaussian(15)
    assert fastconv.plan(image, wei, padding=7).algorithm == "lowrank"
    assert "lowrank" in fastconv.explain(image, wei, padding=7)
    assert fastconv.plan(image, wei, padding=7, precision="strict").algorithm == "direct"
    p = Problem.parse("ih512_k15_p7_f32_structure=lowrank(2)")
    expected = truth(p, image[None, None], wei[None, None])
    for algorithm in (None, "lowrank"):
        for weights in (rng.standard_normal((15, 15), dtype="f4"), wei):  # one call's memory serves weights of any structure
            if algorithm is None or weights is wei:
                result = fastconv.conv2d(image, weights, padding=7, algorithm=algorithm)
        assert_within(result[None, None], p, expected, "lowrank")
    with pytest.raises(ValueError, match="not full"):
        fastconv.conv2d(image, rng.standard_normal((15, 15), dtype="f4"), algorithm="lowrank")


def test_only_ranks_that_pay_are_looked_for():
    assert most_rank(Problem.parse("ih256_k15_p7_f32")) == 4
    assert most_rank(Problem.parse("ih128_k21_p10_f32")) == 0  # the look would be felt
    assert most_rank(Problem.parse("ih128_k21_p10_f32"), "lowrank") == 4
    assert most_rank(Problem.parse("ih1024_k3_p1_f32")) == 0
    assert most_rank(Problem.parse("ih512_k15_p7_f32_masked")) == 0
    assert [rank_of(s) for s in ("full", "rank1", "lowrank(3)")] == [0, 0, 3]


def test_weights_of_more_products_than_planned():
    p = Problem.parse("ih64_k9_structure=lowrank(1)")
    with pytest.raises(ValueError, match=r"of structure lowrank\(1\) as planned"):
        plan_problem(p, algorithm="lowrank").pack(laplacian_of_gaussian(9)[None, None])


@pytest.mark.parametrize("border", BORDERS)
def test_every_border_and_size(border, exercised):
    """Images narrower than a tile and larger than a band, kernels of even and odd sizes, and larger than the image, all strides."""
    sizes = ((3, 5), (9, 33), (40, 64), (70, 131))
    kernels = ((2, 2), (3, 3), (2, 5), (8, 16), (17, 18))
    for number, ((ih, iw), (kh, kw)) in enumerate(itertools.product(sizes, kernels)):
        pads = {"pt": kh // 2, "pb": kh - 1 - kh // 2, "pl": kw - 1 - kw // 3, "pr": kw // 3}
        rank, strides = 1 + number % min(4, kh, kw), {"sh": 1 + number % 3 // 2, "sw": 1 + number % 2}
        p = Problem(
            ih=ih, iw=iw, kh=kh, kw=kw, border=border, structure=f"lowrank({rank})", epilogue=("", "bias")[number % 2], **pads, **strides
        )
        src, wei, bias = operands(p)
        result = run(p, src, wei, bias, "lowrank", 1 + number % 2, 2.5)
        assert_within(result, p, truth(p, src, wei, bias, 2.5), "lowrank")
        exercised("lowrank", str(p))
