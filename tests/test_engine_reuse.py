"""Which models share a compiled step: what equals, what differs, what is refused."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from tests.engine_models import FEATURES, check_reuse, dense, fitted, fresh
from tuning.fingerprint import NotReusableError, fingerprint
from tuning.reuse import CompiledModels

L, O = keras.layers, keras.optimizers  # noqa: E741
Make = Callable[[], keras.Model]
SCALE = 1.0


class Settings:
    def __init__(self) -> None:
        self.scale = 1.0


SETTINGS = Settings()


def key(make: Make) -> Any:
    return fingerprint(fresh(lambda _: make(), {}))


# --- parts of a user's own ----------------------------------------------------------------------


def own_loss(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


def scaled_loss(y_true: Any, y_pred: Any) -> Any:
    return SCALE * own_loss(y_true, y_pred)


def configured_loss(y_true: Any, y_pred: Any) -> Any:
    return SETTINGS.scale * own_loss(y_true, y_pred)


def random_loss(y_true: Any, y_pred: Any) -> Any:
    return own_loss(y_true, y_pred) + keras.random.normal(())


class WeightedLoss(keras.losses.Loss):
    def __init__(self, weight: Any) -> None:
        super().__init__(name="weighted")
        self.weight = weight

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.weight * own_loss(y_true, y_pred)


class Share(keras.metrics.Mean):
    pass


@keras.saving.register_keras_serializable("tests")
class Scale(keras.layers.Layer):
    factor = 1.0

    def __init__(self, by: float, **options: Any) -> None:
        super().__init__(**options)
        self.by = by
        self.hidden = 1.0  # in no config

    def call(self, x: Any) -> Any:
        return x * self.by * self.hidden * self.factor

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "by": self.by}


class Times:
    def __init__(self, by: Any) -> None:
        self.by = by

    def __call__(self, x: Any) -> Any:
        return x * self.by


class OwnStep(keras.Model):
    def train_step(self, *args: Any) -> Any:
        return super().train_step(*args)


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.out = L.Dense(3)

    def call(self, x: Any) -> Any:
        return self.out(x)


def own_step() -> keras.Model:
    x = keras.Input((FEATURES,))
    model = OwnStep(x, L.Dense(3)(x))
    model.compile("sgd", "mse")
    return model


def subclassed() -> keras.Model:
    model = Subclassed()
    model.compile("sgd", "mse")
    model(np.zeros((1, FEATURES), "float32"))
    return model


def closure_loss() -> keras.Model:
    weight = 2.0

    def loss(y_true: Any, y_pred: Any) -> Any:
        return weight * own_loss(y_true, y_pred)

    return dense("sgd", loss=loss)


def local_layer() -> keras.Model:
    class Local(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    return dense("sgd", layers=[Local()])


REFUSED: dict[str, tuple[Make, str]] = {
    "lambda loss": (lambda: dense("sgd", loss=lambda t, p: own_loss(t, p)), "a lambda"),
    "closure": (closure_loss, "the local function loss"),
    "Lambda layer": (lambda: dense("sgd", layers=[L.Lambda(lambda x: x)]), "a lambda"),
    "lambda activation": (
        lambda: dense("sgd", layers=[L.Activation(lambda x: x)]),
        "a lambda",
    ),
    "local class": (local_layer, "Local is made inside a function"),
    "train_step": (own_step, "a custom `train_step`"),
    "subclass": (subclassed, "(a custom `call`|a class of its own)"),
    "eager": (lambda: dense("sgd", run_eagerly=True), "run_eagerly=True"),
    "random numbers": (lambda: dense("sgd", loss=random_loss), "without a SeedGenerator"),
    "variable in a loss": (
        lambda: dense("sgd", loss=WeightedLoss(keras.Variable(1.0))),
        "its Loss WeightedLoss keeps a variable",
    ),
    "opaque object": (
        lambda: dense("sgd", loss=WeightedLoss(np.random.default_rng(0))),
        "its Loss WeightedLoss keeps a Generator, whose state cannot be told",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused(name: str) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(NotReusableError, match=reason):
        key(make)


@pytest.mark.tensorflow
def test_lookup_tables_are_refused() -> None:
    def make() -> keras.Model:
        lookup = L.StringLookup(vocabulary=["a", "b"])
        model = keras.Sequential([keras.Input((1,), dtype="string"), lookup, L.Embedding(4, 2)])
        model.compile("sgd", "mse")
        return model

    with pytest.raises(NotReusableError, match="its StringLookup keeps a StaticHashTable"):
        key(make)


def test_a_refused_model_trains_as_ever_and_says_why_once() -> None:
    pool = CompiledModels(4)
    for _ in range(2):
        model = fresh(lambda _: closure_loss(), {})
        assert pool.adopt(model).model is model
    assert pool.reasons == {"it uses the local function loss, whose values cannot be told": 2}
    assert (pool.hits, pool.misses) == (0, 0)


# --- differences --------------------------------------------------------------------------------


def with_layer(layer: Any, **changes: Any) -> keras.Model:
    model = dense("sgd", layers=[layer])
    for name, value in changes.items():
        setattr(model.layers[1], name, value)
    return model


def constrained(*, late: bool) -> keras.Model:
    model = dense("sgd")
    if late:
        model.layers[0].kernel.constraint = keras.constraints.NonNeg()
    return model


def not_decayed(names: list[str]) -> keras.Model:
    optimizer = O.AdamW(0.1)
    optimizer.exclude_from_weight_decay(var_names=names)
    return dense(optimizer)


def not_decayed_variable(index: int) -> keras.Model:
    model = dense(O.AdamW(0.1))
    model.optimizer.exclude_from_weight_decay(var_list=[model.trainable_variables[index]])
    return model


def frozen(index: int | None) -> keras.Model:
    model = dense("sgd")
    if index is not None:
        model.layers[index].trainable = False
    return model


def graph(*, swapped: bool) -> keras.Model:
    x = keras.Input((FEATURES,))
    one, other = L.Dense(3, name="a")(x), L.Dense(3, name="b")(x)
    model = keras.Model(x, other - one if swapped else one - other)
    model.compile("sgd", "mse")
    return model


def shared(*, same: bool) -> keras.Model:
    one = keras.regularizers.L2(0.1)
    other = one if same else keras.regularizers.L2(0.1)
    return dense("sgd", layers=[L.Dense(2, kernel_regularizer=one, bias_regularizer=other)])


def normalised(mean: float) -> keras.Model:
    layer = L.Normalization()
    layer.adapt(np.full((4, FEATURES), mean, "float32") + np.eye(4, FEATURES, dtype="float32"))
    model = keras.Sequential([keras.Input((FEATURES,)), layer, L.Dense(3)])
    model.compile("sgd", "mse")
    return model


def takes(dtype: str) -> keras.Model:
    model = keras.Sequential([keras.Input((FEATURES,), dtype=dtype), L.Dense(3)])
    model.compile("sgd", "mse")
    return model


DIFFERENT: dict[str, tuple[Make, Make]] = {
    "activation set later": (
        lambda: with_layer(L.Dense(5)),
        lambda: with_layer(L.Dense(5), activation=keras.activations.relu),
    ),
    "attribute in no config": (
        lambda: with_layer(Scale(1.0)),
        lambda: with_layer(Scale(1.0), hidden=2.0),
    ),
    "attribute": (lambda: with_layer(Scale(1.0)), lambda: with_layer(Scale(2.0))),
    "number's type": (lambda: with_layer(Scale(1.0)), lambda: with_layer(Scale(1))),
    "array": (
        lambda: dense("sgd", loss=WeightedLoss(np.array([1.0, 2.0, 3.0]))),
        lambda: dense("sgd", loss=WeightedLoss(np.array([1.0, 2.0, 4.0]))),
    ),
    "constraint set later": (lambda: constrained(late=False), lambda: constrained(late=True)),
    "undecayed names": (lambda: not_decayed(["bias"]), lambda: not_decayed(["kernel"])),
    "undecayed": (lambda: not_decayed_variable(0), lambda: not_decayed_variable(1)),
    "frozen": (lambda: frozen(None), lambda: frozen(0)),
    "order of inputs": (lambda: graph(swapped=False), lambda: graph(swapped=True)),
    "shared regularizer": (lambda: shared(same=True), lambda: shared(same=False)),
    "noise shape": (
        lambda: with_layer(L.Dropout(0.1)),
        lambda: with_layer(L.Dropout(0.1, noise_shape=(None, 1))),
    ),
    "input dtype": (lambda: takes("float32"), lambda: takes("uint8")),
    "normalisation": (lambda: normalised(0.0), lambda: normalised(1.0)),
    "loss weights": (
        lambda: dense("sgd", loss_weights=[1.0]),
        lambda: dense("sgd", loss_weights=[2.0]),
    ),
    "weighted metrics": (
        lambda: dense("sgd", metrics=["mae"]),
        lambda: dense("sgd", weighted_metrics=["mae"]),
    ),
    "steps per call": (lambda: dense("sgd"), lambda: dense("sgd", steps_per_execution=2)),
    "XLA": (lambda: dense("sgd"), lambda: dense("sgd", jit_compile=True)),
    "loss dtype": (
        lambda: dense("sgd", loss=keras.losses.MeanSquaredError()),
        lambda: dense("sgd", loss=keras.losses.MeanSquaredError(dtype="float16")),
    ),
    "object": (
        lambda: with_layer(L.Activation(Times(1.0))),
        lambda: with_layer(L.Activation(Times(2.0))),
    ),
    "epsilon": (lambda: dense(O.Adam(0.1)), lambda: dense(O.Adam(0.1, epsilon=1e-3))),
    "layer's config number": (
        lambda: with_layer(L.GaussianDropout(0.1)),
        lambda: with_layer(L.GaussianDropout(0.2)),
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_models_that_behave_differently_differ(name: str) -> None:
    one, other = DIFFERENT[name]
    assert key(one) == key(one)
    assert key(one) != key(other)


@pytest.mark.parametrize("loss", [scaled_loss, configured_loss])
def test_a_global_that_a_function_reads_is_part_of_it(
    loss: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key(lambda: dense("sgd", loss=loss))
    assert key(lambda: dense("sgd", loss=loss)) == before
    monkeypatch.setattr("tests.test_engine_reuse.SCALE", 2.0)
    monkeypatch.setattr(SETTINGS, "scale", 2.0)
    assert key(lambda: dense("sgd", loss=loss)) != before


def test_a_class_attribute_is_part_of_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(lambda: with_layer(Scale(1.0)))
    monkeypatch.setattr(Scale, "factor", 2.0)
    assert key(lambda: with_layer(Scale(1.0))) != before


EQUAL: dict[str, tuple[Make, Make]] = {
    "rates": (lambda: with_layer(L.Dropout(0.0)), lambda: with_layer(L.Dropout(0.5))),
    "seeds": (lambda: with_layer(L.Dropout(0.1, seed=1)), lambda: with_layer(L.Dropout(0.1))),
    "initializers": (
        lambda: with_layer(L.Dense(5, kernel_initializer="zeros")),
        lambda: with_layer(L.Dense(5)),
    ),
    "optimizer": (lambda: dense(O.Adam(0.1)), lambda: dense(O.Adam(0.2, name="other"))),
    "own loss and metric": (
        lambda: dense("sgd", loss=own_loss, metrics=[Share(name="share")]),
        lambda: dense("sgd", loss=own_loss, metrics=[Share(name="share")]),
    ),
    "L1": (
        lambda: with_layer(L.Dense(5, kernel_regularizer=keras.regularizers.L1(0.1))),
        lambda: with_layer(L.Dense(5, kernel_regularizer=keras.regularizers.L1(0.2))),
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_models_that_differ_in_run_time_values_only_are_equal(name: str) -> None:
    one, other = EQUAL[name]
    assert key(one) == key(other)


@pytest.mark.tensorflow
def test_own_losses_and_layers_are_used_again() -> None:
    def make(values: Any) -> keras.Model:
        layers = [Scale(2.0), L.Dropout(values["rate"])]
        return dense(O.Adam(0.1), loss=own_loss, layers=layers)

    check_reuse(make, [{"rate": 0.1}, {"rate": 0.4}])


@pytest.mark.tensorflow
def test_seeds_set_by_the_user_and_a_step_set_by_the_user() -> None:
    def make(values: Any) -> keras.Model:
        optimizer = O.Adam(0.1)
        optimizer.iterations.assign(values["step"])
        return dense(optimizer, layers=[L.Dropout(0.5, seed=values["seed"])])

    check_reuse(make, [{"seed": 1, "step": 0}, {"seed": 2, "step": 7}])


# --- how many are kept --------------------------------------------------------------------------


def of_units(values: Any) -> keras.Model:
    return dense("sgd", layers=[L.Dense(values["units"])])


def test_the_models_used_last_are_kept() -> None:
    pool = CompiledModels(2)
    for units in (1, 2, 1, 3, 1, 2):  # 3 evicts 2, 2 evicts 3
        pool.adopt(
            fresh(lambda values: dense("sgd", layers=[L.Dense(values["units"])]), {"units": units})
        )
    assert (pool.hits, pool.misses) == (2, 4)
    assert sum(map(len, pool._entries.values())) == 2


@pytest.mark.tensorflow
def test_trials_leave_nothing_behind() -> None:
    pool = CompiledModels(2)

    def trial(number: int) -> None:
        rate = 0.1 + number / 1000
        fitted(
            pool.adopt(fresh(lambda _: dense("sgd", layers=[L.Dropout(rate)]), {})).model, epochs=1
        )

    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    for number in range(5):
        trial(number)
    before = objects()
    for number in range(5, 45):
        trial(number)
    assert objects() - before < 40 * 10  # a model alone has thousands
    assert (pool.hits, pool.misses) == (44, 1)
