"""The service on a real port: the command, the load test at its smallest, the end by a signal."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import benchmarks.serve as load_test
from recipes import cli
from tests.random_weights import random_model
from zoo.deploy import predictor
from zoo.errors import OptionValueError
from zoo.pretrained import save_pretrained
from zoo.serve import ServiceOptions, serve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    save_pretrained(random_model("test_resnet", num_classes=7, input_size=32), place)
    return place


def test_the_load_test_at_its_smallest(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "serve.json"
    arguments = ["--model", str(folder), "--engine", "tensorflow", "--requests", "200"]
    found = load_test.main([*arguments, "--connections", "4", "--out", str(out)])
    assert found["as_expected"], found["statuses"]
    assert found["lost"] == 0
    assert found["statuses"]["good 200"] == 180
    assert found["log_lines"] == found["refusals"] == 20
    assert found["exit_code"] == 0
    assert json.loads(out.read_text("utf-8")) == found
    assert re.search(r"requests_per_s\s+\d", capsys.readouterr().out)


@pytest.fixture
def running(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The service on a port."""
    code = (
        "import sys, time, numpy as np\n"
        "from zoo.deploy import predictor\n"
        "from zoo.serve import serve\n"
        "from dataclasses import replace\n"
        "class Slow:\n"
        "    name, precision, calls = 'slow', 'float32', 0\n"
        "    def __call__(self, batch):\n"
        "        self.calls += 1\n"
        "        time.sleep(1.5 if self.calls > 2 else 0)\n"
        "        return np.zeros((len(batch), 7), np.float32)\n"
        f"made = replace(predictor({str(folder)!r}, 'tensorflow'), engine=Slow())\n"
        "serve(made, port=0, started=lambda address: print(address, flush=True))\n"
        "print('ended', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    port = int(process.stdout.readline().rpartition(":")[2])
    yield process, port
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.slow  # starts another process; in one process: test_serve.py
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to handle")
def test_what_was_accepted_is_answered_after_sigterm(
    running: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = running
    answers: list[Any] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/predict", load_test.photographs(1)[0])
        answers.append(connection.getresponse().status)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.7)  # they are accepted, and the model is at work
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert answers == [200] * 4
    assert process.wait(20) == 0
    assert process.stdout is not None
    assert process.stdout.read() == "ended\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_addresses_that_cannot_be_had(folder: Path) -> None:
    made = predictor(folder, "tensorflow")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OptionValueError, match=f"`127.0.0.1` port {port} cannot be listened"):
            serve(made, port=port)
    with pytest.raises(OptionValueError, match="`port` must be from 0 to 65535; got port=70000"):
        serve(made, port=70_000)


def command(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["keras-zoo", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(str(ended.value.code))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--max-batch", "0"), "`max_batch` must be a whole number, positive"),
        (("--engine", "onyx"), "`engine` must be one of"),
        (("--weights", "x"), "`--weights` is for names of the catalog"),
    ],
)
def test_the_command_refuses(
    folder: Path,
    arguments: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command("serve", str(folder), *arguments, monkeypatch=monkeypatch) == 2
    assert said in capsys.readouterr().err


def test_the_command_serves(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    def fake(made: Any, **given: Any) -> None:
        seen.update(given, name=made.name)
        given["started"]("http://127.0.0.1:1")

    monkeypatch.setattr("zoo.serve.serve", fake, raising=False)
    arguments = ("--port", "0", "--max-wait-ms", "2", "--engine", "tensorflow")
    assert command("serve", str(folder), *arguments, monkeypatch=monkeypatch) == 0
    assert (seen["host"], seen["port"], seen["name"]) == ("127.0.0.1", 0, "test_resnet")
    assert seen["options"] == ServiceOptions(max_wait_ms=2)
    assert "test_resnet (tensorflow): http://127.0.0.1:1" in capsys.readouterr().out
