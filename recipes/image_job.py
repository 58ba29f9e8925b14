"""What every image recipe shares: its options, its data, its run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import keras
import numpy as np

from recipes import RunResult
from recipes.data import ImageData, Split, fingerprint, load_image_data
from recipes.data.sampling import sampler_name
from recipes.folder import RunFolder, default_folder
from recipes.training import TargetScale
from tuning.augmentation import check_policy
from zoo.errors import OptionValueError
from zoo.record import get_record, set_record

_NOT_CONFIG = ("out", "resume", "quiet", "workers")  # they change no result


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Options of every image recipe; all but `out`, `resume`, `quiet` make up `config.json`."""

    data: str  # packaged set, folder of class folders, CSV with an image column, TFDS name
    model: str  # any image model of the catalog
    weights: str | None = None  # None: from scratch; "default", a tag, a file or an address
    task: Literal["classification", "multi-label", "regression"] | None = None  # None: by targets
    image_column: str | None = None  # of a CSV; None: the column of existing files
    target_columns: tuple[str, ...] | None = None  # of a CSV; None: all others
    image_size: int | None = None  # pixels; None: the images' own if they agree
    shift: float = 0.08  # random shift of training images, share of the side; 0: none
    # and further augmentation: a layer of zoo.list_augmentations() on single images, or crop_flip
    augment: str = "none"
    augment_strength: float | None = None  # 0 to 1; None: the policy's usual one
    sampling: str = "none"  # of skewed classes: over, under, smote, ... (training side only)
    limit: int | None = None  # use only so many examples
    seed: int = 0
    smoke: bool = False  # smallest size, to see it work
    out: str | None = None  # run folder; None: a new one under runs/
    resume: bool = False  # go on with an interrupted run in `out`
    quiet: bool = False

    def __post_init__(self) -> None:
        self.at_least(seed=0)
        check_policy(self.augment, self.augment_strength)
        sampler_name(self.sampling)
        if self.resume and self.out is None:
            raise OptionValueError("`resume` needs `out`, the folder of the interrupted run.")

    def at_least(self, **lowest: int) -> None:
        """Checks lower bounds of options.

        Raises:
            OptionValueError: One is below its bound.
        """
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise OptionValueError(
                    f"`{name}` must be at least {low}; got {name}={getattr(self, name)}."
                )

    def config(self) -> dict[str, Any]:
        """What `config.json` holds."""
        return {k: v for k, v in asdict(self).items() if k not in _NOT_CONFIG}

    def load(self) -> ImageData:
        """Reads the data."""
        return load_image_data(
            self.data,
            size=self.image_size,
            task=self.task,
            image_column=self.image_column,
            target_columns=self.target_columns,
            limit=self.limit,
        )


Chosen = TypeVar("Chosen", bound=ImageOptions)


def run_in_folder(
    recipe: str, options: Chosen, job: Callable[[Chosen, RunFolder], dict[str, Any]]
) -> RunResult:
    """Runs a job in its folder; a finished folder is only read."""
    folder = Path(options.out) if options.out else default_folder(recipe)
    config = options.config()
    with RunFolder.open(folder, recipe=recipe, config=config, resume=options.resume) as opened:
        if not opened.finished:
            opened.finish(job(options, opened))
            _drop_checkpoints(folder)
        metrics: dict[str, Any] = opened.read_json("metrics.json")
    return RunResult(metrics=metrics, folder=folder)


def _drop_checkpoints(folder: Path) -> None:
    """Deletes what only an unfinished run needs; the best weights are in `model.keras`."""
    for name in ("training", "arms"):
        for path in (folder / name).glob("*.weights.h5"):
            path.unlink()


def describe(data: ImageData, split: Split) -> dict[str, Any]:
    """The data's entry in `metrics.json`."""
    return {
        "name": data.name,
        "license": data.license,
        "fingerprint": fingerprint(data),
        "classes": list(data.class_names),
        "size": list(data.size),
        "channels": data.channels,
        "train": len(split.train),
        "validation": len(split.validation),
        "test": len(split.test),
        "largest_class": float(np.bincount(data.targets).max() / len(data))
        if data.task == "classification"
        else None,
    }


def in_units(model: keras.Model, scale: TargetScale | None) -> keras.Model:
    """Ends a regression model with its targets' units; its record goes along."""
    if scale is None:
        return model
    ended, record = scale.attach(model), get_record(model)
    if record is not None:
        set_record(ended, record)
    return ended
