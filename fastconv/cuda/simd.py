"""simd: what the threads of a CUDA kernel do, written once and meant twice: as machine code, and in NumPy.

A kernel's body is one Python function ``body(e, spec, at, extents, values)``.  Compiled, ``e`` is an :class:`Emitter`, which writes
LLVM instructions into the function that Numba is building, and every number is a :class:`Value` with Python's operators.  In Numba's
simulator (``NUMBA_ENABLE_CUDASIM=1``) ``e`` is a :class:`fastconv.cuda.twin.Twin`, whose methods do the same in NumPy, for all threads of
a block at once.  So the simulator runs the very loops, indices, borders and tails that are compiled; only what stands in the two classes
differs, method by method.  This is the file with instructions; beside it only value.py, a number's operators, and arithmetic.py, what is
done with numbers in registers, import llvmlite.

Integers are 32 bits wide except addresses and what is made so by `i64`; an operation on both widths gives 64.  Ints that stand for a
run-time division are not negative.  Tiles are lists of numbers, which the compiler keeps in registers, since no index is a run-time one.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .arithmetic import SIZES, Arithmetic, type_of
from .value import Value

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
VECTOR = 16  # bytes of the widest load and store of a thread

Step = Callable[[list[Any]], list[Any]]
_MAGIC = 0x4B000000  # the bits of 2.0**23: a number below 2**16 in its low bits is that number added


class Emitter(Arithmetic):
    """Instructions of one thread, as LLVM IR."""

    simulated = False

    # tensor cores

    def warp_products(
        self, factor: str, a: Value, b: Value, pitches: tuple[int, int], extents: tuple[int, int], sums: list[Value]
    ) -> list[Value]:
        """Add ``sum_k a[k][i] b[k][j]`` to the warp's sums, on tensor cores; ``a`` and ``b`` are 8 rows of words in shared memory,
        ``pitches`` apart: of ``tf32`` a number of `tf32` each, of ``f16`` and ``bf16`` two, one behind the other in k.

        Of each 16 x 8 sums a thread has rows ``lane / 4`` and 8 more, columns ``lane % 4 * 2`` and the next.
        """
        m, n = pitches
        lane = self.thread("x") & 31
        deep, across = lane & 3, lane >> 2
        # at, and 4 rows of k further down
        left, right = a + (deep * m + across) * 4, b + (deep * n + across) * 4
        rows, columns = extents[0] // 16, extents[1] // 8

        def operands(base: Value, pitch: int, offsets: tuple[int, ...]) -> list[Value]:
            words = [self._words("f32", base + 4 * (offset + 4 * pitch * far), 1, 3)[0] for far in (0, 1) for offset in offsets]
            return [self.value(self.builder.bitcast(word.register, ir.IntType(32))) for word in words]

        tiles = [operands(left, m, (16 * i, 16 * i + 8)) for i in range(rows)]
        pixels = [operands(right, n, (8 * j,)) for j in range(columns)]
        sums = list(sums)
        width = 2 * columns
        for i in range(rows):
            for j in range(columns):
                places = [(2 * i + half) * width + 2 * j + k for half in (0, 1) for k in (0, 1)]
                for place, total in zip(places, self._mma(factor, tiles[i], pixels[j], [sums[place] for place in places]), strict=True):
                    sums[place] = total
        return sums

    def _mma(self, factor: str, a: list[Value], b: list[Value], sums: list[Value]) -> list[Value]:
        """Four sums of a thread of 16 x 8 of its warp, and the products of four words of one operand and two of the other."""
        shape = "m16n8k8" if factor == "tf32" else "m16n8k16"
        text = (
            f"mma.sync.aligned.{shape}.row.col.f32.{factor}.{factor}.f32 {{$0,$1,$2,$3}}, {{$4,$5,$6,$7}}, {{$8,$9}}, {{$10,$11,$12,$13}};"
        )
        made = self._asm(ir.LiteralStructType([ir.FloatType()] * 4), text, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f", [*a, *b, *sums])
        return [self.value(self.builder.extract_value(made.register, part)) for part in range(4)]

    # threads

    def thread(self, axis: str) -> Value:
        """The thread's index in its block."""
        return self.value(self._call(f"llvm.nvvm.read.ptx.sreg.tid.{axis}", ir.IntType(32), []))

    def block(self, axis: str) -> Value:
        """The block's index in the grid."""
        return self.value(self._call(f"llvm.nvvm.read.ptx.sreg.ctaid.{axis}", ir.IntType(32), []))

    def barrier(self) -> None:
        """All threads of the block have come here, and see what the others wrote to shared memory."""
        self._call("llvm.nvvm.barrier0", ir.VoidType(), [])

    # control

    def loop(self, count: Any, values: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """``values = body(i, values)`` for i in ``0 .. count - 1``; a loop of run-time length, not unrolled here."""
        build = self.builder
        counter = ir.IntType(32)
        before, start = build.block, build.append_basic_block("loop")
        inside, end = build.append_basic_block("loop.body"), build.append_basic_block("loop.end")
        build.branch(start)
        build.position_at_end(start)
        i = build.phi(counter)
        i.add_incoming(ir.Constant(counter, 0), before)
        places = []
        for value in values:
            place = build.phi(value.register.type)
            place.add_incoming(value.register, before)
            places.append(place)
        build.cbranch((self.value(i) < self.i32(count)).register, inside, end)
        build.position_at_end(inside)
        after = body(self.value(i), [self.value(place) for place in places])
        i.add_incoming(build.add(i, ir.Constant(counter, 1)), build.block)
        for place, value in zip(places, after, strict=True):
            place.add_incoming(value.register, build.block)
        build.branch(start)
        build.position_at_end(end)
        return [self.value(place) for place in places]

    def when(self, condition: Any, values: list[Any], body: Step, other: Step | None = None) -> list[Any]:
        """``body(values)`` where the condition holds, else ``other(values)``, else the values themselves; a branch."""
        build = self.builder
        first, end = build.append_basic_block("when"), build.append_basic_block("when.end")
        second = build.append_basic_block("when.other") if other is not None else end
        results = []
        before = build.block
        build.cbranch(condition.register, first, second)
        if other is None:
            results.append((before, values))
        for place, function in ((first, body), (second, other)):
            if function is not None:
                build.position_at_end(place)
                after = function(values)
                results.append((build.block, after))
                build.branch(end)
        build.position_at_end(end)
        merged = []
        for parts in zip(*[result for _, result in results], strict=True):
            phi = build.phi(parts[0].register.type)
            for (place, _), part in zip(results, parts, strict=True):
                phi.add_incoming(part.register, place)
            merged.append(self.value(phi))
        return merged

    # memory

    def _pointer(self, address: Value, pointee: Any, space: int) -> Any:
        return self.builder.inttoptr(address.register, pointee.as_pointer(space))

    def load(self, stored: str, acc: str, address: Value, count: int) -> list[Value]:
        """``count`` elements as sums take them, in loads of 16 bytes where they fill some; ``address`` is a multiple of these.

        Global memory that no thread writes: ``ld.global.nc``.
        """
        return self._converted(stored, acc, self._words(stored, address, count, 1))

    def load_own(self, stored: str, acc: str, address: Value) -> Value:
        """An element of memory that this thread writes later, and no other does."""
        (value,) = self._converted(stored, acc, self._words(stored, address, 1, 0))
        return value

    def _words(self, stored: str, address: Value, count: int, space: int) -> list[Value]:
        """Elements of 4 and 8 bytes; smaller ones as words of 32 bits that hold several, or alone, extended."""
        size = SIZES[stored]
        element = type_of(stored) if size >= 4 else ir.IntType(32 if size * count >= 4 else 8 * size * count)
        width = max(size, min(4, size * count))
        words, step = [], min(VECTOR, size * count) // width
        for first in range(0, size * count // width, step):
            vector = ir.VectorType(element, step) if step > 1 else element
            read = self.builder.load(self._pointer(address + first * width, vector, space), align=step * width)
            if space == 1:
                read.set_metadata("invariant.load", self.builder.module.add_metadata([]))
            parts = [read] if step == 1 else [self.builder.extract_element(read, ir.Constant(ir.IntType(32), n)) for n in range(step)]
            words += [self.value(part) for part in parts]
        return words

    def load_where(self, condition: Value, kind: str, address: Value) -> list[Value]:
        """Four words of 32 bits where a condition holds, else zeros: no branch, behind which the products would wait for them."""
        zeros = " ".join(f"mov.b32 ${n}, 0;" for n in range(4))
        text = f"{{.reg .pred p; setp.ne.u32 p, $5, 0; {zeros} @p ld.global.nc.v4.b32 {{$0, $1, $2, $3}}, [$4];}}"
        some = self.pick(condition, self.i32(1), 0)
        made = self._asm(ir.LiteralStructType([ir.IntType(32)] * 4), text, "=r,=r,=r,=r,l,r", [address, some])
        parts = [self.value(self.builder.extract_value(made.register, n)) for n in range(4)]
        return [self._bits(kind, part) for part in parts]

    def copy(self, shared: Value, address: Value, size: int) -> None:
        """Begin to copy 4 or 16 bytes of global into shared memory, past registers; both addresses are multiples of ``size`` (sm_80)."""
        way = "cg" if size == VECTOR else "ca"
        self._asm(ir.VoidType(), f"cp.async.{way}.shared.global [$0], [$1], {size};", "r,l,~{memory}", [shared, address], True)

    def arrived(self) -> None:
        """Wait for what this thread copies; other threads see it behind the next barrier."""
        self._asm(ir.VoidType(), "cp.async.wait_all;", "~{memory}", [], True)

    def words(self, address: Value, count: int) -> list[Value]:
        """``count`` words of 32 bits, a multiple of 4, from an address that is a multiple of 16: bytes to be `aligned`."""
        return self._words("i32", address, count, 1)

    def aligned(self, words: list[Value], offset: Value, size: int) -> list[Value]:
        """The words that start ``offset`` bytes, below 16, behind the first of ``words``: 3 or 4 fewer; a multiple of ``size``."""
        for step in (2, 1):
            far = (offset & 4 * step) > 0
            words = [self.pick(far, words[n + step], words[n]) for n in range(len(words) - step)]
        if size >= 4:
            return words
        bits = (offset & 3) * 8
        text = "shf.r.wrap.b32 $0, $1, $2, $3;"
        return [self._asm(ir.IntType(32), text, "=r,r,r,r", [a, b, bits]) for a, b in itertools.pairwise(words)]

    def elements(self, stored: str, acc: str, words: list[Value], count: int) -> list[Value]:
        """The first ``count`` elements in words of 32 bits, as sums take them."""
        if SIZES[stored] == 8:
            pairs = [self._both(words[2 * n], words[2 * n + 1]) for n in range(count)]
            return [self.convert(stored, acc, self._bits(stored, pair)) for pair in pairs]
        if SIZES[stored] == 4:
            return [self.convert(stored, acc, self._bits(stored, word)) for word in words[:count]]
        return self._converted(stored, acc, words)[:count]

    def _both(self, low: Value, high: Value) -> Value:
        return self._asm(ir.IntType(64), "mov.b64 $0, {$1, $2};", "=l,r,r", [low, high])

    def _converted(self, stored: str, acc: str, words: list[Value]) -> list[Value]:
        size = SIZES[stored]
        if size >= 4:
            return [self.convert(stored, acc, word) for word in words]
        values = []
        for word in words:
            for n in range(max(word.register.type.width // (8 * size), 1)):
                values.append(self._element(stored, acc, word, n))
        return values

    def _element(self, stored: str, acc: str, word: Value, n: int) -> Value:
        """Element ``n`` of a word, converted; small integers to float32 without a conversion, which few units can do."""
        size = SIZES[stored]
        small = ir.IntType(8 * size)
        if (stored, acc) == ("bf16", "f32") and word.register.type.width == 32:
            return self._bits(acc, word & -0x10000) if n else self._widened(word)
        if acc == "f32" and stored != "f16" and word.register.type.width == 32:
            low = -(1 << (8 * size - 1)) if stored[0] == "i" else 0
            if low:
                word = word ^ (0x80808080 if size == 1 else 0x80008000) - (1 << 32)
            # bytes 4 to 6 of the pair are zero, 7 is the exponent's
            selector = 0x7440 | n if size == 1 else 0x7400 | (2 * n + 1) << 4 | 2 * n
            bits = self.permute(word, _MAGIC, selector)
            number = self.builder.bitcast(bits.register, ir.FloatType())
            return self.value(number) - (2.0**23 - low)
        part = word.register
        if part.type.width > 8 * size:
            part = self.builder.trunc(self.builder.lshr(part, ir.Constant(part.type, 8 * size * n)), small)
        return self.convert(stored, acc, self.value(self.builder.bitcast(part, ir.HalfType()) if stored == "f16" else part))

    def store(self, dst: str, address: Value, values: list[Value]) -> None:
        """Elements of type ``dst``, in stores of 16 bytes where they fill some; ``address`` is a multiple of these."""
        self._store(dst, address, values, 1)

    def _store(self, dst: str, address: Value, values: list[Value], space: int) -> None:
        size = SIZES[dst]
        step = min(VECTOR // size, len(values))
        if size < 4 and len(values) * size >= 4:
            values = self._packed(values, size)
            dst, size = "i32", 4
            step = min(VECTOR // size, len(values))
        for first in range(0, len(values), step):
            registers = [value.register for value in values[first : first + step]]
            if step > 1:
                vector = ir.Constant(ir.VectorType(registers[0].type, step), ir.Undefined)
                for n, register in enumerate(registers):
                    vector = self.builder.insert_element(vector, register, ir.Constant(ir.IntType(32), n))
                registers = [vector]
            pointer = self._pointer(address + first * size, registers[0].type, space)
            self.builder.store(registers[0], pointer, align=step * size)

    def _packed(self, values: list[Value], size: int) -> list[Value]:
        """Elements of 1 or 2 bytes as words of 32 bits."""
        bits, build = ir.IntType(8 * size), self.builder
        wide = [build.zext(build.bitcast(value.register, bits), ir.IntType(32)) for value in values]
        while size < 4:
            wide = [build.or_(a, build.shl(b, ir.Constant(ir.IntType(32), 8 * size))) for a, b in zip(wide[::2], wide[1::2], strict=True)]
            size *= 2
        return [self.value(word) for word in wide]

    def shared(self) -> Value:
        """The address of the block's shared memory, which is 16-byte aligned and as large as the launch says."""
        module, kind = self.builder.module, ir.ArrayType(ir.IntType(8), 0)
        memory = module.globals.get("fastconv_shared")
        if memory is None:
            memory = ir.GlobalVariable(module, kind, "fastconv_shared", 3)
            memory.linkage, memory.align = "external", VECTOR
        return self.value(self.builder.ptrtoint(memory, ir.IntType(32)))

    def shared_load(self, kind: str, address: Value, count: int) -> list[Value]:
        """``count`` elements of 4 or 8 bytes of shared memory."""
        return self._words(kind, address, count, 3)

    def shared_anew(self, address: Value) -> Value:
        """A word of 32 bits of shared memory, known no sooner than here: unlike `anew`, the assembler does not see through it either, nor
        bring it forward over a barrier.
        """
        return self._asm(ir.IntType(32), "ld.volatile.shared.b32 $0, [$1];", "=r,r,~{memory}", [address], True)

    def shared_store(self, kind: str, address: Value, values: list[Value]) -> None:
        """Elements of 4 or 8 bytes into shared memory."""
        self._store(kind, address, values, 3)
