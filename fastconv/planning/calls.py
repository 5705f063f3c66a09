"""calls: what every dialect does around a plan: remember parsed calls, run them, write into the caller's ``out``."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from . import cost as costs
from .arguments import check_out, exact
from .bfloat import widened
from .plans import Launch, Plan, Quick, QuickLaunch
from .problem import DTYPES, Problem
from .workspaces import new_result

View = Callable[[np.ndarray], np.ndarray]
Inputs = tuple[Any, ...]  # arrays, or None
V = TypeVar("V")

MOST_HELD = 1 << 18  # bytes of packed weights of a remembered call: of all that a dialect remembers, 64 MiB
MOST_COMPARED = 1 << 13  # bytes of weights that are part of a key; larger ones are packed at each call


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

    def find(self, key: Any) -> V | None:
        """What is known by a key, if anything is."""
        try:
            return self.get(key)
        except TypeError:  # a list among the arguments
            return None


@dataclass(slots=True)
class Call:
    """A parsed and planned call: what is left to do for arrays of the same shapes, strides and types, and the same other arguments.

    ``inputs`` are the arrays that it reads, the image first; some may be None.
    """

    shape: tuple[int, ...]  # of the result
    dtype: np.dtype[Any]
    small: bool = field(init=False)

    def __post_init__(self) -> None:
        self.small = math.prod(self.shape) * self.dtype.itemsize < costs.LEAST_RESULT

    @property
    def held(self) -> int:
        """Bytes of weights that it holds."""
        return 0

    def run(self, inputs: Inputs, dst: np.ndarray) -> None:
        """Write the result into ``dst``, which shares no memory with the inputs."""
        raise NotImplementedError

    def quick(self, inputs: Inputs, dst: np.ndarray) -> bool:
        """`run` by one compiled call; False where there is none, or memory is shared, and nothing was done."""
        return False

    def result(self, inputs: Inputs) -> np.ndarray:
        """The result in a new array."""
        dst = np.empty(self.shape, self.dtype) if self.small else new_result(self.shape, self.dtype, inputs[0])
        if not self.quick(inputs, dst):
            self.run(inputs, dst)
        return dst

    def into(self, inputs: Inputs, out: np.ndarray) -> np.ndarray | None:
        """The result in ``out``; None where that cannot be written while the inputs are read."""
        if not out.flags.writeable:
            return None
        if not self.quick(inputs, out):
            if aside(out, *inputs):
                return None
            self.run(inputs, out)
        return out


C = TypeVar("C", bound=Call)


class Calls(Bounded[C]):
    """The calls that a dialect or a plan remembers, each of which holds at most ``most_held`` bytes of weights."""

    def __init__(self, most: int, most_held: float = MOST_HELD) -> None:
        super().__init__(most)
        self.most_held = most_held

    def first(self, key: Any, call: C, inputs: Inputs, out: np.ndarray | None, dst: np.ndarray) -> np.ndarray:
        """Remember a call unless ``key`` is None, and run it into ``dst``, the `destination` of ``out``; the result is delivered."""
        if key is not None and (out is None or dst is out) and call.held <= self.most_held:
            with contextlib.suppress(TypeError):  # a list among the arguments
                self.keep(key, call)
        call.run(inputs, dst)
        return delivered(dst, out)


def values_of(weights: tuple[Any, ...]) -> tuple[Any, ...] | None:
    r"""What distinguishes weights that a call holds; None where they are no arrays, or too large to be compared at each call.

    Examples
    --------
    >>> values_of((np.array([1, 2], "u1"),))
    ((2,), dtype('uint8'), b'\x01\x02')
    """
    key: tuple[Any, ...] = ()
    for array in weights:
        if type(array) is not np.ndarray or array.nbytes > MOST_COMPARED:
            return None
        key += (array.shape, array.dtype, array.tobytes())
    return key


def call_key(arrays: tuple[Any, ...], out: Any, values: tuple[Any, ...], rest: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """What a call is known by: shapes, strides and types of its arrays, ``values`` (numbers and tuples of them), ``rest`` (texts).

    None where one of ``arrays``, or ``out``, is neither an array nor None.
    """
    key: tuple[Any, ...] = ()
    for array in (*arrays, out):
        if array is None:
            key += (None,)
        elif type(array) is np.ndarray:
            key += ((array.shape, array.strides, array.dtype),)
        else:
            return None
    return (*key, arguments_of(values), rest)


def arguments_of(values: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Arguments as a key needs them, lists as tuples; and what tells them apart from others that are equal, as 1 is to True.

    Examples
    --------
    >>> arguments_of((2, [1, 2.0]))
    ((2, (1, 2.0)), (<class 'int'>, '(1, 2.0)'))
    """
    kinds = tuple(map(type, values))
    if list in kinds:
        values = tuple([tuple(value) if type(value) is list else value for value in values])
    elif tuple not in kinds:
        return values, kinds
    return values, exact(*values)


@dataclass(slots=True)
class GivenWeights(Call):
    """A call whose weights come with the image: ``inputs`` are (image, weights, bias or None), or what a gradient reads."""

    image: View  # (n, c, h, w)
    weights: View  # (oc, ic/g, kh, kw), or the result's gradient
    to: View  # what is written, of the result
    pack: Callable[[Problem, np.ndarray], np.ndarray]
    problem: Problem
    launch: Launch
    bias_type: np.dtype[Any]  # or the mask's
    in_place: bool  # whether the kernel reads the caller's weights, from their first element on
    compiled: Quick | None = None
    rival: Callable[[np.ndarray, np.ndarray, np.ndarray], GivenWeights | None] | None = None  # see `prepared`
    seen: tuple[bytes, GivenWeights] | None = None  # the weights that `rival` looked at last, and the call for them

    def again(self, weight: np.ndarray) -> GivenWeights | None:
        """The call for weights that are those `rival` looked at last, bit by bit; None for others.

        To look costs 5 to 20 us, of 55 us that 5x5 takes on 256x256; to compare, less than one.
        """
        seen = self.seen
        return seen[1] if seen is not None and seen[0] == weight.tobytes() else None

    def quick(self, inputs: Inputs, dst: np.ndarray) -> bool:
        """As `Call.quick`."""
        input, weight, bias = inputs
        if self.rival is not None and self.again(weight) is not self:
            return False
        place = 0
        if bias is not None:
            if self.foreign(bias) or np.may_share_memory(dst, bias):
                return False
            place = bias.ctypes.data
        if self.compiled is None:
            if not (self.in_place and isinstance(self.launch, QuickLaunch)):
                return False
            self.compiled = self.launch.quick(input.ndim, weight.ndim)
        return self.compiled(input, weight, place, dst) > 0

    def foreign(self, bias: np.ndarray) -> bool:
        """Whether no kernel reads a bias where it is."""
        return bias.dtype is not self.bias_type or bias.ndim != 1 or not bias.flags.c_contiguous

    def repeated(self, image: np.ndarray, weight: np.ndarray) -> np.ndarray | None:
        """The result of arrays that may be other views of the same memory, without a bias; None where no call has been `quick` before."""
        if self.compiled is None:
            return None
        dst = np.empty(self.shape, self.dtype) if self.small else new_result(self.shape, self.dtype, image)
        return dst if self.compiled(image, weight, 0, dst) else None

    def run(self, inputs: Inputs, dst: np.ndarray) -> None:
        """As `Call.run`."""
        input, weight, bias = inputs
        if bias is not None and self.foreign(bias):
            with np.errstate(invalid="ignore"):  # a NaN becomes an integer as C makes it one
                bias = np.ascontiguousarray(widened(bias).reshape(-1), self.bias_type)
        src, wei, to = self.image(input), self.weights(weight), self.to(dst)
        chosen = self
        if self.rival is not None:
            known = self.again(weight)
            chosen = known or self.rival(src, wei, to) or self
            if known is None and weight.nbytes <= MOST_COMPARED:
                self.seen = weight.tobytes(), chosen
        chosen.launch(src, chosen.pack(chosen.problem, wei), bias, to)


class Rivals(NamedTuple):
    """What is found about weights, ``full`` if nothing, and the plan for weights of which something is known."""

    structure_of: Callable[[np.ndarray], str]
    plan: Callable[[str], Plan]


def prepared(
    plan: Plan, shape: tuple[int, ...], dtype: np.dtype[Any], image: View, weights: View, arrays: tuple[np.ndarray, ...], fill: Any = 0,
    rivals: Rivals | None = None, to: View | None = None, kind: type[GivenWeights] = GivenWeights,
) -> GivenWeights:  # fmt: skip
    """The call for ``arrays``, (input, weight, result), and others like them; the result is viewed as ``to``, or as the image is.

    Its ``rival(src, wei, dst)`` is the call for what the weights are found to be, where ``rivals`` has a plan for it.
    """
    src, wei, dst = arrays
    to = to or image
    plan = plan.given() if plan.given is not None else plan
    packed = plan.pack(weights(wei))
    launch = plan.prepare(image(src), packed, to(dst), fill)
    in_place = packed.ctypes.data == wei.ctypes.data and kind is GivenWeights
    addend = DTYPES["b8" if plan.problem.masked else plan.problem.acc]
    call = kind(shape, dtype, image, weights, to, plan.pack_weights, plan.problem, launch, addend, in_place)
    if rivals is not None:
        known: dict[str, GivenWeights | None] = {"full": None}

        def rival(src: np.ndarray, wei: np.ndarray, dst: np.ndarray) -> GivenWeights | None:
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
