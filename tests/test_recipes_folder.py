from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from recipes.folder import RunFolder, default_folder, read_config
from zoo.errors import OptionValueError, RunError

CONFIG: dict[str, Any] = {"model": "resnet18", "epochs": 3, "data": None}


def start(path: Path, *, resume: bool = False, recipe: str = "vision", **options: Any) -> RunFolder:
    return RunFolder.open(path, recipe=recipe, config={**CONFIG, **options}, resume=resume)


def names(path: Path) -> set[str]:
    return {str(entry.relative_to(path)) for entry in path.rglob("*") if entry.name != ".lock"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "first"


@pytest.fixture
def unfinished(path: Path) -> Path:
    with start(path) as run:
        run.write_text("history.csv", "epoch,loss\n")
    return path


@pytest.fixture
def finished(unfinished: Path) -> Path:
    with start(unfinished, resume=True) as run:
        run.finish({"accuracy": 0.5})
    return unfinished


def test_a_new_folder_holds_its_config_at_once(path: Path) -> None:
    with start(path, rate=np.float32(0.1)) as run:
        assert names(path) == {"config.json"}
        assert not run.finished
    assert read_config(path / "config.json") == ("vision", {**CONFIG, "rate": 0.1})


def test_an_empty_folder_is_as_good_as_a_new_one(path: Path) -> None:
    path.mkdir(parents=True)
    start(path).close()
    assert names(path) == {"config.json"}


def test_finishing_writes_the_metrics_last(path: Path) -> None:
    run = start(path)
    run.write_bytes("model.keras", b"weights")
    assert run.read_json("metrics.json") is None
    run.finish({"accuracy": np.float32(0.9)})
    assert run.finished
    assert names(path) == {"config.json", "model.keras", "metrics.json"}
    assert json.loads((path / "metrics.json").read_text()) == {"accuracy": 0.9}
    with FileLock(path / ".lock", timeout=0) as lock:
        assert lock.is_locked


def test_a_finished_run_is_refused(finished: Path) -> None:
    message = rf"{finished} holds a finished run of 'vision'\. .* another --out, .* --resume"
    with pytest.raises(RunError, match=message):
        start(finished)


def test_a_finished_run_is_read_with_resume_and_never_written(finished: Path) -> None:
    before = {entry: (finished / entry).stat().st_mtime_ns for entry in names(finished)}
    with start(finished, resume=True) as run:
        assert run.finished
        assert run.read_json("metrics.json") == {"accuracy": 0.5}
        with pytest.raises(RunError, match=r"must not change; got 'model\.keras'"):
            run.write_bytes("model.keras", b"")
        with pytest.raises(RunError, match=r"must not change; got 'metrics\.json'"):
            run.finish({})
    assert before == {entry: (finished / entry).stat().st_mtime_ns for entry in names(finished)}


def test_a_finished_run_needs_no_lock_to_be_read(finished: Path) -> None:
    with start(finished, resume=True), start(finished, resume=True) as second:
        assert second.finished


def test_an_unfinished_run_is_refused_without_resume(unfinished: Path) -> None:
    message = r"holds an unfinished run .* add --resume to go on with it"
    with pytest.raises(RunError, match=message) as caught:
        start(unfinished)
    start(unfinished, resume=True).close()  # the refusal kept no lock
    del caught  # until here its traceback kept the folder object, and with it any lock, alive


def test_resuming_keeps_what_is_there(unfinished: Path) -> None:
    with start(unfinished, resume=True) as run:
        assert (run.path / "history.csv").read_text() == "epoch,loss\n"
        run.finish({})
    assert names(unfinished) == {"config.json", "history.csv", "metrics.json"}


def test_resuming_nothing_starts_a_new_run(path: Path) -> None:
    start(path, resume=True).close()
    assert names(path) == {"config.json"}


@pytest.mark.parametrize("state", ["unfinished", "finished"])
def test_other_options_are_listed(state: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(state)
    with pytest.raises(RunError) as caught:
        start(path, resume=True, epochs=5, data="x", rate=0.1)
    listed = "data (None there, x now), epochs (3 there, 5 now), rate (unset there, 0.1 now)"
    assert f"differ: {listed}. Use --config" in str(caught.value)
    assert "model" not in str(caught.value)


def test_an_option_set_to_none_differs_from_one_not_set(unfinished: Path) -> None:
    with pytest.raises(RunError, match=r"differ: seed \(unset there, None now\)"):
        start(unfinished, resume=True, seed=None)


def test_options_are_compared_as_json_holds_them(path: Path) -> None:
    start(path, size=(224, 224), rate=np.float32(0.1), out=Path("a/b")).close()
    again = start(path, resume=True, size=[224, 224], rate=0.1, out="a/b")
    assert not again.finished
    again.close()


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_of_another_recipe_is_refused(unfinished: Path, resume: bool) -> None:
    with pytest.raises(RunError, match="an unfinished run of 'vision', not of 'text'"):
        start(unfinished, resume=resume, recipe="text")


@pytest.mark.parametrize("foreign", ["thesis.tex", "metrics.json"])
@pytest.mark.parametrize("resume", [False, True])
def test_foreign_files_are_left_alone(path: Path, foreign: str, resume: bool) -> None:
    path.mkdir(parents=True)
    (path / foreign).write_text("{}")
    with pytest.raises(RunError, match=rf"must be new, empty .* with {foreign}\. Choose another"):
        start(path, resume=resume)
    assert os.listdir(path) == [foreign]  # noqa: PTH208 - hidden files count too


def test_a_foreign_config_does_not_pass_for_a_run(path: Path) -> None:
    path.mkdir(parents=True)
    for name in "abc":
        (path / name).touch()
    (path / "config.json").write_text('{"architectures": ["Bert"]}')
    with pytest.raises(RunError, match=r"with a, b, c and 1 more\. Choose another --out"):
        start(path, resume=True)


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    with pytest.raises(RunError, match=r"needs a folder; got .*notes, a file"):
        start(tmp_path / "notes")


def test_two_openings_in_one_process_exclude_each_other(path: Path) -> None:
    with start(path), pytest.raises(RunError, match=f"{path} is in use by another"):
        start(path, resume=True)
    start(path, resume=True).close()


def test_another_process_is_kept_out_until_the_first_dies(path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from recipes.folder import RunFolder\n"
        "run = RunFolder.open(sys.argv[1], recipe='vision', config={}, resume=False)\n"
        "print('open', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(RunError, match="is in use by another"):
            RunFolder.open(path, recipe="vision", config={}, resume=True)
        process.kill()
    RunFolder.open(path, recipe="vision", config={}, resume=True).close()


def test_a_crash_while_writing_leaves_no_half_file(unfinished: Path) -> None:
    code = (
        "import os, sys; from recipes.folder import RunFolder\n"
        f"run = RunFolder.open(sys.argv[1], recipe='vision', config={CONFIG!r}, resume=True)\n"
        "with run.write('history.csv') as a, run.write('deep/new.bin') as b:\n"
        "    a.write_text('half'); b.write_text('half')\n"
        "    os._exit(9)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(unfinished)], check=False, timeout=60)
    assert ended.returncode == 9
    assert (unfinished / "history.csv").read_text() == "epoch,loss\n"
    assert not (unfinished / "deep" / "new.bin").exists()
    assert len(names(unfinished)) == 5  # config, history, the sub-folder and two torn files
    with start(unfinished, resume=True):
        assert names(unfinished) == {"config.json", "history.csv", "deep"}


def test_a_crash_before_the_config_leaves_a_folder_as_good_as_empty(path: Path) -> None:
    path.mkdir(parents=True)
    (path / ".lock").touch()
    (path / ".part-12345678-config.json").write_text('{"reci')
    start(path).close()
    assert names(path) == {"config.json"}


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_an_exception_while_writing_keeps_the_old_file(
    unfinished: Path, error: BaseException
) -> None:
    def write(run: RunFolder) -> None:
        with run.write("history.csv") as temporary:
            temporary.write_text("half")
            raise error

    with start(unfinished, resume=True) as run, pytest.raises(type(error)) as caught:
        write(run)
    assert caught.value is error
    assert (unfinished / "history.csv").read_text() == "epoch,loss\n"
    assert names(unfinished) == {"config.json", "history.csv"}


def test_the_temporary_path_keeps_suffixes_and_is_beside_the_target(path: Path) -> None:
    with start(path) as run:
        with run.write("checkpoints/best.weights.h5") as temporary:
            assert temporary.name.endswith(".weights.h5")
            assert temporary.parent == path / "checkpoints"
            temporary.write_bytes(b"weights")
            assert not (path / "checkpoints" / "best.weights.h5").exists()
        assert (path / "checkpoints" / "best.weights.h5").read_bytes() == b"weights"


def test_content_reaches_the_disk_before_the_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        events.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")  # noqa: PTH112
        sync(handle)

    def replaced(source: Path, target: Path) -> Path:
        events.append("name")
        return replace(source, target)

    with start(path) as run:
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(Path, "replace", replaced)
        run.write_bytes("a", b"1")
    assert [event for event in events if event != "folder"] == ["file", "name"]


@pytest.mark.parametrize("make", [lambda _: None, Path.mkdir])
def test_writing_nothing_or_a_folder_is_refused(path: Path, make: Callable[[Path], None]) -> None:
    with start(path) as run:
        with (
            pytest.raises(RunError, match="must be written as one file; model was not"),
            run.write("model") as temporary,
        ):
            make(temporary)
        assert names(path) == {"config.json"}


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "a/../../b", "."])
def test_names_stay_in_the_folder(path: Path, name: str) -> None:
    with start(path) as run:
        with pytest.raises(OptionValueError, match=rf"below the run folder; got name='{name}'"):
            run.write_text(name, "")
        with pytest.raises(OptionValueError, match="below the run folder"):
            run.read_json(name)


def test_text_is_utf8_with_unix_line_ends(path: Path) -> None:
    with start(path) as run:
        assert run.write_text("note", "é\n").read_bytes() == b"\xc3\xa9\n"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_with_the_free_bytes(
    unfinished: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    with start(unfinished, resume=True) as run:
        monkeypatch.setattr(os, "fsync", full)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=12_345))
        with pytest.raises(RunError) as caught:
            run.write_text("history.csv", "longer than before")
    assert str(caught.value) == (
        f"No space is left to write {unfinished / 'history.csv'}: 12,345 bytes are free. "
        "Free some space and add --resume, or choose another --out."
    )
    assert (unfinished / "history.csv").read_text() == "epoch,loss\n"
    assert names(unfinished) == {"config.json", "history.csv"}


def test_a_full_disk_is_told_where_the_folder_cannot_even_be_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, **_: Any) -> None:
        raise OSError(errno.ENOSPC, "full", str(self))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(RunError, match=r"No space is left to write .*: [\d,]+ bytes are free"):
        start(path)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_that_cannot_be_written_is_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def denied(self: Path, **_: Any) -> None:
        raise OSError(code, "not yours", str(self))

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(RunError, match=rf"{path} cannot be written: not yours\. .* another --out"):
        start(path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, "not yours", "/data/images"),
        FileNotFoundError("no data"),
        OSError("odd"),
    ],
)
def test_errors_of_other_files_pass_as_they_are(path: Path, error: OSError) -> None:
    def write(run: RunFolder) -> None:
        with run.write("model.keras"):
            raise error

    with start(path) as run, pytest.raises(OSError, match=re.escape(str(error))) as caught:
        write(run)
    assert caught.value is error


def test_a_config_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"must be a readable JSON file; got .*config\.json"):
        read_config(tmp_path / "config.json")
    with pytest.raises(RunError, match=r"must be a readable JSON file; got .*absent\.json"):
        read_config(tmp_path / "absent.json")


@pytest.mark.parametrize("content", ["[]", '{"recipe": "vision"}', '{"recipe": 1, "options": {}}'])
def test_a_config_names_recipe_and_options(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match='must hold "recipe" and "options"'):
        read_config(tmp_path / "config.json")


def test_default_folder_is_named_by_recipe_and_time() -> None:
    before = datetime.now().replace(microsecond=0)
    found = default_folder("image-classification")
    assert found.parent == Path("runs")
    stamp = datetime.strptime(found.name, "image-classification-%Y%m%d-%H%M%S")
    assert before <= stamp <= datetime.now()
