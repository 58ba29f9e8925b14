"""Image operations with given parameters: what torchvision does, value by value."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import zoo
from tests.augment_cases import CASES, POLICY, images
from zoo.augment.image.policies import RandAugment

GOLDEN = np.load(Path(__file__).parent / "golden" / "augment.npz")


EXACT = keras.backend.backend() == "tensorflow"  # JAX divides by a product with the inverse


def inner(image: np.ndarray, margin: int) -> np.ndarray:
    height, width = image.shape[1:3]
    return image[:, margin : height - margin, margin : width - margin]


def check(name: str, result: np.ndarray, *, worst: int, share: float, margin: int = 0) -> None:
    expected = GOLDEN[name]
    if not EXACT:
        worst, share = max(worst, 1), max(share, 0.06)
    assert result.dtype == np.uint8
    assert result.shape == expected.shape
    difference = inner(np.abs(result.astype(int) - expected), margin)
    assert (difference > 0).mean() <= share
    assert difference.max() <= worst


@pytest.mark.parametrize("name", CASES)
def test_equals_torchvision(name: str) -> None:
    case = CASES[name]
    layer = zoo.create_augmentation(case.layer, **case.options)
    parameters = {key: np.array(values) for key, values in case.parameters.items()}
    result = np.asarray(layer.apply(images(), parameters))
    check(name, result, worst=case.worst, share=case.share, margin=case.margin)


@pytest.mark.parametrize("name", CASES)
def test_floating_point_images_agree_with_whole_ones(name: str) -> None:
    case = CASES[name]
    layer = zoo.create_augmentation(case.layer, **case.options)
    parameters = {key: np.array(values) for key, values in case.parameters.items()}
    result = np.asarray(layer.apply(images().astype("float32"), parameters))
    assert result.dtype == np.float32
    difference = inner(np.abs(result - GOLDEN[name]), case.margin)
    assert difference.max() <= 2.01 + case.worst  # no rounding in between


@pytest.fixture(scope="module")
def policy() -> RandAugment:
    return RandAugment(num_ops=1)


@pytest.mark.parametrize("name", POLICY)
def test_operation_of_a_policy_equals_torchvision(name: str, policy: RandAugment) -> None:
    amounts = np.array(POLICY[name][1], "float32")
    if name in ("brightness", "color", "contrast", "sharpness"):
        amounts = amounts + 1.0
    if name == "solarize":
        amounts = amounts * 255.0
    operation = np.full((3, 1), policy.operations.index(name), "int32")
    result = np.asarray(
        policy.apply(images(), {"operation": operation, "amount": amounts[:, None]})
    )
    expected = GOLDEN[f"policy {name}"]
    # Sheared by a tenth of a pixel a row, some places lie in the middle of two pixels: there the
    # last bit of float32 decides which of them is the nearer one.
    between = 0.01 if name.startswith("shear") else 0.0
    if not EXACT:
        result = np.where(np.abs(result.astype(int) - expected) <= 1, expected, result)
    assert (result != expected).mean() <= between


def test_operations_follow_each_other(policy: RandAugment) -> None:
    names = ("rotate", "equalize")
    pair = RandAugment(num_ops=2)
    amounts = np.array([[10.0, 0.0]] * 3, "float32")
    operation = np.array([[policy.operations.index(name) for name in names]] * 3, "int32")
    both = pair.apply(images(), {"operation": operation, "amount": amounts})
    one = images()
    for place in range(2):
        part = slice(place, place + 1)
        numbers = {"operation": operation[:, part], "amount": amounts[:, part]}
        one = np.asarray(policy.apply(one, numbers))
    np.testing.assert_array_equal(np.asarray(both), one)
