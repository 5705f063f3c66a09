"""A process of its own in Numba's CUDA simulator: algorithms of the CUDA list on cases, one line ``ALGORITHM CASE: verdict`` for each.

Run as ``NUMBA_ENABLE_CUDASIM=1 python -m tests.simulated ALGORITHM CASE ...``; a verdict is ``right``, ``refused: why`` or what is wrong.
A case may be followed by `` fill=VALUE``, of the constant border, and by one of `CHANGED`: `` spoiled``, for numbers that are not finite,
`` tiny`` and `` huge``, for pixels next to the smallest number and next to the largest.
The memory that a kernel may touch is that of its operands: an access elsewhere, or one that is not aligned, is an error.
"""

import contextlib
import sys
import traceback

import numpy as np

from fastconv.cuda import driver, plain
from fastconv.cuda.arrays import DeviceArray
from fastconv.cuda.finish import SUMS
from fastconv.cuda.simd import SIMULATED
from fastconv.cuda.target import detect
from fastconv.planning import planner
from fastconv.planning.addends import Addends
from fastconv.planning.bfloat import narrowed, widened
from fastconv.planning.planner import algorithms, plan_problem, short_name
from fastconv.planning.problem import DTYPES, Problem, Scaling, parse_epilogue, parse_scaling
from fastconv.planning.reference import finish
from tests.oracles import assert_close, assert_same_bits, assert_within, children_on_card, of_card, stored, truth
from tests.problems import addends_of, operands, result_array, run

CUDA = {short_name(algorithm): algorithm for algorithm in algorithms("cuda")}
GUARD = 64  # bytes of poison around each operand


def on_device(array):
    """The array as device memory, and the host's array behind it: the same strides between bytes of poison."""
    low = sum(min(s * (n - 1), 0) for s, n in zip(array.strides, array.shape, strict=True))
    high = sum(max(s * (n - 1), 0) for s, n in zip(array.strides, array.shape, strict=True)) + array.itemsize
    whole = np.full(2 * GUARD + high - low + 16, 0xA5, np.uint8)
    start = -whole.ctypes.data % 16 + GUARD  # aligned as a device's memory is
    memory = whole[start : start + high - low]
    view = np.ndarray(array.shape, array.dtype, memory, -low, array.strides)
    view[...] = array
    return DeviceArray(view.ctypes.data, view.shape, view.strides, view.dtype, owner=whole), view, memory


def spoiled(p, src, wei):
    """Copies with NaN and infinities in corners of the last image, an infinite weight in the last filter and a zero in the first."""
    src, wei = src.copy("K"), wei.copy("K")
    src[-1, 0, 0, 0], src[-1, -1, 0, -1], src[-1, -1, -1, -1] = np.nan, np.inf, -np.inf
    wei[0, -1, 0, 0], wei[-1, -1, 0, 0] = 0, -np.inf
    return src, wei


CHANGED = {
    "spoiled": spoiled,
    "tiny": lambda p, src, wei: (src * src.dtype.type(2.0**-145), wei * wei.dtype.type(2.0**100)),
    "huge": lambda p, src, wei: (src * src.dtype.type(2.0**123), wei * wei.dtype.type(2.0**-145)),
}


def simulate(name, p, fill=0, integers=False, change=""):
    """What an algorithm makes of a problem in the simulator, and the truth."""
    algorithm = CUDA[name]
    src, wei, bias = operands(p, integers)
    if change:
        src, wei = map(narrowed, CHANGED[change](p, widened(src), widened(wei)), (src.dtype, wei.dtype))
    exact = truth(p, src, wei, bias, fill)
    if p.order != "any":  # of weights that are not symmetric, its sums are others than the formula's
        exact = exact._replace(value=run(p, src, wei, bias, "reference", fill=fill))
    return launched(algorithm.build(p, detect(), plan_problem), src, wei, bias, fill), exact


def launched(plan, src, wei, addends, fill=0):
    """What a plan makes of operands, a bias or `Addends` among them."""
    p = plan.problem
    bias = addends.bias if isinstance(addends, Addends) else addends
    parts = [on_device(array) for array in (src, wei, result_array(p))]
    given = [None if bias is None else on_device(bias.astype(DTYPES[SUMS.get(p.acc, p.acc)]))]
    if isinstance(addends, Addends):
        given += [None if array is None else on_device(array) for array in addends[1:4]]
    driver.allow()
    packed = plan.pack(parts[1][0] if p.structure == "full" else wei)  # what is known of weights was seen on the host
    if packed is not parts[1][0]:
        parts[1] = packed, None, np.frombuffer((np.ctypeslib.ctypes.c_char * packed.nbytes).from_address(packed.address), np.uint8)
    driver.allow(*(part[2] for part in (*parts, *given) if part is not None), *workspaces(plan))
    arrays = [part and part[0] for part in given]
    plan.run(parts[0][0], packed, Addends(*arrays) if isinstance(addends, Addends) else arrays[0], parts[2][0], fill)
    driver.allow()
    return parts[2][1]


def assert_scaled(name, p):
    """Sums of whole numbers that are scaled where they are stored, bit for bit what the reference makes of the algorithm's own sums."""
    src, wei, bias = operands(p, integers=True)
    addends, plain = addends_of(p, bias), p.replace(dst=p.acc, epilogue="" if bias is None else "bias")
    sums = launched(CUDA[name].build(plain, detect(), plan_problem), src, wei, bias)
    expected = result_array(p)
    with np.errstate(all="ignore"):
        finish(p, sums, addends, expected)
    assert_same_bits(launched(CUDA[name].build(p, detect(), plan_problem), src, wei, addends), expected, name)


def workspaces(plan):
    """Device memory that a plan keeps for its runs."""
    return tuple(getattr(plan, "memories", ()))


def exact_points(name, p):
    """Whether an algorithm makes whole numbers of whole numbers."""
    if name == "transposed":
        return all(exact_points(child.algorithm, child.problem) for child in children_on_card(p))
    return name != "winograd" or CUDA[name].extent(p, detect()) == 2


def verdict(name, p, fill=0, change=""):
    """Run whole numbers, which must be exact, and floats within the bound; of changed operands the latter."""
    reason = CUDA[name].reject(p, detect())
    if reason is not None:
        return f"refused: {reason}"
    if parse_scaling(p.epilogue) != Scaling():
        assert_scaled(name, p)
        return "right"
    exact_sums = p.order != "any" or (DTYPES[p.dst] == DTYPES[p.acc] and parse_epilogue(p.epilogue).activation in (None, "relu", "relu6"))
    exact_sums = exact_sums and exact_points(name, p)
    # Python's floats are float64: what float32 rounds otherwise is left to whole numbers
    exact_sums = exact_sums and not p.masked  # whose quotients are rounded
    for integers in (True, False)[: 1 + (p.order == "any")] if DTYPES[p.src].kind in "fV" and not change else (False,):
        got, exact = simulate(name, p, fill, integers, change)
        if integers and exact_sums:
            assert_close(got, stored(p, exact), 0, name)
        else:
            assert_within(got, p, exact, of_card(name), name)
    return "right"


@contextlib.contextmanager
def children(name):
    """Those of an image's gradient by what computes large ones forward: of small ones one result a thread is quicker."""
    cost = plain.cost
    if name == "transposed":
        planner.forget()
        plain.cost = lambda p, t: 1.0
    yield
    if name == "transposed":
        plain.cost = cost
        planner.forget()


def main():
    assert SIMULATED
    for text in sys.argv[1:]:
        name, _, case = text.partition(" ")
        change = next((word for word in CHANGED if case.endswith(f" {word}")), "")
        case, _, fill = case.removesuffix(f" {change}").partition(" fill=")
        try:
            with children(name):
                answer = verdict(name, Problem.parse(case), float(fill or 0), change)
        except Exception:  # noqa: BLE001 (the parent fails with it)
            answer = "wrong: " + traceback.format_exc().replace("\n", "\\n")
        print(f"{text}: {answer}", flush=True)


if __name__ == "__main__":
    main()
