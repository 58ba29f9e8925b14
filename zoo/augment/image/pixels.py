"""Operations on one image, on its values and on its places: the kernels of all image layers.

Each takes an image (H, W, C), uint8 or float32 in [0, 255], and a vector of numbers (A,), and
returns an image of the same kind. On uint8 images the results are torchvision's, whose rounding
after each operation is kept: values are cut, not rounded, except where a comment says so.

Source: the operations of torchvision.transforms.v2.functional, 0.29.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor

Kernel = Callable[[Tensor, Tensor], Tensor]
Fill = tuple[float, ...] | str  # a value for all channels, one for each, or "edge"
GRAY = (0.2989, 0.587, 0.114)  # weights of red, green and blue in torchvision


def unchanged(image: Tensor, args: Tensor) -> Tensor:  # noqa: ARG001 - the form of a kernel
    """Returns the image."""
    return image


# --- values -------------------------------------------------------------------------------------


def brightness(image: Tensor, args: Tensor) -> Tensor:
    """Multiplies by args[0]."""
    return _like(_float(image) * args[0], image)


def contrast(image: Tensor, args: Tensor) -> Tensor:
    """Multiplies the distance from the mean gray by args[0]."""
    mean = ops.mean(_gray(image))
    return _blend(image, mean, args[0])


def saturation(image: Tensor, args: Tensor) -> Tensor:
    """Multiplies the distance from gray by args[0]."""
    if image.shape[-1] == 1:
        return image
    return _blend(image, _gray(image), args[0])


def hue(image: Tensor, args: Tensor) -> Tensor:
    """Turns the hue by args[0] in [-0.5, 0.5] of a circle."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = _channels(_float(image) * (1.0 / 255.0))
    most = ops.maximum(ops.maximum(red, green), blue)
    least = ops.minimum(ops.minimum(red, green), blue)
    spread = most - least
    gray = spread == 0
    inverse = 1.0 / ops.where(gray, 1.0, spread)
    share = spread / ops.where(gray, 1.0, most)
    r, g, b = (most - red) * inverse, (most - green) * inverse, (most - blue) * inverse
    angle = ops.where(most == red, b - g, ops.where(most == green, r - b + 2.0, g - r + 4.0))
    turned = angle * (1.0 / 6.0) + 1.0 + args[0]
    sector = (turned - ops.floor(turned)) * 6.0

    def channel(offset: float) -> Tensor:
        # 1 on a third of the circle, 0 on the opposite one, linear between.
        k = sector + offset
        k = k - 6.0 * ops.floor(k * (1.0 / 6.0))
        return most - most * share * ops.clip(ops.minimum(k, 4.0 - k), 0.0, 1.0)

    result = ops.stack([channel(5.0), channel(3.0), channel(1.0)], axis=-1)
    return _from_unit(result, image)


def gamma(image: Tensor, args: Tensor) -> Tensor:
    """Raises values in [0, 1] to the power args[0]."""
    unit = ops.power(_float(image) * (1.0 / 255.0), args[0])
    return _from_unit(ops.clip(unit, 0.0, 1.0), image)


def posterize(image: Tensor, args: Tensor) -> Tensor:
    """Keeps the args[0] highest of 8 bits."""
    step = _power_of_two(8.0 - ops.floor(args[0]))
    return _like(ops.floor(_float(image) / step) * step, image)


def solarize(image: Tensor, args: Tensor) -> Tensor:
    """Inverts values from args[0] on."""
    x = _float(image)
    return _like(ops.where(x >= args[0], 255.0 - x, x), image)


def solarize_add(image: Tensor, args: Tensor) -> Tensor:
    """Adds args[0] to values below args[1]."""
    x = _float(image)
    return _like(ops.where(x < args[1], x + args[0], x), image)


def invert(image: Tensor, args: Tensor) -> Tensor:  # noqa: ARG001
    """Inverts all values."""
    return _like(255.0 - _float(image), image)


def autocontrast(image: Tensor, args: Tensor) -> Tensor:  # noqa: ARG001
    """Stretches each channel to [0, 255]."""
    x = _float(image)
    least = ops.min(x, axis=(0, 1), keepdims=True)
    spread = ops.max(x, axis=(0, 1), keepdims=True) - least
    flat = spread == 0
    scale = ops.where(flat, 1.0, spread * (1.0 / 255.0))
    return _like((x - ops.where(flat, 0.0, least)) / scale, image)


def equalize(image: Tensor, args: Tensor) -> Tensor:  # noqa: ARG001
    """Makes the values of each channel about equally frequent, as Pillow does."""
    channels = image.shape[-1]
    values = ops.reshape(ops.cast(image, "int32"), (-1, channels))
    offsets = 256 * ops.arange(channels, dtype="int32")
    places = ops.reshape(values + offsets, (-1,))
    counts = ops.segment_sum(ops.ones_like(places), places, num_segments=256 * channels)
    counts = ops.reshape(counts, (channels, 256))
    below = ops.cumsum(counts, axis=-1)
    pixels = below[:, -1:]
    last = ops.max(ops.where(counts > 0, ops.arange(256, dtype="int32"), 0), axis=-1, keepdims=True)
    rest = pixels - ops.take_along_axis(counts, last, axis=-1)
    step = rest // 255
    table = (below - counts + step // 2) // ops.maximum(step, 1)
    same = ops.arange(256, dtype="int32")
    table = ops.where(step == 0, same, ops.clip(table, 0, 255))
    table = ops.cast(ops.reshape(table, (-1,)), image.dtype)
    return ops.reshape(ops.take(table, places, axis=0), ops.shape(image))


def sharpness(image: Tensor, args: Tensor) -> Tensor:
    """Multiplies the distance from a slightly blurred image by args[0]; the edge stays."""
    height, width, channels = ops.shape(image)[0], ops.shape(image)[1], image.shape[-1]
    if isinstance(height, int) and isinstance(width, int) and min(height, width) <= 2:
        return image
    # Rows of numbers, whose inner loop is long: as (H, W, 3) this takes three times as long.
    rows = ops.reshape(image, (height, width * channels))
    x = _float(rows)
    across = x[:-2] + x[1:-1] + x[2:]
    inside = x[1:-1, channels:-channels]
    total = across[:, : -2 * channels] + across[:, channels:-channels] + across[:, 2 * channels :]
    blurred = (total + 4.0 * inside) * (1.0 / 13.0)
    if _is_integer(image):
        blurred = ops.round(blurred)
    changed = _like(inside + (1.0 - args[0]) * (blurred - inside), image)
    return ops.reshape(ops.slice_update(rows, (1, channels), changed), (height, width, channels))


def grayscale(image: Tensor, args: Tensor) -> Tensor:  # noqa: ARG001
    """Makes all channels the gray value."""
    if image.shape[-1] == 1:
        return image
    return _like(_gray(image) + ops.zeros_like(_float(image)), image)


def channel_shuffle(image: Tensor, args: Tensor) -> Tensor:
    """Puts channel args[i] into place i."""
    return ops.take(image, ops.cast(args[: image.shape[-1]], "int32"), axis=-1)


def channel_scale(image: Tensor, args: Tensor) -> Tensor:
    """Multiplies each channel by its own number."""
    return _like(_float(image) * args[: image.shape[-1]], image)


def gaussian_blur(size: int) -> Kernel:
    """Returns a blur by a Gaussian of args[0] pixels, cut off at `size` pixels across.

    The image is continued by reflection; results are rounded.
    """
    half = size // 2

    def blur(image: Tensor, args: Tensor) -> Tensor:
        x = _float(image)
        places = ops.arange(-half, half + 1, dtype="float32")
        weights = ops.exp(-0.5 * (places / args[0]) ** 2)
        weights = weights / ops.sum(weights)
        for axis in (0, 1):
            length = ops.shape(image)[axis]

            def part(first: Any, last: Any, axis: int = axis, x: Tensor = x) -> Tensor:
                return x[first:last] if axis == 0 else x[:, first:last]

            # By hand, since torch cannot pad so many axes by reflection.
            before = ops.flip(part(1, half + 1), axis=axis)
            after = ops.flip(part(length - half - 1, length - 1), axis=axis)
            x = ops.concatenate([before, x, after], axis=axis)
            x = sum(part(tap, tap + length, x=x) * weights[tap] for tap in range(size))
        return _like(x, image, rounded=True)

    return blur


def gaussian_noise(draw: Callable[[Tensor, tuple[int, ...]], Tensor]) -> Kernel:
    """Returns normal noise of deviation args[0] around args[1], of the seed in args[2:4].

    Args:
        draw: Returns normal numbers of a shape for a seed.
    """

    def add(image: Tensor, args: Tensor) -> Tensor:
        # A float32 holds 24 bits exactly: the seed comes in two halves.
        seed = ops.cast(args[2], "int32") * 65536 + ops.cast(args[3], "int32")
        noise = draw(seed, tuple(image.shape))
        return _like(_float(image) + args[1] + args[0] * noise, image, rounded=True)

    return add


# --- places -------------------------------------------------------------------------------------


def warp(
    size: tuple[int, int] | None = None,
    *,
    interpolation: str = "bilinear",
    fill: Fill = (0.0,),
) -> Kernel:
    """Returns a kernel that takes each pixel from where a matrix says.

    The matrix args[:9] maps places (x, y, 1) of the result, in pixels from its centre, to places
    of the image, in pixels from its centre. Results are rounded.

    Args:
        size: Height and width of the result; None keeps the image's.
        interpolation: "nearest" or "bilinear".
        fill: Value outside of the image, for all channels or for each, or "edge": that of the
            nearest pixel.
    """

    def move(image: Tensor, args: Tensor) -> Tensor:
        height, width = ops.shape(image)[0], ops.shape(image)[1]
        to = size or (height, width)
        x = _centered(to[1])[None, :]
        y = _centered(to[0])[:, None]
        depth = args[6] * x + args[7] * y + args[8]
        h, w = ops.cast(height, "float32"), ops.cast(width, "float32")
        # In halves of the image and back: the order in which torch's `grid_sample` rounds.
        right, down = args[:3] / (0.5 * w), args[3:6] / (0.5 * h)
        column = (((x * right[0] + y * right[1] + right[2]) / depth + 1.0) * w - 1.0) * 0.5
        row = (((x * down[0] + y * down[1] + down[2]) / depth + 1.0) * h - 1.0) * 0.5
        return sample_at(image, row, column, interpolation=interpolation, fill=fill)

    return move


def shift(fill: tuple[float, ...]) -> Kernel:
    """Returns a kernel that moves by whole pixels: to the left by args[2], up by args[5].

    These are the places of a shift in the matrix of `warp`, whose results are the same.

    Args:
        fill: Value outside of the image, for all channels or for each.
    """

    def move(image: Tensor, args: Tensor) -> Tensor:
        height, width, channels = ops.shape(image)[0], ops.shape(image)[1], image.shape[-1]
        rows = ops.reshape(image, (height, width * channels))
        right, down = ops.cast(args[2], "int32"), ops.cast(args[5], "int32")
        right, down = ops.clip(right, -width, width), ops.clip(down, -height, height)
        row = ops.arange(height, dtype="int32")[:, None] + down
        column = ops.arange(width * channels, dtype="int32")[None, :] + right * channels
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width * channels)
        moved = ops.roll(ops.roll(rows, -down, axis=0), -right * channels, axis=1)
        values = ops.convert_to_tensor(fill, "float32")
        outside = ops.cast(ops.tile(values, (width * channels // len(fill),)), image.dtype)
        return ops.reshape(ops.where(inside, moved, outside), (height, width, channels))

    return move


def sample_at(
    image: Tensor,
    row: Tensor,
    column: Tensor,
    *,
    interpolation: str = "bilinear",
    fill: Fill = (0.0,),
) -> Tensor:
    """Returns the values of an image at places between its pixels.

    Args:
        image: (H, W, C).
        row: Of the first pixel row's centre is 0: (h, w).
        column: (h, w).
        interpolation: "nearest" or "bilinear".
        fill: Value outside, or "edge".

    Returns:
        (h, w, C), rounded if the image is of integers.
    """
    height, width, channels = ops.shape(image)[0], ops.shape(image)[1], image.shape[-1]
    pixels = ops.reshape(image, (-1, channels))
    to_edge = fill == "edge"
    outside = ops.convert_to_tensor((0.0,) if to_edge else fill, "float32")

    def taken(row: Tensor, column: Tensor, kind: str) -> Tensor:
        place = ops.clip(row, 0, height - 1) * width + ops.clip(column, 0, width - 1)
        values = ops.cast(ops.take(pixels, place, axis=0), kind)
        if to_edge:
            return values
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return ops.where(ops.expand_dims(inside, -1), values, ops.cast(outside, kind))

    if interpolation == "nearest":
        near = ops.round(row), ops.round(column)
        return taken(ops.cast(near[0], "int32"), ops.cast(near[1], "int32"), image.dtype)
    top, left = ops.floor(row), ops.floor(column)
    below, beside = ops.expand_dims(row - top, -1), ops.expand_dims(column - left, -1)
    top, left = ops.cast(top, "int32"), ops.cast(left, "int32")
    total = 0.0
    for down, vertical in ((0, 1.0 - below), (1, below)):
        for right, horizontal in ((0, 1.0 - beside), (1, beside)):
            values = taken(top + down, left + right, "float32")
            total = total + values * (vertical * horizontal)
    return _like(total, image, rounded=True)


def flip_horizontal(image: Tensor, args: Tensor) -> Tensor:  # noqa: ARG001
    """Mirrors left and right."""
    return ops.flip(image, axis=1)


def flip_vertical(image: Tensor, args: Tensor) -> Tensor:  # noqa: ARG001
    """Mirrors top and bottom."""
    return ops.flip(image, axis=0)


def dihedral(turns: int, flipped: bool) -> Kernel:
    """Returns a turn by a number of right angles against the clock, of a mirrored image or not."""

    def turn(image: Tensor, args: Tensor) -> Tensor:  # noqa: ARG001
        if flipped:
            image = ops.flip(image, axis=1)
        if turns % 2:
            image = ops.transpose(image, (1, 0, 2))
            return ops.flip(image, axis=0) if turns == 1 else ops.flip(image, axis=1)
        return ops.flip(image, axis=(0, 1)) if turns == 2 else image

    return turn


def erase(fill: tuple[float, ...]) -> Kernel:
    """Returns a kernel that fills a rectangle: top, left, height, width in args[:4].

    Args:
        fill: Value, for all channels or for each.
    """

    def fill_in(image: Tensor, args: Tensor) -> Tensor:
        value = ops.cast(ops.convert_to_tensor(fill, "float32"), image.dtype)
        return ops.where(rectangle(image, args), value, image)

    return fill_in


def erase_with_noise(draw: Callable[[Tensor, tuple[int, ...]], Tensor]) -> Kernel:
    """Returns a kernel that fills a rectangle with uniform noise of the seed in args[4:6].

    Args:
        draw: Returns uniform numbers of a shape for a seed.
    """

    def fill_in(image: Tensor, args: Tensor) -> Tensor:
        seed = ops.cast(args[4], "int32") * 65536 + ops.cast(args[5], "int32")
        noise = ops.floor(draw(seed, tuple(image.shape)) * 256.0)
        return ops.where(rectangle(image, args), ops.cast(noise, image.dtype), image)

    return fill_in


def rectangle(image: Tensor, args: Tensor) -> Tensor:
    """Returns whether a pixel lies in the rectangle top, left, height, width: (H, W, 1)."""
    row = ops.arange(ops.shape(image)[0], dtype="float32")[:, None, None]
    column = ops.arange(ops.shape(image)[1], dtype="float32")[None, :, None]
    return (
        (row >= args[0])
        & (row < args[0] + args[2])
        & (column >= args[1])
        & (column < args[1] + args[3])
    )


# --- numbers ------------------------------------------------------------------------------------


def _is_integer(image: Tensor) -> bool:
    return "int" in str(image.dtype)


def _float(image: Tensor) -> Tensor:
    return ops.cast(image, "float32")


def _like(x: Tensor, image: Tensor, *, rounded: bool = False) -> Tensor:
    """Returns values in the range and the type of an image."""
    x = ops.clip(x, 0.0, 255.0)
    if not _is_integer(image):
        return x
    return ops.to_uint8(x if rounded else ops.floor(x))


def _from_unit(x: Tensor, image: Tensor) -> Tensor:
    """Returns values in [0, 1] as an image."""
    if _is_integer(image):
        return ops.cast(x * 255.999, image.dtype)
    return x * 255.0


def _channels(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x[..., 0], x[..., 1], x[..., 2]


def _gray(image: Tensor) -> Tensor:
    """Returns the gray values: (H, W, 1)."""
    x = _float(image)
    if image.shape[-1] == 1:
        return x
    red, green, blue = _channels(x)
    gray = ops.expand_dims(red * GRAY[0] + green * GRAY[1] + blue * GRAY[2], -1)
    return ops.floor(gray) if _is_integer(image) else gray


def _blend(image: Tensor, other: Tensor, ratio: Tensor) -> Tensor:
    return _like(_float(image) * ratio + (1.0 - ratio) * other, image)


def _power_of_two(exponent: Tensor) -> Tensor:
    return ops.round(ops.exp(exponent * math.log(2.0)))


def _centered(size: Any) -> Tensor:
    """Returns the places of pixel centres, in pixels from the middle: (size,)."""
    places = ops.arange(size, dtype="float32")
    return places - 0.5 * (ops.cast(size, "float32") - 1.0)
