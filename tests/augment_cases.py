"""Image operations with given parameters, which torchvision was asked for too.

`tools/augment_golden.py` records torchvision's results in `tests/golden/augment.npz`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

HEIGHT, WIDTH = 20, 26
CORNERS = [  # where those of the image go: x, y from the upper left one on, with the clock
    [[2, 1], [22, 3], [25, 17], [0, 19]],
    [[0, 0], [25, 0], [25, 19], [0, 19]],
    [[5, 4], [20, 2], [19, 14], [7, 17]],
]


def images() -> np.ndarray:
    """Returns three images: smooth, noisy, and one with few values: uint8 (3, 20, 26, 3)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    smooth = np.stack([x * 9, y * 12, 40 + 3 * x + 5 * y], axis=-1)
    noisy = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3))
    flat = np.where((x + y)[..., None] % 7 < 3, [200, 30, 90], [60, 180, 90])
    return np.stack([smooth, noisy, flat]).astype("uint8")


@dataclass(frozen=True)
class Case:
    """An operation.

    Attributes:
        function: Of torchvision.transforms.v2.functional.
        arguments: Its keyword arguments, one value per image.
        layer: Our layer.
        options: Its options.
        parameters: What its `apply` is given, one row per image.
        worst: Largest difference of a value that is allowed.
        share: Share of values that may differ at all.
        margin: Pixels at the edge that are not compared.
    """

    function: str
    arguments: dict[str, list[Any]]
    layer: str
    parameters: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    worst: int = 0
    share: float = 0.0
    margin: int = 0


def _factor(function: str, argument: str, layer: str, values: list[float], **rest: Any) -> Case:
    return Case(function, {argument: values}, layer, {"factor": values}, **rest)


def _plain(function: str, layer: str, **rest: Any) -> Case:
    return Case(function, {}, layer, {"applied": [True] * 3}, **rest)


# Between the image and the fill torchvision weighs the image twice; so bilinear ones have no fill.
def _affine(interpolation: str, fill: float, **rest: Any) -> Case:
    angle, x, y = [20.0, -35.0, 0.0], [3.0, 0.0, -4.0], [-2.0, 5.0, 0.0]
    scale, shear_x, shear_y = [1.2, 0.8, 1.0], [0.0, 10.0, 20.0], [0.0, 5.0, 0.0]
    return Case(
        "affine",
        {
            "angle": angle,
            "translate": [list(t) for t in zip(x, y, strict=True)],
            "scale": scale,
            "shear": [list(s) for s in zip(shear_x, shear_y, strict=True)],
            "interpolation": [interpolation] * 3,
            "fill": [fill or None] * 3,
        },
        "random_affine",
        {
            "angle": angle,
            "shift_x": x,
            "shift_y": y,
            "scale": scale,
            "shear_x": shear_x,
            "shear_y": shear_y,
        },
        {"interpolation": interpolation, "fill": fill},
        **rest,
    )


def _rotation(interpolation: str, **rest: Any) -> Case:
    angle = [30.0, -75.0, 171.0]
    fill = 128.0 if interpolation == "nearest" else 0.0
    how: dict[str, list[Any]] = {
        "angle": angle,
        "interpolation": [interpolation] * 3,
        "fill": [fill or None] * 3,
    }
    options = {"interpolation": interpolation, "fill": fill}
    return Case("rotate", how, "random_rotation", {"angle": angle}, options, **rest)


def _crop(antialias: bool) -> Case:
    top, left, height, width = [0, 3, 5], [0, 6, 1], [20, 12, 9], [26, 12, 20]
    return Case(
        "resized_crop",
        {
            "top": top,
            "left": left,
            "height": height,
            "width": width,
            "size": [[14, 18]] * 3,
            "antialias": [antialias] * 3,
        },
        "random_resized_crop",
        {"top": top, "left": left, "height": height, "width": width},
        {"size": (14, 18)},
        worst=1,
        share=0.2,
        margin=1,  # torchvision cuts before it resizes
    )


CASES = {
    "brightness": _factor(
        "adjust_brightness", "brightness_factor", "random_brightness", [0.5, 1.0, 1.75]
    ),
    "contrast": _factor("adjust_contrast", "contrast_factor", "random_contrast", [0.25, 1.5, 2.0]),
    "contrast, odd factors": _factor(
        "adjust_contrast",
        "contrast_factor",
        "random_contrast",
        [0.3, 1.13, 1.9],
        worst=1,
        share=0.01,
    ),
    "saturation": _factor(
        "adjust_saturation", "saturation_factor", "random_saturation", [0.0, 0.5, 1.75]
    ),
    "saturation, odd factors": _factor(
        "adjust_saturation",
        "saturation_factor",
        "random_saturation",
        [0.1, 1.13, 1.9],
        worst=1,
        share=0.02,
    ),
    "sharpness": _factor(
        "adjust_sharpness", "sharpness_factor", "random_sharpness", [0.0, 0.5, 1.75]
    ),
    "hue": _factor(
        "adjust_hue", "hue_factor", "random_hue", [-0.1, 0.25, 0.5], worst=1, share=0.02
    ),
    "gamma": Case(
        "adjust_gamma",
        {"gamma": [0.5, 1.8, 1.0]},
        "random_gamma",
        {"factor": [0.5, 1.8, 1.0]},
        worst=1,
        share=0.01,
    ),
    "posterize": Case("posterize", {"bits": [1, 4, 7]}, "random_posterize", {"bits": [1, 4, 7]}),
    "solarize": Case(
        "solarize",
        {"threshold": [0.0, 128.0, 255.0]},
        "random_solarize",
        {"threshold": [0.0, 128.0, 255.0]},
    ),
    "invert": _plain("invert", "random_invert"),
    "autocontrast": _plain("autocontrast", "random_autocontrast"),
    "equalize": _plain("equalize", "random_equalize"),
    "grayscale": Case(
        "rgb_to_grayscale",
        {"num_output_channels": [3] * 3},
        "random_grayscale",
        {"applied": [True] * 3},
    ),
    "channels": Case(
        "permute_channels",
        {"permutation": [[2, 0, 1], [0, 1, 2], [1, 0, 2]]},
        "random_channel_shuffle",
        {"order": [[2, 0, 1], [0, 1, 2], [1, 0, 2]]},
    ),
    "blur": Case(
        "gaussian_blur",
        {"kernel_size": [[9, 9]] * 3, "sigma": [[s, s] for s in (0.4, 1.0, 2.0)]},
        "gaussian_blur",
        {"sigma": [0.4, 1.0, 2.0]},
        worst=1,
        share=0.01,
    ),
    "flip, horizontal": Case(
        "horizontal_flip",
        {},
        "random_flip",
        {"horizontal": [True] * 3, "vertical": [False] * 3},
        {"mode": "both"},
    ),
    "flip, vertical": Case(
        "vertical_flip",
        {},
        "random_flip",
        {"horizontal": [False] * 3, "vertical": [True] * 3},
        {"mode": "both"},
    ),
    "rotation, nearest": _rotation("nearest"),
    "rotation, bilinear": _rotation("bilinear", worst=1, share=0.01),
    "affine, nearest": _affine("nearest", 77.0),
    "affine, bilinear": _affine("bilinear", 0.0, worst=1, share=0.01),
    "perspective": Case(
        "perspective",
        {
            "startpoints": [[[0, 0], [25, 0], [25, 19], [0, 19]]] * 3,
            "endpoints": CORNERS,
            "interpolation": ["bilinear"] * 3,
        },
        "random_perspective",
        {"corners": CORNERS},
        worst=2,
        share=0.05,
    ),
    "crop": Case(
        "crop",
        {"top": [0, -3, 9], "left": [2, 5, -4], "height": [12] * 3, "width": [16] * 3},
        "random_crop",
        {"top": [0, -3, 9], "left": [2, 5, -4]},
        {"size": (12, 16)},
    ),
    "resized crop": _crop(antialias=False),
    "erase": Case(
        "erase",
        {"i": [0, 5, 9], "j": [3, 0, 20], "h": [4, 15, 20], "w": [10, 9, 6], "v": [7] * 3},
        "random_erasing",
        {
            "top": [[0], [5], [9]],
            "left": [[3], [0], [20]],
            "height": [[4], [15], [20]],
            "width": [[10], [9], [6]],
        },
        {"fill": 7.0},
    ),
}

# RandAugment's operations, with amounts as torchvision passes them.
POLICY = {
    "shear_x": ("ShearX", [0.3, -0.11, 0.2]),
    "shear_y": ("ShearY", [0.3, -0.11, 0.2]),
    "translate_x": ("TranslateX", [5.0, -7.0, 0.0]),
    "translate_y": ("TranslateY", [5.0, -7.0, 0.0]),
    "rotate": ("Rotate", [10.0, -30.0, 3.0]),
    "brightness": ("Brightness", [0.5, -0.75, 0.0]),
    "color": ("Color", [0.5, -0.75, 0.0]),
    "contrast": ("Contrast", [0.5, -0.75, 0.0]),
    "sharpness": ("Sharpness", [0.5, -0.75, 0.0]),
    "posterize": ("Posterize", [4.0, 7.0, 8.0]),
    "solarize": ("Solarize", [0.0, 0.5, 1.0]),  # shares of 255
    "autocontrast": ("AutoContrast", [0.0] * 3),
    "equalize": ("Equalize", [0.0] * 3),
}
