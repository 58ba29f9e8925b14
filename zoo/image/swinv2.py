"""Swin V2: cosine attention, norms at the ends of branches, biases from a network of coordinates.

Source: Liu et al. 2021, arXiv:2111.09883, section 3 and equations 2 to 4. Constants as in the
authors' code.
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
)
from zoo.image.swin import EPSILON, MLP_RATIO, PATCH, head, known_sides, merged, native_side, shifts
from zoo.image.swin import RENAMES as SWIN_RENAMES
from zoo.layers import (
    CosineWindowAttention,
    RelativeCoordinates,
    WindowMerge,
    WindowPartition,
)
from zoo.spec import Family, Layout, Variant

HIDDEN = 512  # units of the network of coordinates
LARGEST_BIAS = 16.0


@dataclass(frozen=True, kw_only=True)
class SwinV2Config:
    """One size of the family."""

    width: int  # channels of the first stage; each further one has twice as many
    depths: tuple[int, ...]  # blocks per stage
    heads: tuple[int, ...]  # per stage
    window: int  # height and width
    size: int  # pixels of the images that the windows are chosen for
    trained_windows: tuple[int, ...] | None = None  # that the biases were first trained for

    @property
    def patch(self) -> int:
        """Pixels of a patch."""
        return PATCH


def block(
    x: Tensor, config: SwinV2Config, stage: int, *, shifted: bool, drop: float, name: str
) -> Tensor:
    """Attention within windows and MLP, a norm after each: (B, H, W, C) -> (B, H, W, C)."""
    width, heads = x.shape[-1], config.heads[stage]
    sides = known_sides(x, native_side(config.size, stage))
    window = (min(config.window, sides[0]), min(config.window, sides[1]))
    places = (window, shifts(sides, window, shifted=shifted))
    trained = config.trained_windows[stage] if config.trained_windows else None
    unit = (trained, trained) if trained else window
    table = RelativeCoordinates(window, unit, name=f"{name}_coordinates")(x)
    table = activation(
        dense(table, HIDDEN, name=f"{name}_bias_fc1"), "relu", name=f"{name}_bias_act"
    )
    table = dense(table, heads, name=f"{name}_bias_fc2", bias=False)
    table = LARGEST_BIAS * ops.sigmoid(table)
    y = WindowPartition(*places, name=f"{name}_cut")(x)
    y = dense(y, 3 * width, name=f"{name}_qkv", bias=False)
    y = CosineWindowAttention(heads, *places, name=f"{name}_attention")([y, x, table])
    y = dense(y, width, name=f"{name}_proj")
    y = WindowMerge(*places, name=f"{name}_merge")([y, x])
    y = layer_norm(y, EPSILON, name=f"{name}_norm1")
    y = drop_path(y, drop, name=f"{name}_drop_path1")
    x = keras.layers.Add(name=f"{name}_add1")([x, y])
    y = dense(x, MLP_RATIO * width, name=f"{name}_fc1")
    y = activation(y, "gelu", name=f"{name}_act")
    y = dense(y, width, name=f"{name}_fc2")
    y = layer_norm(y, EPSILON, name=f"{name}_norm2")
    y = drop_path(y, drop, name=f"{name}_drop_path2")
    return keras.layers.Add(name=f"{name}_add2")([x, y])


def features(
    x: Tensor,
    config: SwinV2Config,
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
            down = f"stage{i + 1}_down"
            x = dense(merged(x, down), 2 * x.shape[-1], name=f"{down}_reduction", bias=False)
            x = layer_norm(x, EPSILON, name=f"{down}_norm")
        for j in range(depth):
            name = f"stage{i + 1}_block{j + 1}"
            x = block(x, config, i, shifted=j % 2 == 1, drop=next(drops), name=name)
        maps[f"stage{i + 1}"] = x
    return maps


RENAMES = (  # our layer name -> timm module
    (r"_bias_fc1$", "_attn.cpb_mlp.0"),
    (r"_bias_fc2$", "_attn.cpb_mlp.2"),
    *SWIN_RENAMES,
)
_HEADS = {96: (3, 6, 12, 24), 128: (4, 8, 16, 32), 192: (6, 12, 24, 48)}
_TINY, _DEEP = (2, 2, 6, 2), (2, 2, 18, 2)
_FROM_12 = (12, 12, 12, 6)


def _variant(
    name: str,
    width: int,
    depths: tuple[int, ...],
    window: int,
    size: int,
    params: int,
    trained_windows: tuple[int, ...] | None = None,
) -> Variant:
    config = SwinV2Config(
        width=width,
        depths=depths,
        heads=_HEADS[width],
        window=window,
        size=size,
        trained_windows=trained_windows,
    )
    return Variant(name=f"swinv2_{name}", config=config, params=params, input_size=size)


FAMILY = Family(
    name="swinv2",
    paper="arXiv:2111.09883",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=head,
    dilates=False,
    fixed_size=True,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(
        _variant("tiny_window8_256", 96, _TINY, 8, 256, 28_347_154),
        _variant("tiny_window16_256", 96, _TINY, 16, 256, 28_347_154),
        _variant("small_window8_256", 96, _DEEP, 8, 256, 49_728_418),
        _variant("small_window16_256", 96, _DEEP, 16, 256, 49_728_418),
        _variant("base_window8_256", 128, _DEEP, 8, 256, 87_918_816),
        _variant("base_window16_256", 128, _DEEP, 16, 256, 87_918_816),
        _variant("base_window12_192", 128, _DEEP, 12, 192, 87_918_816),
        _variant("base_window12to16_192to256", 128, _DEEP, 16, 256, 87_918_816, _FROM_12),
        _variant("base_window12to24_192to384", 128, _DEEP, 24, 384, 87_918_816, _FROM_12),
        _variant("large_window12_192", 192, _DEEP, 12, 192, 196_739_932),
        _variant("large_window12to16_192to256", 192, _DEEP, 16, 256, 196_739_932, _FROM_12),
        _variant("large_window12to24_192to384", 192, _DEEP, 24, 384, 196_739_932, _FROM_12),
    ),
)
