"""The deployment benchmark: arms that answer, ratios of a round, bars, images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import deploy, deploy_images
from benchmarks.deploy import agreement_rows, bars, measure, parse, ratios, rows
from benchmarks.deploy_images import SHARES, crops, photographs
from benchmarks.deploy_worker import ARMS, compare
from zoo.deploy.engines import ENGINES

FOUND: dict[str, Any] = {
    "seconds": {
        "predictor": [1.0, 2.0, 4.0],
        "predictor int8": [0.5, 0.5, 1.0],
        "keras.applications": [2.0, 6.0, 12.0],
    },
    "facts": {
        "predictor": {"compared": {"largest_change": 0.5, "deviation": 2.0, "agreement": 1.0}},
        "predictor int8": {"compared": {"largest_change": 1.0, "deviation": 0.0}},
        "keras.applications": {},
    },
    "failures": {"timm compiled": "ModuleNotFoundError: no"},
}


def test_ratios_are_those_of_a_round() -> None:
    assert ratios(FOUND, "predictor", "keras.applications") == [2.0, 3.0, 3.0]
    assert ratios(FOUND, "predictor", "timm compiled") == []
    ours, int8, theirs, failed = rows(FOUND, 8)
    assert ours == ["predictor", "4.0 (2.0..8.0)", "3.00 (2.00..3.00)", "", "", "2e-01"]
    assert int8[2:] == ["12.00 (4.00..12.00)", "", "4.00 (2.00..4.00)", "1e+00"]
    assert theirs[2:] == ["", "", "0.33 (0.33..0.50)", ""]
    assert failed[:2] == ["timm compiled", "ModuleNotFoundError: no"]


def test_bars_say_what_was_missed() -> None:
    assert bars({"resnet50": FOUND}) == [
        ["resnet50: predictor / keras.applications", "2", "3.00 (2.00..3.00)", "met"],
        ["resnet50: predictor int8 / predictor", "3", "4.00 (2.00..4.00)", "met"],
    ]
    found = bars({"mobilenetv3_large_100": FOUND})
    assert found[0][1:] == ["4", "3.00 (2.00..3.00)", "missed"]


def test_outputs_are_compared() -> None:
    expected = np.array([[0.0, 4.0], [4.0, 0.0]])
    found = compare(np.array([[0.0, 3.5], [1.0, 2.0]]), expected)
    assert found == {"largest_change": 3.0, "deviation": 2.0, "agreement": 0.5}
    assert agreement_rows({"a": found, "b": {"failure": "no"}}) == [
        ["a", "50.0%", "1.500"],
        ["b", "no", ""],
    ]


@pytest.mark.tensorflow
def test_an_arm_is_timed_and_an_absent_one_is_named() -> None:
    arms = ["predictor tensorflow", "timm compiled"]
    found = measure("mobilenetv3_large_100", arms, torch=None, size=32, batch=2, rounds=2, steps=1)
    assert len(found["seconds"]["predictor tensorflow"]) == 2
    facts = found["facts"]["predictor tensorflow"]
    assert (facts["engine"], facts["precision"]) == ("tensorflow", "float32")
    assert facts["compared"]["agreement"] == 1.0
    assert "Error" in found["failures"]["timm compiled"]


def test_a_failing_arm_is_named() -> None:
    settings = {"size": 0, "batch": 1, "rounds": 1, "steps": 1}
    found = measure("resnet50", ["predictor"], torch=None, **settings)
    assert "must be a positive integer" in found["failures"]["predictor"]
    assert found["seconds"] == {}


def test_arms_are_engines() -> None:
    assert {engine for engine, _ in ARMS.values()} == set(ENGINES)
    assert parse(["--arms", "predictor"]).arms == ["predictor"]


def test_images_are_photographs() -> None:
    assert all(photo.dtype == np.uint8 and photo.shape[2] == 3 for photo in photographs())


def test_parts_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [np.full((40 + i, 60, 3), i, np.uint8) for i in range(7)]
    monkeypatch.setattr(deploy_images, "photographs", lambda: photos)
    found = {side: crops(40, 0, calibration=side) for side in (True, False)}
    for side, own in ((True, {0, 2, 4, 6}), (False, {1, 3, 5})):
        assert {int(crop[0, 0, 0]) for crop in found[side]} == own
        for crop in found[side]:
            height = 40 + crop[0, 0, 0]
            assert crop.shape == (len(crop), len(crop), 3)
            assert SHARES[0] * height - 1 <= len(crop) <= SHARES[1] * height
    again = crops(40, 0, calibration=True)
    assert all((one == other).all() for one, other in zip(found[True], again, strict=True))


def test_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "measure", lambda *_, **__: FOUND)
    same = {"predictor": {"largest_change": 0.1, "deviation": 1.0, "agreement": 1.0}}
    monkeypatch.setattr(deploy, "in_fresh_process", lambda *_, **__: same)
    path = tmp_path / "deploy.json"
    deploy.main(["--models", "resnet50", "--output", str(path)])
    written = json.loads(path.read_text("utf-8"))
    assert written["models"]["resnet50"]["seconds"] == FOUND["seconds"]
    assert written["agreement"]["arms"] == same
    assert "keras" in written["made_with"]
