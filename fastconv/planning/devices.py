"""devices: where a call runs, and what runs it on a card; the CUDA backend is imported when an array of one, or ``"cuda"``, is seen."""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import Any

import numpy as np

from .addends import Addends
from .arguments import as_array, check_device, check_out
from .calls import Bounded
from .planner import MOST_PLANS, plan_problem
from .plans import Launch, Plan
from .problem import Problem
from .structure import looked_at

_CARDS = (2, 13)  # DLPack's types of memory that a CUDA device reads
_launches: Bounded[Launch] = Bounded(MOST_PLANS)


@functools.cache
def backend(name: str) -> Any:
    """A module of the CUDA backend, imported when it is first needed."""
    return importlib.import_module(f"fastconv.cuda.{name}")


def on_card(value: Any) -> bool:
    """Whether an argument is an array of a CUDA device, of whatever library.

    Examples
    --------
    >>> on_card(np.ones(3)), on_card([1, 2])
    (False, False)
    """
    kind = type(value)
    if isinstance(value, (np.ndarray, np.generic, list, tuple, int, float)) or value is None:
        return False
    is_cuda = getattr(value, "is_cuda", None)  # torch's, whose arrays of the host have the protocols' attributes too
    if isinstance(is_cuda, bool):
        return is_cuda
    if getattr(kind, "__cuda_array_interface__", None) is not None:
        return True
    where = getattr(value, "__dlpack_device__", None)
    return where is not None and int(where()[0]) in _CARDS


def received(name: str, value: Any, bfloat: bool = False) -> Any:
    """An array where it is: of a card, with ``shape`` and ``dtype`` as NumPy has them, or of the host, as `as_array` takes it."""
    return backend("exchange").received(name, value, bfloat) if on_card(value) else as_array(name, value, bfloat)


class Session:
    """One call on a card: its arrays received, its work queued on the stream they belong to, the result handed back in kind.

    Parameters
    ----------
    name : str
        Of the argument ``value``, which decides where: an array of a device, or of the host, from where it is copied there and the
        result back.
    value : array
    hosted : bool
        Whether it is of the host.
    bfloat : bool
        Whether it may be of bfloat16.

    Raises
    ------
    RuntimeError
        There is no card to run on, with what was found.
    """

    def __init__(self, name: str, value: Any, hosted: bool, bfloat: bool = False) -> None:
        self.like = value
        self.hosted = hosted
        if hosted:
            self.input = backend("transfer").to_device(as_array(name, value, bfloat))
        else:
            self.input = backend("exchange").received(name, value, bfloat)

    def take(self, name: str, value: Any, bfloat: bool = False) -> Any:
        """Another operand: device memory of the same device, whose work is queued as the input's is, or an array of the host."""
        if value is None:
            return None
        array = received(name, value, bfloat)
        if isinstance(array, np.ndarray):
            return array
        if array.device != self.input.device:
            raise ValueError(f"{name} must be on the input's device {self.input.device}, got device {array.device}")
        if array.stream != self.input.stream:
            event = backend("driver").Event()
            event.record(array.stream)
            event.hold(self.input.stream)
            return array.on_stream(self.input.stream)
        return array

    def moved(self, array: Any) -> Any:
        """An operand as device memory, wherever `take` left it."""
        return backend("transfer").to_device(array, self.input.device, self.input.stream) if isinstance(array, np.ndarray) else array

    def conjugate(self, array: Any) -> Any:
        """Complex numbers with the opposite imaginary parts, where they are; others as they are."""
        if array.dtype.kind != "c":
            return array
        return array.conj() if isinstance(array, np.ndarray) else backend("copy").conjugate(array)

    def destination(self, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "out") -> tuple[Any, Any]:
        """The result for the caller, None where `deliver` makes it, and the memory it is computed in; ``out`` is the argument ``name``.

        Raises
        ------
        TypeError, ValueError
            ``out`` is no array of the input's device with this shape and type.
        """
        if self.hosted:
            if out is not None:
                check_out(out, tuple(shape), dtype)
            return out, self.memory(shape, dtype)
        if out is None:
            return backend("exchange").created(self.like, self.input, shape, dtype)
        array = self.take(name, out, True)
        if array.shape != tuple(shape):
            raise ValueError(f"{name} must have shape {tuple(shape)}, got {array.shape}")
        if array.dtype != dtype:
            raise ValueError(f"{name} must have dtype {dtype}, got {array.dtype}")
        if any(stride <= 0 for stride, extent in zip(array.strides, array.shape, strict=True) if extent > 1):
            raise ValueError(f"{name} must have positive strides, got {array.strides}")
        backend("exchange").check_writeable(name, out)
        return out, array

    @property
    def target(self) -> Any:
        """The card, as plans know it."""
        return backend("target").detect(self.input.device)

    def memory(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """A dense array of the device, taken and given back in the order of the stream."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memory = backend("driver").Memory(size, self.input.device, self.input.stream)
        return backend("arrays").DeviceArray(memory.address, shape, None, dtype, self.input.stream, self.input.device, memory)

    def run(
        self, p: Problem, src: Any, wei: Any, bias: Any, dst: Any, fill: Any = 0, algorithm: str | None = None,
        addends: Addends | None = None,
    ) -> None:  # fmt: skip
        """Queue the problem on the input's stream; ``dst`` may share memory with what it reads, ``addends`` among it."""
        target = self.target
        if isinstance(wei, np.ndarray):
            p = looked_at(p, wei, target, algorithm)
        plan = plan_problem(p, target, algorithm=algorithm)
        addend = None if bias is None else backend("copy").addend("b8" if p.masked else p.acc, bias, src.device)
        given = addend if addends is None else addends._replace(bias=addend)
        self.queue(plan, src, packed_on_card(plan, wei, src.device), given, dst, fill)

    def queue(self, plan: Plan, src: Any, packed: Any, addend: Any, dst: Any, fill: Any = 0) -> None:
        """Queue a plan on packed weights and a bias in the type of the sums, or `Addends`."""
        overlap = backend("arrays").overlap
        given = addend if isinstance(addend, Addends) else (addend,)
        if any(overlap(dst, array) for array in (src, packed, *given) if array is not None):
            aside = self.memory(dst.shape, dst.dtype)
            launched(plan, src, packed, aside, fill)(src, packed, addend, aside)
            backend("copy").copied(aside, dst)
        else:
            launched(plan, src, packed, dst, fill)(src, packed, addend, dst)

    def deliver(self, result: Any, dst: Any) -> Any:
        """The caller's result: an array of the host where the input was one, else one of the input's kind."""
        if self.hosted:
            return backend("transfer").to_host(dst, result)
        return backend("exchange").given(self.like, dst) if result is None else result


def packed_on_card(plan: Plan, wei: Any, device: int | None = None) -> Any:
    """A plan's weights as kernels on the device of the source take them.

    Those of a card are packed in the order of their stream, on which the source's work is queued, too; those of the host, on the default
    stream, are there on return, whatever stream reads them.
    """
    if not isinstance(wei, np.ndarray):
        return plan.pack(wei)
    driver = backend("driver")
    driver.current(device)
    with driver.lasting():
        packed: Any = plan.pack(wei)
    driver.settle()
    return packed


def launched(plan: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
    """The prepared launch for arrays of these strides; the same as for others like them before."""
    key = (plan.problem, plan.algorithm, src.strides, packed.strides, dst.strides, src.device, repr(fill))
    launch = _launches.get(key)
    return launch if launch is not None else _launches.keep(key, plan.prepare(src, packed, dst, fill))


def session(device: str | None, name: str, value: Any, bfloat: bool = False, **others: Any) -> Session | None:
    """What runs a call on a card, or None where the call runs on the CPU.

    Parameters
    ----------
    device : None, "cpu" or "cuda"
    name : str
        Of the argument ``value``, which decides; ``others`` are the further arrays by name.
    bfloat : bool
        Whether ``value`` may be of bfloat16.

    Returns
    -------
    Session or None
        None also where ``device="cuda"`` is asked for an array of the host and there is no card: with a warning that says what was
        found.

    Raises
    ------
    TypeError, ValueError
        Arrays of a card and of the host where the input, or ``out``, is the host's; ``device="cpu"`` for arrays of a card.
    RuntimeError
        An array of a card where the backend cannot run: with what was found.
    """
    check_device(device)
    cards = [key for key, array in {name: value, **others}.items() if on_card(array)]
    if not cards and device != "cuda":
        return None
    if cards and name not in cards:
        raise TypeError(f"{name} must be on a CUDA device as {cards[0]} is, got {type(value).__name__}")
    if cards and device == "cpu":
        raise ValueError(f"device must be None or 'cuda' for arrays of a CUDA device, got 'cpu' and {name} of {type(value).__name__}")
    for place in ("out", "output", "dst"):
        if cards and others.get(place) is not None and place not in cards:
            raise TypeError(f"{place} must be on a CUDA device as {name} is, got {type(others[place]).__name__}")
    try:
        if not cards:
            backend("target").detect()
        here = Session(name, value, not cards, bfloat)
        if cards:
            backend("target").detect(here.input.device)
        return here
    except (ImportError, RuntimeError) as error:
        if cards:
            raise RuntimeError(f"{name} is on a CUDA device, where nothing can run: {_words(error)}") from error
        warnings.warn(f"device='cuda' is computed on the CPU: {_words(error)}", RuntimeWarning, stacklevel=4)
        return None


def planned_for(device: str | None, **arrays: Any) -> Any:
    """The card that a plan for these arguments is for, or None for the CPU; as `session`, but shapes may stand for arrays."""
    check_device(device)
    cards = {name: value for name, value in arrays.items() if on_card(value)}
    if not cards and device != "cuda":
        return None
    if cards and device == "cpu":
        raise ValueError(f"device must be None or 'cuda' for arrays of a CUDA device, got 'cpu' and {next(iter(cards))} of one")
    try:
        places = {name: received(name, value, True).device for name, value in cards.items()}
        first = next(iter(places), "")
        for name, place in places.items():
            if place != places[first]:
                raise ValueError(f"{name} must be on the device of {first}, {places[first]}, got device {place}")
        return backend("target").detect(places.get(first))
    except (ImportError, RuntimeError) as error:
        if cards:
            raise RuntimeError(f"{next(iter(cards))} is on a CUDA device, where nothing can run: {_words(error)}") from error
        warnings.warn(f"device='cuda' is planned for the CPU: {_words(error)}", RuntimeWarning, stacklevel=4)
        return None


def cards() -> str:
    """How many CUDA devices the driver finds, or in words why it finds none."""
    try:
        found = int(backend("driver").count())
    except (ImportError, RuntimeError) as error:
        return f"none ({_words(error)})"
    return f"{found} CUDA device{'s' * (found != 1)}"


def _words(error: Exception) -> str:
    return f"install fastconv[cuda] ({error})" if isinstance(error, ImportError) else str(error)
