"""Augmentation inside of models that a search trains: strength and probability do not compile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

import zoo
from tests.engine_models import ONE_HOT, ROWS, check_reuse

IMAGES = np.random.default_rng(3).uniform(0, 255, (ROWS, 8, 8, 3)).astype("float32")


def classifier(values: Mapping[str, Any]) -> keras.Model:
    layers = [
        zoo.create_augmentation("random_flip", p=values["flip"]),
        zoo.create_augmentation("random_affine", degrees=30.0, strength=values["strength"]),
        zoo.create_augmentation("randaugment", magnitude=values["magnitude"], p=values["p"]),
    ]
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            zoo.create_augmentation("compose", layers=layers),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    model.compile("sgd", "categorical_crossentropy", jit_compile=False)
    return model


def test_strengths_and_probabilities_share_a_compiled_step() -> None:
    values = [
        {"flip": 0.5, "strength": 1.0, "magnitude": 9.0, "p": 1.0},
        {"flip": 0.0, "strength": 0.25, "magnitude": 20.0, "p": 0.5},
        {"flip": 1.0, "strength": 0.0, "magnitude": 0.0, "p": 0.0},
    ]
    check_reuse(classifier, values, x=IMAGES, y=ONE_HOT, epochs=1)


def test_another_number_of_operations_is_another_structure() -> None:
    def build(values: Mapping[str, Any]) -> keras.Model:
        layer = zoo.create_augmentation("randaugment", num_ops=values["num_ops"])
        layers = [keras.Input((8, 8, 3)), layer, keras.layers.Flatten(), keras.layers.Dense(3)]
        model = keras.Sequential(layers)
        model.compile("sgd", "mse", jit_compile=False)
        return model

    values = [{"num_ops": 1}, {"num_ops": 2}]
    check_reuse(build, values, x=IMAGES / 255, y=ONE_HOT, epochs=1, hits=0)
