"""From an HTTP request to the named files and options it carries."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from zoo.errors import did_you_mean
from zoo.serve.options import RequestError, ServiceOptions

DEFAULT_TOP = 5
_WHOLE = re.compile(r"[1-9][0-9]{0,5}")
_ACCEPTED = "image/*, application/octet-stream, multipart/form-data or application/json"


@dataclass(frozen=True)
class Upload:
    """One image of a request, not yet decoded."""

    name: str  # what messages and the answer call it
    content: bytes


def read_top(request: Request) -> int:
    """The number of classes that are asked for.

    Raises:
        RequestError: It is no whole number from 1 on, or another parameter was given.
    """
    for name in request.query_params:
        if name != "top":
            raise RequestError(
                400,
                "unknown_parameter",
                f"There is no parameter {name[:50]!r}.{did_you_mean(name[:50], ['top'])} "
                "There is: top.",
            )
    given = request.query_params.getlist("top") or [str(DEFAULT_TOP)]
    if len(given) > 1 or not _WHOLE.fullmatch(given[0]):
        raise RequestError(
            400,
            "bad_top",
            f"`top` must be one whole number from 1 on; got {', '.join(given)[:50]!r}.",
        )
    return int(given[0])


async def read_uploads(request: Request, options: ServiceOptions) -> list[Upload]:
    """The images of a request, never more bytes than `options` allow.

    Raises:
        RequestError: The body is of another kind, malformed, too large, or holds no image.
    """
    read = _reader(request)
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length[:20]) > options.max_upload:
        raise _too_large(options)
    # the same request, whose body ends in a refusal where it grows too large
    bounded = Request(request.scope, _bounded(request, options))
    uploads = await read(bounded, options)
    if not uploads:
        raise RequestError(400, "no_image", "The request holds no image.")
    if len(uploads) > options.max_images:
        raise _too_many(options)
    return uploads


_Reader = Callable[[Request, ServiceOptions], Awaitable[list[Upload]]]


def _reader(request: Request) -> _Reader:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _from_form
    if kind == "application/json":
        return _from_json
    if kind in ("", "application/octet-stream") or kind.startswith("image/"):
        return _from_body
    raise RequestError(
        415,
        "unsupported_type",
        f"The content type must be {_ACCEPTED}; got {kind[:80]!r}. With curl: "
        '-H "Content-Type: image/jpeg" --data-binary @photo.jpg, or -F file=@photo.jpg.',
        {"Accept": _ACCEPTED.replace(" or ", ", ")},
    )


def _bounded(request: Request, options: ServiceOptions) -> Callable[[], Awaitable[Any]]:
    received = 0

    async def receive() -> Any:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > options.max_upload:
            raise _too_large(options)
        return message

    return receive


async def _from_body(request: Request, options: ServiceOptions) -> list[Upload]:  # noqa: ARG001
    return [Upload("The image", await request.body())]


async def _from_form(request: Request, options: ServiceOptions) -> list[Upload]:
    try:
        async with request.form(max_files=options.max_images, max_fields=8) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            return [
                Upload(f"File {number} ({(file.filename or 'unnamed')[:80]})", await file.read())
                for number, file in enumerate(files, 1)
            ]
    except HTTPException as error:
        if "Too many files" in error.detail:
            raise _too_many(options) from error
        raise _malformed(error.detail) from error
    except (MultiPartException, UnicodeError, ValueError) as error:
        raise _malformed(str(error)) from error


async def _from_json(request: Request, options: ServiceOptions) -> list[Upload]:
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise RequestError(400, "bad_json", f"The body is not JSON: {reason}.") from error
    images = body.get("images") if isinstance(body, dict) else None
    if (
        not isinstance(images, list)
        or set(body) != {"images"}
        or not all(isinstance(image, str) for image in images)
    ):
        raise RequestError(
            400,
            "bad_json",
            'The body must be {"images": [...]} with base64 strings and nothing else.',
        )
    if len(images) > options.max_images:
        raise _too_many(options)
    return [_of_base64(number, text) for number, text in enumerate(images, 1)]


def _of_base64(number: int, text: str) -> Upload:
    try:
        return Upload(f"Image {number}", base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise RequestError(
            400, "bad_base64", f"Image {number} is not base64 (RFC 4648, section 4)."
        ) from error


def _malformed(reason: str) -> RequestError:
    return RequestError(400, "bad_multipart", f"The multipart body is malformed: {reason[:100]}")


def _too_many(options: ServiceOptions) -> RequestError:
    return RequestError(
        413, "too_many_images", f"A request may hold {options.max_images} images; send several."
    )


def _too_large(options: ServiceOptions) -> RequestError:
    return RequestError(
        413,
        "upload_too_large",
        f"A request may hold {options.max_upload} bytes; shrink the image or send several.",
    )
