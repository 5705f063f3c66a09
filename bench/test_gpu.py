"""`python -m bench.gpu` where there is no card: says so; what it computes without one."""

import pytest

pytest.importorskip("cuda.core", reason="numba-cuda is not installed (fastconv[cuda])")

from bench import gpu
from fastconv.cuda import compile as compiler
from fastconv.cuda.compile import Kernel
from fastconv.cuda.driver import DriverError
from fastconv.cuda.target import SM90


def test_without_a_card_it_says_what_was_found(monkeypatch, capsys):
    def detect(device=None):
        raise DriverError("no CUDA: the driver sees no device")

    monkeypatch.setattr(gpu.target, "detect", detect)
    assert gpu.main([]) == 2
    assert "needs a CUDA card: no CUDA: the driver sees no device\nNothing was measured" in capsys.readouterr().err


def test_the_peak_is_of_multiply_adds_alone():
    kernel = Kernel("fma_peak", gpu._fma_body, (), ("dst",), ("f32", ("start", "factor")), ("turns",), (256, 1, 1), 64)
    code = compiler.code(kernel, SM90.cc)
    assert code.ptx.count("fma.rn.f32") >= 256
    assert code.resources.spills == code.resources.stack == 0


def test_cells_are_problems_that_the_list_can_run():
    for p in gpu.problems():
        assert any(a.reject(p, SM90) is None for a in gpu.algorithms("cuda")), p


def test_a_row_of_the_table():
    row = {"problem": "ih8192_k3_p1", "seconds": 1e-4, "share": 0.9, "roof": "copy", "peers": {"torch": 4e-4, "cupy ndimage": "no"}}
    assert gpu.text(row).split() == ["ih8192_k3_p1", "0.1000", "ms", "90.0%", "of", "copy", "torch", "4.00x"]
    assert "cupy is missing: none" in gpu.text({"missing": {"cupy": "none"}})
    assert "not reached in time" in gpu.text({"problem": "ih8192_k3_p1", "not reached": True})
