"""What ways of fine-tuning are worth in the same seconds: real weights, a real colour set.

Run as `python -m benchmarks.finetune`; about 40 minutes on two cores: linear probe, full, staged
with layer decay, LoRA and from scratch, EfficientNet-Lite0 with its published weights on the emoji
set, three seeds, two minutes each. Writes `benchmarks/results/finetune.json` with versions and
machine. `--smoke` shows in a few minutes that it works, and writes only where `--out` says.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import recipes
from benchmarks.startup import show
from benchmarks.tuning_results import RESULTS, write_json
from recipes.finetune_methods import METHODS
from recipes.finetune_report import TITLES

COLUMNS = ("method", "test accuracy", "of the seeds", "seconds", "trainable parameters", "saved")


def rows(methods: Mapping[str, Mapping[str, Any]], head: str) -> list[list[str]]:
    """One row for each method."""
    return [
        [
            TITLES[name],
            f"{found[head]:.3f}",
            f"{found['lowest']:.3f} to {found['highest']:.3f}",
            f"{found['seconds']:.0f}",
            f"{found['trainable']:,}",
            f"{found['saved_bytes'] / 1e6:.2f} MB",
        ]
        for name, found in methods.items()
    ]


def measure(folder: Path, *, seconds: int, seeds: int, smoke: bool) -> dict[str, Any]:
    """Runs the recipe with every method and returns its metrics, less the list of classes."""
    metrics = recipes.run(
        "finetune-image",
        methods=tuple(METHODS),
        arm_seconds=seconds,
        seeds=seeds,
        smoke=smoke,
        quiet=True,
        out=str(folder),
        resume=True,  # goes on where an interrupted measurement stopped
    ).metrics
    metrics["data"].pop("classes", None)
    return metrics


def main() -> None:
    """Measures, prints the table, writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=120, help="of training, for each method")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="smallest size, to see it work")
    parser.add_argument("--folder", type=Path, help="of the run; keeps its report")
    parser.add_argument("--out", type=Path, help="the JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "run"
        found = measure(folder, seconds=options.seconds, seeds=options.seeds, smoke=options.smoke)
    data, model = found["data"], found["model"]
    title = (
        f"{model['name']} ({model['weights']}) on {data['name']}: {data['train']:,} images of "
        f"{data['size'][0]} px to train, {data['test']:,} to test"
    )
    show(title, COLUMNS, rows(found["methods"], found["headline"]))
    print(", ".join(f"{name} {version}" for name, version in found["versions"].items()))
    path = options.out or (None if options.smoke else RESULTS / "finetune.json")
    if path is not None:
        write_json(path, {"date": datetime.now(UTC).date().isoformat(), **found})


if __name__ == "__main__":
    main()
