"""repair: results of filters whose zero taps are no taps: those that are not finite are summed again over the other taps.

Order of accumulation: from the addend on, ``ky``, then ``kx``, products rounded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..planning.calls import Bounded
from ..planning.problem import DTYPES, Problem
from . import border
from .arithmetic import SIZES
from .arrays import DeviceArray
from .compile import Kernel
from .driver import Launch

_THREADS = 128
AT = ("src", "wei", "dst", *(f"{array}{axis}" for array in "sd" for axis in "nchw"))
VALUES = ("fill", "addend")
EXTENTS = (
    "count", "c", "oh", "ow", "kh", "kw", "pt", "pl", *(f"y_{name}" for name in border.FIELDS), *(f"x_{name}" for name in border.FIELDS),
)  # fmt: skip


class Spec(NamedTuple):
    """What a kernel is compiled for: types of pixels, of weights and sums, of results."""

    src: str
    acc: str
    dst: str


def body(e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
    """A thread looks at one result of ``dst (n, c, oh, ow)``, of any strides; weights ``(kh, kw)`` are dense."""
    place = e.block("x") * _THREADS + e.thread("x")
    rest, ox = place // x.ow, place % x.ow
    rest, oy = rest // x.oh, rest % x.oh
    n, c = rest // x.c, rest % x.c

    def again(nothing: list[Any]) -> list[Any]:
        image = at.src + at.sn * n + at.sc * c

        def tap(ky: Any, kx: Any, sums: list[Any]) -> list[Any]:
            (weight,) = e.load(s.acc, s.acc, at.wei + e.i64(ky * x.kw + kx) * SIZES[s.acc], 1)

            def add(sums: list[Any]) -> list[Any]:
                row = border.mapped(e, x, "y", oy + ky - x.pt)
                column = border.mapped(e, x, "x", ox + kx - x.pl)
                (pixel,) = e.load(s.src, s.acc, image + at.sh * e.most(row, 0) + at.sw * e.most(column, 0), 1)
                pixel = e.pick((row < 0) | (column < 0), v.fill, pixel)
                return [e.plus(sums[0], e.times(weight, pixel))]

            return e.when((weight < 0) | (weight > 0), sums, add)

        (total,) = e.loop(x.kh, [v.addend], lambda ky, sums: e.loop(x.kw, sums, lambda kx, sums: tap(ky, kx, sums)))
        e.store(s.dst, _result(), [e.convert(s.acc, s.dst, total)])
        return nothing

    def _result() -> Any:
        return at.dst + at.dn * n + at.dc * c + at.dh * oy + at.dw * ox

    def look(nothing: list[Any]) -> list[Any]:
        value = e.load_own(s.dst, s.dst, _result())
        difference = value - value  # NaN unless it is finite
        e.when(e.is_number(difference), [], lambda nothing: nothing, again)
        return nothing

    e.when(place < x.count, [], look)


def kernel_of(s: Spec) -> Kernel:
    """The kernel of a specialisation."""
    return Kernel(f"repair_{s.src}_{s.acc}_{s.dst}", body, s, AT, (s.acc, VALUES), EXTENTS, (_THREADS, 1, 1), 64, vectors=False,
                  fused=False)  # fmt: skip


_launches: Bounded[Launch] = Bounded(256)


def repaired(p: Problem, src: DeviceArray, wei: DeviceArray, dst: DeviceArray, fill: float, addend: float) -> None:
    """Queue the repair of ``dst (n, c, oh, ow)``, float results of the problem, on its stream.

    ``wei (kh, kw)`` are dense, of the type that sums are repeated in.
    """
    acc = {4: "f32", 8: "f64"}[wei.dtype.itemsize]
    key = p, src.strides, dst.strides, acc, dst.dtype, repr((fill, addend)), dst.device
    launch = _launches.get(key)
    if launch is None:
        kernel = kernel_of(Spec(p.src, acc, {4: "f32", 8: "f64"}[dst.dtype.itemsize]))
        extents = (
            dst.size, p.oc, p.oh, p.ow, p.kh, p.kw, p.pt, p.pl, *border.border_fields(p.border, p.ih, -p.pt),
            *border.border_fields(p.border, p.iw, -p.pl),
        )  # fmt: skip
        with np.errstate(over="ignore"):
            values = np.array([fill, addend], DTYPES[acc])
        launch = Launch(kernel, (-(-dst.size // _THREADS), 1, 1), (0, 0, 0, *src.strides, *dst.strides), values, extents, device=dst.device)
        _launches.keep(key, launch)
    launch(dst.stream, src.address, wei.address, dst.address)


def kernels(t: Any) -> tuple[Kernel, ...]:
    """Those that tests compile."""
    return kernel_of(Spec("f32", "f64", "f32")), kernel_of(Spec("f64", "f64", "f64")), kernel_of(Spec("f32", "f32", "f32"))
