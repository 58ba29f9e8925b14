"""What JPEG does to an image, without a file: a kernel of image layers.

Source: ITU-T T.81 and JFIF 1.02. The arithmetic is libjpeg's (its slow integer DCT, its triangular
upsampling), so that results are those of Pillow and torchvision, bit by bit.
"""

from __future__ import annotations

from typing import Any

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor

# ITU-T T.81 (1992), tables K.1 and K.2: steps of brightness and of colour at quality 50, a row per
# vertical frequency.
_BRIGHTNESS_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_COLOUR_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8 for _ in range(4)),
)
# A DCT of 8 numbers, times sqrt(8) * 2^13. Some differ by 1 from the cosines: they are sums of the
# rounded constants of Loeffler, Ligtenberg and Moschytz 1989, with which libjpeg computes.
_DCT = (
    (8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192),
    (11363, 9633, 6437, 2260, -2260, -6437, -9633, -11363),
    (10703, 4433, -4433, -10703, -10703, -4433, 4433, 10703),
    (9633, -2259, -11362, -6436, 6436, 11362, 2259, -9633),
    (8192, -8192, -8192, 8192, 8192, -8192, -8192, 8192),
    (6437, -11362, 2261, 9633, -9633, -2261, 11362, -6437),
    (4433, -10704, 10704, -4433, -4433, 10704, -10704, 4433),
    (2260, -6436, 9633, -11363, 11363, -9633, 6436, -2260),
)
# JFIF 1.02, page 3, times 2^16.
_TO_YCC = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
_MIDDLE = (128 << 16) - 1  # halves are rounded down
_RED, _GREEN, _BLUE = 91881, (-22554, -46802), 116130


def jpeg(image: Tensor, args: Tensor) -> Tensor:
    """Compresses and decompresses at the quality args[0], in whole numbers as libjpeg does."""
    height, width, channels = ops.shape(image)[0], ops.shape(image)[1], image.shape[-1]
    x = ops.cast(ops.round(ops.cast(image, "float32")), "int32")
    quality = ops.cast(args[0], "int32")
    scale = ops.where(quality < 50, 5000 // ops.maximum(quality, 1), 200 - 2 * quality)
    if channels == 1:
        steps = _steps(_BRIGHTNESS_STEPS, scale)
        return ops.cast(_coded(x[..., 0], steps)[..., None], image.dtype)
    red, green, blue = (x[..., i] for i in range(3))
    bright, *colours = (
        _shifted(a * red + b * green + c * blue + offset, 16)
        for (a, b, c), offset in zip(_TO_YCC, (0, _MIDDLE, _MIDDLE), strict=True)
    )
    bright = _coded(bright, _steps(_BRIGHTNESS_STEPS, scale))
    steps = _steps(_COLOUR_STEPS, scale)
    cb, cr = (_doubled(_coded(_halved(c), steps), height, width) - 128 for c in colours)
    result = (
        bright + _shifted(_RED * cr, 16),
        bright + _shifted(_GREEN[0] * cb + _GREEN[1] * cr, 16),
        bright + _shifted(_BLUE * cb, 16),
    )
    return ops.cast(ops.clip(ops.stack(result, axis=-1), 0, 255), image.dtype)


def _steps(table: Any, scale: Tensor) -> Tensor:
    """Returns the steps of frequencies at a quality: int32 (8, 1, 8)."""
    steps = (ops.convert_to_tensor(table, "int32") * scale + 50) // 100
    return ops.clip(steps, 1, 255)[:, None, :]


def _coded(plane: Tensor, steps: Tensor) -> Tensor:
    """Returns what is left of a plane (H, W) of 8 bits after its frequencies are rounded."""
    height, width = ops.shape(plane)[0], ops.shape(plane)[1]
    blocks = _continued(plane, -(-height // 8) * 8, -(-width // 8) * 8)
    blocks = ops.reshape(blocks, (-(-height // 8), 8, -(-width // 8), 8)) - 128
    forward = ops.convert_to_tensor(_DCT, "int32")
    found = _shifted(ops.einsum("arbc,kc->arbk", blocks, forward), 11)
    found = _shifted(ops.einsum("jr,arbk->ajbk", forward, found), 15)
    # The transform is 8 times too large. With a half added no quotient is so near to a whole number
    # that it matters how a backend divides.
    size = ops.cast(ops.abs(found) + 4 * steps, "float32") + 0.5
    kept = ops.cast(ops.floor(size / ops.cast(8 * steps, "float32")), "int32") * steps
    kept = ops.where(found < 0, -kept, kept)
    back = _shifted(ops.einsum("jr,ajbk->arbk", forward, kept), 11)
    back = _shifted(ops.einsum("arbk,kc->arbc", back, forward), 18)
    whole = ops.reshape(back, (-(-height // 8) * 8, -(-width // 8) * 8))
    return ops.clip(whole[:height, :width] + 128, 0, 255)


def _halved(plane: Tensor) -> Tensor:
    """Returns means of 2 x 2 pixels: (H, W) to (ceil(H / 2), ceil(W / 2) and more)."""
    height, width = ops.shape(plane)[0], ops.shape(plane)[1]
    # The encoder continues rows before it halves them, and columns after.
    x = _continued(plane, -(-height // 2) * 2, -(-width // 16) * 16)
    total = x[::2, ::2] + x[::2, 1::2] + x[1::2, ::2] + x[1::2, 1::2]
    bias = 1 + ops.arange(ops.shape(total)[1], dtype="int32") % 2  # so that halves cancel out
    return ops.right_shift(total + bias, 2)


def _doubled(plane: Tensor, height: Any, width: Any) -> Tensor:
    """Returns a plane of twice the size, cut to (height, width): three parts the near pixel's."""
    rows, columns = -(-height // 2), -(-width // 2)
    x = plane[:rows, :columns]
    above, below = _neighbour(x, -1, 0), _neighbour(x, 1, 0)
    tall = ops.reshape(ops.stack([3 * x + above, 3 * x + below], axis=1), (2 * rows, columns))
    left, right = _neighbour(tall, -1, 1), _neighbour(tall, 1, 1)
    pair = [ops.right_shift(3 * tall + left + 8, 4), ops.right_shift(3 * tall + right + 7, 4)]
    return ops.reshape(ops.stack(pair, axis=2), (2 * rows, 2 * columns))[:height, :width]


def _neighbour(x: Tensor, step: int, axis: int) -> Tensor:
    size = ops.shape(x)[axis]
    return ops.take(x, ops.clip(ops.arange(size, dtype="int32") + step, 0, size - 1), axis=axis)


def _continued(plane: Tensor, height: Any, width: Any) -> Tensor:
    """Returns a plane of another size, continued by its last row and column."""
    for axis, size in enumerate((height, width)):
        last = ops.shape(plane)[axis] - 1
        plane = ops.take(plane, ops.minimum(ops.arange(size, dtype="int32"), last), axis=axis)
    return plane


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Returns whole numbers divided by a power of two and rounded."""
    return ops.right_shift(x + (1 << (bits - 1)), bits)
