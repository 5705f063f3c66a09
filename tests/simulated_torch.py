"""torch's own tensors as a card's, in Numba's simulator: what a gradient, a module and a format in memory are to calls on a card.

torch has no card here: its tensors of the host say that they lie on one, and what it makes there it makes on the host.  So its autograd,
its operators and its formats are the real ones.  Run as ``NUMBA_ENABLE_CUDASIM=1 python -m tests.simulated_torch NAME ...``; lines as
`tests.simulated_calls` prints them.
"""

import copy
import itertools
import sys
import types

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import fastconv
from fastconv import nn
from fastconv.cuda import driver
from tests.exporters import Interface
from tests.simulated_calls import report

PLACE = torch.device("cuda", 0)
GENERATOR = torch.Generator().manual_seed(3)


def pretend(patch):
    """Every tensor is on a card, whose current stream is 5."""
    empty = torch.empty
    patch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: True), raising=False)
    patch.setattr(torch.Tensor, "is_cpu", property(lambda tensor: False), raising=False)
    patch.setattr(torch.Tensor, "device", property(lambda tensor: PLACE), raising=False)
    patch.setattr(torch, "empty", lambda shape, dtype, device: empty(shape, dtype=dtype))
    patch.setattr(torch.cuda, "current_stream", lambda device: types.SimpleNamespace(cuda_stream=5))


def whole(*shape, dtype=torch.float32, most=4):
    """Whole numbers, so that sums are exact whatever adds them up."""
    return torch.randint(-most, most + 1, shape, generator=GENERATOR).to(dtype)


def both(function, tensors, weights_of_sum):
    """A function's result and gradients on the host, by torch alone, and on a card."""
    found = []
    for ours in (False, True):
        inputs = [tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_() for tensor in tensors]
        with pytest.MonkeyPatch.context() as inner:
            if ours:
                pretend(inner)
            result = function(nn if ours else torch.nn.functional, *inputs)
            gradients = torch.autograd.grad((result * weights_of_sum).sum(), inputs)
        found.append((result.detach(), *gradients))
    return found


def gradients_of_all_types(patch):
    """Of bfloat16 and float16, too: sums in float32, rounded once."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        tensors = whole(2, 4, 5, 6, dtype=dtype), whole(6, 2, 3, 2, dtype=dtype), whole(6, dtype=dtype)
        weights = whole(2, 6, 3, 3, dtype=dtype, most=2)
        wanted, got = both(lambda f, x, w, b: f.conv2d(x, w, b, (2, 2), (1, 0), 1, 2), tensors, weights)
        for one, other in zip(got, wanted, strict=True):
            assert one.dtype == dtype
            assert torch.equal(one, other), (dtype, one, other)


def gradients_of_transposed_convolutions(patch):
    for dtype in (torch.float32, torch.bfloat16):
        tensors = whole(1, 4, 3, 4, dtype=dtype), whole(4, 2, 3, 3, dtype=dtype), whole(2, dtype=dtype)
        weights = whole(1, 2, 6, 8, dtype=dtype, most=2)
        wanted, got = both(lambda f, x, w, b: f.conv_transpose2d(x, w, b, 2, 1, 1), tensors, weights)
        for one, other in zip(got, wanted, strict=True):
            assert torch.equal(one, other), dtype


def gradients_behind_borders(patch):
    """The copies of a pixel in the border count as the pixel."""
    for mode in ("reflect", "circular", "replicate"):
        for dtype in (torch.float32, torch.bfloat16):
            tensors = whole(1, 2, 4, 5, dtype=dtype), whole(2, 2, 3, 3, dtype=dtype)
            weights = whole(1, 2, 2, 5, dtype=dtype, most=2)

            def convolved(f, x, w, mode=mode):
                if f is nn:
                    return f.conv2d(x, w, None, (2, 1), ((1, 1), (2, 0)), padding_mode=mode)
                return f.conv2d(f.pad(x, (2, 0, 1, 1), mode), w, None, (2, 1))

            wanted, got = both(convolved, tensors, weights)
            for one, other in zip(got, wanted, strict=True):
                assert one.dtype == dtype
                assert torch.equal(one, other), (mode, dtype)


def gradients_of_gradients(patch):
    x, w = whole(1, 2, 4, 4), whole(3, 2, 3, 3)
    found = []
    for ours in (False, True):
        one, other = x.clone().requires_grad_(), w.clone().requires_grad_()
        with pytest.MonkeyPatch.context() as inner:
            if ours:
                pretend(inner)
            y = nn.conv2d(one, other, activation="relu") if ours else torch.relu(torch.nn.functional.conv2d(one, other))
            first = torch.autograd.grad((y * y).sum(), (one, other), create_graph=True)
            found.append(torch.autograd.grad(sum(g.square().sum() for g in first), (one, other)))
    assert all(map(torch.equal, *found))


def a_model_trains(patch):
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3, padding=1), torch.nn.ReLU(), torch.nn.ConvTranspose2d(3, 2, 2, 2)).bfloat16()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(whole(*parameter.shape, most=1))
    x, found = whole(1, 2, 4, 4, dtype=torch.bfloat16, most=2), []
    for ours in (False, True):
        step = copy.deepcopy(model)
        with pytest.MonkeyPatch.context() as inner:
            if ours:
                pretend(inner)
                nn.replace_convs(step)
            optimizer = torch.optim.SGD(step.parameters(), lr=0.5, foreach=False)
            step(x).sum().backward()
            optimizer.step()
        found.append([parameter.detach() for parameter in step.parameters()])
    assert all(map(torch.equal, *found))


def channels_last(patch):
    """What lies so in memory is convolved as NHWC, and gives what lies so, whether torch records it or not."""
    x, w, b = whole(2, 8, 5, 6), whole(6, 8, 3, 3), whole(6)
    residual, kernels = whole(2, 6, 5, 6), []
    wanted = torch.nn.functional.conv2d(x, w, b, padding=1)
    back = torch.nn.functional.conv_transpose2d(x, w.transpose(0, 1), None, 2)
    launch = driver.Launch.__call__
    patch.setattr(driver.Launch, "__call__", lambda this, *rest: (kernels.append(this._kernel.name), launch(this, *rest))[1])
    pretend(patch)
    last = x.to(memory_format=torch.channels_last)
    epilogue = nn.Epilogue(residual=residual, activation="relu")
    out = torch.zeros_like(wanted)
    before = out._version
    for result, expected in (
        (nn.conv2d(last, w, b, padding=1, algorithm="implicit_gemm"), wanted),
        (nn.conv2d(last, w.numpy(), b, padding=1, algorithm="implicit_gemm"), wanted),
        (nn.conv2d(last, w, b, padding=1, out=out, algorithm="implicit_gemm"), wanted),
        (nn.conv2d(last, w, b, padding=1, epilogue=epilogue, algorithm="implicit_gemm"), torch.relu(wanted + residual)),
        (nn.conv2d(last.clone().requires_grad_(), w, b, padding=1, algorithm="implicit_gemm").detach(), wanted),
        (nn.conv_transpose2d(last, w.transpose(0, 1), None, 2), back),
    ):
        assert torch.equal(result, expected)
        assert result is out or result.is_contiguous(memory_format=torch.channels_last)
    assert out._version > before, "torch is told that it was written"
    assert sum("_nhwc8" in name for name in kernels) == 5, kernels
    with torch.no_grad():
        assert nn.conv2d_input(x.shape, w, wanted.to(memory_format=torch.channels_last), 1, 1).is_contiguous(
            memory_format=torch.channels_last
        )


def results_in_tracing(patch):
    """Fake tensors of a card have the device, type, extents and strides of what kernels make there; a traced graph has the operators."""
    calls = (
        lambda x, w, b, v, y: nn.conv2d(x, w, b, 2, 1, groups=2, activation="relu"),
        lambda x, w, b, v, y: nn.conv_transpose2d(x, v, None, 2, 1, 1), lambda x, w, b, v, y: nn.conv2d_input(x.shape, w, y, 2, 1, 1, 2),
        lambda x, w, b, v, y: nn.conv2d_weight(x, w.shape, y, 2, 1, 1, 2),
    )  # fmt: skip
    for dtype, last in itertools.product((torch.float32, torch.bfloat16), (False, True)):
        inputs = [whole(*shape, dtype=dtype) for shape in ((1, 4, 5, 4), (2, 2, 3, 3), (2,), (4, 3, 1, 1), (1, 2, 3, 2))]
        if last:
            inputs[0], inputs[4] = (inputs[n].to(memory_format=torch.channels_last) for n in (0, 4))
        with FakeTensorMode(), torch.no_grad():
            fakes = [torch.empty_strided(x.shape, x.stride(), dtype=dtype, device="cuda") for x in inputs]
            fake = [call(*fakes) for call in calls]
            graph = make_fx(lambda *tensors: [call(*tensors) for call in calls])(*fakes).graph
        with pytest.MonkeyPatch.context() as inner, torch.no_grad():
            pretend(inner)
            made = [call(*inputs) for call in calls]
        for one, other in zip(fake, made, strict=True):
            assert one.device == PLACE
            assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride()), (dtype, last)
        used = [str(node.target) for node in graph.nodes if str(node.target).startswith("fastconv")]
        assert used == [f"fastconv.{name}.default" for name in ("conv2d", "conv_transpose2d", "conv2d_input", "conv2d_weight")]


def views_that_torch_has_not_computed(patch):
    """A conjugate is a flag of a view: its memory holds other numbers."""
    x = torch.complex(whole(5, 6), whole(5, 6))
    wanted = fastconv.correlate2d(x.conj().resolve_conj().numpy(), np.ones((2, 2)))
    negative = fastconv.correlate2d(x.conj().imag.resolve_neg().numpy(), np.ones((2, 2)))
    pretend(patch)
    for view, expected in ((x.conj(), wanted), (x.conj().imag, negative)):
        got = fastconv.correlate2d(view, np.ones((2, 2)))
        np.testing.assert_array_equal(got.numpy(), expected)
    with pytest.raises(TypeError, match="out must not be a conjugate or negative view"):
        fastconv.correlate2d(x, np.ones((2, 2)), out=torch.zeros(6, 7, dtype=torch.complex128).conj())


def what_is_refused(patch):
    pretend(patch)
    x, w = whole(1, 2, 4, 4).requires_grad_(), whole(3, 2, 3, 3)
    for error, words, call in (
        (TypeError, "epilogue must be None for tensors that torch records", lambda: nn.conv2d(x, w, epilogue=nn.Epilogue(scale=2.0))),
        (TypeError, "out must be None for tensors that torch records", lambda: nn.conv2d(x, w, out=torch.zeros(1, 3, 2, 2))),
        (TypeError, "device must be None for tensors, got 'cpu'", lambda: nn.conv2d(x, w, device="cpu")),
        (TypeError, "weight must be a torch.Tensor", lambda: nn.conv2d(x, Interface(w.numpy()))),
        (RuntimeError, "expected scalar type Float but found Double", lambda: nn.conv2d(x, w.double())),
        (TypeError, "input must not require a gradient", lambda: fastconv.plan(x, w)),
        (TypeError, "in1 must not require a gradient", lambda: fastconv.correlate2d(x[0, 0], w[0, 0])),
    ):
        with pytest.raises(error, match=words):
            call()
    assert nn.conv2d(x, w, device="cuda").requires_grad
    with torch.no_grad():
        assert not nn.conv2d(x, w, out=torch.zeros(1, 3, 2, 2)).requires_grad


CALLS = {function.__name__: function for function in (
    gradients_of_all_types, gradients_of_transposed_convolutions, gradients_behind_borders, gradients_of_gradients, a_model_trains,
    channels_last, results_in_tracing, views_that_torch_has_not_computed, what_is_refused,
)}  # fmt: skip


def main():
    report({name: CALLS[name] for name in sys.argv[1:] or CALLS})


if __name__ == "__main__":
    main()
