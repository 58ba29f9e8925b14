"""Contact sheets, and the command that draws them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from recipes.cli import app
from zoo.augment.contact_sheet import GAP, contact_sheet
from zoo.errors import OptionValueError, SourceError, UnknownNameError


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype("uint8")
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def test_a_sheet_shows_the_image_and_what_becomes_of_it(photo: Path) -> None:
    sheet = np.asarray(contact_sheet(photo, "random_invert", p=1.0, count=4, columns=3, side=40))
    assert sheet.shape == (2 * 30 + GAP, 3 * 40 + 2 * GAP, 3)
    with Image.open(photo) as file:
        original = np.asarray(file)
    np.testing.assert_array_equal(sheet[:30, :40], original)
    np.testing.assert_array_equal(sheet[:30, 40 + GAP : 80 + GAP], 255 - original)
    assert (sheet[30 + GAP :, -40:] == 255).all()  # five pictures leave one place


def test_cropping_layers_get_the_size_of_the_picture(photo: Path) -> None:
    assert contact_sheet(photo, "random_resized_crop", count=1, columns=2, side=20).size == (44, 15)


def test_errors(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for path, words in (("text.png", "cannot be read as an image"), ("none.png", "no image")):
        with pytest.raises(SourceError, match=words):
            contact_sheet(tmp_path / path)
    for name in ("mixup", "compose", "time_mask"):
        with pytest.raises(OptionValueError, match="what becomes of one image"):
            contact_sheet(photo, name)
    with pytest.raises(UnknownNameError, match="Did you mean"):
        contact_sheet(photo, "rand_augment")
    with pytest.raises(OptionValueError, match="`count` must be positive; got count=0"):
        contact_sheet(photo, count=0)


def test_the_command(photo: Path) -> None:
    run = CliRunner()
    listed = run.invoke(app, ["augment"])
    assert listed.exit_code == 0
    assert "randaugment" in listed.output
    drawn = run.invoke(app, ["augment", str(photo), "--policy", "rand-m9-n1", "--count", "3"])
    assert drawn.exit_code == 0, drawn.output
    with Image.open(photo.with_name("photo-rand-m9-n1.png")) as sheet:
        assert sheet.width == 4 * 224 + 3 * GAP
