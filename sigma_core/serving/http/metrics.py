"""What Prometheus is told. Labels are routes, codes and machinery, never a user, an item or a text."""

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from sigma_core.serving.live import LiveDay

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)


class Metrics:
    """The server's figures, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "sigma_requests",
            "Requests by route and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "sigma_request_seconds", "Time to answer.", ["route"], buckets=_SECONDS, registry=self.registry
        )
        self.served = Counter(
            "sigma_served", "Lists by what made them.", ["served_by"], registry=self.registry
        )
        self.batch = Histogram(
            "sigma_batch_size", "Requests of one forward pass.", buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )  # fmt: skip
        self.events = Counter("sigma_events", "Events received.", ["outcome"], registry=self.registry)
        self.refreshed = Counter("sigma_users_refreshed", "Users brought up to date.", registry=self.registry)
        self.queue = Gauge("sigma_queue", "Requests waiting for the model.", registry=self.registry)
        self.model = Gauge(
            "sigma_model_info", "1 for the model being served.", ["day", "model"], registry=self.registry
        )
        self.sessions = Gauge(
            "sigma_sessions", "Users whose KV states are in memory.", registry=self.registry
        )
        self.session_bytes = Gauge("sigma_session_bytes", "Memory of KV states.", registry=self.registry)
        self.swaps = Gauge("sigma_model_swaps", "Models swapped in since the start.", registry=self.registry)

    def text(self, live: "LiveDay", waiting: int, swaps: int) -> bytes:
        """The exposition of now."""
        self.queue.set(waiting)
        self.swaps.set(swaps)
        if live.sessions is not None:
            self.sessions.set(len(live.sessions))
            self.session_bytes.set(live.sessions.nbytes)
        self.model.clear()
        self.model.labels(live.day, live.model).set(1)
        return generate_latest(self.registry)
