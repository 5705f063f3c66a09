"""card_cost: predicted seconds of a launch on a CUDA device, and the constants that they are made of."""

from __future__ import annotations

from .cost import bytes_moved
from .problem import Problem

# Guesses, all of them: nothing was measured on a card.  They are shares of what data sheets say (multiply-adds of float32 a second,
# and bytes: T4 4.05e12 and 3.2e11, A100 9.75e12 and 1.56e12, H200 3.35e13 and 4.8e12), from counts of instructions in the machine code
# and of the shared memory's accesses.  `python -m bench.gpu` shows what they should be.
LAUNCH_SECONDS = 3e-6
NEXT_LAUNCH_SECONDS = 1e-6  # behind another of the same run
COPY_SHARE = 0.85
DIRECT_SHARE = 0.8
CHANNELS_SHARE = 0.4
DIRECT_BLOCK = 32, 128  # rows and columns of results
PLAIN_SHARE = 0.02
GEMM_SHARE = 0.7
WEIGHTS_SHARE = 0.5
DEPTHWISE_WEIGHTS_SHARE = 0.15
WINOGRAD_SHARES = {2: 0.6, 4: 0.5}  # by m, of multiplications between transforms: 512 of 770 instructions, 384 of 640
WINOGRAD_ENDS = {2: 8, 4: 16}  # by m, channels in whose time the first pixels are transformed and the sums
# On tensor cores, of the float32 multiply-adds outside them.  Data sheets say 8 times as many of tf32 (A100; H200 7.4) and twice that of
# float16 and bfloat16; but 16 products of a warp, 1024 multiply-adds each of tf32, read 24 words of each lane, and a block keeps 8: 4 and
# 8 at most, less what waits for pixels.
TENSOR_RATES = {"tf32": 2.0, "f16": 3.0, "bf16": 3.0}


def direct_seconds(p: Problem, bandwidth: float, fma: float) -> float:
    """The longer of memory's time and the multiply-adds' of whole blocks, and a launch."""
    rows, columns = DIRECT_BLOCK
    products = p.n * p.oc * -(-p.oh // rows) * rows * -(-p.ow // columns) * columns * p.taps
    # every channel of results loads every pixel of its group again, which the first-level caches cannot do at the peak
    sums = products / ((DIRECT_SHARE if p.ic == p.g else CHANNELS_SHARE) * fma)
    return LAUNCH_SECONDS + max(bytes_moved(p) / (COPY_SHARE * bandwidth), sums)


def plain_seconds(p: Problem, fma: float) -> float:
    """Two loads, their addresses and a border for each multiply-add; of an image's gradient each tap is looked at by each result."""
    products = p.n * p.ic * p.ih * p.iw * (p.oc // p.g) * p.kh * p.kw if p.op == "bwd_data" else p.flops / 2
    return LAUNCH_SECONDS + products / (PLAIN_SHARE * fma)


def phases_seconds(each: list[float], others: int) -> float:
    """Runs of one launch behind the other, and ``others`` of hardly any work."""
    return sum(each) + (len(each) + others - 1) * NEXT_LAUNCH_SECONDS + (1 - len(each)) * LAUNCH_SECONDS


def gemm_seconds(p: Problem, products: float, bandwidth: float, rate: float) -> float:
    """The longer of memory's time and the multiply-adds' of whole tiles, ``rate`` a second, and a launch."""
    return LAUNCH_SECONDS + max(bytes_moved(p) / (COPY_SHARE * bandwidth), products / rate)


def weights_seconds(p: Problem, products: float, moved: float, bandwidth: float, fma: float) -> float:
    """The multiply-adds of whole tiles, sums of parts to memory and back, and two launches."""
    return gemm_seconds(p, products, bandwidth, fma * WEIGHTS_SHARE) + moved / bandwidth + NEXT_LAUNCH_SECONDS


def depthwise_weights_seconds(p: Problem, bandwidth: float, fma: float) -> float:
    """The longer of memory's time and the multiply-adds', for which pixels are loaded from caches, and two launches."""
    return NEXT_LAUNCH_SECONDS + gemm_seconds(p, p.flops / 2, bandwidth, fma * DEPTHWISE_WEIGHTS_SHARE)
