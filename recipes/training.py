"""Training that an interruption costs one epoch at most, and that a seed repeats."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from recipes.data import ImageBatches, ImageData, Split
from recipes.folder import RunFolder
from tuning.accelerator import jit_compile
from tuning.augmentation import augmented, default_strength
from tuning.optimizers import make_optimizer
from tuning.progress import TrainingProgress
from zoo.errors import DataError

History = dict[str, list[float]]

LOSSES = {
    "classification": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "multi-label": lambda: keras.losses.BinaryCrossentropy(from_logits=True),
    "regression": lambda: keras.losses.MeanSquaredError(),
}
METRICS = {
    "classification": ("accuracy",),
    "multi-label": ("binary_accuracy",),
    "regression": ("mean_absolute_error",),
}
MONITORS = {  # what the best epoch is judged by
    "classification": ("val_accuracy", "max"),
    "multi-label": ("val_loss", "min"),
    "regression": ("val_loss", "min"),
}


def metrics_of(task: str) -> list[Any]:
    """Keras metrics of a task; labels are counted right at logit 0, that is probability 0.5."""
    if task == "multi-label":
        return [keras.metrics.BinaryAccuracy(threshold=0.0)]
    return list(METRICS[task])


def outputs_of(data: ImageData) -> int:
    """Number of outputs a model of this data has."""
    return len(data.class_names)


@dataclass(frozen=True, kw_only=True)
class TargetScale:
    """Regression trains on standardised targets; the saved model answers in the data's units."""

    mean: np.ndarray[Any, np.dtype[Any]]
    std: np.ndarray[Any, np.dtype[Any]]

    @classmethod
    def of(cls, targets: np.ndarray[Any, np.dtype[Any]]) -> TargetScale:
        """Takes the scale of training targets (N, K)."""
        std = targets.std(axis=0)
        return cls(mean=targets.mean(axis=0), std=np.where(std > 0, std, 1))

    def attach(self, model: keras.Model) -> keras.Model:
        """Ends a model with the inverse scaling: (B, K) standardised -> (B, K) in units."""
        scaled = keras.layers.Rescaling(
            self.std.tolist(), self.mean.tolist(), dtype="float32", name="units"
        )(model.output)
        return keras.Model(model.input, scaled, name=model.name)


def training_targets(split: Split) -> tuple[Split, TargetScale | None]:
    """Standardises a regression's targets by its training side; other tasks stay as they are."""
    if split.train.task != "regression":
        return split, None
    from dataclasses import replace

    scale = TargetScale.of(split.train.targets)
    sides = {
        side: replace(data, targets=((data.targets - scale.mean) / scale.std).astype(np.float32))
        for side, data in (
            ("train", split.train),
            ("validation", split.validation),
            ("test", split.test),
        )
    }
    return Split(**sides), scale


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One training."""

    name: str  # of its files in the run folder
    values: Mapping[str, Any]  # hyperparameters, as tuning.make_optimizer reads them
    epochs: int
    seed: int
    quiet: bool = False
    limit_s: float | None = None  # seconds after which no further epoch begins
    shift: float = 0.0  # largest random shift of training images, share of the side
    augment: str = "none"  # policy of tuning.augmented, on images in 0 .. 255
    augment_strength: float | None = None  # None: that of `values`, else the policy's usual one

    @property
    def strength(self) -> float:
        """How strongly training images are augmented: 0 to 1."""
        if self.augment_strength is not None:
            return self.augment_strength
        return float(self.values.get("augmentation_strength", default_strength(self.augment)))


@dataclass(kw_only=True)
class Trained:
    """What a training gave, its best epoch's weights in the model."""

    history: History
    seconds: list[float] = field(
        default_factory=list
    )  # at the end of each epoch, of training alone
    best_epoch: int = 0  # 0-based


class _Keeper(keras.callbacks.Callback):
    """Writes a checkpoint after every epoch, whole or not at all, and remembers the best epoch."""

    def __init__(self, run: RunFolder, plan: Plan, monitor: tuple[str, str], done: Trained) -> None:
        super().__init__()
        self.run, self.plan, self.done = run, plan, done
        self.metric, direction = monitor
        self.sign = 1 if direction == "max" else -1
        self.began = 0.0
        self.before = done.seconds[-1] if done.seconds else 0.0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002 - Keras' own
        if not self.began:
            self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        values = {name: float(value) for name, value in (logs or {}).items()}
        if not np.isfinite(values["loss"]):
            raise DataError(
                f"Training `{self.plan.name}` diverged in epoch {epoch + 1}: the loss is "
                f"{values['loss']}. Lower the learning rate "
                f"({self.plan.values.get('learning_rate')}), or search with --tune."
            )
        for name, value in values.items():
            self.done.history.setdefault(name, []).append(value)
        self.done.seconds.append(self.before + time.perf_counter() - self.began)
        scores = [self.sign * value for value in self.done.history[self.metric]]
        self.done.best_epoch = int(np.argmax(scores))
        self._save(epoch)
        if self.plan.limit_s is not None and self.done.seconds[-1] >= self.plan.limit_s:
            self.model.stop_training = True

    def _save(self, epoch: int) -> None:
        # the state names its weights, so that a crash between the two files is harmless
        latest = f"training/{self.plan.name}-{epoch}.weights.h5"
        best = f"training/{self.plan.name}-best-{self.done.best_epoch}.weights.h5"
        for name, due in ((latest, True), (best, self.done.best_epoch == epoch)):
            if due:
                with self.run.write(name) as path:
                    self.model.save_weights(path)
        self.run.write_json(
            f"training/{self.plan.name}.json",
            {
                "epoch": epoch,
                "latest": latest,
                "best": best,
                "history": self.done.history,
                "seconds": self.done.seconds,
                "seeds": [np.asarray(v.numpy()).tolist() for v in _seed_states(self.model)],
            },
        )
        for path in (self.run.path / "training").glob(f"{self.plan.name}-*.weights.h5"):
            if path.name not in (latest.rpartition("/")[2], best.rpartition("/")[2]):
                path.unlink()


def train(
    model: keras.Model,
    split: Split,
    plan: Plan,
    run: RunFolder,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Trained:
    """Trains a model, from where an interrupted run of the same plan stopped.

    The model ends with the weights of its best validation epoch. Augmentation is part of a copy
    that is trained in its place, so that a file of the model opens without this package.

    Raises:
        DataError: The loss is no longer finite.
        RunError: The run folder cannot be written.
    """
    whole, model = model, augmented(model, plan.strength, plan.augment)
    task = split.train.task
    batch_size = int(plan.values.get("batch_size", 32))
    steps = -(-len(split.train) // batch_size)
    model.compile(
        optimizer=make_optimizer(plan.values, total_steps=steps * plan.epochs),
        loss=LOSSES[task](),
        metrics=metrics_of(task),
        jit_compile=jit_compile(),
    )
    done, epoch = _restore(model, plan, run)
    if epoch < plan.epochs and not _out_of_time(plan, done):
        batches = ImageBatches(
            split.train,
            batch_size,
            shuffle=True,
            seed=plan.seed,
            start_epoch=epoch,
            shift=plan.shift,
        )
        with TrainingProgress(quiet=plan.quiet) as progress:
            model.fit(
                batches,
                validation_data=ImageBatches(split.validation, 128, shuffle=False),
                epochs=plan.epochs,
                initial_epoch=epoch,
                shuffle=False,
                verbose=0,
                callbacks=[_Keeper(run, plan, MONITORS[task], done), progress, *callbacks],
            )
    state = run.read_json(f"training/{plan.name}.json")
    model.load_weights(run.path / state["best"])
    if whole is not model:
        whole.set_weights(model.get_weights())
    return done


def _seed_states(model: keras.Model) -> list[Any]:
    """The states of dropout's and augmentation's generators, which weight files leave out."""
    return [v for v in model.variables if v.path.endswith("seed_generator_state")]


def _out_of_time(plan: Plan, done: Trained) -> bool:
    return plan.limit_s is not None and bool(done.seconds) and done.seconds[-1] >= plan.limit_s


def _restore(model: keras.Model, plan: Plan, run: RunFolder) -> tuple[Trained, int]:
    state = run.read_json(f"training/{plan.name}.json")
    if state is None:
        return Trained(history={}), 0
    model.optimizer.build(model.trainable_variables)
    model.load_weights(run.path / state["latest"])
    for variable, value in zip(_seed_states(model), state["seeds"], strict=True):
        variable.assign(value)
    done = Trained(history=state["history"], seconds=state["seconds"])
    best = state["best"].rpartition("-")[2].partition(".")[0]
    done.best_epoch = int(best)
    return done, int(state["epoch"]) + 1
