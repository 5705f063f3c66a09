"""Timing: bursts, interleaved, after the answer is checked.

Thread pools of two libraries spin against each other when both have just worked. So each contender runs a burst of
calls, then everything sleeps until its pool has stopped spinning, then the next one runs; rounds of this are
repeated in rotated order, and medians are taken. What is compared is measured in the same rounds.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from bench import truth
from bench.peers import LIBRARIES, Peer
from fastconv.planning.planner import plan_problem

GROUP_S = 50e-6  # shorter calls are timed in groups: reading the clock twice takes about 0.1 us


class Pace(NamedTuple):
    """How long to measure: rounds, seconds of one burst, seconds of sleep after it, and the longest call that is waited for."""

    rounds: int = 7
    burst_s: float = 0.03
    settle_s: float = 0.03  # GNU OpenMP spins for up to 12 ms after a region
    longest_s: float = 4.0


FULL, QUICK = Pace(), Pace(rounds=3, burst_s=0.005, settle_s=0.015, longest_s=0.5)


class Contender(NamedTuple):
    """A peer in one setting: ``threads=None`` is its default; ``out`` writes into memory that exists."""

    peer: Peer
    threads: int | None = None
    out: bool = False


@dataclass(frozen=True)
class Timing:
    """Seconds per call of one contender on one case: quartiles over all calls, and each round's median."""

    problem: str
    peer: str
    threads: int
    default_threads: bool
    out: bool
    calls: int
    median_s: float
    q1_s: float
    q3_s: float
    best_s: float
    rounds_s: tuple[float, ...]
    worst_error: float  # largest error over its bound

    def as_dict(self):
        return asdict(self)


@dataclass(frozen=True)
class Refusal:
    """A contender that has no time for a case, and why; ``wrong`` where its answer was outside the bound."""

    problem: str
    peer: str
    out: bool
    reason: str
    wrong: bool = False

    def as_dict(self):
        return asdict(self)


class Patience:
    """Skips sizes that a peer would take too long for, judged by its time at the size before (cases ascend)."""

    def __init__(self, longest_s):
        self.longest_s = longest_s
        self._known = {}

    def _key(self, problem, peer):
        return peer.name, problem.ic, problem.oc, problem.kh, problem.kw, problem.sh, problem.src

    def reason(self, problem, peer):
        """Why not to wait for it, or None."""
        known, seconds = self._known.get(self._key(problem, peer), (problem, 0.0))
        expected = seconds * problem.flops / known.flops
        return f"about {expected:.1f} s per call, judged by {known.ih}x{known.iw}" if expected > self.longest_s else None

    def learn(self, problem, peer, seconds):
        """Remember what a call took."""
        self._known[self._key(problem, peer)] = problem, seconds


def setting(contender):
    """Context manager that puts the contender's library into its number of threads."""
    return LIBRARIES[contender.peer.module].limit(contender.threads) if contender.threads else nullcontext()


def judge(result, problem, peer):
    """Check a peer's answer: ours by the class of the algorithm that computes it."""
    algorithm = None
    if peer.module == "fastconv":
        algorithm = peer.algorithm or plan_problem(problem).algorithm
    return truth.check(result, problem, algorithm, peer.transform)


def prepare(problem, contender):
    """Set up a contender and check its answer.

    Returns
    -------
    prepared : Prepared or None
    found : float or Refusal
        The worst error over its bound, or why there is nothing to time.
    seconds : float
        What a call takes, compilation excluded.
    """
    peer, _, out = contender

    def refusal(reason, wrong=False):
        return None, Refusal(str(problem), peer.name, out, reason, wrong), 0.0

    reason = peer.reject(problem) or ("no out argument" if out and not peer.takes_out else None)
    if reason:
        return refusal(reason)
    with setting(contender):
        try:
            prepared = peer.setup(problem, truth.operands(problem), contender.threads, out)
            result = prepared.call()
        except ValueError as reason:  # "a named algorithm that cannot run raises ValueError with its reason"
            if peer.module != "fastconv":
                raise
            return refusal(str(reason))
        begin = time.perf_counter()
        prepared.call()
        seconds = time.perf_counter() - begin
    try:
        return prepared, judge(prepared.canonical(result), problem, peer), seconds
    except truth.WrongAnswer as wrong:
        return refusal(f"wrong answer, not timed: {wrong}", wrong=True)


def burst(call, burst_s):
    """Seconds per call of a burst, a list: at least one call, more until ``burst_s`` have passed.

    The first call only warms up, unless it alone takes more than ten bursts.
    """
    clock = time.perf_counter
    begin = clock()
    call()
    once = clock() - begin
    if once > 10 * burst_s:
        return [once]
    if once > burst_s:
        begin = clock()
        call()
        return [clock() - begin]
    group = range(max(1, int(GROUP_S / once)))
    samples, end = [], clock() + burst_s
    while not samples or clock() < end:
        begin = clock()
        for _ in group:
            call()
        samples.append((clock() - begin) / len(group))
    return samples


def interleave(works: dict[object, Callable], pace, sleep=time.sleep):
    """Run every work once per round, in rotated order, sleeping in between; lists of what they returned, by key."""
    keys, results = list(works), {key: [] for key in works}
    for turn in range(pace.rounds):
        shift = turn % max(1, len(keys))
        for key in keys[shift:] + keys[:shift]:
            results[key].append(works[key]())
            sleep(pace.settle_s)
    return results


def measure(problem, contenders, pace=FULL, probes=None, patience=None):
    """Time contenders on one case in interleaved rounds, with ``probes`` (samplers of ceilings) in the same rounds.

    Returns
    -------
    timings : list of Timing
    refusals : list of Refusal
    probed : dict
        Samples of each probe, one per round.
    """
    works, prepared_errors, refusals = dict(probes or {}), {}, []
    for contender in contenders:
        reason = patience.reason(problem, contender.peer) if patience else None
        if reason:
            refusals.append(Refusal(str(problem), contender.peer.name, contender.out, reason))
            continue
        prepared, found, _ = prepare(problem, contender)
        if prepared is None:
            refusals.append(found)
            continue
        prepared_errors[contender] = found

        def work(contender=contender, call=prepared.call):
            with setting(contender):
                return burst(call, pace.burst_s)

        works[contender] = work
    results = interleave(works, pace)
    timings = [_timing(problem, contender, results[contender], found) for contender, found in prepared_errors.items()]
    if patience:
        for contender, timing in zip(prepared_errors, timings, strict=True):
            patience.learn(problem, contender.peer, timing.best_s)
    return timings, refusals, {key: results[key] for key in probes or ()}


def _timing(problem, contender, rounds, worst_error):
    samples = np.concatenate(rounds)
    q1, median, q3 = np.percentile(samples, [25, 50, 75])
    peer, threads, out = contender
    return Timing(
        problem=str(problem),
        peer=peer.name,
        threads=threads or LIBRARIES[peer.module].threads(),
        default_threads=threads is None,
        out=out,
        calls=len(samples),
        median_s=float(median),
        q1_s=float(q1),
        q3_s=float(q3),
        best_s=float(samples.min()),
        rounds_s=tuple(float(np.median(samples)) for samples in rounds),
        worst_error=worst_error,
    )


def ratio(slow, fast):
    """How many times faster ``fast`` is: the median over rounds of the ratio, so that a drift of the machine cancels."""
    return float(np.median(np.divide(slow.rounds_s, fast.rounds_s)))


def settings_of(peers, threads=(None, 1), outs=(False, True)):
    """Contenders of the given peers: default threads and one thread (libraries that have several), new results and ``out``."""
    single = {"scipy"}
    return [
        Contender(peer, n, out)
        for peer in peers
        for n in threads
        for out in outs
        if (peer.takes_out or not out) and (n is None or peer.module not in single)
    ]
