"""No algorithm reads or writes outside its arrays: they lie between unreadable pages, in a process of its own."""

import sys

import pytest

from tests.children import command, ending
from tests.problems import ALGORITHMS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX's")


@pytest.mark.parametrize(
    "algorithm", [name if name != "reference" else pytest.param(name, marks=pytest.mark.slow) for name in ALGORITHMS]
)  # NumPy's own
def test_touches_nothing_outside(algorithm):
    done = command([sys.executable, "-m", "tests.guarded", algorithm], check=False)
    lines = done.stdout.splitlines() or ["nothing was run"]
    assert done.returncode == 0, f"{ending(done)} in {lines[-1]}\n{done.stderr[-3000:]}"
    assert lines[-1].startswith("done ")
    assert int(lines[-1].split()[1]) >= 6


def test_a_read_outside_is_noticed():
    """The pages do guard: one byte beyond the end kills the process."""
    code = "import ctypes, numpy as np; from tests import guarded\n"
    code += "x = guarded.placed((5,), np.dtype('f4'), {side!r}); x[...] = 1; print(x.sum(), flush=True)\n"
    code += "ctypes.string_at(x.ctypes.data + ({offset}), 1)"
    for side, offset in (("end", 20), ("begin", -1)):
        done = command([sys.executable, "-c", code.format(side=side, offset=offset)], check=False)
        assert done.stdout.startswith("5.0")
        assert done.returncode < 0, f"{side}: {ending(done)}"
    for side, offset in (("end", 19), ("begin", 0)):
        command([sys.executable, "-c", code.format(side=side, offset=offset)])
