"""Large kernels by transforms: passes, frames, error, what a transform cannot do, memory."""

import functools
import itertools
import time

import numpy as np
import pytest
import scipy.fft

import fastconv
from fastconv.cpu import fft, fft_frame, fft_phases, fft_repair, threads
from fastconv.cpu.fft_frame import Axis, Frame, factors, smooth
from fastconv.cpu.target import TARGETS, detect
from fastconv.planning import cost
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import BORDERS, DTYPES, Problem
from tests.oracles import assert_close, assert_same_bits, assert_within, bound, stored, truth, unit
from tests.problems import operands, result_array, run, typed

FLOATS = ("f32", "f64")


def whole(extent):
    return Axis(extent, 1, 1, 1, 0, 0, False)


@functools.cache
def order(radices, n):
    """Which frequency lies at each place after passes of these radices."""
    if not radices:
        return [0]
    return [q + radices[0] * f for q in range(radices[0]) for f in order(radices[1:], n // radices[0])]


def spectrum(ny, nx, dtype, monkeypatch):
    """The packed spectrum of random weights of this size, in natural order, and NumPy's."""
    monkeypatch.setattr(fft, "_chosen", lambda p, t: (1e-5, Frame(whole(ny), whole(nx))))
    p = typed(Problem(ih=ny, iw=nx, kh=ny, kw=nx), dtype)
    transform = fft._Transform(p, detect(), 1)
    lanes, m = transform.lanes, ny // 2
    wei = operands(p)[1]
    packed = transform.pack(p, wei).reshape(-1)
    groups = packed[fft.HEAD : transform.wo].reshape(m // lanes, -1)[:, : 2 * nx * lanes].reshape(m // lanes, nx, 2, lanes)
    parts = groups.transpose(0, 3, 1, 2).reshape(m, nx, 2).astype(np.float64)
    found = np.empty((m, nx), complex)
    found[np.ix_(order(factors(m), m), order(factors(nx), nx))] = parts[..., 0] + 1j * parts[..., 1]
    exact = wei[0, 0].astype(np.float64)
    folded = (exact[:m] + 1j * exact[m:]) * np.exp(1j * np.pi * np.arange(m) / ny)[:, None]
    scale = np.abs(found).max() / np.abs(np.fft.fft2(folded)).max()
    return found, np.fft.fft2(folded) * 2.0 ** np.rint(np.log2(scale)), unit(wei.dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_transforms_are_those_of_numpy(axis, dtype, monkeypatch):
    lanes = detect().lanes(4 if dtype == "f32" else 8)
    for size in smooth(lanes, 512 if dtype == "f32" else 256, lanes):
        ny, nx = (2 * size, lanes) if axis == "rows" else (2 * lanes, size)
        found, expected, u = spectrum(ny, nx, dtype, monkeypatch)
        relative = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert relative < 2 * u * np.log2(ny * nx), (size, relative / u)


def test_sizes_have_small_factors():
    for n in smooth(1, 5000, 1):
        assert np.prod(factors(n), dtype=int) == n
    assert factors(7) is factors(22) is factors(128 * 49) is None
    assert smooth(90, 200, 16) == [96, 128, 144, 160, 192]


# every border, kernels even, odd, flat and larger than the image, one frame and many, images of the batch and channels
PROBLEMS = (
    *(f"ih{ih}iw{iw}_kh{kh}kw{kw}_pt{kh // 2}pb{(kh - 1) // 2}pl{kw // 2}pr{(kw - 1) // 2}_{border}"
      for border, (ih, iw, kh, kw) in itertools.product(BORDERS, ((70, 101, 21, 16), (9, 200, 30, 45)))),
    *(f"ih61iw50_kh61kw50_pt60pb60pl49pr49_{border}" for border in BORDERS),
    "ih170iw130_k21", "ih300iw40_kh33kw1", "ih40iw300_kh1kw70_pl20pr3", "ih90_k90", "ih100iw90_kh5kw90_pt4pb1pl89pr30",
    "ih31iw33_k29_pt40pb3pl0pr35", "n3_g2_ic2ih90iw70_oc4k25_p12_bias+relu", "ih120iw130_k40_p20_symmetric_bias+leaky-relu:0.1",
    "ih1iw1_k31_p15", "ih3iw2_k31_p30_reflect",
)  # fmt: skip


@pytest.mark.parametrize(("text", "dtype"), [*((text, "f32") for text in PROBLEMS), *((text, "f64") for text in PROBLEMS[::4])])
def test_within_the_bound_whatever_the_frames(text, dtype, exercised, monkeypatch):
    p = typed(Problem.parse(text), dtype)
    src, wei, bias = operands(p)
    fill = 3 if p.border == "constant" else 0
    result = run(p, src, wei, bias, "fft", fill=fill)
    assert_within(result, p, truth(p, src, wei, bias, fill), "fft")
    exercised("fft", str(p))
    assert_same_bits(run(p, src, wei, bias, "fft", 3, fill=fill), result, "3 threads")
    # frames shared by the threads, and not
    for least in (0, 1 << 40):
        monkeypatch.setattr(cost, "FFT_LEAST_SHARED", least)
        monkeypatch.setattr(cost, "FFT_MOST_OWN", least)
        plan = fft.build(p, detect(), plan_problem, 2)
        assert plan.kernel.endswith("_shared") == (not least)
        dst = result_array(p)
        plan.run(src, plan.pack(wei), bias, dst, fill)
        assert_same_bits(dst, result, plan.kernel)


def error(p, seed=0):
    """The largest error in units of u max|x| sum|w|."""
    src, wei, _ = operands(p, seed=seed)
    exact = truth(p, src, wei)
    return float((np.abs(run(p, src, wei, algorithm="fft") - exact.value) / (unit(src.dtype) * exact.scale)).max())


@pytest.mark.parametrize("dtype", FLOATS)
def test_error_stays_far_below_what_is_stated(dtype):
    """The stated constant is for every input; random ones, constant ones and those of one tap stay below half of it."""
    for text in ("ih40_k3", "ih150_k9_p4", "ih120_k33", "ih33iw200_kh3kw65"):
        assert error(typed(Problem.parse(text), dtype)) < fft_repair.MOST_ERROR / 2
    p = typed(Problem.parse("ih100_k21"), dtype)
    ones, one = np.ones((1, 1, 100, 100)), np.zeros((1, 1, 21, 21))
    one[..., 7, 19] = 1
    signs = ones - 2 * (np.indices((100, 100)).sum(0) % 2)
    rng = np.random.default_rng(0)
    for src, wei in ((ones, ones[..., :21, :21]), (ones, one), (rng.choice([-1, 1], ones.shape), one), (signs, one)):
        src, wei = (x.astype(operands(p)[0].dtype) for x in (src, wei))
        exact = truth(p, src, wei)
        assert (np.abs(run(p, src, wei, algorithm="fft") - exact.value) <= bound(p, exact, "fft") / 2).all()


def test_where_the_image_is_zero_so_is_the_result():
    p = Problem.parse("ih900_k15_p7")
    frame = fft._chosen(p, detect())[1]
    assert frame.y.blocks > 2
    src, wei, _ = operands(p)
    src[..., 60:, :] = 0
    result = run(p, src, wei, algorithm="fft")
    assert (result[..., frame.y.step * -(-67 // frame.y.step) :, :] == 0).all()
    assert (run(p, src * 0, wei, algorithm="fft") == 0).all()
    assert (run(p, src, wei * 0, algorithm="fft") == 0).all()


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("many", [1, 3, 400])
def test_what_is_not_finite_has_the_places_of_the_formula(many, border):
    """Alone, together, and so often that direct sums are quicker; under zero weights and in the border's copies."""
    p = Problem(ih=90, iw=110, kh=17, kw=20, pt=16, pb=16, pl=19, pr=19, border=border)
    src, wei, _ = operands(p)
    wei[..., 5, :3] = 0
    rng = np.random.default_rng(many)
    for value in (np.nan, np.inf, -np.inf):
        src[0, 0, rng.integers(0, p.ih, many), rng.integers(0, p.iw, many)] = value
    src[0, 0, 0, :2] = np.inf, -np.inf
    assert_within(run(p, src, wei, algorithm="fft"), p, truth(p, src, wei), "fft")
    assert_same_bits(run(p, src, wei, algorithm="fft", threads=2), run(p, src, wei, algorithm="fft"))


@pytest.mark.parametrize("border", BORDERS)
def test_many_nan_are_counted(border, monkeypatch):
    """As astronomers' images have them."""
    p = Problem(ih=400, iw=380, kh=150, kw=130, pt=149, pb=149, pl=129, pr=129, border=border)
    src, wei, _ = operands(p)
    src[0, 0, 200:230, 200:220] = np.nan
    src[0, 0, 300, 320] = -np.inf
    monkeypatch.setattr(fft_repair, "_holds", lambda *a, holds=fft_repair._holds: counted.append(holds(*a)) or counted[-1])
    counted = []
    result = run(p, src, wei, algorithm="fft")
    marks = [np.pad(found(src[0, 0]), ((149, 149), (129, 129)), mode=border) for found in (np.isnan, np.isinf)]
    sums = [np.pad(mark.astype("i8").cumsum(0).cumsum(1), ((1, 0), (1, 0))) for mark in marks]
    nan, inf = (s[150:, 130:] - s[:-150, 130:] - s[150:, :-130] + s[:-150, :-130] > 0 for s in sums)
    assert len(counted) == 1
    assert np.array_equal(np.isnan(result[0, 0]) & ~inf, nan & ~inf)
    assert np.isnan(result[0, 0][nan]).all()
    assert not np.isfinite(result[0, 0][inf]).any()
    assert np.isinf(result).sum() > 1000


@pytest.mark.parametrize("dtype", FLOATS)
def test_magnitudes_that_transforms_do_not_stand(dtype):
    p = typed(Problem.parse("n2_ih60_k17_p8_bias"), dtype)
    limits = np.finfo(operands(p)[0].dtype)
    for pixel, weight in ((limits.max / 2, limits.eps), (limits.tiny, 1), (1, limits.tiny), (limits.max / 4, limits.tiny),
                          (limits.smallest_subnormal * 100, 1), (1, limits.max / 1000)):  # fmt: skip
        src, wei, bias = operands(p)
        src, wei = np.sign(src) * src.dtype.type(pixel), np.sign(wei) * wei.dtype.type(weight)
        src[1] /= src.dtype.type(pixel)  # the other image is as ever
        for fill in (0, limits.max / 1e9):
            exact = truth(p, src, wei, bias, fill)
            if (np.abs(exact.value) < limits.max).all():
                allowed = np.maximum(bound(p, exact, "fft"), bound(p, exact, "direct"))
                assert_close(run(p, src, wei, bias, "fft", fill=fill), stored(p, exact), allowed, f"{pixel} {weight} {fill}")


def test_other_types_and_strides_are_read_a_row_of_frames_at_a_time():
    for border, types in itertools.product(("constant", "wrap"), (("u8", "f32", "f32", "f32"), ("f16", "f16", "f16", "f32"), ("f32",) * 4)):
        p = Problem(g=2, ic=2, ih=300, iw=120, oc=4, kh=31, kw=18, pt=15, pb=15, pl=9, pr=8, border=border)
        p = p.replace(**dict(zip(("src", "wei", "dst", "acc"), types, strict=True)))
        src, wei, _ = operands(p.replace(src_layout="nhwc"))
        dst = result_array(p.replace(src_layout="nhwc"))
        run(p, src, wei, algorithm="fft", fill=2, dst=dst, threads=2)
        assert_within(dst, p, truth(p, src, wei, fill=2), "fft")
        if types[0] == types[3]:
            dense = run(p, np.ascontiguousarray(src), wei, algorithm="fft", fill=2)
            assert_same_bits(np.ascontiguousarray(dst), dense)


@pytest.mark.parametrize(("text", "count"), [("ih300_k31_p15", 1), ("ih300_k31_p15", 2), ("ih400_k400_p399", 2), ("n4_ih100_k17", 2)])
def test_the_plan_states_what_is_allocated(text, count, monkeypatch):
    p = Problem.parse(text)
    plan = plan_problem(p, threads=count, algorithm="fft")
    src, wei, _ = operands(p)
    packed, dst = plan.pack(wei), result_array(p)
    taken = []

    class Counting(threads.Workspaces):
        def take(self, size):
            taken.append(size)
            return super().take(size)

    counting = Counting()
    monkeypatch.setattr(threads, "workspaces", counting)
    monkeypatch.setattr(fft_phases, "workspaces", counting)
    plan.run(src, packed, None, dst)
    assert plan.workspace <= sum(set(taken)) <= plan.workspace + 2 * threads._HEAD_BYTES
    assert f"workspace={plan.workspace}" in str(plan)


@pytest.mark.parametrize("types", ["u8:u8:u8:u8", "u8:i8:i32:i32", "i16:i16:i64:i64", "u16:u16:u16:u16", "u8:u8:u64:u64"])
def test_sums_of_integers_are_exact_and_wrap(types):
    for text in ("ih90iw70_k21_p20", "ih50iw120_k25_p12_reflect"):
        p = Problem.parse(f"{text}_{types}")
        src, wei, _ = operands(p)
        src[..., :30, :] = np.iinfo(src.dtype).max
        wei[..., :9] = np.iinfo(wei.dtype).max
        for fill in (0, 7, min(np.iinfo(DTYPES[p.acc]).max, 2**40)) if p.border == "constant" else (0,):
            exact = truth(p, src, wei, fill=fill)
            assert_close(run(p, src, wei, algorithm="fft", fill=fill, threads=2), stored(p, exact), 0, f"{p} {fill}")
    for refused in ("ih90_k9_i32", "ih90_k9_u8:f32:i32:i32", "ih90_k9_u16_bias", "ih90_k9_b8"):
        assert fft.reject(Problem.parse(refused), detect())


@pytest.mark.parametrize("text", ["g2_ic2ih100iw130_oc4k41_p20_c64_bias", "n2_ih70iw90_k50_p49_c64", "ih80_k35_wrap_p20_c128"])
def test_large_complex_kernels_are_transformed(text):
    p = Problem.parse(text)
    plan = plan_problem(p)
    assert plan.kernel == "parts"
    assert plan.children[0].algorithm == "fft"
    src, wei, bias = operands(p)
    fill = 2 - 3j if p.border == "constant" else 0
    exact = truth(p, src, wei, bias, fill)
    allowed = 4 * fft_repair.MOST_ERROR * unit(src.dtype) * exact.scale
    result = run(p, src, wei, bias, fill=fill)
    assert_close(result, exact.value, allowed, text)
    assert_same_bits(run(p, src, wei, bias, fill=fill, threads=2), result)
    src[0, 0, 40, 50:52] = np.nan, np.inf
    assert_close(run(p, src, wei, bias, fill=fill).real, truth(p, src, wei, bias, fill).value.real, allowed, text)


def test_spectra_are_bounded():
    for target in TARGETS:
        for text in ("ih4096_k4096_p4095", "ih20000_k63_p31", "ih20000_k9000"):
            plan = fft.build(Problem.parse(text), target, plan_problem, 2)
            assert plan.workspace < cost.MOST_SPECTRUM + (64 << 20), plan
    assert "spectra of more than" in fft.reject(Problem.parse("ih60000_k40000_f64"), detect())


def test_a_named_fft_runs_or_says_why_not():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((40, 50)).astype("f4"), rng.standard_normal((3, 3)).astype("f4")
    assert_close(fastconv.correlate2d(x, w, algorithm="fft"), fastconv.correlate2d(x, w, algorithm="direct"), 1e-5)
    for keywords, reason in (({"precision": "strict"}, "strict"), ({"stride": 2}, "strides"), ({"dtype": "i8"}, "not i64 of f32")):
        with pytest.raises(ValueError, match=f"algorithm 'fft' cannot run .*{reason}"):
            fastconv.correlate2d(x, w, algorithm="fft", **keywords)


def test_the_plan_tells_frames_and_the_fallback():
    plan = plan_problem(Problem.parse("ih512_k31_p15"), algorithm="fft", threads=2)
    frame = fft._chosen(plan.problem, detect())[1]
    assert f"{frame.y.blocks}x{frame.x.blocks}_frames_of_{frame.y.frame}x{frame.x.frame}" in plan.kernel
    assert plan.children[0].problem.precision == "strict"
    assert plan.children[0].algorithm != "fft"


def test_frames_cover_every_result():
    """And choices are the cheapest of few."""
    for extent, taps, border in itertools.product((1, 40, 1000, 5000), (1, 7, 64, 1000), BORDERS):
        for before, after in ((0, 0), (taps // 2, taps - 1 - taps // 2), (taps - 1, taps - 1), (3 * taps, 1)):
            if extent + before + after < taps:
                continue
            axes = fft_frame._axes(extent, taps, before, after, border, 16)
            assert 1 <= len(axes) < 80
            for axis in axes:
                assert axis.blocks * axis.step >= axis.out > (axis.blocks - 1) * axis.step
                assert axis.frame % 16 == 0
                assert factors(axis.frame)
                assert axis.frame >= (extent + taps - 1 if axis.whole else axis.step + taps - 1)


@pytest.mark.parametrize("text", ["ih40_k40_p39", "ih80_k80_p79", "ih30iw36_kh30kw36_pt15pb14pl18pr17_f64"])
def test_an_image_with_itself_has_the_same_bits_transformed_once_or_twice(text, monkeypatch):
    p = Problem.parse(text)
    src = operands(p)[0]
    seen = []
    monkeypatch.setattr(fft, "_same", lambda *a, found=fft._same: seen.append(found(*a)) or seen[-1])
    result = run(p, src, src, algorithm="fft")
    assert seen.pop() is not None
    assert_within(result, p, truth(p, src, src), "fft")
    monkeypatch.setattr(fft, "_same", lambda *a: None)
    assert_same_bits(result, run(p, src, src, algorithm="fft"))
    assert_same_bits(result, run(p, src, src, algorithm="fft", threads=2))


@pytest.mark.slow
@pytest.mark.parametrize("boundary", ["fill", "wrap", "symm"])
def test_an_image_of_4096_with_itself(boundary):
    """SciPy's correlate2d does not end here."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4096, 4096)).astype("f4")
    start = time.perf_counter()
    result = fastconv.correlate2d(x, x, "full", boundary)
    print(f"{boundary}: {time.perf_counter() - start:.2f} s")
    wide = np.pad(x.astype("f8"), 4095, mode={"fill": "constant", "wrap": "wrap", "symm": "symmetric"}[boundary])
    size = scipy.fft.next_fast_len(len(wide), real=True)
    with scipy.fft.set_workers(2):
        product = scipy.fft.rfft2(wide, (size, size))
        del wide
        product *= scipy.fft.rfft2(x.astype("f8"), (size, size)).conj()
        expected = scipy.fft.irfft2(product, (size, size), overwrite_x=True)[:8191, :8191]
    allowed = fft_repair.MOST_ERROR * unit("f4") * np.abs(x).max() * np.abs(x).sum(dtype="f8")
    assert np.abs(result - expected).max() < allowed
