"""The layers of networks: ours in the better of both layouts against the best of torch's layouts, ONNX Runtime and OpenVINO.

Weights are packed beforehand, results go into memory that exists (torch has no such argument), all with their default threads. The
share of the peak is of the direct formula's arithmetic: an algorithm of fewer multiplications can be above it.
"""

from statistics import geometric_mean
from typing import NamedTuple

from bench import cases
from bench.figures import Figure, Row, Suite, peak_probes, why
from bench.filters import hurried
from bench.measure import Contender, measure, ratio
from bench.peers import NAMED

PLANS = ("fastconv.plan", "fastconv.plan NHWC")
PEERS = ("torch", "torch channels_last", "onnxruntime", "openvino")
SETTLE_S = 0.015  # GNU OpenMP spins for up to 12 ms after a region
BATCHES = (1, 8)


class Kind(NamedTuple):
    """Layers with one target: of their geometric mean, and of each of them."""

    name: str
    whole: float
    each: float


SPECIAL = Kind("depthwise, grouped, first", 2.2, 1.3)
SQUARE = Kind("3x3, stride 1, 32 channels and more", 2.0, 1.2)
POINTWISE = Kind("1x1", 1.07, 0.95)
OTHER = Kind("others", 1.0, 0.95)
EVERY = Kind("all layers", 1.4, 0.95)
FEW, MANY, TINY = 4, 32, 7


def kind_of(p):
    """The targets that a layer is judged by."""
    if p.g > 1 or p.ic <= FEW:
        return SPECIAL
    if p.kh == p.kw == 1:
        return POINTWISE
    square = (p.kh, p.kw, p.sh, p.sw) == (3, 3, 1, 1) and min(p.ic, p.oc) >= MANY
    return SQUARE if square else OTHER


def least(p):
    """How many times faster than the best peer a layer has to be."""
    return 1.0 if kind_of(p) is SQUARE and p.ih <= TINY else kind_of(p).each


def every_layer(batch):
    """The distinct layers of all networks, kind by kind."""
    problems = dict.fromkeys(problem.replace(n=batch) for network in cases.NETWORKS for problem in cases.load(network))
    order = [SPECIAL, SQUARE, POINTWISE, OTHER]
    return sorted(problems, key=lambda p: order.index(kind_of(p)))


def row_of(problem, timings, refusals, probed, pair=(PLANS, PEERS), target=None, case=None):
    """The best of ours against the best of the peers; ``pair`` are the names of both."""
    ours, theirs = ([timing for timing in timings if timing.peer in names] for names in pair)
    case, target = case or str(problem), target or least(problem)
    if not ours or not theirs:
        return Row(case, None, target, note=why(refusals, *pair[0], *pair[1]))
    # of each of ours the peer that is nearest to it, and of ours the one that is furthest ahead
    pairs = [min(((ratio(slow, fast), fast, slow) for slow in theirs), key=lambda pair: pair[0]) for fast in ours]
    measured, fast, slow = max(pairs, key=lambda pair: pair[0])
    rate = problem.flops / fast.median_s
    details = {
        "ours": "NHWC" if fast.peer.endswith(("NHWC", "channels_last")) else "NCHW",
        "us": f"{fast.median_s * 1e6:.4g}",
        "peer's": f"{slow.median_s * 1e6:.4g}",
        "GFLOP/s": f"{rate / 1e9:.0f}",
        "of peak": f"{100 * rate / max(probed['fma', True]):.0f}%",
        "of bound": f"{100 * fast.worst_error:.0f}%",
    }
    return Row(case, measured, target, against=slow.peer, details=details)


def mean_of(name, rows, target):
    """The row of a geometric mean, which is missing where one of the rows is."""
    found = [row.measured for row in rows]
    return Row(name, None if None in found else geometric_mean(found), target)


def _means(problems, rows):
    """The geometric mean of each kind, and of all."""
    for kind in (SPECIAL, SQUARE, POINTWISE, OTHER, EVERY):
        found = [row for problem, row in zip(problems, rows, strict=True) if kind in (EVERY, kind_of(problem))]
        if found:
            yield mean_of(f"geometric mean: {kind.name}", found, kind.whole)


def paced(pace):
    """The pace of layers, of which there are about eighty."""
    return hurried(pace)._replace(settle_s=min(pace.settle_s, SETTLE_S))


def probes_of_all_threads():
    """Samplers of the FMA peak of all threads."""
    return {key: sample for key, sample in peak_probes().items() if key[1]}


def batched(name, batch):
    """The name of a suite of layers in batches of so many images."""
    return name if batch == 1 else f"{name}-{batch}"


def _suite(name, batch):
    claim = f"layers of four networks, batch {batch}, over the best of torch, ONNX Runtime and OpenVINO"

    def run(pace, keep=lambda problem: True):
        rows, cells, all_refusals = [], [], []
        pace, probes = paced(pace), probes_of_all_threads()
        problems = list(filter(keep, every_layer(batch)))
        for problem in problems:
            contenders = [Contender(NAMED[peer], out=NAMED[peer].takes_out) for peer in (*PLANS, *PEERS)]
            timings, refusals, probed = measure(problem, contenders, pace, probes)
            rows.append(row_of(problem, timings, refusals, probed))
            cells += timings
            all_refusals += refusals
        return Figure(name, claim, "x", [*rows, *_means(problems, rows)], cells, all_refusals)

    return Suite(name, claim, run)


SUITES = tuple(_suite(batched("layers", batch), batch) for batch in BATCHES)
