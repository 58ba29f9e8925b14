"""Inception-ResNet V2: inception modules as residual branches, scaled down before they are added.

Source: Szegedy et al. 2016, arXiv:1602.07261, figures 15 to 19; widths and names as in timm.
"""

from __future__ import annotations

import keras

from zoo.blocks import Tensor, activation, conv, linear_head
from zoo.image.inception import Unit, chain, concatenate, shrunk, stem, unit
from zoo.spec import Family, Layout, Variant

# Repeats, scale, branches of a residual module
BLOCK35: tuple[tuple[Unit, ...], ...] = (
    (("branch0", 32, 1),),
    (("branch1_0", 32, 1), ("branch1_1", 32, 3)),
    (("branch2_0", 32, 1), ("branch2_1", 48, 3), ("branch2_2", 64, 3)),
)
BLOCK17: tuple[tuple[Unit, ...], ...] = (
    (("branch0", 192, 1),),
    (("branch1_0", 128, 1), ("branch1_1", 160, (1, 7)), ("branch1_2", 192, (7, 1))),
)
BLOCK8: tuple[tuple[Unit, ...], ...] = (
    (("branch0", 192, 1),),
    (("branch1_0", 192, 1), ("branch1_1", 224, (1, 3)), ("branch1_2", 256, (3, 1))),
)


def residual(
    x: Tensor,
    branches: tuple[tuple[Unit, ...], ...],
    scale: float,
    name: str,
    *,
    act: str | None = "relu",
) -> Tensor:
    """Branches, a 1x1 convolution to the input's channels, scaled and added."""
    y = concatenate(name, *(chain(x, name, *branch) for branch in branches))
    y = conv(y, x.shape[-1], 1, name=f"{name}_conv2d", bias=True)
    y = keras.layers.Rescaling(scale, name=f"{name}_scale")(y)
    y = keras.layers.Add(name=f"{name}_add")([y, x])
    return activation(y, act, name=f"{name}_act")


def features(
    x: Tensor,
    config: None,
    *,
    output_stride: int | None,
    small_stem: bool,
    drop_path: float,
) -> dict[str, Tensor]:
    """Maps (B, H, W, 3) to `stem`, `stage1`, ...: strides 2, 4, 8, 16, 32; small 1, 1, 2, 4, 8.

    Without padding, the maps are a little smaller than the strides say.
    """
    del config, output_stride, drop_path
    maps = stem(x, small=small_stem)
    x = shrunk(maps["stage1"], "stage2")
    mean = keras.layers.AveragePooling2D(3, 1, "same", name="mixed5b_mean")(x)
    x = concatenate(
        "mixed5b",
        chain(x, "mixed5b", ("branch0", 96, 1)),
        chain(x, "mixed5b", ("branch1_0", 48, 1), ("branch1_1", 64, 5)),
        chain(x, "mixed5b", ("branch2_0", 64, 1), ("branch2_1", 96, 3), ("branch2_2", 96, 3)),
        chain(mean, "mixed5b", ("branch3_1", 64, 1)),
    )
    for j in range(10):
        x = residual(x, BLOCK35, 0.17, f"stage2_block{j + 1}")
    maps["stage2"] = x
    x = concatenate(
        "mixed6a",
        chain(x, "mixed6a", ("branch0", 384, 3), stride=2),
        chain(
            x, "mixed6a", ("branch1_0", 256, 1), ("branch1_1", 256, 3), ("branch1_2", 384, 3),
            stride=2,
        ),
        shrunk(x, "mixed6a"),
    )  # fmt: skip
    for j in range(20):
        x = residual(x, BLOCK17, 0.10, f"stage3_block{j + 1}")
    maps["stage3"] = x
    x = concatenate(
        "mixed7a",
        chain(x, "mixed7a", ("branch0_0", 256, 1), ("branch0_1", 384, 3), stride=2),
        chain(x, "mixed7a", ("branch1_0", 256, 1), ("branch1_1", 288, 3), stride=2),
        chain(
            x, "mixed7a", ("branch2_0", 256, 1), ("branch2_1", 288, 3), ("branch2_2", 320, 3),
            stride=2,
        ),
        shrunk(x, "mixed7a"),
    )  # fmt: skip
    for j in range(9):
        x = residual(x, BLOCK8, 0.20, f"stage4_block{j + 1}")
    x = residual(x, BLOCK8, 1.0, "last_block", act=None)
    maps["stage4"] = unit(x, "last_7b", 1536, 1)
    return maps


RENAMES = (  # our layer name -> timm module
    (r"^stage2_block(\d+)_", lambda m: f"repeat.{int(m[1]) - 1}."),
    (r"^stage3_block(\d+)_", lambda m: f"repeat_1.{int(m[1]) - 1}."),
    (r"^stage4_block(\d+)_", lambda m: f"repeat_2.{int(m[1]) - 1}."),
    (r"^last_block_", "block8."),
    (r"^mixed(\d[ab])_", r"mixed_\1."),
    (r"(branch\d)_(\d)_(conv|bn)$", r"\1.\2.\3"),
    (r"(branch\d)_(conv|bn)$", r"\1.\2"),
    (r"^(?:stem|last)_(\d[ab])_(conv|bn)$", r"conv2d_\1.\2"),
    (r"^head$", "classif"),
)

FAMILY = Family(
    name="inception_resnet_v2",
    paper="arXiv:1602.07261",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=linear_head,
    dilates=False,
    layouts=(Layout(name="timm", renames=RENAMES),),
    variants=(Variant(name="inception_resnet_v2", config=None, params=55_843_464, input_size=299),),
)
