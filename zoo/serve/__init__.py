"""A trained model behind HTTP: images in, class names out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.serve.app import create_app
    from zoo.serve.options import ServiceOptions
    from zoo.serve.server import serve

_LAZY = {
    "ServiceOptions": "zoo.serve.options",
    "create_app": "zoo.serve.app",
    "serve": "zoo.serve.server",
}
__all__ = ["ServiceOptions", "create_app", "serve"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo.serve' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
