"""Calls on arrays of a card, in Numba's simulator with stand-ins for other libraries' arrays: one line ``NAME: verdict`` for each.

Run as ``NUMBA_ENABLE_CUDASIM=1 python -m tests.simulated_calls``.
"""

import ctypes
import pickle
import traceback
from types import SimpleNamespace

import numpy as np
import pytest

import fastconv
from fastconv import ndimage, nn, opencv
from fastconv.cuda import dlpack, driver, exchange, transfer
from fastconv.planning.bfloat import BITS, narrowed
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
        fastconv.plan(needy, Tensor(FILTERS))
    with pytest.raises(TypeError, match="image must not require a gradient"):
        exchange.received("image", needy)


class Standard(Capsule):
    """An exporter of DLPack whose library is of the array API: it takes what exports DLPack, here as the host's."""

    taken = SimpleNamespace(append=lambda value: None)

    def __array_namespace__(self):
        return SimpleNamespace(from_dlpack=lambda value: self.taken.append(value) or Standard(of_capsule(value)))


def of_capsule(value, stream=None):
    """What a capsule says, as an array of the host, and the code of its type."""
    assert value.__dlpack_device__() == (2, 0)
    capsule = value.__dlpack__(stream=stream, max_version=(1, 0))
    seen = dlpack.imported("it", SimpleNamespace(__dlpack__=lambda stream: capsule))
    array = np.ndarray(seen.shape, seen.dtype, (ctypes.c_char * seen.nbytes).from_address(seen.address), 0, seen.strides).copy()
    assert len(dlpack._lent) > 0
    return array


def given_back_as_the_exporter_has_it(patch):
    """The library is told of the result when the work is queued, so that what it makes wait waits for it."""
    order, launch = [], driver.Launch.__call__
    patch.setattr(driver.Launch, "__call__", lambda this, *rest: (order.append("launch"), launch(this, *rest))[1])
    patch.setattr(Standard, "taken", SimpleNamespace(append=lambda value: order.append("taken")))
    got = fastconv.correlate2d(Standard(IMAGE), TAPS)
    assert type(got) is Standard
    assert order == ["launch", "taken"]
    np.testing.assert_array_equal(got.array, fastconv.correlate2d(IMAGE, TAPS))
    order.clear()
    planned = fastconv.plan(Standard(IMAGE), TAPS)(Standard(IMAGE))
    assert order == ["launch", "taken"]
    np.testing.assert_array_equal(planned.array, nn.conv2d(IMAGE, TAPS))
    assert not dlpack._lent, "a capsule that nobody consumed gives its memory back"


def results_by_dlpack(patch):
    streams = []
    patch.setattr(driver.Event, "record", lambda event, stream: streams.append(stream))
    patch.setattr(driver.Event, "hold", lambda event, stream: streams.append(stream))
    got = fastconv.correlate2d(Interface(IMAGE, 77), Interface(TAPS, 77))
    for stream, held in ((77, []), (-1, []), (None, [77, 1]), (9, [77, 9])):
        streams.clear()
        np.testing.assert_array_equal(of_capsule(got, stream), fastconv.correlate2d(IMAGE, TAPS))
        assert streams == held, "the consumer's stream waits for the work"
    image, filters = narrowed(BATCH), narrowed(FILTERS)
    result = nn.conv2d(Capsule(image), filters)
    array = of_capsule(result)
    assert array.dtype == BITS
    np.testing.assert_array_equal(array.view("u2"), nn.conv2d(image, filters, algorithm="reference").view("u2"))
    with pytest.raises(BufferError, match="without a copy"):
        result.__dlpack__(copy=True)
    assert not dlpack._lent


def outs_that_are_not_written(patch):
    out = Interface(np.zeros((11, 23), "f4"))
    out.writeable = False
    with pytest.raises(ValueError, match="out must be writeable, got a read-only array"):
        fastconv.correlate2d(Interface(IMAGE), TAPS, out=out)
    assert not out.array.any()


def weights_of_the_host(patch):
    """They are on the device before another stream's kernel is launched."""
    wanted, done = nn.conv2d(BATCH, FILTERS, np.arange(4), stride=2), []
    image, launch = Interface(BATCH, 77), driver.Launch.__call__
    patch.setattr(driver.Launch, "__call__", lambda this, stream, *rest: (done.append(stream), launch(this, stream, *rest))[1])
    patch.setattr(driver, "settle", lambda stream=0: done.append("there"))
    got = nn.conv2d(image, FILTERS, np.arange(4), stride=2, algorithm="implicit_gemm")
    np.testing.assert_array_equal(np.asarray(got), wanted)
    assert done == ["there", "there", 0, "there", 77], "bias, weights, these packed"
    done.clear()
    fastconv.plan(image, FILTERS, stride=2, algorithm="implicit_gemm")
    assert done == ["there", 0, "there", "there"], "and what the plan keeps"


def memory_of_calls_and_plans(patch):
    """A call's is given back in the order of the stream, so that nothing waits; a plan's is not, since any stream may use it."""
    pretend(patch, {"torch": 5})
    taken, made, settled = [], driver.Memory.__init__, []
    patch.setattr(driver.Memory, "__init__", lambda this, *rest: (made(this, *rest), taken.append(this.stream))[0])
    patch.setattr(driver, "settle", lambda stream=0: settled.append(stream))
    wide, planes = Tensor(FILTERS.astype("f8")), Tensor(BATCH[:1, :, :3, :3].transpose(0, 2, 3, 1).copy())
    for weights, how in (
        (wide, {"algorithm": "implicit_gemm"}), (Tensor(FILTERS), {"algorithm": "winograd"}),
        (Tensor(FILTERS), {"algorithm": "direct", "dtype": "f8"}),
        (Tensor(np.ones((2, 2, 1, 3), "f4")), {"data_format": "NHWC", "groups": 3, "algorithm": "depthwise"}),
    ):  # fmt: skip
        taken.clear()
        image = planes if weights.shape[0] == 2 else Tensor(BATCH[:1, :, :3, :3].astype("f8" if weights is wide else "f4"))
        nn.conv2d(image, weights, **how)
        assert taken, how
        assert set(taken) == {5}
        assert not settled
    taken.clear()
    fastconv.plan(Tensor(BATCH), Tensor(FILTERS), algorithm="implicit_gemm")
    assert set(taken) == {None}
    assert settled == [5]
    taken.clear()
    fastconv.plan(Tensor(BATCH), Tensor(FILTERS), epilogue=nn.Epilogue(scale=Tensor(np.ones(4, "f4"))), algorithm="implicit_gemm")
    assert set(taken) == {None}
    assert settled == [5, 5, 5]


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


def arrays_that_no_kernel_reads(patch):
    records = np.zeros((9, 21), [("a", "f4"), ("b", "u2")])
    moved = np.ndarray((9, 21), "f4", np.zeros(800, np.uint8).data, 2)
    swapped, apart = Interface(IMAGE.astype(">f4")), Interface(records["a"])
    for words, call in (
        ("in1 must be in native byte order on a CUDA device, got dtype >f4", lambda: fastconv.correlate2d(swapped, TAPS)),
        (r"in1 must have elements at multiples of 4 bytes .* strides \(126, 6\)", lambda: fastconv.correlate2d(apart, TAPS)),
        ("in1 must have elements at multiples of 4 bytes", lambda: fastconv.correlate2d(Interface(moved), TAPS)),
        ("in2 must have elements at multiples", lambda: fastconv.correlate2d(Interface(IMAGE), Interface(moved[:3, :3]))),
        ("out must have elements at multiples", lambda: fastconv.correlate2d(Interface(IMAGE), TAPS, "same", out=apart)),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert not records["a"].any()


def plans_of_one_device(patch):
    pretend(patch, {"torch": 5})
    here, there = Tensor(IMAGE), Tensor(IMAGE)
    there.device = type(here.device)()
    there.device.index = 1
    plan = fastconv.plan(here, TAPS)
    with pytest.raises(ValueError, match="input must be on device 0 as planned, got device 1"):
        plan(there)
    with pytest.raises(ValueError, match="weight must be on the device of input, 1, got device 0"):
        fastconv.plan(there, Tensor(TAPS))


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


def plans_with_epilogues(patch):
    epilogue = nn.Epilogue(scale=1 / 3, shift=[1, 2, 3, 4], activation="relu", dtype="u1")
    image, weights = BATCH[:1, :, :5], FILTERS
    wanted = nn.conv2d(image, weights, epilogue=epilogue)
    held = fastconv.plan(Interface(image), Interface(weights), epilogue=epilogue)
    for plan in (held, pickle.loads(pickle.dumps(held))):
        np.testing.assert_array_equal(np.asarray(plan(Interface(image))), wanted)
    out = np.zeros(wanted.shape, "u1")
    held(Interface(image), out=Interface(out))
    np.testing.assert_array_equal(out, wanted)


def epilogues_in_one_launch(patch):
    """Of kernels that finish their sums; the others are followed by one that does."""
    names = []
    launch = driver.Launch.__call__
    patch.setattr(driver.Launch, "__call__", lambda this, *rest: (names.append(this._kernel.name), launch(this, *rest))[1])
    scale, image = np.arange(1, 5).astype("f4") / 3, BATCH[:1, :, :5]
    for types, fields, launches in (
        (("f4", "f4"), {"scale": scale, "shift": 0.5, "activation": "relu"}, 1),
        (("f4", "f4"), {"activation": "relu6", "dtype": "u1"}, 1),
        (("f4", "f4"), {"scale": scale, "dtype": "i1", "zero_point": -9}, 1),
        (("f2", "f2"), {"scale": scale.astype("f2"), "shift": 0.3, "activation": ("leaky_relu", 0.1)}, 1),
        (("f2", "f2"), {"scale": scale, "dtype": "f4"}, 1),
        (("u1", "i1"), {"scale": scale, "dtype": "u1", "zero_point": 128}, 1),
        (("f8", "f8"), {"shift": scale.astype("f8"), "dtype": "i2"}, 1),
        (("f4", "f4"), {"scale": scale, "activation": "gelu"}, 2),
        (("f4", "f4"), {"scale": scale.astype("f8")}, 2),
        (("f4", "f4"), {"scale": scale, "dtype": "i8"}, 2),
        (("i4", "i4"), {"activation": "relu", "dtype": "i1"}, 2),
    ):
        x, w, epilogue = np.abs(image).astype(types[0]), FILTERS.astype(types[1]), nn.Epilogue(**fields)
        plan = fastconv.plan(Interface(x), Interface(w), epilogue=epilogue)
        names.clear()
        got = np.asarray(plan(Interface(x)))
        assert len(names) == launches, names
        if epilogue.activation != "gelu":  # which is not rounded alike
            np.testing.assert_array_equal(got, nn.conv2d(x, w, epilogue=epilogue), str(fields))
    for fields, launches in (({"scale": scale}, 1), ({"activation": "tanh"}, 2)):
        names.clear()
        got = nn.conv2d(Interface(image), Interface(FILTERS), epilogue=nn.Epilogue(**fields, dtype=BITS), algorithm="direct")
        wanted = narrowed(nn.conv2d(image, FILTERS, epilogue=nn.Epilogue(**fields), algorithm="reference"))
        np.testing.assert_array_equal(np.asarray(got).view("u2"), wanted.view("u2"))
        assert len(names) == launches, names
    # a residual that lies otherwise than the results, or is of a narrower type, is copied; kernels read weights in the type of sums
    residual = RNG.integers(-8, 9, (1, 4, 3, 9)).astype("f4")
    for dtype, beside, launches in (
        ("f4", residual, ["direct"]), ("f2", residual.astype("f2"), ["copy", "direct"]),
        ("f4", residual.transpose(3, 2, 1, 0).copy().T, ["copy", "direct"]), ("f4", residual.astype("f2"), ["copy", "direct"]),
        ("f2", residual, ["copy", "direct", "pointwise"]),
    ):  # fmt: skip
        x, w = image.astype(dtype), FILTERS.astype(dtype)
        names.clear()
        got = nn.conv2d(Interface(x), Interface(w), epilogue=nn.Epilogue(residual=Interface(beside)), algorithm="direct")
        np.testing.assert_array_equal(np.asarray(got), nn.conv2d(x, w, epilogue=nn.Epilogue(residual=beside)))
        assert [name.partition("_")[0] for name in names] == launches


def filters_stay_on_the_stream(patch):
    """Nothing is read by the host, nothing waits, and every kernel is queued where the image's work is."""
    patch.setattr(driver, "read", lambda *arguments: pytest.fail("device memory was read"))
    patch.setattr(driver.Event, "wait", lambda event: pytest.fail("something waited"))
    streams = Streams(patch)
    image, holes = Interface(IMAGE, 77), Interface(np.where(IMAGE > 5, np.float32(np.nan), IMAGE), 77)
    results = (
        ndimage.gaussian_gradient_magnitude(image, 0.7), ndimage.correlate(holes, np.eye(3), output=np.uint8), opencv.Laplacian(holes, -1),
        opencv.filter2D(image, -1, TAPS, delta=1), fastconv.correlate2d(holes, Interface(TAPS, 77), mask="nan"),
        nn.conv2d(image, Interface(TAPS, 77), epilogue=nn.Epilogue(shift=2.0, dtype="u1")),
    )  # fmt: skip
    assert all(result.__cuda_array_interface__["stream"] == 77 for result in results)
    assert set(streams.seen) == {77}


def operands_of_other_streams(patch):
    """What is made of them is queued where the image's work is, which waits for theirs."""
    streams = Streams(patch)
    holds = []
    patch.setattr(driver.Event, "record", lambda event, stream: holds.append(stream))
    patch.setattr(driver.Event, "hold", lambda event, stream: holds.append(stream))
    how = {"epilogue": nn.Epilogue(scale=Interface(np.arange(4), 5), residual=Interface(np.ones((2, 4, 5, 9), "f8"), 6))}
    bias = Interface(np.arange(4, dtype="i2"), 8)
    got = nn.conv2d(Interface(BATCH, 77), Interface(FILTERS.astype("f8"), 9), bias, dtype="f4", **how)
    assert set(streams.seen) == {77}
    assert holds == [9, 77, 8, 77, 5, 77, 6, 77]
    how = {"epilogue": nn.Epilogue(scale=np.arange(4), residual=np.ones((2, 4, 5, 9)))}
    np.testing.assert_array_equal(np.asarray(got), nn.conv2d(BATCH, FILTERS.astype("f8"), bias.array, dtype="f4", **how))


def filters_of_a_kind(patch):
    pretend(patch, {"torch": 5, "cupy": 6})
    for kind in (Tensor, Chip):
        got = ndimage.prewitt(kind(IMAGE))
        assert type(got) is kind
        np.testing.assert_array_equal(got.array, ndimage.prewitt(IMAGE))
        out = kind(np.zeros(IMAGE.shape, "i4"))
        assert ndimage.sobel(kind(IMAGE), output=out) is out
        np.testing.assert_array_equal(out.array, ndimage.sobel(IMAGE, output="i4"))
        out = kind(np.zeros(IMAGE.shape, "f4"))
        assert opencv.filter2D(kind(IMAGE), -1, TAPS, dst=out) is out
        np.testing.assert_array_equal(out.array, opencv.filter2D(IMAGE, -1, TAPS))
        other = kind(np.zeros((3, 3), "f4"))
        assert opencv.Sobel(kind(IMAGE), -1, 1, 0, dst=other) is not other
        assert not other.array.any()


def filters_of_host_arrays(patch):
    image = IMAGE.astype("u1")
    np.testing.assert_array_equal(ndimage.sobel(image, device="cuda"), ndimage.sobel(image))
    out = np.zeros(image.shape, ">i2")
    assert ndimage.correlate(image, TAPS, output=out, device="cuda") is out
    np.testing.assert_array_equal(out, ndimage.correlate(image, TAPS, output="i2"))
    into = np.zeros(image.shape, "u1")
    assert opencv.blur(image, (3, 3), dst=into, device="cuda") is into
    np.testing.assert_array_equal(into, opencv.blur(image, (3, 3)))
    wanted = nn.conv2d(image, TAPS, epilogue=nn.Epilogue(scale=0.5, dtype="u1"))
    np.testing.assert_array_equal(nn.conv2d(image, TAPS, epilogue=nn.Epilogue(scale=0.5, dtype="u1"), device="cuda"), wanted)
    with pytest.raises(ValueError, match="out must have shape"):
        nn.conv2d(image, TAPS, device="cuda", out=np.zeros((3, 3), "f4"))


def filters_in_place(patch):
    for filtered in (lambda x, **out: ndimage.gaussian_laplace(x, 0.6, **out), lambda x, **out: ndimage.correlate(x, np.eye(2), **out)):
        itself = IMAGE.copy()
        itself[4, 7] = np.nan
        wanted = filtered(itself.copy(), precision="strict")
        filtered(Interface(itself), output=Interface(itself), precision="strict")
        np.testing.assert_array_equal(itself, wanted)
    itself = IMAGE.copy()
    wanted = opencv.filter2D(itself, -1, TAPS)
    opencv.filter2D(Interface(itself), -1, TAPS, dst=Interface(itself))
    np.testing.assert_array_equal(itself, wanted)
    image, weights, residual = BATCH[:1, :, :4, :6], FILTERS[:2], np.arange(16, dtype="f4").reshape(1, 2, 2, 4)
    wanted = nn.conv2d(image, weights, epilogue=nn.Epilogue(residual=residual.copy(), activation="relu"))
    card = Interface(residual)
    nn.conv2d(Interface(image), weights, epilogue=nn.Epilogue(residual=card, activation="relu"), out=card)
    np.testing.assert_array_equal(residual, wanted)


def filters_that_cannot_run(patch):
    image = Interface(IMAGE)
    for error, words, call in (
        (TypeError, "input must be on a CUDA device as weights is", lambda: ndimage.correlate(IMAGE, Interface(TAPS))),
        (ValueError, "weights must be real", lambda: ndimage.correlate(image, Interface(1j * TAPS))),
        (TypeError, "kernelX must be an array of the host", lambda: opencv.sepFilter2D(image, -1, Interface(TAPS[0]), TAPS[0])),
        (TypeError, "src must be on a CUDA device as kernel is", lambda: opencv.filter2D(IMAGE, -1, Interface(TAPS))),
        (TypeError, "output must be on a CUDA device as input is", lambda: ndimage.sobel(image, output=np.zeros((9, 21)))),
        (TypeError, "input must be on a CUDA device as output is", lambda: ndimage.sobel(IMAGE, output=image)),
        (ValueError, "output must have shape", lambda: ndimage.sobel(image, output=Interface(TAPS))),
        (RuntimeError, "boundary mode not supported", lambda: ndimage.sobel(image, mode="there")),
        (RuntimeError, r"weights.ndim \(1\) must match", lambda: ndimage.correlate(image, [1.0])),
        (ValueError, "input and weights must be real.*complex64", lambda: ndimage.gaussian_gradient_magnitude(Interface(1j * IMAGE), 1)),
        (ValueError, "weights .* along at most two axes", lambda: ndimage.correlate(Interface(BATCH), np.ones((1, 2, 2, 2)))),
        (ValueError, "ksize .* must be odd", lambda: opencv.GaussianBlur(image, (2, 2), 1)),
        (ValueError, "mask must be None on a CUDA device for complex", lambda: fastconv.correlate2d(image, 1j * TAPS, mask="nan")),
        (ValueError, "mask must have in1's shape", lambda: fastconv.correlate2d(image, TAPS, mask=Interface(TAPS > 2))),
        (ValueError, "residual must be None in a plan", lambda: fastconv.plan(image, TAPS, epilogue=nn.Epilogue(residual=IMAGE[:7, :19]))),
        (TypeError, "dtype of the epilogue must", lambda: nn.conv2d(image, TAPS, epilogue=nn.Epilogue(dtype=bool))),
        (ValueError, "device must be None or 'cuda' for arrays", lambda: opencv.blur(image, (3, 3), device="cpu")),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            call()


CALLS = {function.__name__: function for function in (
    interface, views_of_any_strides, capsule, torch_and_cupy, weights_of_the_host, weights_of_rank_1, channels_last, out_and_overlap,
    arrays_that_no_kernel_reads, memory_of_calls_and_plans, plans_of_one_device, mixed_places,
    host_arrays_there_and_back, transposed_and_gradients, plans,
    filters_stay_on_the_stream, operands_of_other_streams, given_back_as_the_exporter_has_it, results_by_dlpack,
    outs_that_are_not_written,
    filters_of_a_kind, filters_of_host_arrays, filters_in_place, filters_that_cannot_run, plans_with_epilogues, epilogues_in_one_launch,
)}  # fmt: skip


def report(calls):
    """One line for each."""
    for name, function in calls.items():
        try:
            with pytest.MonkeyPatch.context() as patch:
                function(patch)
            answer = "right"
        except BaseException:  # noqa: BLE001 (pytest's Failed is one; the parent fails with it)
            answer = "wrong: " + traceback.format_exc().replace("\n", "\\n")
        print(f"{name}: {answer}", flush=True)


def main():
    from tests import simulated_bfloat, simulated_gradients

    report(CALLS | simulated_bfloat.CALLS | simulated_gradients.CALLS)


if __name__ == "__main__":
    main()
