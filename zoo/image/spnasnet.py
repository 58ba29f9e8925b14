"""Single-Path NAS: inverted residuals chosen by a search with shared kernels.

Source: Stamoulis et al. 2019, arXiv:1904.02877, figure 5; constants as in timm.
"""

from __future__ import annotations

from zoo.image.mbconv import RENAMES, Block, Stages, TrunkConfig, convolution_head, features
from zoo.spec import Family, Layout, Variant

STAGES: Stages = (  # figure 5
    (Block(kind="separable", width=16, skip=False),),
    (Block(repeats=3, stride=2, expansion=3, width=24),),
    (Block(kernel=5, stride=2, width=40), Block(repeats=3, expansion=3, width=40)),
    (Block(kernel=5, stride=2, width=80), Block(repeats=3, expansion=3, width=80)),
    (Block(kernel=5, width=96), Block(repeats=3, kernel=5, expansion=3, width=96)),
    (Block(repeats=4, kernel=5, stride=2, width=192),),
    (Block(width=320, skip=False),),
)
CONFIG = TrunkConfig(stem_width=32, stages=STAGES, head_width=1280, act="relu")

FAMILY = Family(
    name="spnasnet",
    paper="arXiv:1904.02877",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=convolution_head,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(Variant(name="spnasnet_100", config=CONFIG, params=4_421_616),),
)
