"""The benchmark of augmentation, and searches simulated on recorded curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import augment, augment_accuracy, tuning_curves
from benchmarks.augment import measure, parse, rows
from benchmarks.augment_training import ARMS, TASKS, layer_of, tasks
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


def accuracy_run(accuracy: float) -> dict[str, float]:
    return {"accuracy": accuracy, "epoch_s": 2.0, "epoch_cpu_s": 3.0, "total_s": 9.0}


def test_accuracy_is_summed_up_by_arm_and_seed() -> None:
    found = {
        "emoji-base/none/0": accuracy_run(0.50),
        "emoji-base/none/1": accuracy_run(0.54),
        "emoji-base/keras-zoo/0": accuracy_run(0.55),
        "emoji-base/keras-zoo/1": accuracy_run(0.61),
    }
    assert augment_accuracy.rows(found, ["fashion-mnist", "emoji-base"]) == [
        ["emoji-base", "none", "52.00 % +- 2.83", "", "2.00", "3.00"],
        ["emoji-base", "keras-zoo", "58.00 % +- 4.24", "+6.00 % +- 1.41", "2.00", "3.00"],
    ]


def test_accuracy_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def trained(_: object, task: dict[str, str], arm: str, seed: int) -> dict[str, float]:
        if len(asked) == 4:
            raise KeyboardInterrupt
        asked.append(f"{task['name']}/{arm}/{seed}")
        return accuracy_run(0.5)

    monkeypatch.setattr(augment_accuracy, "in_fresh_process", trained)
    arguments = ["--smoke", "--seeds", "2", "--output", str(tmp_path / "a.json")]
    with pytest.raises(KeyboardInterrupt):
        augment_accuracy.main(arguments)
    first = asked.copy()
    asked.clear()
    augment_accuracy.main([*arguments[:1], "--seeds", "1", *arguments[3:]])
    assert len(first) == 4
    assert not set(first) & set(asked)
    assert {*first, *asked} == {f"{name}/{arm}/0" for name in TASKS for arm in ARMS}
    assert "2 runs" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="of other settings"):
        augment_accuracy.main(["--output", str(tmp_path / "a.json")])


def test_arms_have_the_same_settings() -> None:
    ours, keras_layer = layer_of("keras-zoo", 0), layer_of("keras.layers", 0)
    assert ours.num_ops == keras_layer.num_ops == 2
    assert ours.magnitude / 30 == pytest.approx(max(keras_layer.factor))
    assert ours.interpolation == keras_layer.interpolation
    assert layer_of("none", 0) is None
    assert [task.epochs for task in tasks(list(TASKS), smoke=True)] == [1, 1]
