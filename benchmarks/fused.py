"""Trials trained at once on JAX, beside the same trials one after the other.

    python -m benchmarks.fused                   # on a quiet machine
    python -m benchmarks.fused --smoke           # noise, tiny sizes, another folder
    python -m benchmarks.fused --rounds 3 --fused 16

An MLP on a table, and a small CNN. The two searches take turns within every round; both compile
anew each time, so what came after the first group of trials is shown apart. On a CPU a search with
convolutions refuses to fuse: its line is printed, and then what it costs all the same.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.startup import turns
from benchmarks.tuning_results import RESULTS, made_with, print_table, spread, write_json
from benchmarks.tuning_searches import OURS, Contestant, run_search
from benchmarks.tuning_tasks import Task, cnn_task, listed_values, table_task, with_trials

SINGLE, FUSED = "one by one", "fused"
OBJECTIVE = "val_loss"
COLUMNS = (
    "trials",
    "seconds (min..max)",
    "s after the first group",
    "faster",
    "faster after the first group",
    "largest difference",
)


@contextmanager
def nothing_refused() -> Iterator[None]:
    """Fuses convolutions on a CPU, and goes on with what is slower."""
    from tuning import fused, fused_steps

    steps: Any = fused_steps.FusedSteps
    before, fused.SLOW_ON_CPU = fused.SLOW_ON_CPU, ()
    measure, steps._measure = steps._measure, lambda *_: None
    try:
        yield
    finally:
        fused.SLOW_ON_CPU, steps._measure = before, measure


def measure(task: Task, width: int, first: int) -> dict[str, Any]:
    """Returns the seconds of a search, those after the first trials, its scores and lines.

    Args:
        task: For what.
        width: Trials at once.
        first: Number of the first trials.
    """
    ends: list[float] = []
    lines: list[str] = []

    def watch(tuner: Any) -> None:
        tuner.progress.line = lines.append

    found = run_search(
        Contestant(library=OURS, tuner="RandomSearch", options={"fused": width}),
        task,
        objective=OBJECTIVE,
        values=listed_values(task.trials),
        epoch_ended=lambda now, _: ends.append(now),
        prepare=watch,
    )
    after = ends[-1] - ends[first * task.epochs - 1]
    fused_lines = [line for line in lines if "fused" in line]
    return {"seconds": found.seconds, "after": after, "scores": found.scores, "lines": fused_lines}


def compare(task: Task, width: int, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Returns the samples of both searches, after a warm-up of each."""
    widths = {SINGLE: 1, FUSED: width}
    for count in widths.values():
        measure(with_trials(task, 2 * width), count, width)
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in widths}
    for order in turns(list(widths), rounds):
        for name in order:
            samples[name].append(measure(task, widths[name], width))
    return samples


def difference(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
    """Returns the largest relative difference of a score between the two."""
    pairs = zip(samples[SINGLE][0]["scores"], samples[FUSED][0]["scores"], strict=True)
    return float(max(abs(one - other) / abs(one) for one, other in pairs))


def rows(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """Returns the table."""
    found = {
        name: {key: [one[key] for one in taken] for key in ("seconds", "after")}
        for name, taken in samples.items()
    }

    def faster(name: str, key: str) -> str:
        middle = statistics.median
        return f"{middle(found[SINGLE][key]) / middle(found[name][key]):.2f}"

    return [
        [
            name,
            spread(seconds["seconds"]),
            spread(seconds["after"], 3),
            faster(name, "seconds"),
            faster(name, "after"),
            f"{difference(samples):.0e}" if name == FUSED else "",
        ]
        for name, seconds in found.items()
    ]


def run(task: Task, width: int, rounds: int) -> dict[str, Any]:
    """Measures a task, prints its table and returns its samples."""
    import jax

    samples = compare(task, width, rounds)
    lines = sorted({line for one in samples[FUSED] for line in one["lines"]})
    title = (
        f"Fused trials: {task.name}, {task.data}; {task.trials} trials of {task.epochs} epochs, "
        f"{width} at once, on {jax.devices()[0].device_kind}; median of {rounds}"
    )
    print_table(title, COLUMNS, rows(samples))
    for line in lines:
        print(f"The search said: {line}\n")
    return {"task": title, "trials": task.trials, "width": width, "samples": samples}


def tasks(*, smoke: bool, width: int) -> dict[str, Task]:
    """Returns what is measured: two tables of different length, and images."""
    groups = 2 if smoke else 4
    found = {
        "mlp": table_task(1_000, 500, smoke=smoke, jit_compile="auto"),
        "mlp_long": table_task(32_000, 4_000, smoke=smoke, jit_compile="auto"),
        "cnn": cnn_task(images=2_000, smoke=smoke, jit_compile="auto"),
    }
    if smoke:
        found.pop("mlp_long")
    return {name: with_trials(task, groups * width) for name, task in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, help="samples of each (default: 5, smoke: 1)")
    parser.add_argument("--fused", type=int, default=8, help="trials at once (default: 8)")
    parser.add_argument("--smoke", action="store_true", help="noise, tiny sizes, another folder")
    parser.add_argument("--results", type=Path, help="folder of the JSON file")
    asked = parser.parse_args(arguments)
    rounds = asked.rounds or (1 if asked.smoke else 5)
    smoke_folder = Path(tempfile.gettempdir()) / "keras-zoo-benchmarks"
    folder = asked.results or (smoke_folder if asked.smoke else RESULTS)
    path = folder / "fused.json"
    content: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "rounds": rounds}
    for name, task in tasks(smoke=asked.smoke, width=asked.fused).items():
        content[name] = run(task, asked.fused, rounds)
        write_json(path, content | {"made_with": made_with()})
        if any("CPU" in line for one in content[name]["samples"][FUSED] for line in one["lines"]):
            with nothing_refused():  # once: it takes minutes where it is refused with reason
                content[f"{name}_all_the_same"] = run(task, asked.fused, 1)
            write_json(path, content | {"made_with": made_with()})
    print(f"Written to {path}")


if __name__ == "__main__":
    main()
