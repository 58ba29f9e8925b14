"""What a run was made with: package versions and the machine, read without importing anything."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

_PACKAGES = ("keras-zoo", "keras", "keras-tuner", "tensorflow", "numpy")
_OTHER_NAMES = {"tensorflow": ("tensorflow-cpu", "tf-nightly")}  # builds with a name of their own
_CPU_INFO = Path("/proc/cpuinfo")


def versions() -> dict[str, str | int]:
    """Returns versions by package name, the backend, and the machine's platform and cores.

    Nothing heavy is imported, and nothing names the machine or its user.
    """
    backend = _backend()
    packages = dict.fromkeys((*_PACKAGES, backend))
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
        "backend": backend,
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": _cores(),
    }


def _version(package: str) -> str:
    for name in (package, *_OTHER_NAMES.get(package, ())):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"


def _backend() -> str:
    """Returns the backend as Keras chooses it, asking Keras itself only where it is loaded."""
    if "keras" in sys.modules:
        return str(sys.modules["keras"].config.backend())
    if chosen := os.environ.get("KERAS_BACKEND"):
        return chosen
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        return str(json.loads((home / "keras.json").read_text("utf-8"))["backend"])
    except (OSError, ValueError, KeyError):
        return "tensorflow"


def _processor() -> str:
    try:
        lines = _CPU_INFO.read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _cores() -> int:
    """Returns the cores this process may use, which a container may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
