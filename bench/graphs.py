"""The peers that run a graph: a model of one convolution, compiled for a number of threads, its weights packed by the library."""

from functools import lru_cache

import numpy as np

from bench.ceilings import at_line


def reject(p):
    """Why no ONNX Conv is this problem, or None."""
    if p.op != "fwd":
        return "gradients are not timed here"
    if p.epilogue:
        return "no epilogue is timed here"
    if p.border != "constant":
        return f"no border {p.border!r}"
    return None if p.src == p.wei == p.dst == "f32" else "float32 only"


def model(p, wei, operator="Conv", scales=None, zero=0):
    """The serialised ONNX model: one Conv, ConvInteger or QLinearConv with constant weights and fixed shapes.

    QLinearConv's results are ``sums * scales + zero``, its other scales are 1 and its other zero points 0.
    """
    from onnx import TensorProto, helper, numpy_helper

    constants, names = {"wei": np.ascontiguousarray(wei)}, ["src", "wei"]
    types = {"Conv": (TensorProto.FLOAT,) * 2, "ConvInteger": (TensorProto.UINT8, TensorProto.INT32)}.get(
        operator, (TensorProto.UINT8,) * 2
    )
    if operator == "QLinearConv":
        one, none = np.float32(1), np.uint8(0)
        constants |= {"one": one, "none": none, "scales": scales, "nothing": np.zeros(p.oc, np.int8), "zero": np.uint8(zero)}
        names = ["src", "one", "none", "wei", "scales", "nothing", "one", "zero"]
    node = helper.make_node(
        operator,
        names,
        ["dst"],
        pads=[p.pt, p.pl, p.pb, p.pr],
        strides=[p.sh, p.sw],
        dilations=[p.dh, p.dw],
        group=p.g,
    )
    src = helper.make_tensor_value_info("src", types[0], [p.n, p.ic, p.ih, p.iw])
    dst = helper.make_tensor_value_info("dst", types[1], [p.n, p.oc, p.oh, p.ow])
    graph = helper.make_graph([node], "conv", [src], [dst], [numpy_helper.from_array(array, name) for name, array in constants.items()])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 9
    return made.SerializeToString()


def onnxruntime_call(p, operands, threads, operator="Conv", scales=None, zero=0):
    """A call that runs ONNX Runtime's session on arrays that are bound beforehand, and its result."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # a pool that spins beyond its call takes the cores from whoever is timed next
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model(p, operands.wei, operator, scales, zero), options, providers=["CPUExecutionProvider"])
    src = np.ascontiguousarray(operands.src)
    dst = at_line(np.zeros((p.n, p.oc, p.oh, p.ow), np.int32 if operator == "ConvInteger" else src.dtype))
    bound = session.io_binding()
    bound.bind_input("src", "cpu", 0, src.dtype, src.shape, src.ctypes.data)
    bound.bind_output("dst", "cpu", 0, dst.dtype, dst.shape, dst.ctypes.data)
    run = session.run_with_iobinding

    def call():
        run(bound)
        return dst

    call.source = src  # which the session knows the address of only
    return call


@lru_cache(maxsize=1)
def _openvino():
    import openvino

    return openvino.Core()


def openvino_call(p, operands, threads):
    """A call that runs OpenVINO's request on arrays that it shares, and its result."""
    import openvino

    core = _openvino()
    config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(model(p, operands.wei)), "CPU", config).create_infer_request()
    src = np.ascontiguousarray(operands.src)
    dst = at_line(np.zeros((p.n, p.oc, p.oh, p.ow), src.dtype))
    request.set_input_tensor(openvino.Tensor(src, shared_memory=True))
    request.set_output_tensor(openvino.Tensor(dst, shared_memory=True))
    infer = request.infer

    def call():
        infer()
        return dst

    return call
