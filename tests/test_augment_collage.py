"""IoUCrop, Mosaic and CopyPaste: against plain loops in NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import zoo
from zoo.augment.image.collage import Mosaic
from zoo.augment.image.copy_paste import CopyPaste, extents
from zoo.augment.image.iou_crop import IoUCrop
from zoo.errors import OptionError, OptionValueError

ROWS, HEIGHT, WIDTH = 6, 20, 24
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (ROWS, HEIGHT, WIDTH, 3)).astype("uint8")
LABELS = np.arange(ROWS) % 3


def instances() -> tuple[np.ndarray, np.ndarray]:
    """Returns masks of two rectangles each, the second before the first, and their boxes."""
    masks = np.zeros((ROWS, HEIGHT, WIDTH), "int32")
    boxes = np.zeros((ROWS, 2, 4), "float32")
    for row in range(ROWS):
        for number, (left, top, wide, tall) in enumerate(((row, 2, 9, 8), (12 - row, 9, 8, 9))):
            masks[row, top : top + tall, left : left + wide] = number + 1
            boxes[row, number] = left, top, left + wide, top + tall
    return masks, boxes


MASKS, BOXES = instances()
DATA = {
    "images": IMAGES,
    "labels": LABELS,
    "bounding_boxes": {"boxes": BOXES, "classes": np.arange(12).reshape(6, 2)},
    "segmentation_masks": MASKS,
}


def test_config_and_seeds() -> None:
    options: dict[str, dict[str, Any]] = {
        "iou_crop": {"size": 16, "least_iou": (0.1, 0.5)},
        "mosaic": {"num_classes": 3, "centre": (0.3, 0.6)},
        "copy_paste": {"object_p": 0.7},
    }
    for name, given in options.items():
        layer = zoo.create_augmentation(name, seed=4, **given)
        config = keras.saving.serialize_keras_object(layer)
        again = keras.saving.deserialize_keras_object(config)
        assert again.get_config() == layer.get_config()
        first, other = layer(DATA, seed=1), layer(DATA, seed=2)
        applied = layer.apply(DATA, again.sample(DATA, seed=1))
        np.testing.assert_array_equal(np.asarray(applied["images"]), np.asarray(first["images"]))
        assert (np.asarray(other["images"]) != np.asarray(first["images"])).any()
        assert np.asarray(first["images"]).dtype == np.uint8
        assert np.asarray(first["segmentation_masks"]).dtype == np.int32
        same = layer(DATA, training=False)
        for key in ("images", "labels", "segmentation_masks"):
            np.testing.assert_array_equal(np.asarray(same[key]), DATA[key])


def first_fit(boxes: np.ndarray, drawn: dict[str, np.ndarray], ratio: tuple[float, float]) -> Any:
    """Returns the first rectangle that torchvision would take, or None."""
    for place in range(len(drawn["top"])):
        least = drawn["least_iou"][place]
        if least >= 1.0:
            return None
        top, left, height, width = (drawn[n][place] for n in ("top", "left", "height", "width"))
        if not ratio[0] <= width / height <= ratio[1]:
            continue
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = (centre > [left, top]).all(1) & (centre < [left + width, top + height]).all(1)
        if not inside.any():
            continue
        low = np.maximum(boxes[:, :2], [left, top])
        high = np.minimum(boxes[:, 2:], [left + width, top + height])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        iou = shared / (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + height * width - shared)
        if iou[inside].max() >= least:
            return int(top), int(left), int(height), int(width), inside
    return None


def test_takes_the_first_rectangle_that_fits() -> None:
    layer = IoUCrop((HEIGHT, WIDTH), interpolation="nearest", trials=8)
    drawn = {name: np.asarray(value) for name, value in layer.sample(DATA, seed=3).items()}
    result = layer.apply(DATA, drawn)
    cut = 0
    for row in range(ROWS):
        mine = {name: value[row] for name, value in drawn.items() if name != "applied"}
        found = first_fit(BOXES[row], mine, layer.ratio)
        boxes = np.asarray(result["bounding_boxes"]["boxes"])[row]
        valid = np.asarray(result["bounding_boxes"]["valid"])[row]
        image = np.asarray(result["images"])[row]
        if found is None:
            np.testing.assert_array_equal(image, IMAGES[row])
            np.testing.assert_allclose(boxes, BOXES[row], atol=1e-4)
            continue
        cut += 1
        top, left, height, width, inside = found
        y = (np.arange(HEIGHT) + 0.5) * height / HEIGHT
        x = (np.arange(WIDTH) + 0.5) * width / WIDTH
        clear = [np.abs(place - np.round(place)) > 1e-3 for place in (y, x)]  # no ties
        expected = IMAGES[row][top + y.astype(int)][:, left + x.astype(int)]
        np.testing.assert_array_equal(image[clear[0]][:, clear[1]], expected[clear[0]][:, clear[1]])
        np.testing.assert_array_equal(valid, inside)
        scale = np.array([WIDTH / width, HEIGHT / height] * 2)
        moved = (BOXES[row] - [left, top, left, top]) * scale
        moved = np.clip(moved, 0, [WIDTH, HEIGHT] * 2) * inside[:, None]
        np.testing.assert_allclose(boxes, moved, atol=1e-3)
    assert cut >= 2


def test_rectangles_that_are_drawn() -> None:
    layer = IoUCrop(16, scale=(0.3, 0.9), least_iou=(0.1, 0.5, 1.0), trials=20, p=0.5, seed=1)
    drawn = layer.sample(np.zeros((1000, 50, 40, 1), "uint8"))
    drawn = {name: np.asarray(value) for name, value in drawn.items()}
    assert drawn["top"].shape == (1000, 100)
    assert drawn["height"].min() == 15
    assert drawn["height"].max() == 44
    assert abs(drawn["width"].mean() - 23.5) < 0.3
    assert (drawn["top"] >= 0).all()
    assert (drawn["top"] + drawn["height"] <= 50).all()
    assert (drawn["left"] + drawn["width"] <= 40).all()
    assert abs(drawn["applied"].mean() - 0.5) < 0.06
    for share in (0.1, 0.5, 1.0):
        assert abs((np.abs(drawn["least_iou"] - share) < 1e-6).mean() - 1 / 3) < 0.03
    assert (drawn["least_iou"][:, :20] == drawn["least_iou"][:, :1]).all()
    assert len(np.unique(drawn["left"][:, 0])) > 10


def test_rectangles_overlap_as_asked_and_boxes_that_are_not_valid_do_not_count() -> None:
    box = np.tile(np.array([[[10, 10, 26, 26], [0, 0, 40, 40]]], "float32"), (400, 1, 1))
    images = np.zeros((400, 40, 40, 1), "uint8")
    valid = np.tile([[True, False]], (400, 1))
    layer = IoUCrop(8, least_iou=(0.5,), seed=1)
    data = {"images": images, "bounding_boxes": {"boxes": box, "valid": valid}}
    tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, data)
    place = layer.chosen(tensors, layer.sample(data, seed=2))
    place = {name: np.asarray(value) for name, value in place.items()}
    assert place["cut"].mean() > 0.9
    top, left = place["top"], place["left"]
    down = np.minimum(top + place["height"], 26) - np.maximum(top, 10)
    across = np.minimum(left + place["width"], 26) - np.maximum(left, 10)
    shared = down * across
    iou = shared / (256 + place["height"] * place["width"] - shared)
    assert iou[place["cut"]].min() >= 0.5
    assert len(np.unique(left)) > 10
    nothing = {**tensors["bounding_boxes"], "valid": tensors["bounding_boxes"]["valid"] & False}
    whole = layer.chosen({**tensors, "bounding_boxes": nothing}, layer.sample(data, seed=2))
    assert not np.asarray(whole["cut"]).any()
    assert (np.asarray(whole["width"]) == 40).all()


# --- Mosaic -------------------------------------------------------------------------------------


def canvas(four: list[np.ndarray], x: int, y: int) -> np.ndarray:
    """Returns four images around the middle of a canvas of twice the size, cut around x, y."""
    top = np.concatenate(four[:2], axis=1)
    whole = np.concatenate([top, np.concatenate(four[2:], axis=1)], axis=0)
    return whole[HEIGHT - y : 2 * HEIGHT - y, WIDTH - x : 2 * WIDTH - x]


def test_mosaic_equals_a_canvas() -> None:
    layer = Mosaic(num_classes=3)
    drawn = {name: np.asarray(value) for name, value in layer.sample(DATA, seed=1).items()}
    result = layer.apply(DATA, drawn)
    boxes = {k: np.asarray(v) for k, v in result["bounding_boxes"].items()}
    assert boxes["boxes"].shape == (ROWS, 8, 4)
    for row in range(ROWS):
        x, y, place = (int(drawn[name][row]) for name in ("x", "y", "place"))
        members = [row, *drawn["partner"][row]]
        four = [members[(i - place) % 4] for i in range(4)]
        for key, source in (("images", IMAGES), ("segmentation_masks", MASKS)):
            expected = canvas([source[i] for i in four], x, y)
            np.testing.assert_array_equal(np.asarray(result[key])[row], expected)
        areas = np.array([x * y, (WIDTH - x) * y, x * (HEIGHT - y), (WIDTH - x) * (HEIGHT - y)])
        shares = np.zeros(3)
        np.add.at(shares, LABELS[four], areas / (HEIGHT * WIDTH))
        np.testing.assert_allclose(np.asarray(result["labels"])[row], shares, atol=1e-6)
        for slot, member in enumerate(members):
            right, below = (place + slot) % 4 % 2, (place + slot) % 4 // 2
            step = np.array([x - (1 - right) * WIDTH, y - (1 - below) * HEIGHT] * 2)
            low, high = np.array([right * x, below * y]), np.array([x, y])
            high = np.where([right, below], [WIDTH, HEIGHT], high)
            moved = np.clip(BOXES[member] + step, np.tile(low, 2), np.tile(high, 2))
            seen = (moved[:, 2:] > moved[:, :2]).all(axis=1)
            part = slice(2 * slot, 2 * slot + 2)
            np.testing.assert_array_equal(boxes["valid"][row, part], seen)
            np.testing.assert_allclose(boxes["boxes"][row, part], moved * seen[:, None], atol=1e-4)
            expected = DATA["bounding_boxes"]["classes"][member]  # type: ignore[index]
            np.testing.assert_array_equal(boxes["classes"][row, part], expected)


def test_mosaic_draws() -> None:
    layer = Mosaic(centre=(0.25, 0.75), seed=1, num_classes=3)
    drawn = layer.sample(np.zeros((2000, 40, 80, 1), "uint8"), np.zeros(2000, "int32"))
    drawn = {name: np.asarray(value) for name, value in drawn.items()}
    own = np.arange(2000)[:, None]
    every = np.concatenate([own, drawn["partner"]], axis=1)
    assert (np.diff(np.sort(every, axis=1), axis=1) > 0).all()  # four different ones
    assert (np.sort(drawn["partner"], axis=0) == own).all()  # each as often as any other
    assert np.abs(np.bincount(drawn["place"], minlength=4) / 2000 - 0.25).max() < 0.05
    for name, size in (("x", 80), ("y", 40)):
        assert drawn[name].min() == size // 4
        assert drawn[name].max() == 3 * size // 4
        assert abs(drawn[name].mean() - size / 2) < 0.03 * size
    half = Mosaic(p=0.5, num_classes=3, seed=1)
    changed = np.asarray(half.sample(np.zeros((2000, 8, 8, 1)), np.zeros(2000))["x"]) > 0
    assert abs(changed.mean() - 0.5) < 0.05
    for rows in (1, 2, 3, 4):
        few = layer.sample(np.zeros((rows, 8, 8, 1)), np.zeros(rows))["partner"]
        assert 0 <= np.asarray(few).min() <= np.asarray(few).max() < rows
    assert len({tuple(np.asarray(layer.sample(DATA, seed=s)["partner"])[0]) for s in range(9)}) > 3


def test_mosaic_never_with_probability_zero_and_without_labels() -> None:
    layer = Mosaic(p=0.0, box_format="rel_yxyx")
    boxes = BOXES[..., [1, 0, 3, 2]] / [HEIGHT, WIDTH, HEIGHT, WIDTH]
    result = layer({"images": IMAGES, "bounding_boxes": boxes.astype("float32")})
    np.testing.assert_array_equal(np.asarray(result["images"]), IMAGES)
    found = result["bounding_boxes"]
    np.testing.assert_allclose(np.asarray(found["boxes"])[:, :2], boxes, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(found["valid"]), [[True] * 2 + [False] * 6] * ROWS)


def test_mosaic_of_boxes_of_which_little_is_left() -> None:
    layer = Mosaic(smallest_share=0.5)
    boxes = np.tile(np.array([[[0, 0, 10, 10], [20, 0, 24, 4]]], "float32"), (ROWS, 1, 1))
    rows = np.arange(ROWS)
    drawn = {
        "partner": np.stack([(rows + i) % ROWS for i in (1, 2, 3)], axis=1),
        "place": np.full(ROWS, 3),
        "x": np.full(ROWS, 20),
        "y": np.full(ROWS, 10),
    }
    result = layer.apply({"images": IMAGES, "bounding_boxes": boxes}, drawn)["bounding_boxes"]
    valid = np.asarray(result["valid"])[0]
    # The own one is lower right, 4 x 10 pixels of which are seen: 40 of the box's 100.
    np.testing.assert_array_equal(valid[:2], [False, False])
    # The next is upper left: of it the lower right 20 x 10 pixels are seen.
    np.testing.assert_array_equal(valid[2:4], [False, False])
    # Upper right: its lower left 4 x 10 pixels; lower left: its upper right 20 x 10.
    np.testing.assert_array_equal(valid[4:], [False, False, True, True])
    np.testing.assert_allclose(
        np.asarray(result["boxes"])[0, 6:], [[0, 10, 6, 20], [16, 10, 20, 14]]
    )


def test_objects_are_pasted_and_boxes_are_what_is_seen() -> None:
    layer = CopyPaste(object_p=0.5, smallest_share=0.3)
    drawn = {name: np.asarray(value) for name, value in layer.sample(DATA, seed=2).items()}
    result = layer.apply(DATA, drawn)
    boxes = {k: np.asarray(v) for k, v in result["bounding_boxes"].items()}
    masks = np.asarray(result["segmentation_masks"])
    hidden = 0
    for row in range(ROWS):
        partner = drawn["partner"][row]
        pasted = np.isin(MASKS[partner], np.nonzero(drawn["chosen"][row])[0])
        assert not pasted[MASKS[partner] == 0].any()
        expected = np.where(pasted[..., None], IMAGES[partner], IMAGES[row])
        np.testing.assert_array_equal(np.asarray(result["images"])[row], expected)
        pieces = np.where(pasted, MASKS[partner] + 2, MASKS[row])
        np.testing.assert_array_equal(masks[row], pieces)
        whole = [np.sum(MASKS[r] == n) for r, n in ((row, 1), (row, 2), (partner, 1), (partner, 2))]
        given = np.concatenate([BOXES[row], BOXES[partner]])
        for number in range(4):
            y, x = np.nonzero(pieces == number + 1)
            seen = len(y) > 0 and len(y) >= 0.3 * whole[number]
            assert boxes["valid"][row, number] == seen
            if seen and len(y) == whole[number]:
                expected = given[number]
            elif seen:
                expected = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
                hidden += 1
            else:
                expected = np.zeros(4)
            np.testing.assert_allclose(boxes["boxes"][row, number], expected)
    assert hidden >= 2
    np.testing.assert_array_equal(np.asarray(result["labels"]), LABELS)


def test_what_is_pasted_is_drawn_for_each_object() -> None:
    layer = CopyPaste(object_p=0.3, p=0.5, seed=1)
    drawn = layer.sample(np.zeros((2000, 8, 8, 3), "uint8"))
    chosen, partner = np.asarray(drawn["chosen"]), np.asarray(drawn["partner"])
    assert chosen.shape == (2000, 256)
    assert not chosen[:, [0, 255]].any()
    applied = chosen.any(axis=1)
    assert abs(applied.mean() - 0.5) < 0.05
    assert abs(chosen[applied][:, 1:255].mean() - 0.3) < 0.02
    assert (np.sort(partner) == np.arange(2000)).all()
    assert (partner != np.arange(2000)).all()


def test_masks_of_classes() -> None:
    layer = CopyPaste(masks="classes", background=(0,), object_p=1.0)
    classes = (MASKS * 100).astype("uint8")[..., None]
    data = {"images": IMAGES, "segmentation_masks": classes}
    drawn = {name: np.asarray(value) for name, value in layer.sample(data, seed=2).items()}
    result = layer.apply(data, drawn)
    other = classes[drawn["partner"]]
    masks = np.asarray(result["segmentation_masks"])
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, np.where(other > 0, other, classes))
    images = np.where(other > 0, IMAGES[drawn["partner"]], IMAGES)
    np.testing.assert_array_equal(np.asarray(result["images"]), images)


def test_extents() -> None:
    count, hull = extents(keras.ops.convert_to_tensor(MASKS), 3)
    counted = [[(mask == n).sum() for n in (1, 2, 3)] for mask in MASKS]
    np.testing.assert_array_equal(np.asarray(count), counted)
    np.testing.assert_allclose(np.asarray(hull)[:, 1], BOXES[:, 1])


# --- places to work in --------------------------------------------------------------------------


def test_in_tf_data() -> None:
    import tensorflow as tf

    for layer in (Mosaic(num_classes=3), CopyPaste(), IoUCrop(12, trials=4)):
        data = tf.data.Dataset.from_tensor_slices(DATA).batch(ROWS)
        mapped = next(iter(data.map(lambda x: layer(x, seed=5))))  # noqa: B023
        eager = layer(DATA, seed=5)
        assert set(mapped) == set(DATA)
        for name in ("images", "labels", "segmentation_masks"):
            found, expected = mapped[name].numpy(), np.asarray(eager[name])
            assert found.dtype.kind == expected.dtype.kind
            assert (np.abs(found.astype(float) - expected) > 1).mean() < 0.01
        found, expected = (np.asarray(x["bounding_boxes"]["boxes"]) for x in (mapped, eager))
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_mosaic_in_a_composition() -> None:
    whole = zoo.create_augmentation(
        "compose", layers=[zoo.create_augmentation("random_invert", p=1.0), Mosaic(num_classes=3)]
    )
    images, labels = whole(np.zeros((4, 8, 8, 3), "uint8"), np.arange(4) % 3)
    assert (np.asarray(images) == 255).all()
    np.testing.assert_allclose(np.asarray(labels).sum(axis=1), 1.0, atol=1e-6)


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("iou_crop", {"size": 0}, "`size` must be a positive int"),
    ("iou_crop", {"size": 8, "scale": (0.5, 2.0)}, "`scale` must be two numbers"),
    ("iou_crop", {"size": 8, "least_iou": (-0.5,)}, "`least_iou` must be one or more"),
    ("iou_crop", {"size": 8, "trials": 0}, "`trials` must be at least 1"),
    ("mosaic", {"centre": (0.5, 1.5)}, "`centre` must be two numbers"),
    ("copy_paste", {"object_p": 2.0}, r"`object_p` must be in \[0, 1\]"),
    ("copy_paste", {"masks": "polygons"}, "`masks` must be one of 'instances'"),
    ("copy_paste", {"background": (-1,)}, r"`background` must be numbers in \[0, 255\]"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_options_that_break_their_rule(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionValueError, match=message):
        zoo.create_augmentation(name, **options)


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in DATA.items() if name not in names}


def test_data_that_does_not_fit() -> None:
    with pytest.raises(OptionError, match="Mosaic has no option `alpha`"):
        Mosaic(alpha=1.0)
    with pytest.raises(OptionValueError, match="Mosaic mixes labels too"):
        Mosaic()(IMAGES)
    with pytest.raises(OptionValueError, match="Mosaic must know `num_classes`"):
        Mosaic()(IMAGES, LABELS)
    with pytest.raises(OptionValueError, match="mixes the samples of a batch"):
        Mosaic()(IMAGES[0], LABELS[0])
    with pytest.raises(OptionValueError, match="which `keypoints` are hidden"):
        Mosaic(num_classes=3)({**DATA, "keypoints": np.zeros((ROWS, 1, 2), "float32")})
    with pytest.raises(OptionValueError, match="CopyPaste cuts out by masks"):
        CopyPaste()(without("segmentation_masks"))
    with pytest.raises(OptionValueError, match="got masks='instances' and no boxes"):
        CopyPaste()(without("bounding_boxes"))
    with pytest.raises(OptionValueError, match="got masks='classes' and boxes"):
        CopyPaste(masks="classes")(DATA)
    many = {"boxes": np.zeros((ROWS, 130, 4), "float32")}
    narrow = {**DATA, "bounding_boxes": many, "segmentation_masks": MASKS.astype("uint8")}
    with pytest.raises(OptionValueError, match=r"need values up to 260 .* type uint8"):
        CopyPaste()(narrow)
    with pytest.raises(OptionValueError, match="IoUCrop cuts by boxes"):
        IoUCrop(8)(IMAGES)
    with pytest.raises(OptionValueError, match="cannot be part of another layer"):
        IoUCrop(8).steps({}, IMAGES.shape)
