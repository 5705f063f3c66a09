"""The grids: every peer on every case, for the plots and tables and for `compare`; nothing is judged here."""

from bench import cases, ceilings
from bench.measure import Patience, measure, settings_of
from bench.peers import IMAGE_PEERS, LIBRARIES

GRIDS = {"image-grid": (("images",), IMAGE_PEERS)}
F32_BYTES = 4
MOST_ROUNDS = 5  # a grid has thousands of cells


def run_grid(name, pace, keep=lambda problem: True, report=lambda problem: None):
    """Time a grid; ``report`` is called with each case before it is measured."""
    lists, peers = GRIDS[name]
    pace = pace._replace(rounds=min(pace.rounds, MOST_ROUNDS))
    patience = Patience(pace.longest_s / 2)
    contenders = [contender for contender in settings_of(peers) if not (contender.threads and contender.out)]
    timings, refusals = [], []
    for problem in dict.fromkeys(problem for case_list in lists for problem in cases.load(case_list) if keep(problem)):
        report(problem)
        found, refused, _ = measure(problem, contenders, pace, patience=patience)
        timings += found
        refusals += refused
    return timings, refusals


def measure_ceilings(samples, largest):
    """FMA peaks, and copy bandwidths at the footprints of float32 images up to ``largest`` squared; one thread and all."""
    counts = dict.fromkeys((1, LIBRARIES["fastconv"].threads()))
    sizes = sorted({problem.ih for problem in cases.load("images") if problem.ih <= largest})
    peaks = [ceilings.fma_peak(dtype, n, samples) for dtype in ("float32", "float64") for n in counts]
    copies = [
        ceilings.copy_bandwidth(2 * size * size * F32_BYTES, n, nontemporal, samples)
        for size in sizes
        for n in counts
        for nontemporal in (False, True)
    ]
    return peaks + copies


def scalings(found):
    """Where all threads together fall 10% short of so many times one thread's float32 FMA peak: how many times they reach."""
    peaks = {ceiling.threads: ceiling.median for ceiling in found if ceiling.kind == "fma" and ceiling.dtype == "float32"}
    return [peak / peaks[1] for threads, peak in peaks.items() if peak < 0.9 * threads * peaks[1]]
