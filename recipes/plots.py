"""Figures of a run as PNG bytes, safe for colour-blind readers; their look is in `canvas`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recipes import canvas
from recipes.curves import learning_curves
from zoo.errors import DataError, OptionValueError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = [
    "confusion_matrix",
    "image_grid",
    "leaderboard_chart",
    "learning_curves",
    "scatter",
    "slices",
]

Floats = npt.NDArray[np.float64]

_COUNTS_LIMIT = 20  # classes; above it a count no longer fits its cell
_UPRIGHT_LIMIT = 40  # classes; above it upright names under the columns are too small
_NAMES_LIMIT = 100  # classes; above it a name is taller than its row
_DENSE_POINTS = 3000  # above it overlapping points hide how many they are
_LOG_RATIO = 8.0  # largest / smallest; from it on a log axis is considered
_TICKS_LIMIT = 6  # distinct values; up to it each gets its own tick
_TICKS_WIDTH = 16  # characters side by side before tick labels overlap


def confusion_matrix(
    truth: npt.ArrayLike, predicted: npt.ArrayLike, class_names: Sequence[str]
) -> bytes:
    """Draws which class (row) was taken for which (column); each row's colours add up to 100 %.

    Args:
        truth: Class indices, (N,).
        predicted: Class indices, (N,).
        class_names: Name of class 0, 1, ...; counts are written up to 20 classes, names up to 100.

    Raises:
        DataError: No example, lengths that differ, or an index without a class name.
    """
    from matplotlib.colors import PowerNorm

    counts = _count_pairs(truth, predicted, len(class_names))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(class_names)
    height_in = 1.9 + _row_height_in(classes) * min(classes, _NAMES_LIMIT)
    figure, axes = canvas.figure(max(3.6, height_in))
    # The square root shows confusions of a few per cent, which a linear scale leaves white.
    scale = PowerNorm(gamma=0.5, vmin=0.0, vmax=1.0)
    image = axes.imshow(shares, cmap="Blues", norm=scale, interpolation="nearest", aspect="auto")
    ticks = (0, 0.01, 0.05, 0.2, 0.5, 1)
    canvas.colour_bar(
        figure, axes, image, "Share of the true class", ticks=ticks, format=canvas.percent
    )
    if classes <= _COUNTS_LIMIT:
        _write_counts(axes, counts, shares)
    correct = 100 * np.trace(counts) / counts.sum()
    note = f"{counts.sum():,} examples · {correct:.1f} % correct"
    x_label = "Predicted class" + (", by number" if classes > _UPRIGHT_LIMIT else "")
    canvas.dress(axes, "Confusion matrix", x_label, "True class", note=note, grid=False)
    _name_classes(axes, class_names)
    return canvas.png(figure)


def leaderboard_chart(frame: pd.DataFrame, *, maximize: bool, score: str = "score") -> bytes:
    """Draws the score of every trial and the best so far, in the order the trials started.

    Args:
        frame: A row per trial; column `trial` holds its number (or zero-padded name), and a
            missing score marks a trial that failed.
        maximize: Whether a higher score is better.
        score: Name of the column with the scores.

    Raises:
        OptionValueError: A column is missing.
        DataError: The frame has no row.
    """
    _require_columns(frame, ("trial", score))
    frame = frame.sort_values("trial")
    scores = _scores(frame, score)
    number = np.arange(1, len(scores) + 1)
    failed = np.isnan(scores)
    best = (np.fmax if maximize else np.fmin).accumulate(scores)
    figure, axes = canvas.figure(4.0)
    axes.plot(number, scores, "o", color=canvas.PALE, markersize=5, label="Trial")
    axes.step(number, best, where="post", color=canvas.PALETTE[0], linewidth=2, label="Best so far")
    if failed.any():
        foot = np.zeros(int(failed.sum()))
        axes.plot(
            number[failed],
            foot + 0.02,
            "x",
            color=canvas.PALETTE[1],
            markersize=5,
            transform=axes.get_xaxis_transform(),
            label="Failed",
        )
    note = f"{len(scores)} trial" + ("s" if len(scores) > 1 else "")
    if not failed.all():
        at = int(np.nanargmax(scores) if maximize else np.nanargmin(scores))
        axes.plot(number[at], scores[at], "o", color=canvas.PALETTE[1], markersize=8, zorder=4)
        note += f" · best {scores[at]:.4g} in trial {frame['trial'].iloc[at]}"
    canvas.dress(
        axes, "Search progress", "Trial, in the order started", canvas.words(score), note=note
    )
    canvas.whole_ticks(axes)
    canvas.legend(figure, *axes.get_legend_handles_labels())
    return canvas.png(figure)


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
    columns = min(3, len(hyperparameters))
    rows = math.ceil(len(hyperparameters) / columns)
    figure, grid = canvas.figure(2.7 * rows + 0.5, rows, columns, sharey=True)
    scores = _scores(frame, score)
    if np.isnan(scores).all():
        raise DataError(f"At least one trial must have a finite {score!r}; got none.")
    best = np.nanmax(scores) if maximize else np.nanmin(scores)
    panels = list(np.ravel(grid))
    for axes, name in zip(panels, hyperparameters, strict=False):
        _slice(axes, frame[name], scores, best)
        canvas.dress(axes, "", canvas.words(name), "")
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


def image_grid(
    images: Sequence[npt.NDArray[Any]] | npt.NDArray[Any],
    captions: Sequence[str],
    columns: int = 5,
) -> bytes:
    """Draws images with a caption under each, such as true class, prediction and probability.

    Args:
        images: (H, W), (H, W, 1) or (H, W, 3) each; uint8, or floats in [0, 1].
        captions: One per image; its own line breaks are kept, long lines are wrapped.
        columns: Images per row.

    Raises:
        OptionValueError: `columns` is not positive, or there is not one caption per image.
        DataError: There is no image, or one has another shape or range.
    """
    if columns < 1:
        raise OptionValueError(f"`columns` must be at least 1; got columns={columns}.")
    if len(images) != len(captions):
        raise OptionValueError(
            "`captions` must hold one caption per image; "
            f"got {len(captions)} for {len(images)} images."
        )
    if len(images) == 0:
        raise DataError("An image grid needs at least one image; got none.")
    pictures = [_pixels(image) for image in images]
    texts = [_wrap(caption, columns) for caption in captions]
    rows = math.ceil(len(pictures) / columns)
    lines = max(text.count("\n") + 1 for text in texts)
    tallest = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    side_in = (canvas.WIDTH_IN - 0.4) / columns
    height_in = rows * (side_in * tallest + 0.17 * lines + 0.2)
    figure, grid = canvas.figure(height_in, rows, columns)
    panels = list(np.ravel(grid))
    for axes in panels:
        axes.set_axis_off()
    for axes, picture, text in zip(panels, pictures, texts, strict=False):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.text(
            0.5,
            -0.04,
            text,
            transform=axes.transAxes,
            ha="center",
            va="top",
            fontsize=8.5,
            color=canvas.INK,
            linespacing=1.35,
        )
    return canvas.png(figure)


def scatter(
    truth: npt.ArrayLike, predicted: npt.ArrayLike, *, target: str = "value", unit: str = ""
) -> bytes:
    """Draws predicted against true values of a regression with the line of perfect prediction.

    Args:
        truth: (N,).
        predicted: (N,).
        target: What is predicted, for the axis labels.
        unit: Its unit, for the axis labels and the error.

    Raises:
        DataError: No example, or lengths that differ.
    """
    x, y = _pair(truth, predicted, np.float64)
    figure, axes = canvas.figure(5.6)
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    margin = 0.03 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    if len(x) > _DENSE_POINTS:
        cells = axes.hexbin(
            x, y, gridsize=60, bins="log", mincnt=1, cmap=canvas.density(), linewidths=0
        )
        canvas.colour_bar(figure, axes, cells, "Examples per cell", format="{x:,.0f}")
    else:
        axes.plot(x, y, "o", color=canvas.PALETTE[0], alpha=0.45, markersize=4.5, mew=0)
    axes.plot(limits, limits, color=canvas.PALETTE[1], linewidth=1.2, linestyle=(0, (4, 2)))
    axes.set(xlim=limits, ylim=limits)
    spread = float(np.square(x - x.mean()).sum())
    fit = f" · R² {1 - float(np.square(y - x).sum()) / spread:.3f}" if spread > 0 else ""
    error = f"mean absolute error {np.abs(y - x).mean():.4g} {unit}"
    note = f"{len(x):,} examples{fit} · {error}"
    label = target + (f" ({unit})" if unit else "")
    canvas.dress(axes, "Predicted against true", f"True {label}", f"Predicted {label}", note=note)
    return canvas.png(figure)


def _count_pairs(
    truth: npt.ArrayLike, predicted: npt.ArrayLike, classes: int
) -> npt.NDArray[np.int64]:
    rows, columns = _pair(truth, predicted, np.int64)
    for name, values in (("truth", rows), ("predicted", columns)):
        if values.min() < 0 or values.max() >= classes:
            raise DataError(
                f"`{name}` must hold class indices in [0, {classes}), one per class name; "
                f"got {values.min()} to {values.max()}."
            )
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes)


def _pair(truth: npt.ArrayLike, predicted: npt.ArrayLike, dtype: Any) -> tuple[Any, Any]:
    first, second = np.asarray(truth, dtype).ravel(), np.asarray(predicted, dtype).ravel()
    if len(first) != len(second) or len(first) == 0:
        raise DataError(
            "`truth` and `predicted` must have the same length, at least 1; "
            f"got {len(first)} and {len(second)}."
        )
    return first, second


def _row_height_in(classes: int) -> float:
    return min(0.5, max(0.085, 6.5 / classes))


def _write_counts(axes: Axes, counts: npt.NDArray[np.int64], shares: Floats) -> None:
    size = 10 if len(counts) <= 10 else 8
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.35 else canvas.INK
            axes.text(
                column, row, f"{count:,}", ha="center", va="center", fontsize=size, color=colour
            )


def _name_classes(axes: Axes, class_names: Sequence[str]) -> None:
    classes = len(class_names)
    if classes > _NAMES_LIMIT:
        return
    names = [canvas.shorten(name, 22) for name in class_names]
    size = min(9.5, 0.85 * 72 * _row_height_in(classes))
    if classes > _UPRIGHT_LIMIT:
        names = [f"{name}  {index}" for index, name in enumerate(names)]
        axes.set_xticks(range(0, classes, 5))
    else:
        upright = max(map(len, names)) * classes > 80
        axes.set_xticks(range(classes), names, rotation=90 if upright else 0, fontsize=size)
    axes.set_yticks(range(classes), names, fontsize=size)


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
    scores = frame[score].to_numpy(np.float64, na_value=np.nan)
    return np.where(np.isfinite(scores), scores, np.nan)


def _slice(axes: Axes, column: pd.Series[Any], scores: Floats, best: float) -> None:
    present = column.notna().to_numpy()
    values, scores = column[present], scores[present]
    if _is_number(values):
        places = values.to_numpy(np.float64)
        _number_axis(axes, places)
    else:
        texts = values.astype(str).to_numpy()
        names = sorted(set(texts))
        # Seeded, so that the same trials give the same figure.
        jitter = np.random.default_rng(0).uniform(-0.16, 0.16, len(texts))
        places = np.searchsorted(names, texts) + jitter
        _category_axis(axes, names)
    axes.plot(places, scores, "o", color=canvas.PALETTE[0], alpha=0.5, markersize=4.5, mew=0)
    top = scores == best
    axes.plot(places[top], scores[top], "o", color=canvas.PALETTE[1], markersize=8, zorder=4)


def _is_number(values: pd.Series[Any]) -> bool:
    from pandas.api import types

    return bool(types.is_numeric_dtype(values) and not types.is_bool_dtype(values))


def _number_axis(axes: Axes, places: Floats) -> None:
    distinct = np.unique(places)
    if canvas.spans_decades(places, _LOG_RATIO) and _is_skewed(distinct):
        canvas.log_axis(axes, wide=canvas.spans_decades(places, 100.0))
    labels = [canvas.short_number(value) for value in distinct]
    if len(distinct) <= _TICKS_LIMIT and sum(map(len, labels)) <= _TICKS_WIDTH:
        axes.set_xticks(distinct, labels)
        axes.set_xticks([], minor=True)


def _is_skewed(distinct: Floats) -> bool:
    """Tells values drawn on a log scale, whose median is near the geometric middle."""
    low, high = distinct[0], distinct[-1]
    return bool(np.median(distinct) < (np.sqrt(low * high) + (low + high) / 2) / 2)


def _category_axis(axes: Axes, names: Sequence[str]) -> None:
    texts = [canvas.shorten(name, 15) for name in names]
    if sum(map(len, texts)) > 26:
        axes.set_xticks(range(len(names)), texts, rotation=30, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(range(len(names)), texts)
    axes.set_xlim(-0.5, len(names) - 0.5)


def _wrap(caption: str, columns: int) -> str:
    width = max(8, int(115 / columns))
    lines = [line for part in caption.splitlines() for line in textwrap.wrap(part, width) or [""]]
    return "\n".join(map(canvas.plain, lines))


def _pixels(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 and not (pixels.ndim == 3 and pixels.shape[-1] == 3):
        raise DataError(
            f"An image must be (H, W), (H, W, 1) or (H, W, 3); got shape {np.shape(image)}."
        )
    if pixels.dtype == np.uint8:
        return pixels / 255
    if pixels.dtype.kind != "f" or not (pixels.min() >= 0 and pixels.max() <= 1):
        raise DataError(
            "An image must be uint8, or floats in [0, 1]; "
            f"got {pixels.dtype} from {pixels.min():g} to {pixels.max():g}."
        )
    return pixels
