"""The benchmark of augmentation, and searches simulated on recorded curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import augment, tuning_curves
from benchmarks.augment import measure, parse, rows
from benchmarks.augment_worker import MAKERS, pictures
from benchmarks.tuning_target import EPOCHS


def test_every_library_has_a_maker() -> None:
    assert set(augment.LIBRARIES) == set(MAKERS)
    assert pictures(20).shape == (256, 20, 20, 3)


def test_a_contestant_is_timed_and_an_absent_one_is_named() -> None:
    found = measure("mixup", 8, ["keras-zoo", "albumentations"], {}, rounds=2)
    assert len(found["seconds"]["keras-zoo"]) == 2
    assert min(found["seconds"]["keras-zoo"]) > 0
    assert "Error" in found["failures"]["albumentations"]
    (ours, absent) = rows(found)
    assert ours[0] == "keras-zoo"
    assert ours[2] == ""
    assert absent[0] == "albumentations"


def test_ratios_are_those_of_a_round() -> None:
    seconds = {"keras-zoo": [1.0, 2.0, 4.0], "timm": [2.0, 8.0, 4.0]}
    found = {"seconds": seconds, "first_s": {"keras-zoo": 1.0, "timm": 2.0}, "failures": {}}
    line = rows(found)[1]
    assert line[1] == "0 (0..0)"
    assert line[2] == "2.00 (1.00..4.00)"
    assert parse(["--sizes", "32"]).sizes == [32]


def test_curves_are_read_whole_and_ranked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves, places = tuning_curves.read()
    assert curves.shape == (tuning_curves.RECORDED, EPOCHS)
    assert ((places >= 0) & (places <= 1)).all()
    steady = np.linspace(0, 1, 40)[:, None] + np.zeros(EPOCHS)
    for row in tuning_curves.ranks(steady):
        assert row[1:] == ["1.00", "1, 2"]  # what is best is best from the first epoch on
