"""What a card can do at best, measured in the run that is judged by it: copying, multiply-adds, products of tensor cores."""

import math

from fastconv.cuda import driver, target
from fastconv.cuda.compile import Kernel

LEAST_SECONDS = 0.015  # of one measurement
ROUNDS = 4
COPY_BYTES = 1 << 30
TURNS = 2000
# multiply-adds of factors of 16 bits, dense, of a multiprocessor and clock, as the vendor's data sheets have them; of tf32 half as many
NOMINAL = {(8, 0): 1024, (9, 0): 2048, (10, 0): 4096}
FACTORS = ("tf32", "f16", "bf16")


def seconds(run):
    """The least mean time of ``run(n)``, for n = 0, 1, ..., between events of the default stream."""
    api, checked = driver.api(), driver.checked
    start, end = (checked(api.cuEventCreate(0), "create an event") for _ in "ab")

    def measured(count):
        checked(api.cuEventRecord(start, 0), "record")
        for n in range(count):
            run(n)
        checked(api.cuEventRecord(end, 0), "record")
        checked(api.cuEventSynchronize(end), "wait")
        return checked(api.cuEventElapsedTime(start, end), "tell a time") / 1e3 / count

    run(0)
    once = measured(2)
    count = max(3, min(2000, math.ceil(LEAST_SECONDS / max(once, 1e-7))))
    return min(measured(count) for _ in range(ROUNDS))


def copy_bandwidth():
    """Bytes read and written per second by the driver's copy."""
    size = COPY_BYTES
    first, second = driver.Memory(size), driver.Memory(size)
    api = driver.api()
    return 2 * size / seconds(lambda n: api.cuMemcpyDtoDAsync(second.address, first.address, size, 0))


def _fma_body(e, spec, at, v, x):
    sums = [v.start + n for n in range(32)]

    def step(i, sums):
        for _ in range(8):
            sums = [e.fma(total, v.factor, v.start) for total in sums]
        return sums

    sums = e.loop(x.turns, sums, step)
    total = sums[0]
    for other in sums[1:]:
        total = total + other
    e.store("f32", at.dst + e.i64(e.block("x") * 256 + e.thread("x")) * 4, [total])


def fma_peak():
    """float32 multiply-adds per second."""
    kernel = Kernel("fma_peak", _fma_body, (), ("dst",), ("f32", ("start", "factor")), ("turns",), (256, 1, 1), 64)
    blocks, turns = 8 * target.detect().units, TURNS
    memory = driver.Memory(blocks * 256 * 4)
    launch = driver.Launch(kernel, (blocks, 1, 1), (0,), (1e-3, 0.999), (turns,))
    return blocks * 256 * 32 * 8 * turns / seconds(lambda n: launch(0, memory.address))


TILES, PRODUCTS = 16, {"tf32": 16 * 8 * 8, "f16": 16 * 8 * 16, "bf16": 16 * 8 * 16}  # of a warp; multiply-adds of one instruction


def _tensor_body(e, factor, at, v, x):
    words = [x.word + n for n in range(6)]

    def step(i, sums):
        for _ in range(2):
            made = [e._mma(factor, words[:4], words[4:], sums[4 * n : 4 * n + 4]) for n in range(TILES)]
            sums = [value for four in made for value in four]
        return sums

    sums = e.loop(x.turns, [v.start] * (4 * TILES), step)
    total = sums[0]
    for other in sums[1:]:
        total = total + other
    e.store("f32", at.dst + e.i64(e.block("x") * 256 + e.thread("x")) * 4, [total])


def tensor_kernel(factor):
    """Products of operands that stay in registers."""
    return Kernel(f"tensor_peak_{factor}", _tensor_body, factor, ("dst",), ("f32", ("start",)), ("turns", "word"), (256, 1, 1), 128)


def tensor_peak(factor):
    """Multiply-adds per second by the instruction that fastconv uses; warps that work together reach more on later cards."""
    card = target.detect()
    blocks, turns = 4 * card.units, TURNS
    memory = driver.Memory(blocks * 256 * 4)
    word = 0x3F800000 if factor == "tf32" else 0x3C003C00 if factor == "f16" else 0x3F803F80
    launch = driver.Launch(tensor_kernel(factor), (blocks, 1, 1), (0,), (0.5,), (turns, word))
    return blocks * 8 * TILES * 2 * turns * PRODUCTS[factor] / seconds(lambda n: launch(0, memory.address))


def ceilings():
    """name -> bytes or multiply-adds per second; ``peak`` is the data sheet's number at the clock that the driver tells."""
    card = target.detect()
    found = {"copy": copy_bandwidth(), "fma": fma_peak()}
    if card.cc >= (8, 0):
        found |= {factor: tensor_peak(factor) for factor in FACTORS}
    if card.cc in NOMINAL:
        each = NOMINAL[card.cc] * card.units * driver.properties(driver.current()).clock
        found |= {"peak tf32": each / 2, "peak f16": each, "peak bf16": each}
    return found
