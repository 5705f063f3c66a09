"""winograd_shallow_pack: 3x3 weights transformed for `winograd_shallow`, by a kernel, since a functional call packs every time."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.problem import Problem
from .border import LINE, whole_lines
from .compile import helper
from .lanes_pack import lanes_packer
from .memory import call_kernel, integers, peek, poke, unrolled_by_hand
from .shallow_last_tile import channels_of_lanes, placing_tile_kernel
from .simd import KINDS
from .threads import Job, Region
from .winograd_pack import HEAD, SPARE, packed_space, transformable
from .winograd_tile import transformed_weights

# How weights are read: channels and results of a group, addresses of what places vectors and what turns taps, strides.  Where kernels find
# them, the channel of each lane lies behind.
Weights = namedtuple("Weights", "icg ocg placer packer wg wo wc wy wx")
WEIGHTS_BYTES = 8 * len(Weights._fields)


def weights_table(p: Problem, wei: np.ndarray | None, kind: str, lanes: int, piece: int) -> np.ndarray:
    """The integers of :data:`Weights`, 0 where there are none to be read, and the channel of each lane of a vector of ``piece`` groups."""
    weights = Weights(*[0] * len(Weights._fields))
    if wei is not None:
        placer, packer = placing_tile_kernel(kind, lanes, piece), lanes_packer(KINDS[kind][2], lanes)
        wo, ocg = wei.strides[-4], p.oc // p.g
        wg = wei.strides[0] if wei.ndim > 4 else ocg * wo
        weights = Weights(p.ic // p.g, ocg, placer.address, packer.address, wg, *wei.strides[-4:])
    return np.array([*weights, *channels_of_lanes(lanes, piece)], np.int64)


def taps_placer(kind: str, lanes: int) -> Any:
    """What kernels place taps with: ``dst[c][tap][lane] = src[o + channel(lane), c, tap]`` of the vector of output channels from ``o`` on.

    ``table`` is the address of `weights_table`'s, ``lines`` that of words for an address of each lane.
    """
    size = KINDS[kind][2]
    vector = lanes * size

    @helper
    def place_taps(src: Any, table: Any, o: Any, dst: Any, lines: Any) -> None:
        e = integers(table, Weights)
        if e.wo == size and e.wg == e.ocg * size:
            for tap in range(9):
                first = src + o * size + tap // 3 * e.wy + tap % 3 * e.wx
                call_kernel(e.placer, (dst + tap * vector, 9 * vector, 0, first, e.wc, e.icg, 1))
            return
        for lane in range(lanes):
            channel = o + peek("i64", table + WEIGHTS_BYTES + lane * 8)
            poke("i64", lines + lane * 8, src + channel // e.ocg * e.wg + channel % e.ocg * e.wo)
        if e.wx == size and e.wy == 3 * size and e.wc == 9 * size:
            # taps behind taps, as of 16 filters' memory in squares: one of 9 taps each took twice as long (`shallow_last`, Zen 5)
            many = 9 * e.icg
            call_kernel(e.packer, (dst, vector, lines, 0, many, many, many * size, size))
        elif e.wc == size:
            for tap in range(9):
                away = tap // 3 * e.wy + tap % 3 * e.wx
                call_kernel(e.packer, (dst + tap * vector, 9 * vector, lines, away, e.icg, e.icg, e.icg * size, size))
        else:
            for c in range(e.icg):
                call_kernel(e.packer, (dst + 9 * c * vector, vector, lines, c * e.wc, 9, 3, e.wy, e.wx))

    return place_taps


def _factory(kind: str, lanes: int, m: int, fma: int) -> Any:
    """The kernel: units of work are vectors of output channels.

    ``dst[HEAD + [u][i][j][c][lane]] = sum_{ky, kx} G[i, ky] G[j, kx] src[u*lanes + channel(lane), c, ky, kx]``, `SPARE` vectors behind
    each (i, j), of unit u; ``totals[u][lane]`` is the sum of the absolute weights.  The extents are the address of ``totals``, then
    `weights_table`'s.
    Workspace: addresses of filters, their taps.
    """
    size = KINDS[kind][2]
    vector, squares, spec = lanes * size, (m + 2) ** 2, (kind, lanes, m, 1, 1, 1, fma)
    place_taps = taps_placer(kind, lanes)

    def winograd_shallow_pack(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        totals, icg = peek("i64", at.extents), peek("i64", at.extents + 8)
        lines = at.workspace + index * at.scratch
        turned, pitch = lines + (lanes * 8 + LINE - 1) // LINE * LINE, (icg + SPARE) * vector
        for u in range(u0, u1):
            place_taps(at.src, at.extents + 8, u * lanes, turned, lines)
            to = at.dst + HEAD * size + u * squares * pitch
            transformed_weights(spec, to, vector, pitch, turned, 9 * vector, 3 * vector, vector, icg, 0, totals + u * vector, 0)

    return winograd_shallow_pack


@dataclass(frozen=True)
class ShallowPacking:
    """How weights are packed for a kernel: `HEAD` elements, the first not 0 if they may be transformed; transformed; as they are."""

    kind: str
    lanes: int
    m: int
    piece: int  # groups of a vector
    fma: int
    threads: int

    def __call__(self, p: Problem, wei: np.ndarray) -> np.ndarray:
        """As ``(1, 1, 1, n)``, aligned to vectors, with the weights as they are, of this type, behind."""
        kind, lanes, size, icg = self.kind, self.lanes, KINDS[self.kind][2], p.ic // p.g
        vectors = p.oc // lanes
        packed, own = packed_space(p, wei, p.oc * (self.m + 2) ** 2 * (icg + SPARE), True)
        with np.errstate(all="ignore"):
            own[...] = wei
        totals = np.empty((1, vectors, 1, lanes), packed.dtype)
        extents = np.array([totals.ctypes.data, *weights_table(p, own, kind, lanes, self.piece)], np.int64)
        region = Region(f"winograd_shallow_pack_{kind}_{self.m}x{self.m}_{lanes}", _factory, (kind, lanes, self.m, self.fma), kind)
        scratch = whole_lines(8 * lanes, 1) + whole_lines(9 * icg * lanes * size, 1)
        seconds = costs.WINOGRAD_SHALLOW_PACK_SECONDS * vectors * icg
        launch = region.launcher(extents, np.zeros(8, packed.dtype), scratch, vectors, self.threads, seconds, own, packed, packed)
        launch(own, packed, None, packed)
        packed[0, 0, 0, 0] = transformable(totals)
        return packed
