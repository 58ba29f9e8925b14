"""PP-LCNet: depthwise separable convolutions with what costs little on a CPU.

Source: Cui et al. 2021, arXiv:2109.15099, table 2; constants as in timm.
"""

from __future__ import annotations

from dataclasses import replace

from zoo.blocks import round_width
from zoo.image.mbconv import RENAMES, Block, Stages, TrunkConfig, features, scale_stages
from zoo.image.mobilenetv3 import head
from zoo.spec import Family, Layout, Variant

_ROW = Block(kind="separable", width=32, act_last=True, skip=False)
STAGES: Stages = (  # table 2
    (_ROW,),
    (replace(_ROW, repeats=2, stride=2, width=64),),
    (replace(_ROW, repeats=2, stride=2, width=128),),
    (replace(_ROW, stride=2, width=256), replace(_ROW, kernel=5, width=256)),
    (replace(_ROW, repeats=4, kernel=5, width=256),),
    (replace(_ROW, repeats=2, kernel=5, stride=2, width=512, se=0.25),),
)


def config(width: float) -> TrunkConfig:
    """Scales table 2, never the head's width."""
    return TrunkConfig(
        stem_width=round_width(16 * width),
        stages=scale_stages(STAGES, width=width),
        head_width=1280,
        act="hard_silu",
        se_from="expanded",
        se_act="relu",
        se_gate="hard_sigmoid",
    )


FAMILY = Family(
    name="lcnet",
    paper="arXiv:2109.15099",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=head,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=tuple(
        Variant(name=f"lcnet_{name}", config=config(width), params=params)
        for name, width, params in (
            ("035", 0.35, 1_644_370),
            ("050", 0.5, 1_880_856),
            ("075", 0.75, 2_358_288),
            ("100", 1.0, 2_953_800),
            ("150", 1.5, 4_501_112),
        )
    ),
)
