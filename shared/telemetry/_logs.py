"""JSON lines on standard output."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog

_ADDRESS = re.compile(r"[\w.+%-]+@[\w-]+\.[\w.-]+")
_LONG_NUMBER = re.compile(r"\+\d{7,15}\b")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def _redact(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Personal data that slipped into an error's text does not leave the process."""
    for name, value in fields.items():
        if isinstance(value, str):
            fields[name] = _LONG_NUMBER.sub("[phone]", _ADDRESS.sub("[email]", value))
    return fields


def _dumps(value: Any, default: Any = None) -> str:
    return orjson.dumps(value, default=default or str).decode()


def configure_logs(service: str, level: str) -> None:
    """Send this process's logs, the libraries' included, to standard output as JSON lines."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        structlog.processors.format_exc_info,
        _redact,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_dumps),
            ],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
    # A broker that is away makes the client say so many times a second; our own back-offs say it once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
