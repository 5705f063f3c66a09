"""depthwise where the general cases do not lead: blocks that begin beside cache lines, pixels that share a cache's sets, narrow images;
bytes, exact and requantised."""

import numpy as np
import pytest

import fastconv
from fastconv.cpu import depthwise, shallow
from fastconv.cpu.target import AVX2, AVX512, SSE2, detect
from fastconv.cpu.threads import Region
from fastconv.nn import Epilogue
from fastconv.planning.addends import Addends, finish_type
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import operands, result_array, run

NARROW = "ih5iw5_k3_p1"  # rows shorter than a tile: results are put aside
PROBLEMS = (
    "g112_ic112oc112_ih6iw17_k3_p1",  # blocks of which all but the first and last vectors begin at cache lines
    f"g112_ic112oc112_{NARROW}",
    "g1024_ic1024oc1024_ih3iw9_k3_p1",  # pixels 4096 bytes apart, which others than 3x3 copy
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


def test_blocks_and_tables_that_several_tiles_share_have_the_same_bits(monkeypatch):
    """Blocks end beside vectors of channels where results do; inner tiles of inner bands share the addresses of pixels."""
    planes = Problem.parse("n2_g112_ic112oc112_ih22iw37_k3_p1_reflect_f32")
    p = planes.replace(src_layout="nhwc")
    src, wei, _ = operands(p)
    expected = run(planes, np.ascontiguousarray(src), wei, None, "depthwise")
    assert_within(expected, planes, truth(planes, src, wei), "depthwise")
    for vectors, threads, given in ((1, 2, False), (1, 1, True), (3, 1, False), (3, 2, True)):
        monkeypatch.setattr(depthwise, "_DOWN_VECTORS", vectors)
        plan = depthwise.build(p, detect(), plan_problem, threads, given)
        for elements in (0, 1, 4, 13):
            dst = beside(result_array(p), elements)
            plan.run(src, plan.pack(wei), None, dst)
            assert_same_bits(dst.copy(), expected, f"{vectors} {threads} {given} {elements}")
    # images of a result whose vectors lie differently
    memory = np.empty((p.n, p.oh * p.ow * p.oc + 4), "f4")
    dst = memory[:, : p.oh * p.ow * p.oc].reshape(p.n, p.oh, p.ow, p.oc).transpose(0, 3, 1, 2)
    plan = depthwise.build(p, detect(), plan_problem, 1, True)
    plan.run(src, plan.pack(wei), None, dst)
    assert_same_bits(dst.copy(), expected)


def test_pixels_that_crowd_a_cache_s_sets_are_copied():
    for text, copied in (("g1024_ic1024ih14_oc1024k5", True), ("g1024_ic1024ih14_oc1024k3", False), ("g144_ic144ih14_oc144k5", False),
                         ("g8_ic64ih14_oc64k3", True)):  # fmt: skip
        p = Problem.parse(f"{text}_p1_f32_nhwc")
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
        ("g4_ic4ih40_oc4k23_u8:i8:i32:i32", AVX2, "as many as float32 holds, not 529"),
        ("g4_ic4ih9_oc4k3_u8:i16:i32:i32", AVX2, "products of bytes"),
        ("g4_ic4ih9_oc4k3_f32_residual", AVX2, "adds no residual"),
    ],
)
def test_reasons(text, target, reason):
    assert reason in depthwise.reject(Problem.parse(text), target)


def test_it_is_chosen_for_what_it_is_for():
    bytes_again = "g144_ic144ih28_oc144k3_p1_u8:i8:u8:i32_bias+scale+saturate:128"
    for text in (*depthwise.CASES[:4], bytes_again, f"{bytes_again}_nhwc"):
        assert plan_problem(Problem.parse(text), AVX512).algorithm == "depthwise", text


BYTES = "g20_ic20ih9iw11_oc20k3_p1_u8:i8"


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_sums_of_bytes_are_exact(layout, exercised):
    """Sums at both ends, biases that float32 does not hold and that wrap, borders that no byte holds, strided memory."""
    p = Problem.parse(f"{BYTES}:i32:i32_bias").replace(src_layout=layout)
    src, wei, bias = operands(p)
    src[:, :5], wei[:3], wei[3:5] = 255, -128, 127
    bias[:6] = 2**24 + 1, -(2**31), 2**31 - 1, -(2**24) - 3, 2**31 - 1, 12345679
    for fill in (0, 255, 300, -1, 2.5):
        expected = run(p, src, wei, bias, "reference", fill=fill)
        for threads in (1, 2):
            np.testing.assert_array_equal(run(p, src, wei, bias, "depthwise", threads, fill=fill), expected)
    strided = np.repeat(np.repeat(src, 2, axis=1), 2, axis=3)[:, ::2, :, ::2]
    np.testing.assert_array_equal(run(p, strided, wei, bias, "depthwise", fill=7), run(p, src, wei, bias, "depthwise", fill=7))
    exercised("depthwise", str(p))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_bytes_are_requantised(layout, exercised):
    """Scales that are not finite and zero points as the formula has them; other weights and biases in a plan that remembers calls."""
    p = Problem.parse(BYTES.replace("u8:i8", "u8:i8:u8:i32_bias+scale+saturate:128")).replace(src_layout=layout)
    src, wei, bias = operands(p.replace(dst="i32", epilogue="bias"))
    src[:, :5], wei[:3], bias[:3] = 255, -128, (2**24 + 1, -(2**31), 2**30)
    scale = np.random.default_rng(1).choice([0.5, 0.25, 1e-3, -2e-3, 0.01], 20).astype("f4")
    scale[5:8] = np.nan, np.inf, -np.inf
    image, weights = src, wei
    if layout == "nhwc":
        image, weights = src.transpose(0, 2, 3, 1).copy(), wei.transpose(2, 3, 1, 0).copy()
    made = fastconv.plan(image, weights, bias, padding=1, groups=20, data_format=layout.upper(), algorithm="depthwise",
                         epilogue=Epilogue(scale=scale, dtype="u1", zero_point=128))  # fmt: skip
    for sign in (1, -1):
        weights[...], bias = weights // 2, bias // 2 * sign
        made.set_weight(weights, bias)
        sums = run(
            p.replace(dst="i32", epilogue="bias"), src, wei if layout == "nchw" else weights.transpose(3, 2, 0, 1), bias, "reference"
        )
        with np.errstate(all="ignore"):
            scaled = sums.astype("f4") * scale[:, None, None]
            expected = np.clip(np.where(np.isnan(scaled), 0, np.rint(scaled)) + 128, 0, 255).astype("u1")
        for _ in range(3):
            result = made(image)
            np.testing.assert_array_equal(result if layout == "nchw" else result.transpose(0, 3, 1, 2), expected)
    exercised("depthwise", str(p))


@pytest.mark.slow
@pytest.mark.parametrize("types", ["f32", "f64", "f32:f32:u8:f32"])
def test_floats_are_scaled_and_shifted(types):
    words = "bias+scale+shift+" + ("saturate:3" if "u8" in types else "relu")
    p = Problem.parse(f"g20_ic20ih9iw11_oc20k3_p1_{types}_{words}")
    src, wei, bias = operands(p, integers=True)
    scale, shift = np.random.default_rng(1).integers(-4, 5, (2, p.oc)).astype(finish_type(p)) / 2
    addends = Addends(bias, scale, shift)
    for layout in ("nchw", "nhwc"):
        p = p.replace(src_layout=layout)
        assert_same_bits(run(p, src, wei, addends, "depthwise"), run(p, src, wei, addends, "reference"), str(p))


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
    turned, result = (np.zeros((1, 8, 5, 5), "f4").swapaxes(2, 3)[..., :1] for _ in "sd")  # rows are side by side, columns would not be
    turned[...] = src
    assert_same_bits(run(p, turned, wei, bias, "depthwise"), expected)
    assert_same_bits(run(p, src, wei, bias, "depthwise", dst=result), expected)


def test_bands_are_whole_tiles_of_rows():
    """Of others the last tile computes rows again.  Tiles that go down have rows of any number but one."""
    for text, tall in (("ih56_oc144k3", 1), ("ih112_oc144k3_s2", 1), ("ih28_oc144k5", 2), ("ih7_oc144k3", 1), ("ih4_oc144k3", 1)):
        for threads in (1, 2, 3):
            p = Problem.parse(f"g144_ic144{text}_p{1 + (tall > 1)}_nhwc")
            head = depthwise._layout(p, AVX512, threads)[1]
            assert (head.tall, head.tall * head.tiles) == (tall, p.oh), text
            assert head.tiles // head.bands >= 2, f"{text} {threads}"
            assert head.bands % threads == 0 or head.bands >= 4 * threads or p.oh < 2 * threads, f"{text} {threads}"


@pytest.mark.parametrize(("algorithm", "text"), [("depthwise", "g16_ic16ih9_oc16k3_p1_nhwc"), ("shallow", "ic3ih9_oc8k3_p1")])
def test_images_are_swept_forth_and_back(algorithm, text, monkeypatch):
    """Units that follow each other need nothing of each other: a cache's last rows are used first."""
    p, seen = Problem.parse(text), []
    src, wei, _ = operands(p)
    launcher = Region.launcher
    monkeypatch.setattr(Region, "launcher", lambda *given, **named: seen.append(named["turns"]) or launcher(*given, **named))
    plan = {"depthwise": depthwise, "shallow": shallow}[algorithm].build(p, detect(), plan_problem)
    plan.run(src, plan.pack(wei), None, result_array(p))
    assert seen == [True]
