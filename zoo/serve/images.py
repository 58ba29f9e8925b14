"""From the bytes of an upload to pixels, within bounds: what arrives may be anything."""

from __future__ import annotations

import io
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from zoo.pixels import DECODE_ERRORS, convert
from zoo.preprocessing import Array, Preprocessor
from zoo.serve.options import RequestError

# Pillow knows formats that start other programs (EPS) or hold documents; these are photographs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# What its readers raise on damaged files beside the errors that they promise.
DAMAGE = (
    *DECODE_ERRORS,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    Warning,  # where warnings are errors
    zlib.error,
)
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def decode(content: bytes, name: str, prepare: Preprocessor, max_pixels: int) -> Array:
    """Decodes and prepares one image: bytes to (1, h, w, C), float32.

    Args:
        content: Of a file.
        name: What messages call it.
        prepare: The model's preprocessing.
        max_pixels: Largest number of pixels, as it comes and as it is resized.

    Raises:
        RequestError: It is empty, no image of the known formats, damaged, or too large.
    """
    if not content:
        raise RequestError(422, "empty_image", f"{name} is empty; send the bytes of an image file.")
    pixels = _pixels(content, name, prepare, max_pixels)
    _check_resized(pixels.shape[0], pixels.shape[1], name, prepare, max_pixels)
    return prepare(pixels)


def _pixels(content: bytes, name: str, prepare: Preprocessor, max_pixels: int) -> Array:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:  # known before a pixel is decoded
                raise _too_large(f"{name} has {width} x {height} pixels", max_pixels)
            pixels = np.asarray(convert(image, prepare.channels))
    except BOMBS as error:
        raise _too_large(f"{name} has more pixels than can be decoded", max_pixels) from error
    except UnidentifiedImageError as error:
        raise RequestError(
            422, "not_an_image", f"{name} is not an image; it must be {', '.join(FORMATS)}."
        ) from error
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RequestError(422, "damaged_image", f"{name} cannot be decoded: {reason}.") from error
    return pixels[..., None] if prepare.channels == 1 else pixels


def _check_resized(
    height: int, width: int, name: str, prepare: Preprocessor, max_pixels: int
) -> None:
    """The short side is resized to the model's, so that a thin strip would become a wide one."""
    crop = prepare.preprocessing.crop
    scale = max(prepare.size[0] / crop / height, prepare.size[1] / crop / width)
    if height * width * scale * scale > max_pixels:
        raise _too_large(
            f"{name} of {width} x {height} pixels would be resized to "
            f"{width * scale:.0f} x {height * scale:.0f}",
            max_pixels,
        )


def _too_large(what: str, max_pixels: int) -> RequestError:
    return RequestError(422, "image_too_large", f"{what}; {max_pixels} pixels are the most.")
