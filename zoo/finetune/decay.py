"""Learning rates that fall from the classifier to the stem."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import keras

from zoo.errors import OptionValueError
from zoo.finetune.depth import layer_depths, weighted_layers

SCHEDULES = {  # the fields of their configs that are rates, not shares of one
    "CosineDecay": ("initial_learning_rate", "warmup_target"),
    "CosineDecayRestarts": ("initial_learning_rate",),
    "ExponentialDecay": ("initial_learning_rate",),
    "InverseTimeDecay": ("initial_learning_rate",),
    "PiecewiseConstantDecay": ("values",),
    "PolynomialDecay": ("initial_learning_rate", "end_learning_rate"),
}


def layer_decay(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, rate: float
) -> keras.optimizers.MultiOptimizer:
    """Returns an optimizer whose learning rate at depth d is `rate ** (deepest - d)` of the given.

    Depths are those of `layer_depths`: the classifier learns at the full rate, the stem at the
    lowest. Keras' own MultiOptimizer holds one copy of the optimizer for each depth, told apart by
    the variables' paths; so a saved `.keras` file opens and trains on anywhere, with its state.
    Variables that are excluded from weight decay get copies of their own without it, and unlike
    Keras' exclusion, that survives the file.

    A MultiOptimizer has no learning rate of its own, so callbacks that set it do not work; use a
    schedule of Keras as the optimizer's rate.

    Args:
        model: A catalog model; make the optimizer anew after it changes its layers.
        optimizer: With a constant rate or a schedule of Keras; it is not used itself.
        rate: Of one block to the next, in (0, 1]. 0.65 to 0.9 are usual; the deeper the network,
            the higher.

    Source: Bao et al. 2021, arXiv:2106.08254, section 3; Clark et al. 2020, arXiv:2003.10555.

    Raises:
        OptionValueError: `rate` is out of range; the model lacks the catalog's layer names; the
            optimizer clips the global norm, which copies cannot know, or wraps others.
    """
    if not 0 < rate <= 1:
        raise OptionValueError(f"`rate` must be in (0, 1]; got rate={rate}.")
    _check(optimizer)
    depths = layer_depths(model)
    deepest = max(depths.values())
    groups: dict[tuple[int, bool], list[str]] = defaultdict(list)
    for layer in weighted_layers(model):
        for variable in layer.weights:
            decays = bool(optimizer.weight_decay) and optimizer._use_weight_decay(variable)
            groups[depths[layer.name], decays].append(variable.path)
    split = len({decays for _, decays in groups}) > 1
    copies = {
        _pattern(paths): _copy(optimizer, rate ** (deepest - depth), depth, decays, split=split)
        for (depth, decays), paths in sorted(groups.items())
    }
    # what the model does not have yet, such as another head, learns at the full rate
    default = _copy(optimizer, 1.0, deepest + 1, decays=True, split=False)
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(default, copies), name=f"{optimizer.name}_by_depth"
    )


def _check(optimizer: Any) -> None:
    if hasattr(optimizer, "optimizers") or hasattr(optimizer, "inner_optimizer"):
        raise OptionValueError(
            f"`optimizer` must be a plain optimizer such as AdamW; got {type(optimizer).__name__}, "
            "which wraps others. Pass the inner one; Keras wraps again as it needs to."
        )
    if optimizer.global_clipnorm:
        raise OptionValueError(
            "`optimizer` must not clip the global norm, which is that of all depths, while each "
            f"depth has an optimizer of its own; got global_clipnorm={optimizer.global_clipnorm}. "
            "Use clipnorm, which is per tensor, or clipvalue."
        )
    rate = optimizer._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        if not type(rate).__module__.startswith("keras.") or type(rate).__name__ not in SCHEDULES:
            raise OptionValueError(
                f"`optimizer` must have a schedule among {', '.join(SCHEDULES)}, whose rates can "
                f"be scaled; got {type(rate).__name__}."
            )
    elif callable(rate) and not isinstance(rate, keras.Variable):
        raise OptionValueError(
            "`optimizer` must have a constant learning rate or a schedule of Keras; got a "
            "function, which no file can hold."
        )


def _pattern(paths: list[str]) -> str:
    """Matches the variables, in a nested model too, as Keras matches: the whole path."""
    return rf"(?:.*/)?(?:{'|'.join(map(re.escape, paths))})"


def _copy(optimizer: Any, scale: float, depth: int, decays: bool, *, split: bool) -> Any:
    config = optimizer.get_config()
    config["learning_rate"] = _scaled(optimizer._learning_rate, config["learning_rate"], scale)
    config["name"] = f"{optimizer.name}_{depth}" + ("" if decays or not split else "_undecayed")
    if config.get("weight_decay") and not decays:
        config["weight_decay"] = 0.0
    return type(optimizer).from_config(config)


def _scaled(rate: Any, plain: Any, scale: float) -> Any:
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return plain * scale
    config = rate.get_config()
    given = [f for f in SCHEDULES[type(rate).__name__] if config[f] is not None]  # or no warm-up
    for field in given:
        config[field] = keras.tree.map_structure(lambda value: value * scale, config[field])
    return type(rate).from_config(config)
