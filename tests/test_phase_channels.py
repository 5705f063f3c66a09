"""Gradients of images of few channels whose phases are channels of one forward problem: what is put into place, and what is not finite."""

import numpy as np
import pytest

from fastconv.cpu import transposed
from fastconv.cpu.target import AVX512, detect
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import operands, result_array, run

# odd and even extents, phases of fewer rows and columns than others, strides of which two are alternated and others are not
TEXTS = ("ic3ih34iw45_oc20k3_s2_p1_f32", "n3_ic3ih33iw47_oc16k7_s2_p3_f32_bias", "ic1ih41iw40_oc24k5_sh3sw2_p2_f32",
         "ic2ih40iw41_oc9k5_sh2sw3_p1_f64_bias")  # fmt: skip


def gradient(text):
    return Problem.parse(text).replace(op="bwd_data")


@pytest.mark.parametrize("text", TEXTS)
def test_results_are_those_of_the_phases(text, exercised, monkeypatch):
    p = gradient(text)
    src, wei, bias = operands(p)
    plan = plan_problem(p, algorithm="transposed")
    assert plan.kernel == "channels"
    expected = run(p, src, wei, bias, "transposed")
    assert_within(expected, p, truth(p, src, wei, bias), "shallow")
    assert_same_bits(run(p, src, wei, bias, "transposed", 3), expected, "on three threads")
    wide = np.full((p.n, p.ic, p.ih + 2, p.iw + 3), 77, expected.dtype)
    inside = np.s_[:, :, 1:-1, 2:-1]
    run(p, src, wei, bias, "transposed", dst=wide[inside])
    assert_same_bits(wide[inside].copy(), expected, "a view")
    wide[inside] = 77
    assert (wide == 77).all(), "nothing beside the result"
    swapped = result_array(p).astype(expected.dtype.newbyteorder())
    run(p, src, wei, bias, "transposed", dst=swapped)
    assert_same_bits(swapped.astype(expected.dtype), expected, "bytes swapped")
    monkeypatch.setattr(transposed.costs, "MOST_BUFFER", 2 * p.sh * p.sw * transposed._buffer_bytes(p, 1))
    few = transposed.build(p, detect(), plan_problem)
    result = result_array(p)
    few.run(src, few.pack(wei), bias, result)
    assert_same_bits(result, expected, "few images at a time")
    exercised("transposed", text)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("text", TEXTS[:2])
def test_what_is_not_finite_stays_where_the_formula_puts_it(text, value):
    """No phase without a tap there meets it; nor do other images."""
    p = gradient(text)
    src, wei, bias = operands(p)
    image, weights = src.copy(), wei.copy()
    image[-1, 0, 3, 4] = weights[1, 0, 1, 1] = value
    with np.errstate(all="ignore"):
        for pixels, taps in ((image, wei), (src, weights)):
            assert_within(run(p, pixels, taps, bias, "transposed", 2), p, truth(p, pixels, taps, bias), "shallow")


def test_who_is_computed_so():
    """Few channels of planes, where all phases together are predicted to be faster: not of an activation, of dilation, of many channels."""
    kernels = {"ic3ih224_oc64k7_s2_p3": "channels", "ic3ih224_oc32k3_s2_p1": "channels", "ic3ih224_oc32k3_s2_p1_relu": "phases",
               "ic3ih224_oc32k3_s2_p2_d2": "phases", "ic3ih224_oc32k3_s2_p1_nhwc": "phases", "ic64ih56_oc64k3_s2_p1": "phases",
               "ic3ih224_oc64k3_p1": "flipped", "ic1ih256_oc1k5_s2_p2": "phases", "ic3ih224_oc64k1_s2": "phases"}  # fmt: skip
    for text, kernel in kernels.items():
        assert plan_problem(gradient(text), AVX512, algorithm="transposed").kernel == kernel, text
