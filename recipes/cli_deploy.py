"""The commands `keras-zoo export` and `keras-zoo predict`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from recipes.console import OUT, load_keras
from zoo.errors import OptionValueError


def export(
    model: Annotated[str, typer.Argument(help="A model name, or a .keras file or folder.")],
    out: Annotated[str, typer.Option(help="File ending in .onnx, .xml or .tflite, or a folder.")],
    format: Annotated[  # noqa: A002 - the flag's name
        str | None,
        typer.Option(help="onnx, openvino, litert or saved_model; default: by --out."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="For a model name: a tag, file or address; default: the published."),
    ] = None,
    fuse: Annotated[
        bool, typer.Option("--fuse", help="Fold batch norms into convolutions first.")
    ] = False,
) -> None:
    """Write a model for another runtime, run the file and compare."""
    load_keras()
    from zoo import deploy

    opened = open_model(model, weights)
    if fuse:
        OUT.print(str(deploy.fusion_plan(opened)), highlight=False)
        opened = deploy.fuse(opened)
    OUT.print(str(deploy.export(opened, out, format)), highlight=False, soft_wrap=True)


def predict(
    model: Annotated[
        str, typer.Argument(help="A .keras file or folder, an exported file, or a model name.")
    ],
    images: Annotated[list[str], typer.Argument(help="Image files.")],
    top: Annotated[int, typer.Option(help="Classes per image.")] = 5,
    weights: Annotated[
        str | None, typer.Option(help="For a model name: a tag, file or address.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="auto, tensorflow, openvino, onnx or litert.")
    ] = "auto",
    precision: Annotated[str, typer.Option(help="float32; with OpenVINO also bfloat16.")] = (
        "float32"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Name what image files show."""
    load_keras()
    from zoo.deploy import predictor
    from zoo.deploy.engines import check_names

    check_names(engine, precision)  # before a model is fetched
    chosen = predictor(opened_or_exported(model, weights), engine, precision)
    answers = chosen.classify(images, top=top)
    if as_json:
        sys.stdout.write(json.dumps(_rows(images, answers), indent=1) + "\n")
        return
    for path, answer in zip(images, answers, strict=True):
        OUT.print(f"[bold]{path}[/bold]")
        for guess in answer:
            OUT.print(f"  {guess.value:7.3f}  {guess.name}", highlight=False)


def _rows(images: Sequence[str], answers: Sequence[Any]) -> dict[str, list[dict[str, Any]]]:
    """The answers by image, for JSON."""
    return {
        path: [{"name": p.name, "index": p.index, "value": p.value} for p in answer]
        for path, answer in zip(images, answers, strict=True)
    }


def opened_or_exported(model: str, weights: str | None) -> Any:
    """What `zoo.deploy.predictor` takes: the path of an exported file, or an opened model.

    Raises:
        OptionValueError: `weights` beside a file that holds its own.
    """
    from zoo.deploy.metadata import exported_format

    if exported_format(Path(model).expanduser()) is None:
        return open_model(model, weights)
    if weights is not None:
        raise _no_weights(model)
    return model


def open_model(model: str, weights: str | None) -> Any:
    """A catalog name with published weights, or what a file or folder holds.

    Raises:
        OptionValueError: `weights` beside a file that holds its own.
    """
    import zoo
    from zoo.record import load_model

    place = Path(model).expanduser()
    if not place.exists() and place.suffix != ".keras":
        # a name asks for published weights, `name.tag` for those
        return zoo.create_model(model, weights or (None if "." in model else "default"))
    if weights is not None:
        raise _no_weights(model)
    return zoo.from_pretrained(place) if place.is_dir() else load_model(place)


def _no_weights(model: str) -> OptionValueError:
    return OptionValueError(f"`--weights` is for names of the catalog; `{model}` holds its own.")
