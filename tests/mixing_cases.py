"""A batch that is mixed with given shares, which timm was asked for too.

`tools/mixing_golden.py` records timm's results in `tests/golden/mixing.npz`.
"""

from __future__ import annotations

import numpy as np

CLASSES = 4
SMOOTHING = 0.1
LABELS = np.array([2, 0, 3, 1, 1])  # of an odd number: the middle one is mixed with itself
SHARES = np.array([0.25, 0.6, 0.5, 1.0, 0.9], "float32")  # that a sample keeps


def images() -> np.ndarray:
    """Returns images in [0, 255]: float32 (5, 13, 18, 3)."""
    return np.random.default_rng(5).uniform(0, 255, (5, 13, 18, 3)).astype("float32")
