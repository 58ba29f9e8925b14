"""Image data from folders, tables and packages, against Pillow and numpy."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from recipes.data import load_image_data
from recipes.data.decoding import decode, decode_images
from zoo.errors import DataError, SourceError

CLASSES = ("cat", "dog")


def pixels(seed: int, height: int = 12, width: int = 16, channels: int = 3) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return values.squeeze(-1) if channels == 1 else values


def save(path: Path, seed: int, **shape: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, **shape)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(CLASSES):
        for index in range(4):
            save(tmp_path / "pets" / name / f"{index}.png", 10 * number + index)
    return tmp_path / "pets"


def table(tmp_path: Path, header: str, *cells: str, suffix: str = ".csv") -> Path:
    """Writes a table whose first column is an image of its own in every row."""
    lines = [header]
    separator = "\t" if suffix == ".tsv" else ","
    for row, cell in enumerate(cells):
        save(tmp_path / "images" / f"{row}.png", row)
        lines.append(f"images/{row}.png{separator}{cell}")
    path = tmp_path / f"table{suffix}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# --- decoding -----------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_native_size_keeps_the_pixels() -> None:
    values = pixels(0)
    assert np.array_equal(decode(encoded(Image.fromarray(values)), (12, 16), 3), values)


def test_resize_keeps_the_aspect_ratio_and_crops_the_centre() -> None:
    # 20x40, a horizontal ramp: at 10x10 the middle 20 columns remain, two by two averaged.
    ramp = np.tile(np.arange(40, dtype=np.uint8) * 6, (20, 1))
    small = decode(encoded(Image.fromarray(ramp)), (10, 10), 1)[..., 0]
    expected = (np.arange(10) * 2 + 10 + 0.5) * 6
    assert np.abs(small[:, 1:-1] - expected[1:-1]).max() <= 1


def test_resize_is_antialiased() -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = decode(encoded(Image.fromarray(board)), (8, 8), 1)
    assert np.abs(small.astype(int) - 127).max() <= 2


def test_transparency_is_laid_on_white() -> None:
    rgba = np.dstack([pixels(1), pixels(2, channels=1)])
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    decoded = decode(encoded(Image.fromarray(rgba, "RGBA")), (12, 16), 3)
    assert np.abs(decoded - expected).max() <= 1


def test_grey_and_palette_transparency() -> None:
    opaque = np.array([[0, 255], [255, 0]], np.uint8)
    expected = np.array([[255, 0], [0, 255]])
    grey = encoded(Image.fromarray(np.dstack([np.zeros((2, 2), np.uint8), opaque]), "LA"))
    assert np.array_equal(decode(grey, (2, 2), 1)[..., 0], expected)
    palette = Image.fromarray(opaque // 255, "P")
    palette.putpalette([9, 9, 9, 0, 0, 0])
    assert np.array_equal(decode(encoded(palette, transparency=0), (2, 2), 1)[..., 0], expected)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = np.array([[0, 257, 25700, 65535]], np.uint16)
    assert decode(encoded(Image.fromarray(deep)), (1, 4), 1).ravel().tolist() == [0, 1, 100, 255]


def test_cmyk_and_orientation() -> None:
    cmyk = Image.fromarray(pixels(3)).convert("CMYK")
    whole = encoded(cmyk, "TIFF")
    assert np.array_equal(decode(whole, (12, 16), 3), np.asarray(cmyk.convert("RGB")))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    turned = decode(encoded(Image.fromarray(pixels(4)), exif=exif), (16, 12), 3)
    assert np.array_equal(turned, np.rot90(pixels(4), -1))


def test_large_jpeg_looks_like_a_full_decode() -> None:
    smooth = Image.fromarray(pixels(5, 6, 8)).resize((1600, 1200), Image.Resampling.BICUBIC)
    raw = encoded(smooth, "JPEG", quality=95)
    full = ImageOps.fit(Image.open(io.BytesIO(raw)), (64, 64), Image.Resampling.BILINEAR)
    assert np.abs(decode(raw, (64, 64), 3).astype(int) - np.asarray(full)).max() <= 3


def test_progress_bar_is_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    images = [np.zeros((2, 2), np.uint8)] * 501
    decode_images(images, (2, 2), 1)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    decode_images(images, (2, 2), 1)
    output = capfd.readouterr()
    assert output.out == ""
    assert "Decoding images" in output.err
    decode_images(images[:500], (2, 2), 1)
    assert capfd.readouterr().err == ""


# --- folders ------------------------------------------------------------------------------------


def test_folder_of_classes(folder: Path) -> None:
    save(folder / "dog" / ".hidden.png", 0)
    (folder / "dog" / "notes.txt").write_text("not an image")
    save(folder / ".cache" / "x.png", 0)
    data = load_image_data(folder)
    assert (data.name, data.class_names, data.task) == ("pets", CLASSES, "classification")
    assert (data.size, data.channels, data.split, data.groups) == ((12, 16), 3, None, None)
    assert data.targets.dtype == np.int64
    assert data.targets.tolist() == [0] * 4 + [1] * 4
    assert isinstance(data.images, np.ndarray)
    assert np.array_equal(data.images, [pixels(seed) for seed in (0, 1, 2, 3, 10, 11, 12, 13)])


@pytest.mark.parametrize("kind", ["jpg", "JPEG", "bmp", "gif", "webp"])
def test_folder_takes_every_kind(folder: Path, kind: str) -> None:
    save(folder / "dog" / f"other.{kind}", 7)
    assert len(load_image_data(folder)) == 9


def test_folder_with_given_sides(tmp_path: Path) -> None:
    for side, count in {"Train": 3, "val": 1, "test": 2}.items():
        for name in CLASSES:
            for index in range(count):
                save(tmp_path / side / name / f"{index}.png", index)
    data = load_image_data(tmp_path)
    assert data.split is not None
    assert dict(zip(*np.unique(data.split, return_counts=True), strict=True)) == {
        "train": 6,
        "validation": 2,
        "test": 4,
    }
    assert data.class_names == CLASSES


def test_channels_are_one_only_where_all_images_are_grey(tmp_path: Path) -> None:
    for name in CLASSES:
        for index in range(3):
            save(tmp_path / name / f"{index}.png", index, channels=1)
    palette = Image.fromarray(pixels(0, channels=1)).convert("P")
    palette.save(tmp_path / "cat" / "palette.png")
    assert load_image_data(tmp_path).channels == 1
    assert load_image_data(tmp_path, channels=3).channels == 3
    palette.putpalette([255, 0, 0])
    palette.save(tmp_path / "cat" / "palette.png")
    assert load_image_data(tmp_path).channels == 3


def test_size_none_counts_turned_images_upright(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(pixels(0, 16, 12)).save(folder / "cat" / "turned.jpg", exif=exif)
    assert load_image_data(folder).size == (12, 16)


def corrupt(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


def two_corrupt(folder: Path) -> None:
    corrupt(folder / "cat" / "1.png")
    (folder / "dog" / "0.png").write_bytes(b"no image")


def one_class(folder: Path) -> None:
    for image in (folder / "dog").iterdir():
        image.unlink()
    (folder / "dog").rmdir()


def small_class(folder: Path) -> None:
    save(folder / "fox" / "0.png", 0)
    (folder / "gnu").mkdir()


def other_size(folder: Path) -> None:
    save(folder / "cat" / "large.png", 0, height=20)


def twice_validation(folder: Path) -> None:
    (folder / "cat").rename(folder / "train")
    (folder / "dog").rename(folder / "val")
    (folder / "validation").mkdir()


def class_in_test_only(folder: Path) -> None:
    for side in ("train", "test"):
        for name in CLASSES:
            for index in range(2):
                save(folder / side / name / f"{index}.png", index)
    save(folder / "test" / "fox" / "0.png", 0)
    for name in CLASSES:
        (folder / name).rename(folder / f".{name}")


def no_class_folders(folder: Path) -> None:
    for name in CLASSES:
        for index, image in enumerate((folder / name).iterdir()):
            image.rename(folder / f"{name}{index}.png")
        (folder / name).rmdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (two_corrupt, r"2 of 8 images cannot be decoded: .*cat/1\.png, .*dog/0\.png .*Remove"),
        (one_class, "Targets must differ; all 4 .* the one class 'cat'"),
        (small_class, r"'fox' has 1, 'gnu' has 0 \(2 of 4 classes"),
        (other_size, r"`size` must be given .* 2 sizes .*12x16 \(8\), 20x16 \(1\)"),
        (lambda folder: save(folder / "cat" / "kitten" / "0.png", 0), "holds the folder 'kitten'"),
        (no_class_folders, "one folder per class; .* holds 8 images and no folders"),
        (twice_validation, "must be one folder; .* holds train, val, validation"),
        (class_in_test_only, "needs an example for each of train, validation; 'fox' has 0"),
    ],
)
def test_bad_folder(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(DataError, match=message) as caught:
        load_image_data(folder)
    assert "\n" not in str(caught.value)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 0 images and no folders"):
        load_image_data(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="at least one image"):
        load_image_data(tmp_path)


def deny(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, part: str) -> None:
    """Makes a function refuse paths with `part` in them, as the system does for other users."""
    real = getattr(owner, name)

    def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
        if part in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(owner, name, refuse)


def test_no_permission(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv = table(tmp_path, "file,label", "a", "a", "a", "b", "b", "b")
    with monkeypatch.context() as patch:
        deny(patch, Image, "open", "cat/1")
        with pytest.raises(SourceError, match=r"No permission to read 1 of 8 images: .*cat/1\.png"):
            load_image_data(folder)
    with monkeypatch.context() as patch:
        deny(patch, Path, "iterdir", "dog")
        with pytest.raises(SourceError, match=r"No permission to read .*dog\."):
            load_image_data(folder)
    with monkeypatch.context() as patch:
        deny(patch, Path, "is_dir", "pets")
        with pytest.raises(SourceError, match=r"No permission to read .*pets\."):
            load_image_data(folder)
    with monkeypatch.context() as patch:
        deny(patch, __import__("pandas"), "read_csv", "table")
        with pytest.raises(SourceError, match=r"No permission to read .*table\.csv\."):
            load_image_data(csv)


# --- tables -------------------------------------------------------------------------------------


def test_table_of_classes(tmp_path: Path) -> None:
    data = load_image_data(table(tmp_path, "file,label", "b", "None", "b", "None", "None", "b"))
    assert (data.name, data.task, data.class_names) == ("table", "classification", ("None", "b"))
    assert data.targets.tolist() == [1, 0, 1, 0, 0, 1]
    assert isinstance(data.images, np.ndarray)
    assert np.array_equal(data.images[3], pixels(3))


def test_whole_numbers_are_classes_in_numeric_order(tmp_path: Path) -> None:
    cells = ["10", "9", "10", "9", "10", "9"]
    path = table(tmp_path, "file\tage", *cells, suffix=".tsv")
    assert load_image_data(path).class_names == ("9", "10")
    ages = load_image_data(path, task="regression")
    assert (ages.task, ages.class_names) == ("regression", ("age",))
    assert ages.targets.dtype == np.float32
    assert ages.targets.ravel().tolist() == [float(cell) for cell in cells]


def test_labels_separated_by_a_bar(tmp_path: Path) -> None:
    data = load_image_data(table(tmp_path, "file,tags", "sea | sun", "sun", "hill|sea"))
    assert (data.task, data.class_names) == ("multi-label", ("hill", "sea", "sun"))
    assert data.targets.tolist() == [[0, 1, 1], [0, 0, 1], [1, 1, 0]]
    assert data.targets.dtype == np.float32


def test_label_columns_regression_columns_and_task(tmp_path: Path) -> None:
    flags = load_image_data(table(tmp_path, "file,sea,sun", "1,0", "0,1", "1,1"))
    assert (flags.task, flags.class_names) == ("multi-label", ("sea", "sun"))
    assert flags.targets.tolist() == [[1, 0], [0, 1], [1, 1]]
    points = load_image_data(table(tmp_path, "file,x,y", "1,0", "0,2", "1,1"))
    assert (points.task, points.targets.tolist()) == ("regression", [[1, 0], [0, 2], [1, 1]])
    values = load_image_data(table(tmp_path, "file,x", "1.5", "-2", "0"))
    assert (values.task, values.targets.tolist()) == ("regression", [[1.5], [-2], [0]])
    single = table(tmp_path, "file,tag", "a", "b", "b")
    assert load_image_data(single, task="multi-label").targets.tolist() == [[1, 0], [0, 1], [0, 1]]


def test_columns_are_chosen_and_split_is_read(tmp_path: Path) -> None:
    cells = ["n,1,train", "n,2,train", "m,3,train", "m,4,train", "n,5,val", "m,6,val"]
    path = table(tmp_path, "file,label,price,split", *cells)
    data = load_image_data(path, image_column="file", target_columns="label")
    assert data.class_names == ("m", "n")
    assert data.split is not None
    assert data.split.tolist() == ["train"] * 4 + ["validation"] * 2
    as_target = load_image_data(path, target_columns=["split"], task="multi-label")
    assert (as_target.class_names, as_target.split) == (("train", "val"), None)


@pytest.mark.parametrize(
    ("header", "cells", "options", "message"),
    [
        ("file,label", [], {}, "has no rows below its header"),
        ("file,label", ["a", "b,c"], {}, "must be a table with a header line"),
        ("file,label", ["a,b", "b,c"], {}, "must have as many cells as its header"),
        ("file,label", ["a", "", "b"], {}, r"value in 'label'; 1 of 3 rows .*\(rows 2,"),
        ("file,x", ["1.5", "nan", "2"], {}, r"value in 'x'; 1 of 3 rows"),
        ("file,x", ["1.5", "inf", "2"], {}, r"must be finite; .* 1 of 3 .*\(examples 1\)"),
        ("file,x", ["1.5", "1e300", "2"], {}, "must be finite"),
        ("file,x", ["1.5", "1.5", "1.5"], {}, r"have the same target \[1.5\]"),
        ("file,x", ["1.5", "2"], {}, "an example for each of train, validation, test; .* holds 2"),
        ("file,label", ["a"], {"target_columns": ["lable"]}, "no column 'lable'; .*mean label?"),
        ("file,label", ["a"], {"image_column": "x"}, "no column 'x'; it has 'file', 'label'"),
        ("file,split", ["train"], {}, "must have a column of targets beside 'file'"),
        ("file,a,b", ["x,1", "y,2"], {}, "cannot be told among 'a', 'b', of which 'a' hold text"),
        ("file,a,b", ["1,1", "2,2"], {"task": "classification"}, "needs one target column"),
        ("file,a", ["1.5", "2.5"], {"task": "classification"}, "Classes must be text or whole"),
        ("file,a", ["1", "2"], {"task": "multi-label"}, "must hold 0 and 1; 'a'"),
        ("file,a,b", ["x,1", "y,0"], {"task": "multi-label"}, "Labels are several 0/1 columns"),
        ("file,a", ["x", "y"], {"task": "regression"}, "needs numbers; 'a'"),
    ],
)
def test_bad_table(
    tmp_path: Path, header: str, cells: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_image_data(table(tmp_path, header, *cells), **options)
    assert "\n" not in str(caught.value)


def test_table_without_existing_images(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label", "a", "b", "b")
    (tmp_path / "images" / "1.png").unlink()
    with pytest.raises(SourceError, match=r"1 of 3 images in column 'file' .*images/1\.png"):
        load_image_data(path)
    path.write_text("file,label\nx.png,a\n")
    with pytest.raises(DataError, match=r"One column .* none of 'file', 'label' does"):
        load_image_data(path)
