"""RegNet X and Y: stage widths from a quantised line, groups of one width, Y with attention.

Source: Radosavovic et al. 2020, arXiv:2003.13678, equations 2 to 4 and appendix D. Constants as in
the authors' code and timm; the `_tv` sizes round widths as torchvision does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np

from zoo.blocks import (
    NormConfig,
    StageStride,
    Tensor,
    activation,
    conv_norm,
    drop_path,
    drop_path_rates,
    linear_head,
    plan_strides,
    round_width,
    squeeze_excite,
)
from zoo.spec import Family, Layout, Variant

STEM_WIDTH = 32
QUANTUM = 8  # widths are multiples of it


@dataclass(frozen=True, kw_only=True)
class RegNetConfig:
    """One size: block j has the width initial + slope * j, quantised."""

    depth: int  # blocks of all stages
    initial: int
    slope: float
    multiplier: float  # of the width from stage to stage
    group: int  # channels per group of the 3x3 convolution
    se: float = 0.0  # squeeze width / input channels of the block; 0: none
    limit: float | None = None  # share of a width that rounding to whole groups must keep
    norm: NormConfig = NormConfig()


def stages(config: RegNetConfig) -> list[tuple[int, int, int]]:
    """Returns blocks, width and channels per group of each stage (equations 2 to 4)."""
    line = config.initial + config.slope * np.arange(config.depth)
    exponents = np.round(np.log(line / config.initial) / math.log(config.multiplier))
    widths = config.initial * config.multiplier**exponents
    found = []
    for width, depth in zip(
        *np.unique(np.round(widths / QUANTUM) * QUANTUM, return_counts=True), strict=True
    ):
        group = min(config.group, int(width))
        if config.limit is None:
            whole = round(width / group) * group
        else:
            whole = round_width(width, group, config.limit)
        found.append((int(depth), whole, group))
    return found


def block(
    x: Tensor,
    config: RegNetConfig,
    width: int,
    group: int,
    step: StageStride,
    drop: float,
    name: str,
) -> Tensor:
    """Residual bottleneck without a bottleneck: (B, H, W, C) -> (B, H/stride, W/stride, width)."""
    inputs, norm = x.shape[-1], config.norm
    skip = x
    if step.stride != 1 or inputs != width:
        skip = conv_norm(x, width, 1, step.stride, name=f"{name}_shortcut", norm=norm)
    x = conv_norm(x, width, 1, name=name, norm=norm, act="relu", suffix="1")
    x = conv_norm(
        x,
        width,
        3,
        step.stride,
        name=name,
        norm=norm,
        act="relu",
        suffix="2",
        dilation=step.first_dilation,
        groups=width // group,
    )
    if config.se:
        x = squeeze_excite(x, round(inputs * config.se), name=f"{name}_se")
    x = conv_norm(x, width, 1, name=name, norm=norm, suffix="3", zero_gamma=True)
    x = drop_path(x, drop, name=f"{name}_drop_path")
    x = keras.layers.Add(name=f"{name}_add")([x, skip])
    return activation(x, "relu", name=f"{name}_act3")


def features(
    x: Tensor,
    config: RegNetConfig,
    *,
    output_stride: int | None,
    small_stem: bool,
    drop_path: float,
) -> dict[str, Tensor]:
    """Maps (B, H, W, 3) to `stem`, `stage1`, ...: strides 2, 4, 8, 16, 32; small 1, 1, 2, 4, 8."""
    first = 1 if small_stem else 2
    x = conv_norm(x, STEM_WIDTH, 3, first, name="stem", norm=config.norm, act="relu")
    maps = {"stem": x}
    table = stages(config)
    plan = plan_strides((first, 2, 2, 2), start=first, output_stride=output_stride)
    drops = iter(drop_path_rates(drop_path, config.depth, last=True))
    for i, ((depth, width, group), step) in enumerate(zip(table, plan, strict=True), start=1):
        rest = StageStride(1, step.dilation, step.dilation)
        for j in range(1, depth + 1):
            name = f"stage{i}_block{j}"
            x = block(x, config, width, group, step if j == 1 else rest, next(drops), name)
        maps[f"stage{i}"] = x
    return maps


RENAMES = (  # our layer name -> timm module
    (r"^stage(\d+)_block(\d+)_", r"s\1.b\2."),
    (r"\.(conv|bn)([123])$", r".conv\2.\1"),
    (r"\.shortcut_(conv|bn)$", r".downsample.\1"),
    (r"\.se_reduce$", ".se.fc1"),
    (r"\.se_expand$", ".se.fc2"),
    (r"^stem_(conv|bn)$", r"stem.\1"),
    (r"^head$", "head.fc"),
)

_X = (  # size, depth, initial width, slope, multiplier, group, params; appendix D
    ("002", 13, 24, 36.44, 2.49, 8, 2_684_792),
    ("004", 22, 24, 24.48, 2.54, 16, 5_157_512),
    ("004_tv", 22, 24, 24.48, 2.54, 16, 5_495_976),
    ("006", 16, 48, 36.97, 2.24, 24, 6_196_040),
    ("008", 16, 56, 35.73, 2.28, 16, 7_259_656),
    ("016", 18, 80, 34.01, 2.25, 24, 9_190_136),
    ("032", 25, 88, 26.31, 2.25, 48, 15_296_552),
    ("040", 23, 96, 38.65, 2.43, 40, 22_118_248),
    ("064", 17, 184, 60.83, 2.07, 56, 26_209_256),
    ("080", 23, 80, 49.56, 2.88, 120, 39_572_648),
    ("120", 19, 168, 73.36, 2.37, 112, 46_106_056),
    ("160", 22, 216, 55.59, 2.1, 128, 54_278_536),
    ("320", 23, 320, 69.86, 2.0, 168, 107_811_560),
)
_Y = (
    ("002", 13, 24, 36.44, 2.49, 8, 3_162_996),
    ("004", 16, 48, 27.89, 2.09, 8, 4_344_144),
    ("006", 15, 48, 32.54, 2.32, 16, 6_055_160),
    ("008", 14, 56, 38.84, 2.4, 16, 6_263_168),
    ("008_tv", 14, 56, 38.84, 2.4, 16, 6_432_512),
    ("016", 27, 48, 20.71, 2.65, 24, 11_202_430),
    ("032", 21, 80, 42.63, 2.66, 24, 19_436_338),
    ("040", 22, 96, 31.41, 2.24, 64, 20_646_656),
    ("064", 25, 112, 33.22, 2.27, 72, 30_583_252),
    ("080", 17, 192, 76.82, 2.19, 56, 39_180_068),
    ("080_tv", 17, 192, 76.82, 2.19, 56, 39_381_472),
    ("120", 19, 168, 73.36, 2.37, 112, 51_822_544),
    ("160", 18, 200, 106.23, 2.48, 112, 83_590_140),
    ("320", 20, 232, 115.89, 2.53, 232, 145_046_770),
    ("640", 20, 352, 147.48, 2.4, 328, 281_378_786),
    ("1280", 27, 456, 160.83, 2.52, 264, 644_812_894),
)


def _variants() -> tuple[Variant, ...]:
    found = []
    for letter, se, table in (("x", 0.0, _X), ("y", 0.25, _Y)):
        for size, depth, initial, slope, multiplier, group, params in table:
            shape = RegNetConfig(
                depth=depth,
                initial=initial,
                slope=slope,
                multiplier=multiplier,
                group=group,
                se=se,
                limit=0.9 if size.endswith("_tv") else None,
            )
            found.append(
                Variant(
                    name=f"regnet{letter}_{size}",
                    config=shape,
                    params=params,
                    input_size=384 if size in ("640", "1280") else 224,
                )
            )
    return tuple(found)


FAMILY = Family(
    name="regnet",
    paper="arXiv:2003.13678",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=linear_head,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=_variants(),
)
