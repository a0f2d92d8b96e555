"""JSON lines on standard output: an event name and fields, never an address, a name or a body."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog

from shared.telemetry._errors import describe

_ADDRESS = re.compile(r"[\w.+%-]+@[\w-]+\.[\w.-]+")
_LONG_NUMBER = re.compile(r"\+\d{7,15}\b")
_SERVER_ERRORS = ("uvicorn.error", "asyncio")
"""Loggers of libraries whose messages hold the text of an error, or a repr of what failed."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def redacted(value: Any) -> Any:
    """A value to be logged without the personal data that slipped into its texts."""
    if isinstance(value, str):
        return _LONG_NUMBER.sub("[phone]", _ADDRESS.sub("[email]", value))
    if isinstance(value, dict):
        return {redacted(name): redacted(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(each) for each in value]
    if isinstance(value, BaseException):
        return describe(value)
    return value


def _redact(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: redacted(value) for name, value in fields.items()}


def _describe_error(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The error that is under way or was given, described; see `describe`."""
    given = fields.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        fields["fault"] = describe(error)
    return fields


def _dumps(value: Any, default: Any = None) -> str:
    return orjson.dumps(value, default=default or str).decode()


class _WithoutText(logging.Filter):
    """Leaves of a library's message only its first line, up to where it begins to quote."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = record.getMessage().partition("\n")[0].partition(":")[0]
        record.args = None
        return True


class _WithoutDroppedClients(logging.Filter):
    """Leaves out what asyncio says of the tasks of a Kafka client that was dropped: whoever dropped it has said so."""

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        return not (said.startswith("Task was destroyed") and "/aiokafka/" in said)


def configure_logs(service: str, level: str) -> None:
    """Send this process's logs, the libraries' included, to standard output as JSON lines."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        _describe_error,
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
    logging.getLogger("asyncio").addFilter(_WithoutDroppedClients())
    for name in _SERVER_ERRORS:
        logging.getLogger(name).addFilter(_WithoutText())
