"""Xception: depthwise separable convolutions throughout, in residual blocks.

Source: Chollet 2016, arXiv:1610.02357, figure 5. timm calls it `legacy_xception`.
"""

from __future__ import annotations

import keras

from zoo.blocks import (
    NormConfig,
    Padding,
    Tensor,
    activation,
    batch_norm,
    conv,
    depthwise_conv,
    linear_head,
    max_pool,
)
from zoo.spec import Family, Layout, Variant

NORM = NormConfig()
# Widths of the separable convolutions of each block, and its stride.
BLOCKS: tuple[tuple[tuple[int, ...], int], ...] = (
    ((128, 128), 2),
    ((256, 256), 2),
    ((728, 728), 2),
    *(((728, 728, 728), 1) for _ in range(8)),
    ((728, 1024), 2),
)
STAGE_ENDS = {1: "stage1", 2: "stage2", 11: "stage3"}  # by block


def block(x: Tensor, widths: tuple[int, ...], stride: int, place: int) -> Tensor:
    """Residual block: (B, H, W, C) -> (B, H/stride, W/stride, widths[-1]).

    Layers carry their place in the reference's sequence of ReLU, convolution, norm.
    """
    name, skip = f"block{place}", x
    if stride != 1 or x.shape[-1] != widths[-1]:
        skip = conv(x, widths[-1], 1, stride, name=f"{name}_skip_conv")
        skip = batch_norm(skip, NORM, name=f"{name}_skip_bn")
    first = 0
    for i, width in enumerate(widths):
        if place > 1 or i > 0:
            x = activation(x, "relu", name=f"{name}_act{first}")
            first += 1
        x = depthwise_conv(x, 3, name=f"{name}_dw{first}_conv")
        x = conv(x, width, 1, name=f"{name}_pw{first}_conv")
        x = batch_norm(x, NORM, name=f"{name}_bn{first + 1}")
        first += 2
    if stride != 1:
        x = max_pool(x, 3, stride, name=f"{name}_pool", signed=True)
    return keras.layers.Add(name=f"{name}_add")([x, skip])


def features(
    x: Tensor,
    config: None,
    *,
    output_stride: int | None,
    small_stem: bool,
    drop_path: float,
) -> dict[str, Tensor]:
    """Maps (B, H, W, 3) to `stem`, `stage1`, ...: strides 2, 4, 8, 16, 32; small 1, 1, 2, 4, 8.

    No branch can be dropped.
    """
    del config, output_stride, drop_path
    padding: Padding = "sym" if small_stem else "valid"
    for n, (width, stride) in enumerate(((32, 1 if small_stem else 2), (64, 1)), start=1):
        x = conv(x, width, 3, stride, name=f"stem_conv{n}", padding=padding)
        x = activation(batch_norm(x, NORM, name=f"stem_bn{n}"), "relu", name=f"stem_act{n}")
    maps = {"stem": x}
    for place, (widths, stride) in enumerate(BLOCKS, start=1):
        x = block(x, widths, 1 if small_stem and place == 1 else stride, place)
        if place in STAGE_ENDS:
            maps[STAGE_ENDS[place]] = x
    for n, width in ((3, 1536), (4, 2048)):
        x = depthwise_conv(x, 3, name=f"last_dw{n}_conv")
        x = conv(x, width, 1, name=f"last_pw{n}_conv")
        x = activation(batch_norm(x, NORM, name=f"last_bn{n}"), "relu", name=f"last_act{n}")
    maps["stage4"] = x
    return maps


RENAMES = (  # our layer name -> timm module
    (r"^block(\d+)_dw(\d+)_conv$", r"block\1.rep.\2.conv1"),
    (r"^block(\d+)_pw(\d+)_conv$", r"block\1.rep.\2.pointwise"),
    (r"^block(\d+)_bn(\d+)$", r"block\1.rep.\2"),
    (r"^block(\d+)_skip_conv$", r"block\1.skip"),
    (r"^block(\d+)_skip_bn$", r"block\1.skipbn"),
    (r"^stem_(conv|bn)(\d)$", r"\1\2"),
    (r"^last_dw(\d)_conv$", r"conv\1.conv1"),
    (r"^last_pw(\d)_conv$", r"conv\1.pointwise"),
    (r"^last_bn(\d)$", r"bn\1"),
    (r"^head$", "fc"),
)

FAMILY = Family(
    name="xception",
    paper="arXiv:1610.02357",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=linear_head,
    dilates=False,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(Variant(name="legacy_xception", config=None, params=22_855_952, input_size=299),),
)
