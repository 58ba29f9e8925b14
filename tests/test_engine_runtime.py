"""Numbers that a compiled step reads at run time: bit-identity with rebuilt models, guards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.engine_models import BATCH, CLASSES, FEATURES, ONE_HOT, X, Y, check_reuse, dense, fresh
from tests.engine_models import fitted as fitted_by_keras
from tuning.losses import SmoothedCrossentropy
from tuning.reuse import CompiledModels
from tuning.runtime import RuntimeNumber, RuntimeNumbers
from tuning.sites import bind

pytestmark = pytest.mark.tensorflow  # Keras' own fit reads numbers at run time on TensorFlow only
Values = Mapping[str, Any]
S, O, L = keras.optimizers.schedules, keras.optimizers, keras.layers  # noqa: E741


def adamw(values: Values) -> keras.Model:
    optimizer = O.AdamW(values["rate"], weight_decay=values["decay"], beta_1=values["beta"])
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma"])
    layers = [L.BatchNormalization(), L.Dropout(values["dropout"])]
    return dense(optimizer, layers=layers)


def sgd(values: Values) -> keras.Model:
    rate = S.CosineDecay(values["rate"], values["steps"], alpha=values["alpha"])
    clip = values["clip"]
    return dense(
        O.SGD(rate, momentum=values["momentum"], nesterov=True, clipnorm=clip),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=values["smoothing"]),
    )


def adam(values: Values) -> keras.Model:
    rate = S.CosineDecay(
        values["rate"],
        values["steps"],
        warmup_target=values["target"],
        warmup_steps=values["warmup"],
    )
    optimizer = O.Adam(rate, values["beta"], global_clipnorm=values["clip"], use_ema=True)
    return dense(optimizer, layers=[L.GaussianNoise(values["noise"])])


def rmsprop(values: Values) -> keras.Model:
    rate = S.ExponentialDecay(
        values["rate"], values["steps"], values["decay"], staircase=values["stairs"]
    )
    optimizer = O.RMSprop(
        rate, values["rho"], momentum=values["momentum"], clipvalue=values["clip"]
    )
    noise = [L.Reshape((5, 1)), L.SpatialDropout1D(values["dropout"]), L.Flatten()]
    return dense(optimizer, layers=noise)


def adagrad(values: Values) -> keras.Model:
    penalised = L.Dense(
        4,
        kernel_regularizer=keras.regularizers.L2(values["l2"]),
        bias_regularizer=keras.regularizers.L1(values["l1"]),
        activity_regularizer=keras.regularizers.L1L2(values["l1"], values["l2"]),
    )
    rate = S.InverseTimeDecay(values["rate"], 3, values["decay"])
    return dense(O.Adagrad(rate, weight_decay=values["l2"]), layers=[penalised])


def lion(values: Values) -> keras.Model:
    rate = S.PolynomialDecay(values["rate"], 5, values["last"], power=2.0)
    optimizer = O.Lion(rate, values["beta_1"], values["beta_2"], weight_decay=0.1)
    loss = keras.losses.BinaryCrossentropy(label_smoothing=values["smoothing"])
    return dense(optimizer, loss=loss)


def nadam(values: Values) -> keras.Model:
    model = dense(
        O.Nadam(values["rate"], values["beta"], clipnorm=values["clip"]),
        loss=SmoothedCrossentropy(values["smoothing"]),
        layers=[L.Dropout(values["dropout"], noise_shape=(None, 1))],
    )
    model.layers[-1].activation = keras.activations.linear
    return model


def trials(**options: tuple[Any, ...]) -> list[Values]:
    return [
        dict(zip(options, values, strict=True)) for values in zip(*options.values(), strict=True)
    ]


CASES: Mapping[str, tuple[Callable[[Values], keras.Model], list[Values]]] = {
    "adamw": (
        adamw,
        trials(rate=(0.01, 0.003), decay=(0.1, 0.023), beta=(0.9, 0.85), dropout=(0.5, 0.123)),
    ),
    "dropout 0 and above": (
        adamw,
        trials(rate=(0.01, 0.01, 0.03), decay=(0.1,) * 3, beta=(0.9,) * 3, dropout=(0.0, 0.3, 0.0)),
    ),
    "sgd, cosine": (
        sgd,
        trials(
            rate=(0.1, 0.3),
            steps=(7, 9),
            alpha=(0.0, 0.1),
            momentum=(0.9, 0.77),
            clip=(1.0, 0.1),
            smoothing=(0.1, 0.123),
        ),
    ),
    "adam, warm-up": (
        adam,
        trials(
            rate=(0.0, 0.01),
            steps=(7, 9),
            target=(0.1, 0.03),
            warmup=(2, 3),
            beta=(0.9, 0.8),
            clip=(0.5, 0.1),
            noise=(0.1, 0.33),
        ),
    ),
    "rmsprop, exponential": (
        rmsprop,
        trials(
            rate=(0.01, 0.003),
            steps=(3, 7),
            decay=(0.5, 0.1),
            stairs=(False,) * 2,
            rho=(0.9, 0.83),
            momentum=(0.5, 0.9),
            clip=(0.1, 0.03),
            dropout=(0.2, 0.33),
        ),
    ),
    "rmsprop, staircase": (
        rmsprop,
        trials(
            rate=(0.01, 0.003),
            steps=(3, 2),
            decay=(0.5, 0.1),
            stairs=(True,) * 2,
            rho=(0.9, 0.83),
            momentum=(0.5, 0.9),
            clip=(0.1, 0.03),
            dropout=(0.2, 0.33),
        ),
    ),
    "adagrad, inverse time, penalties": (
        adagrad,
        trials(rate=(0.1, 0.03), decay=(0.5, 0.1), l1=(0.01, 0.003), l2=(0.1, 0.0123)),
    ),
    "lion, polynomial": (
        lion,
        trials(
            rate=(0.01, 0.003),
            last=(0.001, 0.0001),
            beta_1=(0.9, 0.81),
            beta_2=(0.99, 0.93),
            smoothing=(0.1, 0.23),
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_reused_model_trains_as_a_rebuilt_one(case: str) -> None:
    make, values = CASES[case]
    check_reuse(make, values)


def test_integer_labels_are_smoothed_at_run_time() -> None:
    values = trials(
        rate=(0.01, 0.03),
        beta=(0.9, 0.8),
        clip=(0.5, 0.1),
        smoothing=(0.1, 0.2),
        dropout=(0.0, 0.3),
    )
    check_reuse(nadam, values, y=Y)


def test_a_piecewise_constant_schedule_is_part_of_the_structure() -> None:
    def make(values: Values) -> keras.Model:
        rate = S.PiecewiseConstantDecay([2, 4], [0.1, values["rate"], 0.01])
        return dense(O.SGD(rate))

    pool = check_reuse(make, trials(rate=(0.1, 0.05, 0.05)), hits=1)
    assert pool.misses == 2


@pytest.mark.slow
def test_steps_compiled_by_xla_have_the_same_bits() -> None:
    def make(values: Values) -> keras.Model:
        return dense(
            O.AdamW(0.01, **values), jit_compile=True, layers=[L.Dropout(values["beta_1"] / 2)]
        )

    check_reuse(make, trials(weight_decay=(0.1, 0.023), beta_1=(0.9, 0.85)))


CONTROL_FLOW: Mapping[str, tuple[Callable[[Any], keras.Model], tuple[Any, Any, Any]]] = {
    "momentum": (lambda value: dense(O.SGD(0.1, momentum=value)), (0.0, 0.9, 0.8)),
    "clipnorm": (lambda value: dense(O.SGD(0.1, clipnorm=value)), (None, 0.1, 0.2)),
    "weight decay": (lambda value: dense(O.Adam(0.1, weight_decay=value)), (None, 0.1, 0.0)),
    "smoothing": (
        lambda value: dense(
            "sgd", loss=keras.losses.CategoricalCrossentropy(label_smoothing=value)
        ),
        (0.0, 0.1, 0.2),
    ),
    "noise": (lambda value: dense("sgd", layers=[L.GaussianNoise(value)]), (0.0, 0.1, 0.2)),
}


@pytest.mark.parametrize("name", CONTROL_FLOW)
def test_a_value_that_changes_what_is_traced_gets_a_model_of_its_own(name: str) -> None:
    make, (one, other, similar) = CONTROL_FLOW[name]
    values = [{"value": value} for value in (one, other, similar, one)]
    pool = check_reuse(lambda v: make(v["value"]), values, hits=2, epochs=1)
    assert pool.misses == 2


def test_a_number_used_as_pythons_is_right_for_that_value_only() -> None:
    numbers = RuntimeNumbers([0.25, 3])
    rate, count = numbers.roots
    assert float(rate) == 0.25
    assert numbers.fit([0.25, 4])
    assert not numbers.fit([0.5, 3])
    assert int(count) == 3
    assert list(range(count)) == [0, 1, 2]
    assert not numbers.fit([0.25, 4])
    assert numbers.fit([0.25, 3])


def test_comparisons_are_guards() -> None:
    numbers = RuntimeNumbers([0.3])
    (rate,) = numbers.roots
    assert (rate > 0, rate <= 1, bool(rate), rate != 0) == (True,) * 4
    assert numbers.fit([0.9])
    assert not numbers.fit([0.0])
    assert not numbers.fit([1.5])
    assert not numbers.fit([1])  # an int is promoted otherwise
    with pytest.raises(TypeError):
        _ = rate < "a"


def test_arithmetic_is_in_double_precision_and_follows_the_value() -> None:
    numbers = RuntimeNumbers([0.3])
    (rate,) = numbers.roots
    expressions: list[tuple[RuntimeNumber, Callable[[float], float]]] = [
        (1 - rate, lambda v: 1 - v),
        (rate - 1, lambda v: v - 1),
        (2 + rate, lambda v: 2 + v),
        (rate + rate, lambda v: v + v),
        (1 / (1 - rate), lambda v: 1 / (1 - v)),
        (rate / 3, lambda v: v / 3),
        (-rate * 3, lambda v: -v * 3),
        (3 * rate, lambda v: 3 * v),
    ]
    for value in (0.3, 0.123):
        numbers.assign([value])
        for expression, expected in expressions:
            assert expression.value == expected(value)
            tensor = keras.ops.convert_to_tensor(expression)
            assert keras.ops.convert_to_numpy(tensor) == np.float32(expected(value))
    assert (1 - rate) is (1 - rate)
    assert repr(rate) == "0.123"


def test_a_bound_model_has_plain_configs_and_can_be_saved_while_it_trains(tmp_path: Path) -> None:
    values = trials(
        rate=(0.1, 0.3),
        steps=(7, 9),
        alpha=(0.0, 0.1),
        momentum=(0.9, 0.77),
        clip=(1.0, 0.1),
        smoothing=(0.1, 0.123),
    )
    pool = CompiledModels(4)
    for number, trial in enumerate(values):
        model = pool.adopt(fresh(sgd, trial)).model
        path = str(tmp_path / f"{number}.keras")
        callback = keras.callbacks.ModelCheckpoint(path)
        fitted_by_keras(model, callbacks=[callback])
        assert model.optimizer.get_config() == fresh(sgd, trial).optimizer.get_config()
        assert model.loss.get_config() == fresh(sgd, trial).loss.get_config()
        loaded = keras.models.load_model(path)
        assert type(loaded.optimizer._learning_rate) is S.CosineDecay
        assert loaded.optimizer._learning_rate.decay_steps == trial["steps"]
        assert type(loaded.optimizer.momentum) is float
        assert loaded.optimizer.momentum == trial["momentum"]
        assert loaded.loss.label_smoothing == trial["smoothing"]
        np.testing.assert_equal(
            loaded.predict(X, verbose=0), model.predict(X, batch_size=BATCH * 4, verbose=0)
        )
    assert pool.hits == 1


def test_binding_changes_no_result() -> None:
    values = CASES["adamw"][1][0]
    model = fresh(adamw, values)
    before = model.predict_on_batch(X)
    numbers = bind(model)
    assert [type(number.value) for number in numbers.roots] == [float] * len(numbers.roots)
    np.testing.assert_equal(model.predict_on_batch(X), before)
    assert model.layers[2].get_config()["rate"] == values["dropout"]
    assert ONE_HOT.shape == (len(X), CLASSES)
    assert X.shape[1] == FEATURES
