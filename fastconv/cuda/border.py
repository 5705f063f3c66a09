"""border: which pixel lies behind an index outside the image, as six integers that kernels compute with."""

from __future__ import annotations

from typing import Any

from ..planning.problem import BORDERS

FIELDS = ("inside", "constant", "low", "high", "shift", "period", "fold")
_FAR = 2**30  # more than any index that is mapped


def border_fields(border: str, extent: int, least: int) -> tuple[int, ...]:
    """The integers for indices from ``least`` on of an axis of ``extent`` pixels.

    An index is clipped to ``low .. high``, taken modulo ``period`` after ``shift`` was added, and folded back: min(i, fold - i).
    """
    assert border in BORDERS
    low, high, period, fold = -_FAR, _FAR, extent, _FAR
    if border in ("constant", "edge"):
        low, high = 0, extent - 1
    elif border == "symmetric":
        period, fold = 2 * extent, 2 * extent - 1
    elif border == "reflect":
        period = max(2 * (extent - 1), 1)
        fold = period if extent > 1 else _FAR
    shift = -(least // period) * period if least < 0 else 0
    return extent, int(border == "constant"), low, high, shift, period, fold


def mapped(e: Any, x: Any, axis: str, index: Any) -> Any:
    """The pixel behind an index of the axis ``y`` or ``x``; -1 where the constant border supplies the fill value."""
    inside, constant, low, high, shift, period, fold = (getattr(x, f"{axis}_{field}") for field in FIELDS)
    place = (e.most(e.least(index, high), low) + shift) % period
    place = e.least(place, fold - place)
    outside = (index < 0) | (index >= inside)
    return e.pick(outside & (constant > 0), -1, place)
