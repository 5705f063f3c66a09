"""Cases, operands for them, and one way to run any algorithm on any problem."""

import ctypes
import ctypes.util
from pathlib import Path
from zlib import crc32

import numpy as np

from fastconv.cpu import winograd_repair
from fastconv.cpu.lowrank import rank_of
from fastconv.cpu.sparse import taps_of
from fastconv.cpu.threads import workspaces
from fastconv.planning.addends import Addends, finish_type, residual_type
from fastconv.planning.bfloat import narrowed
from fastconv.planning.planner import algorithms, plan_problem, short_name
from fastconv.planning.problem import DTYPES, ORDERS, Problem, parse_scaling
from tests.oracles import assert_same_bits

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent


def _load():
    lines = (FOLDER / "cases.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    return {name: Problem.parse(text) for name, text in pairs}


CASES = _load()
STRUCTURED = {
    "separable": "rank1",
    "lowrank": "lowrank(2)",
    "sparse": "sparse(4)",
    "identity": "identity",
}  # algorithms for weights of which something is known
# algorithms that compute gradients only
BACKWARD = {"transposed": "bwd_data", "folded": "bwd_data", "depthwise_image": "bwd_data", "grouped_image": "bwd_data",
            "depthwise_weights": "bwd_weight",
            "weights": "bwd_weight", "weights_grouped": "bwd_weight", "weights_rows": "bwd_weight", "weights_planes": "bwd_weight",
            "weights_parts": "bwd_weight", "weights_shallow": "bwd_weight", "weights_winograd": "bwd_weight"}  # fmt: skip
ALGORITHMS = {short_name(algorithm): algorithm for algorithm in algorithms()}


def declared(algorithm):
    """The problems that an algorithm's file says it accepts; all of `CASES` where it says so in words."""
    cases = algorithm.CASES
    return list(CASES.values()) if isinstance(cases, str) else [Problem.parse(text) for text in cases]


def typed(p, dtype):
    """The problem with every type replaced; float16 sums in float32."""
    return p.replace(src=dtype, wei=dtype, dst=dtype, acc="f32" if dtype == "f16" else dtype)


def runs(p, dtype):
    """Whether a problem makes sense in a type: activations are for reals, and most for floats."""
    kind = DTYPES[dtype].kind
    words = p.epilogue.removeprefix("bias").removeprefix("+")
    return not words or kind == "f" or (kind in "iu" and words in ("relu", "relu6"))


def dense(p):
    """Whether a problem has neither stride nor dilation: others need further kernels, compiled for float32 only unless --slow."""
    return p.sh == p.sw == p.dh == p.dw == 1


def random_array(rng, shape, dtype, integers=False):
    """Standard normal floats, or whole numbers so small that float sums of them are exact; integers of the whole range."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    parts = [rng.integers(-8, 9, shape).astype(np.float64) if integers else rng.standard_normal(shape) for _ in "ri"]
    return (parts[0] + 1j * parts[1]).astype(dtype) if dtype.kind == "c" else narrowed(parts[0], dtype)


def structured(rng, p, integers=False):
    """Random weights with the structure that the problem promises."""
    if p.masked:
        # of both signs, the sum of the weights may cancel
        return np.abs(structured(rng, p.replace(masked=False), integers)).astype(DTYPES[p.wei])
    if p.shared:
        one = structured(rng, p.replace(g=1, ic=1, oc=1, shared=False), integers)
        return np.repeat(one, p.oc, 0)
    shape, dtype = shapes(p)[1], DTYPES[p.wei]
    if p.structure == "full":
        return random_array(rng, shape, dtype, integers)
    if p.structure == "box":
        return np.full(shape, random_array(rng, (), dtype, integers))
    if p.structure in ("identity", "zero"):
        weights = np.zeros(shape, dtype)
        if p.structure == "identity":
            for o in range(p.oc):
                weights[o, 0, rng.integers(p.kh), rng.integers(p.kw)] = 1
        return weights
    most = taps_of(p.structure)
    if most is not None:
        weights = random_array(rng, shape, dtype, integers)
        for filter in weights:
            filter.reshape(-1)[rng.permutation(filter.size)[most:]] = 0
        return weights
    products = [
        random_array(rng, (*shape[:3], 1), dtype, integers) * random_array(rng, (*shape[:2], 1, shape[3]), dtype, integers)
        for _ in range(rank_of(p.structure) or 1)
    ]
    return sum(products[1:], products[0])


def fitted(name, p):
    """The problem as an algorithm for structured weights, small groups, masks or a gradient takes it; others take any."""
    depth = next(depth for depth in (16, 8, 4, 2, 1) if p.ic // p.g % depth == 0)
    if name in BACKWARD:
        p = p.replace(op=BACKWARD[name], epilogue="", order="any")
    if name == "depthwise_image":  # of stride 2
        kw, channels = p.kw if depth == 1 else 3, depth * (p.oc + 1)
        p = p.replace(g=p.oc + 1, ic=channels, oc=channels, kw=kw, sh=2, sw=2, dh=1, dw=1, border="constant",
                      iw=max(p.iw, kw))  # fmt: skip
    if name == "grouped_image":  # of stride 2, groups that fill vectors, rows of at least a tile
        channels, many = (32, 16 * (1 + p.oc % 2)) if p.oc > 30 else ((8, 16)[p.oc % 2],) * 2
        groups = max(32 // channels, 2)
        p = p.replace(g=groups, ic=groups * channels, oc=groups * many, kw=2 + p.kw % 2, sh=2, sw=2, dh=1, dw=1, border="constant",
                      iw=max(2 * p.iw - p.ih % 2, 13))  # fmt: skip
    if name == "weights_shallow":  # groups that fill vectors, strides of at most 2
        channels, many = (32, 16 * (1 + p.oc % 2)) if p.oc > 30 else ((4, 8, 16)[p.oc % 3],) * 2
        groups, kw = max(32 // channels, 2), 2 + p.kw % 2
        p = p.replace(g=groups, ic=groups * channels, oc=groups * many, kw=kw, sh=min(p.sh, 2), sw=min(p.sw, 2), dh=1, dw=1,
                      ih=max(p.ih, p.kh), iw=max(p.iw, kw))  # fmt: skip
    if name == "weights_winograd":  # of 3x3, whole vectors of channels
        groups, channels, many = 1 + p.kw % 2, 16 * (1 + p.ih % 3), 32 * (1 + p.iw % 2) if p.ih % 7 else 16
        stride = min(p.sh, 2)
        p = p.replace(g=groups, ic=groups * channels, oc=groups * many, kh=3, kw=3, sh=stride, sw=stride, dh=1, dw=1, ih=max(p.ih, 3),
                      iw=max(p.iw, 3))  # fmt: skip
    if name == "depthwise_weights":  # of 3x3
        channels = p.oc + 16
        p = p.replace(g=channels, ic=channels, oc=channels, kh=3, kw=3, sw=min(p.sw, 2), dh=1, dw=1, src_layout="nhwc",
                      ih=max(p.ih, 3), iw=max(p.iw, 3))  # fmt: skip
    if name in BACKWARD:
        return p
    if name == "depthwise":
        groups = p.oc if p.ih % 2 else -(-p.oc // 16) * 16  # in half of the cases whole vectors, read and stored where they lie
        return p.replace(g=groups, ic=groups * depth, oc=groups * depth, src_layout=p.src_layout if p.ih % 2 else "nhwc")
    if name == "masked":
        p = p.replace(g=p.oc, ic=p.oc, epilogue="", masked=True, src_layout="nchw")
    if name == "identity":
        return p.replace(g=p.oc, ic=p.oc, sh=1, sw=1, epilogue="", order="any", src_layout="nchw", structure="identity")
    if name == "fast_fir":  # of planes of at least a tile
        stride = 2 if p.strides == (2, 2) else 1
        iw, ih = max(p.iw, 64 * stride + p.kw_span), max(p.ih, 16 + p.kh_span)
        epilogue = "bias" if p.epilogue.startswith("bias") else ""
        dense = p.replace(g=p.oc, ic=p.oc, sh=stride, sw=stride, dh=1, dw=1, order="any", src_layout="nchw", epilogue=epilogue)
        return dense.replace(ih=ih, iw=iw, kh=max(p.kh, 2), kw=max(p.kw, 2 * stride - 1))
    if name == "winograd":  # of 3x3 at strides 1 and 2
        stride = min(p.sh, 2)
        return p.replace(kh=3, kw=3, sh=stride, sw=stride, dh=1, dw=1, ih=max(p.ih, 3), iw=max(p.iw, 3), order="any")
    if name == "winograd_shallow":  # of 3x3, whole vectors of channels, or groups that fill them
        depth = (4, 8, 16, 32, 48)[p.oc % 5]
        many, groups = (16 * (1 + p.ih % 5), 1 + p.iw % 2) if depth > 8 else (depth, 16 // depth * (1 + p.ih % 3))
        return p.replace(g=groups, ic=groups * depth, oc=groups * many, kh=3, kw=3, sh=1, sw=1, dh=1, dw=1, ih=max(p.ih, 3),
                         iw=max(p.iw, 3), src_layout="nhwc", order="any")  # fmt: skip
    if name == "winograd_rows":  # of few channels, at least a block of results of each and two to four rows of taps of a phase
        depth, most = max(d for d in range(1, 17) if p.ic // p.g % d == 0), max(p.oc // p.g, 8)
        kh = min(max(p.kh, p.sh + 1), 4 * p.sh)
        p = p.replace(ic=p.g * depth, oc=p.g * most, kh=kh, dh=1, ih=max(p.ih, kh), order="any", src_layout="nchw")
        return p.replace(iw=max(p.iw, 34 * p.sw + p.kw_span))
    if name == "winograd_rows_last":  # of 3 or 4 channels, blocks of 32 results, two to four rows of taps of a phase
        kh, sw = min(max(p.kh, p.sh + 1), 4 * p.sh), min(p.sw, 2)
        p = p.replace(g=1, ic=4 - p.ic % 2, oc=32 * (1 + p.oc % 3), kh=kh, sw=sw, dh=1, dw=1, ih=max(p.ih, kh), order="any")
        return p.replace(src_layout="nhwc", iw=max(p.iw, 15 * sw + p.kw))
    if name == "shallow_last":  # groups that fill vectors, or first layers of whole ones; strides of at most 2, rows of at least a tile
        first = p.oc % 32 == 0 and p.ic % 2 == 1
        depth, many = (16 * (1 + p.oc % 2), 32) if p.oc > 30 else ((8, 16)[p.oc % 2],) * 2
        groups, kw = (1, p.kw) if first else (max(32 // depth, 2), min(p.kw, 3))
        p = p.replace(sh=min(p.sh, 2), sw=min(p.sw, 2), dh=1, dw=1, src_layout="nhwc", order="any",
                      iw=max(p.iw, 13 * p.sw + max(p.kw, 3)))  # fmt: skip
        return p.replace(g=groups, ic=4 - p.kh % 2 if first else groups * depth, oc=p.oc if first else groups * many, kw=kw)
    if name not in STRUCTURED:
        return p
    if name == "sparse":  # whose rows are not narrower than a tile
        return p.replace(g=p.oc, ic=p.oc, sw=1, src_layout="nchw", iw=max(p.iw, 64 + p.kw_span), structure=STRUCTURED[name])
    p = p.replace(dh=1, dw=1, sw=min(p.sw, 2), structure=STRUCTURED[name])
    if name == "separable" and p.iw % 3 == 0:
        p = p.replace(structure="box")
    if p.src_layout == "nchw":
        return p.replace(g=p.oc, ic=p.oc)
    if name == "lowrank":
        return p.replace(g=p.oc, ic=p.oc, src_layout="nchw")
    channels = 2 + p.oc % 3
    return p.replace(g=channels, ic=channels, oc=channels, sw=1, epilogue="", shared=True)


def shapes(p):
    """Shapes of what Plan.run reads and writes: src, wei, bias, dst."""
    image, result = (p.n, p.ic, p.ih, p.iw), (p.n, p.oc, p.oh, p.ow)
    kernel = (p.oc, p.ic // p.g, p.kh, p.kw)
    return {
        "fwd": (image, kernel, (p.oc,), result),
        "bwd_data": (result, kernel, (p.ic,), image),
        "bwd_weight": (image, result, (p.oc,), kernel),
    }[p.op]


def operands(p, integers=False, seed=0):
    """src, wei and bias (or None) of a problem, the same in every run, laid out in memory as the problem says."""
    rng = np.random.default_rng([crc32(str(p.replace(n=1, src_layout="nchw", wei_layout="oihw")).encode()), seed])
    src_shape, _, bias_shape, _ = shapes(p)
    src = random_array(rng, src_shape, DTYPES[p.src], integers)
    wei = structured(rng, p, integers)
    if p.masked and src.dtype.kind in "fc":
        src[rng.random(src.shape) < 0.3] = np.nan
        src[..., : p.ih // 2, : p.iw // 3] = np.nan
    if p.shared:
        wei = np.tile(wei[: p.oc // p.g], (p.g, 1, 1, 1))
    bias = random_array(rng, bias_shape, DTYPES[p.acc], integers) if p.epilogue.startswith("bias") else None
    if p.src_layout == "nhwc":
        src = np.ascontiguousarray(src.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if p.wei_layout == "hwio":
        wei = np.ascontiguousarray(wei.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)
    return src, wei, bias


def addends_of(p, bias):
    """What an epilogue reads, whole numbers, so that float sums are exact whatever the order; and one NaN and inf."""
    rng = np.random.default_rng(5)
    tail, words = finish_type(p), parse_scaling(p.epilogue)
    scale, shift = (rng.integers(-4, 5, p.oc).astype(tail) for _ in range(2))
    shift[2 % p.oc], scale[7 % p.oc] = np.nan, np.inf
    residual = np.empty_like(result_array(p), dtype=residual_type(p))
    residual[...] = rng.integers(-9, 9, residual.shape)
    return Addends(bias, scale if words.scale else None, shift if words.shift else None, residual if words.residual else None)


def result_array(p):
    """A poisoned array for the result, laid out as the problem says."""
    n, c, h, w = shapes(p)[3]
    shape = (n, h, w, c) if p.src_layout == "nhwc" and p.op != "bwd_weight" else (n, c, h, w)
    dst = np.empty(shape, DTYPES[p.dst])
    dst.view(np.uint8).fill(0xA5 if dst.dtype.kind in "biu" else 0xFF)  # all ones are NaN
    return dst.transpose(0, 3, 1, 2) if shape != (n, c, h, w) else dst


def run(p, src, wei, bias=None, algorithm=None, threads=1, fill=0, dst=None):
    """What an algorithm (None: the planner's choice) makes of a problem."""
    plan = plan_problem(p, threads=threads, algorithm=algorithm)
    assert algorithm in (None, plan.algorithm)
    dst = result_array(p) if dst is None else dst
    plan.run(src, plan.pack(wei), bias, dst, fill)
    return dst


def meets_what_was_left(plan, arrays, monkeypatch):
    """Whether a plan computes with what others left in its workspace: signaling NaN, which the processor remembers to have met."""
    library, invalid = ctypes.CDLL(ctypes.util.find_library("m")), 1

    def take(size):
        return np.full(-(-size // 4), 0x7FA00000, np.uint32).view(np.uint8)[:size]

    monkeypatch.setattr(workspaces, "take", take)
    src, packed, _, dst = arrays
    launch = plan.prepare(src, packed, dst, 0)
    library.feclearexcept(invalid)
    launch(*arrays)
    return bool(library.fetestexcept(invalid))


def any_problem(rng, dtype):
    """Extents of which every kernel has a fair share: common heights and strides, wide and narrow planes, few and many channels."""
    g = int(rng.choice([1, 1, 1, 4, 30]))
    kh, kw = (int(rng.choice([1, 3, 5, 7, rng.integers(1, 40)])) for _ in "hw")
    sh, sw, dh, dw = (int(rng.choice([1, 1, 2, rng.integers(1, 6)])) for _ in "abcd")
    layouts = [("nchw", "oihw"), ("nhwc", "hwio")][rng.integers(2)]
    if dtype[0] == "f" and not rng.integers(4):
        order = str(rng.choice([order for order in ORDERS if order != "any"]))
        kh, kw = [(kh, kw), (1, kw | 1), (kh | 1, 1)][0 if order == "raster" else rng.integers(1, 3)]
        return Problem.parse(f"ih99_{dtype}_order={order}").replace(
            kh=kh, kw=kw, ih=kh + int(rng.integers(90)), iw=kw + int(rng.integers(400))
        )
    return Problem.parse(f"ih99_{dtype}").replace(
        g=g, ic=g * int(rng.choice([1, rng.integers(1, 70)])), oc=g * int(rng.integers(1, 140)), kh=kh, kw=kw, sh=sh, sw=sw, dh=dh,
        dw=dw, ih=(kh - 1) * dh + 1 + int(rng.choice([0, rng.integers(90)])), pt=int(rng.integers(3)), pl=int(rng.integers(3)),
        iw=(kw - 1) * dw + 1 + int(rng.choice([0, rng.integers(20), rng.integers(400)])), src_layout=layouts[0],
        wei_layout=layouts[1])  # fmt: skip


def compare_strides(p, name):
    """The same bits from views of images and into views of results, backwards, converted, and planes; nothing is written beside."""
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, name)
    wide = np.full((p.n, p.ih + 2, p.iw + 5, p.ic + 3), np.nan, np.float32).transpose(0, 3, 1, 2)
    inside = wide[:, 2:-1, 1:-1, 2:-3]
    inside[...] = src
    assert_same_bits(run(p, inside, wei, bias, name), expected, "a view")
    inside[...] = src[:, :, ::-1, ::-1]
    assert_same_bits(run(p, inside[:, :, ::-1, ::-1], wei, bias, name), expected, "rows and columns backwards")
    for image in (np.ascontiguousarray(src), src.astype(">f4")):
        assert_same_bits(run(p, image, wei, bias, name), expected, "converted by bands")
    memory = np.full((p.n, p.oh + 3, p.ow + 5, p.oc + 2), 77, np.float32).transpose(0, 3, 1, 2)
    result = memory[:, 1:-1, 1:-2, 2:-3]
    run(p, src, wei, bias, name, dst=result)
    assert_same_bits(result.copy(), expected, "a view of a result")
    result[...] = 77
    assert (memory == 77).all()
    planes = np.empty((p.n, p.oc, p.oh, p.ow), np.float32)
    run(p, src, wei, bias, name, dst=planes)
    assert_same_bits(planes, expected, "planes")


def repaired(monkeypatch):
    """The blocks that no transform could compute, of each call: rows of (image, block row, block column)."""
    calls, repair = [], winograd_repair._repair

    def counted(p, m, child, wrong, *rest):
        calls.append(wrong)
        repair(p, m, child, wrong, *rest)

    monkeypatch.setattr(winograd_repair, "_repair", counted)
    return calls
