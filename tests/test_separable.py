"""Filters of rank 1 in two passes: oracles, borders, tiny images, NaN and inf, the same bits; and what the calls find about weights."""

import functools
import itertools
import weakref

import cv2
import numpy as np
import pytest

import fastconv
from fastconv.cpu.factor import FOUND, factor, words
from fastconv.cpu.separable import TILES
from fastconv.cpu.target import detect
from fastconv.cpu.threads import Region
from fastconv.planning import cost, planner
from fastconv.planning import structure as structures
from fastconv.planning.planner import compile_kernels, plan_problem
from fastconv.planning.problem import BORDERS, Problem
from fastconv.planning.structure import structure_of
from tests.oracles import assert_close, assert_same_bits, assert_within, bound, stored, truth
from tests.problems import operands, result_array, run, typed

EPS = float(np.finfo("f4").eps)


def gaussian(k, sigma=None):
    x = np.arange(k) - (k - 1) / 2
    w = np.exp(-(x**2) / (2 * (sigma or k / 5) ** 2))
    return w / w.sum()


def check(p, threads=1, fill=0, what=""):
    src, wei, bias = operands(p)
    result = run(p, src, wei, bias, "separable", threads, fill)
    assert_within(result, p, truth(p, src, wei, bias, fill), "separable", what)
    return result


@pytest.mark.parametrize("border", BORDERS)
def test_every_border_and_size(border, exercised):
    """Images narrower than a tile and larger than a band, kernels of even and odd sizes, and larger than the image."""
    sizes = ((1, 1), (3, 5), (9, 33), (40, 64), (70, 131))
    kernels = ((1, 1), (3, 3), (2, 5), (1, 7), (9, 1), (8, 16), (17, 18), (31, 4))
    for number, ((ih, iw), (kh, kw)) in enumerate(itertools.product(sizes, kernels)):
        pads = {"pt": kh // 2, "pb": kh - 1 - kh // 2, "pl": kw - 1 - kw // 3, "pr": kw // 3}
        p = Problem(ih=ih, iw=iw, kh=kh, kw=kw, border=border, structure="rank1", epilogue=("", "bias")[number % 2], **pads)
        check(p, 1 + number % 2, fill=2.5)
        exercised("separable", str(p))


def test_far_padding_and_several_column_bands(monkeypatch):
    monkeypatch.setattr("fastconv.planning.cost.SEPARABLE_COLUMN_BYTES", 256)
    planner.forget()
    for border, stride in itertools.product(BORDERS, (1, 2)):
        check(Problem.parse(f"ih11iw300_kh3kw5_sh1sw{stride}_ph1pw40_{border}_structure=rank1"), 2, 1.5)
    planner.forget()


@pytest.mark.parametrize(
    ("strides", "dtype"), [*(((sh, sw), "f32") for sh, sw in ((1, 1), (2, 2), (1, 2), (2, 1), (3, 1))), ((1, 2), "f64"), ((2, 2), "f64")]
)
def test_strides_batches_and_channels(strides, dtype, exercised):
    for kh, kw in ((3, 3), (5, 4), (2, 9)) if dtype == "f32" else ((4, 5),):
        p = typed(Problem.parse(f"n2_g3_ic3ih37iw83_oc3kh{kh}kw{kw}_p1_reflect_bias_structure=rank1"), dtype)
        p = p.replace(sh=strides[0], sw=strides[1])
        result = check(p)
        assert_same_bits(check(p, 3), result, "threads")
        src, wei, bias = operands(p)
        one = run(p.replace(n=1), src[1:], wei, bias, "separable", 2)
        assert_same_bits(one, result[1:], "image alone")
        exercised("separable", str(p))


def test_the_same_bits_for_any_position():
    """A periodic image gives a periodic result, through tiles, bands and borders that wrap."""
    rng = np.random.default_rng(6)
    for sh, sw in ((1, 1), (2, 2)):
        p = Problem.parse("ih77iw220_kh5kw9_structure=rank1").replace(sh=sh, sw=sw)
        src = np.tile(rng.standard_normal((7, 11)).astype("f4"), (11, 20))[None, None]
        _, wei, _ = operands(p)
        result = run(p, src, wei, None, "separable", 2)
        assert_same_bits(result[..., 7:, :].copy(), result[..., :-7, :].copy(), "rows")
        assert_same_bits(result[..., 11:].copy(), result[..., :-11].copy(), "columns")
    p = Problem.parse("ih77iw220_k9_p4_wrap_structure=rank1")
    src = np.tile(src[:, :, :7, :11], (11, 20))
    _, wei, _ = operands(p)
    result = run(p, src, wei, None, "separable")
    assert_same_bits(np.roll(result, (7, 11), (2, 3)), result, "wrapped")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_where_the_direct_formula_is(value):
    for text in ("ih20iw90_k3_p1_structure=rank1", "ih30iw70_kh5kw8_p3_wrap_structure=rank1", "ih40iw150_k7_s2_p3_structure=rank1"):
        p = Problem.parse(text)
        src, wei, _ = operands(p)
        column, row = np.random.default_rng(0).standard_normal((2, 9))
        for zeros in ((), (0,), (1, 2)):
            u, v = column[: p.kh].copy(), row[: p.kw].copy()
            u[list(zeros)], v[list(zeros[:1])] = 0, 0
            wei = np.outer(u, v)[None, None].astype("f4")
            image = src.copy()
            image[0, 0, 0, 0] = image[0, 0, p.ih // 2, p.iw // 2] = image[0, 0, -1, -2] = value
            image[0, 0, p.ih // 2 + 1, p.iw // 2] = np.inf
            assert_within(run(p, image, wei, None, "separable", fill=value), p, truth(p, image, wei, None, value), "separable", text)


def test_great_and_small_magnitudes():
    """Smoothing weights never overflow on the way, subnormal pixels are kept, and weights of any scale have factors."""
    p = Problem.parse("ih20iw90_k5_p2_reflect_structure=rank1")
    src, _, _ = operands(p)
    for k in (3, 5, 15):
        q = p.replace(kh=k, kw=k)
        smooth = np.outer(gaussian(k), gaussian(k)).astype("f4")[None, None]
        for image, wei in ((np.sign(src) * np.float32(3e38), smooth), (np.full_like(src, 1e-40), np.ones((1, 1, k, k), "f4")),
                           (src, smooth * np.float32(1e30)), (src, smooth * np.float32(1e-30))):  # fmt: skip
            exact = truth(q, image, wei)
            assert np.isfinite(exact.value.astype("f4")).all()
            assert_within(run(q, image, wei, None, "separable"), q, exact, "separable")


TYPES = ("u8 u8 saturate", "u8 i16 saturate")
MORE_TYPES = ("u16 u16 half_up", "i16 f32 ", "u8 f32 ", "f32 u8 saturate", "u16 i16 saturate")


@pytest.mark.parametrize("types", [*TYPES, *(pytest.param(types, marks=pytest.mark.slow) for types in MORE_TYPES)])
def test_other_types_in_place(types, exercised):
    """Whole weights, and whole ones over a power of two, give equal results: sums below 2^24 are exact."""
    src, dst, rounding = types.split(" ")
    for k, border in ((3, "reflect"), (5, "constant"), (7, "wrap")):
        if k == 7 and src != "u8":
            continue  # sums of 2^27 units
        p = Problem.parse(f"ih37iw{70 + k}_k{k}_p{k // 2}_{border}_{src}:f32:{dst}:f32_structure=rank1").replace(epilogue=rounding)
        image, _, _ = operands(p, True)
        binomial = np.poly1d([1, 1]) ** (k - 1)
        scale = 2 ** (-2 * k + 2) if dst in ("u8", "u16") else 1
        wei = (np.outer(binomial.c, binomial.c) * scale).astype("f4")[None, None]
        for fill in (0, 3, 2.5):
            exact = truth(p, image, wei, None, fill)
            dst_array = result_array(p)
            result = run(p, image, wei, None, "separable", 2, fill, dst_array)
            assert_close(result, stored(p, exact), 0, f"{p} fill={fill}")
        exercised("separable", str(p))


WAYS = ("rank1 saturate", "box half_up", *(pytest.param(way, marks=pytest.mark.slow) for way in ("box saturate", "rank1 half_up")))


@pytest.mark.parametrize("way", WAYS)
def test_bytes_in_integers(way, exercised):
    """Sums of 16 bits, divided as the exact quotient is rounded, or as float32; the widest sums that fit, and wider ones."""
    structure, rounding = way.split()
    for k, border in zip((2, 3, 4, 5, 7, 15, 16, 17), itertools.cycle(BORDERS), strict=False):
        p = Problem.parse(f"ih67iw{200 + k}_k{k}_p{k // 2}_{border}_u8:f32:u8:f32_structure={structure}").replace(epilogue=rounding)
        image, _, _ = operands(p)
        image[0, 0, :40, :90] = 255
        binomial = (np.poly1d([1, 1]) ** (k - 1)).c
        change = np.convolve((np.poly1d([1, 1]) ** (k - 2)).c, [-1, 1])
        ones = np.ones((k, k))
        weights = (ones / k**2, ones, ones / 4, ones / 256, -ones, 0 * ones)
        if structure == "rank1":
            weights = (np.outer(binomial, binomial) / 4 ** (k - 1), np.outer(binomial, change), np.outer(change, binomial) / 2, weights[0])
        for wei in weights:
            wei = wei.astype("f4")[None, None]
            exact = truth(p, image, wei, None, 7)
            result = run(p, image, wei, None, "separable", 2, 7)
            whole = (np.ldexp(wei, 30) % 1 == 0).all() and k < 7
            assert_close(result, stored(p, exact), 0 if whole else bound(p, exact, "separable"), f"{p} {wei.flat[0]}")
            assert_same_bits(run(p, image, wei, None, "separable", 1, 7), result, "threads")
        exercised("separable", str(p))


def test_every_division_of_bytes_is_rounded_right():
    """One row of pixels, all of one value: every sum of a box, for every size."""
    for kh, kw in itertools.product(range(2, 17), (2, 3, 5, 11, 16)):
        p = Problem(ih=kh, iw=256 * kw, kh=kh, kw=kw, sw=1, src="u8", dst="u8", epilogue="half_up", structure="box")
        image = np.repeat(np.arange(256, dtype="u1"), kw)[None].repeat(kh, 0)[None, None]
        image[0, 0, 0] += (np.arange(256 * kw) % 3 == 0) * (image[0, 0, 0] < 255).astype("u1")
        wei = np.full((1, 1, kh, kw), 1 / (kh * kw), "f4")
        sums = np.cumsum(np.pad(image[0, 0].sum(0, int), (1, 0)))
        sums = sums[kw:] - sums[:-kw]
        expected = (2 * sums + kh * kw) // (2 * kh * kw)
        assert np.array_equal(run(p, image, wei, None, "separable")[0, 0, 0], expected), (kh, kw)


@pytest.mark.parametrize("channels", [3, pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("types", ["f32", "u8:f32:u8:f32_half-up"])
def test_interleaved_channels_of_one_filter(channels, types, exercised):
    for (structure, border), (kh, kw) in itertools.product(
        (("rank1", "reflect"), ("box", "constant"), ("rank1", "wrap")), ((3, 5), (4, 13))
    ):
        p = Problem.parse(
            f"n2_g{channels}_ic{channels}ih21iw45_oc{channels}kh{kh}kw{kw}_p2_{border}_{types}_nhwc_structure={structure}_shared"
        )
        p = p.replace(pl=kw // 2, pr=kw // 2)
        src, wei, _ = operands(p)
        if types != "f32":
            wei = np.repeat(np.outer([1, 3, 3, 1][:kh], np.arange(1, kw + 1)).astype("f4")[None, None] / 64, channels, 0)
            wei = np.full_like(wei, 1 / (kh * kw)) if structure == "box" else wei
        exact = truth(p, src, wei, None, 7)
        result = run(p, src, wei, None, "separable", 2, 7)
        assert_within(result, p, exact, "separable")
        assert_same_bits(run(p, src.copy(), wei, None, "separable", 1, 7), result, "planes")
        exercised("separable", str(p))
    with pytest.raises(ValueError, match="of structure rank1 as planned"):
        plan_problem(p, algorithm="separable").pack(wei * np.arange(1, channels + 1, dtype="f4")[:, None, None, None])


def test_image_filters_of_opencv():
    image = np.random.default_rng(0).integers(0, 256, (67, 150), np.uint8)
    for k in (3, 5):
        p = Problem.parse(f"ih67iw150_k{k}_p{k // 2}_reflect_u8:f32:i16:f32_saturate_structure=rank1")
        column, row = cv2.getDerivKernels(1, 0, k)[::-1]
        wei = np.outer(column, row).astype("f4")[None, None]
        assert np.array_equal(run(p, image[None, None], wei, None, "separable")[0, 0], cv2.Sobel(image, cv2.CV_16S, 1, 0, ksize=k))


def test_large_results_go_past_the_caches(monkeypatch):
    monkeypatch.setattr(cost, "PAST_SHARE", 0)
    planner.forget()
    lanes = detect().lanes(4)
    for wide, offset in itertools.product((0, 1, lanes // 2, 5), (0, 1, 3, 7)):
        p = Problem.parse("ih19iw9_k3_structure=rank1").replace(iw=9 * TILES[0].wide * lanes // 2 + wide)
        pitch = -(-p.ow // 16) * 16
        memory = np.full(32 + (p.oh + 1) * pitch, np.nan, "f4")
        start = -(memory.ctypes.data // 4) % 16 + offset
        dst = memory[start : start + p.oh * pitch].reshape(1, 1, p.oh, pitch)[..., : p.ow]
        src, wei, _ = operands(p)
        assert_within(run(p, src, wei, None, "separable", 2, dst=dst).copy(), p, truth(p, src, wei), "separable")
        assert np.isnan(memory).sum() == memory.size - dst.size
    planner.forget()


def found(wei, acc="f32"):
    return structure_of(acc, np.asarray(wei)[None, None])


@pytest.mark.parametrize("k", [2, 3, 7, 15])
def test_structure_is_proven_tap_by_tap(k):
    wei = np.outer(gaussian(k), gaussian(k) * (2 + np.arange(k)))
    for weights in (wei, wei.astype("f4"), wei.astype("f4")[::-1, ::-1], np.asfortranarray(wei), -wei):
        assert found(weights) == "rank1"
    assert found(wei, "f64") == "rank1"
    if k > 2:
        assert found(wei.astype("f4"), "f64") == "full"
    for y, x in ((0, 0), (k - 1, 0), (0, k - 1)):
        near, far = wei.copy(), wei.copy()
        near[y, x] *= 1 + EPS
        far[y, x] *= 1 + 6 * EPS
        assert found(near) == "rank1"
        assert found(far) == "full"
        for value in (np.nan, np.inf, 0):
            other = wei.copy()
            other[y, x] = value
            assert found(other) == "full"
    assert found(np.ones((k, k), "f4")) == found(np.full((k, k), 0.1)) == "box"
    assert found(np.zeros((k, k))) == "zero"
    one = np.zeros((k, k), "f4")
    one[k // 2, 0] = 1
    assert found(one) == "identity"
    assert found(one * 2) == "rank1"


def test_what_is_not_of_rank_1_or_cannot_be_written_so():
    rng = np.random.default_rng(0)
    assert found(rng.standard_normal((5, 5))) == "full"
    assert found(np.eye(3)) == "full"
    assert found(np.ones((3, 3), int)) == found(np.ones((3, 3), "c8")) == found(np.ones((3, 3)), "i32") == "full"
    tiny = np.outer(gaussian(7, 0.3), gaussian(7, 0.3))
    assert found(tiny.astype("f4")) == "full", "some weights are subnormal in float32, and their products were rounded"
    assert found(np.full((3, 3), 1e-42, "f4")) == "box"
    assert found(np.full((3, 3), 3e38, "f4")) == "box"
    assert structure_of("f32", np.stack([np.ones((1, 3, 3)), np.full((1, 3, 3), 2.0)])) == "box"
    assert structure_of("f32", np.stack([np.ones((1, 3, 3)), np.eye(3)[None]])) == "full"


@pytest.mark.parametrize("acc", ["f4", "f8"])
def test_factors_of_whole_weights_are_whole(acc):
    for scale in (1, 1 / 256, 3 * 2.0**40):
        for column, row in (([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]), ([3, 10, 3], [-1, 0, 1]), ([1, 2, 1, 0], [5, -7]), ([12], [9, 6, 3])):
            wei = np.outer(column, row) * float(scale)
            packed = np.empty((1, 1, 1, words(*wei.shape)), acc)
            assert FOUND[factor(wei[None, None], packed)] == "rank1"
            v, u = (part.astype("f8") for part in np.split(packed[0, 0, 0, : sum(wei.shape)], [len(column)]))
            assert np.array_equal(np.outer(v, u), wei)
            assert 1 <= abs(u).max() < 2
            mantissas = [int(np.ldexp(np.frexp(x)[0], 53)) for x in (*v, *u) if x]
            assert all(m % 2**45 == 0 for m in mantissas), "few bits each, so that sums of pixels are exact"


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 7), (2, 1), (9, 1)])
def test_factors_of_one_row_or_column_are_its_weights(shape):
    rng = np.random.default_rng(0)
    for _ in range(20):
        wei = rng.standard_normal(shape).astype("f4")
        packed = np.empty((1, 1, 1, words(*shape)), "f4")
        assert FOUND[factor(wei[None, None], packed)] in ("rank1", "box")
        assert np.array_equal(np.outer(packed[0, 0, 0, : shape[0]], packed[0, 0, 0, shape[0] : sum(shape)]), wei)


def test_a_plan_refuses_weights_that_break_its_promise():
    plan = plan_problem(Problem.parse("ih64_k3_structure=rank1"), algorithm="separable")
    with pytest.raises(ValueError, match="of structure rank1 as planned"):
        plan.pack(np.eye(3, dtype="f4")[None, None])


@pytest.fixture
def runs(monkeypatch):
    """Which algorithms are prepared in the calls that follow."""
    names = []
    prepare = planner.Plan.prepare
    monkeypatch.setattr(planner.Plan, "prepare", lambda plan, *arrays: names.append(plan.algorithm) or prepare(plan, *arrays))
    return names


def test_calls_look_at_the_weights_each_time(runs):
    """One cached call serves weights of any structure; `strict`, integers, small images and thin kernels are never looked at."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((301, 299)).astype("f4")
    full, rank1 = rng.standard_normal((7, 7)).astype("f4"), np.outer(gaussian(7), gaussian(7)).astype("f4")
    p = Problem.parse("ih301iw299_k7_p3")
    for name in ("correlate2d", "convolve2d", "conv2d"):
        keywords = {"padding": 3} if name == "conv2d" else {"mode": "same"}
        for weights in (full, full, rank1, rank1, full, np.ones((7, 7), "f4"), rank1[::-1]):
            result = getattr(fastconv, name)(x, weights, **keywords)
            w = weights[::-1, ::-1] if name == "convolve2d" else weights
            assert_within(result[None, None], p, truth(p, x[None, None], w[None, None]), what=name)
    assert runs.count("separable") >= 3
    runs.clear()
    fastconv.conv2d(x, rank1, padding=3, precision="strict")
    fastconv.conv2d(x[:30, :30], rank1, padding=3)
    fastconv.conv2d(x, rank1[:1], padding=3)
    fastconv.conv2d(x.astype(int), np.ones((7, 7), int), padding=3)
    assert set(runs) == {"direct"}
    runs.clear()
    fastconv.conv2d(x[:30, :30], rank1, algorithm="separable")
    assert runs == ["separable"]
    with pytest.raises(ValueError, match="for weights of rank 1, not full"):
        fastconv.conv2d(x, full, algorithm="separable")


def test_the_same_weights_are_looked_at_once(monkeypatch):
    """Bit by bit, whatever array holds them; an array that has been changed in place is looked at again."""
    looks = []
    found = structures.structure_of
    monkeypatch.setattr(structures, "structure_of", lambda *arguments, **keywords: looks.append(1) or found(*arguments, **keywords))
    rng = np.random.default_rng(0)
    x, p = rng.standard_normal((211, 199)).astype("f4"), Problem.parse("ih211iw199_k7_p3")
    weights, sizes = rng.standard_normal((7, 7)).astype("f4"), []
    for change in (None, "copy", np.outer(gaussian(7), gaussian(7)), None, -0.0, 0.0, "copy", np.eye(7)[::-1], None):
        if isinstance(change, str):
            weights = weights.copy()
        elif change is not None:
            weights[...] = change
        result = fastconv.conv2d(x, weights, padding=3)
        assert_within(result[None, None], p, truth(p, x[None, None], weights[None, None]))
        sizes.append(len(looks))
    assert sizes == [1, 1, 2, 2, 3, 4, 4, 5, 5]


def test_depthwise_weights_of_rank_1_each(runs):
    rng = np.random.default_rng(1)
    x, wei = rng.standard_normal((2, 3, 200, 220)).astype("f4"), (rng.random((3, 1, 7, 1)) * rng.random((3, 1, 1, 7))).astype("f4")
    p = Problem.parse("n2_g3_ic3ih200iw220_oc3k7_p3_bias")
    bias = np.array([1, -2, 3], "f4")
    result = fastconv.conv2d(x, wei, bias, padding=3, groups=3)
    assert_within(result, p, truth(p, x, wei, bias))
    assert runs.count("separable") == 1
    wei[1, 0, 2, 2] += 1
    assert_within(fastconv.conv2d(x, wei, bias, padding=3, groups=3), p, truth(p, x, wei, bias))


def test_plans_and_explain_know_the_weights():
    x = np.random.default_rng(2).standard_normal((300, 300)).astype("f4")
    rank1, full = np.outer(gaussian(7), gaussian(7)).astype("f4"), np.random.default_rng(3).standard_normal((7, 7)).astype("f4")
    plan = fastconv.plan(x, rank1, padding=3)
    assert (plan.algorithm, plan.problem.structure) == ("separable", "rank1")
    p = Problem.parse("ih300_k7_p3")
    for weights, algorithm in ((rank1, "separable"), (full, "direct"), (rank1, "separable"), (np.ones((7, 7), "f4"), "separable")):
        plan.set_weight(weights)
        assert plan.algorithm == algorithm
        assert_within(plan(x)[None, None], p, truth(p, x[None, None], weights[None, None]))
    assert fastconv.plan(x, (7, 7), padding=3).algorithm == "direct"
    assert fastconv.plan(x, rank1, padding=3, precision="strict").algorithm == "direct"
    assert "plan: (separable" in fastconv.explain(x, rank1, padding=3)
    assert "plan: (direct" in fastconv.explain(x, full, padding=3)


def test_the_structure_does_not_depend_on_the_batch():
    """A small image stays direct in a large batch: its bits are those of the image alone."""
    x = np.random.default_rng(4).standard_normal((500, 1, 20, 40)).astype("f4")
    wei = np.outer(gaussian(5), gaussian(5)).astype("f4")[None, None]
    assert_same_bits(fastconv.conv2d(x, wei)[7:8], fastconv.conv2d(x[7:8], wei))


@pytest.mark.parametrize("text", ["ih20iw300_kh3_p9_f32", "ih21iw310_kh2_s2_p7_wrap_f32_bias", "g3_ic3ih9iw120_oc3kh3_p8_f32_nhwc_shared"])
def test_boxes_of_every_width_are_added_up_by_doubling(text):
    """Of no pixel but the window's: NaN and inf stay in it, and nothing drifts."""
    for kw in (11, 12, 15, 16, 17, 29, 31, 32, 33, 48):
        p = Problem.parse(f"{text}_structure=box").replace(kw=kw)
        assert "_box" in plan_problem(p, algorithm="separable").kernel
        for integers in (True, False):
            src, wei, bias = operands(p, integers)
            src[..., 3, 60] = np.inf
            src[..., 5, 100] = np.nan
            src[..., 7, 20] = 1e30
            result = run(p, src, wei, bias, "separable", 1 + kw % 2)
            assert_within(result, p, truth(p, src, wei, bias), "separable")
            assert np.isfinite(result).any()


def test_quotients_of_boxes_of_bytes_are_exact():
    """Every divisor up to 16 x 16, at the largest sums and at random ones: OpenCV's rule, a half and for powers of two a part more up."""
    image = np.random.default_rng(5).integers(0, 256, (40, 70), np.uint8)
    image[:20, :40] = 255
    for kh, kw in itertools.product(range(1, 17), repeat=2):
        sums = np.lib.stride_tricks.sliding_window_view(image, (kh, kw)).sum((2, 3), dtype=np.int64)
        count = kh * kw
        expected = np.minimum((sums + (count // 2 + (1 < count == count & -count))) // count, 255)
        found = fastconv.opencv.blur(image, (kw, kh), anchor=(0, 0))[: 41 - kh, : 71 - kw]
        assert np.array_equal(found, expected), (kh, kw)


def test_the_kernel_for_other_weights_is_made_when_they_come(monkeypatch):
    """Of bytes: whole weights and others have kernels of their own; the launch holds no image; `warmup` compiles both."""
    made = []
    kernel = Region.kernel
    monkeypatch.setattr(Region, "kernel", lambda region: made.append(region._name.split("_")[1]) or kernel(region))
    p = Problem.parse("ih20iw40_k3_p1_u8:f32:u8:f32_saturate_structure=rank1")
    plan = plan_problem(p, algorithm="separable")
    src, dst = np.full((1, 1, 20, 40), 3, "u1"), np.empty((1, 1, 20, 40), "u1")
    whole, other = (plan.pack(np.outer(w, w).astype("f4")[None, None]) for w in (np.ones(3), np.array([0.3, 0.7, 1 / 9])))
    launch = plan.prepare(src, whole, dst)
    assert made == ["i16"]
    for packed, inner in ((whole, 27), (other, 4), (whole, 27)):
        launch(src, packed, None, dst)
        assert (dst[..., 1:-1, 1:-1] == inner).all()
    assert made == ["i16", "f32"]
    image = weakref.ref(src)
    del src
    assert image() is None
    made.clear()
    compile_kernels(plan)
    assert set(made) == {"i16", "f32"}


@pytest.mark.parametrize("threads", [1, 2])
def test_calls_of_bytes_that_come_again_are_the_same(threads, monkeypatch):
    """Symmetric whole taps, 3 and 5 down a column, through quick calls on one thread and on several, which see shared memory."""
    monkeypatch.setattr(cost, "PARALLEL_SECONDS", 0)
    image = np.random.default_rng(6).integers(0, 256, (150, 90), np.uint8)
    for k in (3, 5):
        run = functools.partial(fastconv.opencv.GaussianBlur, ksize=(k, k), sigmaX=0, threads=threads)
        taps = {3: (1, 2, 1), 5: (1, 4, 6, 4, 1)}[k]
        padded = np.pad(image, k // 2, "reflect").astype(np.int64)
        sums = np.einsum("yxij,i,j->yx", np.lib.stride_tricks.sliding_window_view(padded, (k, k)), taps, taps)
        expected = (sums + sum(taps) ** 2 // 2) // sum(taps) ** 2
        for _ in range(4):
            assert np.array_equal(run(image), expected)
            both = np.zeros((151, 90), np.uint8)
            both[1:] = image
            assert np.array_equal(run(both[1:], dst=both[:-1]), expected)
