"""finish: what follows a sum: activation, rounding, conversion, the store of a thread's row of results."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..planning.problem import DTYPES, Problem, parse_epilogue
from .arithmetic import FLOATS, SIZES
from .simd import VECTOR

VALUES = ("fill", "slope", "low", "high")
FUSED = (None, "relu", "relu6", "leaky_relu")

# accumulator -> the kind of number that a thread adds up in; integers wrap alike whatever their sign
SUMS = {"f32": "f32", "f64": "f64", **{f"{sign}{bits}": "i64" if bits == 64 else "i32" for sign in "iu" for bits in (8, 16, 32, 64)}}
STORED = tuple(SIZES)  # what can be loaded; everything but b8 can be stored


def cannot_finish(p: Problem) -> str | None:
    """Why sums and results of these types, or this epilogue, are not computed on a card, or None."""
    if p.acc not in SUMS:
        return f"no arithmetic for accumulator {p.acc}"
    for name in (p.src, p.wei, p.dst):
        if name not in SIZES:
            return f"does not load or store {name}"
    if p.acc not in FLOATS and (p.src in FLOATS or p.wei in FLOATS):
        return f"does not make {p.src} and {p.wei} {p.acc}"
    if "bf16" in (p.src, p.wei, p.dst) and p.acc != "f32":
        return f"sums bfloat16 in f32, not {p.acc}"
    if p.dst == "b8":
        return "does not make bools of sums"
    _, activation, _, rounding = parse_epilogue(p.epilogue)
    if activation not in FUSED:
        return f"does not fuse {p.epilogue}"
    if activation is not None and p.acc[0] == "u":
        return "activations of unsigned results are left to the reference"
    if rounding is not None and SIZES[p.dst] > 4:
        return f"does not round into {p.dst}"
    return None


def finish_values(p: Problem, fill: Any) -> np.ndarray:
    """``VALUES``: what the constant border holds, and min(max(x < 0 ? slope x : x, low), high), of no activation 1, -inf, inf."""
    kind = DTYPES[SUMS[p.acc]]
    _, name, slope, _ = parse_epilogue(p.epilogue)
    least, most = (-np.inf, np.inf) if kind.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    with np.errstate(all="ignore"):
        values = np.array([0, slope if name == "leaky_relu" else 1, 0 if name in ("relu", "relu6") else least,
                           6 if name == "relu6" else most], kind)  # fmt: skip
        values[0] = np.asarray(fill).astype(DTYPES[p.acc])
    return values


def finished(e: Any, acc: str, dst: str, rounding: str, activated: Any, v: Any, sums: list[Any]) -> list[Any]:
    """A thread's sums as results of type ``dst``; ``activated`` says at run time whether there is an activation."""
    if SIZES[acc] < 4:
        sums = [e.wrapped(acc, x) for x in sums]

    def activate(sums: list[Any]) -> list[Any]:
        if acc[0] == "f":
            sums = [e.pick(x < 0, x * v.slope, x) for x in sums]
        sums = [e.pick(x < v.low, v.low, x) for x in sums]
        return [e.pick(x > v.high, v.high, x) for x in sums]

    sums = e.when(activated > 0, sums, activate)
    if rounding:
        return [e.rounded(rounding, acc, dst, x) for x in sums]
    if acc in FLOATS and dst not in FLOATS:
        return [e.cut(acc, dst, x) for x in sums]
    kind = SUMS[acc] if SIZES[acc] < 4 else acc
    return [e.convert(kind, dst, x) for x in sums]


def store_row(e: Any, dst: str, address: Any, values: list[Any], left: Any) -> None:
    """Adjacent results at an address, of which only the first ``left`` exist: a whole vector where all do and it is aligned."""
    size = SIZES[dst]
    width = min(size * len(values), VECTOR)

    def whole(nothing: list[Any]) -> list[Any]:
        e.store(dst, address, values)
        return nothing

    def singly(nothing: list[Any]) -> list[Any]:
        for n, value in enumerate(values):

            def one(nothing: list[Any], n: int = n, value: Any = value) -> list[Any]:
                e.store(dst, address + n * size, [value])
                return nothing

            e.when(left > n, [], one)
        return nothing

    e.when((left >= len(values)) & (e.below(address, width) < 1), [], whole, singly)
