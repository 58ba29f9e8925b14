from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from ssl import SSLCertVerificationError
from typing import Any, NoReturn

import pytest

from tests.file_server import FileServer, Reply, serve
from zoo.errors import HashMismatchError, OfflineError, OptionValueError, SourceError
from zoo.weights import store
from zoo.weights.store import (
    atomic_path,
    cache_root,
    fetch_url,
    file_lock,
    is_offline,
    path_inside,
    verify_file,
    verify_once,
)

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
OTHER = "0" * 64
FETCH = """
import sys
from zoo.weights.store import fetch_url
print(fetch_url(sys.argv[1], relative="w/a.bin", sha256=sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KERAS_ZOO_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(store, "_BACKOFF_S", 0.01)
    return tmp_path / "cache"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve() as files:
        yield files


def files_in(folder: Path) -> set[str]:
    """Everything but locks and records of verification."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix() for path in found if path.parent.name != "verified"}


# --- cache folder, offline mode, paths ----------------------------------------------------------


def test_cache_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("KERAS_ZOO_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "keras-zoo"


@pytest.mark.parametrize("name", ["KERAS_ZOO_OFFLINE", "HF_HUB_OFFLINE"])
def test_is_offline(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for text, expected in {
        "1": True,
        "True": True,
        "on ": True,
        "0": False,
        "": False,
        "no": False,
    }.items():
        monkeypatch.setenv(name, text)
        assert is_offline() is expected, text


def test_path_inside(tmp_path: Path) -> None:
    assert path_inside(tmp_path, "a/../b/c") == tmp_path / "a/../b/c"
    for outside in ("../x", "/etc/passwd", "a/../../x"):
        with pytest.raises(SourceError, match=r"must stay inside .*; got the path"):
            path_inside(tmp_path, outside)


# --- atomic writes and locks --------------------------------------------------------------------


def test_atomic_path_replaces_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.weights.h5"
    path.parent.mkdir()
    path.write_text("old")
    with atomic_path(path) as part:
        part.write_text("new")
        assert part.parent == path.parent
        assert part.name.endswith(".weights.h5")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert files_in(tmp_path) == {"new/a.weights.h5"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_atomic_path_leaves_nothing_on_error(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def write() -> None:
        with atomic_path(path) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert files_in(tmp_path) == {"a"}


def test_file_lock_excludes_other_threads(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        with file_lock(tmp_path / "new" / "a"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


# --- hashes -------------------------------------------------------------------------------------


def test_verify_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(BODY)
    verify_file(path, sha256=SHA256.upper(), md5=MD5)
    with pytest.raises(HashMismatchError, match=f"has sha256 {SHA256}, but {OTHER} was named"):
        verify_file(path, sha256=OTHER)
    with pytest.raises(HashMismatchError, match=f"has md5 {MD5}, but {OTHER[:32]} was named"):
        verify_file(path, sha256=SHA256, md5=OTHER[:32])


@pytest.mark.parametrize("digest", ["abc", "g" * 64, MD5])
def test_a_hash_that_is_none(tmp_path: Path, digest: str) -> None:
    with pytest.raises(OptionValueError, match="`sha256` must be 64 hexadecimal digits; got"):
        verify_file(tmp_path / "a", sha256=digest)


def test_verify_once_hashes_again_only_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    digest = hashlib.file_digest

    def count(file: Any, algorithm: Any) -> Any:
        hashed.append(algorithm)
        return digest(file, algorithm)

    monkeypatch.setattr("hashlib.file_digest", count)
    path = tmp_path / "a"
    path.write_bytes(BODY)
    verify_once(path, sha256=SHA256)
    verify_once(path, sha256=SHA256)
    verify_once(path)
    assert hashed == ["sha256"]
    verify_once(path, sha256=SHA256, md5=MD5)
    verify_once(path, md5=MD5)
    assert hashed == ["sha256", "md5"]
    with pytest.raises(
        HashMismatchError, match=f"has sha256 {SHA256}, but {OTHER} was named. Delete"
    ):
        verify_once(path, sha256=OTHER)
    path.write_bytes(b"x" + BODY[1:])  # the same size
    os.utime(path, ns=(1, 1))
    with pytest.raises(HashMismatchError, match="Delete it to fetch it again"):
        verify_once(path, sha256=SHA256)


def test_verify_once_without_a_cache_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(BODY)
    (tmp_path / "cache").write_text("no folder")
    verify_once(tmp_path / "a", sha256=SHA256)
    with pytest.raises(HashMismatchError):
        verify_once(tmp_path / "a", sha256=OTHER)


# --- downloads ----------------------------------------------------------------------------------


def test_fetch_url_once(server: FileServer, cache: Path) -> None:
    url = server.put("/a.bin", Reply(body=BODY))
    for _ in range(2):
        path = fetch_url(url, relative="w/a.bin", sha256=SHA256, md5=MD5)
        assert path == cache / "w" / "a.bin"
        assert path.read_bytes() == BODY
    assert server.asked == {"GET /a.bin": 1}
    assert files_in(cache) == {"w/a.bin"}
    fetch_url(server.put("/b", Reply(body=b"")), relative="empty")
    assert (cache / "empty").read_bytes() == b""


def test_fetch_url_of_another_hash(server: FileServer, cache: Path) -> None:
    url = server.put("/a.bin", Reply(body=BODY))
    with pytest.raises(HashMismatchError) as caught:
        fetch_url(url, relative="a", sha256=OTHER)
    assert f"{url} came with sha256 {SHA256}, but {OTHER} was named. Nothing was kept" in str(
        caught.value
    )
    assert files_in(cache) == set()
    assert server.asked == {"GET /a.bin": 1}


def test_a_later_call_that_names_another_hash(server: FileServer, cache: Path) -> None:
    url = server.put("/a.bin", Reply(body=BODY))
    fetch_url(url, relative="a", sha256=SHA256)
    with pytest.raises(
        HashMismatchError, match=f"{cache / 'a'} has sha256 {SHA256}, but {OTHER} was named"
    ):
        fetch_url(url, relative="a", sha256=OTHER)
    fetch_url(url, relative="a")


def test_a_file_put_by_hand_is_verified(server: FileServer, cache: Path) -> None:
    (cache / "w").mkdir(parents=True)
    (cache / "w" / "a").write_bytes(BODY)
    assert fetch_url(server.url + "/gone", relative="w/a", sha256=SHA256) == cache / "w" / "a"
    (cache / "w" / "b").write_bytes(BODY[:-1])
    with pytest.raises(HashMismatchError):
        fetch_url(server.url + "/gone", relative="w/b", sha256=SHA256)
    assert not server.asked


def test_fetch_url_cut_short(server: FileServer, cache: Path) -> None:
    url = server.put("/a", Reply(body=BODY, sent=1000))
    message = f"{url} was truncated: 1000 of {len(BODY)} bytes came, 3 times."
    with pytest.raises(SourceError, match=re.escape(message)):
        fetch_url(url, relative="a")
    assert server.asked == {"GET /a": 3}
    assert files_in(cache) == set()


def test_fetch_url_recovers(server: FileServer) -> None:
    url = server.put("/a", Reply(status=500), Reply(body=BODY, sent=9), Reply(body=BODY))
    assert fetch_url(url, relative="a", sha256=SHA256).read_bytes() == BODY
    assert server.asked == {"GET /a": 3}


def test_fetch_url_refused_for_good(server: FileServer) -> None:
    with pytest.raises(SourceError, match=r"/gone answered 404 Not Found\. Check the address"):
        fetch_url(server.url + "/gone", relative="a")
    assert server.asked == {"GET /gone": 1}
    busy = server.put("/busy", Reply(status=503))
    with pytest.raises(SourceError, match="answered 503 Service Unavailable, 3 times"):
        fetch_url(busy, relative="a")


def test_fetch_url_follows_redirects(server: FileServer) -> None:
    server.put("/a", Reply(body=BODY))
    url = server.put("/old", Reply(status=302, headers={"Location": "/a"}))
    assert fetch_url(url, relative="a", sha256=SHA256).read_bytes() == BODY


def test_fetch_url_unreachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a"
    with pytest.raises(SourceError, match=r"could not be reached \(.*refused\), 3 times"):
        fetch_url(url, relative="a")


def test_fetch_url_silent_server(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_TIMEOUT_S", 0.05)
    monkeypatch.setattr(store, "_TRIES", 1)
    url = server.put("/a", Reply(body=BODY, delay_s=0.3))
    with pytest.raises(SourceError, match="timed out"):
        fetch_url(url, relative="a")


def test_fetch_url_connection_lost_midway(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(self: object, amount: int) -> NoReturn:
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr("http.client.HTTPResponse.read", lose)
    url = server.put("/a", Reply(body=BODY))
    with pytest.raises(SourceError, match=r"broke off after 0 bytes \(reset by peer\), 3 times"):
        fetch_url(url, relative="a")


def test_fetch_url_bad_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def refuse(request: object, timeout: float) -> NoReturn:
        calls.append(request)
        reason = SSLCertVerificationError()
        reason.verify_message = "self-signed certificate"
        raise urllib.error.URLError(reason)

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(SourceError, match=r"\(self-signed certificate\).*SSL_CERT_FILE"):
        fetch_url("https://localhost/a", relative="a")
    assert len(calls) == 1


@pytest.mark.parametrize("url", ["ftp://host/a", "file:///etc/passwd", "host/a"])
def test_fetch_url_of_another_scheme(url: str) -> None:
    with pytest.raises(SourceError, match="needs an https:// or http:// address; got"):
        fetch_url(url, relative="a")


def test_fetch_url_offline(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.put("/a", Reply(body=BODY))
    monkeypatch.setenv("KERAS_ZOO_OFFLINE", "1")
    with pytest.raises(OfflineError) as caught:
        fetch_url(url, relative="w/a")
    assert url in str(caught.value)
    assert f"put the file at {cache / 'w' / 'a'} by hand" in str(caught.value)
    monkeypatch.delenv("KERAS_ZOO_OFFLINE")
    fetch_url(url, relative="w/a")
    monkeypatch.setenv("KERAS_ZOO_OFFLINE", "1")
    fetch_url(url, relative="w/a", sha256=SHA256)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_fetch_url_disk_full(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(chunks: object, length: int) -> NoReturn:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(store, "_chunks", full)
    url = server.put("/a", Reply(body=BODY))
    message = f"The disk is full: {cache / 'w'} needs room for {len(BODY)} bytes and has "
    with pytest.raises(SourceError, match=re.escape(message) + r"\d+ bytes free"):
        fetch_url(url, relative="w/a")
    assert files_in(cache) == set()


def test_fetch_url_disk_full_at_the_end(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SourceError, match=f"The disk is full: {cache} needs more room"):
        fetch_url(server.put("/a", Reply(body=BODY)), relative="a")
    assert files_in(cache) == set()


def test_fetch_url_into_a_cache_that_cannot_be_written(server: FileServer, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(SourceError, match=r"could not be written \(.*Set KERAS_ZOO_CACHE"):
        fetch_url(server.put("/a", Reply(body=BODY)), relative="w/a")


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_only_on_a_terminal(
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    terminal: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    fetch_url(server.put("/a", Reply(body=BODY)), relative="model.bin")
    output = capsys.readouterr()
    assert output.out == ""
    assert ("model.bin" in output.err) is terminal


# --- several processes --------------------------------------------------------------------------


def spawn(url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH, url, SHA256]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_eight_processes_download_once(server: FileServer, cache: Path) -> None:
    url = server.put("/a", Reply(body=BODY, delay_s=0.5))
    processes = [spawn(url) for _ in range(8)]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert output == f"{cache / 'w' / 'a.bin'}\n", errors
    assert server.asked == {"GET /a": 1}
    assert (cache / "w" / "a.bin").read_bytes() == BODY


def test_a_killed_download_leaves_no_trace(server: FileServer, cache: Path) -> None:
    url = server.put(
        "/a", Reply(body=BODY, headers={"Content-Length": "2000000"}, delay_s=0), Reply(body=BODY)
    )
    first = spawn(url)
    deadline = time.monotonic() + 30
    while not any(".part-" in name for name in files_in(cache)) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert {Path(name).name[:6] for name in files_in(cache)} == {".part-"}
    output, errors = spawn(url).communicate(timeout=30)
    assert output, errors
    assert files_in(cache) == {"w/a.bin"}
