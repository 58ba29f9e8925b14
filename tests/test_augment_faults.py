"""Faults that augmentation layers of Keras 3.15 and others have, none of which ours may have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import zoo
from tests.augment_options import IMAGES, LABELS, make
from zoo.augment import layer as module
from zoo.augment.image import boxes as box
from zoo.augment.image.policies import RandAugment
from zoo.errors import OptionValueError

MANY = np.zeros((2000, 30, 40, 3), "uint8")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs layers without compiling them."""
    monkeypatch.setattr(module, "MOST_SHAPES", -1)


def drawn(name: str, **options: Any) -> dict[str, np.ndarray]:
    parameters = make(name, seed=1, **options).sample(MANY)
    return {key: np.asarray(value) for key, value in parameters.items()}


def spread(values: np.ndarray, low: float, high: float) -> None:
    """Checks that numbers are uniform in a range."""
    assert low <= values.min() < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < values.max() <= high
    assert abs(values.mean() - (low + high) / 2) < 0.04 * (high - low)
    assert abs(values.std() - (high - low) / 12**0.5) < 0.03 * (high - low)


# --- ranges -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "key", "low", "high"),
    [
        ("random_rotation", {"degrees": 30}, "angle", -30, 30),
        ("random_contrast", {"factor": 0.4}, "factor", 0.6, 1.4),
        ("random_brightness", {"factor": (0.2, 0.9)}, "factor", 0.2, 0.9),
        ("random_hue", {"factor": 0.2}, "factor", -0.2, 0.2),
        ("random_affine", {"degrees": (5, 9)}, "angle", 5, 9),
        ("random_affine", {"translate": (0.5, 0)}, "shift_x", -20, 20),
        ("random_affine", {"translate": (0, 0.5)}, "shift_y", -15, 15),
        ("random_affine", {"shear": 12}, "shear_x", -12, 12),
        ("random_zoom_out", {"factor": (1, 3)}, "factor", 1, 3),
        ("gaussian_blur", {"sigma": (0.5, 1.5)}, "sigma", 0.5, 1.5),
        ("gaussian_noise", {"deviation": (2, 8)}, "deviation", 2, 8),
        ("random_crop", {"size": 20, "padding": 0}, "top", 0, 10),
        ("random_crop", {"size": 20, "padding": 4}, "left", -4, 24),
        ("color_jitter", {}, "saturation", 0.6, 1.4),
    ],
)
def test_ranges_have_two_sides(
    name: str, options: dict[str, Any], key: str, low: float, high: float
) -> None:
    spread(drawn(name, **options)[key].astype(float), low, high)


def test_posterize_keeps_the_bits_it_says() -> None:
    counts = np.bincount(drawn("random_posterize", bits=(3, 6))["bits"], minlength=9)
    assert counts[:3].sum() == counts[7:].sum() == 0
    assert (np.abs(counts[3:7] - 500) < 100).all()


def test_probability_is_that_of_a_change() -> None:
    for name in ("random_erasing", "random_equalize", "random_brightness", "gridmask"):
        assert abs(drawn(name, p=0.3)["applied"].mean() - 0.3) < 0.04
        assert drawn(name, p=1.0)["applied"].all()
    always = make("random_erasing", p=1.0, fill=255, seed=1)
    assert (np.asarray(always(np.zeros((400, 16, 16, 3), "uint8"))).max((1, 2, 3)) == 255).all()


def test_flips_of_both_axes_are_drawn_one_by_one() -> None:
    both = drawn("random_flip", mode="both")
    kinds = both["horizontal"] * 2 + both["vertical"]
    assert (np.abs(np.bincount(kinds, minlength=4) - 500) < 100).all()


def test_resized_crops_have_the_areas_and_shapes_asked_for() -> None:
    crop = drawn("random_resized_crop", scale=(0.3, 0.6))
    share = crop["height"] * crop["width"] / (30 * 40)
    assert 0.27 < share.min() < share.max() < 0.64
    ratio = crop["width"] / crop["height"]
    assert 0.68 < ratio.min() < ratio.max() < 1.48
    assert (crop["top"] >= 0).all()
    assert (crop["top"] + crop["height"] <= 30).all()
    assert (crop["left"] + crop["width"] <= 40).all()


# --- policies -----------------------------------------------------------------------------------


def test_operations_are_drawn_for_each_image_and_have_both_signs() -> None:
    policy = RandAugment(magnitude=15, seed=1)
    parameters = policy.sample(MANY)
    operation, amount = (np.asarray(parameters[key]) for key in ("operation", "amount"))
    counts = np.bincount(operation.reshape(-1), minlength=14)
    assert (np.abs(counts - 4000 / 14) < 80).all()
    means = {"rotate": 15.0, "translate_x": 9.0, "shear_y": 0.15}  # 150 / 331 * 40 / 2, cut
    for name, size in means.items():
        mine = amount[operation == policy.operations.index(name)]
        assert abs((mine > 0).mean() - 0.5) < 0.12
        np.testing.assert_allclose(np.abs(mine), size, rtol=1e-6)


def test_strength_grows_with_the_magnitude() -> None:
    images = IMAGES[:4]
    policy = RandAugment(num_ops=1)
    for name in policy.operations:
        changes = []
        for magnitude in (3.0, 12.0, 30.0):
            number = np.full((len(images), 1), policy.operations.index(name), "int32")
            level = np.full((len(images), 1), magnitude / 30, "float32")
            sign = np.ones_like(level)
            amount = policy.amounts(number, level, sign, images.shape)
            result = policy.apply(images, {"operation": number, "amount": amount})
            changes.append(np.abs(np.asarray(result).astype(int) - images).mean())
        assert changes == sorted(changes), name


def test_augmix_draws_for_each_image_and_hears_its_seed() -> None:
    first, again, other = (make("augmix", seed=s).sample(MANY) for s in (1, 1, 2))
    operation = np.asarray(first["operation"])
    assert len(np.unique(operation, axis=0)) > 1000
    np.testing.assert_array_equal(operation, np.asarray(again["operation"]))
    assert (operation != np.asarray(other["operation"])).any()
    depth = (operation.reshape(-1, 3, 3) >= 0).sum(-1)
    assert (np.abs(np.bincount(depth.reshape(-1), minlength=4)[1:] - 2000) < 250).all()
    np.testing.assert_allclose(np.asarray(first["weights"]).sum(-1), 1.0, rtol=1e-5)
    share = np.asarray(first["share"])
    spread(share, 0.0, 1.0)  # a beta distribution of 1 and 1


def test_augmix_mixes_by_its_weights() -> None:
    layer = make("augmix", width=2, depth=1)
    names = layer.operations
    operation = np.array([[names.index("solarize"), names.index("posterize")]] * 8, "int32")
    amount = np.array([[128.0, 2.0]] * 8, "float32")
    weights = np.array([[0.25, 0.75]] * 8, "float32")
    share = np.linspace(0, 1, 8).astype("float32")
    parameters = {"operation": operation, "amount": amount, "weights": weights, "share": share}
    result = np.asarray(layer.apply(IMAGES, parameters))
    x = IMAGES.astype("float32")
    mixture = 0.25 * np.where(x >= 128, 255 - x, x) + 0.75 * (x // 64 * 64)
    keep = 1 - share[:, None, None, None]
    assert np.abs(result - (keep * x + (1 - keep) * mixture)).max() <= 0.51


def test_autoaugment_uses_its_pairs() -> None:
    parameters = make("autoaugment", policy="svhn", seed=1).sample(MANY)
    operation = np.asarray(parameters["operation"])
    names = make("autoaugment").operations
    used = {names[i] for i in operation.reshape(-1) if i >= 0}
    assert "color" not in used  # no pair of that policy has it
    assert "invert" in used
    assert 0.3 < (operation[:, 0] >= 0).mean() < 0.95


# --- values -------------------------------------------------------------------------------------


def test_values_stay_in_their_range() -> None:
    white = np.full((8, 24, 24, 3), 250, "uint8")
    for name in ("random_brightness", "random_saturation", "random_contrast", "random_sharpness"):
        result = np.asarray(make(name, factor=(3.0, 3.0))(white))
        assert result.min() >= 250  # nothing wraps around
    gray = np.full((8, 24, 24, 3), 20, "uint8")
    bright = np.asarray(make("random_brightness", factor=(20.0, 20.0))(gray))
    assert (bright == 255).all()


def test_images_are_equalized_one_by_one() -> None:
    dark, light = IMAGES[:1] // 4, IMAGES[:1] // 4 + 150
    layer = make("random_equalize", p=1.0)
    together = np.asarray(layer(np.concatenate([dark, light])))
    np.testing.assert_array_equal(together[:1], np.asarray(layer(dark)))
    np.testing.assert_array_equal(together[1:], np.asarray(layer(light)))


# --- boxes, masks, keypoints --------------------------------------------------------------------

SIZE = (40, 60)
SQUARES = np.array([[12, 8, 24, 20], [36, 22, 48, 34]], "float32")  # x, y, x, y


def scene() -> dict[str, Any]:
    """Returns two pictures of two squares, with boxes, mask and corners of the first square."""
    image = np.zeros((2, *SIZE, 3), "uint8")
    mask = np.zeros((2, *SIZE), "int32")
    for number, (left, top, right, bottom) in enumerate(SQUARES.astype(int)):
        image[:, top:bottom, left:right, number] = 255
        mask[:, top:bottom, left:right] = number + 1
    corners = np.array([[[12, 8], [24, 8], [24, 20], [12, 20]]] * 2, "float32")
    boxes = {"boxes": np.stack([SQUARES] * 2), "labels": np.array([[1, 2]] * 2)}
    return {
        "images": image,
        "bounding_boxes": boxes,
        "segmentation_masks": mask,
        "keypoints": corners,
    }


def found(picture: np.ndarray, channel: int) -> np.ndarray:
    """Returns the box around what is lit in a channel."""
    rows, columns = np.nonzero(picture[..., channel] > 127)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


MOVING: list[tuple[str, dict[str, Any]]] = [
    ("random_flip", {"mode": "both", "p": 1.0}),
    ("random_rotation", {"degrees": (90, 90)}),
    ("random_rotation", {"degrees": (12, 12)}),
    ("random_affine", {"scale": (0.8, 0.8), "translate": (0.1, 0.1), "shear": 8}),
    ("random_perspective", {"distortion": 0.2, "p": 1.0}),
    ("random_crop", {"size": SIZE, "padding": 6}),
    ("random_resized_crop", {"size": (50, 70), "scale": (0.8, 0.9)}),
    ("random_zoom_out", {"factor": (1.3, 1.6), "p": 1.0}),
    ("scale_jitter", {"size": (50, 70), "scale": (0.7, 1.0)}),
    ("randaugment", {"num_ops": 3, "magnitude": 9}),
]


@pytest.mark.parametrize("box_format", box.FORMATS)
def test_boxes_of_every_format_are_where_the_squares_are(box_format: str) -> None:
    given = scene()
    boxes = box.from_corners(given["bounding_boxes"]["boxes"], box_format, *SIZE)
    given["bounding_boxes"]["boxes"] = np.asarray(boxes)
    layer = make("random_affine", scale=(0.8, 0.8), translate=(0.1, 0.1), box_format=box_format)
    result = layer(given, seed=1)
    corners = box.to_corners(result["bounding_boxes"]["boxes"], box_format, *SIZE)
    for row in range(2):
        for number in range(2):
            seen = found(np.asarray(result["images"])[row], number)
            assert np.abs(np.asarray(corners)[row, number] - seen).max() <= 1.0


@pytest.mark.parametrize(("name", "options"), MOVING)
def test_boxes_masks_and_points_go_with_the_picture(name: str, options: dict[str, Any]) -> None:
    given = scene()
    result = (
        make(name, interpolation="nearest", **options)(given, seed=3)
        if (name != "random_flip")
        else make(name, **options)(given, seed=3)
    )
    images, masks = np.asarray(result["images"]), np.asarray(result["segmentation_masks"])
    boxes = np.asarray(result["bounding_boxes"]["boxes"])
    assert masks.dtype == np.int32
    assert masks.shape == images.shape[:3]
    if name != "randaugment":  # which changes values too
        for number in (0, 1):
            lit = images[..., number] > 127
            both = (lit & (masks == number + 1)).sum() / max((lit | (masks == number + 1)).sum(), 1)
            assert both > 0.9
    for row in range(2):
        valid = np.asarray(result["bounding_boxes"]["valid"])[row]
        for place in np.nonzero(valid)[0]:
            rows, columns = np.nonzero(masks[row] == place + 1)
            seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            # A turned square's hull is larger than the pixels that are more than half in it.
            assert np.abs(boxes[row, place] - seen).max() <= 2.0
        points = np.asarray(result["keypoints"])[row]
        hull = [*points.min(0), *points.max(0)]
        inside = np.clip(hull, 0, [images.shape[2], images.shape[1]] * 2)
        if valid[0]:
            np.testing.assert_allclose(boxes[row, 0], inside, atol=1e-3)


def test_crops_do_not_swap_the_axes_of_boxes() -> None:
    given = scene()
    layer = make("random_crop", size=(20, 30), padding=0)
    parameters = {"top": np.array([5, 20]), "left": np.array([10, 33])}
    result = layer.apply(given, parameters)
    boxes = np.asarray(result["bounding_boxes"]["boxes"])
    np.testing.assert_allclose(boxes[0, 0], [2, 3, 14, 15])
    np.testing.assert_allclose(boxes[1, 1], [3, 2, 15, 14])
    valid = np.asarray(result["bounding_boxes"]["valid"])
    np.testing.assert_array_equal(valid, [[True, True], [False, True]])
    np.testing.assert_array_equal(boxes[1, 0], 0)  # it left the picture
    assert np.asarray(result["bounding_boxes"]["labels"]).tolist() == [[1, 2]] * 2


def test_boxes_as_an_array_and_small_rests() -> None:
    given = {"images": scene()["images"], "bounding_boxes": np.stack([SQUARES] * 2)}
    layer = make("random_crop", size=(20, 30), padding=0, smallest_share=0.5)
    parameters = {"top": np.array([5, 18]), "left": np.array([10, 33])}
    boxes = np.asarray(layer.apply(given, parameters)["bounding_boxes"])
    np.testing.assert_allclose(boxes[0, 0], [2, 3, 14, 15])
    np.testing.assert_array_equal(boxes[0, 1], 0)  # 4 of 12 columns of it are left
    with pytest.raises(OptionValueError, match="a dictionary with the key `boxes`"):
        layer.apply({**given, "bounding_boxes": {"xyxy": SQUARES}}, parameters)


def test_masks_keep_classes_and_take_the_fill() -> None:
    given = scene()
    given["segmentation_masks"] = given["segmentation_masks"][..., None].astype("uint8")
    result = make("random_rotation", degrees=(40, 40), mask_fill=9)(given)
    masks = np.asarray(result["segmentation_masks"])
    assert masks.shape == (2, *SIZE, 1)
    assert masks.dtype == np.uint8
    assert set(np.unique(masks)) == {0, 1, 2, 9}


# --- mixing -------------------------------------------------------------------------------------


def test_mixup_is_its_formula() -> None:
    share = np.linspace(0, 1, 8).astype("float32")
    partner = np.roll(np.arange(8), 3)
    parameters = {"partner": partner, "share": share}
    layer = make("mixup", label_smoothing=0.1)
    images, labels = layer.apply(IMAGES, parameters, LABELS)
    x, keep = IMAGES.astype("float64"), share[:, None, None, None].astype("float64")
    expected = np.round(x * keep + x[partner] * (1 - keep))
    assert np.abs(np.asarray(images) - expected).max() <= 1
    assert (np.asarray(images) != expected).mean() < 0.01
    soft = np.eye(5)[LABELS] * 0.9 + 0.1 / 5
    wanted = soft * share[:, None] + soft[partner] * (1 - share[:, None])
    np.testing.assert_allclose(np.asarray(labels), wanted, rtol=1e-5)
    with pytest.raises(OptionValueError, match="a mixture of classes is no class"):
        layer({"images": IMAGES, "labels": LABELS, "segmentation_masks": IMAGES[..., 0]})


def test_cutmix_cuts_pictures_masks_and_labels_alike() -> None:
    partner = np.arange(8)[::-1].copy()
    parameters = {
        "partner": partner,
        "top": np.array([0, 3, 20, 5, 0, 0, 0, 0]),
        "left": np.array([0, 6, 2, 1, 0, 0, 0, 0]),
        "height": np.array([24, 6, 4, 9, 0, 2, 3, 4]),
        "width": np.array([24, 12, 4, 8, 9, 2, 3, 4]),
    }
    masks = IMAGES[..., :1].astype("int32")
    given = {"images": IMAGES, "labels": np.eye(5)[LABELS], "segmentation_masks": masks}
    result = make("cutmix").apply(given, parameters)
    expected, cut, labels = IMAGES.copy(), masks.copy(), np.eye(5)[LABELS]
    mixed = labels.copy()
    for i in range(8):
        top, left, tall, wide = (parameters[k][i] for k in ("top", "left", "height", "width"))
        here = (i, slice(top, top + tall), slice(left, left + wide))
        there = (partner[i], *here[1:])
        expected[here], cut[here] = IMAGES[there], masks[there]
        share = tall * wide / 24**2
        mixed[i] = labels[i] * (1 - share) + labels[partner[i]] * share
    np.testing.assert_array_equal(np.asarray(result["images"]), expected)
    np.testing.assert_array_equal(np.asarray(result["segmentation_masks"]), cut)
    np.testing.assert_allclose(np.asarray(result["labels"]), mixed, atol=1e-6)


@pytest.mark.parametrize("name", ["mixup", "cutmix", "mixup_or_cutmix"])
@pytest.mark.parametrize("mode", ["elem", "pair", "batch"])
def test_shares_are_drawn_as_the_mode_says(name: str, mode: str) -> None:
    layer = make(name, mode=mode, seed=2)
    parameters = {key: np.asarray(value) for key, value in layer.sample(MANY).items()}
    number = parameters["share"] if name == "mixup" else parameters["top"]
    partner = parameters["partner"]
    assert sorted(partner) == list(range(2000))
    if mode == "pair":
        np.testing.assert_array_equal(partner, np.arange(2000)[::-1])
        np.testing.assert_array_equal(number, number[partner])
    else:
        assert (partner != np.arange(2000)).all()
    assert (len(np.unique(number)) == 1) == (mode == "batch")
    if (name, mode) == ("mixup", "elem"):
        assert abs(number.mean() - 0.5) < 0.03
        assert abs(number.var() - 1 / (4 * (2 * 0.8 + 1))) < 0.01  # of a beta distribution


def test_labels_of_every_form_are_mixed_alike() -> None:
    layer = make("mixup_or_cutmix", seed=4)
    results = [
        np.asarray(layer(IMAGES, labels, seed=1)[1])
        for labels in (LABELS, LABELS[:, None], np.eye(5)[LABELS], np.eye(5, dtype="int64")[LABELS])
    ]
    for result in results:
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, results[0], atol=1e-6)
        np.testing.assert_allclose(result.sum(-1), 1.0, rtol=1e-5)


def test_mixing_boxes_keeps_those_of_both() -> None:
    given = {**scene(), "labels": np.array([0, 1])}
    given.pop("segmentation_masks")
    given.pop("keypoints")
    mixed = make("mixup", p=1.0)(given, seed=1)["bounding_boxes"]
    assert np.asarray(mixed["boxes"]).shape == (2, 4, 4)
    assert np.asarray(mixed["valid"]).all()
    parameters = {
        "partner": np.array([1, 0]),
        "top": np.array([0, 0]),
        "left": np.array([0, 30]),
        "height": np.array([40, 0]),
        "width": np.array([30, 0]),
    }
    cut = make("cutmix").apply(given, parameters)["bounding_boxes"]
    # The first picture's first square is covered; of the other's, only the first is seen.
    assert np.asarray(cut["valid"]).tolist() == [
        [False, True, True, False],
        [True, True, False, False],
    ]
    with pytest.raises(OptionValueError, match="mixes images and labels only"):
        make("mixup_or_cutmix")(given)


def test_mixing_in_tf_data_with_whole_labels() -> None:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS.astype("int64"))).batch(4)
    for images, labels in data.map(make("cutmix")):
        assert images.dtype == "uint8"
        assert labels.dtype == "float32"
        assert labels.shape == (4, 5)


# --- compositions -------------------------------------------------------------------------------


def test_neighbouring_movements_are_one_resampling() -> None:
    from zoo.augment.image.program import planned

    layers = [make("random_rotation"), make("random_flip"), make("random_resized_crop", fill=0.0)]
    whole = zoo.create_augmentation("compose", layers=layers)
    steps = whole.steps(whole.sample(IMAGES), IMAGES.shape)
    assert len(steps) == 3
    assert len(planned(steps)) == 1
    turned = zoo.create_augmentation(
        "compose", layers=[make("random_rotation", degrees=(a, a)) for a in (35.0, -35.0)]
    )
    np.testing.assert_array_equal(np.asarray(turned(IMAGES)), IMAGES)  # nothing was lost between


def test_choices_and_orders() -> None:
    dark = make("random_brightness", factor=(0.5, 0.5))
    light = make("random_brightness", factor=(1.0, 1.0))
    layer = zoo.create_augmentation("choice", layers=[dark, light], weights=[3, 1], seed=1)
    chosen = np.asarray(layer.sample(MANY)["layer"])
    assert abs((chosen == 0).mean() - 0.75) < 0.03
    result = np.asarray(layer(IMAGES, seed=3))
    which = np.asarray(layer.sample(IMAGES, seed=3)["layer"])[:, 0]
    np.testing.assert_array_equal(result[which == 1], IMAGES[which == 1])
    np.testing.assert_array_equal(result[which == 0], IMAGES[which == 0] // 2)
    invert, halve = make("random_invert", p=1.0), dark
    order = zoo.create_augmentation("random_order", layers=[invert, halve], seed=1)
    first = np.asarray(order.sample(IMAGES, seed=1)["layer"])[:, 0]
    result = np.asarray(order(IMAGES, seed=1))
    np.testing.assert_array_equal(result[first == 0], (255 - IMAGES[first == 0]) // 2)
    np.testing.assert_array_equal(result[first == 1], 255 - IMAGES[first == 1] // 2)
    assert set(first) == {0, 1}
    some = zoo.create_augmentation("some_of", layers=[invert, halve, light], count=2, seed=1)
    drawn = np.asarray(some.sample(MANY)["layer"])
    assert (drawn[:, 0] != drawn[:, 1]).all()
    flip = zoo.create_augmentation("apply", layers=[make("random_flip", p=1.0), invert], p=0.5)
    moved = flip(scene(), seed=2)
    used = np.asarray(flip.sample(scene(), seed=2)["layer"])[:, 0] == 0
    corners = np.asarray(moved["bounding_boxes"]["boxes"])
    for row in range(2):
        left = 60 - SQUARES[:, 2] if used[row] else SQUARES[:, 0]
        np.testing.assert_allclose(corners[row, :, 0], left)


def test_mixing_inside_of_a_pipeline() -> None:
    whole = zoo.create_augmentation(
        "compose", layers=[make("random_flip"), make("mixup"), make("random_invert", p=1.0)]
    )
    images, labels = whole(IMAGES, LABELS)
    assert np.asarray(images).shape == IMAGES.shape
    np.testing.assert_allclose(np.asarray(labels).sum(-1), 1.0, rtol=1e-5)
