"""Where values lie on an axis: numbers, logarithms, categories, and scores with outliers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tuning.page import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

_LOG_RATIO = 8.0  # largest / smallest; from it on a log axis is considered
_SCORE_LOG_RATIO = 100.0  # two decades hide the better half of the trials on a linear axis
_USUAL = 0.75  # share of the scores that an axis must tell apart
_OUTLIER_RATIO = 10.0  # span of all scores / span of the usual ones
_LIMIT = 1e100  # beyond it the arithmetic of an axis overflows
_TIME_UNITS = ((10_800.0, 3600.0, "h"), (600.0, 60.0, "min"), (0.0, 1.0, "s"))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The values of one hyperparameter as places on an axis."""

    places: Floats  # one per value; NaN where it is missing
    names: tuple[str, ...]  # of the categories, at 0, 1, ...; empty for numbers
    log: bool

    @property
    def distinct(self) -> Floats:
        """The places in use, in order."""
        return np.unique(self.places[np.isfinite(self.places)])

    @property
    def shares(self) -> Floats:
        """The places spread over [0, 1], as the axis shows them; a single place is at 0.5."""
        places = np.log10(self.places) if self.log else self.places
        low, high = np.nanmin(places), np.nanmax(places)
        middle: Floats = np.where(np.isnan(places), np.nan, 0.5)
        return (places - low) / (high - low) if high > low else middle


def scale(values: Sequence[object]) -> Scale:
    """Returns the scale of the values: numbers if all are, else categories; None is missing."""
    present = [value for value in values if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        # By way of the text, an integer too large for a float is infinite and no error.
        numbers = [math.nan if value is None else float(str(value)) for value in values]
        places = drawable(numbers)
        return Scale(places=places, names=(), log=_is_log(places))
    names = tuple(sorted({str(value) for value in present}))
    index = {name: float(place) for place, name in enumerate(names)}
    places = np.array([math.nan if value is None else index[str(value)] for value in values])
    return Scale(places=places, names=names, log=False)


def _is_log(places: Floats) -> bool:
    """Tells values drawn on a log scale, whose median is near the geometric middle."""
    if not canvas.spans_decades(places, _LOG_RATIO):
        return False
    distinct = np.unique(places[np.isfinite(places)])
    low, high = distinct[0], distinct[-1]
    return bool(np.median(distinct) < (np.sqrt(low * high) + (low + high) / 2) / 2)


def drawable(values: Sequence[float | None] | Floats) -> Floats:
    """Returns the values with NaN for all that an axis cannot hold."""
    numbers = np.array(values, np.float64)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(numbers) < _LIMIT, numbers, np.nan)


@dataclass(frozen=True, kw_only=True)
class ScoreRange:
    """What a score axis shows: everything, or all but the far outliers on the worse side."""

    low: float = -math.inf
    high: float = math.inf
    log: bool = False
    beyond: int = 0  # values outside [low, high]

    def clip(self, scores: Floats) -> Floats:
        """Returns the scores with those beyond the axis moved to its edge."""
        return np.clip(scores, self.low, self.high)

    def apply(self, axes: Axes) -> None:
        """Sets the y axis."""
        if self.log:
            axes.set_yscale("log")
        if self.beyond:
            axes.set_ylim(self.low, self.high)

    @property
    def note(self) -> str:
        """Says what is not shown where it lies."""
        return f" · {self.beyond} far worse, at the edge" if self.beyond else ""


def score_range(scores: Floats, *, maximize: bool) -> ScoreRange:
    """Returns the range in which scores can be told apart, however bad the worst ones are."""
    finite = scores[np.isfinite(scores)]
    if not finite.size:
        return ScoreRange()
    losses = -finite if maximize else finite
    usual = np.quantile(losses, _USUAL)
    log = not maximize and canvas.spans_decades(losses[losses <= usual], _SCORE_LOG_RATIO)
    if log:
        losses = np.log10(losses)
    best, usual, worst = losses.min(), np.quantile(losses, _USUAL), losses.max()
    if worst - best <= _OUTLIER_RATIO * (usual - best) or usual == best:
        return ScoreRange(log=log)
    edge, margin = usual + (usual - best), best - 0.1 * (usual - best)
    beyond = int((losses > edge).sum())
    if maximize:
        return ScoreRange(low=float(-edge), high=float(-margin), beyond=beyond)
    low, high = (10**margin, 10**edge) if log else (margin, edge)
    return ScoreRange(low=float(low), high=float(high), log=log, beyond=beyond)


def time_unit(seconds: float) -> tuple[float, str]:
    """Returns the seconds in a unit that suits so long a time, and the unit's symbol."""
    return next((unit, name) for least, unit, name in _TIME_UNITS if seconds >= least)


def tick_labels(places: Floats, *, limit: int, width: int) -> dict[float, str]:
    """Returns a label for each distinct place, or none if they are too many or too long."""
    distinct = np.unique(places[np.isfinite(places)])
    labels = {float(value): canvas.short_number(value) for value in distinct[: limit + 1]}
    fits = len(labels) <= limit and sum(map(len, labels.values())) <= width
    return labels if fits else {}
