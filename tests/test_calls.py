"""What all dialects share around a plan: the bounded memory of calls, and where results are computed and delivered."""

import concurrent.futures
import sys
import tempfile

import numpy as np
import pytest

import fastconv
from fastconv import gradients, nn, signal
from fastconv.layers import Conv2D
from fastconv.ndimage import calls as ndimage_calls
from fastconv.opencv import calls as opencv_calls
from fastconv.planning import planner
from fastconv.planning.calls import Bounded, Calls, delivered, destination
from tests.oracles import assert_close, peer_bound


def test_every_memory_is_bounded_by_the_same_rule():
    layer = Conv2D(1, 3)
    layer(np.ones((1, 5, 5, 1)))
    plan = nn.plan((5, 5), np.ones((3, 3)))
    for memory in (nn._calls, gradients._calls, signal._calls, opencv_calls._calls, ndimage_calls._calls, plan._held.calls):
        assert isinstance(memory, Calls)
    for memory in (planner._plans, layer._plans[1]):
        assert isinstance(memory, Bounded)


def test_the_oldest_make_room():
    memory = Bounded(3)
    assert [memory.keep(n, -n) for n in range(5)] == [0, -1, -2, -3, -4]
    assert memory == {2: -2, 3: -3, 4: -4}
    assert memory.keep(2, 0) == 0
    assert len(memory) <= memory.most


def test_many_threads_fill_it_at_once():
    memory = Bounded(4)

    def fill(first):
        for n in range(3000):
            memory.keep((first, n), n)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(fill, range(4)))
    finally:
        sys.setswitchinterval(interval)
    memory.keep("last", 0)
    assert len(memory) <= memory.most


def test_a_result_is_computed_in_place_or_aside_and_delivered():
    out, other = np.zeros((2, 3)), np.zeros((4, 6))
    assert destination(out, (2, 3), out.dtype, other, None) is out
    assert destination(None, (2, 3), out.dtype, other).shape == (2, 3)
    dst = destination(out, (2, 3), out.dtype, out[::-1])
    assert dst is not out
    dst[...] = 7
    assert delivered(dst, out) is out
    assert (out == 7).all()
    assert delivered(dst, None) is dst
    with pytest.raises(ValueError, match="out must have shape"):
        destination(out, (3, 3), out.dtype)


@pytest.mark.parametrize("flip", [False, True])
def test_exchanged_valid_calls_write_into_out(flip):
    function = signal.convolve2d if flip else signal.correlate2d
    rng = np.random.default_rng(0)
    small, large = rng.standard_normal((2, 3)), rng.standard_normal((5, 6)) * (1 + 2j)
    expected = function(small, large, "valid")
    turned = function(large, small, "valid")
    np.testing.assert_array_equal(expected, turned if flip else turned[::-1, ::-1])
    out = np.empty_like(expected)
    for _ in range(2):
        assert function(small, large, "valid", out=out) is out
        np.testing.assert_array_equal(out, expected)


def _matrix(shape, dtype):
    return np.zeros(shape, dtype).view(np.matrix)


def _on_disk(shape, dtype):
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)


@pytest.mark.parametrize("make", [np.zeros, np.ma.zeros, _matrix, _on_disk], ids=["ndarray", "masked", "matrix", "memmap"])
@pytest.mark.parametrize("call", ["plan", "conv2d", "correlate2d"])
def test_another_out_of_any_class_is_checked_again(call, make):
    """What one call learned of ``out`` says nothing of the next one's: another shape or type is refused, other strides are seen."""
    x, k = np.arange(81.0, dtype="f4").reshape(9, 9), np.arange(9.0, dtype="f4").reshape(3, 3)
    planned = fastconv.plan(x, k)
    run = {"plan": lambda out: planned(x, out=out), "conv2d": lambda out: fastconv.conv2d(x, k, out=out),
           "correlate2d": lambda out: fastconv.correlate2d(x, k, "valid", out=out)}[call]  # fmt: skip
    expected = fastconv.conv2d(x, k)
    for _ in range(2):
        out = make((7, 7), "f4")
        assert run(out) is out
        assert np.array_equal(np.asarray(out), expected)
        for shape, dtype in (((1, 1), "f4"), ((7, 7), "f8")):
            with pytest.raises(ValueError, match="out must have"):
                run(make(shape, dtype))
        with pytest.raises(TypeError, match="out must be"):
            run([1])
    wide = make((7, 14), "f4")
    run(wide[:, ::2])
    assert np.array_equal(np.asarray(wide)[:, ::2], expected)
    assert not np.asarray(wide)[:, 1::2].any()


@pytest.mark.parametrize("bias", [None, *(np.full(shape, 3, dtype) for shape, dtype in (((), "f4"), (1, "f4"), (1, ">f4"), (1, "f8")))])
def test_calls_that_come_again_are_the_same(bias):
    """From the third call on a small problem goes the quick way: same bits, new weights seen, overlaps seen."""
    rng = np.random.default_rng(1)
    x, k = rng.standard_normal((2, 12, 12)).astype("f4")[:, ::-1], rng.standard_normal((2, 3, 3)).astype("f4")
    planned = fastconv.plan(x[0], k[0], bias, padding=1)
    expected = [[fastconv.conv2d(image, weight, bias, padding=1, algorithm="direct") for weight in k] for image in x]
    for _ in range(3):
        for image in range(2):
            for weight in range(2):
                planned.set_weight(k[weight], bias)
                for out in (None, np.empty((12, 12), "f4"), np.empty((12, 24), "f4")[:, :12]):
                    assert np.array_equal(planned(x[image], out=out), expected[image][weight])
                    again = fastconv.conv2d(x[image], k[weight], bias, padding=1, out=out, algorithm="direct")
                    assert np.array_equal(again, expected[image][weight])
    for run in (lambda image, out: planned(image, out=out), lambda image, out: fastconv.conv2d(image, k[1], bias, padding=1, out=out)):
        for _ in range(3):
            image = x[0].copy()
            assert run(image, image) is image
            assert np.array_equal(image, expected[0][1])
            both = np.zeros((13, 12), "f4")
            both[1:] = x[0]
            assert np.array_equal(run(both[1:], both[:-1]), expected[0][1])
        fixed = np.zeros((12, 12), "f4")
        fixed.flags.writeable = False
        with pytest.raises(ValueError, match="out must be writeable"):
            run(x[0], fixed)


def test_an_out_that_holds_the_weights():
    x = np.arange(49.0, dtype="f4").reshape(7, 7)
    for _ in range(4):
        out = np.arange(25.0, dtype="f4").reshape(5, 5)
        k = out[1:4, 1:4]
        expected = fastconv.conv2d(x, k.copy())
        assert fastconv.conv2d(x, k, out=out) is out
        assert np.array_equal(out, expected)


def test_an_out_that_holds_the_bias():
    x, k = np.arange(49.0, dtype="f4").reshape(7, 7), np.eye(3, dtype="f4")
    for _ in range(4):
        out = np.arange(25.0, dtype="f4").reshape(5, 5)
        bias = out[2, 3:4]
        assert np.array_equal(fastconv.conv2d(x, k, bias, out=out), fastconv.conv2d(x, k) + np.float32(13))


def test_small_calls_from_many_threads():
    x = np.random.default_rng(0).standard_normal((8, 9, 9)).astype("f4")
    k = np.ones((3, 3), "f4")
    planned = fastconv.plan(x[0], k)
    expected = [fastconv.conv2d(image, k) for image in x]

    def check(image):
        out = np.empty((7, 7), "f4")
        return all(np.array_equal(planned(x[image], out=out), expected[image]) for _ in range(2000))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, range(8)))


@pytest.mark.parametrize("algorithm", ["separable", "direct", None])
def test_weights_of_the_same_shape_are_looked_at_again(algorithm):
    """Boxes, filters of rank 1 and others, in any order, on a call that has been remembered."""
    x = np.random.default_rng(3).standard_normal((300, 310)).astype("f4")
    rank1 = np.outer([1, 2, 1], [1, 0, -1]).astype("f4")
    kernels = [np.ones((3, 3), "f4"), rank1, np.ones((3, 3), "f4"), rank1 + np.eye(3, dtype="f4")]
    for _ in range(2):
        for k in kernels[: 3 if algorithm == "separable" else None]:
            expected = fastconv.conv2d(x.astype("f8"), k.astype("f8"), algorithm="reference")
            allowed = peer_bound("f4", 9, fastconv.conv2d(np.abs(x), np.abs(k), algorithm="reference"))
            assert_close(fastconv.conv2d(x, k, algorithm=algorithm), expected, allowed, f"{algorithm} {k}")
            assert_close(fastconv.correlate2d(x, k, "valid", algorithm=algorithm), expected, allowed, f"{algorithm} {k}")
