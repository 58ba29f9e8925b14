"""Audio layers against closed forms in NumPy and SciPy, and what all of them must do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import scipy.signal

from zoo.augment.audio.acoustics import AddNoise, BandPass, HighPass, ImpulseResponse, LowPass
from zoo.augment.audio.spectrogram import PitchShift, SpecAugment, TimeStretch
from zoo.augment.audio.waveform import (
    RandomClipping,
    RandomGain,
    RandomPolarity,
    TimeMask,
    TimeShift,
)
from zoo.augment.audio.waveform import fft_length as even_smooth_length
from zoo.augment.catalog import augmentation_info, create_augmentation, list_augmentations
from zoo.errors import OptionValueError

RATE = 8000.0
ROWS, LENGTH = 8, 4000
FRAMES, BINS = 60, 20
MANY = 2000
RANDOM = np.random.default_rng(7)
WAVES = RANDOM.normal(size=(ROWS, LENGTH)).astype("float32") * 0.1
SPECTROGRAMS = RANDOM.normal(size=(ROWS, FRAMES, BINS)).astype("float32")
CLIPS = RANDOM.normal(size=(3, 700)).astype("float32")
TIME = np.arange(LENGTH) / RATE
HZ: dict[str, Any] = {"sample_rate_hz": RATE}

LAYERS: dict[str, Callable[..., Any]] = {
    "white": lambda **o: AddNoise(**o),
    "pink": lambda **o: AddNoise(color="pink", **o),
    "clips": lambda **o: AddNoise(clips=CLIPS, **o),
    "gain": lambda **o: RandomGain(**o),
    "polarity": lambda **o: RandomPolarity(**o),
    "clipping": lambda **o: RandomClipping((3.0, 12.0), **o),
    "shift": lambda **o: TimeShift(fill=9.0, **o),
    "wrap": lambda **o: TimeShift(shift_s=(-0.3, 0.4), wrap=True, **HZ, **o),
    "mask": lambda **o: TimeMask((0.05, 0.2), count=2, **o),
    "low": lambda **o: LowPass(order=3, **HZ, **o),
    "high": lambda **o: HighPass(order=4, **HZ, **o),
    "band": lambda **o: BandPass(**HZ, **o),
    "rooms": lambda **o: ImpulseResponse(**HZ, **o),
    "responses": lambda **o: ImpulseResponse(CLIPS, keep_level=False, **o),
    "stretch": lambda **o: TimeStretch(window=256, **o),
    "pitch": lambda **o: PitchShift(window=256, **o),
    "spec": lambda **o: SpecAugment(8, 2, 20, 2, time_share=0.5, time_warp=9, **o),
    "mean": lambda **o: SpecAugment(8, 1, 20, 1, fill="mean", **o),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


@functools.cache
def _layer(name: str) -> Any:
    """Returns a layer that is compiled once for all tests that share it."""
    return LAYERS[name](seed=1, p=0.7)


def _input(layer: Any) -> np.ndarray:
    return SPECTROGRAMS if layer.main == "spectrograms" else WAVES


def _numpy(x: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(x))


def _sampled(layer: Any, rows: int = MANY, length: int = LENGTH) -> dict[str, np.ndarray]:
    shape = (rows, FRAMES, BINS) if layer.main == "spectrograms" else (rows, length)
    drawn = layer.sample(np.zeros(shape, "float32"), seed=3)
    return {key: _numpy(value) for key, value in drawn.items()}


def _applied(layer: Any, x: Any, **parameters: Any) -> np.ndarray:
    typed = {
        key: np.asarray(v, "int32" if np.asarray(v).dtype.kind == "i" else "float32")
        for key, v in parameters.items()
    }
    return _numpy(layer.apply(x, typed))


# --- what all layers do -------------------------------------------------------------------------


@every_layer
def test_result_depends_on_the_seed_and_only_on_it(name: Any) -> None:
    layer = _layer(name)
    x = _input(layer)
    before = x.copy()
    first, again, other = (_numpy(layer(x, seed=s)) for s in (5, 5, 6))
    assert first.shape == x.shape
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4
    np.testing.assert_array_equal(x, before)


@every_layer
def test_each_sample_has_parameters_of_its_own(name: Any) -> None:
    layer = _layer(name)
    drawn = _sampled(layer)
    for key, value in drawn.items():
        if key != "applied":
            assert len(value) == MANY
            assert len(np.unique(value.reshape(MANY, -1), axis=0)) > 2, key
    x = np.repeat(_input(layer)[:1], ROWS, axis=0)
    result = _numpy(layer(x, seed=2)).reshape(ROWS, -1)
    kinds = len(np.unique(result, axis=0))
    assert kinds == 2 if name == "polarity" else kinds > 2


@every_layer
def test_batch_is_its_samples(name: Any) -> None:
    layer = _layer(name)
    x = _input(layer)
    whole = _numpy(layer(x, seed=4))
    drawn = {key: _numpy(value) for key, value in layer.sample(x, seed=4).items()}
    row = int(np.flatnonzero(drawn["applied"])[-1])
    single = _numpy(layer.apply(x[row], {key: v[row : row + 1] for key, v in drawn.items()}))
    np.testing.assert_allclose(single, whole[row], atol=2e-4)


@every_layer
def test_config_round_trip(name: Any) -> None:
    layer = LAYERS[name](seed=11, name="here")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    for key, value in _sampled(layer, rows=3).items():
        np.testing.assert_array_equal(value, _sampled(copy, rows=3)[key])
    np.testing.assert_equal(copy.get_config(), layer.get_config())
    assert layer.get_config()["seed"] == 11


@every_layer
def test_identity_at_inference_and_where_it_is_not_applied(name: Any) -> None:
    layer = _layer(name)
    x = _input(layer)
    np.testing.assert_array_equal(_numpy(layer(x, training=False)), x)
    applied, seed = np.zeros(ROWS, "bool"), 0
    while not 0 < applied.sum() < ROWS:
        seed += 1
        applied = _numpy(layer.sample(x, seed=seed)["applied"])
    result = _numpy(layer(x, seed=seed)).reshape(ROWS, -1)
    same = (result == x.reshape(ROWS, -1)).all(axis=1)
    np.testing.assert_array_equal(same, ~applied)


@pytest.mark.parametrize("name", ["pink", "clips", "wrap", "mask", "low", "rooms", "pitch", "spec"])
def test_inside_of_tf_data(name: Any) -> None:
    tf = pytest.importorskip("tensorflow")
    layer = _layer(name)
    x = _input(layer)
    data = {
        layer.main: np.concatenate([x, x[::-1]]),
        "labels": np.arange(2 * ROWS),
        "name": np.array(["a"] * 2 * ROWS),
    }

    def results() -> Any:
        rows = tf.data.Dataset.from_tensor_slices(data).batch(ROWS, drop_remainder=True)
        return list(rows.map(lambda d: layer(d, seed=8), num_parallel_calls=2))

    first, again = results(), results()
    assert first[0]["labels"].dtype == tf.int64
    assert first[0]["name"].numpy()[0] == b"a"
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one[layer.main], other[layer.main])
    np.testing.assert_allclose(first[0][layer.main], _numpy(layer(x, seed=8)), atol=2e-4)


def _of_unknown_length(layer: Any) -> Any:
    tf = pytest.importorskip("tensorflow")
    x = _input(layer)[0]
    rows = tf.data.Dataset.from_generator(
        lambda: iter([x]), output_signature=tf.TensorSpec((None, *x.shape[1:]), "float32")
    )
    return next(iter(rows.map(lambda d: layer(d, seed=8))))


@pytest.mark.parametrize("name", ["clips", "mask", "low", "spec"])
def test_lengths_known_only_when_data_come(name: Any) -> None:
    layer = LAYERS[name](seed=1)
    expected = _numpy(layer(_input(layer)[0], seed=8))
    np.testing.assert_allclose(_of_unknown_length(layer), expected, atol=2e-4)


@pytest.mark.parametrize("name", ["stretch", "pitch"])
def test_stretching_must_know_the_length(name: Any) -> None:
    tf = pytest.importorskip("tensorflow")
    layer = LAYERS[name](seed=1)
    function = tf.function(lambda x: layer(x, seed=8), autograph=False)
    with pytest.raises(OptionValueError, match=r"must know the length.*None"):
        function.get_concrete_function(tf.TensorSpec((2, None), "float32"))


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_types_stay_and_what_is_not_changed_stays_exactly(kind: Any) -> None:
    x = WAVES.astype(kind)
    x = keras.ops.convert_to_tensor(x)
    for layer in (RandomGain(p=0.5), LowPass(p=0.5, **HZ), TimeMask(p=0.5)):
        applied = _numpy(layer.sample(x, seed=9)["applied"])
        result = layer(x, seed=9)
        assert result.dtype == x.dtype
        np.testing.assert_array_equal(_numpy(result)[~applied], _numpy(x)[~applied])
        exact = _numpy(layer(_numpy(x).astype("float32"), seed=9))
        np.testing.assert_allclose(_numpy(result), exact, atol=2e-3)


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(OptionValueError, match=r"int16.*Divide"):
        RandomGain()(np.zeros((2, 50), "int16"))


def test_catalog_names_them() -> None:
    for name in list_augmentations(domain="audio"):
        needs_rate = name in ("low_pass", "high_pass", "band_pass", "impulse_response")
        layer = create_augmentation(name, **(HZ if needs_rate else {}))
        assert type(layer).__name__ == augmentation_info(name).layer
        assert layer.main in ("audio", "spectrograms")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LowPass(), "LowPass.*`sample_rate_hz`.*None"),
        (lambda: HighPass(sample_rate_hz=-1), "`sample_rate_hz`.*-1"),
        (lambda: TimeShift(shift_s=(0, 1)), "TimeShift.*`sample_rate_hz`"),
        (lambda: TimeMask(width_s=(0, 1)), "TimeMask.*`sample_rate_hz`"),
        (lambda: ImpulseResponse(), "ImpulseResponse.*`sample_rate_hz`"),
        (lambda: LowPass((100, 4000), **HZ), "`cutoff_hz`.*4000"),
        (lambda: LowPass(order=0, **HZ), "`order`.*at least 1.*0"),
        (lambda: TimeMask(count=1.5), "`count`.*1.5"),  # type: ignore[arg-type]
        (lambda: TimeShift((-2, 0)), "`shift_share`"),
        (lambda: AddNoise(color="red"), "`color`.*'red'"),
        (lambda: AddNoise(clips=np.zeros((2, 3, 4))), r"`clips`.*\(2, 3, 4\)"),
        (lambda: AddNoise(clips=[[1.0], [1.0, 2.0]]), "`clips`.*one length"),
        (lambda: ImpulseResponse([float("nan")]), "`responses`.*finite"),
        (lambda: TimeStretch((0.0, 1.0)), "`rate`"),
        (lambda: TimeStretch(window=30), "`window`.*multiple of 4.*30"),
        (lambda: SpecAugment(fill="median"), "`fill`.*'median'"),
        (lambda: SpecAugment(time_share=1.5), "`time_share`.*1.5"),
    ],
)
def test_options_that_break_their_rule(make: Any, words: Any) -> None:
    with pytest.raises(OptionValueError, match=words):
        make()


# --- level and time -----------------------------------------------------------------------------


def _uniform(values: np.ndarray, low: float, high: float) -> None:
    """Checks that numbers are spread evenly over a range."""
    width = high - low
    assert low <= values.min() < low + 0.02 * width
    assert high - 0.02 * width < values.max() <= high
    assert abs(values.mean() - (low + high) / 2) < 0.03 * width
    assert abs(values.std() - width / np.sqrt(12)) < 0.03 * width


def test_gain_is_in_decibels() -> None:
    gain = np.linspace(-20, 20, ROWS)
    expected = WAVES * 10.0 ** (gain[:, None] / 20)
    np.testing.assert_allclose(_applied(RandomGain(), WAVES, gain_db=gain), expected, rtol=2e-6)
    _uniform(_sampled(RandomGain())["gain_db"], -12, 12)


def test_polarity() -> None:
    applied = np.arange(ROWS) % 2 == 1
    result = _numpy(RandomPolarity().apply(WAVES, {"applied": applied}))
    np.testing.assert_array_equal(result, np.where(applied[:, None], -WAVES, WAVES))
    assert abs(_sampled(RandomPolarity())["applied"].mean() - 0.5) < 0.04


def test_clipping_is_below_the_peak() -> None:
    depth = np.linspace(0, 12, ROWS)
    limit = np.abs(WAVES).max(axis=1) * 10 ** (-depth / 20)
    expected = np.clip(WAVES, -limit[:, None], limit[:, None])
    result = _applied(RandomClipping(), WAVES, depth_db=depth)
    np.testing.assert_allclose(result, expected, rtol=2e-6)
    _uniform(_sampled(RandomClipping())["depth_db"], 0, 12)


@pytest.mark.parametrize("wrap", [False, True])
def test_shift(wrap: Any) -> None:
    shift = np.array([0, 1, -1, 700, -700, 3999, 4000, -4000])
    result = _applied(TimeShift(wrap=wrap, fill=9.0), WAVES, shift=shift)
    for row, n in enumerate(shift):
        expected = np.roll(WAVES[row], n)
        if not wrap:
            expected[slice(0, n) if n > 0 else slice(LENGTH + n, LENGTH)] = 9.0
        np.testing.assert_array_equal(result[row], expected)


def test_shift_in_shares_and_seconds() -> None:
    _uniform(_sampled(TimeShift())["shift"], -1000, 1000)
    seconds = TimeShift(shift_s=(-0.3, 0.1), **HZ)
    _uniform(_sampled(seconds)["shift"], -2400, 800)
    assert np.abs(_sampled(seconds, length=100)["shift"]).max() == 100


def test_time_mask() -> None:
    start, width = RANDOM.integers(0, 3000, (ROWS, 2)), RANDOM.integers(0, 1000, (ROWS, 2))
    expected = WAVES.copy()
    for row in range(ROWS):
        for first, size in zip(start[row], width[row], strict=True):
            expected[row, first : first + size] = 0.5
    result = _applied(TimeMask(count=2, fill=0.5), WAVES, start=start, width=width)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("options", [{}, {"width_s": (0.0, 0.1), **HZ}])
def test_time_mask_draws(options: Any) -> None:
    drawn = _sampled(TimeMask(count=3, **options))
    assert drawn["start"].shape == (MANY, 3)
    _uniform(drawn["width"], 0, 800)
    assert drawn["start"].min() >= 0
    _uniform(drawn["start"] / (LENGTH - drawn["width"]), 0, 1)


# --- noise and rooms ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["white", "pink", "clips"])
def test_noise_has_the_drawn_ratio(name: Any) -> None:
    layer = LAYERS[name]()
    drawn = layer.sample(WAVES, seed=3)
    noise = _numpy(layer.apply(WAVES, drawn)).astype("float64") - WAVES
    ratio = 10 * np.log10((WAVES.astype("float64") ** 2).mean(1) / (noise**2).mean(1))
    np.testing.assert_allclose(ratio, _numpy(drawn["snr_db"]), atol=1e-3)
    _uniform(_sampled(layer)["snr_db"], 3, 30)


@pytest.mark.parametrize(
    ("color", "exponent"), [("white", 0), ("pink", -1), ("brown", -2), ("violet", 2)]
)
def test_power_density_of_noise(color: Any, exponent: Any) -> None:
    x = np.tile(WAVES[:1] * 1e-3, (ROWS, 4))
    noise = _numpy(AddNoise((-60.0, -60.0), color=color)(x, seed=1)) - x
    frequency, power = scipy.signal.welch(noise, nperseg=2048)
    used = (frequency > 0.005) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[used]), np.log(power.mean(0)[used]), 1)[0]
    assert abs(slope - exponent) < 0.05
    if color != "brown":  # of which hardly more than one slow wave is heard
        assert np.abs(np.corrcoef(noise) - np.eye(ROWS)).max() < 0.3


def test_white_noise_is_normal() -> None:
    noise = _numpy(AddNoise((0.0, 0.0))(np.ones((4, LENGTH), "float32"), seed=1)) - 1.0
    assert abs(np.mean(noise)) < 0.03
    assert abs(np.mean(noise**4) - 3.0) < 0.3


def test_noise_of_clips_starts_anywhere_and_repeats() -> None:
    clip, start = np.arange(ROWS) % 3, np.arange(ROWS) * 90
    layer = AddNoise(clips=CLIPS)
    result = _applied(layer, WAVES, snr_db=np.full(ROWS, 6.0), clip=clip, start=start)
    for row in range(ROWS):
        noise = np.tile(np.roll(CLIPS[clip[row]], -start[row]), 6)[:LENGTH]
        gain = np.sqrt((WAVES[row] ** 2).mean() / (noise**2).mean()) * 10 ** (-6 / 20)
        np.testing.assert_allclose(result[row], WAVES[row] + gain * noise, atol=2e-6)
    drawn = _sampled(layer)
    assert set(drawn["clip"]) == {0, 1, 2}
    _uniform(drawn["start"], 0, 699)


def test_silence_gets_no_noise() -> None:
    for layer in (AddNoise(), AddNoise(clips=np.zeros((1, 50)))):
        x = np.zeros((2, 100), "float32")
        np.testing.assert_array_equal(_numpy(layer(x, seed=1)), x)
    result = AddNoise(clips=np.zeros((1, 50)))(WAVES, seed=1)
    np.testing.assert_array_equal(_numpy(result), WAVES)


@pytest.mark.parametrize("size", [1, 700, 5000])
def test_impulse_response_is_a_convolution(size: Any) -> None:
    responses = RANDOM.normal(size=(3, size)).astype("float32")
    chosen = np.arange(ROWS) % 3
    layer = ImpulseResponse(responses, keep_level=False)
    result = _applied(layer, WAVES, response=chosen)
    for row in range(ROWS):
        whole = np.convolve(WAVES[row].astype("float64"), responses[chosen[row]])
        np.testing.assert_allclose(result[row], whole[:LENGTH], atol=2e-5)
    level = _applied(ImpulseResponse(responses), WAVES, response=chosen)
    power = (WAVES**2).mean(1)
    np.testing.assert_allclose((level**2).mean(1), power, rtol=1e-4)
    ratio = np.sqrt(power / (result**2).mean(1))
    np.testing.assert_allclose(level, result * ratio[:, None], atol=2e-5)
    assert set(_sampled(layer)["response"]) == {0, 1, 2}


def test_rooms_decay_by_60_db_in_their_time() -> None:
    rt60, direct = np.linspace(0.1, 0.45, ROWS), np.linspace(0, 12, ROWS)
    impulse = np.zeros((ROWS, LENGTH), "float32")
    impulse[:, 0] = 1.0
    layer = ImpulseResponse(rt60_s=(0.1, 0.5), keep_level=False, **HZ)
    seeds = np.arange(ROWS)
    result = _applied(layer, impulse, rt60_s=rt60, direct_db=direct, noise_seed=seeds)
    np.testing.assert_allclose(result[:, 0], 1.0, atol=1e-5)
    later = (result[:, 1:].astype("float64")) ** 2
    np.testing.assert_allclose(-10 * np.log10(later.sum(1)), direct, atol=0.01)
    left = 10 * np.log10(np.cumsum(later[:, ::-1], axis=1)[:, ::-1])  # Schroeder's integral
    for row in range(ROWS):
        used = (left[row] < left[row, 0] - 3) & (left[row] > left[row, 0] - 28)
        slope = np.polyfit(TIME[1:][used], left[row, used], 1)[0]
        assert abs(-60 / slope / rt60[row] - 1) < 0.1
    drawn = _sampled(ImpulseResponse(**HZ))
    _uniform(drawn["rt60_s"], 0.1, 0.6)
    _uniform(drawn["direct_db"], 0, 12)


# --- filters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize("kind", ["low", "high", "band"])
def test_filters_are_those_of_scipy(kind: Any, order: Any) -> None:
    low, high = np.geomspace(60, 1200, ROWS), np.geomspace(300, 3500, ROWS)
    layer = {"low": LowPass, "high": HighPass, "band": BandPass}[kind](order=order, **HZ)
    given = {"low_hz": low, "high_hz": high} if kind == "band" else {"cutoff_hz": high}
    result = _applied(layer, WAVES, **given)
    for row in range(ROWS):
        edges = (low[row], high[row]) if kind == "band" else high[row]
        sections = scipy.signal.butter(order, edges, kind, fs=RATE, output="sos")
        expected = scipy.signal.sosfilt(sections, WAVES[row].astype("float64"))
        np.testing.assert_allclose(result[row], expected, atol=2e-6)


def test_filters_lose_3_db_at_the_edge_and_6_per_octave_and_order() -> None:
    for layer, cutoff, octave in (
        (LowPass(order=2, **HZ), 100.0, 2.0),
        (HighPass(order=2, **HZ), 800.0, 0.5),
    ):
        tones = np.array([cutoff, cutoff * octave, cutoff * octave**2])
        x = np.sin(2 * np.pi * tones[:, None] * TIME).astype("float32")
        result = _applied(layer, x, cutoff_hz=np.full(3, cutoff))
        middle = slice(1000, 3000)  # whole periods of all
        loss = -20 * np.log10(result[:, middle].std(1) / x[:, middle].std(1))
        warped = np.tan(np.pi * tones / RATE) / np.tan(np.pi * cutoff / RATE)
        expected = 10 * np.log10(1 + warped ** (4 * np.sign(octave - 1)))
        np.testing.assert_allclose(loss, expected, atol=0.1)
        np.testing.assert_allclose(expected, [3.0, 12.3, 24.1], atol=1.0)


def test_filters_draw_octaves_alike() -> None:
    for layer in (LowPass(**HZ), HighPass(**HZ)):
        _uniform(np.log(_sampled(layer)["cutoff_hz"]), np.log(200), np.log(3500))
    drawn = _sampled(BandPass((300, 900), (0.5, 2.0), **HZ))
    _uniform(np.log2(drawn["high_hz"] / drawn["low_hz"]), 0.5, 2.0)
    _uniform(np.log(drawn["high_hz"] * drawn["low_hz"]) / 2, np.log(300), np.log(900))
    assert _sampled(BandPass((3000, 3900), **HZ))["high_hz"].max() < RATE / 2


def test_lengths_of_transforms() -> None:
    for least, length in ((1, 2), (7, 8), (4000, 4000), (4001, 4050), (8007, 8100)):
        assert even_smooth_length(least) == length


# --- stretching ---------------------------------------------------------------------------------


def _peaks(level: np.ndarray) -> np.ndarray:
    """Returns the nearest peak of each bin, of two equally near the lower one."""
    edges = np.pad(level, 2, constant_values=-1)
    bins = range(len(level))
    peaks = [k for k in bins if level[k] > max(*edges[k : k + 2], *edges[k + 3 : k + 5])]
    return np.array([min(peaks, key=lambda p: (abs(p - k), p), default=k) for k in bins])


def _vocoder(x: np.ndarray, rate: float, window: int, length: int) -> np.ndarray:
    """Returns what a phase vocoder with locked phases makes of a waveform, frame by frame."""
    hop = window // 4
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    count = -(-len(x) // hop) + 6
    padded = np.concatenate([np.zeros(window), x, np.zeros(2 * window)])
    spectra = [np.fft.rfft(hann * padded[n * hop : n * hop + window]) for n in range(count)]
    frames = -(-length // hop) + 6
    result = np.zeros(frames * hop + window)
    weight = np.zeros_like(result)
    phase = due = None
    for o in range(frames):
        place = 2 + (o - 2) * rate
        n = min(max(int(np.floor(place)), 0), count - 2)
        first, second = spectra[n], spectra[n + 1]
        level = np.abs(first) * (1 - place + n) + np.abs(second) * (place - n)
        if not 0 <= place <= count - 1:
            level = np.zeros_like(level)
        angle, after = (np.angle(s) * (np.abs(s) > 0) for s in (first, second))
        if due is None:
            phase = angle
        else:
            peak = _peaks(level)
            phase = due[peak] + angle - angle[peak]
        due = phase + after - angle
        at = slice(o * hop, o * hop + window)
        weight[at] += hann**2
        result[at] += hann * np.fft.irfft(level * np.exp(1j * phase))
    return (result / np.maximum(weight, 1e-9))[window : window + length]


def test_stretch_is_a_phase_vocoder() -> None:
    rate = np.geomspace(0.7, 1.4, ROWS)
    result = _applied(TimeStretch(window=256), WAVES, rate=rate)
    for row in range(ROWS):
        expected = _vocoder(WAVES[row].astype("float64"), float(rate[row]), 256, LENGTH)
        np.testing.assert_allclose(result[row], expected, atol=2e-3)  # of waves of 0.4


def test_stretch_at_rate_1_changes_nothing() -> None:
    result = _applied(TimeStretch(window=256), WAVES, rate=np.ones(ROWS))
    np.testing.assert_allclose(result, WAVES, atol=2e-5)
    result = _applied(PitchShift(window=256), WAVES, semitones=np.zeros(ROWS))
    np.testing.assert_allclose(result, WAVES, atol=2e-5)


def _peak_hz(x: np.ndarray) -> np.ndarray:
    """Returns the frequency of the highest peak of each row, found to a part of a bin."""
    size = 1 << 16
    power = np.abs(np.fft.rfft(x * np.hanning(x.shape[1]), size))
    return np.asarray(power.argmax(axis=1) * RATE / size)


def test_stretch_keeps_pitch_and_moves_onsets() -> None:
    rate = np.geomspace(0.8, 1.25, ROWS)
    tones = np.geomspace(200, 3000, ROWS)
    x = np.sin(2 * np.pi * tones[:, None] * TIME)
    onset, end = 1500, 2500
    x[:, :onset] = 0.0
    x[:, end:] = 0.0
    result = _applied(TimeStretch(window=256), x.astype("float32"), rate=rate)
    np.testing.assert_allclose(_peak_hz(result), tones, atol=RATE / LENGTH)
    loud = np.abs(result) > 0.5
    first, last = loud.argmax(axis=1), LENGTH - loud[:, ::-1].argmax(axis=1)
    np.testing.assert_allclose(first, onset / rate, atol=70)
    np.testing.assert_allclose(last, np.minimum(end / rate, LENGTH), atol=70)


def test_stretched_recordings_are_cut_or_followed_by_silence() -> None:
    x = np.sin(2 * np.pi * 500 * TIME)[None].astype("float32")
    fast, slow = (_applied(TimeStretch(window=256), x, rate=[r])[0] for r in (2.0, 0.5))
    np.testing.assert_allclose(fast[2200:], 0.0, atol=1e-5)
    for part in (fast[300:1800], slow[300:-300]):
        assert abs(part.std() - x.std()) < 0.02
    _uniform(np.log(_sampled(TimeStretch())["rate"]), np.log(0.8), np.log(1.25))


def test_pitch_moves_peaks_by_semitones() -> None:
    semitones = np.array([-12, -7, -4, -1.5, 1.5, 4, 7, 12])
    tones = np.full(ROWS, 700.0)
    x = np.sin(2 * np.pi * tones[:, None] * TIME).astype("float32")
    result = _applied(PitchShift((-12, 12), window=512), x, semitones=semitones)
    expected = tones * 2 ** (semitones / 12)
    np.testing.assert_allclose(_peak_hz(result), expected, atol=RATE / LENGTH)
    np.testing.assert_allclose(result[:, 600:-600].std(1), x.std(), rtol=0.05)
    assert np.abs(result[:, -400:]).max(axis=1).min() > 0.5  # to the end
    for row in range(ROWS):  # nothing but the tone
        power = np.abs(np.fft.rfft(result[row] * np.hanning(LENGTH))) ** 2
        center = round(expected[row] * LENGTH / RATE)
        assert power[center - 30 : center + 31].sum() > 0.995 * power.sum()
    _uniform(_sampled(PitchShift())["semitones"], -4, 4)


def test_pitch_leaves_out_what_does_not_fit() -> None:
    x = np.sin(2 * np.pi * 2800 * TIME)[None].astype("float32")
    result = _applied(PitchShift((-12, 12), window=512), x, semitones=[12.0])
    assert np.abs(result[:, 600:-600]).max() < 0.01


# --- spectrograms -------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [0.25, "mean"])
def test_spec_augment_hides_bands_and_stretches(fill: Any) -> None:
    sizes = {"frequency": BINS, "time": FRAMES}
    given = {}
    for name, size in sizes.items():
        given[f"{name}_start"] = RANDOM.integers(0, size // 2, (ROWS, 2))
        given[f"{name}_width"] = RANDOM.integers(0, size // 2, (ROWS, 2))
    expected = SPECTROGRAMS.copy()
    for row in range(ROWS):
        value = SPECTROGRAMS[row].mean() if fill == "mean" else fill
        for i in range(2):
            first, width = (given[f"time_{part}"][row, i] for part in ("start", "width"))
            expected[row, first : first + width] = value
            first, width = (given[f"frequency_{part}"][row, i] for part in ("start", "width"))
            expected[row, :, first : first + width] = value
    result = _applied(SpecAugment(fill=fill), SPECTROGRAMS, **given)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_spec_augment_warps_on_both_sides_of_a_point() -> None:
    layer = SpecAugment(frequency_masks=0, time_masks=0, time_warp=10)
    point, goal = np.linspace(10, 49, ROWS), np.linspace(10, 49, ROWS)[::-1] * 0.9
    result = _applied(layer, SPECTROGRAMS, warp_from=point, warp_to=goal)
    time = np.arange(FRAMES)
    for row in range(ROWS):
        place = np.interp(time, [0, goal[row], FRAMES - 1], [0, point[row], FRAMES - 1])
        for column in range(BINS):
            expected = np.interp(place, time, SPECTROGRAMS[row, :, column])
            np.testing.assert_allclose(result[row, :, column], expected, atol=1e-4)


def test_spec_augment_draws() -> None:
    layer = SpecAugment(8, 3, 50, 2, time_share=0.4, time_warp=6)
    drawn = _sampled(layer)
    assert drawn["frequency_width"].shape == (MANY, 3)
    assert drawn["time_width"].shape == (MANY, 2)
    for name, most, size in (("frequency", 8, BINS), ("time", 24, FRAMES)):  # 24 of 60 is 0.4
        width, start = drawn[f"{name}_width"], drawn[f"{name}_start"]
        assert set(np.unique(width)) == set(range(most + 1))
        assert abs(width.mean() - most / 2) < 0.03 * most
        assert start.min() == 0
        assert (start + width).max() == size
    _uniform(drawn["warp_from"], 6, FRAMES - 1 - 6)
    _uniform(drawn["warp_to"] - drawn["warp_from"], -6, 6)


def test_spec_augment_of_few_frames_and_bins() -> None:
    x = np.ones((ROWS, 3, 2), "float32")
    layer = SpecAugment(27, 2, 100, 2, time_warp=80)
    drawn = {key: _numpy(value) for key, value in layer.sample(x, seed=1).items()}
    for name, size in (("frequency", 2), ("time", 3)):
        assert (drawn[f"{name}_start"] + drawn[f"{name}_width"]).max() <= size
        assert drawn[f"{name}_start"].min() >= 0
    assert np.isfinite(_numpy(layer(x, seed=1))).all()


def test_layers_in_a_model_augment_only_in_training() -> None:
    inputs = keras.Input((FRAMES, BINS))
    model = keras.Model(inputs, SpecAugment(seed=1)(inputs))
    np.testing.assert_array_equal(_numpy(model(SPECTROGRAMS, training=False)), SPECTROGRAMS)
    assert (_numpy(model(SPECTROGRAMS, training=True)) == 0.0).any()
