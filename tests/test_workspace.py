"""Scratch memory: what is kept between calls, and that no plan asks for much."""

import concurrent.futures
import sys
import weakref

import numpy as np
import pytest

from fastconv.cpu.threads import MOST_SIZES, Workspaces


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
