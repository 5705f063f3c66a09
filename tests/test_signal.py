"""fastconv.signal against scipy.signal, result for result."""

import itertools
import pickle
import sys
import warnings

import numpy as np
import pytest
import scipy.signal

import fastconv
from tests.children import child
from tests.oracles import assert_close, assert_same_bits, peer_bound, scipy_signal
from tests.problems import random_array

FUNCTIONS = ("correlate2d", "convolve2d")
MODES = ("full", "same", "valid")
BOUNDARIES = ("fill", "wrap", "symm")
# (in1, in2): odd, even and one-sided kernels; rows and columns; in2 larger in one or both directions
SHAPES = (
    ((9, 14), (3, 3)), ((8, 37), (4, 2)), ((12, 70), (5, 9)), ((5, 5), (5, 5)), ((1, 19), (1, 3)), ((17, 1), (6, 1)),
    ((2, 3), (1, 1)), ((3, 4), (8, 9)), ((1, 1), (4, 3)), ((2, 40), (11, 2)), ((4, 9), (4, 13)), ((30, 33), (17, 3)),
)  # fmt: skip
DTYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "g", "F", "D", "G")


def arrays(shapes, dtypes, seed=0):
    rng = np.random.default_rng(seed)
    return [random_array(rng, shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]


def check(name, in1, in2, mode="full", boundary="fill", fillvalue=0, **keywords):
    expected, allowed = scipy_signal(name, in1, in2, mode, boundary, fillvalue)
    result = getattr(fastconv, name)(in1, in2, mode, boundary, fillvalue, **keywords)
    assert type(result) is np.ndarray
    assert result.dtype == expected.dtype
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert result.flags.owndata
    assert_close(result, expected, allowed, f"{name} {in1.shape} {in2.shape} {mode} {boundary} {expected.dtype}")
    return result


def outcome(function, *arguments, **keywords):
    """The result, or the exception's type and text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*arguments, **keywords)
        except (ValueError, TypeError, OverflowError) as error:
            return type(error), str(error)


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8", "D", pytest.param("i4", marks=pytest.mark.slow)])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_results(name, mode, boundary, dtype):
    for number, (one, two) in enumerate(SHAPES):
        in1, in2 = arrays((one, two), (dtype, dtype), number)
        mixed = not np.less_equal(one, two).all() and not np.less_equal(two, one).all()
        if mode == "valid" and mixed:
            with pytest.raises(ValueError, match="one must be at least as large as the other in every dimension"):
                getattr(fastconv, name)(in1, in2, mode, boundary)
        else:
            check(name, in1, in2, mode, boundary)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type(dtype):
    for name, (number, shapes) in itertools.product(FUNCTIONS, enumerate(SHAPES[:2])):
        check(name, *arrays(shapes, (dtype, dtype), number), "same", "symm")


@pytest.mark.parametrize("one", ["?", *DTYPES])
def test_mixed_types_promote_as_arrays(one):
    """On the reference, but for a few: each pair of types would be a kernel to compile, and `test_algorithms` has some for all."""
    algorithm = None if one in ("u1", "f4") else "reference"
    for two in ("?", *DTYPES):
        if one == two == "?":
            continue
        in1, in2 = arrays(((6, 11), (3, 2)), (one, two))
        for name in FUNCTIONS:
            check(name, in1, in2, "same", "fill", 1, algorithm=algorithm)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("pair", [("?", "?"), ("e", "e"), ("O", "f8"), ("e", "?"), ("U1", "U1"), ("M8[s]", "i8"), ("f8", "O")])
def test_unsupported_types_raise_scipys_error(name, pair):
    in1, in2 = np.zeros((3, 3), pair[0]), np.zeros((2, 2), pair[1])
    expected = outcome(getattr(scipy.signal, name), in1, in2)
    result = outcome(getattr(fastconv, name), in1, in2)
    assert expected[0] in (ValueError, TypeError)
    assert result[0] in (ValueError, TypeError)
    if "not available" in expected[1]:
        assert result == expected


def test_integers_wrap():
    result = fastconv.correlate2d(np.full((3, 3), 200, "u1"), np.ones((3, 3), "u1"), "valid")
    assert result.tolist() == [[1800 % 256]]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_in2_is_conjugated_by_correlation_and_never_twice(name):
    big, little = arrays(((7, 9), (3, 4)), ("D", "D"))
    check(name, big, little)
    check(name, little, big, "valid")  # exchanged: SciPy's correlate2d then returns what `correlate` conjugates
    check(name, big.real.copy(), little, "same")
    check(name, big, little.real.copy(), "same")


def test_exchanged_valid_is_contiguous():
    little, big = arrays(((3, 4), (7, 9)), ("f8", "f8"))
    result = check("correlate2d", little, big, "valid")
    assert_same_bits(result, np.ascontiguousarray(fastconv.correlate2d(big, little, "valid")[::-1, ::-1]))


@pytest.mark.parametrize("alias", ["fill", "pad", "wrap", "circular", "symm", "symmetric"])
def test_boundary_names(alias):
    check("correlate2d", *arrays(((5, 6), (4, 3)), ("f8", "f8")), "full", alias, 2)


def test_positional_arguments_as_scipy():
    in1, in2 = arrays(((5, 6), (2, 3)), ("i4", "i4"))
    for name in FUNCTIONS:
        result = getattr(fastconv, name)(in1, in2, "same", "fill", 7)
        assert np.array_equal(result, getattr(scipy.signal, name)(in1=in1, in2=in2, mode="same", boundary="fill", fillvalue=7))


FILLS = [0, 1, 2.7, -1, np.float64(3), [5], 1e300, float("nan"), float("inf"), 1 + 2j, "a", None, [1, 2], -0.0,
         True, 300, 2**70, np.uint8(7), "3", (4,), b"3"]  # fmt: skip


@pytest.mark.parametrize("dtype", ["u1", "i4", "f4", "f8", "F"])
def test_fillvalue_is_cast_as_scipy_casts_it(dtype):
    in1, in2 = (random_array(np.random.default_rng(3), shape, "u1").astype(dtype) for shape in ((3, 4), (2, 2)))
    for fill in FILLS:
        for name in FUNCTIONS:
            expected = outcome(getattr(scipy.signal, name), in1, in2, fillvalue=fill)
            result = outcome(getattr(fastconv, name), in1, in2, fillvalue=fill)
            if isinstance(expected, tuple):
                assert result == expected, repr(fill)
            else:
                assert result.dtype == expected.dtype, repr(fill)
                assert_close(result, expected, peer_bound(dtype, 4, np.nan_to_num(np.abs(expected))), repr(fill))


@pytest.mark.parametrize("boundary", ["wrap", "symm"])
def test_fillvalue_is_not_looked_at_where_there_is_none(boundary):
    in1, in2 = arrays(((4, 5), (2, 3)), ("i4", "i4"))
    for name in FUNCTIONS:
        expected = getattr(scipy.signal, name)(in1, in2, "full", boundary)
        for fill in (*FILLS, {}, object()):
            assert_same_bits(getattr(scipy.signal, name)(in1, in2, "full", boundary, fill), expected, repr(fill))
            assert_same_bits(getattr(fastconv, name)(in1, in2, "full", boundary, fill), expected, repr(fill))


def test_fillvalue_may_be_an_array_of_one_element():
    in1, in2 = arrays(((4, 5), (3, 3)), ("f8", "f8"))
    expected = fastconv.correlate2d(in1, in2, fillvalue=2)
    assert_same_bits(fastconv.correlate2d(in1, in2, fillvalue=np.array([2])), expected)
    assert_same_bits(fastconv.correlate2d(in1, in2, fillvalue=np.array(2)), expected)
    assert_same_bits(fastconv.correlate2d(in1, in2, fillvalue=(2,)), expected)


def test_zero_and_minus_zero_as_fillvalue_are_not_the_same_call():
    in1, in2 = np.full((2, 2), 0.0), np.full((1, 2), 1.0)
    for fill in (0, 0.0, -0.0, np.float64(-0.0), 0, -0.0):
        result = fastconv.correlate2d(-in1, in2, fillvalue=fill)
        expected = scipy.signal.correlate2d(-in1, in2, fillvalue=fill)
        assert np.array_equal(result, expected)


def test_one_fillvalue_after_another():
    in1, in2 = arrays(((4, 5), (3, 3)), ("f8", "f8"))
    for fill in (1, 2.5, 1, True, 2.5, -3):
        check("correlate2d", in1, in2, "full", "fill", fill)


@pytest.mark.parametrize(
    "arguments",
    [
        {"mode": "whole"}, {"mode": 1}, {"mode": None}, {"boundary": "reflect"}, {"boundary": "mirror"}, {"boundary": 3},
        {"boundary": "Fill"}, {"mode": "whole", "boundary": "x"}, {"in1": np.ones(3)}, {"in2": np.ones((1, 2, 2))},
        {"in1": 3.0}, {"in1": np.ones((2, 5)), "in2": np.ones((3, 2)), "mode": "valid"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_have_scipys_types_and_texts(name, arguments):
    keywords = {"in1": np.ones((4, 4)), "in2": np.ones((2, 2))} | arguments
    expected = outcome(getattr(scipy.signal, name), **keywords)
    assert isinstance(expected, tuple), "SciPy accepts it"
    assert outcome(getattr(fastconv, name), **keywords) == expected


EMPTY = [((0, 3), (2, 3)), ((3, 0), (2, 3)), ((0, 0), (2, 2)), ((0, 3), (1, 1)), ((3, 3), (0, 2)), ((3, 3), (0, 0)),
         ((2, 3), (3, 0)), ((5, 4), (3, 0))]  # fmt: skip
# a list of calls -> for each what it returns, or the exception's type and text, or None where the process died
SCIPY_ON_EMPTY = """
import os, pickle, sys, warnings
import numpy as np, scipy.signal
for mode, boundary, one, two in eval(sys.argv[1]):
    reader, writer = os.pipe()
    if not os.fork():
        try:
            result = scipy.signal.correlate2d(np.ones(one), np.ones(two), mode, boundary, 3)
        except ValueError as error:
            result = type(error), str(error)
        os.write(writer, pickle.dumps(result))
        os._exit(0)
    os.close(writer)
    died = os.wait()[1]
    print((pickle.dumps(None) if died else os.read(reader, 1 << 16)).hex())
    os.close(reader)
"""


@pytest.mark.parametrize("mode", MODES)
def test_empty_inputs_under_fill(mode):
    for name, (one, two) in itertools.product(FUNCTIONS, EMPTY):
        expected = outcome(getattr(scipy.signal, name), np.ones(one), np.ones(two), mode, "fill", 3)
        result = outcome(getattr(fastconv, name), np.ones(one), np.ones(two), mode, "fill", 3)
        if isinstance(expected, tuple):
            assert result[0] is ValueError
        else:
            assert result.shape == expected.shape, (name, one, two)
            assert np.array_equal(result, expected), (name, one, two)


def test_empty_inputs_never_kill_the_process():
    """Where SciPy's process dies (SIGFPE) fastconv raises ValueError; elsewhere the results are equal."""
    calls = [(mode, boundary, one, two) for mode in MODES for boundary in ("wrap", "symm") for one, two in EMPTY]
    lines = child(SCIPY_ON_EMPTY, calls).stdout.split()
    deaths = 0
    for (mode, boundary, one, two), line in zip(calls, lines, strict=True):
        expected = pickle.loads(bytes.fromhex(line))
        result = outcome(fastconv.correlate2d, np.ones(one), np.ones(two), mode, boundary, 3)
        deaths += expected is None
        if expected is None or isinstance(expected, tuple):
            assert isinstance(result, tuple), (mode, boundary, one, two)
            assert result[0] is ValueError
        else:
            assert np.array_equal(result, expected), (mode, boundary, one, two)
    assert deaths


def test_lists_and_subclasses_become_arrays():
    assert np.array_equal(fastconv.convolve2d([[1, 2], [3, 4]], [[1, 10]]), [[1, 12, 20], [3, 34, 40]])
    masked = np.ma.masked_array(np.arange(12.0).reshape(3, 4), mask=np.eye(3, 4, dtype=bool))
    kernel = np.ones((2, 2))
    assert type(fastconv.correlate2d(masked, kernel)) is np.ndarray
    assert np.array_equal(fastconv.correlate2d(masked, kernel), scipy.signal.correlate2d(masked, kernel))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        matrix = np.matrix(np.arange(12.0).reshape(3, 4))
    assert type(fastconv.correlate2d(matrix, kernel)) is np.ndarray


def test_an_array_like_that_fails_is_one_clear_exception():
    class Broken:
        def __array__(self, *arguments, **keywords):
            raise RuntimeError("no data")

    with pytest.raises((TypeError, ValueError, RuntimeError), match="no data"):
        fastconv.correlate2d(Broken(), np.ones((2, 2)))


def test_namespace():
    assert fastconv.correlate2d is fastconv.signal.correlate2d
    assert fastconv.convolve2d is sys.modules["fastconv.signal"].convolve2d
