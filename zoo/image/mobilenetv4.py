"""MobileNet V4, the convolutional sizes: universal inverted bottlenecks.

Source: Qin et al. 2024, arXiv:2404.10518, figure 4 and tables 11 to 13; constants as in timm.
"""

from __future__ import annotations

from zoo.blocks import round_width
from zoo.image.mbconv import RENAMES, Block, Stages, TrunkConfig, features, scale_stages
from zoo.image.mobilenetv3 import head
from zoo.spec import Family, Layout, Variant

Row = tuple[int, int, int, int, float]  # repeats, start kernel, kernel, stride, expansion


def _conv(kernel: int, stride: int, width: int) -> Block:
    return Block(kind="conv", kernel=kernel, stride=stride, width=width, skip=False)


def _universal(width: int, *rows: Row) -> tuple[Block, ...]:
    return tuple(
        Block(
            kind="universal",
            repeats=repeats,
            start=start,
            kernel=kernel,
            stride=stride,
            expansion=expansion,
            width=width,
        )
        for repeats, start, kernel, stride, expansion in rows
    )


_FUSED = (Block(kind="fused", stride=2, expansion=4, width=48),)
_LAST = (_conv(1, 1, 960),)
SMALL: Stages = (  # table 11
    (_conv(3, 2, 32), _conv(1, 1, 32)),
    (_conv(3, 2, 96), _conv(1, 1, 64)),
    _universal(96, (1, 5, 5, 2, 3), (4, 0, 3, 1, 2), (1, 3, 0, 1, 4)),
    _universal(
        128, (1, 3, 3, 2, 6), (1, 5, 5, 1, 4), (1, 0, 5, 1, 4), (1, 0, 5, 1, 3), (2, 0, 3, 1, 4)
    ),
    _LAST,
)
MEDIUM: Stages = (  # table 12
    _FUSED,
    _universal(80, (1, 3, 5, 2, 4), (1, 3, 3, 1, 2)),
    _universal(
        160,
        (1, 3, 5, 2, 6), (2, 3, 3, 1, 4), (1, 3, 5, 1, 4), (1, 3, 3, 1, 4), (1, 3, 0, 1, 4),
        (1, 0, 0, 1, 2), (1, 3, 0, 1, 4),
    ),
    _universal(
        256,
        (1, 5, 5, 2, 6), (1, 5, 5, 1, 4), (2, 3, 5, 1, 4), (1, 0, 0, 1, 4), (1, 3, 0, 1, 4),
        (1, 3, 5, 1, 2), (1, 5, 5, 1, 4), (2, 0, 0, 1, 4), (1, 5, 0, 1, 2),
    ),
    _LAST,
)  # fmt: skip
LARGE: Stages = (  # table 13
    _FUSED,
    _universal(96, (1, 3, 5, 2, 4), (1, 3, 3, 1, 4)),
    _universal(
        192,
        (1, 3, 5, 2, 4), (3, 3, 3, 1, 4), (1, 3, 5, 1, 4), (5, 5, 3, 1, 4), (1, 3, 0, 1, 4),
    ),
    _universal(
        512,
        (4, 5, 5, 2, 4), (1, 5, 0, 1, 4), (1, 5, 3, 1, 4), (2, 5, 0, 1, 4), (1, 5, 3, 1, 4),
        (1, 5, 5, 1, 4), (3, 5, 0, 1, 4),
    ),
    _LAST,
)  # fmt: skip


def config(stages: Stages, stem_width: int, width: float = 1.0) -> TrunkConfig:
    """Scales a table, never the head's width; narrow sizes keep the stem's."""
    return TrunkConfig(
        stem_width=stem_width if width < 1 else round_width(stem_width * width),
        stages=scale_stages(stages, width=width),
        head_width=1280,
        head_norm=True,
        act="relu",
    )


FAMILY = Family(
    name="mobilenetv4",
    paper="arXiv:2404.10518",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=head,
    layouts=(Layout(name="timm", renames=((r"^head_bn$", "norm_head"), *RENAMES)),),
    variants=(
        Variant(
            name="mobilenetv4_conv_small_035", config=config(SMALL, 32, 0.35), params=1_905_384
        ),
        Variant(name="mobilenetv4_conv_small_050", config=config(SMALL, 32, 0.5), params=2_238_952),
        Variant(name="mobilenetv4_conv_small", config=config(SMALL, 32), params=3_774_024),
        Variant(
            name="mobilenetv4_conv_medium",
            config=config(MEDIUM, 32),
            params=9_715_512,
            input_size=256,
        ),
        Variant(
            name="mobilenetv4_conv_large",
            config=config(LARGE, 24),
            params=32_590_864,
            input_size=384,
        ),
    ),
)
