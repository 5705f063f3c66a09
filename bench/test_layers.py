"""Layers of networks: fastconv in both layouts, called and planned, and torch in both of its own."""

from importlib.util import find_spec

import numpy as np
import pytest

from bench import cases, integers, run, truth
from bench.measure import settings_of
from bench.peers import LAYER_PEERS
from fastconv.planning.problem import Problem
from tests import oracles


def table():
    problems = dict.fromkeys(problem for network in cases.NETWORKS for problem in cases.load(network))
    return [(problem, settings_of(LAYER_PEERS)) for problem in problems]


def test_layer(problem, contender, check_then_time):
    check_then_time(problem, contender)


@pytest.mark.parametrize("name", run.BATCHED)
def test_suites_of_networks(name):
    """Every suite times ours and a peer on a small layer; what lacks a row's sides has no measurement, and fails."""
    document = run.run([name], quick=True, match="ic192ih14_oc64k1")
    (figure,) = document["figures"]
    assert not [refusal for refusal in document["refusals"] if refusal["wrong"]]
    peers = {cell["peer"].split()[0] for cell in document["cells"]}
    assert any(peer.startswith("fastconv") for peer in peers)
    for row in figure["rows"]:
        assert row["measured"] is None or row["measured"] > 0
        assert (row["measured"] is None) <= (not row["passed"])
    if find_spec("torch") and find_spec("onnxruntime"):
        assert all(row["measured"] for row in figure["rows"])


def test_bytes_that_are_off_are_not_timed():
    p = Problem.parse("ic8ih6_oc8k3_p1_u8:i8:i32:i32")
    sums = truth.operands(p).exact.value
    right = np.clip(np.rint(sums.astype(np.float32) * integers._scales(p)[:, None, None]) + np.float32(integers.ZERO), 0, 255).astype(
        np.uint8
    )
    assert 20 < len(np.unique(right))
    np.testing.assert_array_equal(integers._judged(p, 0)(right), sums)
    near, far = right.copy(), right.copy()
    near[0, 0, 0, 0] ^= 1
    far[0, 0, 0, 0] ^= 2
    np.testing.assert_array_equal(integers._judged(p, 1)(near), sums)
    for wrong, most in ((near, 0), (far, 1), (right.astype(np.int8), 1)):
        with pytest.raises(truth.WrongAnswer, match="off by"):
            integers._judged(p, most)(wrong)


def test_sums_of_bytes_are_the_integers():
    p = Problem.parse("g2_ic8ih6_oc8k3_s2_p1_u8:i8:i32:i32")
    found = truth.operands(p)
    np.testing.assert_array_equal(found.exact.value, oracles.truth(p, found.src, found.wei).value)
