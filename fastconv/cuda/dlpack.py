"""dlpack: memory of a card as DLPack's capsules say it, read and written; nothing is copied, and the host waits for nothing."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from . import driver
from .arrays import DeviceArray

LEGACY = 1  # the default stream's handle, here and in ``__cuda_array_interface__``
CUDA = 2  # kDLCUDA
_CODES = {0: "i", 1: "u", 2: "f", 4: "V", 5: "c", 6: "b"}  # 4 is bfloat16


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


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


# prototypes of our own: `pythonapi`'s functions are everybody's
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_dying_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
_dying_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)(("PyCapsule_New", ctypes.pythonapi))


def imported(name: str, value: Any) -> DeviceArray:
    """An exporter's memory: it lets the default stream wait for its own; the capsule, which is not consumed, keeps the memory.

    Raises
    ------
    TypeError
        A type that NumPy has not.
    """
    capsule = value.__dlpack__(stream=LEGACY)
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


_lent: dict[int, Any] = {}  # address of a `_Managed` -> what it keeps alive, until its consumer gives it back


def _give_back(address: int) -> None:
    _lent.pop(address, None)


def _destroy(capsule: int) -> None:
    """Of a capsule that nobody consumed: consumers rename it."""
    if _dying_is_valid(capsule, b"dltensor"):
        _give_back(_dying_pointer(capsule, b"dltensor"))


_deleter, _destructor = _Deleter(_give_back), _Destructor(_destroy)


def exported(array: DeviceArray, stream: int | None) -> Any:
    """A capsule of an array, whose work a consumer's stream waits for: of -1 none does, and None is the default stream."""
    other = LEGACY if stream is None else stream
    if other not in (-1, array.stream or LEGACY):
        event = driver.Event()
        event.record(array.stream)
        event.hold(other)
    ndim, size = array.ndim, array.dtype.itemsize
    code = next(code for code, kind in _CODES.items() if kind == array.dtype.kind)
    extents = (ctypes.c_int64 * max(ndim, 1))(*array.shape)
    strides = (ctypes.c_int64 * max(ndim, 1))(*(stride // size for stride in array.strides))
    tensor = _Tensor(array.address, _Device(CUDA, array.device), ndim, _Type(code, 8 * size, 1), extents, strides, 0)
    managed = _Managed(tensor, None, _deleter)
    address = ctypes.addressof(managed)
    _lent[address] = managed, array, extents, strides
    return _new(address, b"dltensor", _destructor)
