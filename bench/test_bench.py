"""The bench itself: a wrong answer is never timed, lists are sound, runs compare, tables land between their markers."""

import json

import numpy as np
import pytest

from bench import cases, report, run, truth
from bench.compare import compare
from bench.figures import SUITES, Figure, Row
from bench.measure import QUICK, Contender, Pace, Patience, interleave, measure, prepare
from bench.peers import PEERS, Peer, Prepared
from fastconv.planning.problem import Problem

IMAGE = Problem.parse("ih16_k3_p1_reflect")
STRIDED_GROUPS = Problem.parse("n2_g2_ic4ih9iw11_oc6kh3kw2_sh2sw1_pt1pb0pl1pr2")


def _peer(shift, name="made up"):
    """A peer whose answer is the exact one plus ``shift``."""

    def setup(problem, operands, threads, out):
        result = operands.exact.astype(operands.src.dtype)
        result[0, 0, -1, -1] += shift
        return Prepared(lambda: result, np.asarray)

    return Peer(name, "scipy", lambda problem: None, setup)


def test_a_wrong_answer_is_never_timed():
    contenders = [Contender(_peer(0, "right")), Contender(_peer(1e-3, "wrong")), Contender(_peer(np.nan, "nan"))]
    timings, refusals, _ = measure(IMAGE, contenders, Pace(rounds=1, burst_s=1e-4, settle_s=0))
    assert [timing.peer for timing in timings] == ["right"]
    assert [(refusal.peer, refusal.wrong) for refusal in refusals] == [("wrong", True), ("nan", True)]


@pytest.mark.parametrize("text", ["ih16_k3_i32", "ih16_k3_u8"])
def test_integers_must_be_equal(text):
    problem = Problem.parse(text)
    assert prepare(problem, Contender(_peer(0)))[1] == 0
    assert prepare(problem, Contender(_peer(1)))[1].wrong


def test_shape_and_dtype_are_part_of_the_answer():
    exact = truth.operands(IMAGE).exact
    with pytest.raises(truth.WrongAnswer, match="shape"):
        truth.check(exact[..., 1:].astype(np.float32), IMAGE)
    with pytest.raises(truth.WrongAnswer, match="dtype"):
        truth.check(exact, IMAGE)


def test_truth_agrees_with_plain_loops():
    p = STRIDED_GROUPS
    src, wei = truth.random_operands(p)
    padded, each = truth.pad(src, p).astype(np.float64), p.oc // p.g
    assert truth.operands(p).exact.shape == (p.n, p.oc, p.oh, p.ow)
    for n, oc, oy, ox in np.ndindex(p.n, p.oc, p.oh, p.ow):
        first = oc // each * (p.ic // p.g)
        window = padded[n, first : first + p.ic // p.g, oy * p.sh : oy * p.sh + p.kh, ox * p.sw : ox * p.sw + p.kw]
        assert truth.operands(p).exact[n, oc, oy, ox] == pytest.approx((window * wei[oc]).sum())


def test_both_ways_to_the_truth_agree():
    p = Problem.parse("ih40iw33_k9_s2_p4")
    src, wei = (array.astype(np.float64) for array in truth.random_operands(p))
    padded = truth.pad(src, p)
    assert np.allclose(truth.tap_sums(padded, wei, p), truth._fft_sums(padded, wei, p))


@pytest.mark.parametrize("name", cases.NAMES)
def test_case_lists_hold_distinct_problems(name):
    problems = cases.load(name)
    assert problems
    assert len(set(problems)) == len(problems)
    assert [Problem.parse(cases.short(str(problem))) for problem in problems] == problems


def test_names_are_distinct():
    for names in ([peer.name for peer in PEERS], [suite.name for suite in SUITES], list(run.NAMES)):
        assert len(set(names)) == len(names)


def test_patience_is_learned_from_the_size_before():
    patience, peer = Patience(1.0), PEERS[0]
    small, large = Problem.parse("ih64_k3"), Problem.parse("ih640_k3")
    assert patience.reason(large, peer) is None
    patience.learn(small, peer, 0.1)
    assert "64x64" in patience.reason(large, peer)


def test_rounds_are_rotated_and_sleep_in_between():
    order, slept = [], []
    works = {key: lambda key=key: order.append(key) for key in "abc"}
    interleave(works, QUICK._replace(rounds=2), slept.append)
    assert order == list("abcbca")
    assert slept == [QUICK.settle_s] * 6


def _cell(peer, seconds):
    quartiles = {"median_s": seconds, "q1_s": 0.99 * seconds, "q3_s": 1.01 * seconds}
    return {"suite": "images", "problem": "p", "peer": peer, "default_threads": True, "out": False} | quartiles


def test_comparison_removes_the_machine_s_drift():
    before = {"cells": [_cell("fastconv.conv2d", 1.0), _cell("torch", 1.0)]}
    same = {"cells": [_cell("fastconv.conv2d", 1.2), _cell("torch", 1.2)]}
    slower = {"cells": [_cell("fastconv.conv2d", 1.3), _cell("torch", 1.2)]}
    assert [change.slower for change in compare(before, same)[0]] == [False]
    assert [change.slower for change in compare(before, slower)[0]] == [True]


def test_a_figure_with_an_unmeasured_case_fails():
    assert Figure("f", "", "x", [Row("a", 2.0, 1.0)]).passed
    assert not Figure("f", "", "x", [Row("a", 2.0, 1.0), Row("b", None, 1.0)]).passed
    assert not Figure("f", "", "x", []).passed
    assert Row("a", 2.0, 3.0, at_most=True).passed


def test_readme_is_rewritten_between_its_markers_only():
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = report.rewrite(text, "new")
    assert once == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    assert report.rewrite(once, "new") == once
    with pytest.raises(ValueError, match="results:begin"):
        report.rewrite("no markers", "new")


def test_a_run_is_saved_read_and_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    document = run.run(["small"], quick=True, match="ih8iw8")
    run.save(document, "one")
    assert run.load("one") == json.loads(json.dumps(document))
    assert document["cells"]
    assert "conv2d on an 8x8 image" in report.readme_tables(run.load("one"))
    with pytest.raises(FileNotFoundError, match="there are: one"):
        run.load("two")
