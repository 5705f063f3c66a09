"""The gradient of 3x3 weights by transforms: its error, extents, borders, layouts, cuts, images in turn, what is done again directly."""

import itertools
import threading

import numpy as np
import pytest

from bench.cases import load
from fastconv.cpu import weights_winograd
from fastconv.cpu.target import AVX512, TARGETS, detect
from fastconv.cpu.weights_winograd_split import Cut, M, Strips, cut_of, seconds_of, strips_of, tall_of
from fastconv.planning import cost
from fastconv.planning.planner import cheapest, plan_problem, short_name
from fastconv.planning.problem import BORDERS, Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import meets_what_was_left, operands, result_array, run, typed

NAME = "weights_winograd"
STEM = "n3_g2_ic32ih15iw18_oc64k3_p1_bwd-weight_f32"
STRIDED = "n3_g2_ic32ih23iw30_oc64k3_s2_p1_bwd-weight_f32"
LAYERS = [p for name in ("resnet50", "vgg16", "resnext50") for p in (q.replace(op="bwd_weight", n=2) for q in load(name))
          if weights_winograd.reject(p, AVX512) is None and p.ih < 200]  # fmt: skip


def beside(images):
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("p", LAYERS, ids=str)
def test_error_of_every_layer(p):
    """Of the largest weight, which the default precision promises 1e-5 of; sums of many blocks err less than direct ones."""
    src, wei, _ = operands(p)
    exact = truth(p, src, wei).value
    errors = [float(np.abs(run(p, src, wei, algorithm=name, threads=2) - exact).max() / np.abs(exact).max()) for name in (NAME, "weights")]
    assert 1e-8 < errors[0] < 3e-6, errors
    assert errors[0] < errors[1] or p.oh < 50


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("icg", "ocg"), [(16, 16), (16, 32), (32, 48), (48, 64)])
def test_every_extent(icg, ocg, layout, dtype, exercised):
    """Strips that are several rows of blocks, one, a part of one; the last of them not full, nor the last block."""
    for g, every, (oh, ow) in itertools.product((1, 2), (1, 2), ((1, 1), (2, 3), (5, 14), (12, 15), (29, 5), (6, 67), (5, 131))):
        ih, iw = (oh - 1) * every + 2 + every * (oh % 2), (ow - 1) * every + 1 + every * (ow % 2)
        p = Problem(op="bwd_weight", n=3, g=g, ic=g * icg, ih=ih, iw=iw, oc=g * ocg, kh=3, kw=3, sh=every, sw=every, pb=1, pl=1, pr=1,
                    src_layout=layout)  # fmt: skip
        p = typed(p, dtype)
        src, wei, _ = operands(p)
        results = [run(p, src, wei, None, NAME, threads) for threads in (1, 3)]
        assert_within(results[0], p, truth(p, src, wei), NAME)
        assert_same_bits(*results, "on three threads")
        exercised(NAME, str(p))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("border", BORDERS)
def test_every_border(border, layout):
    for pt, pb, pl, pr in ((1, 1, 1, 1), (5, 2, 9, 4), (0, 0, 0, 0), (2, 1, 4, 40), (0, 3, 50, 0)):
        for iw, every in ((11, 1), (21, 1), (21, 2), (30, 2)):
            p = Problem(op="bwd_weight", n=2, ic=16, ih=13, iw=iw, oc=32, kh=3, kw=3, sh=every, sw=every, pt=pt, pb=pb, pl=pl, pr=pr,
                        border=border, src_layout=layout)  # fmt: skip
            src, wei, _ = operands(p)
            for fill in (0, -3.5) if border == "constant" else (0,):
                assert_within(run(p, src, wei, algorithm=NAME, threads=2, fill=fill), p, truth(p, src, wei, fill=fill), NAME)


@pytest.mark.parametrize("text", [STEM, STRIDED, "n2_ic48ih30iw7_oc96k3_p1_bwd-weight_f32"])
def test_results_do_not_depend_on_how_work_is_cut_nor_on_strides(text, monkeypatch):
    p = Problem.parse(text)
    src, wei, _ = operands(p)
    expected = run(p, src, wei, algorithm=NAME)
    for ic, oc in itertools.product((16, 32, 48), (32, 64)):
        if ic <= p.ic // p.g:
            cut = Cut(ic, oc)
            monkeypatch.setattr(weights_winograd, "cut_of", lambda *arguments, cut=cut: cut)
            for threads, layout in ((1, "nchw"), (2, "nhwc")):
                plan = weights_winograd.build(p.replace(src_layout=layout), detect(), plan_problem, threads)
                for images, order in itertools.product((src, beside(src), src[:, :, ::-1, ::-1].copy()[:, :, ::-1, ::-1]), "CFV"):
                    wide = np.full((*expected.shape[:3], 5), 77, np.float32)
                    dst = wide[..., 1:4] if order == "V" else np.empty(expected.shape, np.float32, order)
                    plan.run(images, beside(wei) if order == "F" else wei, None, dst)
                    assert_same_bits(dst.copy(), expected, f"{plan} {ic} {oc} {images.strides} {dst.strides}")
                    assert order != "V" or (wide[..., ::4] == 77).all()


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("text", [STEM, STRIDED])
def test_converted_arrays_and_views(text, layout):
    p = Problem.parse(text).replace(src_layout=layout)
    src, wei, _ = operands(p)
    expected = run(p, src, wei, algorithm=NAME)
    assert_same_bits(run(p, src.astype(">f4"), wei.astype(">f4"), algorithm=NAME), expected, "bytes swapped")
    wide = np.full((p.n, p.ih + 2, p.iw + 5, p.ic + 3), np.nan, np.float32).transpose(0, 3, 1, 2)
    inside = wide[:, 2:-1, 1:-1, 2:-3]
    inside[...] = src
    assert_same_bits(run(p, inside, wei, algorithm=NAME), expected, "a view")
    swapped = np.empty(expected.shape, ">f4")
    run(p, src, wei, algorithm=NAME, dst=swapped)
    assert_same_bits(swapped.astype("f4"), expected, "a result of swapped bytes")


@pytest.mark.parametrize(
    "text", ["n40_ic16ih4_oc32k3_p1", "n70_ic16ih4_oc32k3_s2_p1", "n40_ic16ih3iw5_oc32k3_pt3", "n40_ic16ih1iw9_oc32k3_p1"]
)
def test_small_planes_that_do_not_follow_each_other(text):
    """Rows of blocks that read more rows than the image has, so many that sums go on, of planes that are not put into lanes as a whole."""
    p = Problem.parse(f"{text}_bwd-weight_f32")
    src, wei, _ = operands(p)
    expected = run(p, src, wei, algorithm=NAME)
    assert_within(expected, p, truth(p, src, wei), NAME)
    crops = [
        np.full((*array.shape[:2], array.shape[2] + 1, array.shape[3] + 3), np.nan, np.float32)[:, :, 1:, 2:-1] for array in (src, wei)
    ]
    for crop, array in zip(crops, (src, wei), strict=True):
        crop[...] = array
    turned = [np.ascontiguousarray(array[:, :, ::-1, ::-1])[:, :, ::-1, ::-1] for array in (src, wei)]
    for image, grad in ((crops[0], wei), (src, crops[1]), crops, turned, (beside(src), wei), (src, beside(wei))):
        assert_same_bits(run(p, image, grad, algorithm=NAME), expected, f"{image.strides} {grad.strides}")
    same = np.broadcast_to(np.float32(1.25), wei.shape)
    assert_within(run(p, src, same, algorithm=NAME), p, truth(p, src, same), NAME)


def test_images_in_turn(monkeypatch):
    """Some images a launch, so that Python sees signals meanwhile; sums of launches are added up."""
    p = Problem.parse(STEM).replace(n=5)
    src, wei, _ = operands(p)
    for layout, images in (("nchw", src), ("nhwc", beside(src))):
        own, target = p.replace(src_layout=layout), detect()
        cut = cut_of(own, target, weights_winograd._tile(own, target).mr * target.lanes(4), 1)
        monkeypatch.setattr(cost, "MOST_SECONDS", 2.5 * seconds_of(own.replace(n=1), target, cut))
        plan, result = weights_winograd.build(own, detect(), plan_problem, 2), result_array(own)
        plan.run(images, wei, None, result)
        assert_within(result, p, truth(p, src, wei), NAME)
        parts = [run(own.replace(n=2), images[n : n + 2], wei[n : n + 2], algorithm=NAME) for n in (0, 2)]
        last = run(own.replace(n=1), images[4:], wei[4:], algorithm=NAME)
        assert_same_bits(result, parts[0] + parts[1] + last, "two, two and one")
        images = images.copy()
        images[4, 3, 2, 2] = np.inf
        plan.run(images, wei, None, result)
        assert_within(result, p, truth(p, images, wei), NAME)


def test_no_images():
    p = Problem.parse(STEM).replace(n=0)
    src, wei, _ = operands(p)
    assert not run(p, src, wei, algorithm=NAME).any()


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("which", "value"),
    [("src", np.nan), ("src", np.inf), ("wei", -np.inf), ("wei", np.nan), ("src", 3e38), ("wei", 3e38), ("both", 1e25), ("both", 1e-12),
     ("src", 1e-40), ("wei", 1e-40), ("wei", 1e-45)],
)  # fmt: skip
def test_what_no_transform_can_do_is_direct(which, value, layout):
    """The bits are those of the direct sums, and every weight what these make of it."""
    p = Problem.parse(STEM if value > 0 else STRIDED).replace(src_layout=layout)
    src, wei, _ = operands(p)
    if not np.isfinite(value):
        (src if which == "src" else wei)[1, 17, 6, 9] = value
    for array, name in ((src, "src"), (wei, "wei")):
        if np.isfinite(value) and which in (name, "both"):
            array *= np.float32(value) / np.abs(array).max()
    result = run(p, src, wei, algorithm=NAME, threads=2)
    direct = run(p.replace(precision="strict"), src, wei)
    assert_same_bits(result, direct, "direct sums")
    if abs(value) < 1:  # larger ones overflow on the way, whatever the order
        assert_within(result, p, truth(p, src, wei), NAME)
    elif not np.isfinite(value):
        with np.errstate(all="ignore"):
            assert_within(result, p, truth(p, src, wei), NAME)
        assert np.isfinite(result).any()


@pytest.mark.parametrize(("pixels", "gradients"), [(-142, 90), (100, -145)])
@pytest.mark.parametrize("text", ["n2_ic16ih7_oc32k3_p1_bwd-weight_f32", STRIDED])
def test_subnormal_operands_of_results_that_are_not_tiny_are_summed_directly(text, pixels, gradients):
    """Transforms of numbers of few bits lose them, whatever their products come to."""
    p = Problem.parse(text)
    src, wei, _ = operands(p)
    src, wei = np.ldexp(src, pixels), np.ldexp(wei, gradients)
    assert 1e-18 < np.abs(truth(p, src, wei).value).max() < 1e18
    result = run(p, src, wei, algorithm=NAME)
    assert_within(result, p, truth(p, src, wei), NAME)
    assert_same_bits(result, run(p.replace(precision="strict"), src, wei), "direct sums")


@pytest.mark.parametrize("text", ["n2_ic32ih15iw18_oc64k3_bwd-weight_f32_nhwc", "n2_ic32ih16iw18_oc64k3_s2_bwd-weight_f32"])
def test_pixels_that_no_window_reads_and_empty_channels_are_not_repaired(text):
    p = Problem.parse(text)
    src, wei, _ = operands(p)
    src[:, 5], wei[:, 40] = 0, 0
    if p.sh > 1:
        src[:, :, -1], src[..., -1] = np.nan, np.inf
    expected = run(p, src, wei, algorithm=NAME)
    src[~np.isfinite(src)] = 0
    assert_within(expected, p, truth(p, src, wei), NAME)
    assert not expected[:, 5].any()
    assert not expected[40].any()
    assert (expected != run(p.replace(precision="strict"), src, wei)).any(), "not direct"


def test_launches_of_several_threads_repair_their_own():
    p = Problem.parse(STEM)
    src, wei, _ = operands(p)
    broken = src.copy()
    broken[0, 0, 0, 0] = np.nan
    plan = plan_problem(p, threads=2, algorithm=NAME)
    expected = [run(p, image, wei, algorithm=NAME) for image in (src, broken)]
    launch = plan.prepare(src, wei, result_array(p))
    wrong = []

    def work(number):
        for turn in range(8):
            dst = result_array(p)
            image = (src, broken)[(number + turn) % 2]
            launch(image, wei, None, dst)
            if not np.array_equal(dst, expected[(number + turn) % 2], equal_nan=True):
                wrong.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_vectors_of_any_width(target):
    for dtype, every, (icg, ocg) in itertools.product(("f32", "f64"), (1, 2), ((16, 16), (32, 48), (16, 32))):
        p = typed(Problem.parse(f"n2_g2_ic{2 * icg}ih9iw23_oc{2 * ocg}k3_s{every}_p1_bwd-weight_nhwc"), dtype)
        assert weights_winograd.reject(p, target) is None
        src, wei, _ = operands(p)
        plan, dst = weights_winograd.build(p, target, plan_problem, 2), result_array(p)
        plan.run(src, wei, None, dst)
        assert_within(dst, p, truth(p, src, wei), NAME)


@pytest.mark.parametrize("text", [STEM, STRIDED, "n3_ic16ih6iw67_oc48k3_p1_bwd-weight_f32_nhwc", "n3_ic16ih5_oc16k3_bwd-weight_f32"])
def test_nothing_that_was_left_is_met(text, monkeypatch):
    p = Problem.parse(text)
    src, wei, _ = operands(p)
    plan, result, expected = plan_problem(p, algorithm=NAME), result_array(p), run(p, src, wei, algorithm=NAME)
    assert not meets_what_was_left(plan, (src, plan.pack(wei), None, result), monkeypatch)
    assert_same_bits(result, expected, "not made again by direct sums")


def test_strips():
    """Of two or more rows, of one, and several of a row; as many blocks as are transformed at once."""
    for ow, strips in ((7, Strips(16, 8, 1, 2)), (28, Strips(14, 2, 1, 2)), (56, Strips(14, 1, 1, 2)), (112, Strips(14, 1, 2, 2)),
                       (224, Strips(14, 1, 4, 4)), (131, Strips(11, 1, 3, 3))):  # fmt: skip
        p = Problem.parse(f"n8_ic32ih{ow}_oc32k3_p1_bwd-weight_f32")
        assert strips_of(p) == strips
        assert tall_of(p) == tall_of(p.replace(n=1)), "it changes sums"
        assert strips.blocks * strips.of_row >= -(-ow // M) or strips.rows > 1


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_cuts_fit_the_cache(target):
    for p in LAYERS:
        for threads in (1, 2, 16):
            lanes, width = target.lanes(4), weights_winograd._tile(p, target).mr * target.lanes(4)
            cut = cut_of(p, target, width, threads)
            assert 0 == cut.ic % lanes == cut.oc % width < min(cut)
            assert cut.ic <= p.ic // p.g
            assert cut.bytes_held(p, 4) <= target.l2
            assert weights_winograd.build(p, target, plan_problem, threads).workspace < (threads + 1) * cost.MOST_WORKSPACE


@pytest.mark.parametrize(
    ("text", "own"),
    [("n8_ic64ih56_oc64k3_p1", True), ("ic64ih56_oc64k3_p1_nhwc", True), ("ic256ih14_oc256k3_p1", True), ("ic512ih7_oc512k3_p1", True),
     ("n8_ic512ih7_oc512k3_p1", True), ("n8_g32_ic1024ih7_oc1024k3_p1_nhwc", True), ("ic64ih7_oc64k3_p1", True),
     ("n8_ic64ih56_oc64k3_p1_strict", False), ("n8_ic128ih56_oc128k3_s2_p1_nhwc", True), ("ic512ih14_oc512k3_s2_p1", False)],
)  # fmt: skip
def test_planner_takes_it_where_it_wins(text, own):
    assert (short_name(cheapest(Problem.parse(f"{text}_bwd-weight_f32"), AVX512)[1]) == NAME) == own


@pytest.mark.parametrize(
    ("change", "word"),
    [({"sh": 3, "sw": 3}, "every other"), ({"sh": 2}, "every other"), ({"kh": 5}, "3x3"), ({"dh": 2, "dw": 2}, "3x3"),
     ({"ic": 40}, "whole vectors of 16 channels, not 20"), ({"oc": 60}, "whole vectors of 16 channels, not 16 and 30"),
     ({"precision": "strict"}, "not a direct sum"), ({"op": "fwd"}, "bwd_weight"), ({"ih": 100000, "iw": 10000}, "s for an image"),
     ({"src": "f16", "wei": "f16", "dst": "f16"}, "same type")],
)  # fmt: skip
def test_reasons(change, word):
    reason = weights_winograd.reject(Problem.parse(STEM).replace(**change), AVX512)
    assert word in (reason or ""), reason
