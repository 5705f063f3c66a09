"""Typed images as OpenCV and SciPy compute them: roundings, borders, exact orders, interleaved channels, non-finite pixels."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

import fastconv
from fastconv.cpu import panel
from fastconv.cpu.convert import adds_products_of_bytes
from fastconv.cpu.target import detect
from fastconv.planning import cost as costs
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import BORDERS, DTYPES, Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import operands, random_array, result_array, run, shapes

MODES = {"constant": "constant", "edge": "nearest", "reflect": "mirror", "symmetric": "reflect", "wrap": "wrap"}
# shape and kernel of every kind of block: tails, one pixel, a kernel larger than the image, tall, wide, more than one block of columns
SHAPES = ("ih21iw75_k3_p1", "ih1_k1", "ih9iw5_k4_pt1pb2pl1pr2", "ih3iw4_kh8kw9_p6", "ih1iw1_k5_p7", "ih40iw33_kh17kw2_pt8pb8pl0pr1",
          "ih6iw90_kh2kw40_pt0pb1pl20pr19", "n2_ic3ih17iw70_oc4k3_p1", "g3_ic3ih20iw40_oc6k5_p2", "ih5iw3000_k3_p1")  # fmt: skip


def check(p, integers=False, fill=0):
    src, wei, bias = operands(p, integers)
    results = [run(p, src, wei, bias, "panel", threads, fill) for threads in (1, 2)]
    assert_within(results[0], p, truth(p, src, wei, bias, fill), "panel")
    assert_same_bits(results[1], results[0], f"2 threads {p}")
    return src, wei, bias, results[0]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_saturated_bytes(shape, border):
    check(Problem.parse(f"{shape}_{border}_u8:f32:u8:f32_bias+saturate"), fill=200 if border == "constant" else 0)


ROUNDED = ("u8:f32:i16:f32_saturate", "i16:f32:i16:f32_half_up", "u16:f32:u16:f32_saturate", "f32:f32:u8:f32_half_up")


@pytest.mark.parametrize("types", ROUNDED)
def test_roundings(types):
    for integers in (True, False):
        check(Problem.parse(f"ih21iw75_k5_p2_reflect_{types}"), integers)


@pytest.mark.parametrize("rounding", ["saturate", "half_up"])
def test_halves_are_rounded_exactly(rounding):
    """Sums of exact halves on either side of every limit; the reference has the rule."""
    p = Problem.parse(f"ih9iw70_k1_f32:f32:u8:f32_{rounding}")
    src = (np.arange(630, dtype="f4").reshape(1, 1, 9, 70) - 40) / 2
    wei = np.ones((1, 1, 1, 1), "f4")
    assert_same_bits(run(p, src, wei, None, "panel"), run(p, src, wei, None, "reference"))


@pytest.mark.parametrize("types", ["f32:f32:u8:f32", "f16:f16:f16:f32"])
def test_what_is_not_finite(types):
    rounding = "_saturate" if types.split(":")[2] != "f16" else ""
    p = Problem.parse(f"ih20iw70_k5_p2_reflect_{types}{rounding}")
    src, wei, _ = operands(p)
    for value, at in ((np.nan, (3, 3)), (np.inf, (9, 40)), (-np.inf, (15, 69)), (np.nan, (19, 0))):
        src[0, 0][at] = value
    result = run(p, src, wei, None, "panel")
    assert_within(result, p, truth(p, src, wei), "panel")
    if rounding:
        assert (result[0, 0, 1:6, 1:6] == 0).all()


def correlated(p, src, wei):
    """What SciPy makes of a problem of one plane, 'same' in size, its result in the type of the image or in float64."""
    output = DTYPES[p.dst]
    if p.order.endswith("symmetric"):
        return ndimage.correlate1d(src[0, 0], wei.reshape(-1), axis=int(p.kh == 1), mode=MODES[p.border], output=output)
    return ndimage.correlate(src[0, 0], wei[0, 0], mode=MODES[p.border], output=output)


def kernels(p, rng):
    """Random weights with the symmetry that the order asks for; nine ninths, where SciPy's truncation shows every rounding."""
    shape = (1, 1, p.kh, p.kw)
    for wei in (rng.standard_normal(shape), np.full(shape, 1 / p.taps), rng.integers(-3, 4, shape) / 7):
        if p.order == "symmetric":
            wei = wei + wei[:, :, ::-1, ::-1]
        if p.order == "antisymmetric":
            wei = wei - wei[:, :, ::-1, ::-1]
        # SciPy drops taps of at most 2.2e-16 of a correlation
        yield np.where(wei == 0, 0.25 if p.order == "raster" else 0, wei)


EXACT = (("k3_p1", "raster"), ("kh4kw2_pt2pb1pl1pr0", "raster"), ("kh4kw9_pt2pb1pl4pr4", "raster"), ("kh1kw1", "symmetric"),
         ("kh5kw1_pt2pb2pl0pr0", "symmetric"), ("kh1kw9_pt0pb0pl4pr4", "symmetric"), ("kh3kw1_pt1pb1pl0pr0", "antisymmetric"),
         ("kh1kw31_pt0pb0pl15pr15", "antisymmetric"))  # fmt: skip


def check_exact(types, kernel, order, border, rng):
    for shape in ("ih23iw37", "ih4iw3", "ih70iw150"):
        p = Problem.parse(f"{shape}_{kernel}_{border}_{types}_order={order}")
        src = random_array(rng, (1, 1, p.ih, p.iw), DTYPES[p.src])
        for wei in kernels(p, rng):
            if DTYPES[p.dst].kind in "iu":
                wei = wei / max(np.abs(wei).sum(), 1)
            made = run(p, src, wei, None, "panel", 2)
            assert_same_bits(made, run(p, src, wei, None, "reference"), f"{p}")
            with np.errstate(all="ignore"):
                assert np.array_equal(made[0, 0], correlated(p, src, wei)), f"{p} and SciPy"


FEW = [*(("u8:f64:u8:f64", *kernel) for kernel in EXACT), ("i16:f64:i16:f64", *EXACT[0]), ("u32:f64:f64:f64", *EXACT[0])]


@pytest.mark.parametrize(("types", "kernel", "order"), FEW)
def test_exact_orders_are_scipys(types, kernel, order):
    rng = np.random.default_rng(len(kernel))
    check_exact(types, kernel, order, BORDERS[rng.integers(5)], rng)


@pytest.mark.slow
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("types", [f"{a}:f64:{b}:f64" for a in ("u8", "i8", "u16", "i16", "u32", "i32", "i64", "f32") for b in (a, "f64")])
@pytest.mark.parametrize(("kernel", "order"), EXACT)
def test_every_type_and_border_in_exact_orders(kernel, order, types, border):
    check_exact(types, kernel, order, border, np.random.default_rng(6))


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("types", ["u8:f32:u8:f32_saturate", "f32"])
def test_interleaved_channels_are_filtered_as_planes(types, channels):
    """Where they lie, with the bits that each plane alone has."""
    for shape, border in itertools.product(("ih21iw50_k3_p1", "ih3iw4_k8_p6", "ih9iw40_k5_p2", "ih7iw1100_k3_p1"), ("reflect", "wrap")):
        p = Problem.parse(f"g{channels}_ic{channels}oc{channels}_{shape}_{border}_{types}_nhwc_shared")
        src, wei, _, result = check(p)
        plane = p.replace(g=1, ic=1, oc=1, src_layout="nchw", shared=False)
        biased = p.replace(epilogue="bias" + f"+{p.epilogue}" * bool(p.epilogue))
        for bias in (np.full(channels, 2.5, "f4"), np.arange(channels, dtype="f4") - 0.5):
            for threads in (1, 2):
                made = run(biased, src, wei, bias, "panel", threads)
                assert_within(made, biased, truth(biased, src, wei, bias), "panel")
        for c in range(channels if p.kh != 3 else 0):  # 3 x 3 taps side by side have a kernel of their own
            alone = run(plane, np.ascontiguousarray(src[:, c : c + 1]), wei[:1], None, "panel")
            assert_same_bits(result[:, c : c + 1].copy(), alone, f"channel {c} of {p}")


STRIDED = ("ih21iw75_k5_p2_reflect_u16:f32:u16:f32_saturate", "g3_ic3ih21iw50_oc3k3_p1_wrap_u8:f32:u8:f32_nhwc_saturate_shared",
           "ih20iw37_k5_p2_u8:f64:u8:f64_order=raster")  # fmt: skip


@pytest.mark.parametrize("text", STRIDED)
def test_arrays_of_any_strides_and_byte_order(text):
    p = Problem.parse(text)
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, "panel")
    for strided in (np.asfortranarray(src), np.repeat(src, 2, axis=3)[..., ::2], src[:, :, ::-1].copy()[:, :, ::-1]):
        assert_same_bits(run(p, strided, wei, bias, "panel"), expected, f"source {strided.strides}")
    wide = np.full((p.n, p.oc, p.oh, 2 * p.ow), 7, DTYPES[p.dst])
    run(p, src, wei, bias, "panel", dst=wide[..., ::2])
    assert_same_bits(wide[..., ::2].copy(), np.ascontiguousarray(expected))
    assert (wide[..., 1::2] == 7).all()
    assert_same_bits(run(p, src.astype(src.dtype.newbyteorder(">")), wei, bias, "panel"), expected, "byte order")


WHOLE = ("ih21iw75_k5_p2", "ih3iw4_kh8kw9_p6", "ih6iw90_kh2kw40_pt0pb1pl20pr19", "ih9iw300_kh1kw7_p3", "ih18iw33_kh17kw6_p8")


@pytest.mark.skipif(not adds_products_of_bytes(), reason="the processor has no AVX-512 VNNI")
@pytest.mark.parametrize("channels", [1, 3])
def test_integer_weights_are_summed_in_integers(channels, monkeypatch):
    """With the bits of float sums: both are exact."""
    monkeypatch.setattr(costs, "DOTS_SECONDS", 0)
    rng = np.random.default_rng(8)
    for number, shape in enumerate(WHOLE):
        layout = f"_g{channels}_ic{channels}oc{channels}_nhwc_shared" if channels > 1 else ""
        p = Problem.parse(f"{shape}_{BORDERS[number % 5]}_u8:f32:i16:f32_relu+saturate{layout}")
        src, wei, _ = operands(p)
        wei[...] = rng.integers(-128, 128, wei[:1].shape)
        plan = panel.build(p, detect(), plan_problem, 2)
        packed, dst = plan.pack(wei), result_array(p)
        assert packed.dtype == np.int32
        for fill in (0, 255, 2.5, -1, np.nan):
            plan.run(src, packed, None, dst, fill)
            assert_same_bits(dst, run(p, src, wei, None, "reference", fill=fill), f"{p} fill {fill}")
        spread = np.repeat(src, 2, axis=3)[..., ::2]
        plan.run(spread, packed, None, dst, 3)
        assert_same_bits(dst, run(p, src, wei, None, "reference", fill=3), f"{p} strided")
        for other in (128, -129, 0.5, np.nan):
            wei[0, 0, 0, 0] = other
            assert plan.pack(wei).dtype == np.float32
        plan.run(src, plan.pack(wei), None, dst)
        assert_same_bits(dst, run(p, src, wei, None, "panel"), str(p))
    for text in ("ih40_k23_u8:f32:f32:f32", "ih40_k5_u8:f32:f32:f32_bias", "ih40_k5_s2_u8:f32:f32:f32", "ih40_k5_i8:f32:f32:f32"):
        p = Problem.parse(text)
        assert panel.build(p, detect(), plan_problem).pack(np.ones(shapes(p)[1], "f4")).dtype == np.float32, text


def test_a_call_that_comes_again_reads_and_writes_other_types():
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((3, 3)).astype("f4")
    memory = np.zeros(4 * 300, "u1")
    out, inside = memory.view("f4").reshape(15, 20), memory[100:400].reshape(15, 20)
    for number in range(4):
        image = rng.integers(0, 256, (15, 20)).astype("u1")
        expected = ndimage.correlate(image.astype("f8"), weight.astype("f8"), mode="constant")
        np.testing.assert_allclose(fastconv.conv2d(image, weight, padding=1, out=out), expected, rtol=0, atol=1e-3)
        np.testing.assert_allclose(fastconv.conv2d(image, weight, padding=1), expected, rtol=0, atol=1e-3)
        inside[...] = image
        made = fastconv.conv2d(inside, weight, padding=1, out=out)
        np.testing.assert_allclose(made, expected, rtol=0, atol=1e-3, err_msg=f"overlapping, call {number}")


def test_it_is_chosen_for_what_it_is_for():
    for text in panel.CASES:
        assert plan_problem(Problem.parse(text)).algorithm == "panel", text
    for text in ("ih512_k3_f32", "ih64_k7_p3_f64", "ih64_k3_u8"):
        assert plan_problem(Problem.parse(text)).algorithm == "direct", text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ih9_k3_c64", "sums in f32 or f64, not c64"),
        ("ih9_k3_fld:f64:f64:f64", "does not load fld"),
        ("ih9_k3_f64:f64:f16:f64", "does not store f16 from f64"),
        ("ih9_k3_s3_u8:f32:f32:f32", "strides 1 and 2"),
        ("ih9_k3_d2_u8:f32:f32:f32", "dense, not 2 apart"),
        ("ih9_k3_s2_u8:f64:f64:f64_order=raster", "exact orders have stride 1"),
        ("ic3ih9_kh1kw3_f64_order=symmetric", "sums pairs of one channel"),
        ("g3_ic3ih9_oc3k3_sh1sw2_u8:f32:u8:f32_nhwc_saturate_shared", "no column stride"),
        ("ih9_k3_u8:f32:f32:f32_gelu", "does not fuse gelu"),
        ("ih9_k3_u8:f32:u32:f32_saturate", "does not store u32"),
    ],
)
def test_reasons(text, reason):
    assert reason in panel.reject(Problem.parse(text), detect())


def test_nothing_outside_the_result_is_written():
    p = Problem.parse("ih13iw37_k3_p1_u8:f32:u8:f32_saturate")
    src, wei, _ = operands(p)
    memory = np.full((p.oh + 2, p.ow + 2), 9, "u1")
    dst = result_array(p)
    run(p, src, wei, None, "panel", dst=dst)
    run(p, src, wei, None, "panel", dst=memory[None, None, 1:-1, 1:-1])
    assert_same_bits(memory[1:-1, 1:-1].copy(), dst[0, 0])
    memory[1:-1, 1:-1] = 9
    assert (memory == 9).all()
