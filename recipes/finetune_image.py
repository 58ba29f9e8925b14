"""Fine-tune a pretrained image model, beside the same network from scratch in the same seconds.

    keras-zoo run finetune-image                         emoji by category, about 10 minutes
    keras-zoo run finetune-image --data photos/ --model resnet50 --weights default --image-size 224
    keras-zoo run finetune-image --methods probe,full,staged,lora,scratch     which way is best here

The pretrained network learns in three stages: its head on features computed once, then its last
stages, then all of it, each at a lower rate; batch norms keep their pretrained statistics. The same
network from random weights gets at least as many seconds, so its epochs depend on the machine's
speed; `scratch_epochs` in the config fixes them. Expect a test accuracy of 0.81 against 0.55.
With `--methods` each of those named gets `arm_seconds`; recipes.finetune_methods says what they do.
Source of the staged schedule: Howard and Ruder 2018, arXiv:1801.06146, section 3.2.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from statistics import mean
from typing import Any

import keras

import zoo
from recipes import RunResult
from recipes.data import ImageData, Split, split_data
from recipes.data.sampling import resampled
from recipes.evaluation import baseline, headline, predict, scores
from recipes.exporting import export_model
from recipes.finetune_methods import (
    BATCH_SIZE,
    METHODS,
    PARTIAL,
    WHOLE,
    Job,
    epoch_seconds,
    train_head,
    train_method,
)
from recipes.finetune_report import Arm, write_report
from recipes.folder import RunFolder
from recipes.image_job import ImageOptions, describe, in_units, run_in_folder
from recipes.training import (
    METRICS,
    History,
    Plan,
    TargetScale,
    outputs_of,
    train,
    training_targets,
)
from recipes.versions import versions
from tuning.augmentation import NO_POLICY
from zoo.errors import OptionValueError
from zoo.finetune import stages

NAME = "finetune-image"
ARMS = ("pretrained", "scratch")


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
    methods: tuple[str, ...] | None = None  # compares these; None: staged against scratch
    arm_seconds: int = 120  # of training, for each of the methods and seeds
    layer_decay: float = 0.85  # of the learning rate from block to block, in the method "staged"
    lora_rank: int = 8  # in the method "lora"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(
            head_epochs=1, partial_epochs=1, epochs=1, seeds=1, arm_seconds=1, lora_rank=1
        )
        if not 0 < self.layer_decay <= 1:
            raise OptionValueError(
                f"`layer_decay` must be in (0, 1]; got layer_decay={self.layer_decay}."
            )
        names = self.methods
        known = names is None or (bool(names) and set(names) <= set(METHODS))
        if not known or len(set(names or ())) < len(names or ()):
            raise OptionValueError(
                f"`methods` must be some of {', '.join(METHODS)}, each once; "
                f"got {', '.join(names or ()) or 'none'}."
            )
        if names and self.augment != NO_POLICY:
            raise OptionValueError(
                "`augment` must be none where `methods` are compared, which all see the same "
                f"images; got augment={self.augment!r}."
            )


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
        arm_seconds=2,
        image_size=min(options.image_size or 32, 32),
        limit=options.limit or 200,
    )


def _job(options: Options, folder: RunFolder) -> dict[str, Any]:
    options = _shrunk(options)
    began = time.perf_counter()
    data = options.load()
    split = split_data(data, seed=options.seed)
    reference = baseline(split.train, split.test, options.seed)
    split, sampling = resampled(split, options.sampling, seed=options.seed)
    scaled, scale = training_targets(split)
    seeds = range(options.seed, options.seed + options.seeds)
    compared = _compared if options.methods else _both
    arms = [arm for seed in seeds for arm in compared(options, scaled, scale, folder, seed)]
    names = options.methods or ARMS
    tuned = [arm for arm in arms if arm.name != "scratch"] or arms
    best = max(tuned, key=lambda arm: arm.validation)
    model = in_units(_create(options, data, options.weights), scale)
    model.load_weights(folder.path / _weights(best.name, best.seed))
    outputs = predict(model, split.test)
    export_model(model, data, folder)
    head = headline(data.task)
    means = {
        name: {key: mean(a.test[key] for a in arms if a.name == name) for key in arms[0].test}
        for name in names
    }
    scratch: dict[str, Any] = {"name": "the same network from scratch", **means.get("scratch", {})}
    against = scratch if "scratch" in means else reference
    metrics = {
        "recipe": NAME,
        "task": data.task,
        "headline": head,
        "test": means[best.name],
        "baseline": against,
        "gain": means[best.name][head] - against[head],
        "classical": reference,
        "arms": [_row(a) for a in arms],
        "model": {
            "name": options.model,
            "weights": options.weights,
            "params": model.count_params(),
        },
        "exported_seed": best.seed,
        "augmentation": {"policy": options.augment, "strength": options.augment_strength},
        "sampling": sampling,
        "data": describe(data, split),
        "seed": options.seed,
        "versions": versions(),
    }
    if options.methods:
        metrics["exported_method"] = best.name
        metrics["methods"] = {name: _summary(arms, name, head) for name in names}
        metrics["arm_seconds"] = options.arm_seconds
    write_report(folder, metrics, split=split, outputs=outputs, arms=arms)
    return metrics | {"seconds": {"total": round(time.perf_counter() - began, 2)}}


def _row(arm: Arm) -> dict[str, Any]:
    row = {"name": arm.name, "seed": arm.seed, "epochs": arm.epochs, "seconds": arm.seconds[-1]}
    if arm.trainable is not None:
        row |= {"trainable": arm.trainable, "saved_bytes": arm.saved_bytes}
    return row | arm.test


def _summary(arms: list[Arm], name: str, head: str) -> dict[str, Any]:
    """What a method gave, over its seeds."""
    own = [arm for arm in arms if arm.name == name]
    values = [arm.test[head] for arm in own]
    return {
        head: mean(values),
        "lowest": min(values),
        "highest": max(values),
        "seconds": mean(arm.seconds[-1] for arm in own),
        "trainable": own[0].trainable,
        "saved_bytes": own[0].saved_bytes,
    }


def _both(
    options: Options, split: Split, scale: TargetScale | None, folder: RunFolder, seed: int
) -> list[Arm]:
    """The staged fine-tuning, and the network from scratch in at least its seconds."""
    pretrained = _arm(_pretrained, options, split, scale, folder, "pretrained", seed)
    epochs = _matching_epochs(options, split, folder, pretrained)
    longer = replace(options, epochs=epochs)
    return [pretrained, _arm(_scratch, longer, split, scale, folder, "scratch", seed)]


def _compared(
    options: Options, split: Split, scale: TargetScale | None, folder: RunFolder, seed: int
) -> list[Arm]:
    """Every method in the same seconds."""
    methods = options.methods or ()
    trained = {name: functools.partial(_method, name) for name in methods}
    return [_arm(trained[name], options, split, scale, folder, name, seed) for name in methods]


def _method(
    name: str, options: Options, split: Split, folder: RunFolder, seed: int
) -> tuple[keras.Model, Arm]:
    model = _create(options, split.train, None if name == "scratch" else options.weights)
    job = Job(
        name=name,
        seed=seed,
        split=split,
        seconds=options.arm_seconds,
        head_epochs=options.head_epochs,
        decay=options.layer_decay,
        rank=options.lora_rank,
        shift=options.shift,
        quiet=options.quiet,
    )
    return train_method(model, job, folder)


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
        epoch_s, _ = epoch_seconds(_create(options, split.train, None), split)
        plan = {"epochs": max(1, math.ceil(pretrained.seconds[-1] / epoch_s)), "epoch_s": epoch_s}
        folder.write_json(name, plan)
    return int(plan["epochs"])


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
    history, seconds = train_head(model, split, options.head_epochs)
    schedule = (
        replace(PARTIAL, epochs=options.partial_epochs),
        replace(WHOLE, epochs=options.epochs),
    )
    for stage, _ in stages(model, schedule):
        plan = Plan(
            name=f"pretrained-{seed}-{stage.name}",
            values={
                "learning_rate": stage.learning_rate,
                "weight_decay": 1e-2,
                "batch_size": BATCH_SIZE,
            },
            epochs=stage.epochs,
            seed=seed,
            shift=options.shift,
            augment=options.augment,
            augment_strength=options.augment_strength,
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
        augment=options.augment,
        augment_strength=options.augment_strength,
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
