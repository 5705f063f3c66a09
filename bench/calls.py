"""Calls of a library by name: the cases that are no `Problem`, because each library's function has a rule of its own.

A case is written as the call is, ``opencv.GaussianBlur(u8[512, 512], (7, 7), 0)``: the first array is the image, random;
further ones are random weights; a bare word is a constant of the library. The same call goes to the imitated library and
to fastconv's dialect of that name, which has to give the library's answer.
"""

import ast
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from bench.peers import Peer, Prepared, missing
from bench.truth import WrongAnswer
from fastconv.planning.problem import DTYPES
from tests.oracles import peer_bound

LIBRARY = {"opencv": "cv2", "ndimage": "scipy.ndimage"}
OUT = {"opencv": "dst", "ndimage": "output"}
# sums that are rounded to integers may differ by one where the library's own fixed-point rule is not its formula
WITHIN_ONE = ("GaussianBlur", "blur", "boxFilter", "sepFilter2D")
PROBE = 129  # extent of the image whose only pixel shows a function's weights


class Array(NamedTuple):
    """An array of a call's text: ``u8[512, 512]``."""

    dtype: str
    shape: tuple[int, ...]


class Constant(NamedTuple):
    """A constant of the library, by its name."""

    name: str


class Arguments(NamedTuple):
    """What a function is called with."""

    positional: tuple
    keywords: dict


def _value(node):
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in DTYPES:
        shape = ast.literal_eval(node.slice)
        return Array(node.value.id, shape if isinstance(shape, tuple) else (shape,))
    return Constant(node.id) if isinstance(node, ast.Name) else ast.literal_eval(node)


@dataclass(frozen=True)
class Call:
    """One named call; `Call.parse` reads its text and `str` writes it.

    Examples
    --------
    >>> call = Call.parse("opencv.Sobel(u8[512,256], CV_16S, 1, 0, ksize=5)")
    >>> str(call), call.ih, call.iw
    ('opencv.Sobel(u8[512, 256], CV_16S, 1, 0, ksize=5)', 512, 256)
    >>> str(call.at(64, 64))
    'opencv.Sobel(u8[64, 64], CV_16S, 1, 0, ksize=5)'
    """

    text: str

    @classmethod
    def parse(cls, text):
        """The call of a text.

        Raises
        ------
        ValueError
            It is not ``library.function(array, ...)`` of a library that is imitated.
        """
        node = ast.parse(text, mode="eval").body
        call = cls(ast.unparse(node))
        right = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and call.module in LIBRARY
        if not (right and node.args and isinstance(_value(node.args[0]), Array)):
            raise ValueError(f"{text!r} is not a call of {' or '.join(LIBRARY)} on an image")
        return call

    def __str__(self):
        return self.text

    @property
    def _node(self):
        return ast.parse(self.text, mode="eval").body

    @property
    def module(self):
        """The imitated library, as fastconv's dialect is called."""
        return ast.unparse(self._node.func).split(".")[0]

    @property
    def function(self):
        """Name of the function."""
        return self._node.func.attr

    @property
    def image(self):
        """The image, not made yet."""
        return _value(self._node.args[0])

    @property
    def ih(self):
        """Rows of the image."""
        return self.image.shape[0]

    @property
    def iw(self):
        """Columns of the image."""
        return self.image.shape[1]

    def at(self, ih, iw):
        """The same call on an image of another size."""
        dtype, shape = self.image
        return Call.parse(self.text.replace(f"{dtype}{list(shape)}", f"{dtype}{[ih, iw, *shape[2:]]}", 1))

    def arguments(self):
        """`Arguments` with arrays and constants by name."""
        node = self._node
        return Arguments(tuple(map(_value, node.args)), {word.arg: _value(word.value) for word in node.keywords})


def _filled(arguments, make):
    """The arguments with ``make(value)`` for each."""
    return Arguments(tuple(map(make, arguments.positional)), {name: make(value) for name, value in arguments.keywords.items()})


def _applied(module, call, arguments, **more):
    """The function of a module and its arguments, its constants looked up."""
    module = import_module(module)
    positional, keywords = _filled(arguments, lambda value: getattr(module, value.name) if isinstance(value, Constant) else value)
    return getattr(module, call.function), positional, keywords | more


class Operands:
    """A call's arguments, and what the library answers: the truth, and how far from it a result may be."""

    def __init__(self, call):
        self.call = call
        rng, image = np.random.default_rng(crc32(str(call).encode())), call.image

        def make(value) -> Any:
            if not isinstance(value, Array):
                return value
            dtype = DTYPES[value.dtype]
            if dtype.kind in "iu":
                return rng.integers(0, 255, value.shape, dtype, endpoint=True)
            scale = 1 if value == image else np.prod(value.shape) ** -0.5
            return (scale * rng.standard_normal(value.shape)).astype(dtype)

        self.arguments = _filled(call.arguments(), make)

    @cached_property
    def expected(self):
        """The library's own result."""
        function, positional, keywords = _applied(LIBRARY[self.call.module], self.call, self.arguments)
        return function(*positional, **keywords)

    @cached_property
    def allowed(self):
        """For integers 0 or 1; for floats the sum class's bound with max|x| sum|w|, twice: the library's sums have errors too."""
        if self.expected.dtype.kind in "iu":
            return int(self.call.function in WITHIN_ONE)
        image, probe = self.arguments.positional[0], np.zeros((PROBE, PROBE))
        probe[PROBE // 2, PROBE // 2] = 1
        arguments = self.arguments._replace(positional=(probe, *self.arguments.positional[1:]))
        function, positional, keywords = _applied(LIBRARY[self.call.module], self.call, arguments)
        weights = np.abs(function(*positional, **keywords))
        return float(peer_bound(self.expected.dtype, np.count_nonzero(weights), weights.sum() * np.abs(image).max()))


@lru_cache(maxsize=2)
def operands(call):
    """`Operands` of a call, the same in every run; the last ones are kept, so go through calls in the outer loop."""
    return Operands(call)


def check(result, call):
    """Judge a result by the library's own.

    Returns
    -------
    float
        The largest error over its bound.

    Raises
    ------
    WrongAnswer
        It is above 1, or shape or type are not the library's.
    """
    ops, result = operands(call), np.asarray(result)
    for name in ("shape", "dtype"):
        if getattr(result, name) != getattr(ops.expected, name):
            raise WrongAnswer(f"{name} {getattr(result, name)}, expected {getattr(ops.expected, name)}")
    error = float(np.abs(result.astype(np.float64) - ops.expected).max())
    worst = error / ops.allowed if ops.allowed and error else error and float("inf")
    if not worst <= 1:
        raise WrongAnswer(f"largest error is {error:.3g}, {ops.allowed:.3g} is allowed")
    return worst


def _reject(library, module, only):
    def reject(call):
        if call.module != only:
            return f"{library} has no {call.module}.{call.function}"
        absent = missing(module)
        if absent or hasattr(import_module(module), call.function):
            return absent
        return f"{module} has no {call.function}"

    return reject


def _setup(module):
    def setup(call, ops, threads, out):
        given = {OUT[call.module]: np.empty_like(ops.expected)} if out else {}
        function, positional, keywords = _applied(module, call, ops.arguments, **given)
        if not out:
            return Prepared(lambda: function(*positional, **keywords), np.asarray)
        (dst,) = given.values()
        return Prepared(lambda: function(*positional, **keywords), lambda result: dst)

    return setup


def peer(name, library, module, only):
    """The row of a module that has a library's functions; ``only`` is the dialect that is meant."""
    return Peer(name, library, _reject(name, module, only), _setup(module))


PEERS = (
    peer("fastconv.opencv", "fastconv", "fastconv.opencv", "opencv"),
    peer("cv2", "cv2", "cv2", "opencv"),
    peer("fastconv.ndimage", "fastconv", "fastconv.ndimage", "ndimage"),
    peer("scipy.ndimage", "scipy", "scipy.ndimage", "ndimage"),
)
