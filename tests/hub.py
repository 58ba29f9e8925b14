"""Local servers that speak the Hugging Face protocol: of downloads as told, and of pushes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

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


# --- a hub that takes pushes --------------------------------------------------------------------


@dataclass
class Repository:
    """A repository: its commits, each the whole of its files."""

    private: bool = False
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{}])
    messages: list[str] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]

    @property
    def sha(self) -> str:
        return f"{len(self.commits):040x}"


@dataclass
class WritableHub:
    """What the hub's protocol of a push leaves; `fail` makes a step answer a status instead."""

    url: str = ""
    token: str = "hf_good"  # noqa: S105 - of this server
    owners: tuple[str, ...] = ("owner",)
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # of the large-file storage
    fail: dict[str, int] = field(default_factory=dict)  # step -> status
    steps: list[str] = field(default_factory=list)

    def answer(
        self, method: str, path: str, body: bytes, token: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Answers one request: status, headers, body."""
        tried = ((re.fullmatch(each[0], f"{method} {path}"), *each[1:]) for each in _STEPS)
        match, step, open_to_all = next((each for each in tried if each[0]), (None, "", True))
        if match is None:
            return 404, {}, b"{}"
        self.steps.append(step)
        if step in self.fail:
            return self.fail[step], {}, b'{"error": "told to fail"}'
        if not open_to_all and token != self.token:
            said = {"X-Error-Message": "Invalid credentials in Authorization header"}
            return 401, said, b'{"error": "Invalid credentials in Authorization header"}'
        found: tuple[int, dict[str, str], bytes] = getattr(self, f"_{step}")(body, *match.groups())
        return found

    def _create(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] not in self.owners:
            said = "You don't have the rights"
            return 403, {"X-Error-Message": said}, json.dumps({"error": said}).encode()
        url = json.dumps({"url": f"{self.url}/{name}"}).encode()
        if name in self.repositories:
            return 409, {}, url
        self.repositories[name] = Repository(private=asked.get("visibility") == "private")
        return 200, {}, url

    def _validate(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        data = ModelCard(json.loads(body)["content"]).data
        errors = [] if "license" in data else [{"message": "license is missing"}]
        said = json.dumps({"errors": errors, "warnings": []}).encode()
        return (400 if errors else 200), {}, said

    def _info(self, body: bytes, repo: str) -> tuple[int, dict[str, str], bytes]:
        known = self.repositories.get(repo)
        if known is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        said = {"id": repo, "private": known.private, "sha": known.sha, "tags": [], "siblings": []}
        return 200, {}, json.dumps(said).encode()

    def _preupload(self, body: bytes, repo: str) -> tuple[int, dict[str, str], bytes]:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        return 200, {}, json.dumps({"files": files}).encode()

    def _batch(self, body: bytes, repo: str) -> tuple[int, dict[str, str], bytes]:
        def described(each: dict[str, Any]) -> dict[str, Any]:
            kept = {"oid": each["oid"], "size": each["size"]}
            href = {"href": f"{self.url}/objects/{each['oid']}"}
            check = {"href": f"{self.url}/verify"}
            return kept | (
                {}
                if each["oid"] in self.objects
                else {"actions": {"upload": href, "verify": check}}
            )

        objects = [described(each) for each in json.loads(body)["objects"]]
        return 200, {}, json.dumps({"transfer": "basic", "objects": objects}).encode()

    def _upload(self, body: bytes, oid: str) -> tuple[int, dict[str, str], bytes]:
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {}, b'{"error": "another hash"}'
        self.objects[oid] = body
        return 200, {}, b""

    def _verify(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        asked = json.loads(body)
        whole = len(self.objects.get(asked["oid"], b"")) == asked["size"]
        return (200 if whole else 400), {}, b"{}"

    def _commit(self, body: bytes, repo: str) -> tuple[int, dict[str, str], bytes]:
        known, lines = self.repositories[repo], [json.loads(line) for line in body.splitlines()]
        files = dict(known.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
        known.messages.append(lines[0]["value"]["summary"])
        known.commits.append(files)
        said = {"commitUrl": f"{self.url}/{repo}/commit/{known.sha}", "commitOid": known.sha}
        return 200, {}, json.dumps(said).encode()

    def _resolve(self, body: bytes, repo: str, file: str) -> tuple[int, dict[str, str], bytes]:
        known = self.repositories.get(repo)
        if known is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        content = known.files.get(file)
        if content is None:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": known.sha}, b""
        return 200, _named_by(content, known.sha), content


_REPO = r"([\w.-]+/[\w.-]+)"
_STEPS = (  # pattern of method and path, step, whether it needs no token
    (r"POST /api/repos/create", "create", False),
    (r"POST /api/validate-yaml", "validate", True),
    (rf"GET /api/models/{_REPO}", "info", False),
    (rf"POST /api/models/{_REPO}/preupload/main", "preupload", False),
    (rf"POST /{_REPO}\.git/info/lfs/objects/batch", "batch", False),
    (r"PUT /objects/([0-9a-f]{64})", "upload", True),
    (r"POST /verify", "verify", False),
    (rf"POST /api/models/{_REPO}/commit/main", "commit", False),
    (rf"(?:GET|HEAD) /{_REPO}/resolve/(?:main|[0-9a-f]{{40}})/([\w.-]+)", "resolve", True),
)


def _named_by(content: bytes, sha: str) -> dict[str, str]:
    """The headers of a file, all of them here of the large-file storage."""
    digest = hashlib.sha256(content).hexdigest()
    return {
        "ETag": f'"{digest}"',
        "X-Linked-ETag": f'"{digest}"',
        "X-Linked-Size": str(len(content)),
        "X-Repo-Commit": sha,
    }


@contextmanager
def serve_writable(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    """A hub to push to, the client's endpoint, and no token but HF_TOKEN's."""
    hub = WritableHub()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                body = b"".join(iter(self._chunk, b""))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            path = self.path.partition("?")[0]
            status, headers, content = hub.answer(self.command, path, body, token)
            self.send_response(status)
            for name, text in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, text)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = _any  # noqa: N815 - http.server's names

        def _chunk(self) -> bytes:
            size = int(self.rfile.readline(), 16)
            content = self.rfile.read(size)
            self.rfile.readline()
            return content

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's own
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    # Xet, a storage protocol of its own, is what the client takes where it may
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(cache / "no-token"))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", hub.url)
    set_endpoint(monkeypatch, hub.url)
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
