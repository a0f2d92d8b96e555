"""Which processes the embedded stack runs for the services, and with which roles."""

from deploy.embedded.programs import ServiceProcess
from throughline.services import SERVICES

# Capture's api has a process of its own: taking facts in must not wait for anything that is done with them.
PROCESSES = (
    ServiceProcess("capture-api", "capture", ("api",)),
    ServiceProcess("capture-worker", "capture", ("consumer", "worker")),
    *(
        ServiceProcess(service, service, ("api", "consumer", "worker"))
        for service in ("scoring", "routing", "nurture", "attribution")
    ),
)

# What all of them import, so that the stack imports it once.
ENTRY = "throughline.main:app"
MODULES = (
    "throughline.main",
    "shared.service",
    *(f"services.{service}.{role}" for service in SERVICES for role in ("api", "consumer", "worker")),
)
