"""Scratch memory: what is kept between calls, and that no plan asks for much."""

import concurrent.futures
import gc
import itertools
import os
import sys
import time
import tracemalloc
import weakref

import numpy as np
import pytest

import fastconv
from fastconv.cpu.target import TARGETS
from fastconv.planning import cost, workspaces
from fastconv.planning.planner import explain_problem, plan_problem
from fastconv.planning.problem import Problem
from fastconv.planning.workspaces import MOST_SIZES, Workspaces, new_result
from tests.oracles import assert_close
from tests.problems import ALGORITHMS, operands, run


def alive(references):
    """Bytes of the arrays that still are."""
    return sum({id(array): array.size for array in (reference() for reference in references) if array is not None}.values())


def test_an_idle_array_is_taken_again():
    idle = Workspaces(most=100)
    array = idle.take(10)
    assert (array.size, array.dtype) == (10, np.uint8)
    other = idle.take(10)
    assert other is not array
    idle.give(array)
    idle.give(other)
    assert {id(idle.take(10)), id(idle.take(10))} == {id(array), id(other)}
    assert idle.take(10) is not array


def test_the_oldest_size_makes_room():
    idle = Workspaces(most=100)
    references = {}
    for size in (30, 40, 20, 35):
        array = idle.take(size)
        references[size] = weakref.ref(array)
        idle.give(array)
        del array
    assert [size for size, array in references.items() if array() is not None] == [40, 20, 35]
    assert idle.take(35) is references[35]()


def test_what_exceeds_the_limit_displaces_nothing():
    idle = Workspaces(most=100)
    small = idle.take(60)
    idle.give(small)
    large = weakref.ref(idle.take(101))
    idle.give(np.empty(101, np.uint8))
    assert large() is None
    assert idle.take(60) is small


def test_few_sizes_are_remembered():
    idle = Workspaces()
    references = []
    for size in range(1, 2 * MOST_SIZES):
        array = idle.take(size)
        references.append(weakref.ref(array))
        idle.give(array)
        del array
    assert [reference() is not None for reference in references] == [False] * (MOST_SIZES - 1) + [True] * MOST_SIZES


@pytest.mark.parametrize("seed", range(3))
def test_the_limit_holds(seed):
    """Many arrays of many sizes out at once, some of them never given back."""
    rng = np.random.default_rng(seed)
    idle, references, used = Workspaces(most=1000), [], []
    for _ in range(2000):
        if used and rng.random() < 0.5:
            array = used.pop(rng.integers(len(used)))
            if rng.random() < 0.9:
                idle.give(array)
        else:
            array = idle.take(int(rng.integers(1, 40)) * 10)
            assert all(array is not other for other in used)
            used.append(array)
            references.append(weakref.ref(array))
        del array
        assert alive(references) - sum(array.size for array in used) <= 1000
    for array in used:
        idle.give(array)
    used.clear()
    del array
    assert 500 < alive(references) <= 1000


def test_no_array_has_two_users(monkeypatch):
    interval = sys.getswitchinterval()
    idle, references = Workspaces(most=1000), []

    def work(number):
        rng = np.random.default_rng(number)
        for _ in range(3000):
            array = idle.take(int(rng.integers(1, 9)) * 50)
            references.append(weakref.ref(array))
            array[:] = number
            sum(range(int(rng.integers(20))))
            assert (array == number).all()
            idle.give(array)

    try:
        sys.setswitchinterval(1e-6)
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
    finally:
        sys.setswitchinterval(interval)
    # what several threads admitted at once is corrected by the next
    idle.give(np.empty(400, np.uint8))
    idle.give(np.empty(450, np.uint8))
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
        gc.disable()  # it would go through what all former tests have left behind
        start = time.thread_time()
        explain_problem(p, target)
        seconds = time.thread_time() - start
        gc.enable()
        assert seconds < 1
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


def test_a_large_result_is_lent_until_nobody_holds_it(monkeypatch):
    monkeypatch.setattr(workspaces, "results", Workspaces())
    shape, dtype = (512, 1000), np.dtype("f4")
    image = np.zeros(shape, dtype)
    first = new_result(shape, dtype, image)
    assert (first.shape, first.dtype, first.flags.c_contiguous, first.flags.writeable) == (shape, dtype, True, True)
    assert (first.ctypes.data - image.ctypes.data) % 4096 // 64 in (31, 32)
    first[...] = 1
    place, row = first.ctypes.data, first[3, ::2]
    second = new_result(shape, dtype, image)
    second[...] = 2
    del first
    third = new_result(shape, dtype, image)
    third[...] = 3
    assert (row == 1).all(), "a view holds the memory of its array"
    del row
    again = new_result(shape, dtype, image)
    assert again.ctypes.data == place
    again[...] = 4
    assert (second == 2).all()
    assert (third == 3).all()
    assert new_result((3, 4), dtype).flags.owndata
    # what somebody makes of its base, a copy or a view, gives nothing back
    base = again.base
    copies = base.copy(), base[1:], base + 1, np.asarray(base)
    del copies
    other = new_result(shape, dtype, image)
    other[...] = 5
    assert (again == 4).all()
    del again, base
    assert new_result(shape, dtype, image).ctypes.data == place
    assert [type(array) for array in (other, other[1:], other.view("i4"))] == [np.ndarray] * 3


def test_results_are_kept_in_proportion_to_the_memory_there_is(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(workspaces, "_LIMITS", (tmp_path / "none", limit))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 23}.get)  # 32 GiB
    for text, most in (("max", 512 << 20), (str(16 << 30), 256 << 20), (str(1 << 30), workspaces.LEAST_RESULTS)):
        limit.write_text(text)
        assert workspaces.most_results() == most
    monkeypatch.delattr(os, "sysconf")
    assert workspaces.most_results() == workspaces.LEAST_RESULTS


def test_results_in_a_loop_share_two_memories(monkeypatch):
    monkeypatch.setattr(workspaces, "results", Workspaces())
    x, k = np.ones((600, 700), "f4"), np.ones((3, 3), "f4")
    places = set()
    for _ in range(8):
        y = fastconv.conv2d(x, k, padding=1)
        places.add(y.ctypes.data)
    assert len(places) == 2
