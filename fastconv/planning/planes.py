"""planes: arrays of any number of dimensions, seen as the images that a problem filters along one or two of their axes.

The other axes become the batch, those between and behind the filtered ones channels; nothing is copied.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .calls import View

LEAST_ROW = 16  # pixels behind a filtered axis that make up rows; fewer are channels


def _image(array: np.ndarray) -> np.ndarray:
    return array[None, None]


class Planes(NamedTuple):
    """The axes of arrays of one shape that make up ``n``, ``h``, ``w`` and ``c``, in this order."""

    axes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    shape: tuple[int, ...]

    @property
    def extents(self) -> tuple[int, int, int, int]:
        """``(n, h, w, c)``."""
        n, h, w, c = (int(np.prod([self.shape[axis] for axis in axes], dtype=np.int64)) for axes in self.axes)
        return n, h, w, c

    @property
    def layout(self) -> str:
        """``nhwc`` where the channels are interleaved, behind the rest."""
        return "nhwc" if self.extents[3] > 1 and self.axes[3][0] > self.axes[2][0] else "nchw"

    def fits(self, strides: tuple[int, ...]) -> bool:
        """Whether an array of these strides can be seen so without a copy."""
        for axes in self.axes:
            long = [axis for axis in axes if self.shape[axis] > 1]
            if any(strides[a] != strides[b] * self.shape[b] for a, b in pairwise(long)):
                return False
        return True

    def view(self) -> View:
        """What sees an array that `fits` as ``(n, c, h, w)``."""
        if len(self.shape) == 2 and self.axes == ((), (0,), (1,), ()):
            return _image
        order, extents = [axis for axes in self.axes for axis in axes], self.extents
        return lambda array: array.transpose(order).reshape(extents).transpose(0, 3, 1, 2)


def planes(shape: tuple[int, ...], axes: tuple[int, ...]) -> Planes:
    """How to filter arrays of ``shape`` along one or two of their ``axes``, given in ascending order.

    Examples
    --------
    >>> planes((5, 480, 640), (1, 2)).extents, planes((480, 640, 3), (0, 1)).extents, planes((9, 100, 640), (1,)).extents
    ((5, 480, 640, 1), (1, 480, 640, 3), (9, 100, 640, 1))
    """
    ndim, last = len(shape), axes[-1]
    behind = tuple(range(last + 1, ndim))
    if len(axes) == 2:
        between = tuple(range(axes[0] + 1, last))
        channels = between if any(shape[axis] > 1 for axis in between) else behind
        rest = tuple(axis for axis in range(ndim) if axis not in axes and axis not in channels)
        return Planes((rest, (axes[0],), (last,), channels), shape)
    if behind and (last == 0 or int(np.prod([shape[axis] for axis in behind], dtype=np.int64)) >= LEAST_ROW):
        return Planes((tuple(range(last)), (last,), behind, ()), shape)
    return Planes((tuple(range(last - 1)), (last - 1,) if last else (), (last,), behind), shape)
