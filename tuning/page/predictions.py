"""What a model predicts beside what is true, as PNG bytes: confusion, scatter, grids of images."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuning.page import canvas
from zoo.errors import DataError, OptionValueError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

_COUNTS_LIMIT = 20  # classes; above it a count no longer fits its cell
_UPRIGHT_LIMIT = 40  # classes; above it upright names under the columns are too small
_NAMES_LIMIT = 100  # classes; above it a name is taller than its row
_DENSE_POINTS = 3000  # above it overlapping points hide how many they are


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
