"""What this machine can do at best: the FMA peak and the copy bandwidth.

A convolution is bounded by arithmetic (multiply-adds over the FMA peak) and by traffic (bytes in plus bytes out
over the copy bandwidth at that footprint). Both loops are written as LLVM vectors of the host's width by Numba
intrinsics, so what is measured is the machine and not a compiler's choice; nothing here is shared with the library
that is judged by it.
"""

import threading
import time
from dataclasses import asdict, dataclass
from functools import lru_cache, partial

import numpy as np
from llvmlite import binding, ir
from numba import config, njit, types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

# A fused multiply-add takes 4 to 5 cycles and two start per cycle: 10 chains keep both units busy.
# 12 leave 4 of the 16 registers of AVX2.
ACCUMULATORS = 12
UNROLL = 8
VECTOR_BYTES = {"avx512f": 64, "avx": 32}  # anything else (SSE, NEON): 16
COPY_VECTORS = 4  # vectors per turn of the copy loop
ALIGN_BYTES = 64
SAMPLE_S = 0.02


def host_features():
    """Names of the vector features that Numba compiles for: its own setting where there is one, else the host's."""
    if config.CPU_FEATURES is not None:
        return frozenset(word[1:] for word in config.CPU_FEATURES.split(",") if word.startswith("+"))
    return frozenset(name for name, present in binding.get_host_cpu_features().items() if present)


def vector_bytes():
    """Width of the host's widest vector register."""
    features = host_features()
    return next((width for name, width in VECTOR_BYTES.items() if name in features), 16)


def has_fma():
    """Whether one instruction multiplies and adds; without it the peak is that of separate multiplies and adds."""
    return bool(host_features() & {"fma", "fma4", "neon", "fp-armv8"})


def _element(dtype):
    return {"float32": ir.FloatType(), "float64": ir.DoubleType()}[dtype]


def _literals(*arguments):
    for argument in arguments:
        if not isinstance(argument, types.Literal):
            raise RequireLiteralValue(argument)
    return [argument.literal_value for argument in arguments]


@intrinsic(prefer_literal=True)
def _fma_loop(typingctx, state, turns, dtype, lanes, fused):
    """Emit ``turns`` times UNROLL x ACCUMULATORS of ``acc = acc * state[0] + state[1]``; ``state[2]`` gets the sum of all."""
    dtype, lanes, fused = _literals(dtype, lanes, fused)
    element = _element(dtype)
    vector = ir.VectorType(element, lanes)
    signature = types.void(state, turns, types.literal(dtype), types.literal(lanes), types.literal(fused))

    def emit(context, builder, signature, arguments):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0]).data
        cells = [builder.gep(data, [ir.Constant(ir.IntType(64), i)]) for i in range(3)]
        undefined, zeros = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)

        def splat(cell):
            one = builder.insert_element(undefined, builder.load(cell), ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(one, undefined, zeros)

        factor, addend = splat(cells[0]), splat(cells[1])
        name = f"llvm.fma.v{lanes}f{32 if dtype == 'float32' else 64}"
        fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
        accumulators = [cgutils.alloca_once_value(builder, addend) for _ in range(ACCUMULATORS)]
        with cgutils.for_range(builder, arguments[1]):
            for _ in range(UNROLL):
                for cell in accumulators:
                    value = builder.load(cell)
                    value = builder.call(fma, [value, factor, addend]) if fused else builder.fadd(builder.fmul(value, factor), addend)
                    builder.store(value, cell)
        total = builder.load(accumulators[0])
        for cell in accumulators[1:]:
            total = builder.fadd(total, builder.load(cell))
        lane = builder.extract_element(total, ir.Constant(ir.IntType(32), 0))
        for i in range(1, lanes):
            lane = builder.fadd(lane, builder.extract_element(total, ir.Constant(ir.IntType(32), i)))
        builder.store(lane, cells[2])
        return context.get_dummy_value()

    return signature, emit


@intrinsic(prefer_literal=True)
def _copy_loop(typingctx, src, dst, width, nontemporal):
    """Emit ``dst[:] = src`` for byte arrays, COPY_VECTORS vectors a turn; the rest of ``src.size`` is left out."""
    width, nontemporal = _literals(width, nontemporal)
    vector = ir.VectorType(ir.IntType(8), width)
    signature = types.void(src, dst, types.literal(width), types.literal(nontemporal))

    def emit(context, builder, signature, arguments):
        word = ir.IntType(64)
        arrays = [
            cgutils.create_struct_proxy(ty)(context, builder, value) for ty, value in zip(signature.args[:2], arguments, strict=False)
        ]
        turn_bytes = COPY_VECTORS * width
        turns = builder.udiv(arrays[0].nitems, ir.Constant(word, turn_bytes))
        with cgutils.for_range(builder, turns) as loop:
            start = builder.mul(loop.index, ir.Constant(word, turn_bytes))
            places = [builder.add(start, ir.Constant(word, i * width)) for i in range(COPY_VECTORS)]
            source, target = (
                [builder.bitcast(builder.gep(array.data, [place]), vector.as_pointer()) for place in places] for array in arrays
            )
            for pointer, value in zip(target, [builder.load(pointer, align=width) for pointer in source], strict=True):
                store = builder.store(value, pointer, align=width)
                if nontemporal:
                    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        if nontemporal:
            builder.fence("seq_cst")
        return context.get_dummy_value()

    return signature, emit


@lru_cache
def _fma_kernel(dtype, lanes, fused):
    @njit(nogil=True)
    def fma_turns(state, turns):
        _fma_loop(state, turns, dtype, lanes, fused)

    fma_turns(np.array([0.5, 1.0, 0.0], dtype), 1)
    return fma_turns


@lru_cache
def _copy_kernel(width, nontemporal):
    @njit(nogil=True)
    def copy_turns(src, dst, turns):
        for _ in range(turns):
            _copy_loop(src, dst, width, nontemporal)

    bytes_ = np.zeros(1, np.uint8)
    copy_turns(bytes_, bytes_, 1)
    return copy_turns


def _together(works):
    """Run the callables on one thread each, released together; seconds from the release to the end of the last."""
    if len(works) == 1:
        begin = time.perf_counter()
        works[0]()
        return time.perf_counter() - begin
    gate = threading.Barrier(len(works) + 1)

    def wait_then(work):
        gate.wait()
        work()

    threads = [threading.Thread(target=wait_then, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    gate.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


def _turns(work, sample_s):
    """Turns that take about ``sample_s``: doubled until a tenth of it is reached, then scaled."""
    turns = 1
    while (seconds := _together([partial(work, turns)])) < sample_s / 10:
        turns *= 2
    return max(1, round(turns * sample_s / seconds))


def fma_sampler(dtype="float32", threads=1, sample_s=SAMPLE_S):
    """Return a zero-argument callable that measures the FMA peak once, in flop/s (a multiply-add is two)."""
    lanes = vector_bytes() // np.dtype(dtype).itemsize
    kernel = _fma_kernel(dtype, lanes, has_fma())
    states = [np.array([0.5, 1.0, 0.0], dtype) for _ in range(threads)]
    turn_flop = 2 * UNROLL * ACCUMULATORS * lanes
    turns = _turns(lambda turns: kernel(states[0], turns), sample_s)

    def sample():
        seconds = _together([lambda state=state: kernel(state, turns) for state in states])
        return threads * turns * turn_flop / seconds

    return sample


def aligned(nbytes):
    """So many bytes, 1 each, from a cache line on."""
    raw = np.ones(nbytes + ALIGN_BYTES, np.uint8)
    return raw[-raw.ctypes.data % ALIGN_BYTES :][:nbytes]


def at_line(array):
    """A copy that begins at a cache line, as torch's tensors and results of fastconv do; large arrays of NumPy lie 16 bytes behind one."""
    copy = aligned(array.nbytes).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@lru_cache(maxsize=1)
def _source_and_target(nbytes):
    """Two aligned arrays; the last pair is kept, because each footprint is sampled in several ways and may fill the memory."""
    return aligned(nbytes), aligned(nbytes)


def copy_sampler(footprint_bytes, threads=1, nontemporal=False, sample_s=SAMPLE_S):
    """Return a zero-argument callable that measures the copy bandwidth once, in bytes read plus bytes written per second.

    ``footprint_bytes`` is source and target together; each thread copies its own part again and again.
    """
    width = vector_bytes()
    kernel = _copy_kernel(width, nontemporal)
    grain = COPY_VECTORS * width
    part = max(grain, footprint_bytes // (2 * threads) // grain * grain)
    whole = _source_and_target(max(footprint_bytes // 2, threads * grain))
    pairs = [tuple(side[i * part :][:part] for side in whole) for i in range(threads)]
    turns = _turns(lambda turns: kernel(*pairs[0], turns), sample_s)

    def sample():
        seconds = _together([lambda pair=pair: kernel(*pair, turns) for pair in pairs])
        return threads * turns * 2 * part / seconds

    return sample


@dataclass(frozen=True)
class Ceiling:
    """One measured ceiling: flop/s of ``kind="fma"``, bytes/s of ``kind="copy"``; quartiles and the best of the samples."""

    kind: str
    threads: int
    dtype: str
    footprint_bytes: int
    nontemporal: bool
    median: float
    q1: float
    q3: float
    best: float

    def as_dict(self):
        return asdict(self)


def summarise(kind, samples, *, threads, dtype="", footprint_bytes=0, nontemporal=False):
    """Quartiles of the samples of one ceiling."""
    q1, median, q3 = np.percentile(samples, [25, 50, 75])
    return Ceiling(kind, threads, dtype, footprint_bytes, nontemporal, float(median), float(q1), float(q3), float(max(samples)))


def fma_peak(dtype="float32", threads=1, samples=15):
    """Measure the FMA peak."""
    sample = fma_sampler(dtype, threads)
    return summarise("fma", [sample() for _ in range(samples)], threads=threads, dtype=dtype)


def copy_bandwidth(footprint_bytes, threads=1, nontemporal=False, samples=15):
    """Measure the copy bandwidth at a footprint."""
    sample = copy_sampler(footprint_bytes, threads, nontemporal)
    values = [sample() for _ in range(samples)]
    return summarise("copy", values, threads=threads, footprint_bytes=footprint_bytes, nontemporal=nontemporal)
