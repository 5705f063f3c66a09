"""bfloat16 in calls on arrays of a card, in Numba's simulator: part of `tests.simulated_calls`."""

import functools
import pickle

import numpy as np
import pytest

import fastconv
from fastconv import ndimage, nn, opencv
from fastconv.planning.bfloat import BITS, narrowed, widened
from tests.exporters import Capsule, Chip, Interface, Tensor, pretend
from tests.simulated_calls import BATCH, FILTERS, IMAGE, RNG, TAPS


def bfloats(patch):
    """Whole numbers whose sums are exact, so that results are the CPU's, rounded once."""
    pretend(patch, {"torch": 5, "cupy": 6})
    image, filters, bias = map(narrowed, (BATCH[:1], FILTERS, 9 * np.arange(4)))
    how = {"padding": 1, "activation": "relu"}
    on_cpu = functools.partial(nn.conv2d, algorithm="reference")  # which compiles nothing
    wanted = on_cpu(image, filters, bias, **how).view("u2")
    assert len(np.unique(wanted)) > 50
    for kind in (Tensor, Chip):
        got = nn.conv2d(kind(image), kind(filters), kind(bias), **how)
        assert type(got) is kind
        np.testing.assert_array_equal(got.array.view("u2"), wanted)
    for kind in (Capsule, Interface):
        got = nn.conv2d(kind(image), filters, bias, **how)
        assert got.__cuda_array_interface__["typestr"] == "|V2"
        np.testing.assert_array_equal(np.asarray(got).view("u2"), wanted)
    np.testing.assert_array_equal(nn.conv2d(image, filters, bias, device="cuda", **how).view("u2"), wanted)
    sums = on_cpu(image, FILTERS, 9 * np.arange(4), **how)
    for weights, dtype in ((Tensor(FILTERS), None), (FILTERS, None), (Tensor(filters), "f4")):
        got = nn.conv2d(Tensor(image), weights, Tensor(bias), dtype=dtype, **how)
        np.testing.assert_array_equal(got.array, sums)
    held = fastconv.plan(Tensor(image), Tensor(filters), Tensor(bias), **how)
    assert held.problem.wei == "bf16"
    for plan in (held, pickle.loads(pickle.dumps(held))):
        out = Tensor(np.empty_like(got.array, BITS))
        for result in (plan(Tensor(image)), plan(Tensor(image), out=out)):
            np.testing.assert_array_equal(result.array.view("u2"), wanted)
    held.set_weight(narrowed(2 * FILTERS), 18 * np.arange(4))
    np.testing.assert_array_equal(held(Tensor(image)).array.view("u2"), narrowed(2 * sums).view("u2"))
    given = fastconv.plan(image.shape, filters.shape, True, dtype=BITS, device="cuda", **how)
    np.testing.assert_array_equal(np.asarray(given(Interface(image), Interface(filters), bias)).view("u2"), wanted)
    assert "bf16:bf16:bf16:f32" in fastconv.explain(Tensor(image), Tensor(filters))
    overlapping = Tensor(narrowed(BATCH[:1, :, :3, :3]))
    expected = on_cpu(overlapping.array, narrowed(FILTERS[:3]), padding=1).view("u2")
    nn.conv2d(overlapping, Tensor(narrowed(FILTERS[:3])), padding=1, out=overlapping)
    np.testing.assert_array_equal(overlapping.array.view("u2"), expected)
    wide = Tensor(np.repeat(image[:, :1], 16, 1)), Tensor(np.repeat(filters[:, :1, :1, :1], 16, 1))
    for precision in ("fast", "default"):
        got = nn.conv2d(*wide, precision=precision)
        np.testing.assert_array_equal(got.array.view("u2"), on_cpu(*(one.array for one in wide)).view("u2"))


def bfloats_of_ml_dtypes(patch):
    """CuPy's arrays have its type, and so have NumPy's that are copied there and back."""
    import ml_dtypes

    pretend(patch, {"torch": 5, "cupy": 6})
    kind = np.dtype(ml_dtypes.bfloat16)
    image, filters, bias = (array.astype(kind) for array in (BATCH[:1], FILTERS, np.arange(4)))
    wanted = nn.conv2d(image, filters, bias, algorithm="reference")
    out = np.zeros_like(wanted)
    plan = fastconv.plan(Chip(image), Chip(filters), bias)
    for got in (nn.conv2d(Chip(image), Chip(filters), Chip(bias)).array, nn.conv2d(Chip(image), filters, bias, out=Chip(out)).array,
                plan(Chip(image)).array, nn.conv2d(image, filters, bias, device="cuda")):  # fmt: skip
        assert got.dtype == wanted.dtype == kind
        np.testing.assert_array_equal(got.view("u2"), wanted.view("u2"))
    for got in (nn.conv_transpose2d(Chip(wanted), Chip(filters)), nn.conv2d_input(image.shape, Chip(filters), Chip(wanted))):
        assert got.array.dtype == kind


def bfloats_that_cannot_run(patch):
    pretend(patch, {"torch": 5, "cupy": 6})
    image, weights = Tensor(narrowed(BATCH)), Tensor(narrowed(FILTERS))
    plane = Interface(image.array[0, 0])
    for error, words, call in (
        (TypeError, "in1 must be an array of bools, .* got dtype bfloat16", lambda: fastconv.correlate2d(plane, TAPS)),
        (TypeError, "in2 must be an array of bools, .* got dtype bfloat16", lambda: fastconv.correlate2d(Interface(IMAGE), plane)),
        (TypeError, "input must be an array of bools, .* got dtype bfloat16", lambda: ndimage.sobel(plane)),
        (TypeError, "src must be an array of bools, .* got dtype bfloat16", lambda: opencv.blur(plane, (3, 3))),
        (TypeError, "input must be an array of bools, .* got dtype .*V3", lambda: nn.conv2d(Interface(np.zeros((5, 5), "V3")), TAPS)),
        (TypeError, "input and weight must both be bfloat16 or float32", lambda: nn.conv2d(image, FILTERS.astype("f8"))),
        (TypeError, "epilogue must be None for a result of bfloat16", lambda: nn.conv2d(image, weights, epilogue=nn.Epilogue(scale=2))),
        (TypeError, "scale must be an array of bools, .* got dtype bfloat16",
         lambda: nn.conv2d(image, weights, dtype="f4", epilogue=nn.Epilogue(scale=Tensor(narrowed(np.ones(4)))))),
        (ValueError, "out must have dtype", lambda: nn.conv2d(image, weights, out=Tensor(np.zeros((2, 4, 5, 9), "f2")))),
        (ValueError, "algorithm 'separable' .* reads and stores no bfloat16", lambda: nn.conv2d(image, weights, algorithm="separable")),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            call()


def bfloats_of_gradients(patch):
    """Transposed convolutions and gradients: whole numbers whose sums are exact, rounded once."""
    pretend(patch, {"torch": 5, "cupy": 6})
    grad = RNG.integers(-8, 9, (1, 4, 3, 4)).astype("f4")
    image = BATCH[:1, :, :5, :6].copy()
    for padding, extra, activation in ((1, 0, "relu"), (0, 1, "relu"), (1, 0, "tanh")):
        how = {"stride": 2, "padding": padding, "output_padding": extra, "activation": activation}
        bias = np.arange(3, dtype="f4")
        wanted = narrowed(nn.conv_transpose2d(grad, FILTERS, bias, **how)).view("u2")
        for kind in (Tensor, Interface):
            got = nn.conv_transpose2d(*map(kind, map(narrowed, (grad, FILTERS, bias))), **how)
            np.testing.assert_array_equal(np.asarray(got.array if kind is Tensor else got).view("u2"), wanted)
    for got, wanted in (
        (nn.conv2d_input((1, 3, 5, 6), Tensor(narrowed(FILTERS)), Tensor(narrowed(grad))), nn.conv2d_input((1, 3, 5, 6), FILTERS, grad)),
        (nn.conv2d_weight(Tensor(narrowed(image)), FILTERS.shape, Tensor(narrowed(grad))), nn.conv2d_weight(image, FILTERS.shape, grad)),
    ):
        assert type(got) is Tensor
        np.testing.assert_array_equal(got.array.view("u2"), narrowed(wanted).view("u2"))
    mixed = nn.conv2d_input((1, 3, 5, 6), Tensor(FILTERS), Tensor(narrowed(grad)))
    np.testing.assert_array_equal(mixed.array, nn.conv2d_input((1, 3, 5, 6), FILTERS, widened(narrowed(grad))))


CALLS = {function.__name__: function for function in (bfloats, bfloats_of_ml_dtypes, bfloats_that_cannot_run, bfloats_of_gradients)}
