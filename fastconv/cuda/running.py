"""running: means along rows by scipy.ndimage's running sum, with its roundings, where the exact sum's would be others.

A thread a row: the sum begins with the first window, and takes the pixel that comes less the one that goes; float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..planning.problem import dtype_name
from . import border
from .arrays import DeviceArray
from .compile import Kernel
from .driver import Launch

_THREADS = 64
AT = ("src", "dst", *(f"{array}{axis}" for array in "sd" for axis in "nchw"))
EXTENTS = ("count", "c", "h", "w", "size", "before", *(f"x_{name}" for name in border.FIELDS))


def body(e: Any, s: tuple[str, str], at: Any, v: Any, x: Any) -> None:
    """``dst[n, c, y, x] = (sum_j src[n, c, y, x + j - before]) / size``, the whole part in an integer type; any strides."""
    stored, to = s
    place = e.block("x") * _THREADS + e.thread("x")

    def row(nothing: list[Any]) -> list[Any]:
        rest, y = place // x.h, place % x.h
        n, c = rest // x.c, rest % x.c
        line, result = at.src + at.sn * n + at.sc * c + at.sh * y, at.dst + at.dn * n + at.dc * c + at.dh * y

        def pixel(index: Any) -> Any:
            column = border.mapped(e, x, "x", index - x.before)
            (value,) = e.load(stored, "f64", line + at.sw * e.most(column, 0), 1)
            return e.pick(column < 0, v.fill, value)

        def mean(index: Any, total: Any) -> None:
            value = e.quotient(total, v.size)
            e.store(to, result + at.dw * index, [e.convert("f64", to, value) if to[0] == "f" else e.cut("f64", to, value)])

        (total,) = e.loop(x.size, [e.number("f64", 0)], lambda j, sums: [e.plus(sums[0], pixel(j))])
        mean(e.i32(0), total)

        def move(i: Any, sums: list[Any]) -> list[Any]:
            difference = e.plus(pixel(i + x.size), e.times(pixel(i), e.number("f64", -1)))
            total = e.plus(sums[0], difference)
            mean(i + 1, total)
            return [total]

        e.loop(x.w - 1, [total], move)
        return nothing

    e.when(place < x.count, [], row)


def kernel_of(stored: str, to: str) -> Kernel:
    """The kernel from pixels of one type to means of another."""
    return Kernel(f"running_{stored}_{to}", body, (stored, to), AT, ("f64", ("fill", "size")), EXTENTS, (_THREADS, 1, 1), 96,
                  vectors=False, fused=False)  # fmt: skip


def means(src: DeviceArray, dst: DeviceArray, size: int, before: int, edge: str, fill: float) -> None:
    """Queue the means of ``size`` pixels along the rows of ``src (n, c, h, w)`` on its stream; ``edge`` is the border."""
    n, c, h, w = src.shape
    extents = (n * c * h, c, h, w, size, before, *border.border_fields(edge, w, -before))
    kernel = kernel_of(dtype_name(src.dtype), dtype_name(dst.dtype))
    launch = Launch(kernel, (-(-extents[0] // _THREADS), 1, 1), (0, 0, *src.strides, *dst.strides), np.array([fill, size]), extents,
                    device=src.device)  # fmt: skip
    launch(src.stream, src.address, dst.address)


def kernels(t: Any) -> tuple[Kernel, ...]:
    """Those that tests compile."""
    return kernel_of("i64", "i64"), kernel_of("f32", "u8"), kernel_of("u64", "u64")
