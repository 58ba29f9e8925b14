"""Two worker processes beside one: the same trials, with the start of the processes apart."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.startup import turns
from benchmarks.tuning_results import print_table, spread, write_result
from benchmarks.tuning_searches import OURS, Contestant, run_search
from benchmarks.tuning_tasks import SEED, Task, cnn_task, listed_values, with_trials

CONTESTANTS = {
    "1 worker": Contestant(library=OURS, tuner="RandomSearch", options={"workers": 1}),
    "2 workers": Contestant(library=OURS, tuner="RandomSearch", options={"workers": 2}),
}
OBJECTIVE = "val_loss"
COLUMNS = (
    "workers",
    "seconds (min..max)",
    "s until the first epoch",
    "seconds after that",
    "trials / h after that",
    "faster",
    "faster after that",
)


def measure(contestant: Contestant, task: Task) -> dict[str, float]:
    """Returns the seconds of a search and of its start: until its first epoch began."""
    starts: list[float] = []

    def epoch_ended(now: float, logs: Mapping[str, Any]) -> None:
        starts.append(now - logs["seconds"])

    values = listed_values(task.trials)
    found = run_search(
        contestant, task, objective=OBJECTIVE, values=values, epoch_ended=epoch_ended
    )
    return {"seconds": found.seconds, "start": min(starts)}


def rows(trials: int, samples: Mapping[str, list[dict[str, float]]]) -> list[list[str]]:
    """Returns the table."""
    whole = {name: [one["seconds"] for one in found] for name, found in samples.items()}
    rest = {
        name: [one["seconds"] - one["start"] for one in found] for name, found in samples.items()
    }
    base = next(iter(samples))
    middle = statistics.median
    return [
        [
            name,
            spread(whole[name]),
            spread([one["start"] for one in found]),
            spread(rest[name]),
            f"{3600 * trials / middle(rest[name]):,.0f}",
            f"{middle(whole[base]) / middle(whole[name]):.2f}",
            f"{middle(rest[base]) / middle(rest[name]):.2f}",
        ]
        for name, found in samples.items()
    ]


def run(folder: Path, *, rounds: int, smoke: bool, jit: bool | str) -> None:
    """Measures, prints and writes."""
    task = cnn_task(smoke=smoke, seed=SEED, jit_compile=jit)
    task = with_trials(task, 4 if smoke else 16)
    for contestant in CONTESTANTS.values():
        measure(contestant, with_trials(task, 2))
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for order in turns(list(CONTESTANTS), rounds):
        for name in order:
            samples[name].append(measure(CONTESTANTS[name], task))
    title = (
        f"Workers: {task.name}, {task.data}; {task.trials} trials of {task.epochs} epochs, "
        f"median of {rounds}"
    )
    print_table(title, COLUMNS, rows(task.trials, samples))
    content = {"rounds": rounds, "jit_compile": jit, "trials": task.trials, "samples": samples}
    write_result(folder, "workers", content)
