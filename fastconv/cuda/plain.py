"""plain: one thread for each result and the formula as it stands: every real problem that no other algorithm takes, the gradients too.

Order of accumulation per output: channel, ``ky``, ``kx``, products fused; where the problem names an order, that one, products rounded.
Of weights' gradients: each of 128 threads every 128th pixel, then pairs of their sums, halving.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..planning import card_cost
from ..planning.plans import Launch, Plan
from ..planning.problem import OPS, ORDERS, Problem, not_computed, parse_epilogue
from . import border
from .addends import finishing
from .arithmetic import SIZES
from .compile import Kernel
from .copy import on_device
from .driver import Launch as DriverLaunch
from .finish import SUMS, Results, addresses, cannot_finish, finish_values, parameters, tail_of, unknown
from .target import Target

CASES = (
    "n2_g2_ic4ih5iw7_oc6k3_s2_p1_bwd-data_bias", "ic2ih4iw9_oc1k2_p1_reflect_bwd-weight",
    "ih5iw30_k3_p1_order=raster", "ih4iw40_kh1kw7_pt0pb0pl3pr3_reflect_f64_order=symmetric",
    "ih30iw5_kh5kw1_pt2pb2pl0pr0_order=antisymmetric", "n2_g2_ic2ih7iw6_oc2k2_s2_d2_p2_wrap_f64_bwd-weight",
    "ic2ih9iw11_oc4k3_s2_d2_p3_bwd-data_i32", "ic3ih5iw20_oc2k3_p1_edge_i8_bias+relu",
    "ih5iw30_k3_p1_u8:f64:u8:f64_order=raster_half-up", "ih5iw30_kh1kw6_pt0pb0pl3pr2_wrap_i16:f64:u8:f64_order=last",
    "ic2ih5iw8_oc3k3_p1_bf16:bf16:bf16:f32_bias", "g2_ic4ih5iw7_oc6k3_s2_p1_bwd-data_bf16:bf16:bf16:f32_bias+relu",
    "n2_ic2ih5iw9_oc3k3_s2_p1_bwd-weight_bf16:bf16:bf16:f32",
    "ic2ih5iw7_oc3k3_p1_i16:i16:u8:i32_bias+scale+shift+relu+saturate:7",
)  # fmt: skip
THREADS = 128
_MOST = 2**31 - 1  # results, and blocks


class Spec(NamedTuple):
    """What a kernel is compiled for."""

    op: str
    order: str
    src: str
    wei: str
    acc: str
    dst: str
    rounding: str
    tail: str = ""  # see `finish.tail_of`


AT = ("src", "wei", "bias", "dst", *(f"{array}{axis}" for array in "swd" for axis in "nchw"))
EXTENTS = (
    "count", "n", "icg", "ocg", "ih", "iw", "oh", "ow", "kh", "kw", "sh", "sw", "dh", "dw", "pt", "pl", "d1", "d2", "d3", "biased",
    "activated", *(f"y_{name}" for name in border.FIELDS), *(f"x_{name}" for name in border.FIELDS),
)  # fmt: skip


class Sum(NamedTuple):
    """One result's place, and the products of each operation."""

    e: Any
    s: Spec
    at: Any
    v: Any
    x: Any
    place: tuple[Any, Any, Any, Any]

    def pixel(self, image: Any, y: Any, column: Any) -> Any:
        """The pixel behind a row and a column of an image's channel."""
        e, x = self.e, self.x
        y, column = border.mapped(e, x, "y", y), border.mapped(e, x, "x", column)
        (pixel,) = e.load(self.s.src, SUMS[self.s.acc], image + self.at.sh * e.most(y, 0) + self.at.sw * e.most(column, 0), 1)
        return e.pick((y < 0) | (column < 0), self.v.fill, pixel)

    def tap(self, address: Any, a: Any, b: Any) -> Any:
        """An element of the second operand's plane."""
        return self.e.load(self.s.wei, SUMS[self.s.acc], address + self.at.wh * a + self.at.ww * b, 1)[0]

    def forward(self, first: Any) -> Any:
        """``sum_{c, ky, kx} src[n, c, oy sh + ky dh - pt, ox sw + kx dw - pl] wei[o, c, ky, kx]`` and the first addend."""
        e, at, x = self.e, self.at, self.x
        n, o, oy, ox = self.place
        image, wei = at.src + at.sn * n + at.sc * (o // x.ocg * x.icg), at.wei + at.wn * o
        top, left = oy * x.sh - x.pt, ox * x.sw - x.pl

        def pixel(c: Any, ky: Any, kx: Any) -> Any:
            return self.pixel(image + at.sc * c, top + ky * x.dh, left + kx * x.dw)

        def product(c: Any, ky: Any, kx: Any, total: Any) -> Any:
            value, tap = pixel(c, ky, kx), self.tap(wei + at.wc * c, ky, kx)
            return e.fma(value, tap, total) if self.s.order == "any" else e.plus(total, e.times(value, tap))

        def channel(c: Any, totals: list[Any]) -> list[Any]:
            return e.loop(x.kh, totals, lambda ky, totals: e.loop(x.kw, totals, lambda kx, totals: [product(c, ky, kx, totals[0])]))

        if self.s.order == "last":
            before = x.kh * x.kw - 1
            start = product(0, x.kh - 1, x.kw - 1, first)
            return e.loop(before, [start], lambda n, totals: [product(0, n // x.kw, n % x.kw, totals[0])])[0]
        if not self.s.order.endswith("symmetric"):
            return e.loop(x.icg, [first], channel)[0]
        last_y, last_x = x.kh - 1, x.kw - 1
        down = e.least(last_y, 1)  # one of the two extents is 1
        middle_y, middle_x = last_y // 2, last_x // 2

        def pair(j: Any, totals: list[Any]) -> list[Any]:
            ky, kx = j * down, j * (1 - down)
            before, after = pixel(0, ky, kx), pixel(0, last_y - ky, last_x - kx)
            both = e.plus(before, after) if self.s.order == "symmetric" else e.plus(before, e.times(after, e.number(SUMS[self.s.acc], -1)))
            return [e.plus(totals[0], e.times(both, self.tap(wei, ky, kx)))]

        start = e.plus(first, e.times(pixel(0, middle_y, middle_x), self.tap(wei, middle_y, middle_x)))
        return e.loop(middle_y + middle_x, [start], pair)[0]

    def image_gradient(self, first: Any) -> Any:
        """``sum_{o, ky, kx} src[n, o, oy, ox] wei[o, c, ky, kx]`` where ``oy sh + ky dh - pt`` is the row, likewise the column."""
        e, at, x = self.e, self.at, self.x
        n, c, bottom, right = self.place
        group = c // x.icg
        grad, wei = at.src + at.sn * n + at.sc * (group * x.ocg), at.wei + at.wn * (group * x.ocg) + at.wc * (c % x.icg)

        def product(o: Any, ky: Any, kx: Any, total: Any) -> Any:
            y, column = bottom + x.pt - ky * x.dh, right + x.pl - kx * x.dw
            # numbers that are not negative, since only these are divided
            oy, ox = e.most(y, 0) // x.sh, e.most(column, 0) // x.sw
            meets = (y >= 0) & (column >= 0) & (oy < x.oh) & (ox < x.ow) & ((oy * x.sh - y) * (oy * x.sh - y) < 1)
            meets = meets & ((ox * x.sw - column) * (ox * x.sw - column) < 1)

            def add(totals: list[Any]) -> list[Any]:
                (value,) = e.load(self.s.src, SUMS[self.s.acc], grad + at.sc * o + at.sh * oy + at.sw * ox, 1)
                return [e.fma(value, self.tap(wei + at.wn * o, ky, kx), totals[0])]

            return e.when(meets, [total], add)[0]

        def channel(o: Any, totals: list[Any]) -> list[Any]:
            return e.loop(x.kh, totals, lambda ky, totals: e.loop(x.kw, totals, lambda kx, totals: [product(o, ky, kx, totals[0])]))

        return e.loop(x.ocg, [first], channel)[0]

    def weight_gradient(self, thread: Any) -> Any:
        """One thread's part of ``sum_{n, oy, ox} src[n, c, oy sh + ky dh - pt, ox sw + kx dw - pl] wei[n, o, oy, ox]``."""
        e, at, x = self.e, self.at, self.x
        o, c, ky, kx = self.place
        image = at.src + at.sc * (o // x.ocg * x.icg + c)
        pixels = x.oh * x.ow

        def one(n: Any, i: Any, totals: list[Any]) -> list[Any]:
            place = i * THREADS + thread

            def add(totals: list[Any]) -> list[Any]:
                oy, ox = place // x.ow, place % x.ow
                pixel = self.pixel(image + at.sn * n, oy * x.sh - x.pt + ky * x.dh, ox * x.sw - x.pl + kx * x.dw)
                return [e.fma(pixel, self.tap(at.wei + at.wn * n + at.wc * o, oy, ox), totals[0])]

            return e.when(place < pixels, totals, add)

        turns = (pixels + (THREADS - 1)) // THREADS
        start = [e.number(SUMS[self.s.acc], 0)]
        return e.loop(x.n, start, lambda n, totals: e.loop(turns, totals, lambda i, totals: one(n, i, totals)))[0]

    def finish(self, total: Any) -> None:
        """Store the result of a sum."""
        at, place = self.at, self.place
        address = at.dst + at.dn * place[0] + at.dc * place[1] + at.dh * place[2] + at.dw * place[3]
        results = Results(self.e, self.s, at, self.v, self.x)
        results.store([total], [results.scaling(place[1])], lambda _: address, self.e.i32(1))


def body(e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
    """A thread computes one result of ``dst (., d1, d2, d3)``; of weights' gradients a block does."""
    kind, thread = SUMS[s.acc], e.thread("x")
    if s.op != "bwd_weight":
        number = e.block("x") * THREADS + thread
        e.when(number < x.count, [], lambda nothing: result(e, s, at, v, x, number))
        return
    one = _placed(e, s, at, v, x, e.block("x"))
    total = halved(e, kind, THREADS, one.weight_gradient(thread))

    def last(nothing: list[Any]) -> list[Any]:
        one.finish(total)
        return nothing

    e.when(thread < 1, [], last)


def halved(e: Any, kind: str, threads: int, value: Any) -> Any:
    """The sum of a number of each thread, in every thread: pairs, halving; shared memory holds one number a thread."""
    thread, size = e.thread("x"), SIZES[kind]
    mine, half = e.shared() + thread * size, threads // 2
    e.shared_store(kind, mine, [value])
    while half:
        e.barrier()

        def halve(nothing: list[Any], half: int = half) -> list[Any]:
            e.shared_store(kind, mine, [e.shared_load(kind, mine, 1)[0] + e.shared_load(kind, mine + half * size, 1)[0]])
            return nothing

        e.when(thread < half, [], halve)
        half //= 2
    e.barrier()
    return e.shared_load(kind, e.shared(), 1)[0]


def _placed(e: Any, s: Spec, at: Any, v: Any, x: Any, number: Any) -> Sum:
    """A result by its number."""
    rest, i3 = number // x.d3, number % x.d3
    rest, i2 = rest // x.d2, rest % x.d2
    return Sum(e, s, at, v, x, (rest // x.d1, rest % x.d1, i2, i3))


def result(e: Any, s: Spec, at: Any, v: Any, x: Any, number: Any) -> list[Any]:
    """A thread computes and stores the result of this number, of weights none; nothing is handed on."""
    one, kind, size = _placed(e, s, at, v, x, number), SUMS[s.acc], SIZES[SUMS[s.acc]]
    # named orders begin with zero, and add the bias last
    bias = e.when(x.biased > 0, [e.number(kind, 0)], lambda _: e.load(kind, kind, at.bias + e.i64(one.place[1]) * size, 1))[0]
    if s.op == "bwd_data":
        one.finish(one.image_gradient(bias))
    elif s.order == "any":
        one.finish(one.forward(bias))
    else:
        one.finish(e.plus(one.forward(e.number(kind, 0)), bias))
    return []


def reject(p: Problem, t: Target) -> str | None:
    """Real, fewer than 2**31 results; no other border than the constant one in images' gradients."""
    roundings, scalings = (None, "saturate", "half_up"), p.op == "fwd"
    reason = not_computed(p, *OPS, orders=ORDERS, roundings=roundings, scalings=scalings, halves=True, bfloat=True, bfloat_weights=True,
                          bfloat_ops=OPS)  # fmt: skip
    reason = reason or cannot_finish(p)
    if reason is not None:
        return reason
    if p.op == "bwd_data" and p.border != "constant" and p.pt + p.pb + p.pl + p.pr:
        return f"computes no image gradients of border {p.border}"
    if p.order != "any" and (p.acc[0] != "f" or p.ic != p.g):
        return f"keeps order {p.order} of float sums of one channel only"
    extents = max(p.ih_padded + p.kh_span, p.iw_padded + p.kw_span, p.oh * p.ow, p.oh * p.sh, p.ow * p.sw)
    if max(_results(p)) > _MOST or p.n * max(p.ic, p.oc) > _MOST or 4 * extents > _MOST:
        return "counts results in 32 bits"
    return None


def _shape(p: Problem) -> tuple[int, int, int, int]:
    if p.op == "bwd_weight":
        return p.oc, p.ic // p.g, p.kh, p.kw
    return (p.n, p.oc, p.oh, p.ow) if p.op == "fwd" else (p.n, p.ic, p.ih, p.iw)


def _results(p: Problem) -> tuple[int, int]:
    a, b, c, d = _shape(p)
    return a * b * c * d, a * b


def cost(p: Problem, t: Target) -> float:
    return card_cost.plain_seconds(p, t.fma)


def most_kernels(t: Target) -> int:
    return len(OPS) + len(ORDERS) - 1


def kernel_of(s: Spec) -> Kernel:
    """The kernel of a specialisation."""
    name = "_".join(filter(None, ("plain", s.op, s.order if s.order != "any" else "", s.src, s.wei, s.acc, s.dst, s.rounding, s.tail)))
    return Kernel(name, body, s, *parameters(AT, s), EXTENTS, (THREADS, 1, 1), 96, shared=s.op == "bwd_weight", vectors=False,
                  fused=s.acc[0] == "f" and s.order == "any")  # fmt: skip


def spec_of(p: Problem) -> Spec:
    """What a problem's kernel is compiled for."""
    return Spec(p.op, p.order, p.src, p.wei, p.acc, p.dst, parse_epilogue(p.epilogue).rounding or "", tail_of(p))


def kernels(t: Target) -> tuple[Kernel, ...]:
    """Those of the cases."""
    return tuple(dict.fromkeys(kernel_of(spec_of(Problem.parse(case))) for case in CASES))


def numbers(p: Problem) -> tuple[int, ...]:
    """A kernel's extents, results first."""
    finish, shape, (count, _) = parse_epilogue(p.epilogue), _shape(p), _results(p)
    return (
        count, p.n, p.ic // p.g, p.oc // p.g, p.ih, p.iw, p.oh, p.ow, p.kh, p.kw, p.sh, p.sw, p.dh, p.dw, p.pt, p.pl, *shape[1:],
        int(finish.bias), int(finish.activation is not None), *border.border_fields(p.border, p.ih, -p.pt),
        *border.border_fields(p.border, p.iw, -p.pl),
    )  # fmt: skip


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan that packs nothing: every type of weights is read."""
    kernel = kernel_of(spec_of(p))

    def prepare(plan: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        extents = numbers(p)
        count = extents[0]
        blocks = count if p.op == "bwd_weight" else -(-count // THREADS)
        shared = THREADS * SIZES[SUMS[p.acc]] if p.op == "bwd_weight" else 0
        at = (*unknown(tail_of(p)), *src.strides, *packed.strides, *dst.strides)
        launch = DriverLaunch(kernel, (blocks, 1, 1), at, finish_values(p, fill), extents, shared, src.device)

        def run(src: Any, packed: Any, bias: Any, dst: Any) -> None:
            launch(src.stream, src.address, packed.address, *addresses(bias, dst))

        return finishing(p, run)

    return Plan(problem=p, algorithm="plain", kernel=kernel.name, cost=cost(p, t), prepare_launch=prepare,
                pack_weights=packed_weights)  # fmt: skip


def packed_weights(p: Problem, wei: Any) -> Any:
    """Weights as they are, on the device."""
    return on_device(wei, p.wei)
