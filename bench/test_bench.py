"""The bench itself: a wrong answer is never timed, lists are sound, runs compare, tables land between their markers."""

import json

import numpy as np
import pytest

from bench import cases, peers, report, run, truth
from bench.compare import compare
from bench.figures import SUITES, Figure, Row
from bench.measure import QUICK, Contender, Pace, Patience, interleave, measure, prepare
from bench.peers import PEERS, Peer, Prepared
from bench.plot import plot
from fastconv.planning.problem import DTYPES, Problem
from tests import oracles

IMAGE = Problem.parse("ih16_k3_p1_reflect")


def _peer(shift, name="made up"):
    """A peer whose answer is the exact one plus ``shift``."""

    def setup(problem, operands, threads, out):
        result = operands.exact.value.astype(DTYPES[problem.dst])
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
    exact = truth.operands(IMAGE).exact.value
    with pytest.raises(truth.WrongAnswer, match="shape"):
        truth.check(exact[..., 1:].astype(np.float32), IMAGE)
    with pytest.raises(truth.WrongAnswer, match="dtype"):
        truth.check(exact, IMAGE)


@pytest.mark.parametrize("text", ["ih40iw33_k9_s2_p4", "ih64_k31_p15_reflect", "ih50_k7_p6"])
def test_both_ways_to_the_truth_agree(text):
    problem = Problem.parse(text)
    src, wei = truth.random_operands(problem)
    for one, other in zip(truth.fft_truth(problem, src, wei), oracles.truth(problem, src, wei), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.abs(other).max())


def test_large_float64_sums_are_exact():
    problem = Problem.parse("ih150iw131_k15_p7_f64")
    src, wei = truth.random_operands(problem)
    assert truth.by_fft(problem)
    assert np.array_equal(truth.fft_truth(problem, src, wei).value, oracles.truth(problem, src, wei).value)


def test_a_peer_s_bound_is_looser():
    exact = truth.operands(IMAGE).exact
    off = (exact.value + 3 * oracles.bound(IMAGE, exact)).astype(np.float32)
    assert truth.check(off, IMAGE, peer=True) < 1
    with pytest.raises(truth.WrongAnswer, match="times its bound"):
        truth.check(off, IMAGE)


def test_a_peer_s_weights_gradient_of_images_is_judged():
    problem = Problem.parse("n2_ic3ih8_oc5k3_p1_bwd-weight")
    found = truth.operands(problem)
    assert found.exact.scale.shape == (5, 1, 1, 1)
    off = found.exact.value + 30 * oracles.unit(np.float32) * found.exact.scale
    assert truth.check(off.astype(np.float32), problem, peer=True) < 1
    with pytest.raises(truth.WrongAnswer, match="times its bound"):
        truth.check((1.01 * found.exact.value).astype(np.float32), problem, peer=True)


@pytest.mark.parametrize("name", cases.NAMES)
def test_case_lists_hold_distinct_problems(name):
    problems = cases.load(name)
    assert problems
    assert len(set(problems)) == len(problems)
    assert [Problem.parse(cases.short(str(problem))) for problem in problems] == problems


def test_names_are_distinct():
    for names in ([peer.name for peer in PEERS], [suite.name for suite in SUITES], list(run.NAMES)):
        assert len(set(names)) == len(names)


def test_a_library_that_is_not_installed_says_so(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    timings, refusals, _ = measure(IMAGE, [Contender(peers.NAMED[name]) for name in ("torch", "cv2.filter2D")], QUICK)
    assert timings == []
    assert [refusal.reason for refusal in refusals] == ["torch is not installed", "cv2 is not installed"]


def test_patience_is_learned_from_the_size_before():
    patience, peer = Patience(1.0), peers.NAMED["torch"]
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


def _figure(name):
    rows = [Row(f"ih{n}_k3_p1", 2.0, 1.0, {"all out=": 2.0}) for n in (64, 128)]
    return Figure(name, "", "x", [*rows, Row("geometric mean", 2.0, 1.0)]).as_dict()


def test_the_images_are_drawn(tmp_path):
    cells = [_cell("torch", n * 1e-6) | {"problem": f"ih{n}_k3_p1"} for n in (64, 128)]
    ceilings = [{"kind": kind, "dtype": "float32", "footprint_bytes": 8 * 64**2, "threads": 1, "best": 1e9} for kind in ("fma", "copy")]
    document = {"cells": cells, "ceilings": ceilings, "figures": [_figure("images"), _figure("roof")]}
    assert plot(document, tmp_path / "one.png") == [3]
    assert (tmp_path / "one.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="--suite images"):
        plot({"cells": [], "ceilings": [], "figures": []}, tmp_path / "none.png")


def test_a_run_is_saved_read_and_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    document = run.run(["small"], quick=True, match="ih8iw8")
    run.save(document, "one")
    assert run.load("one") == json.loads(json.dumps(document))
    assert document["cells"]
    assert "conv2d on an 8x8 image" in report.readme_tables(run.load("one"))
    with pytest.raises(FileNotFoundError, match="there are: one"):
        run.load("two")
