"""finish: what follows a sum: scale, shift, residual, activation, rounding, conversion, the store of a thread's row of results.

A kernel is compiled for scales, shifts and a residual only where a plan has some: its ``tail`` says so, and it has three addresses more.
Each step is rounded, so that results are those of `fastconv.epilogue.finisher`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..planning.addends import Addends, finish_type
from ..planning.problem import DTYPES, Problem, Scaling, dtype_name, parse_epilogue, parse_scaling
from .arithmetic import FLOATS, SIZES
from .simd import VECTOR

VALUES = ("fill", "slope", "low", "high")
ADDENDS = ("scale", "shift", "residual")  # addresses, behind those of the source, the weights, the bias and the results
FUSED = (None, "relu", "relu6", "leaky_relu")

# accumulator -> the kind of number that a thread adds up in; integers wrap alike whatever their sign
SUMS = {"f32": "f32", "f64": "f64", **{f"{sign}{bits}": "i64" if bits == 64 else "i32" for sign in "iu" for bits in (8, 16, 32, 64)}}


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
    scaling = parse_scaling(p.epilogue)
    if activation is not None and p.acc[0] == "u" and scaling == Scaling():
        return "activations of unsigned results are left to the reference"
    if rounding is not None and SIZES[p.dst] > 4:
        return f"does not round into {p.dst}"
    if scaling == Scaling():
        return None
    if (scaling.half or scaling.halves) and p.acc != "f32":
        return f"rounds sums to float16 from float32, not {p.acc}"
    if finish_type(p).kind != "f" or (p.acc[0] != "f" and SIZES[p.acc] > 4):
        return f"scales sums in floats, and of integers those of at most 32 bits, not {p.acc} by {p.epilogue}"
    return None


def tail_of(p: Problem) -> str:
    """The type that sums are scaled, shifted and added to a residual in, ``half`` for float32 behind a rounding to float16, ``halves``
    where each step is rounded to that; or nothing, where there is only a bias and an activation.
    """
    scaling = parse_scaling(p.epilogue)
    if scaling.half or scaling.halves:
        return "halves" if scaling.halves else "half"
    return "" if scaling == Scaling() else dtype_name(finish_type(p))


def parameters(names: tuple[str, ...], s: Any) -> tuple[tuple[str, ...], tuple[str, tuple[str, ...]]]:
    """The addresses and strides that a kernel takes, of those that it takes without a tail, and the numbers, with their kind."""
    at, values = ((*names[:4], *ADDENDS, *names[4:]), (*VALUES, "zero")) if s.tail else (names, VALUES)
    return at, (SUMS[s.acc], values)


def unknown(tail: str) -> tuple[int, ...]:
    """What a launch is prepared with in the place of the addresses that `addresses` gives it."""
    return (0,) * (4 + len(ADDENDS) * bool(tail))


def addresses(addends: Any, dst: Any, image: int = 0) -> tuple[int, ...]:
    """Of a bias or of `Addends`, and of the results from an image on, in the order that kernels take them."""
    there = dst.address + image * dst.strides[0] if image else dst.address
    if addends is None:
        return 0, there
    if addends.__class__ is not Addends:
        return addends.address, there
    given: tuple[Any, ...] = addends
    bias, scale, shift, residual, _ = given
    return (
        0 if bias is None else bias.address, there, 0 if scale is None else scale.address, 0 if shift is None else shift.address,
        0 if residual is None else residual.address + image * residual.strides[0],
    )  # fmt: skip


def finish_values(p: Problem, fill: Any) -> np.ndarray:
    """The numbers of `parameters`: what the constant border holds, and min(max(x < 0 ? slope x : x, low), high), of no activation 1,
    -inf, inf; with a tail these are of the type of its steps, seen as numbers of the sums' kind, and the zero point is the last.
    """
    tail, kind = tail_of(p), DTYPES[SUMS[p.acc]]
    _, name, slope, _ = parse_epilogue(p.epilogue)
    least, most = (-np.inf, np.inf) if tail or kind.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    with np.errstate(all="ignore"):
        numbers = [0, slope if name == "leaky_relu" else 1, 0 if name in ("relu", "relu6") else least, 6 if name == "relu6" else most]
        if tail:
            steps = np.array([*numbers, parse_scaling(p.epilogue).zero], finish_type(p))
            values = steps.astype(np.result_type(steps, np.float32)).view(kind)
        else:
            values = np.array(numbers, kind)
        values[0] = np.asarray(fill).astype(DTYPES[p.acc])
    return values


class Results(NamedTuple):
    """A thread's results: what a kernel makes of its sums, and where it stores them.

    ``at``, ``v`` and ``x`` are the kernel's parameters, with ``x.activated`` whether there is an activation; ``s`` is what it is compiled
    for, with ``acc``, ``dst``, ``rounding`` and ``tail``.
    """

    e: Any
    s: Any
    at: Any
    v: Any
    x: Any

    @property
    def _steps(self) -> str:
        """The kind of number that sums are scaled in."""
        return "f64" if self.s.tail == "f64" else "f32"

    def scaling(self, channel: Any) -> tuple[Any, ...]:
        """Factor and addend of an output channel, 1 and -0 where there are none; nothing without a tail."""
        e, tail = self.e, self.s.tail
        if not tail:
            return ()
        stored = "f16" if tail == "halves" else self._steps
        found = []
        for address, nothing in ((self.at.scale, 1.0), (self.at.shift, -0.0)):

            def read(_: list[Any], address: Any = address) -> list[Any]:
                return e.load(stored, self._steps, address + e.i64(channel) * SIZES[stored], 1)

            found += e.when(address > 0, [e.number(self._steps, nothing)], read)
        return tuple(found)

    def store(self, sums: list[Any], scalings: list[Any], place: Callable[[int], Any], left: Any, adjacent: Any = None) -> None:
        """Finish and store sums at ``place(0), place(1), ...``, of which the first ``left`` exist; ``scalings`` are their channels'.

        They are adjacent in memory where ``adjacent`` holds, always, or never where it is False: a whole vector where all exist and it is
        aligned.
        """
        e, dst, count = self.e, self.s.dst, len(sums)
        besides = self._besides(count, place, left, adjacent) if self.s.tail else []
        results = self._finished(sums, scalings, besides)

        def whole(nothing: list[Any]) -> list[Any]:
            e.store(dst, place(0), results)
            return nothing

        def singly(nothing: list[Any]) -> list[Any]:
            for n, result in enumerate(results):

                def one(nothing: list[Any], n: int = n, result: Any = result) -> list[Any]:
                    e.store(dst, place(n), [result])
                    return nothing

                e.when(left > n, [], one)
            return nothing

        if count == 1 or adjacent is False:
            singly([])
        else:
            e.when(self._together(dst, place(0), count, left, adjacent), [], whole, singly)

    def _together(self, stored: str, address: Any, count: int, left: Any, adjacent: Any) -> Any:
        """Whether elements of a type are a whole vector at an address."""
        all_exist = (left >= count) & (self.e.below(address, min(SIZES[stored] * count, VECTOR)) < 1)
        return all_exist if adjacent is None else all_exist & adjacent

    def _besides(self, count: int, place: Callable[[int], Any], left: Any, adjacent: Any) -> list[Any]:
        """What lies in the residual where results lie among theirs; -0 where there is none."""
        e, at, dst, kind = self.e, self.at, SIZES[self.s.dst], self._steps
        stored = "f16" if self.s.tail in ("half", "halves") else kind
        size, nothing = SIZES[stored], e.number(kind, -0.0)

        def beside(n: int) -> Any:
            offset = place(n) - at.dst
            return at.residual + (offset * (size // dst) if size > dst else offset // (dst // size))

        def singly(_: list[Any]) -> list[Any]:
            return [e.when(left > n, [nothing], lambda _, n=n: e.load(stored, kind, beside(n), 1))[0] for n in range(count)]

        def read(values: list[Any]) -> list[Any]:
            together = self._together(stored, beside(0), count, left, adjacent)
            return e.when(together, values, lambda _: e.load(stored, kind, beside(0), count), singly)

        return e.when(at.residual > 0, [nothing] * count, singly if count == 1 or adjacent is False else read)

    def _number(self, name: str) -> Any:
        """A value in the type of the steps; kernels of integers take its bits."""
        value = getattr(self.v, name)
        return value if self.s.acc[0] == "f" or not self.s.tail else self.e.elements("f32", "f32", [value], 1)[0]

    def _halved(self, x: Any) -> Any:
        """A float32 rounded to float16."""
        return self.e.convert("f16", "f32", self.e.convert("f32", "f16", x))

    def _held(self, x: Any) -> Any:
        """A step's number as its type holds it."""
        return self._halved(x) if self.s.tail == "halves" else self.e.held(self._steps, x)

    def _scaled(self, sums: list[Any], scalings: list[Any], besides: list[Any]) -> list[Any]:
        """Sums with what their channels and they are scaled, shifted and added to by."""
        e, acc, found = self.e, self.s.acc, []
        for x, (scale, shift), beside in zip(sums, scalings, besides, strict=True):
            x = e.convert(acc if SIZES[acc] >= 4 else "i32", self._steps, x)
            if self.s.tail in ("half", "halves"):
                x = self._halved(x)
            x = self._held(e.times(e.held(self._steps, x), scale))
            found.append(self._held(e.plus(self._held(e.plus(x, shift)), beside)))
        return found

    def _finished(self, sums: list[Any], scalings: list[Any], besides: list[Any]) -> list[Any]:
        """Sums as results of type ``dst``."""
        e, (acc, dst, rounding, tail) = self.e, (self.s.acc, self.s.dst, self.s.rounding, self.s.tail)
        sums = [e.wrapped(acc, x) if SIZES[acc] < 4 else e.held(acc, x) for x in sums]
        if tail:
            sums = self._scaled(sums, scalings, besides)
            acc = self._steps

        def activate(sums: list[Any]) -> list[Any]:
            slope, low, high = (self._number(name) for name in ("slope", "low", "high"))
            if acc[0] == "f":
                sums = [e.pick(x < 0, self._held(x * slope) if tail else x * slope, x) for x in sums]
            sums = [e.pick(x < low, low, x) for x in sums]
            return [e.pick(x > high, high, x) for x in sums]

        sums = e.when(self.x.activated > 0, sums, activate)
        if rounding:
            if tail and rounding == "saturate":
                zero, nothing = self._number("zero"), e.number(acc, 0)
                whole = [e.nearest(x) for x in sums]
                sums = [self._held(e.plus(e.pick(e.is_number(x), x, nothing), zero)) for x in whole]
            return [e.rounded(rounding, acc, dst, x) for x in sums]
        if acc in FLOATS and dst not in FLOATS:
            return [e.cut(acc, dst, x) for x in sums]
        kind = SUMS[acc] if SIZES[acc] < 4 else acc
        return [e.convert(kind, dst, x) for x in sums]
