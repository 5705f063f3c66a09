"""Stand-ins for arrays of other libraries on a card: their memory is the host's, which is what Numba's simulator calls a device."""

import ctypes
import sys
import types

import numpy as np

from fastconv.planning.bfloat import BITS

ctypes.pythonapi.PyCapsule_GetPointer.restype = ctypes.c_void_p
_DTYPE = 20  # bytes from the beginning of dlpack.h's DLTensor to its code, bits and lanes: behind address, device and dimensions


class Interface:
    """An exporter of ``__cuda_array_interface__`` and nothing else."""

    writeable = True

    def __init__(self, array, stream=None):
        self.array, self.stream = array, stream

    @property
    def __cuda_array_interface__(self):
        a = self.array
        return {"shape": a.shape, "typestr": a.dtype.str, "data": (a.ctypes.data, not self.writeable), "version": 3,
                "strides": None if a.flags.c_contiguous else a.strides, "stream": self.stream}  # fmt: skip

    def __array__(self, *arguments, **keywords):
        raise AssertionError("device memory was read")


class Capsule:
    """An exporter of DLPack that says its memory is a card's; ``streams`` are those that it was asked to get ready for."""

    def __init__(self, array):
        self.array, self.streams = array, []

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, stream=None):
        self.streams.append(stream)
        if self.array.dtype != BITS:
            return self.array.__dlpack__()
        capsule = self.array.view(np.int16).__dlpack__()
        tensor = ctypes.pythonapi.PyCapsule_GetPointer(ctypes.py_object(capsule), ctypes.c_char_p(b"dltensor"))
        assert (ctypes.c_uint8 * 2).from_address(tensor + _DTYPE)[:] == [0, 16]
        ctypes.c_uint8.from_address(tensor + _DTYPE).value = 4  # kDLBfloat of dlpack.h
        return capsule


class _Place:
    index, type = 0, "cuda"

    def __eq__(self, other):
        return isinstance(other, _Place)

    __hash__ = None


class Tensor:
    """What fastconv asks of a torch tensor."""

    is_cuda, requires_grad, device = True, False, _Place()

    def __init__(self, array):
        self.array = array

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: "torch.bfloat16" if self.array.dtype == BITS else f"torch.{self.array.dtype.name}")

    def stride(self):
        return tuple(s // self.array.itemsize for s in self.array.strides)

    def data_ptr(self):
        return self.array.ctypes.data

    def dim(self):
        return self.array.ndim

    def is_contiguous(self, memory_format=None):
        return (self.array if memory_format is None else self.array.transpose(0, 2, 3, 1)).flags.c_contiguous

    def is_conj(self):
        return False

    def is_neg(self):
        return False

    def detach(self):
        return self

    def narrow(self, axis, start, length):
        return Tensor(self.array[:length])

    def zero_(self):
        self.array[...] = np.zeros((), self.array.dtype)


class Chip:
    """What fastconv asks of a CuPy array."""

    device = types.SimpleNamespace(id=0)

    def __init__(self, array):
        self.array = array
        self.data = types.SimpleNamespace(ptr=array.ctypes.data)
        self.shape, self.strides, self.dtype = array.shape, array.strides, array.dtype

    @property
    def __cuda_array_interface__(self):
        raise AssertionError("CuPy is asked for itself: the interface would synchronise")


class _Nothing:
    def __init__(self, *arguments):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def pretend(patch, streams):
    """Modules named torch and cupy that make the stand-ins; ``streams`` are the current ones of each."""
    torch = types.ModuleType("torch")
    torch.Tensor = Tensor
    torch.nn = types.SimpleNamespace(Parameter=Tensor)
    torch.is_grad_enabled = lambda: True
    torch.channels_last = "channels_last"
    torch.compiler = types.SimpleNamespace(is_compiling=lambda: False)
    torch.autograd = types.SimpleNamespace(forward_ad=types.SimpleNamespace(_current_level=-1))
    interpreters = types.SimpleNamespace(peek_interpreter_stack=lambda: None, is_legacy_batchedtensor=lambda tensor: False)
    torch._C = types.SimpleNamespace(_len_torch_dispatch_stack=lambda: 0, _get_tracing_state=lambda: None, _functorch=interpreters)
    torch.cuda = types.SimpleNamespace(current_stream=lambda index: types.SimpleNamespace(cuda_stream=streams["torch"]))
    torch.empty = lambda shape, dtype, device: Tensor(np.empty(shape, dtype))
    for name in ("float32", "float64", "uint8", "int32"):
        setattr(torch, name, np.dtype(name))
    torch.bfloat16 = BITS
    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(get_current_stream=lambda: types.SimpleNamespace(ptr=streams["cupy"]), Device=_Nothing)
    cupy.empty = lambda shape, dtype: Chip(np.empty(shape, dtype))
    patch.setitem(sys.modules, "torch", torch)
    patch.setitem(sys.modules, "cupy", cupy)
    patch.setattr(Tensor, "__module__", "torch")
    patch.setattr(Chip, "__module__", "cupy")
