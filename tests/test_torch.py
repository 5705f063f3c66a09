"""fastconv.nn with torch's tensors: values, gradients, tracing, and whole models."""

import copy

import numpy as np
import pytest

import fastconv
from fastconv import nn
from tests.oracles import assert_as_near, assert_close, assert_same_bits, peer_bound

torch = pytest.importorskip("torch", reason="torch is not installed: its tensors and models are not convolved")
functional = torch.nn.functional

CALLS = [
    {},
    {"stride": (2, 1), "padding": (1, 0)},
    {"groups": 2, "dilation": 2, "padding": 2},
    {"padding": "same"},
]
TRANSPOSED = [
    {},
    {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2)},
    {"stride": 2, "groups": 2, "dilation": 2},
    {"padding": 1, "output_padding": 2, "dilation": 3},
]


def tensors(*shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for shape in shapes]


def gradients(result, inputs, seed=1):
    """Of a random weighted sum of the results."""
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(result.dtype)
    return torch.autograd.grad((result * weights).sum(), inputs)


def pairs():
    for call in CALLS:
        groups = call.get("groups", 1)
        yield nn.conv2d, functional.conv2d, [(2, 4, 9, 11), (6, 4 // groups, 3, 2), (6,)], call
    for call in TRANSPOSED:
        groups = call.get("groups", 1)
        yield nn.conv_transpose2d, functional.conv_transpose2d, [(2, 4, 5, 6), (4, 6 // groups, 3, 2), (6,)], call


def named(value):
    """A parameter's id: the same in every process."""
    return getattr(value, "__name__", str(value)[:60])


@pytest.mark.parametrize(("ours", "theirs", "shapes", "call"), list(pairs()), ids=named)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_values_and_gradients(ours, theirs, shapes, call):
    inputs = tensors(*shapes)
    result, expected = ours(*inputs, **call), theirs(*inputs, **call)
    absolute = [x.detach().abs().double().requires_grad_() for x in inputs]
    magnitude = theirs(*absolute, **call)
    of_gradients = torch.autograd.grad(magnitude.sum() * 4, absolute)  # of cotangents of magnitude 4 at most
    assert result.dtype == expected.dtype
    assert_close(result.detach(), expected.detach(), peer_bound("f4", 24, magnitude.detach()))
    theirs_back = gradients(expected, inputs)
    for one, other, scale in zip(gradients(result, inputs), theirs_back, of_gradients, strict=True):
        assert_close(one, other, peer_bound("f4", result.numel(), scale))
    # channels last in memory, and as a format
    last = [x.detach().to(memory_format=torch.channels_last) if x.dim() == 4 else x.detach() for x in inputs]
    turned = ours(*last, **call)
    assert turned.is_contiguous(memory_format=torch.channels_last)
    assert_close(turned, expected.detach(), peer_bound("f4", 24, magnitude.detach()))
    formatted = [x.detach().permute(*order).contiguous().requires_grad_() if order else x for x, order in
                 zip(inputs, ((0, 2, 3, 1), (2, 3, 1, 0), None), strict=True)]  # fmt: skip
    result = ours(*formatted, data_format="NHWC", **call)
    assert_close(result.detach().permute(0, 3, 1, 2), expected.detach(), peer_bound("f4", 24, magnitude.detach()))
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).float()
    found = torch.autograd.grad((result * weights.permute(0, 2, 3, 1)).sum(), formatted)
    back = found[0].permute(0, 3, 1, 2), found[1].permute(3, 2, 0, 1), found[2]
    for one, other, scale in zip(back, theirs_back, of_gradients, strict=True):
        assert_close(one, other, peer_bound("f4", result.numel(), scale))


@pytest.mark.parametrize(("ours", "call", "shapes"), [
    (nn.conv2d, {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "groups": 2, "activation": "tanh"}, [(1, 2, 4, 3), (2, 1, 2, 2), (2,)]),
    (nn.conv2d, {"padding": 1, "padding_mode": "circular"}, [(1, 1, 3, 3), (1, 1, 2, 2)]),
    (nn.conv_transpose2d, {"stride": 2, "output_padding": 1, "activation": "gelu"}, [(1, 2, 2, 2), (2, 1, 2, 2), (1,)]),
], ids=named)  # fmt: skip
def test_finite_differences(ours, call, shapes):
    inputs = tensors(*shapes, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *x: ours(*x, **call), inputs)
    assert torch.autograd.gradgradcheck(lambda *x: ours(*x, **call), inputs)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_for_changing_shapes(backend):
    torch._dynamo.reset()

    def layers(x, w, b, v):
        return nn.conv_transpose2d(nn.conv2d(x, w, b, 2, 1, activation="relu"), v, None, 2, output_padding=1).square()

    _, *weights = tensors((1, 3, 8, 8), (4, 3, 3, 3), (4,), (4, 2, 2, 2))
    compiled = torch.compile(layers, backend=backend, fullgraph=True)
    for number, shape in enumerate(((1, 3, 8, 8), (2, 3, 9, 12), (3, 3, 14, 11))):
        (x,) = tensors(shape, seed=number)
        result, expected = compiled(x, *weights), layers(x, *weights)
        assert_same_bits(result.detach().numpy(), expected.detach().numpy())
        for one, other in zip(gradients(result, (x, *weights)), gradients(expected, (x, *weights)), strict=True):
            assert_same_bits(one.numpy(), other.numpy())
    torch._dynamo.reset()


def test_operators_keep_torchs_rules():
    """Schema, shapes and strides in tracing, registration of gradients."""
    from torch import library

    nn.conv2d(*(tensor.detach() for tensor in tensors((1, 1, 3, 3), (1, 1, 3, 3))))  # the first call with tensors registers them
    x, w, b, y = tensors((2, 4, 6, 7), (6, 2, 3, 3), (6,), (2, 6, 4, 5))
    rest = [1, 1], [0, 0, 0, 0], [1, 1], 2, "zeros", "NCHW"
    v = w.detach()[:4].clone().requires_grad_()
    for name, arguments in (("conv2d", (x, w, b, *rest, "", "default", 0, "")),
                            ("conv2d_input", (list(x.shape), w, y, *rest, "default", 0)),
                            ("conv2d_weight", (x, list(w.shape), y, *rest, "default", 0)),
                            ("conv_transpose2d", (x, v, None, [2, 1], [1, 0], [1, 0], 2, [1, 1], "NCHW", "", "default", 0, "")),
                            ):  # fmt: skip
        library.opcheck(getattr(torch.ops.fastconv, name).default, arguments)


def test_any_number_of_dimensions():
    x, w = (t.detach() for t in tensors((5, 6), (3, 3)))
    plane = nn.conv2d(x, w, torch.tensor(2.0), padding=1)
    assert_same_bits(plane.numpy(), fastconv.conv2d(x.numpy(), w.numpy(), np.float32(2), padding=1))
    x, w = (t.detach() for t in tensors((4, 5, 6), (4, 4, 3, 3)))
    for ours in (nn.conv2d, nn.conv_transpose2d):
        assert_same_bits(ours(x, w).numpy(), ours(x.numpy(), w.numpy()))
        last = x.permute(1, 2, 0), w.permute(2, 3, 1, 0)
        assert ours(*last, data_format="NHWC").shape[-1] == 4


def test_gradients_of_torch_nn_grad():
    x, w, y = (t.detach() for t in tensors((2, 4, 6, 7), (6, 2, 3, 3), (2, 6, 3, 4)))
    arguments = (2, 1, 1, 2)
    for ours, theirs, given in ((nn.conv2d_input, torch.nn.grad.conv2d_input, (x.shape, w, y)),
                                (nn.conv2d_weight, torch.nn.grad.conv2d_weight, (x, w.shape, y))):  # fmt: skip
        expected = theirs(*given, *arguments)
        scale = theirs(*(v.abs() if isinstance(v, torch.Tensor) else v for v in given), *arguments)
        assert_close(ours(*given, *arguments), expected, peer_bound("f4", 24, scale))


def test_reads_tensors_in_place(monkeypatch):
    x, w = tensors((1, 2, 5, 6), (3, 2, 3, 3))
    seen, plain = [], nn.conv2d
    monkeypatch.setattr(nn, "conv2d", lambda *arguments, **keywords: seen.append(arguments) or plain(*arguments, **keywords))
    plain(x, w)
    (arguments,) = seen
    for array, tensor in zip(arguments, (x, w), strict=False):
        assert array.ctypes.data == tensor.data_ptr()


def test_mixed_types_are_refused_as_torch_refuses_them():
    x, w, b = tensors((1, 2, 5, 6), (3, 2, 3, 3), (3,))
    for given in ((x, w.double()), (x, w, b.double()), (x.half(), w), (x.bfloat16(), w)):
        texts = []
        for function in (nn.conv2d, functional.conv2d):
            with pytest.raises(RuntimeError) as caught:
                function(*given)
            texts.append(str(caught.value))
        assert texts[0] == texts[1]
    for given, what in (((x, w.detach().numpy()), "weight"), ((x.to(torch.bool), w.to(torch.bool)), "input"),
                        ((x.to("meta"), w), "input")):  # fmt: skip
        with pytest.raises(TypeError, match=f"{what} must be a"):
            nn.conv2d(*given)
    for name in ("out", "dtype"):
        with pytest.raises(TypeError, match=f"{name} must be None for tensors"):
            nn.conv2d(x, w, **{name: x})
    for bad in ({"stride": 0}, {"padding": -1}, {"groups": 2}, {"data_format": "x"}, {"activation": "x"}, {"padding_mode": "x"}):
        with pytest.raises(ValueError, match="weight" if "groups" in bad else next(iter(bad))):
            nn.conv2d(x, w, **bad)
    with pytest.raises(ValueError, match="dimensions"):
        nn.conv2d(x[0, 0], w)


class Block(torch.nn.Module):
    """torchvision's Bottleneck."""

    def __init__(self, channels, width, stride, groups=1):
        super().__init__()
        conv, norm = torch.nn.Conv2d, torch.nn.BatchNorm2d
        self.conv1, self.bn1 = conv(channels, width, 1, bias=False), norm(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride, 1, groups=groups, bias=False), norm(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1, bias=False), norm(4 * width)
        self.downsample = torch.nn.Sequential(conv(channels, 4 * width, 1, stride, bias=False), norm(4 * width))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))
        return torch.relu(y + self.downsample(x))


def resnet():
    """torchvision's ResNet, narrow, with a decoder's upsampling behind it."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 7, 2, 3, bias=False), torch.nn.BatchNorm2d(16), torch.nn.ReLU(inplace=True), torch.nn.MaxPool2d(3, 2, 1),
        Block(16, 16, 1), Block(64, 32, 2), Block(128, 32, 2, groups=4), torch.nn.ConvTranspose2d(128, 16, 4, 2, 1),
        torch.nn.Conv2d(16, 8, 3, padding="same", padding_mode="reflect"), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(8, 10),
    )  # fmt: skip


def test_a_resnet_runs_and_trains_on_fastconvs_kernels():
    model = resnet()
    ours, exact = fastconv.nn.replace_convs(copy.deepcopy(model)), copy.deepcopy(model).double()
    names = [name for name, module in ours.named_modules() if type(module).__module__ == "fastconv.torch_ops"]
    convs = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    assert names == [name for name, module in model.named_modules() if isinstance(module, convs)]
    assert list(ours.state_dict()) == list(model.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    results = [one(image) for one, image in ((ours, x), (model, x), (exact, x.double()))]
    for one, result in zip((ours, model, exact), results, strict=True):
        torch.nn.functional.cross_entropy(result, torch.tensor([1, 7])).backward()
        one.eval()
    assert_as_near(*(result.detach() for result in results), "forward")
    for (name, a), b, c in zip(ours.named_parameters(), model.parameters(), exact.parameters(), strict=True):
        assert_as_near(a.grad, b.grad, c.grad, name)
    with torch.no_grad():
        assert_as_near(ours(x), model(x), exact(x.double()), "evaluation")
        last = x.to(memory_format=torch.channels_last)
        assert_as_near(ours(last), model(last), exact(x.double()), "channels last")
    compiled = torch.compile(ours, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert_close(compiled(x), ours(x), 0)
    torch._dynamo.reset()


@pytest.mark.parametrize("ours", [nn.conv2d, nn.conv_transpose2d])
def test_gradients_of_complex_tensors_are_conjugate(ours):
    inputs = tensors((1, 2, 3, 4), (2, 2, 2, 2), dtype=torch.complex128)
    assert torch.autograd.gradcheck(ours, inputs)
    assert torch.autograd.gradgradcheck(ours, inputs)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, of its dual numbers
def test_arguments_are_checked_as_arrays_are():
    x, w = (tensor.detach() for tensor in tensors((1, 2, 5, 5), (3, 2, 3, 3)))
    for wrong in ({"threads": 0}, {"threads": True}, {"precision": None}, {"algorithm": 3}):
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            nn.conv2d(x, w, **wrong)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="reverse mode"):
        nn.conv2d(torch.autograd.forward_ad.make_dual(x, x), w)


def test_plans_filters_and_layers_give_tensors():
    """As their arrays' results, in place, without gradients."""
    x, w, b = tensors((1, 3, 9, 10), (4, 3, 3, 3), (4,))
    plain = [tensor.detach().numpy() for tensor in (x, w, b)]
    image, kernel = torch.arange(48.0).reshape(6, 8), torch.arange(9.0).reshape(3, 3)
    mask = image > 3
    expected = fastconv.conv2d(*plain, padding=1)
    held, open_ = fastconv.plan(x, w, b, padding=1), fastconv.plan(x, tuple(w.shape), bias=True, padding=1)
    model = fastconv.layers.Sequential([fastconv.layers.Conv2D(2, 3), fastconv.layers.Conv2D(1, 3)])
    batch = torch.ones(3, 8, 8, 1)
    with torch.no_grad():
        for _ in range(3):
            for call, wanted in (
                (lambda: held(x), expected), (lambda: open_(x, w, b), expected), (lambda: held(x.detach()), expected),
                (lambda: fastconv.correlate2d(image, kernel), fastconv.correlate2d(image.numpy(), kernel.numpy())),
                (lambda: fastconv.convolve2d(image, kernel.numpy(), "same"), fastconv.convolve2d(image.numpy(), kernel.numpy(), "same")),
                (lambda: fastconv.correlate2d(image, kernel, mask=mask),
                 fastconv.correlate2d(image.numpy(), kernel.numpy(), mask=mask.numpy())),
                (lambda: model(batch), model(batch.numpy())), (lambda: model.predict(batch, batch_size=2), model(batch.numpy())),
                (lambda: model.layers[0](batch), model.layers[0](batch.numpy())),
            ):  # fmt: skip
                result = call()
                assert isinstance(result, torch.Tensor)
                assert_same_bits(result.numpy(), wanted)
    assert isinstance(fastconv.correlate2d(image.numpy(), kernel), np.ndarray)
    assert "blocked" in fastconv.explain(x, w, b)
    held.set_weight(2 * w, b)
    assert_same_bits(held(plain[0]), fastconv.conv2d(plain[0], 2 * plain[1], plain[2], padding=1))


def test_tensors_as_out_of_plans_and_filters():
    image, kernel = torch.arange(48.0).reshape(6, 8), torch.ones(3, 3)
    held = fastconv.plan(image, kernel)
    for run, wanted in ((lambda x, out: held(x, out=out), held(image.numpy())),
                        (lambda x, out: fastconv.correlate2d(x, kernel, "valid", out=out), held(image.numpy()))):  # fmt: skip
        for source in (image, image.numpy()):
            out = torch.zeros(4, 6)
            version = out._version
            assert run(source, out) is out
            assert_same_bits(out.numpy(), wanted)
            assert out._version > version
        array = np.zeros((4, 6), "f4")
        assert run(image, array) is array
        with pytest.raises(ValueError, match="out must have shape"):
            run(image, torch.zeros(4, 5))
        with pytest.raises(TypeError, match="out must not be a conjugate"):
            run(image, torch.zeros(4, 6, dtype=torch.complex64).conj())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, of its dual numbers
def test_what_has_no_gradient_says_so():
    image, kernel = (t[0, 0] for t in tensors((1, 1, 6, 8), (1, 1, 3, 3)))
    held = fastconv.plan(image, kernel)
    layer = fastconv.layers.Conv2D(1, 3)
    for call, name in ((lambda: held(image), "input"), (lambda: fastconv.correlate2d(image, kernel), "in1"),
                       (lambda: fastconv.correlate2d(image.detach(), kernel), "in2"),
                       (lambda: layer(image[None, :, :, None]), "inputs")):  # fmt: skip
        with pytest.raises(TypeError, match=f"{name} must not require a gradient here"):
            call()
        with torch.no_grad():
            assert not call().requires_grad
    with torch.autograd.forward_ad.dual_level(), pytest.raises(TypeError, match="in1 must not require a gradient"):
        fastconv.correlate2d(torch.autograd.forward_ad.make_dual(image.detach(), image.detach()), kernel.detach())


def test_gradients_skip_the_dispatcher_where_torch_need_not_see_them(monkeypatch):
    from fastconv import torch_ops

    called = []
    for name in ("conv2d_input_op", "conv2d_weight_op"):
        op = getattr(torch_ops, name)
        monkeypatch.setattr(torch_ops, name, lambda *given, op=op, name=name: (called.append(name), op(*given))[1])
    image, weight, grad = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    plain = nn.conv2d_input(image.shape, weight, grad), nn.conv2d_weight(image, weight.shape, grad)
    assert called == []
    watched = grad.clone().requires_grad_()
    again = nn.conv2d_input(image.shape, weight, watched), nn.conv2d_weight(image, weight.shape, watched)
    assert called == ["conv2d_input_op", "conv2d_weight_op"]
    assert all(result.requires_grad for result in again)
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


def test_gradients_that_come_again_see_new_values_and_other_tensors(monkeypatch):
    """Calls are told by strides and types; negative views, parameters and wrong arguments are what they are at the first call."""
    rng = np.random.default_rng(3)
    image, weight, grad = (torch.from_numpy(rng.integers(-9, 10, shape).astype("f4"))
                           for shape in ((2, 5, 6, 7), (4, 5, 1, 1), (2, 4, 6, 7)))  # fmt: skip
    grad = grad.contiguous(memory_format=torch.channels_last)
    for layout in (torch.contiguous_format, torch.channels_last):
        image, grad = (tensor.contiguous(memory_format=layout) for tensor in (image, grad))
        for turn in range(3):
            image, weight, grad = image + turn, weight * -2, grad - turn
            assert torch.equal(nn.conv2d_input(image.shape, weight, grad), torch.nn.grad.conv2d_input(image.shape, weight, grad))
            assert torch.equal(nn.conv2d_weight(image, weight.shape, grad), torch.nn.grad.conv2d_weight(image, weight.shape, grad))
    expected = nn.conv2d_input(image.shape, weight, grad)
    negative = torch.conj(torch.complex(torch.zeros_like(grad), -grad)).imag
    assert negative.is_neg()
    assert torch.equal(nn.conv2d_input(image.shape, weight, negative), expected)
    with torch.no_grad():
        assert torch.equal(nn.conv2d_input(image.shape, torch.nn.Parameter(weight), grad), expected)
    with pytest.raises(TypeError, match="stride"):
        nn.conv2d_input(image.shape, weight, grad, (True, 1))
    with pytest.raises(TypeError, match="grad_output"):
        nn.conv2d_input(image.shape, weight, grad.numpy())
    monkeypatch.setattr("fastconv.gradients.plan_problem", None)
    assert torch.equal(nn.conv2d_input(image.shape, weight, grad.clone()), expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_calls_skip_the_dispatcher_where_torch_need_not_see_them(monkeypatch):
    """Also those that are recorded for a gradient; transformed and traced ones do not."""
    from fastconv import torch_ops

    called, op = [], torch_ops.conv2d_op
    monkeypatch.setattr(torch_ops, "conv2d_op", lambda *given: (called.append(len(given)), op(*given))[1])
    image, weight, bias = tensors((2, 3, 6, 5), (4, 3, 3, 3), (4,))
    expected = functional.conv2d(image, weight, bias, padding=1).relu()

    def ours(image, weight, bias):
        return nn.conv2d(image, weight, bias, padding=1, activation="relu")

    for _ in range(2):
        with torch.no_grad():
            assert_close(ours(image, weight, bias), expected.detach(), peer_bound("f4", 28, expected.detach().abs() + 9))
        given = image, weight, bias
        found, hoped = (torch.autograd.grad(result.square().sum(), given, create_graph=True)
                        for result in (ours(*given), functional.conv2d(*given, padding=1).relu()))  # fmt: skip
        assert called == []
        seconds = [torch.autograd.grad(sum(one.square().sum() for one in grads), given) for grads in (found, hoped)]
        for one, other in zip((*found, *seconds[0]), (*hoped, *seconds[1]), strict=True):
            scale = other.detach().abs().max() + 1
            assert_close(one.detach(), other.detach(), peer_bound("f4", 2000, scale.expand_as(other)))
        called.clear()  # gradients of gradients are torch's to see
    plain = [tensor.detach() for tensor in given]
    batch = torch.stack([plain[0]] * 2)
    assert torch.equal(torch.func.vmap(lambda one: ours(one, *plain[1:]))(batch)[1], ours(*plain))
    assert called
    traced = torch.jit.trace(lambda image: ours(image, *plain[1:]), plain[0])
    assert "fastconv::conv2d" in str(traced.graph)
    result = ours(*given)
    weights = torch.stack([torch.ones_like(result), result.detach()])
    found = torch.autograd.grad(result, given, weights, is_grads_batched=True, retain_graph=True)
    for turn, one in enumerate(weights):
        for batched, alone in zip(found, torch.autograd.grad(result, given, one, retain_graph=True), strict=True):
            assert_close(batched[turn], alone, peer_bound("f4", 2000, (alone.abs().max() + 1).expand_as(alone)))
    assert_same_bits(traced(plain[0] + 1).numpy(), ours(plain[0] + 1, *plain[1:]).numpy())


def test_calls_that_come_again_see_new_values_and_other_arguments(monkeypatch):
    rng = np.random.default_rng(3)
    image, weight, bias = (torch.from_numpy(rng.integers(-9, 10, shape).astype("f4")) for shape in ((2, 5, 6, 7), (4, 5, 3, 3), (4,)))
    for layout in (torch.contiguous_format, torch.channels_last):
        image = image.contiguous(memory_format=layout)
        for turn in range(3):
            image, weight, bias = image + turn, weight * -2, bias - turn
            for given in ((image, weight), (image, weight, bias)):
                for how in ({}, {"padding": [1, 2]}, {"padding": (1, 2)}, {"padding": ((1, 0), (2, 1))}, {"stride": 2}):
                    once, again = nn.conv2d(*given, **how), nn.conv2d(*given, **how)
                    assert once.is_contiguous(memory_format=layout)
                    assert torch.equal(once, again)
                    if how.get("padding") != ((1, 0), (2, 1)):
                        assert torch.equal(once, functional.conv2d(*given, **how))
    expected = nn.conv2d(image, weight, bias)
    assert torch.equal(nn.conv2d(image, weight, bias, threads=1), expected)
    negative = torch.conj(torch.complex(torch.zeros_like(image), -image)).imag
    assert negative.is_neg()
    assert torch.equal(nn.conv2d(negative, weight, bias), expected)
    for _ in range(2):  # what is wrong is refused beside calls that are known
        with pytest.raises(TypeError, match="stride"):
            nn.conv2d(image, weight, bias, (True, 1))
        with pytest.raises(TypeError, match="weight"):
            nn.conv2d(image, weight.numpy(), bias)
        with pytest.raises(ValueError, match="threads"):
            nn.conv2d(image, weight, bias, threads=0)
        with pytest.raises(ValueError, match="bias"):
            nn.conv2d(image, weight, bias[:3])
        for out in (torch.empty_like(expected), np.empty(expected.shape, "f4")):
            with pytest.raises(TypeError, match="out"):
                nn.conv2d(image, weight, bias, out=out)
        with pytest.raises(TypeError, match="dtype"):
            nn.conv2d(image, weight, bias, dtype=np.dtype("f8"))
    step = torch.tensor(1)
    assert torch.equal(nn.conv2d(image, weight, bias, step), expected)
    step.fill_(2)
    assert torch.equal(nn.conv2d(image, weight, bias, step), nn.conv2d(image, weight, bias, 2))
    with torch.device("cpu"):  # which is a mode, but transforms nothing
        assert torch.equal(nn.conv2d(image, weight, bias), expected)
    monkeypatch.setattr("fastconv.torch_ops._check", None)
    assert torch.equal(nn.conv2d(image.clone(), weight, bias), expected)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_transposed_calls_skip_the_dispatcher_where_torch_need_not_see_them(kind, monkeypatch):
    from fastconv import torch_ops

    called, op = [], torch_ops.conv_transpose2d_op
    monkeypatch.setattr(torch_ops, "conv_transpose2d_op", lambda *given: (called.append(len(given)), op(*given))[1])
    image, weight, bias = tensors((2, 4, 6, 5), (4, 3, 3, 3), (3,), dtype=kind)
    recorded = nn.conv_transpose2d(image, weight, bias, 2)
    assert len(called) == 1
    assert recorded.requires_grad
    with torch.no_grad():
        plain = nn.conv_transpose2d(image, weight, bias, 2)
    assert len(called) == 1
    assert plain.dtype == kind
    assert torch.equal(plain, recorded)
