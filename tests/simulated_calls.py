"""Calls on arrays of a card, in Numba's simulator with stand-ins for other libraries' arrays: one line ``NAME: verdict`` for each.

Run as ``NUMBA_ENABLE_CUDASIM=1 python -m tests.simulated_calls``.
"""

import traceback

import numpy as np
import pytest

import fastconv
from fastconv import nn
from fastconv.cuda import driver, exchange, transfer
from tests.exporters import Capsule, Chip, Interface, Tensor, pretend

RNG = np.random.default_rng(7)
IMAGE, TAPS = RNG.integers(-8, 9, (9, 21)).astype("f4"), RNG.integers(-8, 9, (3, 3)).astype("f4")
BATCH, FILTERS = RNG.integers(-8, 9, (2, 3, 7, 11)).astype("f4"), RNG.integers(-8, 9, (4, 3, 3, 3)).astype("f4")


class Streams:
    """Records the streams that kernels are launched on."""

    def __init__(self, patch):
        self.seen = []
        launch = driver.Launch.__call__
        patch.setattr(driver.Launch, "__call__", lambda this, stream, *rest: (self.seen.append(stream), launch(this, stream, *rest))[1])


def interface(patch):
    streams = Streams(patch)
    for flip in (fastconv.correlate2d, fastconv.convolve2d):
        got = flip(Interface(IMAGE, 77), Interface(TAPS, 77), "same", "symm", stride=(1, 2))
        assert type(got) is exchange.CudaArray
        assert got.__cuda_array_interface__["stream"] == 77
        np.testing.assert_array_equal(np.asarray(got), flip(IMAGE, TAPS, "same", "symm", stride=(1, 2)))
    assert set(streams.seen) == {77}


def views_of_any_strides(patch):
    wide = np.repeat(IMAGE, 2, axis=1)
    backwards = IMAGE[::-1, ::-1].copy()[::-1, ::-1]
    for image, taps in ((wide[:, ::2], TAPS), (IMAGE.T.copy().T, TAPS.T), (backwards, TAPS), (IMAGE[:, 1:], TAPS[::-1, ::-1])):
        got = fastconv.correlate2d(Interface(image), Interface(taps), "same")
        np.testing.assert_array_equal(np.asarray(got), fastconv.correlate2d(image, taps, "same"))


def capsule(patch):
    image = Capsule(IMAGE)
    got = fastconv.correlate2d(image, Capsule(TAPS))
    np.testing.assert_array_equal(np.asarray(got), fastconv.correlate2d(IMAGE, TAPS))
    assert image.streams == [1], "the exporter gets the default stream ready"


def torch_and_cupy(patch):
    pretend(patch, {"torch": 5, "cupy": 6})
    for kind, stream in ((Tensor, 5), (Chip, 6)):
        with pytest.MonkeyPatch.context() as inner:
            streams = Streams(inner)
            got = nn.conv2d(kind(BATCH), kind(FILTERS), kind(np.arange(4, dtype="f4")), padding=1, activation="relu")
            assert type(got) is kind
            assert set(streams.seen) == {stream}
            wanted = nn.conv2d(BATCH, FILTERS, np.arange(4, dtype="f4"), padding=1, activation="relu")
            np.testing.assert_array_equal(got.array, wanted)
    needy = Tensor(BATCH)
    needy.requires_grad = True
    with pytest.raises(TypeError, match="input must not require a gradient"):
        nn.conv2d(needy, Tensor(FILTERS))


def weights_of_the_host(patch):
    got = nn.conv2d(Interface(BATCH), FILTERS, np.arange(4), stride=2)
    np.testing.assert_array_equal(np.asarray(got), nn.conv2d(BATCH, FILTERS, np.arange(4), stride=2))


def weights_of_rank_1(patch):
    taps = np.outer([1, 2, 3, 2, 1], [1, -3, 5, -3, 1]).astype("f4")
    for arguments in ({}, {"boundary": "fill", "fillvalue": 3}):
        got = fastconv.correlate2d(Interface(IMAGE), taps, "same", algorithm="separable", **arguments)
        np.testing.assert_array_equal(np.asarray(got), fastconv.correlate2d(IMAGE, taps, "same", **arguments))
    with pytest.raises(ValueError, match="not known to be of rank 1"):
        fastconv.correlate2d(Interface(IMAGE), Interface(taps), "same", algorithm="separable")


def channels_last(patch):
    image, filters = BATCH.transpose(0, 2, 3, 1).copy(), FILTERS.transpose(2, 3, 1, 0).copy()
    got = nn.conv2d(Interface(image), Interface(filters), data_format="NHWC", padding="same")
    np.testing.assert_array_equal(np.asarray(got), nn.conv2d(image, filters, data_format="NHWC", padding="same"))


def out_and_overlap(patch):
    wanted = fastconv.correlate2d(IMAGE, TAPS, "same")
    out = np.full((9, 30), np.nan, "f4")
    view = Interface(out[:, 4:25])
    assert fastconv.correlate2d(Interface(IMAGE), Interface(TAPS), "same", out=view) is view
    np.testing.assert_array_equal(out[:, 4:25], wanted)
    assert np.isnan(out[:, :4]).all()
    assert np.isnan(out[:, 25:]).all()
    itself = IMAGE.copy()
    fastconv.correlate2d(Interface(itself), Interface(TAPS), "same", out=Interface(itself))
    np.testing.assert_array_equal(itself, wanted)
    for wrong, words in ((out, "out must have shape"), (itself.astype("f8"), "out must have dtype")):
        with pytest.raises(ValueError, match=words):
            fastconv.correlate2d(Interface(IMAGE), Interface(TAPS), "same", out=Interface(wrong))


def mixed_places(patch):
    with pytest.raises(TypeError, match="in1 must be on a CUDA device as in2 is, got ndarray"):
        fastconv.correlate2d(IMAGE, Interface(TAPS))
    with pytest.raises(TypeError, match="out must be on a CUDA device as in1 is, got ndarray"):
        fastconv.correlate2d(Interface(IMAGE), TAPS, "same", out=np.empty((9, 21), "f4"))
    with pytest.raises(ValueError, match="device must be None or 'cuda' for arrays of a CUDA device"):
        fastconv.correlate2d(Interface(IMAGE), TAPS, device="cpu")
    with pytest.raises(ValueError, match="algorithm must be None or one of"):
        fastconv.correlate2d(Interface(IMAGE), TAPS, algorithm="fft")


def host_arrays_there_and_back(patch):
    patch.setattr(transfer, "PIECE", 1000)
    image = RNG.integers(0, 255, (40, 60), np.uint8)
    weights = np.arange(9, dtype=np.int32).reshape(3, 3)
    for source in (image, np.asfortranarray(image)):
        got = fastconv.correlate2d(source, weights, device="cuda")
        assert type(got) is np.ndarray
        np.testing.assert_array_equal(got, fastconv.correlate2d(image, weights))
    out = np.zeros((42, 62), np.int32)
    assert fastconv.correlate2d(image, weights, out=out, device="cuda") is out
    np.testing.assert_array_equal(out, fastconv.correlate2d(image, weights))


def transposed_and_gradients(patch):
    grad = RNG.integers(-8, 9, (1, 4, 3, 4)).astype("f4")
    for padding, extra in ((1, 0), (0, 1)):
        arguments = {"stride": 2, "padding": padding, "output_padding": extra, "bias": np.arange(3, dtype="f4"), "activation": "relu"}
        got = nn.conv_transpose2d(Interface(grad), Interface(FILTERS), **arguments)
        np.testing.assert_array_equal(np.asarray(got), nn.conv_transpose2d(grad, FILTERS, **arguments))
    arguments = {"stride": 5, "padding": (3, 0), "output_padding": 4, "bias": np.arange(3, dtype="f4")}
    got = nn.conv_transpose2d(Interface(grad[:, :, :1, :1]), Interface(FILTERS), **arguments)
    np.testing.assert_array_equal(np.asarray(got), nn.conv_transpose2d(grad[:, :, :1, :1], FILTERS, **arguments))
    got = nn.conv2d_input((1, 3, 5, 6), Interface(FILTERS), Interface(grad))
    np.testing.assert_array_equal(np.asarray(got), nn.conv2d_input((1, 3, 5, 6), FILTERS, grad))
    image, grad = BATCH[:1, :1, :4, :5].copy(), grad[:1, :1, :3, :4].copy()
    got = nn.conv2d_weight(Interface(image), (1, 1, 2, 2), Interface(grad))
    np.testing.assert_array_equal(np.asarray(got), nn.conv2d_weight(image, (1, 1, 2, 2), grad))


def plans(patch):
    pretend(patch, {"torch": 5, "cupy": 6})
    bias = np.arange(4, dtype="f4")
    held = fastconv.plan(Tensor(BATCH), Tensor(FILTERS), Tensor(bias), padding=1)
    wanted = nn.conv2d(BATCH, FILTERS, bias, padding=1)
    for _ in range(3):
        np.testing.assert_array_equal(held(Tensor(BATCH)).array, wanted)
    out = Tensor(np.empty_like(wanted))
    assert held(Tensor(BATCH), out=out) is out
    np.testing.assert_array_equal(out.array, wanted)
    held.set_weight(2 * FILTERS, Tensor(bias))
    np.testing.assert_array_equal(held(Tensor(BATCH)).array, nn.conv2d(BATCH, 2 * FILTERS, bias, padding=1))
    assert str(held).startswith(f"({held.algorithm} {held.kernel} n2_ic3")
    with pytest.raises(ValueError, match="input must have shape"):
        held(Tensor(BATCH[:1]))
    with pytest.raises(TypeError, match="input must be on a CUDA device as planned"):
        held(BATCH)
    assert "multiprocessors" in fastconv.explain(Tensor(BATCH), Tensor(FILTERS))


CALLS = {function.__name__: function for function in (
    interface, views_of_any_strides, capsule, torch_and_cupy, weights_of_the_host, weights_of_rank_1, channels_last, out_and_overlap,
    mixed_places, host_arrays_there_and_back, transposed_and_gradients, plans,
)}  # fmt: skip


def main():
    for name, function in CALLS.items():
        try:
            with pytest.MonkeyPatch.context() as patch:
                function(patch)
            answer = "right"
        except BaseException:  # noqa: BLE001 (pytest's Failed is one; the parent fails with it)
            answer = "wrong: " + traceback.format_exc().replace("\n", "\\n")
        print(f"{name}: {answer}", flush=True)


if __name__ == "__main__":
    main()
