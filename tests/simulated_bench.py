"""`python -m bench.gpu` from its first line to its table, in Numba's simulator: every step but the card's and its libraries' own.

The driver's events and copies are stand-ins, so are CuPy and cuDNN's frontend, and torch's tensors lie on the host; problems are small, and
what is timed is the simulator.  Run as ``NUMBA_ENABLE_CUDASIM=1 python -m tests.simulated_bench FOLDER``.
"""

import ctypes
import dataclasses
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from bench import gpu, gpu_ceilings
from fastconv.cuda import driver, target
from fastconv.planning.problem import Problem
from tests import problems

# what is run under the tool is run here without it
TOOL = """#!/bin/sh
case "$*" in *"-m bench.gpu --sample") exit 0;; esac
exit 3
"""


class Driver:
    """What the measurements ask of the driver, done at once; an event is the time."""

    times = {}  # noqa: RUF012 (of every event)

    def cuEventCreate(self, flags):
        event = len(self.times)
        self.times[event] = None
        return 0, event

    def cuEventRecord(self, event, stream):
        self.times[event] = time.perf_counter()
        return (0,)

    def cuEventSynchronize(self, event):
        return (0,)

    def cuEventElapsedTime(self, start, end):
        return 0, max((self.times[end] - self.times[start]) * 1e3, 1e-6)

    def cuMemcpyDtoDAsync(self, to, src, size, stream):
        ctypes.memmove(to, src, size)
        return (0,)


def modules(patch):
    """CuPy on SciPy, and a frontend of cuDNN whose plans compute nothing."""
    from scipy import ndimage, signal

    patch.setitem(sys.modules, "cupy", types.SimpleNamespace(ones=np.ones))
    patch.setitem(sys.modules, "cupyx", types.ModuleType("cupyx"))
    patch.setitem(sys.modules, "cupyx.scipy", types.SimpleNamespace(ndimage=ndimage, signal=signal))

    class Described:
        def __getattr__(self, name):
            return lambda *values, **named: self

    class Graph(Described):
        def tensor(self, **described):
            return Described()

        def conv_fprop(self, **described):
            return Described()

        def get_workspace_size(self):
            return 16

    names = types.SimpleNamespace
    cudnn = names(
        data_type=names(FLOAT=1, HALF=2, BFLOAT16=3), heur_mode=names(A=1, FALLBACK=2), build_plan_policy=names(HEURISTICS_CHOICE=1),
        numerical_note=Described(), pygraph=lambda **types: Graph(), create_handle=lambda: "handle", set_stream=lambda handle, stream: None,
        cudnnGraphNotSupportedError=RuntimeError,
    )  # fmt: skip
    patch.setitem(sys.modules, "cudnn", cudnn)


def on_host(patch):
    """torch's tensors and streams, without a card."""
    import torch

    torch.set_num_threads(1)  # others wait spinning for cores that are not theirs
    rand, empty = torch.rand, torch.empty
    patch.setattr(torch, "rand", lambda shape, device: rand(shape))
    patch.setattr(torch, "empty", lambda shape, device, dtype: empty(shape, dtype=dtype))
    patch.setattr(torch.cuda, "default_stream", lambda: types.SimpleNamespace(cuda_stream=0))
    patch.setattr(torch.cuda, "stream", lambda stream: torch.no_grad())


def shrunk(patch):
    """One multiprocessor, small problems, one round."""
    patch.setattr(target, "SM90", dataclasses.replace(target.SM90, units=1, l2=1 << 10))
    patch.setattr(gpu_ceilings, "LEAST_SECONDS", 0)
    patch.setattr(gpu_ceilings, "ROUNDS", 1)
    patch.setattr(gpu_ceilings, "TURNS", 1)
    patch.setattr(gpu_ceilings, "COPY_BYTES", 1 << 12)
    patch.setattr(gpu_ceilings, "FACTORS", ())  # which the simulator multiplies otherwise
    patch.setattr(gpu_ceilings, "NOMINAL", {})
    patch.setattr(gpu, "CORRECT_SECONDS", 2)
    patch.setattr(gpu, "IMAGES", ("ih24_k3_p1", "ih24_k9_p4", "ih24_k3_p1_u8:u8:u8:u8"))
    patch.setattr(gpu, "NETWORKS", ("small",))
    patch.setattr(gpu, "BATCH", 2)
    patch.setattr(gpu, "load", lambda name: [Problem.parse("ic16ih6_oc16k1")])
    patch.setattr(problems, "CASES", dict(list(problems.CASES.items())[:2]))
    # nothing is compiled here; tests/test_cuda_bench.py compiles
    patch.setattr(gpu, "compiled_ahead", lambda every, card, limit: {"kernels": len(list(every)), "compiled": 0})


def main():
    folder = Path(sys.argv[1])
    tool = folder / "compute-sanitizer"
    tool.write_text(TOOL)
    tool.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        shrunk(patch)
        modules(patch)
        on_host(patch)
        patch.setattr(driver, "api", Driver)
        patch.setattr(gpu, "RESULTS", folder)
        patch.setenv("PATH", str(folder), prepend=":")
        for case in (
            "ih4iw40_kh1kw7_pt0pb0pl3pr3_reflect_f64_order=symmetric",
            "ih5iw30_kh1kw6_pt0pb0pl3pr2_wrap_i16:f64:u8:f64_order=last",
        ):
            assert gpu.check("plain", Problem.parse(case)) is None
        first = gpu.sample()[:2]
        patch.setattr(gpu, "sample", lambda: first)
        sys.exit(gpu.main(["--sample"]) or gpu.main(["--save", "dry"]))


if __name__ == "__main__":
    main()
