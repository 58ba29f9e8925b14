"""EfficientNet B0-B7 and EfficientNet-Lite: compound scaling of a searched B0.

Source: Tan and Le 2019, arXiv:1905.11946, table 1 and section 3.3. Constants as in timm: plain
names pad symmetrically with epsilon 1e-5; `tf_` names have TensorFlow's SAME padding and epsilon
1e-3, as keras.applications has. Lite: no squeeze-excitation, ReLU6, stem and head not scaled.
"""

from __future__ import annotations

from dataclasses import replace

from zoo.blocks import NormConfig, round_width
from zoo.image.mbconv import (
    RENAMES,
    Block,
    TrunkConfig,
    convolution_head,
    features,
    scale_stages,
)
from zoo.spec import Family, Layout, Renames, Variant

STAGES = (  # table 1: operator, resolution, channels, layers
    (Block(kind="separable", width=16, se=0.25),),
    (Block(repeats=2, stride=2, width=24, se=0.25),),
    (Block(repeats=2, kernel=5, stride=2, width=40, se=0.25),),
    (Block(repeats=3, stride=2, width=80, se=0.25),),
    (Block(repeats=3, kernel=5, width=112, se=0.25),),
    (Block(repeats=4, kernel=5, stride=2, width=192, se=0.25),),
    (Block(width=320, se=0.25),),
)
TEST = TrunkConfig(  # timm's tiny model for fast checks
    stem_width=24,
    stages=(
        (Block(kind="conv", width=16),),
        (Block(kind="fused", stride=2, expansion=4, width=24),),
        (Block(kind="fused", stride=2, expansion=4, width=32),),
        (Block(stride=2, expansion=4, width=48, se=0.25),),
        (Block(stride=2, expansion=4, width=64, se=0.25),),
    ),
    head_width=256,
    act="silu",
)
TF = NormConfig(epsilon=1e-3, padding="same")


def config(width: float, depth: float, *, norm: NormConfig) -> TrunkConfig:
    """Compound scaling of table 1."""
    return TrunkConfig(
        stem_width=round_width(32 * width),
        stages=scale_stages(STAGES, width=width, depth=depth),
        head_width=round_width(1280 * width),
        act="silu",
        norm=norm,
    )


def lite(width: float, depth: float, *, norm: NormConfig) -> TrunkConfig:
    """The Lite sizes: what is slow on mobile hardware is left out."""
    stages = tuple(tuple(replace(row, se=0.0) for row in rows) for rows in STAGES)
    return TrunkConfig(
        stem_width=32,
        stages=scale_stages(stages, width=width, depth=depth, fixed_ends=True),
        head_width=1280,
        act="relu6",
        norm=norm,
    )


KERAS_RENAMES: Renames = (  # our layer name -> keras.applications layer
    (r"^stage(\d+)_block(\d+)_", lambda m: f"block{m[1]}{chr(96 + int(m[2]))}_"),
    (r"_separable_pw_(conv|bn)$", r"_project_\1"),
    (r"_(separable|inverted)_", "_"),
    (r"_dw_conv$", "_dwconv"),
    (r"_dw_bn$", "_bn"),
    (r"^head_(conv|bn)$", r"top_\1"),
    (r"^head$", "predictions"),
)
LUKEMELAS_RENAMES: Renames = (  # our layer name -> module of the efficientnet_pytorch packages
    (r"^block(\d+)_(separable|inverted)_", r"_blocks.\1."),
    (r"\.expand_conv$", "._expand_conv"),
    (r"\.expand_bn$", "._bn0"),
    (r"\.dw_conv$", "._depthwise_conv"),
    (r"\.dw_bn$", "._bn1"),
    (r"\.(pw|project)_conv$", "._project_conv"),
    (r"\.(pw|project)_bn$", "._bn2"),
    (r"\.se_(reduce|expand)$", r"._se_\1"),
    (r"^stem_conv$", "_conv_stem"),
    (r"^stem_bn$", "_bn0"),
    (r"^head_conv$", "_conv_head"),
    (r"^head_bn$", "_bn1"),
    (r"^head$", "_fc"),
)


_SIZES = (  # name, width, depth, input size, params; section 5.1 of the reference code
    ("b0", 1.0, 1.0, 224, 224, 5_288_548),
    ("b1", 1.0, 1.1, 240, 240, 7_794_184),
    ("b2", 1.1, 1.2, 256, 260, 9_109_994),
    ("b3", 1.2, 1.4, 288, 300, 12_233_232),
    ("b4", 1.4, 1.8, 320, 380, 19_341_616),
    ("b5", 1.6, 2.2, 448, 456, 30_389_784),
    ("b6", 1.8, 2.6, 528, 528, 43_040_704),
    ("b7", 2.0, 3.1, 600, 600, 66_347_960),
)
_LITE = (
    ("lite0", 1.0, 1.0, 224, 4_652_008),
    ("lite1", 1.0, 1.1, 240, 5_416_680),
    ("lite2", 1.1, 1.2, 260, 6_092_072),
    ("lite3", 1.2, 1.4, 300, 8_197_096),
    ("lite4", 1.4, 1.8, 380, 13_006_568),
)


def _variants() -> tuple[Variant, ...]:
    found = [Variant(name="test_efficientnet", config=TEST, params=356_196, input_size=160)]
    for prefix, norm in (("", NormConfig()), ("tf_", TF)):
        for name, width, depth, size, tf_size, params in _SIZES:
            found.append(
                Variant(
                    name=f"{prefix}efficientnet_{name}",
                    config=config(width, depth, norm=norm),
                    params=params,
                    input_size=tf_size if prefix else size,
                    aliases=(f"EfficientNet{name.upper()}",) if prefix else (),
                )
            )
        for name, width, depth, size, params in _LITE:
            found.append(
                Variant(
                    name=f"{prefix}efficientnet_{name}",
                    config=lite(width, depth, norm=norm),
                    params=params,
                    input_size=size,
                )
            )
    return tuple(found)


FAMILY = Family(
    name="efficientnet",
    paper="arXiv:1905.11946",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=convolution_head,
    layouts=(
        Layout(name="timm", renames=RENAMES),
        Layout(
            name="keras",
            renames=KERAS_RENAMES,
            tensors="keras",
            ignored=r"^normalization(_\d+)?\.",  # numbered where a process made several models
        ),
        Layout(name="lukemelas", renames=LUKEMELAS_RENAMES, flat=True),
    ),
    variants=_variants(),
)
