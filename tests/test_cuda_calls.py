"""Calls on arrays of a card, without one: in Numba's simulator with stand-ins for other libraries' arrays, and on a driver that is a fake.

Neither shows that a real driver takes what it is given; the tests marked gpu do.
"""

import ctypes
import functools
import threading
import time
import types

import numpy as np
import pytest

import fastconv
from fastconv.planning.devices import on_card
from tests.children import child
from tests.exporters import Capsule, Interface, Tensor

NEEDS = "numba-cuda is not installed (fastconv[cuda])"


@functools.cache
def verdicts():
    pytest.importorskip("cuda.core", reason=NEEDS)
    lines = child("from tests.simulated_calls import main; main()", NUMBA_ENABLE_CUDASIM="1").stdout.splitlines()
    return dict(line.split(": ", 1) for line in lines)


CALLS = ("interface", "views_of_any_strides", "capsule", "torch_and_cupy", "weights_of_the_host", "weights_of_rank_1", "channels_last",
         "arrays_that_no_kernel_reads", "memory_of_calls_and_plans", "plans_of_one_device",
         "out_and_overlap", "mixed_places", "host_arrays_there_and_back", "transposed_and_gradients", "plans",
         "filters_stay_on_the_stream", "operands_of_other_streams", "bfloats", "bfloats_of_ml_dtypes",
         "bfloats_that_cannot_run", "bfloats_of_gradients", "gradients_of_images_in_phases",
         "gradients_of_weights_in_parts", "given_back_as_the_exporter_has_it", "results_by_dlpack",
         "outs_that_are_not_written",
         "filters_of_a_kind", "filters_of_host_arrays", "filters_in_place", "filters_that_cannot_run",
         "plans_with_epilogues", "epilogues_in_one_launch")  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_simulated_call(call):
    answer = verdicts()[call]
    if "No module named 'ml_dtypes'" in answer:
        pytest.skip("ml_dtypes is not installed: its arrays are not convolved")
    assert answer == "right", answer.replace("\\n", "\n")


def test_every_simulated_call_is_listed():
    assert set(verdicts()) == set(CALLS)


def test_arrays_of_a_card_are_told_from_those_of_the_host():
    image = np.ones((3, 3))
    assert all(on_card(array) for array in (Interface(image), Capsule(image), Tensor(image)))
    assert not any(on_card(array) for array in (image, image.tolist(), memoryview(image), image[0, 0], None, 1, np.ma.array(image)))


def test_the_cuda_backend_is_imported_only_when_needed():
    child("""
import sys, numpy as np, fastconv
fastconv.conv2d(np.ones((3, 3)), np.ones((3, 3)), padding=1)
fastconv.correlate2d(np.ones((3, 3)), [[1.0]])
assert not any(name.startswith(("fastconv.cuda", "numba.cuda.", "cuda.")) for name in sys.modules)
""")


@pytest.fixture
def no_card():
    """Skips where there is a card: what is said without one cannot be seen."""
    pytest.importorskip("cuda.core", reason=NEEDS)
    from fastconv.cuda import driver

    try:
        driver.api()
    except driver.DriverError:
        return
    pytest.skip("there is a CUDA driver")


def test_without_a_card_host_arrays_are_computed_on_the_cpu_with_a_warning(no_card):
    image = np.arange(12.0).reshape(3, 4)
    with pytest.warns(RuntimeWarning, match="device='cuda' is computed on the CPU: no CUDA: "):
        got = fastconv.correlate2d(image, np.ones((2, 2)), device="cuda")
    np.testing.assert_array_equal(got, fastconv.correlate2d(image, np.ones((2, 2))))
    with pytest.warns(RuntimeWarning, match="device='cuda' is planned for the CPU: no CUDA: "):
        plan = fastconv.plan(image, np.ones((2, 2)), device="cuda")
    np.testing.assert_array_equal(plan(image), fastconv.conv2d(image, np.ones((2, 2))))


def test_without_a_card_arrays_of_one_raise(no_card):
    with pytest.raises(RuntimeError, match="in1 is on a CUDA device, where nothing can run: no CUDA: the driver library was not found"):
        fastconv.correlate2d(Interface(np.ones((3, 3))), np.ones((2, 2)))


class Found:
    """What a driver and a toolkit report, in place of those that are, or are not, there; what was found before is forgotten."""

    def __init__(self, patch, version=13000, cc=(9, 0), toolkit=13, started=0):
        pytest.importorskip("cuda.core", reason=NEEDS)
        from cuda.bindings import driver as bindings

        from fastconv.cuda import compile as compiler
        from fastconv.cuda import driver, target

        attributes = {"COMPUTE_CAPABILITY_MAJOR": cc[0], "COMPUTE_CAPABILITY_MINOR": cc[1]}
        kinds = {getattr(bindings.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}"): value for name, value in attributes.items()}
        replies = {
            "cuInit": lambda flags: (bindings.CUresult(started),),
            "cuGetErrorName": lambda status: (0, bindings.CUresult(status).name.encode()),
            "cuDeviceGetCount": lambda: (0, 1), "cuDriverGetVersion": lambda: (0, version), "cuDeviceGet": lambda n: (0, n),
            "cuCtxGetCurrent": lambda: (0, 0), "cuCtxSetCurrent": lambda context: (0,), "cuDevicePrimaryCtxRetain": lambda handle: (0, 7),
            "cuDeviceGetName": lambda size, handle: (0, b"Tesla X\0"),
            "cuDeviceGetAttribute": lambda kind, handle: (0, kinds.get(kind, 64)),
        }  # fmt: skip
        for name, reply in replies.items():
            patch.setattr(bindings, name, reply)
        patch.setattr(compiler, "toolkit", lambda: toolkit() if callable(toolkit) else toolkit)
        patch.setattr(compiler, "capabilities", lambda: ((7, 5), (8, 0), (9, 0), (10, 0)))
        self.caches = driver.api, driver.properties, driver._primary, target._described
        self.forget()

    def forget(self):
        for cache in self.caches:
            cache.cache_clear()


def no_toolkit():
    raise RuntimeError("libnvJitLink.so.13 not found")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"started": 100}, "no CUDA: the driver sees no device"),
        ({"started": 803}, r"no CUDA: the driver cannot start \(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH\)"),
        ({"version": 12080}, r"CUDA toolkit 13 is installed, but the driver is for CUDA 12\.8: install fastconv\[cuda12\], or a newer d"),
        ({"version": 11040, "toolkit": 12}, r"CUDA toolkit 12 is installed, but the driver is for CUDA 11\.4: install a newer driver"),
        ({"toolkit": no_toolkit}, r"the driver is for CUDA 13\.0, but no CUDA toolkit was found \(libnvJit.*\): install fastconv\[cuda\]$"),
        ({"version": 12040, "toolkit": no_toolkit}, r"the driver is for CUDA 12\.4, .* install fastconv\[cuda12\]$"),
        ({"cc": (7, 0)}, r"device 0, Tesla X, is of compute capability 7\.0, but CUDA toolkit 13 compiles for 7\.5 to 10\.0: install "
                         r"fastconv\[cuda12\]"),
        ({"cc": (12, 0)}, r".* compute capability 12\.0, but CUDA toolkit 13 compiles for 7\.5 to 10\.0: install a newer toolkit with "
                          r"fastconv\[cuda\]"),
    ],
)  # fmt: skip
def test_what_was_found_and_does_not_fit_is_said(found, words, monkeypatch):
    """Arrays of the host are computed on the CPU, with a warning; those of a card cannot be."""
    replaced = Found(monkeypatch, **found)
    image, taps = np.arange(12.0).reshape(3, 4), np.ones((2, 2))
    fastconv.signal._calls.clear()  # a call that went on on the CPU is remembered as one of it
    try:
        with pytest.warns(RuntimeWarning, match=f"device='cuda' is computed on the CPU: {words}"):
            got = fastconv.correlate2d(image, taps, device="cuda")
        np.testing.assert_array_equal(got, fastconv.correlate2d(image, taps))
        with pytest.warns(RuntimeWarning, match=f"device='cuda' is planned for the CPU: {words}"):
            plan = fastconv.plan(image, taps, device="cuda")
        np.testing.assert_array_equal(plan(image), fastconv.conv2d(image, taps))
        monkeypatch.setattr("fastconv.cuda.exchange.device_of", lambda address: 0)
        with pytest.raises(RuntimeError, match=f"in1 is on a CUDA device, where nothing can run: {words}"):
            fastconv.correlate2d(Interface(image), taps)
    finally:
        replaced.forget()


def test_without_the_bindings_their_extra_is_named(monkeypatch):
    pytest.importorskip("cuda.core", reason=NEEDS)
    import sys

    from fastconv.cuda import driver

    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    driver.api.cache_clear()
    fastconv.signal._calls.clear()
    with pytest.warns(RuntimeWarning, match=r"no CUDA: the package cuda-bindings is not installed; install fastconv\[cuda\]"):
        fastconv.correlate2d(np.ones((3, 4)), np.ones((2, 2)), device="cuda")
    driver.api.cache_clear()


class Driver:
    """A driver that only remembers: the part of cuda.bindings that a launch uses."""

    def __init__(self):
        self.launches = []

    def cuLaunchKernel(self, handle, *rest):
        *sizes, stream, kernel_parameters, extra = rest
        found = (ctypes.c_size_t * 5).from_address(extra)
        size = ctypes.c_size_t.from_address(found[3]).value
        assert (found[0], found[2], found[4], kernel_parameters) == (1, 2, 0, 0)
        self.launches.append((handle, sizes, stream, ctypes.string_at(found[1], size)))
        return (0,)


@pytest.fixture
def launch(monkeypatch):
    """A prepared launch of `direct`'s first kernel on the fake driver, and that driver."""
    pytest.importorskip("cuda.core", reason=NEEDS)
    from fastconv.cuda import direct, driver
    from fastconv.cuda.target import SM90

    fake, kernel = Driver(), direct.kernels(SM90)[0]
    monkeypatch.setattr(driver, "api", lambda: fake)
    monkeypatch.setattr(driver, "current", lambda device=None: 0)
    monkeypatch.setattr(driver, "loaded", lambda kernel, device: "handle")
    at, extents = tuple(range(100, 100 + len(kernel.at))), tuple(range(len(kernel.extents)))
    return driver.Launch(kernel, (3, 4, 5), at, np.arange(4.0), extents, 64, 0), fake, kernel, at, extents


def test_a_launch_replaces_addresses_and_keeps_the_rest(launch):
    from fastconv.cuda import compile as compiler

    prepared, fake, kernel, at, extents = launch
    prepared(9, 1 << 40, 2 << 40, 0, 3 << 40)
    handle, sizes, stream, block = fake.launches[-1]
    assert (handle, stream, tuple(sizes)) == ("handle", 9, (3, 4, 5, *kernel.block, 64))
    found = compiler.unpacked(kernel, block)
    assert found[0][:4] == (1 << 40, 2 << 40, 0, 3 << 40)
    assert found[0][4:] == at[4:]
    assert found[1] == (0, 1, 2, 3)
    assert found[2] == extents


def test_threads_launch_with_their_own_parameters(launch):
    prepared, fake, *_ = launch
    gate = threading.Barrier(4)

    def queue(number):
        gate.wait()
        for n in range(200):
            prepared(number, number * 1000 + n, number, 0, number)

    threads = [threading.Thread(target=queue, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = [(stream, *np.frombuffer(block, np.int64, 4).tolist()) for _, _, stream, block in fake.launches]
    assert sorted(seen) == sorted((t, t * 1000 + n, t, 0, t) for t in range(4) for n in range(200))


def test_a_refused_launch_says_so(launch):
    from fastconv.cuda.driver import DriverError

    prepared, fake, kernel, _, _ = launch
    fake.cuGetErrorName = lambda status: (0, b"CUDA_ERROR_LAUNCH_FAILED")
    prepared._launch = lambda *arguments: (719,)
    with pytest.raises(DriverError, match=f"cannot launch {kernel.name}: CUDA_ERROR_LAUNCH_FAILED"):
        prepared(0, 1, 2, 3, 4)


@pytest.mark.parametrize("epilogue", [None, fastconv.nn.Epilogue(scale=0.5, shift=np.ones(1, "f4"), activation="relu")])
def test_the_host_part_of_a_planned_call_takes_less_than_10_microseconds(epilogue, launch, monkeypatch):
    """Of a plan's call on a stand-in for a CuPy array, but for what the driver, CuPy's allocator and its look at the stream take.

    The driver that it runs on can launch kernels and nothing else: no memory is taken and nothing waits, so that a graph can hold the call.
    """
    from fastconv.cuda import driver, exchange
    from fastconv.cuda.arrays import DeviceArray
    from fastconv.cuda.target import SM90
    from fastconv.planning import devices
    from tests.exporters import Chip, pretend

    _, fake, *_ = launch
    calls = []
    fake.cuLaunchKernel = lambda *arguments: (calls.append(0), (0,))[1]
    pretend(monkeypatch, {"torch": 0, "cupy": 0})
    monkeypatch.setattr(driver, "uploaded", lambda array, device=None: types.SimpleNamespace(address=16, device=0))
    monkeypatch.setattr("fastconv.cuda.copy.uploaded", driver.uploaded)
    monkeypatch.setattr(driver, "settle", lambda stream=0: None)
    monkeypatch.setattr("fastconv.cuda.target.detect", lambda device=None: SM90)
    image = Chip(np.ones((1, 1, 512, 512), "f4"))
    plan = fastconv.plan((1, 1, 512, 512), (1, 1, 3, 3), device="cuda", padding=1, epilogue=epilogue)
    plan.set_weight(np.ones((1, 1, 3, 3), "f4"))
    made = image, DeviceArray(1 << 20, image.shape, None, image.dtype)
    monkeypatch.setattr(exchange, "created", lambda *arguments: made)
    assert devices.on_card(image)
    plan(image)
    best = least_seconds(lambda: plan(image))
    assert len(calls) > CALLS_OF_A_BURST
    assert best < 10e-6, f"{best * 1e6:.1f} us"
    print(f"{best * 1e6:.1f} us")


CALLS_OF_A_BURST = 50


def least_seconds(call, enough=10e-6, patience=10):
    """The mean time of a call in the quickest burst: until one is quick enough, or for so many seconds.

    What a busy machine takes from a burst is no part of the call: other processes' turns, their share of caches and of the clock.
    """
    best, end = float("inf"), time.monotonic() + patience
    while best >= enough and time.monotonic() < end:
        start = time.perf_counter()
        for _ in range(CALLS_OF_A_BURST):
            call()
        best = min(best, (time.perf_counter() - start) / CALLS_OF_A_BURST)
    return best


def test_the_driver_is_called_with_arguments_it_has(no_card):
    """Every function of cuda.bindings that fastconv calls takes what it is given, up to the look for the driver's library."""
    from cuda.bindings import driver as d

    event, device, function = d.CUevent(0), d.CUdevice(0), d.CUfunction(0)
    most = d.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    calls = {
        "cuLaunchKernel": (function, 1, 1, 1, 1, 1, 1, 0, 7, 0, 4096), "cuModuleLoadData": (b"code",),
        "cuModuleGetFunction": (d.CUmodule(0), b"name"), "cuFuncSetAttribute": (function, most, 100),
        "cuMemcpyHtoDAsync": (4096, 8192, 16, 0), "cuMemcpyDtoHAsync": (4096, 8192, 16, 0), "cuMemcpyDtoDAsync": (4096, 8192, 16, 0),
        "cuMemAlloc": (16,), "cuMemAllocAsync": (16, 0), "cuMemFree": (4096,), "cuMemFreeAsync": (4096, 0), "cuMemHostAlloc": (16, 0),
        "cuEventCreate": (2,), "cuEventRecord": (event, 5), "cuEventSynchronize": (event,), "cuEventElapsedTime": (event, event),
        "cuEventDestroy": (event,), "cuStreamWaitEvent": (5, event, 0), "cuCtxGetCurrent": (), "cuCtxSetCurrent": (d.CUcontext(0),),
        "cuCtxGetDevice": (), "cuDeviceGet": (0,), "cuDeviceGetCount": (), "cuDriverGetVersion": (), "cuDeviceGetName": (128, device),
        "cuDevicePrimaryCtxRetain": (device,), "cuStreamSynchronize": (5,),
        "cuDeviceGetAttribute": (d.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, device),
        "cuPointerGetAttribute": (d.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, 4096),
        "cuGetErrorName": (d.CUresult.CUDA_ERROR_INVALID_VALUE,),
    }  # fmt: skip
    for name, arguments in calls.items():
        with pytest.raises(RuntimeError, match="driver library"):
            getattr(d, name)(*arguments)
    assert d.CUresult.CUDA_SUCCESS == 0
    assert d.CUresult.CUDA_ERROR_INVALID_VALUE != 0
