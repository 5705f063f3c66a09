"""winograd_frame: the grid of blocks of `winograd`'s results, and what lies behind the pixels that they read."""

from __future__ import annotations

import numpy as np

from ..planning.problem import Problem, border_indices
from ..planning.winograd_points import pixels_of

OUTSIDE, BEYOND = -1, -2  # the image: the fill value; what windows read of the padded image: 0


def stride_of(p: Problem) -> int:
    """Of both directions: that of a single row or column of results, which has none, is 1."""
    return max(p.strides)


def not_3x3(p: Problem, most_stride: int) -> str | None:
    """Why a problem is none of dense 3x3 windows at every pixel, or at up to every so many, of both directions; or None."""
    every = stride_of(p)
    if (p.kh, p.kw, p.dh, p.dw) != (3, 3, 1, 1) or every > most_stride or p.strides != (every if p.oh > 1 else 1, every if p.ow > 1 else 1):
        pixels = "every pixel" + " or every other" * (most_stride > 1)
        return f"3x3 windows at {pixels}, not {p.kh}x{p.kw}, strides {p.strides} and dilations {p.dh, p.dw}"
    return None


def extents_read(p: Problem) -> tuple[int, int]:
    """Rows and columns of the padded image that windows read: strides may leave some at the end, which no result depends on."""
    stride = stride_of(p)
    return (p.oh - 1) * stride + p.kh, (p.ow - 1) * stride + p.kw


def columns_read(p: Problem) -> int:
    """Columns of the image, from its first on, of which windows read some."""
    return min(p.iw, max(extents_read(p)[1] - p.pl, 0))


def sources(p: Problem, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The image row behind each row that a block reads, and the column behind each column."""
    found, stride = [], stride_of(p)
    for before, extent, read, out in zip((p.pt, p.pl), (p.ih, p.iw), extents_read(p), (p.oh, p.ow), strict=True):
        places = border_indices(-before, (-(-out // m) - 1) * m * stride + pixels_of(m, stride), 1, extent, p.border)
        places[read:] = BEYOND
        found.append(places)
    return found[0], found[1]
