"""`warmup` compiles without convolving, and ``effort="measure"`` measures only what fits: neither makes arrays without need."""

import tracemalloc
import types

import numpy as np
import pytest

import fastconv
from fastconv import machine
from fastconv.cpu.target import TARGETS
from fastconv.planning.operands import MOST_BYTES, described, random
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import DTYPES, Problem
from tests.children import child
from tests.problems import ALGORITHMS, CASES

CALLS = """
import sys
import numpy as np, fastconv
from fastconv.cpu.compile import counts
fastconv.warmup(sys.argv[1])
assert counts["compiled"] > 0, counts
compiled = dict(counts)
x, w = (np.ones(eval(shape), sys.argv[3]) for shape in sys.argv[2].split(";"))
for threads in (1, 2):
    fastconv.conv2d(x, w, threads=threads)
assert counts == compiled, counts
"""


@pytest.mark.parametrize(
    ("text", "shapes", "dtype"),
    [
        ("ih300_k3_f32", "(300,300);(3,3)", "f4"),
        ("ih300_k3_f16:f16:f16:f32", "(300,300);(3,3)", "f2"),
        ("ih300_k3_c64", "(300,300);(3,3)", "c8"),
        pytest.param("ic16ih28_oc32k3_c64", "(1,16,28,28);(32,16,3,3)", "c8", marks=pytest.mark.slow),
    ],
)
def test_a_call_compiles_nothing_more(text, shapes, dtype, tmp_path):
    child(CALLS, text, shapes, dtype, FASTCONV_CACHE_DIR=str(tmp_path / "empty"), NUMBA_NUM_THREADS="2")


@pytest.mark.parametrize(
    "text",
    [
        "ih200000_k3", "ih200000_k3_f16:f16:f16:f32", "ih100000_k3_c64", "n9000_ic64ih900_oc64k3_nhwc_hwio", "ih200000_k3_bwd-data",
        "n4000000000_ih64_k3",
    ],
)  # fmt: skip
def test_images_beyond_memory(text):
    fastconv.warmup(text)


def test_weights_beyond_memory_are_refused():
    with pytest.raises(ValueError, match=r"weights of .* bytes"):
        fastconv.warmup("ic200000ih9_oc200000k9")


@pytest.mark.parametrize("name", list(CASES)[::3])
@pytest.mark.parametrize("op", ["fwd", "bwd_data", "bwd_weight"])
def test_described_operands_are_like_real_ones(name, op):
    p = CASES[name].replace(op=op)
    for fake, real in zip(described(p), random(p), strict=True):
        if real is None:
            assert fake is None
            continue
        assert (fake.shape, fake.dtype) == (real.shape, real.dtype)
    assert described(p).src.strides == random(p).src.strides
    assert described(p).dst.strides == random(p).dst.strides


@pytest.mark.parametrize("name", DTYPES)
def test_random_operands_are_made_in_their_own_type(name):
    p = Problem.parse(f"ih700_k3_{name}")
    random(p)
    tracemalloc.start()
    try:
        operands = random(p)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [array.dtype for array in operands[:3]] == [DTYPES[name]] * 3
    most = sum(array.nbytes for array in operands[:3]) + operands.src.nbytes
    pattern = 1 << 17
    assert peak < most + pattern
    assert np.unique(operands.src.real).size == (2 if name == "b8" else 9)


def test_what_does_not_fit_is_not_measured():
    for text in ("ih200000_k3", "ih40000_k3_u8", f"n{MOST_BYTES}_ih9_k3"):
        with pytest.raises(ValueError, match=r"effort must be 'estimate' .* bytes"):
            plan_problem(Problem.parse(text), effort="measure")
    with pytest.raises(ValueError, match="effort must be 'estimate'"):
        fastconv.plan((60000, 60000), (3, 3), effort="measure")


def test_the_bound_of_kernels_is_the_sum_over_the_list(monkeypatch):
    for algorithm in ALGORITHMS.values():
        assert all(isinstance(algorithm.most_kernels(target), int) for target in TARGETS)
    listed = tuple(types.SimpleNamespace(most_kernels=lambda t, n=n: n) for n in (3, 0, 7))
    monkeypatch.setattr(machine, "algorithms", lambda: listed)
    assert fastconv.info()["kernels of one type"] == "at most 10"
