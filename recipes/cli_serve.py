"""The command `keras-zoo serve`."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from recipes.cli_deploy import opened_or_exported
from recipes.console import OUT, load_keras


def serve(
    model: Annotated[
        str, typer.Argument(help="A .keras file or folder, an exported file, or a model name.")
    ],
    host: Annotated[str, typer.Option(help="0.0.0.0: reachable from elsewhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one.")] = 8000,
    weights: Annotated[
        str | None, typer.Option(help="For a model name: a tag, file or address.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="auto, tensorflow, openvino, onnx or litert.")
    ] = "auto",
    max_batch: Annotated[int, typer.Option(help="Images that the model runs at once.")] = 8,
    max_wait_ms: Annotated[float, typer.Option(help="How long an image waits for others.")] = 4.0,
    max_upload_mb: Annotated[float, typer.Option(help="Largest request.")] = 10.0,
    max_pending: Annotated[int, typer.Option(help="Requests at a time; others get a 503.")] = 64,
) -> None:
    """Answer images over HTTP, and show a page to drop them on."""
    from zoo.serve.options import ServiceOptions, check_installed

    options = ServiceOptions(  # refused before seconds are spent on the model
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        max_upload_mb=max_upload_mb,
        max_pending=max_pending,
    )
    check_installed()
    load_keras()
    from zoo.deploy import predictor
    from zoo.deploy.engines import check_names
    from zoo.serve import serve as run

    check_names(engine, "float32")
    chosen = predictor(opened_or_exported(model, weights), engine)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)

    def started(address: str) -> None:
        OUT.print(f"{chosen.name} ({chosen.engine.name}): {address}", highlight=False)

    run(chosen, host=host, port=port, options=options, started=started)
