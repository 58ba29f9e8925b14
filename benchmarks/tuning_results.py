"""Tables, files and child processes of the tuning benchmarks."""

from __future__ import annotations

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zoo
from benchmarks.startup import ROOT, child_environment, error_line, show
from recipes.versions import versions

RESULTS = Path(__file__).with_name("results")


def made_with() -> dict[str, Any]:
    """Returns versions, machine and TensorFlow's threads; 0 threads are one per core."""
    import tensorflow as tf

    threads = tf.config.threading
    return {
        **versions(),
        "keras-zoo": zoo.__version__,
        "optuna": importlib.metadata.version("optuna"),
        "threads": {
            "intra_op": threads.get_intra_op_parallelism_threads(),
            "inter_op": threads.get_inter_op_parallelism_threads(),
        },
    }


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a Markdown table with a line of what it was made with below."""
    show(title, columns, rows)
    known = made_with()
    shown = ("keras-zoo", "keras", "keras-tuner", "tensorflow", "processor", "cores")
    threads = ", ".join(f"{name} {count}" for name, count in known["threads"].items())
    line = ", ".join(f"{name} {known[name]}" for name in shown)
    print(f"{line}; threads: {threads} (0: one per core)\n", flush=True)


def write_result(folder: Path, name: str, content: Mapping[str, Any]) -> Path:
    """Writes `tuning_<name>.json` and returns its path."""
    date = datetime.now(UTC).date().isoformat()
    path = folder / f"tuning_{name}.json"
    write_json(path, {"date": date, "made_with": made_with(), **content})
    return path


def write_json(path: Path, content: Any) -> None:
    """Writes a file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def spread(samples: Sequence[float], digits: int = 2) -> str:
    """Returns the median with minimum and maximum."""
    low, high = min(samples), max(samples)
    return f"{statistics.median(samples):.{digits}f} ({low:.{digits}f}..{high:.{digits}f})"


def in_fresh_process(
    function: Callable[..., Any], *, timeout_s: float | None = None, **arguments: Any
) -> Any:
    """Returns what a module's function returns in a new interpreter; all of it must be JSON.

    Raises:
        RuntimeError: It failed there; the message holds its error.
        TimeoutExpired: It took longer.
    """
    code = (
        f"import json; from {function.__module__} import {function.__name__} as function; "
        f"result = function(**json.loads({json.dumps(arguments)!r})); "
        "print(); print(json.dumps(result))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code],
        env=child_environment(os.environ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if child.returncode:
        raise RuntimeError(f"{function.__name__} failed: {error_line(child.stderr)}")
    return json.loads(child.stdout.splitlines()[-1])
