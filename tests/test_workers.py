"""Searches whose trials run in other processes."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import keras_tuner
import pytest

import tuning
import tuning.workers
from tests.search_model import Killed, Killer, build, rows
from tuning.worker import Payload
from zoo.errors import OptionValueError, RunError

pytestmark = pytest.mark.tensorflow


def search(kind: Any, folder: Path, model: Any = build, *, workers: int, **options: Any) -> Any:
    trials = options.pop("max_trials", 5)
    callbacks = options.pop("callbacks", [])
    tuner = kind(
        model,
        "val_loss",
        max_trials=trials,
        seed=3,
        directory=folder,
        project_name=f"{workers}",
        workers=workers,
        quiet=True,
        **options,
    )
    x, y = rows()
    tuner.search(x, y, epochs=4, batch_size=16, validation_split=0.25, callbacks=callbacks)
    return tuner


def curves(tuner: Any) -> dict[str, Any]:
    trials, histories = tuner.oracle.trials.values(), tuner.oracle.histories
    return {
        t.trial_id: (t.status, t.score, dict(t.hyperparameters.values), histories[t.trial_id])
        for t in trials
    }


def test_two_workers_and_one_killed_find_what_one_process_finds(tmp_path: Path) -> None:
    alone = search(tuning.RandomSearch, tmp_path, workers=1)
    killer = Killer(tmp_path / "killed")
    together = search(tuning.RandomSearch, tmp_path, workers=2, callbacks=[killer])
    assert (tmp_path / "killed").exists()
    assert curves(together) == curves(alone)
    best = [tuner.get_best_models()[0] for tuner in (alone, together)]
    x, _ = rows()
    assert (best[0].predict(x, verbose=0) == best[1].predict(x, verbose=0)).all()


def test_a_trial_that_kills_its_workers_fails_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning.workers, "MOST_LOSSES", 2)
    model = Killed(tmp_path / "marker")
    tuner = search(tuning.GridSearch, tmp_path, model, workers=2, max_trials=3)
    statuses = {t.hyperparameters.get("depth"): t.status for t in tuner.oracle.trials.values()}
    assert statuses[1] == "COMPLETED"
    for trial in tuner.oracle.trials.values():
        if trial.hyperparameters.get("depth") == 2:
            assert trial.status == "FAILED"
            assert "its worker died 2 times in one epoch: killed by SIGKILL" in trial.message


def test_workers_that_do_not_start_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(RunError, match=r"do not start \(exit status 1\)"):
        search(tuning.RandomSearch, tmp_path, workers=2)


def test_what_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    lock = threading.Lock()

    def with_lock(hp: Any) -> Any:
        with lock:
            return build(hp)

    with pytest.raises(OptionValueError, match="sent to other processes"):
        search(tuning.RandomSearch, tmp_path, with_lock, workers=2)


def test_code_that_runs_in_this_process_is_refused(tmp_path: Path) -> None:
    class OwnTrial(tuning.RandomSearch):
        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> float:
            return 1.0

    with pytest.raises(OptionValueError, match="`workers` must be 1 for a tuner with a run_trial"):
        search(OwnTrial, tmp_path, workers=2)


def test_workers_must_be_a_number_of_processes(tmp_path: Path) -> None:
    with pytest.raises(OptionValueError, match="got workers=0"):
        search(tuning.RandomSearch, tmp_path, workers=0)


def test_large_arrays_are_shared_and_stay_the_same_array(tmp_path: Path) -> None:
    x, _ = rows(10_000)
    payload = Payload(
        hypermodel=build,
        overrides={},
        runner={"batch": x},
        engine={},
        policy="float32",
        floatx="float32",
        fit=((x,), {"validation_data": (x, [1])}),
    )
    read = Payload.read(payload.write(tmp_path))
    assert read.runner["batch"] is read.fit[0][0] is read.fit[1]["validation_data"][0]
    assert (read.fit[0][0] == x).all()
    assert [path.name for path in tmp_path.glob("*.npy")] == ["0.npy"]


def test_the_best_epoch_of_all_trainings_is_kept(tmp_path: Path) -> None:
    seen: list[float] = []

    class OnlyTheFirstLearns(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if len(seen) >= 4:
                self.model.optimizer.learning_rate = 0.0

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append(logs["val_loss"])

    options = {"max_trials": 1, "executions_per_trial": 2, "callbacks": [OnlyTheFirstLearns()]}
    tuner = search(tuning.RandomSearch, tmp_path, workers=1, **options)
    assert len(seen) == 8
    assert min(seen[:4]) < min(seen[4:])
    x, y = rows()
    model = tuner.get_best_models()[0]
    found = model.evaluate(x[72:], y[72:], batch_size=16, verbose=0)[0]
    assert found == pytest.approx(min(seen), rel=1e-6)


class FakeWorker:
    """A worker that is told of its trials and does nothing."""

    def __init__(self, number: int) -> None:
        self.number, self.ready, self.trial = number, True, None
        self.connection = SimpleNamespace(send=lambda _: None)
        self.process = SimpleNamespace()

    def death(self) -> str:
        return "killed"


def dispatcher(workers: list[Any], trials: list[Any]) -> Any:
    """A dispatcher of trials to workers, whose spaces are not known in advance."""
    coming = iter(trials)
    oracle: Any = SimpleNamespace(
        create_trial=lambda _: oracle.interrupted.pop(0) if oracle.interrupted else next(coming),
        declare=lambda *_: None,
        interrupted=[],
        ongoing_trials={},
        stop_reason=None,
    )
    tuner: Any = SimpleNamespace(
        oracle=oracle,
        hypermodel=object(),
        tuner_id="t",
        out_of_time=lambda: False,
        trial_began=lambda _: None,
        trial_succeeded=lambda *_: None,
        trial_ended=lambda *_: None,
        task=lambda trial: trial,
        worker_counts={},
        progress=SimpleNamespace(line=lambda _: None),
    )
    pool: Any = SimpleNamespace(
        workers=workers, log=lambda _: SimpleNamespace(read_text=lambda **_: "")
    )
    pool.replace = lambda worker: setattr(worker, "trial", None)
    return tuning.workers._Dispatcher(tuner, pool)


def test_a_trial_waits_until_the_one_before_it_has_told_its_space() -> None:
    trials = [SimpleNamespace(trial_id=f"{i:04d}", status="RUNNING") for i in range(6)]
    workers = [FakeWorker(0), FakeWorker(1)]
    config = keras_tuner.HyperParameters().get_config()
    handing = dispatcher(workers, trials)
    ended = {"status": "FAILED", "message": "", "reason": ""}

    def running() -> list[str | None]:
        handing._hand_out()
        return [worker.trial and worker.trial.trial_id[-1] for worker in workers]

    assert running() == ["0", None]
    handing._on_declare(workers[0], config)
    assert running() == ["0", "1"]
    handing._on_end(workers[0], ended, config, 0.0, (0, 0, {}))
    assert running() == [None, "1"]  # the end of trial 0 says nothing of trial 1
    handing._on_declare(workers[1], config)
    assert running() == ["2", "1"]
    handing._on_end(workers[1], ended, config, 0.0, (0, 0, {}))
    assert running() == ["2", None]
    lost = workers[0].trial
    handing._lost(workers[0])  # before it told its space
    handing._oracle.interrupted = [lost]
    assert running() == ["2", None]
    handing._on_declare(workers[0], config)
    assert running() == ["2", "3"]
    handing._lost(workers[0])  # which had told its space, while trial 3 has not
    handing._oracle.interrupted = []
    assert running() == [None, "3"]
