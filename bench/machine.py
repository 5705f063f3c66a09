"""What a result was measured on and with: commit, processor, versions, threads. No names of machines or people, no paths."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from bench.ceilings import vector_bytes
from bench.peers import LIBRARIES, package_version

ROOT = Path(__file__).parent.parent
PACKAGES = ("numpy", "numba", "llvmlite", *(library.package for library in LIBRARIES.values()))
MEASURED_FOLDERS = ("fastconv", "bench")
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "GOMP_SPINCOUNT", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES",
)  # fmt: skip


def _git(*arguments):
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def commit():
    """Commit of the tree, whether what is measured differs from it."""
    changed = _git("status", "--porcelain", "--", *MEASURED_FOLDERS)
    return {"commit": _git("rev-parse", "--short=12", "HEAD") or "unknown", "dirty": changed is None or bool(changed)}


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "CPU part")))
    return next(names, platform.machine())


def _caches():
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text(encoding="utf-8").strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found[f"L{level}"] = size
    return found


def load_average():
    """Average number of runnable processes of the last minute, or None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def thread_settings():
    """Default threads of each library that is installed."""
    return {name: library.threads() for name, library in LIBRARIES.items() if package_version(library.package) or name == "fastconv"}


def describe():
    """Everything that a result has to say about where it comes from."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        **commit(),
        "command": " ".join(["python -m bench", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": {
            "processor": _processor(),
            "cores": cores,
            "vector_bits": 8 * vector_bytes(),
            "caches": _caches(),
            "system": f"{platform.system()} {platform.machine()}",
            "load": load_average(),
        },
        "versions": {"python": platform.python_version(), **{name: package_version(name) for name in PACKAGES}},
        "threads": thread_settings(),
        "environment": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
    }
