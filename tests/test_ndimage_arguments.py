"""fastconv.ndimage's arguments: results into arrays of every kind, SciPy's errors, what is left to SciPy, SciPy's own tests."""

import importlib.util
import re
import sys
import warnings

import numpy as np
import pytest
import scipy.ndimage

import fastconv
import fastconv.ndimage
from fastconv.ndimage import calls
from tests.by_reference import by_reference
from tests.children import command
from tests.oracles import assert_close, assert_same_bits, scipy_ndimage
from tests.problems import random_array

NAMES = fastconv.ndimage.__all__
NEEDED = {"correlate": (np.ones((3, 3)),), "convolve": (np.ones((3, 3)),), "correlate1d": ([1, 2, 4],), "convolve1d": ([1, 2, 4],),
          "gaussian_filter": (1,), "uniform_filter": (3,), "gaussian_laplace": (1,), "gaussian_gradient_magnitude": (1,)}  # fmt: skip


def image(dtype="f4", shape=(12, 30), seed=1):
    return random_array(np.random.default_rng(seed), shape, dtype)


def both(name):
    return getattr(fastconv.ndimage, name), getattr(scipy.ndimage, name)


def raised(function, *args, **kw):
    """What a call raises, or its result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*args, **kw)
        except Exception as error:  # noqa: BLE001 (whatever either raises is compared)
            return error


BAD = (
    {"mode": "bogus"},
    {"mode": 2},
    {"mode": None},
    {"mode": ("reflect",)},
    {"mode": ("reflect", "wrap", "wrap")},
    {"cval": "1"},
    {"cval": None},
    {"cval": 1j, "mode": "constant"},
    {"origin": 2},
    {"origin": -2},
    {"origin": 0.5},
    {"origin": (0, 0, 0)},
    {"axis": 2},
    {"axis": -3},
    {"axis": "x"},
    {"axis": None},
    {"axes": 2},
    {"axes": (0, 0)},
    {"axes": (0, 2)},
    {"axes": "xy"},
    {"axes": 1.5},
    {"axes": ()},
    {"output": np.zeros((3, 3))},
    {"output": "bool"},
    {"output": "nonsense"},
    {"output": [1]},
    {"output": 3},
    {"output": np.float16},
    {"output": object},
    {"weights": np.ones(3)},
    {"weights": np.ones((0, 3))},
    {"weights": np.ones((3, 3, 3))},
    {"weights": []},
    {"weights": 3},
    {"weights": None},
    {"weights": [["a"]]},
    {"weights": [[np.nan, 1.0, 2.0]]},
    {"weights": [1.0, np.inf, 2.0]},
    {"sigma": "a"},
    {"sigma": (1, 2, 3)},
    {"sigma": -1},
    {"sigma": 0},
    {"sigma": np.nan},
    {"sigma": np.inf},
    {"sigma": None},
    {"order": -1},
    {"order": (0, 1, 2)},
    {"order": 0.5},
    {"truncate": "a"},
    {"radius": -1},
    {"radius": 1.5},
    {"radius": (1, 2, 3)},
    {"size": 0},
    {"size": 1},
    {"size": "3"},
    {"size": (3, 3, 3)},
    {"size": 2.7},
    {"size": None},
    {"footprint": 1},
)


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_scipys_answer_to_bad_arguments(bad):
    for name in NAMES:
        (ours, theirs), first = both(name), NEEDED.get(name, ())
        keywords = dict(bad)
        for word in ("weights", "sigma"):
            if word in bad and first:
                first = (keywords.pop(word),)
        for x in (image("f8", (6, 9)), image("u1", (6, 9))):
            expected, result = raised(theirs, x, *first, **keywords), raised(ours, x, *first, **keywords)
            if isinstance(expected, np.ndarray):
                assert_close(result, expected, 1e-13 if expected.dtype.kind == "f" else 0, f"{name} {bad}")
            else:
                assert type(result) is type(expected), (name, bad, expected, result)
                text = str(expected).replace(f"{name}()", "")
                assert str(result).replace(f"{name}()", "") == text, (name, bad)


@pytest.mark.parametrize("dtype", ["f2", "g", "O", "S1", "M8[s]", "c8", "c16", "G"])
def test_scipys_answer_to_other_types(dtype):
    x = np.ones((5, 6)).astype("i8").astype(dtype)
    for name in NAMES:
        ours, theirs = both(name)
        expected, result = raised(theirs, x, *NEEDED.get(name, ())), raised(ours, x, *NEEDED.get(name, ()))
        if isinstance(expected, np.ndarray):
            assert_same_bits(result, expected)
        else:
            assert (type(result), str(result)) == (type(expected), str(expected))


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (2, 0, 3), (1, 1), (1, 7), (7, 1), (1,)])
def test_empty_and_thin_arrays(shape):
    for name in NAMES:
        ours, theirs = both(name)
        for mode in ("reflect", "mirror", "wrap", "constant"):
            x, first = np.ones(shape), NEEDED.get(name, ())
            if name in ("correlate", "convolve"):
                first = (np.ones((3,) * len(shape)),)
            expected, result = raised(theirs, x, *first, mode=mode), raised(ours, x, *first, mode=mode)
            if isinstance(expected, Exception):
                assert (type(result), str(result)) == (type(expected), str(expected))
            else:
                assert_close(result, expected, 1e-13, f"{name} {mode}")


def places(shape, dtype):
    """Arrays that can hold a result, each with what it is called."""
    wide = np.zeros((*shape[:-1], 2 * shape[-1]), dtype)
    raw = np.zeros(int(np.prod(shape)) * np.dtype(dtype).itemsize + 1, "u1")[1:]
    return {
        "plain": np.zeros(shape, dtype),
        "fortran": np.zeros(shape, dtype, order="F"),
        "rows": np.zeros((2 * shape[0], *shape[1:]), dtype)[::2],
        "columns": wide[..., ::2],
        "reversed": np.zeros(shape, dtype)[::-1, ::-1],
        "swapped": np.zeros(shape, np.dtype(dtype).newbyteorder()),
        "misaligned": raw.view(dtype).reshape(shape),
        "masked": np.ma.masked_array(np.zeros(shape, dtype), mask=True),
    }


@pytest.mark.parametrize("dtype", ["f4", "u1", "?"])
@pytest.mark.parametrize("name", NAMES)
def test_output_arrays(name, dtype):
    x, first = image(dtype), NEEDED.get(name, ())
    ours, _ = both(name)
    expected, allowed = scipy_ndimage(name, x, *first)
    expected = expected.view("u1") if dtype == "?" else expected
    for what, place in places(x.shape, dtype).items():
        for _ in range(2):  # the second call is remembered
            place[...] = 0
            with np.errstate(invalid="ignore"):
                result = ours(x, *first, output=place)
            assert result is place or (what == "masked" and np.shares_memory(result, place))
            held = np.asarray(place)
            assert_close(held.view("u1") if dtype == "?" else held.astype(dtype), expected, allowed, what)


@pytest.mark.parametrize("name", NAMES)
def test_output_may_share_memory_with_the_input(name):
    for dtype in ("f4", "u1"):
        x, first = image(dtype), NEEDED.get(name, ())
        expected, allowed = scipy_ndimage(name, x, *first)
        for shifted in (0, 1):
            memory = np.zeros((x.shape[0] + 1, x.shape[1]), dtype)
            source, place = memory[: x.shape[0]], memory[shifted : x.shape[0] + shifted]
            source[...] = x
            assert_close(both(name)[0](source, *first, output=place), expected, allowed, name)
            source[...] = x
            assert_close(both(name)[0](source, *first, output=place), expected, allowed, name)


def test_output_types():
    x = image("u1")
    for output in (np.float32, float, "f8", np.dtype(">f4"), np.int16, "uint16", np.uint8):
        expected, _ = scipy_ndimage("gaussian_filter", x, 1, output=output)
        with by_reference():
            result = fastconv.ndimage.gaussian_filter(x, 1, output=output)
        assert result.dtype == expected.dtype
        assert np.array_equal(result, expected)


@pytest.mark.parametrize("name", NAMES)
def test_output_that_cannot_be_written(name):
    x, (ours, theirs), first = image(), both(name), NEEDED.get(name, ())
    ours(x, *first, output=np.empty_like(x))
    locked = np.full_like(x, 7)
    locked.flags.writeable = False
    for place in (locked, np.empty((12, 29), "f4"), np.empty((30, 12), "f4").T[:, :-1]):
        expected, result = raised(theirs, x, *first, output=place), raised(ours, x, *first, output=place)
        assert (type(result), str(result)) == (type(expected), str(expected))
    assert (locked == 7).all()


def test_a_call_that_raises_leaves_output_untouched():
    x = image()
    for kw in ({"mode": ("reflect", "bogus")}, {"radius": (1, -1)}):
        place = np.full_like(x, 7)
        with pytest.raises((RuntimeError, ValueError)):
            fastconv.ndimage.gaussian_filter(x, 1, output=place, **kw)
        assert (place == 7).all()


@pytest.mark.parametrize("dtype", ["f4", "u1"])
def test_inputs_of_every_kind(dtype, tmp_path):
    x = image(dtype)
    mapped = np.memmap(tmp_path / "image", dtype, "w+", shape=x.shape)
    mapped[...] = x
    locked = x.copy()
    locked.flags.writeable = False
    wide = np.zeros((12, 60), dtype)
    wide[:, ::2] = x
    odd = np.zeros(x.nbytes + 1, "u1")[1:].view(dtype).reshape(x.shape)
    odd[...] = x
    kinds = (np.asfortranarray(x), wide[:, ::2], x[::-1, ::-1].copy()[::-1, ::-1], x.astype(x.dtype.newbyteorder()), mapped, locked, odd,
             np.ma.masked_array(x, mask=x > 0), x.tolist() if dtype == "f4" else x.copy())  # fmt: skip
    for name in NAMES:
        first = NEEDED.get(name, ())
        for kind in kinds:
            expected, allowed = scipy_ndimage(name, kind, *first)
            assert_close(both(name)[0](kind, *first), expected, allowed, name)


@pytest.mark.parametrize("cval", [2.5, -1, 300])
def test_a_border_that_the_image_cannot_hold(cval):
    """Whatever is converted on the way to a kernel, the border's pixels are not cast to the image's type."""
    x, place = image("u1"), np.empty((12, 60), "u1")[:, ::2]
    for source in (x, x[:, ::-1], np.asfortranarray(x)):
        expected, allowed = scipy_ndimage("correlate", source, np.array([[3, 1]]), mode="constant", cval=cval)
        for output in (None, place):
            result = fastconv.ndimage.correlate(source, np.array([[3, 1]]), output, mode="constant", cval=cval)
            assert_close(result, expected, allowed, str(cval))
    wide = image("f4", (12, 60))[:, ::2]
    expected, allowed = scipy_ndimage("sobel", wide, mode="constant", cval=cval / 7, output="f8")
    assert_close(fastconv.ndimage.sobel(wide, mode="constant", cval=cval / 7, output="f8"), expected, allowed, str(cval))
    large = image("f4", (70, 90))
    expected, allowed = scipy_ndimage("gaussian_filter", large, 3, mode="constant", cval=cval / 7, output="f8")
    assert_close(fastconv.ndimage.gaussian_filter(large, 3, mode="constant", cval=cval / 7, output="f8"), expected, allowed, str(cval))


DEEP = [((3, 4, 9, 11), (1, 3)), ((3, 9, 4, 11), (-1, 1)), ((2, 9, 20, 3), (1, 2)), ((8, 20, 3), (1, 0)), ((5, 30, 40), (1,)),
        ((5, 6, 30, 2), 2), ((4, 5, 6, 7), (0, 3)), ((3, 4, 5, 6), (0, 2))]  # fmt: skip


@pytest.mark.parametrize(("shape", "axes"), DEEP)
def test_planes_of_arrays_of_more_dimensions(shape, axes):
    for dtype in ("f4", "u1"):
        x = image(dtype, shape)
        for name in ("gaussian_filter", "uniform_filter", "laplace", "gaussian_laplace"):
            expected, allowed = scipy_ndimage(name, x, *NEEDED.get(name, ()), axes=np.atleast_1d(axes))
            assert_close(both(name)[0](x, *NEEDED.get(name, ()), axes=axes), expected, allowed, name)
            place = np.empty((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]
            assert_close(both(name)[0](x, *NEEDED.get(name, ()), axes=axes, output=place), expected, allowed, name)
        weights = np.arange(6.0).reshape(2, 3)[: None if np.ndim(axes) and len(axes) == 2 else 1]
        if np.ndim(axes) == 0 or len(axes) == 1:
            weights = weights[0]
        expected, allowed = scipy_ndimage("correlate", x, weights, axes=axes)
        assert_close(fastconv.ndimage.correlate(x, weights, axes=axes), expected, allowed, f"correlate {dtype}")


def test_three_long_axes_are_left_to_scipy():
    x, weights = image("f8", (5, 6, 7)), np.arange(18.0).reshape(3, 2, 3)
    assert_same_bits(fastconv.ndimage.correlate(x, weights), scipy.ndimage.correlate(x, weights))
    with pytest.raises(ValueError, match="algorithm must be None for what is left to SciPy's own correlate, got 'direct'"):
        fastconv.ndimage.correlate(x, weights, algorithm="direct")


def test_the_tail_is_checked():
    x = image()
    for name in NAMES:
        for tail, error, text in (
            ({"precision": "exact"}, ValueError, "precision must be one of"),
            ({"threads": 0}, ValueError, "threads must be at least 1"),
            ({"device": "tpu"}, ValueError, "device must be None, 'cpu' or 'cuda', got 'tpu'"),
            ({"algorithm": "magic"}, ValueError, "algorithm must be None or one of"),
        ):
            with pytest.raises(error, match=text):
                both(name)[0](x, *NEEDED.get(name, ()), **tail)
    assert_close(fastconv.ndimage.sobel(x, algorithm="reference"), *scipy_ndimage("sobel", x))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("sobel", "prewitt")])  # which filter along all axes
def test_same_bits_from_any_number_of_threads_and_in_any_batch(name):
    for dtype in ("f4", "u1"):
        x, first = image(dtype, (3, 70, 90)), NEEDED.get(name, ())
        kw = {} if name in ("correlate1d", "convolve1d") else {"axes": (1, 2)}
        inner = first
        if name == "gaussian_gradient_magnitude":
            first = ((0, 1, 1),)
        whole = both(name)[0](x, *first, threads=2, **kw)
        for i in range(3):
            assert_same_bits(both(name)[0](x[i], *inner, threads=1), whole[i])


def test_remembered_calls_know_their_arguments_apart():
    x = image("f8")
    for _ in range(2):
        for cval in (0.0, 1, 1.0, True, -2.5):
            expected, allowed = scipy_ndimage("correlate", x, np.ones((3, 3)), mode="constant", cval=cval)
            assert_close(fastconv.ndimage.correlate(x, np.ones((3, 3)), mode="constant", cval=cval), expected, allowed)
        for weights in (np.ones((1, 3)), np.ones((3, 1)), np.ones((3, 1), "i8"), 2 * np.ones((3, 1)), np.ones((50, 40))):
            expected, allowed = scipy_ndimage("correlate", x, weights)
            assert_close(fastconv.ndimage.correlate(x, weights), expected, allowed)
        for sigma in ([1, 2], (2, 1), np.array([1, 2]), 1, 1.5):
            expected, allowed = scipy_ndimage("gaussian_filter", x, sigma)
            assert_close(fastconv.ndimage.gaussian_filter(x, sigma), expected, allowed)
    assert 0 < len(calls._calls) <= calls._calls.most


def test_a_patched_scipy_does_not_call_itself(monkeypatch):
    for name in NAMES:
        monkeypatch.setattr(scipy.ndimage, name, getattr(fastconv.ndimage, name))
    assert np.array_equal(scipy.ndimage.correlate(np.ones((3, 3), complex), np.ones((1, 1))), np.ones((3, 3)))
    assert scipy.ndimage.gaussian_filter(np.array(5.0), 1) == 5


def test_importing_it_imports_neither_numba_nor_scipy():
    code = "import sys, fastconv.ndimage; sys.exit(any(m.split('.')[0] in ('numba', 'scipy') for m in sys.modules))"
    command([sys.executable, "-c", code])


# A pytest plugin: replaces the functions before SciPy's test module is imported, since its tables of cases hold them.  Integer
# problems run on the reference: their many pairs of types would be as many kernels to compile.
PLUGIN = """
import functools
import fastconv.ndimage, scipy.ndimage
from fastconv.ndimage import passes
from tests.by_reference import planned
from scipy._lib._array_api import xp_capabilities_table as capabilities

counts = {"passed": 0, "others": 0} | dict.fromkeys(fastconv.ndimage.__all__, 0)

def counted(name):
    function, original = getattr(fastconv.ndimage, name), getattr(scipy.ndimage, name)
    @functools.wraps(original)
    def call(*arguments, **keywords):
        counts[name] += 1
        return function(*arguments, **keywords)
    if original in capabilities:
        capabilities[call] = capabilities[original]
    return call

for name in fastconv.ndimage.__all__:
    setattr(scipy.ndimage, name, counted(name))

passes.plan_problem, passes.as_scipy = planned, lambda *_: False

def pytest_runtest_logreport(report):
    if report.when == "call":
        counts["passed" if report.passed else "others"] += not report.skipped

def pytest_terminal_summary(terminalreporter):
    terminalreporter.line("counted " + " ".join(f"{name}={count}" for name, count in counts.items()))
"""
CHOSEN = ("correlate or convolve or gauss or uniform0 or sobel or prewitt or laplace or extend or (filter_ and axes) or mismatch "
          "or invalid or origins")  # fmt: skip
# gauss03 wants float32 sums that only float64 gives: with precision="strict" it passes; complex numbers are left to SciPy
LEFT_OUT = "gauss03 or complex"


def test_scipys_own_tests(tmp_path):
    spec = importlib.util.find_spec("scipy.ndimage.tests.test_filters")
    if spec is None or importlib.util.find_spec("scipy._lib._array_api").origin is None:
        pytest.skip("SciPy is installed without its tests")
    (tmp_path / "fastconv_in_scipy.py").write_text(PLUGIN)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ["-q", "--noconftest", "-p", "fastconv_in_scipy", "-p", "scipy.conftest", "-p", "no:cacheprovider", spec.origin,
               "-c", str(tmp_path / "pytest.ini"), "--rootdir", str(tmp_path), "-k", f"({CHOSEN}) and not ({LEFT_OUT})"]  # fmt: skip
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import pytest; sys.exit(pytest.main({options!r}))"
    done = command([sys.executable, "-c", code], check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-6000:]
    counts = {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", re.search(r"^counted (.*)$", output, re.M)[1])}
    assert counts["passed"] >= 500
    assert counts["others"] == 0
    assert min(counts[name] for name in NAMES) >= 30
