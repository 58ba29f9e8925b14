"""A new classifier on a pretrained trunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from zoo.blocks import classifier
from zoo.errors import OptionValueError
from zoo.finetune.depth import CLASSIFIERS
from zoo.record import ModelRecord, deep_graphs, get_record, set_record

MEAN = "head_mean"  # of the two classifiers of a distilled transformer


def replace_head(
    model: keras.Model,
    num_classes: int,
    *,
    dropout: float | None = None,
    class_names: Sequence[str] | None = None,
) -> keras.Model:
    """Returns a model with a new, random classifier on the same trunk, whose layers it shares.

    Its record has the new classes, so that saved files and `zoo.deploy.predictor` name them.

    Args:
        model: A model with a layer `head` at its end, as `zoo.create_model` makes.
        num_classes: Outputs of the new classifier, at least 1.
        dropout: Before the classifier, in [0, 1); None keeps the present rate.
        class_names: Names of the outputs, in order.

    Raises:
        OptionValueError: The model does not end in a layer `head`, or a value breaks its rule.
    """
    _check(num_classes, dropout, class_names)
    heads = _heads(model)
    made = []
    with deep_graphs():
        for head in heads:
            features, present = _features(head)
            rate = present if dropout is None else dropout
            made.append(
                classifier(
                    features,
                    num_classes=num_classes,
                    dropout=rate,
                    activation=head.activation,
                    name=head.name,
                )
            )
        outputs = made[0] if len(made) == 1 else keras.layers.Average(name=MEAN)(made)
        renewed = keras.Model(model.input, outputs, name=model.name)
    record = get_record(model)
    if record is not None:
        changed = {"num_classes": num_classes, "dropout": rate}
        set_record(renewed, _renewed(record, changed, tuple(class_names or ())))
    return renewed


def _check(num_classes: int, dropout: float | None, class_names: Sequence[str] | None) -> None:
    if num_classes < 1:
        raise OptionValueError(f"`num_classes` must be at least 1; got num_classes={num_classes}.")
    if dropout is not None and not 0 <= dropout < 1:
        raise OptionValueError(f"`dropout` must be in [0, 1); got dropout={dropout}.")
    if class_names is not None and len(class_names) != num_classes:
        raise OptionValueError(
            f"`class_names` must be {num_classes} names, as many as num_classes; got "
            f"{len(class_names)}."
        )


def _heads(model: keras.Model) -> list[Any]:
    heads = [layer for layer in model.layers if layer.name in CLASSIFIERS]
    output = model.output
    end = None if isinstance(output, dict) else output._keras_history.operation.name
    if not heads or end not in (*CLASSIFIERS, MEAN):
        raise OptionValueError(
            f"`model` must end in a layer `head`; got {model.name}, which ends in "
            f"{end or 'feature maps'}. Make it with zoo.create_model(..., num_classes=...)."
        )
    return heads


def _features(head: Any) -> tuple[Any, float]:
    """Returns what a classifier sees, before dropout, and the rate of that dropout."""
    features = head.input
    before = features._keras_history.operation
    if isinstance(before, keras.layers.Dropout) and before.name.startswith("head"):
        return before.input, float(before.rate)
    return features, 0.0


def _renewed(
    record: ModelRecord, changed: dict[str, Any], class_names: tuple[str, ...]
) -> ModelRecord:
    weights = record.weights
    if weights is not None:  # which no longer name the outputs
        weights = replace(weights, num_classes=changed["num_classes"], labels="")
    return replace(
        record, options={**record.options, **changed}, weights=weights, class_names=class_names
    )
