"""Four rows of results of images channels last: heights of taps, borders, threads, given weights, who computes what no transform can."""

import itertools

import numpy as np
import pytest

import fastconv
from fastconv.cpu import winograd_rows_last
from fastconv.cpu.target import AVX512, TARGETS, detect
from fastconv.cpu.winograd_phases import counts, phase_taps
from fastconv.planning import cost as costs
from fastconv.planning.planner import cheapest, plan_problem, short_name
from fastconv.planning.problem import BORDERS, DTYPES, Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import compare_strides, operands, result_array, run, typed

NAME = "winograd_rows_last"
STEM = "ic3ih50iw60_oc64k7_s2_p3_f32_nhwc_bias"


def strict(p):
    return p.replace(precision="strict")


@pytest.mark.parametrize("text", ["ic3ih224_oc64k7_s2_p3", "ic3ih112_oc64k3_p1", "ic4ih112_oc32k4_p1", "ic3ih112_oc32k3_s2_p1"])
def test_error_of_layers(text):
    """Of the layer's largest result: direct sums are up to 5e-7 off."""
    p = Problem.parse(text + "_nhwc")
    src, wei, _ = operands(p)
    exact = truth(p, src, wei).value
    error = float(np.abs(run(p, src, wei, algorithm=NAME, threads=2) - exact).max() / np.abs(exact).max())
    assert 1e-8 < error < 5e-6, error


@pytest.mark.parametrize(("kh", "sh"), [(2, 1), (3, 1), (4, 1), (3, 2), (4, 2), (7, 2), (8, 2), (7, 3), (11, 4)])
def test_every_height_of_taps(kh, sh, exercised):
    """Odd and even, of several phases; results of one group of rows, less, and several, in columns of one tile and more."""
    for (oh, ow), sw in itertools.product(((2, 14), (3, 31), (4, 47), (23, 28)), (1, 2)):
        p = Problem(n=2, ic=4 - kh % 2, ih=(oh - 1) * sh + kh - 1, iw=(ow - 1) * sw + 3, oc=64, kh=kh, kw=3, sh=sh, sw=sw, pt=1,
                    src_layout="nhwc", epilogue="bias")  # fmt: skip
        src, wei, bias = operands(p)
        results = [run(p, src, wei, bias, NAME, threads) for threads in (1, 3)]
        assert_within(results[0], p, truth(p, src, wei, bias), NAME)
        assert_same_bits(*results, "on three threads")
        assert_same_bits(run(p.replace(n=1), src[1:], wei, bias, NAME), results[0][1:], "one image")
        exercised(NAME, str(p))


@pytest.mark.parametrize("border", BORDERS)
def test_every_border_and_stride(border):
    for stride, (pt, pb, pl, pr) in itertools.product((1, 2), ((5, 2, 9, 4), (0, 0, 0, 0), (2, 1, 4, 40), (0, 3, 50, 0))):
        p = Problem(n=2, ic=3, ih=19, iw=36, oc=32, kh=2 * stride, kw=3, sh=stride, sw=stride, pt=pt, pb=pb, pl=pl, pr=pr, border=border,
                    src_layout="nhwc", epilogue="leaky_relu:0.1")  # fmt: skip
        src, wei, _ = operands(p)
        for fill in (0, -3.5) if border == "constant" else (0,):
            result = run(p, src, wei, algorithm=NAME, threads=2, fill=fill)
            assert_within(result, p, truth(p, src, wei, fill=fill), NAME)


@pytest.mark.parametrize("text", ["n2_ic3ih30iw40_oc64k3_p1_f32_nhwc_bias+relu", STEM, "ic4ih20iw40_oc32kh4kw2_s2_f64_nhwc"])
def test_given_weights_of_any_order_have_the_same_bits(text):
    p = Problem.parse(text)
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, NAME)
    channels_last = wei.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    turned = wei[:, :, ::-1, ::-1].copy()[:, :, ::-1, ::-1]
    for threads in (1, 3):
        plan = winograd_rows_last.build(p, detect(), plan_problem, threads)
        for own in (plan, plan.given()):
            assert own.workspace >= plan.workspace
            for weights in (wei, np.asfortranarray(wei), wei.transpose(2, 3, 1, 0).copy().transpose(3, 2, 0, 1), channels_last, turned):
                dst = result_array(p)
                own.run(src, own.pack(weights), bias, dst)
                assert_same_bits(dst, expected, f"{own}")


def test_arrays_of_any_strides():
    compare_strides(Problem.parse(STEM), NAME)


@pytest.mark.parametrize(("epilogue", "oc"), [("bias", 64), ("bias+relu", 32)])
def test_large_results_are_stored_past_the_caches_where_they_are_aligned(epilogue, oc, monkeypatch):
    """The same bits wherever the result begins, whatever lies between its rows and pixels, and nothing beside it."""
    p = Problem.parse(f"ic3ih33iw41_oc{oc}k3_p1_f32_nhwc_{epilogue}")
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, NAME)
    monkeypatch.setattr(costs, "WINOGRAD_ROWS_PAST_SHARE", 0)
    plan = winograd_rows_last.build(p, detect(), plan_problem, 2)
    packed, line = plan.pack(wei), 16
    for first, gap in itertools.product((0, 1, line), (0, 1, line)):
        memory = np.full(p.oh * (p.ow + 3) * (oc + gap) + 3 * line, 77, np.float32)
        start = -memory.ctypes.data % 64 // 4 + first
        inside = memory[start : start + p.oh * (p.ow + 3) * (oc + gap)].reshape(1, p.oh, p.ow + 3, oc + gap)[:, :, : p.ow, :oc]
        plan.run(src, packed, bias, inside.transpose(0, 3, 1, 2))
        assert_same_bits(inside.transpose(0, 3, 1, 2).copy(), expected, f"{first} {gap}")
        inside[...] = 77
        assert (memory == 77).all()
    # launches are kept for other arrays of the same strides
    launch = plan.prepare(src, packed, expected)
    for first in (0, 1, 0):
        memory = np.empty(expected.size + 2 * line, np.float32)
        start = -memory.ctypes.data % 64 // 4 + first
        dst = memory[start : start + expected.size].reshape(1, p.oh, p.ow, oc).transpose(0, 3, 1, 2)
        launch(src, packed, bias, dst)
        assert_same_bits(dst.copy(), expected, f"{first}, again")


def test_bands_that_are_converted_are_whole_groups():
    p = Problem.parse(STEM).replace(ih=450, iw=800)
    src, wei, bias = operands(p)
    assert_same_bits(run(p, src.astype(">f4"), wei, bias, NAME, 2), run(p, src, wei, bias, NAME), "bytes swapped")


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_images_that_no_transform_can_are_summed_directly_and_no_others(dtype):
    p = typed(Problem.parse("n3_ic4ih30iw66_oc32k7_s2_p3_nhwc_bias+relu"), dtype)
    src, wei, bias = operands(p)
    ordinary, limits = run(p, src, wei, bias, NAME, 2), np.finfo(src.dtype)
    assert not np.array_equal(ordinary, run(strict(p), src, wei, bias))
    places = ((1, 0, 0, 0), (1, 3, -1, -1), (1, 2, 13, 40))
    for value, at in itertools.product((np.nan, np.inf, -np.inf, limits.max / 8, -limits.max / 1e9), places):
        image = src.copy(order="K")
        image[at] = value
        with np.errstate(all="ignore"):
            exact, direct = truth(p, image, wei, bias), run(strict(p), image, wei, bias)
            result = run(p, image, wei, bias, NAME, 2)
        assert_within(result, p, exact, "direct")
        assert_same_bits(result[1], direct[1], f"{value} at {at}")
        assert_same_bits(result[::2].copy(), ordinary[::2].copy(), f"{value} at {at}: other images")
    tiny = src.copy(order="K")
    tiny[1] *= limits.tiny * 4
    assert_same_bits(run(p, tiny, wei, bias, NAME)[1], run(strict(p), tiny, wei, bias)[1], "tiny")
    for fill in (np.nan, -np.inf):
        with np.errstate(all="ignore"):
            assert_same_bits(run(p, src, wei, bias, NAME, fill=fill), run(strict(p), src, wei, bias, fill=fill), f"{fill}")


@pytest.mark.parametrize("weight", [np.nan, np.inf, 1e30, 1e-30])
def test_weights_that_no_transform_can(weight):
    p = Problem.parse(STEM)
    src, wei, bias = operands(p)
    wei[3] *= np.float32(weight)
    plan = winograd_rows_last.build(p, detect(), plan_problem, 2)
    with np.errstate(all="ignore"):
        expected = run(strict(p), src, wei, bias)
        for own in (plan, plan.given()):
            dst = result_array(p)
            own.run(src, own.pack(wei), bias, dst)
            assert_same_bits(dst, expected, f"{weight}")


def test_zeros_stay_zeros():
    p = Problem.parse("ic3ih60iw70_oc32k7_s2_p3_f32_nhwc")
    src, wei, _ = operands(p)
    src[:, :, 20:] = 0
    wei[5] = 0
    result = run(p, src, wei, algorithm=NAME)
    assert not np.array_equal(result, run(strict(p), src, wei))
    assert (result[:, 5] == 0).all()
    assert (result[:, :, 16:] == 0).all()
    assert (run(p, src * 0, wei, algorithm=NAME) == 0).all()
    assert (run(p, src, wei * 0, algorithm=NAME) == 0).all()


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_what_is_counted_is_what_is_taken(target):
    """Terms are read within transformed rows, all of them; all lines of a tile are asked for."""
    for text in (*winograd_rows_last.CASES, "ic3ih40iw41_oc64kh8kw3_s2_nhwc_f32", "ic3ih40iw41_oc64kh2kw9_pl30_nhwc_f32"):
        p = Problem.parse(text)
        size, tile = DTYPES[p.acc].itemsize, winograd_rows_last.fitting(winograd_rows_last.TILES, target)[0]
        head, (_, rows, *columns) = winograd_rows_last._layout(p, tile, target.lanes(size))
        table, shape = winograd_rows_last._table(p, tile, size, 1 << 20)
        assert head.left + head.inside + head.right == winograd_rows_last._wide(p)
        assert head.line >= winograd_rows_last._wide(p) * p.ic
        assert sum(map(len, columns)) == head.left + head.right
        assert (head.groups * 4 - 1 + max(phase_taps(p)) - 1) * p.sh < len(rows) - p.sh + 1
        lines, asked, at = [], set(), 0
        for _ in range(head.points):
            entries = table[at + 1 : at + 1 + (1 + shape.ahead) * table[at]].reshape(table[at], -1)
            lines += list(entries[:, 0] // size / head.line)
            asked |= set(entries[:, 1:].reshape(-1).tolist())
            at += 1 + entries.size
        assert at == len(table)
        assert sorted(lines) == list(range(head.made))
        assert head.made == counts(p)[1]
        assert asked == {i << 20 | j * size for i in range(4) for j in range(tile.nx)}


def test_it_is_chosen_for_what_it_is_for():
    chosen = {"ic3ih224_oc64k3_p1": NAME, "ic3ih224_oc32k3_s2_p1": NAME, "ic3ih224_oc64k7_s2_p3": NAME, "ic3ih224_oc64k7_s2_p3_f64": NAME,
              "ic3ih224_oc64k3_p1_strict": "shallow_last", "ic3ih224_oc32k3_s2_p1_strict": "shallow_last", "ic3ih16_oc32k3_p1": "blocked",
              "ic3ih224_oc64k5_p2": "shallow_last"}  # fmt: skip
    for text, name in chosen.items():
        assert short_name(cheapest(Problem.parse(f"{text}_nhwc"), AVX512)[1]) == name, text
    x, w = np.zeros((1, 224, 224, 3), "f4"), np.zeros((3, 3, 3, 64), "f4")
    assert "(winograd_rows_last" in fastconv.explain(x, w, padding=1, data_format="NHWC")


def test_a_plan_takes_new_weights_and_the_functional_call_has_its_bits():
    p = Problem.parse("ic3ih96_oc64k3_p1_f32_nhwc_hwio")
    src, wei, _ = operands(p)
    image, weight, how = src.transpose(0, 2, 3, 1), wei.transpose(2, 3, 1, 0), {"padding": 1, "data_format": "NHWC", "algorithm": NAME}
    plan = fastconv.plan(image, weight, **how)
    plan.set_weight(2 * weight)
    assert_same_bits(plan(image), fastconv.conv2d(image, 2 * weight, **how))
    plan.set_weight(weight)
    assert_same_bits(plan(image), fastconv.conv2d(image, np.asfortranarray(weight), **how))


@pytest.mark.parametrize(("text", "reason"), [
    ("ic3ih64_oc32k3_i32_nhwc", "f32 or f64"), ("ic3ih64_oc32k3_f32_nhwc_strict", "strict"), ("ic3ih64_oc32k3_f32_nhwc_gelu", "fuse"),
    ("ic3ih64_oc32k5_f32_nhwc", "rows of taps"), ("ic3ih64_oc32k3_d2_f32_nhwc", "rows of taps"),
    ("ic3ih64_oc32k1_f32_nhwc", "rows of taps"), ("ic5ih64_oc32k3_f32_nhwc", "3 or 4 channels"),
    ("g2_ic6ih64_oc64k3_f32_nhwc", "in one group"), ("ic3ih64_oc40k3_f32_nhwc", "blocks of 32"),
    ("ic3ih64_oc32k3_sh1sw3_f32_nhwc", "strides 1 and 2"), ("ic3ih64_oc32k3_dh1dw2_f32_nhwc", "dilations"),
    ("ic3ih20iw15_oc32k3_f32_nhwc", "at least 14 results"), ("ic3ih20iw5_oc32k3_pr20_f32_nhwc", "16 values"),
    ("ic3ih64iw9000_oc32k3_f32_nhwc", "KiB of workspace"), ("ic3ih64_oc32k3_f32", "not planes"),
])  # fmt: skip
def test_refusals(text, reason):
    assert reason in winograd_rows_last.reject(Problem.parse(text), AVX512)
