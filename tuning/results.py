"""What a search found, as plain data: reports are written from it alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from zoo.errors import OptionValueError, did_you_mean

DIRECTIONS = ("min", "max")
STATUSES = ("completed", "stopped", "failed")


@dataclass(frozen=True, kw_only=True)
class TrialSummary:
    """One trial.

    Raises:
        OptionValueError: `status` is none of `STATUSES`.
    """

    trial: str  # its name
    status: str  # "completed", "stopped" (early, its score counts) or "failed"
    score: float | None  # of the objective; None or not finite: none
    values: Mapping[str, bool | int | float | str] = field(default_factory=dict)  # active ones
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)  # metric -> per epoch
    seconds: float = 0.0
    reason: str = ""  # why it failed or was stopped
    parent: str | None = None  # the trial whose training this one continued

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise OptionValueError(
                f"`status` must be one of {', '.join(STATUSES)}; got status={self.status!r}."
                f"{did_you_mean(str(self.status), STATUSES)}"
            )

    @property
    def ranked_score(self) -> float | None:
        """The score if it counts: finite, and of a trial that did not fail."""
        if self.status == "failed" or self.score is None or not math.isfinite(self.score):
            return None
        return float(self.score)

    @property
    def epochs(self) -> int:
        """How many epochs it trained itself, without its parent's."""
        return max(map(len, self.history.values()), default=0)


@dataclass(frozen=True, kw_only=True)
class SearchSummary:
    """A search.

    Raises:
        OptionValueError: `direction` is none of `DIRECTIONS`, two trials have one name, or a parent
            is no earlier trial.
    """

    title: str
    objective: str  # name of the metric that was optimised
    direction: str  # "min" or "max"
    algorithm: str
    seed: int
    max_epochs: int
    trials: tuple[TrialSummary, ...]  # in the order they started
    seconds: float  # wall clock
    workers: int = 1
    disk_bytes: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise OptionValueError(
                f"`direction` must be min or max; got direction={self.direction!r}."
            )
        seen: set[str] = set()
        for trial in self.trials:
            if trial.trial in seen:
                raise OptionValueError(f"Trials must have names of their own; got {trial.trial!r}.")
            if trial.parent is not None and trial.parent not in seen:
                raise OptionValueError(
                    f"`parent` must be an earlier trial; got parent={trial.parent!r} of "
                    f"{trial.trial!r}.{did_you_mean(trial.parent, seen)}"
                )
            seen.add(trial.trial)

    @property
    def maximize(self) -> bool:
        """Whether a higher score is better."""
        return self.direction == "max"

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """The names of all hyperparameters, in the order they first appear."""
        return tuple(dict.fromkeys(name for trial in self.trials for name in trial.values))

    def ranked(self) -> list[TrialSummary]:
        """Returns the trials that have a score, the best first, the earlier first among equals."""
        scored = [(trial.ranked_score, trial) for trial in self.trials]
        sign = -1.0 if self.maximize else 1.0
        pairs = [(sign * score, trial) for score, trial in scored if score is not None]
        return [trial for _, trial in sorted(pairs, key=lambda pair: pair[0])]

    def configurations(self) -> list[TrialSummary]:
        """Returns the ranked trials but for those that another ranked one continued."""
        ranked = self.ranked()
        continued = {trial.parent for trial in ranked}
        return [trial for trial in ranked if trial.trial not in continued]

    def lineage(self, trial: str) -> list[TrialSummary]:
        """Returns the trial and those whose training it continued, the first of them first."""
        by_name = {found.trial: found for found in self.trials}
        chain = [by_name[trial]]
        while (parent := chain[0].parent) is not None:
            chain.insert(0, by_name[parent])
        return chain
