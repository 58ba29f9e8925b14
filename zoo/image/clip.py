"""The image towers of CLIP: vision transformers with a norm before the first block.

Source: Radford et al. 2021, arXiv:2103.00020, table 20; the other sizes: Cherti et al. 2022,
arXiv:2212.07143, and TinyCLIP, Wu et al. 2023, arXiv:2309.12314. `quickgelu` names the activation
of the first release.
"""

from __future__ import annotations

from typing import Literal

from zoo.image.transformer import RENAMES, TransformerConfig, features, head
from zoo.spec import Family, Layout, Variant

_SHAPES = {  # width, depth, heads
    "xsmall": (256, 10, 4),
    "medium": (512, 12, 8),
    "betwixt": (640, 12, 10),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}


def _variant(
    shape: str,
    patch: int,
    size: int,
    params: int,
    *,
    act: Literal["gelu", "quick_gelu"] = "gelu",
) -> Variant:
    width, depth, heads = _SHAPES[shape]
    config = TransformerConfig(
        patch=patch,
        width=width,
        depth=depth,
        heads=heads,
        size=size,
        norm_first=True,
        act=act,
        epsilon=1e-5,
    )
    infix = "clip" if act == "gelu" else "clip_quickgelu"
    return Variant(
        name=f"vit_{shape}_patch{patch}_{infix}_{size}",
        config=config,
        params=params,
        input_size=size,
    )


def _first(shape: str, patch: int, size: int, params: int) -> Variant:
    return _variant(shape, patch, size, params, act="quick_gelu")


FAMILY = Family(
    name="clip",
    paper="arXiv:2103.00020",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=head,
    dilates=False,
    fixed_size=True,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(
        _variant("xsmall", 16, 224, 8_402_920),
        _variant("medium", 32, 224, 39_942_632),
        _variant("medium", 16, 224, 38_838_248),
        _variant("betwixt", 32, 224, 61_724_520),
        _variant("base", 32, 224, 88_225_000),
        _variant("base", 32, 256, 88_236_520),
        _variant("base", 32, 384, 88_297_960),
        _variant("base", 32, 448, 88_337_896),
        _variant("base", 16, 224, 86_568_424),
        _variant("base", 16, 384, 86_860_264),
        _variant("large", 14, 224, 304_204_776),
        _variant("large", 14, 336, 304_532_456),
        _variant("huge", 14, 224, 632_047_080),
        _first("base", 32, 224, 88_225_000),
        _first("base", 16, 224, 86_568_424),
        _first("large", 14, 224, 304_204_776),
        _first("large", 14, 336, 304_532_456),
    ),
)
