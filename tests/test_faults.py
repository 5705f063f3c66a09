"""Never kills the process: threads, forks, nesting, every threading layer, enormous input, interrupts."""

import concurrent.futures
import multiprocessing.pool
import os
import sys

import numpy as np
import pytest

import fastconv
from fastconv.cpu import pool as pools
from fastconv.planning import cost
from fastconv.planning.problem import Problem
from fastconv.planning.thread_count import available
from tests.children import child
from tests.oracles import assert_same_bits
from tests.problems import operands, run

LARGE = (200, 300)  # enough work for two threads to be used


def arguments(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(LARGE).astype("f4"), rng.standard_normal((5, 5)).astype("f4")


def layer_arguments(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((1, 32, 28, 28)).astype("f4"), rng.standard_normal((32, 32, 3, 3)).astype("f4")


def results(threads=2):
    return fastconv.correlate2d(*arguments(), threads=threads), fastconv.conv2d(*layer_arguments(), padding=1, threads=threads)


# What a child runs: a threaded image filter and a layer, compared with one thread's bits.
CHECK = """
import numpy as np, fastconv
from tests.test_faults import arguments, layer_arguments, results
def check():
    for one, two in zip(results(1), results(2)):
        assert np.array_equal(one, two)
"""


def test_import_needs_neither_numba_nor_scipy():
    code = "import sys, fastconv; fastconv.__version__; dir(fastconv)\n"
    code += "print([m for m in ('numba', 'scipy', 'llvmlite', 'torch') if m in sys.modules])"
    assert child(code).stdout.strip() == "[]"


def test_importing_the_dialects_compiles_nothing():
    code = "import fastconv, fastconv.layers; [getattr(fastconv, name) for name in fastconv.__all__]\n"
    code += "import fastconv.cpu; from fastconv.cpu.compile import counts; print(counts)"
    assert child(code).stdout.strip() == "{'compiled': 0, 'loaded': 0}"


def test_without_numbas_compiler():
    """NUMBA_DISABLE_JIT=1, with which people debug their own kernels, leaves the reference."""
    code = """
import numpy as np, fastconv
from tests.oracles import assert_close, scipy_signal
in1, in2 = np.arange(40.0).reshape(5, 8), np.ones((3, 3))
assert_close(fastconv.correlate2d(in1, in2), *scipy_signal("correlate2d", in1, in2))
print(fastconv.plan(in1, in2).algorithm)
fastconv.info(), fastconv.warmup("ih9_k3")
"""
    assert child(code, NUMBA_DISABLE_JIT="1").stdout.strip() == "reference"


def test_eight_threads_at_once():
    expected = {seed: fastconv.correlate2d(*arguments(seed), threads=1) for seed in range(4)}
    layers = {seed: fastconv.conv2d(*layer_arguments(seed), threads=1) for seed in range(4)}

    def call(number):
        seed = number % 4
        if number % 2:
            return assert_same_bits(fastconv.correlate2d(*arguments(seed), threads=1 + number % 3), expected[seed])
        return assert_same_bits(fastconv.conv2d(*layer_arguments(seed), threads=1 + number % 3), layers[seed])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for job in [pool.submit(call, number) for number in range(160)]:
            job.result()


def test_more_threads_than_the_machine_has(monkeypatch):
    """A plan of another machine, or of a caller who asks for many: the pool has a slot for each that may run here, and no more."""
    pool = pools.Pool()
    words = pool._words.size
    pool._memory = np.full(words + 1000, 7, np.int64)  # behind the pool's state, what must stay
    start = -pool._memory.ctypes.data % 64 // 8
    pool._words = pool._memory[start : start + words]
    pool._words[:] = 0
    pool.state = pool._words.ctypes.data
    monkeypatch.setattr(pools, "pool", pool)
    monkeypatch.setattr(cost, "PARALLEL_SECONDS", 0)
    p = Problem.parse("ih200iw300_k5_f32")
    src, wei, _ = operands(p)
    expected = run(p, src, wei, algorithm="direct")
    for _ in range(3):
        assert_same_bits(run(p, src, wei, algorithm="direct", threads=64), expected)
    assert pool._words.any() == (available() > 1), "the pool was not used"
    assert (pool._memory[start + words :] == 7).all()


def test_nested_in_pools_of_threads():
    expected = fastconv.correlate2d(*arguments(), threads=1)

    def outer(_):
        with multiprocessing.pool.ThreadPool(3) as inner:
            return inner.map(lambda _: fastconv.correlate2d(*arguments(), threads=2), range(3))

    with multiprocessing.pool.ThreadPool(3) as pool:
        for group in pool.map(outer, range(3)):
            for result in group:
                assert_same_bits(result, expected)


def test_the_first_call_may_come_from_many_threads():
    code = (
        CHECK
        + """
import concurrent.futures, threading
barrier = threading.Barrier(8)
def first(number):
    barrier.wait()
    return results(1 + number % 2)
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    all_results = list(pool.map(first, range(8)))
assert all(np.array_equal(a, b) for group in all_results for a, b in zip(group, all_results[0]))
"""
    )
    child(code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("layer", ["default", "omp", "workqueue"])
def test_after_fork_and_beside_numba(layer):
    """A forked child computes with threads although its parent had; Numba's own parallel loops run in between."""
    code = (
        CHECK
        + """
import multiprocessing, os, sys, threading, numba
@numba.njit(parallel=True)
def numbas(x):
    total = 0.0
    for i in numba.prange(x.size):
        total += x[i]
    return total
check()
assert numbas(np.ones(1000)) == 1000
mask = numba.get_num_threads()
check()
assert numba.get_num_threads() == mask
for generation in range(2):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            check()
            # and a grandchild, and threads of the child
            inner = os.fork()
            if inner == 0:
                check()
                os._exit(0)
            assert os.waitpid(inner, 0)[1] == 0, "grandchild"
            workers = [threading.Thread(target=check) for _ in range(3)]
            [w.start() for w in workers]
            [w.join() for w in workers]
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0, "child"
    check()
with multiprocessing.get_context("fork").Pool(2) as pool:
    for _ in range(2):
        assert all(np.array_equal(a, b) for group in pool.map(results, [2, 1, 2]) for a, b in zip(group, results(1)))
workers = [threading.Thread(target=check) for _ in range(4)]
[w.start() for w in workers]
[w.join() for w in workers]
print("fine")
"""
    )
    environment = {} if layer == "default" else {"NUMBA_THREADING_LAYER": layer}
    assert child(code, **environment).stdout.strip().endswith("fine")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_while_other_threads_compute():
    code = (
        CHECK
        + """
import os, threading
check()
stop = threading.Event()
def work():
    while not stop.is_set():
        results(2)
workers = [threading.Thread(target=work) for _ in range(3)]
[w.start() for w in workers]
for _ in range(12):
    pid = os.fork()
    if pid == 0:
        try:
            check()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
[w.join() for w in workers]
print("fine")
"""
    )
    assert child(code, timeout=120).stdout.strip() == "fine"


# What a process runs whose signal handlers fork: the child goes on in the midst of the call, and must end it with the same bits.
FORKING = """
import os, signal, sys, numpy as np, fastconv
from fastconv.cpu import pool as pools, threads
from fastconv.planning import cost, thread_count
for module in (pools, threads, thread_count):
    module.available = lambda: 2
cost.MOST_SECONDS = 1e-5  # calls of many pieces, between which signals are seen
rng = np.random.default_rng(1)
x, w = rng.standard_normal((900, 1000)).astype("f4"), rng.standard_normal((5, 5)).astype("f4")
expected = fastconv.correlate2d(x, w, threads=1)
children, inside = [], []
forked = False
def handler(*_):
    global forked
    before()
    pid = os.fork()
    if pid:
        after()
        children.append(pid)
        inside.append("run_pieces" in names())
    else:
        forked = True
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # kills a child that hangs
def names():
    frame, found = sys._getframe(1), []
    while frame:
        found.append(frame.f_code.co_name)
        frame = frame.f_back
    return found
def call():
    right = np.array_equal(fastconv.correlate2d(x, w, threads=2), expected)
    if forked:
        os._exit(not (right and np.array_equal(fastconv.correlate2d(x, w, threads=2), expected)))
    assert right
def ends():
    for pid in children:
        status = os.waitpid(pid, 0)[1]
        assert status == 0, status
before = after = lambda: None
signal.signal(signal.SIGALRM, handler)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_signals_handler_forks_while_a_helper_comes_late():
    """The child's copy of the pool counts a helper that never was in the child."""
    code = (
        FORKING
        + """
pools.Pool.ready = lambda pool, threads: None  # the count is changed by no one else
def before():
    pools.pool._words[pools._ACTIVE // 8] = 1
def after():
    pools.pool._words[pools._ACTIVE // 8] = 0
plain = pools.Pool.wake
def wake(pool, threads):
    plain(pool, threads)
    if len(children) < 2 and not forked:
        signal.raise_signal(signal.SIGALRM)
pools.Pool.wake = wake
call()
assert inside == [True, True]
ends()
print("fine")
"""
    )
    assert child(code).stdout.strip() == "fine"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_signals_handler_forks_at_any_moment():
    """Also while a call starts its helper: each call here has a new pool."""
    code = (
        FORKING
        + """
call()
for number in range(100):
    pools.pool = pools.Pool()
    signal.setitimer(signal.ITIMER_REAL, float(rng.uniform(1e-5, 1e-3)))
    call()
    while len(children) == number and not forked:
        pass
    if forked:
        os._exit(0)
assert any(inside)
ends()
print("fine")
"""
    )
    assert child(code).stdout.strip() == "fine"


def test_exit_right_after_a_call_on_threads():
    """Helpers that still wait for work must not disturb the end of the process, nor keep it alive."""
    code = CHECK + "import sys\nresults(2)\nif sys.argv[1] == '1': raise SystemExit(0)"
    for way in range(2):
        child(code, way, timeout=60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals of POSIX")
def test_a_long_call_can_be_interrupted():
    """No compiled call keeps Python waiting for long: a signal's exception ends a call of many seconds early."""
    code = """
import signal, time, numpy as np, fastconv
x, w = np.ones((2500, 2500), "f4"), np.ones((151, 151), "f4")
fastconv.correlate2d(x[:300, :300], w, "valid", algorithm="direct")
class Stop(Exception): pass
def stop(*_):
    raise Stop
signal.signal(signal.SIGALRM, stop)
for threads in (1, 2):
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    start = time.monotonic()
    try:
        fastconv.correlate2d(x, w, "same", threads=threads, algorithm="direct")
    except Stop:
        print("stopped", time.monotonic() - start)
    assert np.all(fastconv.correlate2d(x[:200, :200], w, "valid", threads=threads, algorithm="direct") == 151 * 151)
"""
    lines = child(code).stdout.split()
    assert lines[::2] == ["stopped", "stopped"], "the call was not interrupted, or was too short to be"
    assert max(map(float, lines[1::2])) < 2.5


@pytest.mark.parametrize(
    "text",
    [
        "ih99999999999999999999", "ih" + "9" * 5000, "ih4611686018427387904", "n4611686018427387903_ih9_k3", "ih4000000000_k3",
        "_".join(["ih9"] * 9999),
        "ih9_k3_p4611686018427387903", "ih9_k3_d4611686018427387903_p4611686018427387903", "ic4611686018427387903ih2",
        "ih3_k3_p2305843009213693951_wrap", "oc4611686018427387903ic9ih9_k3", "ih9_kh4611686018427387903",
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_enormous_problems_raise_cleanly_or_parse(text):
    try:
        p = Problem.parse(text)
    except ValueError:
        return
    assert Problem.parse(str(p)) == p
    assert p.flops >= 0


def test_enormous_problems_do_not_exhaust_memory():
    """Explained or refused within 3 GiB of address space, never killed."""
    pytest.importorskip("resource", reason="there are no resource limits here")
    code = """
import resource, fastconv
import fastconv.nn, fastconv.cpu
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
for image, kernel in (((1, 1, 2**31, 2**31), (1, 1, 3, 3)), ((1, 2**40, 3, 3), (1, 2**40, 3, 3)),
                      ((2**50, 1, 9, 9), (1, 1, 3, 3)),
                      ((1, 64, 2**16, 2**16), (64, 64, 3, 3))):
    try:
        print(fastconv.explain(image, kernel, threads=2).splitlines()[-1][:60])
    except (ValueError, MemoryError) as error:
        print(type(error).__name__)
try:
    fastconv.conv2d(__import__("numpy").broadcast_to(1.0, (2**16, 2**16)), [[1.0]])
except MemoryError:
    print("MemoryError")
print("alive")
"""
    assert child(code, timeout=120).stdout.strip().endswith("alive")


def test_indices_beyond_32_bits():
    """Strides and offsets of more than 2**31 bytes: a broadcast image, and rows far apart in a sparse file."""
    if sys.maxsize < 2**33:
        pytest.skip("needs 64-bit addresses")
    tall = np.broadcast_to(np.arange(70, dtype="f4"), (9, 70))
    wide = np.lib.stride_tricks.as_strided(np.arange(70, dtype="f4"), (9, 70), (0, 4))
    assert_same_bits(fastconv.correlate2d(tall, np.ones((3, 3), "f4")), fastconv.correlate2d(wide, np.ones((3, 3), "f4")))


def test_rows_far_apart_in_a_sparse_file(tmp_path):
    path = tmp_path / "sparse"
    pitch = 3 << 30
    with open(path, "wb") as file:
        try:
            file.truncate(6 * pitch)
        except OSError as error:
            pytest.skip(f"no sparse files here: {error}")
    memory = np.memmap(path, np.uint8, "r+")
    rng = np.random.default_rng(1)
    for shape, weight in (((6, 40), (3, 3)), ((6, 4, 4, 4), (20, 4, 3, 3))):
        values = rng.standard_normal(shape).astype("f4")
        inner = values[0].size * 4
        strides = (pitch, *values.strides[1:])
        view = np.ndarray(shape, "f4", memory, 0, strides)
        view[...] = values
        w = rng.standard_normal(weight).astype("f4")
        expected = fastconv.conv2d(values, w)
        assert inner < 4096
        assert_same_bits(fastconv.conv2d(view, w), expected)
        out = np.ndarray(expected.shape, "f4", memory, 1 << 20, (pitch if expected.shape[0] <= 6 else 0, *expected.strides[1:]))
        assert_same_bits(fastconv.conv2d(values, w, out=out).copy(), expected)
