"""Asynchronous successive halving: which trial has earned more epochs.

Source: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", arXiv:1810.05934,
algorithm 2. Differs: a promoted trial goes on from where it stopped instead of starting again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from zoo.errors import OptionValueError


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What is known of one trial."""

    trial: str
    values: Mapping[str, Any]  # of the active hyperparameters
    curve: tuple[float, ...]  # the objective after each epoch, lower is better
    running: bool = False
    failed: bool = False


def rungs(max_epochs: int, *, factor: int = 3, first: int = 1) -> tuple[int, ...]:
    """Returns the epochs at which trials are compared, ascending, the last being `max_epochs`.

    Raises:
        OptionValueError: `factor` is below 2, or `first` is not in 1..max_epochs.
    """
    if factor < 2:
        raise OptionValueError(f"`factor` must be 2 or more; got factor={factor}.")
    if not 1 <= first <= max_epochs:
        raise OptionValueError(
            f"`first` must be in 1..max_epochs; got first={first}, max_epochs={max_epochs}."
        )
    steps = []
    while 2 * first <= max_epochs:  # a last step that is shorter than that decides little
        steps.append(first)
        first *= factor
    return (*steps, max_epochs)


def promotion(
    observations: Sequence[Observation], rungs: Sequence[int], *, factor: int = 3
) -> tuple[str, int] | None:
    """Returns the trial to go on with and up to which epoch, or None if a new one is due.

    Looks at the highest rung first. At each, the best 1 / `factor` of all trials that have reached
    it deserve the next; a trial is judged by its best epoch so far. Failed and running trials count
    but do not go on.
    """
    for rung, following in reversed(list(pairwise(rungs))):
        reached = [seen for seen in observations if len(seen.curve) >= rung]
        reached.sort(key=lambda seen: best(seen.curve[:rung]))  # stable: the earlier of equals
        for seen in reached[: len(reached) // factor]:
            if len(seen.curve) < following and not (seen.running or seen.failed):
                return seen.trial, following
    return None


def best(curve: Sequence[float]) -> float:
    """Returns the lowest value of a curve, infinity where there is none."""
    if math.isnan(sum(curve)):
        curve = [value for value in curve if not math.isnan(value)]
    return min(curve, default=math.inf)
