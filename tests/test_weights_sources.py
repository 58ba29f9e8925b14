from __future__ import annotations

import hashlib
import json
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.file_server import FileServer, Reply, serve
from tests.hub import COMMIT, Hub, open_hub, set_endpoint
from zoo.archives import ARCHIVES, Archive
from zoo.errors import (
    CheckpointError,
    HashMismatchError,
    OfflineError,
    SourceError,
    UnknownNameError,
    ZooError,
)
from zoo.weights import store
from zoo.weights.sources import fetch, fetch_config

BODY = b"weights" * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
OTHER = "0" * 64
REPO = "hf://owner/repo"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_ZOO_CACHE", str(tmp_path / "cache"))
    for name in ("KERAS_ZOO_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(store, "_BACKOFF_S", 0.01)
    return tmp_path / "cache"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve() as files:
        yield files


@pytest.fixture
def hub(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = open_hub(server, tmp_path / "hub", monkeypatch)
    for file in ("model.safetensors", "pytorch_model.bin", "config.json"):
        found.refuse(file, 404, "EntryNotFound")
    return found


# --- Hugging Face -------------------------------------------------------------------------------


def test_hub_default_file(hub: Hub) -> None:
    hub.put("pytorch_model.bin", b"older")
    assert fetch(REPO).read_bytes() == b"older"
    hub.put("model.safetensors", BODY)
    path = fetch(REPO, sha256=SHA256, md5=MD5)
    assert path.name == "model.safetensors"
    assert path.read_bytes() == BODY
    assert fetch(REPO) == path
    assert hub.downloads() == 2


def test_hub_revision_and_file(hub: Hub) -> None:
    hub.put("deep/a.bin", b"tagged", revision="v1.0", commit="2" * 40)
    hub.put("a.bin", b"pull request", revision="refs%2Fpr%2F1", commit="3" * 40)
    assert fetch(f"{REPO}@v1.0/deep/a.bin").read_bytes() == b"tagged"
    assert fetch(f"{REPO}@refs%2Fpr%2F1/a.bin").read_bytes() == b"pull request"


def test_hub_content_of_another_hash(hub: Hub) -> None:
    hub.put("model.safetensors", BODY, sha256=OTHER)
    with pytest.raises(
        HashMismatchError, match=f"has sha256 {SHA256}, but {OTHER} was named"
    ) as caught:
        fetch(REPO)
    blob = Path(str(caught.value).split()[2])
    hub.put("model.safetensors", BODY)
    blob.unlink()  # as the message says
    assert fetch(REPO).read_bytes() == BODY


def test_hub_hash_named_by_the_caller(hub: Hub) -> None:
    hub.put("model.safetensors", BODY)
    with pytest.raises(HashMismatchError, match=f"but {OTHER} was named"):
        fetch(REPO, sha256=OTHER)
    hub.put_small("vocab.txt", BODY)
    assert fetch(f"{REPO}/vocab.txt", sha256=SHA256).read_bytes() == BODY
    with pytest.raises(HashMismatchError, match=f"but {OTHER} was named"):
        fetch(f"{REPO}/vocab.txt", sha256=OTHER)


def test_hub_file_is_hashed_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put("model.safetensors", BODY)
    fetch(REPO)
    monkeypatch.delattr("hashlib.file_digest")
    assert fetch(REPO, sha256=SHA256).read_bytes() == BODY


def refusal(source: str, kind: type[ZooError] = SourceError) -> str:
    with pytest.raises(ZooError) as caught:
        fetch(source)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_hub_without_the_file(hub: Hub) -> None:
    assert "holds no model.safetensors and no pytorch_model.bin. Name a file" in refusal(REPO)
    hub.refuse("x.bin", 404, "EntryNotFound")
    assert f"{REPO} holds no x.bin." in refusal(f"{REPO}/x.bin")


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (401, "RepoNotFound", f"{REPO} does not exist or is private. Check the name; "),
        (403, "GatedRepo", f"{REPO} is gated: accept its terms on its page, then set HF_TOKEN"),
        (404, "RevisionNotFound", f"{REPO} has no such revision."),
    ],
)
def test_hub_refuses(hub: Hub, status: int, code: str, reason: str) -> None:
    hub.refuse("model.safetensors", status, code)
    assert reason in refusal(REPO)


def test_hub_breaks_down_midway(hub: Hub) -> None:
    body = Reply(body=BODY, headers={"X-Linked-ETag": f'"{SHA256}"', "X-Repo-Commit": COMMIT})
    hub.server.put("/owner/repo/resolve/main/model.safetensors", body, Reply(status=403))
    assert f"{REPO} could not be fetched: " in refusal(REPO)


def test_hub_unreachable(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put("model.safetensors", BODY)
    hub.refuse("model.safetensors", 404, "EntryNotFound", revision="old")
    hub.put("pytorch_model.bin", BODY, revision="old", commit="2" * 40)
    path = fetch(REPO)
    fetch(f"{REPO}@old")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        set_endpoint(monkeypatch, f"http://127.0.0.1:{free.getsockname()[1]}")
    assert fetch(REPO) == path
    assert fetch(f"{REPO}@old").read_bytes() == BODY
    message = refusal("hf://owner/other")
    assert "hf://owner/other/model.safetensors could not be reached ([Errno" in message
    assert "HF_ENDPOINT" in message


@pytest.mark.parametrize("name", ["KERAS_ZOO_OFFLINE", "HF_HUB_OFFLINE"])
def test_hub_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    hub.put("model.safetensors", BODY)
    monkeypatch.setenv(name, "1")
    message = refusal(REPO, OfflineError)
    assert f"{REPO}/model.safetensors is not in the Hugging Face cache, and offline mode" in message
    assert not hub.server.asked
    monkeypatch.delenv(name)
    path = fetch(REPO)
    monkeypatch.setenv(name, "1")
    hub.server.asked.clear()
    assert fetch(REPO) == path
    assert not hub.server.asked


@pytest.mark.parametrize(
    "source", ["hf://", "hf://owner", "hf://owner/", "hf://a b/c", "hf://a/b@"]
)
def test_hub_source_malformed(source: str) -> None:
    assert f"must be written hf://owner/repo[@revision][/file]; got {source!r}" in refusal(source)


def test_hub_name_the_hub_forbids(hub: Hub) -> None:
    assert "hf://a--b/c could not be fetched: " in refusal("hf://a--b/c")


# --- addresses, archives, files -----------------------------------------------------------------


def test_url(server: FileServer, cache: Path) -> None:
    url = server.put("/w/model.safetensors?download=1", Reply(body=BODY))
    path = fetch(url, sha256=SHA256, md5=MD5)
    assert path.name == "model.safetensors"
    assert path.is_relative_to(cache / "urls")
    assert path.read_bytes() == BODY
    other = server.put("/v2/model.safetensors", Reply(body=b"v2"))
    assert fetch(other).read_bytes() == b"v2"
    odd = server.put("/%2e%2e", Reply(body=b"odd"))
    assert fetch(odd).read_bytes() == b"odd"
    with pytest.raises(HashMismatchError):
        fetch(other, sha256=SHA256)


def test_package(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "toy.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy/w.bin", BODY)
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    fields = {"package": "toy", "version": "1", "license": "MIT", "about": ""}
    toy = Archive(kind="pypi", sha256=sha256, **fields)
    monkeypatch.setitem(ARCHIVES, "toy", toy)
    (cache / "archives").mkdir(parents=True)
    wheel.rename(cache / "archives" / toy.file_name)
    assert fetch("package:toy/toy/w.bin", sha256=SHA256, md5=MD5).read_bytes() == BODY
    assert "holds no 'w.bin'" in refusal("package:toy/w.bin")
    assert "No archive is called 'tox'" in refusal("package:tox/w.bin", UnknownNameError)
    with pytest.raises(HashMismatchError):
        fetch("package:toy/toy/w.bin", sha256=OTHER)


def test_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my weights.bin"
    path.write_bytes(BODY)
    assert fetch(str(path), sha256=SHA256, md5=MD5) == path
    assert fetch(path.as_uri()) == path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch("~/my weights.bin") == path
    with pytest.raises(HashMismatchError):
        fetch(str(path), sha256=OTHER)


@pytest.mark.parametrize("source", ["missing.bin", "s3://bucket/a", "file:///missing", "/", ""])
def test_source_of_nothing(source: str) -> None:
    assert f"or a file that exists; got {source!r}" in refusal(source)


# --- config -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["owner/repo", REPO, f"{REPO}/model.safetensors"])
def test_config_of_a_repository(hub: Hub, name: str) -> None:
    config = {"architecture": "resnet50", "num_classes": 1000}
    hub.put_small("config.json", json.dumps(config).encode())
    assert fetch_config(name) == config


def test_config_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": [1]}')
    assert fetch_config(str(tmp_path)) == {"a": [1]}


def test_config_missing(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"hf://owner/repo holds no config\.json"):
        fetch_config(REPO)
    with pytest.raises(SourceError, match=r"exists; got .*config\.json"):
        fetch_config(str(tmp_path))
    with pytest.raises(SourceError, match="must be written hf://owner/repo"):
        fetch_config("no such folder")


def test_config_malformed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("<html>")
    with pytest.raises(CheckpointError, match="is not JSON"):
        fetch_config(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="must hold a JSON object; got a list"):
        fetch_config(str(tmp_path))
