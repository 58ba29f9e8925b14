"""Files on disk: the cache folder, atomic writes, locks between processes, verified downloads."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import HashMismatchError, OfflineError, OptionValueError, SourceError

if TYPE_CHECKING:
    from rich.progress import Progress

_TRUE = frozenset({"1", "true", "yes", "on"})
_DIGITS = {"sha256": 64, "md5": 32}
_TIMEOUT_S = 30.0  # without a byte
_TRIES = 3
_BACKOFF_S = 1.0  # doubles with every try
_CHUNK_BYTES = 1 << 20
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class _TransientError(Exception):
    """A failure that another try may not meet."""


def cache_root() -> Path:
    """Returns the folder that holds everything fetched: KERAS_ZOO_CACHE, or ~/.cache/keras-zoo."""
    return Path(os.environ.get("KERAS_ZOO_CACHE") or "~/.cache/keras-zoo").expanduser()


def is_offline() -> bool:
    """Says whether KERAS_ZOO_OFFLINE or HF_HUB_OFFLINE forbids every download."""
    names = ("KERAS_ZOO_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").strip().lower() in _TRUE for name in names)


def path_inside(folder: Path, relative: str) -> Path:
    """Joins a folder and a relative path that may have come from outside.

    Raises:
        SourceError: The result would lie outside the folder.
    """
    path = folder / relative
    if not path.resolve().is_relative_to(folder.resolve()):
        raise SourceError(f"A file must stay inside {folder}; got the path {relative!r}.")
    return path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a new path beside `path` that takes its place at the end, and is removed on any error.

    The temporary name ends as `path` does, for writers that look at the suffix. Readers see the
    old content or the whole new one, also when the machine stops in between.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{uuid.uuid4().hex}-{path.name}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
        _sync_names(path.parent)
    except BaseException:
        if part.is_dir():
            shutil.rmtree(part)
        part.unlink(missing_ok=True)
        raise


def _sync_names(folder: Path) -> None:
    """Waits until the disk has a folder's names; Windows cannot."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_lock(path: Path) -> AbstractContextManager[object]:
    """Returns a lock on `path` between processes and threads, kept in a `.lock` file beside it."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")


def verify_file(path: Path, *, sha256: str | None = None, md5: str | None = None) -> None:
    """Hashes a file and compares.

    Raises:
        HashMismatchError: The content is another one.
        OptionValueError: A hash is not written as hexadecimal digits of its length.
    """
    expected = _expected(sha256=sha256, md5=md5)
    _compare(_hashes(path, expected), expected, f"{path} has", "Fetch it again.")


def verify_once(path: Path, *, sha256: str | None = None, md5: str | None = None) -> None:
    """Like `verify_file`, but hashes a file again only if it has changed since the last time.

    Size and modification time tell a change. In a cache that cannot be written nothing is
    remembered, and every call hashes.

    Raises:
        HashMismatchError: The content is another one.
        OptionValueError: A hash is not written as hexadecimal digits of its length.
    """
    expected = _expected(sha256=sha256, md5=md5)
    path = path.resolve()  # a link that is deleted does not take the content along
    known = _recall(path)
    unknown = expected.keys() - known.keys()
    if unknown:
        known |= _hashes(path, unknown)
        _remember(path, known)
    _compare(known, expected, f"The cached {path} has", "Delete it to fetch it again.")


def cached_file(
    path: Path,
    *,
    source: str,
    download: Callable[[Path], None],
    sha256: str | None = None,
    md5: str | None = None,
) -> Path:
    """Returns `path`; where it is missing, one process fills it and the others wait for that one.

    Args:
        path: Where the file belongs.
        source: What messages call it.
        download: Writes the content to the path it is given, which becomes `path` once its hash
            was compared.
        sha256: What the content must hash to.
        md5: The same, for publishers who name nothing better.

    Raises:
        OfflineError: It is missing and offline mode is on.
        HashMismatchError: The content is another one; of a download nothing is kept.
        SourceError: It could not be downloaded or written.
    """
    expected = _expected(sha256=sha256, md5=md5)
    if not path.is_file():
        if is_offline():
            raise OfflineError(
                f"{source} is not in the cache, and offline mode is on (KERAS_ZOO_OFFLINE or "
                f"HF_HUB_OFFLINE). Go online once, or put the file at {path} by hand."
            )
        with _disk_errors(path), file_lock(path):
            if not path.is_file():  # else another process was faster
                _fill(path, source, download, expected)
    verify_once(path, sha256=sha256, md5=md5)
    return path


def fetch_url(
    url: str, *, relative: str, sha256: str | None = None, md5: str | None = None
) -> Path:
    """Downloads `url` to `cache_root() / relative`, once for all processes, and returns the path.

    Length and hash are compared before the file becomes visible; a failure that may pass (no
    connection, a timeout, status 429 or 5xx, a body cut short) is tried three times.

    Raises:
        OfflineError: It is not in the cache and offline mode is on.
        HashMismatchError: The content is another one.
        SourceError: Unreachable, refused, truncated, or no room for it.
    """
    if not url.startswith(("https://", "http://")):
        raise SourceError(f"A download needs an https:// or http:// address; got {url!r}.")
    return cached_file(
        path_inside(cache_root(), relative),
        source=url,
        download=lambda part: _download(url, part),
        sha256=sha256,
        md5=md5,
    )


def _fill(
    path: Path, source: str, download: Callable[[Path], None], expected: dict[str, str]
) -> None:
    for leftover in path.parent.glob(f".part-*-{escape(path.name)}"):
        leftover.unlink()  # of a killed process: whoever is alive would hold the lock
    with atomic_path(path) as part:
        download(part)
        hashes = _hashes(part, expected)
        _compare(hashes, expected, f"{source} came with", "Nothing was kept; check the address.")
    _remember(path, hashes)


# --- hashes -------------------------------------------------------------------------------------


def _expected(**digests: str | None) -> dict[str, str]:
    """Returns the hashes that were named, by algorithm."""
    expected = {name: digest.lower() for name, digest in digests.items() if digest is not None}
    for name, digest in expected.items():
        if len(digest) != _DIGITS[name] or set(digest) - set("0123456789abcdef"):
            raise OptionValueError(
                f"`{name}` must be {_DIGITS[name]} hexadecimal digits; got {digest!r}."
            )
    return expected


def _hashes(path: Path, algorithms: Iterable[str]) -> dict[str, str]:
    hashes = {}
    for algorithm in algorithms:
        with path.open("rb") as file:
            hashes[algorithm] = hashlib.file_digest(file, algorithm).hexdigest()
    return hashes


def _compare(actual: dict[str, str], expected: dict[str, str], subject: str, remedy: str) -> None:
    for name, digest in expected.items():
        if actual[name] != digest:
            raise HashMismatchError(
                f"{subject} {name} {actual[name]}, but {digest} was named. {remedy}"
            )


def _record_path(path: Path) -> Path:
    key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    return cache_root() / "verified" / f"{key}.json"


def _recall(path: Path) -> dict[str, str]:
    """Returns the hashes remembered for this file, if it is still the one that was hashed."""
    try:
        record = json.loads(_record_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    status = path.stat()
    unchanged = record["size"] == status.st_size and record["mtime_ns"] == status.st_mtime_ns
    return dict(record["hashes"]) if unchanged else {}


def _remember(path: Path, hashes: dict[str, str]) -> None:
    status = path.stat()
    record = {
        "path": str(path.resolve()),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "hashes": hashes,
    }
    with suppress(OSError), atomic_path(_record_path(path)) as part:
        part.write_text(json.dumps(record), encoding="utf-8")


# --- downloads ----------------------------------------------------------------------------------


def _download(url: str, part: Path) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            _stream(url, part)
        except _TransientError as error:
            if attempt == _TRIES:
                raise SourceError(
                    f"{url} {error}, {_TRIES} times. Check the connection (HTTPS_PROXY behind a "
                    f"proxy) and try again."
                ) from error
            time.sleep(_BACKOFF_S * 2 ** (attempt - 1))
        else:
            return


def _stream(url: str, part: Path) -> None:
    with _open(url) as response, _progress() as progress:
        length = response.length  # None: the server does not say
        task = progress.add_task(part.name.split("-", 2)[-1], total=length)
        with _disk_errors(part, needed=length), part.open("wb") as file:
            for chunk in _chunks(response, length):
                file.write(chunk)
                progress.advance(task, len(chunk))


def _open(url: str) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "keras-zoo"})  # noqa: S310 - http(s) only
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310 - http(s) only
            request, timeout=_TIMEOUT_S
        )
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"answered {error.code} {error.reason}"
        if error.code in _TRANSIENT_STATUS:
            raise _TransientError(answer) from error
        raise SourceError(f"{url} {answer}. Check the address.") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise SourceError(
                f"{url} has a certificate that cannot be verified ({reason.verify_message}). "
                f"Behind a proxy, point SSL_CERT_FILE to its certificate."
            ) from error
        raise _TransientError(f"could not be reached ({reason})") from error
    return response


def _chunks(response: http.client.HTTPResponse, length: int | None) -> Iterator[bytes]:
    received = 0
    try:
        while chunk := response.read(_CHUNK_BYTES):
            received += len(chunk)
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _TransientError(f"broke off after {received} bytes ({error})") from error
    if length is not None and received != length:
        raise _TransientError(f"was truncated: {received} of {length} bytes came")


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())


@contextmanager
def _disk_errors(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Turns what the disk refuses into a SourceError; errors raised on purpose pass."""
    try:
        yield
    except SourceError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise SourceError(
                f"{path} could not be written ({error.strerror or error}). "
                f"Set KERAS_ZOO_CACHE to a folder that can."
            ) from error
        size = "more room" if needed is None else f"room for {needed} bytes"
        free = shutil.disk_usage(path.parent).free
        raise SourceError(
            f"The disk is full: {path.parent} needs {size} and has {free} bytes free. "
            f"Free some, or set KERAS_ZOO_CACHE to a folder on another disk."
        ) from error
