"""Hyperband: brackets of successive halving, each with another trade of trials against epochs.

Source: Li et al. 2018, "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization",
arXiv:1603.06560; sizes and epochs of the rounds as in KerasTuner.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self, TypeAlias

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from tuning.oracle import SearchOracle
from tuning.state import Values
from zoo.errors import OptionValueError

Rounds: TypeAlias = Mapping[tuple[int, int], list[Any]]  # by bracket and round


class Stage(NamedTuple):
    """Where a round of a bracket stands."""

    due: bool  # a trial is to be added now
    pending: int  # results that may still come: of running trials and of those to be added
    candidates: list[Any]  # completed trials of the round before that were not promoted


class HyperbandOracle(SearchOracle, keras_tuner.oracles.HyperbandOracle):
    """Many short trials, of which the best go on; a promotion is a trial that goes on from another.

    A failed trial is replaced, so that it does not shrink its bracket: in the first round by a new
    one, at most as many as the round has places, later by the next best of the round before.
    """

    continues = True

    @classmethod
    def create(
        cls, objective: Any, *, trials: int | None, max_epochs: int, seed: int, **options: Any
    ) -> Self:
        """Returns the oracle, which sweeps over its brackets once, or until `trials` are done.

        Raises:
            OptionValueError: `trials` would end the search before anything is promoted to the last
                round.
        """
        options = {"hyperband_iterations": 1 if trials is None else None} | options
        oracle = super().create(
            objective, trials=trials, max_epochs=max_epochs, seed=seed, **options
        )
        bracket = oracle._get_num_brackets() - 1
        least = sum(oracle._get_size(bracket, number) for number in range(bracket + 1))
        if trials is not None and trials < least:
            raise OptionValueError(
                f"`trials` must be at least {least} with algorithm='hyperband' and "
                f"max_epochs={max_epochs}, its first bracket; got trials={trials}. "
                "Pass trials=None for one whole sweep, fewer epochs, or algorithm='random'."
            )
        return oracle

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns what the first unfinished bracket needs: a new trial, or a promotion."""
        rounds = self._rounds()
        fresh = self._draw(trial_id)
        opened = 1 + max((index for index, _ in rounds), default=0)
        total = self._get_num_brackets() * self.hyperband_iterations
        for index in range(int(min(opened + 1, total))):
            for number, stage in enumerate(self._stages(rounds, index, fresh=fresh is not None)):
                if stage.due:
                    source = min(stage.candidates, key=self._rank) if number else None
                    values = self._values(index, number, source, fresh)
                    epochs = (values["tuner/initial_epoch"], values["tuner/epochs"])
                    return self._suggestion(values) | {"epochs": epochs}
        if self.ongoing_trials:
            return {"status": TrialStatus.IDLE}
        return self._suggestion(None) if fresh is None else {"status": TrialStatus.STOPPED}

    def needed_states(self) -> set[str]:
        """Returns the running trials, their parents, and those that may still be promoted."""
        rounds = self._rounds()
        needed = super().needed_states()
        for trial in self.ongoing_trials.values():
            needed |= {self.values[trial.trial_id].get("tuner/trial_id", trial.trial_id)}
        for index in {index for index, _ in rounds}:
            for stage in self._stages(rounds, index, fresh=True):
                if stage.pending:
                    needed |= {trial.trial_id for trial in stage.candidates}
        return needed

    def _rounds(self) -> Rounds:
        """Returns the trials by round; brackets are counted over all sweeps, as they open."""
        rounds = defaultdict(list)
        for trial in self.trials.values():
            values = self.values[trial.trial_id]
            opened_before = self._get_num_brackets() - 1 - values["tuner/bracket"]
            index = values["tuner/sweep"] * self._get_num_brackets() + opened_before
            rounds[index, values["tuner/round"]].append(trial)
        return rounds

    def _stages(self, rounds: Rounds, index: int, *, fresh: bool) -> Iterator[Stage]:
        bracket = self._bracket(index)
        pending = 0
        for number in range(bracket + 1):
            size = self._get_size(bracket, number)
            members = rounds.get((index, number), [])
            statuses = [trial.status for trial in members]
            running = statuses.count(TrialStatus.RUNNING) + statuses.count(TrialStatus.INVALID)
            vacant = size - len(members) + statuses.count(TrialStatus.FAILED)
            candidates = _candidates(rounds.get((index, number - 1), []), members)
            if number == 0:
                supply = 2 * size - len(members) if fresh else 0
                due = min(vacant, supply) > 0
            else:
                supply = len(candidates) + pending
                # Whatever is still to come could not take the last place from the best candidate.
                due = bool(candidates) and vacant > pending
            pending = running + min(vacant, supply)
            yield Stage(due, pending, candidates)

    def _values(self, index: int, number: int, source: Any, fresh: Values | None) -> Values:
        bracket = self._bracket(index)
        place = {
            "tuner/epochs": self._get_epochs(bracket, number),
            "tuner/initial_epoch": self._get_epochs(bracket, number - 1) if number else 0,
            "tuner/bracket": bracket,
            "tuner/round": number,
            "tuner/sweep": index // self._get_num_brackets(),
        }
        if source is None:
            return dict(fresh or {}) | place
        return self.values[source.trial_id] | place | {"tuner/trial_id": source.trial_id}

    def _bracket(self, index: int) -> int:
        brackets: int = self._get_num_brackets()
        return brackets - 1 - index % brackets


def _candidates(before: list[Any], members: list[Any]) -> list[Any]:
    promoted = {trial.hyperparameters.values.get("tuner/trial_id") for trial in members}
    return [
        trial
        for trial in before
        if trial.status == TrialStatus.COMPLETED and trial.trial_id not in promoted
    ]
