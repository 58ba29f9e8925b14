"""The command `keras-zoo`. Imports nothing heavy before a command needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import recipes
from recipes import cli_deploy, cli_profile, cli_serve
from recipes.console import ERR, OUT, load_keras
from zoo import catalog
from zoo.errors import OptionValueError, ZooError
from zoo.spec import ModelInfo

app = typer.Typer(
    name="keras-zoo",
    help="A model zoo for Keras 3: list models, run recipes, predict.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command("list")
def list_(
    pattern: Annotated[str | None, typer.Argument(help="Shell-style, such as 'resnet*'.")] = None,
    family: Annotated[str | None, typer.Option(help="Such as resnet.")] = None,
    pretrained: Annotated[
        bool | None, typer.Option("--pretrained/--not-pretrained", help="With published weights.")
    ] = None,
    license: Annotated[  # noqa: A002 - the flag's name
        str | None, typer.Option(help="Of the weights, such as apache-2.0, or permissive.")
    ] = None,
    max_params: Annotated[int | None, typer.Option(help="Largest number of parameters.")] = None,
) -> None:
    """List models: size, cost, weights, measured parity."""
    names = catalog.list_models(
        pattern, family=family, pretrained=pretrained, license=license, max_params=max_params
    )
    if not names:
        raise OptionValueError(f"No model matches {pattern!r} and the filters.")
    table = Table(box=None, header_style="bold")
    for title, justify in (
        ("model", "left"), ("params", "right"), ("GMACs", "right"), ("px", "right"),
        ("weights", "right"), ("parity", "right"), ("licences of weights", "left"),
    ):  # fmt: skip
        wide = title == "licences of weights"
        table.add_column(title, justify=justify, no_wrap=not wide)  # type: ignore[arg-type]
    for found in map(catalog.model_info, names):
        table.add_row(
            found.name,
            f"{found.params / 1e6:.1f}M",
            f"{found.macs / 1e9:.2f}",
            str(found.input_size),
            str(len(found.weights) or "-"),
            _parity(found),
            ", ".join(found.weights_licenses) or "-",
        )
    OUT.print(table)
    OUT.print(f"{len(names)} models; keras-zoo info NAME describes one", highlight=False)


@app.command()
def info(name: Annotated[str, typer.Argument(help="A model, or model.tag.")]) -> None:
    """Describe a model: parameters, licence, weights, paper."""
    found = catalog.model_info(name)
    asked = catalog.resolve_name(name)[1]
    if asked:
        catalog.weights_info(found.name, asked)  # an unknown tag is an error
    lines = {
        "parameters": f"{found.params:,} ({found.params * 4 / 1e6:,.0f} MB in float32)",
        "multiply-adds": f"{found.macs / 1e9:.2f} G for an image of {found.input_size} px",
        "family": f"{found.family} ({found.domain}, {found.task})",
        "paper": found.paper,
        "graph after": f"{found.reference} ({found.license}), parity {_parity(found)}",
        "also called": ", ".join(found.aliases) or "-",
    }
    OUT.print(f"[bold]{found.name}[/bold]")
    for field, value in lines.items():
        OUT.print(f"  {field:14} {value}", highlight=False)
    if not found.weights:
        OUT.print(f"  {'weights':14} none published", highlight=False)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("  weights", "licence", "classes", "px", "crop", "from"):
        table.add_column(title, overflow="fold")
    for tag in [asked] if asked else found.weights:
        weights = catalog.weights_info(found.name, tag)
        table.add_row(
            f"  {tag}",
            weights.license,
            str(weights.num_classes or "features"),
            "x".join(str(side) for side in weights.preprocessing.input_size),
            f"{weights.preprocessing.crop:g}",
            weights.source if asked else weights.source.partition("://")[0],
        )
    OUT.print(table)
    OUT.print(f'  zoo.create_model("{found.name}", weights="{asked or found.weights[0]}")')


def _parity(found: ModelInfo) -> str:
    return "-" if found.parity is None else f"{found.parity:.0e}"


@app.command()
def augment(
    image: Annotated[str | None, typer.Argument(help="An image file; none lists layers.")] = None,
    policy: Annotated[
        str, typer.Option(help="A layer, or timm's string, such as rand-m9-mstd0.5-inc1.")
    ] = "randaugment",
    out: Annotated[str | None, typer.Option(help="PNG; default: beside the image.")] = None,
    count: Annotated[int, typer.Option(help="Pictures beside the image.")] = 15,
    side: Annotated[int, typer.Option(help="Longer side of a picture in pixels.")] = 224,
    seed: Annotated[int, typer.Option(help="Same seed, same pictures.")] = 0,
) -> None:
    """Draw what an augmentation makes of an image."""
    from zoo.augment.catalog import CATALOG

    if image is None:
        table = Table(box=None, header_style="bold")
        for title in ("augmentation", "for", "kind", "compared with"):
            table.add_column(title)
        for each in CATALOG.values():
            table.add_row(each.name, each.domain, each.kind, each.reference)
        OUT.print(table)
        OUT.print(f"{len(CATALOG)} layers; keras-zoo augment IMAGE --policy NAME draws one")
        return
    from zoo.augment.contact_sheet import check_single, contact_sheet

    check_single(policy)  # before seconds are spent on the start
    path = Path(out or Path(image).with_name(f"{Path(image).stem}-{policy}.png"))
    load_keras()
    contact_sheet(image, policy, count=count, side=side, seed=seed).save(path)
    OUT.print(f"{path}: the image, then {count} of {policy}", highlight=False, soft_wrap=True)


@app.command("recipes")
def recipes_() -> None:
    """List the recipes."""
    for name in recipes.list_recipes():
        OUT.print(f"[bold]{name:24}[/bold] {recipes.RECIPES[name][1]}")


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe, see `keras-zoo recipes`.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder of class folders, CSV with an image column, TFDS name, or a packaged set."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model of the catalog.")] = None,
    weights: Annotated[str | None, typer.Option(help="A tag, file or address.")] = None,
    task: Annotated[
        str | None, typer.Option(help="classification, multi-label or regression.")
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="Of a CSV.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Target column of a CSV; repeatable.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    augment: Annotated[
        str | None, typer.Option(help="A layer on single images, such as randaugment; or none.")
    ] = None,
    augment_strength: Annotated[
        float | None, typer.Option(help="0 to 1; default: searched by --tune, else the usual one.")
    ] = None,
    sampling: Annotated[
        str | None, typer.Option(help="Of skewed classes: over, under, smote, ...; or none.")
    ] = None,
    stem: Annotated[str | None, typer.Option(help="default, or small for 28-64 px.")] = None,
    tune: Annotated[int | None, typer.Option(help="Trials of the search; 0: none.")] = None,
    algorithm: Annotated[
        str | None, typer.Option(help="random, grid, hyperband, bayesian, asha, tpe or bohb.")
    ] = None,
    search_epochs: Annotated[int | None, typer.Option(help="Epochs of a trial.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of the final training.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Repetitions, where a recipe compares.")] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Ways to compare: probe, full, staged, lora, scratch; by commas."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use only so many examples.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes of the search.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same result.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Smallest size, to see it work.")] = False,
    out: Annotated[
        str | None, typer.Option(help="Run folder; default: a new one in runs/.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")
    ] = False,
    config: Annotated[str | None, typer.Option(help="A config.json to run again.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Run a recipe from data to report."""
    given = {
        "data": data, "model": model, "weights": weights, "task": task,
        "image_column": image_column, "target_columns": tuple(target) if target else None,
        "image_size": image_size, "augment": augment, "augment_strength": augment_strength,
        "sampling": sampling, "stem": stem, "tune": tune, "algorithm": algorithm,
        "search_epochs": search_epochs, "epochs": epochs, "seeds": seeds, "limit": limit,
        "methods": tuple(methods.replace(" ", "").split(",")) if methods else None,
        "workers": workers, "seed": seed, "smoke": smoke or None, "out": out,
        "resume": resume or None, "quiet": quiet or None,
    }  # fmt: skip
    options = {name: value for name, value in given.items() if value is not None}
    options = {**_configured(recipe, config, options), **options}
    if recipe in recipes.RECIPES and "out" not in options:  # to be said on an interruption
        from recipes.folder import default_folder

        options["out"] = str(default_folder(recipe))
    load_keras()
    try:
        result = recipes.run(recipe, **options)
    except KeyboardInterrupt:
        ERR.print(
            f"Interrupted. Go on with: keras-zoo run {recipe} --out {options['out']} --resume",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    _summary(result)


def _configured(recipe: str, config: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """The options to start from: those of `--config`, or of the run that `--resume` continues."""
    from recipes.folder import CONFIG, read_config

    path = config
    if path is None and options.get("resume") and "out" in options:
        resumed = Path(options["out"]) / CONFIG
        path = str(resumed) if resumed.exists() else None
    if path is None:
        return {}
    name, saved = read_config(path)
    if name != recipe:
        raise OptionValueError(f"`{path}` is of the recipe {name}, not {recipe}.")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}


def _summary(result: recipes.RunResult) -> None:
    metrics = result.metrics
    head = metrics["headline"]
    label = head.replace("_", " ")
    OUT.print(f"test {label} [bold]{metrics['test'][head]:.4f}[/bold]", end="")
    base = metrics["baseline"]
    OUT.print(f", baseline {base[head]:.4f} ({base['name']})")
    OUT.print(f"{metrics['seconds']['total']:.0f} s; report: {result.folder / 'report.html'}")


app.command()(cli_deploy.export)
app.command()(cli_deploy.predict)
app.command()(cli_profile.profile)
app.command()(cli_serve.serve)


def main() -> None:
    """Entry point: a known error is one line and exit code 2, an interruption 130."""
    try:
        code = app(standalone_mode=False)  # click hands an Exit's code back, it does not raise it
    except ZooError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        ERR.print("Interrupted.")
        sys.exit(130)
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            _fail(error.format_message())
        raise
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    ERR.print(f"[bold red]error:[/bold red] {_escaped(message)}", highlight=False, soft_wrap=True)
    sys.exit(2)


def _escaped(message: str) -> str:
    from rich.markup import escape

    return escape(" ".join(message.split()))


if __name__ == "__main__":
    main()
