"""Image filtering: every peer's answer on a small image of each kind, and how the figures are judged."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest

from bench import calls, cases, filters, measure, report
from bench.calls import Call
from bench.figures import Figure, Row
from bench.measure import Contender, Pace, Patience, Timing, measure_together, prepare, settings_of
from bench.peers import Peer, Prepared
from bench.truth import WrongAnswer
from fastconv.planning.problem import Problem

ROWS, COLUMNS = 40, 52
LARGE = ("ih40_k47_p23", "ih32_k32_p31")
CALL = Call.parse("opencv.GaussianBlur(u8[40, 52], (3, 3), 0)")
IMAGE = Problem.parse("ih16_k3_p1")
BRISK = Pace(rounds=3, burst_s=1e-4, settle_s=0)


PEERS = {
    "strided": ("fastconv.conv2d", "cv2.filter2D, sliced"),
    "float64": ("fastconv.conv2d", "cv2.filter2D"),
    "bytes": ("fastconv.opencv.filter2D", "cv2.filter2D"),
    "smooth": ("fastconv.opencv", "cv2"),
    "ndimage": ("fastconv.ndimage", "scipy.ndimage"),
}


def _small(case):
    return case.at(ROWS, COLUMNS) if isinstance(case, Call) else case.replace(ih=ROWS, iw=COLUMNS)


def table():
    found = {_small(case): names for name, names in PEERS.items() for case in cases.load(name)}
    found |= {Problem.parse(text): ("fastconv.correlate2d", *filters.DFT) for text in LARGE}
    return [(case, settings_of([filters.ALL[name] for name in names])) for case, names in found.items()]


def test_filter(problem, contender, check_then_time):
    check_then_time(problem, contender)


# --- calls by name


@pytest.mark.parametrize("name", cases.CALLS)
def test_call_lists_hold_distinct_calls(name):
    found = cases.load(name)
    assert found
    assert len(set(found)) == len(found)
    assert [Call.parse(str(call)) for call in found] == found
    assert [Call.parse(cases.short(str(call))) for call in found] == found


@pytest.mark.parametrize("text", ["GaussianBlur(u8[9, 9])", "numpy.sum(u8[9, 9])", "opencv.blur((3, 3))", "opencv.blur()", "opencv.blur"])
def test_what_is_no_call_on_an_image(text):
    with pytest.raises(ValueError, match="not a call"):
        Call.parse(text)


def _dialect(monkeypatch, **functions):
    """A stand-in for fastconv.opencv, and the row that calls it."""
    module = ModuleType("stand_in")
    module.__spec__ = SimpleNamespace()
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, "stand_in", module)
    return calls.peer("stand-in", "fastconv", "stand_in", "opencv")


def test_a_dialect_that_gives_the_library_s_answer_is_timed(monkeypatch):
    ours = _dialect(monkeypatch, GaussianBlur=cv2.GaussianBlur)
    contenders = [Contender(peer, None, out) for peer in (ours, filters.ALL["cv2"]) for out in (False, True)]
    timings, refusals, _ = measure.measure(CALL, contenders, BRISK)
    assert refusals == []
    row = filters._against_fastest(CALL, "stand-in", ("cv2",), 1, timings, refusals)
    assert row.against == "cv2"
    assert 0.1 < row.measured < 10


def test_a_dialect_with_another_answer_is_not(monkeypatch):
    def shifted(by):
        return lambda *args, **kwargs: cv2.subtract(cv2.GaussianBlur(*args, **kwargs), by)

    right, wrong = (_dialect(monkeypatch, GaussianBlur=shifted(by)) for by in (1, 2))
    assert prepare(CALL, Contender(wrong))[1].wrong
    assert prepare(CALL, Contender(_dialect(monkeypatch, GaussianBlur=shifted(1))))[1] == 1
    assert right.module == "fastconv"
    ignores_dst = _dialect(monkeypatch, GaussianBlur=lambda src, *args, dst=None: cv2.GaussianBlur(src, *args))
    assert prepare(CALL, Contender(ignores_dst, None, out=True))[1].wrong


def test_a_function_that_is_missing_says_so(monkeypatch):
    assert prepare(CALL, Contender(_dialect(monkeypatch)))[1].reason == "stand_in has no GaussianBlur"
    assert calls.peer("absent", "fastconv", "absent_module", "opencv").reject(CALL) == "absent_module is not installed"
    assert filters.ALL["scipy.ndimage"].reject(CALL) == "scipy.ndimage has no opencv.GaussianBlur"


def test_floats_are_judged_by_the_bound_of_their_sums():
    call = Call.parse("ndimage.uniform_filter(f32[40, 52], 3)")
    ops = calls.operands(call)
    # 9 taps, each side 2 (9 + 4) u max|x|, of weights whose sum is 1
    assert ops.allowed == pytest.approx(4 * 13 * 2.0**-24 * np.abs(ops.arguments.positional[0]).max())
    assert calls.check(ops.expected + np.float32(ops.allowed / 2), call) < 1
    with pytest.raises(WrongAnswer, match="allowed"):
        calls.check(ops.expected + np.float32(2 * ops.allowed), call)
    with pytest.raises(WrongAnswer, match="dtype"):
        calls.check(ops.expected.astype(np.float64), call)
    with pytest.raises(WrongAnswer, match="largest error is nan"):
        calls.check(np.full_like(ops.expected, np.nan), call)


# --- how figures are judged


def _timing(peer, seconds, default=True, out=False, case="p"):
    return Timing(case, peer, 2 if default else 1, default, out, 1, seconds, seconds, seconds, seconds, (seconds,) * 3, 0.0)


def test_the_fastest_peer_counts_and_both_settings_do():
    ours = [_timing("ours", 1.0), _timing("ours", 1.0, out=True), _timing("ours", 2.0, default=False, out=True)]
    quick = [_timing("quick", 3.0), _timing("quick", 2.0, out=True), _timing("quick", 5.0, default=False, out=True)]
    plain = [_timing("plain", 2.5), _timing("plain", 9.0, default=False)]
    row = filters._against_fastest(IMAGE, "ours", ("quick", "plain"), 2.0, ours + quick + plain, [])
    assert row.values == {"all": 2.5, "all out=": 2.0, "one out=": 2.5}
    assert (row.measured, row.against, row.passed) == (2.0, "quick", True)
    assert filters._against_fastest(IMAGE, "ours", ("quick",), 2.0, ours[:1] + quick, []).measured is None


def test_the_mean_is_of_every_setting_that_all_cases_have():
    rows = [Row("a", 2.0, 1, {"all": 2.0, "one": 3.0}), Row("b", 8.0, 1, {"all": 8.0})]
    mean = filters.with_mean(rows, 5)[-1]
    assert (mean.measured, mean.values, mean.passed) == (pytest.approx(4), {"all": pytest.approx(4)}, False)
    assert not filters.with_mean([*rows, Row("c", None, 1)], 1)[-1].passed
    assert filters.with_mean([], 1) == []


def _probed(peak, ordinary, nontemporal):
    kinds = {("fma",): peak, ("copy", False): ordinary, ("copy", True): nontemporal}
    return {(kind, default, *rest): [value] * 3 for (kind, *rest), value in kinds.items() for default in (True, False)}


def test_the_roof_is_the_longer_of_arithmetic_and_traffic():
    assert filters.traffic(IMAGE) == 2 * 16 * 16 * 4
    assert filters.traffic(Problem.parse("g3_ic3ih8_oc3k3_p1_u8:f32:u8:f32_saturate")) == 2 * 3 * 64
    timings = [_timing("ours", 4.0, out=True)]
    arithmetic = filters.roof_row(IMAGE, "ours", timings, [], _probed(IMAGE.flops / 3, 2048, 2048), 0.7)
    assert (arithmetic.measured, arithmetic.against) == (pytest.approx(0.75), "FMA")
    traffic = filters.roof_row(IMAGE, "ours", timings, [], _probed(IMAGE.flops, 1024, 2048 / 3), 0.7)
    assert (traffic.measured, traffic.against) == (pytest.approx(0.5), "copy")


def test_a_busy_sample_is_no_ceiling():
    """Each round is judged by the best that it and its neighbours found: seconds 1, 1, 2, 2, 2."""
    probed = _probed(IMAGE.flops, 1e9, 1e9)
    for key in probed:
        probed[key] = [IMAGE.flops * speed for speed in (1.0, 0.1, 0.2, 0.5, 0.1)] if key[0] == "fma" else [1e9] * 5
    timing = replace(_timing("ours", 2.0, out=True), rounds_s=(2.0, 2.0, 5.0, 4.0, 4.0))
    assert filters.roof_row(IMAGE, "ours", [timing], [], probed, 0.7).measured == pytest.approx(0.5)


def test_samples_of_one_footprint_are_together():
    found = filters.sampled([(IMAGE, _probed(1.0, 2.0, 3.0)), (IMAGE.replace(kh=1, kw=1, pt=0, pb=0, pl=0, pr=0), _probed(5.0, 6.0, 7.0))])
    assert len(found) == 2 * len({(c.kind, c.nontemporal) for c in found}) == 6
    copies = [c for c in found if c.kind == "copy" and c.nontemporal]
    assert {(c.footprint_bytes, c.median, c.best) for c in copies} == {(2048, 5.0, 7.0)}
    assert {c.dtype for c in found if c.kind == "fma"} == {"float32"}


def test_a_share_above_the_roof_is_the_roof_s_fault():
    def row(seconds):
        return filters.roof_row(IMAGE, "ours", [_timing("ours", seconds, out=True)], [], _probed(IMAGE.flops, 1e9, 1e9), 0.7)

    assert row(0.5).measured is None
    assert row(0.99).measured == pytest.approx(1 / 0.99)
    assert all("above the roof" in row(seconds).note for seconds in (0.5, 0.99))
    assert row(1.25).note == ""


def test_probes_measure_the_type_and_the_footprint_of_the_problem():
    found = {key: probe() for key, probe in filters.roof_probes(Problem.parse("ih64_k3_p1_f64")).items()}
    assert set(found) == {("fma", True), ("fma", False), *(("copy", default, nt) for default in (True, False) for nt in (True, False))}
    assert all(value > 1e8 for value in found.values())


# --- how much is measured


def _sleeping(name, module, seconds, count):
    def setup(problem, operands, threads, out):
        result = operands.exact.value.astype(np.float32)

        def call():
            count[name] = count.get(name, 0) + 1
            end = measure.time.perf_counter() + seconds
            while measure.time.perf_counter() < end:
                pass
            return result

        return Prepared(call, np.asarray)

    return Contender(Peer(name, module, lambda problem: None, setup))


def test_a_beaten_peer_is_not_timed_and_ours_always_is():
    count = {}
    contenders = [_sleeping("quick", "cv2", 1e-4, count), _sleeping("slow", "cv2", 5e-3, count), _sleeping("ours", "fastconv", 5e-3, count)]
    timings, refusals, _ = measure.measure(IMAGE, contenders, BRISK, beaten=8)
    assert [timing.peer for timing in timings] == ["quick", "ours"]
    assert [refusal.peer for refusal in refusals] == ["slow"]
    assert "times as long" in refusals[0].reason
    assert count["slow"] == 2


def test_a_peer_is_beaten_in_its_best_setting_only():
    count = {}
    peers = [_sleeping("quick", "cv2", 1e-4, count).peer, _sleeping("other", "cv2", 1e-4, count).peer]
    estimates = {(IMAGE, Contender(peers[0], None, False)): 1.0, (IMAGE, Contender(peers[1], None, False)): 50.0}
    assert measure._beaten(estimates, 8) == {"other": 50.0}
    assert measure._beaten(estimates | {(IMAGE, Contender(peers[1], 1, True)): 4.0}, 8) == {}


def test_rounds_fit_into_the_time_of_the_case():
    assert measure._rounds(Pace(rounds=7, burst_s=0.1, settle_s=0, case_s=1), [0.05, 0.02], 0) == 5
    assert measure._rounds(Pace(rounds=7, burst_s=0.1, settle_s=0, case_s=1), [2.0], 0) == measure.LEAST_ROUNDS
    assert measure._rounds(Pace(rounds=7, burst_s=0.1, settle_s=0, case_s=100), [2.0], 0) == 7


def test_patience_knows_what_is_far_behind():
    patience, (ours, theirs) = Patience(10.0, slower=100), (filters.ALL[name] for name in ("fastconv.conv2d", "torch"))
    small, large = Problem.parse("ih64_k3"), Problem.parse("ih640_k3")
    patience.learn(small, ours, 1e-5)
    patience.learn(small, theirs, 2e-3)
    assert patience.reason(large, ours) is None
    assert patience.reason(large, theirs) == "about 200 times slower than the fastest, judged by 64x64"
    patience, cv2_row = Patience(10.0, beaten=8), filters.ALL["cv2.filter2D"]
    for peer, seconds in ((ours, 1e-5), (cv2_row, 1e-4), (theirs, 1e-3)):
        patience.learn(small, peer, seconds)
    assert [patience.reason(large, peer) for peer in (ours, cv2_row, theirs)] == [None] * 3
    telling = small.replace(ih=1024, iw=1024)
    for peer, seconds in ((ours, 1e-3), (cv2_row, 1e-2), (theirs, 1e-1)):
        patience.learn(telling, peer, seconds)
    assert [patience.reason(large, peer) for peer in (ours, cv2_row)] == [None] * 2
    assert patience.reason(large, theirs) == "about 10 times slower than the fastest peer, judged by 1024x1024"
    patience = Patience(10.0)
    endless = Problem.parse("ih4096_k4096_p4095_strict")
    assert "s per call, as it is planned" in Patience(1.0).reason(endless, ours)
    assert Patience(1.0).reason(small, ours) is None
    patience.learn(CALL, ours, 100.0)
    assert patience.reason(CALL, ours) is None


def test_cases_are_timed_together():
    count = {}
    pairs = [(problem, _sleeping("one", "cv2", 1e-5, count)) for problem in (IMAGE, IMAGE.replace(border="reflect"))]
    timings, refusals, _ = measure_together(pairs, BRISK)
    assert [timing.problem for timing in timings] == [str(problem) for problem, _ in pairs]
    assert refusals == []


def test_an_answer_is_judged_once(monkeypatch):
    contender, judged = _sleeping("once", "cv2", 0, {}), []
    monkeypatch.setattr(measure, "judge", lambda *arguments: judged.append(arguments) or 0.5)
    assert [prepare(IMAGE, contender)[1] for _ in range(2)] == [0.5, 0.5]
    assert len(judged) == 1


@pytest.mark.parametrize("suite", ["calls", "borders", "roof"])
def test_a_suite_runs(suite, monkeypatch):
    kept = {"calls": "ih8iw8_oc1kh3kw3", "borders": "ih128iw128_oc1kh3kw3", "roof": "ih512iw512_oc1kh3kw3"}[suite]
    found = next(s for s in filters.SUITES if s.name == suite).run(BRISK, lambda case: kept in str(case))
    rows = {"calls": 2, "borders": 4, "roof": 2}[suite]
    assert len(found.rows) == rows
    assert found.rows[0].values  # a busy machine may refuse to judge them
    assert found.cells


# --- tables


def test_tables_show_ratio_share_and_one_thread():
    case = str(Problem.parse("ih512_k3_p1"))
    values = {"all": 6.0, "all out=": 5.0, "one out=": 4.0}
    images = Figure("images", "claim", "x", filters.with_mean([Row(case, 5.0, 2.5, values, against="torch")], 4))
    roof = Figure("roof", "claim", "of roof", [Row(case, 0.9, 0.7, {"all out=": 0.9, "one out=": 0.8})])
    smooth = Figure("smooth", "claim", "x", [Row(str(CALL), 3.0, 1, {"all": 3.0, "one out=": 2.0})])
    document = {"figures": [figure.as_dict() for figure in (images, roof, smooth)], "cells": []}
    fastest, one = report._image_tables(document)
    assert "| 512x512 | 5x, 90% |" in fastest
    assert "| 512x512 | 4x, 80% |" in one
    assert "| opencv.GaussianBlur, u8, 1 cases | 3x | 3x | 2x |" in report._functions(document)
    assert "| claim | geometric mean | >= 4x | 5x | 4x | pass |" in report._figures(document)


def test_the_worst_case_is_the_one_that_is_closest_to_its_target():
    rows = [Row("a", 2.0, 1.5), Row("b", 2.2, 2.5), Row("c", 9.0, 2.5)]
    assert "| >= 2.5x | 2.2x | - | FAIL |" in report._figures({"figures": [Figure("f", "claim", "x", rows).as_dict()]})
    rows = [Row("a", 1.0, 1.05, at_most=True), Row("b", 1.1, 1.05, at_most=True), Row("c", 0.9, 1.05, at_most=True)]
    assert report._one(rows[0].__dict__ | {"values": {"one": 1.0, "one out=": 2.0}}) == 2.0
    assert "| <= 1.05x | 1.1x | - | FAIL |" in report._figures({"figures": [Figure("f", "claim", "x", rows).as_dict()]})


def test_refusals_that_differ_in_numbers_only_are_one_kind():
    entries = [{"peer": "p", "wrong": False, "reason": reason} for reason in ("about 2.5 s", "about 31 s", "no stride")]
    assert [(count, entry["reason"]) for count, entry in report.kinds_of(entries)] == [(2, "about 2.5 s"), (1, "no stride")]
