"""Asynchronous successive halving: which trial has earned more epochs.

Source: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", arXiv:1810.05934,
algorithm 2. Differs: a promoted trial goes on from where it stopped instead of starting again.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, TypeVar

from zoo.errors import OptionValueError

MOST_BEST, MOST_OTHERS = 25, 125  # trials that are modelled
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What is known of one trial."""

    trial: str
    values: Mapping[str, Any]  # of the active hyperparameters
    curve: tuple[float, ...]  # the objective after each epoch, lower is better
    running: bool = False
    failed: bool = False
    final: bool = False  # it stopped by itself and does not go on

    @property
    def may_go_on(self) -> bool:
        """Whether its training can be continued."""
        return not (self.failed or self.final)

    @cached_property
    def lowest(self) -> tuple[float, ...]:
        """The best value up to and with each epoch, infinity where there is none."""
        numbers = (math.inf if math.isnan(value) else value for value in self.curve)
        return tuple(accumulate(numbers, min))


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
        ranked = sorted(_losses(observations, rung))
        for _, index in ranked[: len(ranked) // factor]:
            seen = observations[index]
            if len(seen.curve) < following and seen.may_go_on and not seen.running:
                return seen.trial, following
    return None


def completion(observations: Sequence[Observation], rungs: Sequence[int]) -> tuple[str, int] | None:
    """Returns the best of the trials that got furthest and its next rung, or None at the last one.

    For when no new trial comes: too few to earn the last promotions leave the best one unfinished.
    """
    for place in reversed(range(len(rungs))):
        reached = _losses(observations, rungs[place])
        if reached:
            seen = observations[min(reached)[1]]
            goes_on = seen.may_go_on and not seen.running and place + 1 < len(rungs)
            return (seen.trial, rungs[place + 1]) if goes_on else None
    return None


def contenders(
    observations: Sequence[Observation], rungs: Sequence[int], *, places: int | None
) -> set[str]:
    """Returns the trials that may still be promoted.

    Args:
        observations: All trials, in the order of their creation.
        rungs: Epochs at which they are compared.
        places: How many can be promoted from a rung in all; None is no limit.
    """
    found = set()
    for rung, following in pairwise(rungs):
        losses = _losses(observations, rung)
        best = losses if places is None else heapq.nsmallest(places, losses)
        seen = (observations[index] for _, index in best)
        found |= {one.trial for one in seen if len(one.curve) < following and one.may_go_on}
    return found


def _losses(observations: Sequence[Observation], rung: int) -> list[tuple[float, int]]:
    """Returns loss and index of the trials that reached a rung; the earlier of equals is first."""
    return [
        (seen.lowest[rung - 1], index)
        for index, seen in enumerate(observations)
        if len(seen.curve) >= rung
    ]


def thinned(scored: Sequence[tuple[float, T]]) -> list[tuple[float, T]]:
    """Returns the best by loss and an even spread of the others, in their order.

    A model of the losses needs no more, and its time grows with them.
    """
    ranks = sorted(range(len(scored)), key=lambda index: scored[index][0])
    others = ranks[MOST_BEST:]
    stride = max(len(others) / MOST_OTHERS, 1.0)
    spread = {others[int(place * stride)] for place in range(min(len(others), MOST_OTHERS))}
    return [scored[index] for index in sorted({*ranks[:MOST_BEST], *spread})]
