"""blocked: many channels; a block of output channels x pixels in registers over packed weights and a packed panel of pixels.

Wins where there are enough output channels to fill the lanes: the layers of networks.  For each band of output rows the source rows
are packed into a panel with borders, strides and layout resolved, so the inner loop is one dense product whatever the problem; planes
that a dense kernel of one tap reads are read where they lie (384 to 64 channels at 14x14: 109 us instead of 132; one core, Zen 4,
2026-11).
Order of accumulation per output: blocks of 16 channels, taps row by row, the block's channels; it depends on nothing else.
Georganas et al., arXiv:1808.05567, and Halide's apps/conv_layer for the register block.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, not_computed, parse_epilogue, parse_scaling
from .blocked_pack import HEAD_AT, MOST_LINES, SPAN_BYTES, TABLES_AT, FilterPacker, Head, Request, panel_packer, steps_of
from .blocked_split import (
    Split,
    Tile,
    bytes_of_panel,
    few_bands,
    held_blocks,
    lies_in_turn,
    merged,
    no_shorter,
    one_tap,
    phase_columns,
    rows_of_panel,
    split_of,
    strip_rows,
)  # fmt: skip
from .blocked_tile import DEPTH, PAST, RAW, FilterBlock, Form, Shape, blocked_tile_kernel
from .border import LINE, column_maps, row_map, span, too_large
from .convert import stored_bytes
from .depthwise_tile import past_caches
from .finish import gathering
from .memory import call_kernel, copy, fill_row, integers, peek, poke, put_integers, unrolled_by_hand
from .simd import KINDS
from .stage import launched_as, staged_launch
from .target import Target
from .threads import Job, Region
from .values import finish_values, not_fused, requantised

CASES = (
    "ic64ih56_oc64k3_p1_f32",
    "ic64ih56_oc64k3_p1_f32_nhwc_hwio",
    "ic64ih28_oc128k3_s2_p1_f32_bias+relu",
    "ic30ih9_oc50k1_f32",
    "n2_g2_ic34ih14_oc40k3_p1_f32_nhwc",
    "ic17ih20_oc33k5_d2_p4_f64",
    "ic3ih64_oc64k7_s2_p3_f32",
    "ic40ih7_oc48k3_p1_reflect_f32",
    "n2_ic20ih7iw30_oc40k1_f32",
    "ic5ih41_oc33k9_s8_p4_reflect_f32",
    "ic3ih40_oc48k4_s4_f32",
)


TILES = (
    Tile(32, mr=2, ny=1, nx=14),  # 28 accumulators, 2 weights, 1 pixel of 32 registers
    Tile(32, mr=2, ny=2, nx=7),  # the same for rows of 7
    Tile(32, mr=2, ny=1, nx=7),  # for an odd number of such rows
    Tile(32, mr=4, ny=1, nx=6),  # 24 accumulators, 4 weights, 1 pixel
    Tile(32, mr=3, ny=1, nx=9),  # 27 accumulators, 3 weights, 1 pixel, for 96 and 144 output channels
    Tile(32, mr=1, ny=1, nx=28),  # one vector of output channels
    Tile(32, mr=1, ny=4, nx=7),
    Tile(16, mr=2, ny=1, nx=6),  # 12 accumulators, 2 weights, 1 pixel of 16 registers
    Tile(16, mr=2, ny=2, nx=3),
    Tile(16, mr=1, ny=1, nx=12),
)

_MOST_TAPS = 1 << 16
_FEW_PIXELS = 256  # of an image: of more the time that packing takes is made up for by tiles that read weights side by side
_CROWDED_BYTES = 2048  # apart, the rows of a block of weights lie in too few sets of a second-level cache: it is packed


def _factory(lanes: int, kind: str, q: int, dsize: int, scaled: int, residual: int) -> Any:
    """The band kernel of all tiles: units of work are (image, group, part of the output channels, band of rows).

    Panel, where source rows are contiguous: ``[c][row][phase][x]``; where channels are:
    ``[c / 16][row][phase][x][c % 16]``, c counting elements.  Column ``e`` of the padded image that any tap reads (multiples of
    gx = gcd(sw, dw)) lies in phase ``e % qx`` at ``e / qx``, so that neighbouring outputs are neighbours whatever the stride; rows
    between those that are multiples of g = gcd(sh, dh) are left out.
    The panel holds the channels of one pass; between passes the sums of all the unit's tiles wait in the workspace.
    Weights are packed, or the caller's: then a block of them is packed just before the unit's tiles read it, and kept where all blocks
    are ``held``, for the thread's next units, too.  Tiles go through a strip of rows for one block after the other: so few pixels stay in
    a cache, and so do the results that the next block lies beside (64 to 256 channels at 56x56, channels last: 795 us instead of 920; one
    core, Emerald Rapids, 2026-11).
    The addends are the bias or, where the form has scales or a residual, the residual's address and then bias, scales and shifts.
    Workspace: whose weights are held, addends of the block, panel, tile, residual of the tile, padded rows, what no tap reads of one,
    phases between splits, sums, a block of weights.  What panel places beyond the image's width hold is never stored.
    """
    size = KINDS[kind][2]
    bits, bits_of_sums = f"i{8 * dsize}", f"i{8 * size}"
    addends_at = 8 if scaled or residual else 0

    def blocked(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        s, e = integers(at.extents, Shape), integers(at.extents + HEAD_AT, Head)
        ny, nx, width = e.ny, e.nx, e.width
        offsets = at.extents + TABLES_AT + SPAN_BYTES
        zero = peek(kind, at.values + 4 * size)
        tile_bytes = ny * nx * width * size
        packed_at = at.workspace + index * at.scratch  # which weights this thread has held since an earlier unit of the launch
        bias_block = packed_at + 64
        scales_block = bias_block + width * size
        request = bias_block + 3 * width * size
        filter_block = request + 64  # the job of the kernel that packs given weights lies there, too, until it has
        panel = request + 192
        # planes read in place are no panel, and lie any number of bytes apart
        tile_at = (panel + (0 if e.in_place else e.pass_blocks * s.block) + 63) // 64 * 64
        lines_at = tile_at + 2 * tile_bytes
        line_bytes = (e.columns * e.gx + 2 * lanes) * size
        partial_at = (lines_at + MOST_LINES * line_bytes + e.split_bytes + 63) // 64 * 64
        beside = peek("i64", at.bias) - at.dst if residual else 0
        oc = e.planes * e.ocg
        finish = at.values + size if e.active else 0
        stored_way = PAST if e.past and at.dst % (lanes * size) == 0 else e.way
        for u in range(u0, u1):
            rest, band = u // e.bands, u % e.bands
            rest, part = rest // e.parts, rest % e.parts
            n, group = rest // e.planes, rest % e.planes
            y0 = band * e.band_rows
            y1 = min(y0 + e.band_rows, e.oh)
            whose = group * e.parts + part + 1
            kept = e.held != 0 and peek("i64", packed_at) == whose
            for turn in range(e.passes):
                first = turn * e.pass_blocks * DEPTH
                depth = min(e.pass_blocks * DEPTH, e.icg - first)
                blocks = (depth + DEPTH - 1) // DEPTH
                last = depth - (blocks - 1) * DEPTH
                final = turn == e.passes - 1
                plane = at.src + n * e.sn + (group * e.channels + first * q) * e.sc
                channels = min(depth * q, e.channels - first * q)
                if not e.in_place:
                    put_integers(request, Request(plane, panel, lines_at, depth, channels))
                    call_kernel(e.packer, (job, request, y0 * e.q, (y1 - 1) * e.q + e.kh_rows))
                pixels = plane + y0 * s.step_y if e.in_place else panel
                partial = partial_at
                first_filter = part * e.part_blocks * width
                # a panel of weights over all tiles of the one before, but no slower than a fourth of a line for each channel
                soon_step = max(width * size // (((y1 - y0 + ny - 1) // ny) * ((e.ow + nx - 1) // nx)) + 1, 16)
                panel_bytes = e.icg * s.taps * width * size
                for first_row in range(y0, y1, e.strip_rows):
                    end_row = min(first_row + e.strip_rows, y1)
                    for o in range(first_filter, min((part + 1) * e.part_blocks * width, e.ocg), width):
                        number, inside = (group * e.ocg + o) * size, min(width, e.ocg - o)
                        if q == 1 and not scaled:
                            fill_row(kind, lanes, bias_block, width, zero)
                            if e.bias:
                                copy(kind, lanes, bias_block, at.bias + addends_at + number, inside)
                        else:
                            for lane in range(width):
                                start = peek(kind, at.bias + addends_at + number + lane * size) if e.bias and lane < inside else zero
                                if q > 1 and e.head and lane < inside:
                                    start += peek(kind, at.wei + number + lane * size)
                                poke(kind, bias_block + lane * size, start)
                                if scaled and lane < inside:
                                    for row in range(2):
                                        value = peek(bits_of_sums, at.bias + addends_at + (row + 1) * oc * size + number + lane * size)
                                        poke(bits_of_sums, scales_block + (row * width + lane) * size, value)
                        block = group * ((e.ocg + width - 1) // width) * width + o
                        wei = at.wei + e.head + (block * e.icg + first * width) * s.taps * size
                        soon = wei + panel_bytes
                        soon_end, soon_jump = soon + depth * s.taps * width * size, depth * s.taps * soon_step
                        row = width * size
                        lies = e.filters_row != 0 and o + width <= e.ocg
                        if q == 1 and e.filters != 0:
                            wei = packed_at + e.filters_at + e.held * (o - first_filter) // width * panel_bytes
                            soon = soon_end = wei
                        if lies:
                            wei, row = at.wei + number, e.filters_row
                        if q == 1 and e.filters != 0 and not (lies or kept) and (e.held == 0 or first_row == y0):
                            put_integers(filter_block, Job(at.wei, 0, 0, at.values + 4 * size, wei - block * e.icg * s.taps * size, 0,
                                                           at.extents + e.integers_at, 0))  # fmt: skip
                            call_kernel(e.filters, (filter_block, 0, block // lanes, (block + width) // lanes))
                        if q == 1 and e.filters != 0 and first_row == y0 and e.soon_row >= 0 and not kept:
                            soon = at.wei + (group * e.ocg + o + width) * (size if e.soon_row else e.icg * s.taps * size)
                            soon_end = soon + panel_bytes
                            if e.soon_row:
                                soon_end, soon_jump, soon_step = soon + width * size, 64, e.soon_row
                        start_step = width * size if turn else 0
                        put_integers(filter_block, FilterBlock(at.extents, offsets, wei, row, blocks, last, start_step, finish,
                                                               scales_block))  # fmt: skip
                        to = at.dst + n * e.dn + (group * e.ocg + o) * s.dc
                        # merged rows lie beside each other: a strip of them is one
                        wide = e.ow
                        if e.merges:
                            wide = (end_row - first_row) * e.ow - (e.short if end_row == e.oh else 0)
                        for y in range(first_row, end_row, end_row - first_row if e.merges else ny):
                            yt, x = max(min(y, y1 - ny), y0), 0
                            while x < wide:
                                xt = min(x, wide - nx) if e.merges else max(min(x, wide - nx), 0)
                                whole = yt + ny <= y1 and xt + nx <= wide and o + width <= e.ocg
                                stored = final and whole and e.way != 0
                                result = to + yt * s.dy + xt * s.dx
                                # of what comes next: the next tile's pixels while the first filters read them, else the next filters
                                ahead, ahead_step, ahead_jump = soon, soon_step, soon_jump
                                # tiles that differ in nothing but their places
                                many = (wide - xt) // nx if stored and e.passes == 1 else 1
                                if e.in_place and o == first_filter:
                                    ahead, ahead_jump = pixels + (yt - y0) * s.step_y + (xt + nx) * s.step_x, nx * s.step_x
                                    ahead_step = max(64, nx * size) if e.channels_last else s.channel
                                elif soon < soon_end:
                                    many = min(many, (soon_end - soon + soon_jump - 1) // soon_jump)
                                    soon += many * soon_jump
                                else:
                                    ahead, ahead_step, ahead_jump = wei, 0, 0
                                x += many * nx
                                rows, columns, filters = min(ny, y1 - yt), min(nx, wide - xt), min(width, e.ocg - o)
                                if residual and final and not stored:
                                    for jy in range(rows):
                                        for jx in range(columns):
                                            pixel = tile_at + tile_bytes + (jy * nx + jx) * width * dsize
                                            for lane in range(filters):
                                                value = peek(bits, result + beside + jy * s.dy + jx * s.dx + lane * s.dc)
                                                poke(bits, pixel + lane * dsize, value)
                                call_kernel(e.tile, (filter_block, pixels + (yt - y0) * s.step_y + xt * s.step_x,
                                                     partial if turn else bias_block, result if stored else tile_at if final else partial,
                                                     ahead, ahead_step, stored_way if stored else 0 if final else RAW,
                                                     beside if stored else tile_bytes, many, nx * s.step_x, nx * s.dx,
                                                     ahead_jump))  # fmt: skip
                                partial += tile_bytes
                                if final and not stored:
                                    for jy in range(rows):
                                        for jx in range(columns):
                                            pixel, place = tile_at + (jy * nx + jx) * width * dsize, result + jy * s.dy + jx * s.dx
                                            if e.way == 1:
                                                copy(bits, lanes, place, pixel, filters)
                                            else:
                                                for lane in range(filters):
                                                    poke(bits, place + lane * s.dc, peek(bits, pixel + lane * dsize))
            poke("i64", packed_at, whose)

    return blocked


def reject(p: Problem, t: Target) -> str | None:
    """Forward, float32 and float64 sums (or float16, through float32)."""
    rounds = (None, "saturate") if p.dst in ("u8", "i8") else (None,)
    reason = not_computed(p, "fwd", roundings=rounds, scalings=True, bfloat=True)
    if reason is not None:
        return reason
    if p.acc not in ("f32", "f64"):
        return f"sums in f32 or f64, not {p.acc}"
    reason = not_fused(p)
    if reason is not None:
        return reason
    if p.kh * p.kw > _MOST_TAPS:
        return f"keeps a table of at most {_MOST_TAPS} taps, not {p.kh * p.kw}"
    return too_large(p, workspace(p, t))


def workspace(p: Problem, t: Target) -> int:
    """Bytes of one thread, if it works alone; more threads share shorter bands."""
    size = DTYPES[p.acc].itemsize
    tile, lanes = tile_of(p, t), t.lanes(size)
    whole = merged(p, tile)
    split = split_of(whole, tile, lanes, size, 1, _reads_in_place(whole, _form(p, t), tile))
    return _scratch(whole, tile, lanes, size, split, whole is not p)


def cost(p: Problem, t: Target) -> float:
    """FMAs in padded blocks of the best tile, and the packing of the panel."""
    tile = tile_of(p, t)
    seconds = costs.blocked_seconds(merged(p, tile), t.lanes(DTYPES[p.acc].itemsize), tile.mr, tile.ny, tile.nx)
    return seconds + costs.staged_seconds(p, channels_last=True)


def most_kernels(t: Target) -> int:
    """How many kernels of one type can ever be compiled: tiles x layouts, their bands, what packs panels and weights."""
    most = max(tile.registers for tile in TILES if tile.registers <= t.registers)
    return sum(tile.registers == most for tile in TILES) * 2 + 3


def tile_of(p: Problem, t: Target, apart: bool = False) -> Tile:
    """The tile of the fewest padded multiplications, where rows lie ``apart``, too; ties go to the earlier.  No tile changes a sum."""
    most = max(tile.registers for tile in TILES if tile.registers <= t.registers)
    lanes = t.lanes(DTYPES[p.acc].itemsize)
    fitting = [tile for tile in TILES if tile.registers == most]

    def seconds(tile: Tile) -> float:
        return costs.blocked_tile_seconds(p if apart else merged(p, tile), lanes, tile.mr, tile.ny, tile.nx)

    return min(fitting, key=seconds)


def _form(p: Problem, t: Target) -> Form:
    """Floats are read and written as they are where that is the type of the sums, float16 or bfloat16; results of 8 bits are rounded."""
    src, dst = (name if name in ("f16", "bf16") and p.acc == "f32" else p.acc for name in (p.src, p.dst))
    scaling, rounding = parse_scaling(p.epilogue), parse_epilogue(p.epilogue).rounding or ""
    return Form(kind=p.acc, how="fma" if t.fma else "multiply", src=src, dst=p.dst if rounding else dst, rounding=rounding,
                scaled=int(scaling.scale or scaling.shift), residual=int(scaling.residual))  # fmt: skip


def build(p: Problem, t: Target, plan: Any, threads: int = 1, tile: Tile | None = None, given: bool = False, apart: bool = False) -> Plan:
    """A plan whose weights are packed as ``[g][oc block][channel block][tap][channel][mr * lanes]``, for one tile; or ``given``.

    Where all pixels are seen as rows of one tile, images whose rows lie ``apart`` are convolved by another plan; of packed weights by one
    of the same tile.
    """
    form, tile = _form(p, t), tile or tile_of(p, t, apart)
    lanes = t.lanes(size := KINDS[form.kind][2])
    packer = FilterPacker(p, form.kind, lanes, tile.mr * lanes, threads)
    whole = p if apart else merged(p, tile)
    merges, pixels = whole is not p, p.n * p.ih * p.iw
    past = form.goes_past and past_caches(p, t, lanes * size) and (p.g == 1 or p.oc // p.g % lanes == 0)
    body = Body(whole, form, tile, lanes, threads, 0, 0, packer if given else None, t.l2, pixels if merges else 0, past)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if merges and not all(lies_in_turn(array) for array in (src, dst)):
            return launched_as(given, build(p, t, plan, own.threads, None if given else tile, False, True), src, packed, dst, fill)
        if body.in_place(src, dst) or form.scaled or form.residual:
            return body.prepare(own.threads, _values(p, fill), src, packed, dst)
        # the bands' weights are these: another tile would want them packed otherwise
        return staged_launch(p, own.threads, partial(build, tile=tile, given=given), t, src, packed, dst, fill)

    def as_given(p: Problem, wei: np.ndarray) -> np.ndarray:
        return wei.astype(DTYPES[form.kind], copy=False)

    few = few_bands(whole, tile, lanes, size, threads, _reads_in_place(whole, form, tile), t.l2)
    return Plan(problem=p, algorithm="blocked", kernel=body.name, cost=cost(p, t), prepare_launch=prepare,
                pack_weights=as_given if given else packer, workspace=body.scratch * threads, threads=threads,
                given=partial(build, p, t, plan, threads, tile, True, apart) if few and not given else None,
                grouped=given)  # fmt: skip


def _values(p: Problem, fill: Any) -> np.ndarray:
    """``[fill, slope, low, high, 0, 0, zero point]`` in the accumulator's type."""
    values = finish_values(p, fill)
    values[5:7] = 0, 0
    return requantised(p, values)


class Body:
    """The band kernel of a form and its integers, for a problem whose channels are elements of the panel.

    ``channels`` are those of a group of the image, ``head`` bytes lie before the packed weights; or ``filters`` packs the caller's.
    Where ``pixels`` is not 0, the problem is that many `merged` ones.  ``past``: vectors of results go past the caches where they can.
    """

    def __init__(
        self, p: Problem, form: Form, tile: Tile, lanes: int, threads: int, channels: int = 0, head: int = 0,
        filters: FilterPacker | None = None, cache: int = 0, pixels: int = 0, past: bool = False,
    ) -> None:  # fmt: skip
        size, steps = KINDS[form.kind][2], steps_of(p)
        step = steps.step
        self._problem, self._form, self._lanes, self._step, self._apart = p, form, lanes, step, (steps.g * steps.q, steps.gx * steps.qx)
        self._merges, self._past = pixels > 0, past and step > 1
        types = [] if form.src == form.dst == form.kind else [form.src, form.dst]
        words = [form.kind, *types, form.rounding, form.how if form.q > 1 else "", "scaled" * form.scaled, "residual" * form.residual]
        self.name = f"blocked_{'_'.join(filter(None, words))}_{tile.mr}x{tile.ny}x{tile.nx}_{lanes}" + "_nhwc" * (step > 1)
        self._bytes = form.q > 1 or not form.src == form.dst == form.kind  # arrays are seen as bytes
        self._code = blocked_tile_kernel(self.name, (lanes, tile.mr, tile.ny, tile.nx, step, DEPTH, *form))
        bands = form.kind, form.q, stored_bytes(form.dst), form.scaled, form.residual
        name = f"blocked_bands_{form.kind}_q{form.q}_b{bands[2]}" + "_scaled" * form.scaled + "_residual" * form.residual + f"_{lanes}"
        self._region = Region(name, _factory, (lanes, *bands), "i8" if self._bytes else form.kind)
        in_place = _reads_in_place(p, form, tile)
        split = split_of(p, tile, lanes, size, threads, in_place, filters is not None, cache)
        self._shape, self._head, self._tables = _layout(p, tile, lanes, size, split, pixels)
        self.scratch = _scratch(p, tile, lanes, size, split, self._merges)
        self._filters = filters
        if filters is not None:
            integers_at = TABLES_AT + self._tables.nbytes
            held = held_blocks(p, tile, lanes, size)
            self._head = self._head._replace(filters_at=self.scratch, integers_at=integers_at, held=int(held))
            blocks = self._head.part_blocks if held else 1
            self.scratch += -(-(p.ic // p.g) * p.kh * p.kw * tile.mr * lanes * size * blocks // 64) * 64
        active = parse_epilogue(p.epilogue).activation is not None or form.rounding or form.residual
        self._head = self._head._replace(
            channels=channels or self._head.icg, head=head, bias=self._head.bias or form.scaled or form.residual, active=int(bool(active))
        )
        self._one_tap = in_place and no_shorter(p, tile, split)
        self._strip_rows = split.band_rows if form.scaled else strip_rows(p, tile, lanes, size, split)
        self._units = p.n * p.g * self._head.bands * self._head.parts
        self._seconds = costs.blocked_seconds(p, lanes, tile.mr, tile.ny, tile.nx)

    def in_place(self, src: np.ndarray, dst: np.ndarray) -> bool:
        """Whether the kernel reads and writes arrays where they are."""
        read = src.dtype == DTYPES[self._form.src] and (self._step == 1 or src.strides[1] == src.itemsize)
        return read and dst.dtype == DTYPES[self._form.dst]

    def prepare(self, threads: int, values: np.ndarray, src: np.ndarray, packed: np.ndarray, dst: np.ndarray) -> Launch:
        """A launch for arrays of these strides; those that are not read or written in place are copied as a whole."""
        if self.in_place(src, dst):
            return self._with_addends(threads, values, src, packed, dst)
        own = self._with_addends(threads, values, self._readable(src), packed, np.empty_like(dst, DTYPES[self._form.dst]))

        def launch(src: np.ndarray, packed: np.ndarray, addends: Any, dst: np.ndarray) -> None:
            result = np.empty_like(dst, DTYPES[self._form.dst])
            own(self._readable(src), packed, addends, result)
            dst[...] = result

        return launch

    def _readable(self, src: np.ndarray) -> np.ndarray:
        """A copy of an image that the kernel reads."""
        with np.errstate(all="ignore"):
            src = src.astype(DTYPES[self._form.src])
        return src if self._step == 1 else np.ascontiguousarray(src.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)

    def _with_addends(self, threads: int, values: np.ndarray, src: np.ndarray, packed: np.ndarray, dst: np.ndarray) -> Launch:
        """A launch that gathers what the form's sums are scaled by."""

        def launch(dst: np.ndarray) -> Launch:
            return self._launch(threads, values, src, packed, dst)

        return gathering(self._problem, launch, dst) if self._form.scaled or self._form.residual else launch(dst)

    def _launch(self, threads: int, values: np.ndarray, src: np.ndarray, packed: np.ndarray, dst: np.ndarray) -> Launch:
        (sn, sc, sy, sx), (dn, dc, dy, dx) = src.strides, dst.strides
        if self._merges:
            sy, dy = sx * self._problem.iw, dx * self._problem.ow
        way = 1 if dc == dst.itemsize else 2 if dx == dst.itemsize else 0
        in_place = self._one_tap and (sc if self._step > 1 else sx) == src.itemsize
        shape = self._shape
        if in_place:
            down, across = self._apart
            shape = shape._replace(channel=sc, block=DEPTH * sc, step_y=sy * down, step_x=sx * across)
        packer = 0 if in_place else panel_packer(self._form, self._lanes).address
        past = self._past and way == 1 and all(step % LINE == 0 for step in (dn, dy, dx))
        places = {"tile": self._code.address, "packer": packer, "in_place": int(in_place), "way": way, "past": int(past)}
        if in_place:
            places["strip_rows"] = self._strip_rows
        head = self._head._replace(**places, sn=sn, sc=sc, sy=sy, sx=sx, dn=dn)
        if self._filters is not None:
            one_filter = packed.itemsize * packed.shape[-3] * shape.taps
            beside = shape.taps == 1 and packed.strides[-4] == packed.itemsize
            row = packed.strides[-3] if beside else 0 if abs(packed.strides[-4]) >= one_filter else -1
            few = self._problem.oh * self._problem.ow <= _FEW_PIXELS
            lies = in_place and few and row > 0 and row % _CROWDED_BYTES != 0 and packed.ndim == 4
            head = head._replace(filters=self._filters.kernel().address, soon_row=row, filters_row=row if lies else 0)
        numbers = *shape._replace(dy=dy, dx=dx, dc=dc), *head
        own = [] if self._filters is None else [self._filters.integers(packed)]
        extents = np.concatenate([np.array(numbers, np.int64), self._tables, *own])
        values = values.view(np.int8) if self._bytes else values
        turns = bool(in_place) and head.parts == 1
        return self._region.launcher(extents, values, self.scratch, self._units, threads, self._seconds, src, packed, dst, turns)


def _reads_in_place(p: Problem, form: Form, tile: Tile) -> bool:
    """Whether the kernel reads an image's pixels where they lie, if their strides allow it."""
    return form.q == 1 and form.src == form.kind and one_tap(p, tile)


def _scratch(p: Problem, tile: Tile, lanes: int, size: int, split: Split, merges: bool) -> int:
    """Bytes of workspace of one thread; pixels that are `merged` have no panel."""
    s = steps_of(p)
    tile_bytes = tile.mr * lanes * size * tile.ny * tile.nx
    oc_blocks = -(-(p.oc // p.g) // (tile.mr * lanes))
    tiles = -(-oc_blocks // split.parts) * -(-split.band_rows // tile.ny) * -(-p.ow // tile.nx)
    panel = 0 if merges else bytes_of_panel(s, tile, lanes, size, split.band_rows, split.pass_blocks)
    scratch = panel + 384 + 3 * tile.mr * lanes * size
    scratch += MOST_LINES * (s.columns * s.gx + 2 * lanes) * size + s.split_bytes(lanes, size)
    scratch += tile_bytes * (2 + tiles * (split.pass_blocks < s.blocks))
    return -(-scratch // 64) * 64


def _layout(p: Problem, tile: Tile, lanes: int, size: int, split: Split, pixels: int) -> tuple[Shape, Head, np.ndarray]:
    """The kernel's integers but for the strides, and its tables; of so many `merged` pixels, if not 0, no panel is packed."""
    s, icg, ocg = steps_of(p), p.ic // p.g, p.oc // p.g
    phase = phase_columns(s, tile, lanes)
    oc_blocks = -(-ocg // (tile.mr * lanes))
    part_blocks = -(-oc_blocks // split.parts)
    panel_rows = rows_of_panel(s, tile, split.band_rows)
    line = phase * s.qx * size
    row = line * DEPTH if s.step > 1 else line
    channel, block = size if s.step > 1 else line * panel_rows, line * DEPTH * panel_rows
    numbers = np.arange(s.columns, dtype=np.int64)
    inside, places = numbers * s.gx, ((numbers % s.qx) * phase + numbers // s.qx) * s.step * size
    down = (s.kh_rows - 1) // max(p.kh - 1, 1)
    offsets = (np.arange(p.kh)[:, None] * down * row + places[np.arange(p.kw) * s.kx]).reshape(-1)
    rows = row_map(p.replace(ih=1) if pixels else p)
    before, after = column_maps(p, max(int(inside[-1]) + 1 - p.pl - p.iw, 0))
    every = np.concatenate([before, np.arange(p.iw), after])
    has_bias = parse_epilogue(p.epilogue).bias
    shape = Shape(taps=p.kh * p.kw, channel=channel, block=block, step_y=s.q * row, step_x=s.step * size, dy=0, dx=0, dc=0)
    head = Head(
        tile=0, ny=tile.ny, nx=tile.nx, width=tile.mr * lanes,
        planes=p.g, icg=icg, channels=icg, ocg=ocg, oh=p.oh, ow=p.ow, kh_rows=s.kh_rows, bands=-(-p.oh // split.band_rows),
        band_rows=split.band_rows, strip_rows=split.band_rows, parts=-(-oc_blocks // part_blocks), part_blocks=part_blocks,
        passes=-(-s.blocks // split.pass_blocks), pass_blocks=split.pass_blocks,
        q=s.q, g=s.g, qx=s.qx, gx=s.gx, columns=s.columns, splits=s.splits,
        split_columns=s.split_columns, split_bytes=s.split_bytes(lanes, size), phase=phase,
        bias=int(has_bias), map_rows=len(rows), nleft=p.pl, channels_last=int(s.step > 1), row=row, panel_rows=panel_rows,
        in_place=0, active=0, head=0, way=0, past=0, packer=0, beyond=max(tile.nx - p.ow, 0) and max(tile.nx - p.ow, 0) + 1,
        merges=int(pixels > 0), short=p.oh * p.ow - pixels if pixels else 0,
        tile_rows=(tile.ny - 1) * s.q + s.kh_rows, filters=0, filters_at=0, integers_at=0, soon_row=0, filters_row=0, held=0,
        sn=0, sc=0, sy=0, sx=0, dn=0,
    )  # fmt: skip
    inner = span(-p.pl, (s.columns - 1) * s.gx + 1, p.iw)
    tables = np.concatenate([np.array(inner), offsets, rows, every[inside], places, before, after])
    return shape, head, tables
