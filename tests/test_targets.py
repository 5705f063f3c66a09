"""Narrower processors than this one: every kernel family compiled for AVX2 and SSE2, right, and without wider registers."""

import json
import platform

import pytest

from fastconv.cpu.compile import magic
from fastconv.cpu.target import AVX2, AVX512, NEON, SSE2, TARGETS, classify, detect
from tests.children import child

X86 = platform.machine() in ("x86_64", "AMD64")

# target -> environment, registers that must occur, registers that must not
MACHINES = {
    "avx2": ({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+fma,+f16c"},
             "ymm", "zmm"),
    "sse2": ({"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse,+sse2"}, "xmm", "[yz]mm"),
}  # fmt: skip
FAMILIES = ("ih9iw40_k3_p1", "ih9iw70_k3_s2", "ih9iw40_k3_u8", "ih9iw40_k4_f16:f16:f16:f32", "ic17ih6iw20_oc19k3_bias+relu",
            "ih9iw40_k4_u8:f32:u8:f32_saturate", "ih9iw40_k4_p1_masked",
            "ic17ih6iw20_oc19k3_u8:i8:i32:i32")  # fmt: skip
MORE = ("ih9iw70_k3_s2_f64_masked", "ih9iw40_k3_p1_reflect_u8:f64:f64:f64_masked", "ih20iw40_k5_structure=identity",
        "ih20iw90_k9_structure=box", "ic17ih6iw20_oc19k3_f64_nhwc_hwio",
        "ih9iw70_k3_i16:f64:i16:f64_half_up", "ih9iw40_k3_u16:f64:f64:f64_order=raster", "ih9iw40_k3_u64:f64:f64:f64",
        "g3_ic3ih9iw40_oc3k5_u8:f32:u8:f32_nhwc_saturate_shared",
        "ic17ih6iw20_oc19k3_i8:i8:i32:i32_nhwc_hwio_bias+relu", "ic17ih6iw20_oc19k3_s2_u8:u8:i32:i32",
        "ih9iw70_k3_s3", "ih9iw40_k3_f64", "ih9iw40_k3_i16", "ih9iw40_k3_u32", "ih9iw40_k3_i64", "ih9iw40_k3_c64",
        "ih9iw40_k3_u8:f32:f32:f32", "ic5ih9iw70_oc3k5_s2_d2_p2_reflect", "ic17ih6iw20_oc19k3_nhwc_hwio", "ic17ih6iw20_oc19k1_f64",
        "ic17ih6iw20_oc19k3_s2_f16:f16:f16:f32", "g17_ic17ih9iw30_oc17k3_p1_nhwc_hwio")  # fmt: skip

# prints the target and, for each problem, the algorithms that ran and what their machine code contains
CODE = """
import json, re, sys
from fastconv.cpu import compile, target
from tests.problems import ALGORITHMS, Problem, operands, run
from tests.oracles import assert_close, assert_within, stored, truth

dispatchers = []
plain = compile.compiled
def recorded(name, *arguments):
    dispatcher = plain(name, *arguments)
    dispatchers.append((name, dispatcher))
    return dispatcher
compile.compiled = recorded

ran = {}
for text in json.loads(sys.argv[1]):
    p = Problem.parse(text)
    taking = [name for name, algorithm in ALGORITHMS.items() if name != "reference" and algorithm.reject(p, target.detect()) is None]
    rare = [name for name in taking if sum(name in names for names in ran.values()) < int(sys.argv[3])]
    ran[text] = rare or taking[:1]
    for integers in (True, False):
        src, wei, bias = operands(p, integers)
        exact = truth(p, src, wei, bias)
        for name in ran[text]:
            assert_within(run(p, src, wei, bias, name), p, exact, name)
code = {name: "".join(d.inspect_asm().values()) for name, d in dispatchers}
names = set(re.findall(r"\\b([xyz]mm)\\d+", "".join(code.values())))
calls = {name: re.findall(r"\\b(fmaf?|l*rintf?|floorf?|__\\w*hf\\w*|__gnu_\\w+)\\b", text) for name, text in code.items()}
print(json.dumps([target.detect().name, str(target.detect()), ran, sorted(code), sorted(names),
                  {n: c for n, c in calls.items() if c}, [n for n, text in code.items() if re.search(sys.argv[2] + r"\\d", text)]]))
"""


def run_on(name, texts, tmp_path, most):
    """Each problem on the algorithms that take it and have not run ``most`` others before, since a kernel takes a second to compile."""
    environment, register, wider = MACHINES[name]
    done = child(CODE, json.dumps(texts), wider, str(most), FASTCONV_CACHE_DIR=str(tmp_path / "empty"), **environment)
    target, description, ran, kernels, registers, calls, too_wide = json.loads(done.stdout)
    assert target == name, description
    assert kernels, "no kernel was compiled"
    assert not too_wide, f"{wider} in {too_wide}"
    assert register in registers
    assert not calls, f"library calls in {calls}"
    for text in texts:
        assert ran.get(text), f"no compiled algorithm took {text}"


@pytest.mark.skipif(not X86, reason="the named processors are x86")
@pytest.mark.parametrize("name", ["avx2", pytest.param("sse2", marks=pytest.mark.slow)])
def test_kernels_use_the_targets_registers_only(name, tmp_path):
    if name == "avx2" and detect().name not in ("avx2", "avx512"):
        pytest.skip("this processor has no AVX2")
    run_on(name, FAMILIES, tmp_path, 1)


@pytest.mark.slow
@pytest.mark.skipif(not X86, reason="the named processors are x86")
@pytest.mark.parametrize("name", MACHINES)
def test_more_kernels_use_the_targets_registers_only(name, tmp_path):
    if name == "avx2" and detect().name not in ("avx2", "avx512"):
        pytest.skip("this processor has no AVX2")
    run_on(name, [*FAMILIES, *MORE], tmp_path, len(MORE))


@pytest.mark.parametrize(
    ("triple", "features", "target"),
    [
        ("x86_64-unknown-linux-gnu", "+sse2,+avx2,+fma,+f16c,+avx512f,+avx512dq,+avx512bw,+avx512vl", AVX512),
        ("x86_64-unknown-linux-gnu", "+sse2,+avx2,+fma,+f16c,+avx512f,-avx512dq,-avx512bw,-avx512vl", AVX2),
        ("x86_64-pc-windows-msvc", "+avx2,+fma,+f16c", AVX2),
        ("x86_64-unknown-linux-gnu", "+avx2,+fma,-f16c", AVX2),
        ("x86_64-unknown-linux-gnu", "+avx2,-fma,+f16c", SSE2),
        ("x86_64-unknown-linux-gnu", "+avx,+sse4.2,-avx2", SSE2),
        ("x86_64-unknown-linux-gnu", "", SSE2),
        ("arm64-apple-darwin23", "+neon", NEON),
        ("aarch64-unknown-linux-gnu", "", NEON),
    ],
)
def test_classify(triple, features, target):
    found = classify(triple, features)
    assert (found.name, found.bits, found.registers) == (target.name, target.bits, target.registers)
    assert found.lanes(4) * 32 == found.bits
    assert classify(triple, features, (1 << 14, 1 << 20, 1 << 24)).l1 == 1 << 14


def test_detected_target():
    target, (triple, cpu, _) = detect(), magic()
    assert target.name in {t.name for t in TARGETS}
    assert cpu
    assert X86 == triple.startswith("x86_64")
    assert 4 << 10 <= target.l1 <= target.l2
    assert str(target.bits) in str(target)
