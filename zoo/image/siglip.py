"""The image towers of SigLIP: no class token, a learned query pools; `gap` sizes average instead.

Source: Zhai et al. 2023, arXiv:2303.15343, section 4; the shape so400m: Alabdulmohsin et al. 2023,
arXiv:2305.13035.
"""

from __future__ import annotations

from typing import Literal

from zoo.image.transformer import RENAMES, TransformerConfig, features, head
from zoo.spec import Family, Layout, Variant

_SHAPES = {  # width, depth, heads, MLP ratio
    "base": (768, 12, 12, 4.0),
    "large": (1024, 24, 16, 4.0),
    "so400m": (1152, 27, 16, 3.7362),
}


def _variant(
    shape: str,
    patch: int,
    size: int,
    params: int,
    *,
    gap: bool = False,
    act: Literal["gelu", "gelu_tanh"] = "gelu",
) -> Variant:
    width, depth, heads, ratio = _SHAPES[shape]
    config = TransformerConfig(
        patch=patch,
        width=width,
        depth=depth,
        heads=heads,
        size=size,
        mlp_ratio=ratio,
        class_token=False,
        pool="avg" if gap else "latent",
        act=act,
    )
    infix = "siglip_gap" if gap else "siglip"
    return Variant(
        name=f"vit_{shape}_patch{patch}_{infix}_{size}",
        config=config,
        params=params,
        input_size=size,
    )


FAMILY = Family(
    name="siglip",
    paper="arXiv:2303.15343",
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
        _variant("base", 32, 256, 95_321_320, act="gelu_tanh"),
        _variant("base", 16, 224, 93_653_224),
        _variant("base", 16, 256, 93_699_304),
        _variant("base", 16, 384, 93_945_064),
        _variant("base", 16, 512, 94_289_128),
        _variant("large", 16, 256, 316_981_224),
        _variant("large", 16, 384, 317_308_904),
        _variant("large", 16, 512, 317_767_656, act="gelu_tanh"),
        _variant("so400m", 14, 224, 428_833_704),
        _variant("base", 32, 256, 88_234_216, gap=True, act="gelu_tanh"),
        _variant("base", 16, 224, 86_566_120, gap=True),
        _variant("base", 16, 256, 86_612_200, gap=True),
        _variant("base", 16, 384, 86_857_960, gap=True),
        _variant("base", 16, 512, 87_202_024, gap=True),
        _variant("large", 16, 256, 304_386_024, gap=True),
        _variant("large", 16, 384, 304_713_704, gap=True),
    ),
)
