"""The command `keras-zoo profile`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from recipes.console import OUT, load_keras
from zoo.errors import OptionValueError


def profile(
    model: Annotated[str, typer.Argument(help="A model name, or a .keras file or folder.")],
    image_size: Annotated[
        int | None, typer.Option(help="Pixels, for a model name; default: the model's own.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images in a call.")] = 1,
    engine: Annotated[
        list[str] | None, typer.Option(help="Repeatable; default: all that are installed.")
    ] = None,
    precision: Annotated[str, typer.Option(help="float32; with OpenVINO also bfloat16.")] = (
        "float32"
    ),
    seconds: Annotated[float, typer.Option(help="For which each engine is timed.")] = 2.0,
    out: Annotated[str | None, typer.Option(help="PNG to draw.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Count what a model costs and time it: parameters, multiply-adds, memory, every engine."""
    if out is not None and Path(out).suffix.lower() != ".png":  # before seconds are spent
        raise OptionValueError(f"`--out` must end in .png; got {out!r}.")
    load_keras()
    from zoo.deploy.profiling import profile as measure

    found = measure(
        _opened(model, image_size), engine or None, batch, precision=precision, seconds=seconds
    )
    if as_json:
        sys.stdout.write(json.dumps(found.to_json(), indent=1) + "\n")
    else:
        OUT.print(found)
    if out is not None:
        found.save_picture(out)
        if not as_json:
            OUT.print(out, highlight=False, soft_wrap=True)


def _opened(model: str, image_size: int | None) -> Any:
    """A model of the catalog with random weights, or what a file or folder holds."""
    place = Path(model).expanduser()
    if not place.exists() and place.suffix != ".keras":
        from zoo.factory import create_model

        options: dict[str, Any] = {} if image_size is None else {"input_size": image_size}
        return create_model(model, **options)
    if image_size is not None:
        raise OptionValueError(
            f"`--image-size` is for names of the catalog; `{model}` has a size of its own."
        )
    from zoo.pretrained import from_pretrained
    from zoo.record import load_model

    return from_pretrained(place) if place.is_dir() else load_model(place)
