"""The service in process: answers, bounds, bad input, the page, metrics."""

from __future__ import annotations

import base64
import io
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import zoo
from tests.random_weights import Array, outputs, random_model
from zoo.deploy import Predictor, predictor
from zoo.record import get_record, set_record
from zoo.serve import ServiceOptions, create_app

NAMES = ("ant", "bee", "<b>cat</b>", "dog", "eel", "fox", "gnu")
OPTIONS = ServiceOptions(max_upload_mb=0.2, max_images=3, max_pixels=40_000, max_pending=4)
OCTETS = {"Content-Type": "application/octet-stream"}


def photo(seed: int = 0, height: int = 40, width: int = 50) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels: Array, format: str = "PNG") -> bytes:  # noqa: A002 - Pillow's word
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is large, in 60 bytes."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 8)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    made = random_model("test_resnet", num_classes=7, input_size=32)
    record = get_record(made)
    assert record is not None
    set_record(made, replace(record, class_names=NAMES))
    return made


@pytest.fixture(scope="module")
def served(model: keras.Model) -> Predictor:
    return predictor(model, "tensorflow")


@pytest.fixture(scope="module")
def client(served: Predictor) -> Iterator[TestClient]:
    with TestClient(create_app(served, OPTIONS)) as made:
        yield made


@pytest.fixture(scope="module")
def expected(model: keras.Model) -> Array:
    """Softmax of the model on four photographs, by numpy."""
    logits = outputs(model, zoo.preprocessor(model)([photo(i) for i in range(4)]))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def check(result: dict[str, Any], row: Array, top: int = 5) -> None:
    order = sorted(range(7), key=lambda i: -row[i])[:top]
    found = result["predictions"]
    assert [each["index"] for each in found] == order
    assert [each["name"] for each in found] == [NAMES[i] for i in order]
    np.testing.assert_allclose([each["value"] for each in found], row[order], atol=1e-5)


def refused(answer: Any, status: int, rule: str, said: str = "") -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["status"], error["rule"]) == (status, rule)
    assert said in error["message"]


# --- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", None])
def test_an_image_as_the_body(client: TestClient, expected: Array, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = client.post("/predict", content=encoded(photo(0)), headers=headers)
    assert answer.status_code == 200
    assert answer.json()["model"] == "test_resnet"
    (result,) = answer.json()["results"]
    check(result, expected[0])


def test_several_files(client: TestClient, expected: Array) -> None:
    files = [("any", (f"{i}.png", encoded(photo(i)), "image/png")) for i in range(3)]
    results = client.post("/predict?top=2", files=files).json()["results"]
    assert [each["file"] for each in results] == [f"File {i + 1} ({i}.png)" for i in range(3)]
    for result, row in zip(results, expected[:3], strict=True):
        check(result, row, 2)


def test_base64_in_json(client: TestClient, expected: Array) -> None:
    images = [base64.b64encode(encoded(photo(i))).decode() for i in range(2)]
    results = client.post("/predict?top=99", json={"images": images}).json()["results"]
    for result, row in zip(results, expected[:2], strict=True):
        check(result, row, 7)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "JPEG", "WEBP"])
def test_formats(client: TestClient, served: Predictor, format: str) -> None:  # noqa: A002
    content = encoded(photo(), format)
    answer = client.post("/predict?top=1", content=content, headers=OCTETS)
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image.convert("RGB"))
    expected = served.classify(pixels, top=1)[0][0]
    (found,) = answer.json()["results"][0]["predictions"]
    assert (found["index"], found["value"]) == (expected.index, pytest.approx(expected.value, 1e-4))


def test_requests_at_once_are_batched(served: Predictor, expected: Array) -> None:
    """Each gets its own answer and its own `top`, and the model runs on several at once."""
    options = ServiceOptions(max_batch=4, max_wait_ms=400)
    with TestClient(create_app(served, options)) as client:
        answers: dict[int, Any] = {}

        def ask(i: int) -> None:
            answers[i] = client.post(f"/predict?top={i + 1}", content=encoded(photo(i)))

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, answer in answers.items():
            check(answer.json()["results"][0], expected[i], i + 1)
        metrics = client.get("/metrics").text
    assert "keras_zoo_batch_images_count 1.0" in metrics
    assert "keras_zoo_images_total 4.0" in metrics


def test_regression_answers_all_values_in_order(model: keras.Model) -> None:
    record = get_record(model)
    assert record is not None
    set_record(model, replace(record, task="regression"))
    try:
        made = predictor(model, "tensorflow")
    finally:
        set_record(model, record)
    with TestClient(create_app(made)) as client:
        answer = client.post("/predict?top=1", content=encoded(photo()))
    found = answer.json()["results"][0]["predictions"]
    assert [each["name"] for each in found] == list(NAMES)
    np.testing.assert_allclose([e["value"] for e in found], made(photo())[0], atol=1e-5)


def test_health(client: TestClient) -> None:
    said = client.get("/health").json()
    assert (said["status"], said["model"], said["engine"]) == ("ok", "test_resnet", "tensorflow")
    assert (said["classes"], said["input_size"], said["pending"]) == (7, [32, 32], 0)
    assert said["bounds"]["max_images"] == 3


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    for word in ("http:", "https:", "src=", "@import", "url("):
        assert word not in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "innerHTML" not in answer.text  # class names are text


def test_metrics_count(served: Predictor) -> None:
    with TestClient(create_app(served, OPTIONS)) as client:
        for _ in range(3):
            client.post("/predict", content=encoded(photo()))
        client.post("/predict", content=b"no image")
        client.get("/predict")
        lines = client.get("/metrics").text.splitlines()
    for line in (
        'keras_zoo_requests_total{path="/predict",status="200"} 3.0',
        'keras_zoo_requests_total{path="/predict",status="422"} 1.0',
        'keras_zoo_requests_total{path="other",status="405"} 1.0',
        'keras_zoo_refusals_total{rule="not_an_image"} 1.0',
        'keras_zoo_request_seconds_count{path="/predict"} 4.0',
        "keras_zoo_images_total 3.0",
        "keras_zoo_pending_requests 0.0",
    ):
        assert line in lines


# --- bad input ----------------------------------------------------------------------------------

GOOD = encoded(photo())
BAD_BODIES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 422, "empty_image"),
    "text": (b"hello", 422, "not_an_image"),
    "truncated": (GOOD[: len(GOOD) // 2], 422, "damaged_image"),
    "only a head": (GOOD[:20], 422, "damaged_image"),
    "a program of another format": (b"%!PS-Adobe-3.0 EPSF-3.0\n", 422, "not_an_image"),
    "too many bytes": (b"\0" * 200_001, 413, "upload_too_large"),
    "too many pixels": (encoded(np.zeros((201, 200, 3), np.uint8)), 422, "image_too_large"),
    "a bomb that Pillow warns of": (bomb(10_000, 10_000), 422, "image_too_large"),
    "a bomb that Pillow refuses": (bomb(60_000, 60_000), 422, "image_too_large"),
    "a strip that resizing blows up": (encoded(photo(0, 1, 3000)), 422, "image_too_large"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies(client: TestClient, name: str) -> None:
    content, status, rule = BAD_BODIES[name]
    refused(client.post("/predict", content=content, headers=OCTETS), status, rule)
    if status == 422:
        files = [("a", ("good.png", GOOD)), ("b", ("bad.png", content))]
        refused(client.post("/predict", files=files), status, rule, "File 2 (bad.png)")


def test_a_body_that_does_not_say_its_length(client: TestClient) -> None:
    chunks = (b"\0" * 50_000 for _ in range(5))
    refused(client.post("/predict", content=chunks, headers=OCTETS), 413, "upload_too_large")
    parts = (GOOD[i : i + 1000] for i in range(0, len(GOOD), 1000))
    assert client.post("/predict", content=parts, headers=OCTETS).status_code == 200


def test_requests_that_break_a_rule(client: TestClient) -> None:
    post = client.post
    refused(client.get("/predict"), 405, "wrong_method", "allowed: POST")
    assert client.get("/predict").headers["allow"] == "POST"
    refused(client.delete("/health"), 405, "wrong_method")
    refused(client.get("/nothing"), 404, "no_such_path", "POST /predict")
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    refused(post("/predict", content=GOOD, headers=kind), 415, "unsupported_type", "--data-binary")
    for top in ("0", "-1", "1.5", "five", "", "9" * 5000, "1&top=2", "%00", "٣"):
        refused(post(f"/predict?top={top}", content=GOOD), 400, "bad_top", "`top` must be")
    refused(post("/predict?topp=1", content=GOOD), 400, "unknown_parameter", "Did you mean top?")
    many = [("a", ("x.png", GOOD))] * 4
    refused(post("/predict", files=many), 413, "too_many_images", "3 images")
    refused(post("/predict", json={"images": ["QQ=="] * 4}), 413, "too_many_images")
    refused(post("/predict", data={"a": "b"}, files={}), 415, "unsupported_type")


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "bad_json"),
        (b"{", "bad_json"),
        (b"\xff\xfe", "bad_json"),
        (b"[" * 100_000, "bad_json"),
        (b"null", "bad_json"),
        (b"[]", "bad_json"),
        (b'{"images": "QQ=="}', "bad_json"),
        (b'{"images": [1]}', "bad_json"),
        (b'{"images": [], "top": 1}', "bad_json"),
        (b'{"images": []}', "no_image"),
        (b'{"images": ["&"]}', "bad_base64"),
        ('{"images": ["é"]}'.encode(), "bad_base64"),
        (b'{"images": ["QQ"]}', "bad_base64"),
    ],
)
def test_bad_json(client: TestClient, content: bytes, rule: str) -> None:
    kind = {"Content-Type": "application/json; charset=utf-8"}
    refused(client.post("/predict", content=content, headers=kind), 400, rule)


@pytest.mark.parametrize(
    ("kind", "content", "rule"),
    [
        ("multipart/form-data", b"x", "bad_multipart"),
        ("multipart/form-data; boundary=b", b"x", "bad_multipart"),
        ("multipart/form-data; boundary=b", b"--b\r\nno header\r\n\r\n", "bad_multipart"),
        ("multipart/form-data; boundary=b", b"--b\r\nA: b\r\n\r\nx\r\n--b--", "bad_multipart"),
        ("multipart/form-data; boundary=b", b"", "no_image"),
        ("multipart/form-data; boundary=" + "b" * 300, b"--b", "bad_multipart"),
    ],
)
def test_bad_multipart(client: TestClient, kind: str, content: bytes, rule: str) -> None:
    refused(client.post("/predict", content=content, headers={"Content-Type": kind}), 400, rule)


def test_mutilated_files_are_never_a_failure(client: TestClient) -> None:
    """Random bytes changed in files of each format: an answer or a rule, never a 500."""
    rng = np.random.default_rng(0)
    seen = set()
    for format_ in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"):
        whole = encoded(photo(1, 12, 12), format_)
        for _ in range(60):
            broken = bytearray(whole)
            for place in rng.integers(0, len(whole), rng.integers(1, 6)):
                broken[place] = rng.integers(256)
            content = bytes(broken)[
                : rng.integers(1, len(whole) + 1) if rng.random() < 0.3 else None
            ]
            answer = client.post("/predict", content=content, headers=OCTETS)
            seen.add(answer.status_code)
    assert seen == {200, 422}
