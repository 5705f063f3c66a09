"""A process of its own for what may crash, needs another environment, or must start fresh."""

import os
import signal
import subprocess
import sys

from tests.problems import ROOT


def child(code, *arguments, timeout=240, check=True, root=ROOT, **environment):
    """Run Python code in a fresh process from the repository's root; ``check`` makes a bad end this test's failure."""
    return command([sys.executable, "-c", code, *map(str, arguments)], timeout, check, root, **environment)


def command(line, timeout=240, check=True, root=ROOT, **environment):
    """Run a command line in the parent's environment with changes; the packages in ``root``, a folder or an archive, come first."""
    env = os.environ | environment
    env["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    folder = root if root.is_dir() else root.parent
    done = subprocess.run(line, capture_output=True, text=True, timeout=timeout, cwd=folder, env=env, check=False)
    assert not check or done.returncode == 0, f"{ending(done)}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done


def ending(done):
    """How a process ended, in words."""
    if done.returncode < 0:
        return f"killed by {signal.Signals(-done.returncode).name}"
    return f"exit status {done.returncode}"
