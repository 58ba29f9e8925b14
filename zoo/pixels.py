"""Image files of any kind to 8-bit pixels: orientation, transparency, palettes, 16 bits.

Training and prediction both read files through here, so that they see the same pixels.
"""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image, ImageOps

SIXTEEN_BIT_MODES = frozenset({"I", "I;16", "I;16B", "I;16L"})
DECODE_ERRORS = (  # what Pillow raises on files that are broken or no images
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)


def flatten(image: Image.Image) -> Image.Image:
    """Returns the image upright, 8 bits deep, on white where it is transparent."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode in SIXTEEN_BIT_MODES:  # Pillow's own conversion clips at 255
        deep = np.clip(np.asarray(upright, np.float64), 0, 65535)
        return Image.fromarray(np.rint(deep / 257).astype(np.uint8))
    if not upright.has_transparency_data:
        return upright
    layer = upright.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def convert(image: Image.Image, channels: int) -> Image.Image:
    """Returns a flattened image as grey (1 channel) or RGB (3)."""
    return flatten(image).convert("L" if channels == 1 else "RGB")
