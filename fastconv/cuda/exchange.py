"""exchange: arrays of other libraries as device memory and back, without a copy and without waiting.

CuPy's, torch's and Numba's arrays are asked for what they are; any other exporter through ``__cuda_array_interface__``, then DLPack.
Work is queued on the stream that the array's library works on at the moment; results are made by that library, so that its allocator
and its streams know them.  No library is imported here: whoever has an array of it has done so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ..planning.bfloat import BITS, is_bfloat
from . import dlpack, driver
from .arrays import DeviceArray, dense_strides
from .driver import Memory
from .simd import SIMULATED
from .transfer import to_host


class CudaArray:
    """A result for the owner of arrays of no library that makes its own: memory with ``__cuda_array_interface__`` and DLPack.

    Of bfloat16 the interface says two bytes of no type, as NumPy does, but DLPack bfloat16.  ``numpy.asarray`` copies it to the host.
    """

    def __init__(self, array: DeviceArray) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        a = self.array
        return {"shape": a.shape, "typestr": a.dtype.str, "data": (a.address, False), "version": 3, "strides": a.strides,
                "stream": a.stream or dlpack.LEGACY}  # fmt: skip

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.array.device

    def __dlpack__(self, *, stream: int | None = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None) -> Any:
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("a result on a CUDA device is exported where it is, without a copy")
        return dlpack.exported(self.array, stream)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        result = to_host(self.array)
        return result if dtype is None else result.astype(dtype)


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def received(name: str, value: Any, bfloat: bool = False) -> DeviceArray:
    """A device array of any library; of bfloat16 only if that is allowed.

    Raises
    ------
    TypeError
        Its type is none that NumPy has, or it is no array of a CUDA device.
    ValueError
        Elements that do not lie at multiples of their size, or whose bytes are swapped: kernels read neither.
    """
    array = _seen(name, value)
    dtype = array.dtype
    if dtype.kind == "V" and not (bfloat and is_bfloat(dtype)):
        words = "bfloat16" if is_bfloat(dtype) else dtype
        raise TypeError(f"{name} must be an array of bools, integers, floats or complex numbers, got dtype {words}")
    places = array.address
    for stride in array.strides:
        places |= stride
    if places & dtype.itemsize - 1 or not dtype.isnative:
        _check_elements(name, array)
    return array


def _check_elements(name: str, array: DeviceArray) -> None:
    dtype = array.dtype
    size = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
    for place, extent in zip((array.address, *array.strides), (2, *array.shape), strict=True):
        if place % size and extent > 1:
            raise ValueError(f"{name} must have elements at multiples of {size} bytes on a CUDA device, got strides {array.strides}")
    if not dtype.isnative:
        raise ValueError(f"{name} must be in native byte order on a CUDA device, got dtype {dtype}")


def _seen(name: str, value: Any) -> DeviceArray:
    library = _library(value)
    if isinstance(value, DeviceArray):
        return value
    if isinstance(value, CudaArray):
        return value.array
    if library == "torch":
        return _from_torch(name, value)
    if library == "cupy":
        stream = sys.modules["cupy"].cuda.get_current_stream().ptr
        return DeviceArray(value.data.ptr, value.shape, value.strides, value.dtype, stream, value.device.id, value)
    described = getattr(value, "__cuda_array_interface__", None)
    if described is not None:
        return _from_interface(name, value, described)
    if hasattr(value, "__dlpack__"):
        return dlpack.imported(name, value)
    raise TypeError(f"{name} must be an array of a CUDA device, got {type(value).__name__}")


def _from_torch(name: str, tensor: Any) -> DeviceArray:
    torch = sys.modules["torch"]
    if tensor.requires_grad and torch.is_grad_enabled():
        raise TypeError(f"{name} must not require a gradient: fastconv records none here; use tensor.detach()")
    kind = tensor.dtype
    dtype = _torch_types.get(kind)
    if dtype is None:
        words = str(kind).removeprefix("torch.")
        if words not in _TORCH:
            raise TypeError(f"{name} must be of a type that NumPy has, got {kind}")
        dtype = _torch_types[kind] = BITS if words == "bfloat16" else np.dtype(words)
    if tensor.is_conj() or tensor.is_neg():  # views whose numbers are others than those in memory
        tensor = tensor.resolve_conj().resolve_neg()
    size, index = dtype.itemsize, tensor.device.index
    return DeviceArray(
        tensor.data_ptr(), tensor.shape, [s * size for s in tensor.stride()], dtype, _torch_stream(torch, index), index, tensor
    )


def _torch_stream(torch: Any, device: int) -> int:
    """The current one: as torch's compiler asks for it, 2 us sooner than by an object, where torch has that."""
    raw = getattr(getattr(torch, "_C", None), "_cuda_getCurrentRawStream", None)
    return int(torch.cuda.current_stream(device).cuda_stream if raw is None else raw(device))


_TORCH = frozenset(("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32",
                    "float64", "complex64", "complex128"))  # fmt: skip
_torch_types: dict[Any, np.dtype[Any]] = {}  # torch's -> NumPy's, of those that were seen


def check_writeable(name: str, value: Any) -> None:
    """That an array of a card may be written; torch is told that its values are others than before.

    Raises
    ------
    TypeError, ValueError
        A conjugate or negative view of torch's, or memory that its exporter calls read-only.
    """
    if _library(value) == "torch":
        if value.is_conj() or value.is_neg():
            raise TypeError(f"{name} must not be a conjugate or negative view")
        value.detach().narrow(0, 0, 0).zero_()
    elif not isinstance(value, (DeviceArray, CudaArray)) and _library(value) != "cupy":
        described = getattr(value, "__cuda_array_interface__", None)
        if described is not None and described["data"][1]:
            raise ValueError(f"{name} must be writeable, got a read-only array")


def _from_interface(name: str, value: Any, described: dict[str, Any]) -> DeviceArray:
    address, shape = int(described["data"][0] or 0), tuple(described["shape"])
    if described.get("mask") is not None:
        raise TypeError(f"{name} must not be masked")
    stream = int(described.get("stream") or 0)
    return DeviceArray(address, shape, described.get("strides"), np.dtype(described["typestr"]), stream, device_of(address), value)


def device_of(address: int) -> int:
    """The device whose memory an address is in; the current one of none."""
    if SIMULATED or not address:
        return driver.current()
    api = driver.api()
    driver.current()
    what = api.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(driver.checked(api.cuPointerGetAttribute(what, address), f"find the device of address {address:#x}"))


def created(like: Any, array: DeviceArray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Any, DeviceArray]:
    """A new C-contiguous array of the kind of ``like``, which `received` saw as ``array``, and how kernels see it.

    None and memory of our own where the library has no way to make one: `given` makes it behind the work.
    """
    library = _library(like)
    if library == "torch":
        torch = sys.modules["torch"]
        made = torch.empty(shape, dtype=getattr(torch, "bfloat16" if is_bfloat(dtype) else dtype.name), device=like.device)
        place = made.data_ptr()
    elif library == "cupy":
        cupy = sys.modules["cupy"]
        with cupy.cuda.Device(array.device):
            made = cupy.empty(shape, dtype)
        place = made.data.ptr
    else:
        memory = Memory(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, array.device)
        return None, DeviceArray(memory.address, shape, None, dtype, array.stream, array.device, memory)
    return made, DeviceArray(place, shape, dense_strides(shape, dtype.itemsize), dtype, array.stream, array.device, made)


def given(like: Any, array: DeviceArray) -> Any:
    """Memory of our own, whose work is queued, as an array of the library of ``like``, where it has a way to take it: Numba's, and the
    array API's, which makes the library's stream wait.
    """
    result, way, namespace = CudaArray(array), _IMPORTS.get(_library(like)), getattr(like, "__array_namespace__", None)
    if way is not None:
        return way(result)
    return result if namespace is None else namespace().from_dlpack(result)


def _as_numba(result: CudaArray) -> Any:
    cuda: Any = sys.modules["numba.cuda"]
    return cuda.as_cuda_array(result, sync=False)


_IMPORTS: dict[str, Callable[[CudaArray], Any]] = {"numba": _as_numba, "numba_cuda": _as_numba}
