"""depthwise_image_tile: the register tile of `depthwise_image`, channels in lanes: quads of results of the gradient of a strided image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numba import types
from numba.extending import intrinsic

from .depthwise_tile import DepthwiseTile
from .simd import Emitter, literal
from .strided_image import STEP


@intrinsic(prefer_literal=True)
def quads_tile(
    typing_context: Any, spec: Any, shape: Any, table: Any, wei: Any, start: Any, finish: Any, targets: Any, pitch: Any, most: Any
) -> Any:  # fmt: skip
    """All vectors of channels at ``nx / 2`` quads of results side by side, 2 x 2 pixels each.

    ``acc[a, 2 j + b, i] = start[i] + sum_{r, c, m} pixel(r, j - m)[group(i) + c] * wei[ky, 2 m + b, c, i]``, then activated, where row r
    of pixels meets the tap ``ky = 2 (rows - 1 - r) + a``, as far as there are such taps.

    ``spec``, ``shape``, ``table``, ``start``, ``finish`` and ``most`` as of `fastconv.cpu.depthwise_tile.depthwise_tile`, ``spec`` with two
    rows and the stride 2; ``table`` has an entry for each column of pixels, which are side by side.  ``wei`` is packed as
    ``[ky][kx][c][i]``.  ``targets`` is the address of a table of the results' addresses, whose
    two rows are ``pitch`` bytes apart.
    Order of accumulation: row of pixels, two channels of the group, column of pixels, these channels.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        shape, table, wei, start, finish, targets, pitch, most = arguments[1:]
        tile = _QuadsTile(builder, chosen, shape)
        lanes = tile.emit.constant(tile.lanes)
        tile.emit_vectors(table, wei, start, lanes, finish, targets, pitch, lanes, lanes, most, lanes, *3 * [tile.emit.constant(0)])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 8), codegen


@intrinsic(prefer_literal=True)
def finite(typing_context: Any, kind: Any, lanes: Any, src: Any, count: Any) -> Any:
    """``finite(kind, lanes, src, count)``: 1 where all elements of ``count`` vectors are finite, else 0."""
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, name, width, False)
        none = emit.number(0)
        place, found = emit.variable(arguments[2]), emit.variable(none)
        with emit.loop(arguments[3]):
            vector = emit.load(emit.get(place))
            emit.set(found, builder.fadd(emit.get(found), builder.fsub(vector, vector)))  # 0, or NaN
            emit.set(place, emit.offset(emit.get(place), emit.width))
        return emit.every(builder.fcmp_ordered("==", emit.get(found), none))

    return types.int64(kind, lanes, types.int64, types.int64), codegen


class _QuadsTile(DepthwiseTile):
    """Two rows of results that read the same rows of pixels, with every second tap each."""

    held = 2  # of channels of a group: twice the taps of a row of them

    def weights(self, wei: Any) -> list[Any]:
        """From the last row of taps of either row of results on."""
        emit, row = self.emit, super().of_row()
        many = [emit.quotient(emit.offset(self.shape.kh, STEP - 1 - a), STEP) for a in range(STEP)]
        first = [emit.offset(emit.times(emit.offset(rows, -1), STEP), a) for a, rows in enumerate(many)]
        return [emit.variable(emit.offset(wei, emit.times(ky, row))) for ky in first]

    def of_row(self) -> Any:
        """To the row of taps that the next row of pixels meets."""
        return self.emit.times(super().of_row(), -STEP)

    def sums(self) -> None:
        """Of an odd number of rows of taps, the last one is the first row's alone."""
        self.rows(self.emit.remainder(self.shape.kh, STEP), [0])
        self.rows(self.emit.quotient(self.shape.kh, STEP), [0, 1])

    def places(self, dst: Any, dy: Any, dx: Any, rows: int) -> Iterator[Any]:
        """From the table at ``dst``, whose rows are ``dy`` bytes apart."""
        for i in range(rows):
            for j in range(self.nx):
                yield self.emit.offset(self.emit.load_integer(self.emit.offset(dst, dy if i else 0, 8 * j)), self.there)

    def uses(self) -> Iterator[list[tuple[int, int]]]:
        """The last column of pixels that a quad reads is its own, which tap 0 meets, and tap 1 of its second column."""
        quads, before = self.nx // STEP, -(-self.kw // STEP) - 1
        for column in range(quads + before):
            taps = ((quad, STEP * (quad + before - column) + b, b) for quad in range(quads) for b in range(STEP))
            yield [(STEP * quad + b, kx) for quad, kx, b in taps if 0 <= kx < self.kw]
