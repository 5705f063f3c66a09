"""No algorithm reads or writes outside its arrays: they lie between unreadable pages, in a process of its own."""

import functools
import sys

import pytest

from tests.children import command, ending
from tests.problems import ALGORITHMS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX's")


@functools.cache
def verdicts(slow):
    """Algorithm -> how many runs touched nothing outside, or how its process ended; another then goes on with the rest."""
    found, left = {}, [name for name in ALGORITHMS if slow or name != "reference"]
    while left:
        done = command([sys.executable, "-m", "tests.guarded", *left], check=False, timeout=280)
        lines = done.stdout.splitlines() or ["nothing was run"]
        found |= {name: int(count) for word, name, count in (line.split() for line in lines if line.startswith("done "))}
        left = [name for name in left if name not in found]
        if left:
            found[left.pop(0)] = f"{ending(done)} in {lines[-1]}\n{done.stderr[-3000:]}"
    return found


@pytest.mark.parametrize(
    "algorithm", [name if name != "reference" else pytest.param(name, marks=pytest.mark.slow) for name in ALGORITHMS]
)  # NumPy's own
def test_touches_nothing_outside(algorithm, request):
    runs = verdicts(request.config.getoption("--slow"))[algorithm]
    assert isinstance(runs, int), runs
    assert runs >= 6


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
