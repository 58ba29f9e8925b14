"""Algorithms that train few trials to the end, on fake learning curves."""

from __future__ import annotations

import math
import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.fake_tuner import (
    Simulation,
    fake_hopeless,
    full_space,
    loss,
    make,
    small_space,
)
from tuning.halving import Observation
from tuning.oracle import SearchOracle
from tuning.oracles import (
    ALGORITHMS,
    AshaOracle,
    BohbOracle,
    HyperbandOracle,
    RandomOracle,
    TpeOracle,
)
from zoo.errors import OptionValueError


@pytest.fixture(autouse=True)
def hopeless_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []
    fake = SimpleNamespace(hopeless=fake_hopeless(calls))
    monkeypatch.setitem(sys.modules, "tuning.extrapolation", fake)
    return calls


# Hyperband


@pytest.mark.parametrize(("max_epochs", "factor"), [(9, 3), (27, 3), (8, 2), (10, 3)])
@pytest.mark.parametrize("workers", [1, 4])
def test_brackets_have_their_sizes(max_epochs: int, factor: int, workers: int) -> None:
    oracle = HyperbandOracle("val_loss", max_epochs=max_epochs, factor=factor, seed=0)
    oracle.update_space(full_space())
    Simulation(oracle, workers=workers).run()
    rounds = Counter(
        tuple(values[f"tuner/{key}"] for key in ("bracket", "round", "initial_epoch", "epochs"))
        for values in (trial.hyperparameters.values for trial in oracle.trials.values())
    )
    largest = max(n for n in range(9) if factor**n <= max_epochs)
    last = math.ceil(1 + math.log(max_epochs, factor))
    expected = {}
    for bracket in range(largest + 1):
        for number in range(bracket + 1):
            size = math.ceil(last / (bracket + 1) * factor ** (bracket - number))
            epochs = [math.ceil(max_epochs / factor ** (bracket - n)) for n in range(number + 1)]
            first = epochs[-2] if number else 0
            expected[bracket, number, first, epochs[-1]] = size
    assert rounds == expected


def rounds_of(oracle: SearchOracle) -> dict[tuple[int, int, int], list[Any]]:
    rounds: dict[tuple[int, int, int], list[Any]] = {}
    for trial in oracle.trials.values():
        values = trial.hyperparameters.values
        key = values["tuner/sweep"], values["tuner/bracket"], values["tuner/round"]
        rounds.setdefault(key, []).append(trial)
    return rounds


@pytest.mark.parametrize("workers", [1, 5])
def test_the_best_of_a_round_go_on(workers: int) -> None:
    oracle = make("hyperband")
    Simulation(oracle, workers=workers).run()
    rounds = rounds_of(oracle)
    for (sweep, bracket, number), members in rounds.items():
        if number == 0:
            continue
        parents = {trial.hyperparameters.values["tuner/trial_id"] for trial in members}
        before = sorted(rounds[sweep, bracket, number - 1], key=lambda trial: float(trial.score))
        assert parents == {trial.trial_id for trial in before[: len(members)]}
        for trial in members:
            parent = oracle.trials[trial.hyperparameters.values["tuner/trial_id"]]
            first, last = oracle._spans[trial.trial_id]
            assert first == oracle._spans[parent.trial_id][1]
            assert len(oracle.histories[trial.trial_id]["val_loss"]) == (last or 0) - first


@pytest.mark.parametrize("failing", [{"0000"}, {"0002", "0004"}, {"0009"}, {"0009", "0010"}])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_failure_does_not_shrink_a_bracket(failing: set[str], workers: int) -> None:
    def outcome(trial: Any) -> str:
        return "FAILED" if trial.trial_id in failing else "COMPLETED"

    oracle = make("hyperband")
    Simulation(oracle, outcome=outcome, workers=workers).run()
    whole = make("hyperband")
    Simulation(whole).run()
    expected = {key: len(members) for key, members in rounds_of(whole).items()}
    completed = {
        key: sum(trial.status == "COMPLETED" for trial in members)
        for key, members in rounds_of(oracle).items()
    }
    assert completed == expected
    assert len(oracle.trials) == len(whole.trials) + len(failing)


def test_a_bracket_of_failures_ends() -> None:
    oracle = make("hyperband")
    Simulation(oracle, outcome=lambda _: "FAILED").run()
    for (_, bracket, number), members in rounds_of(oracle).items():
        assert number == 0
        assert len(members) == 2 * oracle._get_size(bracket, 0)


def test_hyperband_waits_for_a_round_that_runs() -> None:
    oracle = HyperbandOracle("val_loss", max_epochs=2, factor=3, seed=0)  # one bracket of two
    oracle.update_space(full_space())
    first, second = oracle.create_trial("a"), oracle.create_trial("b")
    assert oracle.create_trial("c").status == "IDLE"
    for trial in (first, second):
        oracle.update_trial(trial.trial_id, {"val_loss": 1.0})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    assert oracle.create_trial("c").status == "STOPPED"


def test_hyperband_ends_in_a_space_too_small_for_it() -> None:
    oracle = make("hyperband", hyperparameters=small_space(5))
    Simulation(oracle, build=lambda _: None).run()
    sizes = {key: len(members) for key, members in rounds_of(oracle).items()}
    assert sizes[0, 2, 0] <= 5
    assert sizes[0, 2, 1] == 3  # the size that its round has anyhow
    assert sizes[0, 2, 2] == 1


def test_sweeps_repeat() -> None:
    oracle = make("hyperband", hyperband_iterations=2)
    Simulation(oracle, workers=2).run()
    rounds = rounds_of(oracle)
    assert {key[1:]: len(members) for key, members in rounds.items() if key[0] == 0} == {
        key[1:]: len(members) for key, members in rounds.items() if key[0] == 1
    }


def test_states_of_unfinished_rounds_are_needed() -> None:
    oracle = make("hyperband")
    run = Simulation(oracle)
    parents = set()
    write = run.write

    def check(event: Any) -> None:
        parent = event.get("values", {}).get("tuner/trial_id")
        if event["event"] == "start" and parent:
            assert parent in oracle.needed_states()
            parents.add(parent)
        elif event["event"] == "epoch":
            values = oracle.trials[event["trial"]].hyperparameters.values
            assert {event["trial"], values.get("tuner/trial_id", event["trial"])} <= (
                oracle.needed_states()
            )
        write(event)

    oracle.journal = check
    run.run()
    assert len(parents) > 4
    assert oracle.needed_states() == set()


def test_hyperband_needs_its_first_bracket() -> None:
    with pytest.raises(OptionValueError, match="`trials` must be at least 13"):
        HyperbandOracle.create("val_loss", trials=12, max_epochs=9, seed=0)
    oracle = HyperbandOracle.create("val_loss", trials=13, max_epochs=9, seed=0)
    Simulation(oracle).run()
    assert len(oracle.trials) == 13


# Asha, TPE and BOHB

PAPER = {"first": 1, "growth": 3}  # rungs of 1, 3 and 9 epochs


@pytest.mark.parametrize("workers", [1, 4])
def test_asha_goes_on_with_the_best(workers: int) -> None:
    oracle = make("asha", trials=27, **PAPER)
    assert isinstance(oracle, AshaOracle)
    assert oracle.rungs == (1, 3, 9)
    run = Simulation(oracle, workers=workers).run()
    assert len(oracle.trials) == 27
    epochs = {name: len(history["val_loss"]) for name, history in oracle.histories.items()}
    reached = {rung: sum(count >= rung for count in epochs.values()) for rung in oracle.rungs}
    assert reached[3] >= 9
    assert reached[9] >= reached[3] // 3 >= 3
    best = min(oracle.trials, key=lambda n: loss(oracle.trials[n].hyperparameters.values, 0))
    assert epochs[best] == 9
    # A promotion is the same trial again, from where it was.
    for trial_id in oracle.trials:
        starts = [
            event["epochs"]
            for event in run.events
            if event["event"] == "start" and event["trial"] == trial_id
        ]
        assert starts == [[0, 1], [1, 3], [3, 9]][: len(starts)]
        curve = oracle.histories[trial_id]["val_loss"]
        assert oracle.trials[trial_id].score == min(curve)
    assert len(oracle.end_order) == len(set(oracle.end_order)) == 27


def test_asha_waits_for_what_may_be_promoted() -> None:
    oracle = make("asha", trials=3, hyperparameters=full_space(), **PAPER)
    trials = [oracle.create_trial(str(worker)) for worker in range(3)]
    assert oracle.create_trial("3").status == "IDLE"
    for number, trial in enumerate(trials):
        oracle.report(trial.trial_id, 0, {"val_loss": float(number)})
        oracle.update_trial(trial.trial_id, {"val_loss": float(number)})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    assert oracle.needed_states() == {"0000"}  # one in three of three
    promoted = oracle.create_trial("3")
    assert (promoted.trial_id, promoted.status) == ("0000", "RUNNING")
    assert oracle.epochs_of(promoted) == (1, 3)
    assert oracle.create_trial("4").status == "IDLE"
    oracle.rewind("0000", 0)  # its state was lost
    assert oracle.epochs_of(promoted) == (0, 3)


def test_a_promoted_trial_that_fails_or_stops_short_does_not_go_on() -> None:
    oracle = make("asha", trials=9, **PAPER)
    stopped = []

    def outcome(trial: Any) -> str:
        if len(oracle.histories[trial.trial_id]["val_loss"]) == 3:
            stopped.append(trial.trial_id)
            if len(stopped) == 1:
                return "FAILED"
            oracle._cut(trial.trial_id, 2)  # as if early stopping had ended it
        return "COMPLETED"

    Simulation(oracle, outcome=outcome).run()
    assert len(stopped) == len(set(stopped)) >= 3
    assert oracle.trials[stopped[0]].score is None
    assert oracle.needed_states() == set()
    assert all(len(history["val_loss"]) < 9 for history in oracle.histories.values())


def test_asha_without_reported_epochs() -> None:
    oracle = make("asha", trials=9, **PAPER)
    oracle.update_space(full_space())
    spans: Counter[tuple[int, int | None]] = Counter()
    while (trial := oracle.create_trial("a")).status == "RUNNING":
        spans[oracle.epochs_of(trial)] += 1
        last = oracle.epochs_of(trial)[1] or 1
        oracle.update_trial(
            trial.trial_id, {"val_loss": loss(trial.hyperparameters.values, last)}, last
        )
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    assert spans[0, 1] == 9
    assert spans[1, 3] >= 3
    assert spans[3, 9] >= 1


def test_states_that_may_be_promoted_are_needed() -> None:
    oracle = make("asha", trials=27, **PAPER)
    run = Simulation(oracle, workers=2)
    write = run.write

    def check(event: Any) -> None:
        if event["event"] == "start" and event["trial"] in oracle.trials:
            assert event["trial"] in oracle.needed_states()
        write(event)

    oracle.journal = check
    run.run()
    assert len(run.handed_out) > 27
    assert 0 < len(oracle.needed_states()) <= 18  # at most nine at each of two rungs


def test_the_best_trial_is_trained_to_the_end() -> None:
    oracle = make("asha", trials=5)
    assert isinstance(oracle, AshaOracle)
    assert oracle.rungs == (2, 4, 9)
    run = Simulation(oracle).run()
    epochs = {name: len(history["val_loss"]) for name, history in oracle.histories.items()}
    assert sorted(epochs.values()) == [2, 2, 2, 2, 9]  # one in three of five earned four epochs
    best = min(oracle.trials, key=lambda name: oracle.histories[name]["val_loss"][1])
    assert epochs[best] == 9
    assert [event["epochs"] for event in run.events if event["event"] == "start"][-1] == [4, 9]


def test_rungs_of_few_epochs() -> None:
    for epochs, rungs in ((1, (1,)), (3, (3,)), (4, (2, 4)), (27, (2, 4, 8, 27))):
        oracle = ALGORITHMS["asha"].create("val_loss", trials=3, max_epochs=epochs, seed=0)
        assert isinstance(oracle, AshaOracle)
        assert oracle.rungs == rungs


def test_rungs_are_checked() -> None:
    with pytest.raises(OptionValueError, match="`factor`"):
        make("asha", factor=1)


def test_rungs_may_be_closer_than_the_share_that_goes_on() -> None:
    oracle = ALGORITHMS["asha"].create(
        "val_loss", trials=9, max_epochs=51, seed=0, first=2, growth=2
    )
    assert isinstance(oracle, AshaOracle)
    assert oracle.rungs == (2, 4, 8, 16, 51)  # no step of less than a doubling
    assert oracle.factor == 3


def test_the_estimator_sees_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[Observation], int]] = []

    def suggest(parameters: Any, observations: Any, *, seed: int) -> dict[str, Any]:
        calls.append((list(observations), seed))
        return {"x": 0.1 * len(calls), "kind": "plain"}

    monkeypatch.setattr("tuning.tpe.suggest", suggest)

    def outcome(trial: Any) -> str:
        return "FAILED" if trial.trial_id == "0001" else "COMPLETED"

    for algorithm in ("tpe", "bohb"):
        calls.clear()
        oracle = make(algorithm, trials=5, curve_stopping=False)
        Simulation(oracle, workers=2, outcome=outcome).run()
        seen, _ = calls[-1]
        assert len({seed for _, seed in calls}) == len(calls) == 4
        assert [o.failed for o in seen] == [False, True, False, False]
        assert any(o.running for seen, _ in calls for o in seen)
        lengths = {len(o.curve) for o in seen if not (o.running or o.failed)}
        assert lengths == ({1} if algorithm == "tpe" else lengths)
        if algorithm == "tpe":
            assert seen[0].curve == (oracle.trials["0000"].score,)
            assert [v["x"] for v in Simulation(oracle).values()[1:]] == [
                pytest.approx(0.1 * number) for number in range(1, 5)
            ]


def test_the_estimator_beats_random_draws() -> None:
    def best(algorithm: str, seed: int) -> float:
        oracle = make(algorithm, trials=40, seed=seed)
        return min(abs(float(v["x"]) - 0.3) for v in Simulation(oracle).run().values())

    tpe = [best("tpe", seed) for seed in range(3)]
    random = [best("random", seed) for seed in range(3)]
    assert np.median(tpe) < np.median(random)


@pytest.mark.parametrize("algorithm", ["random", "bohb"])
def test_hopeless_trials_are_stopped(algorithm: str, hopeless_calls: list[Any]) -> None:
    oracle = make(algorithm, trials=30, curve_stopping=True)
    run = Simulation(oracle).run()
    stopped = [t.trial_id for t in oracle.trials.values() if t.message]
    assert {oracle.trials[name].message for name in stopped} <= {
        "not expected to reach the best score by epoch 9"
    }
    assert all(len(oracle.histories[name]["val_loss"]) >= 4 for name in stopped)
    if algorithm == "random":
        assert stopped
    assert {oracle.trials[name].status for name in stopped} <= {"COMPLETED"}
    assert len(run.handed_out) >= 30
    curve, best, last, _ = hopeless_calls[-1]
    assert min(curve) > 0
    assert math.isfinite(best)
    assert last == 9
    assert len({call[3] for call in hopeless_calls}) > 1


def test_curves_are_left_alone_unless_asked(hopeless_calls: list[Any]) -> None:
    for algorithm in ("random", "asha", "tpe"):
        Simulation(make(algorithm)).run()
    Simulation(RandomOracle("val_loss", curve_stopping=True, seed=0)).run()  # no known last epoch
    assert hopeless_calls == []
    assert BohbOracle("val_loss").curve_stopping
    assert not TpeOracle("val_loss").curve_stopping
