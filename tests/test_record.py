"""What a model remembers of its making, in `.keras` files and as JSON."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from tests.random_weights import Array, outputs, random_model
from zoo.errors import CheckpointError, OptionValueError, SourceError
from zoo.record import (
    ModelRecord,
    deep_graphs,
    get_record,
    load_model,
    save_model,
    set_record,
)
from zoo.spec import Preprocessing, WeightsInfo

INFO = WeightsInfo(
    tag="t_in1k",
    source="hf://owner/repo",
    license="mit",
    num_classes=5,
    labels="five",
    sha256="0" * 64,
    preprocessing=Preprocessing(
        mean=(0.5,), std=(0.25,), input_size=(64, 48), crop=0.9, interpolation="lanczos"
    ),
)
RECORD = ModelRecord(
    architecture="test_resnet",
    options={"num_classes": 5, "input_size": 64},
    weights=INFO,
    class_names=("a", "b", "c", "d", "ö"),
    task="multi-label",
)


@pytest.fixture
def model() -> keras.Model:
    made = random_model("test_resnet", num_classes=5, input_size=64)
    set_record(made, RECORD)
    return made


@pytest.fixture
def file(model: keras.Model, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "model.keras")
    return tmp_path / "model.keras"


def noise() -> Array:
    return np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")


def test_json_form() -> None:
    assert ModelRecord.from_json(json.loads(json.dumps(RECORD.to_json()))) == RECORD
    bare = ModelRecord(architecture="resnet18")
    assert ModelRecord.from_json(json.loads(json.dumps(bare.to_json()))) == bare
    assert ModelRecord.from_json({"architecture": "resnet18", "of_a_later_version": 1}) == bare


def test_a_model_of_the_factory_has_a_record() -> None:
    model = zoo.create_model("test_resnet", num_classes=3, input_size=64, dropout=0.5)
    assert get_record(model) == ModelRecord(
        architecture="test_resnet", options={"num_classes": 3, "input_size": 64, "dropout": 0.5}
    )
    backbone = get_record(zoo.create_backbone("test_resnet", input_size=64))
    assert backbone == ModelRecord(
        architecture="test_resnet", options={"input_size": 64, "num_classes": 0}
    )
    aliased = get_record(zoo.create_model("EfficientNetB0", num_classes=3, input_size=64))
    assert aliased is not None
    assert aliased.architecture == "tf_efficientnet_b0"
    assert get_record(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])) is None


def test_saved_and_loaded(model: keras.Model, file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read("zoo.json"))["class_names"] == ["a", "b", "c", "d", "ö"]
    loaded = load_model(file)
    assert get_record(loaded) == RECORD
    np.testing.assert_array_equal(outputs(loaded, noise()), outputs(model, noise()))
    save_model(loaded, str(file))
    assert get_record(load_model(str(file))) == RECORD


def test_keras_alone_opens_the_file(model: keras.Model, file: Path) -> None:
    loaded = keras.saving.load_model(file)  # computes batch norms in Keras' own way
    np.testing.assert_allclose(outputs(loaded, noise()), outputs(model, noise()), rtol=1e-4)
    assert get_record(loaded) is None


def test_a_graph_of_more_than_a_thousand_layers_in_a_row(tmp_path: Path) -> None:
    inputs = outputs_ = keras.Input((1,))
    for _ in range(1_100):
        outputs_ = keras.layers.Identity()(outputs_)
    with deep_graphs():
        deep = keras.Model(inputs, outputs_)
    before = sys.getrecursionlimit()
    save_model(deep, tmp_path / "deep.keras")
    assert len(load_model(tmp_path / "deep.keras").layers) == 1_101
    assert sys.getrecursionlimit() == before


def test_a_file_of_keras_has_no_record(model: keras.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "plain.keras")
    assert get_record(load_model(tmp_path / "plain.keras")) is None
    foreign = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    save_model(foreign, tmp_path / "foreign.keras")
    assert get_record(load_model(tmp_path / "foreign.keras")) is None


def test_an_interrupted_save_leaves_the_old_file(
    model: keras.Model, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()
    set_record(model, replace(RECORD, options={"input_size": object()}))
    with pytest.raises(TypeError):
        save_model(model, file)
    set_record(model, RECORD)

    def break_off(path: Path) -> None:
        Path(path).write_bytes(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save", break_off)
    with pytest.raises(KeyboardInterrupt):
        save_model(model, file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["model.keras"]


def test_a_killed_save_leaves_the_old_file(file: Path) -> None:
    before = file.read_bytes()
    code = f"""
import os
import signal
from zoo.record import save_model
class Model:
    def save(self, path):
        path.write_bytes(b"PK")
        os.kill(os.getpid(), signal.SIGKILL)
save_model(Model(), {str(file)!r})
"""
    root = Path(zoo.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(file.parent.iterdir())) == 2  # what was being written lies beside it
    assert file.read_bytes() == before
    assert get_record(load_model(file)) == RECORD


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.keras", tmp_path):
        with pytest.raises(SourceError, match="There is no model file at"):
            load_model(path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"is not a `\.keras` file, or it is truncated"):
        load_model(file)


def test_a_damaged_file(file: Path) -> None:
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is not a readable `\.keras` file: Bad CRC"):
        load_model(file)


def test_another_file(file: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    with pytest.raises(CheckpointError, match=r"arrays\.npz` is not a `\.keras` file"):
        load_model(tmp_path / "arrays.npz")
    shutil.copy(tmp_path / "arrays.npz", tmp_path / "arrays.keras")
    with pytest.raises(CheckpointError, match=r"is not a readable `\.keras` file: .*config\.json"):
        load_model(tmp_path / "arrays.keras")


@pytest.mark.parametrize("name", ["model", "model.h5", "model.zip"])
def test_another_suffix(model: keras.Model, tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionValueError, match=rf"`path` must end in \.keras; got '{name}'"):
        save_model(model, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_record_does_not_change_the_model(model: keras.Model) -> None:
    plain: Any = zoo.create_model("test_resnet", num_classes=5, input_size=64)
    del plain.zoo_record
    assert plain.get_config() == model.get_config()
    assert len(plain.variables) == len(model.variables)
