"""TinyNet: EfficientNet-B0 made smaller in resolution and depth rather than in width.

Source: Han et al. 2020, arXiv:2010.14819, table 5; rounding as in timm.
"""

from __future__ import annotations

from dataclasses import replace

from zoo.blocks import round_width
from zoo.image.efficientnet import STAGES
from zoo.image.mbconv import RENAMES, TrunkConfig, convolution_head, features, scale_stages
from zoo.spec import Family, Layout, Variant


def config(width: float, depth: float) -> TrunkConfig:
    """Scales EfficientNet's table; the stem stays, the head never shrinks."""
    scaled = scale_stages(STAGES, width=width)
    stages = tuple(
        tuple(replace(row, repeats=max(1, round(row.repeats * depth))) for row in rows)
        for rows in scaled
    )
    return TrunkConfig(
        stem_width=32,
        stages=stages,
        head_width=max(1280, round_width(1280 * width)),
        act="silu",
    )


FAMILY = Family(
    name="tinynet",
    paper="arXiv:2010.14819",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=convolution_head,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(
        Variant(name="tinynet_a", config=config(1.0, 1.2), params=6_187_972, input_size=192),
        Variant(name="tinynet_b", config=config(0.75, 1.1), params=3_730_562, input_size=188),
        Variant(name="tinynet_c", config=config(0.54, 0.85), params=2_457_234, input_size=184),
        Variant(name="tinynet_d", config=config(0.54, 0.695), params=2_338_446, input_size=152),
        Variant(name="tinynet_e", config=config(0.51, 0.6), params=2_042_972, input_size=106),
    ),
)
