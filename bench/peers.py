"""The peers: one row per way to compute a convolution, ours among them.

``reject(problem)`` says in words why the peer cannot do a case, or None. ``setup(problem, operands, threads, out)``
does everything that is not the call (layouts, types, packing, memory for ``out``) and returns the zero-argument
callable that is timed, with a function that shows its result as an (n, oc, oh, ow) array. The libraries are
imported when the first row of theirs is set up.
"""

import math
import os
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from bench import graphs
from bench.ceilings import aligned, at_line
from fastconv.planning.problem import DTYPES


class Prepared(NamedTuple):
    """A callable ready to be timed, and how to read its result."""

    call: Callable
    canonical: Callable


class Library(NamedTuple):
    """How a library is called in package indexes, how many threads it uses, and how to limit them for a while."""

    package: str
    threads: Callable = lambda: 1
    limit: Callable = lambda n: nullcontext()


class Peer(NamedTuple):
    """One row; ``transform`` marks peers that may use a DFT or Winograd, ``algorithm`` is the one of ours that is named."""

    name: str
    module: str
    reject: Callable
    setup: Callable
    takes_out: bool = True
    transform: bool = False
    algorithm: str | None = None


# --- libraries


def _fastconv_threads():
    import fastconv

    return fastconv.threads()


def _torch_threads():
    import torch

    return torch.get_num_threads()


def _cv2_threads():
    import cv2

    return cv2.getNumThreads()


@contextmanager
def _limit_torch(n):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _limit_cv2(n):
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(n)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _limit_fastconv(n):
    import fastconv

    return fastconv.threads(n)


def cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


LIBRARIES = {
    "fastconv": Library("fastconv", _fastconv_threads, _limit_fastconv),
    "scipy": Library("scipy"),
    "scipy.fft": Library("scipy", cores),  # its workers, set inside the timed call
    "cv2": Library("opencv-python-headless", _cv2_threads, _limit_cv2),
    "torch": Library("torch", _torch_threads, _limit_torch),
    "onnxruntime": Library("onnxruntime", cores),  # these two are told when a model is compiled
    "openvino": Library("openvino", cores),
}


def package_version(package):
    """Version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# --- what several rows share


def _is_image(p):
    return p.n == p.g == p.ic == p.oc == 1


def _is_same(p):
    return (p.pt, p.pb, p.pl, p.pr) == (p.kh // 2, p.kh // 2, p.kw // 2, p.kw // 2) and p.kh % 2 and p.kw % 2


def _mode(p):
    """SciPy's mode for a problem's paddings, or None."""
    for name, (h, w) in {"valid": (0, 0), "full": (p.kh - 1, p.kw - 1)}.items():
        if (p.pt, p.pb, p.pl, p.pr) == (h, h, w, w):
            return name
    return "same" if _is_same(p) else None


def _plane(result):
    return result[None, None]


def _nchw(result):
    return result.transpose(0, 3, 1, 2)


def _first(*reasons):
    """First reason whose condition holds."""
    return next((reason for holds, reason in reasons if holds), None)


# --- fastconv

BOUNDARIES = {"constant": "fill", "symmetric": "symm", "wrap": "wrap"}
PADDING_MODES = {"constant": "zeros", "edge": "replicate", "wrap": "circular", "reflect": "reflect", "symmetric": "symmetric"}


def _conv2d_arguments(p):
    same = _is_same(p) and p.sh == p.sw == p.dh == p.dw == 1
    given = {
        "stride": (p.sh, p.sw),
        "padding": "same" if same else ((p.pt, p.pb), (p.pl, p.pr)),
        "dilation": (p.dh, p.dw),
        "groups": p.g,
        "padding_mode": PADDING_MODES[p.border],
    }
    defaults = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1, "padding_mode": "zeros"}
    return {name: value for name, value in given.items() if value != defaults[name]}


@lru_cache(maxsize=1)
def _existing(shape, dtype):
    """The array that settings of one shape write into in turn: they compare what is done and not where.

    It begins at a cache line, as the results do that torch, ONNX Runtime and OpenVINO make for themselves.
    """
    return aligned(math.prod(shape) * np.dtype(dtype).itemsize).view(dtype).reshape(shape)


def _fastconv(data_format=None, algorithm=None, planned=False):
    """Setup of a row that calls conv2d (a 2-D image where the case is one), or a plan with the weights packed beforehand."""

    def setup(p, operands, threads, out):
        import fastconv

        arguments = _conv2d_arguments(p)
        arguments |= {"threads": threads} if threads else {}
        arguments |= {"algorithm": algorithm} if algorithm else {}
        if data_format == "NHWC":
            arguments["data_format"] = "NHWC"
            src, wei = at_line(operands.src.transpose(0, 2, 3, 1)), at_line(operands.wei.transpose(2, 3, 1, 0))
            shape, canonical = (p.n, p.oh, p.ow, p.oc), _nchw
        elif _is_image(p) and not planned:
            src, wei, shape, canonical = operands.src[0, 0], operands.wei[0, 0], (p.oh, p.ow), _plane
        else:
            src, wei, shape, canonical = operands.src, operands.wei, (p.n, p.oc, p.oh, p.ow), np.asarray
        dst = _existing(shape, DTYPES[p.dst])
        if planned:
            run = fastconv.plan(src, wei, **arguments)
            return Prepared((lambda: run(src, out=dst)) if out else (lambda: run(src)), canonical)
        conv2d = fastconv.conv2d
        if out:
            return Prepared(lambda: conv2d(src, wei, out=dst, **arguments), canonical)
        return Prepared(lambda: conv2d(src, wei, **arguments), canonical)

    return setup


def _any(p):
    return _first((p.op != "fwd", "gradients are not timed here"), (p.epilogue != "", "no epilogue is timed here"))


def _several_channels(p):
    return _any(p) or _first((_is_image(p), "one channel has one layout"))


def _reject_correlate2d(p):
    return _any(p) or _first(
        (not _is_image(p), "one image and one kernel only"),
        (_mode(p) is None, "paddings are none of full, same, valid"),
        (p.border not in BOUNDARIES, f"no boundary {p.border!r}"),
    )


def _setup_correlate2d(p, operands, threads, out):
    import fastconv

    arguments = {"mode": _mode(p), "boundary": BOUNDARIES[p.border]}
    arguments |= {"stride": (p.sh, p.sw)} if (p.sh, p.sw) != (1, 1) else {}
    arguments |= {"dilation": (p.dh, p.dw)} if (p.dh, p.dw) != (1, 1) else {}
    arguments |= {"threads": threads} if threads else {}
    arguments |= {"out": np.empty((p.oh, p.ow), DTYPES[p.dst])} if out else {}
    src, correlate2d = operands.src[0, 0], fastconv.correlate2d
    wei = src if operands.wei is operands.src else operands.wei[0, 0]  # an autocorrelation gets the same array twice
    return Prepared(lambda: correlate2d(src, wei, **arguments), _plane)


# --- SciPy


def _reject_scipy(p):
    return _reject_correlate2d(p) or _first(
        ((p.sh, p.sw, p.dh, p.dw) != (1, 1, 1, 1), "no stride, no dilation"),
        (p.src == "f16", "no float16"),
    )


def _setup_scipy(p, operands, threads, out):
    from scipy.signal import correlate2d

    src, wei, mode, boundary = operands.src[0, 0], operands.wei[0, 0], _mode(p), BOUNDARIES[p.border]
    return Prepared(lambda: correlate2d(src, wei, mode, boundary), _plane)


def _reject_oaconvolve(p):
    return _reject_scipy(p) or _first(
        (p.border != "constant", "zeros outside the image only"),
        (DTYPES[p.dst].kind in "iu", "integers become floats"),
    )


def _by_dft(function):
    """Setup of scipy.signal's ``oaconvolve`` or ``fftconvolve``, with all workers."""

    def setup(p, operands, threads, out):
        import scipy.signal
        from scipy.fft import set_workers

        convolve = getattr(scipy.signal, function)
        src, wei, mode, workers = operands.src[0, 0], operands.wei[0, 0, ::-1, ::-1].copy(), _mode(p), threads or cores()

        def call():
            with set_workers(workers):
                return convolve(src, wei, mode)

        return Prepared(call, _plane)

    return setup


NDIMAGE_MODES = {"constant": "constant", "edge": "nearest", "reflect": "mirror", "symmetric": "reflect", "wrap": "wrap"}


def _reject_ndimage(p):
    return _any(p) or _first(
        (not _is_image(p), "one image and one kernel only"),
        ((p.sh, p.sw, p.dh, p.dw) != (1, 1, 1, 1), "no stride, no dilation"),
        (not _is_same(p), "the result has the image's size"),
        (p.src == "f16", "no float16"),
        (DTYPES[p.dst].kind in "iu", "sums in float64, so integers do not wrap"),
    )


def _setup_ndimage(p, operands, threads, out):
    from scipy.ndimage import correlate

    src, wei, mode = operands.src[0, 0], operands.wei[0, 0], NDIMAGE_MODES[p.border]
    output = np.empty_like(src) if out else None

    def call():
        result = correlate(src, wei, output, mode)
        return output if out else result

    return Prepared(call, _plane)


# --- OpenCV

CV2_BORDERS = {"constant": 0, "edge": 1, "symmetric": 2, "reflect": 4}  # BORDER_CONSTANT, _REPLICATE, _REFLECT, _REFLECT_101


def missing(module):
    return None if find_spec(module) else f"{module} is not installed"


def _reject_filter2d(p):
    """Why OpenCV's filter2D cannot filter and then slice: planes in (H, W, C), the same kernel for each."""
    planes = p.n == 1 and p.g == p.ic == p.oc and (p.oc == 1 or (p.shared and p.src_layout == "nhwc"))
    saturates = p.src == "u8" and p.epilogue == "saturate"
    return _first(
        (p.op != "fwd", "gradients are not timed here"),
        (p.epilogue not in ("", "saturate"), f"no epilogue {p.epilogue}"),
        (not planes, "one image and one kernel only"),
        ((p.dh, p.dw) != (1, 1), "no dilation"),
        (not _is_same(p), "the result has the image's size"),
        (p.border not in CV2_BORDERS, f"no border {p.border!r}"),
        (p.dst not in ("f32", "f64") and not saturates, "integers saturate and do not wrap; no float16"),
    )


def _interleaved(result):
    """(H, W) or (H, W, C) as (1, C, H, W)."""
    return np.atleast_3d(result).transpose(2, 0, 1)[None]


def _reject_cv2(p):
    return _reject_filter2d(p) or _first(((p.sh, p.sw) != (1, 1), "no stride")) or missing("cv2")


def _reject_cv2_sliced(p):
    return _reject_filter2d(p) or _first(((p.sh, p.sw) == (1, 1), "nothing to slice")) or missing("cv2")


def _reject_opencv(p):
    return _reject_filter2d(p) or _first(((p.sh, p.sw) != (1, 1), "no stride")) or missing("fastconv.opencv")


def _filter2d(module):
    """Setup of filter2D of ``cv2`` or of our dialect; the result is sliced, which copies nothing, where the case has a stride."""

    def setup(p, operands, threads, out):
        filter2d, border, steps = import_module(module).filter2D, CV2_BORDERS[p.border], np.s_[:: p.sh, :: p.sw]
        src = np.ascontiguousarray(operands.src[0].transpose(1, 2, 0)) if p.ic > 1 else operands.src[0, 0]
        wei, dst = operands.wei[0, 0], np.empty_like(src) if out else None
        if (p.sh, p.sw) != (1, 1):
            return Prepared(lambda: filter2d(src, -1, wei, dst, borderType=border)[steps], _interleaved)
        if out:
            return Prepared(lambda: filter2d(src, -1, wei, dst, borderType=border), _interleaved)
        return Prepared(lambda: filter2d(src, -1, wei, borderType=border), _interleaved)

    return setup


# --- torch

TORCH_BORDERS = {"constant": "constant", "edge": "replicate", "reflect": "reflect", "wrap": "circular"}


def _reject_torch(p):
    return _any(p) or _first(
        (p.border not in TORCH_BORDERS, f"no border {p.border!r}"),
        (p.dst not in ("f16", "f32", "f64"), "no integers"),
    ) or missing("torch")  # fmt: skip


def _torch(channels_last):
    """Setup of a torch row. Borders and paddings that conv2d lacks are written by torch's own pad, inside the timed call."""

    def setup(p, operands, threads, out):
        import torch
        from torch.nn.functional import conv2d, pad

        layout = torch.channels_last if channels_last else torch.contiguous_format
        src, wei = (torch.from_numpy(array).contiguous(memory_format=layout) for array in (operands.src, operands.wei))
        stride, dilation, groups, border = (p.sh, p.sw), (p.dh, p.dw), p.g, TORCH_BORDERS[p.border]
        canonical = torch.Tensor.numpy
        if p.border == "constant" and (p.pt, p.pl) == (p.pb, p.pr):
            padding = (p.pt, p.pl)
            return Prepared(lambda: conv2d(src, wei, None, stride, padding, dilation, groups), canonical)
        widths = (p.pl, p.pr, p.pt, p.pb)
        return Prepared(lambda: conv2d(pad(src, widths, border), wei, None, stride, 0, dilation, groups), canonical)

    return setup


# --- ONNX Runtime and OpenVINO


def _graph(module, make):
    """Why a library that runs ONNX models cannot do a case, and its setup; results go into memory that is bound beforehand."""

    def reject(p):
        return graphs.reject(p) or missing("onnx") or missing(module)

    def setup(p, operands, threads, out):
        return Prepared(make(p, operands, threads or cores()), np.asarray)

    return reject, setup


# --- the table

PEERS = (
    Peer("fastconv.conv2d", "fastconv", _any, _fastconv()),
    Peer("fastconv.conv2d NHWC", "fastconv", _several_channels, _fastconv("NHWC")),
    Peer("fastconv.plan", "fastconv", _any, _fastconv(planned=True)),
    Peer("fastconv.plan NHWC", "fastconv", _several_channels, _fastconv("NHWC", planned=True)),
    Peer("fastconv.correlate2d", "fastconv", _reject_correlate2d, _setup_correlate2d),
    Peer("fastconv.opencv.filter2D", "fastconv", _reject_opencv, _filter2d("fastconv.opencv")),
    Peer("fastconv direct", "fastconv", _any, _fastconv(algorithm="direct", planned=True), algorithm="direct"),
    Peer("fastconv blocked", "fastconv", _any, _fastconv(algorithm="blocked", planned=True), algorithm="blocked"),
    Peer("fastconv blocked NHWC", "fastconv", _several_channels, _fastconv("NHWC", "blocked", planned=True), algorithm="blocked"),
    Peer("scipy.signal.correlate2d", "scipy", _reject_scipy, _setup_scipy, takes_out=False),
    Peer("scipy.signal.oaconvolve", "scipy.fft", _reject_oaconvolve, _by_dft("oaconvolve"), takes_out=False, transform=True),
    Peer("scipy.signal.fftconvolve", "scipy.fft", _reject_oaconvolve, _by_dft("fftconvolve"), takes_out=False, transform=True),
    Peer("scipy.ndimage.correlate", "scipy", _reject_ndimage, _setup_ndimage),
    Peer("cv2.filter2D", "cv2", _reject_cv2, _filter2d("cv2"), transform=True),
    Peer("cv2.filter2D, sliced", "cv2", _reject_cv2_sliced, _filter2d("cv2"), transform=True),
    Peer("torch", "torch", _reject_torch, _torch(channels_last=False), takes_out=False, transform=True),
    Peer("torch channels_last", "torch", _reject_torch, _torch(channels_last=True), takes_out=False, transform=True),
    Peer("onnxruntime", "onnxruntime", *_graph("onnxruntime", graphs.onnxruntime_call), transform=True),
    Peer("openvino", "openvino", *_graph("openvino", graphs.openvino_call), transform=True),
)
NAMED = {peer.name: peer for peer in PEERS}
IMAGE_PEERS = tuple(peer for peer in PEERS if peer.name in (
    "fastconv.conv2d", "fastconv.correlate2d", "scipy.signal.correlate2d", "scipy.signal.oaconvolve",
    "scipy.ndimage.correlate", "cv2.filter2D", "torch",
))  # fmt: skip
LAYER_PEERS = tuple(peer for peer in PEERS if peer.name in (
    "fastconv.conv2d", "fastconv.conv2d NHWC", "fastconv.plan", "fastconv.plan NHWC", "torch", "torch channels_last",
    "onnxruntime", "openvino",
))  # fmt: skip
