"""finish: what tiles of one output channel make of its sums before they are stored: scale, shift, residual, activation.

The numbers lie behind a unit's first addend, before its taps: ``[slope, low, high, how, scale, shift]`` of the kind at ``FINISH_AT``, and
at ``BESIDE_AT`` a 64-bit integer.  Where ``how`` is 0 the activation is all, and the rest is not read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from ..planning.addends import gathered
from ..planning.plans import GatheringLaunch, Launch
from ..planning.problem import Problem, Scaling, parse_scaling
from .simd import Emitter, literal

FINISH_AT, BESIDE_AT = 8, 56  # bytes from the first addend
ADDENDS_AT = 8  # bytes from what `gathered` makes to the biases


def scales(p: Problem) -> bool:
    """Whether sums have more than a bias and an activation."""
    scaling = parse_scaling(p.epilogue)
    return scaling._replace(zero=0) != Scaling()


@intrinsic(prefer_literal=True)
def set_finish(typing_context: Any, kind: Any, start: Any, values: Any, addends: Any, channels: Any, channel: Any) -> Any:
    """``set_finish(kind, start, values, addends, channels, channel)``: the numbers of an output channel behind its first addend.

    ``values`` is the address of `finish_values`, ``addends`` that of what `gathered` made for ``channels`` channels, in the same kind.
    """
    name = literal(kind)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, start, values, addends, channels, channel = arguments
        one = Emitter(builder, name, 1, False)
        size = one.itemsize
        biases = one.offset(addends, ADDENDS_AT, one.times(channel, size))
        sources = [one.offset(values, n * size) for n in (1, 2, 3, 5)]
        sources += [one.offset(biases, one.times(channels, n * size)) for n in (1, 2)]
        for n, source in enumerate(sources):
            one.store(one.offset(start, FINISH_AT + n * size), one.load(source))
        return context.get_dummy_value()

    return types.void(kind, *[types.int64] * 5), codegen


def finish_rows(
    out: Emitter, finish: Any, rows: list[list[Any]], place: Callable[[int, int], Any], store: Callable[[Any, Any], None], residual: bool
) -> None:
    """``rows[i][vec]`` finished and stored by ``store(address, value)`` at ``place(i, vec)``; each step is rounded.

    ``finish`` is the address of the six numbers.  With ``residual``, where the integer ``BESIDE_AT`` is not 0, the vector that lies so many
    bytes behind a result is added to it.
    """
    build, size = out.builder, out.itemsize
    limits = [out.splat(out.offset(finish, n * size)) for n in range(3)]

    def activated(values: list[list[Any]], beside: Any = None) -> None:
        for i, row in enumerate(values):
            for vec, value in enumerate(row):
                address = place(i, vec)
                if beside is not None:
                    value = build.fadd(value, out.load(out.offset(address, beside)))
                store(address, out.activate(value, *limits))

    if not out.floating:
        activated(rows)
        return
    how = out.bits().load_scalar(out.offset(finish, 3 * size))
    with out.either(build.zext(how, out.constant(0).type)) as (scaled, plain):
        with plain:
            activated(rows)
        with scaled:
            scale, shift = (out.splat(out.offset(finish, n * size)) for n in (4, 5))
            values = [[build.fadd(build.fmul(value, scale), shift) for value in row] for row in rows]
            if not residual:
                activated(values)
                return
            beside = out.load_integer(out.offset(finish, BESIDE_AT - FINISH_AT))
            with out.either(beside) as (added, alone):
                with added:
                    activated(values, beside)
                with alone:
                    activated(values)


def gathering(p: Problem, prepare: Callable[[np.ndarray], Launch], dst: np.ndarray) -> Launch:
    """A launch that gathers what sums are finished with; ``prepare(dst)`` makes one for gathered addends and results of these strides.

    A residual that lies otherwise than the results is copied.
    """
    plain = prepare(dst)

    def launch(src: np.ndarray, packed: np.ndarray, addends: Any, dst: np.ndarray) -> None:
        residual, run, result = addends.residual, plain, dst
        if residual is not None and (residual.strides != dst.strides or residual.dtype != dst.dtype):
            result = np.empty_like(dst)
            addends = addends._replace(residual=np.empty_like(result))
            addends.residual[...] = residual
            run = prepare(result)
        run(src, packed, gathered(p, addends), result)
        if result is not dst:
            dst[...] = result

    return GatheringLaunch(launch, plain)
