"""MobileNet V1: depthwise separable convolutions.

Source: Howard et al. 2017, arXiv:1704.04861, table 1. `mobilenetv1_*` are timm's, `100h` has a
1x1 convolution before the pooling; `mobilenet_*` are keras.applications'. All have ReLU6.
"""

from __future__ import annotations

import re
from dataclasses import replace

from zoo.blocks import NormConfig, round_width
from zoo.image.mbconv import (
    RENAMES,
    Block,
    TrunkConfig,
    convolution_head,
    features,
    scale_stages,
)
from zoo.spec import Family, Layout, Renames, Variant

_ROW = Block(kind="separable", width=64, act_last=True, skip=False)
STAGES = (  # table 1, by resolution
    (_ROW,),
    (replace(_ROW, repeats=2, stride=2, width=128),),
    (replace(_ROW, repeats=2, stride=2, width=256),),
    (replace(_ROW, repeats=6, stride=2, width=512),),
    (replace(_ROW, repeats=2, stride=2, width=1024),),
)


def config(width: float, head_width: int = 0) -> TrunkConfig:
    """Scales table 1."""
    return TrunkConfig(
        stem_width=round_width(32 * width),
        stages=scale_stages(STAGES, width=width),
        head_width=head_width,
        act="relu6",
    )


def original(width: float) -> TrunkConfig:
    """Scales table 1 as keras.applications does, with zeros at the ends of maps alone."""
    return replace(
        config(width),
        norm=NormConfig(epsilon=1e-3, momentum=0.99, padding="end"),
        stem_padding="same",
    )


def _in_keras(match: re.Match[str]) -> str:
    end = "_bn" if match[3] == "bn" else ""
    return f"conv_{match[2]}_{int(match[1]) + 1}{end}"


KERAS_RENAMES: Renames = (  # our layer name, its blocks numbered through -> keras.applications'
    (r"^block(\d+)_separable_(dw|pw)_(conv|bn)$", _in_keras),
    (r"^stem_conv$", "conv1"),
    (r"^stem_bn$", "conv1_bn"),
    (r"^head$", "conv_preds"),
)


def _original(name: str, width: float, params: int, *aliases: str) -> Variant:
    return Variant(
        name=name,
        config=original(width),
        params=params,
        aliases=aliases,
        reference="keras.applications",
    )


FAMILY = Family(
    name="mobilenetv1",
    paper="arXiv:1704.04861",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=convolution_head,
    layouts=(
        Layout(name="timm", renames=RENAMES),
        Layout(name="keras", renames=KERAS_RENAMES, tensors="keras", flat=True),
    ),
    variants=(
        Variant(name="mobilenetv1_100", config=config(1.0), params=4_231_976),
        Variant(name="mobilenetv1_100h", config=config(1.0, 1024), params=5_282_600),
        Variant(name="mobilenetv1_125", config=config(1.25), params=6_270_840),
        _original("mobilenet_025", 0.25, 470_072),
        _original("mobilenet_050", 0.5, 1_331_592),
        _original("mobilenet_075", 0.75, 2_585_560),
        _original("mobilenet_100", 1.0, 4_231_976, "MobileNet"),
    ),
)
