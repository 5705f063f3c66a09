"""Tiles that carry pixels along the row: their own edges, whole rows of them, and the bits of tiles that do not."""

import dataclasses
import itertools

import numpy as np
import pytest

from fastconv.cpu import carried, direct
from fastconv.cpu.target import AVX512, NEON
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import BORDERS, Problem
from tests.oracles import assert_close, assert_same_bits, assert_within, stored, truth
from tests.problems import operands, result_array, typed

PROBLEMS = ("k3", "k3_p1", "k3_pt1pb1pl1", "k3_pt2pb3", "k3_p1_bias", "k3_pl1_bias+relu", "n2_ic2_g2_oc4k3_p1", "n2_oc3k3_p1_bias")


def problems(target, dtype):
    """Rows of one tile, of several, and with a rest of one pixel or more; few rows, and an end of a band; each border."""
    width = 4 * target.lanes(8 if dtype == "f64" else 4)
    sizes = itertools.cycle(itertools.product((width, width + 1, 2 * width - 1, 3 * width), (2, 3, 5, 66)))
    borders = itertools.cycle(BORDERS)
    for text, border, (ow, oh) in zip(PROBLEMS * 4, borders, sizes, strict=False):
        p = typed(Problem.parse(f"ih9_{text}"), dtype)
        yield p.replace(ih=oh + p.kh - 1 - p.pt - p.pb, iw=ow + p.kw - 1 - p.pl - p.pr, border=border if p.pt + p.pl else "constant")


def result(p, target, threads, integers):
    plan = direct.build(p, target, plan_problem, threads)
    src, wei, bias = operands(p, integers)
    dst = result_array(p)
    plan.run(src, plan.pack(wei), bias, dst)
    return plan, dst


@pytest.mark.parametrize(("target", "dtype"), [(AVX512, "f32"), (AVX512, "f64"), (NEON, "f32")], ids=str)
def test_carried_tiles(target, dtype, exercised, monkeypatch):
    """Right, and to the bit what the tiles for narrow planes give."""
    carrying = 0
    for p in problems(target, dtype):
        for integers in (True, False):
            plan, dst = result(p, target, 2, integers)
            exact = truth(p, *operands(p, integers))
            if integers:
                assert_close(dst, stored(p, exact), 0, f"{plan}")
            else:
                assert_within(dst, p, exact, "direct", f"{plan}")
            with monkeypatch.context() as patch:
                patch.setattr(direct, "TILES", tuple(tile for tile in direct.TILES if not tile.carries))
                other, expected = result(p, target, 1, integers)
            assert "_lead" not in other.kernel
            assert_same_bits(dst, expected, f"{plan} {other}")
        carrying += "_lead" in plan.kernel
        exercised("direct", f"carried {target.name} {p}")
    assert carrying == len(PROBLEMS) * 4


@pytest.mark.parametrize("columns", [384, 385, 399, 447])
def test_whole_lines_of_results(columns):
    """Tiles begin where whole vectors fill whole lines, wherever the result lies; nothing outside it is written."""
    target = dataclasses.replace(AVX512, l2=1)
    p = Problem.parse(f"ih5iw{columns}_k3_p1_f32")
    src, wei, bias = operands(p)
    expected = result(p, AVX512, 1, False)[1]
    plan = direct.build(p, target, plan_problem, 1)
    for first in range(16):
        memory = np.full((7, 480), np.nan, np.float32)
        start = -(memory.ctypes.data // 4) % 16 + first
        dst = memory[1:-1, start : start + columns]
        plan.run(src, plan.pack(wei), bias, dst[None, None])
        assert_same_bits(dst[None, None], expected, f"{first}")
        assert np.isnan(memory).sum() == memory.size - dst.size


def test_whole_lines_of_results_where_they_pay():
    for text, pitch, pays in (("ih1024", 4096, True), ("ih1024", 4100, False), ("ih256", 1024, False), ("ih4096iw256", 1024, False)):
        assert carried.stores_lines(Problem.parse(f"{text}_k3_p1_f32"), AVX512, 64, pitch, 64) is pays
