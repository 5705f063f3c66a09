"""transposed: the gradient of the image, and transposed convolution, as forward problems of a subset of the taps, one launch a phase.

Every ``sh``-th row and ``sw``-th column of the result, a *phase*, is a forward problem of stride 1 on the result's gradient, of the taps
that reach it, flipped, with channels of input and output swapped (:mod:`fastconv.planning.phases`); it writes a view of the result.  What
packs weights for the forward problem reads them so.  Rows and columns that no tap reaches are the bias alone.  Order of accumulation, and
class of the error: those of the child plans.

A forward problem multiplies its padding by weights, which the formula does not: where a weight is not finite, every result is computed
again as `plain` does.  Nobody waits to know: one kernel looks at the weights when they are packed, and the last of a run at what it saw.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..planning import card_cost
from ..planning.phases import Phase, phase_problem, placed
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import Problem, not_computed
from . import depthwise, direct, implicit_gemm, plain, tensor, winograd
from .arithmetic import FLOATS, SIZES
from .arrays import DeviceArray
from .compile import Kernel
from .copy import copied, new, on_device
from .driver import Launch as DriverLaunch
from .driver import Memory, parts
from .finish import SUMS, addresses, cannot_finish, finish_values, parameters
from .pointwise import biased
from .target import Target

CASES = (
    "ic5ih6iw7_oc4k3_p1_bwd-data_bias+relu", "n2_g2_ic4ih5iw7_oc6k3_s2_p1_bwd-data_bias", "ic9ih6iw8_oc10k3_p1_bwd-data_nhwc_hwio",
    "ic4ih8_oc6k2_s2_bwd-data_f16:f16:f16:f32", "ic2ih9iw11_oc4k3_s2_d2_p3_bwd-data_i32", "ic5ih9_oc7k1_s2_bwd-data_bias",
    "n2_g6_ic6ih7iw9_oc6k3_s2_p1_bwd-data_nhwc_hwio", "ic2ih9iw10_oc3k3_s3_d2_p2_bwd-data_f64", "ih20iw70_k5_p2_bwd-data",
    "n2_ic3ih8_oc8k5_s4_bwd-data_bf16:bf16:bf16:f32_bias+relu", "n2_ic2ih1iw2_oc3kh2kw3_s4_p5_bwd-data_bias",
    "ic18ih9iw12_oc32k3_p1_bwd-data_fast", "ic10ih8iw9_oc20k4_s2_p1_bwd-data_bf16:bf16:bf16:f32_nhwc_hwio_fast",
    "g2_ic6ih5iw6_oc4kh3kw4_sh1sw2_pt2pb0pl1pr3_bwd-data_u8:i8:i32:i32", "ih24iw130_k5_s2_p2_bwd-data",
    "n2_ic20ih12_oc64k3_s2_p1_bwd-data",
)  # fmt: skip
_MOST_PHASES = 64
_THREADS = 128
_MOST_BLOCKS = 256
_MOST = 2**31 - 2**24  # results, and weights: what the last block's threads count beyond them fits, too
_FORWARD = (depthwise, tensor, winograd, implicit_gemm, direct, plain)

LOOK_AT = ("wei", "seen", *(f"w{axis}" for axis in "nchw"))
LOOK_EXTENTS = ("count", "each", "n1", "n2", "n3")
AGAIN_AT = (*plain.AT[:4], "seen", *plain.AT[4:])
AGAIN_EXTENTS = (*plain.EXTENTS, "looked", "each")


class Packed(NamedTuple):
    """What a plan's packed weights own: the weights themselves, those of each child, and what was seen of them, 0 or NaN by the block."""

    wei: DeviceArray
    children: Any
    seen: DeviceArray | None


def look_body(e: Any, s: tuple[str, str], at: Any, v: Any, x: Any) -> None:
    """``seen[block]`` is 0, or NaN where a weight among the block's is not finite as sums take it; weights of any strides."""
    stored, acc = s
    kind = SUMS[acc]
    first = e.block("x") * (x.each * _THREADS) + e.thread("x")
    zero = e.number(kind, 0)

    def one(n: Any, totals: list[Any]) -> list[Any]:
        place = e.least(first + n * _THREADS, x.count - 1)
        rest, i3 = place // x.n3, place % x.n3
        rest, i2 = rest // x.n2, rest % x.n2
        (weight,) = e.load(stored, kind, at.wei + at.wn * (rest // x.n1) + at.wc * (rest % x.n1) + at.wh * i2 + at.ww * i3, 1)
        return [e.fma(weight, zero, totals[0])]

    total = plain.halved(e, kind, _THREADS, e.loop(x.each, [zero], one)[0])

    def store(nothing: list[Any]) -> list[Any]:
        e.store(kind, at.seen + e.i64(e.block("x")) * SIZES[kind], [total])
        return nothing

    e.when(e.thread("x") < 1, [], store)


def again_body(e: Any, s: plain.Spec, at: Any, v: Any, x: Any) -> None:
    """Where one of ``looked`` numbers seen is NaN, a block computes ``each`` results a thread as `plain` does."""
    kind, thread = SUMS[s.acc], e.thread("x")

    def look(n: Any, totals: list[Any]) -> list[Any]:
        place = e.least(n * _THREADS + thread, x.looked - 1)
        return [totals[0] + e.load(kind, kind, at.seen + e.i64(place) * SIZES[kind], 1)[0]]

    total = plain.halved(e, kind, _THREADS, e.loop(parts(_MOST_BLOCKS, _THREADS), [e.number(kind, 0)], look)[0])

    def compute(nothing: list[Any]) -> list[Any]:
        first = e.block("x") * (x.each * _THREADS) + thread

        def one(n: Any, nothing: list[Any]) -> list[Any]:
            number = first + n * _THREADS
            e.when(number < x.count, [], lambda nothing: plain.result(e, s, at, v, x, number))
            return nothing

        return e.loop(x.each, nothing, one)

    e.when(e.is_number(total), [], lambda nothing: nothing, compute)


def look_kernel(stored: str, acc: str) -> Kernel:
    """The kernel that looks for weights that are not finite."""
    return Kernel(f"transposed_look_{stored}_{acc}", look_body, (stored, acc), LOOK_AT, ("i32", ("unused",)), LOOK_EXTENTS,
                  (_THREADS, 1, 1), 64, shared=True, vectors=False)  # fmt: skip


def again_kernel(s: plain.Spec) -> Kernel:
    """The kernel that computes results again."""
    name = "_".join(filter(None, ("transposed_again", s.src, s.wei, s.acc, s.dst, s.rounding)))
    return Kernel(name, again_body, s, *parameters(AGAIN_AT, s), AGAIN_EXTENTS, (_THREADS, 1, 1), 96, shared=True, vectors=False,
                  fused=False)  # fmt: skip


def reject(p: Problem, t: Target) -> str | None:
    """The gradient of the image under the constant border, of at most `_MOST_PHASES` phases, whose children some algorithm takes."""
    reason = not_computed(p, "bwd_data", bfloat=True, bfloat_weights=True, bfloat_ops=("bwd_data",)) or cannot_finish(p)
    if reason is not None:
        return reason
    if p.border != "constant" and p.pt + p.pb + p.pl + p.pr:
        return f"folds no border {p.border} back into the image"
    if min(p.sh, p.ih) * min(p.sw, p.iw) > _MOST_PHASES:
        return f"launches at most {_MOST_PHASES} phases, not {p.sh} x {p.sw}"
    if plain.reject(p, t) is not None:
        return plain.reject(p, t)  # of what it may have to compute again
    if max(p.n * p.ic * p.ih * p.iw, p.oc * p.taps) > _MOST:
        return "counts results and weights in 32 bits"
    for one in _children(p):
        if all(algorithm.reject(one, t) is not None for algorithm in _FORWARD):
            return f"no algorithm can run the phase {one}"
    return None


def _children(p: Problem) -> list[Problem]:
    """The forward problems of phases that taps reach."""
    return [phase_problem(p, y, x, p.n) for y, x in placed(p) if y.taps and x.taps]


def _looks(p: Problem) -> bool:
    """Whether a weight that is not finite may be multiplied by padding."""
    return p.acc in FLOATS and any(one.pt + one.pb + one.pl + one.pr for one in _children(p))


def cost(p: Problem, t: Target) -> float:
    """The children's, and what looks at weights."""
    each = [min(algorithm.cost(one, t) for algorithm in _FORWARD if algorithm.reject(one, t) is None) for one in _children(p)]
    others = len(placed(p)) - len(each) + 2 * _looks(p)
    return card_cost.phases_seconds(each, others)


def most_kernels(t: Target) -> int:
    """Those that look at weights and compute again; its children's are counted with their algorithms."""
    return 2


def kernels(t: Target) -> tuple[Kernel, ...]:
    """Its own, of the cases."""
    found = []
    for p in map(Problem.parse, CASES):
        if _looks(p):
            found += [look_kernel(p.wei, p.acc), again_kernel(plain.spec_of(p))]
    return tuple(dict.fromkeys(found))


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A plan whose packed weights are the weights, which own what the children packed."""
    places = placed(p)
    reached = [place for place in places if place[0].taps and place[1].taps]
    alone = [place for place in places if place not in reached]
    children = [plan(one, t) for one in _children(p)]
    looks = _looks(p)

    def pack(p: Problem, wei: Any) -> Any:
        wei = on_device(wei, p.wei)
        swapped: Any = _swapped(p, wei)
        packed: Any = [
            child.pack(swapped[:, :, y.k0 :: y.step, x.k0 :: x.step][:, :, ::-1, ::-1])
            for child, (y, x) in zip(children, reached, strict=True)
        ]
        owned = Packed(wei, packed, _seen(p, wei) if looks else None)
        return DeviceArray(wei.address, wei.shape, wei.strides, wei.dtype, wei.stream, wei.device, owned)

    def prepare(own: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        owned: Packed = packed.owner
        launches = [
            child.prepare(_under(src, *place), weights, _of_phase(p, dst, *place))
            for child, weights, place in zip(children, owned.children, reached, strict=True)
        ]
        again = None
        if owned.seen is not None:
            numbers, at = plain.numbers(p), (*src.strides, *packed.strides, *dst.strides)
            blocks, each = _blocks(numbers[0])
            again = DriverLaunch(again_kernel(plain.spec_of(p)), (blocks, 1, 1), (0, 0, 0, 0, 0, *at), finish_values(p, fill),
                                 (*numbers, owned.seen.size, each), _THREADS * SIZES[SUMS[p.acc]], src.device)  # fmt: skip

        def run(src: Any, packed: Any, bias: Any, dst: Any) -> None:
            owned: Packed = packed.owner
            for launch, weights, place in zip(launches, owned.children, reached, strict=True):
                launch(_under(src, *place), weights, bias, _of_phase(p, dst, *place))
            for place in alone:
                biased(p, bias, _of_phase(p, dst, *place))
            if again is not None:
                seen: Any = owned.seen
                again(src.stream, src.address, packed.address, *addresses(bias, dst), seen.address)

        return run

    return Plan(problem=p, algorithm="transposed", kernel="phases" if len(places) > 1 else "flipped", cost=cost(p, t), pack_weights=pack,
                prepare_launch=prepare, children=tuple({child.problem: child for child in children}.values()))  # fmt: skip


def _under(src: Any, y: Phase, x: Phase) -> Any:
    """The pixels that a phase reads."""
    return src[:, :, y.low : y.end, x.low : x.end]


def _of_phase(p: Problem, dst: Any, y: Phase, x: Phase) -> Any:
    """The results of a phase."""
    return dst[:, :, y.first :: p.sh, x.first :: p.sw]


def _swapped(p: Problem, wei: DeviceArray) -> DeviceArray:
    """Weights with the channels of input and output swapped, ``(ic, oc/g, kh, kw)``: a view, or a copy of those of several groups."""
    if p.g == 1:
        return wei.transpose(1, 0, 2, 3)
    o, c = p.oc // p.g, p.ic // p.g
    first, *others = wei.strides
    if c == 1:
        return wei.strided((p.ic, o, p.kh, p.kw), (o * first, first, *others[1:]))
    swapped = wei.strided((p.g, c, o, p.kh, p.kw), (o * first, others[0], first, *others[1:]))
    made = new(wei, swapped.shape, wei.dtype)
    copied(swapped, made)
    return made.reshape((p.ic, o, p.kh, p.kw))


def _blocks(count: int) -> tuple[int, int]:
    """Blocks that share so many numbers, and how many of them a thread has."""
    each = parts(count, _THREADS * _MOST_BLOCKS)
    return parts(count, _THREADS * each), each


def _seen(p: Problem, wei: DeviceArray) -> DeviceArray:
    """Queue a look at the weights."""
    size = SIZES[SUMS[p.acc]]
    blocks, each = _blocks(wei.size)
    memory = Memory(blocks * size, wei.device, wei.stream)
    launch = DriverLaunch(look_kernel(p.wei, p.acc), (blocks, 1, 1), (0, 0, *wei.strides), (0,), (wei.size, each, *wei.shape[1:]),
                          _THREADS * size, wei.device)  # fmt: skip
    launch(wei.stream, wei.address, memory.address)
    return DeviceArray(memory.address, (blocks,), None, f"f{size}", wei.stream, wei.device, memory)
