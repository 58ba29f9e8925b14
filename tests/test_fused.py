"""Trials trained at once on JAX: the numbers of single trials, and their records.

`KERAS_BACKEND=jax python -m pytest tests/test_fused.py`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest

import tuning
from tuning import fused
from tuning.checkpoint import BEST, STATE
from tuning.fused_steps import FusedSteps
from tuning.lockstep import TrialThread
from tuning.store import Journal
from tuning.tuner import EngineTuner
from zoo.errors import OptionValueError

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="needs KERAS_BACKEND=jax")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(44, 4)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
FIT: dict[str, Any] = {"x": X, "y": Y, "validation_data": (X[:30], Y[:30]), "batch_size": 16}
EPOCHS = 3
VALUES: list[dict[str, Any]] = [
    {"lr": 0.1, "rate": 0.3},
    {"lr": 0.01, "rate": 0.0},  # where Keras makes no seeds
    {"lr": 0.003, "rate": 0.5},
    {"lr": 0.03, "rate": 0.2},
]


def rich(hp: Any) -> keras.Model:
    """Has state of every kind: moments, moving averages, seeds, two metrics."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(hp.Choice("units", [3, 4]), "relu"),
            keras.layers.Dropout(hp.Float("rate", 0.0, 0.5)),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2),
        ]
    )
    model.compile(
        keras.optimizers.AdamW(hp.Float("lr", 1e-3, 1e-1, sampling="log")),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def small(hp: Any, layers: Sequence[Any] = (), **optimizer: Any) -> keras.Model:
    """Compiles fast."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            *layers,
            keras.layers.Dense(hp.Choice("units", [3, 4]), "relu"),
            keras.layers.Dropout(hp.Float("rate", 0.0, 0.5)),
            keras.layers.Dense(1),
        ]
    )
    rate = hp.Float("lr", 1e-3, 1e-1, sampling="log")
    model.compile(keras.optimizers.SGD(rate, **optimizer), "mse")
    return model


class Listed:
    """Makes tuners whose trials have given values, and keeps the lines that they show."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []

    def __call__(
        self,
        values: Sequence[Mapping[str, Any]] | None = None,
        *,
        name: str = "search",
        kind: str = "RandomSearch",
        model: Any = small,
        **options: Any,
    ) -> Any:
        options = {"max_trials": len(values or VALUES), "quiet": True, "seed": 1} | options
        tuner = getattr(tuning, kind)(
            model, "val_loss", directory=self.folder, project_name=name, **options
        )
        tuner.progress.line = self.lines.append
        if values is not None:
            tuner.oracle.populate_space = lambda trial: {
                "status": "RUNNING",
                "values": {"units": 3, **values[int(trial)]},
            }
        return tuner


@pytest.fixture
def make(tmp_path: Path) -> Listed:
    return Listed(tmp_path)


@pytest.fixture(scope="module", autouse=True)
def _compile_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Most tests compile the same."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("jax")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The search over `VALUES`, one trial after the other."""
    tuner = Listed(tmp_path_factory.mktemp("alone"))(VALUES, keep=None)
    tuner.search(**FIT, epochs=EPOCHS)
    return tuner


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of trials that were trained or tested at once."""
    found: list[int] = []
    run = FusedSteps.run

    def counted(self: FusedSteps, jobs: Sequence[Any]) -> Any:
        done = run(self, jobs)
        found.append(len(done))
        return done

    monkeypatch.setattr(FusedSteps, "run", counted)
    monkeypatch.setattr(FusedSteps, "_measure", lambda *_: None)  # times are of no account here
    return found


def assert_close(one: Mapping[str, list[float]], other: Mapping[str, list[float]]) -> None:
    assert list(one) == list(other)
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], rtol=1e-5, atol=1e-7, err_msg=name)


def assert_same_search(tuner: Any, other: Any, trials: Sequence[str] | None = None) -> None:
    """Checks values, status, curves, score and the best weights of trials."""
    for name in trials or list(other.oracle.trials):
        one, wanted = tuner.oracle.trials[name], other.oracle.trials[name]
        assert one.hyperparameters.values == wanted.hyperparameters.values
        assert one.status == wanted.status == "COMPLETED"
        assert_close(tuner.oracle.histories[name], other.oracle.histories[name])
        assert one.score == pytest.approx(wanted.score, rel=1e-5)
        assert one.best_step == wanted.best_step
        mine, its = (t.load_model(t.oracle.trials[name]).get_weights() for t in (tuner, other))
        for array, expected in zip(mine, its, strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-6)


def events(tuner: Any, name: str) -> list[tuple[str, int | None]]:
    """Kinds of the events of a trial."""
    found = Journal(Path(tuner.project_dir) / "journal.jsonl").read()
    return [(e["event"], e.get("epoch")) for e in found if e.get("trial") == name]


def replayed(make: Listed, tuner: Any, model: Any = small) -> Any:
    """The trials of a search, each alone and as long as it was trained there."""
    oracle = tuner.oracle
    values = [oracle.values[name] for name in sorted(oracle.trials, key=int)]
    single = make(values, name="replay", model=model, keep=None)
    lengths = {name: len(history["loss"]) for name, history in oracle.histories.items()}
    report = single.oracle.report

    def shortened(trial: str, epoch: int, *rest: Any) -> str | None:
        return report(trial, epoch, *rest) or (
            "long enough" if epoch + 1 == lengths[trial] else None
        )

    single.oracle.report = shortened
    single.search(**FIT, epochs=max(lengths.values()))
    return single


# --- equal numbers --------------------------------------------------------------------------------


@on_jax
def test_fused_trials_equal_single_ones(make: Listed, widths: list[int]) -> None:
    tuner, single = (make(VALUES, name=f"{n}", model=rich, fused=n, keep=None) for n in (4, 1))
    single.search(**FIT, epochs=EPOCHS)
    assert not widths
    tuner.search(**FIT, epochs=EPOCHS)
    assert widths == [4] * 2 * EPOCHS
    assert_same_search(tuner, single)
    for name in tuner.oracle.trials:
        assert events(tuner, name) == events(single, name)
    seconds = sum(tuner.oracle.seconds.values())
    assert 0 < seconds <= tuner.oracle.session_seconds  # each trial has its share
    assert not list(make.folder.rglob("trial_*/.*"))


@on_jax
@pytest.mark.parametrize("kind", ["ASHA", "TPE", "GridSearch"])
def test_every_trial_of_a_search_equals_a_single_one(
    kind: str, make: Listed, widths: list[int]
) -> None:
    options: dict[str, Any] = {"max_epochs": 4, "factor": 2, "first": 1} if kind == "ASHA" else {}
    length = {} if kind == "ASHA" else {"epochs": 2}
    tuner = make(kind=kind, fused=3, keep=None, max_trials=5, **options)
    tuner.search(**FIT, **length)
    assert len(tuner.oracle.trials) == 5
    assert max(widths) > 1
    assert_same_search(replayed(make, tuner), tuner)
    if kind == "ASHA":
        assert {len(h["loss"]) for h in tuner.oracle.histories.values()} == {1, 2, 4}


@on_jax
@pytest.mark.parametrize("option", ["momentum", "clipnorm"])
def test_trials_that_trace_otherwise_are_apart(
    option: str, make: Listed, widths: list[int]
) -> None:
    def model(hp: Any) -> keras.Model:
        return small(hp, **{option: hp.Choice(option, [0.0, 0.5])})  # Keras asks if it is 0

    kinds = ((0.5, 3), (0.0, 3), (0.5, 3), (0.5, 4))
    values = [{"lr": 0.01, "rate": 0.1, option: value, "units": units} for value, units in kinds]
    tuner = make(values, model=model, fused=4, keep=None)
    tuner.search(**FIT, epochs=1)
    assert Counter(width for width in widths if width) == {2: 2, 1: 4}
    assert not [line for line in make.lines if "unfused" in line]
    assert_same_search(replayed(make, tuner, model), tuner)


# --- trials that end alone ------------------------------------------------------------------------


@on_jax
def test_a_trial_that_diverges_ends_alone(make: Listed, alone: Any, widths: list[int]) -> None:
    values = [*VALUES[:1], {"lr": 1e38, "rate": 0.0}, *VALUES[2:]]
    tuner = make(values, fused=4, keep=None, max_retries_per_trial=0)
    tuner.search(**FIT, epochs=EPOCHS)
    failed = tuner.oracle.trials["0001"]
    assert failed.status == "FAILED"
    assert "is nan in epoch" in failed.message
    assert_same_search(tuner, alone, ["0000", "0002", "0003"])
    assert widths[-1] == 3


@on_jax
def test_trials_that_are_stopped_end_alone(make: Listed, alone: Any, widths: list[int]) -> None:
    tuner = make(VALUES, fused=4, keep=None)
    judge = tuner.oracle.judge
    tuner.oracle.judge = lambda trial: "hopeless" if trial in ("0000", "0001") else judge(trial)
    tuner.search(**FIT, epochs=EPOCHS)
    for name in ("0000", "0001"):
        assert tuner.oracle.trials[name].message == "hopeless"
        first = {metric: values[:1] for metric, values in alone.oracle.histories[name].items()}
        assert_close(tuner.oracle.histories[name], first)
    assert_same_search(tuner, alone, ["0002", "0003"])
    assert widths == [4] * 2 + [2] * 2 * (EPOCHS - 1)


@on_jax
def test_the_time_is_up_for_all(make: Listed, widths: list[int]) -> None:
    tuner = make(VALUES, fused=2)
    tuner.out_of_time = lambda: bool(widths)
    tuner.search(**FIT, epochs=EPOCHS)
    assert widths == [2, 2]
    messages = [trial.message for trial in tuner.oracle.trials.values()]
    assert messages == ["out of time after epoch 1"] * 2


@on_jax
def test_callbacks_of_epochs_work(make: Listed) -> None:
    stop = keras.callbacks.EarlyStopping("val_loss", patience=0, restore_best_weights=True)
    tuners = [make(VALUES, name=f"{n}", fused=n, keep=None) for n in (1, 4)]
    for tuner in tuners:
        tuner.search(**FIT, epochs=6, callbacks=[stop])
    assert_same_search(*tuners)


# --- interruptions --------------------------------------------------------------------------------


class Kill(BaseException):
    """The end of the process."""


@on_jax
@pytest.mark.parametrize(("kind", "count"), [("start", 2), ("epoch", 2), ("epoch", 7), ("end", 2)])
def test_a_killed_search_goes_on(
    kind: str, count: int, make: Listed, alone: Any, widths: list[int]
) -> None:
    tuner = make(VALUES, fused=3, keep=None)
    write, seen = tuner.oracle.journal, Counter[str]()

    def killing(event: Mapping[str, Any]) -> None:
        write(event)
        seen[event["event"]] += 1
        if seen[kind] == count:
            raise Kill

    tuner.oracle.journal = killing
    with pytest.raises(Kill):
        tuner.search(**FIT, epochs=EPOCHS)
    resumed = make(VALUES, fused=3, keep=None)
    widths.clear()
    resumed.search(**FIT, epochs=EPOCHS)
    assert widths[0] == (2 if (kind, count) == ("end", 2) else 3) - (kind == "end")
    assert_same_search(resumed, alone)
    for name in resumed.oracle.trials:
        epochs = Counter(e for e in events(resumed, name) if e[0] == "epoch")
        assert sum(epochs.values()) <= EPOCHS + 1
        assert not (Path(resumed.project_dir) / f"trial_{name}" / STATE).exists()
        assert (Path(resumed.project_dir) / f"trial_{name}" / BEST).exists()


# --- refusals -------------------------------------------------------------------------------------


class OwnFit(keras_tuner.HyperModel):
    def build(self, hp: Any) -> keras.Model:
        return small(hp)

    def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        return model.fit(*args, **kwargs)


class OwnRun(EngineTuner):
    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        return super().run_trial(trial, *args, **kwargs)


PER_BATCH = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, **_: batch)


@on_jax
@pytest.mark.parametrize(
    ("options", "fit", "line"),
    [
        ({"executions_per_trial": 2}, {}, "fused trials need executions_per_trial=1"),
        ({"model": OwnFit()}, {}, "fused trials need training by keras.Model.fit alone"),
        ({"whole_epochs": False}, {}, "fused trials need whole_epochs=True"),
        ({"compiled_models": 0}, {}, "fused trials need compiled_models above 0"),
        ({}, {"callbacks": [PER_BATCH]}, "the data or a callback of the training asks for single"),
    ],
)
def test_what_is_refused(
    options: dict[str, Any], fit: dict[str, Any], line: str, make: Listed
) -> None:
    tuner = make(VALUES[:2], fused=2, **options)
    tuner.search(**FIT, epochs=1, **fit)
    assert [seen for seen in make.lines if "fused" in seen] == [make.lines[0]]
    assert make.lines[0].startswith(f"fused trials are off: {line}")
    assert [trial.status for trial in tuner.oracle.trials.values()] == ["COMPLETED"] * 2


@on_jax
@pytest.mark.parametrize(
    ("layers", "line"),
    [
        (
            lambda: [keras.layers.Conv1D(2, 3), keras.layers.Flatten()],
            "on a CPU, several models with a Conv1D at once are slower than one",
        ),
        (lambda: [keras.layers.GRU(2)], "several models with a GRU at once are slower"),
        (
            lambda: [keras.layers.Lambda(lambda x: x), keras.layers.Flatten()],
            "the model cannot be fused: it uses a lambda",
        ),
    ],
)
def test_models_that_are_refused(layers: Any, line: str, make: Listed) -> None:
    def model(hp: Any) -> keras.Model:
        return small(hp, layers=[keras.layers.Reshape((4, 1)), *layers()])

    tuner = make(VALUES[:1], model=model, fused=2)
    tuner.search(**FIT, epochs=1)
    assert line in make.lines[0]
    assert len(events(tuner, "0000")) == len(set(events(tuner, "0000")))  # begun once
    assert tuner.oracle.trials["0000"].status == "COMPLETED"


def test_other_backends_and_tuners_are_refused(
    make: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner = make(VALUES[:1], fused=2)
    own = OwnRun(
        tuner.oracle, small, fused=2, quiet=True, directory=make.folder, project_name="own"
    )
    with monkeypatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: "jax")
        assert "without a run_trial of its own" in str(fused._refusal(own))
    with monkeypatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: "tensorflow")
        reason = fused._refusal(tuner)
    assert reason == "fused trials need the JAX backend; this is tensorflow"


@pytest.mark.parametrize("options", [{"fused": 0}, {"fused": 1.5}, {"fused": 2, "workers": 2}])
def test_option_errors(options: dict[str, Any], make: Listed) -> None:
    with pytest.raises(OptionValueError, match="`fused` must be a number of trials of at least 1"):
        make(VALUES, **options)


@on_jax
@pytest.mark.parametrize("slow", [True, False])
def test_what_is_slower_is_not_fused(
    slow: bool, make: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = FusedSteps._call
    monkeypatch.setattr(
        FusedSteps,
        "_call",
        lambda self, jobs: (
            call(self, jobs)[0],
            {1: 0.001, 2: 0.003 if slow else 0.0019}[len(jobs)],
        ),
    )
    tuner = make(VALUES[:2], fused=2)
    tuner.search(**FIT, epochs=2)
    line = (
        "trials of one structure go on unfused: an epoch of 2 trials at once takes 3.0 ms, one "
        "after the other 2.0 ms"
    )
    assert [seen for seen in make.lines if "unfused" in seen] == ([line] if slow else [])


@on_jax
def test_what_vmap_cannot_do_is_done_one_by_one(
    make: Listed, alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jax

    def broken(*_: Any) -> Any:
        raise NotImplementedError("no batching rule")

    monkeypatch.setattr(jax, "vmap", broken)
    tuner = make(VALUES, fused=4, keep=None)
    tuner.search(**FIT, epochs=EPOCHS)
    assert "unfused: NotImplementedError: no batching rule" in make.lines[0]
    assert_same_search(tuner, alone)


@on_jax
def test_a_trial_that_runs_out_of_memory_goes_on_with_smaller_batches(
    make: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = FusedSteps._call

    def full(self: FusedSteps, jobs: Sequence[Any]) -> Any:
        if jobs[0].batch_size == 16 or len(jobs) > 1:
            raise RuntimeError("RESOURCE_EXHAUSTED")
        return call(self, jobs)

    monkeypatch.setattr(FusedSteps, "_call", full)
    tuner = make(VALUES[:2], fused=2)
    tuner.search(**FIT, epochs=1)
    for name in ("0000", "0001"):
        assert tuner.oracle.trials[name].status == "COMPLETED"
        assert tuner.oracle.notes[name] == ["out of memory; tried again with half the batches"]


# --- turns ----------------------------------------------------------------------------------------


def test_turns() -> None:
    seen: list[Any] = []

    def train() -> str:
        thread.wait_for("first")
        seen.append(thread.lap())
        with pytest.raises(ValueError, match="served badly"):
            thread.wait_for("second")
        thread.wait_for("third")
        return "done"

    thread = TrialThread("trial", train)
    for request in ("first", "second", "third"):
        assert thread.request != request
        thread.resume(ValueError("served badly") if request == "third" else None)
        assert thread.request == request
    thread.resume()
    assert thread.request is None
    assert thread.result() == "done"
    assert 0 <= seen[0] <= thread.seconds
    other = TrialThread("trial", lambda: other.wait_for("never"))
    other.resume()
    other.cancel()
    assert not other.is_alive()
    failing = TrialThread("trial", lambda: 1 // 0)
    failing.resume()
    with pytest.raises(ZeroDivisionError):
        failing.result()
