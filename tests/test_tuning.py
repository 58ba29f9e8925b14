"""Searches by `tune`: what they try, what they keep, and what ends them.

Most run on `Curve`, whose learning curve is a formula, so that the best trial is known.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest

from tests.learning_curve import Curve, outcome, search, untrained
from tuning import CatalogHyperModel, Choice, Float, Space, sample, tune
from tuning.checkpoint import BEST
from tuning.oracles import ALGORITHMS
from zoo.errors import DataError, OptionValueError, RunError


@pytest.fixture(autouse=True)
def _session() -> Iterator[None]:
    yield
    keras.backend.clear_session(free_memory=False)


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
    assert sorted(table.trial) == [f"000{number}" for number in range(6)]
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
    model.at = lambda *_: kept.append({p.parent.name for p in tmp_path.rglob(BEST)})
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
    assert len(list(tmp_path.rglob(BEST))) == 1
    assert result.best_model().get_weights()[0][0, 0] == 2
    assert not [name for name in result.best_hyperparameters if name.startswith("tuner/")]


@pytest.mark.parametrize("keep", [0, 1, 2, None])
def test_only_the_best_weights_stay(keep: int | None, tmp_path: Path) -> None:
    model = Curve()
    most: list[int] = []
    model.at = lambda *_: most.append(len(list(tmp_path.rglob(BEST))))
    result = search(model, directory=tmp_path, max_epochs=1, trials=5, keep=keep)
    assert max(most) == {0: 0, 1: 1, 2: 2, None: 4}[keep]  # before the first epoch of the last
    kept = {path.parent.name for path in tmp_path.rglob(BEST)}
    assert kept == {f"trial_{name}" for name in result.leaderboard().trial[:keep]}
    assert {path.name for path in (tmp_path / "search").glob("trial_*")} == kept
    if not keep:
        for path in tmp_path.rglob(BEST):
            path.unlink()
        with pytest.raises(RunError, match=r"The weights are gone: .* see `keep`"):
            result.best_model()


def test_weights_that_are_not_the_model_s(tmp_path: Path) -> None:
    result = search(trials=1, directory=tmp_path)
    (path,) = tmp_path.rglob(BEST)
    path.write_bytes(b"torn")
    with pytest.raises(RunError, match="are damaged"):
        result.best_model()


def test_what_a_result_writes(tmp_path: Path) -> None:
    def at(values: dict[str, Any], epoch: int) -> None:
        if len(model.started) == 2:
            raise ValueError("not this one")

    model = Curve(at)
    result = search(model, directory=tmp_path, keep=None)
    summary = result.summary()
    assert summary.algorithm == "random"
    assert [trial.trial for trial in summary.trials] == ["0000", "0001", "0002", "0003"]
    assert [trial.status for trial in summary.trials].count("failed") == 1
    assert summary.trials[1].reason == "ValueError: not this one"
    assert summary.ranked()[0].values == result.best_hyperparameters
    files = [path for path in (tmp_path / "search").rglob("*") if path.is_file()]
    assert summary.disk_bytes == sum(path.stat().st_size for path in files)
    page = result.report(tmp_path / "page.html").read_text()
    assert "not this one" in page
    folder = result.hparams(tmp_path / "board")
    assert len(list(folder.glob("**/events*"))) == 1 + 4


def test_a_temporary_folder_goes_with_the_result() -> None:
    result = search(trials=1)
    folder = Path(result._tuner.project_dir)
    assert folder.exists()
    del result
    gc.collect()
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
        result = tune(model, DATA, DATA, trials=2, max_epochs=1, algorithm="random", quiet=True)
        best = result.best_model()
        runs.append((outcome(result), result.histories, best.get_weights()))
    assert runs[0][:2] == runs[1][:2]
    for first, second in zip(runs[0][2], runs[1][2], strict=True):
        np.testing.assert_array_equal(first, second)
    assert result.objective == "val_accuracy"
    accuracy = best.evaluate(*DATA, verbose=0)[1]
    assert accuracy == pytest.approx(result.leaderboard().score[0])
    assert result.best_hyperparameters.keys() == SPACE.keys()


def test_seeds_differ_and_zero_is_one() -> None:
    runs = [list(search(seed=seed, trials=2).leaderboard().x) for seed in (0, 0, 1)]
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


@pytest.mark.parametrize("algorithm", [*ALGORITHMS])
def test_the_first_trial_of_a_space_takes_its_defaults(algorithm: str) -> None:
    oracle = ALGORITHMS[algorithm].create("val_loss", trials=20, max_epochs=3, seed=1)
    oracle.defaults_first = True
    hp = oracle.get_space()
    sample(hp, SPACE)
    oracle.update_space(hp)
    values = oracle.populate_space("0000")["values"]
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


def test_part_of_a_bayesian_search_is_random() -> None:
    for trials, random in ((5, 3), (30, 10), (300, 20), (None, None)):
        oracle = ALGORITHMS["bayesian"].create("val_loss", trials=trials, max_epochs=1, seed=1)
        assert oracle.num_initial_points == random


def test_time_budget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = [0.0]
    for module in ("tuner", "engine"):
        monkeypatch.setattr(f"tuning.{module}.monotonic", lambda: clock[0])

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
    monkeypatch.setattr("tuning.tuner.monotonic", lambda: next(ticks))
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
    assert result.failures == dict.fromkeys(
        ["0000", "0002", "0003", "0004", "0005"], "ValueError: epoch 0 is bad"
    )
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
    assert result.failures == {"0001": f"val_loss is {value} in epoch 2"}
    assert len(result.histories["0001"]["val_loss"]) == 1  # epochs that count
    assert list(result.leaderboard().status) == ["completed", "completed", "failed"]


def test_a_score_that_is_nan_fails_the_trial() -> None:
    class Once(Curve):
        def fit(self, hp: Any, model: keras.Model, *args: Any, **options: Any) -> Any:
            super().fit(hp, model, *args, **options)
            return math.nan if len(self.started) == 1 else 0.25

    result = search(Once(), trials=2)
    assert result.failures == {"0000": "val_loss is not a number"}
    assert result.leaderboard().score[0] == 0.25


def test_all_trials_fail() -> None:
    def at(values: dict[str, Any], epoch: int) -> None:
        raise MemoryError(f"trial {len(model.started)} is too large")

    model = Curve(at)
    with pytest.raises(
        RunError, match=r"^All 5 trials failed; trial 0000: MemoryError: trial 1 is"
    ):
        search(model, trials=5)
    assert len(model.started) == 5


# --- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"algorithm": "smac"}, "one of random, .*, asha, tpe, bohb; got algorithm='smac'"),
        ({"algorithm": "bayes"}, "Did you mean bayesian"),
        ({"workers": 0}, "`workers` must be a number of processes of at least 1; got workers=0"),
        ({"workers": "ray"}, "got workers='ray'"),
        ({"plateau": 0}, "`plateau` must be at least 1 trial, or None; got plateau=0"),
        ({"keep": -1}, "`keep` must be at least 0, or None for all; got keep=-1"),
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
    with pytest.raises(OptionValueError, match=r"must return a compiled keras\.Model"):
        search(lambda hp: hp.Float("x", 0, 1))


def test_data_is_checked() -> None:
    with pytest.raises(DataError, match="`train` must have equally many rows"):
        tune(Curve(), (X, X[:3]), None)
    with pytest.raises(DataError, match="`validation` must be"):
        tune(Curve(), None, (X,))


# --- the default algorithm, and searches that stop by themselves ------------------------------


def test_asha_is_the_default_and_promotes() -> None:
    result = tune(Curve(), None, None, max_epochs=9, trials=9, quiet=True)
    table = result.leaderboard()
    assert len(table) == 9
    assert sorted(table.epochs)[:6] == [2] * 6
    assert 9 in set(table.epochs)
    best = table[table.epochs == 9].iloc[0]
    assert best.x + best.units == min(table.x + table.units)


def test_plateau_ends_a_search(capsys: pytest.CaptureFixture[str]) -> None:
    class Flat(Curve):
        def logs(self, values: dict[str, Any], epoch: int) -> dict[str, float]:
            return {"loss": 0.5, "val_loss": 1.0}

    result = search(Flat(), trials=20, plateau=3, quiet=False)
    assert len(result.histories) == 4
    assert "stopped: no better score in 3 trials" in capsys.readouterr().err


def test_curve_stopping_ends_hopeless_trials() -> None:
    class Slow(Curve):
        def logs(self, values: dict[str, Any], epoch: int) -> dict[str, float]:
            level = 0.1 if len(self.started) == 1 else 5.0
            return {"loss": 0.5, "val_loss": level + 1 / (epoch + 1)}

    result = search(Slow(), trials=2, max_epochs=30, curve_stopping=True)
    table = result.leaderboard().sort_values("trial")
    first, second = table.epochs
    assert (first, second < 30) == (30, True)
    assert list(table.status) == ["completed", "stopped"]
    assert "not expected to reach the best score" in result.summary().trials[1].reason
