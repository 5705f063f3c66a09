"""winograd_pack: 3x3 weights transformed for `winograd`, by a kernel, since a functional call packs every time."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from ..planning import cost as costs
from ..planning.problem import DTYPES, Problem
from ..planning.workspaces import new_result
from .compile import TileKernel
from .memory import call_kernel, copy, copy_asking, fill_row, integers, peek, poke, unrolled_by_hand
from .simd import KINDS
from .threads import Job, Region
from .winograd_tile import CHUNK, transformed_weights, turned_pixels

# Elements before the packed weights: whether they may be transformed; the axes of the weights as they are, from the outermost in memory
# to the innermost; 1 for each axis of the four that runs backwards there
HEAD = 16
SPARE = 5  # vectors behind the weights of one (i, j): else each of a filter's would lie in one set of a first-level cache
LEAST, MOST = 1 / 2**30, 2**30  # sum|w| of a filter
Head = namedtuple("Head", "icg ocg blocks depth pitch past near totals turn raw own each weights so sc sy sx")


def _factory(kind: str, lanes: int, m: int, stride: int, mr: int, fma: int) -> Any:
    """The kernel: units of work are (group, ``mr * lanes`` output channels, ``lanes`` channels).

    ``dst[HEAD + [g][o / width][i][j][c][o % width]] = sum_{ky, kx} G[i, ky] G[j, kx] src[g, o, c, ky, kx]``, 0 for channels beyond;
    `SPARE` vectors lie behind those of each (i, j), and ``pitch`` bytes between two.
    ``totals[unit][o % width]`` is the sum of the absolute weights.  Each unit copies ``each`` elements from ``raw`` to ``own``, as far as
    there are weights.  Workspace: a vector of zeros, the taps ``[c][tap][lanes]`` of a vector of output channels.  ``turn`` is the address
    of `Packing.turning`; weights that are ``near`` and have output channels side by side are read where they lie.
    Where the workspace's pitch is negative, -1 and below, only this pair of rows (i, j) is computed, ``dst`` holds no others, and the
    taps of each unit and vector, which the first pair puts aside, are kept for the others.
    """
    spec = (kind, lanes, m, stride, mr, 0, fma)
    size = KINDS[kind][2]
    vector, width, taps, spare = lanes * size, mr * lanes, (m + 2) ** 2, SPARE * lanes

    def winograd_pack(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        zeros = at.workspace + index * at.scratch
        tiles = zeros + vector
        tile = 9 * lanes * vector
        only = max(-at.scratch, 0)
        zero = peek(kind, at.values + 4 * size)
        fill_row(kind, lanes, zeros, lanes, zero)
        for u in range(u0, u1):
            rest, cb = u // e.depth, u % e.depth
            group, block = rest // e.blocks, rest % e.blocks
            channels = min(lanes, e.icg - cb * lanes)
            if e.each:
                mine = u * e.each * size
                copy(kind, lanes, e.own + mine, e.raw + mine, min(e.each, max(e.weights - u * e.each, 0)))
            for o in range(0, width, lanes):
                filters = min(max(e.ocg - block * width - o, 0), lanes)
                source = at.src + (group * e.ocg + block * width + o) * e.so + cb * lanes * e.sc
                turned = tiles + (only != 0) * ((u - u0) * mr + o // lanes) * tile
                places, sc, sy, sx = turned, 9 * vector, 3 * vector, vector
                if e.so == size and channels == lanes and filters == lanes and e.near:
                    places, sc, sy, sx = source, e.sc, e.sy, e.sx
                elif only > 1:
                    pass
                elif e.sx == size and e.sy == 3 * size and e.sc == 9 * size and channels == lanes:
                    turned_pixels(spec, turned, source, e.so, filters, zeros, 9 * lanes, lanes, 8 * lanes)
                elif e.so == 9 * size and e.sy == -3 * size and e.sx == -size and filters == lanes:
                    # those of a gradient: turned by half a turn, the taps of a channel's filters beside one another
                    if channels < lanes:
                        fill_row(kind, lanes, turned, 9 * lanes * lanes, zero)
                    for c in range(channels):
                        first = turned + c * 9 * vector
                        call_kernel(e.turn, (first + 8 * vector, -vector, source + c * e.sc - 8 * size, e.so, lanes, 9))
                elif e.sc == size and channels == lanes and filters == lanes:
                    for tap in range(9):
                        first = source + tap // 3 * e.sy + tap % 3 * e.sx
                        call_kernel(e.turn, (turned + tap * vector, 9 * vector, first, e.so, lanes, lanes))
                elif e.so == size and channels == lanes and filters == lanes:
                    for tap in range(9):
                        first = source + tap // 3 * e.sy + tap % 3 * e.sx
                        copy_asking(kind, lanes, turned + tap * vector, 9 * vector, first, e.sc, lanes, lanes * e.sc)
                else:
                    fill_row(kind, lanes, turned, 9 * lanes * lanes, zero)
                    for c in range(channels):
                        for tap in range(9):
                            place = source + c * e.sc + tap // 3 * e.sy + tap % 3 * e.sx
                            for lane in range(filters):
                                poke(kind, turned + (c * 9 + tap) * vector + lane * size, peek(kind, place + lane * e.so))
                to = at.dst + (HEAD + rest * taps * (e.depth * lanes * width + spare)) * size + (cb * lanes * width + o) * size
                total = e.totals + (u * width + o) * size
                transformed_weights(spec, to, width * size, e.pitch, places, sc, sy, sx, lanes, e.past, total, only)

    return winograd_pack


def packing_kernel(kind: str, lanes: int, m: int, stride: int, mr: int, fma: int) -> tuple[str, Any, tuple[Any, ...]]:
    """Name, factory and specialisation of the kernel."""
    return f"winograd_pack_{kind}_{m}x{m}_s{stride}_{mr}_{lanes}", _factory, (kind, lanes, m, stride, mr, fma)


@dataclass(frozen=True)
class Packing:
    """How weights are packed for a kernel: ``HEAD`` elements, the first not 0 if they may be transformed; transformed; as they are."""

    region: Region
    turning: TileKernel  # `fastconv.cpu.weights_tile.turn_kernel`'s
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
        near = int(wei.nbytes <= costs.WINOGRAD_NEAR_BYTES)
        head = Head(icg, ocg, blocks, depth, pitch, 0, near, totals.ctypes.data, self.turning.address, 0, 0, 0, wei.size, *wei.strides)
        return np.array(head, np.int64), totals

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

    def scratch(self, tiles: int = 1) -> int:
        """Bytes of workspace that the kernel needs, which keeps the taps of so many squares of channels."""
        return (1 + 9 * self.lanes * tiles) * self.lanes * KINDS[self.kind][2]

    def __call__(self, p: Problem, wei: np.ndarray, kept: bool = True) -> np.ndarray:
        """As ``(1, 1, 1, n)``, aligned to vectors; without the weights as they are, of this type, where those are not to be kept."""
        dtype, size, width = DTYPES[p.acc], DTYPES[p.acc].itemsize, self.mr * self.lanes
        icg, ocg = p.ic // p.g, p.oc // p.g
        blocks, depth = -(-ocg // width), -(-icg // self.lanes)
        count = p.g * blocks * (self.m + 2) ** 2 * (depth * width + SPARE) * self.lanes
        packed, own = packed_space(p, wei, count, kept)
        units, source = p.g * blocks * depth, own
        how = {"past": int(count * size > costs.WINOGRAD_PAST_BYTES and packed.ctypes.data % 64 == 0)}
        if kept and wei.dtype == dtype and wei.strides == own.strides:
            source = wei
            how |= {"raw": byte_bounds(wei)[0], "own": byte_bounds(own)[0], "each": -(-wei.size // units)}
        elif kept:
            with np.errstate(all="ignore"):
                own[...] = wei
        extents, totals = self.head(p, source, depth)
        for name, value in how.items():
            extents[Head._fields.index(name)] = value
        seconds = costs.WINOGRAD_PACK_SECONDS * units * width
        values = np.zeros(8, dtype)
        launch = self.region.launcher(extents, values, self.scratch(), units, self.threads, seconds, source, packed, packed)
        launch(source, packed, None, packed)
        packed[0, 0, 0, 0] = transformable(totals)
        return packed


def packed_space(p: Problem, wei: np.ndarray, count: int, kept: bool) -> tuple[np.ndarray, np.ndarray]:
    """``(1, 1, 1, n)``, aligned to vectors: the head, ``count`` elements, and where they are to be ``kept`` the weights, without values.

    The weights' part is the second result, or else the weights that came.
    """
    dtype = DTYPES[p.acc]
    count += HEAD + (wei.size if kept else 0)
    memory = new_result((count + 64 // dtype.itemsize,), dtype)
    first = -memory.ctypes.data % 64 // dtype.itemsize
    packed = memory[first : first + count].reshape(1, 1, 1, -1)
    if not kept:
        return packed, wei
    packed[0, 0, 0, 1:5] = sorted(range(4), key=lambda axis: -abs(wei.strides[axis]))
    packed[0, 0, 0, 5:9] = [stride < 0 for stride in wei.strides]
    return packed, weights_of(p, packed)


def transformable(totals: np.ndarray) -> bool:
    """Whether the sums of each filter's absolute weights, ``[g][o / width][c / lanes][o % width]``, are in range, or 0."""
    with np.errstate(all="ignore"):
        if totals.size and totals.min() >= LEAST and totals.max() <= MOST / totals.shape[2]:  # a third of what it takes to add them
            return True
        sums = totals.sum(2, dtype=np.float64)
        return bool((((sums >= LEAST) & (sums <= MOST)) | (sums == 0)).all())


def weights_of(p: Problem, packed: np.ndarray) -> np.ndarray:
    """The weights that were packed, in memory as the caller's were.

    Any other order makes a copy of what it turns: 512 x 512 filters, output channels innermost, took 15.7 ms to pack, 11 of them for that.
    """
    elements, shape = packed.reshape(-1), (p.oc, p.ic // p.g, 3, 3)
    axes, backwards = elements[1:5].astype(int), elements[5:9] != 0
    weights: np.ndarray = elements[-p.oc * p.taps :].reshape([shape[axis] for axis in axes]).transpose(np.argsort(axes))
    return weights[tuple(slice(None, None, -1 if turned else None) for turned in backwards)]
