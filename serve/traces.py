"""OpenTelemetry spans of requests, where the environment names a collector (``OTEL_EXPORTER_OTLP_ENDPOINT``).

Names are those of OpenTelemetry's semantic conventions for generative AI
(https://opentelemetry.io/docs/specs/semconv/gen-ai/).
"""

import os
from typing import Any

from trimtab.artifacts.errors import InputError
from trimtab.serve.records import RequestRecord, Sink

_COLLECTOR = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_NANO = 1_000_000_000


def make_tracer() -> Sink | None:
    """A sink that sends a span a request, in the background; None where no collector is named."""
    if not any(os.environ.get(name) for name in _COLLECTOR):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InputError(
            f"{' or '.join(_COLLECTOR)} is set, and OpenTelemetry is not installed: "
            "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http, or unset it"
        ) from error
    return spans(BatchSpanProcessor(OTLPSpanExporter()))


def spans(processor: Any) -> Sink:
    """A sink that gives a span a request to a span processor of OpenTelemetry's SDK."""
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    provider = TracerProvider(resource=Resource.create({"service.name": "trimtab"}))
    provider.add_span_processor(processor)
    tracer, propagator = provider.get_tracer("trimtab.serve"), TraceContextTextMapPropagator()

    def see(record: RequestRecord) -> None:
        operation = "chat" if record.path.startswith("/v1/chat") else "text_completion"
        given = {
            "gen_ai.operation.name": operation if record.method == "POST" else None,
            "gen_ai.request.model": record.asked,
            "gen_ai.response.model": record.model,
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.output_tokens": record.completion_tokens,
            "http.response.status_code": record.status,
            "trimtab.request_id": record.id,
            "trimtab.key": record.key,
            "trimtab.outcome": record.outcome,
            "trimtab.first_token_seconds": record.first,
        }
        span = tracer.start_span(
            f"{record.method} {record.path}",
            context=propagator.extract({"traceparent": record.parent or ""}),
            kind=trace.SpanKind.SERVER,
            attributes={name: value for name, value in given.items() if value not in (None, "")},
            start_time=round(record.began * _NANO),
        )
        if record.status >= 500 or record.outcome in ("broken", "cut"):
            span.set_status(trace.StatusCode.ERROR, record.error)
        span.end(round((record.began + record.seconds) * _NANO))

    return see
