"""Filters, masks, epilogues and complex numbers on arrays of a card, in Numba's simulator: the answers of the host, integers equal."""

import functools

import pytest

pytest.importorskip("cuda.core", reason="numba-cuda is not installed (fastconv[cuda])")

from tests.card_filters import checks
from tests.children import child


@functools.cache
def verdicts(slow):
    """Check -> verdict, of a child process that runs all of them, or the few."""
    code = "from tests.simulated_filters import main; main()"
    lines = child(code, *["slow"] * slow, timeout=3000 if slow else 240, NUMBA_ENABLE_CUDASIM="1").stdout.splitlines()
    return dict(line.split(": ", 1) for line in lines)


def marked():
    few = checks()
    for name in few:
        yield pytest.param(name, False, id=name)
    for name in checks(slow=True):
        if name not in few:
            yield pytest.param(name, True, id=name, marks=(pytest.mark.slow, pytest.mark.timeout(3000)))


@pytest.mark.parametrize(("name", "slow"), [*marked()])
def test_check(name, slow):
    answer = verdicts(slow)[name]
    assert answer == "right", answer.replace("\\n", "\n")
