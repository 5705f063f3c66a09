"""blocked_tile: the register tile of `blocked`, output channels in lanes, pixels broadcast from a packed panel."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from numba import types
from numba.extending import intrinsic

from .simd import Emitter, literal

_UNROLL = 4  # channels per turn of the innermost loop


# The first of a kernel's integers, which its tile reads: taps; bytes between channels and between channel blocks of the panel; bytes
# between the panel's pixels of two output rows; of the result's rows, pixels and channels.
Shape = namedtuple("Shape", "taps channel block step_y dy dx dc")


@intrinsic(prefer_literal=True)
def blocked_tile(
    typing_context: Any, spec: Any, shape: Any, offsets: Any, panel: Any, wei: Any, blocks: Any, last: Any, start: Any, start_step: Any,
    finish: Any, dst: Any, way: Any,
) -> Any:  # fmt: skip
    """``mr`` vectors of output channels at ``ny x nx`` pixels.

    ``acc[jy, jx, o] = start[jy, jx, o] + sum_{cb, tap, c} panel[cb*block + offsets[tap] + c*channel + jy*step_y + jx*step] * wei[.., o]``

    ``spec = (kind, lanes, mr, ny, nx, step, depth, fma)``: ``step`` elements lie between pixels, ``depth`` channels in a channel block.
    ``shape`` is the address of the integers of :data:`Shape`, ``offsets`` that of a table of bytes.  ``wei`` is packed as
    ``[cb][tap][c][mr*lanes]``; the last of ``blocks`` channel blocks holds ``last`` channels.  Order of accumulation: channel block,
    tap, channel.  ``start`` is the address of the first addends, ``[mr*lanes]`` for each pixel, ``start_step`` bytes apart (0: the same
    for all).  ``finish`` is the address of ``[slope, low, high]``.  ``way`` is how results are stored: 0 as ``[jy][jx][mr*lanes]`` at
    ``dst``, whole, 1 channels last (``dc`` one element), 2 pixels in a row (``dx`` one element).
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit_blocked(builder, chosen, *arguments[1:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 11), codegen


def _emit_blocked(
    builder: Any, spec: tuple[Any, ...], shape: Any, offsets: Any, panel: Any, wei: Any, blocks: Any, last: Any, start: Any,
    start_step: Any, finish: Any, dst: Any, way: Any,
) -> None:  # fmt: skip
    kind, lanes, mr, ny, nx, step, depth, fma = spec
    emit = Emitter(builder, kind, lanes, bool(fma))
    s = Shape(*(emit.load_integer(emit.offset(shape, 8 * n)) for n in range(len(Shape._fields))))
    pixels = [(jy, jx) for jy in range(ny) for jx in range(nx)]
    firsts = [emit.offset(start, emit.times(start_step, j)) for j in range(len(pixels))]
    acc = [[emit.variable(emit.load(emit.offset(first, m * emit.width))) for first in firsts] for m in range(mr)]
    weights, base = emit.variable(wei), emit.variable(panel)

    def channels(count: Any, unroll: int, at: Any) -> None:
        with emit.loop(count):
            sums = [[emit.get(place) for place in places] for places in acc]
            here, w = emit.get(at), emit.get(weights)
            for turn in range(unroll):
                vectors = [emit.load(emit.offset(w, (turn * mr + m) * emit.width)) for m in range(mr)]
                start = emit.offset(here, turn * emit.itemsize) if step > 1 else emit.offset(here, emit.times(s.channel, turn))
                for j, (jy, jx) in enumerate(pixels):
                    line = emit.offset(start, emit.times(s.step_y, jy)) if jy else start
                    pixel = emit.splat(emit.offset(line, jx * step * emit.itemsize))
                    for m in range(mr):
                        sums[m][j] = emit.multiply_add(vectors[m], pixel, sums[m][j])
            for places, values in zip(acc, sums, strict=True):
                for place, value in zip(places, values, strict=True):
                    emit.set(place, value)
            emit.set(at, emit.offset(here, unroll * emit.itemsize if step > 1 else emit.times(s.channel, unroll)))
            emit.set(weights, emit.offset(w, unroll * mr * emit.width))

    def all_taps(turns: Any, unroll: int) -> None:
        table = emit.variable(offsets)
        with emit.loop(s.taps):
            entry = emit.get(table)
            channels(turns, unroll, emit.variable(emit.offset(emit.get(base), emit.load_integer(entry))))
            emit.set(table, emit.offset(entry, 8))

    # whole channel blocks, then one of fewer channels: a remainder within the innermost loop costs spilled accumulators
    rest = builder.zext(builder.icmp_signed("<", last, emit.constant(depth)), blocks.type)
    with emit.loop(builder.sub(blocks, rest)):
        all_taps(emit.constant(depth // _UNROLL), _UNROLL)
        emit.set(base, emit.offset(emit.get(base), s.block))
    with emit.loop(rest):
        all_taps(last, 1)

    slope, low, high = (emit.splat(emit.offset(finish, n * emit.itemsize)) for n in range(3))
    sums = [[emit.activate(emit.get(place), slope, low, high) for place in places] for places in acc]
    with emit.case(way, 0):
        for m in range(mr):
            for j in range(len(pixels)):
                emit.store(emit.offset(dst, (j * mr + m) * emit.width), sums[m][j])
    with emit.case(way, 1):
        for j, (jy, jx) in enumerate(pixels):
            to = emit.offset(dst, emit.times(s.dy, jy), emit.times(s.dx, jx))
            for m in range(mr):
                emit.store(emit.offset(to, m * emit.width), sums[m][j])
    with emit.case(way, 2):
        for m in range(mr):
            for jy in range(ny):
                for x0 in range(0, nx, lanes):
                    count = min(lanes, nx - x0)
                    square = [sums[m][jy * nx + x0 + jx] if jx < count else emit.undefined() for jx in range(lanes)]
                    for lane, line in enumerate(emit.transpose(square)):
                        to = emit.offset(dst, emit.times(s.dc, m * lanes + lane), emit.times(s.dy, jy), x0 * emit.itemsize)
                        emit.store_first(to, line, count)
