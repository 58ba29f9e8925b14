"""Rules about the packages as a whole."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import zoo
from tools.make_index import (
    CONFIGURATIONS,
    GOLDEN,
    INDEX,
    ROOT,
    catalog,
    configurations,
    macs_of,
    record,
    stub,
)
from zoo.image.builder import ImageOptions
from zoo.models import _parameters

MAY_IMPORT = {"zoo": {"zoo"}, "tuning": {"zoo", "tuning"}, "recipes": {"zoo", "tuning", "recipes"}}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_depend_one_way(package: str) -> None:
    ours = set(MAY_IMPORT) | {"tests", "tools", "benchmarks"}
    for path in (ROOT / package).rglob("*.py"):
        used = {name.partition(".")[0] for name in imports(path)} & ours
        assert used <= MAY_IMPORT[package], path


def test_public_names() -> None:
    assert sorted(zoo.__all__) == zoo.__all__
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = zoo.no_such_name


def test_the_index_is_fresh() -> None:
    written = json.loads(INDEX.read_text(encoding="utf-8"))
    fresh = {v.name: record(f, v, written.get(v.name, {}).get("macs", 0)) for f, v in catalog()}
    assert written == fresh, "run `make index`"
    assert json.loads(CONFIGURATIONS.read_text("utf-8")) == configurations(), "run `make index`"
    assert (ROOT / "zoo" / "models.pyi").read_text(encoding="utf-8") == stub(fresh), "`make index`"


@pytest.mark.slow
def test_the_index_is_what_would_be_written() -> None:
    written = json.loads(INDEX.read_text(encoding="utf-8"))
    assert written == {v.name: record(f, v, macs_of(f, v)) for f, v in catalog()}


def test_golden_values_belong_to_listed_models() -> None:
    names = {v.name for _, v in catalog()}
    recorded = {n for p in GOLDEN.glob("*.json") for n in json.loads(p.read_text("utf-8"))}
    assert recorded == names


def test_model_functions_take_the_contract_options() -> None:
    options = inspect.signature(ImageOptions).parameters
    ours = _parameters()[1:]
    assert [p.name for p in ours] == list(options)
    assert [p.default for p in ours] == [p.default for p in options.values()]
    assert [str(p.annotation).replace("'", '"') for p in ours] == [
        str(p.annotation).replace("'", '"') for p in options.values()
    ]


def test_a_family_file_is_short() -> None:
    for path in (ROOT / "zoo" / "image").glob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 300, path
