"""added: sums of parts of all pixels, which blocks left in device memory, added up: the gradient of weights.

Order of accumulation per output: every eighth part; then the eight sums, the first to the last.
"""

from __future__ import annotations

from typing import Any

from ..planning.problem import Problem, not_computed
from .arithmetic import FLOATS, SIZES
from .compile import Kernel
from .driver import Launch, parts
from .finish import SUMS, cannot_finish
from .simd import VECTOR

_VECTORS, _TURNS = 16, 8  # of a block: vectors of columns, and threads that share the parts of one
_AHEAD = 4  # parts that a thread reads at once
AT = ("sums", "dst", "apart", *(f"d{axis}" for axis in "nchw"))
EXTENTS = ("count", "vectors", "icg", "ocg", "columns", "rows", "pitch", "kw", "parts")


def body(e: Any, s: tuple[str, str], at: Any, v: Any, x: Any) -> None:
    """``dst[o, c, ky, kx] = sum_part sums[part][g][o][ky][kx][c]``; parts are ``apart`` bytes apart, of ``rows`` a group, ``pitch`` columns
    each.
    """
    acc, dst = s
    kind = SUMS[acc]
    size = SIZES[kind]
    vector = VECTOR // size
    lane, turn = e.thread("x") % _VECTORS, e.thread("x") // _VECTORS
    number = e.block("x") * _VECTORS + lane
    place = e.least(number, x.count - 1)
    o, column = place // x.vectors, place % x.vectors * vector
    row = o // x.ocg * x.rows + o % x.ocg
    first = at.sums + (e.i64(row) * x.pitch + column) * size + at.apart * turn

    def read(n: Any) -> list[Any]:
        return e.load(kind, kind, first + at.apart * (n * _TURNS), vector)

    def plus(totals: list[Any], values: list[Any]) -> list[Any]:
        return [total + value for total, value in zip(totals, values, strict=True)]

    def ahead(n: Any, totals: list[Any]) -> list[Any]:
        for values in [read(n * _AHEAD + k) for k in range(_AHEAD)]:
            totals = plus(totals, values)
        return totals

    many = (x.parts - turn + (_TURNS - 1)) // _TURNS
    whole = many // _AHEAD
    totals = e.loop(whole, [e.number(kind, 0)] * vector, ahead)
    totals = e.loop(many - whole * _AHEAD, totals, lambda n, totals: plus(totals, read(whole * _AHEAD + n)))
    mine = e.shared() + e.thread("x") * VECTOR
    e.shared_store(kind, mine, totals)
    e.barrier()

    def finish(totals: list[Any]) -> list[Any]:
        for other in range(1, _TURNS):
            totals = plus(totals, e.shared_load(kind, mine + other * (_VECTORS * VECTOR), vector))
        for n, total in enumerate(totals):

            def store(nothing: list[Any], n: int = n, total: Any = total) -> list[Any]:
                tap, c = (column + n) // x.icg, (column + n) % x.icg
                address = at.dst + at.dn * o + at.dc * c + at.dh * (tap // x.kw) + at.dw * (tap % x.kw)
                total = e.wrapped(acc, total) if SIZES[acc] < 4 else e.held(acc, total)
                e.store(dst, address, [e.convert(kind if SIZES[acc] < 4 else acc, dst, total)])
                return nothing

            e.when(column + n < x.columns, [], store)
        return totals

    e.when((turn < 1) & (number < x.count), totals, finish)


def cannot_add(p: Problem) -> str | None:
    """Why a problem is not the gradient of weights, of types whose sums are added up here, or None."""
    reason = not_computed(p, "bwd_weight", bfloat=True, bfloat_weights=True, bfloat_ops=("bwd_weight",)) or cannot_finish(p)
    if reason is None and p.epilogue:
        return f"does not fuse {p.epilogue}"
    if reason is None and p.dst != p.acc and not (p.dst in FLOATS and p.acc in FLOATS):
        return f"does not make {p.dst} of sums in {p.acc}"
    return reason


def add_kernel(acc: str, dst: str) -> Kernel:
    """The kernel that adds the sums of parts."""
    return Kernel(f"added_{acc}_{dst}", body, (acc, dst), AT, ("i32", ("unused",)), EXTENTS, (_VECTORS * _TURNS, 1, 1), 96, shared=True,
                  fused=False)  # fmt: skip


def adding(
    p: Problem, rows: tuple[int, int, int], columns: tuple[int, int, int], count: int, apart: int, dst: Any
) -> Launch:  # fmt: skip
    """The launch, of ``(sums, dst)``; ``rows``: all, of a group, and so far apart; ``columns``: all, of a tap, and the pitch."""
    vectors = parts(columns[0], VECTOR // SIZES[SUMS[p.acc]])
    every = rows[0] * vectors
    return Launch(add_kernel(p.acc, p.dst), (parts(every, _VECTORS), 1, 1), (0, 0, apart, *dst.strides), (0,),
                  (every, vectors, columns[1], rows[1], columns[0], rows[2], columns[2], p.kw, count), _VECTORS * _TURNS * VECTOR,
                  dst.device)  # fmt: skip
