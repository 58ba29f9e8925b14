"""Where a Keras model keeps the numbers that a search changes from trial to trial.

The table `RUNTIME` names them by class and attribute. What is in it is left out of a model's
fingerprint and becomes a `RuntimeNumber` in a model that is compiled to be used again.
"""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tuning.runtime import Number, RuntimeNumber, RuntimeNumbers

# Class name -> attributes, which have the same names in its config. Only for classes of the
# packages in `KNOWN`.
RUNTIME: Mapping[str, tuple[str, ...]] = {
    # layers
    "Dropout": ("rate",),
    "SpatialDropout1D": ("rate",),
    "SpatialDropout2D": ("rate",),
    "SpatialDropout3D": ("rate",),
    "GaussianNoise": ("stddev",),
    # augmentation layers, which all have `p` beside
    "RandAugment": ("magnitude",),
    "RandomAffine": ("strength",),
    # regularizers
    "L1": ("l1",),
    "L2": ("l2",),
    "L1L2": ("l1", "l2"),
    # losses
    "BinaryCrossentropy": ("label_smoothing",),
    "BinaryFocalCrossentropy": ("label_smoothing",),
    "CategoricalCrossentropy": ("label_smoothing",),
    "CategoricalFocalCrossentropy": ("label_smoothing",),
    "SmoothedCrossentropy": ("label_smoothing",),
    # schedules; a division by a constant is folded, so `decay_steps` needs `folded_schedule`
    "CosineDecay": (
        "initial_learning_rate",
        "decay_steps",
        "alpha",
        "warmup_target",
        "warmup_steps",
    ),
    "ExponentialDecay": ("initial_learning_rate", "decay_steps", "decay_rate"),
    "InverseTimeDecay": ("initial_learning_rate", "decay_rate"),
    "PolynomialDecay": ("initial_learning_rate", "end_learning_rate"),
}
OPTIMIZER = (
    "weight_decay",
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "momentum",
    "rho",
    "beta_1",
    "beta_2",
)
KNOWN = ("keras", "tuning", "zoo")  # packages whose classes are told by their config
AUGMENTATION = "zoo.augment"
DROPOUTS = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")


@dataclass(frozen=True)
class Site:
    """A number in an attribute of an object of a model."""

    owner: Any
    attribute: str

    @property
    def value(self) -> Number:
        """The number."""
        value = getattr(self.owner, self.attribute)
        return value if type(value) in (int, float) else float(value)

    def bind(self, number: RuntimeNumber) -> None:
        """Puts a runtime number in the number's place; configs go on showing a plain number."""
        for attributes in _attributes(self.owner):
            if self.attribute in attributes:
                attributes[self.attribute] = number
        _show_plain_config(self.owner)


def is_keras(instance: object) -> bool:
    """Returns whether an object is of a class of Keras, or of one of these packages."""
    return type(instance).__module__.split(".")[0] in KNOWN


def runtime_attributes(instance: object) -> tuple[str, ...]:
    """Returns the attributes of an object that may hold runtime numbers."""
    if not is_keras(instance):
        return ()
    if isinstance(instance, keras.optimizers.Optimizer):
        return OPTIMIZER
    names = RUNTIME.get(type(instance).__name__, ())
    return (*names, "p") if type(instance).__module__.startswith(AUGMENTATION) else names


def sites(model: keras.Model) -> list[Site]:
    """Returns the places of the runtime numbers of a compiled model, always in the same order."""
    return [
        Site(owner, attribute)
        for owner in _owners(model)
        for attribute in runtime_attributes(owner)
        if _is_number(vars(owner).get(attribute))
    ]


def bind(model: keras.Model) -> RuntimeNumbers:
    """Makes a compiled model read its runtime numbers at run time; returns the numbers."""
    places = sites(model)
    numbers = RuntimeNumbers([place.value for place in places])
    for place, number in zip(places, numbers.roots, strict=True):
        place.bind(number)
    for layer in model._flatten_layers():
        if is_keras(layer) and type(layer).__name__ in DROPOUTS:
            _bind_dropout(layer)
    for optimizer in optimizers(model):
        schedule = getattr(optimizer, "_learning_rate", None)
        if _is_folded(schedule):
            optimizer._learning_rate = FoldedSchedule(schedule)
            _show_plain_config(optimizer)
    return numbers


class FoldedSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of Keras over run-time values, with the bits of the same one over constants.

    TensorFlow folds a division by a constant into a product with its rounded inverse, and a chain
    of products with constants into one.

    Args:
        schedule: The schedule, bound to runtime numbers.
    """

    def __init__(self, schedule: Any) -> None:
        super().__init__()
        self.schedule = schedule

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate of a step."""
        return FOLDED[type(self.schedule).__name__](self.schedule, step)

    def get_config(self) -> dict[str, Any]:
        """Returns the schedule's own config."""
        config: dict[str, Any] = self.schedule.get_config()
        return config


def _cosine(schedule: Any, step: Any) -> Any:
    ops = keras.ops
    rate = ops.convert_to_tensor(schedule.initial_learning_rate)
    # float32(pi) * (1 / decay_steps), rounded twice
    turn = _product(math.pi, schedule.decay_steps)
    last = ops.cast(schedule.decay_steps, rate.dtype)
    done = ops.multiply(ops.minimum(ops.cast(step, rate.dtype), last), turn)
    decayed = (1 - schedule.alpha) * (0.5 * (1.0 + ops.cos(done))) + schedule.alpha
    return ops.multiply(rate, decayed)


def _exponential(schedule: Any, step: Any) -> Any:
    ops = keras.ops
    rate = ops.convert_to_tensor(schedule.initial_learning_rate)
    done = ops.multiply(ops.cast(step, rate.dtype), _product(1.0, schedule.decay_steps))
    if schedule.staircase:
        done = ops.floor(done)
    return ops.multiply(rate, ops.power(ops.cast(schedule.decay_rate, rate.dtype), done))


def _product(factor: float, divisor: Any) -> Any:
    """Returns factor * (1 / divisor) as float32 arithmetic gives it."""

    def compute(value: Number) -> float:
        return float(np.float32(factor) * (np.float32(1) / np.float32(value)))

    return divisor.map(("product", factor), compute)


FOLDED = {"CosineDecay": _cosine, "ExponentialDecay": _exponential}


def losses(model: keras.Model) -> list[Any]:
    """Returns what the model was compiled with as losses and metrics, one by one."""
    config = model._compile_config.config
    found = [config.get(name) for name in ("loss", "metrics", "weighted_metrics")]
    return [leaf for leaf in keras.tree.flatten(found) if leaf is not None]


def optimizers(model: keras.Model) -> list[Any]:
    """Returns the optimizer of a model and those that it wraps, always in the same order."""
    found = [model.optimizer] if model.optimizer is not None else []
    for optimizer in found:  # which grows meanwhile
        inner = getattr(optimizer, "inner_optimizer", None)
        found += [inner] if inner is not None else getattr(optimizer, "optimizers", ())
    return found


def _owners(model: keras.Model) -> Iterator[Any]:
    for layer in model._flatten_layers():
        yield layer
        for name in sorted(vars(layer)):
            value = vars(layer)[name]
            if isinstance(value, keras.regularizers.Regularizer):
                yield value
    for optimizer in optimizers(model):
        yield optimizer
        schedule = getattr(optimizer, "_learning_rate", None)
        if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
            yield schedule
    yield from losses(model)


def _is_folded(schedule: Any) -> bool:
    if keras.backend.backend() != "tensorflow" or not is_keras(schedule):
        return False
    plain = type(schedule).__name__ in FOLDED
    return plain and getattr(schedule, "warmup_target", None) is None


def _attributes(owner: Any) -> list[dict[str, Any]]:
    """Returns the attributes of an object, and the arguments of a loss made of a function."""
    return [vars(owner), vars(owner).get("_fn_kwargs", {})]


def _is_number(value: Any) -> bool:
    if type(value) in (int, float):
        return True
    # `L1` makes a tensor of its number.
    return bool(keras.ops.is_tensor(value) and keras.ops.ndim(value) == 0)


def _show_plain_config(owner: Any) -> None:
    if "get_config" not in vars(owner):
        owner.get_config = functools.partial(_plain_config, type(owner), owner)


def _plain_config(kind: Any, owner: Any) -> dict[str, Any]:
    """Returns the config of an object whose numbers are bound, without asking for their values."""
    places = [
        (attributes, name, value)
        for attributes in _attributes(owner)
        for name, value in attributes.items()
        if isinstance(value, RuntimeNumber | FoldedSchedule)
    ]
    for attributes, name, bound in places:
        plain = bound.value if isinstance(bound, RuntimeNumber) else bound.schedule
        attributes[name] = plain
    try:
        config: dict[str, Any] = kind.get_config(owner)
    finally:
        for attributes, name, bound in places:
            attributes[name] = bound
    return config


def _bind_dropout(layer: Any) -> None:
    """Makes a dropout draw at any rate, 0 included, with the bits of Keras' own at that rate.

    Keras makes no seed generator at rate 0, and its scale, 1 / (1 - rate), is a double constant.
    """
    if not hasattr(layer, "seed_generator"):
        layer._tracker.unlock()
        layer.seed_generator = keras.random.SeedGenerator(0)  # None would draw from `random`
        layer._tracker.lock()
    layer.call = types.MethodType(_dropout_call, layer)


def _dropout_call(layer: Any, inputs: Any, training: bool = False) -> Any:
    if not training:
        return inputs
    if type(layer).__name__ == "Dropout":
        noise_shape = layer.noise_shape
    else:
        noise_shape = layer._get_noise_shape(inputs)
    return _dropout(inputs, layer.rate, noise_shape, layer.seed_generator)


def _dropout(inputs: Any, rate: RuntimeNumber, noise_shape: Any, seed: Any) -> Any:
    shape = keras.ops.shape(inputs)
    if noise_shape is not None:
        shape = tuple(shape[i] if size is None else size for i, size in enumerate(noise_shape))
    uniform = keras.random.uniform(shape, dtype=inputs.dtype, seed=seed)
    if keras.backend.backend() == "tensorflow":
        kept = uniform >= keras.ops.convert_to_tensor(rate, inputs.dtype)
        scaled = inputs * keras.ops.convert_to_tensor(1 / (1 - rate), inputs.dtype)
    else:
        keep = keras.ops.convert_to_tensor(1.0 - rate, inputs.dtype)
        kept, scaled = uniform < keep, inputs / keep
    return keras.ops.where(kept, scaled, keras.ops.zeros_like(inputs))
