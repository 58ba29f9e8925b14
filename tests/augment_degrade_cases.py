"""What Pillow, OpenCV and torchvision were asked for too: images, fields and options.

`tools/augment_degrade_golden.py` records their results in `tests/golden/augment_degrade.npz`.
"""

from __future__ import annotations

import numpy as np

SIZES = ((48, 64), (45, 50))  # of whole JPEG blocks and tiles, and not
QUALITIES = (1, 50, 95)
CLIP_LIMITS = (1.0, 4.0)
GRIDS = ((4, 3),)
BOXES = np.array([[4, 5, 30, 25], [20, 10, 55, 40], [8, 8, 16, 16]], "float32")
POINTS = np.array([[5, 5], [30, 20], [50, 40]], "float32")  # as torchvision counts: from centres


def images(height: int, width: int) -> np.ndarray:
    """Returns three images: smooth, noisy, and one with few values: uint8 (3, H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 255 // width, y * 255 // height, 40 + 3 * x % 100 + 2 * y], axis=-1)
    noisy = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    flat = np.where((x + y)[..., None] % 7 < 3, [200, 30, 90], [60, 180, 90])
    return np.stack([smooth, noisy, flat]).astype("uint8")


def classes() -> np.ndarray:
    """Returns masks of six classes: uint8 (3, H, W)."""
    masks: np.ndarray = images(*SIZES[0])[..., 0] // 50
    return masks


def field() -> np.ndarray:
    """Returns three smooth fields, x and y in pixels: float32 (3, H, W, 2)."""
    height, width = SIZES[0]
    y, x = np.mgrid[:height, :width]
    rows = []
    for phase in (0.0, 1.0, 2.0):
        down = 3.0 * np.sin(0.13 * x + phase) + 0.7 * np.cos(0.2 * y)
        across = 4.0 * np.cos(0.11 * y - phase) + 0.3 * np.sin(0.3 * x)
        rows.append(np.stack([across, down], axis=-1))
    return np.stack(rows).astype("float32")
