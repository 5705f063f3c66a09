"""`python -m bench.gpu`: fastconv on a CUDA card: right first, then fast, beside the card's ceilings and `bench.gpu_peers`.

Ends within ten minutes, whatever the card: what was not reached by then is counted.  Kernels are compiled ahead, by as many processes as
there are cores.  First problems are measured, then their peers, one after the other from all over the list.  Times are between events,
of launches that go round buffers together larger than twice the second-level cache.  Writes bench/results/NAME.json after each step,
and prints a table and the figures.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from bench.cases import load, short
from bench.gpu_ceilings import ceilings, seconds
from bench.gpu_compile import compiled_ahead
from bench.gpu_figures import figures
from bench.gpu_peers import peers
from bench.machine import describe
from fastconv.cuda import driver, target, transfer
from fastconv.cuda.arrays import DeviceArray, dense_strides
from fastconv.planning.addends import Addends
from fastconv.planning.bfloat import narrowed
from fastconv.planning.planner import algorithms, plan_problem, short_name
from fastconv.planning.problem import DTYPES, Problem, Scaling, parse_scaling
from fastconv.planning.reference import finish

RESULTS = Path(__file__).parent / "results"
SECONDS = 500  # of the whole run, and what one step may take longer: a step begins with `STEP_SECONDS` left
AHEAD_SECONDS, CORRECT_SECONDS, SANITIZER_SECONDS, OWN_SECONDS, STEP_SECONDS = 45, 110, 45, 130, 15
IMAGES = tuple(
    f"ih{size}_k{k}_p{k // 2}{types}" for types, taps in (("", (3, 5, 7, 9, 11, 15, 21)), ("_u8:u8:u8:u8", (3, 5, 7)),
                                                          ("_u8:f32:u8:f32_saturate", (3, 5, 7))) for size in (8192, 16384) for k in taps
)  # fmt: skip
NETWORKS, BATCH = ("resnet50", "vgg16", "mobilenetv2", "resnext50"), 32
# beside each algorithm's first case
SAMPLE = ("ih33iw261_kh9kw11_p4_symmetric", "ic3ih20iw70_oc4k3_s2_p1", "ih40iw200_k3_p1_u8:u8:u8:u8")


class Clock:
    """Seconds left of a limit."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def left(self):
        return self.end - time.monotonic()


def there(array):
    """An array on the card that lies there as on the host."""
    order = np.argsort([-stride for stride in array.strides], kind="stable")
    dense = transfer.to_device(array.transpose(order))
    return dense.transpose(*np.argsort(order))


def device_operands(p, integers=False):
    """src, wei, bias of a problem on the card as kernels see them, the host's, and memory for the result."""
    from tests.problems import operands, result_array

    src, wei, bias = operands(p, integers)
    return tuple(None if array is None else there(array) for array in (src, wei, bias, result_array(p))), (src, wei, bias)


def check(name, p):
    """None, or how an algorithm's result differs from the truth by more than tests/oracles.py allows."""
    from fastconv.cuda.copy import addend, converted
    from tests.oracles import assert_same_bits, assert_within, of_card, truth
    from tests.problems import addends_of, result_array, run

    scaled = parse_scaling(p.epilogue) != Scaling()

    def launched(p, addends, dst):
        plan = plan_problem(p, target.detect(), algorithm=name)
        packed = plan.pack(wei if p.structure == "full" else host[1])  # what is known of weights was seen on the host
        plan.run(src, packed, addends, dst)
        return transfer.to_host(converted(dst, dst.dtype))

    try:
        (src, wei, bias, dst), host = device_operands(p, integers=scaled)
        addends = None if bias is None else addend(p.acc, bias, src.device)
        if scaled:  # what the host makes of the algorithm's own sums
            plain, given, expected = p.replace(dst=p.acc, epilogue="" if bias is None else "bias"), addends_of(p, host[2]), result_array(p)
            finish(p, launched(plain, addends, there(result_array(plain))), given, expected)
            arrays = (None if array is None else there(array) for array in given[1:4])
            assert_same_bits(launched(p, Addends(addends, *arrays), dst), expected, name)
        else:
            exact = truth(p, *host)
            if p.order != "any":  # of weights that are not symmetric, its sums are others than the formula's
                exact = exact._replace(value=run(p, *host, "reference"))
            assert_within(launched(p, addends, dst), p, exact, of_card(name), name)
    except AssertionError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 (the driver's refusal is a wrong answer, and no reason to stop)
        return f"{type(error).__name__}: {error}"
    return None


def correctness(clock):
    """Every algorithm on every case it takes, until the time is up."""
    from tests.problems import CASES

    found = {"right": 0, "refused": 0, "not reached": 0, "wrong": []}
    limit = Clock(min(CORRECT_SECONDS, clock.left()))
    pairs = [(short_name(a), Problem.parse(case)) for a in algorithms("cuda") if hasattr(a, "kernels") for case in a.CASES]
    pairs += [(short_name(a), p) for p in CASES.values() for a in algorithms("cuda")]
    modules = {short_name(a): a for a in algorithms("cuda")}
    for name, p in pairs:
        if limit.left() < 0:
            found["not reached"] += 1
        elif modules[name].reject(p, target.detect()) is not None:
            found["refused"] += 1
        else:
            reason = check(name, p)
            if reason is None:
                found["right"] += 1
            else:
                found["wrong"].append(f"{name} {p}: {reason[:300]}")
    return found


def sanitized(clock):
    """What compute-sanitizer's memcheck says of a sample, or why it was not asked."""
    toolkit = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    tool = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), f"{toolkit}/bin"]))
    if tool is None:
        return f"not run: compute-sanitizer is neither on PATH nor in {toolkit}/bin"
    line = [tool, "--error-exitcode", "9", sys.executable, "-m", "bench.gpu", "--sample"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=min(SANITIZER_SECONDS, max(clock.left(), 1)), check=False)
    except subprocess.TimeoutExpired:
        return "not finished in time"
    return "no error" if done.returncode == 0 else f"exit status {done.returncode}: {done.stdout[-1500:]}"


def sample():
    """(algorithm, problem) of what compute-sanitizer is shown."""
    every = [(short_name(a), Problem.parse(a.CASES[0])) for a in algorithms("cuda") if not isinstance(a.CASES, str)]
    return [(name, p) for name, p in [*every, *(("direct", Problem.parse(case)) for case in SAMPLE)]
            if next(a for a in algorithms("cuda") if short_name(a) == name).reject(p, target.detect()) is None]  # fmt: skip


def buffers(p):
    """How many pairs of image and result are together larger than twice the second-level cache."""
    size = moved(p)
    return max(2, min(64, math.ceil(2 * target.detect().l2 / size) + 1))


def moved(p):
    """Bytes of image and result."""
    return p.n * (p.ic * p.ih * p.iw * DTYPES[p.src].itemsize + p.oc * p.oh * p.ow * DTYPES[p.dst].itemsize)


def _filled(shape, name, layout, seed):
    n, c, h, w = shape
    pattern = narrowed(np.random.default_rng(seed).integers(0, 9, 8191), DTYPES[name])
    array = transfer.to_device(np.resize(pattern, shape if layout == "nchw" else (n, h, w, c)))
    return array if layout == "nchw" else array.transpose(0, 3, 1, 2)


def _result(shape, name, layout):
    n, c, h, w = shape
    order = shape if layout == "nchw" else (n, h, w, c)
    memory = driver.Memory(math.prod(shape) * DTYPES[name].itemsize)
    array = DeviceArray(memory.address, order, dense_strides(order, DTYPES[name].itemsize), DTYPES[name], owner=memory)
    return array if layout == "nchw" else array.transpose(0, 3, 1, 2)


def ours(p):
    """Seconds of fastconv's plan, and its text."""
    plan = plan_problem(p, target.detect())
    pairs = [(_filled((p.n, p.ic, p.ih, p.iw), p.src, p.src_layout, n), _result((p.n, p.oc, p.oh, p.ow), p.dst, p.src_layout))
             for n in range(buffers(p))]  # fmt: skip
    packed = plan.pack(narrowed(np.random.default_rng(0).integers(-4, 5, (p.oc, p.ic // p.g, p.kh, p.kw)), DTYPES[p.wei]))
    launch = plan.prepare(pairs[0][0], packed, pairs[0][1])

    def run(n):
        src, dst = pairs[n % len(pairs)]
        launch(src, packed, None, dst)

    return seconds(run), str(plan)


def problems():
    """The figures' cells: images, then layers of networks in both layouts."""
    yield from map(Problem.parse, IMAGES)
    for name in NETWORKS:
        for p in load(name):
            for layout in ("nchw", "nhwc"):
                yield p.replace(n=BATCH, src_layout=layout, epilogue="")
    for p in load(NETWORKS[0]):  # on tensor cores
        p = p.replace(n=BATCH, src_layout="nhwc", epilogue="", precision="fast")
        yield p
        for half in ("f16", "bf16"):
            yield p.replace(src=half, wei=half, dst=half, acc="f32")


def cell(p, ceilings):
    """A problem's row: seconds, the share of the roof, or why there are none."""
    row = {"problem": str(p), "peers": {}}
    try:
        row["seconds"], row["plan"] = ours(p)
    except Exception as error:  # noqa: BLE001 (one problem that cannot run does not end the others)
        return {**row, "error": f"{type(error).__name__}: {error}"[:300]}
    products = p.flops / 2
    roofs = {"copy": moved(p) / ceilings["copy"], "fma": products / ceilings["fma"]}
    factor = "tf32" if p.src == "f32" else p.src
    if p.precision == "fast" and factor in ceilings:
        roofs = {"copy": roofs["copy"], factor: products / ceilings[factor]}
        if f"peak {factor}" in ceilings:
            row["peak"] = products / ceilings[f"peak {factor}"] / row["seconds"]
    row["shares"] = {name: least / row["seconds"] for name, least in roofs.items()}
    row["roof"] = max(roofs, key=roofs.get)
    row["share"] = row["shares"][row["roof"]]
    return row


def cells(clock, ceilings, found):
    """Rows of all problems, in ``found["cells"]``, and which packages are missing, in ``found["missing"]``; yields after each step."""
    every = list(problems())
    own = Clock(min(OWN_SECONDS, clock.left()))
    rows = found["cells"] = [{"problem": str(p), "not reached": True} for p in every]
    missing = found.setdefault("missing", {})
    order = spread(len(every))
    for place in order:
        if min(own.left(), clock.left() - STEP_SECONDS) > 0:
            rows[place] = cell(every[place], ceilings)
        yield
    known = {}  # peers that a problem of the other layout had, too
    for place in order:
        p, row = every[place], rows[place]
        for name, measure in peers(p, seconds, buffers(p)).items() if "seconds" in row else ():
            package, key = name.split()[0], (name, p.replace(src_layout="nchw"))
            if package in missing or (clock.left() < STEP_SECONDS and key not in known):
                continue
            if key not in known:
                try:
                    known[key] = measure()
                except ImportError as error:
                    missing[package] = str(error)
                    continue
                except Exception as error:  # noqa: BLE001 (a peer that cannot run, as a torch without CUDA, does not end the others)
                    known[key] = f"{type(error).__name__}: {error}"[:200]
            row["peers"][name] = known[key]
        yield


def spread(count):
    """The numbers below ``count`` in an order whose beginnings are from all over them."""
    step = next(n for n in range(max(round(0.618 * count), 1), 2 * count + 2) if math.gcd(n, count) == 1)
    return [n * step % count for n in range(count)]


def text(row):
    """A row of the table."""
    name = f"{short(row['problem']):<44}"
    if "seconds" not in row:
        return f"{name} {row.get('error', 'not reached in time')}"
    others = (f"{peer} {value / row['seconds']:.2f}x" for peer, value in row["peers"].items() if isinstance(value, float))
    peak = f" ({row['peak']:.1%} of the card's peak)" if "peak" in row else ""
    return f"{name} {row['seconds'] * 1e3:9.4f} ms {row['share']:6.1%} of {row['roof']:<4}{peak}  " + ", ".join(others)


def main(arguments=None):
    """Run everything; exit status 1 where a result was wrong, and 2, with what was found, where there is no card."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--save", default="gpu", metavar="NAME", help="name of the result")
    parser.add_argument("--sample", action="store_true", help="only compute a few cases, as compute-sanitizer is shown")
    options = parser.parse_args(arguments)
    clock = Clock(SECONDS)
    try:
        card = target.detect()
    except (ImportError, RuntimeError) as error:
        print(f"bench.gpu needs a CUDA card: {error}\nNothing was measured.", file=sys.stderr)
        return 2
    if options.sample:
        wrong = [reason for name, p in sample() if (reason := check(name, p))]
        print(*wrong, sep="\n")
        return int(bool(wrong))
    place = RESULTS / f"{options.save}.json"

    def save():
        RESULTS.mkdir(exist_ok=True)
        place.write_text(json.dumps(document, indent=1), encoding="utf-8")

    document = {**describe(), "card": str(card), "ahead": compiled_ahead(problems(), card, min(AHEAD_SECONDS, clock.left()))}
    document |= {"correct": correctness(clock), "sanitizer": sanitized(clock)}
    print(f"{card}\ncompiled ahead: {document['ahead']}\ncorrectness: {document['correct']}", flush=True)
    print(f"compute-sanitizer: {document['sanitizer']}", flush=True)
    document["ceilings"] = ceilings()
    print(", ".join(f"{name} {value / 1e12:.2f}" for name, value in document["ceilings"].items()), "(TB/s, Tfma/s)", flush=True)
    save()
    for _ in cells(clock, document["ceilings"], document):
        save()
    for row in document["cells"]:
        print(text(row), flush=True)
    document["figures"] = figures(document["cells"])
    save()
    for line in document["figures"]:
        print(line)
    for name, reason in document["missing"].items():
        print(f"{name} is missing: {reason}")
    print(f"{SECONDS - clock.left():.0f} s")
    return int(bool(document["correct"]["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
