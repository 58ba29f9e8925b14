"""Seconds until a search reaches the score that KerasTuner's RandomSearch ends on.

Each run has a fresh process and a file of its own in `tuning_target/`, written as soon as it ends,
so that an interrupted measurement goes on. Ours stops at the target, or after the seconds that
RandomSearch took; KerasTuner's searches run to their end. To a target, ours searches with several
seeds of its own: what a search finds first is chance. What workers take to start is told apart.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
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
}
OBJECTIVE = "val_accuracy"
REPEATS = 2  # searches of ours to each target
SEED_STEP = 100  # between the seeds of these searches
COMPARED = 2  # targets to which KerasTuner's other searches, ten minutes each, are run too
TRIALS, EPOCHS = 40, 27
RATES = (1e-5, 1e-1)  # learning rates that are searched
REBUILD_S, PROCESS_S = 1.0, 15.0  # of KerasTuner's trials; of a fresh process. For the estimate
STOCK_NAMES = tuple(name for name, one in CONTESTANTS.items() if one.library == STOCK)
COLUMNS = (
    "contestant",
    "s to the score, by target",
    "reached",
    "median s",
    "of it to start",
    *(f"faster than all of {name.removeprefix('KerasTuner ')}" for name in STOCK_NAMES),
    "than RandomSearch's first such score",
)

Run = dict[str, Any]


def target_task(images: int, *, smoke: bool, jit: bool | str) -> Task:
    """Returns the search of this part."""
    task = cnn_task(images=images, smoke=smoke, learning_rate=RATES, jit_compile=jit)
    trials, epochs = (3, 3) if smoke else (TRIALS, EPOCHS)
    return dataclasses.replace(task, trials=trials, epochs=epochs)


class Watch:
    """Notes when a search began its first trial and each improvement; stops it at a score.

    Args:
        stop_at: The score; None is none.

    Attributes:
        start: Seconds to the first trial.
        trace: Seconds and best score, at each improvement.
    """

    def __init__(self, *, stop_at: float | None) -> None:
        self.start = 0.0
        self.trace: list[list[float]] = []
        self._stop_at = stop_at
        self._tuner: Any = None

    def begin(self, tuner: Any) -> None:
        """Follows a tuner that is about to search."""
        self._tuner = tuner
        began, create = time.perf_counter(), tuner.oracle.create_trial

        def first(tuner_id: str) -> Any:
            tuner.oracle.create_trial = create
            self.start = time.perf_counter() - began
            return create(tuner_id)

        tuner.oracle.create_trial = first

    def epoch_ended(self, now: float, logs: Mapping[str, Any]) -> None:
        """Takes in an epoch."""
        score = float(logs[OBJECTIVE])
        if not self.trace or score > self.trace[-1][1]:
            self.trace.append([now, score])
        if self._stop_at is not None and score >= self._stop_at:
            self._tuner.time_budget = 1e-9  # it asks for the time after this very epoch


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
    watch = Watch(stop_at=target if ours else None)

    keras.utils.set_random_seed(seed)
    found = run_search(
        contestant,
        target_task(images, smoke=smoke, jit=jit),
        objective=OBJECTIVE,
        seed=seed,
        epoch_ended=watch.epoch_ended,
        prepare=watch.begin,
    )
    return {
        "seconds": found.seconds,
        "start": watch.start,
        "trials": len(found.scores),
        "trace": watch.trace,
        "made_with": made_with(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def seconds_to(trace: Sequence[Sequence[float]], target: float) -> float | None:
    """Returns when a search reached a score, or None."""
    return next((seconds for seconds, score in trace if score >= target), None)


def run_path(
    folder: Path, name: str, seed: int, settings: Mapping[str, Any], repeat: int = 0
) -> Path:
    """Returns where a run is kept; other settings are other files."""
    words = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    number = f"seed{seed}" + (f"-{repeat}" if repeat else "")
    parts = [words, f"{settings['images']}-images", number]
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


def repeats(name: str) -> range:
    """Returns the numbers of a contestant's searches to one target."""
    return range(REPEATS if CONTESTANTS[name].library == OURS else 1)


def contestants(place: int) -> list[str]:
    """Returns who searches for the target of that place in the list of seeds."""
    return [name for name in CONTESTANTS if place < COMPARED or name not in STOCK_NAMES[1:]]


def measure(
    folder: Path, place: int, seed: int, settings: Mapping[str, Any], fresh: bool = False
) -> dict[str, list[Run]]:
    """Returns the runs of one seed, made where they are not kept, RandomSearch first.

    A contestant that fails has its error for a run, which is not kept.
    """
    runs: dict[str, list[Run]] = {}
    for name in contestants(place):
        contestant = CONTESTANTS[name]
        base = runs[BASE][0] if BASE in runs else None
        limits = {
            "target": base["trace"][-1][1] if base else None,
            "budget_s": base["seconds"] if base else None,
        }
        runs[name] = []
        for repeat in repeats(name):
            path = run_path(folder, name, seed, settings, repeat)
            kept = None if contestant.library == OURS and fresh else read_run(path)
            if kept is None:
                kept = make_run(path, name, seed + SEED_STEP * repeat, {**settings, **limits})
            runs[name].append(kept)
    return runs


def make_run(path: Path, name: str, seed: int, options: Mapping[str, Any]) -> Run:
    """Returns a run that is made now."""
    print(f"seed {seed}: {name} ...", flush=True)
    try:
        made: Run = in_fresh_process(run_one, name=name, seed=seed, **options)
    except RuntimeError as error:
        if name == BASE:
            raise
        return {"failure": str(error), "trace": [], "seconds": 0.0, "start": 0.0}
    write_json(path, made)
    return made


def rows(runs: Mapping[int, Mapping[str, Sequence[Run]]]) -> list[list[str]]:
    """Returns the table: a run that never reaches the target shows where it ended."""
    return [[name, *cells(name, list(runs.values()))] for name in CONTESTANTS]


def cells(name: str, targets: Sequence[Mapping[str, Sequence[Run]]]) -> list[str]:
    """Returns the line of a contestant, given all runs by target and contestant."""
    shown = "; ".join(
        ", ".join(cell(one, final_score(found)) for one in found[name])
        for found in targets
        if name in found
    )
    pairs = [(found, one) for found in targets for one in found.get(name, ())]
    reached = [
        (found, one, seconds)
        for found, one in pairs
        if (seconds := seconds_to(one["trace"], final_score(found))) is not None
    ]
    count = f"{len(reached)} of {len(pairs)}"
    if len(reached) < len(pairs):  # a median of those that did would flatter
        return [shown, count, *[""] * (len(COLUMNS) - 3)]
    wholes = [
        spread(
            [
                found[stock][0]["seconds"] / seconds
                for found, _, seconds in reached
                if stock in found
            ],
            1,
        )
        for stock in STOCK_NAMES
    ]
    firsts = [
        (seconds_to(found[BASE][0]["trace"], final_score(found)) or 0.0) / seconds
        for found, _, seconds in reached
    ]
    return [
        shown,
        count,
        f"{statistics.median(seconds for *_, seconds in reached):.1f}",
        f"{statistics.median(one.get('start', 0.0) for _, one, _ in reached):.1f}",
        *wholes,
        spread(firsts, 1),
    ]


def final_score(runs: Mapping[str, Sequence[Run]]) -> float:
    """Returns the score that RandomSearch ends on."""
    return float(runs[BASE][0]["trace"][-1][1])


def cell(found: Run, target: float) -> str:
    """Returns what the table shows of one run."""
    seconds = seconds_to(found["trace"], target)
    if seconds is not None:
        return f"{seconds:.0f}"
    if not found["trace"]:
        return str(found.get("failure", f"never (no epoch in {found['seconds']:.0f} s)"))
    return f"never ({found['trace'][-1][1]:.4f} after {found['seconds']:.0f})"


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
        for place, seed in enumerate(seeds)
        for name in contestants(place)
        for repeat in repeats(name)
        if (fresh and CONTESTANTS[name].library == OURS)
        or not run_path(folder, name, seed, settings, repeat).is_file()
    ]
    if missing:
        print(estimate(task, missing), flush=True)
    runs = {}
    for place, seed in enumerate(seeds):
        runs[seed] = measure(folder, place, seed, settings, fresh)
        finals = ", ".join(f"{found[BASE][0]['trace'][-1][1]:.4f}" for found in runs.values())
        title = (
            f"Time to the {OBJECTIVE} that {BASE} ends on after {task.trials} trials of "
            f"{task.epochs} epochs ({finals}); {task.name}, {task.data}"
        )
        print_table(title, COLUMNS, rows(runs))
        content = {"objective": OBJECTIVE, "trials": task.trials, "epochs": task.epochs}
        write_result(folder, "target", {**content, **settings, "runs": runs})
