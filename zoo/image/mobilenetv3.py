"""MobileNet V3: hard swish, squeeze-excitation, and a head convolution after the pooling.

Source: Howard et al. 2019, arXiv:1905.02244, tables 1 and 2; constants as in timm. The `tf_` sizes
have TensorFlow's SAME padding and epsilon 1e-3, as keras.applications has.
"""

from __future__ import annotations

from dataclasses import replace

import keras

from zoo.blocks import (
    NormConfig,
    Tensor,
    batch_norm,
    classifier,
    conv,
    global_pool,
    round_width,
)
from zoo.blocks import activation as _activation
from zoo.image.mbconv import (
    RENAMES,
    Block,
    Stages,
    TrunkConfig,
    features,
    scale_stages,
)
from zoo.spec import Family, Layout, Variant

LARGE: Stages = (  # table 1
    (Block(kind="separable", width=16, act="relu"),),
    (
        Block(stride=2, expansion=4, width=24, act="relu"),
        Block(expansion=3, width=24, act="relu"),
    ),
    (Block(repeats=3, kernel=5, stride=2, expansion=3, width=40, se=0.25, act="relu"),),
    (
        Block(stride=2, expansion=6, width=80),
        Block(expansion=2.5, width=80),
        Block(repeats=2, expansion=2.3, width=80),
    ),
    (Block(repeats=2, width=112, se=0.25),),
    (Block(repeats=3, kernel=5, stride=2, width=160, se=0.25),),
    (Block(kind="conv", kernel=1, width=960, skip=False),),
)
SMALL: Stages = (  # table 2
    (Block(kind="separable", stride=2, width=16, se=0.25, act="relu"),),
    (
        Block(stride=2, expansion=4.5, width=24, act="relu"),
        Block(expansion=3.67, width=24, act="relu"),
    ),
    (
        Block(kernel=5, stride=2, expansion=4, width=40, se=0.25),
        Block(repeats=2, kernel=5, width=40, se=0.25),
    ),
    (Block(repeats=2, kernel=5, expansion=3, width=48, se=0.25),),
    (Block(repeats=3, kernel=5, stride=2, width=96, se=0.25),),
    (Block(kind="conv", kernel=1, width=576, skip=False),),
)


def minimal(stages: Stages) -> Stages:
    """The minimalistic models: 3x3 kernels, no squeeze-excitation, ReLU throughout."""
    return tuple(
        tuple(replace(row, kernel=min(row.kernel, 3), se=0.0, act=None) for row in rows)
        for rows in stages
    )


def config(
    stages: Stages,
    head_width: int,
    width: float = 1.0,
    depth: float = 1.0,
    *,
    act: str = "hard_silu",
) -> TrunkConfig:
    """Scales a table, never the head's width; below 0.75 the stem keeps its 16 channels."""
    return TrunkConfig(
        stem_width=16 if width < 0.75 else round_width(16 * width),
        stages=scale_stages(stages, width=width, depth=depth),
        head_width=head_width,
        act=act,
        se_from="expanded",
        se_act="relu",
        se_gate="hard_sigmoid",
        se_divisor=8,
    )


def head(
    x: Tensor,
    config: TrunkConfig,
    *,
    num_classes: int,
    pool: str | None,
    dropout: float,
    activation: str | None,
) -> Tensor:
    """Pooling, then a 1x1 convolution: (B, H, W, C) -> (B, num_classes)."""
    kept = pool is None
    x = global_pool(x, pool)
    if not kept:
        x = keras.layers.Reshape((1, 1, x.shape[-1]), name="head_map")(x)
    x = conv(x, config.head_width, 1, name="head_conv", bias=not config.head_norm)
    if config.head_norm:
        x = batch_norm(x, config.norm, name="head_bn")
    x = _activation(x, config.act, name="head_act")
    if not kept:
        x = keras.layers.Flatten(name="head_flat")(x)
    return classifier(x, num_classes=num_classes, dropout=dropout, activation=activation)


_TF = NormConfig(epsilon=1e-3, padding="same")


def _tf(config: TrunkConfig) -> TrunkConfig:
    return replace(config, norm=_TF)


def _variant(name: str, config: TrunkConfig, params: int, size: int = 224) -> Variant:
    return Variant(name=name, config=config, params=params, input_size=size)


FAMILY = Family(
    name="mobilenetv3",
    paper="arXiv:1905.02244",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=head,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(
        _variant("mobilenetv3_small_050", config(SMALL, 1024, 0.5), 1_593_224),
        _variant("mobilenetv3_small_075", config(SMALL, 1024, 0.75), 2_041_872),
        _variant("mobilenetv3_small_100", config(SMALL, 1024), 2_542_856),
        _variant("mobilenetv3_large_075", config(LARGE, 1280, 0.75), 3_993_528),
        _variant("mobilenetv3_large_100", config(LARGE, 1280), 5_483_032),
        _variant("mobilenetv3_large_150d", config(LARGE, 1280, 1.5, 1.2), 14_622_320, 256),
        _variant("tf_mobilenetv3_small_075", _tf(config(SMALL, 1024, 0.75)), 2_041_872),
        _variant("tf_mobilenetv3_small_100", _tf(config(SMALL, 1024)), 2_542_856),
        _variant(
            "tf_mobilenetv3_small_minimal_100",
            _tf(config(minimal(SMALL), 1024, act="relu")),
            2_044_736,
        ),
        _variant("tf_mobilenetv3_large_075", _tf(config(LARGE, 1280, 0.75)), 3_993_528),
        _variant("tf_mobilenetv3_large_100", _tf(config(LARGE, 1280)), 5_483_032),
        _variant(
            "tf_mobilenetv3_large_minimal_100",
            _tf(config(minimal(LARGE), 1280, act="relu")),
            3_924_288,
        ),
    ),
)
