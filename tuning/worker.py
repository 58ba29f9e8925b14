"""A process that runs trials for a search in another one: `python -m tuning.worker FD PAYLOAD`.

It is started by `tuning.workers`, reads what to run from the pipe FD, and ends with its parent.
"""

from __future__ import annotations

import ctypes
import io
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np

if TYPE_CHECKING:
    from tuning.runner import TrialRunner

HEARTBEAT_S = 1.0
PR_SET_PDEATHSIG = 1  # Linux: signal this process when its parent dies
SHARED_BYTES = 1 << 16  # arrays from this size on are shared through files


@dataclass(frozen=True, kw_only=True)
class Payload:
    """All that a worker needs to run trials of a search.

    Attributes:
        hypermodel: Builds and trains models.
        overrides: KerasTuner's optimizer, loss and metrics that replace the compiled ones.
        runner: Arguments of `TrialRunner`.
        engine: Arguments of `TrainingEngine`.
        policy: Name of Keras' dtype policy.
        floatx: Keras' default precision.
        fit: Positional and keyword arguments of the HyperModel's `fit`.
    """

    hypermodel: Any
    overrides: Mapping[str, Any]
    runner: Mapping[str, Any]
    engine: Mapping[str, Any]
    policy: str
    floatx: str
    fit: tuple[Sequence[Any], Mapping[str, Any]]

    def write(self, folder: Path) -> Path:
        """Writes the payload, its large arrays as files of their own; returns its path."""
        buffer = io.BytesIO()
        _Pickler(buffer, folder).dump(self)
        path = folder / "payload.pkl"
        path.write_bytes(buffer.getvalue())
        return path

    @staticmethod
    def read(path: Path) -> Payload:
        """Reads a payload; its large arrays are mapped, so that all workers share one copy."""
        with path.open("rb") as file:
            payload: Payload = _Unpickler(file, path.parent).load()
        return payload


class _Pickler(cloudpickle.Pickler):
    def __init__(self, file: Any, folder: Path) -> None:
        super().__init__(file)
        self._folder = folder
        self._names: dict[int, str] = {}
        self._kept: list[Any] = []  # so that no id is used twice

    def persistent_id(self, obj: Any) -> Any:
        if type(obj) is not np.ndarray or obj.dtype.hasobject or obj.nbytes < SHARED_BYTES:
            return None
        if id(obj) not in self._names:
            self._names[id(obj)] = f"{len(self._names)}.npy"
            self._kept.append(obj)
            np.save(self._folder / self._names[id(obj)], obj)
        return self._names[id(obj)]


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, folder: Path) -> None:
        super().__init__(file)
        self._folder = folder
        self._arrays: dict[str, Any] = {}

    def persistent_load(self, pid: Any) -> Any:
        if pid not in self._arrays:  # the same array again keeps its identity
            self._arrays[pid] = np.load(self._folder / pid, mmap_mode="r")
        return self._arrays[pid]


class ModelBuilder:
    """Builds models as a KerasTuner tuner does that has `optimizer`, `loss` and `metrics`.

    Args:
        hypermodel: The HyperModel.
        overrides: What replaces the compiled ones.
    """

    distribution_strategy = None

    def __init__(self, hypermodel: Any, overrides: Mapping[str, Any]) -> None:
        import keras_tuner

        self._tuner = keras_tuner.Tuner
        self.hypermodel = hypermodel
        self.optimizer = overrides["optimizer"]
        self.loss = overrides["loss"]
        self.metrics = overrides["metrics"]

    def __call__(self, hp: Any) -> Any:
        """Returns a compiled model."""
        return self._tuner._build_hypermodel(self, hp)

    def _override_compile_args(self, model: Any) -> None:
        self._tuner._override_compile_args(self, model)

    def _filter_metrics(self, metrics: Any) -> Any:
        return self._tuner._filter_metrics(self, metrics)


class Parent:
    """The search, seen from a worker: hears of the trial that runs, and of the worker's life.

    Args:
        connection: Pipe to it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.stop_reason: str | None = None

    def send(self, kind: str, *content: Any) -> None:
        """Tells the search something; ends this process if there is none any more."""
        try:
            with self._lock:
                self._connection.send((kind, *content))
        except OSError:
            os._exit(1)

    def receive(self) -> Any:
        """Returns the next message of the search."""
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            os._exit(1)

    def beat(self) -> None:
        """Says every second that this process lives."""
        pause = threading.Event()
        while not pause.wait(HEARTBEAT_S):
            self.send("beat")

    def declare(self, hyperparameters: Any) -> None:
        """All hyperparameters of the trial are known."""
        self.send("declare", hyperparameters.get_config())

    def epoch(self, epoch: int, logs: Mapping[str, float], seconds: float) -> str | None:
        """An epoch has ended. Returns why to stop now, or None."""
        self.send("epoch", epoch, dict(logs), seconds)
        reason: str | None = self.receive()
        self.stop_reason = reason or self.stop_reason
        return reason

    def rewind(self, epochs: int) -> None:
        """The state after the epochs that were reported is lost."""
        self.send("rewind", epochs)

    def note(self, text: str) -> None:
        """Something the user should know about the trial."""
        self.send("note", text)


def run(parent: Parent, payload: Payload) -> None:
    """Runs the trials that the search sends, until it sends None."""
    import keras

    from tuning.engine import TrainingEngine
    from tuning.runner import TrialRunner
    from tuning.session import trials

    keras.config.set_floatx(payload.floatx)
    keras.config.set_dtype_policy(payload.policy)
    hypermodel = payload.hypermodel
    runner = TrialRunner(
        build=ModelBuilder(hypermodel, payload.overrides),
        fit=lambda hp, model, *args, **kwargs: hypermodel.fit(hp, model, *args, **kwargs),
        engine=TrainingEngine(**payload.engine),
        **payload.runner,
    )
    parent.send("ready")
    with trials():
        _run_trials(parent, payload, runner)


def _run_trials(parent: Parent, payload: Payload, runner: TrialRunner) -> None:
    import keras_tuner

    while (task := parent.receive()) is not None:
        hp = keras_tuner.HyperParameters.from_config(dict(task.hyperparameters))
        began = monotonic()
        parent.stop_reason = None
        outcome = _outcome(
            lambda task=task, hp=hp: runner.run(  # type: ignore[misc]
                task, parent, *payload.fit, hyperparameters=hp
            ),
            payload.runner["objective"],
        )
        reason = outcome.pop("reason", None) or parent.stop_reason
        compiled = runner.engine.compiled
        counts = (compiled.hits, compiled.misses, dict(compiled.reasons))
        seconds = monotonic() - began
        parent.send("end", outcome | {"reason": reason}, hp.get_config(), seconds, counts)


def _outcome(train: Callable[[], Any], objective: Any) -> dict[str, Any]:
    from keras_tuner.errors import FatalError

    from tuning.runner import failure, score

    try:
        metrics, step = score(train(), objective)
    except FatalError as error:
        return {"status": "FATAL", "message": str(error), "kind": type(error).__name__}
    except Exception as error:  # noqa: BLE001 - whatever fails a trial is its result
        status, message, reason = failure(error)
        return {"status": status, "message": message, "reason": reason}
    plain = {name: float(value) for name, value in metrics.items()}
    return {"status": "COMPLETED", "metrics": plain, "step": step}


def main() -> None:
    """Runs a worker."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:  # it died before that
            sys.exit(1)
    parent = Parent(Connection(int(sys.argv[1])))
    cores = [int(core) for core in os.environ.get("TUNING_CORES", "").split(",") if core]
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    threading.Thread(target=parent.beat, daemon=True).start()
    run(parent, Payload.read(Path(sys.argv[2])))


if __name__ == "__main__":
    main()
