"""Layers that Keras does not have, used by two or more families; each defined once.

A model that holds one of them opens only where this is imported; the names say so: `zoo>...`.
"""

from zoo.layers.basic import GlobalResponseNorm, LayerScale, MinimumSize, SamePadding
from zoo.layers.tokens import LatentQuery, TokenEmbedding, TokenMap, cubic_weights
from zoo.layers.windows import (
    CosineWindowAttention,
    RelativeCoordinates,
    WindowAttention,
    WindowMerge,
    WindowPartition,
    relative_places,
)

__all__ = [
    "CosineWindowAttention",
    "GlobalResponseNorm",
    "LatentQuery",
    "LayerScale",
    "MinimumSize",
    "RelativeCoordinates",
    "SamePadding",
    "TokenEmbedding",
    "TokenMap",
    "WindowAttention",
    "WindowMerge",
    "WindowPartition",
    "cubic_weights",
    "relative_places",
]
