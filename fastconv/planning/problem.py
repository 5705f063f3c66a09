"""Problem: the one validated, frozen description of a convolution, and its one-line text form.

Every dialect reduces its call to a :class:`Problem`; planner, algorithms, tests and benchmarks know nothing else.
Always cross-correlation: a dialect that convolves flips its weights first.  ``full``, ``same`` and ``valid`` are
four paddings.  The fill value of the constant border is an argument of the run, not part of the problem.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from .bfloat import BITS, is_bfloat

BORDERS = ("constant", "edge", "reflect", "symmetric", "wrap")
OPS = ("fwd", "bwd_data", "bwd_weight")
PRECISIONS = ("strict", "default", "fast")
SRC_LAYOUTS = ("nchw", "nhwc")
WEI_LAYOUTS = ("oihw", "hwio")
STRUCTURES = ("full", "rank1", "box", "identity", "zero")  # and lowrank(r), of rank r, and sparse(t), of t taps that are not zero
_COUNTED = re.compile(r"lowrank\([1-9]\d*\)|sparse\(\d+\)")
ACTIVATIONS = ("relu", "relu6", "sigmoid", "tanh", "silu", "gelu", "leaky_relu")
ROUNDINGS = ("saturate", "half_up")  # of float sums in an integer result; without one they are converted as C converts
SCALINGS = ("half", "halves", "scale", "shift", "residual")  # of a sum: `Scaling`
ORDERS = ("any", "raster", "last", "symmetric", "antisymmetric")

# Problem's short names, in NumPy's kind order; longdouble's width differs by platform, its name does not.
DTYPES = {
    "b8": np.dtype(np.bool_),
    **{f"{kind}{8 * size}": np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)},
    "f16": np.dtype(np.float16),
    "bf16": BITS,
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "fld": np.dtype(np.longdouble),
    "c64": np.dtype(np.complex64),
    "c128": np.dtype(np.complex128),
    "cld": np.dtype(np.clongdouble),
}
_NAMES = {dtype: name for name, dtype in reversed(DTYPES.items())}

_EXTENTS = ("n", "g", "ic", "ih", "iw", "oc", "kh", "kw", "sh", "sw", "dh", "dw", "pt", "pb", "pl", "pr")
_BOTH = {"k": ("kh", "kw"), "s": ("sh", "sw"), "d": ("dh", "dw"), "p": ("pt", "pb", "pl", "pr"),
         "ph": ("pt", "pb"), "pw": ("pl", "pr")}  # fmt: skip
LIMIT = 2**62  # of every extent, and of the bytes of every array
# extent -> the dialects' word for it
_ARGUMENTS = {"g": " (groups)", "sh": " (stride)", "sw": " (stride)", "dh": " (dilation)", "dw": " (dilation)",
              "pt": " (padding)", "pb": " (padding)", "pl": " (padding)", "pr": " (padding)"}  # fmt: skip


def dtype_name(dtype: Any) -> str:
    """Problem's short name of a NumPy dtype, byte order dropped: ``"f32"`` for ``float32`` and ``>f4``.

    Raises
    ------
    TypeError
        If no convolution is defined for it (objects, strings, dates, records).

    Examples
    --------
    >>> dtype_name(">f4"), dtype_name(bool)
    ('f32', 'b8')
    """
    dtype = np.dtype(dtype)
    name = _NAMES.get(dtype.newbyteorder("=")) if dtype.kind in "biufc" else "bf16" if is_bfloat(dtype) else None
    if name is None:
        raise TypeError(f"dtype must be a bool, integer, float or complex type, got {dtype}")
    return name


def accumulator(dst: str) -> str:
    """The type that sums are kept in: float32 for float16 and bfloat16, else the result's own (integers wrap in it)."""
    return "f32" if dst in ("f16", "bf16") else dst


@dataclass(frozen=True, slots=True)
class Problem:
    """A strided, padded, dilated, grouped 2-D cross-correlation.

    ``dst[n, oc, oy, ox] = sum_{c, ky, kx} src[n, c, oy*sh - pt + ky*dh, ox*sw - pl + kx*dw] * wei[oc, c, ky, kx]``
    where ``c`` runs over the ``ic // g`` channels of ``oc``'s group and ``border`` says what lies outside the image.

    Parameters
    ----------
    n, g, ic, ih, iw, oc, kh, kw : int
        Batch (0 is an empty one), groups, input channels (of all groups), image height and width, output channels, kernel extents.
    sh, sw, dh, dw : int
        Stride and dilation (1 = dense).
    pt, pb, pl, pr : int
        Padding above, below, left, right; not negative.
    border : str
        One of numpy.pad's words in ``BORDERS``.
    op : str
        ``fwd``, or the gradient ``bwd_data`` / ``bwd_weight`` of the forward problem that the extents describe.
    src, wei, dst, acc : str
        Short type names, the keys of ``DTYPES``.
    src_layout, wei_layout : str
        ``nchw | nhwc`` (the result has the source's layout) and ``oihw | hwio``.
    epilogue : str
        What follows the sum, joined by ``+``: ``bias``, ``scale``, ``shift``, ``residual`` (integer sums are scaled and shifted in
        float32), an activation (``leaky_relu:0.01`` carries its slope), a rounding: in an integer result ``saturate`` rounds half to
        even and ``half_up`` takes floor(x + 1/2), both clip and make NaN 0; ``saturate:128`` adds 128 before it clips.
    precision : str
        ``strict`` (direct sums only), ``default`` or ``fast``.
    order : str
        Of the products in a sum of one channel. ``raster``: ky, then kx, each product rounded before it is added. ``last``: the last
        product, then the others so. ``symmetric`` and
        ``antisymmetric``, of an odd number of taps in one row or column: the middle one, then ``(x[c-j] +- x[c+j]) w[c-j]`` from the
        ends inward, rounded likewise. ``any`` leaves it to the algorithm, and lets it fuse.
    structure : str
        What is proven about the weights, one of ``STRUCTURES``, ``lowrank(r)`` or ``sparse(t)``; ``full`` is nothing.
        No algorithm has to use it.
    shared : bool
        Whether it is known that every group has the same weights. No algorithm has to use it.
    masked : bool
        Whether the result is ``sum(w m x) / sum(w m)``, NaN where the denominator is 0, with m 1 for valid pixels and 0 for others and
        outside the constant border. The mask, bool of as many elements as ``src`` and in its order, takes the bias's place in a run;
        None: all pixels but NaN are valid.

    Raises
    ------
    ValueError
        Naming the field, its value and what is allowed.

    Examples
    --------
    >>> p = Problem(ih=512, iw=512, kh=3, kw=3, sh=2)
    >>> p.oh, p.ow
    (255, 510)
    >>> str(p)
    'n1_ic1ih512iw512_oc1kh3kw3_sh2sw1_f32'
    >>> Problem.parse("ic64ih56_oc64k3_p1_bias+relu").ow
    56
    """

    n: int = 1
    g: int = 1
    ic: int = 1
    ih: int = 1
    iw: int = 1
    oc: int = 1
    kh: int = 1
    kw: int = 1
    sh: int = 1
    sw: int = 1
    dh: int = 1
    dw: int = 1
    pt: int = 0
    pb: int = 0
    pl: int = 0
    pr: int = 0
    border: str = "constant"
    op: str = "fwd"
    src: str = "f32"
    wei: str = "f32"
    dst: str = "f32"
    acc: str = "f32"
    src_layout: str = "nchw"
    wei_layout: str = "oihw"
    epilogue: str = ""
    precision: str = "default"
    order: str = "any"
    structure: str = "full"
    shared: bool = False
    masked: bool = False

    def __post_init__(self) -> None:
        for name in _EXTENTS:
            value, least = getattr(self, name), 0 if name == "n" or name[0] == "p" else 1
            if type(value) is not int:
                raise TypeError(f"{name}{_ARGUMENTS.get(name, '')} must be an int, got {value!r}")
            if not least <= value < LIMIT:
                raise ValueError(f"{name}{_ARGUMENTS.get(name, '')} must be at least {least} and below 2**62, got {value}")
        for name, allowed in (("border", BORDERS), ("op", OPS), ("precision", PRECISIONS),
                              ("order", ORDERS), ("src_layout", SRC_LAYOUTS), ("wei_layout", WEI_LAYOUTS),
                              ("src", DTYPES), ("wei", DTYPES), ("dst", DTYPES), ("acc", DTYPES)):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.structure not in STRUCTURES and not _COUNTED.fullmatch(str(self.structure)):
            raise ValueError(f"structure must be one of {', '.join(STRUCTURES)}, lowrank(r), sparse(t), got {self.structure!r}")
        for name in ("ic", "oc"):
            if getattr(self, name) % self.g:
                raise ValueError(f"{name} must be divisible by groups={self.g}, got {getattr(self, name)}")
        rounding, scaling = parse_epilogue(self.epilogue).rounding, parse_scaling(self.epilogue)
        floats = DTYPES[self.acc].kind == "f" or scaling.scale or scaling.shift
        if rounding is not None and not (DTYPES[self.dst].kind in "iu" and floats):
            raise ValueError(f"epilogue {rounding} is for float sums in an integer result, got acc {self.acc} and dst {self.dst}")
        if self.order.endswith("symmetric") and (min(self.kh, self.kw) > 1 or self.taps % 2 == 0):
            raise ValueError(f"order {self.order} is for an odd number of taps in one row or column, got {(self.kh, self.kw)}")
        if self.oh < 1 or self.ow < 1:
            raise ValueError(
                f"kernel must fit into the padded image: kernel {(self.kh, self.kw)} with dilation {(self.dh, self.dw)} "
                f"spans {(self.kh_span, self.kw_span)}, padded image is {(self.ih_padded, self.iw_padded)}"
            )
        size = np.dtype(np.complex128).itemsize * 2
        for what, count in (("kernel with its dilation", self.oc * self.ic * self.kh_span * self.kw_span),
                            ("image with its padding", self.ih_padded * self.iw_padded),
                            ("source", self.n * self.ic * self.ih * self.iw),
                            ("result", self.n * self.oc * self.oh * self.ow)):  # fmt: skip
            if count * size >= LIMIT:
                raise ValueError(
                    f"the {what} must stay below 2**62 bytes, got {count} elements of kernel {(self.oc, self.ic, self.kh, self.kw)}, "
                    f"dilation {(self.dh, self.dw)}, image {(self.n, self.ic, self.ih, self.iw)}, "
                    f"padding {((self.pt, self.pb), (self.pl, self.pr))}, stride {(self.sh, self.sw)}"
                )

    @property
    def kh_span(self) -> int:
        """Rows between the first and last tap, both included."""
        return (self.kh - 1) * self.dh + 1

    @property
    def kw_span(self) -> int:
        """Columns between the first and last tap, both included."""
        return (self.kw - 1) * self.dw + 1

    @property
    def ih_padded(self) -> int:
        """Image rows and both paddings."""
        return self.ih + self.pt + self.pb

    @property
    def iw_padded(self) -> int:
        """Image columns and both paddings."""
        return self.iw + self.pl + self.pr

    @property
    def oh(self) -> int:
        """Result rows."""
        return (self.ih_padded - self.kh_span) // self.sh + 1

    @property
    def ow(self) -> int:
        """Result columns."""
        return (self.iw_padded - self.kw_span) // self.sw + 1

    @property
    def strides(self) -> tuple[int, int]:
        """``(sh, sw)``, as far as they matter: 1 of a single row or column of results."""
        return (self.sh if self.oh > 1 else 1), (self.sw if self.ow > 1 else 1)

    @property
    def taps(self) -> int:
        """Products in one sum, T of the error bound."""
        return self.ic // self.g * self.kh * self.kw

    @property
    def flops(self) -> int:
        """Multiplications and additions of the direct formula."""
        return 2 * self.n * self.oc * self.oh * self.ow * self.taps

    def replace(self, **changes: Any) -> Problem:
        """The same problem with some fields changed, validated again."""
        return replace(self, **changes)

    def __str__(self) -> str:
        parts = [f"n{self.n}", f"ic{self.ic}ih{self.ih}iw{self.iw}", f"oc{self.oc}kh{self.kh}kw{self.kw}"]
        if self.g > 1:
            parts.insert(1, f"g{self.g}")
        for names in (("sh", "sw"), ("dh", "dw"), ("pt", "pb", "pl", "pr")):
            if any(getattr(self, name) != _DEFAULTS[name] for name in names):
                parts.append("".join(f"{name}{getattr(self, name)}" for name in names))
        for name in ("border", "op"):
            if getattr(self, name) != _DEFAULTS[name]:
                parts.append(getattr(self, name).replace("_", "-"))
        types = (self.src, self.wei, self.dst, self.acc)
        parts.append(self.src if len(set(types)) == 1 else ":".join(types))
        for name in ("src_layout", "wei_layout", "epilogue", "precision"):
            if getattr(self, name) != _DEFAULTS[name]:
                parts.append(getattr(self, name).replace("_", "-"))
        if self.order != "any":
            parts.append(f"order={self.order}")
        if self.structure != "full":
            parts.append(f"structure={self.structure}")
        parts += [name for name in ("shared", "masked") if getattr(self, name)]
        return "_".join(parts)

    @classmethod
    def parse(cls, text: str) -> Problem:
        """The problem that ``str(problem)`` wrote; ``k3``, ``s2``, ``d2``, ``p1``, ``ph1``, ``pw1`` set both axes.

        An omitted ``iw`` (or ``ih``, ``kw``, ``kh``) is the other one's value, so ``ih56`` is a square image.
        Words of two parts are written ``bwd-data``, ``bwd-weight``, ``leaky-relu:0.1``; with ``_`` they are read too.

        Raises
        ------
        ValueError
            Naming the part that cannot be read.
        """
        values: dict[str, Any] = {}
        joined = text.strip()
        for word in _JOINED:
            joined = joined.replace(word, word.replace("_", "-"))
        for part in joined.split("_"):
            values.update(_parse_part(part, text))
        for a, b in (("ih", "iw"), ("kh", "kw"), ("sh", "sw"), ("dh", "dw")):
            if (a in values) != (b in values):
                values[a if b in values else b] = values[b if b in values else a]
        return cls(**values)


_DEFAULTS = {field.name: field.default for field in fields(Problem)}
# What every algorithm reads, or computes alike for all values: weights are seen as views, and what is known of them may go unused.
_READ = frozenset(
    (
        *_EXTENTS,
        "op",
        "border",
        "src",
        "wei",
        "dst",
        "acc",
        "src_layout",
        "wei_layout",
        "epilogue",
        "precision",
        "order",
        "structure",
        "shared",
        "masked",
    )
)
_UNREAD = tuple(name for name in _DEFAULTS if name not in _READ)
_JOINED = tuple(word for word in (*OPS, *ACTIVATIONS, *ROUNDINGS) if "_" in word)
_WORDS = {
    **{word: ("border", word) for word in BORDERS},
    **{word.replace("_", "-"): ("op", word) for word in OPS},
    **{word: ("precision", word) for word in PRECISIONS},
    **{word: ("src_layout", word) for word in SRC_LAYOUTS},
    **{word: ("wei_layout", word) for word in WEI_LAYOUTS},
}


def _parse_part(part: str, text: str) -> dict[str, Any]:
    if part in _WORDS:
        return dict([_WORDS[part]])
    if part in ("shared", "masked"):
        return {part: True}
    name, given, value = part.partition("=")
    if given and name in ("order", "structure"):
        return {name: value}
    types = part.split(":")
    if all(name in DTYPES for name in types):
        if len(types) == 1:
            dst = types[0]
            return {"src": dst, "wei": dst, "dst": dst, "acc": dst}
        if len(types) == 4:
            return dict(zip(("src", "wei", "dst", "acc"), types, strict=True))
    if re.fullmatch(r"(?:[a-z]+\d+)+", part):
        values: dict[str, Any] = {}
        for name, digits in re.findall(r"([a-z]+)(\d+)", part):
            names = _BOTH.get(name, (name,))
            if not set(names) <= set(_EXTENTS):
                break
            values.update(dict.fromkeys(names, int(digits)))
        else:
            return values
    epilogue = part.replace("leaky-relu", "leaky_relu").replace("half-up", "half_up")
    if epilogue.split("+")[0].split(":")[0] in ("bias", *SCALINGS, *ACTIVATIONS, *ROUNDINGS):
        parse_epilogue(epilogue)
        return {"epilogue": epilogue}
    raise ValueError(f"problem text {text!r}: cannot read {part!r}")


def not_computed(
    p: Problem, *ops: str, orders: tuple[str, ...] = ("any",), roundings: tuple[str | None, ...] = (None,), masked: bool = False,
    scalings: bool = False, halves: bool = False, bfloat: bool = False, bfloat_weights: bool = False,
    bfloat_ops: tuple[str, ...] = ("fwd",), transforms: bool = False,
) -> str | None:  # fmt: skip
    """Why an algorithm that computes these ops, orders and roundings, and knows no field that was added later, cannot run ``p``, or None.

    ``scalings``: whether it computes what `parse_scaling` reads, ``halves`` in float16, too; ``bfloat``: whether it takes images and
    results of bfloat16, and ``bfloat_weights`` weights, in ``bfloat_ops``; ``transforms``: whether its sums are those of transformed
    numbers.  Every algorithm's ``reject`` begins with it.

    Examples
    --------
    >>> not_computed(Problem.parse("ih9_k3_bwd-data"), "fwd"), not_computed(Problem.parse("ih9_k3_order=raster"), "fwd")
    ('computes op fwd, not bwd_data', 'sums in its own order, not raster')
    """
    if p.op not in ops:
        return f"computes op {' or '.join(ops)}, not {p.op}"
    known = p.op in bfloat_ops
    if "bf16" in (p.acc, *(() if known and bfloat else (p.src, p.dst)), *(() if known and bfloat_weights else (p.wei,))):
        return "reads and stores no bfloat16" if p.op == "fwd" else "no gradient is of bfloat16"
    if transforms and p.precision == "strict":
        return "a transform is not a direct sum, which precision strict asks for"
    if p.masked != masked:
        return "for masked problems" if masked else "does not compute masked problems"
    if p.order not in orders:
        return f"sums in its own order, not {p.order}"
    rounding = parse_epilogue(p.epilogue).rounding
    if rounding not in roundings:
        return f"does not round as {rounding}"
    scaling = parse_scaling(p.epilogue)
    if (scaling != Scaling() and not scalings) or ((scaling.half or scaling.halves) and not halves):
        return f"does not fuse {p.epilogue}"
    for name in _UNREAD:
        if getattr(p, name) != _DEFAULTS[name]:
            return f"computes {name} {_DEFAULTS[name]}, not {getattr(p, name)}"
    return None


class Finish(NamedTuple):
    """What follows a sum: an addend of its own for each output channel, an activation with its slope, a rounding."""

    bias: bool = False
    activation: str | None = None
    slope: float = 0.0
    rounding: str | None = None


class Scaling(NamedTuple):
    """What else follows a sum: whether it is rounded to float16, or each step; has a channel's factor, addend, its own; the zero point."""

    scale: bool = False
    shift: bool = False
    residual: bool = False
    zero: int = 0
    half: bool = False
    halves: bool = False


def parse_epilogue(epilogue: str) -> Finish:
    """A problem's ``epilogue`` text, taken apart, but for what `parse_scaling` reads.

    Examples
    --------
    >>> parse_epilogue("bias+scale+leaky_relu:0.2")
    Finish(bias=True, activation='leaky_relu', slope=0.2, rounding=None)
    """
    return _parsed(epilogue)[0]


def parse_scaling(epilogue: str) -> Scaling:
    """The words of a problem's ``epilogue`` text that `parse_epilogue` leaves.

    Examples
    --------
    >>> parse_scaling("bias+scale+relu+saturate:128")
    Scaling(scale=True, shift=False, residual=False, zero=128, half=False, halves=False)
    """
    return _parsed(epilogue)[1]


@functools.lru_cache(maxsize=512)
def _parsed(epilogue: str) -> tuple[Finish, Scaling]:
    parts = epilogue.split("+") if epilogue else []
    bias = parts[:1] == ["bias"]
    del parts[: int(bias)]
    words = dict.fromkeys(SCALINGS, False)
    for word in SCALINGS:
        words[word] = parts[:1] == [word]
        del parts[: int(words[word])]
    rounding: str | None = None
    zero = 0
    if parts and parts[-1].partition(":")[0] in ROUNDINGS:
        rounding, given, number = parts.pop().partition(":")
        if given and not (rounding == "saturate" and re.fullmatch(r"-?\d{1,4}", number)):
            raise ValueError(f"epilogue must have a whole zero point behind 'saturate' alone, got {epilogue!r}")
        zero = int(number or 0)
    name, _, slope = parts[0].partition(":") if parts else (None, "", "")
    if len(parts) > 1 or name not in (None, *ACTIVATIONS) or bool(slope) != (name == "leaky_relu"):
        raise ValueError(f"epilogue must be any of 'bias', {', '.join(SCALINGS)}, one of {', '.join(ACTIVATIONS)} (leaky_relu:SLOPE), "
                         f"one of {', '.join(ROUNDINGS)}, in this order and joined by '+', got {epilogue!r}")  # fmt: skip
    return Finish(bias, name, float(slope) if slope else 0.0, rounding), Scaling(**words, zero=zero)


def border_indices(first: int, count: int, step: int, extent: int, border: str) -> np.ndarray:
    """Image index behind each of ``first, first + step, ...``: -1 where the constant border supplies the fill value.

    Borders repeat as numpy.pad repeats them, whatever the distance.

    Examples
    --------
    >>> border_indices(-3, 9, 1, 3, "reflect").tolist()
    [1, 2, 1, 0, 1, 2, 1, 0, 1]
    """
    index = first + step * np.arange(count, dtype=np.int64)
    if border == "constant":
        return np.where((index >= 0) & (index < extent), index, -1)
    if border == "edge":
        return np.clip(index, 0, extent - 1)
    if border == "wrap":
        return index % extent
    if border == "symmetric":
        index %= 2 * extent
        return np.minimum(index, 2 * extent - 1 - index)
    period = max(2 * (extent - 1), 1)
    index %= period
    return np.minimum(index, period - index) if extent > 1 else np.zeros_like(index)
