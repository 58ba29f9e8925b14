"""Searches that are interrupted, and the journal that they go on from."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tuning
from tests.learning_curve import Curve, outcome, search
from tuning.store import JOURNAL, Journal, locked, open_project
from zoo.errors import RunError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype("float32")
Y = (X[:, 0] > 0).astype("int64")


# --- training goes on where it was ------------------------------------------------------------


def build(hp: Any) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.Dropout(hp.Float("dropout", 0.1, 0.5, step=0.2)),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2),
        ]
    )
    model.compile(
        keras.optimizers.Adam(hp.Choice("lr", [0.01, 0.02, 0.04])),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return model


class Watch(keras.callbacks.Callback):
    """Counts epochs and interrupts one of them; it is the same for all trainings.

    In a tuple, so that it is no state of a callback, which a resumed training would get back.
    """

    def __init__(self, epoch: int | None = None, *, at_end: bool = False) -> None:
        super().__init__()
        self._ended: list[int] = []
        self._stop = (epoch, at_end)

    @property
    def epochs(self) -> int:
        return len(self._ended)

    def __deepcopy__(self, memo: object) -> Watch:
        return self

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if (self.epochs, False) == self._stop:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._ended.append(epoch)
        if (self.epochs, True) == self._stop:
            raise KeyboardInterrupt


def decay(epoch: int, rate: float) -> float:
    return rate * 0.9**epoch


def run(tuner: Any, watch: Watch) -> Any:
    callbacks = [
        keras.callbacks.LearningRateScheduler(decay),
        keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True),
        watch,
    ]
    weights = {0: 1.0, 1: 2.0}
    tuner.search(
        X, Y, validation_data=(X, Y), epochs=5, batch_size=16, callbacks=callbacks,
        class_weight=weights, verbose=0,
    )  # fmt: skip
    return tuner


TUNERS: dict[str, dict[str, Any]] = {
    "RandomSearch": {"max_trials": 2},
    "GridSearch": {"max_trials": 2},
    "TPE": {"max_trials": 3},
    "ASHA": {"max_trials": 3, "max_epochs": 5, "factor": 2},
    "Hyperband": {"max_epochs": 3},
}


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "at_end"), [*((name, False) for name in TUNERS), ("RandomSearch", True)]
)
def test_training_goes_on_from_its_last_epoch(name: str, at_end: bool, tmp_path: Path) -> None:
    def tuner(folder: str) -> Any:
        options = TUNERS[name] | {"directory": tmp_path, "project_name": folder, "keep": None}
        return getattr(tuning, name)(build, "val_loss", seed=7, **options)

    watch = Watch()
    whole = run(tuner("whole"), watch)
    first = Watch(watch.epochs * 2 // 3, at_end=at_end)
    with pytest.raises(KeyboardInterrupt):
        run(tuner("broken"), first)
    rest = Watch()
    resumed = run(tuner("broken"), rest)
    assert first.epochs + rest.epochs == watch.epochs + at_end
    assert resumed.oracle.values == whole.oracle.values
    assert resumed.oracle.histories == whole.oracle.histories  # to the last bit
    scores = [[t.score for t in tuner.oracle.trials.values()] for tuner in (whole, resumed)]
    assert scores[0] == scores[1]
    models = [tuner.get_best_models()[0].get_weights() for tuner in (whole, resumed)]
    for mine, its in zip(*models, strict=True):
        np.testing.assert_array_equal(mine, its)


def interrupted(trial: int) -> Curve:
    """A model that interrupts the search before the second epoch of a training, from 0."""

    def at(_: dict[str, Any], epoch: int) -> None:
        if len(model.started) == trial + 1 and epoch == 1:
            raise KeyboardInterrupt

    model = Curve(at)
    return model


@pytest.mark.parametrize(
    ("algorithm", "trial"),
    [("random", 0), ("grid", 3), ("hyperband", 3), ("bayesian", 3), ("tpe", 3), ("asha", 3),
     ("bohb", 3)],
)  # fmt: skip
def test_a_resumed_search_equals_one_never_interrupted(
    algorithm: str, trial: int, tmp_path: Path
) -> None:
    options = {"algorithm": algorithm, "trials": 5, "max_epochs": 3, "seed": 3}
    whole = Curve()
    expected = search(whole, directory=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        search(interrupted(trial), directory=tmp_path / "broken", **options)
    rest = Curve()
    resumed = search(rest, directory=tmp_path / "broken", **options)
    assert outcome(resumed) == outcome(expected)
    assert len(rest.started) == len(whole.started) - trial  # none is run again that had ended


@pytest.mark.parametrize("algorithm", ["random", "grid", "asha", "tpe"])
def test_more_trials_on_resume(algorithm: str, tmp_path: Path) -> None:
    search(algorithm=algorithm, trials=3, directory=tmp_path)
    model = Curve()
    resumed = search(model, algorithm=algorithm, trials=6, directory=tmp_path)
    assert len(resumed.histories) == 6
    if algorithm != "asha":  # more trials are more to promote from
        assert len(model.started) == 3
        assert outcome(resumed) == outcome(search(algorithm=algorithm, trials=6))


def test_a_trial_that_was_stopped_by_the_time_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("tuning.tuner.monotonic", lambda: clock[0])

    def at(_: dict[str, Any], epoch: int) -> None:
        clock[0] += 10

    search(Curve(at), trials=3, max_epochs=4, time_budget=25, directory=tmp_path)
    rest = Curve()
    result = search(rest, trials=3, max_epochs=4, directory=tmp_path)
    assert len(rest.started) == 2
    assert list(result.leaderboard().sort_values("trial").status) == [
        "stopped", "completed", "completed",
    ]  # fmt: skip


# --- the journal ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    search(trials=2, directory=folder)
    return folder


def copied(finished: Path, folder: Path) -> Path:
    project = folder / "search"
    project.mkdir()
    (project / JOURNAL).write_bytes((finished / "search" / JOURNAL).read_bytes())
    return project / JOURNAL


EVENTS = 11  # of two trials of two epochs
FULL = OSError(errno.ENOSPC, "No space left")


@pytest.fixture(scope="module")
def expected(finished: Path) -> str:
    return outcome(search(trials=2, directory=finished))


@pytest.mark.parametrize(
    ("written", "error"),
    [*((written, KeyboardInterrupt()) for written in range(EVENTS)), (0, FULL), (7, FULL)],
)
def test_an_end_before_any_event(
    written: int,
    error: BaseException,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    append, count = Journal.append, [0]

    def broken(journal: Journal, event: Any) -> None:
        if count[0] == written:
            raise error
        count[0] += 1
        append(journal, event)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", broken)
        with pytest.raises(type(error)):
            search(trials=2, directory=tmp_path)
    assert outcome(search(trials=2, directory=tmp_path)) == expected


class FullDisk(io.FileIO):
    """A file on a disk that has room for so many bytes."""

    room = 0

    def write(self, data: Any) -> int:
        part = bytes(data)[: FullDisk.room]
        if not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        FullDisk.room -= len(part)
        return super().write(part)


@pytest.mark.parametrize("room", [0, 10, 400, 1000])
def test_a_full_disk_leaves_a_search_that_resumes(
    room: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FullDisk.room = room
    real = Path.open

    def full(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        return FullDisk(path, mode) if mode == "ab" else real(path, mode, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(RunError, match=r"cannot be saved: .*No space left.* goes on from its"):
            search(trials=2, directory=tmp_path)
    content = (tmp_path / "search" / JOURNAL).read_bytes()
    assert not content or content.endswith(b"\n")  # no half a line
    assert outcome(search(trials=2, directory=tmp_path)) == expected


def test_a_line_that_was_cut_off_is_dropped(finished: Path, tmp_path: Path) -> None:
    path = copied(finished, tmp_path)
    whole = path.read_bytes()
    begin = whole.rstrip(b"\n").rindex(b"\n") + 1
    events = len(Journal(path).read())
    for length in (begin + 1, (begin + len(whole)) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert len(Journal(path).read()) == events - 1
        assert path.read_bytes() == whole[:begin]
    path.write_bytes(whole[:begin] + b"00000000 {}\n")  # torn, and a line end from elsewhere
    assert len(Journal(path).read()) == events - 1


def test_a_damaged_line_is_named(finished: Path, tmp_path: Path) -> None:
    path = copied(finished, tmp_path)
    lines = path.read_bytes().split(b"\n")
    lines[4] = lines[4].replace(b'"event"', b'"evert"')
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(RunError, match=r"line 5 of .*journal\.jsonl is damaged.*resume=False"):
        search(trials=2, directory=tmp_path)
    assert len(search(trials=2, directory=tmp_path, resume=False).histories) == 2


def rewritten(path: Path, number: int, **changes: Any) -> None:
    lines = path.read_bytes().split(b"\n")
    event = json.loads(lines[number].partition(b" ")[2]) | changes
    text = json.dumps(event).encode()
    lines[number] = b"%08x %s" % (zlib.crc32(text), text)
    path.write_bytes(b"\n".join(lines))


def test_another_version_s_journal(finished: Path, tmp_path: Path) -> None:
    path = copied(finished, tmp_path)
    rewritten(path, 0, format=99)
    with pytest.raises(RunError, match="has format 99, and this version reads 1"):
        search(trials=2, directory=tmp_path)
    rewritten(path, 0, format=1)
    rewritten(path, 3, event="teleport")
    with pytest.raises(RunError, match=r"holds an unknown event, .*teleport"):
        search(trials=2, directory=tmp_path)


def test_other_settings_are_another_search(finished: Path) -> None:
    with pytest.raises(
        RunError, match="has algorithm='random', seed=0, got algorithm='grid', seed=1"
    ):
        search(trials=2, directory=finished, algorithm="grid", seed=1)
    assert len(search(trials=2, directory=finished).histories) == 2  # nothing was lost


@pytest.mark.parametrize("resume", [True, False])
def test_a_foreign_folder_is_not_touched(resume: bool, tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search/thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="it is no search of this package"):
        search(directory=tmp_path, resume=resume)
    assert (tmp_path / "search/thesis.txt").read_text() == "precious"


def test_a_search_of_keras_tuner_is_only_overwritten(tmp_path: Path) -> None:
    project = tmp_path / "search"
    (project / "trial_0").mkdir(parents=True)
    (project / "oracle.json").write_text("{}")
    with pytest.raises(RunError, match=r"holds a search of KerasTuner.*overwrite=True"):
        search(directory=tmp_path)
    assert (project / "oracle.json").exists()
    search(directory=tmp_path, resume=False, trials=1)
    assert not (project / "oracle.json").exists()
    assert not (project / "trial_0").exists()


def test_resume_false_starts_again(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    search(directory=tmp_path, trials=3)
    model = Curve()
    result = search(model, directory=tmp_path, trials=2, resume=False, seed=1)
    assert len(model.started) == len(result.histories) == 2
    assert (tmp_path / "notes.txt").exists()


HOLD = """
import sys, time
from pathlib import Path
from filelock import FileLock
with FileLock(Path(sys.argv[1]) / "search.lock"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_holds_the_search(finished: Path, tmp_path: Path) -> None:
    copied(finished, tmp_path)
    project = tmp_path / "search"
    command = [sys.executable, "-c", HOLD, str(project)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            for resume in (True, False):
                with pytest.raises(RunError, match="Another process is running the search in"):
                    search(trials=3, directory=tmp_path, resume=resume)
        finally:
            process.kill()
    assert len(search(trials=2, directory=tmp_path).histories) == 2  # nothing was lost


def test_the_lock_is_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        search(interrupted(0), directory=tmp_path)
    with locked(tmp_path / "search"):
        pass


def test_what_is_no_event(tmp_path: Path) -> None:
    journal, events = open_project(tmp_path / "p", {"n": np.int64(3)}, resume=True)
    assert events == []
    with pytest.raises(TypeError, match="An event must hold plain values; got <object"):
        journal.append({"event": "x", "value": object()})
    assert open_project(tmp_path / "p", {"n": 3}, resume=True)[1] == []
