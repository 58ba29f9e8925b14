"""Optimizers and learning-rate schedules by name, made of hyperparameters.

All classes are Keras' own, so that a saved model opens without this package.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras

from tuning.parameters import Value
from tuning.space import LEARNING_RATES, MOMENTUM_OPTIMIZERS, WARMUP_SCHEDULES, WEIGHT_DECAYS
from zoo.errors import OptionValueError, did_you_mean

Rate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule

# Keras searches these in a variable's own name ("gamma"), not in its path ("bn1/gamma"). They are
# the names of biases and of the scales and shifts of its normalisation layers.
NOT_DECAYED = ("bias", "gamma", "beta", "scale")

OPTIMIZERS: Mapping[str, Callable[..., keras.optimizers.Optimizer]] = {
    "adagrad": keras.optimizers.Adagrad,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "lion": keras.optimizers.Lion,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": functools.partial(keras.optimizers.SGD, nesterov=True),
}
SCHEDULES: Mapping[str, Callable[[float, int], Rate]] = {
    "constant": lambda rate, _: rate,
    "cosine": keras.optimizers.schedules.CosineDecay,
    # Ends at a hundredth of where it began.
    "exponential": functools.partial(keras.optimizers.schedules.ExponentialDecay, decay_rate=0.01),
}


def make_optimizer(values: Mapping[str, Any], *, total_steps: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer that hyperparameters describe, as every trial is trained with.

    Weight decay is decoupled: each step takes `weight_decay * learning_rate` off a variable,
    except off biases and the parameters of normalisation layers. Adam has none: as an L2 penalty
    it would be scaled away with the gradient (Loshchilov and Hutter 2017, arXiv:1711.05101,
    section 2), and decoupled it is AdamW.

    Keras does not save which variables do not decay, so an optimizer that comes out of a `.keras`
    file decays all of them; compile anew with this function before training goes on.

    Args:
        values: optimizer (default "adamw"), learning_rate and weight_decay (the optimizer's of
            `LEARNING_RATES` and `WEIGHT_DECAYS`), momentum (0.9; of SGD, which is Nesterov's, and
            RMSprop), lr_schedule ("cosine"), warmup (0; share of the steps in which the rate
            rises linearly) and clip_norm (0, which is off; largest norm of the whole gradient).
            What an optimizer does not have is checked and left out; other names are ignored.
        total_steps: Optimizer steps in the whole training, where a schedule ends.

    Raises:
        OptionValueError: A value is out of range, an unknown optimizer or schedule is named, or
            the schedule has no warm-up.
    """
    name = str(values.get("optimizer", "adamw"))
    make = _lookup("optimizer", name, OPTIMIZERS)
    options = _options(values, name)
    rate = make_schedule(
        str(values.get("lr_schedule", "cosine")),
        _number("learning_rate", values.get("learning_rate", LEARNING_RATES[name]), open_low=True),
        total_steps=total_steps,
        warmup=values.get("warmup", 0.0),
    )
    optimizer = make(rate, name=name, **options)  # Keras' own names count up from trial to trial
    if "weight_decay" in options:
        optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    return optimizer


def make_schedule(
    name: str, learning_rate: float, *, total_steps: int, warmup: float = 0.0
) -> Rate:
    """Returns the learning rate of every step: a float, or a schedule of Keras.

    Of W warm-up steps, step t = 0, 1, ... has the share (t + 1) / (W + 1) of the rate: none is
    wasted on a rate of 0, and the schedule proper begins at step W with the full rate. "cosine"
    then falls to 0, "exponential" to a hundredth, at `total_steps`.

    Args:
        name: "constant", "cosine" or "exponential".
        learning_rate: The highest rate.
        total_steps: Optimizer steps in the whole training.
        warmup: Share of the steps to warm up in, rounded to whole ones. The exponential schedule
            has none: Keras cannot express it without a class that a saved model would then need.

    Raises:
        OptionValueError: The schedule is not known or has no warm-up, or a number is out of range.
    """
    schedule = _lookup("lr_schedule", name, SCHEDULES)
    if total_steps < 1:
        raise OptionValueError(f"`total_steps` must be at least 1; got {total_steps}.")
    steps = round(_number("warmup", warmup, below=1) * total_steps)
    if not warmup:
        return schedule(learning_rate, total_steps)
    if name not in WARMUP_SCHEDULES:
        raise OptionValueError(
            f"`warmup` must be 0 with lr_schedule={name!r}; got warmup={warmup}. "
            f"Use one of {', '.join(WARMUP_SCHEDULES)}."
        )
    first = learning_rate / (steps + 1)
    if name == "constant":  # a line that ends at its highest point and stays there
        return keras.optimizers.schedules.PolynomialDecay(first, max(steps, 1), learning_rate)
    return keras.optimizers.schedules.CosineDecay(
        first,
        max(total_steps - steps, 1),
        warmup_target=learning_rate,
        warmup_steps=steps,
    )


def _options(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    momentum = _number("momentum", values.get("momentum", 0.9), below=1)
    decay = _number("weight_decay", values.get("weight_decay", WEIGHT_DECAYS.get(name, 0.0)))
    clip_norm = _number("clip_norm", values.get("clip_norm", 0.0))
    options: dict[str, Any] = {}
    if name in MOMENTUM_OPTIMIZERS:
        options["momentum"] = momentum
    if name in WEIGHT_DECAYS:
        options["weight_decay"] = decay
    if clip_norm:
        options["global_clipnorm"] = clip_norm
    return options


def _lookup(option: str, name: str, table: Mapping[str, Any]) -> Any:
    if name not in table:
        raise OptionValueError(
            f"`{option}` must be one of {', '.join(sorted(table))}; "
            f"got {option}={name!r}.{did_you_mean(name, table)}"
        )
    return table[name]


def _number(name: str, value: Value, *, below: float = math.inf, open_low: bool = False) -> float:
    number = float(value)
    if not (0 < number < below or (number == 0 and not open_low)):
        raise OptionValueError(
            f"`{name}` must be in {'(' if open_low else '['}0, {below}); got {name}={value}."
        )
    return number
