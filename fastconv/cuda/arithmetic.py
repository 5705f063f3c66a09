"""arithmetic: what a thread of a CUDA kernel does with numbers in registers, as LLVM instructions: simd.py's emitter less memory."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .value import Value

SIZES = {
    "b8": 1, "i8": 1, "u8": 1, "i16": 2, "u16": 2, "f16": 2, "bf16": 2, "i32": 4, "u32": 4, "f32": 4, "i64": 8, "u64": 8, "f64": 8,
}  # fmt: skip
FLOATS = ("f16", "bf16", "f32", "f64")


def type_of(kind: str) -> Any:
    """LLVM's type of a kind; integers of either sign are the same, and bfloat16 is its bits."""
    if kind in ("f16", "f32", "f64"):
        return {"f16": ir.HalfType, "f32": ir.FloatType, "f64": ir.DoubleType}[kind]()
    return ir.IntType(8 * SIZES[kind])


class Arithmetic:
    """Constants, arithmetic, choices and conversions.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
    """

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def value(self, register: Any) -> Value:
        """An LLVM value as a number."""
        return Value(self.builder, register)

    def number(self, kind: str, value: float) -> Value:
        """A constant."""
        if kind == "bf16":
            return self.convert("f32", kind, self.number("f32", value))
        return self.value(ir.Constant(type_of(kind), float(value) if kind in FLOATS else int(value)))

    def i64(self, x: Any) -> Value:
        """A number made 64 bits wide, with its sign."""
        if not isinstance(x, Value):
            return self.number("i64", x)
        return x if x.register.type.width == 64 else self.value(self.builder.sext(x.register, ir.IntType(64)))

    def i32(self, x: Any) -> Value:
        """The low 32 bits of a number that fits."""
        if not isinstance(x, Value):
            return self.number("i32", x)
        return x if x.register.type.width == 32 else self.value(self.builder.trunc(x.register, ir.IntType(32)))

    def below(self, address: Value, size: int) -> Value:
        """An address modulo a power of two, in 32 bits."""
        return self.value(self.builder.trunc(address.register, ir.IntType(32))) & size - 1

    def anew(self, x: Any) -> Value:
        """The same 32-bit number, as one that the compiler cannot know: what is made of it is made here, not kept in registers."""
        return self._asm(ir.IntType(32), "mov.b32 $0, $1;", "=r,r", [self.i32(x)], True)

    def pick(self, condition: Any, a: Any, b: Any) -> Value:
        """``a`` where the condition holds, else ``b``; neither is a branch."""
        a, b = self._alike(a, b)
        return self.value(self.builder.select(condition.register, a.register, b.register))

    def _alike(self, a: Any, b: Any) -> tuple[Value, Value]:
        if not isinstance(a, Value):
            b, a = self._alike(b, a)
            return a, b
        first, second = a._pair(b)
        return self.value(first), self.value(second)

    def least(self, a: Any, b: Any) -> Value:
        """The smaller of two."""
        a, b = self._alike(a, b)
        return self.pick(a < b, a, b)

    def most(self, a: Any, b: Any) -> Value:
        """The larger of two."""
        a, b = self._alike(a, b)
        return self.pick(a > b, a, b)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """``a b + c``; of floats rounded once."""
        if not a.floating:
            return a * b + c
        kind = a.register.type
        name = "llvm.fma.f32" if isinstance(kind, ir.FloatType) else "llvm.fma.f64"
        return self.value(self._call(name, kind, [a, b, c]))

    def times(self, a: Value, b: Value) -> Value:
        """``a b``, which no later addition is fused with."""
        return self._exactly("mul", a, b)

    def plus(self, a: Value, b: Value) -> Value:
        """``a + b``, which no product is fused with."""
        return self._exactly("add", a, b)

    def _exactly(self, name: str, a: Value, b: Value) -> Value:
        kind = a.register.type
        width, letter = ("f32", "f") if isinstance(kind, ir.FloatType) else ("f64", "d")
        return self._asm(kind, f"{name}.rn.{width} $0, $1, $2;", f"={letter},{letter},{letter}", [a, b])

    def dot(self, a: Value, b: Value, c: Value, signs: str) -> Value:
        """``c`` plus the products of the four bytes in each of two words, read as ``signs`` says: ``"us"`` is unsigned by signed."""
        names = {"u": "u32", "s": "s32"}
        text = f"dp4a.{names[signs[0]]}.{names[signs[1]]} $0, $1, $2, $3;"
        return self._asm(ir.IntType(32), text, "=r,r,r,r", [a, b, c])

    def tf32(self, x: Value) -> Value:
        """A float32 rounded to the 11 significant bits that tensor cores multiply."""
        kind = ir.FloatType()
        bits = self._asm(ir.IntType(32), "cvt.rna.tf32.f32 $0, $1;", "=r,f", [x])
        return self.value(self.builder.bitcast(bits.register, kind))

    def half_bits(self, kind: str, x: Value) -> Value:
        """The bits of a float32 rounded to ``f16`` or ``bf16``."""
        half = self.builder.bitcast(self.convert("f32", kind, x).register, ir.IntType(16))
        return self.value(self.builder.zext(half, ir.IntType(32)))

    def permute(self, a: Any, b: Any, selector: int) -> Value:
        """Four of the eight bytes of ``b:a``, named by the digits of ``selector``, the lowest first."""
        return self._asm(ir.IntType(32), f"prmt.b32 $0, $1, $2, {selector:#x};", "=r,r,r", [self.i32(a), self.i32(b)])

    def _asm(self, result: Any, text: str, constraints: str, arguments: list[Value], effect: bool = False) -> Value:
        registers = [argument.register for argument in arguments]
        kind = ir.FunctionType(result, [register.type for register in registers])
        return self.value(self.builder.asm(kind, text, constraints, registers, effect))

    def _call(self, name: str, result: Any, arguments: list[Value]) -> Any:
        registers = [argument.register for argument in arguments]
        kind, module = ir.FunctionType(result, [register.type for register in registers]), self.builder.module
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self.builder.call(function, registers)

    def convert(self, stored: str, acc: str, value: Value) -> Value:
        """A number of type ``stored`` in type ``acc``, as C converts it."""
        if stored == acc:
            return value
        if stored == "bf16":
            return self.convert("f32", acc, self._widened(self.value(self.builder.zext(value.register, ir.IntType(32)))))
        if acc == "bf16":
            return self._narrowed(self.convert(stored, "f32", value))
        a, b, build = type_of(stored), type_of(acc), self.builder
        register = value.register
        if stored in FLOATS and acc in FLOATS:
            return self.value((build.fpext if SIZES[stored] < SIZES[acc] else build.fptrunc)(register, b))
        if stored in FLOATS:
            wide = ir.IntType(max(32, 8 * SIZES[acc]))
            register = build.fptosi(register, wide)
            return self.value(register if wide == b else build.trunc(register, b))
        if acc in FLOATS:
            return self.value((build.sitofp if stored[0] == "i" else build.uitofp)(register, b))
        if a.width == b.width:
            return value
        return self.value((build.trunc if a.width > b.width else build.sext if stored[0] == "i" else build.zext)(register, b))

    def _widened(self, word: Value) -> Value:
        """The bfloat16 in the low half of a word, as float32."""
        return self._bits("f32", word << 16)

    def _narrowed(self, x: Value) -> Value:
        """A float32 as bfloat16, rounded to nearest even with integer operations; a NaN becomes a quiet one."""
        bits = self._bits("i32", x)
        near = self.pick(self.is_number(x), bits + ((bits >> 16 & 1) + 0x7FFF), bits | 0x400000)
        return self.value(self.builder.trunc((near >> 16).register, ir.IntType(16)))

    def _bits(self, stored: str, value: Value) -> Value:
        kind = type_of(stored)
        return value if kind == value.register.type else self.value(self.builder.bitcast(value.register, kind))

    def wrapped(self, acc: str, value: Value) -> Value:
        """An integer sum as its type of 8 or 16 bits holds it, in 32 bits."""
        return self.convert(acc, "i32", self.convert("i32", acc, value))

    def rounded(self, rounding: str, acc: str, dst: str, value: Value) -> Value:
        """A float as an integer of at most 32 bits: ``saturate`` half to even, ``half_up`` floor(x + 1/2); clipped, NaN made 0."""
        if rounding == "half_up":
            value = self.plus(value, self.number(acc, 0.5))
        if acc == "f64":  # of whose NaN the instruction makes the least integer, of float32's 0
            value = self.pick(self.is_number(value), value, self.number(acc, 0))
        names = {"i": "s", "u": "u"}
        mode, to = "rni" if rounding == "saturate" else "rmi", f"{names[dst[0]]}{8 * SIZES[dst]}"
        bits = self._asm(ir.IntType(32), f"cvt.{mode}.sat.{to}.{acc} $0, $1;", f"=r,{'f' if acc == 'f32' else 'd'}", [value])
        return self.convert("i32", dst, bits)

    def cut(self, acc: str, dst: str, value: Value) -> Value:
        """A float as an integer, as C converts it on x86-64: the whole part; of what does not fit 32 bits (64 bits of ``u32`` and types of
        64), and of NaN, the least of these, whose low bits are kept; of ``u64`` from 2**63 on the part above that.
        """
        bits = 64 if SIZES[dst] == 8 or dst == "u32" else 32
        half = 2.0 ** (bits - 1)
        low = self._whole(value, bits)
        if dst == "u64":
            low = self.pick(value >= half, self._whole(value - half, bits) ^ -(1 << 63), low)
        return self.convert(f"i{bits}", dst, low)

    def _whole(self, value: Value, bits: int) -> Value:
        """The whole part in so many bits, the least number where it does not fit."""
        half = 2.0 ** (bits - 1)
        inside = (value < half) & (value > -half - 1)
        whole = self.builder.fptosi(self.pick(inside, value, 0).register, ir.IntType(bits))
        return self.pick(inside, self.value(whole), -(1 << (bits - 1)))

    def is_number(self, x: Value) -> Value:
        """Whether a float is not NaN."""
        return self.value(self.builder.fcmp_ordered("ord", x.register, x.register))

    def quotient(self, a: Value, b: Value) -> Value:
        """``a / b``, rounded to nearest."""
        kind = a.register.type
        width, letter = ("f32", "f") if isinstance(kind, ir.FloatType) else ("f64", "d")
        return self._asm(kind, f"div.rn.{width} $0, $1, $2;", f"={letter},{letter},{letter}", [a, b])

    def root(self, x: Value) -> Value:
        """The square root, rounded to nearest."""
        kind = x.register.type
        width, letter = ("f32", "f") if isinstance(kind, ir.FloatType) else ("f64", "d")
        return self._asm(kind, f"sqrt.rn.{width} $0, $1;", f"={letter},{letter}", [x])

    def held(self, kind: str, x: Value) -> Value:
        """A number as its type holds it: registers hold no more."""
        return x

    def power(self, x: Value) -> Value:
        """``2**x`` of a whole float64 in -1022 .. 1023."""
        bits = self._whole(x, 64) + 1023 << 52
        return self.value(self.builder.bitcast(bits.register, ir.DoubleType()))

    def nearest(self, x: Value) -> Value:
        """The whole number next to a float, of two the even one."""
        kind = x.register.type
        width, letter = ("f32", "f") if isinstance(kind, ir.FloatType) else ("f64", "d")
        return self._asm(kind, f"cvt.rni.{width}.{width} $0, $1;", f"={letter},{letter}", [x])
