"""Images augmented per second of processor, beside keras.layers, keras-aug, torchvision and others.

    python -m benchmarks.augment --torch T --albumentations A --keras-aug K    # Pythons with these

Each library in a process of its own, taking turns within every round: RandAugment (two of 14
operations, level 9 of 30), RandomResizedCrop with flip, ColorJitter and erasing, MixUp and CutMix,
at 224 and at 32 px, uint8 batches of 64. Keras layers run in tf.data, a batch at a time, the
others image by image in one thread; processor seconds are those of all threads. The time to the
first batch has imports and compilation in it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.speed import OURS, PAUSE_S, RESULTS, Worker
from benchmarks.startup import show, turns
from benchmarks.tuning_results import spread, write_json
from recipes.versions import versions

PIPELINES = ("randaugment", "randaugment bilinear", "crop, flip, jitter, erase", "mixup", "cutmix")
LIBRARIES = (OURS, "keras.layers", "keras-aug", "torchvision", "timm", "albumentations")
COLUMNS = ("library", "images per processor second", "ours is faster (min..max)", "s to the first")
SAMPLE_S = 1.0  # of processor, of each sample


def measure(
    pipeline: str, size: int, libraries: Sequence[str], pythons: Mapping[str, str], rounds: int
) -> dict[str, Any]:
    """Returns the processor seconds per image by library, and why a library has none."""
    found: dict[str, Any] = {"seconds": {}, "clock": {}, "first_s": {}, "failures": {}}
    found["versions"] = {}
    workers: dict[str, tuple[Worker, int]] = {}
    try:
        for library in libraries:
            request = {"library": library, "pipeline": pipeline, "size": size}
            worker = Worker(pythons.get(library, sys.executable), request, "augment_worker.py")
            if "failure" in worker.facts:
                found["failures"][library] = worker.facts["failure"]
                worker.close()
                continue
            once = worker.ask("2")[0]
            workers[library] = worker, max(1, round(SAMPLE_S / (64 * once)))
            found["first_s"][library] = worker.facts["first_s"]
            found["versions"] |= worker.facts["versions"]
            found["seconds"][library], found["clock"][library] = [], []
        for order in turns(list(workers), rounds) if workers else ():
            for library in order:
                time.sleep(PAUSE_S)
                worker, batches = workers[library]
                busy, clock = worker.ask(str(batches))
                found["seconds"][library].append(busy)
                found["clock"][library].append(clock)
    finally:
        for worker, _ in workers.values():
            worker.close()
    return found


def rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Returns the table of one pipeline; ratios are those of the same round."""
    ours = found["seconds"].get(OURS)
    lines = []
    for library, seconds in found["seconds"].items():
        faster = ""
        if ours and library != OURS:
            faster = spread([theirs / own for theirs, own in zip(seconds, ours, strict=True)])
        speed = spread([1.0 / one for one in seconds], 0)
        lines.append([library, speed, faster, f"{found['first_s'][library]:.1f}"])
    return lines + [[name, line, "", ""] for name, line in found["failures"].items()]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pipelines", nargs="+", choices=PIPELINES, default=list(PIPELINES))
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 32], help="pixels")
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--torch", help="Python of an environment with torchvision and timm")
    parser.add_argument("--albumentations", help="Python of an environment with albumentations")
    parser.add_argument("--keras-aug", help="Python of an environment with keras-aug")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "augment.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes, a pipeline after the other."""
    asked = parse(arguments)
    pythons = {
        name: python
        for name, python in (
            ("torchvision", asked.torch),
            ("timm", asked.torch),
            ("albumentations", asked.albumentations),
            ("keras-aug", asked.keras_aug),
        )
        if python
    }
    content: dict[str, Any] = {"pipelines": {}}
    for size in asked.sizes:
        for pipeline in asked.pipelines:
            found = measure(pipeline, size, asked.libraries, pythons, asked.rounds)
            title = f"{pipeline}, {size} px; median of {asked.rounds} rounds"
            show(title, COLUMNS, rows(found))
            used = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
            print(f"{used}\n", flush=True)
            facts = {"date": datetime.now(UTC).date().isoformat(), **found}
            content["pipelines"][f"{pipeline}, {size} px"] = facts
            content["made_with"] = versions()
            write_json(asked.output, content)


if __name__ == "__main__":
    main()
