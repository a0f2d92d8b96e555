"""The five services by name; the only table that knows them all."""

from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.service import ServiceCode

SERVICES = ("capture", "scoring", "routing", "nurture", "attribution")


def service_code(name: str) -> "ServiceCode":
    """The entry points of a service. Raises KeyError for a name that is none."""
    from shared.service import ServiceCode

    if name not in SERVICES:
        raise KeyError(name)
    worker = import_module(f"services.{name}.worker")
    consumer = import_module(f"services.{name}.consumer")
    return ServiceCode(
        name=name,
        routers=import_module(f"services.{name}.api").routers,
        routes=consumer.routes,
        timers=worker.timers,
        settle=getattr(worker, "settle", None),
        gather=getattr(consumer, "GATHER", timedelta(0)),
    )
