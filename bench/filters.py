"""The figures of image filtering: each case against the fastest peer of all, into a given array and with a new result.

The judged value is the worse of the two settings with default threads; one thread is measured beside it, into a given
array where the library has such an argument. Peers that cannot be the fastest are left out, with the reason.
"""

from statistics import geometric_mean, median

from bench import calls, cases, ceilings
from bench.figures import IMPOSSIBLE, WHOLE, Figure, Row, Suite, best_of, by_setting, counterpart, variant, why
from bench.measure import OURS, Contender, Patience, measure, measure_together, ratio, settings_of
from bench.peers import LIBRARIES, NAMED
from fastconv.planning.problem import BORDERS, DTYPES

ALL = NAMED | {peer.name: peer for peer in calls.PEERS}
MOST_ROUNDS, BURST_S, SETTLE_S, CASE_S = 5, 0.01, 0.01, 2.0  # there are hundreds of cases
SLOWER = 40  # a peer that is expected to take so many times as long as the fastest is not waited for
BEATEN = 8  # one whose first calls take so many times as long as the fastest peer's is not timed
PROBE_S = 0.005
NEW, INTO, ONE_INTO = variant(True, False), variant(True, True), variant(False, True)


def hurried(pace):
    """The pace of these figures: the given one, bounded."""
    return pace._replace(
        rounds=min(pace.rounds, MOST_ROUNDS),
        burst_s=min(pace.burst_s, BURST_S),
        settle_s=min(pace.settle_s, SETTLE_S),
        case_s=min(pace.case_s, CASE_S),
    )


def contenders_of(names):
    """Default threads with a new result and into out, one thread into out; new results of peers that have no out."""
    return [contender for contender in settings_of([ALL[name] for name in names]) if not _is_extra(contender)]


def _is_extra(contender):
    return contender.threads and contender.out != contender.peer.takes_out


def _keepers(case_list, keep):
    return list(filter(keep, cases.load(case_list)))


# --- against the fastest peer


def _against_fastest(case, ours, peers, target, timings, refusals):
    values, fastest = {}, {}
    for (default, out), timing in by_setting(timings, ours).items():
        found = {peer: counterpart(by_setting(timings, peer), default, out) for peer in peers}
        ratios = {peer: ratio(against, timing) for peer, against in found.items() if against}
        if ratios:
            fastest[variant(default, out)] = min(ratios, key=ratios.get)
            values[variant(default, out)] = min(ratios.values())
    judged = min((name for name in (NEW, INTO) if name in values), key=values.get, default=None)
    measured = values[judged] if NEW in values and INTO in values else None
    note = why(refusals, ours, *peers) if measured is None else ""
    return Row(str(case), measured, target, values, note, against=fastest.get(judged, ""))


def with_mean(rows, target):
    """The rows and, where there are any, that of the geometric mean: of the judged values, and of each setting that all cases have."""
    if not rows or any(row.measured is None for row in rows):
        return [*rows, Row(WHOLE, None, target)] if rows else []
    names = [name for name in rows[0].values if all(name in row.values for row in rows)]
    values = {name: geometric_mean([row.values[name] for row in rows]) for name in names}
    return [*rows, Row(WHOLE, geometric_mean([row.measured for row in rows]), target, values)]


def against_fastest(name, claim, case_list, ours, peers, each, whole):
    """Figure of how many times faster than the fastest peer: at least ``each(case)``, and ``whole`` in the geometric mean."""

    def run(pace, keep=lambda case: True):
        rows, cells, all_refusals, pace = [], [], [], hurried(pace)
        patience = Patience(pace.longest_s, SLOWER, BEATEN)
        for case in _keepers(case_list, keep):
            timings, refusals, _ = measure(case, contenders_of((ours, *peers)), pace, patience=patience, beaten=BEATEN)
            rows.append(_against_fastest(case, ours, peers, each(case), timings, refusals))
            cells += timings
            all_refusals += refusals
        return Figure(name, claim, "x", with_mean(rows, whole), cells, all_refusals)

    return Suite(name, claim, run)


# --- against the roof


def traffic(problem):
    """Bytes of the source and of the result."""
    p = problem
    return p.n * (p.ic * p.ih * p.iw * DTYPES[p.src].itemsize + p.oc * p.oh * p.ow * DTYPES[p.dst].itemsize)


def roof_probes(problem):
    """Samplers of the FMA peak and of the copy rate at the problem's footprint, ordinary and non-temporal; all threads and one."""
    probes, every = {}, LIBRARIES[OURS].threads()
    for default in (True, False):
        threads = every if default else 1
        probes["fma", default] = best_of(ceilings.fma_sampler(problem.acc.replace("f", "float"), threads, PROBE_S))
        for nontemporal in (False, True):
            probes["copy", default, nontemporal] = best_of(ceilings.copy_sampler(traffic(problem), threads, nontemporal, PROBE_S))
    return probes


def roof_seconds(problem, peak, copy_rate):
    """``Roof(problem)``: the longer of the arithmetic at the FMA peak and the traffic at the copy rate."""
    return max(problem.flops / peak, traffic(problem) / copy_rate)


def _best_beside(samples):
    """For each round the best sample of it, the one before and the one behind it."""
    return [max(samples[max(at - 1, 0) : at + 2]) for at in range(len(samples))]


def roof_row(problem, peer, timings, refusals, probed, target):
    """The share of the roof in each setting: the median over rounds, each with the ceilings that it and the rounds beside it found.

    A ceiling is what the machine can do: a sample that found a core busy says nothing of it, and a round's speed is that of its neighbours.
    """
    values, bound_by = {}, ""
    for (default, out), timing in by_setting(timings, peer).items():
        peaks = _best_beside(probed["fma", default])
        copies = _best_beside([max(pair) for pair in zip(probed["copy", default, False], probed["copy", default, True], strict=True)])
        roofs = [roof_seconds(problem, *found) for found in zip(peaks, copies, strict=True)]
        values[variant(default, out)] = median(roof / s for roof, s in zip(roofs, timing.rounds_s, strict=True))
        if default:
            bound_by = "FMA" if problem.flops / median(peaks) >= traffic(problem) / median(copies) else "copy"
    measured, note = values.get(INTO), why(refusals, peer)
    if max(values.values(), default=0) > 1:
        note = "above the roof: the roof is wrong, or the cores were busy when it was sampled"
        measured = None if max(values.values()) > IMPOSSIBLE else measured
    return Row(str(problem), measured, target, values, note, against=bound_by)


def sampled(probed):
    """The ceilings that `roof_probes` found, as `ceilings.Ceiling`s: those of one kind and footprint together.

    ``probed`` is a list of pairs: a problem, and the samples of each probe.
    """
    pooled, every = {}, LIBRARIES[OURS].threads()
    for problem, found in probed:
        for (kind, default, *nontemporal), samples in found.items():
            what = {"dtype": problem.acc.replace("f", "float")} if kind == "fma" else {"footprint_bytes": traffic(problem)}
            key = kind, every if default else 1, any(nontemporal), *what.items()
            pooled.setdefault(key, []).extend(samples)
    return [
        ceilings.summarise(kind, samples, threads=threads, nontemporal=nontemporal, **dict(what))
        for (kind, threads, nontemporal, *what), samples in pooled.items()
    ]


def of_roof(name, claim, case_list, ours, each, whole, least):
    """Figure of the share of the roof, into ``out``, of images of at least so many rows."""

    def run(pace, keep=lambda case: True):
        rows, cells, all_refusals, all_probed, pace = [], [], [], [], hurried(pace)
        contenders = [Contender(ALL[ours], threads, out=True) for threads in (None, 1)]
        for problem in _keepers(case_list, keep):
            if problem.ih >= least:
                timings, refusals, probed = measure(problem, contenders, pace, roof_probes(problem))
                rows.append(roof_row(problem, ours, timings, refusals, probed, each))
                all_probed.append((problem, probed))
                cells += timings
                all_refusals += refusals
        return Figure(name, claim, "of roof", with_mean(rows, whole), cells, all_refusals, sampled(all_probed))

    return Suite(name, claim, run)


# --- small calls and borders


def _run_calls(pace, keep=lambda case: True):
    rows, cells, all_refusals, pace, theirs = [], [], [], hurried(pace), "cv2.filter2D"
    targets = {"fastconv.conv2d": 0.6, "fastconv.plan": 1.0}
    for problem in _keepers("calls", keep):
        timings, refusals, _ = measure(problem, contenders_of((*targets, theirs)), pace)
        for ours, target in targets.items():
            row = _against_fastest(problem, ours, (theirs,), target, timings, refusals)
            if ours == "fastconv.plan":  # promised into out; what it takes with a new result is context
                row = Row(row.case, row.values.get(INTO), target, row.values, why(refusals, ours, theirs))
            rows.append(Row(f"{row.case} {ours}", row.measured, target, row.values, row.note))
        cells += timings
        all_refusals += refusals
    return Figure("calls", CALLS, "x", rows, cells, all_refusals)


def _run_borders(pace, keep=lambda case: True):
    rows, cells, all_refusals, ours = [], [], [], "fastconv.conv2d"
    pace = hurried(pace)
    # a few per cent are told from a machine's whims by many short rounds; nobody else's threads spin meanwhile
    pace = pace._replace(rounds=5 * pace.rounds, burst_s=pace.burst_s / 3, settle_s=pace.settle_s / 10)
    for problem in _keepers("borders", keep):
        every = {border: problem.replace(border=border) for border in BORDERS}
        pairs = [(case, contender) for case in every.values() for contender in contenders_of((ours,))]
        timings, refusals, _ = measure_together(pairs, pace)
        zeros = by_setting([timing for timing in timings if timing.problem == str(problem)], ours)
        for border, case in every.items():
            if border != problem.border:
                found = by_setting([timing for timing in timings if timing.problem == str(case)], ours)
                values = {variant(*key): ratio(timing, zeros[key]) for key, timing in found.items() if key in zeros}
                both = [values[name] for name in (NEW, INTO) if name in values]
                measured = max(both) if len(both) == 2 else None
                rows.append(Row(str(case), measured, 1.05, values, why(refusals, ours), at_most=True))
        cells += timings
        all_refusals += refusals
    return Figure("borders", BORDERS_CLAIM, "x", rows, cells, all_refusals)


CALLS = "conv2d on 8x8 to 64x64, per call: 0.6 times as fast as cv2.filter2D; plan(x, out=out) as fast"
BORDERS_CLAIM = "every border within 5% of the time of zeros around the image"
SCIPY = ("scipy.ndimage.correlate", "scipy.signal.oaconvolve", "scipy.signal.correlate2d")
DFT = ("scipy.signal.oaconvolve", "scipy.signal.fftconvolve")

SUITES = (
    against_fastest("images", "float32, 128 to 8192, k 3 to 21, over OpenCV, torch and SciPy: 5x in the mean, each 2.5x (128: 1.5x)",
                    "float32", "fastconv.conv2d", ("cv2.filter2D", "torch", *SCIPY), lambda p: 1.5 if p.ih == 128 else 2.5, 5),
    of_roof("roof", "direct, float32, 512 to 8192, k 3 to 21, into out=: 85% of the roof in the mean, each 70%",
            "float32", "fastconv direct", 0.70, 0.85, least=512),
    against_fastest("strided", "float32, stride 2, over filtering and then slicing: 8x in the mean, each 3x",
                    "strided", "fastconv.conv2d", ("cv2.filter2D, sliced", "torch"), lambda p: 3, 8),
    against_fastest("double", "float64 over OpenCV: 5x in the mean, each 2x",
                    "float64", "fastconv.conv2d", ("cv2.filter2D",), lambda p: 2, 5),
    against_fastest("bytes", "filter2D from uint8 to uint8, k 3 to 15, 1, 3 and 4 channels, over OpenCV: 6x in the mean, each 3x",
                    "bytes", "fastconv.opencv.filter2D", ("cv2.filter2D",), lambda p: 3, 6),
    against_fastest("smooth", "Gaussian, box, Sobel, sepFilter2D, uint8 and float32, k 3 to 15, over OpenCV: 1.5x in the mean, each 1x",
                    "smooth", "fastconv.opencv", ("cv2",), lambda call: 1, 1.5),
    against_fastest("ndimage", "gaussian_filter, uniform_filter, sobel on float32 over SciPy: 20x in the mean, each 10x",
                    "ndimage", "fastconv.ndimage", ("scipy.ndimage",), lambda call: 10, 20),
    against_fastest("large", "k 31, 63, 127 and autocorrelation, over OpenCV and SciPy's DFTs on all cores: 2x in the mean, each 1.3x",
                    "large", "fastconv.correlate2d", ("cv2.filter2D", *DFT), lambda p: 1.3, 2),
    Suite("calls", CALLS, _run_calls),
    Suite("borders", BORDERS_CLAIM, _run_borders),
)  # fmt: skip
