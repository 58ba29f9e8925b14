"""Layers on waveforms: each recording of a batch is changed by amounts of its own.

Waveforms are floating-point numbers, with silence at 0; lengths stay.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from zoo.augment import backend as ops
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.layer import (
    Augmentation,
    Data,
    Parameters,
    check_range,
    register,
)
from zoo.errors import OptionValueError


class AudioAugmentation(Augmentation):
    """Base of layers on waveforms.

    They take waveforms (T,) or (B, T) of any floating-point type, or a dictionary of `audio` and
    what belongs to it, such as `labels`, which stay. They compute in float32.

    Args:
        **options: `p`, `seed`, `name`.

    Raises:
        OptionValueError: An option that breaks its rule, or a waveform of integers.
    """

    main = "audio"
    rank = 1
    keys = ("audio", "labels")

    def draw(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws whether each sample is changed, and how."""
        return {"applied": draws.chance(self.p), **self.draw_amounts(draws, shape)}

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws what `changed` takes."""
        del draws, shape
        return {}

    def changed(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Returns a float32 batch as the parameters say, as if all of them were applied."""
        raise NotImplementedError

    def transform(self, data: Data, parameters: Parameters) -> Data:
        """Changes the samples that `applied` says; all of them if it is not given."""
        x = data[self.main]
        kind = keras.backend.standardize_dtype(x.dtype)
        if "float" not in kind:
            raise OptionValueError(
                f"{type(self).__name__} takes floating-point `{self.main}`; got {kind}. Divide "
                "16-bit samples by 32768 first."
            )
        result = ops.cast(self.changed(ops.cast(x, "float32"), parameters), kind)
        if "applied" in parameters:
            applied = ops.reshape(parameters["applied"], (-1, *(1 for _ in range(self.rank))))
            result = ops.where(applied, result, x)
        # Reshaped, for TensorFlow loses sight of sizes when it takes values by their places.
        return {**data, self.main: ops.reshape(result, ops.shape(x))}


@register
class RandomGain(AudioAugmentation):
    """Makes a recording louder or quieter.

    Args:
        gain_db: Range (low, high), in decibels.
        **options: Of every audio layer, see `AudioAugmentation`.
    """

    def __init__(self, gain_db: Any = (-12.0, 12.0), **options: Any) -> None:
        super().__init__(**options)
        self.gain_db = check_range("gain_db", gain_db)

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the gain."""
        del shape
        return {"gain_db": draws.uniform(*self.gain_db)}

    def changed(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Multiplies by the gain."""
        return x * amplitude(parameters["gain_db"])[:, None]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "gain_db": self.gain_db}


@register
class RandomPolarity(AudioAugmentation):
    """Turns a waveform upside down.

    Args:
        p: Probability.
        **options: Of every audio layer, see `AudioAugmentation`.
    """

    def __init__(self, *, p: float = 0.5, **options: Any) -> None:
        super().__init__(p=p, **options)

    def changed(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Negates."""
        del parameters
        return -x


@register
class RandomClipping(AudioAugmentation):
    """Cuts off the peaks, as an overdriven microphone does.

    Args:
        depth_db: Range (low, high) of how far below the recording's peak it is cut, in decibels.
        **options: Of every audio layer, see `AudioAugmentation`.
    """

    def __init__(self, depth_db: Any = (0.0, 12.0), **options: Any) -> None:
        super().__init__(**options)
        self.depth_db = check_range("depth_db", depth_db, least=0.0)

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the depth."""
        del shape
        return {"depth_db": draws.uniform(*self.depth_db)}

    def changed(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Cuts off."""
        peak = ops.max(ops.abs(x), axis=-1, keepdims=True)
        limit = peak * amplitude(-parameters["depth_db"])[:, None]
        return ops.minimum(ops.maximum(x, -limit), limit)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "depth_db": self.depth_db}


@register
class TimeShift(AudioAugmentation):
    """Moves a recording in time.

    Args:
        shift_share: Range (low, high) of shares of the length within [-1, 1]; positive is later.
        shift_s: Range in seconds, used instead of `shift_share`; needs `sample_rate_hz`.
        sample_rate_hz: Samples per second.
        wrap: What leaves at one end comes in at the other; otherwise `fill` comes in.
        fill: Value.
        **options: Of every audio layer, see `AudioAugmentation`.
    """

    def __init__(
        self,
        shift_share: Any = (-0.25, 0.25),
        *,
        shift_s: Any = None,
        sample_rate_hz: float | None = None,
        wrap: bool = False,
        fill: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.shift_share = check_range("shift_share", shift_share, least=-1.0, most=1.0)
        self.shift_s = None if shift_s is None else check_range("shift_s", shift_s)
        self.sample_rate_hz = check_rate(self, sample_rate_hz, needed=shift_s is not None)
        self.wrap = wrap
        self.fill = fill

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the shift, in samples."""
        whole = ops.cast(shape[1], "float32")
        if self.shift_s is None:
            shift = draws.uniform(*self.shift_share) * whole
        else:
            shift = draws.uniform(*self.shift_s) * self.sample_rate_hz
        return {"shift": ops.cast(ops.round(ops.clip(shift, -whole, whole)), "int32")}

    def changed(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Moves."""
        length = length_of(x)
        place = ops.arange(length, dtype="int32")[None, :] - parameters["shift"][:, None]
        moved = taken(x, place % length)
        if self.wrap:
            return moved
        return ops.where((place >= 0) & (place < length), moved, self.fill)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "shift_share": self.shift_share,
            "shift_s": self.shift_s,
            "sample_rate_hz": self.sample_rate_hz,
            "wrap": self.wrap,
            "fill": self.fill,
        }


@register
class TimeMask(AudioAugmentation):
    """Replaces stretches of time by a value.

    Args:
        width_share: Range (low, high) of a stretch's share of the length.
        width_s: Range in seconds, used instead of `width_share`; needs `sample_rate_hz`.
        sample_rate_hz: Samples per second.
        count: Stretches per recording.
        fill: Value.
        **options: Of every audio layer, see `AudioAugmentation`.
    """

    def __init__(
        self,
        width_share: Any = (0.0, 0.2),
        *,
        width_s: Any = None,
        sample_rate_hz: float | None = None,
        count: int = 1,
        fill: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.width_share = check_range("width_share", width_share, least=0.0, most=1.0)
        self.width_s = None if width_s is None else check_range("width_s", width_s, least=0.0)
        self.sample_rate_hz = check_rate(self, sample_rate_hz, needed=width_s is not None)
        self.count = check_count("count", count, least=1)
        self.fill = fill

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws first samples and widths, in samples: (B, count)."""
        size, whole = (self.count,), ops.cast(shape[1], "float32")
        if self.width_s is None:
            width = draws.uniform(*self.width_share, size) * whole
        else:
            width = draws.uniform(*self.width_s, size) * self.sample_rate_hz
        width = ops.cast(ops.round(ops.minimum(width, whole)), "int32")
        return {"width": width, "start": draws.integers(shape[1] - width + 1, size)}

    def changed(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Fills in."""
        hidden = masked(length_of(x), parameters["start"], parameters["width"])
        return ops.where(hidden, self.fill, x)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "width_share": self.width_share,
            "width_s": self.width_s,
            "sample_rate_hz": self.sample_rate_hz,
            "count": self.count,
            "fill": self.fill,
        }


# --- numbers ------------------------------------------------------------------------------------


def taken(x: Tensor, index: Tensor) -> Tensor:
    """Returns values of each row: x (B, L), index (B, ...) of int32 in [0, L)."""
    rows = ops.arange(ops.shape(x)[0], dtype="int32") * length_of(x)
    rows = ops.reshape(rows, (-1, *(1 for _ in index.shape[1:])))
    return ops.take(ops.reshape(x, (-1,)), index + rows, axis=0)


def masked(length: Any, start: Tensor, width: Tensor) -> Tensor:
    """Returns whether places lie in one of the stretches (B, count): bool (B, length)."""
    place = ops.arange(length, dtype="int32")[None, None, :]
    inside = (place >= start[:, :, None]) & (place < (start + width)[:, :, None])
    return ops.any(inside, axis=1)


def log_uniform(draws: Draws, limits: tuple[float, float]) -> Tensor:
    """Draws numbers of a range, in which equal ratios are equally likely: (B,)."""
    return ops.exp(draws.uniform(math.log(limits[0]), math.log(limits[1])))


def fft_length(least: Any) -> Any:
    """Returns the next even length whose prime factors are 2, 3 and 5, which transforms fast."""
    if not isinstance(least, int):  # a tensor, where lengths are known only when data come
        return least + least % 2
    length = least + least % 2
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 2


def rms(x: Tensor) -> Tensor:
    """Returns the root of the mean power: (B, T) -> (B, 1)."""
    return ops.sqrt(ops.mean(x * x, axis=-1, keepdims=True))


def amplitude(decibels: Tensor) -> Tensor:
    """Returns factors of amplitude for gains in decibels."""
    return ops.exp(decibels * (math.log(10.0) / 20.0))


def length_of(x: Tensor) -> Any:
    """Returns the length of waveforms (B, T): a number where it is known, else a tensor."""
    return ops.shape(x)[1] if x.shape[1] is None else int(x.shape[1])


# --- rules of options ---------------------------------------------------------------------------


def check_rate(layer: Augmentation, sample_rate_hz: Any, *, needed: bool) -> Any:
    """Returns a sample rate.

    Raises:
        OptionValueError: It is not positive, or is missing where seconds or hertz need it.
    """
    if sample_rate_hz is None and not needed:
        return None
    if sample_rate_hz is None or not sample_rate_hz > 0:
        raise OptionValueError(
            f"{type(layer).__name__} counts in seconds or hertz, so `sample_rate_hz` must be a "
            f"positive number of samples per second, such as 16000; got "
            f"sample_rate_hz={sample_rate_hz!r}."
        )
    return sample_rate_hz


def check_count(name: str, value: int, *, least: int) -> int:
    """Returns a number of things.

    Raises:
        OptionValueError: It is too small, or no whole number.
    """
    if not isinstance(value, int | np.integer) or value < least:
        raise OptionValueError(
            f"`{name}` must be a whole number of at least {least}; got {name}={value!r}."
        )
    return int(value)


def check_bank(name: str, value: Any) -> np.ndarray[Any, Any]:
    """Returns recordings as float32 (N, L); one recording (L,) is a bank of one.

    Raises:
        OptionValueError: They are not such an array, or not finite.
    """
    try:
        bank = np.array(value, "float32")
    except (TypeError, ValueError):
        bank = np.zeros(0, "float32")
    bank = bank[None, :] if bank.ndim == 1 else bank
    if bank.ndim != 2 or bank.size == 0 or not np.isfinite(bank).all():
        raise OptionValueError(
            f"`{name}` must be finite numbers of shape (N, L), recordings of one length; got "
            f"{name} of shape {bank.shape}. Repeat or cut them to one length."
        )
    return bank
