"""Logs, metrics and trace context: an event name and fields, never an address, name or body."""

from shared.telemetry._errors import describe
from shared.telemetry._logs import configure_logs, log
from shared.telemetry._metrics import counter, gauge, histogram, render
from shared.telemetry._spans import span, start_telemetry, tracing, use_provider
from shared.telemetry._trace import current_trace, new_trace, parse_trace, set_trace

__all__ = [
    "configure_logs",
    "counter",
    "current_trace",
    "describe",
    "gauge",
    "histogram",
    "log",
    "new_trace",
    "parse_trace",
    "render",
    "set_trace",
    "span",
    "start_telemetry",
    "tracing",
    "use_provider",
]
