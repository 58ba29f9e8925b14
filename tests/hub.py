"""A local server that speaks as much of the Hugging Face protocol as a download needs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.file_server import FileServer, Reply

COMMIT = "1" * 40


class Hub:
    """A repository on a server."""

    def __init__(self, server: FileServer, repo: str = "owner/repo") -> None:
        self.server = server
        self.repo = repo

    def _put(self, file: str, reply: Reply, revision: str = "main") -> None:
        self.server.put(f"/{self.repo}/resolve/{revision}/{file}", reply)

    def put(
        self,
        file: str,
        body: bytes,
        *,
        revision: str = "main",
        sha256: str | None = None,
        commit: str = COMMIT,
    ) -> None:
        """Publishes a file of the large-file storage under its hash, or under a false one."""
        headers = {
            "ETag": '"0123"',
            "X-Linked-ETag": f'"{sha256 or hashlib.sha256(body).hexdigest()}"',
            "X-Linked-Size": str(len(body)),
            "X-Repo-Commit": commit,
        }
        self._put(file, Reply(body=body, headers=headers), revision)

    def put_small(self, file: str, body: bytes) -> None:
        """Publishes a file that lies in git itself, named by a git hash."""
        headers = {"ETag": '"' + "a" * 40 + '"', "X-Repo-Commit": COMMIT}
        self._put(file, Reply(body=body, headers=headers))

    def refuse(self, file: str, status: int, code: str = "", revision: str = "main") -> None:
        headers = {"X-Error-Code": code, "X-Repo-Commit": COMMIT} if code else {}
        self._put(file, Reply(status=status, headers=headers), revision)

    def downloads(self) -> int:
        wanted = f"GET /{self.repo}/"
        return sum(n for what, n in self.server.asked.items() if what.startswith(wanted))


def set_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    # The client reads HF_ENDPOINT and HF_HUB_CACHE when it is imported.
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def open_hub(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch, repo: str = "owner/repo"
) -> Hub:
    """Points the hub's client to the server and to an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    set_endpoint(monkeypatch, server.url)
    return Hub(server, repo)
