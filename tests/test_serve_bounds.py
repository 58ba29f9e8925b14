"""The service's bounds: a full queue, time, the end, failures of the model, what is not served."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import zoo
import zoo.serve
from tests.random_weights import Array, random_model
from tests.test_serve import GOOD, OPTIONS, refused
from zoo.deploy import Predictor, predictor
from zoo.errors import OptionValueError
from zoo.serve import ServiceOptions, create_app
from zoo.serve.app import Service, _Prepared
from zoo.serve.options import check_installed


@pytest.fixture(scope="module")
def served() -> Predictor:
    return predictor(random_model("test_resnet", num_classes=7, input_size=32), "tensorflow")


class Slow:
    """An engine that answers when it is let."""

    name, precision = "slow", "float32"

    def __init__(self) -> None:
        self.go = threading.Event()
        self.running = threading.Event()
        self.go.set()

    def __call__(self, batch: Array) -> Array:
        self.running.set()
        if not self.go.wait(20):
            raise TimeoutError("nobody let it go")
        return np.zeros((len(batch), 7), np.float32)


def in_thread(client: TestClient, answers: list[Any]) -> threading.Thread:
    thread = threading.Thread(target=lambda: answers.append(client.post("/predict", content=GOOD)))
    thread.start()
    return thread


def until(condition: Any) -> None:
    end_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_a_full_queue_sends_away(served: Predictor) -> None:
    engine = Slow()
    app = create_app(replace(served, engine=engine), replace(OPTIONS, max_pending=2))
    with TestClient(app) as client:
        engine.go.clear()
        answers: list[Any] = []
        threads = [in_thread(client, answers) for _ in range(2)]
        until(lambda: client.get("/health").json()["pending"] == 2)
        sent_away = client.post("/predict", content=GOOD)
        refused(sent_away, 503, "busy", "2 requests wait already")
        assert int(sent_away.headers["retry-after"]) >= 1
        engine.go.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 200]
        assert client.post("/predict", content=GOOD).status_code == 200


def test_an_answer_that_takes_too_long(served: Predictor) -> None:
    engine = Slow()
    app = create_app(replace(served, engine=engine), replace(OPTIONS, timeout_s=0.2))
    with TestClient(app) as client:
        engine.go.clear()
        refused(client.post("/predict", content=GOOD), 504, "prediction_timeout", "within 0.2 s")
        engine.go.set()
        assert client.post("/predict", content=GOOD).status_code == 200


def test_what_was_accepted_is_answered_before_the_end(served: Predictor) -> None:
    engine = Slow()
    service = Service(replace(served, engine=engine), OPTIONS)

    async def scenario() -> list[Any]:
        async with service.running(None):  # type: ignore[arg-type]
            engine.go.clear()
            one = np.zeros((1, 32, 32, 3), np.float32)
            asked = asyncio.gather(*(service._batcher.submit([_Prepared(one, 1)]) for _ in "abc"))
            await asyncio.sleep(0.05)
            asyncio.get_running_loop().call_later(0.1, engine.go.set)
        with pytest.raises(RuntimeError, match="The batcher is closed"):
            await service._batcher.submit([])
        return await asked

    assert [len(answer) for answer in asyncio.run(scenario())] == [1, 1, 1]


def test_a_failure_of_the_model_is_a_500_and_one_line(
    served: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Slow):
        def __call__(self, batch: Array) -> Array:
            if not self.go.is_set():
                raise ZeroDivisionError("secret\nof the house")
            return super().__call__(batch)

    engine = Broken()
    with TestClient(create_app(replace(served, engine=engine))) as client:
        engine.go.clear()
        files = [("a", ("x.png", GOOD)), ("b", ("y.png", GOOD))]
        with caplog.at_level(logging.WARNING, "zoo.serve"):
            answer = client.post("/predict", files=files)
        refused(answer, 500, "internal")
        assert "secret" not in answer.text
        (line,) = [record.getMessage() for record in caplog.records]
        assert line.endswith("500 internal: ZeroDivisionError: secret?of the house")
        engine.go.set()
        assert client.post("/predict", files=files).status_code == 200


def test_a_refusal_is_one_line(served: Predictor, caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(create_app(served)) as client, caplog.at_level(logging.WARNING, "zoo.serve"):
        files = [("a", ("x\r\ny.png", b"no image"))]
        client.post("/predict", files=files)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("testclient POST /predict 422 not_an_image: File 1 (")
    assert "\n" not in record.getMessage()


# --- what cannot be served ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_batch": 0}, "`max_batch` must be a whole number, positive and finite"),
        ({"max_batch": 1.5}, "`max_batch` must be a whole number"),
        ({"max_pending": True}, "`max_pending` must be a whole number"),
        ({"max_wait_ms": -1}, "`max_wait_ms` must be a number, not negative"),
        ({"max_upload_mb": math.inf}, "`max_upload_mb` must be a number, positive"),
        ({"timeout_s": math.nan}, "`timeout_s` must be a number, positive"),
    ],
)
def test_options(given: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionValueError, match=said):
        ServiceOptions(**given)
    assert ServiceOptions(max_wait_ms=0).max_upload == 10_000_000


def test_models_that_cannot_be_served() -> None:
    features = predictor(
        zoo.create_model("test_resnet", num_classes=0, input_size=32), "tensorflow"
    )
    with pytest.raises(OptionValueError, match="which have no classes"):
        create_app(features)
    five = replace(features, preprocess=replace(features.preprocess, channels=5))
    with pytest.raises(OptionValueError, match="has 1 or 3 channels; `test_resnet` takes 5"):
        create_app(five)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()

    def missing(name: str) -> None:
        if name == "uvicorn":
            raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(OptionValueError, match=r'`uvicorn`, .*: pip install "keras-zoo\[serve\]"'):
        check_installed()


def test_public_names() -> None:
    for name in zoo.serve.__all__:
        assert getattr(zoo.serve, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'srv'"):
        _ = zoo.serve.srv
