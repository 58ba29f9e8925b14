from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from recipes import folder, versions


def test_versions_name_packages_backend_and_machine() -> None:
    found = folder.versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["numpy"] == np.__version__
    assert {"keras-zoo", "keras", "keras-tuner", "tensorflow"} <= found.keys()
    assert isinstance(found["cores"], int)
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert found["processor"]
    assert os.uname().nodename not in str(found["platform"])
    json.dumps(found)


def test_versions_import_nothing_heavy() -> None:
    code = (
        "import sys; from recipes.folder import versions; versions();"
        "assert not {'keras', 'tensorflow', 'keras_tuner'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("variable", "file", "loaded", "expected"),
    [
        (None, None, None, "tensorflow"),
        (None, "{", None, "tensorflow"),
        (None, '{"backend": "jax"}', None, "jax"),
        ("torch", '{"backend": "jax"}', None, "torch"),
        ("torch", '{"backend": "jax"}', "numpy", "numpy"),
    ],
)
def test_the_backend_is_found_as_keras_finds_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
    file: str | None,
    loaded: str | None,
    expected: str,
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", variable or "")
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    if file:
        (tmp_path / "keras.json").write_text(file)
    if loaded:
        module = SimpleNamespace(config=SimpleNamespace(backend=lambda: loaded))
        monkeypatch.setitem(sys.modules, "keras", module)
    assert versions.versions()["backend"] == expected


def test_builds_under_another_name_count_and_absent_packages_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        if name == "tensorflow-cpu":
            return "2.99"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = versions.versions()
    assert (found["tensorflow"], found["keras"]) == ("2.99", "not installed")


@pytest.mark.parametrize(
    ("content", "expected"),
    [("model name\t: Fast 9000\nmodel name\t: Slow\n", "Fast 9000"), ("flags: x\n", "chip")],
)
def test_processor_comes_from_cpuinfo_or_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, expected: str
) -> None:
    (tmp_path / "cpuinfo").write_text(content)
    monkeypatch.setattr(versions, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "processor", lambda: "chip")
    assert versions.versions()["processor"] == expected
    monkeypatch.setattr(versions, "_CPU_INFO", tmp_path / "absent")
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert versions.versions()["processor"] == "unknown"
