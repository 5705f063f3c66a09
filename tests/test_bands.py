"""Images that are converted band by band, whatever their bands, by every algorithm that takes them so."""

import numpy as np
import pytest

from fastconv.cpu import stage
from fastconv.cpu.target import detect
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import ALGORITHMS, any_problem, fitted, operands, run

STAGED = [name for name, module in ALGORITHMS.items() if hasattr(module, "staged_launch")]
# sums of a copy, whose borders are pixels, may be in another order
OTHER_ORDER = ("direct",)
MOST_FLOPS = 3e7  # of a problem, which is run a few times


@pytest.mark.parametrize("algorithm", STAGED)
def test_results_do_not_depend_on_bands(algorithm, monkeypatch, exercised):
    """Weights that were packed for the whole image fit the plans of its bands, which alone would be cut, or computed, otherwise."""
    rng, found = np.random.default_rng(7), 0
    for dtype in ["f32", "f64"] * 60:
        p = fitted(algorithm, any_problem(rng, dtype)).replace(n=1 + found % 2)
        if p.flops > MOST_FLOPS or ALGORITHMS[algorithm].reject(p, detect()) is not None:
            continue
        src, wei, bias = operands(p)
        expected, swapped = run(p, src, wei, bias, algorithm), src.astype(src.dtype.newbyteorder())
        for size in (1, 1 << 15, 1 << 17):
            monkeypatch.setattr(stage, "_BAND_BYTES", size)
            result = run(p, swapped, wei, bias, algorithm)
            if algorithm in OTHER_ORDER:
                assert_within(result, p, truth(p, src, wei, bias), algorithm)
            else:
                assert_same_bits(result, expected, f"{p} in bands of {size} bytes")
        found += 1
        exercised(algorithm, str(p))
        if found == 12:
            break
    assert found > 4
