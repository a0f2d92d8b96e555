"""Spans, where an exporter is set; without one they cost a comparison, and nothing is imported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import SpanContext, Tracer

Kind = Literal["server", "consumer", "producer"]
_MOST_LINKS = 32
_tracer: Tracer | None = None


def start_telemetry(service: str, endpoint: str | None) -> None:
    """Export spans to an OTLP endpoint, if one is set; without one nothing is imported."""
    if endpoint is None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # paid by use
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({"service.name": f"throughline-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    use_provider(provider)


def use_provider(provider: TracerProvider | None) -> None:
    """Make spans with this provider from now on; None: no more."""
    global _tracer  # noqa: PLW0603  # one per process, like the logs
    _tracer = None if provider is None else provider.get_tracer("throughline")


def tracing() -> bool:
    """Whether spans are made."""
    return _tracer is not None


@contextmanager
def span(name: str, kind: Kind, causes: Iterable[str | None] = (), *, batch: bool = False) -> Iterator[str | None]:
    """A span over the block; answers its `traceparent`, or None where no spans are made.

    It is a child of its cause (a `traceparent`); as a batch it is linked to its causes instead. They are looked at only
    if spans are made. Of an error it keeps the kind, never the text.
    """
    if _tracer is None:
        yield None
        return
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    propagator = TraceContextTextMapPropagator()
    known = [
        propagator.extract({"traceparent": cause}) for cause in islice(dict.fromkeys(causes), _MOST_LINKS) if cause
    ]
    contexts: list[SpanContext] = [trace.get_current_span(context).get_span_context() for context in known]
    made = _tracer.start_as_current_span(
        name,
        context=None if batch or not known else known[0],
        kind=trace.SpanKind[kind.upper()],
        links=[trace.Link(context) for context in contexts] if batch else [],
        record_exception=False,
        set_status_on_exception=False,
    )
    with made as current:
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        try:
            yield carrier.get("traceparent")
        except BaseException as exc:
            current.set_status(trace.StatusCode.ERROR, type(exc).__name__)
            raise
