"""What this installation is and has compiled: `info` and `warmup`."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from .planning.planner import plan_problem, run_once
from .planning.problem import Problem
from .planning.thread_count import thread_count

# The problems whose kernels most calls need: a filter, the lesson's strides, a layer in both layouts.
_USUAL = ("ih64_k3_f32", "ih64_k3_sh2sw1_f32", "ih64_k3_s2_f32", "ih64_k3_f64",
          "ic64ih56_oc64k3_p1_f32", "ic64ih56_oc64k3_p1_f32_nhwc_hwio")  # fmt: skip


class Info(dict[str, Any]):
    """A dict that prints one entry per line."""

    def __str__(self) -> str:
        width = max(map(len, self))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in self.items())


def info() -> Info:
    """Versions, target, threads, threading layer, cache and GPU of this process.

    Returns
    -------
    Info
        A dict; ``print`` shows one entry per line.

    Examples
    --------
    >>> sorted(info())[:3]
    ['cache', 'cache bytes', 'cache kernels']
    """
    from .cpu import blocked, compile, direct, target, threads

    versions = {name: importlib.metadata.version(name) for name in ("numpy", "numba", "llvmlite", "scipy")}
    where, kernels, size = compile.cache_contents()
    return Info({
        "fastconv": importlib.import_module("fastconv").__version__,
        **versions,
        "target": str(target.detect()),
        "threads": thread_count(),
        "threading layer": threads.layer(),
        "cache": where or "none (kernels are compiled in every process)",
        "kernels of one type": f"at most {blocked.most_kernels(target.detect()) + direct.most_kernels(target.detect())}",
        "cache kernels": kernels,
        "cache bytes": size,
        "gpu": "none (this version has no CUDA backend)",
    })  # fmt: skip


def warmup(*problems: Problem | str) -> None:
    """Compile, or load from the cache, the kernels of these problems; without any, those that most calls need.

    Parameters
    ----------
    *problems : Problem or str
        A problem or its text form, as `fastconv explain` prints it.

    Examples
    --------
    >>> warmup("ih64_k3_f32")
    """
    for problem in problems or _USUAL:
        if not isinstance(problem, (str, Problem)):
            raise TypeError(f"problems must be Problem objects or their texts, got {problem!r}")
        p = Problem.parse(problem) if isinstance(problem, str) else problem
        for count in sorted({1, thread_count()}):
            run_once(plan_problem(p, threads=count))
