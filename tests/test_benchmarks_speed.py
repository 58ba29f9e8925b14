"""The speed benchmarks: processes that answer, ratios of the same round, files that grow."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import speed
from benchmarks.speed import Worker, contestants, measure, parse, pythons, rows
from benchmarks.speed_models import MAKERS, NAMES
from zoo.catalog import model_info

FOUND: dict[str, Any] = {
    "seconds": {"keras-zoo": [0.5, 0.25, 1.0], "keras-hub": [1.0, 0.25, 1.0]},
    "params": {"keras-zoo": 7, "keras-hub": 8},
    "failures": {"zeromodels": "ModuleNotFoundError: no"},
}


def test_the_models_are_in_the_catalog() -> None:
    assert all(model_info(name).params > 0 for name in NAMES)
    assert contestants("convnext_tiny", list(MAKERS)) == [
        "keras-zoo", "keras.applications", "zeromodels", "timm", "timm compiled",
    ]  # fmt: skip
    assert "keras.applications" not in contestants("vit_small_patch16_224", list(MAKERS))


def test_ratios_are_those_of_the_same_round() -> None:
    first, second, failed = rows(FOUND, 4)
    assert first == ["keras-zoo", "8.0 (4.0..16.0)", "", "7"]
    assert second == ["keras-hub", "4.0 (4.0..16.0)", "1.00 (1.00..2.00)", "8"]
    assert failed[:2] == ["zeromodels", "ModuleNotFoundError: no"]
    assert rows(FOUND, 1)[0][1] == "2.00 (1.00..4.00)"


@pytest.mark.parametrize("task", ["forward", "predict", "train"])
def test_a_worker_runs_steps(task: str) -> None:
    request = {"model": "mobilenetv3_large_100", "task": task, "size": 32, "batch": 2}
    worker = Worker(sys.executable, {"library": "keras-zoo", **request})
    try:
        assert worker.facts["params"] == model_info("mobilenetv3_large_100").params
        assert 0 < worker.seconds(2) < 60
    finally:
        worker.close()


def test_what_fails_is_said() -> None:
    found = measure(
        "vit_small_patch16_224",
        "forward",
        libraries=["keras-zoo"],
        pythons={"keras-zoo": sys.executable},
        size=8,  # smaller than a patch
        batch=1,
        rounds=1,
        steps=1,
    )
    assert found["failures"]["keras-zoo"]
    assert found["seconds"] == {}
    ended = Worker(sys.executable, {"library": "nobody"})
    assert "failure" in ended.facts
    ended.close()


def test_other_environments() -> None:
    asked = parse("", ("forward",), ["--torch", "t/python", "--models", "resnet50"])
    assert pythons(asked) == {"timm": "t/python", "timm compiled": "t/python"}
    assert asked.task == "forward"


def test_models_measured_before_stay_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "speed.json"
    path.write_text(json.dumps({"models": {"resnet50": {"seconds": {}}}}))
    monkeypatch.setattr(speed, "measure", lambda *_, **__: {**FOUND, "versions": {"keras": "3"}})
    speed.run(parse("", ("forward",), ["--models", "convnext_tiny"]), "forward", path)
    written = json.loads(path.read_text("utf-8"))["models"]
    assert list(written) == ["resnet50", "convnext_tiny"]
    assert written["convnext_tiny"]["seconds"] == FOUND["seconds"]
