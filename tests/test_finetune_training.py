"""The smaller parts of fine-tuning: averages, stages, class weights, views."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import zoo
from tests.fill import noise
from tests.finetune_model import named_model
from zoo.errors import DataError, OptionValueError
from zoo.finetune import (
    Stage,
    class_weights,
    ema,
    layer_decay,
    replace_head,
    stages,
    tta,
)

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def numbers(variable: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable))


# --- averages -----------------------------------------------------------------------------------


class Trace(keras.callbacks.Callback):
    """The head's bias after each step, and what validation sees."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[np.ndarray] = []
        self.seen: list[np.ndarray] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps.append(numbers(self.model.get_layer("head").bias))

    def on_test_begin(self, logs: Any = None) -> None:
        self.seen.append(numbers(self.model.get_layer("head").bias))


@pytest.mark.tensorflow
@pytest.mark.parametrize("layered", [False, True])
def test_averages_are_the_recursion_and_what_validation_sees(*, layered: bool) -> None:
    """a_1 = w_1, then a_t = m a_(t-1) + (1 - m) w_t; Keras keeps the bias at its own steps."""
    net = named_model()
    zoo.finetune.freeze(net)
    optimizer: Any = keras.optimizers.SGD(0.5)
    if layered:
        optimizer = layer_decay(net, optimizer, 0.9)
    callback, trace = ema(optimizer, 0.8), Trace()
    net.compile(optimizer, LOSS)
    x, y = noise((4, 8, 8, 3)), np.arange(4) % 3
    net.fit(
        x, y, batch_size=2, epochs=2, verbose=0, shuffle=False,
        validation_data=(x, y), callbacks=[callback, trace],
    )  # fmt: skip
    assert len(trace.steps) == 4
    average = trace.steps[0]
    averages = [average]
    for value in trace.steps[1:]:
        average = 0.8 * average + 0.2 * value
        averages.append(average)
    np.testing.assert_allclose(trace.seen, [averages[1], averages[3]], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(numbers(net.get_layer("head").bias), averages[3], atol=1e-6)
    assert not np.allclose(averages[3], trace.steps[3], atol=1e-5)


def test_averages_that_cannot_begin() -> None:
    with pytest.raises(OptionValueError, match=r"`momentum` must be in \(0, 1\); got momentum=1"):
        ema(keras.optimizers.SGD(0.1), 1.0)
    used = keras.optimizers.SGD(0.1)
    used.build([])
    with pytest.raises(OptionValueError, match="`optimizer` must be new"):
        ema(used)


# --- stages -------------------------------------------------------------------------------------


def test_stages_let_loose_ever_more() -> None:
    net = zoo.create_model("test_resnet", num_classes=3, input_size=32)
    seen = []
    for stage, change in stages(net):
        seen.append((stage.name, change.trainable))
        prefixes = {v.path[:6] for v in net.trainable_variables}
        expected = {
            "head": {"head/k", "head/b"},
            "last stages": {"head/k", "head/b", "stage3", "stage4"},
        }
        assert prefixes == expected.get(stage.name, prefixes)
        assert not any("_bn" in v.path for v in net.trainable_variables)
    assert [name for name, _ in seen] == ["head", "last stages", "whole"]
    counts = [count for _, count in seen]
    assert counts == sorted(set(counts))
    whole = sum(
        int(np.prod(v.shape))
        for layer in net.layers
        if not isinstance(layer, keras.layers.BatchNormalization)
        for v in layer.weights
    )
    assert counts[-1] == whole


def test_stages_that_cannot_be() -> None:
    net = zoo.create_model("test_resnet", num_classes=3, input_size=32)
    with pytest.raises(OptionValueError, match="`schedule` must have at least one stage"):
        stages(net, ())
    good = Stage(name="a", parts="head", epochs=1, learning_rate=0.1)
    late = Stage(name="b", parts="stgae4", epochs=1, learning_rate=0.1)
    with pytest.raises(OptionValueError, match="got 'stgae4' for test_resnet"):
        stages(net, (good, late))
    with pytest.raises(OptionValueError, match=r"got epochs=0, learning_rate=0.1 in 'c'"):
        Stage(name="c", parts="", epochs=0, learning_rate=0.1)
    with pytest.raises(OptionValueError, match="learning_rate=0 in 'd'"):
        Stage(name="d", parts="", epochs=1, learning_rate=0)


# --- class weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["row", "column", "one-hot", "floats"])
def test_class_weights_are_scikit_learns(shape: str) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.random.default_rng(0).choice(5, 300, p=(0.5, 0.3, 0.15, 0.0, 0.05))
    present = np.unique(labels)
    expected = compute_class_weight("balanced", classes=present, y=labels)
    given = {
        "row": labels,
        "column": labels[:, None],
        "one-hot": np.eye(5)[labels],
        "floats": labels.astype("float32"),
    }[shape]
    found = class_weights(given)
    assert list(found) == present.tolist()
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-12)
    assert np.mean([found[int(label)] for label in labels]) == pytest.approx(1)


@pytest.mark.parametrize(
    "labels", [[], [0.5, 1], [-1, 0], ["a", "b"], np.zeros((2, 2, 2)), [np.nan]]
)
def test_labels_that_have_no_classes(labels: Any) -> None:
    with pytest.raises(DataError, match="`labels` must be whole numbers from 0"):
        class_weights(labels)


# --- views --------------------------------------------------------------------------------------

IMAGES = np.random.default_rng(0).integers(0, 255, (3, 4, 6, 2), np.uint8)


def logits(images: np.ndarray) -> np.ndarray:
    """Logits that no view leaves alone."""
    weights = np.random.default_rng(1).normal(size=(4 * 6 * 2, 5))
    flat: np.ndarray = images.reshape(len(images), -1) / 255 @ weights
    return flat


def softmax(values: np.ndarray) -> np.ndarray:
    from scipy.special import softmax as reference

    return np.asarray(reference(values, axis=1))


def test_views_are_averaged() -> None:
    flips = [IMAGES, IMAGES[:, :, ::-1], IMAGES[:, ::-1], np.rot90(IMAGES, 2, axes=(1, 2))]
    views = ("identity", "flip", "flip_vertical", "rotate_180")
    expected = np.mean([softmax(logits(view)) for view in flips], axis=0)
    np.testing.assert_allclose(tta(logits, views)(IMAGES), expected, rtol=1e-5)
    raw = np.mean([logits(view) for view in flips[:2]], axis=0)
    np.testing.assert_allclose(tta(logits, average="logits")(IMAGES), raw, rtol=1e-5)
    brighter = tta(logits, (lambda images: images // 2,))(IMAGES)
    np.testing.assert_allclose(brighter, softmax(logits(IMAGES // 2)), rtol=1e-5)
    single = tta(lambda images: logits(images)[:, :1])(IMAGES)
    each = [1 / (1 + np.exp(-logits(view)[:, :1])) for view in flips[:2]]
    np.testing.assert_allclose(single, np.mean(each, axis=0), rtol=1e-5)


@pytest.mark.tensorflow
def test_views_of_a_model_know_its_outputs() -> None:
    x = noise((2, 32, 32, 3))
    options: dict[str, Any] = {"num_classes": 3, "input_size": 32}
    ready = zoo.create_model("test_resnet", classifier_activation="softmax", **options)
    both = [np.asarray(ready.predict(view, verbose=0)) for view in (x, x[:, :, ::-1])]
    np.testing.assert_allclose(tta(ready)(x), np.mean(both, axis=0), rtol=1e-5)
    plain = zoo.create_model("test_resnet", **options)
    np.testing.assert_allclose(tta(plain)(x).sum(axis=1), 1, rtol=1e-5)
    record = zoo.record.get_record(plain)
    assert record is not None
    import dataclasses

    zoo.record.set_record(plain, dataclasses.replace(record, task="multi-label"))
    one = 1 / (1 + np.exp(-np.asarray(plain.predict(x, verbose=0))))
    np.testing.assert_allclose(tta(plain, ("identity",))(x), one, rtol=1e-5)
    assert replace_head(ready, 4).get_layer("head").activation is keras.activations.softmax


def test_views_that_cannot_be() -> None:
    with pytest.raises(OptionValueError, match=r"rotate_180, or functions; got 'flipp'. Did you"):
        tta(logits, ("flipp",))
    with pytest.raises(OptionValueError, match="`views` must name at least one"):
        tta(logits, ())
    with pytest.raises(OptionValueError, match="`average` must be 'probabilities' or 'logits'"):
        tta(logits, average="median")  # type: ignore[arg-type]
