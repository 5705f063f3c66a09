"""Gradients of arrays of a card by the algorithms for large ones, in Numba's simulator: part of `tests.simulated_calls`."""

import numpy as np
import pytest

from fastconv import nn
from fastconv.cuda import driver, plain, weights
from fastconv.planning import planner
from fastconv.planning.problem import Problem
from tests.exporters import Chip, Tensor, pretend
from tests.oracles import assert_close, assert_within, of_card, stored, truth
from tests.simulated_calls import RNG


def whole(*shape):
    return RNG.integers(-8, 9, shape).astype("f4")


class Watched:
    """Kernels by name, and the streams of launches and of memory; one result a thread is never quicker, nothing waits."""

    def __init__(self, patch):
        pretend(patch, {"torch": 5, "cupy": 5})
        self.names, self.streams = [], []
        launch, made = driver.Launch.__call__, driver.Memory.__init__

        def launched(this, stream, *rest):
            self.names.append(this._kernel.name)
            self.streams.append(stream)
            return launch(this, stream, *rest)

        def taken(this, *rest):
            made(this, *rest)
            self.streams.append(this.stream)

        patch.setattr(driver.Launch, "__call__", launched)
        patch.setattr(driver.Memory, "__init__", taken)
        patch.setattr(driver, "settle", lambda stream=0: pytest.fail("something waited"))
        patch.setattr(plain, "cost", lambda p, t: 1.0)
        planner.forget()  # plans whose costs were others

    def kernels(self):
        """Of the launches since it was asked before, without types."""
        found = {"_".join(name.split("_")[: 1 + name.startswith(("transposed", "implicit"))]) for name in self.names}
        self.names.clear()
        return found


def gradients_of_images_in_phases(patch):
    """Transposed convolutions and gradients of images: each phase by what computes it forward, on the stream, without waiting."""
    watched = Watched(patch)
    filters, bias = whole(4, 3, 3, 3), np.arange(3, dtype="f4")
    for size, text, how in (
        ((2, 4, 5, 6), "n2_ic3ih5iw6_oc4k3_p1_bwd-data_bias+relu", {"padding": 1}),
        ((1, 4, 3, 4), "ic3ih6iw8_oc4k3_s2_pt1pb0pl1pr0_bwd-data_bias+relu", {"stride": 2, "padding": 1, "output_padding": 1}),
        ((1, 4, 2, 2), "ic3ih11iw11_oc4k3_s5_pt0pb0pl0pr0_bwd-data_bias+relu", {"stride": 5, "output_padding": 3}),
    ):
        grad, p = whole(*size), Problem.parse(text)
        got = nn.conv_transpose2d(Tensor(grad), Tensor(filters), Tensor(bias), activation="relu", **how).array
        exact = truth(p.replace(ih=min(p.ih, got.shape[2]), iw=min(p.iw, got.shape[3])), grad, filters, bias)
        wanted = np.maximum(np.broadcast_to(bias[:, None, None], got.shape), 0).copy()
        wanted[:, :, : exact.value.shape[2], : exact.value.shape[3]] = np.maximum(exact.value, 0)
        np.testing.assert_array_equal(got, wanted)
    used = watched.kernels()
    assert used >= {"implicit_gemm", "transposed_look", "transposed_again"}, used
    assert "plain" not in used
    grad, filters = whole(1, 8, 4, 6), whole(8, 3, 3, 2)
    for bad in (0, np.inf, np.nan):  # which meets no padding
        filters[7, 2, 0, 0] = bad
        p = Problem.parse("g2_ic6ih8iw10_oc8kh3kw2_s2_p1_bwd-data")
        got = nn.conv2d_input((1, 6, 8, 10), Tensor(filters), Tensor(grad), 2, 1, 1, 2).array
        assert_close(got, stored(p, truth(p, grad, filters)), 0)
        assert np.isfinite(got).any()
    assert "transposed_again" in watched.kernels()
    assert set(watched.streams) == {5}


def gradients_of_weights_in_parts(patch):
    """Sums of parts, added up in their order: the same bits whenever they are asked for."""
    watched = Watched(patch)
    for least, rows in ((1024, 9), (16, 10)):  # a part, and 38
        patch.setattr(weights, "_PART", least)
        image, grad, p = whole(1, 2, rows, 60), whole(1, 3, rows, 60), Problem.parse(f"ic2ih{rows}iw60_oc3k3_p1_bwd-weight")
        assert weights.parts_of(p)[1] == (1 if least == 1024 else 38)
        for source, other in ((image, grad), (image / 3, grad / 7)):
            got = [nn.conv2d_weight(Tensor(source), (3, 2, 3, 3), Tensor(other), 1, 1).array for _ in range(2)]
            assert_within(got[0], p, truth(p, source, other), of_card("weights"))
            np.testing.assert_array_equal(*got)
    assert watched.kernels() == {"weights", "added"}
    image, grad = (whole(2, 5, 6, 8).transpose(0, 3, 1, 2) for _ in range(2))  # channels last in memory
    got = nn.conv2d_weight(Chip(image), (8, 1, 3, 3), Chip(grad), 1, 1, 1, 8).array
    assert_close(got, truth(Problem.parse("n2_g8_ic8ih5iw6_oc8k3_p1_bwd-weight"), image, grad).value, 0)
    assert watched.kernels() == {"depthwise", "added"}
    assert set(watched.streams) == {5}


CALLS = {function.__name__: function for function in (gradients_of_images_in_phases, gradients_of_weights_in_parts)}
