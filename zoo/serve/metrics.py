"""What the service counts, in Prometheus' text format."""

from __future__ import annotations

import functools

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one service, in a registry of their own: two services do not mix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        counter = functools.partial(Counter, namespace="keras_zoo", registry=self._registry)
        histogram = functools.partial(Histogram, namespace="keras_zoo", registry=self._registry)
        self.requests = counter("requests", "Answers by path and status.", ["path", "status"])
        self.refusals = counter("refusals", "Requests refused, by rule.", ["rule"])
        self.request_seconds = histogram(
            "request_seconds", "From request to answer, by path.", ["path"], buckets=SECONDS
        )
        self.images = counter("images", "Images that the model was run on.")
        self.batch_images = histogram(
            "batch_images", "Images in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64)
        )
        self.model_seconds = histogram("model_seconds", "The model on one batch.", buckets=SECONDS)
        self.pending = Gauge(
            "pending_requests",
            "Accepted and not yet answered.",
            namespace="keras_zoo",
            registry=self._registry,
        )

    def render(self) -> bytes:
        """All of them, as /metrics answers."""
        return generate_latest(self._registry)
