"""Problem: text round trip, validation, arithmetic of extents, borders."""

import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv.planning import reference
from fastconv.planning.problem import (
    ACTIVATIONS,
    BORDERS,
    DTYPES,
    OPS,
    ORDERS,
    PRECISIONS,
    ROUNDINGS,
    STRUCTURES,
    Problem,
    accumulator,
    border_indices,
    dtype_name,
    not_computed,
    parse_epilogue,
)
from tests.problems import CASES

small = st.integers(1, 9)
padding = st.integers(0, 9)
words = st.sampled_from(["", *(a for a in ACTIVATIONS if a != "leaky_relu"), "leaky_relu:0.01"])


@st.composite
def problems(draw):
    g = draw(st.integers(1, 3))
    epilogue = "+".join(filter(None, [draw(st.sampled_from(["", "bias"])), draw(words)]))
    types = {name: draw(st.sampled_from(sorted(DTYPES))) for name in ("src", "wei", "dst", "acc")}
    if draw(st.booleans()):
        types = dict.fromkeys(types, draw(st.sampled_from(sorted(DTYPES))))
    if DTYPES[types["dst"]].kind in "iu" and DTYPES[types["acc"]].kind == "f":
        epilogue = "+".join(filter(None, [epilogue, draw(st.sampled_from(["", *ROUNDINGS]))]))
    kh, kw, dh, dw = (draw(small) for _ in range(4))
    return Problem(
        n=draw(st.integers(0, 3)), g=g, ic=g * draw(small), oc=g * draw(small), ih=(kh - 1) * dh + draw(small),
        iw=(kw - 1) * dw + draw(small), kh=kh, kw=kw, sh=draw(small), sw=draw(small), dh=dh, dw=dw, pt=draw(padding),
        pb=draw(padding), pl=draw(padding), pr=draw(padding), border=draw(st.sampled_from(BORDERS)),
        op=draw(st.sampled_from(OPS)),
        src_layout=draw(st.sampled_from(["nchw", "nhwc"])), wei_layout=draw(st.sampled_from(["oihw", "hwio"])),
        epilogue=epilogue, precision=draw(st.sampled_from(PRECISIONS)),
        structure=draw(st.sampled_from(["full", "rank1", "lowrank(2)", "sparse(3)", "box"])), masked=draw(st.booleans()),
        shared=draw(st.booleans()), order=draw(st.sampled_from(["any", "raster"])), **types,
    )  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(problems())
def test_text_round_trip(p):
    assert Problem.parse(str(p)) == p
    assert not re.search(r"\s", str(p))
    assert pickle.loads(pickle.dumps(p)) == p
    assert hash(Problem.parse(str(p))) == hash(p)


@pytest.mark.parametrize("slope", [1e-05, 1e-300, 0.1, -0.5])
def test_slopes_round_trip(slope):
    p = Problem(ih=9, iw=9, epilogue=f"bias+leaky_relu:{slope!r}")
    assert parse_epilogue(Problem.parse(str(p)).epilogue) == (True, "leaky_relu", slope, None)


@pytest.mark.parametrize("name", CASES)
def test_cases_round_trip(name):
    assert Problem.parse(str(CASES[name])) == CASES[name]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("ih56", {"ih": 56, "iw": 56}),
        ("iw7", {"ih": 7, "iw": 7}),
        ("ih5iw6_k3", {"ih": 5, "iw": 6, "kh": 3, "kw": 3}),
        ("ih9_kh3kw1", {"kh": 3, "kw": 1}),
        ("ih9_k3_s2", {"sh": 2, "sw": 2}),
        ("ih9_k3_d2", {"dh": 2, "dw": 2}),
        ("ih9_p1", {"pt": 1, "pb": 1, "pl": 1, "pr": 1}),
        ("ih9_ph1_pw2", {"pt": 1, "pb": 1, "pl": 2, "pr": 2}),
        ("ih9_f64", {"src": "f64", "wei": "f64", "dst": "f64", "acc": "f64"}),
        ("ih9_u8:f32:f32:f32", {"src": "u8", "acc": "f32"}),
        ("ih9_bias+relu", {"epilogue": "bias+relu"}),
        ("ih9_leaky-relu:0.5", {"epilogue": "leaky_relu:0.5"}),
        ("ih9_nhwc_hwio", {"src_layout": "nhwc", "wei_layout": "hwio"}),
        ("ih9_bwd-data", {"op": "bwd_data"}),
        ("ih9_wrap_strict", {"border": "wrap", "precision": "strict"}),
    ],
)
def test_short_forms(text, fields):
    p = Problem.parse(text)
    assert {name: getattr(p, name) for name in fields} == fields


@pytest.mark.parametrize(
    "text",
    [
        "", "ih", "ih9_x3", "ih9_k", "ih9_k3_f31", "ih9_f32:f32", "ih9_f32:f32:f32:f32:f32", "ih9_kk3", "9", "ih-3", "ih9__k3",
        "ih9_relu+bias", "ih9_leaky-relu", "ih9_relu:1", "ih9_bias+relu+tanh", "ih9 k3", "ih9_k3\n_s2", "ih9_n1.5",
    ],
)  # fmt: skip
def test_unreadable_text_raises_naming_it(text):
    with pytest.raises(ValueError, match=r"problem text|epilogue must be"):
        Problem.parse(text)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("n", -1, ValueError), ("g", 0, ValueError), ("ic", 0, ValueError), ("ih", 0, ValueError), ("kh", 0, ValueError),
        ("sh", 0, ValueError), ("sw", -1, ValueError), ("dh", 0, ValueError), ("pt", -1, ValueError), ("iw", 2**62, ValueError),
        ("kw", 3.0, TypeError), ("ih", True, TypeError), ("oc", np.int64(2), TypeError), ("pl", None, TypeError),
        ("border", "mirror", ValueError), ("op", "backward", ValueError), ("precision", "high", ValueError),
        ("src", "float32", ValueError), ("acc", "f33", ValueError), ("src_layout", "chwn", ValueError),
        ("wei_layout", "ohwi", ValueError), ("epilogue", "relux", ValueError), ("structure", "foo", ValueError),
        ("structure", "lowrank", ValueError), ("structure", "lowrank(0)", ValueError), ("structure", "sparse", ValueError),
        ("order", "random", ValueError),
        ("epilogue", "saturate", ValueError),
    ],
)  # fmt: skip
def test_bad_fields_raise_naming_the_field_and_its_value(field, value, error):
    with pytest.raises(error) as caught:
        Problem(**{"ih": 9, "iw": 9, field: value})
    assert str(caught.value).startswith(field), caught.value
    assert repr(value) in str(caught.value) or str(value) in str(caught.value)


@pytest.mark.parametrize("fields", [{"ic": 4, "g": 3, "oc": 3}, {"ic": 3, "g": 3, "oc": 4}])
def test_channels_must_be_divisible_by_groups(fields):
    with pytest.raises(ValueError, match="divisible by groups=3"):
        Problem(ih=9, iw=9, **fields)


@pytest.mark.parametrize("fields", [{"kh": 10}, {"kw": 10}, {"kh": 5, "dh": 3}, {"kw": 12, "pl": 1, "pr": 1}])
def test_kernel_must_fit_the_padded_image(fields):
    with pytest.raises(ValueError, match="kernel must fit into the padded image"):
        Problem(ih=9, iw=9, **fields)


@pytest.mark.parametrize("axis", [0, 1])
def test_result_extent_is_the_number_of_windows(axis):
    for extent in range(1, 8):
        for k, s, d, before, after in np.ndindex(4, 3, 3, 3, 3):
            k, s, d = k + 1, s + 1, d + 1
            starts = range(-before, extent + after - (k - 1) * d)
            names = [("ih", "kh", "sh", "dh", "pt", "pb"), ("iw", "kw", "sw", "dw", "pl", "pr")][axis]
            fields = dict(zip(names, (extent, k, s, d, before, after), strict=True))
            if len(starts) == 0:
                with pytest.raises(ValueError, match="must fit"):
                    Problem(**fields)
            else:
                p = Problem(**fields)
                assert (p.oh, p.ow)[axis] == len(starts[::s])


def test_products_and_flops():
    p = Problem.parse("n2_g3_ic6ih9_oc9k3_p1")
    assert p.taps == 2 * 9
    assert p.flops == 2 * (2 * 9 * 81) * 18


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("extent", [1, 2, 3, 5])
def test_borders_repeat_as_numpy_pad(border, extent):
    for before, after in ((0, 0), (1, 0), (2, 3), (7, 11), (23, 16)):
        indices = border_indices(-before, before + extent + after, 1, extent, border)
        image = np.arange(extent)
        if border == "constant":
            expected = np.pad(image, (before, after), constant_values=-1)
        else:
            expected = np.pad(image, (before, after), mode=border)
        assert indices.tolist() == expected.tolist()
        strided = border_indices(-before, len(indices[::3]), 3, extent, border)
        assert strided.tolist() == indices[::3].tolist()


def test_dtype_names():
    for name, dtype in DTYPES.items():
        assert dtype_name(dtype) in DTYPES
        assert DTYPES[dtype_name(dtype)] == dtype
        assert dtype_name(dtype.newbyteorder()) == dtype_name(dtype)
        assert accumulator(name) == ("f32" if name in ("f16", "bf16") else name)
    for bad in (object, "U3", "M8[s]", [("a", "f4")], "V3"):
        with pytest.raises(TypeError, match="dtype must be"):
            dtype_name(bad)


def test_words_of_two_parts_are_read_with_either_joint():
    for word, field, value in (
        ("leaky{}relu:0.1", "epilogue", "leaky_relu:0.1"),
        ("bias+leaky{}relu:2.0", "epilogue", "bias+leaky_relu:2.0"),
        ("bwd{}data", "op", "bwd_data"),
        ("bwd{}weight", "op", "bwd_weight"),
    ):
        for joint in "-_":
            p = Problem.parse(f"ih9_{word.format(joint)}_k3")
            assert getattr(p, field) == value
            assert Problem.parse(str(p)) == p


def test_what_no_algorithm_computes_is_not_computed():
    p = Problem.parse("ih9_k3")
    assert not_computed(p, "fwd") is None
    assert not_computed(p, "bwd_data", "bwd_weight") == "computes op bwd_data or bwd_weight, not fwd"
    assert "masked" in not_computed(p.replace(masked=True), "fwd")
    for structure in (*STRUCTURES[1:], "lowrank(2)", "sparse(0)"):  # what is known of the weights binds no one
        assert not_computed(Problem.parse(f"ih9_k3_structure={structure}_shared"), "fwd") is None
    for order in ORDERS[1:]:
        ordered = Problem.parse(f"ih9_kh1kw3_order={order}")
        assert not_computed(ordered, "fwd") == f"sums in its own order, not {order}"
        assert not_computed(ordered, "fwd", orders=ORDERS) is reference.reject(ordered, None) is None
    for rounding in ROUNDINGS:
        whole = Problem.parse(f"ih9_k3_u8:f32:u8:f32_{rounding}")
        assert not_computed(whole, "fwd") == f"does not round as {rounding}"
        assert not_computed(whole, "fwd", roundings=ROUNDINGS) is reference.reject(whole, None) is None


def test_epilogue_texts():
    assert parse_epilogue("") == (False, None, 0.0, None)
    assert parse_epilogue("bias") == (True, None, 0.0, None)
    assert parse_epilogue("leaky_relu:0.25") == (False, "leaky_relu", 0.25, None)
    assert parse_epilogue("bias+gelu") == (True, "gelu", 0.0, None)
    assert parse_epilogue("saturate") == (False, None, 0.0, "saturate")
    assert parse_epilogue("bias+relu6+half_up") == (True, "relu6", 0.0, "half_up")
    for bad in (
        "relu+bias",
        "bias+bias",
        "leaky_relu",
        "leaky_relu:x",
        "relu:0.1",
        "+",
        "bias+",
        "saturate+bias",
        "saturate+relu",
        "relu+relu",
    ):
        with pytest.raises(ValueError):
            parse_epilogue(bad)


def test_replace_validates():
    p = Problem.parse("ih9_k3")
    assert p.replace(kh=5).oh == 5
    with pytest.raises(ValueError, match="must fit"):
        p.replace(kh=11)
    with pytest.raises(AttributeError):
        p.kh = 5
