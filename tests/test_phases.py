"""Columns of a stride, which `direct` copies phase by phase: every target's vectors, borders wider than a vector, rows of few results."""

import pytest

from fastconv.cpu import direct
from fastconv.cpu.target import AVX2, AVX512, NEON, TARGETS
from fastconv.planning import cost
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import Problem
from tests.oracles import assert_close, assert_within, stored, truth
from tests.problems import operands, result_array

PROBLEMS = ("ih9iw150_k3_sh1sw3_p1", "ih11iw200_k3_sh1sw2_p1_wrap", "ih5iw9_k3_sh1sw3_p2", "ih12iw40_k4_sh1sw4_d2_pl40pr37_reflect",
            "n2_g2_ic4ih8iw77_oc6kh3kw8_sh1sw2_pl3_bias", "ih6iw15_kh2kw9_sh1sw2_pl5pr4_edge", "ih4iw301_kh1kw2_sh1sw7")  # fmt: skip


def result(p, target, threads, src, wei, bias):
    plan = direct.build(p, target, plan_problem, threads)
    dst = result_array(p)
    plan.run(src, plan.pack(wei), bias, dst)
    return plan, dst


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_columns_by_phase(target, exercised, monkeypatch):
    monkeypatch.setattr(cost, "PHASE_FEW", 1)
    monkeypatch.setattr(cost, "PHASE_TAPS", 1)
    for text in PROBLEMS:
        p = Problem.parse(f"{text}_f32")
        for integers in (True, False):
            operated = operands(p, integers)
            plan, dst = result(p, target, 2, *operated)
            assert plan.kernel.endswith("_s10"), plan.kernel
            exact = truth(p, *operated)
            if integers:
                assert_close(dst, stored(p, exact), 0, f"{plan}")
            else:
                assert_within(dst, p, exact, "direct", f"{plan}")
        exercised("direct", f"phases {target.name} {text}")


HALVED = (("ih21iw71_k3_s2_p1", AVX512, "_8x2_16_kh3kw3_s22"), ("n2_g2_ic2ih24iw134_oc4k5_s2_p2_wrap_bias", AVX512, "_8x2_16_kh5kw5_s22"),
          ("ih21iw150_k7_s2_p3_reflect", AVX512, "_8x2_16_kh7kw7_s22"), ("ih21iw71_k7_s2_p3", AVX2, "_4x2_8_s20"),
          ("ih10iw19_k5_s2_p2_wrap", NEON, "_8x2_4_kh5kw5_s22"), ("ih21iw71_k3_s2_p1", AVX2, "_4x2_8_s22"))  # fmt: skip


@pytest.mark.parametrize(("text", "target", "kernel"), HALVED, ids=[f"{text} {target.name}" for text, target, _ in HALVED])
def test_rows_split_once_for_all_taps(text, target, kernel, exercised):
    p = Problem.parse(f"{text}_f32")
    for integers in (True, False):
        operated = operands(p, integers)
        plan, dst = result(p, target, 1, *operated)
        assert plan.kernel.endswith(kernel), plan.kernel
        exact = truth(p, *operated)
        if integers:
            assert_close(dst, stored(p, exact), 0, f"{plan}")
        else:
            assert_within(dst, p, exact, "direct", f"{plan}")
    exercised("direct", f"halved {target.name} {text}")


@pytest.mark.parametrize(("kh", "iw", "vecs"), [(5, 256, 2), (5, 512, 4), (7, 96, 2), (7, 128, 4), (11, 256, 2), (15, 256, 4)])
def test_flat_tiles_are_for_planes_as_wide_as_some(kh, iw, vecs):
    p = Problem.parse(f"ih40iw{iw}_kh{kh}kw{kh}_f32").replace(pt=kh // 2, pb=kh // 2, pl=kh // 2 - 1, pr=kh // 2 + 1)
    assert direct._tile(p, AVX512).vecs == vecs
    # rows of 5x5 and 7x7 at stride 2 are split in registers, for which the tall tile has enough
    assert direct._tile(p.replace(sw=2, sh=2), AVX512).vecs == (4 if kh >= 11 and p.replace(sw=2).ow >= 64 else 2)


def test_rows_that_are_split_are_read_in_place():
    """However far apart: each is read once for all taps, so that none is needed again where others evict it."""
    p = Problem.parse("ih256iw4096_k7_s2_p3_f32")
    in_place = direct._layout(p, direct._tile(p, AVX512), 16, 4)[-1]
    assert direct.build(p, AVX512, plan_problem, 1).workspace == in_place
    assert direct.build(p.replace(sh=1, sw=1), AVX512, plan_problem, 1).workspace > in_place
