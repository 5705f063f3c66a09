"""arrays: device memory as plans see it: an address, a shape and strides, and whose stream the work belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class DeviceArray:
    """A view of device memory, of which NumPy's view operations make others: indexing with slices and None, ``transpose``.

    Nothing of it can be read on the host.

    Parameters
    ----------
    address : int
        Of the first element.
    shape, strides : tuple of int
        Strides in bytes.
    dtype : numpy.dtype
    stream : int
        The CUDA stream that its work is queued on; 0 is the default one.
    device : int
    owner : object
        Kept alive as long as the view.
    """

    is_cuda = True  # as torch says it
    __slots__ = ("address", "device", "dtype", "owner", "shape", "stream", "strides")

    def __init__(
        self, address: int, shape: Sequence[int], strides: Sequence[int] | None, dtype: Any, stream: int = 0, device: int = 0,
        owner: Any = None,
    ) -> None:  # fmt: skip
        self.address = address
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.strides = dense_strides(self.shape, self.dtype.itemsize) if strides is None else tuple(strides)
        self.stream = stream
        self.device = device
        self.owner = owner

    @property
    def ndim(self) -> int:
        """Dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return self.size * self.dtype.itemsize

    @property
    def dense(self) -> bool:
        """Whether it is C-contiguous."""
        wanted = dense_strides(self.shape, self.dtype.itemsize)
        return self.size == 0 or all(a == b for a, b, n in zip(self.strides, wanted, self.shape, strict=True) if n > 1)

    def _view(self, address: int, shape: Sequence[int], strides: Sequence[int]) -> DeviceArray:
        return DeviceArray(address, shape, strides, self.dtype, self.stream, self.device, self.owner)

    def transpose(self, *axes: int) -> DeviceArray:
        """Axes in another order."""
        order = axes or tuple(reversed(range(self.ndim)))
        if len(order) == 1 and isinstance(order[0], (list, tuple)):
            order = tuple(order[0])
        assert sorted(order) == list(range(self.ndim))
        return self._view(self.address, [self.shape[a] for a in order], [self.strides[a] for a in order])

    def reshape(self, shape: Sequence[int]) -> DeviceArray:
        """Other extents of the same elements in the same order.

        Raises
        ------
        ValueError
            These strides cannot be seen so.
        """
        strides = _folded(self.shape, self.strides, tuple(shape))
        if strides is None:
            raise ValueError(f"an array of shape {self.shape} and strides {self.strides} cannot be seen as {tuple(shape)}")
        return self._view(self.address, shape, strides)

    def view(self, dtype: Any) -> DeviceArray:
        """The same bytes as elements of another type of the same size."""
        assert np.dtype(dtype).itemsize == self.dtype.itemsize
        return DeviceArray(self.address, self.shape, self.strides, dtype, self.stream, self.device, self.owner)

    def strided(self, shape: Sequence[int], strides: Sequence[int]) -> DeviceArray:
        """A view from the first element on."""
        return self._view(self.address, shape, strides)

    def on_stream(self, stream: int) -> DeviceArray:
        """A view whose work is queued on another stream."""
        return DeviceArray(self.address, self.shape, self.strides, self.dtype, stream, self.device, self.owner)

    def part(self, number: int) -> DeviceArray:
        """The real (0) or imaginary (1) parts of complex numbers."""
        dtype = np.dtype(f"f{self.dtype.itemsize // 2}")
        place = self.address + number * dtype.itemsize
        return DeviceArray(place, self.shape, self.strides, dtype, self.stream, self.device, self.owner)

    def __getitem__(self, index: Any) -> DeviceArray:
        items = index if isinstance(index, tuple) else (index,)
        given = sum(item is not None and item is not Ellipsis for item in items)
        if Ellipsis not in items:
            items = (*items, Ellipsis)
        address, shape, strides, axis = self.address, list[int](), list[int](), 0
        for item in items:
            if item is None:
                shape.append(1)
                strides.append(0)
            elif item is Ellipsis:
                for _ in range(self.ndim - given):
                    shape.append(self.shape[axis])
                    strides.append(self.strides[axis])
                    axis += 1
            elif isinstance(item, slice):
                start, stop, step = item.indices(self.shape[axis])
                count = len(range(start, stop, step))
                address += start * self.strides[axis] if count else 0
                shape.append(count)
                strides.append(step * self.strides[axis])
                axis += 1
            else:
                raise TypeError(f"device memory is indexed with slices, None and ..., got {item!r}")
        return self._view(address, shape, strides)

    def __array__(self, *arguments: Any, **keywords: Any) -> np.ndarray:
        raise TypeError("device memory cannot be read as a NumPy array")


def dense_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Of a C-contiguous array.

    Examples
    --------
    >>> dense_strides((2, 3, 5), 4)
    (60, 20, 4)
    """
    strides, step = [0] * len(shape), itemsize
    for axis in reversed(range(len(shape))):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return tuple(strides)


def _folded(shape: tuple[int, ...], strides: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...] | None:
    """Strides of the extents ``wanted`` over the memory of an array, or None where there are none.

    Examples
    --------
    >>> _folded((2, 3, 4), (96, 32, 8), (6, 1, 4)), _folded((2, 3, 4), (96, 32, 8), (2, 12)), _folded((2, 3), (96, 32), (6,))
    ((32, 32, 8), (96, 8), (32,))
    >>> _folded((2, 3), (100, 32), (6,)) is None
    True
    """
    if 0 in shape:
        return (0,) * len(wanted)
    # runs of elements at one distance, from the last axis on: [extent, stride]
    runs: list[list[int]] = []
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent == 1:
            continue
        if runs and stride == runs[-1][0] * runs[-1][1]:
            runs[-1][0] *= extent
        else:
            runs.append([extent, stride])
    result, used, run = [0] * len(wanted), 1, 0
    for axis in reversed(range(len(wanted))):
        if run < len(runs) and used == runs[run][0]:
            run, used = run + 1, 1
        result[axis] = runs[run][1] * used if run < len(runs) else 0
        used *= wanted[axis]
        if wanted[axis] > 1 and (run >= len(runs) or runs[run][0] % used):
            return None
    return tuple(result)


def _range(array: DeviceArray) -> tuple[int, int]:
    reach = [stride * (extent - 1) for stride, extent in zip(array.strides, array.shape, strict=True)]
    return array.address + sum(min(r, 0) for r in reach), array.address + sum(max(r, 0) for r in reach) + array.dtype.itemsize


def overlap(a: DeviceArray, b: DeviceArray) -> bool:
    """Whether two views may share memory."""
    if a.device != b.device or 0 in a.shape or 0 in b.shape:
        return False
    (a0, a1), (b0, b1) = _range(a), _range(b)
    return a0 < b1 and b0 < a1
