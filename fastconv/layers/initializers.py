"""Initial weights for `fastconv.layers`: Keras 3's initialisers by name, by serialised dict, by array or by callable.

The distributions are those of `keras/src/initializers/random_initializers.py`; the random numbers are NumPy's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

# Class name -> arguments.
INITIALIZERS: dict[str, dict[str, Any]] = {
    "Zeros": {},
    "Ones": {},
    "Constant": {"value": 0.0},
    "RandomUniform": {"minval": -0.05, "maxval": 0.05, "seed": None},
    "RandomNormal": {"mean": 0.0, "stddev": 0.05, "seed": None},
    "TruncatedNormal": {"mean": 0.0, "stddev": 0.05, "seed": None},
    "VarianceScaling": {"scale": 1.0, "mode": "fan_in", "distribution": "truncated_normal", "seed": None},
    "GlorotUniform": {"seed": None},
    "GlorotNormal": {"seed": None},
    "HeUniform": {"seed": None},
    "HeNormal": {"seed": None},
    "LecunUniform": {"seed": None},
    "LecunNormal": {"seed": None},
}
# The last six are variance scaling with these.
SCALING = {
    "GlorotUniform": (1.0, "fan_avg", "uniform"),
    "GlorotNormal": (1.0, "fan_avg", "truncated_normal"),
    "HeUniform": (2.0, "fan_in", "uniform"),
    "HeNormal": (2.0, "fan_in", "truncated_normal"),
    "LecunUniform": (1.0, "fan_in", "uniform"),
    "LecunNormal": (1.0, "fan_in", "truncated_normal"),
}
ALIASES = {"zero": "Zeros", "one": "Ones", "uniform": "RandomUniform", "normal": "RandomNormal"}
MODES = ("fan_in", "fan_out", "fan_avg")
DISTRIBUTIONS = ("uniform", "truncated_normal", "untruncated_normal")
TRUNCATED_DEVIATION = 0.87962566103423978  # of a standard normal number without its tails beyond two

_random = np.random.default_rng()


def set_random_seed(seed: int | None) -> None:
    """Make the weights of all layers built from now on reproducible, as `keras.utils.set_random_seed` does.

    The numbers are NumPy's, not Keras's; None makes them unpredictable again.

    Examples
    --------
    >>> initialize = get("glorot_uniform")
    >>> set_random_seed(0)
    >>> first = initialize((3, 3, 1, 1))
    >>> set_random_seed(0)
    >>> bool((initialize((3, 3, 1, 1)) == first).all())
    True
    """
    global _random
    _random = np.random.default_rng(seed)


def snake(name: str) -> str:
    """Keras's rule: ``Conv2D`` is ``conv2d``, ``GlorotUniform`` is ``glorot_uniform``."""
    return re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


_NAMES = {**{snake(name): name for name in INITIALIZERS}, **{name: name for name in INITIALIZERS}, **ALIASES}


def get(identifier: Any) -> Callable[..., Any]:
    """The initialiser that a layer's argument names, as `keras.initializers.get` does.

    Parameters
    ----------
    identifier : str, dict, array or callable
        A name (``"he_normal"`` or ``"HeNormal"``), ``{"class_name": ..., "config": ...}``, the values themselves, or a
        callable ``(shape, dtype=None)``.

    Raises
    ------
    ValueError
        With Keras's text.

    Examples
    --------
    >>> get("ones")((2, 2))
    array([[1., 1.],
           [1., 1.]])
    >>> get({"class_name": "Constant", "config": {"value": 3}})((2,))
    array([3., 3.])
    """
    if isinstance(identifier, str):
        identifier = {"class_name": identifier}
    if isinstance(identifier, dict):
        name = _NAMES.get(str(identifier.get("class_name")))
        if name is None:
            error = ValueError(f"Could not interpret initializer identifier: {identifier.get('class_name')}")
            error.add_note(f"Known: {', '.join(map(snake, INITIALIZERS))}, an array, a callable (shape, dtype=None).")
            raise error
        return Initializer(name, identifier.get("config") or {})
    if isinstance(identifier, (np.ndarray, np.generic)):
        return Given(identifier)
    if callable(identifier):
        return get(identifier()) if isinstance(identifier, type) else identifier
    raise ValueError(f"Could not interpret initializer identifier: {identifier}")


def serialize(initializer: Callable[..., Any]) -> Any:
    """What `get` turns back into this initialiser; for Keras's own, Keras's dict.

    Examples
    --------
    >>> serialize(get("he_normal"))["class_name"]
    'HeNormal'
    """
    if isinstance(initializer, Given):
        return initializer.values
    if not isinstance(initializer, Initializer):
        return initializer
    return {
        "module": "keras.initializers",
        "class_name": initializer.class_name,
        "config": initializer.config,
        "registered_name": None,
    }


class Given:
    """An array given as initialiser."""

    def __init__(self, values: np.ndarray | np.generic) -> None:
        self.values = values

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> np.ndarray:
        """A copy of the values."""
        if shape != self.values.shape:
            raise ValueError(f"Expected `shape` to be {self.values.shape} for direct tensor as initializer. Received shape={shape}")
        return np.array(self.values, dtype)


class Initializer:
    """One of Keras's initialisers: its class name and arguments."""

    def __init__(self, class_name: str, config: dict[str, Any]) -> None:
        known = INITIALIZERS[class_name]
        unknown = {key: value for key, value in config.items() if key not in known and value is not None}
        if unknown:
            raise ValueError(f"{class_name} takes {', '.join(known) or 'no arguments'}. Received: {unknown}")
        self.class_name = class_name
        self.config = {**known, **{key: value for key, value in config.items() if key in known}}
        if self.config.get("seed") is not None and not hasattr(self.config["seed"], "__index__"):
            raise ValueError(f"{class_name}: seed must be None or an int. Received: seed={self.config['seed']}")
        if class_name == "VarianceScaling":
            self._check_scaling(**self.config)

    @staticmethod
    def _check_scaling(scale: float, mode: str, distribution: str, seed: Any) -> None:
        if not scale > 0:
            raise ValueError(f"Argument `scale` must be positive float. Received: scale={scale}")
        if mode not in MODES:
            raise ValueError(f"Invalid `mode` argument: {mode}. Please use one of {MODES}")
        if distribution not in DISTRIBUTIONS:
            raise ValueError(f"Invalid `distribution` argument: {distribution}.Please use one of {DISTRIBUTIONS}")

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> np.ndarray:
        """New values of this shape."""
        config = dict(self.config)
        seed = config.pop("seed", None)
        random = _random if seed is None else np.random.default_rng(seed)
        name = self.class_name
        if name in ("Zeros", "Ones", "Constant"):
            values = np.full(shape, {"Zeros": 0.0, "Ones": 1.0}.get(name, config.get("value")), np.float64)
        elif name == "RandomUniform":
            values = random.uniform(config["minval"], config["maxval"], shape)
        elif name == "RandomNormal":
            values = random.normal(config["mean"], config["stddev"], shape)
        elif name == "TruncatedNormal":
            values = config["mean"] + config["stddev"] * _truncated_normal(random, shape)
        else:
            values = _variance_scaling(random, shape, *SCALING.get(name, config.values()))
        return np.asarray(values, dtype)

    def __repr__(self) -> str:
        return f"<{self.class_name} {self.config}>"


def _variance_scaling(random: np.random.Generator, shape: tuple[int, ...], scale: float, mode: str, distribution: str) -> np.ndarray:
    """Numbers of variance ``scale / fan``; a weight's shape ends with its inputs and outputs."""
    receptive = math.prod(shape[:-2])
    fans = {"fan_in": receptive * shape[-2], "fan_out": receptive * shape[-1]} if len(shape) > 1 else {}
    fan = fans.get(mode, sum(fans.values()) / 2) if fans else shape[0]
    variance = scale / max(1.0, fan)
    if distribution == "uniform":
        limit = math.sqrt(3 * variance)
        return random.uniform(-limit, limit, shape)
    if distribution == "untruncated_normal":
        return random.normal(0, math.sqrt(variance), shape)
    return math.sqrt(variance) / TRUNCATED_DEVIATION * _truncated_normal(random, shape)


def _truncated_normal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers; those beyond two are drawn again."""
    values = random.standard_normal(shape)
    while (beyond := np.abs(values) > 2).any():
        values[beyond] = random.standard_normal(np.count_nonzero(beyond))
    return values
