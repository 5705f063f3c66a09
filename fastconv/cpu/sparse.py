"""sparse: filters most of whose taps are zero, one channel each: the others, one after another, at a tile of rows x vectors.

A motion blur, a ring, a filter with holes: a vector is loaded for every multiply-add, where `direct` loads one for many, so that it pays
where at most about a third of the taps count.  Order of accumulation per output: the taps that are not zero, ky, then kx, from the bias.

A zero tap times a pixel that is not finite is NaN, so images that have such a pixel are left to the plan that is made without this
knowledge; the calls of dialects that multiply no zero taps repair what it makes of them.
"""

from __future__ import annotations

import re
from collections import namedtuple
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, not_computed, parse_epilogue
from .border import Span, border_row, column_maps, row_map, too_large
from .identity_tile import row_is_finite
from .memory import copy, fill_row, integers, peek, poke, unrolled_by_hand
from .runs import Run, runs_of
from .simd import KINDS
from .sparse_tile import sparse_tile
from .stage import is_native
from .target import Target
from .threads import Job, Region
from .tile import TAPS_AT, fitting
from .values import finish_values

CASES = ("ih40iw150_k9_p4_reflect_f32_structure=sparse(9)", "n2_g3_ic3ih30iw90_oc3kh4kw7_sh2sw1_d2_p3_wrap_f64_structure=sparse(5)",
         "ih33iw300_kh9kw12_p11_f32_bias_structure=sparse(12)", "ih70iw64_kh7kw1_f64_structure=sparse(2)",
         "ih3iw200_k5_p4_edge_f32_structure=sparse(0)", "ih3iw200_k3_f32_structure=sparse(11)")  # fmt: skip


class Tile(NamedTuple):
    """``rows x vecs`` accumulators."""

    registers: int  # of the target, at least
    rows: int
    vecs: int


TILES = (Tile(32, rows=4, vecs=4), Tile(16, rows=2, vecs=4))

_BAND = 32  # rows of output of one unit of work at most

# The integers that the kernel receives: these, both spans, the runs, the row map, the two column maps.
Head = namedtuple(
    "Head", "oc ih iw oh ow step reach bands band_rows entries taps words runs nleft left_wide right_wide fills sn sc sy dn dc dy"
)
_TABLES_AT, _SPAN_BYTES, _RUN_BYTES = 8 * len(Head._fields), 8 * len(Span._fields), 8 * len(Run._fields)


def _factory(kind: str, lanes: int, rows: int, vecs: int, fma: int) -> Any:
    """The band kernel: units ``u0 .. u1 - 1`` of work, a unit being (image, channel, band of rows).

    Rows are read in place through a table of addresses, where tiles reach beyond the left or right edge from two padded strips, as
    `direct` does.  Each band looks at its share of the image's rows; if a pixel is not finite, the number behind the addends becomes 1.
    Weights are ``taps`` numbers and as many pairs of places, see :func:`fastconv.cpu.sparse_tile.sparse_tile`.
    Workspace: three row tables (image, left strip, right strip), first addend, fill row, strips, tile.
    """
    spec, size = (kind, lanes, rows, vecs, fma), KINDS[kind][2]
    width = lanes * vecs

    def sparse(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        left_span = at.extents + _TABLES_AT
        runs = left_span + 2 * _SPAN_BYTES
        row_map = runs + e.runs * _RUN_BYTES
        maps = row_map + ((e.oh - 1) * e.step + e.reach + e.nleft) * 8
        fill = peek(kind, at.values)
        table = at.workspace + index * at.scratch
        start = table + 3 * e.entries * 8
        fill_at = start + TAPS_AT
        left_strip = fill_at + (e.iw + lanes) * size
        right_strip = left_strip + e.entries * e.left_wide * size
        tile_at = right_strip + e.entries * e.right_wide * size
        fill_row(kind, lanes, fill_at, e.iw if e.fills else 0, fill)
        for u in range(u0, u1):
            plane, band = u // e.bands, u % e.bands
            n, o = plane // e.oc, plane % e.oc
            j0 = band * e.band_rows
            j1 = min(j0 + e.band_rows, e.oh)
            image, to = at.src + n * e.sn + o * e.sc, at.dst + n * e.dn + o * e.dc
            taps = at.wei + o * e.words * size
            places = taps + (e.taps * size + 7) // 8 * 8
            poke(kind, start, peek(kind, at.bias + o * size))
            used = (j1 - j0 - 1) * e.step + e.reach
            for r in range(max(used, (rows - 1) * e.step + e.reach)):
                # a tile's rows beyond the last one are computed from any row, and not used
                row = peek("i64", row_map + (j0 * e.step + r) * 8) if r < used else -1
                row_at = image if r >= used else fill_at if row < 0 else image + row * e.sy
                left, right = left_strip + r * e.left_wide * size, right_strip + r * e.right_wide * size
                poke("i64", table + r * 8, row_at)
                poke("i64", table + (e.entries + r) * 8, left)
                poke("i64", table + (2 * e.entries + r) * 8, right)
                if row < 0:
                    fill_row(kind, lanes, left, e.left_wide, fill)
                    fill_row(kind, lanes, right, e.right_wide, fill)
                elif e.left_wide + e.right_wide:
                    border_row(kind, lanes, left, row_at, left_span, maps, fill)
                    border_row(kind, lanes, right, row_at, left_span + _SPAN_BYTES, maps, fill)
            for y in range(e.ih * j0 // e.oh, e.ih * j1 // e.oh):
                if row_is_finite(kind, lanes, image + y * e.sy, e.iw) == 0:
                    poke(kind, at.bias + e.oc * size, peek(kind, at.values + 5 * size))
            for j in range(j0, j1, rows):
                # the last tile overlaps the one before; it writes the same values again
                jt = max(min(j, j1 - rows), j0)
                aside = jt + rows > j1
                for r in range(e.runs):
                    run = integers(runs + r * _RUN_BYTES, Run)
                    for x in range(run.tiles if aside else 1):
                        line = to + jt * e.dy + run.first + x * width * size
                        sparse_tile(spec, start, taps, places, e.taps, table + run.table + (jt - j0) * e.step * 8, e.step * 8,
                                    run.xoff + x * width * size, tile_at if aside else line, width * size if aside else e.dy,
                                    1 if aside else run.tiles)  # fmt: skip
                        if aside:
                            for row in range(j1 - jt):
                                copy(kind, lanes, line + row * e.dy, tile_at + row * width * size, width)

    return sparse


def taps_of(structure: str) -> int | None:
    """How many taps of a filter differ from zero at most, None where a structure does not say."""
    found = re.fullmatch(r"sparse\((\d+)\)", structure)
    return int(found[1]) if found else None


def reject(p: Problem, t: Target) -> str | None:
    """Forward float sums of planes by filters of which most taps are zero, side by side; rows of a tile's width and more."""
    reason = not_computed(p, "fwd")
    if reason is not None:
        return reason
    if taps_of(p.structure) is None:
        return f"for weights with zeros, not {p.structure}"
    if p.precision == "strict":
        return "precision strict asks for direct sums"
    if p.acc not in ("f32", "f64") or not p.src == p.dst == p.acc:
        return f"computes f32 and f64, not {p.src} to {p.dst}"
    if not p.g == p.ic == p.oc or (p.src_layout == "nhwc" and p.ic > 1):
        return "for filters of one channel each, in planes"
    if parse_epilogue(p.epilogue).activation is not None:
        return f"does not fuse {p.epilogue}"
    if p.strides[1] != 1:
        return "for columns side by side"
    width = _tile(t).vecs * t.lanes(DTYPES[p.acc].itemsize)
    if p.ow < width:
        return f"for rows of {width} results and more"
    return too_large(p, _layout(p, t, DTYPES[p.acc].itemsize)[-1])


def cost(p: Problem, t: Target) -> float:
    return costs.sparse_seconds(p, t.lanes(DTYPES[p.acc].itemsize), _most_taps(p))


def most_kernels(t: Target) -> int:
    return 1


def _most_taps(p: Problem) -> int:
    return min(taps_of(p.structure) or 0, p.kh * p.kw)


def _tile(t: Target) -> Tile:
    return fitting(TILES, t)[0]


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A plan that holds what differs from zero, and the weights, with a child for images that are not finite."""
    dtype, tile = DTYPES[p.acc], _tile(t)
    lanes = t.lanes(dtype.itemsize)
    name = f"sparse_{p.acc}_{tile.rows}x{tile.vecs}_{lanes}"
    region = Region(name, _factory, (p.acc, lanes, tile.rows, tile.vecs, int(t.fma)), p.acc)
    head, tables, scratch = _layout(p, t, dtype.itemsize)
    child = plan(p.replace(structure="full"), t, threads)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        def weights(packed: np.ndarray) -> np.ndarray:
            return child.pack(packed[..., -p.kh * p.kw :].reshape(p.oc, 1, p.kh, p.kw))

        direct = child.prepare(src, weights(packed), dst, fill)
        if not (is_native(src, p.acc) and is_native(dst, p.acc) and np.isfinite(fill)):
            return lambda src, packed, bias, dst: direct(src, weights(packed), bias, dst)
        (sn, sc, sy, _), (dn, dc, dy, _) = src.strides, dst.strides
        e = head._replace(words=packed.shape[-1], sn=sn, sc=sc, sy=sy, dn=dn, dc=dc, dy=dy)
        extents = np.concatenate([np.array(e, np.int64), tables])
        summed = region.launcher(extents, finish_values(p, fill), scratch, p.n * p.oc * e.bands, own.threads, cost(p, t), src, packed, dst)

        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            addends = np.zeros(p.oc + 1, dtype)
            if bias is not None:
                addends[:-1] = bias
            summed(src, packed, addends, dst)
            if addends[-1]:
                direct(src, weights(packed), bias, dst)

        return launch

    return Plan(problem=p, algorithm="sparse", kernel=name, cost=cost(p, t), pack_weights=_pack, prepare_launch=prepare,
                workspace=scratch * threads + child.workspace, threads=threads, children=(child,))  # fmt: skip


def _pack(p: Problem, wei: np.ndarray) -> np.ndarray:
    """Of each filter the taps that are not zero, zeros behind them; their places in bytes as 64-bit integers; the weights."""
    dtype, most = DTYPES[p.acc], _most_taps(p)
    filters = wei.reshape(p.oc, p.kh * p.kw).astype(dtype)
    counts = np.count_nonzero(filters, axis=1)
    if counts.max(initial=0) > most or not np.isfinite(filters).all():
        raise ValueError(f"weights must be finite and of structure {p.structure} as planned, or the plan made without it: {p}")
    # a stable sort puts the taps before the zeros, which are taps of the filter's first pixel
    order = np.argsort(filters == 0, axis=1, kind="stable")[:, :most]
    taps = np.take_along_axis(filters, order, 1)
    ky, kx = np.divmod(np.where(taps == 0, 0, order), p.kw)
    places = np.stack([8 * p.dh * ky, dtype.itemsize * p.dw * kx], -1).astype(np.int64).reshape(p.oc, -1)
    even = np.zeros((p.oc, -most % (8 // dtype.itemsize)), dtype)  # so that integers are multiples of their size
    return np.concatenate([taps, even, places.view(dtype), filters], axis=1).reshape(p.oc, 1, 1, -1)


def _layout(p: Problem, t: Target, size: int) -> tuple[Head, np.ndarray, int]:
    """The kernel's integers but for the strides; its tables; bytes of workspace of one thread."""
    tile, lanes = _tile(t), t.lanes(size)
    width, step, reach = lanes * tile.vecs, p.strides[0], (p.kh - 1) * p.dh + 1
    band_rows = min(_BAND, -(-p.oh // tile.rows) * tile.rows)
    entries = (max(band_rows, tile.rows) - 1) * step + reach
    runs, *spans = runs_of(p, 1, width, width + (p.kw - 1) * p.dw, entries * 8, size, 0)
    wide = [strip.before + strip.inside + strip.after for strip in spans]
    before, after = column_maps(p, max(strip.after_at + strip.after for strip in spans))
    rows = row_map(p)[: (p.oh - 1) * step + reach]
    head = Head(
        oc=p.oc, ih=p.ih, iw=p.iw, oh=p.oh, ow=p.ow, step=step, reach=reach, bands=-(-p.oh // band_rows), band_rows=band_rows,
        entries=entries, taps=_most_taps(p), words=0, runs=len(runs), nleft=p.pl, left_wide=wide[0], right_wide=wide[1],
        fills=int(rows.min() < 0), sn=0, sc=0, sy=0, dn=0, dc=0, dy=0,
    )  # fmt: skip
    tables = np.concatenate([np.array([*spans[0], *spans[1], *(word for run in runs for word in run)]), rows, before, after])
    scratch = 24 * entries + TAPS_AT + size * (p.iw + lanes + entries * sum(wide) + tile.rows * width)
    return head, tables, -(-scratch // 64) * 64
