"""copy: device arrays in another type or layout: weights for the kernels that want theirs so, images that none reads in place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..planning.bfloat import is_bfloat, narrowed, widened
from ..planning.calls import Bounded
from ..planning.problem import DTYPES, dtype_name
from .arithmetic import SIZES
from .arrays import DeviceArray
from .compile import Kernel
from .driver import Launch, Memory, uploaded
from .finish import SUMS

_THREADS = 256
_MOST = 2**31 - 1  # elements of one launch
AT = ("src", "dst", "s0", "s1", "s2", "s3", "d0", "d1", "d2", "d3")
EXTENTS = ("count", "n1", "n2", "n3")


def body(e: Any, spec: tuple[str, str, str], at: Any, v: Any, x: Any) -> None:
    """``dst[i0, i1, i2, i3] = src[i0, i1, i2, i3]`` of any strides, one element a thread, converted as C does."""
    stored, to, how = spec
    place = e.block("x") * _THREADS + e.thread("x")

    def one(nothing: list[Any]) -> list[Any]:
        rest, i3 = place // x.n3, place % x.n3
        rest, i2 = rest // x.n2, rest % x.n2
        i0, i1 = rest // x.n1, rest % x.n1
        if how == "constant":
            value = [e.convert("f64", to, v.number)]
        else:
            value = e.load(stored, to, at.src + at.s0 * i0 + at.s1 * i1 + at.s2 * i2 + at.s3 * i3, 1)
        if how == "opposite":
            value = [value[0] * -1]
        e.store(to, at.dst + at.d0 * i0 + at.d1 * i1 + at.d2 * i2 + at.d3 * i3, value)
        return nothing

    e.when(place < x.count, [], one)


def kernel_of(stored: str, to: str, how: str = "") -> Kernel:
    """The kernel that makes ``to`` of ``stored``, of its ``opposite``, or of a ``constant``."""
    name = "_".join(filter(None, ("copy", stored, to, how)))
    values = "f64", ("number",)
    return Kernel(name, body, (stored, to, how), AT, values, EXTENTS, (_THREADS, 1, 1), 40, vectors=False, fused=False)


_launches: Bounded[Launch] = Bounded(512)


def pieces(*arrays: DeviceArray, merge: bool = True) -> Iterator[tuple[DeviceArray, ...]]:
    """Views of four dimensions and fewer than 2**31 elements that cover arrays of one shape.

    Axes that lie behind each other in all of them are merged, unless the arrays have four already and shall keep them.
    """
    shape, size = arrays[0].shape, arrays[0].size
    assert all(array.shape == shape for array in arrays)
    if not size:
        return
    if merge:
        runs: list[tuple[int, tuple[int, ...]]] = []
        for axis in range(len(shape)):
            extent, strides = shape[axis], tuple(array.strides[axis] for array in arrays)
            if runs and all(before == extent * stride for before, stride in zip(runs[-1][1], strides, strict=True)):
                runs[-1] = runs[-1][0] * extent, strides
            elif extent > 1:
                runs.append((extent, strides))
        runs = [(1, (0,) * len(arrays))] * (4 - len(runs)) + runs
        shape = tuple(extent for extent, _ in runs)
        arrays = tuple(array.strided(shape, [strides[n] for _, strides in runs]) for n, array in enumerate(arrays))
    if len(shape) > 4 or size > _MOST:
        axis = 0 if len(shape) > 4 else int(np.argmax(shape))
        half = shape[axis] // 2
        for part in (slice(None, half), slice(half, None)):
            yield from pieces(*(array[(*[slice(None)] * axis, part)] for array in arrays), merge=merge)
    else:
        yield arrays


def copied(src: DeviceArray, dst: DeviceArray, how: str = "", number: float = 0.0) -> None:
    """Queue the copy of an array into another of its shape on the source's stream; see `kernel_of`.  Real numbers become complex."""
    if dst.dtype.kind == "c":
        copied(src.part(0) if src.dtype.kind == "c" else src, dst.part(0), how)
        if src.dtype.kind == "c":
            copied(src.part(1), dst.part(1), how)
        else:
            filled(dst.part(1), 0)
        return
    kernel = kernel_of(dtype_name(src.dtype), dtype_name(dst.dtype), how)
    for one, other in pieces(src, dst):
        key = kernel, one.shape, one.strides, other.strides, repr(number), src.device
        launch = _launches.get(key)
        if launch is None:
            grid, at = (-(-one.size // _THREADS), 1, 1), (0, 0, *one.strides, *other.strides)
            launch = _launches.keep(key, Launch(kernel, grid, at, (number,), (one.size, *one.shape[1:]), device=src.device))
        launch(src.stream, one.address, other.address)


def filled(dst: DeviceArray, number: float) -> None:
    """Queue a constant into every element of an array."""
    copied(dst, dst, "constant", number)


def conjugate(array: DeviceArray) -> DeviceArray:
    """A dense copy of complex numbers with the opposite imaginary parts."""
    result = new(array, array.shape, array.dtype)
    copied(array.part(0), result.part(0))
    copied(array.part(1), result.part(1), "opposite")
    return result


def new(like: DeviceArray, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
    """A dense array beside another, taken and given back in its stream's order."""
    memory = Memory(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize, like.device, like.stream)
    return DeviceArray(memory.address, shape, None, dtype, like.stream, like.device, memory)


def converted(array: DeviceArray, dtype: Any) -> DeviceArray:
    """A dense copy of an array in another type, made on its stream.

    Raises
    ------
    TypeError
        A type that kernels do not load or store.
    """
    for name in (dtype_name(array.dtype), dtype_name(dtype)):
        if name not in (*SIZES, "c64", "c128"):
            raise TypeError(f"CUDA kernels do not read or write {DTYPES[name]}")
    result = new(array, array.shape, dtype)
    copied(array, result)
    return result


def on_device(array: Any, kind: str, device: int | None = None) -> DeviceArray:
    """An array as device memory of this type: itself where it is, else a copy."""
    dtype = DTYPES[kind]
    if not isinstance(array, DeviceArray):
        if is_bfloat(array.dtype) or is_bfloat(dtype):
            array = narrowed(widened(array), dtype)
        with np.errstate(all="ignore"):
            array = np.ascontiguousarray(array, dtype)
        memory = uploaded(array, device)
        return DeviceArray(memory.address, array.shape, None, dtype, 0, memory.device, memory)
    if array.dtype == dtype or (array.dtype.kind in "iu" and dtype.kind in "iu" and array.dtype.itemsize == dtype.itemsize):
        return array
    return converted(array, dtype)


def addend(acc: str, bias: Any, device: int | None) -> DeviceArray:
    """A bias as kernels read it: dense, in the type of a thread's sums, rounded or wrapped as ``acc`` does first."""
    if not isinstance(bias, DeviceArray):
        with np.errstate(all="ignore"):
            bias = widened(np.asarray(bias)).astype(DTYPES[acc])
    kind = SUMS.get(acc, acc)
    array = on_device(bias, kind, device)
    return array if array.dense else converted(array, DTYPES[kind])
