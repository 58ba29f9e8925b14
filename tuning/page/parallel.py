"""Parallel coordinates: every trial as a line through the values of its hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuning.page import canvas
from tuning.page.scales import Scale, drawable, scale, score_range
from zoo.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

_INACTIVE = -0.14  # height at which a hyperparameter was not active; values lie in [0, 1]
_TICKS_LIMIT = 6  # values or categories on one axis; above it the ends of a number, no category
_TICKS_GAP = 0.06  # height of a label, of the axis
_NAME_WIDTH = 110.0  # characters side by side over the whole figure


def parallel_coordinates(
    columns: Mapping[str, Sequence[object]],
    scores: Sequence[float | None],
    *,
    objective: str,
    maximize: bool,
) -> bytes:
    """Draws a line per trial, stronger for a better rank; the best stands out.

    Args:
        columns: Hyperparameter -> its value in every trial; None where it was not active.
        scores: One per trial; a trial without one is left out.
        objective: Name of the score, the last axis.
        maximize: Whether a higher score is better.

    Raises:
        DataError: No trial has a finite score.
    """
    finite = drawable(scores)
    kept = np.flatnonzero(np.isfinite(finite))
    if not kept.size:
        raise DataError(f"At least one trial must have a finite {objective!r}; got none.")
    losses = -finite[kept] if maximize else finite[kept]
    kept = kept[np.argsort(-losses, kind="stable")]  # the worst first, the best drawn on top
    scales = {name: scale([values[int(at)] for at in kept]) for name, values in columns.items()}
    span = score_range(finite, maximize=maximize)
    shown = span.clip(finite[kept])
    score_scale = Scale(places=shown, names=(), log=span.log)
    heights = np.stack([found.shares for found in (*scales.values(), score_scale)], axis=1)
    figure, axes = canvas.figure(4.6)
    _lines(axes, np.where(np.isnan(heights), _INACTIVE, heights))
    for place, found in enumerate((*scales.values(), score_scale)):
        _axis(axes, place, found)
    canvas.dress(axes, "", "", "", grid=False)
    _name_axes(axes, [*columns, objective])
    axes.set(xlim=(-0.15, len(columns) + 0.35), yticks=[])
    axes.set_ylim(-0.06 if np.isfinite(heights).all() else _INACTIVE - 0.06, 1.06)
    return canvas.png(figure)


def _lines(axes: Axes, heights: Floats) -> None:
    from matplotlib.collections import LineCollection

    count, places = heights.shape
    points = np.stack([np.broadcast_to(np.arange(places), heights.shape), heights], axis=2)
    # The cube keeps most trials pale: the few good ones are what the eye should follow.
    shades = canvas.density()(np.linspace(0.0, 1.0, count) ** 3 * 0.75)
    lines = LineCollection(list(points[:-1]), colors=shades[:-1], linewidths=1.2, alpha=0.7)
    axes.add_collection(lines)
    axes.plot(*points[-1].T, color=canvas.PALETTE[1], linewidth=2.5, zorder=3)


def _axis(axes: Axes, place: int, found: Scale) -> None:
    axes.plot([place, place], [0, 1], color=canvas.PALE, linewidth=1, zorder=2.5)
    labels = _labels(found)
    if np.isnan(found.places).any():
        labels[_INACTIVE] = "not active"
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    for height, text in labels.items():
        axes.annotate(
            text,
            xy=(place, height),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=canvas.INK,
            bbox=box,
            zorder=5,
        )


def _labels(found: Scale) -> dict[float, str]:
    """Returns what is written beside the axis, by height."""
    heights = found.shares
    if found.names:
        if len(found.names) > _TICKS_LIMIT:
            return {0.5: f"{len(found.names)} values"}
        at = {int(place): float(share) for place, share in _pairs(found.places, heights)}
        return {at[i]: canvas.shorten(name, 14) for i, name in enumerate(found.names)}
    lowest, *middle, highest = sorted(set(_pairs(found.places, heights)))
    kept = [lowest, highest]
    for pair in middle if len(middle) + 2 <= _TICKS_LIMIT else ():
        if min(abs(pair[1] - other[1]) for other in kept) > _TICKS_GAP:
            kept.append(pair)
    return {float(share): canvas.short_number(place, digits=3) for place, share in kept}


def _pairs(places: Floats, heights: Floats) -> list[tuple[Any, Any]]:
    return [(p, h) for p, h in zip(places, heights, strict=True) if np.isfinite(p)]


def _name_axes(axes: Axes, names: Sequence[str]) -> None:
    texts = [canvas.shorten(canvas.words(name), 26) for name in names]
    slanted = max(map(len, texts)) > _NAME_WIDTH / len(texts)
    axes.xaxis.set_ticks_position("top")
    style: dict[str, Any] = {"rotation": 25, "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(texts)), texts, ha="left", **style)
    for label in axes.get_xticklabels():
        label.set(fontsize=9.5, color=canvas.INK)
