"""Exports: files that other runtimes run, equal to the model, whole or not there; the commands."""

from __future__ import annotations

import json
import sys
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import zoo
from recipes import cli
from tests.random_weights import Array, filled, outputs, random_model
from tests.test_models import MORE_THAN_ONE_PIXEL, QUICK
from zoo.deploy import ExportError, exporting, predictor
from zoo.deploy.engines import ENGINES, TensorflowEngine
from zoo.deploy.exporting import Export, export
from zoo.deploy.metadata import FORMATS, read_description
from zoo.errors import CheckpointError, OptionValueError, SourceError
from zoo.record import get_record, save_model, set_record

pytestmark = pytest.mark.tensorflow
NAMES = ("ant", "bee", "cat")
PATHS = {"saved_model": "saved", "onnx": "m.onnx", "openvino": "m.xml", "litert": "m.tflite"}
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}
EACH = pytest.mark.parametrize("kind", FORMATS)


@cache
def model() -> keras.Model:
    made = random_model("test_resnet", num_classes=3, input_size=32)
    record = get_record(made)
    assert record is not None
    set_record(made, replace(record, class_names=NAMES))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


DONE: dict[str, Export] = {}


def exported(kind: str, folder: Path) -> Path:
    """The model's export, made once, in a folder of its own."""
    if kind in PACKAGES:
        pytest.importorskip(PACKAGES[kind])
    if kind not in DONE:
        DONE[kind] = export(model(), folder / kind / PATHS[kind])
    return DONE[kind].path


def photo(seed: int = 0, size: int = 40) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def batch(count: int) -> Array:
    return np.random.default_rng(0).normal(size=(count, 32, 32, 3)).astype("float32")


def run_plainly(kind: str, path: Path, x: Array) -> Array:
    """The file's outputs by its own runtime, none of our code between."""
    if kind == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])
    if kind == "openvino":
        openvino = pytest.importorskip("openvino")
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        return np.asarray(openvino.Core().compile_model(str(path), "CPU", settings)(x)[0])
    if kind == "litert":
        litert = pytest.importorskip("ai_edge_litert.interpreter")
        interpreter = litert.Interpreter(str(path))
        runner = interpreter.get_signature_runner("serving_default")
        (values,) = runner(images=x).values()
        return np.asarray(values)
    import tensorflow as tf

    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    (values,) = served(tf.constant(x)).values()
    return np.asarray(values)


# --- values -------------------------------------------------------------------------------------


@EACH
def test_the_runtime_alone(kind: str, folder: Path) -> None:
    path = exported(kind, folder)
    for count in (1, 5):
        expected = outputs(model(), batch(count))
        found = run_plainly(kind, path, batch(count))
        np.testing.assert_allclose(found, expected, atol=1e-5 * expected.std(), rtol=0)


@EACH
def test_a_predictor_opens_it(kind: str, folder: Path) -> None:
    path = exported(kind, folder)
    chosen = predictor(path)
    assert chosen.model is None
    assert chosen.preprocess == zoo.preprocessor(model())
    assert chosen.class_names == NAMES
    images = [photo(i, 30 + i) for i in range(5)]
    expected = predictor(model(), "tensorflow")
    np.testing.assert_allclose(chosen(images, 2), expected(images), rtol=1e-4, atol=1e-5)
    for found, guesses in zip(chosen.classify(images), expected.classify(images), strict=True):
        assert [guess.name for guess in found] == [guess.name for guess in guesses]
    name = "tensorflow" if kind == "saved_model" else kind
    assert repr(chosen) == f"<predictor of test_resnet by {name}, float32>"
    assert chosen.run(batch(0)).shape == (0, 3)
    wrong = next(each for each in ENGINES[1:] if each != name)
    with pytest.raises(OptionValueError, match=f"which engine='{name}' runs; got engine='{wrong}'"):
        predictor(path, wrong)
    if kind != "openvino":
        with pytest.raises(OptionValueError, match="only OpenVINO's run in bfloat16"):
            predictor(path, precision="bfloat16")


@EACH
def test_it_says_what_it_did(kind: str, folder: Path) -> None:
    path = exported(kind, folder)
    done = DONE[kind]
    files = [each for each in path.parent.rglob("*") if each.is_file()]
    assert done.size_bytes == sum(each.stat().st_size for each in files)
    assert 0 <= done.difference < 1e-5
    assert (done.path, done.format) == (path, kind)
    assert str(done).startswith(f"{path}: {kind}, ")
    assert f"{done.difference:.0e} of the outputs' deviation" in str(done)
    said = read_description(path)
    assert said.record == get_record(model())
    assert said.output_shape == (None, 3)


def test_others_can_read_what_it_says(folder: Path) -> None:
    path = exported("litert", folder)
    with zipfile.ZipFile(path) as archive:
        said = json.loads(archive.read("zoo.json"))
    assert said["class_names"] == list(NAMES)
    assert said["input"] == {"shape": [None, 32, 32, 3], "layout": "NHWC", "dtype": "float32"}
    prep = zoo.preprocessor(model()).preprocessing
    assert said["preprocessing"]["mean"] == list(prep.mean)
    assert said["preprocessing"]["size"] == [32, 32]
    assert said["preprocessing"]["normalise"] is True


def test_pixels_normalised_in_the_graph(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    inside = zoo.create_model("test_resnet", num_classes=3, input_size=32, preprocess=True)
    inside.set_weights(model().get_weights())
    export(inside, tmp_path / "m.xml")
    expected = predictor(model(), "tensorflow")([photo()])
    found = predictor(tmp_path / "m.xml")([photo()])
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())


def test_features_and_any_size(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    features = zoo.create_model("test_resnet", num_classes=0, input_size=(None, None))
    export(features, tmp_path / "m.onnx")
    chosen = predictor(tmp_path / "m.onnx")
    assert chosen.preprocess.size == zoo.preprocessor(features).size
    x = np.random.default_rng(0).normal(size=(2, 48, 64, 3)).astype("float32")
    expected = outputs(features, x)
    np.testing.assert_allclose(chosen.run(x), expected, atol=1e-5 * expected.std())
    assert chosen.run(x[:0]).shape == (0, 96)


def test_models_that_zoo_did_not_make(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    plain = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    export(plain, tmp_path / "m.onnx")
    with pytest.raises(OptionValueError, match="does not tell its model's preprocessing"):
        predictor(tmp_path / "m.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
@EACH
def test_every_family(name: str, kind: str, tmp_path: Path) -> None:
    """By the check that every export makes; then again by the runtime alone."""
    if kind in PACKAGES:
        pytest.importorskip(PACKAGES[kind])
    size = MORE_THAN_ONE_PIXEL.get(name)
    options = {} if size is None else {"input_size": size}
    made = filled(name, num_classes=11, **options)
    path = tmp_path / PATHS[kind]
    done = export(made, path)
    x = np.random.default_rng(1).normal(size=(2, *made.input_shape[1:])).astype("float32")
    expected = outputs(made, x)
    found = run_plainly(kind, path, x)
    assert done.difference <= 1e-4
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std(), rtol=0)


# --- whole or not at all ------------------------------------------------------------------------


def contents(folder: Path) -> dict[Path, bytes]:
    return {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@EACH
def test_whole_or_not_at_all(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind in PACKAGES:
        pytest.importorskip(PACKAGES[kind])
    path = tmp_path / "sub" / PATHS[kind]
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "TensorflowEngine", lambda _: lambda x: np.ones((len(x), 3)))
        with pytest.raises(ExportError, match=f"`test_resnet` as {kind} answers otherwise than"):
            export(model(), path)
    assert contents(tmp_path) == {}


def test_what_was_there_stays_or_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    (path / "variables").mkdir(parents=True)
    (path / "saved_model.pb").write_text("old")
    (path / "variables" / "old").write_text("old")
    before = contents(tmp_path)
    with pytest.raises(ExportError, match="Nothing was written"):
        export(model(), path, tolerance=-1.0)
    assert contents(tmp_path) == before
    export(model(), path)
    assert path / "variables" / "old" not in contents(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["saved"]
    np.testing.assert_allclose(
        run_plainly("saved_model", path, batch(1)), outputs(model(), batch(1)), rtol=1e-4
    )


def test_other_shapes_and_no_numbers_are_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    check = exporting._Check(model(), "onnx", 1e-4)
    right = TensorflowEngine(model())
    assert check(right) == 0
    for wrong in (lambda x: right(x)[:, :2], lambda x: right(x) * np.nan):
        with pytest.raises(ExportError, match=r"difference is (inf|nan)"):
            check(wrong)  # type: ignore[arg-type]


def test_files_that_do_not_run() -> None:
    def fail(x: Array) -> Array:
        raise RuntimeError("no kernel")

    with pytest.raises(ExportError, match="cannot be converted to onnx: RuntimeError: no kernel"):
        exporting._Check(model(), "onnx", 1e-4)(fail)  # type: ignore[arg-type]


def test_folders_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("thesis", "file"):
        with pytest.raises(OptionValueError, match="is no SavedModel, so it is not replaced"):
            export(model(), tmp_path / name)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "x"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "thesis"]


def test_a_folder_that_cannot_be_moved_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "saved"
    path.mkdir()
    (path / "saved_model.pb").write_text("old")
    move = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if self.name.startswith(".new-"):
            raise OSError("no")
        return move(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no"), exporting._atomic_folder(path) as part:
        part.mkdir()
    assert (path / "saved_model.pb").read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["saved"]


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("m.h5", None, r"`path` must end in \.onnx, \.xml, \.tflite, or be a folder"),
        ("m.onnx", "tfjs", "`format` must be one of .*; got format='tfjs'"),
        ("m.onnx", "openvino", r"A path for openvino must end in \.xml; got 'm\.onnx'"),
    ],
)
def test_formats_are_checked(path: str, kind: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionValueError, match=message):
        export(model(), tmp_path / path, kind)


def test_models_that_cannot_be_exported(tmp_path: Path) -> None:
    backbone = zoo.create_backbone("test_resnet", input_size=32)
    with pytest.raises(OptionValueError, match="must have one input and one output"):
        export(backbone, tmp_path / "b")


def test_the_runtime_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(OptionValueError, match="Checking an export to litert needs the package"):
        export(model(), tmp_path / "m.tflite")


def test_other_backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(OptionValueError, match="`export` needs KERAS_BACKEND=tensorflow"):
        export(model(), tmp_path / "m.onnx")


@EACH
def test_places_that_hold_nothing(kind: str, tmp_path: Path) -> None:
    if kind == "saved_model":
        with pytest.raises(SourceError):
            predictor(tmp_path / "nothing")
        return
    pytest.importorskip(PACKAGES[kind])
    path = tmp_path / PATHS[kind]
    with pytest.raises(SourceError, match=f"There is no exported model at `{path}`"):
        predictor(path)
    path.write_bytes(b"no model" * 100)
    with pytest.raises((CheckpointError, OptionValueError), match=str(path)):
        predictor(path)


@pytest.mark.parametrize("kind", list(PACKAGES))
def test_damaged_files(kind: str, tmp_path: Path, folder: Path) -> None:
    from zoo.deploy.exporting import open_engine

    whole = exported(kind, folder)
    path = tmp_path / whole.name
    path.write_bytes(whole.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="is not a readable exported model"):
        open_engine(path)


# --- commands -----------------------------------------------------------------------------------


def run_cli(*arguments: str) -> int:
    argv, sys.argv = sys.argv, ["keras-zoo", *arguments]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = argv
    return 0


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    save_model(model(), tmp_path / "m.keras")
    files = [str(tmp_path / f"{i}.png") for i in range(3)]
    for i, file in enumerate(files):
        Image.fromarray(photo(i)).save(file)
    out = str(tmp_path / "m.xml")
    assert run_cli("export", str(tmp_path / "m.keras"), "--out", out, "--fuse") == 0
    said = capsys.readouterr().out
    assert "batch norms fold into the layer before them" in said
    assert "m.xml: openvino, " in said
    expected = predictor(model(), "tensorflow").classify(files, top=2)
    for source, engine in ((out, "openvino"), (str(tmp_path / "m.keras"), "tensorflow")):
        code = run_cli("predict", source, *files, "--top", "2", "--engine", engine, "--json")
        assert code == 0
        rows = json.loads(capsys.readouterr().out)
        assert list(rows) == files
        for guesses, row in zip(expected, rows.values(), strict=True):
            assert [each["name"] for each in row] == [guess.name for guess in guesses]
            assert row[0]["value"] == pytest.approx(guesses[0].value, rel=1e-4)
    assert run_cli("predict", out, files[0]) == 0
    said = capsys.readouterr().out
    assert expected[0][0].name in said
    assert files[0] in said.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "m.keras", "x.png", "--engine", "onyx"], "`engine` must be one of"),
        (["predict", "m.onnx", "x.png", "--weights", "a"], "`--weights` is for names of the cat"),
        (["predict", "m.onnx", "x.png"], "There is no exported model at `m.onnx`"),
        (["export", "test_resnett", "--out", "m.onnx"], "Did you mean test_resnet"),
        (["export", "m.keras", "--out", "m.onnx"], "There is no model file at `m.keras`"),
        (["export", "m.keras"], "--out"),
    ],
)
def test_wrong_commands(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    assert run_cli(*arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_engines_that_are_handed_over() -> None:
    class Halved:
        name, precision = "openvino", "int8"

        def __init__(self, made: Any) -> None:
            self.model = made

        def __call__(self, x: Array) -> Array:
            return outputs(self.model, x) / 2

    chosen = predictor(Halved(model()))
    np.testing.assert_allclose(
        chosen([photo()]) * 2, predictor(model(), "tensorflow")([photo()]), atol=1e-4
    )
    assert repr(chosen) == "<predictor of test_resnet by openvino, int8>"
    assert chosen.class_names == NAMES
    with pytest.raises(OptionValueError, match=r"is an engine already \(openvino, int8\)"):
        predictor(Halved(model()), "onnx")
    with pytest.raises(OptionValueError, match="must be a Keras model, a path, or an engine wit"):
        predictor(3)
