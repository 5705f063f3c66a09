"""Gradients on a card: which algorithm takes them, what each refuses, and what their parts are made of; nothing is compiled."""

import pytest

pytest.importorskip("cuda.core", reason="numba-cuda is not installed (fastconv[cuda])")

from fastconv.cuda import depthwise_weights, transposed, weights
from fastconv.cuda.target import SM75, SM90, TARGETS
from fastconv.planning.planner import cheapest, plan_problem, short_name
from fastconv.planning.problem import Problem


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ic64ih56_oc64k3_p1_bwd-data", "transposed"), ("ic64ih56_oc128k3_s2_p1_bwd-data_nhwc", "transposed"),
        ("g96_ic96ih56_oc96k3_p1_bwd-data_nhwc", "transposed"), ("ic4ih5_oc4k3_p1_bwd-data", "plain"),
        ("ic64ih56_oc64k3_p1_bwd-weight", "weights"), ("ic3ih224_oc64k7_s2_p3_bwd-weight_nhwc", "weights"),
        ("g96_ic96ih56_oc96k3_p1_bwd-weight_nhwc", "depthwise_weights"), ("g96_ic96ih56_oc96k3_p1_bwd-weight", "plain"),
        ("ic4ih5_oc4k3_p1_bwd-weight", "plain"),
    ],
)  # fmt: skip
def test_which_algorithm_takes_a_layer(text, wanted):
    p = Problem.parse(text)
    for n in (1, 32):
        assert short_name(cheapest(p.replace(n=n), SM90)[1]) == wanted


def test_phases_are_forward_problems_of_the_algorithm_for_their_size():
    def children(text, target=SM90):
        return {child.algorithm for child in plan_problem(Problem.parse(text), target, algorithm="transposed").children}

    assert children("ic64ih56_oc64k3_p1_bwd-data") == {"winograd"}
    assert children("ic64ih56_oc64k3_p1_bwd-data", SM75) == {"implicit_gemm"}
    assert children("n2_ic64ih56_oc64k3_s2_p1_bwd-data_fast") == {"tensor"}
    assert children("g96_ic96ih56_oc96k5_s2_p2_bwd-data_nhwc") == {"depthwise"}
    assert children("ic3ih224_oc64k7_s2_p3_bwd-data") == {"direct"}


@pytest.mark.parametrize(
    ("algorithm", "text", "reason"),
    [
        (transposed, "ih9_k3_p1", "computes op bwd_data"), (transposed, "ih9_k3_p1_reflect_bwd-data", "folds no border reflect"),
        (transposed, "ih90_k3_s9_bwd-data", "launches at most 64 phases"), (transposed, "ih9_k3_bwd-data_tanh", "does not fuse"),
        (transposed, "n127_ih4096_k3_p1_bwd-data", None), (transposed, "n128_ih4096_k3_p1_bwd-data", "counts results"),
        (weights, "ih9_k3_bwd-weight_c64", "no arithmetic"), (weights, "ih9_k3_bwd-weight_f32:f32:u8:f32", "does not make u8"),
        (depthwise_weights, "g4_ic4ih9_oc8k3_nhwc_bwd-weight", "one filter of one channel"),
        (depthwise_weights, "g4_ic4ih9_oc4k3_bwd-weight", "side by side"),
        (depthwise_weights, "g6_ic6ih9_oc6k3_nhwc_bwd-weight", "whole vectors"),
        (depthwise_weights, "g4_ic4ih9_oc4k4_nhwc_bwd-weight", "dense rows"),
        (depthwise_weights, "g4_ic4ih19_oc4k3_s3_nhwc_bwd-weight", "dense rows"),
    ],
)  # fmt: skip
def test_what_is_refused(algorithm, text, reason):
    found = algorithm.reject(Problem.parse(text), SM90)
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize("algorithm", [weights, depthwise_weights])
def test_parts_hold_all_pixels_once_whatever_the_card(algorithm):
    for text in (
        "n32_g96_ic96ih56_oc96k3_p1_nhwc_bwd-weight",
        "n3_g8_ic8ih7_oc8k3_p1_nhwc_bwd-weight",
        "n7_g4_ic4ih33_oc4k5_nhwc_bwd-weight",
    ):
        p = Problem.parse(text)
        each, count = algorithm.parts_of(p)
        whole = each * (1 if algorithm is weights else 8)
        pixels = p.n * p.oh * (p.ow if algorithm is weights else 1)
        assert whole * (count - 1) < pixels <= whole * count
        if algorithm.reject(p, SM90) is None:
            assert len({algorithm.build(p, target, None).workspace for target in TARGETS}) == 1
