"""Options with which each image layer can be made, and data for it."""

from __future__ import annotations

from typing import Any

import numpy as np

import zoo

SIZE = 24
IMAGES = np.random.default_rng(1).integers(30, 220, (8, SIZE, SIZE, 3)).astype("uint8")
LABELS = np.arange(8) % 5
NEEDED: dict[str, dict[str, Any]] = {
    "random_grayscale": {"p": 0.5},
    "random_crop": {"size": 20, "padding": 4},
    "random_resized_crop": {"size": 20},
    "scale_jitter": {"size": 20},
    "mixup": {"num_classes": 5},
    "cutmix": {"num_classes": 5},
    "mixup_or_cutmix": {"num_classes": 5},
    "random_affine": {"degrees": 20, "translate": (0.1, 0.1), "scale": (0.8, 1.2), "shear": 10},
}
COMPOSITIONS = ("compose", "apply", "choice", "some_of", "random_order")


def make(name: str, /, **options: Any) -> Any:
    """Returns a layer that can be made without more."""
    if name in COMPOSITIONS:
        parts = [zoo.create_augmentation(part) for part in ("random_flip", "random_brightness")]
        options = {"layers": parts, **options}
    return zoo.create_augmentation(name, **{**NEEDED.get(name, {}), **options})


def call(layer: Any, images: Any = IMAGES, labels: Any = LABELS, **options: Any) -> np.ndarray:
    """Returns the images that a layer makes."""
    if layer.needs_labels:
        return np.asarray(layer(images, labels, **options)[0])
    return np.asarray(layer(images, **options))
