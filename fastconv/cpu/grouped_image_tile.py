"""grouped_image_tile: the register tile of `grouped_image`, channels of the image in lanes, pixels of the gradient broadcast."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from numba import types
from numba.extending import intrinsic

from .compile import TileKernel
from .memory import unrolled_by_hand
from .shallow_last_tile import grouped_lanes
from .simd import Emitter, literal
from .strided_image import STEP

UNROLL = 2  # channels per turn of the innermost loop

# What all tiles of a problem share: channels of an entry and of a group of the gradient; bytes between the result's pixels.
Shape = namedtuple("Shape", "many depth dx")


def tap_shifts(kw: int, odd: int) -> list[list[tuple[int, int]]]:
    """Of both results of a pair, the taps and the columns of the gradient that they meet, from the first that either reads.

    The first result of a pair lies in an ``odd`` column of the padded image, or in an even one.

    Examples
    --------
    >>> tap_shifts(3, 1)
    [[(1, 0)], [(0, 1), (2, 0)]]
    >>> tap_shifts(3, 0)
    [[(0, 1), (2, 0)], [(1, 1)]]
    """
    both = [[(kx, (side + odd) // STEP - kx // STEP) for kx in range((side + odd) % STEP, kw, STEP)] for side in range(STEP)]
    first = first_shift(kw, odd)
    return [[(kx, shift - first) for kx, shift in taps] for taps in both]


def first_shift(kw: int, odd: int) -> int:
    """The first column of the gradient that a pair of results reads, beside its own."""
    return min((side + odd) // STEP - kx // STEP for side in range(STEP) for kx in range((side + odd) % STEP, kw, STEP))


@intrinsic(prefer_literal=True)
def grouped_image_tile(
    typing_context: Any, spec: Any, shape: Any, row: Any, panel: Any, wei: Any, start: Any, finish: Any, dst: Any, last: Any
) -> Any:  # fmt: skip
    """A vector of channels at ``pairs`` pairs of results side by side.

    ``dst[2j + a, i] = start[i] + sum_{e, c, k} panel[e][j + shift_k][c*piece + i % piece] * wei[e][k, c, i]``, activated, over the taps k
    and shifts of `tap_shifts` for results a.

    ``spec = (kind, lanes, pairs, kw, odd, piece, unroll, fma)``; ``unroll`` divides the channels.  ``piece`` elements that lie side by side
    are one for each of as many groups: lane ``i`` is result ``i // piece`` of group ``i % piece``; results are stored group by group.
    ``shape`` is the address of the integers of :data:`Shape`, ``row`` of a number of entries and of so many pairs of bytes, into the panel
    and to the weights, which are packed as ``[k][depth][lanes]``; ``finish`` is the address of ``[slope, low, high]`` or 0.
    The last result is stored at ``last``.
    Order of accumulation: e, c, column of the gradient.  No borders: the driver sees to them.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit(builder, chosen, *arguments[1:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 8), codegen


def _emit(
    builder: Any, spec: tuple[Any, ...], shape: Any, row: Any, panel: Any, wei: Any, start: Any, finish: Any, dst: Any, last: Any
) -> None:  # fmt: skip
    kind, lanes, pairs, kw, odd, piece, unroll, fma = spec
    emit = Emitter(builder, kind, lanes, bool(fma))
    s = Shape(*(emit.load_integer(emit.offset(shape, 8 * n)) for n in range(len(Shape._fields))))
    first = emit.load(start)
    acc = [[emit.variable(first) for _ in range(STEP)] for _ in range(pairs)]
    below = emit.times(s.depth, emit.width)  # from one tap's weights to the next one's

    uses: dict[int, list[tuple[int, int, int]]] = {}  # of each column of the gradient the pairs, results and taps that read it
    for j in range(pairs):
        for a, taps in enumerate(tap_shifts(kw, odd)):
            for k, shift in taps:
                uses.setdefault(j + shift, []).append((j, a, k))

    entry = emit.variable(emit.offset(row, 8))
    with emit.loop(emit.load_integer(row)):
        at = emit.get(entry)
        place = emit.variable(emit.offset(panel, emit.load_integer(at)))
        weights = emit.variable(emit.offset(wei, emit.load_integer(emit.offset(at, 8))))
        with emit.loop(emit.quotient(s.many, unroll)):
            here, w = emit.get(place), emit.get(weights)
            for turn in range(unroll):
                vectors = [emit.load(emit.offset(w, emit.times(below, k), turn * emit.width)) for k in range(kw)]
                for column, readers in sorted(uses.items()):
                    pixel = emit.pieces(emit.offset(here, column * emit.width + turn * piece * emit.itemsize), piece)
                    values = [emit.multiply_add(vectors[k], pixel, emit.get(acc[j][a])) for j, a, k in readers]
                    for (j, a, _), value in zip(readers, emit.fence(values), strict=True):
                        emit.set(acc[j][a], value)
            emit.set(place, emit.offset(here, unroll * piece * emit.itemsize))
            emit.set(weights, emit.offset(w, unroll * emit.width))
        emit.set(entry, emit.offset(at, 16))
    sums = [emit.get(value) for values in acc for value in values]
    order = grouped_lanes(lanes, piece)

    def store(values: Any) -> None:
        place = dst
        for n, value in enumerate(values):
            emit.store(place if n < len(values) - 1 else last, emit.pick(value, value, order) if piece > 1 else value)
            place = emit.offset(place, s.dx)

    with emit.either(finish) as (activated, plain):
        with activated:
            limits = [emit.splat(emit.offset(finish, n * emit.itemsize)) for n in range(3)]
            store([emit.activate(value, *limits) for value in sums])
        with plain:
            store(sums)


def _factory(*spec: Any) -> Any:
    """The kernel of `grouped_image_tile` with this ``spec``."""

    def tile(shape: Any, row: Any, panel: Any, wei: Any, start: Any, finish: Any, dst: Any, last: Any) -> None:
        unrolled_by_hand()
        grouped_image_tile(spec, shape, row, panel, wei, start, finish, dst, last)

    return tile


def grouped_image_tile_kernel(spec: tuple[Any, ...]) -> TileKernel:
    """`_factory`'s, to be called with eight integers."""
    kind, lanes, pairs, kw, odd, piece, *_ = spec
    return TileKernel(f"grouped_image_{kind}_{pairs}_{lanes}_k{kw}" + "o" * odd + f"_{piece}" * (piece > 1), _factory, spec, 8)
