"""The bounds of the service and what it answers when a request breaks one. Imports no framework."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from zoo.errors import OptionValueError, ZooError

PACKAGES = ("starlette", "uvicorn", "python_multipart", "prometheus_client")


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """Bounds of the service; memory in use stays below what they allow.

    Raises:
        OptionValueError: A number that is not positive and finite, or for `max_wait_ms` negative.
    """

    max_batch: int = 8  # images that the model runs at once
    max_wait_ms: float = 4.0  # how long the first image of a batch waits for others
    max_upload_mb: float = 10.0  # body of one request, in 1e6 bytes
    max_pixels: int = 50_000_000  # of one image, before and after it is resized
    max_images: int = 32  # in one request
    max_pending: int = 64  # requests accepted and not yet answered; more are sent away
    timeout_s: float = 30.0  # for receiving a request, and again for answering it

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            whole = isinstance(each.default, int)
            low = 0.0 if each.name == "max_wait_ms" else math.ulp(0.0)
            ok = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not (ok and low <= value < math.inf):
                kind = "a whole number" if whole else "a number"
                rule = "not negative" if low == 0 else "positive"
                raise OptionValueError(
                    f"`{each.name}` must be {kind}, {rule} and finite; got {each.name}={value!r}."
                )

    @property
    def max_upload(self) -> int:
        """The largest body in bytes."""
        return int(self.max_upload_mb * 1e6)


@dataclass(eq=False)
class RequestError(ZooError):
    """A request that is not answered, with the status and the rule that say why."""

    status: int
    rule: str  # snake_case, part of the interface
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message


def check_installed() -> None:
    """Looks for the packages of the `serve` extra.

    Raises:
        OptionValueError: One is missing.
    """
    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise OptionValueError(
                f"The service needs the package `{package.replace('_', '-')}`, which is not "
                'installed: pip install "keras-zoo[serve]".'
            ) from error
