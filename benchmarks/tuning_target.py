"""Seconds until a search reaches the score that KerasTuner's RandomSearch ends on.

Each run has a fresh process and a file of its own in `tuning_target/`, written as soon as it ends,
so that an interrupted measurement goes on. Ours stops at the target, or after the seconds that
RandomSearch took; KerasTuner's searches run to their end.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.tuning_results import (
    in_fresh_process,
    made_with,
    print_table,
    spread,
    write_json,
    write_result,
)
from benchmarks.tuning_searches import OURS, STOCK, Contestant, Steps, run_search
from benchmarks.tuning_tasks import Task, cnn_task

BASE = "KerasTuner RandomSearch"
CONTESTANTS = {
    BASE: Contestant(library=STOCK, tuner="RandomSearch"),
    "KerasTuner Hyperband": Contestant(library=STOCK, tuner="Hyperband"),
    "KerasTuner BayesianOptimization": Contestant(library=STOCK, tuner="BayesianOptimization"),
    "ours ASHA, 1 worker": Contestant(library=OURS, tuner="ASHA"),
    "ours ASHA, 2 workers": Contestant(library=OURS, tuner="ASHA", options={"workers": 2}),
    "ours BOHB, 2 workers": Contestant(library=OURS, tuner="BOHB", options={"workers": 2}),
}
OBJECTIVE = "val_accuracy"
TRIALS, EPOCHS = 40, 27
RATES = (1e-5, 1e-1)  # learning rates that are searched
REBUILD_S, PROCESS_S = 1.0, 15.0  # of KerasTuner's trials; of a fresh process. For the estimate
COLUMNS = (
    "contestant",
    "s to target, by seed",
    "median",
    "faster",
    "reached",
    "s of the whole search",
)

Run = dict[str, Any]


def target_task(images: int, *, smoke: bool, jit: bool | str) -> Task:
    """Returns the search of this part."""
    task = cnn_task(images=images, smoke=smoke, learning_rate=RATES, jit_compile=jit)
    trials, epochs = (3, 3) if smoke else (TRIALS, EPOCHS)
    return dataclasses.replace(task, trials=trials, epochs=epochs)


def run_one(
    name: str,
    seed: int,
    images: int,
    smoke: bool,
    jit: bool | str,
    target: float | None,
    budget_s: float | None,
) -> Run:
    """Runs one search; returns its seconds and each improvement as (seconds, best so far).

    Args:
        name: One of CONTESTANTS.
        seed: Of the search.
        images: Training images.
        smoke: Noise, and tiny sizes.
        jit: As in `keras.Model.compile`.
        target: Score at which ours stops.
        budget_s: Seconds after which ours stops.
    """
    import keras

    contestant = CONTESTANTS[name]
    warm_up = dataclasses.replace(target_task(images, smoke=True, jit=jit), trials=1, epochs=1)
    plain = Contestant(library=contestant.library, tuner="RandomSearch")
    run_search(plain, warm_up, objective=OBJECTIVE)
    ours = contestant.library == OURS
    if ours:
        # No number of trials: it is the seconds that are compared.
        options = {**contestant.options, "max_trials": None, "time_budget": budget_s}
        contestant = dataclasses.replace(contestant, options=options)
    trace: list[list[float]] = []
    tuners: list[Any] = []

    def epoch_ended(now: float, logs: Mapping[str, Any]) -> None:
        score = float(logs[OBJECTIVE])
        if not trace or score > trace[-1][1]:
            trace.append([now, score])
        if ours and target is not None and score >= target:
            tuners[0].time_budget = 1e-9  # it asks for the time after this very epoch

    keras.utils.set_random_seed(seed)
    found = run_search(
        contestant,
        target_task(images, smoke=smoke, jit=jit),
        objective=OBJECTIVE,
        seed=seed,
        epoch_ended=epoch_ended,
        prepare=tuners.append,
    )
    return {
        "seconds": found.seconds,
        "trials": len(found.scores),
        "trace": trace,
        "made_with": made_with(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def seconds_to(trace: Sequence[Sequence[float]], target: float) -> float | None:
    """Returns when a search reached a score, or None."""
    return next((seconds for seconds, score in trace if score >= target), None)


def run_path(folder: Path, name: str, seed: int, settings: Mapping[str, Any]) -> Path:
    """Returns where a run is kept; other settings are other files."""
    words = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    parts = [words, f"{settings['images']}-images", f"seed{seed}"]
    parts += [word for word in ("jit", "smoke") if settings[word]]
    return folder / "tuning_target" / f"{'_'.join(parts).replace('--', '-')}.json"


def read_run(path: Path) -> Run | None:
    """Returns a run that is kept, or None."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def estimate(task: Task, missing: Sequence[str]) -> str:
    """Returns a line on how long the missing runs will take."""
    steps = Steps(dataclasses.replace(task, epochs=1)).seconds()
    searched = task.trials * (task.epochs * steps * 1.2 + REBUILD_S)
    brackets = 4  # of Hyperband with 27 epochs and factor 3, each of about the same epochs
    hyperband = brackets**2 * task.epochs * steps * 1.2 + 2 * task.trials * REBUILD_S
    ends = dict.fromkeys(CONTESTANTS, searched) | {"KerasTuner Hyperband": hyperband}
    low = high = 0.0
    for name in missing:
        high += ends[name] + PROCESS_S
        share = 1.0 if CONTESTANTS[name].library == STOCK else 0.1
        low += share * ends[name] + PROCESS_S
    return (
        f"{len(missing)} runs are to be made; an epoch's steps take {steps:.2f} s: about "
        f"{low / 60:.0f} to {high / 60:.0f} minutes. Each run is kept when it ends; an interrupted "
        "measurement goes on from there."
    )


def measure(
    folder: Path, seed: int, settings: Mapping[str, Any], fresh: bool = False
) -> dict[str, Run]:
    """Returns the runs of one seed, made where they are not kept, RandomSearch first.

    A contestant that fails has its error for a run, which is not kept.
    """
    runs: dict[str, Run] = {}
    for name, contestant in CONTESTANTS.items():
        ours = contestant.library == OURS
        path = run_path(folder, name, seed, settings)
        base = runs.get(BASE)
        target = base["trace"][-1][1] if base else None
        kept = None if ours and fresh else read_run(path)
        if kept is None:
            limits = {"target": target, "budget_s": base["seconds"] if base else None}
            print(f"seed {seed}: {name} ...", flush=True)
            try:
                kept = in_fresh_process(run_one, name=name, seed=seed, **settings, **limits)
            except RuntimeError as error:
                if name == BASE:
                    raise
                kept = {"failure": str(error), "trace": [], "seconds": 0.0}
            else:
                write_json(path, kept)
        runs[name] = kept
    return runs


def rows(runs: Mapping[int, Mapping[str, Run]]) -> list[list[str]]:
    """Returns the table: a run that never reaches the target shows where it ended."""
    lines = []
    base = {seed: reached(found, BASE) for seed, found in runs.items()}
    for name in CONTESTANTS:
        times = {seed: reached(found, name) for seed, found in runs.items()}
        shown = [cell(runs[seed], name, times[seed]) for seed in runs]
        whole = [seconds for seconds in times.values() if seconds is not None]
        complete = len(whole) == len(times)
        ratios = [
            one / mine
            for seed, mine in times.items()
            if mine is not None and (one := base[seed]) is not None
        ]
        lines.append(
            [
                name,
                ", ".join(shown),
                f"{statistics.median(whole):.1f}" if complete else "",
                f"{statistics.median(ratios):.2f}" if complete else "",
                f"{len(whole)} of {len(times)}",
                spread([found[name]["seconds"] for found in runs.values()], 0),
            ]
        )
    return lines


def reached(runs: Mapping[str, Run], name: str) -> float | None:
    """Returns the seconds a contestant took to the last score of RandomSearch."""
    return seconds_to(runs[name]["trace"], runs[BASE]["trace"][-1][1])


def cell(runs: Mapping[str, Run], name: str, seconds: float | None) -> str:
    """Returns what the table shows of one run."""
    found = runs[name]
    if seconds is not None:
        return f"{seconds:.1f}"
    if not found["trace"]:
        return str(found.get("failure", f"never (no epoch in {found['seconds']:.0f} s)"))
    return f"never ({found['trace'][-1][1]:.4f} after {found['seconds']:.0f} s)"


def run(
    folder: Path,
    *,
    smoke: bool,
    jit: bool | str,
    images: int,
    seeds: Sequence[int],
    fresh: bool,
) -> None:
    """Measures what is not kept, prints and writes."""
    settings = {"images": images, "smoke": smoke, "jit": jit}
    task = target_task(images, smoke=smoke, jit=jit)
    missing = [
        name
        for seed in seeds
        for name, contestant in CONTESTANTS.items()
        if (fresh and contestant.library == OURS)
        or not run_path(folder, name, seed, settings).is_file()
    ]
    if missing:
        print(estimate(task, missing), flush=True)
    runs = {}
    for seed in seeds:
        runs[seed] = measure(folder, seed, settings, fresh)
        finals = ", ".join(f"{found[BASE]['trace'][-1][1]:.4f}" for found in runs.values())
        title = (
            f"Time to the {OBJECTIVE} that {BASE} ends on after {task.trials} trials of "
            f"{task.epochs} epochs ({finals}); {task.name}, {task.data}"
        )
        print_table(title, COLUMNS, rows(runs))
        content = {"objective": OBJECTIVE, "trials": task.trials, "epochs": task.epochs}
        write_result(folder, "target", {**content, **settings, "runs": runs})
