"""Steps per second of a model in several libraries, each in its own process, taking turns."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.speed_models import APPLICATIONS, MAKERS, NAMES
from benchmarks.startup import ROOT, child_environment, show, turns
from benchmarks.tuning_results import spread, write_json
from recipes.versions import versions

OURS = "keras-zoo"
TORCH = ("timm", "timm compiled")
PEERS = ("keras-hub", "zeromodels")
RESULTS = Path(__file__).with_name("results")
PAUSE_S = 0.3  # in which the threads of the last contestant go to sleep
ONCE = ("build", "load")  # tasks whose step has no images
COLUMNS = ("library", "{}/s (min..max)", "ours is faster (min..max)", "trainable parameters")


class Worker:
    """A contestant's process.

    Args:
        python: Interpreter of its environment.
        request: What the script's `prepare` takes.
        script: A file beside this one.

    Attributes:
        facts: What it has made, or a "failure".
    """

    def __init__(
        self, python: str, request: Mapping[str, Any], script: str = "speed_worker.py"
    ) -> None:
        self._process = subprocess.Popen(
            [python, str(ROOT / "benchmarks" / script)],
            env=child_environment(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.facts: dict[str, Any] = self.ask(json.dumps(request))

    def seconds(self, steps: int) -> float:
        """Returns the seconds of one step, the mean of several."""
        return float(self.ask(str(steps)))

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()  # also closes the pipes

    def ask(self, line: str) -> Any:
        """Returns the process' answer to a line."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("The process has no pipes.")
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"failure": "its process ended"}
        answer = self._process.stdout.readline()
        return json.loads(answer) if answer else {"failure": "its process ended"}


def contestants(model: str, chosen: Sequence[str]) -> list[str]:
    """Returns who has the model."""
    absent = {"keras.applications": model not in APPLICATIONS}
    absent["keras-hub"] = model == "convnext_tiny"  # it has none
    return [name for name in chosen if not absent.get(name)]


def measure(
    model: str,
    task: str,
    *,
    libraries: Sequence[str],
    pythons: Mapping[str, str],
    size: int,
    batch: int,
    rounds: int,
    steps: int,
) -> dict[str, Any]:
    """Returns the seconds of steps by library, and why a library has none."""
    found: dict[str, Any] = {"seconds": {}, "params": {}, "versions": {}, "failures": {}}
    workers: dict[str, Worker] = {}
    try:
        for library in contestants(model, libraries):
            request = {
                "library": library, "model": model, "task": task, "size": size, "batch": batch,
            }  # fmt: skip
            worker = Worker(pythons.get(library, sys.executable), request)
            if "failure" in worker.facts:
                found["failures"][library] = worker.facts["failure"]
                worker.close()
                continue
            workers[library] = worker
            found["params"][library] = worker.facts["params"]
            found["versions"] |= worker.facts["versions"]
            found["seconds"][library] = []
        for order in turns(list(workers), rounds) if workers else ():
            for library in order:
                time.sleep(PAUSE_S)
                found["seconds"][library].append(workers[library].seconds(steps))
    finally:
        for worker in workers.values():
            worker.close()
    return found


def rows(found: Mapping[str, Any], batch: int) -> list[list[str]]:
    """Returns the table of one model; ratios are those of the same round.

    Args:
        found: What `measure` returns.
        batch: Images of a step.
    """
    ours = found["seconds"].get(OURS)
    lines = []
    for library, seconds in found["seconds"].items():
        speed = [batch / one for one in seconds]
        digits = 1 if statistics.median(speed) > 3 else 2
        faster = ""
        if ours and library != OURS:
            faster = spread([theirs / own for theirs, own in zip(seconds, ours, strict=True)])
        lines.append([library, spread(speed, digits), faster, f"{found['params'][library]:,}"])
    return lines + [[name, line, "", ""] for name, line in found["failures"].items()]


def run(asked: argparse.Namespace, task: str, path: Path) -> None:
    """Measures, prints and writes, a model after the other.

    Models of an earlier run that are not measured now stay in the file.
    """
    content: dict[str, Any] = {"models": {}}
    if path.is_file():
        content = json.loads(path.read_text("utf-8"))
    facts = {"size": asked.size, "batch": asked.batch, "steps": asked.steps}
    for model in asked.models:
        found = measure(
            model,
            task,
            libraries=[OURS, *(name for name in asked.libraries if name != OURS)],
            pythons=pythons(asked),
            size=asked.size,
            batch=asked.batch,
            rounds=asked.rounds,
            steps=asked.steps,
        )
        once = task in ONCE
        steps = "" if once else f", batch {asked.batch}"
        title = (
            f"{model}, {task}, {asked.size} px{steps}; median of {asked.rounds} rounds of "
            f"{asked.steps} steps"
        )
        columns = [column.format("models" if once else "images") for column in COLUMNS]
        show(title, columns, rows(found, 1 if once else asked.batch))
        used = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
        print(f"{used}\n", flush=True)
        content["models"][model] = {"date": datetime.now(UTC).date().isoformat(), **facts, **found}
        content["made_with"] = versions()
        write_json(path, content)


def parse(
    description: str | None, tasks: Sequence[str], arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Reads what a speed benchmark is asked; the first task is the default."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=tasks, default=tasks[0])
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--libraries", nargs="+", choices=list(MAKERS), default=list(MAKERS))
    parser.add_argument("--torch", help="Python of an environment with torch and timm")
    parser.add_argument("--peers", help="Python of an environment with keras-hub and zeromodels")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--batch", type=int, default=8, help="images")
    parser.add_argument("--rounds", type=int, default=7, help="samples of each")
    parser.add_argument("--steps", type=int, default=2, help="batches per sample")
    parser.add_argument("--output", type=Path, help="the JSON file to write")
    return parser.parse_args(arguments)


def pythons(asked: argparse.Namespace) -> dict[str, str]:
    """Returns the interpreters of contestants that need another environment."""
    found = dict.fromkeys(PEERS, asked.peers) if asked.peers else {}
    return found | (dict.fromkeys(TORCH, asked.torch) if asked.torch else {})


def main(description: str | None, tasks: Sequence[str]) -> None:
    """Runs what the command line asks."""
    asked = parse(description, tasks)
    run(asked, asked.task, asked.output or RESULTS / f"speed_{asked.task}_{asked.size}.json")
