"""The folder of a run: config.json first, metrics.json last, every file whole or absent.

A folder with metrics.json is finished; one with config.json only can be resumed; a lock keeps a
second process out. A crash at any instant leaves at most a `.tmp-` file, which the next opening
removes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from recipes.jsonable import to_jsonable, without_machine_paths
from recipes.versions import versions
from zoo.errors import OptionValueError, RunError
from zoo.weights.store import atomic_path

__all__ = ["CONFIG", "METRICS", "RunFolder", "default_folder", "read_config", "versions"]

CONFIG = "config.json"
METRICS = "metrics.json"

_LOCK = ".lock"
_TEMPORARY = ".part-"  # as zoo.weights.store.atomic_path names them
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


class RunFolder:
    """The folder of one run, open for this process only; close it, or use it in a `with` block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / _LOCK, timeout=0, thread_local=False)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, recipe: str, config: Mapping[str, Any], resume: bool
    ) -> Self:
        """Opens a new, an empty or, with `resume`, an unfinished or a finished folder.

        A finished folder can only be read. A new one gets its config.json at once.

        Args:
            path: The folder; made where it is missing.
            recipe: Name of the recipe.
            config: All its options, so that config.json runs it again.
            resume: Whether to go on with a run of the same recipe and options that is there.

        Raises:
            RunError: The folder holds something else, a finished or unfinished run without
                `resume`, or a run with other options; another process uses it; it cannot be
                written; the disk is full.
            OptionValueError: `config` holds a value that JSON cannot.
        """
        run = cls(Path(path))
        options = to_jsonable(config)
        with run._plain_errors(""):
            run._refuse_foreign()
            if not run.finished:
                run._acquire()
        try:
            run._admit(recipe, options, resume=resume)
        except BaseException:
            run.close()
            raise
        return run

    @property
    def finished(self) -> bool:
        """Whether metrics.json is there."""
        return (self.path / METRICS).exists()

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Yields a temporary path to write; on leaving, the file gets its name, whole.

        The path ends with `name`, for writers that go by the suffix. An exception inside leaves
        the file that was there before.

        Raises:
            OptionValueError: `name` leads out of the folder.
            RunError: The run is finished, nothing was written, or the disk is full or read-only.
        """
        target = self._target(name)
        if self.finished:
            raise RunError(
                f"A finished run must not change; got {name!r} for {self.path}, "
                f"which holds {METRICS}. Choose another --out."
            )
        with self._plain_errors(name), atomic_path(target) as temporary:
            yield temporary
            if not temporary.is_file():
                raise RunError(
                    f"The path that `write` yields must be written as one file; {name} was not."
                )

    @contextmanager
    def write_folder(self, name: str) -> Iterator[Path]:
        """Yields a temporary folder to fill; on leaving it gets its name, whole.

        Raises:
            OptionValueError: `name` leads out of the folder.
            RunError: The disk is full or read-only.
        """
        target = self._target(name)
        temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex[:8]}-{target.name}")
        with self._plain_errors(name):
            try:
                temporary.mkdir(parents=True)
                yield temporary
                shutil.rmtree(target, ignore_errors=True)
                temporary.replace(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Writes a file whole or not at all; raises as `write` does."""
        with self.write(name) as temporary:
            temporary.write_bytes(content)
        return self.path / name

    def write_text(self, name: str, text: str) -> Path:
        """Writes a UTF-8 file with Unix line ends; raises as `write` does."""
        return self.write_bytes(name, text.encode())

    def write_json(self, name: str, value: Any) -> Path:
        """Writes JSON; numpy values become plain ones, and what is not finite becomes null.

        Raises:
            OptionValueError: A value that JSON cannot hold, named by its place.
            RunError: As for `write`.
        """
        text = json.dumps(to_jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
        return self.write_text(name, text + "\n")

    def read_json(self, name: str) -> Any:
        """Returns what a JSON file of the folder holds, or None where there is no such file."""
        path = self._target(name)
        return json.loads(path.read_text("utf-8")) if path.exists() else None

    def finish(self, metrics: Mapping[str, Any]) -> Path:
        """Writes metrics.json, which makes the run finished, and lets other processes in.

        Paths of this machine are cut to what is below the run folder, or to their last part.

        Raises:
            OptionValueError: A value that JSON cannot hold, named by its place.
            RunError: As for `write`.
        """
        path = self.write_json(METRICS, without_machine_paths(metrics, self.path))
        self.close()
        return path

    def close(self) -> None:
        """Lets other processes in; an unfinished run can be resumed."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _refuse_foreign(self) -> None:
        """Refuses a file, and a folder with content but no run, before anything is written."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise RunError(f"A run needs a folder; got {self.path}, a file. Choose another --out.")
        names = sorted(entry.name for entry in self.path.iterdir())
        foreign = [name for name in names if name != _LOCK and not name.startswith(_TEMPORARY)]
        if foreign and not self._is_run():
            more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
            raise RunError(
                f"A run folder must be new, empty or of an earlier run; got {self.path} with "
                f"{', '.join(foreign[:3])}{more}. Choose another --out."
            )

    def _is_run(self) -> bool:
        try:
            read_config(self.path / CONFIG)
        except RunError:
            return False
        return True

    def _acquire(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise RunError(
                f"A run folder serves one process; {self.path} is in use by another. "
                "Wait for it to end, or choose another --out."
            ) from None

    def _admit(self, recipe: str, options: dict[str, Any], *, resume: bool) -> None:
        if not (self.path / CONFIG).exists():
            self._remove_temporaries()
            self.write_json(CONFIG, {"recipe": recipe, "options": options})
            return
        found, known = read_config(self.path / CONFIG)
        state = "a finished" if self.finished else "an unfinished"
        if found != recipe:
            raise RunError(
                f"{self.path} holds {state} run of {found!r}, not of {recipe!r}. "
                "Choose another --out."
            )
        if not resume:
            use = "print its result" if self.finished else "go on with it"
            raise RunError(
                f"{self.path} holds {state} run of {recipe!r}. "
                f"Choose another --out, or add --resume to {use}."
            )
        self._refuse_other_options(known, options)
        if not self.finished:
            self._remove_temporaries()

    def _refuse_other_options(self, known: dict[str, Any], options: dict[str, Any]) -> None:
        differing = [
            f"{key} ({known.get(key, 'unset')} there, {options.get(key, 'unset')} now)"
            for key in sorted(known.keys() | options.keys())
            if (key in known, known.get(key)) != (key in options, options.get(key))
        ]
        if differing:
            raise RunError(
                f"--resume needs the options the run in {self.path} was started with; these "
                f"differ: {', '.join(differing)}. Use --config {self.path / CONFIG}, "
                "or choose another --out."
            )

    def _remove_temporaries(self) -> None:
        for path in self.path.rglob(f"{_TEMPORARY}*"):
            _remove(path)

    def _target(self, name: str) -> Path:
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts:
            raise OptionValueError(
                f"`name` must be a relative path below the run folder; got name={name!r}."
            )
        return self.path / name

    @contextmanager
    def _plain_errors(self, name: str) -> Iterator[None]:
        """Turns a full or read-only disk into one line; any other error is not ours to explain."""
        target = self.path / name
        try:
            yield
        except OSError as error:
            if not self._concerns(error):
                raise
            if error.errno in _FULL:
                free = shutil.disk_usage(_existing(self.path)).free
                raise RunError(
                    f"No space is left to write {target}: {free:,} bytes are free. "
                    "Free some space and add --resume, or choose another --out."
                ) from error
            if error.errno in _DENIED:
                raise RunError(
                    f"{target} cannot be written: {error.strerror}. "
                    "Change its permissions, or choose another --out."
                ) from error
            raise

    def _concerns(self, error: OSError) -> bool:
        """Tells a failure to write here from one of code that reads or writes elsewhere."""
        return error.filename is None or Path(os.fsdecode(error.filename)).is_relative_to(self.path)


def read_config(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """Returns the recipe and the options of a config.json.

    Raises:
        RunError: The file is missing or is no config of a run.
    """
    try:
        content = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"A config must be a readable JSON file; got {path}: {error}.") from error
    match content:
        case {"recipe": str() as recipe, "options": dict() as options}:
            return recipe, options
    raise RunError(
        f'A config must hold "recipe" and "options", as every run folder\'s {CONFIG} does; '
        f"got {path}."
    )


def default_folder(recipe: str) -> Path:
    """Returns `runs/RECIPE-DATE-TIME`, in local time."""
    return Path("runs") / f"{recipe}-{datetime.now():%Y%m%d-%H%M%S}"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _existing(path: Path) -> Path:
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
