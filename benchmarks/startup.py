"""Start-up, model creation and weight loading beside Keras, keras-hub and kimm.

    python -m benchmarks.startup                 # a few minutes, best on a quiet machine
    python -m benchmarks.startup --rounds 3 --output quick.json

Three questions, each answered in fresh processes, the contestants taking turns within every round:
how long until a library has listed its models (above an interpreter that does nothing), how long
creating a model with random weights takes once everything is imported, and how long when weights
from a file follow. Prints Markdown tables and writes the raw samples, in seconds, as JSON. An
absent package is left out with a line saying so; one that fails shows its error for a number.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import gc
import importlib.metadata
import importlib.util
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

import zoo
from benchmarks.speed_models import KERAS_HUB as KERAS_HUB_OPTIONS
from recipes.versions import versions

ROOT = Path(__file__).parents[1]
OUTPUT = Path(__file__).with_name("results") / "startup.json"
LOADED = "resnet50"
EMPTY = "empty interpreter"
OURS, KERAS = "keras-zoo", "keras.applications"

# The first two steer numpy's BLAS away from what it picks for the processor by itself; without
# bytecode a source tree would be compiled at every start, which no installed package is.
REMOVED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONDONTWRITEBYTECODE")

LISTINGS = {  # name -> the package it needs, the statement that is timed
    OURS: ("zoo", "import zoo; zoo.list_models()"),
    "keras": ("keras", "import keras"),  # has no listing
    "keras-hub": ("keras_hub", "import keras_hub; list(keras_hub.models.Backbone.presets)"),
    "kimm": ("kimm", "import kimm; kimm.list_models()"),
}

CLASSES = {  # the models compared, as keras.applications and kimm both call them
    "resnet50": "ResNet50",
    "efficientnet_b0": "EfficientNetB0",
}
KERAS_HUB = {name: KERAS_HUB_OPTIONS[name] for name in CLASSES}  # presets would be downloaded

Model = Any
Maker = Callable[[], Model]


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """One measurement: samples of equal length by contestant, and why others have none."""

    seconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    params: dict[str, int] = dataclasses.field(default_factory=dict)  # trainable
    failures: dict[str, str] = dataclasses.field(default_factory=dict)


def turns(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    """Yields the order of every round; each starts one contestant further than the last."""
    for index in range(rounds):
        first = index % len(names)
        yield [*names[first:], *names[:first]]


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def missing(package: str) -> str:
    return f"skipped: the package `{package}` is not installed"


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in environ.items() if name not in REMOVED}
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": "3"}


def error_line(text: str) -> str:
    """Returns the last line that names an error, else the last line with text."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return ["failed without a message", *lines[-1:], *named[-1:]][-1]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=child_environment(os.environ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def listing_outcome(listings: Mapping[str, tuple[str, str]], rounds: int) -> Outcome:
    """Times whole interpreters: one that does nothing, and one per statement.

    Raises:
        CalledProcessError: A statement that worked at first failed later.
    """
    outcome = Outcome()
    statements = {EMPTY: "pass"}
    for name, (package, statement) in listings.items():
        if not is_installed(package):
            outcome.failures[name] = missing(package)
        elif (trial := run_python(statement)).returncode:  # also fills the file cache
            outcome.failures[name] = error_line(trial.stderr)
        else:
            statements[name] = statement
    outcome.seconds = {name: [] for name in statements}
    for order in turns(list(statements), rounds):
        for name in order:
            start = time.perf_counter()
            finished = run_python(statements[name])
            outcome.seconds[name].append(time.perf_counter() - start)
            finished.check_returncode()
    return outcome


def above_empty(seconds: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Returns the milliseconds above the same round's empty interpreter."""
    empty = seconds[EMPTY]
    return {
        name: [1000 * (whole - least) for whole, least in zip(samples, empty, strict=True)]
        for name, samples in seconds.items()
        if name != EMPTY
    }


def make_zoo(name: str) -> Model:
    return zoo.create_model(name)


def make_applications(name: str) -> Model:
    import keras

    return getattr(keras.applications, CLASSES[name])(weights=None)


def make_keras_hub(name: str) -> Model:
    from keras_hub import models

    family, options = KERAS_HUB[name]
    backbone = getattr(models, f"{family}Backbone")(**options)
    return getattr(models, f"{family}ImageClassifier")(backbone, num_classes=1000)


def make_kimm(name: str) -> Model:
    import kimm

    return getattr(kimm.models, CLASSES[name])(weights=None)


CREATORS: dict[str, tuple[str, Callable[[str], Model]]] = {
    OURS: ("zoo", make_zoo),
    KERAS: ("keras", make_applications),
    "keras-hub": ("keras_hub", make_keras_hub),
    "kimm": ("kimm", make_kimm),
}


def trainable_params(model: Model) -> int:
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def seconds_of(make: Maker) -> float:
    gc.collect()
    start = time.perf_counter()
    made = make()
    seconds = time.perf_counter() - start
    del made  # after the clock has stopped: freeing the model is not part of creating it
    return seconds


def alternate(makers: Mapping[str, Maker], rounds: int) -> Outcome:
    """Times the makers in turn, after one warm-up each that also counts the parameters."""
    outcome = Outcome()
    for name, make in makers.items():
        try:
            outcome.params[name] = trainable_params(make())
        except Exception as error:  # noqa: BLE001 - whatever a library raises is its result
            outcome.failures[name] = error_line(f"{type(error).__name__}: {error}")
    outcome.seconds = {name: [] for name in outcome.params}
    for order in turns(list(outcome.params), rounds):
        for name in order:
            outcome.seconds[name].append(seconds_of(makers[name]))
    return outcome


def creation_outcome(model: str, rounds: int) -> Outcome:
    """Times creating one model with random weights."""
    found = {name: make for name, (package, make) in CREATORS.items() if is_installed(package)}
    outcome = alternate({n: functools.partial(make, model) for n, make in found.items()}, rounds)
    absent = {name: missing(CREATORS[name][0]) for name in CREATORS if name not in found}
    return dataclasses.replace(outcome, failures={**absent, **outcome.failures})


def load_zoo(name: str, file: Path) -> Model:
    return zoo.create_model(name, weights=file)


def load_applications(name: str, file: Path) -> Model:
    model = make_applications(name)
    model.load_weights(file)
    return model


def write_loaders(name: str, folder: Path) -> dict[str, Maker]:
    """Writes one file per library and returns what loads it, having seen that it does.

    Raises:
        RuntimeError: A loaded model differs from the one that was saved.
    """
    ours, theirs = folder / f"{name}.safetensors", folder / f"{name}.weights.h5"
    saved = {OURS: make_zoo(name), KERAS: make_applications(name)}
    zoo.export_weights(saved[OURS], ours)
    saved[KERAS].save_weights(theirs)
    loaders: dict[str, Maker] = {
        OURS: functools.partial(load_zoo, name, ours),
        KERAS: functools.partial(load_applications, name, theirs),
    }
    for library, load in loaders.items():
        if not has_equal_weights(saved[library], load()):
            raise RuntimeError(f"{library} loaded other weights into {name} than were saved.")
    return loaders


def has_equal_weights(first: Model, second: Model) -> bool:
    pairs = zip(first.get_weights(), second.get_weights(), strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


def loading_outcome(model: str, rounds: int) -> Outcome:
    """Times creating one model and filling it from a local file."""
    with tempfile.TemporaryDirectory() as folder:
        return alternate(write_loaders(model, Path(folder)), rounds)


def in_fresh_process(measure: Callable[[str, int], Outcome], model: str, rounds: int) -> Outcome:
    """Runs one of this file's measurements in a new interpreter.

    Raises:
        SystemExit: It failed there; its own message follows.
    """
    child = run_python(
        "import dataclasses, json; from benchmarks import startup; "
        f"outcome = startup.{measure.__name__}({model!r}, {rounds}); "
        "print(); print(json.dumps(dataclasses.asdict(outcome)))"
    )
    if child.returncode:
        raise SystemExit(f"{measure.__name__} of {model} failed:\n{child.stderr}")
    return Outcome(**json.loads(child.stdout.splitlines()[-1]))


def middle_and_ends(samples: Sequence[float], digits: int) -> list[str]:
    values = statistics.median(samples), min(samples), max(samples)
    return [f"{value:.{digits}f}" for value in values]


def listing_rows(outcome: Outcome) -> list[list[str]]:
    rows = [
        [name, *middle_and_ends(samples, 0), LISTINGS[name][1]]
        for name, samples in above_empty(outcome.seconds).items()
    ]
    return rows + failure_rows(outcome)


def model_rows(outcome: Outcome) -> list[list[str]]:
    base = statistics.median(outcome.seconds[KERAS])
    rows = []
    for name, samples in outcome.seconds.items():
        ratio, params = statistics.median(samples) / base, outcome.params[name]
        rows.append([name, *middle_and_ends(samples, 3), f"{ratio:.2f}", f"{params:,}"])
    return rows + failure_rows(outcome)


def failure_rows(outcome: Outcome) -> list[list[str]]:
    return [[name, line] for name, line in outcome.failures.items()]


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*columns, box=MARKDOWN)
    for row in rows:
        table.add_row(*row)
    Console(width=160, markup=False, highlight=False).print(title, table, sep="\n")


def show_models(title: str, outcome: Outcome) -> None:
    columns = ("library", "median s", "min", "max", f"/ {KERAS}", "trainable parameters")
    show(title, columns, model_rows(outcome))


def made_with() -> dict[str, str | int]:
    """Returns versions and machine, with the versions of the installed contestants."""
    known = {**versions(), "keras-zoo": zoo.__version__}
    for package in ("keras-hub", "kimm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            known[package] = importlib.metadata.version(package)
    return known


def report(listing: Outcome, creation: Mapping[str, Outcome], loading: Outcome) -> dict[str, Any]:
    """Returns what the JSON file holds."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "made_with": made_with(),
        "listing": {
            "statements": {EMPTY: "pass", **{n: code for n, (_, code) in LISTINGS.items()}},
            **dataclasses.asdict(listing),
        },
        "creation": {model: dataclasses.asdict(outcome) for model, outcome in creation.items()},
        "loading": {LOADED: dataclasses.asdict(loading)},
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Start-up, creation and loading, beside others.")
    parser.add_argument("--rounds", type=int, default=9, help="samples of each (default: 9)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the JSON file to write")
    parsed = parser.parse_args(arguments)
    if parsed.rounds < 1:
        parser.error(f"`--rounds` must be 1 or more; got {parsed.rounds}.")
    return parsed


def main() -> None:
    asked = parse()
    listing = listing_outcome(LISTINGS, asked.rounds)
    show(
        f"Importing and listing, ms above an {EMPTY} (median of {asked.rounds})",
        ("library", "median ms", "min", "max", "statement"),
        listing_rows(listing),
    )
    creation = {}
    for model in CLASSES:
        creation[model] = in_fresh_process(creation_outcome, model, asked.rounds)
        show_models(f"Creating {model}, random weights, everything imported", creation[model])
    loading = in_fresh_process(loading_outcome, LOADED, asked.rounds)
    show_models(f"Creating {LOADED} and loading its weights from a file", loading)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(report(listing, creation, loading), indent=1)
    asked.output.write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
