"""weights_shallow_tile: the register tile of `weights_shallow`, output channels in lanes, pixels broadcast."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .compile import TileKernel
from .memory import unrolled_by_hand
from .simd import Emitter, literal


@intrinsic(prefer_literal=True)
def weights_shallow_tile(
    typing_context: Any, spec: Any, sums: Any, apart: Any, grad: Any, grad_row: Any, pixels: Any, pixel_row: Any, rows: Any, many: Any
) -> Any:  # fmt: skip
    """A vector of output channels at ``channels`` of its groups and a row of ``kw`` taps.

    ``sums[c][k][o] += sum_{y, x} grad[y][x][o] * pixels[y][x*step + k][c*piece + o % piece]``

    ``spec = (kind, lanes, channels, kw, step, nx, tail, piece, fma)``: ``nx`` pixels of the gradient at a time, so that one of the image
    is loaded once for all taps, and one by one those that are left of a row where there is a ``tail``: beside its loop registers are put
    on the stack (8 images of 32 groups of 8 channels at 28x28 take 730 us then instead of 600; two threads, Zen 5, 2026-11).  ``piece``
    elements that lie side by side are one for each of as many groups.  Addresses, and bytes between two c and between two y; vectors of
    all else lie side by side.
    Order of accumulation: y, x.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit(builder, chosen, *arguments[1:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 8), codegen


def _emit(
    builder: Any, spec: tuple[Any, ...], sums: Any, apart: Any, grad: Any, grad_row: Any, pixels: Any, pixel_row: Any, rows: Any, many: Any
) -> None:  # fmt: skip
    kind, lanes, channels, kw, step, nx, tail, piece, fma = spec
    emit = Emitter(builder, kind, lanes, bool(fma))
    places = [[emit.offset(sums, emit.times(apart, c), k * emit.width) for k in range(kw)] for c in range(channels)]
    acc = [[emit.variable(emit.load(place)) for place in row] for row in places]
    grad_line, pixel_line = emit.variable(grad), emit.variable(pixels)
    grad_at, pixel_at = emit.variable(grad), emit.variable(pixels)

    def tile(results: int) -> None:
        g, here = emit.get(grad_at), emit.get(pixel_at)
        grads: dict[int, Any] = {}  # those that a later pixel meets, too
        for column in range((results - 1) * step + kw):
            met = [(x, column - x * step) for x in range(results) if 0 <= column - x * step < kw]
            for x, _ in met:
                if x not in grads:
                    grads[x] = emit.load(emit.offset(g, x * emit.width))
            for c in range(channels):
                pixel = emit.pieces(emit.offset(here, column * emit.width + c * piece * emit.itemsize), piece)
                values = [emit.multiply_add(grads[x], pixel, emit.get(acc[c][k])) for x, k in met]
                for (_, k), value in zip(met, emit.fence(values), strict=True):
                    emit.set(acc[c][k], value)
        emit.set(grad_at, emit.offset(g, results * emit.width))
        emit.set(pixel_at, emit.offset(here, results * step * emit.width))

    with emit.loop(rows):
        emit.set(grad_at, emit.get(grad_line))
        emit.set(pixel_at, emit.get(pixel_line))
        with emit.loop(emit.quotient(many, nx)):
            tile(nx)
        if tail:
            with emit.loop(emit.remainder(many, nx)):
                tile(1)
        emit.set(grad_line, emit.offset(emit.get(grad_line), grad_row))
        emit.set(pixel_line, emit.offset(emit.get(pixel_line), pixel_row))
    for row, values in zip(places, acc, strict=True):
        for place, value in zip(row, values, strict=True):
            emit.store(place, emit.get(value))


def _factory(*spec: Any) -> Any:
    """The kernel of `weights_shallow_tile` with this ``spec``."""

    def tile(sums: Any, apart: Any, grad: Any, grad_row: Any, pixels: Any, pixel_row: Any, rows: Any, many: Any) -> None:
        unrolled_by_hand()
        weights_shallow_tile(spec, sums, apart, grad, grad_row, pixels, pixel_row, rows, many)

    return tile


def weights_shallow_tile_kernel(spec: tuple[Any, ...]) -> TileKernel:
    """`_factory`'s, to be called with eight integers."""
    kind, lanes, channels, kw, step, _, tail, piece, _ = spec
    name = f"weights_shallow_{kind}_{channels}_{lanes}_k{kw}s{step}"
    return TileKernel(name + "_tail" * tail + f"_{piece}" * (piece > 1), _factory, spec, 8)
