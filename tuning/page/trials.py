"""The trials of a search, as PNG bytes: the best score so far, and the score by hyperparameter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tuning.page import canvas
from tuning.page.scales import Scale, drawable, scale, score_range, tick_labels, time_unit
from zoo.errors import DataError, OptionValueError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

_TICKS_LIMIT = 6  # distinct values; up to it each gets its own tick
_TICKS_WIDTH = 16  # characters side by side before tick labels overlap
_CATEGORIES_LIMIT = 12  # above it their names overlap


def leaderboard_chart(frame: pd.DataFrame, *, maximize: bool, score: str = "score") -> bytes:
    """Draws the score of every trial and the best so far, in the order the trials started.

    Args:
        frame: A row per trial; column `trial` holds its number (or zero-padded name), a missing
            score marks a trial that failed. Optional are `started`, the order where names do not
            give it, and `seconds`, which adds a panel over training time.
        maximize: Whether a higher score is better.
        score: Name of the column with the scores.

    Raises:
        OptionValueError: A column is missing.
        DataError: The frame has no row.
    """
    _require_columns(frame, ("trial", score))
    frame = frame.sort_values("started" if "started" in frame.columns else "trial")
    scores = _scores(frame, score)
    places = {"Trial, in the order started": np.arange(1.0, len(scores) + 1)}
    if "seconds" in frame.columns:
        total = np.nancumsum(drawable(frame["seconds"].to_numpy(np.float64, na_value=np.nan)))
        unit, symbol = time_unit(total[-1])
        places[f"Training time ({symbol})"] = total / unit
    figure, grid = canvas.figure(4.0, 1, len(places), sharey=True)
    panels = list(np.ravel(grid))
    span = score_range(scores, maximize=maximize)
    span.apply(panels[0])
    note = f"{len(scores)} trial" + ("s" if len(scores) > 1 else "")
    if not np.isnan(scores).all():
        at = int(np.nanargmax(scores) if maximize else np.nanargmin(scores))
        note += f" · best {scores[at]:.4g} in trial {frame['trial'].iloc[at]}{span.note}"
    for axes, (label, x) in zip(panels, places.items(), strict=True):
        first = axes is panels[0]
        _progress(axes, x, span.clip(scores), maximize=maximize)
        canvas.dress(
            axes,
            "Search progress" if first else "",
            label,
            canvas.words(score) if first else "",
            note=note if first else "",
        )
    canvas.whole_ticks(panels[0])
    canvas.legend(figure, *panels[0].get_legend_handles_labels())
    return canvas.png(figure)


def _progress(axes: Axes, x: Floats, scores: Floats, *, maximize: bool) -> None:
    failed = np.isnan(scores)
    best = (np.fmax if maximize else np.fmin).accumulate(scores)
    axes.plot(x, scores, "o", color=canvas.PALE, markersize=5, label="Trial")
    axes.step(x, best, where="post", color=canvas.PALETTE[0], linewidth=2, label="Best so far")
    if failed.any():
        axes.plot(
            x[failed],
            np.full(int(failed.sum()), 0.02),
            "x",
            color=canvas.PALETTE[1],
            markersize=5,
            transform=axes.get_xaxis_transform(),
            label="Failed",
        )
    if not failed.all():
        at = int(np.nanargmax(scores) if maximize else np.nanargmin(scores))
        axes.plot(x[at], scores[at], "o", color=canvas.PALETTE[1], markersize=8, zorder=4)


def slices(
    frame: pd.DataFrame,
    score: str,
    *,
    maximize: bool,
    hyperparameters: Sequence[str] | None = None,
) -> bytes:
    """Draws the score against each hyperparameter, three to a row; the best trial stands out.

    Args:
        frame: A row per trial, a column per hyperparameter; a missing value leaves the trial out.
        score: Name of the column with the scores.
        maximize: Whether a higher score is better.
        hyperparameters: Columns to draw; all but `trial` and the score without it.

    Raises:
        OptionValueError: A column is missing, or there is none to draw.
        DataError: The frame has no row, or no trial has a finite score.
    """
    if hyperparameters is None:
        hyperparameters = [str(name) for name in frame.columns if name not in ("trial", score)]
    if not hyperparameters:
        raise OptionValueError("`hyperparameters` must name at least one column; got none.")
    _require_columns(frame, (score, *hyperparameters))
    scores = _scores(frame, score)
    if np.isnan(scores).all():
        raise DataError(f"At least one trial must have a finite {score!r}; got none.")
    columns = min(3, len(hyperparameters))
    rows = math.ceil(len(hyperparameters) / columns)
    figure, grid = canvas.figure(2.7 * rows + 0.5, rows, columns, sharey=True)
    panels = list(np.ravel(grid))
    span = score_range(scores, maximize=maximize)
    span.apply(panels[0])
    best = np.nanmax(scores) if maximize else np.nanmin(scores)
    shown, top = span.clip(scores), scores == best
    for axes, name in zip(panels, hyperparameters, strict=False):
        values = frame[name].astype(object).where(frame[name].notna(), None).tolist()
        found = scale(values)
        _slice(axes, found, shown, top)
        many = len(found.names) > _CATEGORIES_LIMIT
        label = canvas.shorten(canvas.words(name), 30)
        canvas.dress(axes, "", f"{label} ({len(found.names)} values)" if many else label, "")
    for axes in panels[len(hyperparameters) :]:
        axes.remove()
    figure.supylabel(canvas.plain(canvas.words(score)), fontsize=10, color=canvas.MUTED)
    figure.suptitle(
        canvas.plain(f"{canvas.words(score)} by hyperparameter"),
        x=0.01,
        ha="left",
        fontsize=12.5,
        fontweight="bold",
        color=canvas.INK,
    )
    return canvas.png(figure)


def importance_chart(shares: Mapping[str, float], chances: Mapping[str, float]) -> bytes:
    """Draws a bar per hyperparameter, pale where it is no longer than chance makes it.

    Args:
        shares: Hyperparameter -> its share of all importance, the largest first.
        chances: Hyperparameter -> the share it has to exceed.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = list(shares)
    figure, axes = canvas.figure(1.5 + 0.34 * len(names))
    rows = np.arange(len(names))
    bars = np.array([shares[name] for name in names])
    marks = np.minimum([chances[name] for name in names], 1.0)
    pale, strong = canvas.PALE, canvas.PALETTE[0]
    axes.barh(rows, bars, height=0.62, color=np.where(bars > marks, strong, pale))
    axes.plot(marks, rows, "|", color=canvas.INK, markersize=13, markeredgewidth=1.4)
    for row, bar in enumerate(bars):
        axes.annotate(
            canvas.percent(bar),
            xy=(1.0, row),
            xycoords=("axes fraction", "data"),
            xytext=(34, 0),  # room for three digits
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9.5,
            color=canvas.INK,
        )
    canvas.dress(axes, "", "Share of all importance", "", grid=False)
    axes.set_yticks(rows, [canvas.shorten(canvas.words(name), 34) for name in names])
    axes.tick_params(axis="y", labelsize=9.5, labelcolor=canvas.INK)
    axes.xaxis.set_major_formatter(canvas.percent)
    axes.set(xlim=(0, 1.04 * float(max(bars.max(), marks.max()))), ylim=(len(names) - 0.4, -0.6))
    chance = Line2D([], [], color=canvas.INK, marker="|", linestyle="none", markersize=11)
    handles = [Patch(color=strong), Patch(color=pale), chance]
    canvas.legend(figure, handles, ["stands out", "no more than chance", "chance, 95 %"])
    return canvas.png(figure)


def _require_columns(frame: pd.DataFrame, names: Iterable[str]) -> None:
    for name in names:
        if name not in frame.columns:
            known = [str(column) for column in frame.columns]
            raise OptionValueError(
                f"The frame must have a column {name!r}; got {', '.join(known)}."
                f"{did_you_mean(name, known)}"
            )
    if len(frame) == 0:
        raise DataError("The frame must have at least one trial; got none.")


def _scores(frame: pd.DataFrame, score: str) -> Floats:
    return drawable(frame[score].to_numpy(np.float64, na_value=np.nan))


def _slice(axes: Axes, values: Scale, scores: Floats, top: npt.NDArray[np.bool_]) -> None:
    places = values.places
    if values.names:
        _category_axis(axes, values.names)
        # Seeded, so that the same trials give the same figure.
        places = places + np.random.default_rng(0).uniform(-0.16, 0.16, len(places))
    else:
        _number_axis(axes, values)
    axes.plot(places, scores, "o", color=canvas.PALETTE[0], alpha=0.5, markersize=4.5, mew=0)
    axes.plot(places[top], scores[top], "o", color=canvas.PALETTE[1], markersize=8, zorder=4)


def _number_axis(axes: Axes, values: Scale) -> None:
    if values.log:
        canvas.log_axis(axes, wide=canvas.spans_decades(values.places, 100.0))
    labels = tick_labels(values.places, limit=_TICKS_LIMIT, width=_TICKS_WIDTH)
    if labels:
        axes.set_xticks(list(labels), list(labels.values()))
        axes.set_xticks([], minor=True)


def _category_axis(axes: Axes, names: Sequence[str]) -> None:
    texts = [canvas.shorten(name, 15) for name in names]
    if len(texts) > _CATEGORIES_LIMIT:
        axes.set_xticks([])
    elif sum(map(len, texts)) > 26:
        axes.set_xticks(range(len(names)), texts, rotation=30, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(range(len(names)), texts)
    axes.set_xlim(-0.5, len(names) - 0.5)
