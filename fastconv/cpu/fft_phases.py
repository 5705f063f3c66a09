"""fft_phases: the launches of `fft`: one for all frames, or where threads share each frame one for each of its phases."""

from __future__ import annotations

import itertools
from collections import namedtuple
from typing import Any

import numpy as np

from ..planning import cost as costs
from .threads import workspaces

# The integers that the kernel receives: these, the passes there and back of columns, of rows, the row map, the two column maps, and
# for each unit of work the largest bits of an absolute value that it saw.
Head = namedtuple(
    "Head",
    "first last turns same chunk plane block blocks across oc ocg m nx group step_y step_x lead_y lead_x out_y out_x first_x iw nleft "
    "map_rows bias finish shifted vacant spectrum spectrum_bytes seen column_passes row_passes wo sn sc sy dn dc dy",
)
_PLANE, _BLOCK, _SPECTRUM = (Head._fields.index(name) for name in ("plane", "block", "spectrum"))
COLUMNS, ROWS, BACK = range(3)  # phases: rows are multiplied and transformed back in one


class Phases:
    """The launches of all phases of ``n`` images, of arrays of these shapes and strides; for one caller at a time.

    Parameters
    ----------
    transform : object
        The kernel of a problem and what it is given, as `fastconv.cpu.fft` makes it.
    maps : tuple of ndarray
        The row map and the two column maps.
    """

    def __init__(
        self, transform: Any, head: Head, maps: tuple[np.ndarray, ...], values: np.ndarray, arrays: tuple[Any, ...], n: int
    ) -> None:  # fmt: skip
        tables, shared = np.concatenate([transform.passes, *maps]), transform.split
        self._planes, self._blocks, self._shared = n * head.oc, head.blocks, shared
        self._bytes = transform.spectrum + 64
        head = head._replace(nleft=len(maps[1]), map_rows=len(maps[0]), seen=8 * (len(head) + len(tables)))
        units = self._planes * self._blocks
        parts = [] if shared else [(head, units, units * transform.seconds)]
        for phase in range(head.first, head.last) if shared else ():
            items = (head.m if phase == ROWS else head.nx) // transform.lanes
            chunk = -(-items // (costs.FFT_UNITS_A_THREAD * transform.threads))
            seconds = transform.seconds / (head.last - head.first)
            parts.append((head._replace(first=phase, last=phase + 1, chunk=chunk), -(-items // chunk), seconds))
        src, wei, _, dst = arrays
        self._launches = []
        for part, units, seconds in parts:
            extents = np.concatenate([np.array(part, np.int64), tables, np.zeros(units, np.int64)])
            launch = transform.region.launcher(extents, values, transform.scratch, units, transform.threads, seconds, src, wei, dst)
            self._launches.append((launch, extents, extents[len(extents) - units :]))

    def __call__(self, arrays: tuple[Any, ...], spectrum: int = 0) -> np.ndarray:
        """Run them, on spectra at an address or in workspace; the largest bits of an absolute value of each plane."""
        if not self._shared:
            launch, extents, found = self._launches[0]
            extents[_SPECTRUM], found[:] = spectrum, 0
            launch(*arrays)
            return found.reshape(self._planes, self._blocks).max(1, initial=0)
        seen = np.zeros(self._planes, np.int64)
        memory = None if spectrum else workspaces.take(self._bytes)
        at = spectrum if memory is None else -(-memory.ctypes.data // 64) * 64
        for plane, block in itertools.product(range(self._planes), range(self._blocks)):
            for launch, extents, found in self._launches:
                extents[_PLANE], extents[_BLOCK], extents[_SPECTRUM] = plane, block, at
                found[:] = 0
                launch(*arrays)
                seen[plane] = max(seen[plane], found.max())
        if memory is not None:
            workspaces.give(memory)
        return seen
