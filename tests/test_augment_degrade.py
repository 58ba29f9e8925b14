"""JPEG, CLAHE and light: as Pillow, OpenCV and the CIE have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from tests.augment_degrade_cases import CLIP_LIMITS, GRIDS, QUALITIES, SIZES, images
from zoo.augment.image.degrade import CLAHE, PlanckianJitter, RandomJPEG, chromaticity, light_gains
from zoo.errors import OptionValueError

GOLDEN = np.load(Path(__file__).parent / "golden" / "augment_degrade.npz")
NAMES = ("random_jpeg", "clahe", "planckian_jitter")
OPTIONS: dict[str, dict[str, Any]] = {
    "random_jpeg": {"quality": (1, 100)},
    "clahe": {"grid": 2},  # of tiles that are not too small
}
IMAGES = images(*SIZES[0])[[0, 1, 2, 0]]


def applied(layer: Any, batch: np.ndarray, **parameters: float) -> np.ndarray:
    rows = {name: np.full(len(batch), value) for name, value in parameters.items()}
    return np.asarray(layer.apply(batch, {"applied": np.full(len(batch), True), **rows}))


@pytest.mark.parametrize("size", SIZES)
def test_jpeg_equals_pillow(size: tuple[int, int]) -> None:
    layer = RandomJPEG()
    for quality in QUALITIES:
        result = applied(layer, images(*size), quality=quality)
        np.testing.assert_array_equal(result, GOLDEN[f"jpeg {size} {quality}"])
        if size == SIZES[0]:
            continue
        gray = applied(layer, images(*size)[..., :1], quality=quality)
        np.testing.assert_array_equal(gray, GOLDEN[f"gray jpeg {size} {quality}"])
        floats = applied(layer, images(*size).astype("float32"), quality=quality)
        np.testing.assert_allclose(floats, result, atol=1e-3)


def test_jpeg_of_odd_sizes() -> None:
    pil = pytest.importorskip("PIL.Image")
    import io

    result = applied(RandomJPEG(), images(13, 19), quality=30)
    for image, mine in zip(images(13, 19), result, strict=True):
        file = io.BytesIO()
        pil.fromarray(image).save(file, "JPEG", quality=30)
        np.testing.assert_array_equal(mine, np.array(pil.open(file)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("on", ["channels", "lightness"])
def test_clahe_equals_opencv(size: tuple[int, int], on: str) -> None:
    for grid in GRIDS:
        layer = CLAHE(grid=grid, on=on)
        for limit in CLIP_LIMITS:
            result = applied(layer, images(*size), clip_limit=limit).astype(int)
            difference = np.abs(result - GOLDEN[f"clahe {on} {size} {grid} {limit}"])
            if on == "channels":
                assert difference.max() <= 1
                assert (difference > 0).mean() < 0.002
            else:
                # OpenCV rounds colours to 8 bits of CIELAB: that alone moves them by 0.7. In tiles
                # this small a value that it rounds otherwise also takes another place in a table.
                alone = np.abs(GOLDEN[f"no clahe {size}"].astype(int) - images(*size))
                assert 0.5 < alone.mean() < 0.8
                assert np.median(difference) <= 1
                assert difference.mean(axis=(1, 2, 3)).max() < 6.0
                assert difference.mean() < 2.5


def test_clahe_keeps_hues_and_flat_images() -> None:
    flat = np.full((1, 48, 64, 3), 100, "uint8")
    assert np.ptp(applied(CLAHE(grid=4), flat, clip_limit=2.0)) == 0
    colours = images(*SIZES[0])[2:]
    result = applied(CLAHE(grid=4), colours, clip_limit=2.0).astype(int)
    pixels = colours.reshape(-1, 3)
    for colour, order in (((200, 30, 90), (1, 2, 0)), ((60, 180, 90), (0, 2, 1))):
        mine = result.reshape(-1, 3)[(pixels == colour).all(axis=1)]
        assert (np.diff(mine[:, order], axis=1) >= 0).all()


def test_chromaticity_of_black_bodies() -> None:
    kelvin = np.array([2856.0, 5000.0, 6504.0, 10000.0], "float32")
    # CIE 15:2004, illuminant A; the others from tables of the Planckian locus, 2 degrees.
    expected = [(0.4476, 0.4074), (0.3451, 0.3516), (0.3135, 0.3237), (0.2807, 0.2884)]
    xyz = np.asarray(chromaticity(keras.ops.convert_to_tensor(kelvin)))
    found = xyz[:, :2] / xyz.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_planckian_jitter_scales_red_and_blue() -> None:
    layer = PlanckianJitter()
    kelvin = np.array([3000.0, 6500.0, 12000.0], "float32")
    gray = np.full((3, 4, 4, 3), 100, "uint8")
    parameters = {"applied": np.array([True] * 3), "kelvin": kelvin}
    result = np.asarray(layer.apply(gray, parameters))[:, 0, 0].astype(int)
    assert (result[:, 1] == 100).all()
    gains = np.asarray(light_gains(keras.ops.convert_to_tensor(kelvin)))
    np.testing.assert_array_equal(result, np.minimum(np.floor(100 * gains + 1e-4), 255))
    assert result[0, 0] > 180 > result[0, 1] > result[0, 2]
    assert result[2, 0] < result[2, 1] < result[2, 2]
    # Zini et al.'s factors of red and blue at 6500 and 12000 K, as kornia has them.
    paper = np.array([[1.046, 1.039], [0.790, 1.427]])
    assert np.abs(gains[1:, [0, 2]] / paper - 1.0).max() < 0.16


@pytest.mark.parametrize(
    ("name", "options", "low", "high"),
    [
        ("random_jpeg", {"quality": (30, 60)}, 30, 60),
        ("clahe", {"clip_limit": (1.5, 3.5)}, 1.5, 3.5),
        ("planckian_jitter", {"kelvin": (3000, 9000)}, 3000, 9000),
    ],
)
def test_amounts(name: str, options: dict[str, Any], low: float, high: float) -> None:
    layer = zoo.create_augmentation(name, p=0.25, seed=1, **options)
    drawn = layer.sample(np.zeros((4000, 8, 8, 3), "uint8"))
    values = np.asarray(drawn[next(iter(options))]).astype(float)
    assert low <= values.min() < low + 0.01 * (high - low) + 0.5
    assert high - 0.01 * (high - low) - 0.5 < values.max() <= high
    assert abs(values.mean() - (low + high) / 2) < 0.03 * (high - low)
    assert len(np.unique(values)) > 30
    assert abs(np.asarray(drawn["applied"]).mean() - 0.25) < 0.03
    if name == "random_jpeg":
        assert set(values) == set(range(30, 61))


def test_a_number_is_always_that_one() -> None:
    assert RandomJPEG(40).quality == (40.0, 40.0)
    assert CLAHE(2).clip_limit == (2.0, 2.0)
    drawn = RandomJPEG(40).sample(IMAGES)["quality"]
    np.testing.assert_array_equal(np.asarray(drawn), [40] * 4)


@pytest.mark.parametrize("name", NAMES)
def test_is_a_layer_like_others(name: str) -> None:
    layer = zoo.create_augmentation(name, seed=3, **OPTIONS.get(name, {}))
    same = np.repeat(IMAGES[:1], 4, axis=0)
    first = np.asarray(layer(same, seed=1))
    assert first.dtype == np.uint8
    assert len(np.unique(first.reshape(4, -1), axis=0)) >= 3  # a quality may come twice
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(np.asarray(again(same, seed=1)), first)
    assert (np.asarray(layer(same, seed=2)) != first).any()
    parameters = layer.sample(same, seed=1)
    np.testing.assert_array_equal(np.asarray(layer.apply(same, parameters)), first)
    alone = {key: np.asarray(value)[2:3] for key, value in parameters.items()}
    np.testing.assert_array_equal(np.asarray(layer.apply(same[2], alone)), first[2])
    np.testing.assert_array_equal(np.asarray(layer(same, training=False)), same)
    never = zoo.create_augmentation(name, p=0.0)
    np.testing.assert_array_equal(np.asarray(never(IMAGES)), IMAGES)
    unit = zoo.create_augmentation(name, value_range=(0, 1))
    shares = np.asarray(unit((IMAGES / 255.0).astype("float16"), seed=1))
    assert shares.dtype == np.float16
    assert 0.5 < shares.max() <= 1.0


@pytest.mark.parametrize("name", NAMES)
def test_in_tf_data_and_unknown_sizes(name: str) -> None:
    import tensorflow as tf

    layer = zoo.create_augmentation(name, seed=3)
    data = tf.data.Dataset.from_tensor_slices(IMAGES).batch(4).map(lambda x: layer(x, seed=5))
    mapped = next(iter(data)).numpy()
    assert np.abs(mapped.astype(int) - np.asarray(layer(IMAGES, seed=5))).max() <= 1

    def some() -> Any:
        yield IMAGES[0, :13, :19]
        yield IMAGES[0]

    spec = tf.TensorSpec((None, None, 3), "uint8")
    found = tf.data.Dataset.from_generator(some, output_signature=spec).map(layer)
    assert [tuple(x.shape) for x in found] == [(13, 19, 3), (48, 64, 3)]


def test_in_a_composition() -> None:
    layers = [PlanckianJitter(), CLAHE(grid=2)]
    whole = zoo.create_augmentation("compose", layers=layers, seed=1)
    parameters = {k: np.asarray(v) for k, v in whole.sample(IMAGES, seed=2).items()}
    one = IMAGES
    for number, layer in enumerate(layers):
        start = f"{number}/"
        mine = {k.removeprefix(start): v for k, v in parameters.items() if k.startswith(start)}
        one = np.asarray(layer.apply(one, mine))
    np.testing.assert_array_equal(np.asarray(whole.apply(IMAGES, parameters)), one)


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("random_jpeg", {"quality": (0, 50)}, "`quality` must be two numbers"),
    ("random_jpeg", {"quality": 101}, "`quality` must be two numbers"),
    ("clahe", {"clip_limit": 0}, "`clip_limit` must be two numbers"),
    ("clahe", {"grid": (8, 0)}, "`grid` must be a positive int"),
    ("clahe", {"on": "value"}, "`on` must be one of 'lightness'"),
    ("planckian_jitter", {"kelvin": (100, 5000)}, "`kelvin` must be two numbers"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_options_that_break_their_rule(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionValueError, match=message):
        zoo.create_augmentation(name, **options)


def test_channels_that_have_no_meaning() -> None:
    with pytest.raises(OptionValueError, match="RandomJPEG takes images of 1 or 3 channels"):
        RandomJPEG()(np.zeros((2, 8, 8, 4), "uint8"))
    with pytest.raises(OptionValueError, match="PlanckianJitter takes images of 3 channels"):
        PlanckianJitter()(np.zeros((2, 8, 8, 1), "uint8"))
    four = np.asarray(CLAHE(grid=2)(np.zeros((2, 8, 8, 4), "uint8")))
    assert four.shape == (2, 8, 8, 4)
