"""How the benchmark of the search algorithms counts, on made-up learning curves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import oracles
from benchmarks.oracles import BUDGET, EPOCHS, METHODS, NAMES, epochs_to, row
from tuning.oracles import AshaOracle, RandomOracle


class Curves:
    """Hands out one level after the other to new configurations; curves rise to their level."""

    def __init__(self, *levels: float, rise: bool = True) -> None:
        self.levels, self.rise = list(levels), rise
        self.known: dict[tuple[Any, ...], np.ndarray[Any, Any]] = {}

    def __call__(self, values: Mapping[str, Any]) -> Any:
        key = tuple(values[name] for name in NAMES)
        if key not in self.known:
            level = self.levels.pop(0) if self.levels else 0.0
            ramp = np.arange(1, EPOCHS + 1) / EPOCHS
            self.known[key] = level * ramp if self.rise else level * ramp[::-1]
        return self.known[key]


def test_epochs_are_counted_to_the_first_that_reaches_the_target() -> None:
    assert epochs_to(51.0, METHODS["random"], Curves(10.0, 20.0, 102.0), seed=0) == 2 * 51 + 26
    assert epochs_to(1.0, METHODS["random"], Curves(51.0), seed=0) == 1


def test_what_comes_after_the_budget_does_not_count() -> None:
    last = [0.0] * 39
    assert epochs_to(51.0, METHODS["random"], Curves(*last, 51.0), seed=0) == BUDGET
    assert epochs_to(51.0, METHODS["random"], Curves(*last, 0.0, 102.0), seed=0) is None


def test_patience_stops_trials_that_fall() -> None:
    curves = Curves(51.0, 51.0, 102.0, rise=False)
    method = METHODS["random-patience"]
    assert epochs_to(102.0, method, curves, seed=0) == 2 * 6 + 1  # the best epoch and five more


@pytest.mark.parametrize(("name", "again"), [("asha-3", 0), ("asha-restart", 2 + 6 + 18)])
def test_a_promoted_trial_goes_on_or_starts_again(name: str, again: int) -> None:
    # The ninth trial of every nine is promoted twice, so the first to be whole is the 27th.
    curves = Curves(*range(1, 28))
    found = epochs_to(27.0, METHODS[name], curves, seed=0)
    resumed = epochs_to(27.0, METHODS["asha-3"], Curves(*range(1, 28)), seed=0)
    assert found is not None
    assert resumed is not None
    assert found - resumed >= again
    assert (found == resumed) == (again == 0)


def test_rungs_are_as_the_method_says() -> None:
    assert METHODS["asha-3"].create(1).rungs == (2, 6, 18, 51)
    assert METHODS["asha"].create(1).rungs == METHODS["bohb"].create(1).rungs == (2, 4, 8, 16, 51)
    assert isinstance(METHODS["asha"].create(1), AshaOracle)
    assert isinstance(METHODS["random"].create(1), RandomOracle)


def test_a_line_sums_up_all_tasks_and_either_half() -> None:
    tasks: list[list[int | None]] = [
        [BUDGET, BUDGET],
        [BUDGET // 4, None],
        [BUDGET // 2, BUDGET // 2],
        [None, None],
    ]
    assert row("m", tasks) == [
        *("m", "62 %", "1.00", "0.00 - 2.00"),
        *("1.50 (100 %)", "0.00 (25 %)"),
    ]


def test_results_of_other_methods_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class FakeSurrogate:
        tasks = ("1", "2")

        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def curves(self, task: str, configurations: list[Mapping[str, Any]]) -> Any:
            return np.array([[values["momentum"]] * EPOCHS for values in configurations])

    monkeypatch.setattr(oracles, "Surrogate", FakeSurrogate)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1.0")  # it may not be installed
    output = tmp_path / "results" / "o.json"
    for name in ("random", "asha"):
        arguments = ["x", "--surrogate", "d", "--methods", name, "--seeds", "2"]
        monkeypatch.setattr("sys.argv", [*arguments, "--output", str(output)])
        oracles.main()
    found = json.loads(output.read_text("utf-8"))
    assert list(found) == ["random", "asha"]
    assert {len(counts) for counts in found["asha"]["epochs"].values()} == {2}
    assert "optuna" in found["asha"]["made_with"]
    assert "ASHA" in capsys.readouterr().out


def test_the_number_of_seeds_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        oracles.parse(["--surrogate", "d", "--seeds", "0"])
    assert "`--seeds` must be 1 or more; got 0" in capsys.readouterr().err
