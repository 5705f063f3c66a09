"""lanes_pack: weights that come with every image, packed by the unit of work that uses them: a filter in each lane.

A kernel of its own, which others call by its address, so that each of those compiles a second faster.
"""

from __future__ import annotations

from typing import Any

from .compile import TileKernel
from .memory import copy, peek, poke, unrolled_by_hand
from .weights_tile import turn_lines

SIZES = {4: "i32", 8: "i64"}  # elements are moved as integers


def _factory(kind: str, lanes: int, size: int) -> Any:
    """``dst[t*pitch + r] = filter(r)[t]`` for the taps of ``lanes`` filters, whose addresses a table holds, each ``away`` bytes further on.

    Rows of ``kw`` taps are ``wy`` bytes apart, taps ``wx``: those side by side, forwards or backwards, are turned in squares,
    filters side by side copied.
    """

    def pack_lanes(dst: Any, pitch: Any, table: Any, away: Any, taps: Any, kw: Any, wy: Any, wx: Any) -> None:
        unrolled_by_hand()
        first, beside = peek("i64", table), 1  # filters that lie side by side, from the first on
        while beside < lanes and peek("i64", table + beside * 8) == first + beside * size:
            beside += 1
        if beside == lanes:
            for tap in range(taps):
                copy(kind, lanes, dst + tap * pitch, first + away + tap // kw * wy + tap % kw * wx, lanes)
        elif abs(wx) == size and wy == kw * wx:
            # a gradient's filters lie from the last tap to the first
            last = (taps - 1) * (wx < 0)
            turn_lines(kind, lanes, dst + last * pitch, pitch * (-1 if wx < 0 else 1), table, away - last * size, taps)
        else:
            for tap in range(taps):
                for lane in range(lanes):
                    pixel = peek("i64", table + lane * 8) + away + tap // kw * wy + tap % kw * wx
                    poke(kind, dst + tap * pitch + lane * size, peek(kind, pixel))

    return pack_lanes


def lanes_packer(size: int, lanes: int) -> TileKernel:
    """The kernel for elements of so many bytes."""
    kind = SIZES[size]
    return TileKernel(f"pack_lanes_{kind}_{lanes}", _factory, (kind, lanes, size), 8)
