"""The report of a search: one HTML page that loads nothing, written from plain data."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tuning.hparams import write_hparams
from tuning.importance import EVALUATOR, Importance, importances, top_share
from tuning.page import canvas
from tuning.page.curves import trial_curves
from tuning.page.document import Block, Code, KeyNumbers, Picture, Section, Table, Text, render
from tuning.page.parallel import parallel_coordinates
from tuning.page.trials import importance_chart, leaderboard_chart, slices
from tuning.results import SearchSummary, TrialSummary
from zoo.errors import DataError
from zoo.weights.store import atomic_path

__all__ = ["write_hparams", "write_report"]

_AXES_LIMIT = 9  # hyperparameters side by side before the names of parallel axes overlap
_BARS_LIMIT = 25
_REASON_LIMIT = 600  # characters; what follows in an error of a compiler is its dump
_NAMED_TRIALS = 12  # trials listed for one reason


def write_report(summary: SearchSummary, path: Path | str) -> Path:
    """Writes the report as one HTML file; the same search gives the same bytes.

    Args:
        summary: The search.
        path: File to write; whole or not there, also after a crash.
    """
    path = Path(path)
    page = render(summary.title, _in_one_line(summary), _sections(summary), _footer(summary))
    with atomic_path(path) as partial:
        # A lone surrogate in a name cannot be encoded, and must not cost the report.
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def _in_one_line(summary: SearchSummary) -> str:
    aim = "maximised" if summary.maximize else "minimised"
    return (
        f"{_count(len(summary.trials), 'trial')} of {summary.algorithm} search, "
        f"{summary.objective} {aim}, up to {_count(summary.max_epochs, 'epoch')} each"
    )


def _footer(summary: SearchSummary) -> str:
    import zoo

    return f"Seed {summary.seed}. keras-zoo {zoo.__version__}."


def _sections(summary: SearchSummary) -> list[Section]:
    blocks: dict[str, list[Block]] = {
        "Result": _result(summary),
        "Leaderboard": _leaderboard(summary),
        "Progress": _progress(summary),
        "Learning curves": _curves(summary),
        **_hyperparameters(summary),
        "Failed and stopped trials": _losses(summary),
        "Cost": _cost(summary),
        "Notes": [Text(note) for note in summary.notes],
    }
    return [Section(title=title, blocks=found) for title, found in blocks.items() if found]


def _result(summary: SearchSummary) -> list[Block]:
    ranked = summary.ranked()
    statuses = Counter(trial.status for trial in summary.trials)
    outcome = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    cost = [
        ("Trials", len(summary.trials), outcome),
        ("Time", _duration(summary.seconds), f"on {_count(summary.workers, 'worker')}"),
    ]
    if not ranked:
        return [Text("No trial has a score."), KeyNumbers(cost)]
    best, scores = ranked[0], [trial.score for trial in ranked if trial.score is not None]
    numbers = [(f"Best {summary.objective}", best.score, f"trial {best.trial}")]
    if len(scores) > 2:
        numbers.append(("Median", statistics.median(scores), f"of {len(scores)} scores"))
    return [
        KeyNumbers([*numbers, *cost]),
        Text(f"Hyperparameters of trial {best.trial}:"),
        _code(best),
    ]


def _code(trial: TrialSummary) -> Code:
    lines = [f"    {_literal(name)}: {_literal(value)},\n" for name, value in trial.values.items()]
    return Code(f"{{\n{''.join(lines)}}}" if lines else "{}")


def _literal(value: bool | int | float | str) -> str:
    """Returns Python source that gives the value."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def _leaderboard(summary: SearchSummary) -> list[Block]:
    ranked = summary.ranked()
    ranks = {trial.trial: rank for rank, trial in enumerate(ranked, 1)}
    unranked = [trial for trial in summary.trials if trial.trial not in ranks]
    continued = any(trial.parent for trial in summary.trials)
    digits = 1 if any(trial.seconds >= 10 for trial in summary.trials) else 3
    names = summary.hyperparameters
    columns = ["rank", "trial", summary.objective, "status", "epochs", "seconds"]
    columns += ["continues"] if continued else []
    rows = [
        [
            ranks.get(trial.trial),
            trial.trial,
            trial.ranked_score,
            trial.status,
            trial.epochs,
            round(trial.seconds, digits),
            *([trial.parent] if continued else []),
            *(trial.values.get(name) for name in names),
        ]
        for trial in [*ranked, *unranked]
    ]
    caption = _count(len(rows), "trial") + ", the best first" * (len(ranked) > 1)
    if ranked and unranked:
        caption += ", those without score last"
    return [Table(rows=rows, columns=[*columns, *names], caption=caption)] if rows else []


def _progress(summary: SearchSummary) -> list[Block]:
    if not summary.ranked():
        return []
    import pandas as pd

    frame = pd.DataFrame(
        {
            "started": range(len(summary.trials)),
            "trial": [trial.trial for trial in summary.trials],
            "seconds": [trial.seconds for trial in summary.trials],
        }
    )
    score = _score_column(summary, frame.columns)
    frame[score] = [trial.ranked_score for trial in summary.trials]
    png = leaderboard_chart(frame, maximize=summary.maximize, score=score)
    over = "added up over the workers" if summary.workers > 1 else "spent in trials"
    alt = f"{summary.objective} of every trial and the best so far"
    return [Picture(png, alt, f"Over trials, and over the time {over}.")]


def _curves(summary: SearchSummary) -> list[Block]:
    paths = {}
    for trial in summary.trials:
        path = _path(summary, trial)
        if path[0]:
            paths[trial.trial] = path
    best = summary.lineage(summary.ranked()[0].trial) if summary.ranked() else []
    failed = [trial.trial for trial in summary.trials if trial.status == "failed"]
    unseen = [trial for trial in failed if trial not in paths]
    try:
        png = trial_curves(
            paths,
            metric=summary.objective,
            maximize=summary.maximize,
            best=[trial.trial for trial in best],
            failed=failed,
        )
    except DataError:
        told = Text(f"No trial has a finite {summary.objective} by epoch.")
        return [told] if summary.trials else []
    caption = f"{_count(len(unseen), 'trial')} failed before the first epoch." if unseen else ""
    return [Picture(png, f"{summary.objective} by epoch in every trial", caption)]


def _path(summary: SearchSummary, trial: TrialSummary) -> tuple[list[float], list[float]]:
    """Returns the trial's epochs and values, from the last one of the trial it continued."""
    *earlier, _ = summary.lineage(trial.trial)
    before = sum(found.epochs for found in earlier)
    values = list(trial.history.get(summary.objective, ()))
    start = list(earlier[-1].history.get(summary.objective, ())[-1:]) if earlier and values else []
    first = before + 1 - len(start)
    values = [*start, *values]
    return [float(first + i) for i in range(len(values))], values


def _hyperparameters(summary: SearchSummary) -> dict[str, list[Block]]:
    """Returns the sections on hyperparameters; constant ones are only named."""
    try:
        found = importances(summary)
    except DataError as error:
        importance: list[Block] = [Text(str(error))] if summary.hyperparameters else []
        names = _varied(summary)
    else:
        importance = _importance(summary, found)
        names = [one.name for one in found]
    return {
        "Importance of hyperparameters": importance,
        "Parallel coordinates": _parallel(summary, names),
        "Slices": _slices(summary, names),
    }


def _varied(summary: SearchSummary) -> list[str]:
    taken = {
        name: {
            repr(trial.values[name]) for trial in summary.configurations() if name in trial.values
        }
        for name in summary.hyperparameters
    }
    return [name for name, values in taken.items() if len(values) > 1]


def _importance(summary: SearchSummary, found: Sequence[Importance]) -> list[Block]:
    method = _method(summary, found)
    names = [one.name for one in found if one.stands_out]
    if not names:
        return [Text(f"No hyperparameter stands out from chance. {method}")]
    shown = found[:_BARS_LIMIT]
    png = importance_chart(
        {one.name: one.share for one in shown}, {one.name: one.chance for one in shown}
    )
    verdict = f"{', '.join(names)} {'stands' if len(names) == 1 else 'stand'} out from chance."
    caption = f"{method} In 95 % of searches with shuffled scores every bar stays below its mark."
    return [Text(verdict), Picture(png, "Importance of each hyperparameter", caption)]


def _method(summary: SearchSummary, found: Sequence[Importance]) -> str:
    scored = len(summary.configurations())
    method = (
        f"{EVALUATOR} (Optuna): what tells the best {100 * top_share(scored):.0f} % of "
        f"{scored} trials from the rest."
    )
    conditional = [f"{one.name} in {one.trials}" for one in found if one.trials < scored]
    return method + (f" Active in some trials only: {', '.join(conditional)}." * bool(conditional))


def _parallel(summary: SearchSummary, names: Sequence[str]) -> list[Block]:
    trials = summary.configurations()
    if len(trials) < 2 or len(names) < 2:
        return []
    shown = names[:_AXES_LIMIT]
    png = parallel_coordinates(
        {name: [trial.values.get(name) for trial in trials] for name in shown},
        [trial.ranked_score for trial in trials],
        objective=summary.objective,
        maximize=summary.maximize,
    )
    caption = "One line per trial: the stronger, the better; the best in orange."
    caption += _left_out(summary)
    if len(names) > len(shown):
        caption += f" {len(shown)} of {len(names)} hyperparameters are shown."
    return [Picture(png, "Hyperparameters and score of every trial", caption)]


def _slices(summary: SearchSummary, names: Sequence[str]) -> list[Block]:
    trials = summary.configurations()
    if len(trials) < 2 or not names:
        return []
    import pandas as pd

    score = _score_column(summary, names)
    columns = {
        name: pd.Series([trial.values.get(name) for trial in trials], dtype=object)
        for name in names
    }
    frame = pd.DataFrame({score: [trial.ranked_score for trial in trials], **columns})
    png = slices(frame, score, maximize=summary.maximize, hyperparameters=list(names))
    constant = [name for name in summary.hyperparameters if name not in names]
    caption = "Each dot is a trial; the best in orange." + _left_out(summary)
    if constant:
        caption += f" Not varied: {', '.join(constant)}."
    return [Picture(png, f"{summary.objective} against each hyperparameter", caption)]


def _score_column(summary: SearchSummary, taken: Iterable[str]) -> str:
    return f"{summary.objective} (objective)" if summary.objective in taken else summary.objective


def _left_out(summary: SearchSummary) -> str:
    left = len(summary.ranked()) - len(summary.configurations())
    return f" Without the {_count(left, 'trial')} that others continued." if left else ""


def _losses(summary: SearchSummary) -> list[Block]:
    """Returns what ended trials early, the most frequent first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for trial in summary.trials:
        if trial.status != "completed":
            groups.setdefault((trial.status, trial.reason.strip()), []).append(trial.trial)
    if not groups:
        return []
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1])))
    rows = [
        [status, len(trials), _cut(reason) or None, _listed(trials)]
        for (status, reason), trials in ordered
    ]
    return [Table(rows=rows, columns=["status", "number", "reason", "trials"])]


def _cut(reason: str) -> str:
    left = len(reason) - _REASON_LIMIT
    return f"{reason[:_REASON_LIMIT]} … ({left:,} more characters)" if left > 0 else reason


def _listed(trials: Sequence[str]) -> str:
    more = len(trials) - _NAMED_TRIALS
    return ", ".join(trials[:_NAMED_TRIALS]) + (f" and {more} more" if more > 0 else "")


def _cost(summary: SearchSummary) -> list[Block]:
    if not summary.trials:
        return []
    seconds = {trial.trial: _finite(trial.seconds) for trial in summary.trials}
    total = sum(seconds.values())
    failed = [trial.trial for trial in summary.trials if trial.status == "failed"]
    lost = sum(seconds[name] for name in failed)
    slowest = max(seconds, key=seconds.__getitem__)
    trained = sum(trial.epochs for trial in summary.trials)
    # A trial that continues another is the same configuration, paid for once.
    begun = sum(trial.parent is None for trial in summary.trials)
    full = begun * summary.max_epochs
    saved = (
        f"{_share(trained, full)} of the {full:,} that {_count(begun, 'full training')} would take"
    )
    numbers: list[tuple[str, object, str]] = [
        (
            "Time per trial",
            _duration(total / len(seconds)),
            f"mean; longest {_duration(seconds[slowest])} (trial {slowest})",
        ),
        ("Epochs trained", f"{trained:,}", saved),
        (
            "Time in failed trials",
            _share(lost, total),
            f"{_duration(lost)} in {_count(len(failed), 'trial')}",
        ),
        ("Disk", _size(summary.disk_bytes), "used by the search"),
    ]
    return [KeyNumbers(numbers)]


def _finite(seconds: float) -> float:
    return seconds if math.isfinite(seconds) else 0.0


def _share(part: float, whole: float) -> str:
    return canvas.percent(part / whole) if whole else "\N{EN DASH}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _duration(seconds: float) -> str:
    """Returns a time such as `0.31 s`, `42 s`, `12 min 4 s`, `3 h 20 min`."""
    if not math.isfinite(seconds):
        return "\N{EN DASH}"
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def _size(count: int) -> str:
    """Returns bytes as `812 B`, `13.2 MB`."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"
