"""Augmentation inside of models that a search trains: strength and probability do not compile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tuning
import zoo
from tests.engine_models import FEATURES, ONE_HOT, ROWS, Y, check_reuse
from tuning.augmentation import augmented
from tuning.parameters import Choice, Fixed, Float
from zoo.augment.image.geometric import RandomAffine

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


@pytest.mark.tensorflow  # Keras' own fit reads numbers at run time there only
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


@pytest.mark.tensorflow  # Keras' own fit reads numbers at run time there only
@pytest.mark.parametrize(
    "policy",
    [
        "random_affine",
        pytest.param("crop_flip", marks=pytest.mark.slow),
        "randaugment",
        pytest.param("trivialaugment", marks=pytest.mark.slow),
    ],
)
def test_trials_of_all_strengths_share_a_compiled_step(policy: str) -> None:
    def build(values: Mapping[str, Any]) -> keras.Model:
        inputs = keras.Input((8, 8, 3))
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
        model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))
        model = augmented(model, values["strength"], policy)
        model.compile("sgd", "categorical_crossentropy", jit_compile=False)
        return model

    values = [{"strength": strength} for strength in (0.5, 0.0, 1.0)]
    check_reuse(build, values, x=IMAGES, y=ONE_HOT, epochs=1)


def test_noise_of_tables_shares_a_compiled_step() -> None:
    def build(values: Mapping[str, Any]) -> keras.Model:
        model = tuning.mlp(FEATURES, 3, depth=1, hidden_units=4, noise=values["noise"])
        model.compile("sgd", "mse", jit_compile=False)
        return model

    check_reuse(build, [{"noise": 0.1}, {"noise": 0.3}])


OPEN = """
import sys
import keras, numpy
model = keras.models.load_model(sys.argv[1], compile=False)
images = numpy.load(sys.argv[2])
numpy.save(sys.argv[3], numpy.asarray(model(images)))
assert not any(name.split(".")[0] in ("zoo", "tuning", "recipes") for name in sys.modules)
"""


def search(create: Any, path: Path, trials: int) -> Any:
    space = {
        "optimizer": Fixed("sgd"),
        "learning_rate": Fixed(0.05),
        "batch_size": Fixed(11),
        "augmentation_strength": Float(0.0, 1.0, default=0.5),
    }
    hypermodel = tuning.CatalogHyperModel(create, space=space)
    data = IMAGES, Y.astype("int32")
    return tuning.tune(
        hypermodel,
        data,
        data,
        algorithm="random",
        trials=trials,
        max_epochs=1,
        directory=path,
        quiet=True,
    )


def test_a_search_over_strengths_traces_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = []
    draw = RandomAffine.draw

    def counted(layer: Any, *arguments: Any) -> Any:
        traced.append(layer)  # Python runs where a step is traced, not where it is used
        return draw(layer, *arguments)

    monkeypatch.setattr(RandomAffine, "draw", counted)
    counts = []
    for trials in (1, 5):
        traced.clear()
        found = search(classifier_of_pixels, tmp_path / str(trials), trials)
        counts.append(len(traced))
    assert found.leaderboard()["augmentation_strength"].nunique() == 5
    assert counts[0] > 0
    assert counts[1] == counts[0]
    compiled = found._tuner.runner.engine.compiled
    assert (compiled.misses, compiled.hits, compiled.reasons) == (1, 4, {})


def test_what_a_search_found_opens_without_this_package(tmp_path: Path) -> None:
    def create() -> keras.Model:
        return zoo.create_model(
            "test_resnet", num_classes=3, input_size=8, stem="small", preprocess=True
        )

    found = search(create, tmp_path / "search", 2)
    model = found.best_model()
    assert not any(type(layer).__module__.startswith("zoo") for layer in model.layers)
    score = found.leaderboard()["score"][0]
    assert model.evaluate(IMAGES, Y, verbose=0)[1] == pytest.approx(score, abs=1e-6)
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", IMAGES)
    (tmp_path / "open.py").write_text(OPEN)
    names = [str(tmp_path / name) for name in ("m.keras", "x.npy", "y.npy")]
    subprocess.run([sys.executable, str(tmp_path / "open.py"), *names], check=True, cwd=tmp_path)
    again = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(again, model.predict(IMAGES, verbose=0), atol=1e-4)


def test_a_policy_may_be_chosen() -> None:
    space = {
        "augmentation": Choice(("random_affine", "trivialaugment")),
        "augmentation_strength": Float(0.0, 1.0, default=0.5),
    }
    hypermodel = tuning.CatalogHyperModel(classifier_of_pixels, space=space)
    hypermodel.prepare((IMAGES, Y), epochs=1)
    hp = tuning.HyperParameters()
    assert type(hypermodel.build(hp).get_layer("augmentation")).__name__ == "RandomAffine"
    hp.values["augmentation"] = "trivialaugment"
    layer = hypermodel.build(hp).get_layer("augmentation")
    assert (type(layer).__name__, layer.p) == ("TrivialAugmentWide", 0.5)


def classifier_of_pixels() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
