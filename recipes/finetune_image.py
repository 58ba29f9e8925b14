"""Fine-tune a pretrained image model, beside the same network from scratch in the same seconds.

    keras-zoo run finetune-image                         emoji by category, about 10 minutes
    keras-zoo run finetune-image --data photos/ --model resnet50 --weights default --image-size 224

The pretrained network learns in three stages: its head on features computed once, then its last
stages, then all of it, each at a lower rate; batch norms keep their pretrained statistics. The same
network from random weights gets at least as many seconds, so its epochs depend on the machine's
speed; `scratch_epochs` in the config fixes them. Expect a test accuracy of 0.81 against 0.55.
Source of the staged schedule: Howard and Ruder 2018, arXiv:1801.06146, section 3.2.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from statistics import mean, median
from typing import Any

import keras
import numpy as np

import zoo
from recipes import RunResult
from recipes.data import ImageBatches, ImageData, Split, split_data
from recipes.evaluation import baseline, headline, predict, scores
from recipes.exporting import export_model
from recipes.finetune_report import Arm, write_report
from recipes.folder import RunFolder
from recipes.image_job import ImageOptions, describe, in_units, run_in_folder
from recipes.training import (
    LOSSES,
    METRICS,
    History,
    Plan,
    TargetScale,
    metrics_of,
    outputs_of,
    train,
    training_targets,
)
from recipes.versions import versions
from tuning.accelerator import jit_compile
from tuning.optimizers import make_optimizer
from zoo.finetune import freeze, last_stages, unfreeze

NAME = "finetune-image"
ARMS = ("pretrained", "scratch")
BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Options(ImageOptions):
    """Options of the recipe."""

    data: str = "emoji-base"  # the whole set with all skin tones is "emoji"
    model: str = "tf_efficientnet_lite0"
    weights: str | None = "pypi_in1k"
    image_size: int | None = 96
    head_epochs: int = 40  # on features computed once, so they cost next to nothing
    partial_epochs: int = 2  # of the last two stages
    epochs: int = 3  # of the whole network
    scratch_epochs: int | None = None  # None: as many as take the same seconds
    seeds: int = 3  # repetitions

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(head_epochs=1, partial_epochs=1, epochs=1, seeds=1)


OPTIONS = tuple(f.name for f in fields(Options))


def run(options: Options) -> RunResult:
    """Runs the recipe."""
    zoo.model_info(options.model)
    return run_in_folder(NAME, options, _job)


def _shrunk(options: Options) -> Options:
    if not options.smoke:
        return options
    return replace(
        options,
        head_epochs=2,
        partial_epochs=1,
        epochs=1,
        scratch_epochs=1,
        seeds=1,
        image_size=min(options.image_size or 32, 32),
        limit=options.limit or 200,
    )


def _job(options: Options, folder: RunFolder) -> dict[str, Any]:
    options = _shrunk(options)
    began = time.perf_counter()
    data = options.load()
    split = split_data(data, seed=options.seed)
    reference = baseline(split.train, split.test, options.seed)
    scaled, scale = training_targets(split)
    arms = []
    for seed in range(options.seed, options.seed + options.seeds):
        pretrained = _arm(_pretrained, options, scaled, scale, folder, "pretrained", seed)
        epochs = _matching_epochs(options, scaled, folder, pretrained)
        longer = replace(options, epochs=epochs)
        arms += [pretrained, _arm(_scratch, longer, scaled, scale, folder, "scratch", seed)]
    best = max((a for a in arms if a.name == "pretrained"), key=lambda a: a.validation)
    model = in_units(_create(options, data, options.weights), scale)
    model.load_weights(folder.path / _weights(best.name, best.seed))
    outputs = predict(model, split.test)
    export_model(model, data, folder)
    head = headline(data.task)
    means = {
        name: {key: mean(a.test[key] for a in arms if a.name == name) for key in arms[0].test}
        for name in ARMS
    }
    metrics = {
        "recipe": NAME,
        "task": data.task,
        "headline": head,
        "test": means["pretrained"],
        "baseline": {"name": "the same network from scratch", **means["scratch"]},
        "gain": means["pretrained"][head] - means["scratch"][head],
        "classical": reference,
        "arms": [
            {"name": a.name, "seed": a.seed, "epochs": a.epochs, "seconds": a.seconds[-1], **a.test}
            for a in arms
        ],
        "model": {
            "name": options.model,
            "weights": options.weights,
            "params": model.count_params(),
        },
        "exported_seed": best.seed,
        "data": describe(data, split),
        "seed": options.seed,
        "versions": versions(),
    }
    write_report(folder, metrics, split=split, outputs=outputs, arms=arms)
    return metrics | {"seconds": {"total": round(time.perf_counter() - began, 2)}}


def _matching_epochs(options: Options, split: Split, folder: RunFolder, pretrained: Arm) -> int:
    """Epochs from scratch that take at least the seconds of the pretrained arm.

    Measured once and kept, so that a resumed run has the same plan: batch norms in training cost
    more than frozen ones, so the pretrained arm's epochs do not tell.
    """
    if options.scratch_epochs:
        return options.scratch_epochs
    name = f"arms/plan-{pretrained.seed}.json"
    plan = folder.read_json(name)
    if plan is None:
        epoch_s = _epoch_seconds(_create(options, split.train, None), split)
        plan = {"epochs": max(1, math.ceil(pretrained.seconds[-1] / epoch_s)), "epoch_s": epoch_s}
        folder.write_json(name, plan)
    return int(plan["epochs"])


def _epoch_seconds(model: keras.Model, split: Split) -> float:
    """Times single steps of a model and scales them up to an epoch with its validation."""
    task = split.train.task
    model.compile("sgd", loss=LOSSES[task](), metrics=metrics_of(task), jit_compile=jit_compile())
    x, y = ImageBatches(split.train, BATCH_SIZE, shuffle=False)[0]
    steps = ((model.train_on_batch, split.train), (model.test_on_batch, split.validation))
    return sum(_step_seconds(step, x, y) * -(-len(side) // BATCH_SIZE) for step, side in steps)


def _step_seconds(step: Callable[..., Any], x: Any, y: Any) -> float:
    lengths = []
    for _ in range(8):
        began = time.perf_counter()
        step(x, y)
        lengths.append(time.perf_counter() - began)
    return median(lengths[3:])  # the first ones trace the graph and warm up


def _weights(name: str, seed: int) -> str:
    return f"arms/{name}-{seed}.weights.h5"


def _arm(
    train_arm: Callable[[Options, Split, RunFolder, int], tuple[keras.Model, Arm]],
    options: Options,
    split: Split,
    scale: TargetScale | None,
    folder: RunFolder,
    name: str,
    seed: int,
) -> Arm:
    """Trains one arm and evaluates it, or reads what an interrupted run already has of it."""
    saved = folder.read_json(f"arms/{name}-{seed}.json")
    if saved is not None:
        return Arm(**saved)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model, arm = train_arm(options, split, folder, seed)
    with folder.write(_weights(name, seed)) as path:
        whole = in_units(model, scale)
        whole.save_weights(path)
    test = split.test if scale is None else _unscaled(split.test, scale)
    arm.test = scores(test.task, test.targets, predict(whole, test))
    folder.write_json(f"arms/{name}-{seed}.json", vars(arm))
    return arm


def _unscaled(data: ImageData, scale: TargetScale) -> ImageData:
    return replace(data, targets=data.targets * scale.std + scale.mean)


def _create(options: Options, data: ImageData, weights: str | None) -> keras.Model:
    return zoo.create_model(
        options.model,
        weights=weights,
        num_classes=outputs_of(data),
        input_size=data.size,
        in_channels=data.channels,
        dropout=0.2,
        preprocess=True,
    )


def _pretrained(
    options: Options, split: Split, folder: RunFolder, seed: int
) -> tuple[keras.Model, Arm]:
    model = _create(options, split.train, options.weights)
    history, seconds = _train_head(model, options, split)
    stages = (
        ("partial", last_stages(model, 2), options.partial_epochs, 5e-4),
        ("whole", "", options.epochs, 2e-4),
    )
    freeze(model)
    for stage, pattern, epochs, rate in stages:
        unfreeze(model, pattern)
        plan = Plan(
            name=f"pretrained-{seed}-{stage}",
            values={"learning_rate": rate, "weight_decay": 1e-2, "batch_size": BATCH_SIZE},
            epochs=epochs,
            seed=seed,
            shift=options.shift,
            quiet=options.quiet,
        )
        trained = train(model, split, plan, folder)
        _append(history, trained.history)
        seconds += [seconds[-1] + s for s in trained.seconds]
    return model, _result("pretrained", seed, split, history, seconds)


def _scratch(
    options: Options, split: Split, folder: RunFolder, seed: int
) -> tuple[keras.Model, Arm]:
    model = _create(options, split.train, None)
    plan = Plan(
        name=f"scratch-{seed}",
        values={"learning_rate": 2e-3, "weight_decay": 1e-2, "batch_size": BATCH_SIZE},
        epochs=options.epochs,
        seed=seed,
        shift=options.shift,
        quiet=options.quiet,
    )
    trained = train(model, split, plan, folder)
    return model, _result("scratch", seed, split, trained.history, trained.seconds)


def _append(history: History, more: History) -> None:
    for name, values in more.items():
        history.setdefault(name, []).extend(values)


def _result(name: str, seed: int, split: Split, history: History, seconds: list[float]) -> Arm:
    values = history[f"val_{METRICS[split.train.task][0]}"]
    return Arm(
        name=name,
        seed=seed,
        history=history,
        seconds=seconds,
        validation=max(values) if split.train.task != "regression" else -min(values),
        test={},
        epochs=len(seconds),
    )


def _train_head(model: keras.Model, options: Options, split: Split) -> tuple[History, list[float]]:
    """Trains the head on the frozen trunk's features; the trunk runs once over the images."""
    began = time.perf_counter()
    head = model.get_layer("head")
    trunk = keras.Model(model.input, head.input)
    inputs = keras.Input(head.input.shape[1:])
    top = keras.Model(inputs, head(inputs))
    task = split.train.task
    epochs = options.head_epochs
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
