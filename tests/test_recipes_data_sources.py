"""Image data by name: packaged sets, options, and names that lead nowhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import recipes.data
from recipes.data import ImageData, list_packaged, load_image_data, split_data
from recipes.data.emoji import group_key
from zoo.errors import DataError, OptionError, OptionValueError, SourceError, UnknownNameError

SIDES = ("train", "validation", "test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (4, 4), (index, 0, 0)).save(tmp_path / "pets" / name / f"{index}.png")
    return tmp_path / "pets"


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    data = load_image_data("digits")
    assert (data.size, data.channels, data.class_names[3]) == ((8, 8), 1, "3")
    assert isinstance(data.images, np.ndarray)
    assert np.abs(data.images.reshape(1797, 64) / 255 - images / 16).max() <= 0.5 / 255
    assert np.array_equal(data.targets, targets)
    larger = load_image_data("digits", size=16, channels=3)
    assert np.asarray(larger.images).shape == (1797, 16, 16, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 4}, "`channels` must be 1"),
        ({"limit": 0}, "`limit` must be at least 1"),
        ({"limit": 29}, "`limit` must be at least 30"),
        ({"size": 0}, "`size` must be a positive number"),
        ({"size": (1, 2, 3)}, "`size` must be a positive number or a pair"),
        ({"task": "regression"}, "`task` must be classification for scikit-learn"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionValueError, match=message):
        load_image_data("digits", **options)


def test_columns_need_a_table(folder: Path) -> None:
    for spec in ("digits", folder):
        with pytest.raises(OptionError, match=r"apply to \.csv and \.tsv files and TFDS"):
            load_image_data(spec, target_columns=["label"])


def test_packaged_data_must_fit_in_memory() -> None:
    with pytest.raises(DataError, match=r"must fit in memory_limit_bytes=1000; .*limit=N"):
        load_image_data("digits", memory_limit_bytes=1000)


def test_nothing_of_that_name(tmp_path: Path) -> None:
    for missing in (tmp_path / "nowhere", Path("data/flowers"), Path("labels.csv")):
        with pytest.raises(SourceError, match="none is there"):
            load_image_data(missing)
    with pytest.raises(UnknownNameError, match=r"`digts` is neither .*mnist5k.*mean digits"):
        load_image_data("digts")
    with pytest.raises(UnknownNameError, match=r"mean .*cifar10"):
        load_image_data("tfds:cifar1")
    notes = tmp_path / "notes.txt"
    notes.write_text("")
    with pytest.raises(DataError, match=r"a \.csv or a \.tsv file; .*notes\.txt"):
        load_image_data(notes)


def test_import_is_light_and_names_are_public() -> None:
    code = (
        "import sys, recipes.data; "
        "heavy = {'keras', 'tensorflow', 'tensorflow_datasets', 'pandas', 'sklearn'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert output.stdout.strip() == "[]"
    assert all(hasattr(recipes.data, name) for name in recipes.data.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        recipes.data.nothing  # noqa: B018


# --- packaged in archives -----------------------------------------------------------------------


def fetched(name: str, **options: Any) -> ImageData:
    try:
        return load_image_data(name, **options)
    except SourceError as error:
        pytest.skip(f"{name} cannot be had: {error}")


def test_emoji_groups_fold_variants() -> None:
    same = [
        ("1F3C3", "1F3C3-1F3FD-200D-2640-FE0F-200D-27A1-FE0F"),  # runner
        ("1F9D1-200D-1F680", "1F469-1F3FF-200D-1F680"),  # astronaut
        ("1F468-200D-1F9B0", "1F469"),  # man with red hair, woman
        ("1F48F", "1F469-200D-2764-FE0F-200D-1F48B-200D-1F468"),  # kiss
        ("1F46A", "1F468-200D-1F469-200D-1F467-200D-1F466"),  # family
        ("1F478", "1F934"),  # princess, prince
    ]
    for one, other in same:
        assert group_key(one) == group_key(other)
    different = ["1F9D1", "1F9D2", "1F9D1-200D-1F680", "1F9D1-200D-1F373", "2640-FE0F", "2642-FE0F"]
    assert len({group_key(code) for code in different}) == len(different)


@pytest.mark.network
def test_mnist5k() -> None:
    data = fetched("mnist5k")
    assert isinstance(data.images, np.ndarray)
    assert data.images.shape == (5000, 28, 28, 1)
    assert np.bincount(data.targets).tolist() == [500] * 10
    # Ink lies in the middle, and a one needs the least of it.
    ink = np.array([data.images[data.targets == digit].mean() for digit in range(10)])
    assert ink.argmin() == 1
    assert data.images[:, 10:18, 10:18].mean() > 5 * data.images[:, :4].mean()


@pytest.mark.network
@pytest.mark.slow
def test_emoji() -> None:
    data = fetched("emoji")
    assert isinstance(data.images, np.ndarray)
    assert data.images.shape == (3781, 64, 64, 3)
    assert len(data.class_names) == 9
    assert "Component" not in data.class_names
    base = fetched("emoji-base", size=32)
    assert len(base) == 1906
    split = split_data(data)
    sides = [getattr(split, side) for side in SIDES]
    assert len(set.union(*(set(side.groups.tolist()) for side in sides))) == sum(
        len(np.unique(side.groups)) for side in sides
    )
    pictures = [{image.tobytes() for image in side.images} for side in sides]
    assert not pictures[0] & pictures[1]
    assert not pictures[0] & pictures[2]
    assert not pictures[1] & pictures[2]
    assert all(len(np.unique(side.targets)) == 9 for side in sides)


def test_packaged_names() -> None:
    assert list_packaged() == ["digits", "emoji", "emoji-base", "mnist5k"]
