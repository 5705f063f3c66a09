"""blocked_tile: the register tile of `blocked`, output channels in lanes, pixels broadcast from a packed panel."""

from __future__ import annotations

from collections import namedtuple
from typing import Any, NamedTuple

from numba import types
from numba.extending import intrinsic

from .compile import TileKernel
from .convert import converted, rounded_between, stored_bytes
from .memory import integers, unrolled_by_hand
from .simd import Emitter, literal

DEPTH = 16  # channels in a channel block
_UNROLL = 4  # channels per turn of the innermost loop


# The first of a kernel's integers, which its tile reads: taps; bytes between channels and between channel blocks of the panel; bytes
# between the panel's pixels of two output rows; of the result's rows, pixels and channels.
Shape = namedtuple("Shape", "taps channel block step_y step_x dy dx dc")


class Form(NamedTuple):
    """What a kernel reads, sums and writes.

    Attributes
    ----------
    kind : str
        Of the sums, and of an element of panel and weights.
    q : int
        Channels in an element: 1, or of i32 sums 2 of 16 bits or 4 of 8.
    how : str
        How products of elements are added: ``fma``, ``multiply``, or a way of `Emitter.dot_add`.
    src, dst : str
        Types of image and result.
    rounding : str
        Into an integer result of floats, or ``""``.
    scaled, residual : int
        Whether each output channel has a scale and a shift; whether an array is added.
    """

    kind: str
    q: int = 1
    how: str = "fma"
    src: str = "f32"
    dst: str = "f32"
    rounding: str = ""
    scaled: int = 0
    residual: int = 0

    @property
    def goes_past(self) -> bool:
        """Whether results may be stored past the caches: those of the type of the sums, whose vectors can be cache lines."""
        return self.q == 1 and self.dst == self.kind

    @property
    def tail(self) -> str:
        """The kind that sums are finished in: integers are scaled in float32."""
        return "f32" if self.scaled and self.kind == "i32" else self.kind


# What tiles of the same filters are given together: see `blocked_tile`.
FilterBlock = namedtuple("FilterBlock", "shape offsets wei row blocks last start_step finish after")

# ways of storing: sums that further channels are added to; channels last, past the caches
RAW, PAST = 3, 4


@intrinsic(prefer_literal=True)
def blocked_tile(
    typing_context: Any, spec: Any, shape: Any, offsets: Any, panel: Any, wei: Any, row: Any, blocks: Any, last: Any, start: Any,
    start_step: Any, finish: Any, after: Any, beside: Any, dst: Any, way: Any, ahead: Any, ahead_step: Any, many: Any, panel_step: Any,
    dst_step: Any, ahead_jump: Any,
) -> Any:  # fmt: skip
    """``mr`` vectors of output channels at ``ny x nx`` pixels, and at ``many`` such, one after the other.

    ``acc[jy, jx, o] = start[jy, jx, o] + sum_{cb, tap, c} panel[cb*block + offsets[tap] + c*channel + jy*step_y + jx*step] * wei[.., o]``,
    then ``activation(acc * scale[o] + shift[o] + residual[jy, jx, o])``, each rounded, as far as the form has them.

    ``spec = (lanes, mr, ny, nx, step, depth, *form)``: ``step`` elements lie between pixels, ``depth`` elements in a channel block;
    see :class:`Form`.  ``shape`` is the address of the integers of :data:`Shape`, ``offsets`` that of a table of bytes.  ``wei`` is
    packed as ``[cb][tap][c][mr*lanes]``, ``row`` bytes between c, or of one tap the caller's; the last of ``blocks`` channel blocks holds
    ``last`` elements.  Order of accumulation: channel block, tap, channel.  ``start`` is the address of the first addends, ``[mr*lanes]``
    for each pixel, ``start_step`` bytes apart (0: the same for all).  ``finish`` is the address of ``[slope, low, high, -, -, zero
    point]``, low and high of a rounded result within its type less the zero point, or 0 where sums are neither activated nor rounded and
    no residual is added; ``after`` that of ``[scale][shift]``, each ``[mr*lanes]``; the residual lies ``beside`` bytes behind the result.
    ``way`` is how results are stored: 0 as ``[jy][jx][mr*lanes]`` at ``dst``, whole, 1 channels last (``dc`` one element), 2 pixels in a
    row (``dx`` one element), 3 as 0 but the sums as they are, 4 as 1 past the caches, where every vector begins at a multiple of its bytes.
    At each channel of each tap the second-level cache is asked for the line at ``ahead``, which then advances by ``ahead_step`` bytes.  The
    next tile's pixels, results and first line ahead lie ``panel_step``, ``dst_step`` and ``ahead_jump`` bytes behind those of the tile
    before.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        offsets, panel, *filters = arguments[2:10]
        dst, way, ahead, ahead_step, many, *steps = arguments[13:]
        emit = Emitter(builder, "i64", 1, False)
        places = [emit.variable(at) for at in (panel, dst, ahead)]
        with emit.loop(many):
            panel, dst, ahead = (emit.get(place) for place in places)
            _Tile(builder, chosen, arguments[1], arguments[10:13], (ahead, ahead_step)).emit(offsets, panel, *filters, dst, way)
            for place, at, step in zip(places, (panel, dst, ahead), steps, strict=True):
                emit.set(place, emit.offset(at, step))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 20), codegen


def _factory(*spec: Any) -> Any:
    """The kernel of `blocked_tile` with this ``spec``, of the address of a :data:`FilterBlock` and of what each tile has of its own."""

    def tile(
        filters: Any, panel: Any, start: Any, dst: Any, ahead: Any, ahead_step: Any, way: Any, beside: Any, many: Any, panel_step: Any,
        dst_step: Any, ahead_jump: Any,
    ) -> None:  # fmt: skip
        unrolled_by_hand()
        f = integers(filters, FilterBlock)
        blocked_tile(
            spec, f.shape, f.offsets, panel, f.wei, f.row, f.blocks, f.last, start, f.start_step, f.finish, f.after, beside, dst, way,
            ahead, ahead_step, many, panel_step, dst_step, ahead_jump,
        )  # fmt: skip

    return tile


def blocked_tile_kernel(name: str, spec: tuple[Any, ...]) -> TileKernel:
    """`_factory`'s, to be called with twelve integers."""
    return TileKernel(name, _factory, spec, 12)


class _Multiples:
    """Addresses a few times ``step`` bytes behind another: its odd multiples are in registers, of which an access takes 1, 2, 4 or 8 times.

    An addition for each pixel takes as long as the multiply-adds leave free: where another thread of the processor's core is busy, too, 4x6
    vectors and pixels take 5 of 100 longer, 2x14 8, 1x28 20 (Emerald Rapids, 2026-11).
    """

    REACH = 9  # of four registers: 0 to 8 times

    def __init__(self, emit: Emitter, step: Any, many: int) -> None:
        self._emit = emit
        odd = {self._odd(n)[0] for n in range(1, many)}
        self._registers = {n: emit.opaque(emit.times(step, n)) for n in sorted(odd)}

    @staticmethod
    def _odd(n: int) -> tuple[int, int]:
        shift = min((n & -n).bit_length() - 1, 3)
        return n >> shift, 1 << shift

    def at(self, address: Any, n: int) -> Any:
        """``n`` steps behind an address."""
        if n == 0:
            return address
        odd, scale = self._odd(n)
        return self._emit.offset(address, self._emit.times(self._registers[odd], scale))


class _Tile:
    """The emission of one tile."""

    def __init__(self, builder: Any, spec: tuple[Any, ...], shape: Any, finishing: Any, ahead: Any) -> None:
        self.lanes, self.mr, self.ny, self.nx, self.step, self.depth = spec[:6]
        self.form = Form(*spec[6:])
        self.kernel = Emitter(builder, self.form.kind, self.lanes, self.form.how == "fma")
        self.tail = self.kernel.of(self.form.tail)
        self.s = Shape(*(self.kernel.load_integer(self.kernel.offset(shape, 8 * n)) for n in range(len(Shape._fields))))
        self.finish, self.after, self.beside = finishing
        self.ahead, self.ahead_step = self.kernel.variable(ahead[0]), ahead[1]
        self.pixels = [(jy, jx) for jy in range(self.ny) for jx in range(self.nx)]

    def emit(
        self, offsets: Any, panel: Any, wei: Any, row: Any, blocks: Any, last: Any, start: Any, start_step: Any, dst: Any, way: Any
    ) -> None:
        emit = self.kernel
        firsts = [emit.offset(start, emit.times(start_step, j)) for j in range(len(self.pixels))]
        acc = [[emit.variable(emit.load(emit.offset(first, m * emit.width))) for first in firsts] for m in range(self.mr)]
        self._sums(acc, offsets, panel, wei, row, blocks, last)
        sums = [[emit.get(place) for place in places] for places in acc]
        with emit.builder.if_else(emit.builder.icmp_unsigned("==", way, emit.constant(RAW))) as (raw, finished):
            with raw:
                for m in range(self.mr):
                    for j in range(len(self.pixels)):
                        emit.store(emit.offset(dst, (j * self.mr + m) * emit.width), sums[m][j])
            with finished:
                self._store(sums, dst, way)

    def _sums(self, acc: Any, offsets: Any, panel: Any, wei: Any, row: Any, blocks: Any, last: Any) -> None:
        """Add all products to the accumulators."""
        emit, mr, s, step = self.kernel, self.mr, self.s, self.step
        weights, base = emit.variable(wei), emit.variable(panel)
        # of pixels whose channels lie side by side so many are reached from one address
        together = min(self.nx, _Multiples.REACH) if step > 1 else self.nx
        across = _Multiples(emit, s.step_x, together) if step > 1 else None
        turns, rows = _Multiples(emit, s.channel, 0 if step > 1 else _UNROLL), _Multiples(emit, row, _UNROLL)

        def channels(count: Any, unroll: int, at: Any) -> None:
            firsts = [
                emit.variable(emit.offset(at, emit.times(s.step_y, jy), emit.times(s.step_x, x0) if x0 else 0))
                for jy in range(self.ny)
                for x0 in range(0, self.nx, together)
            ]
            with emit.loop(count):
                sums = [[emit.get(place) for place in places] for places in acc]
                heres, w = [emit.opaque(emit.get(first)) for first in firsts], emit.opaque(emit.get(weights))
                for turn in range(unroll):
                    vectors = [emit.load(emit.offset(rows.at(w, turn), m * emit.width)) for m in range(mr)]
                    emit.prefetch(emit.get(self.ahead))
                    emit.set(self.ahead, emit.offset(emit.get(self.ahead), self.ahead_step))
                    for j, (jy, jx) in enumerate(self.pixels):
                        here = heres[jy * len(heres) // self.ny + jx // together]
                        if across:
                            pixel = emit.splat(emit.offset(across.at(here, jx % together), turn * emit.itemsize))
                        else:
                            pixel = emit.splat(emit.offset(turns.at(here, turn), jx * emit.itemsize))
                        for m in range(mr):
                            sums[m][j] = self._add(vectors[m], pixel, sums[m][j])
                for places, values in zip(acc, sums, strict=True):
                    for place, value in zip(places, values, strict=True):
                        emit.set(place, value)
                for first, here in zip(firsts, heres, strict=True):
                    emit.set(first, emit.offset(here, unroll * emit.itemsize if step > 1 else emit.times(s.channel, unroll)))
                emit.set(weights, emit.offset(w, emit.times(row, unroll)))

        def all_taps(turns: Any, unroll: int) -> None:
            table = emit.variable(offsets)
            with emit.loop(s.taps):
                entry = emit.get(table)
                channels(turns, unroll, emit.offset(emit.get(base), emit.load_integer(entry)))
                emit.set(table, emit.offset(entry, 8))

        # whole channel blocks, then one of fewer channels: a remainder within the innermost loop costs spilled accumulators
        build = emit.builder
        rest = build.zext(build.icmp_signed("<", last, emit.constant(self.depth)), blocks.type)
        with emit.loop(build.sub(blocks, rest)):
            all_taps(emit.constant(self.depth // _UNROLL), _UNROLL)
            emit.set(base, emit.offset(emit.get(base), s.block))
        with emit.loop(rest):
            all_taps(last, 1)

    def _add(self, weights: Any, pixel: Any, total: Any) -> Any:
        if self.form.q == 1:
            return self.kernel.multiply_add(weights, pixel, total)
        return self.kernel.dot_add(pixel, weights, total, self.form.how)

    def _store(self, sums: Any, dst: Any, way: Any) -> None:
        """Finish the sums and store them."""
        tail, mr, s = self.tail, self.mr, self.s
        size = stored_bytes(self.form.dst)
        if self.form.scaled:
            factors = [[tail.load(tail.offset(self.after, (part * mr + m) * tail.width)) for m in range(mr)] for part in range(2)]
            sums = [[self._scaled(value, factors[0][m], factors[1][m]) for value in values] for m, values in enumerate(sums)]
        if self._early:
            # nothing to do for most layers: it takes a tenth of the time of a tile of 64 channels
            places = [[tail.variable(value) for value in values] for values in sums]
            with tail.builder.if_then(tail.builder.icmp_unsigned("!=", self.finish, tail.constant(0))):
                limits = self._limits()[:3]
                for place in (place for line in places for place in line):
                    tail.set(place, tail.activate(tail.get(place), *limits))
            sums = [[tail.get(place) for place in line] for line in places]
        with tail.case(way, 0):
            for m in range(mr):
                for j in range(len(self.pixels)):
                    self._put(tail.offset(dst, (j * mr + m) * self.lanes * size), sums[m][j])
        for last in (1, PAST) if self.step > 1 and self.form.goes_past else (1,):
            with tail.case(way, last):
                for j, (jy, jx) in enumerate(self.pixels):
                    to = tail.offset(dst, tail.times(s.dy, jy), tail.times(s.dx, jx))
                    for m in range(mr):
                        self._put(tail.offset(to, m * self.lanes * size), sums[m][j], past=last == PAST)
        with tail.case(way, 2):
            for m in range(mr):
                for jy in range(self.ny):
                    for x0 in range(0, self.nx, self.lanes):
                        count = min(self.lanes, self.nx - x0)
                        square = [sums[m][jy * self.nx + x0 + jx] if jx < count else tail.undefined() for jx in range(self.lanes)]
                        for lane, line in enumerate(tail.transpose(square)):
                            to = tail.offset(dst, tail.times(s.dc, m * self.lanes + lane), tail.times(s.dy, jy), x0 * size)
                            self._put(to, line, count)

    def _scaled(self, value: Any, scale: Any, shift: Any) -> Any:
        build = self.tail.builder
        if not self.kernel.floating:
            value = build.sitofp(value, self.tail.vector)
        return build.fadd(build.fmul(value, scale), shift)

    @property
    def _early(self) -> bool:
        """Whether sums are activated before they are stored: nothing is added, and rounding does not clip."""
        return not (self.form.rounding or self.form.residual)

    def _limits(self) -> list[Any]:
        tail = self.tail
        return [tail.splat(tail.offset(self.finish, n * tail.itemsize)) for n in range(6)]

    def _converted(self, value: Any) -> tuple[Emitter, Any]:
        """Activated, and of the result's type."""
        tail, form = self.tail, self.form
        if self._early:
            return converted(tail, form.dst, "", value)
        slope, low, high, _, _, zero = self._limits()
        if form.rounding:  # low and high clip to the type too
            return rounded_between(tail, form.dst, value, low, high, zero)
        return converted(tail, form.dst, "", tail.activate(value, slope, low, high))

    def _put(self, to: Any, value: Any, count: int = 0, past: bool = False) -> None:
        """Add the residual, activate, convert and store a vector, also ``past`` the caches, or its first ``count`` lanes."""
        tail, form = self.tail, self.form
        if form.residual:
            place = tail.offset(to, self.beside)
            value = tail.builder.fadd(value, tail.load_first(place, count) if count else tail.load(place))
        part, value = self._converted(value)
        if count:
            part.store_first(to, value, count)
        elif past:
            part.store_past(to, value)
        else:
            part.store(to, value)
