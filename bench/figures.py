"""The figures that fastconv promises: each a list of cases, what is judged in them, and its target.

``figure.run(pace)`` returns a `Figure` with one `Row` per case; ``values`` holds every setting that was measured
(default threads, one thread, new results, into ``out``), ``measured`` the one that is judged against ``target``. A
case that could not be timed fails.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import geometric_mean, median
from typing import NamedTuple

from bench import cases, ceilings, startup
from bench.measure import measure, ratio, settings_of
from bench.peers import LIBRARIES, NAMED

JUDGED = "all"
WHOLE = "geometric mean"
PROBES = 3  # samples of the peak in one round, of which the best counts
IMPOSSIBLE = 1.03  # share of the peak from which on it is the peak's sample that is wrong


@dataclass(frozen=True)
class Row:
    """One case: the judged value (None where nothing could be timed), its target, and the values of all settings."""

    case: str
    measured: float | None
    target: float
    values: dict = field(default_factory=dict)
    note: str = ""
    at_most: bool = False
    against: str = ""  # the peer or the ceiling that it was measured against, where the cases differ in that
    details: dict = field(default_factory=dict)  # further columns, as they are printed

    @property
    def passed(self):
        if self.measured is None:
            return False
        return self.measured <= self.target if self.at_most else self.measured >= self.target


@dataclass(frozen=True)
class Figure:
    """A measured figure; ``cells``, ``refusals`` and ``ceilings`` are what it was computed from."""

    name: str
    claim: str
    unit: str
    rows: list
    cells: list = field(default_factory=list)
    refusals: list = field(default_factory=list)
    ceilings: list = field(default_factory=list)

    @property
    def passed(self):
        return bool(self.rows) and all(row.passed for row in self.rows)

    def as_dict(self):
        found = asdict(self) | {"passed": self.passed}
        for row, entry in zip(self.rows, found["rows"], strict=True):
            entry["passed"] = row.passed
        return found


def variant(default_threads, out):
    """How a setting is called in tables: all threads or one, a new result or into ``out``."""
    return (JUDGED if default_threads else "one") + (" out=" if out else "")


def by_setting(timings, peer):
    """Timings of a peer by (default threads, out)."""
    return {(timing.default_threads, timing.out): timing for timing in timings if timing.peer == peer}


def counterpart(slow, default_threads, out):
    """The timing of a peer to compare with: one without out= or without threads is compared in the setting that it has."""
    settings = (default_threads, out), (default_threads, False), (True, out), (True, False)
    return next((slow[key] for key in settings if key in slow), None)


def why(refusals, *peers):
    """In words, what kept these peers from being timed."""
    return "; ".join(dict.fromkeys(f"{refusal.peer}: {refusal.reason}" for refusal in refusals if refusal.peer in peers))


# --- against a peer


def _ratio_row(problem, ours, theirs, target, timings, refusals):
    fast, slow = by_setting(timings, ours), by_setting(timings, theirs)
    values = {}
    for (default, out), timing in fast.items():
        against = counterpart(slow, default, out)
        if against:
            values[variant(default, out)] = ratio(against, timing)
    return Row(str(problem), values.get(JUDGED), target, values, why(refusals, ours, theirs))


def against_peer(name, claim, case_list, ours, theirs, target, geometric=None):
    """Figure of how many times faster ours is than theirs; ``geometric`` is the target of the geometric mean over all cases."""

    def run(pace, keep=lambda problem: True):
        rows, cells, all_refusals = [], [], []
        contenders = settings_of([NAMED[ours], NAMED[theirs]])
        for problem in filter(keep, cases.load(case_list)):
            timings, refusals, _ = measure(problem, contenders, pace)
            rows.append(_ratio_row(problem, ours, theirs, target, timings, refusals))
            cells += timings
            all_refusals += refusals
        if geometric:
            whole = all(row.measured is not None for row in rows)
            mean = geometric_mean([row.measured for row in rows]) if rows and whole else None
            rows.append(Row(WHOLE, mean, geometric))
        return Figure(name, claim, "x", rows, cells, all_refusals)

    return Suite(name, claim, run)


# --- against the FMA peak


def best_of(sample):
    """A probe: the best of some samples of a ceiling."""
    return lambda: max(sample() for _ in range(PROBES))


def peak_probes():
    every = LIBRARIES["fastconv"].threads()
    samplers = {default: ceilings.fma_sampler("float32", every if default else 1, sample_s=0.01) for default in (True, False)}
    return {("fma", default): best_of(sample) for default, sample in samplers.items()}


def _share_row(problem, peer, timings, refusals, probed, target):
    values = {}
    for (default, out), timing in by_setting(timings, peer).items():
        shares = [problem.flops / seconds / peak for seconds, peak in zip(timing.rounds_s, probed["fma", default], strict=True)]
        values[variant(default, out)] = median(shares)
        if out:
            values[f"{variant(default, out)} best/best"] = problem.flops / timing.best_s / max(probed["fma", default])
    worst = [variant(True, True), variant(False, True)]  # both judged: into memory that exists, all threads and one
    measured = min(values[name] for name in worst) if all(name in values for name in worst) else None
    note = why(refusals, peer)
    if max(values.values(), default=0) > IMPOSSIBLE:
        measured, note = None, "above the peak: the cores were busy when it was sampled; run it again"
    return Row(f"{problem} {peer.removeprefix('fastconv ')}", measured, target, values, note)


def of_peak(name, claim, case_list, peers, target, chosen=lambda problem: True):
    """Figure of the share of the FMA peak, into ``out``, the worse of one thread and all.

    The peak is sampled in the same rounds and the share is the median over them; "best/best" divides the fastest
    call's rate by the highest peak seen. A share above the peak says that the cores were busy while it was sampled:
    such a row has no measurement.
    """

    def run(pace, keep=lambda problem: True):
        rows, cells, all_refusals = [], [], []
        probes = peak_probes()
        peaks = {key: [] for key in probes}
        contenders = settings_of([NAMED[peer] for peer in peers])
        for problem in filter(keep, filter(chosen, cases.load(case_list))):
            timings, refusals, probed = measure(problem, contenders, pace, probes)
            rows += [_share_row(problem, peer, timings, refusals, probed, target) for peer in peers]
            cells += timings
            all_refusals += refusals
            for key, samples in probed.items():
                peaks[key] += samples
        every = LIBRARIES["fastconv"].threads()
        measured = [
            ceilings.summarise("fma", samples, threads=every if default else 1, dtype="float32")
            for (_, default), samples in peaks.items()
            if samples
        ]
        return Figure(name, claim, "of peak", rows, cells, all_refusals, measured)

    return Suite(name, claim, run)


# --- small calls and fresh processes


def _run_small(pace, keep=lambda problem: True):
    ours, theirs, rows, cells, all_refusals = "fastconv.conv2d", "cv2.filter2D", [], [], []
    for problem in filter(keep, cases.load("small")):
        timings, refusals, _ = measure(problem, settings_of([NAMED[ours], NAMED[theirs]]), pace)
        microseconds = {key: timing.median_s * 1e6 for key, timing in by_setting(timings, ours).items()}
        values = {variant(*key): value for key, value in microseconds.items()}
        values |= {f"cv2 {variant(*key)}": timing.median_s * 1e6 for key, timing in by_setting(timings, theirs).items()}
        if problem.ih == problem.iw == 8:  # the larger ones are context
            rows.append(Row(str(problem), microseconds.get((True, False)), 5.0, values, why(refusals, ours, theirs), at_most=True))
        cells += timings
        all_refusals += refusals
    return Figure("small", SMALL, "us", rows, cells, all_refusals)


def _run_import(pace, keep=None):
    samples = startup.import_seconds(repeats=3 * pace.rounds)
    numpy_s, both_s = median(samples["numpy"]), median(samples["fastconv"])
    values = {"import numpy": numpy_s, "import numpy, fastconv": both_s}
    return Figure("import", IMPORT, "s", [Row("import fastconv - import numpy", both_s - numpy_s, 0.05, values, at_most=True)])


def _run_first(pace, keep=None):
    problem = next(p for p in cases.load("correlate") if p.ih == 512 and p.kh == 3 and p.oh == p.ih)
    samples, _ = startup.first_result_seconds(problem, repeats=pace.rounds, cold_repeats=max(1, pace.rounds // 2))
    scipy_s, warm_s, cold_s = (median(samples[name]) for name in ("scipy", "warm", "cold"))
    values = {"scipy.signal": scipy_s, "warm cache": warm_s, "cold cache": cold_s}
    rows = [
        Row(f"warm cache, against scipy.signal: {problem}", warm_s, scipy_s, values, at_most=True),
        Row(f"cold cache: {problem}", cold_s, 2.0, values, at_most=True),
    ]
    return Figure("first", FIRST, "s", rows)


class Suite(NamedTuple):
    """A named figure and how to measure it: ``run(pace, keep)`` with ``keep`` choosing among its cases."""

    name: str
    claim: str
    run: Callable


SMALL = "conv2d on an 8x8 image, 3x3: at most 5 us per call"
IMPORT = "import fastconv adds at most 0.05 s to import numpy"
FIRST = "a fresh process's first correlate2d: not later than with scipy.signal from a warm cache, below 2 s from a cold one"

SUITES = (
    against_peer("scipy", "correlate2d at least 100 times as fast as scipy.signal.correlate2d, every case",
                 "correlate", "fastconv.correlate2d", "scipy.signal.correlate2d", target=100),
    against_peer("opencv", "conv2d on one channel at least 4 times as fast as cv2.filter2D (geometric mean), never below 2",
                 "filter", "fastconv.conv2d", "cv2.filter2D", target=2, geometric=4),
    of_peak("direct", "direct, image in the cache: at least 75% of the FMA peak",
            "direct", ("fastconv direct",), target=0.75),
    of_peak("blocked", "blocked on ResNet-50's 3x3 layers, weights packed: at least 80% of the FMA peak",
            "resnet50", ("fastconv blocked", "fastconv blocked NHWC"), target=0.80, chosen=lambda p: p.kh == 3),
    Suite("import", IMPORT, _run_import),
    Suite("first", FIRST, _run_first),
    Suite("small", SMALL, _run_small),
)  # fmt: skip
