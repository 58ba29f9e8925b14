"""Successive halving against the paper's algorithm, with state, and cases worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tuning.halving import Observation, completion, contenders, promotion, rungs, thinned
from zoo.errors import OptionValueError

NAN = math.nan


def seen(trial: str, *curve: float, **state: bool) -> Observation:
    return Observation(trial=trial, values={}, curve=curve, **state)


@pytest.mark.parametrize(
    ("max_epochs", "options", "expected"),
    [
        (81, {}, (1, 3, 9, 27, 81)),
        (9, {}, (1, 3, 9)),
        (10, {}, (1, 3, 10)),  # not 1, 3, 9, 10
        (51, {"first": 2}, (2, 6, 18, 51)),
        (51, {"first": 2, "factor": 2}, (2, 4, 8, 16, 51)),
        (64, {"first": 4, "factor": 4}, (4, 16, 64)),
        (5, {"first": 3}, (5,)),
        (5, {"first": 5}, (5,)),
        (1, {}, (1,)),
    ],
)
def test_rungs_grow_geometrically_up_to_the_end(
    max_epochs: int, options: dict[str, int], expected: tuple[int, ...]
) -> None:
    assert rungs(max_epochs, **options) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 1}, "`factor` must be 2 or more; got factor=1"),
        ({"first": 0}, r"`first` must be in 1\.\.max_epochs; got first=0, max_epochs=9"),
        ({"first": 10}, r"`first` must be in 1\.\.max_epochs; got first=10, max_epochs=9"),
    ],
)
def test_rungs_are_checked(options: dict[str, int], message: str) -> None:
    with pytest.raises(OptionValueError, match=message):
        rungs(9, **options)


@pytest.mark.parametrize(
    ("observations", "expected"),
    [
        ([], None),
        ([seen("a", 1.0), seen("b", 2.0)], None),  # a third of two is none
        ([seen("a", 2.0), seen("b", 1.0), seen("c", 3.0)], ("b", 3)),
        ([seen("a", 1.0), seen("b", 1.0), seen("c", 1.0)], ("a", 3)),  # the earlier of equals
        # Already promoted, and the second best is not among the best third.
        ([seen("a", 2.0), seen("b", 1.0, 1.0, 1.0), seen("c", 3.0)], None),
        # Late epochs do not count at a rung, early ones at a later rung do.
        ([seen("a", 2.0, 0.0), seen("b", 1.0), seen("c", 3.0)], ("b", 3)),
        (
            [
                *(
                    seen(name, value, 9.0, 9.0)
                    for name, value in zip("abc", (5, 4, 6), strict=True)
                ),
                *(seen(name, 8.0) for name in "defghi"),
            ],
            ("b", 9),
        ),
        # The higher rung comes first.
        (
            [seen("a", 1.0, 1.0, 1.0), seen("b", 2.0, 2.0, 2.0), seen("c", 3.0, 3.0, 3.0)]
            + [seen(name, 0.0) for name in "defghi"],
            ("a", 9),
        ),
        # Running and failed trials count, and keep their places.
        ([seen("a", 1.0, running=True), seen("b", 2.0), seen("c", 3.0)], None),
        ([seen("a", 1.0, failed=True), seen("b", 2.0), seen("c", 3.0)], None),
        ([seen("a", running=True), seen("b", 2.0), seen("c", 3.0)], None),  # not there yet
        # No number is worse than any.
        ([seen("a", NAN), seen("b", math.inf), seen("c", 3.0)], ("c", 3)),
        # Interrupted on its way: it goes on to where it was going.
        ([seen("a", 1.0, 1.0), seen("b", 2.0), seen("c", 3.0)], ("a", 3)),
    ],
)
def test_decisions_worked_by_hand(
    observations: list[Observation], expected: tuple[str, int] | None
) -> None:
    assert promotion(observations, (1, 3, 9)) == expected


def test_a_single_rung_promotes_nobody() -> None:
    assert promotion([seen(str(n), float(n)) for n in range(9)], (1,)) is None


class PaperAsha:
    """Algorithm 2 of arXiv:1810.05934: rungs that remember who came and who was promoted."""

    def __init__(self, levels: int, eta: int) -> None:
        self.eta = eta
        self.losses: list[dict[str, float]] = [{} for _ in range(levels)]
        self.promoted: list[set[str]] = [set() for _ in range(levels)]

    def get_job(self) -> tuple[str, int] | None:
        for k in range(len(self.losses) - 2, -1, -1):
            count = len(self.losses[k]) // self.eta
            top = sorted(self.losses[k], key=lambda trial: self.losses[k][trial])[:count]
            for trial in top:
                if trial not in self.promoted[k]:
                    self.promoted[k].add(trial)
                    return trial, k + 1
        return None


@pytest.mark.parametrize("eta", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_decisions_are_those_of_the_paper(eta: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    epochs = rungs(16, factor=2)
    paper = PaperAsha(len(epochs), eta)
    curves: dict[str, list[float]] = {}
    observations: dict[str, Observation] = {}
    levels = []
    for _ in range(300):
        expected = paper.get_job()
        found = promotion(list(observations.values()), epochs, factor=eta)
        trial, level = expected or (str(len(observations)), 0)
        assert found == (None if expected is None else (trial, epochs[level]))
        curves.setdefault(trial, rng.random(16).tolist())
        curve = tuple(curves[trial][: epochs[level]])
        observations[trial] = Observation(trial=trial, values={}, curve=curve)
        paper.losses[level][trial] = min(curve)
        levels.append(level)
    assert max(levels) == len(epochs) - 1


def test_trials_that_run_at_once_are_promoted_once() -> None:
    observations = [seen(str(n), float(n)) for n in range(9)]
    decisions = []
    while (decision := promotion(observations, (1, 3))) is not None:
        decisions.append(decision)
        index = int(decision[0])
        observations[index] = replace(observations[index], running=True)
    assert decisions == [("0", 3), ("1", 3), ("2", 3)]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ((), math.inf),
        ((NAN,), math.inf),
        ((2.0, NAN, 1.0), 1.0),
        ((math.inf, -math.inf), -math.inf),
    ],
)
def test_the_best_epoch_passes_over_what_is_no_number(
    curve: Sequence[Any], expected: float
) -> None:
    seen = Observation(trial="0", values={}, curve=tuple(curve))
    assert (seen.lowest or (math.inf,))[-1] == expected


def test_contenders_are_those_that_a_place_is_left_for() -> None:
    curves = {"a": (0.5,), "b": (0.2,), "c": (0.4, 0.1, 0.1), "d": (0.3,), "e": ()}
    seen = [Observation(trial=name, values={}, curve=curve) for name, curve in curves.items()]
    seen[1] = Observation(trial="b", values={}, curve=(0.2,), final=True)
    assert contenders(seen, (1, 3, 9), places=None) == {"a", "c", "d"}
    # At epoch 1, b and d are ahead of c and a; at epoch 3 there is only c.
    assert contenders(seen, (1, 3, 9), places=2) == {"c", "d"}
    assert contenders(seen, (1, 3, 9), places=1) == {"c"}
    assert contenders(seen, (1, 3), places=1) == set()


def test_thinning_keeps_the_best_and_spreads_over_the_others() -> None:
    scored = [(float(number), number) for number in range(1000)][::-1]
    kept = [number for _, number in thinned(scored)]
    assert kept == sorted(kept, reverse=True)  # in the order they came
    assert set(range(25)) <= set(kept)
    assert len(kept) == 150
    assert max(kept) >= 990
    assert thinned(scored[:150]) == scored[:150]


def test_the_best_of_the_furthest_completes() -> None:
    curves = {"a": (0.1,), "b": (0.5, 0.4, 0.4), "c": (0.3, 0.2, 0.2)}
    seen = [Observation(trial=name, values={}, curve=curve) for name, curve in curves.items()]
    assert completion(seen, (1, 3, 9)) == ("c", 9)
    assert completion(seen[:1], (1, 3, 9)) == ("a", 3)
    assert completion(seen, (1, 3)) is None  # it is complete
    assert completion([], (1, 3)) is None
    seen[2] = replace(seen[2], final=True)
    assert completion(seen, (1, 3, 9)) is None  # what stopped by itself is not overtaken
    seen[2] = replace(seen[2], final=False, running=True)
    assert completion(seen, (1, 3, 9)) is None
