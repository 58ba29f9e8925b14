"""Search spaces as data: what is tuned, between which bounds, and on which condition."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeAlias

from zoo.errors import OptionValueError

Value: TypeAlias = bool | int | float | str

# Optimizers that have a momentum to tune.
MOMENTUM_OPTIMIZERS = ("sgd", "rmsprop")


@dataclass(frozen=True)
class When:
    """The condition of a parameter: it exists only while `name` has one of `values`."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Float:
    """A real number in [low, high], drawn uniformly, or uniformly in its logarithm.

    Raises:
        OptionValueError: The bounds are not finite and ascending, not positive on a log scale, or
            `default` lies outside of them.
    """

    low: float
    high: float
    _: KW_ONLY
    log: bool = False
    default: float | None = None  # None: the middle of the range, geometric on a log scale
    when: When | None = None

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log)
        _check_default(self.start, self.low, self.high)

    @property
    def start(self) -> float:
        """The value of the first trial."""
        if self.default is not None:
            return float(self.default)
        return _middle(self.low, self.high, self.log)

    def declare(self, hp: Any, name: str) -> float | None:
        """Declares the parameter to KerasTuner and returns its value, or None while inactive."""
        sampling = "log" if self.log else "linear"
        value: float | None = hp.Float(
            name, self.low, self.high, sampling=sampling, default=self.start
        )
        return value


@dataclass(frozen=True)
class Int:
    """A whole number in {low, low + step, ...} up to and including high.

    Raises:
        OptionValueError: The bounds are not whole and ascending, not positive on a log scale,
            `step` is below 1 or set on a log scale, or `default` is none of the values.
    """

    low: int
    high: int
    step: int = 1
    _: KW_ONLY
    log: bool = False
    default: int | None = None  # None: the value next to the middle, geometric on a log scale
    when: When | None = None

    def __post_init__(self) -> None:
        if not all(float(n).is_integer() for n in (self.low, self.high, self.step)):
            raise OptionValueError(
                "`low`, `high` and `step` of an Int must be whole numbers; got "
                f"low={self.low}, high={self.high}, step={self.step}. Use Float for real numbers."
            )
        _check_range(self.low, self.high, self.log)
        if self.step < 1 or (self.log and self.step != 1):
            raise OptionValueError(
                "`step` must be at least 1, and 1 where log=True; "
                f"got step={self.step}, log={self.log}."
            )
        _check_default(self.start, self.low, self.high)
        if (self.start - self.low) % self.step:
            raise OptionValueError(
                f"`default` must be `low` plus a multiple of `step`; got default={self.default} "
                f"with low={self.low}, step={self.step}."
            )

    @property
    def start(self) -> int:
        """The value of the first trial."""
        if self.default is not None:
            return self.default
        steps = (_middle(self.low, self.high, self.log) - self.low) / self.step
        return self.low + self.step * round(steps)

    def declare(self, hp: Any, name: str) -> int | None:
        """Declares the parameter to KerasTuner and returns its value, or None while inactive."""
        scale = {"sampling": "log"} if self.log else {"step": self.step}
        value: int | None = hp.Int(name, self.low, self.high, default=self.start, **scale)
        return value


@dataclass(frozen=True)
class Choice:
    """One of several values of one type.

    Raises:
        OptionValueError: There are no values, they are of several types or of none that can be
            stored, or `default` is not among them.
    """

    values: tuple[Value, ...]
    _: KW_ONLY
    default: Value | None = None  # None: the first
    when: When | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        types = {type(value) for value in self.values}
        if len(types) != 1 or not types < {bool, int, float, str}:
            raise OptionValueError(
                "`values` of a Choice must be one or more of one type, bool, int, float or str; "
                f"got values={self.values!r}."
            )
        if types == {bool} and len(set(self.values)) != 2:
            raise OptionValueError(
                f"A Choice of bools must offer True and False; got values={self.values!r}. "
                "Use Fixed for a single value."
            )
        if self.start not in self.values:
            raise OptionValueError(
                f"`default` must be one of {self.values!r}; got default={self.default!r}."
            )

    @property
    def start(self) -> Value:
        """The value of the first trial."""
        return self.values[0] if self.default is None else self.default

    def declare(self, hp: Any, name: str) -> Value | None:
        """Declares the parameter to KerasTuner and returns its value, or None while inactive."""
        value: Value | None
        if isinstance(self.start, bool):  # hp.Choice turns bools into ints
            value = hp.Boolean(name, default=self.start)
        else:
            value = hp.Choice(name, list(self.values), default=self.start)
        return value


@dataclass(frozen=True)
class Fixed:
    """A value that is not tuned, but is part of every trial.

    Raises:
        OptionValueError: The value is no bool, int, float or str.
    """

    value: Value
    _: KW_ONLY
    when: When | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.value, bool | int | float | str):
            raise OptionValueError(
                f"`value` of a Fixed must be a bool, int, float or str; got value={self.value!r}."
            )

    @property
    def start(self) -> Value:
        """The value of the first trial."""
        return self.value

    def declare(self, hp: Any, name: str) -> Value | None:
        """Declares the parameter to KerasTuner and returns its value, or None while inactive."""
        value: Value | None = hp.Fixed(name, self.value)
        return value


Param: TypeAlias = Float | Int | Choice | Fixed
Space: TypeAlias = Mapping[str, Param]


def default_space(*, samples: int | None = None, batched: bool = False) -> Space:
    """Returns the space of an image classifier trained for some tens of epochs.

    The first trial takes the defaults, which are a sound recipe by themselves: AdamW at 0.001 with
    a cosine schedule. Learning rates reach from fine-tuning to SGD from scratch.

    Args:
        samples: Number of training images; small sets get small batches.
        batched: The data comes in batches already, so that their size is not to be tuned.
    """
    sizes = (8, 16, 32) if samples is not None and samples < 1000 else (32, 64, 128)
    batch = {} if batched else {"batch_size": Choice(sizes, default=sizes[1])}
    return {
        "learning_rate": Float(1e-4, 3e-2, log=True, default=1e-3),
        **batch,
        "dropout": Float(0.0, 0.5, default=0.1),
        "weight_decay": Float(1e-5, 1e-1, log=True, default=1e-2),
        "optimizer": Choice(("adamw", "sgd", "rmsprop", "adagrad")),
        "momentum": Float(0.8, 0.98, default=0.9, when=When("optimizer", MOMENTUM_OPTIMIZERS)),
        "lr_schedule": Choice(("cosine", "constant", "exponential")),
    }


def sample(hp: Any, space: Space) -> dict[str, Value]:
    """Declares a space to KerasTuner and returns the values of the trial that `hp` stands for.

    Args:
        hp: A `keras_tuner.HyperParameters`.
        space: Parameters by name; a condition names a parameter before its own.

    Returns:
        One value per active parameter; a parameter whose condition does not hold is left out.

    Raises:
        OptionValueError: The space is not a mapping of names to parameters, or a condition names a
            parameter that does not come before it.
    """
    check_space(space)
    values: dict[str, Value] = {}
    for name, param in space.items():
        with contextlib.ExitStack() as scopes:
            _enter_conditions(hp, space, param, scopes)
            value = param.declare(hp, name)
        if value is not None:
            values[name] = value
    return values


def check_space(space: Space) -> None:
    """Raises OptionValueError where `sample` could not declare the space."""
    if not isinstance(space, Mapping) or not space:
        raise OptionValueError(f"`space` must map at least one name to a parameter; got {space!r}.")
    seen: set[str] = set()
    for name, param in space.items():
        if not isinstance(param, Float | Int | Choice | Fixed):
            raise OptionValueError(
                f"space[{name!r}] must be a Float, Int, Choice or Fixed; got {param!r}. "
                "Use Fixed for a plain value."
            )
        if param.when is not None and param.when.name not in seen:
            raise OptionValueError(
                f"The condition of space[{name!r}] must name a parameter before it; "
                f"got {param.when.name!r} after {sorted(seen)}."
            )
        seen.add(name)


def defaults(space: Space) -> dict[str, Value]:
    """Returns the default of every parameter, active or not."""
    return {name: param.start for name, param in space.items()}


def _enter_conditions(hp: Any, space: Space, param: Param, scopes: contextlib.ExitStack) -> None:
    # KerasTuner finds a conditional parent only from inside that parent's own scope.
    if param.when is not None:
        _enter_conditions(hp, space, space[param.when.name], scopes)
        scopes.enter_context(hp.conditional_scope(param.when.name, list(param.when.values)))


def _check_range(low: float, high: float, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise OptionValueError(
            f"`low` must be below `high`, both finite; got low={low}, high={high}. "
            "Use Fixed for a single value."
        )
    if log and low <= 0:
        raise OptionValueError(f"`low` must be above 0 where log=True; got low={low}.")


def _check_default(start: float, low: float, high: float) -> None:
    if not low <= start <= high:
        raise OptionValueError(f"`default` must be in [{low}, {high}]; got default={start}.")


def _middle(low: float, high: float, log: bool) -> float:
    return math.sqrt(low * high) if log else (low + high) / 2
