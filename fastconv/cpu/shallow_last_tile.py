"""shallow_last_tile: the register tile of `shallow_last`, output channels in lanes, pixels broadcast; the copy of pixels into its panel.

Kernels of their own, which one band kernel calls by their addresses.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

from numba import types
from numba.extending import intrinsic

from ..planning.problem import Problem
from .compile import TileKernel
from .memory import unrolled_by_hand
from .simd import Emitter, literal

UNROLL = 2  # channels of groups per turn of the innermost loop
# Vectors that are loaded before any is stored: those that lie 2 KiB apart each wait for an earlier store to the same place of another page.
_TOGETHER = 8

# What all tiles of a problem share: entries of the table of offsets, which lies behind, and the channels of each; bytes between the
# result's pixels.
Shape = namedtuple("Shape", "entries many dx")
TABLE_AT = 8 * len(Shape._fields)


@intrinsic(prefer_literal=True)
def shallow_last_tile(
    typing_context: Any, spec: Any, shape: Any, panel: Any, wei: Any, start: Any, finish: Any, dst: Any
) -> Any:  # fmt: skip
    """``mr`` vectors of output channels at ``nx`` pixels of a row.

    ``dst[j, o] = start[o] + sum_{e, c, k} panel[offsets[e] + j*step + k*lanes + c*piece + o % piece] * wei[e, k, c, o]``, activated.

    ``spec = (kind, lanes, mr, nx, taps, step, piece, unroll, fma)``: k runs over ``taps`` neighbours, ``unroll`` divides the channels.
    ``piece`` elements that lie side by side are one for each of as many groups, so that lane ``o`` is result ``o // piece`` of group
    ``o % piece``; results are stored group by group.
    ``shape`` is the address of the integers of :data:`Shape` and of a table of bytes into the panel; ``wei`` is packed as
    ``[e][k][c][mr*lanes]``, ``start`` as ``[mr*lanes]``; ``finish`` is the address of ``[slope, low, high]`` or 0.  The lines of the
    result are not asked for: first layers took 0.9 of the time without, groups no longer.
    Order of accumulation: e, c, k.  No tails, no borders: the driver sees to both.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit(builder, chosen, *arguments[1:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 6), codegen


def grouped_lanes(lanes: int, piece: int) -> list[int]:
    """The lane that each channel of a vector is summed in: of ``piece`` groups side by side the first results are neighbours.

    Examples
    --------
    >>> grouped_lanes(8, 2)
    [0, 2, 4, 6, 1, 3, 5, 7]
    """
    each = lanes // piece
    return [channel % each * piece + channel // each for channel in range(lanes)]


def channels_of_lanes(lanes: int, piece: int) -> list[int]:
    """The channel that each lane holds in the order of `grouped_lanes`.

    Examples
    --------
    >>> channels_of_lanes(8, 2)
    [0, 4, 1, 5, 2, 6, 3, 7]
    """
    return inverse(grouped_lanes(lanes, piece))


def piece_of(p: Problem, lanes: int) -> int:
    """Groups of a vector."""
    return max(lanes // (p.ic // p.g), 1) if p.g > 1 else 1


def not_grouped(p: Problem, lanes: int, least: int, most: int) -> str | None:
    """Why a problem is none of several groups of ``least`` to ``most`` channels and results that are whole vectors, or fill some."""
    if p.g == 1:
        return "is for several groups"
    icg, ocg = p.ic // p.g, p.oc // p.g
    if not all(least <= depth <= most for depth in (icg, ocg)):
        return f"sums groups of {least} to {most} channels, not {icg} and {ocg}"
    return not_whole_vectors(p, lanes)


def not_whole_vectors(p: Problem, lanes: int) -> str | None:
    """Why a group's channels and its results are neither whole vectors nor as many that fill some with other groups', or None."""
    icg, ocg = p.ic // p.g, p.oc // p.g
    if (icg % lanes or ocg % lanes) if max(icg, ocg) > lanes else (icg != ocg or lanes % icg or p.ic % lanes):
        return f"sums groups of whole vectors of {lanes} channels, or of as many as results that fill some, not {icg} and {ocg}"
    return None


def _emit(
    builder: Any, spec: tuple[Any, ...], shape: Any, panel: Any, wei: Any, start: Any, finish: Any, dst: Any
) -> None:  # fmt: skip
    kind, lanes, mr, nx, taps, step, piece, unroll, fma = spec
    emit = Emitter(builder, kind, lanes, bool(fma))
    s = Shape(*(emit.load_integer(emit.offset(shape, 8 * n)) for n in range(len(Shape._fields))))
    firsts = [emit.load(emit.offset(start, m * emit.width)) for m in range(mr)]
    acc = [[emit.variable(first) for _ in range(nx)] for first in firsts]
    table, weights = emit.variable(emit.offset(shape, TABLE_AT)), emit.variable(wei)
    row = mr * emit.width
    below = emit.times(s.many, row)  # from one neighbour's weights to the next one's

    uses: dict[int, list[tuple[int, int]]] = {}  # of each place, in elements, the results and taps that read it
    for j in range(nx):
        for k in range(taps):
            uses.setdefault(j * step + k * lanes, []).append((j, k))

    with emit.loop(s.entries):
        entry = emit.get(table)
        place = emit.variable(emit.offset(panel, emit.load_integer(entry)))
        with emit.loop(emit.quotient(s.many, unroll)):
            here, w = emit.get(place), emit.get(weights)
            for turn in range(unroll):
                vectors = [[emit.load(emit.offset(w, emit.times(below, k), turn * row + m * emit.width)) for m in range(mr)]
                           for k in range(taps)]  # fmt: skip
                for at, readers in sorted(uses.items()):
                    pixel = emit.pieces(emit.offset(here, (at + turn * piece) * emit.itemsize), piece)
                    for j, k in readers:
                        for m in range(mr):
                            emit.set(acc[m][j], emit.multiply_add(vectors[k][m], pixel, emit.get(acc[m][j])))
            emit.set(place, emit.offset(here, unroll * piece * emit.itemsize))
            emit.set(weights, emit.offset(w, unroll * row))
        emit.set(weights, emit.offset(emit.get(weights), emit.times(below, taps - 1)))
        emit.set(table, emit.offset(entry, 8))
    sums = [[emit.get(value) for value in values] for values in acc]
    order = grouped_lanes(lanes, piece)

    def store(values: Any) -> None:
        place = dst
        for j in range(nx):
            for m in range(mr):
                value = values[m][j]
                emit.store(emit.offset(place, m * emit.width), emit.pick(value, value, order) if piece > 1 else value)
            place = emit.offset(place, s.dx)

    with emit.either(finish) as (activated, plain):
        with activated:
            limits = [emit.splat(emit.offset(finish, n * emit.itemsize)) for n in range(3)]
            store([[emit.activate(value, *limits) for value in row] for row in sums])
        with plain:
            store(sums)


def _factory(*spec: Any) -> Any:
    """The kernel of `shallow_last_tile` with this ``spec``."""

    def tile(shape: Any, panel: Any, wei: Any, start: Any, finish: Any, dst: Any) -> None:
        unrolled_by_hand()
        shallow_last_tile(spec, shape, panel, wei, start, finish, dst)

    return tile


def shallow_last_tile_kernel(spec: tuple[Any, ...]) -> TileKernel:
    """`_factory`'s, to be called with six integers."""
    kind, lanes, mr, nx, taps, step, piece, *_ = spec
    return TileKernel(f"shallow_last_{kind}_{mr}x{nx}_{lanes}_k{taps}s{step}" + f"_{piece}" * (piece > 1), _factory, spec, 6)


@intrinsic(prefer_literal=True)
def place_pixels(
    typing_context: Any, kind: Any, lanes: Any, piece: Any, vectors: Any, dst: Any, dst_step: Any, apart: Any, src: Any, src_step: Any,
    count: Any,
) -> Any:  # fmt: skip
    """``count`` pixels of ``vectors`` vectors side by side, so many bytes between two pixels, to places ``apart`` from each other.

    The channels of ``piece`` groups in lanes of `grouped_lanes`.
    """
    name, width, groups, many = literal(kind), literal(lanes), literal(piece), literal(vectors)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dst, dst_step, apart, src, src_step, count = arguments[4:]
        emit = Emitter(builder, name, width, False)
        order = channels_of_lanes(width, groups)
        together = _TOGETHER // many

        def copied(first: Any, pixels: int) -> None:
            places = [(n, v) for n in range(pixels) for v in range(many)]
            values = [emit.load(emit.offset(src, emit.times(src_step, emit.offset(first, n)), v * emit.width)) for n, v in places]
            for (n, v), value in zip(places, values, strict=True):
                to = emit.offset(dst, emit.times(dst_step, emit.offset(first, n)), emit.times(apart, v))
                emit.store(to, emit.pick(value, value, order) if groups > 1 else value)

        at, last = emit.variable(emit.constant(0)), emit.offset(count, -together)
        with builder.if_else(builder.icmp_signed(">=", last, emit.constant(0))) as (enough, few):
            with enough, emit.loop(emit.quotient(emit.offset(count, together - 1), together)):
                here = emit.get(at)
                copied(builder.select(builder.icmp_signed("<", here, last), here, last), together)
                emit.set(at, emit.offset(here, together))
            with few, emit.loop(count):
                copied(emit.get(at), 1)
                emit.set(at, emit.offset(emit.get(at), 1))
        return context.get_dummy_value()

    return types.void(kind, lanes, piece, vectors, *[types.int64] * 6), codegen


def _placing_factory(kind: str, lanes: int, piece: int) -> Any:
    """The kernel of `place_pixels`, of one vector or two."""

    def place(dst: Any, dst_step: Any, apart: Any, src: Any, src_step: Any, count: Any, vectors: Any) -> None:
        unrolled_by_hand()
        if vectors == 2:
            place_pixels(kind, lanes, piece, 2, dst, dst_step, apart, src, src_step, count)
        else:
            place_pixels(kind, lanes, piece, 1, dst, dst_step, apart, src, src_step, count)

    return place


def placing_tile_kernel(kind: str, lanes: int, piece: int) -> TileKernel:
    """`_placing_factory`'s, to be called with seven integers."""
    return TileKernel(f"place_pixels_{kind}_{lanes}" + f"_{piece}" * (piece > 1), _placing_factory, (kind, lanes, piece), 7)


def inverse(order: Sequence[int]) -> list[int]:
    """The permutation that undoes one.

    Examples
    --------
    >>> inverse([2, 0, 1])
    [1, 2, 0]
    """
    return sorted(range(len(order)), key=order.__getitem__)
