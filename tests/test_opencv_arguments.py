"""fastconv.opencv's arguments: positions, constants, dst, what is refused and in which words; NaN; what is remembered."""

import inspect
import itertools
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import opencv
from fastconv.opencv import calls
from fastconv.planning.problem import Problem
from tests.children import child
from tests.oracles import assert_same_bits
from tests.problems import random_array

FILTERS = ("filter2D", "sepFilter2D", "boxFilter", "blur", "GaussianBlur", "Sobel", "Scharr", "Laplacian")
TAIL = ["precision", "threads", "device", "algorithm"]
ONES = np.ones((3, 3), np.float32)
# one call of each filter that accepts any image
CALLS = {
    "filter2D": (-1, ONES), "sepFilter2D": (-1, ONES[0], ONES[0]), "boxFilter": (-1, (3, 2)), "blur": ((2, 3),),
    "GaussianBlur": ((3, 5), 1.1), "Sobel": (-1, 1, 0), "Scharr": (-1, 0, 1), "Laplacian": (-1,),
}  # fmt: skip


def image(shape=(9, 12), dtype="u1"):
    return random_array(np.random.default_rng(5), shape, dtype)


def test_constants_are_opencvs():
    names = [name for name in opencv.__all__ if name.isupper()]
    assert len(names) == 21
    assert {name: getattr(opencv, name) for name in names} == {name: getattr(cv2, name) for name in names}


@pytest.mark.parametrize("name", FILTERS)
def test_arguments_stand_where_opencvs_stand(name):
    line = getattr(cv2, name).__doc__.splitlines()[0]
    theirs = line[line.index("(") + 1 : line.index(")")].replace("[", "").replace("]", "").replace(" ", "").split(",")
    parameters = inspect.signature(getattr(opencv, name)).parameters
    assert list(parameters) == theirs + TAIL
    assert [p.kind is p.KEYWORD_ONLY for p in parameters.values()] == [False] * len(theirs) + [True] * 4


def test_every_argument_by_position():
    src, dst = image(), np.empty((9, 12), np.int16)
    for name, arguments in {
        "filter2D": (3, ONES, dst, (0, 1), 2.0, 1), "sepFilter2D": (3, ONES[0], ONES[0], dst, (2, 1), 1.0, 0),
        "boxFilter": (3, (3, 3), dst, (0, 0), False, 2), "Sobel": (3, 0, 1, dst, 5, 2.0, 1.0, 1),
        "Scharr": (3, 0, 1, dst, 2.0, 1.0, 0), "Laplacian": (3, dst, 3, 2.0, 1.0, 2),
    }.items():  # fmt: skip
        expected = getattr(cv2, name)(src, *arguments).copy()
        assert getattr(opencv, name)(src, *arguments) is dst
        assert_same_bits(dst, expected, name)
    own = np.empty_like(src)
    assert_same_bits(opencv.blur(src, (5, 3), own, (4, 0), 0), cv2.blur(src, (5, 3), own, (4, 0), 0))
    assert_same_bits(opencv.GaussianBlur(src, (5, 3), 2.0, own, 1.0, 1, 0), cv2.GaussianBlur(src, (5, 3), 2.0, own, 1.0, 1, 0))


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("shape", [(9, 12), pytest.param((9, 12, 1), marks=pytest.mark.slow), (9, 12, 3), (5,), ()])
def test_shapes_are_opencvs(name, shape):
    src = image(shape)
    assert getattr(opencv, name)(src, *CALLS[name]).shape == getattr(cv2, name)(src, *CALLS[name]).shape


@pytest.mark.parametrize("name", FILTERS)
def test_dst_is_written_where_it_fits_and_left_alone_elsewhere(name):
    function = getattr(opencv, name)
    for shape in ((9, 12), (9, 12, 4)):
        src = image(shape)
        expected = function(src, *CALLS[name])
        wide = np.empty((18, 14, 4), "u1")[::2, 1:13, 0] if len(shape) == 2 else np.empty((9, 12, 8), "u1")[..., ::2]
        fitting = (np.empty(shape, "u1"), np.empty((*shape, 1), "u1") if len(shape) == 2 else np.empty(shape, "u1"), wide)
        for _ in range(2):  # the second call is remembered
            for dst in fitting:
                assert function(src, *CALLS[name], dst=dst) is dst
                assert_same_bits(dst.reshape(expected.shape), expected, name)
            for other in (np.zeros((9, 11), "u1"), np.zeros(shape, "f4"), np.zeros(shape, ">u2"), np.zeros((9, 12, 2), "u1")):
                result = function(src, *CALLS[name], dst=other)
                assert result is not other
                assert not other.any()
                assert_same_bits(result, expected, name)


@pytest.mark.parametrize("name", FILTERS)
def test_in_place_and_overlapping(name):
    function = getattr(opencv, name)
    for dtype in ("u1", "f4"):
        src = image((9, 12), dtype)
        expected = function(src, *CALLS[name])
        for _ in range(2):
            both = src.copy()
            assert function(both, *CALLS[name], dst=both) is both
            assert_same_bits(both, expected, name)
            held = np.zeros((10, 12), dtype)
            held[:9] = src
            function(held[:9], *CALLS[name], dst=held[1:])
            assert_same_bits(held[1:], expected, name)


@pytest.mark.parametrize("name", FILTERS)
def test_any_layout_of_the_image(name):
    function = getattr(opencv, name)
    for src in (image((9, 12, 3)), image((9, 12), "f4")):
        expected = function(src, *CALLS[name])
        for other in (
            np.asfortranarray(src),
            src[::-1, ::-1].copy()[::-1, ::-1],
            src.astype(src.dtype.newbyteorder()),
            np.repeat(src, 2, 1)[:, ::2],
        ):
            result = function(other, *CALLS[name])
            assert_same_bits(result, expected, name)
            assert result.flags.c_contiguous
        src.flags.writeable = False
        assert_same_bits(function(src, *CALLS[name]), expected, name)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", ["?", "i1", "i4", "u4", "i8", "f2", "F", "g"])
def test_other_types_are_refused(name, dtype):
    if np.dtype(dtype) == np.float64:
        pytest.skip("longdouble is float64 on this platform")
    with pytest.raises(TypeError, match=f"src must have dtype uint8, uint16, int16, float32 or float64, got {np.dtype(dtype)}"):
        getattr(opencv, name)(np.ones((4, 4), dtype), *CALLS[name])


READ_ONLY = np.empty((9, 12), "u1")
READ_ONLY.flags.writeable = False
SRC = image()
# (name, arguments, keywords, the exception's type and text); OpenCV raises cv2.error for all but the last five
WRONG = [
    ("filter2D", ("x", -1, ONES), {}, TypeError, "src must be an array of"),
    ("filter2D", (np.ones((2, 2, 2, 2), "u1"), -1, ONES), {}, ValueError, r"src must have shape .*, got \(2, 2, 2, 2\)"),
    ("filter2D", (np.ones((0, 3), "u1"), -1, ONES), {}, ValueError, r"src must not be empty, got shape \(0, 3\)"),
    ("filter2D", (SRC, 4, ONES), {}, ValueError, r"ddepth must be -1 or one of CV_8U \(0\).*for an image of uint8, got 4"),
    ("filter2D", (SRC, 1.0, ONES), {}, TypeError, "ddepth must be an int, got 1.0"),
    ("filter2D", (SRC, True, ONES), {}, TypeError, "ddepth must be an int, got True"),
    ("filter2D", (SRC, -1, np.ones((3, 3, 2))), {}, ValueError, r"kernel must be an array of shape \(height, width\).*\(3, 3, 2\)"),
    ("filter2D", (SRC, -1, np.ones((0, 3))), {}, ValueError, r"kernel must be .* not empty, got shape \(0, 3\)"),
    ("filter2D", (SRC, -1, None), {}, TypeError, "kernel must be an array of"),
    ("filter2D", (SRC, -1, ONES), {"anchor": (3, 0)}, ValueError, r"anchor .* in the kernel of width 3 and height 3, got \(3, 0\)"),
    ("filter2D", (SRC, -1, ONES), {"anchor": 1}, TypeError, r"anchor must be two ints \(x, y\), got 1"),
    ("filter2D", (SRC, -1, ONES), {"anchor": (0.5, 0)}, TypeError, "anchor must be an int, got 0.5"),
    ("filter2D", (SRC, -1, ONES), {"delta": "3"}, TypeError, "delta must be a real number, got '3'"),
    ("filter2D", (SRC, -1, ONES), {"borderType": cv2.BORDER_TRANSPARENT}, ValueError, "borderType must be one of BORDER_CONSTANT.*got 5"),
    ("filter2D", (SRC, -1, ONES), {"borderType": -1}, ValueError, "borderType must be one of BORDER_CONSTANT.*got -1"),
    ("filter2D", (SRC, -1, ONES), {"borderType": "reflect"}, TypeError, "borderType must be an int, got 'reflect'"),
    ("filter2D", (SRC, -1, ONES), {"dst": [1]}, TypeError, "dst must be None or a numpy.ndarray, got list"),
    ("filter2D", (SRC, -1, ONES), {"dst": READ_ONLY}, ValueError, "dst must be writeable, got a read-only array"),
    ("sepFilter2D", (SRC, -1, ONES, ONES[0]), {}, ValueError, r"kernelX must be one row or one column, got shape \(3, 3\)"),
    ("sepFilter2D", (SRC, -1, ONES[0], ONES[0]), {"anchor": (0, 3)}, ValueError, r"anchor \(x, y\) must lie in the kernel"),
    ("sepFilter2D", (SRC.astype("f8"), 5, ONES[0], ONES[0]), {}, ValueError, "ddepth must be -1 or one of.*for an image of float64, got 5"),
    ("blur", (SRC, (0, 3)), {}, ValueError, r"ksize \(width, height\) must be at least 1, got \(0, 3\)"),
    ("blur", (SRC, 3), {}, TypeError, r"ksize must be two ints \(width, height\), got 3"),
    ("boxFilter", (SRC, -1, (3, 3, 3)), {}, TypeError, r"ksize must be two ints \(width, height\), got \(3, 3, 3\)"),
    ("boxFilter", (SRC, 1, (3, 3)), {}, ValueError, "ddepth must be -1 or one of"),
    ("GaussianBlur", (SRC, (4, 3), 1), {}, ValueError, r"ksize .* must be odd and positive, or 0 with.*, got \(4, 3\)"),
    ("GaussianBlur", (SRC, (0, 0), 0), {}, ValueError, "ksize .* with sigmaX=0, sigmaY=0.0"),
    ("GaussianBlur", (SRC, (3, 3), "1px"), {}, TypeError, "sigmaX must be a real number, got '1px'"),
    ("Sobel", (SRC, -1, 0, 0), {}, ValueError, "dx and dy must not be negative and not both 0, got 0 and 0"),
    ("Sobel", (SRC, -1, -1, 2), {}, ValueError, "dx and dy must not be negative"),
    ("Sobel", (SRC, -1, 3, 0), {}, ValueError, "dx must be below 3 for ksize 3, got 3"),
    ("Sobel", (SRC, -1, 1, 0), {"ksize": 4}, ValueError, "ksize must be odd and from 1 to 31, got 4"),
    ("Sobel", (SRC, -1, 1, 0), {"ksize": 33}, ValueError, "ksize must be odd and from 1 to 31, got 33"),
    ("Sobel", (SRC, -1, 1, 1), {"ksize": -1}, ValueError, "dx and dy must be 1 and 0, or 0 and 1, for Scharr's kernel, got 1 and 1"),
    ("Scharr", (SRC, -1, 2, 0), {}, ValueError, "dx and dy must be 1 and 0, or 0 and 1, for Scharr's kernel, got 2 and 0"),
    ("Laplacian", (SRC, -1), {"ksize": 2}, ValueError, "ksize must be odd and from 1 to 31, got 2"),
    ("Laplacian", (SRC.astype("f4"), 6), {}, ValueError, r"ddepth must be -1 or one of CV_32F \(5\) for an image of float32, got 6"),
    ("filter2D", (SRC, -1, ONES), {"delta": True}, TypeError, "delta must be a real number, got True"),
    ("filter2D", (SRC.astype("f4"), None, ONES), {}, ValueError, "ddepth must be -1 or one of.*for an image of float32, got None"),
    ("blur", (SRC, None), {}, ValueError, r"ksize \(width, height\) must be at least 1, got None"),
    ("blur", (SRC, {3, 5}), {}, TypeError, r"ksize must be two ints \(width, height\), got {3, 5}"),
    ("boxFilter", (SRC, -1, np.array([[3], [3]])), {}, TypeError, r"ksize must be an int, got array\(\[3\]\)"),
    ("boxFilter", (SRC, -1, (3, 3)), {"normalize": 1.0}, TypeError, r"normalize must be a bool, got 1\.0"),
    ("GaussianBlur", (SRC, (3, 3), 1), {"hint": 1.0}, TypeError, r"hint must be an int, got 1\.0"),
    ("Sobel", (SRC, -1, None, None), {}, ValueError, "dx and dy must not be negative and not both 0, got None and None"),
    ("blur", (SRC, (3, 3)), {"precision": "high"}, ValueError, "precision must be one of .*got 'high'"),
    ("blur", (SRC, (3, 3)), {"threads": 0}, ValueError, "threads"),
    ("blur", (SRC, (3, 3)), {"device": "tpu"}, ValueError, "device must be None, 'cpu' or 'cuda', got 'tpu'"),
    ("blur", (SRC, (3, 3)), {"algorithm": "magic"}, ValueError, "algorithm must be None or one of .*got 'magic'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "keywords", "error", "text"), WRONG)
def test_wrong_arguments(name, arguments, keywords, error, text):
    dst = keywords.get("dst")
    before = dst.copy() if isinstance(dst, np.ndarray) else None
    with pytest.raises(error, match=text):
        getattr(opencv, name)(*arguments, **keywords)
    if before is not None:
        assert_same_bits(dst, before)
    if not set(keywords) & set(TAIL):
        with pytest.raises((cv2.error, SystemError)):
            getattr(cv2, name)(*arguments, **keywords)


def outcome(function, *arguments, **keywords):
    """The result, or None instead of an exception."""
    try:
        return function(*arguments, **keywords)
    except (cv2.error, SystemError, TypeError, ValueError):
        return None


INTS = (None, 1, np.int64(1), np.uint8(1), 1.0, np.float32(1), True, np.True_, "1", (1,), 1j)
PAIRS = (None, (1, 1), [1, 1], np.array([1, 1]), (None, 1), (1, None), (np.int64(1), np.int32(1)), (1.0, 1.0), (1.5, 1), (True, True),
         np.ones(2), 1, (1,), (1, 1, 1), (), "11", np.array([[1, 1]]), {1, 2}, {1: 1, 2: 1}, np.array(1))  # fmt: skip
REALS = (None, 2, 2.0, np.float32(2), np.float64(2), np.int64(2), True, np.True_, "2", (2.0,), [2.0], 2j, np.nan)
MATRICES = (None, 3, 3.0, True, np.float64(3), np.array(3.0), (1, 2.0, 1), (), np.ones(3), np.ones((3, 1)),
            np.ones((1, 3), "u1"), np.ones((2, 2, 2)), np.ones((0, 3)), "abc")  # fmt: skip
OFFERED = {"kernel": MATRICES, "kernelX": MATRICES, "kernelY": MATRICES, "ksize": PAIRS, "anchor": PAIRS, "delta": REALS, "scale": REALS,
           "sigmaX": REALS, "sigmaY": REALS}  # fmt: skip


@pytest.mark.parametrize("name", FILTERS)
def test_what_opencv_takes_is_taken_as_it_takes_it(name):
    """Every argument as None, as numbers of other types, as sequences: the same result, or an exception where OpenCV has one."""
    src, parameters = image(), list(inspect.signature(getattr(opencv, name)).parameters)
    given = dict(zip([word for word in parameters[1:] if word != "dst"], CALLS[name], strict=False))
    for word in parameters[1 : -len(TAIL)]:
        values = OFFERED.get(word, INTS) if word != "ksize" or isinstance(given.get(word), tuple) else INTS
        for value in () if word == "dst" else values:
            keywords = given | {word: value}
            if word in ("kernelX", "kernelY"):  # which OpenCV wants of one type
                keywords["kernelX"] = keywords["kernelY"] = value
            call = f"{name}({word}={value!r})"
            expected = outcome(getattr(cv2, name), src, **keywords)
            result = outcome(getattr(opencv, name), src, **keywords, algorithm="reference")
            assert (result is None) == (expected is None), call
            if expected is not None:
                assert_same_bits(result, expected, call)


def test_images_and_depths_that_are_no_arrays():
    for src in (3.0, 7, (1.0, 2, 5)):
        assert_same_bits(opencv.blur(src, (1, 2), algorithm="reference"), cv2.blur(src, (1, 2)))
    src = image(dtype="f4")
    for name in ("sepFilter2D", "boxFilter", "Sobel", "Scharr"):
        arguments = None, *CALLS[name][1:]
        assert_same_bits(getattr(opencv, name)(src, *arguments, algorithm="reference"), getattr(cv2, name)(src, *arguments), name)


def test_lists_where_opencv_takes_them():
    src = image()
    assert_same_bits(opencv.blur(src, [3, 3], anchor=[0, 1]), cv2.blur(src, [3, 3], anchor=[0, 1]))
    assert_same_bits(opencv.filter2D(src, -7, np.array([1, 2, 3])), cv2.filter2D(src, -7, np.array([1, 2, 3])))
    assert_same_bits(opencv.filter2D(src, -1, ONES[:, :1]), cv2.filter2D(src, -1, ONES[:, :1]))
    assert_same_bits(opencv.filter2D(src, -1, ONES[..., None].astype("u1")), cv2.filter2D(src, -1, ONES))


# kernels of bytes to 16 bits take 20 s to compile
@pytest.mark.parametrize("name", ["filter2D", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sepFilter2D", "boxFilter"))])
@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from((1, 3, 5)),  # more channels than the separable kernels take, and the numbers that others compile
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from((0, 1, 2, 4)),
    st.data(),
)
def test_any_shape(name, h, w, c, kh, kw, border, data):
    anchor = data.draw(st.tuples(st.integers(-1, kw - 1), st.integers(-1, kh - 1)))
    src = image((h, w, c))
    weights = np.random.default_rng([kh, kw]).integers(-3, 4, (kh, kw)).astype(np.float32)
    arguments = {"filter2D": (3, weights), "sepFilter2D": (3, weights[0], weights[:, 0]), "boxFilter": (3, (kw, kh))}[name]
    keywords = {"anchor": anchor, "borderType": border} | ({"normalize": False} if name == "boxFilter" else {})
    assert_same_bits(getattr(opencv, name)(src, *arguments, **keywords), getattr(cv2, name)(src, *arguments, **keywords), name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_what_is_not_finite_is_not_seen_under_the_zero_taps_of_filter2d(dtype, value):
    """NaN and inf under a zero tap leave no trace; the taps themselves do, as in OpenCV."""
    kernels = (
        ONES * [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
        ONES * [[1, 0, -2], [0, 0, 0], [3, 0, 1]],
        ONES * 0 + [[0, 0, 0], [0, 2, 0], [0, 0, 0]],
    )
    src = image((11, 13), dtype)
    src[5, 6] = src[0, 12] = value
    with np.errstate(invalid="ignore"):
        for weights, border in itertools.product(kernels, (0, 1, 2, 4)):
            expected = cv2.filter2D(src, -1, weights.astype(dtype), borderType=border)
            result = opencv.filter2D(src, -1, weights.astype(dtype), borderType=border)
            assert np.array_equal(np.isnan(result), np.isnan(expected))
            assert np.array_equal(np.isinf(result), np.isinf(expected))
        assert np.array_equal(np.isnan(opencv.Laplacian(src, -1)), np.isnan(cv2.Laplacian(src, -1)))


def test_separable_filters_and_boxes_spread_nan_over_the_window():
    src = image((11, 13), "f4")
    src[5, 6] = np.nan
    window = np.zeros(src.shape, bool)
    window[4:7, 5:8] = True
    for result in (
        opencv.Sobel(src, -1, 1, 0),
        opencv.blur(src, (3, 3)),
        opencv.GaussianBlur(src, (3, 3), 0),
        opencv.sepFilter2D(src, -1, [1, 0, 1], [1, 2, 1]),
    ):
        assert np.array_equal(np.isnan(result), window)


def test_a_delta_beyond_float32_is_infinite_there():
    src = image(dtype="f4")
    for delta in (1e300, -1e300):
        assert_same_bits(opencv.filter2D(src, -1, ONES, delta=delta), np.full_like(src, np.sign(delta) * np.inf))
    assert (opencv.filter2D(image(), -1, ONES, delta=1e300) == 255).all()


def test_a_remembered_call_is_the_same_call():
    calls._calls.clear()
    src, weights = image(dtype="f4"), ONES.copy()
    first = opencv.filter2D(src, -1, weights)
    assert_same_bits(opencv.filter2D(src, -1, weights), first)
    assert len(calls._calls) == 1
    weights[1, 1] = 2  # another kernel in the same array
    assert_same_bits(opencv.filter2D(src, -1, weights), opencv.filter2D(src, -1, weights.tolist()))
    assert not np.array_equal(opencv.filter2D(src, -1, weights), first)
    with pytest.raises(TypeError, match="delta must be a real number, got True"):
        [opencv.filter2D(src, -1, weights, delta=delta) for delta in (1, True)]
    with pytest.raises(TypeError, match=r"ksize must be an int, got 3\.0"):
        [opencv.blur(src, ksize) for ksize in ((3, 3), (3.0, 3.0))]
    large = np.ones((64, 33), np.float32)
    before = len(calls._calls)
    opencv.filter2D(src, -1, large)
    assert len(calls._calls) == before


def test_any_number_of_threads_gives_the_same_bits():
    src = image((70, 90, 3), "f4")
    for name in FILTERS:
        expected = getattr(opencv, name)(src, *CALLS[name], threads=1)
        assert_same_bits(getattr(opencv, name)(src, *CALLS[name], threads=2), expected, name)


EDGES = np.array([[0, 0, 0], [0, 1, -1], [0, 0, 0]], np.float32)
# what the planner is asked for; whole weights need no float64, rank 1 is told in float64 and found again there
ASKED = [
    ("filter2D", "u1", (9, 12), (-1, ONES), {}, "ih9iw12_k3_p1_reflect_u8:f32:u8:f32_saturate"),
    ("filter2D", "u1", (9, 12, 3), (5, ONES), {"borderType": 2},
     "g3_ic3ih9iw12_oc3k3_p1_symmetric_u8:f32:f32:f32_nhwc_shared"),
    ("filter2D", "f4", (9, 12), (-1, EDGES), {"delta": 1}, "ih9iw12_kh1kw2_pr1_reflect_f32_bias"),
    ("filter2D", "i2", (9, 12), (6, ONES), {"anchor": (0, 2), "borderType": 0}, "ih9iw12_k3_pt2pr2_i16:f64:f64:f64"),
    ("sepFilter2D", "f4", (9, 12), (-1, ONES[0], ONES[0]), {"borderType": 3},
     "ih9iw12_k3_p1_wrap_f32:f64:f32:f32_structure=rank1"),
    ("sepFilter2D", "f4", (9, 12), (-1, ONES[0], ONES[0]), {"precision": "strict"}, "ih9iw12_k3_p1_reflect_f32_strict"),
    ("blur", "u1", (9, 12), ((3, 3),), {}, "ih9iw12_k3_p1_reflect_u8:f32:u8:f32_half-up_structure=box"),
    ("blur", "u1", (9, 12), ((4, 4),), {}, "ih9iw12_k4_pt2pb1pl2pr1_reflect_u8:f32:u8:f32_bias+half-up_structure=box"),
    ("boxFilter", "u2", (9, 12), (4, (3, 3)), {}, "ih9iw12_k3_p1_reflect_u16:f64:i32:f64_saturate_structure=box"),
    ("GaussianBlur", "u1", (9, 12), ((3, 3), 0), {"borderType": 1},
     "ih9iw12_k3_p1_edge_u8:f64:u8:f32_half-up_structure=rank1"),
    ("GaussianBlur", "u2", (9, 12), ((3, 3), 0), {}, "ih9iw12_k3_p1_reflect_u16:f64:u16:f64_half-up_structure=rank1"),
    ("Sobel", "u1", (9, 12), (3, 1, 0), {}, "ih9iw12_k3_p1_reflect_u8:f64:i16:f32_saturate_structure=rank1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "dtype", "shape", "arguments", "keywords", "text"), ASKED)
def test_what_the_planner_is_asked_for(monkeypatch, name, dtype, shape, arguments, keywords, text):
    asked, plan = [], calls.plan_problem
    monkeypatch.setattr(calls, "plan_problem", lambda p, **settings: asked.append(p) or plan(p, **settings | {"algorithm": "reference"}))
    calls._calls.clear()
    getattr(opencv, name)(image(shape, dtype), *arguments, **keywords)
    calls._calls.clear()
    assert asked == [Problem.parse(text)], asked


def test_import_takes_neither_numba_nor_scipy_nor_cv2():
    code = "import sys; from fastconv import opencv; print(*[m for m in ('numba', 'scipy', 'cv2') if m in sys.modules])"
    assert child(code).stdout.strip() == ""
    assert sys.modules["fastconv.opencv"] is opencv


@pytest.mark.parametrize("call", [lambda x: opencv.blur(x, (20001, 20001)), lambda x: opencv.GaussianBlur(x, (0, 0), 1e6),
                                  lambda x: opencv.sepFilter2D(x, -1, np.ones(5000), np.ones(5000))])  # fmt: skip
def test_windows_beyond_memory_are_refused(call):
    with pytest.raises(ValueError, match=r"at most 16777216 taps, got width"):
        call(np.zeros((8, 8), "u1"))
