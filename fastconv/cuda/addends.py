"""addends: the arrays that an epilogue reads, as kernels take them: a residual that lies as the results do."""

from __future__ import annotations

from typing import Any

from ..planning.addends import Addends, residual_type
from ..planning.plans import Launch
from ..planning.problem import Problem
from .arrays import DeviceArray
from .copy import copied
from .driver import Memory
from .finish import tail_of


def finishing(p: Problem, run: Launch) -> Launch:
    """A launch of a kernel that finds what is added to a result by the result's place: other residuals are copied before.

    A residual may not share memory with results: each thread reads all that it adds before it stores, but not before others do.
    """
    if not tail_of(p):
        return run
    dtype = residual_type(p)

    def finish(src: Any, packed: Any, addends: Any, dst: Any) -> None:
        addends = addends if isinstance(addends, Addends) else Addends(addends)
        residual: Any = addends.residual
        if residual is not None:
            strides = [stride * dtype.itemsize // dst.dtype.itemsize for stride in dst.strides]
            alike = all(a == b for a, b, extent in zip(residual.strides, strides, dst.shape, strict=True) if extent > 1)
            if not alike or residual.dtype != dtype:
                reach = sum(stride * (extent - 1) for stride, extent in zip(strides, dst.shape, strict=True))
                memory = Memory(reach + dtype.itemsize, src.device, src.stream)
                moved: Any = DeviceArray(memory.address, dst.shape, strides, dtype, src.stream, src.device, memory)
                copied(residual, moved)
                addends = addends._replace(residual=moved)
        run(src, packed, addends, dst)

    return finish
