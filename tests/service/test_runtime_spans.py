"""Where an exporter is set, one trace leads from the request through the log and Kafka to each service's handler."""

import secrets
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from shared.settings import Settings
from shared.telemetry import span, use_provider
from shared.testing import eventually, harness
from throughline.services import service_code

TOUCH = {"anonymous_id": "b-1", "type": "page_view", "url": "https://a.example/?q=Zyxwvut"}


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    made = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(made))
    use_provider(provider)
    yield made
    use_provider(None)


async def test_a_trace_leads_from_the_request_to_the_handler(
    kafka_settings: Settings, exporter: InMemorySpanExporter
) -> None:
    trace_id = secrets.token_hex(16)
    async with (
        harness(service_code("capture"), kafka_settings, kafka=True) as capture,
        harness(service_code("attribution"), kafka_settings, kafka=True),
    ):
        headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
        answer = await capture.client.post("/v1/touches", json=TOUCH, headers=headers)
        assert answer.status_code == 202

        def handled() -> list[ReadableSpan]:
            return [one for one in exporter.get_finished_spans() if one.name == "throughline.touch.recorded.v1 process"]

        (handler,) = await eventually(handled)
    spans = exporter.get_finished_spans()
    (request,) = [one for one in spans if one.kind is SpanKind.SERVER]
    published = [one for one in spans if one.kind is SpanKind.PRODUCER]
    assert request.context is not None
    assert f"{request.context.trace_id:032x}" == trace_id
    assert handler.context is not None
    assert handler.parent is not None
    assert (handler.context.trace_id, handler.parent.span_id) == (request.context.trace_id, request.context.span_id)
    assert request.context.span_id in {link.context.span_id for one in published for link in one.links}
    assert "Zyxwvut" not in "".join(one.to_json() for one in spans)


def test_of_an_error_a_span_keeps_the_kind_and_not_the_text(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="Zyxwvut"), span("work", "consumer"):
        raise ValueError("Zyxwvut")
    (made,) = exporter.get_finished_spans()
    assert (made.status.status_code, made.status.description) == (StatusCode.ERROR, "ValueError")
    assert "Zyxwvut" not in made.to_json()
