"""SciPy's own tests of correlate2d and convolve2d, as installed with SciPy, run on fastconv's functions."""

import importlib.util
import re
import sys

import pytest

from tests.children import command

# A pytest plugin: replaces the functions in SciPy's test module once it is imported, and counts the calls and the tests.
PLUGIN = """
import functools, inspect
import fastconv, scipy.signal

counts = {"correlate2d": 0, "convolve2d": 0, "passed": 0, "others": 0}

def counted(name):
    function = getattr(fastconv, name)
    @functools.wraps(getattr(scipy.signal, name))
    def call(*arguments, **keywords):
        counts[name] += 1
        return function(*arguments, **keywords)
    return call

def pytest_collection_modifyitems(items):
    for name in ("correlate2d", "convolve2d"):
        ours = counted(name)
        for module in (scipy.signal, *{item.module for item in items}):
            setattr(module, name, ours)

def pytest_runtest_logreport(report):
    if report.when == "call":
        counts["passed" if report.passed else "others"] += 1

def pytest_terminal_summary(terminalreporter):
    terminalreporter.line("counted " + " ".join(f"{name}={count}" for name, count in counts.items()))
"""
CLASSES = ("TestConvolve2d", "TestCorrelate2d")


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """The output of one run of both classes."""
    if importlib.util.find_spec("scipy.signal.tests.test_signaltools") is None:
        pytest.skip("SciPy is installed without its tests")
    folder = tmp_path_factory.mktemp("scipy")
    (folder / "fastconv_in_scipy.py").write_text(PLUGIN)
    (folder / "pytest.ini").write_text("[pytest]\n")
    tests = importlib.util.find_spec("scipy.signal.tests.test_signaltools").origin
    options = ["-q", "--noconftest", "-p", "fastconv_in_scipy", "-p", "scipy.conftest", "-p", "no:cacheprovider",
               "-c", str(folder / "pytest.ini"), "--rootdir", str(folder), *(f"{tests}::{name}" for name in CLASSES)]  # fmt: skip
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import pytest; sys.exit(pytest.main({options!r}))"
    done = command([sys.executable, "-c", code], check=False)
    return done.returncode, done.stdout + done.stderr


def test_passes(suite):
    status, output = suite
    assert status == 0, output[-6000:]


def test_called_fastconv(suite):
    counts = {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", re.search(r"^counted (.*)$", suite[1], re.M)[1])}
    assert counts["passed"] >= 20
    assert counts["others"] == 0
    assert counts["convolve2d"] >= 15
    assert counts["correlate2d"] >= 5
