"""runs: which tiles of a row read from the image, and which from copies of its edges or of blocks of it; made at plan time."""

from __future__ import annotations

from collections import namedtuple

from ..planning.problem import Problem
from .border import Span, span

# Tiles side by side that read from one table: bytes from the first table to it, and to the first tile's pixel and result.
Run = namedtuple("Run", "table xoff first tiles")
# A block of columns that are copied: its span of the image, bytes to its first result, its tiles, and where the last one starts.
Block = namedtuple("Block", "before before_at inside first after after_at to tiles last")


def blocks_of(ow: int, columns: int, width: int, sw: int, left: int, taps: int, iw: int) -> list[tuple[Span, int, int]]:
    """Of blocks of ``columns`` results: what they read of a row of ``iw`` pixels, their first result and how many they have.

    A row of ``ow`` results begins ``left`` pixels outside the image; each result reads ``taps`` pixels, ``sw`` from the next one's.
    The last block has at least ``width`` results, if the row has.

    Examples
    --------
    >>> [(first, many) for _, first, many in blocks_of(70, 32, 16, 1, 1, 3, 70)]
    [(0, 32), (32, 32), (54, 16)]
    """
    made = []
    for start in range(0, ow, columns):
        first = min(start, max(ow - width, 0))
        many = min(columns, ow - first)
        made.append((span(first * sw - left, (many - 1) * sw + taps, iw), first, many))
    return made


def runs_of(
    p: Problem, apart: int, width: int, reach: int, table: int, size: int, copied: int
) -> tuple[list[Run], Span, Span]:  # fmt: skip
    """The runs of a row of tiles that read ``reach`` pixels each, and what the left and the right strip hold.

    Two results of a row lie ``apart`` pixels of the image from each other.

    Tiles start at multiples of their width, the last one further left so that it ends with the row.  Of copied rows, the left strip
    holds all, ``copied`` pixels.
    """
    last = max(p.ow - width, 0)
    many = -(-last // width)  # tiles before the last one
    if copied:
        before = [Run(table, 0, 0, many)] if many else []
        return [*before, Run(table, last * apart * size, last * size, 1)], span(-p.pl, copied, p.iw), span(0, 0, p.iw)
    left = min(-(-p.pl // (width * apart)), many)
    right = max(min((p.iw + p.pl - reach) // (width * apart) + 1, many), left)
    strip = 1 if last * apart < p.pl else 2 if last * apart - p.pl + reach > p.iw else 0
    groups = ((1, 0, left), (0, left * width, right - left), (2, right * width, many - right), (strip, last, 1))
    columns: dict[int, int] = {0: 0}  # of the image, where the image and the strips start
    spans = [span(0, 0, p.iw)] * 3
    runs: list[Run] = []
    for strip, x, tiles in groups:
        if not tiles:
            continue
        start = columns.setdefault(strip, x * apart - p.pl)
        if strip:
            spans[strip] = span(start, (x + (tiles - 1) * width) * apart - p.pl - start + reach, p.iw)
        runs.append(Run(strip * table, (x * apart - p.pl - start) * size, x * size, tiles))
    return runs, spans[1], spans[2]
