"""The report of an image run: pictures as files, and one page that holds them all."""

from __future__ import annotations

from typing import Any

import numpy as np

from recipes.data import Split
from recipes.evaluation import images_of
from recipes.folder import RunFolder
from recipes.training import METRICS, Trained
from tuning.page.curves import learning_curves
from tuning.page.document import Block, KeyNumbers, Picture, Section, Table, Text, render
from tuning.page.predictions import confusion_matrix, image_grid, scatter
from tuning.page.trials import leaderboard_chart, slices
from tuning.tune import COLUMNS, TuningResult

Array = np.ndarray[Any, np.dtype[Any]]
WORST = 15  # wrong answers shown


def write_report(
    folder: RunFolder,
    metrics: dict[str, Any],
    *,
    split: Split,
    outputs: Array,
    trained: Trained,
    search: TuningResult | None,
) -> None:
    """Writes the pictures, the leaderboard and `report.html`."""
    sections = [Section(title="Result", blocks=_result(metrics))]
    if search is not None:
        sections.append(Section(title="Search", blocks=_search(folder, search)))
    sections.append(Section(title="Training", blocks=_training(folder, metrics, trained)))
    sections.append(Section(title="Test", blocks=test_blocks(folder, metrics, split, outputs)))
    sections.append(Section(title="Use it", blocks=use_blocks(metrics)))
    page = render(
        f"{metrics['data']['name']}: {metrics['model']['name']}",
        f"{metrics['task']}, {metrics['data']['train']:,} training images",
        sections,
        footer(metrics),
    )
    folder.write_text("report.html", page)


def footer(metrics: dict[str, Any]) -> str:
    """What a reader needs to get the same numbers again."""
    versions = ", ".join(f"{k} {v}" for k, v in metrics["versions"].items())
    return f"Seed {metrics['seed']}. {versions}."


def picture(
    folder: RunFolder,
    name: str,
    png: bytes,
    alt: str,
    caption: str = "",
    *,
    photograph: bool = False,
) -> Picture:
    """Writes a picture as a file of the run and returns it as a block of the page."""
    folder.write_bytes(name, png)
    return Picture(png=png, alt=alt, caption=caption, photograph=photograph)


def words(metric: str) -> str:
    """A metric's name as people write it."""
    return metric.replace("_", " ").replace("top5", "top-5").capitalize()


def _result(metrics: dict[str, Any]) -> list[Block]:
    test, base, head = metrics["test"], metrics["baseline"], metrics["headline"]
    note = f"{metrics['data']['test']:,} held-out images"
    if head == "accuracy":
        note += f", 95 % interval {test['accuracy_low']:.3f} to {test['accuracy_high']:.3f}"
    numbers = [
        (f"Test {words(head).lower()}", f"{test[head]:.4f}", note),
        ("Baseline", f"{base[head]:.4f}", f"{base['name']}, {base['examples']:,} examples"),
        ("Constant answer", f"{base['constant'][head]:.4f}", "what no model at all reaches"),
        ("Parameters", f"{metrics['model']['params']:,}", metrics["model"]["name"]),
    ]
    return [KeyNumbers(numbers)]


def _search(folder: RunFolder, search: TuningResult) -> list[Block]:
    board = search.leaderboard()
    folder.write_text("leaderboard.csv", board.to_csv(index=False))
    maximize = search.direction == "max"
    blocks: list[Block] = [
        picture(
            folder,
            "leaderboard.png",
            leaderboard_chart(board, maximize=maximize),
            f"{search.objective} of every trial, and the best so far",
        ),
        Table(
            rows=[["" if _missing(v) else v for v in row] for row in board.itertuples(index=False)],
            columns=[str(c).replace("_", " ") for c in board.columns],
            caption=f"{len(board)} trials in {search.seconds:.0f} s, best {search.objective} first",
        ),
    ]
    if len(board) > 2:
        blocks.append(
            picture(
                folder,
                "slices.png",
                slices(
                    board,
                    "score",
                    maximize=maximize,
                    hyperparameters=[c for c in board.columns if c not in COLUMNS],
                ),
                "Score against each hyperparameter",
            )
        )
    blocks += [Text(f"Trial {name} failed: {why}") for name, why in search.failures.items()]
    return blocks


def _missing(value: Any) -> bool:
    return value is None or value != value or str(value) == "<NA>"


def _training(folder: RunFolder, metrics: dict[str, Any], trained: Trained) -> list[Block]:
    curve = {"final": trained.history}
    metric = METRICS[metrics["task"]][0]
    values = metrics["hyperparameters"]
    return [
        picture(
            folder,
            "learning_curves.png",
            learning_curves(curve, metric=metric),
            f"{words(metric)} by epoch",
            f"Kept: the weights of epoch {metrics['best_epoch']}, the best on the validation side.",
        ),
        picture(folder, "loss_curves.png", learning_curves(curve, metric="loss"), "Loss by epoch"),
        Table(
            rows=[[name.replace("_", " "), value] for name, value in values.items()],
            columns=["hyperparameter", "value"],
            caption="Trained with",
        ),
        *sampling_blocks(metrics),
    ]


def sampling_blocks(metrics: dict[str, Any]) -> list[Block]:
    """What sampling did to the training side; nothing where there was none."""
    sampling = metrics.get("sampling")
    if not sampling:
        return []
    before, after = sampling["before"], sampling["after"]
    return [
        Table(
            rows=[[name, count, after[name]] for name, count in before.items()],
            columns=["class", "training images", "after sampling"],
            caption=f"Sampled by {sampling['method'].replace('_', ' ')}, on the training side only",
        )
    ]


def test_blocks(
    folder: RunFolder, metrics: dict[str, Any], split: Split, outputs: Array
) -> list[Block]:
    """What the test side says: metrics beside the baseline, and where the model errs."""
    table = Table(
        rows=[
            [words(name), value, metrics["baseline"].get(name, "")]
            for name, value in metrics["test"].items()
        ],
        columns=["metric", "test", "baseline"],
        caption="Measured once, on images that neither search nor training saw",
    )
    if metrics["task"] == "classification":
        return [table, *_confusion(folder, split, outputs)]
    if metrics["task"] == "regression":
        return [table, *_scatters(folder, split, outputs)]
    return [table, _label_table(split, outputs)]


def _confusion(folder: RunFolder, split: Split, outputs: Array) -> list[Block]:
    test, names = split.test, split.test.class_names
    predicted = outputs.argmax(axis=1)
    blocks: list[Block] = [
        picture(
            folder,
            "confusion_matrix.png",
            confusion_matrix(test.targets, predicted, names),
            "Confusion matrix of the test side",
        )
    ]
    wrong = np.flatnonzero(predicted != test.targets)
    if not len(wrong):
        return blocks
    shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    sure = shares.max(axis=1) / shares.sum(axis=1)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:WORST]
    captions = [
        f"{names[test.targets[i]]}, not {names[predicted[i]]} ({sure[i]:.2f})" for i in worst
    ]
    blocks.append(
        picture(
            folder,
            "mistakes.png",
            image_grid(list(images_of(test, worst)), captions),
            "Wrong answers the model is surest of",
            f"{len(wrong)} of {len(test)} are wrong; these are the ones it is surest of.",
            photograph=True,
        )
    )
    return blocks


def _scatters(folder: RunFolder, split: Split, outputs: Array) -> list[Block]:
    return [
        picture(
            folder,
            f"predicted_{i}.png",
            scatter(split.test.targets[:, i], outputs[:, i], target=name),
            f"Predicted against true {name}",
        )
        for i, name in enumerate(split.test.class_names)
    ]


def _label_table(split: Split, outputs: Array) -> Table:
    from sklearn.metrics import average_precision_score

    rows = [
        [
            name,
            int(split.test.targets[:, i].sum()),
            float(average_precision_score(split.test.targets[:, i], outputs[:, i])),
        ]
        for i, name in enumerate(split.test.class_names)
        if split.test.targets[:, i].any()
    ]
    return Table(rows=rows, columns=["label", "positives", "average precision"], caption="By label")


def use_blocks(metrics: dict[str, Any]) -> list[Block]:
    """How to go on from here."""
    return [
        Text("From the command line: keras-zoo predict FOLDER/model.keras IMAGE ..."),
        Text('In Python: zoo.deploy.predictor("FOLDER/model.keras").classify("IMAGE", top=5)'),
        Text(f"The same run again: keras-zoo run {metrics['recipe']} --config FOLDER/config.json"),
    ]
