"""The recipes as a user runs them, at their smallest size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import recipes
import zoo
from recipes import cli
from zoo.errors import DataError, OptionError, OptionValueError, UnknownModelError, UnknownNameError

pytestmark = pytest.mark.tensorflow
SMALL: dict[str, Any] = {
    "data": "digits",
    "model": "test_resnet",
    "stem": "small",
    "smoke": True,
    "quiet": True,
}
FILES = (
    "config.json",
    "metrics.json",
    "report.html",
    "leaderboard.csv",
    "leaderboard.png",
    "learning_curves.png",
    "confusion_matrix.png",
    "model.keras",
    "saved_model/saved_model.pb",
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> recipes.RunResult:
    folder = tmp_path_factory.mktemp("runs") / "first"
    return recipes.run("image-classification", **SMALL, out=str(folder))


def test_listing_is_light() -> None:
    assert recipes.list_recipes() == sorted(recipes.RECIPES)
    code = "import recipes, recipes.cli, sys; assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_image_classification_leaves_everything(result: recipes.RunResult) -> None:
    for name in FILES:
        assert (result.folder / name).stat().st_size > 0, name
    metrics = result.metrics
    assert metrics == json.loads((result.folder / "metrics.json").read_text())
    for field in ("test", "baseline", "seed", "versions", "seconds", "hyperparameters", "data"):
        assert metrics[field] not in (None, {}), field
    assert set(metrics["hyperparameters"]) >= {
        "learning_rate", "batch_size", "dropout", "weight_decay", "optimizer", "lr_schedule",
    }  # fmt: skip
    assert metrics["seconds"]["total"] > 0
    page = (result.folder / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http://" not in page
    assert "https://" not in page


def test_the_model_names_what_it_sees(result: recipes.RunResult, tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images[0] * 255 / 16).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    predictor = zoo.deploy.predictor(result.folder / "model.keras")
    (answer,) = predictor.classify(tmp_path / "digit.png", top=5)
    assert len(answer) == 5
    assert {guess.name for guess in answer} <= set(map(str, range(10)))
    assert [g.value for g in answer] == sorted((g.value for g in answer), reverse=True)
    logits = predictor(pixels[None, :, :, None])
    assert int(logits.argmax()) == answer[0].index


def test_config_runs_it_again_with_the_same_result(
    result: recipes.RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(result.folder / "config.json")
    run_cli("run", "image-classification", "--config", config, "--out", str(tmp_path / "again"),
            "--quiet")  # fmt: skip
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    for field in ("test", "hyperparameters", "best_epoch", "data"):
        assert again[field] == result.metrics[field], field
    assert "test accuracy" in capsys.readouterr().out


def test_an_interrupted_run_is_resumed_to_the_same_end(
    result: recipes.RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recipes import image_classification

    folder = tmp_path / "cut"

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(image_classification, "_train", stop)
        with pytest.raises(KeyboardInterrupt):
            recipes.run("image-classification", **SMALL, out=str(folder))
    assert not (folder / "metrics.json").exists()
    assert run_cli("run", "image-classification", "--out", str(folder), "--quiet") == 2
    assert run_cli("run", "image-classification", "--out", str(folder), "--resume", "--quiet") == 0
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test"] == result.metrics["test"]
    assert metrics["hyperparameters"] == result.metrics["hyperparameters"]


@pytest.mark.parametrize(
    ("task", "column"), [("regression", "brightness"), ("multi-label", "tags")]
)
def test_tables_with_values_and_labels(tmp_path: Path, task: str, column: str) -> None:
    rng = np.random.default_rng(0)
    lines = [f"image,{column}"]
    for i in range(60):
        level = rng.integers(20, 230)
        Image.fromarray(np.full((16, 16), level, np.uint8)).save(tmp_path / f"{i}.png")
        dark, light = "dark" * bool(level < 140), "light" * bool(level > 100)
        tags = "|".join(t for t in (dark, light) if t)
        lines.append(f"{i}.png,{level + 0.5 if task == 'regression' else tags}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    found = recipes.run(
        "image-classification",
        **{**SMALL, "data": str(tmp_path / "table.csv"), "tune": 0},
        out=str(tmp_path / "run"),
    )
    assert found.metrics["task"] == task
    (answer,) = zoo.deploy.predictor(found.folder / "model.keras").classify(tmp_path / "0.png")
    names = {guess.name for guess in answer}
    assert names == ({"brightness"} if task == "regression" else {"dark", "light"})
    if task == "regression":  # one epoch learns little, but answers in the data's units
        assert 20 < answer[0].value < 240


@pytest.mark.network
@pytest.mark.slow
def test_finetune_image(tmp_path: Path) -> None:
    found = recipes.run("finetune-image", smoke=True, quiet=True, out=str(tmp_path / "run"))
    assert {arm["name"] for arm in found.metrics["arms"]} == {"pretrained", "scratch"}
    assert (found.folder / "learning_curves.png").exists()


def test_finetune_image_from_a_local_checkpoint(tmp_path: Path) -> None:
    model = zoo.create_model("test_efficientnet", num_classes=5, input_size=32)
    zoo.export_weights(model, tmp_path / "start.safetensors")
    found = recipes.run(
        "finetune-image",
        data="digits",
        model="test_efficientnet",
        weights=str(tmp_path / "start.safetensors"),
        sampling="over",
        smoke=True,
        quiet=True,
        out=str(tmp_path / "run"),
    )
    arms = found.metrics["arms"]
    assert [arm["name"] for arm in arms] == ["pretrained", "scratch"]
    after = found.metrics["sampling"]["after"].values()
    assert set(after) == {max(found.metrics["sampling"]["before"].values())}
    assert found.metrics["gain"] == pytest.approx(arms[0]["accuracy"] - arms[1]["accuracy"])
    assert "from scratch" in (found.folder / "report.html").read_text()
    assert zoo.deploy.predictor(found.folder / "model.keras").class_names == tuple("0123456789")


@pytest.mark.slow
def test_finetune_image_augments_while_it_trains(tmp_path: Path) -> None:
    found = recipes.run(
        "finetune-image",
        data="digits",
        model="test_efficientnet",
        weights=None,
        augment="random_affine",
        smoke=True,
        quiet=True,
        out=str(tmp_path / "run"),
    )
    assert found.metrics["augmentation"]["policy"] == "random_affine"
    opened = keras.saving.load_model(found.folder / "model.keras")
    assert not [layer.name for layer in opened.layers if layer.name == "augmentation"]


@pytest.mark.parametrize(
    "methods",
    [("probe", "lora"), pytest.param(("full", "staged", "scratch"), marks=pytest.mark.slow)],
)
def test_finetune_image_compares_methods(tmp_path: Path, methods: tuple[str, ...]) -> None:
    model = zoo.create_model("test_efficientnet", num_classes=5, input_size=32)
    zoo.export_weights(model, tmp_path / "start.safetensors")
    found = recipes.run(
        "finetune-image",
        data="digits",
        model="test_efficientnet",
        weights=str(tmp_path / "start.safetensors"),
        methods=methods,
        smoke=True,
        quiet=True,
        out=str(tmp_path / "run"),
    )
    compared = found.metrics["methods"]
    assert tuple(compared) == methods
    head = 256 * 10 + 10
    for name, each in compared.items():
        learns, saved = each["trainable"], each["saved_bytes"]
        if name in ("probe", "lora"):
            assert learns == head if name == "probe" else head < learns < 60_000
            file = found.folder / "arms" / f"{name}-0.safetensors"
            assert saved == file.stat().st_size
            assert 4 * learns < saved < 4 * learns + 8192
        else:
            assert saved > 4 * learns > 1_200_000
    page = (found.folder / "report.html").read_text()
    assert "trainable parameters" in page
    best = found.metrics["exported_method"]
    assert best != "scratch"
    assert found.metrics["test"]["accuracy"] == compared[best]["accuracy"]
    assert zoo.deploy.predictor(found.folder / "model.keras").class_names == tuple("0123456789")


def test_unknown_names_are_errors_that_help() -> None:
    with pytest.raises(UnknownNameError, match=r"`image-clasification`. Did you mean image-class"):
        recipes.run("image-clasification")
    with pytest.raises(OptionError, match=r"no option `modle`. Did you mean model"):
        recipes.run("image-classification", modle="resnet18")
    with pytest.raises(UnknownModelError, match="resnet19"):
        recipes.run("image-classification", model="resnet19")
    with pytest.raises(OptionValueError, match="`epochs` must be at least 1; got epochs=0"):
        recipes.run("image-classification", epochs=0)
    with pytest.raises(OptionValueError, match=r"`methods` must be some of probe, .*got lora, lor"):
        recipes.run("finetune-image", methods=("lora", "lor"))
    with pytest.raises(OptionValueError, match="each once; got lora, lora"):
        recipes.run("finetune-image", methods=("lora", "lora"))
    with pytest.raises(OptionValueError, match=r"`augment` must be none where .*'randaugment'"):
        recipes.run("finetune-image", methods=("probe", "lora"), augment="randaugment")
    with pytest.raises(OptionValueError, match=r"`layer_decay` must be in \(0, 1\]; got layer_d"):
        recipes.run("finetune-image", layer_decay=1.5)
    with pytest.raises(OptionValueError, match="`resume` needs `out`"):
        recipes.run("image-classification", resume=True)


def bad_folder(tmp_path: Path, kind: str) -> Path:
    root = tmp_path / kind
    for name in ("a",) if kind == "one-class" else ("a", "b"):
        (root / name).mkdir(parents=True)
        for i in range(0 if kind == "empty" else 8):
            Image.new("L", (8, 8), 30 * i).save(root / name / f"{i}.png")
    if kind == "corrupt":
        (root / "b" / "3.png").write_bytes(b"not an image")
    return root


def run_cli(*arguments: str) -> int:
    argv = sys.argv
    sys.argv = ["keras-zoo", *arguments]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = argv
    return 0


@pytest.mark.parametrize(
    ("kind", "message"), [("empty", "at least one image"), ("corrupt", "3.png"), ("one-class", "")]
)
def test_bad_data_is_one_line_and_exit_code_2(
    tmp_path: Path, kind: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bad_folder(tmp_path, kind)
    code = run_cli("run", "image-classification", "--data", str(data), "--out", str(tmp_path / "r"))
    said = capsys.readouterr().err.strip()
    assert code == 2
    assert said.startswith("error:")
    assert "\n" not in said
    assert message.lower() in said.lower()
    assert not (tmp_path / "r" / "metrics.json").exists()


def test_nan_targets_are_refused(tmp_path: Path) -> None:
    root = bad_folder(tmp_path, "good")
    rows = [f"a/{i}.png,{'nan' if i == 3 else i + 0.5}" for i in range(8)]
    (root / "t.csv").write_text("\n".join(["image,value", *rows]))
    with pytest.raises(DataError):
        recipes.run("image-classification", **{**SMALL, "data": str(root / "t.csv")},
                    out=str(tmp_path / "r"))  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "no-such"], "Unknown recipe `no-such`"),
        (["run", "image-classification", "--model", "resnet19"], "Did you mean resnet18"),
        (["run", "image-classification", "--data", "no/such/place"], "no/such/place"),
        (["run", "image-classification", "--epohcs", "3"], "--epochs"),
        (["run", "image-classification", "--seeds", "3"], "no option `seeds`"),
        (["info", "resnet51"], "Did you mean"),
        (["list", "no_such*"], "No model matches"),
        (["predict", "test_resnet.nope", "x.png"], "no weights `nope`"),
        (["predict", "no/such.keras", "x.png"], "no/such.keras"),
    ],
)
def test_wrong_calls_are_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if arguments[0] == "run":
        arguments = [*arguments, "--out", str(tmp_path / "r")]
    assert run_cli(*arguments) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error:")
    assert message in said
    assert "Traceback" not in said


def test_commands_print(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("list", "resnet*", "--max-params", "12e6".replace("e6", "000000")) == 0
    assert "resnet18" in capsys.readouterr().out
    assert run_cli("info", "resnet50") == 0
    said = capsys.readouterr().out
    assert "25,557,032" in said
    assert "a1_in1k" in said
    assert run_cli("recipes") == 0
    assert "finetune-image" in capsys.readouterr().out


def test_an_interruption_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "run", stop)
    assert run_cli("run", "image-classification") == 130
    said = capsys.readouterr().err
    assert "keras-zoo run image-classification --out runs/image-classification-" in said
    assert said.rstrip().endswith("--resume")
