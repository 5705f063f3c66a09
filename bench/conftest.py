"""Options and fixtures of the pytest-benchmark suites, which are generated from the lists of cases and peers."""

import pytest

from bench.calls import Call
from bench.measure import FULL, QUICK, Patience, prepare, setting

SMALL, SMALL_FLOPS = 64, 1e7  # without --full: the largest image and the most arithmetic


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="benchmarks: all sizes and settings, not only the small ones")


def pytest_generate_tests(metafunc):
    """One test per case, peer and setting; the case in the outer loop, so that its exact result is computed once."""
    if "contender" not in metafunc.fixturenames:
        return
    full = metafunc.config.getoption("--full")
    metafunc.parametrize(
        ("problem", "contender"),
        [
            pytest.param(problem, contender, id=_name(problem, contender))
            for problem, contenders in metafunc.module.table()
            if full or _is_small(problem)
            for contender in contenders
            if full or contender.threads is None
        ],
    )


def _is_small(case):
    return max(case.ih, case.iw) <= SMALL and (isinstance(case, Call) or case.flops <= SMALL_FLOPS)


def _name(problem, contender):
    threads = "-1thread" if contender.threads else ""
    return f"{problem}-{contender.peer.name.replace(' ', '_')}{threads}{'-out' if contender.out else ''}"


@pytest.fixture(scope="session")
def patience(request):
    return Patience((FULL if request.config.getoption("--full") else QUICK).longest_s)


@pytest.fixture
def check_then_time(benchmark, patience):
    """Function that times a contender after checking its answer; one that cannot do the case is skipped with its reason."""

    def time(problem, contender):
        benchmark.group = str(problem)
        reason = patience.reason(problem, contender.peer)
        if reason:
            pytest.skip(reason)
        prepared, found, seconds = prepare(problem, contender)
        if prepared is None:
            (pytest.fail if found.wrong else pytest.skip)(found.reason)
        patience.learn(problem, contender.peer, seconds)
        benchmark.extra_info.update(peer=contender.peer.name, threads=contender.threads, out=contender.out, error=found)
        with setting(contender):
            benchmark(prepared.call)

    return time
