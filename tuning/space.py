"""Search spaces: parameters by name, and ready ones by purpose.

A ready space states the source or reason of every range. Its first trial takes the defaults, which
are a sound recipe by themselves. To change one parameter, write `{**default_space(), "dropout":
Fixed(0.2)}`; a parameter that another one refers to stays before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from tuning.parameters import RELATIVE, Choice, Fixed, Float, Int, Relative, Value, When
from zoo.catalog import list_models
from zoo.errors import OptionValueError

__all__ = [
    "AUGMENTATION",
    "AUGMENTATION_STRENGTH",
    "DROP_PATH",
    "LABEL_SMOOTHING",
    "LEARNING_RATES",
    "LR_SCHEDULE",
    "MOMENTUM_OPTIMIZERS",
    "WARMUP",
    "WARMUP_SCHEDULES",
    "WEIGHT_DECAYS",
    "Choice",
    "Fixed",
    "Float",
    "Int",
    "Param",
    "Relative",
    "Space",
    "Value",
    "When",
    "batch_size",
    "check_space",
    "default_space",
    "defaults",
    "fine_tuning_space",
    "optimization",
    "sample",
    "tabular_space",
]

Param: TypeAlias = Float | Int | Choice | Fixed | Relative
Space: TypeAlias = Mapping[str, Param]

# The learning rate of each optimizer that training from scratch is tried with first.
LEARNING_RATES: Mapping[Value, float] = {
    "adam": 1e-3,  # Kingma and Ba 2014, arXiv:1412.6980, algorithm 1
    "adamw": 1e-3,  # as Adam
    # PyTorch's default. Steps shrink as squared gradients add up, so it starts higher than Adam.
    "adagrad": 1e-2,
    # Hinton's 1e-3 (lecture 6e, 2012) times 1 - 0.9, for a momentum of 0.9 adds ten steps up.
    "rmsprop": 1e-4,
    # 3 to 10 times lower than AdamW's: Chen et al. 2023, arXiv:2302.06675, section 5.
    "lion": 2e-4,
    # 0.1 for a batch of 256 (He et al. 2015, arXiv:1512.03385, section 3.4), scaled to the batches
    # of 128 and less that a search uses: Goyal et al. 2017, arXiv:1706.02677, section 2.1.
    "sgd": 0.05,
}
# Decoupled weight decay. A step takes off `learning_rate * weight_decay`; 0.01 for AdamW, PyTorch's
# default, makes that 1e-5 at the rate above, which the others keep. It is 2e-4 for SGD, as ResNets
# are trained, and 5 times AdamW's for Lion, as its authors advise. Adam is not here: it has none by
# definition, and with one it is AdamW.
WEIGHT_DECAYS: Mapping[Value, float] = {
    "adamw": 1e-2,
    "adagrad": 1e-3,
    "rmsprop": 1e-1,
    "lion": 5e-2,
    "sgd": 2e-4,
}
MOMENTUM_OPTIMIZERS = ("sgd", "rmsprop")  # those that have a momentum to tune
OPTIMIZER_NAMES = ("adamw", "sgd", "rmsprop", "adagrad", "adam", "lion")
# Keras' own schedules have a warm-up but for the exponential one.
WARMUP_SCHEDULES = ("cosine", "constant")

LR_SCHEDULE = Choice(("cosine", "constant", "exponential"))
# Szegedy et al. 2015, arXiv:1512.00567, section 7: 0.1; a common search goes to twice that.
LABEL_SMOOTHING = Float(0.0, 0.2, default=0.0)
# Share of the steps. Goyal et al. 2017, arXiv:1706.02677, section 2.2: 5 of 90 epochs.
WARMUP = Float(0.0, 0.2, default=0.05, when=When("lr_schedule", WARMUP_SCHEDULES))
# Stochastic depth of the last block. Huang et al. 2016, arXiv:1603.09382, take 0.5 for 110 layers
# and long trainings; Wightman et al. 2021, arXiv:2110.00476, table 2, take 0.05.
DROP_PATH = Float(0.0, 0.2, default=0.0)
# Read when a step runs: trials of all strengths share one compiled model.
AUGMENTATION_STRENGTH = Float(0.0, 1.0, default=0.0)
# What is as strong as that; each compiles a model of its own. The first minds no value range.
AUGMENTATION = Choice(("random_affine", "crop_flip", "randaugment", "trivialaugment"))


@dataclass(frozen=True, kw_only=True)
class _Family:
    """What is tried for one family of image classifiers."""

    # The first is the first trial's. AdamW comes first throughout: of all it minds its rate least.
    optimizers: tuple[str, ...] = ("adamw", "sgd", "lion")
    dropout: Float = Float(0.0, 0.5, default=0.1)  # noqa: RUF009 - frozen
    drop_path: Float | None = DROP_PATH  # None: the option has no effect


# RMSprop: arXiv:1801.04381, section 6.1; a dropout that keeps 0.8: arXiv:1905.02244, section 6.1.1.
# The reference code drops no path; networks this small underfit before they overfit.
_MOBILE = _Family(
    optimizers=("adamw", "rmsprop", "lion"),
    dropout=Float(0.0, 0.4, default=0.2),
    drop_path=Float(0.0, 0.1, default=0.0),
)
# RMSprop, dropout 0.2 to 0.5 by size and drop path 0.2: arXiv:1905.11946, section 5.2.
_EFFICIENT = _Family(
    optimizers=("adamw", "rmsprop", "lion"),
    dropout=Float(0.0, 0.5, default=0.2),
    drop_path=Float(0.0, 0.3, default=0.1),
)
# AdamW, drop path 0.1 and no dropout: arXiv:2012.12877, table 9; arXiv:2103.14030, appendix A2.1.
_TRANSFORMER = _Family(
    optimizers=("adamw", "lion"),
    dropout=Float(0.0, 0.3, default=0.0),
    drop_path=Float(0.0, 0.3, default=0.1),
)
_RESIDUAL = _Family(dropout=Float(0.0, 0.3, default=0.1))
_PLAIN = _Family(drop_path=None)  # no branch could be dropped

_FAMILIES: Mapping[str, _Family] = {
    # SGD is the paper's, arXiv:1512.03385, section 3.4. It has no dropout; Bello et al. 2021,
    # arXiv:2103.07579, table 1, gain by dropout before the classifier and by stochastic depth.
    **dict.fromkeys(("resnet", "seresnet", "ecaresnet"), _RESIDUAL),
    **dict.fromkeys(("efficientnet", "efficientnetv2"), _EFFICIENT),
    # MnasNet: arXiv:1807.11626, section 5; NASNet: arXiv:1707.07012, appendix A.
    **dict.fromkeys(("mobilenetv2", "mobilenetv3", "mnasnet", "nasnet"), _MOBILE),
    "mobilenetv1": replace(_MOBILE, drop_path=None),  # arXiv:1704.04861, section 3.2
    "inception_v3": replace(_MOBILE, drop_path=None),  # arXiv:1512.00567, section 8
    **dict.fromkeys(("vit", "deit", "dinov2", "clip", "siglip", "swin", "swinv2"), _TRANSFORMER),
    **dict.fromkeys(("vgg", "densenet", "inception_resnet_v2", "xception", "lcnet"), _PLAIN),
}


def optimization(
    optimizers: tuple[str, ...] = OPTIMIZER_NAMES, *, scale: float = 1.0
) -> dict[str, Param]:
    """Returns the parameters of the optimizer: itself, its rate, weight decay and momentum.

    Rates reach a decade to either side of the optimizer's own in `LEARNING_RATES`, weight decays
    from a hundredth to ten times of that in `WEIGHT_DECAYS`.

    Args:
        optimizers: What to choose from; the first one is the first trial's.
        scale: Of all learning rates; fine-tuning takes a tenth.

    Raises:
        OptionValueError: An optimizer is not known.
    """
    unknown = [name for name in optimizers if name not in LEARNING_RATES]
    if unknown or not optimizers:
        raise OptionValueError(
            f"`optimizers` must be some of {', '.join(OPTIMIZER_NAMES)}; got {optimizers!r}."
        )
    params: dict[str, Param] = {
        "optimizer": Choice(optimizers),
        "learning_rate": Relative(
            "optimizer", {name: LEARNING_RATES[name] * scale for name in optimizers}
        ),
    }
    decaying = tuple(name for name in optimizers if name in WEIGHT_DECAYS)
    if decaying:
        params["weight_decay"] = Relative(
            "optimizer",
            {name: WEIGHT_DECAYS[name] for name in decaying},
            low=0.01,
            when=When("optimizer", decaying) if decaying != optimizers else None,
        )
    moving = tuple(name for name in optimizers if name in MOMENTUM_OPTIMIZERS)
    if moving:
        # 0.9 is the usual value; 0.8 forgets after 5 steps, 0.98 after 50.
        params["momentum"] = Float(0.8, 0.98, default=0.9, when=When("optimizer", moving))
    return params


def batch_size(sizes: tuple[int, ...], *, batched: bool) -> dict[str, Param]:
    """Returns the parameter of the batch size, the default in the middle; none if `batched`."""
    return {} if batched else {"batch_size": Choice(sizes, default=sizes[len(sizes) // 2])}


def default_space(
    family: str | None = None, *, samples: int | None = None, batched: bool = False
) -> Space:
    """Returns the space of a classifier trained from scratch for some tens of epochs.

    Args:
        family: A family of the catalog's image models, whose options are then tuned too, with
            label smoothing and augmentation. None: any model with the option `dropout`.
        samples: Number of training images; small sets get small batches.
        batched: The data comes in batches already, so that their size is not to be tuned.

    Raises:
        UnknownNameError: The catalog has no such family.
    """
    batches = batch_size(_image_batches(samples), batched=batched)
    if family is None:
        params = optimization()
        return params | batches | {"dropout": _Family.dropout, "lr_schedule": LR_SCHEDULE}
    list_models(family=family)  # an unknown one is an error
    prior = _FAMILIES.get(family, _Family())
    return (
        optimization(prior.optimizers)
        | batches
        | {
            "dropout": prior.dropout,
            **({"drop_path": prior.drop_path} if prior.drop_path else {}),
            "lr_schedule": LR_SCHEDULE,
            "label_smoothing": LABEL_SMOOTHING,
            "augmentation_strength": AUGMENTATION_STRENGTH,
        }
    )


def fine_tuning_space(*, samples: int | None = None, batched: bool = False) -> Space:
    """Returns the space of a pretrained image classifier that goes on learning on other images.

    Rates are a tenth of those from scratch, behind a warm-up, so that the new head's first, random
    gradients do not undo what is pretrained. SGD's lie within 1e-4 to 0.1, the grid of Kornblith et
    al. 2019, arXiv:1805.08974.

    Args:
        samples: Number of training images; small sets get small batches.
        batched: The data comes in batches already, so that their size is not to be tuned.
    """
    return (
        optimization(("adamw", "sgd", "lion"), scale=0.1)
        | batch_size(_image_batches(samples), batched=batched)
        | {
            "dropout": Float(0.0, 0.5, default=0.2),  # before the new head
            "lr_schedule": Choice(WARMUP_SCHEDULES),
            "warmup": WARMUP,
            "label_smoothing": LABEL_SMOOTHING,
            "augmentation_strength": AUGMENTATION_STRENGTH,
        }
    )


def tabular_space(*, samples: int | None = None, batched: bool = False) -> Space:
    """Returns the space of a multilayer perceptron, such as `tuning.mlp`, on a table.

    Args:
        samples: Number of training rows; small tables get small batches.
        batched: The data comes in batches already, so that their size is not to be tuned.
    """
    small = samples is not None and samples < 5000  # 1,024 of them would be 5 steps an epoch
    sizes = (16, 32, 64, 128) if small else (128, 256, 512, 1024)
    return (
        optimization(("adamw", "adam", "sgd", "rmsprop"))
        | batch_size(sizes, batched=batched)
        | {
            # As in LCBench (Zimmer et al. 2020, arXiv:2006.13799), but for fewer units, which
            # small tables need; dropout as in Gorishniy et al. 2021, arXiv:2106.11959.
            "depth": Int(1, 5, default=2),
            "hidden_units": Int(32, 1024, log=True, default=256),
            "dropout": Float(0.0, 0.5, default=0.1),
            # Of standardised features; all but 0 share a compiled model. Bishop 1995, "Training
            # with noise is equivalent to Tikhonov regularization".
            "noise": Float(0.0, 0.3, default=0.0),
            "lr_schedule": LR_SCHEDULE,
        }
    )


def sample(hp: Any, space: Space) -> dict[str, Value]:
    """Declares a space to KerasTuner and returns the values of the trial that `hp` stands for.

    Args:
        hp: A `keras_tuner.HyperParameters`.
        space: Parameters by name; a condition names a parameter before its own.

    Returns:
        One value per active parameter; a parameter whose condition does not hold is left out.

    Raises:
        OptionValueError: The space is not a mapping of names to parameters, or a parameter refers
            to one that does not come before it.
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
    before: dict[str, Param] = {}
    for name, param in space.items():
        if not isinstance(param, Param):
            raise OptionValueError(
                f"space[{name!r}] must be a Float, Int, Choice, Fixed or Relative; got {param!r}. "
                "Use Fixed for a plain value."
            )
        if param.when is not None and param.when.name not in before:
            raise OptionValueError(
                f"The condition of space[{name!r}] must name a parameter before it; "
                f"got {param.when.name!r} after {sorted(before)}."
            )
        if isinstance(param, Relative):
            _check_relative(name, param, before, space)
        before[name] = param


def defaults(space: Space) -> dict[str, Value]:
    """Returns the values of the first trial: the default of every active parameter."""
    values: dict[str, Value] = {}
    for name, param in space.items():
        if param.when is not None and values.get(param.when.name) not in param.when.values:
            continue
        if isinstance(param, Relative):
            values[name] = param.start(values[param.to])
        else:
            values[name] = param.start
    return values


def _image_batches(samples: int | None) -> tuple[int, ...]:
    # 1,000 images in batches of 32 are 30 steps an epoch.
    return (8, 16, 32) if samples is not None and samples < 1000 else (32, 64, 128)


def _enter_conditions(hp: Any, space: Space, param: Param, scopes: contextlib.ExitStack) -> None:
    # KerasTuner finds a conditional parent only from inside that parent's own scope.
    if param.when is not None:
        _enter_conditions(hp, space, space[param.when.name], scopes)
        scopes.enter_context(hp.conditional_scope(param.when.name, list(param.when.values)))


def _check_relative(name: str, param: Relative, before: Space, space: Space) -> None:
    other = before.get(param.to)
    if not isinstance(other, Choice | Fixed) or other.when is not None:
        raise OptionValueError(
            f"space[{name!r}] must be relative to a Choice or Fixed before it that has no "
            f"condition; got {param.to!r}."
        )
    values = other.values if isinstance(other, Choice) else (other.value,)
    if param.when is not None and param.when.name == param.to:
        values = tuple(value for value in values if value in param.when.values)
    missing = [value for value in values if value not in param.base]
    if missing:
        raise OptionValueError(
            f"`base` of space[{name!r}] must have every value of {param.to!r}; "
            f"it lacks {', '.join(map(repr, missing))}."
        )
    if RELATIVE + name in space:
        raise OptionValueError(
            f"`{RELATIVE}{name}` is what KerasTuner calls the factor of space[{name!r}]; "
            "give the other parameter another name."
        )
