"""Searching how to fine-tune: spaces, what a trial trains, and a small search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest

import tuning
import zoo
from tests.fill import noise
from tests.finetune_model import named_model
from tests.random_weights import random_model, values
from tuning.engine import TrainingEngine, TrialRun
from tuning.finetuning import METHODS, FineTuningHyperModel, apply_method, method_space
from tuning.space import defaults, sample
from zoo.errors import OptionValueError, UnknownModelError
from zoo.finetune import layer_decay

pytestmark = pytest.mark.tensorflow
X, Y = noise((8, 32, 32, 3)), np.arange(8) % 3


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "start.safetensors"
    zoo.export_weights(random_model("test_efficientnet", num_classes=5, input_size=32), path)
    return str(path)


def trial(**chosen: Any) -> keras_tuner.HyperParameters:
    hp = keras_tuner.HyperParameters()
    hp.values = {"augmentation_strength": 0.0, "batch_size": 8, **chosen}
    return hp


def hypermodel(weights: str) -> FineTuningHyperModel:
    found = FineTuningHyperModel("test_efficientnet", weights, train=(X, Y))
    found.prepare((X, Y), epochs=2)
    return found


def trained(model: keras.Model) -> set[str]:
    return {v.path for v in model.trainable_variables}


def test_the_space_has_every_choice() -> None:
    space = method_space(stages=3)
    first = defaults(space)
    assert first["method"] == "full"
    assert first["frozen_stages"] == 0
    assert "lora_rank" not in first
    assert set(tuning.fine_tuning_space()) < set(space)
    hp = keras_tuner.HyperParameters()
    hp.values = {"method": "lora", "lora_rank": 16}
    chosen = sample(hp, space)
    assert chosen["lora_rank"] == 16
    assert "layer_decay" not in chosen
    with pytest.raises(OptionValueError, match="`stages` must be at least 1; got stages=0"):
        method_space(stages=0)
    assert tuning.FineTuningHyperModel is FineTuningHyperModel
    assert tuning.method_space is method_space


def test_each_method_trains_what_it_names(weights: str) -> None:
    search = hypermodel(weights)
    start = values(random_model("test_efficientnet", num_classes=5, input_size=32))
    probe = search.build(trial(method="probe"))
    assert trained(probe) == {"head/kernel", "head/bias"}
    for name, value in values(probe).items():
        if not name.startswith("head/"):
            np.testing.assert_array_equal(value, start[name], err_msg=name)
    full = trained(search.build(trial(method="full")))
    assert "stem_conv/kernel" in full
    assert not any("_bn" in path for path in full)
    part = trained(search.build(trial(method="full", frozen_stages=3)))
    assert part == {p for p in full if not p.startswith(("stem", "stage1", "stage2", "stage3"))}
    lora = search.build(trial(method="lora", lora_rank=4))
    assert {p.rpartition("/")[2] for p in trained(lora) if not p.startswith("head/")} == {
        "lora_kernel_a", "lora_kernel_b",
    }  # fmt: skip
    decayed = search.build(trial(method="full", layer_decay=0.5))
    assert isinstance(decayed.optimizer, keras.optimizers.MultiOptimizer)
    rates = [float(copy.learning_rate) for copy in decayed.optimizer.optimizers]
    assert max(rates) / min(rates) == 2**6
    kept = search.build_to_keep(trial(method="full", layer_decay=0.5))
    assert isinstance(kept.optimizer, keras.optimizers.MultiOptimizer)


@pytest.mark.parametrize("schedule", [False, True])
def test_the_trial_engine_knows_rates_by_depth(*, schedule: bool) -> None:
    """A trial equals Keras' own fit of the same model, whatever was trained before."""
    engine = TrainingEngine()
    x = noise((8, 8, 8, 3))

    def build(rate: float, decay: float) -> keras.Model:
        keras.utils.clear_session()  # as a tuner does: names without a number
        keras.utils.set_random_seed(0)
        model = named_model()
        first = keras.optimizers.schedules.CosineDecay(rate, 10) if schedule else rate
        optimizer = layer_decay(model, keras.optimizers.SGD(first), decay)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        return model

    for rate, decay in ((0.1, 0.8), (0.4, 0.8), (0.1, 0.65), (0.1, 0.8)):
        plain = build(rate, decay)
        model = engine.prepare(build(rate, decay), TrialRun(seed=(0,), epochs=1), (x, Y))
        model.fit(x, Y, batch_size=8, epochs=1, shuffle=False)
        plain.fit(x, Y, batch_size=8, epochs=1, shuffle=False, verbose=0)
        for one, other in zip(model.weights, plain.weights, strict=True):
            np.testing.assert_allclose(
                np.asarray(one), np.asarray(other), rtol=1e-4, atol=1e-6, err_msg=one.path
            )
    assert (engine.compiled.hits, engine.compiled.misses) == (3, 1)


@pytest.mark.slow
def test_a_search_over_methods(weights: str, tmp_path: Path) -> None:
    search = FineTuningHyperModel("test_efficientnet", weights, train=(X, Y))
    found = tuning.tune(
        search, (X, Y), (X, Y), algorithm="random", trials=5, max_epochs=1, quiet=True, seed=3,
        directory=tmp_path,
    )  # fmt: skip
    board = found.leaderboard()
    assert (board["status"] == "completed").all()
    assert board["method"].nunique() > 1
    best = found.best_model()
    assert best.output_shape == (None, 3)


def test_what_cannot_be_searched(weights: str) -> None:
    with pytest.raises(UnknownModelError, match="resnet19"):
        FineTuningHyperModel("resnet19", weights, train=(X, Y))
    with pytest.raises(OptionValueError, match="`weights` must name what to fine-tune; got None"):
        FineTuningHyperModel("test_efficientnet", None, train=(X, Y))
    model = zoo.create_model("test_efficientnet", num_classes=3, input_size=32)
    with pytest.raises(OptionValueError, match=f"one of {', '.join(METHODS)}; got 'adapters'"):
        apply_method(model, {"method": "adapters"})
