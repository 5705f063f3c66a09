"""The threads of a block in NumPy: what they compute when they part ways, and what they are caught at."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("cuda.core", reason="numba-cuda is not installed (fastconv[cuda])")

from fastconv.cuda.finish import Results
from fastconv.cuda.twin import Twin


@pytest.fixture
def block():
    """Eight threads, 64 bytes of shared memory."""
    memory = np.zeros(64, np.uint8)
    return Twin(SimpleNamespace(shared=SimpleNamespace(array=lambda size, dtype: memory), blockIdx=SimpleNamespace(x=0)), (4, 2, 1))


def test_threads_have_their_own_place(block):
    assert block.thread("x").tolist() == [0, 1, 2, 3] * 2
    assert block.thread("y").tolist() == [0] * 4 + [1] * 4
    assert block.thread("z") == 0


def test_threads_take_their_own_branches(block):
    x, y = block.thread("x"), block.thread("y")
    inner = lambda values: block.when(y > 0, values, lambda values: [values[0] + 1])  # noqa: E731
    (got,) = block.when(x < 2, [x * 10], inner, lambda values: [-values[0]])
    assert got.tolist() == [0, 10, -20, -30, 1, 11, -20, -30]
    assert block.when(x < 9, [x], lambda values: [7]) == [7]


def test_sums_are_held_before_they_are_activated(block):
    """NumPy's and Python's numbers are wider: int32 wraps, float32 is rounded."""
    for acc, dst, total, result in (("i32", "i16", 2**31 + 5, 0), ("f32", "f32", 1 + 2.0**-30, 1)):
        spec, x = SimpleNamespace(acc=acc, dst=dst, rounding="", tail=""), SimpleNamespace(activated=1)
        values = SimpleNamespace(slope=1, low=0, high=2**31 - 1)
        assert Results(block, spec, None, values, x)._finished([total], [], []) == [result]


def test_threads_go_round_as_often_as_each_says(block):
    x = block.thread("x")
    assert block.loop(x, [0], lambda i, values: [values[0] + i + 1])[0].tolist() == [0, 1, 3, 6] * 2
    (got,) = block.when(x > 2, [0], lambda values: block.loop(x, values, lambda i, values: [values[0] + 1]))
    assert got.tolist() == [0, 0, 0, 3] * 2


def test_memory_is_touched_by_the_threads_in_a_branch(block):
    data, to = np.arange(8, dtype="f4"), np.zeros(8, "u1")
    lane = block.threads
    (got,) = block.when(lane < 3, [0.0], lambda values: block.load("f32", "f32", data.ctypes.data + lane * 4, 1))
    assert got.tolist() == [0, 1, 2, 0, 0, 0, 0, 0]
    block.when(lane > 5, [], lambda values: block.store("u8", to.ctypes.data + lane, [lane + 255]) or [])
    assert to.tolist() == [0, 0, 0, 0, 0, 0, 5, 6]


def word(thread):
    return thread * 4


def test_a_missing_barrier_is_seen(block):
    lane = block.threads
    block.shared_store("i32", word(lane), [lane])
    assert block.shared_load("i32", word(lane), 1)[0].tolist() == [*range(8)]
    with pytest.raises(AssertionError, match="no barrier"):
        block.shared_load("i32", word(7 - lane), 1)
    block.barrier()
    assert block.shared_load("i32", word(7 - lane), 1)[0].tolist() == [*range(7, -1, -1)]
    with pytest.raises(AssertionError, match="overwrite what"):
        block.shared_store("i32", word(lane), [lane + 1])
    block.barrier()
    block.shared_store("i32", word(lane), [lane + 1])
    with pytest.raises(AssertionError, match="overwrite what"):
        block.shared_store("i32", word(7 - lane), [lane])
    block.barrier()
    assert block.shared_load("i32", 0, 1) == [1]
    assert block.shared_anew(word(lane)).tolist() == [*range(1, 9)]
    with pytest.raises(AssertionError, match="overwrite what"):
        block.when(lane < 1, [], lambda values: block.shared_store("i32", word(lane), [9]) or [])


def test_a_copy_arrives_with_its_threads(block):
    data, lane = np.arange(8, dtype="i4"), block.threads
    block.when(lane > 3, [], lambda values: block.copy(word(lane), data.ctypes.data + word(lane), 4) or [])
    block.arrived()
    with pytest.raises(AssertionError, match="no barrier"):
        block.shared_load("i32", word(7 - lane), 1)
    block.barrier()
    assert block.shared_load("i32", word(lane), 1)[0].tolist() == [0, 0, 0, 0, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("what", "words"),
    [(lambda e, data: e.when(e.threads < 4, [], lambda values: e.barrier() or []), "do not come to"),
     (lambda e, data: e.store("i32", data, [e.threads]), "different numbers in one place"),
     (lambda e, data: e.shared_store("i32", 0, [e.threads]), "different numbers into one place"),
     (lambda e, data: e.shared_store("i32", word(e.threads + 9), [0]), "outside the 64 bytes"),
     (lambda e, data: e.load("f32", "f32", data + e.threads, 1), "not a multiple of 4"),
     (lambda e, data: e.load("f32", "f32", data + e.threads * 16 + 4, 4), "not a multiple of 16"),
     (lambda e, data: e.load("f32", "f32", data + e.threads * 16, 1), "outside the arrays"),
     (lambda e, data: e.i32(e.threads + (1 << 31) - 4), "do not fit 32 bits"),
     (lambda e, data: e.aligned([e.threads] * 8, e.threads * 2, 4), "offsets")],
)  # fmt: skip
def test_what_threads_are_caught_at(block, what, words, monkeypatch):
    data = np.zeros(32, "c16")
    monkeypatch.setattr(Twin, "allowed", ((data.ctypes.data, data.ctypes.data + 64),))
    with pytest.raises(AssertionError, match=words):
        what(block, data.ctypes.data)


def test_numbers_are_those_of_the_machine(block):
    lane = block.threads
    assert block.convert("i32", "u8", lane - 1).tolist() == [255, 0, 1, 2, 3, 4, 5, 6]
    assert block.convert("u32", "i64", -1) == 2**32 - 1
    assert block.convert("i64", "f32", (1 << 24) + 1) == 2.0**24
    assert block.cut("f64", "i32", np.where(lane > 3, np.nan, lane * 1e9)).tolist() == [0, 10**9, 2 * 10**9] + [-(2**31)] * 5
    assert block.cut("f64", "u64", 2.0**63) == -(2**63)
    assert block.permute(0x44332211, 0x88776655, 0x7410) == 0x88552211
    assert block.dot(0xFF01, 0x02FF, 1, "us") == 1 + 0x01 * -1 + 0xFF * 2
    assert block.tf32(1 + 2.0**-11) == 1 + 2.0**-10
    assert [block.half_bits(kind, 1.0) for kind in ("f16", "bf16")] == [0x3C00, 0x3F80]
    assert block.convert("f32", "bf16", np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8])).tolist() == [1, 1 + 2.0**-6]
    assert block.convert("bf16", "f64", 1.5) == block.convert("f16", "bf16", 1.5) == block.number("bf16", 1.5)
