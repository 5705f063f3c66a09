"""winograd_rows_last_tile: the tile of `winograd_rows_last`, output channels in lanes, transformed pixels broadcast.

A kernel of its own, which one band kernel calls by its address.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from numba import types
from numba.extending import intrinsic

from ..planning.winograd_points import ROWS, RowTransform
from .compile import TileKernel
from .memory import unrolled_by_hand
from .simd import Emitter, literal

# What all tiles of a problem share: values of a row of taps, which lie side by side; bytes between the result's pixels; pixels of the
# result that are asked for with each transformed row.  Behind it for each point the number of its transformed rows, and for each of these
# the bytes to it, and from the tile's first pixel to those pixels.
Shape = namedtuple("Shape", "many dx ahead")
TABLE_AT = 8 * len(Shape._fields)


@intrinsic(prefer_literal=True)
def winograd_rows_last_tile(
    typing_context: Any, spec: Any, shape: Any, pixels: Any, wei: Any, start: Any, finish: Any, sums: Any, rows: Any, away: Any
) -> Any:
    """``mr`` vectors of output channels at ``nx`` pixels of each of `ROWS` rows of results.

    ``sums[a][j][o] = sum_{r, k} pixels[offsets[a][r] + j*step + k] * wei[a][r][k][o]``, which are transformed, ``start[o]`` added, and
    activated.

    ``spec = (kind, lanes, mr, nx, step, unroll, taps, past, fma)``: ``unroll`` divides the values of a row of taps, ``taps`` are the most
    of a phase, ``past`` says whether results, all of whose vectors are then aligned, are stored past the caches; else their lines are asked
    for.  ``shape`` is the address of the integers of :data:`Shape` and of its table, ``wei`` is packed as ``[a][r][k][mr*lanes]``,
    ``finish`` is the address of ``[slope, low, high]`` or 0.  ``rows`` is the address of pairs: where a row's first pixel goes, and 1, or
    0 where all of the row goes there; the tile's are ``away`` bytes further.
    Order of accumulation: r, k; then the points.  No tails, no borders: the driver sees to both.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit(builder, chosen, *arguments[1:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 8), codegen


def _emit(
    builder: Any, spec: tuple[Any, ...], shape: Any, pixels: Any, wei: Any, start: Any, finish: Any, sums: Any, rows: Any, away: Any
) -> None:  # fmt: skip
    kind, lanes, mr, nx, step, unroll, taps, past, fma = spec
    emit = Emitter(builder, kind, lanes, bool(fma))
    s = Shape(*(emit.load_integer(emit.offset(shape, 8 * n)) for n in range(len(Shape._fields))))
    transform = RowTransform(emit, taps)
    points, row = len(transform.points) + 1, mr * emit.width
    entry, weights, to = emit.variable(emit.offset(shape, TABLE_AT)), emit.variable(wei), emit.variable(sums)
    acc = [[emit.variable(emit.number(0)) for _ in range(mr)] for _ in range(nx)]
    turns = emit.quotient(s.many, unroll)
    result = emit.offset(emit.load_integer(rows), away)
    with emit.loop(emit.constant(points)):
        for parts in acc:
            for place in parts:
                emit.set(place, emit.number(0))
        count = emit.load_integer(emit.get(entry))
        emit.set(entry, emit.offset(emit.get(entry), 8))
        with emit.loop(count):
            place = emit.variable(emit.offset(pixels, emit.load_integer(emit.get(entry))))
            emit.set(entry, emit.offset(emit.get(entry), 8))
            if past:
                emit.set(entry, emit.offset(emit.get(entry), emit.times(s.ahead, 8)))
            else:
                with emit.loop(s.ahead):
                    line = emit.offset(result, emit.load_integer(emit.get(entry)))
                    for at in range(0, row, 64):
                        emit.prefetch(emit.offset(line, at), 1, True)
                    emit.set(entry, emit.offset(emit.get(entry), 8))
            with emit.loop(turns):
                here, w = emit.get(place), emit.get(weights)
                for turn in range(unroll):
                    vectors = [emit.load(emit.offset(w, turn * row + m * emit.width)) for m in range(mr)]
                    for j in range(nx):
                        pixel = emit.splat(emit.offset(here, (j * step + turn) * emit.itemsize))
                        for m in range(mr):
                            emit.set(acc[j][m], emit.multiply_add(vectors[m], pixel, emit.get(acc[j][m])))
                emit.set(place, emit.offset(here, unroll * emit.itemsize))
                emit.set(weights, emit.offset(w, unroll * row))
        for j, parts in enumerate(acc):
            for m, place in enumerate(parts):
                emit.store(emit.offset(emit.get(to), j * row + m * emit.width), emit.get(place))
        emit.set(to, emit.offset(emit.get(to), nx * row))
    addends = [emit.load(emit.offset(start, m * emit.width)) for m in range(mr)]
    lines, steps = [], []
    for i in range(ROWS):
        moves = emit.load_integer(emit.offset(rows, 16 * i + 8))
        lines.append(emit.variable(emit.offset(emit.load_integer(emit.offset(rows, 16 * i)), emit.times(away, moves))))
        steps.append(emit.times(s.dx, moves))
    read, store = emit.variable(sums), emit.store_past if past else emit.store

    def pixels_of_rows(finished: Any) -> None:
        with emit.loop(emit.constant(nx)):
            for m in range(mr):
                y = [emit.load(emit.offset(emit.get(read), a * nx * row + m * emit.width)) for a in range(points)]
                for line, value in zip(lines, transform.results(y, addends[m]), strict=True):
                    store(emit.offset(emit.get(line), m * emit.width), finished(value))
            for line, apart in zip(lines, steps, strict=True):
                emit.set(line, emit.offset(emit.get(line), apart))
            emit.set(read, emit.offset(emit.get(read), row))

    with emit.either(finish) as (activated, plain):
        with activated:
            limits = [emit.splat(emit.offset(finish, n * emit.itemsize)) for n in range(3)]
            pixels_of_rows(lambda value: emit.activate(value, *limits))
        with plain:
            pixels_of_rows(lambda value: value)


def _factory(*spec: Any) -> Any:
    """The kernel of `winograd_rows_last_tile` with this ``spec``."""

    def tile(shape: Any, pixels: Any, wei: Any, start: Any, finish: Any, sums: Any, rows: Any, away: Any) -> None:
        unrolled_by_hand()
        winograd_rows_last_tile(spec, shape, pixels, wei, start, finish, sums, rows, away)

    return tile


def winograd_rows_last_tile_kernel(spec: tuple[Any, ...]) -> TileKernel:
    """`_factory`'s, to be called with eight integers."""
    kind, lanes, mr, nx, step, unroll, taps, past, _ = spec
    return TileKernel(f"winograd_rows_last_{kind}_{mr}x{nx}_{lanes}_s{step}u{unroll}r{taps}" + "_past" * past, _factory, spec, 8)
