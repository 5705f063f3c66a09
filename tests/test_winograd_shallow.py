"""3x3 of few channels, channels last, by blocks of 2x2 and 4x4: groups, borders, cuts, given weights, what is repaired."""

import itertools

import numpy as np
import pytest

import fastconv
from bench.cases import load
from fastconv.cpu import winograd_shallow
from fastconv.cpu.target import AVX512, TARGETS, detect
from fastconv.cpu.winograd_shallow import Cut
from fastconv.cpu.winograd_shallow_tile import Shape
from fastconv.planning import cost, planner
from fastconv.planning.planner import cheapest, plan_problem, short_name
from fastconv.planning.problem import BORDERS, Problem
from tests.oracles import assert_close, assert_same_bits, assert_within, bound, stored, truth
from tests.problems import compare_strides, operands, repaired, result_array, run, typed

NAME = "winograd_shallow"
STEM = "n2_g4_ic32ih15iw18_oc32k3_p1_f32_nhwc_bias"
LAYERS = [p for name in ("resnet50", "vgg16", "resnext50") for p in (q.replace(src_layout="nhwc") for q in load(name))
          if winograd_shallow.reject(p, AVX512) is None]  # fmt: skip
# channels of a group and results of it: several groups of a vector, one, vectors of pixels and of results
GROUPS = [(4, 4), (8, 8), (16, 16), (16, 32), (32, 16), (48, 80), (64, 128)]


@pytest.fixture(params=winograd_shallow.EXTENTS)
def extent(request, monkeypatch):
    """The extent of a block, whatever would be chosen."""
    monkeypatch.setattr(winograd_shallow, "EXTENTS", (request.param,))
    forget()
    yield request.param
    forget()


def forget():
    """Have plans made anew."""
    winograd_shallow._cut.cache_clear()
    planner._plans.clear()


@pytest.mark.parametrize("p", LAYERS, ids=str)
def test_error_of_every_layer(p, extent):
    """Of the layer's largest result, which the default precision promises 1e-5 of."""
    src, wei, _ = operands(p)
    exact = truth(p, src, wei).value
    error = float(np.abs(run(p, src, wei, algorithm=NAME, threads=2) - exact).max() / np.abs(exact).max())
    assert 1e-8 < error < 5e-6, error


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize(("icg", "ocg"), GROUPS)
def test_every_group_and_extent(icg, ocg, dtype, extent, exercised):
    """Blocks that are not whole, tiles that are not full, of one image and of several."""
    for g, (oh, ow) in itertools.product((1, 2), ((1, 1), (3, 18), (4, 57), (9, 28), (14, 14), (29, 5))):
        groups = g * max(16 // icg, 1)
        p = Problem(n=3, g=groups, ic=groups * icg, ih=oh, iw=ow + 1, oc=groups * ocg, kh=3, kw=3, pt=1, pb=1, pl=1, src_layout="nhwc",
                    epilogue="bias+relu6")  # fmt: skip
        p = typed(p, dtype)
        src, wei, bias = operands(p)
        results = [run(p, src, wei, bias, NAME, threads) for threads in (1, 3)]
        assert_within(results[0], p, truth(p, src, wei, bias), NAME)
        assert_same_bits(*results, "on three threads")
        assert_same_bits(run(p.replace(n=1), src[1:2], wei, bias, NAME), results[0][1:2], "one image")
        exercised(NAME, str(p))


@pytest.mark.parametrize("border", BORDERS)
def test_every_border(border, extent):
    for (icg, ocg), (pt, pb, pl, pr) in itertools.product(GROUPS[::2], ((5, 2, 9, 4), (0, 0, 0, 0), (2, 1, 4, 40), (0, 3, 50, 0))):
        groups = max(16 // icg, 1)
        p = Problem(n=2, g=groups, ic=groups * icg, ih=13, iw=11, oc=groups * ocg, kh=3, kw=3, pt=pt, pb=pb, pl=pl, pr=pr, border=border,
                    src_layout="nhwc", epilogue="leaky_relu:0.1")  # fmt: skip
        src, wei, _ = operands(p)
        for fill in (0, -3.5) if border == "constant" else (0,):
            result = run(p, src, wei, algorithm=NAME, threads=2, fill=fill)
            assert_within(result, p, truth(p, src, wei, fill=fill), NAME)


@pytest.mark.parametrize("near", [0, cost.WINOGRAD_SHALLOW_NEAR_SHARE])
def test_results_do_not_depend_on_how_work_is_cut(near, extent, monkeypatch):
    """Nor on whether vectors of channels or rows of blocks come first, for weights given, too."""
    monkeypatch.setattr(cost, "WINOGRAD_SHALLOW_NEAR_SHARE", near)
    for text in (STEM, "n3_ic32ih21iw30_oc64k3_p1_f32_nhwc_bias", "n2_g3_ic48ih9iw33_oc48k3_p1_f32_nhwc_bias"):
        p, target = Problem.parse(text), detect()
        src, wei, bias = operands(p)
        expected, cut_of = run(p, src, wei, bias, NAME), winograd_shallow._cut
        for tile, gx, threads in itertools.product(winograd_shallow.fitting(winograd_shallow.TILES, target), (1, 3, 5, 9), (1, 2)):
            for gy in range(1, tile.nt // gx + 1):
                cut = Cut(extent, tile, gy, min(gx, -(-p.ow // extent)))
                monkeypatch.setattr(winograd_shallow, "_cut", lambda p, t, m=0, cut=cut: cut)
                plan = winograd_shallow.build(p, target, plan_problem, threads)
                for own in (plan, plan.given()):
                    dst = result_array(p)
                    own.run(src, own.pack(wei), bias, dst)
                    assert_same_bits(dst, expected, f"{cut} {own}")
        monkeypatch.setattr(winograd_shallow, "_cut", cut_of)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_cuts_fit_their_tiles(target):
    for p in (*LAYERS, *(Problem.parse(text) for text in winograd_shallow.CASES)):
        if winograd_shallow.reject(p, target) is None:
            for m in winograd_shallow.EXTENTS:
                assert all(1 <= cut.gy * cut.gx <= cut.tile.nt for cut in winograd_shallow._cuts(p, target, m))
            for n, threads in ((1, 2), (8, 1), (7, 16)):
                assert winograd_shallow._cut(p.replace(n=n), target).m == winograd_shallow._cut(p.replace(n=1), target).m
                assert winograd_shallow.build(p.replace(n=n), target, plan_problem, threads).workspace <= threads * cost.MOST_WORKSPACE
            smaller = target.__class__(target.name, target.bits, target.registers, target.fma, 1 << 14, 1 << 17, 1 << 20)
            assert winograd_shallow.cost(p, smaller) == winograd_shallow.cost(p, target)


@pytest.mark.parametrize("text", [STEM, "n2_ic48ih15iw18_oc32k3_p1_f32_nhwc_bias", "g2_ic32ih20iw30_oc32k3_f64_nhwc_bias"])
def test_given_weights_of_any_order_have_the_same_bits(text, extent):
    p = Problem.parse(text)
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, NAME)
    channels_last = wei.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    turned = wei[:, :, ::-1, ::-1].copy()[:, :, ::-1, ::-1]
    backwards = wei[::-1, ::-1].copy()[::-1, ::-1]
    apart = np.full((*wei.shape[:3], 5), np.nan, wei.dtype)[..., 1:4]
    apart[...] = wei
    orders = (wei, np.asfortranarray(wei), wei.transpose(2, 3, 1, 0).copy().transpose(3, 2, 0, 1), channels_last, turned, backwards, apart)
    for threads in (1, 3):
        plan = winograd_shallow.build(p, detect(), plan_problem, threads)
        given = plan.given()
        assert given.given is None
        assert given.workspace > plan.workspace
        for own, weights in itertools.product((plan, given), orders):
            dst = result_array(p)
            own.run(src, own.pack(weights), bias, dst)
            assert_same_bits(dst, expected, f"{own}")


def test_arrays_of_any_strides():
    compare_strides(Problem.parse(STEM), NAME)


def test_bands_that_are_converted_are_whole_blocks():
    p = Problem.parse("ic16ih450iw300_oc32k3_p1_f32_nhwc_bias")
    src, wei, bias = operands(p)
    assert_same_bits(run(p, src.astype(">f4"), wei, bias, NAME, 2), run(p, src, wei, bias, NAME), "bytes swapped")


@pytest.mark.parametrize(
    ("text", "pixels", "blocks", "rows"),
    [("n2_g2_ic32ih30iw33_oc64k3_p1", ((1, 14, 18), (1, 29, 0)), {2: [[1, 6, 8], [1, 6, 9], [1, 7, 8], [1, 7, 9], [1, 14, 0]],
                                                                  4: [[1, 3, 4], [1, 7, 0]]}, slice(16, 28)),
     ("n2_g4_ic32ih36iw33_oc32k3_p1", ((1, 14, 18), (0, 34, 0)), {2: [[0, 16, 0], [0, 17, 0], [1, 6, 8], [1, 6, 9], [1, 7, 8], [1, 7, 9]],
                                                                  4: [[0, 8, 0], [1, 3, 4]]}, slice(16, 36))],
)  # fmt: skip
def test_blocks_that_are_not_finite_are_computed_again_and_no_others(text, pixels, blocks, rows, extent, monkeypatch):
    """``rows`` of the last image lie in other blocks."""
    p = Problem.parse(f"{text}_nhwc_bias+relu")
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, NAME)
    calls = repaired(monkeypatch)
    for (n, y, x), value, channel in zip(pixels, (np.inf, np.nan), (3, 7), strict=True):
        src[n, channel, y, x] = value
    result = run(p, src, wei, bias, NAME, 2)
    with np.errstate(all="ignore"):
        assert_within(result, p, truth(p, src, wei, bias), NAME)
    assert [wrong.tolist() for wrong in calls] == [blocks[extent]]
    assert_same_bits(result[1, :, rows].copy(), expected[1, :, rows].copy())
    assert_same_bits(run(p, src, wei, bias, NAME, 1), result, "repaired")


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_magnitudes_that_transforms_do_not_stand(dtype, extent, monkeypatch):
    p = typed(Problem.parse("n2_g2_ic32ih9iw12_oc32k3_p1_nhwc_bias"), dtype)
    limits = np.finfo(operands(p)[0].dtype)
    calls = repaired(monkeypatch)
    # transforms to F(2x2) add up four pixels at most
    for pixel, weight, repairs in ((limits.max / 4, 2.0**-30, extent > 2), (limits.tiny, 1, True), (1, limits.tiny, True), (1, 1, False),
                                   (limits.max / 1e4, limits.tiny, True), (limits.smallest_subnormal * 100, 1, True)):  # fmt: skip
        src, wei, bias = operands(p)
        src, wei = np.sign(src) * src.dtype.type(pixel), np.sign(wei) * wei.dtype.type(weight)
        src[1] /= src.dtype.type(pixel)  # the other image is as ever
        exact = truth(p, src, wei, bias)
        assert (np.abs(exact.value) < limits.max).all()
        allowed = np.maximum(bound(p, exact, NAME), bound(p, exact, "direct"))
        assert_close(run(p, src, wei, bias, NAME), stored(p, exact), allowed, f"{pixel} {weight}")
        assert bool(calls) == repairs, f"{pixel} {weight}"
        calls.clear()
    src, wei, bias = operands(p)
    for fill in (np.nan, -np.inf):
        calls.clear()
        with np.errstate(all="ignore"):
            assert_within(run(p, src, wei, bias, NAME, fill=fill), p, truth(p, src, wei, bias, fill=fill), NAME)
        # all blocks but those that no border is near: of 9 rows of results and 12 columns
        rows, columns = -(-p.oh // extent), -(-p.ow // extent)
        assert [len(wrong) for wrong in calls] == [p.n * (rows * columns - (rows - 2) * (columns - 2))]


@pytest.mark.parametrize("near", [0, cost.WINOGRAD_SHALLOW_NEAR_SHARE])
@pytest.mark.parametrize(("weight", "repairs"), [(1.0, False), (np.nan, True), (np.inf, True), (1e30, True), (1e-30, True), (0.0, False)])
def test_weights_that_no_transform_can(weight, repairs, near, extent, monkeypatch):
    """Every block is computed again, by whichever thread: given weights and packed ones give the same bits, those of direct sums."""
    monkeypatch.setattr(cost, "WINOGRAD_SHALLOW_NEAR_SHARE", near)
    calls = repaired(monkeypatch)
    for text in (STEM, "n2_g6_ic96ih15iw18_oc96k3_p1_f32_nhwc_bias"):
        p = Problem.parse(text)
        src, wei, bias = operands(p)
        wei[20] *= np.float32(weight)
        with np.errstate(all="ignore"):
            expected, exact = run(p, src, wei, bias, NAME), truth(p, src, wei, bias)
            calls.clear()
            assert_within(expected, p, exact, "direct" if repairs else NAME)
            for threads in (1, 2):
                plan = winograd_shallow.build(p, detect(), plan_problem, threads)
                for own in (plan, plan.given()):
                    dst = result_array(p)
                    own.run(src, own.pack(wei), bias, dst)
                    assert_same_bits(dst, expected, f"{weight} {own}")
                    assert [len(wrong) for wrong in calls] == [p.n * -(-p.oh // extent) * -(-p.ow // extent)] * repairs
                    calls.clear()


def test_zeros_stay_zeros(monkeypatch):
    p = Problem.parse("g2_ic32ih30iw20_oc32k3_p1_f32_nhwc")
    src, wei, _ = operands(p)
    src[:, :, 10:] = 0
    wei[5] = 0
    calls = repaired(monkeypatch)
    result = run(p, src, wei, algorithm=NAME)
    assert (result[:, 5] == 0).all()
    assert (result[:, :, 16:] == 0).all()
    assert (run(p, src, wei * 0, algorithm=NAME) == 0).all()
    assert not calls


@pytest.mark.parametrize("icg", [16, 32, 64])
def test_transformed_weights_lie_in_many_sets_of_a_cache(icg):
    """Of those of one channel, at each (i, j) one, few have addresses that are equal modulo a page."""
    p = Problem(ic=icg, ih=28, iw=28, oc=icg, kh=3, kw=3, src_layout="nhwc")
    cut = winograd_shallow._cut(p, AVX512)
    _, (shape, *_) = winograd_shallow._layout(p, AVX512, cut, False)
    pitch = int(shape[Shape._fields.index("weights")]) // (cut.m + 2) ** 2
    assert len({place * pitch % 4096 // 64 for place in range(36)}) == 36


def test_it_is_chosen_for_what_it_is_for():
    chosen = {"g32_ic512ih14_oc512k3_p1": NAME, "g32_ic256ih28_oc256k3_p1": NAME, "g32_ic128ih56_oc128k3_p1": NAME,
              "ic64ih56_oc64k3_p1": NAME, "ic64ih56_oc64k3_p1_f64": NAME, "ic16ih32_oc16k3_p1": NAME,
              "g32_ic1024ih7_oc1024k3_p1": NAME, "g32_ic256ih28_oc256k3_p1_strict": "shallow_last",
              "ic128ih28_oc128k3_p1": "winograd"}  # fmt: skip
    for text, name in chosen.items():
        for n in (1, 8):
            assert short_name(cheapest(Problem.parse(f"n{n}_{text}_nhwc"), AVX512)[1]) == name, text
    extents = {"g32_ic512ih14_oc512k3_p1": 4, "g32_ic1024ih7_oc1024k3_p1": 2, "ic64ih56_oc64k3_p1": 4, "ic32ih8_oc32k3_p1": 2}
    for text, m in extents.items():
        assert winograd_shallow._cut(Problem.parse(f"{text}_nhwc"), AVX512).m == m, text
    x, w = np.zeros((1, 14, 14, 512), "f4"), np.zeros((3, 3, 16, 512), "f4")
    assert f"({NAME}" in fastconv.explain(x, w, padding=1, groups=32, data_format="NHWC")


def test_a_plan_takes_new_weights_and_the_functional_call_has_its_bits(monkeypatch):
    p = Problem.parse("g4_ic32ih30_oc32k3_p1_f32_nhwc_hwio")
    src, wei, _ = operands(p)
    image, weight = src.transpose(0, 2, 3, 1), wei.transpose(2, 3, 1, 0)
    how = {"padding": 1, "groups": 4, "data_format": "NHWC", "algorithm": NAME}
    plan = fastconv.plan(image, weight, **how)
    plan.set_weight(2 * weight)
    doubled = plan(image)
    plan.set_weight(weight)
    once = plan(image)
    monkeypatch.setattr(winograd_shallow.ShallowPacking, "__call__", None)  # given weights are not packed before
    assert_same_bits(doubled, fastconv.conv2d(image, 2 * weight, **how))
    assert_same_bits(once, fastconv.conv2d(image, np.asfortranarray(weight), **how))


@pytest.mark.parametrize(("text", "reason"), [
    ("ic32ih64_oc32k3_i32_nhwc", "f32 or f64"), ("ic32ih64_oc32k3_f32_nhwc_strict", "strict"), ("ic32ih64_oc32k3_f32_nhwc_gelu", "fuse"),
    ("ic32ih64_oc32k5_f32_nhwc", "3x3"), ("ic32ih64_oc32k3_d2_f32_nhwc", "3x3"), ("ic32ih64_oc32k3_s2_f32_nhwc", "every pixel, not"),
    ("ic32ih64_oc32k3_f32", "not planes"), ("ic3ih64_oc32k3_f32_nhwc", "4 to 64"), ("ic80ih64_oc32k3_f32_nhwc", "4 to 64"),
    ("ic64ih64_oc144k3_f32_nhwc", "up to 128"), ("ic32ih64_oc40k3_f32_nhwc", "whole vectors"),
    ("g2_ic16ih64_oc32k3_f32_nhwc", "whole vectors"), ("g3_ic24ih64_oc24k3_f32_nhwc", "whole vectors"),
])  # fmt: skip
def test_refusals(text, reason):
    assert reason in winograd_shallow.reject(Problem.parse(text), AVX512)
