"""planes: images copied with their borders into planes by phase of rows and columns, whose neighbours are what strided results read.

A kernel of its own, which others call by its address, so that each of those compiles faster.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic

from ..planning.problem import DTYPES, Problem, border_indices
from .border import pixels_of, row_map
from .compile import TileKernel
from .memory import fill_row, integers, peek, unrolled_by_hand
from .simd import KINDS, Emitter, literal, outlined


class Tile(NamedTuple):
    """``filters`` output channels x ``vecs`` vectors of pixels, or ``tail`` of them, that are summed from planes."""

    registers: int  # of the target, at least
    filters: int
    vecs: int
    tail: int


# What the kernel reads at its first argument; behind it the image row of each padded row, then place and image column of each padded column
# that is copied alone.
Planes = namedtuple(
    "Planes", "depth sh sw pt ih rows phase_rows pitch plane ahead even_at odd_at inside vectors constant edges sc sy"
)  # fmt: skip
_TABLES_AT = 8 * len(Planes._fields)


def _factory(kind: str, lanes: int) -> Any:
    """``depth`` channels at ``image`` as ``[c][row % sh][column % sw][row // sh][column // sw]``, from padded row ``top`` on.

    ``values`` is the address of the fill value; lines ``soon`` bytes further are asked for.  What vectors write beyond a plane's last row
    lies within it.
    """
    size = KINDS[kind][2]

    def planes(record: Any, image: Any, dst: Any, top: Any, soon: Any, values: Any) -> None:
        unrolled_by_hand()
        e = integers(record, Planes)
        row_map = record + _TABLES_AT
        edges = row_map + e.rows * 8
        fill = peek(kind, values)
        plane, pitch = e.plane * size, e.pitch * size
        for c in range(e.depth):
            channel = image + c * e.sc
            for py in range(e.sh):
                to = dst + (c * e.sh + py) * e.sw * plane
                if e.constant:
                    # the rows of this phase that are the image's: first .. last - 1
                    first = min(max((e.pt - top - py + e.sh - 1) // e.sh, 0), e.phase_rows)
                    last = min(max((e.ih - 1 + e.pt - top - py) // e.sh + 1, first), e.phase_rows)
                    above = (first * e.pitch + e.ahead + lanes - 1) // lanes
                    for px in range(e.sw):
                        fill_vectors(kind, lanes, to + px * plane, above, fill)
                    if last > first:
                        row = channel + (top + py + first * e.sh - e.pt) * e.sy
                        even, odd = to + first * pitch + e.even_at, to + first * pitch + e.odd_at
                        down, many = e.sh * e.sy, last - first
                        if e.sw == 1:
                            place_rows(kind, lanes, 1, even, pitch, odd, row, down, many, e.inside, e.vectors, soon, fill)
                        else:
                            place_rows(kind, lanes, 2, even, pitch, odd, row, down, many, e.inside, e.vectors, soon, fill)
                    below = ((e.phase_rows - last) * e.pitch + lanes - 1) // lanes
                    for px in range(e.sw):
                        fill_vectors(kind, lanes, to + px * plane + last * pitch, below, fill)
                else:
                    for r in range(e.phase_rows):
                        row = peek("i64", row_map + min(top + r * e.sh + py, e.rows - 1) * 8)
                        line = to + r * pitch
                        if row < 0:
                            for px in range(e.sw):
                                fill_row(kind, lanes, line + px * plane, e.pitch, fill)
                        else:
                            pixels_of(kind, line, channel + row * e.sy, edges, e.edges, fill)

    return planes


def planes_tile_kernel(kind: str, lanes: int) -> TileKernel:
    """`_factory`'s, to be called with six integers."""
    return TileKernel(f"planes_{kind}_{lanes}", _factory, (kind, lanes), 6)


def steps(p: Problem) -> tuple[int, int, int, int]:
    """Strides and dilations that matter: of one row or column of results no stride does, of one tap no dilation."""
    return (*p.strides, (p.dh if p.kh > 1 else 1), (p.dw if p.kw > 1 else 1))


def pitch_of(p: Problem) -> int:
    """Columns of a row of one phase."""
    _, sw, _, dw = steps(p)
    return -(-((p.ow - 1) * sw + (p.kw - 1) * dw + 1) // sw)


def plane_of(p: Problem, lanes: int, phase_rows: int) -> int:
    """Elements of a plane of so many rows, and what vectors write beyond them."""
    return phase_rows * pitch_of(p) + 2 * lanes + p.pl // steps(p)[1] + 1


def places_of(p: Problem, plane: int) -> np.ndarray:
    """Bytes from the planes of a group to the pixel of its first result that each tap meets, ``[c][ky][kx]``."""
    sh, sw, dh, dw = steps(p)
    c, ky, kx = (index.reshape(-1) for index in np.indices((p.ic // p.g, p.kh, p.kw)))
    ky, kx = ky * dh, kx * dw
    places: np.ndarray = (((c * sh + ky % sh) * sw + kx % sw) * plane + ky // sh * pitch_of(p) + kx // sw) * DTYPES[p.acc].itemsize
    return places


def planes_layout(p: Problem, lanes: int, phase_rows: int) -> tuple[Planes, list[np.ndarray]]:
    """The kernel's integers but for the strides, and its tables."""
    size, (sh, sw, _, dw) = DTYPES[p.acc].itemsize, steps(p)
    pitch, plane = pitch_of(p), plane_of(p, lanes, phase_rows)
    # of a constant border rows are copied by vectors, of others and of large strides pixel by pixel
    constant, read = p.border == "constant" and sw <= 2, (p.ow - 1) * sw + (p.kw - 1) * dw + 1
    columns = np.arange(0 if constant else read)
    edges = np.stack([(columns % sw * plane + columns // sw) * size, border_indices(-p.pl, len(columns), 1, p.iw, p.border)], 1)
    rows, inside = row_map(p), max(min(p.iw, read - p.pl), 0)
    even, odd = ((x % sw * plane + x // sw) * size for x in (p.pl, p.pl + 1))
    record = Planes(
        depth=p.ic // p.g, sh=sh, sw=sw, pt=p.pt, ih=p.ih, rows=len(rows), phase_rows=phase_rows, pitch=pitch, plane=plane,
        ahead=-(-p.pl // sw), even_at=even, odd_at=odd, inside=inside, vectors=max(-(-pitch // lanes), inside // (lanes * sw) + 1),
        constant=int(constant), edges=len(edges), sc=0, sy=0,
    )  # fmt: skip
    return record, [rows, edges.reshape(-1)]


@intrinsic(prefer_literal=True)
def place_rows(
    typing_context: Any, kind: Any, lanes: Any, step: Any, dst: Any, pitch: Any, odd: Any, src: Any, down: Any, rows: Any, count: Any,
    vectors: Any, soon: Any, fill: Any,
) -> Any:  # fmt: skip
    """``rows`` rows of ``count`` pixels, ``down`` bytes apart, to rows ``pitch`` bytes apart; ``fill`` behind them.

    ``vectors`` whole vectors of each row are written, more than ``count`` fill; what they hold beyond the row's end is overwritten by the
    next.  For ``step`` 2 these are the even pixels, to ``dst``, and the odd ones, to ``odd``.  No pixel beyond ``count`` is read.
    The lines ``soon`` bytes further are asked for: another band's, which come while this one is summed.
    """
    name, width, apart = literal(kind), literal(lanes), literal(step)

    def body(builder: Any, arguments: Any) -> None:
        dst, pitch, odd, src, down, rows, count, vectors, soon, fill = arguments
        emit = Emitter(builder, name, width, False)
        other = emit.spread(fill)
        full = emit.quotient(count, apart * width)
        rest = builder.sub(count, emit.times(full, apart * width))
        beyond = builder.sub(emit.offset(vectors, -1), full)
        lines = [emit.variable(dst), emit.variable(odd)][:apart]
        line = emit.variable(src)
        with emit.loop(rows):
            at = emit.variable(emit.get(line))
            places = [emit.variable(emit.get(place)) for place in lines]

            def put(parts: Any) -> None:
                for place, part in zip(places, parts, strict=True):
                    emit.store(emit.get(place), part)
                    emit.set(place, emit.offset(emit.get(place), emit.width))

            def phases(parts: Any) -> Any:
                return [emit.even(*parts), emit.odd(*parts)] if apart == 2 else parts

            def ask() -> None:
                for n in range(apart):
                    emit.prefetch(emit.offset(emit.get(at), soon, n * emit.width))

            with emit.loop(full):
                ask()
                put(phases([emit.load(emit.offset(emit.get(at), n * emit.width)) for n in range(apart)]))
                emit.set(at, emit.offset(emit.get(at), apart * emit.width))
            ask()
            put(
                phases(
                    [emit.load_or(emit.offset(emit.get(at), n * emit.width), emit.offset(rest, -n * width), other) for n in range(apart)]
                )
            )
            with emit.loop(beyond):
                put([other] * apart)
            for place in lines:
                emit.set(place, emit.offset(emit.get(place), pitch))
            emit.set(line, emit.offset(emit.get(line), down))

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        outlined(builder, f"place_rows_{name}_{width}_{apart}", arguments[3:], body)
        return context.get_dummy_value()

    return types.void(kind, lanes, step, *[types.int64] * 9, KINDS[name][1]), codegen


@intrinsic(prefer_literal=True)
def fill_vectors(typing_context: Any, kind: Any, lanes: Any, dst: Any, count: Any, value: Any) -> Any:
    """``count`` whole vectors of ``value``."""
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dst, count, value = arguments[2:]
        emit = Emitter(builder, name, width, False)
        to, many = emit.variable(dst), emit.spread(value)
        with emit.loop(count):
            emit.store(emit.get(to), many)
            emit.set(to, emit.offset(emit.get(to), emit.width))
        return context.get_dummy_value()

    return types.void(kind, lanes, types.int64, types.int64, KINDS[name][1]), codegen
