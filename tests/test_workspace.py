"""Scratch memory: what is kept between calls, and that no plan asks for much."""

import concurrent.futures
import itertools
import sys
import time
import tracemalloc
import weakref

import numpy as np
import pytest

from fastconv.cpu.target import TARGETS
from fastconv.cpu.threads import MOST_SIZES, Workspaces
from fastconv.planning import cost
from fastconv.planning.planner import explain_problem, plan_problem
from fastconv.planning.problem import Problem
from tests.oracles import assert_close
from tests.problems import ALGORITHMS, operands, run


def alive(references):
    """Bytes of the arrays that still are."""
    return sum({id(array): array.size for array in (reference() for reference in references) if array is not None}.values())


def test_an_idle_array_is_taken_again():
    workspaces = Workspaces(most=100)
    array = workspaces.take(10)
    assert (array.size, array.dtype) == (10, np.uint8)
    other = workspaces.take(10)
    assert other is not array
    workspaces.give(array)
    workspaces.give(other)
    assert {id(workspaces.take(10)), id(workspaces.take(10))} == {id(array), id(other)}
    assert workspaces.take(10) is not array


def test_the_oldest_size_makes_room():
    workspaces = Workspaces(most=100)
    references = {}
    for size in (30, 40, 20, 35):
        array = workspaces.take(size)
        references[size] = weakref.ref(array)
        workspaces.give(array)
        del array
    assert [size for size, array in references.items() if array() is not None] == [40, 20, 35]
    assert workspaces.take(35) is references[35]()


def test_what_exceeds_the_limit_displaces_nothing():
    workspaces = Workspaces(most=100)
    small = workspaces.take(60)
    workspaces.give(small)
    large = weakref.ref(workspaces.take(101))
    workspaces.give(np.empty(101, np.uint8))
    assert large() is None
    assert workspaces.take(60) is small


def test_few_sizes_are_remembered():
    workspaces = Workspaces()
    references = []
    for size in range(1, 2 * MOST_SIZES):
        array = workspaces.take(size)
        references.append(weakref.ref(array))
        workspaces.give(array)
        del array
    assert [reference() is not None for reference in references] == [False] * (MOST_SIZES - 1) + [True] * MOST_SIZES


@pytest.mark.parametrize("seed", range(3))
def test_the_limit_holds(seed):
    """Many arrays of many sizes out at once, some of them never given back."""
    rng = np.random.default_rng(seed)
    workspaces, references, used = Workspaces(most=1000), [], []
    for _ in range(2000):
        if used and rng.random() < 0.5:
            array = used.pop(rng.integers(len(used)))
            if rng.random() < 0.9:
                workspaces.give(array)
        else:
            array = workspaces.take(int(rng.integers(1, 40)) * 10)
            assert all(array is not other for other in used)
            used.append(array)
            references.append(weakref.ref(array))
        del array
        assert alive(references) - sum(array.size for array in used) <= 1000
    for array in used:
        workspaces.give(array)
    used.clear()
    del array
    assert 500 < alive(references) <= 1000


def test_no_array_has_two_users(monkeypatch):
    interval = sys.getswitchinterval()
    workspaces, references = Workspaces(most=1000), []

    def work(number):
        rng = np.random.default_rng(number)
        for _ in range(3000):
            array = workspaces.take(int(rng.integers(1, 9)) * 50)
            references.append(weakref.ref(array))
            array[:] = number
            sum(range(int(rng.integers(20))))
            assert (array == number).all()
            workspaces.give(array)

    try:
        sys.setswitchinterval(1e-6)
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
    finally:
        sys.setswitchinterval(interval)
    # what several threads admitted at once is corrected by the next
    workspaces.give(np.empty(400, np.uint8))
    workspaces.give(np.empty(450, np.uint8))
    assert alive(references) <= 1000


# far taps, few results, many channels, long rows: extents of which some table or panel could be a multiple
ODD = ("ih8_k3_d100000_p100000", "ic64ih8_oc64k3_d100000_p100000", "ih8_kh1kw3_dh1dw1000000_pl1000000pr1000000",
       "ic20ih8_oc20kh1kw3_dh1dw1000000_pl1000000pr1000000", "ih8_k3_d100000_p100000_reflect", "ih8_k3_s100000_p100000",
       "ic32ih8_oc32k3_s100000_p100000", "ih8iw1000000_k3_sh1sw100000",
       "ih8_k3_s99999_d100000_p100000", "ic4096ih8_oc4096k3_p1", "ic4096ih224_oc8k3_p1", "g4096_ic4096ih20_oc4096k3_p1",
       "ic4096ih8_oc3k3_p1", "ic4096ih8_oc20k1", "ih8iw1000000_k3_p1", "ih1iw1000000_kh1kw31", "ic64ih8iw1000000_oc64k3_p1",
       "ih1000000iw8_k3_p1_reflect", "ih300_k201_p100", "ic16ih40iw3000_oc16k3_d500_p500", "ih4000_k3_d1000_p1000_wrap",
       "ic4096ih64iw2000_oc1k3", "ic64ih8iw100000_oc64k3_p1_nhwc_hwio", "ic20ih8iw100000_oc20k3_sh1sw10000")  # fmt: skip


def most_stated(plan):
    return max([plan.workspace / plan.threads, *map(most_stated, plan.children)])


@pytest.mark.parametrize("text", ODD)
def test_plans_ask_for_little(text):
    """Every algorithm that takes a problem, not only the one that is chosen; told within a second."""
    for dtype, target in itertools.product(("f32", "u8", "c64"), TARGETS):
        p = Problem.parse(f"{text}_{dtype}")
        start = time.process_time()
        explain_problem(p, target)
        assert time.process_time() - start < 1
        for algorithm in ALGORITHMS.values():
            if algorithm.reject(p, target) is None:
                for threads in (1, 7):
                    plan = algorithm.build(p, target, plan_problem, threads)
                    assert most_stated(plan) <= cost.MOST_WORKSPACE, plan


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["f32", "u8", "c64", "u8:f32:f32:f32", "swapped"])
@pytest.mark.parametrize("text", [text for text in ODD if Problem.parse(text).flops < 2e6])
def test_odd_problems_are_computed(text, dtype, traced):
    """Converted images and complex ones too, in little more memory than they have."""
    p = Problem.parse(text if dtype == "swapped" else f"{text}_{dtype}")
    src, wei, bias = operands(p, True)
    expected = run(p, src, wei, bias, "reference", fill=3)
    if dtype == "swapped":
        src = src.astype(src.dtype.newbyteorder())
    tracemalloc.reset_peak()
    result = run(p, src, wei, bias, threads=2, fill=3)
    assert_close(result, expected, 0, p)
    assert tracemalloc.get_traced_memory()[1] < 4 * cost.MOST_WORKSPACE
