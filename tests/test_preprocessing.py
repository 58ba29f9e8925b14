"""Preprocessing against Pillow and timm: sizes, crops, channels, and image files of every kind."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.errors import DataError, OptionValueError, SourceError, UnknownModelError, UnknownNameError
from zoo.preprocessing import Preprocessor, class_list, read_image
from zoo.record import ModelRecord, get_record, set_record
from zoo.spec import Preprocessing, WeightsInfo

Array = np.ndarray[Any, np.dtype[Any]]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(300, 451), (451, 300), (224, 224), (256, 256), (50, 333), (17, 9), (1, 2), (1000, 997)]


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> Array:
    rng = np.random.default_rng([seed, height, width])
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def prepare(size: int = 32, channels: int = 3, **fields: Any) -> Preprocessor:
    normalise = fields.pop("normalise", True)
    prep = Preprocessing(**{"mean": MEAN, "std": STD, "interpolation": "bilinear", **fields})
    return Preprocessor(
        size=(size, size), channels=channels, preprocessing=prep, normalise=normalise
    )


def oracle(image: Image.Image, size: int, crop: float, resample: Image.Resampling) -> Array:
    """Resize of the short side and centre crop, on the whole image, as torchvision has them."""
    short = math.floor(size / crop)
    width, height = image.size
    if width <= height:
        target = (short, int(short * height / width))
    else:
        target = (int(short * width / height), short)
    resized = image.resize(target, resample)
    left, top = (round((side - size) / 2) for side in resized.size)
    cut = resized.crop((left, top, left + size, top + size))
    return np.asarray(cut).reshape(size, size, -1)


# --- pixels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize(("size", "crop"), [(224, 0.875), (64, 1.0), (160, 0.95), (33, 0.9)])
def test_resize_and_crop(shape: tuple[int, int], size: int, crop: float) -> None:
    pixels = photo(*shape)
    image = Image.fromarray(pixels)
    expected = oracle(image, size, crop, Image.Resampling.BILINEAR)
    normalised = (expected / 255 - MEAN) / STD
    found = prepare(size, crop=crop)(pixels)
    assert found.dtype == np.float32
    assert found.shape == (1, size, size, 3)
    np.testing.assert_allclose(found[0], normalised, atol=1e-5)
    raw = prepare(size, crop=crop, normalise=False)(pixels)
    assert raw.dtype == np.float32
    np.testing.assert_array_equal(raw[0], expected)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_interpolation(name: str) -> None:
    pixels = photo(61, 83)
    expected = oracle(Image.fromarray(pixels), 32, 0.875, Image.Resampling[name.upper()])
    found = prepare(32, interpolation=name, normalise=False)(pixels)
    np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "CMYK")])
def test_channels(channels: int, mode: str) -> None:
    pixels = photo(61, 83, channels)
    planes = [Image.fromarray(pixels[..., c]) for c in range(channels)]
    whole = Image.merge(mode, planes)
    expected = oracle(whole, 32, 0.875, Image.Resampling.BILINEAR)
    found = prepare(32, channels)(pixels)
    cycle = [c % 3 for c in range(channels)]
    mean, std = np.array(MEAN)[cycle], np.array(STD)[cycle]
    np.testing.assert_allclose(found[0], (expected / 255 - mean) / std, atol=1e-5)
    single = prepare(32, channels, mean=(0.5,), std=(0.25,))(pixels)
    np.testing.assert_allclose(single[0], (expected / 255 - 0.5) / 0.25, atol=1e-5)


@pytest.mark.parametrize(
    ("crop", "interpolation", "recorded"),
    [
        (0.95, "bicubic",
         [17439.83594, -0.01156, 0.993, 2.27399, -0.35405, 0.64286, 1.94283, 0.33094, 1.32563,
          0.46135]),
        (0.875, "bilinear",
         [17478.5625, -0.25131, 0.7479, 1.83826, 1.2728, 1.18557, -0.82841, 0.24531, 0.97549,
          0.87965]),
        (1.0, "lanczos",
         [17430.32617, 1.78654, -1.54552, -0.44497, -1.63841, -0.65266, 0.40906, -0.54243,
          -0.61765, 0.49621]),
    ],
)  # fmt: skip
def test_timms_own_numbers(crop: float, interpolation: str, recorded: list[float]) -> None:
    """Recorded with timm 1.0.31, torchvision 0.29.1 and Pillow, `pixels` being these:

    t = timm.data.create_transform((3, 160, 160), is_training=False, crop_pct=crop,
                                   interpolation=interpolation)
    x = t(Image.fromarray(pixels)).numpy().transpose(1, 2, 0)
    print([x.sum(), *x[0, 0], *x[80, 41], *x[-1, -1]])
    """
    i, j, c = np.indices((300, 451, 3))
    pixels = ((i * 7 + j * 3 + c * 50 + i * j // 8) % 256).astype("uint8")
    x = prepare(160, crop=crop, interpolation=interpolation)(pixels)[0]
    assert x.sum() == pytest.approx(recorded[0], rel=1e-5)
    np.testing.assert_allclose([*x[0, 0], *x[80, 41], *x[-1, -1]], recorded[1:], atol=2e-5)


@pytest.mark.parametrize(
    ("shape", "size"), [((96, 160), (48, 80)), ((97, 500), (48, 80)), ((500, 97), (48, 80))]
)
def test_sizes_that_are_not_square(shape: tuple[int, int], size: tuple[int, int]) -> None:
    pixels = photo(*shape)
    made = replace(prepare(crop=1.0, normalise=False), size=size)
    scale = max(size[0] / shape[0], size[1] / shape[1])  # covers the crop, keeps the proportions
    target = (int(shape[1] * scale + 1e-9), int(shape[0] * scale + 1e-9))
    resized = np.asarray(Image.fromarray(pixels).resize(target, Image.Resampling.BILINEAR))
    top, left = ((b - a) / 2 for a, b in zip(size, resized.shape[:2], strict=True))
    expected = resized[round(top) :, round(left) :][: size[0], : size[1]]
    np.testing.assert_array_equal(made(pixels)[0], expected)


def test_an_image_of_the_right_size_is_left_alone() -> None:
    pixels = photo(32, 32)
    np.testing.assert_array_equal(prepare(32, crop=1.0, normalise=False)(pixels)[0], pixels)


def test_batches_of_every_kind(tmp_path: Path) -> None:
    prep = prepare(16)
    same = [photo(40, 30, seed=i) for i in range(3)]
    expected = np.concatenate([prep(image) for image in same])
    assert expected.shape == (3, 16, 16, 3)
    np.testing.assert_array_equal(prep(np.stack(same)), expected)
    np.testing.assert_array_equal(prep(same), expected)
    path = tmp_path / "0.png"
    Image.fromarray(same[0]).save(path)
    np.testing.assert_array_equal(prep([path, same[1], str(path)]), expected[[0, 1, 0]])
    np.testing.assert_array_equal(prep(path), expected[:1])
    np.testing.assert_array_equal(prep(str(path)), expected[:1])
    other = photo(90, 20)
    np.testing.assert_array_equal(prep([same[0], other]), [prep(same[0])[0], prep(other)[0]])


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (np.zeros((8, 8, 3), "float32"), r"got float32 \(8, 8, 3\)"),
        (np.zeros((2, 8, 8, 3), "int64"), r"got int64 \(8, 8, 3\)"),
        (np.zeros((8, 8, 4), "uint8"), r"got uint8 \(8, 8, 4\)"),
        ([np.zeros((8, 8), "uint8")], r"got uint8 \(8, 8\)"),
        (np.zeros((0, 8, 3), "uint8"), r"got uint8 \(0, 8, 3\)"),
        (np.zeros((1, 8, 0, 3), "uint8"), r"got uint8 \(8, 0, 3\)"),
    ],
)
def test_pixels_of_another_kind(images: Any, got: str) -> None:
    with pytest.raises(DataError, match=rf"must be uint8 \(H, W, 3\); {got}\."):
        prepare()(images)


@pytest.mark.parametrize("images", [[], np.zeros((0, 8, 8, 3), "uint8")])
def test_an_empty_batch(images: Any) -> None:
    with pytest.raises(DataError, match="There is no image in the batch"):
        prepare()(images)


# --- files --------------------------------------------------------------------------------------


def save(tmp_path: Path, image: Image.Image, name: str = "image.png", **options: Any) -> Path:
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_plain_files(tmp_path: Path) -> None:
    colour, grey = photo(20, 30), photo(20, 30, 1)[..., 0]
    path = save(tmp_path, Image.fromarray(colour))
    np.testing.assert_array_equal(read_image(path), colour)
    luma = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    np.testing.assert_allclose(read_image(path, 1)[..., 0], luma, atol=1)
    path = save(tmp_path, Image.fromarray(grey))
    np.testing.assert_array_equal(read_image(path, 1)[..., 0], grey)
    np.testing.assert_array_equal(read_image(path), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize(("mode", "channels"), list(product(["RGBA", "LA"], [3, 1])))
def test_alpha_is_composited_on_white(tmp_path: Path, mode: str, channels: int) -> None:
    planes = photo(20, 30, len(mode))
    image = Image.merge(mode, [Image.fromarray(planes[..., c]) for c in range(len(mode))])
    share = planes[..., -1:] / 255
    flat = planes[..., :-1] * share + 255 * (1 - share)
    if channels == 1 and mode == "RGBA":
        flat = (flat @ np.array([0.299, 0.587, 0.114]))[..., None]
    found = read_image(save(tmp_path, image), channels)
    np.testing.assert_allclose(found, np.broadcast_to(flat, found.shape), atol=1)


@pytest.mark.parametrize("transparent", [False, True])
def test_palettes(tmp_path: Path, transparent: bool) -> None:
    palette = photo(1, 4)[0]
    index = photo(20, 30)[..., 0] % 4
    image = Image.fromarray(index, "L")
    image.putpalette(palette.tobytes())
    options: dict[str, Any] = {"transparency": 2} if transparent else {}
    expected = palette[index]
    if transparent:
        expected = np.where((index == 2)[..., None], 255, expected)
    np.testing.assert_array_equal(read_image(save(tmp_path, image, **options)), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits(tmp_path: Path, channels: int) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    deep[0, :2] = 0, 65535
    path = save(tmp_path, Image.fromarray(deep))
    with Image.open(path) as image:
        assert image.mode == "I;16"
    found = read_image(path, channels)
    expected = np.rint(deep / 257)[..., None]
    np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))


# what brings the stored pixels upright; Exif 2.3, tag 0x0112
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation(tmp_path: Path, orientation: int) -> None:
    pixels = photo(20, 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, Image.fromarray(pixels), exif=exif)
    np.testing.assert_array_equal(read_image(path), UPRIGHT[orientation](pixels))


def test_cmyk(tmp_path: Path) -> None:
    image = Image.new("CMYK", (30, 20), (0, 255, 255, 0))  # magenta and yellow ink: red
    found = read_image(save(tmp_path, image, "image.jpg", quality=100))
    np.testing.assert_allclose(found, np.broadcast_to([255, 0, 0], found.shape), atol=3)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    prep = prepare()
    with pytest.raises(SourceError, match=r"There is no image file at `missing\.png`"):
        prep("missing.png")
    whole = save(tmp_path, Image.fromarray(photo(64, 64))).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no image", b"<html>", whole[:40]):
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.png` cannot be read as an image: "):
            prep([tmp_path / "bad.png"])
    with pytest.raises(DataError, match=r"cannot be read as an image: .*directory"):
        prep(tmp_path)
    with pytest.raises(DataError, match="has 1 or 3 channels; the model takes 4: pass arrays"):
        prepare(channels=4)(tmp_path / "image.png")


# --- whose preprocessing ------------------------------------------------------------------------


def test_by_name() -> None:
    family = zoo.preprocessor("resnet50")
    assert family.size == (224, 224)
    assert family.preprocessing == Preprocessing(mean=MEAN, std=STD)
    weights = zoo.preprocessor("efficientnet_b0.ra4_e3600_r224_in1k")
    assert weights.preprocessing.mean == (0.5, 0.5, 0.5)
    assert weights.preprocessing.crop == 0.9
    assert zoo.preprocessor("resnet50.a3_in1k").size == (160, 160)
    assert zoo.preprocessor("EfficientNetB1").size == (240, 240)
    assert (family.channels, family.normalise) == (3, True)
    with pytest.raises(UnknownModelError, match=r"Unknown model `resnet51`\. Did you mean"):
        zoo.preprocessor("resnet51")
    with pytest.raises(UnknownNameError, match="`resnet50` has no weights `a9_in1k`"):
        zoo.preprocessor("resnet50.a9_in1k")


def test_by_model() -> None:
    plain = zoo.create_model("test_resnet", input_size=(48, 40), in_channels=4)
    found = zoo.preprocessor(plain)
    assert (found.size, found.channels, found.normalise) == ((48, 40), 4, True)
    assert found(photo(60, 60, 4)).shape == (1, 48, 40, 4)
    record = get_record(plain)
    assert record is not None
    prep = Preprocessing(mean=(0.5,), std=(0.5,), input_size=(80, 72), crop=1.0)
    info = WeightsInfo(tag="t", source="s", license="mit", preprocessing=prep)
    set_record(plain, replace(record, weights=info))
    assert zoo.preprocessor(plain).preprocessing == prep
    assert zoo.preprocessor(plain).size == (48, 40)
    inside = zoo.create_model("test_resnet", input_size=64, preprocess=True)
    assert zoo.preprocessor(inside).normalise is False
    open_size = zoo.create_backbone("test_resnet", input_size=(None, None))
    assert zoo.preprocessor(open_size).size == (160, 160)
    set_record(open_size, ModelRecord(architecture="test_resnet", weights=info))
    assert zoo.preprocessor(open_size).size == (80, 72)
    foreign = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()], name="foreign")
    with pytest.raises(OptionValueError, match="`foreign` was not made by zoo, so its preproc"):
        zoo.preprocessor(foreign)


def test_class_lists() -> None:
    names = class_list("imagenet1k")
    assert len(set(names)) == 1000
    assert (names[0], names[285], names[999]) == ("tench", "Egyptian cat", "toilet tissue")
    assert class_list("") == class_list("imagenet99") == ()
