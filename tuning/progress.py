"""What a search or a training shows while it runs.

On a terminal, bars that update in place; elsewhere one line per trial or epoch on stderr.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import monotonic
from types import TracebackType
from typing import Any, Self

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)


def duration(seconds: float) -> str:
    """Returns `4.2 s`, `1:05` (minutes) or `2:01:05` (hours)."""
    if seconds < 60:
        return f"{max(seconds, 0.0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Display:
    """Lines, and on a terminal bars below them, on one console."""

    def __init__(self, console: Console | None, *, quiet: bool) -> None:
        self._console = console or Console(stderr=True)
        self._quiet = quiet
        self._bars: Progress | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet and self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
            )
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def silence(self) -> None:
        self._quiet = True

    def line(self, text: str) -> None:
        if not self._quiet:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def add_bar(self, description: str, total: int | None, done: int = 0) -> TaskID | None:
        if self._bars is None:
            return None
        return self._bars.add_task(description, total=total, completed=done, note="")

    def update(self, bar: TaskID | None, done: int, note: str) -> None:
        if self._bars is not None and bar is not None:
            self._bars.update(bar, completed=done, note=note, refresh=True)

    def remove(self, bar: TaskID | None) -> None:
        if self._bars is not None and bar is not None:
            self._bars.remove_task(bar)


class SearchProgress:
    """Shows a search: trial, epoch, score, best so far, time gone and time left.

    Use it as a context manager, so that the terminal is left clean whatever happens.

    Args:
        metric: Name of the objective.
        trials: Number of trials in all, or None if the search ends otherwise.
        quiet: Show nothing.
        console: Where to write; None is stderr.
    """

    def __init__(
        self,
        metric: str,
        *,
        trials: int | None,
        quiet: bool = False,
        console: Console | None = None,
    ) -> None:
        self._metric = metric
        self._trials = trials
        self._display = _Display(console, quiet=quiet)
        self._seconds: dict[int, float] = {}  # by finished trial, all of its runs
        self._best: float | None = None
        self._bar: TaskID | None = None
        self._epoch_bars: dict[int, TaskID | None] = {}

    def __enter__(self) -> Self:
        self._display.__enter__()
        self._bar = self._display.add_bar("search", self._trials, len(self._seconds))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._display.__exit__(kind, error, trace)

    def resume(self, seconds: Mapping[int, float], best: float | None) -> None:
        """Takes over an earlier session: seconds by trial, counted from 1, and the best score."""
        self._seconds = dict(seconds)
        self._best = best
        self._display.update(self._bar, len(self._seconds), self._note())

    def silence(self) -> None:
        """Shows nothing from now on."""
        self._display.silence()

    def line(self, text: str) -> None:
        """Shows a line of text."""
        self._display.line(text)

    def trial_begin(self, number: int, epochs: int | None, first_epoch: int = 0) -> None:
        """Announces a trial, counted from 1, and its epochs, if they are known."""
        bar = self._display.add_bar(f"trial {number}", epochs, first_epoch)
        self._epoch_bars[number] = bar

    def epoch_end(self, number: int, epoch: int, score: float | None) -> None:
        """Shows the score of a trial after an epoch, both counted from 1."""
        note = "" if score is None else f"{self._metric} {score:.4f}"
        self._display.update(self._epoch_bars.get(number), epoch, note)

    def trial_end(
        self, number: int, *, score: float | None, best: float | None, seconds: float, reason: str
    ) -> None:
        """Reports a finished trial, or one that has run once more.

        Args:
            number: Of the trial, counted from 1.
            score: Its score, or None if it failed.
            best: The best score so far, or None.
            seconds: How long this run took.
            reason: Why it failed, or why it ended early; may be empty.
        """
        self._seconds[number] = self._seconds.get(number, 0.0) + seconds
        self._best = best
        of = "" if self._trials is None else f"/{self._trials}"
        result = "failed" if score is None else f"{self._metric} {score:.4f}"
        parts = [result, reason, duration(seconds), self._note()]
        self._display.line(f"trial {number}{of}: " + ", ".join(part for part in parts if part))
        self._display.remove(self._epoch_bars.pop(number, None))
        self._display.update(self._bar, len(self._seconds), self._note())

    def remaining(self) -> float | None:
        """Returns the seconds left at the mean pace of the finished trials; None if unknown."""
        if self._trials is None or not self._seconds:
            return None
        left = max(self._trials - len(self._seconds), 0)
        return left * sum(self._seconds.values()) / len(self._seconds)

    def _note(self) -> str:
        left = self.remaining()
        parts = [
            "" if self._best is None else f"best {self._best:.4f}",
            f"about {duration(left)} left" if left else "",
        ]
        return ", ".join(part for part in parts if part)


class TrainingProgress(keras.callbacks.Callback):
    """Shows a training: epoch, metrics, time gone and time left.

    Pass it to `fit` with `verbose=0`. Around a `fit` that may raise, use it as a context manager
    too, so that the terminal is left clean: `with TrainingProgress() as progress: ...`.

    Args:
        metrics: Names to show; None shows all that `fit` reports.
        quiet: Show nothing.
        console: Where to write; None is stderr.
    """

    def __init__(
        self,
        metrics: Iterable[str] | None = None,
        *,
        quiet: bool = False,
        console: Console | None = None,
    ) -> None:
        super().__init__()
        self._metrics = None if metrics is None else tuple(metrics)
        self._display = _Display(console, quiet=quiet)
        self._bar: TaskID | None = None
        self._first_epoch: int | None = None
        self._began = 0.0
        self._epoch_began = 0.0

    def __enter__(self) -> Self:
        self._display.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._display.__exit__(kind, error, trace)

    def on_train_begin(self, logs: object = None) -> None:  # noqa: ARG002 - Keras' own
        """Starts the clock and, on a terminal, the bar."""
        self._first_epoch = None
        self._began = monotonic()
        self._display.__enter__()

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002 - Keras' own
        """Notes where a resumed training goes on."""
        self._epoch_began = monotonic()
        if self._first_epoch is None:
            self._first_epoch = epoch
            self._bar = self._display.add_bar("epochs", self.params["epochs"], epoch)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Shows the metrics and the time left at the mean pace so far."""
        logs = logs or {}
        total, now = self.params["epochs"], monotonic()
        pace = (now - self._began) / (epoch + 1 - (self._first_epoch or 0))
        left = (total - epoch - 1) * pace
        shown = logs if self._metrics is None else [name for name in self._metrics if name in logs]
        scores = " ".join(f"{name} {float(logs[name]):.4f}" for name in shown)
        rest = f", about {duration(left)} left" if left else ""
        self._display.update(self._bar, epoch + 1, scores + rest)
        took = duration(now - self._epoch_began)
        self._display.line(f"epoch {epoch + 1}/{total}: {scores}, {took}{rest}")

    def on_train_end(self, logs: object = None) -> None:  # noqa: ARG002 - Keras' own
        """Leaves the terminal clean."""
        self._display.__exit__(None, None, None)
