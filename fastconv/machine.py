"""What this installation is and has compiled: `info` and `warmup`."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from .planning.devices import cards
from .planning.planner import algorithms, compile_kernels, detect, plan_problem
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
    from .cpu import compile

    versions = {name: importlib.metadata.version(name) for name in ("numpy", "numba", "llvmlite", "scipy")}
    where, kernels, size = compile.cache_contents()
    return Info({
        "fastconv": importlib.import_module("fastconv").__version__,
        **versions,
        "target": str(detect()),
        "threads": thread_count(),
        "threading layer": "none of Numba's: fastconv's own pool",
        "cache": where or "none (kernels are compiled in every process)",
        "kernels of one type": f"at most {_most_kernels()}",
        "cache kernels": kernels,
        "cache bytes": size,
        "gpu": cards(),
    })  # fmt: skip


def _most_kernels() -> int:
    """Bound on the kernels of one type that all algorithms together can ever compile on this machine."""
    return sum(algorithm.most_kernels(detect()) for algorithm in algorithms())


def warmup(*problems: Problem | str) -> None:
    """Compile, or load from the cache, the kernels of these problems; without any, those that most calls need.

    Nothing is convolved: large problems take no longer than small ones.

    Parameters
    ----------
    *problems : Problem or str
        A problem or its text form, as `fastconv explain` prints it.

    Raises
    ------
    TypeError
        Something else.
    ValueError
        A text that is no problem, or a problem whose weights are too many to pack.

    Examples
    --------
    >>> warmup("ih64_k3_f32")
    """
    from .cpu import pool

    for problem in problems or _USUAL:
        if not isinstance(problem, (str, Problem)):
            raise TypeError(f"problems must be Problem objects or their texts, got {problem!r}")
        p = Problem.parse(problem) if isinstance(problem, str) else problem
        for count in {1, thread_count()}:
            compile_kernels(plan_problem(p, threads=count))
    if thread_count() > 1 and _most_kernels():
        # what helping threads run; else the first call with several threads would compile it
        pool._help()
