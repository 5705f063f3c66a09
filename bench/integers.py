"""Layers of bytes: sums in 32 bits as ONNX's ConvInteger, exact, and bytes again as its QLinearConv, over ONNX Runtime.

Weights are packed beforehand, zero points of pixels and weights are 0 and scales those of single channels. Results of QLinearConv may
differ by 1 where ONNX Runtime rounds otherwise; ours are those of its formula in float32.
"""

import numpy as np

from bench import graphs, truth
from bench.ceilings import at_line
from bench.figures import Figure, Suite
from bench.layers import BATCHES, batched, every_layer, mean_of, paced, probes_of_all_threads, row_of
from bench.measure import Contender, measure
from bench.peers import Peer, Prepared, cores, missing

WHOLE, EACH = 1.3, 1.0
ZERO = 128  # the zero point of QLinearConv's results
LAYOUTS = ("NCHW", "NHWC")


def _scales(p):
    """What makes bytes of a layer's sums, whose standard deviation is about 147 * 74 of a product: most of them within the range."""
    rng = np.random.default_rng(p.oc)
    return (rng.uniform(32, 64, p.oc) / (147 * 74 * np.sqrt(p.taps))).astype(np.float32)


def _judged(p, most):
    """How to read a QLinearConv's result: the exact sums, where each byte is within ``most`` of what the formula makes of its sum."""

    def canonical(result):
        sums = truth.operands(p).exact.value
        scaled = sums.astype(np.float32) * _scales(p)[:, None, None]
        expected = np.clip(np.rint(scaled) + np.float32(ZERO), 0, 255)
        off = np.abs(np.asarray(result).astype(np.int32) - expected).max()
        if result.dtype != np.uint8 or off > most:
            raise truth.WrongAnswer(f"bytes of type {result.dtype} are off by {off:.0f}, at most {most} is allowed")
        return sums.astype(np.int32)

    return canonical


def _reject(p):
    return None if truth.fits_float64(p) and p.op == "fwd" and p.border == "constant" else "forward sums of bytes in 32 bits only"


def _ours(layout, bytes_again):
    def setup(p, operands, threads, out):
        import fastconv
        from fastconv.nn import Epilogue

        src, wei = operands.src, operands.wei
        if layout == "NHWC":
            src, wei = at_line(src.transpose(0, 2, 3, 1)), at_line(wei.transpose(2, 3, 1, 0))
        how = {"epilogue": Epilogue(scale=_scales(p), dtype=np.uint8, zero_point=ZERO)} if bytes_again else {"dtype": np.int32}
        how |= {"threads": threads} if threads else {}
        run = fastconv.plan(
            src,
            wei,
            stride=(p.sh, p.sw),
            padding=((p.pt, p.pb), (p.pl, p.pr)),
            dilation=(p.dh, p.dw),
            groups=p.g,
            data_format=layout,
            **how,
        )
        dst = np.empty_like(run(src))
        read = _judged(p, 0) if bytes_again else np.asarray

        def canonical(result):
            return read(result.transpose(0, 3, 1, 2) if layout == "NHWC" else result)

        return Prepared(lambda: run(src, out=dst), canonical)

    return setup


def _theirs(operator):
    def reject(p):
        return _reject(p) or missing("onnx") or missing("onnxruntime")

    def setup(p, operands, threads, out):
        call = graphs.onnxruntime_call(p, operands, threads or cores(), operator, _scales(p), ZERO)
        return Prepared(call, _judged(p, 1) if operator == "QLinearConv" else np.asarray)

    return Peer(f"onnxruntime {operator}", "onnxruntime", reject, setup)


OPERATORS = {
    operator: (
        tuple(
            Peer(f"fastconv.plan {operator} {layout}", "fastconv", _reject, _ours(layout, operator == "QLinearConv")) for layout in LAYOUTS
        ),
        _theirs(operator),
    )
    for operator in ("ConvInteger", "QLinearConv")
}


def _suite(batch):
    name = batched("integers", batch)
    claim = f"layers of bytes over ONNX Runtime's ConvInteger and QLinearConv, batch {batch}: 1.3x in the mean, each 1x"

    def run(pace, keep=lambda problem: True):
        rows, cells, all_refusals, pace, probes = [], [], [], paced(pace), probes_of_all_threads()
        for problem in every_layer(batch):
            p = problem.replace(src="u8", wei="i8", dst="i32", acc="i32")
            if not keep(p):
                continue
            contenders = [Contender(peer, out=True) for ours, theirs in OPERATORS.values() for peer in (*ours, theirs)]
            timings, refusals, probed = measure(p, contenders, pace, probes)
            for operator, (ours, theirs) in OPERATORS.items():
                names = tuple(peer.name for peer in ours), (theirs.name,)
                rows.append(row_of(p, timings, refusals, probed, names, EACH, f"{p} {operator}"))
            cells += timings
            all_refusals += refusals
        means = [
            mean_of(f"geometric mean: {operator}", [row for row in rows if row.case.endswith(operator)], WHOLE)
            for operator in (OPERATORS if rows else ())
        ]
        return Figure(name, claim, "x", [*rows, *means], cells, all_refusals)

    return Suite(name, claim, run)


SUITES = tuple(_suite(batch) for batch in BATCHES)
