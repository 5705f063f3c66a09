"""pointwise: what is done to each element of device arrays for itself: conversions, sums of branches, masks, quotients, epilogues.

One thread an element; every step is rounded, so that results are those of NumPy's functions on the host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..planning.calls import Bounded
from ..planning.problem import DTYPES, Problem, dtype_name, parse_epilogue
from .activations import FUNCTIONS
from .arithmetic import FLOATS, SIZES
from .arrays import DeviceArray
from .compile import Kernel
from .copy import addend, copied, filled, pieces
from .driver import Launch
from .finish import SUMS

_THREADS = 256
AT = ("a", "b", "dst", "scale", "shift", *(f"{array}{axis}" for array in ("a", "b", "d") for axis in range(4)), "scale_step", "shift_step")
VALUES = ("number", "slope", "zero")
EXTENTS = ("count", "n1", "n2", "n3")


class Spec(NamedTuple):
    """What a kernel is compiled for: ``dst = op(a, b)``, computed in ``kind``."""

    op: str
    a: str
    b: str  # "" where there is no second operand
    kind: str
    dst: str
    words: tuple[str, ...] = ()


class Element(NamedTuple):
    """One element's place, and what can be done to it."""

    e: Any
    s: Spec
    at: Any
    v: Any
    place: tuple[Any, ...]

    def load(self, name: str, kind: str | None = None) -> Any:
        """The element of ``a`` or ``b``."""
        address = getattr(self.at, name)
        for n, index in enumerate(self.place):
            address = address + getattr(self.at, f"{name}{n}") * index
        return self.e.load_own(getattr(self.s, name), kind or _registers(self.s.kind), address)

    def of_channel(self, name: str) -> Any:
        """The element of ``scale`` or ``shift`` of this element's channel."""
        address = getattr(self.at, name) + getattr(self.at, f"{name}_step") * self.place[1]
        return self.e.load_own(self.s.kind, _registers(self.s.kind), address)

    def convert(self) -> Any:
        """``a`` as C converts it on x86-64."""
        e, s = self.e, self.s
        if s.kind[0] == "f" and s.dst not in FLOATS:
            return e.cut(s.kind, s.dst, self.load("a"))
        return e.convert(_registers(s.kind), s.dst, self.load("a"))

    def halves(self) -> Any:
        """``a`` as uint64, of negative numbers the opposite of their magnitude, as scipy.ndimage's correlate converts."""
        e, value = self.e, self.load("a")
        whole = e.cut(self.s.kind, "u64", e.pick(value < 0, value * -1, value))
        return e.pick(value > -1, whole, whole * -1)

    def divide(self) -> Any:
        """The whole part of ``a / number``."""
        return self.e.cut(self.s.kind, self.s.dst, self._rounded(self.e.quotient(self.load("a"), self.v.number)))

    def add(self) -> Any:
        """``a + b``."""
        return self._stored(self.e.plus(self.load("a"), self.load("b")) if self._floats else self.load("a") + self.load("b"))

    def subtract(self) -> Any:
        """``a - b``, of floats."""
        e, b = self.e, self.load("b")
        return self._stored(e.plus(self.load("a"), e.times(b, e.number(_registers(self.s.kind), -1))))

    def either(self) -> Any:
        """1 where ``a`` or ``b`` is not 0, else 0."""
        e, a, b = self.e, self.load("a"), self.load("b")
        one, zero = e.number(_registers(self.s.kind), 1), e.number(_registers(self.s.kind), 0)
        return self.e.convert(_registers(self.s.kind), self.s.dst, e.pick((a > 0) | (a < 0) | (b > 0) | (b < 0), one, zero))

    def square(self) -> Any:
        """``a a``, and ``b`` added where there is one."""
        e, a = self.e, self.load("a")
        if not self._floats:
            return self._stored(a * a + self.load("b") if self.s.b else a * a)
        square = self._rounded(e.times(a, a))
        return self._stored(e.plus(self.load("b"), square) if self.s.b else square)

    def root(self) -> Any:
        """The square root of ``a``, of whole numbers cut off."""
        e, s = self.e, self.s
        root = self._rounded(e.root(self.load("a")))
        return e.cut(s.kind, s.dst, root) if s.dst not in FLOATS else self._stored(root)

    def valid(self) -> Any:
        """``a`` where the mask ``b`` is true, or no mask is given and ``a`` is a number; else 0."""
        return self.e.pick(self._is_valid(), self.load("a"), self.e.number(self.s.kind, 0))

    def weight(self) -> Any:
        """1 where `valid` keeps a pixel, else 0."""
        e, kind = self.e, self.s.kind
        return e.pick(self._is_valid(), e.number(kind, 1), e.number(kind, 0))

    def one(self) -> Any:
        """1."""
        return self.e.number(self.s.kind, 1)

    def ratio(self) -> Any:
        """``a / b``, NaN where ``b`` is 0."""
        e, b = self.e, self.load("b")
        return e.pick((b < 0) | (b > 0), e.quotient(self.load("a"), b), e.number(self.s.kind, np.nan))

    def _is_valid(self) -> Any:
        if self.s.b:
            return self.load("b", "i32") > 0
        return self.e.is_number(self.load("a"))

    @property
    def _floats(self) -> bool:
        return self.s.kind[0] == "f"

    def _stored(self, value: Any) -> Any:
        return self.e.convert(_registers(self.s.kind), self.s.dst, value)

    def finish(self) -> Any:
        """``activation(a scale + shift + b)`` as `fastconv.epilogue.finisher` makes it, each step rounded in ``kind``."""
        e, s = self.e, self.s
        x = self._rounded(self.load("a"))
        for word in s.words[:-1]:
            if word == "scale":
                x = self._rounded(e.times(x, self.of_channel(word)) if self._floats else x * self.of_channel(word))
            else:
                term = self.of_channel(word) if word == "shift" else self._rounded(self.load("b"))
                x = self._rounded(e.plus(x, term) if self._floats else x + term)
        x = self._activated(x, s.words[-1])
        if s.dst in FLOATS:
            return e.convert("u64" if s.kind == "u64" else _registers(s.kind), s.dst, x)
        return self._saturated(x) if self._floats else self._clipped(x)

    def _rounded(self, x: Any) -> Any:
        """As the type of the steps holds it."""
        e, kind = self.e, self.s.kind
        if kind == "f16":
            return e.convert("f16", "f32", e.convert("f32", "f16", x))
        if kind[0] == "f":
            return e.held(kind, x)
        if kind == "u32":
            return e.convert("u32", "i64", e.convert("i64", "u32", x))
        return e.wrapped(kind, x) if kind[0] in "iu" and SIZES[kind] < 4 else x

    def _activated(self, x: Any, name: str) -> Any:
        e, kind = self.e, self.s.kind
        zero = e.number(_registers(kind), 0)
        if name in ("relu", "relu6") and kind[0] != "u":
            x = e.pick(x < 0, zero, x)
        if name == "relu6":
            x = e.pick((x > 6) | (x < 0), e.number(_registers(kind), 6), x)  # below 0 is uint64's upper half
        if name == "leaky_relu":
            x = e.pick(x < 0, self._rounded(e.times(x, self.v.slope)), x)
        if name in FUNCTIONS:
            wide = FUNCTIONS[name](e, e.convert(_registers(kind), "f64", x))
            x = self._rounded(e.convert("f64", _registers(kind), wide))
        return x

    def _saturated(self, x: Any) -> Any:
        """A float as `fastconv.planning.reference.rounded` makes it a whole number."""
        e, kind, dst = self.e, _registers(self.s.kind), self.s.dst
        limits = np.iinfo(DTYPES[dst])
        nothing = e.number(kind, 0)
        x = e.nearest(x)
        x = e.plus(e.pick(e.is_number(x), x, nothing), self.v.zero)
        above = x >= float(limits.max)
        inside = e.cut(kind, dst, e.pick(above, nothing, e.most(x, float(limits.min))))
        return e.pick(above, e.convert("i64", dst, e.i64(_signed(int(limits.max)))), inside)

    def _clipped(self, x: Any) -> Any:
        e, kind, dst = self.e, self.s.kind, self.s.dst
        own, limits = np.iinfo(DTYPES[kind]), np.iinfo(DTYPES[dst])
        high = int(limits.max)
        if high < int(own.max):
            over = (x > high) | (x < 0) if kind == "u64" else x > high
            x = e.pick(over, e.number(_registers(kind), high), x)
        if int(limits.min) > int(own.min):
            x = e.pick(x < int(limits.min), e.number(_registers(kind), int(limits.min)), x)
        return e.convert(_registers(kind), dst, x)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


def _registers(kind: str) -> str:
    """The kind of number that steps in a type are computed with."""
    return {"f16": "f32", "u32": "i64"}.get(kind) or SUMS[kind]


def body(e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
    """``dst[i0, i1, i2, i3] = op(a[i0, i1, i2, i3], b[i0, i1, i2, i3])``, of any strides."""
    place = e.block("x") * _THREADS + e.thread("x")

    def one(nothing: list[Any]) -> list[Any]:
        rest, i3 = place // x.n3, place % x.n3
        rest, i2 = rest // x.n2, rest % x.n2
        element = Element(e, s, at, v, (rest // x.n1, rest % x.n1, i2, i3))
        result = getattr(element, s.op)()
        address = at.dst
        for n, index in enumerate(element.place):
            address = address + getattr(at, f"d{n}") * index
        e.store(s.dst, address, [result])
        return nothing

    e.when(place < x.count, [], one)


def kernel_of(s: Spec) -> Kernel:
    """The kernel of a specialisation."""
    name = "_".join(filter(None, ("pointwise", s.op, s.a, s.b, s.kind, s.dst, *s.words))).replace(":", "_")
    return Kernel(name, body, s, AT, (_registers(s.kind), VALUES), EXTENTS, (_THREADS, 1, 1), 64, vectors=False, fused=False)


_launches: Bounded[Launch] = Bounded(512)


def applied(
    op: str, kind: str, dst: DeviceArray, a: DeviceArray, b: DeviceArray | None = None, *, words: tuple[str, ...] = (),
    values: tuple[float, float, float] = (0, 0, 0), scale: DeviceArray | None = None, shift: DeviceArray | None = None,
) -> None:  # fmt: skip
    """Queue an operation of `Element` on the destination's stream.

    ``dst`` may be one of the operands.  ``scale`` and ``shift`` have one element for each index of the second of four axes, or one.
    """
    arrays = (dst, a) if b is None else (dst, a, b)
    kernel = kernel_of(Spec(op, dtype_name(a.dtype), "" if b is None else dtype_name(b.dtype), kind, dtype_name(dst.dtype), words))
    factors = [array for array in (scale, shift) if array is not None]
    steps = tuple(0 if array is None or array.size == 1 else array.strides[0] for array in (scale, shift))
    for parts in pieces(*arrays, merge=not factors):
        to, first, second = (*parts, parts[1])[:3]
        at = (0,) * 5 + first.strides + second.strides + to.strides + steps
        key = kernel, at, to.shape, values, dst.device
        launch = _launches.get(key)
        if launch is None:
            numbers = np.array(values, DTYPES[kernel.values[0]])
            launch = Launch(kernel, (-(-to.size // _THREADS), 1, 1), at, numbers, (to.size, *to.shape[1:]), device=dst.device)
            _launches.keep(key, launch)
        addresses = (0 if array is None else array.address for array in (scale, shift))
        launch(dst.stream, first.address, second.address, to.address, *addresses)


def finished_as(
    sums: DeviceArray, kind: str, text: str, dst: DeviceArray, zero: int, scale: Any, shift: Any, residual: DeviceArray | None
) -> None:  # fmt: skip
    """Queue what an epilogue makes of sums ``(n, c, h, w)``; ``text`` is its activation's."""
    finish = parse_epilogue(text)
    words = tuple(name for name, value in (("scale", scale), ("shift", shift), ("residual", residual)) if value is not None)
    slope = float(DTYPES[kind].type(finish.slope))
    applied("finish", kind, dst, sums, residual, words=(*words, finish.activation or ""), values=(0, slope, zero), scale=scale, shift=shift)


def biased(p: Problem, bias: Any, dst: DeviceArray) -> None:
    """Queue what no tap reaches: the activated bias of each channel, or 0, into results ``(n, c, h, w)``."""
    if bias is None and parse_epilogue(p.epilogue).activation != "sigmoid":  # all others make 0 of 0
        filled(dst, 0)
        return
    if bias is None:
        bias = np.zeros(dst.shape[1], DTYPES[p.acc])
    values = addend(p.acc, bias, dst.device)
    each = values.strided(dst.shape, (0, values.strides[0] if values.size > 1 else 0, 0, 0)).on_stream(dst.stream)
    if p.acc not in SUMS:
        copied(each, dst)
    else:
        finished_as(each, p.acc, p.epilogue, dst, 0, None, None, None)


def kernels(t: Any) -> tuple[Kernel, ...]:
    """Those that tests compile."""
    return tuple(map(kernel_of, (
        Spec("convert", "f64", "", "f64", "u8"), Spec("halves", "f64", "", "f64", "u64"), Spec("divide", "f32", "", "f32", "i8"),
        Spec("square", "f32", "f32", "f32", "f32"), Spec("root", "f64", "", "f64", "f64"), Spec("ratio", "f32", "f32", "f32", "f32"),
        Spec("valid", "u8", "b8", "f64", "f64"), Spec("finish", "i32", "f32", "f32", "u8", ("scale", "shift", "residual", "relu6")),
        Spec("finish", "f16", "", "f16", "f16", ("scale", "leaky_relu")), Spec("finish", "u32", "u32", "u32", "i64", ("residual", "")),
        Spec("finish", "f32", "", "f32", "f32", ("gelu",)), Spec("finish", "f64", "", "f64", "f64", ("tanh",)),
        Spec("finish", "f32", "", "f32", "f16", ("silu",)), Spec("finish", "f64", "", "f64", "u64", ("scale", "")),
        Spec("root", "i64", "", "f64", "i64"), Spec("convert", "i64", "", "i64", "u32"), Spec("weight", "f32", "", "f32", "f32"),
        Spec("finish", "f32", "", "f32", "bf16", ("gelu",)),
    )))  # fmt: skip
