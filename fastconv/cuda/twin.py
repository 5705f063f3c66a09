"""twin: what the instructions of simd.py do, in plain Python, for the threads of Numba's simulator.

Each method is that of :class:`fastconv.cuda.simd.Emitter`, and documented there.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import operator
from typing import Any

import numpy as np

from ..planning.problem import DTYPES
from ..planning.reference import rounded
from .simd import SIZES, VECTOR


def _wrap(kind: str, value: Any) -> Any:
    bits = 8 * SIZES[kind]
    value = int(value) & (1 << bits) - 1
    return value - (1 << bits) if kind[0] == "i" and value >> (bits - 1) else value


class Twin:
    """The same in plain Python, for one thread of Numba's simulator.

    Floats are Python's, integers unlimited until they are stored; every access is checked for its alignment and, where the launcher
    says which memory the kernel may touch, for its place.

    Parameters
    ----------
    cuda : module
        The simulator's, as this thread sees it.
    """

    simulated = True
    allowed: tuple[tuple[int, int], ...] | None = None  # of global memory: (first, behind the last)

    memories: dict[int, int] = {}  # noqa: RUF012 (first -> behind the last, of what the driver gave out: always allowed)

    def __init__(self, cuda: Any) -> None:
        self.cuda = cuda
        self._copies: list[tuple[int, int, int]] = []  # that have not arrived

    def number(self, kind: str, value: float) -> Any:
        return float(value) if kind[0] == "f" else int(value)

    def i64(self, x: Any) -> int:
        assert -(2**63) <= x < 2**63
        return int(x)

    def i32(self, x: Any) -> int:
        assert -(2**31) <= x < 2**31, f"{x} does not fit 32 bits"
        return int(x)

    def below(self, address: int, size: int) -> int:
        return address & size - 1

    def anew(self, x: Any) -> int:
        return self.i32(x)

    def pick(self, condition: Any, a: Any, b: Any) -> Any:
        return a if condition else b

    def least(self, a: Any, b: Any) -> Any:
        return b if b < a else a

    def most(self, a: Any, b: Any) -> Any:
        return b if b > a else a

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return a * b + c

    times, plus = staticmethod(operator.mul), staticmethod(operator.add)

    def dot(self, a: Any, b: Any, c: Any, signs: str) -> Any:
        parts = [
            np.array([word & 0xFFFFFFFF], "<u4").view("u1" if sign == "u" else "i1").tolist()
            for word, sign in zip((a, b), signs, strict=True)
        ]
        return c + sum(x * y for x, y in zip(*parts, strict=True))

    def tf32(self, x: float) -> float:
        bits = np.array([x], np.float32).view(np.uint32)
        if np.isfinite(x):
            bits = bits + np.uint32(1 << 12) & np.uint32(0xFFFFFFFF - (1 << 13) + 1)
        return float(bits.view(np.float32)[0])

    def half_bits(self, x: float) -> int:
        with np.errstate(over="ignore"):
            return int(np.array([x], np.float16).view(np.uint16)[0])

    def warp_products(
        self, factor: str, a: int, b: int, pitches: tuple[int, int], extents: tuple[int, int], sums: list[float]
    ) -> list[float]:
        lane = self.thread("x") % 32
        rows = [16 * i + lane // 4 + half for i in range(extents[0] // 16) for half in (0, 8)]
        columns = [8 * j + lane % 4 * 2 + k for j in range(extents[1] // 8) for k in (0, 1)]
        sums = list(sums)
        kind, count = ("f32", 1) if factor == "tf32" else ("f16", 2)
        for k in range(8):
            left = [self.shared_load(kind, a + 4 * (k * pitches[0] + row), count) for row in rows]
            right = [self.shared_load(kind, b + 4 * (k * pitches[1] + column), count) for column in columns]
            pairs = itertools.product(left, right)
            sums = [total + sum(map(operator.mul, x, y)) for total, (x, y) in zip(sums, pairs, strict=True)]
        return sums

    def permute(self, a: Any, b: Any, selector: int) -> int:
        both = (a & 0xFFFFFFFF) | (b & 0xFFFFFFFF) << 32
        return sum((both >> 8 * (selector >> 4 * n & 7) & 0xFF) << 8 * n for n in range(4))

    def thread(self, axis: str) -> int:
        return int(getattr(self.cuda.threadIdx, axis))

    def block(self, axis: str) -> int:
        return int(getattr(self.cuda.blockIdx, axis))

    def barrier(self) -> None:
        self.cuda.syncthreads()

    def loop(self, count: int, values: list[Any], body: Any) -> list[Any]:
        for i in range(count):
            values = body(i, values)
        return values

    def when(self, condition: Any, values: list[Any], body: Any, other: Any = None) -> list[Any]:
        return body(values) if condition else other(values) if other is not None else values

    def _check(self, address: int, size: int) -> None:
        assert address % min(size, VECTOR) == 0, f"address {address:#x} is not a multiple of {size}"
        if self.allowed is not None:
            places = (*self.allowed, *self.memories.copy().items())
            assert any(first <= address and address + size <= end for first, end in places), "outside the arrays"

    def load(self, stored: str, acc: str, address: int, count: int) -> list[Any]:
        self._check(address, SIZES[stored] * count)
        values = np.frombuffer(ctypes.string_at(address, SIZES[stored] * count), DTYPES[stored])
        return [self.convert(stored, acc, value) for value in values.tolist()]

    def load_own(self, stored: str, acc: str, address: int) -> Any:
        return self.load(stored, acc, address, 1)[0]

    def copy(self, shared: int, address: int, size: int) -> None:
        self._check(address, size)
        self._copies.append((self._shared_place(shared, size), address, size))

    def arrived(self) -> None:
        for shared, address, size in self._copies:
            ctypes.memmove(shared, address, size)
        self._copies.clear()

    def words(self, address: int, count: int) -> list[int]:
        for first in range(0, count, 4):
            self._check(address + 4 * first, VECTOR)
        return list(np.frombuffer(ctypes.string_at(address, 4 * count), np.int32).tolist())

    def aligned(self, words: list[int], offset: int, size: int) -> list[int]:
        assert offset % size == 0
        assert 0 <= offset < VECTOR
        data = np.array(words, np.int32).tobytes()
        count = len(words) - (3 if size >= 4 else 4)
        return list(np.frombuffer(data[offset : offset + 4 * count], np.int32).tolist())

    def elements(self, stored: str, acc: str, words: list[int], count: int) -> list[Any]:
        values = np.frombuffer(np.array(words, np.int32).tobytes(), DTYPES[stored], count)
        return [self.convert(stored, acc, value) for value in values.tolist()]

    def convert(self, stored: str, acc: str, value: Any) -> Any:
        if acc[0] == "f":
            return float(value) if stored == acc or SIZES[stored] < SIZES[acc] else self.held(acc, value)
        if stored[0] == "f":
            value = int(value) if np.isfinite(value) else -(1 << max(31, 8 * SIZES[acc] - 1))
        return _wrap(acc, value)

    def wrapped(self, acc: str, value: Any) -> int:
        return int(_wrap(acc, value))

    def cut(self, acc: str, dst: str, value: float) -> int:
        bits = 64 if SIZES[dst] == 8 or dst == "u32" else 32
        half = 1 << (bits - 1)

        def whole(x: float) -> int:
            return int(x) if -half - 1 < x < half else -half

        return int(_wrap(dst, whole(value - half) + half if dst == "u64" and value >= half else whole(value)))

    def is_number(self, x: float) -> bool:
        return not math.isnan(x)

    def quotient(self, a: float, b: float) -> float:
        with np.errstate(all="ignore"):
            return float(np.float64(a) / np.float64(b))

    def root(self, x: float) -> float:
        with np.errstate(all="ignore"):
            return float(np.sqrt(np.float64(x)))

    def held(self, kind: str, x: float) -> float:
        with np.errstate(over="ignore"):
            return float(DTYPES[kind].type(x))

    def power(self, x: float) -> float:
        return float(2.0**x)

    def nearest(self, x: float) -> float:
        return float(np.rint(x))

    def rounded(self, rounding: str, acc: str, dst: str, value: Any) -> int:
        return int(rounded(rounding, np.array([value], DTYPES[acc]), DTYPES[dst])[0])

    def store(self, dst: str, address: int, values: list[Any]) -> None:
        self._check(address, SIZES[dst] * len(values))
        self._write(dst, address, values)

    def _write(self, dst: str, address: int, values: list[Any]) -> None:
        with np.errstate(over="ignore"):
            data = np.array([v if dst[0] == "f" else _wrap(dst, v) for v in values], DTYPES[dst]).tobytes()
        ctypes.memmove(address, data, len(data))

    def shared(self) -> int:
        return 0

    def _shared_place(self, address: int, size: int) -> int:
        memory = self.cuda.shared.array(0, np.dtype(np.uint8))
        assert address % min(size, VECTOR) == 0
        assert 0 <= address <= memory.size - size, f"{address} is outside the {memory.size} bytes of shared memory"
        return int(memory.ctypes.data) + address

    def shared_load(self, kind: str, address: int, count: int) -> list[Any]:
        data = ctypes.string_at(self._shared_place(address, SIZES[kind] * count), SIZES[kind] * count)
        return list(np.frombuffer(data, DTYPES[kind]).tolist())

    def shared_store(self, kind: str, address: int, values: list[Any]) -> None:
        self._write(kind, self._shared_place(address, SIZES[kind] * len(values)), values)
