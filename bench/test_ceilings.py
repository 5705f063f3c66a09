"""The ceilings as benchmarks, and that they are what they say."""

import numpy as np
import pytest

from bench import ceilings

MIB = 2**20


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fma_peak(dtype, threads, benchmark):
    peak = benchmark(ceilings.fma_sampler(dtype, threads, sample_s=0.002))
    benchmark.extra_info["gflops"] = peak / 1e9
    # below one scalar multiply-add per nanosecond the loop is not vectors; 1000 times that, it was optimised away
    assert 2e9 < peak / threads < 2e12


@pytest.mark.parametrize("nontemporal", [False, True])
@pytest.mark.parametrize("footprint", [MIB // 32, 4 * MIB])
def test_copy_bandwidth(footprint, nontemporal, benchmark):
    bandwidth = benchmark(ceilings.copy_sampler(footprint, 1, nontemporal, sample_s=0.002))
    benchmark.extra_info["gbytes_per_s"] = bandwidth / 1e9
    assert 5e8 < bandwidth < 5e12


def test_the_fma_loop_computes():
    # acc = acc / 2 + 1 from 1 tends to 2; all lanes of all accumulators are summed
    lanes = ceilings.vector_bytes() // 4
    state = np.array([0.5, 1.0, 0.0], np.float32)
    ceilings._fma_kernel("float32", lanes, ceilings.has_fma())(state, 100)
    assert state[2] == 2 * lanes * ceilings.ACCUMULATORS


@pytest.mark.parametrize("nontemporal", [False, True])
def test_the_copy_loop_copies(nontemporal):
    width = ceilings.vector_bytes()
    src, dst = (ceilings.aligned(3 * ceilings.COPY_VECTORS * width) for _ in range(2))
    src[:] = np.arange(src.size) % 251
    ceilings._copy_kernel(width, nontemporal)(src, dst, 1)
    assert np.array_equal(src, dst)
