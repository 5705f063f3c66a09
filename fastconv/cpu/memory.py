"""memory: what kernel drivers do at addresses: scalars, rows, records of integers, atomic words, calls.

Addresses are 64-bit integers in bytes, of any alignment where nothing else is said.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .simd import I64, KINDS, Emitter, literal

_I32 = ir.IntType(32)


@intrinsic(prefer_literal=True)
def peek(typing_context: Any, kind: Any, address: Any) -> Any:
    """``peek(kind, address)``: the element at an address."""
    element, numba_type, _ = KINDS[literal(kind)]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[1], element.as_pointer()), align=1)

    return numba_type(kind, types.int64), codegen


@intrinsic(prefer_literal=True)
def poke(typing_context: Any, kind: Any, address: Any, value: Any) -> Any:
    """``poke(kind, address, value)``: store an element."""
    element, numba_type, _ = KINDS[literal(kind)]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], builder.inttoptr(arguments[1], element.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(kind, types.int64, numba_type), codegen


@intrinsic(prefer_literal=True)
def copy(typing_context: Any, kind: Any, lanes: Any, dst: Any, src: Any, count: Any) -> Any:
    """``copy(kind, lanes, dst, src, count)``: ``count`` elements; vectors, then one by one."""
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, name, width, False)
        emit.copy(emit.variable(arguments[2]), emit.variable(arguments[3]), arguments[4])
        return context.get_dummy_value()

    return types.void(kind, lanes, types.int64, types.int64, types.int64), codegen


@intrinsic(prefer_literal=True)
def copy_past(typing_context: Any, kind: Any, lanes: Any, dst: Any, src: Any, count: Any) -> Any:
    """``copy_past(kind, lanes, dst, src, count)``: as `copy`, whole vectors past the caches; ``dst`` is a multiple of a vector's bytes."""
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, name, width, False)
        to, place = emit.variable(arguments[2]), emit.variable(arguments[3])
        with emit.loop(emit.quotient(arguments[4], width)):
            emit.store_past(emit.get(to), emit.load(emit.get(place)))
            emit.set(to, emit.offset(emit.get(to), emit.width))
            emit.set(place, emit.offset(emit.get(place), emit.width))
        emit.copy(to, place, emit.remainder(arguments[4], width))
        return context.get_dummy_value()

    return types.void(kind, lanes, types.int64, types.int64, types.int64), codegen


@intrinsic(prefer_literal=True)
def copy_apart(typing_context: Any, kind: Any, lanes: Any, dst: Any, dst_step: Any, src: Any, src_step: Any, count: Any) -> Any:
    """``copy_apart(kind, lanes, dst, dst_step, src, src_step, count)``: ``count`` vectors, that many bytes between two of them."""
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dst, dst_step, src, src_step, count = arguments[2:]
        emit = Emitter(builder, name, width, False)
        to, place = emit.variable(dst), emit.variable(src)
        with emit.loop(count):
            emit.store(emit.get(to), emit.load(emit.get(place)))
            emit.set(to, emit.offset(emit.get(to), dst_step))
            emit.set(place, emit.offset(emit.get(place), src_step))
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 5), codegen


@intrinsic(prefer_literal=True)
def copy_asking(
    typing_context: Any, kind: Any, lanes: Any, dst: Any, dst_step: Any, src: Any, src_step: Any, count: Any, soon: Any
) -> Any:  # fmt: skip
    """`copy_apart`, which asks for the vectors ``soon`` bytes behind those that it reads."""
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dst, dst_step, src, src_step, count, soon = arguments[2:]
        emit = Emitter(builder, name, width, False)
        to, place = emit.variable(dst), emit.variable(src)
        with emit.loop(count):
            here = emit.get(place)
            emit.prefetch(emit.offset(here, soon))
            emit.store(emit.get(to), emit.load(here))
            emit.set(to, emit.offset(emit.get(to), dst_step))
            emit.set(place, emit.offset(here, src_step))
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 6), codegen


@intrinsic(prefer_literal=True)
def split(typing_context: Any, kind: Any, lanes: Any, even: Any, odd: Any, src: Any, count: Any) -> Any:
    """``split(kind, lanes, even, odd, src, count)``: elements 0, 2, ... and 1, 3, ... of a row, ``count`` of each.

    Whole vectors: reads up to ``2 lanes`` elements and writes up to ``lanes`` elements beyond the end.
    """
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, name, width, False)
        first, second, place = (emit.variable(argument) for argument in arguments[2:5])
        with emit.loop(emit.quotient(emit.offset(arguments[5], width - 1), width)):
            low = emit.load(emit.get(place))
            high = emit.load(emit.offset(emit.get(place), emit.width))
            emit.store(emit.get(first), emit.even(low, high))
            emit.store(emit.get(second), emit.odd(low, high))
            emit.set(first, emit.offset(emit.get(first), emit.width))
            emit.set(second, emit.offset(emit.get(second), emit.width))
            emit.set(place, emit.offset(emit.get(place), 2 * emit.width))
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 4), codegen


@intrinsic(prefer_literal=True)
def alternate(typing_context: Any, kind: Any, lanes: Any, dst: Any, even: Any, odd: Any, count: Any) -> Any:
    """``alternate(kind, lanes, dst, even, odd, count)``: what `split` takes apart, ``count`` elements of each row; none beyond."""
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit, one = Emitter(builder, name, width, False), Emitter(builder, name, 1, False)
        to, first, second = (emit.variable(argument) for argument in arguments[2:5])
        order = [side + lane for lane in range(width) for side in (0, width)]
        with emit.loop(emit.quotient(arguments[5], width)):
            low, high = emit.load(emit.get(first)), emit.load(emit.get(second))
            for n in range(2):
                emit.store(emit.offset(emit.get(to), n * emit.width), emit.pick(low, high, order[n * width : (n + 1) * width]))
            for place in (first, second):
                emit.set(place, emit.offset(emit.get(place), emit.width))
            emit.set(to, emit.offset(emit.get(to), 2 * emit.width))
        with emit.loop(emit.remainder(arguments[5], width)):
            for n, place in enumerate((first, second)):
                one.store(emit.offset(emit.get(to), n * emit.itemsize), one.load(emit.get(place)))
                emit.set(place, emit.offset(emit.get(place), emit.itemsize))
            emit.set(to, emit.offset(emit.get(to), 2 * emit.itemsize))
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 4), codegen


@intrinsic(prefer_literal=True)
def every(typing_context: Any, kind: Any, lanes: Any, dst: Any, src: Any, step: Any, count: Any) -> Any:
    """``every(kind, lanes, dst, src, step, count)``: elements ``step`` bytes apart, a multiple of ``lanes`` of them, side by side."""
    name, turn = literal(kind), min(literal(lanes), 8)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, name, 1, False)
        to, place = emit.variable(arguments[2]), emit.variable(arguments[3])
        with emit.loop(emit.quotient(arguments[5], turn)):
            for n in range(turn):
                emit.store(emit.offset(emit.get(to), n * emit.itemsize), emit.load(emit.get(place)))
                emit.set(place, emit.offset(emit.get(place), arguments[4]))
            emit.set(to, emit.offset(emit.get(to), turn * emit.itemsize))
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 4), codegen


@intrinsic
def unrolled_by_hand(typing_context: Any) -> Any:
    """Tell LLVM to leave this function's loops as they are: kernels compile in 1.1 s instead of 1.5, and run as fast."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("optsize")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def aligned_spills(typing_context: Any) -> Any:
    """Have this function's stack begin at a cache line: vectors that are kept there lie in one each.

    Else those of 512 bits straddle two.  Elsewhere than on x86 nothing is done: its vectors alone are longer than stacks are aligned.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if builder.module.triple.startswith("x86_64"):
            builder.function.attributes.alignstack = 64
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def integers(typing_context: Any, at: Any, names: Any) -> Any:
    """``integers(address, names)``: consecutive 64-bit integers as the namedtuple class ``names``."""
    fields = names.instance_class._fields
    result = types.NamedUniTuple(types.int64, len(fields), names.instance_class)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = [builder.add(arguments[0], ir.Constant(I64, 8 * i)) for i in range(len(fields))]
        values = [builder.load(builder.inttoptr(place, I64.as_pointer()), align=8) for place in places]
        return context.make_tuple(builder, signature.return_type, values)

    return result(types.int64, names), codegen


@intrinsic
def put_integers(typing_context: Any, at: Any, record: Any) -> Any:
    """``put_integers(address, record)``: a namedtuple of integers as consecutive 64-bit ones, as `integers` reads them."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for i, value in enumerate(cgutils.unpack_tuple(builder, arguments[1], len(record))):
            place = builder.add(arguments[0], ir.Constant(I64, 8 * i))
            builder.store(value, builder.inttoptr(place, I64.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.NamedUniTuple(types.int64, len(record), record.instance_class)), codegen


@intrinsic(prefer_literal=True)
def fill_row(typing_context: Any, kind: Any, lanes: Any, dst: Any, count: Any, value: Any) -> Any:
    """``fill_row(kind, lanes, dst, count, value)``: ``count`` elements of ``value``; vectors, then one by one."""
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, name, width, False)
        emit.fill(emit.variable(arguments[2]), arguments[4], arguments[3])
        return context.get_dummy_value()

    return types.void(kind, lanes, types.int64, types.int64, KINDS[name][1]), codegen


@intrinsic
def address(typing_context: Any, array: Any) -> Any:
    """``address(array)``: where its first element lies."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(array.data, I64)

    return types.int64(array), codegen


@intrinsic
def call_kernel(typing_context: Any, kernel: Any, arguments: Any) -> Any:
    """``call_kernel(address, arguments)``: call the code of a `fastconv.cpu.compile.Kernel` with a tuple of 64-bit integers.

    As Numba's functions call each other: a C function around it would copy everything.  Its status is not looked at: kernels raise
    nothing.
    """
    kinds = [types.int64] * len(arguments)

    def codegen(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        pointer = builder.inttoptr(given[0], context.call_conv.get_function_type(types.none, kinds).as_pointer())
        context.call_conv.call_function(builder, pointer, types.none, kinds, cgutils.unpack_tuple(builder, given[1], len(kinds)))
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, len(kinds))), codegen


@intrinsic
def call_reader(typing_context: Any, address: Any) -> Any:
    """What the C function at an address returns, which takes nothing and returns an int."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = ir.FunctionType(ir.IntType(32), []).as_pointer()
        return builder.sext(builder.call(builder.inttoptr(arguments[0], function), []), I64)

    return types.int64(types.int64), codegen


@intrinsic
def atomic_add(typing_context: Any, at: Any, value: Any) -> Any:
    """Add to the 64-bit integer at an address; what it was before.  Sequentially consistent, as all three."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", builder.inttoptr(arguments[0], I64.as_pointer()), arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_set(typing_context: Any, at: Any, value: Any) -> Any:
    """Replace the 64-bit integer at an address; what it was before."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("xchg", builder.inttoptr(arguments[0], I64.as_pointer()), arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_get(typing_context: Any, at: Any) -> Any:
    """The 64-bit integer at an address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], I64.as_pointer()), "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def relax(typing_context: Any) -> Any:
    """Tell the processor that this is a waiting loop."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        triple = builder.module.triple
        if triple.startswith(("x86_64", "i686")):
            builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"), [])
        elif triple.startswith(("aarch64", "arm64")):
            hint = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [_I32]), "llvm.aarch64.hint")
            builder.call(hint, [ir.Constant(_I32, 1)])
        return context.get_dummy_value()

    return types.void(), codegen
