from __future__ import annotations

import ast
import logging
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_tuning_page_document import Node, Tree
from tuning import importance, report
from tuning.importance import importances, top_share
from tuning.page import canvas, curves, parallel, scales, trials
from tuning.report import write_hparams, write_report
from tuning.results import SearchSummary, TrialSummary
from zoo.errors import DataError, OptionValueError

EVIL = """<script>alert("x")</script> & 'quoted' $x^2$ <img src=http://example.com/x.png>"""
NAN, INF = float("nan"), float("inf")


def search(*found: TrialSummary, direction: str = "max", **options: Any) -> SearchSummary:
    settings: dict[str, Any] = {
        "title": "Flowers",
        "objective": "val_accuracy" if direction == "max" else "val_loss",
        "algorithm": "random",
        "seed": 3,
        "max_epochs": 4,
        "seconds": sum(trial.seconds for trial in found),
    }
    return SearchSummary(trials=found, direction=direction, **(settings | options))


def trial(name: str, score: float | None = 0.5, **options: Any) -> TrialSummary:
    settings: dict[str, Any] = {"status": "completed", "seconds": 2.0}
    return TrialSummary(trial=name, score=score, **(settings | options))


def many(count: int, *, direction: str = "max", hyperparameters: int = 2) -> SearchSummary:
    """A search whose score is decided by `rate`, above or below 1e-3, and by nothing else."""
    random = np.random.default_rng(0)
    found = []
    metric = "val_accuracy" if direction == "max" else "val_loss"
    for number in range(count):
        rate = float(10 ** random.uniform(-5, -1))
        score = 0.9 - 0.1 * abs(math.log10(rate) + 3)
        score = score if direction == "max" else 1 - score
        values: dict[str, Any] = {f"x{i}": float(random.uniform()) for i in range(hyperparameters)}
        values |= {"rate": rate, "optimizer": str(random.choice(["adam", "sgd"]))}
        if values["optimizer"] == "sgd":
            values["momentum"] = float(random.uniform(0.5, 0.99))
        history = {metric: [0.4 * score, score], "loss": [2.0, 1.0]}
        found.append(trial(f"{number:03d}", score, values=values, history=history))
    return search(*found, direction=direction)


def page(summary: SearchSummary, folder: Path) -> Node:
    return Tree(write_report(summary, folder / "report.html").read_text("utf-8")).root


def section(root: Node, title: str) -> Node:
    (found,) = [node for node in root.all("section") if node.one("h2").words == title]
    return found


def titles(root: Node) -> list[str]:
    return [node.words for node in root.all("h2")]


def numbers(node: Node) -> dict[str, tuple[str, str]]:
    items = [i for i in node.one("dl").all("div") if i.all("dt")]
    return {i.one("dt").words: (i.one("strong").words, i.one("small").words) for i in items}


def rows(node: Node) -> list[list[str]]:
    return [[cell.words for cell in row.all("td")] for row in node.one("tbody").all("tr")]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures of a page in order, each replaced there by one pixel."""
    kept: list[Any] = []
    pixel = canvas.png(canvas.figure(1.0)[0])

    def keep(figure: Any) -> bytes:
        kept.append(figure)
        return pixel

    monkeypatch.setattr(canvas, "png", keep)
    return kept


@pytest.mark.usefixtures("figures")
@pytest.mark.parametrize(("direction", "order"), [("max", "bac"), ("min", "cab")])
def test_best_trial_comes_first(direction: str, order: str, tmp_path: Path) -> None:
    scores = {"a": 0.5, "b": 0.75, "c": 0.25}
    found = [trial(n, s, values={"rate": s / 10, "on": True}) for n, s in scores.items()]
    root = page(search(*found, direction=direction), tmp_path)
    result = section(root, "Result")
    objective = "val_accuracy" if direction == "max" else "val_loss"
    best = numbers(result)[f"Best {objective}"]
    assert best == (str(scores[order[0]]), f"trial {order[0]}")
    assert numbers(result)["Median"] == ("0.5", "of 3 scores")
    assert ast.literal_eval(result.one("code").words) == {
        "rate": scores[order[0]] / 10, "on": True,
    }  # fmt: skip
    board = rows(section(root, "Leaderboard"))
    assert [(row[0], row[1]) for row in board] == [(str(i), n) for i, n in enumerate(order, 1)]
    word = "maximised" if direction == "max" else "minimised"
    assert f"{objective} {word}, up to 4 epochs each" in root.one("header").words


def test_best_values_are_python_source() -> None:
    values = {"a": 1e-5, "b": 3, "c": False, "d": 'q"\\\n\u2028é', "e": INF, "f": NAN}
    (read,) = [eval(report._code(trial("0", values=values)).text)]  # noqa: S307
    assert math.isnan(read.pop("f"))
    assert read == {name: value for name, value in values.items() if name != "f"}
    assert report._code(trial("0")).text == "{}"


@pytest.mark.usefixtures("figures")
def test_leaderboard_has_every_trial_and_what_is_missing_is_last(tmp_path: Path) -> None:
    found = [
        trial("0", None, status="failed", reason="out of memory", values={"units": 8}),
        trial("1", 0.2, values={"units": 16, "rate": 0.1}, history={"loss": [1.0, 2.0]}),
        trial("2", NAN, values={"units": 32}),
        trial("3", 0.4, status="stopped", values={"rate": 0.3}, parent="1", seconds=11.26),
        trial("4", 0.9, status="failed"),
    ]
    table = section(page(search(*found), tmp_path), "Leaderboard").one("table")
    heads = ["rank", "trial", "val_accuracy", "status", "epochs", "seconds", "continues"]
    assert [head.words for head in table.all("th")] == [*heads, "units", "rate"]
    none = "\N{EN DASH}"
    assert rows(table) == [
        ["1", "3", "0.4", "stopped", "0", "11.3", "1", none, "0.3"],
        ["2", "1", "0.2", "completed", "2", "2.0", none, "16", "0.1"],
        [none, "0", none, "failed", "0", "2.0", none, "8", none],
        [none, "2", none, "completed", "0", "2.0", none, "32", none],
        [none, "4", none, "failed", "0", "2.0", none, none, none],
    ]
    assert table.one("caption").words == "5 trials, the best first, those without score last"


def test_equal_scores_rank_in_the_order_started() -> None:
    assert [t.trial for t in search(trial("b"), trial("a")).ranked()] == ["b", "a"]


def test_curves_of_every_trial_in_the_page(figures: list[Any], tmp_path: Path) -> None:
    found = [
        trial("0", 0.3, history={"val_accuracy": [0.1, 0.3]}),
        trial("1", 0.6, history={"val_accuracy": [0.5, NAN, 0.6]}),
        trial("2", None, status="failed", history={"val_accuracy": [0.2, NAN]}),
        trial("3", None, status="failed"),
    ]
    root = page(search(*found), tmp_path)
    axes = figures[1].axes[0]
    lines = [line for line in axes.get_lines() if line.get_linestyle() == "-"]
    drawn = [line.get_ydata().tolist() for line in lines]
    np.testing.assert_equal(drawn, [[0.1, 0.3], [0.5, NAN, 0.6], [0.2, NAN]])
    assert [line.get_color() == canvas.PALETTE[0] for line in lines] == [False, True, False]
    (cross,) = [line for line in axes.get_lines() if line.get_marker() == "x"]
    assert (cross.get_xdata().tolist(), cross.get_ydata().tolist()) == ([1], [0.2])
    caption = section(root, "Learning curves").one("figcaption").words
    assert caption == "1 trial failed before the first epoch."


def test_a_value_between_gaps_is_visible(figures: list[Any]) -> None:
    values = [0.1, NAN, 0.3, NAN, 0.5, 0.6]
    curves.trial_curves({"0": (range(1, 7), values)}, metric="auc", maximize=True)
    _, dots = figures[0].axes[0].get_lines()
    assert (dots.get_xdata().tolist(), dots.get_marker()) == ([1, 3], "o")


def test_a_continued_curve_goes_on_from_its_parents_last_epoch(
    figures: list[Any], tmp_path: Path
) -> None:
    found = [
        trial("0", 0.3, history={"val_accuracy": [0.1, 0.3]}),
        trial("1", 0.2, history={"val_accuracy": [0.2]}),
        trial("2", 0.5, history={"val_accuracy": [0.4, 0.5]}, parent="0"),
        trial("3", 0.7, history={"val_accuracy": [0.7]}, parent="2"),
    ]
    root = page(search(*found), tmp_path)
    lines = [line for line in figures[1].axes[0].get_lines() if line.get_linestyle() == "-"]
    assert [line.get_xdata().tolist() for line in lines] == [[1, 2], [1], [2, 3, 4], [4, 5]]
    assert lines[2].get_ydata().tolist() == [0.3, 0.4, 0.5]
    in_colour = [line.get_color() == canvas.PALETTE[0] for line in lines]
    assert in_colour == [True, False, True, True]
    # Two configurations were begun; one got five of its four epochs.
    cost = numbers(section(root, "Cost"))["Epochs trained"]
    assert cost == ("6", "75 % of the 8 that 2 full trainings would take")


@pytest.mark.parametrize("direction", ["min", "max"])
def test_best_so_far_over_trials_and_over_seconds(
    direction: str, figures: list[Any], tmp_path: Path
) -> None:
    scores = [0.5, None, 0.7, 0.3, 0.9]
    names = ["z", "y", "10", "9", "a"]  # their order says nothing
    found = [
        trial(n, s, status="completed" if s else "failed", seconds=float(i))
        for i, (n, s) in enumerate(zip(names, scores, strict=True), 1)
    ]
    page(search(*found, direction=direction), tmp_path)
    by_trial, by_time = figures[0].axes
    best = [0.5, 0.5, 0.7, 0.7, 0.9] if direction == "max" else [0.5, 0.5, 0.5, 0.3, 0.3]
    for axes, places in ((by_trial, [1, 2, 3, 4, 5]), (by_time, [1, 3, 6, 10, 15])):
        line = axes.get_lines()[1]
        assert line.get_ydata().tolist() == best
        assert line.get_xdata().tolist() == places
    assert by_time.get_xlabel() == "Training time (s)"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(599.0, (1.0, "s")), (600.0, (60.0, "min")), (10_800.0, (3600.0, "h")), (0.0, (1.0, "s"))],
)
def test_time_axis_has_a_unit_that_suits(seconds: float, expected: tuple[float, str]) -> None:
    assert scales.time_unit(seconds) == expected


@pytest.mark.parametrize("direction", ["min", "max"])
def test_importance_finds_what_decides_the_score(direction: str) -> None:
    found = importances(many(60, direction=direction))
    assert found[0].name == "rate"
    assert [one.name for one in found if one.stands_out] == ["rate"]
    assert sum(one.share for one in found) == pytest.approx(1)
    active = {one.name: one.trials for one in found}
    sgd = sum(t.values["optimizer"] == "sgd" for t in many(60).trials)
    assert active == {"rate": 60, "optimizer": 60, "momentum": sgd, "x0": 60, "x1": 60}


def test_importance_of_a_conditional_hyperparameter() -> None:
    random = np.random.default_rng(1)
    found = []
    for number in range(60):
        values: dict[str, Any] = {"on": bool(number % 2), "x": float(random.uniform())}
        if values["on"]:
            values["depth"] = float(random.uniform())
        found.append(trial(str(number), values.get("depth", 0.0), values=values))
    first, *rest = importances(search(*found))
    assert (first.name, first.stands_out, first.trials) == ("depth", True, 30)
    assert not next(one for one in rest if one.name == "x").stands_out


def test_importance_of_noise_is_no_more_than_chance() -> None:
    flagged = 0
    for seed in range(10):
        random = np.random.default_rng(seed)
        found = [
            trial(str(n), random.normal(), values={f"x{i}": random.uniform() for i in range(3)})
            for n in range(20)
        ]
        flagged += any(one.stands_out for one in importances(search(*found)))
    assert flagged <= 2  # of 10 at 5 %: more has a probability of 1 %


def test_importance_leaves_out_failures_constants_and_what_was_continued() -> None:
    found = [trial(str(n), n / 10, values={"x": n / 10, "same": 1}) for n in range(9)]
    found.append(trial("f", 0.0, status="failed", values={"only_failed": 1.0}))
    found.append(trial("c", 0.95, values={"x": 0.8, "same": 1}, parent="8"))
    (one,) = importances(search(*found))
    assert (one.name, one.trials) == ("x", 9)


@pytest.mark.usefixtures("figures")
@pytest.mark.parametrize(
    ("scores", "values", "message"),
    [
        ([0.1] * 7, [1.0] * 7, "Importance needs at least 8 trials with a score; there are 7."),
        ([0.5] * 9, list(range(9)), "All 9 trials have the same score."),
        (list(range(9)), [2] * 9, "No hyperparameter took more than one value."),
        ([1.0] * 8 + [0.5], [1, 2] * 4 + [1], None),
    ],
)
def test_importance_says_why_it_is_not_told(
    scores: list[float], values: list[float], message: str | None, tmp_path: Path
) -> None:
    pairs = enumerate(zip(scores, values, strict=True))
    summary = search(*(trial(str(n), s, values={"x": x}) for n, (s, x) in pairs))
    root = page(summary, tmp_path)
    told = section(root, "Importance of hyperparameters")
    assert not told.all("img")
    if message:
        with pytest.raises(DataError, match=re.escape(message)):
            importances(summary)
        assert told.one("p").words == message
    else:
        assert told.one("p").words.startswith("No hyperparameter stands out from chance.")


def test_importance_of_ties_at_the_best_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "_evaluate", lambda *_: [{"x": 0.0}] * 3)
    found = [trial(str(n), float(n > 1), values={"x": n}) for n in range(9)]
    with pytest.raises(DataError, match="Too many trials share the best score"):
        importances(search(*found))


def test_importance_keeps_optunas_settings_and_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    import optuna

    level = optuna.logging.get_verbosity()
    with caplog.at_level(logging.INFO):
        importances(many(8))
    assert optuna.logging.get_verbosity() == level
    assert not caplog.records


def test_share_of_the_best_shrinks_to_a_tenth() -> None:
    assert [top_share(count) for count in (8, 45, 100, 150, 1000)] == [1 / 3, 1 / 3, 0.15, 0.1, 0.1]


def test_verdict_and_method_are_stated(figures: list[Any], tmp_path: Path) -> None:
    told = section(page(many(60), tmp_path), "Importance of hyperparameters")
    assert told.one("p").words == "rate stands out from chance."
    caption = told.one("figcaption").words
    assert caption.startswith("PED-ANOVA (Optuna): what tells the best 25 % of 60 trials from")
    assert re.search(r"Active in some trials only: momentum in \d+\.", caption)
    axes = figures[2].axes[0]
    assert axes.get_yticklabels()[0].get_text() == "Rate"
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == sorted(widths, reverse=True)
    assert sum(widths) == pytest.approx(1)


def test_parallel_coordinates_hold_every_trial(figures: list[Any]) -> None:
    columns: dict[str, list[Any]] = {
        "rate": [1e-4, 1e-3, 1e-2, None, 1e-1],
        "optimizer": ["sgd", "adam", "sgd", "adam", "adam"],
    }
    scores = [0.1, 0.2, 0.3, 0.4, None]
    parallel.parallel_coordinates(columns, scores, objective="val_auc", maximize=True)
    axes = figures[0].axes[0]
    (pale,) = axes.collections
    lines = np.array([*pale.get_segments(), axes.get_lines()[0].get_xydata()])
    # Rank by rank from the worst: the axis of `rate` is logarithmic, `adam` is below `sgd`.
    off: float = parallel._INACTIVE
    expected = np.array([[0, 1, 0], [0.5, 0, 1 / 3], [1, 1, 2 / 3], [off, 0, 1]])
    np.testing.assert_allclose(lines[:, :, 1], expected)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["Rate", "Optimizer", "Validation auc"]
    texts = {text.get_text() for text in axes.texts}
    assert {"adam", "sgd", "0.0001", "0.001", "0.01", "not active", "0.1", "0.4"} <= texts


def test_parallel_coordinates_best_is_the_lowest_where_that_is_better(figures: list[Any]) -> None:
    columns = {"x": [1.0, 2.0, 3.0], "y": [1.0, 1.5, 2.0]}
    parallel.parallel_coordinates(columns, [3.0, 1.0, 2.0], objective="loss", maximize=False)
    np.testing.assert_allclose(figures[0].axes[0].get_lines()[0].get_ydata(), [0.5, 0.5, 0])


def test_parallel_coordinates_need_a_score() -> None:
    with pytest.raises(DataError, match="must have a finite 'loss'; got none"):
        parallel.parallel_coordinates({"x": [1.0]}, [NAN], objective="loss", maximize=False)


def test_more_than_nine_hyperparameters_are_said_to_be_cut(
    figures: list[Any], tmp_path: Path
) -> None:
    root = page(many(12, hyperparameters=9), tmp_path)
    caption = section(root, "Parallel coordinates").one("figcaption").words
    assert caption.endswith("9 of 12 hyperparameters are shown.")
    assert len(figures[-1].axes) == 12


def test_slices_name_constants_and_what_was_continued(figures: list[Any], tmp_path: Path) -> None:
    found = [trial(str(n), n / 10, values={"x": n, "val_accuracy": n * n, "c": 1}) for n in (1, 2)]
    found.append(trial("3", 0.9, values={"x": 2, "val_accuracy": 4, "c": 1}, parent="2"))
    caption = section(page(search(*found), tmp_path), "Slices").one("figcaption").words
    assert caption.endswith("Without the 1 trial that others continued. Not varied: c.")
    first, second = figures[-1].axes
    assert first.get_lines()[0].get_xydata().tolist() == [[2, 0.9], [1, 0.1]]
    assert second.get_lines()[0].get_xydata().tolist() == [[4, 0.9], [1, 0.1]]


@pytest.mark.usefixtures("figures")
def test_failures_are_grouped_by_reason(tmp_path: Path) -> None:
    def lost(name: str, why: str, status: str = "failed") -> TrialSummary:
        return trial(name, None, status=status, reason=why)

    found = [
        lost("0", "NaN loss"), trial("1"), lost("2", "OOM\n"), lost("3", "OOM"),
        lost("4", "rung 1", "stopped"), lost("5", ""), lost("6", "x" * 700),
        *(lost(f"s{n}", "rung 2", "stopped") for n in range(14)),
    ]  # fmt: skip
    root = page(search(*found), tmp_path)
    listed = ", ".join(f"s{n}" for n in range(12)) + " and 2 more"
    assert rows(section(root, "Failed and stopped trials")) == [
        ["failed", "2", "OOM", "2, 3"],
        ["failed", "1", "NaN loss", "0"],
        ["failed", "1", "\N{EN DASH}", "5"],
        ["failed", "1", "x" * 600 + " … (100 more characters)", "6"],
        ["stopped", "14", "rung 2", listed],
        ["stopped", "1", "rung 1", "4"],
    ]
    assert numbers(section(root, "Result"))["Trials"] == ("21", "1 completed, 5 failed, 15 stopped")


@pytest.mark.usefixtures("figures")
def test_cost_adds_up(tmp_path: Path) -> None:
    found = [
        trial("0", 0.5, seconds=60.0, history={"val_accuracy": [0.1] * 4}),
        trial("1", 0.4, seconds=45.0, history={"val_accuracy": [0.1]}, status="stopped"),
        trial("2", None, seconds=15.0, status="failed"),
    ]
    root = page(search(*found, seconds=3725.0, disk_bytes=13_240_000, workers=2), tmp_path)
    assert numbers(section(root, "Cost")) == {
        "Time per trial": ("40 s", "mean; longest 1 min 0 s (trial 0)"),
        "Epochs trained": ("5", "42 % of the 12 that 3 full trainings would take"),
        "Time in failed trials": ("12 %", "15 s in 1 trial"),
        "Disk": ("13.2 MB", "used by the search"),
    }
    assert numbers(section(root, "Result"))["Time"] == ("1 h 2 min", "on 2 workers")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.314, "0.31 s"),
        (9.94, "9.9 s"),
        (42.4, "42 s"),
        (724.2, "12 min 4 s"),
        (59.7, "1 min 0 s"),
    ],
)
def test_durations_are_written_as_people_write_them(seconds: float, text: str) -> None:
    assert report._duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (812, "812 B"), (999_900, "1 MB"), (10**15, "1e+03 TB")]
)
def test_sizes_have_units(count: int, text: str) -> None:
    assert report._size(count) == text


@pytest.mark.usefixtures("figures")
def test_notes_are_paragraphs(tmp_path: Path) -> None:
    notes = ("36 of 40 trials reused a compiled step", "the loss is a lambda")
    found = section(page(search(trial("0"), notes=notes), tmp_path), "Notes")
    assert tuple(node.words for node in found.all("p")) == notes


def test_nothing_a_user_names_becomes_markup(figures: list[Any], tmp_path: Path) -> None:
    found = [
        trial(f"{n}{EVIL}", n / 10, values={EVIL: f"{EVIL}{n % 2}", "x": n}, history={EVIL: [0.1]})
        for n in range(9)
    ]
    found.append(trial("last", None, status="failed", reason=EVIL, parent=found[0].trial))
    summary = search(*found, title=EVIL, objective=EVIL, algorithm=EVIL, notes=(EVIL,))
    root = page(summary, tmp_path)
    assert len(root.all("script")) == 1
    assert all((node.attributes["src"] or "").startswith("data:") for node in root.all("img"))
    assert root.one("h1").words == EVIL
    assert ast.literal_eval(root.one("code").words) == {EVIL: f"{EVIL}0", "x": 8}
    assert rows(section(root, "Failed and stopped trials")) == [["failed", "1", EVIL, "last"]]
    assert f"Best {EVIL}" in numbers(section(root, "Result"))
    assert section(root, "Notes").one("p").words == EVIL


@pytest.mark.usefixtures("figures")
def test_a_name_that_cannot_be_encoded_does_not_cost_the_report(tmp_path: Path) -> None:
    assert "\\udc80" in page(search(trial("0", values={"x": "\udc80"})), tmp_path).words


def test_values_that_are_not_finite_break_nothing(tmp_path: Path) -> None:
    wild: list[Any] = [0.5, NAN, INF, -INF, 1e308, 1e30, 0.4, 5e-324, None, -1e308, 0.45, 0.6]
    found = [
        trial(
            str(n),
            score,
            values={
                "rate": wild[-n] or 0.0,
                "unit": [1, "a", True][n % 3],
                "large": 10 ** (40 * n),
            },
            history={"val_loss": [value or 0.0 for value in wild[: n % 12]]},
            seconds=wild[n] or 1.0,
        )
        for n, score in enumerate(wild)
    ]
    for direction in ("min", "max"):
        for kept in (found, found[:2], found[1:3]):
            summary = search(*kept, direction=direction, objective="val_loss", seconds=INF)
            root = page(summary, tmp_path)
            assert len(rows(section(root, "Leaderboard"))) == len(kept)
            assert "nan" not in numbers(section(root, "Cost"))["Time per trial"][0]


@pytest.mark.parametrize("direction", ["min", "max"])
def test_far_outliers_do_not_flatten_the_axis(direction: str, figures: list[Any]) -> None:
    usual = np.linspace(0.4, 0.6, 12)
    scores = np.append(usual, 1e30 if direction == "min" else -1e30)
    span = scales.score_range(scores, maximize=direction == "max")
    assert span.beyond == 1
    assert span.note == " · 1 far worse, at the edge"
    clipped = span.clip(scores)
    np.testing.assert_array_equal(clipped[:-1], usual)
    assert 0.1 < abs(clipped[-1] - clipped[0]) < 1
    _, axes = canvas.figure(2.0)
    span.apply(axes)
    low, high = axes.get_ylim()
    assert low <= clipped.min() < clipped.max() <= high


@pytest.mark.parametrize(
    ("scores", "maximize", "log", "beyond"),
    [
        ([0.001, 0.01, 0.1, 1.0], False, True, 0),
        ([0.001, 0.01, 0.1, 1.0], True, False, 0),
        ([0.5, 0.6, 0.7, 0.8], False, False, 0),
        ([-0.5, 0.6, 100.0, 200.0], False, False, 0),
        ([0.5, 0.5, 0.5, 9e9], False, False, 0),
        ([*np.geomspace(0.001, 1.0, 16), 1e60], False, True, 1),
        ([NAN, NAN], False, False, 0),
    ],
)
def test_score_axis(scores: list[float], maximize: bool, log: bool, beyond: int) -> None:
    span = scales.score_range(np.array(scores), maximize=maximize)
    assert (span.log, span.beyond) == (log, beyond)


@pytest.mark.parametrize(
    ("values", "places", "names", "log"),
    [
        ([1e-4, 1e-2, None, 1e-3], [1e-4, 1e-2, NAN, 1e-3], (), True),
        ([0.1, 0.5, 0.3], [0.1, 0.5, 0.3], (), False),
        ([3, INF, 10**400], [3, NAN, NAN], (), False),
        (["b", "a", None], [1, 0, NAN], ("a", "b"), False),
        ([True, False], [1, 0], ("False", "True"), False),
        ([1, "a"], [0, 1], ("1", "a"), False),
    ],
)
def test_scale(values: list[Any], places: list[float], names: tuple[str, ...], log: bool) -> None:
    found = scales.scale(values)
    np.testing.assert_array_equal(found.places, places)
    assert (found.names, found.log) == (names, log)


def test_too_many_categories_are_counted_and_not_named(figures: list[Any]) -> None:
    import pandas as pd

    frame = pd.DataFrame({"score": np.arange(20.0), "tag": [f"t{n}" for n in range(20)]})
    trials.slices(frame, "score", maximize=True)
    axes = figures[0].axes[0]
    assert (axes.get_xlabel(), list(axes.get_xticks())) == ("Tag (20 values)", [])


@pytest.mark.parametrize(
    ("summary", "shown"),
    [
        (search(), ["Result"]),
        (search(trial("0", None, status="failed")),
         ["Result", "Leaderboard", "Learning curves", "Failed and stopped trials", "Cost"]),
        (search(trial("0")), ["Result", "Leaderboard", "Progress", "Learning curves", "Cost"]),
    ],
)  # fmt: skip
def test_small_searches_have_no_empty_sections(
    summary: SearchSummary, shown: list[str], tmp_path: Path
) -> None:
    root = page(summary, tmp_path)
    assert titles(root) == shown
    if not summary.ranked():
        assert section(root, "Result").one("p").words == "No trial has a score."


def test_two_hundred_trials_make_one_file_that_loads_nothing(tmp_path: Path) -> None:
    path = write_report(many(200), tmp_path / "deep" / "report.html")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    html = path.read_text("utf-8")
    root = Tree(html).root
    assert len(rows(section(root, "Leaderboard"))) == 200
    scroll = section(root, "Leaderboard").all("div")[0]
    assert scroll.attributes["class"] == "scroll long"
    assert not re.search(r"https?:|@import|url\(", html)
    assert len(root.all("img")) == 5
    assert write_report(many(200), tmp_path / "again.html").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: trial("0", status="stoped"), r"got status='stoped'. Did you mean stopped\?"),
        (lambda: search(direction="up", objective="a"), "must be min or max; got direction='up'"),
        (lambda: search(trial("0"), trial("0")), "names of their own; got '0'"),
        (lambda: search(trial("01"), trial("2", parent="1")), "got parent='1' of '2'. Did you"),
        (lambda: search(trial("1", parent="1")), "must be an earlier trial; got parent='1'"),
    ],
)
def test_results_refuse(build: Any, message: str) -> None:
    with pytest.raises(OptionValueError, match=message):
        build()


def test_learning_curves_need_a_value() -> None:
    with pytest.raises(DataError, match="must have a finite 'auc'; got none"):
        curves.trial_curves({"0": ([1.0], [NAN])}, metric="auc", maximize=True)


def hparams(folder: Path) -> tuple[Any, dict[str, Any], Any]:
    """Reads the folder as TensorBoard does: the experiment, its session groups, the runs."""
    from tensorboard import context
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment
    from tensorboard.plugins.hparams import list_session_groups as sessions

    runs = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(folder))
    runs.Reload()
    provider = data_provider.MultiplexerDataProvider(runs, str(folder))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request = context.RequestContext()
    experiment = get_experiment.Handler(request, backend, "", api_pb2.GetExperimentRequest()).run()
    asked = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=100,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE],
        col_params=[api_pb2.ColParams(hparam=info.name) for info in experiment.hparam_infos],
    )  # fmt: skip
    groups = sessions.Handler(request, backend, "", asked).run().session_groups
    return experiment, {group.name: group for group in groups}, runs


def test_tensorboard_reads_every_trial(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import api_pb2

    summary = search(
        trial("0", 0.5, values={"rate": 0.01, "units": 8, "act": "relu", "on": True},
              history={"val_accuracy": [0.25, 0.5], "loss": [2.0, NAN]}),
        trial("1", None, status="failed", values={"rate": 0.1, "units": 16}),
        trial("../2", 0.75, status="stopped", values={"rate": 1.0, "act": "gelu", "mix": 1},
              history={"val_accuracy": [0.75]}, parent="0", seconds=INF),
        trial("3", 0.25, values={"mix": "one"}),
    )  # fmt: skip
    assert write_hparams(summary, tmp_path / "board") == tmp_path / "board"
    write_hparams(summary, tmp_path / "board")  # again: nothing is doubled
    assert [path.name for path in tmp_path.iterdir()] == ["board"]
    experiment, groups, runs = hparams(tmp_path / "board")
    infos = {info.name: info for info in experiment.hparam_infos}
    assert set(infos) == {"rate", "units", "act", "on", "mix"}
    assert infos["rate"].domain_interval.max_value == 1.0
    assert list(infos["act"].domain_discrete) == ["gelu", "relu"]
    assert infos["mix"].WhichOneof("domain") is None  # of two types
    assert set(groups) == {"0", "1", "../2", "3"}
    first = groups["0"].hparams
    assert (first["rate"].number_value, first["units"].number_value) == (0.01, 8)
    assert (first["act"].string_value, first["on"].bool_value) == ("relu", True)
    assert "on" not in groups["1"].hparams
    statuses = {name: group.sessions[0].status for name, group in groups.items()}
    failed, done = api_pb2.STATUS_FAILURE, api_pb2.STATUS_SUCCESS
    assert statuses == {"0": done, "1": failed, "../2": done, "3": done}
    scores = {
        name: [m.value for m in group.metric_values if m.name.tag == "score"]
        for name, group in groups.items()
    }
    assert scores == {"0": [0.5], "1": [], "../2": [0.75], "3": [0.25]}
    first_run = groups["0"].sessions[0].name
    curve = runs.GetAccumulator(first_run).Tensors("val_accuracy")
    assert [(e.step, e.tensor_proto.float_val[0]) for e in curve] == [(1, 0.25), (2, 0.5)]
    assert curve[1].wall_time - curve[0].wall_time == pytest.approx(1.0)
    (later,) = runs.GetAccumulator(groups["../2"].sessions[0].name).Tensors("val_accuracy")
    assert later.step == 3


def test_writing_for_tensorboard_imports_no_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from tuning.report import write_hparams, write_report;"
        "assert not {'optuna', 'matplotlib', 'pandas', 'tensorboard'} & set(sys.modules);"
        "from tuning.results import SearchSummary, TrialSummary;"
        "one = TrialSummary(trial='0', status='completed', score=0.5, values={'x': 1});"
        "found = SearchSummary(title='t', objective='o', direction='max', algorithm='random',"
        " seed=0, max_epochs=1, trials=(one,), seconds=1.0);"
        f"write_hparams(found, {str(tmp_path)!r});"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
