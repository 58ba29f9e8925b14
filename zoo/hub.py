"""Pushing a folder to the Hugging Face Hub, in one commit."""

from __future__ import annotations

import re
from pathlib import Path

from zoo.errors import OfflineError, OptionValueError, SourceError
from zoo.weights.store import is_offline

_TARGET = re.compile(r"hf://(?P<repo>[^/@\s]+/[^/@\s]+)")


def parse_target(target: str) -> str:
    """The `owner/repo` of `hf://owner/repo`.

    Raises:
        OptionValueError: It is written otherwise, or the Hub allows no such name.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    match = _TARGET.fullmatch(target)
    if match is None:
        raise OptionValueError(
            f"A repository to push to must be written hf://owner/repo; got {target!r}."
        )
    try:
        validate_repo_id(match["repo"])
    except HFValidationError as error:
        raise OptionValueError(f"The Hub allows no repository {target!r}: {error}") from error
    return match["repo"]


def check_can_push(repo: str) -> None:
    """Looks for what a push needs, before time is spent.

    Raises:
        OfflineError: Offline mode is on.
        SourceError: There is no token.
    """
    from huggingface_hub import get_token

    if is_offline():
        raise OfflineError(
            f"hf://{repo} cannot be pushed to: offline mode is on (KERAS_ZOO_OFFLINE or "
            "HF_HUB_OFFLINE). Save to a folder instead."
        )
    if get_token() is None:
        raise SourceError(
            f"hf://{repo} cannot be pushed to without a token. Make one with write access at "
            "huggingface.co/settings/tokens, then set HF_TOKEN or run `hf auth login`."
        )


def push_folder(folder: Path, repo: str, *, private: bool | None, message: str) -> str:
    """Pushes the files of a folder as one commit; one that fails changes no file there.

    Args:
        folder: Whose files, not its folders, are pushed.
        repo: `owner/repo`; made if it does not exist.
        private: For a new repository; None leaves it to the owner's settings.
        message: Of the commit.

    Returns:
        The address of the commit.

    Raises:
        OptionValueError: `private=True`, and the repository is there and public.
        SourceError: The Hub cannot be reached or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    # Its base is the error of whichever HTTP client this version of the hub's client uses.
    client_error: type[Exception] = HfHubHTTPError.__mro__[1]
    api = HfApi(library_name="keras-zoo")
    step = "made"
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        step = "looked at"
        public = private and not api.model_info(repo).private
        if public:
            raise OptionValueError(
                f"hf://{repo} is public already; nothing was pushed. Make it private on its "
                "page, or choose another name."
            )
        step = "pushed to"
        # not upload_folder, which may split what it uploads into several commits
        files = sorted(path for path in folder.iterdir() if path.is_file())
        commit = api.create_commit(
            repo,
            [CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file) for file in files],
            commit_message=message,
        )
    except OptionValueError:
        raise
    except (client_error, OSError, ValueError, RuntimeError) as error:
        raise _refusal(error, repo, step) from error
    return str(commit.commit_url)


def _refusal(error: BaseException, repo: str, step: str) -> SourceError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return SourceError(
            f"hf://{repo} could not be {step}: the Hub refuses the token (401). Make a new one at "
            "huggingface.co/settings/tokens, then set HF_TOKEN or run `hf auth login`."
        )
    if status == 403:
        return SourceError(
            f"hf://{repo} could not be {step}: the token may not write there (403). Use one with "
            "write access, or a repository of your own."
        )
    cause = error.__cause__ if type(error) is RuntimeError and error.__cause__ else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    said = (lines or [type(cause).__name__])[0].rstrip(".")
    return SourceError(
        f"hf://{repo} could not be {step}: {said}. Its files are as they were; try again."
    )
