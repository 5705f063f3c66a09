"""depthwise: one channel, or few, for each result; channels in lanes, a row of pixels in registers.

Bytes and halves become floats as they are loaded.  Sums of products of bytes are added as float32 where they cannot leave its whole
numbers, so they are exact, and become integers of 32 bits before anything is added to them.

Wins for depthwise layers and for groups of 2, 4, 8 or 16 channels, several of which share a vector.  Channels that lie side by side are
read and written in place; at the left and right edge a tile reads from a small padded copy, above and below the image all pixels of a
row are one pixel of fill.  Planes are interleaved, as many as there are lanes, in bands of rows that stay in the cache, and their
results separated.
Order of accumulation per output: see :func:`fastconv.cpu.depthwise_tile.depthwise_tile`; it depends on the group only.
"""

from __future__ import annotations

from collections import namedtuple
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning import reference
from ..planning.bfloat import store
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, border_indices, not_computed, parse_epilogue, parse_scaling
from .blocked_tile import Form
from .border import LINE, row_map, too_large
from .convert import stored_bytes
from .depthwise_tile import DOWN, FIXED, OUTSIDE, Shape, addresses, depthwise_tile, interleave, past_caches, separate
from .finish import gathering
from .lanes_pack import lanes_packer
from .memory import aligned_spills, call_kernel, copy, fill_row, integers, peek, poke, unrolled_by_hand
from .simd import KINDS
from .stage import staged_launch
from .target import Target
from .threads import Job, Region
from .tile import fitting
from .values import finish_values, holds, not_fused, requantised

CASES = ("g32_ic32ih28_oc32k3_p1_f32_nhwc_hwio", "g24_ic24ih14_oc24k3_s2_p1_f32", "g20_ic20ih9_oc40k3_p1_f32_nhwc_bias+relu6",
         "g8_ic32ih14_oc32k3_p1_f32_nhwc", "g5_ic5ih20_oc5k3_d2_p2_reflect_f64", "g12_ic24ih6_oc24k3_s2_p1_wrap_f64_nhwc_bias")  # fmt: skip


class Tile(NamedTuple):
    """``ny x nx`` pixels of one vector of channels; ``ny`` = 1 where taps are not dense or groups have several channels."""

    registers: int  # of the target, at least
    ny: int
    nx: int


# rows of 7, 14, 28, 56, 112 pixels have no rest
TILES = (
    Tile(32, ny=2, nx=7),  # 14 accumulators, 14 taps of 7 columns, 1 pixel of 32 registers
    Tile(16, ny=1, nx=7),  # 7 accumulators, 7 taps, 1 pixel of 16 registers
)

DEPTHS = (1, 2, 4, 8, 16)

# Vectors of channels from which on all results but the first and the last start where cache lines do, which takes one more: copies from
# and to a second-level cache in a tile's order take 2.9 ns a line, wherever pixels begin, but 5.2 where results begin beside lines
# (one core, Emerald Rapids, 2026-11).  Groups of several channels have more to sum than that.
_SKEWED = 3
# Of stride 2, which reads more lines than it writes, all pixels start so instead: 192 channels at 28x28, a batch of 8, take 79 us instead
# of 92, 96 at 112x112 81 instead of 93, result and image beside lines; 72 and 91, 70 and 88, the result alone (one core, Zen 5, 2026-11).
_BY_IMAGE = 2
_BAND, _DOWN_BAND = 28, 7  # rows of results that one unit of work computes at most, and of pixels of a tile that goes down
_DOWN_VECTORS = 64  # of channels that it goes down one after the other
_HELD_BYTES = 20 << 10  # of the pixels that a tile reads: they stay in a first-level cache while it goes down the rows
_IN_PLACE, _LANES, _COPIED = 0, 1, 2  # what `Head.staged` says: planes are put into lanes, rows copied
_COPIED_DEPTH = 4  # channels of a group from which on a copy, which begins at cache lines, is always made
_PERIOD = 4096  # of first-level caches: bytes from a set's line to its next
# Pixels in one set, of 8 lines, of a tile that reads them again, from which on rows are copied: 512 channels at 14x14 take 29 us instead
# of 38, 256 at 28x28, 9 pixels of whose tiles share a set, 61 instead of 46 (one core, Zen 4, 2026-11).
_CROWDED = 12
_WHOLE = 2**24  # float32 holds every whole number up to it
_STAGED_BYTES = 384 << 10  # of interleaved planes: half of a second-level cache
_MOST_BELOW = 32  # rows between two rows of taps: of which those between are interleaved too

_LARGEST = {"u8": 255, "i8": 128}  # magnitude of bytes

# The integers that the kernel receives: those of the tile, these, image row of each padded row, bytes to each padded column,
# first and last image row of each band.
Head = namedtuple(
    "Head",
    "oc block blocks bands band_rows tall tiles turn skewed oh ow iw sh rows reach pitch columns finish past bias depth multiplier "
    "channels_last staged held_rows capacity deepest given packer wo wc wy wx sn sc sy sx dn dc dy dx",
)
_HEAD_AT = 8 * len(Shape._fields)
_TABLES_AT = _HEAD_AT + 8 * len(Head._fields)


def _factory(lanes: int, ny: int, nx: int, kh: int, kw: int, step: int, depth: int, far: int, *form: Any) -> Any:
    """The band kernel: units of work are (image, band of rows, block of channels), so that threads write lines of their own.

    Of images that are put into lanes, and of weights that are packed by units, blocks come before bands.
    Columns of tiles go down the rows of the band; the table holds for each padded row the addresses of the pixels that a tile reads.
    Of images that are put into lanes a block is one vector; lanes beyond the last channel repeat its group.
    The addends are the bias or, where the form has scales, 8 bytes and then bias, scales and shifts.
    Workspace: addends, scales and shifts of the block, fill pixel, addresses of planes of source and result, table of pixels, staged rows,
    results, weights of the block where they are the caller's, ``given``: ``wo, wc, wy, wx`` bytes apart.
    """
    f = Form(*form)
    spec = (lanes, ny, nx, kh, kw, step, depth, far, *form)
    size, ssize, dsize, scaled = KINDS[f.kind][2], stored_bytes(f.src), stored_bytes(f.dst), f.scaled
    sums, pixels, stored = f"i{8 * size}", f"i{8 * ssize}", f"i{8 * dsize}"  # they are moved as integers
    stored_vector = lanes * dsize
    vector, words, addends_at = lanes * ssize, lanes * size // 8, 8 if scaled else 0

    def depthwise(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        aligned_spills()  # some taps: 144 channels at 56x56 57 us instead of 60, 576 at 14x14 15.2, not 15.7 (one core, Zen 5, 2026-11)
        at = integers(job, Job)
        s, e = integers(at.extents, Shape), integers(at.extents + _HEAD_AT, Head)
        row_map = at.extents + _TABLES_AT
        columns = row_map + e.rows * 8
        ranges = columns + e.columns * 8
        zero = peek(sums, at.values + 4 * size)
        finish = e.finish * (at.values + size)
        start = at.workspace + index * at.scratch
        apart = e.capacity * size
        fill_at = start + 3 * apart
        sources = fill_at + (e.capacity * ssize + 7) // 8 * 8
        results = sources + lanes * 8
        lines = results + lanes * 8
        table = lines + lanes * 8
        staged_at = (table + e.deepest * e.pitch + 63) // 64 * 64
        staged_pitch, aside_pitch = e.capacity * ssize, e.capacity * dsize
        aside_at = staged_at + (e.staged > 0) * e.held_rows * e.iw * staged_pitch
        own_at = at.workspace + (index + 1) * at.scratch - e.given * s.kh * s.kw * depth * s.wei_step
        packed = -1
        fill_row(pixels, lanes, fill_at, e.capacity, peek(pixels, at.values))
        for u in range(u0, u1):
            n, rest = u // (e.bands * e.blocks), u % (e.bands * e.blocks)
            if e.staged == _LANES or e.given:
                part, band = rest // e.bands, rest % e.bands
            else:
                band, part = rest // e.blocks, rest % e.blocks
            # the first bands are the longer ones, since their thread is there first
            y0 = e.tall * ((e.tiles * band + e.bands - 1) // e.bands)
            y1 = min(e.tall * ((e.tiles * (band + 1) + e.bands - 1) // e.bands), e.oh)
            # blocks, but for the first one, and its second vector, begin where vectors of the result do, or of the image
            line, whole = at.dst + n * e.dn + y0 * e.dy, (e.dx % stored_vector, e.dy % stored_vector, e.dn % stored_vector) == (0, 0, 0)
            past = e.past and whole and line % stored_vector == 0
            beside = -line % stored_vector // dsize if e.skewed and whole else 0
            if e.skewed == _BY_IMAGE and not past:
                beside = -(at.src + n * e.sn) % vector // ssize if (e.sx % vector, e.sy % vector, e.sn % vector) == (0, 0, 0) else 0
            back = lanes - beside if beside else 0
            o = part * e.block - (back if part else 0)
            many = e.oc - o if part == e.blocks - 1 else (part + 1) * e.block - back - o
            second = lanes if part else lanes - back
            held = lanes if e.staged == _LANES else many
            for lane in range(held):
                own = o + (lane if lane < many else many - depth + lane % depth)
                poke(sums, start + lane * size, peek(sums, at.bias + addends_at + own * size) if e.bias else zero)
                if scaled:
                    for row in range(1, 3):
                        poke(sums, start + row * apart + lane * size, peek(sums, at.bias + addends_at + (row * e.oc + own) * size))
                if e.staged == _LANES:
                    poke("i64", sources + lane * 8, at.src + n * e.sn + own // e.multiplier * e.sc)
                    poke("i64", results + lane * 8, at.dst + n * e.dn + y0 * e.dy + own * e.dc)
            wei = at.wei + o * size
            if e.given:
                wei = own_at
                if packed != part:
                    packed = part
                    for first in range(0, held, lanes):
                        for c in range(depth):
                            for lane in range(lanes):
                                own = first + lane
                                own = o + (own if own < many else many - depth + own % depth)
                                poke("i64", lines + lane * 8, at.wei + own * e.wo + c * e.wc)
                            place = wei + c * s.wei_step + first * size
                            call_kernel(e.packer, (place, depth * s.wei_step, lines, 0, s.kh * s.kw, s.kw, e.wy, e.wx))
            base, sy = at.src + n * e.sn + o * e.sc, e.sy
            if e.staged:
                first, last = peek("i64", ranges + band * 16), peek("i64", ranges + band * 16 + 8)
                dense = e.channels_last == 0 and e.sy == e.iw * ssize
                runs, length = (1, (last - first + 1) * e.iw) if dense else (last - first + 1, e.iw)
                for run in range(runs):
                    away = (first + run) * e.sy
                    if e.staged == _COPIED:
                        for x in range(length):
                            copy(pixels, lanes, staged_at + (run * length + x) * staged_pitch, base + away + x * e.sx, many)
                    elif e.channels_last == 0 and length >= lanes:
                        interleave(pixels, lanes, staged_at + run * length * vector, sources, away, length)
                    else:
                        for x in range(length):
                            for lane in range(lanes):
                                pixel = peek(pixels, peek("i64", sources + lane * 8) + away + x * e.sx)
                                poke(pixels, staged_at + ((run * length + x) * lanes + lane) * ssize, pixel)
                sy = e.iw * staged_pitch
                base = staged_at - first * sy
            aside = e.ow < nx or (e.staged == _LANES and (e.channels_last == 0 or many < lanes))
            to, dy, dx = at.dst + n * e.dn + y0 * e.dy + o * e.dc, e.dy, e.dx
            if aside:
                to, dy, dx = aside_at, e.ow * aside_pitch, aside_pitch
            # tiles of pixels that are all the image's, side by side, share a table: where its first pixel is, or -1
            origin = -1
            for x in range(0, e.ow, nx):
                xt = max(min(x, e.ow - nx), 0)
                left, right = peek("i64", columns + xt * s.column), peek("i64", columns + xt * s.column + (e.reach - 1) * 8)
                inner = left >= 0 and right - left == (e.reach - 1) * (staged_pitch if e.staged else e.sx)
                if inner and origin >= 0:
                    shift = left - origin
                else:
                    shift, origin = 0, left if inner else -1
                    for r in range((y1 - y0 - 1) * e.sh + (s.kh - 1) * (s.below // e.pitch) + 1):
                        row = peek("i64", row_map + (y0 * e.sh + r) * 8)
                        entries = table + r * e.pitch
                        if row >= 0:
                            addresses(words, entries, base + row * sy, columns + xt * s.column, fill_at, e.reach)
                        else:
                            fill_row("i64", words, entries, e.reach, fill_at)
                            origin = -1
                # the next tile's pixels, of the next band behind the last
                ahead = (min(x + nx, e.ow - nx) if x + nx < e.ow else 0) - xt
                ahead = ahead * s.column // 8 * e.sx + (x + nx >= e.ow) * (y1 - y0) * e.sh * sy
                for y in range(0, y1 - y0, e.turn):
                    yt = max(min(y, y1 - y0 - e.turn), 0)
                    depthwise_tile(spec, at.extents, table + yt * s.down, wei, start, apart, finish,
                                   to + yt * dy + xt * dx, dy, dx, second, held - lanes, y1 - y0, shift, ahead, past)  # fmt: skip
            if aside:
                dense = e.channels_last == 0 and e.dy == e.ow * dsize
                runs, length = (1, (y1 - y0) * e.ow) if dense else (y1 - y0, e.ow)
                for run in range(runs):
                    if e.channels_last == 0 and length >= lanes:
                        separate(stored, lanes, results, run * e.dy, to + run * dy, length)
                    elif e.staged == _LANES:
                        for x in range(length):
                            for lane in range(many):
                                value = peek(stored, to + run * dy + (x * lanes + lane) * dsize)
                                poke(stored, peek("i64", results + lane * 8) + run * e.dy + x * e.dx, value)
                    else:
                        for x in range(length):
                            place = at.dst + n * e.dn + (y0 + run) * e.dy + x * e.dx + o * e.dc
                            copy(stored, lanes, place, to + run * dy + x * dx, many)

    return depthwise


def reject(p: Problem, t: Target) -> str | None:
    """Forward, sums in float32, float64 or exact ones of bytes; a channel for each group, or as many results as channels of a small one."""
    reason = not_computed(p, "fwd", roundings=(None, "saturate") if p.dst in ("u8", "i8") else (None,), scalings=True, bfloat=True)
    if reason is not None:
        return reason
    if p.acc == "i32":
        if not {p.src, p.wei} <= _LARGEST.keys() or _LARGEST[p.src] * _LARGEST[p.wei] * p.taps > _WHOLE:
            return f"sums products of bytes in i32, as many as float32 holds, not {p.taps} of {p.src} and {p.wei}"
        scaling = parse_scaling(p.epilogue)
        if not (scaling.scale or scaling.shift) and (p.dst != "i32" or parse_epilogue(p.epilogue).activation == "leaky_relu"):
            return f"stores sums as i32, not {p.dst}"
    elif p.acc not in ("f32", "f64"):
        return f"sums in f32 or f64, not {p.acc}"
    if parse_scaling(p.epilogue).residual:
        return "adds no residual"
    reason = not_fused(p)
    if reason is not None:
        return reason
    if p.g == 1:
        return "is for several groups"
    lanes = t.lanes(DTYPES[p.acc].itemsize)
    depth = p.ic // p.g
    if depth not in DEPTHS or depth > lanes:
        return f"has groups of {', '.join(str(depth) for depth in DEPTHS if depth <= lanes)} channels, not {depth}"
    if depth > 1 and p.oc != p.ic:
        return f"has as many results as channels of groups of several, not {p.oc} of {p.ic}"
    if _steps(p)[2] > _MOST_BELOW:
        return f"its rows of taps are at most {_MOST_BELOW} apart, not {p.dh}"
    return too_large(p, max(_layout(p, t, 1, copied)[3] for copied in _ways(p, t)))


def _form(p: Problem, t: Target) -> Form:
    """Bytes of whole sums, and float16 and bfloat16 of float32 sums, are read and written as they are."""
    halves = ("f16", "bf16") if p.acc == "f32" else ()
    scaling, rounding = parse_scaling(p.epilogue), parse_epilogue(p.epilogue).rounding or ""
    scaled = int(scaling.scale or scaling.shift)
    src = p.src if p.acc == "i32" or p.src in halves else p.acc
    dst = p.dst if rounding or p.dst in halves else "f32" if scaled and p.acc == "i32" else p.acc
    return Form(kind=p.acc, how="fma" if t.fma else "multiply", src=src, dst=dst, rounding=rounding, scaled=scaled)


def cost(p: Problem, t: Target) -> float:
    """Vectors of channels at rows of whole tiles, and the way of planes into lanes and back."""
    form = _form(p, t)
    return _seconds(p, t) + costs.staged_seconds(p, converts=(form.src, form.dst) == (p.src, p.dst), channels_last=True)


def _seconds(p: Problem, t: Target) -> float:
    lanes = t.lanes(DTYPES[p.acc].itemsize)
    _, nx, _, kw, _ = _tile(p, t)
    low = p.ic > p.g and fitting(TILES, t)[0].ny > 1
    return costs.depthwise_seconds(p, lanes, nx, _staged(p, lanes), kw > 0, low)


def most_kernels(t: Target) -> int:
    lanes = t.lanes(4)
    down = fitting(TILES, t)[0].ny > 1
    every = 2 * (down + sum(depth <= lanes for depth, _ in FIXED)) + sum(depth <= lanes for depth in DEPTHS)
    return every + (every if lanes * 4 == LINE else 2 * down)  # those of large layers


def _tile(p: Problem, t: Target) -> tuple[int, int, int, int, int]:
    """``ny, nx`` of the tile, and the rows and columns of taps and their stride that the kernel is compiled for, or zeros."""
    tile = fitting(TILES, t)[0]
    sh, sw, dh, dw = _steps(p)
    if (p.ic // p.g, p.kw) not in FIXED or dw > 1 or sw > 2:
        return 1, tile.nx, 0, 0, 0
    if p.ic > p.g or tile.ny == 1:
        return 1, tile.nx, 0, p.kw, sw
    if (sh, dh) != (sw, 1):
        return 1, tile.nx, 0, 0, 0
    if p.kh == p.kw == DOWN and p.oh >= DOWN:
        return -(-DOWN // sh), tile.nx, DOWN, p.kw, sw
    return (tile.ny, tile.nx, 0, p.kw, sw) if p.kh >= sh and p.oh >= tile.ny else (1, tile.nx, 0, 0, 0)


def _staged(p: Problem, lanes: int) -> bool:
    """Whether channels are put into lanes first: planes, channels that serve several results, fewer than lanes."""
    return p.src_layout == "nchw" or p.oc > p.ic or p.oc < lanes


def _steps(p: Problem) -> tuple[int, int, int, int]:
    """Strides and dilations that matter: of one row or column of results no stride does, of one tap no dilation."""
    return (p.sh if p.oh > 1 else 1), (p.sw if p.ow > 1 else 1), (p.dh if p.kh > 1 else 1), (p.dw if p.kw > 1 else 1)


def _goes_past(p: Problem, t: Target) -> bool:
    """Whether results go past the caches where they begin at cache lines."""
    form = _form(p, t)
    lanes = t.lanes(KINDS[form.kind][2])
    in_place = not _staged(p, lanes) and p.ow >= _tile(p, t)[1] and p.oc % lanes == 0
    return in_place and past_caches(p, t, lanes * stored_bytes(form.dst))


def build(p: Problem, t: Target, plan: Any, threads: int = 1, given: bool = False) -> Plan:
    """A plan whose weights are packed as ``[ky][kx][c][oc]``, whole vectors of them, or ``given`` with every image and packed by blocks."""
    form = _form(p, t)
    lanes, depth, (ny, nx, kh, kw, step) = t.lanes(KINDS[form.kind][2]), p.ic // p.g, _tile(p, t)
    alike = form.src == form.dst == form.kind
    words = [form.kind, *([] if alike else [form.src, form.dst]), form.rounding, "scaled" * form.scaled]
    name = f"depthwise_{'_'.join(filter(None, words))}_{ny}x{nx}_{lanes}" + f"_g{depth}" * (depth > 1)
    far = _goes_past(p, t) or bool(kh and not _staged(p, lanes) and costs.bytes_moved(p) > costs.DEPTHWISE_FAR_SHARE * threads * t.l2)
    name += f"_kw{kw}s{step}" * bool(kw) + "_down" * bool(kh) + "_far" * far
    region = Region(name, _factory, (lanes, ny, nx, kh, kw, step, depth, int(far), *form), form.kind if alike else "i8")
    layouts, seconds = {copied: _layout(p, t, threads, copied, given) for copied in _ways(p, t)}, _seconds(p, t)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if not holds(p, fill):
            return _by_reference(p, fill)
        if not (_in_place(p, src, form.src) and _in_place(p, dst, form.dst)):
            source = form.src if form.kind == "i32" else None
            return staged_launch(p, own.threads, partial(build, given=given), t, src, packed, dst, fill, source=source)
        return gathering(p, lambda dst: launch(own, src, packed, dst, fill), dst) if form.scaled else launch(own, src, packed, dst, fill)

    def launch(plan: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        (sn, sc, sy, sx), (dn, dc, dy, dx) = src.strides, dst.strides
        if p.src_layout == "nchw":  # columns are side by side, or there is one: rows that are, too, are gone through as one
            sx, dx = src.itemsize, dst.itemsize
        shape, head, (rows, columns, ranges), scratch = layouts[_copied(p, t, sy, sx)]
        units = p.n * head.blocks * head.bands
        wo, wc, wy, wx = packed.strides
        packer = lanes_packer(KINDS[form.kind][2], lanes).address if given else 0
        numbers = *shape, *head._replace(packer=packer, wo=wo, wc=wc, wy=wy, wx=wx, sn=sn, sc=sc, sy=sy, sx=sx, dn=dn, dc=dc, dy=dy, dx=dx)
        places = np.where(columns < 0, OUTSIDE, columns * (head.capacity * stored_bytes(form.src) if head.staged else sx))
        extents = np.concatenate([np.array(numbers, np.int64), rows, places, ranges])
        values = finish_values(p, fill) if alike else _values(p, form, fill)
        return region.launcher(extents, values, scratch, units, plan.threads, seconds, src, packed, dst, turns=True)

    def pack(p: Problem, wei: np.ndarray) -> np.ndarray:
        return wei.astype(DTYPES[p.acc], copy=False) if given else _pack(p, wei, lanes)

    return Plan(problem=p, algorithm="depthwise", kernel=name, cost=cost(p, t), pack_weights=pack, prepare_launch=prepare,
                workspace=max(layout[3] for layout in layouts.values()) * threads, threads=threads,
                given=partial(build, p, t, plan, threads, True) if alike and p.wei == p.acc and not given else None)  # fmt: skip


def _in_place(p: Problem, array: np.ndarray, name: str) -> bool:
    """Whether the kernel reads or writes an array where it lies: of this type, its elements side by side."""
    axis = 1 if p.src_layout == "nhwc" else 3
    return array.dtype == DTYPES[name] and (array.strides[axis] == array.itemsize or array.shape[axis] == 1)


def _values(p: Problem, form: Form, fill: Any) -> np.ndarray:
    """``[fill, slope, low, high, 0, -, zero point]`` as bytes: the fill of the image's type, the others of that which sums end in."""
    tail = p.replace(acc=form.tail, dst=p.dst if form.rounding else form.tail)
    values, pixel = requantised(tail, finish_values(tail, 0)).view(np.int8), np.empty(1, DTYPES[form.src])
    store(pixel, np.array([fill if p.border == "constant" else 0]))
    values[: pixel.nbytes] = pixel.view(np.int8)
    return values


def _by_reference(p: Problem, fill: Any) -> Launch:
    """A launch for a border that no pixel of the image's type holds."""

    def launch(src: np.ndarray, packed: np.ndarray, addends: Any, dst: np.ndarray) -> None:
        wei = packed.reshape(p.kh, p.kw, p.ic // p.g, -1)[..., : p.oc].transpose(3, 2, 0, 1).astype(DTYPES[p.acc])
        plan = reference.build(p.replace(wei=p.acc), None, None)
        plan.run(src, plan.pack(wei), addends, dst, fill)

    return launch


def _pack(p: Problem, wei: np.ndarray, lanes: int) -> np.ndarray:
    """``[ky][kx][c][oc]``, as ``(1, 1, 1, n)`` from a cache line on; beyond the last channel its group again."""
    depth, padded = p.ic // p.g, -(-p.oc // lanes) * lanes
    count = p.kh * p.kw * depth * padded
    memory = np.empty(count + 64, np.float32 if p.acc == "i32" else DTYPES[p.acc])
    packed = memory[-memory.ctypes.data % 64 // memory.itemsize :][:count].reshape(p.kh, p.kw, depth, padded)
    packed[..., : p.oc] = wei.transpose(2, 3, 1, 0)
    for o in range(p.oc, padded):
        packed[..., o] = packed[..., p.oc - depth + o % depth]
    return packed.reshape(1, 1, 1, -1)


def _ways(p: Problem, t: Target) -> tuple[bool, ...]:
    """Whether rows may be copied."""
    return (False,) if _staged(p, t.lanes(DTYPES[p.acc].itemsize)) or _tile(p, t)[2] else (False, True)


def _copied(p: Problem, t: Target, sy: int, sx: int) -> bool:
    """Whether the rows of pixels that lie ``sy`` and ``sx`` bytes apart are copied: those of a tile would compete for a cache's sets.

    A tile that goes down reads each once: 512 channels at 14x14 take 35 us instead of 60 of copies (one core, Emerald Rapids, 2026-11).
    """
    sh, sw, dh, dw = _steps(p)
    ny, nx, down, _, _ = _tile(p, t)
    if down or _staged(p, t.lanes(DTYPES[p.acc].itemsize)):
        return False
    rows, columns = np.arange((ny - 1) * sh + p.kh) * sy * dh, np.arange((nx - 1) * sw + (p.kw - 1) * dw + 1) * sx
    sets = (rows[:, None] + columns) % _PERIOD // LINE
    return _COPIED_DEPTH <= p.ic // p.g < t.lanes(DTYPES[p.acc].itemsize) or int(np.bincount(sets.reshape(-1)).max()) > _CROWDED


def _layout(
    p: Problem, t: Target, threads: int, copied: bool = False, given: bool = False
) -> tuple[Shape, Head, tuple[np.ndarray, np.ndarray, np.ndarray], int]:
    """The kernel's integers but for the strides, its tables of rows, columns and bands, and the bytes of workspace of one thread."""
    form, (ny, nx, down, _, _) = _form(p, t), _tile(p, t)
    size, ssize, dsize = KINDS[form.kind][2], stored_bytes(form.src), stored_bytes(form.dst)
    lanes, depth = t.lanes(size), p.ic // p.g
    sh, sw, dh, dw = _steps(p)
    staged = _COPIED if copied else _staged(p, lanes) * _LANES
    reach = (nx - 1) * sw + (p.kw - 1) * dw + 1
    # a tile that goes down reads pixels once, whatever a first-level cache holds
    vectors = _DOWN_VECTORS if down else max(_HELD_BYTES // (p.kh * reach * ssize) // lanes, 1)
    block = lanes if staged == _LANES else vectors * lanes
    blocks = -(-p.oc // block)
    if staged != _LANES:  # even blocks, and none of less than a vector
        block = -(-p.oc // (blocks * lanes)) * lanes
        blocks = max(-(-p.oc // block) - (p.oc % block < lanes and p.oc % block > 0), 1)
    capacity = lanes if staged == _LANES else -(-(p.oc - (blocks - 1) * block) // lanes) * lanes
    capacity = max(capacity, block) + lanes * (staged != _LANES and blocks > 1)
    skewed = staged != _LANES and depth == 1 and (blocks == 1 or block > lanes) and p.oc >= _SKEWED * lanes and p.ow >= nx
    row_bytes = max((p.iw if staged else reach) * capacity * ssize * sh, 1)
    row_seconds = costs.depthwise_seconds(p.replace(n=1), lanes, nx, staged == _LANES, False) / (p.oh * blocks)
    band = -(-_DOWN_BAND // sh) if down and staged != _LANES else _BAND
    most = max(min(band, _STAGED_BYTES // row_bytes, int(costs.UNIT_SECONDS / row_seconds)), 1)
    tall = 1 if down else ny
    tiles = -(-p.oh // tall)  # of rows
    bands = -(-p.oh // most)
    if threads > 1:  # two units for each thread, and as many for each
        units = max(p.n * blocks, 1)
        bands = max(bands, min(-(-2 * threads // units), max(p.oh // (_DOWN_BAND if down else 4), threads)))
        bands = -(-bands // threads) * threads if units % threads and units * bands < 4 * threads else bands
    bands = max(min(bands, tiles // 2), 1)  # of whole tiles, since a last one overlaps the one before
    band_rows = -(-tiles // bands) * tall
    rows, words = row_map(p), lanes * size // 8
    deep = (band_rows - 1) * sh + (p.kh - 1) * dh + 1
    ranges, held_rows = [], 1
    for band in range(bands):
        y0, y1 = -(-tiles * band // bands) * tall, min(-(-tiles * (band + 1) // bands) * tall, p.oh)
        used = rows[y0 * sh :][: (y1 - y0 - 1) * sh + (p.kh - 1) * dh + 1]
        used = used[used >= 0]
        first, last = (int(used.min()), int(used.max())) if len(used) else (0, -1)
        ranges += [first, last]
        held_rows = max(held_rows, last - first + 1)
    pitch = -(-reach // words) * words * 8
    columns = border_indices(-p.pl, (max(p.ow, nx) - 1) * sw + (p.kw - 1) * dw + 1 + words, 1, p.iw, p.border)
    step = (capacity if given else -(-p.oc // lanes) * lanes) * size
    has_bias, activation, _, rounding = parse_epilogue(p.epilogue)
    shape = Shape(kh=p.kh, kw=p.kw, below=dh * pitch, tap=dw * 8, column=sw * 8, wei_step=step, down=sh * pitch)
    head = Head(
        oc=p.oc, block=block, blocks=blocks, bands=bands, band_rows=band_rows, tall=tall, tiles=tiles, turn=band_rows if down else ny,
        skewed=skewed * (_BY_IMAGE if sh > 1 else 1), oh=p.oh, ow=p.ow, iw=p.iw, sh=sh,
        rows=len(rows), reach=reach, pitch=pitch, columns=len(columns), finish=int(bool(activation or rounding)),
        past=int(_goes_past(p, t)), bias=int(has_bias or form.scaled), depth=depth,
        multiplier=p.oc // p.ic if depth == 1 else 1, channels_last=int(p.src_layout == "nhwc"), staged=staged,
        held_rows=held_rows, capacity=capacity, deepest=deep, given=int(given), packer=0,
        wo=0, wc=0, wy=0, wx=0, sn=0, sc=0, sy=0, sx=0, dn=0, dc=0, dy=0, dx=0,
    )  # fmt: skip
    scratch = capacity * (3 * size + ssize) + 3 * lanes * 8 + deep * pitch + 128
    scratch += (staged > 0) * held_rows * p.iw * capacity * ssize
    scratch += (band_rows * p.ow + nx) * capacity * dsize * (staged == _LANES or p.ow < nx)
    scratch += given * p.kh * p.kw * depth * capacity * size
    return shape, head, (rows, columns, np.array(ranges, np.int64)), -(-scratch // 64) * 64
