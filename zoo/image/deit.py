"""DeiT: vision transformers trained on ImageNet alone, with a distillation token; and DeiT III.

Source: Touvron et al. 2020, arXiv:2012.12877, table 1 and figure 2; DeiT III: Touvron et al. 2022,
arXiv:2204.07118, table 1: layer scale, and no position embedding for the class token.
"""

from __future__ import annotations

from typing import Any

from zoo.image.transformer import RENAMES, TransformerConfig, features, head
from zoo.spec import Family, Layout, Variant

_SHAPES = {  # width, depth, heads
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "medium": (512, 12, 8),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}


def _variant(name: str, shape: str, patch: int, size: int, params: int, **config: Any) -> Variant:
    width, depth, heads = _SHAPES[shape]
    config |= {"patch": patch, "width": width, "depth": depth, "heads": heads, "size": size}
    return Variant(
        name=f"{name}_patch{patch}_{size}",
        config=TransformerConfig(**config),
        params=params,
        input_size=size,
        paper="arXiv:2204.07118" if name.startswith("deit3") else "",
    )


def _distilled(shape: str, size: int, params: int) -> Variant:
    return _variant(f"deit_{shape}_distilled", shape, 16, size, params, distilled=True)


def _third(shape: str, patch: int, size: int, params: int) -> Variant:
    return _variant(
        f"deit3_{shape}", shape, patch, size, params, positions_for_tokens=False, scale=1e-6
    )


FAMILY = Family(
    name="deit",
    paper="arXiv:2012.12877",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=head,
    dilates=False,
    fixed_size=True,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(
        _variant("deit_tiny", "tiny", 16, 224, 5_717_416),
        _variant("deit_small", "small", 16, 224, 22_050_664),
        _variant("deit_base", "base", 16, 224, 86_567_656),
        _variant("deit_base", "base", 16, 384, 86_859_496),
        _distilled("tiny", 224, 5_910_800),
        _distilled("small", 224, 22_436_432),
        _distilled("base", 224, 87_338_192),
        _distilled("base", 384, 87_630_032),
        _third("small", 16, 224, 22_059_496),
        _third("small", 16, 384, 22_205_416),
        _third("medium", 16, 224, 38_849_512),
        _third("base", 16, 224, 86_585_320),
        _third("base", 16, 384, 86_877_160),
        _third("large", 16, 224, 304_374_760),
        _third("large", 16, 384, 304_763_880),
        _third("huge", 14, 224, 632_126_440),
    ),
)
