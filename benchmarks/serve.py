"""Requests to a running service, a tenth of them malformed: `python -m benchmarks.serve`.

A service of its own, in a process of its own, answers several connections that send images without
a pause. Every answer is counted against the status that it must have; the service's memory is read
before and after, and its log must hold one line for each refusal. Everything stays on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RESULT = Path(__file__).with_name("results") / "serve.json"
UPLOAD_MB = 1.0
WARM = 500  # requests before memory is read: buffers and threads are there by then


@dataclass(frozen=True)
class Case:
    """One kind of request and the status that it must have."""

    name: str
    status: int
    content: bytes
    kind: str = "application/octet-stream"
    method: str = "POST"

    def wire(self) -> bytes:
        """The request as it is sent."""
        head = (
            f"{self.method} /predict?top=5 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: {self.kind}\r\nContent-Length: {len(self.content)}\r\n\r\n"
        )
        return head.encode() + self.content


@dataclass
class Tally:
    """What came back."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)  # "case status"
    lost: int = 0


def photographs(count: int = 16) -> list[bytes]:
    """JPEGs of 320 x 240 pixels, smooth and different from each other."""
    rng, files = np.random.default_rng(0), []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        file = io.BytesIO()
        coarse.resize((320, 240), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def bad_cases(photo: bytes) -> list[Case]:
    flat = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(flat, "PNG")  # 144 million pixels in 20 kB
    form = b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"
    return [
        Case("truncated", 422, photo[: len(photo) // 2]),
        Case("text", 422, b"this is no image"),
        Case("empty", 422, b""),
        Case("bomb", 422, flat.getvalue()),
        Case("huge", 413, b"\0" * int(2 * UPLOAD_MB * 1e6)),
        Case("wrong type", 415, photo, "text/plain"),
        Case("bad json", 400, b'{"images": [', "application/json"),
        Case("bad base64", 400, b'{"images": ["&&"]}', "application/json"),
        Case("bad multipart", 400, form, "multipart/form-data; boundary=b"),
        Case("wrong method", 405, b"", method="PUT"),
    ]


def requests_of(count: int, seed: int = 0) -> list[Case]:
    """`count` requests in random order, a tenth of them malformed, each kind as often."""
    good = [Case("good", 200, photo, "image/jpeg") for photo in photographs()]
    bad = bad_cases(good[0].content)
    chosen = [bad[i % len(bad)] if i < count // 10 else good[i % len(good)] for i in range(count)]
    random.Random(seed).shuffle(chosen)  # noqa: S311 - an order
    return chosen


async def answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Reads one answer: its status, and whether the connection ends with it."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = re.search(r"content-length: (\d+)", head)
    body = json.loads(await reader.readexactly(int(length[1]))) if length else {}
    status = int(head.split(" ", 2)[1])
    if (status == 200) != ("results" in body) or (status != 200) != ("error" in body):
        raise ValueError(f"status {status} with {list(body)}")
    return status, "connection: close" in head


async def connection(port: int, queue: list[Case], tally: Tally) -> None:
    """Sends what is left in the queue, one after another, over a connection that is kept."""
    writer: asyncio.StreamWriter | None = None
    while queue:
        case = queue.pop()
        start_s = time.perf_counter()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(case.wire())
            await writer.drain()
            status, ends = await asyncio.wait_for(answer(reader), 60)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
            print(f"lost: {case.name}: {type(error).__name__}: {error}")
            tally.lost += 1
            ends = True
        else:
            tally.seconds.append(time.perf_counter() - start_s)
            tally.statuses[f"{case.name} {status}"] += 1
        if ends and writer is not None:
            writer.close()
            writer = None
    if writer is not None:
        writer.close()


async def load(port: int, cases: list[Case], connections: int) -> Tally:
    tally, queue = Tally(), list(cases)
    await asyncio.gather(*(connection(port, queue, tally) for _ in range(connections)))
    return tally


def resident_mb(pid: int) -> float:
    """Memory of a process that is in use, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else float("nan")


def start(model: str, engine: str, log: Path) -> tuple[subprocess.Popen[str], int]:
    """The service on a free port."""
    command = [sys.executable, "-m", "recipes.cli", "serve", model, "--port", "0"]
    command += ["--engine", engine, "--max-upload-mb", str(UPLOAD_MB)]
    with log.open("w") as errors:
        service = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"COLUMNS": "200"},
        )
    assert service.stdout is not None
    line = service.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
    if found is None:
        raise RuntimeError(f"the service did not start: {line} {log.read_text('utf-8')}")
    return service, int(found[1])


def quantile_ms(seconds: list[float], share: float) -> float:
    return round(1000 * float(np.quantile(seconds, share)), 2)


def measure(model: str, engine: str, count: int, connections: int, log: Path) -> dict[str, Any]:
    """One run: what was sent, what came back, how long it took, how much memory it left."""
    service, port = start(model, engine, log)
    try:
        asyncio.run(load(port, requests_of(min(WARM, count), 1), connections))
        before_mb, lines = resident_mb(service.pid), len(log.read_text("utf-8").splitlines())
        cases = requests_of(count)
        start_s = time.perf_counter()
        tally = asyncio.run(load(port, cases, connections))
        took_s = time.perf_counter() - start_s
        after_mb = resident_mb(service.pid)
        logged = len(log.read_text("utf-8").splitlines()) - lines
    finally:
        service.send_signal(signal.SIGTERM)
        code = service.wait(60)
        assert service.stdout is not None
        service.stdout.close()
    expected = Counter(f"{case.name} {case.status}" for case in cases)
    return {
        "requests": count,
        "connections": connections,
        "requests_per_s": round(count / took_s, 1),
        "p50_ms": quantile_ms(tally.seconds, 0.5),
        "p95_ms": quantile_ms(tally.seconds, 0.95),
        "p99_ms": quantile_ms(tally.seconds, 0.99),
        "mean_ms": round(1000 * statistics.fmean(tally.seconds), 2),
        "statuses": dict(sorted(tally.statuses.items())),
        "as_expected": tally.statuses == expected,
        "lost": tally.lost,
        "log_lines": logged,
        "refusals": sum(n for name, n in expected.items() if not name.endswith(" 200")),
        "rss_before_mb": round(before_mb, 1),
        "rss_after_mb": round(after_mb, 1),
        "exit_code": code,
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", help="as `keras-zoo serve` takes it; default: a random MobileNet"
    )
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or _random_model(Path(folder) / "model")
        run = measure(model, given.engine, given.requests, given.connections, Path(folder) / "log")
    from recipes.versions import versions

    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": given.model or "mobilenetv3_small_100, random weights",
        "engine": given.engine,
        "cores": os.cpu_count(),
        "versions": versions(),
        **run,
    }
    for name, value in run.items():
        print(f"{name:15} {value}")
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _random_model(folder: Path) -> str:
    import zoo

    zoo.save_pretrained(zoo.create_model("mobilenetv3_small_100"), folder)
    return str(folder)


if __name__ == "__main__":
    main()
