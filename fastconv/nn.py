"""torch.nn.functional's convolutions on arrays: any padding, border, layout, bias and activation, planned or at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np

from .epilogue import Epilogue, card_finisher, epilogue_text, finisher, in_problem, sums_type
from .gradients import conv2d_input, conv2d_weight, conv_transpose2d, run_on_card
from .planning.addends import Addends, bias_of, ready
from .planning.arguments import as_array, check_choices, choice, exact, group_count, pair, result_type, spans
from .planning.calls import Calls, GivenWeights, View, delivered, destination, prepared
from .planning.card import CardPlan, for_card
from .planning.devices import planned_for, received, session
from .planning.layout import PADDING_MODES, arranged, bias_array, check_channels, checked_bias, paddings, views_of, weights_name
from .planning.passes import bound, with_addends
from .planning.planner import MOST_PLANS, explain_problem, plan_problem
from .planning.plans import Plan
from .planning.problem import DTYPES, Problem, accumulator, dtype_name
from .planning.structure import rivals_of, structured
from .planning.thread_count import thread_count
from .tensors import detached, is_tensor, of_tensors, of_torch, torch_ops

__all__ = ["Epilogue", "conv2d", "conv2d_input", "conv2d_weight", "conv_transpose2d", "explain", "plan", "replace_convs"]


class _Parsed(NamedTuple):
    """A call reduced to its problem: what every array of these shapes and types has in common."""

    problem: Problem
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    image: View
    weights: View


_calls: Calls[GivenWeights] = Calls(MOST_PLANS)


def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", data_format: str = "NCHW", activation: Any = None, epilogue: Epilogue | None = None,
    out: np.ndarray | None = None, dtype: Any = None, precision: str = "default", threads: int | None = None,
    device: str | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """2-D convolution of images, as `torch.nn.functional.conv2d`: cross-correlation without conjugation.

    Parameters
    ----------
    input : array_like
        ``(n, c, h, w)``, one image ``(c, h, w)``, or one plane ``(h, w)``; channels last with ``data_format="NHWC"``.  A `torch.Tensor` on
        the CPU or a card, with weight and bias of its type, gives one, and gradients.
    weight : array_like
        ``(oc, c/groups, kh, kw)``; with ``"NHWC"`` ``(kh, kw, c/groups, oc)``; for one plane ``(kh, kw)``.
    bias : array_like, optional
        ``(oc,)``; a scalar for one plane.
    stride, dilation : int or (int, int)
    padding : int, (int, int), ((top, bottom), (left, right)), "valid", "same", "same_lower" or "full"
        ``"same"`` has ``ceil(n / stride)`` outputs for any stride, the odd pixel of padding at the end (``"same_lower"``: at the start).
    groups : int
    padding_mode : {"zeros", "reflect", "symmetric", "replicate", "circular"}
        ``"reflect"`` does not repeat the edge pixel, ``"symmetric"`` does; any width, repeating as `numpy.pad` does.
    data_format : {"NCHW", "NHWC", "channels_first", "channels_last"}
    activation : str or ("leaky_relu", slope), optional
        relu, relu6, sigmoid, tanh, silu or gelu (the exact one).
    epilogue : Epilogue, optional
        Scale, shift, residual, activation and type applied to the sums.
    out : ndarray, optional
        Receives and is the result: exact shape and type, writeable, any positive strides.
    dtype : dtype, optional
        Of the result; ``numpy.result_type(input, weight)`` by default.  Integers wrap in it, float16 and bfloat16 sum in float32.
    precision : {"strict", "default", "fast"}
        ``"strict"``: direct sums only.
    threads : int, optional
    device : None, "cpu" or "cuda"
        Where to run: None is where the input is. On "cuda" NumPy input is copied there and the result back.
    algorithm : str, optional
        A name that `explain` lists; ValueError with its reason if it cannot run.

    Returns
    -------
    ndarray
        C-contiguous, in the input's layout and number of dimensions.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and what is allowed, before anything is written.

    Examples
    --------
    >>> import numpy as np
    >>> conv2d(np.arange(9.0).reshape(3, 3), np.ones((3, 3)), padding="same")
    array([[ 8., 15., 12.],
           [21., 36., 27.],
           [20., 33., 24.]])
    >>> conv2d(np.ones((1, 512, 512, 1), "f4"), np.ones((3, 3, 1, 8), "f4"), stride=(2, 1), data_format="NHWC").shape
    (1, 255, 510, 8)
    """
    if input.__class__ is not np.ndarray and of_torch(data_format, input, weight, bias):
        return torch_ops().conv2d(input, weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation, epilogue,
                                  out, dtype, precision, threads, device, algorithm)  # fmt: skip
    count = thread_count(threads)
    key: tuple[Any, ...] | None = None
    if (
        epilogue is None
        and type(input) is np.ndarray
        and type(weight) is np.ndarray
        and (bias is None or type(bias) is np.ndarray)
        and (out is None or type(out) is np.ndarray)
    ):
        place = None if out is None else (out.shape, out.strides, out.dtype)
        kinds: tuple[Any, ...] = (stride.__class__, padding.__class__, dilation.__class__, groups.__class__)
        if tuple in kinds or activation.__class__ is tuple:
            kinds = exact(stride, padding, dilation, groups, activation)
        key = (place, input.shape, input.strides, input.dtype, weight.shape, weight.strides, weight.dtype,
               bias is None or (bias.shape, bias.strides, bias.dtype), stride, padding, dilation, groups, kinds, padding_mode,
               data_format, activation, dtype, precision, count, device, algorithm)  # fmt: skip
        call = _calls.find(key)
        if call is not None:
            result = call.result((input, weight, bias)) if out is None else call.into((input, weight, bias), out)
            if result is not None:
                return result
    check_choices(precision)
    here = session(device, "input", input, True, weight=weight, bias=bias, out=out)
    if here is not None:
        input, weight, bias = here.input, here.take("weight", weight, True), here.take("bias", bias, True)
    else:
        input, weight = as_array("input", input, True), as_array("weight", weight, True)
    if epilogue is not None and activation is not None:
        raise ValueError("activation must be None where an epilogue is given: it has one of its own")
    dtype = dtype if epilogue is None else sums_type(epilogue, input.dtype, weight.dtype, dtype)
    parsed = _parse(input.shape, input.dtype, weight.shape, weight.dtype, bias is not None, stride, padding, dilation, groups,
                    padding_mode, data_format, activation, dtype, precision)  # fmt: skip
    if here is not None:
        addend, kind = checked_bias(bias, parsed.problem.oc, weight.ndim), (parsed.shape, parsed.dtype, parsed.problem.src_layout)
        last = None if epilogue is None else card_finisher(epilogue, *kind, parsed.image, here.take, input.device, here.moved)
        return run_on_card(here, for_card(parsed.problem, weight.dtype), parsed.image(input), parsed.weights(weight), addend, parsed.shape,
                           parsed.image, out, algorithm, last, parsed.dtype if last is None else last.dtype)  # fmt: skip
    if epilogue is not None:
        fused = in_problem(epilogue, parsed.problem, parsed.shape, parsed.dtype, parsed.image)
        if fused is not None:
            return _with_epilogue(*fused, parsed, input, weight, bias, out, count, algorithm)
        finish = finisher(epilogue, parsed.shape, parsed.dtype, parsed.problem.src_layout, out)
        return finish(conv2d(input, weight, bias, stride, padding, dilation, groups, padding_mode=padding_mode, data_format=data_format,
                             dtype=dtype, precision=precision, threads=count, device=device, algorithm=algorithm))  # fmt: skip
    bias = bias_array(bias, parsed.problem.oc, weight.ndim, parsed.problem.acc)
    dst = destination(out, parsed.shape, parsed.dtype, input, weight, bias)
    if not dst.size:
        return delivered(dst, out)
    p = parsed.problem
    named = p if algorithm is None else structured(p, parsed.weights(weight), algorithm)
    call = prepared(plan_problem(named, threads=count, algorithm=algorithm), parsed.shape, parsed.dtype, parsed.image, parsed.weights,
                    (input, weight, dst), rivals=rivals_of(p, count, algorithm))  # fmt: skip
    # a plan for these weights alone is not kept for others of their shape
    return _calls.first(key if named is p else None, call, (input, weight, bias), out, dst)


def _with_epilogue(
    p: Problem, addends: Addends, parsed: _Parsed, input: np.ndarray, weight: np.ndarray, bias: Any, out: np.ndarray | None, threads: int,
    algorithm: str | None,
) -> np.ndarray:  # fmt: skip
    """The convolution of a problem whose epilogue reads ``addends`` besides the bias."""
    bias = bias_array(bias, p.oc, weight.ndim, p.acc)
    dst = destination(out, parsed.shape, DTYPES[p.dst], input, weight, bias, addends.residual)
    if dst.size:
        if bias is not None:
            addends = addends._replace(bias=np.ascontiguousarray(bias.reshape(-1), DTYPES[p.acc]))
        plan = plan_problem(p, threads=threads, algorithm=algorithm)
        plan.run(parsed.image(input), plan.pack(parsed.weights(weight)), cast("np.ndarray", addends), parsed.image(dst))
    return delivered(dst, out)


def _parse(
    shape: tuple[int, ...], dtype: np.dtype[Any], weight_shape: tuple[int, ...], weight_dtype: np.dtype[Any], bias: bool,
    stride: Any, padding: Any, dilation: Any, groups: Any, padding_mode: Any, data_format: Any, activation: Any,
    result_dtype: Any, precision: str,
) -> _Parsed:  # fmt: skip
    layout = arranged(data_format, shape, weight_shape, (2, 3, 4))
    choice("padding_mode", padding_mode, PADDING_MODES)
    g = group_count(groups)
    (n, ic, ih, iw), (oc, icg, kh, kw) = layout.extents(shape), layout.filters(weight_shape)
    check_channels(ic, g, oc, icg, weight_shape)
    (sh, sw), (dh, dw) = pair("stride", stride, 1), pair("dilation", dilation, 1)
    (pt, pb), (pl, pr) = paddings(padding, (ih, iw), spans((kh, kw), (dh, dw)), (sh, sw))
    name = dtype_name(result := result_type(dtype, weight_dtype, result_dtype))
    p = Problem(
        n=n, g=g, ic=ic, ih=ih, iw=iw, oc=oc, kh=kh, kw=kw, sh=sh, sw=sw, dh=dh, dw=dw, pt=pt, pb=pb, pl=pl, pr=pr,
        border=PADDING_MODES[padding_mode], src=dtype_name(dtype), wei=weights_name(weight_dtype), dst=name, acc=accumulator(name),
        src_layout=layout.name, wei_layout=layout.weights_name, epilogue=epilogue_text(bias, activation, result), precision=precision,
    )  # fmt: skip
    of_result = result if name == "bf16" else DTYPES[name]
    return _Parsed(p, layout.shape(n, oc, p.oh, p.ow), of_result, *views_of(layout, dtype, weight_dtype, result))


@dataclass(slots=True)
class _Held:
    """What a call of a plan reads: the plan for its weights, these packed (None where calls give them), addends, and remembered calls."""

    plan: Plan
    packed: np.ndarray | None = None
    bias: Any = None  # or `Addends` that are ready
    calls: Calls[Any] = field(default_factory=lambda: Calls(MOST_PLANS, float("inf")))  # of passes of ``packed``, or of given weights


class ConvolutionPlan(Plan):
    """What `plan` returns: a plan bound to the caller's shapes and, where they were given, to weights.

    ``plan(x, out=None)``, or ``plan(x, weight, bias, out=None)`` where the weight was given as a shape.  Usable from many
    threads at once; pickles as its arguments and weights, and is planned anew where it is loaded.
    """

    __slots__ = ("_addends", "_arguments", "_held", "_how", "_input_shape", "_input_type", "_parsed", "_weight",
                 "_weight_shape", "_weight_type")  # fmt: skip

    def __init__(self, arguments: dict[str, Any], weight: np.ndarray | None, bias: np.ndarray | None) -> None:
        settings = dict(arguments)
        self._arguments = arguments
        self._input_shape, self._input_type = settings.pop("input")
        self._weight_shape, self._weight_type = settings.pop("weight")
        self._how = {name: settings.pop(name) for name in ("threads", "algorithm", "effort")}
        self._parsed, self._addends = _parse_with(self._input_shape, self._input_type, self._weight_shape, self._weight_type, settings)
        self._weight: np.ndarray | None = None
        # one attribute, so that a call beside `set_weight` sees the old weights or the new ones
        self._held = _Held(self._choose(weight))
        if weight is not None:
            self.set_weight(weight, bias)

    def _choose(self, weight: np.ndarray | None) -> Plan:
        """The plan for these weights, or for any; its attributes become this one's."""
        parsed = self._parsed
        p = structured(parsed.problem, None if weight is None else parsed.weights(weight), self._how["algorithm"])
        chosen = plan_problem(p, **self._how)
        if self._addends is not None:
            chosen = with_addends(chosen, self._addends)
        for name in Plan.__slots__:
            setattr(self, name, getattr(chosen, name))
        return chosen

    def set_weight(self, weight: Any, bias: Any = None) -> None:
        """Pack other weights of the same shape and type; both are copied.

        Raises
        ------
        TypeError, ValueError
            Another shape or type, or a bias where the plan has none (or none where it has one).
        """
        weight, bias = self._checked_weight(weight, bias)
        weight = weight.copy()
        plan, former = self._choose(weight), self._held
        addends: Any = bias
        if self._addends is not None:
            addends = ready(plan.problem, self._addends._replace(bias=bias))
        held = _Held(plan, plan.pack(self._parsed.weights(weight)), addends)
        if plan is former.plan:
            for key, call in former.calls.copy().items():
                held.calls.keep(key, call.holding(held.packed, addends))
        self._held, self._weight = held, weight

    def _checked_weight(self, weight: Any, bias: Any) -> tuple[np.ndarray, np.ndarray | None]:
        weight, bias = as_array("weight", detached(weight), True), detached(bias)
        if weight.shape != self._weight_shape or weight.dtype != self._weight_type:
            raise ValueError(f"weight must have shape {self._weight_shape} and dtype {self._weight_type} as planned, "
                             f"got {weight.shape} and {weight.dtype}")  # fmt: skip
        bias = bias_array(bias, self.problem.oc, weight.ndim, self.problem.acc)
        if (bias is not None) != self.problem.epilogue.startswith("bias"):
            raise ValueError(f"bias must be given exactly where the plan has one, got {'none' if bias is None else 'one'}")
        return weight, None if bias is None else bias.astype(DTYPES[self.problem.acc])

    def __call__(self, input: Any, weight: Any = None, bias: Any = None, *, out: np.ndarray | None = None) -> np.ndarray:
        """Convolve an image of the planned shape and type.

        Raises
        ------
        TypeError, ValueError
            Another shape or type; weights where the plan holds some, or none where it does not.
        """
        held, parsed, array = self._held, self._parsed, np.ndarray
        key: tuple[Any, ...] | None = None
        if weight is None and bias is None and type(input) is array and (out is None or type(out) is array):
            key = (None if out is None else (out.shape, out.strides, out.dtype), input.shape, input.strides, input.dtype)
            call = held.calls.get(key)
            if call is not None:
                result: np.ndarray | None = call.result((input,)) if out is None else call.into((input,), out)
                if result is not None:
                    return result
        if is_tensor(input) or is_tensor(out):
            return of_tensors(lambda *given: self(*given[:-1], out=given[-1]), {"input": input, "weight": weight, "bias": bias}, out)
        input = as_array("input", input, True)
        if input.shape != self._input_shape or input.dtype != self._input_type:
            raise ValueError(f"input must have shape {self._input_shape} and dtype {self._input_type} as planned, "
                             f"got {input.shape} and {input.dtype}")  # fmt: skip
        packed = held.packed
        if (weight is None) != (packed is not None) or (packed is not None and bias is not None):
            raise ValueError("weight and bias must be given exactly where the plan was made from a weight's shape")
        if packed is None:
            weight, bias = self._checked_weight(weight, bias)
            dst = destination(out, parsed.shape, parsed.dtype, input, weight, bias)
            key = (dst.strides, input.strides, weight.strides)
            call = held.calls.find(key)
            if call is None:
                call = prepared(held.plan, parsed.shape, parsed.dtype, parsed.image, parsed.weights, (input, weight, dst))
            return held.calls.first(key, call, (input, weight, bias), out, dst)
        dst = destination(out, parsed.shape, parsed.dtype, input)
        call = bound(held.plan, packed, input, dst, parsed.image, parsed.image, bias=held.bias)
        return held.calls.first(key, call, (input,), out, dst)

    def __reduce__(self) -> tuple[Any, ...]:
        return ConvolutionPlan, (self._arguments, self._weight, bias_of(self._held.bias))


def _parse_with(
    shape: tuple[int, ...], dtype: np.dtype[Any], weight_shape: tuple[int, ...], weight_dtype: np.dtype[Any], settings: dict[str, Any]
) -> tuple[_Parsed, Addends | None]:
    """`_parse` with an ``epilogue`` among the settings, and what it reads."""
    epilogue = settings.pop("epilogue")
    settings["result_dtype"] = sums_type(epilogue, dtype, weight_dtype, settings["result_dtype"])
    parsed = _parse(shape, dtype, weight_shape, weight_dtype, **settings)
    if epilogue is None:
        return parsed, None
    if settings["activation"] is not None:
        raise ValueError("activation must be None where an epilogue is given: it has one of its own")
    fused = in_problem(epilogue, parsed.problem, parsed.shape, parsed.dtype, parsed.image)
    if fused is None or fused[1].residual is not None:
        raise ValueError("epilogue must have scale or shift in a plan, of the sums' own float type (float32 for integers of 32 bits), "
                         "and no residual")  # fmt: skip
    return parsed._replace(problem=fused[0], dtype=DTYPES[fused[0].dst]), fused[1]


def _described(name: str, value: Any, dtype: Any) -> tuple[tuple[int, ...], np.dtype[Any], np.ndarray | None]:
    """Shape and type of an array, or of a shape given in its place."""
    if isinstance(value, tuple) and all(hasattr(extent, "__index__") for extent in value):
        return tuple(extent.__index__() for extent in value), np.dtype(np.float32 if dtype is None else dtype), None
    array = received(name, detached(value), True)
    return array.shape, array.dtype, array


def _arguments(
    input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any, padding_mode: Any, data_format: Any,
    activation: Any, epilogue: Any, dtype: Any, precision: Any, threads: Any, device: Any, algorithm: Any, effort: str,
) -> tuple[dict[str, Any], np.ndarray | None]:  # fmt: skip
    check_choices(precision)
    shape, input_type, _ = _described("input", input, dtype)
    weight_shape, weight_type, weights = _described("weight", weight, dtype)
    return {
        "input": (shape, input_type), "weight": (weight_shape, weight_type), "bias": bias is not None and bias is not False,
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": padding_mode,
        "data_format": data_format, "activation": activation, "result_dtype": dtype, "precision": precision,
        "threads": thread_count(threads), "algorithm": algorithm, "effort": effort, "epilogue": epilogue,
    }, weights  # fmt: skip


def plan(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", data_format: str = "NCHW", activation: Any = None, epilogue: Epilogue | None = None, dtype: Any = None,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
    effort: str = "estimate",
) -> ConvolutionPlan | CardPlan:  # fmt: skip
    """Decide once how to convolve, pack the weights, and run many times: `conv2d`'s arguments.

    Parameters
    ----------
    input : array_like or shape
        Only shape and type matter; a tuple of ints is a shape (of ``dtype``, float32 by default).
    weight : array_like or shape
        Copied.  With a shape, the plan is called with weights: ``plan(x, weight, bias)``.
    bias : array_like or bool, optional
        True with a weight's shape: the calls will give a bias.
    epilogue : Epilogue, optional
        Scale, shift (copied), activation and type; no residual.
    effort : {"estimate", "measure"}
        ``"measure"`` times what can run and keeps the fastest, which waives the promise of the same bits.

    Returns
    -------
    ConvolutionPlan
        Call it (a `torch.Tensor` gives one, without a gradient); print it; ``set_weight`` repacks.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and what is allowed; among them an ``algorithm`` that cannot run, and an ``effort`` of
        ``"measure"`` for arrays too large to make.

    Examples
    --------
    >>> import numpy as np
    >>> blur = plan((5, 5), np.ones((3, 3), "f4"), padding="same")
    >>> blur(np.ones((5, 5), "f4"))[0]
    array([4., 6., 6., 6., 4.], dtype=float32)
    """
    arguments, weights = _arguments(input, weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation,
                                    epilogue, dtype, precision, threads, device, algorithm, effort)  # fmt: skip
    if weights is not None and isinstance(bias, bool):
        raise TypeError(f"bias must be an array or None where weight is an array, got {bias!r}")
    target = planned_for(device, input=input, weight=weight, bias=bias)
    if target is not None:
        return _card_plan(arguments, target, weights, bias if weights is not None else None)
    return ConvolutionPlan(arguments, weights, bias if weights is not None else None)


def _card_plan(arguments: dict[str, Any], target: Any, weight: Any, bias: Any) -> CardPlan:
    settings = dict(arguments)
    if settings.pop("effort") != "estimate":
        raise ValueError("effort must be 'estimate' on a CUDA device")
    epilogue, algorithm, _ = settings.pop("epilogue"), settings.pop("algorithm"), settings.pop("threads")
    image, weights = settings.pop("input"), settings.pop("weight")
    settings["result_dtype"] = sums_type(epilogue, image[1], weights[1], settings["result_dtype"])
    parsed, finish, addends = _parse(*image, *weights, **settings), None, None
    parsed = parsed._replace(problem=for_card(parsed.problem, weights[1]))
    if epilogue is not None:
        finish = card_finisher(epilogue, parsed.shape, parsed.dtype, parsed.problem.src_layout, parsed.image, received)
        fused = finish.fused(parsed.problem, target, algorithm)
        if fused is not None:
            parsed, addends, finish = parsed._replace(problem=fused[0], dtype=finish.dtype), fused[1], None
    made = CardPlan(parsed, image, weights, target, algorithm, partial(_card_plan, arguments, target), finish, addends)
    if weight is not None:
        made.set_weight(weight, bias)
    return made


def explain(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", data_format: str = "NCHW", activation: Any = None, epilogue: Epilogue | None = None, dtype: Any = None,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
) -> str:  # fmt: skip
    """What `conv2d` would do and why: every algorithm's predicted cost or reason, and the plan.

    Parameters
    ----------
    input, weight, bias
        See `plan`; nothing is computed or packed.
    stride, padding, dilation, groups, padding_mode, data_format, activation, epilogue, dtype, precision, threads, device, algorithm
        See `conv2d`.

    Returns
    -------
    str
        The problem, the target, one line for each algorithm (milliseconds of one image on one thread, or why not), the plan.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and what is allowed.

    Examples
    --------
    >>> print(explain((1, 64, 56, 56), (64, 64, 3, 3), padding=1))  # doctest: +ELLIPSIS
    n1_ic64ih56iw56_oc64kh3kw3_pt1pb1pl1pr1_f32
    ...
    plan: ...
    """
    arguments, weights = _arguments(input, weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation,
                                    epilogue, dtype, precision, threads, device, algorithm, "estimate")  # fmt: skip
    (shape, input_type), (weight_shape, weight_type) = arguments.pop("input"), arguments.pop("weight")
    count, _ = arguments.pop("threads"), arguments.pop("effort")
    arguments.pop("algorithm")
    parsed, _ = _parse_with(shape, input_type, weight_shape, weight_type, arguments)
    target = planned_for(device, input=input, weight=weight, bias=bias)
    if target is not None:
        return explain_problem(for_card(parsed.problem, weight_type), target, algorithm=algorithm)
    p = structured(parsed.problem, None if weights is None else parsed.weights(weights), algorithm)
    return explain_problem(p, threads=count, algorithm=algorithm)


def replace_convs(model: Any) -> Any:
    """Make the Conv2d and ConvTranspose2d modules of a torch model run on fastconv's kernels, in place.

    Parameters, hooks and the names in the state dict stay as they are; subclasses of the two are left alone.

    Parameters
    ----------
    model : torch.nn.Module
        On the CPU or a card when it is called; of float32, float64, float16 or bfloat16.

    Returns
    -------
    torch.nn.Module
        The model itself.

    Raises
    ------
    ImportError
        torch is not installed.

    Examples
    --------
    >>> import pytest
    >>> torch = pytest.importorskip("torch", reason="torch is not installed: its modules are not replaced")
    >>> model = replace_convs(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3), torch.nn.ReLU()))
    >>> type(model[0]).__module__, model(torch.ones(1, 1, 5, 5)).shape
    ('fastconv.torch_ops', torch.Size([1, 1, 3, 3]))
    """
    return torch_ops().replace_convs(model)
