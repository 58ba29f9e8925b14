"""Dividing data into train, validation and test: balanced over classes, whole groups, repeatable.

scikit-learn's splitters are not used: none of them keeps groups whole, balances classes and also
puts every class on every side, which a class of three examples needs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from recipes.data.image_data import SIDES, ImageData, Labelled
from zoo.errors import DataError, OptionValueError

Indices = NDArray[np.int64]
AnyData = TypeVar("AnyData", bound=Labelled)
PER_EXAMPLE = ("images", "targets", "groups", "split")


@dataclass(frozen=True, kw_only=True)
class Split:
    """The three sides of one data set."""

    train: ImageData
    validation: ImageData
    test: ImageData


def split_data(
    data: ImageData, *, validation: float = 0.15, test: float = 0.15, seed: int = 0
) -> Split:
    """Divides `data`; sides that its source gives stay as they are, missing ones come from train.

    `validation` and `test` are fractions of what is divided. Classes are balanced up to rounding,
    and each is on every side where its groups allow. The result depends on data and seed only.

    Raises:
        OptionValueError: fractions that are not positive or leave nothing to train on.
        DataError: a group that the source puts on two sides, or a side that stays empty.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise OptionValueError(
            "`validation` and `test` must be positive and sum to less than 1; "
            f"got validation={validation}, test={test}."
        )
    _check_groups(data)
    rng = np.random.default_rng(seed)
    fractions = {"validation": validation, "test": test}
    sides = {side: np.flatnonzero(data.split == side) for side in fractions if _given(data, side)}
    pool = np.flatnonzero(data.undivided)
    total = len(pool)
    for place, side in enumerate(data.missing_sides):
        leave = len(data.missing_sides) - place
        fraction = fractions[side] * total / max(len(pool), 1)
        sides[side] = _hold_out(data, pool, fraction, leave, rng)
        pool = np.setdiff1d(pool, sides[side])
    sides["train"] = pool
    _check_filled(data, sides)
    return Split(**{side: _side(data, indices) for side, indices in sides.items()})


def take(data: AnyData, indices: Indices) -> AnyData:
    """Returns the examples at `indices`, in that order."""
    fields: dict[str, Any] = {}
    for name in PER_EXAMPLE:
        value = getattr(data, name, None)
        if isinstance(value, np.ndarray):
            fields[name] = value[indices]
        elif value is not None:
            fields[name] = tuple(value[index] for index in indices)
    return replace(data, **fields)


def spread(data: Labelled, limit: int) -> Indices:
    """Chooses `limit` examples at random, in proportion to class and given side, none left empty.

    Raises:
        OptionValueError: `limit` is too small to keep every class on every side.
    """
    if limit >= len(data):
        return np.arange(len(data))
    side = np.zeros(len(data), np.int64) if data.split is None else _side_numbers(data.split)
    strata = data.strata * len(SIDES) + side
    order = np.random.default_rng(0).permutation(len(data))
    order = order[np.argsort(strata[order], kind="stable")]
    sizes = np.bincount(strata)
    rank = np.arange(len(data)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    least = np.where(side[order] == 0, 1 + len(data.missing_sides), 1)
    needed = int((rank < least).sum())
    if limit < needed:
        raise OptionValueError(
            f"`limit` must be at least {needed} to keep every class of {data.source} on every "
            f"side; got limit={limit}."
        )
    # Every stratum's first few, then the rest by how far into its stratum each one lies.
    urgency = np.where(rank < least, -1.0, (rank + 0.5) / np.repeat(sizes, sizes))
    return np.sort(order[np.argsort(urgency, kind="stable")[:limit]])


def _hold_out(
    data: ImageData, pool: Indices, fraction: float, leave: int, rng: np.random.Generator
) -> Indices:
    """Takes about `fraction` of every stratum of `pool`, leaving it at least `leave` groups."""
    groups = np.arange(len(data)) if data.groups is None else data.groups
    _, first, member_of, sizes = np.unique(
        groups[pool], return_index=True, return_inverse=True, return_counts=True
    )
    strata = data.strata[pool][first]  # a group of several classes counts as that of its first
    order = rng.permutation(len(sizes))
    order = order[np.argsort(strata[order], kind="stable")]
    borders = np.flatnonzero(np.diff(strata[order])) + 1
    held = np.zeros(len(sizes), bool)
    owed = 0.0  # what rounding took too little of in one stratum comes on top in the next
    for stratum in np.split(order, borders):
        goal = fraction * sizes[stratum].sum() + owed
        taken = _fill(stratum, sizes, goal, len(stratum) - leave)
        held[taken] = True
        owed = float(np.clip(goal - sizes[taken].sum(), -0.5, 0.5))
    return pool[held[member_of]]


def _fill(stratum: Indices, sizes: Indices, goal: float, most: int) -> Indices:
    """Takes the groups that still fit into `goal`, rounded; one at least, `most` at most."""
    taken: list[int] = []
    total = 0
    for group in stratum:
        if len(taken) < most and total + sizes[group] <= goal + 0.5:
            taken.append(int(group))
            total += int(sizes[group])
    if not taken and most > 0:
        taken = [int(stratum[np.argmin(sizes[stratum])])]
    return np.array(taken, np.int64)


def _given(data: Labelled, side: str) -> bool:
    return side not in data.missing_sides


def _side_numbers(split: NDArray[np.str_]) -> Indices:
    marks: Indices = (split[:, np.newaxis] == np.array(SIDES)).argmax(axis=1)
    return marks


def _side(data: ImageData, indices: Indices) -> ImageData:
    return replace(take(data, indices), split=None)


def _check_groups(data: ImageData) -> None:
    if data.groups is None or data.split is None:
        return
    pairs = np.unique(np.stack([data.groups, _side_numbers(data.split)]), axis=1)
    crossing = len(pairs[0]) - len(np.unique(pairs[0]))
    if crossing:
        raise DataError(
            f"A group must stay on one side; the split that {data.source} gives divides {crossing} "
            "groups. Drop `split` or regroup."
        )


def _check_filled(data: ImageData, sides: dict[str, Indices]) -> None:
    empty = [side for side in SIDES if not len(sides[side])]
    if empty:
        raise DataError(
            f"Every side needs examples; {', '.join(empty)} of {data.source} would have none: "
            f"{len(data)} examples are too few or their groups too large. Add examples."
        )
