"""What a search costs beside its training: per trial, per suggestion, in memory and on the disk."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tuning_results import in_fresh_process, print_table, spread, write_result
from benchmarks.tuning_searches import OURS, STOCK, Contestant, run_search
from benchmarks.tuning_tasks import SEED, Task, listed_values, mlp, noise

OBJECTIVE = "val_loss"
SETTLED = 20  # trials after which memory is watched
LIMIT_S = 300.0  # for one oracle's suggestions, the filling included
MAX_EPOCHS = 27
ALGORITHMS = ("random", "grid", "hyperband", "bayesian", "asha", "tpe", "bohb")
LIBRARIES = {
    STOCK: Contestant(library=STOCK, tuner="RandomSearch"),
    OURS: Contestant(library=OURS, tuner="RandomSearch", options={"keep": 1}),
}


def tiny_task(trials: int, jit: bool | str) -> Task:
    """Returns a search whose training takes next to nothing."""
    options = {"jit_compile": jit, "seed": SEED}
    return Task(
        name="tiny MLP",
        data="256 rows of noise",
        train=noise((8,), 256, classes=2),
        validation=noise((8,), 64, classes=2),
        build=functools.partial(mlp, shape=(8,), options=options),
        trials=trials,
        epochs=3,
    )


# --- per trial ------------------------------------------------------------------------------------


def trial_overheads(trials: int, jit: bool | str) -> dict[str, list[float]]:
    """Returns by trial the seconds of training and validation, and those beyond, from end to end.

    The first trial, which compiles, is left out.
    """
    from tuning import loop

    ends: list[float] = []
    calls: list[float] = []  # of the compiled loop: training, validation, training ...
    until: list[int] = []  # calls made when a trial ended

    def timed(run: Any) -> Any:
        @functools.wraps(run)
        def call(*args: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            result = run(*args, **options)
            calls.append(time.perf_counter() - begin)
            return result

        return call

    def watch(tuner: Any) -> None:
        journal = tuner.oracle.journal

        def record(event: Mapping[str, Any]) -> None:
            if event["event"] == "end":
                ends.append(time.perf_counter())
                until.append(len(calls))
            journal(event)

        tuner.oracle.journal = record

    kind: Any = loop.TensorFlowLoop
    kind._run = timed(kind._run)
    run_search(
        LIBRARIES[OURS],
        tiny_task(trials, jit),
        objective=OBJECTIVE,
        values=listed_values(trials),
        prepare=watch,
    )
    walls = [later - sooner for sooner, later in itertools.pairwise(ends)]
    steps = steady_steps(calls, until)
    beyond = [wall - part for wall, part in zip(walls, steps, strict=True)]
    return {"steps": steps, "beyond": beyond}


def steady_steps(calls: Sequence[float], until: Sequence[int]) -> list[float]:
    """Returns the seconds of each trial's steps: its epochs, all as quick as its quickest.

    What the first epoch takes longer, TensorFlow spends on preparing its functions.

    Args:
        calls: Seconds of the calls of the loop: training, validation, training ...
        until: Number of calls made when the trial before, this one, the next one ... ended.
    """
    steps = []
    for first, last in itertools.pairwise(until):
        train, test = calls[first:last:2], calls[first + 1 : last : 2]
        steps.append(len(train) * min(train) + len(test) * min(test))
    return steps


# --- suggestions ----------------------------------------------------------------------------------


def suggestion_seconds(algorithm: str, finished: int, samples: int) -> list[float]:
    """Returns the seconds of `create_trial` after that many finished trials, several times.

    Random search, grid search and Hyperband reach that state by themselves; the others are given
    the events of a random search, or of a successive halving, which they could have made.
    """
    from tuning.oracles import ALGORITHMS as CLASSES

    options = {"hyperband_iterations": None} if algorithm == "hyperband" else {}
    oracle = CLASSES[algorithm].create(
        _objective(), trials=None, max_epochs=MAX_EPOCHS, seed=SEED, **options
    )
    oracle.update_space(_space())
    random = np.random.default_rng(SEED)
    if algorithm in ("random", "grid", "hyperband"):
        for _ in range(finished):
            _finish(oracle, oracle.create_trial("benchmark"), random)
    else:
        for event in halving_events(finished, getattr(oracle, "rungs", (MAX_EPOCHS,))):
            oracle.apply(event)
    taken = []
    for _ in range(samples):
        begin = time.perf_counter()
        trial = oracle.create_trial("benchmark")
        taken.append(time.perf_counter() - begin)
        _finish(oracle, trial, random)
    return taken


def halving_events(trials: int, rungs: Sequence[int], factor: int = 3) -> Iterator[dict[str, Any]]:
    """Yields the events of a search in which one in `factor` trials goes on from each rung."""
    random = np.random.default_rng(SEED)
    draws = [
        {param.name: param.prob_to_value(random.random()) for param in _space().space}
        for _ in range(trials)
    ]
    quality = random.random(trials)
    chosen = list(range(trials))
    done = 0
    for rung in rungs:
        for number in chosen:
            name = f"{number:04d}"
            start = {"event": "start", "trial": name, "epochs": [done, rung]}
            yield start | {"values": draws[number]}
            for epoch in range(done, rung):
                logs = {OBJECTIVE: float(quality[number] / (epoch + 1))}
                yield {
                    "event": "epoch", "trial": name, "epoch": epoch, "logs": logs, "seconds": 1.0
                }  # fmt: skip
            yield {
                "event": "end",
                "trial": name,
                "status": "COMPLETED",
                "reason": None,
                "seconds": 0.0,
                "score": logs[OBJECTIVE],
                "step": rung - 1,
                "metrics": {OBJECTIVE: [[rung - 1, logs[OBJECTIVE]]]},
            }
        chosen = sorted(chosen, key=lambda number: quality[number])[: len(chosen) // factor]
        done = rung


def _objective() -> Any:
    import keras_tuner

    return keras_tuner.Objective(OBJECTIVE, "min")


def _space() -> Any:
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    hp.Float("learning_rate", 1e-5, 1e-1, sampling="log")
    hp.Float("weight_decay", 1e-6, 1e-2, sampling="log")
    hp.Float("dropout", 0.0, 0.6)
    hp.Int("units", 16, 256, step=16)
    hp.Choice("activation", ["relu", "gelu", "silu"])
    return hp


def _finish(oracle: Any, trial: Any, random: np.random.Generator) -> None:
    if trial.status != "RUNNING":
        raise RuntimeError(f"The oracle had no trial to run, but {trial.status}.")
    first, last = oracle.epochs_of(trial)
    score = math.inf
    for epoch in range(first, last):
        score = float(random.random() / (epoch + 1))
        oracle.report(trial.trial_id, epoch, {OBJECTIVE: score}, 1.0)
    oracle.update_trial(trial.trial_id, {OBJECTIVE: score}, max(last - 1, 0))
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def suggestions(counts: Sequence[int], samples: int) -> dict[str, dict[int, Any]]:
    """Returns the samples by algorithm and number of finished trials, or why there are none."""
    found: dict[str, dict[int, Any]] = {}
    for algorithm in ALGORITHMS:
        found[algorithm] = {}
        for count in counts:
            try:
                taken: Any = in_fresh_process(
                    suggestion_seconds,
                    timeout_s=LIMIT_S,
                    algorithm=algorithm,
                    finished=count,
                    samples=samples,
                )
            except subprocess.TimeoutExpired:
                taken = f"not done within {LIMIT_S:.0f} s"
            except RuntimeError as error:
                taken = str(error)
            found[algorithm][count] = taken
    return found


# --- memory and disk ------------------------------------------------------------------------------


def memory_and_disk(library: str, trials: int, jit: bool | str) -> dict[str, Any]:
    """Returns the resident memory after each trial, in MB, and what the search left on the disk."""
    resident: list[float] = []
    task = dataclasses.replace(tiny_task(trials, jit), epochs=1)

    def epoch_ended(now: float, logs: Mapping[str, Any]) -> None:  # noqa: ARG001 - the hook's
        resident.append(resident_mb())

    found = run_search(
        LIBRARIES[library],
        task,
        objective=OBJECTIVE,
        values=listed_values(trials),
        epoch_ended=epoch_ended,
    )
    return {"resident_mb": resident, "disk_bytes": found.disk_bytes, "seconds": found.seconds}


def resident_mb() -> float:
    """Returns the memory of this process that is in RAM, from Linux's /proc."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def slope(values: Sequence[float]) -> float:
    """Returns the slope of the least-squares line through values at 0, 1, ..."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0])


def memory_rows(found: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Returns the table of memory and disk."""
    lines = []
    for name, one in found.items():
        settled = one["resident_mb"][min(SETTLED, len(one["resident_mb"]) // 2) :]
        lines.append(
            [
                name,
                f"{1000 * slope(settled):.1f}",
                f"{settled[0]:.0f}",
                f"{settled[-1]:.0f}",
                f"{one['disk_bytes'] / 1e6:.2f}",
                f"{one['seconds']:.1f}",
            ]
        )
    return lines


def suggestion_rows(found: Mapping[str, Mapping[int, Any]]) -> list[list[str]]:
    """Returns the table of suggestions, in milliseconds."""
    return [
        [
            name,
            *(
                taken if isinstance(taken, str) else spread([1000 * one for one in taken])
                for taken in by_count.values()
            ),
        ]
        for name, by_count in found.items()
    ]


def run(folder: Path, *, rounds: int, smoke: bool, jit: bool | str) -> None:
    """Measures, prints and writes."""
    trials, counts, long = (4, (10, 30), 6) if smoke else (60, (100, 10_000), 200)
    overheads = in_fresh_process(trial_overheads, trials=trials, jit=jit)
    milliseconds = {name: [1000 * one for one in found] for name, found in overheads.items()}
    shown = {name: spread(found) for name, found in milliseconds.items()}
    print_table(
        f"A trial of a tiny MLP, whole epochs in one call; median of {trials - 1}",
        ("ms in training and validation", "ms beyond"),
        [[shown["steps"], shown["beyond"]]],
    )
    memory = {
        library: in_fresh_process(memory_and_disk, library=library, trials=long, jit=jit)
        for library in LIBRARIES
    }
    columns = ("library", "kB a trial", "MB at first", "MB at last", "MB on disk", "seconds")
    kept = f"{OURS} keeps the best trial's weights (keep=1), {STOCK} all"
    print_table(f"Memory and disk over {long} trials; {kept}", columns, memory_rows(memory))
    samples = max(rounds, 3)
    asked = suggestions(counts, samples)
    headers = ("algorithm", *(f"ms after {count:,} trials" for count in counts))
    print_table(f"One suggestion, median of {samples}", headers, suggestion_rows(asked))
    content = {"trial_seconds": overheads, "memory": memory, "suggestion_seconds": asked}
    write_result(folder, "overhead", {"jit_compile": jit, "samples": samples, **content})
