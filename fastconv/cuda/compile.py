"""The one place that compiles for CUDA: numba-cuda makes PTX of a kernel's body, the toolkit's assembler makes machine code of that.

Neither needs a card or a driver.  A kernel's machine code is made once per machine and compute capability, and kept on disk as
`fastconv.planning.disk_cache` says.  numba-cuda, cuda.core and their options are named in no other file, so that their successors can
take their place here; driver.py loads what this makes.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import logging
import os
import re
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, types

from .. import __version__
from ..planning.disk_cache import KernelFile, Sources, cache_directory
from .simd import SIMULATED, Emitter
from .twin import Twin

_log = logging.getLogger("fastconv")
_MAGIC = b"fastconv cubin 1\n"
_SOURCES = Sources(Path(__file__).parent)
_compiling = threading.RLock()
_TYPES = {"i32": types.int32, "i64": types.int64, "f32": types.float32, "f64": types.float64}
NUMPY = {"i32": np.dtype(np.int32), "i64": np.dtype(np.int64), "f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}

counts = {"compiled": 0, "loaded": 0}


class Kernel(NamedTuple):
    """What an algorithm says of one of its kernels: enough to compile it, to launch it, and to test both.

    The kernel is ``void (at, values, extents)``: 64-bit addresses and strides in bytes, numbers of the accumulator's kind, 32-bit
    integers.  Each is a named tuple whose items are parameters of their own, which the card reads from its constant memory.
    """

    name: str
    body: Callable[..., None]  # body(e, spec, at, values, extents), see simd.py
    spec: Any  # a tuple of ints and strings
    at: tuple[str, ...]
    values: tuple[str, tuple[str, ...]]  # kind, names
    extents: tuple[str, ...]
    block: tuple[int, int, int]  # threads
    registers: int  # of a thread, at most
    shared: bool = False  # whether launches give it shared memory
    blocks: int = 1  # that a multiprocessor should hold at once, at least
    vectors: bool = True  # whether it must load 16 bytes at a time
    fused: bool = True  # whether it must contain fused multiply-adds

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.block[0] * self.block[1] * self.block[2]


class Resources(NamedTuple):
    """What the assembler says that a kernel takes: registers of a thread, bytes of local memory, bytes spilled, static shared bytes."""

    registers: int
    stack: int
    spills: int
    shared: int


class Code(NamedTuple):
    """A compiled kernel."""

    entry: str
    ptx: str
    cubin: bytes
    resources: Resources


@functools.cache
def _tuples(kernel: Kernel) -> tuple[Any, Any, Any]:
    """The named tuples of a kernel's parameters."""
    return namedtuple("At", kernel.at), namedtuple("Values", kernel.values[1]), namedtuple("Extents", kernel.extents)


def _emitted(kernel: Kernel) -> Any:
    """The kernel's body as an intrinsic ``run(at, values, extents)``."""
    from numba.cuda.extending import intrinsic

    @intrinsic
    def run(typing_context: Any, at: Any, values: Any, extents: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            e = Emitter(builder)
            unpacked = []
            for kind, packed in zip(signature.args, arguments, strict=True):
                unpacked.append(kind.instance_class(*(e.value(builder.extract_value(packed, n)) for n in range(kind.count))))
            kernel.body(e, kernel.spec, *unpacked)
            return context.get_dummy_value()

        return types.void(at, values, extents), codegen

    return run


def simulated(kernel: Kernel) -> Any:
    """The kernel for Numba's simulator: ``simulated(kernel)[grid, 1, 0, shared](at, values, extents)``; a block's threads are `Twin`'s."""
    assert SIMULATED
    simulator: Any = importlib.import_module("numba.cuda.simulator.kernel")
    simulator.BlockManager.run = _run_block

    @cuda.jit
    def function(at: Any, values: Any, extents: Any) -> None:
        with np.errstate(all="ignore"):
            kernel.body(Twin(cuda, kernel.block), kernel.spec, at, values, extents)

    function.kernel = kernel
    return function


def _run_block(manager: Any, place: Any, *arguments: Any) -> None:
    """The simulator's ``BlockManager.run`` of blocks of one thread: it need not be polled, which holds it up three times as long."""
    from numba.cuda.simulator.kernel import BlockThread

    thread = BlockThread(lambda: manager._f(*arguments), manager, place, (0, 0, 0), False)
    thread.start()
    thread.join()
    if thread.exception:
        error, trace = thread.exception
        raise error.with_traceback(trace)


def _entry(kernel: Kernel) -> Any:
    """The Python function that Numba compiles."""
    run = _emitted(kernel)

    def function(at: Any, values: Any, extents: Any) -> None:
        run(at, values, extents)

    function.__name__ = function.__qualname__ = kernel.name
    return function


def signature(kernel: Kernel) -> Any:
    """Numba's type of the kernel."""
    kinds = (types.int64, _TYPES[kernel.values[0]], types.int32)
    return types.void(*[types.NamedUniTuple(kind, len(made._fields), made) for kind, made in zip(kinds, _tuples(kernel), strict=True)])


def ptx(kernel: Kernel, cc: tuple[int, int]) -> str:
    """The kernel as text, with ``kernel.name`` as its entry."""
    bounds = (kernel.threads, kernel.blocks)
    with _compiling:
        compiled: Any = cuda.compile  # type: ignore[attr-defined]
        text, _ = compiled(_entry(kernel), signature(kernel), device=False, abi="numba", cc=cc, output="ptx", launch_bounds=bounds)
    (mangled,) = re.findall(r"\.entry\s+(\w+)", text)
    return text.replace(mangled, kernel.name)


def assembled(text: str, arch: str) -> tuple[bytes, Resources]:
    """Machine code of PTX, and what it takes."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    linker = Linker(ObjectCode.from_ptx(text.encode()), options=LinkerOptions(arch=arch, ptxas_options=["-v"]))
    code = linker.link("cubin").code
    return bytes(code), _resources(linker.get_info_log())


def _resources(log: str) -> Resources:
    def number(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, log)))

    registers = re.findall(r"Used (\d+) registers", log)
    if not registers:
        raise RuntimeError(f"the CUDA assembler said nothing of registers: {log!r}")
    spills = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
    return Resources(max(map(int, registers)), number(r"(\d+) bytes stack frame"), spills, number(r"(\d+) bytes smem"))


@functools.cache
def code(kernel: Kernel, cc: tuple[int, int]) -> Code:
    """The kernel compiled for a compute capability; made once in a process."""
    if SIMULATED:
        raise RuntimeError("in Numba's simulator nothing is compiled")
    with _compiling:
        text = ptx(kernel, cc)
        cubin, resources = assembled(text, f"sm_{cc[0]}{cc[1]}")
        counts["compiled"] += 1
        return Code(kernel.name, text, cubin, resources)


def cubin(kernel: Kernel, cc: tuple[int, int]) -> bytes:
    """The kernel's machine code, from the disk cache or the compiler."""
    with _compiling:
        start = time.perf_counter()
        file = _file(kernel, cc)
        made = file.read()
        loaded = made is not None
        if made is None:
            made = code(kernel, cc).cubin
            file.write(made)
        else:
            counts["loaded"] += 1
        if os.environ.get("FASTCONV_VERBOSE"):
            _log.warning("%s %s in %.3f s", "loaded" if loaded else "compiled", kernel.name, time.perf_counter() - start)
        return made


def _file(kernel: Kernel, cc: tuple[int, int]) -> KernelFile:
    """Where the kernel's machine code is kept; nowhere where no source of this package tells what it is made of."""
    package, _, module = kernel.body.__module__.rpartition(".")
    known = _SOURCES and package == __package__
    identity = (kernel.body.__qualname__, *(getattr(kernel, name) for name in kernel._fields if name != "body"))
    return KernelFile(cache_directory() if known else None, _MAGIC, kernel.name, sources_id(module) if known else "", identity, cc)


@functools.cache
def sources_id(module: str) -> str:
    """Digest of what the machine code of a module's kernels depends on: sources, the compilers' versions and what steers them."""
    from cuda.bindings import nvjitlink, nvvm

    packages = ("numba", "numba-cuda", "llvmlite", "nvidia-nvvm", "nvidia-nvjitlink", "cuda-core")
    steering = (f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(("NUMBA_CUDA_", "NUMBA_OPT")))
    tools = (nvjitlink.version(), nvvm.version(), nvvm.ir_version())
    return _SOURCES.digest(module, (__version__, sys.version, *map(_version, packages), *map(str, tools), *steering))


def _version(package: str) -> str:
    """Of an installed package; the toolkit may be installed otherwise."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def toolkit() -> int:
    """The major version of the assembler that makes the machine code."""
    from cuda.bindings import nvjitlink

    return int(nvjitlink.version()[0])


def capabilities() -> tuple[tuple[int, int], ...]:
    """Compute capabilities that it makes machine code for."""
    nvrtc: Any = importlib.import_module("numba.cuda.cudadrv.nvrtc")
    return tuple(nvrtc.get_supported_ccs())


def packed(kernel: Kernel, at: tuple[int, ...], values: np.ndarray, extents: tuple[int, ...]) -> bytes:
    """The kernel's parameters as one block of bytes, each at a multiple of its size, without gaps.

    Raises
    ------
    OverflowError
        An extent does not fit 32 bits.
    """
    kind = NUMPY[kernel.values[0]]
    assert len(at) == len(kernel.at)
    assert len(values) == len(kernel.values[1])
    assert len(extents) == len(kernel.extents)
    return b"".join((np.array(at, np.int64).tobytes(), np.asarray(values, kind).tobytes(), np.array(extents, np.int32).tobytes()))


def unpacked(kernel: Kernel, parameters: bytes) -> tuple[Any, Any, Any]:
    """What `packed` made, as the kernel's named tuples."""
    made, place = [], 0
    for kind, cls in zip(("i64", kernel.values[0], "i32"), _tuples(kernel), strict=True):
        numbers = np.frombuffer(parameters, NUMPY[kind], len(cls._fields), place)
        made.append(cls(*numbers.tolist()))
        place += numbers.nbytes
    assert place == len(parameters)
    return made[0], made[1], made[2]
