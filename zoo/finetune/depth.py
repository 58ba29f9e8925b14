"""Where a layer of a catalog model stands, read off its name: its depth in blocks, its stage."""

from __future__ import annotations

import re
from collections.abc import Iterator

import keras

from zoo.errors import OptionValueError
from zoo.image.transformer import STAGES
from zoo.image.xception import STAGE_ENDS

CLASSIFIERS = ("head", "head_dist")
_STEM = re.compile(r"^(stem|embedding)")
_UNITS = (  # what counts as one block, in the order they are tried
    (re.compile(r"^(stage\d+_block\d+|block\d+|mixed\d[a-z])_"), r"\1"),
    (re.compile(r"^stage(\d+)_down_"), r"stage\1_block1"),  # belongs to what it leads to
    (re.compile(r"^(stage\d+_conv\d+)$"), r"\1"),  # a VGG has no blocks
)
_STAGE = re.compile(r"^stage(\d+)_")
_MIXED = re.compile(r"^mixed(\d)")  # Inception counts its modules from 5, which is stage 2
_BLOCK = re.compile(r"^block(\d+)_")


def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields the layers of a model in order of the graph, those of nested models too."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def weighted_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers that have weights, in order of the graph."""
    return [layer for layer in leaf_layers(model) if layer.weights]


def layer_depths(model: keras.Model) -> dict[str, int]:
    """Returns the depth of every layer with weights, by its name.

    0 is the stem with the position embeddings; then every block counts one, with a downsampling
    layer belonging to the block it leads to; the classifier is the deepest. What lies between the
    last block and the classifier, such as a last convolution or norm, counts to the last block:
    it is pretrained as the block is, and only the classifier is new.

    Source: Bao et al. 2021, arXiv:2106.08254, section 3; the blocks as in timm.

    Raises:
        OptionValueError: The layers do not have the catalog's names.
    """
    blocks: dict[str, int] = {}
    depths: dict[str, int] = {}
    for layer in weighted_layers(model):
        if layer.name in CLASSIFIERS:
            continue
        unit = _unit(layer.name)
        if unit is not None:
            depths[layer.name] = blocks.setdefault(unit, len(blocks) + 1)
        else:
            depths[layer.name] = 0 if _STEM.match(layer.name) else len(blocks)
    if not blocks:
        raise OptionValueError(
            f"`model` must have the catalog's layer names, such as stage1_block1_conv1; got "
            f"{model.name}. Models of zoo.create_model and zoo.from_pretrained have them."
        )
    classifiers = {
        layer.name: len(blocks) + 1 for layer in weighted_layers(model) if layer.name in CLASSIFIERS
    }
    return depths | classifiers


def layer_stages(model: keras.Model) -> dict[str, str]:
    """Returns the stage of every layer with weights, by its name: "stem", "stage1", ..., "head".

    A transformer without stages has four of equal depth, as `zoo.create_backbone` has.
    """
    layers = weighted_layers(model)
    numbers = [int(m[1]) for m in (_BLOCK.match(layer.name) for layer in layers) if m]
    is_transformer = any(layer.name == "embedding" for layer in layers)
    blocks = max(numbers, default=0)
    found, present = {}, "stem"
    for layer in layers:
        stage = _stage(layer.name, blocks=blocks, is_transformer=is_transformer)
        found[layer.name] = present = stage or present  # a norm goes with what is before it
    return found


def _unit(name: str) -> str | None:
    for pattern, unit in _UNITS:
        match = pattern.match(name)
        if match:
            return match.expand(unit)
    return None


def _stage(name: str, *, blocks: int, is_transformer: bool) -> str | None:
    if name.startswith("head"):
        return "head"
    if _STEM.match(name):
        return "stem"
    if match := _STAGE.match(name):
        return f"stage{match[1]}"
    if match := _MIXED.match(name):
        return f"stage{int(match[1]) - 3}"
    if match := _BLOCK.match(name):
        block = int(match[1])
        if is_transformer:
            return f"stage{-(-block * STAGES // blocks)}"
        return next((stage for end, stage in STAGE_ENDS.items() if block <= end), "stage4")
    return None
