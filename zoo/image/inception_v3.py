"""Inception V3: factorised convolutions in parallel branches.

Source: Szegedy et al. 2015, arXiv:1512.00567, figures 5 to 7 and table 1. Names of the modules as
in torchvision; without the auxiliary classifier.
"""

from __future__ import annotations

import keras

from zoo.blocks import Tensor, linear_head
from zoo.image.inception import chain, concatenate, shrunk, stem
from zoo.spec import Family, Layout, Variant


def averaged(x: Tensor, width: int, name: str) -> Tensor:
    """3x3 mean, to which the zeros around the map count, and a 1x1 convolution."""
    x = keras.layers.ZeroPadding2D(1, name=f"{name}_mean_pad")(x)
    x = keras.layers.AveragePooling2D(3, 1, name=f"{name}_mean")(x)
    return chain(x, name, ("branch_pool", width, 1))


def module_a(x: Tensor, pooled: int, name: str) -> Tensor:
    """Figure 5."""
    double = (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3))
    return concatenate(
        name,
        chain(x, name, ("branch1x1", 64, 1)),
        chain(x, name, ("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
        chain(x, name, *double),
        averaged(x, pooled, name),
    )


def module_b(x: Tensor, name: str) -> Tensor:
    """Halves the map."""
    double = (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3))
    return concatenate(
        name,
        chain(x, name, ("branch3x3", 384, 3), stride=2),
        chain(x, name, *double, stride=2),
        shrunk(x, name),
    )


def module_c(x: Tensor, width: int, name: str) -> Tensor:
    """Figure 6."""
    row, column = (1, 7), (7, 1)
    return concatenate(
        name,
        chain(x, name, ("branch1x1", 192, 1)),
        chain(
            x,
            name,
            ("branch7x7_1", width, 1),
            ("branch7x7_2", width, row),
            ("branch7x7_3", 192, column),
        ),
        chain(
            x,
            name,
            ("branch7x7dbl_1", width, 1),
            ("branch7x7dbl_2", width, column),
            ("branch7x7dbl_3", width, row),
            ("branch7x7dbl_4", width, column),
            ("branch7x7dbl_5", 192, row),
        ),
        averaged(x, 192, name),
    )


def module_d(x: Tensor, name: str) -> Tensor:
    """Halves the map."""
    return concatenate(
        name,
        chain(x, name, ("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3), stride=2),
        chain(
            x,
            name,
            ("branch7x7x3_1", 192, 1),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
            ("branch7x7x3_4", 192, 3),
            stride=2,
        ),
        shrunk(x, name),
    )


def module_e(x: Tensor, name: str) -> Tensor:
    """Figure 7: branches that fork."""
    single = chain(x, name, ("branch3x3_1", 384, 1))
    double = chain(x, name, ("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3))
    return concatenate(
        name,
        chain(x, name, ("branch1x1", 320, 1)),
        chain(single, name, ("branch3x3_2a", 384, (1, 3))),
        chain(single, name, ("branch3x3_2b", 384, (3, 1))),
        chain(double, name, ("branch3x3dbl_3a", 384, (1, 3))),
        chain(double, name, ("branch3x3dbl_3b", 384, (3, 1))),
        averaged(x, 192, name),
    )


def features(
    x: Tensor,
    config: None,
    *,
    output_stride: int | None,
    small_stem: bool,
    drop_path: float,
) -> dict[str, Tensor]:
    """Maps (B, H, W, 3) to `stem`, `stage1`, ...: strides 2, 4, 8, 16, 32; small 1, 1, 2, 4, 8.

    Without padding, the maps are a little smaller than the strides say. No branch can be dropped.
    """
    del config, output_stride, drop_path
    maps = stem(x, small=small_stem)
    x = shrunk(maps["stage1"], "stage2")
    for letter, pooled in (("b", 32), ("c", 64), ("d", 64)):
        x = module_a(x, pooled, f"mixed5{letter}")
    maps["stage2"] = x
    x = module_b(x, "mixed6a")
    for letter, width in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
        x = module_c(x, width, f"mixed6{letter}")
    maps["stage3"] = x
    x = module_d(x, "mixed7a")
    for letter in "bc":
        x = module_e(x, f"mixed7{letter}")
    maps["stage4"] = x
    return maps


RENAMES = (  # our layer name -> timm module
    (r"^mixed(\d[a-e])_(.+)_(conv|bn)$", r"Mixed_\1.\2.\3"),
    (r"^stem_(1a|2a|2b|4a)_(conv|bn)$", r"Conv2d_\1_3x3.\2"),
    (r"^stem_3b_(conv|bn)$", r"Conv2d_3b_1x1.\1"),
    (r"^head$", "fc"),
)

FAMILY = Family(
    name="inception_v3",
    paper="arXiv:1512.00567",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=linear_head,
    dilates=False,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(Variant(name="inception_v3", config=None, params=23_834_568, input_size=299),),
)
