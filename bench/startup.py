"""What a fresh process pays: imports, and the first result with a cold and a warm kernel cache.

Every sample is a new interpreter, the two sides in turn, medians of what the child's own clock says from its first
statement on. The child writes its result to a file after its clock has stopped, and the result is checked like any
other.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench import truth
from bench.machine import ROOT

CHILD = """
import time
begin = time.perf_counter()
{timed}
seconds = time.perf_counter() - begin
print(seconds)
{after}
"""
IMPORT_NUMPY, IMPORT_FASTCONV = "import numpy", "import numpy\nimport fastconv"
# The operands are made by the child before its result, on both sides alike.
FIRST_RESULT = """
import numpy as np
src, wei = np.load({src!r}), np.load({wei!r})
from {module} import correlate2d
result = correlate2d(src, wei, mode="same")
"""


def child_seconds(timed, after="", environment=None):
    """Seconds that ``timed`` takes in a fresh interpreter; ``after`` runs when the clock has stopped."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(timed=timed, after=after)],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the measured process failed:\n{done.stderr}")
    return float(done.stdout.split()[0])


def import_seconds(repeats):
    """Samples of `import numpy`, and of `import numpy; import fastconv`."""
    for timed in (IMPORT_NUMPY, IMPORT_FASTCONV):  # once each, so that bytecode is written and files are in memory
        child_seconds(timed)
    samples = {"numpy": [], "fastconv": []}
    for _ in range(repeats):
        samples["numpy"].append(child_seconds(IMPORT_NUMPY))
        samples["fastconv"].append(child_seconds(IMPORT_FASTCONV))
    return samples


def first_result_seconds(problem, repeats, cold_repeats):
    """Samples of a fresh process's first correlate2d, ``scipy``'s and fastconv's ``warm`` and ``cold``; the worst error."""
    ops = truth.operands(problem)
    with tempfile.TemporaryDirectory() as folder:
        src, wei, result = (str(Path(folder, f"{name}.npy")) for name in ("src", "wei", "result"))
        np.save(src, ops.src[0, 0])
        np.save(wei, ops.wei[0, 0])
        save, errors = f"np.save({result!r}, result)", []

        def run(module, cache=None):
            timed = FIRST_RESULT.format(src=src, wei=wei, module=module)
            seconds = child_seconds(timed, save, {"FASTCONV_CACHE_DIR": str(Path(folder, cache))} if cache else None)
            errors.append(truth.check(np.load(result)[None, None], problem, peer=module == "scipy.signal"))
            return seconds

        run("scipy.signal")
        samples = {"cold": [run("fastconv", f"cold{i}") for i in range(cold_repeats)], "scipy": [], "warm": []}
        run("fastconv", "warm")
        for _ in range(repeats):
            samples["scipy"].append(run("scipy.signal"))
            samples["warm"].append(run("fastconv", "warm"))
    return samples, max(errors)
