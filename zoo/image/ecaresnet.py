"""ECA-ResNet: attention over neighbouring channels at the end of every residual branch.

Source: Wang et al. 2019, arXiv:1910.03151, figure 2; the sizes, with the stems and shortcuts of
ResNet-D and T, as in timm.
"""

from __future__ import annotations

from typing import Any

from zoo.blocks import linear_head
from zoo.image.resnet import RENAMES, ResNetConfig, features
from zoo.spec import Family, Layout, Variant

_26, _50, _101 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 23, 3)
_200, _269, _LIGHT = (3, 24, 36, 3), (3, 30, 48, 8), (1, 1, 11, 3)
_D, _T = (32, 32, 64), (24, 32, 64)  # stem widths


def _variant(
    name: str,
    depths: tuple[int, ...],
    stem_widths: tuple[int, ...],
    params: int,
    size: int = 224,
    **config: Any,
) -> Variant:
    shape = ResNetConfig(
        depths=depths, stem_widths=stem_widths, shortcut="avg", attention="eca", **config
    )
    return Variant(name=name, config=shape, params=params, input_size=size)


FAMILY = Family(
    name="ecaresnet",
    paper="arXiv:1910.03151",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=linear_head,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(
        _variant("ecaresnet26t", _26, _T, 16_011_916, 256),
        _variant("ecaresnet50d", _50, _D, 25_576_350),
        _variant("ecaresnet50t", _50, _T, 25_573_814, 256),
        _variant("ecaresnet101d", _101, _D, 44_568_563),
        _variant("ecaresnet200d", _200, _D, 64_693_400, 256),
        _variant("ecaresnet269d", _269, _D, 102_093_077, 320),
        _variant("ecaresnetlight", _LIGHT, (64,), 30_162_046),
        _variant("ecaresnext26t_32x4d", _26, _T, 15_406_220, groups=32, base_width=4),
        _variant("ecaresnext50t_32x4d", _50, _T, 25_045_686, groups=32, base_width=4),
    ),
)
