"""Run algorithms on arrays that touch unreadable pages: ``python -m tests.guarded ALGORITHM ...``.

Each array lies directly before or directly behind a page that no access survives, so a read or write outside kills this process;
the case then last printed is the guilty one.  ``rows``: every row of image and result has its own unreadable neighbours.
Workspaces end at such a page, too, and the integers and scalars that kernels receive.
"""

import ctypes
import mmap
import sys

import numpy as np

from fastconv.cpu.target import detect
from fastconv.cpu.threads import Region
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import DTYPES, Problem
from tests.oracles import assert_within, truth
from tests.problems import ALGORITHMS, CASES, declared, operands, shapes, typed

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_kept = []

# (image ends at a guard, or begins at one), the same for the weights and the result
SIDES = {"ends": ("end", "end", "end"), "begins": ("begin", "begin", "begin"), "mixed": ("begin", "end", "begin")}
TEXTS = ("ih5iw17_k3", "ih9iw16_k3_p1", "ih1iw1_k1", "ih3iw200_k3_s2", "ih12iw40_k5_d2_reflect_p3", "ih8iw33_k3_s3",
         "ih7iw31_k2_f64", "ih9iw65_k3_u8", "ih9iw33_k3_i64", "ih9iw33_k3_c64", "ic3ih6iw18_oc5k3_f16:f16:f16:f32",
         "ic17ih5iw14_oc33k3_p1",
         "ic16ih4iw7_oc32k1", "ic2ih5iw14_oc32k2_hwio", "ic20ih9iw15_oc17k3_s2_nhwc_hwio", "ic5ih6iw29_oc20k3_p1_wrap_bias+relu",
         "g3_ic9ih7iw20_oc6k3_nhwc_hwio",
         "ih9iw21_k3_fld", "ih9iw40_k3_u8:f32:f32:f32", "n2_ic33ih5iw6_oc65k3_f64_bias")  # fmt: skip


def region(pages):
    """``pages`` usable pages between two that are not."""
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    _kept.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for address in (start, start + (pages + 1) * PAGE):
        if _libc.mprotect(address, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    return memory


def placed(shape, dtype, side):
    """An array whose last byte is followed, or whose first byte is preceded, by an unreadable page."""
    size = int(np.prod(shape)) * dtype.itemsize
    pages = max(-(-size // PAGE), 1)
    memory = region(pages)
    offset = PAGE + (pages * PAGE - size if side == "end" else 0)
    return np.frombuffer(memory, dtype, int(np.prod(shape)), offset).reshape(shape)


def fenced(shape, dtype, side):
    """An array of which every row lies in a page of its own, before or behind an unreadable one."""
    *outer, width = shape
    rows = int(np.prod(outer))
    assert width * dtype.itemsize <= PAGE
    memory = mmap.mmap(-1, (2 * rows + 1) * PAGE)
    _kept.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in range(0, 2 * rows + 1, 2):
        if _libc.mprotect(start + page * PAGE, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    first = PAGE + (PAGE - width * dtype.itemsize if side == "end" else 0)
    strides = [dtype.itemsize, 2 * PAGE]
    for extent in outer[:0:-1]:
        strides.append(strides[-1] * extent)
    return np.ndarray(shape, dtype, memory, first, strides[::-1])


def like(x, side, place=placed):
    """A copy of an array in guarded memory, its axes in the same order there."""
    order = np.argsort([-stride for stride in x.strides], kind="stable")
    dense = x.transpose(order)
    copy = place(dense.shape, x.dtype, side)
    copy[...] = dense
    return copy.transpose(np.argsort(order))


def guard_workspaces():
    """Arrays of bytes that fastconv.cpu asks NumPy for end at an unreadable page."""
    plain = np.empty

    def empty(shape, dtype=float, *arguments, **keywords):
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith("fastconv.cpu") and np.dtype(dtype) == np.uint8 and np.ndim(shape) == 0 and shape:
            return placed((shape,), np.dtype(np.uint8), "end")
        return plain(shape, dtype, *arguments, **keywords)

    np.empty = empty


def guard_tables():
    """What kernels receive besides arrays ends at an unreadable page."""
    plain = Region.launcher

    def launcher(self, extents, values, *arguments, **keywords):
        guarded = like(extents, "end")
        launch = plain(self, guarded, like(values, "end"), *arguments, **keywords)

        def launch_guarded(*arrays):  # a launch's integers may change from call to call, and the kernel writes some
            guarded[...] = extents
            launch(*arrays)
            extents[...] = guarded

        return launch_guarded

    Region.launcher = launcher


def check(name, p, sides, rows, threads):
    src, wei, bias = operands(p)
    exact = truth(p, src, wei, bias)
    n, c, h, w = shapes(p)[3]
    last = p.src_layout == "nhwc"
    make = fenced if rows else placed
    dst = make((n, h, w, c) if last else (n, c, h, w), DTYPES[p.dst], sides[2])
    dst = dst.transpose(0, 3, 1, 2) if last else dst
    plan = plan_problem(p, threads=threads, algorithm=name)
    guarded_bias = None if bias is None else like(bias, sides[1])
    for own in (plan,) if plan.given is None else (plan, plan.given()):
        packed = own.pack(like(wei, sides[1]))
        if packed.flags.c_contiguous and packed.size and packed.dtype != object:  # an array of the children's
            packed = like(packed, sides[1])
        dst[...] = np.nan if dst.dtype.kind in "fc" else 77
        own.run(like(src, sides[0], make), packed, guarded_bias, dst)
        assert_within(dst.copy(), p, exact, name)
    _kept.clear()


def problems(name):
    for p in [Problem.parse(text) for text in TEXTS]:
        if ALGORITHMS[name].reject(p, detect()) is None:
            yield p
    yield from (p for p in CASES.values() if ALGORITHMS[name].reject(p, detect()) is None)
    yield from (p for p in declared(ALGORITHMS[name]) if p.flops < 1e8)
    for op in ("bwd_data", "bwd_weight"):
        p = typed(CASES["3x3.strided"], "f32").replace(op=op)
        if ALGORITHMS[name].reject(p, detect()) is None:
            yield p


def run(name):
    count = 0
    for p in problems(name):
        for number, (word, sides) in enumerate(SIDES.items()):
            widest = max(p.iw, p.ow) * p.ic if p.src_layout == "nhwc" else max(p.iw, p.ow)
            for rows in (False, True):
                if rows and (p.op != "fwd" or widest * DTYPES[p.acc].itemsize > PAGE or p.n * p.ic * p.ih > 400):
                    continue
                print(f"{name}: {p} {word}{' rows' if rows else ''}", flush=True)
                check(name, p, sides, rows, 1 + number % 2)
                count += 1
    print(f"done {name} {count}", flush=True)


if __name__ == "__main__":
    guard_workspaces()
    guard_tables()
    for algorithm in sys.argv[1:]:
        run(algorithm)
