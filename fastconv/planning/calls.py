"""calls: what every dialect does around a plan: remember parsed calls, run them, write into the caller's ``out``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .arguments import check_out
from .plans import Launch, Plan, Quick, SerialLaunch
from .problem import DTYPES, Problem
from .workspaces import new_result

View = Callable[[np.ndarray], np.ndarray]
V = TypeVar("V")


class Bounded(dict[Any, V]):
    """A dict that `keep` fills with at most ``most`` entries; the oldest make room.  Any number of threads may use it.

    Examples
    --------
    >>> squares = Bounded(2)
    >>> for n in range(4):
    ...     _ = squares.keep(n, n * n)
    >>> squares
    {2: 4, 3: 9}
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def keep(self, key: Any, value: V) -> V:
        """Remember a value, and return it."""
        while len(self) >= self.most:
            try:
                self.pop(next(iter(self)), None)
            except (RuntimeError, StopIteration):  # another thread changed it meanwhile; a lock could stay taken by a fork or a signal
                continue
        self[key] = value
        return value


@dataclass(slots=True)
class Call:
    """A parsed and planned call: what is left to do for arrays of the same shapes, strides and types."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    image: View  # of the input and of the result, (n, c, h, w)
    weights: View  # (oc, ic/g, kh, kw)
    pack: Callable[[Problem, np.ndarray], np.ndarray]
    problem: Problem
    launch: Launch
    bias_type: np.dtype[Any]  # or the mask's
    in_place: bool  # whether the kernel reads the caller's weights, from their first element on, and nobody looks at them before
    quick: Quick | None = None
    rival: Callable[[np.ndarray, np.ndarray, np.ndarray], Call | None] | None = None  # see `prepared`

    def run(self, input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> np.ndarray:
        """Write the result into ``dst``, and return it."""
        if bias is None:
            if self.quick is not None and self.quick(input, weight, 0, dst):
                return dst
        elif bias.dtype is not self.bias_type or bias.ndim != 1 or not bias.flags.c_contiguous:
            with np.errstate(invalid="ignore"):  # a NaN becomes an integer as C makes it one
                bias = np.ascontiguousarray(bias.reshape(-1), self.bias_type)
        src, wei, to = self.image(input), self.weights(weight), self.image(dst)
        chosen = self
        if self.rival is not None:
            chosen = self.rival(src, wei, to) or self
        chosen.launch(src, chosen.pack(chosen.problem, wei), bias, to)
        return dst

    def again(self, input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, out: np.ndarray | None) -> np.ndarray | None:
        """`run` for a call that has come before, into ``out`` or a new array; None where the result must be computed aside."""
        quick = self.quick
        if quick is None and self.in_place and isinstance(self.launch, SerialLaunch):
            quick = self.quick = self.launch.quick(input.ndim, weight.ndim)
        if out is None:
            return self.run(input, weight, bias, new_result(self.shape, self.dtype, input))
        if not out.flags.writeable:
            return None
        if quick is not None and bias is None and quick(input, weight, 0, out):
            return out
        return None if aside(out, input, weight, bias) else self.run(input, weight, bias, out)


class Rivals(NamedTuple):
    """What is found about weights, ``full`` if nothing, and the plan for weights of which something is known."""

    structure_of: Callable[[np.ndarray], str]
    plan: Callable[[str], Plan]


def prepared(
    plan: Plan, shape: tuple[int, ...], dtype: np.dtype[Any], image: View, weights: View, arrays: tuple[np.ndarray, ...], fill: Any = 0,
    rivals: Rivals | None = None,
) -> Call:  # fmt: skip
    """The call for ``arrays``, (input, weight, result), and others like them.

    Its ``rival(src, wei, dst)`` is the call for what the weights are found to be, where ``rivals`` has a plan for it.
    """
    src, wei, dst = arrays
    packed = plan.pack(weights(wei))
    launch = plan.prepare(image(src), packed, image(dst), fill)
    in_place = packed.ctypes.data == wei.ctypes.data and rivals is None
    addend = DTYPES["b8" if plan.problem.masked else plan.problem.acc]
    call = Call(shape, dtype, image, weights, plan.pack_weights, plan.problem, launch, addend, in_place)
    if rivals is not None:
        known: dict[str, Call | None] = {"full": None}

        def rival(src: np.ndarray, wei: np.ndarray, dst: np.ndarray) -> Call | None:
            name = rivals.structure_of(wei)
            if name not in known:
                plan = rivals.plan(name)
                launch = plan.prepare(src, plan.pack(wei), dst, fill)
                known[name] = replace(call, pack=plan.pack_weights, problem=plan.problem, launch=launch, rival=None)
            return known[name]

        call.rival = rival
    return call


def aside(out: np.ndarray, *inputs: np.ndarray | None) -> bool:
    """Whether the result must be computed aside: ``out`` may share memory with an input."""
    for array in inputs:  # a generator costs more than the looks
        if array is not None and np.may_share_memory(out, array):
            return True
    return False


def destination(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: np.ndarray | None) -> np.ndarray:
    """Where to compute a result: in ``out``, or aside where there is none, or it may share memory with an input.

    Aside too for subclasses with an indexing of their own, as `numpy.matrix` and masked arrays have.

    Raises
    ------
    TypeError, ValueError
        ``out`` is not a writeable array of this shape and type.
    """
    if out is not None:
        check_out(out, shape, dtype)
        if type(out) in (np.ndarray, np.memmap) and not aside(out, *inputs):
            result: np.ndarray = out
            return result
    return new_result(shape, dtype, inputs[0] if inputs else None)


def delivered(result: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """A result as the caller gets it: in ``out`` where there is one."""
    if out is None or result is out:
        return result
    np.copyto(out, result)
    return out
