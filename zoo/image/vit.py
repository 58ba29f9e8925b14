"""Vision transformers as first published, at every patch size and image size.

Source: Dosovitskiy et al. 2020, arXiv:2010.11929, table 1; tiny and small: Steiner et al. 2021,
arXiv:2106.10270, table 2.
"""

from __future__ import annotations

from zoo.image.transformer import RENAMES, TransformerConfig, features, head
from zoo.spec import Family, Layout, Variant

_SHAPES = {  # width, depth, heads
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}


_TEST = TransformerConfig(patch=16, width=64, depth=6, heads=2, size=160, mlp_ratio=3.0)


def _variant(shape: str, patch: int, size: int, params: int) -> Variant:
    width, depth, heads = _SHAPES[shape]
    config = TransformerConfig(patch=patch, width=width, depth=depth, heads=heads, size=size)
    return Variant(
        name=f"vit_{shape}_patch{patch}_{size}", config=config, params=params, input_size=size
    )


FAMILY = Family(
    name="vit",
    paper="arXiv:2010.11929",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=head,
    dilates=False,
    fixed_size=True,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(
        Variant(name="test_vit", config=_TEST, params=371_240, input_size=160),
        _variant("tiny", 16, 224, 5_717_416),
        _variant("tiny", 16, 384, 5_790_376),
        _variant("small", 32, 224, 22_878_952),
        _variant("small", 32, 384, 22_915_432),
        _variant("small", 16, 224, 22_050_664),
        _variant("small", 16, 384, 22_196_584),
        _variant("small", 8, 224, 22_055_272),
        _variant("base", 32, 224, 88_224_232),
        _variant("base", 32, 384, 88_297_192),
        _variant("base", 16, 224, 86_567_656),
        _variant("base", 16, 384, 86_859_496),
        _variant("base", 8, 224, 86_576_872),
        _variant("large", 32, 224, 306_535_400),
        _variant("large", 32, 384, 306_632_680),
        _variant("large", 16, 224, 304_326_632),
        _variant("large", 16, 384, 304_715_752),
        _variant("large", 14, 224, 304_203_752),
        _variant("huge", 14, 224, 632_045_800),
    ),
)
