"""The service on a port, until it is told to stop."""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zoo.errors import OptionValueError
from zoo.serve.options import ServiceOptions, check_installed

if TYPE_CHECKING:
    from zoo.deploy import Predictor


def serve(
    predictor: Predictor,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    options: ServiceOptions | None = None,
    started: Callable[[str], Any] | None = None,
) -> None:
    """Serves a predictor until SIGINT or SIGTERM; what was accepted by then is answered first.

    Args:
        predictor: Of `zoo.deploy.predictor`.
        host: Address to listen on; 0.0.0.0 for all of this machine's.
        port: 0 takes a free one.
        options: Bounds.
        started: Called with the address of the page once requests are accepted.

    Raises:
        OptionValueError: The address cannot be had, the model has no classes or takes no image
            files, or the `serve` extra is not installed.
    """
    check_installed()
    import uvicorn

    from zoo.serve.app import create_app

    chosen = options or ServiceOptions()
    with _listening(host, port) as listening:
        app = create_app(predictor, chosen)
        name, number = listening.getsockname()[:2]
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=math.ceil(chosen.timeout_s) + 5,
        )
        if started is not None:
            started(f"http://{f'[{name}]' if ':' in name else name}:{number}")
        _run(uvicorn.Server(config), listening)


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise OptionValueError(f"`port` must be from 0 to 65535; got port={port}.")
    try:
        kind = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=kind, backlog=512)
    except OSError as error:
        raise OptionValueError(
            f"`{host}` port {port} cannot be listened on: {error.strerror or error}. "
            "Name another `host` or `port`; port 0 takes a free one."
        ) from error


def _run(server: Any, listening: socket.socket) -> None:
    """Runs to the end; the signals that asked for it are then not raised a second time."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda *_: None) if main else None
    try:
        with warnings.catch_warnings(), contextlib.suppress(KeyboardInterrupt):
            # what Pillow says of odd files, for which a request has its own answer
            warnings.filterwarnings("ignore", module=r"PIL\.")
            server.run(sockets=[listening])  # raises KeyboardInterrupt again once it has stopped
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
