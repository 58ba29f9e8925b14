"""The service as an ASGI application: routes, bounds, errors as JSON.

POST /predict[?top=5]   an image as the body, files as multipart/form-data, or base64 in JSON
GET  /health            what is served and its bounds
GET  /metrics           counters for Prometheus
GET  /                  a page to drop images on
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from zoo.errors import OptionValueError
from zoo.preprocessing import Array, Preprocessor
from zoo.serve.batching import Batcher
from zoo.serve.images import decode
from zoo.serve.metrics import CONTENT_TYPE, Metrics
from zoo.serve.options import RequestError, ServiceOptions
from zoo.serve.reading import Upload, read_top, read_uploads

if TYPE_CHECKING:
    from zoo.deploy import Prediction, Predictor

LOG = logging.getLogger("zoo.serve")
PAGE = Path(__file__).with_name("page.html")
# The page is one file; nothing that a class name or a file name says may load anything.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src "
    "'unsafe-inline'; img-src blob: data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_RULES = {404: "no_such_path", 405: "wrong_method"}


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """One image, ready for the model."""

    inputs: Array  # (1, h, w, C)
    top: int


class Service:
    """Answers the requests of one application."""

    def __init__(self, predictor: Predictor, options: ServiceOptions) -> None:
        self.options = options
        self.metrics = Metrics()
        self._predictor = predictor
        # the same predictor for images that are prepared already, in the threads of the requests
        self._ready = dataclasses.replace(
            predictor, preprocess=cast("Preprocessor", np.concatenate)
        )
        self._pending = 0

    @contextlib.asynccontextmanager
    async def running(self, app: Starlette) -> AsyncIterator[None]:  # noqa: ARG002 - ASGI's lifespan
        """Holds the threads; at the end what was accepted is answered."""
        with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="zoo-decode") as self._threads:
            self._batcher = Batcher(
                self._classify, self.options.max_batch, self.options.max_wait_ms / 1000
            )
            try:
                yield
            finally:
                await self._batcher.close()

    # --- routes -----------------------------------------------------------------------------

    async def predict(self, request: Request) -> Response:
        """POST /predict."""
        top = read_top(request)
        if self._pending >= self.options.max_pending:
            raise RequestError(
                503,
                "busy",
                f"{self.options.max_pending} requests wait already; try again later.",
                {"Retry-After": "1"},
            )
        self._pending += 1
        self.metrics.pending.set(self._pending)
        try:
            uploads = await self._in_time(
                read_uploads(request, self.options), 408, "upload_timeout", "received"
            )
            answers = await self._in_time(
                self._answers(uploads, top), 504, "prediction_timeout", "answered"
            )
        finally:
            self._pending -= 1
            self.metrics.pending.set(self._pending)
        results = [
            {"file": upload.name, "predictions": [dataclasses.asdict(guess) for guess in answer]}
            for upload, answer in zip(uploads, answers, strict=True)
        ]
        return JSONResponse({"model": self._predictor.name, "results": results})

    async def health(self, request: Request) -> Response:  # noqa: ARG002 - a route's signature
        """GET /health."""
        predictor = self._predictor
        return JSONResponse(
            {
                "status": "ok",
                "model": predictor.name,
                "engine": predictor.engine.name,
                "precision": predictor.engine.precision,
                "task": predictor.record.task,
                "classes": len(predictor.class_names),
                "input_size": list(predictor.preprocess.size),
                "pending": self._pending,
                "bounds": dataclasses.asdict(self.options),
            }
        )

    async def show_metrics(self, request: Request) -> Response:  # noqa: ARG002
        """GET /metrics."""
        return Response(self.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def page(self, request: Request) -> Response:  # noqa: ARG002
        """GET /."""
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=PAGE_HEADERS)

    # --- the model --------------------------------------------------------------------------

    async def _answers(self, uploads: Sequence[Upload], top: int) -> list[list[Prediction]]:
        loop = asyncio.get_running_loop()
        decoding = [
            loop.run_in_executor(
                self._threads,
                decode,
                upload.content,
                upload.name,
                self._predictor.preprocess,
                self.options.max_pixels,
            )
            for upload in uploads
        ]
        try:
            inputs = await asyncio.gather(*decoding)
        finally:
            for each in decoding:
                each.cancel()  # what has not begun, where another image was refused
        return await self._batcher.submit([_Prepared(each, top) for each in inputs])

    def _classify(self, batch: Sequence[_Prepared]) -> list[list[Prediction]]:
        """One batch through the model, in the batcher's thread."""
        start_s = time.perf_counter()
        answers = self._ready.classify(
            [each.inputs for each in batch], top=max(each.top for each in batch)
        )
        self.metrics.model_seconds.observe(time.perf_counter() - start_s)
        self.metrics.batch_images.observe(len(batch))
        self.metrics.images.inc(len(batch))
        if self._predictor.record.task == "regression":  # its values in order, all of them
            return answers
        return [answer[: each.top] for answer, each in zip(answers, batch, strict=True)]

    async def _in_time(self, work: Awaitable[Any], status: int, rule: str, what: str) -> Any:
        try:
            async with asyncio.timeout(self.options.timeout_s):
                return await work
        except TimeoutError as error:
            raise RequestError(
                status,
                rule,
                f"The request was not {what} within {self.options.timeout_s:g} s.",
                {"Retry-After": "1"} if status == 504 else {"Connection": "close"},
            ) from error

    # --- errors -----------------------------------------------------------------------------

    def refuse(self, request: Request, error: RequestError) -> Response:
        """The answer to a request that breaks a rule, and its line in the log."""
        self.metrics.refusals.labels(error.rule).inc()
        who = request.client.host if request.client else "-"
        LOG.log(
            logging.ERROR if error.status >= 500 else logging.WARNING,
            "%s %s %s %d %s: %s",
            who,
            request.method,
            request.url.path[:100].encode("ascii", "backslashreplace").decode(),
            error.status,
            error.rule,
            "".join(c if c.isprintable() else "?" for c in error.message),
        )
        said = {"status": error.status, "rule": error.rule, "message": error.message}
        return JSONResponse({"error": said}, status_code=error.status, headers=dict(error.headers))

    async def on_http(self, request: Request, error: Exception) -> Response:
        """A rule of the framework: path and method."""
        found = cast("HTTPException", error)
        message = {
            404: "There is no such path; there are: POST /predict, GET /health, /metrics, /.",
            405: f"{request.method} does not fit; allowed: {(found.headers or {}).get('Allow')}.",
        }.get(found.status_code, found.detail)
        rule = _RULES.get(found.status_code, "refused")
        self.metrics.requests.labels("other", found.status_code).inc()
        return self.refuse(
            request, RequestError(found.status_code, rule, message, found.headers or {})
        )

    def fail(self, request: Request, error: Exception) -> Response:
        """A failure of our own; the log says which, the client is told nothing of it."""
        self.refuse(request, RequestError(500, "internal", f"{type(error).__name__}: {error}"))
        hidden = {"status": 500, "rule": "internal", "message": "The service failed; see its log."}
        return JSONResponse({"error": hidden}, status_code=500)

    def counted(self, route: Callable[[Request], Awaitable[Response]], path: str) -> Any:
        """A route whose time and status are counted, failures included."""

        @functools.wraps(route)
        async def answer(request: Request) -> Response:
            start_s = time.perf_counter()
            try:
                response = await route(request)
            except RequestError as error:
                response = self.refuse(request, error)
            except ClientDisconnect:  # nobody reads the answer
                response = self.refuse(
                    request, RequestError(400, "disconnected", "The client left.")
                )
            except Exception as error:  # noqa: BLE001 - logged, and answered with 500
                response = self.fail(request, error)
            self.metrics.requests.labels(path, response.status_code).inc()
            self.metrics.request_seconds.labels(path).observe(time.perf_counter() - start_s)
            return response

        return answer


def create_app(predictor: Predictor, options: ServiceOptions | None = None) -> Starlette:
    """The ASGI application that serves a predictor; the model is called once before it is ready.

    Args:
        predictor: Of `zoo.deploy.predictor`.
        options: Bounds.

    Raises:
        OptionValueError: The model has no classes, or takes no image files.
    """
    channels = predictor.preprocess.channels
    if channels not in (1, 3):
        raise OptionValueError(
            f"An image file has 1 or 3 channels; `{predictor.name}` takes {channels}, so that it "
            "cannot be served. Call its predictor with arrays."
        )
    chosen = options or ServiceOptions()
    black = np.zeros((*predictor.preprocess.size, channels), np.uint8)
    for size in {1, chosen.max_batch}:  # compiled now, and not by the first request
        predictor.classify([black] * size)
    service = Service(predictor, chosen)
    routes = (
        ("/predict", service.predict, "POST"),
        ("/health", service.health, "GET"),
        ("/metrics", service.show_metrics, "GET"),
        ("/", service.page, "GET"),
    )
    return Starlette(
        routes=[
            Route(path, service.counted(route, path), methods=[method])
            for path, route, method in routes
        ],
        exception_handlers={HTTPException: service.on_http},
        lifespan=service.running,
    )
