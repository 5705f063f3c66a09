"""Weights of one tap that is 1, and of none: the bits of the direct sums, of any image."""

import numpy as np
import pytest

import fastconv
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import Problem
from fastconv.planning.structure import structure_of
from tests.oracles import assert_same_bits
from tests.problems import operands, run


@pytest.mark.parametrize("border", ["constant", "edge", "reflect", "symmetric", "wrap"])
@pytest.mark.parametrize("structure", ["identity", "zero"])
def test_the_bits_of_direct_sums(structure, border):
    p = Problem.parse(f"n2_g3_ic3ih37iw83_oc3kh5kw7_pt3pb6pl1pr8_{border}_f32_structure={structure}")
    src, wei, _ = operands(p)
    src[..., ::3, ::5] *= 0
    src[..., ::7, ::4] = -0.0
    for value in (0, -3.4e38, np.inf, -np.inf, np.nan):
        for place in ((0, 0, 0, 0), (1, 2, 36, 82), (1, 1, 20, 40)):
            src[place] = value
            for fill in (0, -0.0, np.inf) if border == "constant" else (0,):
                results = [run(q, src, wei, algorithm=name, threads=2, fill=fill) for q, name in ((p, "identity"), (p, "direct"))]
                assert_same_bits(*results, f"{value} {place} {fill}")
            src[place] = 1


def test_is_found_at_the_call():
    eye, two = np.zeros((1, 1, 5, 5), "f4"), np.zeros((2, 1, 3, 3), "f4")
    assert structure_of("f32", eye) == "zero"
    eye[..., 1, 4] = 1
    assert structure_of("f32", eye) == "identity"
    two[0, 0, 1, 1:] = 1
    assert structure_of("f32", two) != "identity"
    assert structure_of("f32", eye * 2) == "rank1"
    assert structure_of("f32", eye * np.nan) == "full"
    src = np.random.default_rng(0).standard_normal((900, 1200)).astype("f4")
    src[5, 7] = -0.0
    assert fastconv.plan(src, eye[0, 0], padding=2).algorithm == "identity"
    assert "identity" in fastconv.explain(src, eye[0, 0], padding=2).rsplit("plan:", 1)[1]
    strict = fastconv.conv2d(src, eye[0, 0], padding=2, precision="strict")
    for _ in range(2):
        assert_same_bits(fastconv.conv2d(src, eye[0, 0], padding=2), strict)
        assert_same_bits(fastconv.correlate2d(src, eye[0, 0], "same"), strict)
    src[400, 300] = np.inf
    assert_same_bits(fastconv.conv2d(src, eye[0, 0], padding=2), fastconv.conv2d(src, eye[0, 0], padding=2, precision="strict"))


def test_other_weights_are_refused():
    p = Problem.parse("ih40_k3_f32_structure=identity")
    plan = plan_problem(p, algorithm="identity")
    for wei in (np.ones((1, 1, 3, 3), "f4"), np.zeros((1, 1, 3, 3), "f4"), np.full((1, 1, 3, 3), np.nan, "f4")):
        with pytest.raises(ValueError, match="weights must be of structure identity as planned"):
            plan.pack(wei)
