from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import zoo
from benchmarks import startup
from benchmarks.startup import EMPTY, KERAS, LISTINGS, OURS, Outcome

ABSENT = "no_such_package"


def fake_model(*shapes: tuple[int, ...]) -> Any:
    return SimpleNamespace(trainable_variables=[np.zeros(shape) for shape in shapes])


def outcome_with(**medians: float) -> Outcome:
    names = {name.replace("_", "."): value for name, value in medians.items()}
    return Outcome(
        seconds={name: [value + 1, value, value - 1] for name, value in names.items()},
        params=dict.fromkeys(names, 1_234_567),
        failures={"kimm": "ImportError: [no] torch"},
    )


def test_everyone_starts_a_round_equally_often() -> None:
    orders = list(startup.turns("abc", 6))
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert [order[0] for order in orders] == list("abcabc")


def test_a_child_gets_a_plain_environment() -> None:
    environ = {**dict.fromkeys(startup.REMOVED, "1"), "HOME": "/h", "TF_CPP_MIN_LOG_LEVEL": "0"}
    assert startup.child_environment(environ) == {"HOME": "/h", "TF_CPP_MIN_LOG_LEVEL": "3"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Traceback\n  x\nImportError: no torch\nsee the docs\n\n", "ImportError: no torch"),
        ("OSError: a\n\nDuring it:\na.b.LaterError: b", "a.b.LaterError: b"),
        ("starting\nkilled\n", "killed"),
        ("\n", "failed without a message"),
    ],
)
def test_the_error_is_found_in_what_was_printed(text: str, expected: str) -> None:
    assert startup.error_line(text) == expected


def test_interpreters_are_timed_and_failures_kept() -> None:
    listings = {
        "sleeper": ("json", "import time; time.sleep(0.2)"),
        "broken": ("json", "raise ImportError('lacks a part')"),
        "absent": (ABSENT, f"import {ABSENT}"),
    }
    outcome = startup.listing_outcome(listings, rounds=2)
    assert outcome.seconds.keys() == {EMPTY, "sleeper"}
    assert min(outcome.seconds["sleeper"]) >= 0.2
    assert {len(samples) for samples in outcome.seconds.values()} == {2}
    assert outcome.failures["broken"] == "ImportError: lacks a part"
    assert outcome.failures["absent"] == f"skipped: the package `{ABSENT}` is not installed"


def test_the_empty_interpreter_is_taken_off_round_by_round() -> None:
    above = startup.above_empty({EMPTY: [0.25, 0.5], OURS: [0.375, 0.5625]})
    assert above == {OURS: [125.0, 62.5]}


def test_makers_alternate_after_a_warm_up() -> None:
    calls = []

    def maker(name: str, model: Any) -> Callable[[], Any]:
        def make() -> Any:
            calls.append(name)
            if model is None:
                raise ValueError("the reason\nmore of it")
            return model

        return make

    makers = {
        "a": maker("a", fake_model((2, 3), (3,))),
        "b": maker("b", fake_model((4,), ())),
        "c": maker("c", None),
    }
    outcome = startup.alternate(makers, rounds=2)
    assert calls == ["a", "b", "c", "a", "b", "b", "a"]
    assert outcome.params == {"a": 9, "b": 5}
    assert outcome.failures == {"c": "ValueError: the reason"}
    assert [len(samples) for samples in outcome.seconds.values()] == [2, 2]
    assert all(seconds >= 0 for samples in outcome.seconds.values() for seconds in samples)


def test_absent_libraries_are_skipped_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    creators = {
        OURS: ("json", lambda name: fake_model((len(name),))),
        "kimm": (ABSENT, startup.make_kimm),
    }
    monkeypatch.setattr(startup, "CREATORS", creators)
    outcome = startup.creation_outcome("resnet50", 1)
    assert outcome.params == {OURS: 8}
    assert outcome.failures == {"kimm": startup.missing(ABSENT)}


def test_what_is_compared_exists() -> None:
    listed = set(zoo.list_models())
    assert {*startup.CLASSES, startup.LOADED} <= listed
    assert startup.CLASSES.keys() == startup.KERAS_HUB.keys()


def test_both_files_of_the_loading_benchmark_are_read_back(tmp_path: Path) -> None:
    loaders = startup.write_loaders("efficientnet_b0", tmp_path)
    assert loaders.keys() == {OURS, KERAS}
    assert {"".join(file.suffixes) for file in tmp_path.iterdir()} == {
        ".safetensors",
        ".weights.h5",
    }


def test_a_library_that_loads_other_weights_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = SimpleNamespace(get_weights=lambda: [np.ones(2)], save_weights=lambda _: None)
    loaded = SimpleNamespace(get_weights=lambda: [np.array([1.0, 1.5])])
    for maker in ("make_zoo", "make_applications", "load_applications"):
        monkeypatch.setattr(startup, maker, lambda *_: saved)
    monkeypatch.setattr(startup, "load_zoo", lambda *_: loaded)
    monkeypatch.setattr(zoo, "export_weights", lambda *_: None)
    with pytest.raises(RuntimeError, match="keras-zoo loaded other weights into resnet50"):
        startup.loading_outcome("resnet50", 1)
    monkeypatch.setattr(startup, "load_zoo", lambda *_: saved)
    assert startup.write_loaders("resnet50", tmp_path).keys() == {OURS, KERAS}


def test_a_measurement_runs_in_a_fresh_process() -> None:
    measure: Any = startup.listing_outcome  # the one that needs no Keras
    outcome = startup.in_fresh_process(measure, {}, 2)  # type: ignore[arg-type]
    assert outcome.failures == {}
    assert len(outcome.seconds[EMPTY]) == 2


def test_a_measurement_that_fails_there_says_so() -> None:
    def absent_measurement(model: str, rounds: int) -> Outcome:
        raise NotImplementedError

    with pytest.raises(SystemExit, match=r"(?s)absent_measurement of x failed:.*AttributeError"):
        startup.in_fresh_process(absent_measurement, "x", 1)


def test_tables_show_median_ends_ratio_and_failures() -> None:
    outcome = outcome_with(keras_applications=4.0)
    outcome.seconds[OURS], outcome.params[OURS] = [1.0, 3.0, 2.0], 7
    assert startup.model_rows(outcome) == [
        [KERAS, "4.000", "3.000", "5.000", "1.00", "1,234,567"],
        [OURS, "2.000", "1.000", "3.000", "0.50", "7"],
        ["kimm", "ImportError: [no] torch"],
    ]
    listing = Outcome(seconds={EMPTY: [0.0, 0.0], OURS: [0.02, 0.04]})
    assert startup.listing_rows(listing) == [[OURS, "30", "20", "40", LISTINGS[OURS][1]]]


def test_a_table_is_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    startup.show_models("Title", outcome_with(keras_applications=4.0))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == "Title"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]
    assert {len(row) for row in cells} == {6}
    assert cells[-1][:2] == ["kimm", "ImportError: [no] torch"]


def test_the_report_holds_versions_machine_and_raw_samples() -> None:
    outcome = outcome_with(keras_applications=4.0)
    held = json.loads(json.dumps(startup.report(outcome, {"resnet50": outcome}, outcome)))
    assert {"keras-zoo", "keras", "cores", "processor"} <= held["made_with"].keys()
    assert held["made_with"]["keras-zoo"] == zoo.__version__
    assert held["listing"]["statements"][EMPTY] == "pass"
    assert held["creation"]["resnet50"]["seconds"][KERAS] == [5.0, 4.0, 3.0]
    assert math.isclose(sum(held["loading"][startup.LOADED]["seconds"][KERAS]), 12.0)


def test_rounds_must_be_positive(capsys: pytest.CaptureFixture[str]) -> None:
    assert startup.parse(["--rounds", "3"]).rounds == 3
    with pytest.raises(SystemExit):
        startup.parse(["--rounds", "0"])
    assert "`--rounds` must be 1 or more; got 0." in capsys.readouterr().err
