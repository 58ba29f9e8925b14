"""Writes PyTorch checkpoint files byte by byte, as torch.save lays them out, without torch."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "complex64": "ComplexFloatStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@dataclass(frozen=True)
class Name:
    """A global: `collections OrderedDict`."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """A function applied to arguments, and attributes set on what it returns."""

    function: Name
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True)
class Persistent:
    """A reference to something outside of the pickle."""

    id: tuple[Any, ...]


@dataclass(frozen=True)
class Storage:
    """Elements of one type under a key; `declared` is the count that the pickle claims."""

    key: str
    content: np.ndarray
    declared: int | None = None

    @property
    def reference(self) -> Persistent:
        kind = Name("torch", STORAGES[self.content.dtype.name])
        count = self.content.size if self.declared is None else self.declared
        return Persistent(("storage", kind, self.key, "cpu", count))


def tensor(
    storage: Storage,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int = 0,
    *extra: Any,
) -> Call:
    hooks = Call(Name("collections", "OrderedDict"), ())
    arguments = (storage.reference, offset, shape, strides, False, hooks, *extra)
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), arguments)


def contiguous(storage: Storage, shape: tuple[int, ...]) -> Call:
    strides = np.cumprod((1, *shape[:0:-1]))[::-1] if shape else ()
    return tensor(storage, shape, tuple(int(stride) for stride in strides))


def encode(value: Any) -> bytes:
    """Returns a protocol 2 pickle of plain values, names, calls and references."""
    return b"\x80\x02" + _encode(value) + b"."


def _encode(value: Any) -> bytes:
    match value:
        case Name():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            call = _encode(value.function) + _encode(value.arguments) + b"R"
            return call if value.state is None else call + _encode(value.state) + b"b"
        case Persistent():
            return _encode(value.id) + b"Q"
        case OrderedDict():
            empty = Call(Name("collections", "OrderedDict"), ())
            return _encode(empty) + _items(value)
        case dict():
            return b"}" + _items(value)
        case tuple():
            return b"(" + b"".join(map(_encode, value)) + b"t"
        case list():
            return b"](" + b"".join(map(_encode, value)) + b"e"
        case _:  # None, bool, int, float, str: framed by protocol and STOP
            return pickle.dumps(value, protocol=2)[2:-1]


def _items(mapping: Mapping[Any, Any]) -> bytes:
    pairs = b"".join(_encode(key) + _encode(item) for key, item in mapping.items())
    return b"(" + pairs + b"u"


def write_zip(
    path: Path,
    value: Any,
    *storages: Storage,
    extra: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Writes the layout of torch >= 1.6; `value` may be a pickle already."""
    members = {"data.pkl": value if isinstance(value, bytes) else encode(value)}
    members["byteorder"] = b"little"
    members |= {f"data/{storage.key}": storage.content.tobytes() for storage in storages}
    members |= {"version": b"3\n", **(extra or {})}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{path.stem}/{name}", content)
    return path


def write_legacy(path: Path, value: Any, *storages: Storage, little_endian: bool = True) -> Path:
    """Writes the layout of torch < 1.6."""
    machine = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"int": 4}}
    file = io.BytesIO()
    keys = [storage.key for storage in storages]
    for part in (MAGIC, 1001, machine, value, keys):
        file.write(encode(_legacy(part)))
    for storage in storages:
        file.write(struct.pack("<q", storage.content.size) + storage.content.tobytes())
    path.write_bytes(file.getvalue())
    return path


def _legacy(value: Any) -> Any:
    """Adds the view entry that references have in old files."""
    match value:
        case Persistent():
            return Persistent((*value.id, None))
        case Call():
            return Call(value.function, _legacy(value.arguments), value.state)
        case tuple():
            return tuple(map(_legacy, value))
        case dict():
            return type(value)((key, _legacy(item)) for key, item in value.items())
        case _:
            return value
