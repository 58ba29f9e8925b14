"""Saving a model as a folder and opening folders and repositories, ours and timm's."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from zoo.blocks import deferred_kernels
from zoo.errors import CheckpointError, OptionValueError, SourceError, UnknownModelError
from zoo.factory import create_model
from zoo.hub import check_can_push, parse_target, push_folder
from zoo.model_card import MARK, license_of, model_card
from zoo.preprocessing import preprocessor
from zoo.record import ModelRecord, get_record, set_record
from zoo.spec import WeightsInfo
from zoo.weights.convert import export_tensors
from zoo.weights.loading import CONFIG_KEY, family_of, timm_weights_info, write_tensors
from zoo.weights.sources import fetch_config
from zoo.weights.store import atomic_path


def save_pretrained(
    model: keras.Model,
    folder_or_repo: str | os.PathLike[str],
    *,
    metrics: Mapping[str, float] | None = None,
    data: str | Sequence[str] | None = None,
    license: str | None = None,  # noqa: A002 - the field's word
    card: str | None = None,
    private: bool | None = None,
) -> None:
    """Saves a catalog model as `config.json`, `model.safetensors` and a model card, `README.md`.

    The folder is timm's too, where its model of that name has the same graph: tensors under
    timm's names, its `config.json`, preprocessing included. A `README.md` that keras-zoo did not
    write stays.

    Args:
        model: A model of `zoo.create_model`.
        folder_or_repo: A folder, or `hf://owner/repo` to push to the Hugging Face Hub in one
            commit, with the token of HF_TOKEN or of `hf auth login`.
        metrics: For the card: measured values by name, such as `{"accuracy": 0.93}`.
        data: For the card: what it was trained and measured on; names of data sets on the Hub
            become links.
        license: Of the weights, such as "apache-2.0"; None takes that of the weights the model was
            made from. A push needs one.
        card: Markdown to put first in the card.
        private: Whether a repository that a push makes is private.

    Raises:
        UnknownModelError: zoo did not make this model.
        OptionValueError: A backbone, or a model whose layers `fuse` or adapters changed, which
            `from_pretrained` could not rebuild; a metric that is no number; for a push: no
            licence, a name that the Hub does not allow, or `private=True` and the repository is
            public.
        SourceError: The Hub cannot be reached or refuses.
        OfflineError: A push while offline mode is on.
    """
    place = os.fspath(folder_or_repo)
    record = _saveable(model)
    given: dict[str, Any] = {"metrics": metrics, "data": data, "license": license, "card": card}
    if not place.startswith("hf://"):
        if private is not None:
            raise OptionValueError(
                f"`private` is of a repository, hf://owner/repo; got the folder {place!r}."
            )
        _write(model, record, Path(place), Path(place).resolve().name, given)
        return
    repo = parse_target(place)
    if license_of(record, license) == "unknown":
        raise OptionValueError(
            f"`license` must be named to share weights, and `{model.name}` knows none; pass "
            'license="apache-2.0" or whichever it is.'
        )
    check_can_push(repo)
    with tempfile.TemporaryDirectory() as staging:
        folder = Path(staging)
        _write(model, record, folder, repo, given)
        push_folder(folder, repo, private=private, message=f"Upload {record.architecture}")


def _saveable(model: keras.Model) -> ModelRecord:
    record = get_record(model)
    if record is None:
        raise UnknownModelError(
            f"`{model.name}` is no model of the catalog; save it with Keras' own model.save."
        )
    if isinstance(model.output, dict):
        raise OptionValueError(
            f"`{model.name}` is a backbone, and a folder holds a whole model. Write its weights "
            "with zoo.export_weights and pass them to zoo.create_backbone(..., weights=file)."
        )
    with deferred_kernels():
        fresh = create_model(record.architecture, **record.options)
    differing = _shapes(model).items() ^ _shapes(fresh).items()
    if differing:
        raise OptionValueError(
            f"`{model.name}` has other weights than a {record.architecture} of its options "
            f"({', '.join(sorted({path for path, _ in differing})[:3])}, ...), so nothing could "
            "open the folder. Save what was fused as a `.keras` file; merge adapters by "
            "zoo.finetune.merge_lora first."
        )
    return record


def _shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """The shapes of weights by layer and name."""
    return {
        f"{layer.name}/{weight.name}": tuple(weight.shape)
        for layer in model.layers
        for weight in layer.weights
    }


def _write(
    model: keras.Model, record: ModelRecord, folder: Path, name: str, given: dict[str, Any]
) -> None:
    """Writes the folder; what can be refused is before anything is written."""
    config = json.dumps(_config(model, record, given["license"]), indent=1) + "\n"
    texts = {"README.md": model_card(model, name, **given), "config.json": config}
    family = family_of(model)
    folder.mkdir(parents=True, exist_ok=True)
    readme = folder / "README.md"
    if readme.exists() and MARK not in readme.read_text("utf-8", errors="replace"):
        del texts["README.md"]
    write_tensors(folder / "model.safetensors", export_tensors(model, family.layouts[0]))
    for file, text in texts.items():  # config.json last: without it the folder is no model
        with atomic_path(folder / file) as partial:
            partial.write_text(text, encoding="utf-8")


def _config(model: keras.Model, record: ModelRecord, license: str | None) -> dict[str, Any]:  # noqa: A002
    """The content of `config.json`."""
    classes, prep = record.options.get("num_classes", 1000), preprocessor(model)
    if license is not None:
        of_prep = replace(prep.preprocessing, input_size=prep.size)
        weights = record.weights or WeightsInfo(
            tag="", source="", license="", num_classes=classes, preprocessing=of_prep
        )
        record = replace(record, weights=replace(weights, license=license_of(record, license)))
    return {
        "architecture": record.architecture,
        "num_classes": classes,
        "pretrained_cfg": {  # timm's
            "num_classes": classes,
            "input_size": [prep.channels, *prep.size],
            "mean": prep.preprocessing.mean,
            "std": prep.preprocessing.std,
            "crop_pct": prep.preprocessing.crop,
            "interpolation": prep.preprocessing.interpolation,
        },
        CONFIG_KEY: record.to_json(),
    }


def from_pretrained(folder_or_repo: str | os.PathLike[str], **options: Any) -> keras.Model:
    """Opens a model folder or a Hugging Face repository, ours or timm's.

    Args:
        folder_or_repo: A folder with `config.json` and `model.safetensors`, or `owner/repo`, or
            `hf://owner/repo@revision`.
        **options: As in `zoo.create_model`; they override those saved.

    Raises:
        UnknownModelError: An architecture that the catalog does not hold.
        CheckpointError: The `config.json` is of another kind.
        SourceError: It cannot be had.
        WeightsMismatchError: The tensors are of another architecture.
    """
    place = os.fspath(folder_or_repo)
    is_folder = Path(place).expanduser().is_dir()
    if not is_folder and place.startswith((".", "/", "~")):
        raise SourceError(f"There is no folder `{place}`.")
    source = place if is_folder or "://" in place else f"hf://{place}"
    saved = _described(fetch_config(source), source)
    model = create_model(saved.architecture, weights=source, **{**saved.options, **options})
    made = get_record(model) or saved
    same_head = made.options.get("num_classes") == len(saved.class_names)
    names = saved.class_names if same_head else ()
    set_record(model, replace(made, class_names=names, task=saved.task))
    return model


def _described(config: dict[str, Any], source: str) -> ModelRecord:
    if isinstance(config.get(CONFIG_KEY), dict):
        return ModelRecord.from_json(config[CONFIG_KEY])
    if "architecture" not in config:
        raise CheckpointError(
            f"The config.json of `{source}` names no `architecture`, so it is neither keras-zoo's "
            f"nor timm's; it has: {', '.join(config) or 'nothing'}."
        )
    names = config.get("label_names")  # timm: of a set other than ImageNet
    channels = (config.get("pretrained_cfg") or {}).get("input_size", (3,))[0]
    return ModelRecord(
        architecture=str(config["architecture"]),
        options={} if channels == 3 else {"in_channels": channels},
        weights=timm_weights_info(config, source),
        class_names=tuple(map(str, names)) if isinstance(names, list) else (),
    )
