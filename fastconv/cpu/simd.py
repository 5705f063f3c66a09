"""simd: ISA-neutral LLVM vectors for kernels; this file and memory.py alone import llvmlite.

An :class:`Emitter` writes vector instructions of one element kind into the function that Numba is building; tiles are emitted
with ordinary Python loops over it.  Addresses are 64-bit integers in bytes; every access is unaligned (align 1), so arrays of any
alignment are read in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

KINDS: dict[str, tuple[Any, Any, int]] = {
    "f16": (ir.HalfType(), types.float16, 2),  # loaded and stored, never computed with
    "f32": (ir.FloatType(), types.float32, 4),
    "f64": (ir.DoubleType(), types.float64, 8),
    "i8": (ir.IntType(8), types.int8, 1),
    "i16": (ir.IntType(16), types.int16, 2),
    "i32": (ir.IntType(32), types.int32, 4),
    "i64": (ir.IntType(64), types.int64, 8),
}
I64 = ir.IntType(64)
_I32 = ir.IntType(32)


class Emitter:
    """Vector instructions of one kind.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
    kind : str
        A key of ``KINDS``.
    lanes : int
    fma : bool
        Fused multiply-add where the target has it; otherwise multiply and add, since LLVM would call libm's ``fma``.
    """

    def __init__(self, builder: Any, kind: str, lanes: int, fma: bool) -> None:
        self.builder = builder
        self.kind = kind
        self.element, _, self.itemsize = KINDS[kind]
        self.lanes = lanes
        self.vector = ir.VectorType(self.element, lanes)
        self.floating = kind[0] == "f"
        self.fused = fma and self.floating
        self.width = lanes * self.itemsize

    def constant(self, value: int) -> Any:
        """A 64-bit integer constant."""
        return ir.Constant(I64, value)

    def number(self, value: int | float) -> Any:
        """A constant of the emitter's kind in every lane."""
        return ir.Constant(self.vector, [float(value) if self.floating else value] * self.lanes)

    def of(self, kind: str, lanes: int = 0) -> Emitter:
        """An emitter of vectors of another kind, with as many lanes unless told."""
        return Emitter(self.builder, kind, lanes or self.lanes, False)

    def call(self, name: str, value: Any, result: Emitter) -> Any:
        """LLVM's intrinsic of one vector, which gives a vector of the kind of ``result``."""
        suffix = "".join(f".v{part.lanes}{part.kind}" for part in (result, self))
        function = ir.FunctionType(result.vector, [self.vector])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function, name + suffix), [value])

    def offset(self, address: Any, *terms: Any) -> Any:
        """``address`` plus integers and values, in bytes."""
        for term in terms:
            if isinstance(term, int):
                if term == 0:
                    continue
                term = self.constant(term)
            address = self.builder.add(address, term)
        return address

    def times(self, a: Any, b: Any) -> Any:
        """Integer product."""
        return self.builder.mul(a, self.constant(b) if isinstance(b, int) else b)

    def _pointer(self, address: Any, pointee: Any) -> Any:
        return self.builder.inttoptr(address, pointee.as_pointer())

    def load(self, address: Any) -> Any:
        """``lanes`` consecutive elements."""
        return self.builder.load(self._pointer(address, self.vector), align=1)

    def prefetch(self, address: Any, level: int = 2, write: bool = False) -> None:
        """Ask for the cache line at an address, which need not be valid, in the first- or second-level cache, to be written or read."""
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        self.builder.call(function, [self._pointer(address, ir.IntType(8)), *(ir.Constant(_I32, n) for n in (int(write), 4 - level, 1))])

    def load_first(self, address: Any, count: int) -> Any:
        """``count`` consecutive elements in the first lanes; what the others hold is not defined."""
        part = ir.VectorType(self.element, count)
        few = self.builder.load(self._pointer(address, part), align=1)
        vector = ir.Constant(self.vector, ir.Undefined)
        for lane in range(count):
            place = ir.Constant(_I32, lane)
            vector = self.builder.insert_element(vector, self.builder.extract_element(few, place), place)
        return vector

    def load_up_to(self, address: Any, count: Any) -> Any:
        """The first ``count`` elements, a value that may exceed ``lanes``, and 0 in the other lanes: only for what is read seldom."""
        return self.load_or(address, count, ir.Constant(self.vector, None))

    def load_or(self, address: Any, count: Any, other: Any) -> Any:
        """The first ``count`` elements, a value that may exceed ``lanes`` or be negative, and lanes of ``other``."""
        most = self.constant(self.lanes)
        few = self.builder.trunc(self.builder.select(self.builder.icmp_signed("<", count, most), count, most), _I32)
        numbers = ir.Constant(ir.VectorType(_I32, self.lanes), list(range(self.lanes)))
        mask = self.builder.icmp_signed("<", numbers, self.of("i32").spread(few))
        pointer = self.vector.as_pointer()
        kind = ir.FunctionType(self.vector, [pointer, _I32, mask.type, self.vector])
        name = f"llvm.masked.load.v{self.lanes}{self.kind}.p0"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, [self._pointer(address, self.vector), ir.Constant(_I32, 1), mask, other])

    def any(self, bits: Any) -> Any:
        """Whether some lane of a comparison holds."""
        word = self.builder.bitcast(bits, ir.IntType(self.lanes))
        return self.builder.icmp_unsigned("!=", word, ir.Constant(word.type, 0))

    def store(self, address: Any, value: Any) -> None:
        """``lanes`` consecutive elements."""
        self.builder.store(value, self._pointer(address, self.vector), align=1)

    def store_past(self, address: Any, value: Any) -> None:
        """``lanes`` consecutive elements, past the caches; the address is a multiple of the vector's bytes."""
        store = self.builder.store(value, self._pointer(address, self.vector), align=self.width)
        store.set_metadata("nontemporal", self.builder.module.add_metadata([ir.Constant(_I32, 1)]))

    def every(self, where: Any) -> Any:
        """A 64-bit integer: 1 where a comparison holds in every lane, else 0."""
        lanes = ir.IntType(self.lanes)
        held = self.builder.icmp_unsigned("==", self.builder.bitcast(where, lanes), ir.Constant(lanes, -1))
        return self.builder.zext(held, I64)

    def store_flag(self, address: Any, where: Any) -> None:
        """A byte: 1 where a comparison holds in every lane, else 0."""
        byte = ir.IntType(8)
        self.builder.store(self.builder.trunc(self.every(where), byte), self._pointer(address, byte), align=1)

    def store_first(self, address: Any, value: Any, count: int) -> None:
        """The first ``count`` lanes, in two stores of 2^n elements that overlap (no masks: AVX2 and NEON have none that are fast)."""
        size = 1 << (count.bit_length() - 1)
        for first in sorted({0, count - size}):
            part = value if size == self.lanes else self.pick(value, value, range(first, first + size))
            at = self.offset(address, first * self.itemsize)
            self.builder.store(part, self._pointer(at, ir.VectorType(self.element, size)), align=1)

    def fence(self, values: Sequence[Any]) -> list[Any]:
        """The same values, computed before any later memory access; emits nothing.

        LLVM's scheduler otherwise hoists all of a tile's loads to the top of the block, before the arithmetic, and spills.
        """
        triple = self.builder.module.triple
        register = "w" if triple.startswith(("aarch64", "arm64")) else "v" if self.width == 64 else "x"
        count = len(values)
        if not count or not triple.startswith(("x86_64", "aarch64", "arm64")):
            return list(values)
        result = ir.LiteralStructType([self.vector] * count) if count > 1 else self.vector
        constraints = ",".join([f"={register}"] * count + [str(n) for n in range(count)] + ["~{memory}"])
        fenced = self.builder.asm(ir.FunctionType(result, [self.vector] * count), "", constraints, list(values), True)
        return [self.builder.extract_value(fenced, n) for n in range(count)] if count > 1 else [fenced]

    def opaque(self, value: Any) -> Any:
        """The same 64-bit integer, of which LLVM does not know how it was computed: it stays in a register."""
        return self.builder.asm(ir.FunctionType(I64, [I64]), "", "=r,0", [value], False)

    def undefined(self) -> Any:
        """A vector whose lanes will not be used."""
        return ir.Constant(self.vector, ir.Undefined)

    def load_integer(self, address: Any) -> Any:
        """One 64-bit integer: an entry of an address table."""
        return self.builder.load(self._pointer(address, I64), align=8)

    def load_scalar(self, address: Any) -> Any:
        """One element."""
        return self.builder.load(self._pointer(address, self.element), align=1)

    def store_scalar(self, address: Any, value: Any) -> None:
        """One element."""
        self.builder.store(value, self._pointer(address, self.element), align=1)

    def splat(self, address: Any) -> Any:
        """One element in every lane."""
        return self.spread(self.load_scalar(address))

    def spread(self, scalar: Any) -> Any:
        """A scalar value in every lane."""
        first = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), scalar, ir.Constant(_I32, 0))
        lanes = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, ir.Constant(self.vector, ir.Undefined), lanes)

    def pieces(self, address: Any, count: int) -> Any:
        """``count`` consecutive elements, a divisor of the lanes, again and again in all lanes."""
        if count == 1:
            return self.splat(address)
        few = self.builder.load(self._pointer(address, ir.VectorType(self.element, count)), align=1)
        lanes = ir.Constant(ir.VectorType(_I32, self.lanes), [lane % count for lane in range(self.lanes)])
        return self.builder.shuffle_vector(few, ir.Constant(few.type, ir.Undefined), lanes)

    def pick(self, a: Any, b: Any, lanes: Sequence[int]) -> Any:
        """Lanes of ``a`` (0..) and ``b`` (lanes..)."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(lanes)), list(lanes)))

    def bits(self) -> Emitter:
        """An emitter of integers of the same width."""
        return Emitter(self.builder, f"i{8 * self.itemsize}", self.lanes, False)

    def values(self, bits: Any) -> Any:
        """Integers of the same width seen as this kind."""
        return self.builder.bitcast(bits, self.vector)

    def even(self, a: Any, b: Any) -> Any:
        """Elements 0, 2, 4, ... of the two vectors laid end to end."""
        return self.pick(a, b, range(0, 2 * self.lanes, 2))

    def odd(self, a: Any, b: Any) -> Any:
        """Elements 1, 3, 5, ... of the two vectors laid end to end."""
        return self.pick(a, b, range(1, 2 * self.lanes, 2))

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """``a * b + c``."""
        if self.fused:
            name = f"llvm.fma.v{self.lanes}f{8 * self.itemsize}"
            function = cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(self.vector, [self.vector] * 3), name)
            return self.builder.call(function, [a, b, c])
        if self.floating:
            return self.builder.fadd(self.builder.fmul(a, b), c)
        return self.builder.add(self.builder.mul(a, b), c)

    def dot_add(self, a: Any, b: Any, c: Any, how: str = "bytes") -> Any:
        """``c`` plus the products of the parts of each lane of 32 bits.

        ``bytes`` are four, without sign in ``a`` and with in ``b``, and ``words`` two of 16 bits, by one instruction (VNNI); ``pairs`` are
        words whose products are added by one instruction of any x86; ``halves`` are words, by shifts and products of 32 bits.
        """
        build, bits = self.builder, 8 * self.width
        vnni = {"bytes": "vpdpbusd", "words": "vpdpwssd"}.get(how)
        if vnni is not None:
            function = ir.FunctionType(self.vector, [self.vector] * 3)
            dot = cgutils.get_or_insert_function(build.module, function, f"llvm.x86.avx512.{vnni}.{bits}")
            return build.call(dot, [c, a, b])
        if how == "pairs":
            words = ir.VectorType(ir.IntType(16), 2 * self.lanes)
            name = {128: "sse2.pmadd.wd", 256: "avx2.pmadd.wd", 512: "avx512.pmaddw.d.512"}[bits]
            function = ir.FunctionType(self.vector, [words] * 2)
            dot = cgutils.get_or_insert_function(build.module, function, f"llvm.x86.{name}")
            return build.add(c, build.call(dot, [build.bitcast(a, words), build.bitcast(b, words)]))
        half = self.number(16)
        low = [build.ashr(build.shl(x, half), half) for x in (a, b)]
        high = [build.ashr(x, half) for x in (a, b)]
        return build.add(build.add(c, build.mul(*low)), build.mul(*high))

    def high_product(self, a: Any, b: Any) -> Any:
        """The high halves of products of 16-bit lanes without sign: of x86 one instruction, which LLVM finds only where it sees both."""
        build = self.builder
        if build.module.triple.startswith(("x86_64", "i686")):
            name = {128: "sse2.pmulhu.w", 256: "avx2.pmulhu.w", 512: "avx512.pmulhu.w.512"}[8 * self.width]
            function = ir.FunctionType(self.vector, [self.vector] * 2)
            return build.call(cgutils.get_or_insert_function(build.module, function, f"llvm.x86.{name}"), [a, b])
        wide = self.of("i32")
        product = build.mul(build.zext(a, wide.vector), build.zext(b, wide.vector))
        return build.trunc(build.lshr(product, wide.number(16)), self.vector)

    def activate(self, x: Any, slope: Any, low: Any, high: Any) -> Any:
        """``min(max(x < 0 ? slope x : x, low), high)`` with comparisons that let NaN through; the identity for 1, -inf, inf."""
        zero = ir.Constant(self.vector, None)
        build = self.builder
        if self.floating:
            x = build.select(build.fcmp_ordered("<", x, zero), build.fmul(x, slope), x)
            x = build.select(build.fcmp_ordered("<", x, low), low, x)
            return build.select(build.fcmp_ordered(">", x, high), high, x)
        x = build.select(build.icmp_signed("<", x, low), low, x)
        return build.select(build.icmp_signed(">", x, high), high, x)

    def transpose(self, rows: Sequence[Any]) -> list[Any]:
        """``lanes`` vectors as the columns of a square.

        Elements are interleaved within 128 bits, then pieces of 128 bits gathered from pairs of vectors: log2(lanes) rounds of shuffles
        that need no table of places.
        """
        lanes, few = self.lanes, min(16 // self.itemsize, self.lanes)
        pieces, half, sides = lanes // few, few // 2, (0, lanes)
        done = []
        for first in range(0, lanes, few):
            vectors = list(rows[first : first + few])
            for _ in range(few.bit_length() - 1):
                halves = [[side + piece + start + at for piece in range(0, lanes, few) for at in range(half) for side in sides]
                          for start in (0, half)]  # fmt: skip
                vectors = [self.pick(vectors[n // 2], vectors[n // 2 + half], halves[n % 2]) for n in range(few)]
            done.append(vectors)
        columns = []
        for vectors in map(list, zip(*done, strict=True)):
            for _ in range(pieces.bit_length() - 1):
                others = [[side + piece + at for side in sides for piece in range(odd * few, lanes, 2 * few) for at in range(few)]
                          for odd in range(2)]  # fmt: skip
                vectors = [self.pick(vectors[n], vectors[n + 1], lanes_of) for lanes_of in others for n in range(0, pieces, 2)]
            columns.append(vectors)
        return [columns[n % few][n // few] for n in range(lanes)]

    def variable(self, value: Any) -> Any:
        """A place for a value that changes in a loop; promoted to a register."""
        place = cgutils.alloca_once(self.builder, value.type)
        self.builder.store(value, place)
        return place

    def get(self, place: Any) -> Any:
        """The value in a place made by `variable`."""
        return self.builder.load(place)

    def set(self, place: Any, value: Any) -> None:
        """Put a value into a place made by `variable`."""
        self.builder.store(value, place)

    @contextmanager
    def loop(self, count: Any) -> Iterator[None]:
        """Repeat the block ``count`` times."""
        with cgutils.for_range(self.builder, count):
            yield

    def quotient(self, a: Any, b: int) -> Any:
        """Quotient of a value that is not negative."""
        return self.builder.udiv(a, self.constant(b))

    def remainder(self, a: Any, b: int) -> Any:
        """Remainder of a value that is not negative."""
        return self.builder.urem(a, self.constant(b))

    @contextmanager
    def case(self, value: Any, constant: int) -> Iterator[None]:
        """The block runs where ``value == constant``."""
        with self.builder.if_then(self.builder.icmp_unsigned("==", value, self.constant(constant)), likely=False):
            yield

    @contextmanager
    def either(self, value: Any) -> Iterator[tuple[Any, Any]]:
        """Two blocks: for ``value != 0``, and for 0."""
        with self.builder.if_else(self.builder.icmp_unsigned("!=", value, self.constant(0))) as blocks:
            yield blocks

    def copy(self, to: Any, place: Any, count: Any) -> None:
        """Copy ``count`` elements between two addresses held in variables, which advance: the last vector overlaps the one before."""
        start, source = self.get(to), self.get(place)
        size = self.times(count, self.itemsize)
        with self.builder.if_else(self.builder.icmp_signed(">=", count, self.constant(self.lanes))) as (many, few):
            with many:
                with self.loop(self.quotient(count, self.lanes)):
                    self.store(self.get(to), self.load(self.get(place)))
                    self.set(to, self.offset(self.get(to), self.width))
                    self.set(place, self.offset(self.get(place), self.width))
                self.store(self.offset(start, size, -self.width), self.load(self.offset(source, size, -self.width)))
            with few:
                self._copy_few(start, source, count, size, self.lanes // 2)
        self.set(to, self.offset(start, size))
        self.set(place, self.offset(source, size))

    def _copy_few(self, to: Any, source: Any, count: Any, size: Any, lanes: int) -> None:
        """Fewer than ``2 lanes`` elements: the first and the last ``lanes``, or as many as there are of half of them."""
        if not lanes:
            return
        part = Emitter(self.builder, self.kind, lanes, False)
        with self.builder.if_else(self.builder.icmp_signed(">=", count, self.constant(lanes))) as (enough, fewer):
            with enough:
                first, last = part.load(source), part.load(self.offset(source, size, -part.width))
                part.store(to, first)
                part.store(self.offset(to, size, -part.width), last)
            with fewer:
                self._copy_few(to, source, count, size, lanes // 2)

    def fill(self, to: Any, value: Any, count: Any) -> None:
        """Write ``count`` elements of ``value`` to the address held in a variable, which advances."""
        for lanes in (self.lanes, 1):
            vector = Emitter(self.builder, self.kind, lanes, False)
            many = vector.spread(value)
            with self.loop(self.quotient(count, lanes) if lanes > 1 else self.remainder(count, self.lanes)):
                vector.store(self.get(to), many)
                self.set(to, self.offset(self.get(to), vector.width))

    def mapped(self, to: Any, table: Any, row: Any, fill: Any, count: Any) -> None:
        """Write ``count`` elements of a row through a table of its columns, ``fill`` where it holds -1; both variables advance."""
        build = self.builder
        with self.loop(count):
            column = self.load_integer(self.get(table))
            outside = build.icmp_signed("<", column, self.constant(0))
            at = build.select(outside, self.constant(0), column)
            value = build.select(outside, fill, self.load_scalar(self.offset(row, self.times(at, self.itemsize))))
            self.store_scalar(self.get(to), value)
            self.set(to, self.offset(self.get(to), self.itemsize))
            self.set(table, self.offset(self.get(table), 8))


def outlined(builder: Any, name: str, arguments: Sequence[Any], body: Callable[[Any, Sequence[Any]], None]) -> None:
    """Call ``body(builder, arguments)`` as a function of the module: a loop of many addresses that shares no registers with its caller.

    Within a kernel such a loop's addresses are kept on the stack, and reading them waits for earlier stores whose addresses end alike: rows
    of 56 pixels were split in 18 ns instead of 6 (one core, Emerald Rapids, 2026-11).
    """
    module = builder.module
    if name not in module.globals:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments]), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        inner = ir.IRBuilder(function.append_basic_block("entry"))
        body(inner, function.args)
        inner.ret_void()
    builder.call(module.globals[name], arguments)


def literal(argument: Any) -> Any:
    """The Python value of a literal Numba type, or of a tuple of them."""
    if isinstance(argument, types.BaseTuple):
        return tuple(literal(part) for part in argument.types)  # type: ignore[attr-defined]
    return argument.literal_value
