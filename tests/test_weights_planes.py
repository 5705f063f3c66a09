"""The gradient of the weights of few planes: tails of rows, blocks that overlap, arrays of any strides, images in turn, who is chosen."""

import numpy as np
import pytest

from fastconv.cpu import weights_planes
from fastconv.cpu.target import AVX2, AVX512
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import operands, result_array, run

# rows of whole vectors and others; channels and taps that blocks hold, or overlap
TEXTS = (
    "n3_ic3ih33iw37_oc20k3_s2_p1",
    "ic3ih40iw130_oc19k3_p1",
    "n2_ic4ih30iw50_oc24k5_sh3sw2_p2",
    "ic1ih21iw40_oc8kh2kw3_dh2dw1_p1_reflect",
)


def gradient(text):
    return Problem.parse(text).replace(op="bwd_weight")


@pytest.mark.parametrize("text", TEXTS)
def test_bits_of_threads_and_strides(text, exercised):
    p = gradient(text)
    src, grad, _ = operands(p)
    expected = run(p, src, grad, algorithm="weights_planes")
    assert_within(expected, p, truth(p, src, grad), "direct")
    for threads in (2, 3):
        assert_same_bits(run(p, src, grad, algorithm="weights_planes", threads=threads), expected, f"{threads} threads")
    for arrays in (
        (np.asfortranarray(src), grad),
        (src[:, :, ::-1].copy()[:, :, ::-1], np.asfortranarray(grad)),
        (src.astype(">f4"), grad),
    ):
        assert_same_bits(run(p, *arrays, algorithm="weights_planes"), expected, "strides")
    exercised("weights_planes", text)


def test_what_lies_beside_rows_is_not_read():
    """Neighbours that are not finite, right of the gradient's rows and of the image's."""
    p = gradient(TEXTS[1])
    src, grad, _ = operands(p)
    expected = run(p, src, grad, algorithm="weights_planes")
    wide = [np.full((*array.shape[:3], array.shape[3] + 20), np.nan, array.dtype) for array in (src, grad)]
    for memory, array in zip(wide, (src, grad), strict=True):
        memory[..., 3 : 3 + array.shape[3]] = array
    views = [memory[..., 3 : 3 + array.shape[3]] for memory, array in zip(wide, (src, grad), strict=True)]
    assert_same_bits(run(p, *views, algorithm="weights_planes"), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_with_the_weights_that_meet_it(value):
    p = gradient(TEXTS[1])
    src, grad, _ = operands(p)
    src[0, 1, 0, -1] = value
    grad[0, 5, 7, -1] = value
    with np.errstate(all="ignore"):
        assert_within(run(p, src, grad, algorithm="weights_planes", threads=2), p, truth(p, src, grad), "direct")


def test_images_in_turn_are_added_alike_on_any_threads(monkeypatch):
    p = gradient("n5_ic3ih33iw37_oc20k3_s2_p1")
    src, grad, _ = operands(p)
    monkeypatch.setattr(weights_planes, "_seconds", lambda p, t: p.n * weights_planes.costs.MOST_SECONDS / 2)
    results = []
    for threads in (1, 2):
        plan, result = weights_planes.build(p, AVX2, plan_problem, threads), result_array(p)
        plan.run(src, plan.pack(grad), None, result)
        assert_within(result, p, truth(p, src, grad), "direct")
        results.append(result)
    assert_same_bits(*results)


def test_who_is_chosen():
    for text in ("ic3ih224_oc64k3_p1", "ic3ih224_oc32k3_s2_p1", "ic3ih224_oc64k7_s2_p3"):
        assert plan_problem(gradient(text), AVX512).algorithm == "weights_planes", text
    assert plan_problem(gradient("ic3ih224_oc64k3_p1_nhwc"), AVX512).algorithm == "weights_rows"
    assert plan_problem(gradient("ic64ih56_oc64k3_p1"), AVX512).algorithm == "weights_winograd"


@pytest.mark.parametrize(("text", "reason"), [
    ("ic5ih40_oc8k3", "at most 4 planes"), ("g2_ic4ih40_oc16k3", "one group"), ("ic3ih40_oc8k3_nhwc", "planes"),
    ("ic3ih40_oc7k3", "at least 8 results"), ("ic3ih9_oc8k3", "16 columns"), ("ic1ih40_oc8kh1kw2", "3 to 256 taps"),
    ("ic4ih40_oc8k9", "3 to 256 taps"), ("ic3ih40_oc8k3_i32", "f32 or f64"),
])  # fmt: skip
def test_refusals(text, reason):
    assert reason in weights_planes.reject(gradient(text), AVX512)
