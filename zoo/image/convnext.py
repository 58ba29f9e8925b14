"""ConvNeXt and ConvNeXt V2: depthwise 7x7 convolutions with layer norm between inverted 1x1 pairs.

Source: Liu et al. 2022, arXiv:2201.03545, figure 4 and appendix A; V2: Woo et al. 2023,
arXiv:2301.00808, figure 5 and table 1. The sizes below tiny, and those with overlapping stems, as
in timm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import keras

from zoo.blocks import (
    StageStride,
    Tensor,
    activation,
    classifier,
    conv,
    dense,
    depthwise_conv,
    drop_path,
    drop_path_rates,
    global_pool,
    layer_norm,
    plan_strides,
    round_width,
)
from zoo.layers import GlobalResponseNorm, LayerScale
from zoo.spec import Family, Layout, Variant

KERNEL = 7
MLP_RATIO = 4
EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig:
    """One size of the family."""

    depths: tuple[int, ...]  # blocks per stage
    widths: tuple[int, ...]  # channels per stage
    stem: Literal["patch", "overlap", "tiered"] = "patch"  # tiered: half the width in between
    scale: float | None = 1e-6  # start of the layer scale; None: none
    response_norm: bool = False  # between the two 1x1 convolutions
    pointwise: Literal["dense", "conv"] = "dense"  # what the checkpoint has
    norm_before_pool: bool = False
    hidden: int | None = None  # width of a layer before the classifier


def stem(x: Tensor, config: ConvNeXtConfig, *, small: bool) -> Tensor:
    """(B, H, W, 3) -> (B, H/4, W/4, widths[0]); the small stem keeps H and W."""
    width = config.widths[0]
    if small:
        x = conv(x, width, 3, name="stem_conv0", bias=True)
    elif config.stem == "patch":
        x = conv(x, width, 4, 4, name="stem_conv0", padding="valid", bias=True)
    else:
        between = width if config.stem == "overlap" else round_width(width // 2)
        x = conv(x, between, 3, 2, name="stem_conv0", bias=True)
        x = conv(x, width, 3, 2, name="stem_conv1", bias=True)
    last = 1 if small or config.stem == "patch" else 2
    return layer_norm(x, EPSILON, name=f"stem_norm{last}")


def block(x: Tensor, config: ConvNeXtConfig, dilation: int, drop: float, name: str) -> Tensor:
    """Residual block: (B, H, W, C) -> (B, H, W, C)."""
    width, skip = x.shape[-1], x
    x = depthwise_conv(x, KERNEL, name=f"{name}_dw_conv", dilation=dilation, bias=True)
    x = layer_norm(x, EPSILON, name=f"{name}_norm")
    x = pointwise(x, MLP_RATIO * width, config, f"{name}_fc1")
    x = activation(x, "gelu", name=f"{name}_act")
    if config.response_norm:
        x = GlobalResponseNorm(name=f"{name}_grn")(x)
    x = pointwise(x, width, config, f"{name}_fc2")
    if config.scale is not None:
        x = LayerScale(config.scale, name=f"{name}_scale")(x)
    x = drop_path(x, drop, name=f"{name}_drop_path")
    return keras.layers.Add(name=f"{name}_add")([x, skip])


def pointwise(x: Tensor, width: int, config: ConvNeXtConfig, name: str) -> Tensor:
    """A dense layer at every pixel: (B, H, W, C) -> (B, H, W, width)."""
    if config.pointwise == "conv":
        return conv(x, width, 1, name=name, bias=True)
    return dense(x, width, name=name)


def downsample(x: Tensor, width: int, step: StageStride, name: str) -> Tensor:
    """Norm and 2x2 convolution between stages: (B, H, W, C) -> (B, H/stride, W/stride, width)."""
    x = layer_norm(x, EPSILON, name=f"{name}_norm")
    return conv(
        x,
        width,
        2,
        step.stride,
        name=f"{name}_conv",
        padding="valid" if step.dilation == 1 else "same",
        dilation=step.first_dilation,
        bias=True,
    )


def features(
    x: Tensor,
    config: ConvNeXtConfig,
    *,
    output_stride: int | None,
    small_stem: bool,
    drop_path: float,
) -> dict[str, Tensor]:
    """Maps (B, H, W, 3) to `stem`, `stage1`, ...: strides 4, 4, 8, 16, 32; small 1, 1, 2, 4, 8."""
    x = stem(x, config, small=small_stem)
    maps = {"stem": x}
    start = 1 if small_stem else 4
    plan = plan_strides((1, 2, 2, 2), start=start, output_stride=output_stride)
    drops = iter(drop_path_rates(drop_path, sum(config.depths), last=True))
    for i, (depth, width, step) in enumerate(
        zip(config.depths, config.widths, plan, strict=True), start=1
    ):
        if i > 1:
            x = downsample(x, width, step, f"stage{i}_down")
        for j in range(1, depth + 1):
            x = block(x, config, step.dilation, next(drops), f"stage{i}_block{j}")
        maps[f"stage{i}"] = x
    return maps


def head(
    x: Tensor,
    config: ConvNeXtConfig,
    *,
    num_classes: int,
    pool: str | None,
    dropout: float,
    activation: str | None,
) -> Tensor:
    """Pooling, norm, a dense layer: (B, H, W, C) -> (B, num_classes)."""
    if config.norm_before_pool:
        x = layer_norm(x, EPSILON, name="head_norm_pre")
        x = global_pool(x, pool)
    else:
        x = global_pool(x, pool)
        x = layer_norm(x, EPSILON, name="head_norm")
    if config.hidden is not None:
        x = dense(x, config.hidden, name="head_hidden")
        x = keras.layers.Activation("gelu", name="head_hidden_act")(x)
    return classifier(x, num_classes=num_classes, dropout=dropout, activation=activation)


RENAMES = (  # our layer name -> timm module
    (r"^stage(\d+)_block(\d+)_", lambda m: f"stages.{int(m[1]) - 1}.blocks.{int(m[2]) - 1}."),
    (r"^stage(\d+)_down_norm$", lambda m: f"stages.{int(m[1]) - 1}.downsample.0"),
    (r"^stage(\d+)_down_conv$", lambda m: f"stages.{int(m[1]) - 1}.downsample.1"),
    (r"\.dw_conv$", ".conv_dw"),
    (r"\.(fc1|fc2|grn)$", r".mlp.\1"),
    (r"\.scale$", ""),
    (r"^stem_(conv|norm)(\d)$", r"stem.\2"),
    (r"^head_norm_pre$", "norm_pre"),
    (r"^head_norm$", "head.norm"),
    (r"^head_hidden$", "head.pre_logits.fc"),
    (r"^head$", "head.fc"),
)

_A, _N, _T, _B = (2, 2, 6, 2), (2, 2, 8, 2), (3, 3, 9, 3), (3, 3, 27, 3)  # depths
_SIZES = (  # name, depths, first width, params, input size, params of V2, its input size
    ("atto", _A, 40, 3_695_520, 224, 3_708_400, 224),
    ("femto", _A, 48, 5_217_784, 224, 5_233_240, 224),
    ("pico", _A, 64, 9_045_672, 224, 9_066_280, 224),
    ("nano", _N, 80, 15_593_560, 224, 15_623_800, 224),
    ("tiny", _T, 96, 28_589_128, 224, 28_635_496, 224),
    ("small", _B, 96, 50_223_688, 224, 50_318_440, 224),
    ("base", _B, 128, 88_591_464, 224, 88_717_800, 224),
    ("large", _B, 192, 197_767_336, 224, 197_956_840, 224),
)


def _widths(first: int) -> tuple[int, ...]:
    return tuple(first * 2**i for i in range(4))


def _variants() -> tuple[Variant, ...]:
    found = []
    for name, depths, first, params, size, params2, size2 in _SIZES:
        pointwise: Literal["dense", "conv"] = "conv" if first <= 80 else "dense"
        first_version = ConvNeXtConfig(depths=depths, widths=_widths(first), pointwise=pointwise)
        second = replace(first_version, scale=None, response_norm=True)
        alias = (f"ConvNeXt{name.title()}",) if first >= 96 else ()
        found += [
            Variant(
                name=f"convnext_{name}",
                config=first_version,
                params=params,
                input_size=size,
                aliases=alias,
            ),
            Variant(
                name=f"convnextv2_{name}",
                config=second,
                params=params2,
                input_size=size2,
                paper="arXiv:2301.00808",
            ),
        ]
    return tuple(found)


def _small(name: str, depths: tuple[int, ...], first: int, params: int, **config: Any) -> Variant:
    shape = ConvNeXtConfig(depths=depths, widths=_widths(first), pointwise="conv", **config)
    return Variant(name=f"convnext_{name}", config=shape, params=params)


_XLARGE = ConvNeXtConfig(depths=_B, widths=_widths(256))
_LARGE_MLP = ConvNeXtConfig(depths=_B, widths=_widths(192), hidden=1536)
_HUGE = ConvNeXtConfig(depths=_B, widths=_widths(352), scale=None, response_norm=True)

FAMILY = Family(
    name="convnext",
    paper="arXiv:2201.03545",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=head,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(
        *_variants(),
        _small("atto_ols", _A, 40, 3_702_912, stem="tiered"),
        _small("femto_ols", _A, 48, 5_226_520, stem="tiered"),
        _small("pico_ols", _A, 64, 9_061_928, stem="tiered"),
        _small("nano_ols", _N, 80, 15_649_560, stem="overlap"),
        _small("tiny_hnf", _T, 96, 28_589_128, norm_before_pool=True),
        Variant(name="convnext_large_mlp", config=_LARGE_MLP, params=200_128_168, input_size=320),
        Variant(
            name="convnext_xlarge", config=_XLARGE, params=350_196_968, aliases=("ConvNeXtXLarge",)
        ),
        Variant(
            name="convnextv2_huge",
            config=_HUGE,
            params=660_289_640,
            input_size=384,
            paper="arXiv:2301.00808",
        ),
    ),
)
