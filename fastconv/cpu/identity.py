"""identity: filters of one tap that is 1, and of none, whose sums are the image itself and 0: a copy, and a look at every pixel.

The same bits as the sums of the direct formula, where the image is finite: a tap of 0 times infinity is NaN, so images that are not, and
borders, are left to the plan that is made without this knowledge.  Each sum starts with 0, so -0 comes out as 0.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, not_computed
from .border import Span, border_row, column_maps, row_map, too_large
from .identity_tile import row_is_finite, settle_row
from .memory import fill_row, integers, peek, poke, unrolled_by_hand
from .simd import KINDS
from .stage import is_native
from .target import Target
from .threads import Job, Region
from .values import finish_values

CASES = ("ih40iw70_k5_p2_reflect_f32_structure=identity", "n2_g3_ic3ih30iw50_oc3kh3kw7_p4_f32_structure=identity",
         "ih20iw9_k3_d2_p3_wrap_f64_structure=identity", "ih40iw70_k5_f32_structure=zero")  # fmt: skip

_BAND = 32  # rows of output of one unit of work

# The integers that the kernel receives: these, the row map, the two column maps.
Head = namedtuple("Head", "oc ih iw oh ow kh kw dh dw pl bands padded nleft wo wy wx sn sc sy dn dc dy")
_TABLES_AT = 8 * len(Head._fields)


def _factory(kind: str, lanes: int) -> Any:
    """The band kernel: units ``u0 .. u1 - 1`` of work, a unit being (image, channel, band of rows).

    Row j of the result is row ``j + ty dh`` of the padded image from column ``tx dw`` on, (ty, tx) being the tap.  With it the
    band looks at its share of the image's rows, and writes 1 to where the bias lies if a pixel is not finite.
    Workspace: a :data:`Span`.
    """
    size = KINDS[kind][2]

    def identity(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        row_map = at.extents + _TABLES_AT
        maps = row_map + (e.padded + e.nleft) * 8
        fill, nothing = peek(kind, at.values), peek(kind, at.values + 4 * size)
        span = at.workspace + index * at.scratch
        for u in range(u0, u1):
            plane, band = u // e.bands, u % e.bands
            n, o = plane // e.oc, plane % e.oc
            ty, tx = -1, 0
            for ky in range(e.kh):
                for kx in range(e.kw):
                    if peek(kind, at.wei + o * e.wo + ky * e.wy + kx * e.wx) != 0:
                        ty, tx = ky, kx
            start = tx * e.dw - e.pl
            end = start + e.ow
            before, after = max(min(end, 0) - start, 0), max(end - max(start, e.iw), 0)
            poke("i64", span, before)
            poke("i64", span + 8, start)
            poke("i64", span + 16, e.ow - before - after)
            poke("i64", span + 24, max(start, 0))
            poke("i64", span + 32, after)
            poke("i64", span + 40, max(start - e.iw, 0))
            image, to = at.src + n * e.sn + o * e.sc, at.dst + n * e.dn + o * e.dc
            for j in range(band * _BAND, min((band + 1) * _BAND, e.oh)):
                line = to + j * e.dy
                row = peek("i64", row_map + (j + ty * e.dh) * 8) if ty >= 0 else -1
                if row >= 0:
                    border_row(kind, lanes, line, image + row * e.sy, span, maps, fill)
                    settle_row(kind, lanes, line, e.ow)
                else:
                    fill_row(kind, lanes, line, e.ow, fill + nothing if ty >= 0 else nothing)
                for y in range(e.ih * j // e.oh, e.ih * (j + 1) // e.oh):
                    if row_is_finite(kind, lanes, image + y * e.sy, e.iw) == 0:
                        poke(kind, at.bias, peek(kind, at.values + 5 * size))

    return identity


def reject(p: Problem, t: Target) -> str | None:
    """Forward float sums of filters of one tap that is 1, or of none, one channel each, in planes, without strides."""
    reason = not_computed(p, "fwd")
    if reason is not None:
        return reason
    if p.structure not in ("identity", "zero"):
        return f"for weights of one tap that is 1 or of none, not {p.structure}"
    if p.precision == "strict":
        return "precision strict asks for direct sums"
    if p.acc not in ("f32", "f64") or not p.src == p.dst == p.acc:
        return f"copies f32 and f64, not {p.src} to {p.dst}"
    if p.epilogue or not p.g == p.ic == p.oc or (p.src_layout == "nhwc" and p.ic > 1):
        return "for filters of one channel each, in planes, without an epilogue"
    if (p.sh if p.oh > 1 else 1, p.sw if p.ow > 1 else 1) != (1, 1):
        return "for strides of 1"
    return too_large(p, 0)


def cost(p: Problem, t: Target) -> float:
    return costs.identity_seconds(p)


def most_kernels(t: Target) -> int:
    return 1


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A plan with a child for images that are not finite."""
    lanes = t.lanes(DTYPES[p.acc].itemsize)
    name = f"identity_{p.acc}_{lanes}"
    region = Region(name, _factory, (p.acc, lanes), p.acc)
    child = plan(p.replace(structure="full"), t, threads)
    bands = -(-p.oh // _BAND)
    tables = np.concatenate([row_map(p), *column_maps(p, p.pr)])

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        wei = np.zeros((p.oc, 1, p.kh, p.kw), DTYPES[p.acc])
        direct = child.prepare(src, child.pack(wei), dst, fill)
        if not (is_native(src, p.acc) and is_native(dst, p.acc) and np.isfinite(fill)):
            return lambda src, packed, bias, dst: direct(src, child.pack(packed), bias, dst)
        (sn, sc, sy, _), (wo, _, wy, wx), (dn, dc, dy, _) = src.strides, wei.strides, dst.strides
        head = Head(oc=p.oc, ih=p.ih, iw=p.iw, oh=p.oh, ow=p.ow, kh=p.kh, kw=p.kw, dh=p.dh, dw=p.dw, pl=p.pl, bands=bands,
                    padded=p.ih_padded, nleft=p.pl, wo=wo, wy=wy, wx=wx, sn=sn, sc=sc, sy=sy, dn=dn, dc=dc, dy=dy)  # fmt: skip
        extents = np.concatenate([np.array(head, np.int64), tables])
        copied = region.launcher(extents, finish_values(p, fill), 8 * len(Span._fields) + 16, p.n * p.oc * bands, own.threads,
                                 cost(p, t), src, wei, dst)  # fmt: skip

        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            infinite = np.zeros(1, dst.dtype)
            copied(src, packed, infinite, dst)
            if infinite[0]:
                direct(src, child.pack(packed), None, dst)

        return launch

    return Plan(problem=p, algorithm="identity", kernel=name, cost=cost(p, t), pack_weights=_pack, prepare_launch=prepare,
                workspace=child.workspace, threads=threads, children=(child,))  # fmt: skip


def _pack(p: Problem, wei: np.ndarray) -> np.ndarray:
    packed = np.ascontiguousarray(wei, DTYPES[p.acc])
    taps = (packed != 0).sum((1, 2, 3))
    if not (taps.max() == 0 if p.structure == "zero" else (taps == 1).all() and (packed.sum((1, 2, 3)) == 1).all()):
        raise ValueError(f"weights must be of structure {p.structure} as planned, or the plan made without it: {p}")
    return packed
