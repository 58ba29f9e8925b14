"""Layers that do to images what cameras, lamps and files do: compression, light, local contrast.

Source: each layer names its own.
"""

from __future__ import annotations

from typing import Any

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.image import pixels
from zoo.augment.image.base import Sometimes
from zoo.augment.image.jpeg import jpeg
from zoo.augment.image.program import Step, one
from zoo.augment.layer import Parameters, check_one_of, check_range, register
from zoo.errors import OptionValueError


@register
class RandomJPEG(Sometimes):
    """Compresses images as JPEG files are and decompresses them.

    Colours have half the resolution (4:2:0). Images may have any size; one that is not of whole
    blocks is continued by its last pixels. Results are those of Pillow and torchvision, but for
    images at most 4 pixels wide, whose colours are smoother here.

    Source: `zoo.augment.jpeg`.

    Args:
        quality: Range (low, high) of libjpeg's qualities, whole numbers of 1 to 100; a number is
            always that one.
        **options: Of every image layer, see `ImageAugmentation`.

    Raises:
        OptionValueError: An option that breaks its rule, or images of neither 1 nor 3 channels.
    """

    def __init__(self, quality: Any = (50, 100), **options: Any) -> None:
        super().__init__(**options)
        if isinstance(quality, int | float):
            quality = (quality, quality)
        self.quality = check_range("quality", quality, least=1.0, most=100.0)

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the quality, a whole number."""
        del shape
        low, high = (int(q) for q in self.quality)
        return {"quality": draws.integers(high - low + 1) + low}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the kernel with the quality."""
        check_channels(self, shape, (1, 3))
        return [one(jpeg, parameters["quality"], applied=parameters.get("applied"))]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "quality": self.quality}


# --- local contrast -----------------------------------------------------------------------------

_WHITE = (0.950456, 1.0, 1.088754)  # D65, as OpenCV has it
_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_TO_RGB = (
    (3.240479, -1.537150, -0.498535),
    (-0.969256, 1.875991, 0.041556),
    (0.055648, -0.204043, 1.057311),
)


def clahe(grid: tuple[int, int], *, lightness: bool) -> pixels.Kernel:
    """Returns an equalization by tiles, whose histograms are cut at args[0] times their mean.

    Args:
        grid: Rows and columns of tiles.
        lightness: Of the lightness of colours, not of each channel.
    """

    def equalize(image: Tensor, args: Tensor) -> Tensor:
        x = ops.cast(image, "float32")
        if lightness and image.shape[-1] == 3:
            result = _with_lightness(x, lambda light: _equalized(light, args[0], grid))
        else:
            planes = [_equalized(x[..., i], args[0], grid) for i in range(image.shape[-1])]
            result = ops.stack(planes, axis=-1)
        result = ops.clip(result, 0.0, 255.0)
        return ops.to_uint8(result) if "int" in str(image.dtype) else result

    return equalize


def _equalized(values: Tensor, limit: Tensor, grid: tuple[int, int]) -> Tensor:
    """Returns values (H, W), each by the tables of the four tiles around it."""
    height, width = ops.shape(values)[0], ops.shape(values)[1]
    uneven = _one_if(height % grid[0] + width % grid[1] > 0)
    tall, wide = height // grid[0] + uneven, width // grid[1] + uneven  # of a tile
    x = ops.cast(ops.clip(ops.round(values), 0.0, 255.0), "int32")
    rows = ops.arange(tall * grid[0], dtype="int32")
    columns = ops.arange(wide * grid[1], dtype="int32")
    whole = ops.take(x, _reflected(rows, height), axis=0)
    whole = ops.take(whole, _reflected(columns, width), axis=1)
    tile = (rows // tall * grid[1])[:, None] + (columns // wide)[None, :]
    places = ops.reshape(tile * 256 + whole, (-1,))
    count = grid[0] * grid[1]
    counts = ops.segment_sum(ops.ones_like(places), places, num_segments=256 * count)
    table = _tables(ops.reshape(counts, (count, 256)), limit, tall * wide)
    table = ops.reshape(table, (-1,))
    top, bottom, below = _around(height, tall, grid[0])
    left, right, beside = _around(width, wide, grid[1])

    def looked_up(row: Tensor, column: Tensor) -> Tensor:
        return ops.take(table, (row[:, None] * grid[1] + column[None, :]) * 256 + x, axis=0)

    upper = looked_up(top, left) * (1.0 - beside) + looked_up(top, right) * beside
    lower = looked_up(bottom, left) * (1.0 - beside) + looked_up(bottom, right) * beside
    return ops.round(upper * (1.0 - below[:, None]) + lower * below[:, None])


def _tables(counts: Tensor, limit: Tensor, area: Any) -> Tensor:
    """Returns the table of each tile: float32 (tiles, 256)."""
    area = ops.cast(area, "float32")
    most = ops.maximum(ops.cast(ops.floor(limit * area / 256.0), "int32"), 1)
    excess = ops.sum(ops.maximum(counts - most, 0), axis=-1, keepdims=True)
    rest = excess % 256
    step = ops.maximum(256 // ops.maximum(rest, 1), 1)
    value = ops.arange(256, dtype="int32")[None, :]
    more = (value % step == 0) & (value // step < rest)
    cut = ops.minimum(counts, most) + excess // 256 + ops.cast(more, "int32")
    return ops.round(ops.cast(ops.cumsum(cut, axis=-1), "float32") * (255.0 / area))


def _around(size: Any, tile: Any, tiles: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the tiles before and after each pixel, and how far it is from the first."""
    place = ops.arange(size, dtype="float32") * (1.0 / ops.cast(tile, "float32")) - 0.5
    first = ops.floor(place)
    before = ops.cast(first, "int32")
    return ops.maximum(before, 0), ops.minimum(before + 1, tiles - 1), place - first


def _reflected(places: Tensor, size: Any) -> Tensor:
    """Returns places beyond the end as those before it; the last pixel is the mirror."""
    period = ops.maximum(2 * (size - 1), 1)
    places = places % period
    return ops.minimum(ops.minimum(places, period - places), size - 1)


def _one_if(condition: Any) -> Any:
    return int(condition) if isinstance(condition, bool) else ops.cast(condition, "int32")


def _with_lightness(image: Tensor, change: Any) -> Tensor:
    """Returns colours (H, W, 3) whose lightness, as values of 0 to 255, was changed.

    The hue and the chroma of CIELAB stay.
    """
    unit = image / 255.0
    power = ops.power(ops.maximum((unit + 0.055) / 1.055, 1e-6), 2.4)
    linear = ops.where(unit <= 0.04045, unit / 12.92, power)
    roots = []
    for row, white in zip(_TO_XYZ, _WHITE, strict=True):
        ratio = sum(weight * linear[..., i] for i, weight in enumerate(row)) / white
        root = ops.power(ops.maximum(ratio, 1e-6), 1.0 / 3.0)
        roots.append(ops.where(ratio > 0.008856, root, 7.787 * ratio + 16.0 / 116.0))
    light = 296.0 * roots[1] - 40.8  # OpenCV's rounding of 2.55 (116 root - 16)
    more = (change(light) - ops.round(light)) / 296.0
    xyz = []
    for root, white in zip(roots, _WHITE, strict=True):
        moved = root + more
        low = (moved - 16.0 / 116.0) / 7.787
        xyz.append(ops.where(moved > 0.206893, moved**3, low) * white)
    linear = ops.stack([sum(w * xyz[i] for i, w in enumerate(row)) for row in _TO_RGB], axis=-1)
    power = 1.055 * ops.power(ops.maximum(linear, 1e-6), 1.0 / 2.4) - 0.055
    return ops.where(linear <= 0.0031308, 12.92 * linear, power) * 255.0


@register
class CLAHE(Sometimes):
    """Equalizes the histograms of an image's parts, as far as a limit of contrast allows.

    Source: Zuiderveld 1994, Graphics Gems IV, chapter VIII.5; results are those of OpenCV's
    `createCLAHE`. Differs: colours are not rounded on the way to CIELAB and back, which in OpenCV
    alone changes them.

    Args:
        clip_limit: Range (low, high) of how many times its mean a histogram may reach; a number is
            always that one. 1 is close to no change.
        grid: Rows and columns of tiles; an int is both.
        on: "lightness" (of CIELAB; other images than those of 3 channels by channel) or "channels".
        **options: Of every image layer, see `ImageAugmentation`.
    """

    def __init__(
        self,
        clip_limit: Any = (1.0, 4.0),
        grid: Any = 8,
        on: str = "lightness",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if isinstance(clip_limit, int | float):
            clip_limit = (clip_limit, clip_limit)
        self.clip_limit = check_range("clip_limit", clip_limit, least=1e-3)
        pair = (grid, grid) if isinstance(grid, int) else tuple(grid)
        if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
            raise OptionValueError(
                f"`grid` must be a positive int or two of them (rows, columns); got grid={grid!r}."
            )
        self.grid = (pair[0], pair[1])
        self.on = check_one_of("on", on, ("lightness", "channels"))

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the limit."""
        del shape
        return {"clip_limit": draws.uniform(*self.clip_limit)}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the kernel with the limit."""
        del shape
        kernel = clahe(self.grid, lightness=self.on == "lightness")
        return [one(kernel, parameters["clip_limit"], applied=parameters.get("applied"))]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "clip_limit": self.clip_limit,
            "grid": self.grid,
            "on": self.on,
        }


# --- light --------------------------------------------------------------------------------------

# Wyman, Sloan and Shirley 2013, JCGT 2(2), equation 4: CIE 1931 x, y, z as sums of Gaussians of
# (weight, centre, deviation before it, deviation after it) in nm.
_OBSERVER = (
    ((1.056, 599.8, 37.9, 31.0), (0.362, 442.0, 16.0, 26.7), (-0.065, 501.1, 20.4, 26.2)),
    ((0.821, 568.8, 46.9, 40.5), (0.286, 530.9, 16.3, 31.1)),
    ((1.217, 437.0, 11.8, 36.0), (0.681, 459.0, 26.0, 13.8)),
)
_SECOND_RADIATION = 1.438776877e7  # h c / k, in nm K


def chromaticity(kelvin: Tensor) -> Tensor:
    """Returns X, Y, Z of the light of black bodies, up to a factor: (B,) to (B, 3)."""
    wave = ops.arange(360, 831, 5, dtype="float32")[None, :]
    exponent = _SECOND_RADIATION / (wave * kelvin[:, None])
    light = (wave / 560.0) ** -5 / (ops.exp(exponent) - 1.0)
    seen = []
    for lobes in _OBSERVER:
        curve = 0.0
        for weight, centre, before, after in lobes:
            distance = (wave - centre) / ops.where(wave < centre, before, after)
            curve = curve + weight * ops.exp(-0.5 * distance**2)
        seen.append(ops.sum(light * curve, axis=-1))
    return ops.stack(seen, axis=-1)


def light_gains(kelvin: Tensor) -> Tensor:
    """Returns red, green and blue of a black body's light by its green, in linear sRGB: (B, 3)."""
    xyz = chromaticity(kelvin)
    rgb = [sum(w * xyz[:, i] for i, w in enumerate(row)) for row in _TO_RGB]
    return ops.maximum(ops.stack([channel / rgb[1] for channel in rgb], axis=-1), 0.0)


@register
class PlanckianJitter(Sometimes):
    """Changes the light of the scene to that of a black body of another temperature.

    Values are multiplied as they are, without undoing sRGB's curve, and green stays.

    Source: Zini et al. 2022, arXiv:2202.07993, section 3. Differs: any temperature of the range,
    not one of 25; factors follow from Planck's law and the CIE 1931 observer in linear sRGB. From
    4500 K on they are within 9 % (red) and 16 % (blue) of the paper's; below they are less blue.

    Args:
        kelvin: Range (low, high) of temperatures within [2000, 40000]: low is red, high is blue,
            about 6500 changes little.
        **options: Of every image layer, see `ImageAugmentation`.

    Raises:
        OptionValueError: An option that breaks its rule, or images that are not of 3 channels.
    """

    def __init__(self, kelvin: Any = (3000.0, 15000.0), **options: Any) -> None:
        super().__init__(**options)
        self.kelvin = check_range("kelvin", kelvin, least=2000.0, most=40000.0)

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the temperature."""
        del shape
        return {"kelvin": draws.uniform(*self.kelvin)}

    def steps(self, parameters: Parameters, shape: tuple[Any, ...]) -> list[Step]:
        """Returns the factors of the channels."""
        check_channels(self, shape, (3,))
        gains = light_gains(ops.cast(parameters["kelvin"], "float32"))
        factors = [gains[:, i] for i in range(3)]
        return [one(pixels.channel_scale, *factors, applied=parameters.get("applied"))]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "kelvin": self.kelvin}


def check_channels(layer: Any, shape: tuple[Any, ...], known: tuple[int, ...]) -> None:
    """Checks the number of channels.

    Raises:
        OptionValueError: The layer has no meaning for as many.
    """
    if shape[-1] not in known:
        listed = " or ".join(map(str, known))
        raise OptionValueError(
            f"{type(layer).__name__} takes images of {listed} channels; got images of shape "
            f"{tuple(shape)}."
        )
