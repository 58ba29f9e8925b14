"""Operations that policies draw from: what a level means, and AutoAugment's found policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zoo.augment.image import pixels
from zoo.augment.image.pixels import Kernel


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An operation of a policy.

    Attributes:
        kernel: Its kernel; None is a movement, to which its name gives the meaning.
        low: Its amount at level 0.
        high: Its amount at level 1; equal to `low` where there is no amount.
        signed: The amount's sign is drawn.
        of_side: The amount counts in widths (of `_x`) or heights (of `_y`).
        base: Added to the amount.
    """

    kernel: Kernel | None = None
    low: float = 0.0
    high: float = 0.0
    signed: bool = False
    of_side: bool = False
    base: float = 0.0


def _enhance(kernel: Kernel, most: float) -> Operation:
    return Operation(kernel=kernel, high=most, signed=True, base=1.0)


def _operations(
    *, shear: float, shift: Operation, turn: float, enhance: float, bits: tuple[int, int]
) -> dict[str, Operation]:
    return {
        "identity": Operation(kernel=pixels.unchanged),
        "shear_x": Operation(high=shear, signed=True),
        "shear_y": Operation(high=shear, signed=True),
        "translate_x": shift,
        "translate_y": shift,
        "rotate": Operation(high=turn, signed=True),
        "brightness": _enhance(pixels.brightness, enhance),
        "color": _enhance(pixels.saturation, enhance),
        "contrast": _enhance(pixels.contrast, enhance),
        "sharpness": _enhance(pixels.sharpness, enhance),
        "posterize": Operation(kernel=pixels.posterize, low=bits[0], high=bits[1]),
        "solarize": Operation(kernel=pixels.solarize, low=255.0, high=0.0),
        "autocontrast": Operation(kernel=pixels.autocontrast),
        "equalize": Operation(kernel=pixels.equalize),
    }


_SHIFT = Operation(high=150.0 / 331.0, signed=True, of_side=True)
# Cubuk et al. 2019, arXiv:1909.13719, with the ranges of arXiv:1805.09501, table 6.
RANDAUGMENT: Mapping[str, Operation] = _operations(
    shear=0.3, shift=_SHIFT, turn=30.0, enhance=0.9, bits=(8, 4)
)
# Mueller and Hutter 2021, arXiv:2103.10158, section 3 ("wide"). Shifts are in pixels.
TRIVIALAUGMENT: Mapping[str, Operation] = _operations(
    shear=0.99, shift=Operation(high=32.0, signed=True), turn=135.0, enhance=0.99, bits=(8, 2)
)
AUTOAUGMENT: Mapping[str, Operation] = {
    **RANDAUGMENT,
    "invert": Operation(kernel=pixels.invert),
}
# timm's, where all grow with the level ("inc1").
TIMM: Mapping[str, Operation] = {
    "autocontrast": RANDAUGMENT["autocontrast"],
    "equalize": RANDAUGMENT["equalize"],
    "invert": AUTOAUGMENT["invert"],
    "rotate": RANDAUGMENT["rotate"],
    "posterize": Operation(kernel=pixels.posterize, low=4, high=0),
    "solarize": Operation(kernel=pixels.solarize, low=256.0, high=0.0),
    "solarize_add": Operation(kernel=pixels.solarize_add, high=110.0),
    "color": RANDAUGMENT["color"],
    "contrast": RANDAUGMENT["contrast"],
    "brightness": RANDAUGMENT["brightness"],
    "sharpness": RANDAUGMENT["sharpness"],
    "shear_x": RANDAUGMENT["shear_x"],
    "shear_y": RANDAUGMENT["shear_y"],
    "translate_x": Operation(high=0.45, signed=True, of_side=True),
    "translate_y": Operation(high=0.45, signed=True, of_side=True),
}
# Hendrycks et al. 2019, arXiv:1912.02781: no operation that its test corruptions contain.
AUGMIX: Mapping[str, Operation] = {
    name: RANDAUGMENT[name]
    for name in (
        "autocontrast",
        "equalize",
        "posterize",
        "rotate",
        "solarize",
        "shear_x",
        "shear_y",
        "translate_x",
        "translate_y",
    )
}

# Pairs of: operation, probability, level of 0 to 9. Cubuk et al. 2018, arXiv:1805.09501, tables
# 7 to 9 of the appendix, as torchvision has them.
POLICIES: Mapping[str, str] = {
    "imagenet": """
        posterize .4 8, rotate .6 9; solarize .6 5, autocontrast .6 0
        equalize .8 0, equalize .6 0; posterize .6 7, posterize .6 6; equalize .4 0, solarize .2 4
        equalize .4 0, rotate .8 8; solarize .6 3, equalize .6 0; posterize .8 5, equalize 1 0
        rotate .2 3, solarize .6 8; equalize .6 0, posterize .4 6; rotate .8 8, color .4 0
        rotate .4 9, equalize .6 0; equalize 0 0, equalize .8 0; invert .6 0, equalize 1 0
        color .6 4, contrast 1 8; rotate .8 8, color 1 2; color .8 8, solarize .8 7
        sharpness .4 7, invert .6 0; shear_x .6 5, equalize 1 0; color .4 0, equalize .6 0
        equalize .4 0, solarize .2 4; solarize .6 5, autocontrast .6 0; invert .6 0, equalize 1 0
        color .6 4, contrast 1 8; equalize .8 0, equalize .6 0
    """,
    "cifar10": """
        invert .1 0, contrast .2 6; rotate .7 2, translate_x .3 9; sharpness .8 1, sharpness .9 3
        shear_y .5 8, translate_y .7 9; autocontrast .5 0, equalize .9 0
        shear_y .2 7, posterize .3 7; color .4 3, brightness .6 7; sharpness .3 9, brightness .7 9
        equalize .6 0, equalize .5 0; contrast .6 7, sharpness .6 5; color .7 7, translate_x .5 8
        equalize .3 0, autocontrast .4 0; translate_y .4 3, sharpness .2 6
        brightness .9 6, color .2 8; solarize .5 2, invert 0 0; equalize .2 0, autocontrast .6 0
        equalize .2 0, equalize .6 0; color .9 9, equalize .6 0; autocontrast .8 0, solarize .2 8
        brightness .1 3, color .7 0; solarize .4 5, autocontrast .9 0
        translate_y .9 9, translate_y .7 9; autocontrast .9 0, solarize .8 3
        equalize .8 0, invert .1 0; translate_y .7 9, autocontrast .9 0
    """,
    "svhn": """
        shear_x .9 4, invert .2 0; shear_y .9 8, invert .7 0; equalize .6 0, solarize .6 6
        invert .9 0, equalize .6 0; equalize .6 0, rotate .9 3; shear_x .9 4, autocontrast .8 0
        shear_y .9 8, invert .4 0; shear_y .9 5, solarize .2 6; invert .9 0, autocontrast .8 0
        equalize .6 0, rotate .9 3; shear_x .9 4, solarize .3 3; shear_y .8 8, invert .7 0
        equalize .9 0, translate_y .6 6; invert .9 0, equalize .6 0; contrast .3 3, rotate .8 4
        invert .8 0, translate_y 0 2; shear_y .7 6, solarize .4 8; invert .6 0, rotate .8 4
        shear_y .3 7, translate_x .9 3; shear_x .1 6, invert .6 0; solarize .7 2, translate_y .6 7
        shear_y .8 4, invert .8 0; shear_x .7 9, translate_y .8 3; shear_y .8 5, autocontrast .7 0
        shear_x .7 2, invert .1 0
    """,
}


def policy(name: str) -> list[list[tuple[str, float, int]]]:
    """Returns the pairs of a found policy: (operation, probability, level)."""
    pairs = [pair for line in POLICIES[name].strip().splitlines() for pair in line.split(";")]
    result = []
    for pair in pairs:
        words = [part.split() for part in pair.split(",")]
        result.append([(word[0], float(word[1]), int(word[2])) for word in words])
    return result
