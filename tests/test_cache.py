"""The disk cache of kernels: compiled once per machine, never trusted blindly, never in the way."""

import ast
import compileall
import gc
import os
import py_compile
import shutil
import stat
import subprocess
import sys
import types
from pathlib import Path

import pytest

from fastconv.cpu import compile
from fastconv.planning import disk_cache
from tests.children import child
from tests.problems import ROOT

# of an algorithm whose kernel is soon compiled; prints (compiled, loaded, cache directory); the answer is checked
RUN = """
import numpy as np, fastconv
src, wei = np.ones((1, 3, 9, 20), "f4"), np.ones((16, 3, 3, 3), "f4")
assert np.all(fastconv.conv2d(src, wei, algorithm="shallow", threads=1) == 27)
from fastconv.cpu import compile
from fastconv.planning import disk_cache
print(compile.counts["compiled"], compile.counts["loaded"], compile.cache_directory())
"""


def run(directory, root=ROOT, **environment):
    compiled, loaded, place = child(RUN, root=root, FASTCONV_CACHE_DIR=str(directory), **environment).stdout.split(maxsplit=2)
    return int(compiled), int(loaded), place.strip()


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache that one process has filled."""
    directory = tmp_path_factory.mktemp("cache") / "kernels"
    compiled, loaded, place = run(directory)
    assert compiled > 0
    assert loaded == 0
    assert place == str(directory)
    return directory


def copy(filled, tmp_path):
    directory = tmp_path / "kernels"
    shutil.copytree(filled, directory)
    directory.chmod(0o700)
    return directory


def kernels(directory):
    return sorted(path for path in directory.iterdir() if path.is_file())


def test_is_private_and_has_no_leftovers(filled):
    assert stat.S_IMODE(filled.stat().st_mode) == 0o700
    assert all(path.suffix == ".kernel" for path in kernels(filled))
    assert not any(stat.S_IMODE(path.stat().st_mode) & 0o022 for path in kernels(filled))


def test_a_second_process_compiles_nothing(filled):
    compiled, loaded, _ = run(filled)
    assert compiled == 0
    assert loaded == len(kernels(filled))


def test_another_working_directory_and_thread_count_compile_nothing(filled, tmp_path):
    environment = os.environ | {"FASTCONV_CACHE_DIR": str(filled), "PYTHONPATH": str(ROOT), "NUMBA_NUM_THREADS": "1"}
    line = [sys.executable, "-c", RUN]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split()[0] == "0"


@pytest.mark.parametrize(
    "damage", ["bit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("truncated", "empty", "garbage", "directory"))]
)
def test_a_damaged_file_is_compiled_anew(filled, tmp_path, damage):
    directory = copy(filled, tmp_path)
    by_size = sorted(kernels(directory), key=lambda path: path.stat().st_size)
    chosen = by_size[-1 if damage == "bit" else 0]
    data = chosen.read_bytes()
    if damage == "bit":
        chosen.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])
    elif damage == "truncated":
        chosen.write_bytes(data[: len(data) // 2])
    elif damage == "directory":
        chosen.unlink()
        chosen.mkdir()
    else:
        chosen.write_bytes(b"" if damage == "empty" else os.urandom(5000))
    compiled, loaded, _ = run(directory)
    assert compiled == 1
    assert loaded == len(kernels(filled)) - 1
    if damage != "directory":
        assert run(directory)[0] == 0, "the damaged file was not replaced"


@pytest.mark.parametrize("mode", [0o777, pytest.param(0o720, marks=pytest.mark.slow)], ids=oct)
def test_a_directory_that_others_can_write_to_is_not_used(mode, filled, tmp_path):
    directory = copy(filled, tmp_path)
    before = {path.name: path.read_bytes() for path in kernels(directory)}
    directory.chmod(mode)
    compiled, loaded, place = run(directory)
    assert (loaded, place) == (0, "None")
    assert compiled > 0
    assert {path.name: path.read_bytes() for path in kernels(directory)} == before
    if mode == 0o777:
        done = child("import fastconv; print(fastconv.info()['cache'])", FASTCONV_CACHE_DIR=str(directory))
        assert done.stdout.startswith("none")


@pytest.mark.parametrize("place", ["below a file", pytest.param("nowhere", marks=pytest.mark.slow)])
def test_a_directory_that_cannot_be_is_done_without(tmp_path, place):
    file = tmp_path / "file"
    file.write_text("")
    directory = {"below a file": file / "kernels", "nowhere": "/proc/1/fastconv"}[place]
    compiled, loaded, where = run(directory)
    assert compiled > 0
    assert (loaded, where) == (0, "None")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a directory that not even root can write to")
def test_a_read_only_directory_is_read(filled, tmp_path):
    directory = copy(filled, tmp_path)
    directory.chmod(0o500)
    assert run(directory)[0] == 0
    if os.getuid() == 0:  # permissions do not stop root: /proc does, and belongs to it
        compiled, loaded, _ = run("/proc")
        assert compiled > 0
        assert loaded == 0


def test_without_a_home(tmp_path):
    code = "from fastconv.cpu import compile; print(compile.cache_directory())"
    environment = {"HOME": str(tmp_path / "none" / "home"), "XDG_CACHE_HOME": ""}
    assert child(code, FASTCONV_CACHE_DIR="", **environment).stdout.strip()
    place = child(code, FASTCONV_CACHE_DIR="", XDG_CACHE_HOME=str(tmp_path / "cache")).stdout.strip()
    assert place == str(tmp_path / "cache" / "fastconv")


def test_processes_at_once(tmp_path):
    directory = tmp_path / "kernels"
    command = [sys.executable, "-c", RUN]
    environment = os.environ | {"FASTCONV_CACHE_DIR": str(directory), "PYTHONPATH": str(ROOT)}
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in started:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    assert all(path.suffix == ".kernel" for path in kernels(directory))
    assert run(directory)[0] == 0


def test_an_edited_source_is_compiled_anew(filled, tmp_path):
    """A copy of the package finds the kernels of the original, until a file that they are made of is edited."""
    directory = copy(filled, tmp_path)
    shutil.copytree(ROOT / "fastconv", tmp_path / "root" / "fastconv", ignore=shutil.ignore_patterns("__pycache__"))
    root = tmp_path / "root"
    assert run(directory, root=root)[0] == 0
    for name in ("shallow_tile.py", "compile.py", "fft.py"):
        with open(root / "fastconv" / "cpu" / name, "a") as file:
            file.write("\n# edited\n")
        compiled, loaded, _ = run(directory, root=root)
        assert (compiled > 0) == (name != "fft.py"), f"{name} was edited"
        assert loaded == 0 or name not in ("simd.py", "compile.py"), "every kernel is made of this"
    assert run(directory, root=root)[0] == 0
    init = root / "fastconv" / "__init__.py"
    init.write_text(init.read_text(encoding="utf-8").replace('__version__ = "', '__version__ = "1'), encoding="utf-8")
    compiled, loaded, _ = run(directory, root=root)
    assert compiled > 0, "the version is another"
    assert loaded == 0
    assert run(directory)[0] == 0, "the original's kernels are still there"


def test_an_installation_without_sources(tmp_path):
    """Compiled files alone tell builds apart; what is imported from an archive has no disk cache."""
    code = "from fastconv.cpu import compile; print(compile.__file__, compile.sources_id('direct'), compile.cache_directory(), sep='\\n')"
    root, directory = tmp_path / "root", str(tmp_path / "kernels")
    folder = root / "fastconv"
    shutil.copytree(ROOT / "fastconv", folder, ignore=shutil.ignore_patterns("__pycache__"))
    archive = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", root))
    place, _, cache = child(code, root=archive, FASTCONV_CACHE_DIR=directory).stdout.split()
    assert place.startswith(str(archive))
    assert cache == "None"
    compileall.compile_dir(folder, quiet=1, legacy=True)
    tile = folder / "cpu" / "tile.py"
    edited = tile.read_bytes() + b"\nEDITED = True\n"
    for path in folder.rglob("*.py"):
        path.unlink()
    place, first, cache = child(code, root=root, FASTCONV_CACHE_DIR=directory).stdout.split()
    assert place == str(folder / "cpu" / "compile.pyc")
    assert cache == directory
    tile.write_bytes(edited)
    py_compile.compile(str(tile), str(tile.with_suffix(".pyc")), doraise=True)
    tile.unlink()
    assert child(code, root=root, FASTCONV_CACHE_DIR=directory).stdout.split()[1] != first


def test_another_processor_is_compiled_anew(filled, tmp_path):
    directory = copy(filled, tmp_path)
    compiled, loaded, _ = run(directory, NUMBA_CPU_NAME="x86-64" if os.uname().machine == "x86_64" else "generic", NUMBA_CPU_FEATURES="")
    assert compiled > 0
    assert loaded == 0


def test_no_fork_comes_between_a_kernel_and_its_address(monkeypatch):
    """LLVM's lock, taken while the address is asked for, would stay taken in the child: the lock that forks wait for is held."""
    held = []

    class Library:
        def get_pointer_to_function(self, name):
            held.append(compile._compiling._is_owned())
            return 8

    overload = types.SimpleNamespace(library=Library(), fndesc=types.SimpleNamespace(llvm_func_name="x"))
    monkeypatch.setattr(compile, "compiled", lambda *arguments: types.SimpleNamespace(overloads={(): overload}))
    assert compile.Kernel("x", None, ()).address == 8
    assert held == [True]


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_after_a_compilation_as_before(collects):
    seen = []

    def factory():
        seen.append(gc.isenabled())
        raise LookupError

    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        with pytest.raises(LookupError):
            compile.compiled("none", factory, (), None)
        assert seen == [False]
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()


def test_what_a_modules_kernels_are_made_of(tmp_path):
    """Its own imports, and of the planner's files those that emit instructions."""
    for folder in ("cpu", "planning"):
        shutil.copytree(ROOT / "fastconv" / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))

    def digests():
        sources = disk_cache.Sources(tmp_path / "cpu")
        return [sources.digest(module, ("version",)) for module in ("winograd", "direct")]

    first = digests()
    with open(tmp_path / "planning" / "winograd_points.py", "a") as file:
        file.write("\n# edited\n")
    second = digests()
    assert first[0] != second[0]
    assert first[1] == second[1]


def test_no_import_is_overlooked():
    """What Python's own parser finds imported from a module's package, or from the planner's files that emit instructions."""
    sources = disk_cache.Sources(Path(compile.__file__).parent)
    files = sources._files
    for name in files:
        found = sources._imported(name.removesuffix(".py"))
        for node in ast.walk(ast.parse(files[name])):
            if isinstance(node, ast.ImportFrom) and node.level:
                names = [node.module.replace(".", "/")] if node.module else [alias.name for alias in node.names]
                assert {f"{other}.py" for other in names} & set(files) <= found, name


def test_old_kernels_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_cache, "MOST_BYTES", 2500)
    tmp_path.chmod(0o700)
    for n in range(3):
        file = disk_cache.KernelFile(tmp_path, b"kind\n", f"kernel{n}", n)
        file.write(bytes(1000))
        assert file.read() == bytes(1000)
        os.utime(file.path, (n, n))
    assert sorted(path.name[:7] for path in tmp_path.iterdir()) == ["kernel1", "kernel2"]
