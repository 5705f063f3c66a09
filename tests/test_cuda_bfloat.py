"""bfloat16 of CUDA kernels: the integer instructions that load and store it, run on the host; who takes it, and what is compiled.

What kernels compute of it is simulated with the other types, and so are calls on a card's arrays.
"""

import ctypes
import re

import numpy as np
import pytest

pytest.importorskip("cuda.core", reason="numba-cuda is not installed (fastconv[cuda])")

from llvmlite import binding, ir

from fastconv.cuda import compile as compiler
from fastconv.cuda import direct, target
from fastconv.cuda.simd import Emitter
from fastconv.planning.bfloat import BITS, narrowed, widened
from fastconv.planning.planner import algorithms, cheapest, short_name
from fastconv.planning.problem import Problem

WORDS = np.random.default_rng(0).integers(0, 1 << 32, 1 << 14, np.uint64).astype("u4")
WORDS[:12] = (0x7F800001, 0xFF800001, 0x7FFFFFFF, 0x7F7FFFFF, 0x3F808000, 0x3F818000, 0x3F808001, 0x00008000, 0x80000000, 0x7F800000,
              0x00018000, 0xFF7F8000)  # fmt: skip


def on_host(body):
    """``body(e, word)`` of an emitter of instructions that every processor has, as a function of 32 bits that gives as many."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module, word = ir.Module(), ir.IntType(32)
    function = ir.Function(module, ir.FunctionType(word, [word]), "run")
    builder = ir.IRBuilder(function.append_basic_block())
    e = Emitter(builder)
    result = body(e, e.value(function.args[0])).register
    builder.ret(builder.zext(builder.bitcast(result, ir.IntType(result.type.width if hasattr(result.type, "width") else 32)), word))
    machine = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    engine.finalize_object()
    run = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32)(engine.get_function_address("run"))
    return np.array([run(word) for word in WORDS.tolist()], "u4")


def test_floats_are_rounded_to_nearest_even_and_nan_stays_nan():
    wanted = narrowed(WORDS.view("f4"))
    for body in (lambda e, word: e.convert("f32", "bf16", e._bits("f32", word)), lambda e, word: e.half_bits("bf16", e._bits("f32", word))):
        got = on_host(body).astype("u2").view(BITS)
        np.testing.assert_array_equal(widened(got), widened(wanted))
        signs = [np.signbit(widened(array)) for array in (got, wanted)]
        np.testing.assert_array_equal(*signs)
    constant = on_host(lambda e, word: e.number("bf16", -1.5))
    assert (constant == narrowed(-1.5).view("u2")).all()


@pytest.mark.parametrize("place", [0, 1])
def test_both_halves_of_a_word_are_loaded(place):
    wanted = widened(WORDS.view("u2")[place::2].copy().view(BITS))
    got = on_host(lambda e, word: e.elements("bf16", "f32", [word], 2)[place])
    assert (got == wanted.view("u4")).all()
    assert (on_host(lambda e, word: e.elements("bf16", "bf16", [word], 2)[place]) == WORDS.view("u2")[place::2]).all()


def test_who_takes_it():
    modules = {short_name(algorithm): algorithm for algorithm in algorithms("cuda")}

    def takers(text, card=target.SM90):
        return {name for name, module in modules.items() if module.reject(Problem.parse(text), card) is None}

    many = "ic64ih30_oc64k3_p1_bf16:bf16:bf16:f32"
    assert takers(many) == {"winograd", "implicit_gemm", "direct", "plain"}
    assert takers(f"{many}_fast") == {"tensor", "winograd", "implicit_gemm", "direct", "plain"}
    assert takers(many, target.SM75) == {"implicit_gemm", "direct", "plain"}
    assert takers(f"{many}_tanh") == {"activated"}
    assert takers("g9_ic9ih9_oc9k3_bf16:bf16:f32:f32_nhwc") == {"depthwise", "winograd", "implicit_gemm", "direct", "plain"}
    for op, own in (("bwd-data", "transposed"), ("bwd-weight", "weights")):
        assert takers(f"ih9_k3_bf16:bf16:bf16:f32_{op}") == {own, "plain"}
    assert modules["plain"].reject(Problem.parse("ih9_k3_bf16:bf16:bf16:f64"), target.SM90) == "sums bfloat16 in f32, not f64"
    assert short_name(cheapest(Problem.parse(f"{many}_fast"), target.SM80)[1]) == "tensor"


def test_a_card_without_its_conversions_has_the_kernels():
    """Compute capability 7.5 neither multiplies nor converts it."""
    (kernel,) = (kernel for kernel in direct.kernels(target.SM75) if kernel.name == "direct_bf16_f32_bf16_4x8_k5")
    code = compiler.code(kernel, target.SM75.cc)
    assert not re.search(r"\.bf16|\.local|\bcall\b", code.ptx)
    assert code.resources.stack == code.resources.spills == 0
    assert code.resources.registers <= kernel.registers
