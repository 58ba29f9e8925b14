"""A tuner without training, for the tests of search algorithms."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import keras_tuner
import numpy as np

from tuning.oracle import SearchOracle
from tuning.oracles import ALGORITHMS

MAX_EPOCHS = 9
Events = list[dict[str, Any]]


def full_space() -> Any:
    hp = keras_tuner.HyperParameters()
    declare_space(hp)
    return hp


def declare_space(hp: Any) -> None:
    hp.Float("x", 0.0, 1.0)
    if hp.Choice("kind", ["plain", "deep"]) == "deep":
        hp.Int("depth", 2, 5)


def small_space(*sizes: int) -> Any:
    hp = keras_tuner.HyperParameters()
    for index, size in enumerate(sizes):
        hp.Int(f"p{index}", 0, size - 1)
    return hp


def loss(values: dict[str, Any], epoch: int) -> float:
    """Falls with the epochs; x = 0.3 is best; curves cross."""
    goal = abs(values.get("x", 0.5) - 0.3) + 0.05 * values.get("depth", 0)
    return float(goal + (1 + goal) / (epoch + 1))


class Simulation:
    """A tuner that trains `workers` trials in turns, an epoch each, and keeps the events."""

    def __init__(
        self,
        oracle: SearchOracle,
        *,
        workers: int = 1,
        build: Callable[[Any], object] = declare_space,
        outcome: Callable[[Any], str] = lambda _: "COMPLETED",
        events: Sequence[Any] = (),
    ) -> None:
        self.oracle, self.workers = oracle, workers
        self.build, self.outcome = build, outcome
        self.events = [json.loads(json.dumps(event)) for event in events]
        for event in self.events:
            oracle.apply(event)
        oracle.requeue()
        oracle.journal = self.write
        self.handed_out: list[str] = []
        self.statuses: list[str] = []
        self.most_running = 0

    def write(self, event: Any) -> None:
        self.events.append(json.loads(json.dumps(event)))

    def run(self) -> Simulation:
        running: dict[str, Any] = {}
        while True:
            self._begin(running)
            if not running:
                assert self.statuses[-1] == "STOPPED"
                return self
            for trial_id in sorted(running):
                if self._epoch(running[trial_id]):
                    del running[trial_id]

    def _begin(self, running: dict[str, Any]) -> None:
        while len(running) < self.workers:
            trial = self.oracle.create_trial(f"tuner{len(running)}")
            self.statuses.append(trial.status)
            if trial.status != "RUNNING":
                return
            assert trial.trial_id not in running
            self.handed_out.append(trial.trial_id)
            hp = trial.hyperparameters.copy()
            self.build(hp)
            self.oracle.declare(trial.trial_id, hp)
            running[trial.trial_id] = trial
            self.most_running = max(self.most_running, len(running))

    def _epoch(self, trial: Any) -> bool:
        epoch, last = self.oracle.epochs_of(trial)
        last = last or MAX_EPOCHS
        reason = self.oracle.judge(trial.trial_id)
        if epoch < last and not reason:
            values = trial.hyperparameters.values
            logs = {"val_loss": loss(values, epoch), "loss": 1.0}
            reason = self.oracle.report(trial.trial_id, epoch, logs, 0.5)
            epoch += 1
        if epoch < last and not reason:
            return False
        trial.status = self.outcome(trial)
        if trial.status == "COMPLETED":
            curve = self.oracle.histories[trial.trial_id]["val_loss"]
            step = int(np.argmin(curve))
            self.oracle.update_trial(trial.trial_id, {"val_loss": curve[step]}, step)
        self.oracle.end_trial(trial, reason=reason, seconds=0.25)
        return True

    def values(self) -> list[dict[str, Any]]:
        return [trial.hyperparameters.values for trial in self.oracle.trials.values()]


def make(algorithm: str, *, trials: int | None = 9, seed: int = 3, **options: Any) -> SearchOracle:
    trials = None if algorithm == "hyperband" else trials
    return ALGORITHMS[algorithm].create(
        "val_loss", trials=trials, max_epochs=MAX_EPOCHS, seed=seed, **options
    )


def fake_hopeless(calls: list[tuple[Any, ...]]) -> Callable[..., bool]:
    """Returns a rule that stops what is far from the best after four epochs."""

    def hopeless(curve: Sequence[float], best: float, last_epoch: int, *, seed: int) -> bool:
        calls.append((tuple(curve), best, last_epoch, seed))
        return len(curve) >= 4 and curve[-1] > best + 0.6

    return hopeless
