"""border: what lies outside the image, as tables made at plan time, and the copy of a row's edge that uses them.

A *row map* holds, for each row of the padded image, the image row behind it, or -1 for the fill value; the two *column maps* do so
for the columns left and right of the image.  Kernels read the maps and know nothing of border modes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from ..planning.problem import Problem, border_indices
from .simd import KINDS, Emitter, literal

MOST_PADDING = 1 << 22  # pixels on one side; the maps take 8 bytes for each


def too_far(p: Problem) -> str | None:
    """Why this border is left to the reference, or None."""
    if max(p.pt, p.pb, p.pl, p.pr) > MOST_PADDING:
        return f"keeps maps of at most {MOST_PADDING} pixels of padding"
    return None


def row_map(p: Problem) -> np.ndarray:
    """Image row behind each of the ``ih_padded`` rows of the padded image."""
    return border_indices(-p.pt, p.ih_padded, 1, p.ih, p.border)


def column_maps(p: Problem, right: int) -> tuple[np.ndarray, np.ndarray]:
    """Image columns behind ``-pl .. -1`` and behind ``iw .. iw + right - 1``."""
    return border_indices(-p.pl, p.pl, 1, p.iw, p.border), border_indices(p.iw, right, 1, p.iw, p.border)


@intrinsic(prefer_literal=True)
def border_row(
    typing_context: Any, kind: Any, lanes: Any, dst: Any, src: Any, start: Any, count: Any, iw: Any, maps: Any, fill: Any
) -> Any:  # fmt: skip
    """``border_row(kind, lanes, dst, src, start, count, iw, maps, fill)``: columns ``start ..`` of an image row.

    The two column maps lie end to end; ``maps`` is the address between them, so that entry -1 is column -1 and entry 0 is column iw.
    """
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, dst, src, start, count, iw, maps, fill = arguments
        emit = Emitter(builder, name, width, False)
        zero = emit.constant(0)

        def clamp(value: Any) -> Any:
            value = builder.select(builder.icmp_signed("<", value, zero), zero, value)
            return builder.select(builder.icmp_signed(">", value, count), count, value)

        to = emit.variable(dst)
        # outside on the left, inside, outside on the right
        before, inside = clamp(builder.neg(start)), clamp(builder.sub(iw, start))
        place = emit.variable(emit.offset(maps, emit.times(start, 8)))
        emit.mapped(to, place, src, fill, before)
        inner = builder.select(builder.icmp_signed(">", inside, before), builder.sub(inside, before), zero)
        emit.copy(to, emit.variable(emit.offset(src, emit.times(builder.add(start, before), emit.itemsize))), inner)
        reached = builder.add(before, inner)
        emit.set(place, emit.offset(maps, emit.times(builder.sub(builder.add(start, reached), iw), 8)))
        emit.mapped(to, place, src, fill, builder.sub(count, reached))
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 6, KINDS[name][1]), codegen
