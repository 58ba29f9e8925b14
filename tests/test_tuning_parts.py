"""Parts of a search: spaces, the optimizer, data, progress, the names of the package."""

from __future__ import annotations

import importlib
import io
import math
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

import tuning
from tuning.data import (
    EpochBatches,
    check_data,
    describe_images,
    fit_arguments,
    is_batched,
    steps_per_epoch,
)
from tuning.hypermodel import CatalogHyperModel, as_hypermodel, catalog_hypermodel
from tuning.optimizers import make_optimizer
from tuning.oracles import ALGORITHMS
from tuning.progress import SearchProgress, TrainingProgress, duration
from tuning.space import (
    Choice,
    Fixed,
    Float,
    Int,
    Space,
    When,
    check_space,
    default_space,
    defaults,
    sample,
)
from zoo.errors import DataError, OptionValueError, UnknownModelError

RNG = np.random.default_rng(0)


# --- spaces -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: Float(1.0, 1.0), r"`low` must be below `high`, both finite; got low=1.0"),
        (lambda: Float(0.0, math.inf), "both finite"),
        (lambda: Float(0.0, 1.0, log=True), r"`low` must be above 0 where log=True; got low=0.0"),
        (lambda: Float(0.0, 1.0, default=2.0), r"`default` must be in \[0.0, 1.0\]; got default=2"),
        (lambda: Int(1.5, 3), "must be whole numbers; got low=1.5"),  # type: ignore[arg-type]
        (lambda: Int(1, math.inf), "must be whole numbers"),  # type: ignore[arg-type]
        (lambda: Int(3, 1), "`low` must be below `high`"),
        (lambda: Int(1, 9, step=0), "`step` must be at least 1"),
        (lambda: Int(1, 9, step=2, log=True), "and 1 where log=True; got step=2, log=True"),
        (lambda: Int(1, 9, default=10), r"`default` must be in \[1, 9\]; got default=10"),
        (lambda: Int(0, 9, step=3, default=4), "`low` plus a multiple of `step`; got default=4"),
        (lambda: Choice(()), "must be one or more of one type"),
        (lambda: Choice((1, 2.0)), r"of one type, bool, int, float or str; got values=\(1, 2.0\)"),
        (lambda: Choice((None,)), "got values"),  # type: ignore[arg-type]
        (lambda: Choice((True,)), "must offer True and False"),
        (lambda: Choice(("a", "b"), default="c"), r"one of \('a', 'b'\); got default='c'"),
        (lambda: Fixed(None), "must be a bool, int, float or str; got value=None"),  # type: ignore[arg-type]
        (lambda: check_space({}), "`space` must map at least one name"),
        (lambda: check_space([Float(0, 1)]), "`space` must map"),  # type: ignore[arg-type]
        (lambda: check_space({"x": 3}), "must be a Float, Int, Choice, Fixed or Relative; got 3"),  # type: ignore[dict-item]
        (
            lambda: check_space({"x": Float(0, 1, when=When("y", (1,))), "y": Choice((1, 2))}),
            r"space\['x'\] must name a parameter before it; got 'y'",
        ),
    ],
)
def test_space_errors(make: Any, rule: str) -> None:
    with pytest.raises(OptionValueError, match=rule):
        make()


def test_defaults_lie_in_the_middle() -> None:
    space: Space = {
        "linear": Float(0.0, 3.0),
        "log": Float(1e-4, 1e-2, log=True),
        "int": Int(10, 30, 5),
        "int_log": Int(4, 64, log=True),
        "set": Int(10, 30, 5, default=25),
        "choice": Choice(("a", "b")),
        "fixed": Fixed(7),
    }
    middle = defaults(space)
    assert middle.pop("log") == pytest.approx(1e-3)
    assert middle == {
        "linear": 1.5,
        "int": 20,
        "int_log": 16,
        "set": 25,
        "choice": "a",
        "fixed": 7,
    }


def test_sample_knows_conditions_of_conditions() -> None:
    space: Space = {
        "a": Choice((1, 2)),
        "b": Choice(("x", "y"), when=When("a", (2,))),
        "c": Float(0.0, 1.0, when=When("b", ("y",))),
    }
    given: list[tuple[dict[str, Any], set[str]]] = [
        ({}, {"a"}),
        ({"a": 2}, {"a", "b"}),
        ({"a": 2, "b": "y"}, {"a", "b", "c"}),
    ]
    for values, names in given:
        hp = keras_tuner.HyperParameters()
        hp.values = dict(values)
        assert set(sample(hp, space)) == names
        assert [param.name for param in hp.space] == ["a", "b", "c"]


def test_sample_keeps_types() -> None:
    space: Space = {
        "b": Choice((True, False)),
        "i": Choice((1, 2)),
        "f": Fixed(1.5),
        "s": Fixed("t"),
    }
    assert sample(keras_tuner.HyperParameters(), space) == {"b": True, "i": 1, "f": 1.5, "s": "t"}
    assert sample(keras_tuner.HyperParameters(), space)["b"] is True


def test_ints_reach_both_bounds() -> None:
    oracle = ALGORITHMS["random"].create("val_loss", trials=9, max_epochs=1, seed=1)
    hp = oracle.get_space()
    first = sample(hp, {"steps": Int(2, 8, 3), "log": Int(1, 4, log=True)})
    assert first == {"steps": 5, "log": 2}
    oracle.update_space(hp)
    draws = [oracle.populate_space(str(i))["values"] for i in range(60)]
    assert {draw["steps"] for draw in draws} == {2, 5, 8}
    assert {draw["log"] for draw in draws} == {1, 2, 3, 4}


def test_random_draws_fill_the_default_space() -> None:
    oracle = ALGORITHMS["random"].create("val_loss", trials=9, max_epochs=1, seed=1)
    hp = oracle.get_space()
    sample(hp, default_space())
    oracle.update_space(hp)
    draws = [oracle.populate_space(str(i))["values"] for i in range(300)]
    factors = np.array([draw["relative_learning_rate"] for draw in draws])
    assert 0.1 <= factors.min() < 0.12
    assert 8 < factors.max() <= 10
    # uniform in the logarithm: the median is near the geometric middle
    assert np.log(np.median(factors)) == pytest.approx(0, abs=0.5)
    for draw in draws:
        assert ("momentum" in draw) == (draw["optimizer"] in ("sgd", "rmsprop"))
        assert ("relative_weight_decay" in draw) == (draw["optimizer"] != "adam")
    everything = {"sgd", "adam", "adamw", "rmsprop", "adagrad", "lion"}
    assert {draw["optimizer"] for draw in draws} == everything
    assert {draw["batch_size"] for draw in draws} == {32, 64, 128}


def test_default_space_follows_the_data() -> None:
    assert "batch_size" not in default_space(batched=True)
    assert max(default_space(samples=500)["batch_size"].values) == 32  # type: ignore[union-attr]
    assert defaults(default_space(samples=60_000))["batch_size"] == 64


# --- the optimizer ----------------------------------------------------------------------------


def _all_kinds_of_parameters() -> keras.Model:
    x = inputs = keras.Input((4, 4, 8))
    x = keras.layers.Conv2D(8, 1)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.DepthwiseConv2D(1)(x)
    x = keras.layers.GroupNormalization(2)(x)
    x = keras.layers.Reshape((16, 8))(x)
    x = keras.layers.MultiHeadAttention(2, 4)(x, x)
    x = keras.layers.LayerNormalization()(x)
    x = keras.layers.RMSNormalization()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop", "adagrad"])
def test_only_kernels_decay(name: str) -> None:
    model = _all_kinds_of_parameters()
    for variable in model.trainable_variables:
        variable.assign(RNG.normal(size=variable.shape))
    before = {v.path: v.numpy() for v in model.trainable_variables}
    optimizer = make_optimizer(
        {"optimizer": name, "learning_rate": 0.1, "weight_decay": 0.2, "lr_schedule": "constant"},
        total_steps=1,
    )
    # Without a gradient nothing moves but by decay.
    zeros = [np.zeros(v.shape, "float32") for v in model.trainable_variables]
    optimizer.apply_gradients(zip(map(tf.constant, zeros), model.trainable_variables, strict=True))
    kernels = 0
    for variable in model.trainable_variables:
        is_kernel = variable.path.endswith("kernel")
        kernels += is_kernel
        expected = before[variable.path] * (1 - 0.1 * 0.2 if is_kernel else 1)
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6, err_msg=variable.path)
    assert kernels == 7  # 2 convolutions, 4 projections of the attention, 1 dense layer
    assert len(before) == 7 + 7 + 2 * 3 + 1  # kernels, biases, scales and shifts, RMS scale


def _steps(optimizer: keras.optimizers.Optimizer, gradients: Any) -> tuple[Any, Any]:
    kernel = keras.Variable(np.array([1.0, -2.0], "float32"), name="kernel")
    bias = keras.Variable(np.array([0.5, 3.0], "float32"), name="bias")
    for gradient in gradients:
        g = tf.constant(gradient, "float32")
        optimizer.apply_gradients([(g, kernel), (g, bias)])
    return kernel.numpy(), bias.numpy()


def test_sgd_is_nesterov_with_decoupled_decay() -> None:
    gradients = RNG.normal(size=(4, 2))
    optimizer = make_optimizer(
        {
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "weight_decay": 0.05,
            "momentum": 0.8,
            "lr_schedule": "constant",
        },
        total_steps=4,
    )
    for got, start, decay in zip(
        _steps(optimizer, gradients), ([1.0, -2.0], [0.5, 3.0]), (0.05, 0.0), strict=True
    ):
        w, velocity = np.array(start), np.zeros(2)
        for g in gradients:
            w = w - 0.1 * decay * w
            velocity = 0.8 * velocity - 0.1 * g
            w = w + 0.8 * velocity - 0.1 * g
        np.testing.assert_allclose(got, w, rtol=1e-5)


def test_adamw_with_cosine_decays_by_the_scheduled_rate() -> None:
    gradients = RNG.normal(size=(4, 2))
    optimizer = make_optimizer(
        {"optimizer": "adamw", "learning_rate": 0.1, "weight_decay": 0.5, "lr_schedule": "cosine"},
        total_steps=8,
    )
    for got, start, decay in zip(
        _steps(optimizer, gradients), ([1.0, -2.0], [0.5, 3.0]), (0.5, 0.0), strict=True
    ):
        w, m, v = np.array(start), np.zeros(2), np.zeros(2)
        for t, g in enumerate(gradients):
            rate = 0.1 * (1 + math.cos(math.pi * t / 8)) / 2
            w = w - rate * decay * w
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            unbiased = m / (1 - 0.9 ** (t + 1)), v / (1 - 0.999 ** (t + 1))
            w = w - rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-7)
        np.testing.assert_allclose(got, w, rtol=1e-4)


@pytest.mark.parametrize(("name", "last"), [("cosine", 0.0), ("exponential", 0.003)])
def test_schedules_end_with_the_training(name: str, last: float) -> None:
    optimizer = make_optimizer({"learning_rate": 0.3, "lr_schedule": name}, total_steps=50)
    assert float(optimizer.learning_rate) == pytest.approx(0.3)
    optimizer.iterations.assign(50)
    assert float(optimizer.learning_rate) == pytest.approx(last, abs=1e-6)


def test_optimizer_takes_defaults() -> None:
    optimizer = make_optimizer({}, total_steps=10)
    assert isinstance(optimizer, keras.optimizers.AdamW)
    assert float(optimizer.learning_rate) == pytest.approx(1e-3)
    assert make_optimizer({"optimizer": "rmsprop", "momentum": 0.5}, total_steps=1).momentum == 0.5


@pytest.mark.parametrize(
    ("values", "steps", "rule"),
    [
        (
            {"optimizer": "adamv"},
            1,
            "`optimizer` must be one of adagrad, .*Did you mean adam, adamw",
        ),
        ({"lr_schedule": "step"}, 1, "`lr_schedule` must be one of constant, cosine, exponential"),
        ({"learning_rate": 0}, 1, r"`learning_rate` must be in \(0, inf\); got learning_rate=0"),
        ({"learning_rate": math.nan}, 1, "`learning_rate` must be in"),
        ({"weight_decay": -1}, 1, r"`weight_decay` must be in \[0, inf\); got weight_decay=-1"),
        ({"momentum": 1.0}, 1, r"`momentum` must be in \[0, 1\); got momentum=1.0"),
        ({}, 0, "`total_steps` must be at least 1; got 0"),
    ],
)
def test_optimizer_errors(values: dict[str, Any], steps: int, rule: str) -> None:
    with pytest.raises(OptionValueError, match=rule):
        make_optimizer(values, total_steps=steps)


# --- data -------------------------------------------------------------------------------------


def _numbers(batch_size: int, epoch_seed: int) -> tf.data.Dataset:
    """Ten rows whose inputs are the seed."""
    x, y = np.full((10, 1), epoch_seed, "float32"), np.zeros(10, "int32")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)


class _Seen(keras.callbacks.Callback):
    """Reads, after each epoch, the mean input of that epoch off a metric of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.means: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.means.append(logs["loss"])


def _input_as_loss() -> keras.Model:
    """A model that outputs its input, under a loss that is the output."""
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(inputs))
    model.compile(
        keras.optimizers.SGD(0.0),
        lambda _, output: keras.ops.mean(output, axis=-1),
        jit_compile=False,
    )
    return model


def test_a_factory_is_called_for_every_epoch() -> None:
    hypermodel = CatalogHyperModel(_input_as_loss)
    seen = _Seen()
    hp = keras_tuner.HyperParameters()
    hp.Fixed("batch_size", 4)
    model = _input_as_loss()
    hypermodel.fit(
        hp, model, _numbers, None, epochs=5, initial_epoch=2, seed=100, callbacks=[seen], verbose=0
    )
    assert seen.means == pytest.approx([102, 103, 104])
    assert int(model.optimizer.iterations) == 3 * 3


def test_epoch_batches_count_the_last_smaller_one() -> None:
    batches = EpochBatches(_numbers, 4, seed=7)
    assert batches.num_batches == 3
    assert [len(x) for x, _ in batches] == [4, 4, 2]


@pytest.mark.parametrize(("rows", "size", "steps"), [(200, 64, 4), (192, 64, 3), (5, 32, 1)])
def test_steps_per_epoch(rows: int, size: int, steps: int) -> None:
    data = np.zeros((rows, 2)), np.zeros(rows)
    assert steps_per_epoch(data, size) == steps
    assert steps_per_epoch(tf.data.Dataset.from_tensor_slices(data).batch(size), size) == steps


def test_data_set_without_length() -> None:
    endless = tf.data.Dataset.from_tensors(1).repeat()
    with pytest.raises(DataError, match="must know its number of batches"):
        steps_per_epoch(endless, 8)


def test_fit_arguments_of_each_kind() -> None:
    arrays, data_set = (np.zeros((8, 1)), np.zeros(8)), _numbers(4, 0)
    assert not is_batched(arrays)
    assert not is_batched(_numbers)
    assert is_batched(data_set)
    positional, options = fit_arguments(arrays, arrays, batch_size=4, seed=0)
    assert positional == arrays
    assert options == {"validation_data": arrays, "batch_size": 4, "callbacks": []}
    only = keras.callbacks.Callback()
    given = fit_arguments(data_set, None, batch_size=None, seed=0, callbacks=[only])
    assert given == ((data_set,), {"callbacks": [only]})
    (other,), _ = fit_arguments(data_set, None, batch_size=5, seed=0)
    assert [len(x) for x, _ in other] == [5, 5]  # tf.data can be batched anew
    _, options = fit_arguments(_numbers, _numbers, batch_size=5, seed=3)
    assert options["shuffle"] is False
    (x, _), _ = list(options["validation_data"])
    assert x.shape == (5, 1)


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (
            (np.zeros(3),),
            "must be \\(x, y\\) or \\(x, y, sample_weight\\), a data set, .* tuple of 1",
        ),
        ((np.zeros((3, 1)), np.zeros(4)), r"equally many rows; got \[3, 4\]"),
        ((np.zeros((0, 1)), np.zeros(0)), r"equally many rows; got \[0, 0\]"),
    ],
)
def test_arrays_that_do_not_fit(data: Any, rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        check_data("train", data)


def test_images_describe_themselves() -> None:
    x, labels = np.zeros((6, 8, 9, 3)), np.array([0, 1, 2, 2, 1, 0])
    arrays = describe_images((x, labels))
    assert (arrays.height, arrays.width, arrays.channels) == (8, 9, 3)
    assert (arrays.classes, arrays.one_hot) == (3, False)
    one_hot = x, np.eye(4)[[0, 1, 2, 3, 0, 1]]
    data_set = tf.data.Dataset.from_tensor_slices(one_hot).batch(2)
    for data in (one_hot, data_set, lambda *_: data_set):
        assert (describe_images(data).classes, describe_images(data).one_hot) == (4, True)


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        ((np.zeros((6, 8)), np.zeros(6, int)), r"Images must be \(B, H, W, C\); got \(6, 8\)"),
        ((np.zeros((2, 4, 4, 1)), np.zeros(2)), "must be integers from 0, or one-hot; got float64"),
        ((np.zeros((2, 4, 4, 1)), np.array([-1, 0])), "got int64 from -1 to 0"),
        (
            tf.data.Dataset.from_tensor_slices((np.zeros((2, 4, 4, 1)), [0, 1])).batch(1),
            "Integer labels in a data set do not tell the number of classes",
        ),
        (tf.data.Dataset.from_tensors((np.zeros((4, 4, 1)), 0)).take(0), "holds no batch"),
    ],
)
def test_data_that_describes_nothing(data: Any, rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        describe_images(data)


# --- hypermodels ------------------------------------------------------------------------------


def test_a_name_becomes_a_model_that_fits_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def create(name: str, **options: Any) -> keras.Model:
        asked.update(options, name=name)
        shape = (*options["input_size"], options["in_channels"])
        layers = [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(3)]
        return keras.Sequential(layers)

    monkeypatch.setattr("zoo.create_model", create, raising=False)
    monkeypatch.setattr("zoo.model_info", lambda _: SimpleNamespace(family="resnet"))
    train = np.zeros((6, 8, 9, 1), "float32"), np.array([0, 1, 2, 2, 1, 0])
    hypermodel = as_hypermodel("tiny", train, None)
    hypermodel.prepare(train, epochs=5)
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    assert asked == {
        "name": "tiny",
        "num_classes": 3,
        "input_size": (8, 9),
        "in_channels": 1,
        "stem": "small",
        "dropout": 0.1,
        "drop_path": 0.0,
    }
    # 6 images in batches of 16 are one step: the schedule ends after the 5 epochs.
    model.optimizer.iterations.assign(5)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.0, abs=1e-9)
    relative = {"relative_learning_rate", "relative_weight_decay"}
    assert set(hp.values) == (set(default_space("resnet")) | relative) - {"momentum"}
    assert model.evaluate(*train, verbose=0)[0] > 0  # integer labels suit the loss
    one_hot = train[0], np.eye(3)[train[1]]
    hypermodel = catalog_hypermodel("tiny", one_hot, {"dropout": Float(0, 0.5)})
    hypermodel.prepare(one_hot, epochs=1)
    assert hypermodel.build(keras_tuner.HyperParameters()).evaluate(*one_hot, verbose=0)[0] > 0


def test_hypermodel_errors() -> None:
    x, y = np.zeros((8, 1)), np.zeros(8, int)
    create = keras.Sequential
    with pytest.raises(UnknownModelError):
        as_hypermodel("no_such_model", (x, y), None)
    with pytest.raises(OptionValueError, match="`space` goes with the name of a catalog model"):
        as_hypermodel(keras.Sequential, (x, y), default_space())
    with pytest.raises(OptionValueError, match="a function build\\(hp\\), or a HyperModel; got 3"):
        as_hypermodel(3, (x, y), None)
    with pytest.raises(OptionValueError, match="`space` must map"):
        CatalogHyperModel(create, space={})
    with pytest.raises(OptionValueError, match="call prepare"):
        CatalogHyperModel(create).declare_hyperparameters(keras_tuner.HyperParameters())
    with pytest.raises(OptionValueError, match="Call prepare"):
        CatalogHyperModel(create, space=default_space()).build(keras_tuner.HyperParameters())
    batches = EpochBatches(_numbers, 4, seed=0)
    with pytest.raises(OptionValueError, match="`batch_size` cannot be tuned on a EpochBatches"):
        CatalogHyperModel(create, space=default_space()).prepare(batches, epochs=1)
    fixed = CatalogHyperModel(create, space={"batch_size": Fixed(4)})
    fixed.prepare(_numbers(4, 0), epochs=1)
    any_data = CatalogHyperModel(create)
    any_data.prepare((x, y), epochs=1)
    assert "batch_size" in any_data.space
    any_data.prepare(_numbers(4, 0), epochs=1)
    assert "batch_size" not in any_data.space


# --- progress ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (4.24, "4.2 s"), (65, "1:05"), (59.99, "60.0 s"), (7265, "2:01:05")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def _search(console: Console, *, quiet: bool = False) -> SearchProgress:
    with SearchProgress("val_loss", trials=4, quiet=quiet, console=console) as progress:
        progress.resume({1: 10.0}, 0.9)
        progress.trial_begin(2, epochs=3)
        progress.epoch_end(2, 1, 0.75)
        progress.trial_end(2, score=0.5, best=0.5, seconds=20.0, reason="")
        progress.trial_begin(3, epochs=3)
        progress.trial_end(3, score=None, best=0.5, seconds=0.0, reason="val_loss is nan")
    return progress


def test_search_lines() -> None:
    console = Console(file=io.StringIO(), width=200)
    progress = _search(console)
    assert progress.remaining() == pytest.approx(30 / 3)  # 1 trial left at the mean of 3
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "trial 2/4: val_loss 0.5000, 20.0 s, best 0.5000, about 30.0 s left",
        "trial 3/4: failed, val_loss is nan, 0.0 s, best 0.5000, about 10.0 s left",
    ]


def test_search_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    _search(console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("search", "trial 2", "val_loss 0.7500", "best 0.5000", "3/4", "about 10.0 s left"):
        assert part in shown
    assert shown.rstrip("\n").endswith("\x1b[?25h")  # the cursor is back


def test_a_trial_that_goes_on_counts_once() -> None:
    progress = SearchProgress("loss", trials=3, quiet=True)
    progress.trial_end(1, score=0.5, best=0.5, seconds=1.0, reason="")
    progress.trial_end(2, score=0.4, best=0.4, seconds=1.0, reason="")
    progress.trial_end(2, score=0.3, best=0.3, seconds=4.0, reason="")
    assert progress.remaining() == pytest.approx(3.0)  # one trial, at the mean of 1 and 5 seconds


def test_remaining_is_unknown_without_an_end() -> None:
    progress = SearchProgress("loss", trials=None, quiet=True)
    progress.resume({1: 1.0}, None)
    assert progress.remaining() is None


def _train(console: Console, *, fail: bool = False, **options: Any) -> TrainingProgress:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    x = np.zeros((4, 1))
    with TrainingProgress(console=console, **options) as progress:
        model.fit(x, x, epochs=5, initial_epoch=3, verbose=0, callbacks=[progress])
        if fail:
            raise KeyboardInterrupt
    return progress


def test_training_lines() -> None:
    console = Console(file=io.StringIO(), width=200)
    _train(console, metrics=["loss"])
    first, last = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert first.startswith("epoch 4/5: loss 0.0000, ")
    assert " left" in first
    assert last.startswith("epoch 5/5: loss 0.0000, ")
    assert " left" not in last


def test_training_on_a_terminal_survives_an_interrupt() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with pytest.raises(KeyboardInterrupt):
        _train(console, fail=True)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "epochs" in shown
    assert "5/5" in shown
    assert shown.rstrip("\n").endswith("\x1b[?25h")


def test_quiet_shows_nothing() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    _search(console, quiet=True)
    _train(console, quiet=True)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


# --- names ------------------------------------------------------------------------------------


def test_names_resolve_and_tune_stays_a_function() -> None:
    for name in tuning.__all__:
        assert getattr(tuning, name) is not None
    assert dir(tuning) == sorted(tuning.__all__)
    importlib.import_module("tuning.tune")
    assert callable(tuning.tune)
    for name in ("HyperModel", "HyperParameters", "Objective", "errors"):
        assert getattr(tuning, name) is getattr(keras_tuner, name)
    for name in ("RandomSearch", "GridSearch", "Hyperband", "BayesianOptimization", "ASHA", "TPE"):
        assert issubclass(getattr(tuning, name), keras_tuner.Tuner)
    with pytest.raises(AttributeError, match="no attribute 'SMAC'"):
        _ = tuning.SMAC


def test_import_is_light() -> None:
    heavy = "{'keras', 'keras_tuner', 'tensorflow', 'pandas', 'rich', 'numpy'}"
    code = f"import sys, tuning; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
