from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipes.folder import RunFolder
from recipes.jsonable import to_jsonable, without_machine_paths
from zoo.errors import OptionValueError


def start(path: Path) -> RunFolder:
    return RunFolder.open(path, recipe="vision", config={}, resume=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "first"


def test_numpy_becomes_plain_json(path: Path) -> None:
    value = {
        "f16": np.float16(0.1),
        "f32": np.float32(0.1),
        "f64": np.float64(0.1),
        "long": np.longdouble(0.5),
        "int": np.int64(2**40),
        "flag": np.True_,
        "text": np.str_("é"),
        "zero_d": np.array(3),
        "matrix": np.array([[1, 2], [3, 4]], np.uint8),
        "floats": np.array([0.1, 0.2], np.float32),
        "tuple": (1, None, "x", True),
        3: {np.int32(4): []},
    }
    with start(path) as run:
        text = run.write_json("numbers.json", value).read_text("utf-8")
        assert run.read_json("numbers.json") == json.loads(text)
    assert json.loads(text) == {
        "f16": 0.1,
        "f32": 0.1,
        "f64": 0.1,
        "long": 0.5,
        "int": 2**40,
        "flag": True,
        "text": "é",
        "zero_d": 3,
        "matrix": [[1, 2], [3, 4]],
        "floats": [0.1, 0.2],
        "tuple": [1, None, "x", True],
        "3": {"4": []},
    }
    assert json.loads(text)["flag"] is True


@pytest.mark.parametrize("kind", [float, np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null(path: Path, kind: type, value: float) -> None:
    with start(path) as run:
        text = run.write_json("loss.json", {"loss": kind(value), "curve": [kind(value), 1.0]})
        assert run.read_json("loss.json") == {"loss": None, "curve": [None, 1.0]}
        assert not re.search("nan|inf", text.read_text(), re.IGNORECASE)


def test_tensors_are_read_as_arrays() -> None:
    class Tensor:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.array([1.5, math.nan])

    assert to_jsonable({"t": Tensor()}) == {"t": [1.5, None]}


@pytest.mark.parametrize("value", [{1, 2}, 1j, np.complex64(1), np.datetime64("2020-01-01"), b"x"])
def test_what_json_cannot_hold_is_named_by_its_place(path: Path, value: object) -> None:
    with start(path) as run:
        with pytest.raises(OptionValueError, match=r"got \w+ at runs\[1\]\.best\."):
            run.write_json("x.json", {"runs": [{}, {"best": value}]})
        assert not (path / "x.json").exists()
    with pytest.raises(OptionValueError, match="at the top"):
        to_jsonable(value)


def test_keys_must_differ_as_texts() -> None:
    with pytest.raises(OptionValueError, match="got '1' twice at 'classes'"):
        to_jsonable({"classes": {1: "a", "1": "b"}})


def test_metrics_hold_no_path_of_this_machine(path: Path, tmp_path: Path) -> None:
    with start(path) as run:
        model = run.write_bytes("checkpoints/model.keras", b"x")
        run.finish(
            {
                "model": model,
                "as_text": str(model),
                "data": tmp_path,
                "interpreter": sys.executable,
                "files": [model, {"log": Path("logs/a")}],
                "classes": ("/play", "/", "n/a", "/" + "x" * 5000, "/nul\0"),
            }
        )
        found = run.read_json("metrics.json")
    assert str(tmp_path) not in (path / "metrics.json").read_text()
    assert found == {
        "model": "checkpoints/model.keras",
        "as_text": "checkpoints/model.keras",
        "data": tmp_path.name,
        "interpreter": Path(sys.executable).name,
        "files": ["checkpoints/model.keras", {"log": "logs/a"}],
        "classes": ["/play", "/", "n/a", "/" + "x" * 5000, "/nul\0"],
    }


def test_paths_below_a_relative_run_folder_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "runs" / "a" / "best" / "m.keras"
    assert without_machine_paths(model, Path("runs/a")) == "best/m.keras"
