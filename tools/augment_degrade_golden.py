"""Records what Pillow, OpenCV and torchvision make of tests/augment_degrade_cases.py.

Run where they are: `python -m tools.augment_degrade_golden`; writes
tests/golden/augment_degrade.npz.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from tests.augment_degrade_cases import (
    BOXES,
    CLIP_LIMITS,
    GRIDS,
    POINTS,
    QUALITIES,
    SIZES,
    classes,
    field,
    images,
)

GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "augment_degrade.npz"


def through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def by_channel(equalizer: Any, image: np.ndarray) -> np.ndarray:
    planes = [equalizer.apply(np.ascontiguousarray(image[..., i])) for i in range(3)]
    return np.stack(planes, axis=-1)


def by_lightness(equalizer: Any, image: np.ndarray) -> np.ndarray:
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    if equalizer is not None:
        lab[..., 0] = equalizer.apply(np.ascontiguousarray(lab[..., 0]))
    result: np.ndarray = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    return result


def compressed() -> dict[str, np.ndarray]:
    found = {}
    for size in SIZES:
        for quality in QUALITIES:
            every = images(*size)
            found[f"jpeg {size} {quality}"] = np.stack([through_jpeg(i, quality) for i in every])
            gray = [through_jpeg(i[..., 0], quality)[..., None] for i in every]
            found[f"gray jpeg {size} {quality}"] = np.stack(gray)
    return found


def equalized() -> dict[str, np.ndarray]:
    found = {}
    for size in SIZES:
        found[f"no clahe {size}"] = np.stack([by_lightness(None, i) for i in images(*size)])
        for grid in GRIDS:
            for limit in CLIP_LIMITS:
                equalizer = cv2.createCLAHE(limit, grid[::-1])
                for on, function in (("channels", by_channel), ("lightness", by_lightness)):
                    rows = [function(equalizer, i) for i in images(*size)]
                    found[f"clahe {on} {size} {grid} {limit}"] = np.stack(rows)
    return found


def displaced() -> dict[str, np.ndarray]:
    functional = v2.functional
    height, width = SIZES[0]
    fields = [torch.from_numpy(f[None] * 2.0 / (width, height)) for f in field()]
    every, masks = images(*SIZES[0]), classes()
    pictures = [
        functional.elastic(torch.from_numpy(i.transpose(2, 0, 1).copy()), f, fill=None)
        for i, f in zip(every, fields, strict=True)
    ]
    form = tv_tensors.BoundingBoxFormat.XYXY
    return {
        "elastic": np.stack([p.numpy().transpose(1, 2, 0) for p in pictures]),
        "elastic masks": np.stack(
            [
                functional.elastic(tv_tensors.Mask(torch.from_numpy(m)), f).numpy()
                for m, f in zip(masks, fields, strict=True)
            ]
        ),
        "elastic boxes": np.stack(
            [
                functional.elastic(
                    tv_tensors.BoundingBoxes(BOXES, format=form, canvas_size=SIZES[0]), f
                ).numpy()
                for f in fields
            ]
        ),
        "elastic points": np.stack(
            [
                functional.elastic(tv_tensors.KeyPoints(POINTS, canvas_size=SIZES[0]), f).numpy()
                for f in fields
            ]
        ),
    }


def main() -> None:
    found: dict[str, Any] = {**compressed(), **equalized(), **displaced()}
    np.savez_compressed(GOLDEN, **found)
    print(
        f"{len(found)} results of Pillow {PIL.__version__}, OpenCV {cv2.__version__} and "
        f"torchvision {torchvision.__version__} in {GOLDEN.name}"
    )


if __name__ == "__main__":
    main()
