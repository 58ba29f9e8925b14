"""DINOv2: vision transformers trained without labels, with and without register tokens.

Source: Oquab et al. 2023, arXiv:2304.07193, appendix B; registers: Darcet et al. 2023,
arXiv:2309.16588, section 2.2.
"""

from __future__ import annotations

from zoo.image.transformer import RENAMES, TransformerConfig, features, head
from zoo.spec import Family, Layout, Variant

SIZE = 518  # pixels


def _variant(
    shape: str, width: int, depth: int, heads: int, params: int, *, registers: int = 0
) -> Variant:
    config = TransformerConfig(
        patch=14,
        width=width,
        depth=depth,
        heads=heads,
        size=SIZE,
        registers=registers,
        positions_for_tokens=not registers,
        scale=1e-5,
    )
    infix = f"_reg{registers}" if registers else ""
    return Variant(
        name=f"vit_{shape}_patch14{infix}_dinov2",
        config=config,
        params=params,
        input_size=SIZE,
        paper="arXiv:2309.16588" if registers else "",
    )


FAMILY = Family(
    name="dinov2",
    paper="arXiv:2304.07193",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=head,
    dilates=False,
    fixed_size=True,
    layouts=(Layout(name="timm", renames=RENAMES, ignored=r"^mask_token$"),),
    variants=(
        _variant("small", 384, 12, 6, 22_441_192),
        _variant("base", 768, 12, 12, 87_348_712),
        _variant("large", 1024, 24, 16, 305_392_616),
        _variant("small", 384, 12, 6, 22_442_344, registers=4),
        _variant("base", 768, 12, 12, 87_351_016, registers=4),
        _variant("large", 1024, 24, 16, 305_395_688, registers=4),
    ),
)
