"""What CUDA kernels compute, in Numba's simulator: every algorithm of the list on cases of its own and of tests/cases.txt.

No card is needed, and none is used: the kernel's Python runs for every thread of the grid, a block at a time; every access is checked for
its place and its alignment, and of shared memory for the barrier that it needs.  The instructions are looked at in tests/test_cuda_ptx.py.
"""

import functools

import pytest

from tests.children import child
from tests.problems import CASES

pytest.importorskip("cuda.core", reason="numba-cuda is not installed (fastconv[cuda])")

from fastconv.planning.planner import algorithms, short_name
from fastconv.planning.problem import Problem, Scaling, parse_scaling

ALGORITHMS = {short_name(algorithm): algorithm for algorithm in algorithms("cuda") if not isinstance(algorithm.CASES, str)}
# of tests/cases.txt, with few planes: blocks run one after the other
FEW = ("image.narrow", "image.uneven")
# of an algorithm's own cases, 3 where it does not say, and none of tests/cases.txt where it does
FEW_OWN = {
    "activated": 1,
    "complex": 2,
    "quotient": 1,
    "depthwise": 2,
    "implicit_gemm": 2,
    "tensor": 2,
    "winograd": 1,
    "separable": 1,
    "plain": 4,
    "transposed": 3,
    "weights": 3,
    "depthwise_weights": 2,
}


# of algorithms whose transforms would spread a NaN or lose what is tiny, or that round to bfloat16: (fast ones, the rest)
NOT_FINITE = {
    "plain": (("ic2ih5iw8_oc3k3_p1_bf16:bf16:bf16:f32_bias spoiled",), ("ic2ih5iw8_oc3k3_p1_bf16:bf16:bf16:f32 tiny",)),
    "tensor": (
        ("n2_ic16ih5_oc20k1_p1_nhwc_hwio_bf16:bf16:bf16:f32_fast spoiled",),
        ("ic37ih6iw7_oc20k3_p1_bf16:bf16:f32:f32_bias+relu_fast spoiled", "ic20ih7iw9_oc33k3_p1_nhwc_hwio_bf16:bf16:bf16:f32_fast fill=nan",
         "ic20ih7iw9_oc33k3_p1_nhwc_hwio_bf16:bf16:bf16:f32_fast fill=3"),
    ),
    "transposed": (
        ("ic5ih6iw7_oc4k3_p1_bwd-data_bias spoiled",),
        ("n2_g2_ic4ih5iw7_oc6k3_s2_p1_bwd-data_nhwc spoiled", "ic5ih9_oc7k1_s2_bwd-data_bias spoiled",
         "ic9ih10iw12_oc10k3_p1_bwd-data_nhwc_hwio spoiled", "ic2ih5iw8_oc3k3_p1_bwd-data_bf16:bf16:bf16:f32 spoiled"),
    ),
    "depthwise_weights": ((), ("n2_g8_ic8ih6iw9_oc8k3_p1_nhwc_hwio_bwd-weight spoiled",)),
    "weights": (("n2_ic5ih6iw9_oc7k3_p1_bwd-weight spoiled",), ("n2_ic8ih7_oc40k3_s2_p1_bwd-weight_nhwc_hwio spoiled",)),
    "direct": (("ih4iw40_k3_p1_bf16:bf16:bf16:f32 spoiled",), ("ic2ih4iw40_oc3kh4kw9_p4_reflect_bf16:bf16:bf16:f32_relu spoiled",)),
    "depthwise": ((), ("g9_ic9ih6iw8_oc9k3_p1_nhwc_hwio_bf16:bf16:bf16:f32 spoiled",)),
    "implicit_gemm": ((), ("ic9ih6iw9_oc18k3_p1_bf16:bf16:bf16:f32_bias spoiled",)),
    "winograd": (
        ("n2_ic3ih4iw6_oc3k3_p1 spoiled",),
        ("n2_ic9ih7iw6_oc3k3_reflect_p1_nhwc_hwio_bias+relu6 spoiled", "ic3ih4iw6_oc3k3_p1_nhwc_hwio fill=nan",
         "g2_ic18ih4iw35_oc70k3_p2_wrap_bias spoiled", "ic9ih18iw22_oc18k3_p1_bias+relu spoiled",
         "ic10ih17iw23_oc33k3_p1_nhwc_hwio fill=inf", "ic9ih18iw22_oc18k3_p1 tiny", "ic9ih18iw22_oc18k3_p1 huge"),
    ),
}  # fmt: skip


# every border, type, stride and dilation together
SWEEP = {
    "direct": tuple(
        f"n2_ic2ih13iw41_oc2kh3kw4_sh{sh}sw{sw}_dh{dh}dw{dw}_pt1pb2pl3pr1_{border}_{types}"
        for border in ("constant", "edge", "reflect", "symmetric", "wrap")
        for types in ("f32", "f64", "f16:f16:f16:f32", "u8:f32:u8:f32_saturate", "i16:f32:f32:f32", "u8:i8:i32:i32", "i64", "u16")
        for sh, sw, dh, dw in ((1, 1, 1, 1), (1, 1, 2, 2), (2, 2, 1, 1), (2, 2, 2, 1), (3, 1, 1, 2), (1, 3, 2, 1), (2, 1, 3, 1))
    ),
}  # fmt: skip
# of those with an epilogue that scales
FEW_SCALED = {"direct": 2, "implicit_gemm": 1, "depthwise": 1, "winograd": 1, "tensor": 1}


def cases(name):
    scaled = [case for case in ALGORITHMS[name].CASES if parse_scaling(Problem.parse(case).epilogue) != Scaling()]
    own, number = [case for case in ALGORITHMS[name].CASES if case not in scaled], FEW_OWN.get(name, 3)
    own, number = scaled[: FEW_SCALED.get(name, 0)] + own + scaled[FEW_SCALED.get(name, 0) :], number + FEW_SCALED.get(name, 0)
    chosen = () if name in FEW_OWN else FEW
    fast, slow = NOT_FINITE.get(name, ((), ()))
    few = [*own[:number], *(str(CASES[case]) for case in chosen), *fast]
    rest = [*own[number:], *SWEEP.get(name, ()), *(str(p) for case, p in CASES.items() if case not in chosen), *slow]
    return few, rest


SLOW_PART = 40  # cases of one child process: a test that takes ten minutes ends the run


@functools.cache
def verdicts(name, part):
    """Case -> verdict, of a child process that runs a part of an algorithm's slow ones, or of part -1 the others of every algorithm."""
    slow = part >= 0
    if slow:
        wanted = [f"{name} {case}" for case in cases(name)[1][part * SLOW_PART : (part + 1) * SLOW_PART]]
    else:
        wanted = [f"{name} {case}" for name in ALGORITHMS for case in cases(name)[0]]
    code, most = "from tests.simulated import main; main()", 3000 if slow else 250
    lines = child(code, *wanted, timeout=most, NUMBA_ENABLE_CUDASIM="1").stdout.splitlines()
    return dict(line.split(": ", 1) for line in lines)


def marked():
    for name in ALGORITHMS:
        for slow, some in enumerate(cases(name)):
            for number, case in enumerate(some):
                marks = (pytest.mark.slow, pytest.mark.timeout(3000)) if slow else ()
                yield pytest.param(name, case, number // SLOW_PART if slow else -1, id=f"{name}-{case}", marks=marks)


CODE = """
import dataclasses
from fastconv.cuda import compile, target, winograd
target.SM90 = dataclasses.replace(target.SM90, units=1)
winograd.MOST_PLACE = 0
simulated = compile.simulated
compile.simulated = lambda kernel: print(kernel.name) or simulated(kernel)
from tests.simulated import main
main()
"""


@pytest.mark.slow
def test_winograd_of_large_layers():
    """Kernels that small layers do not get, 64 output channels to a block, and small images do not need, with places of 64 bits."""
    cases = ("winograd ic9ih4iw7_oc64k3_p1_nhwc_hwio_bias", "winograd ic9ih18iw22_oc18k3_p1_bias")
    lines = child(CODE, *cases, NUMBA_ENABLE_CUDASIM="1").stdout.splitlines()
    assert {"winograd_f32_2x2_64x32_nhwc_wide", "winograd_f32_4x4_32x32_wide"} <= set(lines)
    assert [line.replace("\\n", "\n") for line in lines if ": " in line] == [f"{case}: right" for case in cases]


@pytest.mark.parametrize(("algorithm", "case", "part"), [*marked()])
def test_case(algorithm, case, part, record_property):
    answer = verdicts(algorithm if part >= 0 else "every", part)[f"{algorithm} {case}"]
    if answer.startswith("refused: "):
        record_property("refused", f"cuda {algorithm}: {answer[9:]}")
        assert case not in ALGORITHMS[algorithm].CASES
    else:
        assert answer == "right", answer.replace("\\n", "\n")
