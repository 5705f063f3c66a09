"""weights_winograd_tile: products of `weights_winograd`; the transforms of the result's gradient, and of sums of products to taps."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from ..planning.winograd_points import points_of, transform_of
from .compile import TileKernel
from .memory import unrolled_by_hand
from .simd import Emitter, literal
from .winograd_tile import largest_of, magnitude_bits, store_sums, unsafe

_INTEGERS = 14  # of `point_products`


@intrinsic(prefer_literal=True)
def transformed_gradients(
    typing_context: Any, spec: Any, dst: Any, dst_step: Any, dst_pitch: Any, rows: Any, count: Any, totals: Any
) -> Any:  # fmt: skip
    """``dst[t*dst_step + (i, j)*dst_pitch] = sum_{a, b} A[i, a] A[j, b] row_a[t*m + b]``, vectors, of ``count`` blocks t; steps in bytes.

    ``spec = (kind, lanes, m, stride, fma)``; ``rows`` is the address of m pairs: where a row's first vector lies, the bytes to its next
    one.  The sum of all magnitudes is added to the vector at ``totals``.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, dst, dst_step, dst_pitch, rows, count, totals = arguments
        kind, lanes, m, stride, fma = chosen
        emit = Emitter(builder, kind, lanes, bool(fma))
        transform, points = transform_of(emit, m, stride), points_of(m, stride)
        lines = [emit.variable(emit.load_integer(emit.offset(rows, 16 * a))) for a in range(m)]
        steps = [emit.load_integer(emit.offset(rows, 16 * a + 8)) for a in range(m)]
        to, total = emit.variable(dst), emit.variable(emit.load(totals))
        with emit.loop(count):
            columns = []
            for _ in range(m):
                column = []
                for line, step in zip(lines, steps, strict=True):
                    column.append(emit.load(emit.get(line)))
                    emit.set(line, emit.offset(emit.get(line), step))
                for value in column:
                    emit.set(total, builder.fadd(emit.get(total), emit.values(magnitude_bits(emit, value))))
                columns.append(transform.gradients(column))
            for i in range(points):
                for j, value in enumerate(transform.gradients([column[i] for column in columns])):
                    emit.store(emit.offset(emit.get(to), emit.times(dst_pitch, points * i + j)), value)
            emit.set(to, emit.offset(emit.get(to), dst_step))
        emit.store(totals, emit.get(total))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 6), codegen


@intrinsic(prefer_literal=True)
def summed_taps(typing_context: Any, spec: Any, dst: Any, dst_pitch: Any, sums: Any, pitch: Any) -> Any:
    """``dst[(ky, kx)*dst_pitch] = sum_{i, j} G[i, ky] G[j, kx] sums[(i, j)*pitch]``, vectors; whether they are to be done again.

    ``spec = (kind, lanes, m, stride, fma)``; pitches are bytes.  1 is returned where in some channel a tap is not finite, or all are so
    small, but not 0, that the transforms may have lost bits.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, dst, dst_pitch, sums, pitch = arguments
        kind, lanes, m, stride, fma = chosen
        emit = Emitter(builder, kind, lanes, bool(fma))
        transform, points = transform_of(emit, m, stride), m + 2
        rows = []
        for i in range(points):
            rows.append(transform.taps([emit.load(emit.offset(sums, emit.times(pitch, points * i + j))) for j in range(points)]))
        columns = [transform.taps([row[kx] for row in rows]) for kx in range(3)]
        for ky in range(3):
            for kx in range(3):
                emit.store(emit.offset(dst, emit.times(dst_pitch, 3 * ky + kx)), columns[kx][ky])
        return unsafe(emit, largest_of(emit, [value for column in columns for value in column]))

    return types.int64(spec, *[types.int64] * 4), codegen


@intrinsic(prefer_literal=True)
def point_products(
    typing_context: Any, spec: Any, sums: Any, step: Any, later: Any, grads: Any, grad_part: Any, grad_strip: Any, pixels: Any,
    pixel_part: Any, pixel_strip: Any, parts: Any, strips: Any, blocks: Any, soon: Any, soon_step: Any,
) -> Any:  # fmt: skip
    """``sums[j][o] (+)= sum_{r, s, t} grads[r][s][t][o] * pixels[r][s][t][j]`` of ``columns`` j and ``mr`` vectors of o.

    ``spec = (kind, lanes, mr, columns, fma)``; t are ``blocks``, s ``strips`` of them, r ``parts``.  ``step`` and those of parts and strips
    are bytes between two j, two r and two s; vectors of ``grads`` lie side by side, pixels a vector apart.  What is summed here is added to
    what is there, where ``later`` is not 0, in the end: so errors hardly grow with the blocks.  At each block the second-level cache is
    asked for the line at ``soon``, which then advances by ``soon_step`` bytes.
    Order of accumulation: r, s, t.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit_products(builder, chosen, *arguments[1:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * _INTEGERS), codegen


def _emit_products(
    builder: Any, spec: tuple[Any, ...], sums: Any, step: Any, later: Any, grads: Any, grad_part: Any, grad_strip: Any, pixels: Any,
    pixel_part: Any, pixel_strip: Any, parts: Any, strips: Any, blocks: Any, soon: Any, soon_step: Any,
) -> None:  # fmt: skip
    kind, lanes, mr, columns, fma = spec
    emit = Emitter(builder, kind, lanes, bool(fma))
    places = [emit.offset(sums, emit.times(step, j), m * emit.width) for j in range(columns) for m in range(mr)]
    acc = [emit.variable(emit.number(0)) for _ in places]
    for place in places:
        emit.prefetch(place, 1, True)
    grad_part_at, pixel_part_at, ahead = emit.variable(grads), emit.variable(pixels), emit.variable(soon)
    with emit.loop(parts):
        grad_at, pixel_at = emit.variable(emit.get(grad_part_at)), emit.variable(emit.get(pixel_part_at))
        with emit.loop(strips):
            grad, pixel = emit.variable(emit.get(grad_at)), emit.variable(emit.get(pixel_at))
            with emit.loop(blocks):
                g, x = emit.get(grad), emit.get(pixel)
                values = [emit.get(place) for place in acc]
                vectors = [emit.load(emit.offset(g, m * emit.width)) for m in range(mr)]
                emit.prefetch(emit.get(ahead))
                emit.set(ahead, emit.offset(emit.get(ahead), soon_step))
                for j in range(columns):
                    one = emit.splat(emit.offset(x, j * emit.itemsize))
                    for m in range(mr):
                        values[j * mr + m] = emit.multiply_add(vectors[m], one, values[j * mr + m])
                for place, value in zip(acc, values, strict=True):
                    emit.set(place, value)
                emit.set(grad, emit.offset(g, mr * emit.width))
                emit.set(pixel, emit.offset(x, emit.width))
            emit.set(grad_at, emit.offset(emit.get(grad_at), grad_strip))
            emit.set(pixel_at, emit.offset(emit.get(pixel_at), pixel_strip))
        emit.set(grad_part_at, emit.offset(emit.get(grad_part_at), grad_part))
        emit.set(pixel_part_at, emit.offset(emit.get(pixel_part_at), pixel_part))
    store_sums(emit, places, acc, later)


def _factory(*spec: Any) -> Any:
    """The kernel of `point_products` with this ``spec``."""

    def products(
        sums: Any, step: Any, later: Any, grads: Any, grad_part: Any, grad_strip: Any, pixels: Any, pixel_part: Any, pixel_strip: Any,
        parts: Any, strips: Any, blocks: Any, soon: Any, soon_step: Any,
    ) -> None:  # fmt: skip
        unrolled_by_hand()
        point_products(spec, sums, step, later, grads, grad_part, grad_strip, pixels, pixel_part, pixel_strip, parts, strips, blocks, soon,
                       soon_step)  # fmt: skip

    return products


def weights_winograd_tile_kernel(spec: tuple[Any, ...]) -> TileKernel:
    """`_factory`'s, to be called with fourteen integers."""
    kind, lanes, mr, columns, _ = spec
    return TileKernel(f"weights_winograd_{kind}_{mr}x{columns}_{lanes}", _factory, spec, _INTEGERS)
