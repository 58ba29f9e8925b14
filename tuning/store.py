"""The folder of a search: a journal of events, and files per trial while they may be needed.

    <project>/journal.jsonl                 all that happened, one line per event
    <project>/trial_0007/state.safetensors  where the training stands
    <project>/trial_0007/best.safetensors   the weights of the best epoch

A line of the journal is a checksum and a JSON object. A line that a crash cut off is dropped; a
damaged line that others follow is an error, because what follows it depends on it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zoo.errors import RunError
from zoo.weights.store import atomic_path

PROJECT = "search"
JOURNAL = "journal.jsonl"
KERAS_TUNER_STATE = "oracle.json"
FORMAT = 1


class Journal:
    """The events of a search, in a file that only grows.

    Args:
        path: The file; made with the first event.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: Mapping[str, Any]) -> None:
        """Adds an event. One that ends a trial is on the disk when this returns.

        Raises:
            RunError: It could not be written; the file holds what it held before.
        """
        text = json.dumps(event, default=_plain).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:  # nothing stays behind in a buffer
            before = file.tell()
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if event.get("event") in ("search", "end"):
                    os.fsync(file.fileno())
            except OSError as error:
                file.truncate(before)  # no half a line, should the disk be full
                raise RunError(
                    f"The search cannot be saved: {error}. It goes on from its last event once "
                    f"there is room in {self.path.parent}."
                ) from error

    def read(self) -> list[dict[str, Any]]:
        """Returns the events; drops a line that was cut off at the end.

        Raises:
            RunError: A line is damaged that others follow.
        """
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        lines = content.split(b"\n")
        events, good = [], 0
        for number, line in enumerate(lines[:-1], start=1):
            event = _parse(line)
            if event is None and number < len(lines) - 1:
                raise RunError(
                    f"The search cannot go on: line {number} of {self.path} is damaged. Restore "
                    "the file, or pass resume=False or overwrite=True to start again."
                )
            if event is None:
                break
            events.append(event)
            good += len(line) + 1
        if good < len(content):
            os.truncate(self.path, good)
        return events


def open_project(
    project: Path, settings: Mapping[str, Any], *, resume: bool
) -> tuple[Journal, list[dict[str, Any]]]:
    """Returns the journal of a search, begun if it was not, and the events after its header.

    Args:
        project: Folder of the search.
        settings: What makes two searches comparable; must be the same on resume.
        resume: Go on with a search that is there; otherwise it is deleted.

    Raises:
        RunError: The folder holds something else, another search, or a damaged one.
    """
    journal = Journal(project / JOURNAL)
    _check_content(project, resume=resume)
    if project.exists() and not resume:
        with locked(project):
            for path in project.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.suffix != ".lock":
                    path.unlink()
    events = journal.read()
    if not events:
        journal.append({"event": "search", "format": FORMAT, "settings": dict(settings)})
        return journal, []
    _check_header(project, events[0], settings)
    return journal, events[1:]


def locked(project: Path) -> AbstractContextManager[object]:
    """Returns the lock that the process holds which runs or deletes a search, as a context.

    Raises:
        RunError: Another process holds it.
    """
    project.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(project / "search.lock").acquire(timeout=0)
    except Timeout as error:
        raise RunError(
            f"Another process is running the search in {project}. Wait for it, or name another "
            "directory; `workers` runs several trials of one search at a time."
        ) from error


def write_json(path: Path | str, content: Any) -> None:
    """Writes a file that holds all of `content` or, after a crash, what it held before."""
    with atomic_path(Path(path)) as partial:
        partial.write_text(json.dumps(content), encoding="utf-8")


def read_json(path: Path) -> Any:
    """Reads a JSON file of a search.

    Raises:
        RunError: The file is cut off or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise RunError(
            f"The search cannot go on: {path} is cut off or damaged ({error}). "
            "Restore the file, or pass resume=False or overwrite=True to start again."
        ) from error


def disk_bytes(project: Path) -> int:
    """Returns the size of all files of a search."""
    return sum(path.stat().st_size for path in _files(project))


def _files(project: Path) -> Iterator[Path]:
    return (path for path in project.rglob("*") if path.is_file())


def _check_content(project: Path, *, resume: bool) -> None:
    if not project.exists() or (project / JOURNAL).exists():
        return
    names = [path.name for path in project.iterdir() if path.name != "search.lock"]
    if KERAS_TUNER_STATE in names and resume:
        raise RunError(
            f"{project} holds a search of KerasTuner, which saves less than is needed to go on "
            "with it. Pass overwrite=True to replace it, or name another directory."
        )
    if names and KERAS_TUNER_STATE not in names:
        raise RunError(
            f"{project} holds files, but no {JOURNAL}: it is no search of this package. "
            "Name another directory."
        )


def _check_header(project: Path, header: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    if header.get("format") != FORMAT:
        raise RunError(
            f"The search in {project} has format {header.get('format')!r}, and this version reads "
            f"{FORMAT}. Pass resume=False or overwrite=True to start again."
        )
    stored = header["settings"]
    asked = json.loads(json.dumps(dict(settings), default=_plain))
    changed = [name for name in asked if stored.get(name) != asked[name]]
    if changed:
        was = ", ".join(f"{name}={stored.get(name)!r}" for name in changed)
        now = ", ".join(f"{name}={asked[name]!r}" for name in changed)
        raise RunError(
            f"A search resumes only as it was begun; {project} has {was}, got {now}. "
            "Name another directory, or pass resume=False or overwrite=True to start again."
        )


def _parse(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    event: dict[str, Any] = json.loads(text)
    return event


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"An event must hold plain values; got {value!r}.")
