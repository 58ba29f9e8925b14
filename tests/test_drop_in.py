"""Scripts for KerasTuner, which run on `tuning` with nothing changed but the import.

Each runs on both packages, and what it asserts holds for both.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

import tuning
from zoo.errors import OptionValueError

pytestmark = [
    pytest.mark.tensorflow,
    # KerasTuner's tf.keras of the HParams callback, and its own saving of weights
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 4)).astype("float32")
Y = (X[:, 0] > 0).astype("int64")
DATA: dict[str, Any] = {"x": X, "y": Y, "validation_data": (X, Y), "epochs": 2, "verbose": 0}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """KerasTuner collects garbage before each trial, which takes longer than these trials."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)
    yield
    keras.backend.clear_session(free_memory=False)


STOCK = pytest.param(
    keras_tuner,
    id="keras_tuner",
    marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*shuffle=True:UserWarning")],
)


@pytest.fixture(params=[pytest.param(tuning, id="tuning"), STOCK])
def kt(request: pytest.FixtureRequest) -> Any:
    return request.param


def loads(package: Any) -> bool:
    """KerasTuner 1.4.8 cannot load weights that Keras 3.15 has saved with an optimizer."""
    return package is tuning


def classifier(units: int = 4, rate: float = 0.01, dropout: float = 0.0) -> keras.Model:
    layers: list[Any] = [keras.Input((4,)), keras.layers.Dense(units, activation="relu")]
    layers += [keras.layers.Dropout(dropout)] if dropout else []
    model = keras.Sequential([*layers, keras.layers.Dense(2, activation="softmax")])
    model.compile(
        keras.optimizers.Adam(rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def simple(hp: Any) -> keras.Model:
    return classifier(hp.Int("units", 2, 6, step=2), hp.Float("lr", 1e-3, 1e-1, sampling="log"))


def loss_of(model: keras.Model, rows: slice = slice(None)) -> float:
    probabilities = np.asarray(model(X[rows]))
    return float(-np.log(probabilities[np.arange(len(probabilities)), Y[rows]]).mean())


def without_training(tuner: Any) -> Any:
    """Has a tuner build the models of its trials and score them all the same."""

    def run_trial(trial: Any, **_: Any) -> float:
        tuner.hypermodel.build(trial.hyperparameters)
        return 1.0

    tuner.run_trial = run_trial
    return tuner


def trials_of(tuner: Any) -> list[dict[str, Any]]:
    return [trial.hyperparameters.values for trial in tuner.oracle.trials.values()]


# --- getting started --------------------------------------------------------------------------


def deep(hp: Any) -> keras.Model:
    """As many layers as the trial says, each with a width of its own."""
    model = keras.Sequential([keras.Input((4,))])
    for i in range(hp.Int("num_layers", 1, 3)):
        model.add(
            keras.layers.Dense(
                hp.Int(f"units_{i}", min_value=2, max_value=6, step=2),
                activation=hp.Choice("activation", ["relu", "tanh"]),
            )
        )
    if hp.Boolean("dropout"):
        model.add(keras.layers.Dropout(rate=0.25))
    model.add(keras.layers.Dense(2, activation="softmax"))
    rate = hp.Float("lr", min_value=1e-4, max_value=1e-2, sampling="log")
    model.compile(
        keras.optimizers.Adam(learning_rate=rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def test_getting_started(kt: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuner = kt.RandomSearch(
        hypermodel=deep,
        objective="val_accuracy",
        max_trials=2,
        executions_per_trial=2,
        overwrite=True,
        directory=tmp_path,
        project_name="helloworld",
        seed=1,
    )
    tuner.search_space_summary()
    space = capsys.readouterr().out
    for name in ("num_layers (Int)", "units_0 (Int)", "activation (Choice)", "dropout (Boolean)"):
        assert name in space
    tuner.search(X, Y, epochs=2, validation_data=(X, Y), verbose=0)
    tuner.results_summary(2)
    results = capsys.readouterr().out
    assert results.count("Hyperparameters:") == 2
    assert "Trial 0" in results
    scores = [trial.score for trial in tuner.oracle.get_best_trials(2)]
    assert scores == sorted(scores, reverse=True)
    best = tuner.get_best_hyperparameters(5)
    assert len(best) == 2
    assert best[0].values == tuner.oracle.get_best_trials()[0].hyperparameters.values
    if loads(kt):
        models = tuner.get_best_models(num_models=2)
        assert len(models) == 2
        again = deep(best[0])  # to train it with more data
        assert again.count_params() == models[0].count_params()
    assert (tmp_path / "helloworld").is_dir()


class Tuned(keras_tuner.HyperModel):
    """Tunes the training as well."""

    def build(self, hp: Any) -> keras.Model:
        return simple(hp)

    def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        size = hp.Choice("batch_size", [16, 32])
        return model.fit(*args, batch_size=size, shuffle=hp.Boolean("shuffle"), **kwargs)


@pytest.mark.parametrize("name", ["RandomSearch", "Hyperband", "GridSearch"])
def test_a_hypermodel_tunes_its_training(kt: Any, name: str, tmp_path: Path) -> None:
    limit = {"max_epochs": 3} if name == "Hyperband" else {"max_trials": 3}
    tuner = getattr(kt, name)(
        Tuned(), objective="val_loss", directory=tmp_path, overwrite=True, seed=2, **limit
    )
    tuner.search(**DATA)
    for values in trials_of(tuner)[1:]:  # the first may have begun without knowing of them
        assert values["batch_size"] in (16, 32)
        assert isinstance(values["shuffle"], bool)
    if loads(kt):
        score = tuner.oracle.get_best_trials()[0].score
        assert loss_of(tuner.get_best_models()[0]) == pytest.approx(score, rel=1e-4)


def test_what_fit_returns_is_the_score(kt: Any, tmp_path: Path) -> None:
    class Returns(keras_tuner.HyperModel):
        def __init__(self, *, named: bool) -> None:
            super().__init__()
            self.named = named

        def build(self, hp: Any) -> keras.Model:
            return classifier(hp.Choice("units", [2, 4]))

        def fit(self, hp: Any, model: keras.Model, x: Any, y: Any, **kwargs: Any) -> Any:
            width = float(hp.get("units"))
            return {"metric": width, "other": 1.0} if self.named else width

    tuner = kt.GridSearch(Returns(named=False), directory=tmp_path, project_name="a")
    tuner.search(X, Y, verbose=0)
    assert tuner.oracle.get_best_trials()[0].score == 2.0
    assert tuner.get_best_hyperparameters()[0].get("units") == 2
    goal = kt.Objective("metric", "max")
    tuner = kt.GridSearch(Returns(named=True), objective=goal, directory=tmp_path, project_name="b")
    tuner.search(X, Y, verbose=0)
    assert [trial.score for trial in tuner.oracle.get_best_trials(2)] == [4.0, 2.0]


def test_a_black_box(kt: Any, tmp_path: Path) -> None:
    class Parabola(kt.GridSearch):
        def run_trial(self, trial: Any, offset: float, **kwargs: Any) -> float:
            x = trial.hyperparameters.Float("x", min_value=-1.0, max_value=1.0, step=0.5)
            return float(x * x + offset)

    tuner = Parabola(directory=tmp_path, max_trials=9)
    tuner.search(2.0)
    assert sorted(values["x"] for values in trials_of(tuner)) == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert tuner.get_best_hyperparameters()[0].get("x") == 0.0
    assert tuner.oracle.get_best_trials()[0].score == 2.0


def test_a_tuner_may_extend_run_trial(kt: Any, tmp_path: Path) -> None:
    class Batches(kt.RandomSearch):
        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
            kwargs["batch_size"] = trial.hyperparameters.Int("batch_size", 16, 32, step=16)
            return super().run_trial(trial, *args, **kwargs)

    tuner = Batches(simple, "val_loss", max_trials=2, directory=tmp_path)
    tuner.search(**DATA)
    assert {values["batch_size"] for values in trials_of(tuner)} <= {16, 32}
    assert tuner.oracle.get_best_trials()[0].status == "COMPLETED"


def test_a_tuner_builds_and_fits_by_itself(kt: Any, tmp_path: Path) -> None:
    class Both(kt.RandomSearch):
        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
            hp = trial.hyperparameters
            model = self.hypermodel.build(hp)
            return self.hypermodel.fit(hp, model, *args, **kwargs)

    tuner = Both(simple, "val_loss", max_trials=2, directory=tmp_path)
    tuner.search(**DATA)
    assert [trial.status for trial in tuner.oracle.trials.values()] == ["COMPLETED"] * 2


def test_hooks_of_a_tuner(kt: Any, tmp_path: Path) -> None:
    heard: list[str] = []

    class Hears(kt.RandomSearch):
        def on_search_begin(self) -> None:
            heard.append("search begins")

        def on_trial_begin(self, trial: Any) -> None:
            heard.append("trial begins")

        def on_epoch_end(self, trial: Any, model: Any, epoch: int, logs: Any = None) -> None:
            heard.append(f"epoch {epoch} ends with {sorted(logs)[-1]}")

        def on_trial_end(self, trial: Any) -> None:
            super().on_trial_end(trial)
            heard.append(f"trial ends {self.oracle.get_trial(trial.trial_id).status}")

        def on_search_end(self) -> None:
            heard.append("search ends")

    Hears(simple, "val_loss", max_trials=1, directory=tmp_path).search(**DATA)
    assert heard == [
        "search begins",
        "trial begins",
        "epoch 0 ends with val_loss",
        "epoch 1 ends with val_loss",
        "trial ends COMPLETED",
        "search ends",
    ]


def test_a_search_is_picked_up(kt: Any, tmp_path: Path) -> None:
    first = kt.RandomSearch(simple, "val_loss", max_trials=2, directory=tmp_path, seed=1)
    first.search(**DATA)
    second = kt.RandomSearch(simple, "val_loss", max_trials=2, directory=tmp_path, seed=1)
    second.reload()
    assert trials_of(second) == trials_of(first)
    assert second.remaining_trials == 0
    second.search(**DATA)
    assert len(second.oracle.trials) == 2
    if loads(kt):
        models = [tuner.get_best_models()[0] for tuner in (first, second)]
        assert loss_of(models[0]) == loss_of(models[1])


# --- objectives -------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [True, False])
def test_objectives(kt: Any, listed: bool, tmp_path: Path) -> None:
    class Known(keras_tuner.HyperModel):
        def build(self, hp: Any) -> keras.Model:
            hp.Choice("a", [1, 2, 3])
            return classifier()

        def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
            return {"cost": hp.get("a") * 1.0, "gain": hp.get("a") * 3.0} | (
                {"multi_objective": hp.get("a") * -2.0} if listed else {}
            )

    cost, gain = kt.Objective("cost", "min"), kt.Objective("gain", "max")
    tuner = kt.GridSearch(Known(), [cost, gain] if listed else cost, directory=tmp_path)
    tuner.search()
    best = tuner.oracle.get_best_trials()[0]
    assert best.hyperparameters.get("a") == (3 if listed else 1)
    assert best.score == (-6.0 if listed else 1.0)


def test_a_list_of_objectives_of_fit(kt: Any, tmp_path: Path) -> None:
    goals = [kt.Objective("val_loss", "min"), kt.Objective("val_accuracy", "max")]
    tuner = kt.RandomSearch(simple, goals, max_trials=2, directory=tmp_path)
    tuner.search(**DATA)
    best = tuner.oracle.get_best_trials()[0]
    loss, accuracy = (best.metrics.get_best_value(name) for name in ("val_loss", "val_accuracy"))
    assert best.score == pytest.approx(loss - accuracy)
    if loads(kt):
        assert loss_of(tuner.get_best_models()[0]) == pytest.approx(loss, rel=1e-4)


def test_no_objective_needs_a_number(kt: Any, tmp_path: Path) -> None:
    tuner = kt.RandomSearch(simple, max_trials=1, directory=tmp_path)
    with pytest.raises(TypeError, match="single float when `objective` is left unspecified"):
        tuner.search(**DATA)


def test_a_tuner_without_model(kt: Any) -> None:
    with pytest.raises(ValueError, match="hypermodel=None"):
        kt.RandomSearch(objective="val_loss")


# --- a training loop of one's own -------------------------------------------------------------


class Loop(keras_tuner.HyperModel):
    """Trains by a tape, and calls its callbacks itself."""

    def build(self, hp: Any) -> keras.Model:
        units = hp.Int("units", 2, 6, step=2)
        return keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(units), keras.layers.Dense(1)]
        )

    def fit(
        self, hp: Any, model: keras.Model, x: Any, y: Any, callbacks: Any = None, **kwargs: Any
    ) -> float:
        batches = tf.data.Dataset.from_tensor_slices((x, y[:, None].astype("float32"))).batch(
            hp.Int("batch_size", 16, 32, step=16, default=32)
        )
        optimizer = keras.optimizers.SGD(hp.Float("learning_rate", 1e-3, 1e-1, sampling="log"))
        error = keras.losses.MeanSquaredError()
        mean = keras.metrics.Mean()
        for callback in callbacks:
            callback.set_model(model)
        best = float("inf")
        for epoch in range(kwargs.get("epochs", 2)):
            for rows, labels in batches:
                with tf.GradientTape() as tape:
                    loss = error(labels, model(rows))
                gradients = tape.gradient(loss, model.trainable_weights)
                optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
                mean.update_state(loss)
            value = float(mean.result())
            mean.reset_state()
            for callback in callbacks:
                callback.on_epoch_end(epoch, logs={"my_metric": value})
            best = min(best, value)
        return best


@pytest.mark.parametrize("name", ["RandomSearch", "Hyperband"])
def test_a_custom_training_loop(kt: Any, name: str, tmp_path: Path) -> None:
    limit = {"max_epochs": 3} if name == "Hyperband" else {"max_trials": 2}
    tuner = getattr(kt, name)(
        Loop(), kt.Objective("my_metric", "min"), directory=tmp_path, overwrite=True, **limit
    )
    tuner.search(X, Y)
    best = tuner.oracle.get_best_trials()[0]
    assert 0 < best.score < 100
    assert {"units", "batch_size", "learning_rate"} <= set(best.hyperparameters.values)
    model = tuner.get_best_models()[0]
    fresh = tuner.hypermodel.build(best.hyperparameters)
    assert model.count_params() == fresh.count_params()


# --- callbacks --------------------------------------------------------------------------------


def test_tensorboard_shows_every_trial(kt: Any, tmp_path: Path) -> None:
    tuner = kt.RandomSearch(simple, "val_loss", max_trials=2, directory=tmp_path / "search")
    board = keras.callbacks.TensorBoard(str(tmp_path / "logs"))
    tuner.search(**DATA, callbacks=[board])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    assert board.log_dir == str(tmp_path / "logs")
    folders = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert folders == sorted(tuner.oracle.trials)
    for name, trial in tuner.oracle.trials.items():
        execution = tmp_path / "logs" / name / "execution0"
        events = EventAccumulator(str(execution))
        events.Reload()
        content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
        noted = {key: value.number_value for key, value in start.hparams.items()}
        assert noted == pytest.approx(trial.hyperparameters.values)
        curve = EventAccumulator(str(execution / "validation"))
        curve.Reload()
        assert "epoch_loss" in curve.Tags()["tensors"]


def test_callbacks_of_keras(kt: Any, tmp_path: Path) -> None:
    rates: list[float] = []

    def schedule(epoch: int, rate: float) -> float:
        rates.append(rate)
        return 0.1 / (epoch + 1)

    callbacks = [
        keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=10.0),  # at once
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=1),
        keras.callbacks.ModelCheckpoint(str(tmp_path / "last.weights.h5"), save_weights_only=True),
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv"), append=True),
    ]
    tuner = kt.RandomSearch(simple, "val_loss", max_trials=2, directory=tmp_path)
    tuner.search(X, Y, validation_data=(X, Y), epochs=9, callbacks=callbacks, verbose=0)
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1", "0", "1"]
    assert (tmp_path / "last.weights.h5").exists()
    assert callbacks[0].model is None  # each training has its own
    tuner = kt.RandomSearch(simple, "val_loss", max_trials=1, directory=tmp_path, overwrite=True)
    tuner.search(**DATA, callbacks=[keras.callbacks.LearningRateScheduler(schedule)])
    assert rates[1] == pytest.approx(0.1)


def test_callbacks_must_be_copyable(kt: Any, tmp_path: Path) -> None:
    callback = keras.callbacks.LambdaCallback()
    callback.file = (tmp_path / "open").open("w")
    tuner = kt.RandomSearch(simple, "val_loss", max_trials=1, directory=tmp_path)
    with callback.file, pytest.raises(ValueError, match="deepcopy"):
        tuner.search(**DATA, callbacks=[callback])


# --- failed trials ----------------------------------------------------------------------------


def test_failed_trials_are_gone_over(kt: Any, tmp_path: Path) -> None:
    def build(hp: Any) -> keras.Model:
        if hp.Choice("units", [2, 4, 6]) == 4:
            raise kt.errors.FailedTrialError("4 is too large")
        return classifier(hp.get("units"))

    tuner = kt.GridSearch(build, "val_loss", max_retries_per_trial=3, directory=tmp_path)
    tuner.search(**DATA)
    statuses = {t.hyperparameters.get("units"): t.status for t in tuner.oracle.trials.values()}
    assert statuses == {2: "COMPLETED", 4: "FAILED", 6: "COMPLETED"}
    assert tuner.get_best_hyperparameters()[0].get("units") != 4


def test_invalid_trials_are_retried(kt: Any, tmp_path: Path) -> None:
    built: list[int] = []

    def build(hp: Any) -> keras.Model:
        units = hp.Choice("units", [2, 4])
        built.append(units)
        if built.count(units) < 3 and units == 4:
            raise ValueError("not yet")
        return classifier(units)

    tuner = kt.GridSearch(
        build, "val_loss", max_retries_per_trial=2, max_consecutive_failed_trials=9,
        directory=tmp_path,
    )  # fmt: skip
    without_training(tuner).search()
    assert built.count(4) == 3
    assert {trial.status for trial in tuner.oracle.trials.values()} == {"COMPLETED"}


def test_too_many_failures_end_the_search(kt: Any, tmp_path: Path) -> None:
    built: list[bool] = []

    def build(hp: Any) -> keras.Model:
        hp.Float("x", 0.0, 1.0)
        built.append(True)
        if len(built) > 1:
            raise ValueError("never")
        return classifier()

    tuner = kt.RandomSearch(
        build, "val_loss", max_trials=9, max_consecutive_failed_trials=2, directory=tmp_path
    )
    with pytest.raises(RuntimeError, match="consecutive"):
        without_training(tuner).search()
    assert len(built) == 3


def test_models_that_are_too_large(kt: Any, tmp_path: Path) -> None:
    def build(hp: Any) -> keras.Model:
        return classifier(hp.Choice("units", [2, 64]))

    tuner = kt.GridSearch(build, "val_loss", max_model_size=100, directory=tmp_path)
    tuner.search(**DATA)
    statuses = {t.hyperparameters.get("units"): t.status for t in tuner.oracle.trials.values()}
    assert statuses == {2: "COMPLETED", 64: "FAILED"}


# --- tailoring the space ----------------------------------------------------------------------


def test_a_part_of_the_space(kt: Any, tmp_path: Path) -> None:
    hp = kt.HyperParameters()
    hp.Float("lr", 1e-4, 1e-2, sampling="log")
    tuner = kt.RandomSearch(
        simple, "val_loss", hyperparameters=hp, tune_new_entries=False, max_trials=3,
        directory=tmp_path,
    )  # fmt: skip
    without_training(tuner).search()
    values = trials_of(tuner)
    assert {v["units"] for v in values} == {2}  # its default
    assert len({v["lr"] for v in values}) == 3
    assert all(v["lr"] <= 1e-2 for v in values)  # of the two spaces, the given one
    assert [p.name for p in hp.space] == ["lr"]


def test_some_values_are_fixed(kt: Any, tmp_path: Path) -> None:
    hp = kt.HyperParameters()
    hp.Fixed("lr", value=1e-4)
    tuner = kt.RandomSearch(
        simple, "val_loss", hyperparameters=hp, tune_new_entries=True, max_trials=3,
        directory=tmp_path, seed=1,
    )  # fmt: skip
    without_training(tuner).search()
    assert {v["lr"] for v in trials_of(tuner)} == {1e-4}
    assert len({v["units"] for v in trials_of(tuner)}) == 3


def test_no_other_values_are_allowed(kt: Any, tmp_path: Path) -> None:
    hp = kt.HyperParameters()
    hp.Int("units", 2, 6, step=2)
    with pytest.raises(RuntimeError, match="allow_new_entries"):
        kt.RandomSearch(
            simple, "val_loss", hyperparameters=hp, allow_new_entries=False, directory=tmp_path
        )


def test_compile_arguments_are_replaced(kt: Any, tmp_path: Path) -> None:
    compiled: list[keras.Model] = []

    class Keeps(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            compiled.append(self.model)

    tuner = kt.RandomSearch(
        lambda hp: classifier(hp.Int("units", 2, 6)),
        kt.Objective("val_sparse_categorical_accuracy", "max"),
        optimizer=keras.optimizers.SGD(0.5),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=["sparse_categorical_accuracy"],
        max_trials=1,
        directory=tmp_path,
    )
    tuner.search(**DATA, callbacks=[Keeps()])
    (model,) = compiled
    assert type(model.optimizer).__name__.endswith("SGD")
    assert float(model.optimizer.learning_rate) == 0.5
    assert 0 <= tuner.oracle.get_best_trials()[0].score <= 1


def test_conditional_scopes(kt: Any, tmp_path: Path) -> None:
    def build(hp: Any) -> keras.Model:
        kind = hp.Choice("model_type", ["wide", "deep"])
        with hp.conditional_scope("model_type", ["wide"]):
            if kind == "wide":
                return classifier(hp.Choice("width", [4, 8]))
        with hp.conditional_scope("model_type", ["deep"]):
            hp.Choice("depth", [1, 2, 3])
            return classifier()

    tuner = kt.GridSearch(build, "val_loss", directory=tmp_path)
    without_training(tuner).search()
    tried = [
        (v["model_type"], v["width"] if v["model_type"] == "wide" else v["depth"])
        for v in trials_of(tuner)
    ]
    assert sorted(tried) == [("deep", 1), ("deep", 2), ("deep", 3), ("wide", 4), ("wide", 8)]


# --- data and models --------------------------------------------------------------------------


class Subclassed(keras.Model):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.inner = keras.layers.Dense(units, activation="relu")
        self.outer = keras.layers.Dense(2, activation="softmax")

    def call(self, x: Any) -> Any:
        return self.outer(self.inner(x))


def subclassed(hp: Any) -> keras.Model:
    model = Subclassed(hp.Int("units", 2, 6))
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    return model


BATCHES = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(64, seed=1).batch(16)
HALF: dict[int, float] = {0: 1.0, 1: 0.0}


@pytest.mark.parametrize(
    ("build", "data"),
    [
        (simple, {"x": BATCHES, "validation_data": BATCHES}),
        (subclassed, {"x": BATCHES, "validation_data": BATCHES}),
        (subclassed, {"x": X, "y": Y, "validation_data": (X, Y)}),
        (simple, {"x": X, "y": Y, "validation_split": 0.25}),
        (simple, {"x": X, "y": Y, "validation_split": 0.25, "class_weight": HALF}),
        (simple, {"x": X, "y": Y, "sample_weight": np.ones(64), "validation_data": (X, Y)}),
        (simple, {"x": X, "y": Y, "validation_data": (X, Y, np.ones(64)), "batch_size": 16}),
        (simple, {"x": X, "y": Y, "validation_data": (X, Y), "steps_per_epoch": 1}),
    ],
    ids=["data set", "subclassed, data set", "subclassed", "split", "class weight", "weights",
         "validation weights", "steps"],
)  # fmt: skip
def test_data(kt: Any, build: Any, data: dict[str, Any], tmp_path: Path) -> None:
    tuner = kt.RandomSearch(build, "val_loss", max_trials=1, directory=tmp_path, seed=1)
    tuner.search(**data, epochs=1, verbose=0)
    (trial,) = tuner.oracle.trials.values()
    assert trial.message is None
    part = slice(48, 64) if "validation_split" in data else slice(0, 64)
    if loads(kt):
        assert loss_of(tuner.get_best_models()[0], part) == pytest.approx(trial.score, rel=1e-4)


def test_a_training_in_parts(kt: Any, tmp_path: Path) -> None:
    """First the head, then, compiled once more, the whole network."""

    class Parts(keras_tuner.HyperModel):
        def build(self, hp: Any) -> keras.Model:
            return classifier(4, hp.Choice("lr", [0.05, 0.1]))

        def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
            base = model.layers[0]
            base.trainable = False
            model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
            first = base.get_weights()
            model.fit(*args, **kwargs)
            frozen.append(all(map(np.array_equal, first, base.get_weights())))
            base.trainable = True
            rate = keras.optimizers.SGD(hp.get("lr"))
            model.compile(rate, "sparse_categorical_crossentropy", jit_compile=False)
            history = model.fit(*args, **kwargs)
            moved.append(not all(map(np.array_equal, first, base.get_weights())))
            epochs.append(len(history.history["val_loss"]))
            return history

    frozen: list[bool] = []
    moved: list[bool] = []
    epochs: list[int] = []
    tuner = kt.GridSearch(Parts(), "val_loss", directory=tmp_path)
    tuner.search(**DATA)
    assert (frozen, moved, epochs) == ([True] * 2, [True] * 2, [2, 2])


def test_grids_are_the_same(tmp_path: Path) -> None:
    tried = []
    for package in (keras_tuner, tuning):
        tuner: Any = package.GridSearch(
            deep, "val_loss", max_trials=12, directory=tmp_path / package.__name__
        )
        without_training(tuner).search()
        tried.append(trials_of(tuner))
    assert tried[0] == tried[1]


def test_other_arguments_are_unknown(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_trails"):
        tuning.RandomSearch(simple, "val_loss", max_trails=3, directory=tmp_path)
    with pytest.raises(OptionValueError, match="`seed` must be in"):
        tuning.RandomSearch(simple, "val_loss", seed=-1, directory=tmp_path)
