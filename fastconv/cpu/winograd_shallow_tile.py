"""winograd_shallow_tile: pixels along columns; products of a row of points, and those transformed back at once; results along columns.

Everywhere a vector holds channels, of ``piece`` groups side by side in lanes of `fastconv.cpu.shallow_last_tile.grouped_lanes`; blocks are
of ``m x m`` results, which ``m + 2`` points in one direction make.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from numba import types
from numba.extending import intrinsic

from ..planning.winograd_points import Transform, pixels_of, points_of, transform_of
from .compile import TileKernel
from .memory import unrolled_by_hand
from .shallow_last_tile import channels_of_lanes, grouped_lanes
from .simd import Emitter, literal
from .winograd_pack import SPARE
from .winograd_tile import largest_of, unsafe

# What all calls of a problem share: vectors of pixels and of results of a unit of work, bytes from one's points to the next one's, and from
# the weights of a vector of results to the next one's.
# Behind it the place of each block's first pixel in a row of points.
Shape = namedtuple("Shape", "parts blocks pitch weights")
TABLE_AT = 8 * len(Shape._fields)


@intrinsic(prefer_literal=True)
def row_products(
    typing_context: Any, spec: Any, shape: Any, row: Any, wei: Any, space: Any, soon: Any, soon_step: Any, dst: Any, dst_step: Any
) -> Any:  # fmt: skip
    """Pixels transformed along a row of points, their products, and these transformed back, to where the pixels were.

    ``row[part]`` are pixels transformed along columns, vectors side by side as in the image; block t's ``m + 2`` lie ``table[t]`` bytes
    behind the first, a readable place for blocks that there are not, too:
    ``pixels[j][part][t] = sum_k B^T[j, k] row[part][table[t] + k]``,
    ``sums[j][t][o] = sum_{part, c} pixels[j][part][t][c*piece + o % piece] * wei[block][j][part, c][o]`` and
    ``row[block][m*t + b] = sum_j A^T[b, j] sums[j][t]``, for all ``nt`` of t: a row has room for ``m * nt`` vectors.
    `SPARE` vectors lie behind each j of ``wei``; parts and blocks lie ``pitch`` bytes apart in ``row``.

    ``spec = (kind, lanes, m, nt, channels, piece, asked, fma)``: ``nt`` blocks, ``channels`` of each vector of pixels.
    ``space`` is for ``pixels`` and ``sums`` of one row, which a first-level cache holds beside the rows of points, of up to 16 channels; of
    more weights and pixels come in order from the second-level one.
    With the products of each j, part and block ``asked`` lines from ``soon`` on are asked for, and as many from ``dst`` on.
    Order of accumulation: part, c.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit_products(builder, chosen, *arguments[1:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 8), codegen


def _emit_products(
    builder: Any, spec: tuple[Any, ...], shape: Any, row: Any, wei: Any, space: Any, soon: Any, soon_step: Any, dst: Any, dst_step: Any
) -> None:  # fmt: skip
    kind, lanes, m, nt, channels, piece, asked, fma = spec
    emit = Emitter(builder, kind, lanes, bool(fma))
    s = Shape(*(emit.load_integer(emit.offset(shape, 8 * n)) for n in range(len(Shape._fields))))
    transform, points, line = Transform(emit, m), m + 2, nt * emit.width
    pixels_line = emit.times(s.parts, line)  # of one j
    sums = emit.offset(space, emit.times(pixels_line, points))
    ahead, result_line = emit.variable(soon), emit.variable(dst)
    acc = [emit.variable(emit.number(0)) for _ in range(nt)]
    source, to = emit.variable(row), emit.variable(space)
    with emit.loop(s.parts):
        entry = emit.variable(emit.offset(shape, TABLE_AT))
        with emit.loop(emit.constant(nt)):
            place = emit.offset(emit.get(source), emit.load_integer(emit.get(entry)))
            x = [emit.load(emit.offset(place, k * emit.width)) for k in range(points)]
            for j, value in enumerate(transform.pixels(x)):
                emit.store(emit.offset(emit.get(to), emit.times(pixels_line, j)), value)
            emit.set(entry, emit.offset(emit.get(entry), 8))
            emit.set(to, emit.offset(emit.get(to), emit.width))
        emit.set(source, emit.offset(emit.get(source), s.pitch))
    result, first = emit.variable(row), emit.variable(wei)
    with emit.loop(s.blocks):
        w, place, total = emit.variable(emit.get(first)), emit.variable(space), emit.variable(sums)
        with emit.loop(emit.constant(points)):
            for value in acc:
                emit.set(value, emit.number(0))
            with emit.loop(s.parts):
                here, vectors = emit.get(place), emit.get(w)
                parts = [emit.get(value) for value in acc]
                for c in range(channels):
                    for _ in range((c + 1) * asked // channels - c * asked // channels):
                        emit.prefetch(emit.get(ahead))
                        emit.set(ahead, emit.offset(emit.get(ahead), soon_step))
                        emit.prefetch(emit.get(result_line))
                        emit.set(result_line, emit.offset(emit.get(result_line), dst_step))
                    vector = emit.load(emit.offset(vectors, c * emit.width))
                    for t in range(nt):
                        pixel = emit.pieces(emit.offset(here, t * emit.width + c * piece * emit.itemsize), piece)
                        parts[t] = emit.multiply_add(vector, pixel, parts[t])
                for value, part in zip(acc, parts, strict=True):
                    emit.set(value, part)
                emit.set(place, emit.offset(here, line))
                emit.set(w, emit.offset(vectors, channels * emit.width))
            emit.set(w, emit.offset(emit.get(w), SPARE * emit.width))
            for t, value in enumerate(acc):
                emit.store(emit.offset(emit.get(total), t * emit.width), emit.get(value))
            emit.set(total, emit.offset(emit.get(total), line))
        read, done = emit.variable(sums), emit.variable(emit.get(result))
        with emit.loop(emit.constant(nt)):
            y = [emit.load(emit.offset(emit.get(read), j * line)) for j in range(points)]
            for b, value in enumerate(transform.results(y)):
                emit.store(emit.offset(emit.get(done), b * emit.width), value)
            emit.set(read, emit.offset(emit.get(read), emit.width))
            emit.set(done, emit.offset(emit.get(done), m * emit.width))
        emit.set(result, emit.offset(emit.get(result), s.pitch))
        emit.set(first, emit.offset(emit.get(first), s.weights))


@intrinsic(prefer_literal=True)
def column_pixels(typing_context: Any, spec: Any, dst: Any, apart: Any, rows: Any, count: Any) -> Any:
    """``dst[i][x] = sum_k B^T[i, k] row_k[x]`` of ``count`` vectors of pixels, ``apart`` bytes from one i to the next.

    ``spec = (kind, lanes, m, stride, piece, fma)``; ``rows`` is the address of pairs: where a row's first pixel lies, the bytes to its next
    one.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, dst, apart, rows, count = arguments
        kind, lanes, m, stride, piece, fma = chosen
        emit = Emitter(builder, kind, lanes, bool(fma))
        transform, points, order = transform_of(emit, m, stride), pixels_of(m, stride), channels_of_lanes(lanes, piece)
        lines = [emit.variable(emit.load_integer(emit.offset(rows, 16 * k))) for k in range(points)]
        steps = [emit.load_integer(emit.offset(rows, 16 * k + 8)) for k in range(points)]
        to = emit.variable(dst)
        with emit.loop(count):
            x = [emit.load(emit.get(line)) for line in lines]
            for i, value in enumerate(transform.pixels(x)):
                emit.store(emit.offset(emit.get(to), emit.times(apart, i)), emit.pick(value, value, order) if piece > 1 else value)
            for line, step in zip(lines, steps, strict=True):
                emit.set(line, emit.offset(emit.get(line), step))
            emit.set(to, emit.offset(emit.get(to), emit.width))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 4), codegen


@intrinsic(prefer_literal=True)
def column_results(
    typing_context: Any, spec: Any, rows: Any, apart: Any, start: Any, finish: Any, dst: Any, dy: Any, dx: Any, tall: Any, wide: Any,
    beyond: Any,
) -> Any:  # fmt: skip
    """``dst[a, b] = finish(start + sum_i A^T[a, i] rows[i][b])`` for a < ``tall`` and b < ``wide``; whether it is to be repaired.

    ``spec = (kind, lanes, m, stride, piece, fma)``; ``rows[i]`` lie ``apart`` bytes from each other, ``start`` is the address of a vector
    in the order of lanes, ``finish`` that of ``[slope, low, high]`` or 0.  Those of other a go to ``beyond``; groups lie side by side in
    ``dst``.
    1 is returned where in some channel a result is not finite, or all are so small, but not 0, that the transforms may have lost bits.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, rows, apart, start, finish, dst, dy, dx, tall, wide, beyond = arguments
        kind, lanes, m, stride, piece, fma = chosen
        emit = Emitter(builder, kind, lanes, bool(fma))
        transform, points, order = transform_of(emit, m, stride), points_of(m, stride), grouped_lanes(lanes, piece)
        first, lines, steps = emit.load(start), [], []
        for a in range(m):
            inside = builder.icmp_signed("<", emit.constant(a), tall)
            lines.append(emit.variable(builder.select(inside, emit.offset(dst, emit.times(dy, a)), beyond)))
            steps.append(builder.select(inside, dx, emit.constant(0)))
        place, largest = emit.variable(rows), emit.variable(emit.bits().number(0))

        def columns(finished: Any) -> None:
            with emit.loop(wide):
                y = [emit.load(emit.offset(emit.get(place), emit.times(apart, i))) for i in range(points)]
                values = transform.results(y)
                emit.set(largest, largest_of(emit, values, emit.get(largest)))
                for value, line, step in zip(values, lines, steps, strict=True):
                    value = finished(builder.fadd(value, first))
                    emit.store(emit.get(line), emit.pick(value, value, order) if piece > 1 else value)
                    emit.set(line, emit.offset(emit.get(line), step))
                emit.set(place, emit.offset(emit.get(place), emit.width))

        with emit.either(finish) as (activated, plain):
            with activated:
                limits = [emit.splat(emit.offset(finish, n * emit.itemsize)) for n in range(3)]
                columns(lambda value: emit.activate(value, *limits))
            with plain:
                columns(lambda value: value)
        return unsafe(emit, emit.get(largest))

    return types.int64(spec, *[types.int64] * 10), codegen


def _factory(*spec: Any) -> Any:
    """The kernel of `row_products` with this ``spec``."""

    def products(shape: Any, row: Any, wei: Any, space: Any, soon: Any, soon_step: Any, dst: Any, dst_step: Any) -> None:
        unrolled_by_hand()
        row_products(spec, shape, row, wei, space, soon, soon_step, dst, dst_step)

    return products


def winograd_shallow_tile_kernel(spec: tuple[Any, ...]) -> TileKernel:
    """`_factory`'s, to be called with eight integers."""
    kind, lanes, m, nt, channels, piece, asked, _ = spec
    name = f"winograd_shallow_{kind}_{m}x{m}_{nt}x{channels}_{lanes}" + f"_{piece}" * (piece > 1) + f"_asking{asked}"
    return TileKernel(name, _factory, spec, 8)
