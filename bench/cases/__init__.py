"""The case lists: one problem, or one call by name, per line in its text form; ``#`` begins a comment."""

import re
from pathlib import Path

from bench.calls import Call
from fastconv.planning.problem import Problem

FOLDER = Path(__file__).parent
NETWORKS = ("resnet50", "resnext50", "vgg16", "mobilenetv2")
BOTH_AXES = (
    (r"ih(\d+)iw\1(?!\d)", r"ih\1"),
    (r"kh(\d+)kw\1(?!\d)", r"k\1"),
    (r"sh(\d+)sw\1(?!\d)", r"s\1"),
    (r"dh(\d+)dw\1(?!\d)", r"d\1"),
    (r"pt(\d+)pb\1pl\1pr\1(?!\d)", r"p\1"),
    (r"(?<![a-z\d])(?:n1_|ic1(?=i)|oc1(?=k))", ""),
    (r"_f32(?![a-z\d:])", ""),
)
CALLS = ("smooth", "ndimage")
FILTERS = ("float32", "strided", "float64", "bytes", "large", "calls", "borders")
NAMES = ("images", "correlate", "filter", "direct", "small", *FILTERS, *NETWORKS)


def load(name):
    """Problems of one list, in its order; calls, if it is one of `CALLS`.

    Examples
    --------
    >>> print(load("small")[0])
    n1_ic1ih8iw8_oc1kh3kw3_pt1pb1pl1pr1_reflect_f32
    """
    lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    parse = Call.parse if name in CALLS else Problem.parse
    return [parse(line) for line in lines if line and not line.startswith("#")]


def short(text):
    """A problem's text without what is said twice or by default; `Problem.parse` reads the same problem from it.

    Examples
    --------
    >>> short("n1_ic1ih8iw8_oc1kh3kw3_pt1pb1pl1pr1_reflect_f32")
    'ih8_k3_p1_reflect'
    """
    for pattern, replacement in BOTH_AXES:
        text = re.sub(pattern, replacement, text)
    return text
