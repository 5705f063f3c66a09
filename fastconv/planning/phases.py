"""phases: the gradient of the image as forward problems: each makes every ``sh``-th row and ``sw``-th column of the result."""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

from .problem import Problem


class Phase(NamedTuple):
    """Of one axis: the results ``first, first + s, ...``, ``many`` of them; the taps that reach them, ``k0, k0 + step, ...``.

    The forward problem reads the pixels ``low .. end - 1`` between ``before`` and ``after`` pixels of padding, its taps ``dilation`` apart.
    """

    first: int
    many: int
    k0: int
    step: int
    taps: int  # 0 where none reaches a pixel
    dilation: int
    low: int
    end: int
    before: int
    after: int


def phases(extent: int, pixels: int, k: int, s: int, d: int, before: int) -> list[Phase]:
    """The phases of an axis of ``extent`` results of the gradient, from ``pixels``, for ``k`` taps of a stride, dilation and padding.

    Examples
    --------
    >>> [(phase.first, phase.taps) for phase in phases(6, 3, 3, 2, 1, 1)]
    [(0, 1), (1, 2)]
    """
    g = gcd(s, d)
    step, dilation, found = s // g, d // g, []
    for first in range(min(s, extent)):
        r = (first + before) % s
        many = -(-(extent - first) // s)
        k0 = next((tap for tap in range(min(step, k)) if tap * d % s == r), k)
        taps = len(range(k0, k, step))
        # the pixel under tap k0 + j step of the i-th result is low + i + (taps - 1 - j) dilation
        low = (first + before - k0 * d) // s - max(taps - 1, 0) * dilation
        high = low + many + max(taps - 1, 0) * dilation
        if min(high, pixels) <= max(low, 0):
            taps = 0
        found.append(Phase(first, many, k0, step, taps, dilation if taps > 1 else 1, max(low, 0), min(high, pixels), max(-low, 0),
                           max(high - pixels, 0)))  # fmt: skip
    return found


def phase_problem(p: Problem, y: Phase, x: Phase, images: int) -> Problem:
    """The forward problem of a phase of each axis, of so many images: channels of input and output swapped, stride 1."""
    return Problem(
        n=images, g=p.g, ic=p.oc, oc=p.ic, ih=y.end - y.low, iw=x.end - x.low, kh=y.taps, kw=x.taps, dh=y.dilation, dw=x.dilation,
        pt=y.before, pb=y.after, pl=x.before, pr=x.after, src=p.src, wei=p.wei, dst=p.dst, acc=p.acc, src_layout=p.src_layout,
        epilogue=p.epilogue, precision=p.precision,
    )  # fmt: skip


def placed(p: Problem) -> list[tuple[Phase, Phase]]:
    """The phases of a problem: of its rows and of its columns."""
    return [(y, x) for y in phases(p.ih, p.oh, p.kh, p.sh, p.dh, p.pt) for x in phases(p.iw, p.ow, p.kw, p.sw, p.dw, p.pl)]
