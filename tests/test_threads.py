"""The number of threads: argument, block, process, machine; and `info`, `warmup`, `patch`."""

import concurrent.futures
import contextvars
import importlib.metadata
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.signal

import fastconv
from fastconv.planning import devices, thread_count
from fastconv.planning.problem import Problem
from tests.children import child
from tests.problems import ROOT


@pytest.fixture(autouse=True)
def four_processors(monkeypatch):
    """Pretend that four threads may run, whatever machine this is; and leave no setting behind."""
    monkeypatch.setattr(thread_count, "available", lambda: 4)
    monkeypatch.setattr(thread_count, "_process_wide", [])


def test_default_is_what_is_available():
    assert fastconv.threads() == 4


def test_a_block_and_its_end():
    with fastconv.threads(2) as count:
        assert count == fastconv.threads() == 2
        with fastconv.threads(3):
            assert fastconv.threads() == 3
        assert fastconv.threads() == 2
    assert fastconv.threads() == 4


def test_a_block_ends_by_an_exception_too():
    with pytest.raises(KeyError), fastconv.threads(1):
        raise KeyError
    assert fastconv.threads() == 4


def test_once_for_the_process():
    fastconv.threads(3)
    assert fastconv.threads() == 3
    with fastconv.threads(1):
        assert fastconv.threads() == 1
    assert fastconv.threads() == 3
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(fastconv.threads).result() == 3


def test_a_block_is_of_its_own_context_only():
    with fastconv.threads(2):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert pool.submit(fastconv.threads).result() == 4
        assert contextvars.copy_context().run(fastconv.threads) == 2
        assert contextvars.Context().run(fastconv.threads) == 4


def test_a_block_used_twice():
    setting = fastconv.threads(2)
    with setting:
        assert fastconv.threads() == 2
    with setting, setting:
        assert fastconv.threads() == 2
    assert fastconv.threads() == 4


def test_blocks_of_two_threads_do_not_mix():
    """The block's setting is made before the block is entered; two threads may do so in turn."""
    with concurrent.futures.ThreadPoolExecutor(1) as one, concurrent.futures.ThreadPoolExecutor(1) as two:
        first, second = one.submit(fastconv.threads, 2).result(), two.submit(fastconv.threads, 3).result()
        assert one.submit(first.__enter__).result() == 2
        assert two.submit(second.__enter__).result() == 3
        assert fastconv.threads() == 4
        one.submit(first.__exit__, None, None, None).result()
        two.submit(second.__exit__, None, None, None).result()
    assert fastconv.threads() == 4


def test_too_many_are_clamped():
    with fastconv.threads(1000) as count:
        assert count == fastconv.threads() == 4
    assert fastconv.plan((9, 9), (3, 3), threads=1000).threads in (1, 4)


def test_the_argument_comes_first():
    with fastconv.threads(1):
        assert thread_count.thread_count(3) == 3
        assert thread_count.thread_count(None) == 1


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError)])
def test_wrong_numbers_raise_and_change_nothing(value, error):
    with pytest.raises(error, match="threads must be"):
        fastconv.threads(value)
    with pytest.raises(error, match="threads must be"):
        fastconv.correlate2d(np.ones((3, 3)), np.ones((2, 2)), threads=value)
    assert fastconv.threads() == 4


@pytest.mark.parametrize(("name", "least", "most"), [("1", 1, 1), ("2", 1, 2), ("", 1, 10**6), ("x", 1, 10**6)])
def test_available_obeys_the_environment(name, least, most):
    code = "from fastconv.planning.thread_count import available; print(available())"
    assert least <= int(child(code, NUMBA_NUM_THREADS=name).stdout) <= most


def test_available_obeys_the_affinity():
    pytest.importorskip("resource", reason="there is no affinity here")
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    code += "import fastconv; print(fastconv.threads())"
    assert child(code).stdout.strip() == "1"


def test_numbas_own_setting_is_left_alone():
    code = """
import numba, numpy as np, fastconv
numba.set_num_threads(1)
x, w = np.ones((300, 400), "f4"), np.ones((5, 5), "f4")
for threads in (1, 2, None):
    fastconv.correlate2d(x, w, threads=threads)
    assert numba.get_num_threads() == 1
"""
    child(code)


def test_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert fastconv.__version__ == project["version"]


def test_info():
    info = fastconv.info()
    assert info["fastconv"] == fastconv.__version__
    assert info["numba"] == importlib.metadata.version("numba")
    assert info["numpy"] == np.__version__
    assert info["threads"] == 4
    lines = str(info).splitlines()
    assert [line.split("  ")[0] for line in lines] == list(info)
    assert all(str(value) in line for value, line in zip(info.values(), lines, strict=True))
    assert isinstance(info["cache kernels"], int)


def test_info_says_which_cards_there_are(monkeypatch):
    def missing():
        raise ImportError("no module")

    for count, expected in ((lambda: 1, "1 CUDA device"), (lambda: 2, "2 CUDA devices"),
                            (missing, "none (install fastconv[cuda] (no module))")):  # fmt: skip
        monkeypatch.setattr(devices, "backend", lambda name, count=count: SimpleNamespace(count=count))
        assert fastconv.info()["gpu"] == expected


def test_warmup_compiles_what_a_call_needs(tmp_path):
    code = """
import numpy as np, fastconv
from fastconv.cpu.compile import counts
fastconv.warmup("ih64_k3_f32")
compiled = counts["compiled"]
assert compiled > 0, counts
fastconv.conv2d(np.ones((64, 64), "f4"), np.ones((3, 3), "f4"))
assert counts["compiled"] == compiled, counts
"""
    child(code, FASTCONV_CACHE_DIR=str(tmp_path / "empty"))


def test_warmup_refuses_what_is_no_problem():
    fastconv.warmup(Problem.parse("ih9_k3"))
    for bad, error in (("ih9_q3", ValueError), ("", ValueError), (3, (TypeError, AttributeError, ValueError))):
        with pytest.raises(error):
            fastconv.warmup(bad)


class TestPatch:
    originals = (scipy.signal.correlate2d, scipy.signal.convolve2d)

    def current(self):
        return (scipy.signal.correlate2d, scipy.signal.convolve2d)

    def test_as_a_block(self):
        with fastconv.patch("scipy.signal"):
            assert self.current() == (fastconv.correlate2d, fastconv.convolve2d)
            assert scipy.signal.correlate2d(np.ones((3, 3)), np.ones((2, 2)), "valid").tolist() == [[4, 4], [4, 4]]
        assert self.current() == self.originals

    def test_until_undone_and_nested(self):
        outer = fastconv.patch()
        try:
            assert self.current() == (fastconv.correlate2d, fastconv.convolve2d)
            with fastconv.patch("scipy.signal"):
                assert self.current() == (fastconv.correlate2d, fastconv.convolve2d)
            assert self.current() == (fastconv.correlate2d, fastconv.convolve2d)
        finally:
            outer.undo()
        assert self.current() == self.originals
        outer.undo()
        assert self.current() == self.originals

    def test_an_exception_in_the_block(self):
        with pytest.raises(KeyError), fastconv.patch():
            raise KeyError
        assert self.current() == self.originals

    def test_unknown_libraries_change_nothing(self):
        with pytest.raises(ValueError, match=r"libraries must be among .*scipy.signal.*got 'scipy'"):
            fastconv.patch("scipy.signal", "scipy")
        assert self.current() == self.originals
