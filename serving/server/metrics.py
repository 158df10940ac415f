"""What Prometheus is told, under TensorFlow Serving's names where it has them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.engine.loaded_model import LoadedSignature

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCIES = tuple(10 * 1.8**power for power in range(33))  # microseconds; TensorFlow Serving's
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self):
        self._registry = CollectorRegistry()
        self._requests = Counter(
            ":tensorflow:serving:request_count",
            "Requests by outcome.",
            ["model_name", "status"],
            registry=self._registry,
        )
        self._latency = Histogram(
            ":tensorflow:serving:request_latency",
            "Microseconds from the request's coming to the answer.",
            ["model_name", "API", "entrypoint"],
            buckets=_LATENCIES,
            registry=self._registry,
        )
        self._batches = Histogram(
            ":tensorflow:serving:batching_session:processed_batch_size",
            "Rows that were run together.",
            ["model_name", "signature"],
            buckets=_ROWS,
            registry=self._registry,
        )
        self._logged = Counter(
            "bert_serving_request_log_entries",
            "Sampled requests by what became of them: written, or dropped, and why.",
            ["model_name", "outcome"],
            registry=self._registry,
        )
        self._waiting = Gauge("bert_serving_waiting_rows", "Rows in the queues.", registry=self._registry)
        self._version = Gauge(
            "bert_serving_version_available", "1 for each version.", ["model_name", "version"], registry=self._registry
        )
        # Looking up a child costs more than counting; names come from loaded models and codes only, so they are few.
        self._children: dict[tuple, object] = {}

    def answered(self, model: str, entrypoint: str, status: str, seconds: float) -> None:
        """Of a request to Predict; `entrypoint` is GRPC or REST."""
        self._child(self._requests, model, status).inc()
        self._child(self._latency, model, "Predict", entrypoint).observe(1e6 * seconds)

    def batch(self, signature: LoadedSignature, rows: int) -> None:
        self._child(self._batches, signature.model.name, signature.name).observe(rows)

    def logged(self, model: str, outcome: str) -> None:
        """Of an entry of the request log."""
        self._child(self._logged, model, outcome).inc()

    def text(self, waiting_rows: int, versions: list[tuple[str, int]]) -> bytes:
        """All figures in Prometheus' format; `versions` are those that answer now."""
        self._waiting.set(waiting_rows)
        self._version.clear()
        for name, version in versions:
            self._version.labels(name, str(version)).set(1)
        # prometheus_client insists on an ending that TensorFlow Serving's counters do not have.
        return generate_latest(self._registry).replace(b":request_count_total", b":request_count")

    def _child(self, metric, *labels):
        key = (metric, *labels)
        if key not in self._children:
            self._children[key] = metric.labels(*labels)
        return self._children[key]
