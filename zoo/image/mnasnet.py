"""MnasNet: inverted residuals chosen by a search on a phone; `semnasnet` with attention.

Source: Tan et al. 2018, arXiv:1807.11626, figure 7; the small size as in TensorFlow's code.
"""

from __future__ import annotations

from zoo.blocks import round_width
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

_FIRST = Block(kind="separable", width=16, skip=False)
B1: Stages = (  # figure 7, without attention
    (_FIRST,),
    (Block(repeats=3, stride=2, expansion=3, width=24),),
    (Block(repeats=3, kernel=5, stride=2, expansion=3, width=40),),
    (Block(repeats=3, kernel=5, stride=2, width=80),),
    (Block(repeats=2, width=96),),
    (Block(repeats=4, kernel=5, stride=2, width=192),),
    (Block(width=320, skip=False),),
)
A1: Stages = (  # figure 7
    (_FIRST,),
    (Block(repeats=2, stride=2, width=24),),
    (Block(repeats=3, kernel=5, stride=2, expansion=3, width=40, se=0.25),),
    (Block(repeats=4, stride=2, width=80),),
    (Block(repeats=2, width=112, se=0.25),),
    (Block(repeats=3, kernel=5, stride=2, width=160, se=0.25),),
    (Block(width=320),),
)
SMALL: Stages = (
    (Block(kind="separable", width=8),),
    (Block(stride=2, expansion=3, width=16),),
    (Block(repeats=2, stride=2, width=16),),
    (Block(repeats=4, kernel=5, stride=2, width=32, se=0.25),),
    (Block(repeats=3, width=32, se=0.25),),
    (Block(repeats=3, kernel=5, stride=2, width=88, se=0.25),),
    (Block(width=144),),
)


def config(stages: Stages, width: float = 1.0, stem_width: int = 32) -> TrunkConfig:
    """Scales a table, never the head's width."""
    return TrunkConfig(
        stem_width=round_width(stem_width * width),
        stages=scale_stages(stages, width=width),
        head_width=1280,
        act="relu",
    )


FAMILY = Family(
    name="mnasnet",
    paper="arXiv:1807.11626",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=convolution_head,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(
        Variant(name="mnasnet_small", config=config(SMALL, stem_width=8), params=2_030_264),
        Variant(name="mnasnet_050", config=config(B1, 0.5), params=2_218_512),
        Variant(name="mnasnet_075", config=config(B1, 0.75), params=3_170_208),
        Variant(name="mnasnet_100", config=config(B1), params=4_383_312),
        Variant(name="mnasnet_140", config=config(B1, 1.4), params=7_115_728),
        Variant(name="semnasnet_050", config=config(A1, 0.5), params=2_082_006),
        Variant(name="semnasnet_075", config=config(A1, 0.75), params=2_912_278),
        Variant(name="semnasnet_100", config=config(A1), params=3_887_038),
        Variant(name="semnasnet_140", config=config(A1, 1.4), params=6_105_992),
    ),
)
