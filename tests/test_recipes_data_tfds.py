"""TFDS data sets, through a builder that generates its own on the spot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from recipes.data import load_image_data, split_data
from zoo.errors import DataError, OptionValueError, SourceError

CLASSES = ("circle", "never", "square")
COUNTS = {"train": 30, "test": 12}


def picture(part: str, index: int) -> np.ndarray[Any, Any]:
    seed = [len(part), index]
    return np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)


Builder: Any = tfds.core.GeneratorBasedBuilder


class ZooShapes(Builder):  # registers itself as zoo_shapes
    """Random pictures of two labels in turn, the last of train unlabelled."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "thumbnail": tfds.features.Image(shape=(2, 2, 1)),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                    "half": tfds.features.ClassLabel(names=("first", "second")),
                    "weight": np.float32,
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://example.org",
        )

    def _split_generators(self, dl_manager: Any) -> Any:
        return {part: self._generate_examples(part) for part in (*COUNTS, "unlabelled")}

    def _generate_examples(self, part: str) -> Iterator[tuple[int, dict[str, Any]]]:
        count = COUNTS.get(part, 5)
        for index in range(count):
            yield (
                index,
                {
                    "image": picture(part, index),
                    "thumbnail": np.full((2, 2, 1), index, np.uint8),
                    "label": -1 if part == "train" and index == count - 1 else 2 * (index % 2),
                    "half": int(index >= count // 2),
                    "weight": 1.0,
                },
            )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("tfds")
    ZooShapes(data_dir=home).download_and_prepare()
    tfds.core.add_data_dir(home)
    yield
    tfds.core.utils.file_utils.clear_registered_data_dirs()


@pytest.mark.usefixtures("prepared")
def test_features_splits_and_classes() -> None:
    data = load_image_data("zoo_shapes")
    assert (data.name, data.task, data.class_names) == (
        "zoo_shapes",
        "classification",
        ("circle", "square"),
    )
    assert (data.size, data.channels, data.license) == ((6, 8), 3, "see https://example.org")
    assert data.source == "tfds:zoo_shapes/1.0.0"
    assert data.split is not None
    assert data.split.tolist() == ["train"] * 29 + ["test"] * 12
    assert isinstance(data.images, np.ndarray)
    # TFDS shuffles by a hash when it prepares; each picture must still be with its own label.
    labels = {
        picture(part, index).tobytes(): index % 2
        for part, count in COUNTS.items()
        for index in range(count)
    }
    found = [labels.pop(image.tobytes()) for image in data.images]
    assert data.targets.tolist() == found
    assert list(labels) == [picture("train", 29).tobytes()]
    split = split_data(data, validation=0.2)
    assert [len(side) for side in (split.train, split.validation, split.test)] == [23, 6, 12]


@pytest.mark.usefixtures("prepared")
def test_reading_is_repeatable_and_limited() -> None:
    whole = load_image_data("tfds:zoo_shapes")
    part = load_image_data("tfds:zoo_shapes:1.0.0", limit=20)
    assert len(part) == 20
    label = {
        np.asarray(image).tobytes(): name
        for image, name in zip(whole.images, whole.targets, strict=True)
    }
    assert [label[np.asarray(image).tobytes()] for image in part.images] == part.targets.tolist()
    again = load_image_data("zoo_shapes")
    assert np.array_equal(np.asarray(whole.images), np.asarray(again.images))
    with pytest.raises(OptionValueError, match="`limit` must be at least 6"):
        load_image_data("zoo_shapes", limit=5)


@pytest.mark.usefixtures("prepared")
def test_features_are_chosen() -> None:
    data = load_image_data("zoo_shapes", image_column="thumbnail", target_columns=["half"])
    assert data.class_names == ("first", "second")
    assert data.channels == 1
    assert isinstance(data.images, np.ndarray)
    assert data.split is not None
    train = data.split == "train"
    assert np.array_equal(data.targets[train], data.images[train, 0, 0, 0] >= 15)


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"image_column": "label"},
            r"a feature of type Image .*; got image_column=label\. .* has image, thumbn",
        ),
        (
            {"target_columns": ["weight"]},
            "got target_columns=weight.* has label, half of that type",
        ),
        ({"target_columns": ["label", "half"]}, "is read for classification by one ClassLabel"),
        ({"memory_limit_bytes": 1000}, r"must fit in memory_limit_bytes=1000; .* even encoded"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_image_data("zoo_shapes", **options)


def test_a_data_set_without_known_splits(monkeypatch: pytest.MonkeyPatch, prepared: None) -> None:
    monkeypatch.setattr("recipes.data.tfds.SPLIT_NAMES", {"dev": "validation"})
    with pytest.raises(DataError, match="tfds:zoo_shapes has train, test, unlabelled"):
        load_image_data("zoo_shapes")


@pytest.mark.usefixtures("prepared")
def test_what_tfds_cannot_prepare_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="TFDS could not prepare 'zoo_shapes/none'"):
        load_image_data("zoo_shapes/none")

    def unreachable(*_: object, **__: object) -> None:
        raise tfds.download.DownloadError("no route to host\nand a long story")

    monkeypatch.setattr(ZooShapes, "download_and_prepare", unreachable)
    with pytest.raises(SourceError, match="could not prepare 'zoo_shapes': no route to host Check"):
        load_image_data("zoo_shapes")
