"""winograd_points: the matrices of F(m x m, 3 x 3), from points that come in pairs of opposite sign.

``out = A^T [(G w G^T) * (B^T x B)] A`` for a block ``x`` of ``m + 2`` pixels squared.  ``B^T`` interpolates polynomials at the points 0,
the pairs ``+p, -p`` and infinity with leading coefficients of 1, ``A^T`` evaluates, and ``G``, applied when
weights are packed, carries all divisions.  Pairs share their even and odd halves.  Lavin and Gray, arXiv:1509.09308.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

# Positive points by m, in eighths: those of all multiples of 1/8 with the least error over random layers; their products are exact in
# float32.  With the usual 1 and 2, results of F(4x4) are 4 times further from the exact ones.
_EIGHTHS = {2: (8,), 4: (5, 12), 6: (4, 8, 16)}
POINTS = {m: tuple(eighths / 8 for eighths in points) for m, points in _EIGHTHS.items()}


def _product(squares: Sequence[float]) -> list[float]:
    """Coefficients of the product of ``(z - s)``, lowest first."""
    found = [1.0]
    for s in squares:
        found = [low - s * high for low, high in zip([0.0, *found], [*found, 0.0], strict=True)]
    return found


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

    def _dot(self, factors: Sequence[float], vectors: Sequence[Any]) -> Any:
        """The sum of products, from the last on; a factor of 1 is no product."""
        emit, total = self.emit, None
        for factor, vector in reversed(list(zip(factors, vectors, strict=True))):
            if total is None:
                total = vector if factor == 1 else emit.builder.fmul(vector, emit.number(factor))
            elif factor in (1, -1):
                total = (emit.builder.fadd if factor == 1 else emit.builder.fsub)(total, vector)
            else:
                total = emit.multiply_add(vector, emit.number(factor), total)
        return total

    def pixels(self, x: Sequence[Any]) -> list[Any]:
        """``B^T x`` of ``m + 2`` vectors."""
        emit, every = self.emit, _product([p * p for p in self.points])
        found = [self._dot(every, x[0:-1:2])]
        for p in self.points:
            others = _product([q * q for q in self.points if q != p])
            even, odd = self._dot(others, x[2::2]), self._dot(others, x[1:-1:2])
            found += [emit.multiply_add(odd, emit.number(p), even), emit.multiply_add(odd, emit.number(-p), even)]
        return [*found, self._dot(every, x[1::2])]

    def weights(self, w: Sequence[Any]) -> list[Any]:
        """``G w``: ``m + 2`` vectors of 3."""
        emit, build, points = self.emit, self.emit.builder, self.points
        found = [build.fmul(w[0], emit.number(1 / prod(-p * p for p in points)))]
        for p in points:
            factor = 1 / (2 * p * p * prod(p * p - q * q for q in points if q != p))
            even = build.fmul(emit.multiply_add(w[2], emit.number(p * p), w[0]), emit.number(factor))
            odd = build.fmul(w[1], emit.number(p * factor))
            found += [build.fadd(even, odd), build.fsub(even, odd)]
        return [*found, w[2]]

    def results(self, y: Sequence[Any]) -> list[Any]:
        """``A^T y``: m vectors of ``m + 2``."""
        build = self.emit.builder
        sums = [build.fadd(y[n], y[n + 1]) for n in range(1, self.m + 1, 2)]
        differences = [build.fsub(y[n], y[n + 1]) for n in range(1, self.m + 1, 2)]
        found = []
        for i in range(self.m):
            parts = list(differences if i % 2 else sums)
            factors = [p**i for p in self.points]
            ends = [y[0]] * (i == 0) + [y[-1]] * (i == self.m - 1)
            found.append(self._dot([*factors, *[1.0] * len(ends)], [*parts, *ends]))
        return found
