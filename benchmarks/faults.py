"""Kills searches at random instants and checks that nothing is lost: `python -m benchmarks.faults`.

A search is killed with SIGKILL again and again until it is finished, in this process or in several:
with workers it is one of them or the process of the search itself. Then it is compared with the
same search left alone: every trial ended exactly once, the leaderboard is the same (for ASHA and
TPE with several workers, whose suggestions depend on what ends first: every curve equals that of
the same values and number run alone), and of each trial at most the epoch that ran was run again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner
import numpy as np

import tuning
import tuning.tuner
import tuning.tuners
from recipes.versions import versions
from tuning.runner import Task

ROWS = 192
SEARCHES = ("random", "grid", "asha", "tpe")


class EpochLog(keras.callbacks.Callback):
    """Appends every epoch that begins to a file."""

    def __init__(self, path: str, trial: str) -> None:
        super().__init__()
        self._path = path
        self._trial = trial

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Notes the epoch."""
        with Path(self._path).open("a") as file:
            file.write(f"{self._trial} {epoch}\n")
        time.sleep(0.02)  # so that kills meet every part of an epoch


class Model(keras_tuner.HyperModel):
    """A small classifier; `seed_of_trial` makes its trials known to the log."""

    def __init__(self, log: str) -> None:
        super().__init__()
        self._log = log

    def build(self, hp: Any) -> keras.Model:
        """Returns the compiled model."""
        depth = hp.Int("depth", 1, 2)
        layers = [keras.layers.Dense(hp.Choice(f"units_{i}", [4, 8])) for i in range(depth)]
        rate = hp.Choice("dropout", [0.0, 0.3])
        model = keras.Sequential(
            [keras.Input((6,)), *layers, keras.layers.Dropout(rate), keras.layers.Dense(3)]
        )
        model.compile(
            keras.optimizers.Adam(hp.Choice("learning_rate", [1e-3, 1e-2])),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Trains it, its epochs logged."""
        name = json.dumps(hp.values, sort_keys=True).replace(" ", "")
        kwargs["callbacks"] = [*kwargs.get("callbacks", ()), EpochLog(self._log, name)]
        return model.fit(*args, **kwargs)


def search(kind: str, folder: Path, workers: int) -> tuning.tuner.EngineTuner:
    """Runs a search in a folder, or goes on with it."""
    options: dict[str, Any] = {"max_trials": 10, "seed": 7}
    if kind == "asha":
        options |= {"max_epochs": 9}
    classes = {
        "random": tuning.tuners.RandomSearch,
        "grid": tuning.tuners.GridSearch,
        "asha": tuning.tuners.ASHA,
        "tpe": tuning.tuners.TPE,
    }
    tuner: tuning.tuner.EngineTuner = classes[kind](
        Model(str(folder / "epochs.log")),
        "val_loss",
        directory=folder,
        project_name="search",
        workers=workers,
        quiet=True,
        **options,
    )
    args, kwargs = data()
    tuner.search(*args, **kwargs)
    return tuner


def data() -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments of `fit`."""
    random_rows = np.random.default_rng(0)
    x = random_rows.normal(size=(ROWS, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0)
    return (x, y), {"epochs": 4, "batch_size": 32, "validation_split": 0.25}


class Recorder:
    """Hears of a trial that runs alone."""

    def __init__(self) -> None:
        self.epochs: dict[str, Any] = {}

    def declare(self, hyperparameters: Any) -> None:
        """Is not needed."""

    def epoch(self, epoch: int, logs: Any, seconds: float) -> None:  # noqa: ARG002
        """Keeps the metrics."""
        self.epochs[str(epoch)] = dict(logs)

    def rewind(self, epochs: int) -> None:
        """Does not happen."""

    def note(self, text: str) -> None:
        """Does not happen."""


def run_alone(trials: dict[str, Any], folder: Path) -> None:
    """Runs trials by themselves and writes their curves."""
    tuner = tuning.tuners.RandomSearch(
        Model(str(folder / "alone.log")), "val_loss", directory=folder, project_name="alone", seed=7
    )
    args, kwargs = data()
    found = {}
    for name, trial in trials.items():
        hp = keras_tuner.HyperParameters()
        hp.values = dict(trial["values"])
        recorder = Recorder()
        config = hp.get_config()
        task = Task(trial=name, hyperparameters=config, epochs=len(trial["epochs"]))
        tuner.runner.run(task, recorder, args, kwargs, hyperparameters=hp)
        found[name] = recorder.epochs
    (folder / "alone.json").write_text(json.dumps(found))


def leaderboard(folder: Path) -> dict[str, Any]:
    """Returns per trial its values, its curves and its score, read from the journal."""
    trials: dict[str | None, Any] = {}
    for line in (folder / "search" / "journal.jsonl").read_text().splitlines():
        event = json.loads(line[9:])
        trial = trials.setdefault(event.get("trial"), {"epochs": {}, "ends": 0})
        if event["event"] in ("start", "declare"):
            trial["values"] = event["values"]
        if event["event"] == "epoch":
            trial["epochs"][event["epoch"]] = event["logs"]
        if event["event"] == "end":
            trial |= {"score": event["score"], "status": event["status"], "ends": trial["ends"] + 1}
        if event["event"] == "start":
            trial["starts"] = trial.get("starts", 0) + 1
    return {name: trial for name, trial in trials.items() if name is not None}


def redone(folder: Path) -> int:
    """Returns how many epochs were run again of those that a later one had followed."""
    last: dict[str, int] = {}
    wrong = 0
    for line in (folder / "epochs.log").read_text().splitlines():
        trial, _, epoch = line.rpartition(" ")
        wrong += int(epoch) < last.get(trial, -1)
        last[trial] = max(int(epoch), last.get(trial, -1))
    return wrong


def fork(run: Callable[[], Any]) -> int:
    """Runs a function in a child process and returns its id."""
    child = os.fork()
    if child == 0:
        os.setsid()
        try:
            run()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - the child must end here
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
    return child


def workers_of(process: int) -> list[int]:
    """Returns the children of a process."""
    listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in listed.split()]


def run_with_kills(
    kind: str, folder: Path, workers: int, chance: random.Random, kills: int, longest_s: float
) -> int:
    """Runs a search to its end with kills in between; returns how many there were."""
    done = 0
    while True:
        child = fork(lambda: search(kind, folder, workers))
        deadline = time.monotonic() + chance.uniform(0.1, longest_s)
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            if done < kills and time.monotonic() > deadline:
                victims = [child, *workers_of(child)] if workers > 1 else [child]
                victim = chance.choice(victims)
                os.kill(victim, signal.SIGKILL)
                done += 1
                if victim == child:
                    os.waitpid(child, 0)
                    break
                deadline = time.monotonic() + chance.uniform(0.1, longest_s)
            time.sleep(0.005)
        if ended and status == 0:
            return done
        if ended and not os.WIFSIGNALED(status):
            raise RuntimeError(f"the {kind} search raised an error after {done} kills")


def compare(kind: str, alone: Path, killed: Path, workers: int) -> list[str]:
    """Returns what differs between a search that was killed and one left alone."""
    expected, found = leaderboard(alone), leaderboard(killed)
    wrong = [
        f"trial {name} ended {trial['ends']} times in {trial['starts']} runs"
        for name, trial in found.items()
        if trial["ends"] != trial["starts"]
    ]
    if workers == 1 or kind in ("random", "grid"):
        for name in sorted(expected.keys() | found.keys()):
            mine, its = (dict(side.get(name, {})) for side in (found, expected))
            if mine != its:
                wrong.append(f"trial {name} is another one")
    else:
        os.waitpid(fork(lambda: run_alone(found, killed)), 0)
        curves = json.loads((killed / "alone.json").read_text())
        for name, trial in found.items():
            if curves[name] != {str(epoch): logs for epoch, logs in trial["epochs"].items()}:
                wrong.append(f"trial {name} has another curve than run alone")
    again = redone(killed)
    if again:
        wrong.append(f"{again} finished epochs were run again")
    return wrong


def main() -> None:
    """Runs the faults and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25, help="per search")
    parser.add_argument("--searches", nargs="+", default=list(SEARCHES), choices=SEARCHES)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/faults.json"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for workers in options.workers:
        for kind in options.searches:
            rows.append(_row(kind, workers, options.kills, options.seed))
            sys.stdout.write(" ".join(f"{key}={value}" for key, value in rows[-1].items()) + "\n")
            sys.stdout.flush()
    total = Counter({"kills": sum(row["kills"] for row in rows)})
    about = {"date": datetime.now(UTC).date().isoformat(), "versions": versions()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(about | {"rows": rows, "kills": total["kills"]}, indent=1))
    wrong = [line for row in rows for line in row["wrong"]]
    sys.stdout.write(f"{total['kills']} kills, {len(wrong)} faults\n")
    sys.exit(bool(wrong))


def _row(kind: str, workers: int, kills: int, seed: int) -> dict[str, Any]:
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    chance = random.Random(f"{kind} {workers} {seed}")  # noqa: S311 - instants, no secrets
    try:
        alone, killed = root / "alone", root / "killed"
        for folder in (alone, killed):
            folder.mkdir()
        run_with_kills(kind, alone, workers, chance, 0, 1.0)
        longest = 2.0 if workers == 1 else 12.0
        began = time.monotonic()
        done, rounds = 0, 0
        wrong: list[str] = []
        while done < kills:  # a search that ended is begun anew
            shutil.rmtree(killed)
            killed.mkdir()
            done += run_with_kills(kind, killed, workers, chance, kills - done, longest)
            wrong += compare(kind, alone, killed, workers)
            rounds += 1
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return {
        "search": kind,
        "workers": workers,
        "kills": done,
        "searches": rounds,
        "seconds": round(time.monotonic() - began, 1),
        "wrong": wrong,
    }


if __name__ == "__main__":
    main()
