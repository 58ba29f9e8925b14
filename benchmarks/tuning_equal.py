"""Equal trials, one worker: the same trials by KerasTuner and by this package, taking turns.

All run the same values and begin with the same weights. Without shuffling they see the same
batches, and their scores can be compared exactly; the shuffled ones differ by chance.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.startup import turns
from benchmarks.tuning_results import print_table, spread, write_result
from benchmarks.tuning_searches import OURS, STOCK, Contestant, Hook, Steps, run_search
from benchmarks.tuning_tasks import (
    SEED,
    Task,
    cnn_task,
    listed_values,
    resnet_task,
    table_task,
    with_trials,
)

BASE = "KerasTuner RandomSearch"
CONTESTANTS = {
    BASE: Contestant(library=STOCK, tuner="RandomSearch"),
    "ours, batch by batch": Contestant(
        library=OURS, tuner="RandomSearch", options={"whole_epochs": False}
    ),
    "ours": Contestant(library=OURS, tuner="RandomSearch"),
}
OBJECTIVE = "val_loss"
COLUMNS = (
    "contestant",
    "seconds (min..max)",
    "trials / h",
    "faster",
    "s/trial beyond steps",
    "% of KerasTuner's",
    "after the first trial",
    "% of KerasTuner's",
    "largest Δ in order",
    "mean Δ shuffled",
)


def tasks(*, smoke: bool, jit: bool | str) -> list[Task]:
    """Returns the searches; every trial of one begins with the same weights."""
    options: dict[str, Any] = {"seed": SEED, "jit_compile": jit, "smoke": smoke}
    return [
        cnn_task(**options),
        table_task(2_000, 500, **options),
        table_task(32_000, 8_000, **options),
        resnet_task(**options),
        cnn_task(filters=16, **options),
    ]


def measure(task: Task, rounds: int) -> dict[str, Any]:
    """Times the contestants in turn, and the steps alone, after a warm-up of each."""
    values = listed_values(task.trials)
    steps = Steps(task)
    for contestant in CONTESTANTS.values():
        run_search(contestant, with_trials(task, 1), objective=OBJECTIVE, values=values)
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    later: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    alone = []
    shuffled = {}
    for order in turns(list(CONTESTANTS), rounds):
        alone.append(steps.seconds())
        for name in order:
            ends: list[float] = []
            found = run_search(
                CONTESTANTS[name],
                task,
                objective=OBJECTIVE,
                values=values,
                epoch_ended=recorder(ends),
            )
            seconds[name].append(found.seconds)
            later[name].append(seconds_after_the_first(ends, task.epochs))
            shuffled[name] = found.scores
    ordered = {
        name: run_search(contestant, task, objective=OBJECTIVE, values=values, shuffle=False).scores
        for name, contestant in CONTESTANTS.items()
    }
    return {
        "data": task.data,
        "trials": task.trials,
        "epochs": task.epochs,
        "batch_size": task.batch_size,
        "seconds": seconds,
        "seconds_of_a_trial_after_the_first": later,
        "steps_of_a_trial": alone,
        "scores_in_order": ordered,
        "scores_shuffled": shuffled,
    }


def recorder(ends: list[float]) -> Hook:
    """Returns a hook that notes when epochs end."""

    def record(now: float, _: Mapping[str, Any]) -> None:
        ends.append(now)

    return record


def seconds_after_the_first(ends: Sequence[float], epochs: int) -> float:
    """Returns the seconds of a trial, the mean of all but the first, which compiles.

    Args:
        ends: When each epoch ended, trial after trial.
        epochs: Of each trial.
    """
    last = ends[epochs - 1 :: epochs]
    return (last[-1] - last[0]) / (len(last) - 1)


def rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Returns the table of one task."""
    base = statistics.median(found["seconds"][BASE])
    beyond = {name: beyond_steps(found, name) for name in found["seconds"]}
    later = {name: later_beyond_steps(found, name) for name in found["seconds"]}
    lines = []
    for name, samples in found["seconds"].items():
        middle = statistics.median(samples)
        in_order = differences(found["scores_in_order"], name)
        shuffled = differences(found["scores_shuffled"], name)
        lines.append(
            [
                name,
                spread(samples),
                f"{3600 * found['trials'] / middle:,.0f}",
                f"{base / middle:.2f}",
                f"{beyond[name]:.3f}",
                f"{100 * beyond[name] / beyond[BASE]:.0f}",
                f"{later[name]:.3f}",
                f"{100 * later[name] / later[BASE]:.0f}",
                "" if name == BASE else f"{max(map(abs, in_order)):.2g}",
                "" if name == BASE else f"{statistics.mean(shuffled):+.4f}",
            ]
        )
    return lines


def beyond_steps(found: Mapping[str, Any], name: str) -> float:
    """Returns the median over rounds of a trial's seconds less those of its steps."""
    pairs = zip(found["seconds"][name], found["steps_of_a_trial"], strict=True)
    return float(statistics.median(whole / found["trials"] - steps for whole, steps in pairs))


def later_beyond_steps(found: Mapping[str, Any], name: str) -> float:
    """Returns the same of the trials after the first."""
    pairs = zip(
        found["seconds_of_a_trial_after_the_first"][name], found["steps_of_a_trial"], strict=True
    )
    return float(statistics.median(whole - steps for whole, steps in pairs))


def differences(scores: Mapping[str, Sequence[float]], name: str) -> list[float]:
    """Returns a contestant's scores less KerasTuner's, trial by trial."""
    return [mine - base for mine, base in zip(scores[name], scores[BASE], strict=True)]


def run(
    folder: Path, *, rounds: int, smoke: bool, jit: bool | str, only: Sequence[str] = ()
) -> None:
    """Measures, prints and writes the tasks whose names hold one of the words, or all.

    Tasks of an earlier run that are not measured now stay in the file, with their dates.
    """
    path = folder / "tuning_equal.json"
    result = json.loads(path.read_text("utf-8"))["tasks"] if only and path.is_file() else {}
    for task in tasks(smoke=smoke, jit=jit):
        if only and not any(word in task.name for word in only):
            continue
        found = {"date": datetime.now(UTC).date().isoformat(), **measure(task, rounds)}
        result[task.name] = found
        title = (
            f"{task.name}: {task.data}; {task.trials} trials of {task.epochs} epochs, "
            f"median of {rounds}; steps of a trial {spread(found['steps_of_a_trial'])} s; "
            f"Δ: {OBJECTIVE} less KerasTuner's"
        )
        print_table(title, COLUMNS, rows(found))
        write_result(folder, "equal", {"rounds": rounds, "jit_compile": jit, "tasks": result})
