"""The README.md of a shared model, with the metadata that the Hugging Face Hub reads."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from zoo.catalog import model_info
from zoo.errors import OptionValueError
from zoo.preprocessing import Preprocessor, preprocessor
from zoo.record import ModelRecord, get_record

# In a README.md that may be written anew; the file without this line is the user's.
MARK = "<!-- Written by keras-zoo. Delete this line to keep the file as you edit it. -->"
# What the Hub takes as `license`; others are `other` with a name.
HUB_LICENSES = {
    "afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0", "bsd",
    "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "cc", "cc-by-2.0",
    "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-2.0",
    "creativeml-openrail-m", "ecl-2.0", "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2",
    "fair-noncommercial-research-license", "gemma", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc",
    "lgpl", "lgpl-2.1", "lgpl-3.0", "llama2", "llama3", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl",
    "ncsa", "odbl", "odc-by", "ofl-1.1", "openrail", "openrail++", "osl-3.0", "pddl",
    "postgresql", "unknown", "unlicense", "wtfpl", "zlib",
}  # fmt: skip
_DATA_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)  # a data set of the Hub
_HUB_SOURCE = re.compile(r"hf://([\w.-]+/[\w.-]+)", re.ASCII)
_SHOWN = 20  # class names in the text; config.json has them all


def model_card(
    model: keras.Model,
    place: str,
    *,
    metrics: Mapping[str, float] | None = None,
    data: str | Sequence[str] | None = None,
    license: str | None = None,  # noqa: A002 - the field's word
    card: str | None = None,
) -> str:
    """Writes what a reader and the Hub need to know of a model.

    Args:
        model: A model of the catalog.
        place: `owner/repo`, or the folder's name.
        metrics: Measured values by name, such as `{"accuracy": 0.93}`.
        data: What it was trained and measured on: data sets of the Hub by their names, or words.
        license: Of the weights; None takes the record's.
        card: Markdown to put first, such as what the model is for.

    Raises:
        OptionValueError: A metric that is no finite number, an empty name, or a `card` with
            metadata of its own.
    """
    from huggingface_hub import ModelCard

    record = get_record(model) or ModelRecord(architecture=model.name)
    sets = _named(data)
    values = _checked(metrics)
    if card is not None and card.lstrip().startswith("---"):
        raise OptionValueError(
            "`card` must be Markdown without metadata of its own, which is written from the "
            "model; got text that starts with ---."
        )
    chosen = license_of(record, license)
    head = _metadata(record, place, sets, values, chosen)
    parts = [
        MARK,
        f"# {place.rpartition('/')[2]}",
        card.strip() if card else _summary(model, record),
        _use(place),
        _architecture(model, record),
        _preprocessing(preprocessor(model)),
        _classes(record, model),
        _measured(sets, values),
        _license(record, chosen),
    ]
    return str(ModelCard(f"---\n{head}\n---\n\n" + "\n\n".join(filter(None, parts)) + "\n"))


def license_of(record: ModelRecord, given: str | None = None) -> str:
    """The licence of a model's weights, or "unknown".

    Raises:
        OptionValueError: An empty one was given.
    """
    if given is not None and not given.strip():
        raise OptionValueError(f"`license` must not be empty; got {given!r}.")
    known = record.weights.license if record.weights else ""
    return (given or known or "unknown").strip().lower()


def _named(data: str | Sequence[str] | None) -> list[str]:
    names = [data] if isinstance(data, str) else list(data or ())
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise OptionValueError(f"`data` must be names of data sets; got data={data!r}.")
    return names


def _checked(metrics: Mapping[str, float] | None) -> dict[str, float]:
    values = {}
    for name, value in (metrics or {}).items():
        number = float(value) if _is_number(value) else math.nan
        if not isinstance(name, str) or not name.strip() or not math.isfinite(number):
            raise OptionValueError(
                f"`metrics` must map names to finite numbers; got {name!r}: {value!r}."
            )
        values[name] = number
    return values


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, bool)


# --- metadata -----------------------------------------------------------------------------------


def _metadata(
    record: ModelRecord, place: str, sets: list[str], values: dict[str, float], chosen: str
) -> str:
    """The YAML block, without its fences."""
    from huggingface_hub import EvalResult, ModelCardData

    info = model_info(record.architecture)
    task = _task(record)
    on_hub = [name for name in sets if _DATA_ID.fullmatch(name)]
    results = None
    if task and len(sets) == 1:  # of several, none says which one the values belong to
        results = [
            EvalResult(
                task_type=task,
                dataset_type=on_hub[0] if on_hub else "custom",
                dataset_name=sets[0],
                metric_type=name,
                metric_value=value,
            )
            for name, value in values.items()
        ]
    known = chosen in HUB_LICENSES
    data = ModelCardData(
        library_name="keras",
        pipeline_tag=task,
        license=chosen if known else "other",
        license_name=None if known else re.sub(r"[^a-z0-9.+-]+", "-", chosen).strip("-"),
        base_model=_base(record),
        datasets=on_hub or None,
        metrics=list(values) or None,
        model_name=place.rpartition("/")[2],
        eval_results=results or None,
        tags=["keras-zoo", info.family, record.architecture],
    )
    if not results:
        data.model_name = None
    return data.to_yaml()


def _task(record: ModelRecord) -> str | None:
    """The Hub's name of the task; it has none for a regression on images."""
    if record.options.get("num_classes") == 0:
        return "image-feature-extraction"
    return None if record.task == "regression" else "image-classification"


def _base(record: ModelRecord) -> str | None:
    """The repository that the weights came from."""
    match = _HUB_SOURCE.match(record.weights.source) if record.weights else None
    return match[1] if match else None


# --- text ---------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    """A name from outside as one line that Markdown leaves alone."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _table(rows: Mapping[str, object]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def _summary(model: keras.Model, record: ModelRecord) -> str:
    outputs = int(model.output_shape[-1])
    what = {
        "regression": f"predicts {outputs} values of an image",
        "multi-label": f"says which of {outputs} labels an image has",
    }.get(record.task, f"names which of {outputs} classes an image shows")
    if record.options.get("num_classes") == 0:
        what = f"turns an image into {outputs} features"
    return f"A {record.architecture} that {what}."


def _use(place: str) -> str:
    predict = 'zoo.deploy.predictor(model).classify(["photo.jpg"], top=5)'
    return (
        "## Use\n\n```python\nimport zoo\n\n"
        f'model = zoo.from_pretrained("{place}")\n{predict}\n```\n\n'
        "With [keras-zoo](https://pypi.org/project/keras-zoo/); the tensors have timm's names."
    )


def _architecture(model: keras.Model, record: ModelRecord) -> str:
    info = model_info(record.architecture)
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    rows: dict[str, object] = {
        "model": record.architecture,
        "family": f"{info.family} ({info.paper})",
        "parameters": f"{model.count_params():,} ({trainable:,} trainable as saved)",
        "input": " x ".join(str(side or "any") for side in model.input_shape[1:]),
        "outputs": model.output_shape[-1],
    }
    options = {k: v for k, v in record.options.items() if k not in ("num_classes", "input_size")}
    if options:
        rows["options"] = ", ".join(f"{k}={_plain(str(v))}" for k, v in options.items())
    return "## Architecture\n\n" + _table(rows)


def _preprocessing(prepare: Preprocessor) -> str:
    asked = prepare.preprocessing
    where = "before the model" if prepare.normalise else "inside the model"
    numbers = {name: ", ".join(f"{n:g}" for n in getattr(asked, name)) for name in ("mean", "std")}
    return "## Preprocessing\n\n" + _table(
        {
            "size": f"{prepare.size[0]} x {prepare.size[1]} px",
            "resize": f"short side to size / {asked.crop:g}, {asked.interpolation}, centre crop",
            "normalise": f"{where}: (x / 255 - mean) / std",
            "mean": numbers["mean"],
            "std": numbers["std"],
        }
    )


def _classes(record: ModelRecord, model: keras.Model) -> str:
    names = record.class_names
    if not names or len(names) != model.output_shape[-1]:
        return ""
    shown = ", ".join(_plain(name) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more, in `config.json`" if len(names) > _SHOWN else ""
    return f"## Classes\n\n{shown}{more}."


def _measured(sets: list[str], values: dict[str, float]) -> str:
    said = ", ".join(_plain(name) for name in sets) or "Not stated"
    text = f"## Data\n\n{said}.\n\n## Metrics\n\n"
    return text + (_table({_plain(k): f"{v:g}" for k, v in values.items()}) if values else "None.")


def _license(record: ModelRecord, chosen: str) -> str:
    lines = [f"The weights are under `{chosen}`."]
    if chosen == "unknown":
        lines = ["The licence of the weights is unknown. Name it before you share them."]
    started = record.weights
    if started is not None and started.source:
        lines.append(
            f"They started from `{started.source}`, whose licence is "
            f"`{started.license or 'unknown'}`."
        )
    return "## Licence\n\n" + " ".join(lines)
