"""Learning curves: several runs, bands over seeds, or all trials of a search, in one figure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuning.page import canvas
from tuning.page.scales import drawable, score_range
from zoo.errors import DataError, OptionValueError, did_you_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]
History = Mapping[str, Sequence[float]]

_LEGEND_LIMIT = 12  # above it neighbouring colours cannot be told apart
_DASHED = (0, (4, 2))
_LOG_RATIO = 100.0  # largest / smallest loss: two decades hide the end of training on a linear axis


def learning_curves(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    metric: str,
    x: Mapping[str, Sequence[float]] | None = None,
    x_label: str | None = None,
    bands: Mapping[str, Sequence[str]] | None = None,
) -> bytes:
    """Draws `metric` dashed and `val_metric` solid, one colour per curve or band.

    Args:
        curves: Name of a run -> its history, as `keras.callbacks.History.history`.
        metric: Key of the training values; the validation values are under `val_` + metric.
        x: Name of a run -> where its values lie, usually seconds; epochs 1, 2, ... without it.
        x_label: Label of the x axis; `Epoch`, or `Time (s)` where `x` is given.
        bands: Name -> runs that differ in the seed only, drawn as their mean and a band from
            minimum to maximum, as far as every one of them got.

    Raises:
        OptionValueError: No curve has `metric`, a band names an unknown curve, or `x` misses or
            mismatches a curve.
    """
    _require_metric(curves, metric)
    groups = _groups(curves, bands or {})
    lines = [
        _line(name, colour, key, {m: curves[m][key] for m in members if key in curves[m]}, x)
        for colour, (name, members) in zip(canvas.colours(len(groups)), groups.items(), strict=True)
        for key in (metric, f"val_{metric}")
        if any(key in curves[m] for m in members)
    ]
    crowded = len(groups) > _LEGEND_LIMIT
    figure, axes = canvas.figure(4.6)
    for line in lines:
        _draw(axes, line, crowded=crowded)
    if "loss" in metric and canvas.spans_decades(
        np.concatenate([line.mean for line in lines]), _LOG_RATIO
    ):
        axes.set_yscale("log")
    label = canvas.words(metric)
    note = f"{len(groups)} runs, from the first (dark) to the last (light)" if crowded else ""
    x_label = x_label or ("Epoch" if x is None else "Time (s)")
    canvas.dress(axes, f"Learning curves: {label.lower()}", x_label, label, note=note)
    if x is None:
        canvas.whole_ticks(axes)
    _legend(figure, lines)
    return canvas.png(figure)


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One curve, or the mean of several with its band."""

    name: str
    colour: str
    validation: bool
    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    runs: int


def _require_metric(curves: Mapping[str, Mapping[str, Sequence[float]]], metric: str) -> None:
    known = {key for history in curves.values() for key in history}
    if not known & {metric, f"val_{metric}"}:
        raise OptionValueError(
            f"`metric` must be in at least one curve; got metric={metric!r}, known are "
            f"{', '.join(sorted(known)) or 'none'}.{did_you_mean(metric, known)}"
        )


def _groups(
    curves: Mapping[str, object], bands: Mapping[str, Sequence[str]]
) -> dict[str, Sequence[str]]:
    banded = [member for members in bands.values() for member in members]
    for member in banded:
        if member not in curves:
            raise OptionValueError(
                f"`bands` must name curves; got {member!r}.{did_you_mean(member, curves)}"
            )
    return {**bands, **{name: (name,) for name in curves if name not in banded}}


def _line(
    name: str, colour: str, key: str, values: History, x: Mapping[str, Sequence[float]] | None
) -> _Line:
    length = min(map(len, values.values()))
    stacked = np.array([run[:length] for run in values.values()], np.float64)
    stacked[~np.isfinite(stacked)] = np.nan
    places = np.array([_places(run, len(of), x)[:length] for run, of in values.items()])
    return _Line(
        name=name,
        colour=colour,
        validation=key.startswith("val_"),
        x=places.mean(axis=0),
        mean=stacked.mean(axis=0),
        low=stacked.min(axis=0),
        high=stacked.max(axis=0),
        runs=len(stacked),
    )


def _places(run: str, length: int, x: Mapping[str, Sequence[float]] | None) -> Floats:
    if x is None:
        return np.arange(1, length + 1, dtype=np.float64)
    places = x.get(run, ())
    if len(places) != length:
        raise OptionValueError(
            "`x` must hold one place for each value of every curve; "
            f"got {len(places)} for the {length} values of {run!r}."
        )
    return np.asarray(places, np.float64)


def _draw(axes: Axes, line: _Line, *, crowded: bool) -> None:
    width = 0.8 if crowded else 1.9
    axes.plot(
        line.x,
        line.mean,
        color=line.colour,
        linestyle="solid" if line.validation else _DASHED,
        linewidth=width if line.validation else 0.7 * width,
        alpha=1.0 if line.validation and not crowded else 0.65,
        marker="o" if len(line.x) == 1 else None,
        markersize=5,
    )
    if line.runs > 1:
        axes.fill_between(line.x, line.low, line.high, color=line.colour, alpha=0.14, linewidth=0)


def _legend(figure: Figure, lines: Sequence[_Line]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    colours = {line.name: line.colour for line in lines}
    named = colours if 1 < len(colours) <= _LEGEND_LIMIT else {}
    ink = lines[0].colour if len(colours) == 1 else canvas.MUTED
    handles: list[Any] = [Line2D([], [], color=colour, linewidth=3) for colour in named.values()]
    labels = list(named)
    for validation in sorted({line.validation for line in lines}):
        style = "solid" if validation else _DASHED
        handles.append(Line2D([], [], color=ink, linestyle=style, linewidth=1.5))
        labels.append("validation" if validation else "training")
    if any(line.runs > 1 for line in lines):
        handles.append(Patch(color=ink, alpha=0.2, linewidth=0))
        labels.append("lowest to highest seed")
    canvas.legend(figure, handles, labels)


def trial_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    metric: str,
    maximize: bool,
    best: Collection[str] = (),
    failed: Collection[str] = (),
) -> bytes:
    """Draws one metric of every trial of a search, the best of them in colour.

    Args:
        curves: Trial -> its epochs, and the values after them.
        metric: Name of the metric.
        maximize: Whether a higher value is better.
        best: The best trial and those whose training it continued.
        failed: Trials whose curve ends in a failure.

    Raises:
        DataError: No trial has a finite value.
    """
    values = {name: drawable(y) for name, (_, y) in curves.items()}
    every = np.concatenate([*values.values(), np.empty(0)])
    if not np.isfinite(every).any():
        raise DataError(f"At least one trial must have a finite {metric!r}; got none.")
    span = score_range(every, maximize=maximize)
    figure, axes = canvas.figure(4.6)
    span.apply(axes)
    crowded = len(curves) > _LEGEND_LIMIT
    quiet = {"color": canvas.MUTED, "linewidth": 0.8, "alpha": 0.35 if crowded else 0.6}
    loud = {"color": canvas.PALETTE[0], "linewidth": 2.2, "zorder": 3}
    for name, (x, _) in curves.items():
        y = span.clip(values[name])
        style = loud if name in best else quiet
        axes.plot(x, y, label="Best" if name in best else "Others", **style)
        lone = _without_neighbours(y)
        dots = {"marker": "o", "markersize": 3.5, "linestyle": "none", "label": "", "mew": 0}
        axes.plot(np.asarray(x)[lone], y[lone], **{**style, **dots})
        if name in failed and len(x):
            at = np.flatnonzero(np.isfinite(y))[-1:]  # where the curve ends, if it began
            cross = {"color": canvas.PALETTE[1], "linestyle": "none", "zorder": 4}
            axes.plot(np.asarray(x)[at], y[at], marker="x", label="Failed", **cross)
    label = canvas.words(metric)
    note = f"{len(curves)} trial{'s' if len(curves) > 1 else ''}"
    note += f"{span.note.replace('far worse', 'values far worse')}"
    canvas.dress(axes, f"{label} by epoch", "Epoch", label, note=note)
    canvas.whole_ticks(axes)
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    labels = [text for text in ("Best", "Others", "Failed") if text in entries]
    canvas.legend(figure, [entries[text] for text in labels], labels)
    return canvas.png(figure)


def _without_neighbours(y: Floats) -> npt.NDArray[np.bool_]:
    """Finds the values no line reaches, because those beside them are missing."""
    known = np.isfinite(y)
    beside = np.zeros_like(known)
    beside[1:] |= known[:-1]
    beside[:-1] |= known[1:]
    return known & ~beside
