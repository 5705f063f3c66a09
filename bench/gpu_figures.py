"""What `bench.gpu` must show: each figure, judged by the rows that it is about; what was not measured is said."""

import math

from fastconv.planning.problem import Problem

FEW = 32  # input channels of a group


def _one_channel(p):
    return p.n == p.g == p.ic == p.oc == 1


def _single(p):
    return _one_channel(p) and p.src == p.dst == "f32"


def _bytes(p):
    return _one_channel(p) and p.src == p.dst == "u8"


def _layer(p, src="f32", precision="default"):
    return not _one_channel(p) and p.src == src and p.precision == precision


def _special(p):
    """Depthwise, grouped, few channels."""
    return _layer(p) and (p.g > 1 or p.ic < FEW)


def _dense(p):
    return _layer(p) and not _special(p)


def share(roof):
    """A row's share of a ceiling."""
    return lambda row: row["shares"].get(roof)


def over(*peers):
    """How many times as long as a row the quickest of these peers takes."""

    def ratio(row):
        found = [value for name, value in row["peers"].items() if isinstance(value, float) and _is(name, peers)]
        return min(found) / row["seconds"] if found else None

    return ratio


def _is(name, peers):
    words = name.removesuffix(" channels_last").replace(" channels_last tf32", " tf32")
    return words in peers


# what, of which problems, a row's number, the least geometric mean, the least of all; None is only reported
FIGURES = (
    ("one channel, float32, k 3, 5: share of copy bandwidth", lambda p: _single(p) and p.kh <= 5, share("copy"), None, 0.9),
    ("one channel, float32, k 7: share of copy bandwidth", lambda p: _single(p) and p.kh == 7, share("copy"), None, 0.8),
    ("one channel, float32, k 9 to 21: share of FMA peak", lambda p: _single(p) and p.kh >= 9, share("fma"), None, 0.8),
    ("one channel, uint8, k 3: share of copy bandwidth", lambda p: _bytes(p) and p.kh == 3, share("copy"), None, 0.75),
    ("one channel, uint8, k 5, 7: share of FMA peak", lambda p: _bytes(p) and p.kh >= 5, share("fma"), None, 0.75),
    ("one channel, over CuPy and torch", _one_channel, over("cupy ndimage", "cupy signal", "torch"), 4, 1.5),
    ("layers, float32, over cuDNN without transforms", _dense, over("cudnn direct"), 1, None),
    ("depthwise, grouped, few channels, over cuDNN without transforms", _special, over("cudnn direct"), 1.5, None),
    ("layers, float32, over cuDNN free to choose (torch)", _dense, over("torch"), None, None),
    ("depthwise, grouped, few channels, over cuDNN free to choose (torch)", _special, over("torch"), None, None),
    ("layers, tf32, over torch", lambda p: _layer(p, "f32", "fast"), over("torch tf32"), None, None),
    ("layers, tf32: share of the instruction's peak", lambda p: _layer(p, "f32", "fast"), share("tf32"), None, None),
    ("layers, bfloat16, over torch", lambda p: _layer(p, "bf16", "fast"), over("torch"), None, None),
    ("layers, bfloat16: share of the instruction's peak", lambda p: _layer(p, "bf16", "fast"), share("bf16"), None, None),
    ("layers, bfloat16: share of the card's peak", lambda p: _layer(p, "bf16", "fast"), lambda row: row.get("peak"), None, None),
    ("layers, tf32: share of the card's peak", lambda p: _layer(p, "f32", "fast"), lambda row: row.get("peak"), None, None),
    ("layers, float16, over torch", lambda p: _layer(p, "f16", "fast"), over("torch"), None, None),
)


def figures(rows):
    """A line for each: geometric mean and least of the rows that have the number, what they should be, and whether they are."""
    lines = []
    for what, wanted, number, mean, least in FIGURES:
        about = [row for row in rows if wanted(Problem.parse(row["problem"]))]
        numbers = [value for row in about if "seconds" in row and (value := number(row)) is not None]
        if not numbers:
            lines.append(f"{what}: not measured")
            continue
        found = math.exp(sum(map(math.log, numbers)) / len(numbers)), min(numbers)
        judged = [value >= bound for value, bound in zip(found, (mean, least), strict=True) if bound is not None]
        asked = ", ".join(f"{word} {bound:g}" for word, bound in (("mean", mean), ("each", least)) if bound is not None)
        verdict = f" ({asked}: {'pass' if all(judged) else 'FAIL'})" if judged else ""
        lines.append(f"{what}: mean {found[0]:.3g}, least {found[1]:.3g}, {len(numbers)} of {len(about)}{verdict}")
    return lines
