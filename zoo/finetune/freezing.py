"""Which parts of a model learn, by stage or by layer name; batch norms handled rightly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from zoo.errors import OptionValueError
from zoo.finetune.depth import layer_stages, leaf_layers, weighted_layers

NOT_HEAD = r"^(?!head)"
Parts = str | int | Sequence[str]
_STAGE_NAME = re.compile(r"stem|stage\d+|head")
_PREFIX = re.compile(r"^(stage\d+_|block\d+_|mixed\d[a-z]_)")


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


def freeze(model: keras.Model, parts: Parts = NOT_HEAD) -> Trainability:
    """Freezes parts of a model; their batch norms use and keep their statistics.

    Args:
        model: A built model; compile it anew afterwards. Layers of nested models count too.
        parts: A number: the stem and so many stages after it. A stage, "stem", "stage1" ...,
            "head", or several of them. Else a regular expression, searched in layer names, such as
            `^(stem|stage[123]_)`. The default freezes everything but the head.

    Raises:
        OptionValueError: No layer with weights matches, or the model has no such stage.
    """
    return _set(model, matching_layers(model, parts, from_end=False), lambda _: False)


def unfreeze(model: keras.Model, parts: Parts = "", *, batch_norm: bool = False) -> Trainability:
    """Lets parts of a model learn again.

    Args:
        model: A built model; compile it anew afterwards.
        parts: A number: the head and so many stages before it. Else as in `freeze`; the default is
            everything.
        batch_norm: Whether batch norms too go back to training. Pretrained statistics are better
            than those of a small set's batches, so by default they stay frozen.

    Raises:
        OptionValueError: No layer with weights matches, or the model has no such stage.
    """
    kept = keras.layers.BatchNormalization
    matching = matching_layers(model, parts, from_end=True)
    return _set(model, matching, lambda layer: batch_norm or not isinstance(layer, kept))


def last_stages(model: keras.Model, count: int) -> str:
    """A pattern for the head and the last stages of a catalog model.

    Raises:
        OptionValueError: `count` is not between 1 and the number of stages.
    """
    stages = layer_stages(model)
    chosen = _last(_stage_names(stages), count)
    names = [name for name, stage in stages.items() if stage in chosen]
    places = (_PREFIX.match(name) for name in names)
    parts = dict.fromkeys(
        place[1] if place else f"{re.escape(name)}$"
        for name, place in zip(names, places, strict=True)
    )
    return rf"^(head|{'|'.join(parts)})"


def _stage_names(stages: Mapping[str, str]) -> list[str]:
    """Returns the stages that have layers, in order, without stem and head."""
    found = dict.fromkeys(stages.values())
    return sorted(name for name in found if name.startswith("stage"))


def _last(names: Sequence[str], count: int) -> Sequence[str]:
    _check_count(names, count)
    return names[-count:]


def _check_count(names: Sequence[str], count: int) -> None:
    if not 1 <= count <= len(names):
        raise OptionValueError(
            f"`count` must be from 1 to the model's {len(names)} stages; got count={count}."
        )


def matching_layers(
    model: keras.Model, parts: Parts, *, from_end: bool
) -> list[keras.layers.Layer]:
    """Returns the layers with weights that `parts` means; a number counts from one of the ends.

    Raises:
        OptionValueError: There are none, or the model has no such stage.
    """
    weighted = weighted_layers(model)
    if isinstance(parts, str) and not _STAGE_NAME.fullmatch(parts):
        found = [layer for layer in weighted if re.search(parts, layer.name)]
    else:
        stages = layer_stages(model)
        chosen = set(_chosen(stages, parts, from_end=from_end))
        found = [layer for layer in weighted if stages[layer.name] in chosen]
    if not found:
        some = ", ".join(layer.name for layer in weighted[:: max(1, len(weighted) // 6)])
        raise OptionValueError(
            f"`parts` must match a layer with weights; got {parts!r} for {model.name}, whose "
            f"layers are named like {some}."
        )
    return found


def _chosen(stages: Mapping[str, str], parts: Parts, *, from_end: bool) -> Sequence[str]:
    names = _stage_names(stages)
    if isinstance(parts, int):
        if from_end:
            return [*_last(names, parts), "head"]
        _check_count(names, parts)
        return ["stem", *names[:parts]]
    wanted = [parts] if isinstance(parts, str) else list(parts)
    known = [name for name in ("stem", *names, "head") if name in stages.values()]
    unknown = [part for part in wanted if part not in known]
    if unknown:
        raise OptionValueError(f"`parts` must be among {', '.join(known)}; got {unknown[0]!r}.")
    return wanted


def _set(
    model: keras.Model,
    matching: Sequence[keras.layers.Layer],
    wanted: Callable[[keras.layers.Layer], bool],
) -> Trainability:
    states = {id(layer): wanted(layer) for layer in matching}
    changed = tuple(layer.name for layer in matching if layer.trainable != states[id(layer)])
    set_trainable(model, states)
    count = count_trainable(model)
    return Trainability(trainable=count, frozen=model.count_params() - count, layers=changed)


def count_trainable(model: keras.Model) -> int:
    """Returns the number of parameters that train."""
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def set_trainable(model: keras.Model, states: Mapping[int, bool]) -> None:
    """Sets single layers, by id, and leaves all others as they are.

    A frozen model hides what trains inside of it, and opening it opens everything in it; so models
    around a layer that is to train are opened first, and every layer is then set to its own state.
    """
    leaves = list(leaf_layers(model))
    wanted = [states.get(id(leaf), leaf.trainable) for leaf in leaves]
    closed = [part for part in _models(model) if not part.trainable]
    if any(wanted):
        for part in closed:
            part.trainable = True
    for leaf, state in zip(leaves, wanted, strict=True):
        leaf.trainable = state
        if getattr(leaf, "lora_enabled", False):
            hold_base(leaf)


def hold_base(layer: keras.layers.Layer) -> None:
    """Keeps the kernel and bias of a layer with low-rank factors frozen, whatever the layer is."""
    for variable in layer.weights:
        variable.trainable = layer.trainable and variable.name.startswith("lora_kernel_")


def _models(model: keras.Model) -> Iterator[keras.Model]:
    yield model
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _models(layer)
