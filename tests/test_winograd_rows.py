"""Four rows of results from sums of transformed rows: matrices, errors, groups at the ends, who computes what no transform can."""

import itertools

import numpy as np
import pytest

import fastconv
from fastconv.cpu import winograd_phases, winograd_rows
from fastconv.cpu.target import AVX512, TARGETS, detect
from fastconv.planning import winograd_points
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import BORDERS, DTYPES, Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import operands, result_array, run, typed
from tests.test_winograd import Numbers

STEM = "ic3ih70iw90_oc20k7_s2_p3_f32_bias"


@pytest.mark.parametrize("taps", range(1, winograd_points.ROW_TAPS + 1))
def test_transforms_make_a_correlation(taps):
    """In float64, of all pairs of a row of pixels and one of taps; what is emitted is what the matrices say."""
    transform, matrices = winograd_points.RowTransform(Numbers(), taps), winograd_points.row_matrices(taps)
    rows = winograd_points.ROWS + taps - 1
    pixels = np.array(transform.pixels(list(np.eye(rows))))
    np.testing.assert_array_equal(pixels, matrices.pixels)
    products = pixels[:, :, None] * np.array(matrices.weights)[:, None, :]
    expected = [[[float(j == i + k) for k in range(taps)] for j in range(rows)] for i in range(winograd_points.ROWS)]
    np.testing.assert_allclose(transform.results(list(products), np.zeros((rows, taps))), expected, atol=1e-13)
    np.testing.assert_allclose(np.tensordot(matrices.results, products, 1), expected, atol=1e-13)


def test_points_of_fewer_taps_are_the_first():
    """So that phases share their sums."""
    for few, many in itertools.pairwise(map(winograd_points.row_points, range(1, winograd_points.ROW_TAPS + 1))):
        assert many[: len(few)] == few


@pytest.mark.parametrize("text", ["ic3ih224_oc64k7_s2_p3", "ic3ih112_oc64k3_p1", "ic3ih112_oc32k4_p1", "ic3ih112_oc32k3_s2_p1"])
def test_error_of_layers(text):
    """Of the layer's largest result: direct sums are up to 5e-7 off."""
    p = Problem.parse(text)
    src, wei, _ = operands(p)
    exact = truth(p, src, wei).value
    error = float(np.abs(run(p, src, wei, algorithm="winograd_rows", threads=2) - exact).max() / np.abs(exact).max())
    assert 1e-8 < error < 5e-6, error


@pytest.mark.parametrize(("kh", "sh"), [(2, 1), (3, 1), (4, 1), (3, 2), (4, 2), (5, 2), (6, 2), (7, 2), (8, 2), (7, 3), (11, 4)])
def test_every_height_of_taps(kh, sh, exercised):
    """Odd and even, of several phases; results of one group of rows, less, and several bands of them, in columns of one tile and more."""
    for oh, ow in ((2, 32), (3, 51), (4, 80), (23, 112), (38, 35)):
        p = Problem(ic=2, ih=(oh - 1) * sh + kh - 1, iw=ow + 2, oc=11, kh=kh, kw=3, sh=sh, pt=1, epilogue="bias")
        src, wei, bias = operands(p)
        results = [run(p, src, wei, bias, "winograd_rows", threads) for threads in (1, 3)]
        assert_within(results[0], p, truth(p, src, wei, bias), "winograd_rows")
        assert_same_bits(*results, "on three threads")
        exercised("winograd_rows", str(p))


@pytest.mark.parametrize("border", BORDERS)
def test_every_border_and_stride(border):
    for stride, (pt, pb, pl, pr) in itertools.product((1, 2, 3), ((5, 2, 9, 4), (0, 0, 0, 0), (2, 1, 4, 40))):
        p = Problem(n=2, g=2, ic=4, ih=19, iw=110, oc=18, kh=2 * stride, kw=3, sh=stride, sw=stride, dw=2, pt=pt, pb=pb, pl=pl, pr=pr,
                    border=border, epilogue="leaky_relu:0.1")  # fmt: skip
        src, wei, _ = operands(p)
        for fill in (0, -3.5) if border == "constant" else (0,):
            result = run(p, src, wei, algorithm="winograd_rows", threads=2, fill=fill)
            assert_within(result, p, truth(p, src, wei, fill=fill), "winograd_rows")


def test_rows_of_several_pieces():
    p = Problem.parse("ic1ih9iw700_oc9k3_p1_f32")
    src, wei, _ = operands(p)
    assert winograd_rows._tiles(p, winograd_rows.fitting(winograd_rows.TILES, detect())[0], detect().lanes(4))[0] > 1
    assert_within(run(p, src, wei, algorithm="winograd_rows"), p, truth(p, src, wei), "winograd_rows")


def test_nothing_is_written_beside_the_result_wherever_it_begins():
    """Rows begin on a line of the caches, or anywhere, and differently; so do those of an image."""
    p = Problem.parse(STEM)
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, "winograd_rows")
    for gap, first in itertools.product((0, 3, 16), (0, 1, 4, 15)):
        memory = np.full((p.n, p.oc + 2, p.oh + 3, p.ow + gap + 16), 77, np.float32)
        inside = (slice(None), slice(1, -1), slice(1, -2), slice(first, first + p.ow))
        run(p, src, wei, bias, "winograd_rows", dst=memory[inside])
        assert_same_bits(memory[inside].copy(), expected, f"{gap} {first}")
        memory[inside] = 77
        assert (memory == 77).all()
    wide = np.full((p.n, p.ic, p.ih, p.iw + 9), np.nan, np.float32)
    wide[..., 4 : 4 + p.iw] = src
    assert_same_bits(run(p, wide[..., 4 : 4 + p.iw], wei, bias, "winograd_rows"), expected, "a view")


def test_arrays_that_are_converted_give_the_same_bits():
    """Bands of rows are whole groups of them."""
    p = Problem.parse(STEM).replace(ih=400, iw=800)
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, "winograd_rows")
    assert_same_bits(run(p, src.astype(">f4"), wei, bias, "winograd_rows", 2), expected, "bytes swapped")
    assert_same_bits(run(p, np.asfortranarray(src), wei, bias, "winograd_rows"), expected, "columns apart")


def strict(p):
    return p.replace(precision="strict")


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_images_that_no_transform_can_are_summed_directly_and_no_others(dtype):
    p = typed(Problem.parse("n3_g2_ic4ih30iw66_oc18k7_s2_p3_bias+relu"), dtype)
    src, wei, bias = operands(p)
    ordinary, limits = run(p, src, wei, bias, "winograd_rows", 2), np.finfo(src.dtype)
    assert not np.array_equal(ordinary, run(strict(p), src, wei, bias))
    places = ((1, 0, 0, 0), (1, 3, -1, -1), (1, 2, 13, 40))
    for value, at in itertools.product((np.nan, np.inf, -np.inf, limits.max / 8, -limits.max / 1e9), places):
        image = src.copy()
        image[at] = value
        with np.errstate(all="ignore"):
            exact, direct = truth(p, image, wei, bias), run(strict(p), image, wei, bias)
            result = run(p, image, wei, bias, "winograd_rows", 2)
        assert_within(result, p, exact, "direct")
        assert_same_bits(result[1], direct[1], f"{value} at {at}")
        assert_same_bits(result[::2].copy(), ordinary[::2].copy(), f"{value} at {at}: other images")
    tiny = src.copy()
    tiny[1] *= limits.tiny * 4
    assert_same_bits(run(p, tiny, wei, bias, "winograd_rows")[1], run(strict(p), tiny, wei, bias)[1], "tiny")
    for fill in (np.nan, -np.inf):
        with np.errstate(all="ignore"):
            assert_same_bits(run(p, src, wei, bias, "winograd_rows", fill=fill), run(strict(p), src, wei, bias, fill=fill), f"{fill}")


@pytest.mark.parametrize("weight", [np.nan, np.inf, 1e30, 1e-30])
def test_weights_that_no_transform_can(weight):
    p = Problem.parse(STEM)
    src, wei, bias = operands(p)
    wei[3] *= np.float32(weight)
    with np.errstate(all="ignore"):
        assert_same_bits(run(p, src, wei, bias, "winograd_rows"), run(strict(p), src, wei, bias), f"{weight}")


def test_zeros_stay_zeros():
    p = Problem.parse("ic3ih60iw70_oc16k7_s2_p3_f32")
    src, wei, _ = operands(p)
    src[:, :, 20:] = 0
    wei[5] = 0
    result = run(p, src, wei, algorithm="winograd_rows")
    assert not np.array_equal(result, run(strict(p), src, wei))
    assert (result[:, 5] == 0).all()
    assert (result[:, :, 16:] == 0).all()
    assert (run(p, src * 0, wei, algorithm="winograd_rows") == 0).all()
    assert (run(p, src, wei * 0, algorithm="winograd_rows") == 0).all()


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_what_is_counted_is_what_is_taken(target):
    """Tiles of a piece reach its end, pieces that of the row, terms read within transformed rows."""
    for text in (*winograd_rows.CASES, "ic1ih9iw700_oc9k3_p1_f32", "ic2ih9iw79_oc9k3_p1_f32"):
        p = Problem.parse(text)
        size, tile = DTYPES[p.acc].itemsize, winograd_rows.fitting(winograd_rows.TILES, target)[0]
        lanes = target.lanes(size)
        e = winograd_rows._layout(p, tile, lanes, 2)
        assert (e.whole * tile.vecs + e.last * tile.tail) * lanes >= e.columns
        assert tile.vecs * lanes <= e.columns or e.whole == 0
        assert tile.tail * lanes <= e.columns <= p.ow <= e.pieces * e.columns
        table, phases = winograd_rows._terms(p, tile, e.line, 0, 0)
        counts, at = [], 0
        while at < len(table):
            counts.append(int(table[at]))
            offsets = table[at + 1 : at + 1 + 3 * counts[-1] : 3] // size
            assert (offsets % e.line + p.ow <= e.pitch).all()
            assert offsets.max() // e.line < e.lines * e.depth * e.sw
            at += 1 + 3 * counts[-1]
        assert len(counts) == e.points
        assert max(counts) == winograd_phases.most_terms(p)
        assert sum(counts) * tile.filters * size == e.block_bytes
        assert len(phases) == 2 * e.sh


def test_who_is_chosen():
    """First layers of tall kernels, unless direct sums are asked for; where memory or few products decide, `shallow`."""
    chosen = {"ic3ih224_oc64k7_s2_p3": "winograd_rows", "ic3ih224_oc64k7_s2_p3_strict": "shallow",
              "ic3ih224_oc64k7_s2_p3_f64": "winograd_rows", "ic8ih112_oc32k3_p1": "winograd_rows", "ic3ih224_oc64k3_p1": "shallow",
              "ic16ih112_oc32k3_p1": "winograd", "ic3ih224_oc32k3_s2_p1": "shallow", "ic1ih224_oc8k5_p2": "shallow"}  # fmt: skip
    for text, name in chosen.items():
        assert plan_problem(Problem.parse(text), AVX512).algorithm == name, text
    x, w = np.zeros((1, 3, 224, 224), "f4"), np.zeros((64, 3, 7, 7), "f4")
    assert "winograd_rows" in fastconv.explain(x, w, stride=2, padding=3)


def test_a_plan_takes_new_weights_and_the_functional_call_has_its_bits():
    p = Problem.parse("ic3ih96_oc64k7_s2_p3_f32")
    src, wei, _ = operands(p)
    plan = fastconv.plan(src, wei, stride=2, padding=3, algorithm="winograd_rows")
    plan.set_weight(2 * wei)
    assert_same_bits(plan(src), fastconv.conv2d(src, 2 * wei, stride=2, padding=3, algorithm="winograd_rows"))
    dst = result_array(p)
    fastconv.conv2d(src, np.asfortranarray(wei), stride=2, padding=3, algorithm="winograd_rows", out=dst)
    plan.set_weight(wei)
    assert_same_bits(plan(src), dst)


@pytest.mark.parametrize(("text", "reason"), [
    ("ic3ih64_oc8k3_i32", "f32 or f64"), ("ic3ih64_oc8k3_f32_strict", "strict"), ("ic3ih64_oc8k3_f32_gelu", "fuse"),
    ("ic3ih64_oc8k5_f32", "rows of taps"), ("ic3ih64_oc8k3_d2_f32", "rows of taps"), ("ic3ih64_oc8k1_f32", "rows of taps"),
    ("ic17ih64_oc8k3_f32", "at most 16 channels"), ("ic3ih64_oc7k3_f32", "at least 8 results"), ("ic3ih20_oc8k3_f32", "32 columns"),
    ("ic16ih64iw9000_oc8k3_f32", "KiB of workspace"), ("ic3ih64_oc8k3_f32_nhwc", "channels last"),
])  # fmt: skip
def test_refusals(text, reason):
    assert reason in winograd_rows.reject(Problem.parse(text), AVX512)
