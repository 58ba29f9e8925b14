"""Model cards, and pushes to a local server that speaks the hub's protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from huggingface_hub import ModelCard

import zoo
from tests.hub import Repository, WritableHub, serve_writable
from tests.random_weights import outputs, random_model
from tests.test_weights_convert import assert_equal_but
from zoo.errors import OfflineError, OptionValueError, SourceError
from zoo.model_card import HUB_LICENSES, MARK, license_of
from zoo.record import ModelRecord, get_record, set_record
from zoo.spec import Preprocessing, WeightsInfo

# the hub's client passes an upload to its HTTP client in a way that one calls old; theirs to mend
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TARGET = "hf://owner/repo"
FILES = {"README.md", "config.json", "model.safetensors"}
INFO = WeightsInfo(
    tag="a1_in1k",
    source="hf://timm/resnet18.a1_in1k@main",
    license="cc-by-nc-4.0",
    num_classes=4,
    preprocessing=Preprocessing(crop=0.95, input_size=(32, 32)),
)
NAMES = ("ant", "bee", "c|t\nx", "dog")


@pytest.fixture(autouse=True)
def _private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    for name in ("KERAS_ZOO_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    with serve_writable(tmp_path / "hub", monkeypatch) as served:
        yield served


@pytest.fixture(scope="module")
def built() -> keras.Model:
    return random_model("test_resnet", num_classes=4, input_size=32)


@pytest.fixture
def model(built: keras.Model) -> keras.Model:
    return remember(built, weights=INFO, class_names=NAMES, task="classify")


def remember(model: keras.Model, **fields: Any) -> keras.Model:
    record = get_record(model)
    assert record is not None
    set_record(model, replace(record, **fields))
    return model


def card_of(folder: Path) -> Any:
    return ModelCard.load(folder / "README.md")


# --- pushes -------------------------------------------------------------------------------------


def test_a_push_is_one_commit_and_comes_back(
    hub: WritableHub, model: keras.Model, tmp_path: Path
) -> None:
    zoo.save_pretrained(model, TARGET, metrics={"accuracy": 0.5}, data="beans")
    made = hub.repositories["owner/repo"]
    assert (len(made.commits), made.messages, made.private) == (2, ["Upload test_resnet"], False)
    zoo.save_pretrained(model, tmp_path / "repo", metrics={"accuracy": 0.5}, data="beans")
    assert set(made.files) == FILES
    for file in ("config.json", "model.safetensors"):
        assert made.files[file] == (tmp_path / "repo" / file).read_bytes()
    # the way to open it is the only difference of the cards
    card = (tmp_path / "repo" / "README.md").read_text("utf-8")
    pushed = made.files["README.md"].decode()
    assert pushed == card.replace('from_pretrained("repo")', 'from_pretrained("owner/repo")')
    for place in (TARGET, "owner/repo"):
        opened = zoo.from_pretrained(place)
        assert_equal_but(opened, model)
        assert get_record(opened) == replace(
            get_record(model) or ModelRecord(architecture=""),
            options={"num_classes": 4, "input_size": 32},
        )
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(outputs(opened, x), outputs(model, x))


def test_a_second_push_keeps_other_files(hub: WritableHub, model: keras.Model) -> None:
    hub.repositories["owner/repo"] = Repository(commits=[{"notes.txt": b"mine"}])
    zoo.save_pretrained(model, TARGET)
    known = hub.repositories["owner/repo"]
    assert set(known.files) == FILES | {"notes.txt"}
    before = hub.steps.count("upload")
    zoo.save_pretrained(model, TARGET, license="mit")
    assert hub.steps.count("upload") == before  # the tensors are there
    assert len(known.commits) == 3
    assert "license: mit" in known.files["README.md"].decode()


@pytest.mark.parametrize("step", ["validate", "preupload", "batch", "upload", "verify", "commit"])
def test_a_push_that_fails_changes_nothing(
    hub: WritableHub, model: keras.Model, tmp_path: Path, step: str
) -> None:
    hub.repositories["owner/repo"] = Repository(commits=[{"README.md": b"before"}])
    hub.fail = {step: 500}
    with pytest.raises(SourceError, match=r"repo could not be pushed to: .*try again"):
        zoo.save_pretrained(model, TARGET)
    assert hub.repositories["owner/repo"].commits == [{"README.md": b"before"}]
    assert step in hub.steps
    hub.fail = {}
    zoo.save_pretrained(model, TARGET)
    assert set(hub.repositories["owner/repo"].files) == FILES


def test_private_repositories(hub: WritableHub, model: keras.Model) -> None:
    zoo.save_pretrained(model, TARGET, private=True)
    assert hub.repositories["owner/repo"].private
    zoo.save_pretrained(model, TARGET, private=True, license="mit")
    hub.repositories["owner/repo"].private = False
    before = len(hub.repositories["owner/repo"].commits)
    with pytest.raises(OptionValueError, match=r"is public already; nothing was pushed"):
        zoo.save_pretrained(model, TARGET, private=True, license="isc")
    assert len(hub.repositories["owner/repo"].commits) == before


def test_tokens(
    hub: WritableHub, model: keras.Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    with pytest.raises(SourceError, match=r"could not be made: the Hub refuses the token \(401\)"):
        zoo.save_pretrained(model, TARGET)
    monkeypatch.delenv("HF_TOKEN")
    asked = len(hub.steps)
    with pytest.raises(SourceError, match=r"without a token.*set HF_TOKEN or run `hf auth login`"):
        zoo.save_pretrained(model, TARGET)
    assert len(hub.steps) == asked
    (tmp_path / "token").write_text("hf_good\n")  # as `hf auth login` leaves it
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    zoo.save_pretrained(model, TARGET)
    with pytest.raises(SourceError, match=r"the token may not write there \(403\)"):
        zoo.save_pretrained(model, "hf://stranger/repo")


def test_places_that_cannot_be_pushed_to(
    hub: WritableHub, model: keras.Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for place in ("hf://repo", "hf://", "hf://a/b/c", "hf://owner/repo@main", "hf://a/b c"):
        with pytest.raises(OptionValueError, match="must be written hf://owner/repo; got"):
            zoo.save_pretrained(model, place)
    for place in ("hf://owner/re..po", "hf://owner/repo.git", "hf://owner/réseau"):
        with pytest.raises(OptionValueError, match="The Hub allows no repository"):
            zoo.save_pretrained(model, place)
    with pytest.raises(OptionValueError, match="`private` is of a repository"):
        zoo.save_pretrained(model, tmp_path / "folder", private=True)
    assert not (tmp_path / "folder").exists()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OfflineError, match="cannot be pushed to: offline mode is on"):
        zoo.save_pretrained(model, TARGET)
    assert not hub.steps


def test_a_hub_out_of_reach(
    hub: WritableHub, model: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="hf://owner/repo could not be made: "):
        zoo.save_pretrained(model, TARGET)


# --- licences -----------------------------------------------------------------------------------


def test_a_push_asks_for_a_licence(hub: WritableHub, built: keras.Model, tmp_path: Path) -> None:
    remember(built, weights=None)
    for given in (None, "unknown"):
        with pytest.raises(OptionValueError, match="`license` must be named to share weights"):
            zoo.save_pretrained(built, TARGET, license=given)
    assert not hub.steps
    zoo.save_pretrained(built, tmp_path / "folder")
    assert card_of(tmp_path / "folder").data.license == "unknown"
    zoo.save_pretrained(built, TARGET, license="Apache-2.0")
    record = get_record(zoo.from_pretrained(TARGET))
    assert record is not None
    assert record.weights is not None
    assert record.weights.license == "apache-2.0"  # who pushes it on need not name it again
    assert record.weights.preprocessing == Preprocessing(input_size=(32, 32))


def test_licences() -> None:
    record = ModelRecord(architecture="test_resnet", weights=INFO)
    assert license_of(record) == "cc-by-nc-4.0"
    assert license_of(record, " MIT ") == "mit"
    assert license_of(replace(record, weights=replace(INFO, license=""))) == "unknown"
    with pytest.raises(OptionValueError, match="`license` must not be empty"):
        license_of(record, " ")
    assert "dinov3-license" not in HUB_LICENSES


# --- cards --------------------------------------------------------------------------------------


def test_the_metadata_of_a_card(model: keras.Model, tmp_path: Path) -> None:
    zoo.save_pretrained(
        model, tmp_path / "mine", metrics={"accuracy": np.float64(0.75), "f1": 1}, data="a/beans"
    )
    data = card_of(tmp_path / "mine").data
    metadata = data.to_dict()
    index = metadata.pop("model-index")
    assert metadata == {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "license": "cc-by-nc-4.0",
        "base_model": "timm/resnet18.a1_in1k",
        "datasets": ["a/beans"],
        "metrics": ["accuracy", "f1"],
        "tags": ["keras-zoo", "resnet", "test_resnet"],
    }
    task = {"type": "image-classification"}
    values = [{"type": "accuracy", "value": 0.75}, {"type": "f1", "value": 1.0}]
    results = [{"task": task, "dataset": {"name": "a/beans", "type": "a/beans"}, "metrics": values}]
    assert index == [{"name": "mine", "results": results}]


def test_what_is_unknown_is_left_out(built: keras.Model, tmp_path: Path) -> None:
    info = replace(INFO, source="package:x/y.npz", license="DINOv3 License")
    remember(built, weights=info, class_names=(), task="classify")
    zoo.save_pretrained(built, tmp_path, metrics={"accuracy": 0.5}, data=["my photos", "beans"])
    data = card_of(tmp_path).data
    assert (data.license, data.license_name) == ("other", "dinov3-license")
    assert data.get("base_model") is None
    assert data.datasets == ["beans"]
    assert data.get("model-index") is None  # of which of the two?
    text = card_of(tmp_path).text
    assert "my photos, beans." in text
    assert "## Classes" not in text


@pytest.mark.parametrize(
    ("task", "tag", "said"),
    [
        ("classify", "image-classification", "names which of 4 classes"),
        ("multi-label", "image-classification", "says which of 4 labels"),
        ("regression", None, "predicts 4 values of an image"),
    ],
)
def test_tasks(model: keras.Model, tmp_path: Path, task: str, tag: str | None, said: str) -> None:
    remember(model, task=task)
    zoo.save_pretrained(model, tmp_path)
    assert card_of(tmp_path).data.get("pipeline_tag") == tag
    assert said in card_of(tmp_path).text


def test_features(tmp_path: Path) -> None:
    zoo.save_pretrained(random_model("test_resnet", num_classes=0, input_size=32), tmp_path)
    assert card_of(tmp_path).data.pipeline_tag == "image-feature-extraction"
    assert "turns an image into 96 features" in card_of(tmp_path).text


def test_the_text_of_a_card(model: keras.Model, tmp_path: Path) -> None:
    zoo.save_pretrained(model, tmp_path / "mine", metrics={"top-1": 0.51236}, card="Insects.")
    text = card_of(tmp_path / "mine").text
    parameters = sum(int(np.prod(weight.shape)) for weight in model.weights)
    for said in (
        "# mine\n\nInsects.",
        'zoo.from_pretrained("mine")',
        f"| parameters | {parameters:,} (",
        "| input | 32 x 32 x 3 |",
        "| size | 32 x 32 px |",
        "| resize | short side to size / 0.95, bicubic, centre crop |",
        "| mean | 0.485, 0.456, 0.406 |",
        "ant, bee, c\\|t x, dog.",
        "| top-1 | 0.51236 |",
        "The weights are under `cc-by-nc-4.0`.",
        "started from `hf://timm/resnet18.a1_in1k@main`, whose licence is `cc-by-nc-4.0`",
    ):
        assert said in text, said


def test_a_card_of_ones_own_stays(model: keras.Model, tmp_path: Path) -> None:
    zoo.save_pretrained(model, tmp_path, card="First.")
    zoo.save_pretrained(model, tmp_path, card="Second.")
    written = (tmp_path / "README.md").read_text("utf-8")
    assert "Second." in written
    assert "First." not in written
    mine = written.replace(MARK, "").replace("Second.", "Mine.")
    (tmp_path / "README.md").write_text(mine, "utf-8")
    zoo.save_pretrained(model, tmp_path, card="Third.")
    assert (tmp_path / "README.md").read_text("utf-8") == mine
    assert_equal_but(zoo.from_pretrained(tmp_path), model)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"metrics": {"accuracy": float("nan")}}, "`metrics` must map names to finite numbers"),
        ({"metrics": {"accuracy": "high"}}, "`metrics` must map names to finite numbers"),
        ({"metrics": {"": 0.5}}, "`metrics` must map names to finite numbers"),
        ({"metrics": {"accuracy": True}}, "`metrics` must map names to finite numbers"),
        ({"data": ["beans", ""]}, "`data` must be names of data sets"),
        ({"card": "---\nlicense: mit\n---"}, "`card` must be Markdown without metadata"),
        ({"license": ""}, "`license` must not be empty"),
    ],
)
def test_what_a_card_cannot_say(
    hub: WritableHub, model: keras.Model, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    for place in (tmp_path / "new", TARGET):
        with pytest.raises(OptionValueError, match=said):
            zoo.save_pretrained(model, place, **given)
    assert not (tmp_path / "new").exists()
    assert not hub.steps


def test_a_named_licence_is_in_the_config(model: keras.Model, tmp_path: Path) -> None:
    zoo.save_pretrained(model, tmp_path, license="mit")
    saved = json.loads((tmp_path / "config.json").read_text("utf-8"))["keras_zoo"]["weights"]
    assert saved["license"] == "mit"
    assert saved["source"] == INFO.source
    record = get_record(model)
    assert record is not None
    assert record.weights == INFO  # the model is as it was
