"""Skewed data and augmentation in the image recipes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import recipes
import zoo
from recipes.data import ImageData, Split
from recipes.data.sampling import resampled
from recipes.image_job import ImageOptions
from recipes.image_report import sampling_blocks
from zoo.errors import OptionValueError, UnknownNameError

RNG = np.random.default_rng(0)
COUNTS = (40, 12, 8)


def skewed(counts: tuple[int, ...] = COUNTS) -> ImageData:
    targets = np.repeat(np.arange(len(counts)), counts)
    pixels = RNG.integers(0, 60, (len(targets), 8, 8, 1)) + 60 * targets[:, None, None, None]
    return ImageData(
        name="skewed",
        images=pixels.astype("uint8"),
        targets=targets.astype("int64"),
        task="classification",
        class_names=("a", "b", "c"),
        size=(8, 8),
        channels=1,
        source="made here",
    )


def split() -> Split:
    return Split(train=skewed(), validation=skewed((9, 3, 2)), test=skewed((8, 4, 3)))


@pytest.mark.parametrize(
    ("method", "rows"), [("over", (40, 40, 40)), ("under", (8, 8, 8)), ("smote", (40, 40, 40))]
)
def test_only_the_training_side_is_sampled(method: str, rows: tuple[int, ...]) -> None:
    if method == "smote":
        pytest.importorskip("imblearn")
    data = split()
    found, about = resampled(data, method, seed=1)
    assert tuple(np.bincount(found.train.targets)) == rows
    assert about is not None
    assert about["before"] == dict(zip("abc", COUNTS, strict=True))
    assert about["after"] == dict(zip("abc", rows, strict=True))
    assert found.validation is data.validation
    assert found.test is data.test
    assert found.train.images.dtype == np.uint8  # type: ignore[union-attr]
    # Classes are told by their brightness: images and classes still belong together.
    bright = np.asarray(found.train.images).reshape(len(found.train), -1).mean(axis=1) // 60
    np.testing.assert_array_equal(bright, found.train.targets)
    if method != "smote":
        known = {image.tobytes() for image in np.asarray(data.train.images)}
        assert {image.tobytes() for image in np.asarray(found.train.images)} <= known
    again, _ = resampled(data, method, seed=1)
    np.testing.assert_array_equal(again.train.images, found.train.images)


def test_files_are_sampled_without_being_read() -> None:
    data = split()
    files = tuple(Path(f"{i}.png") for i in range(len(data.train)))
    data = replace(data, train=replace(data.train, images=files))
    found, _ = resampled(data, "over", seed=0)
    assert len(found.train.images) == 120
    for path, target in zip(found.train.images, found.train.targets, strict=True):
        assert data.train.targets[int(Path(str(path)).stem)] == target
    with pytest.raises(OptionValueError, match="`smote` compares pixels, but"):
        resampled(data, "smote", seed=0)


def test_no_sampling_is_the_split_itself() -> None:
    data = split()
    assert resampled(data, "none", seed=0) == (data, None)
    assert sampling_blocks({"sampling": None}) == []


def test_what_cannot_be_sampled_or_augmented() -> None:
    numbers = replace(skewed(), task="regression")
    with pytest.raises(OptionValueError, match="needs classes; got sampling='over' for regression"):
        resampled(replace(split(), train=numbers), "over", seed=0)
    with pytest.raises(OptionValueError, match="Did you mean smote"):
        ImageOptions(data="digits", model="test_resnet", sampling="smot")
    with pytest.raises(UnknownNameError, match="Did you mean randaugment"):
        ImageOptions(data="digits", model="test_resnet", augment="randaugmen")
    with pytest.raises(OptionValueError, match=r"got 'mixup' \(mixing\)"):
        ImageOptions(data="digits", model="test_resnet", augment="mixup")
    with pytest.raises(OptionValueError, match=r"`strength` must be in \[0, 1\]"):
        ImageOptions(data="d", model="m", augment="randaugment", augment_strength=2.0)


@pytest.mark.tensorflow
def test_a_run_augments_and_samples_and_its_model_is_plain(tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": "digits", "model": "test_resnet", "stem": "small"}
    found = recipes.run(
        "image-classification",
        **options,
        smoke=True,
        quiet=True,
        tune=0,  # its strength is then the usual one
        augment="random_affine",
        sampling="over",
        out=str(tmp_path / "run"),
    )
    metrics = found.metrics
    assert metrics["augmentation"]["policy"] == "random_affine"
    assert metrics["augmentation"]["strength"] == 1.0
    assert "augmentation_strength" in metrics["hyperparameters"]
    after = metrics["sampling"]["after"]
    assert len(set(after.values())) == 1
    assert metrics["data"]["train"] == sum(after.values())
    assert metrics["data"]["test"] < 40  # of 200: as it was
    page = (found.folder / "report.html").read_text()
    assert "after sampling" in page
    assert "augmentation strength" in page
    model = keras.models.load_model(found.folder / "model.keras", compile=False)
    assert not any(type(layer).__module__.startswith("zoo.augment") for layer in model.layers)
    assert zoo.deploy.predictor(found.folder / "model.keras").class_names == tuple("0123456789")
