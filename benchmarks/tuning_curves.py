"""Why a search is no faster to a score: what its task's first epochs say of the last ones.

    python -m benchmarks.tuning_curves             # from the curves that were recorded
    python -m benchmarks.tuning_curves --record    # trains 120 random trials to the end (10 min)

The task is that of `python -m benchmarks.tuning target`. Searches are simulated on the recorded
curves, a trial having that of the nearest recorded one; the target is the best of 40 random curves.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import oracles
from benchmarks.startup import show
from benchmarks.tuning_target import EPOCHS, OBJECTIVE, RATES, TRIALS, target_task

CURVES = Path(__file__).with_name("results") / "tuning_curves.json"
RECORDED, IMAGES, SEED = 120, 3000, 77
TARGETS = 24
MOST_DROPOUT = 0.6
SETTINGS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("random search", "RandomOracle", {}),
    ("random search, curve stopping", "RandomOracle", {"curve_stopping": True}),
    *(
        (f"ASHA, first={first}, growth={growth}, factor={factor}", "AshaOracle",
         {"first": first, "growth": growth, "factor": factor})
        for first in (1, 2, 4) for growth in (2, 3) for factor in (2, 3, 4)
    ),
    ("BOHB", "BohbOracle", {}),
    ("TPE", "TpeOracle", {}),
    ("TPE, curve stopping", "TpeOracle", {"curve_stopping": True}),
)  # fmt: skip


def record() -> None:
    """Trains random trials to the end and writes their curves."""
    import keras

    import tuning

    task = target_task(IMAGES, smoke=False, jit=False)
    keras.utils.set_random_seed(SEED)
    found: dict[str, Any] = {"values": {}, "epochs": []}
    with tempfile.TemporaryDirectory() as folder:
        tuner = tuning.RandomSearch(
            task.build, OBJECTIVE, max_trials=RECORDED, directory=folder, seed=SEED, quiet=True
        )
        journal = tuner.oracle.journal

        def note(event: dict[str, Any]) -> None:
            journal(event)
            if event["event"] == "start":
                found["values"][event["trial"]] = event["values"]
            if event["event"] == "epoch":
                logs = event["logs"][OBJECTIVE], event["seconds"]
                found["epochs"].append([event["trial"], event["epoch"], *logs])

        tuner.oracle.journal = note
        tuner.search(
            *task.train,
            validation_data=task.validation,
            epochs=EPOCHS,
            batch_size=task.batch_size,
            verbose=0,
        )
    CURVES.write_text(json.dumps(found) + "\n", "utf-8")


def read() -> tuple[np.ndarray, np.ndarray]:
    """Returns the curves (trials, EPOCHS), and the trials' places in the space (trials, 2)."""
    found = json.loads(CURVES.read_text("utf-8"))
    curves: dict[str, list[float]] = {}
    for trial, _, score, _ in found["epochs"]:
        curves.setdefault(trial, []).append(score)
    whole = [trial for trial, curve in curves.items() if len(curve) == EPOCHS]
    places = np.array([place(found["values"][trial]) for trial in whole])
    return np.array([curves[trial] for trial in whole]), places


def place(values: Mapping[str, float]) -> list[float]:
    """Returns hyperparameters as numbers in [0, 1]."""
    low, high = np.log10(RATES)
    rate = (np.log10(values["learning_rate"]) - low) / (high - low)
    return [rate, values["dropout"] / MOST_DROPOUT]


def space() -> Any:
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    hp.Float("dropout", 0.0, MOST_DROPOUT)
    hp.Float("learning_rate", *RATES, sampling="log")
    return hp


def ranks(curves: np.ndarray) -> list[list[str]]:
    """Returns for several epochs the ranks, then, of the trials that are the best five percent."""
    best = curves.max(axis=1)
    top = np.argsort(-best)[: max(1, len(curves) // 20)]
    rows = []
    for epochs in (1, 2, 4, 8, 16):
        now = curves[:, :epochs].max(axis=1)
        rank = np.argsort(np.argsort(-now)) + 1
        both = np.corrcoef(rank, np.argsort(np.argsort(-best)))[0, 1]
        rows.append([str(epochs), f"{both:.2f}", ", ".join(map(str, sorted(rank[top])))])
    return rows


def simulated(curves: np.ndarray, places: np.ndarray) -> list[list[str]]:
    """Returns by setting how many times fewer epochs a search took than 40 whole trials."""
    from tuning import oracles as ours

    random = np.random.default_rng(5)
    targets = [curves[random.integers(0, len(curves), TRIALS)].max() for _ in range(TARGETS)]

    def curve_of(values: Mapping[str, float]) -> np.ndarray:
        nearest = ((places - place(values)) ** 2).sum(axis=1).argmin()
        curve: np.ndarray = curves[nearest]
        return curve

    rows = []
    for title, name, options in SETTINGS:
        method = oracles.Method(
            title=title,
            oracle=getattr(ours, name),
            options=options,
            epochs=EPOCHS,
            space=space,
        )
        taken = [
            oracles.epochs_to(target, method, curve_of, seed=number + 1)
            for number, target in enumerate(targets)
        ]
        speed = [0.0 if epochs is None else method.budget / epochs for epochs in taken]
        reached = sum(epochs is not None for epochs in taken)
        rows.append([title, f"{np.median(speed):.1f}", f"{reached} of {TARGETS}"])
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="train the trials again")
    if parser.parse_args(arguments).record:
        record()
    curves, places = read()
    columns = ("after epochs", "rank correlation with the end", "ranks of the final best 5 %")
    show(f"{len(curves)} random trials of {EPOCHS} epochs", columns, ranks(curves))
    title = f"Epochs of {TRIALS} whole trials, by those that a search took to the best of 40"
    columns = ("search", "median speedup (0: never reached)", "reached")
    show(title, columns, simulated(curves, places))


if __name__ == "__main__":
    main()
