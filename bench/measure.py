"""Timing: bursts, interleaved, after the answer is checked.

Thread pools of two libraries spin against each other when both have just worked. So each contender runs a burst of
calls, then everything sleeps until its pool has stopped spinning, then the next one runs; rounds of this are
repeated in rotated order, and medians are taken. What is compared is measured in the same rounds. A case is a `Problem`
or a `calls.Call`: both have a text, and a peer to set them up.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from bench import calls, truth
from bench.calls import Call
from bench.peers import LIBRARIES, Peer
from fastconv.planning.planner import plan_problem

GROUP_S = 50e-6  # shorter calls are timed in groups: reading the clock twice takes about 0.1 us
ESTIMATE_S = 0.005  # the first guess at a call's time is the best of those that fit
LEAST_ROUNDS = 3
TELLING = 2**20  # pixels of an image on which what a call costs beside its arithmetic no longer counts
OURS = "fastconv"


class Pace(NamedTuple):
    """How long to measure: rounds, seconds of one burst, of sleep after it, of the longest call that is waited for.

    Where all rounds of a case would take more than ``case_s``, there are fewer, but `LEAST_ROUNDS`.
    """

    rounds: int = 7
    burst_s: float = 0.03
    settle_s: float = 0.03  # GNU OpenMP spins for up to 12 ms after a region
    longest_s: float = 4.0
    case_s: float = 120.0


# no shorter sleep than OpenMP spins: after 5 ms calls on two threads behind torch's read up to twice as long as they take
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
    """Skips sizes that a peer would take too long for, judged by its time at the size before (cases ascend), ours by its plan.

    Too long is more than ``longest_s``, ``slower`` times the call that is expected to be the fastest, or, judged by an image
    of `TELLING` pixels, ``beaten`` times the fastest peer's. A `calls.Call` is waited for.
    """

    def __init__(self, longest_s, slower=float("inf"), beaten=float("inf")):
        self.longest_s, self.slower, self.beaten = longest_s, slower, beaten
        self._known = {}

    def _same_but_size(self, problem):
        return self._known.setdefault((problem.ic, problem.oc, problem.kh, problem.kw, problem.sh, problem.src), {})

    def reason(self, problem, peer):
        """Why not to wait for it, or None."""
        if isinstance(problem, Call):
            return None
        if peer.module == OURS and peer.reject(problem) is None:
            predicted = plan_problem(problem, algorithm=peer.algorithm).cost
            return f"about {predicted:.1f} s per call, as it is planned" if predicted > self.longest_s else None
        expected = {name: (s * problem.flops / known.flops, known) for name, (known, s) in self._same_but_size(problem).items()}
        seconds, known = expected.get(peer.name, (0.0, problem))
        judged_by = f"judged by {known.ih}x{known.iw}"
        if seconds > self.longest_s:
            return f"about {seconds:.1f} s per call, {judged_by}"
        for what, names, most in (
            ("fastest", expected, self.slower),
            ("fastest peer", [name for name in expected if not name.startswith(OURS)], self.beaten),
        ):
            times = seconds / min((expected[name][0] for name in names), default=1.0)
            if times > most and (names is expected or known.ih * known.iw >= TELLING):
                return f"about {times:.0f} times slower than the {what}, {judged_by}"
        return None

    def learn(self, problem, peer, seconds):
        """Remember what a call took."""
        if not isinstance(problem, Call):
            self._same_but_size(problem)[peer.name] = problem, seconds


def setting(contender):
    """Context manager that puts the contender's library into its number of threads."""
    return LIBRARIES[contender.peer.module].limit(contender.threads) if contender.threads else nullcontext()


def operands_of(case):
    """Arguments of a call, operands of a problem; the same in every run."""
    return calls.operands(case) if isinstance(case, Call) else truth.operands(case)


def judge(result, problem, peer):
    """Check a peer's answer: ours by the class of the algorithm that computes it, a call's by the imitated library's."""
    if isinstance(problem, Call):
        return calls.check(result, problem)
    algorithm = None
    if peer.module == OURS:
        algorithm = peer.algorithm or plan_problem(problem).algorithm
    return truth.check(result, problem, algorithm, peer.transform)


_judged = {}  # worst error of each case and contender that was right: its operands are the same whenever it comes again


def _estimate(call):
    """Seconds of a call: the best of those that fit into ESTIMATE_S, or the only one."""
    clock = time.perf_counter
    best, end = float("inf"), clock() + ESTIMATE_S
    while best == float("inf") or clock() < end:
        begin = clock()
        call()
        best = min(best, clock() - begin)
    return best


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
            prepared = peer.setup(problem, operands_of(problem), contender.threads, out)
            result = prepared.call()
        except ValueError as reason:  # "a named algorithm that cannot run raises ValueError with its reason"
            if peer.module != OURS:
                raise
            return refusal(str(reason))
        seconds = _estimate(prepared.call)
    key = str(problem), contender
    try:
        if key not in _judged:
            _judged[key] = judge(prepared.canonical(result), problem, peer)
    except truth.WrongAnswer as wrong:
        return refusal(f"wrong answer, not timed: {wrong}", wrong=True)
    return prepared, _judged[key], seconds


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


def _beaten(estimates, times):
    """Peers that take, in their best setting, more than so many times as long as the fastest peer: how many times, by name."""
    best = {}
    for (_, contender), seconds in estimates.items():
        if contender.peer.module != OURS:
            best[contender.peer.name] = min(seconds, best.get(contender.peer.name, seconds))
    fastest = min(best.values(), default=1.0)
    return {name: seconds / fastest for name, seconds in best.items() if seconds > times * fastest}


def _rounds(pace, estimates, probes):
    """How many rounds fit into the case's time; a call that is shorter than ten bursts runs twice at least."""
    calls_s = sum(max(s if s > 10 * pace.burst_s else 2 * s, pace.burst_s) for s in estimates)
    round_s = calls_s + probes * pace.burst_s + (len(estimates) + probes) * pace.settle_s
    return min(pace.rounds, max(LEAST_ROUNDS, int(pace.case_s / round_s))) if round_s else pace.rounds


def measure_together(pairs, pace=FULL, probes=None, patience=None, beaten=float("inf")):
    """Time (case, contender) pairs in interleaved rounds, with ``probes`` (samplers of ceilings) in the same rounds.

    ``beaten``: a peer that takes so many times as long as the fastest peer is not timed any further.

    Returns
    -------
    timings : list of Timing
    refusals : list of Refusal
    probed : dict
        Samples of each probe, one per round.
    """
    prepared, errors, estimates, refusals = {}, {}, {}, []
    for problem, contender in pairs:
        reason = patience.reason(problem, contender.peer) if patience else None
        if reason:
            refusals.append(Refusal(str(problem), contender.peer.name, contender.out, reason))
            continue
        ready, found, seconds = prepare(problem, contender)
        if ready is None:
            refusals.append(found)
            continue
        key = problem, contender
        prepared[key], errors[key], estimates[key] = ready, found, seconds
    if patience:
        for (problem, contender), seconds in estimates.items():
            patience.learn(problem, contender.peer, seconds)
    behind = _beaten(estimates, beaten)
    for problem, contender in [key for key in prepared if key[1].peer.name in behind]:
        reason = f"one call took {behind[contender.peer.name]:.0f} times as long as that of the fastest peer"
        refusals.append(Refusal(str(problem), contender.peer.name, contender.out, reason))
        for found in (prepared, errors, estimates):
            del found[problem, contender]

    def worker(contender, call):
        def work():
            with setting(contender):
                return burst(call, pace.burst_s)

        return work

    works = dict(probes or {}) | {key: worker(key[1], ready.call) for key, ready in prepared.items()}
    results = interleave(works, pace._replace(rounds=_rounds(pace, estimates.values(), len(probes or ()))))
    timings = [_timing(*key, results[key], error) for key, error in errors.items()]
    if patience:
        for (problem, contender), timing in zip(errors, timings, strict=True):
            patience.learn(problem, contender.peer, timing.best_s)
    return timings, refusals, {key: results[key] for key in probes or ()}


def measure(problem, contenders, pace=FULL, probes=None, patience=None, beaten=float("inf")):
    """`measure_together` of one case."""
    return measure_together([(problem, contender) for contender in contenders], pace, probes, patience, beaten)


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
