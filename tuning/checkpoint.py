"""The state of a training between two epochs, as a file that is whole or not there."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from zoo.errors import RunError

STATE = "state.safetensors"
BEST = "best.safetensors"
# Keras turns its sign at the end of a callback's first epoch.
DERIVED = ("min_delta",)
PLAIN = (bool, int, float, type(None))  # texts, such as a log folder, are no state


@dataclass
class TrainingState:
    """What a training needs to go on as if it had never stopped.

    Attributes:
        epoch: Epochs done.
        arrays: All variables, by what they belong to.
        history: Metric -> value after each of this trial's own epochs.
        best: Best objective so far; None before the first epoch.
        execution: Number of this training, where a trial trains several times.
        results: Best metrics of the trial's earlier trainings.
        attempt: How often the trial was begun anew because it failed.
        stopped: The training ended before its last epoch.
        ended_early: It did so by itself, through a callback of the user's.
        callbacks: Per callback, its plain attributes.
        halvings: How often the batch size was halved, because memory ran out.
    """

    epoch: int = 0
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    best: float | None = None
    execution: int = 0
    results: list[Any] = field(default_factory=list)
    attempt: int = 0
    stopped: bool = False
    ended_early: bool = False
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    halvings: int = 0

    def write(self, path: Path) -> None:
        """Writes the state; a crash leaves the file that was there before."""
        about = {name: value for name, value in vars(self).items() if name != "arrays"}
        arrays = {name: np.asarray(array, order="C") for name, array in self.arrays.items()}
        with _replacing(path) as partial:
            save_file(arrays, partial, metadata={"state": json.dumps(about)})

    @classmethod
    def read(cls, path: Path) -> TrainingState | None:
        """Returns the state in a file, or None if there is none or it is damaged."""
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads(file.metadata()["state"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None
        return cls(arrays=arrays, **about)


def variables(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """Yields name and variable of all that a training changes, the optimizer's included."""
    for index, variable in enumerate(model.weights):
        yield f"weights/{index}", variable
    for index, layer in enumerate(model._flatten_layers()):
        for number, generator in enumerate(layer._seed_generators):
            yield f"seeds/{index}/{number}", generator.state
    for index, variable in enumerate(model.optimizer.variables):
        yield f"optimizer/{index}", variable


def read_arrays(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns copies of all that a training changes."""
    return {name: _numpy(variable) for name, variable in variables(model)}


def _is_variable(name: str) -> bool:
    return name.startswith(("weights/", "optimizer/"))


def load_arrays(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Sets all that a training changes; seeds that the model does not have are left out.

    Raises:
        RunError: The arrays are those of another model.
    """
    known = dict(variables(model))
    missing = [name for name in known if name not in arrays and _is_variable(name)]
    unexpected = [name for name in arrays if name not in known and _is_variable(name)]
    if missing or unexpected:
        raise RunError(
            "A trial goes on only with the model it began with; its saved state has "
            f"{len(missing)} variables too few and {len(unexpected)} too many. Did the model or "
            "the optimizer change? Pass resume=False or overwrite=True to start again."
        )
    for name, array in arrays.items():
        if name in known:
            known[name].assign(array)


def write_weights(model: keras.Model, path: Path) -> None:
    """Writes the weights of a model, atomically."""
    arrays = {str(i): np.asarray(_numpy(v), order="C") for i, v in enumerate(model.weights)}
    with _replacing(path) as partial:
        save_file(arrays, partial)


def load_weights(model: keras.Model, path: Path) -> None:
    """Sets the weights of a model to those that `write_weights` wrote.

    Raises:
        RunError: The file is missing, damaged or of another model.
    """
    if not path.exists():
        raise RunError(
            f"The weights are gone: no {path}. Only those of the best trials are kept; see `keep`."
        )
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = [file.get_tensor(str(i)) for i in range(len(file.keys()))]
    except (SafetensorError, OSError) as error:
        raise RunError(f"The weights in {path} are damaged ({error}).") from error
    if [a.shape for a in arrays] != [tuple(v.shape) for v in model.weights]:
        raise RunError(f"The weights in {path} are those of another model.")
    for variable, array in zip(model.weights, arrays, strict=True):
        variable.assign(array)


def write_callbacks(callbacks: Sequence[keras.callbacks.Callback], state: TrainingState) -> None:
    """Notes the callbacks' plain attributes and best weights in a state."""
    state.callbacks = [_plain_attributes(callback) for callback in callbacks]
    for index, callback in enumerate(callbacks):
        for number, array in enumerate(getattr(callback, "best_weights", None) or ()):
            state.arrays[f"callbacks/{index}/{number}"] = np.asarray(array)


def load_callbacks(callbacks: Sequence[keras.callbacks.Callback], state: TrainingState) -> None:
    """Sets the callbacks to what they were when the state was taken."""
    for index, (callback, attributes) in enumerate(zip(callbacks, state.callbacks, strict=False)):
        vars(callback).update(attributes)
        names = [name for name in state.arrays if name.startswith(f"callbacks/{index}/")]
        if names:
            order = sorted(names, key=lambda name: int(name.rsplit("/", 1)[1]))
            callback.best_weights = [state.arrays[name] for name in order]


def _plain_attributes(callback: keras.callbacks.Callback) -> dict[str, Any]:
    state = {}
    for name, value in vars(callback).items():
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, PLAIN) and name not in DERIVED:
            state[name] = value
    return state


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yields the name to write to. Without fsync: after a power cut the trial begins anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    yield partial
    partial.replace(path)


def _numpy(variable: Any) -> np.ndarray:
    array: np.ndarray = np.array(keras.ops.convert_to_numpy(variable))
    return array
