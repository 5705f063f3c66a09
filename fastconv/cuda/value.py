"""value: a number of the kernel that is being compiled, with Python's operators: simd.py's other half.

Arithmetic on both widths of integers gives the wider; ``//`` and ``%`` are of numbers that are not negative; comparisons have a sign.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir


class Value:
    """A number in a register."""

    __slots__ = ("builder", "register")

    def __init__(self, builder: Any, register: Any) -> None:
        self.builder = builder
        self.register = register

    @property
    def floating(self) -> bool:
        """Whether it is no integer."""
        return not isinstance(self.register.type, ir.IntType)

    def _pair(self, other: Any) -> tuple[Any, Any]:
        """Both operands in the wider of their types."""
        a = self.register
        if not isinstance(other, Value):
            return a, ir.Constant(a.type, float(other) if self.floating else int(other))
        b = other.register
        if a.type != b.type and not self.floating:
            if a.type.width < b.type.width:
                a = self.builder.sext(a, b.type)
            else:
                b = self.builder.sext(b, a.type)
        return a, b

    def _new(self, register: Any) -> Value:
        return Value(self.builder, register)

    def _compare(self, sign: str, other: Any) -> Value:
        compare = self.builder.fcmp_ordered if self.floating else self.builder.icmp_signed
        return self._new(compare(sign, *self._pair(other)))

    def __add__(self, other: Any) -> Value:
        return self._new((self.builder.fadd if self.floating else self.builder.add)(*self._pair(other)))

    def __sub__(self, other: Any) -> Value:
        return self._new((self.builder.fsub if self.floating else self.builder.sub)(*self._pair(other)))

    def __rsub__(self, other: Any) -> Value:
        b, a = self._pair(other)
        return self._new((self.builder.fsub if self.floating else self.builder.sub)(a, b))

    def __mul__(self, other: Any) -> Value:
        return self._new((self.builder.fmul if self.floating else self.builder.mul)(*self._pair(other)))

    __radd__, __rmul__ = __add__, __mul__

    def __floordiv__(self, other: Any) -> Value:
        return self._new(self.builder.udiv(*self._pair(other)))

    def __mod__(self, other: Any) -> Value:
        return self._new(self.builder.urem(*self._pair(other)))

    def __and__(self, other: Any) -> Value:
        return self._new(self.builder.and_(*self._pair(other)))

    def __or__(self, other: Any) -> Value:
        return self._new(self.builder.or_(*self._pair(other)))

    def __xor__(self, other: Any) -> Value:
        return self._new(self.builder.xor(*self._pair(other)))

    def __lshift__(self, other: Any) -> Value:
        return self._new(self.builder.shl(*self._pair(other)))

    def __rshift__(self, other: Any) -> Value:
        return self._new(self.builder.lshr(*self._pair(other)))

    def __lt__(self, other: Any) -> Value:
        return self._compare("<", other)

    def __le__(self, other: Any) -> Value:
        return self._compare("<=", other)

    def __gt__(self, other: Any) -> Value:
        return self._compare(">", other)

    def __ge__(self, other: Any) -> Value:
        return self._compare(">=", other)
