"""driver: what fastconv asks of the CUDA driver, through cuda.bindings: devices, memory, loaded kernels, launches.

A launch is prepared once: its parameters lie in a block of bytes in which a call replaces the addresses of the arrays, and the driver
copies that block.  Work goes to the stream that the caller's arrays name; nothing here waits for it, but for `Event.wait` and
`settle`.  In Numba's simulator memory is NumPy's and a launch runs the kernel's Python.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from . import compile as compiler
from .simd import SIMULATED
from .twin import Twin

_ENDED, _POINTER, _SIZE = 0, 1, 2  # CU_LAUNCH_PARAM_*
MOST_GRID = (2**31 - 1, 65535, 65535)


def parts(extent: int, size: int) -> int:
    """How many parts of a size hold an extent."""
    return -(-extent // size)


class DriverError(RuntimeError):
    """The driver is missing, does not fit, or refused something."""


@functools.cache
def api() -> Any:
    """cuda.bindings' driver module, initialised.

    Raises
    ------
    DriverError
        Saying what was found: no package, no driver library, no card.
    """
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise DriverError(f"no CUDA: the package cuda-bindings is not installed; install fastconv[cuda] ({error})") from error
    try:
        (status,) = driver.cuInit(0)
    except (RuntimeError, OSError) as error:  # cuda.pathfinder's DynamicLibNotFoundError is a RuntimeError
        raise DriverError(f"no CUDA: the driver library was not found ({error})") from error
    if status == driver.CUresult.CUDA_ERROR_NO_DEVICE:
        raise DriverError("no CUDA: the driver sees no device")
    if status != driver.CUresult.CUDA_SUCCESS:
        raise DriverError(f"no CUDA: the driver cannot start ({_name(driver, status)})")
    return driver


def _name(driver: Any, status: Any) -> str:
    _, name = driver.cuGetErrorName(status)
    return name.decode() if isinstance(name, bytes) else str(status)


def checked(result: tuple[Any, ...], what: str) -> Any:
    """What a driver call returned behind its status: nothing, one value or several.

    Raises
    ------
    DriverError
    """
    status, *values = result
    if status != 0:
        raise DriverError(f"the CUDA driver cannot {what}: {_name(api(), status)}")
    return values[0] if len(values) == 1 else values


def count() -> int:
    """Cards that the driver sees."""
    return 1 if SIMULATED else int(checked(api().cuDeviceGetCount(), "count devices"))


@functools.cache
def _primary(device: int) -> Any:
    """The device's primary context, which every framework uses."""
    handle = checked(api().cuDeviceGet(device), f"find device {device}")
    return checked(api().cuDevicePrimaryCtxRetain(handle), f"open device {device}")


def current(device: int | None = None) -> int:
    """Make a device's primary context this thread's, unless it is; without a number, any that is current, else device 0's."""
    if SIMULATED:
        return 0
    driver = api()
    context = checked(driver.cuCtxGetCurrent(), "tell the current context")
    if device is None:
        if int(context):
            return int(checked(driver.cuCtxGetDevice(), "tell the current device"))
        device = 0
    if int(context) != int(_primary(device)):
        checked(driver.cuCtxSetCurrent(_primary(device)), f"use device {device}")
    return device


_EXTRAS = {12: "fastconv[cuda12]", 13: "fastconv[cuda]"}  # the toolkit's version -> what installs it


class Properties(NamedTuple):
    """What the driver says of a device; clocks in Hz, the bus in bytes."""

    name: str
    cc: tuple[int, int]
    units: int
    shared: int
    l2: int
    clock: float
    memory_clock: float
    bus: int


@functools.cache
def properties(device: int) -> Properties:
    """Of a device, which becomes the current one.

    Raises
    ------
    DriverError
        No device, no toolkit, a driver older than it, or a card that it does not compile for: with what was found, and what to install.
    """
    driver = api()
    if count() == 0:
        raise DriverError("no CUDA: the driver sees no device")
    version = int(checked(driver.cuDriverGetVersion(), "tell its version"))
    found, fitting = f"the driver is for CUDA {version // 1000}.{version % 1000 // 10}", _EXTRAS.get(version // 1000)
    try:
        toolkit = compiler.toolkit()
    except (ImportError, OSError, RuntimeError) as error:
        raise DriverError(f"{found}, but no CUDA toolkit was found ({error}): install {fitting or 'fastconv[cuda]'}") from error
    if version // 1000 < toolkit:
        install = f"{fitting}, or a newer driver" if fitting else "a newer driver"
        raise DriverError(f"CUDA toolkit {toolkit} is installed, but {found}: install {install}")
    handle = checked(driver.cuDeviceGet(current(device)), f"find device {device}")
    kinds = driver.CUdevice_attribute

    def read(name: str) -> int:
        return int(checked(driver.cuDeviceGetAttribute(getattr(kinds, f"CU_DEVICE_ATTRIBUTE_{name}"), handle), f"tell {name}"))

    name = checked(driver.cuDeviceGetName(128, handle), "tell the device's name").split(b"\0")[0].decode()
    cc, able = (read("COMPUTE_CAPABILITY_MAJOR"), read("COMPUTE_CAPABILITY_MINOR")), compiler.capabilities()
    if cc not in able:
        own, first, last = (f"{one[0]}.{one[1]}" for one in (cc, min(able), max(able)))
        install = "a newer toolkit with fastconv[cuda]" if cc > min(able) else _EXTRAS.get(toolkit - 1, "a newer card")
        raise DriverError(f"device {device}, {name}, is of compute capability {own}, but CUDA toolkit {toolkit} compiles for {first} to "
                          f"{last}: install {install}")  # fmt: skip
    return Properties(name, cc,
                      read("MULTIPROCESSOR_COUNT"), read("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"), read("L2_CACHE_SIZE"),
                      1e3 * read("CLOCK_RATE"), 1e3 * read("MEMORY_CLOCK_RATE"), read("GLOBAL_MEMORY_BUS_WIDTH") // 8)  # fmt: skip


_local = threading.local()


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """What this thread takes of memory meanwhile is kept, for work of any stream."""
    before, _local.lasting = getattr(_local, "lasting", False), True
    try:
        yield
    finally:
        _local.lasting = before


class Memory:
    """Bytes of a device, freed with this object; ``address`` is the first one's.

    With a ``stream`` they are taken and given back in that stream's order, for what only its work uses; without one, and of `lasting`
    memory, giving them back waits for all work of the device.
    """

    def __init__(self, size: int, device: int | None = None, stream: int | None = None) -> None:
        self.address = 0
        self.size = size
        self._host: Any = None
        self.stream = stream = None if getattr(_local, "lasting", False) else stream
        self.device = current(device)
        if SIMULATED:
            self._host = np.empty(-(-size // 16) + 1, np.complex128)
            self.address = int(self._host.ctypes.data)
            Twin.memories[self.address] = self.address + size
        elif stream is None:
            self.address = int(checked(api().cuMemAlloc(max(size, 1)), f"allocate {size} bytes"))
        else:
            self.address = int(checked(api().cuMemAllocAsync(max(size, 1), stream), f"allocate {size} bytes"))

    def __del__(self) -> None:
        if self._host is not None:
            Twin.memories.pop(self.address, None)
        elif self.address:
            current(self.device)
            if self.stream is None:
                api().cuMemFree(self.address)
            else:
                api().cuMemFreeAsync(self.address, self.stream)


def settle(stream: int = 0) -> None:
    """Wait for a stream's work: other streams need not wait for the default one's, nor for copies from pageable memory."""
    if not SIMULATED:
        checked(api().cuStreamSynchronize(stream), "wait for a stream")


def write(address: int, host: int, size: int, stream: int) -> None:
    """Queue a copy from the host, which may be changed on return unless it is pinned memory."""
    if SIMULATED:
        ctypes.memmove(address, host, size)
    elif size:
        checked(api().cuMemcpyHtoDAsync(address, host, size, stream), f"copy {size} bytes to the device")


def read(host: int, address: int, size: int, stream: int) -> None:
    """Queue a copy to the host; done on return unless the host's memory is pinned."""
    if SIMULATED:
        ctypes.memmove(host, address, size)
    elif size:
        checked(api().cuMemcpyDtoHAsync(host, address, size, stream), f"copy {size} bytes from the device")


class Event:
    """A point in a stream's work."""

    def __init__(self) -> None:
        self._handle = None if SIMULATED else checked(api().cuEventCreate(2), "create an event")  # 2: without times

    def record(self, stream: int) -> None:
        """Put the event behind the stream's work."""
        if self._handle is not None:
            checked(api().cuEventRecord(self._handle, stream), "record an event")

    def wait(self) -> None:
        """Until the work before it is done."""
        if self._handle is not None:
            checked(api().cuEventSynchronize(self._handle), "wait for an event")

    def hold(self, stream: int) -> None:
        """Let a stream's further work wait for it; the host does not."""
        if self._handle is not None:
            checked(api().cuStreamWaitEvent(stream, self._handle, 0), "let a stream wait")

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            api().cuEventDestroy(self._handle)


def pinned(size: int) -> Any:
    """Page-locked memory of the host as an array of bytes, which copies read and write beside other work."""
    if SIMULATED:
        return np.empty(size, np.uint8)
    address = int(checked(api().cuMemHostAlloc(size, 0), f"pin {size} bytes"))
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def uploaded(array: np.ndarray, device: int | None = None) -> Memory:
    """A copy of an array on a device, complete on return."""
    array = np.ascontiguousarray(array)
    memory = Memory(array.nbytes, device)
    write(memory.address, array.ctypes.data, array.nbytes, 0)
    settle()
    return memory


@functools.cache
def loaded(kernel: compiler.Kernel, device: int) -> Any:
    """The kernel's handle on a device: compiled, loaded, and allowed the shared memory that it may ask for."""
    if SIMULATED:
        return compiler.simulated(kernel)
    driver, facts = api(), properties(device)
    module = checked(driver.cuModuleLoadData(compiler.cubin(kernel, facts.cc)), f"load {kernel.name}")
    handle = checked(driver.cuModuleGetFunction(module, kernel.name.encode()), f"find {kernel.name}")
    most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    if kernel.shared:
        checked(driver.cuFuncSetAttribute(handle, most, facts.shared), f"give {kernel.name} shared memory")
    return handle


class _Block:
    """The parameters of one launch in the form that the driver copies them from."""

    __slots__ = ("at", "extra", "pointer", "raw", "size")

    def __init__(self, parameters: bytes) -> None:
        self.raw = ctypes.create_string_buffer(parameters, len(parameters))
        self.at = (ctypes.c_int64 * (len(parameters) // 8)).from_buffer(self.raw)
        self.size = ctypes.c_size_t(len(parameters))
        self.extra = (ctypes.c_void_p * 5)(_POINTER, ctypes.addressof(self.raw), _SIZE, ctypes.addressof(self.size), _ENDED)
        self.pointer = ctypes.addressof(self.extra)


class Launch:
    """A kernel with its grid and parameters; calls give the stream and the addresses that come first in ``at``.

    Any number of threads may call it: each call takes a block of parameters of its own.

    Parameters
    ----------
    kernel : Kernel
    grid : (int, int, int)
        Blocks.
    at : tuple of int
        Addresses and strides; the first are replaced by each call's.
    values : sequence of float
    extents : tuple of int
    shared : int
        Bytes of shared memory of a block.
    device : int
    """

    def __init__(
        self, kernel: compiler.Kernel, grid: tuple[int, int, int], at: tuple[int, ...], values: Any, extents: tuple[int, ...],
        shared: int = 0, device: int | None = None,
    ) -> None:  # fmt: skip
        assert all(1 <= blocks <= most for blocks, most in zip(grid, MOST_GRID, strict=True)), f"grid {grid}"
        self._kernel, self._grid, self._shared = kernel, grid, shared
        self._device = current(device)
        self._handle = loaded(kernel, self._device)
        self._parameters = compiler.packed(kernel, at, values, extents)
        self._free: deque[_Block] = deque((_Block(self._parameters),))
        self._launch = _simulate if SIMULATED else api().cuLaunchKernel

    def __call__(self, stream: int, *addresses: int) -> None:
        """Queue the kernel on a stream; returns at once."""
        try:
            block = self._free.pop()
        except IndexError:  # another thread is between these lines
            block = _Block(self._parameters)
        at = block.at
        for n, address in enumerate(addresses):
            at[n] = address
        status = self._launch(self._handle, *self._grid, *self._kernel.block, self._shared, stream, 0, block.pointer)
        if status[0] != 0:
            checked(status, f"launch {self._kernel.name}")
        self._free.append(block)


def _simulate(handle: Any, *arguments: Any) -> tuple[int]:
    """`cuLaunchKernel` in Numba's simulator."""
    grid, shared, (_, _, extra) = arguments[:3], arguments[6], arguments[7:]
    _, parameters, _, size = (ctypes.c_size_t * 4).from_address(extra)
    size = ctypes.c_size_t.from_address(size).value
    at, values, extents = compiler.unpacked(handle.kernel, ctypes.string_at(parameters, size))
    handle[grid, (1, 1, 1), 0, shared](at, values, extents)
    return (0,)


def allow(*arrays: np.ndarray | Memory) -> None:
    """In the simulator: let kernels touch these arrays alone (none: anything)."""
    places = []
    for array in arrays:
        first, size = (array.address, array.size) if isinstance(array, Memory) else (array.ctypes.data, array.nbytes)
        places.append((first, first + size))
    Twin.allowed = tuple(places) or None
