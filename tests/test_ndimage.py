"""fastconv.ndimage against scipy.ndimage: integers equal, floats within the bound, NaN and inf in SciPy's places.

By default the kernels of bytes and floats are compiled; the problems of other types run on the reference, their kernels with --slow.
"""

import itertools

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv.ndimage
from fastconv.ndimage import calls
from tests.by_reference import by_reference
from tests.oracles import assert_close, scipy_ndimage
from tests.problems import random_array

INTEGERS = ("?", "u1", "i1", "u2", "i2", "i4", "u4", "i8", "u8")
FLOATS = ("f4", "f8")
COMPILED = ("?", "u1", *FLOATS)  # whose kernels the fast tests compile; bool is read as bytes
MODES = ("reflect", "mirror", "nearest", "wrap", "constant", "grid-mirror", "grid-wrap", "grid-constant")
_rng = np.random.default_rng(3)
FRACTIONS, SPARSE = _rng.standard_normal((3, 5)), np.where(_rng.random((5, 4)) < 0.5, 0, _rng.standard_normal((5, 4)))
WHOLE = np.array([[1, -2], [3, 0], [0, 2]])
EVEN, ODD = _rng.standard_normal(6), _rng.standard_normal(7)

# name, arguments, keywords: odd and even sizes, origins, orders of the sums
CALLS = (
    ("correlate", (FRACTIONS,), {}),
    ("correlate", (FRACTIONS,), {"origin": (1, -2)}),
    ("correlate", (SPARSE,), {"origin": -1}),
    ("correlate", (WHOLE,), {}),
    ("convolve", (SPARSE,), {}),
    ("convolve", (WHOLE,), {"origin": (-1, 0)}),
    ("convolve", (WHOLE / 8,), {}),
    ("correlate1d", (ODD,), {}),
    ("correlate1d", (ODD + ODD[::-1],), {"axis": 0, "origin": 2}),
    ("correlate1d", (ODD - ODD[::-1],), {}),
    ("correlate1d", (EVEN,), {"axis": 0}),
    ("correlate1d", ([1, 3],), {"origin": -1}),
    ("convolve1d", (EVEN,), {"origin": -3}),
    ("convolve1d", ([0.3, 0, -0.2],), {"axis": 0}),
    ("gaussian_filter", (1.3,), {}),
    ("gaussian_filter", ((0.8, 2),), {"order": (0, 1)}),
    ("gaussian_filter", (1,), {"order": 2, "radius": 3}),
    ("uniform_filter", (3,), {}),
    ("uniform_filter", ((4, 7),), {"origin": (-2, 3)}),
    ("sobel", (), {}),
    ("sobel", (), {"axis": 0}),
    ("prewitt", (), {}),
    ("laplace", (), {}),
    ("gaussian_laplace", (1.1,), {}),
    ("gaussian_gradient_magnitude", (0.9,), {"truncate": 3}),
)


def named(call):
    return f"{call[0]}-{'-'.join(map(str, call[2].values()))}".rstrip("-")


def bits(array):
    """A bool holds whatever byte was stored in it."""
    return array.view("u1") if array.dtype == np.bool_ else array


def image(dtype, shape=(14, 30)):
    return random_array(np.random.default_rng(5), shape, dtype)


def check(name, x, *args, ours=None, **kw):
    """One call of both libraries."""
    expected, allowed = scipy_ndimage(name, x, *args, **kw)
    with np.errstate(all="ignore"):
        result = getattr(fastconv.ndimage, name)(x, *args, **kw, **(ours or {}))
    assert result.dtype == expected.dtype
    assert_close(bits(result), bits(expected), allowed, f"{name} {x.dtype} {kw}")
    return result


def check_borders(call, dtypes):
    name, args, kw = call
    for dtype, mode in itertools.product(dtypes, MODES):
        check(name, image(dtype), *args, **kw, mode=mode, cval=2.5 if dtype in FLOATS else 3)


@pytest.mark.parametrize("call", CALLS, ids=named)
def test_equal_to_scipy(call):
    check_borders(call, COMPILED)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS, ids=named)
def test_every_type_is_equal_to_scipy(call):
    check_borders(call, INTEGERS)
    for output in ("f4", "u1", "i4"):
        if call[0] != "uniform_filter":
            check(call[0], image("u2"), *call[1], **call[2], output=output)
            check(call[0], image("f4") * 9, *call[1], **call[2], output=output)


@pytest.mark.parametrize("call", CALLS, ids=named)
def test_the_problems_of_integers_are_scipys(call):
    name, args, kw = call
    orderless = any(a is ODD or a is EVEN for a in args)  # SciPy adds the last product of these first
    with by_reference() as patch:
        if not orderless:
            patch.setattr(calls, "_scipys", lambda *_: pytest.fail("left to SciPy"))
        for dtype, mode in itertools.product(INTEGERS, MODES):
            if name != "uniform_filter" or dtype[1:] != "8":  # whose sums may round
                check(name, image(dtype, (7, 9)), *args, **kw, mode=mode, cval=3)
        for output in ("f4", "u1", "u4"):
            if name != "uniform_filter":
                check(name, image("u2", (7, 9)), *args, **kw, output=output)
                check(name, image("f4", (7, 9)) * 9, *args, **kw, output=output)


def check_strict(call):
    name, args, kw = call
    for dtype in FLOATS:
        if name == "uniform_filter":
            check(name, image(dtype), *args, **kw, ours={"precision": "strict"})
        else:
            result = getattr(fastconv.ndimage, name)(image(dtype), *args, **kw, precision="strict")
            assert np.array_equal(result, getattr(scipy.ndimage, name)(image(dtype), *args, **kw))


@pytest.mark.parametrize("call", CALLS, ids=named)
def test_strict_floats_are_equal(call):
    with by_reference():
        check_strict(call)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS, ids=named)
def test_strict_floats_of_compiled_kernels_are_equal(call):
    check_strict(call)


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_are_not_left_to_scipy(dtype, monkeypatch):
    monkeypatch.setattr(calls, "_scipys", lambda *_: pytest.fail("left to SciPy"))
    for name, args, kw in CALLS:
        getattr(fastconv.ndimage, name)(image(dtype, (15, 36)), *args, **kw)
    for name in ("sobel", "prewitt", "laplace"):
        getattr(fastconv.ndimage, name)(image("u1", (15, 36)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("call", [call for call in CALLS if call[0] != "uniform_filter"], ids=named)
def test_nan_and_inf_go_where_scipy_puts_them(call, dtype):
    name, args, kw = call
    x = image(dtype, (23, 38))
    x[3, 4], x[9, 30], x[10, 31], x[-1, 0], x[18, 17] = np.nan, np.inf, -np.inf, np.inf, np.nan
    for mode in ("reflect", "constant", "wrap"):
        check(name, x, *args, **kw, mode=mode)
        with by_reference():
            check(name, x, *args, **kw, mode=mode, ours={"precision": "strict"})
    for cval in (np.nan, np.inf):
        check(name, image(dtype), *args, **kw, mode="constant", cval=cval)
    if name in ("correlate", "convolve") and args[0].dtype.kind == "f":
        with by_reference():
            check(name, np.where(np.isfinite(x), x, 0), *args, **kw, mode="constant", cval=np.nan, output="i4")


def test_every_pixel_nan():
    x = np.full((9, 20), np.nan, "f4")
    for weights in (SPARSE, WHOLE, np.zeros((3, 3))):
        check("correlate", x, weights)


@pytest.mark.parametrize("dtype", FLOATS)
def test_uniform_filter_knows_its_window_only(dtype):
    x = image(dtype, (9, 30))
    clean = fastconv.ndimage.uniform_filter(x, (3, 5))
    x[4, 11] = np.nan
    result = fastconv.ndimage.uniform_filter(x, (3, 5))
    window = np.zeros(x.shape, bool)
    window[3:6, 9:14] = True
    assert np.array_equal(np.isnan(result), window)
    assert np.array_equal(result[~window], clean[~window])


@pytest.mark.parametrize("size", [2, 3, 5, 6, 7, 49, 101])
def test_means_of_integers_are_cut_off_as_quotients(size):
    """Multiples of the size are where a sum that falls short would show."""
    rng = np.random.default_rng(size)
    with by_reference() as patch:
        patch.setattr(calls, "_scipys", lambda *_: pytest.fail("left to SciPy"))
        for dtype in ("u1", "u2", "u4", "i2", "i8", "u8"):
            most = min(np.iinfo(dtype).max, 2**40)
            for x in (rng.integers(most // 2, most, (3, 150), dtype, endpoint=True), np.full((3, 150), most, dtype), np.arange(450) % 250):
                x = x.reshape(3, 150).astype(dtype)
                check("uniform_filter", x, (1, size))
                check("uniform_filter", x, (1, size), mode="constant", cval=7)
    check("uniform_filter", np.full((3, 150), 2**60), (1, size))
    check("uniform_filter", np.full((3, 150), -(2**60)), (1, size))


def test_tiny_taps_count_where_all_are_tiny():
    """SciPy drops taps, and takes halves for equal, by an absolute 2.2e-16."""
    x = np.full((3, 5), 1e18)
    assert np.array_equal(fastconv.ndimage.correlate(x, [[1e-17, 0, 2e-17]]), np.full((3, 5), x[0, 0] * 1e-17 + x[0, 0] * 2e-17))
    assert not scipy.ndimage.correlate(x, [[1e-17, 0, 2e-17]]).any()
    with by_reference():
        line = fastconv.ndimage.correlate1d(x.astype("i8"), [1e-17, 0, -3e-17])
    assert np.array_equal(line, np.full((3, 5), int(x[0, 0] * 1e-17 + x[0, 0] * -3e-17)))
    assert scipy.ndimage.correlate1d(x.astype("i8"), [1e-17, 0, -3e-17])[0, 0] == 20
    with by_reference():
        check("correlate", image("u1"), np.array([[1e-17, 0.7, 1e-300]]))
        check("correlate1d", image("u1"), np.array([0.1, 0.7, 0.1 + 2e-17]))


@pytest.mark.parametrize("taps", [[1e-200, 1], [1e-40, 1, 1e-40], [1e30, -1e30, 1]])
def test_taps_beyond_float32(taps):
    with by_reference():
        check("correlate1d", image("f4"), np.array(taps))
        check("correlate", image("f4"), np.array([taps]))


def test_outer_products_that_vanish_keep_inf():
    x = np.zeros((5, 5))
    x[2, 2] = np.inf
    with by_reference():
        check("gaussian_filter", x, 0.04, radius=1)
        check("gaussian_filter", x.astype("f4"), 0.1, radius=1)


@pytest.mark.parametrize("dtype", FLOATS)
def test_wide_smoothing_of_what_is_not_finite(dtype):
    x = image(dtype, (60, 90))
    x[20, 30], x[40, 70], x[0, 0] = np.nan, np.inf, -np.inf
    check("gaussian_filter", x, (2, 3))
    check("gaussian_filter", x, 2, mode="constant", cval=2.0)
    check("gaussian_laplace", x, 1.5)


def modes_of(ndim):
    return st.one_of(st.sampled_from(MODES), st.lists(st.sampled_from(MODES), min_size=ndim, max_size=ndim))


@st.composite
def any_call(draw):
    """A filter, an array of one to four dimensions in some order of memory, and arguments for it."""
    ndim = draw(st.integers(1, 4))
    shape = draw(st.tuples(*[st.integers(1, (30, 14, 7, 5)[ndim - 1])] * ndim))
    x = random_array(np.random.default_rng(draw(st.integers(0, 9))), shape, draw(st.sampled_from((*INTEGERS, *FLOATS))))
    x = draw(st.sampled_from((x, np.asfortranarray(x), x[::-1], x[..., ::-1], x.astype(x.dtype.newbyteorder()))))
    name = draw(st.sampled_from(fastconv.ndimage.__all__))
    axes = draw(st.none() | st.permutations(range(ndim)).map(lambda p: tuple(p[:2])))
    count = ndim if axes is None else len(axes)
    kw = {"mode": draw(st.sampled_from(MODES)), "cval": draw(st.sampled_from((0.0, 2.0, -1.5)))}
    sizes = draw(st.tuples(*[st.integers(1, 5)] * count))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    weights = draw(st.sampled_from((rng.integers(-4, 5, sizes), rng.standard_normal(sizes), rng.integers(-4, 5, sizes) * 0.1)))
    reach = (min(sizes) - 1) // 2  # SciPy takes origins in the order of axes, but weights in ascending order
    origins = draw(st.tuples(*[st.integers(-reach, reach)] * count))
    if name in ("correlate", "convolve"):
        return name, x, (weights,), {**kw, "axes": axes, "origin": origins}
    if name in ("correlate1d", "convolve1d"):
        return name, x, (weights.reshape(-1)[:7],), {**kw, "axis": draw(st.integers(-ndim, ndim - 1))}
    if name in ("sobel", "prewitt"):
        return name, x, (), {**kw, "axis": draw(st.integers(-ndim, ndim - 1)), "mode": draw(modes_of(ndim))}
    kw |= {"mode": draw(modes_of(count)), "axes": axes}
    if name == "laplace":
        return name, x, (), kw
    if name == "uniform_filter":
        return name, x, (sizes,), {**kw, "origin": origins}
    return name, x, (draw(st.sampled_from((0.6, 1.0, 1.7))),), kw


def check_any(call, output):
    name, x, args, kw = call
    if name == "uniform_filter" and x.dtype.kind == "f" and output not in (None, *FLOATS):
        output = None
    check(name, x, *args, **kw, output=None if output is None else np.dtype(output))


OUTPUTS = st.sampled_from((None, *INTEGERS, *FLOATS))


@settings(max_examples=250, deadline=None)
@given(any_call(), OUTPUTS)
def test_any_call(call, output):
    with by_reference():
        check_any(call, output)


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(any_call(), OUTPUTS)
def test_any_call_of_compiled_kernels(call, output):
    check_any(call, output)


@pytest.mark.parametrize("ndim", [1, 2])
def test_sums_below_the_range_of_uint32_wrap_as_scipys(ndim):
    """Beyond 32 bits, too, where a processor's vectors convert otherwise; on the reference as in the kernel."""
    x = np.full((3, 40), 2**32 - 5, "u4")
    x[1, 7:30] = 11
    weights = np.array([0.25, -1.75, 0.125]) if ndim == 1 else np.array([[0.25, -1.75], [0.125, 0.5]])
    name = "correlate1d" if ndim == 1 else "correlate"
    expected = getattr(scipy.ndimage, name)(x, weights)
    assert np.array_equal(getattr(fastconv.ndimage, name)(x, weights), expected)
    with by_reference():
        assert np.array_equal(getattr(fastconv.ndimage, name)(x, weights), expected)
