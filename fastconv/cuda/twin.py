"""twin: what the instructions of simd.py do, in NumPy, for all threads of a block of Numba's simulator at once.

Each method is that of :class:`fastconv.cuda.simd.Emitter`, and documented there.  A number is Python's where all threads have the same,
else an array of one float64 or int64 for each thread; a branch that some take runs with the others masked.  No thread is ever ahead of
another, so races need no chance to be caught: shared memory knows who has read and written each word since the last barrier.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..planning.bfloat import narrowed, widened
from ..planning.problem import DTYPES
from ..planning.reference import rounded
from .arithmetic import FLOATS, SIZES
from .simd import VECTOR, Emitter

_NOBODY, _SEVERAL = -1, -2
_WORD = 4


def _plain(value: Any) -> Any:
    """A number that all threads have as Python's; an array as it is, in 64 bits."""
    if not isinstance(value, (np.generic, np.ndarray)):
        return value
    if value.dtype != bool:
        value = value.astype(np.float64 if value.dtype.kind == "f" else np.int64, copy=False)
    return value if value.ndim else value.item()


def _integers(value: Any) -> np.ndarray:
    """Whole numbers, or their low 64 bits."""
    return np.asarray((value + (1 << 63)) % (1 << 64) - (1 << 63) if isinstance(value, int) else value, np.int64)


def _elements(kind: str, values: Any) -> np.ndarray:
    """Numbers as elements of a type."""
    return narrowed(values if kind in FLOATS else _integers(values), DTYPES[kind])


class _Bytes:
    """Memory from an address on, for NumPy."""

    def __init__(self, address: int, count: int, dtype: np.dtype[Any]) -> None:
        self.__array_interface__ = {"data": (address, False), "shape": (count,), "typestr": dtype.str, "version": 3}


class Shared:
    """A block's shared memory, and who has touched which word since the last barrier."""

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory
        self.readers = np.full(memory.size // _WORD + 1, _NOBODY)
        self.writers = self.readers.copy()

    def view(self, dtype: np.dtype[Any]) -> np.ndarray:
        """As numbers of a type."""
        view: np.ndarray = self.memory[: self.memory.size // dtype.itemsize * dtype.itemsize].view(dtype)
        return view

    def forget(self) -> None:
        """All threads are at a barrier."""
        self.readers.fill(_NOBODY)
        self.writers.fill(_NOBODY)

    @staticmethod
    def _mark(marks: np.ndarray, words: np.ndarray, threads: np.ndarray) -> None:
        others = (marks[words] != _NOBODY) & (marks[words] != threads)
        marks[words] = threads
        marks[words[others | (marks[words] != threads)]] = _SEVERAL

    def read(self, words: np.ndarray, threads: np.ndarray) -> None:
        """Threads read words: none that another has written."""
        writers = self.writers[words]
        late = (writers >= 0) & (writers != threads)
        assert not late.any(), f"threads {threads[late][:4]} read what {writers[late][:4]} wrote, with no barrier in between"
        self._mark(self.readers, words, threads)

    def written(self, words: np.ndarray, threads: np.ndarray, changed: np.ndarray) -> None:
        """Threads write words: none that another has read, or written as another number."""
        readers, writers = self.readers[words], self.writers[words]
        early = (readers != _NOBODY) & (readers != threads) & changed
        assert not early.any(), f"threads {threads[early][:4]} overwrite what {readers[early][:4]} read, with no barrier in between"
        twice = (writers != _NOBODY) & (writers != threads) & changed
        assert not twice.any(), f"threads {threads[twice][:4]} overwrite what {writers[twice][:4]} wrote, with no barrier in between"
        self._mark(self.writers, words, threads)


class Twin:
    """A block's threads.

    Floats are float64, integers 64 bits wide until they are stored; every access is checked for its alignment and, where the launcher
    says which memory the kernel may touch, for its place.

    Parameters
    ----------
    cuda : module
        The simulator's, of a block of one thread.
    block : (int, int, int)
        Threads.
    """

    simulated = True
    allowed: tuple[tuple[int, int], ...] | None = None  # of global memory: (first, behind the last)

    memories: dict[int, int] = {}  # noqa: RUF012 (first -> behind the last, of what the driver gave out: always allowed)

    def __init__(self, cuda: Any, block: tuple[int, int, int]) -> None:
        self.cuda, self.extents = cuda, block
        self.threads = np.arange(block[0] * block[1] * block[2])
        self.mask: np.ndarray | None = None  # all
        self.index = self.threads  # of those that are not masked
        self.memory = Shared(cuda.shared.array(0, np.dtype(np.uint8)))
        self._copies: list[tuple[np.ndarray, Any, Any, int]] = []  # that have not arrived

    # threads

    def thread(self, axis: str) -> Any:
        x, y, _ = self.extents
        before = {"x": 1, "y": x, "z": x * y}[axis]
        extent = self.extents["xyz".index(axis)]
        return 0 if extent == 1 else self.threads // before % extent

    def block(self, axis: str) -> int:
        return int(getattr(self.cuda.blockIdx, axis))

    def barrier(self) -> None:
        assert self.mask is None, "a barrier that some threads do not come to"
        self.memory.forget()

    def _masked(self, inside: np.ndarray, run: Callable[[], list[Any]]) -> list[Any]:
        before = self.mask, self.index
        self.mask, self.index = inside, np.flatnonzero(inside)
        result = run()
        self.mask, self.index = before
        return result

    def _merged(self, inside: np.ndarray, yes: list[Any], no: list[Any]) -> list[Any]:
        return [a if a is b else np.where(inside, a, b) for a, b in zip(yes, no, strict=True)]

    def _inside(self, condition: Any) -> Any:
        """Which threads a condition is true for, of those that are not masked; one bool where it is all or none."""
        if np.ndim(condition) == 0:
            return bool(condition)
        inside = condition if self.mask is None else condition & self.mask
        count = np.count_nonzero(inside)
        return bool(count) if count in (0, len(self.index)) else inside

    def loop(self, count: Any, values: list[Any], body: Any) -> list[Any]:
        for i in range(int(count if np.ndim(count) == 0 else count[self.index].max(initial=0))):
            inside = True if np.ndim(count) == 0 else self._inside(count > i)
            if isinstance(inside, bool):
                values = body(i, values)
            else:
                after: list[Any] = self._masked(inside, functools.partial(body, i, values))
                values = self._merged(inside, after, values)
        return values

    def when(self, condition: Any, values: list[Any], body: Any, other: Any = None) -> list[Any]:
        inside = self._inside(condition)
        if isinstance(inside, bool):
            return body(values) if inside else other(values) if other is not None else values
        outside = ~inside if self.mask is None else self.mask & ~inside
        yes = self._masked(inside, lambda: body(values))
        return self._merged(inside, yes, self._masked(outside, lambda: other(values)) if other is not None else values)

    # numbers

    def number(self, kind: str, value: float) -> Any:
        return float(value) if kind in FLOATS else int(value)

    def _fits(self, x: Any, bits: int) -> Any:
        active = x[self.index] if np.ndim(x) else np.asarray([x])
        assert ((-(2 ** (bits - 1)) <= active) & (active < 2 ** (bits - 1))).all(), f"{active} do not fit {bits} bits"
        return x

    def i64(self, x: Any) -> Any:
        return _plain(x)

    def i32(self, x: Any) -> Any:
        return _plain(self._fits(x, 32))

    def below(self, address: Any, size: int) -> Any:
        return address & size - 1

    def anew(self, x: Any) -> Any:
        return self.i32(x)

    def pick(self, condition: Any, a: Any, b: Any) -> Any:
        if np.ndim(condition) == 0:
            return a if condition else b
        return _plain(np.where(condition, a, b))

    def least(self, a: Any, b: Any) -> Any:
        return self.pick(b < a, b, a)

    def most(self, a: Any, b: Any) -> Any:
        return self.pick(b > a, b, a)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return a * b + c

    def times(self, a: Any, b: Any) -> Any:
        return a * b

    def plus(self, a: Any, b: Any) -> Any:
        return a + b

    def dot(self, a: Any, b: Any, c: Any, signs: str) -> Any:
        def parts(word: Any, sign: str) -> list[Any]:
            return [byte - ((byte & 128) << 1) * (sign == "s") for byte in (word >> 8 * n & 0xFF for n in range(4))]

        return c + sum(x * y for x, y in zip(parts(a, signs[0]), parts(b, signs[1]), strict=True))

    def tf32(self, x: Any) -> Any:
        bits = np.asarray(x, np.float32).view(np.uint32)
        near = bits + np.uint32(1 << 12) & np.uint32(0xFFFFFFFF - (1 << 13) + 1)
        return _plain(np.where(np.isfinite(x), near, bits).view(np.float32))

    def half_bits(self, kind: str, x: Any) -> Any:
        return _plain(_elements(kind, x).view(np.uint16))

    def warp_products(self, factor: str, a: Any, b: Any, pitches: tuple[int, int], extents: tuple[int, int], sums: list[Any]) -> list[Any]:
        lane = self.thread("x") % 32
        rows = [16 * i + lane // 4 + half for i in range(extents[0] // 16) for half in (0, 8)]
        columns = [8 * j + lane % 4 * 2 + k for j in range(extents[1] // 8) for k in (0, 1)]
        kind, count = ("f32", 1) if factor == "tf32" else (factor, 2)
        total = np.array(np.broadcast_arrays(*sums, lane)[:-1], np.float64).reshape(len(rows), len(columns), -1)
        for k in range(8):
            left = np.array([self.shared_load(kind, a + _WORD * (k * pitches[0] + row), count) for row in rows])
            right = np.array([self.shared_load(kind, b + _WORD * (k * pitches[1] + column), count) for column in columns])
            products = [left[:, None, n] * right[None, :, n] for n in range(count)]
            total = total + sum(products[1:], products[0])
        return list(total.reshape(len(sums), -1))

    def permute(self, a: Any, b: Any, selector: int) -> Any:
        words = [a >> 8 * n & 0xFF for n in range(4)] + [b >> 8 * n & 0xFF for n in range(4)]
        return sum(words[selector >> 4 * n & 7] << 8 * n for n in range(4))

    def convert(self, stored: str, acc: str, value: Any) -> Any:
        if stored not in FLOATS:
            whole = _integers(value).astype(DTYPES[stored])
            return self.held(acc, whole) if acc == "bf16" else _plain(whole.astype(DTYPES[acc]))
        if acc in FLOATS:
            return value if stored == acc or SIZES[stored] < SIZES[acc] else self.held(acc, value)
        bits = max(32, 8 * SIZES[acc])
        return _plain(np.asarray(self._whole(value, bits)).astype(DTYPES[acc]))

    def wrapped(self, acc: str, value: Any) -> Any:
        return _plain(_integers(value).astype(DTYPES[acc]))

    def _whole(self, value: Any, bits: int) -> Any:
        half = 2.0 ** (bits - 1)
        inside = (value < half) & (value > -half - 1)
        return _plain(np.where(inside, np.where(inside, value, 0).astype(np.int64), -(1 << (bits - 1))))

    cut: Any = Emitter.cut  # made of the operations here

    def is_number(self, x: Any) -> Any:
        return _plain(~np.isnan(x))

    def quotient(self, a: Any, b: Any) -> Any:
        return _plain(np.float64(a) / np.float64(b))

    def root(self, x: Any) -> Any:
        return _plain(np.sqrt(np.float64(x)))

    def held(self, kind: str, x: Any) -> Any:
        return _plain(widened(_elements(kind, x)))

    def power(self, x: Any) -> Any:
        return _plain(np.exp2(np.float64(x)))

    def nearest(self, x: Any) -> Any:
        return _plain(np.rint(x))

    def rounded(self, rounding: str, acc: str, dst: str, value: Any) -> Any:
        return _plain(rounded(rounding, np.atleast_1d(np.asarray(value, DTYPES[acc])), DTYPES[dst]).reshape(np.shape(value)))

    # memory

    def _addresses(self, address: Any, size: int) -> np.ndarray:
        """Where the threads that are not masked access ``size`` bytes; where all the same, once."""
        places = np.atleast_1d(address[self.index] if np.ndim(address) else np.int64(address))
        aligned = places % min(size, VECTOR) == 0
        assert aligned.all(), f"address {int(places[~aligned][0]):#x} is not a multiple of {size}"
        return places

    def _global(self, address: Any, size: int) -> np.ndarray:
        """The same of global memory."""
        places = self._addresses(address, size)
        if self.allowed is not None and places.size:
            left = places
            for first, end in itertools.chain(self.allowed, self.memories.copy().items()):
                left = left[(left < first) | (left + size > end)]
                if not left.size:
                    break
            assert not left.size, "outside the arrays"
        return places

    def _elements_at(self, places: np.ndarray, dtype: np.dtype[Any], count: int) -> tuple[Any, Any]:
        """A view of global memory and the indices of ``count`` elements from each place on."""
        first = int(places.min())
        span = (int(places.max()) - first) // dtype.itemsize + count
        return np.asarray(_Bytes(first, span, dtype)), ((places - first) // dtype.itemsize)[:, None] + np.arange(count)

    def _spread(self, found: np.ndarray, address: Any) -> Any:
        """What was read as numbers of all threads, or one."""
        if not np.ndim(address):
            return found[0]
        if self.mask is None:
            return found
        whole = np.zeros(len(self.threads), found.dtype)
        whole[self.index] = found
        return whole

    def _made(self, stored: str, acc: str, raw: Any) -> Any:
        """Stored numbers as sums take them."""
        values = widened(np.asarray(raw))
        if acc == "bf16" or (stored in FLOATS and acc not in FLOATS):
            return self.convert(stored, acc, _plain(values))
        return _plain(values.astype(DTYPES[acc]))

    def _read(self, stored: str, address: Any, count: int) -> list[Any]:
        places = self._global(address, SIZES[stored] * count)
        view, index = self._elements_at(places, DTYPES[stored], count)
        return [self._spread(column, address) for column in view[index].T]

    def load(self, stored: str, acc: str, address: Any, count: int) -> list[Any]:
        return [self._made(stored, acc, raw) for raw in self._read(stored, address, count)]

    def load_where(self, condition: Any, kind: str, address: Any) -> list[Any]:
        return self.when(condition, [self.number(kind, 0)] * 4, lambda _: self.load(kind, kind, address, 4))

    def load_own(self, stored: str, acc: str, address: Any) -> Any:
        return self.load(stored, acc, address, 1)[0]

    def copy(self, shared: Any, address: Any, size: int) -> None:
        self._copies.append((self.index, shared, address, size))

    def arrived(self) -> None:
        before = self.mask, self.index
        for index, shared, address, size in self._copies:
            self.index, self.mask = index, np.isin(self.threads, index)
            self._put("i32", self._addresses(shared, size), [np.asarray(x) for x in self._read("i32", address, size // _WORD)])
        self._copies.clear()
        self.mask, self.index = before

    def words(self, address: Any, count: int) -> list[Any]:
        found = []
        for first in range(0, count, 4):
            found += self.load("i32", "i32", address + 4 * first, 4)
        return found

    def _joined(self, words: list[Any]) -> np.ndarray:
        """Words of 32 bits as bytes: a row for each thread."""
        columns = np.broadcast_arrays(*(_integers(word) for word in words), self.threads)[:-1]
        return np.ascontiguousarray(np.stack(columns, -1).astype(np.int32)).view(np.uint8)

    def aligned(self, words: list[Any], offset: Any, size: int) -> list[Any]:
        active = np.atleast_1d(offset[self.index] if np.ndim(offset) else offset)
        assert ((active % size == 0) & (0 <= active) & (active < VECTOR)).all(), f"offsets {active[:4]} of elements of {size} bytes"
        data, count = self._joined(words), len(words) - (3 if size >= 4 else 4)
        start = np.broadcast_to(offset, self.threads.shape)[:, None] % VECTOR
        moved = np.take_along_axis(data, start + np.arange(4 * count), 1)
        return [_plain(column) for column in np.ascontiguousarray(moved).view(np.int32).T]

    def elements(self, stored: str, acc: str, words: list[Any], count: int) -> list[Any]:
        values = self._joined(words)[:, : count * SIZES[stored]]
        return [self._made(stored, acc, column) for column in np.ascontiguousarray(values).view(DTYPES[stored]).T]

    def _stored(self, dst: str, values: list[Any]) -> np.ndarray:
        """A row of elements for each thread that is not masked."""
        data = [_elements(dst, value) for value in values]
        rows: np.ndarray = np.stack(np.broadcast_arrays(*data, self.threads)[:-1], -1)[self.index]
        return rows

    def store(self, dst: str, address: Any, values: list[Any]) -> None:
        address = np.broadcast_to(address, self.threads.shape)
        places, rows = self._global(address, SIZES[dst] * len(values)), self._stored(dst, values)
        if places.size:
            view, index = self._elements_at(places, DTYPES[dst], len(values))
            view[index] = rows
            with np.errstate(invalid="ignore"):
                assert ((view[index] == rows) | (rows != rows)).all(), "threads store different numbers in one place"

    # shared memory

    def shared(self) -> int:
        return 0

    def _shared_places(self, address: Any, size: int) -> np.ndarray:
        places, most = self._addresses(address, size), self.memory.memory.size - size
        assert ((places >= 0) & (places <= most)).all(), f"outside the {most + size} bytes of shared memory"
        return places

    def _touched(self, places: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Words, and the thread that touches each."""
        each = max(size // _WORD, 1)
        words = (places // _WORD)[:, None] + np.arange(each)
        threads = np.broadcast_to(self.index[:, None] if places.size == self.index.size else np.array([[_SEVERAL]]), words.shape)
        return words.ravel(), threads.ravel()

    def shared_load(self, kind: str, address: Any, count: int) -> list[Any]:
        size = SIZES[kind] * count
        places = self._shared_places(address, size)
        self.memory.read(*self._touched(places, size))
        found = self.memory.view(DTYPES[kind])[(places // SIZES[kind])[:, None] + np.arange(count)]
        return [self._made(kind, kind, self._spread(column, address)) for column in found.T]

    def shared_anew(self, address: Any) -> Any:
        return self.shared_load("i32", address, 1)[0]

    def shared_store(self, kind: str, address: Any, values: list[Any]) -> None:
        self._put(kind, self._shared_places(np.broadcast_to(address, self.threads.shape), SIZES[kind] * len(values)), values)

    def _put(self, kind: str, places: np.ndarray, values: list[Any]) -> None:
        size, rows = SIZES[kind] * len(values), self._stored(kind, values)
        view, index = self.memory.view(DTYPES[kind]), (places // SIZES[kind])[:, None] + np.arange(len(values))
        if not places.size:
            return
        words, threads = self._touched(places, size)
        new = np.ascontiguousarray(rows).view(np.int32).ravel()
        changed = self.memory.view(np.dtype(np.int32))[words] != new
        self.memory.written(words, threads, changed)
        view[index] = rows
        assert (self.memory.view(np.dtype(np.int32))[words] == new).all(), "threads write different numbers into one place"
