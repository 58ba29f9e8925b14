"""Hyperparameters as data: what may be drawn for one, and on which condition it exists."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeAlias

from zoo.errors import OptionValueError

Value: TypeAlias = bool | int | float | str

# What KerasTuner calls the factor of a Relative parameter.
RELATIVE = "relative_"


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


@dataclass(frozen=True)
class Relative:
    """A positive number in proportion to what another parameter's value calls for.

    It is `base[value of to] * factor`, the factor drawn from [low, high] uniformly in its
    logarithm. With `base={"adamw": 1e-3, "sgd": 0.05}` one entry gives each optimizer a range of
    learning rates of its own.

    KerasTuner knows the factor alone, as `relative_<name>`. That is one dimension whatever the
    other parameter is, so that every trial teaches a surrogate model about it; a range for each
    value would split the trials between them. `hp.values` holds the number itself besides, under
    its own name, for leaderboards and build functions. (The same name under several conditions,
    which KerasTuner allows, is no way to write this: `HyperParameters.ensure_active_values` of
    version 1.4.8 drops or redraws its value.)

    Raises:
        OptionValueError: A number is not positive and finite, the bounds do not ascend, or
            `default` lies outside of them.
    """

    to: str  # name of a Choice or Fixed before it
    base: Mapping[Value, float]
    low: float = 0.1
    high: float = 10.0
    _: KW_ONLY
    default: float = 1.0  # the factor of the first trial
    when: When | None = None

    def __post_init__(self) -> None:
        if not self.base or not all(0 < number < math.inf for number in self.base.values()):
            raise OptionValueError(
                "`base` must map each value of the other parameter to a finite number above 0; "
                f"got base={self.base!r}."
            )
        _check_range(self.low, self.high, log=True)
        _check_default(self.default, self.low, self.high)

    def start(self, other: Value) -> float:
        """The value of the first trial, where the other parameter is `other`."""
        return self.base[other] * self.default

    def declare(self, hp: Any, name: str) -> float | None:
        """Declares the factor to KerasTuner; returns the value, or None while inactive."""
        factor = hp.Float(
            RELATIVE + name, self.low, self.high, sampling="log", default=self.default
        )
        if factor is None:
            hp.values.pop(name, None)  # copied along from a trial where it was active
            return None
        value = self.base[hp.get(self.to)] * float(factor)
        hp.values[name] = value
        return value


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
