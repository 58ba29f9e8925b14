"""The trunk of inverted residuals that MobileNet V2/V3 and EfficientNet share.

Source: Sandler et al. 2018, arXiv:1801.04381, fig. 3; with squeeze-excitation: Howard et al. 2019,
arXiv:1905.02244, fig. 4. Channel rounding as in TensorFlow's reference code and timm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import keras

from zoo.blocks import (
    NormConfig,
    Padding,
    StageStride,
    Tensor,
    activation,
    batch_norm,
    classifier,
    conv_norm,
    depthwise_conv,
    drop_path,
    drop_path_rates,
    global_pool,
    plan_strides,
    round_width,
    squeeze_excite,
)
from zoo.spec import Renames


@dataclass(frozen=True, kw_only=True)
class Block:
    """A run of equal blocks; only the first one of a stage may have a stride."""

    kind: Literal["separable", "inverted", "fused", "universal", "conv"] = "inverted"
    repeats: int = 1
    kernel: int = 3  # of the depthwise, fused or only convolution; 0: none, if universal
    start: int = 0  # kernel of a depthwise convolution before the expansion, if universal; 0: none
    stride: int = 1
    expansion: float = 6.0  # inner / input channels
    width: int  # output channels
    se: float = 0.0  # squeeze width / channels that `TrunkConfig.se_from` names; 0: none
    act: str | None = None  # None: the trunk's
    skip: bool = True
    act_last: bool = False  # whether a separable block ends with its activation


Stages = tuple[tuple[Block, ...], ...]


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """One size: stem, stages and head width, after scaling."""

    stem_width: int
    stages: Stages
    head_width: int  # channels of the last 1x1 convolution
    head_norm: bool = False  # whether a convolution after the pooling has a norm instead of a bias
    act: str
    norm: NormConfig = NormConfig()
    stem_padding: Padding | None = None  # None: the norm's
    se_from: Literal["input", "expanded"] = "input"  # what `Block.se` is a share of
    se_act: str | None = None  # None: the block's
    se_gate: str = "sigmoid"
    se_divisor: int = 1  # squeeze widths are rounded to multiples of it


def scale_stages(
    stages: Stages,
    *,
    width: float = 1.0,
    depth: float | tuple[float, ...] = 1.0,
    fixed_ends: bool = False,
    limit: float = 0.9,
) -> Stages:
    """Compound scaling: widths by rounding, repeats by ceiling (arXiv:1905.11946, section 3.3).

    `depth` may be given by stage; `fixed_ends` leaves that of the first and the last stage alone.
    In a stage of several rows the added repeats go to the last rows first.
    """
    scaled = []
    depths = depth if isinstance(depth, tuple) else (depth,) * len(stages)
    for i, (rows, factor) in enumerate(zip(stages, depths, strict=True)):
        if fixed_ends and i in (0, len(stages) - 1):
            factor = 1.0
        left, target = (
            sum(r.repeats for r in rows),
            math.ceil(sum(r.repeats for r in rows) * factor),
        )
        repeats: list[int] = []
        for row in reversed(rows):
            share = max(1, round(row.repeats / left * target))
            repeats.insert(0, share)
            left, target = left - row.repeats, target - share
        scaled.append(
            tuple(
                replace(row, repeats=n, width=round_width(row.width * width, limit=limit))
                for row, n in zip(rows, repeats, strict=True)
            )
        )
    return tuple(scaled)


def _squeeze(
    x: Tensor, spec: Block, inputs: int, act: str, config: TrunkConfig, name: str
) -> Tensor:
    if not spec.se:
        return x
    width = (inputs if config.se_from == "input" else x.shape[-1]) * spec.se
    width = round(width) if config.se_divisor == 1 else round_width(width, config.se_divisor)
    return squeeze_excite(
        x, width, name=f"{name}_se", act=config.se_act or act, gate=config.se_gate
    )


def _depthwise(
    x: Tensor, spec: Block, step: StageStride, act: str, norm: NormConfig, name: str
) -> Tensor:
    x = depthwise_conv(
        x,
        spec.kernel,
        step.stride,
        name=f"{name}_dw_conv",
        padding=norm.padding,
        dilation=step.first_dilation,
    )
    x = batch_norm(x, norm, name=f"{name}_dw_bn")
    return activation(x, act, name=f"{name}_dw_act")


def _universal(
    x: Tensor, spec: Block, step: StageStride, act: str, norm: NormConfig, name: str
) -> Tensor:
    """Two optional depthwise convolutions, before and after the expansion.

    Source: Qin et al. 2024, arXiv:2404.10518, figure 4.
    """
    inner = round_width(x.shape[-1] * spec.expansion)
    if spec.start:
        stride = 1 if spec.kernel else step.stride
        x = depthwise_conv(
            x, spec.start, stride, name=f"{name}_start_conv", padding=norm.padding,
            dilation=step.first_dilation,
        )  # fmt: skip
        x = batch_norm(x, norm, name=f"{name}_start_bn")
    x = conv_norm(x, inner, 1, name=f"{name}_expand", norm=norm, act=act)
    if spec.kernel:
        x = _depthwise(x, spec, step, act, norm, name)
    return conv_norm(x, spec.width, 1, name=f"{name}_project", norm=norm)


def block(
    x: Tensor, spec: Block, step: StageStride, config: TrunkConfig, drop: float, name: str
) -> Tensor:
    """One block: (B, H, W, C) -> (B, H/stride, W/stride, spec.width)."""
    act, norm, inputs = spec.act or config.act, config.norm, x.shape[-1]
    skip = x
    name = f"{name}_{spec.kind}"
    if spec.kind == "conv":
        x = conv_norm(
            x, spec.width, spec.kernel, step.stride, name=name, norm=norm, act=act,
            dilation=step.first_dilation,
        )  # fmt: skip
    elif spec.kind == "separable":
        x = _depthwise(x, spec, step, act, norm, name)
        x = _squeeze(x, spec, inputs, act, config, name)
        last = act if spec.act_last else None
        x = conv_norm(x, spec.width, 1, name=f"{name}_pw", norm=norm, act=last)
    elif spec.kind == "universal":
        x = _universal(x, spec, step, act, norm, name)
    else:
        inner = round_width(inputs * spec.expansion)
        if spec.kind == "fused":
            x = conv_norm(
                x, inner, spec.kernel, step.stride, name=f"{name}_expand", norm=norm, act=act,
                dilation=step.first_dilation,
            )  # fmt: skip
        else:
            x = conv_norm(x, inner, 1, name=f"{name}_expand", norm=norm, act=act)
            x = _depthwise(x, spec, step, act, norm, name)
        x = _squeeze(x, spec, inputs, act, config, name)
        x = conv_norm(x, spec.width, 1, name=f"{name}_project", norm=norm)
    if not spec.skip or step.stride != 1 or inputs != spec.width:
        return x
    x = drop_path(x, drop, name=f"{name}_drop_path")
    return keras.layers.Add(name=f"{name}_add")([x, skip])


def _steps(rows: tuple[Block, ...], first: StageStride) -> Iterator[tuple[Block, StageStride]]:
    rest = StageStride(1, first.dilation, first.dilation)
    for i, row in enumerate(rows):
        for j in range(row.repeats):
            yield row, first if i == j == 0 else rest


def features(
    x: Tensor,
    config: TrunkConfig,
    *,
    output_stride: int | None,
    small_stem: bool,
    drop_path: float,
) -> dict[str, Tensor]:
    """Maps (B, H, W, 3) to `stem` at stride 2, `stage1`, ...; a small stem divides strides by 4."""
    x = conv_norm(
        x,
        config.stem_width,
        3,
        1 if small_stem else 2,
        name="stem",
        norm=replace(config.norm, padding=config.stem_padding or config.norm.padding),
        act=config.act,
    )
    maps = {"stem": x}
    strides = [rows[0].stride for rows in config.stages]
    if small_stem:
        strides[strides.index(2)] = 1
    plan = plan_strides(tuple(strides), start=1 if small_stem else 2, output_stride=output_stride)
    blocks = sum(row.repeats for rows in config.stages for row in rows)
    drops = iter(drop_path_rates(drop_path, blocks, last=False))
    for i, (rows, first) in enumerate(zip(config.stages, plan, strict=True), start=1):
        for j, (row, step) in enumerate(_steps(rows, first), start=1):
            x = block(x, row, step, config, next(drops), f"stage{i}_block{j}")
        maps[f"stage{i}"] = x
    return maps


def convolution_head(
    x: Tensor,
    config: TrunkConfig,
    *,
    num_classes: int,
    pool: str | None,
    dropout: float,
    activation: str | None,
) -> Tensor:
    """1x1 convolution (width 0: none), pooling, dense layer: (B, H, W, C) -> (B, num_classes)."""
    if config.head_width:
        x = conv_norm(x, config.head_width, 1, name="head", norm=config.norm, act=config.act)
    x = global_pool(x, pool)
    return classifier(x, num_classes=num_classes, dropout=dropout, activation=activation)


RENAMES: Renames = (  # our layer name -> timm module
    (r"^stage(\d+)_block(\d+)_", lambda m: f"blocks.{int(m[1]) - 1}.{int(m[2]) - 1}."),
    (r"_se_", r".se.conv_"),
    (r"\.conv_(conv|bn)$", lambda m: {"conv": ".conv", "bn": ".bn1"}[m[1]]),
    (r"\.separable_dw_conv$", ".conv_dw"),
    (r"\.separable_dw_bn$", ".bn1"),
    (r"\.separable_pw_conv$", ".conv_pw"),
    (r"\.separable_pw_bn$", ".bn2"),
    (r"\.inverted_expand_conv$", ".conv_pw"),
    (r"\.inverted_expand_bn$", ".bn1"),
    (r"\.inverted_dw_conv$", ".conv_dw"),
    (r"\.inverted_dw_bn$", ".bn2"),
    (r"\.(inverted|fused)_project_conv$", ".conv_pwl"),
    (r"\.inverted_project_bn$", ".bn3"),
    (r"\.fused_expand_conv$", ".conv_exp"),
    (r"\.fused_expand_bn$", ".bn1"),
    (r"\.fused_project_bn$", ".bn2"),
    (r"\.(separable|inverted|fused)\.se\.", ".se."),
    (r"\.universal_start_(conv|bn)$", r".dw_start.\1"),
    (r"\.universal_expand_(conv|bn)$", r".pw_exp.\1"),
    (r"\.universal_dw_(conv|bn)$", r".dw_mid.\1"),
    (r"\.universal_project_(conv|bn)$", r".pw_proj.\1"),
    (r"^stem_conv$", "conv_stem"),
    (r"^stem_bn$", "bn1"),
    (r"^head_conv$", "conv_head"),
    (r"^head_bn$", "bn2"),
    (r"^head$", "classifier"),
)
