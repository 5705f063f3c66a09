"""The layers of networks as training calls them: weights change at every step, so that their packing counts, and two gradients are wanted.

Results are new arrays on both sides, of the default threads; ours is the better of both layouts, as is torch's.
"""

from dataclasses import replace

from bench.figures import Figure, Row, Suite
from bench.layers import BATCHES, batched, every_layer, mean_of, paced, probes_of_all_threads, row_of
from bench.measure import Contender, measure, measure_together, ratio
from bench.peers import NAMED, Peer, Prepared, missing

CALLS = ("fastconv.conv2d", "fastconv.conv2d NHWC")
TORCH = ("torch", "torch channels_last")
GRADIENTS = ("bwd_data", "bwd_weight")
FUNCTIONAL, EACH_FUNCTIONAL, BACKWARD, EACH_BACKWARD = 1.4, 1.0, 1.2, 0.9


def _reject(p):
    if p.op not in GRADIENTS:
        return "gradients only"
    if p.border != "constant" or (p.pt, p.pl) != (p.pb, p.pr):
        return "padding with as many zeros on both sides only"
    return None if p.src == p.wei == p.dst == "f32" else "float32 only"


def _setup_nn(p, operands, threads, out):
    """`fastconv.nn`'s functions of NumPy arrays, channels first."""
    from fastconv import nn

    how = (p.sh, p.sw), (p.pt, p.pl), (p.dh, p.dw), p.g
    src, wei = operands.src, operands.wei
    if p.op == "bwd_data":
        size = p.n, p.ic, p.ih, p.iw
        return Prepared(lambda: nn.conv2d_input(size, wei, src, *how), lambda result: result)
    size = p.oc, p.ic // p.g, p.kh, p.kw
    return Prepared(lambda: nn.conv2d_weight(src, size, wei, *how), lambda result: result)


def _tensors(p, operands, layout):
    import torch

    return [torch.from_numpy(array).contiguous(memory_format=getattr(torch, layout)) for array in (operands.src, operands.wei)]


def _setup_tensors(p, operands, threads, out):
    """`fastconv.nn`'s functions of tensors, channels last."""
    from fastconv import nn

    src, wei = _tensors(p, operands, "channels_last")
    how = (p.sh, p.sw), (p.pt, p.pl), (p.dh, p.dw), p.g
    if p.op == "bwd_data":
        size = p.n, p.ic, p.ih, p.iw
        return Prepared(lambda: nn.conv2d_input(size, wei, src, *how), lambda result: result.numpy())
    size = p.oc, p.ic // p.g, p.kh, p.kw
    return Prepared(lambda: nn.conv2d_weight(src, size, wei, *how), lambda result: result.numpy())


def _setup_torch(layout):
    """What autograd calls, for one of both gradients."""

    def setup(p, operands, threads, out):
        import torch

        src, wei = _tensors(p, operands, layout)
        backward, data = torch.ops.aten.convolution_backward, p.op == "bwd_data"
        # the operand that is not read must have its shape
        other = torch.empty((p.n, p.ic, p.ih, p.iw) if data else (p.oc, p.ic // p.g, p.kh, p.kw))
        other = other.contiguous(memory_format=getattr(torch, layout))
        grad, image, weight = (src, other, wei) if data else (wei, src, other)
        rest = None, [p.sh, p.sw], [p.pt, p.pl], [p.dh, p.dw], False, [0, 0], p.g, [data, not data, False]
        return Prepared(lambda: backward(grad, image, weight, *rest), lambda results: results[0 if data else 1].numpy())

    return setup


def _with_torch(p):
    return _reject(p) or missing("torch")


OURS = (
    Peer("fastconv.nn", "fastconv", _reject, _setup_nn, takes_out=False),
    Peer("fastconv.nn channels_last", "fastconv", _with_torch, _setup_tensors, takes_out=False),
)
THEIRS = (
    Peer("torch", "torch", _with_torch, _setup_torch("contiguous_format"), takes_out=False, transform=True),
    Peer("torch channels_last", "torch", _with_torch, _setup_torch("channels_last"), takes_out=False, transform=True),
)


def _together(timings):
    """The two gradients of one peer as one `Timing`: a call of each, round by round."""
    names = "median_s", "q1_s", "q3_s", "best_s"
    return replace(
        timings[0],
        **{name: sum(getattr(timing, name) for timing in timings) for name in names},
        rounds_s=tuple(map(sum, zip(*(timing.rounds_s for timing in timings), strict=True))),
        worst_error=max(timing.worst_error for timing in timings),
    )


def gradients_row(problem, timings, refusals, probed):
    """Both gradients together, the best of ours against the best of torch; each of them beside it."""
    names = [peer.name for peer in (*OURS, *THEIRS)]
    found = {name: {timing.problem: timing for timing in timings if timing.peer == name} for name in names}
    both = [_together(list(each.values())) for each in found.values() if len(each) == len(GRADIENTS)]
    twice = problem.replace(n=2 * problem.n)  # whose products are as many as those of both gradients
    ours = tuple(peer.name for peer in OURS)
    row = row_of(twice, both, refusals, probed, (ours, tuple(peer.name for peer in THEIRS)), EACH_BACKWARD, str(problem))
    if row.measured is None:
        return row
    fast = next(timing for timing in both if timing.peer == ours[row.details["ours"] == "NHWC"])
    parts = {}
    for op in GRADIENTS:
        text = str(problem.replace(op=op))
        parts[op] = f"{ratio(found[row.against][text], found[fast.peer][text]):.2f}x"
    return Row(row.case, row.measured, row.target, against=row.against, details=row.details | parts)


def _functional(batch):
    name = batched("functional", batch)
    claim = f"conv2d with its weights' packing over torch's functional conv2d, batch {batch}: 1.4x in the mean, each 1x"

    def run(pace, keep=lambda problem: True):
        rows, cells, all_refusals, pace, probes = [], [], [], paced(pace), probes_of_all_threads()
        for problem in filter(keep, every_layer(batch)):
            timings, refusals, probed = measure(problem, [Contender(NAMED[peer]) for peer in (*CALLS, *TORCH)], pace, probes)
            rows.append(row_of(problem, timings, refusals, probed, (CALLS, TORCH), EACH_FUNCTIONAL))
            cells += timings
            all_refusals += refusals
        return Figure(name, claim, "x", [*rows, mean_of("geometric mean", rows, FUNCTIONAL)] if rows else [], cells, all_refusals)

    return Suite(name, claim, run)


def _backward(batch):
    name = batched("backward", batch)
    claim = f"the gradients of a layer's input and weights over torch's, batch {batch}: 1.2x in the mean, each 0.9x"

    def run(pace, keep=lambda problem: True):
        rows, cells, all_refusals, pace, probes = [], [], [], paced(pace), probes_of_all_threads()
        for problem in filter(keep, every_layer(batch)):
            pairs = [(problem.replace(op=op), Contender(peer)) for op in GRADIENTS for peer in (*OURS, *THEIRS)]
            timings, refusals, probed = measure_together(pairs, pace, probes)
            rows.append(gradients_row(problem, timings, refusals, probed))
            cells += timings
            all_refusals += refusals
        return Figure(name, claim, "x", [*rows, mean_of("geometric mean", rows, BACKWARD)] if rows else [], cells, all_refusals)

    return Suite(name, claim, run)


SUITES = tuple(make(batch) for batch in BATCHES for make in (_functional, _backward))
