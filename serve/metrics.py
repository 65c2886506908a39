"""Prometheus metrics of the endpoint, from records of its requests and the state of its engines."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trimtab.serve.records import RequestRecord
from trimtab.serve.supervise import Supervisor
from trimtab.serve.table import Table

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
_NO_MODEL = "none"  # of a request that named none of ours: a caller's words make no labels


class Metrics:
    """Counts since the start. ``table`` and ``supervisors``: the state now."""

    def __init__(self, table: Callable[[], Table], supervisors: Callable[[], list[Supervisor]]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "trimtab_requests", "Requests by status", ["model", "status"], registry=self._registry
        )
        self._tokens = Counter(
            "trimtab_tokens",
            "Tokens by kind, as the engine counted them",
            ["model", "key", "kind"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "trimtab_request_seconds",
            "Until an answer was through",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._first = Histogram(
            "trimtab_time_to_first_token_seconds",
            "Until a stream's first bytes",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._rollouts = Counter(
            "trimtab_rollouts", "Recipes read again, by result", ["result"], registry=self._registry
        )
        for result in ("done", "failed"):
            self._rollouts.labels(result)
        self._registry.register(_State(table, supervisors))

    def see(self, record: RequestRecord) -> None:
        """A request that is over."""
        model = record.model or _NO_MODEL
        self._requests.labels(model, record.status).inc()
        if not record.model:
            return
        for kind, tokens in (("prompt", record.prompt_tokens), ("completion", record.completion_tokens)):
            if tokens:
                self._tokens.labels(model, record.key, kind).inc(tokens)
        if record.outcome == "whole":
            self._seconds.labels(model).observe(record.seconds)
            if record.stream and record.first is not None:
                self._first.labels(model).observe(record.first)

    def rolled_out(self, result: str) -> None:
        """A rollout is ``done`` or ``failed``."""
        self._rollouts.labels(result).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)


class _State(Collector):
    """What is looked up when it is asked for."""

    def __init__(self, table: Callable[[], Table], supervisors: Callable[[], list[Supervisor]]) -> None:
        self._table, self._supervisors = table, supervisors

    def describe(self) -> list[Metric]:
        """Nothing ahead of time: registering asks for no state."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The families."""
        ready = GaugeMetricFamily("trimtab_engine_ready", "1: verified and running", labels=["engine"])
        work = GaugeMetricFamily("trimtab_requests_in_work", "On each engine", labels=["engine"])
        starts = CounterMetricFamily("trimtab_engine_starts", "Starts of each engine", labels=["engine"])
        differs = GaugeMetricFamily(
            "trimtab_probe_difference_nats", "Last answers to probes against the artifact's", labels=["model"]
        )
        limits = GaugeMetricFamily("trimtab_probe_limit_nats", "The most that is allowed", labels=["model"])
        for supervisor in self._supervisors():
            name = supervisor.process.engine.name
            ready.add_metric([name], supervisor.process.ready)
            work.add_metric([name], supervisor.process.in_work)
            starts.add_metric([name], supervisor.process.starts)
            for model, (worst, limit) in supervisor.differences.items():
                differs.add_metric([model], worst)
                limits.add_metric([model], limit)
        weights = GaugeMetricFamily("trimtab_alias_weight", "Weights of aliases", labels=["alias", "model"])
        for alias, models in self._table().aliases.items():
            for model, weight in models.items():
                weights.add_metric([alias, model], weight)
        yield from (ready, work, starts, differs, limits, weights)
