"""What all search algorithms share, on fake learning curves: nothing is trained here."""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from types import SimpleNamespace
from typing import Any

import keras_tuner
import numpy as np
import pytest

from tests.fake_tuner import (
    MAX_EPOCHS,
    Events,
    Simulation,
    declare_space,
    fake_hopeless,
    full_space,
    make,
    small_space,
)
from tuning.oracle import SearchOracle
from tuning.oracles import (
    ALGORITHMS,
    BayesianOracle,
    GridOracle,
    RandomOracle,
)
from tuning.state import known_warnings_off
from zoo.errors import OptionValueError, RunError


@pytest.fixture(autouse=True)
def hopeless_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []
    fake = SimpleNamespace(hopeless=fake_hopeless(calls))
    monkeypatch.setitem(sys.modules, "tuning.extrapolation", fake)
    return calls


# Events


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("workers", [1, 3])
def test_a_search_interrupted_anywhere_ends_as_if_it_never_was(
    algorithm: str, workers: int
) -> None:
    trials = 6 if algorithm == "bayesian" else 9
    whole = Simulation(make(algorithm, trials=trials), workers=workers).run()
    stride = {"bayesian": 17, "hyperband": 5}.get(algorithm, 3 if algorithm != "random" else 1)
    for length in range(0, len(whole.events), stride * workers):
        oracle = make(algorithm, trials=trials)
        rest = Simulation(oracle, workers=workers, events=whole.events[:length]).run()
        if workers == 1:
            assert rest.events == whole.events
        ended = [event["trial"] for event in rest.events if event["event"] == "end"]
        replayed = Simulation(make(algorithm, trials=trials), events=rest.events).oracle
        assert ended[-1] == oracle.end_order[-1]
        assert snapshot(replayed) == snapshot(oracle)
    assert {trial.status for trial in whole.oracle.trials.values()} == {"COMPLETED"}
    assert whole.most_running == workers


def snapshot(oracle: SearchOracle) -> Any:
    trials = {name: trial.get_state() for name, trial in oracle.trials.items()}
    for state in trials.values():
        del state["hyperparameters"]["space"]
    state = (trials, oracle.histories, oracle.seconds, oracle.retries, oracle.end_order)
    space = oracle.hyperparameters.get_config()
    rest = (space, oracle.seed, oracle._tried_so_far, oracle._curves, oracle._spans)
    return json.loads(json.dumps((state, rest), default=sorted))


def test_an_event_is_written_before_it_counts() -> None:
    oracle = make("random")
    oracle.update_space(full_space())

    def full_disk(event: Any) -> None:
        raise OSError("no space left")

    oracle.journal = full_disk
    with pytest.raises(OSError, match="no space left"):
        oracle.create_trial("a")
    assert oracle.trials == {}
    assert oracle.ongoing_trials == {}


def test_an_unknown_event_is_an_error() -> None:
    with pytest.raises(RunError, match="unknown event"):
        make("random").apply({"event": "surprise"})


def test_nothing_else_is_saved() -> None:
    oracle = make("random")
    oracle.save()
    oracle.reload()
    assert oracle.trials == {}


def test_the_space_is_written_only_as_it_grows() -> None:
    run = Simulation(make("random", trials=20)).run()
    names = [
        [param["config"]["name"] for param in event["hyperparameters"]["space"]]
        for event in run.events
        if event["event"] == "space"
    ]
    # Nothing is known at first: the first trial has no values, its model brings the first two.
    assert names == [["x", "kind"], ["depth"]]
    assert run.values()[0] == {"x": 0.0, "kind": "plain"}


def test_an_interrupted_trial_goes_on_where_it_was() -> None:
    run = Simulation(make("random")).run()
    reported = [i for i, event in enumerate(run.events) if event["event"] == "epoch"]
    oracle = make("random")
    Simulation(oracle, events=run.events[: reported[13] + 1])
    assert oracle.interrupted == ["0001"]
    trial = oracle.create_trial("b")
    assert (trial.trial_id, trial.status) == ("0001", "RUNNING")
    assert oracle.epochs_of(trial) == (5, MAX_EPOCHS)
    assert oracle.create_trial("b").trial_id == "0002"


def test_rewind_and_repeated_epochs() -> None:
    oracle = make("random")
    trial = oracle.create_trial("a")
    for epoch in range(5):
        oracle.report(trial.trial_id, epoch, {"val_loss": float(epoch)}, 2.0)
    oracle.rewind(trial.trial_id, 2)
    assert oracle.epochs_of(trial) == (2, MAX_EPOCHS)
    assert oracle.histories["0000"] == {"val_loss": [0.0, 1.0]}
    oracle.report("0000", 2, {"val_loss": 7.0}, 2.0)
    oracle.report("0000", 1, {"val_loss": 8.0}, 2.0)  # a second execution begins
    assert oracle.histories["0000"] == {"val_loss": [0.0, 8.0]}
    assert oracle.seconds["0000"] == 14.0


def test_missing_metrics_are_nan_in_the_history_and_the_last_value_in_the_curve() -> None:
    oracle = make("random")
    oracle.create_trial("a")
    for epoch, logs in enumerate([{"loss": 3.0}, {"loss": 2.0, "val_loss": 5.0}, {"loss": 1.0}]):
        oracle.report("0000", epoch, logs)
    np.testing.assert_equal(oracle.histories["0000"]["val_loss"], [math.nan, 5.0])
    (seen,) = oracle.observations()
    assert seen.curve == (math.inf, 5.0, 5.0)
    assert seen.running


# Suggestions


def test_hyperparameters_a_model_adds_in_place_are_written() -> None:
    oracle = make("random")
    run = Simulation(oracle)
    trial = oracle.create_trial("a")
    declare_space(trial.hyperparameters)
    oracle.declare(trial.trial_id, trial.hyperparameters)
    assert run.events[-1] == {
        "event": "declare",
        "trial": "0000",
        "values": {"x": 0.0, "kind": "plain"},
    }


@pytest.mark.parametrize("algorithm", ["random", "grid"])
def test_the_number_of_workers_changes_no_trial(algorithm: str) -> None:
    one, two, three = (
        Simulation(make(algorithm, trials=12), workers=workers).run() for workers in (1, 2, 3)
    )
    assert len(one.values()) == 12
    assert one.values() == two.values() == three.values()
    assert [t.score for t in one.oracle.trials.values()] == [
        t.score for t in three.oracle.trials.values()
    ]


def test_seeds() -> None:
    draws = [
        Simulation(make("random", seed=seed)).run().values()[1:] for seed in (0, 0, 1, 2**32 - 1)
    ]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2] != draws[3]
    assert make("random", seed=0).seed == 0
    assert RandomOracle("val_loss").seed != RandomOracle("val_loss").seed
    for seed in (-1, 2**32):
        with pytest.raises(OptionValueError, match=r"`seed` must be in \[0, 2\*\*32\)"):
            RandomOracle("val_loss", seed=seed)


def test_a_drawn_seed_outlives_the_session() -> None:
    whole = Simulation(RandomOracle("val_loss", max_trials=5, max_epochs=2)).run()
    oracle = RandomOracle("val_loss", max_trials=5, max_epochs=2)
    rest = Simulation(oracle, events=whole.events[:12]).run()
    assert oracle.seed == whole.oracle.seed
    assert rest.events == whole.events


def test_grid_is_the_product_in_order() -> None:
    hp = keras_tuner.HyperParameters()
    hp.Choice("a", [1, 2], default=2)
    hp.Choice("b", ["u", "v", "w"])
    run = Simulation(make("grid", trials=None, hyperparameters=hp), build=lambda _: None).run()
    assert [tuple(values.values()) for values in run.values()] == [
        (a, b) for a in (2, 1) for b in ("u", "v", "w")
    ]
    assert run.oracle.stop_reason == "no untried values are left"
    assert hp.space[0].name == "a"
    assert len(hp.space) == 2


def test_grid_leaves_out_what_is_not_active() -> None:
    hp = keras_tuner.HyperParameters()
    hp.Choice("a", [3, 1, 2], default=1)
    with hp.conditional_scope("a", [1, 2]):
        hp.Float("b", 0, 1, step=0.5)
    run = Simulation(GridOracle("val_loss", hyperparameters=hp), build=lambda _: None).run()
    tried = [(values["a"], values.get("b")) for values in run.values()]
    assert tried == [(1, 0.0), (1, 0.5), (1, 1.0), (3, None), (2, 0.0), (2, 0.5), (2, 1.0)]


def test_grid_takes_in_what_running_trials_find() -> None:
    def build(hp: Any) -> None:
        if hp.Choice("a", [1, 2]) == 2:
            hp.Choice("b", [1, 2, 3])

    run = Simulation(make("grid", trials=None), build=build, workers=2).run()
    assert run.values() == [{"a": 1}, {"a": 2, "b": 1}, {"a": 2, "b": 2}, {"a": 2, "b": 3}]


def test_grid_waits_for_running_trials_at_its_end() -> None:
    oracle = make("grid", trials=None, hyperparameters=small_space(1))
    trial = oracle.create_trial("a")
    assert oracle.create_trial("b").status == "IDLE"
    trial.status = "FAILED"
    oracle.end_trial(trial)
    assert oracle.create_trial("b").status == "STOPPED"


@pytest.mark.parametrize("algorithm", ["random", "asha", "tpe", "bohb"])
def test_no_values_are_tried_twice(algorithm: str) -> None:
    oracle = make(algorithm, trials=50, hyperparameters=small_space(2, 3))
    run = Simulation(oracle, build=lambda _: None, workers=2).run()
    tried = [tuple(values.values()) for values in run.values()]
    assert len(tried) == len(set(tried)) >= 5
    assert oracle.stop_reason == "no untried values are left"


def test_values_outside_the_space_do_not_hide_duplicates() -> None:
    oracle = make("random", hyperparameters=small_space(2), tune_new_entries=False)
    run = Simulation(oracle, build=lambda hp: hp.Float("new", 0, 1)).run()
    assert sorted(values["p0"] for values in run.values()) == [0, 1]
    assert [values["new"] for values in run.values()] == [0.0, 0.0]
    assert [param.name for param in oracle.get_space().space] == ["p0"]


def test_new_entries_can_be_forbidden() -> None:
    oracle = make("random", hyperparameters=small_space(2), allow_new_entries=False)
    with pytest.raises(RuntimeError, match="allow_new_entries=False"):
        Simulation(oracle).run()


def test_declared_values_follow_the_conditions() -> None:
    oracle = make("random")
    trial = oracle.create_trial("a")
    hp = trial.hyperparameters.copy()
    hp.Choice("kind", ["plain", "deep"])
    with hp.conditional_scope("kind", ["deep"]):
        hp.Int("depth", 2, 5)
    with hp.conditional_scope("kind", ["plain"]):
        hp.Int("width", 3, 9)
    hp.values["depth"] = 4  # left over
    oracle.declare(trial.trial_id, hp)
    assert trial.hyperparameters.values == {"kind": "plain", "width": 3}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_first_trial_can_take_the_defaults(algorithm: str) -> None:
    hp = keras_tuner.HyperParameters()
    hp.Float("x", 0, 1, default=0.7)
    hp.Choice("kind", ["plain", "deep"], default="deep")
    oracle = make(algorithm, hyperparameters=hp)
    oracle.defaults_first = True
    values = oracle.create_trial("a").hyperparameters.values
    assert (values["x"], values["kind"]) == (0.7, "deep")


@pytest.mark.parametrize("algorithm", ["random", "grid", "tpe", "asha"])
def test_more_trials_on_resume(algorithm: str) -> None:
    whole = Simulation(make(algorithm, trials=12)).run()
    less = Simulation(make(algorithm, trials=5)).run()
    assert less.oracle.create_trial("a").status == "STOPPED"
    more = Simulation(make(algorithm, trials=12), events=less.events).run()
    assert list(more.oracle.trials) == [f"{number:04d}" for number in range(12)]
    if algorithm != "asha":  # which promotes more at its end
        assert more.events == whole.events
    assert make(algorithm, trials=12).remaining_trials() == 12
    assert more.oracle.remaining_trials() == 0


def test_the_process_bears_failed_and_running_trials() -> None:
    options = {"trials": 8, "hyperparameters": small_space(30, 3), "num_initial_points": 2}

    def outcome(trial: Any) -> str:
        return "FAILED" if trial.trial_id in ("0000", "0003") else "COMPLETED"

    run = Simulation(
        make("bayesian", **options), workers=3, outcome=outcome, build=lambda _: None
    ).run()
    assert len({str(values) for values in run.values()}) == 8
    # Its suggestion is a function of the events, orphans included.
    starts = [i for i, event in enumerate(run.events) if event["event"] == "start"]
    oracle = make("bayesian", **options)
    for event in run.events[: starts[-1]]:
        oracle.apply(event)
    assert oracle.ongoing_trials
    assert oracle.populate_space("0007")["values"] == run.values()[-1]


def test_the_process_finds_the_minimum_and_shuns_infinite_losses() -> None:
    oracle = make("bayesian", trials=10, num_initial_points=6, seed=1)
    space = keras_tuner.HyperParameters()
    space.Float("x", 0, 1)
    oracle.update_space(space)
    while (trial := oracle.create_trial("a")).status == "RUNNING":
        x = trial.hyperparameters.values["x"]
        oracle.update_trial(trial.trial_id, {"val_loss": math.inf if x > 0.8 else (x - 0.3) ** 2})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    suggested = [values["x"] for values in oracle.values.values()][6:]
    assert sum(x > 0.8 for x in suggested) <= 1
    assert suggested[-1] == pytest.approx(0.3, abs=0.02)


def test_the_process_asks_for_points_as_good_as_those_of_kerastuner() -> None:
    """The lower bound of KerasTuner's own process, at its suggestion and at ours."""
    random = np.random.default_rng(0)
    points = random.random((40, 3))
    losses = ((points - [0.3, 0.6, 0.5]) ** 2).sum(axis=1) + np.sin(9 * points[:, 0]) / 5
    options: dict[str, Any] = {
        "objective": "val_loss",
        "max_trials": 60,
        "seed": 0,
        "num_initial_points": 5,
    }
    theirs = keras_tuner.oracles.BayesianOptimizationOracle(**options)
    ours = BayesianOracle(**options)
    for oracle in (theirs, ours):
        for axis in "xyz":
            oracle.hyperparameters.Float(axis, 0.0, 1.0)
        for number, (point, loss) in enumerate(zip(points, losses, strict=True)):
            hp = oracle.get_space()
            hp.values = dict(zip("xyz", map(float, point), strict=True))
            trial = keras_tuner.engine.trial.Trial(hp, f"{number:04d}", "COMPLETED")
            trial.score = float(loss)
            oracle.trials[trial.trial_id] = trial
    with known_warnings_off(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"sklearn\.gaussian_process")
        suggested = [oracle.populate_space("0040")["values"] for oracle in (theirs, ours)]
    chosen = np.array([[values[axis] for axis in "xyz"] for values in suggested])
    mean, deviation = theirs.gpr.predict(chosen, return_std=True)
    bound = mean - theirs.beta * deviation
    assert bound[1] <= bound[0] + 0.01 * losses.std()


def test_the_process_compares_losses_whatever_the_direction() -> None:
    oracle = BayesianOracle(keras_tuner.Objective("acc", "max"), seed=0)
    oracle.update_space(full_space())
    for score in (0.5, 0.25, math.inf, -math.inf):
        trial = oracle.create_trial("a")
        oracle.update_trial(trial.trial_id, {"acc": score})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    oracle.create_trial("a")
    completed = [trial for trial in oracle.trials.values() if trial.status == "COMPLETED"]
    _, losses = oracle._evidence(completed)
    assert list(losses) == [-0.5, -0.25, -0.5, -0.25, -0.25]  # the last one is running


# Ends


def test_invalid_trials_are_retried_then_failed() -> None:
    outcomes = iter(["INVALID", "INVALID", *["COMPLETED"] * 9])
    oracle = make("random", trials=2, max_retries_per_trial=1)
    run = Simulation(oracle, outcome=lambda _: next(outcomes)).run()
    assert run.handed_out == ["0000", "0000", "0001"]
    assert [trial.status for trial in oracle.trials.values()] == ["FAILED", "COMPLETED"]
    assert oracle.retries == {"0000": 1}
    assert oracle.trials["0000"].score is None
    assert oracle.seconds["0000"] == 2 * (MAX_EPOCHS * 0.5 + 0.25)
    assert oracle.end_order == ["0000", "0001"]


def test_a_retried_nan_can_succeed() -> None:
    oracle = make("random", trials=1, max_retries_per_trial=1)
    trial = oracle.create_trial("a")
    for score in (math.nan, 0.25):
        oracle.report(trial.trial_id, 0, {"val_loss": score})
        oracle.update_trial(trial.trial_id, {"val_loss": score, "other": math.nan}, step=0)
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        if math.isnan(score):
            assert trial.status == "INVALID"
            trial = oracle.create_trial("a")
            assert oracle.epochs_of(trial) == (0, MAX_EPOCHS)
    assert (trial.status, trial.score, trial.message) == ("COMPLETED", 0.25, None)
    assert oracle.histories["0000"] == {"val_loss": [0.25]}


def test_a_nan_without_retries_fails_and_says_so() -> None:
    oracle = make("random")
    trial = oracle.create_trial("a")
    oracle.update_trial(trial.trial_id, {"val_loss": math.nan})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)
    assert (trial.status, trial.message) == ("FAILED", "val_loss is not a number")


def test_the_reason_is_the_last_line_or_as_passed() -> None:
    oracle = make("random")
    oracle.update_space(full_space())
    for reason in (None, "out of memory"):
        trial = oracle.create_trial("a")
        trial.status, trial.message = "FAILED", "Traceback\n  line 1\nValueError: no\n"
        oracle.end_trial(trial, reason=reason)
    assert [t.message for t in oracle.trials.values()] == ["ValueError: no", "out of memory"]


def test_failures_in_a_row_end_a_session_and_are_written_first() -> None:
    def oracle() -> SearchOracle:
        return RandomOracle("val_loss", max_trials=9, seed=1, max_epochs=1)

    def outcome(trial: Any) -> str:
        return "COMPLETED" if trial.trial_id == "0001" else "FAILED"

    run = Simulation(oracle(), outcome=outcome)
    with pytest.raises(RuntimeError, match="3 trials in a row"):
        run.run()
    assert run.handed_out == ["0000", "0001", "0002", "0003", "0004"]
    assert run.events[-1]["event"] == "end"
    rest = Simulation(oracle(), outcome=outcome, events=run.events)
    with pytest.raises(RuntimeError, match="3 trials in a row"):
        rest.run()
    assert rest.handed_out == ["0005", "0006", "0007"]


@pytest.mark.parametrize("plateau", [1, 3])
def test_a_search_ends_on_its_plateau(plateau: int) -> None:
    oracle = make("random", trials=500, plateau=plateau)
    Simulation(oracle).run()
    scores = [trial.score for trial in oracle.trials.values()]
    best = int(np.argmin(scores))
    assert len(scores) == best + 1 + plateau
    assert oracle.stop_reason == f"no better score in {plateau} trials"


def test_a_plateau_has_a_length() -> None:
    with pytest.raises(OptionValueError, match="`plateau` must be at least 1"):
        make("random", plateau=0)


# Scores


def test_several_objectives() -> None:
    objective = [
        keras_tuner.Objective("val_loss", "min"),
        keras_tuner.Objective("val_accuracy", "max"),
    ]
    oracle = RandomOracle(objective, seed=0, max_trials=3)
    oracle.update_space(full_space())
    events: Events = []
    oracle.journal = events.append
    for bad, good in ((0.5, 0.9), (0.2, 0.8), (0.3, 0.4)):
        trial = oracle.create_trial("a")
        metrics = {"val_loss": bad, "val_accuracy": good, "loss": 0.0}
        oracle.report(trial.trial_id, 0, metrics)
        oracle.update_trial(trial.trial_id, metrics)
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    assert [t.score for t in oracle.trials.values()] == pytest.approx([-0.4, -0.6, -0.1])
    assert [t.trial_id for t in oracle.get_best_trials(3)] == ["0001", "0000", "0002"]
    assert [seen.curve for seen in oracle.observations()] == [
        pytest.approx((score,)) for score in (-0.4, -0.6, -0.1)
    ]
    with pytest.raises(ValueError, match="val_accuracy"):
        oracle.update_trial("0000", {"val_loss": 1.0})


def test_the_objective_of_none() -> None:
    oracle = RandomOracle(seed=0, max_trials=1)
    trial = oracle.create_trial("a")
    oracle.update_trial(trial.trial_id, {"default_objective": 0.5})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)
    assert trial.score == 0.5
    assert oracle.observations()[0].curve == (0.5,)
    assert oracle.epochs_of(trial) == (0, None)


def test_a_score_of_ones_own_is_stored() -> None:
    class Sum(RandomOracle):
        def score_trial(self, trial: Any) -> None:
            trial.score = sum(o.mean() for o in trial.metrics.get_history("val_loss"))

    oracle = Sum("val_loss", seed=0)
    events: Events = []
    oracle.journal = events.append
    trial = oracle.create_trial("a")
    oracle.update_trial(trial.trial_id, {"val_loss": 1.0}, step=0)
    oracle.update_trial(trial.trial_id, {"val_loss": 2.0}, step=1)
    trial.status = "COMPLETED"
    oracle.end_trial(trial)
    replayed = RandomOracle("val_loss", seed=0)
    for event in events:
        replayed.apply(event)
    assert replayed.trials["0000"].score == 3.0
    assert [o.step for o in replayed.trials["0000"].metrics.get_history("val_loss")] == [0, 1]
    assert events[-1]["metrics"] == {"val_loss": [[0, 1.0], [1, 2.0]]}


def test_the_best_trials() -> None:
    oracle = RandomOracle(keras_tuner.Objective("acc", "max"), seed=0, max_trials=None)
    oracle.update_space(full_space())
    for score in (0.2, 0.9, 0.5, 0.9, None):
        trial = oracle.create_trial("a")
        trial.status = "FAILED" if score is None else "COMPLETED"
        if score is not None:
            oracle.update_trial(trial.trial_id, {"acc": score}, step=4)
        oracle.end_trial(trial)
    running = oracle.create_trial("b").trial_id
    ranked = ["0001", "0003", "0002", "0000", "0004", running]
    assert [t.trial_id for t in oracle.get_best_trials(10)] == ranked
    assert oracle.get_best_trials()[0].best_step == 4
    assert oracle.needed_models(2) == {"0001", "0003"}
    assert oracle.needed_models(9) == set(ranked[:4])
    assert oracle.needed_states() == {running}


# Cost


def test_a_trial_after_many_costs_little() -> None:
    oracle = make("random", trials=None)
    oracle.update_space(full_space())
    metrics = [[0, 0.5]]
    for number in range(10_000):
        name = f"{number:04d}"
        values = {"x": number / 10_000, "kind": "plain"}
        for event in (
            {"event": "start", "trial": name, "values": values, "epochs": None},
            {"event": "end", "trial": name, "status": "COMPLETED", "score": 0.5, "step": 0}
            | {"reason": None, "seconds": 0.0, "metrics": {"val_loss": metrics}},
        ):
            oracle.apply(event)
    took = []
    for _ in range(30):
        began = time.perf_counter()
        trial = oracle.create_trial("a")
        oracle.declare(trial.trial_id, trial.hyperparameters)
        oracle.report(trial.trial_id, 0, {"val_loss": 0.5, "loss": 0.5})
        oracle.update_trial(trial.trial_id, {"val_loss": 0.5})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        took.append(time.perf_counter() - began)
    assert list(oracle.trials)[-1] == "10029"
    assert np.median(took) < 5e-3
