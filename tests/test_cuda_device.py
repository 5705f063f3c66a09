"""On a CUDA card: what the simulator and the fake driver cannot show.  Runs with --gpu."""

import numpy as np
import pytest

import fastconv

pytest.importorskip("cuda.core", reason="numba-cuda is not installed (fastconv[cuda])")

from bench import gpu
from fastconv.cuda import driver, target, transfer
from fastconv.planning.problem import Problem
from tests.card_filters import checks
from tests.problems import CASES

pytestmark = pytest.mark.gpu

IMAGE = np.random.default_rng(3).integers(-8, 9, (70, 301)).astype("f4")
TAPS = np.arange(9, dtype="f4").reshape(3, 3)


@pytest.mark.parametrize("algorithm", [gpu.short_name(algorithm) for algorithm in gpu.algorithms("cuda")])
def test_every_case(algorithm, exercised, record_property):
    module = next(a for a in gpu.algorithms("cuda") if gpu.short_name(a) == algorithm)
    for p in [*map(Problem.parse, getattr(module, "CASES", ())), *CASES.values()]:
        reason = module.reject(p, target.detect())
        if reason is None:
            assert gpu.check(algorithm, p) is None, p
            exercised(f"cuda {algorithm}", str(p))
        else:
            record_property("refused", f"cuda {algorithm}: {reason}")


@pytest.mark.parametrize("name", [*checks()])
def test_filters_masks_epilogues_and_complex_numbers(name):
    from numba import cuda

    checks()[name](lambda array: cuda.to_device(np.ascontiguousarray(array)))


def test_a_copy_there_and_back():
    data = np.random.default_rng(0).integers(0, 255, 3 * transfer.PIECE + 17, np.uint8)
    np.testing.assert_array_equal(transfer.to_host(transfer.to_device(data)), data)


def test_an_array_of_the_host():
    np.testing.assert_array_equal(fastconv.correlate2d(IMAGE, TAPS, device="cuda"), fastconv.correlate2d(IMAGE, TAPS))


def test_cupy_on_its_stream():
    cupy = pytest.importorskip("cupy")
    with cupy.cuda.Stream(non_blocking=True) as stream:
        got = fastconv.correlate2d(cupy.asarray(IMAGE), cupy.asarray(TAPS), "same")
        assert type(got) is cupy.ndarray
        stream.synchronize()
    np.testing.assert_array_equal(cupy.asnumpy(got), fastconv.correlate2d(IMAGE, TAPS, "same"))


def test_torch_in_a_graph():
    torch = pytest.importorskip("torch")
    image, taps = torch.as_tensor(IMAGE[None, None], device="cuda"), torch.as_tensor(TAPS[None, None], device="cuda")
    plan = fastconv.plan(image, taps, padding=1)
    plan(image)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = plan(image)
    image.mul_(2)
    graph.replay()
    assert got.is_cuda
    np.testing.assert_array_equal(got.cpu().numpy(), fastconv.conv2d(2 * IMAGE[None, None], TAPS[None, None], padding=1))


@pytest.mark.parametrize("precision", ["default", "fast"])
def test_bfloat16_of_torch(precision):
    """Whole numbers, whose sums are exact whatever adds them up, so that results are those of the CPU."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    x, w, b = (torch.as_tensor(rng.integers(-8, 9, shape)).bfloat16() for shape in ((2, 37, 20, 33), (70, 37, 3, 3), (70,)))
    expected = fastconv.conv2d(x, w, b, padding=1, activation="relu")
    for form in (torch.contiguous_format, torch.channels_last):
        image = x.to("cuda", memory_format=form)
        got = fastconv.conv2d(image, w.cuda(), b.cuda(), padding=1, activation="relu", precision=precision)
        assert got.is_cuda
        assert torch.equal(got.cpu(), expected)
        assert torch.equal(fastconv.plan(image, w, b, padding=1, activation="relu", precision=precision)(image).cpu(), expected)


def test_a_numba_device_array():
    from numba import cuda

    got = fastconv.correlate2d(cuda.to_device(IMAGE), cuda.to_device(TAPS), "same")
    assert cuda.is_cuda_array(got)
    np.testing.assert_array_equal(got.copy_to_host(), fastconv.correlate2d(IMAGE, TAPS, "same"))


def test_a_card_copies_and_multiplies():
    found = gpu.ceilings()
    assert found["copy"] > 1e10
    assert found["fma"] > 1e11
    assert all(found[factor] > 1e12 for factor in ("tf32", "f16", "bf16") if factor in found)
    assert driver.count() >= 1
