"""Freezing and unfreezing: what trains, and that frozen batch norms stand still."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import zoo
from tests.fill import noise
from zoo.errors import OptionValueError
from zoo.finetune import freeze, last_stages, unfreeze


def model() -> keras.Model:
    return zoo.create_model("test_resnet", num_classes=3, input_size=64)


def names(trained: keras.Model) -> set[str]:
    return {v.path.partition("/")[0] for v in trained.trainable_variables}


def test_by_default_only_the_head_trains() -> None:
    net = model()
    report = freeze(net)
    assert names(net) == {"head"}
    assert report.trainable == sum(
        int(np.prod(v.shape)) for v in net.get_layer("head").trainable_variables
    )
    assert report.trainable + report.frozen == net.count_params()
    assert "parameters train" in str(report)


def test_stages_come_back_without_their_batch_norms() -> None:
    net = model()
    freeze(net)
    unfreeze(net, last_stages(net, 2))
    kept = names(net)
    assert kept == {
        layer.name
        for layer in net.layers
        if layer.name.startswith(("stage3_", "stage4_", "head"))
        and layer.variables
        and not isinstance(layer, keras.layers.BatchNormalization)
    }
    unfreeze(net, batch_norm=True)
    assert len(net.trainable_variables) == len(model().trainable_variables)


def test_frozen_batch_norms_keep_their_statistics() -> None:
    net = model()
    freeze(net)
    unfreeze(net)
    before = [keras.ops.convert_to_numpy(v).copy() for v in net.non_trainable_variables]
    net(noise((4, 64, 64, 3)) + 1, training=True)
    after = [keras.ops.convert_to_numpy(v) for v in net.non_trainable_variables]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    moving = model()
    start = keras.ops.convert_to_numpy(moving.non_trainable_variables[0]).copy()
    moving(noise((4, 64, 64, 3)) + 1, training=True)
    assert not np.array_equal(start, keras.ops.convert_to_numpy(moving.non_trainable_variables[0]))


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(OptionValueError, match="`pattern` must match a layer with weights"):
        freeze(model(), "blocks.0")
    with pytest.raises(OptionValueError, match="`count` must be from 1 to the model's 4 stages"):
        last_stages(model(), 5)
