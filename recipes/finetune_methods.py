"""Ways to make a pretrained network one's own, each given the same seconds.

`probe` learns a new head on features computed once; `full` all weights at once; `staged` the head,
the last two stages, then everything, at rates that fall towards the stem; `lora` low-rank factors
beside frozen kernels, and the head; `scratch` the same network from random weights. Batch norms
keep their pretrained statistics but for `scratch`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import keras
import numpy as np

from recipes.data import ImageBatches, Split
from recipes.finetune_report import Arm
from recipes.folder import RunFolder
from recipes.training import LOSSES, METRICS, MONITORS, History, metrics_of
from tuning.accelerator import jit_compile
from tuning.optimizers import make_optimizer
from tuning.progress import TrainingProgress
from zoo.errors import DataError
from zoo.finetune import Stage, add_lora, freeze, layer_decay, merge_lora, save_adapter, unfreeze
from zoo.finetune import stages as staged
from zoo.weights.loading import write_tensors

BATCH_SIZE = 32
RATES = {"full": 5e-4, "lora": 2e-3, "scratch": 2e-3}  # AdamW's
PARTIAL = Stage(name="partial", parts=2, epochs=2, learning_rate=5e-4)
WHOLE = Stage(name="whole", parts="", epochs=3, learning_rate=2e-4)


@dataclass(kw_only=True)
class Job:
    """One training of one method: what it is given, and what came of it."""

    name: str  # of the method
    seed: int
    split: Split
    seconds: float  # that it may take
    head_epochs: int
    decay: float = 1.0  # of the learning rate from block to block; `staged` alone
    rank: int = 8  # of the factors; `lora` alone
    shift: float = 0.0
    quiet: bool = True
    history: History = field(default_factory=dict)
    ends: list[float] = field(default_factory=list)  # seconds of training at each epoch's end
    trainable: int = 0  # parameters, of the last phase

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - (self.ends[-1] if self.ends else 0.0)

    def add(self, history: Mapping[str, list[float]], ends: list[float]) -> None:
        """Appends what one phase gave."""
        before = self.ends[-1] if self.ends else 0.0
        self.ends += [before + end for end in ends]
        for name, values in history.items():
            self.history.setdefault(name, []).extend(values)


def train_method(model: keras.Model, job: Job, folder: RunFolder) -> tuple[keras.Model, Arm]:
    """Trains a model by the job's method and keeps what there is to keep of it.

    Returns:
        A plain model, without factors, and its arm but for the scores on test data.
    """
    METHODS[job.name](model, job)
    saved = _save(model, job, folder)
    if job.name == "lora":
        model = merge_lora(model)
    task = job.split.train.task
    values = job.history[f"val_{METRICS[task][0]}"]
    return model, Arm(
        name=job.name,
        seed=job.seed,
        history=job.history,
        seconds=job.ends,
        validation=max(values) if task != "regression" else -min(values),
        test={},
        epochs=len(job.ends),
        trainable=job.trainable,
        saved_bytes=saved,
    )


def train_head(model: keras.Model, split: Split, epochs: int) -> tuple[History, list[float]]:
    """Trains the head on the frozen trunk's features; the trunk runs once over the images.

    Returns:
        The history, and the seconds since the beginning at the end of each epoch.
    """
    began = time.perf_counter()
    head = model.get_layer("head")
    trunk = keras.Model(model.input, head.input)
    inputs = keras.Input(head.input.shape[1:])
    top = keras.Model(inputs, head(inputs))
    task = split.train.task
    steps = -(-len(split.train) // BATCH_SIZE)
    values = {"learning_rate": 1e-3, "weight_decay": 1e-2}
    top.compile(
        make_optimizer(values, total_steps=steps * epochs),
        loss=LOSSES[task](),
        metrics=metrics_of(task),
        jit_compile=jit_compile(),
    )
    x, x_validation = (
        np.asarray(trunk.predict(ImageBatches(side, 64, shuffle=False), verbose=0))
        for side in (split.train, split.validation)
    )
    ends: list[float] = []
    fitted = top.fit(
        x,
        split.train.targets,
        validation_data=(x_validation, split.validation.targets),
        batch_size=BATCH_SIZE,
        epochs=epochs,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda *_: ends.append(time.perf_counter() - began)
            )
        ],
    )
    history = {name: [float(v) for v in column] for name, column in fitted.history.items()}
    return history, ends


def epoch_seconds(model: keras.Model, split: Split) -> tuple[float, float]:
    """Times single steps of a model and scales them up to an epoch with its validation.

    Returns:
        Seconds of an epoch, and those that the first steps take longer, to be compiled. The model's
        weights are changed.
    """
    task = split.train.task
    model.compile("sgd", loss=LOSSES[task](), metrics=metrics_of(task), jit_compile=jit_compile())
    x, y = ImageBatches(split.train, BATCH_SIZE, shuffle=False)[0]
    epoch = first = 0.0
    for step, side in (
        (model.train_on_batch, split.train),
        (model.test_on_batch, split.validation),
    ):
        lengths = _step_lengths(step, x, y)
        step_s = median(lengths[3:])  # the first ones trace the graph and warm up
        epoch += step_s * -(-len(side) // BATCH_SIZE)
        first += lengths[0] - step_s
    return epoch, first


def _step_lengths(step: Callable[..., Any], x: Any, y: Any) -> list[float]:
    lengths = []
    for _ in range(8):
        began = time.perf_counter()
        step(x, y)
        lengths.append(time.perf_counter() - began)
    return lengths


class BestInTime(keras.callbacks.Callback):
    """Ends a training when its time is up, inside an epoch too, with its best epoch's weights."""

    def __init__(self, monitor: tuple[str, str], limit_s: float) -> None:
        super().__init__()
        self.metric, direction = monitor
        self.sign = 1 if direction == "max" else -1
        self.limit_s = limit_s
        self.ends: list[float] = []
        self.score = -np.inf
        self.best: list[Any] = []

    def on_train_begin(self, logs: object = None) -> None:  # noqa: ARG002 - Keras' own
        """Starts the clock."""
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        """Looks at the clock."""
        if time.perf_counter() - self.began >= self.limit_s:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Keeps the weights if they are the best yet.

        Raises:
            DataError: The loss is no longer finite.
        """
        values = dict(logs or {})
        if not np.isfinite(values["loss"]):
            raise DataError(
                f"Training diverged in epoch {epoch + 1}: the loss is {values['loss']}."
            )
        self.ends.append(time.perf_counter() - self.began)
        score = self.sign * float(values[self.metric])
        if score > self.score or not self.best:
            self.score, self.best = score, self.model.get_weights()

    def on_train_end(self, logs: object = None) -> None:  # noqa: ARG002
        """Puts the best weights back."""
        self.model.set_weights(self.best)


def _fit(
    model: keras.Model, job: Job, rate: float, *, share: float = 1.0, decay: float = 1.0
) -> None:
    """Trains what is not frozen for a share of the time that is left.

    As many epochs are planned as fit, so that the learning rate ends where its schedule does.
    """
    split, seconds = job.split, max(job.left, 0.0) * share
    task = split.train.task
    before = model.get_weights()
    epoch_s, first_s = epoch_seconds(model, split)
    model.set_weights(before)
    epochs = max(1, int((seconds - first_s) / epoch_s))
    steps = -(-len(split.train) // BATCH_SIZE)
    values = {"learning_rate": rate, "weight_decay": 1e-2, "warmup": 0.05}
    optimizer = make_optimizer(values, total_steps=steps * epochs)
    model.compile(
        layer_decay(model, optimizer, decay) if decay < 1 else optimizer,
        loss=LOSSES[task](),
        metrics=metrics_of(task),
        jit_compile=jit_compile(),
    )
    keeper = BestInTime(MONITORS[task], seconds)
    with TrainingProgress(quiet=job.quiet) as progress:
        fitted = model.fit(
            ImageBatches(split.train, BATCH_SIZE, shuffle=True, seed=job.seed, shift=job.shift),
            validation_data=ImageBatches(split.validation, 128, shuffle=False),
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[keeper, progress],
        )
    history = {name: [float(v) for v in column] for name, column in fitted.history.items()}
    job.trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    job.add(history, keeper.ends)


def _probe(model: keras.Model, job: Job) -> None:
    job.trainable = freeze(model, r"^(?!head(_dist)?$)").trainable
    job.add(*train_head(model, job.split, job.head_epochs))


def _full(model: keras.Model, job: Job) -> None:
    freeze(model, "")
    unfreeze(model)  # all but the batch norms
    _fit(model, job, RATES["full"])


def _staged(model: keras.Model, job: Job) -> None:
    job.add(*train_head(model, job.split, job.head_epochs))
    for stage, _ in staged(model, (PARTIAL, WHOLE)):
        rest = WHOLE.epochs if stage is PARTIAL else 0
        share = stage.epochs / (stage.epochs + rest)
        _fit(model, job, stage.learning_rate, share=share, decay=job.decay)


def _lora(model: keras.Model, job: Job) -> None:
    add_lora(model, rank=job.rank)
    _fit(model, job, RATES["lora"])


def _scratch(model: keras.Model, job: Job) -> None:
    _fit(model, job, RATES["scratch"])


METHODS: Mapping[str, Callable[[keras.Model, Job], None]] = {
    "probe": _probe,
    "full": _full,
    "staged": _staged,
    "lora": _lora,
    "scratch": _scratch,
}


def _save(model: keras.Model, job: Job, folder: RunFolder) -> int:
    """Writes the least that holds what a method learned, and returns its bytes.

    Of a whole network the weights are counted: the recipe writes them anyway.
    """
    name = f"arms/{job.name}-{job.seed}"
    if job.name == "lora":
        with folder.write(f"{name}.safetensors") as path:
            save_adapter(model, path)
    elif job.name == "probe":
        head = model.get_layer("head")
        tensors = {v.path: keras.ops.convert_to_numpy(v) for v in head.weights}
        with folder.write(f"{name}.safetensors") as path:
            write_tensors(path, tensors)
    else:
        return sum(v.nbytes for v in map(keras.ops.convert_to_numpy, model.weights))
    return (folder.path / f"{name}.safetensors").stat().st_size
