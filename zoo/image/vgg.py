"""VGG: stacks of 3x3 convolutions between poolings, with and without batch norm.

Source: Simonyan and Zisserman 2014, arXiv:1409.1556, table 1. The dense layers are convolutions, as
in timm, so that any input of 224 px and more gives a map, which is pooled before the classifier.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras

from zoo.blocks import (
    NormConfig,
    Tensor,
    activation,
    batch_norm,
    classifier,
    conv,
    global_pool,
)
from zoo.layers import MinimumSize
from zoo.spec import Family, Layout, Variant

WIDTHS = (64, 128, 256, 512, 512)
HIDDEN = 4096  # channels of the two layers before the classifier
KERNEL = 7  # of the first of them


@dataclass(frozen=True, kw_only=True)
class VGGConfig:
    """One column of table 1."""

    depths: tuple[int, ...]  # convolutions before each pooling
    norm: NormConfig | None = None


def features(
    x: Tensor,
    config: VGGConfig,
    *,
    output_stride: int | None,
    small_stem: bool,
    drop_path: float,
) -> dict[str, Tensor]:
    """Maps (B, H, W, 3) to `stem`, `stage1`, ... at strides 2, 4, 8, 16, 32; small 1, 1, 2, 4, 8.

    Layers carry their place in the reference's sequence. There are no branches to drop.
    """
    del output_stride, drop_path
    maps, place = {}, 0
    for i, (depth, width) in enumerate(zip(config.depths, WIDTHS, strict=True)):
        name = f"stage{i}" if i else "stem"
        for _ in range(depth):
            x = conv(x, width, 3, name=f"{name}_conv{place}", bias=True)
            if config.norm is not None:
                place += 1
                x = batch_norm(x, config.norm, name=f"{name}_bn{place}")
            x = activation(x, "relu", name=f"{name}_act{place + 1}")
            place += 2
        if not (small_stem and i < 2):
            x = keras.layers.MaxPooling2D(2, name=f"{name}_pool{place}")(x)
        place += 1
        maps[name] = x
    return maps


def head(
    x: Tensor,
    config: VGGConfig,  # noqa: ARG001 - part of every head's signature
    *,
    num_classes: int,
    pool: str | None,
    dropout: float,
    activation: str | None,
) -> Tensor:
    """Two wide layers as convolutions, pooling, a dense layer: (B, H, W, 512) -> (B, num_classes).

    A map below 7 x 7 is brought up to it, each value the mean of the pixels it lies over.
    """
    if any(side is None or side < KERNEL for side in x.shape[1:3]):
        x = MinimumSize(KERNEL, name="head_size")(x)
    x = conv(x, HIDDEN, KERNEL, name="head_fc1", padding="valid", bias=True)
    x = keras.layers.ReLU(name="head_act1")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="head_dropout1")(x)
    x = conv(x, HIDDEN, 1, name="head_fc2", bias=True)
    x = keras.layers.ReLU(name="head_act2")(x)
    x = global_pool(x, pool)
    return classifier(x, num_classes=num_classes, dropout=dropout, activation=activation)


RENAMES = (  # our layer name -> timm module
    (r"^(stem|stage\d+)_(conv|bn)(\d+)$", r"features.\3"),
    (r"^head_(fc[12])$", r"pre_logits.\1"),
    (r"^head$", "head.fc"),
)
_TABLE = (  # layers, convolutions before each pooling, params without and with batch norm
    (11, (1, 1, 2, 2, 2), 132_863_336, 132_868_840),
    (13, (2, 2, 2, 2, 2), 133_047_848, 133_053_736),
    (16, (2, 2, 3, 3, 3), 138_357_544, 138_365_992),
    (19, (2, 2, 4, 4, 4), 143_667_240, 143_678_248),
)


def _variants() -> tuple[Variant, ...]:
    found = []
    for layers, depths, plain, normed in _TABLE:
        aliases = (f"VGG{layers}",) if layers in (16, 19) else ()
        found.append(
            Variant(
                name=f"vgg{layers}", config=VGGConfig(depths=depths), params=plain, aliases=aliases
            )
        )
        config = VGGConfig(depths=depths, norm=NormConfig())
        found.append(Variant(name=f"vgg{layers}_bn", config=config, params=normed))
    return tuple(found)


FAMILY = Family(
    name="vgg",
    paper="arXiv:1409.1556",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=head,
    dilates=False,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=_variants(),
)
