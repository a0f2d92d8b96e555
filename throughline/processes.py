"""Which processes the embedded stack runs for the services, and with which roles."""

from deploy.embedded.programs import ServiceProcess
from throughline.services import SERVICES

# Capture's api has a process of its own: taking facts in must not wait for anything that is done with them.
# Somebody waits for a lead's score and its rep, and for a late touch in a report; what nurture does has a moment.
GIVES_WAY = 5
PROCESSES = (
    ServiceProcess("capture-api", "capture", ("api",)),
    ServiceProcess("capture-worker", "capture", ("consumer", "worker")),
    *(
        ServiceProcess(service, service, ("api", "consumer", "worker"), nice)
        for service, nice in (("scoring", 0), ("routing", 0), ("nurture", GIVES_WAY), ("attribution", 0))
    ),
)

# What all of them import, so that the stack imports it once.
ENTRY = "throughline.main:app"
MODULES = (
    "throughline.main",
    "shared.service",
    *(f"services.{service}.{role}" for service in SERVICES for role in ("api", "consumer", "worker")),
)
