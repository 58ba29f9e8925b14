"""Layers for what happens between a source and a recording: noise, rooms, and lost frequencies."""

from __future__ import annotations

import math
from typing import Any

from zoo.augment import backend as ops
from zoo.augment.audio.waveform import (
    AudioAugmentation,
    amplitude,
    check_bank,
    check_count,
    check_rate,
    fft_length,
    length_of,
    log_uniform,
    rms,
)
from zoo.augment.backend import Tensor
from zoo.augment.draws import Draws
from zoo.augment.layer import Parameters, check_one_of, check_range, register

COLORS = {"white": 0.0, "pink": 1.0, "brown": 2.0, "blue": -1.0, "violet": -2.0}
_LAST_SHARE = 0.499  # of the sample rate: at a half the bilinear transform has its pole
_STEEPEST = 1e6  # its fourth power is still a float32


@register
class AddNoise(AudioAugmentation):
    """Adds noise of a drawn signal-to-noise ratio, which each result has exactly.

    Silence gets no noise, for no noise would have that ratio.

    Args:
        snr_db: Range (low, high) of ratios of mean powers, in decibels.
        color: Power density over frequency f: "white" f^0, "pink" 1/f, "brown" 1/f^2, "blue" f,
            "violet" f^2.
        clips: Recordings of noise (N, L) that are used instead of `color`: one of them from a
            random place on, repeated if it is shorter. They become part of the compiled program.
        **options: Of every audio layer, see `AudioAugmentation`.
    """

    def __init__(
        self, snr_db: Any = (3.0, 30.0), color: str = "white", clips: Any = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.snr_db = check_range("snr_db", snr_db)
        self.color = check_one_of("color", color, tuple(COLORS))
        self.clips = None if clips is None else check_bank("clips", clips)

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the ratio, and the seed of the noise or a clip and its first sample."""
        del shape
        ratio = {"snr_db": draws.uniform(*self.snr_db)}
        if self.clips is None:
            return {**ratio, "noise_seed": draws.split()}
        count, length = self.clips.shape
        return {**ratio, "clip": draws.integers(count), "start": draws.integers(length)}

    def changed(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Adds the noise."""
        length = length_of(x)
        if self.clips is None:
            noise = Draws(parameters["noise_seed"]).normal((length,))
            noise = _colored(noise, COLORS[self.color], length)
        else:
            place = parameters["start"][:, None] + ops.arange(length, dtype="int32")[None, :]
            size = self.clips.shape[1]
            place = place % size + parameters["clip"][:, None] * size
            noise = ops.take(ops.reshape(ops.convert_to_tensor(self.clips), (-1,)), place, axis=0)
        gain = rms(x) / ops.maximum(rms(noise), 1e-20)
        return x + noise * gain * amplitude(-parameters["snr_db"])[:, None]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "snr_db": self.snr_db,
            "color": self.color,
            "clips": None if self.clips is None else self.clips.tolist(),
        }


class _Butterworth(AudioAugmentation):
    """Base of filters.

    Source: a digital Butterworth filter by the bilinear transform with pre-warped edges: Oppenheim
    and Schafer, Discrete-Time Signal Processing, section 7.2. Its complex frequency response is
    applied to the recording followed by as much silence, so ringing longer than that wraps around.
    """

    def __init__(
        self, *, sample_rate_hz: float | None = None, order: int = 2, **options: Any
    ) -> None:
        super().__init__(**options)
        self.sample_rate_hz = check_rate(self, sample_rate_hz, needed=True)
        self.order = check_count("order", order, least=1)

    def warped(self, w: Tensor, parameters: Parameters) -> Tensor:
        """Returns where the low-pass prototype has the response that the filter has at w.

        Args:
            w: tan(pi f / sample rate): (K,).
            parameters: As drawn.

        Returns:
            (B, K), 1 at an edge.
        """
        raise NotImplementedError

    def edge(self, frequency_hz: Tensor) -> Tensor:
        """Returns tan(pi f / sample rate) of frequencies (B,): (B, 1)."""
        angle = ops.minimum(frequency_hz / self.sample_rate_hz, _LAST_SHARE) * math.pi
        return ops.expand_dims(ops.sin(angle) / ops.cos(angle), -1)

    def changed(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Filters."""
        size = fft_length(2 * length_of(x))
        angle = ops.arange(size // 2 + 1, dtype="float32") * (math.pi / ops.cast(size, "float32"))
        w = ops.maximum(ops.sin(angle), 1e-9) / ops.maximum(ops.cos(angle), 1e-9)
        ratio = ops.clip(self.warped(w, parameters), -_STEEPEST, _STEEPEST)
        real, imaginary = ops.rfft(x, size)
        for a, b, c in _sections(self.order):  # each divides by a + b s + c s^2 at s = i ratio
            below, beside = a - c * ratio * ratio, b * ratio
            power = below * below + beside * beside
            real, imaginary = (
                (real * below + imaginary * beside) / power,
                (imaginary * below - real * beside) / power,
            )
        return ops.irfft((real, imaginary), size)[:, : length_of(x)]

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "sample_rate_hz": self.sample_rate_hz,
            "order": self.order,
        }


class _OneEdge(_Butterworth):
    """Base of filters with one edge."""

    def __init__(self, cutoff_hz: Any = (200.0, 3500.0), **options: Any) -> None:
        super().__init__(**options)
        most = _LAST_SHARE * self.sample_rate_hz
        self.cutoff_hz = check_range("cutoff_hz", cutoff_hz, least=1e-3, most=most)

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the edge."""
        del shape
        return {"cutoff_hz": log_uniform(draws, self.cutoff_hz)}

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {**super().get_config(), "cutoff_hz": self.cutoff_hz}


@register
class LowPass(_OneEdge):
    """Lets low frequencies pass.

    Args:
        cutoff_hz: Range (low, high) of the frequency at which 3 dB are lost; octaves are alike.
        sample_rate_hz: Samples per second; must be given.
        order: Of the filter, which falls by 6 dB times the order per octave.
        **options: Of every audio layer, see `AudioAugmentation`.
    """

    def warped(self, w: Tensor, parameters: Parameters) -> Tensor:
        """Returns places on the prototype."""
        return w[None, :] / self.edge(parameters["cutoff_hz"])


@register
class HighPass(_OneEdge):
    """Lets high frequencies pass.

    Args:
        cutoff_hz: Range (low, high) of the frequency at which 3 dB are lost; octaves are alike.
        sample_rate_hz: Samples per second; must be given.
        order: Of the filter, which rises by 6 dB times the order per octave.
        **options: Of every audio layer, see `AudioAugmentation`.
    """

    def warped(self, w: Tensor, parameters: Parameters) -> Tensor:
        """Returns places on the prototype."""
        return -self.edge(parameters["cutoff_hz"]) / w[None, :]


@register
class BandPass(_Butterworth):
    """Lets a band of frequencies pass.

    Args:
        center_hz: Range (low, high) of the geometric mean of the band's edges; octaves are alike.
        width_octaves: Range of the distance of the edges, at which 3 dB are lost.
        sample_rate_hz: Samples per second; must be given.
        order: Of the filter, which falls by 6 dB times the order per octave on either side.
        **options: Of every audio layer, see `AudioAugmentation`.
    """

    def __init__(
        self,
        center_hz: Any = (300.0, 2000.0),
        width_octaves: Any = (0.5, 2.0),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        most = _LAST_SHARE * self.sample_rate_hz
        self.center_hz = check_range("center_hz", center_hz, least=1e-3, most=most)
        self.width_octaves = check_range("width_octaves", width_octaves, least=0.01)

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws the edges; the higher one stays below half the sample rate."""
        del shape
        center = log_uniform(draws, self.center_hz)
        half = ops.exp(draws.uniform(*self.width_octaves) * (0.5 * math.log(2.0)))
        most = _LAST_SHARE * self.sample_rate_hz
        return {"low_hz": center / half, "high_hz": ops.minimum(center * half, most)}

    def warped(self, w: Tensor, parameters: Parameters) -> Tensor:
        """Returns places on the prototype."""
        low, high = self.edge(parameters["low_hz"]), self.edge(parameters["high_hz"])
        return (w[None, :] - low * high / w[None, :]) / (high - low)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "center_hz": self.center_hz,
            "width_octaves": self.width_octaves,
        }


@register
class ImpulseResponse(AudioAugmentation):
    """Puts a recording into a room: convolves it with the room's impulse response.

    A room that is made up answers with its direct sound, then with normal noise that decays
    exponentially, by 60 dB in its reverberation time.

    Source: decaying noise is the model of Polack 1988, as in Jot 1992, section 2.

    Args:
        responses: Impulse responses (N, L), of which one is taken; None makes rooms up. They
            become part of the compiled program.
        rt60_s: Range (low, high) of reverberation times of rooms made up, in seconds.
        direct_db: Range of the ratio of their direct sound's energy to all that follows, in
            decibels.
        sample_rate_hz: Samples per second; needed to make rooms up.
        keep_level: Scales the result to the mean power of the recording.
        **options: Of every audio layer, see `AudioAugmentation`.
    """

    def __init__(
        self,
        responses: Any = None,
        *,
        rt60_s: Any = (0.1, 0.6),
        direct_db: Any = (0.0, 12.0),
        sample_rate_hz: float | None = None,
        keep_level: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.responses = None if responses is None else check_bank("responses", responses)
        self.rt60_s = check_range("rt60_s", rt60_s, least=1e-3)
        self.direct_db = check_range("direct_db", direct_db)
        self.sample_rate_hz = check_rate(self, sample_rate_hz, needed=responses is None)
        self.keep_level = keep_level

    def draw_amounts(self, draws: Draws, shape: tuple[Any, ...]) -> Parameters:
        """Draws which response, or reverberation time, ratio and the seed of the noise."""
        del shape
        if self.responses is not None:
            return {"response": draws.integers(len(self.responses))}
        return {
            "rt60_s": draws.uniform(*self.rt60_s),
            "direct_db": draws.uniform(*self.direct_db),
            "noise_seed": draws.split(),
        }

    def changed(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Convolves; what would come after the end is cut."""
        if self.responses is None:
            response = self._made_up(parameters)
        else:
            bank = ops.convert_to_tensor(self.responses)
            response = ops.take(bank, parameters["response"], axis=0)
        size = fft_length(length_of(x) + response.shape[1] - 1)
        real, imaginary = ops.rfft(x, size)
        other_real, other_imaginary = ops.rfft(response, size)
        product = (
            real * other_real - imaginary * other_imaginary,
            real * other_imaginary + imaginary * other_real,
        )
        result = ops.irfft(product, size)[:, : length_of(x)]
        if self.keep_level:
            result = result * (rms(x) / ops.maximum(rms(result), 1e-20))
        return result

    def _made_up(self, parameters: Parameters) -> Tensor:
        rate = self.sample_rate_hz
        length = math.ceil(self.rt60_s[1] * rate) + 1
        time_s = ops.arange(length, dtype="float32")[None, :] / rate
        decay = ops.exp(-math.log(1000.0) * time_s / parameters["rt60_s"][:, None])
        noise = Draws(parameters["noise_seed"]).normal((length,)) * decay
        first = time_s < 0.5 / rate
        noise = ops.where(first, 0.0, noise)
        energy = ops.sum(noise * noise, axis=-1, keepdims=True)
        level = amplitude(-parameters["direct_db"])[:, None] / ops.sqrt(ops.maximum(energy, 1e-20))
        return ops.where(first, 1.0, noise * level)

    def get_config(self) -> dict[str, Any]:
        """Returns the options."""
        return {
            **super().get_config(),
            "responses": None if self.responses is None else self.responses.tolist(),
            "rt60_s": self.rt60_s,
            "direct_db": self.direct_db,
            "sample_rate_hz": self.sample_rate_hz,
            "keep_level": self.keep_level,
        }


def _sections(order: int) -> list[tuple[float, float, float]]:
    """Returns the Butterworth polynomial as factors a + b s + c s^2."""
    pairs = [
        (1.0, 2.0 * math.sin(math.pi * (2 * k - 1) / (2 * order)), 1.0)
        for k in range(1, order // 2 + 1)
    ]
    return [*pairs, (1.0, 1.0, 0.0)] if order % 2 else pairs


def _colored(noise: Tensor, exponent: float, length: Any) -> Tensor:
    """Returns noise of a power density f^-exponent, with a mean of 0 unless it is white."""
    if exponent == 0.0:
        return noise
    size = fft_length(length)
    real, imaginary = ops.rfft(noise, size)
    frequency = ops.arange(size // 2 + 1, dtype="float32")
    level = ops.exp(ops.log(ops.maximum(frequency, 1.0)) * (-0.5 * exponent))
    level = ops.where(frequency > 0, level, 0.0)
    return ops.irfft((real * level, imaginary * level), size)[:, :length]
