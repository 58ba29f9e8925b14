"""Reads PyTorch checkpoints without PyTorch, and without running what a pickle asks for.

A checkpoint is a pickle that describes tensors and, beside it, the bytes of their storages: as
members of an uncompressed zip (`torch.save` since 1.6) or appended to the pickle (before). The
pickle may name the functions and types listed in `_GLOBALS`, which here build plain descriptions;
any other name refuses the file. Bytes are read only for the tensors that are kept.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

import ml_dtypes
import numpy as np

from zoo.errors import UnsafeCheckpointError

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle of a file from before 1.6
SAVE_AGAIN = (
    "Save it again with `torch.save(model.state_dict(), path)` of torch >= 1.6, or as safetensors."
)
_WRAPPERS = ("state_dict", "model", "model_state_dict", "params")
_LEGACY_PROTOCOL = 1001

# torch name -> little-endian numpy type
_DTYPES: dict[str, np.dtype[Any]] = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "complex64": np.dtype("<c8"),
    "complex128": np.dtype("<c16"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint64": np.dtype("<u8"),
    "uint32": np.dtype("<u4"),
    "uint16": np.dtype("<u2"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


# Named tuples: a pickle can neither set an attribute on them nor fill one it has made itself.
class _Storage(NamedTuple):
    key: str
    dtype: np.dtype[Any]
    elements: int

    @property
    def nbytes(self) -> int:
        return self.elements * self.dtype.itemsize


class _Tensor(NamedTuple):
    storage: _Storage
    dtype: np.dtype[Any]
    offset: int  # in elements of dtype, as are the strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Global:
    """What a pickle gets for a name: callable at most, never a class, never changeable."""

    build: Callable[..., object] | None = None
    dtype: np.dtype[Any] | None = None

    def __call__(self, *arguments: object) -> object:
        if self.build is None:
            raise ValueError("a type is called as a function")
        return self.build(*arguments)

    def __setstate__(self, state: object) -> NoReturn:
        raise ValueError("a function or type is given attributes")


class _StateDict(dict[Any, Any]):
    """A dict that drops attributes, such as the `_metadata` that torch hangs on state dicts."""

    def __setstate__(self, state: object) -> None:
        pass


def _rebuild_tensor(
    storage: _Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    _requires_grad: object = None,
    _hooks: object = None,
    metadata: object = None,
) -> _Tensor:
    """Versions 1 and 2: the storage knows its type."""
    if metadata:  # lazy conjugation or negation: the stored numbers are not yet the tensor's
        raise ValueError(
            f"a tensor is marked {metadata}. Save it after `.resolve_conj().resolve_neg()`."
        )
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor has no storage")
    return _Tensor(storage, storage.dtype, offset, tuple(shape), tuple(strides))


def _rebuild_tensor_v3(
    storage: _Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    _requires_grad: object,
    _hooks: object,
    dtype: _Global,
    metadata: object = None,
) -> _Tensor:
    """Version 3: the storage is bytes, the tensor knows its type."""
    tensor = _rebuild_tensor(storage, offset, shape, strides, metadata=metadata)
    if not isinstance(dtype, _Global) or dtype.dtype is None:
        raise ValueError("a tensor has no dtype")
    return tensor._replace(dtype=dtype.dtype)


def _rebuild_parameter(data: object, _requires_grad: object, _hooks: object) -> object:
    return data


_GLOBALS = {
    "collections.OrderedDict": _Global(_StateDict),
    "torch.Size": _Global(tuple),
    "torch._utils._rebuild_tensor": _Global(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": _Global(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v3": _Global(_rebuild_tensor_v3),
    "torch._utils._rebuild_parameter": _Global(_rebuild_parameter),
    "torch.storage.UntypedStorage": _Global(dtype=np.dtype("u1")),
    **{f"torch.{name}": _Global(dtype=dtype) for name, dtype in _DTYPES.items()},
    **{f"torch.{name}": _Global(dtype=_DTYPES[dtype]) for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Finds the names of `_GLOBALS` and no others."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in _GLOBALS:
            raise UnsafeCheckpointError(
                f"it asks for {name}, which no state dict of tensors needs. Nothing of it was run; "
                f"if you trust it, open it with torch and save only its state dict, best as "
                f"safetensors."
            )
        return _GLOBALS[name]

    def persistent_load(self, pid: Any) -> _Storage:
        tag, kind, key, _, elements, *views = pid
        if tag != "storage" or not isinstance(kind, _Global) or kind.dtype is None:
            raise ValueError(f"it refers to {tag!r}, which is no storage")
        if any(views):
            raise ValueError(f"it holds storage views of torch < 0.4. {SAVE_AGAIN}")
        storage = _Storage(str(key), kind.dtype, _count(elements))
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {key} is declared twice and differently")
        return storage


def _load(stream: IO[bytes]) -> tuple[Any, dict[str, _Storage]]:
    """Reads one pickle and leaves the stream behind it."""
    start = stream.tell()
    for position, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        # The unpickler would allocate that many places at once; picklers number from 0 upwards.
        if opcode.name.endswith("PUT") and int(argument or 0) > position:
            raise ValueError(f"its pickle wants {argument} memory slots")
        if opcode.name.startswith("EXT"):
            raise UnsafeCheckpointError(
                "it asks for a registered extension. Nothing of it was run."
            )
    stream.seek(start)
    unpickler = _Unpickler(stream)
    return unpickler.load(), unpickler.storages


def read_zip(path: Path) -> dict[str, np.ndarray]:
    """Reads a checkpoint of torch >= 1.6; every ValueError says what is wrong with the file."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        root = next(name for name in members if name.endswith("/data.pkl")).removesuffix("data.pkl")
        if f"{root}constants.pkl" in members:
            raise ValueError(f"it is a TorchScript program, not a state dict. {SAVE_AGAIN}")
        # Stored, and together no larger than the file: so it cannot unfold into more.
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise ValueError(f"its members are compressed, which torch never does. {SAVE_AGAIN}")
        if sum(info.file_size for info in members.values()) > path.stat().st_size:
            raise ValueError("its members overlap")
        byteorder = members.get(f"{root}byteorder")
        if byteorder and archive.read(byteorder) != b"little":
            raise ValueError(f"it was written on a big-endian machine. {SAVE_AGAIN}")
        value, _ = _load(io.BytesIO(archive.read(members[f"{root}data.pkl"])))

        def read(storage: _Storage) -> bytes:
            info = members.get(f"{root}data/{storage.key}")
            if info is None or info.file_size != storage.nbytes:
                held = "nothing" if info is None else f"{info.file_size} bytes"
                raise ValueError(
                    f"storage {storage.key} should hold {storage.nbytes} bytes and holds {held}"
                )
            return archive.read(info)

        return _arrays(_state_dict(value), read, limit=path.stat().st_size)


def read_legacy(path: Path) -> dict[str, np.ndarray]:
    """Reads a checkpoint of torch < 1.6: five pickles, then each storage behind its length."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(len(MAGIC))
        protocol, _ = _load(file)
        machine, _ = _load(file)
        if protocol != _LEGACY_PROTOCOL or machine.get("little_endian") is not True:
            raise ValueError(f"it has protocol {protocol} of a machine {machine}. {SAVE_AGAIN}")
        value, storages = _load(file)
        keys, _ = _load(file)
        places: dict[str, int] = {}
        for key in keys:
            storage = storages[key]
            (elements,) = struct.unpack("<q", file.read(8))
            if elements != storage.elements or file.tell() + storage.nbytes > size:
                raise ValueError(f"storage {key} ({storage.nbytes} bytes) is cut short")
            places[key] = file.tell()
            file.seek(storage.nbytes, io.SEEK_CUR)

        def read(storage: _Storage) -> bytes:
            file.seek(places[storage.key])
            return file.read(storage.nbytes)

        return _arrays(_state_dict(value), read, limit=size)


def _state_dict(value: object) -> dict[str, _Tensor]:
    """Finds the named tensors, also one level down, without the prefix of a parallel wrapper."""
    if not isinstance(value, dict):
        raise ValueError(
            f"it holds a {type(value).__name__.lower().lstrip('_')}, not a state dict. {SAVE_AGAIN}"
        )
    inner = next((_tensors(value[key]) for key in _WRAPPERS if _tensors(value.get(key))), None)
    tensors = inner or _tensors(value)
    if not tensors:
        names = ", ".join(str(key) for key in list(value)[:8]) or "nothing"
        raise ValueError(f"it holds no tensors under their names, but {names}. {SAVE_AGAIN}")
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _tensors(value: object) -> dict[str, _Tensor]:
    items = value.items() if isinstance(value, dict) else ()
    return {str(name): item for name, item in items if isinstance(item, _Tensor)}


def _arrays(
    tensors: dict[str, _Tensor], read: Callable[[_Storage], bytes], *, limit: int
) -> dict[str, np.ndarray]:
    contents: dict[str, bytes] = {}
    arrays = {}
    for name, tensor in tensors.items():
        key = tensor.storage.key
        if key not in contents:
            contents[key] = read(tensor.storage)
        try:
            arrays[name] = _array(tensor, contents[key], limit=limit)
        except ValueError as error:
            raise ValueError(f"tensor {name} is malformed: {error}") from error
    return arrays


def native(array: np.ndarray) -> np.ndarray:
    """Returns types that numpy lacks (bfloat16, float8) as float32, and others as they are."""
    return array if array.dtype.isbuiltin == 1 else array.astype(np.float32)


def _array(tensor: _Tensor, content: bytes, *, limit: int) -> np.ndarray:
    """Views a storage's bytes as the tensor does."""
    shape = tuple(map(_count, tensor.shape))
    strides = tuple(map(_count, tensor.strides))
    offset = _count(tensor.offset)
    if len(shape) != len(strides):
        raise ValueError(f"shape {shape} and strides {strides} differ in length")
    elements = math.prod(shape)
    if elements == 0:
        return native(np.empty(shape, tensor.dtype))
    size = tensor.dtype.itemsize
    if elements * size > limit:  # an expanded tensor repeats elements by a stride of 0
        raise ValueError(f"{shape} is more than the file can hold")
    steps = tuple(stride * size for stride in strides)
    # numpy refuses what would reach beyond the buffer.
    array: np.ndarray = np.ndarray(shape, tensor.dtype, content, offset * size, steps)
    return native(array)


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
