"""Which parts of a model learn: freezing by layer name, batch norms handled rightly."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from zoo.errors import OptionValueError

NOT_HEAD = r"^(?!head)"


@dataclass(frozen=True, kw_only=True)
class Trainability:
    """What a model learns after a change."""

    trainable: int  # parameters
    frozen: int
    layers: tuple[str, ...]  # those that changed

    def __str__(self) -> str:
        return (
            f"{len(self.layers)} layers changed; {self.trainable:,} parameters train, "
            f"{self.frozen:,} are frozen"
        )


def freeze(model: keras.Model, pattern: str = NOT_HEAD) -> Trainability:
    """Freezes the layers whose names match; their batch norms use and keep their statistics.

    Args:
        model: A built model; compile it anew afterwards.
        pattern: Regular expression, searched in layer names, such as `^(stem|stage[123]_)`. The
            default freezes everything but the head.

    Raises:
        OptionValueError: No layer with weights matches.
    """
    return _set(model, pattern, lambda _: False)


def unfreeze(model: keras.Model, pattern: str = "", *, batch_norm: bool = False) -> Trainability:
    """Lets the layers whose names match learn again.

    Args:
        model: A built model; compile it anew afterwards.
        pattern: Regular expression, searched in layer names; the default matches all.
        batch_norm: Whether batch norms too go back to training. Pretrained statistics are better
            than those of a small set's batches, so by default they stay frozen.

    Raises:
        OptionValueError: No layer with weights matches.
    """
    kept = keras.layers.BatchNormalization
    return _set(model, pattern, lambda layer: batch_norm or not isinstance(layer, kept))


def last_stages(model: keras.Model, count: int) -> str:
    """A pattern for the head and the last stages of a catalog model.

    Raises:
        OptionValueError: `count` is not between 1 and the number of stages.
    """
    stages = sorted(
        {int(m[1]) for m in (re.match(r"stage(\d+)_", x.name) for x in model.layers) if m}
    )
    if not 1 <= count <= len(stages):
        raise OptionValueError(
            f"`count` must be from 1 to the model's {len(stages)} stages; got count={count}."
        )
    return rf"^(head|stage({'|'.join(map(str, stages[-count:]))})_)"


def _set(
    model: keras.Model, pattern: str, wanted: Callable[[keras.layers.Layer], bool]
) -> Trainability:
    weighted = [layer for layer in model.layers if layer.variables]
    matching = [layer for layer in weighted if re.search(pattern, layer.name)]
    if not matching:
        some = ", ".join(layer.name for layer in weighted[:: max(1, len(weighted) // 6)])
        raise OptionValueError(
            f"`pattern` must match a layer with weights; got {pattern!r} for {model.name}, whose "
            f"layers are named like {some}."
        )
    changed = []
    for layer in matching:
        if layer.trainable != wanted(layer):
            layer.trainable = wanted(layer)
            changed.append(layer.name)
    count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    return Trainability(trainable=count, frozen=model.count_params() - count, layers=tuple(changed))
