"""The figures of a running service, for Prometheus. docs/service.md explains them."""

from collections.abc import Sequence
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)

from service.admission import Admission
from service.snapshot import Snapshot
from service.stage import Batch
from service.ticket import DropReason

PREFIX = "lookalike"
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds of the histograms' buckets, in seconds."""
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """All figures of one application. Each application has a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = self._counter("requests", "Answered requests.", "path", "method", "status")
        self._request_s = self._histogram(
            "request_seconds",
            "Time from the headers of a request to the end of its answer.",
            "path",
        )
        self._wait_s = self._histogram(
            "wait_seconds", "How long an image (write: a request) waited for a stage.", "stage"
        )
        self._run_s = self._histogram(
            "batch_seconds", "How long a stage worked on a batch.", "stage"
        )
        self._batch_size = self._histogram(
            "batch_images",
            "Number of images (write: of requests) in a batch.",
            "stage",
            buckets=SIZES,
        )
        self._dropped = self._counter(
            "dropped_images", "Images that were admitted but not answered.", "reason"
        )
        for reason in get_args(DropReason):  # so that each reason has a value from the start
            self._dropped.labels(reason)
        self._refused = self._counter(
            "refused_requests",
            "Requests that were answered with a problem, by the type of the problem.",
            "problem",
        )
        self._swaps = self._counter(
            "index_swaps",
            "New commits of the index that were taken over (ok) or refused (failed).",
            "result",
        )
        for result in ("ok", "failed"):
            self._swaps.labels(result)
        self._commit = self._gauge("index_commit", "The commit that is served.")
        self._items = self._gauge("index_items", "Number of items.")
        self._served = Info(f"{PREFIX}_served", "The model and the index.", registry=self.registry)

    def watch(self, admission: Admission) -> None:
        """Report how many images and seconds wait, when the figures are read."""
        waiting = self._gauge("waiting_images", "Images that are admitted but not answered.")
        waiting.set_function(lambda: admission.num_waiting)
        seconds = self._gauge("waiting_seconds", "How long a request that arrives now would wait.")
        seconds.set_function(lambda: admission.predicted_wait_s)
        uploading = self._gauge("uploading_requests", "Requests whose bodies are arriving.")
        uploading.set_function(lambda: admission.num_uploading)

    def count_request(self, path: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request. `path` is a route, so that there are few of them."""
        self._requests.labels(path, method, status).inc()
        self._request_s.labels(path).observe(seconds)

    def count_batch(self, batch: Batch) -> None:
        """Count a batch of a stage."""
        self._run_s.labels(batch.stage).observe(batch.run_s)
        self._batch_size.labels(batch.stage).observe(len(batch.waits_s))
        for wait_s in batch.waits_s:
            self._wait_s.labels(batch.stage).observe(wait_s)

    def count_dropped(self, reason: DropReason, num_images: int) -> None:
        """Count the images of a request that was dropped."""
        self._dropped.labels(reason).inc(num_images)

    def count_refused(self, problem: str) -> None:
        """Count a request that was answered with a problem."""
        self._refused.labels(problem).inc()

    def serve(self, snapshot: Snapshot) -> None:
        """Note the commit that is served, and its index."""
        manifest = snapshot.index.manifest
        self._commit.set(manifest.commit)
        self._items.set(manifest.num_items)
        self._served.info({"model": snapshot.card.id, "index": snapshot.name})

    def count_swap(self, *, is_ok: bool) -> None:
        """Count a new commit that was taken over or refused."""
        self._swaps.labels("ok" if is_ok else "failed").inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, registry=self.registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: Sequence[float] = SECONDS
    ) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, labels, buckets=buckets, registry=self.registry)
