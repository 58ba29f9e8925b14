"""Searches: what they try, what they keep, and what they survive.

Most run on `Curve`, whose learning curve is a formula, so that the best trial is known.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest

from tuning import CatalogHyperModel, Choice, Float, Space, TuningResult, sample, tune
from tuning.oracles import ALGORITHMS
from tuning.store import write_json
from tuning.tuners import CHECKPOINT
from zoo.errors import DataError, OptionValueError, RunError

# Keras 3.15 saves weights through TensorFlow arrays whose __array__ predates NumPy 2.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


COLLECT = gc.collect


@pytest.fixture(autouse=True)
def _no_garbage_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """KerasTuner collects garbage twice before each trial, which takes longer than these trials."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


@pytest.fixture(autouse=True)
def _session() -> Iterator[None]:
    yield
    keras.backend.clear_session(free_memory=False)


Epoch = Callable[[dict[str, Any], int], None]


def untrained() -> keras.Model:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.stop_training = False
    return model


class Curve(keras_tuner.HyperModel):
    """Reports val_loss = x + units + 1 / epoch without training."""

    def __init__(self, at: Epoch | None = None) -> None:
        super().__init__()
        self.at = at  # called with the values and the epoch, before the epoch ends
        self.started: list[float] = []  # x of every trial that was run

    def build(self, hp: Any) -> keras.Model:
        hp.Float("x", 0.0, 1.0)
        hp.Choice("units", [1, 2, 3])
        return untrained()

    def fit(self, hp: Any, model: keras.Model, *args: Any, **options: Any) -> Any:
        self.started.append(hp.values["x"])
        history = keras.callbacks.History()
        callbacks = [history, *options["callbacks"]]
        for callback in callbacks:
            callback.set_model(model)
        history.on_train_begin()
        for epoch in range(options.get("initial_epoch", 0), options["epochs"]):
            model.set_weights([np.full((1, 1), epoch), np.zeros(1)])
            if self.at is not None:
                self.at(hp.values, epoch)
            for callback in callbacks:
                callback.on_epoch_end(epoch, self.logs(hp.values, epoch))
            if model.stop_training:
                break
        return history

    def logs(self, values: dict[str, Any], epoch: int) -> dict[str, float]:
        return {"loss": 0.5, "val_loss": score(values, epoch)}


def score(values: dict[str, Any], epoch: int) -> float:
    return float(values["x"] + values["units"] + 1 / (epoch + 1))


def search(model: Any = None, **options: Any) -> TuningResult:
    options = {"trials": 4, "max_epochs": 2, "quiet": True} | options
    return tune(Curve() if model is None else model, None, None, **options)


def outcome(result: TuningResult) -> list[dict[str, Any]]:
    """What two equal searches share: everything but the time."""
    return result.leaderboard().drop(columns="seconds").to_dict("records")  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    search(trials=2, directory=folder)
    return folder


# --- what is found ----------------------------------------------------------------------------


def test_the_best_trial_is_the_best_of_the_formula() -> None:
    result = search(trials=6, max_epochs=3)
    table = result.leaderboard()
    assert list(table.columns) == [
        "rank",
        "trial",
        "score",
        "status",
        "seconds",
        "epochs",
        "x",
        "units",
    ]
    # The curve falls, so that the last of 3 epochs scores.
    np.testing.assert_allclose(table.score, table.x + table.units + 1 / 3)
    assert list(table.score) == sorted(table.score)
    assert list(table["rank"]) == [1, 2, 3, 4, 5, 6]
    assert sorted(table.trial) == list("012345")
    assert set(table.status) == {"completed"}
    assert set(table.epochs) == {3}
    assert result.best_hyperparameters == {"x": table.x[0], "units": table.units[0]}
    assert (result.objective, result.direction) == ("val_loss", "min")
    assert result.seconds == pytest.approx(table.seconds.sum())
    for trial, x, units in zip(table.trial, table.x, table.units, strict=True):
        curve = [x + units + 1 / epoch for epoch in (1, 2, 3)]
        np.testing.assert_allclose(result.histories[trial]["val_loss"], curve)
        assert result.histories[trial]["loss"] == [0.5] * 3
    assert f"best val_loss={table.score[0]:.4f} in trial {table.trial[0]}" in repr(result)


def test_best_epoch_is_kept_and_the_direction_may_be_given() -> None:
    class Hill(Curve):
        def logs(self, values: dict[str, Any], epoch: int) -> dict[str, float]:
            return {"loss": 1.0, "val_f1": values["x"] - abs(epoch - 1)}

    goal = keras_tuner.Objective("val_f1", "max")
    result = search(Hill(), objective=goal, max_epochs=4)
    table = result.leaderboard()
    np.testing.assert_allclose(table.score, table.x)
    assert list(table.score) == sorted(table.score, reverse=True)
    assert result.best_model().get_weights()[0][0, 0] == 1  # set to the epoch while "training"


def test_a_grid_is_searched_whole() -> None:
    class Small(Curve):
        def build(self, hp: Any) -> keras.Model:
            hp.Fixed("x", 0.25)
            hp.Choice("units", [1, 2, 3])
            return untrained()

    result = search(Small(), algorithm="grid", trials=None)
    assert list(result.leaderboard().units) == [1, 2, 3]


def test_hyperband_promotes_the_best_and_drops_the_rest(tmp_path: Path) -> None:
    model = Curve()
    kept: list[set[str]] = []
    model.at = lambda *_: kept.append({p.parent.name for p in tmp_path.rglob(CHECKPOINT)})
    result = search(model, algorithm="hyperband", trials=None, max_epochs=3, directory=tmp_path)
    # max_epochs=3, factor 3: a bracket of 3 trials of 1 epoch and 1 of the 3, then 2 of 3 epochs.
    trials = result._tuner.oracle.trials
    values = [trials[name].hyperparameters.values for name in sorted(trials)]
    assert [(v["tuner/initial_epoch"], v["tuner/epochs"]) for v in values] == [
        (0, 1), (0, 1), (0, 1), (1, 3), (0, 3), (0, 3),
    ]  # fmt: skip
    first_round = [v["x"] + v["units"] for v in values[:3]]
    assert values[3]["x"] + values[3]["units"] == min(first_round)
    assert max(map(len, kept)) == 4  # a round that is not decided, and the trial that goes on
    assert len(list(tmp_path.rglob(CHECKPOINT))) == 1
    assert result.best_model().get_weights()[0][0, 0] == 2
    assert not [name for name in result.best_hyperparameters if name.startswith("tuner/")]


def test_only_the_best_checkpoint_stays(tmp_path: Path) -> None:
    model = Curve()
    at_start: list[int] = []
    model.at = lambda *_: at_start.append(len(list(tmp_path.rglob(CHECKPOINT))))
    result = search(model, directory=tmp_path, max_epochs=1, trials=5)
    assert at_start == [0, 1, 1, 1, 1]
    (checkpoint,) = tmp_path.rglob(CHECKPOINT)
    assert checkpoint.parent.name == f"trial_{result.leaderboard().trial[0]}"
    checkpoint.unlink()
    with pytest.raises(RunError, match=r"weights of trial \d are gone"):
        result.best_model()


def test_a_temporary_folder_goes_with_the_result() -> None:
    result = search(trials=1)
    folder = Path(result._tuner.project_dir)
    assert folder.exists()
    del result
    COLLECT()
    assert not folder.parent.exists()


def test_columns_of_the_leaderboard_are_not_overwritten() -> None:
    class Epochs(Curve):
        def build(self, hp: Any) -> keras.Model:
            hp.Choice("epochs", [7, 8])
            return super().build(hp)

    table = search(Epochs(), trials=2).leaderboard()
    assert set(table.epochs) == {2}
    assert set(table["epochs (hyperparameter)"]) <= {7, 8}


# --- seeds ------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
DATA = X, (X[:, 0] > 0).astype("int64")
SPACE: Space = {
    "learning_rate": Float(1e-3, 1e-1, log=True),
    "dropout": Float(0.1, 0.5),
    "optimizer": Choice(("sgd", "adamw")),
    "batch_size": Choice((50, 100)),
}


def mlp(dropout: float) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(2),
        ]
    )


def test_same_seed_same_training() -> None:
    runs = []
    for state in (1, 2):
        np.random.seed(state)  # noqa: NPY002 - the global state that must not matter
        model = CatalogHyperModel(mlp, space=SPACE)
        result = tune(model, DATA, DATA, trials=2, max_epochs=1, quiet=True)
        best = result.best_model()
        runs.append((str(outcome(result)), result.histories, best.get_weights()))
    assert runs[0][:2] == runs[1][:2]
    for first, second in zip(runs[0][2], runs[1][2], strict=True):
        np.testing.assert_array_equal(first, second)
    assert result.objective == "val_accuracy"
    accuracy = best.evaluate(*DATA, verbose=0)[1]
    assert accuracy == pytest.approx(result.leaderboard().score[0])
    assert result.best_hyperparameters.keys() == SPACE.keys()


def test_seeds_differ_and_zero_is_one() -> None:
    runs = [[row["x"] for row in outcome(search(seed=seed, trials=2))] for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert len({*runs[0], *runs[2]}) == 4  # not even shifted against each other


def test_every_trial_has_its_own_weights() -> None:
    class Initial(Curve):
        def fit(self, hp: Any, model: keras.Model, *args: Any, **options: Any) -> Any:
            initial.append(float(model.get_weights()[0][0, 0]))
            return super().fit(hp, model, *args, **options)

    initial: list[float] = []
    search(Initial(), trials=3)
    search(Initial(), trials=3, algorithm="grid")
    assert initial[:3] == initial[3:]
    assert len(set(initial)) == 3


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "grid", "hyperband"])
def test_the_first_trial_of_a_space_takes_its_defaults(algorithm: str) -> None:
    oracle = ALGORITHMS[algorithm].create("val_loss", trials=20, max_epochs=3, seed=1)
    oracle.defaults_first = True
    hp = oracle.get_space()
    sample(hp, SPACE)
    oracle.update_space(hp)
    values = oracle.populate_space("00")["values"]
    assert values["learning_rate"] == pytest.approx(1e-2)
    assert values["dropout"] == pytest.approx(0.3)
    assert (values["optimizer"], values["batch_size"]) == ("sgd", 50)


def test_mixed_precision_outlives_the_cleared_session() -> None:
    policies = []

    class Policy(Curve):
        def build(self, hp: Any) -> keras.Model:
            policies.append(keras.config.dtype_policy().name)
            return super().build(hp)

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        search(Policy(), trials=2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert set(policies) == {"mixed_bfloat16"}


# --- interruptions ----------------------------------------------------------------------------


def interrupted(trial: int) -> Curve:
    """A model that interrupts the search before the second epoch of a trial, counted from 0."""

    def at(_: dict[str, Any], epoch: int) -> None:
        if len(model.started) == trial + 1 and epoch == 1:
            raise KeyboardInterrupt

    model = Curve(at)
    return model


@pytest.mark.parametrize(
    ("algorithm", "trial"),
    [("random", 0), ("random", 3), ("grid", 0), ("grid", 3), ("hyperband", 3), ("bayesian", 3)],
)
def test_a_resumed_search_equals_one_never_interrupted(
    algorithm: str, trial: int, tmp_path: Path
) -> None:
    trials = 5 if algorithm == "bayesian" else 4  # the last two are not random
    options = {"algorithm": algorithm, "trials": trials, "max_epochs": 3, "seed": 3}
    whole = search(directory=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        search(interrupted(trial), directory=tmp_path / "broken", **options)
    rest = Curve()
    resumed = search(rest, directory=tmp_path / "broken", **options)
    assert str(outcome(resumed)) == str(outcome(whole))
    assert resumed.histories == whole.histories
    assert len(rest.started) == trials - trial  # finished trials are not run again
    assert resumed.seconds == pytest.approx(resumed.leaderboard().seconds.sum())


@pytest.mark.parametrize("algorithm", ["random", "grid"])
def test_more_trials_on_resume(algorithm: str, tmp_path: Path) -> None:
    whole = search(algorithm=algorithm, trials=5)
    search(algorithm=algorithm, trials=3, directory=tmp_path)
    model = Curve()
    resumed = search(model, algorithm=algorithm, trials=5, directory=tmp_path)
    assert len(model.started) == 2
    assert str(outcome(resumed)) == str(outcome(whole))


@pytest.mark.parametrize(
    ("algorithm", "write"), [*(("random", write) for write in range(18)), ("grid", 15)]
)
def test_an_interruption_before_any_write(
    algorithm: str, write: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start writes 2 files and a trial 8; two trials are done or begun when it happens."""
    writes = []

    def interrupted_write(path: Any, content: Any) -> None:
        writes.append(path)
        if len(writes) == write + 1:
            raise KeyboardInterrupt
        write_json(path, content)

    options = {"algorithm": algorithm, "max_epochs": 1, "trials": 2 if algorithm == "random" else 3}
    with monkeypatch.context() as patch:
        patch.setattr("tuning.oracles.write_json", interrupted_write)
        patch.setattr("tuning.tuners.write_json", interrupted_write)
        with pytest.raises(KeyboardInterrupt):
            search(directory=tmp_path, **options)
    states = [json.loads(path.read_text()) for path in tmp_path.glob("search/trial_*/trial.json")]
    done = sum(state["status"] == "COMPLETED" for state in states)
    model = Curve()
    resumed = search(model, directory=tmp_path, **options)
    assert len(model.started) == options["trials"] - done
    assert str(outcome(resumed)) == str(outcome(search(**options)))


def test_part_of_a_bayesian_search_is_random() -> None:
    for trials, random in ((5, 3), (30, 10), (300, 20), (None, None)):
        oracle = ALGORITHMS["bayesian"].create("val_loss", trials=trials, max_epochs=1, seed=1)
        assert oracle.num_initial_points == random


def test_time_budget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = [0.0]
    monkeypatch.setattr("tuning.tuners.monotonic", lambda: clock[0])

    def at(_: dict[str, Any], epoch: int) -> None:
        clock[0] += 10  # seconds per epoch

    options = {"trials": 5, "max_epochs": 4, "directory": tmp_path}
    result = search(Curve(at), time_budget=65, **options)
    table = result.leaderboard().sort_values("trial")
    assert list(table.epochs) == [4, 3]  # the second passes 65 s in its third epoch
    assert list(table.status) == ["completed", "stopped"]
    assert list(table.seconds) == [40, 30]
    np.testing.assert_allclose(table.score, table.x + table.units + [1 / 4, 1 / 3])
    table = search(Curve(at), time_budget=80, **options).leaderboard()  # of this session
    assert len(table) == 4
    assert sorted(table.status) == ["completed"] * 3 + ["stopped"]
    # A trial that is complete when the time is up was not stopped.
    result = search(Curve(at), time_budget=40, max_epochs=4, trials=None)
    assert list(result.leaderboard().status) == ["completed"]


def test_no_time_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr("tuning.tuners.monotonic", lambda: next(ticks))
    with pytest.raises(RunError, match="No trial was begun within `time_budget`"):
        search(time_budget=0.5)


# --- failures ---------------------------------------------------------------------------------


def test_failed_trials_do_not_end_the_search(capsys: pytest.CaptureFixture[str]) -> None:
    def at(values: dict[str, Any], epoch: int) -> None:
        if len(model.started) in (1, 3, 4, 5, 6):
            raise ValueError(f"epoch {epoch} is bad\nand more")

    model = Curve(at)
    result = search(model, trials=7, quiet=False)
    table = result.leaderboard()
    assert list(table.status) == ["completed"] * 2 + ["failed"] * 5
    assert list(table["rank"][:2]) == [1, 2]
    assert table["rank"][2:].isna().all()
    assert table.score[2:].isna().all()
    assert result.failures == dict.fromkeys("02345", "ValueError: epoch 0 is bad")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 7
    assert lines[0].startswith("trial 1/7: failed, ValueError: epoch 0 is bad, ")
    assert lines[1].startswith("trial 2/7: val_loss ")
    assert " left" in lines[1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_trial_that_diverges_fails_at_once(value: float) -> None:
    class Diverging(Curve):
        def logs(self, values: dict[str, Any], epoch: int) -> dict[str, float]:
            bad = len(self.started) == 2 and epoch == 1
            return super().logs(values, epoch) | ({"val_loss": value} if bad else {})

    result = search(Diverging(), trials=3, max_epochs=5)
    assert result.failures == {"1": f"val_loss is {value} in epoch 2"}
    assert len(result.histories["1"]["val_loss"]) == 2
    assert list(result.leaderboard().status) == ["completed", "completed", "failed"]


def test_a_score_that_is_nan_fails_the_trial() -> None:
    class Once(Curve):
        def fit(self, hp: Any, model: keras.Model, *args: Any, **options: Any) -> Any:
            super().fit(hp, model, *args, **options)
            return math.nan if len(self.started) == 1 else 0.25

    result = search(Once(), trials=2)
    assert result.failures == {"0": "val_loss is nan"}
    assert result.leaderboard().score[0] == 0.25


def test_all_trials_fail() -> None:
    def at(values: dict[str, Any], epoch: int) -> None:
        raise MemoryError(f"trial {len(model.started)} is too large")

    model = Curve(at)
    with pytest.raises(RunError, match=r"^All 5 trials failed; trial 0: MemoryError: trial 1 is"):
        search(model, trials=5)
    assert len(model.started) == 5


# --- folders that cannot be used --------------------------------------------------------------

FILES = ["oracle.json", "search.json", "settings.json", "trial_1/trial.json", "trial_1/record.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_torn_file_is_named(name: str, finished: Path) -> None:
    path = finished / "search" / name
    whole = path.read_bytes()
    try:
        for torn in (whole[: len(whole) // 2] if len(whole) > 2 else b"{", b"", b"\xff\xfe"):
            path.write_bytes(torn)
            with pytest.raises(RunError, match=rf"search/{name} is cut off .*resume=False") as info:
                search(trials=2, directory=finished)
            assert not isinstance(info.value, ValueError)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["oracle.json", "trial_1/trial.json"])
def test_a_state_that_is_not_complete(name: str, finished: Path) -> None:
    path = finished / "search" / name
    whole = path.read_bytes()
    try:
        path.write_text("{}")
        with pytest.raises(RunError, match="cannot go on: its state is not complete"):
            search(trials=2, directory=finished)
    finally:
        path.write_bytes(whole)


def test_other_settings_are_another_search(finished: Path) -> None:
    with pytest.raises(
        RunError, match="has algorithm='random', seed=0, got algorithm='grid', seed=1"
    ):
        search(trials=2, directory=finished, algorithm="grid", seed=1)
    assert len(search(trials=2, directory=finished).histories) == 2  # nothing was lost


def test_a_foreign_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search/thesis.txt").write_text("precious")
    for resume in (True, False):
        with pytest.raises(RunError, match="it is no search of this package"):
            search(directory=tmp_path, resume=resume)
    assert (tmp_path / "search/thesis.txt").read_text() == "precious"


def test_resume_false_starts_again(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    search(directory=tmp_path, trials=3)
    model = Curve()
    result = search(model, directory=tmp_path, trials=2, resume=False, seed=1)
    assert len(model.started) == len(result.histories) == 2
    assert (tmp_path / "notes.txt").exists()


# --- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"algorithm": "asha"}, "one of random, grid, hyperband, bayesian; got algorithm='asha'"),
        ({"algorithm": "tpe"}, "`algorithm` must be one of"),
        ({"algorithm": "bohb"}, "`algorithm` must be one of"),
        ({"algorithm": "bayes"}, "Did you mean bayesian"),
        ({"workers": 2}, "`workers` must be 1, .* got workers=2"),
        ({"workers": "ray"}, "got workers='ray'"),
        ({"trials": 0}, "`trials` must be a whole number of at least 1; got trials=0"),
        ({"trials": 2.5}, "`trials` must be a whole number"),
        ({"trials": None}, "`trials` must be a number with algorithm='random'"),
        ({"max_epochs": 0}, "`max_epochs` must be a whole number of at least 1"),
        ({"seed": -1}, "`seed` must be a whole number of at least 0; got seed=-1"),
        ({"time_budget": 0}, "`time_budget` must be above 0 seconds"),
        ({"objective": "val_f1"}, "direction is known, .* got objective='val_f1'"),
        ({"objective": ["val_loss"]}, "`objective` must be a metric"),
        (
            {"objective": keras_tuner.Objective("a", "up")},
            "`objective` must be a metric .* got objective='a'",
        ),
        (
            {"objective": "val_accuracy"},
            "`objective` must be one of loss, val_loss; got objective=",
        ),
        (
            {"algorithm": "hyperband", "max_epochs": 9, "trials": 12},
            "`trials` must be at least 13 with algorithm='hyperband' and max_epochs=9",
        ),
    ],
)
def test_option_errors(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(OptionValueError, match=rule):
        search(**options)


def test_unknown_metric_ends_the_first_epoch() -> None:
    def build(hp: Any) -> keras.Model:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(hp.Float("rate", 1e-4, 1e-2)), "mse", jit_compile=False)
        return model

    with pytest.raises(OptionValueError, match="must be one of loss; got objective='val_loss'"):
        tune(build, DATA, None, trials=2, max_epochs=10_000, quiet=True)


def test_a_model_that_is_built_by_its_data() -> None:
    def build(hp: Any) -> keras.Model:
        model = keras.Sequential([keras.layers.Dense(1)])  # no input shape
        model.compile(keras.optimizers.SGD(hp.Float("rate", 1e-4, 1e-2)), "mse", jit_compile=False)
        return model

    result = tune(build, DATA, DATA, trials=1, max_epochs=1, quiet=True)
    best = result.best_model().evaluate(*DATA, verbose=0)
    assert best == pytest.approx(result.leaderboard().score[0], rel=1e-5)


def test_a_fit_must_return_the_objective() -> None:
    class Returns(Curve):
        result: Any = None

        def fit(self, hp: Any, model: keras.Model, *args: Any, **options: Any) -> Any:
            super().fit(hp, model, *args, **options)
            return self.result

    with pytest.raises(OptionValueError, match="return value of HyperModel"):
        search(Returns())


def test_build_must_return_a_model() -> None:
    with pytest.raises(OptionValueError, match="to return a valid Keras Model"):
        search(lambda hp: hp.Float("x", 0, 1))


def test_data_is_checked() -> None:
    with pytest.raises(DataError, match="`train` must have equally many rows"):
        tune(Curve(), (X, X[:3]), None)
    with pytest.raises(DataError, match="`validation` must be"):
        tune(Curve(), None, (X,))
