"""fast_fir_tile: register tiles of two rows of results at a time from three sums of half the taps, and the rows that they read."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .border import Span
from .compile import TileKernel
from .memory import unrolled_by_hand
from .simd import KINDS, Emitter, literal
from .tile import TAPS_AT, direct_tile_body

PARTS = 3  # sums: of the odd rows of pixels, for the even results and for the odd ones


@intrinsic(prefer_literal=True)
def fast_fir_tile(
    typing_context: Any, spec: Any, shape: Any, start: Any, aside: Any, table: Any, xoff: Any, dst: Any, dst_pitch: Any, count: Any
) -> Any:  # fmt: skip
    """``count`` tiles side by side, each ``rows x vecs`` vectors of the even and as many of the odd rows of an output plane.

    ``sum_p(i, x) = sum_{j, kx} row_p(i + j)[xoff + x*column + kx*tap] * wei_p[j, kx]`` for p = 0, 1, 2;
    ``dst[2i, x] = sum_0 + sum_1 + start``, ``dst[2i + 1, x] = sum_0 + sum_2 + start``.

    ``spec = (kind, lanes, rows, vecs, tall, fma)``.  ``shape`` is the address of the integers of `tile.Shape`, of which ``kh`` are the
    rows of taps of all: j < (kh + 1) // 2 for the first two parts, kh // 2 for the third; icg and step are not read.  ``start`` is the
    address of the addend, with the weights of all parts at ``start + TAPS_AT``, each as `tile.direct_tile` takes them.
    ``table[p*pitch + i]`` holds the addresses of the rows.  ``aside`` is memory for a tile.  ``xoff, dst_pitch`` are bytes.
    Order of accumulation: part 0, then the other part, each from zero in the order of `tile.direct_tile`; the addend last.
    Whole tiles are stored; a tile reads ``lanes*vecs - 1 + (kw - 1)`` pixels beyond its first.  No tails, no borders.
    """
    kind, lanes, rows, vecs, tall, fma = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        body = direct_tile_body(builder, (kind, lanes, rows, vecs, 1, 1, tall, 0, 0, fma), arguments[1])
        emit, shape = body.emit, body.shape
        start, aside, table, xoff, dst, dst_pitch, count = arguments[2:]
        zero, addend = emit.number(0), emit.splat(start)
        left, to = emit.variable(xoff), emit.variable(dst)
        few, many = emit.quotient(shape.kh, 2), emit.quotient(emit.offset(shape.kh, 1), 2)
        with emit.loop(count):
            body.acc = [[emit.variable(zero) for _ in range(vecs)] for _ in range(rows)]
            body.weights = emit.variable(emit.offset(start, TAPS_AT))
            base, part = emit.variable(table), emit.variable(emit.constant(0))
            result, pitch, last = emit.variable(aside), emit.variable(emit.constant(vecs * emit.width)), emit.variable(zero)
            with emit.loop(emit.constant(PARTS)):
                third = builder.icmp_unsigned("==", emit.get(part), emit.constant(2))
                body.entries = emit.variable(emit.get(base))
                body.groups(emit.get(left), builder.select(third, few, many))
                sums = [[builder.fadd(value, emit.get(last)) for value in row] for row in body.sums()]
                body.store_rows(sums, emit.get(result), emit.get(pitch), emit.store)
                body.keep([[emit.load(emit.offset(aside, (i * vecs + n) * emit.width)) for n in range(vecs)] for i in range(rows)])
                first = builder.icmp_unsigned("==", emit.get(part), emit.constant(0))
                emit.set(result, builder.select(first, emit.get(to), emit.offset(emit.get(to), dst_pitch)))
                emit.set(pitch, emit.times(dst_pitch, 2))
                emit.set(last, addend)
                emit.set(base, emit.offset(emit.get(base), shape.pitch))
                emit.set(part, emit.offset(emit.get(part), 1))
            emit.set(left, emit.offset(emit.get(left), emit.times(shape.column, lanes * vecs)))
            emit.set(to, emit.offset(emit.get(to), vecs * emit.width))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 8), codegen


def _factory(*spec: Any) -> Any:
    """The kernel of `fast_fir_tile` with this ``spec``, of its other arguments."""

    def tile(shape: Any, start: Any, aside: Any, table: Any, xoff: Any, dst: Any, dst_pitch: Any, count: Any) -> None:
        unrolled_by_hand()
        fast_fir_tile(spec, shape, start, aside, table, xoff, dst, dst_pitch, count)

    return tile


def fast_fir_tile_kernel(kind: str, lanes: int, rows: int, vecs: int, tall: int, fma: int) -> TileKernel:
    """`_factory`'s, to be called with eight integers."""
    return TileKernel(f"fast_fir_{kind}_{rows}x{vecs}_{lanes}", _factory, (kind, lanes, rows, vecs, tall, fma), 8)


@intrinsic(prefer_literal=True)
def fast_fir_rows(
    typing_context: Any, kind: Any, lanes: Any, dst: Any, apart: Any, rows: Any, span: Any, maps: Any, fill: Any, peak: Any
) -> Any:  # fmt: skip
    """What three parts read of a pair of rows of the image and the next: ``x[1]``, ``x[0] - x[1]``, ``x[2] - x[1]``, ``apart`` bytes apart.

    ``rows`` is the address of the addresses of x[0], x[1] and x[2], ``span`` and ``maps`` are those of `border.border_row`.
    At ``peak`` the largest magnitudes of each lane are kept, as integers of a float's bits, among which NaN and inf are the largest;
    those of pixels of the border are not.
    """
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, dst, apart, rows, span, maps, fill, peak = arguments
        emit = Emitter(builder, name, width, False)
        bits = emit.bits()
        at = Span(*(emit.load_integer(emit.offset(span, 8 * n)) for n in range(len(Span._fields))))
        images = [emit.load_integer(emit.offset(rows, 8 * n)) for n in range(3)]
        magnitude = bits.number((1 << (8 * emit.itemsize - 1)) - 1)
        most = emit.variable(bits.load(peak))

        def parts(x: list[Any]) -> list[Any]:
            return [x[1], builder.fsub(x[0], x[1]), builder.fsub(x[2], x[1])]

        def vectors(offset: Any) -> None:
            made = parts([emit.load(emit.offset(image, emit.times(emit.offset(at.first, offset), emit.itemsize))) for image in images])
            place = emit.offset(dst, emit.times(emit.offset(at.before, offset), emit.itemsize))
            for n, values in enumerate(made):
                emit.store(emit.offset(place, emit.times(apart, n)), values)
                size = builder.and_(builder.bitcast(values, bits.vector), magnitude)
                larger = builder.icmp_signed(">", size, emit.get(most))
                emit.set(most, builder.select(larger, size, emit.get(most)))

        def pixels(first: Any, count: Any, column_of: Any) -> None:
            """``count`` pixels one by one."""
            n = emit.variable(emit.constant(0))
            with emit.loop(count):
                column = column_of(emit.get(n))
                outside = builder.icmp_signed("<", column, emit.constant(0))
                place = emit.times(builder.select(outside, emit.constant(0), column), emit.itemsize)
                x = [builder.select(outside, fill, emit.load_scalar(emit.offset(image, place))) for image in images]
                to = emit.offset(dst, emit.times(emit.offset(first, emit.get(n)), emit.itemsize))
                for m, value in enumerate(parts(x)):
                    emit.store_scalar(emit.offset(to, emit.times(apart, m)), value)
                emit.set(n, emit.offset(emit.get(n), 1))

        def mapped(start: Any) -> Any:
            return lambda n: emit.load_integer(emit.offset(maps, emit.times(emit.offset(start, n), 8)))

        pixels(emit.constant(0), at.before, mapped(at.before_at))
        whole = emit.quotient(at.inside, width)
        with emit.either(whole) as (some, none):
            with some:
                offset = emit.variable(emit.constant(0))
                with emit.loop(whole):
                    vectors(emit.get(offset))
                    emit.set(offset, emit.offset(emit.get(offset), width))
                vectors(emit.offset(at.inside, -width))
            with none:
                pixels(at.before, at.inside, lambda n: emit.offset(at.first, n))
        pixels(emit.offset(at.before, at.inside), at.after, mapped(at.after_at))
        bits.store(peak, emit.get(most))
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 5, KINDS[name][1], types.int64), codegen
