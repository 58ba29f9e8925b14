"""Real images for measuring agreement: crops of photographs in scikit-image and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

SKIMAGE = (
    "astronaut", "chelsea", "coffee", "rocket", "stereo_motorcycle", "retina",
    "immunohistochemistry", "hubble_deep_field",
)  # fmt: skip
SKLEARN = ("china.jpg", "flower.jpg")
SHARES = (0.35, 1.0)  # of the shorter side, that a crop has


def photographs() -> list[Array]:
    """Returns the colour photographs: uint8 (H, W, 3)."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    found = []
    for name in SKIMAGE:
        loaded = getattr(skimage.data, name)()
        found.append(loaded[0] if isinstance(loaded, tuple) else loaded)
    return [np.asarray(photo)[..., :3] for photo in found + list(map(load_sample_image, SKLEARN))]


def crops(count: int, seed: int, *, calibration: bool) -> list[Array]:
    """Returns square crops of random place and size, half of them mirrored: uint8 (s, s, 3).

    The photographs take turns: every second one is for calibration, the others for comparing.
    """
    random, photos = np.random.default_rng(seed), photographs()[not calibration :: 2]
    found = []
    for index in range(count):
        photo = photos[index % len(photos)]
        side = int(min(photo.shape[:2]) * random.uniform(*SHARES))
        top, left = (int(random.integers(0, limit - side + 1)) for limit in photo.shape[:2])
        crop = photo[top : top + side, left : left + side]
        found.append(np.ascontiguousarray(crop[:, ::-1] if random.integers(2) else crop))
    return found
