"""ElasticTransform: torchvision's pixels by the same field; boxes and points are where they go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from tests.augment_degrade_cases import BOXES, POINTS, SIZES, classes, field, images
from zoo.augment.draws import Draws
from zoo.augment.image.elastic import ElasticTransform, smoothing
from zoo.errors import OptionValueError

GOLDEN = np.load(Path(__file__).parent / "golden" / "augment_degrade.npz")
HEIGHT, WIDTH = SIZES[0]
IMAGES = images(*SIZES[0])
FIELD = {"applied": np.array([True] * 3), "displacement": field()}


@pytest.fixture(scope="module")
def moved() -> dict[str, Any]:
    layer = ElasticTransform()
    data = {
        "images": IMAGES,
        "segmentation_masks": classes(),
        "bounding_boxes": {"boxes": np.stack([BOXES] * 3), "classes": np.ones((3, 3), "int32")},
        # torchvision counts from the first pixel's centre, we from its edge.
        "keypoints": np.stack([POINTS] * 3) + 0.5,
        "id": np.arange(3),
    }
    result: dict[str, Any] = layer.apply(data, FIELD)
    return result


def test_pixels_equal_torchvision(moved: dict[str, Any]) -> None:
    found = np.asarray(moved["images"])
    assert found.dtype == np.uint8
    difference = np.abs(found.astype(int) - GOLDEN["elastic"])
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001
    masks = np.asarray(moved["segmentation_masks"])
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, GOLDEN["elastic masks"])
    np.testing.assert_array_equal(moved["id"], np.arange(3))


def test_boxes_and_points_are_near_torchvision(moved: dict[str, Any]) -> None:
    boxes = np.asarray(moved["bounding_boxes"]["boxes"])
    difference = np.abs(boxes - GOLDEN["elastic boxes"])
    assert difference.max() < 5.0  # of fields of up to 5 pixels: corners say less than outlines
    assert np.median(difference) < 1.0
    assert np.asarray(moved["bounding_boxes"]["valid"]).all()
    points = np.asarray(moved["keypoints"]) - 0.5
    assert np.abs(points - GOLDEN["elastic points"]).max() < 2.0


def test_boxes_and_points_are_where_they_go() -> None:
    layer = ElasticTransform(fill=0.0)
    worst, theirs = 0.0, 0.0
    drawn = np.zeros((3, HEIGHT, WIDTH, 3), "float32")
    for row, (left, top, right, bottom) in enumerate(BOXES.astype(int)):
        drawn[row, top:bottom, left:right] = 255.0
    data = {
        "images": drawn,
        "segmentation_masks": (drawn[..., 0] > 0).astype("int32"),
        "bounding_boxes": BOXES[:, None],
    }
    result = layer.apply(data, FIELD)
    masks = np.asarray(result["segmentation_masks"])
    for row in range(3):
        y, x = np.nonzero(masks[row])
        seen = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
        worst = max(worst, np.abs(np.asarray(result["bounding_boxes"])[row, 0] - seen).max())
        theirs = max(theirs, np.abs(GOLDEN["elastic boxes"][row, row] - seen).max())
        image = np.asarray(result["images"])[row, ..., 0] > 127
        assert (image == (masks[row] > 0)).mean() > 0.97
    assert worst < 1.0 < theirs


@pytest.mark.parametrize(
    "box_format", ["yxyx", "xywh", "center_xywh", "rel_xyxy", "rel_yxyx", "center_yxhw"]
)
def test_formats_of_boxes(box_format: str, moved: dict[str, Any]) -> None:
    from zoo.augment.image import boxes as box

    tensor = keras.ops.convert_to_tensor(np.stack([BOXES] * 3))
    given = box.from_corners(tensor, box_format, HEIGHT, WIDTH)
    layer = ElasticTransform(box_format=box_format)
    found = layer.transform({"images": IMAGES, "bounding_boxes": given}, _tensors(FIELD))
    corners = box.to_corners(found["bounding_boxes"], box_format, HEIGHT, WIDTH)
    expected = np.asarray(moved["bounding_boxes"]["boxes"])
    np.testing.assert_allclose(np.asarray(corners), expected, atol=1e-3)


def _tensors(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: keras.ops.convert_to_tensor(value) for name, value in parameters.items()}


def test_smoothing_is_a_reflected_gaussian() -> None:
    rng = np.random.default_rng(0)
    for size, sigma in ((40, 2.0), (9, 3.0), (5, 4.0), (2, 1.0)):
        noise = rng.normal(size=size)
        half = int(8 * sigma + 1) // 2
        taps = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
        taps /= taps.sum()
        padded = np.pad(noise, half, mode="reflect")
        expected = np.convolve(padded, taps, mode="valid")
        np.testing.assert_allclose(np.asarray(smoothing(size, sigma)) @ noise, expected, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(smoothing(1, 3.0)), [[1.0]])


def test_fields() -> None:
    layer = ElasticTransform(alpha=(40.0, 80.0), sigma=3.0, p=0.5, seed=1)
    drawn = layer.sample(np.zeros((1000, 24, 20, 1), "uint8"))
    assert abs(np.asarray(drawn["applied"]).mean() - 0.5) < 0.05
    fields = np.asarray(drawn["displacement"])
    assert fields.shape == (1000, 24, 20, 2)
    # Uniform noise deviates by 1 / sqrt(3), a Gaussian of sigma averages 4 pi sigma^2 of it.
    inner = fields[:, 6:-6, 6:-6]
    alike = np.sqrt((40.0**2 + 40.0 * 80.0 + 80.0**2) / 3.0)
    expected = 0.5 * alike / np.sqrt(3.0) / np.sqrt(4.0 * np.pi * 9.0)
    assert abs(inner.std() / expected - 1.0) < 0.05
    assert abs(inner.mean()) < 0.25
    assert abs(np.corrcoef(inner[..., 0].ravel(), inner[..., 1].ravel())[0, 1]) < 0.12
    assert (np.abs(inner[0] - inner[1]) > 0.05).mean() > 0.8
    rough = ElasticTransform(alpha=10.0, sigma=0.0).sample(np.zeros((50, 16, 16, 1), "uint8"))
    noise = np.asarray(rough["displacement"])
    assert -5.0 <= noise.min() < -4.9
    assert 4.9 < noise.max() < 5.0


def test_is_a_layer_like_others() -> None:
    layer = zoo.create_augmentation("elastic", alpha=60.0, sigma=3.0, seed=3)
    same = np.repeat(IMAGES[:1], 3, axis=0)
    first = np.asarray(layer(same, seed=1))
    assert len(np.unique(first.reshape(3, -1), axis=0)) == 3
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(np.asarray(again(same, seed=1)), first)
    assert (np.asarray(layer(same, seed=2)) != first).any()
    parameters = layer.sample(same, seed=1)
    np.testing.assert_array_equal(np.asarray(layer.apply(same, parameters)), first)
    alone = {key: np.asarray(value)[2:] for key, value in parameters.items()}
    np.testing.assert_array_equal(np.asarray(layer.apply(same[2], alone)), first[2])
    np.testing.assert_array_equal(np.asarray(layer(same, training=False)), same)


def test_never_with_probability_zero() -> None:
    layer = ElasticTransform(p=0.0)
    points = np.stack([POINTS] * 3)
    result = layer({"images": IMAGES, "keypoints": points, "bounding_boxes": np.stack([BOXES] * 3)})
    np.testing.assert_array_equal(np.asarray(result["images"]), IMAGES)
    np.testing.assert_array_equal(np.asarray(result["keypoints"]), points)
    np.testing.assert_allclose(np.asarray(result["bounding_boxes"]), [BOXES] * 3, atol=1e-5)


def test_in_tf_data() -> None:
    import tensorflow as tf

    layer = ElasticTransform(seed=3)
    data = {"images": IMAGES, "segmentation_masks": classes()[..., None]}
    batches = tf.data.Dataset.from_tensor_slices(data).batch(3).map(lambda x: layer(x, seed=5))
    mapped, eager = next(iter(batches)), layer(data, seed=5)
    for name in data:
        found, expected = mapped[name].numpy(), np.asarray(eager[name])
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        assert (found != expected).mean() < 0.001


def test_errors() -> None:
    for options, message in (
        ({"alpha": -1.0}, "`alpha` must be two numbers"),
        ({"sigma": -0.5}, "`sigma` must not be negative; got sigma=-0.5"),
        ({"interpolation": "cubic"}, "`interpolation` must be one of"),
    ):
        with pytest.raises(OptionValueError, match=message):
            ElasticTransform(**options)
    with pytest.raises(OptionValueError, match="Choice cannot hold ElasticTransform"):
        zoo.create_augmentation("choice", layers=[ElasticTransform()])
    with pytest.raises(OptionValueError, match="cannot be part of another layer"):
        ElasticTransform().steps({}, IMAGES.shape)
    draws = Draws(keras.ops.zeros((1,), "int32"))
    with pytest.raises(OptionValueError, match="images of known size"):
        ElasticTransform().draw(draws, (1, None, 20, 3))


def test_is_part_of_a_pipeline() -> None:
    layer = ElasticTransform(seed=1)
    flip = zoo.create_augmentation("random_flip", p=1.0)
    whole = zoo.create_augmentation("compose", layers=[flip, layer, flip])
    parameters = whole.sample(IMAGES, seed=2)
    mine = {key[2:]: value for key, value in parameters.items() if key.startswith("1/")}
    mirrored = IMAGES[:, :, ::-1]
    expected = np.asarray(layer.apply(mirrored, mine))[:, :, ::-1]
    np.testing.assert_array_equal(np.asarray(whole.apply(IMAGES, parameters)), expected)
