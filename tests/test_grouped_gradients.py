"""The gradients of small groups, of the image at stride 2 and of the weights: where the general cases do not lead."""

import numpy as np
import pytest

from fastconv.cpu import grouped_image, weights_shallow
from fastconv.cpu.grouped_image_tile import first_shift, tap_shifts
from fastconv.cpu.target import AVX2, AVX512, TARGETS, detect
from fastconv.planning.planner import cheapest, forget, plan_problem, short_name
from fastconv.planning.problem import Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import operands, result_array, run

# several groups in a vector, one, and groups of several vectors
IMAGES = "g4_ic32ih9iw29_oc32k3_s2", "g2_ic32ih8iw28_oc32k3_s2", "g2_ic64ih7iw16_oc64kh4kw2_s2"
WEIGHTS = "g8_ic32ih9iw17_oc32k3", "g4_ic32ih9iw16_oc32k3_s2", "g2_ic64ih7iw10_oc32kh4kw2"
PADDINGS = (0, 0, 0, 0), (1, 1, 1, 1), (1, 2, 3, 0), (2, 5, 0, 21), (9, 0, 21, 2)


def beside(images):
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def of(text, op, layout):
    return Problem.parse(text).replace(op=op, src_layout=layout)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("pt", "pb", "pl", "pr"), PADDINGS)
@pytest.mark.parametrize("text", IMAGES)
def test_paddings_of_the_image(text, pt, pb, pl, pr, layout):
    p = of(text, "bwd_data", layout).replace(pt=pt, pb=pb, pl=pl, pr=pr)
    src, wei, _ = operands(p)
    assert_within(run(p, src, wei, algorithm="grouped_image", threads=2), p, truth(p, src, wei), "grouped_image")


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("pt", "pb", "pl", "pr"), PADDINGS)
@pytest.mark.parametrize("text", WEIGHTS)
def test_paddings_of_the_weights(text, pt, pb, pl, pr, layout):
    p = of(text, "bwd_weight", layout).replace(pt=pt, pb=pb, pl=pl, pr=pr)
    src, wei, _ = operands(p)
    for fill in (0, -3):
        result = run(p, src, wei, algorithm="weights_shallow", threads=2, fill=fill)
        assert_within(result, p, truth(p, src, wei, None, fill), "weights_shallow")


@pytest.mark.parametrize("text", ["g4_ic32ih9iw16_oc32k3_p1", "g4_ic32ih9iw21_oc32k3_s2_p1", "g2_ic64ih20iw10_oc32kh4kw2_p1"])
@pytest.mark.parametrize("border", ["reflect", "edge", "symmetric", "wrap"])
def test_borders_of_the_weights(text, border):
    for layout in ("nchw", "nhwc"):
        p = of(text, "bwd_weight", layout).replace(border=border)
        src, wei, _ = operands(p)
        assert_within(run(p, src, wei, algorithm="weights_shallow"), p, truth(p, src, wei), "weights_shallow")


@pytest.mark.parametrize("text", [f"n3_{text}_p1_bias+relu" for text in IMAGES])
def test_image_has_the_same_bits(text, monkeypatch):
    """On any number of threads, in bands of any size, of planes and channels last, for any strides of the weights."""
    p = of(text, "bwd_data", "nhwc")
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, "grouped_image")
    assert_within(expected, p, truth(p, src, wei, bias), "grouped_image")
    assert_same_bits(run(p.replace(n=1), src[1:2], wei, bias, "grouped_image"), expected[1:2], "one image")
    channels_last = wei.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    for size in (1, 6 << 10, 1 << 20):
        monkeypatch.setattr(grouped_image, "_PANEL_BYTES", size)
        monkeypatch.setattr(grouped_image, "_ASIDE_BYTES", size)
        for threads, layout in ((1, "nchw"), (3, "nhwc"), (7, "nchw")):
            own = p.replace(src_layout=layout)
            for images in (src, beside(src), src.astype(">f4")):
                plan = grouped_image.build(own, detect(), plan_problem, threads)
                for ways in (plan, plan.given()):
                    for weights in (wei, np.asfortranarray(wei), wei.transpose(2, 3, 1, 0).copy().transpose(3, 2, 0, 1), channels_last):
                        dst = result_array(own)
                        ways.run(images, ways.pack(weights), bias, dst)
                        assert_same_bits(dst, expected, f"{ways} bands of {size} bytes, strides {images.strides} {weights.strides}")


@pytest.mark.parametrize("text", [f"n3_{text}_p1" for text in WEIGHTS])
def test_weights_have_the_same_bits(text, monkeypatch):
    """On any number of threads, in bands of any size, of planes and channels last, some images at a time, into any strides."""
    p = of(text, "bwd_weight", "nhwc")
    src, wei, _ = operands(p)
    expected = run(p, beside(src), beside(wei), algorithm="weights_shallow")
    assert_within(expected, p, truth(p, src, wei), "weights_shallow")
    for size in (1, 16 << 10, 1 << 20):
        monkeypatch.setattr(weights_shallow, "_PANEL_BYTES", size)
        for threads, layout in ((1, "nchw"), (3, "nhwc"), (7, "nchw"), (1, "nhwc")):
            own = p.replace(src_layout=layout)
            for images in (src, beside(src), src.astype(">f4")):
                plan = weights_shallow.build(own, detect(), plan_problem, threads)
                for order in "CF":
                    dst = np.empty(expected.shape, np.float32, order)
                    plan.run(images, beside(wei) if threads == 1 else wei, None, dst)
                    assert_same_bits(dst, expected, f"{plan} bands of {size} bytes, strides {images.strides} {dst.strides}")
    monkeypatch.setattr(weights_shallow.costs, "MOST_SECONDS", 2.5e-6)
    monkeypatch.setattr(weights_shallow, "_unit_seconds", lambda *arguments: 2e-6)
    for layout in ("nchw", "nhwc"):
        forget()
        assert_same_bits(run(p.replace(src_layout=layout), src, wei, algorithm="weights_shallow"), expected, "an image at a time")
    forget()


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("text", [f"n2_{text}_bias+leaky_relu:0.1" for text in IMAGES])
def test_weights_that_are_not_finite_meet_no_zeros_around_a_gradient(text, value, layout):
    p = of(text, "bwd_data", layout).replace(pt=1, pb=1, pl=1, pr=0)
    src, wei, bias = operands(p)
    wei[3, 1, 0, 1] = wei[-1, 0, -1, 0] = value
    result = run(p, src, wei, bias, "grouped_image")
    assert_within(result, p, truth(p, src, wei, bias), "grouped_image")
    assert np.isfinite(np.delete(result, (1, p.ic - p.ic // p.g), axis=1)).all()


def test_views_of_images_and_results():
    p = of("n2_g4_ic32ih9iw29_oc32k3_s2_p1", "bwd_data", "nhwc")
    src, wei, _ = operands(p)
    expected = run(p, src, wei, algorithm="grouped_image")
    wide = np.full((p.n, p.oh + 2, p.ow + 5, p.oc + 3), np.nan, np.float32).transpose(0, 3, 1, 2)
    inside = wide[:, 2:-1, 1:-1, 2:-3]
    inside[...] = src
    memory = np.full((p.n, p.ih + 3, p.iw + 5, p.ic + 2), 77, np.float32).transpose(0, 3, 1, 2)
    result = memory[:, 1:-1, 1:-2, 2:-3]
    run(p, inside, wei, algorithm="grouped_image", dst=result)
    assert_same_bits(result.copy(), expected, "views")
    result[...] = 77
    assert (memory == 77).all()


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_vectors_of_any_width(target):
    """Groups of more channels than lanes, as many, and fewer."""
    for depth in (4, 8, 16, 32):
        groups = max(32 // depth, 2)
        p = Problem.parse(f"g{groups}_ic{groups * depth}ih6iw29_oc{groups * depth}k3_s2_p1_bwd-weight_f32_nhwc")
        for module, own in ((weights_shallow, p), (grouped_image, p.replace(op="bwd_data"))):
            if module is weights_shallow or depth >= 8:
                assert module.reject(own, target) is None
                src, wei, _ = operands(own)
                plan, dst = module.build(own, target, plan_problem), result_array(own)
                plan.run(src, plan.pack(wei), None, dst)
                assert_within(dst, own, truth(own, src, wei), what=f"{plan}")


@pytest.mark.parametrize(
    ("text", "change", "word"),
    [
        (IMAGES[0], {"sh": 1}, "stride 2"),
        (IMAGES[0], {"dw": 2}, "dilation"),
        (IMAGES[0], {"kw": 5}, "columns of taps, not 5"),
        (IMAGES[0], {"border": "wrap"}, "border"),
        (IMAGES[0], {"iw": 7}, "rows of at least 9 results, not 7"),
        (IMAGES[0], {"g": 1}, "several groups"),
        (IMAGES[0], {"g": 8}, "8 to 32 channels, not 4"),
        (IMAGES[0], {"ic": 40, "oc": 40}, "whole vectors of 8 channels"),
        (IMAGES[0], {"ih": 3000001, "kh": 3000001}, "s for a row of results"),
        (WEIGHTS[0], {"sw": 3}, "strides 1 and 2"),
        (WEIGHTS[0], {"kw": 1}, "columns of taps, not 1"),
        (WEIGHTS[0], {"g": 1}, "several groups"),
        (WEIGHTS[0], {"g": 16}, "4 to 32 channels, not 2"),
        (WEIGHTS[0], {"ic": 80, "oc": 80}, "whole vectors of 8 channels"),
        (WEIGHTS[0], {"kh": 400000, "ih": 400000}, "MiB of workspace"),
    ],
)  # fmt: skip
def test_reasons(text, change, word):
    module, op = (grouped_image, "bwd_data") if text in IMAGES else (weights_shallow, "bwd_weight")
    reason = module.reject(of(text, op, "nhwc").replace(**change), AVX2)
    assert word in (reason or ""), reason


@pytest.mark.parametrize("kw", [2, 3])
@pytest.mark.parametrize("odd", [0, 1])
def test_taps_of_a_pair_are_each_the_one_that_reaches_it(kw, odd):
    first = first_shift(kw, odd)
    met = {(a, k): shift + first for a, taps in enumerate(tap_shifts(kw, odd)) for k, shift in taps}
    assert met == {(a, k): (a + odd - k) // 2 for a in range(2) for k in range(kw) if (a + odd - k) % 2 == 0}


def test_they_are_chosen_for_what_they_are_for():
    layers = ("g32_ic128ih56_oc128k3_p1", "g32_ic256ih56_oc256k3_s2_p1", "g32_ic256ih28_oc256k3_p1", "g32_ic512ih28_oc512k3_s2_p1",
              "g32_ic512ih14_oc512k3_p1", "g32_ic1024ih14_oc1024k3_s2_p1", "g32_ic1024ih7_oc1024k3_p1")  # fmt: skip
    for text in layers:
        for layout in ("nchw", "nhwc"):
            # of 16 and 32 channels sums of transforms are quicker
            own = "weights_winograd" if text.endswith(("oc512k3_p1", "oc1024k3_p1")) else "weights_shallow"
            assert short_name(cheapest(of(text, "bwd_weight", layout), AVX512)[1]) == own, text
            if "s2" in text:
                assert short_name(cheapest(of(text, "bwd_data", layout), AVX512)[1]) == "grouped_image", text
    assert short_name(cheapest(of("g32_ic32ih112_oc32k3_s2_p1", "bwd_data", "nhwc"), AVX512)[1]) == "depthwise_image"


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_weights_of_the_last_of_few_groups_that_are_not_finite_meet_no_zeros_either(layout):
    p = of("g2_ic8ih10iw19_oc8k3_s2", "bwd_data", layout)  # fewer channels than lanes: of planes the others repeat the last group
    src, wei, _ = operands(p)
    wei[7, 3, 2, 2] = np.inf  # no tap of the image's first row
    assert np.isfinite(run(p, src, wei, algorithm="depthwise_image")[:, :, 0]).all()
