"""Search algorithms on learning curves of real training runs, without training anything.

    python -m benchmarks.oracles --surrogate DIR                       # all methods, half an hour
    python -m benchmarks.oracles --surrogate DIR --methods asha bohb --seeds 2

DIR holds the LCBench surrogate of YAHPO Gym (`model.onnx`, `encoding.json`, `config_space.json`),
which predicts the validation accuracy of an MLP after every epoch on 34 tabular tasks. A search may
spend 40 whole trainings, counted in epochs; it is over when it has seen the accuracy that an
independent random search of that budget ends on. Its speedup is the budget divided by the epochs
it took, 0 if it never got there. Most settings were chosen on every other task, so both halves are
shown; the last choices saw all tasks, so that neither half is wholly unseen. Needs onnxruntime.
Prints a Markdown table and writes the epochs of every search as JSON; methods that are not run
keep what the file has of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import importlib.metadata
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
from numpy.typing import NDArray
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

import zoo
from recipes.versions import versions
from tuning.oracles import (
    AshaOracle,
    BohbOracle,
    HyperbandOracle,
    RandomOracle,
    SearchOracle,
    TpeOracle,
)

OUTPUT = Path(__file__).with_name("results") / "oracles.json"
EPOCHS = 51  # of a whole training; the surrogate knows 52
TRAININGS = 40
BUDGET = TRAININGS * EPOCHS
OBJECTIVE = "val_accuracy"
TARGET_SEED = 1_000_000  # far from the seeds of the searches

Values = Mapping[str, Any]
CurveOf = Callable[[Values], NDArray[np.float64]]


class Surrogate:
    """The learning curves of one configuration on one task, in percent."""

    def __init__(self, folder: Path) -> None:
        onnxruntime = importlib.import_module("onnxruntime")  # of the benchmarks only
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        names = json.loads((folder / "encoding.json").read_text("utf-8"))
        space = json.loads((folder / "config_space.json").read_text("utf-8"))
        asked = {parameter["name"]: parameter for parameter in space["hyperparameters"]}
        self.tasks: list[str] = asked["OpenML_task_id"]["choices"]
        self._codes: dict[str, int] = names["OpenML_task_id"]

    def curves(self, task: str, configurations: Sequence[Values]) -> NDArray[np.float64]:
        """Returns the validation accuracy after each epoch, (configurations, EPOCHS)."""
        rows = np.array([[values[name] for name in NAMES] for values in configurations])
        inputs = np.empty((len(rows), EPOCHS, 1 + len(NAMES)), np.float32)
        inputs[:, :, 0] = np.arange(1, EPOCHS + 1)
        inputs[:, :, 1:] = rows[:, None]
        codes = np.full((len(rows) * EPOCHS, 1), self._codes[task], np.int32)
        feed = {"x_cat": codes, "x_cont": inputs.reshape(len(codes), -1)}
        outputs = self._session.run(None, feed)[0]  # time, val_accuracy, ...
        return np.asarray(outputs[:, 1], np.float64).reshape(len(rows), EPOCHS)


def search_space() -> Any:
    hp = keras_tuner.HyperParameters()
    hp.Int("batch_size", 16, 512, sampling="log")
    hp.Float("learning_rate", 1e-4, 1e-1, sampling="log")
    hp.Float("momentum", 0.1, 0.99)
    hp.Float("weight_decay", 1e-5, 1e-1)
    hp.Int("num_layers", 1, 5)
    hp.Int("max_units", 64, 1024, sampling="log")
    hp.Float("max_dropout", 0.0, 1.0)
    return hp


NAMES = tuple(parameter.name for parameter in search_space().space)  # as the surrogate has them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A search algorithm and how its trials are run."""

    title: str
    oracle: type[SearchOracle]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    patience: int | None = None  # epochs without improvement before a trial is stopped
    resumes: bool = True  # False: a promoted trial starts again, and its epochs count again
    epochs: int = EPOCHS  # of a whole training
    space: Callable[[], Any] = search_space

    @property
    def budget(self) -> int:
        """Epochs that a search may train."""
        return TRAININGS * self.epochs

    def create(self, seed: int) -> Any:
        """Returns a new search without a limit on its trials."""
        oracle = self.oracle(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            max_epochs=self.epochs,
            seed=seed,
            hyperparameters=self.space(),
            **self.options,
        )
        oracle.max_trials = None
        return oracle


X3: Mapping[str, Any] = {"growth": 3}
ENDLESS: Mapping[str, Any] = {"curve_stopping": False}
METHODS: Mapping[str, Method] = {
    "random": Method(title="random search", oracle=RandomOracle),
    "random-patience": Method(title="random + EarlyStopping(5)", oracle=RandomOracle, patience=5),
    "random-curves": Method(
        title="random + learning-curve stopping",
        oracle=RandomOracle,
        options={"curve_stopping": True},
    ),
    "hyperband": Method(
        title="Hyperband, KerasTuner's brackets, resuming",
        oracle=HyperbandOracle,
        options={"hyperband_iterations": BUDGET},
    ),
    "asha-restart": Method(
        title="ASHA, rungs x3, no resume", oracle=AshaOracle, options=X3, resumes=False
    ),
    "asha-3": Method(title="ASHA, rungs x3", oracle=AshaOracle, options=X3),
    "asha": Method(title="ASHA, rungs x2", oracle=AshaOracle),
    "tpe": Method(title="TPE", oracle=TpeOracle),
    "tpe-curves": Method(
        title="TPE + learning-curve stopping", oracle=TpeOracle, options={"curve_stopping": True}
    ),
    "bohb-3": Method(title="TPE + ASHA, rungs x3", oracle=BohbOracle, options={**X3, **ENDLESS}),
    "bohb": Method(title="TPE + ASHA, rungs x2", oracle=BohbOracle, options=ENDLESS),
    "bohb-curves": Method(
        title="TPE + ASHA, rungs x2 + learning-curve stopping", oracle=BohbOracle
    ),
}


def random_best(surrogate: Surrogate, task: str, seed: int) -> float:
    """Returns what a random search sees at best within the budget."""
    rng = np.random.default_rng([TARGET_SEED, seed])
    drawn = [
        {p.name: p.prob_to_value(rng.random()) for p in search_space().space}
        for _ in range(TRAININGS)
    ]
    return float(surrogate.curves(task, drawn).max())


def run_trial(oracle: SearchOracle, trial: Any, curve: Sequence[float], method: Method) -> int:
    """Reports a trial's epochs until it has to stop; returns the number of the last one."""
    first, last = oracle.epochs_of(trial)
    epoch = first
    for epoch in range(first, last or EPOCHS):
        reason = oracle.report(trial.trial_id, epoch, {OBJECTIVE: curve[epoch]})
        stale = epoch - int(np.argmax(curve[: epoch + 1]))
        if reason or (method.patience is not None and stale >= method.patience):
            break
    trial.status = "COMPLETED"
    oracle.update_trial(trial.trial_id, {OBJECTIVE: max(curve[: epoch + 1])})
    oracle.end_trial(trial)
    return epoch + 1


def epochs_to(target: float, method: Method, curve_of: CurveOf, *, seed: int) -> int | None:
    """Returns the epochs that a search trains until it has seen `target`; None above its budget."""
    oracle = method.create(seed)
    used = 0
    while used < method.budget:
        trial = oracle.create_trial("benchmark")
        if trial.status != "RUNNING":
            return None
        curve = curve_of(trial.hyperparameters.values)
        first = oracle.epochs_of(trial)[0]
        end = run_trial(oracle, trial, curve.tolist(), method)
        start = first if method.resumes else 0
        hits = np.flatnonzero(curve[first:end] >= target)
        if hits.size:
            found = used + first - start + int(hits[0]) + 1
            return found if found <= method.budget else None
        used += end - start
    return None


def searches(surrogate: Surrogate, method: Method, seeds: int) -> Iterator[tuple[str, int | None]]:
    """Yields the task and the epochs of every search."""
    for index, task in enumerate(surrogate.tasks):
        curve_of = functools.partial(curve_on, surrogate, task)
        for seed in range(seeds):
            target = random_best(surrogate, task, 1000 * index + seed)
            yield task, epochs_to(target, method, curve_of, seed=1000 * index + seed + 1)


def curve_on(surrogate: Surrogate, task: str, values: Values) -> NDArray[np.float64]:
    curve: NDArray[np.float64] = surrogate.curves(task, [values])[0]
    return curve


def speedups(epochs: Sequence[int | None]) -> NDArray[np.float64]:
    return np.array([0.0 if count is None else BUDGET / count for count in epochs])


def measure(surrogate: Surrogate, method: Method, seeds: int) -> dict[str, Any]:
    """Returns what the JSON file holds of a method."""
    start = time.perf_counter()
    epochs: dict[str, list[int | None]] = {}
    for task, count in searches(surrogate, method, seeds):
        epochs.setdefault(task, []).append(count)
    return {
        "title": method.title,
        "date": datetime.now(UTC).date().isoformat(),
        "made_with": made_with(),
        "seconds": round(time.perf_counter() - start, 1),
        "epochs": epochs,
    }


def made_with() -> dict[str, str | int]:
    known = {**versions(), "keras-zoo": zoo.__version__}
    for package in ("optuna", "onnxruntime"):
        known[package] = importlib.metadata.version(package)
    return known


def row(title: str, tasks: Sequence[Sequence[int | None]]) -> list[str]:
    """Returns a line of the table: of all tasks, and the medians of either half."""
    gains = speedups([count for counts in tasks for count in counts])
    low, middle, high = np.percentile(gains, [25, 50, 75])
    halves = [speedups([n for counts in tasks[part::2] for n in counts]) for part in (0, 1)]
    return [
        title,
        f"{100 * np.mean(gains > 0):.0f} %",
        f"{middle:.2f}",
        f"{low:.2f} - {high:.2f}",
        *(f"{np.median(half):.2f} ({100 * np.mean(half > 0):.0f} %)" for half in halves),
    ]


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
    columns = ("method", "reached", "median speedup", "quartiles", "even tasks", "odd tasks")
    table = Table(*columns, box=MARKDOWN)
    for found in results.values():
        table.add_row(*row(found["title"], list(found["epochs"].values())))
    Console(width=140, markup=False, highlight=False).print(table)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Search algorithms on the LCBench surrogate.")
    parser.add_argument("--surrogate", type=Path, required=True, help="the surrogate's folder")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=8, help="searches per task (default: 8)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the JSON file to update")
    parsed = parser.parse_args(arguments)
    if parsed.seeds < 1:
        parser.error(f"`--seeds` must be 1 or more; got {parsed.seeds}.")
    return parsed


def main() -> None:
    asked = parse()
    known = json.loads(asked.output.read_text("utf-8")) if asked.output.exists() else {}
    surrogate = Surrogate(asked.surrogate)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    for name in asked.methods:
        known[name] = measure(surrogate, METHODS[name], asked.seeds)
        ordered = {name: known[name] for name in METHODS if name in known}
        asked.output.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
        show({name: known[name]})
    show(ordered)


if __name__ == "__main__":
    main()
