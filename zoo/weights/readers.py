"""Reads a checkpoint of any known format into numpy arrays; the content decides, not the suffix.

safetensors, PyTorch (`.pth`, `.pt`, `.bin`), the legacy HDF5 of keras.applications (`.h5`) and
`.npz`. None of them may run code; see `torch_files` for how.
"""

from __future__ import annotations

import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open

from zoo.errors import CheckpointError, SourceError, UnsafeCheckpointError
from zoo.weights import torch_files

if TYPE_CHECKING:
    import h5py

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_TAR = slice(257, 262)  # where a tar says `ustar`
_SAFETENSORS_MAX_HEADER = 100_000_000  # the format's own limit, bytes
_OPEN_WITH_KERAS = (
    "Open it with Keras: `model.load_weights(path)`, or `keras.models.load_model(path)`."
)
# What often lies where weights should be, told by its first bytes.
_IMPOSTORS = (
    (b"<", "it is a web page (HTML or XML): the address led to a login or error page."),
    (b"version https://git-lfs", "it is a Git LFS pointer. Run `git lfs pull`."),
    (b"{", "it is JSON, not weights. Name the weights file beside it."),
    (b"\x1f\x8b", "it is compressed by gzip. Unpack it first."),
    (b"\x80", f"it is a pickle, but not of torch. {torch_files.SAVE_AGAIN}"),
)


# What the readers raise on a damaged file: our own and numpy's ValueErrors, pickle's errors of
# type and shape, and each library's own.
_DAMAGE = (
    *(ValueError, TypeError, LookupError, AttributeError, OverflowError, MemoryError, EOFError),
    *(OSError, RuntimeError),  # h5py
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, SafetensorError),
)


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Reads every named array of a checkpoint.

    bfloat16 comes out as float32, other types as they are stored. Arrays may share memory and
    refuse to be written. PyTorch: one level of `state_dict`, `model`, `model_state_dict` or
    `params` is unwrapped, a uniform `module.` prefix dropped, and what is not a tensor ignored.
    HDF5: the keys are `<layer>.<variable>`, as in `conv1_conv.kernel`.

    Raises:
        SourceError: There is no such file.
        CheckpointError: It is no checkpoint, or damaged, or only Keras itself can open it.
        UnsafeCheckpointError: It asks for more than tensors; nothing of it was run.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "missing"
        raise SourceError(f"A checkpoint must be a file; {path} is {found}.")
    try:
        arrays = _read(path)
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(_message(path, str(error))) from error
    except _DAMAGE as error:
        raise CheckpointError(_message(path, str(error) or type(error).__name__)) from error
    if not arrays:
        raise CheckpointError(_message(path, "it holds no arrays"))
    return arrays


def _message(path: Path, why: str) -> str:
    why = " ".join(why.split())
    remedy = "" if why.endswith(".") else ". It may be cut short or damaged: fetch it again."
    return f"{path} ({path.stat().st_size} bytes) is not a readable checkpoint: {why}{remedy}"


def _read(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        head = file.read(512)
    if _is_safetensors(head):
        return _read_safetensors(path)
    if head.startswith(_HDF5):
        return dict(_read_hdf5(path))
    if head.startswith(_ZIP):
        return _read_zip(path)
    if head.startswith(torch_files.MAGIC):
        return torch_files.read_legacy(path)
    raise ValueError(_why_unknown(head))


def _is_safetensors(head: bytes) -> bool:
    """An 8-byte length, then as many bytes of JSON."""
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 0 < length <= _SAFETENSORS_MAX_HEADER


def _why_unknown(head: bytes) -> str:
    if not head:
        return "it is empty"
    if head[_TAR] == b"ustar":
        return f"it is a tar, as torch wrote before 0.1.10. {torch_files.SAVE_AGAIN}"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for start, why in _IMPOSTORS:
        if text.startswith(start):
            return why
    return f"its first bytes, {head[:8]!r}, are of no known format"


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping, only looks like one
            try:
                array = file.get_tensor(name)
            except AttributeError as error:  # the library asks numpy for a type it has not
                dtype = file.get_slice(name).get_dtype()
                raise ValueError(
                    f"{name} is of type {dtype}, which numpy lacks. Store it as bfloat16."
                ) from error
            arrays[name] = torch_files.native(array)
    return arrays


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/data.pkl") for name in names):
        return torch_files.read_zip(path)
    if names and all(name.endswith(".npy") for name in names):
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    if "config.json" in names and any(name.endswith(".h5") for name in names):
        raise ValueError(f"it is a `.keras` file of Keras 3. {_OPEN_WITH_KERAS}")
    raise ValueError(
        "it is a zip of neither torch (a member `data.pkl`) nor numpy (all `.npy`). Unpack it and "
        "name the weights file in it."
    )


def _read_hdf5(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    import h5py

    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        layers = _names(root, "layer_names")
        if not layers:
            raise ValueError(
                f"it is HDF5 without the layer names of legacy Keras; a `.weights.h5` of Keras 3 "
                f"has none. {_OPEN_WITH_KERAS}"
            )
        seen: set[str] = set()
        for layer in layers:
            for weight in _names(root[layer], "weight_names"):
                leaf = re.sub(r":\d+$", "", weight).rpartition("/")[2]
                key = f"{layer}.{leaf}"
                if key in seen:
                    raise ValueError(
                        f"two variables would be called {key}, as in a model inside a model. "
                        f"{_OPEN_WITH_KERAS}"
                    )
                seen.add(key)
                yield key, _dataset(root[layer][weight], file.filename)


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Reads a list of names, which Keras splits over `name0`, `name1`... where it is long."""
    attributes = group.attrs
    chunks = [attributes[attribute]] if attribute in attributes else []
    while f"{attribute}{len(chunks)}" in attributes:
        chunks.append(attributes[f"{attribute}{len(chunks)}"])
    return [name.decode() if isinstance(name, bytes) else name for part in chunks for name in part]


def _dataset(dataset: h5py.Dataset, file_name: str) -> np.ndarray:
    # HDF5 can point to other files; a checkpoint from elsewhere must not read this machine's.
    if dataset.file.filename != file_name or dataset.external or dataset.is_virtual:
        raise UnsafeCheckpointError(f"its {dataset.name} lies in another file; nothing was read.")
    array: np.ndarray = dataset[()]
    return array
