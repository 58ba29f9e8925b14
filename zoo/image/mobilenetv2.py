"""MobileNet V2: linear bottlenecks and ReLU6.

Source: Sandler et al. 2018, arXiv:1801.04381, table 2; constants and symmetric padding as in timm.
"""

from __future__ import annotations

from zoo.blocks import round_width
from zoo.image.mbconv import (
    RENAMES,
    Block,
    TrunkConfig,
    convolution_head,
    features,
    scale_stages,
)
from zoo.spec import Family, Layout, Variant

STAGES = (  # table 2: expansion, width, repeats, stride
    (Block(kind="separable", width=16),),
    (Block(repeats=2, stride=2, width=24),),
    (Block(repeats=3, stride=2, width=32),),
    (Block(repeats=4, stride=2, width=64),),
    (Block(repeats=3, width=96),),
    (Block(repeats=3, stride=2, width=160),),
    (Block(width=320),),
)


def config(width: float, depth: float = 1.0) -> TrunkConfig:
    """Scales table 2; deepened sizes ("d") leave stem, head and the outer stages' depth alone."""
    deepened = depth != 1.0
    return TrunkConfig(
        stem_width=32 if deepened else round_width(32 * width),
        stages=scale_stages(STAGES, width=width, depth=depth, fixed_ends=deepened),
        head_width=1280 if deepened else max(1280, round_width(1280 * width)),
        act="relu6",
    )


FAMILY = Family(
    name="mobilenetv2",
    paper="arXiv:1801.04381",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=convolution_head,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(
        Variant(name="mobilenetv2_035", config=config(0.35), params=1_677_128),
        Variant(name="mobilenetv2_050", config=config(0.5), params=1_968_680),
        Variant(name="mobilenetv2_075", config=config(0.75), params=2_636_424),
        Variant(name="mobilenetv2_100", config=config(1.0), params=3_504_872),
        Variant(name="mobilenetv2_140", config=config(1.4), params=6_108_776),
        Variant(name="mobilenetv2_110d", config=config(1.1, 1.2), params=4_516_520),
        Variant(name="mobilenetv2_120d", config=config(1.2, 1.4), params=5_831_144),
    ),
)
