from __future__ import annotations

import copy
import json
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import save_file

from tests.torch_zip import (
    STORAGES,
    Call,
    Name,
    Persistent,
    Storage,
    contiguous,
    encode,
    tensor,
    write_legacy,
    write_zip,
)
from zoo.errors import CheckpointError, SourceError, UnsafeCheckpointError, ZooError
from zoo.weights.readers import read_checkpoint

# Keras converts its variables by an `__array__` that numpy 2 wants with another signature.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
WRITERS = pytest.mark.parametrize("write", [write_zip, write_legacy])
RANGE = Storage("0", np.arange(12, dtype=np.float32))


def refusal(path: Path, kind: type[ZooError] = CheckpointError) -> str:
    """Returns the one-line message of the error that reading raises, naming file and size."""
    with pytest.raises(ZooError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert message.startswith(
        f"{path} ({path.stat().st_size} bytes) is not a readable checkpoint: "
    )
    assert "\n" not in message
    return message.partition("checkpoint: ")[2]


# --- torch: what is read ------------------------------------------------------------------------


@WRITERS
@pytest.mark.parametrize("dtype", STORAGES)
def test_torch_every_type(tmp_path: Path, write: Any, dtype: str) -> None:
    numbers = np.array([0, 1, 1, 0, 1, 1]) if dtype == "bool" else np.array([0, 1, 2, 3, 4, 5])
    content = numbers.astype(np.dtype(getattr(ml_dtypes, dtype, None) or dtype))
    storage = Storage("7", content)
    arrays = read_checkpoint(
        write(
            tmp_path / "a.pth",
            {"w": contiguous(storage, (2, 3)), "s": contiguous(storage, ())},
            storage,
        )
    )
    expected = np.dtype("float32" if dtype == "bfloat16" else dtype)
    assert arrays["w"].dtype == expected
    assert arrays["s"].shape == ()
    assert_array_equal(arrays["w"], numbers.reshape(2, 3).astype(expected))


@WRITERS
def test_torch_views_share_a_storage(tmp_path: Path, write: Any) -> None:
    state = OrderedDict(
        transposed=tensor(RANGE, (4, 3), (1, 4)),
        sliced=tensor(RANGE, (2, 2), (4, 2), 5),
        expanded=tensor(RANGE, (3, 2), (0, 1), 1),
        empty=tensor(RANGE, (0, 4), (4, 1)),
        whole=contiguous(RANGE, (3, 4)),
    )
    arrays = read_checkpoint(write(tmp_path / "a.pt", state, RANGE))
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert_array_equal(arrays["transposed"], base.T)
    assert_array_equal(arrays["sliced"], base[1:, 1::2])
    assert_array_equal(arrays["expanded"], [[1, 2]] * 3)
    assert arrays["empty"].shape == (0, 4)
    assert_array_equal(arrays["whole"], base)


def test_torch_bfloat16_rounds_as_its_bits_say(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0x4049, 0xC2F7, 0x7F80], np.uint16)  # the upper halves of float32
    storage = Storage("0", bits.view(ml_dtypes.bfloat16))
    arrays = read_checkpoint(
        write_zip(tmp_path / "a.bin", {"w": contiguous(storage, (4,))}, storage)
    )
    assert_array_equal(arrays["w"], (bits.astype(np.uint32) << 16).view(np.float32))


def test_torch_untyped_storage_and_parameter(tmp_path: Path) -> None:
    storage = Storage("0", np.array([1, 65535], np.uint16))
    untyped = Persistent(("storage", Name("torch.storage", "UntypedStorage"), "0", "cpu", 4))
    hooks = Call(Name("collections", "OrderedDict"), ())
    arguments = (untyped, 0, (2,), (1,), False, hooks, Name("torch", "uint16"))
    value = Call(Name("torch._utils", "_rebuild_tensor_v3"), arguments)
    wrapped = Call(Name("torch._utils", "_rebuild_parameter"), (value, True, hooks))
    arrays = read_checkpoint(write_zip(tmp_path / "a.bin", {"w": wrapped}, storage))
    assert arrays["w"].dtype == np.uint16
    assert_array_equal(arrays["w"], [1, 65535])


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "params"])
def test_torch_wrapped_with_module_prefix(tmp_path: Path, wrapper: str) -> None:
    inner = Call(
        Name("collections", "OrderedDict"), ((("module.a.weight", contiguous(RANGE, (12,))),),)
    )
    metadata = (inner.function, inner.arguments, {"_metadata": {"": {"version": 1}}})
    value = {
        "epoch": 3,
        "loss": contiguous(RANGE, ()),
        "size": Call(Name("torch", "Size"), ((1, 2),)),
        "dtype": Name("torch", "float32"),
        "optimizer": {"state": {0: {"step": contiguous(Storage("9", RANGE.content), (12,))}}},
        wrapper: Call(*metadata),
    }
    arrays = read_checkpoint(write_zip(tmp_path / "a.pth", value, RANGE))  # storage 9 is not there
    assert list(arrays) == ["a.weight"]


def test_torch_prefix_of_some_names_only_stays(tmp_path: Path) -> None:
    state = {"module.a": contiguous(RANGE, (12,)), "b": contiguous(RANGE, (12,)), "name": "x"}
    assert list(read_checkpoint(write_zip(tmp_path / "a.pth", state, RANGE))) == ["module.a", "b"]


# --- torch: what is refused ---------------------------------------------------------------------


@WRITERS
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch.nn", "Linear"),
        ("numpy", "dtype"),
    ],
)
def test_torch_other_names_are_refused_and_not_run(
    tmp_path: Path, write: Any, module: str, name: str
) -> None:
    proof = tmp_path / "ran"
    state = {"w": contiguous(RANGE, (12,)), "x": Call(Name(module, name), (f"touch {proof}",))}
    message = refusal(write(tmp_path / "a.pth", state, RANGE), UnsafeCheckpointError)
    assert f"asks for {module}.{name}," in message
    assert not proof.exists()


def test_torch_names_of_protocol_4_are_refused(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    command = f"touch {proof}".encode()
    stack_global = (
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93"
        + (b"\x8c" + bytes([len(command)]) + command)
        + b"\x85R."
    )
    assert "posix.system" in refusal(
        write_zip(tmp_path / "a.pt", stack_global), UnsafeCheckpointError
    )
    assert not proof.exists()


def test_torch_extension_codes_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pt", b"\x80\x02\x82\x01.")
    assert "registered extension" in refusal(path, UnsafeCheckpointError)


def pickled(body: Any, *storages: Storage) -> Any:
    return lambda path: write_zip(path, body, *storages)


COUNT = Name("torch", "FloatStorage")
HOSTILE = {
    "reads beyond its storage": (pickled({"w": tensor(RANGE, (3, 4), (5, 1))}, RANGE), "tensor w"),
    "starts beyond its storage": (pickled({"w": tensor(RANGE, (2,), (1,), 11)}, RANGE), "tensor w"),
    "negative stride": (pickled({"w": tensor(RANGE, (2,), (-1,), 5)}, RANGE), "-1 is not a count"),
    "negative size": (pickled({"w": tensor(RANGE, (-2,), (1,))}, RANGE), "-2 is not a count"),
    "negative offset": (pickled({"w": tensor(RANGE, (2,), (1,), -1)}, RANGE), "-1 is not a count"),
    "ranks differ": (pickled({"w": tensor(RANGE, (2,), (1, 1))}, RANGE), "differ in length"),
    "expanded without end": (
        pickled({"w": tensor(RANGE, (10**9, 10**9), (0, 0))}, RANGE),
        "more than the file can hold",
    ),
    "storage missing": (pickled({"w": contiguous(RANGE, (12,))}), "48 bytes and holds nothing"),
    "storage of another size": (
        pickled({"w": contiguous(Storage("0", RANGE.content, 10**12), (12,))}, RANGE),
        "should hold 4000000000000 bytes and holds 48 bytes",
    ),
    "storage declared twice": (
        pickled(
            {"a": contiguous(RANGE, (12,)), "b": contiguous(Storage("0", RANGE.content, 6), (6,))},
            RANGE,
        ),
        "declared twice",
    ),
    "storage in pieces of its type": (
        pickled({"w": contiguous(Storage("0", RANGE.content, -1), (12,))}, RANGE),
        "-1 is not a count",
    ),
    "storage of no type": (
        pickled({"w": Persistent(("storage", "torch", "0", "cpu", 1))}),
        "is no storage",
    ),
    "reference to a module": (
        pickled({"w": Persistent(("module", COUNT, "0", "cpu", 1))}),
        "module",
    ),
    "old storage view": (
        pickled({"w": Persistent(("storage", COUNT, "0", "cpu", 1, ("1", 0, 1)))}),
        "storage views of torch < 0.4",
    ),
    "type called": (pickled({"w": Call(COUNT, (1,))}), "called as a function"),
    "tuple changed": (pickled({"w": Call(Name("torch", "Size"), ((),), {"a": 1})}), "damaged"),
    "function changed": (pickled(encode(COUNT)[:-1] + b"}b."), "given attributes"),
    "tensor without storage": (
        pickled({"w": Call(Name("torch._utils", "_rebuild_tensor"), ("x", 0, (1,), (1,)))}),
        "no storage",
    ),
    "tensor without dtype": (
        pickled(
            {
                "w": Call(
                    Name("torch._utils", "_rebuild_tensor_v3"),
                    (RANGE.reference, 0, (1,), (1,), False, None, "float32"),
                )
            }
        ),
        "no dtype",
    ),
    "lazily conjugated": (
        pickled({"w": tensor(RANGE, (1,), (1,), 0, {"conj": True})}, RANGE),
        "resolve_conj",
    ),
    "memo of four billion places": (
        pickled(b"\x80\x02}r\xff\xff\xff\xff."),
        "4294967295 memory slots",
    ),
    "pickle cut short": (pickled(encode({"w": 1})[:-3]), "damaged"),
    "no state dict": (pickled([1, 2]), "it holds a list, not a state dict"),
    "no tensors": (pickled({"generator": {"w": 1}, "epoch": 3}), "but generator, epoch"),
    "TorchScript": (
        lambda path: write_zip(path, {}, extra={"constants.pkl": b""}),
        "TorchScript",
    ),
    "compressed": (
        lambda path: write_zip(
            path, {"w": contiguous(RANGE, (12,))}, RANGE, compression=zipfile.ZIP_DEFLATED
        ),
        "compressed",
    ),
    "big-endian": (
        lambda path: write_zip(path, {}, extra={"byteorder": b"big"}),
        "big-endian",
    ),
}


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("case", HOSTILE)
def test_torch_malformed(tmp_path: Path, case: str) -> None:
    write, reason = HOSTILE[case]
    assert reason in refusal(write(tmp_path / "a.pth"))


def test_torch_members_that_overlap(tmp_path: Path) -> None:
    big = Storage("0", np.zeros(1000, np.float32))
    path = write_zip(tmp_path / "a.pth", {"w": contiguous(big, (1000,))}, big)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/more", b"")
        again = copy.copy(archive.getinfo("a/data/0"))
        again.filename = "a/data/1"
        archive.filelist.append(again)  # a second name for the same bytes
    assert "its members overlap" in refusal(path)


@pytest.mark.parametrize("cut", [40, 4])
def test_torch_legacy_cut_short(tmp_path: Path, cut: int) -> None:
    path = write_legacy(tmp_path / "a.pth", {"w": contiguous(RANGE, (12,))}, RANGE)
    path.write_bytes(path.read_bytes()[:-cut])
    assert "cut short" in refusal(path)


def test_torch_legacy_of_another_machine(tmp_path: Path) -> None:
    path = write_legacy(tmp_path / "a.pth", {}, little_endian=False)
    assert "of a machine" in refusal(path)


# --- safetensors --------------------------------------------------------------------------------


def write_safetensors(path: Path, dtype: str, shape: list[int], content: bytes) -> Path:
    header = {"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(content)]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
    return path


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.any"
    stored: dict[str, np.ndarray] = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array(7, np.int64),
        "c": np.array([True, False]),
        "d": np.array([0.5], np.float16),
    }
    save_file(stored, path)
    arrays = read_checkpoint(path)
    assert arrays.keys() == stored.keys()
    for name, array in stored.items():
        assert arrays[name].dtype == array.dtype
        assert_array_equal(arrays[name], array)


def test_safetensors_bfloat16_without_keras_imported(tmp_path: Path) -> None:
    bits = np.array([[0x3F80, 0x4049], [0xC2F7, 0x0001]], np.uint16)
    path = write_safetensors(tmp_path / "a.safetensors", "BF16", [2, 2], bits.tobytes())
    expected = (bits.astype(np.uint32) << 16).view(np.float32)
    program = (
        "import sys; from pathlib import Path; from zoo.weights.readers import read_checkpoint; "
        "w = read_checkpoint(Path(sys.argv[1]))['w']; assert 'tensorflow' not in sys.modules; "
        "print(w.dtype, w.shape, w.tobytes().hex())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=True
    )
    assert result.stdout.split("\n")[0] == f"float32 (2, 2) {expected.tobytes().hex()}"


def test_safetensors_of_a_type_numpy_lacks(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "a.safetensors", "F8_E4M3", [2], b"\x38\x40")
    assert "w is of type F8_E4M3" in refusal(path)


def test_safetensors_cut_short(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "a.safetensors", "F32", [4], bytes(16))
    path.write_bytes(path.read_bytes()[:-1])
    assert "damaged: fetch it again." in refusal(path)


# --- HDF5 ---------------------------------------------------------------------------------------


def write_legacy_h5(path: Path, layers: dict[str, dict[str, np.ndarray]], group: str = "/") -> Path:
    with h5py.File(path, "w") as file:
        root = file.require_group(group)
        root.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer, weights in layers.items():
            root.create_group(layer).attrs["weight_names"] = [name.encode() for name in weights]
            for name, array in weights.items():
                root[layer][name] = array
    return path


@pytest.mark.parametrize("group", ["/", "model_weights"])
def test_legacy_keras_h5(tmp_path: Path, group: str) -> None:
    kernel, bias = np.arange(8.0, dtype=np.float32).reshape(2, 4), np.zeros(4, np.float32)
    layers: dict[str, dict[str, np.ndarray]] = {
        "input_1": {},
        "conv1_conv": {"conv1_conv/kernel:0": kernel, "conv1_conv/bias:0": bias},
        "deep": {"outer/inner/deep_1/gamma:0": bias + 1},
    }
    arrays = read_checkpoint(write_legacy_h5(tmp_path / "a.h5", layers, group))
    assert list(arrays) == ["conv1_conv.kernel", "conv1_conv.bias", "deep.gamma"]
    assert_array_equal(arrays["conv1_conv.kernel"], kernel)
    assert_array_equal(arrays["deep.gamma"], bias + 1)


def test_legacy_keras_h5_with_names_in_chunks(tmp_path: Path) -> None:
    path = write_legacy_h5(tmp_path / "a.h5", {n: {f"{n}/k:0": np.ones(2)} for n in "abc"})
    with h5py.File(path, "r+") as file:
        names = file.attrs.pop("layer_names")
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:2], names[2:]
    assert list(read_checkpoint(path)) == ["a.k", "b.k", "c.k"]


def keras_model() -> keras.Model:
    layers = [
        keras.layers.Input((4, 4, 3)),
        keras.layers.Conv2D(2, 3, name="conv"),
        keras.layers.BatchNormalization(name="bn"),
    ]
    return keras.Sequential(layers)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_whole_model_h5_as_keras_writes_it(tmp_path: Path) -> None:
    model = keras_model()
    model.save(tmp_path / "model.h5")
    arrays = read_checkpoint(tmp_path / "model.h5")
    expected = {f"{layer.name}.{v.name}": v for layer in model.layers for v in layer.variables}
    assert arrays.keys() == expected.keys()
    for name, variable in expected.items():
        assert_array_equal(arrays[name], keras.ops.convert_to_numpy(variable))


def test_keras_3_files_are_left_to_keras(tmp_path: Path) -> None:
    model = keras_model()
    model.save(tmp_path / "a.keras")
    model.save_weights(tmp_path / "a.weights.h5")
    for name in ("a.keras", "a.weights.h5"):
        message = refusal(tmp_path / name)
        assert "`model.load_weights(path)`" in message
        assert "Keras 3" in message


def test_h5_names_that_collide(tmp_path: Path) -> None:
    weights = {"a/kernel:0": np.ones(1), "b/kernel:0": np.ones(1)}
    path = write_legacy_h5(tmp_path / "a.h5", {"inner_model": weights})
    assert "two variables would be called inner_model.kernel" in refusal(path)


@pytest.mark.parametrize("way", ["layer link", "weight link", "external", "virtual"])
def test_h5_that_points_to_another_file(tmp_path: Path, way: str) -> None:
    secret = write_legacy_h5(tmp_path / "secret.h5", {"a": {"a/k:0": np.arange(3.0)}})
    path = write_legacy_h5(tmp_path / "a.h5", {"a": {"a/k:0": np.arange(3.0)}})
    with h5py.File(path, "r+") as file:
        if way == "layer link":
            del file["a"]
            file["a"] = h5py.ExternalLink(secret, "/a")
        else:
            del file["a/a/k:0"]
        if way == "weight link":
            file["a/a/k:0"] = h5py.ExternalLink(secret, "/a/a/k:0")
        if way == "external":
            file.create_dataset("a/a/k:0", (3,), "f8", external=[(secret, 0, 24)])
        if way == "virtual":
            layout = h5py.VirtualLayout((3,), "f8")
            layout[:] = h5py.VirtualSource(secret, "/a/a/k:0", (3,))
            file.create_virtual_dataset("a/a/k:0", layout)
    assert "lies in another file" in refusal(path, UnsafeCheckpointError)


def test_h5_cut_short_or_without_its_datasets(tmp_path: Path) -> None:
    path = write_legacy_h5(tmp_path / "a.h5", {"a": {"a/k:0": np.ones(1000)}})
    with h5py.File(path, "r+") as file:
        del file["a/a"]
    assert "damaged" in refusal(path)
    path.write_bytes(path.read_bytes()[:-100])
    assert "damaged" in refusal(path)


# --- npz and everything else --------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "a.npz", **{"a/kernel": np.eye(3), "b": np.int64(4)})
    arrays = read_checkpoint(tmp_path / "a.npz")
    assert_array_equal(arrays["a/kernel"], np.eye(3))
    assert arrays["b"].shape == ()
    assert arrays["b"] == 4


def test_npz_with_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([{}], object))
    assert "allow_pickle=False" in refusal(tmp_path / "a.npz")


def test_npz_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).random(1000))
    content = bytearray(path.read_bytes())
    content[200:210] = bytes(10)
    path.write_bytes(content)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b"<?xml version='1.0'?><Error/>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b'\xef\xbb\xbf{"weight_map": {}}', "JSON"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x80\x04}.", "a pickle, but not of torch"),
        (b"PK\x03\x04 and no more", "damaged"),
        (b"\x93NUMPY\x01\x00", "no known format"),
        (b"\x89HDF\r\n\x1a\n", "damaged"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    assert reason in refusal(tmp_path / "a.pth")


def test_a_tar_of_the_first_torch(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.pth", "w") as archive:
        archive.add(__file__, "storages")
    assert "torch.save(model.state_dict(), path)" in refusal(tmp_path / "a.pth")


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("weights/model.bin", b"")
    assert "a zip of neither torch" in refusal(tmp_path / "a.zip")


def test_a_checkpoint_without_arrays(tmp_path: Path) -> None:
    save_file({}, tmp_path / "a.safetensors")
    assert "it holds no arrays" in refusal(tmp_path / "a.safetensors")


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=re.escape(f"{tmp_path / 'no'} is missing.")):
        read_checkpoint(tmp_path / "no")
    with pytest.raises(SourceError, match=re.escape(f"{tmp_path} is a folder.")):
        read_checkpoint(tmp_path)
