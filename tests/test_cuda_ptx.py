"""Every kernel of the CUDA list, compiled for cards of four generations without one: what the text and the assembler's report must show.

The simulator (tests/test_cuda_simulator.py) shows what kernels compute; here is shown that their instructions are the intended ones.
"""

import re

import pytest

pytest.importorskip("cuda.core", reason="numba-cuda is not installed (fastconv[cuda])")

from fastconv.cuda import compile as compiler
from fastconv.cuda import gemm_block, pointwise, repair, running, weighed
from fastconv.cuda.target import SM75, SM80, SM90, SM100
from fastconv.planning.planner import algorithms, short_name

ALGORITHMS = {short_name(algorithm): algorithm for algorithm in algorithms("cuda") if hasattr(algorithm, "kernels")}
# and what lies between passes of filters, behind sums, and before them
STEPS = {"pointwise": pointwise, "repair": repair, "running": running, "weighed": weighed}
LISTED = ALGORITHMS | STEPS
KERNELS = [(name, number) for name, algorithm in LISTED.items() for number in range(len(algorithm.kernels(SM90)))]
# kernels of each algorithm that are compiled for two cards, 6 where it does not say; the others, and for the other two, with --slow
FEW = {"repair": 1, "running": 1, "depthwise": 3, "implicit_gemm": 4, "tensor": 3, "winograd": 2, "direct": 5, "plain": 3,
       "transposed": 2, "weights": 2, "depthwise_weights": 1}  # fmt: skip
TARGETS, OTHERS = (SM75, SM90), (SM80, SM100)


def marked(*targets):
    """Kernels, with each of the targets that has them: cards may lack what an algorithm needs."""
    for name, number in KERNELS:
        kernels = LISTED[name].kernels(SM90)
        kernel = kernels[number]
        # the first that scales its sums, for one card
        scales = name in FEW and kernel == next((kernel for kernel in kernels if getattr(kernel.spec, "tail", "")), None)
        for target in targets:
            if kernel in LISTED[name].kernels(target):
                few = (number < FEW.get(name, 6) and target in TARGETS) or (scales and target == SM90)
                marks = () if few else pytest.mark.slow
                yield pytest.param(kernel, target, id=f"{kernel.name}-{target.arch}", marks=marks)


@pytest.mark.parametrize(("kernel", "target"), [*marked(*TARGETS, *OTHERS)])
def test_machine_code(kernel, target):
    code = compiler.code(kernel, target.cc)
    text, resources = code.ptx, code.resources
    assert len(code.cubin) > 1000
    assert ".local" not in text
    assert not re.search(r"\bcall\b", text), "a kernel contains no call"
    assert resources.stack == resources.spills == 0, resources
    assert resources.registers <= kernel.registers, resources
    assert resources.registers * kernel.threads * kernel.blocks <= 65536, "so many blocks do not fit a multiprocessor"
    if kernel.vectors:
        assert re.search(r"ld\.global\.nc\.(v4\.[bfu]32|v2\.[bf]64)|cp\.async\.cg\.", text), "no load of 16 bytes"
    whole = isinstance(kernel.spec, gemm_block.Spec)
    if whole and kernel.spec.tile.bm * gemm_block.DEPTH * kernel.spec.tile.size < 16 * kernel.threads:
        assert "@p ld.global.nc.v4.b32" in text, "half of the threads fetch all weights"
    if kernel.fused:
        assert re.search(r"fma\.rn\.f(32|64)|mma\.sync|mad\.lo|dp4a", text)
        assert not re.search(r"(mul|add)\.f(32|64)\b.*\n.*add\.f", text)


@pytest.mark.parametrize(("kernel", "target"), [*marked(SM90)])
def test_parameters_lie_where_the_launch_puts_them(kernel, target):
    """The entry's parameters: 64-bit addresses, then numbers of the accumulator's kind, then 32-bit integers, without a gap."""
    text = compiler.code(kernel, target.cc).ptx
    kinds = re.findall(r"\.param \.(\w+) ", text[: text.index(")")])
    size = {"u64": 8, "b64": 8, "f64": 8, "u32": 4, "b32": 4, "f32": 4}
    wanted = ["i64"] * len(kernel.at) + [kernel.values[0]] * len(kernel.values[1]) + ["i32"] * len(kernel.extents)
    assert [size[kind] for kind in kinds] == [compiler.NUMPY[kind].itemsize for kind in wanted]
    assert all((kind == "f32") == (want == "f32") for kind, want in zip(kinds, wanted, strict=True))
    block = compiler.packed(kernel, (1,) * len(kernel.at), (0,) * len(kernel.values[1]), (2,) * len(kernel.extents))
    assert len(block) == sum(size[kind] for kind in kinds)


@pytest.mark.parametrize("rounding", ["saturate", "half_up"])
def test_a_nan_of_float64_is_replaced_before_it_is_rounded(rounding):
    """PTX's ``cvt`` makes 0 of a NaN of float32, but the least integer of one of float64."""

    def body(e, s, at, v, x):
        e.store("i32", at.dst, [e.rounded(rounding, "f64", "i32", v.number)])

    kernel = compiler.Kernel(f"rounded_{rounding}", body, (), ("dst",), ("f64", ("number",)), ("count",), (32, 1, 1), 32)
    assert re.search(r"setp\.(num|nan)\.f64.*selp\.f64.*cvt\.r[nm]i\.sat\.s32\.f64", compiler.code(kernel, SM90.cc).ptx, re.DOTALL)


def test_algorithms_say_how_many_kernels_they_compile():
    for algorithm in ALGORITHMS.values():
        assert algorithm.kernels(SM90)
        assert algorithm.most_kernels(SM90) > 0
