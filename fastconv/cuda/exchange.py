"""exchange: arrays of other libraries as device memory and back, without a copy and without waiting.

CuPy's, torch's and Numba's arrays are asked for what they are; any other exporter through ``__cuda_array_interface__``, then DLPack.
Work is queued on the stream that the array's library works on at the moment; results are made by that library, so that its allocator
and its streams know them.  No library is imported here: whoever has an array of it has done so.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ..planning.bfloat import BITS, is_bfloat
from . import driver
from .arrays import DeviceArray, dense_strides
from .driver import Memory
from .simd import SIMULATED
from .transfer import to_host

_LEGACY = 1  # the default stream's handle in both protocols


class CudaArray:
    """A result for the owner of arrays of no library that makes its own: memory with ``__cuda_array_interface__``.

    ``numpy.asarray`` copies it to the host.
    """

    def __init__(self, array: DeviceArray) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        a = self.array
        return {"shape": a.shape, "typestr": a.dtype.str, "data": (a.address, False), "version": 3, "strides": a.strides,
                "stream": a.stream or _LEGACY}  # fmt: skip

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
        return _from_dlpack(name, value)
    raise TypeError(f"{name} must be an array of a CUDA device, got {type(value).__name__}")


def _from_torch(name: str, tensor: Any) -> DeviceArray:
    torch = sys.modules["torch"]
    if tensor.requires_grad and torch.is_grad_enabled():
        raise TypeError(f"{name} must not require a gradient: fastconv records none; use tensor.detach()")
    words = str(tensor.dtype).removeprefix("torch.")
    if words not in _TORCH:
        raise TypeError(f"{name} must be of a type that NumPy has, got {tensor.dtype}")
    size, index = tensor.element_size(), tensor.device.index
    dtype = BITS if words == "bfloat16" else np.dtype(words)
    stream = torch.cuda.current_stream(index).cuda_stream
    return DeviceArray(tensor.data_ptr(), tuple(tensor.shape), [s * size for s in tensor.stride()], dtype, stream, index, tensor)


_TORCH = frozenset(("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32",
                    "float64", "complex64", "complex128"))  # fmt: skip


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


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("number", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device", _Device), ("ndim", ctypes.c_int32), ("dtype", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)), ("offset", ctypes.c_uint64),
    )  # fmt: skip


class _Versioned(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32 * 2), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64),
                ("tensor", _Tensor))  # fmt: skip


_CODES = {0: "i", 1: "u", 2: "f", 4: "V", 5: "c", 6: "b"}  # 4 is bfloat16
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype, _is_valid.argtypes = ctypes.c_int, (ctypes.py_object, ctypes.c_char_p)


def _from_dlpack(name: str, value: Any) -> DeviceArray:
    """The exporter lets the default stream wait for its own; the capsule, which is not consumed, keeps the memory."""
    capsule = value.__dlpack__(stream=_LEGACY)
    if _is_valid(capsule, b"dltensor_versioned"):
        tensor = _Versioned.from_address(_pointer(capsule, b"dltensor_versioned")).tensor
    else:
        tensor = _Tensor.from_address(_pointer(capsule, b"dltensor"))
    kind = tensor.dtype
    if kind.code not in _CODES or kind.lanes != 1:
        raise TypeError(f"{name} must be of a type that NumPy has, got DLPack type {kind.code} of {kind.bits} bits")
    dtype = np.dtype(f"{_CODES[kind.code]}{kind.bits // 8}")
    shape = tuple(tensor.shape[n] for n in range(tensor.ndim))
    strides = [tensor.strides[n] * dtype.itemsize for n in range(tensor.ndim)] if tensor.strides else None
    address = (tensor.data or 0) + tensor.offset
    return DeviceArray(address, shape, strides, dtype, 0, tensor.device.number, (value, capsule))


def created(like: Any, array: DeviceArray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Any, DeviceArray]:
    """A new C-contiguous array of the kind of ``like``, which `received` saw as ``array``, and how kernels see it."""
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
        result = DeviceArray(memory.address, shape, None, dtype, array.stream, array.device, memory)
        return _imported(like, library, CudaArray(result)), result
    return made, DeviceArray(place, shape, dense_strides(shape, dtype.itemsize), dtype, array.stream, array.device, made)


def _imported(like: Any, library: str, result: CudaArray) -> Any:
    """Our own memory as an array of the library of ``like``, where it has a way to take it."""
    way = _IMPORTS.get(library)
    return result if way is None else way(like, result)


def _as_numba(like: Any, result: CudaArray) -> Any:
    cuda: Any = sys.modules["numba.cuda"]
    return cuda.as_cuda_array(result, sync=False)


_IMPORTS: dict[str, Callable[[Any, CudaArray], Any]] = {"numba": _as_numba, "numba_cuda": _as_numba}
