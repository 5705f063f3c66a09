"""panel: images of other types than their sums, exact orders, interleaved channels: rows converted into a strip, tiles on the strip.

A unit of work is a block of columns by a band of rows of one image and group.  Its rows are converted, their borders resolved, just
before the tile that needs them, into a ring of as many rows as one tile reads, which stays in the cache; the sums are converted as they
are stored.  Channels that lie interleaved and have the same weights are one plane whose taps are ``ic`` elements apart.
Order of accumulation per output: see :func:`fastconv.cpu.tile.direct_tile`; in an exact order (`Problem.order`) each product is rounded
before it is added.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, not_computed, parse_epilogue, parse_scaling
from .border import column_maps, row_map, stage_row, too_large
from .convert import LOADED, STORED, adds_products_of_bytes, quads, stored_bytes
from .finish import ADDENDS_AT, FINISH_AT, gathering, scales, set_finish
from .memory import call_kernel, copy, fill_row, integers, peek, poke, unrolled_by_hand
from .runs import Block, blocks_of
from .simd import KINDS
from .stage import band_problem, band_sizes, bands, bands_are_vast, stage_rows
from .target import Target
from .threads import Job, Region
from .tile import TAPS_AT, Shape, Tile, direct_tile_kernel, fitting, fixed, tap_order
from .values import finish_values

CASES = ("ih64_k3_p1_reflect_u8:f32:u8:f32_saturate", "ih64_k5_p2_u8:f32:u8:f32_bias+saturate", "ih40_k7_p3_edge_f16:f16:f16:f32",
         "ih40_k3_u8:f64:u8:f64_order=raster", "g3_ic3ih40_oc3k5_p2_wrap_u8:f32:u8:f32_nhwc_saturate_shared",
         "g3_ic3ih40_oc3k3_p1_f32_nhwc_shared", "ic3ih30_oc4k3_s2_p1_i16:f32:f32:f32_bias+relu")  # fmt: skip


TILES = (
    Tile(32, rows=8, vecs=2, tall=8),  # 16 accumulators, 8 taps, 2 pixels of 32 registers
    Tile(32, rows=4, vecs=4, tall=8),  # for tall kernels, as in direct
    Tile(16, rows=4, vecs=2, tall=4),
)

# (kh, kw) of kernels that at stride 1 get a compiled kernel of their own, for taps side by side (Zen 5: see `tile`); others gain nothing
FIXED = ((3, 3),)

# kernels of a tile in exact orders: raster, and pairs with two signs in rows and columns; and for integer weights
EXACT, INTEGER = 5, 1

_ORDERS = ("any", "raster", "symmetric", "antisymmetric")
_BAND = 64  # rows of output that one unit of work computes at most

# The integers that the kernel receives: those of the tile, these (first its address, rows and elements of a row), the blocks, the row
# map, the order of the taps, the two column maps.
Head = namedtuple(
    "Head",
    "tile rows width ocg groups blocks bands band_rows padded oh ow step held entries pitch finish bias scaled taps taps_pitch nleft wide "
    "sn sc sy wo dn dc dy",
)
# Blocks hold their whole tiles, and where one more starts that ends with it, or 0.
_HEAD_AT, _BLOCK_BYTES = 8 * len(Shape._fields), 8 * len(Block._fields)
_BLOCKS_AT = _HEAD_AT + 8 * len(Head._fields)


def _factory(kind: str, lanes: int, src: str, dsize: int, channels: int) -> Any:
    """The band kernel of all tiles: units ``u0 .. u1 - 1`` of work, a unit being (image, group, block of columns, band of rows).

    Of kind i32 the ring holds for each pixel its byte and those of the next three of the same channel, of which ``channels`` lie
    interleaved, and a tap is four.
    Output row j of a band reads rows ``j*step + ky`` of the padded image; row r lies in place ``r % held`` of the ring.
    Workspace: row table, for each output channel of the group the first addend and the packed taps, fill row, ring, row of bytes, tile.
    """
    size, bits = KINDS[kind][2], f"i{8 * dsize}"
    dots, quarters = int(kind == "i32"), 4 * lanes

    def panel(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        s, e = integers(at.extents, Shape), integers(at.extents + _HEAD_AT, Head)
        rows, width, icg, entries = e.rows, e.width, s.icg, e.entries
        blocks = at.extents + _BLOCKS_AT
        row_map = blocks + e.blocks * _BLOCK_BYTES
        order = row_map + e.padded * 8
        maps = order + (e.taps + e.nleft) * 8
        fill = peek(kind, at.values)
        finish = e.finish * (at.values + size)
        table = at.workspace + index * at.scratch
        starts = table + (icg * entries + 7) // 8 * 64
        fill_at = starts + e.ocg * e.taps_pitch
        ring = fill_at + e.pitch
        bytes_at = ring + e.held * icg * e.pitch
        tile_at = bytes_at + e.pitch
        fill_row(kind, lanes, fill_at, e.wide, fill)
        packed_group = -1
        for u in range(u0, u1):
            rest, band = u // e.bands, u % e.bands
            rest, number = rest // e.blocks, rest % e.blocks
            n, group = rest // e.groups, rest % e.groups
            if packed_group != group:
                packed_group = group
                for i in range(e.ocg):
                    start, o = starts + i * e.taps_pitch, group * e.ocg + i
                    poke(kind, start, peek(kind, at.bias + e.scaled * ADDENDS_AT + o * size if e.bias else at.values + 4 * size))
                    if e.scaled:
                        set_finish(kind, start, at.values, at.bias, e.groups * e.ocg, o)
                    for tap in range(e.taps):
                        poke(kind, start + TAPS_AT + tap * size, peek(kind, at.wei + o * e.wo + peek("i64", order + tap * 8)))
            block_at = blocks + number * _BLOCK_BYTES
            block = integers(block_at, Block)
            j0 = band * e.band_rows
            j1 = min(j0 + e.band_rows, e.oh)
            used = (j1 - j0 - 1) * e.step + s.kh
            staged = 0
            plane = at.src + n * e.sn + group * icg * e.sc
            to = at.dst + n * e.dn + group * e.ocg * e.dc + block.to
            for j in range(j0, j1, rows):
                # the last tile overlaps the one before; it writes the same values again
                jt = max(min(j, j1 - rows), j0)
                needed = (jt - j0) * e.step + e.held
                for r in range(staged, needed):
                    row = peek("i64", row_map + (j0 * e.step + r) * 8) if r < used else -1
                    for c in range(icg):
                        line = ring + (r % e.held * icg + c) * e.pitch if row >= 0 else fill_at
                        poke("i64", table + (c * entries + r) * 8, line)
                        if dots and row >= 0:
                            pixels = plane + c * e.sc + row * e.sy
                            stage_row("i8", quarters, "u8", bytes_at, pixels, block_at, maps, peek("i8", at.values))
                            quads(lanes, channels, line, bytes_at, e.wide)
                        elif row >= 0:
                            stage_row(kind, lanes, src, line, plane + c * e.sc + row * e.sy, block_at, maps, fill)
                staged = needed
                rows_at, whole = table + (jt - j0) * s.step, jt + rows <= j1 and width <= e.ow
                for i in range(e.ocg):
                    start, line = starts + i * e.taps_pitch, to + i * e.dc + jt * e.dy
                    for run in range(2 if block.last else 1):
                        tiles = 1 if run else block.tiles
                        for part in range(1 if whole else tiles):
                            x = run * block.last + part * width
                            result = line + x * dsize
                            made, pitch, many = (result, e.dy, tiles) if whole else (tile_at, width * dsize, 1)
                            ending = start + FINISH_AT if e.scaled else finish
                            call_kernel(e.tile, (at.extents, start, ending, rows_at, x * s.column, made, pitch, many, 0))
                            if not whole:
                                for row in range(min(rows, j1 - jt)):
                                    copy(bits, lanes, result + row * e.dy, tile_at + row * width * dsize, min(width, e.ow))

    return panel


def sum_kind(p: Problem) -> str | None:
    """The element kind of the sums, or None."""
    return p.acc if p.acc in ("f32", "f64") else None


def interleaved(p: Problem) -> int:
    """How many channels lie side by side and have the same weights, and nothing of their own but a bias; or 1."""
    return p.ic if p.shared and p.src_layout == "nhwc" and p.ic == p.oc == p.g and not scales(p) else 1


def reject(p: Problem, t: Target) -> str | None:
    """Forward, of types that rows are converted from and to; dense rows, strides of at most 2."""
    rounding = parse_epilogue(p.epilogue).rounding
    roundings = (None, "saturate", "half_up")
    reason = not_computed(p, "fwd", orders=_ORDERS, roundings=roundings, scalings=True, bfloat=True) or _refused_types(p, rounding)
    if reason is not None:
        return reason
    sh, sw = p.strides
    if p.order != "any" and (sh, sw) != (1, 1):
        return f"its sums in exact orders have stride 1, not {(sh, sw)}"
    if p.order.endswith("symmetric") and p.ic > p.g:
        return "sums pairs of one channel"
    if sh > 2 or sw > 2:
        return f"its tiles have strides 1 and 2, not {(sh, sw)}"
    if p.dh > 1 and p.kh > 1:
        return f"its rows of taps are dense, not {p.dh} apart"
    if interleaved(p) > 1 and sw > 1:
        return "interleaved channels have no column stride"
    tile, lanes = _tile(p, t), t.lanes(KINDS[sum_kind(p) or "f32"][2])
    return too_large(p, _layout(p, tile, lanes)[3])


def _refused_types(p: Problem, rounding: str | None) -> str | None:
    kind = sum_kind(p)
    if kind is None:
        return f"sums in f32 or f64, not {p.acc}"
    if p.src not in LOADED:
        return f"does not load {p.src}"
    halves = (p.dst in ("f16", "bf16") or p.src == "bf16") and kind == "f64"
    if p.dst not in STORED or halves or (p.dst in ("u32", "i64", "u64") and rounding):
        return f"does not store {p.dst} from {p.acc}, rounded as {rounding}"
    activation, scaling = parse_epilogue(p.epilogue).activation, parse_scaling(p.epilogue)
    if activation not in (None, "relu", "relu6", "leaky_relu") or scaling.residual or scaling.zero:
        return f"does not fuse {p.epilogue}"
    return None


def cost(p: Problem, t: Target) -> float:
    """The tiles, and the conversion of the rows."""
    lanes = t.lanes(KINDS[sum_kind(p) or "f32"][2])
    return costs.panel_seconds(p, lanes) + costs.staged_seconds(p, converts=True, channels_last=interleaved(p) > 1)


def most_kernels(t: Target) -> int:
    # tiles; the bands of their sums
    return sum(4 + sum(kh <= tile.tall for kh, _ in FIXED) + EXACT + INTEGER for tile in fitting(TILES, t)) + 1


def _tile(p: Problem, t: Target) -> Tile:
    """The flat tile for tall kernels on wide planes, else the tall one: see `direct`."""
    lanes, ow = t.lanes(KINDS[sum_kind(p) or "f32"][2]), p.ow * interleaved(p)
    rows, vecs = (4, 4) if p.kh >= 6 and ow >= 4 * lanes else (8, 2)
    return min(fitting(TILES, t), key=lambda tile: (abs(tile.vecs - vecs), abs(tile.rows - rows)))


def _fixed(p: Problem, tile: Tile) -> tuple[int, int]:
    """The row of FIXED that this problem's kernel is compiled for, or zeros; of pairs, 1 across the row or column."""
    if p.order != "any":
        return (0, 0) if p.order == "raster" else (1, 0) if p.kh == 1 else (0, 1)
    side_by_side = p.dw == 1 and p.ic == p.g and not p.shared
    return fixed(FIXED, p, tile, side_by_side) if p.strides == (1, 1) else (0, 0)


def _tall(p: Problem, tile: Tile) -> int:
    return 1 if p.order != "any" else tile.tall if p.strides[1] == 1 else tile.tall // 2


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan whose kernel packs the few taps itself, at every run."""
    kind = sum_kind(p)
    assert kind is not None
    tile, lanes = _tile(p, t), t.lanes(KINDS[kind][2])
    v, h = p.strides
    kh, kw = _fixed(p, tile)
    rounding = parse_epilogue(p.epilogue).rounding or ""
    common = lanes, tile.rows, tile.vecs, v, h, _tall(p, tile)
    fma, stored = int(t.fma and p.order == "any"), stored_bytes(p.dst)
    codes = {1: direct_tile_kernel("panel", (kind, *common, kh, kw, fma, p.dst, rounding, p.order))}
    bands = f"panel_bands_{p.src}_{kind}_b{stored}_{lanes}"
    regions = {1: Region(bands, _factory, (kind, lanes, p.src, stored, 0), "i8")}
    dots, channels = _sums_bytes(p, t, lanes), interleaved(p)
    if dots:
        codes[4] = direct_tile_kernel("panel", ("i32", *common, 0, 0, 0, p.dst, rounding, "dots"))
        regions[4] = Region(f"{bands}_dots{channels}", _factory, ("i32", lanes, p.src, stored, channels), "i8")
    scratch = max(_layout(p, tile, lanes, taps)[3] for taps in regions)

    def launch_of(taps: int, packed: np.ndarray, src: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        """A launch for packed weights like these, ``taps`` in each of their elements."""
        shape, head, tables, own = _layout(p, tile, lanes, taps)
        (sn, sc, sy, _), (wo, *strides), (dn, dc, dy, _) = src.strides, packed.strides, dst.strides
        order = tap_order(p, _tall(p, tile), taps, p.strides[0]) @ strides
        e = head._replace(tile=codes[taps].address, sn=sn, sc=sc, sy=sy, wo=wo, dn=dn, dc=dc, dy=dy)
        extents = np.concatenate([np.array((*shape, *e), np.int64), tables[0], order, tables[1]])
        values = finish_values(p, fill).view(np.int8)
        if taps > 1:
            values[:4] = np.uint8(fill).view(np.int8)
        units = p.n * head.groups * head.blocks * head.bands

        def launch_for(dst: np.ndarray) -> Launch:
            return regions[taps].launcher(extents, values, own, units, threads, costs.panel_seconds(p, lanes),
                                           src, packed, dst, turns=True)  # fmt: skip

        return gathering(p, launch_for, dst) if scales(p) else launch_for(dst)

    def prepare(plan: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if not (_in_place(p, src, p.src) and _in_place(p, dst, p.dst)):
            return _staged_launch(p, plan.threads, t, src, packed, dst, fill)
        if not dots:
            side_by_side = launch_of(1, packed, src, dst, fill)
            if channels == 1 or not parse_epilogue(p.epilogue).bias:
                return side_by_side
            planes = build(p.replace(src_layout="nchw"), t, None, threads).prepare(src, packed, dst, fill)

            def launch_biased(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
                """Addends that differ are added to planes, which have the same sums."""
                same = bias is None or bool((bias == bias[0]).all())
                (side_by_side if same else planes)(src, packed, bias, dst)

            return launch_biased
        shape = p.oc, p.ic // p.g, p.kh
        floats = launch_of(1, np.empty((*shape, p.kw), np.float32), src, dst, fill)
        if not (0 <= fill < 256 and fill == int(fill)):
            return lambda src, packed, bias, dst: floats(src, _unpacked(p, packed), bias, dst)
        integers = launch_of(4, np.empty((*shape, -(-p.kw // 4)), np.int32), src, dst, fill)

        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            (integers if packed.dtype == np.int32 else floats)(src, packed, bias, dst)

        return launch

    def pack(p: Problem, wei: np.ndarray) -> np.ndarray:
        return _pack_bytes(p, wei) if dots else wei.astype(DTYPES[p.acc], copy=False)

    names = "_or_".join(code.name for code in codes.values())
    return Plan(problem=p, algorithm="panel", kernel=names, cost=cost(p, t), pack_weights=pack, prepare_launch=prepare,
                workspace=scratch * threads, threads=threads)  # fmt: skip


def _sums_bytes(p: Problem, t: Target, lanes: int) -> bool:
    """Whether sums of integer weights of 8 bits are exact in float32 and in 32-bit integers alike, and it is worth a look at the weights.

    512x512 uint8, one core, float and integers: k3 69 and 64 us, k5 148 and 94, k7 248 and 115, k15 1037 and 327 (Zen 4, 2026-11).
    """
    exact = p.taps * 255 * 128 <= 1 << 24 and not parse_epilogue(p.epilogue).bias and p.order == "any"
    dense = p.strides == (1, 1) and p.dw == 1 and p.kw >= 5 and interleaved(p) <= 4
    able = t.bits == 512 and adds_products_of_bytes()
    return able and dense and exact and p.src == "u8" and p.acc == "f32" and costs.panel_seconds(p.replace(n=1), lanes) > costs.DOTS_SECONDS


def _pack_bytes(p: Problem, wei: np.ndarray) -> np.ndarray:
    """Weights that are integers of 8 bits, four of a row in each 32 bits and zeros behind the last; other weights in float32."""
    with np.errstate(all="ignore"):
        narrow = wei.astype(np.int8)
    if not np.array_equal(narrow, wei):
        return np.ascontiguousarray(wei, DTYPES[p.acc])
    packed = np.zeros((*wei.shape[:3], -(-p.kw // 4) * 4), np.int8)
    packed[..., : p.kw] = narrow
    return packed.view(np.int32)


def _unpacked(p: Problem, packed: np.ndarray) -> np.ndarray:
    """Packed weights in float32."""
    return packed.view(np.int8)[..., : p.kw].astype(np.float32) if packed.dtype == np.int32 else packed


def _in_place(p: Problem, array: np.ndarray, name: str) -> bool:
    """Whether the kernel reads or writes an array where it is: native order, its elements side by side along the rows."""
    channels = interleaved(p)
    columns = array.strides[-1] == channels * array.itemsize or array.shape[-1] == 1
    return array.dtype == DTYPES[name] and columns and (channels == 1 or array.strides[1] == array.itemsize)


def _holds(p: Problem, fill: Any) -> bool:
    """Whether the image's type holds the border's pixels."""
    dtype = DTYPES[p.src]
    if p.border != "constant" or fill != fill:
        return p.border != "constant" or dtype.kind == "f"
    if dtype.kind == "V":
        return bool(fill == 0)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(dtype.type(fill)) == fill
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return bool(np.isfinite(fill)) and least <= fill <= most and fill == int(fill)


def _staged_launch(
    p: Problem, threads: int, t: Target, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any
) -> Launch:  # fmt: skip
    """A launch that copies bands of an image of any strides and byte order, and their results where ``dst`` is not written in place."""
    in_place = _in_place(p, dst, p.dst)
    of = p if _holds(p, fill) else p.replace(src=p.acc)  # the bands'

    def empty(channels: int, rows: int, columns: int, name: str) -> np.ndarray:
        if interleaved(p) == 1:
            return np.empty((1, channels, rows, columns), DTYPES[name])
        return np.empty((1, rows, columns, channels), DTYPES[name]).transpose(0, 3, 1, 2)

    def result(to: np.ndarray) -> np.ndarray:
        return to if in_place else empty(*to.shape[1:], p.dst)

    plans, launches = {}, {}
    for rows in band_sizes(p):
        band = band_problem(of, rows, converted=False)
        plans[rows] = build(band, t, None, threads)
        staged = empty(p.ic, band.ih, band.iw, of.src)
        launches[rows] = plans[rows].prepare(
            staged, plans[rows].pack(_unpacked(p, packed)), result(dst[:1, :, :rows]), fill if bands_are_vast(p) else 0
        )

    def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
        wei = _unpacked(p, packed)
        for n, first, end in bands(p):
            band = plans[end - first].problem
            staged = empty(p.ic, band.ih, band.iw, of.src)
            stage_rows(p, src, n, first, end, fill, staged[0])
            to = dst[n : n + 1, :, first:end]
            made = result(to)
            launches[end - first](staged, plans[end - first].pack(wei), bias, made)
            if not in_place:
                np.copyto(to, made)

    return launch


def _layout(p: Problem, tile: Tile, lanes: int, taps: int = 1) -> tuple[Shape, Head, tuple[np.ndarray, np.ndarray], int]:
    """The kernel's integers but for the strides; its tables before and behind the taps; bytes of workspace of one thread.

    ``taps`` of a row of the kernel are one.
    """
    kind = sum_kind(p)
    assert kind is not None
    size, channels = KINDS[kind][2], interleaved(p)
    sh, sw = p.strides
    icg, ocg, groups = (1, 1, 1) if channels > 1 else (p.ic // p.g, p.oc // p.g, p.g)
    width, ow = lanes * tile.vecs, p.ow * channels
    held = (tile.rows - 1) * sh + p.kh
    most = max(costs.PANEL_RING_BYTES // (held * icg * size * sw * width), 1)  # tiles of a block
    blocks = -(-ow // (most * width))
    tiles = -(-ow // (blocks * width))
    kw, tap = -(-p.kw // taps), taps * p.dw * channels
    reach = (tiles * width - 1) * sw + (kw - 1) * tap + 1 + (sw == 2)
    wide = -(-reach // lanes) * lanes
    made = [
        Block(*inside, first * stored_bytes(p.dst), max(columns // width, 1), columns - width if columns > width and columns % width else 0)
        for inside, first, columns in blocks_of(
            ow, tiles * width, width, sw, p.pl * channels, (p.kw - 1) * p.dw * channels + 1, p.iw * channels
        )
    ]
    band_rows = min(max(_band_rows(p, lanes, len(made)) // tile.rows, 1) * tile.rows, -(-p.oh // tile.rows) * tile.rows)
    entries = (band_rows - 1) * sh + p.kh
    finish = parse_epilogue(p.epilogue)
    packed = p.ic // p.g * p.kh * kw
    taps_pitch = -(-(TAPS_AT + packed * size) // 64) * 64
    pitch = wide * size + 64  # rows one line apart from a power of two
    shape = Shape(icg=icg, pitch=entries * 8, step=sh * 8, kh=p.kh, kw=kw, tap=tap * size, column=sw * size)
    head = Head(
        tile=0, rows=tile.rows, width=width,
        ocg=ocg, groups=groups, blocks=len(made), bands=-(-p.oh // band_rows), band_rows=band_rows, padded=p.ih_padded, oh=p.oh,
        ow=ow, step=sh, held=held, entries=entries, pitch=pitch, finish=int(finish.activation is not None), bias=int(finish.bias),
        scaled=int(scales(p)), taps=packed, taps_pitch=taps_pitch, nleft=p.pl * channels, wide=wide,
        sn=0, sc=0, sy=0, wo=0, dn=0, dc=0, dy=0,
    )  # fmt: skip
    scratch = -(-icg * entries // 8) * 64 + ocg * taps_pitch + (2 + held * icg) * pitch + tile.rows * width * stored_bytes(p.dst)
    before, after = (_by_element(columns, channels) for columns in column_maps(p, p.pr))
    tables = np.concatenate([np.array(made, np.int64).reshape(-1), row_map(p)]), np.concatenate([before, after])
    return shape, head, tables, -(-scratch // 64) * 64


def _band_rows(p: Problem, lanes: int, blocks: int) -> int:
    """Rows of a unit of work, which takes `cost.UNIT_SECONDS` at most."""
    row_seconds = costs.panel_seconds(p, lanes) / (max(p.n, 1) * p.g * blocks * p.oh)
    return min(_BAND, int(costs.UNIT_SECONDS / row_seconds))


def _by_element(columns: np.ndarray, channels: int) -> np.ndarray:
    """A column map of pixels as one of their elements.

    Examples
    --------
    >>> _by_element(np.array([2, -1]), 3).tolist()
    [6, 7, 8, -1, -1, -1]
    """
    elements = columns[:, None] * channels + np.arange(channels)
    return np.where(columns[:, None] < 0, -1, elements).reshape(-1)
