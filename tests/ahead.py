"""Compiles the kernels of tests/test_algorithms.py into the disk cache, the last first, while the tests go from the first on.

Compilation is most of the suite's time and runs on one core; `tests/conftest.py` starts this on another.
"""

from fastconv.cpu.target import detect
from fastconv.planning.planner import compile_kernels, plan_problem
from tests import test_algorithms as tests
from tests.problems import ALGORITHMS, CASES


def problems(name):
    """(algorithm, problem) in the order of the tests."""
    for case in CASES:
        types = tests.MAIN if tests.dense(CASES[case]) else tests.MAIN[:1]
        yield from ((name, p) for p in tests.problems_of(case, types))
    for dtype in (*tests.OTHERS, *tests.MIXED):
        for case in tests.FEW:
            yield from ((name, p) for p in tests.problems_of(case, [dtype]))


if __name__ == "__main__":
    every = [pair for name in ALGORITHMS for pair in problems(name)] + tests.DECLARED
    for name, p in reversed(every):
        if ALGORITHMS[name].reject(p, detect()) is None:
            compile_kernels(plan_problem(p, algorithm=name))
