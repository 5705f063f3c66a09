"""winograd_points: the matrices of F(m x m, 3 x 3), at strides 1 and 2, from points in pairs of opposite sign; of rows, F(4, 1) to F(4, 4).

``out = A^T [(G w G^T) * (B^T x B)] A`` for a block ``x`` of ``m + 2`` pixels squared.  ``B^T`` interpolates polynomials at the points 0,
the pairs ``+p, -p`` and infinity with leading coefficients of 1, ``A^T`` evaluates, and ``G``, applied when
weights are packed, carries all divisions.  Pairs share their even and odd halves.  Lavin and Gray, arXiv:1509.09308.  The gradient of the
weights is the same with the sum over blocks: ``G^T [sum (A g A^T) * (B^T x B)] G`` for blocks ``g`` of the result's gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

# Positive points by m, in eighths: those of all multiples of 1/8 with the least error over random layers; their products are exact in
# float32.  With the usual 1 and 2, results of F(4x4) are 4 times further from the exact ones.
_EIGHTHS = {2: (8,), 4: (5, 12), 6: (4, 8, 16)}
POINTS = {m: tuple(eighths / 8 for eighths in points) for m, points in _EIGHTHS.items()}
# At stride 2, where pairs and infinity are all the points of m and of m - 1 pixels; chosen alike, but 1 for 3/4, which errs as little.
STRIDED_POINTS = {2: (1.0,), 4: (4 / 8, 11 / 8)}


def pixels_of(m: int, stride: int) -> int:
    """Pixels that a block of m results reads in one direction; as many are transformed ones."""
    return (m - 1) * stride + 3


def points_of(m: int, stride: int) -> int:
    """Points of a block in one direction: sums of products of transformed pixels and weights, of which there are ``m + 2``."""
    return m + 3 - stride


def weight_pairs(m: int, stride: int) -> tuple[tuple[int, int], ...]:
    """Rows of transformed weights, two by two: those of points of opposite sign share their halves.

    Examples
    --------
    >>> weight_pairs(4, 1), weight_pairs(4, 2)
    (((0, 5), (1, 2), (3, 4)), ((0, 1), (2, 3), (4, 5)))
    """
    first = 1 if stride == 1 else 0  # of the pairs of points; before them 0, behind them infinity, or infinity and the odd pixels' one
    pairs = tuple((i, i + 1) for i in range(first, m + 2 - first, 2))
    return ((0, m + 1), *pairs) if first else pairs


def _product(squares: Sequence[float]) -> list[float]:
    """Coefficients of the product of ``(z - s)``, lowest first."""
    found = [1.0]
    for s in squares:
        found = [low - s * high for low, high in zip([0.0, *found], [*found, 0.0], strict=True)]
    return found


def _dot(emit: Any, factors: Sequence[float], vectors: Sequence[Any]) -> Any:
    """The sum of products, from the last on; a factor of 1 is no product, and one of 0 no term."""
    total = None
    for factor, vector in reversed(list(zip(factors, vectors, strict=True))):
        if factor == 0:
            continue
        if total is None:
            total = vector if factor == 1 else emit.builder.fmul(vector, emit.number(factor))
        elif factor in (1, -1):
            total = (emit.builder.fadd if factor == 1 else emit.builder.fsub)(total, vector)
        else:
            total = emit.multiply_add(vector, emit.number(factor), total)
    return total


class Transform:
    """The three transforms of vectors, emitted from one list of points; 1-D, applied to rows and then to columns.

    Parameters
    ----------
    emit : Emitter
    m : int
        Results of a block in one direction.
    """

    def __init__(self, emit: Any, m: int) -> None:
        self.emit, self.m, self.points = emit, m, POINTS[m]
        self.pairs = weight_pairs(m, 1)

    def _factor(self, p: float) -> float:
        """Of the halves of the transformed weights at the points p and -p."""
        return 1 / (2 * p * p * prod(p * p - q * q for q in self.points if q != p))

    def pixels(self, x: Sequence[Any]) -> list[Any]:
        """``B^T x`` of ``m + 2`` vectors."""
        emit, every = self.emit, _product([p * p for p in self.points])
        found = [_dot(emit, every, x[0:-1:2])]
        for p in self.points:
            others = _product([q * q for q in self.points if q != p])
            even, odd = _dot(emit, others, x[2::2]), _dot(emit, others, x[1:-1:2])
            found += [emit.multiply_add(odd, emit.number(p), even), emit.multiply_add(odd, emit.number(-p), even)]
        return [*found, _dot(emit, every, x[1::2])]

    def weights(self, w: Sequence[Any]) -> list[Any]:
        """``G w``: ``m + 2`` vectors of 3."""
        emit, build, points = self.emit, self.emit.builder, self.points
        found = [build.fmul(w[0], emit.number(1 / prod(-p * p for p in points)))]
        for p in points:
            factor = self._factor(p)
            even = build.fmul(emit.multiply_add(w[2], emit.number(p * p), w[0]), emit.number(factor))
            odd = build.fmul(w[1], emit.number(p * factor))
            found += [build.fadd(even, odd), build.fsub(even, odd)]
        return [*found, w[2]]

    def results(self, y: Sequence[Any]) -> list[Any]:
        """``A^T y``: m vectors of ``m + 2``."""
        emit, (sums, differences), found = self.emit, _halves(self, y, 1), []
        for i in range(self.m):
            parts = list(differences if i % 2 else sums)
            factors = [p**i for p in self.points]
            ends = [y[0]] * (i == 0) + [y[-1]] * (i == self.m - 1)
            found.append(_dot(emit, [*factors, *[1.0] * len(ends)], [*parts, *ends]))
        return found

    def gradients(self, g: Sequence[Any]) -> list[Any]:
        """``A g``: ``m + 2`` vectors of m, the way of a result's gradient back through `results`."""
        return [g[0], *_evaluated(self, g)]

    def taps(self, s: Sequence[Any]) -> list[Any]:
        """``G^T s``: 3 vectors of ``m + 2``, the way of sums of products back through `weights`."""
        emit, points = self.emit, self.points
        sums, differences = _halves(self, s, 1)
        factors = [self._factor(p) for p in points]
        first = _dot(emit, [*factors, 1 / prod(-p * p for p in points)], [*sums, s[0]])
        second = _dot(emit, [p * factor for p, factor in zip(points, factors, strict=True)], differences)
        third = _dot(emit, [*(p * p * factor for p, factor in zip(points, factors, strict=True)), 1.0], [*sums, s[-1]])
        return [first, second, third]


def transform_of(emit: Any, m: int, stride: int) -> Transform | StridedTransform:
    """The transforms of one stride."""
    return Transform(emit, m) if stride == 1 else StridedTransform(emit, m)


class StridedTransform:
    """Those of F(m x m, 3 x 3) at stride 2: ``2m + 1`` pixels, of which the even ones meet two taps, the odd ones one.

    ``y[i] = w[0] e[i] + w[2] e[i + 1] + w[1] o[i]``: F(m, 2) of the even pixels, at m points in pairs and infinity, and F(m, 1) of the odd
    ones at the same points but infinity, whose products are added to those of the even ones.  All of these have one weight, so that
    ``2m + 1`` transformed pixels meet ``m + 2`` transformed weights.  81 products for 16 results instead of 144.
    """

    def __init__(self, emit: Any, m: int) -> None:
        self.emit, self.m, self.points = emit, m, STRIDED_POINTS[m]
        self.pairs = weight_pairs(m, 2)

    def _others(self, p: float) -> list[float]:
        return _product([q * q for q in self.points if q != p])

    def _divisor(self, p: float) -> float:
        return 2 * p * prod(p * p - q * q for q in self.points if q != p)

    def pixels(self, x: Sequence[Any]) -> list[Any]:
        """``2m + 1`` vectors: ``m + 1`` of the even pixels, m of the odd ones, which carry the divisions."""
        emit = self.emit
        found = []
        for p in self.points:
            low, high = (_dot(emit, self._others(p), x[2 * k : 2 * self.m : 4]) for k in range(2))
            found += [emit.multiply_add(low, emit.number(p), high), emit.multiply_add(low, emit.number(-p), high)]
        found.append(_dot(emit, _product([p * p for p in self.points]), x[0::4]))
        for p in self.points:
            low, high = (_dot(emit, [c * scale / self._divisor(p) for c in self._others(p)], x[2 * k + 1 : 2 * self.m : 4])
                         for k, scale in enumerate((p, 1.0)))  # fmt: skip
            found += [emit.builder.fadd(low, high), emit.builder.fsub(low, high)]
        return found

    def weights(self, w: Sequence[Any]) -> list[Any]:
        """``m + 2`` vectors of 3: ``m + 1`` for the even pixels, one for the odd ones."""
        emit, build = self.emit, self.emit.builder
        found = []
        for p in self.points:
            low, high = build.fmul(w[0], emit.number(1 / self._divisor(p))), build.fmul(w[2], emit.number(p / self._divisor(p)))
            found += [build.fadd(high, low), build.fsub(high, low)]
        return [*found, w[2], w[1]]

    def results(self, y: Sequence[Any]) -> list[Any]:
        """``A^T y``: m vectors of ``m + 1``."""
        emit, halves = self.emit, _halves(self, y, 0)
        ends = [[] for _ in range(self.m - 1)] + [[y[-1]]]
        return [_dot(emit, [*(p**i for p in self.points), *[1.0] * len(ends[i])], [*halves[i % 2], *ends[i]]) for i in range(self.m)]

    def gradients(self, g: Sequence[Any]) -> list[Any]:
        """``A g``: ``m + 1`` vectors of m."""
        return _evaluated(self, g)

    def taps(self, s: Sequence[Any]) -> list[Any]:
        """``G^T s``: 3 vectors of ``m + 2``."""
        sums, differences = _halves(self, s, 0)
        factors = [1 / self._divisor(p) for p in self.points]
        last = _dot(self.emit, [*(p * factor for p, factor in zip(self.points, factors, strict=True)), 1.0], [*sums, s[-2]])
        return [_dot(self.emit, factors, differences), s[-1], last]


def _evaluated(transform: Transform | StridedTransform, g: Sequence[Any]) -> list[Any]:
    """The polynomial of m coefficients at the pairs of points, two by two, and at infinity."""
    emit, found = transform.emit, []
    for p in transform.points:
        even, odd = (_dot(emit, [p**i for i in range(first, transform.m, 2)], g[first::2]) for first in range(2))
        found += [emit.builder.fadd(even, odd), emit.builder.fsub(even, odd)]
    return [*found, g[-1]]


def _halves(transform: Transform | StridedTransform, s: Sequence[Any], first: int) -> tuple[list[Any], list[Any]]:
    """Sums and differences of the vectors of pairs, which begin with the ``first``."""
    build, pairs = transform.emit.builder, range(first, first + 2 * len(transform.points), 2)
    return [build.fadd(s[n], s[n + 1]) for n in pairs], [build.fsub(s[n], s[n + 1]) for n in pairs]


ROWS = 4  # of results, of the transforms of rows
ROW_TAPS = 4  # rows of taps at most
# Behind 0, before infinity; fewer rows of taps take the first of them, so that those of several phases share them.  With these
# 7x7 of 3 channels are 1.3e-6 of the largest result off, direct sums 5e-7.
_ROW_POINTS = (1.0, -1.0, 2.0, -2.0, 0.5)


def row_points(taps: int) -> tuple[float, ...]:
    """The finite points of ``F(4, taps)``; infinity is one more.

    Examples
    --------
    >>> row_points(2)
    (0.0, 1.0, -1.0, 2.0)
    """
    return (0.0, *_ROW_POINTS)[: ROWS + taps - 2]


class RowMatrices(NamedTuple):
    """``results[i][a]``, ``weights[a][j]`` and ``pixels[a][l]``: those of ``F(4, taps)``, of one direction."""

    results: list[list[float]]
    weights: list[list[float]]
    pixels: list[list[float]]


@functools.cache
def row_matrices(taps: int) -> RowMatrices:
    """``y[i] = sum_a results[i, a] (sum_j weights[a, j] w[j]) (sum_l pixels[a, l] x[l])`` is ``sum_j w[j] x[i + j]``."""
    points = row_points(taps)
    results = [[*(p**i for p in points), float(i == ROWS - 1)] for i in range(ROWS)]
    weights = [[p**j / prod(p - q for q in points if q != p) for j in range(taps)] for p in points]
    weights.append([float(j == taps - 1) for j in range(taps)])
    pixels = [[*_product([q for q in points if q != p]), 0.0] for p in points]
    return RowMatrices(results, weights, [*pixels, _product(points)])


def row_amplification(taps: int) -> float:
    """The most that a sum of products of transformed magnitudes is of max|x| sum|w|."""
    results, weights, pixels = row_matrices(taps)
    sizes = [sum(map(abs, row)) for row in pixels]
    return max(sum(abs(of[a]) * abs(weights[a][j]) * sizes[a] for a in range(len(sizes))) for of in results for j in range(taps))


class RowTransform:
    """Both transforms of vectors that are rows, emitted from `row_points`; pairs of points share their halves.

    Parameters
    ----------
    emit : Emitter
    taps : int
        Rows of taps.
    """

    def __init__(self, emit: Any, taps: int) -> None:
        self.emit, self.taps, self.points = emit, taps, row_points(taps)

    def _pairs(self) -> tuple[list[int], list[int]]:
        """Indices of points whose opposites follow them, and of those that stand alone; 0 is in neither."""
        first = [a for a in range(1, len(self.points) - 1, 2) if self.points[a + 1] == -self.points[a]]
        return first, list(range(1 + 2 * len(first), len(self.points)))

    def pixels(self, x: Sequence[Any]) -> list[Any]:
        """``pixels x``."""
        emit, pixels = self.emit, row_matrices(self.taps).pixels
        pairs, _ = self._pairs()
        found: list[Any] = []
        for a, row in enumerate(pixels):
            if a in pairs:
                p = self.points[a]
                others = _product([q for q in self.points if abs(q) != p])
                odd, even = _dot(emit, others, x[:-2]), _dot(emit, others, x[1:-1])
                found += [_dot(emit, (factor, 1.0), (odd, even)) for factor in (p, -p)]
            elif a == len(found):
                found.append(_dot(emit, row, x))
        return found

    def results(self, y: Sequence[Any], addend: Any) -> list[Any]:
        """``results y + addend``."""
        emit, build = self.emit, self.emit.builder
        pairs, alone = self._pairs()
        halves = [[join(y[a], y[a + 1]) for a in pairs] for join in (build.fadd, build.fsub)]
        points = [self.points[a] for a in (*pairs, *alone)]
        found = []
        for i in range(ROWS):
            ends = [y[0]] * (i == 0) + [y[-1]] * (i == ROWS - 1)
            parts = [*halves[i % 2], *(y[a] for a in alone), *ends, addend]
            found.append(_dot(emit, [*(p**i for p in points), *[1.0] * len(ends), 1.0], parts))
        return found
