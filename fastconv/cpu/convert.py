"""convert: elements of other types, loaded as a kernel's own floats or integers and stored from them.

Conversions are NumPy's: to float exactly or rounded to nearest; to integers as the problem rounds, or as C converts: the whole part,
beyond the type the low bits of a 32-bit integer (64-bit for 64 bits), which holds its least value where it does not hold the float.
No conversion calls a library.
"""

from __future__ import annotations

import functools
from typing import Any

from numba import types
from numba.extending import intrinsic

from .compile import magic
from .simd import KINDS, Emitter, literal

# name of an integer type -> kind of its bits, whether it has a sign
INTEGERS = {
    "b8": ("i8", False),
    **{f"{sign}{bits}": (f"i{bits}", sign == "i") for sign in "iu" for bits in (8, 16, 32, 64)},
}
LOADED = (*INTEGERS, "f16", "bf16", "f32", "f64")  # as f32 or f64; bfloat16 as f32 only
STORED = tuple(name for name in LOADED if name != "b8")  # from f32 or f64; float16 and bfloat16 from f32 only
_SPREAD = 4  # vectors of a turn
_HALF_INFINITY, _HALF_NAN = 0x7C00, 0x7E00


@functools.cache
def converts_half() -> bool:
    """Whether the processor converts float16; elsewhere LLVM would call a library."""
    triple, _, features = magic()
    return triple.startswith(("aarch64", "arm64")) or "+f16c" in features.split(",")


def converts_beyond() -> bool:
    """Whether floats beyond 32 bits, made integers, are at least 2^31 without a sign: x86-64 has one number for all of them."""
    return magic()[0].startswith("x86_64")


@functools.cache
def adds_products_of_bytes() -> bool:
    """Whether the processor adds four products of bytes to 32 bits in one instruction, in vectors of 512 bits."""
    triple, _, features = magic()
    return triple.startswith("x86_64") and "+avx512vnni" in features.split(",")


def dot_way(bits: int, signed: bool) -> str:
    """How `Emitter.dot_add` adds products in vectors of so many bits; ``signed``: of bytes that all have a sign on one side."""
    triple, _, features = magic()
    if not triple.startswith(("x86_64", "i686")):
        return "halves"
    on = set(features.split(","))
    vnni = "+avx512vnni" in on if bits == 512 else {"+avx512vnni", "+avx512vl"} <= on or "+avxvnni" in on
    if not vnni:
        return "pairs"
    return "bytes" if signed else "words"


def stored_bytes(name: str) -> int:
    """Bytes of one element of a stored type."""
    if name == "bf16":
        return 2
    return KINDS[INTEGERS[name][0] if name in INTEGERS else name][2]


def load_as(emit: Emitter, name: str, address: Any) -> Any:
    """``lanes`` consecutive elements of type ``name``, one of ``LOADED``, as the emitter's kind; to integers only from integers."""
    build = emit.builder
    if name in INTEGERS:
        kind, signed = INTEGERS[name]
        bits = emit.of(kind).load(address)
        if not emit.floating:
            return _resized(emit, bits, signed)
        if kind in ("i8", "i16"):
            bits, signed = _resized(emit.of("i32"), bits, signed), True
        return build.sitofp(bits, emit.vector) if signed else build.uitofp(bits, emit.vector)
    if name == emit.kind:
        return emit.load(address)
    if name == "bf16":
        assert emit.kind == "f32", "bfloat16 is summed in float32"
        words = build.zext(emit.of("i16").load(address), emit.of("i32").vector)
        return emit.values(build.shl(words, emit.of("i32").number(16)))
    if name != "f16":
        value = emit.of(name).load(address)
        return build.fpext(value, emit.vector) if emit.itemsize == 8 else build.fptrunc(value, emit.vector)
    single = emit.of("f32")
    value = build.fpext(emit.of("f16").load(address), single.vector) if converts_half() else _widened(single, address)
    return value if emit.kind == "f32" else build.fpext(value, emit.vector)


def store_as(emit: Emitter, name: str, rounding: str, address: Any, value: Any) -> None:
    """``lanes`` consecutive elements of type ``name``, one of ``STORED``, from the emitter's kind, as `converted`."""
    part, value = converted(emit, name, rounding, value)
    part.store(address, value)


def converted(emit: Emitter, name: str, rounding: str, value: Any) -> tuple[Emitter, Any]:
    """A vector of the emitter's kind as elements of type ``name``, one of ``STORED``, and the emitter of these.

    ``rounding`` into an integer is ``saturate``, ``half_up`` or "" (as C converts); integers wrap.
    """
    build = emit.builder
    if name in INTEGERS:
        part = emit.of(INTEGERS[name][0])
        if not emit.floating:
            return part, _resized(part, value, INTEGERS[name][1])
        value = _rounded(emit, name, rounding, value) if rounding else _truncated(emit, name, value)
        return part, _resized(part, value, True)
    if name == emit.kind:
        return emit, value
    if name == "bf16":
        assert emit.kind == "f32", "bfloat16 is stored from float32"
        return emit.of("i16"), _upper_half(emit, value)
    part = emit.of(name)
    if not emit.floating:
        return part, build.sitofp(value, part.vector)
    if name == "f16":
        assert emit.kind == "f32", "float64 to float16 would round twice"
        return (part, build.fptrunc(value, part.vector)) if converts_half() else (emit.of("i16"), _narrowed(emit, value))
    return part, build.fpext(value, part.vector) if part.itemsize == 8 else build.fptrunc(value, part.vector)


def _resized(to: Emitter, bits: Any, signed: bool) -> Any:
    """Integers in an integer kind: extended, or the low bits."""
    width = bits.type.element.width
    if width == 8 * to.itemsize:
        return bits
    if width > 8 * to.itemsize:
        return to.builder.trunc(bits, to.vector)
    return to.builder.sext(bits, to.vector) if signed else to.builder.zext(bits, to.vector)


def _limits(name: str) -> tuple[int, int]:
    kind, signed = INTEGERS[name]
    bits = 8 * KINDS[kind][2]
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def _truncated(emit: Emitter, name: str, value: Any) -> Any:
    """The whole part as integers of 32 bits, or 64 for a type of 64."""
    build, wide = emit.builder, emit.of("i64" if name[1:] == "64" else "i32")
    if name == "u32":  # through 64 bits, as C on x86-64 does it: what does not fit wraps
        return build.trunc(build.fptosi(value, emit.of("i64").vector), wide.vector)
    low = build.fptosi(value, wide.vector)
    if name != "u64":
        return low
    half = 2 ** (8 * wide.itemsize - 1)
    high = build.xor(build.fptosi(build.fsub(value, emit.number(half)), wide.vector), wide.number(-half))
    return build.select(build.fcmp_ordered(">=", value, emit.number(half)), high, low)


def _rounded(emit: Emitter, name: str, rounding: str, value: Any) -> Any:
    """Rounded, clipped, NaN made 0: as 32-bit integers."""
    build, wide = emit.builder, emit.of("i32")
    least, most = _limits(name)
    assert most < 2**31, f"no rounding into {name}"
    signed, exact = least < 0, most < 2**24 or emit.kind == "f64"
    if signed:
        value = build.select(build.fcmp_ordered("ord", value, value), value, emit.number(0))
    if rounding == "half_up":
        value = build.fadd(value, emit.number(1 / 2))
    if rounding == "saturate" and not signed and emit.width == 64 and converts_beyond():
        # what is too large becomes 2^31, and one instruction cuts it as it narrows
        whole = emit.call("llvm.lrint", build.select(build.fcmp_ordered(">", value, emit.number(0)), value, emit.number(0)), result=wide)
        return build.select(build.icmp_unsigned("<", whole, wide.number(most)), whole, wide.number(most))
    low, high = emit.number(least), emit.number(most if exact else 2**31 - 2**7)
    inside = build.select(build.fcmp_ordered(">", value, low), value, low)  # NaN becomes the least of an unsigned type
    inside = build.select(build.fcmp_ordered("<", inside, high), inside, high)
    if rounding == "saturate":
        whole = emit.call("llvm.lrint", inside, result=wide)
    else:
        whole = build.fptosi(inside, wide.vector)
        if signed:  # down, where that went up
            above = build.fcmp_ordered(">", build.sitofp(whole, emit.vector), inside)
            whole = build.add(whole, build.sext(above, wide.vector))
    if exact:
        return whole
    return build.select(build.fcmp_ordered(">=", value, emit.number(2**31)), wide.number(most), whole)


def rounded_between(emit: Emitter, name: str, value: Any, low: Any, high: Any, zero: Any) -> tuple[Emitter, Any]:
    """Floats, NaN made 0, clipped, rounded half to even, plus ``zero``, as integers of 8 or 16 bits; all bounds are whole or within 2^24.

    ``low`` and ``high`` lie within the type less ``zero``.
    """
    build, wide, part = emit.builder, emit.of("i32"), emit.of(INTEGERS[name][0])
    value = build.select(build.fcmp_ordered("ord", value, value), value, emit.number(0))
    value = build.select(build.fcmp_ordered(">", value, low), value, low)
    value = build.select(build.fcmp_ordered("<", value, high), value, high)
    whole = build.add(emit.call("llvm.lrint", value, result=wide), build.fptosi(zero, wide.vector))
    return part, build.trunc(whole, part.vector)


def _widened(single: Emitter, address: Any) -> Any:
    """float16 to float32 with integer operations: the exponent is adjusted by a product, which is exact for subnormals too."""
    build, wide = single.builder, single.of("i32")
    bits = build.zext(single.of("i16").load(address), wide.vector)
    magnitude = build.and_(bits, wide.number(0x7FFF))
    scaled = build.fmul(single.values(build.shl(magnitude, wide.number(13))), single.number(2**112))
    special = build.icmp_unsigned(">=", magnitude, wide.number(_HALF_INFINITY))
    exponent = build.select(special, wide.number(0x7F800000), wide.number(0))
    sign = build.shl(build.and_(bits, wide.number(0x8000)), wide.number(16))
    return single.values(build.or_(build.or_(build.bitcast(scaled, wide.vector), exponent), sign))


def _narrowed(single: Emitter, value: Any) -> Any:
    """float32 to float16, to nearest even, with integer operations; subnormals are rounded by an addition that shifts them into place."""
    build, wide, half = single.builder, single.of("i32"), single.of("i16")
    bits = build.bitcast(value, wide.vector)
    sign = build.and_(bits, wide.number(-(2**31)))
    magnitude = build.xor(bits, sign)
    shift = wide.number(126 << 23)  # 0.5, whose last bit is worth the least subnormal
    small = build.sub(build.bitcast(build.fadd(single.values(magnitude), single.values(shift)), wide.vector), shift)
    odd = build.and_(build.lshr(magnitude, wide.number(13)), wide.number(1))
    normal = build.lshr(build.add(build.add(magnitude, wide.number(((15 - 127) << 23) + 0xFFF)), odd), wide.number(13))
    nan = build.icmp_unsigned(">", magnitude, wide.number(0x7F800000))
    special = build.select(nan, wide.number(_HALF_NAN), wide.number(_HALF_INFINITY))
    result = build.select(build.icmp_unsigned("<", magnitude, wide.number(113 << 23)), small, normal)
    result = build.select(build.icmp_unsigned(">=", magnitude, wide.number(143 << 23)), special, result)
    return build.trunc(build.or_(result, build.lshr(sign, wide.number(16))), half.vector)


def _upper_half(single: Emitter, value: Any) -> Any:
    """float32 to bfloat16, to nearest even, with integer operations; NaN keeps its sign and becomes quiet."""
    build, wide, half = single.builder, single.of("i32"), single.of("i16")
    words = build.bitcast(value, wide.vector)
    upper = build.lshr(words, wide.number(16))
    odd = build.and_(upper, wide.number(1))
    rounded = build.lshr(build.add(words, build.add(odd, wide.number(0x7FFF))), wide.number(16))
    quiet = build.or_(build.and_(upper, wide.number(0x8000)), wide.number(0x7FC0))
    return build.trunc(build.select(build.fcmp_ordered("ord", value, value), rounded, quiet), half.vector)


def _spread(emit: Emitter, count: Any, sizes: tuple[int, int], starts: tuple[Any, Any], move: Any) -> None:
    """``move(part, to, source)`` for every ``part.lanes`` of ``count`` elements; the last vector overlaps the one before.

    Fewer elements than one vector's go in the largest halves that they fill, overlapped likewise.
    """
    lanes = emit.lanes
    if not lanes:
        return
    build = emit.builder

    def places(element: Any) -> list[Any]:
        return [emit.offset(start, emit.times(element, size)) for start, size in zip(starts, sizes, strict=True)]

    with build.if_else(build.icmp_signed(">=", count, emit.constant(lanes))) as (enough, fewer):
        with enough:
            at, several = emit.variable(emit.constant(0)), _SPREAD * lanes
            with emit.loop(emit.quotient(count, several)):
                for vec in range(_SPREAD):
                    move(emit, *places(emit.offset(emit.get(at), vec * lanes)))
                emit.set(at, emit.offset(emit.get(at), several))
            with emit.loop(emit.quotient(build.sub(count, emit.get(at)), lanes)):
                move(emit, *places(emit.get(at)))
                emit.set(at, emit.offset(emit.get(at), lanes))
            if lanes > 1:
                move(emit, *places(emit.offset(count, -lanes)))
        with fewer:
            if lanes > 1:
                _spread(emit.of(emit.kind, lanes // 2), count, sizes, starts, move)


def copy_as(emit: Emitter, name: str, to: Any, source: Any, count: Any, flip: int = 0) -> None:
    """``count`` elements of type ``name`` to elements of the emitter's kind; reads and writes nothing else.

    Of integers the bits of ``flip`` are flipped.
    """

    def move(part: Emitter, to: Any, source: Any) -> None:
        value = load_as(part, name, source)
        part.store(to, part.builder.xor(value, part.number(flip)) if flip else value)

    _spread(emit, count, (emit.itemsize, stored_bytes(name)), (to, source), move)


def mapped_as(emit: Emitter, name: str, to: Any, table: Any, row: Any, fill: Any, count: Any) -> None:
    """``count`` elements of a row of type ``name`` through a table of its columns, ``fill`` where it holds -1, to the emitter's kind."""
    build, one = emit.builder, emit.of(emit.kind, 1)
    to, table, outer = emit.variable(to), emit.variable(table), one.spread(fill)
    with emit.loop(count):
        column = emit.load_integer(emit.get(table))
        outside = build.icmp_signed("<", column, emit.constant(0))
        at = build.select(outside, emit.constant(0), column)
        value = load_as(one, name, emit.offset(row, emit.times(at, stored_bytes(name))))
        one.store(emit.get(to), build.select(outside, outer, value))
        emit.set(to, emit.offset(emit.get(to), emit.itemsize))
        emit.set(table, emit.offset(emit.get(table), 8))


@intrinsic(prefer_literal=True)
def store_row(typing_context: Any, kind: Any, lanes: Any, name: Any, rounding: Any, dst: Any, src: Any, count: Any) -> Any:
    """``store_row(kind, lanes, name, rounding, dst, src, count)``: ``count`` elements of ``kind`` stored as `store_as` does."""
    chosen, width, stored, rule = literal(kind), literal(lanes), literal(name), literal(rounding)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, chosen, width, False)

        def move(part: Emitter, to: Any, source: Any) -> None:
            store_as(part, stored, rule, to, part.load(source))

        _spread(emit, arguments[6], (stored_bytes(stored), emit.itemsize), (arguments[4], arguments[5]), move)
        return context.get_dummy_value()

    return types.void(kind, lanes, name, rounding, *[types.int64] * 3), codegen


@intrinsic(prefer_literal=True)
def quads(typing_context: Any, lanes: Any, step: Any, dst: Any, src: Any, count: Any) -> Any:
    """``quads(lanes, step, dst, src, count)``: ``count`` times 4 bytes, ``dst[4x + b] = src[x + b*step]``, ``3 step <= lanes``.

    Whole vectors: reads up to ``2 lanes`` bytes beyond the last, writes up to ``lanes`` times 4 bytes beyond.
    """
    width, between = literal(lanes), literal(step)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        few, many = (Emitter(builder, "i8", times * width, False) for times in (2, 4))
        to, place = few.variable(arguments[2]), few.variable(arguments[3])
        with few.loop(few.quotient(few.offset(arguments[4], width - 1), width)):
            pixels = few.load(few.get(place))
            many.store(few.get(to), few.pick(pixels, pixels, [x + b * between for x in range(width) for b in range(4)]))
            few.set(to, few.offset(few.get(to), many.width))
            few.set(place, few.offset(few.get(place), width))
        return context.get_dummy_value()

    return types.void(lanes, step, *[types.int64] * 3), codegen
