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
        assert sorted(order) == list(range(self.ndim))
        return self._view(self.address, [self.shape[a] for a in order], [self.strides[a] for a in order])

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


def _range(array: DeviceArray) -> tuple[int, int]:
    reach = [stride * (extent - 1) for stride, extent in zip(array.strides, array.shape, strict=True)]
    return array.address + sum(min(r, 0) for r in reach), array.address + sum(max(r, 0) for r in reach) + array.dtype.itemsize


def overlap(a: DeviceArray, b: DeviceArray) -> bool:
    """Whether two views may share memory."""
    if a.device != b.device or 0 in a.shape or 0 in b.shape:
        return False
    (a0, a1), (b0, b1) = _range(a), _range(b)
    return a0 < b1 and b0 < a1
