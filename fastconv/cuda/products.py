"""products: a thread's products of two operands in shared memory, ``tm x tn`` sums in registers, by its own multiply-adds."""

from __future__ import annotations

from typing import Any

from .gemm_block import DEPTH
from .simd import VECTOR


class Products:
    """What a thread of a block does with a buffer of ``[DEPTH][pitch_m]`` and, behind it, ``[DEPTH][pitch_n]`` numbers of ``kind``.

    Its sums are those of parts of the rows, ``VECTOR`` bytes each, ``bm / parts`` apart, and of columns likewise; columns run faster.
    """

    e: Any
    s: Any  # with ``tile``
    t: Any  # the thread
    kind: str
    size: int
    pitch_m: int
    pitch_n: int

    def fragment(self, base: Any, own: Any, count: int, block: int) -> list[Any]:
        """``count`` operands of a thread: vectors, ``block / (count / vector)`` apart."""
        vector = VECTOR // self.size
        apart = block // (count // vector)
        return [
            value
            for part in range(count // vector)
            for value in self.e.shared_load(self.kind, base + (part * apart + own * vector) * self.size, vector)
        ]

    def multiply(self, buffer: Any, sums: list[Any]) -> list[Any]:
        """Add the products of a buffer's rows."""
        e, tile = self.e, self.s.tile
        across = tile.bn // tile.tn
        sums = list(sums)
        for k in range(DEPTH):
            base = e.shared() + buffer
            wei = self.fragment(base + k * self.pitch_m * self.size, self.t // across, tile.tm, tile.bm)
            src = self.fragment(base + (DEPTH * self.pitch_m + k * self.pitch_n) * self.size, self.t % across, tile.tn, tile.bn)
            for i, weight in enumerate(wei):
                for j, pixel in enumerate(src):
                    sums[i * tile.tn + j] = e.fma(pixel, weight, sums[i * tile.tn + j])
        return sums

    def places(self) -> tuple[list[Any], list[Any]]:
        """What `fragment`'s operands stand for."""
        tile, vector = self.s.tile, VECTOR // self.size
        across = tile.bn // tile.tn
        found = []
        for own, count, block in ((self.t // across, tile.tm, tile.bm), (self.t % across, tile.tn, tile.bn)):
            apart = block // (count // vector)
            found.append([part * apart + own * vector + n for part in range(count // vector) for n in range(vector)])
        return found[0], found[1]
