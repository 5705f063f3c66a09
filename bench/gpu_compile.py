"""Machine code of what is going to be measured, made ahead by processes that see no card, so that the minutes on it are for measuring.

What they make they leave in fastconv's disk cache.  A child process tells which kernels plans prepare, on a driver that launches nothing.
"""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

from fastconv.cuda import compile as compiler
from fastconv.cuda import driver
from fastconv.cuda.arrays import DeviceArray
from fastconv.planning.operands import described
from fastconv.planning.planner import algorithms, plan_problem
from fastconv.planning.problem import Problem

ALIGNED = 1 << 20  # an address that nobody reads


def _there(array):
    """The shape and strides of an array as a card's."""
    return DeviceArray(ALIGNED, array.shape, array.strides, array.dtype)


def kernels(texts, card):
    """Those that plans of these problems launch, but for packing weights, and those of the algorithms' own cases."""
    found = {}
    driver.current = lambda device=None: 0
    driver.api = lambda: SimpleNamespace(cuLaunchKernel=None)
    driver.loaded = lambda kernel, device: found.setdefault(kernel)
    for text in texts:
        p = Problem.parse(text)
        src, wei, dst, _ = described(p)
        plan_problem(p, card).prepare(_there(src), _there(wei), _there(dst))
    own = (kernel for algorithm in algorithms("cuda") if hasattr(algorithm, "kernels") for kernel in algorithm.kernels(card))
    return list(found | dict.fromkeys(own))


def _compile(kernel, cc):
    compiler.cubin(kernel, cc)


def compiled_ahead(problems, card, limit):
    """How many kernels there are, and how many of them were made within ``limit`` seconds."""
    end = time.monotonic() + limit
    spawn = multiprocessing.get_context("spawn")
    workers = max(min((os.cpu_count() or 1) - 1, 12), 1)
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        wanted = pool.submit(kernels, [str(p) for p in problems], card).result()
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        made = [pool.submit(_compile, kernel, card.cc) for kernel in wanted]
        while time.monotonic() < end and not all(one.done() for one in made):
            time.sleep(0.05)
        pool.shutdown(wait=True, cancel_futures=True)
    return {"kernels": len(wanted), "compiled": sum(one.done() and not one.cancelled() and one.exception() is None for one in made)}
