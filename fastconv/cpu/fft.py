"""fft: large kernels of one channel, by overlap-save: frames are transformed, multiplied by the kernel's spectrum, and transformed back.

Wins where a kernel has more taps than a transform has steps.  Frames are anchored at the image's origin and chosen from the extents of
one image, so no result depends on threads, bands or the batch.  The kernel's spectrum is made when weights are packed.
What a transform cannot do is repaired: see :mod:`fastconv.cpu.fft_repair`.
Error of each output: ``|error| <= C u max|x| sum|w|``, max over the image, since the rounding errors of a frame spread over all of it,
with the C of `fft_repair.MOST_ERROR`.  Integers are transformed in float64 where that bound, by their types and the number of taps, stays
below 1/2: their sums are exact, and wrap as integers do.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, not_computed, parse_epilogue
from .border import border_row
from .fft_frame import Frame, choose, passes, twist
from .fft_phases import BACK, COLUMNS, ROWS, Head, Phases
from .fft_repair import repair, rounds_exactly
from .fft_tile import Pass, fft_load, fft_middle, fft_pass, fft_store, fft_turn
from .memory import copy, fill_row, integers, peek, poke, unrolled_by_hand
from .simd import KINDS
from .stage import is_native
from .target import Target
from .threads import Job, Region
from .values import finish_values

CASES = ("ih96_k31_p15_f32", "ih70_k21_f64", "ih40_k39_p38_f32", "n2_g2_ic2ih50iw61_oc4k17_reflect_p8_f32_bias+relu")

HEAD = 16  # elements before a packed spectrum: the factor of results, sum(w), sum|w|, what the weights were divided by, max|w|
_PASSES_AT, _PASS_BYTES = 8 * len(Head._fields), 8 * len(Pass._fields)
_VALUES = 8  # of `finish_values`, before the twiddles


def _factory(kind: str, lanes: int, fma: int) -> Any:
    """The kernel: units ``u0 .. u1 - 1`` of work, a unit being (image, output channel, block), or some items of one phase of a block.

    Phases of a frame of ``2 m`` rows, folded into m: columns, ``lanes`` side by side, are transformed and turned, into groups of ``lanes``
    rows, ``[m / lanes][nx][parts][lanes]``; these are transformed, multiplied by the packed spectrum and transformed back;
    columns are turned back, transformed back and stored where results are wanted.  Columns that reach beyond the image, and results
    that do not fill a vector, go through a padded strip.
    Workspace: column, strip, vectors (constant, first addend, largest), span, four tables and the factors of rows, a row of the constant,
    spectrum.
    """
    spec = (kind, lanes, fma)
    size = KINDS[kind][2]
    vector, bits = lanes * size, f"i{8 * size}"
    pitch = 2 * vector
    turned = lanes * pitch

    def fft(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at, zero = integers(job, Job), 0
        e = integers(at.extents, Head)
        ny = 2 * e.m
        strips, groups = e.nx // lanes, e.m // lanes
        row_map = at.extents + _PASSES_AT + 2 * (e.column_passes + e.row_passes) * _PASS_BYTES
        maps = row_map + (e.map_rows + e.nleft) * 8
        twists = at.values + _VALUES * size
        tables = twists + ny * size
        column = at.workspace + index * at.scratch
        strip = column + e.m * pitch
        shift_at = strip + ny * vector
        start_at = shift_at + vector
        seen_at = start_at + vector
        span_at = seen_at + vector
        rows = span_at + 64
        strip_rows = rows + ny * 8
        lines = strip_rows + ny * 8
        strip_lines = lines + ny * 8
        factors = strip_lines + ny * 8
        fill_at = factors + ny * size
        own = (fill_at + e.nx * size + 63) // 64 * 64
        fill = peek(kind, at.values)
        none = peek(kind, at.values + 4 * size)
        shift = fill if e.shifted else none
        fill_row(kind, lanes, shift_at, lanes, shift)
        fill_row(kind, lanes, fill_at, e.nx, fill)
        for r in range(ny):
            poke("i64", strip_rows + r * 8, strip + r * vector)
        for u in range(u0, u1):
            plane, block = e.plane, e.block
            if e.chunk == 0:
                plane, block = u // e.blocks, u % e.blocks
            n, o = plane // e.oc, plane % e.oc
            y0, x0 = block // e.across * e.step_y, block % e.across * e.step_x
            wei = at.wei + o * e.wo
            spectrum = e.spectrum + plane * e.spectrum_bytes if e.spectrum else own
            source = at.src + n * e.sn + o // e.ocg * e.sc
            result = at.dst + n * e.dn + o * e.dc
            fill_row(bits, lanes, seen_at, lanes, zero)
            if e.first == COLUMNS:
                for r in range(ny):
                    row = peek("i64", row_map + (y0 + r) * 8)
                    poke("i64", rows + r * 8, fill_at if row < 0 else source + row * e.sy + (e.first_x + x0) * size)
            tall, wide = min(e.step_y, e.out_y - y0), min(e.step_x, e.out_x - x0)
            if e.last > BACK:
                scale = peek(kind, wei)
                start = (peek(kind, at.bias + o * size) if e.bias else none) + peek(kind, wei + size) * shift
                fill_row(kind, lanes, start_at, lanes, start)
                for r in range(ny):
                    y, factor = -1, scale
                    if r < tall - e.lead_y:
                        y = y0 + e.lead_y + r
                    elif r >= ny - e.lead_y and r - ny + e.lead_y < tall:
                        y, factor = r - ny + e.lead_y, -scale
                    poke("i64", lines + r * 8, result + y * e.dy if y >= 0 else 0)
                    poke("i64", strip_lines + r * 8, strip + r * vector if y >= 0 else 0)
                    poke(kind, factors + r * size, factor)
            # strips of results: those of `before` columns of the frame, and those from column `after` on
            before, after = max(wide - e.lead_x, 0), e.nx - e.lead_x
            left = (before + lanes - 1) // lanes
            right = max(after // lanes, left)
            wanted = left + max((after + min(e.lead_x, wide) + lanes - 1) // lanes - right, 0)
            for phase in range(e.first, e.last):
                i0, i1 = 0, strips if phase == COLUMNS else groups if phase == ROWS else wanted
                if e.chunk:
                    i0, i1 = u * e.chunk, min((u + 1) * e.chunk, i1)
                for i in range(i0, i1):
                    s, data, list_at, many = i, column, 0, e.column_passes
                    if phase == COLUMNS:
                        first, table, xoff = e.first_x + x0 + s * lanes, rows, s * vector
                        if e.vacant and first >= e.iw:  # nothing but zeros
                            for g in range(groups):
                                fill_row(kind, lanes, spectrum + g * e.group + s * turned, turned // size, none)
                            continue
                        if first < 0 or first + lanes > e.iw:
                            table, xoff = strip_rows, 0
                            inside = max(min(first + lanes, e.iw) - max(first, 0), 0)
                            outside = max(min(-first, lanes), 0)
                            poke("i64", span_at, outside)
                            poke("i64", span_at + 8, first)
                            poke("i64", span_at + 16, inside)
                            poke("i64", span_at + 24, max(first, 0))
                            poke("i64", span_at + 32, lanes - outside - inside)
                            poke("i64", span_at + 40, max(first - e.iw, 0))
                            for r in range(ny):
                                row = peek("i64", row_map + (y0 + r) * 8)
                                if row < 0:
                                    fill_row(kind, lanes, strip + r * vector, lanes, fill)
                                else:
                                    border_row(kind, lanes, strip + r * vector, source + row * e.sy, span_at, maps, fill)
                        fft_load(spec, column, e.m, table, xoff, twists, shift_at, seen_at)
                    elif phase == ROWS:
                        data, list_at, many = spectrum + i * e.group, e.column_passes, e.row_passes
                    else:
                        s = i if i < left else right + i - left
                        list_at = e.column_passes + 2 * e.row_passes
                        fft_turn(spec, column, turned, spectrum + s * turned, e.group, groups)
                    for turn in range(e.same if phase == ROWS else 0, e.turns if phase == ROWS else 1):
                        entry = at.extents + _PASSES_AT + (list_at + turn * (many + 1)) * _PASS_BYTES
                        if turn:
                            power = wei + 3 * size if e.same else 0
                            fft_middle(spec, data, wei + HEAD * size + i * e.group, entry - 2 * _PASS_BYTES, power)
                        inverse = 1 if turn or phase == BACK else 0
                        for number in range(many - (1 if phase == ROWS and e.turns > 1 else 0)):
                            fft_pass(spec, data, inverse, entry + number * _PASS_BYTES, tables)
                    if phase == COLUMNS:
                        fft_turn(spec, spectrum + s * turned, e.group, column, turned, groups)
                    elif phase == BACK:
                        for side in range(2):
                            low, high = (after if side else 0), (after + min(e.lead_x, wide) if side else before)
                            to = -after if side else x0 + e.lead_x
                            low, high = max(s * lanes, low), min((s + 1) * lanes, high)
                            if low < high:
                                whole = high - low == lanes
                                fft_store(spec, column, e.m, lines if whole else strip_lines, (low + to) * size if whole else 0,
                                          twists, factors, start_at, e.finish * (at.values + size))  # fmt: skip
                                for r in range(0 if whole else ny):
                                    line = peek("i64", lines + r * 8)
                                    if line:
                                        copy(kind, lanes, line + (low + to) * size, strip + r * vector + (low - s * lanes) * size,
                                             high - low)  # fmt: skip
            largest = peek("i64", at.extents + e.seen + u * 8)
            for lane in range(lanes):
                largest = max(largest, peek(bits, seen_at + lane * size))
            poke("i64", at.extents + e.seen + u * 8, largest)

    return fft


def reject(p: Problem, t: Target) -> str | None:
    """Forward, dense, filters of one channel, of floats or small integers."""
    reason = not_computed(p, "fwd", transforms=True)
    if reason is not None:
        return reason
    if p.acc not in ("f32", "f64") and not (p.acc == p.dst and all(DTYPES[name].kind in "iu" for name in (p.src, p.wei, p.acc))):
        return f"sums in f32 or f64, or of integers, not {p.acc} of {p.src} and {p.wei}"
    if p.ic != p.g:
        return f"filters of one channel, not of {p.ic // p.g}"
    if max(p.sh, p.sw, p.dh, p.dw) > 1:
        return f"dense windows at every pixel, not strides {p.sh, p.sw} and dilations {p.dh, p.dw}"
    exact = p.acc[0] in "iu"
    if parse_epilogue(p.epilogue).activation not in (None, "relu", "relu6", "leaky_relu") or (exact and p.epilogue):
        return f"does not fuse {p.epilogue}"
    if exact and not rounds_exactly(_largest(p.src), p.taps * _largest(p.wei)):
        return f"sums of {p.taps} products of {p.src} and {p.wei} are too large to be exact in f64"
    if 8 * (p.ih_padded + p.iw_padded) > costs.MOST_WORKSPACE:
        return f"its maps of {p.ih_padded} x {p.iw_padded} rows and columns take more than {costs.MOST_WORKSPACE >> 20} MiB"
    if _chosen(p, t) is None:
        return f"needs spectra of more than {costs.MOST_SPECTRUM >> 20} MiB"
    return None


def _largest(name: str) -> int:
    """The largest absolute value of an integer type."""
    limits = np.iinfo(DTYPES[name])
    return max(int(limits.max), -int(limits.min))


def cost(p: Problem, t: Target) -> float:
    """Frames there and back."""
    chosen = _chosen(p, t)
    assert chosen is not None
    native = p.acc == p.src == p.dst == floating(p)
    return costs.fft_seconds(p, chosen[0], chosen[0] / chosen[1].blocks, native) + native * costs.staged_seconds(p)


def floating(p: Problem) -> str:
    """The type that is transformed: float64 for integers, whose sums are rounded to the integers that they are."""
    return p.acc if p.acc[0] == "f" else "f64"


def most_kernels(t: Target) -> int:
    return 1


def _chosen(p: Problem, t: Target) -> tuple[float, Frame] | None:
    size = DTYPES[floating(p)].itemsize
    return choose((p.ih, p.kh, p.pt, p.pb), (p.iw, p.kw, p.pl, p.pr), p.border, t.lanes(size), size)


class _Transform:
    """The kernel of a problem and what it is given: everything that does not depend on arrays."""

    def __init__(self, p: Problem, t: Target, threads: int) -> None:
        chosen = _chosen(p, t)
        assert chosen is not None
        kind = floating(p)
        self.p, self.threads = p.replace(wei=kind, dst=kind, acc=kind) if kind != p.acc else p, threads
        seconds, self.frame = chosen
        self.seconds = seconds / self.frame.blocks  # of a frame
        self.size = DTYPES[kind].itemsize
        self.lanes = lanes = t.lanes(self.size)
        spec = (kind, lanes, int(t.fma))
        self.region = Region(f"fft_{kind}_{lanes}", _factory, spec, kind)
        self.spectrum = self.frame.spectrum(lanes, self.size)
        ny, nx = self.frame.y.frame, self.frame.x.frame
        units = p.n * p.oc * self.frame.blocks
        uneven = units < costs.FFT_BLOCKS_A_THREAD * threads and units % threads > 0
        # the threads share the phases of one frame after the other
        self.split = self.spectrum > costs.FFT_MOST_OWN or (uneven and self.spectrum > costs.FFT_LEAST_SHARED)
        own = 0 if self.split else self.spectrum
        vector = lanes * self.size
        scratch = (ny + ny + 3) * vector + 4 * 8 * ny + (ny + nx) * self.size + 128 + own
        self.scratch = -(-scratch // 64) * 64
        self.wo = HEAD + self.spectrum // self.size  # elements of a packed filter
        pitch = 2 * vector
        down, up, column_table = passes(ny // 2, pitch, 0, self.size)
        across, back, row_table = passes(nx, pitch, len(column_table), self.size)
        self._packing: deque[Phases] = deque(maxlen=1)
        self.passes = np.array([*down, *across, *back, *up], np.int64).reshape(-1)
        self.tables = np.concatenate([twist(ny), column_table, row_table])
        self.head = Head(*[0] * len(Head._fields))._replace(
            last=BACK + 1, turns=2, blocks=self.frame.blocks, across=self.frame.x.blocks, oc=p.oc, ocg=p.oc // p.g, m=ny // 2, nx=nx,
            group=self.frame.group(lanes, self.size), step_y=self.frame.y.step, step_x=self.frame.x.step, lead_y=self.frame.y.lead,
            lead_x=self.frame.x.lead, out_y=self.frame.y.out, out_x=self.frame.x.out, shifted=int(self.frame.shifted),
            vacant=int(self.frame.x.whole),
            finish=int(parse_epilogue(p.epilogue).activation is not None), bias=int(parse_epilogue(p.epilogue).bias),
            column_passes=len(down), row_passes=len(across), wo=self.wo * self.size,
        )  # fmt: skip

    @property
    def workspace(self) -> int:
        """Bytes of one run: the threads' own, and a shared spectrum."""
        return self.scratch * self.threads + (self.spectrum + 64 if self.split else 0)

    def values(self, fill: Any) -> np.ndarray:
        """The kernel's scalars and tables."""
        return np.concatenate([finish_values(self.p, fill), self.tables.astype(DTYPES[self.p.acc])])

    def pack(self, p: Problem, wei: np.ndarray) -> np.ndarray:
        """For each filter ``HEAD`` numbers and the spectrum of the weights, scaled so that no product overflows; then the weights."""
        dtype = DTYPES[floating(p)]
        filters = np.ascontiguousarray(wei.reshape(p.oc, 1, p.kh, p.kw), dtype)
        count = p.oc * self.wo
        memory = np.empty(count + filters.size + 64 // self.size, dtype)
        first = -memory.ctypes.data % 64 // self.size
        packed = memory[first : first + count + filters.size]
        packed[count:] = filters.reshape(-1)
        heads = packed[:count].reshape(p.oc, self.wo)[:, :HEAD]
        with np.errstate(all="ignore"):
            total = np.abs(filters).sum((1, 2, 3), dtype=np.float64)
            exponent = np.frexp(total)[1]
            points = self.head.m * self.head.nx
            shift = points.bit_length()
            heads[:, 0] = np.ldexp(np.ldexp((total > 0).astype(np.float64), shift) / points, exponent)
            heads[:, 1] = filters.sum((1, 2, 3), dtype=np.float64)
            heads[:, 2] = total
            heads[:, 3] = np.ldexp(np.ones(p.oc), exponent + shift)
            heads[:, 4] = np.abs(filters).max((1, 2, 3))
            scaled = np.ldexp(filters, -(exponent + shift)[:, None, None, None])
            scaled = np.where(np.isfinite(scaled), scaled, dtype.type(0))
        arrays = scaled, filters, None, filters
        try:
            phases = self._packing.pop()
        except IndexError:
            phases = self._phases_of_filters(arrays)
        phases(arrays, packed.ctypes.data + HEAD * self.size)
        self._packing.append(phases)
        return packed.reshape(1, 1, 1, -1)

    def _phases_of_filters(self, arrays: tuple[Any, ...]) -> Phases:
        """The launches that transform filters as they transform images, up to the product."""
        p, own = self.p, self.size
        head = self.head._replace(
            last=ROWS + 1, turns=1, ocg=1, blocks=1, across=1, step_y=0, step_x=0, lead_y=0, lead_x=0, iw=p.kw,
            spectrum_bytes=self.wo * own, bias=0, finish=0, shifted=0, vacant=1, sc=p.kh * p.kw * own, sy=p.kw * own,
        )  # fmt: skip
        rows = np.arange(self.frame.y.frame)
        rows[p.kh :] = -1
        none = np.full(self.frame.x.frame, -1)
        return Phases(self, head, (rows, none[:0], none), self.values(0), arrays, 1)


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A plan whose child, for one plane, computes what no transform can."""
    transform = _Transform(p, t, threads)
    child = plan(p.replace(n=1, g=1, ic=1, oc=1, precision="strict"), t, threads)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        transform.region.kernel()
        values = transform.values(fill)
        kind = floating(p)
        in_place = is_native(src, kind) and is_native(dst, kind)
        idle: deque[Phases] = deque(maxlen=1)  # as many as callers at once would need are made anew

        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            with np.errstate(all="ignore"):
                if in_place:
                    seen = _in_place(transform, (src, packed, bias, dst), values, idle)
                else:
                    seen = _staged(transform, src, packed, bias, dst, values, kind != p.acc)
                repair(p, transform.frame, child, seen, src, unpacked(transform, packed), bias, dst, fill)

        return launch

    y, x = transform.frame.y, transform.frame.x
    name = f"fft_{floating(p)}_{transform.lanes}:{y.blocks}x{x.blocks}_frames_of_{y.frame}x{x.frame}" + "_shared" * transform.split
    return Plan(problem=p, algorithm="fft", kernel=name, cost=cost(p, t), pack_weights=transform.pack, prepare_launch=prepare,
                workspace=transform.workspace, threads=threads, children=(child,))  # fmt: skip


def unpacked(transform: _Transform, packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``sum|w|`` of each filter, NaN where one is not finite, and the filters ``(oc, 1, kh, kw)``."""
    p, flat = transform.p, packed.reshape(-1)
    count = p.oc * transform.wo
    return flat[2 : count : transform.wo], flat[count:].reshape(p.oc, 1, p.kh, p.kw)


def _in_place(transform: _Transform, arrays: tuple[Any, ...], values: np.ndarray, idle: deque[Phases]) -> np.ndarray:
    """Run on arrays that the kernel reads and writes where they are; the largest bits of each plane.

    The launches are taken from ``idle``, if they lie there, and left there.
    """
    src, packed, _, _ = arrays
    largest = _same(transform, src, packed, values)
    if largest is not None:
        _phases(transform, arrays, values, same=True)(arrays)
        return largest
    try:
        phases = idle.pop()
    except IndexError:
        phases = _phases(transform, arrays, values, same=False)
    seen = phases(arrays)
    idle.append(phases)
    return seen


def _phases(transform: _Transform, arrays: tuple[Any, ...], values: np.ndarray, same: bool) -> Phases:
    """The launches for such arrays; ``same`` leaves out the image's own transform, which is the filter's."""
    p, y, x = transform.p, transform.frame.y, transform.frame.x
    src, _, _, dst = arrays
    (sn, sc, sy, _), (dn, dc, dy, _) = src.strides, dst.strides
    head = transform.head._replace(first_x=x.first, iw=p.iw, sn=sn, sc=sc, sy=sy, dn=dn, dc=dc, dy=dy)
    columns, none, before = x.sources(p.iw, p.kw, p.border), np.zeros(0, np.int64), -x.first
    maps = y.sources(p.ih, p.kh, p.border), columns[:before], columns[before + p.iw :]
    if same:
        head, maps = head._replace(first=ROWS, same=1), (none, none, none)
    return Phases(transform, head, maps, values, arrays, p.n)


def _same(transform: _Transform, src: np.ndarray, packed: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    """The largest bits of the plane if it is the filter, and their transforms are the same but for a power of two; or None.

    The results have the same bits as if the plane had been transformed.
    """
    p, frame = transform.p, transform.frame
    alike = p.n == p.oc == 1 and (p.ih, p.iw) == (p.kh, p.kw)
    if not (alike and frame.y.whole and frame.x.whole and values[0] == 0):
        return None
    filters = unpacked(transform, packed)[1]
    _, _, total, power, largest = packed[0, 0, 0, :5]
    if not (np.isfinite(total) and np.isfinite(power) and np.array_equal(src[0, 0, 0], filters[0, 0, 0]) and np.array_equal(src, filters)):
        return None
    return np.array([largest]).view(f"i{transform.size}").astype(np.int64)


def _staged(
    transform: _Transform, src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray, values: np.ndarray, exact: bool
) -> np.ndarray:  # fmt: skip
    """Run on arrays of other types or inner strides, a row of frames at a time, whose pixels NumPy converts and lays out."""
    p, y, x = transform.p, transform.frame.y, transform.frame.x
    dtype = DTYPES[p.acc]
    rows, columns = y.sources(p.ih, p.kh, p.border), x.sources(p.iw, p.kw, p.border)
    none = after = np.zeros(0, np.int64)
    if x.whole:
        columns, after = np.arange(p.iw), columns[p.iw :]
    head = transform.head._replace(oc=1, ocg=1, iw=len(columns), sy=len(columns) * transform.size, blocks=x.blocks)
    seen = np.zeros((p.n, p.oc), np.int64)
    for n, o in np.ndindex(p.n, p.oc):
        own = packed[..., o * transform.wo :]
        for first in range(0, y.out, y.step):
            places = rows[first : first + y.frame]
            pixels = np.full((1, 1, y.frame, len(columns)), values[0], dtype)
            inside = pixels[0, 0, places >= 0]
            inside[:, columns >= 0] = src[n, o // (p.oc // p.g)][places[places >= 0][:, None], columns[columns >= 0]]
            pixels[0, 0, places >= 0] = inside
            many = min(y.step, y.out - first)
            to = dst[n : n + 1, o : o + 1, first : first + many, : x.out]
            result = to if is_native(to, p.acc) else np.empty(to.shape, dtype)
            one = head._replace(out_y=many, step_y=many, dy=result.strides[2])
            arrays = pixels, own, None if bias is None else bias[o : o + 1], result
            found = Phases(transform, one, (np.arange(y.frame), none, after), values, arrays, 1)(arrays)
            seen[n, o] = max(seen[n, o], found[0])
            if exact:
                np.copyto(to, np.rint(result).astype(np.int64), casting="unsafe")
            elif result is not to:
                np.copyto(to, result, casting="unsafe")
    return seen.reshape(-1)
