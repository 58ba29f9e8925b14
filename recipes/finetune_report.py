"""The report of a fine-tuning: both networks' curves over the same seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recipes.data import Split
from recipes.folder import RunFolder
from recipes.image_report import (
    footer,
    picture,
    sampling_blocks,
    test_blocks,
    use_blocks,
    words,
)
from recipes.training import METRICS, History
from tuning.page.curves import learning_curves
from tuning.page.document import KeyNumbers, Section, Table, Text, render

Array = np.ndarray[Any, np.dtype[Any]]
TITLES = {
    "pretrained": "pretrained",
    "scratch": "from scratch",
    "probe": "linear probe",
    "full": "full",
    "staged": "staged, layer decay",
    "lora": "LoRA",
}
SCHEDULE = (
    "The pretrained network first learns its head on features computed once, then its last two "
    "stages, then all of it; batch norms keep their pretrained statistics. The network from "
    "scratch gets at least the same seconds."
)
COMPARISON = (
    "Every method may train for {arm_seconds} seconds, tracing of its graph included; the linear "
    "probe needs less. Batch norms keep their pretrained statistics but from scratch. Saved is "
    "what a method changes: the head, the factors with the head, or all weights in float32."
)


@dataclass(kw_only=True)
class Arm:
    """One network trained once."""

    name: str
    seed: int
    history: History
    seconds: list[float]  # since the arm began, at the end of each epoch
    validation: float  # best value of the metric
    test: dict[str, float]
    epochs: int
    trainable: int | None = None  # parameters, of the last phase; where methods are compared
    saved_bytes: int | None = None  # of what the method learned


def write_report(
    folder: RunFolder,
    metrics: dict[str, Any],
    *,
    split: Split,
    outputs: Array,
    arms: list[Arm],
) -> None:
    """Writes the pictures and `report.html`."""
    compares = "methods" in metrics
    result = [_methods(metrics)] if compares else [_numbers(metrics, arms)]
    said = COMPARISON.format(**metrics) if compares else SCHEDULE
    sections = [
        Section(title="Result", blocks=[*result, _arms(metrics), *sampling_blocks(metrics)]),
        Section(title="Curves", blocks=[_curves(folder, metrics, arms), Text(said)]),
        Section(title="Test", blocks=test_blocks(folder, metrics, split, outputs)),
        Section(title="Use it", blocks=use_blocks(metrics)),
    ]
    page = render(
        f"{metrics['data']['name']}: {metrics['model']['name']}, fine-tuned",
        f"{metrics['data']['train']:,} training images, {len({arm.seed for arm in arms})} seeds",
        sections,
        footer(metrics),
    )
    folder.write_text("report.html", page)


def _numbers(metrics: dict[str, Any], arms: list[Arm]) -> KeyNumbers:
    head = metrics["headline"]
    label = words(head).lower()
    seconds = {
        name: np.mean([a.seconds[-1] for a in arms if a.name == name])
        for name in ("pretrained", "scratch")
    }
    return KeyNumbers(
        [
            (
                f"Pretrained, test {label}",
                f"{metrics['test'][head]:.4f}",
                f"mean of the seeds, {seconds['pretrained']:.0f} s of training",
            ),
            (
                "From scratch",
                f"{metrics['baseline'][head]:.4f}",
                f"the same network, {seconds['scratch']:.0f} s of training",
            ),
            ("Difference", f"{metrics['gain']:+.4f}", "pretrained less from scratch"),
            (
                "Classical",
                f"{metrics['classical'][head]:.4f}",
                metrics["classical"]["name"],
            ),
        ]
    )


def _methods(metrics: dict[str, Any]) -> Table:
    head = metrics["headline"]
    rows = [
        [
            TITLES[name],
            found[head],
            f"{found['lowest']:.4f} to {found['highest']:.4f}",
            round(found["seconds"], 1),
            f"{found['trainable']:,}",
            f"{found['saved_bytes'] / 1e6:.2f}",
        ]
        for name, found in metrics["methods"].items()
    ]
    label = f"test {words(head).lower()}"
    return Table(
        rows=rows,
        columns=["method", label, "of the seeds", "seconds", "trainable parameters", "saved, MB"],
        caption=f"Mean of the seeds; the exported model is of {TITLES[metrics['exported_method']]}",
    )


def _arms(metrics: dict[str, Any]) -> Table:
    columns = [name for name in metrics["arms"][0] if not name.startswith("accuracy_")]
    return Table(
        rows=[
            [TITLES.get(arm[c], arm[c]) if c == "name" else arm[c] for c in columns]
            for arm in metrics["arms"]
        ],
        columns=[words(c) for c in columns],
        caption=f"Every training, measured on {metrics['data']['test']:,} held-out images",
    )


def _curves(folder: RunFolder, metrics: dict[str, Any], arms: list[Arm]) -> Any:
    metric = METRICS[metrics["task"]][0]
    names = {f"{TITLES[a.name]}, seed {a.seed}": a for a in arms}
    png = learning_curves(
        {name: arm.history for name, arm in names.items()},
        metric=metric,
        x={name: arm.seconds for name, arm in names.items()},
        x_label="Training time (s)",
    )
    return picture(
        folder,
        "learning_curves.png",
        png,
        f"{words(metric)} of every training over its time",
    )
