"""The disk cache of cards' machine code: what tests/test_cache.py shows of the CPU's kernels, without a card."""

import os
import stat

import pytest

pytest.importorskip("cuda.core", reason="numba-cuda is not installed (fastconv[cuda])")

from fastconv.cuda import compile as compiler
from fastconv.cuda import copy
from fastconv.cuda.target import SM75, SM90
from tests.children import child

KERNEL = copy.kernel_of("f32", "f64")
COUNTS = "import fastconv.cuda.compile as c, fastconv.cuda.copy as k; c.cubin(k.kernel_of('f32', 'f64'), (9, 0)); print(*c.counts.values())"


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """An empty cache of this test's own."""
    path = tmp_path / "kernels"
    path.mkdir(0o700)
    monkeypatch.setattr(compiler, "cache_directory", lambda: path)
    return path


@pytest.fixture
def made(monkeypatch):
    """What is compiled from now on: (kernel, capability)."""
    found, code = [], compiler.code

    def remembered(kernel, cc):
        found.append((kernel.name, cc))
        return code(kernel, cc)

    monkeypatch.setattr(compiler, "code", remembered)
    return found


def test_it_is_compiled_once_for_each_capability(directory, made):
    first = compiler.cubin(KERNEL, SM90.cc)
    (file,) = directory.iterdir()
    assert file.suffix == ".kernel"
    assert not stat.S_IMODE(file.stat().st_mode) & 0o022
    loaded = compiler.counts["loaded"]
    assert compiler.cubin(KERNEL, SM90.cc) == first
    assert compiler.counts["loaded"] == loaded + 1
    assert compiler.cubin(KERNEL, SM75.cc) != first
    assert made == [(KERNEL.name, SM90.cc), (KERNEL.name, SM75.cc)]
    assert len([*directory.iterdir()]) == 2


def test_a_kernel_of_other_bounds_or_sources_is_another(directory, made, monkeypatch):
    compiler.cubin(KERNEL, SM90.cc)
    compiler.cubin(KERNEL._replace(blocks=2), SM90.cc)
    monkeypatch.setattr(compiler, "sources_id", lambda module: "edited")
    compiler.cubin(KERNEL, SM90.cc)
    assert len(made) == 3


@pytest.mark.parametrize("damage", ["bit", "truncated", "empty", "directory", "others", "kind"])
def test_what_is_not_trusted_is_compiled_anew(directory, made, damage):
    first = compiler.cubin(KERNEL, SM90.cc)
    (file,) = directory.iterdir()
    data = file.read_bytes()
    if damage == "directory":
        file.unlink()
        file.mkdir()
    elif damage == "others":
        file.chmod(0o666)
    else:
        kinds = {"bit": data[:-100] + bytes([data[-100] ^ 1]) + data[-99:], "truncated": data[:200], "empty": b"",
                 "kind": data.replace(b"cubin", b"other", 1)}  # fmt: skip
        file.write_bytes(kinds[damage])
    assert compiler.cubin(KERNEL, SM90.cc) == first
    assert len(made) == 2
    if damage != "directory":
        assert compiler.cubin(KERNEL, SM90.cc) == first
        assert len(made) == 2, "the damaged file was not replaced"


def test_a_directory_of_others_is_neither_read_nor_written(directory, made):
    compiler.cubin(KERNEL, SM90.cc)
    directory.chmod(0o777)
    compiler.cubin(KERNEL, SM90.cc)
    compiler.cubin(KERNEL, SM75.cc)
    assert len(made) == 3
    assert len([*directory.iterdir()]) == 1


def _foreign(e, spec, at, v, x):
    copy.body(e, spec, at, v, x)


def test_a_body_of_another_package_is_not_kept(directory, made):
    compiler.cubin(KERNEL._replace(body=_foreign), SM90.cc)
    assert not [*directory.iterdir()]


def test_a_second_process_compiles_nothing(tmp_path):
    place = str(tmp_path / "new" / "kernels")
    assert child(COUNTS, FASTCONV_CACHE_DIR=place).stdout.split() == ["1", "0"]
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
    assert child(COUNTS, FASTCONV_CACHE_DIR=place).stdout.split() == ["0", "1"]


def test_a_launch_takes_machine_code_from_the_cache(directory, made, monkeypatch):
    """Of the driver's calls, those that load a kernel, by a stand-in."""
    import types

    from fastconv.cuda import driver

    seen = []
    stand_in = types.SimpleNamespace(
        cuModuleLoadData=lambda data: (0, seen.append(data) or "module"), cuModuleGetFunction=lambda module, name: (0, name),
        CUfunction_attribute=types.SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8),
    )  # fmt: skip
    monkeypatch.setattr(driver, "api", lambda: stand_in)
    monkeypatch.setattr(driver, "properties", lambda device: types.SimpleNamespace(cc=SM90.cc, shared=SM90.shared))
    kept = compiler.cubin(KERNEL, SM90.cc)
    assert driver.loaded.__wrapped__(KERNEL, 0) == KERNEL.name.encode()
    assert seen == [kept]
    assert len(made) == 1
