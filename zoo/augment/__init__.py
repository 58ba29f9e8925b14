"""Augmentation layers: random for each sample, reproducible, fast.

A layer works on NumPy arrays and tensors, inside of `tf.data` and inside of a model, where it is
the identity at inference. Layers are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

from zoo.augment.catalog import (
    CATALOG,
    AugmentationInfo,
    augmentation_info,
    create_augmentation,
    list_augmentations,
)

_CLASSES = {info.layer: info.module for info in CATALOG.values()}

__all__ = [
    "AugmentationInfo",
    "augmentation_info",
    "create_augmentation",
    "list_augmentations",
    "sampling",
    *_CLASSES,
]


def __getattr__(name: str) -> Any:
    if name == "sampling":
        return importlib.import_module("zoo.augment.sampling")
    if name not in _CLASSES:
        raise AttributeError(f"module 'zoo.augment' has no attribute {name!r}")
    value = getattr(importlib.import_module(_CLASSES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
