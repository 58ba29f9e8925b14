"""Image data for recipes: packaged sets, folders, tables and TFDS, split and batched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipes.data.image_data import ImageData, fingerprint
from recipes.data.loading import load_image_data
from recipes.data.packaged import list_packaged
from recipes.data.splitting import Split, split_data

if TYPE_CHECKING:
    from recipes.data.batches import ImageBatches

__all__ = [
    "ImageBatches",
    "ImageData",
    "Split",
    "fingerprint",
    "list_packaged",
    "load_image_data",
    "split_data",
]


def __getattr__(name: str) -> Any:
    if name == "ImageBatches":  # its base class needs Keras, which takes seconds to import
        from recipes.data.batches import ImageBatches

        return ImageBatches
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
