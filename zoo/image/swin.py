"""Swin: attention within windows, which shift from block to block, and patches that merge.

Source: Liu et al. 2021, arXiv:2103.14030, figure 3 and section 3.3; the S3 sizes: Chen et al. 2021,
arXiv:2111.14725, table 9. Constants as in the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import ops

from zoo.blocks import (
    Tensor,
    activation,
    conv,
    dense,
    drop_path,
    drop_path_rates,
    layer_norm,
    linear_head,
)
from zoo.layers import SamePadding, WindowAttention, WindowMerge, WindowPartition
from zoo.spec import Family, Layout, Variant

Pair = tuple[int, int]  # along height and width
PATCH = 4  # pixels
MLP_RATIO = 4
EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class SwinConfig:
    """One size of the family."""

    width: int  # channels of the first stage; each further one has twice as many
    depths: tuple[int, ...]  # blocks per stage
    heads: tuple[int, ...]  # per stage
    windows: tuple[int, ...]  # height and width of a window, per stage
    size: int = 224  # pixels of the images that the windows are chosen for

    @property
    def patch(self) -> int:
        """Pixels of a patch."""
        return PATCH


def native_side(size: int, stage: int) -> int:
    """Returns the side of a stage's map, at the image size that the windows are chosen for."""
    stride: int = PATCH * 2**stage
    return -(-size // stride)


def known_sides(x: Tensor, side: int) -> Pair:
    """Returns height and width of a map (B, H, W, C), `side` for one that is not known."""
    height, width = (known or side for known in x.shape[1:3])
    return height, width


def shifts(sides: Pair, window: Pair, *, shifted: bool) -> Pair:
    """Returns how far a map is rolled: half a window, not at all where one window covers it."""
    down, right = (
        w // 2 if shifted and side > w else 0 for side, w in zip(sides, window, strict=True)
    )
    return down, right


def block(
    x: Tensor, config: SwinConfig, stage: int, *, shifted: bool, drop: float, name: str
) -> Tensor:
    """Attention within windows and MLP: (B, H, W, C) -> (B, H, W, C)."""
    width = x.shape[-1]
    side = native_side(config.size, stage)
    window = min(config.windows[stage], side)
    places = ((window, window), shifts(known_sides(x, side), (window, window), shifted=shifted))
    y = layer_norm(x, EPSILON, name=f"{name}_norm1")
    y = WindowPartition(*places, name=f"{name}_cut")(y)
    y = dense(y, 3 * width, name=f"{name}_qkv")
    y = WindowAttention(config.heads[stage], *places, name=f"{name}_attention")([y, x])
    y = dense(y, width, name=f"{name}_proj")
    y = WindowMerge(*places, name=f"{name}_merge")([y, x])
    y = drop_path(y, drop, name=f"{name}_drop_path1")
    x = keras.layers.Add(name=f"{name}_add1")([x, y])
    y = layer_norm(x, EPSILON, name=f"{name}_norm2")
    y = dense(y, MLP_RATIO * width, name=f"{name}_fc1")
    y = activation(y, "gelu", name=f"{name}_act")
    y = dense(y, width, name=f"{name}_fc2")
    y = drop_path(y, drop, name=f"{name}_drop_path2")
    return keras.layers.Add(name=f"{name}_add2")([x, y])


def merged(x: Tensor, name: str) -> Tensor:
    """Each 2x2 patches side by side, padded where odd: (B, H, W, C) -> (B, H/2, W/2, 4C)."""
    x = SamePadding(2, 2, name=f"{name}_even")(x)
    corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
    return ops.concatenate(corners, axis=-1)


def features(
    x: Tensor,
    config: SwinConfig,
    *,
    output_stride: int | None,
    small_stem: bool,
    drop_path: float,
) -> dict[str, Tensor]:
    """Maps (B, H, W, 3) to `stem`, `stage1`, ...: strides 4, 4, 8, 16, 32; small 1, 1, 2, 4, 8."""
    del output_stride
    patch = 1 if small_stem else PATCH
    x = conv(x, config.width, patch, patch, name="stem_conv", padding="valid", bias=True)
    x = layer_norm(x, EPSILON, name="stem_norm")
    maps = {"stem": x}
    drops = iter(drop_path_rates(drop_path, sum(config.depths), last=True))
    for i, depth in enumerate(config.depths):
        if i > 0:
            down, width = f"stage{i + 1}_down", 2 * x.shape[-1]
            x = layer_norm(merged(x, down), EPSILON, name=f"{down}_norm")
            x = dense(x, width, name=f"{down}_reduction", bias=False)
        for j in range(depth):
            name = f"stage{i + 1}_block{j + 1}"
            x = block(x, config, i, shifted=j % 2 == 1, drop=next(drops), name=name)
        maps[f"stage{i + 1}"] = x
    return maps


def head(
    x: Tensor,
    config: SwinConfig,
    *,
    num_classes: int,
    pool: str | None,
    dropout: float,
    activation: str | None,
) -> Tensor:
    """Norm, pooling, a dense layer: (B, H, W, C) -> (B, num_classes)."""
    x = layer_norm(x, EPSILON, name="head_norm")
    return linear_head(
        x, config, num_classes=num_classes, pool=pool, dropout=dropout, activation=activation
    )


RENAMES = (  # our layer name -> timm module
    (r"^stage(\d+)_block(\d+)_", lambda m: f"layers.{int(m[1]) - 1}.blocks.{int(m[2]) - 1}."),
    (r"^stage(\d+)_down_", lambda m: f"layers.{int(m[1]) - 1}.downsample."),
    (r"\.(qkv|proj)$", r".attn.\1"),
    (r"\.attention$", ".attn"),
    (r"\.(fc[12])$", r".mlp.\1"),
    (r"^stem_conv$", "patch_embed.proj"),
    (r"^stem_norm$", "patch_embed.norm"),
    (r"^head_norm$", "norm"),
    (r"^head$", "head.fc"),
)
_HEADS = {96: (3, 6, 12, 24), 128: (4, 8, 16, 32), 192: (6, 12, 24, 48)}
_TINY, _DEEP = (2, 2, 6, 2), (2, 2, 18, 2)
_7, _12 = (7, 7, 7, 7), (12, 12, 12, 12)


def _variant(
    name: str,
    width: int,
    depths: tuple[int, ...],
    windows: tuple[int, ...],
    params: int,
    size: int = 224,
    paper: str = "",
) -> Variant:
    config = SwinConfig(width=width, depths=depths, heads=_HEADS[width], windows=windows, size=size)
    return Variant(name=f"swin_{name}", config=config, params=params, input_size=size, paper=paper)


_S3 = "arXiv:2111.14725"
FAMILY = Family(
    name="swin",
    paper="arXiv:2103.14030",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=head,
    dilates=False,
    fixed_size=True,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(
        _variant("tiny_patch4_window7_224", 96, _TINY, _7, 28_288_354),
        _variant("small_patch4_window7_224", 96, _DEEP, _7, 49_606_258),
        _variant("base_patch4_window7_224", 128, _DEEP, _7, 87_768_224),
        _variant("base_patch4_window12_384", 128, _DEEP, _12, 87_903_584, 384),
        _variant("large_patch4_window7_224", 192, _DEEP, _7, 196_532_476),
        _variant("large_patch4_window12_384", 192, _DEEP, _12, 196_735_516, 384),
        _variant("s3_tiny_224", 96, _TINY, (7, 7, 14, 7), 28_328_674, paper=_S3),
        _variant("s3_small_224", 96, _DEEP, (14, 14, 14, 7), 49_737_298, paper=_S3),
        _variant("s3_base_224", 96, (2, 2, 30, 2), (7, 7, 14, 7), 71_125_762, paper=_S3),
    ),
)
