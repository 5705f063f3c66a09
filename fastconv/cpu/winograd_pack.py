"""winograd_pack: 3x3 weights transformed for `winograd`, by a kernel, since a functional call packs every time."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.problem import DTYPES, Problem
from ..planning.workspaces import new_result
from .memory import copy, fill_row, integers, peek, poke, unrolled_by_hand
from .simd import KINDS
from .threads import Job, Region
from .weights_tile import turn
from .winograd_tile import CHUNK, magnitudes, transformed_weights, turned_pixels

HEAD = 16  # elements before the packed weights: whether they may be transformed, and the order of the axes of those behind, outermost first
SPARE = 5  # vectors behind the weights of one (i, j): else each of a filter's would lie in one set of a first-level cache
_MOST_EXPONENT = 30  # of sum|w| of a filter, and of its inverse
Head = namedtuple("Head", "icg ocg blocks depth pitch past totals so sc sy sx")


def _factory(kind: str, lanes: int, m: int, mr: int, fma: int) -> Any:
    """The kernel: units of work are (group, ``mr * lanes`` output channels, ``lanes`` channels).

    ``dst[HEAD + [g][o / width][i][j][c][o % width]] = sum_{ky, kx} G[i, ky] G[j, kx] src[g, o, c, ky, kx]``, 0 for channels beyond;
    `SPARE` vectors lie behind those of each (i, j), and ``pitch`` bytes between two.
    ``totals[unit][o % width]`` is the sum of the absolute weights.  Workspace: a vector of zeros, the taps ``[c][tap][lanes]`` of a vector
    of output channels.
    """
    spec = (kind, lanes, m, mr, 0, fma)
    size = KINDS[kind][2]
    vector, width, taps, spare = lanes * size, mr * lanes, (m + 2) ** 2, SPARE * lanes

    def winograd_pack(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        zeros = at.workspace + index * at.scratch
        turned = zeros + vector
        zero = peek(kind, at.values + 4 * size)
        fill_row(kind, lanes, zeros, lanes, zero)
        for u in range(u0, u1):
            rest, cb = u // e.depth, u % e.depth
            group, block = rest // e.blocks, rest % e.blocks
            channels = min(lanes, e.icg - cb * lanes)
            for o in range(0, width, lanes):
                filters = min(max(e.ocg - block * width - o, 0), lanes)
                source = at.src + (group * e.ocg + block * width + o) * e.so + cb * lanes * e.sc
                if e.sx == size and e.sy == 3 * size and e.sc == 9 * size and channels == lanes:
                    turned_pixels(spec, turned, source, e.so, filters, zeros, 9 * lanes, lanes, 8 * lanes)
                elif e.so == 9 * size and e.sy == -3 * size and e.sx == -size and filters == lanes:
                    # those of a gradient: turned by half a turn, the taps of a channel's filters beside one another
                    if channels < lanes:
                        fill_row(kind, lanes, turned, 9 * lanes * lanes, zero)
                    for c in range(channels):
                        first = turned + c * 9 * vector
                        turn(kind, lanes, first + 8 * vector, -vector, source + c * e.sc - 8 * size, e.so, lanes, 9)
                elif e.so == size and channels == lanes and filters == lanes:
                    for c in range(channels):
                        for tap in range(9):
                            copy(kind, lanes, turned + (c * 9 + tap) * vector, source + c * e.sc + tap // 3 * e.sy + tap % 3 * e.sx, lanes)
                else:
                    fill_row(kind, lanes, turned, 9 * lanes * lanes, zero)
                    for c in range(channels):
                        for tap in range(9):
                            place = source + c * e.sc + tap // 3 * e.sy + tap % 3 * e.sx
                            for lane in range(filters):
                                poke(kind, turned + (c * 9 + tap) * vector + lane * size, peek(kind, place + lane * e.so))
                to = at.dst + (HEAD + rest * taps * (e.depth * lanes * width + spare)) * size + (cb * lanes * width + o) * size
                transformed_weights(spec, to, width * size, e.pitch, turned, lanes, e.past)
                magnitudes(spec, e.totals + (u * width + o) * size, turned, 9 * lanes)

    return winograd_pack


def packing_kernel(kind: str, lanes: int, m: int, mr: int, fma: int) -> tuple[str, Any, tuple[Any, ...]]:
    """Name, factory and specialisation of the kernel."""
    return f"winograd_pack_{kind}_{m}x{m}_{mr}_{lanes}", _factory, (kind, lanes, m, mr, fma)


@dataclass(frozen=True)
class Packing:
    """How weights are packed for a kernel: ``HEAD`` elements, the first not 0 if they may be transformed; transformed; as they lie."""

    region: Region
    kind: str
    lanes: int
    m: int
    mr: int
    threads: int

    def head(self, p: Problem, wei: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
        """The kernel's integers, where a block holds so many vectors of channels, and the totals that it writes."""
        size, width = DTYPES[p.acc].itemsize, self.mr * self.lanes
        icg, ocg = p.ic // p.g, p.oc // p.g
        blocks, depth = -(-ocg // width), -(-icg // self.lanes)
        totals = np.empty((p.g, blocks, depth, width), DTYPES[p.acc])
        pitch = (channels * width + SPARE) * self.lanes * size
        return np.array(Head(icg, ocg, blocks, depth, pitch, 0, totals.ctypes.data, *wei.strides), np.int64), totals

    def ahead(self, wei: np.ndarray) -> dict[str, int]:
        """How the weights of a chunk of channels are asked for ahead, for the kernel of `winograd`: its ``soon_`` and its strides."""
        wo, wc, wy, wx = wei.strides
        size, width = wei.itemsize, self.mr * self.lanes
        taps = 2 * abs(wy) + 2 * abs(wx) + size
        low = 2 * min(wy, 0) + 2 * min(wx, 0)
        if 0 < wo < wc:  # lines of a channel, of each tap or of all
            apart = abs(wx) > wo
            lines = -(-((width - 1) * wo + (size if apart else taps)) // 64)
            soon = {"soon_calls": 9 * lines if apart else lines, "soon_lines": lines, "soon_outer": abs(wx), "soon_step": wc}
        else:
            soon = {"soon_calls": width, "soon_lines": 1, "soon_outer": wo, "soon_step": ((CHUNK - 1) * abs(wc) + taps) // CHUNK}
        return {"soon_low": low, **soon, "wo": wo, "wc": wc}

    @property
    def scratch(self) -> int:
        """Bytes of workspace that the kernel needs."""
        return (1 + 9 * self.lanes) * self.lanes * KINDS[self.kind][2]

    def __call__(self, p: Problem, wei: np.ndarray) -> np.ndarray:
        """As ``(1, 1, 1, n)``, aligned to vectors."""
        dtype, size, width = DTYPES[p.acc], DTYPES[p.acc].itemsize, self.mr * self.lanes
        icg, ocg = p.ic // p.g, p.oc // p.g
        blocks, depth = -(-ocg // width), -(-icg // self.lanes)
        count = p.g * blocks * (self.m + 2) ** 2 * (depth * width + SPARE) * self.lanes
        memory = new_result((HEAD + count + wei.size + 64 // size,), dtype)
        first = -memory.ctypes.data % 64 // size
        packed = memory[first : first + HEAD + count + wei.size].reshape(1, 1, 1, -1)
        # in the order that they lie in: another takes 11 ms of 512 channels to 512
        axes = np.argsort([-abs(step) for step in wei.strides], kind="stable")
        own = _in_order(packed[0, 0, 0, HEAD + count :], axes, wei.shape)
        with np.errstate(all="ignore"):
            own[...] = wei
        source = wei if wei.dtype == dtype else own
        units = p.g * blocks * depth
        extents, totals = self.head(p, source, depth)
        extents[Head._fields.index("past")] = count * size > costs.WINOGRAD_PAST_BYTES and packed.ctypes.data % 64 == 0
        seconds = costs.WINOGRAD_PACK_SECONDS * units * width
        values = np.zeros(8, dtype)
        launch = self.region.launcher(extents, values, self.scratch, units, self.threads, seconds, source, packed, packed)
        launch(source, packed, None, packed)
        packed[0, 0, 0, :5] = transformable(totals), *axes
        return packed


def transformable(totals: np.ndarray) -> bool:
    """Whether the sums of each filter's absolute weights, ``[g][o / width][c / lanes][o % width]``, are in range, or 0."""
    with np.errstate(all="ignore"):
        sums = totals.sum(2, dtype=np.float64)
        return bool((((sums >= np.ldexp(1, -_MOST_EXPONENT)) & (sums <= np.ldexp(1, _MOST_EXPONENT))) | (sums == 0)).all())


def weights_of(p: Problem, packed: np.ndarray) -> np.ndarray:
    """The weights that were packed."""
    return _in_order(packed.reshape(-1)[-p.oc * p.taps :], packed[0, 0, 0, 1:5].astype(int), (p.oc, p.ic // p.g, 3, 3))


def _in_order(values: np.ndarray, axes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Consecutive values as an array of this shape, whose ``axes`` lie in memory in this order, the outermost first."""
    return values.reshape([shape[axis] for axis in axes]).transpose(np.argsort(axes))
