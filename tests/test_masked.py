"""Masked sums: any mask, alike in every memory, and what is made once for valid windows equal to what is made for each."""

import numpy as np
import pytest

import fastconv
from fastconv.planning.planner import cheapest, explain_problem, plan_problem, short_name
from fastconv.planning.problem import Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import operands, result_array

P = Problem.parse("n2_g2_ic2ih37iw150_oc2k5_p2_f32_masked")


def masked(p, src, wei, mask=None, threads=1):
    plan = plan_problem(p, algorithm="masked", threads=threads)
    dst = result_array(p)
    plan.run(src, plan.pack(wei), None if mask is None else mask.reshape(-1), dst)
    return dst


@pytest.mark.parametrize("border", ["constant", "edge", "reflect", "symmetric", "wrap"])
def test_masks_and_nan(border):
    p = P.replace(border=border)
    src, wei, _ = operands(p)
    valid = ~np.isnan(src)
    expected = masked(p, src, wei)
    assert_within(expected, p, truth(p, src, wei), "masked")
    filled = np.where(valid, src, np.float32(np.inf))
    for mask in (valid, (valid * 7).astype("u1").view(bool)):
        for threads in (1, 2):
            assert_same_bits(masked(p, filled, wei, mask, threads), expected, f"{threads} threads")
    for memory in (np.repeat(src, 2, axis=3)[..., ::2], src.astype(">f4"), np.asfortranarray(src)):
        assert_same_bits(masked(p, memory, wei), expected, f"{memory.strides}")


def test_windows_without_a_masked_pixel_have_the_same_bits_whatever_is_near():
    src, wei, _ = operands(P)
    src = np.nan_to_num(src)
    whole = masked(P, src, wei)
    holes = np.ones(src.shape, bool)
    holes[..., 11:13, 40::37] = False
    result = masked(P, src, wei, holes)
    near = np.zeros(src.shape, bool)
    for y, x in zip(*np.nonzero(~holes[0, 0]), strict=True):
        near[..., max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = True
    assert near.any()
    assert_same_bits(result[~near], whole[~near])
    assert (result != whole).any()


@pytest.mark.parametrize("k", [3, 15, 41])
def test_windows_without_a_valid_pixel_are_nan(k):
    """Whatever the size, transforms included in the choice: their noise would pass for a denominator."""
    rng = np.random.default_rng(0)
    src, wei = rng.standard_normal((130, 200)).astype("f4"), rng.random((k, k)).astype("f4")
    hole = slice(20, 20 + k + 5), slice(60, 60 + k + 9)
    src[hole] = np.nan
    result = fastconv.correlate2d(src, wei, "same", "symm", mask="nan")
    empty = np.zeros(src.shape, bool)
    half = k // 2
    empty[20 + half : 25 + half + 1, 60 + half : 69 + half + 1] = True
    assert np.array_equal(np.isnan(result), empty)
    assert_same_bits(fastconv.correlate2d(src, wei, "same", "symm", mask=~np.isnan(src)), result)


def test_calls_that_are_remembered_take_other_masks():
    src, wei = np.arange(600, dtype="f4").reshape(20, 30), np.ones((3, 3), "f4")
    rng = np.random.default_rng(1)
    for _ in range(3):
        mask = rng.random(src.shape) < 0.7
        out = np.empty_like(src)
        expected = fastconv.correlate2d(np.where(mask, src, np.float32(np.nan)), wei, "same", mask="nan")
        assert_same_bits(fastconv.correlate2d(src, wei, "same", mask=mask), expected)
        assert fastconv.correlate2d(src, wei, "same", mask=np.asfortranarray(mask), out=out) is out
        assert_same_bits(out, expected)
        shared = src.copy()
        shared[~mask] = np.nan
        assert fastconv.correlate2d(shared, wei, "same", mask="nan", out=shared) is shared
        assert_same_bits(shared, expected)


def test_a_mask_that_is_none_is_refused_after_one_that_is():
    x, k = np.ones((8, 8)), np.ones((3, 3))
    fastconv.correlate2d(x, k, mask=np.ones((8, 8), bool))
    with pytest.raises(ValueError, match="mask must have in1's shape"):
        fastconv.correlate2d(x, k, mask=True)


def test_what_is_chosen():
    assert short_name(cheapest(Problem.parse("ih512_k5_p2_f32_masked"))[1]) == "masked"
    assert short_name(cheapest(Problem.parse("ih512_k41_p20_f32_masked_structure=rank1"))[1]) == "quotient"
    assert "masked     no: its rows of taps are dense, not 2 apart" in explain_problem(Problem.parse("ih64_k5_d2_f32_masked"))
    assert "direct     no: does not compute masked problems" in explain_problem(Problem.parse("ih64_k5_f32_masked"))
    with pytest.raises(ValueError, match="for masked problems"):
        plan_problem(Problem.parse("ih64_k5_f32"), algorithm="masked")
