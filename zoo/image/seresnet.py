"""SE-ResNet and SE-ResNeXt: squeeze-and-excitation at the end of every residual branch.

Source: Hu et al. 2017, arXiv:1709.01507, figure 3 and table 1; stems and shortcuts as in ResNet-C,
D and T.
"""

from __future__ import annotations

from typing import Any

from zoo.blocks import linear_head
from zoo.image.resnet import RENAMES, ResNetConfig, features
from zoo.spec import Family, Layout, Variant

_18, _34, _50 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 6, 3)
_101, _152, _200, _269 = (3, 4, 23, 3), (3, 8, 36, 3), (3, 24, 36, 3), (3, 30, 48, 8)
_D: dict[str, Any] = {"stem_widths": (32, 32, 64), "shortcut": "avg"}
_T: dict[str, Any] = {"stem_widths": (24, 32, 64), "shortcut": "avg"}
_BASIC: dict[str, Any] = {"expansion": (1, 1, 1, 1)}
_32X4: dict[str, Any] = {"groups": 32, "base_width": 4}
_32X8: dict[str, Any] = {"groups": 32, "base_width": 8}
_64X4: dict[str, Any] = {"groups": 64, "base_width": 4}


def _variant(
    name: str, depths: tuple[int, ...], params: int, size: int = 224, **config: Any
) -> Variant:
    shape = ResNetConfig(depths=depths, attention="se", **config)
    return Variant(name=name, config=shape, params=params, input_size=size)


FAMILY = Family(
    name="seresnet",
    paper="arXiv:1709.01507",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=linear_head,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(
        _variant("seresnet18", _18, 11_779_624, **_BASIC),
        _variant("seresnet34", _34, 21_960_416, **_BASIC),
        _variant("seresnet50", _50, 28_088_024),
        _variant("seresnet50t", _50, 28_104_720, **_T),
        _variant("seresnet101", _101, 49_326_872),
        _variant("seresnet152", _152, 66_821_848),
        _variant("seresnet152d", _152, 66_841_080, 256, **_D),
        _variant("seresnet200d", _200, 71_855_096, 256, **_D),
        _variant("seresnet269d", _269, 113_672_760, 256, **_D),
        _variant("seresnext26d_32x4d", _18, 16_809_512, **_D, **_32X4),
        _variant("seresnext26t_32x4d", _18, 16_806_976, **_T, **_32X4),
        _variant("seresnext50_32x4d", _50, 27_559_896, **_32X4),
        _variant("seresnext101_32x4d", _101, 48_955_416, **_32X4),
        _variant("seresnext101_32x8d", _101, 93_569_048, **_32X8),
        _variant("seresnext101d_32x8d", _101, 93_588_280, **_D, **_32X8),
        _variant("seresnext101_64x4d", _101, 88_232_984, **_64X4),
    ),
)
