"""NASNet-A: cells that join two earlier maps, found by search.

Source: Zoph et al. 2017, arXiv:1707.07012, figures 4 and 7; constants as in keras.applications and
timm, which differ only in what lies around a map where its maxima are taken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import keras

from zoo.blocks import (
    NormConfig,
    Tensor,
    activation,
    batch_norm,
    conv,
    conv_norm,
    depthwise_conv,
    drop_path,
    drop_path_rates,
    linear_head,
)
from zoo.layers import SamePadding
from zoo.spec import Family, Layout, Renames, Variant

NORM = NormConfig(epsilon=1e-3, momentum=0.9997, padding="same")
STAGES = 3  # of normal cells; each doubles the width of the one before


@dataclass(frozen=True, kw_only=True)
class NASNetConfig:
    """One size; the paper writes it N @ last width."""

    cells: int  # normal cells per stage
    width: int  # of a path in the first stage of normal cells
    stem_width: int
    skip_reduction: bool  # whether the cell after a reduction sees what lies two cells before it
    zero_border: bool  # whether a map lies in zeros where maxima are taken, or in nothing


def separable(x: Tensor, width: int, kernel: int, stride: int, drop: float, name: str) -> Tensor:
    """ReLU, separable convolution, norm, twice: (B, H, W, C) -> (B, H/stride, W/stride, width)."""
    for n in (1, 2):
        x = activation(x, "relu", name=f"{name}_act{n}")
        x = depthwise_conv(
            x, kernel, stride if n == 1 else 1, name=f"{name}_dw{n}_conv", padding="same"
        )
        x = conv(x, width, 1, name=f"{name}_pw{n}_conv")
        x = batch_norm(x, NORM, name=f"{name}_bn{n}")
    return drop_path(x, drop, name=f"{name}_drop_path")


def bordered(x: Tensor, stride: int, name: str) -> Tensor:
    """Adds the zeros that TensorFlow's SAME would add for a kernel of 3."""
    if None in x.shape[1:3]:
        return SamePadding(3, stride, name=f"{name}_pad")(x)
    sides = [SamePadding.amounts(side, 3, stride) for side in x.shape[1:3]]
    return keras.layers.ZeroPadding2D(tuple(sides), name=f"{name}_pad")(x)


def narrowed(x: Tensor, width: int, name: str) -> Tensor:
    """ReLU, 1x1 convolution, norm: (B, H, W, C) -> (B, H, W, width)."""
    x = activation(x, "relu", name=f"{name}_act")
    return conv_norm(x, width, 1, name=name, norm=NORM)


def halved(x: Tensor, width: int, stride: int, name: str) -> Tensor:
    """Every other pixel, and those between, each to half the width: figure 7's adjustment."""
    x = activation(x, "relu", name=f"{name}_act")
    between = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
    between = keras.layers.Cropping2D(((1, 0), (1, 0)), name=f"{name}_crop")(between)
    even = conv(x, width // 2, 1, stride, name=f"{name}_conv1")
    odd = conv(between, width // 2, 1, stride, name=f"{name}_conv2")
    both = keras.layers.Concatenate(name=f"{name}_concat")([even, odd])
    return batch_norm(both, NORM, name=f"{name}_bn")


def mean(x: Tensor, name: str) -> Tensor:
    """The mean of each 3x3, of the pixels there are."""
    return keras.layers.AveragePooling2D(3, 1, "same", name=f"{name}_mean")(x)


def joined(name: str, *branches: Tensor) -> Tensor:
    """Adds two branches."""
    return keras.layers.Add(name=f"{name}_add")(list(branches))


def normal_cell(left: Tensor, right: Tensor, width: int, drop: float, name: str) -> Tensor:
    """Figure 4, normal cell: two maps (B, H, W, width) -> (B, H, W, 6 * width)."""

    def branch(x: Tensor, kernel: int, place: str) -> Tensor:
        return separable(x, width, kernel, 1, drop, f"{name}_{place}")

    parts = [
        left,
        joined(f"{name}_0", branch(right, 5, "comb0_left"), branch(left, 3, "comb0_right")),
        joined(f"{name}_1", branch(left, 5, "comb1_left"), branch(left, 3, "comb1_right")),
        joined(f"{name}_2", mean(right, f"{name}_comb2_left"), left),
        joined(f"{name}_3", *[mean(left, f"{name}_comb3")] * 2),
        joined(f"{name}_4", branch(right, 3, "comb4_left"), right),
    ]
    return keras.layers.Concatenate(name=f"{name}_concat")(parts)


def reduction_cell(
    left: Tensor, right: Tensor, config: NASNetConfig, width: int, stride: int, name: str
) -> Tensor:
    """Figure 4, reduction cell: two maps (B, H, W, C) -> (B, H/stride, W/stride, 4 * width)."""

    def branch(x: Tensor, kernel: int, place: str, step: int = stride) -> Tensor:
        return separable(x, width, kernel, step, 0.0, f"{name}_{place}")

    around = bordered(right, stride, f"{name}_border")
    largest, padding = (around, "valid") if config.zero_border else (right, "same")
    maxima = keras.layers.MaxPooling2D(3, stride, padding, name=f"{name}_max")(largest)
    means = keras.layers.AveragePooling2D(3, stride, "valid", name=f"{name}_mean")(around)
    first = joined(f"{name}_0", branch(right, 5, "comb0_left"), branch(left, 7, "comb0_right"))
    second = joined(f"{name}_1", maxima, branch(left, 7, "comb1_right"))
    parts = [
        second,
        joined(f"{name}_2", means, branch(left, 5, "comb2_right")),
        joined(f"{name}_3", mean(first, f"{name}_comb3"), second),
        joined(f"{name}_4", branch(first, 3, "comb4_left", 1), maxima),
    ]
    return keras.layers.Concatenate(name=f"{name}_concat")(parts)


def features(
    x: Tensor,
    config: NASNetConfig,
    *,
    output_stride: int | None,
    small_stem: bool,
    drop_path: float,
) -> dict[str, Tensor]:
    """Maps (B, H, W, 3) to `stem`, `stage1`, ...: strides 2, 4, 8, 16, 32; small 1, 1, 2, 4, 8.

    `drop_path` drops the convolutions of normal cells: the paper's ScheduledDropPath.
    """
    del output_stride
    x = conv(
        x, config.stem_width, 3, 1 if small_stem else 2, name="stem_conv",
        padding="same" if small_stem else "valid",
    )  # fmt: skip
    x = batch_norm(x, NORM, name="stem_bn")
    maps = {"stem": x}
    first = 1 if small_stem else 2
    name, width = "stage1_block1", config.width // 4
    right = narrowed(x, width, f"{name}_right")
    before, x = x, reduction_cell(x, right, config, width, first, name)
    maps["stage1"] = x
    drops = iter(drop_path_rates(drop_path, STAGES * config.cells, last=True))
    for stage in range(2, 2 + STAGES):
        name, width = f"stage{stage}_block1", config.width * 2 ** (stage - 2)
        if stage == 2:  # the second of the two cells of the stem
            left = halved(before, config.width // 2, first, f"{name}_left")
            right = narrowed(x, config.width // 2, f"{name}_right")
        else:
            left = narrowed(before, width, f"{name}_left")
            right = narrowed(x, width, f"{name}_right")
        if stage == 2 or not config.skip_reduction:
            before = x
        x = reduction_cell(left, right, config, right.shape[-1], 2, name)
        for j in range(2, 2 + config.cells):
            name = f"stage{stage}_block{j}"
            left = (  # after a reduction the map before is of another size
                halved(before, width, 2, f"{name}_left")
                if j == 2
                else narrowed(before, width, f"{name}_left")
            )
            right = narrowed(x, width, f"{name}_right")
            before, x = x, normal_cell(left, right, width, next(drops), name)
        maps[f"stage{stage}"] = x
    maps["stage4"] = activation(x, "relu", name="last_act")
    return maps


def _timm_cell(match: re.Match[str]) -> str:
    """The reference numbers six normal cells per stage through, and the others apart."""
    stage, block = int(match[1]), int(match[2])
    if block > 1:
        return f"cell_{6 * (stage - 2) + block - 2}."
    return f"cell_stem_{stage - 1}." if stage <= 2 else f"reduction_cell_{stage - 3}."


RENAMES: Renames = (  # our layer name -> timm module
    (r"^stage(\d+)_block(\d+)_", _timm_cell),
    (r"\.comb(\d)_(left|right)_", r".comb_iter_\1_\2_"),
    (r"_dw(\d)_conv$", r".separable_\1.depthwise_conv2d"),
    (r"_pw(\d)_conv$", r".separable_\1.pointwise_conv2d"),
    (r"(comb_iter_\d_\w+)_bn(\d)$", r"\1.bn_sep_\2"),
    (r"\.left_conv(\d)$", r".path_\1.conv"),
    (r"\.right_(conv|bn)$", r".conv_1x1.\1"),
    (r"\.left_conv$", ".conv_prev_1x1.conv"),
    (r"^(cell_stem_1|cell_(?:0|6|12))\.left_bn$", r"\1.final_path_bn"),
    (r"\.left_bn$", ".conv_prev_1x1.bn"),
    (r"^stem_(conv|bn)$", r"conv0.\1"),
    (r"^head$", "last_linear"),
)


def _keras_renames(cells: int) -> Renames:
    """Our layer names -> those of keras.applications, which count all cells but the stem's."""

    def block(match: re.Match[str]) -> str:
        stage, place, rest = int(match[1]), int(match[2]), match[3]
        if place > 1 + cells:  # of a larger model, whose layout this is not
            return match[0]
        if place > 1:
            number = str((stage - 2) * cells + place - 2 + (stage > 2))
            kind = "normal"
        else:
            number = f"stem_{stage}" if stage <= 2 else f"reduce_{(stage - 2) * cells}"
            kind = "reduction"
        return _in_keras(rest, kind, number)

    return (
        (r"^stage(\d+)_block(\d+)_(.+)$", block),
        (r"^stem_(conv|bn)$", r"stem_\g<1>1"),
        (r"^head$", "predictions"),
    )


def _in_keras(rest: str, kind: str, number: str) -> str:
    if found := re.match(r"^comb(\d)_(\w+?)_(dw|pw|bn)(\d)(_conv)?$", rest):
        join, side, part, place, _ = found.groups()
        branch = 4 if (kind, join) == ("reduction", "4") else int(join) + 1
        end = f"{kind}_{side}{branch}_{number}"
        name = {"dw": "conv_{}", "pw": "conv_{}", "bn": "conv_{}_bn"}[part].format(place)
        return f"separable_{name}_{end}" + (".pointwise" if part == "pw" else "")
    names = {
        "right_conv": f"{kind}_conv_1",
        "right_bn": f"{kind}_bn_1",
        "left_conv": "adjust_conv_projection",
        "left_conv1": "adjust_conv_1",
        "left_conv2": "adjust_conv_2",
        "left_bn": "adjust_bn",
    }
    return f"{names.get(rest, f'{kind}_{rest}')}_{number}"


FAMILY = Family(
    name="nasnet",
    paper="arXiv:1707.07012",
    license="Apache-2.0",
    reference="timm",
    features=features,
    head=linear_head,
    dilates=False,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    layouts=(
        Layout(name="timm", renames=RENAMES),
        Layout(name="keras, 4 cells", renames=_keras_renames(4), tensors="keras"),
        Layout(name="keras, 6 cells", renames=_keras_renames(6), tensors="keras"),
    ),
    variants=(
        Variant(
            name="nasnetalarge",
            config=NASNetConfig(
                cells=6, width=168, stem_width=96, skip_reduction=True, zero_border=False
            ),
            params=88_753_150,
            input_size=331,
        ),
        Variant(
            name="nasnet_mobile",
            config=NASNetConfig(
                cells=4, width=44, stem_width=32, skip_reduction=False, zero_border=True
            ),
            params=5_289_978,
            aliases=("NASNetMobile",),
            reference="keras.applications",
        ),
        Variant(
            name="nasnet_large",
            config=NASNetConfig(
                cells=6, width=168, stem_width=96, skip_reduction=True, zero_border=True
            ),
            params=88_753_150,
            input_size=331,
            aliases=("NASNetLarge",),
            reference="keras.applications",
        ),
    ),
)
