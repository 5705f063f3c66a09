"""border: what lies outside the image, as tables made at plan time, and the copy of a row's edge that uses them.

A *row map* holds, for each row of the padded image, the image row behind it, or -1 for the fill value; the two *column maps* do so
for the columns left and right of the image.  Kernels read the maps and know nothing of border modes.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from ..planning import cost as costs
from ..planning.problem import Problem, border_indices
from .convert import copy_as, mapped_as, stored_bytes
from .simd import KINDS, Emitter, literal

LINE = 64  # bytes of a line of the caches


def whole_lines(pixels: int, size: int) -> int:
    """So many pixels of ``size`` bytes, up to the end of a line.

    Examples
    --------
    >>> whole_lines(33, 4)
    48
    """
    return -(-pixels * size // LINE) * LINE // size


def too_large(p: Problem, workspace: int) -> str | None:
    """Why a problem of so many bytes of workspace a thread is left to an algorithm of less, or None.

    The maps of what lies outside the image count too, 8 bytes for each row and column.
    """
    needed = workspace + 8 * (p.pt + p.pb + p.pl + p.pr)
    if needed > costs.MOST_WORKSPACE:
        return f"needs {needed >> 20} MiB of workspace a thread, more than {costs.MOST_WORKSPACE >> 20}"
    return None


def row_map(p: Problem) -> np.ndarray:
    """Image row behind each of the ``ih_padded`` rows of the padded image."""
    return border_indices(-p.pt, p.ih_padded, 1, p.ih, p.border)


def column_maps(p: Problem, right: int) -> tuple[np.ndarray, np.ndarray]:
    """Image columns behind ``-pl .. -1`` and behind ``iw .. iw + right - 1``."""
    return border_indices(-p.pl, p.pl, 1, p.iw, p.border), border_indices(p.iw, right, 1, p.iw, p.border)


# Which part of an image row a strip holds: columns outside on the left and the first one's place in the maps, columns inside and the
# first one, columns outside on the right and the first one's place.
Span = namedtuple("Span", "before before_at inside first after after_at")


def span(start: int, count: int, iw: int) -> Span:
    """Columns ``start .. start + count - 1`` of rows of ``iw`` pixels.

    Examples
    --------
    >>> span(-2, 6, 3)
    Span(before=2, before_at=-2, inside=3, first=0, after=1, after_at=0)
    """
    end = start + count
    before, after = max(min(end, 0) - start, 0), max(end - max(start, iw), 0)
    return Span(before, start, count - before - after, max(start, 0), after, max(start - iw, 0))


@intrinsic(prefer_literal=True)
def border_row(typing_context: Any, kind: Any, lanes: Any, dst: Any, row: Any, span: Any, maps: Any, fill: Any) -> Any:
    """``border_row(kind, lanes, dst, row, span, maps, fill)``: the columns of the :data:`Span` at an address, of the row at another.

    The two column maps lie end to end; ``maps`` is the address between them, so that entry -1 is column -1 and entry 0 is column iw.
    """
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, dst, row, span, maps, fill = arguments
        emit = Emitter(builder, name, width, False)
        at = Span(*(emit.load_integer(emit.offset(span, 8 * n)) for n in range(len(Span._fields))))
        to = emit.variable(dst)
        emit.mapped(to, emit.variable(emit.offset(maps, emit.times(at.before_at, 8))), row, fill, at.before)
        emit.copy(to, emit.variable(emit.offset(row, emit.times(at.first, emit.itemsize))), at.inside)
        emit.mapped(to, emit.variable(emit.offset(maps, emit.times(at.after_at, 8))), row, fill, at.after)
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 4, KINDS[name][1]), codegen


@intrinsic(prefer_literal=True)
def stage_row(typing_context: Any, kind: Any, lanes: Any, stored: Any, dst: Any, row: Any, span: Any, maps: Any, fill: Any) -> Any:
    """``stage_row(kind, lanes, stored, dst, row, span, maps, fill)``: as `border_row`, of a row of type ``stored`` made ``kind``."""
    name, width, source = literal(kind), literal(lanes), literal(stored)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dst, row, span, maps, fill = arguments[3:]
        emit = Emitter(builder, name, width, False)
        at = Span(*(emit.load_integer(emit.offset(span, 8 * n)) for n in range(len(Span._fields))))
        inside = emit.offset(dst, emit.times(at.before, emit.itemsize))
        after = emit.offset(inside, emit.times(at.inside, emit.itemsize))
        mapped_as(emit, source, dst, emit.offset(maps, emit.times(at.before_at, 8)), row, fill, at.before)
        copy_as(emit, source, inside, emit.offset(row, emit.times(at.first, stored_bytes(source))), at.inside)
        mapped_as(emit, source, after, emit.offset(maps, emit.times(at.after_at, 8)), row, fill, at.after)
        return context.get_dummy_value()

    return types.void(kind, lanes, stored, *[types.int64] * 4, KINDS[name][1]), codegen


@intrinsic(prefer_literal=True)
def pixels_of(typing_context: Any, kind: Any, dst: Any, row: Any, table: Any, count: Any, fill: Any) -> Any:
    """``pixels_of(kind, dst, row, table, count, fill)``: pixels of a row to places apart; the table holds for each bytes into ``dst``,
    and the column, or -1 for the fill value.
    """  # fmt: skip
    name = literal(kind)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, dst, row, table, count, fill = arguments
        emit = Emitter(builder, name, 1, False)
        entry = emit.variable(table)
        with emit.loop(count):
            to, place = emit.offset(dst, emit.load_integer(emit.get(entry))), emit.offset(emit.get(entry), 8)
            emit.mapped(emit.variable(to), emit.variable(place), row, fill, emit.constant(1))
            emit.set(entry, emit.offset(emit.get(entry), 16))
        return context.get_dummy_value()

    return types.void(kind, *[types.int64] * 4, KINDS[name][1]), codegen
