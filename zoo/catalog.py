"""What exists: lists and describes models from the static index. Imports no Keras."""

from __future__ import annotations

import fnmatch
import functools
import importlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import UnknownModelError, UnknownNameError, did_you_mean
from zoo.spec import ModelInfo, WeightsInfo

if TYPE_CHECKING:
    from zoo.spec import Family, Variant

DOMAINS = ("image",)
# Licences that ask for no more than a notice: what `license="permissive"` takes.
PERMISSIVE = frozenset({"apache-2.0", "bsd-2-clause", "bsd-3-clause", "isc", "mit", "unlicense"})
_INDEX = Path(__file__).with_name("index.json")
_REGISTRY = Path(__file__).with_name("weights") / "registry.json"


@functools.cache
def _index() -> dict[str, ModelInfo]:
    records = json.loads(_INDEX.read_text(encoding="utf-8"))
    return {name: ModelInfo.from_record(name, record) for name, record in records.items()}


@functools.cache
def _aliases() -> dict[str, str]:
    return {alias: name for name, info in _index().items() for alias in info.aliases}


@functools.cache
def _registry() -> dict[str, dict[str, Any]]:
    registry: dict[str, dict[str, Any]] = json.loads(_REGISTRY.read_text(encoding="utf-8"))
    return registry


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Orders resnet18 before resnet101."""
    return [(1, int(p), "") if p.isdigit() else (0, 0, p) for p in re.split(r"(\d+)", name)]


def list_models(
    pattern: str | None = None,
    *,
    domain: str | None = None,
    task: str | None = None,
    family: str | None = None,
    pretrained: bool | None = None,
    license: str | None = None,  # noqa: A002 - the field's word
    max_params: int | None = None,
) -> list[str]:
    """Lists catalog names in natural order.

    Args:
        pattern: Shell-style, such as `resnet*`; without a wildcard it must match a whole name.
        domain: Such as `image`.
        task: Such as `classify`.
        family: Such as `resnet`.
        pretrained: True keeps models with published weights, False those without.
        license: Keeps models of which some published weights have this licence, such as
            `apache-2.0`, or, with `permissive`, one that asks for no more than a notice.
        max_params: Largest number of trainable parameters.

    Raises:
        UnknownNameError: A domain, task or family that no model has.
    """
    models = list(_index().values())
    for field, value in (("domain", domain), ("task", task), ("family", family)):
        if value is not None:
            known = sorted({getattr(m, field) for m in models})
            if value not in known:
                raise UnknownNameError(
                    f"Unknown {field} `{value}`.{did_you_mean(value, known)} "
                    f"There are: {', '.join(known)}."
                )
            models = [m for m in models if getattr(m, field) == value]
    if pretrained is not None:
        models = [m for m in models if bool(m.weights) == pretrained]
    if license is not None:
        wanted = PERMISSIVE if license == "permissive" else {license.lower()}
        models = [m for m in models if wanted.intersection(m.weights_licenses)]
    if max_params is not None:
        models = [m for m in models if m.params <= max_params]
    names: Iterable[str] = (m.name for m in models)
    if pattern is not None:
        names = fnmatch.filter(names, pattern)
    return sorted(names, key=natural_key)


def resolve_name(name: str) -> tuple[str, str | None]:
    """Splits `arch.tag` and follows aliases; returns the catalog name and the tag, if given.

    Raises:
        UnknownModelError: No such model; the close names are listed.
    """
    arch, _, tag = name.partition(".")
    arch = _aliases().get(arch, arch)
    if arch not in _index():
        raise UnknownModelError(
            f"Unknown model `{name}`.{did_you_mean(arch, [*_index(), *_aliases()])} "
            "zoo.list_models() lists them all."
        )
    return arch, tag or None


def model_info(name: str) -> ModelInfo:
    """Describes a model without importing Keras.

    Raises:
        UnknownModelError: No such model.
    """
    return _index()[resolve_name(name)[0]]


def weights_info(name: str, tag: str = "default") -> WeightsInfo:
    """Describes one published checkpoint of a model.

    Raises:
        UnknownNameError: The model has no such weights; those it has are listed.
    """
    arch = resolve_name(name)[0]
    records = _registry().get(arch, {})
    if tag == "default" and records:
        tag = next(iter(records))
    if tag not in records:
        have = f"It has: {', '.join(records)}." if records else "None are published for it."
        raise UnknownNameError(
            f"`{arch}` has no weights `{tag}`.{did_you_mean(tag, records)} {have} "
            "A path that exists, `hf://owner/repo`, `package:archive/member` or `https://...` "
            "works too."
        )
    return WeightsInfo.from_record(tag, records[tag])


def find_variant(name: str) -> tuple[Family, Variant]:
    """Imports the family of a catalog name and returns its declaration and the variant's."""
    info = model_info(name)
    package = importlib.import_module(f"zoo.{info.domain}")
    family: Family = package.load_family(info.family)
    return family, next(v for v in family.variants if v.name == info.name)
