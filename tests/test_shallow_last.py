"""shallow_last where the general cases do not lead: paddings beside pairs of lines, bands, rows of a view, arrays read by bands."""

import numpy as np
import pytest

from fastconv.cpu import shallow_last
from fastconv.cpu.shallow_last_tile import grouped_lanes, inverse
from fastconv.cpu.target import AVX2, AVX512, detect
from fastconv.planning.planner import cheapest, plan_problem, short_name
from fastconv.planning.problem import Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import compare_strides, operands, result_array, run

# kernels of groups of eight, of first layers at stride 2, and of groups of two vectors
SMALL = "g4_ic32ih9iw17_oc32k3_nhwc", "ic3ih15iw35_oc32k3_s2_nhwc", "g2_ic64ih9iw10_oc64k3_nhwc"


@pytest.mark.parametrize("text", SMALL)
@pytest.mark.parametrize(("pt", "pb", "pl", "pr"), [(0, 0, 0, 0), (1, 2, 3, 0), (2, 5, 0, 40), (9, 0, 21, 2)])
def test_paddings(text, pt, pb, pl, pr):
    p = Problem.parse(text).replace(pt=pt, pb=pb, pl=pl, pr=pr)
    src, wei, bias = operands(p)
    for fill in (0, -3):
        assert_within(run(p, src, wei, algorithm="shallow_last", threads=2, fill=fill), p, truth(p, src, wei, bias, fill), "shallow_last")


@pytest.mark.parametrize("text", [f"n2_{text}_p1_bias+relu" for text in SMALL])
def test_bands_threads_and_given_weights_have_the_same_bits(text, monkeypatch):
    p = Problem.parse(text)
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, "shallow_last")
    assert_within(expected, p, truth(p, src, wei, bias), "shallow_last")
    channels_last = wei.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    for size in (1, 6 << 10, 1 << 20):
        monkeypatch.setattr(shallow_last, "_PANEL_BYTES", size)
        for threads in (1, 3):
            plan = shallow_last.build(p, detect(), plan_problem, threads)
            for own in (plan, plan.given()):
                for weights in (wei, np.asfortranarray(wei), wei.transpose(2, 3, 1, 0).copy().transpose(3, 2, 0, 1), channels_last):
                    dst = result_array(p)
                    own.run(src, own.pack(weights), bias, dst)
                    assert_same_bits(dst, expected, f"{own} bands of {size} bytes")


@pytest.mark.parametrize("text", SMALL)
def test_arrays_of_any_strides(text):
    compare_strides(Problem.parse(text).replace(pt=1, pl=1), "shallow_last")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g4_ic32ih18_oc32k3_f32", "for channels last"),
        ("g8_ic32ih18_oc32k3_f32_nhwc", "groups of 8 to 32 channels, not 4"),
        ("g2_ic128ih18_oc128k3_f32_nhwc", "groups of 8 to 32 channels, not 64"),
        ("g2_ic40ih18_oc40k3_f32_nhwc", "groups of whole vectors of 8 channels, or of as many as results that fill some, not 20 with 20"),
        ("g4_ic32ih18_oc32k5_f32_nhwc", "for 1 to 3 columns of taps, not 5"),
        ("g4_ic32ih18_oc32k3_d2_f32_nhwc", "dense taps at strides 1 and 2"),
        ("ic3ih38_oc32k3_s3_f32_nhwc", "dense taps at strides 1 and 2"),
        ("ic5ih38_oc32k3_f32_nhwc", "images of 3 or 4 channels"),
        ("ic3ih38_oc24k3_f32_nhwc", "no tile for 24 results of 3 channels"),
        ("g4_ic32ih8_oc32k3_f32_nhwc", "rows of at least 8 results, not 6"),
        ("g4_ic32ih18_oc32k3_i32_nhwc", "of one type, f32 or f64"),
        ("g4_ic32ih18_oc32k3_f32_nhwc_gelu", "does not fuse gelu"),
        ("ic4ih9iw1900000_oc32k3_f32_nhwc", "MiB of workspace"),
        ("g2_ic64ih3000001iw16_oc64kh3000001kw3_f32_nhwc", "s for a row of results"),
    ],
)
def test_reasons(text, reason):
    assert reason in shallow_last.reject(Problem.parse(text), AVX2)


def test_lanes_of_groups_and_back():
    for lanes, piece in ((16, 4), (16, 1), (8, 2), (4, 4)):
        order = grouped_lanes(lanes, piece)
        assert [order[n] for n in inverse(order)] == list(range(lanes))


def test_it_is_chosen_for_what_it_is_for():
    layers = ("g32_ic256ih56_oc256k3_s2_p1", "g32_ic256ih28_oc256k3_p1_strict", "g32_ic512ih28_oc512k3_s2_p1",
              "g32_ic512ih14_oc512k3_p1_strict", "g32_ic1024ih14_oc1024k3_s2_p1", "g32_ic1024ih7_oc1024k3_p1_strict",
              "ic3ih224_oc64k3_p1_strict", "ic3ih224_oc64k5_p2")  # fmt: skip
    for text in layers:
        assert short_name(cheapest(Problem.parse(f"{text}_nhwc"), AVX512)[1]) == "shallow_last", text
    others = {
        "ic128ih28_oc128k3_p1_nhwc": "winograd",
        "g32_ic512ih14_oc512k3_p1_nhwc": "winograd_shallow",
        "g32_ic128ih56_oc128k3_p1_nhwc_strict": "depthwise",
        "g32_ic32ih56_oc32k3_p1_nhwc": "depthwise",
    }
    for text, name in others.items():
        assert short_name(cheapest(Problem.parse(text), AVX512)[1]) == name, text
