"""Tensor cores: which problems, what is multiplied, and the instructions; what they compute is simulated with the other algorithms."""

import re

import numpy as np
import pytest

pytest.importorskip("cuda.core", reason="numba-cuda is not installed (fastconv[cuda])")

from fastconv.cuda import compile as compiler
from fastconv.cuda import gemm_block, tensor
from fastconv.cuda.target import SM75, SM80, SM90, SM100
from fastconv.planning.planner import cheapest, plan_problem, short_name
from fastconv.planning.problem import Problem

LAYER = "ic64ih56_oc64k3_p1"
HALVES = f"{LAYER}_nhwc_f16:f16:f16:f32"
BFLOATS = f"{LAYER}_nhwc_bf16:bf16:bf16:f32"


def test_only_fast_and_only_cards_that_have_them():
    for text in (LAYER, HALVES, BFLOATS):
        p = Problem.parse(text)
        assert "only precision fast" in tensor.reject(p, SM90)
        assert short_name(cheapest(p, SM90)[1]) != "tensor"
        p = p.replace(precision="fast")
        assert tensor.reject(p, SM75) == "needs compute capability 8.0"
        assert tensor.reject(p, SM80) is None
        assert short_name(cheapest(p, SM80)[1]) == "tensor"
        assert short_name(cheapest(p, SM75)[1]) in ("implicit_gemm", "winograd")


@pytest.mark.parametrize("types", ["u8:i8:i32:i32", "i8", "f64", "i16:i16:i16:i32"])
def test_other_sums_than_float32_are_refused(types):
    """Also under "fast", which asks for no other sums."""
    p = Problem.parse(f"{LAYER}_{types}_fast")
    assert tensor.reject(p, SM90) == f"sums in f32, not {p.acc}"
    assert short_name(cheapest(p, SM90)[1]) == "implicit_gemm"


TF32, F16, BF16 = "m16n8k8.row.col.f32.tf32.tf32", "m16n8k16.row.col.f32.f16.f16", "m16n8k16.row.col.f32.bf16.bf16"
MULTIPLIED = [(f"{LAYER}_fast", TF32, SM90), (f"{HALVES}_fast", F16, SM90), (f"{LAYER}_f16:f32:f32:f32_fast", TF32, SM90),
              (f"{BFLOATS}_fast", BF16, SM80), (f"{LAYER}_bf16:f32:bf16:f32_fast", TF32, SM80)]  # fmt: skip


@pytest.mark.parametrize(("text", "shape", "target"), MULTIPLIED)
def test_what_is_multiplied(text, shape, target):
    p = Problem.parse(text)
    kernel = next(kernel for kernel in _kernels(p) if kernel.name == plan_problem(p, target, algorithm="tensor").kernel)
    code = compiler.code(kernel, target.cc)
    assert set(re.findall(r"mma\.sync\.aligned\.(\S+)\.f32 ", code.ptx)) == {shape}
    assert ".local" not in code.ptx
    assert code.resources.stack == code.resources.spills == 0
    assert code.resources.registers <= kernel.registers


def _kernels(p):
    tile = tensor.best_tile(p, tensor.TILES)
    return [tensor.kernel_of(tensor.spec_of(p, tile, last, tensor.factor(p))) for last in range(3)]


# scaled results of channels that lie side by side: where all operands are read at once, these spill
TIGHT = [("bf16", 64, "u8", "saturate", SM80), ("f32", 64, "i32", "saturate", SM100), ("f32", 64, "f16", "", SM80),
         ("f32", 128, "bf16", "", SM80), ("f16", 128, "i32", "saturate", SM90), ("bf16", 128, "bf16", "", SM90),
         ("f16", 128, "u8", "saturate", SM80)]  # fmt: skip


@pytest.mark.parametrize(
    ("src", "bm", "dst", "rounding", "target"),
    [case if n == 0 else pytest.param(*case, marks=pytest.mark.slow) for n, case in enumerate(TIGHT)],
)
def test_scaled_results_are_not_spilled(src, bm, dst, rounding, target):
    tile = next(tile for tile in tensor.TILES if tile.bm == bm)
    spec = gemm_block.Spec(
        src, "f32", dst, rounding, tile, gemm_block.DENSE, src if src != "f32" else "", "half" if (src, dst) == ("f16", "u8") else "f32"
    )
    kernel = tensor.kernel_of(spec)
    code = compiler.code(kernel, target.cc)
    assert ".local" not in code.ptx
    assert code.resources.stack == code.resources.spills == 0
    assert code.resources.registers <= kernel.registers


def test_a_fill_value_that_bfloat16_has_not_is_refused():
    plan = plan_problem(Problem.parse(f"{BFLOATS}_fast"), SM90, algorithm="tensor")
    with pytest.raises(ValueError, match=r"a fill value of 0\.1 is none of bfloat16"):
        plan.prepare(None, None, None, 0.1)
    for fill in (0, 69632, -np.inf, np.nan):
        with pytest.raises(AttributeError):
            plan.prepare(None, None, None, fill)


def test_a_fill_value_beyond_float16_is_refused():
    plan = plan_problem(Problem.parse(f"{HALVES}_fast"), SM90, algorithm="tensor")
    with pytest.raises(ValueError, match=r"a fill value of 70000\.0 is none of float16"):
        plan.prepare(None, None, None, np.float32(7e4))
    for fill in (0, 65504, np.inf, np.nan):
        with pytest.raises(AttributeError):  # the value is let through, to a launch of no arrays
            plan.prepare(None, None, None, fill)
