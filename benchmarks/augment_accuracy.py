"""What augmentation is worth: test accuracy without any, with ours, with keras.layers.RandAugment.

    python -m benchmarks.augment_accuracy                     # about 25 minutes on two quiet cores
    python -m benchmarks.augment_accuracy --smoke --output smoke.json

One CNN of the catalog from random weights, on clothes (Fashion-MNIST, part of its training images,
grey put thrice) and on colour pictures (emoji by category). All arms see the same images in the
same order, for the same steps at the same rates; RandAugment is two operations at three tenths of
their range, batch by batch in tf.data, with nearest sampling. Nothing is chosen on the test images:
the last epoch counts. Each run is a process of its own; one that is in the output is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.augment_training import (
    ARMS,
    MAGNITUDE,
    MODEL,
    NONE,
    OPERATIONS,
    TASKS,
    VALUES,
    Task,
    run,
    tasks,
)
from benchmarks.startup import show
from benchmarks.tuning_results import RESULTS, in_fresh_process, write_json
from recipes.versions import versions

COLUMNS = ("data", "arm", "test accuracy", "above none", "s per epoch", "CPU s per epoch")


def settings(chosen: Sequence[Task]) -> dict[str, Any]:
    """Returns what results must have in common."""
    return {
        "model": MODEL,
        "operations": OPERATIONS,
        "magnitude": MAGNITUDE,
        "values": VALUES,
        "tasks": {
            task.name: {k: v for k, v in asdict(task).items() if k != "run_s"} for task in chosen
        },
    }


def started(path: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the runs that a file holds.

    Raises:
        SystemExit: They are of other settings.
    """
    if not path.exists():
        return {}
    found = json.loads(path.read_text("utf-8"))
    if found["settings"] != json.loads(json.dumps(wanted)):
        raise SystemExit(
            f"{path} holds runs of other settings. Delete it or pass another --output."
        )
    runs: dict[str, Any] = found["runs"]
    return runs


def rows(runs: Mapping[str, Any], names: Sequence[str]) -> list[list[str]]:
    """Returns the table: means over seeds with their standard deviation."""
    lines = []
    for name in names:
        plain = _by_seed(runs, name, NONE)
        for arm in ARMS:
            found = _by_seed(runs, name, arm)
            if not found:
                continue
            gains = [
                one["accuracy"] - plain[seed]["accuracy"]
                for seed, one in found.items()
                if seed in plain and arm != NONE
            ]
            lines.append(
                [
                    name,
                    arm,
                    _mean([one["accuracy"] for one in found.values()]),
                    _mean(gains, "+") if gains else "",
                    f"{statistics.median(one['epoch_s'] for one in found.values()):.2f}",
                    f"{statistics.median(one['epoch_cpu_s'] for one in found.values()):.2f}",
                ]
            )
    return lines


def _by_seed(runs: Mapping[str, Any], name: str, arm: str) -> dict[str, Any]:
    start = f"{name}/{arm}/"
    return {key.removeprefix(start): one for key, one in runs.items() if key.startswith(start)}


def _mean(values: Sequence[float], sign: str = "") -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):{sign}.2f} % +- {100 * deviation:.2f}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=tuple(TASKS), default=list(TASKS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="seconds, on noise")
    parser.add_argument("--output", type=Path, default=RESULTS / "augment_accuracy.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing, prints and writes after every run."""
    asked = parse(arguments)
    chosen = tasks(asked.data, smoke=asked.smoke)
    wanted = settings(chosen)
    runs = started(asked.output, wanted)
    missing = [
        (task, arm, seed)
        for seed in range(asked.seeds)
        for task in chosen
        for arm in asked.arms
        if f"{task.name}/{arm}/{seed}" not in runs
    ]
    seconds = sum(task.run_s[arm] for task, arm, _ in missing)
    print(f"{len(missing)} runs, about {seconds / 60:.0f} minutes on two cores", flush=True)
    for task, arm, seed in missing:
        done = in_fresh_process(run, task=asdict(task), arm=arm, seed=seed)
        runs[f"{task.name}/{arm}/{seed}"] = done
        line = f"{task.name}, {arm}, seed {seed}: {done['accuracy']:.4f}"
        print(f"{line}, {done['total_s']:.0f} s", file=sys.stderr, flush=True)
        date = datetime.now(UTC).date().isoformat()
        made = {"date": date, "made_with": versions(), "settings": wanted, "runs": runs}
        write_json(asked.output, made)
    show(f"{MODEL}, mean and deviation of the seeds", COLUMNS, rows(runs, asked.data))


if __name__ == "__main__":
    main()
