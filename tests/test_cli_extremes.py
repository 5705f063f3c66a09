"""The command with kernels and images of extreme values: results or errors of its own, never NumPy's warnings."""

import warnings

import numpy as np
import pytest
from click.testing import CliRunner

from fastconv.cli.commands import fastconv

KERNELS = ["1e308 1e308", "1e308 -1e308", "1e-320 1", "-1e300", "1e38 1e38", "65504 65504", "gaussian:1e-200", "gaussian:0.3", "box:5"]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f2", "f4", "f8"])
def test_no_warning_reaches_the_terminal(kernel, dtype, tmp_path):
    values = np.array([[0, 1, 100], [7, 9, 120], [3, 2, 1]])
    np.save(tmp_path / "in.npy", values.astype(dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = CliRunner().invoke(fastconv, ["filter", f"{tmp_path}/in.npy", "-o", f"{tmp_path}/out.npy", "-k", kernel, "--absolute"])
    assert result.exit_code == 0, result.stderr
    assert np.load(tmp_path / "out.npy").dtype == np.dtype(dtype)
