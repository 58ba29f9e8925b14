from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import (
    tuning,
    tuning_equal,
    tuning_overhead,
    tuning_results,
    tuning_target,
    tuning_tasks,
    tuning_workers,
)
from benchmarks.tuning_equal import BASE
from benchmarks.tuning_searches import OURS, STOCK, Contestant, run_search
from tuning import loop
from zoo.errors import SourceError

# KerasTuner asks for the thread's name by deprecated functions.
pytestmark = pytest.mark.filterwarnings(
    "ignore:currentThread:DeprecationWarning", "ignore:getName:DeprecationWarning"
)


def test_the_parts_and_rounds_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuning.parse([]).part == list(tuning.PARTS)
    assert tuning.parse(["equal"]).rounds == 5
    assert tuning.parse(["--smoke"]).results != tuning_results.RESULTS
    for arguments, message in (
        (["equal", "speed"], "a part is one of equal, workers, target, overhead; got speed."),
        (["--rounds", "0"], "`--rounds` must be 1 or more; got 0."),
    ):
        with pytest.raises(SystemExit):
            tuning.parse(arguments)
        assert message in capsys.readouterr().err


def test_equal_trials_are_compared_trial_by_trial() -> None:
    found = {
        "trials": 2,
        "seconds": {BASE: [8.0, 10.0, 12.0], "ours": [4.0, 5.0, 6.0]},
        "seconds_of_a_trial_after_the_first": {BASE: [3.0, 4.0, 4.0], "ours": [1.5, 2.0, 1.25]},
        "steps_of_a_trial": [1.0, 1.0, 1.0],
        "scores_in_order": {BASE: [0.5, 0.25], "ours": [0.5, 0.375]},
        "scores_shuffled": {BASE: [0.5, 0.25], "ours": [0.25, 0.25]},
    }
    assert tuning_equal.rows(found) == [
        [BASE, "10.00 (8.00..12.00)", "720", "1.00", "4.000", "100", "3.000", "100", "", ""],
        [
            "ours", "5.00 (4.00..6.00)", "1,440", "2.00", "1.500", "38", "0.500", "17", "0.12",
            "-0.1250",
        ],
    ]  # fmt: skip


def test_the_first_trial_is_left_out() -> None:
    ends = [5.0, 6.0, 7.0, 8.0, 8.5, 9.0]  # of three trials of two epochs
    assert tuning_equal.seconds_after_the_first(ends, 2) == pytest.approx(1.5)
    assert tuning_equal.seconds_after_the_first(ends[:3], 1) == pytest.approx(1.0)


def test_a_loop_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.TensorFlowLoop, "_run", loop.TensorFlowLoop._run)  # put back after
    found = tuning_overhead.trial_overheads(3, False)
    assert len(found["steps"]) == len(found["beyond"]) == 2
    assert min(found["steps"]) > 0


def test_the_start_of_workers_is_taken_off() -> None:
    samples = {
        "1 worker": [{"seconds": 9.0, "start": 1.0}],
        "2 workers": [{"seconds": 12.0, "start": 8.0}],
    }
    one, two = tuning_workers.rows(16, samples)
    assert one[4:] == ["7,200", "1.00", "1.00"]
    assert two[3:] == ["4.00 (4.00..4.00)", "14,400", "0.75", "2.00"]


def target_runs(base: list[list[float]], ours: list[list[list[float]]]) -> Any:
    """The runs to one target: KerasTuner's take 20, 30 and 40 s, every search of ours 9 s."""
    runs = {
        name: [{"trace": base, "seconds": 20.0 + 10 * place}]
        for place, name in enumerate(tuning_target.STOCK_NAMES)
    }
    for name in tuning_target.CONTESTANTS.keys() - runs.keys():
        runs[name] = [{"trace": trace, "seconds": 9.0, "start": 1.0} for trace in ours]
    return runs


def test_a_run_that_never_reaches_the_target_is_shown_as_such() -> None:
    base = [[4.0, 0.5], [8.0, 0.75]]
    runs = {7: target_runs(base, [[[1.0, 0.5], [2.0, 0.875]], [[4.0, 0.75]]])}
    runs[8] = target_runs(base, [[[1.0, 0.75]], [[2.0, 0.625]]])
    table = {row[0]: row[1:] for row in tuning_target.rows(runs)}
    whole = ["2.5 (2.5..2.5)", "3.8 (3.8..3.8)", "5.0 (5.0..5.0)"]
    assert table[BASE] == ["8; 8", "2 of 2", "8.0", "0.0", *whole, "1.0 (1.0..1.0)"]
    never = ["2, 4; 1, never (0.6250 after 9)", "3 of 4"]
    assert table["ours ASHA, 2 workers"][:3] == [*never, ""]
    del runs[8]
    table = {row[0]: row[1:] for row in tuning_target.rows(runs)}
    ratios = ["7.5 (5.0..10.0)", "11.2 (7.5..15.0)", "15.0 (10.0..20.0)", "3.0 (2.0..4.0)"]
    assert table["ours ASHA, 2 workers"] == ["2, 4", "2 of 2", "3.0", "1.0", *ratios]
    runs[7]["ours ASHA, 2 workers"] = [{"trace": [], "seconds": 9.0}]
    table = {row[0]: row[1:] for row in tuning_target.rows(runs)}
    assert table["ours ASHA, 2 workers"][:2] == ["never (no epoch in 9 s)", "0 of 1"]


def test_runs_are_kept_and_ours_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, int, float | None]] = []

    def fake(_: Any, *, name: str, seed: int, target: float | None, **others: Any) -> Any:
        made.append((name, seed, target))
        if "2 workers" in name:
            raise RuntimeError("no workers")
        return {"trace": [[1.0, 0.5]], "seconds": 2.0, "start": 0.0}

    monkeypatch.setattr(tuning_target, "in_fresh_process", fake)
    settings = {"images": 9, "smoke": False, "jit": False}
    names = list(tuning_target.CONTESTANTS)
    runs = tuning_target.measure(tmp_path, 0, 0, settings)
    ours = [(name, seed, 0.5) for name in names[3:] for seed in (0, 100)]
    assert made == [(BASE, 0, None), *((name, 0, 0.5) for name in names[1:3]), *ours]
    assert [run["failure"] for run in runs["ours ASHA, 2 workers"]] == ["no workers"] * 2
    made.clear()
    tuning_target.measure(tmp_path, 0, 0, settings)
    assert made == ours[-2:]  # a failure is not kept
    made.clear()
    tuning_target.measure(tmp_path, 0, 0, settings, fresh=True)
    assert made == ours
    made.clear()
    tuning_target.measure(tmp_path, tuning_target.COMPARED, 1, settings)
    assert [name for name, *_ in made] == [BASE, *(name for name, *_ in ours)]
    paths = {
        tuning_target.run_path(tmp_path, name, seed, settings | change, repeat)
        for name in names
        for seed in (0, 1)
        for repeat in (0, 1)
        for change in ({}, {"images": 8}, {"jit": "auto"}, {"smoke": True})
    }
    assert len(paths) == len(names) * 2 * 2 * 4


@pytest.mark.parametrize("algorithm", ["asha", "bohb", "tpe"])
def test_made_up_events_fill_an_oracle(algorithm: str) -> None:
    from tuning.oracles import ALGORITHMS

    oracle = ALGORITHMS[algorithm].create(
        tuning_overhead._objective(), trials=None, max_epochs=27, seed=0
    )
    oracle.update_space(tuning_overhead._space())
    rungs = getattr(oracle, "rungs", (27,))
    for event in tuning_overhead.halving_events(30, rungs):
        oracle.apply(event)
    lengths = sorted(len(one.curve) for one in oracle.observations())
    expected = {"tpe": [1] * 30}.get(algorithm, [2] * 20 + [4] * 7 + [8] * 2 + [27])  # one: a score
    assert lengths == expected
    assert not oracle.ongoing_trials
    new = oracle.create_trial("a")
    assert new.trial_id == "0030"


@pytest.mark.parametrize("algorithm", tuning_overhead.ALGORITHMS)
def test_every_algorithm_is_timed(algorithm: str) -> None:
    taken = tuning_overhead.suggestion_seconds(algorithm, 4, 2)
    assert len(taken) == 2
    assert min(taken) > 0


def test_what_an_epoch_takes_beyond_the_quickest_is_no_step() -> None:
    first, second = [9.0, 1.0, 2.0, 3.0], [2.0, 2.0, 8.0, 2.0]  # train, test, train, test
    assert tuning_overhead.steady_steps([*first, *second], [0, 4, 8]) == [6.0, 8.0]


def test_memory_is_a_line_after_the_first_trials() -> None:
    assert math.isclose(tuning_overhead.slope([1.0, 3.0, 5.0, 7.0]), 2.0)
    resident = [100.0 * one for one in range(20)] + [200 + 0.5 * one for one in range(30)]
    found = {"x": {"resident_mb": resident, "disk_bytes": 2e6, "seconds": 3.0}}
    assert tuning_overhead.memory_rows(found) == [["x", "500.0", "200", "214", "2.00", "3.0"]]
    held = np.ones(10_000_000)  # 80 MB
    with_it = tuning_overhead.resident_mb()
    del held
    assert 70 < with_it - tuning_overhead.resident_mb() < 90


def test_a_result_names_versions_threads_and_date(tmp_path: Path) -> None:
    path = tuning_results.write_result(tmp_path / "new", "x", {"a": [1.0]})
    held = json.loads(path.read_text("utf-8"))
    assert path.name == "tuning_x.json"
    assert held["a"] == [1.0]
    assert {"keras-tuner", "optuna", "threads", "cores"} <= held["made_with"].keys()
    assert len(held["date"]) == 10


def test_a_fresh_process_returns_what_it_measured_or_says_why_not() -> None:
    found = tuning_results.in_fresh_process(tuning_tasks.listed_values, count=2)
    assert found == tuning_tasks.listed_values(2)
    with pytest.raises(RuntimeError, match="listed_values failed: TypeError"):
        tuning_results.in_fresh_process(tuning_tasks.listed_values)


def test_a_table_that_cannot_be_had_is_replaced_under_its_own_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*_: str) -> bytes:
        raise SourceError("no index")

    monkeypatch.setattr(tuning_tasks, "_read", absent)
    (x, y), name = tuning_tasks._adult.__wrapped__()
    assert x.shape == (48_842, 108)
    assert set(y) == {0, 1}
    assert name == "synthetic table of Adult's shape"
    assert "no index" in capsys.readouterr().out


@pytest.mark.tensorflow
def test_both_libraries_run_the_same_trials_with_the_same_scores() -> None:
    task = tuning_overhead.tiny_task(2, False)
    values = tuning_tasks.listed_values(2)
    found = {}
    epochs: dict[str, list[float]] = {STOCK: [], OURS: []}
    for library, seen in epochs.items():
        found[library] = run_search(
            Contestant(library=library, tuner="RandomSearch"),
            task,
            objective="val_loss",
            values=values,
            shuffle=False,
            epoch_ended=lambda now, _, seen=seen: seen.append(now),  # type: ignore[misc]
        )
    assert found[OURS].scores == pytest.approx(found[STOCK].scores, rel=1e-6)
    assert len(set(found[OURS].scores)) == 2
    for library, seen in epochs.items():
        assert len(seen) == 6
        assert sorted(seen) == seen
        assert seen[-1] <= found[library].seconds
        assert found[library].disk_bytes > 0


@pytest.mark.tensorflow
def test_a_failed_trial_ends_the_measurement() -> None:
    task = tuning_tasks.with_trials(tuning_overhead.tiny_task(1, False), 1)
    values = [{"learning_rate": "high", "dropout": 0.0}]
    contestant = Contestant(library=OURS, tuner="RandomSearch")
    with pytest.raises(RuntimeError, match="Trial 0000 failed"):
        run_search(contestant, task, objective="val_loss", values=values)
