"""FBNet-C: inverted residuals chosen layer by layer by a differentiable search.

Source: Wu et al. 2018, arXiv:1812.03443, figure 4; constants as in timm.
"""

from __future__ import annotations

from zoo.blocks import NormConfig
from zoo.image.mbconv import RENAMES, Block, Stages, TrunkConfig, convolution_head, features
from zoo.spec import Family, Layout, Variant

C: Stages = (  # figure 4
    (Block(expansion=1, width=16),),
    (Block(stride=2, width=24), Block(repeats=2, expansion=1, width=24)),
    (
        Block(kernel=5, stride=2, width=32),
        Block(kernel=5, expansion=3, width=32),
        Block(kernel=5, width=32),
        Block(width=32),
    ),
    (
        Block(kernel=5, stride=2, width=64),
        Block(kernel=5, expansion=3, width=64),
        Block(repeats=2, kernel=5, width=64),
    ),
    (Block(repeats=3, kernel=5, width=112), Block(kernel=5, expansion=3, width=112)),
    (Block(repeats=4, kernel=5, stride=2, width=184),),
    (Block(width=352),),
)
CONFIG = TrunkConfig(
    stem_width=16,
    stages=C,
    head_width=1984,
    act="relu",
    norm=NormConfig(epsilon=1e-3),  # the published weights', which timm sets with `pretrained`
)

FAMILY = Family(
    name="fbnet",
    paper="arXiv:1812.03443",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=convolution_head,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(Variant(name="fbnetc_100", config=CONFIG, params=5_572_200),),
)
