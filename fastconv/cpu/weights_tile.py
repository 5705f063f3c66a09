"""weights_tile: the register tile of `weights`, output channels in lanes, and the transposition that packs its panels."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .compile import TileKernel
from .memory import unrolled_by_hand
from .simd import Emitter, literal

# Lines of the next band that are asked for at each pixel: 16 to 96 channels at 112x112, 8 images, take 1650 us instead of 2690 of one
# (one core, Zen 5, 2026-11)
AHEAD = 2
_FEWEST = 4  # elements of a row that are transposed in a square


@intrinsic(prefer_literal=True)
def weights_tile(
    typing_context: Any, spec: Any, start: Any, start_step: Any, sums: Any, sums_step: Any, grad: Any, grad_step: Any, grad_row: Any,
    grad_image: Any, pixels: Any, pixel_step: Any, pixel_row: Any, pixel_image: Any, images: Any, rows: Any, many: Any, ahead: Any,
    ahead_step: Any,
) -> Any:  # fmt: skip
    """``mr`` vectors of output channels at ``columns`` columns, one tap.

    ``sums[j][o] = start[j][o] + sum_{n, y, x} grad[n][y][x][o] * pixels[n][y][x][j]``

    ``spec = (kind, lanes, mr, columns, fma)``.  ``start`` and ``sums`` are addresses of vectors ``[mr*lanes]``, so many bytes apart (0: the
    same for all columns); ``grad`` and ``pixels`` are addresses, with the bytes between two x, y and n; ``mr*lanes`` gradients lie side by
    side, and ``columns`` pixels.  At each pixel the second-level cache is asked for `AHEAD` lines, the first of them at ``ahead``, which
    then advances by ``ahead_step`` bytes.
    Order of accumulation: n, y, x.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit_weights(builder, chosen, *arguments[1:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 17), codegen


def _factory(*spec: Any) -> Any:
    """The kernel of `weights_tile` with this ``spec``, of its other arguments."""

    def tile(
        start: Any, start_step: Any, sums: Any, sums_step: Any, grad: Any, grad_step: Any, grad_row: Any, grad_image: Any, pixels: Any,
        pixel_step: Any, pixel_row: Any, pixel_image: Any, images: Any, rows: Any, many: Any, ahead: Any, ahead_step: Any,
    ) -> None:  # fmt: skip
        unrolled_by_hand()
        weights_tile(spec, start, start_step, sums, sums_step, grad, grad_step, grad_row, grad_image, pixels, pixel_step, pixel_row,
                     pixel_image, images, rows, many, ahead, ahead_step)  # fmt: skip

    return tile


def weights_tile_kernel(kind: str, lanes: int, mr: int, columns: int, fma: int) -> TileKernel:
    """`_factory`'s, to be called with seventeen integers."""
    return TileKernel(f"weights_{kind}_{mr}x{columns}_{lanes}", _factory, (kind, lanes, mr, columns, fma), 17)


def _emit_weights(
    builder: Any, spec: tuple[Any, ...], start: Any, start_step: Any, sums: Any, sums_step: Any, grad: Any, grad_step: Any, grad_row: Any,
    grad_image: Any, pixels: Any, pixel_step: Any, pixel_row: Any, pixel_image: Any, images: Any, rows: Any, many: Any, ahead: Any,
    ahead_step: Any,
) -> None:  # fmt: skip
    kind, lanes, mr, columns, fma = spec
    emit = Emitter(builder, kind, lanes, bool(fma))
    both = (start, start_step), (sums, sums_step)
    firsts, places = ([emit.offset(at, emit.times(step, j)) for j in range(columns)] for at, step in both)
    acc = [[emit.variable(emit.load(emit.offset(first, m * emit.width))) for first in firsts] for m in range(mr)]
    # 320 to 1280 channels at 7x7, channels last, whose sums are stored where the result lies: 355 us instead of 480 (one core, Emerald
    # Rapids, 2026-11)
    for place in places:
        for m in range(mr):
            emit.prefetch(emit.offset(place, m * emit.width), 1, True)
    grads, image, soon = emit.variable(grad), emit.variable(pixels), emit.variable(ahead)
    with emit.loop(images):
        row, line = emit.variable(emit.get(image)), emit.variable(emit.get(grads))
        with emit.loop(rows):
            here, panel = emit.variable(emit.get(row)), emit.variable(emit.get(line))
            with emit.loop(many):
                values = [[emit.get(place) for place in line] for line in acc]
                at, weights = emit.get(here), emit.get(panel)
                vectors = [emit.load(emit.offset(weights, m * emit.width)) for m in range(mr)]
                for n in range(AHEAD):
                    emit.prefetch(emit.offset(emit.get(soon), 64 * n))
                emit.set(soon, emit.offset(emit.get(soon), ahead_step))
                for j in range(columns):
                    pixel = emit.splat(emit.offset(at, j * emit.itemsize))
                    for m in range(mr):
                        values[m][j] = emit.multiply_add(vectors[m], pixel, values[m][j])
                for places_of, found in zip(acc, values, strict=True):
                    for place, value in zip(places_of, found, strict=True):
                        emit.set(place, value)
                emit.set(here, emit.offset(at, pixel_step))
                emit.set(panel, emit.offset(weights, grad_step))
            emit.set(row, emit.offset(emit.get(row), pixel_row))
            emit.set(line, emit.offset(emit.get(line), grad_row))
        emit.set(image, emit.offset(emit.get(image), pixel_image))
        emit.set(grads, emit.offset(emit.get(grads), grad_image))
    for m in range(mr):
        for j, place in enumerate(places):
            emit.store(emit.offset(place, m * emit.width), emit.get(acc[m][j]))


@intrinsic(prefer_literal=True)
def lanes_tile(
    typing_context: Any, spec: Any, sums: Any, grad: Any, pixels: Any, offsets: Any, pixel_step: Any, row_step: Any, rows: Any, many: Any
) -> Any:  # fmt: skip
    """One vector of channels at ``taps`` taps.

    ``sums[t][o] += sum_{y, x} grad[y][x][o] * pixels[y*row_step + x*pixel_step + offsets[t]][o]``

    ``spec = (kind, lanes, taps, fma)``.  ``sums`` and ``grad`` are the addresses of dense vectors, ``offsets`` that of a table of bytes.
    Order of accumulation: y, x.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit_lanes(builder, chosen, *arguments[1:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 8), codegen


def _emit_lanes(
    builder: Any, spec: tuple[Any, ...], sums: Any, grad: Any, pixels: Any, offsets: Any, pixel_step: Any, row_step: Any, rows: Any,
    many: Any,
) -> None:  # fmt: skip
    kind, lanes, taps, fma = spec
    emit = Emitter(builder, kind, lanes, bool(fma))
    acc = [emit.variable(emit.load(emit.offset(sums, t * emit.width))) for t in range(taps)]
    away = [emit.load_integer(emit.offset(offsets, t * 8)) for t in range(taps)]
    panel, row = emit.variable(grad), emit.variable(pixels)
    with emit.loop(rows):
        here = emit.variable(emit.get(row))
        with emit.loop(many):
            at, place = emit.get(here), emit.get(panel)
            vector = emit.load(place)
            for t in range(taps):
                emit.set(acc[t], emit.multiply_add(vector, emit.load(emit.offset(at, away[t])), emit.get(acc[t])))
            emit.set(here, emit.offset(at, pixel_step))
            emit.set(panel, emit.offset(place, emit.width))
        emit.set(row, emit.offset(emit.get(row), row_step))
    for t in range(taps):
        emit.store(emit.offset(sums, t * emit.width), emit.get(acc[t]))


@intrinsic(prefer_literal=True)
def taps_tile(
    typing_context: Any, spec: Any, sums: Any, grad: Any, grad_step: Any, table: Any, pitch: Any, away: Any, many: Any, below: Any,
    grad_below: Any,
) -> Any:  # fmt: skip
    """One vector of channels at ``k x k`` taps, along a row of ``many`` results.

    ``sums[ky, kx] += sum_x grad[x] * pixel(ky, x*step + kx)``

    ``spec = (kind, lanes, nx, step, k, fma)``.  ``sums`` is the address of dense vectors, ``grad`` of vectors ``grad_step`` bytes apart;
    ``table`` that of the pixels' addresses, k rows of them ``pitch`` bytes apart; the vector lies ``away`` bytes further on.
    ``nx`` results at a time share the pixels that they load, the rest are summed one by one.  The lines ``below`` bytes from the last rows
    of pixels and ``grad_below`` from the gradients are asked for: they are read next.
    Order of accumulation: x.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, lanes, nx, step, k, fma = chosen
        sums, grad, grad_step, table, pitch, away, many, below, grad_below = arguments[1:]
        emit = Emitter(builder, kind, lanes, bool(fma))
        places = [emit.offset(sums, t * emit.width) for t in range(k * k)]
        acc = [emit.variable(emit.load(place)) for place in places]
        panel, entries = emit.variable(grad), emit.variable(table)

        def tile(results: int) -> None:
            values, row = [emit.get(place) for place in acc], emit.get(entries)
            grads: list[Any] = []
            rows = [emit.offset(row, emit.times(pitch, ky)) for ky in range(k)]
            for column in range((results - 1) * step + k):
                uses = [(x, column - x * step) for x in range(results) if 0 <= column - x * step < k]
                if uses and uses[-1][0] == len(grads):
                    grads.append(emit.load(emit.get(panel)))
                    emit.prefetch(emit.offset(emit.get(panel), grad_below), 1)
                    emit.set(panel, emit.offset(emit.get(panel), grad_step))
                for ky in range(k if uses else 0):
                    place = emit.offset(emit.load_integer(emit.offset(rows[ky], 8 * column)), away)
                    pixel = emit.load(place)
                    if ky >= k - step:
                        emit.prefetch(emit.offset(place, below), 1)
                    for x, kx in uses:
                        values[ky * k + kx] = emit.multiply_add(grads[x], pixel, values[ky * k + kx])
                values = emit.fence(values)
            for place, value in zip(acc, values, strict=True):
                emit.set(place, value)
            emit.set(entries, emit.offset(row, 8 * step * results))

        with emit.loop(emit.quotient(many, nx)):
            tile(nx)
        with emit.loop(emit.remainder(many, nx)):
            tile(1)
        for place, at in zip(acc, places, strict=True):
            emit.store(at, emit.get(place))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 9), codegen


@intrinsic(prefer_literal=True)
def turn(
    typing_context: Any, kind: Any, lanes: Any, dst: Any, pitch: Any, src: Any, row_step: Any, rows: Any, many: Any
) -> Any:  # fmt: skip
    """``dst[e*pitch + r] = src[r*row_step + e]`` for ``e < many`` and ``r < lanes``, of rows beyond the last of ``rows`` again the last.

    ``pitch`` and ``row_step`` are bytes.  Squares, the last of which overlaps the one before; of few elements one by one.
    """
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, name, width, False)
        dst, pitch, src, row_step, rows, many = arguments[2:]

        def line(r: int) -> Any:
            within = builder.icmp_signed("<", emit.constant(r), rows)
            return emit.offset(src, emit.times(row_step, builder.select(within, emit.constant(r), emit.offset(rows, -1))))

        _emit_turn(emit, dst, pitch, [line(r) for r in range(width)], many)
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 6), codegen


def _turn_factory(kind: str, lanes: int) -> Any:
    """The kernel of `turn`, of its other arguments."""

    def turned(dst: Any, pitch: Any, src: Any, row_step: Any, rows: Any, many: Any) -> None:
        unrolled_by_hand()
        turn(kind, lanes, dst, pitch, src, row_step, rows, many)

    return turned


def turn_kernel(kind: str, lanes: int) -> TileKernel:
    """`_turn_factory`'s, to be called with six integers."""
    return TileKernel(f"turn_{kind}_{lanes}", _turn_factory, (kind, lanes), 6)


@intrinsic(prefer_literal=True)
def turn_lines(typing_context: Any, kind: Any, lanes: Any, dst: Any, pitch: Any, table: Any, away: Any, many: Any) -> Any:
    """`turn` of the rows whose addresses a table holds, each ``away`` bytes further on."""
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, name, width, False)
        dst, pitch, table, away, many = arguments[2:]
        lines = [emit.offset(emit.load_integer(emit.offset(table, 8 * r)), away) for r in range(width)]
        _emit_turn(emit, dst, pitch, lines, many)
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 5), codegen


def _emit_turn(emit: Emitter, dst: Any, pitch: Any, lines: list[Any], many: Any) -> None:
    build, lanes = emit.builder, emit.lanes
    last = emit.offset(many, -lanes)
    with build.if_else(build.icmp_signed(">=", last, emit.constant(0))) as (enough, few):
        with enough:
            first = emit.variable(emit.constant(0))
            with emit.loop(emit.quotient(emit.offset(many, lanes - 1), lanes)):
                start = emit.get(first)
                start = build.select(build.icmp_signed("<", start, last), start, last)
                square = [emit.load(emit.offset(line, emit.times(start, emit.itemsize))) for line in lines]
                for e, column in enumerate(emit.transpose(square)):
                    emit.store(emit.offset(dst, emit.times(pitch, emit.offset(start, e))), column)
                emit.set(first, emit.offset(emit.get(first), lanes))
        with few:
            if lanes > _FEWEST:
                half = emit.of(emit.kind, lanes // 2)
                for start in (0, half.lanes):
                    _emit_turn(half, emit.offset(dst, start * emit.itemsize), pitch, lines[start : start + half.lanes], many)
            else:
                one = emit.of(emit.kind, 1)
                for r, line in enumerate(lines):
                    at, place = emit.variable(line), emit.variable(emit.offset(dst, r * emit.itemsize))
                    with emit.loop(many):
                        one.store(emit.get(place), one.load(emit.get(at)))
                        emit.set(at, emit.offset(emit.get(at), emit.itemsize))
                        emit.set(place, emit.offset(emit.get(place), pitch))
