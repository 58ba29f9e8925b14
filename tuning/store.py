"""The folder of a search: JSON files that are whole or not there, and the check of what one holds.

A search lives in `<directory>/search`: `settings.json` (what was asked for), KerasTuner's
`oracle.json` and `search.json`, and per trial `trial.json` (KerasTuner's), `record.json` (learning
curves, time, reason of a failure) and the checkpoint while it may still be needed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import RunError
from zoo.weights.store import atomic_path

PROJECT = "search"
SETTINGS = "settings.json"
RECORD = "record.json"


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
            "Restore the file, or pass resume=False to start again."
        ) from error


def open_project(directory: Path, settings: Mapping[str, Any], *, resume: bool) -> Path:
    """Returns the project folder in `directory`, empty but for its settings or ready to resume.

    Args:
        directory: Folder that the user named; made if missing.
        settings: What makes two searches comparable; must be the same on resume.
        resume: Go on with a search that is there; otherwise it is deleted.

    Raises:
        RunError: The folder is no search, one with other settings, or a file of it is damaged.
    """
    project = directory / PROJECT
    path = project / SETTINGS
    if project.exists() and any(project.iterdir()) and not path.exists():
        raise RunError(
            f"{project} holds files, but no {SETTINGS}: it is no search of this package. "
            "Name another directory."
        )
    if path.exists() and not resume:
        shutil.rmtree(project)
    if path.exists():
        _check_settings(path, settings)
        _check_files(project)
    else:
        project.mkdir(parents=True, exist_ok=True)
        write_json(path, dict(settings))
    return project


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    stored = read_json(path)
    changed = [name for name in settings if stored.get(name) != settings[name]]
    if changed:
        was = ", ".join(f"{name}={stored.get(name)!r}" for name in changed)
        now = ", ".join(f"{name}={settings[name]!r}" for name in changed)
        raise RunError(
            f"A search resumes only as it was begun; {path.parent} has {was}, got {now}. "
            "Name another directory, or pass resume=False to start again."
        )


def _check_files(project: Path) -> None:
    """Reads every file that a resumed search reads, so that damage is named before it bites."""
    for pattern in ("*.json", "trial_*/trial.json", f"trial_*/{RECORD}"):
        for path in sorted(project.glob(pattern)):
            read_json(path)
