"""torch's tensors on a card, without one: its autograd and modules on kernels that Numba's simulator runs (tests/simulated_torch.py)."""

import functools

import pytest

from tests.children import child

pytest.importorskip("cuda.core", reason="numba-cuda is not installed (fastconv[cuda])")
pytest.importorskip("torch", reason="torch is not installed: its tensors and models are not convolved")

FAST = (
    "gradients_of_transposed_convolutions",
    "channels_last",
    "results_in_tracing",
    "views_that_torch_has_not_computed",
    "what_is_refused",
)
SLOW = ("gradients_of_all_types", "gradients_behind_borders", "gradients_of_gradients", "a_model_trains")


@functools.cache
def verdicts(*names):
    lines = child("from tests.simulated_torch import main; main()", *names, NUMBA_ENABLE_CUDASIM="1").stdout.splitlines()
    return dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_simulated_call(name):
    answer = verdicts(*(FAST if name in FAST else SLOW))[name]
    assert answer == "right", answer.replace("\\n", "\n")


def test_every_simulated_call_is_listed():
    text = child("from tests.simulated_torch import CALLS; print(*CALLS)", NUMBA_ENABLE_CUDASIM="1").stdout
    assert sorted(text.split()) == sorted((*FAST, *SLOW))
