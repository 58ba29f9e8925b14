"""Trials in several processes of one machine.

This process owns the oracle and the journal; workers train. A trial given to a worker is a lease:
the worker says every second that it lives and after each epoch what came out. When it dies or
falls silent, another takes its place, and the trial goes on from its last epoch.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import keras
import keras_tuner
from keras_tuner.errors import FatalValueError

from tuning.worker import Payload
from zoo.errors import OptionValueError, RunError

if TYPE_CHECKING:
    from tuning.tuner import EngineTuner

LEASE_S = 120.0  # without a sign of life
MOST_LOSSES = 5  # of workers in the same epoch of a trial
MOST_STARTS = 3  # of workers that die before they are ready, one after another
OOM_EVENTS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


def search_with_workers(tuner: EngineTuner, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Runs the trials of a tuner in `tuner.workers` processes.

    Raises:
        OptionValueError: The tuner, its model or its data cannot be sent to another process.
        RunError: No worker could be started.
    """
    _check_tuner(tuner)
    folder = Path(tempfile.mkdtemp(prefix="tuning-workers-"))
    try:
        payload = _payload(tuner, args, kwargs, folder)
        with _pool(tuner.workers, payload, Path(tuner.project_dir)) as pool:
            _Dispatcher(tuner, pool).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Worker:
    """A worker process.

    Attributes:
        number: From 0; which cores it runs on.
        process: The process.
        connection: Pipe to it.
        trial: The trial it runs.
        ready: Whether it has imported all it needs.
        seen: When it last gave a sign of life.
    """

    number: int
    process: subprocess.Popen[bytes]
    connection: Connection
    trial: Any = None
    ready: bool = False
    seen: float = field(default_factory=monotonic)

    def kill(self) -> None:
        """Ends the process at once."""
        self.process.kill()
        self.process.wait()
        self.connection.close()

    def death(self) -> str:
        """Returns what is known of how the process ended."""
        code = self.process.wait()
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit status {code}"


class Pool:
    """The worker processes of a search.

    Args:
        size: Number of processes.
        payload: What they need, in a file.
        project: Folder of the search, where their error output is kept.
    """

    def __init__(self, size: int, payload: Path, project: Path) -> None:
        self._size = size
        self._payload = payload
        self._project = project
        self.workers = [self._start(number) for number in range(size)]

    def replace(self, worker: Worker) -> None:
        """Starts another worker in the place of one that ended."""
        worker.connection.close()
        self.workers[worker.number] = self._start(worker.number)

    def log(self, worker: Worker) -> Path:
        """Returns the file of a worker's error output."""
        return self._project / f"worker_{worker.number}.log"

    def _start(self, number: int) -> Worker:
        mine, its = Pipe()
        command = [sys.executable, "-m", "tuning.worker", str(its.fileno()), str(self._payload)]
        with (self._project / f"worker_{number}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                pass_fds=[its.fileno()],
                env=_environment(number, self._size),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process
            )
        its.close()
        return Worker(number, process, mine)


class _Dispatcher:
    """Gives trials to workers and takes in what they report."""

    def __init__(self, tuner: EngineTuner, pool: Pool) -> None:
        self._tuner = tuner
        self._oracle = tuner.oracle
        self._pool = pool
        self._undeclared: str | None = None  # the last trial, until its space is known
        self._finished = False
        self._losses: dict[str, int] = {}
        self._failed_starts = 0
        self._kills = _oom_kills()

    def run(self) -> None:
        """Runs until there is no trial any more, or the time is up."""
        while True:
            self._hand_out()
            busy = [worker for worker in self._pool.workers if worker.trial is not None]
            if not busy and (self._finished or self._tuner.out_of_time()):
                break
            self._listen()
        if self._oracle.stop_reason:
            self._tuner.progress.line(f"stopped: {self._oracle.stop_reason}")

    def _hand_out(self) -> None:
        for worker in self._pool.workers:
            if self._undeclared or self._finished or self._tuner.out_of_time():
                return
            if not worker.ready or worker.trial is not None:
                continue
            trial = self._oracle.create_trial(self._tuner.tuner_id)
            if trial.status == "STOPPED":
                self._finished = not self._oracle.ongoing_trials
                return
            if trial.status != "RUNNING":
                return
            self._tuner.trial_began(trial)
            worker.trial = trial
            # The next suggestion must not depend on when this trial tells of its space.
            declares_all = getattr(self._tuner.hypermodel, "declares_all", False)
            self._undeclared = None if declares_all else trial.trial_id
            try:
                worker.connection.send(self._tuner.task(trial))
            except OSError:
                self._lost(worker)

    def _listen(self) -> None:
        connections = {worker.connection: worker for worker in self._pool.workers}
        for connection in wait(list(connections), timeout=1.0):
            worker = connections[connection]  # type: ignore[index]
            try:
                kind, *content = worker.connection.recv()
            except (EOFError, OSError):
                self._lost(worker)
                continue
            worker.seen = monotonic()
            getattr(self, f"_on_{kind}")(worker, *content)
        for worker in self._pool.workers:
            if monotonic() - worker.seen > LEASE_S:
                worker.process.kill()
                self._lost(worker)

    def _on_beat(self, worker: Worker) -> None:
        """Its time was noted."""

    def _on_ready(self, worker: Worker) -> None:
        worker.ready = True
        self._failed_starts = 0

    def _on_declare(self, worker: Worker, config: Mapping[str, Any]) -> None:
        hp = keras_tuner.HyperParameters.from_config(dict(config))
        self._oracle.declare(worker.trial.trial_id, hp)
        worker.trial.hyperparameters = hp
        self._space_is_known(worker.trial)

    def _space_is_known(self, trial: Any) -> None:
        """Lets further trials be handed out, if it was this one that they waited for."""
        if trial.trial_id == self._undeclared:
            self._undeclared = None

    def _on_epoch(
        self, worker: Worker, epoch: int, logs: Mapping[str, float], seconds: float
    ) -> None:
        self._losses.pop(worker.trial.trial_id, None)
        reason = self._tuner.epoch_ended(worker.trial, epoch, logs, seconds)
        try:
            worker.connection.send(reason)
        except OSError:
            self._lost(worker)

    def _on_rewind(self, worker: Worker, epochs: int) -> None:
        self._oracle.rewind(worker.trial.trial_id, epochs)

    def _on_note(self, worker: Worker, text: str) -> None:
        self._tuner.notes.setdefault(worker.trial.trial_id, []).append(text)

    def _on_end(
        self,
        worker: Worker,
        outcome: Mapping[str, Any],
        config: Mapping[str, Any],
        seconds: float,
        counts: tuple[int, int, Mapping[str, int]],
    ) -> None:
        trial, worker.trial = worker.trial, None
        self._space_is_known(trial)
        self._tuner.worker_counts[worker.number] = counts
        if outcome["status"] == "FATAL":
            raise FatalValueError(outcome["message"])
        trial.hyperparameters = keras_tuner.HyperParameters.from_config(dict(config))
        if outcome["status"] == "COMPLETED":
            self._tuner.trial_succeeded(trial, outcome["metrics"], outcome["step"])
        else:
            trial.status, trial.message = outcome["status"], outcome["message"]
        self._tuner.trial_ended(trial, seconds, outcome["reason"])

    def _lost(self, worker: Worker) -> None:
        """Replaces a dead worker; its trial is handed out again, or fails if it kills workers."""
        death = worker.death()
        kills, self._kills = self._kills, _oom_kills()
        out_of_memory = self._kills > kills
        trial, was_ready = worker.trial, worker.ready
        text = self._pool.log(worker).read_text(errors="replace").strip()
        self._pool.replace(worker)
        if trial is not None:
            self._space_is_known(trial)  # or will be: it is the next to be handed out
            self._give_back(trial, death, out_of_memory=out_of_memory)
        elif not was_ready:
            self._failed_starts += 1
            if self._failed_starts >= MOST_STARTS:
                last = text.splitlines()[-1] if text else "no output"
                raise RunError(f"The workers of the search do not start ({death}): {last}")

    def _give_back(self, trial: Any, death: str, *, out_of_memory: bool) -> None:
        name = trial.trial_id
        self._losses[name] = self._losses.get(name, 0) + 1
        if not out_of_memory and self._losses[name] < MOST_LOSSES:
            self._oracle.interrupted.insert(0, name)
            self._tuner.progress.line(f"trial {int(name) + 1}: its worker was {death}; it goes on")
            return
        times = "" if out_of_memory else f" {self._losses[name]} times in one epoch"
        why = "out of memory" if out_of_memory else death
        trial.status = "FAILED"
        trial.message = f"its worker died{times}: {why}"
        self._tuner.trial_ended(trial, self._oracle.seconds[name], trial.message)


@contextmanager
def _pool(size: int, payload: Path, project: Path) -> Iterator[Pool]:
    pool = Pool(size, payload, project)
    try:
        yield pool
    finally:
        for worker in pool.workers:
            worker.kill()
            pool.log(worker).unlink(missing_ok=True)


def _payload(
    tuner: EngineTuner, args: Sequence[Any], kwargs: Mapping[str, Any], folder: Path
) -> Path:
    runner = tuner.runner
    payload = Payload(
        hypermodel=tuner.hypermodel,
        overrides={name: getattr(tuner, name) for name in ("optimizer", "loss", "metrics")},
        runner={
            name: getattr(runner, name)
            for name in (
                "objective",
                "project",
                "seed",
                "executions",
                "batch",
                "max_model_size",
                "plain_fit",
            )
        },
        engine=tuner.engine_options,
        policy=runner.policy.name,
        floatx=keras.config.floatx(),
        fit=(args, kwargs),
    )
    try:
        return payload.write(folder)
    except Exception as error:
        raise OptionValueError(
            "With `workers` above 1 the model and the data are sent to other processes, and one of "
            f"them cannot be ({type(error).__name__}: {error}). Pass arrays, or a function "
            "data(batch_size, epoch_seed) that makes the data set, instead of a tf.data.Dataset."
        ) from error


def _check_tuner(tuner: EngineTuner) -> None:
    if tuner.has_own_run_trial() or tuner._has_hooks():
        raise OptionValueError(
            "`workers` must be 1 for a tuner with a run_trial or epoch hooks of its own, which run "
            f"in this process; got workers={tuner.workers} with {type(tuner).__name__}. Put the "
            "code into HyperModel.fit or a callback."
        )
    if tuner.distribution_strategy is not None:
        raise OptionValueError(
            "`workers` must be 1 with a distribution_strategy, which uses all devices itself; "
            f"got workers={tuner.workers}."
        )
    if os.name != "posix":
        raise OptionValueError(f"`workers` must be 1 on this system; got {tuner.workers}.")


def _environment(number: int, size: int) -> dict[str, str]:
    """Returns the environment of a worker: its share of the cores, and a GPU of its own."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    mine = cores[number % len(cores) :: size] if len(cores) >= size else []
    threads = str(max(1, len(mine)))
    environment = dict(os.environ)
    environment |= {
        "KERAS_BACKEND": keras.backend.backend(),
        "OMP_NUM_THREADS": threads,
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path),
        "TUNING_CORES": ",".join(map(str, mine)),
    }
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if len(devices) >= size > 1 and devices[0]:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices[number::size])
    return environment


def _oom_kills() -> int:
    """Returns how many processes the system has killed because memory ran out; 0 if unknown."""
    for path in OOM_EVENTS:
        if path.exists():
            for line in path.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0
