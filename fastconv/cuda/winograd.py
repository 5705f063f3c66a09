"""winograd: 3x3 kernels of many channels by F(m x m, 3x3), in one kernel: of m 2, 16 multiplications for four results instead of 36;
of m 4, 36 for sixteen instead of 144.

A block's result is 64 or 32 output channels at 32 squares of m x m pixels.  Some channels of its pixels are brought to shared memory
transformed, with weights that were transformed when they were packed, while the block multiplies those before: for each of the (m + 2)^2
points a product of matrices, of which a thread has 16 x 8 or 8 x 8 sums of one point, of m 4 8 x 4 of three.  At the end the sums go to
shared memory, and from there through the last transform.  m is chosen from the extents of one image and the card, so no result depends
on the batch.

Order of accumulation per output: of each point the channels, every product fused; the transform of the points; the bias.  It depends on
nothing else but m.  ``|error| <= C u max|x| sum|w|``, max over the pixels of a square, with the C of `most_error`.

F(2x2)'s transforms have no division: halves are taken of the sums, so that tiny weights lose nothing; F(4x4)'s, of the points of
:mod:`fastconv.planning.winograd_points`, are of numbers so much larger that they lose nothing either.  A pixel or a weight that is not
finite, or an overflow, makes a point that is not finite, and every point is in a result: where a square's results of a channel are not
all finite, the thread computes them by the direct formula, from weights that are packed beside the transformed ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..planning import card_cost
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, not_computed, parse_epilogue
from . import border
from .addends import finishing
from .arithmetic import SIZES
from .arrays import DeviceArray
from .compile import Kernel
from .copy import on_device
from .driver import MOST_GRID, Memory, parts
from .driver import Launch as DriverLaunch
from .finish import addresses, cannot_finish, finish_values, parameters, tail_of, unknown
from .gemm_block import MOST_PIXELS
from .target import Target
from .winograd_block import AT, EXTENTS, KIND, SIZE, SQUARES, Block, Spec, Tile, transformed, weight_points
from .winograd_large import Large, scaled_weight_points

CASES = (
    "ic9ih18iw21_oc18k3_p1_bias+relu", "ic9ih6iw7_oc18k3_p1_bias+relu", "ic18ih5iw9_oc40k3_p1_reflect_nhwc_hwio_bias",
    "g2_ic20ih7iw6_oc6k3_pt2pb1pl0pr3_wrap", "n3_ic8ih9iw8_oc33k3_nhwc_hwio", "ic16ih6iw12_oc32k3_p2_edge_bias+relu6",
    "g2_ic18ih17iw22_oc40k3_pt1pb2pl2pr0_reflect_nhwc_hwio_bias", "n2_ic4ih22iw18_oc33k3_p1_wrap_leaky_relu:0.1",
    "n2_ic9ih6iw7_oc18k3_p1_bias+scale+shift+residual+relu", "ic8ih5iw8_oc33k3_nhwc_hwio_f32:f32:i8:f32_scale+saturate:-3",
    "ic9ih18iw21_oc18k3_p1_bias+scale+residual+leaky_relu:0.1",
    "n2_ic9ih6iw7_oc18k3_p1_bf16:bf16:bf16:f32_bias+relu", "ic16ih5iw8_oc33k3_p1_reflect_nhwc_hwio_bf16:f32:f32:f32",
)  # fmt: skip

LEAST_CC = (8, 0)  # of m 4: the first whose copies pass by registers
MOST_CHANNELS = 512  # of m 4, of a group: errors seen of random layers are 4e-6 of the largest result, of 2048 6e-6; 1e-5 is promised
MOST_PLACE = 2**31  # bytes from the first pixel of an image on that are counted in 32 bits
_PACK_THREADS = 256
_READ = {KIND, "bf16"}

# Of m 2, 16 pixels or weights on their way, 16 or 24 operands, addresses, and 128 or 64 sums: 512 of 770 instructions of a step of the
# smaller one are multiply-adds, of the larger one's 1270 1024.  Of m 4 12 operands, twice, and 96 sums: 384 of 470, and 980 of those
# warps that fetch and transform.
TILES = (
    Tile(2, bm=64, depth=8, threads=256, pitch=36, spare=16, part=32, registers=255, blocks=1),
    Tile(2, bm=32, depth=8, threads=256, pitch=36, spare=16, part=32, registers=128, blocks=2),
    Tile(4, bm=32, depth=4, threads=384, pitch=36, spare=0, part=16, registers=168, blocks=1),
)

PACK_AT = ("wei", "packed", "untransformed", "wo", "wc", "wy", "wx")
PACK_EXTENTS = ("count", "icg", "ocg", "blocks", "depths")


class Pack(NamedTuple):
    """What the kernel that packs weights is compiled for."""

    tile: Tile
    wei: str = KIND


def pack_body(e: Any, spec: Pack, at: Any, v: Any, x: Any) -> None:
    """``packed[g][ocg / bm][icg / depth][point][c % depth][o % bm]``, and ``untransformed`` bytes further on
    ``[g][ocg / bm][c][ky][kx][o % bm]``; zeros beyond the last channels; one filter of one channel a thread.
    """
    s = spec.tile
    place = e.block("x") * _PACK_THREADS + e.thread("x")

    def one(nothing: list[Any]) -> list[Any]:
        rest, lane = place // s.bm, place % s.bm
        c, block = rest % (x.depths * s.depth), rest // (x.depths * s.depth)
        group, o = block // x.blocks, block % x.blocks * s.bm + lane

        def read(_: list[Any]) -> list[Any]:
            first = at.wei + at.wo * (group * x.ocg + o) + at.wc * c
            return [e.load(spec.wei, KIND, first + at.wy * (k // 3) + at.wx * (k % 3), 1)[0] for k in range(9)]

        taps = e.when((o < x.ocg) & (c < x.icg), [e.number(KIND, 0)] * 9, read)
        step = at.packed + (e.i64(block * x.depths + c // s.depth) * s.step + c % s.depth * s.bm + lane) * SIZE
        points = transformed(e, weight_points, taps, 3) if s.m == 2 else scaled_weight_points(e, taps, s.m)
        for point, value in enumerate(points):
            e.store(KIND, step + point * (s.depth * s.bm * SIZE), [value])
        plain = at.packed + at.untransformed + (e.i64(rest) * (9 * s.bm) + lane) * SIZE
        for k, value in enumerate(taps):
            e.store(KIND, plain + k * (s.bm * SIZE), [value])
        return nothing

    e.when(place < x.count, [], one)


def pack_kernel(tile: Tile, wei: str = KIND) -> Kernel:
    """The kernel that packs weights for a tile."""
    name = f"winograd_pack_{wei}_{tile.m}x{tile.m}_{tile.bm}"
    return Kernel(name, pack_body, Pack(tile, wei), PACK_AT, ("i32", ("unused",)), PACK_EXTENTS, (_PACK_THREADS, 1, 1), 64, vectors=False,
                  fused=False)  # fmt: skip


def reject(p: Problem, t: Target) -> str | None:
    """Forward, 3x3 at every pixel, float32 and bfloat16; what is counted fits 32 bits."""
    known = not_computed(p, "fwd", roundings=(None, "saturate"), scalings=True, bfloat=True, bfloat_weights=True, transforms=True)
    reason = known or cannot_finish(p)
    if reason is not None:
        return reason
    finished = tail_of(p) or parse_epilogue(p.epilogue).rounding
    if p.acc != KIND or not {p.src, p.wei} <= _READ or (p.dst not in _READ and not finished):
        return f"images and weights of f32 and bf16, sums of f32, not {p.src}, {p.wei}, {p.dst} and {p.acc}"
    if (p.kh, p.kw, p.sh, p.sw, p.dh, p.dw) != (3, 3, 1, 1, 1, 1):
        return f"3x3 windows at every pixel, not {p.kh}x{p.kw}, strides {p.sh, p.sw} and dilations {p.dh, p.dw}"
    least = min(tile.shared for tile in TILES)
    if t.shared < least:
        return f"needs {least} bytes of shared memory a block, not {t.shared}"
    tile = _least_tile(2)
    if max(p.ih_padded, p.iw_padded) >= 2**29 or p.oh * p.ow > MOST_PIXELS or _filters(p, tile) * (tile.points + 9) >= 2**31:
        return "counts pixels and weights in 32 bits"
    blocks = _blocks(p, tile)
    if blocks > MOST_GRID[1]:
        return f"has at most {MOST_GRID[1]} blocks of output channels, not {blocks}"
    return None


def _least_tile(m: int) -> Tile:
    """Of the fewest output channels, which every card that has m can run."""
    return min((tile for tile in TILES if tile.m == m), key=lambda tile: tile.bm)


def _blocks(p: Problem, tile: Tile) -> int:
    """Of output channels, of all groups."""
    return p.g * parts(p.oc // p.g, tile.bm)


def _filters(p: Problem, tile: Tile) -> int:
    """Filters of one channel, and the zeros that fill blocks."""
    return _blocks(p, tile) * tile.bm * parts(p.ic // p.g, tile.depth) * tile.depth


def _plane(p: Problem, m: int) -> int:
    """Squares of an image."""
    return parts(p.oh, m) * parts(p.ow, m)


def _products(p: Problem, m: int) -> float:
    """Multiplications in whole blocks, and of the channels in whose time transforms that nothing hides are done."""
    tile = _least_tile(m)
    filters = _filters(p, tile) + _blocks(p, tile) * tile.bm * card_cost.WINOGRAD_ENDS[m]
    return parts(p.n * _plane(p, m), SQUARES) * SQUARES * tile.points * filters / card_cost.WINOGRAD_SHARES[m]


def extent(p: Problem, t: Target) -> int:
    """m, from one image: the quicker, of those that the card can run and the precision allows; copies past registers are of float32."""
    tile, p = _least_tile(4), p.replace(n=1)
    able = t.cc >= LEAST_CC and p.src == KIND and t.shared >= tile.shared and _filters(p, tile) * (tile.points + 9) < 2**31
    accurate = p.precision == "fast" or p.ic // p.g <= MOST_CHANNELS
    return 4 if able and accurate and _products(p, 4) < _products(p, 2) else 2


def most_error(p: Problem, m: int) -> int:
    """C of the bound of each output.

    Of m 2, the largest seen, in emulated float32, is 10 of one channel and 1.3 a channel where all are equal; of random layers 5, or
    1e-6 of the largest result.  Of m 4 44, and 2.7 a channel; of random layers of 512 channels 4e-6 of the largest result.
    """
    channels = p.ic // p.g
    return 64 + 4 * channels if m == 4 else 32 + 2 * channels


def best_tile(p: Problem, t: Target) -> Tile:
    """Of the problem's m, the largest that wastes no more than the smallest, fits the card and occupies it; no sum depends on it."""
    m = extent(p, t)
    least, squares = _least_tile(m), parts(p.n * _plane(p, m), SQUARES)
    fit = [tile for tile in TILES if tile.m == m and _filters(p, tile) == _filters(p, least) and tile.shared <= t.shared
           and squares * _blocks(p, tile) >= t.units]  # fmt: skip
    return fit[0] if fit else least


def cost(p: Problem, t: Target) -> float:
    """Multiplications in whole blocks."""
    return card_cost.gemm_seconds(p, _products(p, extent(p, t)), t.bandwidth, t.fma)


def most_kernels(t: Target) -> int:
    """Of each tile both layouts, both widths of places, and the kernel that packs."""
    return 5 * len(TILES)


def body(e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
    """``dst[n, o, oy, ox] = finish(bias[o] + sum_{c, ky, kx} src[n, c, oy + ky - pt, ox + kx - pl] wei[o, c, ky, kx])``.

    Weights lie as `pack_body` puts them.  Squares of a block are those of the batch in the order ``(n, oy, ox)``, ``plane`` of an image,
    ``columns`` of a row; beyond the last one the last is computed again and not stored, and so are results beyond the image.
    """
    (Block if s.tile.m == 2 else Large)(e, s, at, v, x).run()


def _spec(p: Problem, tile: Tile, last: int, wide: int) -> Spec:
    return Spec(tile, last, wide, p.dst, parse_epilogue(p.epilogue).rounding or "", tail_of(p), p.src)


def kernel_of(s: Spec) -> Kernel:
    """The kernel of a specialisation."""
    name = f"winograd_{s.src}_{s.tile.m}x{s.tile.m}_{s.tile.bm}x{SQUARES}" + "_nhwc" * s.last + "_wide" * s.wide
    name = "_".join(filter(None, (name, s.dst if s.dst != KIND else "", s.rounding, s.tail)))
    # pixels of two bytes on their way take more registers, as wide places do: 112 bytes of spills on sm_100 with two blocks
    alone = s.tile.m == 2 and (s.wide or s.src != KIND)
    registers, blocks = (255, 1) if alone else (s.tile.registers, s.tile.blocks)
    return Kernel(name, body, s, *parameters(AT, s), EXTENTS, (s.tile.threads, 1, 1), registers, shared=True, blocks=blocks)


def kernels(t: Target) -> tuple[Kernel, ...]:
    """All of float32 whose sums are stored so unscaled, and of others some."""
    tiles = [tile for tile in reversed(TILES) if tile.m == 2 or t.cc >= LEAST_CC]
    found = [kernel_of(Spec(tile, last, wide)) for wide in (0, 1) for last in (0, 1) for tile in tiles]
    ways = (0, KIND, ""), (1, "i8", "saturate")
    scaled = [kernel_of(Spec(tile, last, 0, dst, rounding, KIND)) for tile in tiles for last, dst, rounding in ways]
    halves = [kernel_of(Spec(tile, last, 0, "bf16", src="bf16")) for tile in tiles if tile.m == 2 for last in (0, 1)]
    return (*found, *map(pack_kernel, tiles), *scaled, *halves, pack_kernel(_least_tile(2), "bf16"))


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan with weights packed as `pack_body` says."""
    tile = best_tile(p, t)
    icg, ocg, blocks, depths, filters = p.ic // p.g, p.oc // p.g, _blocks(p, tile), parts(p.ic // p.g, tile.depth), _filters(p, tile)
    untransformed = filters * tile.points * SIZE
    plane = _plane(p, tile.m)

    def pack(p: Problem, wei: Any) -> Any:
        wei = on_device(wei, p.wei)
        count = filters * (tile.points + 9)
        memory = Memory(count * SIZE, wei.device, wei.stream)
        launch = DriverLaunch(pack_kernel(tile, p.wei), (parts(filters, _PACK_THREADS), 1, 1), (0, 0, untransformed, *wei.strides), (0,),
                              (filters, icg, ocg, blocks // p.g, depths), device=wei.device)  # fmt: skip
        launch(wei.stream, wei.address, memory.address)
        return DeviceArray(memory.address, (1, 1, 1, count), None, DTYPES[KIND], wei.stream, wei.device, memory)

    def prepare(own: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        last = src.strides[1] == SIZES[p.src] and p.ic > 1
        wide = p.ih * abs(src.strides[2]) + p.iw * abs(src.strides[3]) >= MOST_PLACE
        kernel = kernel_of(_spec(p, tile, int(last), int(wide)))
        finish = parse_epilogue(p.epilogue)
        axes = (*border.border_fields(p.border, p.ih, -p.pt), *border.border_fields(p.border, p.iw, -p.pl))
        launches = []
        most = max(MOST_PIXELS // (p.oh * p.ow), 1)
        for n in range(0, p.n, most):
            squares = min(most, p.n - n) * plane
            extents = (squares, plane, parts(p.ow, tile.m), p.oh, p.ow, icg, ocg, blocks // p.g, depths, p.pt, p.pl,
                       int(dst.strides[3] == dst.dtype.itemsize), int(finish.bias), int(finish.activation is not None))  # fmt: skip
            at = (*unknown(kernel.spec.tail), *src.strides, *dst.strides, untransformed)
            grid, numbers = (parts(squares, SQUARES), blocks, 1), (*extents, *axes)
            launches.append((n, DriverLaunch(kernel, grid, at, finish_values(p, fill), numbers, tile.shared, src.device)))

        def run(src: Any, packed: Any, bias: Any, dst: Any) -> None:
            for n, launch in launches:
                launch(src.stream, src.address + n * src.strides[0], packed.address, *addresses(bias, dst, n))

        return finishing(p, run)

    name = kernel_of(_spec(p, tile, int(p.src_layout == "nhwc" and p.ic > 1), 0)).name
    return Plan(problem=p, algorithm="winograd", kernel=name, cost=cost(p, t), pack_weights=pack, prepare_launch=prepare)
