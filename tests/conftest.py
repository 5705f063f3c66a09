"""Options, what was skipped and exercised, and memory that is poisoned wherever fastconv asks for some."""

import functools
import sys
from collections import Counter

import numba  # noqa: F401 (it must have seen numpy.empty before it is replaced)
import numpy as np
import pytest

from fastconv.planning import workspaces

# Combinations of algorithm and case that a full run must exercise; raise them with the lists, never lower them quietly.
LEAST_EXERCISED = {
    "reference": 250,
    "direct": 235,
    "blocked": 150,
    "int8": 12,
    "depthwise": 18,
    "shallow": 62,
    "shallow_last": 12,
    "panel": 100,
    "transposed": 9,
    "folded": 6,
    "weights_parts": 5,
    "weights": 8,
    "weights_grouped": 6,
    "weights_rows": 4,
    "weights_planes": 3,
    "weights_shallow": 4,
    "weights_winograd": 4,
    "depthwise_image": 5,
    "grouped_image": 4,
    "depthwise_weights": 3,
    "complex": 15,
    "activated": 4,
    "separable": 200,
    "lowrank": 100,
    "sparse": 120,
    "fast_fir": 20,
    "fft": 110,
    "identity": 4,
    "masked": 4,
    "quotient": 4,
    "winograd": 50,
    "winograd_shallow": 50,
    "winograd_rows": 20,
    "winograd_rows_last": 20,
}


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--gpu", action="store_true", help="also run the tests marked gpu")


def pytest_collection_modifyitems(config, items):
    for mark in ("slow", "gpu"):
        if not config.getoption(mark):
            skip = pytest.mark.skip(reason=f"needs --{mark}")
            for item in items:
                if item.get_closest_marker(mark):
                    item.add_marker(skip)


@pytest.fixture
def exercised(record_property):
    """Call it with an algorithm's name and a case's where a result was compared."""
    return lambda algorithm, case: record_property("exercised", (algorithm, case))


def _reports(terminal, *outcomes):
    return [report for outcome in outcomes for report in terminal.stats.get(outcome, []) if hasattr(report, "user_properties")]


def _exercised(terminal):
    """The distinct cases of each algorithm that some test has passed or failed on."""
    found = {}
    for report in _reports(terminal, "passed", "failed"):
        for key, value in report.user_properties:
            if key == "exercised":
                found.setdefault(value[0], set()).add(value[1])
    return {name: len(cases) for name, cases in found.items()}


def _too_few(terminal):
    """What a full run did not exercise; nothing where only a part of the suite was asked for."""
    config = terminal.config
    option = config.option
    part = option.keyword or option.markexpr or option.deselect or option.maxfail or option.collectonly
    part = part or getattr(option, "lf", False) or config.args_source is config.ArgsSource.ARGS
    if part:
        return []
    from fastconv.planning.planner import algorithms, short_name

    counts = _exercised(terminal)
    wanted = {short_name(algorithm): 1 for algorithm in algorithms()} | LEAST_EXERCISED
    return [f"{name}: {counts.get(name, 0)} cases exercised, at least {least} expected"
            for name, least in wanted.items() if counts.get(name, 0) < least]  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and not hasattr(session.config, "workerinput") and _too_few(terminal):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in _reports(terminalreporter, "skipped"))
    terminalreporter.section("skipped, exercised")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"skipped {count} x: {reason}")
    refused = Counter(value for report in _reports(terminalreporter, "passed", "failed")
                      for key, value in report.user_properties if key == "refused")  # fmt: skip
    for reason, count in refused.most_common(20):
        terminalreporter.line(f"refused {count} x: {reason}")
    for name, count in _exercised(terminalreporter).items():
        terminalreporter.line(f"exercised {count} cases of {name}")
    for line in _too_few(terminalreporter):
        terminalreporter.line(f"FAILED: {line}", red=True)


def poison(array):
    """Fill an array with what no result holds: NaN, or bytes 0xA5."""
    if array.dtype.kind in "fc":
        array.fill(np.nan)
    elif array.dtype.kind in "iu" and array.flags.c_contiguous:
        array.reshape(-1).view(np.uint8).fill(0xA5)
    return array


def _poisoned(function):
    @functools.wraps(function)
    def allocate(*arguments, **keywords):
        array = function(*arguments, **keywords)
        return poison(array) if sys._getframe(1).f_globals.get("__name__", "").startswith("fastconv") else array

    return allocate


@pytest.fixture(autouse=True, scope="session")
def poisoned_memory():
    """``numpy.empty`` and ``empty_like`` called in fastconv's modules, and large results, are poison: what nobody writes is seen."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("empty", "empty_like"):
            patch.setattr(np, name, _poisoned(getattr(np, name)))
        take = workspaces.Workspaces.take

        def poisoned_take(kept, size):
            array = take(kept, size)
            array.fill(0xFF)  # NaN of floats
            return array

        patch.setattr(workspaces.results, "take", poisoned_take.__get__(workspaces.results))
        yield
