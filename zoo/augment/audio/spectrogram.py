"""Layers on spectra over time: masks on spectrograms, and waveforms stretched by way of theirs."""

from __future__ import annotations

import functools
import math
from typing import Any

from zoo.augment import backend as ops
from zoo.augment.audio.waveform import AudioAugmentation, check_count, log_uniform, masked, taken
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.layer import Parameters, check_probability, check_range, register
from zoo.errors import OptionValueError

_HOPS = 4  # per window: squared Hann windows at a quarter of their length add up evenly
_TAPS = 16  # of the interpolation between samples
_BLOCK = 256  # samples whose places are counted from a common one, to keep float32 exact


@register
class TimeStretch(AudioAugmentation):
    """Plays a recording faster or slower without changing its pitch; the length stays.

    A faster one is followed by silence, of a slower one the end is cut.

    Source: the phase vocoder with identity phase locking of Laroche and Dolson 1999, "Improved
    phase vocoder time-scale modification of audio", section III-D, without which steady tones lose
    up to half of their level. Magnitudes between frames are linear.

    Args:
        rate: Range (low, high) of speeds, 2 being twice as fast; equal ratios are equally likely.
        window: Length of a frame in samples, a multiple of 4.
        **options: Of every audio layer, see `AudioAugmentation`.
    """

    def __init__(self, rate: Any = (0.8, 1.25), window: int = 1024, **options: Any) -> None:
        super().__init__(**options)
        self.rate = check_range("rate", rate, least=0.1, most=10.0)
        self.window = check_window(window)

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the speed."""
        del shape
        return {"rate": log_uniform(draws, self.rate)}

    def changed(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Stretches."""
        return stretched(x, parameters["rate"], length=known_length(self, x), window=self.window)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "rate": self.rate, "window": self.window}


@register
class PitchShift(AudioAugmentation):
    """Makes a recording higher or lower without changing its speed.

    It is stretched in time, then read at another speed; what would come to lie beyond half the
    sample rate is left out.

    Args:
        semitones: Range (low, high) of twelfths of an octave.
        window: Length of a frame in samples, a multiple of 4.
        **options: Of every audio layer, see `AudioAugmentation`.
    """

    def __init__(self, semitones: Any = (-4.0, 4.0), window: int = 1024, **options: Any) -> None:
        super().__init__(**options)
        self.semitones = check_range("semitones", semitones, least=-36.0, most=36.0)
        self.window = check_window(window)

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the interval."""
        del shape
        return {"semitones": draws.uniform(*self.semitones)}

    def changed(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Stretches, and reads at another speed.

        Intervals above the highest of the range lose their end, as the size of what is computed
        must not depend on what is drawn.
        """
        ratio = ops.exp(parameters["semitones"] * (math.log(2.0) / 12.0))
        most = max(2.0 ** (self.semitones[1] / 12.0), 1.0)
        whole = known_length(self, x)
        length = math.ceil(whole * most) + _TAPS
        slow = stretched(x, 1.0 / ratio, length=length, window=self.window, keep=1.0 / ratio)
        return read_at(slow, ratio, whole)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "semitones": self.semitones, "window": self.window}


@register
class SpecAugment(AudioAugmentation):
    """Hides bands of frequencies and stretches of time of spectrograms, and warps time.

    Takes spectrograms (frames, bins) or (B, frames, bins) of any floating-point type, or a
    dictionary with the key `spectrograms`. The defaults are the paper's policy LD without warping,
    which the paper's section 5 finds to matter least.

    Source: Park et al. 2019, arXiv:1904.08779, section 2 and table 1; `time_share` as in Park et
    al. 2019, arXiv:1912.05533, section 2.1. Differs: the widest mask and the last place are drawn
    too; the warp is linear on both sides of its point, not a spline.

    Args:
        frequency_width: Bins of the widest band, F in the paper.
        frequency_masks: Bands per spectrogram.
        time_width: Frames of the longest stretch, T in the paper.
        time_masks: Stretches per spectrogram.
        time_share: Upper bound of a stretch's share of all frames, p in the paper.
        time_warp: Frames by which a point in time moves at most, W in the paper; 0 is none.
        fill: Value of what is hidden, or "mean" for the spectrogram's mean.
        **options: Of every audio layer, see `AudioAugmentation`.
    """

    main = "spectrograms"
    rank = 2
    keys = ("spectrograms", "labels")

    def __init__(
        self,
        frequency_width: int = 27,
        frequency_masks: int = 2,
        time_width: int = 100,
        time_masks: int = 2,
        time_share: float = 1.0,
        time_warp: int = 0,
        fill: Any = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.frequency_width = check_count("frequency_width", frequency_width, least=0)
        self.frequency_masks = check_count("frequency_masks", frequency_masks, least=0)
        self.time_width = check_count("time_width", time_width, least=0)
        self.time_masks = check_count("time_masks", time_masks, least=0)
        self.time_share = check_probability("time_share", time_share)
        self.time_warp = check_count("time_warp", time_warp, least=0)
        if fill != "mean" and not isinstance(fill, int | float):
            raise OptionValueError(f'`fill` must be a number or "mean"; got fill={fill!r}.')
        self.fill = fill

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws first places and widths of masks (B, count), and a point and where it goes."""
        frames, bins = (ops.cast(size, "int32") for size in shape[1:3])
        result = {}
        if self.time_warp:
            most = ops.minimum(ops.cast(self.time_warp, "int32"), (frames - 1) // 2)
            most, last = ops.cast(most, "float32"), ops.cast(frames - 1, "float32")
            point = most + draws.uniform() * (last - 2.0 * most)
            result["warp_from"] = point
            result["warp_to"] = point + draws.uniform(-1.0, 1.0) * most
        share = ops.floor(ops.cast(frames, "float32") * self.time_share + 1e-4)
        longest = ops.minimum(ops.cast(self.time_width, "int32"), ops.cast(share, "int32"))
        widest = ops.minimum(ops.cast(self.frequency_width, "int32"), bins)
        for name, count, limit, size in (
            ("frequency", self.frequency_masks, widest, bins),
            ("time", self.time_masks, longest, frames),
        ):
            if count:
                width = draws.integers(limit + 1, (count,))
                result[f"{name}_width"] = width
                result[f"{name}_start"] = draws.integers(size - width + 1, (count,))
        return result

    def changed(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Warps, then hides."""
        fill = ops.mean(x, axis=(1, 2), keepdims=True) if self.fill == "mean" else self.fill
        if self.time_warp:
            x = warped(x, parameters["warp_from"], parameters["warp_to"])
        size = ops.shape(x)
        if self.frequency_masks:
            start, width = parameters["frequency_start"], parameters["frequency_width"]
            x = ops.where(masked(size[2], start, width)[:, None, :], fill, x)
        if self.time_masks:
            start, width = parameters["time_start"], parameters["time_width"]
            x = ops.where(masked(size[1], start, width)[:, :, None], fill, x)
        return x

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "frequency_width": self.frequency_width,
            "frequency_masks": self.frequency_masks,
            "time_width": self.time_width,
            "time_masks": self.time_masks,
            "time_share": self.time_share,
            "time_warp": self.time_warp,
            "fill": self.fill,
        }


# --- spectra ------------------------------------------------------------------------------------


def stretched(
    x: Tensor, rate: Tensor, *, length: int, window: int, keep: Tensor | None = None
) -> Tensor:
    """Returns waveforms played at other speeds, of the same pitch.

    Frame o of the result lies at frame `rate * o` of the given.

    Args:
        x: (B, T).
        rate: Speeds (B,).
        length: Samples of the result.
        window: Samples of a frame.
        keep: Share of the frequencies that is kept, from the lowest (B,); None keeps all.

    Returns:
        (B, length).
    """
    hop = window // _HOPS
    lead = 2  # frames before the one whose middle is the first sample
    frames, after = frames_of(int(x.shape[1]), hop), frames_of(length, hop)
    last = (frames - 1) * hop - int(x.shape[1])
    padded = ops.pad(x, ((0, 0), (window, last)))
    real, imaginary = ops.stft(padded, window, hop, window, center=False)
    magnitude = ops.sqrt(real * real + imaginary * imaginary)
    phase = ops.where(magnitude > 0, ops.arctan2(imaginary, real), 0.0)  # of -0.0 it would be pi

    place = (ops.arange(after, dtype="float32")[None, :] - lead) * rate[:, None] + lead
    inside = (place >= 0) & (place <= ops.cast(frames - 1, "float32"))
    before = ops.clip(ops.cast(ops.floor(place), "int32"), 0, frames - 2)
    between = ops.expand_dims(place - ops.cast(before, "float32"), -1)
    level = rows_at(magnitude, before) * (1.0 - between)
    level = level + rows_at(magnitude, before + 1) * between
    level = ops.where(inside[:, :, None], level, 0.0)
    if keep is not None:
        bins = ops.arange(window // 2 + 1, dtype="float32") / (window // 2)
        level = ops.where(bins[None, None, :] <= keep[:, None, None], level, 0.0)

    turned = locked(phase, level, before)
    spectrum = level * ops.cos(turned), level * ops.sin(turned)
    return ops.istft(spectrum, window, hop, window, center=False)[:, window : window + length]


def locked(phase: Tensor, level: Tensor, before: Tensor) -> Tensor:
    """Returns the phases of a stretched spectrum (B, O, K).

    From frame to frame a peak turns by what its source does in one hop; bins around it keep their
    phases relative to it.

    Args:
        phase: Of the source (B, F, K).
        level: Magnitudes of the stretched spectrum (B, O, K).
        before: Frame of the source at or before each frame of it (B, O).
    """
    here, due = rows_at(phase, before), rows_at(phase, before + 1)
    missing = ops.concatenate([ops.zeros_like(due[:, :1]), due[:, :-1] - here[:, 1:]], axis=1)
    peak = nearest_peak(level)
    missing = ops.take_along_axis(missing, peak, axis=2)

    def step(turn: Tensor, frame: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        more, at = frame
        turn = taken(turn, at) + more
        turn = turn - 2.0 * math.pi * ops.round(turn / (2.0 * math.pi))
        return turn, turn

    frames_first = (ops.transpose(missing, (1, 0, 2)), ops.transpose(peak, (1, 0, 2)))
    _, result = ops.scan(step, ops.zeros_like(missing[:, 0]), frames_first)
    return here + ops.transpose(result, (1, 0, 2))


def nearest_peak(level: Tensor) -> Tensor:
    """Returns the bin of the peak that each bin is nearest to: int32 (B, O, K).

    A peak is above its two neighbours on either side. Bins that are further than 31 from any are
    peaks of their own.

    Args:
        level: Magnitudes (B, O, K).
    """
    bins = level.shape[2]
    place = ops.arange(bins, dtype="int32")[None, None, :]
    edges = ops.pad(level, ((0, 0), (0, 0), (2, 2)), constant_values=-1.0)
    around = [edges[:, :, 2 + d : 2 + d + bins] for d in (-2, -1, 1, 2)]
    peak = functools.reduce(ops.logical_and, [level > other for other in around])
    far = 4 * bins
    below, above = ops.where(peak, place, -far), ops.where(peak, place, far)
    for step in (1, 2, 4, 8, 16):
        step = min(step, bins)
        left = ops.pad(below, ((0, 0), (0, 0), (step, 0)), constant_values=-far)
        right = ops.pad(above, ((0, 0), (0, 0), (0, step)), constant_values=far)
        below = ops.maximum(below, left[:, :, :bins])
        above = ops.minimum(above, right[:, :, step:])
    nearest = ops.where(place - below <= above - place, below, above)
    return ops.where((nearest >= 0) & (nearest < bins), nearest, place)


def frames_of(length: int, hop: int) -> int:
    """Returns how many frames cover a waveform, with windows that only touch its ends."""
    return -(-length // hop) + _HOPS + 2


def rows_at(x: Tensor, index: Tensor) -> Tensor:
    """Returns rows of each sample: x (B, F, K), index (B, n) -> (B, n, K)."""
    size = ops.shape(x)
    flat = ops.reshape(x, (-1, x.shape[2]))
    return ops.take(flat, index + ops.arange(size[0], dtype="int32")[:, None] * size[1], axis=0)


def read_at(x: Tensor, speed: Tensor, length: Any) -> Tensor:
    """Returns samples at the places 0, speed, 2 speed, ... between those of a waveform.

    They are a sum over the nearest samples by sinc with a Hann window; for speeds above 1 the
    waveform must not hold frequencies that would not fit.

    Args:
        x: (B, L), 0 outside.
        speed: (B,).
        length: Samples of the result.

    Returns:
        (B, length).
    """
    number = ops.arange(length, dtype="int32")
    block, rest = number // _BLOCK, ops.cast(number % _BLOCK, "float32")
    stride = speed * _BLOCK
    whole = ops.floor(stride)
    fine = ops.cast(block, "float32")[None, :] * (stride - whole)[:, None]
    fine = fine + rest[None, :] * speed[:, None]
    first = ops.floor(fine)
    between = (fine - first)[:, :, None]
    first = ops.cast(first, "int32") + block[None, :] * ops.cast(whole, "int32")[:, None]

    tap = ops.arange(_TAPS, dtype="int32") - (_TAPS // 2 - 1)
    index = first[:, :, None] + tap[None, None, :]
    size = int(x.shape[1])
    values = taken(x, ops.clip(index, 0, size - 1))
    values = ops.where((index >= 0) & (index < size), values, 0.0)
    return ops.sum(values * sinc(between - ops.cast(tap, "float32")[None, None, :]), axis=-1)


def sinc(distance: Tensor) -> Tensor:
    """Returns the weights of samples at a distance of at most half the taps."""
    turn = distance * math.pi
    near = ops.abs(turn) < 1e-4
    weight = ops.where(near, 1.0, ops.sin(turn) / ops.where(near, 1.0, turn))
    return weight * (0.5 + 0.5 * ops.cos(turn * (2.0 / _TAPS)))


def warped(x: Tensor, point: Tensor, goal: Tensor) -> Tensor:
    """Moves a point in time to another; both sides of it are stretched to fit.

    Args:
        x: (B, frames, bins).
        point: Frames from the first (B,).
        goal: Where the point goes (B,).
    """
    frames = ops.shape(x)[1]
    last = ops.cast(frames - 1, "float32")
    edge = ops.minimum(0.5, 0.5 * last)
    point, goal = point[:, None], ops.clip(goal, edge, last - edge)[:, None]
    time = ops.arange(frames, dtype="float32")[None, :]
    place = ops.where(
        time <= goal,
        time * point / ops.maximum(goal, 1e-3),
        point + (time - goal) * (last - point) / ops.maximum(last - goal, 1e-3),
    )
    before = ops.clip(ops.cast(ops.floor(place), "int32"), 0, frames - 1)
    between = ops.clip(place - ops.cast(before, "float32"), 0.0, 1.0)[:, :, None]
    after = ops.minimum(before + 1, frames - 1)
    return rows_at(x, before) * (1.0 - between) + rows_at(x, after) * between


def known_length(layer: AudioAugmentation, x: Tensor) -> int:
    """Returns the length of waveforms.

    Raises:
        OptionValueError: It is known only when data come; the loop over frames is compiled before.
    """
    if x.shape[1] is None:
        raise OptionValueError(
            f"{type(layer).__name__} must know the length of its waveforms; got the shape "
            f"{tuple(x.shape)}. Cut or pad them before, with `.padded_batch(..., padded_shapes=T)`."
        )
    return int(x.shape[1])


def check_window(value: int) -> int:
    """Returns the length of a frame.

    Raises:
        OptionValueError: It is no positive multiple of 4.
    """
    size = check_count("window", value, least=_HOPS)
    if size % _HOPS:
        raise OptionValueError(
            f"`window` must be a multiple of {_HOPS}; got window={value!r}. 1024 samples are "
            "64 ms at 16 kHz."
        )
    return size
