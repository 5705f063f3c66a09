"""One run: ceilings, figures and grids of this tree, gathered in one JSON document."""

import json
from pathlib import Path

from bench import figures, filters, integers, layers, training
from bench.cases import short
from bench.grids import GRIDS, measure_ceilings, run_grid, scalings
from bench.machine import describe, load_average
from bench.measure import FULL, QUICK

RESULTS = Path(__file__).parent / "results"
FORMAT = 1
QUICK_LARGEST, FULL_LARGEST = 1024, 8192
LAYERS = (*layers.SUITES, *training.SUITES, *integers.SUITES)
SUITES = (*figures.SUITES, *filters.SUITES, *LAYERS)
NAMES = (*(suite.name for suite in SUITES), *GRIDS)
BATCHED = ("layers", "functional", "backward", "integers")
GROUPS = {"filters": tuple(suite.name for suite in filters.SUITES), "networks": BATCHED}


def expand(names, batch=1):
    """The suites that are meant, groups by their members, layers in batches of so many images."""
    found = dict.fromkeys(member for name in names for member in GROUPS.get(name, (name,)))
    return tuple(layers.batched(name, batch) if name in BATCHED else name for name in found)


def keeper(quick, match, largest=FULL_LARGEST):
    """Which cases are measured: those whose text, long or short, holds ``match``, of images up to ``largest``; quick ones are small."""
    largest = min(largest, QUICK_LARGEST if quick else FULL_LARGEST)

    def keep(problem):
        return max(problem.ih, problem.iw) <= largest and (match in str(problem) or match in short(str(problem)))

    return keep


def run(names=NAMES, quick=False, match="", largest=FULL_LARGEST, report=lambda text: None, show=lambda figure: None):
    """Measure the named suites.

    Parameters
    ----------
    names : sequence of str
        Figures and grids, of `NAMES`.
    quick : bool
        Few rounds, short bursts, small images: shows that everything works, proves no figure.
    match : str
        Only cases whose text contains it.
    largest : int
        Only images of at most so many rows and columns.
    report, show : callable
        Called with a line of progress, and with each `Figure` as it is ready.

    Returns
    -------
    dict
        The document that `save` writes.
    """
    pace, keep = QUICK if quick else FULL, keeper(quick, match, largest)
    document = {"format": FORMAT, **describe(), "suites": list(names), "quick": quick, "match": match,
                "largest": largest, "pace": pace._asdict()}  # fmt: skip
    report("ceilings")
    found = measure_ceilings(samples=pace.rounds, largest=min(largest, QUICK_LARGEST if quick else FULL_LARGEST))
    for scaling in scalings(found):
        report(f"all threads reach {scaling:.2f} times one thread's FMA peak: the cores are busy, shared, or slower together")
    document |= {"ceilings": [ceiling.as_dict() for ceiling in found], "figures": [], "cells": [], "refusals": []}

    def gather(suite, cells, refusals):
        document["cells"] += [{"suite": suite} | cell.as_dict() for cell in cells]
        document["refusals"] += [{"suite": suite} | refusal.as_dict() for refusal in refusals]

    for suite in SUITES:
        if suite.name in names:
            report(f"{suite.name}: {suite.claim}")
            figure = suite.run(pace, keep)
            show(figure)
            gather(suite.name, figure.cells, figure.refusals)
            document["figures"].append({key: value for key, value in figure.as_dict().items() if key not in ("cells", "refusals")})
    for name in GRIDS:
        if name in names:
            gather(name, *run_grid(name, pace, keep, lambda problem, name=name: report(f"{name}: {problem}")))
    document["machine"]["load_after"] = load_average()
    return document


def path_of(name):
    """The file of a saved run."""
    return RESULTS / f"{name}.json"


def default_name(document):
    """Commit, marked when the tree differs from it or the run was a quick one."""
    return document["commit"] + ("-dirty" if document["dirty"] else "") + ("-quick" if document["quick"] else "")


def save(document, name):
    """Write a run under its name; its path."""
    RESULTS.mkdir(exist_ok=True)
    path = path_of(name)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path


def load(name):
    """Read a saved run.

    Raises
    ------
    FileNotFoundError, ValueError
        There is none of that name, or another version wrote it.
    """
    path = path_of(name)
    if not path.exists():
        raise FileNotFoundError(f"no run named {name!r}; there are: {', '.join(sorted(p.stem for p in RESULTS.glob('*.json'))) or 'none'}")
    document = json.loads(path.read_text(encoding="utf-8"))
    if document.get("format") != FORMAT:
        raise ValueError(f"run {name!r} has format {document.get('format')!r}; this is {FORMAT}")
    return document
