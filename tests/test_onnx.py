"""fastconv.onnx: exact sums less zero points, against the formula in int64 and ONNX Runtime."""

import numpy as np
import pytest

from fastconv.onnx import conv_integer, qlinear_conv

CALLS = [
    # x type, w type, x zero, w zero, shape of x, shape of w, other arguments
    ("u1", "u1", 113, 128, (2, 5, 9, 8), (6, 5, 3, 3), {"pads": (1, 0, 2, 1), "dilations": 2}),
    ("u1", "u1", 255, 3, (1, 37, 7, 9), (33, 37, 3, 2), {"pads": (1, 1, 1, 1), "strides": (2, 1)}),
    ("u1", "i1", 0, "each", (1, 8, 9, 9), (12, 4, 3, 3), {"group": 2, "auto_pad": "SAME_UPPER", "strides": 2}),
    ("i1", "i1", -128, "each", (2, 4, 6, 7), (4, 1, 3, 3), {"group": 4, "auto_pad": "SAME_LOWER", "strides": (2, 1)}),
    ("i1", "u1", 7, "each", (1, 3, 6, 7), (20, 3, 1, 1), {"auto_pad": "VALID"}),
]

# each compiles kernels of its own types and strides
SOME = [pytest.param(call, marks=[pytest.mark.slow] * (n > 0), id=f"{call[0]}:{call[1]} {call[6]}") for n, call in enumerate(CALLS)]


def made(call, seed=0):
    kind, wkind, zero, wzero, shape, wshape, how = call
    rng = np.random.default_rng(seed)
    x, w = (rng.integers(np.iinfo(t).min, np.iinfo(t).max + 1, s).astype(t) for t, s in ((kind, shape), (wkind, wshape)))
    each = (
        rng.integers(np.iinfo(wkind).min, np.iinfo(wkind).max + 1, wshape[0]).astype(wkind) if wzero == "each" else np.array(wzero, wkind)
    )
    return x, w, np.array(zero, kind), each, how


def formula(x, w, zero, wzero, how, result):
    """In int64, with the zero point around the image, at the result's places."""
    g, (sh, sw), d = how.get("group", 1), np.broadcast_to(how.get("strides", 1), 2), how.get("dilations", 1)
    x, w = x.astype(np.int64) - int(zero), w.astype(np.int64) - wzero.reshape(-1, 1, 1, 1).astype(np.int64)
    oh, ow = result[2:]
    (oc, icg, kh, kw), (n, _, h, width) = w.shape, x.shape
    pads = how.get("pads", (0, 0, 0, 0))
    if how.get("auto_pad", "NOTSET").startswith("SAME"):
        total = [max((o - 1) * s + (k - 1) * d + 1 - i, 0) for o, s, k, i in zip((oh, ow), (sh, sw), (kh, kw), (h, width), strict=True)]
        first = [t // 2 if how["auto_pad"] == "SAME_UPPER" else t - t // 2 for t in total]
        pads = (*first, total[0] - first[0], total[1] - first[1])
    x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    sums = np.zeros((n, oc, oh, ow), np.int64)
    for o in range(oc):
        first = o // (oc // g) * icg
        for ky in range(kh):
            for kx in range(kw):
                window = x[:, first : first + icg, ky * d : ky * d + (oh - 1) * sh + 1 : sh, kx * d : kx * d + (ow - 1) * sw + 1 : sw]
                sums[:, o] += (window * w[o, :, ky, kx, None, None]).sum(1)
    return sums


@pytest.mark.parametrize("call", SOME)
def test_conv_integer_is_the_formula(call):
    x, w, zero, wzero, how = made(call)
    for threads in (1, 2):
        result = conv_integer(x, w, zero, wzero, threads=threads, **how)
        assert result.dtype == np.int32
        np.testing.assert_array_equal(result, formula(x, w, zero, wzero, how, result.shape))
    np.testing.assert_array_equal(conv_integer(x, w, zero, wzero, algorithm="reference", **how), result)
    out = np.empty_like(result)
    assert conv_integer(x, w, int(zero), wzero, out=out, **how) is out
    np.testing.assert_array_equal(out, result)
    plain = conv_integer(x, w, **how)
    np.testing.assert_array_equal(plain, formula(x, w, 0, np.zeros(1, np.int64), how, plain.shape))


def test_weights_keep_the_fast_kernel():
    """Weights of 8 bits without sign around 128 become bytes with one; others words."""
    from fastconv.onnx import _Call

    def call(w, zero):
        return _Call(np.zeros((1, 64, 8, 8), "u1"), w, 0, zero, "NOTSET", 1, 1, (0, 0, 0, 0), 1).weights.dtype

    w = np.arange(256, dtype="u1").reshape(4, 64, 1, 1)
    assert [call(w, zero) for zero in (128, 0, 127, np.array([128, 128, 128, 129], "u1"))] == ["i1", "u1", "i2", "i1"]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("call", SOME)
def test_qlinear_conv_is_the_formula(call, biased):
    x, w, zero, wzero, how = made(call)
    oc = w.shape[0]
    rng = np.random.default_rng(3)
    scales = (rng.random(oc) + 0.5).astype("f4") if wzero.ndim else np.float32(0.7)
    bias = rng.integers(-9999, 9999, oc).astype("i4") if biased else None
    sums = formula(x, w, zero, wzero, how, conv_integer(x, w, **how).shape)
    top = np.float32(np.abs(sums).max() / 100)
    for yzero in (np.uint8(117), np.int8(-5), np.int8(0)):
        factor = np.float32(0.3) * scales / (np.float32(0.3) * top)
        whole = np.rint((sums + (0 if bias is None else bias[:, None, None])).astype("f4") * factor.reshape(-1, 1, 1)) + int(yzero)
        limits = np.iinfo(yzero.dtype)
        result = qlinear_conv(x, 0.3, zero, w, scales, wzero, np.float32(0.3) * top, yzero, bias, **how)
        assert result.dtype == yzero.dtype
        np.testing.assert_array_equal(result, np.clip(whole, limits.min, limits.max))


@pytest.mark.parametrize("call", CALLS[:4], ids=lambda call: f"{call[0]}:{call[1]} {call[6]}")
def test_onnx_runtime(call):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: its results are not compared")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: ONNX Runtime has no models")
    helper, names = onnx.helper, {"u1": onnx.TensorProto.UINT8, "i1": onnx.TensorProto.INT8}
    x, w, zero, wzero, how = made(call)
    attributes = {key: [value] * 2 if key in ("strides", "dilations") and isinstance(value, int) else value for key, value in how.items()}

    def run(op, inputs, output):
        kinds = {np.dtype(key): value for key, value in names.items()} | {np.dtype("f4"): onnx.TensorProto.FLOAT,
                                                                          np.dtype("i4"): onnx.TensorProto.INT32}  # fmt: skip
        values = [helper.make_tensor_value_info(key, kinds[a.dtype], a.shape) for key, a in inputs.items()]
        graph = helper.make_graph([helper.make_node(op, list(inputs), ["y"], **attributes)], "one", values,
                                  [helper.make_tensor_value_info("y", kinds[np.dtype(output)], None)])  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        try:
            return runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, inputs)[0]
        except Exception as error:
            if op == "ConvInteger" and ("NOT_IMPLEMENTED" in str(error) or "Non per-tensor" in str(error)):
                return None  # it has no such ConvInteger
            raise

    sums = conv_integer(x, w, zero, wzero, **how)
    theirs = run("ConvInteger", {"x": x, "w": w, "x_zero_point": zero, "w_zero_point": wzero}, "i4")
    if theirs is not None:
        np.testing.assert_array_equal(sums, theirs)
    top = np.float32(np.abs(sums.astype("i8")).max() / 100)
    arguments = {"x": x, "x_scale": np.array(1, "f4"), "x_zero_point": zero, "w": w, "w_scale": np.ones(wzero.shape, "f4"),
                 "w_zero_point": wzero, "y_scale": top, "y_zero_point": zero}  # fmt: skip
    theirs = run("QLinearConv", {key: np.asarray(value) for key, value in arguments.items()}, x.dtype)
    np.testing.assert_array_equal(qlinear_conv(*arguments.values(), **how), theirs)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [({"x": np.zeros((1, 2, 5, 5))}, TypeError, "x must be of uint8 or int8"),
     ({"w": np.zeros((2, 2, 3), "u1")}, ValueError, "w must have 4"),
     ({"x_zero_point": 256}, ValueError, "x_zero_point must be"), ({"w_zero_point": np.zeros(3, "u1")}, ValueError, "w_zero_point must be"),
     ({"w_zero_point": 0.5}, ValueError, "w_zero_point must be"), ({"pads": (1, 1)}, TypeError, "pads must be"),
     ({"pads": (0, 0, -1, 0)}, ValueError, "pads must be"), ({"auto_pad": "same"}, ValueError, "auto_pad must be"),
     ({"group": 2}, ValueError, "weight must have"), ({"strides": 0}, ValueError, "strides must be"),
     ({"out": np.zeros((1, 2, 3, 3))}, ValueError, "out must have dtype"), ({"algorithm": "fft"}, ValueError, "cannot run")],
    ids=str,
)  # fmt: skip
def test_bad_arguments(change, error, match):
    with pytest.raises(error, match=match):
        conv_integer(**({"x": np.zeros((1, 2, 5, 5), "u1"), "w": np.zeros((2, 2, 3, 3), "u1")} | change))
