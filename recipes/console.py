"""What the commands of `keras-zoo` print to, and a start of Keras without its notes."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # the user's own setting wins

OUT = Console()
ERR = Console(stderr=True)


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Keeps TensorFlow's start-up notes, written below Python and below its own log level, away."""
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] != "3":
        yield
        return
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def load_keras() -> None:
    """Imports Keras, quietly."""
    with _quiet_start():
        import keras  # noqa: F401
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # advice on retracing, for a script
