"""weighed: scipy.ndimage's sums for weights that lie on the device, so that nobody has looked at them: each thread does.

Order of accumulation: SciPy's, in float64, each product rounded.  Of a ``grid``, ``ky``, then ``kx``, without the taps that are as nothing;
of a ``line``, the middle tap and then pairs of pixels where it is symmetric or antisymmetric, else the last product and then the others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..planning.problem import Problem, dtype_name
from . import border
from .arrays import DeviceArray
from .compile import Kernel
from .driver import Launch

_THREADS = 128
AT = ("src", "wei", "dst", *(f"s{axis}" for axis in "nchw"), "wh", "ww", *(f"d{axis}" for axis in "nchw"))
EXTENTS = (
    "count", "c", "oh", "ow", "kh", "kw", "pt", "pl", *(f"y_{name}" for name in border.FIELDS), *(f"x_{name}" for name in border.FIELDS),
)  # fmt: skip


class Spec(NamedTuple):
    """What a kernel is compiled for."""

    rule: str  # grid | line
    src: str
    wei: str
    dst: str


class Sum(NamedTuple):
    """One result's place."""

    e: Any
    s: Spec
    at: Any
    v: Any
    x: Any
    place: tuple[Any, Any, Any, Any]

    def tap(self, number: Any) -> Any:
        """A tap by its number, row by row."""
        at, x = self.at, self.x
        return self.e.load(self.s.wei, "f64", at.wei + at.wh * (number // x.kw) + at.ww * (number % x.kw), 1)[0]

    def pixel(self, number: Any) -> Any:
        """The pixel under a tap."""
        e, at, x = self.e, self.at, self.x
        n, c, oy, ox = self.place
        y = border.mapped(e, x, "y", oy + number // x.kw - x.pt)
        column = border.mapped(e, x, "x", ox + number % x.kw - x.pl)
        address = at.src + at.sn * n + at.sc * c + at.sh * e.most(y, 0) + at.sw * e.most(column, 0)
        (pixel,) = e.load(self.s.src, "f64", address, 1)
        return e.pick((y < 0) | (column < 0), self.v.fill, pixel)

    def number(self, value: float) -> Any:
        """A constant."""
        return self.e.number("f64", value)

    def size(self, value: Any) -> Any:
        """A magnitude."""
        return self.e.pick(value < 0, value * -1, value)

    def negligible(self) -> Any:
        """What is as nothing beside the largest tap."""
        e, taps = self.e, self.x.kh * self.x.kw
        (largest,) = e.loop(taps, [self.number(0)], lambda k, most: [e.most(most[0], self.size(self.tap(k)))])
        return e.least(largest * (4 * 2.0**-52), self.number(2.0**-52))

    def grid(self) -> Any:
        """All taps that are something."""
        e, small = self.e, self.negligible()

        def add(k: Any, sums: list[Any]) -> list[Any]:
            weight = self.tap(k)
            return e.when(self.size(weight) > small, sums, lambda sums: [e.plus(sums[0], e.times(weight, self.pixel(k)))])

        return e.loop(self.x.kh * self.x.kw, [self.number(0)], add)[0]

    def line(self) -> Any:
        """One row or column of taps."""
        e, small, last = self.e, self.negligible(), self.x.kh * self.x.kw - 1
        half, odd = last // 2, last % 2 < 1

        def differ(j: Any, most: list[Any]) -> list[Any]:
            left, right = self.tap(j), self.tap(last - j)
            return [e.most(most[0], self.size(right - left)), e.most(most[1], self.size(right + left))]

        difference, total = e.loop(half, [self.number(0), self.number(0)], differ)
        symmetric, antisymmetric = odd & (difference <= small), odd & (total <= small)
        sign = e.pick(symmetric, self.number(1), self.number(-1))

        def paired(_: list[Any]) -> list[Any]:
            def pair(j: Any, sums: list[Any]) -> list[Any]:
                both = e.plus(self.pixel(j), e.times(self.pixel(last - j), sign))
                return [e.plus(sums[0], e.times(both, self.tap(j)))]

            return e.loop(half, [e.times(self.pixel(half), self.tap(half))], pair)

        def others(_: list[Any]) -> list[Any]:
            first = [e.times(self.pixel(last), self.tap(last))]
            return e.loop(last, first, lambda k, sums: [e.plus(sums[0], e.times(self.pixel(k), self.tap(k)))])

        return e.when(symmetric | antisymmetric, [self.number(0)], paired, others)[0]


def body(e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
    """A thread computes one result of ``dst (n, c, oh, ow)``; pixels, weights ``(kh, kw)`` and results of any strides."""
    place = e.block("x") * _THREADS + e.thread("x")

    def result(nothing: list[Any]) -> list[Any]:
        rest, ox = place // x.ow, place % x.ow
        rest, oy = rest // x.oh, rest % x.oh
        n, c = rest // x.c, rest % x.c
        total = getattr(Sum(e, s, at, v, x, (n, c, oy, ox)), s.rule)()
        value = e.convert("f64", s.dst, total) if s.dst[0] == "f" else e.cut("f64", s.dst, total)
        e.store(s.dst, at.dst + at.dn * n + at.dc * c + at.dh * oy + at.dw * ox, [value])
        return nothing

    e.when(place < x.count, [], result)


def kernel_of(s: Spec) -> Kernel:
    """The kernel of a specialisation."""
    return Kernel("_".join(("weighed", *s)), body, s, AT, ("f64", ("fill",)), EXTENTS, (_THREADS, 1, 1), 96, vectors=False, fused=False)


def weighed(p: Problem, rule: str, src: DeviceArray, wei: DeviceArray, dst: DeviceArray, fill: float) -> None:
    """Queue the sums of a problem of one channel a group, all of the same weights ``(kh, kw)``, on the destination's stream.

    Raises
    ------
    OverflowError
        2**31 results and more.
    """
    kernel = kernel_of(Spec(rule, p.src, dtype_name(wei.dtype), dtype_name(dst.dtype)))
    extents = (
        dst.size, p.oc, p.oh, p.ow, p.kh, p.kw, p.pt, p.pl, *border.border_fields(p.border, p.ih, -p.pt),
        *border.border_fields(p.border, p.iw, -p.pl),
    )  # fmt: skip
    at = (0, 0, 0, *src.strides, *wei.strides, *dst.strides)
    launch = Launch(kernel, (-(-dst.size // _THREADS), 1, 1), at, np.array([fill]), extents, device=dst.device)
    launch(dst.stream, src.address, wei.address, dst.address)


def kernels(t: Any) -> tuple[Kernel, ...]:
    """Those that tests compile."""
    return kernel_of(Spec("grid", "u8", "f32", "u8")), kernel_of(Spec("line", "f32", "f64", "f32"))
