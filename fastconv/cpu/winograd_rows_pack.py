"""winograd_rows_pack: weights transformed for `winograd_rows_last`, by a kernel, since each thread of a functional call packs them.

A kernel of its own, which others call by its address, so that each of those compiles faster.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from ..planning.problem import DTYPES, Problem
from .compile import TileKernel
from .lanes_pack import lanes_packer
from .memory import call_kernel, integers, peek, poke, unrolled_by_hand
from .planes import steps
from .simd import KINDS, Emitter, literal
from .threads import Job, Region
from .winograd_phases import HEAD, MOST_EXPONENT, counts, transformed_taps
from .winograd_tile import magnitudes

# What the kernel reads at its first argument; behind it what each transformed row of taps, ``[point, phase]``, is of the rows of taps.
Packing = namedtuple("Packing", "packer oc kh kw channels made width so sc sy sx")
_TABLE_AT = 8 * len(Packing._fields)


@intrinsic(prefer_literal=True)
def combined(
    typing_context: Any, kind: Any, lanes: Any, fma: Any, dst: Any, step: Any, src: Any, apart: Any, many: Any, factors: Any, count: Any
) -> Any:  # fmt: skip
    """``dst[k] = sum_n factors[n] src[n][k]`` for ``many`` vectors, ``step`` bytes between two of ``dst``, of ``count`` rows ``apart``.

    Summed in float64, whatever the kind, and rounded once.
    """
    name, width, fused = literal(kind), literal(lanes), bool(literal(fma))

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dst, step, src, apart, many, factors, count = arguments[3:]
        emit, wide = Emitter(builder, name, width, fused), Emitter(builder, "f64", width, fused)
        to, place = emit.variable(dst), emit.variable(src)
        with emit.loop(many):
            total, row, factor = emit.variable(wide.number(0)), emit.variable(emit.get(place)), emit.variable(factors)
            emit.set(total, wide.number(0))
            emit.set(row, emit.get(place))
            emit.set(factor, factors)
            with emit.loop(count):
                value = emit.load(emit.get(row))
                value = value if name == "f64" else builder.fpext(value, wide.vector)
                emit.set(total, wide.multiply_add(value, wide.splat(emit.get(factor)), emit.get(total)))
                emit.set(row, emit.offset(emit.get(row), apart))
                emit.set(factor, emit.offset(emit.get(factor), 8))
            value = emit.get(total)
            emit.store(emit.get(to), value if name == "f64" else builder.fptrunc(value, emit.vector))
            emit.set(place, emit.offset(emit.get(place), emit.width))
            emit.set(to, emit.offset(emit.get(to), step))
        return context.get_dummy_value()

    return types.void(kind, lanes, fma, *[types.int64] * 7), codegen


def _factory(kind: str, lanes: int, fma: int) -> Any:
    """``dst = HEAD + [o / width][point, phase][kx][c][o % width]``; the first element of the head is 1, or 0 where no transform may be.

    ``record`` is the address of a :data:`Packing` and its table.  Workspace: lines of filters, sums of magnitudes, ``[ky][kx][c][lanes]``.
    """
    spec = (kind, lanes)
    size = KINDS[kind][2]
    vector = lanes * size
    most = float(1 << MOST_EXPONENT)

    def pack(record: Any, src: Any, dst: Any, workspace: Any) -> None:
        unrolled_by_hand()
        e = integers(record, Packing)
        lines, totals = workspace, workspace + 8 * lanes
        turned = totals + vector
        row, count = e.width * size, e.kw * e.channels
        fits = 1
        for o in range(0, e.oc, lanes):
            for lane in range(lanes):
                poke("i64", lines + 8 * lane, src + (o + lane) * e.so)
            for c in range(e.channels):
                call_kernel(e.packer, (turned + c * vector, e.channels * vector, lines, c * e.sc, e.kh * e.kw, e.kw, e.sy, e.sx))
            magnitudes(spec, totals, turned, e.kh * count)
            for lane in range(lanes):
                total = peek(kind, totals + lane * size)
                if not ((total * most >= 1 and total <= most) or total == 0):
                    fits = 0
            to = dst + HEAD * size + (o // e.width * e.made * count * e.width + o % e.width) * size
            for r in range(e.made):
                factors = record + _TABLE_AT + r * e.kh * 8
                combined(kind, lanes, fma, to + r * count * row, row, turned, count * vector, count, factors, e.kh)
        poke(kind, dst, fits)

    return pack


def _band_factory(kind: str, lanes: int, fma: int) -> Any:
    """The band kernel of one unit of work: all weights of a job, whose extents are the address of the kernel, and its record."""

    def winograd_rows_pack(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        for _ in range(u0, u1):
            call_kernel(peek("i64", at.extents), (at.extents + 8, at.src, at.dst, at.workspace + index * at.scratch))

    return winograd_rows_pack


def packing_kernel(kind: str, lanes: int, fma: int) -> TileKernel:
    """`_factory`'s, to be called with four integers."""
    return TileKernel(f"winograd_rows_pack_{kind}_{lanes}", _factory, (kind, lanes, fma), 4)


def packing(p: Problem, lanes: int, width: int, strides: tuple[int, ...]) -> np.ndarray:
    """The kernel's record, for weights of these strides."""
    factors = transformed_taps(p.kh, steps(p)[0])
    packer = lanes_packer(DTYPES[p.acc].itemsize, lanes).address
    record = Packing(packer, p.oc, p.kh, p.kw, p.ic, len(factors), width, *strides)
    return np.concatenate([np.array(record, np.int64), factors.reshape(-1).view(np.int64)])


def packed_size(p: Problem) -> int:
    """Elements of packed weights and their head."""
    return HEAD + counts(p)[0] * p.oc


def scratch_bytes(p: Problem, lanes: int) -> int:
    """Of the kernel's workspace."""
    return 8 * lanes + (1 + p.taps) * lanes * DTYPES[p.acc].itemsize


def packed_last(p: Problem, lanes: int, width: int, fma: int, wei: np.ndarray) -> np.ndarray:
    """What the kernel makes of the weights, and these as they are behind it, as ``(1, 1, 1, n)``."""
    dtype = DTYPES[p.acc]
    packed = np.empty((1, 1, 1, packed_size(p) + wei.size), dtype)
    given = packed[0, 0, 0, packed_size(p) :].reshape(wei.shape)
    with np.errstate(all="ignore"):
        given[...] = wei
    region = Region(f"winograd_rows_pack_{p.acc}_{lanes}_all", _band_factory, (p.acc, lanes, fma), p.acc)
    extents = np.concatenate([np.array([packing_kernel(p.acc, lanes, fma).address]), packing(p, lanes, width, given.strides)])
    launch = region.launcher(extents, np.zeros(8, dtype), scratch_bytes(p, lanes), 1, 1, 0.0, given, packed, packed)
    launch(given, packed, None, packed)
    return packed
