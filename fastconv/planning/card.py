"""card: plans for arrays of a CUDA device: bound to the caller's shapes and, where they were given, to weights; passes of filters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .addends import Addends
from .bfloat import is_bfloat
from .calls import View
from .devices import Session, backend, on_card, packed_on_card, received
from .layout import checked_bias
from .passes import ZeroTaps
from .planner import plan_problem
from .plans import Launch, Plan
from .problem import Problem, dtype_name


def for_card(p: Problem, weight: np.dtype[Any]) -> Problem:
    """The problem of a network's call for a card, whose kernels read weights of bfloat16, too."""
    return p.replace(wei="bf16") if is_bfloat(weight) else p


@dataclass(slots=True)
class CardPass:
    """A plan with the weights and addends that it holds on a device, and what its zero taps must not see; as `passes.Pass`."""

    plan: Plan
    packed: Any
    addend: Any
    src_view: View  # (n, c, h, w)
    dst_view: View
    fill: float
    dtype: np.dtype[Any]  # of the result
    zero_taps: ZeroTaps | None
    taps: Any  # of these, on the device

    @property
    def held(self) -> int:
        """Bytes of weights that it holds."""
        return int(self.packed.nbytes)

    def run(self, here: Session, src: Any, dst: Any) -> None:
        """Queue it; with zero taps ``dst`` must share no memory with ``src``."""
        image, result = self.src_view(src), self.dst_view(dst)
        here.queue(self.plan, image, self.packed, self.addend, result, self.fill)
        if self.zero_taps is not None:
            zero = self.zero_taps
            backend("repair").repaired(zero.problem, image, self.taps, result, zero.fill, zero.addend)


def card_pass(
    plan: Plan, weights: np.ndarray, src_view: View, dst_view: View, dtype: np.dtype[Any], device: int, fill: float = 0.0,
    bias: np.ndarray | None = None, zero_taps: ZeroTaps | None = None,
) -> CardPass:  # fmt: skip
    """The pass of a plan with these weights and this bias, of the host, which are copied to the device."""
    copy, p = backend("copy"), plan.problem
    taps = None if zero_taps is None else copy.on_device(zero_taps.weights, dtype_name(zero_taps.weights.dtype), device)
    addend = None if bias is None else copy.addend(p.acc, bias, device)
    return CardPass(plan, packed_on_card(plan, weights, device), addend, src_view, dst_view, fill, dtype, zero_taps, taps)


class CardPlan(Plan):
    """What `fastconv.plan` returns for an array of a card: called and given weights as a plan for the CPU is.

    Its work is queued on the stream that the image's library works on; nothing waits for it.

    Parameters
    ----------
    parsed : namedtuple
        ``problem shape dtype image weights``: result and views of a call.
    input, weight : (shape, dtype)
    target : fastconv.cuda.target.Target
    algorithm : str, optional
    remake : callable
        ``remake(weight, bias)`` makes the plan again where it is loaded.
    finish : fastconv.epilogue.CardFinish, optional
        What follows the sums besides, in a pass of its own.
    addends : Addends, optional
        What the problem's epilogue reads besides a bias.
    """

    __slots__ = ("_addends", "_finish", "_input", "_launches", "_packed", "_parsed", "_remake", "_weight", "_weights")

    def __init__(
        self, parsed: Any, input: tuple[Any, Any], weight: tuple[Any, Any], target: Any, algorithm: str | None,
        remake: Callable[..., CardPlan], finish: Any = None, addends: Addends | None = None,
    ) -> None:  # fmt: skip
        chosen = plan_problem(parsed.problem, target, algorithm=algorithm)
        for name in Plan.__slots__:
            setattr(self, name, getattr(chosen, name))
        self._parsed, self._input, self._weight, self._remake = parsed, input, weight, remake
        self._finish, self._addends = finish, addends
        self._launches: dict[Any, Launch] = {}
        self._packed: tuple[Any, Any] | None = None  # weights and bias, one attribute so that a call sees both old or both new
        self._weights: tuple[Any, Any] | None = None  # copies of what they were made from

    def set_weight(self, weight: Any, bias: Any = None) -> None:
        """Pack other weights of the same shape and type; both are copied.

        Raises
        ------
        TypeError, ValueError
            Another shape or type, or a bias where the plan has none (or none where it has one).
        """
        device, driver = None if self._packed is None else self._packed[0].device, backend("driver")
        with driver.lasting():
            weight, bias = (_copied(name, value) for name, value in (("weight", weight), ("bias", bias)))
            packed = self._prepared(weight, bias, device)
        driver.settle(packed[0].stream)  # calls may be on others
        self._weights, self._packed = (weight, bias), packed

    def _prepared(self, weight: Any, bias: Any, device: int | None) -> tuple[Any, Any]:
        if (weight.shape, weight.dtype) != self._weight:
            raise ValueError(f"weight must have shape {self._weight[0]} and dtype {self._weight[1]} as planned, "
                             f"got {weight.shape} and {weight.dtype}")  # fmt: skip
        if (bias is not None) != self.problem.epilogue.startswith("bias"):
            raise ValueError(f"bias must be given exactly where the plan has one, got {'none' if bias is None else 'one'}")
        checked_bias(bias, self.problem.oc, weight.ndim)
        packed = packed_on_card(self, self._parsed.weights(weight), device)
        addend = None if bias is None else backend("copy").addend(self.problem.acc, bias, packed.device)
        return packed, addend if self._addends is None else self._addends._replace(bias=addend)

    def __call__(self, input: Any, weight: Any = None, bias: Any = None, *, out: Any = None) -> Any:
        """Convolve an image of the planned shape and type, on its device and stream.

        Raises
        ------
        TypeError, ValueError
            Another shape, type or place; weights where the plan holds some, or none where it does not.
        """
        if not on_card(input):
            raise TypeError(f"input must be on a CUDA device as planned, got {type(input).__name__}")
        here = Session("input", input, False, True)
        src, packed = here.input, self._packed
        if (src.shape, src.dtype) != self._input:
            raise ValueError(f"input must have shape {self._input[0]} and dtype {self._input[1]} as planned, "
                             f"got {src.shape} and {src.dtype}")  # fmt: skip
        if (weight is None) != (packed is not None) or (packed is not None and bias is not None):
            raise ValueError("weight and bias must be given exactly where the plan was made from a weight's shape")
        if packed is None:
            packed = self._prepared(here.take("weight", weight, True), here.take("bias", bias, True), src.device)
        elif packed[0].device != src.device:
            raise ValueError(f"input must be on device {packed[0].device} as planned, got device {src.device}")
        shape, finish = self._parsed.shape, self._finish
        result, dst = here.destination(out, shape, self._parsed.dtype if finish is None else finish.dtype)
        if 0 not in shape:
            src, to = self._parsed.image(src), self._parsed.image(dst)
            if finish is not None:
                sums = self._parsed.image(here.memory(shape, self._parsed.dtype))
                here.queue(self, src, packed[0], packed[1], sums)
                finish(sums, to)
            elif out is not None and (weight is not None or backend("arrays").overlap(dst, here.input)):
                here.queue(self, src, packed[0], packed[1], to)
            else:
                key = src.strides, to.strides, packed[0].strides, src.device
                launch = self._launches.get(key)
                if launch is None:
                    launch = self._launches[key] = self.prepare(src, packed[0], to)
                launch(src, packed[0], packed[1], to)
        return result if result is not None else here.deliver(result, dst)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._remake, tuple(_hosted(value) for value in self._weights or (None, None))


def _copied(name: str, value: Any) -> Any:
    if value is None:
        return None
    array = received(name, value, True)
    return array.copy() if isinstance(array, np.ndarray) else backend("copy").converted(array, array.dtype)


def _hosted(value: Any) -> Any:
    """A copy on the host, which pickles."""
    return backend("transfer").to_host(value) if isinstance(value, backend("arrays").DeviceArray) else value
