"""DenseNet-BC: every layer sees the maps of all layers before it in its stage.

Source: Huang et al. 2016, arXiv:1608.06993, table 1. Constants as in torchvision and timm; 264d has
the three 3x3 convolutions of ResNet-D for a stem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from zoo.blocks import (
    NormConfig,
    Tensor,
    activation,
    batch_norm,
    conv,
    linear_head,
    max_pool,
)
from zoo.spec import Family, Layout, Variant

BOTTLENECK = 4  # width of a layer's 1x1 convolution / growth


@dataclass(frozen=True, kw_only=True)
class DenseNetConfig:
    """One size of the family."""

    depths: tuple[int, ...]  # layers per stage
    growth: int = 32  # channels that each layer adds
    deep_stem: bool = False
    norm: NormConfig = NormConfig()


def norm_act(x: Tensor, config: DenseNetConfig, name: str) -> Tensor:
    """Batch norm and ReLU, which stand before a convolution here."""
    return activation(batch_norm(x, config.norm, name=name), "relu", name=f"{name}_act")


def stem(x: Tensor, config: DenseNetConfig, *, small: bool) -> Tensor:
    """(B, H, W, 3) -> (B, H/2, W/2, 2 * growth); the small stem keeps H and W."""
    width = 2 * config.growth
    widths = (config.growth, config.growth, width) if config.deep_stem else (width,)
    kernel = 3 if small or config.deep_stem else 7
    for i, width in enumerate(widths):
        x = conv(x, width, kernel, 2 if i == 0 and not small else 1, name=f"stem_conv{i}")
        x = norm_act(x, config, f"stem_norm{i}")
    return x


def layer(x: Tensor, config: DenseNetConfig, name: str) -> Tensor:
    """Adds channels: (B, H, W, C) -> (B, H, W, C + growth)."""
    y = norm_act(x, config, f"{name}_norm1")
    y = conv(y, BOTTLENECK * config.growth, 1, name=f"{name}_conv1")
    y = norm_act(y, config, f"{name}_norm2")
    y = conv(y, config.growth, 3, name=f"{name}_conv2")
    return keras.layers.Concatenate(name=f"{name}_concat")([x, y])


def transition(x: Tensor, config: DenseNetConfig, name: str) -> Tensor:
    """Halves everything: (B, H, W, C) -> (B, H/2, W/2, C/2)."""
    x = norm_act(x, config, f"{name}_norm")
    x = conv(x, x.shape[-1] // 2, 1, name=f"{name}_conv")
    return keras.layers.AveragePooling2D(2, name=f"{name}_pool")(x)


def features(
    x: Tensor,
    config: DenseNetConfig,
    *,
    output_stride: int | None,
    small_stem: bool,
    drop_path: float,
) -> dict[str, Tensor]:
    """Maps (B, H, W, 3) to `stem`, `stage1`, ...: strides 2, 4, 8, 16, 32; small 1, 1, 2, 4, 8.

    There are no branches to drop.
    """
    del output_stride, drop_path
    x = stem(x, config, small=small_stem)
    maps = {"stem": x}
    if not small_stem:
        x = max_pool(x, 3, 2, name="stem_pool")
    for i, depth in enumerate(config.depths, start=1):
        if i > 1:
            x = transition(x, config, f"stage{i}_down")
        for j in range(1, depth + 1):
            x = layer(x, config, f"stage{i}_block{j}")
        if i == len(config.depths):
            x = norm_act(x, config, "final_norm")
        maps[f"stage{i}"] = x
    return maps


RENAMES = (  # our layer name -> timm module
    (r"^stage(\d+)_block(\d+)_", r"features.denseblock\1.denselayer\2."),
    (r"^stage(\d+)_down_", lambda m: f"features.transition{int(m[1]) - 1}."),
    (r"^stem_", "features."),
    (r"^final_norm$", "features.norm5"),
    (r"^head$", "classifier"),
)


def _variant(name: str, depths: tuple[int, ...], params: int, **config: Any) -> Variant:
    alias = () if config else (name.replace("densenet", "DenseNet"),)
    shape = DenseNetConfig(depths=depths, **config)
    return Variant(name=name, config=shape, params=params, aliases=alias)


FAMILY = Family(
    name="densenet",
    paper="arXiv:1608.06993",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=linear_head,
    dilates=False,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(
        _variant("densenet121", (6, 12, 24, 16), 7_978_856),
        _variant("densenet161", (6, 12, 36, 24), 28_681_000, growth=48),
        _variant("densenet169", (6, 12, 32, 32), 14_149_480),
        _variant("densenet201", (6, 12, 48, 32), 20_013_928),
        _variant("densenet264d", (6, 12, 64, 48), 72_736_216, growth=48, deep_stem=True),
    ),
)
