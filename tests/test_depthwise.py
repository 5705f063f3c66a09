"""depthwise where the general cases do not lead: blocks that begin beside cache lines, pixels that share a cache's sets, narrow images."""

import numpy as np
import pytest

from fastconv.cpu import depthwise
from fastconv.cpu.target import AVX2, AVX512, SSE2
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import operands, result_array, run

NARROW = "ih5iw5_k3_p1"  # rows shorter than a tile: results are put aside
PROBLEMS = (
    "g112_ic112oc112_ih6iw17_k3_p1",  # blocks of which all but the first and last vectors begin at cache lines
    f"g112_ic112oc112_{NARROW}",
    "g1024_ic1024oc1024_ih3iw9_k3_p1",  # pixels 4096 bytes apart are copied
    "g56_ic112oc112_ih6iw17_k3_p1",
    "g7_ic112oc112_ih6iw17_k3_p1",
    "g14_ic112oc112_ih6iw17_k3_p1",
    "g28_ic112oc112_ih6iw17_k3_p1",
)


def beside(array, elements):
    """The same NHWC memory, so many elements beside a cache line."""
    last = array.transpose(0, 2, 3, 1)
    memory = np.empty(last.size + 32, array.dtype)
    start = -memory.ctypes.data % 64 // array.itemsize + elements
    copy = memory[start : start + last.size].reshape(last.shape)
    copy[...] = last
    return copy.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("text", PROBLEMS)
def test_layouts_and_places_have_the_same_bits(text):
    planes = Problem.parse(f"{text}_f32_bias")
    p = planes.replace(src_layout="nhwc")
    src, wei, bias = operands(p)
    expected = run(planes, np.ascontiguousarray(src), wei, bias, "depthwise")
    assert_within(expected, planes, truth(planes, src, wei, bias), "depthwise")
    for elements in (0, 1, 4, 13):
        for away in (0, elements):
            dst = beside(result_array(p), away)
            run(p, beside(src, elements), wei, bias, "depthwise", dst=dst)
            assert_same_bits(dst.copy(), expected, f"{p} {elements} {away}")


def test_pixels_that_crowd_a_cache_s_sets_are_copied():
    for text, copied in (("g1024_ic1024ih14_oc1024", True), ("g144_ic144ih14_oc144", False), ("g8_ic64ih14_oc64", True)):
        p = Problem.parse(f"{text}k3_p1_f32_nhwc")
        assert depthwise._copied(p, AVX512, 14 * 4 * p.ic, 4 * p.ic) == copied, text


@pytest.mark.parametrize(
    ("text", "target", "reason"),
    [
        ("g4_ic12ih9_oc12k3_f32", AVX2, "channels, not 3"),
        ("g4_ic8ih9_oc16k3_f32", AVX2, "as many results as channels"),
        ("g4_ic32ih9_oc32k3_f32", SSE2, "has groups of 1, 2, 4 channels, not 8"),
        ("ic4ih9_oc4k3_f32", AVX2, "several groups"),
        ("g4_ic4ih200_oc4k3_d40_f32", AVX2, "at most 32 apart, not 40"),
        ("g4_ic4ih9_oc4k3_f32_gelu", AVX2, "does not fuse gelu"),
    ],
)
def test_reasons(text, target, reason):
    assert reason in depthwise.reject(Problem.parse(text), target)


def test_it_is_chosen_for_what_it_is_for():
    for text in (*depthwise.CASES[:4], "g32_ic512ih14_oc512k3_p1_f32_nhwc"):
        assert plan_problem(Problem.parse(text), AVX512).algorithm == "depthwise", text


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_results_of_one_column_in_memory_of_any_strides(layout):
    p = Problem.parse("g8_ic8ih5iw1_oc8k3_p1").replace(src_layout=layout)
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, "depthwise")
    assert_within(expected, p, truth(p, src, wei), "depthwise")
    apart = (
        np.zeros((1, 8, 5, 2), "f4")[..., ::2] if layout == "nchw" else np.zeros((1, 5, 2, 16), "f4")[:, :, ::2, ::2].transpose(0, 3, 1, 2)
    )
    assert_same_bits(run(p, np.repeat(src, 2, axis=1)[:, ::2], wei, bias, "depthwise", dst=apart), expected)
