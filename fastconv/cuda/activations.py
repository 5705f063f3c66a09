"""activations: the functions that an epilogue may name, of one float64 number in registers; no library is called.

Within a few units of the last place of float64, or of ``min(|x|, 1)`` near 0, so that float32 results are theirs rounded.
"""

from __future__ import annotations

import math
from typing import Any

_LN2 = (0.6931471805598903, 5.497923018708371e-14)  # their sum; products of the first with whole numbers below 2**11 are exact
_EXPM1 = tuple(1 / math.factorial(n) for n in range(14, 0, -1))
_ERF = tuple(1 / (math.factorial(n) * (2 * n + 1)) for n in range(19, -1, -1))  # of (-z z)**n, below 1
# Chebyshev's of exp(z z) erfc(z) / t, t = 2 / (2 + z), in 2 t - 1; from 1 on
_ERFC = (
    0.5770337386164702, 0.3554369212704987, 0.06509515882878666, 0.003671142395836744, -0.0011128447433526045, -0.0001607582991537199,
    3.27803157418394e-05, 5.442441645496624e-06, -1.515466555363163e-06, -1.4297608170445628e-07, 8.234608837051809e-08,
    -1.296284756082047e-09, -4.1547215403304435e-09, 6.34705833085898e-10, 1.432083229876892e-10, -6.16037999545594e-11,
    2.061180275056241e-12, 3.5714939838005765e-12, -8.585857495627926e-13, -6.155579964125781e-14, 7.431091250307469e-14,
    -1.292017651579241e-14, -2.3024415047287045e-15, 1.6829825442081035e-15, -1.9411394968794806e-16,
)  # fmt: skip


def _number(e: Any, value: float) -> Any:
    return e.number("f64", value)


def _polynomial(e: Any, coefficients: tuple[float, ...], x: Any) -> Any:
    """The first coefficient is that of the highest power."""
    total = _number(e, coefficients[0])
    for coefficient in coefficients[1:]:
        total = e.fma(total, x, _number(e, coefficient))
    return total


def _reduced(e: Any, x: Any) -> tuple[Any, Any, Any]:
    """``e**r - 1`` and two powers of two whose product times ``e**r`` is ``e**x``; |r| <= ln(2) / 2."""
    x = e.pick(x > 750, _number(e, 750), e.pick(x < -750, _number(e, -750), x))
    whole = e.nearest(x * (1 / math.log(2)))
    rest = e.fma(whole, _number(e, -_LN2[1]), e.fma(whole, _number(e, -_LN2[0]), x))
    less = e.times(_polynomial(e, _EXPM1, rest), rest)
    half = e.nearest(whole * 0.5)
    return less, e.power(half), e.power(whole - half)


def exponential(e: Any, x: Any) -> Any:
    """``e**x``; 0 and infinity beyond float64's reach."""
    less, one, two = _reduced(e, x)
    return (less + 1) * one * two


def sigmoid(e: Any, x: Any) -> Any:
    """``1 / (1 + e**-x)``."""
    return e.quotient(_number(e, 1), exponential(e, x * -1) + 1)


def tanh(e: Any, x: Any) -> Any:
    """``(1 - e**-2|x|) / (1 + e**-2|x|)`` with the sign of ``x``."""
    less, one, two = _reduced(e, e.pick(x < 0, x * 2, x * -2))
    power = one * two
    minus = e.fma(less, power, power - 1)  # e**-2|x| - 1
    size = e.quotient(minus * -1, minus + 2)
    return e.pick(size > 0, e.pick(x < 0, size * -1, size), x)  # zeros keep their sign


def silu(e: Any, x: Any) -> Any:
    """``x / (1 + e**-x)``."""
    return sigmoid(e, x) * x


def gelu(e: Any, x: Any) -> Any:
    """``x Phi(x)``, Phi the normal distribution's."""
    z = x * math.sqrt(0.5)
    size = e.pick(z < 0, z * -1, z)
    square = size * size
    near = _polynomial(e, _ERF, square * -1) * z * (2 / math.sqrt(math.pi))  # erf(z), |z| < 1
    t = e.quotient(_number(e, 2), size + 2)
    place = t * 2 - 1
    last, total = _number(e, 0), _number(e, 0)
    for coefficient in reversed(_ERFC[1:]):
        last, total = total, place * 2 * total - last + coefficient
    far = (place * total - last + _ERFC[0]) * t * exponential(e, square * -1)  # erfc(|z|)
    phi = e.pick(size < 1, near * 0.5 + 0.5, e.pick(z < 0, far * 0.5, far * -0.5 + 1))
    return x * e.pick(e.is_number(x), phi, x)


FUNCTIONS = {"sigmoid": sigmoid, "tanh": tanh, "silu": silu, "gelu": gelu}
