"""W3C trace context, carried from the request through the event log and Kafka; spans only where an exporter is set."""

import os
import re
from contextvars import ContextVar

_TRACEPARENT = re.compile(r"^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$")
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


def current_trace() -> str | None:
    """The `traceparent` that the present work belongs to."""
    return _current.get()


def set_trace(traceparent: str | None) -> None:
    """Say which trace the work from here on belongs to."""
    _current.set(traceparent)


def parse_trace(text: str | None) -> str | None:
    """The header's value if it is well-formed, else None."""
    return text if text and _TRACEPARENT.match(text) else None


def new_trace() -> str:
    """A new trace, not sampled."""
    digits = os.urandom(24).hex()
    return f"00-{digits[:32]}-{digits[32:]}-00"


def start_telemetry(service: str, endpoint: str | None) -> None:
    """Export spans to an OTLP endpoint, if one is set; without one nothing is imported."""
    if endpoint is None:
        return
    from opentelemetry import trace  # noqa: PLC0415  # only paid for where it is switched on
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({"service.name": f"throughline-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    trace.set_tracer_provider(provider)
