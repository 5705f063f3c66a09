"""`python -m bench.gpu` as a whole, without a card; its parts are tested in bench/test_gpu.py."""

import json

import pytest

from tests.children import child

pytest.importorskip("cuda.core", reason="numba-cuda is not installed (fastconv[cuda])")


@pytest.mark.slow
def test_a_run_in_the_simulator(tmp_path):
    """Every step: operands, plans, answers, times, peers, figures, the file."""
    pytest.importorskip("torch", reason="torch is not installed: it is not measured beside")
    done = child("from tests.simulated_bench import main; main()", tmp_path, NUMBA_ENABLE_CUDASIM="1", OMP_NUM_THREADS="1")
    document = json.loads((tmp_path / "dry.json").read_text())
    assert document["correct"]["right"] > 0
    assert not document["correct"]["wrong"]
    assert document["sanitizer"] == "no error"
    assert not document["missing"]
    for row in document["cells"]:
        assert row["seconds"] > 0
        assert "plan" in row
        assert row["peers"], row
        assert all(isinstance(value, float) for value in row["peers"].values()), row
    names = {name for row in document["cells"] for name in row["peers"]}
    assert {"torch", "torch channels_last tf32", "cudnn direct", "cudnn direct channels_last tf32", "cupy ndimage", "cupy signal"} <= names
    assert "one channel, over CuPy and torch: mean" in done.stdout


MADE = """
import sys
from pathlib import Path
from bench.gpu_compile import compiled_ahead
from fastconv.cuda import copy
from fastconv.cuda.target import SM90
from fastconv.planning.problem import Problem

if __name__ == "__main__":
    print(compiled_ahead([Problem.parse(text) for text in ("ih24_k3_p1", "ic9ih9_oc18k3")], SM90, float(sys.argv[1])))
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 30])
def test_kernels_are_compiled_ahead_by_other_processes(tmp_path, limit):
    """Within the limit; what they make is in the disk cache, for the process that measures."""
    program = tmp_path / "ahead.py"
    program.write_text(MADE)
    cache = tmp_path / "cache"
    lines = child(f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')", limit, FASTCONV_CACHE_DIR=str(cache)).stdout
    found = json.loads(lines.replace("'", '"'))
    assert found["kernels"] > 50
    kept = len([*cache.glob("*.kernel")]) if cache.exists() else 0
    assert kept == found["compiled"]
    assert found["compiled"] < found["kernels"] if limit == 0 else found["compiled"] > 0
