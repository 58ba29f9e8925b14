"""More of rare classes, or less of frequent ones: on the training side, never on the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from recipes.data.image_data import ImageData
from recipes.data.splitting import Split, take
from zoo.errors import OptionValueError, did_you_mean

NO_SAMPLING = "none"
SHORT = {"over": "random_over", "under": "random_under"}


def sampler_name(method: str) -> str:
    """Returns the name of a sampler in `zoo.augment.sampling`, or "none".

    Raises:
        OptionValueError: No such sampler.
    """
    from zoo.augment.sampling import list_samplers

    name = SHORT.get(method, method)
    known = [NO_SAMPLING, *SHORT, *list_samplers()]
    if name not in known:
        raise OptionValueError(
            f"`sampling` must be one of {', '.join(known)}; got sampling={method!r}."
            f"{did_you_mean(method, known)}"
        )
    return name


def resampled(split: Split, method: str, *, seed: int) -> tuple[Split, dict[str, Any] | None]:
    """Resamples the training side of a split.

    Args:
        split: Validation and test stay as they are.
        method: "none", "over" and "under" (rows are drawn again, or left out), or a name of
            `zoo.augment.sampling.list_samplers()`, whose neighbours are those of the pixels.
        seed: With the same seed the result is the same.

    Returns:
        The split, and for `metrics.json` the method with the rows of each class before and after;
        None without sampling.

    Raises:
        OptionValueError: No such method, the task is no classification, or the method needs all
            pixels and the images are files, decoded batch by batch.
        DataError: Data that the method cannot resample.
        MissingPackageError: imbalanced-learn is needed and missing.
    """
    name = sampler_name(method)
    if name == NO_SAMPLING:
        return split, None
    train = split.train
    if train.task != "classification":
        raise OptionValueError(
            f"`sampling` needs classes; got sampling={method!r} for {train.task}. Leave it out."
        )
    sampled = _sampled(train, name, seed)
    counts = [
        np.bincount(data.targets, minlength=len(train.class_names)) for data in (train, sampled)
    ]
    about = {
        "method": name,
        "before": dict(zip(train.class_names, counts[0].tolist(), strict=True)),
        "after": dict(zip(train.class_names, counts[1].tolist(), strict=True)),
    }
    return replace(split, train=sampled), about


def _sampled(train: ImageData, name: str, seed: int) -> ImageData:
    from zoo.augment.sampling import resample

    if name in SHORT.values():  # known without a look at the images
        chosen, _ = resample(np.arange(len(train))[:, None], train.targets, name, seed=seed)
        return take(train, chosen[:, 0])
    if not isinstance(train.images, np.ndarray):
        raise OptionValueError(
            f"`{name}` compares pixels, but these images are too many to be held in memory. Take "
            "sampling='over' or 'under', or a smaller image_size."
        )
    images, targets = resample(train.images, train.targets, name, seed=seed)
    return replace(train, images=images, targets=targets, groups=None, split=None)
