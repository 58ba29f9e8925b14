"""ResNet v1.5, ResNet-C/D/S/T, ResNeXt and Wide ResNet: the stride sits on the bottleneck's 3x3.

Source: He et al. 2015, arXiv:1512.03385, table 1 and fig. 5; stems and shortcuts C, D: He et al.
2018, arXiv:1812.01187, fig. 2; ResNeXt: Xie et al. 2016, arXiv:1611.05431, table 1; Wide ResNet:
Zagoruyko and Komodakis 2016, arXiv:1605.07146. Constants as in torchvision and timm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import keras

from zoo.blocks import (
    NormConfig,
    StageStride,
    Tensor,
    activation,
    batch_norm,
    conv,
    conv_norm,
    drop_path,
    drop_path_rates,
    linear_head,
    max_pool,
    plan_strides,
    round_width,
    squeeze_excite,
)
from zoo.spec import Family, Layout, Variant

SQUEEZE = 16  # channels / squeeze width


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """One size of the family."""

    depths: tuple[int, ...]  # residual blocks per stage
    widths: tuple[int, ...] = (
        64,
        128,
        256,
        512,
    )  # channels of a stage's 3x3 convolutions, before base_width
    expansion: tuple[int, ...] = (4, 4, 4, 4)  # output / inner channels; 1 selects the basic block
    groups: int = 1  # of the bottleneck's 3x3 convolution
    base_width: int = 64  # inner channels per group at width 64
    stem_widths: tuple[int, ...] = (64,)  # one 7x7 convolution, or three 3x3
    shortcut: Literal["conv", "avg"] = (
        "conv"  # how a shortcut shrinks: strided 1x1, or 2x2 mean and 1x1
    )
    attention: Literal["se", "eca"] | None = None  # over the channels, at the end of a branch
    norm: NormConfig = NormConfig()


def stem(x: Tensor, config: ResNetConfig, *, small: bool) -> Tensor:
    """(B, H, W, 3) -> (B, H/2, W/2, width); the small stem keeps (B, H, W, width)."""
    kernel = 3 if small or len(config.stem_widths) > 1 else 7
    for i, width in enumerate(config.stem_widths):
        stride = 2 if i == 0 and not small else 1
        suffix = str(i + 1) if len(config.stem_widths) > 1 else ""
        x = conv_norm(
            x, width, kernel, stride, name="stem", norm=config.norm, act="relu", suffix=suffix
        )
    return x


def shortcut(x: Tensor, out: int, step: StageStride, config: ResNetConfig, name: str) -> Tensor:
    """Brings the input to the block's output shape."""
    if config.shortcut == "conv":
        x = conv(x, out, 1, step.stride, name=f"{name}_shortcut_conv")
        return batch_norm(x, config.norm, name=f"{name}_shortcut_bn")
    name = f"{name}_shortcut_avg"
    if step.stride > 1:
        x = keras.layers.AveragePooling2D(2, 2, "same", name=f"{name}_pool")(x)
    elif step.dilation > 1:  # the reference counts the padded zeros here
        x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
        x = keras.layers.AveragePooling2D(2, 1, "valid", name=f"{name}_pool")(x)
    return conv_norm(x, out, 1, name=name, norm=config.norm)


def efficient_attention(x: Tensor, *, name: str) -> Tensor:
    """Scales each channel by its mean and its neighbours': (B, H, W, C) -> (B, H, W, C).

    Source: Wang et al. 2019, arXiv:1910.03151, figure 2 and equation 12.
    """
    channels = x.shape[-1]
    kernel = int((math.log2(channels) + 1) / 2)
    kernel = max(kernel if kernel % 2 else kernel + 1, 3)
    y = keras.layers.GlobalAveragePooling2D(name=f"{name}_pool")(x)
    y = keras.layers.Reshape((channels, 1), name=f"{name}_line")(y)
    y = keras.layers.Conv1D(1, kernel, padding="same", use_bias=False, name=f"{name}_conv")(y)
    y = keras.layers.Reshape((1, 1, channels), name=f"{name}_map")(y)
    y = activation(y, "sigmoid", name=f"{name}_gate")
    return keras.layers.Multiply(name=f"{name}_scale")([x, y])


def block(
    x: Tensor,
    config: ResNetConfig,
    width: int,
    expansion: int,
    step: StageStride,
    drop: float,
    name: str,
) -> Tensor:
    """Residual block: (B, H, W, C) -> (B, H/stride, W/stride, width * expansion)."""
    out = width * expansion
    norm = config.norm
    skip = x
    if step.stride != 1 or x.shape[-1] != out:
        skip = shortcut(x, out, step, config, name)
    if expansion == 1:
        x = conv_norm(
            x,
            width,
            3,
            step.stride,
            name=name,
            norm=norm,
            act="relu",
            suffix="1",
            dilation=step.first_dilation,
        )
        x = conv_norm(
            x, out, 3, name=name, norm=norm, suffix="2", dilation=step.dilation, zero_gamma=True
        )
    else:
        inner = width * config.base_width // 64 * config.groups
        x = conv_norm(x, inner, 1, name=name, norm=norm, act="relu", suffix="1")
        x = conv_norm(
            x,
            inner,
            3,
            step.stride,
            name=name,
            norm=norm,
            act="relu",
            suffix="2",
            dilation=step.first_dilation,
            groups=config.groups,
        )
        x = conv_norm(x, out, 1, name=name, norm=norm, suffix="3", zero_gamma=True)
    if config.attention == "se":
        x = squeeze_excite(x, round_width(x.shape[-1] / SQUEEZE, limit=0.0), name=f"{name}_se")
    elif config.attention == "eca":
        x = efficient_attention(x, name=f"{name}_eca")
    x = drop_path(x, drop, name=f"{name}_drop_path")
    x = keras.layers.Add(name=f"{name}_add")([x, skip])
    return keras.layers.Activation("relu", name=f"{name}_out")(x)


def features(
    x: Tensor,
    config: ResNetConfig,
    *,
    output_stride: int | None,
    small_stem: bool,
    drop_path: float,
) -> dict[str, Tensor]:
    """Maps (B, H, W, 3) to `stem`, `stage1`, ...: strides 2, 4, 8, 16, 32; small 1, 1, 2, 4, 8."""
    x = stem(x, config, small=small_stem)
    maps = {"stem": x}
    if not small_stem:
        x = max_pool(x, 3, 2, name="stem_pool")
    plan = plan_strides((1, 2, 2, 2), start=1 if small_stem else 4, output_stride=output_stride)
    drops = iter(drop_path_rates(drop_path, sum(config.depths), last=True))
    for i, (depth, width, expansion, step) in enumerate(
        zip(config.depths, config.widths, config.expansion, plan, strict=True), start=1
    ):
        rest = StageStride(1, step.dilation, step.dilation)
        for j in range(1, depth + 1):
            name = f"stage{i}_block{j}"
            x = block(x, config, width, expansion, step if j == 1 else rest, next(drops), name)
        maps[f"stage{i}"] = x
    return maps


RENAMES = (  # our layer name -> timm and torchvision module
    (r"^stage(\d+)_block(\d+)_", lambda m: f"layer{m[1]}.{int(m[2]) - 1}."),
    (r"shortcut_conv$", "downsample.0"),
    (r"shortcut_bn$", "downsample.1"),
    (r"shortcut_avg_conv$", "downsample.1"),
    (r"shortcut_avg_bn$", "downsample.2"),
    (r"\.se_reduce$", ".se.fc1"),
    (r"\.se_expand$", ".se.fc2"),
    (r"\.eca_conv$", ".se.conv"),
    (r"^stem_conv$", "conv1"),
    (r"^stem_bn3?$", "bn1"),
    (r"^stem_conv([123])$", lambda m: f"conv1.{3 * (int(m[1]) - 1)}"),
    (r"^stem_bn([12])$", lambda m: f"conv1.{3 * int(m[1]) - 2}"),
    (r"^head$", "fc"),
)

_18, _26, _34 = (2, 2, 2, 2), (2, 2, 2, 2), (3, 4, 6, 3)
_50, _101, _152, _200 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3), (3, 24, 36, 3)
_BASIC = (1, 1, 1, 1)
_C, _S, _T = (32, 32, 64), (64, 64, 128), (24, 32, 64)  # stem widths


def _variant(
    name: str, depths: tuple[int, ...], params: int, size: int = 224, **config: Any
) -> Variant:
    return Variant(
        name=name, config=ResNetConfig(depths=depths, **config), params=params, input_size=size
    )


def _d(name: str, depths: tuple[int, ...], params: int, size: int = 224, **config: Any) -> Variant:
    return _variant(name, depths, params, size, **{"stem_widths": _C, "shortcut": "avg", **config})


FAMILY = Family(
    name="resnet",
    paper="arXiv:1512.03385",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=linear_head,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(
        _variant("resnet18", _18, 11_689_512, expansion=_BASIC),
        _variant("resnet26", _26, 15_995_176),
        _variant("resnet34", _34, 21_797_672, expansion=_BASIC),
        _variant("resnet50", _50, 25_557_032),
        _variant("resnet101", _101, 44_549_160),
        _variant("resnet152", _152, 60_192_808),
        _variant("resnet200", _200, 64_673_832),
        _variant("resnet50c", _50, 25_576_264, stem_widths=_C),
        _variant("resnet101c", _101, 44_568_392, stem_widths=_C),
        _variant("resnet152c", _152, 60_212_040, stem_widths=_C),
        _variant("resnet50s", _50, 25_680_808, stem_widths=_S),
        _variant("resnet101s", _101, 44_672_936, stem_widths=_S),
        _variant("resnet152s", _152, 60_316_584, stem_widths=_S),
        _d("resnet18d", _18, 11_708_744, expansion=_BASIC),
        _d("resnet26d", _26, 16_014_408),
        _d("resnet34d", _34, 21_816_904, expansion=_BASIC),
        _d("resnet50d", _50, 25_576_264),
        _d("resnet101d", _101, 44_568_392, 256),
        _d("resnet152d", _152, 60_212_040, 256),
        _d("resnet200d", _200, 64_693_064, 256),
        _d("resnet10t", (1, 1, 1, 1), 5_435_488, 176, expansion=_BASIC, stem_widths=_T),
        _d("resnet14t", (1, 1, 1, 1), 10_081_632, 176, stem_widths=_T),
        _d("resnet26t", _26, 16_011_872, 256, stem_widths=_T),
        _d("resnet50t", _50, 25_573_728, stem_widths=_T),
        _variant("resnext50_32x4d", _50, 25_028_904, groups=32, base_width=4),
        _d("resnext50d_32x4d", _50, 25_048_136, groups=32, base_width=4),
        _variant("resnext101_32x4d", _101, 44_177_704, groups=32, base_width=4),
        _variant("resnext101_32x8d", _101, 88_791_336, groups=32, base_width=8),
        _variant("resnext101_32x16d", _101, 194_026_792, groups=32, base_width=16),
        _variant("resnext101_32x32d", _101, 468_530_472, groups=32, base_width=32),
        _variant("resnext101_64x4d", _101, 83_455_272, groups=64, base_width=4),
        _variant("wide_resnet50_2", _50, 68_883_240, base_width=128),
        _variant("wide_resnet101_2", _101, 126_886_696, base_width=128),
        _d(
            "test_resnet",
            (1, 1, 1, 1),
            469_688,
            160,
            widths=(32, 48, 48, 96),
            expansion=(1, 1, 4, 1),
            stem_widths=(16, 16, 32),
        ),
    ),
)
