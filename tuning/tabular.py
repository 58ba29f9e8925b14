"""A model for tables, to be tuned with `tuning.tabular_space`."""

from __future__ import annotations

import keras

from zoo.errors import OptionValueError


def mlp(
    features: int,
    outputs: int,
    *,
    hidden_units: int = 256,
    depth: int = 2,
    dropout: float = 0.0,
    noise: float = 0.0,
) -> keras.Model:
    """Returns a multilayer perceptron: (B, features), standardised -> (B, outputs).

    Each hidden layer is linear, ReLU, dropout, as in Gorishniy et al. 2021, arXiv:2106.11959,
    section 3.1. Search it with

        create = functools.partial(tuning.mlp, 20, 3)
        tuning.tune(tuning.CatalogHyperModel(create, space=tuning.tabular_space()), train, ...)

    Args:
        features: Columns of the table.
        outputs: Classes, whose logits it gives, or targets.
        hidden_units: Width of every hidden layer.
        depth: Number of hidden layers; 0 is a linear model.
        dropout: Share of hidden units left out in training.
        noise: Standard deviation of the normal noise that is added to the features in training.

    Raises:
        OptionValueError: A number is out of range.
    """
    least = {"features": (features, 1), "outputs": (outputs, 1), "depth": (depth, 0)}
    for name, (value, low) in {**least, "hidden_units": (hidden_units, 1)}.items():
        if value < low:
            raise OptionValueError(f"`{name}` must be at least {low}; got {name}={value}.")
    if not 0 <= dropout < 1:
        raise OptionValueError(f"`dropout` must be in [0, 1); got dropout={dropout}.")
    if noise < 0:
        raise OptionValueError(f"`noise` must be at least 0; got noise={noise}.")
    x = inputs = keras.Input((features,), name="features")
    if noise:
        x = keras.layers.GaussianNoise(noise, name="noise")(x)
    for number in range(1, depth + 1):
        x = keras.layers.Dense(hidden_units, activation="relu", name=f"hidden{number}")(x)
        x = keras.layers.Dropout(dropout, name=f"dropout{number}")(x)
    return keras.Model(inputs, keras.layers.Dense(outputs, name="head")(x), name="mlp")
