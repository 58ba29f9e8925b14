"""MixUp and CutMix with given shares and rectangles: what timm does, value by value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from tests.mixing_cases import CLASSES, LABELS, SHARES, SMOOTHING, images
from zoo.errors import OptionValueError

GOLDEN = np.load(Path(__file__).parent / "golden" / "mixing.npz")
PARTNER = np.arange(len(LABELS), dtype="int32")[::-1].copy()


def rectangles() -> dict[str, Any]:
    """timm's, and an empty one for the sample that keeps all of itself."""
    top, bottom, left, right = np.zeros((4, len(SHARES)), "float32")
    drawn = GOLDEN["cutmix rectangles"].T
    for row, values in zip((top, bottom, left, right), drawn, strict=True):
        row[SHARES < 1] = values
    return {"top": top, "left": left, "height": bottom - top, "width": right - left}


def applied(name: str, batch: Any, parameters: dict[str, Any]) -> tuple[Any, Any]:
    layer = zoo.create_augmentation(name, num_classes=CLASSES, label_smoothing=SMOOTHING)
    found = layer.apply(batch, {"partner": PARTNER, **parameters}, LABELS)
    return np.asarray(found[0]), np.asarray(found[1])


def test_mixup_equals_timm() -> None:
    mixed, labels = applied("mixup", images(), {"share": SHARES})
    np.testing.assert_allclose(mixed, GOLDEN["mixup images"], atol=1e-4)
    np.testing.assert_allclose(labels, GOLDEN["mixup labels"], atol=1e-6)


def test_cutmix_equals_timm() -> None:
    mixed, labels = applied("cutmix", images(), rectangles())
    np.testing.assert_allclose(mixed, GOLDEN["cutmix images"], atol=1e-4)
    np.testing.assert_allclose(labels, GOLDEN["cutmix labels"], atol=1e-6)
    assert (np.abs(mixed - images()).max(axis=(1, 2, 3)) > 1).tolist() == [
        True, True, False, False, True,
    ]  # fmt: skip


def test_both_in_one_equal_timm() -> None:
    nothing = {
        name: np.zeros(len(SHARES), "float32") for name in ("top", "left", "height", "width")
    }
    mixed, labels = applied("mixup_or_cutmix", images(), {"share": SHARES, **nothing})
    np.testing.assert_allclose(mixed, GOLDEN["mixup images"], atol=1e-4)
    np.testing.assert_allclose(labels, GOLDEN["mixup labels"], atol=1e-6)
    kept = {"share": np.ones(len(SHARES), "float32"), **rectangles()}
    mixed, labels = applied("mixup_or_cutmix", images(), kept)
    np.testing.assert_allclose(mixed, GOLDEN["cutmix images"], atol=1e-4)
    np.testing.assert_allclose(labels, GOLDEN["cutmix labels"], atol=1e-6)


def test_whole_numbers_are_rounded_to_the_nearest() -> None:
    batch = np.rint(images()).astype("uint8")
    mixed, _ = applied("mixup", batch, {"share": SHARES})
    keep = SHARES[:, None, None, None].astype("float64")
    exact = batch * keep + batch[PARTNER] * (1 - keep)
    assert mixed.dtype == np.uint8
    assert np.abs(mixed - exact).max() <= 0.5 + 1e-4


@pytest.mark.tensorflow
def test_errors_in_tf_data_are_ours() -> None:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((images(), LABELS)).batch(2)
    mixup = zoo.create_augmentation("mixup")
    with pytest.raises(OptionValueError, match="MixUp must know `num_classes`"):
        data.map(mixup)
    with pytest.raises(OptionValueError, match="MixUp must know `num_classes`"):
        data.map(lambda x, y: mixup(x, y))  # which autograph converts
