"""Splits, batches, limits and fingerprints of the image data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from recipes.data import (
    ImageBatches,
    ImageData,
    Split,
    fingerprint,
    load_image_data,
    split_data,
)
from zoo.errors import DataError, OptionValueError

SIDES = ("train", "validation", "test")


def made(
    targets: Any, *, groups: Any = None, split: Any = None, task: Any = "classification"
) -> ImageData:
    """Data whose images hold their own number, so that an example is known wherever it goes."""
    targets = np.asarray(targets, np.int64 if task == "classification" else np.float32)
    numbers = np.arange(len(targets)).astype(np.uint8)
    width = len(np.unique(targets)) if task == "classification" else targets.shape[1]
    return ImageData(
        name="made",
        images=np.broadcast_to(numbers[:, None, None, None], (len(targets), 2, 2, 1)),
        targets=targets,
        task=task,
        class_names=tuple(f"c{index}" for index in range(width)),
        size=(2, 2),
        channels=1,
        groups=None if groups is None else np.asarray(groups, np.int64),
        split=None if split is None else np.asarray(split),
        source="made up",
    )


def numbers(data: ImageData) -> NDArray[np.uint8]:
    assert isinstance(data.images, np.ndarray)
    return data.images[:, 0, 0, 0]


def members(split: Split) -> dict[str, list[int]]:
    return {side: numbers(getattr(split, side)).tolist() for side in SIDES}


# --- splits -------------------------------------------------------------------------------------


def test_every_example_is_on_one_side_and_classes_are_balanced() -> None:
    targets = np.repeat([0, 1, 2], [120, 60, 20])
    split = split_data(made(targets), validation=0.2, test=0.1)
    sides = members(split)
    assert sorted(index for side in sides.values() for index in side) == list(range(200))
    counts = {side: np.bincount(targets[sides[side]]).tolist() for side in SIDES}
    assert counts == {"train": [84, 42, 14], "validation": [24, 12, 4], "test": [12, 6, 2]}
    assert np.array_equal(split.test.targets, targets[sides["test"]])


def test_rounding_is_evened_out_over_classes() -> None:
    # 40 classes of 5: 0.75 of each are due; 1 is the least, so nothing may come on top of it.
    split = split_data(made(np.repeat(np.arange(40), 5)))
    assert {side: len(getattr(split, side)) for side in SIDES} == {
        "train": 120,
        "validation": 40,
        "test": 40,
    }
    # 20 classes of 9: 1.35 due of each, 27 in all; rounding each by itself would take 20.
    assert len(split_data(made(np.repeat(np.arange(20), 9))).validation) == 27


def test_a_class_of_three_is_on_every_side() -> None:
    targets = np.repeat([0, 1], [200, 3])
    for seed in range(5):
        sides = members(split_data(made(targets), seed=seed))
        assert all((targets[indices] == 1).sum() == 1 for indices in sides.values())


def test_groups_stay_whole_and_classes_balanced() -> None:
    rng = np.random.default_rng(0)
    groups = np.sort(rng.integers(0, 60, 240))
    targets = groups % 3
    split = split_data(made(targets, groups=groups), seed=3)
    of = {side: set(getattr(split, side).groups.tolist()) for side in SIDES}
    assert not of["train"] & of["validation"]
    assert not of["train"] & of["test"]
    assert not of["validation"] & of["test"]
    for number, total in enumerate(np.bincount(targets)):
        for side in ("validation", "test"):
            part = (getattr(split, side).targets == number).sum() / total
            assert 0.08 < part < 0.2


def test_a_group_larger_than_a_side_stays_in_train() -> None:
    groups = [0] * 80 + list(range(1, 21))
    split = split_data(made(np.arange(100) // 50, groups=groups))
    assert set(range(80)) <= set(members(split)["train"])


def test_a_class_of_one_group_stays_in_train() -> None:
    groups = [*range(30), *[99] * 10]
    split = split_data(made(np.repeat([0, 1], [30, 10]), groups=groups))
    assert set(range(30, 40)) <= set(members(split)["train"])


def test_split_depends_on_the_seed_only() -> None:
    data = made(np.arange(100) % 4)
    first, again, other = (members(split_data(data, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert [len(side) for side in first.values()] == [len(side) for side in other.values()]


def test_given_sides_are_kept_and_missing_ones_come_from_train() -> None:
    given = np.array(["train"] * 40 + ["test"] * 20)
    split = split_data(made(np.arange(60) % 2, split=given), validation=0.25)
    sides = members(split)
    assert sides["test"] == list(range(40, 60))
    assert len(sides["validation"]) == 10
    assert sorted(sides["train"] + sides["validation"]) == list(range(40))
    assert split.train.split is None
    whole = np.array(["train", "validation", "test"] * 20)
    for side, indices in members(split_data(made(np.arange(60) % 2, split=whole))).items():
        assert indices == np.flatnonzero(whole == side).tolist()


def test_other_tasks_are_divided_at_random() -> None:
    values = np.arange(200, dtype=np.float32).reshape(100, 2)
    split = split_data(made(values, task="regression"))
    assert [len(getattr(split, side)) for side in SIDES] == [70, 15, 15]
    assert np.array_equal(split.test.targets, values[numbers(split.test)])


@pytest.mark.parametrize(("validation", "test"), [(0.0, 0.1), (0.5, 0.5), (0.1, -0.1)])
def test_fractions_are_checked(validation: float, test: float) -> None:
    with pytest.raises(OptionValueError, match="must be positive and sum to less than 1"):
        split_data(made([0, 1] * 5), validation=validation, test=test)


def test_impossible_splits() -> None:
    with pytest.raises(DataError, match="divides 2 groups"):
        split_data(made([0, 1] * 2, groups=[0, 1] * 2, split=["train"] * 2 + ["test"] * 2))
    with pytest.raises(DataError, match="train, validation of made up would have none"):
        split_data(made([0, 1] * 2, split=["test"] * 4))
    with pytest.raises(DataError, match="validation, test of made up would have none: 9 examples"):
        split_data(made([0, 1, 1] * 3, groups=[0] * 9))


# --- batches ------------------------------------------------------------------------------------


def passes(batches: ImageBatches, count: int) -> list[list[int]]:
    order = []
    for _ in range(count):
        order.append([int(x) for i in range(len(batches)) for x in batches[i][0][:, 0, 0, 0]])
        batches.on_epoch_end()
    return order


def test_batches_hold_images_and_their_targets() -> None:
    data = made(np.arange(10) % 3)
    batches = ImageBatches(data, 4, shuffle=True, seed=5)
    assert len(batches) == 3
    assert [len(batches[index][0]) for index in range(3)] == [4, 4, 2]
    for images, targets in (batches[index] for index in range(3)):
        assert images.shape[1:] == (2, 2, 1)
        assert images.dtype == np.float32
        assert targets.dtype == np.int32
        assert np.array_equal(targets, images[:, 0, 0, 0] % 3)
    assert ImageBatches(data, 4, shuffle=False, dtype="uint8")[0][0].dtype == np.uint8
    values = made([[0.5], [1.5], [2.5]], task="regression")
    assert ImageBatches(values, 3, shuffle=False)[0][1].tolist() == values.targets.tolist()


def test_order_depends_on_seed_and_epoch_so_that_runs_resume() -> None:
    data = made(np.arange(50) % 2)
    whole = passes(ImageBatches(data, 8, shuffle=True, seed=1), 4)
    assert all(sorted(order) == list(range(50)) for order in whole)
    assert len({tuple(order) for order in whole}) == 4
    assert passes(ImageBatches(data, 8, shuffle=True, seed=1, start_epoch=2), 2) == whole[2:]
    assert passes(ImageBatches(data, 8, shuffle=True, seed=2), 1)[0] != whole[0]
    assert passes(ImageBatches(data, 8, shuffle=False, seed=1), 2) == [list(range(50))] * 2


class Recorder(keras.layers.Layer):
    """Keeps what `fit` passes through it, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def call(self, images: Any) -> Any:
        if not isinstance(images, keras.KerasTensor):
            self.seen += [int(value) for value in np.asarray(images)[:, 0, 0, 0]]
        return keras.ops.mean(images, axis=(1, 2))


@pytest.mark.parametrize("built", [False, True])
def test_a_resumed_fit_sees_what_an_uninterrupted_one_sees(*, built: bool) -> None:
    data = made(np.linspace(0, 1, 20)[:, None], task="regression")

    def fitted(start_epoch: int, epochs: int) -> list[int]:
        recorder = Recorder()
        model = keras.Sequential([recorder, keras.layers.Dense(1)])
        model.compile(optimizer="sgd", loss="mse", run_eagerly=True)
        if built:
            model.build((None, 2, 2, 1))
        batches = ImageBatches(data, 6, shuffle=True, seed=7, start_epoch=start_epoch)
        model.fit(batches, initial_epoch=start_epoch, epochs=epochs, shuffle=False, verbose=0)
        return recorder.seen

    whole = fitted(0, 4)
    assert len(whole) == 80
    expected = passes(ImageBatches(data, 6, shuffle=True, seed=7), 5)[1:]
    assert whole == [number for order in expected for number in order]
    assert fitted(2, 4) == whole[40:]


def test_batch_options_are_checked() -> None:
    with pytest.raises(OptionValueError, match="`batch_size` must be at least 1"):
        ImageBatches(made([0, 1]), 0, shuffle=False)
    with pytest.raises(OptionValueError, match="`dtype` must be float32 or uint8"):
        ImageBatches(made([0, 1]), 1, shuffle=False, dtype="int8")  # type: ignore[arg-type]


# --- files that do not fit in memory ------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(6):
            image = rng.integers(0, 256, (9, 8 + index, 3), np.uint8)
            Image.fromarray(image).save(tmp_path / "pets" / name / f"{index}.png")
    return tmp_path / "pets"


def test_files_give_the_batches_that_memory_gives(folder: Path) -> None:
    memory = load_image_data(folder, size=(5, 6))
    files = load_image_data(folder, size=(5, 6), memory_limit_bytes=12 * 5 * 6 * 3 - 1)
    assert isinstance(memory.images, np.ndarray)
    assert isinstance(files.images, tuple)
    assert (files.size, files.channels) == (memory.size, memory.channels) == ((5, 6), 3)
    sides = [split_data(data).train for data in (memory, files)]
    first, second = (ImageBatches(side, 3, shuffle=True, seed=2) for side in sides)
    assert len(first) == len(second) == 3
    for index in range(3):
        for ours, theirs in zip(first[index], second[index], strict=True):
            assert np.array_equal(ours, theirs)


def test_corrupt_files_that_are_not_in_memory(folder: Path) -> None:
    limits: dict[str, Any] = {"size": 4, "channels": 3, "memory_limit_bytes": 0}
    broken = folder / "cat" / "0.png"
    raw = broken.read_bytes()
    broken.write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"1 of 12 images cannot be decoded: .*0\.png .*not an imag"
    ):
        load_image_data(folder, **limits)
    broken.write_bytes(raw[:-30])
    with pytest.raises(DataError, match=r"1 of 12 images cannot be decoded: .*truncated"):
        load_image_data(folder, **limits)
    broken.write_bytes(raw)
    batches = ImageBatches(load_image_data(folder, **limits), 2, shuffle=False)
    broken.write_bytes(raw[:-30])
    with pytest.raises(DataError, match=r"1 of 2 images cannot be decoded: .*truncated"):
        batches[0]


def test_fingerprint_follows_the_content(folder: Path) -> None:
    data = load_image_data(folder, size=4)
    mark = fingerprint(data)
    assert len(mark) == 16
    assert mark == fingerprint(load_image_data(folder, size=4))
    assert mark != fingerprint(load_image_data(folder, size=5))
    assert mark != fingerprint(replace(data, targets=1 - data.targets))
    assert mark != fingerprint(replace(data, groups=np.arange(12)))
    files = load_image_data(folder, size=4, memory_limit_bytes=0)
    before = fingerprint(files)
    (folder / "cat" / "0.png").rename(folder / "cat" / "00.png")
    renamed = load_image_data(folder, size=4, memory_limit_bytes=0)
    assert fingerprint(renamed) == before
    (folder / "cat" / "00.png").write_bytes((folder / "dog" / "0.png").read_bytes())
    assert fingerprint(renamed) != before
    assert fingerprint(load_image_data(folder, size=4)) != mark


# --- limits -------------------------------------------------------------------------------------


def test_limit_keeps_classes_and_sides_in_proportion(folder: Path) -> None:
    data = load_image_data("digits", limit=300)
    whole = load_image_data("digits")
    expected = np.bincount(whole.targets) * 300 / 1797
    assert len(data) == 300
    assert np.abs(np.bincount(data.targets) - expected).max() <= 1
    assert fingerprint(data) == fingerprint(load_image_data("digits", limit=300))
    assert np.bincount(load_image_data("digits", limit=30).targets).tolist() == [3] * 10
    assert len(load_image_data("digits", limit=10**6)) == 1797


def test_limit_keeps_given_sides(tmp_path: Path) -> None:
    for side, count in {"train": 20, "test": 10}.items():
        for name in ("cat", "dog"):
            (tmp_path / side / name).mkdir(parents=True)
            for index in range(count):
                image = np.full((2, 2), index, np.uint8)
                Image.fromarray(image).save(tmp_path / side / name / f"{index}.png")
    data = load_image_data(tmp_path, limit=30)
    assert data.split is not None
    assert np.unique([data.split, data.targets.astype(str)], axis=1, return_counts=True)[
        1
    ].tolist() == [5, 5, 10, 10]
    assert len(load_image_data(tmp_path, limit=6)) == 6
    with pytest.raises(OptionValueError, match=r"`limit` must be at least 6 .* got limit=5"):
        load_image_data(tmp_path, limit=5)
