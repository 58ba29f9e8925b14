"""EfficientNet V2: fused blocks in the early stages, smaller expansion, no squeeze there.

Source: Tan and Le 2021, arXiv:2104.00298, table 4; the base sizes, and M, L, XL as in the authors'
released code. Constants as in timm; the `tf_` sizes have SAME padding and epsilon 1e-3.
"""

from __future__ import annotations

from dataclasses import replace

from zoo.blocks import NormConfig, round_width
from zoo.image.mbconv import (
    RENAMES,
    Block,
    Stages,
    TrunkConfig,
    convolution_head,
    features,
    scale_stages,
)
from zoo.spec import Family, Layout, Variant

Row = tuple[int, int, float, int]  # repeats, stride, expansion, width
TF = NormConfig(epsilon=1e-3, padding="same")


def _stages(plain: tuple[int, int], fused: tuple[Row, ...], squeezed: tuple[Row, ...]) -> Stages:
    """Plain convolutions (repeats, width), then fused blocks, then inverted ones with attention."""
    rows = [Block(kind="conv", repeats=plain[0], width=plain[1], skip=True)]
    rows += [
        Block(kind="fused", repeats=n, stride=stride, expansion=expansion, width=width)
        for n, stride, expansion, width in fused
    ]
    rows += [
        Block(kind="inverted", repeats=n, stride=stride, expansion=expansion, width=width, se=0.25)
        for n, stride, expansion, width in squeezed
    ]
    return tuple((row,) for row in rows)


BASE = _stages(
    (1, 16),
    ((2, 2, 4, 32), (2, 2, 4, 48)),
    ((3, 2, 4, 96), (5, 1, 6, 112), (8, 2, 6, 192)),
)
S = _stages(
    (2, 24),
    ((4, 2, 4, 48), (4, 2, 4, 64)),
    ((6, 2, 4, 128), (9, 1, 6, 160), (15, 2, 6, 256)),
)
RW_S: Stages = (  # as published before the authors' code
    (Block(kind="fused", repeats=2, expansion=1, width=24),),
    *S[1:-1],
    (replace(S[-1][0], width=272),),
)
M = _stages(
    (3, 24),
    ((5, 2, 4, 48), (5, 2, 4, 80)),
    ((7, 2, 4, 160), (14, 1, 6, 176), (18, 2, 6, 304), (5, 1, 6, 512)),
)
L = _stages(
    (4, 32),
    ((7, 2, 4, 64), (7, 2, 4, 96)),
    ((10, 2, 4, 192), (19, 1, 6, 224), (25, 2, 6, 384), (7, 1, 6, 640)),
)
XL = _stages(
    (4, 32),
    ((8, 2, 4, 64), (8, 2, 4, 96)),
    ((16, 2, 4, 192), (24, 1, 6, 256), (32, 2, 6, 512), (8, 1, 6, 640)),
)


def config(
    stages: Stages,
    width: float = 1.0,
    depth: float | tuple[float, ...] = 1.0,
    *,
    stem: int = 24,
    head: int = 1280,
    limit: float = 0.9,
    norm: NormConfig = NormConfig(),
) -> TrunkConfig:
    """Scales a table; `limit` is the share of a width that rounding must keep."""
    return TrunkConfig(
        stem_width=round_width(stem * width, limit=limit),
        stages=scale_stages(stages, width=width, depth=depth, limit=limit),
        head_width=round_width(head * width, limit=limit),
        act="silu",
        norm=norm,
    )


def base(width: float = 1.0, depth: float = 1.0) -> TrunkConfig:
    """The sizes b0 to b3, as in TensorFlow."""
    return config(BASE, width, depth, stem=32, limit=0.0, norm=TF)


def _variant(name: str, config: TrunkConfig, params: int, size: int) -> Variant:
    return Variant(name=name, config=config, params=params, input_size=size)


def _tf(letter: str, config: TrunkConfig, params: int, size: int) -> Variant:
    return Variant(
        name=f"tf_efficientnetv2_{letter}",
        config=replace(config, norm=TF),
        params=params,
        input_size=size,
        aliases=() if letter == "xl" else (f"EfficientNetV2{letter.upper()}",),
    )


_L, _XL = config(L, stem=32), config(XL, stem=32)
_RW_M = config(RW_S, 1.2, (1.2, 1.2, 1.2, 1.2, 1.6, 1.6), head=1792)

FAMILY = Family(
    name="efficientnetv2",
    paper="arXiv:2104.00298",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=convolution_head,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(
        _variant("efficientnetv2_rw_t", config(S, 0.8, 0.9), 13_649_388, 224),
        _variant("efficientnetv2_rw_s", config(RW_S, head=1792), 23_941_296, 288),
        _variant("efficientnetv2_rw_m", _RW_M, 53_236_442, 320),
        _variant("efficientnetv2_s", config(S), 21_458_488, 288),
        _variant("efficientnetv2_m", config(M), 54_139_356, 320),
        _variant("efficientnetv2_l", _L, 118_515_272, 384),
        _variant("efficientnetv2_xl", _XL, 208_119_808, 384),
        _tf("b0", base(), 7_139_704, 192),
        _tf("b1", base(1.0, 1.1), 8_141_052, 192),
        _tf("b2", base(1.1, 1.2), 10_096_086, 208),
        _tf("b3", base(1.2, 1.4), 14_358_406, 240),
        _tf("s", config(S), 21_458_488, 300),
        _tf("m", config(M), 54_139_356, 384),
        _tf("l", _L, 118_515_272, 384),
        _tf("xl", _XL, 208_119_808, 384),
    ),
)
