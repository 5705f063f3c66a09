"""What fastconv is measured beside on a CUDA card: torch's convolutions, cuDNN without its transforms, CuPy's filters.

torch lets cuDNN choose by measurement, transforms included: its switches tell apart deterministic algorithms and reduced precision, and
cuDNN's forward transforms are deterministic and in float32.  So cuDNN alone, through its frontend's graphs, is the peer that does what
direct algorithms do: its plans are chosen by its heuristics, without those whose numerical notes say that they transform.
"""

from fastconv.planning.problem import DTYPES

# CUDNN_NUMERICAL_NOTE_*, of plans that are no direct sums, and of those that round float32 first
TRANSFORMS = ("FFT", "WINOGRAD", "WINOGRAD_TILE_4x4", "WINOGRAD_TILE_6x6", "WINOGRAD_TILE_13x13")
ROUNDED = ("DOWN_CONVERT_INPUTS", "REDUCED_PRECISION_REDUCTION", "TENSOR_CORE")
MOST_WORKSPACE = 1 << 30


def tensors(p, count, channels_last):
    """Images, weights."""
    import torch

    form = torch.channels_last if channels_last else torch.contiguous_format
    dtype = torch.bfloat16 if p.src == "bf16" else getattr(torch, DTYPES[p.src].name)
    sources = [torch.rand((p.n, p.ic, p.ih, p.iw), device="cuda").to(dtype, memory_format=form) for _ in range(count)]
    return sources, torch.rand((p.oc, p.ic // p.g, p.kh, p.kw), device="cuda").to(dtype, memory_format=form)


def torch_seconds(p, seconds, count, channels_last, tf32):
    """Seconds of torch.nn.functional.conv2d, cuDNN choosing by measurement."""
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = tf32
    sources, weight = tensors(p, count, channels_last)
    convolve = torch.nn.functional.conv2d
    with torch.no_grad(), torch.cuda.stream(torch.cuda.default_stream()):
        return seconds(lambda n: convolve(sources[n % len(sources)], weight, None, (p.sh, p.sw), (p.pt, p.pl), (p.dh, p.dw), p.g))


def excluded(p, tf32):
    """Notes of the plans that are left out."""
    return TRANSFORMS if tf32 or p.src != "f32" else (*TRANSFORMS, *ROUNDED)


def cudnn_graph(cudnn, p, source, weight, result, handle):
    """(graph, its tensors) of a problem on torch's tensors; nothing is chosen yet."""
    kind = getattr(cudnn.data_type, {"f32": "FLOAT", "f16": "HALF", "bf16": "BFLOAT16"}[p.src])
    single = cudnn.data_type.FLOAT
    graph = cudnn.pygraph(io_data_type=kind, intermediate_data_type=single, compute_data_type=single, handle=handle)
    src, wei = (graph.tensor(dim=list(t.shape), stride=list(t.stride()), data_type=kind, name=name)
                for t, name in ((source, "src"), (weight, "wei")))  # fmt: skip
    dst = graph.conv_fprop(image=src, weight=wei, padding=[p.pt, p.pl], stride=[p.sh, p.sw], dilation=[p.dh, p.dw],
                           compute_data_type=single)  # fmt: skip
    dst.set_output(True).set_dim(list(result.shape)).set_stride(list(result.stride())).set_data_type(kind)
    return graph, (src, wei, dst)


def cudnn_seconds(p, seconds, count, channels_last, tf32):
    """Seconds of the plan that cuDNN's heuristics put first of those that do not transform."""
    import cudnn
    import torch

    sources, weight = tensors(p, count, channels_last)
    form = torch.channels_last if channels_last else torch.contiguous_format
    result = torch.empty((p.n, p.oc, p.oh, p.ow), device="cuda", dtype=sources[0].dtype).to(memory_format=form)
    handle = cudnn.create_handle()
    cudnn.set_stream(handle=handle, stream=torch.cuda.default_stream().cuda_stream)
    graph, (src, wei, dst) = cudnn_graph(cudnn, p, sources[0], weight, result, handle)
    try:
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        graph.deselect_numeric_notes([getattr(cudnn.numerical_note, name) for name in excluded(p, tf32)])
        graph.deselect_workspace_greater_than(MOST_WORKSPACE)
        graph.check_support()
        graph.build_plans(cudnn.build_plan_policy.HEURISTICS_CHOICE)
    except cudnn.cudnnGraphNotSupportedError as error:
        raise RuntimeError(f"cuDNN has no such plan: {error}") from error
    workspace = torch.empty(max(graph.get_workspace_size(), 1), device="cuda", dtype=torch.uint8)
    return seconds(lambda n: graph.execute({src: sources[n % len(sources)], wei: weight, dst: result}, workspace, handle=handle))


def cupy_seconds(p, seconds, count, name):
    """Seconds of CuPy's ``ndimage.convolve`` or ``signal.convolve2d``."""
    import cupy
    from cupyx.scipy import ndimage, signal

    sources = [cupy.ones((p.ih, p.iw), DTYPES[p.src]) for _ in range(count)]
    weights = cupy.ones((p.kh, p.kw), DTYPES[p.wei])
    if name == "ndimage":
        return seconds(lambda n: ndimage.convolve(sources[n % len(sources)], weights, mode="constant"))
    return seconds(lambda n: signal.convolve2d(sources[n % len(sources)], weights, mode="same"))


def peers(p, seconds, count):
    """name -> what measures it, for the peers that compute this problem: its first word is the package.

    Parameters
    ----------
    p : Problem
    seconds : callable
        ``seconds(run)`` measures ``run(n)``.
    count : int
        Of images to go round.
    """
    found = {}
    one_type = p.src == p.wei == p.dst and p.src in ("f32", "f16", "bf16") and p.acc == "f32"
    if one_type and (p.pt, p.pl) == (p.pb, p.pr):
        for tf32 in (False, True) if p.src == "f32" else (False,):
            for last in (False, True):
                how = " channels_last" * last + " tf32" * tf32
                found[f"torch{how}"] = lambda last=last, tf32=tf32: torch_seconds(p, seconds, count, last, tf32)
                if last == (p.src_layout == "nhwc"):
                    found[f"cudnn direct{how}"] = lambda last=last, tf32=tf32: cudnn_seconds(p, seconds, count, last, tf32)
    if p.n == p.ic == p.oc == 1 and p.acc == p.dst:
        found["cupy ndimage"] = lambda: cupy_seconds(p, seconds, count, "ndimage")
        found["cupy signal"] = lambda: cupy_seconds(p, seconds, count, "signal")
    return found
