"""fft_frame: how a plane is cut into frames for `fft`: sizes, what of the image a frame holds and which results are taken from it.

Rows are folded: a frame of N rows is N/2 complex ones, row j and i times row j + N/2, each multiplied by exp(i pi j / N).  A transform of
these is one modulo ``Y^N + 1``: products wrap around with the other sign, real images cost half of complex ones, and nothing is
unpacked.  Columns wrap around as they are.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.problem import border_indices
from .fft_tile import AFTER, BEFORE, PLAIN, Pass, code


class Axis(NamedTuple):
    """Rows or columns of a plane.

    *Overlap-save*: block b holds elements ``b step ..`` of the padded image, and its first ``step`` results are kept (``lead`` = 0).
    *Whole*: one frame holds the image alone, less the constant that surrounds it; the first ``lead`` results, of windows that begin
    before the image, are those at the end of the frame.
    """

    frame: int  # elements of a transform
    step: int  # results of a block
    blocks: int
    out: int  # results
    first: int  # image element at the start of block 0
    lead: int
    whole: bool

    def sources(self, extent: int, taps: int, border: str) -> np.ndarray:
        """Image element behind each element of all frames laid over one another, -1 where the constant is, or nothing that is used."""
        count = (self.blocks - 1) * self.step + self.frame
        if self.whole:
            return border_indices(0, count, 1, extent, "constant")
        places = border_indices(self.first, count, 1, extent, border)
        places[self.out + taps - 1 :] = -1  # whatever a band of rows ends with
        return places


class Frame(NamedTuple):
    """The block of a problem."""

    y: Axis
    x: Axis

    @property
    def blocks(self) -> int:
        """Of a plane."""
        return self.y.blocks * self.x.blocks

    @property
    def shifted(self) -> bool:
        """Whether the border's constant is subtracted from the image."""
        return self.y.whole or self.x.whole

    def group(self, lanes: int, size: int) -> int:
        """Bytes between two groups of rows of a spectrum: a square more than they take, so that they do not share cache sets."""
        return 2 * lanes * size * (self.x.frame + lanes)

    def spectrum(self, lanes: int, size: int) -> int:
        """Bytes of a spectrum."""
        return self.y.frame // 2 // lanes * self.group(lanes, size)


@functools.lru_cache(maxsize=512)
def factors(n: int) -> tuple[int, ...] | None:
    """The radices of a transform of n points, or None where n has other prime factors than 2, 3, 5.

    Examples
    --------
    >>> factors(128), factors(240), factors(14)
    ((4, 4, 8), (5, 3, 4, 4), None)
    """
    found = []
    for radix in (5, 3):
        while n % radix == 0:
            found.append(radix)
            n //= radix
    twos = n.bit_length() - 1
    if n != 1 << twos:
        return None
    found += {0: [], 1: [2] if twos == 1 else [4, 4], 2: [4]}[twos % 3]
    return (*found, *[8] * ((twos - (4 if twos % 3 == 1 and twos > 1 else twos % 3)) // 3))


def smooth(least: int, most: int, unit: int) -> list[int]:
    """The multiples of ``unit`` (a power of two) within ``least .. most`` that have prime factors 2, 3, 5 only."""
    found = []
    five = unit
    while five <= most:
        three = five
        while three <= most:
            two = three
            while two <= most:
                if two >= least:
                    found.append(two)
                two *= 2
            three *= 3
        five *= 5
    return sorted(found)


def _axes(extent: int, taps: int, before: int, after: int, border: str, unit: int) -> list[Axis]:
    """The frames that are worth a look along one axis."""
    out = extent + before + after - taps + 1
    if border == "wrap":
        out = min(out, extent)  # the rest repeats them
    cover = out + taps - 1
    found = []
    sizes = smooth(taps, 2 * cover + unit, unit)
    enough = next(size for size in sizes if size >= cover)
    for size in sizes:
        if size > enough or (size < enough and not costs.FFT_LEAST_RATIO <= size / taps <= costs.FFT_MOST_RATIO):
            continue
        step = min(size - taps + 1, out)
        found.append(Axis(size, step, -(-out // step), out, -before, 0, False))
    if border == "constant" and max(before, after) < taps and before + after:
        least = extent + taps - 1
        size = smooth(least, 2 * least + unit, unit)[0]
        if size <= enough:
            found[-1:] = [Axis(size, out, 1, out, 0, before, True)]
    return found


@functools.lru_cache(maxsize=256)
def choose(
    rows: tuple[int, int, int, int], columns: tuple[int, int, int, int], border: str, lanes: int, size: int
) -> tuple[float, Frame] | None:  # fmt: skip
    """The frame of the least predicted cost, and the seconds for one plane; None where a spectrum would take too much memory.

    Parameters
    ----------
    rows, columns : tuple
        Of the image and the kernel, and the paddings before and behind the image.
    """
    best: tuple[float, Frame] | None = None
    ys, xs = _axes(*rows, border, 2 * lanes), _axes(*columns, border, lanes)
    y_passes, x_passes = [len(factors(y.frame // 2) or ()) for y in ys], [len(factors(x.frame) or ()) for x in xs]
    for y, down in zip(ys, y_passes, strict=True):
        for x, across in zip(xs, x_passes, strict=True):
            if y.frame * x.frame * size <= costs.MOST_SPECTRUM:
                seconds = y.blocks * x.blocks * costs.fft_block_seconds(y.frame, x.frame, lanes, size, down, across)
                if best is None or seconds < best[0]:
                    best = seconds, Frame(y, x)
    return best


def passes(n: int, pitch: int, at: int, itemsize: int) -> tuple[list[Pass], list[Pass], np.ndarray]:
    """The passes of a transform of n points that are ``pitch`` bytes apart, those of its inverse, and their twiddles.

    The twiddles will lie ``at`` elements into the kernel's tables.
    """
    radices = factors(n)
    assert radices is not None
    forward: list[Pass] = []
    backward: list[Pass] = []
    tables = [np.zeros(0)]
    length = n
    for radix in radices:
        count = length // radix
        angles = np.arange(count)[:, None] * np.arange(1, radix) * (-math.tau / length)
        table = np.stack([np.cos(angles), np.sin(angles)], axis=-1).reshape(-1)
        kinds = (AFTER, BEFORE) if count > 1 else (PLAIN, PLAIN)
        for found, kind in zip((forward, backward), kinds, strict=True):
            found.append(Pass(code(radix, kind), count, count * pitch, length * pitch, n // length, at * itemsize))
        tables.append(table)
        at += len(table)
        length = count
    return forward, backward[::-1], np.concatenate(tables)


def twist(rows: int) -> np.ndarray:
    """``exp(i pi j / rows)`` for ``j < rows / 2``, real and imaginary parts side by side."""
    angles = np.arange(rows // 2) * (math.pi / rows)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1).reshape(-1)
