from __future__ import annotations

import functools
import io
import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from sklearn import metrics

from tuning.page import canvas, curves, predictions, trials
from zoo.errors import DataError, OptionValueError

HISTORY = {"loss": [2.0, 1.0, 0.5], "val_loss": [2.1, 1.2, 0.9], "accuracy": [0.3, 0.5, 0.7]}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures in place of their bytes, not rendered: what they show is read off them."""
    kept: list[Any] = []

    def keep(figure: Figure) -> bytes:
        kept.append(figure)
        return b""

    monkeypatch.setattr(canvas, "png", keep)
    return kept


def search(trials: int = 40) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "trial": [f"{trial:04d}" for trial in range(trials)],
            "learning_rate": 10 ** random.uniform(-5, -1, trials),
            "dropout": random.uniform(0.01, 0.5, trials),
            "batch_size": random.choice([32, 64, 128], trials),
            "optimizer": random.choice(["adamw", "lion", "sgd"], trials),
            "mixup": random.choice([True, False], trials),
            "score": random.uniform(0.5, 0.9, trials),
        }
    )


@functools.cache
def every_figure() -> dict[str, bytes]:
    long = "a class name that is far too long to be written out $x_1$ in full"
    labels = np.arange(40) % 4
    classes = [f"{long} {n}" for n in "abcd"]
    return {
        "curves": curves.learning_curves({long: HISTORY, "b": HISTORY}, metric="loss"),
        "confusion": predictions.confusion_matrix(labels, labels[::-1], classes),
        "leaderboard": trials.leaderboard_chart(search(), maximize=True),
        "slices": trials.slices(search().assign(policy=[long] * 40), "score", maximize=True),
        "grid": predictions.image_grid(np.zeros((7, 8, 8, 3), np.uint8), [long] * 7, 3),
        "scatter": predictions.scatter(labels, labels + 0.5, target=long, unit="m/s"),
    }


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def tick_names(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_every_figure_is_a_png_1800_pixels_wide_and_reproducible() -> None:
    assert every_figure() == every_figure.__wrapped__()
    for name, content in every_figure().items():
        image = Image.open(io.BytesIO(content))
        image.load()
        assert (image.format, image.width) == ("PNG", 1800), name
        assert np.asarray(image.convert("L")).std() > 1, f"{name} is blank"


def test_nothing_is_cut_off() -> None:
    for name, content in every_figure().items():
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        border = (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:])
        assert all((edge == 255).all() for edge in border), f"{name} has ink at its border"


def test_importing_is_light_and_drawing_leaves_pyplot_alone() -> None:
    code = (
        "import sys; from tuning.page import curves, document, predictions, trials;"
        "assert 'matplotlib' not in sys.modules;"
        "predictions.scatter([1, 2], [1, 2]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_training_is_dashed_and_validation_solid_in_one_colour(figures: list[Any]) -> None:
    curves.learning_curves({"a": HISTORY, "b": {"loss": [3.0, 2.0]}}, metric="loss")
    axes = figures[0].axes[0]
    train, validation, other = axes.get_lines()
    np.testing.assert_array_equal(train.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(train.get_ydata(), HISTORY["loss"])
    np.testing.assert_array_equal(validation.get_ydata(), HISTORY["val_loss"])
    np.testing.assert_array_equal(other.get_ydata(), [3.0, 2.0])
    assert (train.get_linestyle(), validation.get_linestyle()) == ("--", "-")
    assert train.get_color() == validation.get_color() != other.get_color()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Epoch", "Loss")
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == [
        "a", "b", "training", "validation",
    ]  # fmt: skip


def test_a_band_is_the_mean_and_the_range_as_far_as_all_seeds_got(figures: list[Any]) -> None:
    runs = {"s0": [1.0, 2.0, 9.0], "s1": [3.0, 6.0], "s2": [5.0, 1.0, 4.0]}
    histories = {name: {"val_auc": values} for name, values in runs.items()}
    seconds = {"s0": [1.0, 2.0, 3.0], "s1": [2.0, 4.0], "s2": [3.0, 6.0, 9.0]}
    bands = {"model": ["s0", "s1", "s2"]}
    curves.learning_curves(histories, metric="auc", x=seconds, bands=bands)
    axes = figures[0].axes[0]
    (mean,), (band,) = axes.get_lines(), axes.collections
    np.testing.assert_allclose(mean.get_xdata(), [2.0, 4.0])
    np.testing.assert_allclose(mean.get_ydata(), [3.0, 3.0])
    corners = {(float(x), float(y)) for x, y in band.get_paths()[0].vertices}
    assert corners == {(2.0, 1.0), (2.0, 5.0), (4.0, 1.0), (4.0, 6.0)}
    assert axes.get_xlabel() == "Time (s)"


def test_values_that_are_not_finite_leave_a_gap(figures: list[Any]) -> None:
    curves.learning_curves({"a": {"loss": [1.0, float("inf"), float("nan"), 2.0]}}, metric="loss")
    (line,) = figures[0].axes[0].get_lines()
    np.testing.assert_array_equal(line.get_ydata(), [1.0, np.nan, np.nan, 2.0])


@pytest.mark.parametrize(
    ("metric", "values", "scale"),
    [("loss", [5.0, 0.01], "log"), ("loss", [5.0, 1.0], "linear"), ("auc", [0.9, 1e-3], "linear")],
)
def test_only_a_loss_over_decades_gets_a_log_axis(
    figures: list[Any], metric: str, values: list[float], scale: str
) -> None:
    curves.learning_curves({"a": {metric: values}}, metric=metric)
    assert figures[0].axes[0].get_yscale() == scale


def test_many_curves_get_colours_of_their_own_and_no_legend(figures: list[Any]) -> None:
    curves.learning_curves({f"trial {n}": HISTORY for n in range(30)}, metric="accuracy")
    assert len({line.get_color() for line in figures[0].axes[0].get_lines()}) == 30
    assert not figures[0].legends
    assert any(text.startswith("30 runs") for text in words(figures[0]))


def test_one_epoch_is_visible(figures: list[Any]) -> None:
    curves.learning_curves({"a": {"loss": [1.0]}}, metric="loss")
    assert figures[0].axes[0].get_lines()[0].get_marker() == "o"


def test_unknown_metric_names_the_close_ones() -> None:
    with pytest.raises(OptionValueError, match=r"got metric='acuracy'.* Did you mean accuracy"):
        curves.learning_curves({"a": HISTORY}, metric="acuracy")


def test_band_of_an_unknown_curve_is_refused() -> None:
    with pytest.raises(OptionValueError, match="`bands` must name curves; got 'sed 0'"):
        curves.learning_curves({"seed 0": HISTORY}, metric="loss", bands={"m": ["sed 0"]})


def test_places_must_match_the_values() -> None:
    with pytest.raises(OptionValueError, match="got 2 for the 3 values of 'a'"):
        curves.learning_curves({"a": HISTORY}, metric="loss", x={"a": [1.0, 2.0]})


def test_confusion_matrix_equals_scikit_learns(figures: list[Any]) -> None:
    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 5, 300), random.integers(0, 6, 300)
    predictions.confusion_matrix(truth, predicted, list("abcdef"))  # f is never true: an empty row
    axes = figures[0].axes[0]
    options = {"labels": range(6)}
    shares = metrics.confusion_matrix(truth, predicted, normalize="true", **options)
    np.testing.assert_allclose(axes.images[0].get_array(), shares)
    counts = metrics.confusion_matrix(truth, predicted, **options)
    written = {text.get_position(): text.get_text() for text in axes.texts if text.get_text()}
    for (row, column), count in np.ndenumerate(counts):
        assert written.get((column, row)) == (str(count) if count else None)
    accuracy = 100 * metrics.accuracy_score(truth, predicted)
    assert f"300 examples · {accuracy:.1f} % correct" in words(figures[0])
    assert tick_names(axes.xaxis) == tick_names(axes.yaxis) == list("abcdef")


@pytest.mark.parametrize(
    ("classes", "counted", "named"), [(20, True, True), (21, False, True), (101, False, False)]
)
def test_counts_to_20_classes_and_names_to_100(
    figures: list[Any], classes: int, counted: bool, named: bool
) -> None:
    labels = np.arange(classes)
    predictions.confusion_matrix(labels, labels, [f"class {n}" for n in labels])
    found = words(figures[0])
    assert (found.count("1") == classes) is counted
    assert any(text.startswith("class 7") for text in found) is named


def test_above_40_classes_columns_are_numbered_and_rows_carry_the_numbers(
    figures: list[Any],
) -> None:
    labels = np.arange(50)
    predictions.confusion_matrix(labels, labels, [f"class {n}" for n in labels])
    axes = figures[0].axes[0]
    assert list(axes.get_xticks()) == list(range(0, 50, 5))
    assert tick_names(axes.yaxis) == [f"class {n}  {n}" for n in labels]
    assert axes.get_xlabel() == "Predicted class, by number"


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([], [], "same length, at least 1; got 0 and 0"),
        ([0, 1], [0], "same length, at least 1; got 2 and 1"),
        ([0, 2], [0, 1], r"`truth` must hold class indices in \[0, 2\).* got 0 to 2"),
        ([0, 1], [0, -1], r"`predicted` must hold class indices in \[0, 2\).* got -1 to 0"),
    ],
)
def test_confusion_matrix_refuses(truth: list[int], predicted: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        predictions.confusion_matrix(truth, predicted, ["a", "b"])


@pytest.mark.parametrize(("maximize", "better"), [(True, max), (False, min)])
def test_best_so_far_follows_the_order_of_trials(
    figures: list[Any], maximize: bool, better: Any
) -> None:
    frame = search(20)
    expected = list(itertools.accumulate(frame["score"], better))
    trials.leaderboard_chart(frame.sort_values("score"), maximize=maximize)
    scores, best, star = figures[0].axes[0].get_lines()
    np.testing.assert_array_equal(scores.get_ydata(), frame["score"])
    np.testing.assert_array_equal(best.get_ydata(), expected)
    at = expected.index(expected[-1]) + 1
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (at, expected[-1])
    assert f"20 trials · best {expected[-1]:.4g} in trial {at - 1:04d}" in words(figures[0])


def test_failed_trials_are_crosses_and_do_not_count(figures: list[Any]) -> None:
    frame = pd.DataFrame({"trial": [0, 1, 2, 3], "score": [np.nan, 0.2, np.inf, 0.1]})
    trials.leaderboard_chart(frame, maximize=True)
    _, best, failed, _ = figures[0].axes[0].get_lines()
    np.testing.assert_array_equal(best.get_ydata(), [np.nan, 0.2, 0.2, 0.2])
    np.testing.assert_array_equal(failed.get_xdata(), [1, 3])
    assert failed.get_marker() == "x"


def test_a_search_in_which_all_failed_is_drawn(figures: list[Any]) -> None:
    trials.leaderboard_chart(pd.DataFrame({"trial": [0], "score": [None]}), maximize=True)
    assert "1 trial" in words(figures[0])


def test_leaderboard_needs_its_columns() -> None:
    with pytest.raises(OptionValueError, match=r"column 'scor'; got .* Did you mean score\?"):
        trials.leaderboard_chart(search(), maximize=True, score="scor")


def test_leaderboard_needs_a_trial() -> None:
    with pytest.raises(DataError, match="at least one trial; got none"):
        trials.leaderboard_chart(search(0), maximize=True)


def test_slices_choose_the_axis_by_how_values_were_drawn(figures: list[Any]) -> None:
    trials.slices(search(), "score", maximize=True)
    panels = {axes.get_xlabel(): axes for axes in figures[0].axes}
    assert list(panels) == ["Learning rate", "Dropout", "Batch size", "Optimizer", "Mixup"]
    assert panels["Learning rate"].get_xscale() == "log"
    assert panels["Dropout"].get_xscale() == "linear"  # 50-fold, yet uniform
    assert tick_names(panels["Batch size"].xaxis) == ["32", "64", "128"]
    assert tick_names(panels["Optimizer"].xaxis) == ["adamw", "lion", "sgd"]
    assert tick_names(panels["Mixup"].xaxis) == ["False", "True"]


def test_slices_place_every_trial_and_mark_the_best(figures: list[Any]) -> None:
    frame = search()
    frame.loc[5, "score"] = np.nan
    frame.loc[:9, "dropout"] = np.nan
    names = ["learning_rate", "dropout", "optimizer"]
    trials.slices(frame, "score", maximize=False, hyperparameters=names)
    rate, dropout, optimizer = figures[0].axes
    np.testing.assert_array_equal(rate.get_lines()[0].get_xdata(), frame["learning_rate"])
    np.testing.assert_array_equal(rate.get_lines()[0].get_ydata(), frame["score"])
    np.testing.assert_array_equal(dropout.get_lines()[0].get_xdata(), frame["dropout"])
    places = np.rint(optimizer.get_lines()[0].get_xdata()).astype(int)
    np.testing.assert_array_equal(np.array(["adamw", "lion", "sgd"])[places], frame["optimizer"])
    assert rate.get_lines()[1].get_xdata() == [frame["learning_rate"][frame["score"].idxmin()]]


def test_long_categories_are_slanted(figures: list[Any]) -> None:
    policies = ["randaugment", "trivialaugment", "autoaugment", "none"] * 10
    names = ["optimizer", "policy"]
    trials.slices(search().assign(policy=policies), "score", maximize=True, hyperparameters=names)
    slants = [{label.get_rotation() for label in a.get_xticklabels()} for a in figures[0].axes]
    assert slants == [{0.0}, {30.0}]


def test_slices_need_a_hyperparameter() -> None:
    with pytest.raises(OptionValueError, match="`hyperparameters` must name at least one column"):
        trials.slices(search()[["trial", "score"]], "score", maximize=True)


def test_slices_need_a_score() -> None:
    with pytest.raises(DataError, match="must have a finite 'score'; got none"):
        trials.slices(search().assign(score=np.nan), "score", maximize=True)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1), (3, 4, 3)])
def test_image_grid_shows_the_pixels(figures: list[Any], shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    predictions.image_grid(images, ["a", "b\nc", "x" * 30], columns=2)
    predictions.image_grid(list(images / np.float32(255)), ["", "", ""], columns=2)
    for figure in figures:
        shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
        expected = [np.squeeze(image / 255) for image in images]
        np.testing.assert_allclose(shown, expected, atol=1e-6)
    assert {"a", "b\nc", "x" * 30} <= set(words(figures[0]))


def test_image_grid_wraps_captions(figures: list[Any]) -> None:
    predictions.image_grid(np.zeros((1, 2, 2)), ["true: Ankle boot, predicted: Sneaker"], columns=6)
    (caption,) = words(figures[0])
    assert caption.split() == ["true:", "Ankle", "boot,", "predicted:", "Sneaker"]
    assert max(map(len, caption.splitlines())) <= 19


@pytest.mark.parametrize(
    ("images", "captions", "columns", "error", "message"),
    [
        (np.zeros((2, 4, 4)), ["a"], 5, OptionValueError, "got 1 for 2 images"),
        (np.zeros((0, 4, 4)), [], 5, DataError, "at least one image; got none"),
        (np.zeros((1, 4, 4)), ["a"], 0, OptionValueError, "got columns=0"),
        (np.zeros((1, 4, 4, 2)), ["a"], 5, DataError, r"got shape \(4, 4, 2\)"),
        (np.full((1, 4, 4), 200.0), ["a"], 5, DataError, "got float64 from 200 to 200"),
        (np.full((1, 4, 4), np.nan), ["a"], 5, DataError, "got float64 from nan to nan"),
        (np.zeros((1, 4, 4), np.int32), ["a"], 5, DataError, "got int32"),
    ],
)
def test_image_grid_refuses(
    images: Any, captions: list[str], columns: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        predictions.image_grid(images, captions, columns)


@pytest.mark.parametrize("count", [200, 5000])
def test_scatter_states_fit_and_error(figures: list[Any], count: int) -> None:
    random = np.random.default_rng(0)
    truth = random.normal(50, 10, count)
    predicted = truth + random.normal(0, 3, count)
    predictions.scatter(truth, predicted, target="speed", unit="km/h")
    r2 = metrics.r2_score(truth, predicted)
    error = metrics.mean_absolute_error(truth, predicted)
    note = f"{count:,} examples · R² {r2:.3f} · mean absolute error {error:.4g} km/h"
    assert note in words(figures[0])
    axes = figures[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("True speed (km/h)", "Predicted speed (km/h)")
    assert axes.get_xlim() == axes.get_ylim()
    if count == 200:
        np.testing.assert_array_equal(axes.get_lines()[0].get_xydata().T, [truth, predicted])
    else:
        assert axes.collections[0].get_array().sum() == count


def test_scatter_of_a_constant_has_no_r2(figures: list[Any]) -> None:
    predictions.scatter([2.0, 2.0], [2.0, 3.0])
    assert "2 examples · mean absolute error 0.5" in words(figures[0])
